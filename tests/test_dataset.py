import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from nucleiseg import dataset, synthetic
from nucleiseg.archives import passing
from nucleiseg.bundle import read_bundle
from nucleiseg.config import AugmentationConfig, load_config
from nucleiseg.dataset import (
    BatchOrder,
    Gatherer,
    blocks,
    inspect_labelled,
    make_batches,
    open_labelled,
    split_indices,
    survey,
    training_order,
)
from nucleiseg.errors import ArchiveError, ConfigError, RunError, StoppedError
from nucleiseg.preprocess import normalise
from nucleiseg.runs import TrainRun
from nucleiseg.training import train

ALL = AugmentationConfig(
    flips=True,
    quarter_turns=True,
    rotation_deg=180.0,
    scale=1.4,
    elastic_px=3.0,
    brightness=0.2,
    contrast=1.3,
    gamma=1.3,
    blur_px=1.0,
    noise=0.1,
    background=0.2,
    inversion=0.3,
)
OFF = AugmentationConfig()


def configure(archive, *settings):
    return load_config(None, [f"data.archive={archive}", *settings])


@pytest.fixture
def load(tmp_path):
    """Open the labelled images of an archive, in a run of their own."""
    counter = iter(range(100))

    def load(archive, *settings, run=None):
        config = configure(archive, *settings)
        run = run or TrainRun(tmp_path / f"run{next(counter)}")
        return open_labelled(inspect_labelled(config.data), config, run)

    return load


@pytest.fixture(scope="module")
def fields():
    """120 images of 48x48, so that one MB of memory does not hold them."""
    return synthetic.draw_fields(120, (48, 48), seed=1)


