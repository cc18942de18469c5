"""Interrupted at any step and gone on with: the same bits as without."""

import dataclasses
import errno
import logging
import os
import random
import signal

import numpy as np
import pytest
import tensorflow as tf

from jobs.benchmark import resume
from nucleiseg import synthetic
from nucleiseg.cli import main
from nucleiseg.config import load_config
from nucleiseg.errors import RunError, StoppedError
from nucleiseg.runs import TrainRun
from nucleiseg.training import circumstances, fit, loop, train
from nucleiseg.training.checkpoints import load_newest
from nucleiseg.training.circumstances import Circumstances, compare_circumstances

N_IMAGES = 36  # 27 to train on: six batches of 4 and one of 3
N_STEPS = 7

RECIPES = {
    "all-of-it": [
        "training.optimizer=adamw",
        "training.schedule=cosine",
        "training.warmup_steps=3",
        "training.clip_norm=0.5",
        "training.ema_decay=0.9",
        "training.precision=bfloat16",
        "training.early_stopping_epochs=2",
    ],
    "float16": ["training.optimizer=rmsprop", "training.precision=float16"],
}


@pytest.fixture(autouse=True)
def _no_model(monkeypatch):
    """Train, and leave out what is done with the weights afterwards, which is slow."""
    monkeypatch.setattr(fit, "finish", lambda *_: {"validation": {}})
    monkeypatch.setattr(fit, "write_so_far", lambda *_: None)


@pytest.fixture(autouse=True)
def _steps_only(monkeypatch):
    """Let wishes to stop be counted from the first step on."""
    original = fit.open_labelled
    monkeypatch.setattr(fit, "open_labelled", lambda *args, **_: original(*args))


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("resume") / "train.npz"
    images, labels = synthetic.draw_fields(N_IMAGES, (32, 32), seed=5)
    np.savez_compressed(path, X=images, y=(labels > 0).astype("uint8"))
    return path


@pytest.fixture
def configure(archive):
    def configure(*settings):
        base = [
            f"data.archive={archive}",
            "model.base_filters=1",
            "training.epochs=2",
            "training.batch_size=4",
            "training.precision=float32",
        ]
        return load_config(None, [*base, *settings])

    return configure


def after(n_questions):
    """Give a wish to stop that comes when it has been asked about so often."""
    asked = []

    def must_stop():
        asked.append(1)
        return len(asked) > n_questions

    return must_stop


def bits(folder):
    """All that a training ends with."""
    last = load_newest(TrainRun(folder))
    arrays = [*last.variables, *last.best, last.sums]
    table = (folder / "history.csv").read_bytes()
    return last.step, [array.tobytes() for array in arrays], table


@pytest.mark.parametrize("recipe", RECIPES)
def test_stopped_anywhere_it_ends_as_an_undisturbed_one(configure, tmp_path, recipe):
    config = configure(*RECIPES[recipe])
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(config, whole)

    # In the middle of the first epoch, then in the middle of its validation.
    steps = []
    for n_questions in (3, 6):
        with pytest.raises(StoppedError, match="stopped after epoch"):
            train(config, stopped, must_stop=after(n_questions))
        steps.append(load_newest(TrainRun(stopped)).step)
    assert steps == [3, 7]
    train(config, stopped)
    assert bits(stopped) == bits(whole)


@pytest.mark.slow
@pytest.mark.beside
@pytest.mark.parametrize(("replicas", "precision"), [(1, "float32"), (2, "bfloat16")])
def test_killed_anywhere_it_ends_as_an_undisturbed_one(tmp_path, replicas, precision):
    # In small; at length it is `python -m jobs.benchmark resume`.
    outcome = resume.kill_again_and_again(
        tmp_path / "runs",
        resume.draw_archive(tmp_path),
        replicas=replicas,
        precision=precision,
        n_kills=2,
        rng=random.Random(replicas),
    )
    assert outcome.n_killed == 2
    assert outcome.n_aimed == 1
    assert outcome.is_identical


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
def test_a_signal_ends_it_after_the_step(
    configure, tmp_path, monkeypatch, capsys, number
):
    original = loop.Machine.train

    def interrupt(machine, sums, step, batch):
        if step == 3:
            os.kill(os.getpid(), number)
        return original(machine, sums, step, batch)

    monkeypatch.setattr(loop.Machine, "train", interrupt)
    (tmp_path / "train.yaml").write_text(configure().to_yaml())
    folder = tmp_path / "run"
    assert main(["train", str(tmp_path / "train.yaml"), "--run", str(folder)]) == 130
    assert "stopped after epoch 0 of 2 and 4 steps, as asked" in capsys.readouterr().err
    assert load_newest(TrainRun(folder)).step == 4


