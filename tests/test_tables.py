"""Partial tables and their merge: the same table however it was computed, or none."""

from dataclasses import asdict, fields

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nucleiseg.errors import RunError
from nucleiseg.instances import ImageSummary
from nucleiseg.runs import CountRun
from nucleiseg.shards import ArchiveRef, Entry, Plan
from nucleiseg.tables import (
    TABLE,
    ImageRow,
    check_notebook_format,
    find_missing,
    merge,
    merging,
    read_partial,
    read_rows,
    tabulate,
    write_partial,
    write_rows,
)
from nucleiseg.tables.rows import ROWS

FORMATS = "csv", "parquet", "notebook"
COMPUTE = "float32, 8x128x128"
UNREADABLE = Entry(1, dataset="/w", reason="not found; check the path")
FLAGGED = "", "saturated", "", "out_of_focus;saturated"
BOM = b"\xef\xbb\xbf"


@pytest.fixture(autouse=True)
def _no_power_cuts(monkeypatch):
    # Hundreds of small files: waiting for the disk is most of the time.
    monkeypatch.setattr("nucleiseg.atomic._sync", lambda path: None)


def make_plan(*datasets, shard_images=3, unreadable=(), **settings):
    """Plan by hand: `datasets` are names with numbers of images, all in archive 0."""
    entries = []
    for key, n_images in datasets:
        for start in range(0, n_images, shard_images):
            stop = min(start + shard_images, n_images)
            number = len(entries)
            entries.append(Entry(0, number, key, start, stop, height=8, width=8))
    archives = (
        ArchiveRef("/data/a.npz", "a.npz", "0123"),
        ArchiveRef("/data/plate.h5", "plate.h5", None),
    )
    return Plan(archives, (*entries, *unreadable), settings)


def make_row(key, index):
    """Give the outcome of an image, the same in every run; some of them fail."""
    number = index + 7 * len(key)
    if number % 5 == 3:
        return ImageRow(index, None, f'image holds NaN, "{index}"; mask it')
    count = number * number % 11
    return ImageRow(
        index,
        ImageSummary(
            count=count,
            foreground_share=round(count / 13, 4),
            mean_area_px=round(100 / 3 + count, 2) if count else None,
            border_count=count // 3,
            saturated_share=0.0,
            confidence=0.9 + count / 1000 if count else None,
            flags=FLAGGED[count % 4],
        ),
    )


def compute(run, plan, shards=None, compute_setting=COMPUTE):
    run.parts.mkdir(parents=True, exist_ok=True)
    for shard in plan.shards if shards is None else shards:
        rows = [make_row(shard.dataset, i) for i in range(shard.start, shard.stop)]
        write_partial(run, plan, shard, tabulate(rows, plan), compute=compute_setting)


@pytest.fixture
def run(tmp_path):
    run = CountRun(tmp_path / "run")
    run.parts.mkdir(parents=True)
    return run


def merge_bytes(folder, plan, table_format):
    run = CountRun(folder)
    compute(run, plan)
    return merge(run, plan, table_format, compute=COMPUTE).path.read_bytes()


def refuse(run, plan, *, table_format="csv"):
    with pytest.raises(RunError) as caught:
        merge(run, plan, table_format, compute=COMPUTE)
    message = str(caught.value)
    assert "\n" not in message
    assert not run.table(table_format).exists()
    assert not list(run.root.glob(".*"))
    return message


@pytest.fixture(scope="module")
def runs_of_one_table(tmp_path_factory):
    """Run and plan of the same 50 images in shards of 1, 7 and 500."""
    folder = tmp_path_factory.mktemp("computed")
    computed = [
        (CountRun(folder / str(n)), make_plan(("X", 50), shard_images=n))
        for n in (1, 7, 500)
    ]
    for run, plan in computed:
        compute(run, plan)
    assert [len(plan.shards) for _, plan in computed] == [50, 8, 1]
    return computed


