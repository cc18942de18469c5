"""Counts on a real SLURM: the table is that of one process, whatever happens."""

import json
import random
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nucleiseg import synthetic
from nucleiseg.cluster.rendezvous import find_meeting
from nucleiseg.runs import CountRun
from tests import interruptions
from tests.interruptions import (
    BY_NAME,
    INTERRUPTIONS,
    Faults,
    Scene,
    call,
    settings,
    submit_count,
)

pytestmark = pytest.mark.slow

N_IMAGES = 160
SHARD = 4
SETTINGS = settings(**{"shards.images": SHARD, "cluster.signal_delay_s": 30})

# A run directory and an archive that a shell would tear apart.
HOSTILE = 'it\'s a "run" of $HOME & größe; #1'


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """160 synthetic images of 32x32."""
    path = tmp_path_factory.mktemp("archive") / "a.npz"
    np.savez(path, X=synthetic.draw_fields(N_IMAGES, (32, 32), seed=6)[0])
    return path


@pytest.fixture(scope="module")
def expected(archive, model, tmp_path_factory):
    """The table that one process makes, without any cluster."""
    root = tmp_path_factory.mktemp("here") / "run"
    answer = call(
        *("count", archive, "--model", model, "--run", root, "--workers", 0),
        *settings(**{"inference.device": "cpu"}),
        *SETTINGS,
    )
    assert answer.returncode == 0, answer.stderr
    return (root / "counts.csv").read_bytes()


@pytest.fixture
def start(slurm, archive, model, tmp_path):
    """Send a count off; its shards are slow until told otherwise."""

    def start(*options, workers=2, archive=archive, root=tmp_path / "run", **values):
        faults = Faults(tmp_path / "faults")
        faults.slow_down(1)
        answer = submit_count(
            *(slurm, root, [archive], model, "--workers", workers, *SETTINGS),
            *settings(**values),
            *options,
            faults=faults,
        )
        assert answer.returncode == 0, answer.stderr
        return Scene(slurm, root, faults)

    return start


def read_records(root):
    """What the jobs of a run said of themselves, last."""
    return [json.loads(path.read_text()) for path in root.glob("workers/*.json")]


def gpus_of(root):
    """Node and GPU of each worker."""
    return [
        (record["node"], re.search(r"CUDA_VISIBLE_DEVICES=(\S+?)\)", device)[1])
        for record in read_records(root)
        for device in record["devices"]
    ]


def assert_finished(scene, expected):
    """The table is the expected one, and nothing else of the run is left."""
    assert scene.state() == "finished", scene.logs()
    assert (scene.root / "counts.csv").read_bytes() == expected
    assert not scene.jobs()
    assert not scene.processes()
    assert not (scene.root / "tls").exists()
    leftover = [path for path in scene.root.glob("attempts/**/*") if path.is_file()]
    assert leftover == []


def n_shards_repeated(scene):
    """Work that was begun more than once, in shards."""
    return (scene.faults.n_images_begun() - N_IMAGES) / SHARD


# --- nothing happens ---


@dataclass(frozen=True)
class Observed:
    """What was seen of a count with nothing in its way."""

    scene: Scene
    login_s: float
    strangers: list[str]


@pytest.fixture(scope="module")
def undisturbed(private_slurm, archive, model, tmp_path_factory):
    """Four workers on four GPUs of two nodes."""
    slurm = private_slurm()
    folder = tmp_path_factory.mktemp("undisturbed")
    faults = Faults(folder / "faults")
    faults.slow_down(1)
    start_s = time.monotonic()
    answer = submit_count(
        *(slurm, folder / "run", [archive], model, "--workers", 4, *SETTINGS),
        faults=faults,
    )
    login_s = time.monotonic() - start_s
    assert answer.returncode == 0, answer.stderr
    scene = Scene(slurm, folder / "run", faults)
    # A worker takes part when it is told a shard.
    scene.wait_until(
        lambda: len({each.pid for each in faults.computations()}) == 4, 120
    )
    strangers = meet_strangers(scene.root)
    scene.wait_for_end()
    return Observed(scene, login_s, strangers)


STRANGER = """\
import asyncio
import sys
from distributed import Security
from distributed.comm import connect

async def talk(address, security):
    arguments = security.get_connection_args("client") if security else {}
    comm = await connect(address, timeout=4, **arguments)
    await comm.write({"op": "identity", "reply": True})
    return await asyncio.wait_for(comm.read(), 4)

for address in sys.argv[1:]:
    plain = address.replace("tls://", "tcp://")
    for name, target, security in [
        ("none", address, None),
        ("plain", plain, None),
        ("others", address, Security.temporary()),
    ]:
        try:
            answer = asyncio.run(talk(target, security))
        except Exception as error:
            print(name, address, "refused", type(error).__name__)
        else:
            print(name, address, "answered", answer)
"""


