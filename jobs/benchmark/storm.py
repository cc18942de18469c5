"""Interrupt counts on a real SLURM at random, and compare their tables.

A private SLURM of two nodes with two GPUs each, which are not there, runs on this
machine; see `tests/slurm`. Each count is done by four workers, slowed down so that
there is something to interrupt, and its table must be that of a single process.
"""

import argparse
import collections
import json
import math
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np

from nucleiseg import synthetic
from tests import interruptions
from tests.interruptions import INTERRUPTIONS, Faults, Scene, call, settings
from tests.slurm import PrivateSlurm, availability, best_proctrack

_N_WORKERS = 4
_N_SHARDS = 60
_SHARD = 4
# A cancelled job never comes back: more in one count would leave one worker.
_MOST_IN_ONE = 10
_SETTINGS = settings(**{"shards.images": _SHARD, "cluster.signal_delay_s": 60})
_ON_CPU = settings(**{"inference.device": "cpu"})
_TRAINING = """\
data: {{archive: "{archive}"}}
model: {{head: mask, base_filters: 4, dropout: 0.1}}
training: {{epochs: 6, batch_size: 8, learning_rate: 5e-3}}
"""


@dataclass(frozen=True)
class Outcome:
    """What became of one count."""

    proctrack: str
    is_warned: bool
    seed: int
    seconds: float
    n_shards: int
    n_computations: float
    """Shards that were begun, each as often as it was; parts as fractions."""
    most_computations: int
    """Shards, and one for each worker that an interruption hit."""
    interruptions: dict[str, int]
    is_identical: bool

    @property
    def n_interruptions(self) -> int:
        """Interruptions of all kinds."""
        return sum(self.interruptions.values())

    @property
    def repeated(self) -> float:
        """Shards computed again, for each interruption."""
        return (self.n_computations - self.n_shards) / max(1, self.n_interruptions)

    @property
    def is_right(self) -> bool:
        """Whether the table is right and little was done twice."""
        return self.is_identical and self.n_computations <= self.most_computations


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--interruptions",
        type=int,
        default=30,
        metavar="N",
        help="for each kind of SLURM (%(default)s)",
    )
    parser.add_argument("--proctrack", choices=("cgroup", "linuxproc", "both"))
    parser.add_argument(
        "--warning",
        choices=("on", "off", "both"),
        default="both",
        help="whether preempted jobs get a signal before (%(default)s)",
    )
    parser.add_argument("--seed", type=int, default=1)


def run(options: argparse.Namespace) -> int:
    """Count through the storm; 1: some table was not right, 2: no SLURM here."""
    proctracks = [options.proctrack or best_proctrack()]
    if options.proctrack == "both":
        proctracks = ["cgroup", "linuxproc"]
    for proctrack in proctracks:
        if reason := availability(proctrack):
            print(f"no private SLURM here: {reason}", file=sys.stderr)
            return 2
    warnings = {"on": [True], "off": [False], "both": [True, False]}[options.warning]
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="storm-") as name:
        folder = Path(name)
        archive, model, expected = _prepare(folder)
        print(_line("proctrack warned seed hits seconds begun at-most again table"))
        for proctrack, is_warned in product(proctracks, warnings):
            with PrivateSlurm(
                proctrack=proctrack, preempt_send_user_signal=is_warned
            ) as slurm:
                for seed, n in _split(options.seed, options.interruptions):
                    root = folder / f"{proctrack}-{is_warned}-{seed}"
                    root.mkdir()
                    outcome = _count(slurm, root, archive, model, expected, n, seed)
                    outcomes.append(outcome)
                    print(_describe(outcome), flush=True)
    print(json.dumps([asdict(each) for each in outcomes], indent=2))
    return 0 if all(each.is_right for each in outcomes) else 1


def _split(seed: int, n: int) -> Iterator[tuple[int, int]]:
    """Share interruptions evenly between counts; each gets a seed of its own."""
    n_counts = math.ceil(n / _MOST_IN_ONE)
    for number in range(n_counts):
        yield seed + number, (n + number) // n_counts


def _prepare(folder: Path) -> tuple[Path, Path, bytes]:
    """Make an archive and a small model, and the table of a single process."""
    images, labels = synthetic.draw_fields(64, (64, 64), seed=5)
    np.savez(folder / "training.npz", X=images, y=(labels > 0).astype("uint8"))
    config = folder / "small.yaml"
    config.write_text(_TRAINING.format(archive=folder / "training.npz"))
    _check("train", config, "--run", folder / "training")
    archive, model = folder / "a.npz", folder / "training" / "model"
    images, _ = synthetic.draw_fields(_N_SHARDS * _SHARD, (32, 32), seed=6)
    np.savez(archive, X=images)
    root = folder / "here"
    _check(
        *("count", archive, "--model", model, "--run", root, "--workers", 0),
        *(*_ON_CPU, *_SETTINGS),
    )
    return archive, model, (root / "counts.csv").read_bytes()


def _check(*arguments: object) -> None:
    answer = call(*arguments)
    if answer.returncode != 0:
        raise RuntimeError(f"nucleiseg {arguments[0]} failed: {answer.stderr}")


def _count(
    slurm: PrivateSlurm,
    folder: Path,
    archive: Path,
    model: Path,
    expected: bytes,
    n_interruptions: int,
    seed: int,
) -> Outcome:
    faults = Faults(folder / "faults")
    faults.slow_down(1)
    root = folder / "run"
    start_s = time.monotonic()
    answer = interruptions.submit_count(
        slurm,
        root,
        [archive],
        model,
        "--workers",
        _N_WORKERS,
        *_SETTINGS,
        faults=faults,
    )
    if answer.returncode != 0:
        raise RuntimeError(f"nucleiseg count failed: {answer.stderr}")
    scene = Scene(slurm, root, faults, random.Random(seed))
    scene.wait_for_work()
    kinds = [each for each in INTERRUPTIONS if not each.needs]
    hits = interruptions.rage(scene, n_interruptions, kinds, n_shards=_N_SHARDS)
    scene.wait_for_end(300)
    table = root / "counts.csv"
    outcome = Outcome(
        proctrack=slurm.options.proctrack,
        is_warned=slurm.options.preempt_send_user_signal,
        seed=seed,
        seconds=round(time.monotonic() - start_s, 1),
        n_shards=_N_SHARDS,
        n_computations=faults.n_images_begun() / _SHARD,
        most_computations=_N_SHARDS + sum(hit.n_workers for hit in hits),
        interruptions=dict(collections.Counter(hit.name for hit in hits)),
        is_identical=table.exists() and table.read_bytes() == expected,
    )
    if not outcome.is_right:
        print(scene.logs(), file=sys.stderr)
    return outcome


def _describe(outcome: Outcome) -> str:
    return _line(
        outcome.proctrack,
        "yes" if outcome.is_warned else "no",
        outcome.seed,
        outcome.n_interruptions,
        outcome.seconds,
        f"{outcome.n_computations:g}/{outcome.n_shards}",
        outcome.most_computations,
        f"{outcome.repeated:.2f}",
        "identical" if outcome.is_identical else "DIFFERENT",
    )


def _line(*words: object) -> str:
    """Write words below each other from line to line; a single text is split."""
    cells: Sequence[object] = str(words[0]).split() if len(words) == 1 else words
    return "  ".join(f"{cell!s:<9}" for cell in cells).rstrip()
