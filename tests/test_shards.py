"""The plan: every image once, in order, and the same plan for the same run."""

import dataclasses
import os
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nucleiseg.config import Config
from nucleiseg.errors import RunError
from nucleiseg.shards import (
    Entry,
    explain_difference,
    make_plan,
    read_plan,
    shortest_names,
    write_plan,
)


def draw_stack(n_images, height=8, width=12, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 255, (n_images, height, width), dtype=np.uint8)


def save_plate(path, **wells):
    with h5py.File(path, "w") as file:
        for well, stack in wells.items():
            file[f"wells/{well}/images"] = stack
    return path


@pytest.fixture
def folder(tmp_path):
    """Two archives: `a.npz` with X of 5 images, `plate.h5` with two wells."""
    archives = tmp_path / "archives"
    archives.mkdir()
    np.savez(archives / "a.npz", X=draw_stack(5))
    save_plate(
        archives / "plate.h5", A1=draw_stack(3, 16, 16), A2=draw_stack(4, 10, 20)
    )
    return archives


@pytest.fixture
def plan(folder, make_bundle):
    """Plan inputs, named from the folder on, under settings `section.key`."""
    model = make_bundle()

    def plan_inputs(*inputs, model=model, **sections):
        names = [str(folder / name) for name in inputs]
        return make_plan(names, Config.model_validate(sections), model)

    return plan_inputs


def list_shards(plan):
    return [
        (plan.archives[e.archive].name, e.dataset, e.start, e.stop) for e in plan.shards
    ]


class TestMakePlan:
    def test_in_the_order_of_the_inputs_and_of_the_archive(self, plan):
        inputs = "plate.h5:/wells/*/images", "a.npz"
        assert list_shards(plan(*inputs, shards={"images": 2})) == [
            ("plate.h5", "/wells/A1/images", 0, 2),
            ("plate.h5", "/wells/A1/images", 2, 3),
            ("plate.h5", "/wells/A2/images", 0, 2),
            ("plate.h5", "/wells/A2/images", 2, 4),
            ("a.npz", "X", 0, 2),
            ("a.npz", "X", 2, 4),
            ("a.npz", "X", 4, 5),
        ]

    def test_numbers_are_consecutive_over_all_inputs(self, plan):
        found = plan("a.npz", "plate.h5:/wells/*/images", shards={"images": 2})
        assert [entry.shard for entry in found.shards] == list(range(7))

    def test_shapes_and_sums(self, plan):
        found = plan("a.npz", "plate.h5:/wells/*/images")
        assert [entry.image_shape for entry in found.shards] == [
            (8, 12),
            (16, 16),
            (10, 20),
        ]
        assert [entry.n_images for entry in found.shards] == [5, 3, 4]
        assert found.n_images == 12
        assert found.datasets == [
            (0, "X"),
            (1, "/wells/A1/images"),
            (1, "/wells/A2/images"),
        ]
        assert found.unreadable == []

    @pytest.mark.parametrize(
        ("shards", "sizes"),
        [
            ({}, [5]),
            ({"images": 1}, [1] * 5),
            ({"images": 3}, [3, 2]),
            ({"images": 5}, [5]),
            ({"images": 100}, [5]),
            # An image has 96 pixels.
            ({"pixels": 96}, [1] * 5),
            ({"pixels": 191}, [1] * 5),
            ({"pixels": 192}, [2, 2, 1]),
            ({"pixels": 480}, [5]),
            # One image is the least, however large.
            ({"pixels": 1}, [1] * 5),
            ({"images": 2, "pixels": 1}, [2, 2, 1]),
        ],
    )
    def test_size_of_shards(self, plan, shards, sizes):
        found = plan("a.npz", shards=shards)
        assert [entry.n_images for entry in found.shards] == sizes
        covered = [
            index for entry in found.shards for index in range(entry.start, entry.stop)
        ]
        assert covered == list(range(5))

    def test_single_image(self, plan, folder):
        np.savez(folder / "one.npz", X=draw_stack(1)[0])
        assert list_shards(plan("one.npz")) == [("one.npz", "X", 0, 1)]

    def test_empty_stack_gives_no_shard(self, plan, folder):
        np.savez(folder / "empty.npz", X=draw_stack(0))
        found = plan("empty.npz", "a.npz")
        assert list_shards(found) == [("a.npz", "X", 0, 5)]
        assert found.unreadable == []

    def test_archives_are_known_by_absolute_path_and_fingerprint(
        self, plan, folder, monkeypatch, make_bundle
    ):
        monkeypatch.chdir(folder)
        relative = make_plan(["a.npz"], Config(), make_bundle())
        (archive,) = relative.archives
        assert archive.path == str(folder / "a.npz")
        assert archive.fingerprint
        assert relative.identity == plan("a.npz").identity

    def test_describe(self, plan):
        found = plan("a.npz", "missing.npz", "plate.h5:/none", shards={"images": 3})
        assert [found.describe(entry) for entry in found.entries] == [
            "a.npz:X[0:3]",
            "a.npz:X[3:5]",
            "missing.npz",
            "plate.h5:/none",
        ]