@pytest.fixture(scope="module")
def archives(fields, tmp_path_factory):
    """The same images in every kind of storage."""
    folder = tmp_path_factory.mktemp("archives")
    images, labels = fields
    images = images.astype("float32")
    np.savez(folder / "stored.npz", X=images, y=labels)
    np.savez_compressed(folder / "deflated.npz", X=images, y=labels)
    for chunk_images in (1, 7):
        with h5py.File(folder / f"chunks{chunk_images}.h5", "w") as file:
            chunks = (chunk_images, 48, 48)
            for key, values in (("X", images), ("y", labels)):
                file.create_dataset(key, data=values, chunks=chunks, compression=1)
    return folder


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Whole images of four sizes, one of them smaller than the crops."""
    path = tmp_path_factory.mktemp("mixed") / "mixed.h5"
    with h5py.File(path, "w") as file:
        for number, shape in enumerate([(40, 56), (64, 64), (90, 33), (20, 24)]):
            images, labels = synthetic.draw_fields(4, shape, seed=number)
            for part, chosen in (("train", np.s_[:3]), ("val", np.s_[3:])):
                group = file.create_group(f"{part}/{shape[0]}x{shape[1]}")
                group["images"], group["labels"] = images[chosen], labels[chosen]
    return path


MIXED = (
    "data.images=/train/*/images",
    "data.masks=/train/*/labels",
    "data.validation_images=/val/*/images",
    "data.validation_masks=/val/*/labels",
    "data.crop_px=32",
)


def make_order(labelled, *, batch_size=8, seed=3):
    part = labelled.training
    return BatchOrder(part.n_crops, batch_size, shuffle=True, seed=seed, part=part)


def gather(labelled, order, store, numbers, settings=OFF, part=None):
    gatherer = Gatherer(labelled, part or labelled.training, order, store, settings)
    return [gatherer.gather_labels(number) for number in numbers]


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


class TestPaths:
    """However pixels are come by, the batches are the same, bit for bit."""

    @pytest.mark.parametrize(
        "name", ["stored.npz", "deflated.npz", "chunks1.h5", "chunks7.h5"]
    )
    def test_streamed_as_held(self, archives, load, name):
        labelled = load(archives / name, "data.crop_px=32", "data.memory_mb=1")
        assert not labelled.is_held
        assert labelled.training.n_windows > 2
        order = make_order(labelled)
        numbers = range(2 * order.n_batches)
        stream = labelled.stream(
            labelled.training, order, first_batch=0, n_batches=len(numbers)
        )
        held = gather(labelled, order, labelled.held, numbers, ALL)
        assert_same(gather(labelled, order, stream, numbers, ALL), held)
        # Going on in the middle, and in other hands.
        start = order.n_batches // 2
        later = labelled.stream(
            labelled.training, order, first_batch=start, n_batches=order.n_batches
        )
        assert_same(
            gather(labelled, order, later, range(start, start + 5), ALL),
            held[start : start + 5],
        )

    def test_every_storage_gives_the_same(self, archives, load):
        found = []
        for name in ("stored.npz", "deflated.npz", "chunks1.h5", "chunks7.h5"):
            labelled = load(archives / name)
            assert labelled.is_held
            order = make_order(labelled)
            found.append(gather(labelled, order, labelled.held, range(5), ALL))
        for other in found[1:]:
            assert_same(other, found[0])

    def test_tf_data_as_numpy(self, archives, load):
        labelled = load(
            archives / "deflated.npz", "data.memory_mb=1", "model.head=mask"
        )
        order = make_order(labelled)
        numbers = range(3, order.n_batches + 3)
        batches = make_batches(
            labelled,
            labelled.training,
            order,
            first_batch=3,
            n_batches=len(numbers),
            augmentation=ALL,
        )
        gatherer = Gatherer(labelled, labelled.training, order, labelled.held, ALL)
        expected = [gatherer.gather(number) for number in numbers]
        # Keras looks at a batch before it begins, and validates anew each epoch.
        next(iter(batches))
        for _ in range(2):
            assert_same(list(batches), expected)

    def test_threads_share_a_stream(self, archives, load):
        labelled = load(archives / "chunks7.h5", "data.memory_mb=1")
        order = make_order(labelled)
        numbers = list(range(3 * order.n_batches))
        stream = labelled.stream(
            labelled.training, order, first_batch=0, n_batches=len(numbers)
        )
        gatherer = Gatherer(labelled, labelled.training, order, stream, ALL)
        with ThreadPoolExecutor(5) as pool:
            found = list(pool.map(gatherer.gather_labels, numbers))
        assert_same(found, gather(labelled, order, labelled.held, numbers, ALL))

    def test_large_images_stay_where_they_are(self, mixed, load, monkeypatch):
        expected, shapes = [], []
        for limit in (1 << 30, 1):
            monkeypatch.setattr(blocks, "_DIRECT_BYTES", limit)
            monkeypatch.setattr(survey, "_LARGE_BYTES", limit)
            monkeypatch.setattr(survey, "_BYTES_AT_ONCE", 1000)
            labelled = load(mixed, *MIXED)
            shapes.append(labelled.survey)
            order = make_order(labelled)
            expected.append(gather(labelled, order, labelled.held, range(4), ALL))
            assert labelled.blocks.all[0].is_direct == (limit == 1)
        assert_same(*expected)
        np.testing.assert_array_equal(shapes[0].ranges, shapes[1].ranges)
        np.testing.assert_array_equal(shapes[0].hashes, shapes[1].hashes)


def wish(n_questions):
    """Give a wish to stop that comes after so many questions."""
    asked = []
    return lambda: len(asked) >= n_questions or asked.append(1)


def open_files():
    # The folder's own is gone when it is looked at.
    links = list(Path("/proc/self/fd").iterdir())
    return {link.readlink() for link in links if link.is_symlink()}


class TestMemory:
    def test_no_thread_is_left_of_a_finished_pass(self, archives, load):
        """However long TensorFlow keeps the pass; and it can be begun anew."""
        labelled = load(archives / "chunks7.h5", "data.memory_mb=1")
        order = make_order(labelled)
        numbers = range(order.n_batches)
        before = threading.active_count()
        streams = []
        for _ in range(2):
            stream = labelled.stream(
                labelled.training, order, first_batch=0, n_batches=order.n_batches
            )
            streams.append(stream)
            for _ in range(2):
                found = gather(labelled, order, stream, numbers, ALL)
                assert_same(found, gather(labelled, order, labelled.held, numbers, ALL))
                deadline_s = time.monotonic() + 10
                while threading.active_count() > before:
                    assert time.monotonic() < deadline_s
                    time.sleep(0.01)

    def test_blocks_are_read_once_an_epoch_and_dropped(self, archives, load):
        labelled = load(archives / "chunks7.h5", "data.memory_mb=1")
        order = make_order(labelled)
        stream = labelled.stream(
            labelled.training, order, first_batch=0, n_batches=3 * order.n_batches
        )
        loaded, most_bytes = [], 0
        stream._load = lambda block: loaded.append(block) or labelled.load(block)
        stream._begin({})
        gatherer = Gatherer(labelled, labelled.training, order, stream, OFF)
        for number in range(3 * order.n_batches):
            gatherer.gather(number)
            most_bytes = max(most_bytes, stream._n_bytes)
        assert 0 < most_bytes <= 0.75e6 < labelled.shapes.n_bytes
        counts = np.bincount(loaded, minlength=len(labelled.blocks.all))
        assert set(counts) == {3}
        assert stream._n_bytes == 0
        assert not stream._present

    def test_a_batch_far_ahead_does_not_fill_memory(self, archives, load):
        labelled = load(archives / "chunks7.h5", "data.memory_mb=1")
        order = make_order(labelled)
        last = 20 * order.n_batches - 1
        stream = labelled.stream(
            labelled.training, order, first_batch=0, n_batches=last
        )
        found = gather(labelled, order, stream, [0, last, 1])
        assert stream._n_bytes <= 0.75e6
        assert_same(found, gather(labelled, order, labelled.held, [0, last, 1]))

    def test_readers_are_few(self, mixed, load):
        labelled = load(mixed, *MIXED)
        for block in range(len(labelled.blocks.all)):
            labelled.load(block)
        assert len(labelled.blocks.all) == 8
        assert len(labelled.readers._idle) == 4
        (source, *_) = labelled.shapes.sources
        with labelled.readers.lend(source) as pair:
            closed = []
            for reader in pair:
                reader.close = lambda close=reader.close: closed.append(close())
            labelled.close()
            assert not labelled.readers._idle
            assert not closed
        # One that was being read from is closed by who comes last.
        assert len(closed) == 2
        assert not labelled.readers._idle

    def test_a_training_leaves_no_archive_open(self, archives, tmp_path):
        config = configure(
            archives / "chunks7.h5",
            *("data.memory_mb=1", "model.base_filters=1", "training.epochs=1"),
        )
        with pytest.raises(StoppedError):
            train(config, tmp_path / "run", must_stop=wish(4))
        train(config, tmp_path / "run")
        deadline_s = time.monotonic() + 60
        while archives / "chunks7.h5" in open_files():
            assert time.monotonic() < deadline_s
            time.sleep(0.05)


class TestOrder:
    def test_held_data_are_shuffled_as_ever(self, archives, load):
        labelled = load(archives / "stored.npz")
        order = make_order(labelled)
        for epoch in (0, 5):
            expected = np.random.default_rng([3, epoch]).permutation(order.n_images)
            np.testing.assert_array_equal(order.sequence(epoch), expected)

    def test_streamed_data_are_shuffled_in_windows(self, archives, load):
        labelled = load(archives / "chunks7.h5", "data.memory_mb=1")
        part, order = labelled.training, make_order(labelled)
        sequences = [order.sequence(epoch) for epoch in range(3)]
        for sequence in sequences:
            np.testing.assert_array_equal(np.sort(sequence), np.arange(part.n_crops))
        assert not np.array_equal(sequences[0], sequences[1])
        # Neighbours in the archive are not neighbours in the order.
        steps = np.abs(np.diff(part.crop_images[sequences[0]]))
        assert np.median(steps) > 10

    @pytest.mark.parametrize("memory_mb", [1, 1000])
    def test_weights_say_how_often(self, archives, fields, tmp_path, load, memory_mb):
        images, labels = synthetic.draw_fields(40, (48, 48), seed=9)
        np.savez(tmp_path / "b.npz", X=images, y=labels)
        labelled = load(
            archives / "stored.npz",
            "data.weight=0.25",
            f"data.more=[{{archive: {tmp_path / 'b.npz'}, weight: 2.5}}]",
            f"data.memory_mb={memory_mb}",
        )
        part, order = labelled.training, make_order(labelled)
        is_second = part.images >= 120
        n_first, n_second = (~is_second).sum(), is_second.sum()
        assert labelled.validation.n_crops == labelled.validation.n_images == 40
        for epoch in range(2):
            shown = part.crop_images[order.sequence(epoch)]
            assert (shown < 120).sum() == round(0.25 * n_first)
            times = np.bincount(shown[shown >= 120] - 120)
            assert set(times) <= {0, 2, 3}
            assert times.sum() == round(2.5 * n_second)
        first, second = (set(order.sequence(epoch)) for epoch in (0, 1))
        assert first != second

    def test_the_archive_s_order_where_there_is_no_shuffling(self, archives, load):
        labelled = load(archives / "stored.npz", "data.memory_mb=1")
        part = labelled.training
        training = load_config(None, ["training.shuffle=false"]).training
        order = training_order(part.n_crops, training, part)
        images = part.crop_images[order.sequence(0)]
        np.testing.assert_array_equal(images, np.sort(part.images))


class TestCrops:
    def test_training_crops_are_random_places_of_normalised_images(self, mixed, load):
        with h5py.File(mixed, locking=False) as file:
            stored = file["train/64x64/images"][()]
        labelled = load(mixed, *MIXED)
        whole = [normalise(image, labelled.preprocess) for image in stored]
        # 2x2, 2x2, 3x2 and 1 crops of three images each.
        assert labelled.training.n_crops == 3 * (4 + 4 + 6 + 1)
        order = make_order(labelled)
        shown = gather(labelled, order, labelled.held, range(order.n_batches))
        again = gather(labelled, order, labelled.held, range(order.n_batches))
        assert_same(shown, again)
        crops = order.sequence(0)
        images = labelled.training.crop_images[crops]
        found = np.concatenate([images for images, _ in shown])
        for number in range(3):
            windows = np.lib.stride_tricks.sliding_window_view(whole[number], (32, 32))
            source = [s.image_shape for s in labelled.shapes.sources].index((64, 64))
            image = labelled.shapes.starts[source] + number
            places = set()
            for crop in found[images == image]:
                hits = np.argwhere((windows == crop).all(axis=(2, 3)))
                assert len(hits) >= 1
                places.add(tuple(hits[0]))
            assert len(places) == 4

    def test_validation_crops_cover_each_image(self, mixed, load):
        with h5py.File(mixed, locking=False) as file:
            image = file["val/40x56/images"][0]
            truth = file["val/40x56/labels"][0]
            small = file["val/20x24/images"][0]
        labelled = load(mixed, *MIXED)
        part = labelled.validation
        order = BatchOrder(part.n_crops, 64, shuffle=False, seed=0)
        ((images, labels),) = gather(labelled, order, labelled.held, [0], part=part)
        values = normalise(image, labelled.preprocess)
        shapes = [
            labelled.shapes.sources[labelled.shapes.find_source(int(i))].image_shape
            for i in part.crop_images
        ]
        chosen = [n for n, shape in enumerate(shapes) if shape == (40, 56)]
        corners = [(0, 0), (0, 24), (8, 0), (8, 24)]
        for place, (top, left) in zip(chosen, corners, strict=True):
            area = np.s_[top : top + 32, left : left + 32]
            np.testing.assert_array_equal(images[place], values[area])
            np.testing.assert_array_equal(labels[place], truth[area])
        # A smaller one is mirrored at its border.
        (place,) = [n for n, shape in enumerate(shapes) if shape == (20, 24)]
        mirrored = np.pad(small, ((0, 12), (0, 8)), mode="reflect")
        expected = normalise(small, labelled.preprocess)
        np.testing.assert_array_equal(images[place][:20, :24], expected)
        assert np.argmax(images[place]) == np.argmax(mirrored)

    def test_augmented_values_of_unnormalised_images_keep_their_scale(
        self, archives, load
    ):
        settings = AugmentationConfig(brightness=0.2)
        labelled = load(archives / "stored.npz", "preprocess.normalisation=none")
        order = make_order(labelled)
        plain = gather(labelled, order, labelled.held, range(4))
        changed = gather(labelled, order, labelled.held, range(4), settings)
        offsets = [
            (one[0] - other[0])[:, 0, 0]
            for one, other in zip(changed, plain, strict=True)
        ]
        assert 5 < np.abs(offsets).max() < 0.2 * 256


class TestSplits:
    def test_at_random_as_scikit_learn(self, archives, load):
        labelled = load(archives / "stored.npz")
        training, validation = split_indices(120, labelled.data)
        np.testing.assert_array_equal(labelled.training.images, training)
        np.testing.assert_array_equal(labelled.validation.images, validation)

    def test_by_a_dataset(self, mixed, load):
        labelled = load(mixed, *MIXED)
        keys = [
            {labelled.shapes.sources[labelled.shapes.find_source(int(i))].images.key}
            for i in labelled.training.images
        ]
        assert set.union(*keys) == {
            f"/train/{size}/images" for size in ("20x24", "40x56", "64x64", "90x33")
        }
        assert (labelled.training.n_images, labelled.validation.n_images) == (12, 4)

    def test_a_glob_for_training_leaves_validation_out(self, mixed, load):
        labelled = load(
            mixed, *MIXED, "data.images=/**/images", "data.masks=/**/labels"
        )
        assert (labelled.training.n_images, labelled.validation.n_images) == (12, 4)

    def test_the_split_of_one_training_is_the_file_of_another(
        self, archives, load, tmp_path
    ):
        run = TrainRun(tmp_path / "run")
        first = load(archives / "stored.npz", "data.split_seed=5", run=run)
        second = load(archives / "stored.npz", f"data.split_file={run.split}")
        np.testing.assert_array_equal(first.training.images, second.training.images)
        np.testing.assert_array_equal(first.validation.images, second.validation.images)

    def test_a_file_may_name_a_few(self, archives, load, tmp_path):
        file = tmp_path / "few.csv"
        file.write_text("part,index\nvalidation,7\ntraining,119\ntraining,0\n")
        labelled = load(archives / "stored.npz", f"data.split_file={file}")
        assert labelled.training.images.tolist() == [119, 0]
        assert labelled.validation.images.tolist() == [7]

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("part\ntraining\n", "lacks index"),
            ("part,index\ntest,1\n", "line 2: part is 'test'"),
            ("part,index\ntraining,120\n", "has images 0 to 119"),
            ("part,index\ntraining,-1\n", "index is '-1'"),
            ("part,index\ntraining,1\nvalidation,1\n", "image 1 twice"),
            ("part,index,dataset\ntraining,1,Z\n", "fit 0 of the labelled datasets"),
            ("part,index\ntraining,1\n", "no image of .* is for validation"),
        ],
    )
    def test_unfit_files_are_refused(self, archives, tmp_path, load, text, words):
        file = tmp_path / "split.csv"
        file.write_text(text)
        with pytest.raises((ConfigError, ArchiveError), match=words) as caught:
            load(archives / "stored.npz", f"data.split_file={file}")
        assert "\n" not in str(caught.value)

    def test_the_stored_split_counts(self, archives, load, tmp_path, monkeypatch):
        run = TrainRun(tmp_path / "run")
        first = load(archives / "stored.npz", run=run)
        # Another scikit-learn, say.
        monkeypatch.setattr(dataset.labelled, "split_images", None)
        second = load(archives / "stored.npz", run=run)
        np.testing.assert_array_equal(first.training.images, second.training.images)
        run.split.write_text(run.split.read_text().replace("training", "validation", 1))
        with pytest.raises(RunError, match=r"split\.csv was changed"):
            load(archives / "stored.npz", run=run)

    def test_an_edited_file_splits_anew(self, archives, load, tmp_path):
        file, run = tmp_path / "few.csv", TrainRun(tmp_path / "run")
        for image in (7, 8):
            file.write_text(f"part,index\nvalidation,{image}\ntraining,119\n")
            settings = f"data.split_file={file}"
            labelled = load(archives / "stored.npz", settings, run=run)
            assert labelled.validation.images.tolist() == [image]
        # One that is gone is not missed.
        file.unlink()
        labelled = load(archives / "stored.npz", settings, run=run)
        assert labelled.validation.images.tolist() == [8]

    def test_other_settings_split_anew(self, archives, load, tmp_path):
        run = TrainRun(tmp_path / "run")
        first = load(archives / "stored.npz", run=run)
        second = load(archives / "stored.npz", "data.split_seed=9", run=run)
        assert not np.array_equal(first.training.images, second.training.images)


class TestOverlap:
    def test_what_validation_has_is_left_out_of_training(
        self, archives, fields, load, tmp_path, caplog
    ):
        images, labels = fields
        # The same values in another dtype and another file.
        np.savez(tmp_path / "val.npz", X=images[[3, 5]], y=labels[[3, 5]])
        run = TrainRun(tmp_path / "run")
        settings = (
            f"data.validation_archive={tmp_path / 'val.npz'}",
            "data.validation_images=X",
        )
        labelled = load(archives / "stored.npz", *settings, run=run)
        assert labelled.training.n_images == 118
        assert not {3, 5} & set(labelled.training.images.tolist())
        assert "2 training images hold the same pixels" in caplog.text
        assert "stored.npz:X: image 3" in caplog.text
        assert run.split.read_text().count("left out") == 2
        # And again when the training goes on.
        assert (
            load(archives / "stored.npz", *settings, run=run).training.n_images == 118
        )

    @pytest.mark.parametrize("overlap", ["refuse", "keep"])
    def test_it_may_be_refused_or_kept(
        self, archives, fields, load, tmp_path, caplog, overlap
    ):
        images, labels = (values.copy() for values in fields)
        training, validation = split_indices(120, configure("a").data)
        images[training[4]] = images[validation[2]]
        np.savez(tmp_path / "a.npz", X=images, y=labels)
        settings = (tmp_path / "a.npz", f"data.overlap={overlap}")
        if overlap == "refuse":
            with pytest.raises(ArchiveError, match=rf"image {training[4]}\b"):
                load(*settings)
        else:
            assert load(*settings).training.n_images == training.size
            assert "they are kept" in caplog.text

    def test_nothing_left_is_refused(self, archives, load):
        with pytest.raises(ArchiveError, match="none is left to train on"):
            load(
                archives / "stored.npz",
                f"data.validation_archive={archives / 'chunks1.h5'}",
                "data.validation_images=X",
            )

    def test_equal_bytes_of_other_shapes_are_no_overlap(self, load, tmp_path):
        rng = np.random.default_rng(0)
        labels = np.ones((4, 16, 64), "uint8")
        images = rng.random((4, 16, 64))
        np.savez(tmp_path / "a.npz", X=images, y=labels)
        flat = {"X": images.reshape(4, 64, 16), "y": labels.reshape(4, 64, 16)}
        np.savez(tmp_path / "b.npz", **flat)
        labelled = load(
            tmp_path / "a.npz",
            f"data.validation_archive={tmp_path / 'b.npz'}",
            "data.validation_images=X",
            "data.crop_px=16",
        )
        assert labelled.training.n_images == 4


class TestSurvey:
    def test_it_is_read_back(self, archives, load, tmp_path, monkeypatch):
        run = TrainRun(tmp_path / "run")
        first = load(archives / "deflated.npz", run=run).survey
        monkeypatch.setattr(survey, "_survey_source", None)
        second = load(archives / "deflated.npz", run=run).survey
        np.testing.assert_array_equal(first.ranges, second.ranges)
        np.testing.assert_array_equal(first.hashes, second.hashes)

    def test_a_damaged_one_is_made_again(self, archives, load, tmp_path, caplog):
        run = TrainRun(tmp_path / "run")
        first = load(archives / "stored.npz", run=run).survey
        (path,) = run.data.glob("survey-*.npz")
        path.write_bytes(path.read_bytes()[:500])
        second = load(archives / "stored.npz", run=run).survey
        np.testing.assert_array_equal(first.ranges, second.ranges)
        assert "is damaged" in caplog.text

    @pytest.mark.parametrize("large_bytes", [1 << 30, 1])
    @pytest.mark.parametrize("name", ["stored.npz", "deflated.npz", "chunks1.h5"])
    def test_it_stops_between_pieces(
        self, archives, tmp_path, monkeypatch, name, large_bytes
    ):
        monkeypatch.setattr(survey, "_BYTES_AT_ONCE", 50_000)
        monkeypatch.setattr(survey, "_LARGE_BYTES", large_bytes)
        config, run = configure(archives / name), TrainRun(tmp_path)
        shapes = inspect_labelled(config.data)
        asked = []

        def count(limit):
            asked.append(1)
            return len(asked) > limit

        open_labelled(shapes, config, run, must_stop=lambda: count(10**9))
        n_questions = len(asked)
        assert n_questions >= 120 * 48 * 48 * 6 // 50_000
        (path,) = run.data.glob("survey-*.npz")
        path.unlink()
        # Wherever it is: what is asked once more is never asked again.
        for limit in (0, n_questions // 2, n_questions - 5):
            asked.clear()
            with pytest.raises(StoppedError, match="while passing over the images"):
                open_labelled(
                    shapes,
                    config,
                    TrainRun(tmp_path / str(limit)),
                    must_stop=lambda limit=limit: count(limit),
                )
            assert len(asked) == limit + 1
            assert not [*(tmp_path / str(limit)).rglob("survey-*.npz")]


class TestPass:
    """The pass over npz members, in a process of its own."""

    @pytest.fixture(autouse=True)
    def _apart(self, monkeypatch):
        monkeypatch.setattr(passing, "_APART_BYTES", 0)
        monkeypatch.setattr(passing, "pass_member", None)

    def test_it_finds_the_same(self, archives, load, tmp_path):
        run = TrainRun(tmp_path / "run")
        found = load(archives / "deflated.npz", run=run).survey
        assert len(list(run.data.glob("*.points"))) == 2
        other = load(archives / "stored.npz").survey
        np.testing.assert_array_equal(found.hashes, other.hashes)

    def test_damage_is_named(self, archives, load, tmp_path):
        content = bytearray((archives / "deflated.npz").read_bytes())
        content[len(content) // 3] ^= 255
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(ArchiveError, match=r"a\.npz:X is damaged"):
            load(tmp_path / "a.npz")

    def test_its_death_is_named(self, archives, load, monkeypatch):
        monkeypatch.setattr(passing.sys, "executable", "/bin/false")
        with pytest.raises(ArchiveError, match=r"ended with 1 .* ask for more"):
            load(archives / "deflated.npz")


class TestRefusals:
    @pytest.mark.parametrize("large_bytes", [1 << 30, 1])
    @pytest.mark.parametrize("value", [-1, 2.5, np.nan, -np.inf])
    @pytest.mark.parametrize("head", ["mask", "combined"])
    def test_labels_that_are_none(
        self, fields, load, tmp_path, monkeypatch, large_bytes, value, head
    ):
        monkeypatch.setattr(survey, "_BYTES_AT_ONCE", 3000)
        monkeypatch.setattr(survey, "_LARGE_BYTES", large_bytes)
        images, labels = (part[:9] for part in fields)
        labels = labels.astype("float32")
        path = tmp_path / "a.npz"
        np.savez(path, X=images, y=labels)
        whole = load(path, f"model.head={head}")
        assert whole.survey.get_label_values(0, 9).smallest == 1
        labels[6, 40, 3] = value
        np.savez(path, X=images, y=labels)
        words = r"a\.npz:y: image 6: float32 from .*, expected whole numbers, .*; "
        with pytest.raises(ArchiveError, match=words) as caught:
            load(path, f"model.head={head}")
        assert "\n" not in str(caught.value)

    def test_a_large_image_that_cannot_be_normalised(
        self, fields, load, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(survey, "_LARGE_BYTES", 1)
        images = fields[0][:9].astype("float32")
        images[4, 40, 3] = np.nan
        np.savez(tmp_path / "a.npz", X=images, y=fields[1][:9])
        with pytest.raises(ArchiveError, match=r"a\.npz:X: image 4: image holds NaN"):
            load(tmp_path / "a.npz")

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            (MIXED[:2], r"pixels; training takes sides that are multiples of 16"),
            ((*MIXED[:1], "data.masks=/*/64x64/labels", MIXED[4]), "have no masks"),
            (
                (*MIXED[:2], "data.validation_images=/**/images", MIXED[4]),
                "have no masks",
            ),
        ],
    )
    def test_unfit_keys(self, mixed, settings, words):
        with pytest.raises(ArchiveError, match=words) as caught:
            inspect_labelled(configure(mixed, *settings).data)
        assert "\n" not in str(caught.value)

    def test_validation_images_of_another_name_are_not_trained_on(
        self, archives, tmp_path
    ):
        path = shutil.copy(archives / "chunks1.h5", tmp_path / "a.h5")
        with h5py.File(path, "a") as file:
            file["other"], file["other_y"] = file["X"], file["y"]
        keys = "data.validation_images=other", "data.validation_masks=other_y"
        with pytest.raises(ArchiveError, match="none are left to train on"):
            inspect_labelled(configure(path, *keys).data)

    def test_a_dataset_named_twice(self, archives):
        path = archives / "stored.npz"
        with pytest.raises(ArchiveError, match="named twice"):
            inspect_labelled(configure(path, f"data.more=[{{archive: {path}}}]").data)

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            (["data.validation_masks=y"], "without validation_images"),
            (["data.validation_images=y", "data.split_file=a"], "two ways to split"),
            (["data.crop_px=40"], "multiple of 16"),
            (["data.more=[{archive: a, weight: 0}]"], "greater than 0"),
        ],
    )
    def test_unfit_settings(self, settings, words):
        with pytest.raises(ConfigError, match=words):
            load_config(None, settings)

    def test_what_fails_in_the_pipeline_is_named(self, archives, load, tmp_path):
        path = tmp_path / "a.h5"
        path.write_bytes((archives / "chunks7.h5").read_bytes())
        labelled = load(path, "data.memory_mb=1")
        labelled.readers.close()
        path.write_bytes(path.read_bytes()[:100_000])
        order = make_order(labelled)
        batches = make_batches(
            labelled, labelled.training, order, first_batch=0, n_batches=5
        )
        with pytest.raises(ArchiveError, match=r"a\.h5"), labelled.name_failures():
            list(batches)


def test_a_training_on_crops_that_do_not_fit(archives, tmp_path):
    """Streamed, weighted by nothing, augmented by all: to a bundle and a picture."""
    config = configure(
        archives / "chunks7.h5",
        *("data.crop_px=32", "data.memory_mb=1", "model.base_filters=1"),
        *("training.epochs=2", "training.batch_size=32"),
    ).model_copy(update={"augmentation": ALL})
    run = TrainRun(tmp_path / "run")
    result = train(config, run.root)
    assert result.history.epochs == 2
    # Four crops of each of the 30 validation images.
    assert result.scores["validation"]["n_images"] == 120
    assert read_bundle(run.bundle.root).training["n_training"] == 90
    assert cv2.imread(str(run.samples)).shape[1] > 1000
    assert run.split.read_text().count("validation") == 30
    changed = config.model_copy(update={"augmentation": OFF})
    with pytest.raises(RunError, match=r"augmentation\.flips was True"):
        train(changed, run.root)


def test_no_thread_is_left(archives, load):
    labelled = load(archives / "stored.npz", "data.memory_mb=1")
    order = make_order(labelled)
    before = set(threading.enumerate())
    stream = labelled.stream(labelled.training, order, first_batch=0, n_batches=9)
    gather(labelled, order, stream, range(2))
    threads = set(threading.enumerate()) - before
    assert threads
    del stream
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
