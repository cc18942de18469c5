"""A plan in columns behaves as the tuple of entries that it stands for."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleiseg.shards import (
    ArchiveRef,
    Block,
    Entries,
    Entry,
    Plan,
    read_plan,
    shortest_names,
    write_plan,
)

ARCHIVES = tuple(ArchiveRef(f"/d/{n}.npz", f"{n}.npz", str(n)) for n in range(3))
KEYS = st.sampled_from(["X", "/wells/A1/images", "ä, \n'", ""])
NUMBERS = st.integers(0, 2**40)


@st.composite
def draw_entries(draw):
    """Entries of every kind, the shards numbered in order."""
    entries = []
    n_shards = 0
    for _ in range(draw(st.integers(0, 12))):
        archive, key, start = draw(st.integers(0, 2)), draw(KEYS), draw(NUMBERS)
        kind = draw(st.sampled_from(["shard", "blocks", "unreadable", "archive"]))
        if kind == "unreadable":
            entries.append(Entry(archive, dataset=key, reason=draw(KEYS)))
        elif kind == "archive":
            entries.append(Entry(archive, reason=draw(KEYS)))
        elif kind == "shard":
            stop = start + draw(st.integers(1, 1000))
            entries.append(Entry(archive, n_shards, key, start, stop, 8, draw(NUMBERS)))
            n_shards += 1
        else:
            for n in range(draw(st.integers(1, 3))):
                block = Block(0, 50 * n, 100, 50 * n + 50)
                shard = Entry(archive, n_shards, key, start, start + 1, 100, 150)
                entries.append(dataclasses.replace(shard, block=block))
                n_shards += 1
    return entries


def make(entries, **options):
    return Plan(ARCHIVES, tuple(entries), {"model": "m"}, **options)


class TestAsASequence:
    @given(draw_entries())
    def test_is_what_it_was_made_of(self, entries):
        found = make(entries).entries
        assert found == entries
        assert entries == found
        assert found == tuple(entries)
        assert list(found) == entries
        assert [found[n] for n in range(len(found))] == entries
        assert list(reversed(found)) == entries[::-1]

    @given(draw_entries(), st.slices(12))
    def test_slices(self, entries, places):
        assert list(make(entries).entries[places]) == entries[places]

    @given(draw_entries(), draw_entries())
    def test_equality_is_that_of_the_entries(self, one, other):
        assert (make(one).entries == make(other).entries) == (one == other)
        assert (make(one).entries != other) == (one != other)

    def test_equality_does_not_depend_on_the_texts_of_other_rows(self):
        one, two = Entry(0, 0, "a", 0, 1), Entry(0, 1, "b", 0, 1)
        assert Entries.collect([one, two])[1:] == Entries.collect([two])
        assert Entries.collect([one, two])[1:] != Entries.collect([one])

    def test_ends_and_finds(self):
        shards = [Entry(0, n, "X", n, n + 1, 8, 8) for n in range(5)]
        found = make(shards).shards
        assert found[-1] == shards[-1]
        assert found.index(shards[3]) == 3
        assert shards[2] in found
        with pytest.raises(IndexError):
            found[5]

    def test_of_more_rows_than_are_taken_at_a_time(self):
        shards = [Entry(0, n, "X", n, n + 1, 8, 8) for n in range(10_000)]
        assert list(make(shards).shards) == shards

    def test_no_object_a_row(self):
        rows = make([Entry(0, n, "X", n, n + 1) for n in range(1000)]).columns.rows
        assert rows.nbytes <= 80 * 1000
        with pytest.raises(ValueError, match="read-only"):
            rows["stop"][0] = 7


class TestPlan:
    @given(draw_entries())
    def test_sums(self, entries):
        plan = make(entries)
        shards = [entry for entry in entries if entry.shard is not None]
        assert plan.shards == shards
        assert plan.unreadable == [entry for entry in entries if entry.shard is None]
        assert plan.n_images == sum(shard.n_new_images for shard in shards)
        assert plan.n_images == sum(
            shard.n_images
            for shard in shards
            if shard.block is None or shard.is_first_block
        )
        keys = [(shard.archive, shard.dataset) for shard in shards]
        assert plan.datasets == list(dict.fromkeys(keys))
        for share in plan.dataset_shares:
            mine = [
                s for s, k in zip(shards, keys, strict=True) if k == share_key(share)
            ]
            assert share.n_shards == len(mine)
            assert share.n_images == sum(shard.n_new_images for shard in mine)
            assert share.image_shape == mine[0].image_shape

    @settings(max_examples=30, deadline=None)
    @given(draw_entries(), st.none() | st.integers(1, 2**40))
    def test_round_trip(self, tmp_path_factory, entries, shard_pixels):
        path = tmp_path_factory.mktemp("plan") / "plan.parquet"
        plan = make(entries, shard_pixels=shard_pixels)
        write_plan(path, plan)
        found = read_plan(path)
        assert found == plan
        assert found.identity == plan.identity
        assert found.shard_pixels == shard_pixels

    @settings(deadline=None)
    @given(draw_entries(), st.data())
    def test_identity_changes_with_every_value(self, entries, data):
        if not entries:
            return
        place = data.draw(st.integers(0, len(entries) - 1))
        entry = entries[place]
        name = data.draw(
            st.sampled_from([field.name for field in dataclasses.fields(Entry)])
        )
        value = getattr(entry, name)
        if name == "block":
            other = Block(1, 2, 3, 4)
        elif name in ("dataset", "reason"):
            other = f"{value}!"
        else:
            other = 7 if value is None else value + 1
        changed = [*entries]
        changed[place] = dataclasses.replace(entry, **{name: other})
        assert make(changed).identity != make(entries).identity

    def test_identity_does_not_run_names_together(self):
        one = [Entry(0, 0, "a", 0, 1), Entry(0, 1, "b", 0, 1)]
        swapped = [Entry(0, 0, "b", 0, 1), Entry(0, 1, "a", 0, 1)]
        joined = [Entry(0, 0, 'a", "b', 0, 1), Entry(0, 1, "b", 0, 1)]
        as_reason = [Entry(0, dataset="a", reason="b"), Entry(0, 0, "b", 0, 1)]
        identities = {make(p).identity for p in (one, swapped, joined, as_reason)}
        assert len(identities) == 4

    def test_identity_is_the_same_in_every_version_and_place(self):
        """Runs that were begun go on: a change here must be a new version prefix."""
        shards = [Entry(0, 0, "X", 0, 5, 8, 12), Entry(1, reason="gone")]
        assert make(shards).identity == IDENTITY

    def test_pixels_a_shard_are_not_in_the_identity(self):
        assert make([], shard_pixels=1).identity == make([], shard_pixels=2).identity

    def test_describe_block(self):
        block = Entry(0, 0, "/X", 3, 4, 4000, 4000, block=Block(0, 0, 1920, 1920))
        assert (
            make([block]).describe(block) == "0.npz:/X[3] rows 0:1920, columns 0:1920"
        )

    def test_blocks_index_an_image(self):
        assert Block(1, 2, 3, 4).core == (slice(1, 3), slice(2, 4))


IDENTITY = "3f103ac80a74fa6b17c0683691bb7639b75c51119f351a5f42352685e83b1fec"


def share_key(share):
    return share.archive, share.dataset


def find_names_slowly(paths):
    """Compare each path with every other, suffix by suffix."""
    names = []
    for path in paths:
        length = 1
        while length < len(path.parts) and any(
            other.parts[-length:] == path.parts[-length:]
            for other in paths
            if other != path
        ):
            length += 1
        names.append(str(Path(*path.parts[-length:])))
    return names


PARTS = st.lists(st.sampled_from(["a", "b", "aa", "x.npz"]), min_size=1, max_size=5)


class TestShortestNames:
    @given(st.lists(PARTS, max_size=12))
    def test_against_comparing_all(self, parts):
        paths = [Path("/", *names) for names in parts]
        assert shortest_names(paths) == find_names_slowly(paths)

    def test_of_a_hundred_thousand(self):
        """Seconds, where comparing all with all takes hours."""
        paths = [Path(f"/d/{n // 100}/{n % 100}.npz") for n in range(100_000)]
        names = shortest_names(paths)
        assert names[0] == "0/0.npz"
        assert len(set(names)) == len(paths)
