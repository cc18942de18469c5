import json
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from nucleiseg.bundle import read_bundle
from nucleiseg.cli import main
from nucleiseg.config import load_config
from nucleiseg.dataset import survey
from nucleiseg.errors import (
    ArchiveError,
    BundleError,
    ConfigError,
    RunError,
    StoppedError,
)
from nucleiseg.model import load_network
from nucleiseg.training import resolve_start, train
from nucleiseg.training.replicas import _largest_divisor, find_replicas
from tests.conftest import run_nucleiseg

SETTINGS = (
    "model.base_filters=2",
    "training.epochs=4",
    "training.batch_size=8",
    "training.keep=last",
)


def arguments(archive, folder, *settings):
    overrides = [f"data.archive={archive}", *SETTINGS, *settings]
    options = [part for setting in overrides for part in ("--set", setting)]
    config = folder.parent / "empty.yaml"
    config.write_text("")
    return ["train", config, "--run", folder, *options]


def configure(archive, *settings):
    return load_config(None, [f"data.archive={archive}", *SETTINGS, *settings])


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_two_replicas_train_a_model_that_one_device_loads(
    training_archive, tmp_path, precision
):
    answer = run_nucleiseg(
        *arguments(training_archive, tmp_path / "run", "training.replicas=2"),
        *("--set", "training.epochs=1", "--set", f"training.precision={precision}"),
    )
    assert answer.returncode == 0, answer.stderr
    assert "2 x cpu" in answer.stderr
    info = read_bundle(tmp_path / "run" / "model")
    assert info.training["config"]["replicas"] == 2
    # Whatever it was trained in, the model is stored for every device.
    network = load_network(info)
    assert {layer.compute_dtype for layer in network.layers} == {"float32"}
    assert all(np.isfinite(value).all() for value in network.get_weights())
    assert info.training["n_training"] == 48


@pytest.fixture(scope="module")
def finished(training_archive, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    config = configure(training_archive, "training.epochs=2")
    result = train(config, folder)
    assert not result.already_finished
    return folder


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def test_a_finished_training_does_nothing(training_archive, run):
    weights = (run / "model" / "model.keras").read_bytes()
    before = (run / "model" / "model.keras").stat().st_mtime_ns
    result = train(configure(training_archive, "training.epochs=2"), run)
    assert result.already_finished
    assert (run / "model" / "model.keras").stat().st_mtime_ns == before
    assert (run / "model" / "model.keras").read_bytes() == weights


def test_a_damaged_model_is_made_again(training_archive, run):
    weights = run / "model" / "model.keras"
    before = read_bundle(run / "model").scores
    weights.write_bytes(weights.read_bytes()[:1000])
    result = train(configure(training_archive, "training.epochs=2"), run)
    assert not result.already_finished
    assert read_bundle(run / "model").scores == before


def test_scoring_is_left_when_asked_and_done_by_the_next(training_archive, run):
    config = configure(training_archive, "training.epochs=2")
    scores = read_bundle(run / "model").scores
    shutil.rmtree(run / "model")
    asked = []
    with pytest.raises(StoppedError, match="while scoring the model of 2 epochs"):
        train(config, run, must_stop=lambda: not asked.append(1))
    # Of 16 crops, after the first batch.
    assert len(asked) == 1
    assert not (run / "model" / "bundle.json").exists()
    assert train(config, run).scores == scores


def test_who_only_scores_computes_as_who_trains(training_archive, run, monkeypatch):
    import tensorflow as tf

    switches, hidden = tf.config.experimental, []
    before = switches.tensor_float_32_execution_enabled()
    switches.enable_tensor_float_32_execution(True)
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda *_: hidden.append(_))
    shutil.rmtree(run / "model")
    try:
        settings = ("training.epochs=2", "training.device=cpu")
        train(configure(training_archive, *settings), run)
        assert not switches.tensor_float_32_execution_enabled()
        assert hidden == [([], "GPU")]
    finally:
        switches.enable_tensor_float_32_execution(before)


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
def test_a_signal_ends_the_pass_over_the_images(
    training_archive, tmp_path, monkeypatch, capsys, number
):
    original = survey.find_facts

    def interrupt(*args):
        os.kill(os.getpid(), number)
        return original(*args)

    monkeypatch.setattr(survey, "find_facts", interrupt)
    monkeypatch.setattr(survey, "_BYTES_AT_ONCE", 1)
    words = map(str, arguments(training_archive, tmp_path / "run"))
    assert main([*words]) == 130
    assert "stopped while passing over the images, as asked" in capsys.readouterr().err
    assert not [*(tmp_path / "run").rglob("survey-*.npz")]


def test_a_model_without_checkpoints_is_not_replaced(training_archive, run):
    shutil.rmtree(run / "checkpoints")
    weights = (run / "model" / "model.keras").read_bytes()
    with pytest.raises(RunError, match="no checkpoints to go on from"):
        train(configure(training_archive, "training.learning_rate=0.5"), run)
    assert (run / "model" / "model.keras").read_bytes() == weights


