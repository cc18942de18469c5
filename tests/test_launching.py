"""Sending runs to a cluster: what is asked for, and what is refused before."""

import dataclasses
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nucleiseg.atomic import write_json
from nucleiseg.attempts import Attempts
from nucleiseg.cluster import Submission, read_run_state, read_submissions
from nucleiseg.config import Config, load_config
from nucleiseg.counting import prepare
from nucleiseg.counting.claim import claim
from nucleiseg.errors import RunError
from nucleiseg.launching import (
    cancel,
    for_cluster,
    preview_count,
    preview_training,
    refuse_while_active,
    submit_count,
)
from nucleiseg.runs import CountRun, Jobs

N_IMAGES = 20


@pytest.fixture
def prepared(make_bundle, tmp_path):
    """A count of 20 images in shards of two, with settings of the cluster."""
    archive = tmp_path / "a.npz"
    np.savez(archive, X=np.ones((N_IMAGES, 16, 16), "uint8"))

    def make(shard_images=2, **cluster):
        config = Config.model_validate(
            {"shards": {"images": shard_images}, "cluster": cluster}
        )
        return prepare([str(archive)], make_bundle().paths.root, for_cluster(config))

    return make


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """Have a SLURM that takes jobs, gives them numbers from 4711 on, and forgets them.

    Calling it with a name and shell lines replaces a command.
    """
    folder, calls = tmp_path / "tools", tmp_path / "calls"
    folder.mkdir()

    def make(name, script="exit 0"):
        path = folder / name
        path.write_text(
            "#!/bin/bash\n"
            f'cd {shlex.quote(str(tmp_path))}\necho "{name} $*" >> calls\n{script}\n'
        )
        path.chmod(0o755)

    def heard(name):
        lines = calls.read_text().splitlines() if calls.exists() else []
        return [line for line in lines if line.split()[0] == name]

    make("srun")
    make(
        "sbatch",
        "number=$(( 4710 + $(grep -c ^sbatch calls) ))\n"
        'for last; do :; done; cp "$last" "sent.$number"\n'
        'echo "Submitted batch job $number"',
    )
    for name in ("squeue", "scancel", "scontrol"):
        make(name)
    make.heard = heard
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    return make


def array_of(text):
    found = re.search(r"#SBATCH --array=(\S+)", text)
    return found and found[1]


class TestForCluster:
    def load(self, tmp_path, text, *overrides, site=None):
        (tmp_path / "lab.yaml").write_text(text)
        (tmp_path / "site.yaml").write_text(site or "")
        path = tmp_path / "lab.yaml"
        return for_cluster(load_config(path, overrides, site=tmp_path / "site.yaml"))

    def test_wants_a_gpu(self, tmp_path):
        config = self.load(tmp_path, "training: {epochs: 3}")
        assert config.inference.device == config.training.device == "gpu"
        assert config.training.epochs == 3

    @pytest.mark.parametrize("section", ["inference", "training"])
    @pytest.mark.parametrize("device", ["cpu", "auto", "gpu"])
    def test_takes_what_is_written(self, tmp_path, section, device):
        text = f"{section}: {{device: {device}}}"
        other = {"inference": "training", "training": "inference"}[section]
        for config in (
            self.load(tmp_path, text),
            self.load(tmp_path, "", f"{section}.device={device}"),
            self.load(tmp_path, "", site=text),
        ):
            assert getattr(config, section).device == device
            assert getattr(config, other).device == "gpu"

    def test_survives_the_file_of_the_run(self, tmp_path):
        config = self.load(tmp_path, "inference: {device: cpu}")
        assert self.load(tmp_path, config.to_yaml()) == config

    def test_changes_nothing_else(self, tmp_path):
        config = self.load(tmp_path, "")
        devices = {"inference": {"device"}, "training": {"device"}}
        assert config.model_dump(exclude=devices) == Config().model_dump(
            exclude=devices
        )


class TestNames:
    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("50 %", "a percent sign"),
            ("%j", "a percent sign"),
            ("a\\b", "a backslash"),
            ("a\nb", "a line break"),
        ],
    )
    def test_that_slurm_would_change(self, prepared, tools, tmp_path, name, words):
        folder = tmp_path / name / "run"
        made = prepared()
        for send in (
            lambda: submit_count(made, folder, "slurm"),
            lambda: preview_count(made, folder),
            lambda: preview_training(Config(), folder),
        ):
            with pytest.raises(RunError) as caught:
                send()
            assert f"holds {words}, which SLURM changes" in str(caught.value)
            assert "another --run" in str(caught.value)
        assert not folder.parent.exists()
        assert tools.heard("sbatch") == []

    @pytest.mark.parametrize("name", ['it\'s a "run"', "$HOME `µm`;", "-rf", "#1"])
    def test_others_may_be_anything(self, prepared, tools, tmp_path, name):
        sent = submit_count(prepared(), tmp_path / name, "slurm")
        assert [entry.job_id for entry in sent.submissions] == ["4711", "4712"]
        assert len(preview_count(prepared(), tmp_path / name)) == 2


