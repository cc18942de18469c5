"""Status, retry and merge: what a run says of itself, and what is done about it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from nucleiseg import synthetic
from nucleiseg.atomic import read_json, write_json
from nucleiseg.attempts import Attempts
from nucleiseg.cli.count import describe_flags
from nucleiseg.cluster.records import Record, Recorder
from nucleiseg.config import load_config
from nucleiseg.counting import count, prepare, reset_failures
from nucleiseg.errors import RunError
from nucleiseg.monitoring import read_status
from nucleiseg.runs import CountRun
from nucleiseg.shards import read_plan
from nucleiseg.tables import find_missing
from tests.conftest import run_nucleiseg

N_IMAGES = 12
SHARD = ["--set", "shards.images=3", "--set", "inference.device=cpu"]


@pytest.fixture
def archive(tmp_path):
    images, _ = synthetic.draw_fields(N_IMAGES, (32, 32), seed=3)
    path = tmp_path / "a b.npz"
    np.savez(path, X=images)
    return path


@pytest.fixture
def run(archive, model, tmp_path):
    """A finished run of four shards."""
    root = tmp_path / "run"
    config = load_config(None, ["shards.images=3", "inference.device=cpu"])
    count(prepare([str(archive)], model, config), root, workers=0)
    return CountRun(root)


def status(run):
    return read_status(run.root, now_s=time.time())


def submit(run, role, job_id, n_jobs):
    found = (
        json.loads(run.jobs.submissions.read_text())
        if run.jobs.submissions.exists()
        else []
    )
    entry = {
        "role": role,
        "cluster": "slurm",
        "job_id": job_id,
        "n_jobs": n_jobs,
        "host": "login",
        "submitted": "now",
    }
    write_json(run.jobs.submissions, [*found, entry])


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """Let `squeue` print any lines, and count how often it is asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "squeue"
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    class Squeue:
        asked = folder / "asked"

        def prints(self, *lines):
            text = "\n".join(lines)
            script.write_text(
                f"#!/bin/sh\necho asked >> '{self.asked}'\ncat <<'E'\n{text}\nE\n"
            )
            script.chmod(0o755)

        def fails(self):
            script.write_text("#!/bin/sh\necho slurmctld is down >&2\nexit 1\n")
            script.chmod(0o755)

    return Squeue()


class TestCountStatus:
    def test_finished(self, run):
        found = status(run)
        assert found.state == "finished"
        assert (found.n_shards, found.n_done, found.n_running) == (4, 4, 0)
        assert (found.n_images, found.n_images_done) == (N_IMAGES, N_IMAGES)
        assert found.table == str(run.table("csv"))
        assert found.eta_s is None
        table = pd.read_csv(found.table, keep_default_na=False)
        flags = [flag for cell in table["flags"] for flag in cell.split(";") if flag]
        assert found.outcome == {
            "images": N_IMAGES,
            "failed": 0,
            "nuclei": table["count"].sum(),
            "counted": N_IMAGES,
            "flagged": (table["flags"] != "").sum(),
            "flags": dict(Counter(flags)),
        }

    def test_planned(self, run):
        run.jobs.progress.unlink()
        shutil.rmtree(run.parts)
        found = status(run)
        assert (found.state, found.n_done, found.table) == ("planned", 0, None)
        assert found.outcome is None

    def test_finished_and_then_robbed(self, run):
        run.part(2).unlink()
        found = status(run)
        assert (found.state, found.n_done, found.table) == ("incomplete", 3, None)
        assert found.n_images_done == N_IMAGES - 3

    def test_running_and_killed(self, archive, model, tmp_path):
        hook = tmp_path / "hook"
        hook.mkdir()
        (hook / "sitecustomize.py").write_text(
            "import os, time\n"
            "original = os.replace\n"
            "def slow(source, destination, **options):\n"
            "    if str(destination).endswith('.parquet') and 'parts' in "
            "str(destination):\n"
            "        time.sleep(1)\n"
            "    return original(source, destination, **options)\n"
            "os.replace = slow\n"
        )
        run = CountRun(tmp_path / "run")
        command = [sys.executable, "-m", "nucleiseg", "count", archive, "--model"]
        command += [model, "--run", run.root, "--workers", "0", *SHARD]
        process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": str(hook)},
            stderr=subprocess.DEVNULL,
        )
        try:
            while not run.part(1).exists():
                assert process.poll() is None
                time.sleep(0.05)
            running = status(run)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        killed = status(run)
        assert running.state == "running"
        assert running.n_done >= 2
        assert running.n_running <= 1
        assert running.images_per_s is None or running.images_per_s > 0
        assert killed.state == "interrupted"
        assert killed.n_done in (running.n_done, running.n_done + 1)
        assert (killed.n_running, killed.images_per_s) == (0, None)

    def test_no_run_at_all(self, tmp_path):
        with pytest.raises(RunError, match=r"no run's directory: .*plan\.parquet"):
            read_status(tmp_path, now_s=0)
        with pytest.raises(RunError, match="is no directory"):
            read_status(tmp_path / "nothing", now_s=0)

    def test_a_shard_that_killed_is_named(self, run):
        attempts = Attempts(run)
        with attempts.attempt(1, (3, 6), worker="w"):
            attempts.record_death(os.getpid(), "out of memory")
        assert status(run).troubled == []
        run.part(1).unlink()
        (line,) = status(run).troubled
        assert line == ("shard 1 (a b.npz:X[3:6]) has killed 1 worker: out of memory")


