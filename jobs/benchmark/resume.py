"""Kill trainings at random instants, and compare what they end with.

    python -m jobs.benchmark resume [--kills 25] [--replicas 1 2] [--seed N] ...

Each training is killed (SIGKILL) again and again, half of the times in the middle of
writing a checkpoint, started again by the same command, and compared with one that
nobody disturbed: SHA-256 of weights, of optimiser and random state, and of history.csv.
Dropout, augmentation and averaged weights are on.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nucleiseg import synthetic
from nucleiseg.config import load_config
from nucleiseg.model import build_unet
from nucleiseg.runs import TrainRun
from nucleiseg.training.checkpoints import load_newest

_N_IMAGES = 44  # 33 to train on: eight batches of 4 and one of 1
_STEPS = 9
_SIDE_PX = 32
# A checkpoint now and then within an epoch.
_CHECKPOINT_MIN = 0.02
_TRAINING = """\
data: {{archive: "{archive}"}}
augmentation:
  {{flips: true, quarter_turns: true, rotation_deg: 180, scale: 1.3, elastic_px: 3,
   brightness: 0.1, contrast: 1.5, gamma: 1.5, blur_px: 1, noise: 0.05,
   background: 0.2, inversion: 0.1}}
model: {{base_filters: 2, dropout: 0.3}}
training:
  {{epochs: {epochs}, batch_size: 4, optimizer: adamw, schedule: cosine,
   warmup_steps: 3, clip_norm: 1.0, ema_decay: 0.95, device: cpu,
   precision: {precision}, replicas: {replicas}, checkpoint_min: {checkpoint_min}}}
"""

# Loaded by each process that trains: it ends itself within the n-th call that makes
# a checkpoint durable, before or after what the call does.
_KILLER = """\
import os, signal

_left = int(os.environ["KILL_AT_CALL"])
_is_late = os.environ["KILL_LATE"] == "1"

def _aim(name):
    original = getattr(os, name)

    def call(*arguments, **options):
        global _left
        path = arguments[0]
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        if "/checkpoints" not in str(path):
            return original(*arguments, **options)
        _left -= 1
        if _left == 0 and not _is_late:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = original(*arguments, **options)
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(os, name, call)

for name in ("fsync", "replace", "unlink", "rmdir"):
    _aim(name)
