"""Images keep their size where the network is surer of their nuclei than enlarged."""

import json
from dataclasses import replace

import cv2
import h5py
import numpy as np
import pytest

from nucleiseg.config import Config, InstancesConfig, PreprocessConfig, load_config
from nucleiseg.counting import count, prepare
from nucleiseg.inference import engine
from nucleiseg.inference.compute import Compute
from nucleiseg.inference.network import TiledNetwork
from nucleiseg.inference.sureness import is_surer_unscaled
from nucleiseg.quality import Calibration
from nucleiseg.runs import CountRun
from tests.disks import WANTED_PX, draw_disks, find_disks

# Of what is found enlarged, the edges are interpolated.
CALIBRATION = Calibration((0.2, 0.7), (0.0, 1.0))
DIAMETER_PX = 12
IMAGES = [
    (draw_disks((300, 300), DIAMETER_PX, seed=n)[0].astype(np.float32) - 20) / 100
    for n in range(2)
]


def find_all(windows, *, own=0.8, enlarged=0.8):
    """Find every disk, with one marker at the images' own size and one enlarged."""
    foreground = (windows > 0.5).astype(np.uint8)
    stats = cv2.connectedComponentsWithStats(foreground[0])[2][1:, cv2.CC_STAT_AREA]
    is_enlarged = np.sqrt(np.median(stats) * 4 / np.pi) > 1.2 * DIAMETER_PX
    marker = foreground * (enlarged if is_enlarged else own)
    return np.stack([foreground, marker], axis=-1).astype(np.float32)


def is_surer(**markers):
    return is_surer_unscaled(
        IMAGES,
        1.5,
        lambda windows: find_all(windows, **markers),
        InstancesConfig(seed_threshold=0.1),
        CALIBRATION,
    )


def test_it_is_where_their_markers_are_higher():
    assert is_surer(own=0.8, enlarged=0.6)


def test_it_is_not_where_they_are_lower_or_alike():
    assert not is_surer(own=0.6, enlarged=0.8)
    assert not is_surer()
    # By chance they differ a little.
    assert not is_surer(own=0.9, enlarged=0.85)


def test_more_nuclei_that_are_likely_wrong_speak_for_nothing():
    # A third of them is right at most: more of them are worse.
    assert not is_surer(own=0.4, enlarged=0.3)


def test_the_same_nuclei_are_looked_at():
    n_found = []

    def predict(windows):
        maps = find_all(windows)
        disks = [
            cv2.connectedComponents(one.astype(np.uint8))[0] for one in maps[..., 0]
        ]
        n_found.append(sum(disks) - len(disks))
        return maps

    settings = InstancesConfig()
    is_surer_unscaled(IMAGES, 1.5, predict, settings, CALIBRATION)
    # Padding mirrors some at the images' own size.
    assert len(n_found) == 2
    assert n_found[1] > 30
    assert n_found[0] >= n_found[1]


def test_output_that_is_not_finite_speaks_for_nothing():
    def predict(windows):
        return np.full((*windows.shape, 2), np.nan, np.float32)

    assert not is_surer_unscaled(IMAGES, 1.5, predict, InstancesConfig(), CALIBRATION)


class Ideal(TiledNetwork):
    """Finds disks of any size; of enlarged ones it is not sure."""

    def __init__(self):
        self._compute = Compute("cpu", "float32", 2, tile_px=512, context_px=64)
        self._n_calls = 1

    def run(self, tiles):
        maps = find_disks(tiles)
        # So low that their own size would not be chosen for its diameter.
        return np.where(maps > 0, find_all(tiles, own=0.9, enlarged=0.5), 0)


@pytest.fixture
def run(tmp_path, make_bundle, monkeypatch):
    """Count disks with a bundle, calibrated or not; give the run's folder."""
    network = Ideal()

    def load(run, plan, config, model, *, n_threads):
        compute = replace(
            network._compute,
            tile_px=config.inference.tile_px,
            context_px=config.inference.context_px,
        )
        run.compute.write_text(json.dumps(vars(compute)))
        network._use(compute)
        return compute, network

    monkeypatch.setattr(engine, "load", load)
    drawn = [draw_disks((160, 160), DIAMETER_PX, seed=n) for n in range(3)]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["X"] = np.stack([image for image, _ in drawn])
    preprocess = PreprocessConfig(diameter_px=WANTED_PX)
    model = make_bundle(Config(preprocess=preprocess)).paths.root

    def start(calibration):
        info = model / "bundle.json"
        values = json.loads(info.read_text())
        values["calibration"] = calibration and calibration.as_dict()
        info.write_text(json.dumps(values))
        config = load_config(None, ["instances.seed_threshold=0.1"])
        prepared = prepare([f"{tmp_path / 'a.h5'}:X"], model, config)
        folder = CountRun(tmp_path / f"run-{calibration is not None}")
        (scale,) = count(prepared, folder.root, workers=0).scales
        return folder, scale

    return start


def test_a_run_says_which_scale_was_worse(run):
    folder, scale = run(CALIBRATION)
    assert (scale.scale, scale.way) == (1, "estimated")
    assert scale.worse_scale > 1.4
    assert str(scale).endswith("times it is less sure of them")
    (note,) = json.loads(folder.manifest.read_text())["scales"]
    assert note["worse_scale"] == scale.worse_scale


def test_without_a_calibration_the_diameter_alone_decides(run):
    _, scale = run(None)
    assert scale.scale > 1.4
    assert scale.worse_scale is None
