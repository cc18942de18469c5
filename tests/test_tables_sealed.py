"""A partial table is the one that was written, or it is refused and named."""

import contextlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleiseg.errors import RunError
from nucleiseg.runs import CountRun
from nucleiseg.shards import ArchiveRef, Block, Entry, Plan
from nucleiseg.tables import (
    BlockRow,
    find_done,
    find_missing,
    merge,
    read_partial,
    read_rows,
    tabulate,
    write_block_partial,
    write_partial,
    write_rows,
)
from nucleiseg.tables.handfuls import map_by_handfuls
from nucleiseg.tables.values import hash_values
from tests.test_tables import COMPUTE, compute, make_plan, make_row

ARCHIVES = (ArchiveRef("/data/a.npz", "a.npz", "0123"),)


@pytest.fixture(autouse=True)
def _no_power_cuts(monkeypatch):
    monkeypatch.setattr("nucleiseg.atomic._sync", lambda path: None)


@pytest.fixture
def run(tmp_path):
    run = CountRun(tmp_path / "run")
    run.parts.mkdir(parents=True)
    return run


def flip_each_byte(path, read):
    """Flip one bit of each byte in turn; each must be refused, in one line."""
    content = path.read_bytes()
    expected = read()
    messages = []
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(RunError) as caught:
            read()
        messages.append(str(caught.value))
    path.write_bytes(content)
    assert read().equals(expected)
    for message in messages:
        assert str(path) in message
        assert "delete it and run the same command again" in message
        assert "\n" not in message
        assert "have SHA-256" in message


def flip_a_value(path):
    """Flip the lowest bit of the first count, which Parquet does not notice."""
    before = pq.read_table(path)
    column = pq.read_metadata(path).row_group(0).column(1)
    content = bytearray(path.read_bytes())
    for place in range(column.dictionary_page_offset, column.data_page_offset):
        content[place] ^= 1
        path.write_bytes(content)
        with contextlib.suppress(OSError, pa.ArrowException):
            after = pq.read_table(path)
            if after.num_rows == before.num_rows and not after.equals(before):
                return
        content[place] ^= 1
    pytest.fail("no byte of the counts can be changed unnoticed")


class TestFlippedBytes:
    def test_of_rows(self, run):
        plan = make_plan(("X", 4))
        compute(run, plan)
        flip_each_byte(run.part(0), lambda: read_partial(run, plan, plan.shards[0]))

    def test_of_a_block(self, run):
        block = Entry(0, 0, "X", 0, 1, 90, 90, block=Block(0, 0, 90, 45))
        plan = Plan(ARCHIVES, (block,), {})
        write_block_partial(
            run, plan, block, BlockRow(bytes(range(99))), compute=COMPUTE
        )
        flip_each_byte(run.part(0), lambda: read_partial(run, plan, block))

    @pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
    def test_of_a_file_that_was_cut(self, run, share):
        plan = make_plan(("X", 4))
        compute(run, plan)
        content = run.part(0).read_bytes()
        run.part(0).write_bytes(content[: int(share * len(content))])
        with pytest.raises(RunError, match=r"is damaged .* run the same command again"):
            read_partial(run, plan, plan.shards[0])

    def test_stops_the_merge(self, run):
        plan = make_plan(("X", 9))
        compute(run, plan)
        path = run.part(1)
        flip_a_value(path)
        with pytest.raises(RunError, match=f"{path} is damaged .*SHA-256") as caught:
            merge(run, plan, "csv", compute=COMPUTE)
        assert "delete it and run the same command again" in str(caught.value)
        assert not run.table("csv").exists()

    def test_in_rows_of_a_part(self, run):
        plan = make_plan(("X", 3))
        path = run.root / "rows.parquet"
        write_rows(path, plan, plan.shards[0], [make_row("X", 0)], compute=COMPUTE)
        flip_a_value(path)
        with pytest.raises(RunError, match="SHA-256"):
            read_rows(path, plan, plan.shards[0], compute=COMPUTE)

    def test_rows_that_are_gone_are_named(self, run):
        plan = make_plan(("X", 3))
        with pytest.raises(RunError, match=r"rows\.parquet is gone"):
            read_rows(run.root / "rows.parquet", plan, plan.shards[0], compute=COMPUTE)

    @pytest.mark.parametrize("column", ["reason", "confidence", "count"])
    def test_other_columns_are_refused(self, run, column):
        plan = make_plan(("X", 3))
        shard = plan.shards[0]
        rows = [make_row("X", index) for index in range(3)]
        table = tabulate(rows, plan).drop_columns(column)
        write_partial(run, plan, shard, table, compute=COMPUTE)
        with pytest.raises(RunError, match=f"damaged .*expected .*{column}"):
            read_partial(run, plan, plan.shards[0])