class TestSameTable:
    @pytest.mark.parametrize("table_format", FORMATS)
    @pytest.mark.parametrize("group_rows", [1, 4, 7, 49, 50, 51, 65_536])
    def test_for_any_size_of_shards(
        self, runs_of_one_table, monkeypatch, table_format, group_rows
    ):
        monkeypatch.setattr(merging, "_GROUP_ROWS", group_rows)
        found = {
            merge(run, plan, table_format, compute=COMPUTE).path.read_bytes()
            for run, plan in runs_of_one_table
        }
        assert len(found) == 1

    @pytest.mark.parametrize("table_format", ["csv", "parquet"])
    def test_for_several_datasets_and_unreadable_inputs(self, tmp_path, table_format):
        found = {
            merge_bytes(
                tmp_path / str(shard_images),
                make_plan(
                    ("X", 23),
                    ("/val/Y", 10),
                    shard_images=shard_images,
                    unreadable=[UNREADABLE],
                ),
                table_format,
            )
            for shard_images in (1, 7, 500)
        }
        assert len(found) == 1

    @pytest.mark.parametrize("table_format", ["csv", "notebook"])
    @pytest.mark.parametrize("group_rows", [1, 7, 10, 23, 24])
    def test_for_any_size_of_groups(
        self, tmp_path, monkeypatch, table_format, group_rows
    ):
        plan = make_plan(("X", 23), shard_images=5)
        expected = merge_bytes(tmp_path / "one", plan, table_format)
        monkeypatch.setattr(merging, "_GROUP_ROWS", group_rows)
        assert merge_bytes(tmp_path / "many", plan, table_format) == expected

    @pytest.mark.parametrize("group_rows", [1, 7, 10, 23, 24])
    def test_groups_of_parquet(self, tmp_path, monkeypatch, group_rows):
        plan = make_plan(("X", 23), shard_images=5)
        merge_bytes(tmp_path / "one", plan, "parquet")
        monkeypatch.setattr(merging, "_GROUP_ROWS", group_rows)
        merge_bytes(tmp_path / "many", plan, "parquet")
        one, many = (
            pq.read_table(CountRun(tmp_path / name).table("parquet"))
            for name in ("one", "many")
        )
        assert many.equals(one)
        assert many.num_rows == 23

        groups = pq.ParquetFile(CountRun(tmp_path / "many").table("parquet")).metadata
        sizes = [groups.row_group(i).num_rows for i in range(groups.num_row_groups)]
        assert set(sizes[:-1]) <= {group_rows}

    @pytest.mark.parametrize("table_format", FORMATS)
    def test_whatever_the_order_of_work(self, tmp_path, table_format):
        plan = make_plan(("X", 23), shard_images=5)
        run = CountRun(tmp_path / "backwards")
        compute(run, plan, plan.shards[::-1])
        compute(run, plan, plan.shards[2:3])  # twice
        backwards = merge(run, plan, table_format, compute=COMPUTE).path.read_bytes()
        assert backwards == merge_bytes(tmp_path / "forwards", plan, table_format)

    @pytest.mark.parametrize("table_format", ["csv", "parquet"])
    def test_and_it_would_show_another_count(self, tmp_path, table_format):
        one = merge_bytes(tmp_path / "one", make_plan(("X", 23)), table_format)
        other = merge_bytes(tmp_path / "other", make_plan(("X", 24)), table_format)
        assert one != other