def test_without_the_sums_of_the_epoch_the_history_would_differ(
    configure, tmp_path, monkeypatch
):
    config = configure("training.epochs=1")
    train(config, tmp_path / "whole")
    with pytest.raises(StoppedError):
        train(config, tmp_path / "stopped", must_stop=after(3))
    original = loop.Sums.start
    monkeypatch.setattr(loop.Sums, "start", lambda values=None: original())
    train(config, tmp_path / "stopped")
    ours, theirs = bits(tmp_path / "stopped"), bits(tmp_path / "whole")
    assert ours[2] != theirs[2]


def test_it_says_where_it_stopped_and_where_it_goes_on(configure, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    with pytest.raises(
        StoppedError, match="after epoch 1 of 2 and 2 steps, as asked; the same"
    ):
        # A question before each step, before and in validation.
        train(configure(), tmp_path, must_stop=after(N_STEPS + 1 + 3 + 2))
    caplog.clear()
    train(configure(), tmp_path)
    assert f"going on after step {N_STEPS + 2}, 1 of 2 epochs done" in caplog.text


def test_checkpoints_are_written_in_the_middle_of_an_epoch(
    configure, tmp_path, monkeypatch
):
    saved = []
    original = loop.save_checkpoint

    def note(run, checkpoint):
        saved.append((checkpoint.step, checkpoint.history.epochs))
        original(run, checkpoint)

    monkeypatch.setattr(loop, "save_checkpoint", note)
    train(configure("training.epochs=1", "training.checkpoint_min=1e-9"), tmp_path)
    assert saved == [*((step, 0) for step in range(1, 8)), (7, 1)]

    # When and how fast is no part of the history.
    header, line = (tmp_path / "rates.csv").read_text().splitlines()
    assert header == "epoch,ended,images,seconds,images_per_s,validation_s,checkpoint_s"
    assert line.split(",")[0::2][:2] == ["1", "27"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        # Two replicas cannot be had in a process that has begun with one.
        ({"replicas": 2}, "replicas were 1 and are now 2"),
        ({"model": "Abacus"}, "and is now Abacus"),
        ({"deterministic": True}, "training.deterministic was False and is now True"),
    ],
)
def test_other_circumstances_are_said(
    configure, tmp_path, caplog, monkeypatch, change, words
):
    with pytest.raises(StoppedError):
        train(configure(), tmp_path, must_stop=after(2))
    find = fit.find_circumstances

    def pretend(config, replicas):
        return dataclasses.replace(find(config, replicas), **change)

    monkeypatch.setattr(fit, "find_circumstances", pretend)
    with pytest.raises(StoppedError):
        train(configure(), tmp_path, must_stop=after(1))
    assert words in caplog.text
    assert "no longer bit for bit" in caplog.text


def test_xla_switched_on_on_the_way_is_said(configure, tmp_path, caplog):
    with pytest.raises(StoppedError):
        train(configure(), tmp_path, must_stop=after(2))
    with pytest.raises(StoppedError):
        train(configure(), tmp_path, must_stop=after(1))
    assert "no longer bit for bit" not in caplog.text
    with pytest.raises(StoppedError):
        train(configure("training.xla=true"), tmp_path, must_stop=after(1))
    assert "training.xla was False and is now True" in caplog.text


def test_what_was_not_noted_is_no_change(tmp_path, caplog):
    before = Circumstances(1, "cpu", "float32", 2, "2.21.0", "3.15.1")
    now = dataclasses.replace(before, xla=True, deterministic=True, model="Abacus")
    compare_circumstances(before, now, TrainRun(tmp_path))
    assert not caplog.records


def test_another_precision_is_refused(configure, tmp_path):
    with pytest.raises(StoppedError):
        train(configure("training.precision=auto"), tmp_path, must_stop=after(1))
    state = load_newest(TrainRun(tmp_path))
    other = {"float32": "bfloat16", "bfloat16": "float16"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            circumstances,
            "find_precision",
            lambda *_: other[state.circumstances.precision],
        )
        with pytest.raises(RunError, match=r"set training\.precision="):
            train(configure("training.precision=auto"), tmp_path)


