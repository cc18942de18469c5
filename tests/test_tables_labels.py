"""Label images of partial tables become one file, the same however they were made."""

import dataclasses
import shutil

import h5py
import numpy as np
import pandas as pd
import pytest

from nucleiseg.config import InstancesConfig
from nucleiseg.errors import RunError
from nucleiseg.instances import (
    label_nuclei,
    measure_nuclei,
    saturation_limit,
    segment_and_measure,
    summarise_block,
)
from nucleiseg.labels import encode
from nucleiseg.runs import CountRun
from nucleiseg.shards import ArchiveRef, Block, Entry, Plan
from nucleiseg.tables import (
    BlockRow,
    ImageRow,
    label_images,
    merge,
    merging,
    read_partial,
    read_rows,
    tabulate,
    write_block_partial,
    write_partial,
)
from tests.test_instances_block_labels import assert_same_nuclei

SETTINGS = InstancesConfig(threshold=0.7, min_area_px=2)
COMPUTE = "float32"
SMALL, LARGE = (16, 20), (60, 80)
CORNERS = [(0, 0, 32, 48), (0, 48, 32, 80), (32, 0, 60, 48), (32, 48, 60, 80)]
ARCHIVES = (
    ArchiveRef("/d/plates/a.npz", "plates/a.npz", "0"),
    ArchiveRef("/d/more/a.npz", "more/a.npz", "1"),
    ArchiveRef("/d/b.h5", "b.h5", "2"),
)
# In the order of the table: shapes of the datasets, the last without any image.
SHAPES = [
    (0, "X", (10, *SMALL)),
    (1, "X", (5, *SMALL, 1)),
    (2, "/wells/one", SMALL),
    (2, "/wells/large", (3, *LARGE)),
    (2, "/none", (0, *SMALL)),
]


@pytest.fixture(autouse=True)
def _no_power_cuts(monkeypatch):
    monkeypatch.setattr("nucleiseg.atomic._sync", lambda path: None)


def make_plan(shard_images=3, **more):
    entries = []
    for archive, key, shape in SHAPES:
        n_images = shape[0] if len(shape) > 2 else 1
        if key == "/wells/large":
            entries += [
                Entry(archive, 0, key, index, index + 1, *LARGE, None, Block(*corners))
                for index in range(n_images)
                for corners in CORNERS
            ]
            continue
        entries += [
            Entry(archive, 0, key, start, min(start + shard_images, n_images), *SMALL)
            for start in range(0, n_images, shard_images)
        ]
    entries = [dataclasses.replace(e, shard=n) for n, e in enumerate(entries)]
    gone = Entry(2, dataset="/gone", reason="not found; check the path")
    settings = {
        "instances": SETTINGS.model_dump(mode="json"),
        "labels": [[archive, key, list(shape)] for archive, key, shape in SHAPES],
        **more,
    }
    return Plan(ARCHIVES, (*entries, gone), settings)


PLAN = make_plan()


