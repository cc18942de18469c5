"""Blocks of a large image become one row, the one of the image in one piece."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from nucleiseg.config import InstancesConfig
from nucleiseg.errors import RunError
from nucleiseg.instances import count_nuclei, saturation_limit, summarise_block
from nucleiseg.quality import Calibration
from nucleiseg.runs import CountRun
from nucleiseg.shards import ArchiveRef, Block, Entry, Plan
from nucleiseg.tables import (
    BlockRow,
    find_missing,
    merge,
    read_partial,
    read_rows,
    tabulate,
    write_block_partial,
    write_partial,
    write_rows,
)
from tests.test_tables import COMPUTE, make_row

SETTINGS = InstancesConfig(threshold=0.85)
SHAPE = (60, 80)
CORNERS = [(0, 0, 32, 48), (0, 48, 32, 80), (32, 0, 60, 48), (32, 48, 60, 80)]
ARCHIVES = (ArchiveRef("/data/plate.h5", "plate.h5", "0123"),)
N_SMALL = 5


@pytest.fixture(autouse=True)
def _no_power_cuts(monkeypatch):
    monkeypatch.setattr("nucleiseg.atomic._sync", lambda path: None)


def draw(index):
    """Image and maps full of nuclei, many of them on the seams."""
    rng = np.random.default_rng(index)
    image = rng.integers(0, 256, SHAPE, dtype=np.uint8)
    coarse = rng.random((20, 20), dtype=np.float32)
    return image, np.kron(coarse, np.ones((3, 4), np.float32))[..., np.newaxis]


def make_plan(calibration=None, **settings):
    """Make a plan of five small images, two large ones in blocks, and a missing one."""
    small = [Entry(0, n, "/small", 3 * n, min(3 * n + 3, 5), 8, 8) for n in range(2)]
    blocks = [
        Entry(0, 2 + 4 * index + n, "/large", index, index + 1, *SHAPE, None, Block(*c))
        for index in range(2)
        for n, c in enumerate(CORNERS)
    ]
    more = [Entry(0, 10, "/more", 0, 1, 8, 8)]
    gone = [Entry(0, dataset="/gone", reason="not found; check the path")]
    instances = {**SETTINGS.model_dump(mode="json"), **settings}
    trust = calibration and calibration.as_dict()
    return Plan(
        ARCHIVES,
        (*small, *blocks, *gone, *more),
        {"instances": instances, "calibration": trust},
    )


PLAN = make_plan()


def write(run, plan, shard, reason=None, calibration=None):
    if shard.block is None:
        rows = [make_row(shard.dataset, i) for i in range(shard.start, shard.stop)]
        write_partial(run, plan, shard, tabulate(rows, plan), compute=COMPUTE)
        return
    image, maps = draw(shard.start)
    core = shard.block.core
    limit = saturation_limit(image.dtype, float(image.max()))
    summary = summarise_block(
        image[core],
        maps[core],
        core,
        SHAPE,
        SETTINGS,
        limit=limit,
        calibration=calibration,
    ).to_bytes()
    payload = None if reason else summary
    write_block_partial(run, plan, shard, BlockRow(payload, reason), compute=COMPUTE)


@pytest.fixture
def run(tmp_path):
    """A run with all partial tables."""
    run = CountRun(tmp_path / "run")
    run.parts.mkdir(parents=True)
    for shard in PLAN.shards:
        write(run, PLAN, shard)
    return run


def merge_csv(run, plan=PLAN, **options):
    merged = merge(run, plan, "csv", compute=COMPUTE, **options)
    return merged, pd.read_csv(merged.path)


class TestMerge:
    def test_one_row_an_image_in_the_order_of_the_plan(self, run):
        merged, table = merge_csv(run)
        assert merged.n_images == 5 + 2 + 1
        assert merged.n_missing == 0
        assert table["dataset"].tolist() == [
            *["/small"] * 5,
            *["/large"] * 2,
            "/gone",
            "/more",
        ]
        assert table["index"].dropna().tolist() == [0, 1, 2, 3, 4, 0, 1, 0]

    @pytest.mark.parametrize("index", [0, 1])
    def test_the_row_is_that_of_the_image_in_one_piece(self, run, index):
        _, table = merge_csv(run)
        row = table[table["dataset"] == "/large"].iloc[index]
        expected = count_nuclei(*draw(index), SETTINGS)
        assert expected.count > 20
        for name, value in dataclasses.asdict(expected).items():
            assert row[name] == value

    def test_confidence_is_calibrated_as_the_plan_says(self, run):
        calibration = Calibration((0.8, 1.0), (0.1, 0.9), (1.0, 2.0))
        plan = make_plan(calibration=calibration)
        for shard in plan.shards:
            write(run, plan, shard, calibration=calibration)
        merged, table = merge_csv(run, plan)
        row = table[table["dataset"] == "/large"].iloc[1]
        expected = count_nuclei(*draw(1), SETTINGS, calibration=calibration)
        assert row["confidence"] == expected.confidence
        assert expected.confidence != count_nuclei(*draw(1), SETTINGS).confidence
        # The images are noise.
        assert row["flags"] == "empty"
        assert merged.flags["empty"] == 2

    def test_nuclei_are_summed_up_once(self, run):
        merged, table = merge_csv(run)
        assert merged.n_nuclei == table["count"].sum()

    @pytest.mark.parametrize("table_format", ["csv", "parquet"])
    def test_same_bytes_whatever_the_order_of_work(self, run, tmp_path, table_format):
        other = CountRun(tmp_path / "other")
        other.parts.mkdir(parents=True)
        for shard in PLAN.shards[::-1]:
            write(other, PLAN, shard)
        tables = [
            merge(run, PLAN, table_format, compute=COMPUTE).path.read_bytes()
            for run in (run, other)
        ]
        assert tables[0] == tables[1]

    def test_the_notebooks_format_takes_one_large_image(self, tmp_path):
        run = CountRun(tmp_path / "one")
        run.parts.mkdir(parents=True)
        blocks = [
            dataclasses.replace(shard, shard=n)
            for n, shard in enumerate(PLAN.shards[2:6])
        ]
        plan = Plan(ARCHIVES, blocks, PLAN.settings)
        for shard in plan.shards:
            write(run, plan, shard)
        path = merge(run, plan, "notebook", compute=COMPUTE).path
        count = count_nuclei(*draw(0), SETTINGS).count
        assert path.read_text("utf-8-sig") == f"index,count\n0,{count}\n"

    def test_fails_for_the_first_reason_of_its_blocks(self, run):
        write(run, PLAN, PLAN.shards[4], "image holds NaN; mask it")
        write(run, PLAN, PLAN.shards[5], "another reason")
        merged, table = merge_csv(run)
        row = table[table["dataset"] == "/large"].iloc[0]
        assert (row["status"], row["reason"]) == ("failed", "image holds NaN; mask it")
        assert np.isnan(row["count"])
        assert "plate.h5:/large image 0: image holds NaN; mask it" in merged.failures
        assert merged.n_failed == (table["status"] == "failed").sum()
        assert table[table["dataset"] == "/large"].iloc[1]["status"] == "ok"

    @pytest.mark.parametrize("number", [2, 3, 5])
    def test_without_one_block_there_is_no_table(self, run, number):
        run.part(number).unlink()
        with pytest.raises(
            RunError, match=f"shard {number} .*/large.0. rows"
        ) as caught:
            merge_csv(run)
        assert str(run.part(number)) in str(caught.value)
        assert not run.table("csv").exists()
        assert [shard.shard for shard in find_missing(run, PLAN)] == [number]

    @pytest.mark.parametrize("missing", [[2], [5], [3, 4], [2, 3, 4, 5]])
    def test_incomplete_leaves_the_image_out(self, run, missing):
        _, whole = merge_csv(run)
        for number in missing:
            run.part(number).unlink()
        merged, table = merge_csv(run, incomplete=True)
        assert (merged.n_images, merged.n_missing) == (7, len(missing))
        is_first = (whole["dataset"] == "/large") & (whole["index"] == 0)
        expected = whole[~is_first].reset_index(drop=True)
        pd.testing.assert_frame_equal(table, expected)

    def test_swapped_blocks_are_refused(self, run, tmp_path):
        run.part(2).rename(tmp_path / "2")
        run.part(3).rename(run.part(2))
        (tmp_path / "2").rename(run.part(3))
        with pytest.raises(RunError, match=r"another shard \(3, expected 2\)"):
            merge_csv(run)

    def test_rows_in_place_of_a_block_are_refused(self, run):
        rows = [make_row("/large", 0)]
        write_rows(run.part(2), PLAN, PLAN.shards[2], rows, compute=COMPUTE)
        with pytest.raises(RunError, match=r"damaged .* expected .*payload"):
            merge_csv(run)

    def test_a_summary_of_another_version_is_refused(self, run):
        block = PLAN.shards[3]
        write_block_partial(run, PLAN, block, BlockRow(b"version 0"), compute=COMPUTE)
        with pytest.raises(RunError) as caught:
            merge_csv(run)
        message = str(caught.value)
        assert "plate.h5:/large[0] rows 0:32, columns 0:48 and following" in message
        assert "shards 2 to 5, cannot be joined" in message
        assert "run the same command again" in message

    def test_of_other_settings_are_refused(self, run, tmp_path):
        """The plan's settings count, and a block says with which it was made."""
        plan = make_plan(threshold=0.3)
        other = CountRun(tmp_path / "other")
        other.parts.mkdir(parents=True)
        for shard in plan.shards:
            write(other, plan, shard)
        with pytest.raises(RunError, match="cannot be joined"):
            merge_csv(other, plan)


