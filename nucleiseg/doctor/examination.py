"""All checks, in the order in which one needs another."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from nucleiseg.cluster import Cluster
from nucleiseg.config import Config
from nucleiseg.doctor import machine, nodes, sight
from nucleiseg.doctor.check import Check, guard, warned
from nucleiseg.doctor.controller import (
    check_controller,
    check_settings,
    check_tools,
    read_settings,
)
from nucleiseg.doctor.encryption import check_encryption
from nucleiseg.doctor.folder import Scratch, check_folder, check_name
from nucleiseg.doctor.mounts import check_file_system
from nucleiseg.doctor.partitions import check_partitions
from nucleiseg.doctor.sending import check_local_job, check_submission

_SHORT_S = 30.0
# Longer than the limits of what it asks, which say more.
_LONG_S = 600.0


def examine(config: Config, folder: Path, cluster: Cluster | None) -> Iterator[Check]:
    """Examine this machine, and a cluster where one is named.

    Parameters
    ----------
    config : Config
    folder : Path
        The run directory, which need not be there.
    cluster : {"slurm", "local"}, optional

    Yields
    ------
    Check
        As soon as it is known.
    """
    yield from _examine_machine(config, cluster)
    scratch = Scratch(folder)
    try:
        yield from _examine_folder(scratch, cluster)
        if cluster == "local" and scratch.is_made:
            yield from guard(
                "local job",
                lambda: check_local_job(config.cluster, scratch.path),
                limit_s=_LONG_S,
            )
        if cluster == "slurm":
            yield from _examine_slurm(config, scratch)
    finally:
        list(guard("run directory", scratch.remove, limit_s=_SHORT_S))


def _examine_machine(config: Config, cluster: Cluster | None) -> Iterator[Check]:
    if (builds := machine.check_builds()) is not None:
        yield builds
    seen = sight.ask_tensorflow()
    yield machine.check_tensorflow(seen)
    yield machine.check_gpus(
        seen,
        machine.find_promised(os.environ),
        wanted=machine.wanted_device(config.inference.device, config.training.device),
        is_needed=cluster != "slurm",
    )
    for name, check in (
        ("CPU", machine.check_cpu),
        ("cores", machine.check_cores),
        ("memory", machine.check_memory),
        ("open files", machine.check_open_files),
    ):
        yield from guard(name, check, limit_s=_SHORT_S)
    yield from guard("TLS", check_encryption, limit_s=2 * _SHORT_S)
    if (locking := machine.check_locking_variable()) is not None:
        yield locking


def _examine_folder(scratch: Scratch, cluster: Cluster | None) -> Iterator[Check]:
    yield check_name(scratch.root, is_for_jobs=cluster is not None)
    yield from guard("run directory", scratch.make, limit_s=_SHORT_S)
    if scratch.is_made:
        yield from guard("run directory", lambda: check_folder(scratch), limit_s=60)


def _examine_slurm(config: Config, scratch: Scratch) -> Iterator[Check]:
    settings, root = config.cluster, scratch.root
    tools = check_tools()
    yield from tools
    if any(check.status == "FAILED" for check in tools):
        return
    controller = check_controller()
    yield controller
    if controller.status == "FAILED":
        return
    yield from guard(
        "SLURM", lambda: check_settings(read_settings(), settings), limit_s=_LONG_S
    )
    refused: set[str] = set()
    for name, check in (
        ("partitions", partial(check_partitions, settings)),
        ("sbatch", partial(check_submission, settings, root)),
        ("file system", partial(check_file_system, root)),
    ):
        for result in guard(name, check, limit_s=_LONG_S):
            if result.status == "FAILED":
                refused.add(result.name.partition(":")[0])
            yield result
    if not scratch.is_made:
        return
    needs_gpu = "gpu" in (config.inference.device, config.training.device)
    roles: list[nodes.NodeRole] = ["workers"]
    if settings.coordinator == "job":
        roles.append("coordinator")
    for role in roles:
        name = f"{role}: node"
        if role in refused:
            yield warned(name, "not checked", f"mend the {role} above first")
            continue
        probe = partial(
            nodes.check_node, role, settings, scratch.path, needs_gpu=needs_gpu
        )
        yield from guard(name, probe, limit_s=_LONG_S)
