"""Workers in processes of their own: who may reach them, and what their death costs."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from multiprocessing import popen_spawn_posix
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from distributed import Scheduler
from distributed.process import AsyncProcess

from nucleiseg import synthetic
from nucleiseg.cluster import Workers, open_team
from nucleiseg.cluster.crew import Crew
from nucleiseg.cluster.place import Place
from nucleiseg.cluster.rendezvous import Meeting, make_keys
from nucleiseg.config import load_config
from nucleiseg.counting import claim, count, prepare
from nucleiseg.runs import CountRun


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """Client of a scheduler with one idle worker."""
    root = tmp_path_factory.mktemp("idle")
    with open_team(root, "", Workers(1, 1)) as team:
        team._client.wait_for_workers(1, timeout=60)
        yield team._client


def listening_addresses(pids):
    """Local addresses that processes listen on, from the kernel's tables."""
    inodes = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = os.readlink(descriptor)
            except FileNotFoundError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[len("socket:[") : -1])
    addresses = set()
    for table in ("tcp", "tcp6"):
        lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        for fields in map(str.split, lines):
            is_listening = fields[3] == "0A"
            if is_listening and fields[9] in inodes:
                addresses.add(fields[1].split(":")[0])
    return addresses


def test_scheduler_and_worker_listen_on_the_loopback_only(client):
    pids = [os.getpid(), *client.run(os.getpid).values()]
    assert listening_addresses(pids) == {"0100007F"}


def test_all_addresses_are_encrypted(client):
    information = client.scheduler_info()
    addresses = [information["address"], *information["workers"]]
    assert len(addresses) == 2
    assert all(address.startswith("tls://127.0.0.1:") for address in addresses)


@pytest.mark.parametrize("path", ["status", "info/main/workers.html", "metrics", "api"])
def test_there_are_no_web_pages(client, path):
    port = client.scheduler_info()["services"]["dashboard"]
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=10)
    assert caught.value.code == 404


@pytest.mark.parametrize("keys", ["none", "plain", "others"])
def test_a_stranger_cannot_connect(client, keys):
    """From another process, which has another memory and so other keys."""
    information = client.scheduler_info()
    for address in (information["address"], *information["workers"]):
        script = (
            "import sys\n"
            "from distributed import Client, Security\n"
            "from distributed.comm import connect\n"
            "import asyncio\n"
            f"address, keys = {address!r}, {keys!r}\n"
            "if keys == 'plain': address = address.replace('tls', 'tcp')\n"
            "security = Security.temporary() if keys == 'others' else None\n"
            "arguments = security.get_connection_args('client') if security else {}\n"
            "async def talk():\n"
            "    comm = await connect(address, timeout=4, **arguments)\n"
            "    await comm.write({'op': 'identity', 'reply': True})\n"
            "    return await asyncio.wait_for(comm.read(), 4)\n"
            "try:\n"
            "    answer = asyncio.run(talk())\n"
            "except Exception as error:\n"
            "    print('refused', type(error).__name__)\n"
            "else:\n"
            "    print('answered', answer)\n"
        )
        answer = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert answer.stdout.startswith("refused"), answer.stdout + answer.stderr
    # The owner's client is still served: the refusals above were the stranger's.
    assert client.submit(sum, [1, 2]).result(timeout=30) == 3


def test_no_key_is_left_on_disk(client):
    folders = client.run(lambda dask_worker: dask_worker.local_directory).values()
    for folder in folders:
        for path in Path(folder).parents[1].rglob("*"):
            if path.is_file():
                assert b"PRIVATE KEY" not in path.read_bytes()


# This thread at once: sent to the process, the signal may find another one first, and
# the image be counted in between.
KILLER = """\
import signal, threading
import cv2

original = cv2.connectedComponents

def deadly(mask, *arguments, **options):
    if mask.shape == (48, 80):
        signal.pthread_kill(threading.get_ident(), signal.SIGSEGV)
    return original(mask, *arguments, **options)

cv2.connectedComponents = deadly
"""


