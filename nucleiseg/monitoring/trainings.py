"""How far a training is."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nucleiseg.cluster import is_cancelled
from nucleiseg.config import load_config
from nucleiseg.monitoring.jobs import JobsStatus, read_jobs_status
from nucleiseg.runs import TrainRun
from nucleiseg.training import is_trained, read_history

# A training in place leaves no sign of life but its checkpoints.
_SILENT_S = 900.0


@dataclass(frozen=True)
class TrainStatus:
    """How far a training is."""

    root: str
    state: str
    """submitted, running, finished, failed, cancelled, interrupted."""
    epochs: int
    n_done: int
    val_loss: float | None
    """After the last epoch."""
    best_val_loss: float | None
    best_epoch: int | None
    epoch_s: float | None
    """Seconds of the last epoch, validation included; None before the first."""
    eta_s: float | None
    model: str | None
    """The model bundle, where it is there."""
    jobs: JobsStatus


def is_training(root: Path) -> bool:
    """Whether a directory is that of a training."""
    run = TrainRun(root)
    return run.config.exists() and run.manifest.exists()


def read_train_status(root: Path, *, now_s: float) -> TrainStatus:
    """Read how far a training is.

    Parameters
    ----------
    root : Path
        The run directory.
    now_s : float
        Seconds since the epoch.
    """
    run = TrainRun(root)
    training = load_config(run.config).training
    epochs = training.epochs
    losses = [row["val_loss"] for row in read_history(run).rows]
    jobs = read_jobs_status(run.jobs, now_s=now_s)
    times_s = list(_list_times_s(run.checkpoints))
    epoch_s = _read_epoch_s(run)
    is_finished = is_trained(run, training)
    if is_finished:
        state = "finished"
    elif is_cancelled(run.jobs):
        state = "cancelled"
    elif jobs.n_active:
        is_running = jobs.states["training"].keys() & {"working", "draining"}
        state = "running" if is_running else "submitted"
    elif jobs.submitted:
        state = "failed" if "failed" in jobs.states["training"] else "interrupted"
    else:
        silent_s = max(_SILENT_S, 2 * 60 * training.checkpoint_min)
        is_recent = times_s and now_s - max(times_s) < silent_s
        state = "running" if is_recent else "interrupted"
    best = min(range(len(losses)), key=losses.__getitem__) if losses else None
    left = epochs - len(losses)
    return TrainStatus(
        root=str(root),
        state=state,
        epochs=epochs,
        n_done=len(losses),
        val_loss=losses[-1] if losses else None,
        best_val_loss=None if best is None else losses[best],
        best_epoch=None if best is None else best + 1,
        epoch_s=epoch_s,
        eta_s=epoch_s * left if epoch_s is not None and state == "running" else None,
        model=str(run.bundle.root) if run.bundle.info.exists() else None,
        jobs=jobs,
    )


def _read_epoch_s(run: TrainRun) -> float | None:
    """Read how long the last epoch took that was trained without a pause."""
    if not run.rates.exists():
        return None
    header, *lines = run.rates.read_text(encoding="utf-8").splitlines()
    names = header.split(",")
    rows = [dict(zip(names, line.split(","), strict=True)) for line in lines]
    n_images = max((int(row["images"]) for row in rows), default=0)
    whole = [row for row in rows if int(row["images"]) == n_images]
    if not whole:
        return None
    return float(whole[-1]["seconds"]) + float(whole[-1]["validation_s"])


def _list_times_s(checkpoints: Path) -> Iterator[float]:
    """When checkpoints were written; older ones may go while they are looked at."""
    for path in checkpoints.glob("step-*"):
        with contextlib.suppress(FileNotFoundError):
            yield path.stat().st_mtime