class TestContent:
    def test_csv_by_hand(self, run):
        plan = make_plan(("X", 2), ("/v", 1), shard_images=2, unreadable=[UNREADABLE])
        summary = ImageSummary(3, 0.25, 12.5, 1, 0.0, 0.9876, "out_of_focus;saturated")
        empty = ImageSummary(0, 0.0, None, 0, 0.125, None, "empty")
        first, second = plan.shards
        rows = [ImageRow(0, summary), ImageRow(1, None, 'broken, "really"')]
        write_partial(run, plan, first, tabulate(rows, plan), compute=COMPUTE)
        write_partial(
            run, plan, second, tabulate([ImageRow(0, empty)], plan), compute=COMPUTE
        )
        path = merge(run, plan, "csv", compute=COMPUTE).path
        assert path == run.table("csv")
        assert path.read_bytes().decode() == (
            "index,count,archive,dataset,status,reason,foreground_share,mean_area_px,"
            "border_count,saturated_share,confidence,flags\n"
            "0,3,a.npz,X,ok,,0.25,12.5,1,0.0,0.9876,out_of_focus;saturated\n"
            '1,,a.npz,X,failed,"broken, ""really""",,,,,,\n'
            "0,0,a.npz,/v,ok,,0.0,,0,0.125,,empty\n"
            ",,plate.h5,/w,failed,not found; check the path,,,,,,\n"
        )

    def test_a_key_with_line_ends_stays_in_its_row(self, run):
        plan = make_plan(("/two\r\nlines", 2))
        compute(run, plan)
        rows = pd.read_csv(merge(run, plan, "csv", compute=COMPUTE).path)
        assert rows["dataset"].tolist() == [r"/two\r\nlines"] * 2

    def test_parquet_has_the_same_rows(self, run):
        plan = make_plan(("X", 23), ("/v", 4), unreadable=[UNREADABLE])
        compute(run, plan)
        csv = pd.read_csv(merge(run, plan, "csv", compute=COMPUTE).path)
        path = merge(run, plan, "parquet", compute=COMPUTE).path
        parquet = pd.read_parquet(path)
        # CSV cannot tell no flag from no image.
        parquet["flags"] = parquet["flags"].replace("", None)
        pd.testing.assert_frame_equal(parquet, csv, check_dtype=False)

    def test_count_stays_a_nullable_integer(self, run):
        plan = make_plan(("X", 23), unreadable=[UNREADABLE])
        compute(run, plan)
        table = pq.read_table(merge(run, plan, "parquet", compute=COMPUTE).path)
        assert table.schema.equals(TABLE)
        assert table.schema.field("count").type == pa.int64()
        is_failed = [status == "failed" for status in table["status"].to_pylist()]
        is_empty = [count is None for count in table["count"].to_pylist()]
        assert is_failed == is_empty
        assert 0 < sum(is_failed) < 24

    def test_csv_has_no_byte_order_mark(self, tmp_path):
        content = merge_bytes(tmp_path, make_plan(("X", 2)), "csv")
        assert content.startswith(b"index,count,")

    def test_sums(self, run):
        plan = make_plan(("X", 23), ("/v", 4), unreadable=[UNREADABLE])
        compute(run, plan)
        merged = merge(run, plan, "csv", compute=COMPUTE)
        rows = [make_row("X", i) for i in range(23)]
        rows += [make_row("/v", i) for i in range(4)]
        good = [row.summary.count for row in rows if row.summary]
        assert merged.n_images == 27
        assert merged.n_nuclei == sum(good) > 0
        assert merged.n_failed == 27 - len(good) + 1 > 1

    def test_flags_are_counted(self, run):
        plan = make_plan(("X", 23), ("/v", 4), unreadable=[UNREADABLE])
        compute(run, plan)
        merged = merge(run, plan, "csv", compute=COMPUTE)
        rows = [make_row("X", i) for i in range(23)]
        rows += [make_row("/v", i) for i in range(4)]
        flags = [row.summary.flags for row in rows if row.summary]
        blurred = sum("out_of_focus" in flag for flag in flags)
        assert merged.n_counted == len(flags) == merged.n_images - 5
        assert merged.n_flagged == sum(flag != "" for flag in flags) > blurred > 0
        assert merged.flags == {
            "out_of_focus": blurred,
            "saturated": merged.n_flagged,
        }

    def test_failures_are_named(self, run):
        plan = make_plan(("X", 5), unreadable=[UNREADABLE])
        compute(run, plan)
        assert merge(run, plan, "csv", compute=COMPUTE).failures == [
            'a.npz:X image 1: image holds NaN, "1"; mask it',
            "plate.h5:/w: not found; check the path",
        ]

    def test_only_the_first_few_failures_are_named(self, run):
        plan = make_plan(("X", 100))
        compute(run, plan)
        merged = merge(run, plan, "csv", compute=COMPUTE)
        assert len(merged.failures) == 5
        assert merged.n_failed == 20

    @pytest.mark.parametrize("table_format", FORMATS)
    def test_merged_again_replaces_the_table(self, run, table_format):
        plan = make_plan(("X", 7))
        run.table(table_format).write_text("old")
        compute(run, plan)
        path = merge(run, plan, table_format, compute=COMPUTE).path
        assert path.read_bytes() != b"old"

    def test_no_images(self, run):
        plan = make_plan()
        merged = merge(run, plan, "csv", compute=None)
        assert (merged.n_images, merged.n_failed, merged.n_nuclei) == (0, 0, 0)
        header = ",".join(TABLE.names)
        assert merged.path.read_text() == f"{header}\n"
        table = pq.read_table(merge(run, plan, "parquet", compute=None).path)
        assert table.schema.equals(TABLE)
        assert table.num_rows == 0

    def test_nothing_but_unreadable_inputs(self, run):
        plan = make_plan(unreadable=[UNREADABLE])
        merged = merge(run, plan, "csv", compute=None)
        assert (merged.n_images, merged.n_failed) == (0, 1)
        assert merged.path.read_text().endswith(
            "\n,,plate.h5,/w,failed,not found; check the path,,,,,,\n"
        )


