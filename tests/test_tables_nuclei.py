"""Nuclei of partial tables become one table, that of the label images beside it."""

import dataclasses
import shutil

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import ndimage

from nucleiseg.errors import RunError
from nucleiseg.quality import Calibration
from nucleiseg.runs import CountRun
from nucleiseg.shards import explain_difference
from nucleiseg.tables import (
    BlockRow,
    merge,
    nuclei,
    read_partial,
    read_rows,
    tabulate,
    write_block_partial,
)
from nucleiseg.tables import write_partial as write_rows_of
from nucleiseg.tables.output import RowWriter
from tests.test_tables_labels import COMPUTE, find_shard, make_plan, make_run

CALIBRATION = Calibration((0.7, 0.9, 1.0), (0.1, 0.3, 0.95))
SETTINGS = {"nuclei": 1, "calibration": CALIBRATION.as_dict()}
PLAN = make_plan(**SETTINGS)
COLUMNS = [
    "index",
    "archive",
    "dataset",
    "label",
    "y_px",
    "x_px",
    "area_px",
    "touches_edge",
    "confidence",
]


@pytest.fixture(autouse=True)
def _no_power_cuts(monkeypatch):
    monkeypatch.setattr("nucleiseg.atomic._sync", lambda path: None)


def merge_run(run, plan=PLAN, table_format="csv", **options):
    return merge(run, plan, table_format, compute=COMPUTE, **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with all partial tables, merged."""
    run = make_run(tmp_path_factory.mktemp("finished") / "run", PLAN)
    merge_run(run)
    return run


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it, without its tables."""
    shutil.copytree(finished.parts, tmp_path / "run" / "parts")
    return CountRun(tmp_path / "run")


def read_tables(run):
    """Nuclei by image, and the rows of the images that were counted."""
    table = pd.read_csv(run.nuclei("csv"))
    images = pd.read_csv(run.table("csv"), dtype={"count": "Int64"})
    images = images[images["status"] == "ok"]
    keys = ["archive", "dataset", "index"]
    return dict(list(table.groupby(keys))), images.set_index(keys)


class TestTable:
    def test_columns(self, finished):
        table = pd.read_csv(finished.nuclei("csv"))
        assert list(table.columns) == COLUMNS
        assert table["touches_edge"].dtype == bool
        assert table["confidence"].between(0, 1).all()

    def test_as_many_rows_as_nuclei_were_counted(self, finished):
        by_image, images = read_tables(finished)
        counts = images["count"][images["count"] > 0]
        assert len(counts) == 6 + 3 + 1
        assert {key: len(rows) for key, rows in by_image.items()} == counts.to_dict()

    def test_in_the_order_of_the_table_and_then_of_the_labels(self, finished):
        table = pd.read_csv(finished.nuclei("csv"))
        images = read_tables(finished)[1]
        expected = [
            (*key, label + 1)
            for key, count in images["count"].items()
            for label in range(count)
        ]
        found = table[["archive", "dataset", "index", "label"]]
        assert list(found.itertuples(index=False, name=None)) == expected

    def test_rows_are_those_of_the_label_images(self, finished):
        by_image, _ = read_tables(finished)
        with h5py.File(finished.labels()) as file:
            for (archive, dataset, index), rows in by_image.items():
                stack = file[f"{archive}/{dataset}"][()]
                labels = stack if stack.ndim == 2 else np.squeeze(stack[int(index)])
                numbers = np.unique(labels)[1:]
                assert rows["label"].tolist() == numbers.tolist()
                centres = ndimage.center_of_mass(labels > 0, labels, numbers)
                np.testing.assert_allclose(
                    rows[["y_px", "x_px"]], centres, atol=0.005 + 1e-9
                )
                areas = np.bincount(labels.ravel())[1:]
                assert rows["area_px"].tolist() == areas.tolist()
                ring = np.concatenate([*labels[[0, -1]], *labels[:, [0, -1]].T])
                expected = [number in ring for number in numbers]
                assert rows["touches_edge"].tolist() == expected

    def test_of_an_image_in_blocks_as_of_the_others(self, finished):
        by_image, _ = read_tables(finished)
        large = [rows for key, rows in by_image.items() if key[1] == "/wells/large"]
        assert len(large) == 1  # one is empty and one has failed
        with h5py.File(finished.labels()) as file:
            labels = file["b.h5/wells/large"][1]
        # On the seams between rows and columns of blocks.
        assert set(labels[31]) & set(labels[32]) - {0}
        assert set(labels[:, 47]) & set(labels[:, 48]) - {0}
        assert large[0]["area_px"].tolist() == np.bincount(labels.ravel())[1:].tolist()

    def test_their_mean_is_that_of_the_image(self, finished):
        by_image, images = read_tables(finished)
        spread = 0.0
        for key, rows in by_image.items():
            image = images.loc[key]
            assert rows["confidence"].mean() == pytest.approx(
                image["confidence"], abs=1.1e-4
            )
            assert rows["touches_edge"].sum() == image["border_count"]
            assert rows["area_px"].mean() == pytest.approx(
                image["mean_area_px"], abs=0.006
            )
            spread = max(spread, rows["confidence"].std())
        assert spread > 0.1

    def test_without_a_calibration_it_is_empty(self, tmp_path):
        plan = make_plan(nuclei=1)
        run = make_run(tmp_path / "run", plan)
        merge_run(run, plan)
        merge_run(run, plan, "parquet")
        for table in (
            pd.read_csv(run.nuclei("csv")),
            pq.read_table(run.nuclei("parquet")).to_pandas(),
        ):
            assert table["confidence"].isna().all()
            assert len(table) > 30

    def test_parquet_holds_the_same(self, run):
        merge_run(run)
        merged = merge_run(run, table_format="parquet")
        assert merged.nuclei == run.nuclei("parquet")
        table = pq.read_table(merged.nuclei)
        assert table.schema.equals(nuclei.NUCLEUS_TABLE)
        pd.testing.assert_frame_equal(
            table.to_pandas(), pd.read_csv(run.nuclei("csv")), check_dtype=False
        )

    @pytest.mark.parametrize("shard_images", [1, 2, 100])
    @pytest.mark.parametrize("group_rows", [7, 65_536])
    def test_same_bytes_for_any_size_of_shards(
        self, run, tmp_path, monkeypatch, shard_images, group_rows
    ):
        monkeypatch.setattr(nuclei, "_GROUP_ROWS", group_rows)
        plan = make_plan(shard_images, **SETTINGS)
        other = make_run(tmp_path / "other", plan)
        for table_format in ("csv", "parquet"):
            paths = [
                merge_run(run, table_format=table_format).nuclei,
                merge_run(other, plan, table_format).nuclei,
            ]
            assert paths[0].read_bytes() == paths[1].read_bytes()


class TestParts:
    def test_rows_keep_their_nuclei(self, run):
        shard = find_shard("X", 3)
        rows = read_rows(run.part(shard.shard), PLAN, shard, compute=COMPUTE)
        assert any(row.nuclei for row in rows.values())
        before = run.part(shard.shard).read_bytes()
        write_rows_of(run, PLAN, shard, tabulate(rows.values(), PLAN), compute=COMPUTE)
        assert run.part(shard.shard).read_bytes() == before

    @pytest.mark.parametrize("key", ["X", "/wells/large"])
    def test_every_damaged_byte_is_noticed(self, run, key):
        shard = find_shard(key, 1)
        path = run.part(shard.shard)
        # All of them are in test_tables_sealed; here those of the column alone.
        file = pq.ParquetFile(path)
        place = file.schema_arrow.names.index("nuclei")
        chunk = file.metadata.row_group(0).column(place)
        content = path.read_bytes()
        start = chunk.data_page_offset
        n_noticed = 0
        for position in range(start, start + chunk.total_compressed_size):
            damaged = bytearray(content)
            damaged[position] ^= 0x10
            path.write_bytes(damaged)
            try:
                found = read_partial(run, PLAN, shard, compute=COMPUTE)
            except RunError:
                n_noticed += 1
            else:
                # Harmless: in what nobody reads.
                path.write_bytes(content)
                assert found.equals(read_partial(run, PLAN, shard, compute=COMPUTE))
        assert n_noticed > 40

    @pytest.mark.parametrize("key", ["X", "/wells/large"])
    def test_nuclei_that_are_not_there_are_named(self, run, key):
        """No worker writes such a table; a fault of ours must not lose rows."""
        shard = find_shard(key, 3 if key == "X" else 1)
        if shard.block is None:
            rows = read_rows(run.part(shard.shard), PLAN, shard, compute=COMPUTE)
            bare = [dataclasses.replace(r, nuclei=None) for r in rows.values()]
            write_rows_of(run, PLAN, shard, tabulate(bare, PLAN), compute=COMPUTE)
            message = r"image 3 has 0 nuclei, and \d+ were counted"
        else:
            (row,) = read_partial(run, PLAN, shard).to_pylist()
            given = BlockRow(row["payload"], labels=row["labels"])
            write_block_partial(run, PLAN, shard, given, compute=COMPUTE)
            message = r"a block has 0 nuclei, and \d+ labels"
        with pytest.raises(RunError, match=message) as caught:
            merge_run(run)
        assert f"{shard.shard}" in str(caught.value)
        assert list(run.root.iterdir()) == [run.parts]

    def test_nothing_is_there_before_all_is(self, run, monkeypatch):
        """Killed between one file and the next, no table says that it is done."""

        def die(*_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr("nucleiseg.tables.merging.write_label_images", die)
        with pytest.raises(KeyboardInterrupt):
            merge_run(run)
        assert list(run.root.iterdir()) == [run.parts]

    def test_incomplete(self, finished, run):
        gone = [find_shard("X", 3), find_shard("/wells/large", 1)]
        for shard in gone:
            run.part(shard.shard).unlink()
        merged = merge_run(run, incomplete=True)
        assert merged.nuclei == run.root / "nuclei.partial.csv"
        assert not run.nuclei("csv").exists()
        whole, found = map(pd.read_csv, (finished.nuclei("csv"), merged.nuclei))
        is_gone = (whole["archive"] == "plates/a.npz") & whole["index"].between(3, 5)
        is_gone |= (whole["dataset"] == "/wells/large") & (whole["index"] == 1)
        assert is_gone.any()
        expected = whole[~is_gone].reset_index(drop=True)
        pd.testing.assert_frame_equal(found, expected)


class TestPlansOfBefore:
    PLAN = make_plan(calibration=CALIBRATION.as_dict())

    def test_they_go_on_without(self, finished, tmp_path):
        run = make_run(tmp_path / "run", self.PLAN)
        names = read_partial(run, self.PLAN, self.PLAN.shards[0]).column_names
        assert "labels" in names
        assert "nuclei" not in names
        merged = merge_run(run, self.PLAN)
        assert merged.nuclei is None
        assert not list(run.root.glob("nuclei*"))
        assert run.labels().read_bytes() == finished.labels().read_bytes()

    def test_the_difference_is_told(self):
        message = explain_difference(self.PLAN, PLAN)
        assert "made no table of nuclei" in message


class TestRowWriter:
    SCHEMA = pa.schema([("n", pa.int64())])

    def write(self, path, lengths):
        with RowWriter(path, self.SCHEMA, 5) as writer:
            start = 0
            for length in lengths:
                writer.add(pa.table({"n": range(start, start + length)}, self.SCHEMA))
                start += length
        return path.read_bytes()

    @pytest.mark.parametrize("suffix", ["csv", "parquet"])
    def test_same_bytes_however_they_come(self, tmp_path, suffix):
        path = tmp_path / f"rows.{suffix}"
        expected = self.write(path, [12])
        for lengths in ([1] * 12, [5, 5, 2], [4, 0, 8], [11, 1]):
            assert self.write(path, lengths) == expected

    def test_none(self, tmp_path):
        assert self.write(tmp_path / "rows.csv", []) == b"n\n"
        self.write(tmp_path / "rows.parquet", [])
        assert pq.read_table(tmp_path / "rows.parquet").num_rows == 0
