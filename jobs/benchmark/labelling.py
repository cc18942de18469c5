"""Labelling beside the network, in core milliseconds an image, on one core.

    python -m jobs.benchmark labelling [--sides 128 256] [--limit 300] [--rounds 3]
    python -m jobs.benchmark labelling --model BUNDLE --images ARCHIVE:KEY

Without a model, the maps are made of the labels of real images, or of drawn ones: the
foreground, and each nucleus' distance from its edge, blurred and with noise; and the
network has learnt nothing, which takes it the same time. With one, the maps are its
own. Each image is labelled by components and, where there are markers, by watershed;
what counting takes is wanted at most 30 % of what the network takes.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from jobs.benchmark.maps import Material, find_material, make_bundle
from jobs.benchmark.measuring import (
    describe_machine,
    middle,
    print_table,
    say,
    warn_if_busy,
)
from nucleiseg.bundle import read_bundle
from nucleiseg.config import InstancesConfig
from nucleiseg.devices import find_precision, required
from nucleiseg.inference import Compute
from nucleiseg.inference.network import TiledNetwork
from nucleiseg.instances import count_nuclei, label_nuclei

_WANTED_SHARE = 0.3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--model", type=Path, metavar="BUNDLE", help="its own maps and time"
    )
    parser.add_argument("--images", metavar="ARCHIVE:KEY", help="of one size; --model")
    parser.add_argument(
        "--sides", type=int, nargs="+", default=[128, 256], help="without a model"
    )
    parser.add_argument("--limit", type=int, default=300, help="most images of a size")
    parser.add_argument("--base-filters", type=int, default=16)
    parser.add_argument("--head", default="combined", help="without a model")
    parser.add_argument("--precision", default="auto", help="of the network")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--seconds", type=float, default=3, help="of the network, a round"
    )


def run(options: argparse.Namespace) -> int:
    """Measure, and print a table and JSON."""
    if (options.model is None) != (options.images is None):
        raise SystemExit("--model and --images need each other; give both or none")
    # As within a worker.
    cv2.setNumThreads(1)
    machine = describe_machine()
    warn_if_busy(machine)
    with tempfile.TemporaryDirectory(prefix="nucleiseg-labelling-") as folder:
        if options.model is None:
            model = make_bundle(Path(folder), options.base_filters, options.head)
        else:
            model = read_bundle(options.model)
        precision = find_precision(options.precision, "cpu")
        compute = Compute(
            "cpu", precision, None, 512, 64, requires=required(precision, "cpu")
        )
        network = TiledNetwork(model, compute, n_threads=1, views=model.instances.views)
        rows = [
            row
            for material in find_material(
                options.images, options.sides, options.limit, model, network
            )
            for row in measure(options, material, model.instances, network)
        ]
    table = [{key: row[key] for key in rows[0] if key != "model"} for row in rows]
    print(f"{precision}, {model.model.base_filters} base filters, {model.model.head}")
    print_table(list(table[0]), [list(row.values()) for row in table])
    print(json.dumps({"benchmark": "labelling", "machine": machine, "rows": rows}))
    return 0


def measure(
    options: argparse.Namespace,
    material: Material,
    instances: InstancesConfig,
    network: TiledNetwork,
) -> list[dict[str, Any]]:
    """Measure the network and each method of labelling, in turns."""
    methods = ["components"]
    if material.maps.shape[-1] > 1:
        methods.append("watershed")
    settings = {
        method: InstancesConfig.model_validate(
            {**instances.model_dump(), "method": method}
        )
        for method in methods
    }
    network_ms: list[float] = []
    counting: dict[str, list[NDArray[np.float64]]] = {name: [] for name in methods}
    labelling: dict[str, list[NDArray[np.float64]]] = {name: [] for name in methods}
    for number in range(options.rounds):
        say(f"{material.name}: round {number + 1} of {options.rounds}")
        network_ms.append(time_network(network, material, options.seconds))
        for method in methods:
            counting[method].append(time_counting(material, settings[method]))
            labelling[method].append(time_labelling(material, settings[method]))
    rows = []
    network_core_ms = middle(network_ms)
    assert network_core_ms is not None
    for method in methods:
        # Each image at its best: what disturbed one round did not disturb all.
        count_ms = np.min(counting[method], axis=0)
        n_nuclei = [
            label_nuclei(maps, settings[method]).max() for maps in material.maps
        ]
        rows.append(
            {
                "images": material.name,
                "n_images": len(material.images),
                "method": method,
                "min_area_px": instances.min_area_px,
                "nuclei_per_image": float(np.mean(n_nuclei)),
                "count_core_ms": float(count_ms.mean()),
                "slowest_core_ms": float(count_ms.max()),
                "label_core_ms": float(np.min(labelling[method], axis=0).mean()),
                "network_core_ms": network_core_ms,
                "share": float(count_ms.mean()) / network_core_ms,
                "wanted_at_most": _WANTED_SHARE,
            }
        )
    return rows


def time_network(network: TiledNetwork, material: Material, seconds: float) -> float:
    """Core milliseconds of the network for an image, with all of its tiles."""
    size = network.batch_shape(material.tiles.shape[1:])[0]
    batch = np.resize(material.tiles, (size, *material.tiles.shape[1:]))
    network.run(batch)
    n_tiles, start_s, ended_s = 0, time.process_time(), time.monotonic() + seconds
    while n_tiles == 0 or time.monotonic() < ended_s:
        network.run(batch)
        n_tiles += size
    core_s = time.process_time() - start_s
    return 1000 * core_s * material.tiles_per_image / n_tiles


def time_counting(material: Material, settings: InstancesConfig) -> NDArray[np.float64]:
    """Core milliseconds of counting, by image."""
    core_ms = []
    for image, maps in zip(material.images, material.maps, strict=True):
        start_s = time.thread_time()
        count_nuclei(image, maps, settings)
        core_ms.append(1000 * (time.thread_time() - start_s))
    return np.array(core_ms)


def time_labelling(
    material: Material, settings: InstancesConfig
) -> NDArray[np.float64]:
    """Core milliseconds of making the label image, by image."""
    core_ms = []
    for maps in material.maps:
        start_s = time.thread_time()
        label_nuclei(maps, settings)
        core_ms.append(1000 * (time.thread_time() - start_s))
    return np.array(core_ms)
