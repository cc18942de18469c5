"""One crowded field: the notebook's result and ours side by side, errors marked.

    python -m jobs.benchmark figure --notebook-model BUNDLE --out touching.png
    python -m jobs.benchmark figure --core-minutes 60 --folder DIR

The notebook's way is a mask and its connected components; `nucleiseg train
configs/dsb2018-mask.yaml` makes a model for it. Without one, it is trained on the
training images for some CPU time, as in `rivals`, and kept in the folder. Both are run
by `nucleiseg segment` on the real validation images, whole. Drawn is the window in
which most nuclei touch: where the true nuclei are most more than the components of
their mask.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
from numpy.typing import NDArray

from jobs.benchmark import counted
from jobs.benchmark.contest import NOTEBOOK, Contestant, train
from jobs.benchmark.contest_options import add_arguments as add_contest_arguments
from jobs.benchmark.contest_options import make_rules
from jobs.benchmark.measuring import describe_machine, print_table, say
from jobs.benchmark.models import open_folder
from jobs.benchmark.spoiling import Field, read_fields
from nucleiseg.atomic import atomic_path
from nucleiseg.bundle import BundleInfo, read_bundle
from nucleiseg.dataset.targets import label_components
from nucleiseg.report import save_ways
from nucleiseg.runs import TrainRun

_STEP_PX = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--notebook-model", metavar="BUNDLE", help="with the head mask")
    parser.add_argument(
        "--model", metavar="BUNDLE", help="ours; by default the one in the box"
    )
    parser.add_argument("--part", default="val", help="of the real images")
    parser.add_argument("--size", help="HxW of the images to choose from")
    parser.add_argument(
        "--window", type=int, default=256, metavar="PX", help="side of what is drawn"
    )
    parser.add_argument(
        "--width", type=int, default=1200, metavar="PX", help="at most (%(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path("touching.png"))
    training = parser.add_argument_group("to train the notebook's model")
    add_contest_arguments(training, core_minutes=None)


def run(options: argparse.Namespace) -> int:
    """Segment with both models, and draw; 2: something is missing."""
    if (options.notebook_model is None) == (options.core_minutes is None):
        say("give --notebook-model, or --core-minutes to train one; not both")
        return 2
    origin, fields = read_fields(options.part, None)
    fields = [one for one in fields if options.size in (None, _name_size(one))]
    if not fields:
        say(f"no image of {options.size} in {options.part}; name a size that is there")
        return 2
    field, rows, columns = find_crowd(fields, options.window)
    title = f"{origin} image {field.name}, {_name_size(field)} px"
    say(f"most nuclei touch in {title}, rows {rows}, columns {columns}")
    ways, found = [], {}
    with open_folder(options) as name:
        folder = Path(name)
        models = {
            "mask and components": _find_notebook(options, folder),
            "nucleiseg": read_bundle(options.model),
        }
        archive = folder / "field.h5"
        with h5py.File(archive, "w") as file:
            file["images"] = field.image[np.newaxis]
        for way, model in models.items():
            with tempfile.TemporaryDirectory(prefix="run-", dir=folder) as place:
                run_folder = Path(place) / "run"
                counted.count(archive, model.paths.root, run_folder, labels=True)
                with h5py.File(run_folder / "labels.h5") as file:
                    labels = file["field.h5/images"][0]
            ways.append((way, labels[rows, columns]))
            found[way] = int(np.unique(labels[rows, columns]).size - 1)
    truth = field.labels[rows, columns]
    save_ways(options.out, field.image[rows, columns], ways, truth, title=title)
    shrink(options.out, options.width)
    n_true = int(np.unique(truth[truth > 0]).size)
    print_table(["way", "nuclei"], [["true", n_true], *map(list, found.items())])
    print(
        json.dumps(
            {
                "benchmark": "figure",
                "machine": describe_machine(),
                "picture": str(options.out),
                "rows": [{"way": way, "nuclei": n} for way, n in found.items()],
                "true": n_true,
            }
        )
    )
    return 0


def shrink(path: Path, width: int) -> None:
    """Make a picture no wider, and its file as small as PNG can: a README loads it."""
    picture = cv2.imread(str(path))
    assert picture is not None, "it has just been written"
    if picture.shape[1] > width:
        height = round(picture.shape[0] * width / picture.shape[1])
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    with atomic_path(path) as beside:
        beside.write_bytes(data.tobytes())


def _find_notebook(options: argparse.Namespace, folder: Path) -> BundleInfo:
    """Take the notebook's model, or train it."""
    if options.notebook_model is not None:
        return read_bundle(options.notebook_model)
    rules = make_rules(options, folder)
    contestant = Contestant("notebook", NOTEBOOK)
    train(contestant, rules)
    return read_bundle(TrainRun(rules.home(contestant)).bundle.root)


def find_crowd(fields: list[Field], side: int) -> tuple[Field, slice, slice]:
    """Find the window in which the most nuclei touch others.

    Parameters
    ----------
    fields : list of Field
    side : int
        Of the window, px; smaller images are taken whole.

    Returns
    -------
    field : Field
    rows, columns : slice
    """
    best: tuple[int, Field, slice, slice] | None = None
    for field in fields:
        height, width = field.labels.shape
        for top in range(0, max(1, height - side + 1), _STEP_PX):
            for left in range(0, max(1, width - side + 1), _STEP_PX):
                rows, columns = slice(top, top + side), slice(left, left + side)
                number = _count_joined(field.labels[rows, columns])
                if best is None or number > best[0]:
                    best = number, field, rows, columns
    assert best is not None
    return best[1:]


def _count_joined(labels: NDArray[np.integer[Any]]) -> int:
    """Count the nuclei that components of the true mask would miss."""
    is_inside = np.ascontiguousarray(labels > 0)
    n_components = int(label_components(is_inside).max(initial=0))
    return int(np.unique(labels[is_inside]).size) - n_components


def _name_size(field: Field) -> str:
    height, width = field.labels.shape
    return f"{height}x{width}"