@pytest.mark.slow
def test_images_that_kill_their_worker_cost_only_themselves(model, tmp_path):
    good, _ = synthetic.draw_fields(20, (32, 32), seed=1)
    bad, _ = synthetic.draw_fields(2, (48, 80), seed=1)
    archive = tmp_path / "a.npz"
    np.savez(archive, bad=bad, good=good)
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(KILLER)
    folder = tmp_path / "run"

    def run(command, *arguments, **environment):
        return subprocess.run(
            [sys.executable, "-m", "nucleiseg", command, *map(str, arguments)],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    answer = run(
        *("count", f"{archive}:*", "--model", model, "--run", folder),
        *("--workers", "2", "--set", "shards.images=5"),
        PYTHONPATH=str(tmp_path / "hook"),
    )
    assert answer.returncode == 1, answer.stderr
    assert "22 images, " in answer.stdout
    assert ", 2 failed" in answer.stdout
    table = pd.read_csv(folder / "counts.csv")
    # Twice the shard, then each of its images three times: nobody else is in between.
    assert answer.stderr.count("died: segmentation fault") == 8
    assert table["status"].tolist() == ["failed"] * 2 + ["ok"] * 20
    (reason,) = set(table["reason"].dropna())
    assert reason == "it killed its worker 3 times (segmentation fault (SIGSEGV))"
    assert not list((folder / "attempts").rglob("*.json"))

    # Where it was the machine's fault, another one has a chance to count them.
    answer = run("retry", folder)
    assert answer.returncode == 0, answer.stderr
    assert "2 images in 1 shard (4 more are there)" in answer.stderr
    here = tmp_path / "here"
    config = load_config(None, ["shards.images=5"])
    count(prepare([f"{archive}:*"], model, config), here, workers=0)
    assert (folder / "counts.csv").read_bytes() == (here / "counts.csv").read_bytes()
    assert len(pd.read_csv(folder / "counts.csv")) == 22


@pytest.mark.parametrize(
    ("granted", "n_workers", "dealt"),
    [
        ((), 2, [None, None]),
        (("3",), 1, [None]),
        (("3",), 2, ["3", "3"]),
        (("0", "1"), 1, [None]),
        (("0", "1"), 2, ["0", "1"]),
        (("0", "1"), 4, ["0", "1", "0", "1"]),
    ],
)
def test_gpus_of_a_job_are_dealt_out(tmp_path, granted, n_workers, dealt):
    place = Place("7", 0, 0, "node1", None, granted, is_slurm=True)
    crew = Crew(
        CountRun(tmp_path), "plan", None, place, None, n_workers=n_workers, scratch=None
    )
    assert [crew._gpu(number) for number in range(n_workers)] == dealt


def test_a_worker_that_goes_slowly_fails_no_run(tmp_path, monkeypatch, caplog):
    with open_team(tmp_path, "", Workers(1, 1)) as team:
        team._client.wait_for_workers(1, timeout=60)
        (pid,) = team._client.run(os.getpid).values()

        async def join(self, timeout=None):
            raise TimeoutError

        # As on a node that swaps.
        monkeypatch.setattr(AsyncProcess, "join", join)
    assert "killed, and is not gone yet" in caplog.text
    deadline_s = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()


def test_no_worker_outlives_its_crew_even_one_that_is_just_being_started(
    model, tmp_path, monkeypatch
):
    archive = tmp_path / "a.npz"
    np.savez(archive, X=synthetic.draw_fields(4, (32, 32), seed=1)[0])
    run = CountRun(tmp_path / "run")
    config = load_config(None, ["inference.device=cpu"])
    prepared = prepare([archive], model, config, folder=run.root)
    claim(run, prepared.plan, config, prepared.model)
    plan = prepared.plan
    incarnation, keys = make_keys(run)
    begun = threading.Event()
    born = []
    launch = popen_spawn_posix.Popen._launch

    def launch_slowly(self, process):
        begun.set()
        time.sleep(1.5)
        launch(self, process)
        born.append(self.pid)

    async def close_amid_restart():
        async with Scheduler(
            **{"host": "127.0.0.1", "protocol": "tls", "security": keys.security()},
            dashboard=False,
            dashboard_address="127.0.0.1:0",
        ) as scheduler:
            crew = Crew(
                *(run, plan.identity, Meeting(scheduler.address, incarnation, "here")),
                *(Place("7", 0, 0, "here", None, (), is_slurm=False), config.cluster),
                n_workers=1,
                scratch=tmp_path,
            )
            await crew.start()
            (nanny,) = crew._nannies.values()
            monkeypatch.setattr(popen_spawn_posix.Popen, "_launch", launch_slowly)
            os.kill(nanny.pid, signal.SIGKILL)
            assert await asyncio.to_thread(begun.wait, 60)
        await crew.close()

    asyncio.run(close_amid_restart())
    deadline_s = time.monotonic() + 20
    while not born and time.monotonic() < deadline_s:
        time.sleep(0.05)
    (pid,) = born
    # Killed, and then buried by whoever waits for it.
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()
