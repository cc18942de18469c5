"""The model bundle: what it keeps, and every way it can be unfit."""

import json

import pytest

from nucleiseg import __version__
from nucleiseg.bundle import (
    file_sha256,
    read_bundle,
    resolve_for_counting,
    resolve_for_training,
)
from nucleiseg.config import Config
from nucleiseg.errors import BundleError, ConfigError
from nucleiseg.quality import Calibration
from nucleiseg.runs import Bundle

TRAINED = Config.model_validate(
    {
        "preprocess": {"low_percentile": 2.0},
        "model": {"base_filters": 8},
        "instances": {"threshold": 0.4, "min_area_px": 12},
        "training": {"epochs": 7},
    }
)


@pytest.fixture
def bundle(make_bundle):
    """Paths of a whole bundle, to be damaged."""
    return make_bundle(TRAINED).paths


def refuse(folder):
    with pytest.raises(BundleError) as caught:
        read_bundle(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def change_info(bundle, **values):
    content = json.loads(bundle.info.read_text())
    content.update(values)
    bundle.info.write_text(
        json.dumps({key: value for key, value in content.items() if value is not ...})
    )


class TestReadBundle:
    def test_keeps_what_the_network_needs(self, bundle):
        info = read_bundle(bundle.root)
        assert info.preprocess == TRAINED.preprocess
        assert info.model == TRAINED.model
        assert info.instances == TRAINED.instances
        assert info.training == {"epochs": 3}
        assert info.scores == {"MAE": 1.5}
        assert info.paths == Bundle(bundle.root)
        assert info.weights_sha256 == file_sha256(bundle.weights)
        assert json.loads(bundle.info.read_text())["nucleiseg"] == __version__

    def test_calibration_is_kept_where_there_is_one(self, bundle):
        assert read_bundle(bundle.root).calibration is None
        calibration = Calibration((0.2, 0.7), (0.4, 0.95), (14.0, 40.0))
        change_info(bundle, calibration=calibration.as_dict())
        assert read_bundle(bundle.root).calibration == calibration

    @pytest.mark.parametrize(
        "values",
        [
            {"scores": [0.2]},
            {"scores": [0.2], "shares": ["high"], "diameters_px": None},
            {"scores": [0.2], "shares": [2], "diameters_px": None},
            {"scores": [0.2], "shares": [0.5], "diameters_px": [3]},
            [0.2, 0.5],
        ],
    )
    def test_damaged_calibration(self, bundle, values):
        change_info(bundle, calibration=values)
        assert f"{bundle.info} is damaged" in refuse(bundle.root)

    def test_sha_is_that_of_the_content(self, tmp_path):
        (tmp_path / "abc").write_bytes(b"abc")
        known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        assert file_sha256(tmp_path / "abc") == known

    def test_may_be_moved(self, bundle, tmp_path):
        before = read_bundle(bundle.root).identity
        bundle.root.rename(tmp_path / "elsewhere")
        assert read_bundle(tmp_path / "elsewhere").identity == before

    def test_missing_folder(self, tmp_path):
        message = refuse(tmp_path / "modle")
        assert f"model bundle {tmp_path / 'modle'} not found" in message
        assert "--model takes the folder 'model'" in message

    def test_run_directory_instead_of_its_model(self, make_bundle, tmp_path):
        make_bundle(name="run/model")
        message = refuse(tmp_path / "run")
        assert "is a training's run directory" in message
        assert message.endswith(f"use --model {tmp_path / 'run' / 'model'}")

    def test_missing_weights(self, bundle):
        bundle.weights.unlink()
        assert "has no model.keras (its weights)" in refuse(bundle.root)

    def test_missing_description(self, bundle):
        bundle.info.unlink()
        assert "has no bundle.json (its description)" in refuse(bundle.root)

    def test_empty_folder(self, tmp_path):
        (tmp_path / "empty").mkdir()
        assert "has no model.keras" in refuse(tmp_path / "empty")

    @pytest.mark.parametrize("content", [b"", b'{"format": 1', b"[]", b"3", b"\xff"])
    def test_damaged_description(self, bundle, content):
        bundle.info.write_bytes(content)
        message = refuse(bundle.root)
        assert f"{bundle.info} is damaged" in message
        assert "train anew" in message

    @pytest.mark.parametrize(
        "key",
        ["preprocess", "model", "instances", "weights_sha256", "training", "scores"],
    )
    def test_description_without_a_part_names_it(self, bundle, key):
        change_info(bundle, **{key: ...})
        assert f"is damaged ('{key}')" in refuse(bundle.root)

    @pytest.mark.parametrize(
        ("section", "value", "named"),
        [
            ("preprocess", {"low_percentile": "1"}, "low_percentile"),
            ("model", {"base_filters": 0}, "base_filters"),
            ("instances", {"min_radius": 3}, "min_radius"),
            ("instances", None, "InstancesConfig"),
        ],
    )
    def test_description_with_an_unknown_value_names_it(
        self, bundle, section, value, named
    ):
        change_info(bundle, **{section: value})
        message = refuse(bundle.root)
        assert "is damaged" in message
        assert named in message

    @pytest.mark.parametrize("found", [0, 2, "1", None])
    def test_unknown_format(self, bundle, found):
        change_info(bundle, format=found)
        message = refuse(bundle.root)
        assert f"has format {found!r}, this version reads 1" in message

    def test_format_is_told_before_what_it_changed(self, bundle):
        change_info(bundle, format=2, preprocess={"new": 1})
        assert "has format 2" in refuse(bundle.root)

    @pytest.mark.parametrize("weights", [b"", b"weightz"])
    def test_damaged_weights(self, bundle, weights):
        expected = file_sha256(bundle.weights)
        bundle.weights.write_bytes(weights)
        message = refuse(bundle.root)
        assert f"{bundle.weights} is damaged" in message
        assert expected[:12] in message
        assert file_sha256(bundle.weights)[:12] in message

    def test_sum_that_is_no_text(self, bundle):
        change_info(bundle, weights_sha256=None)
        assert "is damaged" in refuse(bundle.root)


class TestIdentity:
    def test_same_for_the_same_content(self, make_bundle):
        one, other = (
            make_bundle(TRAINED, name="one"),
            make_bundle(TRAINED, name="other"),
        )
        assert one.identity == other.identity

    @pytest.mark.parametrize(
        "change",
        [
            {"weights": b"others"},
            {"config": {"preprocess": {"low_percentile": 3.0}}},
            {"config": {"preprocess": {"normalisation": "none"}}},
            {"config": {"model": {"dropout": 0.1}}},
        ],
    )
    def test_changes_with(self, make_bundle, change):
        if "config" in change:
            change = {"config": Config.model_validate(change["config"])}
        before = make_bundle(Config(), name="one").identity
        assert make_bundle(**change, name="other").identity != before

    def test_not_with_thresholds_or_training(self, make_bundle):
        # Thresholds may be overridden: the plan holds those that were used.
        other = Config.model_validate(
            {"instances": {"threshold": 0.3}, "training": {"epochs": 1}}
        )
        one = make_bundle(Config(), name="one")
        assert make_bundle(other, name="other").identity == one.identity


class TestResolveForCounting:
    def resolve(self, make_bundle, **sections):
        config = Config.model_validate(sections)
        return resolve_for_counting(config, make_bundle(TRAINED))

    def test_all_of_the_bundle_is_taken(self, make_bundle):
        config = self.resolve(make_bundle)
        assert config.preprocess == TRAINED.preprocess
        assert config.model == TRAINED.model
        assert config.instances == TRAINED.instances

    def test_nothing_else_is(self, make_bundle):
        config = self.resolve(make_bundle, inference={"tile_px": 256})
        assert config.inference.tile_px == 256
        assert config.training == Config().training != TRAINED.training

    @pytest.mark.parametrize(("wanted", "said"), [({}, 1), ({"views": 2}, 0)])
    def test_a_training_says_that_it_takes_views_over(
        self, make_bundle, caplog, wanted, said
    ):
        caplog.set_level("INFO", logger="nucleiseg")
        viewed = TRAINED.model_copy(
            update={"instances": TRAINED.instances.model_copy(update={"views": 4})}
        )
        config = Config.model_validate({"instances": wanted})
        resolved = resolve_for_training(config, make_bundle(viewed))
        assert resolved.instances.views == wanted.get("views", 4)
        assert caplog.text.count("mean over 4 views") == said

    def test_explicit_thresholds_win_one_by_one(self, make_bundle):
        config = self.resolve(make_bundle, instances={"threshold": 0.6})
        assert config.instances.threshold == 0.6
        assert config.instances.min_area_px == 12

    def test_explicit_default_wins_too(self, make_bundle):
        config = self.resolve(make_bundle, instances={"min_area_px": 0})
        assert config.instances.min_area_px == 0

    @pytest.mark.parametrize(
        ("section", "key", "wanted", "kept"),
        [
            ("preprocess", "low_percentile", 1.0, 2.0),
            ("preprocess", "normalisation", "none", "percentile"),
        ],
    )
    def test_conflict_names_both_values(
        self, make_bundle, tmp_path, section, key, wanted, kept
    ):
        with pytest.raises(BundleError) as caught:
            self.resolve(make_bundle, **{section: {key: wanted}})
        message = str(caught.value)
        assert f"{section}.{key} is {wanted!r} in the configuration" in message
        assert f"{tmp_path / 'bundle'} was trained with {kept!r}" in message

    def test_another_network_is_not_used_and_that_is_said(self, make_bundle, caplog):
        config = self.resolve(make_bundle, model={"base_filters": 64})
        assert config.model == TRAINED.model
        assert "model.base_filters in the configuration is not used" in caplog.text

    def test_equal_values_are_accepted(self, make_bundle):
        config = self.resolve(
            make_bundle,
            preprocess={"low_percentile": 2.0, "normalisation": "percentile"},
            model={"base_filters": 8},
        )
        assert config.preprocess == TRAINED.preprocess

    def test_watershed_without_a_marker_map_is_refused(self, make_bundle):
        mask = Config.model_validate({"model": {"head": "mask"}})
        wanted = Config.model_validate({"instances": {"method": "watershed"}})
        with pytest.raises(ConfigError, match=r"watershed, .* \(model.head mask\)"):
            resolve_for_counting(wanted, make_bundle(mask))
        for method in ("auto", "components"):
            config = Config.model_validate({"instances": {"method": method}})
            assert resolve_for_counting(config, make_bundle(mask))
        # What the configuration says of the network does not matter: the bundle's does.
        other = Config.model_validate({**wanted.model_dump(), "model": mask.model})
        found = resolve_for_counting(other, make_bundle(Config()))
        assert found.instances.method == "watershed"

    def test_resolved_one_resolves_to_itself(self, make_bundle):
        # A run's own config.yaml, where every value is explicit, may be used again.
        once = self.resolve(make_bundle, instances={"threshold": 0.6})
        again = self.resolve(make_bundle, **once.model_dump())
        assert again == once
