"""The mean of two networks: of a model, and of what fine-tuning made of it."""

from pathlib import Path

from nucleiseg.atomic import create_private
from nucleiseg.bundle import BundleInfo, find_tuned, read_bundle, write_info
from nucleiseg.config import Config
from nucleiseg.errors import BundleError
from nucleiseg.model.weights import load_network, save_weights


def average_models(
    start: BundleInfo, tuned: BundleInfo, out: Path, *, share: float = 0.5
) -> BundleInfo:
    """Write a bundle whose weights lie between those of a model and its fine-tuned one.

    It keeps more of what the first knew of other images, and on those that it was
    fine-tuned on is often as good or better (Wortsman et al. 2022, Robust fine-tuning
    of zero-shot models, arXiv:2109.01903). Of networks that were trained apart the
    mean knows nothing.

    Parameters
    ----------
    start, tuned : BundleInfo
        Of one network and one normalisation.
    out : Path
        Folder of the bundle, new or empty. It has the thresholds of `tuned`, and is to
        be tuned anew: it has no calibration.
    share : float, in [0, 1]
        Of the weights of `tuned`; 0 gives `start`.

    Raises
    ------
    BundleError
        The two differ in more than their weights, or the folder holds something.
    ValueError
        The share is none.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share is {share}, expected 0 to 1")
    for name in ("model", "preprocess"):
        one, other = (getattr(info, name) for info in (start, tuned))
        if one != other:
            raise BundleError(
                f"{start.paths.root} and {tuned.paths.root} differ in {name} ({one}; "
                f"{other}), expected a model and what train --from made of it"
            )
    target = find_tuned(tuned, out)
    weights = [
        (1 - share) * one + share * other
        for one, other in zip(
            *(load_network(info).get_weights() for info in (start, tuned)), strict=True
        )
    ]
    create_private(target.root)
    save_weights(target, tuned.model, weights)
    config = Config(
        preprocess=tuned.preprocess, model=tuned.model, instances=tuned.instances
    )
    parents = [
        {"model": info.title, "share": part, "training": info.training}
        for info, part in ((start, 1 - share), (tuned, share))
    ]
    write_info(target, config, training={"mean_of": parents}, scores={})
    return read_bundle(target.root)