class TestNotebookFormat:
    def test_is_what_the_notebook_writes(self, run, tmp_path):
        counts = [3, 0, 12, 7, 1]
        plan = make_plan(("X", 5), shard_images=2)
        for shard in plan.shards:
            rows = [
                ImageRow(i, ImageSummary(counts[i], 0.1, 2.0, 0, 0.0, 0.9))
                for i in range(shard.start, shard.stop)
            ]
            write_partial(run, plan, shard, tabulate(rows, plan), compute=COMPUTE)
        found = merge(run, plan, "notebook", compute=COMPUTE).path
        expected = tmp_path / "expected.csv"
        frame = pd.DataFrame({"index": range(5), "count": counts})
        frame.to_csv(expected, index=False, encoding="utf-8-sig")
        assert found.read_bytes() == expected.read_bytes()
        assert found.read_bytes() == BOM + b"index,count\n0,3\n1,0\n2,12\n3,7\n4,1\n"
        assert found.name == "U-Net Project Results.csv"

    def test_count_of_a_failed_image_is_empty(self, tmp_path):
        content = merge_bytes(tmp_path, make_plan(("X", 3)), "notebook")
        assert content == BOM + b"index,count\n0,5\n1,\n2,4\n"

    def test_no_images(self, run):
        path = merge(run, make_plan(), "notebook", compute=None).path
        assert path.read_bytes() == BOM + b"index,count\n"

    @pytest.mark.parametrize(
        ("plan", "words"),
        [
            (make_plan(("X", 2), ("y", 2)), "this run has 2 datasets"),
            (make_plan(("X", 2), unreadable=[UNREADABLE]), "cannot be read"),
            (make_plan(unreadable=[UNREADABLE]), "cannot be read"),
        ],
    )
    def test_what_two_columns_cannot_show_is_refused(self, run, plan, words):
        with pytest.raises(RunError, match=words):
            check_notebook_format(plan)
        compute(run, plan)
        assert "use --format csv" in refuse(run, plan, table_format="notebook")

    def test_one_dataset_of_many_shards_is_not(self):
        check_notebook_format(make_plan(("X", 20), shard_images=1))


