"""Benchmarks at their smallest: they run, and say what they promise to say."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from jobs.benchmark import agreement, archives, counted, maps, measuring, scales
from jobs.benchmark.__main__ import main
from jobs.benchmark.cluster_options import OPTIONS, add_arguments
from jobs.benchmark.spoiling import Field
from jobs.benchmark.submission import BenchmarkJob, make_batch
from nucleiseg import synthetic
from nucleiseg.cluster import make_sbatch_text
from nucleiseg.config import ClusterConfig, InstancesConfig
from nucleiseg.errors import ConfigError
from nucleiseg.instances import label_nuclei
from nucleiseg.runs import Jobs
from tests.conftest import REPOSITORY

GOLDEN = Path(__file__).parent / "golden"

MACHINE = {"commit", "cores", "processor", "features", "gpus", "load_before"}


def start_benchmark(*arguments, data="nowhere"):
    """Run a benchmark in a process of its own, with drawn images unless told."""
    return subprocess.run(
        [sys.executable, "-m", "jobs.benchmark", *map(str, arguments)],
        cwd=REPOSITORY,
        env=os.environ | {"NUCLEISEG_DATA": str(data)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def run_benchmark(name, *arguments):
    """Run a benchmark on little; give its table and what its JSON holds."""
    answer = start_benchmark(name, *arguments)
    assert answer.returncode == 0, answer.stderr
    *table, last = answer.stdout.splitlines()
    found = json.loads(last)
    assert found["benchmark"] == name
    assert found["machine"].keys() >= MACHINE
    return table, found["rows"]


def crops(n=5, side_px=16):
    pixels = np.random.default_rng(0).integers(0, 256, (n, side_px, side_px))
    return archives.Crops("noise", pixels.astype(np.uint8))


class TestCrops:
    def test_each_comes_eight_times_before_it_comes_again(self):
        images = crops().read(0, 81)
        assert len({image.tobytes() for image in images[:40]}) == 40
        np.testing.assert_array_equal(images[:5], crops().pixels)
        np.testing.assert_array_equal(images[40:80], images[:40])

    def test_any_range_is_the_same(self):
        np.testing.assert_array_equal(crops().read(3, 44), crops().read(0, 50)[3:44])

    def test_real_ones_are_taken_where_they_are(self, tmp_path, monkeypatch):
        monkeypatch.setenv("NUCLEISEG_DATA", str(tmp_path))
        pixels = np.full((2, 128, 128), 255, dtype=np.float32)
        np.savez(tmp_path / "test_images.npz", X=pixels)
        found = archives.find_crops(32)
        assert (found.name, found.side_px, found.pixels.dtype) == ("real", 32, np.uint8)
        assert found.pixels.min() == 255

    def test_side_that_no_crop_has(self):
        with pytest.raises(ConfigError, match=r"129 px .* 1 to 128; use --side"):
            archives.find_crops(129)


class TestMaps:
    def test_nuclei_are_those_of_the_labels(self, monkeypatch, tmp_path):
        monkeypatch.setenv("NUCLEISEG_DATA", str(tmp_path))
        kind, labels = maps.find_labels(200, 2)
        assert (kind, labels.shape) == ("drawn", (2, 200, 200))
        found = maps.make_maps(labels[0], np.random.default_rng(0))
        assert (found.dtype, found.shape) == (np.float32, (200, 200, 2))
        n_found = label_nuclei(found, InstancesConfig()).max()
        n_true = labels[0].max()
        assert n_true > 10
        assert abs(n_found - n_true) <= 0.1 * n_true

    def test_nuclei_that_touch_have_markers_apart(self):
        labels = np.zeros((40, 60), np.uint16)
        labels[10:30, 10:30], labels[10:30, 30:50] = 1, 2
        found = maps.make_maps(labels, np.random.default_rng(0))
        assert label_nuclei(found, InstancesConfig()).max() == 2
        assert label_nuclei(found[..., :1], InstancesConfig()).max() == 1

    def test_real_labels_are_taken_where_they_are(self, monkeypatch, tmp_path):
        monkeypatch.setenv("NUCLEISEG_DATA", str(tmp_path))
        labels = np.ones((5, 128, 128), np.uint16)
        np.savez(tmp_path / "X_and_labels.npz", y=labels)
        kind, found = maps.find_labels(128, 3)
        assert kind == "real"
        np.testing.assert_array_equal(found, labels[:3])


class TestAgreement:
    def test_by_hand(self):
        # A failed image is as different as any other, and has no nuclei.
        reference = np.array([0, 10, 20, 4])
        row = agreement.compare(np.array([0, 11, 18, -1]), reference, [2.0])
        assert (row["images"], row["nuclei"], row["equal"]) == (4, 29, 0.25)
        assert row["mean_difference"] == pytest.approx((1 / 10 + 2 / 20 + 5 / 4) / 4)
        assert (row["largest_difference"], row["different"]) == (5, [1, 2, 3])

    @pytest.mark.parametrize(
        ("dtype", "names"),
        [
            ("uint8", ["as stored", "uint16 x 257", "float32", "float32 to 1"]),
            ("uint16", ["as stored", "float32", "float32 to 1"]),
            ("float32", ["as stored"]),
        ],
    )
    def test_versions_hold_the_same_in_other_units(self, dtype, names):
        versions = agreement.list_versions({np.dtype(dtype)})
        assert [*versions] == names
        images = np.array([[[0, 7, 255]]], dtype)
        for name, convert in versions.items():
            found = convert(images).astype(np.float64)
            np.testing.assert_allclose(found / found.max(), images / 255, atol=1e-7)
            assert name == "as stored" or convert(images).dtype != images.dtype

    def test_named_datasets_are_read_up_to_the_limit(self, tmp_path):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["one/images"] = np.ones((3, 20, 30), np.uint16)
            file["two/images"] = np.ones((1, 20, 20), np.uint16)
        name = f"{tmp_path / 'a.h5'}:*/images"
        origin, stacks = agreement.find_stacks([name], 2)
        assert origin == name
        assert [s.shape for s in stacks.values()] == [(2, 20, 30), (1, 20, 20)]


class TestScales:
    def make_field(self):
        image, labels = np.zeros((40, 60), np.uint8), np.zeros((40, 60), np.uint16)
        image[8:24, 8:24], labels[8:24, 8:24] = 200, 7
        image[30:32, 50:52], labels[30:32, 50:52] = 100, 9
        return Field("drawn/0", image, labels)

    @pytest.mark.parametrize("factor", [0.5, 1, 2])
    def test_images_and_labels_change_together(self, factor):
        image, labels = scales.resize(self.make_field(), factor)
        assert image.shape == labels.shape == (40 * factor, 60 * factor)
        assert image.dtype == np.uint8
        _, *nuclei = np.unique(labels)
        large, small = (labels == number for number in nuclei)
        assert (large.sum(), small.sum()) == ((16 * factor) ** 2, (2 * factor) ** 2)
        means = [image[inside].mean() for inside in (large, small, labels == 0)]
        np.testing.assert_allclose(means, [200, 100, 0], atol=32)

    def test_sets_know_the_median_diameter(self, tmp_path):
        fields = [self.make_field(), self.make_field()]
        empty = Field("drawn/2", np.ones((32, 32), np.uint8), np.zeros((32, 32), int))
        path = tmp_path / "a.h5"
        (one,) = scales.write_sets(path, [*fields, empty], 2)
        expected = np.median(2 * np.sqrt(np.array([32**2, 16]) / np.pi))
        assert one.diameter_px == pytest.approx(expected, abs=0.01)
        assert one.name == f"{path}:/40x60/images"
        with h5py.File(path) as file:
            assert file["40x60/images"].shape == file["40x60/labels"].shape
            assert file["40x60/labels"].shape == (2, 80, 120)


class TestArchives:
    @pytest.mark.parametrize("dtype", archives.DTYPES)
    @pytest.mark.parametrize("form", archives.FORMS)
    def test_stack(self, form, dtype, tmp_path, monkeypatch):
        monkeypatch.setattr(archives, "_BLOCK_BYTES", 2**11)  # several blocks
        path = archives.make_stack(tmp_path, crops(), 23, form=form, dtype=dtype)
        found = read(path)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, crops().read(0, 23))

    @pytest.mark.parametrize("form", archives.FORMS)
    def test_one_image(self, form, tmp_path):
        path = archives.make_image(tmp_path, crops(), 40, form=form)
        found = read(path)
        assert (found.shape, found.dtype) == ((40, 40), np.uint16)
        three = crops().read(3, 6)
        np.testing.assert_array_equal(
            found[16:32], np.hstack(list(three))[:, :40].astype(np.uint16) * 64
        )

    def test_what_is_there_is_kept(self, tmp_path):
        path = archives.make_stack(tmp_path, crops(), 3, form="hdf5", dtype="uint8")
        path.write_bytes(b"kept")
        again = archives.make_stack(tmp_path, crops(), 3, form="hdf5", dtype="uint8")
        assert (again, path.read_bytes()) == (path, b"kept")

    def test_packing_is_what_the_format_says(self, tmp_path):
        sizes = {}
        for form in archives.FORMS:
            flat = archives.Crops("flat", np.zeros((1, 64, 64), np.uint8))
            path = archives.make_stack(tmp_path, flat, 50, form=form, dtype="uint8")
            sizes[form] = path.stat().st_size
        assert sizes["stored"] > 50 * 64**2 > 5 * sizes["deflated"]
        with h5py.File(tmp_path / "flat-50x64px-uint8.h5") as archive:
            assert (archive["X"].compression, archive["X"].chunks) == (
                "gzip",
                (1, 64, 64),
            )


def read(path):
    if path.suffix == ".h5":
        with h5py.File(path) as archive:
            return archive["X"][()]
    with np.load(path) as archive:
        return archive["X"]


class TestMeasuring:
    def test_memory_of_what_a_program_starts_is_seen(self):
        hold = "x = bytearray(2**27); import time; time.sleep(0.5)"
        start = (
            f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
        )
        alone = measuring.run_apart([sys.executable, "-c", hold])
        ran = measuring.run_apart([sys.executable, "-c", start])
        assert 128 < ran.largest_mb < 128 + 50
        assert ran.largest_mb == pytest.approx(alone.largest_mb, rel=0.05)
        assert ran.peak_mb > ran.largest_mb + 5
        assert ran.wall_s > 0.5

    def test_failure_is_told_with_its_last_words(self):
        with pytest.raises(RuntimeError, match=r"ended with 3, expected 0.*\nsorry$"):
            measuring.run_apart(["sh", "-c", "echo nothing; echo sorry >&2; exit 3"])

    def test_more_cores_than_there_are(self):
        with pytest.raises(RuntimeError, match="999 cores are asked for"):
            measuring.pin(999)

    def test_pinned_program_has_so_many_cores(self):
        command = [*measuring.pin(1), sys.executable, "-c"]
        ran = measuring.run_apart(
            [*command, "import os; print(len(os.sched_getaffinity(0)))"]
        )
        assert ran.output == "1\n"

    def test_table_aligns(self, capsys):
        measuring.print_table(["a", "bb"], [[1234.5, None], [0.01234, "text"]])
        assert capsys.readouterr().out.splitlines() == [
            "     a    bb",
            " 1,234     -",
            "0.0123  text",
        ]


# Small enough for a few seconds each; loading TensorFlow is most of it.
@pytest.mark.slow
@pytest.mark.beside
class TestOnLittle:
    def test_flags(self, model, tmp_path):
        table, rows = run_benchmark(
            *("flags", "--model", model, "--limit", 2),
            *("--kinds", "clean", "inverted", "noise only"),
        )
        assert table[0].startswith("drawn images")
        clean, inverted, noise = rows
        assert (clean["kind"], clean["wanted"], clean["images"]) == ("clean", "none", 6)
        assert (inverted["wanted"], noise["wanted"]) == ("inverted", "empty")
        assert inverted["inverted"] == noise["any"] == 100

    def test_ceiling(self, tmp_path):
        _, rows = run_benchmark(
            *("ceiling", "--images", 192, "--side", 64, "--rounds", 1),
            *("--cores", 1, "--folder", tmp_path),
        )
        (row,) = rows
        assert row["images_per_s"] > 0
        assert row["nuclei_per_image"] > 0
        assert "ms-label" in row
        assert "ms-network" not in row

    def test_answers_of_the_ceiling(self):
        """Each shape is computed once, on real tiles; a lone tile is warming up."""
        answers = """
            import numpy as np
            from nucleiseg.inference.network import TiledNetwork

            computed = []
            TiledNetwork.batch_shape = lambda self, shape: (4, *shape)
            TiledNetwork.run = lambda self, tiles: computed.append(len(tiles)) or tiles
            import jobs.benchmark.answering

            network = TiledNetwork.__new__(TiledNetwork)
            shapes = [(n, 8, side) for n in (1, 3, 4, 2) for side in (8, 9)]
            batches = [np.full(shape, shape[0]) for shape in shapes]
            answers = [network.run(batch) for batch in batches]
            print(computed, [int(answer.max()) for answer in answers])
            print([len(answer) for answer in answers])
        """
        ran = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(answers)],
            capture_output=True,
            text=True,
            cwd=REPOSITORY,
            check=True,
        )
        assert ran.stdout.splitlines() == [
            "[1, 1, 3, 3, 4, 4] [1, 1, 3, 3, 4, 4, 4, 4]",
            "[1, 1, 3, 3, 4, 4, 2, 2]",
        ]

    def test_figure_without_a_model(self, tmp_path):
        answer = start_benchmark("figure", "--out", tmp_path / "touching.png")
        assert answer.returncode == 2
        assert "give --notebook-model, or --core-minutes" in answer.stderr

    def test_figure(self, model, tmp_path):
        path = tmp_path / "touching.png"
        table, rows = run_benchmark(
            *("figure", "--notebook-model", model, "--window", 96, "--out", path),
            *("--width", 600),
        )
        assert [row["way"] for row in rows] == ["mask and components", "nucleiseg"]
        assert len(table) == 4
        assert all(row["nuclei"] > 3 for row in rows)
        picture = cv2.imread(str(path))
        assert 3 * 96 < picture.shape[1] <= 600

    def test_what_cannot_start_is_one_line_and_2(self, model, tmp_path):
        words = ("agreement", "--model", model, "--archive", f"{tmp_path}/no.h5:X")
        answer = start_benchmark(*words)
        (line,) = answer.stderr.splitlines()
        assert answer.returncode == 2
        assert line.startswith("jobs.benchmark: ")
        assert "no.h5: not found" in line

    def test_agreement(self, model):
        table, rows = run_benchmark(
            *("agreement", "--model", model, "--limit", 2, "--whole", 256),
            *("--tiles", 64, "--context", 16),
        )
        assert table[0].startswith("drawn images")
        assert len(table) == 2 + len(rows)
        assert [row["way"] for row in rows] == [
            *("whole", "segment", "tiles of 64 px"),
            *("uint16 x 257", "float32", "float32 to 1"),
        ]
        for row in rows:
            assert row["nuclei"] > 20
            assert row["equal"] == 1 - len(row["different"]) / row["images"]
            # So little context is not enough for a network that sees this far.
            assert row["equal"] == 1 or row["way"] == "tiles of 64 px"

    def test_scales(self, model, tmp_path):
        scaled = tmp_path / "scaled"
        shutil.copytree(model, scaled)
        info = json.loads((scaled / "bundle.json").read_text())
        info["preprocess"]["diameter_px"] = 16.0
        (scaled / "bundle.json").write_text(json.dumps(info))
        table, rows = run_benchmark(
            *("scales", "--model", scaled, "--limit", 2, "--factors", 0.5, 1)
        )
        assert len(table) == 2 + len(rows)
        ways = ["estimated", "given", "network's own"]
        assert [(row["factor"], row["way"]) for row in rows] == [
            (factor, way) for factor in (0.5, 1) for way in ways
        ]
        given, own = rows[1], rows[2]
        assert (given["scales"][0] > 1, own["scales"]) == (True, [1])
        # The network has learnt nuclei of this size, and none of half of it.
        assert given["count_error"] < own["count_error"]
        for row in rows:
            assert row["nuclei"] > 20
            assert 0 <= row["mean_ap_50_90"] <= row["ap_50"] <= 1

    def test_scales_of_a_model_that_rescales_none(self, model):
        answer = start_benchmark("scales", "--model", model)
        assert answer.returncode == 1
        assert "use a model with preprocess.diameter_px" in answer.stderr

    def test_batch_of_a_count(self, model, tmp_path):
        crops = archives.find_crops(32)
        archive = archives.make_stack(tmp_path, crops, 64, form="stored", dtype="uint8")
        root = tmp_path / "run"
        setting = "inference.batch_size=3"
        assert counted.find_batch(archive, model, root, [setting]) == 3
        # Whoever finds it leaves nothing running.
        assert not list((root / "attempts" / "running").glob("*"))
        with pytest.raises(RuntimeError, match=r"failed: .*there\.npz"):
            counted.find_batch(tmp_path / "there.npz", model, tmp_path / "other")

    def test_count(self, model, tmp_path):
        table, (row,) = run_benchmark(
            *("count", "--model", model, "--folder", tmp_path, "--rounds", 1),
            *("--images", 64, "--side", 32, "--formats", "hdf5", "--dtypes", "uint8"),
            *("--precisions", "float32"),
        )
        assert table[-1].split()[:4] == ["4", "float32", "hdf5", "uint8"]
        assert row["n_images"] == 64
        for rival in ("notebook", "bare", "count"):
            assert row[f"{rival}_images_per_s"] > 0
            # With TensorFlow in it, in megabytes.
            assert 200 < row[f"{rival}_peak_mb"] < 5000
        assert set(row["core_ms"]) == {"read", "normalise", "network", "label"}
        assert row["share_of_bare"] == pytest.approx(
            row["count_images_per_s"] / row["bare_images_per_s"]
        )
        # The same weights, images and precision: the rivals do the same.
        assert row["equal_to_notebook"] > 0.95
        assert row["nuclei_per_image"] > 0
        assert not list(tmp_path.glob("runs-*"))

    def test_precision_with_itself_and_another(self, model, tmp_path):
        _, rows = run_benchmark(
            *("precision", "--model", model, "--folder", tmp_path, "--images", 64),
            *("--side", 32, "--precisions", "float32", "bfloat16"),
        )
        assert [row["precision"] for row in rows] == ["float32", "bfloat16"]
        assert rows[0]["share_different"] == 0
        assert 0 <= rows[1]["share_different"] < 0.5
        assert len(rows[1]["different"]) == 64 * rows[1]["share_different"]

    def test_memory(self, model, tmp_path):
        table, rows = run_benchmark(
            *("memory", "--model", model, "--folder", tmp_path, "--side", 32),
            *("--images", 16, "--formats", "stored", "--dtypes", "uint8"),
            *("--image-sides", 200, "--image-formats", "hdf5"),
        )
        assert len(table) == 1 + len(rows)
        assert [row["what"] for row in rows] == ["32 px", "one image"]
        for row in rows:
            assert 200 < row["worker_peak_mb"] < row["all_peak_mb"]
            assert row["growth"] == 0
        # Large archives do not stay.
        assert not list(tmp_path.iterdir())

    def test_labelling(self, model, tmp_path):
        path = tmp_path / "fields.npz"
        np.savez(path, X=synthetic.draw_fields(6, (64, 80), seed=4)[0])
        table, rows = run_benchmark(
            *("labelling", "--model", model, "--images", f"{path}:X"),
            *("--limit", 5, "--rounds", 1, "--seconds", 0.1),
        )
        assert table[0].startswith("float32, 4 base filters")
        assert len(table) == 2 + len(rows)
        assert rows[0]["method"] == "components"
        for row in rows:
            assert row["n_images"] == 5
            assert row["nuclei_per_image"] > 0
            assert 0 < row["count_core_ms"] <= row["slowest_core_ms"]
            assert row["share"] == row["count_core_ms"] / row["network_core_ms"]

    def test_train(self):
        table, (row,) = run_benchmark(
            *("train", "--base-filters", 2, "--side", 32, "--rounds", 1, "--steps", 2),
            *("--set", "training.precision=float32"),
        )
        assert table[-1].split()[:2] == ["2", "float32"]
        for rival in ("notebook", "bare", "train"):
            assert row[f"{rival}_images_per_s"] > 0
        assert row["share_of_bare"] == pytest.approx(
            row["train_images_per_s"] / row["bare_images_per_s"]
        )

    def test_input(self, tmp_path):
        folder = tmp_path / "new"
        table, rows = run_benchmark(
            *("input", "--folder", folder, "--images", 32, 64, "--memory-mb", 1),
            *("--formats", "deflated"),
        )
        assert len(table) == 1 + len(rows)
        assert [(row["augmented"], row["images"]) for row in rows] == [
            (is_changed, n_images)
            for is_changed in (False, True)
            for n_images in (32, 64)
        ]
        for row in rows:
            assert row["images_per_s"] > 0
            assert row["pass_images_per_s"] > 0
            assert abs(row["growth"]) < 0.5
        assert not list(folder.iterdir())

    def test_input_that_fits_into_memory_is_refused(self, capsys):
        assert main(["input", "--trained", "--images", "8"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "8 images take 0.4 MB and --memory-mb is 64" in line

    def test_input_of_a_whole_training(self, tmp_path):
        _, (row,) = run_benchmark(
            *("input", "--trained", "--folder", tmp_path, "--images", 64),
            *("--memory-mb", 1, "--formats", "hdf5"),
        )
        assert (row["augmented"], row["pass_images_per_s"]) == (True, None)
        assert row["images_per_s"] > 0
        assert row["peak_mb"] > 300, "with TensorFlow"
        assert not list(tmp_path.iterdir())

    def test_scale(self, model, tmp_path):
        _, (row,) = run_benchmark(
            *("scale", "--model", model, "--folder", tmp_path, "--side", 32),
            *("--images", 48, "--workers", 1, "--rounds", 1),
        )
        assert (row["workers"], row["gain"], row["wanted_gain"]) == (1, 1, 0.95)
        assert row["images_per_s"] > 0


class TestSubmission:
    def test_golden(self, monkeypatch):
        """To renew it, look at the difference, and write the new text over it."""
        monkeypatch.setattr(sys, "executable", "/opt/nucleiseg/bin/python")
        settings = ClusterConfig(
            partition="gpu", walltime_min=120, cpus=8, memory_gb=32.0, max_restarts=0
        )
        batch = make_batch(["count", "--submit"], settings)
        jobs = Jobs(Path("/somewhere/run"))
        text = make_sbatch_text(jobs, batch, settings, after=None)
        golden = (GOLDEN / "benchmark.sbatch.txt").read_text(encoding="utf-8")
        assert text + "\n" == golden

    def test_job_runs_the_command_without_the_submission(self):
        command = (
            "count --submit --rounds 2 --site x --run=r --cluster-set cluster.cpus=2"
        )
        batch = make_batch([*command.split(), "--images", "9"], ClusterConfig())
        assert batch.functions == [
            BenchmarkJob(("count", "--rounds", "2", "--images", "9"))
        ]
        assert batch.gpus == 1

    def test_dry_run_submits_nothing(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        setting = "cluster.partition=fast"
        for words in (["--submit", "--dry-run"], ["--dry-run"]):
            assert (
                main(["scale", "--rounds", "1", *words, "--cluster-set", setting]) == 0
            )
            out = capsys.readouterr().out
            assert out.startswith(
                "runs         python -m jobs.benchmark scale --rounds 1\n"
            )
            assert "#SBATCH --partition=fast\n" in out
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--submit"], "--submit needs --run DIR"),
            (
                ["--submit", "--run", "r", "--site", "nowhere"],
                "--site nowhere: neither",
            ),
            (["--dry-run", "--cluster-set", "a.b=1"], "expected cluster.key=value"),
            (["--dry-run", "--cluster-set", "cluster.b=1"], "unknown key cluster.b"),
        ],
    )
    def test_what_cannot_be_sent_is_one_line_and_2(self, words, message, capsys):
        assert main(["scale", *words]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("jobs.benchmark: ")
        assert message in line

    def test_job_that_fails_fails(self):
        with pytest.raises(subprocess.CalledProcessError):
            BenchmarkJob(("no-such-benchmark",))()

    @pytest.mark.parametrize(
        "name",
        [
            "agreement",
            "count",
            "flags",
            "input",
            "labelling",
            "memory",
            "precision",
            "read",
            "ladder",
            "resume",
            "rivals",
            "scale",
            "scales",
            "train",
        ],
    )
    def test_every_benchmark_can_be_sent(self, name, capsys):
        assert main([name, "--dry-run"]) == 0
        assert f"python -m jobs.benchmark {name}\n" in capsys.readouterr().out

    def test_on_a_real_slurm_the_json_is_at_the_end_of_the_log(self, slurm, tmp_path):
        root = tmp_path / "it's a run"
        command = ["cluster", "--shards", 20, "--workers", 1]
        where = ["--run", root, "--cluster-set", "cluster.gpus=null"]
        answer = start_benchmark(*command, "--submit", *where)
        assert answer.returncode == 0, answer.stderr
        (log,) = [
            Path(line.partition(" ")[2].strip())
            for line in answer.stdout.splitlines()
            if line.startswith("log ")
        ]
        slurm.wait_until(lambda: not slurm.jobs_left(), 240)
        lines = log.read_text(encoding="utf-8").splitlines()
        assert json.loads(lines[-1])["n_shards"] == 20


def test_options_of_a_submission_do_not_reach_a_benchmark():
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    assert set(parser._option_string_actions) == set(OPTIONS)
