"""Bring a private SLURM up by hand: ``python -m tests.slurm up | down | shell``."""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.slurm import PrivateSlurm, daemons


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.slurm", description=__doc__, allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, description in (
        ("up", "leave one running; eval what it prints"),
        ("shell", "start $SHELL with one, take it down afterwards"),
    ):
        command = commands.add_parser(name, help=description)
        command.add_argument("--proctrack", choices=("cgroup", "linuxproc"))
        command.add_argument(
            "--warn",
            action="store_true",
            help="preempted jobs get the signal they asked for, not only SIGTERM",
        )
    commands.add_parser("down", help="take down what `up` left running")
    options = parser.parse_args(arguments)
    if options.command == "down":
        return _take_down()
    proctrack = options.proctrack or daemons.best_proctrack()
    if reason := daemons.availability(proctrack):
        print(reason, file=sys.stderr)
        return 1
    slurm = PrivateSlurm(proctrack=proctrack, preempt_send_user_signal=options.warn)
    return _bring_up(slurm) if options.command == "up" else _open_shell(slurm)


def _bring_up(slurm: PrivateSlurm) -> int:
    record = _record()
    if record.exists():
        print(f"one is up already: {record.read_text()}", file=sys.stderr)
        return 1
    # Written first: what an interrupted start leaves behind can be taken down, too.
    record.write_text(str(slurm.directory))
    try:
        slurm.start()
    except BaseException:
        record.unlink()
        raise
    for name, value in slurm.environment.items():
        print(f"export {name}={value}")
    return 0


def _take_down() -> int:
    record = _record()
    if not record.exists():
        print("none is up", file=sys.stderr)
        return 1
    PrivateSlurm(Path(record.read_text())).stop()
    record.unlink()
    return 0


def _open_shell(slurm: PrivateSlurm) -> int:
    with slurm:
        shell = os.environ.get("SHELL", "/bin/sh")
        return subprocess.call([shell], env=os.environ | slurm.environment)


def _record() -> Path:
    """File that holds the folder of the SLURM that is up."""
    folder = Path(tempfile.gettempdir()) / f"nucleiseg-slurm-{os.geteuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    # `down` removes the folder that is named in there, so nobody else may write it.
    status = folder.lstat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise PermissionError(f"{folder} is not private to you; remove it")
    return folder / "directory"


if __name__ == "__main__":
    sys.exit(main())