class TestJobs:
    @pytest.mark.parametrize(
        ("settings", "array"),
        [
            ({}, "0-3%4"),
            ({"workers": 1}, None),
            ({"workers": 8, "gpus": 4}, "0-1%2"),
            ({"workers": 9, "gpus": 4}, "0-2%3"),
            ({"workers": 6, "gpus": None}, "0-5%6"),
            ({"workers": 6, "throttle": 2}, "0-5%2"),
            # No more than there are shards: ten.
            ({"workers": 64}, "0-9%10"),
            ({"workers": 64, "gpus": 4}, "0-2%3"),
        ],
    )
    def test_number_of_workers(self, prepared, settings, array):
        coordinator, workers = preview_count(prepared(**settings), None)
        assert array_of(coordinator) is None
        assert array_of(workers) == array
        assert "#SBATCH --dependency=after:COORDINATOR" in workers
        assert "--dependency" not in coordinator
        assert "gpus" not in coordinator

    def test_coordinator_in_the_first_worker(self, prepared, tools, tmp_path):
        (workers,) = preview_count(prepared(coordinator="worker"), None)
        assert array_of(workers) == "0-3%4"
        assert "--dependency" not in workers
        run = CountRun(tmp_path / "run")
        submit_count(prepared(coordinator="worker"), run.root, "slurm")
        assert functions_of(run) == {("yes", 1): 1, ("no", 1): 3}

    def test_what_each_job_does(self, prepared, tools, tmp_path):
        run = CountRun(tmp_path / "run")
        submit_count(prepared(workers=6, gpus=2), run.root, "slurm")
        assert functions_of(run) == {("yes", 0): 1, ("no", 2): 3}

    @pytest.mark.parametrize(
        ("workers", "gpus", "n_jobs", "each"),
        [
            (2, 2, 1, 6),
            (2, 1, 2, 3),
            # Without a GPU there is none to share.
            (6, None, 6, 1),
            # No more than there are shards: ten.
            (6, 2, 3, 4),
            (64, 1, 10, 1),
        ],
    )
    def test_workers_that_share_a_gpu(
        self, prepared, tools, tmp_path, workers, gpus, n_jobs, each
    ):
        run = CountRun(tmp_path / "run")
        shared = prepared(workers=workers, gpus=gpus, workers_per_gpu=3)
        submit_count(shared, run.root, "slurm")
        assert functions_of(run) == {("yes", 0): 1, ("no", each): n_jobs}
        n_in_all = workers * (1 if gpus is None else 3)
        assert shared.config.cluster.n_workers == n_in_all

    def test_training_is_one_job(self):
        (text,) = preview_training(Config(), None)
        assert array_of(text) is None
        assert "--job-name=nucleiseg-training" in text
        assert f"{Path('RUN').absolute()}/logs/%j_0_log.out" in text


