"""What a private SLURM is asked to be, and the files that tell SLURM so."""

import random
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# Below the ephemeral ports of Linux (32768 and up), so that no outgoing connection of
# another test takes one between choosing it and listening on it.
PORTS = range(20_000, 32_000)


@dataclass(frozen=True)
class Options:
    """What differs between sites and matters to a job; all else is fixed."""

    proctrack: Literal["cgroup", "linuxproc"] = "cgroup"
    """Which processes a signal reaches: a step's own children, or the whole tree."""
    preempt_send_user_signal: bool = False
    """Whether a preempted job gets the signal it asked for with --signal."""
    grace_s: int = 8
    """Time between the warning (SIGTERM, if no other) of a preempted job and its end.

    SLURM looks only every ``kill_wait_s`` + MessageTimeout (5): 8 makes 10 s, 20 makes
    20 to 30, and 0 no warning.
    """
    n_nodes: int = 2
    """Nodes with GPUs; one more has none."""
    gpus_per_node: int = 2
    cpus_per_node: int = 8
    memory_per_node_mb: int = 16_000
    kill_wait_s: int = 5
    """Time between SIGTERM and SIGKILL of a job that is ended; SLURM makes less 5."""
    requeue_wait_s: int = 120
    """Time that SLURM holds a requeued job back; its own default is 120."""
    node_timeout_s: int = 10
    """Silence after which a node counts as failed."""

    @property
    def gpu_nodes(self) -> list[str]:
        """Names of the nodes with GPUs."""
        return [f"gpu{index}" for index in range(self.n_nodes)]

    @property
    def nodes(self) -> list[str]:
        """Names of all nodes."""
        return [*self.gpu_nodes, "cpu0"]


def free_ports(number: int) -> list[int]:
    """Choose ports at random that nobody listens on."""
    ports: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == number:
            return ports
    raise RuntimeError(f"fewer than {number} free ports in {PORTS}")


def write_config(directory: Path, options: Options) -> None:
    """Write ``slurm.conf``, ``gres.conf`` and ``cgroup.conf`` into a directory."""
    ports = free_ports(1 + len(options.nodes))
    (directory / "slurm.conf").write_text(_slurm_conf(directory, options, ports))
    devices = f"{directory}/nvidia[0-{options.gpus_per_node - 1}]"
    # All lines of a node need the same flags; this one makes SLURM set
    # CUDA_VISIBLE_DEVICES although it finds no driver.
    (directory / "gres.conf").write_text(
        "".join(
            f"NodeName={name} Name=gpu File={devices} Flags=nvidia_gpu_env\n"
            for name in options.gpu_nodes
        )
    )
    (directory / "cgroup.conf").write_text(
        "CgroupPlugin=cgroup/v1\n"
        "CgroupMountpoint=/sys/fs/cgroup\n"
        "CgroupAutomount=yes\n"
        "ConstrainDevices=no\n"
    )


def _slurm_conf(directory: Path, options: Options, ports: list[int]) -> str:
    controller_port, *node_ports = ports
    host = socket.gethostname().split(".")[0]
    size = (
        f"CPUs={options.cpus_per_node} Boards=1 SocketsPerBoard=1 "
        f"CoresPerSocket={options.cpus_per_node} ThreadsPerCore=1 "
        f"RealMemory={options.memory_per_node_mb}"
    )
    nodes = "".join(
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} {size}"
        f"{f' Gres=gpu:{options.gpus_per_node}' if name in options.gpu_nodes else ''}\n"
        for name, port in zip(options.nodes, node_ports, strict=True)
    )
    warning = (
        "SlurmctldParameters=preempt_send_user_signal\n"
        if options.preempt_send_user_signal
        else ""
    )
    gpu_nodes = ",".join(options.gpu_nodes)
    # FirstJobId: under cgroups v1 all SLURMs of a machine share one folder, in which
    # jobs of the same number would be killed together.
    return f"""\
ClusterName=private
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
FirstJobId={controller_port * 1000}

AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket,cred_expire={options.requeue_wait_s}
CryptoType=crypto/munge
CredType=cred/munge
MpiDefault=none

StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool.%n
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/%n.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/%n.log
SlurmctldDebug=verbose
SlurmdDebug=verbose

ProctrackType=proctrack/{options.proctrack}
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=5
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
{warning}
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU={options.memory_per_node_mb // options.cpus_per_node}
GresTypes=gpu
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
MinJobAge=60
MessageTimeout=5
KillWait={options.kill_wait_s}
SlurmdTimeout={options.node_timeout_s}

{nodes}
PartitionName=DEFAULT State=UP MaxTime=INFINITE PriorityTier=1 PreemptMode=OFF
PartitionName=cpu Nodes=cpu0
PartitionName=urgent Nodes={gpu_nodes} PriorityTier=2
PartitionName=gpu Nodes={gpu_nodes} Default=YES PreemptMode=REQUEUE \\
    GraceTime={options.grace_s}
"""
