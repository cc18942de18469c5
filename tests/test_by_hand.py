"""Batch scripts that a site edits by hand, on a real SLURM; and its examples."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

from nucleiseg import synthetic
from nucleiseg.atomic import read_json
from nucleiseg.cluster import Record, record_submission
from nucleiseg.cluster.records import Recorder
from nucleiseg.config import ClusterConfig
from nucleiseg.counting.coordinate import _explain_absence
from nucleiseg.runs import CountRun, TrainRun
from nucleiseg.training import read_history
from tests.conftest import REPOSITORY, run_nucleiseg

# Every sign that a shell or SLURM could take for something else.
AWKWARD = 'it\'s "5 $HOME" `µm` *'
N_SHARDS = 150


class ByHand:
    """A checkout with a user's copy of `slurm/`, submitted from with sbatch."""

    def __init__(self, slurm, folder):
        self.slurm = slurm
        self.folder = folder
        shutil.copytree(REPOSITORY / "slurm", folder / "slurm")
        for name in ("jobs", "nucleiseg"):
            (folder / name).symlink_to(REPOSITORY / name)

    def edit(self, script, **values):
        """Set directives and variables, in the marked lines of a script only."""
        path = self.folder / "slurm" / script
        head, mark, rest = path.read_text().partition("# --- edit ---\n")
        block, end, tail = rest.partition("# --- end of edit ---\n")
        assert mark
        assert end
        for key, value in values.items():
            name = key if key.isupper() else f"#SBATCH --{key.replace('_', '-')}"
            line = re.compile(rf"^{name}=.*$", re.MULTILINE)
            block, n = line.subn(lambda _, new=f"{name}={value}": new, block)
            assert n == 1, key
        path.write_text(head + mark + block + end + tail)

    def set_python(self, *words):
        """Say in cluster.env how Python is started."""
        path = self.folder / "slurm/cluster.env"
        text = path.read_text()
        assert text.count("PYTHON=(python)\n") == 1
        path.write_text(text.replace("PYTHON=(python)", f"PYTHON=({quote(*words)})"))

    def submit(self, name, *options):
        answer = subprocess.run(
            ["sbatch", "--parsable", *options, f"slurm/{name}"],
            cwd=self.folder,
            # An active environment, and others' eyes shut out by nobody but the script.
            env=os.environ
            | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            umask=0o022,
            capture_output=True,
            text=True,
            check=True,
        )
        assert not answer.stderr
        return answer.stdout.strip()

    def logs(self):
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def wait(self, predicate, timeout_s=120):
        try:
            return self.slurm.wait_until(predicate, timeout_s)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n--- jobs\n{self.logs()}") from error

    def wait_for_end(self, timeout_s=120):
        with self.slurm.hastened():
            self.wait(lambda: not self.slurm.queue(), timeout_s)

    def leader(self, job_id, module):
        """Process of a job that runs a module."""
        (pid,) = (
            pid
            for pid in self.slurm.processes_of(job_id, steps_only=True)
            if module in command_line(pid)
        )
        return pid


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def quote(*words):
    return " ".join(shlex.quote(str(word)) for word in words)


@pytest.fixture
def by_hand(slurm, tmp_path):
    (tmp_path / "a checkout").mkdir()
    return ByHand(slurm, tmp_path / "a checkout")


@dataclass
class Images:
    paths: list[Path]
    table: bytes
    """As counted in place."""