class TestWithoutSeal:
    """Partial tables of earlier versions, with the hash of their values."""

    PLAN = make_plan(("X", 3))

    def write(self, run, **stamps):
        compute(run, self.PLAN)
        table = pq.read_table(run.part(0))
        stamps |= json.loads(pq.read_metadata(run.part(0)).metadata[b"nucleiseg"])
        old = table.replace_schema_metadata({"nucleiseg": json.dumps(stamps)})
        pq.write_table(old, run.part(0))
        return table

    def test_with_the_hash_of_its_values(self, run):
        table = self.write(run)
        self.write(run, content=hash_values(table))
        assert read_partial(run, self.PLAN, self.PLAN.shards[0]).equals(table)

    def test_with_that_of_others(self, run):
        self.write(run, content="0" * 64)
        with pytest.raises(RunError, match=r"values have SHA-256 .* and 0+ were"):
            read_partial(run, self.PLAN, self.PLAN.shards[0])

    def test_with_none(self, run):
        self.write(run)
        with pytest.raises(RunError, match="None were written"):
            read_partial(run, self.PLAN, self.PLAN.shards[0])


TEXT = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
COLUMNS = st.integers(0, 5).flatmap(
    lambda n: st.tuples(
        *(
            st.lists(values, min_size=n, max_size=n)
            for values in (
                TEXT,
                st.none() | st.integers(-2, 2),
                st.none() | st.sampled_from([0.0, -0.0, 1.5]),
                st.none() | st.binary(max_size=2),
            )
        )
    )
)
TYPES = pa.string(), pa.int64(), pa.float64(), pa.binary()


def make_table(columns):
    arrays = [pa.array(v, t) for v, t in zip(columns, TYPES, strict=True)]
    return pa.table(arrays, names=["text", "number", "share", "bytes"])


class TestHash:
    @settings(deadline=None)
    @given(COLUMNS, COLUMNS)
    def test_is_equal_only_for_equal_tables(self, one, other):
        # By text, which tells -0.0 from 0.0.
        is_same = repr(one) == repr(other)
        same_hash = hash_values(make_table(one)) == hash_values(make_table(other))
        assert same_hash == is_same

    @settings(deadline=None)
    @given(COLUMNS, st.integers(0, 5))
    def test_does_not_depend_on_where_it_lies(self, columns, place):
        table = make_table(columns)
        expected = hash_values(table)
        n_rows = table.num_rows
        twice = pa.concat_tables([table, table])
        assert hash_values(twice.slice(0, n_rows)) == expected
        assert hash_values(twice.slice(n_rows)) == expected
        place = min(place, n_rows)
        pieces = [table.slice(0, place), table.slice(place)]
        assert hash_values(pa.concat_tables(pieces)) == expected

    def test_does_not_depend_on_what_lies_under_a_null(self):
        valid = pa.py_buffer(b"\x05")
        arrays = [
            pa.Array.from_buffers(
                pa.int64(), 3, [valid, pa.array([1, under, 3], pa.int64()).buffers()[1]]
            )
            for under in (0, 99)
        ]
        one, other = (hash_values(pa.table({"n": array})) for array in arrays)
        assert one == other

    def test_does_not_depend_on_text_under_a_null(self):
        texts = pa.array(["a", "under", "c"], pa.string()).buffers()
        hidden = pa.Array.from_buffers(
            pa.string(), 3, [pa.py_buffer(b"\x05"), *texts[1:]]
        )
        plain = pa.array(["a", None, "c"], pa.string())
        hashes = [hash_values(pa.table({"t": array})) for array in (hidden, plain)]
        assert hidden.equals(plain)
        assert hashes[0] == hashes[1]

    def test_is_that_of_earlier_versions(self):
        # Or the partial tables of a run that was begun with one would be refused.
        table = pa.table(
            {
                "index": pa.array([4, 5, 6], pa.int64()),
                "count": pa.array([7, None, 0], pa.int64()),
                "mean": pa.array([None, 0.5, -0.0], pa.float64()),
                "reason": pa.array([None, "too dark", ""], pa.string()),
                "labels": pa.array([b"ab", None, b""], pa.large_binary()),
            }
        )
        expected = "31c139cfb6bdf4d199f51e1cd13dbf1a16cc2847d112f77ff2d3a5b57881f0e7"
        assert hash_values(table) == expected

    def test_moved_letters_show(self):
        tables = [
            pa.table({"text": pa.array(texts, pa.string())})
            for texts in (["ab", "c"], ["a", "bc"], ["abc", ""], ["abc", None])
        ]
        assert len({hash_values(table) for table in tables}) == 4

    def test_names_and_types_show(self):
        tables = [
            pa.table({"a": pa.array([1], pa.int64())}),
            pa.table({"b": pa.array([1], pa.int64())}),
            pa.table({"a": pa.array([1], pa.uint64())}),
        ]
        assert len({hash_values(table) for table in tables}) == 3


