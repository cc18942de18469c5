"""What sbatch gets: what is set and nothing else, under whatever name a run has."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from nucleiseg.cluster import (
    Batch,
    CountJob,
    Submission,
    TrainJob,
    list_queued,
    make_sbatch_text,
    read_submissions,
    record_submission,
    submit,
)
from nucleiseg.cluster.sent import is_alive
from nucleiseg.config import ClusterConfig
from nucleiseg.errors import RunError
from nucleiseg.runs import CountRun, Jobs

GOLDEN = Path(__file__).parent / "golden"

# Every sign that a shell, sbatch's own reader or SLURM could take for another.
AWKWARD = [
    "two words",
    "it's",
    'a "plate"',
    "$HOME",
    "`id`",
    "$(id)",
    "a;b",
    "a&b|c>d",
    "Zählung µm 核",
    "-rf",
    "--wrap=x",
    "#1",
    "*?[a]{b}",
    "~",
    'it\'s "5 $HOME" `µm`; -r #*',
]


def make_batch(role, *, n_jobs=1, gpus=1, root="/somewhere/run"):
    if role == "training":
        return Batch(role, [TrainJob(root)], gpus=gpus)
    is_first = role == "coordinator"
    job = CountJob(root, "yes" if is_first else "no", 0 if is_first else gpus or 1)
    return Batch(role, [job] * n_jobs, gpus=None if is_first else gpus)


def make_text(role, *, n_jobs=1, root="/somewhere/run", after=None, **settings):
    settings = ClusterConfig(**settings)
    batch = make_batch(role, n_jobs=n_jobs, gpus=settings.gpus, root=root)
    return make_sbatch_text(Jobs(Path(root)), batch, settings, after=after)


def directives(text):
    """Directives of a script, by name; True for one without a value."""
    found = {}
    for line in text.splitlines():
        if match := re.fullmatch(r"#SBATCH --([a-z-]+)(?:=(.*))?", line):
            assert match[1] not in found
            found[match[1]] = True if match[2] is None else shlex.split(match[2])[0]
    return found


# Signal and requeueing are the jobs' own; where logs go is fixed.
ALWAYS = {"nodes": "1", "open-mode": "append", "requeue": True, "signal": "USR2@300"}


class TestNothingIsSentThatIsNotSet:
    @pytest.mark.parametrize("role", ["coordinator", "workers", "training"])
    def test_by_default(self, role):
        text = make_text(role)
        expected = {
            **ALWAYS,
            "job-name": f"nucleiseg-{role}",
            "output": "/somewhere/run/logs/%j_0_log.out",
        }
        if role != "coordinator":
            expected["gpus-per-node"] = "1"
        assert directives(text) == expected
        assert "# setup" not in text

    @pytest.mark.parametrize("role", ["workers", "training"])
    def test_no_gpus(self, role):
        text = make_text(role, gpus=None)
        assert not [name for name in directives(text) if "g" in name and "p" in name]
        assert "gpu" not in text

    def test_only_an_array_has_the_names_of_one(self):
        text = make_text("workers", n_jobs=4)
        assert directives(text)["array"] == "0-3%4"
        assert directives(text)["output"] == "/somewhere/run/logs/%A_%a_0_log.out"
        assert "array" not in directives(make_text("workers"))


# Setting, its value, and the directive of each role that gets it.
GPU_JOBS = "workers", "training"
ALL = "coordinator", *GPU_JOBS
SENT = [
    ("partition", "gpu", GPU_JOBS, "partition", "gpu"),
    ("account", "lab 7", ALL, "account", "lab 7"),
    ("qos", "long", GPU_JOBS, "qos", "long"),
    ("constraint", "a100|h200", GPU_JOBS, "constraint", "a100|h200"),
    ("walltime_min", 90, GPU_JOBS, "time", "90"),
    ("gpus", 4, GPU_JOBS, "gpus-per-node", "4"),
    ("gres", "gpu:a100:1", GPU_JOBS, "gres", "gpu:a100:1"),
    ("cpus", 8, GPU_JOBS, "cpus-per-task", "8"),
    ("memory_gb", 31.5, GPU_JOBS, "mem", "32256M"),
    ("coordinator_partition", "cpu", ["coordinator"], "partition", "cpu"),
    ("coordinator_walltime_min", 600, ["coordinator"], "time", "600"),
    ("coordinator_cpus", 2, ["coordinator"], "cpus-per-task", "2"),
    ("coordinator_memory_gb", 2.0, ["coordinator"], "mem", "2048M"),
    ("signal_delay_s", 120, ALL, "signal", "USR2@120"),
    ("sbatch", {"exclude": "node[7-9]"}, GPU_JOBS, "exclude", "node[7-9]"),
    ("sbatch", {"mail_type": "END,FAIL"}, GPU_JOBS, "mail-type", "END,FAIL"),
    ("sbatch", {"--nice": 100}, GPU_JOBS, "nice", "100"),
    ("sbatch", {"exclusive": True}, GPU_JOBS, "exclusive", True),
    ("coordinator_sbatch", {"nice": 5}, ["coordinator"], "nice", "5"),
]
# What sbatch has no directive for: lines of the script, or what jobs do by themselves.
NOT_SENT = {
    "workers",
    "workers_per_gpu",
    "throttle",
    "coordinator",
    "setup",
    "python",
    "interface",
    "idle_min",
    "max_restarts",
}


class TestEverySettingArrives:
    @pytest.mark.parametrize(("key", "value", "roles", "name", "sent"), SENT)
    def test_where_it_belongs(self, key, value, roles, name, sent):
        for role in ALL:
            before = directives(make_text(role))
            after = directives(make_text(role, **{key: value}))
            changed = {
                name: after.get(name)
                for name in {*before, *after}
                if before.get(name) != after.get(name)
            }
            expected = {name: sent} if role in roles else {}
            if key == "gres" and expected:
                expected["gpus-per-node"] = None
            assert changed == expected, role

    def test_none_was_forgotten(self):
        tested = {key for key, *_ in SENT}
        assert not tested & NOT_SENT
        assert tested | NOT_SENT == set(ClusterConfig.model_fields)

    def test_flag_that_is_off_is_not_sent(self):
        text = make_text("workers", sbatch={"exclusive": False})
        assert "exclusive" not in text

    @pytest.mark.parametrize(("throttle", "most"), [(None, 4), (2, 2), (9, 4)])
    def test_throttle(self, throttle, most):
        text = make_text("workers", n_jobs=4, throttle=throttle)
        assert directives(text)["array"] == f"0-3%{most}"

    def test_workers_start_after_their_coordinator(self):
        text = make_text("workers", after="4711")
        assert directives(text)["dependency"] == "after:4711"

    def test_cores_reach_srun_too(self):
        assert " --cpus-per-task=8 " in make_text("workers", cpus=8)
        assert " --cpus-per-task=2 " in make_text("coordinator", coordinator_cpus=2)
        assert "--cpus-per-task" not in make_text("coordinator", cpus=8)

    def test_setup_comes_first_and_as_it_is(self):
        setup = ["module load cuda/12 # for the H200", 'export A="$HOME x"']
        lines = make_text("workers", setup=setup).splitlines()
        place = lines.index("# setup")
        assert lines[place + 1 : place + 3] == setup
        assert place < lines.index("# command")

    def test_python_is_shell_words(self):
        python = "apptainer exec --nv 'my image.sif' python"
        text = make_text("training", python=python)
        (line,) = [line for line in text.splitlines() if line.startswith("srun ")]
        assert f" {python} -u -m submitit.core._submit " in line
        assert sys.executable not in text


def make_texts_of_count():
    settings = {
        "partition": "gpu",
        "account": "lab",
        "walltime_min": 240,
        "cpus": 8,
        "memory_gb": 32.0,
        "throttle": 2,
        "coordinator_partition": "cpu",
        "coordinator_walltime_min": 1440,
        "coordinator_cpus": 1,
        "coordinator_memory_gb": 2.0,
        "sbatch": {"exclude": "node7", "exclusive": True},
        "setup": ["module purge", "module load cuda"],
        "max_restarts": 20,
    }
    return [
        make_text("coordinator", **settings),
        make_text("workers", n_jobs=4, after="COORDINATOR", **settings),
    ]


class TestGolden:
    """To renew one, look at the difference, and write the new text over it."""

    @pytest.fixture(autouse=True)
    def _same_on_every_machine(self, monkeypatch):
        monkeypatch.setattr(sys, "executable", "/opt/nucleiseg/bin/python")

    def test_count(self):
        texts = make_texts_of_count()
        golden = (GOLDEN / "count.sbatch.txt").read_text(encoding="utf-8")
        assert "\n\n".join(texts) + "\n" == golden

    def test_training(self):
        golden = (GOLDEN / "train.sbatch.txt").read_text(encoding="utf-8")
        assert make_text("training") + "\n" == golden


@dataclass
class Tools:
    """Commands of SLURM that write down how they were called."""

    folder: Path
    calls: Path

    def make(self, name, script="exit 0"):
        path = self.folder / name
        path.write_text(
            "#!/bin/bash\n"
            f"calls={shlex.quote(str(self.calls))}\n"
            f'printf "%s\\0" {name} "$@" >> "$calls"; printf "\\n\\0" >> "$calls"\n'
            f"{script}\n"
        )
        path.chmod(0o755)

    @property
    def path(self):
        return f"{self.folder}:/usr/bin:/bin"

    def heard(self):
        """List the calls: each a list of words, the name first."""
        if not self.calls.exists():
            return []
        calls = self.calls.read_text(encoding="utf-8").split("\0\n\0")
        return [call.split("\0") for call in calls[:-1]]


@pytest.fixture
def tools(tmp_path, monkeypatch):
    tools = Tools(tmp_path / "tools", tmp_path / "calls")
    tools.folder.mkdir()
    monkeypatch.setenv("PATH", tools.path)
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    return tools


def run_script(text, folder, *, tools=None, **environment):
    """Run a script as SLURM's daemon does: bash, in some folder."""
    script = folder / "script.sh"
    script.write_text(text, encoding="utf-8")
    return subprocess.run(
        ["bash", str(script)],
        cwd=folder,
        env={"PATH": tools.path, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class TestAwkwardNames:
    @pytest.mark.parametrize("name", AWKWARD)
    @pytest.mark.parametrize("role", ["coordinator", "workers", "training"])
    def test_is_bash(self, tmp_path, name, role):
        script = tmp_path / "script.sh"
        text = make_text(role, n_jobs=3, root=f"/somewhere/{name}")
        script.write_text(text, encoding="utf-8")
        subprocess.run(["bash", "-n", str(script)], check=True)

    @pytest.mark.parametrize("name", AWKWARD)
    def test_folder_is_one_word(self, tools, tmp_path, name):
        """Of the directive that sbatch reads, and of the command that bash runs."""
        root = tmp_path / name / "run"
        tools.make("srun")
        text = make_text("workers", n_jobs=3, root=str(root))
        assert directives(text)["output"] == f"{root}/logs/%A_%a_0_log.out"
        answer = run_script(text, tmp_path, tools=tools)
        assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
        (call,) = tools.heard()
        assert call == [
            "srun",
            "--unbuffered",
            "--output",
            f"{root}/logs/%A_%a_%t_log.out",
            sys.executable,
            *("-u", "-m", "submitit.core._submit"),
            f"{root}/logs",
        ]

    @pytest.mark.parametrize("name", AWKWARD)
    def test_python_may_have_one(self, tools, tmp_path, monkeypatch, name):
        monkeypatch.setattr(sys, "executable", f"/opt/{name}/bin/python")
        tools.make("srun")
        run_script(make_text("training"), tmp_path, tools=tools)
        (call,) = tools.heard()
        assert f"/opt/{name}/bin/python" in call

    @pytest.mark.parametrize("value", [name for name in AWKWARD if "\\" not in name])
    def test_so_may_values(self, tmp_path, value):
        text = make_text("workers", account=value, sbatch={"comment": value})
        found = directives(text)
        assert (found["account"], found["comment"]) == (value, value)


ELEMENT = {
    "SLURM_JOB_ID": "4715",
    "SLURM_ARRAY_JOB_ID": "4711",
    "SLURM_ARRAY_TASK_ID": "3",
}


class TestAfterTheProgram:
    """What a job's script does when the program in it cannot do it any more."""

    def run(self, tools, tmp_path, status, *, max_restarts=100, **environment):
        tools.make("srun", f"exit {status}")
        tools.make("scontrol", "exit 3")
        text = make_text("workers", n_jobs=4, max_restarts=max_restarts)
        answer = run_script(text, tmp_path, tools=tools, **environment)
        # Whatever scontrol says, SLURM's books show how the program ended.
        assert answer.returncode == status, answer.stderr
        return [call for call in tools.heard() if call[0] == "scontrol"]

    @pytest.mark.parametrize("status", [85, 137, 140])
    def test_killed_element_is_requeued(self, tools, tmp_path, status):
        calls = self.run(tools, tmp_path, status, **ELEMENT)
        assert calls == [["scontrol", "requeue", "4711_3"]]

    def test_killed_job_of_no_array(self, tools, tmp_path):
        calls = self.run(tools, tmp_path, 137, SLURM_JOB_ID="4715")
        assert calls == [["scontrol", "requeue", "4715"]]

    @pytest.mark.parametrize("status", [0, 1, 2, 85 - 1, 134, 139, 143])
    def test_others_are_not(self, tools, tmp_path, status):
        assert self.run(tools, tmp_path, status, **ELEMENT) == []

    @pytest.mark.parametrize(
        ("restarts", "max_restarts", "is_requeued"),
        [("99", 100, True), ("100", 100, False), ("0", 0, False), ("1", 1, False)],
    )
    def test_not_for_ever(self, tools, tmp_path, restarts, max_restarts, is_requeued):
        calls = self.run(
            tools,
            tmp_path,
            137,
            max_restarts=max_restarts,
            SLURM_RESTART_COUNT=restarts,
            **ELEMENT,
        )
        assert bool(calls) is is_requeued

    def test_not_even_once(self, tools, tmp_path):
        assert self.run(tools, tmp_path, 137, max_restarts=0, **ELEMENT) == []


class TestSubmit:
    @pytest.fixture
    def run(self, tmp_path):
        run = CountRun(tmp_path / "it's a run")
        run.root.mkdir()
        return run

    @pytest.fixture
    def sbatch(self, tools, tmp_path):
        """Have a sbatch that keeps the script and gives numbers from 4711 on."""
        tools.make("srun")
        tools.make(
            "sbatch",
            f"cd {shlex.quote(str(tmp_path))}\n"
            "number=$(( 4711 + $(ls -d sent.* 2>/dev/null | wc -l) ))\n"
            'for last; do :; done; cp "$last" "sent.$number"\n'
            'env > "environment.$number"\n'
            'echo "Submitted batch job $number"',
        )

    @pytest.mark.usefixtures("sbatch")
    def test_is_what_was_shown(self, run, tmp_path):
        settings = ClusterConfig(partition="gpu", setup=["module load cuda"])
        coordinator = make_batch("coordinator", root=str(run.root))
        workers = make_batch("workers", n_jobs=4, root=str(run.root))
        (first,) = submit(run.jobs, coordinator, "slurm", settings, after=None)
        assert (first.job_id, first.n_jobs, first.role) == ("4711", 1, "coordinator")
        (second,) = submit(run.jobs, workers, "slurm", settings, after=first.job_id)
        assert (second.job_id, second.n_jobs) == ("4712", 4)
        assert read_submissions(run.jobs) == [first, second]
        for batch, after, number in ((coordinator, None, 1), (workers, "4711", 2)):
            shown = make_sbatch_text(run.jobs, batch, settings, after=after)
            assert (tmp_path / f"sent.{4710 + number}").read_text() == shown

    @pytest.mark.usefixtures("sbatch")
    def test_hides_the_job_that_submits(self, run, tmp_path, monkeypatch):
        """Its grant would otherwise be handed down to the new job."""
        monkeypatch.setenv("SLURM_CONF", "/etc/our/slurm.conf")
        monkeypatch.setenv("SLURM_JOB_ID", "12")
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
        submit(run.jobs, make_batch("training"), "slurm", ClusterConfig(), after=None)
        text = (tmp_path / "environment.4711").read_text()
        names = {line.partition("=")[0] for line in text.splitlines()}
        assert {name for name in names if name.startswith("SLURM_")} == {"SLURM_CONF"}
        # And it is itself again.
        assert os.environ["SLURM_JOB_ID"] == "12"
        assert os.environ["SLURM_CONF"] == "/etc/our/slurm.conf"

    def test_refusal_is_one_line(self, run, tools):
        tools.make("srun")
        tools.make(
            "sbatch",
            "echo 'sbatch: error: invalid partition specified: nope' >&2\n"
            "echo 'sbatch: error: Batch job submission failed:' >&2\nexit 1",
        )
        with pytest.raises(RunError) as caught:
            submit(
                run.jobs, make_batch("workers"), "slurm", ClusterConfig(), after=None
            )
        message = str(caught.value)
        assert "\n" not in message
        assert message.startswith(
            "sbatch refused the workers (sbatch: error: invalid partition specified: "
            "nope sbatch: error: Batch job submission failed:); mend "
        )
        assert read_submissions(run.jobs) == []

    def test_sbatch_that_says_no_number(self, run, tools):
        tools.make("srun")
        tools.make("sbatch", "echo 'Welcome to the cluster'")
        with pytest.raises(RunError) as caught:
            submit(
                run.jobs, make_batch("training"), "slurm", ClusterConfig(), after=None
            )
        # Whether there is a job is unknown: this is no refusal.
        assert str(caught.value) == (
            "sbatch gave no job id for the training (Could not make sense of sbatch "
            'output "Welcome to the cluster"); look for them with squeue, end them '
            "with scancel, and try again"
        )

    def test_machine_of_no_cluster(self, run, tools, monkeypatch):
        monkeypatch.setenv("PATH", str(tools.folder))
        with pytest.raises(RunError, match="no machine of a SLURM cluster"):
            submit(
                run.jobs, make_batch("training"), "slurm", ClusterConfig(), after=None
            )

    def test_by_hand(self, run, tools, monkeypatch):
        assert record_submission(run.jobs, "training", "8").n_jobs == 1
        monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "5")
        assert record_submission(run.jobs, "workers", "9").n_jobs == 5
        assert [entry.job_id for entry in read_submissions(run.jobs)] == ["8", "9"]


class TestAlive:
    """Of jobs on this machine, whose numbers are those of processes."""

    @pytest.fixture
    def process(self):
        # A process whose command line tells what it is, as a job's does.
        program = "print(flush=True); input()"
        with subprocess.Popen(
            [sys.executable, "-c", program, "submitit.core._submit"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            # Between fork and exec it has no command line of its own yet.
            process.stdout.read(1)
            yield process
            process.kill()

    def make(self, pid, **values):
        values = {"cluster": "local", "host": os.uname().nodename, **values}
        return Submission("workers", job_id=str(pid), n_jobs=1, submitted="", **values)

    def test_as_long_as_its_process_is(self, process):
        submission = self.make(process.pid)
        assert is_alive(submission)
        (job,) = list_queued([submission])
        assert (job.job_id, job.state) == (str(process.pid), "RUNNING")
        process.kill()
        process.wait()
        assert not is_alive(submission)
        assert list_queued([submission]) == []

    def test_nothing_is_known_of_other_machines(self, process):
        assert not is_alive(self.make(process.pid, host="elsewhere"))

    def test_number_that_is_used_again_is_another(self):
        assert not is_alive(self.make(os.getpid()))
