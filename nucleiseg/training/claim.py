"""Whose directory it is: a training goes on only with the settings it began with."""

import logging

from nucleiseg.atomic import create_private, read_json, write_json, write_text
from nucleiseg.config import Config, load_config
from nucleiseg.dataset import LabelledShapes, refuse_edited_split
from nucleiseg.errors import RunError
from nucleiseg.provenance import describe_environment, timestamp
from nucleiseg.runs import TrainRun
from nucleiseg.training.checkpoints import list_checkpoints

logger = logging.getLogger(__name__)

_BINDING_SECTIONS = (
    "data",
    "preprocess",
    "augmentation",
    "model",
    "training",
)

# Changing these does not disturb what was trained so far.
_FREE = {
    ("data", "test_archive"),
    ("training", "epochs"),
    ("training", "keep"),
    ("training", "device"),
    # Bits change, and that is said.
    ("training", "replicas"),
    # What it comes to on this machine is compared with the checkpoint's.
    ("training", "precision"),
    ("training", "xla"),
    ("training", "deterministic"),
    # When states are written, and what is drawn.
    ("training", "checkpoint_min"),
    ("training", "tensorboard"),
}


def claim(run: TrainRun, config: Config, shapes: LabelledShapes) -> None:
    """Make the run directory, or check that it belongs to this training.

    One without a checkpoint has nothing to lose and may begin anew.
    """
    data_fingerprint = shapes.fingerprint()
    manifest = read_json(run.manifest) if run.manifest.exists() else {}
    if any(run.checkpoints.glob("epoch-*.npz")):
        raise RunError(
            f"{run.root} holds a training of an earlier nucleiseg; go on with that "
            "one, or use another --run"
        )
    if "data_fingerprint" not in manifest:
        _refuse_others(run)
    elif run.bundle.info.exists() and not list_checkpoints(run):
        raise RunError(
            f"{run.root} holds a finished model and no checkpoints to go on from; use "
            "another --run"
        )
    elif list_checkpoints(run) and run.config.exists():
        _refuse_changes(run, load_config(run.config), config)
        if manifest["data_fingerprint"] != data_fingerprint:
            raise RunError(
                f"{shapes.path} has changed since training {run.root} began (in size, "
                "modification time or content); use another --run for the new data. If "
                "it is a copy, `cp -p` or `touch -r` gives it the original's time"
            )
        refuse_edited_split(run, config.data)
        logger.info("going on with %s", run.root)
    create_private(run.root)
    create_private(run.checkpoints)
    if not manifest:
        run.root.chmod(0o700)
    fresh = {"environment": describe_environment(), "started": timestamp()}
    write_json(
        run.manifest, {**fresh, **manifest, "data_fingerprint": data_fingerprint}
    )
    write_text(run.config, config.to_yaml())


def _refuse_others(run: TrainRun) -> None:
    """Refuse a directory with files that a training would overwrite."""
    ours = [run.config, run.manifest, run.history, run.bundle.root]
    there = [path.name for path in [*ours, *list_checkpoints(run)] if path.exists()]
    if there:
        raise RunError(
            f"{run.root} holds {', '.join(there[:4])} and is no training's directory; "
            "use another --run"
        )


def _refuse_changes(run: TrainRun, before: Config, now: Config) -> None:
    differences = []
    for section in _BINDING_SECTIONS:
        old = getattr(before, section).model_dump(mode="json")
        new = getattr(now, section).model_dump(mode="json")
        differences += [
            f"{section}.{key} was {old[key]!r} and is now {new[key]!r}"
            for key in old
            if old[key] != new[key] and (section, key) not in _FREE
        ]
    epochs = before.training.epochs, now.training.epochs
    # The learning rate of every step so far came from the number of epochs.
    is_bound = now.training.schedule != "constant"
    if epochs[0] > epochs[1] or (is_bound and epochs[0] != epochs[1]):
        differences.append(
            f"training.epochs was {epochs[0]} and is now {epochs[1]} "
            + (
                f"(schedule {now.training.schedule} depends on it)"
                if is_bound
                else "(it may only grow)"
            )
        )
    if differences:
        raise RunError(
            f"{run.root} holds a training with another configuration: "
            f"{'; '.join(differences)}; use another --run, or the settings it began "
            "with"
        )
