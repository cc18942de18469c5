"""Methods compared after the same training: budgets, halves, and what is kept."""

import importlib.util
import json
from dataclasses import replace

import h5py
import numpy as np
import pytest

from jobs.benchmark import contest, contest_images, ladder
from jobs.benchmark.budget import Budget, follow_budget
from jobs.benchmark.contest import Contestant, Outcome, Rules
from jobs.benchmark.contest_options import CONFIG, summarise, write_figure
from nucleiseg import synthetic
from nucleiseg.config import load_config
from nucleiseg.errors import RunError
from nucleiseg.metrics import match_instances
from tests.test_benchmark import run_benchmark, start_benchmark

needs_stardist = pytest.mark.skipif(
    importlib.util.find_spec("stardist") is None,
    reason="stardist is not installed: pip install '.[rivals]'",
)

# So little that a training is a step, and all of a run the loading of TensorFlow.
LITTLE = (
    *("--core-minutes", 0.01, "--set", "data.crop_px=32"),
    *("--set", "model.filters=[4,8]"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder in which contestants find those of the tests before."""
    return tmp_path_factory.mktemp("contest")


@pytest.fixture
def archive(tmp_path):
    """Archive of 2 x 6 images; one to train on is one of the others, too."""
    path = tmp_path / "some.h5"
    with h5py.File(path, "w") as file:
        for number, part in enumerate(("train", "val")):
            images, labels = synthetic.draw_fields(6, (48, 64), seed=number)
            file[f"{part}/small/images"] = images.astype(np.uint8)
            file[f"{part}/small/labels"] = labels.astype(np.uint16)
        file["train/small/images"][2] = file["val/small/images"][5]
    return path


def write(path, archive, limit=None):
    return contest_images.write_contest(
        path, archive, "/train/*/images", "/val/*/images", limit
    )


class TestBudget:
    def test_cpu_time_is_counted_from_the_start_of_the_process(self):
        budget = Budget(1e9)
        before = budget.used_s
        assert before > 0.1
        while budget.used_s < before + 0.05:
            pass
        assert not budget.is_used
        assert Budget(before).is_used
        assert Budget(before).share == 1

    def test_rate_rises_and_falls_to_nothing(self):
        rates = [follow_budget(2.0, share) for share in np.linspace(0, 1, 101)]
        assert rates[0] == 0
        assert rates[5] == max(rates) == 2
        assert rates[-1] == pytest.approx(0)
        assert (np.diff(rates[5:]) < 0).all()


class TestImages:
    def test_halves_by_turns_and_no_image_on_both_sides(self, archive, tmp_path):
        found = write(tmp_path / "contest.h5", archive)
        parts = {
            part: list(found.read(part)) for part in ("train", *contest_images.HALVES)
        }
        with h5py.File(archive) as file:
            images = file["val/small/images"][()]
            labels = file["val/small/labels"][()]
        for start, half in enumerate(contest_images.HALVES):
            (stack,) = parts[half]
            assert stack.group == "00-48x64"
            np.testing.assert_array_equal(stack.images, images[start::2])
            np.testing.assert_array_equal(stack.labels, labels[start::2])
        (train,) = parts["train"]
        assert len(train.images) == 5
        seen = {image.tobytes() for image in train.images}
        assert not seen & {image.tobytes() for image in images}

    def test_limit(self, archive, tmp_path):
        found = write(tmp_path / "contest.h5", archive, limit=3)
        sizes = [len(next(found.read(h)).images) for h in contest_images.HALVES]
        assert sizes == [2, 1]


class TestKept:
    @pytest.fixture
    def rules(self, archive, tmp_path):
        found = write(tmp_path / "contest.h5", archive)
        return Rules(found, tmp_path, CONFIG, ("model.filters=[4,8]",), 60.0)

    @pytest.fixture
    def n_run(self, monkeypatch, rules):
        """Count trainings and predictions, which cost nothing here."""
        done = []

        def run_part(words):
            done.append("train")
            return {"crops": 8}, 1.0

        def predict_ours(found, home, half, *, tuned_on):
            done.append((half, tuned_on))
            labels = {stack.group: stack.labels for stack in found.read(half)}
            return contest_predictions.Predicted(labels, 2.0, 100.0, {"threshold": 1})

        from jobs.benchmark import contest_predictions

        monkeypatch.setattr(contest, "run_part", run_part)
        monkeypatch.setattr(contest, "predict_ours", predict_ours)
        return done

    def test_each_half_is_scored_with_what_the_other_chose(self, rules, n_run):
        outcome = contest.compete(Contestant("ours"), rules)
        assert n_run == ["train", ("half-a", "half-b"), ("half-b", "half-a")]
        row = summarise(outcome)
        assert row["ap_50"] == [1, 1, 1]
        assert (row["n_images"], row["images_per_s"]) == (6, 1.5)
        json.dumps(row, allow_nan=False)

    def test_what_is_finished_is_not_done_again(self, rules, n_run):
        first = contest.compete(Contestant("ours"), rules)
        n_run.clear()
        again = contest.compete(Contestant("ours"), rules)
        assert n_run == []
        for name, values in vars(first.matches).items():
            np.testing.assert_array_equal(getattr(again.matches, name), values)
        (rules.folder / "ours" / "outcome.json").unlink()
        contest.compete(Contestant("ours"), rules)
        assert "train" not in n_run
        assert len(n_run) == 2

    def test_what_was_made_otherwise_is_refused(self, rules, n_run):
        contest.compete(Contestant("ours"), rules)
        with pytest.raises(
            RunError, match=r"other core_s: \[60.0\], now \[30.0\]; use"
        ):
            contest.compete(Contestant("ours"), replace(rules, core_s=30.0))
        with pytest.raises(RunError, match="other settings"):
            contest.compete(Contestant("ours", ("model.head=mask",)), rules)

    def test_rung_that_takes_a_model_needs_it(self, rules, n_run):
        tuned = Contestant("thresholds", trained_as="scale")
        with pytest.raises(RunError, match="scale must come first"):
            contest.compete(tuned, rules)


class TestLadder:
    def test_each_rung_changes_what_its_name_says(self):
        configs = {
            rung.name: load_config(CONFIG, rung.settings)
            for rung in ladder.list_rungs("thresholds")
        }
        heads = {name: config.model.head for name, config in configs.items()}
        assert list(heads.items()) == [
            *[("mask", "mask"), ("augmentation", "mask"), ("boundary", "boundary")],
            *[("border-weight", "boundary"), ("distance", "combined")],
            *[("scale", "combined"), ("thresholds", "combined")],
        ]
        default = load_config(CONFIG)
        assert configs["scale"] == configs["thresholds"] == default
        assert configs["distance"].preprocess.diameter_px is None
        assert default.preprocess.diameter_px is not None
        assert configs["boundary"].training.border_weight == 1
        assert configs["border-weight"].training.border_weight > 1
        off = configs["mask"].augmentation
        assert (off.flips, off.scale, off.noise) == (False, 1, 0)
        assert configs["augmentation"].augmentation == default.augmentation

    def test_gain_is_that_over_the_rung_below(self):
        images, labels = synthetic.draw_fields(6, (48, 64), seed=3)
        del images
        merged = (labels > 0).astype(np.int32)
        right, wrong = (
            Outcome(Contestant("x"), {}, match_instances(found, labels), 1.0, 1.0, [])
            for found in (labels, merged)
        )
        assert ladder.compare(None, right) is None
        gain = ladder.compare(wrong, right)
        value, low, high = gain["ap_50"]
        assert 0 < low <= value <= high <= 1
        assert gain["count_error"][0] < 0

    def test_figures_are_written_with_their_interval(self):
        assert write_figure([0.5, 0.4, 0.6]) == "0.500 [0.400, 0.600]"
        assert write_figure([0.5, None, None], signed=True) == "+0.500 [-, -]"


@pytest.mark.slow
@pytest.mark.beside
class TestOnLittle:
    def test_ours(self, folder):
        table, (row,) = run_benchmark("rivals", "--rivals", "--folder", folder, *LITTLE)
        assert table[0].startswith("8 images of drawn")
        assert table[-1].split()[0] == row["name"] == "ours"
        assert row["trained"]["steps"] >= 1
        assert row["images_per_s"] > 0
        assert 200 < row["peak_mb"] < 5000
        assert [one["half"] for one in row["thresholds"]] == ["half-a", "half-b"]

    def test_notebook(self, folder):
        words = ("--rivals", "notebook", "--folder", folder)
        table, rows = run_benchmark("rivals", *words, *LITTLE)
        assert [row["name"] for row in rows] == ["ours", "notebook"]
        assert len(table) == 4
        assert rows[1]["trained"]["parameters"] < rows[0]["trained"]["parameters"]

    @needs_stardist
    def test_stardist(self, folder):
        words = ("--rivals", "stardist", "--folder", folder)
        _, rows = run_benchmark("rivals", *words, *LITTLE)
        assert [row["name"] for row in rows] == ["ours", "stardist"]
        assert rows[1]["trained"]["steps"] == 1
        assert {"prob", "nms"} < set(rows[1]["thresholds"][0])

    def test_missing_stardist_is_one_line_and_2(self):
        if importlib.util.find_spec("stardist") is not None:
            pytest.skip("stardist is installed")
        answer = start_benchmark("rivals", *LITTLE)
        assert answer.returncode == 2
        (line,) = answer.stderr.splitlines()
        assert "pip install 'nucleiseg[rivals]'" in line

    def test_ladder(self, folder):
        words = ("--until", "augmentation", "--folder", folder)
        table, rows = run_benchmark("ladder", *words, *LITTLE)
        assert [row["name"] for row in rows] == ["mask", "augmentation"]
        assert len(table) == 4
        assert rows[0]["gain"] is None
        assert set(rows[1]["gain"]) >= {"ap_50", "count_error"}
        again = start_benchmark("ladder", *words, *LITTLE)
        assert again.stderr.count("kept in") == 2
