"""Tuning where the best thresholds, and what scores are worth, are known.

A stand-in for the network gives the image itself for both of its maps, so that what is
drawn is what it says::

    right nuclei   .9, and of those of .6 three in four     16x16 px
    touching ones  two of .9 with a bridge of .63, parted by seeds above it
    to be left     shades of .35, specks of .9 and 3x3 px
"""

import json
from dataclasses import replace

import h5py
import numpy as np
import pandas as pd
import pytest

from nucleiseg.bundle import read_bundle
from nucleiseg.cli import main
from nucleiseg.config import Config, InstancesConfig, load_config
from nucleiseg.counting import count, prepare
from nucleiseg.errors import BundleError, RunError
from nucleiseg.evaluation import Found, Table
from nucleiseg.inference import engine
from nucleiseg.inference.compute import Compute
from nucleiseg.inference.network import TiledNetwork
from nucleiseg.quality import Calibration
from nucleiseg.runs import CountRun
from nucleiseg.tuning import Trust, tune
from nucleiseg.tuning.confidence import Judged, calibrate, judge_image, measure_trust
from nucleiseg.tuning.crossing import assign_folds, cross
from nucleiseg.tuning.labelled_maps import LabelledMaps
from tests.conftest import run_nucleiseg

COMPUTE = Compute("cpu", "float32", batch_size=2, tile_px=512, context_px=64)
SIDE = 128
CELL = 32
N_IMAGES = 12
TILES = ("inference.tile_px=96", "inference.context_px=16")


class Mirror(TiledNetwork):
    """Says of an image what the image says."""

    def __init__(self):
        self._compute = COMPUTE
        self._n_calls = 1

    def run(self, tiles):
        return np.stack([tiles, tiles], axis=-1)


@pytest.fixture
def mirror(monkeypatch):
    """Stands in for the network that a bundle holds."""
    network = Mirror()

    def load(run, plan, config, model, *, n_threads):
        tile_px, context_px = config.inference.tile_px, config.inference.context_px
        compute = replace(COMPUTE, tile_px=tile_px, context_px=context_px)
        network._use(compute)
        run.compute.write_text(json.dumps(vars(compute)))
        return compute, network

    monkeypatch.setattr(engine, "load", load)


@pytest.fixture
def fresh(make_bundle):
    sections = {
        "preprocess": {"normalisation": "none"},
        "instances": {"threshold": 0.5, "seed_threshold": 0.5, "min_area_px": 7},
    }
    return make_bundle(Config.model_validate(sections)).paths.root


def draw_image(number):
    """One image of 16 cells, and its labels."""
    image = np.zeros((SIDE, SIDE), np.float32)
    labels = np.zeros((SIDE, SIDE), np.uint16)
    corners = [(y, x) for y in range(0, SIDE, CELL) for x in range(0, SIDE, CELL)]
    for place, (y, x) in enumerate(corners):
        nucleus = np.s_[y + 8 : y + 24, x + 8 : x + 24]
        if place < 8:
            image[nucleus] = 0.9
            labels[nucleus] = place + 1
        elif place < 12:
            image[nucleus] = 0.6
            if (place + number) % 4:
                labels[nucleus] = place + 1
        elif place == 12:
            image[nucleus] = 0.9
            image[y + 8 : y + 24, x + 15 : x + 17] = 0.63
            labels[y + 8 : y + 24, x + 8 : x + 16] = 13
            labels[y + 8 : y + 24, x + 16 : x + 24] = 14
        elif place < 15:
            image[nucleus] = 0.35
        else:
            image[y : y + 3, x : x + 3] = 0.9
    return image, labels


@pytest.fixture
def archive(tmp_path):
    drawn = [draw_image(number) for number in range(N_IMAGES)]
    path = tmp_path / "val.h5"
    with h5py.File(path, "w") as file:
        file["images"] = np.stack([image for image, _ in drawn])
        file["labels"] = np.stack([labels for _, labels in drawn])
    return path


def tune_here(fresh, path, *, out=None, images="images", labels="labels"):
    return tune(
        fresh, [f"{path}:{images}"], f"{path}:{labels}", load_config(None, []), out=out
    )


