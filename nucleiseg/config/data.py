"""Training input: labelled archives, their split, and how crops are changed."""

from typing import Literal

from pydantic import Field, model_validator

from nucleiseg.config.section import SIDE_MULTIPLE, Section


class LabelledArchive(Section):
    """A further archive of labelled images."""

    archive: str | None = None
    """File with the labelled images, `.npz` or HDF5; unset: `data.archive`."""
    images: str = "X"
    """Dataset of grey images, (N, H, W) or (H, W); or a glob of several."""
    masks: str = "y"
    """Dataset of masks or instance labels, or a glob; as in `data.masks`."""
    weight: float = Field(default=1.0, gt=0, le=1000)
    """How often its crops are shown each epoch, as in `data.weight`."""


class DataConfig(Section):
    """The labelled archives to train on, and how they are split."""

    archive: str | None = None
    """File with the labelled images, `.npz` or HDF5."""
    images: str = "X"
    """Dataset of grey images, (N, H, W) or (H, W); or a glob of several, such as
    `/train/*/images`."""
    masks: str = "y"
    """Dataset of masks (0/1 or 0/255) or instance labels (0 = background), of the
    images' shape; or a glob, whose datasets belong to the images where the wildcards
    match the same text."""
    weight: float = Field(default=1.0, gt=0, le=1000)
    """How often its crops are shown each epoch: 2 is twice, 0.5 another half of them
    each epoch."""
    more: list[LabelledArchive] = Field(default=[])
    """Further archives: `[{archive: b.h5, images: X, masks: y, weight: 0.5}]`."""
    crop_px: int | None = Field(
        default=None, ge=SIDE_MULTIPLE, multiple_of=SIDE_MULTIPLE
    )
    """Side of the crops to train on: of each image, each epoch, as many as cover it, at
    random places; for validation, at fixed ones. Unset: whole images, of one size."""
    validation_archive: str | None = None
    """Archive of the validation images, where they are apart; unset: `archive`."""
    validation_images: str | None = None
    """Dataset or glob of validation images; all others are then trained on."""
    validation_masks: str | None = None
    """Dataset or glob of their labels; unset: `masks`."""
    split_file: str | None = None
    """CSV that says for each image whether it is for `training` or `validation`:
    columns `part`, `index`, and `dataset` and `archive` where there are several. The
    `split.csv` of a training is one."""
    validation_share: float | None = Field(default=None, gt=0, lt=1)
    """Share of images kept for validation; unset: scikit-learn's default, a quarter."""
    split_seed: int = Field(default=123, ge=0)
    """`random_state` of scikit-learn's `train_test_split`."""
    overlap: Literal["leave_out", "refuse", "keep"] = "leave_out"
    """What becomes of training images whose pixels a validation image has, too:
    `leave_out` trains without them and names them, `keep` (the notebook's) warns."""
    memory_mb: int = Field(default=1024, ge=1)
    """Data that take up to so much memory as stored, images and labels, are held there.
    Larger ones are read while training, never more than this at once: shuffled within
    stretches of a third of it, and in the archive's order where there is no shuffling.
    """
    test_archive: str | None = None
    """`ARCHIVE[:KEY]` to count when training is done, for the notebook's table;
    a relative path starts at the folder of `archive`."""

    @model_validator(mode="after")
    def _one_split(self) -> "DataConfig":
        if self.validation_images is None:
            for name in ("validation_archive", "validation_masks"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"{name} is set without validation_images, the dataset to "
                        "validate on; set it, too"
                    )
        ways = ("validation_images", "split_file", "validation_share")
        chosen = [name for name in ways if getattr(self, name) is not None]
        if len(chosen) > 1:
            raise ValueError(f"{' and '.join(chosen)} are two ways to split; set one")
        return self


class AugmentationConfig(Section):
    """How training crops are changed at random, each part by itself; all off."""

    flips: bool = False
    """Mirror half of the crops."""
    quarter_turns: bool = False
    """Turn by 0, 90, 180 or 270 degrees; crops that are not square by 0 or 180."""
    rotation_deg: float = Field(default=0.0, ge=0, le=180)
    """Turn by up to so many degrees either way."""
    scale: float = Field(default=1.0, ge=1, le=4)
    """Enlarge by up to this factor, or reduce by as much."""
    elastic_px: float = Field(default=0.0, ge=0, le=64)
    """Displace by up to about so many pixels, smoothly varying."""
    elastic_grid_px: float = Field(default=32.0, ge=4)
    """Distance over which the displacement varies."""
    brightness: float = Field(default=0.0, ge=0, le=10)
    """Add or subtract up to this share of the image's range."""
    contrast: float = Field(default=1.0, ge=1, le=10)
    """Multiply distances from the mean by up to this factor, or divide them."""
    gamma: float = Field(default=1.0, ge=1, le=10)
    """Raise values (0 to 1 over the image's range) to a power of up to this, or of one
    over it."""
    blur_px: float = Field(default=0.0, ge=0, le=32)
    """Blur with a Gaussian of up to this standard deviation."""
    noise: float = Field(default=0.0, ge=0, le=10)
    """Add Gaussian noise of up to this standard deviation, as share of the range."""
    background: float = Field(default=0.0, ge=0, le=10)
    """Add uneven light of up to this share of the range."""
    inversion: float = Field(default=0.0, ge=0, le=1)
    """Share of crops whose dark and bright are exchanged."""