@pytest.fixture(scope="module")
def images(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images") / AWKWARD
    folder.mkdir()
    drawn, _ = synthetic.draw_fields(2 * N_SHARDS, (64, 64), seed=8)
    paths = [folder / "first half.npz", folder / "second.npz"]
    for path, part in zip(paths, np.split(drawn, 2), strict=True):
        np.savez(path, X=part)
    run = CountRun(folder / "in place")
    answer = run_nucleiseg(
        *("count", *paths, "--model", model, "--run", run.root),
        *("--workers", 0, "--set", "inference.device=cpu"),
    )
    assert answer.returncode == 0, answer.stderr
    return Images(paths, run.table("csv").read_bytes())


@pytest.fixture
def count(by_hand, images, model, tmp_path):
    """An edited count.sbatch: four jobs, on two nodes of two GPUs each."""
    run = CountRun(tmp_path / "runs" / AWKWARD)
    by_hand.edit(
        "count.sbatch",
        mem="1000",
        cpus_per_task="1",
        MODEL=quote(model),
        RUN=quote(run.root),
        ARCHIVES=f"({quote(*images.paths)})",
        SETTINGS="(--set inference.device=cpu --set shards.images=2)",
    )
    return run


def wait_for_parts(by_hand, run, number):
    by_hand.wait(lambda: run.parts.exists() and len(os.listdir(run.parts)) >= number)
    assert len(os.listdir(run.parts)) < N_SHARDS


def assert_counted(run, images, by_hand):
    assert run.table("csv").exists(), by_hand.logs()
    assert run.table("csv").read_bytes() == images.table
    assert read_json(run.jobs.progress)["state"] == "finished"
    assert not run.tls.exists()
    for path in (run.root, *run.root.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.slow
def test_array_counts_what_is_counted_in_place(by_hand, count, images):
    job = by_hand.submit("count.sbatch")
    wait_for_parts(by_hand, count, 1)
    assert {each.node for each in by_hand.slurm.queue()} == {"gpu0", "gpu1"}
    other = by_hand.submit("count.sbatch", "--partition=cpu", "--gpus-per-node=0")
    by_hand.wait_for_end()
    assert_counted(count, images, by_hand)
    records = [read_json(path) for path in count.jobs.records.glob("*.json")]
    assert {each["name"] for each in records} == {f"{job}_{n}" for n in range(4)}
    # Logs are where the script says, one for each job.
    assert len(list(by_hand.folder.glob(f"nucleiseg-count_{job}_[0-3].log"))) == 4
    refusal = (by_hand.folder / f"nucleiseg-count_{other}_0.log").read_text()
    assert f"{count.root} is being worked on by job {job}_" in refusal


@pytest.mark.slow
def test_killed_first_job_is_requeued_and_goes_on(by_hand, count, images):
    by_hand.edit("count.sbatch", array="2-3")
    job = by_hand.submit("count.sbatch")
    wait_for_parts(by_hand, count, 3)
    os.kill(by_hand.leader(f"{job}_2", b"jobs.count"), signal.SIGKILL)
    by_hand.wait_for_end()
    assert_counted(count, images, by_hand)
    assert read_json(count.jobs.records / f"{job}_2.json")["restarts"] == 1


@pytest.mark.slow
def test_warned_jobs_without_slurm_in_their_container_go_on(by_hand, count, images):
    # As in a container: Python is there, and nothing of SLURM.
    by_hand.set_python("env", f"PATH={Path(sys.executable).parent}", "python")
    job = by_hand.submit("count.sbatch", "--array=0-1")
    wait_for_parts(by_hand, count, 3)
    by_hand.slurm.run("scancel", "--signal=USR2", job)
    by_hand.wait_for_end()
    assert_counted(count, images, by_hand)
    records = [read_json(path) for path in count.jobs.records.glob("*.json")]
    assert [each["restarts"] for each in records] == [1, 1]
    assert all(each["error"] is None for each in records)


def test_array_whose_first_job_cannot_start_ends(by_hand, count):
    by_hand.edit("count.sbatch", ARCHIVES="(missing.npz)")
    job = by_hand.submit("count.sbatch")
    by_hand.wait_for_end(40)
    log = (by_hand.folder / f"nucleiseg-count_{job}_0.log").read_text()
    assert log.startswith("jobs.count: nothing to count: ")
    assert "missing.npz: not found" in log
    assert not count.plan.exists()


def test_run_ends_when_all_jobs_gave_up_in_a_container(tmp_path, monkeypatch):
    run = CountRun(tmp_path)
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "2")
    record_submission(run.jobs, "workers", "7")

    def record(**values):
        Recorder(run.jobs, Record(host="node", **values)).say()

    monkeypatch.setenv("PATH", "")
    record(name="7_0", role="coordinator", state="working", error="it sees no GPU")
    record(name="7_1", role="workers", state="ended")
    assert _explain_absence(run) is None  # perhaps preempted
    record(name="7_1", role="workers", state="failed")
    assert "the last error: it sees no GPU" in _explain_absence(run)


@pytest.fixture
def training(by_hand, model, tmp_path):
    """An edited train.sbatch that trains `model` again."""
    run = TrainRun(tmp_path / "runs" / AWKWARD)
    by_hand.edit(
        "train.sbatch",
        mem="2000",
        cpus_per_task="1",
        CONFIG=quote(model.parent.parent / "small.yaml"),
        RUN=quote(run.root),
        SETTINGS="(training.device=cpu)",
    )
    return run


@pytest.mark.slow
def test_training_that_is_killed_goes_on(by_hand, training, model):
    job = by_hand.submit("train.sbatch")

    def wait_for_epoch(number):
        by_hand.wait(lambda: read_history(training).epochs >= number)

    wait_for_epoch(1)
    os.kill(by_hand.leader(job, b"nucleiseg"), signal.SIGKILL)
    record = training.jobs.records / f"{job}.json"
    by_hand.wait(lambda: read_json(record)["deaths"] == 1)
    wait_for_epoch(2)
    os.kill(by_hand.leader(job, b"jobs.train"), signal.SIGKILL)
    by_hand.wait_for_end()
    assert training.bundle.info.exists(), by_hand.logs()
    assert training.history.read_bytes() == (model.parent / "history.csv").read_bytes()
    assert read_json(record)["restarts"] == 1
    for path in (training.root, *training.root.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize("option", ["--ntasks=2", "--nodes=2"])
def test_training_in_several_processes_is_refused(by_hand, training, option):
    by_hand.submit("train.sbatch", option)
    by_hand.wait_for_end(40)
    assert "jobs.train: SLURM started 2 tasks on" in by_hand.logs()
    assert "Keras 3 does not train under TensorFlow's MultiWorkerMirroredStrategy" in (
        by_hand.logs()
    )
    assert not training.root.exists()


@pytest.mark.parametrize("name", ["count.sbatch", "train.sbatch", "cluster.env"])
def test_scripts_are_bash(name):
    subprocess.run(["bash", "-n", REPOSITORY / "slurm" / name], check=True)


@pytest.mark.parametrize("name", ["count.sbatch", "train.sbatch"])
def test_scripts_have_one_warning_time(name):
    text = (REPOSITORY / "slurm" / name).read_text()
    (sent,) = re.findall(r"^#SBATCH --signal=USR2@(\d+)$", text, re.MULTILINE)
    (told,) = re.findall(r"^WARNING_S=(\d+)", text, re.MULTILINE)
    assert sent == told == str(ClusterConfig().signal_delay_s)
    assert f"MAX_RESTARTS={ClusterConfig().max_restarts}\n" in text


def test_scripts_requeue_as_submitted_jobs_do(model, images):
    text = run_nucleiseg(
        *("count", images.paths[0], "--model", model, "--run", "run"),
        *("--cluster", "slurm", "--dry-run"),
    ).stdout
    cases = re.findall(r"^  (.* \| .*)\)$", text, re.MULTILINE)
    assert cases
    for name in ("count.sbatch", "train.sbatch"):
        script = (REPOSITORY / "slurm" / name).read_text()
        assert set(cases) == set(re.findall(r"^  (.* \| .*)\)$", script, re.MULTILINE))


def read_site(name, *, is_uncommented=False):
    path = REPOSITORY / f"configs/cluster-{name}.yaml"
    text = path.read_text()
    if is_uncommented:
        text = re.sub(r"^  # (\w+: )", r"  \1", text, flags=re.MULTILINE)
    return yaml.safe_load(text)


@pytest.mark.parametrize("name", ["example", "whole-nodes"])
def test_site_is_sent_by_the_command_at_its_head(name, model, images):
    head = (REPOSITORY / f"configs/cluster-{name}.yaml").read_text().partition("\nc")[0]
    assert f"--cluster slurm --site {name}\n" in head
    answer = run_nucleiseg(
        *("count", *images.paths, "--model", model, "--run", "run"),
        *("--cluster", "slurm", "--site", name, "--dry-run"),
        *("--set", "shards.images=1"),
        cwd=REPOSITORY,
    )
    assert answer.returncode == 0, answer.stderr
    n_batches = {"example": 2, "whole-nodes": 1}[name]
    assert answer.stdout.count("#!/bin/bash") == n_batches
    n_jobs = {"example": 8, "whole-nodes": 2}[name]
    assert f"#SBATCH --array=0-{n_jobs - 1}%{n_jobs}\n" in answer.stdout
    assert f"#SBATCH --gpus-per-node={8 // n_jobs}\n" in answer.stdout


def test_example_of_a_site_has_every_setting():
    cluster = read_site("example", is_uncommented=True)["cluster"]
    assert set(cluster) == set(ClusterConfig.model_fields)
    ClusterConfig.model_validate(cluster)
    defaults = ClusterConfig()
    active = read_site("example")["cluster"]
    for key in ("signal_delay_s", "idle_min", "max_restarts"):
        assert cluster[key] == getattr(defaults, key) or key in active


def test_container_takes_only_files_that_exist():
    text = (REPOSITORY / "slurm/nucleiseg.def").read_text()
    sections = dict(
        re.findall(r"^%(\w+)\n(.*?)(?=^%|\Z)", text, re.MULTILINE | re.DOTALL)
    )
    sources = [line.split()[0] for line in sections["files"].split("\n") if line]
    assert {"pyproject.toml", "nucleiseg", "jobs"} <= set(sources)
    for source in sources:
        assert (REPOSITORY / source).exists(), source
    # What the build needs of the project is among them.
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert {project["readme"], *project["license-files"]} <= set(sources)
    assert "gpu" in project["optional-dependencies"]
    for name in re.findall(r"slurm/[\w.]+", text):
        assert (REPOSITORY / name).exists(), name
    for script in ("post", "environment", "runscript", "test"):
        subprocess.run(["bash", "-n"], input=sections[script], text=True, check=True)
