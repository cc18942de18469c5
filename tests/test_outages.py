"""A file system that is away for a while fails no image; a bad sector does."""

import errno
import os

import numpy as np
import pytest

from nucleiseg import synthetic
from nucleiseg.archives.npz_reader import NpzReader
from nucleiseg.config import PreprocessConfig, load_config
from nucleiseg.counting import count, prepare, reset_failures
from nucleiseg.errors import ArchiveError, IncompleteError
from nucleiseg.inference.outages import refuse_outage
from nucleiseg.inference.scales import Scales
from nucleiseg.runs import CountRun
from nucleiseg.shards import DatasetShare, read_plan

BLOCKS = (
    "inference.tile_px=128",
    "inference.context_px=32",
    "shards.block_pixels=40000",
)


@pytest.fixture(autouse=True)
def _no_power_cuts(monkeypatch):
    monkeypatch.setattr("nucleiseg.atomic._sync", lambda path: None)


@pytest.fixture
def fail(monkeypatch):
    """Have reading fail in the operating system, until it is set to None."""
    failing = {"number": None}

    def wrap(name):
        read = getattr(NpzReader, name)

        def read_or_fail(self, *arguments):
            number = failing["number"]
            if number is not None:
                raise OSError(number, os.strerror(number))
            return read(self, *arguments)

        monkeypatch.setattr(NpzReader, name, read_or_fail)

    wrap("_read_block")
    wrap("_read_region")

    def fail(number):
        failing["number"] = number

    return fail


@pytest.fixture(params=["images", "blocks"])
def work(request, tmp_path, model):
    """A command to count, of images or of blocks of a large one."""
    shape, settings = ((64, 64), ()) if request.param == "images" else (None, BLOCKS)
    images, _ = synthetic.draw_fields(2, shape or (300, 260), seed=5)
    np.savez(tmp_path / "a.npz", X=images)
    prepared = prepare(
        [str(tmp_path / "a.npz")], model, load_config(None, list(settings))
    )

    def work(name="run"):
        return count(prepared, tmp_path / name, workers=0)

    return work


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EACCES])
def test_images_are_counted_when_it_is_back(work, fail, tmp_path, number):
    work("undisturbed")
    fail(number)
    with pytest.raises(IncompleteError, match=os.strerror(number)):
        work()
    run = CountRun(tmp_path / "run")
    assert not list(run.parts.iterdir())
    assert not list(run.ranges.glob("*")) or not run.ranges.exists()
    fail(None)
    assert work().merged.n_failed == 0
    expected = (tmp_path / "undisturbed" / "counts.csv").read_bytes()
    assert run.table("csv").read_bytes() == expected


def test_a_bad_sector_fails_images_and_retry_reads_them_again(work, fail, tmp_path):
    work("undisturbed")
    fail(errno.EIO)
    merged = work().merged
    assert merged.n_failed == 2
    assert "Input/output error" in merged.failures[0]
    run = CountRun(tmp_path / "run")
    fail(None)
    assert reset_failures(run, read_plan(run.plan)).n_images == 2
    assert work().merged.n_failed == 0
    expected = (tmp_path / "undisturbed" / "counts.csv").read_bytes()
    assert run.table("csv").read_bytes() == expected


def make_error(number):
    error = ArchiveError("a.npz:X: image 3 cannot be read")
    error.__cause__ = None if number is None else OSError(number, os.strerror(number))
    return error


@pytest.mark.parametrize(
    ("number", "of_file", "is_outage"),
    [
        (errno.ESTALE, False, True),
        (errno.EIO, False, False),
        (errno.EIO, True, True),
        (0, False, False),
        (None, True, False),
    ],
)
def test_what_an_outage_is(number, of_file, is_outage):
    error = make_error(number)
    if is_outage:
        with pytest.raises(IncompleteError, match="run the same command again"):
            refuse_outage(error, of_file=of_file)
    else:
        refuse_outage(error, of_file=of_file)


class TestScale:
    """What is found binds a whole dataset, and nothing looks again."""

    GROUP = (DatasetShare(0, "X", 4, 1, (32, 32)),)

    class Failing:
        def __init__(self, numbers):
            self._numbers = numbers

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def read(self, start, _stop):
            if self._numbers[start] is not None:
                raise make_error(self._numbers[start])
            return np.arange(1024, dtype=np.uint8).reshape(1, 32, 32)

    def read_sample(self, numbers):
        looked = Scales(
            None,
            None,
            PreprocessConfig(),
            None,
            compute="",
            open_dataset=lambda *_: self.Failing(numbers),
            predict=None,
        )
        return list(looked._read_sample(self.GROUP))

    def test_an_outage_is_no_finding(self):
        with pytest.raises(IncompleteError):
            self.read_sample([None, None, errno.ESTALE, None])

    def test_one_bad_sector_leaves_the_others(self):
        assert len(self.read_sample([None, errno.EIO, None, None])) == 3

    def test_where_no_image_can_be_read_it_is_an_outage(self):
        with pytest.raises(IncompleteError):
            self.read_sample([errno.EIO] * 4)

    def test_damage_is_no_outage(self):
        assert self.read_sample([0] * 4) == []
