"""Checkpoints: whole or not there, and damage is found."""

import errno
import json
import os
import subprocess

import numpy as np
import pytest

from nucleiseg.errors import RunError
from nucleiseg.runs import TrainRun
from nucleiseg.training import checkpoints
from nucleiseg.training.checkpoints import (
    Checkpoint,
    load_newest,
    save_checkpoint,
)
from nucleiseg.training.circumstances import Circumstances
from nucleiseg.training.history import History

CIRCUMSTANCES = Circumstances(
    1, "cpu", "float32", 2, "2.21.0", "3.15.1", False, True, "a CPU"
)


def make(step, *, size=3):
    names = ("loss", "accuracy", "val_loss", "val_accuracy")
    row = {"epoch": 1.0, **dict.fromkeys(names, 1 / 3)}
    return Checkpoint(
        step=step,
        history=History([row]),
        sums=np.array([1 / 7, 2.0, step]),
        variables=[np.full(size, step, "float32"), np.array(step, "int64")],
        best=[np.full(size, 0.1, "float32")],
        circumstances=CIRCUMSTANCES,
    )


@pytest.fixture
def run(tmp_path):
    run = TrainRun(tmp_path)
    run.checkpoints.mkdir()
    return run


def names(run):
    return sorted(path.name for path in run.checkpoints.iterdir())


def test_it_comes_back_bit_for_bit(run):
    save_checkpoint(run, make(7))
    found = load_newest(run)
    assert (found.step, found.circumstances) == (7, CIRCUMSTANCES)
    assert found.history.rows == make(7).history.rows
    for ours, theirs in zip(
        [found.sums, *found.variables, *found.best],
        [make(7).sums, *make(7).variables, *make(7).best],
        strict=True,
    ):
        assert (ours.dtype, ours.tobytes()) == (theirs.dtype, theirs.tobytes())


def test_two_are_kept(run):
    for step in (1, 2, 30, 4000):
        save_checkpoint(run, make(step))
    assert names(run) == ["step-000000030", "step-000004000"]
    assert load_newest(run).step == 4000


def test_the_same_step_is_replaced(run):
    for size in (3, 4):
        save_checkpoint(run, make(5, size=size))
    assert names(run) == ["step-000000005"]
    assert load_newest(run).variables[0].size == 4


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def forge_a_digit(path):
    path.write_text(path.read_text().replace('"step": 20', '"step": 21'))


@pytest.mark.parametrize("name", ["variables.npz", "best.npz", "checkpoint.json"])
@pytest.mark.parametrize(
    "damage", [truncate, flip_a_bit, lambda path: path.write_bytes(b""), os.unlink]
)
def test_a_damaged_one_is_reported_and_the_one_before_is_used(
    run, caplog, name, damage
):
    for step in (10, 20):
        save_checkpoint(run, make(step))
    damage(run.checkpoint(20) / name)
    assert load_newest(run).step == 10
    assert "step-000000020 is damaged" in caplog.text
    assert name in caplog.text

    # It neither counts as one of those that are kept, nor is it ever used again.
    save_checkpoint(run, make(15))
    assert names(run) == ["step-000000010", "step-000000015"]


def test_a_changed_number_in_the_description_is_damage(run, caplog):
    for step in (10, 20):
        save_checkpoint(run, make(step))
    forge_a_digit(run.checkpoint(20) / "checkpoint.json")
    assert load_newest(run).step == 10
    assert "another SHA-256" in caplog.text


def test_when_all_are_damaged_nothing_is_trained_over(run):
    save_checkpoint(run, make(10))
    truncate(run.checkpoint(10) / "variables.npz")
    with pytest.raises(RunError, match=r"all checkpoints in .* are damaged"):
        load_newest(run)


def test_all_is_synced_before_the_rename_and_the_parent_after(run, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor):
        done.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def note_replace(source, destination):
        done.append(f"rename {os.path.basename(source)}")
        replace(source, destination)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    save_checkpoint(run, make(3))
    folder = done[-2].removeprefix("rename ")
    assert folder.endswith(".tmp.step-000000003")
    assert done == [
        *("best.npz", "checkpoint.json", "variables.npz"),
        *(folder, f"rename {folder}", "checkpoints"),
    ]


def test_what_a_killed_writer_left_goes(run):
    child = subprocess.Popen(["true"])
    child.wait()
    host = os.uname().nodename
    for name in (f".{host}-{child.pid}-0123abcd.tmp.step-000000001", ".other.tmp.x"):
        (run.checkpoints / name).mkdir()
        (run.checkpoints / name / "variables.npz").write_bytes(b"x")
    save_checkpoint(run, make(3))
    assert names(run) == [".other.tmp.x", "step-000000003"]


def test_a_full_disk_destroys_nothing(run, monkeypatch):
    save_checkpoint(run, make(1))
    original = checkpoints._write_arrays

    def fill(path, values):
        original(path, values)
        if path.name == "best.npz":
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints, "_write_arrays", fill)
    for step in (1, 2):
        with pytest.raises(OSError, match="No space left"):
            save_checkpoint(run, make(step))
        assert names(run) == ["step-000000001"]
        assert load_newest(run).step == 1


@pytest.fixture
def small_disk(tmp_path):
    """Give a file system of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs takes root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_really_full_destroys_nothing(small_disk):
    run = TrainRun(small_disk)
    run.checkpoints.mkdir()
    save_checkpoint(run, make(1, size=20_000))
    for size in (50_000, 300_000):
        with pytest.raises(OSError, match="No space left") as caught:
            save_checkpoint(run, make(2, size=4 * size))
        assert caught.value.errno == errno.ENOSPC
        assert names(run) == ["step-000000001"]
    assert load_newest(run).variables[0].size == 20_000
    save_checkpoint(run, make(2, size=20_000))
    assert load_newest(run).step == 2


def test_another_format_is_no_damage(run):
    save_checkpoint(run, make(1))
    path = run.checkpoint(1) / "checkpoint.json"
    body = {**json.loads(path.read_text()), "format": 99}
    del body["sha256"]
    path.write_text(json.dumps({"sha256": checkpoints._digest(body), **body}))
    with pytest.raises(RunError, match="has format 99, this version reads 1"):
        load_newest(run)


def test_one_of_an_earlier_version_says_less(run):
    save_checkpoint(run, make(1))
    path = run.checkpoint(1) / "checkpoint.json"
    body = json.loads(path.read_text())
    del body["sha256"]
    for name in ("xla", "deterministic", "model"):
        del body["circumstances"][name]
    path.write_text(json.dumps({"sha256": checkpoints._digest(body), **body}))
    found = load_newest(run).circumstances
    assert (found.xla, found.deterministic, found.model) == (None, None, None)
    assert found.threads == CIRCUMSTANCES.threads