class TestUnreadable:
    def test_is_an_entry_in_its_place_and_the_others_are_planned(self, plan, folder):
        (folder / "text.npz").write_text("no archive")
        (folder / "cut.npz").write_bytes((folder / "a.npz").read_bytes()[:200])
        found = plan("missing.npz", "a.npz", "text.npz", "cut.npz", "plate.h5")
        assert [entry.shard for entry in found.entries] == [None, 0, None, None, None]
        reasons = {
            found.archives[entry.archive].name: entry.reason
            for entry in found.unreadable
        }
        assert list(reasons) == ["missing.npz", "text.npz", "cut.npz", "plate.h5"]
        assert "not found" in reasons["missing.npz"]
        assert "looks like neither npz nor HDF5" in reasons["text.npz"]
        assert "truncated" in reasons["cut.npz"]
        assert "/wells/A1/images" in reasons["plate.h5"]  # which of the two?

    def test_key_that_matches_nothing(self, plan):
        found = plan("plate.h5:/wells/*/masks", "plate.h5:/wells/A1/images")
        failed, shard = found.entries
        assert failed.dataset == "/wells/*/masks"
        assert "no dataset matches" in failed.reason
        assert shard.shard == 0
        assert shard.archive == failed.archive == 0
        assert found.archives[0].fingerprint

    def test_reason_is_without_the_path(self, plan, folder):
        (entry,) = plan("missing.npz").unreadable
        assert str(folder) not in entry.reason
        assert entry.reason.startswith("not found")

    def test_has_no_fingerprint(self, plan):
        assert plan("missing.npz").archives[0].fingerprint is None

    def test_what_a_glob_matches_and_is_unfit_is_an_entry(self, plan, folder):
        with h5py.File(folder / "wells.h5", "w") as file:
            file["wells/a/images"] = np.zeros((2, 9, 9), "uint8")
            file["wells/b/images"] = np.zeros((2, 9, 9), "int64")
            file["wells/c/images"] = np.zeros((2, 9, 9, 3), "uint8")
            file["wells/d/names"] = ["x", "y"]
            file["wells/e/positions"] = np.zeros((20, 2))
        found = plan("wells.h5:/wells/*/*")
        assert [entry.dataset for entry in found.entries] == [
            "/wells/a/images",
            "/wells/b/images",
            "/wells/c/images",
        ]
        assert found.entries[0].shard == 0
        assert "has dtype int64" in found.entries[1].reason
        assert "colour" in found.entries[2].reason

    def test_an_empty_stack_is_told(self, plan, folder, caplog):
        np.savez(folder / "none.npz", X=np.zeros((0, 9, 9), np.uint8))
        assert plan("none.npz:X").entries == ()
        assert "none.npz:X holds 0 images" in caplog.text

    def test_a_name_that_no_table_can_hold_is_escaped(self, plan, folder):
        np.savez(folder / "two\nlines.npz", X=np.zeros((1, 9, 9), np.uint8))
        found = plan("two\nlines.npz", "\udcff.npz")
        assert "\n" not in found.archives[0].name
        found.archives[1].name.encode("utf-8")

    def test_a_key_that_no_table_can_hold_is_escaped(self, plan, folder):
        with h5py.File(folder / "odd.h5", "w") as file:
            file["wells/a"] = np.zeros((2, 9, 9), "uint8")
            file.create_dataset(b"wells/\xff", data=np.zeros((2, 9, 9), "uint8"))
        found = plan("odd.h5:/wells/*")
        assert [entry.shard for entry in found.entries] == [0, None]
        assert found.entries[1].dataset == r"/wells/\udcff"
        write_plan(folder / "plan.parquet", found)
        assert read_plan(folder / "plan.parquet") == found

    def test_names_that_differ_in_white_space_stay_apart(self, plan, folder):
        names = ["a b.npz", "a\tb.npz", "a  b.npz"]
        for name in names:
            np.savez(folder / name, X=np.zeros((1, 9, 9), np.uint8))
        found = [archive.name for archive in plan(*names).archives]
        assert found == ["a b.npz", r"a\tb.npz", "a  b.npz"]

    def test_image_that_fails_to_open_is_named_by_its_key(self, plan, folder):
        np.savez(folder / "colour.npz", X=np.zeros((4, 9, 9, 3), np.uint8))
        (entry,) = plan("colour.npz:X").unreadable
        assert entry.dataset == "X"
        assert entry.reason.startswith("has shape (4, 9, 9, 3), which is colour")


