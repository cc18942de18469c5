"""What can be set: sections of typed, frozen values."""

from typing import Any, Literal

from pydantic import Field, model_validator

from nucleiseg.config import dialect
from nucleiseg.config.cluster import ClusterConfig
from nucleiseg.config.data import AugmentationConfig, DataConfig
from nucleiseg.config.section import SIDE_MULTIPLE, Section

Precision = Literal["auto", "float32", "bfloat16", "float16"]


class PreprocessConfig(Section):
    """How pixel values become the network's input; stored in the model bundle."""

    normalisation: Literal["none", "percentile"] = "percentile"
    """`none`: values as they are (the notebook's). `percentile`: the whole image's
    low and high percentile become 0 and 1."""
    low_percentile: float = Field(default=1.0, ge=0, le=100)
    """Percentile that becomes 0."""
    high_percentile: float = Field(default=99.8, ge=0, le=100)
    """Percentile that becomes 1."""
    diameter_px: float | None = Field(default=None, ge=4, le=500)
    """Median diameter of nuclei that the network is made for: in training each image is
    enlarged or reduced so that its nuclei have it. Null: images keep their scale."""
    rescaling: float = Field(default=1.0, gt=0, le=1)
    """How much of the way to that diameter images go that are counted: 0.5 brings
    nuclei of a quarter of it to a half. For a network that was trained with
    `augmentation.scale` and knows such nuclei as well: what is enlarged less shows
    less of what interpolation adds, and costs less."""

    @model_validator(mode="after")
    def _ordered(self) -> "PreprocessConfig":
        if self.low_percentile >= self.high_percentile:
            raise ValueError(
                f"low_percentile {self.low_percentile} must be below "
                f"high_percentile {self.high_percentile}"
            )
        return self