def test_gpus_that_were_granted_and_are_lost_refuse(training_archive, tmp_path):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "0"}
    answer = subprocess.run(
        [
            *(sys.executable, "-m", "nucleiseg"),
            *map(str, arguments(training_archive, tmp_path / "run")),
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if " x gpu" in answer.stderr:
        pytest.skip("this machine has a GPU")
    assert answer.returncode == 2
    assert "GPUs were granted, but TensorFlow sees no GPU" in answer.stderr


def test_gpus_share_a_batch_evenly():
    assert [_largest_divisor(16, at_most=n) for n in (1, 2, 3, 6, 8)] == [1, 2, 2, 4, 8]


def test_epochs_may_grow(training_archive, run):
    result = train(configure(training_archive, "training.epochs=3"), run)
    assert result.history.epochs == 3
    assert read_bundle(run / "model").training["epochs"] == 3


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("training.learning_rate=0.5", "learning_rate was 0.001 and is now 0.5"),
        ("model.base_filters=3", "model.base_filters was 2 and is now 3"),
        ("training.epochs=1", "it may only grow"),
        ("preprocess.normalisation=none", "normalisation was 'percentile'"),
    ],
)
def test_a_changed_configuration_is_refused(training_archive, run, setting, words):
    with pytest.raises(RunError, match="use another --run") as caught:
        train(configure(training_archive, "training.epochs=2", setting), run)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_changed_data_are_refused(training_archive, run, tmp_path):
    copy = shutil.copy(training_archive, tmp_path / "train.npz")
    manifest = json.loads((run / "manifest.json").read_text())
    assert len(manifest["data_fingerprint"]) == 32
    os.utime(copy, ns=(0, 0))
    with pytest.raises(RunError, match=r"data\.archive was"):
        train(configure(copy, "training.epochs=2"), run)
    manifest["data_fingerprint"] = "0" * 32
    (run / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError, match="has changed since training"):
        train(configure(training_archive, "training.epochs=2"), run)


def test_best_weights_are_those_of_the_lowest_validation_loss(
    training_archive, tmp_path
):
    config = configure(
        training_archive, "training.keep=best", "training.learning_rate=0.05"
    )
    result = train(config, tmp_path / "best")
    losses = [row["val_loss"] for row in result.history.rows]
    assert result.history.best_epoch == 1 + int(np.argmin(losses))
    assert result.scores["best_epoch"] == result.history.best_epoch


def test_divergence_stops_the_run_and_is_named(training_archive, tmp_path):
    answer = run_nucleiseg(
        *arguments(training_archive, tmp_path / "run", "training.optimizer=rmsprop"),
        *("--set", "training.learning_rate=3e38"),
    )
    assert answer.returncode == 2
    assert "training has diverged" in answer.stderr
    # The first step is taken from what is finite.
    assert re.search(
        r"(loss|gradient|weight) is not finite \w+ step [12] ", answer.stderr
    )
    assert "Traceback" not in answer.stderr


def test_a_refused_start_leaves_nothing_that_binds(training_archive, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(ConfigError, match="shared evenly"):
        train(configure(training_archive, "training.replicas=3"), folder)
    result = train(configure(training_archive, "training.epochs=1"), folder)
    assert result.history.epochs == 1


@pytest.mark.parametrize("name", ["config.yaml", "manifest.json", "history.csv"])
def test_files_that_no_training_made_are_not_overwritten(
    training_archive, tmp_path, name
):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("{}")
    with pytest.raises(RunError, match="is no training's directory") as caught:
        train(configure(training_archive), tmp_path / "run")
    assert name in str(caught.value)
    assert (tmp_path / "run" / name).read_text() == "{}"


def test_a_batch_must_be_shared_evenly():
    with pytest.raises(ConfigError, match="cannot be shared evenly by 3 replicas"):
        find_replicas(3, batch_size=16)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"X": np.ones((9, 32, 32)), "y": np.ones((8, 32, 32))}, "must be the same"),
        ({"X": np.ones((9, 30, 32)), "y": np.ones((9, 30, 32))}, "multiples of 16"),
        ({"X": np.ones((9, 32, 32)), "y": np.zeros((9, 32, 32))}, "holds no nucleus"),
        ({"X": np.ones((1, 32, 32)), "y": np.ones((1, 32, 32))}, "too few to split"),
        ({"X": np.ones((9, 32, 32))}, "no dataset matches y"),
        ({"X": np.full((9, 32, 32), np.nan), "y": np.ones((9, 32, 32))}, "image 0"),
    ],
)
def test_unfit_labelled_archives_are_refused(tmp_path, arrays, words):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ArchiveError, match=words) as caught:
        train(configure(tmp_path / "a.npz"), tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_without_an_archive_the_key_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.archive is not set"):
        train(load_config(None), tmp_path / "run")


QUICK = ("training.epochs=1", "training.batch_size=16", "training.learning_rate=1e-4")


def test_training_that_starts_from_a_model_goes_on_learning(
    training_archive, finished, tmp_path
):
    start = f"training.start_from={finished / 'model'}"
    before = read_bundle(finished / "model")
    config = resolve_start(
        load_config(None, [f"data.archive={training_archive}", start, *QUICK])
    )
    # Network and normalisation are the model's.
    assert config.model == before.model
    assert config.preprocess == before.preprocess
    result = train(config, tmp_path / "tuned")
    history = [float(row["val_loss"]) for row in result.history.rows]
    assert history[0] < before.scores["history"]["val_loss"] * 1.05
    again = train(config, tmp_path / "tuned")
    assert again.already_finished


def test_training_does_not_start_from_another_network(training_archive, finished):
    with pytest.raises(BundleError, match=r"model\.base_filters is 3 .* which has 2"):
        resolve_start(
            load_config(
                None,
                [f"training.start_from={finished / 'model'}", "model.base_filters=3"],
            )
        )
