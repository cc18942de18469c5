"""Any benchmark as a job of a cluster, on one of its GPU nodes.

    python -m jobs.benchmark count ... --submit --site PROFILE --run DIR [--dry-run]

The job runs the same command without these options. Table and JSON are the end of its
log; `nucleiseg cancel DIR` ends it.
"""

import argparse
import logging
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.benchmark.cluster_options import OPTIONS
from nucleiseg.atomic import create_private
from nucleiseg.cli.site import load_settings
from nucleiseg.cluster import Batch, make_sbatch_text, submit
from nucleiseg.config import ClusterConfig
from nucleiseg.errors import ConfigError, NucleisegError
from nucleiseg.launching import refuse_while_active
from nucleiseg.runs import Jobs


@dataclass(frozen=True)
class BenchmarkJob:
    """What the job runs; small, since submitit pickles it."""

    arguments: tuple[str, ...]

    def __call__(self) -> None:
        """Run the benchmark, and fail with it."""
        # So that the JSON, and not submitit's word of the end, is the log's last line.
        logging.getLogger("submitit").setLevel(logging.WARNING)
        # A process of its own, so that what is measured is what is measured by hand.
        subprocess.run(
            [sys.executable, "-u", "-m", "jobs.benchmark", *self.arguments], check=True
        )


def send(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Submit a command, or show what would be; 2: it could not be.

    Parameters
    ----------
    options : Namespace
        With the options of a submission.
    arguments : sequence of str
        All that this program was called with.
    """
    try:
        settings = _load_cluster(options)
        root = _find_root(options)
        jobs = Jobs(root)
        batch = make_batch(arguments, settings)
        if options.dry_run:
            print(f"runs         python -m jobs.benchmark {_words(arguments)}")
            print(make_sbatch_text(jobs, batch, settings, after=None).rstrip())
            return 0
        refuse_while_active(jobs)
        create_private(root)
        (sent,) = submit(jobs, batch, "slurm", settings, after=None)
    except NucleisegError as error:
        print(f"jobs.benchmark: {error}", file=sys.stderr)
        return 2
    print(f"benchmark    job {sent.job_id}")
    print(f"log          {jobs.logs / f'{sent.job_id}_0_log.out'}")
    print(f"cancel       nucleiseg cancel {shlex.quote(str(root))}")
    return 0


def make_batch(arguments: Sequence[str], settings: ClusterConfig) -> Batch:
    """Make the one job of a benchmark."""
    job = BenchmarkJob(tuple(_without_submission(arguments)))
    return Batch("benchmark", [job], gpus=settings.gpus)


def _load_cluster(options: argparse.Namespace) -> ClusterConfig:
    for setting in options.cluster_set:
        if not setting.startswith("cluster."):
            raise ConfigError(
                f"--cluster-set {setting}: expected cluster.key=value; settings of a "
                "count go to --setting"
            )
    asked = argparse.Namespace(
        site=options.site, cluster="slurm", overrides=options.cluster_set
    )
    settings = load_settings(asked, None).cluster
    # A benchmark that was killed, out of memory say, would be killed again.
    return settings.model_copy(update={"max_restarts": 0})


def _find_root(options: argparse.Namespace) -> Path:
    if options.run is None and not options.dry_run:
        raise ConfigError(
            "--submit needs --run DIR, the folder for script and log on a file system "
            "that all nodes share (or --dry-run)"
        )
    root: Path = options.run or Path("RUN")
    return root.absolute()


def _without_submission(arguments: Sequence[str]) -> list[str]:
    """Take the options of a submission out of a command's words."""
    kept, words = [], iter(arguments)
    for word in words:
        name, equals, _ = word.partition("=")
        if name not in OPTIONS:
            kept.append(word)
        elif OPTIONS[name] and not equals:
            next(words, None)
    return kept


def _words(arguments: Sequence[Any]) -> str:
    return shlex.join(_without_submission(arguments))
