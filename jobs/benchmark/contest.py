"""One contestant from training to scores; what it came to is kept in a folder.

Each is trained in a process of its own, until its CPU time is used. Thresholds are
chosen on one half of the validation images and scored on the other, and the other way
round, by everybody's own means: `nucleiseg tune`, and StarDist's optimize_thresholds.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from jobs.benchmark.contest_images import HALVES, TRAIN, Contest
from jobs.benchmark.contest_predictions import predict_ours, predict_stardist, run_part
from jobs.benchmark.measuring import say
from nucleiseg.atomic import read_json, write_json, write_text
from nucleiseg.config import AugmentationConfig, load_config
from nucleiseg.errors import RunError
from nucleiseg.metrics import InstanceMatches, concatenate_matches, match_instances

# A network that says only what is nucleus, of images as they are.
NOT_SCALED = ("preprocess.diameter_px=null", "preprocess.rescaling=1")
NOTEBOOK = (
    "model.head=mask",
    *NOT_SCALED,
    *(
        f"augmentation.{key}={json.dumps(value)}"
        for key, value in AugmentationConfig().model_dump().items()
    ),
)


@dataclass(frozen=True)
class Contestant:
    """Who is trained, and how."""

    name: str
    settings: tuple[str, ...] = ()
    """Of our configuration, each `section.key=value`."""
    is_stardist: bool = False
    is_tuned: bool = True
    """Whether thresholds are chosen; else they are the defaults."""
    trained_as: str | None = None
    """Whose model it uses, where that is not its own."""


@dataclass(frozen=True)
class Rules:
    """What holds for all of them."""

    contest: Contest
    folder: Path
    config: Path
    settings: tuple[str, ...]
    core_s: float

    def home(self, contestant: Contestant) -> Path:
        """Folder of the model that a contestant uses."""
        return self.folder / (contestant.trained_as or contestant.name)


@dataclass(frozen=True)
class Outcome:
    """What a contestant came to."""

    contestant: Contestant
    trained: dict[str, Any]
    """Steps, crops, core seconds and others."""
    matches: InstanceMatches
    images_per_s: float
    """From the first image to the last label image, without start-up."""
    peak_mb: float
    """Of the largest process that predicts."""
    thresholds: list[dict[str, Any]]
    """Of each half, chosen on the other one."""


def compete(contestant: Contestant, rules: Rules) -> Outcome:
    """Train, predict and match; or read what was kept.

    Raises
    ------
    RunError
        The folder keeps what was made under other rules.
    """
    folder = rules.folder / contestant.name
    folder.mkdir(exist_ok=True)
    terms = _describe_terms(contestant, rules)
    path = folder / "outcome.json"
    if path.exists():
        kept = read_json(path)
        _refuse_other_terms(path, kept["terms"], terms)
        say(f"{contestant.name}: kept in {path}")
    else:
        trained = train(contestant, rules)
        say(f"{contestant.name}: predicting")
        kept = {"terms": terms, "trained": trained, **_predict(contestant, rules)}
        write_json(path, kept)
    matches = {name: np.array(rows) for name, rows in kept["matches"].items()}
    return Outcome(
        contestant,
        kept["trained"],
        InstanceMatches(**matches),
        kept["images_per_s"],
        kept["peak_mb"],
        kept["thresholds"],
    )


def _describe_terms(contestant: Contestant, rules: Rules) -> dict[str, Any]:
    return {
        # As JSON gives it back.
        **json.loads(json.dumps(asdict(contestant))),
        "all_settings": list(rules.settings),
        "config_sha256": hashlib.sha256(rules.config.read_bytes()).hexdigest(),
        "core_s": rules.core_s,
        "images_sha256": _hash_images(rules.contest),
    }


def _hash_images(contest: Contest) -> str:
    """Hash what the contest's file holds, and not how HDF5 wrote it."""
    digest = hashlib.sha256()
    with h5py.File(contest.path) as file:
        for part in sorted(file):
            for group, stack in file[part].items():
                digest.update(f"{part}/{group}".encode())
                digest.update(stack["images"][()].tobytes())
                digest.update(stack["labels"][()].tobytes())
    return digest.hexdigest()