"""


@dataclass(frozen=True)
class Digests:
    """What a training ended with."""

    weights: str
    state: str
    """Optimiser, random state, averaged and best weights, sums."""
    history: str


@dataclass(frozen=True)
class Outcome:
    """What became of one training that was killed again and again."""

    replicas: int
    precision: str
    n_killed: int
    n_aimed: int
    """Of these, in the middle of writing a checkpoint."""
    n_mid_epoch: int
    """Times it went on in the middle of an epoch."""
    seconds: float
    is_identical: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--kills", type=int, default=25, help="of each training (%(default)s)"
    )
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2])
    parser.add_argument(
        "--precision", nargs="+", default=["float32", "bfloat16"], metavar="TYPE"
    )
    parser.add_argument("--seed", type=int, default=1)


def run(options: argparse.Namespace) -> int:
    """Train through the kills; 1: some training ended otherwise."""
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="resume-") as name:
        folder = Path(name)
        archive = draw_archive(folder)
        print("replicas precision  killed aimed mid-epoch  seconds  same bits")
        for replicas in options.replicas:
            for precision in options.precision:
                outcome = kill_again_and_again(
                    folder / f"{replicas}-{precision}",
                    archive,
                    replicas=replicas,
                    precision=precision,
                    n_kills=options.kills,
                    rng=random.Random(options.seed),
                )
                outcomes.append(outcome)
                print(_describe(outcome), flush=True)
    print(json.dumps([asdict(outcome) for outcome in outcomes]))
    return 0 if all(outcome.is_identical for outcome in outcomes) else 1


def _describe(outcome: Outcome) -> str:
    return (
        f"{outcome.replicas:8} {outcome.precision:9} {outcome.n_killed:7} "
        f"{outcome.n_aimed:5} {outcome.n_mid_epoch:9} {outcome.seconds:8.0f}  "
        + ("yes" if outcome.is_identical else "NO")
    )


def draw_archive(folder: Path) -> Path:
    """Draw a few labelled images."""
    path = folder / "train.npz"
    images, labels = synthetic.draw_fields(_N_IMAGES, (_SIDE_PX, _SIDE_PX), seed=5)
    np.savez_compressed(path, X=images, y=(labels > 0).astype("uint8"))
    return path


def kill_again_and_again(
    folder: Path,
    archive: Path,
    *,
    replicas: int,
    precision: str,
    n_kills: int,
    rng: random.Random,
) -> Outcome:
    """Train once undisturbed and once through kills, and compare.

    Parameters
    ----------
    folder : Path
        For both run directories; made here.
    archive : Path
    replicas, precision
        Of the training.
    n_kills : int
        Each leaves the training further, or where it was.
    rng : random.Random
        Decides when.
    """
    folder.mkdir()
    config = folder / "train.yaml"
    text = _TRAINING.format(
        archive=archive,
        # Enough that the last kill finds something to interrupt.
        epochs=4 + n_kills,
        precision=precision,
        replicas=replicas,
        checkpoint_min=_CHECKPOINT_MIN,
    )
    config.write_text(text)
    (folder / "hook").mkdir()
    (folder / "hook" / "sitecustomize.py").write_text(_KILLER)
    whole, killed = folder / "whole", folder / "killed"
    start_s = time.monotonic()
    _train(config, whole)
    n_killed = n_aimed = n_mid_epoch = 0
    while n_killed < n_kills:
        is_aimed = n_killed % 2 == 0
        if is_aimed:
            status = _train_aimed(config, killed, folder / "hook", rng)
        else:
            status = _train_timed(config, killed, rng)
        if status == 0:
            break
        n_killed += 1
        n_aimed += is_aimed
        state = load_newest(TrainRun(killed))
        n_mid_epoch += state is not None and state.step % _STEPS != 0
    _train(config, killed)
    return Outcome(
        replicas,
        precision,
        n_killed,
        n_aimed,
        n_mid_epoch,
        time.monotonic() - start_s,
        is_identical=n_killed == n_kills and digest(killed) == digest(whole),
    )


def digest(folder: Path) -> Digests:
    """Give the SHA-256 of all that a finished training ended with."""
    run = TrainRun(folder)
    state = load_newest(run)
    assert state is not None, f"{folder} has no checkpoint"
    n_weights = len(build_unet(load_config(run.config).model).weights)
    rest = [*state.variables[n_weights:], *state.best, state.sums]
    return Digests(
        weights=_sha256(state.variables[:n_weights]),
        state=_sha256(rest),
        history=hashlib.sha256(run.history.read_bytes()).hexdigest(),
    )


def _sha256(arrays: Iterable[np.ndarray[Any, Any]]) -> str:
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return found.hexdigest()


def _command(config: Path, root: Path) -> Sequence[str]:
    words = [sys.executable, "-m", "nucleiseg", "train", str(config)]
    return [*words, "--run", str(root)]


def _train(config: Path, root: Path) -> None:
    answer = subprocess.run(
        _command(config, root), capture_output=True, text=True, check=False
    )
    if answer.returncode != 0:
        raise RuntimeError(f"training {root} failed: {answer.stderr[-500:]}")


def _train_aimed(config: Path, root: Path, hook: Path, rng: random.Random) -> int:
    """Train until it kills itself within the writing of a checkpoint."""
    path = os.environ.get("PYTHONPATH")
    environment = {
        **os.environ,
        "PYTHONPATH": f"{hook}:{path}" if path else str(hook),
        # A checkpoint takes six such calls, and some to drop an old one.
        "KILL_AT_CALL": str(rng.randint(1, 24)),
        "KILL_LATE": str(rng.randint(0, 1)),
    }
    return _check(
        subprocess.run(
            _command(config, root),
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    )


def _train_timed(config: Path, root: Path, rng: random.Random) -> int:
    """Train until it is killed at any instant after it has begun."""
    with subprocess.Popen(
        _command(config, root),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if line.startswith(("training on", "epoch")):
                break
        time.sleep(rng.uniform(0, 4))
        process.send_signal(signal.SIGKILL)
        said += process.stderr.read()
        status = process.wait()
    return _check(subprocess.CompletedProcess((), status, stderr=said))


def _check(answer: "subprocess.CompletedProcess[str]") -> int:
    if answer.returncode not in (0, -signal.SIGKILL):
        raise RuntimeError(
            f"training ended with {answer.returncode}: {answer.stderr[-500:]}"
        )
    return answer.returncode
