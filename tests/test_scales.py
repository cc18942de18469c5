"""The scale of a run's datasets: found once, binding, and what the run says of it."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pandas as pd
import pytest

from nucleiseg.cli import main
from nucleiseg.config import Config, InferenceConfig, PreprocessConfig, load_config
from nucleiseg.counting import count, prepare
from nucleiseg.errors import BundleError, RunError
from nucleiseg.inference import DatasetScale, engine, get_engine, read_scales
from nucleiseg.inference.compute import Compute
from nucleiseg.inference.network import TiledNetwork
from nucleiseg.inference.scale_records import (
    group_datasets,
    publish_scale,
    read_scale,
)
from nucleiseg.inference.scales import Scales, spread
from nucleiseg.monitoring import read_status
from nucleiseg.runs import CountRun
from nucleiseg.shards import ArchiveRef, DatasetShare, Entry, Plan
from tests.disks import WANTED_PX, draw_disks, find_disks

COMPUTE = Compute("cpu", "float32", batch_size=2, tile_px=512, context_px=64)


class Ideal(TiledNetwork):
    """Finds disks of one size."""

    def __init__(self):
        self._compute = COMPUTE
        self._n_calls = 1
        self.n_tiles = 0

    def run(self, tiles):
        self.n_tiles += len(tiles)
        return find_disks(tiles)


@pytest.fixture
def network(monkeypatch):
    """Stands in for the network that a bundle holds."""
    network = Ideal()

    def load(run, plan, config, model, *, n_threads):
        tile_px, context_px = config.inference.tile_px, config.inference.context_px
        compute = replace(COMPUTE, tile_px=tile_px, context_px=context_px)
        run.compute.write_text(json.dumps(vars(compute)))
        network._use(compute)
        return compute, network

    monkeypatch.setattr(engine, "load", load)
    return network


@pytest.fixture
def model(make_bundle):
    config = Config(preprocess=PreprocessConfig(diameter_px=WANTED_PX))
    return make_bundle(config).paths.root


@pytest.fixture
def archive(tmp_path):
    """Three datasets: disks of 12 px, of 24 px and of 60 px; and how many each has."""
    path = tmp_path / "plate.h5"
    counts = {}
    with h5py.File(path, "w") as file:
        for key, diameter_px, side in (("a", 12, 128), ("b", 24, 160), ("c", 60, 400)):
            drawn = [draw_disks((side, side), diameter_px, seed=n) for n in range(3)]
            file[key] = np.stack([image for image, _ in drawn])
            counts[key] = [n_disks for _, n_disks in drawn]
    return path, counts


def count_here(inputs, model, folder, *settings, labels=False):
    config = load_config(None, settings)
    prepared = prepare([str(name) for name in inputs], model, config, labels=labels)
    return count(prepared, folder, workers=0)


def read_table(folder):
    return pd.read_csv(folder / "counts.csv", dtype={"count": "Int64"})


class TestCount:
    def test_nuclei_of_any_size_are_counted(self, archive, model, network, tmp_path):
        path, counts = archive
        result = count_here([f"{path}:*"], model, tmp_path / "run", labels=True)
        table = read_table(tmp_path / "run")
        for key, diameter_px in (("a", 12), ("b", 24), ("c", 60)):
            rows = table[table["dataset"] == f"/{key}"]
            assert list(rows["count"]) == counts[key]
            # In pixels as stored.
            area = np.pi / 4 * diameter_px**2
            np.testing.assert_allclose(rows["mean_area_px"], area, rtol=0.2)
        scales = {scale.datasets[0]: scale for scale in result.scales}
        assert scales["/a"].scale == pytest.approx(2, rel=0.2)
        assert scales["/b"].scale == 1
        assert scales["/c"].scale == pytest.approx(0.42, rel=0.2)
        assert {scale.way for scale in result.scales} == {"estimated"}
        with h5py.File(tmp_path / "run" / "labels.h5") as file, h5py.File(path) as raw:
            for key in "abc":
                labels = file[f"plate.h5/{key}"][()]
                assert labels.shape == raw[key].shape
                assert labels.max(axis=(1, 2)).tolist() == counts[key]

    def test_the_manifest_and_status_say_what_was_done(
        self, archive, model, network, tmp_path
    ):
        run = CountRun(tmp_path / "run")
        result = count_here([f"{archive[0]}:c"], model, run.root)
        (note,) = json.loads(run.manifest.read_text())["scales"]
        (scale,) = result.scales
        assert DatasetScale(**{**note, "datasets": tuple(note["datasets"])}) == scale
        assert scale.n_images == 3
        assert scale.diameter_px == pytest.approx(60, rel=0.1)
        assert str(scale).startswith("plate.h5:/c: images are reduced to 0.4")
        assert read_status(run.root, now_s=0).scales == [str(scale)]

    def test_without_scaling_they_are_missed(self, archive, model, network, tmp_path):
        inputs = [f"{archive[0]}:*"]
        count_here(
            inputs, model, tmp_path / "run", f"inference.diameter_px={WANTED_PX}"
        )
        table = read_table(tmp_path / "run")
        found = table.groupby("dataset")["count"].sum()
        assert found["/b"] == sum(archive[1]["b"])
        assert found["/a"] < 0.6 * sum(archive[1]["a"])
        assert found["/c"] < 0.6 * sum(archive[1]["c"])

    def test_a_diameter_that_is_given_is_not_estimated(
        self, archive, model, network, tmp_path
    ):
        name = f"{archive[0]}:a"
        result = count_here([name], model, tmp_path / "run", "inference.diameter_px=12")
        assert network.n_tiles <= 4  # its three images, and nothing else
        assert list(read_table(tmp_path / "run")["count"]) == archive[1]["a"]
        (scale,) = result.scales
        assert (scale.way, scale.scale, scale.diameter_px) == ("given", 2.0, 12)

    def test_another_diameter_is_another_run(self, archive, model, network, tmp_path):
        name = f"{archive[0]}:a"
        count_here([name], model, tmp_path / "run", "inference.diameter_px=12")
        for other in ("inference.diameter_px=13", "inference.diameter_px=null"):
            with pytest.raises(RunError, match="holds another run: inference was"):
                count_here([name], model, tmp_path / "run", other)

    def test_going_on_does_not_look_again(
        self, archive, model, network, tmp_path, monkeypatch
    ):
        run = CountRun(tmp_path / "run")
        count_here([f"{archive[0]}:c"], model, run.root, "shards.images=1")
        table = run.table("csv").read_bytes()
        for number in (0, 2):
            run.part(number).unlink()
        run.table("csv").unlink()
        get_engine.cache_clear()
        monkeypatch.setattr("nucleiseg.inference.scales.estimate_diameter", pytest.fail)
        count_here([f"{archive[0]}:c"], model, run.root, "shards.images=1")
        assert run.table("csv").read_bytes() == table

    def test_planned_anew_it_looks_again(self, archive, model, network, tmp_path):
        run = CountRun(tmp_path / "run")
        count_here([f"{archive[0]}:c"], model, run.root)
        before = read_scales(run, prepare_here(archive[0], model).plan)
        assert before
        run.part(0).unlink()
        count_here([f"{archive[0]}:c"], model, run.root, "inference.diameter_px=60")
        (note,) = json.loads(run.manifest.read_text())["scales"]
        assert note["way"] == "given"

    def test_images_that_cannot_be_read_are_not_looked_at(
        self, model, network, tmp_path
    ):
        images = np.stack([draw_disks((128, 128), 12, seed=n)[0] for n in range(3)])
        images = images.astype(np.float32)
        images[1, 5, 5] = np.nan
        np.savez(tmp_path / "a.npz", X=images)
        result = count_here([tmp_path / "a.npz"], model, tmp_path / "run")
        (scale,) = result.scales
        assert scale.n_images == 2
        assert scale.diameter_px == pytest.approx(12, rel=0.15)
        assert result.merged.n_failed == 1

    def test_where_there_is_nothing_images_keep_their_size(
        self, model, network, tmp_path
    ):
        np.savez(tmp_path / "a.npz", X=np.zeros((2, 64, 64), np.uint8))
        result = count_here([tmp_path / "a.npz"], model, tmp_path / "run")
        (scale,) = result.scales
        assert (scale.scale, scale.diameter_px, scale.way) == (1, None, "no nuclei")
        assert list(read_table(tmp_path / "run")["count"]) == [0, 0]


def prepare_here(path, model):
    return prepare([f"{path}:c"], model, load_config(None, []))


class TestBlocks:
    SETTINGS = (
        "shards.block_pixels=40000",
        "inference.tile_px=128",
        "inference.context_px=32",
    )

    def test_they_keep_their_size_and_the_run_says_so(
        self, archive, model, network, tmp_path
    ):
        name = f"{archive[0]}:c"
        result = count_here([name], model, tmp_path / "run", *self.SETTINGS)
        (scale,) = result.scales
        assert (scale.scale, scale.way) == (1, "in blocks")
        assert "keep their size, as all that are counted in blocks" in str(scale)

    def test_a_diameter_that_would_change_it_is_refused(self, archive, model):
        name = f"{archive[0]}:*"
        wrong = load_config(None, [*self.SETTINGS, "inference.diameter_px=60"])
        with pytest.raises(RunError, match=r"plate.h5:/c .*400x400.*0.42 .*=160000"):
            prepare([name], model, wrong)
        right = load_config(None, [*self.SETTINGS, "inference.diameter_px=30"])
        prepare([name], model, right)


def test_a_model_of_any_scale_neither_looks_nor_takes_a_diameter(
    archive, make_bundle, network, tmp_path
):
    model = make_bundle().paths.root
    result = count_here([f"{archive[0]}:b"], model, tmp_path / "run")
    assert list(read_table(tmp_path / "run")["count"]) == archive[1]["b"]
    assert network.n_tiles <= 4
    assert result.scales == ()
    assert not CountRun(tmp_path / "run").scales.exists()
    with pytest.raises(BundleError, match=r"diameter_px is 12, .* \(--diameter\)"):
        count_here(
            [f"{archive[0]}:b"], model, tmp_path / "x", "inference.diameter_px=12"
        )


def test_a_dry_run_says_what_would_be_done(archive, model, capsys):
    command = ["count", f"{archive[0]}:a", "--model", str(model), "--dry-run"]
    assert main(command) == 0
    words = "scale      nuclei brought to the network's 26 px; their diameter:"
    assert f"{words} estimated for each dataset" in capsys.readouterr().out
    assert main([*command, "--diameter", "12.5"]) == 0
    assert f"{words} given, 12.5 px" in capsys.readouterr().out


def make_plan(*shares):
    """Plan datasets of (archive, images, height, width) each."""
    entries = [
        Entry(archive, number, f"X{number}", 0, n_images, height, width)
        for number, (archive, n_images, height, width) in enumerate(shares)
    ]
    archives = tuple(ArchiveRef(f"/{name}.h5", f"{name}.h5", name) for name in "ab")
    settings = InferenceConfig().model_dump(mode="json", exclude={"device"})
    return Plan(archives, entries, {"inference": settings})


class TestGroups:
    def test_small_ones_of_one_archive_and_shape_are_one(self):
        plan = make_plan(
            *((0, 3, 100, 90), (0, 600, 100, 90), (1, 3, 100, 90), (0, 5, 90, 100)),
            *((0, 1, 100, 90), (0, 2, 2000, 2000), (0, 3, 2000, 2000)),
        )
        groups = group_datasets(plan)
        names = [[share.dataset for share in group] for group in groups]
        assert names == [["X0", "X4"], ["X1"], ["X2"], ["X3"], ["X5"], ["X6"]]

    def test_images_to_look_at_are_spread_over_all_of_them(self):
        group = [DatasetShare(0, f"X{n}", 2 + n % 3, 1, (64, 64)) for n in range(40)]
        every = [(s.dataset, index) for s in group for index in range(s.n_images)]
        chosen = [
            (s.dataset, index) for s, indices in spread(group) for index in indices
        ]
        assert len(chosen) == 8
        places = np.array([every.index(one) for one in chosen])
        expected = (np.arange(8) + 0.5) * len(every) / 8
        np.testing.assert_allclose(places, expected, atol=1)

    def test_of_few_images_all_are_looked_at_and_of_large_ones_few(self):
        few = [DatasetShare(0, "X", 5, 1, (64, 64))]
        assert spread(few) == [(few[0], [0, 1, 2, 3, 4])]
        large = [DatasetShare(0, "X", 500, 1, (4096, 4096))]
        ((_, indices),) = spread(large)
        assert indices == [83, 250, 416]


class TestRecord:
    PLAN = make_plan((0, 3, 100, 90))
    FOUND = DatasetScale("a.h5", ("X0",), 2.0, 12.5, 26.0, "estimated", 40, 3)

    @pytest.fixture
    def run(self, tmp_path):
        (tmp_path / "run").mkdir()
        return CountRun(tmp_path / "run")

    @property
    def group(self):
        return group_datasets(self.PLAN)[0]

    def publish(self, run, found):
        return publish_scale(run, self.PLAN, self.group, found, compute="c")

    def test_of_two_workers_the_first_counts(self, run):
        other = DatasetScale("a.h5", ("X0",), 1.0, 22.0, 26.0, "estimated", 3, 3)
        assert self.publish(run, self.FOUND) == self.FOUND
        assert self.publish(run, other) == self.FOUND
        assert read_scales(run, self.PLAN) == [self.FOUND]

    def test_what_is_there_is_taken(self, run):
        self.publish(run, self.FOUND)
        scales = Scales(
            *(run, self.PLAN, PreprocessConfig(diameter_px=26), None),
            compute="c",
            open_dataset=pytest.fail,
            predict=pytest.fail,
        )
        assert scales.find(self.PLAN.shards[0]) == 2.0

    @pytest.mark.parametrize(
        ("n_nuclei", "why"),
        [(0, "no nuclei were found to measure"), (1200, "the 1,200 nuclei found on 3")],
    )
    def test_says_why_images_keep_their_size(self, n_nuclei, why):
        found = DatasetScale("a.h5", ("X0",), 1.0, None, 26.0, "no nuclei", n_nuclei, 3)
        assert f"a.h5:X0: images keep their size, {why}" in str(found)

    def test_another_computes_is_refused(self, run):
        self.publish(run, self.FOUND)
        with pytest.raises(RunError, match="belongs to another compute"):
            read_scale(run, self.PLAN, self.group, compute="d")
        assert read_scale(run, self.PLAN, self.group) == self.FOUND

    def test_another_plans_is_refused(self, run):
        self.publish(run, self.FOUND)
        other = Plan(self.PLAN.archives, self.PLAN.entries, {"inference": {}})
        with pytest.raises(RunError, match="belongs to another plan"):
            read_scale(run, other, group_datasets(other)[0])

    @pytest.mark.parametrize("text", ["{}", "[]", '{"scale": 1', "null"])
    def test_a_damaged_one_is_named(self, run, text):
        self.publish(run, self.FOUND)
        (path,) = run.scales.iterdir()
        path.write_text(text)
        with pytest.raises(RunError, match="damaged"):
            read_scale(run, self.PLAN, self.group, compute="c")

    def test_nothing_yet(self, run):
        assert read_scale(run, self.PLAN, self.group, compute="c") is None
        assert read_scales(run, self.PLAN) == []
