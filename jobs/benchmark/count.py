"""Speed and peak memory of a count, beside the notebook's way and the bare network.

    python -m jobs.benchmark count [--base-filters 64 16] [--folder DIR] ...

Three things are measured in turn, each a whole process; given are medians of rounds:

a  the notebook's way: `np.load`, a float32 tensor, `model.predict`, a loop over
   `cv2.connectedComponents`; in float32, from `np.load` to the counts, without imports,
   loading of the model and tracing of the first call;
b  the bare compiled network on batches in memory, in the precision, the batch shape and
   with the concurrent calls of (c);
c  `nucleiseg count --workers 1` on all cores, from the first image asked for to the
   last row, without start-up and index.

Memory is the peak of all processes of each, without that of a GPU. On a GPU (a) may
round to TensorFloat-32, which (c) in float32 does not. Where no model is given, one is
trained.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from jobs.benchmark import count_rivals, counted
from jobs.benchmark.archives import DTYPES, FORMS, Crops, find_crops, make_stack
from jobs.benchmark.comparison import Case, Notebook, print_rows, summarise
from jobs.benchmark.measuring import describe_machine, say, warn_if_busy
from jobs.benchmark.models import add_material, find_models, open_folder

# A count of so many measures its batch shape.
_MEASURED_PIXELS = 2**26
_FEWEST_IMAGES = 256
_NOTEBOOK_TRIAL = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--base-filters", type=int, nargs="+", default=[64, 16])
    parser.add_argument("--formats", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--precisions", nargs="+", default=["auto", "float32"])
    parser.add_argument(
        "--images",
        type=int,
        default=4096,
        help="at most (%(default)s); fewer where the notebook's way would take longer "
        "than --seconds",
    )
    parser.add_argument(
        "--seconds", type=float, default=50, help="of a measurement (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=3)
    add_material(parser)


def run(options: argparse.Namespace) -> int:
    """Measure, and print a table and JSON."""
    machine = describe_machine()
    warn_if_busy(machine)
    with open_folder(options) as name:
        folder = Path(name)
        notebooks, cases = prepare(options, folder)
        with tempfile.TemporaryDirectory(prefix="runs-", dir=folder) as runs:
            for number in range(options.rounds):
                say(f"round {number + 1} of {options.rounds}")
                measure_round(notebooks, cases, Path(runs) / str(number))
            rows = [
                summarise(case, notebooks[case.base_filters], machine) for case in cases
            ]
    print_rows(rows, options.rounds)
    print(
        json.dumps(
            {
                "benchmark": "count",
                "rounds": options.rounds,
                "side_px": options.side,
                "machine": machine,
                "rows": rows,
            }
        )
    )
    return 0


def prepare(
    options: argparse.Namespace, folder: Path
) -> tuple[dict[int, Notebook], list[Case]]:
    """Make models and archives, of a size that suits each network's speed."""
    crops = find_crops(options.side)
    notebooks: dict[int, Notebook] = {}
    cases: list[Case] = []
    for filters, model in find_models(options, options.base_filters, folder).items():
        n_images = _choose_size(options, folder, crops, model)
        archives = folder / "archives"
        archive = make_stack(
            archives, crops, n_images, form="deflated", dtype="float32"
        )
        notebooks[filters] = Notebook(model, archive)
        for precision in options.precisions:
            settings = [*options.settings, f"inference.precision={precision}"]
            if n_images > _FEWEST_IMAGES:
                batch = _find_batch(options, folder, crops, model, settings)
                settings.append(f"inference.batch_size={batch}")
            say(f"{filters} base filters, {precision}: {n_images} images a measurement")
            cases += [
                Case(
                    filters,
                    model,
                    settings,
                    form,
                    dtype,
                    make_stack(archives, crops, n_images, form=form, dtype=dtype),
                )
                for dtype in options.dtypes
                for form in options.formats
            ]
    return notebooks, cases


def _choose_size(
    options: argparse.Namespace, folder: Path, crops: Crops, model: Path
) -> int:
    """Halve the images until the notebook's way takes no longer than it may."""
    n_images: int = options.images
    if n_images > _FEWEST_IMAGES:
        archive = make_stack(
            folder / "archives",
            crops,
            _NOTEBOOK_TRIAL,
            form="deflated",
            dtype="float32",
        )
        found, _ = count_rivals.measure("notebook", model, archive)
        most = found["images_per_s"] * options.seconds
        while n_images > most and n_images // 2 >= _FEWEST_IMAGES:
            n_images //= 2
    return n_images


def _find_batch(
    options: argparse.Namespace,
    folder: Path,
    crops: Crops,
    model: Path,
    settings: list[str],
) -> int:
    """Find the batch that a long count chooses, so that all short ones have it."""
    n_images = max(1, _MEASURED_PIXELS // options.side**2)
    archive = make_stack(
        folder / "archives", crops, n_images, form="stored", dtype="uint8"
    )
    with tempfile.TemporaryDirectory(prefix="trial-", dir=folder) as name:
        return counted.find_batch(archive, model, Path(name) / "run", settings)


def measure_round(
    notebooks: dict[int, Notebook],
    cases: Sequence[Case],
    folder: Path,
) -> None:
    """Measure everything once, rivals beside each other in time."""
    for notebook in notebooks.values():
        found, ran = count_rivals.measure("notebook", notebook.model, notebook.archive)
        notebook.found.append(found)
        notebook.ran.append(ran)
    for number, case in enumerate(cases):
        count = counted.count(
            case.archive, case.model, folder / str(number), case.settings
        )
        found, ran = count_rivals.measure("bare", count.run.root, count.n_images)
        case.counts.append(count)
        case.bare.append((found["images_per_s"], ran))
