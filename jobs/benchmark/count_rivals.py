"""What ``nucleiseg count`` is compared with, each a program of its own.

    python -m jobs.benchmark.count_rivals notebook BUNDLE ARCHIVE
    python -m jobs.benchmark.count_rivals bare RUN N_IMAGES

Each prints one line of JSON.
"""

import argparse
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from jobs.benchmark.archives import KEY
from jobs.benchmark.measuring import Ran, run_apart
from nucleiseg.atomic import read_json
from nucleiseg.bundle import read_bundle
from nucleiseg.config import InstancesConfig
from nucleiseg.devices import available_cores, import_tensorflow
from nucleiseg.inference import read_compute
from nucleiseg.inference.network import TiledNetwork
from nucleiseg.model import load_network
from nucleiseg.preprocess import normalise
from nucleiseg.runs import CountRun
from nucleiseg.shards import read_plan

_KERAS_BATCH = 32


def measure(*arguments: object) -> tuple[dict[str, Any], Ran]:
    """Run a rival in a process of its own; give what it found and what it took."""
    command = [sys.executable, "-m", "jobs.benchmark.count_rivals", *arguments]
    ran = run_apart(command)
    return json.loads(ran.output.splitlines()[-1]), ran


def count_as_the_notebook(model: Path, archive: Path) -> dict[str, Any]:
    """Count as the notebook does (N8, N9), in float32.

    Timed from `np.load` to the counts: without imports, without loading the model, and
    without the tracing of its first call. A normalisation, which the notebook does not
    have and these weights may need, is left out of the time.
    """
    # As it ships: `import_tensorflow` switches oneDNN on where it does not.
    import tensorflow

    info = read_bundle(model)
    network = load_network(info)
    with np.load(archive) as found:
        shape = found[KEY].shape[1:]
    network.predict(np.zeros((_KERAS_BATCH, *shape, 1), np.float32), verbose=0)

    start_s = time.perf_counter()
    images = np.load(archive)[KEY]
    loaded_s = time.perf_counter() - start_s
    images = np.stack([normalise(image, info.preprocess) for image in images])
    start_s = time.perf_counter() - loaded_s
    tensor = tensorflow.constant(images[..., np.newaxis], dtype=tensorflow.float32)
    masks = np.round(network.predict(tensor, verbose=0)).astype(np.uint8)
    counts = [cv2.connectedComponents(mask[..., 0])[0] - 1 for mask in masks]
    seconds = time.perf_counter() - start_s
    return {
        "n_images": len(counts),
        "images_per_s": len(counts) / seconds,
        "load_s": loaded_s,
        "counts": counts,
    }


def bare_rate(root: Path, n_images: int, n_threads: int) -> float:
    """Images a second of a run's compiled network alone, on batches in memory.

    Parameters
    ----------
    root : Path
        A count that is finished: its precision, batch shape and concurrent calls.
    n_images : int
        About so many.
    n_threads : int
        Cores to keep busy.
    """
    run = CountRun(root)
    model = read_bundle(Path(read_json(run.manifest)["model"]))
    plan = read_plan(run.plan)
    views = InstancesConfig.model_validate(plan.settings["instances"]).views
    network = TiledNetwork(model, read_compute(run), n_threads=n_threads, views=views)
    tiling = network.tiling(plan.shards[0].image_shape)
    shape = network.batch_shape(tiling.tile_shape)
    function = network._compiled(shape)
    values = np.random.default_rng(0).random((*shape, 1), dtype=np.float32)
    batch = import_tensorflow().constant(values)

    def call(_: int) -> None:
        function(batch).numpy()

    n_at_once = network._n_calls
    n_calls = max(2 * n_at_once, n_images // shape[0])
    with ThreadPoolExecutor(n_at_once) as pool:
        list(pool.map(call, range(2 * n_at_once)))  # warm up
        start_s = time.perf_counter()
        list(pool.map(call, range(n_calls)))
        return n_calls * shape[0] / (time.perf_counter() - start_s)


def main() -> int:
    """Measure one rival."""
    parser = argparse.ArgumentParser(prog="python -m jobs.benchmark.count_rivals")
    rivals = parser.add_subparsers(dest="rival", required=True)
    notebook = rivals.add_parser("notebook")
    notebook.add_argument("model", type=Path)
    notebook.add_argument("archive", type=Path)
    bare = rivals.add_parser("bare")
    bare.add_argument("run", type=Path)
    bare.add_argument("n_images", type=int)
    options = parser.parse_args()
    if options.rival == "notebook":
        found = count_as_the_notebook(options.model, options.archive)
    else:
        rate = bare_rate(options.run, options.n_images, available_cores())
        found = {"images_per_s": rate}
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
