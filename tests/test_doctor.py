"""What doctor says, of machines that are well and of ones that are not."""

import errno
import fcntl
import os
import resource
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

import nucleiseg
from nucleiseg.cli import doctor as command
from nucleiseg.cli.parser import make_parser
from nucleiseg.cluster import slurm as slurm_words
from nucleiseg.config import ClusterConfig
from nucleiseg.doctor import check as asking
from nucleiseg.doctor import (
    controller,
    encryption,
    examination,
    folder,
    installation,
    machine,
    mounts,
    nodes,
    partitions,
    probe,
    sending,
    verdicts,
)
from nucleiseg.doctor.check import ask, failed, guard, passed
from nucleiseg.doctor.sight import Sight, ask_tensorflow
from tests.conftest import run_nucleiseg

TOOLS = ("sbatch", "srun", "scontrol", "squeue", "scancel")
NO_GPU = Sight("2.21.0")
TWO_GPUS = Sight("2.21.0", ("A100", "A100"))


@contextmanager
def without_rights():
    """Be somebody who may not write everywhere, as root may."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def scratch(tmp_path):
    return folder.Scratch(tmp_path / "run")


@pytest.fixture
def make_tool(tmp_path, monkeypatch):
    """Put a command on the PATH, before all others."""
    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")

    def make(name, script):
        path = tools / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return make


class TestAsking:
    def test_tells_what_a_command_says(self):
        answer = ask(["sh", "-c", "echo out; echo err >&2; exit 3"], limit_s=10)
        assert answer == asking.Answer(3, "out\n", "err\n")
        assert answer.last_words == "err"

    def test_missing_command(self):
        assert ask(["no-such-command"], limit_s=1).status == 127

    def test_ends_a_command_that_hangs(self, monkeypatch):
        monkeypatch.setattr(asking, "_GRACE_S", 0.5)
        start = time.monotonic()
        answer = ask(
            [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_"
             "IGN); time.sleep(60)"],
            limit_s=1,
        )  # fmt: skip
        assert answer.status is None
        assert answer.errors == "no answer within 1 s"
        assert time.monotonic() - start < 5

    def test_guard_gives_up_and_keeps_what_came_before(self):
        def hang():
            yield passed("first", "well")
            time.sleep(30)

        checks = list(guard("disk", hang, limit_s=0.2))
        assert [check.status for check in checks] == ["ok", "FAILED"]
        assert checks[1].found == "no answer within 0 s"

    @pytest.mark.parametrize(
        ("error", "found"),
        [
            (OSError(errno.EIO, "Input/output error", "/x"), "/x: Input/output error"),
            (KeyError("key"), "could not be checked (KeyError: 'key')"),
        ],
    )
    def test_guard_survives_what_goes_wrong(self, error, found):
        def raise_error():
            raise error

        (check,) = guard("name", raise_error, limit_s=5)
        assert (check.status, check.found) == ("FAILED", found)

    def test_jobs_are_hidden_but_not_the_way_to_slurm(self, monkeypatch):
        monkeypatch.setenv("SLURM_JOB_ID", "7")
        monkeypatch.setenv("SBATCH_PARTITION", "old")
        monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
        environment = asking.clean_environment()
        assert environment["SLURM_CONF"] == "/etc/slurm.conf"
        assert not {"SLURM_JOB_ID", "SBATCH_PARTITION"} & {*environment}


class TestInstallation:
    def test_this_one_is_well(self):
        assert installation.check_python().status == "ok"
        version_of = installation.importlib.metadata.version
        assert installation.check_packages(version_of).status == "ok"

    def test_old_python(self):
        assert installation.check_python("3.9.18").status == "FAILED"
        assert installation.check_python("3.12.1").status == "ok"

    def test_missing_and_old_packages(self):
        def version_of(name):
            if name == "h5py":
                raise PackageNotFoundError(name)
            return {"numpy": "1.26.4", "keras": "2.15.0"}.get(name, "9999")

        check = installation.check_packages(version_of)
        assert check.status == "FAILED"
        assert "h5py is missing" in check.found
        assert "numpy is 1.26.4, not >=2.0" in check.found
        assert "keras is 2.15.0, not >=3.13" in check.found

    def test_neither_build_of_tensorflow_is_asked_for(self):
        def version_of(name):
            if name.startswith("tensorflow"):
                raise PackageNotFoundError(name)
            return "9999"

        assert installation.check_packages(version_of).status == "ok"

    def test_a_library_that_cannot_be_imported(self, tmp_path, monkeypatch):
        (tmp_path / "broken.py").write_text("raise ImportError('libGL.so.1: no file')")
        (tmp_path / "deadly.py").write_text("import os; os.abort()")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        check = installation.check_imports(("broken",))
        assert (check.status, check.found) == (
            "FAILED",
            "broken: ImportError: libGL.so.1: no file",
        )
        check = installation.check_imports(("deadly",))
        assert check.status == "FAILED"
        assert check.found.startswith("signal 6")

    def test_nothing_else_is_imported_where_packages_are_missing(
        self, monkeypatch, capsys
    ):
        broken = failed("imports", "h5py: ImportError", "install it again")
        monkeypatch.setattr(command, "check_installation", lambda: [broken])
        monkeypatch.setitem(sys.modules, "nucleiseg.cli.site", None)
        assert command.run(make_parser().parse_args(["doctor"])) == 1
        assert "FAILED   imports" in capsys.readouterr().out


class TestMachine:
    def test_both_builds_of_tensorflow(self, monkeypatch):
        monkeypatch.setattr(machine.importlib.metadata, "version", lambda name: "2.21")
        check = machine.check_builds()
        assert check.status == "FAILED"
        assert "tensorflow 2.21 and tensorflow-cpu 2.21" in check.found

    def test_tensorflow_missing_or_ill(self):
        missing = "TensorFlow is not installed; run pip install 'nucleiseg[cpu]' or …"
        check = machine.check_tensorflow(Sight(None, problem=missing))
        assert (check.status, check.found) == ("FAILED", "TensorFlow is not installed")
        ill = Sight("2.21.0", ("A100",), "no algorithm worked")
        assert machine.check_tensorflow(ill).status == "FAILED"
        assert machine.check_tensorflow(NO_GPU).status == "ok"

    @pytest.mark.parametrize(
        ("visible", "number"),
        [
            ("", 0),
            ("-1", 0),
            ("0", 1),
            ("0,1", 2),
            ("GPU-5,MIG-6,-1,7", 2),
            ("0,-1", 1),
        ],
    )
    def test_gpus_that_a_scheduler_promises(self, visible, number):
        environment = {"CUDA_VISIBLE_DEVICES": visible}
        assert machine.find_promised(environment)[0] == number

    def test_gpus_that_the_driver_promises(self, tmp_path):
        assert machine.find_promised({}, tmp_path)[0] == 0
        for name in ("0000:01:00.0", "0000:02:00.0"):
            (tmp_path / "driver/nvidia/gpus" / name).mkdir(parents=True)
        assert machine.find_promised({}, tmp_path) == (2, "NVIDIA's driver")

    @pytest.mark.parametrize(
        ("sight", "promised", "wanted", "is_needed", "status"),
        [
            (NO_GPU, 0, "auto", True, "ok"),
            (NO_GPU, 2, "auto", True, "FAILED"),
            (NO_GPU, 2, "cpu", True, "ok"),
            (NO_GPU, 2, "auto", False, "warning"),
            (NO_GPU, 0, "gpu", True, "FAILED"),
            (NO_GPU, 0, "gpu", False, "ok"),
            (TWO_GPUS, 2, "gpu", True, "ok"),
            (TWO_GPUS, 4, "auto", True, "warning"),
        ],
    )
    def test_gpus(self, sight, promised, wanted, is_needed, status):
        check = machine.check_gpus(
            sight, (promised, "the driver"), wanted=wanted, is_needed=is_needed
        )
        assert check.status == status

    def test_cpu_is_all_there_is(self):
        check = machine.check_gpus(NO_GPU, (0, ""), wanted="auto", is_needed=True)
        assert check.found == "CPU only: fine for small runs"

    @pytest.mark.parametrize(
        ("membership", "files", "status"),
        [
            # Version 2: the quota of a folder above binds, too.
            ("0::/a/b", {"a/b/cpu.max": "max 100000"}, "ok"),
            ("0::/a/b", {"a/cpu.max": "150000 100000"}, "warning"),
            ("0::/a/b", {"a/cpu.max": "400000 100000"}, "ok"),
            # In a container the own folder is the root.
            ("0::/", {"cpu.max": "150000 100000"}, "warning"),
            (
                "4:cpu,cpuacct:/x",
                {
                    "cpu,cpuacct/x/cpu.cfs_quota_us": "150000",
                    "cpu,cpuacct/x/cpu.cfs_period_us": "100000",
                },
                "warning",
            ),
            (
                "1:cpu:/",
                {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
                "ok",
            ),
            ("", {}, "ok"),
        ],
    )
    def test_cores(self, tmp_path, membership, files, status):
        proc, root = write_cgroups(tmp_path, membership, files)
        check = machine.check_cores(4, root, proc)
        assert check.status == status
        if status == "warning":
            assert check.found.startswith("4, with time for 1.5")
            assert "taskset --cpu-list 0-0" in check.remedy

    def test_memory(self, tmp_path):
        limit = {"job/memory.max": str(2**30)}
        proc, root = write_cgroups(tmp_path, "0::/job", limit)
        (proc / "meminfo").write_text("MemAvailable:   8388608 kB\n")
        assert machine.check_memory(root, proc).found == "1.0 GB"
        assert machine.check_memory(root, proc).status == "warning"
        (root / "job/memory.max").write_text("max")
        assert machine.check_memory(root, proc) == passed("memory", "8.0 GB")

    def test_few_open_files(self):
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert machine.check_open_files().status == "ok"
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
        try:
            check = machine.check_open_files()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert (check.status, check.found) == ("warning", "at most 512")

    def test_cpu(self):
        assert "computes in" in machine.check_cpu().found

    def test_locks_of_hdf5(self, monkeypatch):
        monkeypatch.delenv("HDF5_USE_FILE_LOCKING", raising=False)
        assert machine.check_locking_variable() is None
        monkeypatch.setenv("HDF5_USE_FILE_LOCKING", "FALSE")
        assert "FALSE" in machine.check_locking_variable().found

    def test_tensorflow_is_asked_elsewhere(self, tmp_path, monkeypatch):
        (tmp_path / "tensorflow.py").write_text("import os; os.abort()")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        assert ask_tensorflow(60).problem == "it was killed by signal 6"
        (tmp_path / "tensorflow.py").write_text("import time; time.sleep(60)")
        assert ask_tensorflow(3) == Sight(None, problem="no answer within 3 s")


def write_cgroups(tmp_path, membership, files):
    proc, root = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self/cgroup").write_text(membership and f"{membership}\n")
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return proc, root


class TestEncryption:
    def test_hands_are_shaken(self):
        checks = list(encryption.check_encryption())
        assert [check.status for check in checks] == ["ok", "ok"]
        assert checks[1].found.startswith("TLSv1.")

    def test_without_the_library(self, monkeypatch):
        for name in [name for name in sys.modules if name.startswith("cryptography")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "cryptography", None)
        check = list(encryption.check_encryption())[-1]
        assert check.status == "FAILED"
        assert "cryptography" in check.remedy

    def test_keys_of_somebody_else(self, monkeypatch, tmp_path):
        def make_others(run):
            _, keys = make_keys(folder_run(tmp_path / "a"))
            _, others = make_keys(folder_run(tmp_path / "b"))
            return "", encryption.Keys(keys.certificate, others.key)

        make_keys = encryption.make_keys
        folder_run = encryption.CountRun
        monkeypatch.setattr(encryption, "make_keys", make_others)
        check = list(encryption.check_encryption())[-1]
        assert check.status == "FAILED"
        assert "KEY_VALUES_MISMATCH" in check.found


class TestFolder:
    def test_all_is_well_and_nothing_stays(self, tmp_path):
        scratch = folder.Scratch(tmp_path / "deep" / "run")
        assert scratch.make().status == "ok"
        checks = list(folder.check_folder(scratch))
        assert {check.status for check in checks} <= {"ok"}
        assert len(checks) == 6
        scratch.remove()
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_was_there_stays(self, tmp_path):
        (tmp_path / "counts.csv").write_text("count")
        scratch = folder.Scratch(tmp_path)
        scratch.make()
        scratch.remove()
        assert [path.name for path in tmp_path.iterdir()] == ["counts.csv"]

    def test_read_only(self, tmp_path):
        tmp_path.chmod(0o555)
        with without_rights():
            check = folder.Scratch(tmp_path / "run").make()
        assert check.status == "FAILED"
        assert "Permission denied" in check.found
        assert "--run" in check.remedy

    def test_a_file_in_its_place(self, scratch):
        scratch.root.write_text("file")
        check = scratch.make()
        assert check.status == "FAILED"
        assert check.found.endswith("is a file, not a directory")

    @pytest.mark.parametrize("name", ["50%", "back\\slash", "line\nbreak"])
    def test_names_that_slurm_changes(self, tmp_path, name):
        check = folder.check_name(tmp_path / name, is_for_jobs=True)
        assert check.status == "FAILED"
        assert folder.check_name(tmp_path / name, is_for_jobs=False).status == "warning"
        assert "\n" not in check.found

    def test_a_parent_that_others_may_write(self, tmp_path):
        parent = tmp_path / "lab"
        parent.mkdir()
        scratch = folder.Scratch(parent / "run")
        scratch.make()
        for mode, status in ((0o777, "warning"), (0o775, "warning"), (0o1777, "ok")):
            parent.chmod(mode)
            assert folder.check_privacy(scratch.path).status == status
        scratch.path.chmod(0o755)
        assert "has 0755" in folder.check_privacy(scratch.path).found

    @pytest.mark.parametrize(
        ("number", "status"),
        [(errno.EPERM, "warning"), (errno.ENOTSUP, "warning"), (errno.EIO, "FAILED")],
    )
    def test_without_hard_links(self, tmp_path, monkeypatch, number, status):
        def refuse(*arguments):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "link", refuse)
        assert folder.check_links(tmp_path).status == status

    def test_links_that_replace(self, tmp_path, monkeypatch):
        monkeypatch.setattr(os, "link", lambda *arguments: None)
        assert folder.check_links(tmp_path).status == "FAILED"

    def test_renaming_is_refused(self, tmp_path, monkeypatch):
        (tmp_path / "old").mkdir()
        assert folder.check_rename(tmp_path).status == "FAILED"

    def test_without_locks(self, tmp_path, monkeypatch):
        with (tmp_path / "locked").open("w") as stream:
            # What another process holds can be had no more than what is not there.
            fcntl.flock(stream, fcntl.LOCK_EX)
            check = folder.check_locks(tmp_path)
        assert check.status == "warning"
        assert "flock: Resource temporarily unavailable" in check.found
        assert folder.check_locks(tmp_path).status == "ok"

    def test_little_space(self, tmp_path, monkeypatch):
        monkeypatch.setattr(folder, "_LEAST_BYTES", 10**18)
        assert folder.check_space(tmp_path).status == "warning"

    def test_another_clock(self, tmp_path, monkeypatch):
        assert folder.measure_skew(tmp_path) == pytest.approx(0, abs=1)
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() + 300)
        check = folder.check_clock(tmp_path)
        assert check.status == "warning"
        assert check.found == "the file system is 300 s behind this machine"


MOUNTS = """\
1 0 8:1 / / rw - ext4 /dev/sda1 rw
2 1 0:5 / /home rw shared:1 - nfs4 server:/home rw
3 1 0:6 / /mnt/my\\040disk rw - xfs /dev/sdb rw
4 1 0:7 / /scratch rw - xfs /dev/sdc rw
5 1 0:8 / /scratch rw - lustre server:/x rw
6 1 0:9 / /ssh rw - fuse.sshfs host: rw
7 1 0:9 / /dev/shm rw - tmpfs tmpfs rw
"""


class TestMounts:
    @pytest.mark.parametrize(
        ("path", "kind", "status"),
        [
            ("/home/me/run", "nfs4", "ok"),
            ("/homeless", "ext4", "warning"),
            ("/mnt/my disk/run", "xfs", "warning"),
            ("/scratch/run", "lustre", "ok"),
            ("/ssh/run", "fuse.sshfs", "ok"),
            ("/dev/shm/run", "tmpfs", "warning"),
            ("/tmp/run", "ext4", "warning"),
        ],
    )
    def test_kinds(self, tmp_path, path, kind, status):
        mountinfo = tmp_path / "mountinfo"
        mountinfo.write_text(MOUNTS)
        assert mounts.find_kind(Path(path), mountinfo) == kind
        assert mounts.check_file_system(Path(path), mountinfo).status == status

    def test_of_this_machine(self, tmp_path):
        assert mounts.find_kind(Path("/proc/self")) == "proc"
        assert mounts.check_file_system(tmp_path, tmp_path / "no").found == "unknown"


TOLD = {
    "SLURM_VERSION": "23.11.4",
    "MaxArraySize": "1001",
    "MaxJobCount": "10000",
    "JobRequeue": "1",
    "KillWait": "30 sec",
    "PreemptType": "preempt/none",
    "PreemptMode": "OFF",
    "ProctrackType": "proctrack/cgroup",
}


def judge_settings(**changes):
    checks = controller.check_settings(TOLD | changes, ClusterConfig())
    return {check.name: check for check in checks}


class TestController:
    def test_each_missing_tool_has_a_remedy(self, monkeypatch, tmp_path):
        monkeypatch.setenv("PATH", str(tmp_path))
        *needed, sacct = controller.check_tools()
        assert [check.name for check in needed] == [*TOOLS]
        assert {check.status for check in needed} == {"FAILED"}
        assert all("login node" in check.remedy for check in needed)
        assert sacct.status == "warning"

    @pytest.mark.parametrize(
        ("script", "found"),
        [
            ("echo 'Slurmctld(primary) at head is DOWN'; exit 1", "is DOWN"),
            ("echo garbage", "garbage"),
            ("exec sleep 60", "no answer within 1 s"),
            ("exit 1", "no message"),
        ],
    )
    def test_controller_is_not_there(self, make_tool, monkeypatch, script, found):
        monkeypatch.setattr(controller, "_LIMIT_S", 1)
        make_tool("scontrol", script)
        check = controller.check_controller()
        assert check.status == "FAILED"
        assert check.found.endswith(found)

    def test_one_of_two_controllers_is_enough(self, make_tool):
        make_tool("scontrol", "echo A Slurmctld is DOWN; echo B Slurmctld is UP")
        assert controller.check_controller().status == "ok"

    def test_usual_settings(self):
        assert {check.status for check in judge_settings().values()} == {"ok"}

    def test_small_arrays(self, make_tool):
        make_tool(
            "scontrol",
            "echo 'SLURM_VERSION = 23.11.4'; echo 'MaxArraySize            = 3'",
        )
        told = slurm_words.read_settings()
        found = {}
        for n_workers in (3, 4):
            settings = ClusterConfig(workers=n_workers)
            for check in controller.check_settings(told, settings):
                if check.name == "job arrays":
                    found[n_workers] = check
        # Numbers 0 to 2.
        assert found[3].status == "ok"
        assert found[4] == failed(
            "job arrays",
            "4 jobs, MaxArraySize 3",
            "set cluster.workers so that there are at most 3 jobs, or more "
            "cluster.gpus a job",
        )

    def test_garbage_instead_of_settings(self, make_tool):
        make_tool("scontrol", "echo none of this is = understood")
        told = slurm_words.read_settings()
        (check,) = controller.check_settings(told, ClusterConfig())
        assert check.status == "FAILED"

    @pytest.mark.parametrize(
        ("changes", "name", "status", "words"),
        [
            ({"JobRequeue": "0"}, "requeueing", "warning", "unless they ask"),
            ({"KillWait": "5 sec"}, "KillWait", "warning", "5 s"),
            ({"MaxJobCount": "5"}, "job count", "FAILED", "MaxJobCount 5"),
            ({"MaxArraySize": ""}, "job arrays", "warning", "not told"),
            ({"PreemptType": "preempt/qos"}, "preemption", "ok", "at most one shard"),
            (
                {
                    "PreemptType": "preempt/qos",
                    "SlurmctldParameters": "enable_configless,preempt_send_user_signal",
                },
                "preemption",
                "ok",
                "are warned",
            ),
            (
                {"PreemptType": "preempt/qos", "PreemptMode": "CANCEL"},
                "preemption",
                "warning",
                "not requeued",
            ),
            (
                {"ProctrackType": "proctrack/pgid"},
                "process tracking",
                "warning",
                "leave their group",
            ),
        ],
    )
    def test_unusual_settings(self, changes, name, status, words):
        check = judge_settings(**changes)[name]
        assert check.status == status
        assert words in check.found


SINFO = """\
cpu|up|infinite|8|(null)|idle
gpu*|up|1-00:00:00|2|gpu:a100:4(S:0-1)|mixed
gpu*|up|1-00:00:00|1|gpu:a100:4|drained
short|up|30:00|2|gpu:2|idle
closed|down|infinite|2|gpu:2|idle
broken|up|infinite|2|gpu:2|down*
what is this
"""


def check_partition(**settings):
    found = partitions.read_partitions(SINFO)
    wishes = partitions.list_wishes(ClusterConfig(**settings))
    return [partitions.check_partition(found, wish) for wish in wishes]


class TestPartitions:
    @pytest.mark.parametrize(
        ("settings", "status", "words"),
        [
            ({}, "ok", "gpu (the default): up, 2 of 3 nodes will do, 4 GPUs a node"),
            ({"walltime_min": 1440}, "ok", "up"),
            ({"walltime_min": 1441}, "FAILED", "allows 1440 min"),
            ({"gpus": 8}, "FAILED", "has 4 GPUs a node"),
            ({"gpus": 8, "gres": "gpu:a100:8"}, "FAILED", "jobs ask for 8"),
            ({"partition": "cpu"}, "FAILED", "has no GPUs"),
            ({"partition": "cpu", "gpus": None}, "ok", "8 of 8"),
            ({"partition": "nope"}, "FAILED", "there is no nope"),
            ({"partition": "short,nope"}, "FAILED", "there is no nope"),
            ({"partition": "short,gpu", "walltime_min": 60}, "ok", "short, gpu"),
            ({"partition": "short", "walltime_min": 60}, "FAILED", "allows 30 min"),
            ({"partition": "closed"}, "FAILED", "is down"),
            ({"partition": "broken"}, "warning", "no node is up"),
        ],
    )
    def test_of_workers(self, settings, status, words):
        check = check_partition(**settings)[0]
        assert check.status == status
        assert words in check.found

    def test_of_the_coordinator(self):
        check = check_partition(coordinator_partition="nope")[1]
        assert "cluster.coordinator_partition to one of broken, closed" in check.remedy
        check = check_partition(
            coordinator_partition="short", coordinator_walltime_min=60
        )[1]
        assert "cluster.coordinator_walltime_min" in check.remedy
        assert len(check_partition(coordinator="worker")) == 1

    @pytest.mark.parametrize(
        ("text", "minutes"),
        [("30:00", 30), ("1:30:00", 90), ("2-01:00:00", 2940), ("infinite", None)],
    )
    def test_time_limits(self, text, minutes):
        assert partitions.read_minutes(text) == minutes

    @pytest.mark.parametrize(
        ("gres", "number"),
        [
            *[("(null)", 0), ("gpu:4", 4), ("gpu:a100:4(S:0-1)", 4), ("gpu", 1)],
            *[("gpu:a100:2,gpu:v100:1", 3), ("nvme:1,gpu:2", 2), ("craynetwork:4", 0)],
        ],
    )
    def test_gpus(self, gres, number):
        assert partitions.count_gpus(gres) == number

    def test_no_answer(self, make_tool):
        make_tool("sinfo", "echo trouble >&2; exit 1")
        (check,) = partitions.check_partitions(ClusterConfig())
        assert (check.status, check.found) == ("warning", "sinfo: trouble")


FACTS = {
    "host": "node7",
    "python": installation.platform.python_version(),
    "executable": "/opt/python",
    "nucleiseg": nucleiseg.__version__,
    "scontrol": True,
    "visible": "0",
    "interfaces": ["lo", "eth0", "ib0"],
    "address": "10.0.0.7",
    "sees_token": True,
    "skew_s": 0.1,
    "tensorflow": "2.21.0",
    "gpus": ["A100"],
    "problem": None,
}


class TestNodes:
    def judge(self, settings=None, *, is_back=True, **changes):
        settings = settings or ClusterConfig()
        checks = verdicts.judge("workers", FACTS | changes, settings, is_back=is_back)
        return {
            check.name.partition(": ")[2]: check
            for check in checks
            if check.status != "ok"
        }

    def test_all_is_well(self):
        assert self.judge() == {}
        assert verdicts.judge_versions("node", FACTS).status == "ok"

    @pytest.mark.parametrize(
        ("changes", "status"),
        [
            ({"python": "3.9.1"}, "FAILED"),
            ({"nucleiseg": "0.0.1"}, "FAILED"),
            ({"python": ".".join(FACTS["python"].split(".")[:2]) + ".99"}, "warning"),
        ],
    )
    def test_versions_differ(self, changes, status):
        check = verdicts.judge_versions("node", FACTS | changes)
        assert check.status == status
        assert "/opt/python" in check.remedy

    def test_folders_differ(self):
        check = self.judge(sees_token=False)["run directory"]
        assert (check.status, check.found) == (
            "FAILED",
            "node7 does not see the run directory",
        )
        check = self.judge(is_back=False, write_problem="Read-only file system")
        assert "cannot write" in check["run directory"].found
        assert "Read-only file system" in check["run directory"].found

    def test_clocks_differ(self):
        assert self.judge(skew_s=-200)["clock"].status == "warning"

    def test_addresses(self):
        assert "eth0, ib0" in self.judge(address="127.0.1.1")["address"].remedy
        assert self.judge(address=None)["address"].status == "warning"
        there, missing = (ClusterConfig(interface=name) for name in ("ib0", "ib1"))
        assert self.judge(there, address="127.0.1.1") == {}
        assert self.judge(missing)["address"].status == "FAILED"

    def test_without_scontrol(self):
        assert self.judge(scontrol=False)["scontrol"].status == "warning"

    @pytest.mark.parametrize(
        ("changes", "needs_gpu", "status"),
        [
            ({}, True, "ok"),
            ({"gpus": []}, True, "FAILED"),
            ({"gpus": []}, False, "ok"),
            ({"tensorflow": None, "problem": "not installed"}, False, "FAILED"),
            ({"problem": "no algorithm worked"}, True, "FAILED"),
            ({"gpus": ["A100"] * 4}, True, "warning"),
        ],
    )
    def test_gpus(self, changes, needs_gpu, status):
        check = verdicts.judge_gpus(
            "GPUs", FACTS | changes, ClusterConfig(), needs_gpu=needs_gpu
        )
        assert check.status == status

    def test_answers_are_found_among_other_words(self):
        text = 'module loaded\n{"nucleiseg": "1"}\n{"other": 2}\n7\n'
        assert nodes.read_facts(text) == {"nucleiseg": "1"}
        assert nodes.read_facts("module loaded\n") is None

    def test_command(self):
        settings = ClusterConfig(
            partition="gpu",
            account="lab",
            gres="gpu:a100:1",
            memory_gb=1,
            setup=["module load cuda"],
            python="apptainer exec x.sif python",
            sbatch={"exclude": "node7", "exclusive": True, "mail-type": "END"},
            coordinator_partition="cpu",
        )
        command = nodes.probe_command("workers", settings, Path("/a b"), "token")
        assert {"--partition=gpu", "--account=lab", "--gres=gpu:a100:1"} < {*command}
        assert {"--mem=1024M", "--exclude=node7", "--immediate=60"} < {*command}
        assert not [word for word in command if word.startswith("--mail")]
        assert command[-1] == (
            "module load cuda\napptainer exec x.sif python -m nucleiseg.doctor.probe "
            "'/a b' token gpus"
        )
        command = nodes.probe_command("coordinator", settings, Path("/a"), "token")
        assert "--partition=cpu" in command
        assert not [word for word in command if word.startswith("--gres")]

    def test_probe_without_slurm(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(probe, "_VISIBLE_LIMIT_S", 0)
        (tmp_path / "token").write_text("secret")
        probe.main([str(tmp_path), "secret"])
        facts = nodes.read_facts(capsys.readouterr().out)
        assert facts["sees_token"]
        assert (tmp_path / f"answer-{facts['host']}").read_text() == "secret"
        probe.main([str(tmp_path / "nowhere"), "secret"])
        facts = nodes.read_facts(capsys.readouterr().out)
        assert not facts["sees_token"]
        assert facts["write_problem"] == "No such file or directory"


class TestSending:
    def test_local_job(self, tmp_path):
        assert sending.check_local_job(ClusterConfig(), tmp_path).status == "ok"

    def test_local_job_that_dies(self, tmp_path):
        settings = ClusterConfig(setup=["echo no such module; exit 1"])
        check = sending.check_local_job(settings, tmp_path)
        assert check.status == "FAILED"

    def test_all_roles_are_asked_for(self, tmp_path):
        def roles(**settings):
            batches = sending.list_batches(ClusterConfig(**settings), tmp_path)
            return [(batch.role, batch.n_jobs) for batch in batches]

        assert roles(workers=5, gpus=2) == [
            *[("coordinator", 1), ("workers", 3), ("training", 1)]
        ]
        assert roles(coordinator="worker") == [("workers", 4), ("training", 1)]


def run_here(monkeypatch, *arguments):
    """Run the command in this process, without asking TensorFlow and all libraries."""
    monkeypatch.setattr(examination.sight, "ask_tensorflow", lambda: NO_GPU)
    monkeypatch.setattr(command, "check_installation", list)
    options = make_parser().parse_args(["doctor", *map(str, arguments)])
    return command.run(options)


def by_name(output):
    """Read what was printed: status, and found with remedy, by name."""
    lines = [line for line in output.splitlines() if line[8:9] == " "]
    found = {line[9:35].strip(): (line[:8].strip(), line[37:]) for line in lines}
    assert {status for status, _ in found.values()} <= {"ok", "warning", "FAILED"}
    return found


class TestCommand:
    def test_without_slurm(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setenv("PATH", str(tmp_path))
        run = tmp_path / "run"
        assert run_here(monkeypatch, "--cluster", "slurm", "--run", run) == 1
        found = by_name(capsys.readouterr().out)
        for tool in TOOLS:
            assert found[tool][0] == "FAILED"
            assert "run this on a login node" in found[tool][1]
        assert found["run directory"][0] == "ok"
        assert not run.exists()

    @pytest.mark.parametrize("cluster", [(), ("--cluster", "slurm")])
    def test_a_run_directory_that_cannot_be(
        self, tmp_path, monkeypatch, capsys, cluster
    ):
        (tmp_path / "file").touch()
        run = tmp_path / "file" / "run"
        assert run_here(monkeypatch, *cluster, "--run", run) == 1
        assert by_name(capsys.readouterr().out)["run directory"][0] == "FAILED"

    def test_local_cluster(self, tmp_path, monkeypatch, capsys):
        cpu = ("--set", "inference.device=cpu", "--set", "training.device=cpu")
        options = ("--cluster", "local", "--run", tmp_path)
        assert run_here(monkeypatch, *options, *cpu) == 0
        assert by_name(capsys.readouterr().out)["local job"][0] == "ok"
        # On a cluster a GPU is wanted unless cpu is set.
        monkeypatch.setattr(
            examination, "check_local_job", lambda *_: passed("local job", "")
        )
        assert run_here(monkeypatch, *options) == 1
        assert by_name(capsys.readouterr().out)["GPUs"][0] == "FAILED"

    @pytest.mark.slow
    def test_in_a_process_of_its_own(self, tmp_path):
        answer = run_nucleiseg("doctor", cwd=tmp_path)
        found = by_name(answer.stdout)
        assert {"Python", "packages", "imports", "TensorFlow", "GPUs"} < {*found}
        n_failed = sum(status == "FAILED" for status, _ in found.values())
        assert answer.returncode == (1 if n_failed else 0)
        assert answer.stderr == ""
        assert list(tmp_path.iterdir()) == []

    def test_tensorflow_stays_out(self):
        program = (
            "import sys, nucleiseg.doctor.examination, nucleiseg.doctor.probe\n"
            "assert 'tensorflow' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


class TestOnSlurm:
    @pytest.mark.slow
    def test_all_is_well(self, slurm, tmp_path, monkeypatch, capsys):
        options = ["inference.device=cpu", "training.device=cpu"]
        options += ["cluster.coordinator_partition=cpu", "cluster.walltime_min=60"]
        arguments = [word for option in options for word in ("--set", option)]
        run = tmp_path / "run"
        status = run_here(monkeypatch, "--cluster", "slurm", "--run", run, *arguments)
        found = by_name(output := capsys.readouterr().out)
        assert status == 0, output
        for role in ("workers", "coordinator"):
            assert found[f"{role}: partition"][0] == "ok"
            assert found[f"{role}: sbatch"][0] == "ok"
            assert found[f"{role}: node"][0] == "ok"
            assert found[f"{role}: run directory"][0] == "ok"
            # All nodes are this machine.
            assert found[f"{role}: address"][1].startswith("127.0.0.1")
        assert found["training: sbatch"][0] == "ok"
        assert found["workers: GPUs"][1].startswith("none are wanted; TensorFlow 2")
        assert not run.exists()
        assert slurm.jobs_left() == []

    def test_unknown_partition(self, slurm, tmp_path, monkeypatch, capsys):
        wrong = (
            "--set",
            "cluster.partition=nope",
            "--set",
            "cluster.coordinator=worker",
        )
        status = run_here(monkeypatch, "--cluster", "slurm", "--run", tmp_path, *wrong)
        found = by_name(capsys.readouterr().out)
        assert status == 1
        assert found["workers: partition"] == (
            "FAILED",
            "there is no nope; set cluster.partition to one of cpu, gpu, urgent",
        )
        assert found["workers: sbatch"][0] == "FAILED"
        assert "invalid partition" in found["training: sbatch"][1]
        assert found["workers: node"] == (
            "warning",
            "not checked; mend the workers above first",
        )

    def test_sbatch_is_asked_what_it_would_get(self, slurm, tmp_path):
        settings = ClusterConfig(memory_gb=1000)
        checks = {
            check.name: check for check in sending.check_submission(settings, tmp_path)
        }
        assert checks["coordinator: sbatch"].status == "ok"
        assert checks["workers: sbatch"].status == "FAILED"
        assert slurm.jobs_left() == []

    def ask_node(self, tmp_path, **settings):
        return list(
            nodes.check_node(
                "coordinator", ClusterConfig(**settings), tmp_path, needs_gpu=False
            )
        )

    def test_no_node_is_free(self, slurm, tmp_path, monkeypatch):
        monkeypatch.setattr(nodes, "IMMEDIATE_S", 2)
        slurm.submit(
            *("--partition=cpu", "--exclusive", "--output=/dev/null"),
            "--wrap=sleep 60",
        )
        (check,) = self.ask_node(tmp_path, coordinator_partition="cpu")
        assert check.status == "warning"
        assert check.found == "not checked: no node was free within 2 s"

    def test_no_python_there(self, slurm, tmp_path):
        (check,) = self.ask_node(tmp_path, python="/no/python")
        assert check.status == "FAILED"
        assert "/no/python: No such file or directory" in check.found
        assert "cluster.python" in check.remedy

    def test_setup_is_done_first(self, slurm, tmp_path):
        setup = ["echo module loaded", f"touch {tmp_path}/set-up"]
        checks = self.ask_node(tmp_path, setup=setup)
        assert checks[0].status == "ok"
        assert (tmp_path / "set-up").exists()

    @pytest.mark.slow
    def test_a_node_that_does_not_see_the_folder(self, slurm, tmp_path, monkeypatch):
        monkeypatch.setattr(nodes, "_VISIBLE_LIMIT_S", 0)
        (tmp_path / "here").mkdir()
        (tmp_path / "there").mkdir()
        # Gone before the probe looks, as if the node had another folder there.
        move = f"mv {tmp_path}/here/token {tmp_path}/there"
        checks = self.ask_node(tmp_path / "here", setup=[move])
        assert checks[1].status == "FAILED"
        assert checks[1].found.endswith("does not see the run directory")