class TestJobs:
    def test_states_by_role(self, run, squeue):
        submit(run, "coordinator", "7", 1)
        submit(run, "workers", "8", 6)
        for name, state, restarts in (
            ("7", "working", 1),
            ("8_0", "working", 0),
            ("8_1", "requeued", 2),
            ("8_2", "left", 0),
            ("8_3", "working", 0),
        ):
            role = "coordinator" if name == "7" else "workers"
            record = Record(name, role, state, "node1", restarts=restarts)
            Recorder(run.jobs, record).say(
                deaths=1, error="it died" if name == "8_3" else None
            )
        squeue.prints(
            "7|RUNNING|None|node1",
            "8_0|RUNNING|None|node1",
            "8_1|PENDING|BeginTime|",
            "8_4|PENDING|Resources|",
            "8_5|PENDING|JobHeldUser|",
            "99|RUNNING|None|node1",
        )
        jobs = status(run).jobs
        assert jobs.states == {
            "coordinator": {"working": 1},
            "workers": {"held": 1, "left": 1, "lost": 1, "pending": 2, "working": 1},
        }
        assert (jobs.restarts, jobs.deaths, jobs.n_active) == (3, 5, 5)
        assert jobs.last_error.startswith("it died (job 8_3")
        assert squeue.asked.read_text().splitlines() == ["asked"]

    def test_without_an_answer_the_jobs_own_words_stand(self, run, squeue):
        submit(run, "workers", "8", 2)
        Recorder(run.jobs, Record("8_0", "workers", "working", "node1")).say()
        squeue.fails()
        jobs = status(run).jobs
        assert jobs.states == {"workers": {"pending": 1, "working": 1}}
        assert "slurmctld is down" in jobs.queue_error

    def test_a_job_that_was_silent_for_long_is_lost(self, run, squeue):
        submit(run, "workers", "8", 1)
        Recorder(run.jobs, Record("8_0", "workers", "working", "node1")).say()
        squeue.fails()
        later = read_status(run.root, now_s=time.time() + 3600)
        assert later.jobs.states == {"workers": {"lost": 1}}

    def test_nothing_submitted_and_nothing_asked(self, run, squeue):
        squeue.prints()
        assert status(run).jobs.submitted == []
        assert not squeue.asked.exists()


def fail_last_shard(run, archive):
    """Count with an archive that was replaced meanwhile, and put it back."""
    for number in (2, 3):
        run.part(number).unlink()
    good = archive.with_suffix(".good")
    shutil.copy2(archive, good)
    archive.write_bytes(b"something else")
    answer = run_nucleiseg("retry", run.root, "--workers", "0")
    os.replace(good, archive)
    return answer


