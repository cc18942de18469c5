"""The partitions that jobs go to: there, up, long enough, with GPUs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from nucleiseg.config import ClusterConfig
from nucleiseg.doctor.check import Check, ask, clean_environment, failed, passed, warned

_LIMIT_S = 60.0
_COMMAND = ("sinfo", "--all", "--noheader", "--format=%P|%a|%l|%D|%G|%T")
_UNUSABLE = ("down", "drain", "fail", "maint", "unknown", "inval", "no_respond")


@dataclass(frozen=True)
class Partition:
    """Nodes of a partition that are alike."""

    name: str
    is_default: bool
    state: str
    limit_min: float | None
    """None: there is none."""
    n_nodes: int
    n_gpus: int
    """Of one node."""
    node_state: str


@dataclass(frozen=True)
class Wish:
    """What jobs of a role ask a partition for."""

    role: str
    partition: str | None
    walltime_min: int | None
    n_gpus: int


def list_wishes(settings: ClusterConfig) -> list[Wish]:
    """List what the jobs of a count and of a training ask for."""
    n_gpus = (settings.gpus or 0) if not settings.gres or "gpu" in settings.gres else 0
    workers = Wish("workers", settings.partition, settings.walltime_min, n_gpus)
    if settings.coordinator == "worker":
        return [workers]
    return [
        workers,
        Wish(
            "coordinator",
            settings.coordinator_partition,
            settings.coordinator_walltime_min,
            0,
        ),
    ]


def check_partitions(settings: ClusterConfig) -> list[Check]:
    """Check the partitions of the site."""
    answer = ask(_COMMAND, limit_s=_LIMIT_S, environment=clean_environment())
    partitions = read_partitions(answer.output)
    if answer.status != 0 or not partitions:
        return [
            warned(
                "partitions",
                f"sinfo: {answer.last_words}",
                "they are not checked; sbatch below says whether it takes the jobs",
            )
        ]
    return [check_partition(partitions, wish) for wish in list_wishes(settings)]


def read_partitions(text: str) -> list[Partition]:
    """Read what sinfo printed; lines it cannot read are left out."""
    partitions = []
    for line in text.splitlines():
        parts = line.strip().split("|")
        if len(parts) != 6 or not parts[3].isdecimal():
            continue
        name, state, limit, n_nodes, gres, node_state = parts
        partitions.append(
            Partition(
                name=name.rstrip("*"),
                is_default=name.endswith("*"),
                state=state,
                limit_min=read_minutes(limit),
                n_nodes=int(n_nodes),
                n_gpus=count_gpus(gres),
                node_state=node_state,
            )
        )
    return partitions


def read_minutes(text: str) -> float | None:
    """Read a time limit, `2-12:00:00` or `30:00`; None: there is none."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return 60 * (24 * days + hours) + minutes + seconds / 60


def count_gpus(gres: str) -> int:
    """Count GPUs in a text like `gpu:a100:4(S:0-1),gpu:2`."""
    found = re.findall(r"\bgpu(?::[^:,()]+)??(?::(\d+))?(?:\(|,|$)", gres)
    return sum(int(number or 1) for number in found)


def check_partition(partitions: Sequence[Partition], wish: Wish) -> Check:
    """Check one partition, or several that a comma parts, of which one must do."""
    known = sorted({partition.name for partition in partitions})
    title = f"{wish.role}: partition"
    key = "partition" if wish.role == "workers" else "coordinator_partition"
    if wish.partition is None:
        names = [part.name for part in partitions if part.is_default][:1]
        if not names:
            return failed(
                title,
                "none is set, and the site has no default",
                f"set cluster.{key} to one of {', '.join(known)}",
            )
    else:
        names = wish.partition.split(",")
        missing = [name for name in names if name not in known]
        if missing:
            return failed(
                title,
                f"there is no {', '.join(missing)}",
                f"set cluster.{key} to one of {', '.join(known)}",
            )
    found = [part for part in partitions if part.name in names]
    words = ", ".join(names) + (" (the default)" if wish.partition is None else "")
    problem = _find_problem(found, wish)
    if problem is not None:
        return failed(title, f"{words}: {problem[0]}", problem[1])
    n_nodes = sum(part.n_nodes for part in found)
    n_usable = sum(
        part.n_nodes
        for part in found
        if part.n_gpus >= wish.n_gpus and not part.node_state.startswith(_UNUSABLE)
    )
    if not n_usable:
        return warned(
            title, f"{words}: no node is up now", "jobs will wait: see sinfo -R"
        )
    gpus = f", {max(part.n_gpus for part in found)} GPUs a node" if wish.n_gpus else ""
    return passed(title, f"{words}: up, {n_usable} of {n_nodes} nodes will do{gpus}")


def _find_problem(found: Sequence[Partition], wish: Wish) -> tuple[str, str] | None:
    """Say what is wrong with partitions, and the remedy."""
    up = [part for part in found if part.state == "up"]
    if not up:
        return f"is {found[0].state}", "use another, or wait until the site opens it"
    limits = [part.limit_min for part in up]
    if wish.walltime_min is not None and None not in limits:
        longest = max(limit for limit in limits if limit is not None)
        if wish.walltime_min > longest:
            key = "walltime_min"
            if wish.role == "coordinator":
                key = f"coordinator_{key}"
            return (
                f"allows {longest:g} min, and jobs ask for {wish.walltime_min}",
                f"set cluster.{key} to {longest:g} or less; jobs are requeued when it "
                "ends",
            )
    most = max(part.n_gpus for part in up)
    if most < wish.n_gpus:
        return (
            f"has {most or 'no'} GPUs a node, and jobs ask for {wish.n_gpus}",
            "set cluster.partition, or cluster.gpus (null for none)",
        )
    return None