class TestTune:
    def test_the_best_thresholds_are_found_and_stored(self, mirror, fresh, archive):
        tuned = tune_here(fresh, archive)
        found = read_bundle(fresh).instances
        # Of 0.4 and 0.5, of 0.65 to 0.85 and of 10 to 100 the first.
        assert (found.threshold, found.seed_threshold, found.min_area_px) == (
            0.4,
            0.65,
            10,
        )
        assert tuned.before.threshold == 0.5
        assert tuned.bundle.instances == found
        assert found.method == "auto"
        # 13 of 14 found ones are right, and none is missed.
        assert tuned.choice.ap_50 == pytest.approx(13 / 14)
        assert tuned.crossed.scores["AP(.5)"].value == pytest.approx(13 / 14)
        assert tuned.crossed.scores["bias"].value == pytest.approx(1 / 13)

    def test_what_is_set_stays_and_the_rest_is_chosen(self, mirror, fresh, archive):
        settings = "instances.threshold=0.45", "instances.min_area_px=17"
        names = [f"{archive}:{key}" for key in ("images", "labels")]
        tuned = tune(fresh, names[:1], names[1], load_config(None, list(settings)))
        found = tuned.bundle.instances
        assert (found.threshold, found.min_area_px) == (0.45, 17)
        assert found.seed_threshold == 0.65
        curve = json.loads((fresh / "bundle.json").read_text())["tuning"]["curve"]
        assert {one["threshold"] for one in curve} == {0.45}
        assert len(curve) == 14

    def test_the_calibration_says_what_share_is_right(self, mirror, fresh, archive):
        tuned = tune_here(fresh, archive)
        calibration = read_bundle(fresh).calibration
        assert calibration == tuned.bundle.calibration
        low, high = calibration.apply(np.array([0.6, 0.9]))
        assert low == pytest.approx(0.75, abs=0.06)
        assert 0.96 < high < 1
        # The touching ones are half as large as the others.
        area = (11 * 256 + 2 * 128) / 13
        expected = 2 * np.sqrt(area / np.pi)
        assert calibration.diameters_px == pytest.approx((expected, expected), abs=0.01)
        plain, calibrated = tuned.crossed.plain, tuned.crossed.calibrated
        assert plain.expected_calibration_error > 0.1
        assert calibrated.expected_calibration_error < 0.04
        assert calibrated.brier < plain.brier
        assert calibrated.image_error < plain.image_error

    def test_what_it_came_to_is_kept_for_people(self, mirror, fresh, archive):
        tuned = tune_here(fresh, archive)
        kept = json.loads((fresh / "bundle.json").read_text())["tuning"]
        assert kept["n_images"] == N_IMAGES
        assert kept["choice"]["threshold"] == 0.4
        assert kept["cross_fitted"]["AP(.5)"][0] == pytest.approx(13 / 14, abs=1e-4)
        confidence = kept["cross_fitted"]["confidence"]
        assert confidence["calibrated"] == tuned.crossed.calibrated.as_dict()
        assert confidence["plain"]["brier"] > confidence["calibrated"]["brier"]

    def test_what_cannot_be_stored_is_refused_before_any_work(
        self, archive, monkeypatch
    ):
        def work(*arguments):
            raise AssertionError("images were predicted")

        monkeypatch.setattr(engine.Engine, "predict_maps", work)
        with pytest.raises(BundleError, match="stays as it is"):
            tune(None, [f"{archive}:images"], f"{archive}:labels", Config())

    def test_out_leaves_the_bundle_as_it_is(self, mirror, fresh, archive, tmp_path):
        before = (fresh / "bundle.json").read_bytes()
        tuned = tune_here(fresh, archive, out=tmp_path / "tuned")
        assert (fresh / "bundle.json").read_bytes() == before
        assert tuned.bundle == read_bundle(tmp_path / "tuned")
        assert tuned.bundle.calibration is not None
        with pytest.raises(BundleError, match="holds something already"):
            tune_here(fresh, archive, out=tmp_path / "tuned")

    def test_the_method_stays(self, mirror, make_bundle, archive):
        sections = {
            "preprocess": {"normalisation": "none"},
            "instances": {"method": "components"},
        }
        bundle = make_bundle(Config.model_validate(sections))
        tuned = tune_here(bundle.paths.root, archive)
        assert tuned.bundle.instances.method == "components"
        # Those that touch are one, which fits one of them just so.
        assert tuned.choice.ap_50 == pytest.approx(12 / 14)
        assert tuned.choice.bias == 0

    def test_views_are_kept_or_those_that_are_asked_for(self, mirror, fresh, archive):
        config = load_config(None, ["instances.views=4"])
        labels = f"{archive}:labels"
        tuned = tune(fresh, [f"{archive}:images"], labels, config)
        assert tuned.bundle.instances.views == 4
        assert tuned.bundle.instances.threshold == 0.4
        assert tune_here(fresh, archive).bundle.instances.views == 4

    def test_command(self, mirror, fresh, archive, capsys):
        words = ["tune", str(fresh), "--images", f"{archive}:images"]
        assert main([*words, "--labels", f"{archive}:labels"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[1].split() == ["foreground", "threshold", "0.5", "0.4"]
        assert lines[3].split() == ["smallest", "area,", "px", "7", "10"]
        told = {line[:22].strip(): line[22:].split() for line in lines}
        before, now = map(float, told["calibration error"])
        assert before > now
        low, high = map(float, told["of a nucleus, from"])
        assert low < 0.82 < high
        assert told["known diameters, px"] == ["17.4", "17.4"]
        assert lines[-1].startswith("model     ")

    def test_command_says_what_halves_are_scored_with(
        self, mirror, fresh, archive, tmp_path, capsys
    ):
        names = [f"{archive}:{key}" for key in ("images", "labels")]
        command = ["tune", str(fresh), "--images", names[0], "--labels", names[1]]
        settings = ["threshold=0.45", "seed_threshold=0.65", "min_area_px=17"]
        for n_set, words in (
            (1, "with the thresholds that the other half chose:"),
            (3, "with the calibration of the other half:"),
        ):
            given = [
                word
                for setting in settings[:n_set]
                for word in ("--set", f"instances.{setting}")
            ]
            assert main([*command, *given, "--out", str(tmp_path / str(n_set))]) == 0
            assert words in capsys.readouterr().out

    def test_nothing_found_is_not_calibrated(self, mirror, fresh, tmp_path, capsys):
        path = tmp_path / "dark.h5"
        with h5py.File(path, "w") as file:
            file["images"] = np.zeros((4, 32, 32), np.float32)
            file["labels"] = np.zeros((4, 32, 32), np.uint8)
        words = ["tune", str(fresh), "--images", f"{path}:images"]
        assert main([*words, "--labels", f"{path}:labels"]) == 0
        answer = capsys.readouterr()
        assert "not calibrated: no nuclei were found" in answer.out
        assert read_bundle(fresh).calibration is None

    @pytest.mark.parametrize(
        ("n_images", "shape", "message"),
        [
            (3, (SIDE, SIDE), "3 labelled images are too few"),
            (N_IMAGES, (SIDE, SIDE - 1), "name the labels of the same images"),
            (N_IMAGES + 1, (SIDE, SIDE), "name the labels of the same images"),
        ],
    )
    def test_what_does_not_fit_is_refused(
        self, mirror, fresh, archive, n_images, shape, message
    ):
        with h5py.File(archive, "a") as file:
            del file["labels"]
            file["labels"] = np.ones((n_images, *shape), np.uint8)
            if n_images < N_IMAGES:
                images = file["images"][:n_images]
                del file["images"]
                file["images"] = images
        before = (fresh / "bundle.json").read_bytes()
        with pytest.raises(RunError, match=message):
            tune_here(fresh, archive)
        assert (fresh / "bundle.json").read_bytes() == before


class TestTables:
    """What `count` and `segment` do with a calibrated bundle."""

    @pytest.mark.parametrize("labels", [False, True])
    @pytest.mark.parametrize("block_pixels", [2**24, 64**2])
    def test_confidence_is_the_share_expected_to_be_right(
        self, mirror, fresh, archive, tmp_path, labels, block_pixels
    ):
        calibration = tune_here(fresh, archive).bundle.calibration
        settings = [f"shards.block_pixels={block_pixels}", *TILES]
        prepared = prepare(
            [f"{archive}:images"],
            fresh,
            load_config(None, settings),
            labels=labels,
        )
        assert any(prepared.plan.shards.is_block) == (block_pixels < SIDE**2)
        result = count(prepared, tmp_path / "run", workers=0)
        table = pd.read_csv(tmp_path / "run" / "counts.csv", keep_default_na=False)
        assert set(table["count"]) == {14}
        # 8 whole ones, 4 faint ones, and two with half of the bridge, 1/8 of each.
        scores = [0.9] * 8 + [0.6] * 4 + [(7 * 0.9 + 0.63) / 8] * 2
        expected = calibration.apply(np.array(scores)).mean()
        np.testing.assert_allclose(table["confidence"], expected, atol=2e-4)
        if labels:
            nuclei = pd.read_csv(tmp_path / "run" / "nuclei.csv")
            by_image = nuclei.groupby("index")["confidence"]
            assert by_image.size().tolist() == [14] * N_IMAGES
            np.testing.assert_allclose(by_image.mean(), table["confidence"], atol=1e-4)
            shares = np.sort(calibration.apply(np.array(scores)))
            for _, found in by_image:
                np.testing.assert_allclose(np.sort(found), shares, atol=2e-4)
        assert result.merged.n_flagged == (table["flags"] != "").sum()

    def test_flags_are_counted_with_the_diameters_of_the_calibration(
        self, mirror, fresh, archive, tmp_path, capsys
    ):
        tune_here(fresh, archive)
        with h5py.File(archive) as file:
            images = file["images"][()]
        mixed = tmp_path / "mixed.h5"
        with h5py.File(mixed, "w") as file:
            # The first four show nuclei of half their size.
            small = np.tile(images[:4, ::2, ::2], (1, 2, 2))
            rng = np.random.default_rng(0)
            images = np.concatenate([small, images[4:]])
            file["mixed"] = images + 0.01 * rng.random(images.shape, np.float32)
        words = ["count", f"{mixed}:mixed", "--model", str(fresh), "--workers", "0"]
        assert main([*words, "--run", str(tmp_path / "run")]) == 0
        table = pd.read_csv(tmp_path / "run" / "counts.csv", keep_default_na=False)
        is_foreign = table["flags"].str.contains("foreign_scale")
        assert is_foreign.tolist() == [True] * 4 + [False] * 8
        out = capsys.readouterr().out
        n_flagged = (table["flags"] != "").sum()
        share = f"{100 * n_flagged / N_IMAGES:.1f} %"
        assert f"flagged   {n_flagged} of {N_IMAGES} images ({share}): " in out
        assert "foreign_scale 4" in out

    def test_a_run_is_bound_to_its_calibration(self, mirror, fresh, archive, tmp_path):
        inputs, config = [f"{archive}:images"], load_config(None, [])
        before = prepare(inputs, fresh, config).plan.identity
        tune_here(fresh, archive, out=tmp_path / "tuned")
        info = json.loads((tmp_path / "tuned" / "bundle.json").read_text())
        info["instances"] = json.loads((fresh / "bundle.json").read_text())["instances"]
        (tmp_path / "tuned" / "bundle.json").write_text(json.dumps(info))
        assert prepare(inputs, tmp_path / "tuned", config).plan.identity != before


def save_maps(folder, images):
    """Keep maps and labels as predicting them would."""
    found = []
    for number, (group, values, labels) in enumerate(images):
        path = folder / f"{number}.npy"
        np.save(path, np.stack([values, values], axis=-1).astype(np.float16))
        found.append(LabelledMaps(group, path, labels))
    return found


def draw_squares(n, value, n_right):
    """Squares of 8x8 px, the first of which are nuclei."""
    image, labels = np.zeros((16, 16 * n)), np.zeros((16, 16 * n), np.uint8)
    for k in range(n):
        image[4:12, 16 * k + 4 : 16 * k + 12] = value
        if k < n_right:
            labels[4:12, 16 * k + 4 : 16 * k + 12] = k + 1
    return image, labels


class TestCrossing:
    def test_halves_take_turns_within_each_group(self):
        groups = ["a", "a", "b", "a", "b", "c"]
        assert assign_folds(groups).tolist() == [0, 1, 0, 0, 1, 0]

    def make_table(self, found):
        """A table in which each half prefers another threshold."""
        one, none = (Found(np.array([64.0]), np.array([iou]), 1) for iou in (1.0, 0.0))
        rows = [[one, none] if n % 2 == 0 else [none, one] for n in range(len(found))]
        return Table([(0.3, 0.5), (0.7, 0.5)], rows)

    def test_no_half_is_scored_with_its_own_choice(self, tmp_path):
        # Even images are best above 0.3, odd ones above 0.7; each gets the other's.
        even, odd = draw_squares(3, 0.6, 3), draw_squares(3, 0.75, 1)
        found = save_maps(tmp_path, [("g", *even), ("g", *odd)] * 2)
        crossed = cross(found, self.make_table(found), InstancesConfig())
        # Above 0.7 none of 0.6 is found; above 0.3 all three are, and one is right.
        assert crossed.scores["AP(.5)"].value == 2 / (6 + 2 + 6 - 2)
        assert crossed.scores["count error"].value == (2 * 3 + 2 * 2) / (2 * 3 + 2)

    def test_no_half_is_judged_by_its_own_calibration(self, tmp_path):
        # The same scores: 50 of 50 are right in even images, 25 of 50 in odd ones.
        even, odd = draw_squares(25, 0.9, 25), draw_squares(50, 0.9, 25)
        found = save_maps(tmp_path, [("g", *even), ("g", *odd), ("g", *even)])
        crossed = cross(found, self.make_table(found), InstancesConfig())
        share_even, share_odd = 51 / 52, 26 / 52
        gaps = (
            50 * (1 - share_odd)
            + 25 * share_even
            + abs(25 - 50 * share_even)
            - 25 * (share_even)
        )
        assert crossed.calibrated.image_error == pytest.approx(gaps / 100, abs=1e-4)
        brier = 50 * (1 - share_odd) ** 2 + 25 * (1 - share_even) ** 2
        brier += 25 * share_even**2
        assert crossed.calibrated.brier == pytest.approx(brier / 100, abs=1e-4)
        assert crossed.plain.brier == pytest.approx(0.75 * 0.01 + 0.25 * 0.81, abs=1e-3)

    def test_halves_without_nuclei_say_nothing_of_confidence(self, tmp_path):
        dark = np.zeros((16, 16)), np.zeros((16, 16), np.uint8)
        found = save_maps(tmp_path, [("g", *dark), ("g", *draw_squares(3, 0.9, 3))])
        crossed = cross(found, self.make_table(found), InstancesConfig())
        assert crossed.plain is crossed.calibrated is None
        assert crossed.as_dict()["confidence"] == {"plain": None, "calibrated": None}


class TestJudging:
    def test_scores_are_those_of_a_count(self):
        image, truth = draw_squares(3, 0.9, 2)
        maps = np.stack([image, image / 2], axis=-1).astype(np.float32)
        labels = np.zeros(image.shape, np.int32)
        for k in range(3):
            labels[4:12, 16 * k + 4 : 16 * k + 12] = k + 1
        judged = judge_image(maps, labels, truth)
        np.testing.assert_allclose(judged.scores, 0.45, atol=1e-6)
        np.testing.assert_allclose(judged.probabilities, 0.9, atol=1e-6)
        assert judged.is_right.tolist() == [True, True, False]
        assert judged.diameter_px == pytest.approx(2 * np.sqrt(64 / np.pi))

    def test_diameters_are_those_that_the_network_saw(self):
        image, truth = draw_squares(2, 0.9, 2)
        enlarged = np.kron(image, np.ones((2, 2)))[..., np.newaxis].astype(np.float32)
        judged = judge_image(enlarged, truth.astype(np.int32), truth)
        assert judged.diameter_px == pytest.approx(4 * np.sqrt(64 / np.pi))

    def test_an_empty_image(self):
        empty = np.zeros((8, 8), np.int32)
        judged = judge_image(np.zeros((8, 8, 1), np.float32), empty, empty)
        assert (len(judged.scores), judged.diameter_px) == (0, None)
        assert calibrate([judged]) is None

    def test_trust_by_hand(self):
        images = [
            Judged(np.array([0.9, 0.9]), np.array([0.9, 0.9]), np.array([1, 0]) > 0, 9),
            Judged(np.array([0.5]), np.array([0.5]), np.array([1]) > 0, None),
        ]
        trust = measure_trust(images, [one.scores for one in images])
        assert trust.brier == pytest.approx((0.01 + 0.81 + 0.25) / 3)
        # 1.8 expected where 1 is right, and 0.5 where 1 is.
        assert trust.image_error == pytest.approx((0.8 + 0.5) / 3)
        assert Trust(0.12345, 0.5, 1).as_dict()["expected_calibration_error"] == 0.1235


@pytest.mark.slow
def test_with_a_network(model, training_archive, tmp_path):
    """The whole of it in processes of its own, with a network that was trained."""
    tuned = tmp_path / "tuned"
    answer = run_nucleiseg(
        *("tune", model, "--out", tuned, "--images", f"{training_archive}:X"),
        *("--labels", f"{training_archive}:y"),
    )
    assert answer.returncode == 0, answer.stderr
    assert "calibration error" in answer.stdout
    info = read_bundle(tuned)
    assert isinstance(info.calibration, Calibration)
    for command in ("count", "segment"):
        run = CountRun(tmp_path / command)
        answer = run_nucleiseg(
            *(command, f"{training_archive}:X", "--model", tuned, "--run", run.root)
        )
        assert answer.returncode == 0, answer.stderr
        assert "\nflagged   " in answer.stdout
    table = pd.read_csv(CountRun(tmp_path / "count").table("csv"))
    other = pd.read_csv(CountRun(tmp_path / "segment").table("csv"))
    pd.testing.assert_frame_equal(table, other)
    confidence = table["confidence"].dropna()
    low, high = info.calibration.shares[0], info.calibration.shares[-1]
    assert confidence.between(low - 1e-4, high + 1e-4).all()