class TestRetry:
    def test_only_what_failed_is_computed_again(self, run, archive):
        before = run.table("csv").read_bytes()
        kept = [run.part(number).stat().st_mtime_ns for number in (0, 1)]

        answer = fail_last_shard(run, archive)
        assert answer.returncode == 1, answer.stderr
        table = pd.read_csv(run.table("csv"))
        assert (table["status"] == "failed").sum() == 6
        found = status(run)
        assert (found.n_with_failures, found.n_images_failed) == (2, 6)

        answer = run_nucleiseg("retry", run.root, "--workers", "0")
        assert answer.returncode == 0, answer.stderr
        assert "6 failed images; 2 shards to compute" in answer.stdout
        assert run.table("csv").read_bytes() == before
        assert [run.part(n).stat().st_mtime_ns for n in (0, 1)] == kept
        assert status(run).n_images_failed == 0

    def test_rows_that_were_right_are_kept(self, run, archive):
        """Of a shard with one failed image, that image alone is computed again."""
        plan = read_plan(run.plan)
        from nucleiseg.inference import read_compute
        from nucleiseg.tables import ImageRow, read_rows, tabulate, write_partial

        compute = read_compute(run).identity
        rows = read_rows(run.part(1), plan, plan.shards[1], compute=compute)
        marked = [ImageRow(3, None, "it was ill"), rows[4], rows[5]]
        write_partial(
            run, plan, plan.shards[1], tabulate(marked, plan), compute=compute
        )
        run.failures.mkdir(exist_ok=True)
        write_json(run.failure(1), {"n_failed": 1})

        reset = reset_failures(run, plan)
        assert (reset.n_images, reset.n_shards) == (1, 1)
        assert [shard.shard for shard in find_missing(run, plan)] == [1]
        (path,) = Attempts(run).rows_files(1)
        assert sorted(read_rows(path, plan, plan.shards[1], compute=compute)) == [4, 5]

        config = load_config(run.config)
        count(prepare([str(archive)], _model(run), config), run.root, workers=0)
        again = read_rows(run.part(1), plan, plan.shards[1], compute=compute)
        assert again == rows
        assert not Attempts(run).rows_files(1)

    def test_deaths_are_forgiven(self, run):
        attempts = Attempts(run)
        run.part(1).unlink()
        for _ in range(3):
            with attempts.attempt(1, (3, 6), worker="w"):
                attempts.record_death(os.getpid(), "segmentation fault")
        assert reset_failures(run, read_plan(run.plan)).n_shards == 1
        assert attempts.n_deaths(1) == 0

    def test_nothing_to_do(self, run):
        answer = run_nucleiseg("retry", run.root)
        assert answer.returncode == 0
        assert "nothing failed" in answer.stdout

    def test_no_run(self, tmp_path):
        answer = run_nucleiseg("retry", tmp_path)
        assert answer.returncode == 2
        assert "is this a count run's directory?" in answer.stderr


def _model(run):
    from pathlib import Path

    return Path(json.loads(run.manifest.read_text())["model"])


class TestMerge:
    def test_it_is_the_table_that_counting_left(self, run):
        before = run.table("csv").read_bytes()
        run.table("csv").unlink()
        # Its command was killed while it merged.
        progress = read_json(run.jobs.progress)
        killed = {**progress, "state": "merging", "pid": 2**22 + 1}
        write_json(run.jobs.progress, killed)
        assert status(run).state == "interrupted"
        answer = run_nucleiseg("merge", run.root)
        assert answer.returncode == 0, answer.stderr
        assert run.table("csv").read_bytes() == before
        assert status(run).state == "finished"
        assert read_json(run.jobs.progress)["stages"] == progress["stages"]

    def test_refuses_and_names_what_is_missing(self, run):
        run.table("csv").unlink()
        run.part(1).unlink()
        answer = run_nucleiseg("merge", run.root)
        assert answer.returncode == 1
        assert "1 of 4 shards are missing: a b.npz:X[3:6];" in answer.stderr
        assert not run.table("csv").exists()

    def test_partial_is_called_so(self, run):
        whole = pd.read_csv(run.table("csv"))
        run.table("csv").unlink()
        run.part(1).unlink()
        answer = run_nucleiseg("merge", run.root, "--partial")
        assert answer.returncode == 1
        assert "missing   1 of 4 shards" in answer.stdout
        assert not run.table("csv").exists()
        partial = pd.read_csv(run.root / "counts.partial.csv")
        expected = whole.drop(index=[3, 4, 5]).reset_index(drop=True)
        pd.testing.assert_frame_equal(partial, expected)