class TestNamedTwice:
    def expect_once(self, plan, *inputs):
        found = plan(*inputs)
        assert found.n_images == 7
        assert len(set(list_shards(found))) == len(found.shards) == 2
        assert [entry.shard for entry in found.shards] == [0, 1]
        return found

    def test_same_name(self, plan):
        glob = "plate.h5:/wells/*/images"
        found = self.expect_once(plan, glob, glob)
        assert len(found.archives) == 1

    def test_overlapping_globs(self, plan, caplog):
        self.expect_once(plan, "plate.h5:/wells/A2/images", "plate.h5:/wells/*/images")
        assert "plate.h5:/wells/A2/images is named twice" in caplog.text

    def test_two_names_of_one_dataset(self, plan, folder, caplog):
        with h5py.File(folder / "plate.h5", "a") as file:
            file["days/1"] = file["wells"]
        self.expect_once(plan, "plate.h5:/wells/*/images", "plate.h5:/days/1/*/images")
        assert "plate.h5:/days/1/A1/images is named twice" in caplog.text

    def test_leading_slash(self, plan):
        self.expect_once(plan, "plate.h5:/wells/*/images", "plate.h5:wells/A1/images")

    @pytest.mark.parametrize(
        "names", [("plate.h5", "link.h5"), ("link.h5", "plate.h5")]
    )
    def test_symlink(self, plan, folder, names):
        (folder / "link.h5").symlink_to("plate.h5")
        self.expect_once(plan, *(f"{name}:/wells/*/images" for name in names))

    def test_dots_in_the_path(self, plan, folder):
        (folder / "more").mkdir()
        glob = ":/wells/*/images"
        self.expect_once(plan, f"plate.h5{glob}", f"more/../plate.h5{glob}")

    def test_two_files_of_one_content_are_two(self, plan, folder):
        (folder / "copy.npz").write_bytes((folder / "a.npz").read_bytes())
        assert plan("a.npz", "copy.npz").n_images == 10

    def test_unreadable_input(self, plan):
        assert len(plan("missing.npz", "missing.npz").entries) == 1


class TestShortestNames:
    @pytest.mark.parametrize(
        ("paths", "names"),
        [
            (["/d/x.npz"], ["x.npz"]),
            (["/d/x.npz", "/d/y.npz"], ["x.npz", "y.npz"]),
            (
                ["/a/x.npz", "/b/x.npz", "/b/y.npz"],
                ["a/x.npz", "b/x.npz", "y.npz"],
            ),
            (
                ["/1/a/x.npz", "/2/a/x.npz", "/2/b/x.npz"],
                ["1/a/x.npz", "2/a/x.npz", "b/x.npz"],
            ),
            (["/x.npz", "/a/x.npz"], ["/x.npz", "a/x.npz"]),
            (["/a/x.npz", "/b/a/x.npz"], ["/a/x.npz", "b/a/x.npz"]),
            # A suffix of letters is no suffix of the path.
            (["/a/x.npz", "/a/xx.npz"], ["x.npz", "xx.npz"]),
            ([], []),
        ],
    )
    def test_by_hand(self, paths, names):
        assert shortest_names([Path(path) for path in paths]) == names