def meet_strangers(root):
    """Try to talk to scheduler and workers from a process without their keys."""
    from distributed import Client

    run = CountRun(root)
    meeting = find_meeting(run)
    # The owner's client is served: the refusals are the strangers'.
    with Client(meeting.address, security=meeting.keys(run).security()) as client:
        workers = list(client.scheduler_info(n_workers=-1)["workers"])
    assert len(workers) == 4
    answer = subprocess.run(
        [sys.executable, "-c", STRANGER, meeting.address, *workers],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.splitlines()


def test_table_is_that_of_one_process(undisturbed, expected):
    assert_finished(undisturbed.scene, expected)
    assert n_shards_repeated(undisturbed.scene) == 0


def test_each_worker_has_a_gpu_of_its_own(undisturbed):
    assert sorted(gpus_of(undisturbed.scene.root)) == [
        *(("gpu0", "0"), ("gpu0", "1"), ("gpu1", "0"), ("gpu1", "1"))
    ]


def test_login_node_is_needed_for_seconds(undisturbed):
    assert undisturbed.login_s < 20


def test_strangers_are_refused_by_scheduler_and_workers(undisturbed):
    assert len(undisturbed.strangers) == 3 * 5
    assert all(" refused " in line for line in undisturbed.strangers)


def test_nobody_else_can_read_the_run(undisturbed):
    root = undisturbed.scene.root
    open_to_others = [
        path for path in (root, *root.rglob("*")) if path.stat().st_mode & 0o077
    ]
    assert open_to_others == []


def test_no_key_is_left(undisturbed):
    files = [path for path in undisturbed.scene.root.rglob("*") if path.is_file()]
    assert len(files) > 40
    assert not [path for path in files if b"PRIVATE KEY" in path.read_bytes()]


def test_whole_nodes_with_the_coordinator_in_the_first(start, expected):
    scene = start(
        workers=4,
        **{
            "cluster.gpus": 2,
            "cluster.cpus": 2,
            "cluster.memory_gb": 4,
            "cluster.coordinator": "worker",
        },
    )
    assert [job.job_id.partition("_")[2] for job in scene.jobs()] == ["0", "1"]
    scene.wait_until(
        lambda: len({each.pid for each in scene.faults.computations()}) == 4, 120
    )
    scene.wait_for_end()
    assert_finished(scene, expected)
    assert n_shards_repeated(scene) == 0
    assert sorted(gpus_of(scene.root)) == [
        *(("gpu0", "0"), ("gpu0", "1"), ("gpu1", "0"), ("gpu1", "1"))
    ]


# --- something is wrong from the start ---


def test_without_a_gpu_nothing_is_counted_in_silence(start):
    scene = start("--set", "inference.device=gpu", workers=1)
    scene.wait_for_end()
    assert scene.state() == "incomplete"
    progress = json.loads((scene.root / "progress.json").read_text())
    assert "TensorFlow sees no GPU" in progress["error"]
    assert scene.faults.computations() == []
    assert not (scene.root / "counts.csv").exists()


def test_unknown_partition_is_one_line_and_no_job(slurm, archive, model, tmp_path):
    site = tmp_path / "site.yaml"
    site.write_text("cluster: {partition: nowhere, coordinator_partition: cpu}\n")
    answer = call(
        *("count", archive, "--model", model, "--run", tmp_path / "run"),
        *("--cluster", "slurm", "--site", site, *SETTINGS),
        environment=slurm.environment,
    )
    assert answer.returncode == 2
    (line,) = answer.stderr.splitlines()
    assert "sbatch refused the workers" in line
    assert "nvalid partition" in line
    assert not [job for job in slurm.queue() if job.state != "COMPLETING"]


# --- one thing happens ---

ANYWHERE = [each for each in INTERRUPTIONS if not each.needs]


def assert_survives(scene, interruption, expected):
    """Interrupt a count once, in the middle; bounded work is done twice."""
    scene.wait_for_work(3)
    with scene.slurm.hastened():
        n_workers = interruption.apply(scene)
        assert n_workers is not None, scene.logs()
        assert 0 < scene.n_done() < N_IMAGES / SHARD
    scene.wait_for_end()
    assert_finished(scene, expected)
    assert 0 <= n_shards_repeated(scene) <= n_workers


@pytest.mark.parametrize(
    "name", [each.name for each in INTERRUPTIONS if not each.needs]
)
def test_survives(name, start, expected):
    assert_survives(start(), BY_NAME[name], expected)


@pytest.mark.parametrize(
    "slurm", [{"preempt_send_user_signal": False}], indirect=True, ids=["no signal"]
)
def test_survives_preemption_without_a_signal(start, expected):
    assert_survives(start(), BY_NAME["preempted"], expected)


@pytest.mark.parametrize(
    "slurm", [{"proctrack": "linuxproc"}], indirect=True, ids=["linuxproc"]
)
@pytest.mark.parametrize("name", ["all drain", "leader of coordinator killed"])
def test_survives_where_processes_are_tracked_otherwise(name, start, expected):
    # Signals reach the whole tree of processes, and orphans are not ended.
    assert_survives(start(), BY_NAME[name], expected)


def test_survives_its_time_limit(start, expected):
    scene = start()
    # So long that the limit comes in the middle of a shard, and that work is left.
    scene.faults.slow_down(3)
    assert_survives(scene, BY_NAME["time limit"], expected)


def test_coordinator_moves_to_another_node(start, expected):
    scene = start(**{"cluster.coordinator_partition": "gpu"})
    assert_survives(scene, BY_NAME["coordinator moved"], expected)


# --- a shard is not what it should be, or only seems so ---


def test_only_the_image_that_kills_is_given_up(start, expected, tmp_path):
    scene = start()
    scene.faults.slow_down(0)
    scene.faults.make_deadly(9)
    scene.wait_for_end()
    assert scene.state() == "finished", scene.logs()
    table = pd.read_csv(scene.root / "counts.csv")
    (tmp_path / "expected.csv").write_bytes(expected)
    good = pd.read_csv(tmp_path / "expected.csv")
    failed = table["status"] == "failed"
    assert table.index[failed].tolist() == [9]
    (reason,) = table.loc[failed, "reason"]
    assert "killed its worker 3 times (segmentation fault (SIGSEGV))" in reason
    pd.testing.assert_frame_equal(table[~failed], good[~failed], check_dtype=False)


def test_innocent_shard_is_never_given_up(start, expected):
    scene = start(workers=1)
    # The first shard never ends, and each time its worker is taken away.
    scene.faults.slow_down(600)
    for _ in range(5):
        n_before = len(scene.faults.computations())
        with scene.slurm.hastened():
            scene.wait_until(lambda n=n_before: scene.n_begun() > n, 120)
            assert interruptions.kill_leader(scene) == 1
    scene.wait_for_end()
    assert_finished(scene, expected)
    assert n_shards_repeated(scene) <= 5


# --- everything happens ---


def test_survives_a_storm(start, expected):
    scene = start(workers=4)
    scene = Scene(scene.slurm, scene.root, scene.faults, random.Random(7))
    scene.wait_for_work(2)
    hits = interruptions.rage(scene, 6, ANYWHERE, n_shards=N_IMAGES // SHARD)
    assert len(hits) == 6
    scene.wait_for_end(240)
    assert_finished(scene, expected)
    assert n_shards_repeated(scene) <= sum(hit.n_workers for hit in hits)


# --- the user changes their mind ---


def test_cancelled_run_goes_on_here_and_on_the_cluster(
    start, archive, model, expected, tmp_path
):
    folder = tmp_path / HOSTILE
    folder.mkdir()
    archive = Path(shutil.copy(archive, folder))
    scene = start(archive=archive, root=folder / "run")
    scene.wait_for_work(4)
    pids = [pid for job in scene.jobs() for pid in scene.slurm.processes_of(job.own_id)]
    start_s = time.monotonic()
    answer = call("cancel", scene.root, environment=scene.slurm.environment)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.count("ended  ") == 3
    assert time.monotonic() - start_s < 30
    assert scene.is_over()
    assert len(pids) > 6
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert 0 < scene.n_done() < N_IMAGES / SHARD
    assert not (scene.root / "tls").exists()
    assert call("status", scene.root, "--json").stdout.count('"cancelled"') == 1

    copy = Scene(scene.slurm, folder / "copy", scene.faults)
    shutil.copytree(scene.root, copy.root)
    scene.faults.slow_down(0)
    answer = call(
        *("count", archive, "--model", model, "--run", scene.root, "--workers", 0),
        *settings(**{"inference.device": "cpu"}),
        *SETTINGS,
        environment=scene.slurm.environment,
    )
    assert answer.returncode == 0, answer.stderr
    assert_finished(scene, expected)

    answer = submit_count(scene.slurm, copy.root, [archive], model, *SETTINGS)
    assert answer.returncode == 0, answer.stderr
    copy.wait_for_end()
    assert_finished(copy, expected)