class ModelConfig(Section):
    """The U-Net."""

    head: Literal["mask", "boundary", "distance", "combined"] = "combined"
    """What the network says of each pixel. `mask`: foreground or not (the notebook's);
    `boundary`: background, interior of a nucleus, or its boundary; `distance`:
    foreground, and how far from the nucleus' edge; `combined`: boundary and distance.
    All but `mask` part nuclei that touch, and learn it from instance labels."""
    base_filters: int = Field(default=16, ge=1, le=1024)
    """Filters of the first level; each level down doubles them (64: the notebook)."""
    filters: list[int] | None = Field(default=None, min_length=2, max_length=5)
    """Filters of each level from the first to the bottom, in place of `base_filters`
    doubled: `[16, 32, 64, 96, 128]`."""
    resolution: Literal["full", "half"] = "full"
    """`half`: the first convolution takes every second pixel's surroundings, and the
    output layer gives four pixels each, which takes a third of the time."""
    decoder: Literal["conv3", "conv1"] = "conv3"
    """On the way up, features are brought to fewer channels by a 3x3 convolution after
    upsampling (the notebook's), or, `conv1`, by a 1x1 one before it, which saves a
    quarter of the arithmetic."""
    dropout: float = Field(default=0.5, ge=0, lt=1)
    """Share of features dropped before the output layer, in training only."""

    @model_validator(mode="after")
    def _sides_divide(self) -> "ModelConfig":
        most = 4 if self.resolution == "half" else 5
        if self.filters is not None and len(self.filters) > most:
            raise ValueError(
                f"filters has {len(self.filters)} levels, at most {most} with "
                f"resolution {self.resolution}: sides are multiples of {SIDE_MULTIPLE}"
            )
        if self.filters is not None and min(self.filters) < 1:
            raise ValueError(f"filters {self.filters} must all be 1 or more")
        return self

    @property
    def full_filters(self) -> int:
        """Filters of a first level at full resolution that would take as long."""
        first = self.filters[0] if self.filters else self.base_filters
        return max(1, first // 2) if self.resolution == "half" else first

    @property
    def maps_version(self) -> int:
        """Bumped for a head where other maps are made of what the network says."""
        # 2: less of the gaps between nuclei is foreground.
        return 2 if self.head == "combined" else 1


class TrainingConfig(Section):
    """How the network is trained."""

    start_from: str | None = None
    """Model bundle, or name of a model in the box, whose weights training begins with;
    its network and normalisation are taken, too. Null: random weights."""
    epochs: int = Field(default=50, ge=1)
    """Passes over the training images."""
    batch_size: int = Field(default=16, ge=1)
    """Images a step, over all replicas together."""
    optimizer: Literal["rmsprop", "adam", "adamw"] = "adam"
    """Keras optimiser."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Learning rate of the optimiser; of a schedule, the highest."""
    schedule: Literal["constant", "cosine"] = "constant"
    """`cosine`: falls to 0 along half a cosine until the last epoch's last step, so
    that `epochs` cannot grow afterwards."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps in which the learning rate rises from 0, evenly."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Weight decay of `adamw`; biases are left out."""
    border_weight: float = Field(default=4.0, ge=1, le=100)
    """How much more pixels count where nuclei touch or nearly do; for all heads but
    `mask`."""
    dice: float = Field(default=1.0, ge=0, le=100)
    """Share of the Dice loss beside cross-entropy; for all heads but `mask`."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Largest norm of a step's gradient, all weights together; null: no limit."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Validate and keep a running average of the weights, of which each step leaves
    so much in place (0.999); null: the weights themselves."""
    early_stopping_epochs: int | None = Field(default=None, ge=1)
    """Stop after so many epochs without a lower validation loss; null: never."""
    shuffle: bool = True
    """A new order of the training images each epoch, the same for a seed."""
    seed: int = Field(default=0, ge=0)
    """Seeds initial weights, dropout and order."""
    keep: Literal["last", "best"] = "best"
    """Which weights become the model: the last epoch's (the notebook's), or those of
    the lowest validation loss."""
    replicas: int | None = Field(default=None, ge=1)
    """GPUs to use; on a machine without one, logical CPU devices. Unset: every
    visible GPU, or one CPU."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """`gpu`, the default on a cluster, refuses to train where TensorFlow sees none."""
    precision: Precision = "auto"
    """Computation type; `auto` follows the device."""
    xla: bool = False
    """Compile the step with XLA; one replica only."""
    deterministic: bool = False
    """Operations that give the same bits each time on a GPU, where they are slower;
    on a CPU they do anyway."""
    checkpoint_min: float = Field(default=10.0, gt=0)
    """Minutes between checkpoints within an epoch; each epoch ends with one, too."""
    tensorboard: bool = False
    """Write events for TensorBoard. Looking at them, anywhere, needs
    `pip install 'nucleiseg[tensorboard]'`; training does not."""


class InstancesConfig(Section):
    """From an image's maps to nuclei; `count` takes it from the model bundle."""

    views: Literal[1, 2, 4] = 1
    """Views of an image that its maps are the mean of: 2, as it is and turned by half;
    4, mirrored both ways, too. Each takes the network as long as the first."""

    method: Literal["auto", "components", "watershed"] = "auto"
    """`components`: 8-connected components of the mask, the notebook's. `watershed`:
    nuclei grow from seeds in the marker map, so that those that touch are parted;
    not for a network with the head `mask`. `auto`: watershed wherever it can be."""
    threshold: float = Field(default=0.5, gt=0, lt=1)
    """Pixels with a higher foreground probability are nucleus (0.5: rounding)."""
    seed_threshold: float = Field(default=0.5, gt=0, lt=1)
    """Pixels of the foreground with a higher marker value are seeds, each 8-connected
    component of them one nucleus; for `watershed`."""
    min_area_px: int = Field(default=0, ge=0)
    """Smaller nuclei are not counted; in pixels of the image as the network sees it,
    where that is enlarged or reduced."""


class InferenceConfig(Section):
    """How the network is run; chosen once per run and then binding."""

    device: Literal["auto", "cpu", "gpu"] = "auto"
    """`gpu`, the default on a cluster, refuses to run where TensorFlow sees none."""
    precision: Precision = "auto"
    """Computation type; `auto` follows the device."""
    batch_size: int | None = Field(default=None, ge=2)
    """Images or tiles a network call, fixed for the run; unset: by tile size and
    device."""
    tile_px: int = Field(default=768, ge=64, multiple_of=SIDE_MULTIPLE)
    """Images with a longer side are cut into tiles of this side."""
    context_px: int = Field(default=96, ge=0, multiple_of=SIDE_MULTIPLE)
    """Border of a tile that only gives context; its output is not used. As far as the
    network sees: with 96 px, tiles change no bit of the maps of the model in the box;
    with 64 px they changed the counts of 1 to 2 % of real fields."""
    diameter_px: float | None = Field(default=None, ge=1, le=2000)
    """Typical diameter of the nuclei to count. Images are enlarged or reduced so that
    it comes nearer to that of the network's nuclei (`preprocess.diameter_px`; how
    near, `preprocess.rescaling` says, which is part of the model), unless it is
    0.7 to 1.5 times that; unset: estimated for each dataset. Images that are counted
    in blocks keep their size."""
    xla: bool | None = None
    """Compile the network with XLA; unset: on a GPU whatever was faster when long runs
    tried both, on a CPU not, where it was never faster."""

    @model_validator(mode="after")
    def _core_remains(self) -> "InferenceConfig":
        if 2 * self.context_px >= self.tile_px:
            raise ValueError(
                f"context_px {self.context_px} on both sides leaves nothing of "
                f"tile_px {self.tile_px}; make the tile larger than twice the context"
            )
        return self


class ShardsConfig(Section):
    """How archives are cut into units of work; the table does not depend on it."""

    images: int | None = Field(default=None, ge=1)
    """Images a shard; unset: from `pixels` and the image size, from 128 images on in
    whole rounds of 64, which keep all cores busy to the end. Where a chunk of an
    HDF5 dataset spans several images, a shard holds whole chunks."""
    pixels: int | None = Field(default=None, ge=1)
    """Pixels a shard, about; unset: one to three minutes of work on a GPU, on a CPU
    2**34 over the square of the model's base filters and over `instances.views`, and
    several shards a worker."""
    block_pixels: int = Field(default=2**24, ge=1)
    """Images with more pixels are counted in blocks of about two thirds of that."""
    index: str | None = None
    """Folder of the seek points of deflated npz members, kept for other runs on the
    same archives; unset: the run's own, `RUN/index`."""


class TableConfig(Section):
    """The table a run ends with."""

    format: Literal["csv", "parquet", "notebook"] = "csv"
    """`notebook`: two columns, file name and encoding of the original notebook."""
    pictures: int = Field(default=0, ge=0)
    """How many predictions to draw over their images."""


class Config(Section):
    """Everything that can be set, in sections."""

    data: DataConfig = DataConfig()
    preprocess: PreprocessConfig = PreprocessConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    instances: InstancesConfig = InstancesConfig()
    inference: InferenceConfig = InferenceConfig()
    shards: ShardsConfig = ShardsConfig()
    table: TableConfig = TableConfig()
    cluster: ClusterConfig = ClusterConfig()

    def to_yaml(self) -> str:
        """All sections with every value, as YAML."""
        return dialect.dump(self.model_dump(mode="json"))

    def explicit(self, section: str) -> dict[str, Any]:
        """Values of a section that the user wrote, without defaults."""
        value: Section = getattr(self, section)
        return value.model_dump(mode="json", include=value.model_fields_set)