def functions_of(run):
    """Count what was pickled for the jobs, as a job would read it."""
    program = (
        "import sys, json\n"
        "from submitit.core.utils import pickle_load\n"
        "for path in sys.argv[1:]:\n"
        "    job = pickle_load(path).function\n"
        "    print(json.dumps([job.root, job.coordinator, job.n_workers]))\n"
    )
    paths = sorted(run.logs.glob("*_submitted.pkl"))
    answer = subprocess.run(
        [sys.executable, "-c", program, *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
    )
    found = {}
    for line in answer.stdout.splitlines():
        root, *job = json.loads(line)
        assert root == str(run.root)
        found[tuple(job)] = found.get(tuple(job), 0) + 1
    return found


class TestSubmitCount:
    @pytest.fixture
    def run(self, tmp_path):
        return CountRun(tmp_path / "run")

    def test_plans_and_writes_down_what_it_sent(self, prepared, tools, run):
        sent = submit_count(prepared(), run.root, "slurm")
        assert [entry.role for entry in sent.submissions] == ["coordinator", "workers"]
        assert [entry.n_jobs for entry in sent.submissions] == [1, 4]
        assert read_submissions(run.jobs) == sent.submissions
        assert run.plan.exists()
        assert read_run_state(run.jobs) == "submitted"
        assert load_config(run.config).inference.device == "gpu"

    def test_workers_wait_for_their_coordinator(self, prepared, tools, run, tmp_path):
        submit_count(prepared(), run.root, "slurm")
        text = (tmp_path / "sent.4712").read_text()
        assert "#SBATCH --dependency=after:4711\n" in text

    def test_again_only_for_what_is_missing(self, prepared, tools, run):
        submit_count(prepared(), run.root, "slurm")
        for number in range(8):
            run.part(number).touch()
        sent = submit_count(prepared(), run.root, "slurm")
        assert [entry.n_jobs for entry in sent.submissions] == [1, 2]
        assert len(read_submissions(run.jobs)) == 4

    def test_half_a_run_is_taken_back(self, prepared, tools, run):
        """Its coordinator would wait for workers that never come."""
        tools(
            "sbatch",
            'if [ "$(grep -c ^sbatch calls)" = 1 ]; then\n'
            '    echo "Submitted batch job 4711"\n'
            "else\n"
            "    echo 'sbatch: error: Invalid account' >&2; exit 1\n"
            "fi",
        )
        with pytest.raises(RunError, match=r"refused the workers .*Invalid acc"):
            submit_count(prepared(), run.root, "slurm")
        assert tools.heard("scancel") == ["scancel 4711"]

    def test_cancellation_before_is_forgotten(self, prepared, tools, run):
        submit_count(prepared(), run.root, "slurm")
        cancel(run.root)
        assert run.jobs.cancelled.exists()
        submit_count(prepared(), run.root, "slurm")
        assert not run.jobs.cancelled.exists()

    @pytest.mark.parametrize("cluster", ["slurm", "local"])
    def test_run_that_is_worked_on_is_refused(self, prepared, tools, run, cluster):
        submit_count(prepared(), run.root, "slurm")
        tools("squeue", "echo '4712_3|RUNNING|None|node7'; echo '99|RUNNING|None|n'")
        with pytest.raises(RunError) as caught:
            submit_count(prepared(), run.root, cluster)
        message = str(caught.value)
        assert f"{run.root} is being worked on by job 4712_3 (running); " in message
        assert f"nucleiseg cancel {run.root}" in message
        assert len(tools.heard("sbatch")) == 2

    def test_another_run_is_refused_before_slurm_is_asked(self, prepared, tools, run):
        submit_count(prepared(), run.root, "slurm")
        run.part(0).touch()
        with pytest.raises(RunError, match="holds another run"):
            submit_count(prepared(shard_images=5), run.root, "slurm")
        assert len(tools.heard("sbatch")) == 2


class TestRefuseWhileActive:
    @pytest.fixture
    def jobs(self, tmp_path):
        jobs = Jobs(tmp_path)
        submission = Submission("workers", "slurm", "4711", 4, "login", "")
        write_json(jobs.submissions, [dataclasses.asdict(submission)])
        return jobs

    def test_without_jobs_nothing_is_asked(self, tools, tmp_path):
        refuse_while_active(Jobs(tmp_path))
        assert tools.heard("squeue") == []

    def test_jobs_of_others_do_not_count(self, tools, jobs):
        tools("squeue", "echo '47110|RUNNING|None|n'; echo '711_1|PENDING|Prio|'")
        refuse_while_active(jobs)
        assert tools.heard("squeue")

    def test_many_are_not_all_named(self, tools, jobs):
        tools("squeue", 'for i in 0 1 2 3 4; do echo "4711_$i|PENDING|Prio|"; done')
        with pytest.raises(RunError, match=r"job 4711_2 \(pending\) and 2 more"):
            refuse_while_active(jobs)

    def test_slurm_that_is_silent_only_warns(self, tools, jobs, caplog):
        tools("squeue", "echo 'slurm_load_jobs error: timed out' >&2; exit 1")
        refuse_while_active(jobs)
        assert "whether jobs of this run are still running is unknown" in caplog.text
        assert "timed out" in caplog.text


class TestPlannedAnew:
    """A run that has computed nothing yet may be begun again with other settings."""

    @pytest.fixture
    def begin(self, prepared, tmp_path):
        def begin(**settings):
            run = CountRun(tmp_path / "run")
            made = prepared(**settings)
            claim(run, made.plan, made.config, made.model)
            return Attempts(run)

        return begin

    def test_deaths_of_the_plan_before_blame_nobody(self, begin):
        """Image 2 of shard 1 may be another one now."""
        attempts = begin()
        for _ in range(3):
            with attempts.attempt(1, (2, 3), worker="w"):
                attempts.record_death(os.getpid(), "killed")
        # The same plan goes on with what it knows.
        assert begin().history(1).verdict(2)
        attempts = begin(shard_images=7)
        assert attempts.history(1).verdict(2) is None
        assert attempts.n_deaths(1) == 0

    def test_shard_that_is_done_in_part_is_no_such_run(self, begin):
        """As a retry leaves it, or a death: its rows are not thrown away."""
        path = begin().rows_folder(1) / "rows-kept.parquet"
        path.touch()
        with pytest.raises(RunError, match="holds another run"):
            begin(shard_images=7)
        begin()
        assert path.exists()