def test_an_edited_split_file_is_refused_once_there_is_a_state(configure, tmp_path):
    file, run = tmp_path / "split.csv", tmp_path / "run"
    rows = [f"training,{number}" for number in range(8)]
    file.write_text("\n".join(["part,index", *rows, "validation,20"]) + "\n")
    config = configure(f"data.split_file={file}", "training.epochs=1")
    with pytest.raises(StoppedError):
        train(config, run, must_stop=after(1))
    whole = file.read_text()
    file.write_text(whole.replace("validation,20", "validation,21"))
    with pytest.raises(RunError, match=r"split\.csv has changed since training"):
        train(config, run)
    file.write_text(whole)
    train(config, run)
    file.unlink()
    assert train(config, run).history.epochs == 1


def test_under_a_schedule_epochs_may_not_grow(configure, tmp_path):
    train(configure("training.epochs=1", "training.schedule=cosine"), tmp_path)
    with pytest.raises(RunError, match="schedule cosine depends on it"):
        train(configure("training.epochs=2", "training.schedule=cosine"), tmp_path)


def test_early_stopping_ends_the_run_for_good(configure, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    settings = [
        "training.epochs=9",
        "training.early_stopping_epochs=1",
        "training.learning_rate=0.1",
    ]
    result = train(configure(*settings), tmp_path)
    losses = [row["val_loss"] for row in result.history.rows]
    assert 1 < len(losses) < 9
    assert losses[-1] >= losses[-2]
    assert "stopped early" in caplog.text
    # Nor do more epochs wake it.
    settings[0] = "training.epochs=10"
    assert train(configure(*settings), tmp_path).history.epochs == len(losses)


def test_divergence_keeps_the_last_good_state(configure, tmp_path, monkeypatch):
    original = loop.Machine.train

    def spoil(machine, sums, step, batch):
        if step == 9:
            images, masks, weights = batch
            batch = (images * np.float32("nan"), masks, weights)
        return original(machine, sums, step, batch)

    monkeypatch.setattr(loop.Machine, "train", spoil)
    config = configure("training.checkpoint_min=1e-9")
    # A fused ReLU makes 0 of NaN: on some CPUs the gradient is the first to show it.
    words = "(loss|gradient) is not finite in step 10 "
    with pytest.raises(RunError, match=words) as caught:
        train(config, tmp_path)
    assert "training has diverged" in str(caught.value)
    assert "step 9, is kept" in str(caught.value)
    state = load_newest(TrainRun(tmp_path))
    assert state.step == 9
    assert all(np.isfinite(value).all() for value in state.variables)


def test_a_full_disk_stops_no_training(configure, tmp_path, monkeypatch, caplog):
    whole, full = tmp_path / "whole", tmp_path / "full"
    train(configure(), whole)
    original = loop.save_checkpoint

    def fill(run, checkpoint):
        if N_STEPS < checkpoint.step < 2 * N_STEPS:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(run, checkpoint)

    monkeypatch.setattr(loop, "save_checkpoint", fill)
    # Stopped while it is full, it goes on from the last one that was written.
    with pytest.raises(StoppedError, match="from step 7, the disk being full"):
        train(configure(), full, must_stop=after(N_STEPS + 6))
    assert "no checkpoint of step 9" in caplog.text
    assert "make room" in caplog.text
    train(configure(), full)
    assert bits(full) == bits(whole)


def test_events_of_a_resumed_training_are_those_of_an_undisturbed_one(
    configure, tmp_path
):
    config = configure("training.tensorboard=true", "training.epochs=3")
    # In the second epoch; then while there is nothing left to train.
    with pytest.raises(StoppedError):
        train(config, tmp_path, must_stop=after(N_STEPS + 1 + 3 + 2))
    for _ in range(2):
        train(config, tmp_path)
        (file,) = (tmp_path / "tensorboard").iterdir()
        found = [
            tf.compat.v1.Event.FromString(record.numpy())
            for record in tf.data.TFRecordDataset(str(file))
        ]
        assert [event.step for event in found[1:]] == [1, 2, 3]
        assert found[3].summary.value[-1].tag == "images_per_s"


def test_xla_trains_alike(configure, tmp_path):
    for name in ("true", "false"):
        config = configure(f"training.xla={name}", "training.epochs=1")
        train(config, tmp_path / name)
    ours, theirs = (
        load_newest(TrainRun(tmp_path / name)).history.rows[0]
        for name in ("true", "false")
    )
    # Dropout has one state, but XLA draws in its own order.
    assert ours["val_loss"] == pytest.approx(theirs["val_loss"], rel=0.01)