class TestReason:
    def test_names_neither_archive_nor_key(self, tmp_path, make_bundle):
        folder = tmp_path / "plate: 7  of 9"
        folder.mkdir()
        np.savez(folder / "x.npz", X=np.zeros((3, 9, 9)))
        for text in (folder / "missing.npz", f"{folder / 'x.npz'}:Y"):
            (entry,) = make_plan([str(text)], Config(), make_bundle()).entries
            assert "plate" not in entry.reason
            assert entry.reason


class TestIdentity:
    INPUTS = "a.npz", "plate.h5:/wells/*/images"

    def test_same_for_the_same_run(self, plan):
        assert plan(*self.INPUTS).identity == plan(*self.INPUTS).identity

    @pytest.mark.parametrize(
        "sections",
        [
            {"instances": {"threshold": 0.4}},
            {"instances": {"min_area_px": 3}},
            {"inference": {"precision": "float32"}},
            {"inference": {"batch_size": 4}},
            {"inference": {"tile_px": 256}},
            {"inference": {"context_px": 32}},
            {"shards": {"images": 2}},
            {"shards": {"pixels": 192}},
        ],
    )
    def test_changes_with_settings_of_the_result(self, plan, sections):
        assert plan(*self.INPUTS, **sections).identity != plan(*self.INPUTS).identity

    @pytest.mark.parametrize(
        "sections",
        [
            {"table": {"format": "parquet", "pictures": 7}},
            {"training": {"epochs": 1, "seed": 9}},
            {"data": {"archive": "X_and_y.npz"}},
            # Another setting, the same shards.
            {"shards": {"pixels": 10**6}},
        ],
    )
    def test_not_with_others(self, plan, sections):
        assert plan(*self.INPUTS, **sections).identity == plan(*self.INPUTS).identity

    def test_changes_with_the_weights(self, plan, make_bundle):
        other = make_bundle(name="other", weights=b"others")
        assert plan(*self.INPUTS, model=other).identity != plan(*self.INPUTS).identity

    def test_not_with_the_place_of_the_model(self, plan, make_bundle):
        moved = make_bundle(name="moved")
        assert plan(*self.INPUTS, model=moved).identity == plan(*self.INPUTS).identity

    def test_changes_with_the_content_of_an_archive(self, plan, folder):
        before = plan(*self.INPUTS).identity
        status = (folder / "a.npz").stat()
        np.savez(folder / "a.npz", X=draw_stack(5, seed=1))
        # The same size and, as a careless copy may have, the same time.
        os.utime(folder / "a.npz", ns=(status.st_atime_ns, status.st_mtime_ns))
        assert (folder / "a.npz").stat().st_size == status.st_size
        assert plan(*self.INPUTS).identity != before

    def test_changes_with_inputs_and_their_order(self, plan):
        identities = {
            plan(*inputs).identity
            for inputs in (
                self.INPUTS,
                self.INPUTS[::-1],
                self.INPUTS[:1],
                ("a.npz", "plate.h5:/wells/A1/images"),
                (*self.INPUTS, "missing.npz"),
            )
        }
        assert len(identities) == 5


