"""A look from the nodes: a small job on each kind that runs will use."""

import json
import re
import secrets
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from nucleiseg.config import ClusterConfig
from nucleiseg.doctor.check import (
    Answer,
    Check,
    ask,
    clean_environment,
    failed,
    warned,
)
from nucleiseg.doctor.probe import TOKEN, answer_name
from nucleiseg.doctor.verdicts import judge, judge_gpus, judge_versions

NodeRole = Literal["workers", "coordinator"]

IMMEDIATE_S = 60
"""How long a probe waits for a free node."""
LIMIT_S = IMMEDIATE_S + 6 * 60.0
_TIME_MIN = 5
# NFS keeps the list of a folder for up to a minute.
_VISIBLE_LIMIT_S = 60.0

# What says where a job may run; other options of sbatch srun may not know.
_PLACING = ("partition", "account", "qos", "constraint", "exclude", "reservation")
_BUSY = re.compile(r"nodes are busy|immediate|temporarily|waiting for resources", re.I)


def check_node(
    role: NodeRole, settings: ClusterConfig, scratch: Path, *, needs_gpu: bool
) -> Iterator[Check]:
    """Run the probe on a node of a role, and judge what it says.

    Parameters
    ----------
    role : {"workers", "coordinator"}
    settings : ClusterConfig
    scratch : Path
        Folder in the run directory.
    needs_gpu : bool
        Whether workers are to compute on a GPU.
    """
    name = f"{role}: node"
    token = secrets.token_hex(8)
    (scratch / TOKEN).write_text(token, encoding="ascii")
    command = probe_command(role, settings, scratch, token)
    answer = ask(command, limit_s=LIMIT_S, environment=clean_environment())
    facts = read_facts(answer.output)
    if facts is None:
        yield _judge_silence(name, answer)
        return
    versions = judge_versions(name, facts)
    yield versions
    if versions.status == "FAILED":
        # Another version may say other things of itself.
        return
    is_back = _comes_back(scratch / answer_name(facts["host"]), token)
    yield from judge(role, facts, settings, is_back=is_back)
    if role == "workers":
        yield judge_gpus("workers: GPUs", facts, settings, needs_gpu=needs_gpu)


def probe_command(
    role: NodeRole, settings: ClusterConfig, scratch: Path, token: str
) -> list[str]:
    """Make the command that runs the probe."""
    is_worker = role == "workers"
    placing: dict[str, Any] = {"account": settings.account}
    if is_worker:
        placing |= {
            "partition": settings.partition,
            "qos": settings.qos,
            "constraint": settings.constraint,
            "gres": settings.gres,
            # One is enough, and is free sooner.
            "gpus-per-node": 1 if settings.gpus and not settings.gres else None,
        }
        extra, memory_gb, most_mb = settings.sbatch, settings.memory_gb, 4096
    else:
        placing |= {"partition": settings.coordinator_partition}
        extra, memory_gb = settings.coordinator_sbatch, settings.coordinator_memory_gb
        most_mb = 1024
    flags = {key.lstrip("-").replace("_", "-"): value for key, value in extra.items()}
    placing |= {key: value for key, value in flags.items() if key in _PLACING}
    memory_mb = min(most_mb, round(memory_gb * 1024)) if memory_gb else most_mb
    python = settings.python or shlex.quote(sys.executable)
    words = [str(scratch), token, *(["gpus"] if is_worker else [])]
    script = [
        *settings.setup,
        f"{python} -m nucleiseg.doctor.probe {shlex.join(words)}",
    ]
    return [
        "srun",
        f"--immediate={IMMEDIATE_S}",
        "--job-name=nucleiseg-doctor",
        *("--nodes=1", "--ntasks=1", "--cpus-per-task=1"),
        f"--mem={memory_mb}M",
        f"--time={_TIME_MIN}",
        *(f"--{key}={value}" for key, value in placing.items() if value is not None),
        *("bash", "-c", "\n".join(script)),
    ]


def read_facts(output: str) -> dict[str, Any] | None:
    """Find the probe's line among what the setup may have printed."""
    for line in reversed(output.splitlines()):
        try:
            facts = json.loads(line)
        except ValueError:
            continue
        if isinstance(facts, dict) and "nucleiseg" in facts:
            return facts
    return None


def _judge_silence(name: str, answer: Answer) -> Check:
    if answer.status is None:
        return failed(
            name, answer.errors, "a node or its file system hangs: ask the site"
        )
    lines = [" ".join(line.split()) for line in answer.errors.splitlines()]
    if any("Unable to allocate" in line for line in lines):
        words = next(line for line in lines if "Unable to allocate" in line)
        if _BUSY.search(words):
            return warned(
                name,
                f"not checked: no node was free within {IMMEDIATE_S} s",
                "nothing, jobs will wait; try again at another time to have it checked",
            )
        return failed(
            name,
            words.removeprefix("srun: error: "),
            "mend the cluster section of the configuration or the site profile",
        )
    told = [line for line in lines if not line.startswith("srun: ")] or lines
    return failed(
        name,
        f"the probe did not run: {told[-1] if told else 'no message'}",
        "cluster.setup and cluster.python must lead to a Python that has nucleiseg on "
        "the nodes, in a folder they share",
    )


def _comes_back(path: Path, token: str) -> bool:
    deadline = time.monotonic() + _VISIBLE_LIMIT_S
    while True:
        try:
            if path.read_text("ascii") == token:
                return True
        except OSError:
            pass
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