class TestCommand:
    def test_text(self, run):
        answer = run_nucleiseg("status", run.root)
        assert answer.returncode == 0
        assert "state      finished" in answer.stdout
        assert "4 of 4 done, 0 running, 0 with failed images" in answer.stdout
        outcome = status(run).outcome
        words = describe_flags(N_IMAGES, outcome["flagged"], outcome["flags"])
        assert f"flagged    {words}" in answer.stdout
        merged = run_nucleiseg("merge", run.root)
        assert f"flagged   {words}" in merged.stdout

    @pytest.mark.parametrize(
        ("n_flagged", "flags", "words"),
        [
            (0, {}, "0 of 2,000 images"),
            (1, {"empty": 1}, "1 of 2,000 images (0.1 %): empty 1"),
            (
                1500,
                {"empty": 1200, "saturated": 300},
                "1,500 of 2,000 images (75.0 %): empty 1,200, saturated 300",
            ),
        ],
    )
    def test_flags_in_words(self, n_flagged, flags, words):
        assert describe_flags(2000, n_flagged, flags) == words

    def test_json(self, run):
        answer = run_nucleiseg("status", run.root, "--json")
        assert json.loads(answer.stdout)["n_done"] == 4

    def test_next_step_is_said(self, run):
        run.part(1).unlink()
        answer = run_nucleiseg("status", run.root)
        assert f"nucleiseg retry {run.root}" in answer.stdout

    def test_training(self, model):
        answer = run_nucleiseg("status", model.parent)
        assert "state      finished" in answer.stdout
        assert "epochs     6 of 6 done" in answer.stdout

    def test_without_jobs_there_is_nothing_to_cancel(self, run):
        answer = run_nucleiseg("cancel", run.root)
        assert answer.returncode == 2
        assert "nothing was submitted" in answer.stderr


@pytest.mark.slow
def test_every_stage_on_a_cluster(slurm, archive, model, tmp_path):
    """Without accounting: sacct fails on this SLURM."""
    run = CountRun(tmp_path / "run")
    base = ["count", archive, "--model", model, "--run", run.root, *SHARD]
    base += ["--cluster", "slurm", "--workers", "2"]
    base += ["--set", "cluster.coordinator_partition=cpu"]
    base += ["--set", "cluster.memory_gb=2", "--set", "cluster.cpus=1"]
    later = ["--set", "cluster.coordinator_sbatch={begin: now+1hour}"]
    answer = run_nucleiseg(*base, *later)
    assert answer.returncode == 0, answer.stderr
    waiting = status(run)
    assert waiting.state == "submitted"
    assert waiting.jobs.states == {
        "coordinator": {"pending": 1},
        "workers": {"pending": 2},
    }
    answer = run_nucleiseg(*base)
    assert answer.returncode == 2
    assert "is being worked on by job" in answer.stderr

    answer = run_nucleiseg("cancel", run.root)
    assert answer.returncode == 0, answer.stderr
    assert slurm.jobs_left() == []
    assert status(run).state == "cancelled"

    answer = run_nucleiseg(*base)
    assert answer.returncode == 0, answer.stderr
    states = []

    def is_over():
        found = status(run)
        states.append((found.state, found.n_done))
        return found.state == "finished" and not slurm.queue()

    slurm.wait_until(is_over, 180)
    seen = list(dict.fromkeys(state for state, _ in states))
    assert seen[0] == "submitted"
    assert "running" in seen
    assert seen[-1] == "finished"
    done = [n_done for _, n_done in states]
    assert done == sorted(done)
    finished = status(run)
    assert finished.jobs.n_active == 0
    assert finished.n_done == 4