class TestRefusals:
    """Whatever is wrong with the parts, there is no table rather than a wrong one."""

    PLAN = make_plan(("X", 10), shard_images=4)

    @pytest.fixture
    def computed(self, run):
        compute(run, self.PLAN)
        return run

    @pytest.mark.parametrize("shard", [0, 1, 2])
    def test_missing(self, computed, shard):
        path = computed.part(shard)
        path.unlink()
        message = refuse(computed, self.PLAN)
        name = self.PLAN.describe(self.PLAN.shards[shard])
        assert message.startswith(f"shard {shard} ({name}) has no partial table {path}")
        assert "run the same command again" in message

    def test_missing_one_leaves_an_earlier_table(self, computed):
        path = merge(computed, self.PLAN, "csv", compute=COMPUTE).path
        before = path.read_bytes()
        computed.part(1).unlink()
        with pytest.raises(RunError):
            merge(computed, self.PLAN, "csv", compute=COMPUTE)
        assert path.read_bytes() == before

    def test_of_another_plan(self, computed):
        other = make_plan(("X", 10), shard_images=4, threshold=0.4)
        compute(computed, other, other.shards[1:2])
        message = refuse(computed, self.PLAN)
        assert f"{computed.part(1)} belongs to another plan" in message
        assert other.identity in message
        assert self.PLAN.identity in message

    def test_of_another_compute_setting(self, computed):
        compute(computed, self.PLAN, self.PLAN.shards[2:], compute_setting="bfloat16")
        message = refuse(computed, self.PLAN)
        assert f"{computed.part(2)} belongs to another compute" in message
        assert "('bfloat16', expected 'float32, 8x128x128')" in message

    def test_swapped(self, computed, tmp_path):
        computed.part(0).rename(tmp_path / "0")
        computed.part(1).rename(computed.part(0))
        (tmp_path / "0").rename(computed.part(1))
        message = refuse(computed, self.PLAN)
        assert f"{computed.part(0)} belongs to another shard (1, expected 0)" in message

    def test_copied(self, computed):
        computed.part(2).write_bytes(computed.part(1).read_bytes())
        message = refuse(computed, self.PLAN)
        assert f"{computed.part(2)} belongs to another shard (1, expected 2)" in message

    @pytest.mark.parametrize("name", ["000003.parquet", "000001.parquet.bak", "notes"])
    def test_surplus(self, computed, name):
        (computed.parts / name).write_bytes(computed.part(1).read_bytes())
        message = refuse(computed, self.PLAN)
        assert f"{computed.parts / name} is no shard of the plan" in message

    def test_temporary_of_a_live_writer_is_no_surplus(self, computed):
        (computed.parts / ".node-12-0123abcd.tmp.000001.parquet").touch()
        assert merge(computed, self.PLAN, "csv", compute=COMPUTE).n_images == 10

    @pytest.mark.parametrize("n_bytes", [0, 4, 100, -1])
    def test_cut(self, computed, n_bytes):
        path = computed.part(1)
        path.write_bytes(path.read_bytes()[:n_bytes])
        message = refuse(computed, self.PLAN)
        assert f"partial table {path} is damaged" in message
        assert "delete it and run the same command again" in message

    @pytest.mark.parametrize("metadata", [None, {"nucleiseg": "{"}, {"other": "{}"}])
    def test_of_unknown_origin(self, computed, metadata):
        path = computed.part(1)
        pq.write_table(pq.read_table(path).replace_schema_metadata(metadata), path)
        assert f"partial table {path} is damaged" in refuse(computed, self.PLAN)

    @pytest.mark.parametrize(
        "change",
        [
            lambda table: table.slice(1),
            lambda table: table.slice(0, 3),
            lambda table: table.slice(0, 0),
            lambda table: pa.concat_tables([table, table.slice(3)]),
            lambda table: table.take([1, 0, 2, 3]),
            lambda table: table.take([0, 0, 2, 3]),
        ],
        ids=["first lost", "last lost", "all lost", "surplus", "turned", "doubled"],
    )
    def test_images_not_each_once(self, computed, change):
        path = computed.part(1)
        table = change(pq.read_table(path))
        shard = self.PLAN.shards[1]
        write_partial(computed, self.PLAN, shard, table, compute=COMPUTE)
        message = refuse(computed, self.PLAN)
        assert f"{path} does not hold images 4 to 7, each once" in message


class TestPartials:
    PLAN = make_plan(("X", 10), shard_images=4)

    def test_round_trip(self, run):
        compute(run, self.PLAN)
        table = read_partial(run, self.PLAN, self.PLAN.shards[1], compute=COMPUTE)
        rows = [make_row("X", i) for i in range(4, 8)]
        missing = dict.fromkeys(field.name for field in fields(ImageSummary))
        assert [row.summary is None for row in rows] == [False, False, True, False]
        assert table.to_pylist() == [
            {
                "index": row.index,
                "status": row.status,
                "reason": row.reason,
                **(asdict(row.summary) if row.summary else missing),
            }
            for row in rows
        ]

    def test_not_there_yet(self, run):
        assert read_partial(run, self.PLAN, self.PLAN.shards[0]) is None

    def test_any_compute_setting_where_none_is_given(self, run):
        compute(run, self.PLAN, compute_setting="bfloat16")
        assert read_partial(run, self.PLAN, self.PLAN.shards[0]) is not None

    def test_same_rows_same_bytes(self, run, tmp_path):
        other = CountRun(tmp_path / "other")
        compute(run, self.PLAN)
        compute(other, self.PLAN)
        assert run.part(1).read_bytes() == other.part(1).read_bytes()

    def test_all_images_failed(self, run):
        plan = make_plan(("X", 3))
        rows = [ImageRow(i, None, "broken") for i in range(3)]
        write_partial(run, plan, plan.shards[0], tabulate(rows, plan), compute=COMPUTE)
        merged = merge(run, plan, "csv", compute=COMPUTE)
        assert (merged.n_images, merged.n_failed, merged.n_nuclei) == (3, 3, 0)

    def test_find_missing(self, run):
        assert find_missing(run, self.PLAN) == list(self.PLAN.shards)
        compute(run, self.PLAN, self.PLAN.shards[1:2])
        assert find_missing(run, self.PLAN) == [
            self.PLAN.shards[0],
            self.PLAN.shards[2],
        ]
        compute(run, self.PLAN)
        assert find_missing(run, self.PLAN) == []

    def test_unreadable_input_is_never_missing(self, run):
        plan = make_plan(unreadable=[UNREADABLE])
        assert find_missing(run, plan) == []