class TestFile:
    @pytest.fixture
    def written(self, plan, tmp_path):
        written = plan(
            "a.npz", "missing.npz", "plate.h5:/wells/*/images", shards={"images": 2}
        )
        write_plan(tmp_path / "plan.parquet", written)
        return written

    def test_round_trip(self, written, tmp_path):
        found = read_plan(tmp_path / "plan.parquet")
        assert found == written
        assert found.identity == written.identity

    def test_round_trip_of_a_plan_without_entries(self, plan, folder, tmp_path):
        np.savez(folder / "empty.npz", X=draw_stack(0))
        write_plan(tmp_path / "plan.parquet", plan("empty.npz"))
        assert read_plan(tmp_path / "plan.parquet") == plan("empty.npz")

    def test_same_plan_same_bytes(self, written, tmp_path):
        write_plan(tmp_path / "again.parquet", written)
        again = (tmp_path / "again.parquet").read_bytes()
        assert again == (tmp_path / "plan.parquet").read_bytes()

    @pytest.mark.parametrize("column", ["stop", "shard", "archive", "height"])
    def test_changed_value_is_refused(self, written, tmp_path, column):
        path = tmp_path / "plan.parquet"
        table = pq.read_table(path)
        values = table.column(column).to_pylist()
        values[0] += 1
        place = table.schema.get_field_index(column)
        field = table.schema.field(column)
        changed = table.set_column(place, field, pa.array(values, field.type))
        pq.write_table(changed, path)
        with pytest.raises(RunError, match=r"plan\.parquet was changed after"):
            read_plan(path)

    def test_dropped_row_is_refused(self, written, tmp_path):
        path = tmp_path / "plan.parquet"
        pq.write_table(pq.read_table(path).slice(1), path)
        with pytest.raises(RunError, match="was changed after"):
            read_plan(path)

    def test_changed_settings_are_refused(self, written, tmp_path):
        path = tmp_path / "plan.parquet"
        table = pq.read_table(path)
        metadata = dict(table.schema.metadata)
        metadata[b"settings"] = metadata[b"settings"].replace(b"0.5", b"0.6")
        pq.write_table(table.replace_schema_metadata(metadata), path)
        with pytest.raises(RunError, match="was changed after"):
            read_plan(path)

    def test_missing(self, tmp_path):
        with pytest.raises(RunError, match=r"plan .*plan\.parquet cannot be read"):
            read_plan(tmp_path / "plan.parquet")

    @pytest.mark.parametrize("n_bytes", [0, 4, 200])
    def test_cut(self, written, tmp_path, n_bytes):
        path = tmp_path / "plan.parquet"
        path.write_bytes(path.read_bytes()[:n_bytes])
        with pytest.raises(RunError) as caught:
            read_plan(path)
        assert "is this a count run's directory?" in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_other_table(self, tmp_path):
        path = tmp_path / "plan.parquet"
        pq.write_table(pa.table({"index": [0], "count": [3]}), path)
        with pytest.raises(RunError, match="is this a count run's directory"):
            read_plan(path)


class TestExplainDifference:
    def test_other_archives(self, plan, folder):
        before, now = plan("a.npz"), plan("plate.h5:/wells/A1/images")
        text = explain_difference(before, now)
        assert text == (
            f"archives ['{folder / 'a.npz'}'] were planned, now "
            f"['{folder / 'plate.h5'}']"
        )

    def test_one_more_archive(self, plan, folder):
        before, now = plan("a.npz"), plan("a.npz", "plate.h5:/wells/A1/images")
        text = explain_difference(before, now)
        assert text.endswith(f"now ['{folder / 'plate.h5'}']")

    def test_other_order(self, plan, folder):
        inputs = "a.npz", "plate.h5:/wells/A1/images"
        text = explain_difference(plan(*inputs), plan(*inputs[::-1]))
        assert text.index("a.npz") < text.index("plate.h5")
        assert text.endswith(f"now ['{folder / 'plate.h5'}', '{folder / 'a.npz'}']")

    def test_changed_archive(self, plan, folder):
        before = plan("a.npz", "plate.h5:/wells/A1/images")
        save_plate(folder / "plate.h5", A1=draw_stack(3, seed=1))
        text = explain_difference(before, plan("a.npz", "plate.h5:/wells/A1/images"))
        changed = folder / "plate.h5"
        assert text == f"archive {changed} has changed since the run was planned"

    def test_archive_that_came_back(self, plan, folder):
        before = plan("late.npz", "a.npz")
        np.savez(folder / "late.npz", X=draw_stack(2))
        text = explain_difference(before, plan("late.npz", "a.npz"))
        assert "late.npz has changed" in text

    def test_other_thresholds(self, plan):
        text = explain_difference(
            plan("a.npz"), plan("a.npz", instances={"threshold": 0.4})
        )
        assert text.startswith("instances was ")
        assert "'threshold': 0.5" in text.partition(" and is now ")[0]
        assert "'threshold': 0.4" in text.partition(" and is now ")[2]

    def test_other_tiles(self, plan):
        text = explain_difference(
            plan("a.npz"), plan("a.npz", inference={"tile_px": 256})
        )
        assert text.startswith("inference was ")

    def test_other_model(self, plan, make_bundle):
        other = make_bundle(name="other", weights=b"others")
        text = explain_difference(plan("a.npz"), plan("a.npz", model=other))
        assert text == f"model was {make_bundle().identity} and is now {other.identity}"

    def test_other_shards(self, plan):
        text = explain_difference(plan("a.npz"), plan("a.npz", shards={"images": 2}))
        assert text == "other datasets or shard sizes were planned"


def test_plan_cannot_be_changed(plan):
    found = plan("a.npz")
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.entries = ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.entries[0].stop = 9
    assert isinstance(found.entries[0], Entry)
