"""SLURM as the login node sees it: its commands, its controller, its settings."""

import math
import re
import shutil
from collections.abc import Iterator, Mapping

from nucleiseg.cluster import slurm
from nucleiseg.config import ClusterConfig
from nucleiseg.doctor.check import Check, ask, failed, passed, warned

_LIMIT_S = 30.0
_LEAST_KILL_WAIT_S = 10
_TOOLS = {
    "sbatch": "jobs cannot be submitted",
    "srun": "jobs cannot be submitted",
    "scontrol": "jobs cannot be requeued",
    "squeue": "status cannot see what waits",
    "scancel": "cancel cannot end jobs",
}


def check_tools() -> list[Check]:
    """Check that SLURM's commands are there."""
    checks = []
    for tool, loss in _TOOLS.items():
        path = shutil.which(tool)
        checks.append(
            passed(tool, path)
            if path
            else failed(
                tool,
                f"not found: {loss}",
                "run this on a login node, or load the module of SLURM",
            )
        )
    path = shutil.which("sacct")
    checks.append(
        passed("sacct", path)
        if path
        else warned(
            "sacct", "not found", "it is not needed: the run directory tells the state"
        )
    )
    return checks


def check_controller() -> Check:
    """Check that the controller answers."""
    name = "slurmctld"
    remedy = "SLURM is down or out of reach: try again later, or ask the site"
    answer = ask(["scontrol", "ping"], limit_s=_LIMIT_S)
    words = " ".join(answer.output.split())
    if answer.status is None or "Slurmctld" not in words:
        return failed(name, answer.last_words, remedy)
    if not re.search(r"\bis UP\b", words):
        return failed(name, words, remedy)
    return passed(name, words)


def count_jobs(settings: ClusterConfig) -> int:
    """Jobs of a count's workers, which are an array."""
    return math.ceil(settings.workers / (settings.gpus or 1))


def check_settings(told: Mapping[str, str], settings: ClusterConfig) -> Iterator[Check]:
    """Judge the cluster's configuration.

    Parameters
    ----------
    told : mapping of str to str
        As :func:`nucleiseg.cluster.slurm.read_settings` gives it.
    settings : ClusterConfig
    """
    version = told.get("SLURM_VERSION")
    if version is None:
        yield failed(
            "SLURM",
            "scontrol show config says nothing that could be understood",
            "check which scontrol is found first: command -v scontrol",
        )
        return
    yield passed("SLURM", version)
    n_jobs = count_jobs(settings)
    yield _check_array(told, n_jobs)
    yield _check_job_count(told, n_jobs)
    yield _check_requeueing(told)
    yield _check_kill_wait(told)
    yield _check_preemption(told)
    yield _check_tracking(told)


def read_settings() -> dict[str, str]:
    """Read the cluster's configuration; raises RunError."""
    return slurm.read_settings()


def _number(told: Mapping[str, str], name: str) -> int | None:
    found = re.match(r"\d+", told.get(name, ""))
    return int(found[0]) if found else None


def _check_array(told: Mapping[str, str], n_jobs: int) -> Check:
    name = "job arrays"
    largest = _number(told, "MaxArraySize")
    if largest is None:
        return warned(name, "MaxArraySize is not told", "keep cluster.workers low")
    words = f"{n_jobs} jobs, MaxArraySize {largest}"
    # Elements are counted from 0, and it is the last number that must stay below it.
    if n_jobs > 1 and n_jobs > largest:
        return failed(
            name,
            words,
            f"set cluster.workers so that there are at most {largest} jobs, or more "
            "cluster.gpus a job",
        )
    return passed(name, words)


def _check_job_count(told: Mapping[str, str], n_jobs: int) -> Check:
    most = _number(told, "MaxJobCount")
    words = f"MaxJobCount {most}" if most is not None else "MaxJobCount is not told"
    if most is not None and n_jobs + 1 >= most:
        return failed("job count", words, f"lower cluster.workers: {n_jobs} jobs")
    return passed("job count", words)


def _check_requeueing(told: Mapping[str, str]) -> Check:
    value = told.get("JobRequeue", "")
    if value == "0":
        return warned(
            "requeueing",
            "JobRequeue=0: jobs are not requeued unless they ask",
            "nothing, these do; of jobs by hand: #SBATCH --requeue",
        )
    return passed("requeueing", f"JobRequeue={value}")


def _check_kill_wait(told: Mapping[str, str]) -> Check:
    wait_s = _number(told, "KillWait")
    words = f"{wait_s} s from SIGTERM to SIGKILL"
    if wait_s is not None and wait_s < _LEAST_KILL_WAIT_S:
        return warned(
            "KillWait",
            f"{words}: a worker that is told to end cannot finish its shard",
            "make shards smaller (shards.pixels); what is lost is computed again",
        )
    return passed("KillWait", words)


def _check_preemption(told: Mapping[str, str]) -> Check:
    name = "preemption"
    kind, mode = told.get("PreemptType", ""), told.get("PreemptMode", "")
    if kind in ("", "(null)", "preempt/none"):
        return passed(name, "none")
    words = ", ".join(filter(None, (kind, mode)))
    if "preempt_send_user_signal" in told.get("SlurmctldParameters", ""):
        words += ", preempt_send_user_signal: workers are warned, finish their shards"
    else:
        words += ", without preempt_send_user_signal: at most one shard a worker is "
        words += "computed again"
    if "CANCEL" in mode:
        return warned(
            name,
            f"{words}; preempted jobs are not requeued",
            "run the same command again after a preemption: what is done is kept",
        )
    return passed(name, words)


def _check_tracking(told: Mapping[str, str]) -> Check:
    kind = told.get("ProctrackType", "not told")
    if kind == "proctrack/pgid":
        return warned(
            "process tracking",
            f"{kind}: SLURM does not see processes that leave their group",
            "look for leftover processes on a node after a job was killed",
        )
    return passed("process tracking", kind)
