"""The same images counted in ways that should make no difference.

    python -m jobs.benchmark agreement [--model BUNDLE] [--archive ARCHIVE:GLOB ...]

Each image is counted whole, as it is stored; what that gives is compared with what
`segment` gives, with the image cut into tiles, and with the same values in other
dtypes. At least 98 % of the counts should be equal, and counts differ by at most 0.2 %
on average. By default the images are the real validation images where they are, else
drawn ones.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from jobs.benchmark import counted
from jobs.benchmark.measuring import describe_machine, print_table, say
from jobs.benchmark.models import add_setting_argument, open_folder
from jobs.benchmark.spoiling import read_fields
from nucleiseg.archives import find_images, open_reader, split_name
from nucleiseg.bundle import read_bundle
from nucleiseg.config import InferenceConfig

_WANTED_EQUAL = 0.98
_WANTED_DIFFERENCE = 0.002

Stacks = dict[str, NDArray[Any]]
"""(n, H, W) by the name of the dataset."""

Convert = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True)
class Way:
    """One way to count the images."""

    name: str
    version: str = "as stored"
    tile_px: int | None = None
    """None: images are not cut."""
    labels: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--model", metavar="BUNDLE", help="by default the one in the box"
    )
    parser.add_argument(
        "--archive", nargs="+", metavar="ARCHIVE:GLOB", dest="archives", default=[]
    )
    parser.add_argument("--limit", type=int, help="most images of a dataset")
    parser.add_argument(
        "--whole", type=int, default=4096, metavar="PX", help="as large as any image"
    )
    parser.add_argument("--tiles", type=int, nargs="+", default=[256], metavar="PX")
    parser.add_argument(
        "--context",
        type=int,
        default=InferenceConfig().context_px,
        metavar="PX",
        help="around a tile (%(default)s)",
    )
    add_setting_argument(parser)
    parser.add_argument("--folder", type=Path, help="keeps the archives")


def run(options: argparse.Namespace) -> int:
    """Count in each way, and print a table and JSON."""
    model = read_bundle(options.model)
    origin, stacks = find_stacks(options.archives, options.limit)
    versions = list_versions({stack.dtype for stack in stacks.values()})
    rows: list[dict[str, Any]] = []
    reference: NDArray[np.int64] | None = None
    with open_folder(options) as name:
        folder = Path(name)
        archives = {
            version: write_version(folder / f"version{number}.h5", stacks, convert)
            for number, (version, convert) in enumerate(versions.items())
        }
        with tempfile.TemporaryDirectory(prefix="runs-", dir=folder) as runs:
            for number, way in enumerate(list_ways(options.tiles, list(versions))):
                say(f"counting {way.name}")
                count = counted.count(
                    f"{archives[way.version]}:*",
                    model.paths.root,
                    Path(runs) / str(number),
                    [
                        f"inference.tile_px={way.tile_px or options.whole}",
                        f"inference.context_px={options.context}",
                        *options.settings,
                    ],
                    labels=way.labels,
                )
                # A failed image has no count, which is another one than any other.
                counts: NDArray[np.int64] = np.asarray(
                    count.counts().fillna(-1), dtype=np.int64
                )
                if reference is None:
                    reference = counts
                scales = [scale["scale"] for scale in count.scales]
                rows.append({"way": way.name, **compare(counts, reference, scales)})
    print(f"{origin} images, {model.title}; counts beside those of whole images")
    keys = [key for key in rows[0] if key not in ("different", "scales")]
    print_table(keys, [[row[key] for key in keys] for row in rows])
    print(
        json.dumps(
            {
                "benchmark": "agreement",
                "images": origin,
                "model": model.title,
                "machine": describe_machine(),
                "rows": rows,
            }
        )
    )
    return 0


def find_stacks(names: list[str], limit: int | None) -> tuple[str, Stacks]:
    """Read the named datasets, or the validation images by their sizes."""
    stacks: Stacks = {}
    if not names:
        origin, fields = read_fields("val", limit)
        for shape in dict.fromkeys(field.image.shape for field in fields):
            fitting = [field.image for field in fields if field.image.shape == shape]
            stacks[f"{shape[0]}x{shape[1]}"] = np.stack(fitting)
        return origin, stacks
    for name in names:
        path, key = split_name(name)
        for info in find_images(path, key):
            n_images = min(info.n_images, limit or info.n_images)
            with open_reader(path, info.key) as reader:
                stacks[f"{len(stacks):03d}"] = reader.read(0, n_images)
    return ", ".join(names), stacks


def list_versions(dtypes: set[np.dtype[Any]]) -> dict[str, Convert]:
    """List the dtypes that hold the same values, or those in another unit."""
    versions: dict[str, Convert] = {"as stored": lambda images: images}
    if dtypes == {np.dtype(np.uint8)}:
        # As 255 becomes 65535.
        versions["uint16 x 257"] = lambda images: images.astype(np.uint16) * 257
    if all(dtype.kind in "iu" for dtype in dtypes):
        versions["float32"] = lambda images: images.astype(np.float32)
        versions["float32 to 1"] = lambda images: (
            images.astype(np.float32) / np.float32(np.iinfo(images.dtype).max)
        )
    return versions


def write_version(path: Path, stacks: Stacks, convert: Convert) -> Path:
    """Write all datasets in another dtype."""
    with h5py.File(path, "w") as file:
        for key, stack in stacks.items():
            file.create_dataset(
                key,
                data=convert(stack),
                chunks=(1, *stack.shape[1:]),
                compression="gzip",
            )
    return path


def list_ways(tiles: list[int], versions: list[str]) -> list[Way]:
    """List what is compared; the first is what the others are compared with."""
    return [
        Way("whole"),
        Way("segment", labels=True),
        *(Way(f"tiles of {tile_px} px", tile_px=tile_px) for tile_px in tiles),
        *(Way(version, version=version) for version in versions[1:]),
    ]


def compare(
    counts: NDArray[np.int64], reference: NDArray[np.int64], scales: list[float]
) -> dict[str, Any]:
    """Compare counts of the same images, -1 where there is none.

    Parameters
    ----------
    counts, reference : (n,) int64 ndarray
    scales : list of float
        By how much the datasets were enlarged.
    """
    differences = counts - reference
    return {
        "images": len(counts),
        "nuclei": int(counts.clip(0).sum()),
        "equal": float((differences == 0).mean()),
        "wanted_equal": _WANTED_EQUAL,
        "mean_difference": float((abs(differences) / reference.clip(1)).mean()),
        "wanted_at_most": _WANTED_DIFFERENCE,
        "largest_difference": int(abs(differences).max()),
        "different": [int(n) for n in differences.nonzero()[0]],
        "scales": scales,
    }