class TestListing:
    PLAN = make_plan(("X", 12))

    def test_without_a_folder_all_are_missing(self, tmp_path):
        run = CountRun(tmp_path / "none")
        assert find_missing(run, self.PLAN) == self.PLAN.shards
        assert find_done(run, self.PLAN).tolist() == [False] * 4

    @pytest.mark.parametrize(
        "name",
        [
            "1.parquet",
            "0000001.parquet",
            "000001.parquet.bak",
            "000001.json",
            "000001",
            "-00001.parquet",
            "٠٠٠٠٠١.parquet",
            "000004.parquet",
            "9" * 200 + ".parquet",
        ],
    )
    def test_names_that_are_almost_right_are_no_tables(self, run, name):
        (run.parts / name).touch()
        assert not find_done(run, self.PLAN).any()
        with pytest.raises(RunError, match="is no shard of the plan"):
            merge(run, self.PLAN, "csv", compute=COMPUTE)

    def test_of_several_the_first_is_named(self, run):
        for name in ("zz", "b", "c"):
            (run.parts / name).touch()
        with pytest.raises(RunError, match="/b is no shard"):
            merge(run, self.PLAN, "csv", compute=COMPUTE)

    def test_by_number(self, run):
        compute(run, self.PLAN, self.PLAN.shards[1:3])
        assert find_done(run, self.PLAN).tolist() == [False, True, True, False]
        assert [shard.shard for shard in find_missing(run, self.PLAN)] == [0, 3]

    def test_numbers_of_more_than_six_digits(self, run):
        shards = [Entry(0, n, "X", n, n + 1, 8, 8) for n in range(1_000_001)]
        plan = Plan(ARCHIVES, shards, {})
        write_partial(
            run,
            plan,
            plan.shards[-1],
            tabulate([make_row("X", 1_000_000)], plan),
            compute=COMPUTE,
        )
        assert len(find_missing(run, plan)) == 1_000_000


class TestHandfuls:
    def test_in_order(self):
        items = list(range(500))
        assert list(map_by_handfuls(str, items, size=lambda _: 1)) == list(
            map(str, items)
        )

    def test_nothing(self):
        assert list(map_by_handfuls(str, [], size=lambda _: 1)) == []

    @pytest.mark.parametrize("size", [1, 2**15, 2**17, 2**30])
    def test_no_further_than_memory_allows(self, size):
        taken = []

        def items():
            for number in range(300):
                taken.append(number)
                yield number

        results = map_by_handfuls(str, items(), size=lambda _: size)
        assert next(results) == "0"
        assert len(taken) <= max(1, min(64, 2**17 // size)) + 1
        assert len(list(results)) == 299

    def test_the_first_failure_in_order_is_raised_and_the_rest_is_left(self):
        begun = []

        def fail(number):
            begun.append(number)
            if number >= 10:
                raise RunError(f"shard {number}")
            return number

        results = map_by_handfuls(fail, range(10_000), size=lambda _: 1)
        with pytest.raises(RunError, match="shard 10"):
            list(results)
        assert len(begun) < 200
