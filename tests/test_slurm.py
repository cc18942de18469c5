"""The private SLURM that other tests run on does what a cluster does."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.slurm import PrivateSlurm, availability, best_proctrack, daemons, processes

ONE_GPU = ("--gpus-per-node=1", "--mem=100")

# Writes down which signals reach it and its child, and ends at none of them.
STUBBORN_TASK = """\
#!/bin/bash
exec >> $1
listen() {
    for signal in USR2 TERM; do trap "echo $1 $signal" $signal; done
    echo $1 starts ${SLURM_RESTART_COUNT:-0}
    while true; do sleep 0.1; done
}
listen child &
listen task
"""


@pytest.fixture
def submit_stubborn(slurm, tmp_path):
    """Submit a job whose task and its child list the signals they get in a file."""
    script = tmp_path / "task.sh"
    script.write_text(STUBBORN_TASK)
    script.chmod(0o755)
    heard = tmp_path / "heard.txt"

    def submit():
        job = slurm.submit(
            *(*ONE_GPU, "--signal=USR2@60", "--output=/dev/null"),
            f"--wrap=srun {script} {heard}",
        )
        wait_for_line(slurm, heard, "task starts")
        wait_for_line(slurm, heard, "child starts")
        return job, heard

    return submit


def wait_for_line(slurm, path, words, timeout_s=30):
    """Wait until a file has a line with these words."""
    slurm.wait_until(lambda: path.exists() and words in path.read_text(), timeout_s)


def only_job(slurm, job):
    """Line of the queue of one job."""
    (line,) = (line for line in slurm.queue() if line.job_id == job)
    return line


def wait_until_runs_again(slurm, job, timeout_s=60):
    """Wait until a requeued job runs; return its line of the queue."""

    def has_restarted():
        line = only_job(slurm, job)
        return line.n_restarts == 1 and line.state == "RUNNING" and line

    return slurm.wait_until(has_restarted, timeout_s)


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(daemons, "find_program", {"munged": "/munged"}.get)
    assert availability().startswith("slurmctld is not installed")


def test_four_jobs_have_a_gpu_each(slurm, tmp_path):
    task = tmp_path / "task.sh"
    told = "$SLURMD_NODENAME $CUDA_VISIBLE_DEVICES $SLURM_MEM_PER_NODE"
    task.write_text(f"echo {told} > {tmp_path}/$SLURM_ARRAY_TASK_ID.txt; sleep 99")
    slurm.submit(
        *ONE_GPU, "--array=0-3", "--output=/dev/null", f"--wrap=srun bash {task}"
    )
    slurm.wait_until(lambda: all_written(tmp_path.glob("*.txt"), 4), 30)
    lines = {path.read_text().strip() for path in tmp_path.glob("*.txt")}
    assert lines == {"gpu0 0 100", "gpu0 1 100", "gpu1 0 100", "gpu1 1 100"}
    assert {job.state for job in slurm.queue()} == {"RUNNING"}


def all_written(paths, number):
    texts = [path.read_text() for path in paths]
    return len(texts) == number and all(texts)


@pytest.mark.parametrize(
    ("slurm", "reached"),
    [
        ({"proctrack": "cgroup"}, {"task USR2"}),
        ({"proctrack": "linuxproc"}, {"task USR2", "child USR2"}),
    ],
    indirect=["slurm"],
    ids=["cgroup", "linuxproc"],
)
def test_which_processes_a_signal_reaches(slurm, reached, submit_stubborn):
    job, heard = submit_stubborn()
    slurm.run("scancel", "--signal=USR2", job)
    wait_for_line(slurm, heard, "task USR2")
    # A signal to the child was sent at the same time, and heard within 0.1 s.
    time.sleep(1)
    assert set(heard.read_text().splitlines()) & {"task USR2", "child USR2"} == reached


@pytest.mark.slow
@pytest.mark.parametrize(
    ("slurm", "expected"),
    [
        (
            {"preempt_send_user_signal": is_warned, "grace_s": 4, "kill_wait_s": 1},
            signals,
        )
        for is_warned, signals in [(True, ["USR2", "TERM"]), (False, ["TERM", "TERM"])]
    ],
    indirect=["slurm"],
    ids=["warned", "not warned"],
)
def test_preempted_job_is_requeued(slurm, expected, submit_stubborn):
    coordinator = slurm.submit("--partition=cpu", "--wrap=sleep 99")
    job, heard = submit_stubborn()
    slurm.preempt(only_job(slurm, job).node, hold_s=1)
    with slurm.hastened():
        wait_until_runs_again(slurm, job)
    wait_for_line(slurm, heard, "task starts 1")
    lines = [line for line in heard.read_text().splitlines() if "task" in line]
    begin, *signals, end = (line.removeprefix("task ") for line in lines)
    assert (begin, end) == ("starts 0", "starts 1")
    # At the end of its grace it sometimes gets SIGTERM twice.
    assert signals[:2] == expected
    assert set(signals[2:]) <= {"TERM"}
    assert only_job(slurm, coordinator).n_restarts == 0


def test_requeued_job_is_held_back_until_hastened(slurm):
    job = slurm.submit(*ONE_GPU, "--wrap=srun sleep 99")
    slurm.wait_until(lambda: slurm.processes_of(job, steps_only=True), 30)
    slurm.run("scontrol", "requeue", job)
    slurm.wait_until(lambda: only_job(slurm, job).reason == "BeginTime", 30)
    with slurm.hastened():
        slurm.wait_until(lambda: slurm.queue()[0].reason != "BeginTime", 20)
    wait_until_runs_again(slurm, job, 10)


def test_processes_of_a_job_are_found(slurm):
    job = slurm.submit(*ONE_GPU, "--wrap=srun sleep 99")
    tasks = slurm.wait_until(lambda: slurm.processes_of(job, steps_only=True), 30)
    assert names(tasks) == {"sleep"}
    assert names(slurm.processes_of(job)) == {"slurm_script", "srun", "sleep"}


def names(pids):
    return {Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids}


@pytest.mark.slow
def test_jobs_of_a_node_that_dies_start_on_another(slurm, submit_stubborn):
    job, heard = submit_stubborn()
    assert only_job(slurm, job).node == "gpu0"
    pids = slurm.processes_of(job)
    slurm.fail_node("gpu0")
    assert not any(map(processes.is_alive, pids))
    with slurm.hastened():
        assert wait_until_runs_again(slurm, job).node == "gpu1"
    assert slurm.node_states()["gpu0"] == "down*"
    assert "TERM" not in heard.read_text()
    slurm.restore_node("gpu0")


def test_death_of_a_node_can_be_noticed_at_once(slurm, submit_stubborn):
    job, _ = submit_stubborn()
    slurm.fail_node("gpu0", is_noticed=True)
    with slurm.hastened():
        assert wait_until_runs_again(slurm, job, 10).node == "gpu1"


def test_nothing_is_left_of_one_of_two():
    proctrack = best_proctrack()
    if reason := availability(proctrack):
        pytest.skip(reason)
    with PrivateSlurm(proctrack=proctrack) as other:
        with PrivateSlurm(proctrack=proctrack) as slurm:
            jobs = [
                each.submit(*ONE_GPU, "--wrap=srun sleep 99; sleep 99")
                for each in (slurm, other)
            ]
            pids, other_pids = (
                each.wait_until(each_has_task(each, job), 30)
                for each, job in zip((slurm, other), jobs, strict=True)
            )
            pids += [int(path.read_text()) for path in slurm.directory.glob("*.pid")]
            assert len(pids) >= 8
        assert not any(map(processes.is_alive, pids))
        assert not slurm.directory.exists()
        assert not list(daemons.FREEZER.glob(f"*/*/job_{jobs[0]}"))
        assert all(map(processes.is_alive, other_pids))
        assert only_job(other, jobs[1]).state == "RUNNING"
    assert not any(map(processes.is_alive, other_pids))


def each_has_task(slurm, job):
    """Question for the processes of a job, once its task runs."""

    def ask():
        return slurm.processes_of(job, steps_only=True) and slurm.processes_of(job)

    return ask


def test_nothing_is_left_of_a_failed_start(monkeypatch):
    if reason := availability():
        pytest.skip(reason)
    pids = []

    def fail(directory, name):
        pids.extend(int(path.read_text()) for path in directory.glob("*.pid"))
        raise RuntimeError(f"{name} has no power")

    monkeypatch.setattr(daemons, "start_node", fail)
    slurm = PrivateSlurm()
    with pytest.raises(RuntimeError, match="gpu0 has no power"):
        slurm.start()
    assert pids
    assert not any(map(processes.is_alive, pids))
    assert not slurm.directory.exists()


def test_one_can_be_left_running_by_hand():
    if reason := availability():
        pytest.skip(reason)
    # pytest's own temporary folders are too long for the paths of sockets.
    with tempfile.TemporaryDirectory() as folder:

        def call(*arguments):
            return subprocess.run(
                [sys.executable, "-m", "tests.slurm", *arguments],
                cwd=REPOSITORY,
                env=os.environ | {"TMPDIR": folder},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )

        up = call("up", "--proctrack", "linuxproc")
        name, _, conf = up.stdout.strip().partition("=")
        assert name == "export SLURM_CONF", up.stderr
        assert Path(conf).is_file()
        assert "one is up already" in call("up").stderr
        assert call("down").returncode == 0
        assert not Path(conf).parent.exists()
        assert "none is up" in call("down").stderr
