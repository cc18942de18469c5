"""Training on a real SLURM: timed out, preempted and killed, and nothing is lost."""

import os
import signal
import subprocess
import sys
import time

import pytest

from nucleiseg.bundle import read_bundle
from nucleiseg.launching import cancel
from nucleiseg.monitoring import read_status
from nucleiseg.runs import TrainRun
from nucleiseg.training.checkpoints import load_newest
from tests.conftest import run_nucleiseg

pytestmark = pytest.mark.beside

EPOCHS = 30

# Epochs of at least seven seconds, however fast the machine is: of the one minute
# that a job may take, at most 50 s lie before the warning, so the 24 epochs after
# the preemption cannot end before a third warning.
SLOW_EPOCHS = """\
import os, time

original = os.replace
last_s = time.monotonic()

def slow(source, destination, **options):
    global last_s
    if os.path.basename(str(destination)).startswith("step-"):
        time.sleep(max(0, last_s + 7 - time.monotonic()))
        last_s = time.monotonic()
    return original(source, destination, **options)

os.replace = slow
"""


@pytest.fixture
def config(training_archive, tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text(
        f"data: {{archive: {training_archive}}}\n"
        "model: {head: mask, base_filters: 4, dropout: 0.1}\n"
        f"training: {{epochs: {EPOCHS}, batch_size: 8, device: cpu}}\n"
        "cluster: {gpus: 2, cpus: 1, memory_gb: 2, walltime_min: 1,"
        " signal_delay_s: 10}\n"
    )
    return path


@pytest.fixture
def slow_epochs(tmp_path, monkeypatch):
    folder = tmp_path / "hook"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SLOW_EPOCHS)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def leaders(slurm, job_id):
    """Processes of a job that lead it."""
    found = []
    for pid in slurm.processes_of(job_id, steps_only=True):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as stream:
                command = stream.read()
        except FileNotFoundError:
            continue
        if b"submitit.core._submit" in command and b"srun" not in command:
            found.append(pid)
    return found


def n_epochs(folder):
    path = folder / "history.csv"
    return path.read_text().count("\n") - 1 if path.exists() else 0


def state(folder):
    """Every bit of weights, optimiser and random state after the last epoch."""
    last = load_newest(TrainRun(folder))
    assert last.history.epochs == EPOCHS
    return [value.tobytes() for value in [*last.variables, *last.best, last.sums]]


