"""Events: each epoch once, whatever happened, and TensorBoard reads them."""

import errno

import pandas as pd
import pytest
import tensorflow as tf

from nucleiseg.runs import TrainRun
from nucleiseg.training.events import Events
from nucleiseg.training.history import History

HEADER = "epoch,ended,images,seconds,images_per_s,validation_s,checkpoint_s\n"
TAGS = ["loss", "accuracy", "val_loss", "val_accuracy"]


def make_history(n_epochs):
    return History(
        [
            {"epoch": float(epoch), **dict.fromkeys(TAGS, epoch / 8)}
            for epoch in range(1, n_epochs + 1)
        ]
    )


def note_rates(run, *epochs):
    lines = [
        f"{epoch},2026-01-0{epoch}T00:00:00+00:00,9,1.0,{10 * epoch},0.1,0.1\n"
        for epoch in epochs
    ]
    run.rates.write_text(HEADER + "".join(lines))


def read(run):
    """Read the figures of each step, of all files."""
    found = []
    for path in sorted(run.tensorboard.iterdir()):
        for number, record in enumerate(tf.data.TFRecordDataset(str(path))):
            event = tf.compat.v1.Event.FromString(record.numpy())
            if number == 0:
                assert event.file_version == "brain.Event:2"
                continue
            figures = {value.tag: value.simple_value for value in event.summary.value}
            found.append((event.step, event.wall_time, figures))
    return found


@pytest.fixture
def run(tmp_path):
    return TrainRun(tmp_path)


def test_each_epoch_has_its_figures_and_time(run):
    events = Events(run)
    for epoch in (1, 2):
        note_rates(run, *range(1, epoch + 1))
        events.add(make_history(epoch))
    # Before the process ends, too.
    first, second = read(run)
    expected = {**dict.fromkeys(TAGS, 0.25), "images_per_s": 20.0}
    assert (first[0], second[0], second[2]) == (1, 2, expected)
    assert second[1] == pd.Timestamp("2026-01-02", tz="UTC").timestamp()
    events.close()


def test_who_goes_on_has_no_epoch_twice_and_none_missing(run):
    """Killed after the checkpoint of epoch 3, and before; after epoch 4 went bad."""
    note_rates(run, 1, 2)
    for n_epochs in (2, 4, 3):
        events = Events(run)
        events.add(make_history(n_epochs))
        events.close()
        assert [step for step, _, _ in read(run)] == [*range(1, n_epochs + 1)]
    # What is not known of an epoch is left out.
    assert "images_per_s" not in read(run)[2][2]


def test_a_full_disk_is_named_and_gone_on_from(run):
    events = Events(run)
    events.add(make_history(1))

    def fill(record):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    full = type("Full", (), {"write": staticmethod(fill), "close": lambda self: None})
    events.close()
    events._writer = full()
    with pytest.raises(OSError, match="No space left") as caught:
        events.add(make_history(2))
    assert caught.value.errno == errno.ENOSPC
    events.add(make_history(3))
    assert [step for step, _, _ in read(run)] == [1, 2, 3]


def test_tensorboard_reads_them(run):
    reason = "TensorBoard is not installed: pip install 'nucleiseg[tensorboard]'"
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason=reason
    )
    note_rates(run, 1, 2, 3)
    for n_epochs in (2, 3):
        events = Events(run)
        events.add(make_history(n_epochs))
        events.close()
    found = accumulator.EventAccumulator(str(run.tensorboard)).Reload()
    assert sorted(found.Tags()["scalars"]) == sorted([*TAGS, "images_per_s"])
    for tag in TAGS:
        assert [(one.step, one.value) for one in found.Scalars(tag)] == [
            (1, 0.125),
            (2, 0.25),
            (3, 0.375),
        ]
