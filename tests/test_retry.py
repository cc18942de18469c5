"""What failed is counted again, whatever workers left when they were killed."""

import numpy as np
import pytest

from nucleiseg import synthetic
from nucleiseg.attempts import Attempts
from nucleiseg.config import load_config
from nucleiseg.counting import count, prepare, reset_failures
from nucleiseg.inference import read_compute
from nucleiseg.inference.notes import noting_failures
from nucleiseg.runs import CountRun
from nucleiseg.tables import ImageRow, read_rows, tabulate, write_partial, write_rows


@pytest.fixture(autouse=True)
def _no_power_cuts(monkeypatch):
    monkeypatch.setattr("nucleiseg.atomic._sync", lambda path: None)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, model):
    path = tmp_path_factory.mktemp("archive") / "a.npz"
    images, _ = synthetic.draw_fields(4, (64, 64), seed=5)
    np.savez(path, X=images)
    return prepare([str(path)], model, load_config(None))


@pytest.fixture
def run(prepared, tmp_path):
    run = CountRun(tmp_path / "run")
    count(prepared, run.root, workers=0)
    return run


@pytest.fixture
def shard(prepared):
    return prepared.plan.shards[0]


def read(run, plan, shard):
    return read_rows(
        run.part(0), plan, shard, compute=read_compute(run).identity
    ).values()


def spoil(run, plan, shard, bad=(2,)):
    """Write the partial table of a worker to which images failed; give its rows."""
    rows = [
        ImageRow(row.index, None, "it was ill") if row.index in bad else row
        for row in read(run, plan, shard)
    ]
    table = tabulate(rows, plan)
    write_partial(run, plan, shard, table, compute=read_compute(run).identity)
    return rows


def test_rows_that_a_killed_worker_left_are_forgotten(prepared, run, shard):
    table = run.table("csv").read_bytes()
    with noting_failures(run, prepared.plan, shard, 1):
        rows = spoil(run, prepared.plan, shard)
    # Killed after its partial table, before it took away what that was made of.
    left = Attempts(run).rows_folder(0) / "rows-000000002-000000004.parquet"
    compute = read_compute(run).identity
    write_rows(left, prepared.plan, shard, rows[2:], compute=compute)
    assert reset_failures(run, prepared.plan).n_images == 1
    assert count(prepared, run.root, workers=0).merged.n_failed == 0
    assert run.table("csv").read_bytes() == table


def test_a_note_without_a_table_is_left_to_who_computes(prepared, run, shard):
    with noting_failures(run, prepared.plan, shard, 1):
        run.part(0).unlink()
    assert reset_failures(run, prepared.plan).n_images == 0
    assert run.failure(0).exists()
    count(prepared, run.root, workers=0)
    assert not run.failure(0).exists()


class TestTwoWorkers:
    """Both compute one shard, and an image failed to one of them."""

    def test_table_with_failures_stays(self, prepared, run, shard):
        with noting_failures(run, prepared.plan, shard, 0):
            # The other one is the faster in between.
            with noting_failures(run, prepared.plan, shard, 1):
                pass
            spoil(run, prepared.plan, shard)
        assert reset_failures(run, prepared.plan).n_images == 1

    def test_note_is_taken_before_table_is_there(self, prepared, run, shard):
        with noting_failures(run, prepared.plan, shard, 1):
            run.failure(0).unlink()
            spoil(run, prepared.plan, shard)
        assert reset_failures(run, prepared.plan).n_images == 1

    def test_whole_table_stays(self, prepared, run, shard):
        with (
            noting_failures(run, prepared.plan, shard, 0),
            noting_failures(run, prepared.plan, shard, 1),
        ):
            pass
        assert not run.failure(0).exists()
        assert reset_failures(run, prepared.plan).n_shards == 0