class TestRows:
    """Rows of a shard under any name: what is done of it before it is whole."""

    @pytest.fixture
    def shard(self, run):
        self.plan = make_plan(("X", 12), shard_images=12)
        self.path = run.root / "rows.parquet"
        return self.plan.shards[0]

    def test_round_trip(self, shard):
        rows = [make_row("X", index) for index in (1, 4, 5, 11)]
        assert {row.summary is None for row in rows} == {True, False}
        assert any(row.summary and row.summary.mean_area_px is None for row in rows)
        write_rows(self.path, self.plan, shard, rows, compute=COMPUTE)
        found = read_rows(self.path, self.plan, shard, compute=COMPUTE)
        assert found == {row.index: row for row in rows}

    def test_none(self, shard):
        write_rows(self.path, self.plan, shard, [], compute=COMPUTE)
        assert read_rows(self.path, self.plan, shard, compute=COMPUTE) == {}

    def test_of_another_compute_setting(self, shard):
        write_rows(self.path, self.plan, shard, [make_row("X", 1)], compute="other")
        with pytest.raises(RunError, match="belongs to another compute") as caught:
            read_rows(self.path, self.plan, shard, compute=COMPUTE)
        assert str(self.path) in str(caught.value)

    def test_of_another_plan(self, shard):
        write_rows(self.path, self.plan, shard, [make_row("X", 1)], compute=COMPUTE)
        other = make_plan(("X", 13), shard_images=12)
        with pytest.raises(RunError, match="belongs to another plan"):
            read_rows(self.path, other, other.shards[0], compute=COMPUTE)


class TestTabulate:
    PLAN = make_plan(("X", 5000), shard_images=5000)

    def test_of_more_rows_than_are_kept_at_a_time(self):
        rows = [make_row("X", index) for index in range(2500)]
        table = tabulate(iter(rows), self.PLAN)
        assert [ImageRow.from_dict(row) for row in table.to_pylist()] == rows

    def test_takes_rows_only_as_far_as_it_has_made_a_table_of_those_before(self):
        seen = []

        def come():
            for index in range(5000):
                seen.append(pa.total_allocated_bytes())
                yield make_row("X", index)

        tabulate(come(), self.PLAN)
        # The table of the first 2,000 is there before the last 1,000 are made.
        assert seen[4000] - seen[0] > 2000 * 50

    def test_of_no_rows(self):
        table = tabulate([], self.PLAN)
        assert table.num_rows == 0
        assert table.schema.equals(ROWS)


class TestIncomplete:
    @pytest.fixture
    def plan(self, run):
        plan = make_plan(("X", 10), shard_images=3, unreadable=[UNREADABLE])
        compute(run, plan, [plan.shards[0], plan.shards[2]])
        return plan

    def merge(self, run, plan, table_format="csv", **options):
        return merge(run, plan, table_format, compute=COMPUTE, **options)

    @pytest.mark.parametrize("table_format", ["csv", "parquet"])
    def test_holds_what_is_there(self, run, plan, table_format):
        merged = self.merge(run, plan, table_format, incomplete=True)
        assert (merged.n_images, merged.n_missing) == (6, 2)
        assert merged.path.name == f"counts.partial.{table_format}"
        reader = pd.read_csv if table_format == "csv" else pd.read_parquet
        rows = reader(merged.path)["index"]
        assert rows.dropna().tolist() == [0, 1, 2, 6, 7, 8]
        assert rows.isna().tolist() == [False] * 6 + [True]

    def test_leaves_the_name_of_the_whole_table_free(self, run, plan):
        self.merge(run, plan, incomplete=True)
        assert not run.table("csv").exists()
        with pytest.raises(RunError, match=r"shard 1 .* has no partial table"):
            self.merge(run, plan)

    def test_of_a_whole_run_is_the_same_table(self, run, plan):
        compute(run, plan)
        merged = self.merge(run, plan, incomplete=True)
        assert merged.n_missing == 0
        assert merged.path.read_bytes() == self.merge(run, plan).path.read_bytes()

    def test_damage_is_refused_all_the_same(self, run, plan):
        run.part(0).write_bytes(b"")
        with pytest.raises(RunError, match="damaged"):
            self.merge(run, plan, incomplete=True)