@pytest.mark.slow
def test_it_goes_on_after_time_limits_preemption_and_a_kill(
    slurm, config, slow_epochs, tmp_path, monkeypatch
):
    folder = tmp_path / "run"
    start_s = time.monotonic()
    answer = run_nucleiseg("train", config, "--run", folder, "--cluster", "slurm")
    assert answer.returncode == 0, answer.stderr
    assert time.monotonic() - start_s < 30
    assert f"nucleiseg status {folder}" in answer.stdout
    (job_id,) = {job.job_id for job in slurm.queue()}

    def status():
        return read_status(folder, now_s=time.time())

    def restarts():
        return max([job.n_restarts for job in slurm.queue()], default=99)

    with slurm.hastened():
        slurm.wait_until(lambda: n_epochs(folder) >= 2, 240)
        assert status().state == "running"
        # Not so at once where two epochs took until the first warning.
        slurm.wait_until(
            lambda: status().jobs.states == {"training": {"working": 1}}, 120
        )
        n_before = restarts()
        (leader,) = leaders(slurm, job_id)
        os.kill(leader, signal.SIGKILL)
        slurm.wait_until(lambda: restarts() > n_before, 120)
        slurm.wait_until(lambda: n_epochs(folder) >= 5 and leaders(slurm, job_id), 240)
        slurm.preempt(slurm.queue()[0].node)
        slurm.wait_until(lambda: not slurm.queue(), 900)

    lines = (folder / "history.csv").read_text().splitlines()[1:]
    assert [int(line.partition(",")[0]) for line in lines] == [*range(1, EPOCHS + 1)]
    finished = status()
    assert (finished.state, finished.n_done) == ("finished", EPOCHS)
    # The kill, the preemption, and at least three time limits.
    assert finished.jobs.restarts >= 5
    assert finished.jobs.states == {"training": {"ended": 1}}
    log = (folder / "logs" / f"{job_id}_0_log.out").read_text()
    assert log.count("warned: a checkpoint may be written") >= 3
    read_bundle(folder / "model")

    # A finished run that is requeued does not start over. At once: SLURM forgets a
    # job a minute after its end.
    before = {path: path.stat().st_mtime_ns for path in (folder / "model").iterdir()}
    with slurm.hastened():
        slurm.run("scontrol", "requeue", job_id)
        slurm.wait_until(lambda: not slurm.queue(), 240)
    assert {
        path: path.stat().st_mtime_ns for path in (folder / "model").iterdir()
    } == before
    assert n_epochs(folder) == EPOCHS
    for path in [folder, *folder.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path

    # Nothing was lost or done twice: the same as without a single interruption.
    monkeypatch.delenv("PYTHONPATH")
    alone = tmp_path / "alone"
    answer = run_nucleiseg("train", config, "--run", alone)
    assert answer.returncode == 0, answer.stderr
    assert (folder / "history.csv").read_bytes() == (alone / "history.csv").read_bytes()
    assert state(folder) == state(alone)


@pytest.mark.slow
def test_it_is_cancelled_and_goes_on_in_place(slurm, config, tmp_path):
    folder = tmp_path / "run"
    sets = ["--set", "training.epochs=400"]
    answer = run_nucleiseg(
        "train", config, "--run", folder, "--cluster", "slurm", *sets
    )
    assert answer.returncode == 0, answer.stderr
    slurm.wait_until(lambda: n_epochs(folder) >= 2, 240)
    # A model that can count is there long before the end.
    read_bundle(folder / "model-so-far")

    answer = run_nucleiseg("train", config, "--run", folder, *sets)
    assert answer.returncode == 2
    assert "is being worked on by job" in answer.stderr

    start_s = time.monotonic()
    assert cancel(folder).remaining == []
    assert time.monotonic() - start_s < 20
    assert slurm.jobs_left() == []
    assert read_status(folder, now_s=time.time()).state == "cancelled"

    done = n_epochs(folder)
    process = subprocess.Popen(
        [sys.executable, "-m", "nucleiseg", "train", config, "--run", folder, *sets],
        stderr=subprocess.PIPE,
        text=True,
    )
    slurm.wait_until(lambda: n_epochs(folder) > done, 240)
    # As SLURM's warning reaches a training without a leader.
    process.send_signal(signal.SIGUSR2)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "stopped after epoch" in errors.splitlines()[-1]


@pytest.mark.slow
def test_without_the_gpu_that_it_wants_it_refuses(slurm, config, tmp_path):
    folder = tmp_path / "run"
    answer = run_nucleiseg(
        *("train", config, "--run", folder, "--cluster", "slurm"),
        *("--set", "training.device=gpu"),
        # It is to refuse, however slow the machine is, before any warning requeues it.
        *("--set", "cluster.walltime_min=5"),
    )
    assert answer.returncode == 0, answer.stderr
    slurm.wait_until(lambda: not slurm.queue(), 240)
    status = read_status(folder, now_s=time.time())
    assert status.state == "failed"
    (log,) = (folder / "logs").glob("*_log.out")
    assert "training.device is gpu, but TensorFlow sees no GPU" in log.read_text()


@pytest.mark.parametrize("flag", ["nodes", "ntasks"])
def test_several_nodes_are_refused(config, tmp_path, flag):
    answer = run_nucleiseg(
        *("train", config, "--run", tmp_path / "run", "--cluster", "slurm"),
        *("--set", f"cluster.sbatch={{{flag}: 2}}"),
    )
    assert answer.returncode == 2
    assert f"sbatch may not hold {flag}" in answer.stderr
