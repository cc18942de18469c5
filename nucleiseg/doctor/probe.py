"""What a node says of itself: ``python -m nucleiseg.doctor.probe FOLDER TOKEN``.

It prints one line of JSON. With ``gpus`` as third argument it asks TensorFlow, too.
"""

import json
import os
import platform
import shutil
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nucleiseg
from nucleiseg.doctor.check import ask
from nucleiseg.doctor.folder import measure_skew
from nucleiseg.doctor.sight import ask_tensorflow

TOKEN = "token"
"""File that the machine that asks has made."""
_VISIBLE_LIMIT_S = 10.0
_SRUN_LIMIT_S = 30.0
# The job of a probe ends after five minutes.
_TENSORFLOW_LIMIT_S = 200.0


def describe_node(folder: Path, token: str, *, with_gpus: bool) -> dict[str, Any]:
    """Describe this node.

    Parameters
    ----------
    folder : Path
        Shared with the machine that asks.
    token : str
        Content of a file in it, and of the one that is left there.
    with_gpus : bool
        Also ask TensorFlow, which takes its time.
    """
    facts: dict[str, Any] = {
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "executable": sys.executable,
        "nucleiseg": nucleiseg.__version__,
        "scontrol": shutil.which("scontrol") is not None,
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "interfaces": [name for _, name in socket.if_nameindex()],
        "address": _find_address(),
        **_use_folder(folder, token),
    }
    if with_gpus:
        sight = ask_tensorflow(_TENSORFLOW_LIMIT_S)
        facts["tensorflow"] = sight.version
        facts["gpus"] = list(sight.gpus)
        facts["problem"] = sight.problem
    return facts


def answer_name(host: str) -> str:
    """Name of the file that a node leaves."""
    return f"answer-{host}"


def _use_folder(folder: Path, token: str) -> dict[str, Any]:
    """Read what was left in the folder, and leave an answer in it."""
    facts: dict[str, Any] = {"sees_token": _sees_token(folder / TOKEN, token)}
    try:
        name = answer_name(socket.gethostname())
        (folder / name).write_text(token, encoding="ascii")
        facts["skew_s"] = measure_skew(folder)
    except OSError as error:
        facts["write_problem"] = str(error.strerror)
    return facts


def _sees_token(path: Path, token: str) -> bool:
    deadline = time.monotonic() + _VISIBLE_LIMIT_S
    # NFS may believe for some seconds that a new file is not there.
    while True:
        try:
            return path.read_text("ascii") == token
        except OSError:
            if time.monotonic() > deadline:
                return False
        time.sleep(0.5)


def _find_address() -> str | None:
    """Address of this node, as a job's step knows it; None: it cannot be told."""
    # The variable names the machine srun was started on: as in a job's script, that
    # must be this node.
    command = ["srun", "--overlap", "--nodes=1", "--ntasks=1", "--quiet", "printenv"]
    answer = ask([*command, "SLURM_LAUNCH_NODE_IPADDR"], limit_s=_SRUN_LIMIT_S)
    return answer.output.strip() or None if answer.status == 0 else None


def main(arguments: Sequence[str]) -> None:
    """Print what this node is like."""
    folder, token, *rest = arguments
    facts = describe_node(Path(folder), token, with_gpus="gpus" in rest)
    sys.stdout.write(f"{json.dumps(facts)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