def draw(shard, index):
    """Image and maps, another one for each position of each dataset."""
    rng = np.random.default_rng([shard.archive, len(shard.dataset), index])
    shape = shard.image_shape
    coarse = rng.random((shape[0] // 4, shape[1] // 4), dtype=np.float32)
    coarse *= index % 4 > 0  # some without nuclei
    return (
        np.zeros(shape, np.uint8),
        np.kron(coarse, np.ones((4, 4), np.float32))[..., np.newaxis],
    )


def fails(shard, index):
    return index in ((7,) if shard.archive == 0 else (2,) if shard.block else ())


def write(run, plan, shard):
    if shard.block is not None:
        image, maps = draw(shard, shard.start)
        core = shard.block.core
        is_failed = fails(shard, shard.start) and shard.block.top > 0
        labels = np.empty(image[core].shape, np.int32)
        summary = summarise_block(
            image[core],
            maps[core],
            core,
            LARGE,
            SETTINGS,
            limit=saturation_limit(image.dtype, 0),
            calibration=plan.calibration,
            out=labels,
        )
        nuclei = measure_nuclei(
            np.ascontiguousarray(maps[core]),
            labels,
            core=core,
            image_shape=LARGE,
            calibration=plan.calibration,
        )
        row = BlockRow(
            summary.to_bytes(),
            labels=encode(labels),
            nuclei=nuclei.to_bytes() or None,
        )
        row = BlockRow(None, "broken") if is_failed else row
        write_block_partial(run, plan, shard, row, compute=COMPUTE)
        return
    rows = []
    for index in range(shard.start, shard.stop):
        labels, summary, nuclei = segment_and_measure(
            *draw(shard, index), SETTINGS, calibration=plan.calibration
        )
        packed = nuclei.to_bytes() or None
        row = ImageRow(index, summary, labels=encode(labels), nuclei=packed)
        rows.append(ImageRow(index, None, "NaN") if fails(shard, index) else row)
    write_partial(run, plan, shard, tabulate(rows, plan), compute=COMPUTE)


def make_run(folder, plan=PLAN):
    run = CountRun(folder)
    run.parts.mkdir(parents=True)
    for shard in plan.shards:
        write(run, plan, shard)
    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with all partial tables, merged."""
    run = make_run(tmp_path_factory.mktemp("finished") / "run")
    merge(run, PLAN, "csv", compute=COMPUTE)
    return run


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it, without table and label images."""
    shutil.copytree(finished.parts, tmp_path / "run" / "parts")
    return CountRun(tmp_path / "run")


def merge_run(run, plan=PLAN, **options):
    return merge(run, plan, "csv", compute=COMPUTE, **options)


def find_shard(key, index=0):
    return next(s for s in PLAN.shards if s.dataset == key and s.start >= index)


class TestFile:
    def test_datasets_and_no_others(self, finished):
        found = []
        with h5py.File(finished.labels()) as file:
            file.visititems(
                lambda name, item: (
                    found.append((name, item.shape, item.dtype.name))
                    if isinstance(item, h5py.Dataset)
                    else None
                )
            )
        assert sorted(found) == sorted(
            (f"{ARCHIVES[archive].name}/{key.lstrip('/')}", shape, "uint16")
            for archive, key, shape in SHAPES
        )

    def test_labels_are_those_that_were_counted(self, finished):
        table = pd.read_csv(finished.table("csv"), dtype={"count": "Int64"})
        table = table[table["index"].notna()]
        n_checked = 0
        with h5py.File(finished.labels()) as file:
            for row in table.to_dict("records"):
                stack = file[f"/{row['archive']}/{row['dataset']}"][()]
                labels = stack if stack.ndim == 2 else stack[int(row["index"])]
                if row["status"] == "failed":
                    assert not labels.any()
                    continue
                assert labels.max() == row["count"]
                n_checked += 1
        assert n_checked == 10 + 5 + 1 + 3 - 2

    def test_each_nucleus_has_its_pixels(self, finished):
        with h5py.File(finished.labels()) as file:
            for archive, key, shape in SHAPES[:4]:
                shard = find_shard(key)
                shard = dataclasses.replace(shard, archive=archive)
                stack = file[f"{ARCHIVES[archive].name}/{key}"][()]
                stack = stack.reshape(-1, *shard.image_shape)
                for index, found in enumerate(stack):
                    if fails(shard, index):
                        continue
                    expected = label_nuclei(draw(shard, index)[1], SETTINGS)
                    if len(shape) == 3 and shape[1:] == LARGE:
                        assert_same_nuclei(found, expected)
                    else:
                        np.testing.assert_array_equal(found, expected)

    def test_failed_ones_are_told(self, finished):
        with h5py.File(finished.labels()) as file:
            assert file["plates/a.npz/X"].attrs["failed"].tolist() == [7]
            assert file["more/a.npz/X"].attrs["n_failed"] == 0
            assert file["b.h5/wells/large"].attrs["failed"].tolist() == [2]

    @pytest.mark.parametrize("shard_images", [1, 2, 100])
    def test_same_bytes_for_any_size_of_shards(self, finished, tmp_path, shard_images):
        plan = make_plan(shard_images)
        run = make_run(tmp_path / "other", plan)
        merged = merge_run(run, plan)
        assert merged.labels == run.labels()
        assert run.labels().read_bytes() == finished.labels().read_bytes()
        assert run.table("csv").read_bytes() == finished.table("csv").read_bytes()

    def test_more_than_65_535_nuclei_need_uint32(self, finished, run, monkeypatch):
        """As if images had so many more: all other labels are packed anew."""
        narrow = label_images.LabelFile
        monkeypatch.setattr(
            label_images, "LabelFile", lambda path, _: narrow(path, 2**16)
        )
        merge_run(run)
        with h5py.File(run.labels()) as wide, h5py.File(finished.labels()) as file:
            for archive, key, _ in SHAPES:
                name = f"{ARCHIVES[archive].name}/{key}"
                assert wide[name].dtype == np.uint32
                np.testing.assert_array_equal(wide[name][()], file[name][()])

    def test_a_label_that_does_not_fit_is_refused(self, tmp_path):
        with label_images.LabelFile(tmp_path / "labels.h5", 5) as file:
            dataset = file.add_dataset("a", (8, 8), is_tiled=False)
            labels = np.full((8, 8), 65_536, np.int32)
            with pytest.raises(ValueError, match="label 65536 in a file of labels up"):
                dataset.write_region(0, (slice(None), slice(None)), labels)

    def test_what_workers_add_meanwhile_stays_out(self, run, monkeypatch):
        """An incomplete file holds the images that the incomplete table counts."""
        away = find_shard("X", 3)
        part = run.part(away.shard)
        content = part.read_bytes()
        part.unlink()
        write_label_images = label_images.write_label_images

        def come_back(*arguments, **options):
            part.write_bytes(content)
            write_label_images(*arguments, **options)

        monkeypatch.setattr(merging, "write_label_images", come_back)
        merged = merge_run(run, incomplete=True)
        assert merged.n_missing == 1
        with h5py.File(run.labels(incomplete=True)) as file:
            found = file["plates/a.npz/X"]
            assert found.attrs["n_missing"] == away.n_images
            assert not found[away.start : away.stop].any()


class TestParts:
    def test_rows_keep_their_labels(self, run):
        shard = find_shard("X", 3)
        rows = read_rows(run.part(shard.shard), PLAN, shard, compute=COMPUTE)
        assert [row.labels is None for row in rows.values()] == [
            index % 4 == 0 for index in rows
        ]
        before = run.part(shard.shard).read_bytes()
        write_partial(run, PLAN, shard, tabulate(rows.values(), PLAN), compute=COMPUTE)
        assert run.part(shard.shard).read_bytes() == before

    def test_every_damaged_byte_is_noticed(self, run):
        shard = find_shard("X", 3)
        path = run.part(shard.shard)
        content = path.read_bytes()
        table = read_partial(run, PLAN, shard, compute=COMPUTE)
        (labels,) = (row for row in table.column("labels").to_pylist()[:1])
        place = content.index(labels)
        for position in range(place, place + len(labels)):
            damaged = bytearray(content)
            damaged[position] ^= 0x10
            path.write_bytes(damaged)
            with pytest.raises(RunError, match="damaged") as caught:
                merge_run(run)
            assert str(path) in str(caught.value)
        assert not run.labels().exists()
        assert not run.table("csv").exists()
        assert not list(run.root.glob(".*"))

    def test_one_without_labels_is_another_plans(self, run):
        plain = Plan(ARCHIVES, PLAN.columns, {"instances": PLAN.settings["instances"]})
        assert plain.identity != PLAN.identity
        shard = find_shard("X")
        write(run, plain, shard)
        with pytest.raises(RunError, match=r"damaged .* expected .*labels"):
            merge_run(run)

    @pytest.mark.parametrize("key", ["X", "/wells/large"])
    def test_labels_that_are_not_there_are_named(self, run, key):
        """No worker writes such a table; a fault of ours must not become zeros."""
        shard = find_shard(key, 1)
        if shard.block is None:
            rows = read_rows(run.part(shard.shard), PLAN, shard, compute=COMPUTE)
            bare = [dataclasses.replace(r, labels=None) for r in rows.values()]
            write_partial(run, PLAN, shard, tabulate(bare, PLAN), compute=COMPUTE)
        else:
            (row,) = read_partial(run, PLAN, shard).to_pylist()
            payload = row["payload"]
            write_block_partial(run, PLAN, shard, BlockRow(payload), compute=COMPUTE)
        with pytest.raises(RunError, match="no labels") as caught:
            merge_run(run)
        assert f"shard {shard.shard} " in str(caught.value)
        assert not run.labels().exists()
        assert not run.table("csv").exists()

    def test_a_missing_one_is_named(self, run):
        run.part(2).unlink()
        with pytest.raises(RunError, match=r"shard 2 .* has no partial"):
            merge_run(run)
        assert not run.labels().exists()


class TestIncomplete:
    def test_what_is_missing_is_0(self, finished, run):
        block = find_shard("/wells/large", 1)
        for shard in (find_shard("X", 3), block):
            run.part(shard.shard).unlink()
        merged = merge_run(run, incomplete=True)
        assert merged.labels == run.labels(incomplete=True)
        assert merged.labels.name == "labels.partial.h5"
        assert not run.labels().exists()
        with h5py.File(merged.labels) as file, h5py.File(finished.labels()) as whole:
            stack = file["plates/a.npz/X"]
            assert stack.attrs["n_missing"] == 3
            assert not stack[3:6].any()
            is_there = np.r_[:3, 6:10]
            np.testing.assert_array_equal(
                stack[()][is_there], whole["plates/a.npz/X"][()][is_there]
            )
            large = file["b.h5/wells/large"]
            assert large.attrs["n_missing"] == 1
            assert not large[1].any()
