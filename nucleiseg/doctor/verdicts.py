"""What to think of what a node says of itself."""

import platform
from collections.abc import Iterator
from typing import Any

import nucleiseg
from nucleiseg.config import ClusterConfig
from nucleiseg.doctor.check import Check, failed, passed, warned
from nucleiseg.doctor.folder import judge_skew


def judge(
    role: str, facts: dict[str, Any], settings: ClusterConfig, *, is_back: bool
) -> Iterator[Check]:
    """Judge what a node said of its place in the cluster."""
    share = f"{role}: run directory"
    if not facts["sees_token"] or not is_back:
        what = "does not see" if not facts["sees_token"] else "cannot write to"
        why = f" ({facts['write_problem']})" if "write_problem" in facts else ""
        yield failed(
            share,
            f"{facts['host']} {what} the run directory{why}",
            "use a --run on a file system that all nodes share",
        )
    else:
        yield passed(share, "both sides see each other's files")
        yield judge_skew(f"{role}: clock", facts["skew_s"])
    yield _judge_address(f"{role}: address", facts, settings)
    if not facts["scontrol"]:
        yield warned(
            f"{role}: scontrol",
            "not found: jobs cannot ask to be requeued at their time limit",
            "have cluster.setup or the container provide SLURM's commands, or run the "
            "same command again when jobs end",
        )


def judge_versions(name: str, facts: dict[str, Any]) -> Check:
    """Compare the versions on a node with those of this process."""
    here = platform.python_version()
    there = facts["python"]
    words = f"{facts['host']}, Python {there}, nucleiseg {facts['nucleiseg']}"
    remedy = (
        f"there it is {facts['executable']}; set cluster.setup and cluster.python so "
        "that both sides are the same"
    )
    if facts["nucleiseg"] != nucleiseg.__version__:
        return failed(name, f"{words}, and {nucleiseg.__version__} here", remedy)
    if there.split(".")[:2] != here.split(".")[:2]:
        return failed(name, f"{words}, and Python {here} here", remedy)
    if there != here:
        return warned(name, f"{words}, and Python {here} here", remedy)
    return passed(name, words)


def _judge_address(name: str, facts: dict[str, Any], settings: ClusterConfig) -> Check:
    interface = settings.interface
    known = [name for name in facts["interfaces"] if name != "lo"]
    if interface is not None and interface not in known:
        return failed(
            name,
            f"{facts['host']} has no interface {interface}",
            f"set cluster.interface to one of {', '.join(known)}, or null",
        )
    if interface is not None:
        return passed(name, f"that of {interface}")
    address = facts["address"]
    remedy = f"set cluster.interface to one of {', '.join(known)}"
    if address is None:
        return warned(name, "srun on the node does not tell it", remedy)
    if address.startswith("127."):
        return warned(name, f"{address}: other nodes cannot reach it", remedy)
    return passed(name, address)


def judge_gpus(
    name: str, facts: dict[str, Any], settings: ClusterConfig, *, needs_gpu: bool
) -> Check:
    """Judge what TensorFlow saw on a node."""
    gpus, problem = facts["gpus"], facts["problem"]
    visible = f"CUDA_VISIBLE_DEVICES={facts['visible']}"
    if facts["tensorflow"] is None or problem is not None:
        return failed(
            name,
            f"TensorFlow: {problem}",
            "see that it runs there: srun with the same options, python -c 'import "
            "tensorflow'",
        )
    if not gpus and needs_gpu:
        return failed(
            name,
            f"TensorFlow {facts['tensorflow']} sees none ({visible})",
            "check cluster.gpus or gres, that nucleiseg[gpu] is installed, --nv in a "
            "container; or set inference.device=cpu and training.device=cpu",
        )
    if not gpus:
        return passed(name, f"none are wanted; TensorFlow {facts['tensorflow']}")
    words = f"{len(gpus)}: {', '.join(gpus)} ({visible})"
    n_asked = settings.gpus if settings.gres else 1
    if n_asked and len(gpus) > n_asked:
        return warned(
            name,
            f"{words}, and {n_asked} asked for: jobs on a node would share GPUs",
            "ask the site to confine GPUs, or use whole nodes: cluster.gpus and "
            "sbatch: {exclusive: true}",
        )
    return passed(name, words)
