"""Every path of a run, a training and a model bundle."""

from dataclasses import dataclass
from pathlib import Path

NOTEBOOK_TABLE = "U-Net Project Results.csv"
"""The notebook's file name (notebook step N10)."""


@dataclass(frozen=True)
class CountRun:
    """Paths of a count run's directory."""

    root: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.root / "config.yaml"

    @property
    def compute(self) -> Path:
        """Precision, batch shape and tiles, chosen once and binding."""
        return self.root / "compute.json"

    @property
    def manifest(self) -> Path:
        """Versions, hosts and timings: what happened, never what to do."""
        return self.root / "manifest.json"

    @property
    def plan(self) -> Path:
        """Every shard, written before any work."""
        return self.root / "plan.parquet"

    @property
    def parts(self) -> Path:
        """Folder of the partial tables."""
        return self.root / "parts"

    def part(self, shard: int) -> Path:
        """Partial table of one shard."""
        return self.parts / f"{shard:06d}.parquet"

    @property
    def failures(self) -> Path:
        """Folder with a note for each partial table that has failed images."""
        return self.root / "failures"

    def failure(self, shard: int) -> Path:
        """Note on the failed images of one shard."""
        return self.failures / f"{shard:06d}.json"

    @property
    def ranges(self) -> Path:
        """Folder of the ranges of large images, by what they were found in."""
        return self.root / "ranges"

    @property
    def scales(self) -> Path:
        """Folder of how large the nuclei of datasets are: found once, and binding."""
        return self.root / "scales"

    @property
    def index(self) -> Path:
        """Folder of what passes over npz members found, by fingerprint."""
        return self.root / "index"

    @property
    def attempts(self) -> Path:
        """Folder of who computes which shard, and of what killed a worker."""
        return self.root / "attempts"

    @property
    def tls(self) -> Path:
        """Keys and address of the coordinator; there only while one runs."""
        return self.root / "tls"

    @property
    def logs(self) -> Path:
        """Folder of the logs."""
        return self.root / "logs"

    @property
    def jobs(self) -> "Jobs":
        """Jobs of a cluster, and what they say of themselves."""
        return Jobs(self.root)

    @property
    def pictures(self) -> Path:
        """Folder of the pictures."""
        return self.root / "pictures"

    def labels(self, *, incomplete: bool = False) -> Path:
        """Path of all label images; an incomplete file is called so."""
        return self.root / ("labels.partial.h5" if incomplete else "labels.h5")

    def nuclei(self, table_format: str, *, incomplete: bool = False) -> Path:
        """Path of the table of nuclei beside a merged table of a format."""
        suffix = self.table(table_format, incomplete=incomplete).suffix
        return self.root / f"nuclei{'.partial' * incomplete}{suffix}"

    def table(self, table_format: str, *, incomplete: bool = False) -> Path:
        """Path of the merged table in a format; an incomplete one is called so."""
        names = {
            "csv": "counts.csv",
            "parquet": "counts.parquet",
            "notebook": NOTEBOOK_TABLE,
        }
        path = self.root / names[table_format]
        return path.with_suffix(f".partial{path.suffix}") if incomplete else path

    def find_table(self) -> Path | None:
        """Find the merged table that was written last, of whatever format.

        Others beside it may be from before a retry.
        """
        tables = [self.table(name) for name in ("csv", "parquet", "notebook")]
        there = [path for path in tables if path.is_file()]
        return max(there, key=lambda path: path.stat().st_mtime_ns, default=None)


@dataclass(frozen=True)
class Jobs:
    """Paths of what the jobs of a run leave in its directory."""

    root: Path

    @property
    def submissions(self) -> Path:
        """What was submitted, with job ids."""
        return self.root / "jobs.json"

    @property
    def progress(self) -> Path:
        """How far a count is; written again and again by whoever leads it."""
        return self.root / "progress.json"

    @property
    def records(self) -> Path:
        """Folder with a file for each job of a cluster: its state and its host."""
        return self.root / "workers"

    @property
    def cancelled(self) -> Path:
        """There from a cancellation to the next start: jobs that see it end at once."""
        return self.root / "cancelled"

    @property
    def logs(self) -> Path:
        """Folder of the jobs' scripts and logs."""
        return self.root / "logs"


@dataclass(frozen=True)
class Bundle:
    """Paths of a model bundle."""

    root: Path

    @property
    def weights(self) -> Path:
        """Keras model, network and weights."""
        return self.root / "model.keras"

    @property
    def info(self) -> Path:
        """Configuration, normalisation, thresholds, training and scores."""
        return self.root / "bundle.json"


@dataclass(frozen=True)
class TrainRun:
    """Paths of a training's directory."""

    root: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.root / "config.yaml"

    @property
    def manifest(self) -> Path:
        """Versions, hosts and timings."""
        return self.root / "manifest.json"

    @property
    def history(self) -> Path:
        """Losses and metrics, one row an epoch."""
        return self.root / "history.csv"

    @property
    def checkpoints(self) -> Path:
        """Folder of the training states."""
        return self.root / "checkpoints"

    def checkpoint(self, step: int) -> Path:
        """Folder of the training state after a number of steps."""
        return self.checkpoints / f"step-{step:09d}"

    @property
    def rates(self) -> Path:
        """When epochs ended and how fast they were: the only times of a training."""
        return self.root / "rates.csv"

    @property
    def tensorboard(self) -> Path:
        """Folder of the events for TensorBoard."""
        return self.root / "tensorboard"

    @property
    def data(self) -> Path:
        """Folder of what the pass over the labelled images found."""
        return self.root / "data"

    @property
    def split(self) -> Path:
        """Which images are for training and which for validation."""
        return self.root / "split.csv"

    @property
    def split_note(self) -> Path:
        """What the split was made of."""
        return self.root / "split.json"

    @property
    def samples(self) -> Path:
        """Picture of augmented training crops."""
        return self.root / "augmented.png"

    @property
    def bundle(self) -> Bundle:
        """The resulting model."""
        return Bundle(self.root / "model")

    @property
    def jobs(self) -> Jobs:
        """Jobs of a cluster, and what they say of themselves."""
        return Jobs(self.root)

    @property
    def bundle_so_far(self) -> Bundle:
        """The best model of a training that is not finished."""
        return Bundle(self.root / "model-so-far")

    @property
    def test(self) -> CountRun:
        """Count run of the test archive, where one is configured."""
        return CountRun(self.root / "test")