class TestPartials:
    def test_has_a_status(self, run):
        table = read_partial(run, PLAN, PLAN.shards[3], compute=COMPUTE)
        assert table["status"].to_pylist() == ["ok"]
        write(run, PLAN, PLAN.shards[3], "broken")
        table = read_partial(run, PLAN, PLAN.shards[3], compute=COMPUTE)
        assert table["status"].to_pylist() == ["failed"]
        assert table["reason"].to_pylist() == ["broken"]

    def test_not_there_yet(self, run):
        run.part(3).unlink()
        assert read_partial(run, PLAN, PLAN.shards[3]) is None

    def test_of_another_image_is_refused(self, run):
        """Stamped with the right shard, and yet the wrong image."""
        block = dataclasses.replace(PLAN.shards[3], start=1, stop=2)
        write(run, PLAN, block)
        with pytest.raises(RunError, match="does not hold images 0 to 0"):
            read_partial(run, PLAN, PLAN.shards[3])

    def test_only_a_failed_block_has_a_row(self, run):
        block = PLAN.shards[3]
        read = run.part(3), PLAN, block
        assert read_rows(*read, compute=COMPUTE) == {}
        write(run, PLAN, block, "broken")
        (row,) = read_rows(*read, compute=COMPUTE).values()
        assert (row.index, row.summary, row.reason) == (0, None, "broken")

    def test_rows_that_were_kept_of_a_block_are_none(self, run):
        path = run.root / "rows-kept.parquet"
        write_rows(path, PLAN, PLAN.shards[3], [], compute=COMPUTE)
        assert read_rows(path, PLAN, PLAN.shards[3], compute=COMPUTE) == {}

    def test_same_block_same_bytes(self, run):
        before = run.part(3).read_bytes()
        write(run, PLAN, PLAN.shards[3])
        assert run.part(3).read_bytes() == before