def _refuse_other_terms(
    path: Path, kept: dict[str, Any], terms: dict[str, Any]
) -> None:
    changed = [key for key in terms if kept.get(key) != terms[key]]
    if changed:
        raise RunError(
            f"{path} was made with other {', '.join(changed)}: "
            f"{[kept.get(key) for key in changed]}, now "
            f"{[terms[key] for key in changed]}; use another --folder"
        )


def train(contestant: Contestant, rules: Rules) -> dict[str, Any]:
    """Train, or read what training came to: it is long, and kept by itself.

    Returns
    -------
    dict
        Steps, crops, core seconds and others; the model is in `rules.home`.

    Raises
    ------
    RunError
        The folder keeps what was made under other rules.
    """
    home = rules.home(contestant)
    home.mkdir(exist_ok=True)
    terms = _describe_terms(contestant, rules)
    path = home / "trained.json"
    if path.exists():
        kept = read_json(path)
        if contestant.trained_as is None:
            _refuse_other_terms(path, kept["terms"], terms)
        return dict(kept["trained"])
    if contestant.trained_as is not None:
        raise RunError(f"{path} is missing: {contestant.trained_as} must come first")
    say(f"{contestant.name}: training for {rules.core_s / 60:g} core-minutes")
    if contestant.is_stardist:
        words: list[object] = ["jobs.benchmark.stardist_rival", "train"]
        words += [rules.contest.path, home, rules.core_s]
    else:
        config = home / "contest.yaml"
        write_text(config, _resolve(contestant, rules))
        words = ["jobs.benchmark.train_within", config, home, rules.core_s]
    trained, _ = run_part(words)
    write_json(path, {"terms": terms, "trained": trained})
    return trained


def _resolve(contestant: Contestant, rules: Rules) -> str:
    """Resolve the configuration of a training within a budget, as YAML."""
    overrides = [
        f"data.archive={rules.contest.path}",
        *(f"data.images=/{TRAIN}/*/images", f"data.masks=/{TRAIN}/*/labels"),
        # Everybody sees the same images, none of them more often by a weight.
        *("data.weight=1", "data.more=[]", "data.overlap=keep"),
        f"data.validation_images=/{HALVES[0]}/*/images",
        f"data.validation_masks=/{HALVES[0]}/*/labels",
        # The budget ends it, and lowers the learning rate.
        *("training.epochs=10000", "training.schedule=constant"),
        *("training.warmup_steps=0", "training.keep=last"),
        # Of some hundred steps, an average over thousands is what was before them.
        "training.ema_decay=0.99",
        *contestant.settings,
        *rules.settings,
    ]
    return load_config(rules.config, overrides).to_yaml()


def _predict(contestant: Contestant, rules: Rules) -> dict[str, Any]:
    """Predict each half, tuned on the other, and match with the labels."""
    home = rules.home(contestant)
    matches, thresholds = [], []
    n_images, seconds, peak_mb = 0, 0.0, 0.0
    for half, other in zip(HALVES, reversed(HALVES), strict=True):
        if contestant.is_stardist:
            found = predict_stardist(rules.contest, home, half, tuned_on=other)
        else:
            tuned_on = other if contestant.is_tuned else None
            found = predict_ours(rules.contest, home, half, tuned_on=tuned_on)
        for stack in rules.contest.read(half):
            matches.append(match_instances(found.labels[stack.group], stack.labels))
            n_images += len(stack.images)
        seconds += found.seconds
        peak_mb = max(peak_mb, found.peak_mb)
        thresholds.append({"half": half, **found.thresholds})
    table = vars(concatenate_matches(matches))
    return {
        "matches": {name: values.tolist() for name, values in table.items()},
        "images_per_s": n_images / seconds,
        "peak_mb": peak_mb,
        "thresholds": thresholds,
    }
