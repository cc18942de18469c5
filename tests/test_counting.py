"""A count run from archives to its table, through the command line."""

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import cv2
import h5py
import numpy as np
import pandas as pd
import pytest

from nucleiseg import synthetic
from nucleiseg.archives import open_reader
from nucleiseg.bundle import read_bundle, write_info
from nucleiseg.cli import main
from nucleiseg.cluster import Team, expect_workers, plan_workers
from nucleiseg.config import Config, load_config
from nucleiseg.counting import choose_pictures, count, prepare
from nucleiseg.counting.claim import claim
from nucleiseg.errors import IncompleteError, RunError
from nucleiseg.instances import label_nuclei
from nucleiseg.model import load_network, predict, save_weights
from nucleiseg.preprocess import normalise
from nucleiseg.runs import Bundle, CountRun
from nucleiseg.tables import find_missing
from tests.conftest import run_nucleiseg

N_IMAGES = 60


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """60 images of 64x64, one of them with NaN, one empty, one constant."""
    path = tmp_path_factory.mktemp("archive") / "test.npz"
    images, _ = synthetic.draw_fields(N_IMAGES, (64, 64), seed=9)
    images = images.astype("float32")
    images[17, 3, 4] = np.nan
    images[20] = 0
    images[21] = 7
    np.savez_compressed(path, X=images)
    return path


def count_here(inputs, model, folder, *settings, workers=0, config=None):
    config = config or load_config(None, settings)
    prepared = prepare([str(name) for name in inputs], model, config)
    return count(prepared, folder, workers=workers)


@pytest.fixture(scope="module")
def reference(archive, model, tmp_path_factory):
    """Table of one shard, computed in this process."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    count_here([archive], model, folder, "shards.images=500")
    return (folder / "counts.csv").read_bytes()


def test_counts_are_those_of_keras_and_opencv(archive, model, tmp_path):
    # As Keras computes: a CPU with AMX would round to bfloat16 on its way.
    count_here([archive], model, tmp_path / "run", "inference.precision=float32")
    table = pd.read_csv(tmp_path / "run" / "counts.csv", dtype={"count": "Int64"})
    info = read_bundle(model)
    network = load_network(info)
    with open_reader(archive, "X") as reader:
        images = reader.read(0, N_IMAGES)
    expected = []
    for image in images:
        if np.isnan(image).any():
            expected.append(pd.NA)
            continue
        pair = np.stack([normalise(image, info.preprocess)] * 2)
        probability = predict(network, pair, batch_size=2)[0]
        mask = np.round(probability).astype("uint8")
        expected.append(cv2.connectedComponents(mask)[0] - 1)
    assert list(table["index"]) == list(range(N_IMAGES))
    pd.testing.assert_series_equal(
        table["count"], pd.Series(expected, dtype="Int64", name="count")
    )
    assert table["count"].sum() > 100
    assert table["count"][20] == 0
    assert table["status"][17] == "failed"
    assert "NaN" in table["reason"][17]


def test_several_views_are_averaged_and_bind_the_run(archive, model, tmp_path):
    folder = tmp_path / "run"
    settings = ["inference.precision=float32", "instances.views=4"]
    count_here([archive], model, folder, *settings)
    table = pd.read_csv(folder / "counts.csv", dtype={"count": "Int64"})
    info = read_bundle(model)
    network = load_network(info, views=4)
    with open_reader(archive, "X") as reader:
        images = reader.read(0, 16)
    stack = np.stack([normalise(image, info.preprocess) for image in images])
    masks = np.round(predict(network, stack, batch_size=2)).astype("uint8")
    expected = [cv2.connectedComponents(mask)[0] - 1 for mask in masks]
    assert list(table["count"][:16]) == expected
    once = np.round(predict(load_network(info), stack, batch_size=2)).astype("uint8")
    assert (masks != once).any()
    with pytest.raises(RunError, match="holds another run: instances was"):
        count_here([archive], model, folder, settings[0])


@pytest.mark.parametrize(
    ("workers", "shard_images", "table_format"),
    [(1, 7, "parquet"), (2, 7, "csv"), (3, 500, "csv"), (2, 500, "parquet")],
)
def test_table_is_the_same_for_any_division(
    archive, model, reference, tmp_path, workers, shard_images, table_format
):
    answer = run_nucleiseg(
        *("count", archive, "--model", model, "--run", tmp_path / "run"),
        *("--workers", workers, "--set", f"shards.images={shard_images}"),
        *("--format", table_format),
    )
    assert answer.returncode == 1, answer.stderr
    assert "image 17: image holds NaN" in answer.stderr
    assert "1 failed" in answer.stdout
    path = tmp_path / "run" / f"counts.{table_format}"
    if table_format == "csv":
        assert path.read_bytes() == reference
        return
    frame = pd.read_parquet(path)
    (tmp_path / "t.csv").write_bytes(reference)
    assert list(frame["index"]) == list(pd.read_csv(tmp_path / "t.csv")["index"])
    count_here([archive], model, tmp_path / "one", "table.format=parquet")
    assert path.read_bytes() == (tmp_path / "one" / "counts.parquet").read_bytes()


def start_count(archive, model, folder):
    command = [sys.executable, "-m", "nucleiseg", "count", archive]
    command += ["--model", model, "--run", folder, "--workers", "2"]
    command += ["--set", "shards.images=7"]
    return subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_parts(folder, n_parts, process):
    deadline_s = time.monotonic() + 120
    while len(list((folder / "parts").glob("[!.]*"))) < n_parts:
        assert process.poll() is None, "all was done before anything was killed"
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


@pytest.fixture(scope="module")
def long_archive(tmp_path_factory):
    """1,400 images: 200 shards of 7, time enough to be killed in between."""
    path = tmp_path_factory.mktemp("long") / "long.npz"
    images, _ = synthetic.draw_fields(70, (64, 64), seed=3)
    np.savez_compressed(path, X=np.tile(images, (20, 1, 1)))
    return path


@pytest.fixture(scope="module")
def long_reference(long_archive, model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference") / "long"
    count_here([long_archive], model, folder)
    return (folder / "counts.csv").read_bytes()


def find_workers(process):
    """Process ids of the dask workers below a command."""
    return [
        int(child)
        for children in Path(f"/proc/{process.pid}/task").glob("*/children")
        for child in children.read_text().split()
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def test_table_is_the_same_after_a_worker_is_killed(
    long_archive, model, long_reference, tmp_path
):
    process = start_count(long_archive, model, tmp_path / "run")
    wait_for_parts(tmp_path / "run", 3, process)
    victims = find_workers(process)
    assert len(victims) == 2
    os.kill(victims[0], signal.SIGKILL)
    _, log = process.communicate(timeout=200)
    assert process.returncode == 0, log
    assert (tmp_path / "run" / "counts.csv").read_bytes() == long_reference


def test_table_is_the_same_after_the_whole_command_is_killed(
    long_archive, model, long_reference, tmp_path
):
    folder = tmp_path / "run"
    process = start_count(long_archive, model, folder)
    wait_for_parts(folder, 5, process)
    workers = find_workers(process)
    assert len(workers) == 2
    process.kill()
    process.communicate()
    deadline_s = time.monotonic() + 60
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline_s, "workers outlive their command"
        time.sleep(0.05)
    assert not (folder / "counts.csv").exists()
    there = {path.name: path.stat().st_mtime_ns for path in folder.glob("parts/0*")}
    assert len(there) >= 5
    process = start_count(long_archive, model, folder)
    _, log = process.communicate(timeout=200)
    assert process.returncode == 0, log
    assert f"({len(there)} more are there)" in log
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("parts/0*")}
    assert {name: after[name] for name in there} == there
    assert (folder / "counts.csv").read_bytes() == long_reference
    assert not list(folder.rglob(".*tmp*"))


@pytest.fixture(scope="module")
def bad_archives(tmp_path_factory, archive):
    """Every kind of bad input, and what its message must say."""
    folder = tmp_path_factory.mktemp("bad")
    content = archive.read_bytes()
    (folder / "truncated.npz").write_bytes(content[: len(content) // 2])
    objects = np.array([np.zeros((9, 9)), np.zeros((8, 9))], dtype=object)
    np.savez(folder / "objects.npz", X=objects)
    with h5py.File(folder / "no_image.h5", "w") as file:
        file["positions"] = np.zeros((5, 2))
    np.savez(folder / "good.npz", images=np.zeros((2, 32, 32), "uint8"))
    return {
        folder / "truncated.npz": "truncated",
        folder / "objects.npz": "object",
        folder / "no_image.h5": "no image",
        folder / "missing.npz": "not found",
        f"{folder / 'good.npz'}:image": "nearest is images",
    }


def test_bad_archives_are_rows_beside_three_good_ones(
    archive, bad_archives, model, tmp_path
):
    good = [shutil.copy(archive, tmp_path / f"good{i}.npz") for i in range(3)]
    answer = run_nucleiseg(
        "count",
        *(good[0], *list(bad_archives)[:3], good[1], *list(bad_archives)[3:], good[2]),
        *("--model", model, "--run", tmp_path / "run", "--workers", "0"),
    )
    assert answer.returncode == 1
    assert "Traceback" not in answer.stderr
    table = pd.read_csv(tmp_path / "run" / "counts.csv", dtype={"count": "Int64"})
    assert len(table) == 3 * N_IMAGES + len(bad_archives)
    for path in good:
        rows = table[table["archive"] == Path(path).name]
        assert list(rows["index"]) == list(range(N_IMAGES))
        assert (rows["status"] == "ok").sum() == N_IMAGES - 1
    lost = table[table["index"].isna()]
    assert list(lost["status"]) == ["failed"] * len(bad_archives)
    for reason, words in zip(lost["reason"], bad_archives.values(), strict=True):
        assert words in reason


def test_a_bad_archive_alone_is_one_line(bad_archives, model, tmp_path):
    for name, words in bad_archives.items():
        with pytest.raises(RunError) as caught:
            prepare([str(name)], model, load_config(None))
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
    answer = run_nucleiseg(
        "count", next(iter(bad_archives)), "--model", model, "--run", tmp_path / "run"
    )
    assert answer.returncode == 2
    assert "Traceback" not in answer.stderr
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def sizes(tmp_path_factory):
    """Images of several sizes in one HDF5 file, and the padding each needs."""
    path = tmp_path_factory.mktemp("sizes") / "sizes.h5"
    with h5py.File(path, "w") as file:
        for height, width in [(64, 64), (65, 47), (16, 200), (5, 7), (1, 30)]:
            images, _ = synthetic.draw_fields(3, (height, width), seed=4)
            file.create_dataset(
                f"wells/{height}x{width}/images", data=images, compression="gzip"
            )
        images, _ = synthetic.draw_field((150, 220), np.random.default_rng(0))
        file["single"] = images
    return path


def test_images_of_any_size_are_counted(sizes, model, tmp_path):
    result = count_here([f"{sizes}:**"], model, tmp_path / "run")
    assert result.merged.n_failed == 0
    table = pd.read_csv(tmp_path / "run" / "counts.csv")
    expected = ["16x200", "64x64", "65x47"]
    assert sorted(table["dataset"].unique()) == sorted(
        ["/single", *(f"/wells/{size}/images" for size in expected)]
    )
    tiny = count_here(
        [f"{sizes}:/wells/5x7/images", f"{sizes}:/wells/1x30/images"],
        model,
        tmp_path / "tiny",
    )
    assert (tiny.merged.n_images, tiny.merged.n_failed) == (6, 0)


def test_tiles_count_as_the_whole_image_does(model, tmp_path):
    """With context for most of what the network sees, nearly all counts agree."""
    images, _ = synthetic.draw_fields(12, (200, 230), seed=8)
    np.savez(tmp_path / "a.npz", X=images)
    counts = {}
    for tile_px in (512, 128):
        folder = tmp_path / str(tile_px)
        count_here(
            [tmp_path / "a.npz"],
            model,
            folder,
            f"inference.tile_px={tile_px}",
            "inference.context_px=48",
        )
        counts[tile_px] = pd.read_csv(folder / "counts.csv")["count"]
    assert counts[512].sum() > 100
    assert (counts[512] == counts[128]).mean() > 0.8
    assert abs(counts[512].sum() - counts[128].sum()) <= 0.02 * counts[512].sum()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float16", "float64"])
@pytest.mark.parametrize("form", ["stored", "deflated", "contiguous", "lzf"])
def test_every_dtype_and_format_gives_the_same_counts(
    model, tmp_path, dtype, form, reference_of_formats
):
    images = reference_of_formats[0].astype(dtype)
    path = tmp_path / ("a.npz" if form in ("stored", "deflated") else "a.h5")
    if form == "stored":
        np.savez(path, X=images)
    elif form == "deflated":
        np.savez_compressed(path, X=images)
    else:
        with h5py.File(path, "w") as file:
            options = {"compression": "lzf"} if form == "lzf" else {}
            file.create_dataset("X", data=images, **options)
    count_here([path], model, tmp_path / "run")
    table = pd.read_csv(tmp_path / "run" / "counts.csv")
    assert list(table["count"]) == reference_of_formats[1]


@pytest.fixture(scope="module")
def reference_of_formats(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats")
    images, _ = synthetic.draw_fields(6, (32, 48), seed=12)
    np.savez(folder / "a.npz", X=images.astype("float32"))
    count_here([folder / "a.npz"], model, folder / "run")
    counts = list(pd.read_csv(folder / "run" / "counts.csv")["count"])
    assert sum(counts) > 5
    return images, counts


def test_a_run_directory_is_private_and_complete(archive, model, tmp_path):
    folder = tmp_path / "run"
    result = count_here([archive], model, folder, "table.pictures=2")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert result.n_pictures == 2
    names = sorted(path.name for path in (folder / "pictures").iterdir())
    assert names[0] == "overview.png"
    assert names[1:] == ["test.npz-X-000015.png", "test.npz-X-000045.png"]
    compute = json.loads((folder / "compute.json").read_text())
    assert compute["device"] in ("cpu", "gpu")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["model_sha256"] == read_bundle(model).weights_sha256
    assert load_config(folder / "config.yaml").table.pictures == 2


def test_pictures_of_datasets_alike_are_two(model, tmp_path):
    images, _ = synthetic.draw_fields(1, (64, 64), seed=9)
    long = "well " * 60
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for key in ("a/b", "a_b", long):
            file[key] = images
    folder = tmp_path / "run"
    inputs = [f"{tmp_path / 'a.h5'}:{key}" for key in ("a/b", "a_b", long)]
    assert count_here(inputs, model, folder, "table.pictures=3").n_pictures == 3
    names = {path.name for path in (folder / "pictures").iterdir()}
    assert len(names - {"overview.png"}) == 3


def test_the_same_command_again_computes_nothing(archive, model, tmp_path, reference):
    folder = tmp_path / "run"
    count_here([archive], model, folder, "shards.images=7")
    again = count_here([archive], model, folder, "shards.images=7")
    assert again.n_computed == 0
    assert (folder / "counts.csv").read_bytes() == reference


def test_a_lost_partial_table_is_computed_again(archive, model, tmp_path, reference):
    folder = tmp_path / "run"
    count_here([archive], model, folder, "shards.images=7")
    (folder / "parts" / "000003.parquet").unlink()
    (folder / "counts.csv").unlink()
    again = count_here([archive], model, folder, "shards.images=7")
    assert again.n_computed == 1
    assert (folder / "counts.csv").read_bytes() == reference


@pytest.mark.parametrize(
    "setting",
    ["instances.threshold=0.4", "shards.images=9", "inference.precision=float16"],
)
def test_another_run_s_directory_is_refused(archive, model, tmp_path, setting):
    folder = tmp_path / "run"
    count_here([archive], model, folder, "shards.images=50")
    with pytest.raises(RunError, match="holds another run") as caught:
        count_here([archive], model, folder, "shards.images=50", setting)
    assert "use another --run" in str(caught.value)


@pytest.mark.parametrize("name", ["config.yaml", "manifest.json", "counts.csv"])
def test_files_that_no_count_run_made_are_not_overwritten(
    archive, model, tmp_path, name
):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / name).write_text("mine")
    with pytest.raises(RunError, match="no plan of a count run") as caught:
        count_here([archive], model, folder)
    assert name in str(caught.value)
    assert main(["count", str(archive), "--model", str(model), "--run", str(folder)])
    assert [path.name for path in folder.iterdir()] == [name]
    assert (folder / name).read_text() == "mine"


def test_a_run_without_any_result_may_be_planned_anew(
    archive, model, tmp_path, reference
):
    folder = tmp_path / "run"
    wrong = prepare([str(archive)], model, load_config(None, ["shards.images=3"]))
    claim(CountRun(folder), wrong.plan, wrong.config, wrong.model)
    count_here([archive], model, folder)
    assert (folder / "counts.csv").read_bytes() == reference


def test_a_full_disk_is_one_line_and_loses_nothing(archive, model, tmp_path, reference):
    folder = tmp_path / "run"
    count_here([archive], model, folder, "shards.images=7")
    for number in (2, 3):
        (folder / "parts" / f"{number:06d}.parquet").unlink()
    (folder / "counts.csv").unlink()
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=False
    ).returncode:
        pytest.skip("only root can mount a small file system")
    try:
        shutil.copytree(folder, disk / "run")
        filler = disk / "filler"
        with contextlib.suppress(OSError):
            filler.write_bytes(bytes(2**20))
        command = ["count", archive, "--model", model, "--run", disk / "run"]
        command += ["--workers", "2", "--set", "shards.images=7"]
        answer = run_nucleiseg(*command)
        assert answer.returncode in (1, 2)
        assert "No space left on device" in answer.stderr.splitlines()[-1]
        assert "Traceback" not in answer.stderr
        filler.unlink()
        run_nucleiseg(*command)
        assert (disk / "run" / "counts.csv").read_bytes() == reference
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_an_archive_that_changed_is_refused(archive, model, tmp_path):
    copy = shutil.copy(archive, tmp_path / "copy.npz")
    count_here([copy], model, tmp_path / "run")
    np.savez_compressed(copy, X=np.zeros((60, 64, 64), "uint8"))
    with pytest.raises(RunError, match="has changed since the run was planned"):
        count_here([copy], model, tmp_path / "run")


def test_a_compute_setting_that_is_there_binds(archive, model, tmp_path):
    folder = tmp_path / "run"
    prepared = prepare([str(archive)], model, load_config(None, ["shards.images=7"]))
    count(prepared, folder, workers=0)
    compute = json.loads((folder / "compute.json").read_text())
    missing = prepared.plan.shards[2]
    (folder / "parts" / "000002.parquet").unlink()
    (folder / "compute.json").write_text(json.dumps({**compute, "device": "gpu"}))
    assert find_missing(CountRun(folder), prepared.plan) == [missing]
    answer = run_nucleiseg(
        *("count", archive, "--model", model, "--run", folder),
        *("--workers", "0", "--set", "shards.images=7"),
    )
    if compute["device"] == "cpu":
        assert answer.returncode == 2
        assert "TensorFlow sees no GPU" in answer.stderr


def test_a_gpu_that_is_asked_for_and_missing_refuses(archive, model, tmp_path):
    answer = run_nucleiseg(
        *("count", archive, "--model", model, "--run", tmp_path / "run"),
        *("--workers", "1", "--set", "inference.device=gpu"),
    )
    if "worker with a GPU" in answer.stderr:
        pytest.skip("this machine has a GPU")
    assert answer.returncode == 2
    assert "TensorFlow sees no GPU" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_dry_run_writes_nothing(archive, model, tmp_path):
    answer = run_nucleiseg(
        *("count", archive, "--model", model, "--run", tmp_path / "run", "--dry-run"),
        cwd=tmp_path,
    )
    assert answer.returncode == 0, answer.stderr
    assert "60 images of 64x64" in answer.stdout
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_not_finite_fails_and_is_not_0_nuclei(
    archive, model, tmp_path
):
    info = read_bundle(model)
    network = load_network(info)
    weights = network.get_weights()
    weights[-1][:] = np.nan
    broken = Bundle(tmp_path / "broken")
    broken.root.mkdir()
    save_weights(broken, info.model, weights)
    config = Config(model=info.model, preprocess=info.preprocess)
    write_info(broken, config, training={}, scores={})
    result = count_here([archive], broken.root, tmp_path / "run", "table.pictures=1")
    assert result.merged.n_failed == N_IMAGES
    assert result.n_pictures == 0
    table = pd.read_csv(tmp_path / "run" / "counts.csv")
    assert table["count"].isna().all()
    assert "not finite in " in table["reason"][0]


def test_a_directory_that_another_command_planned_is_refused(archive, model, tmp_path):
    first = prepare([str(archive)], model, load_config(None, ["shards.images=3"]))
    second = prepare([str(archive)], model, load_config(None, ["shards.images=4"]))
    run = CountRun(tmp_path / "run")
    claim(run, first.plan, first.config, first.model)
    claim(run, second.plan, second.config, second.model)
    team = Team(run.root, first.plan.identity, n_threads=1)
    with pytest.raises(RunError, match="planned anew by another command"):
        team.compute(first.plan.shards, on_done=lambda _: None)


def test_an_archive_that_is_gone_for_a_while_fails_no_image(archive, model, tmp_path):
    copy = Path(shutil.copy2(archive, tmp_path / "copy.npz"))
    prepared = prepare([str(copy)], model, load_config(None))
    copy.rename(tmp_path / "away.npz")
    with pytest.raises(IncompleteError, match="is gone"):
        count(prepared, tmp_path / "run", workers=0)
    (tmp_path / "away.npz").rename(copy)
    assert count(prepared, tmp_path / "run", workers=0).merged.n_failed == 1


def test_pictures_are_spread_over_the_run(archive, model):
    prepared = prepare([str(archive)], model, load_config(None, ["shards.images=7"]))
    picks = choose_pictures(prepared.plan, 4)
    assert [index for _, index in picks] == [7, 22, 37, 52]
    assert [shard for shard, _ in picks] == [1, 3, 5, 7]
    assert len(choose_pictures(prepared.plan, 1000)) == N_IMAGES


def test_cores_are_shared_without_over_subscription(monkeypatch):
    monkeypatch.setattr("nucleiseg.cluster.workers.available_cores", lambda: 8)
    monkeypatch.setattr("nucleiseg.cluster.workers._visible_gpus", lambda: ())
    for wanted, n_threads in [(None, 8), (1, 8), (2, 4), (3, 2), (8, 1), (20, 1)]:
        workers = plan_workers(wanted, device="auto", n_shards=99)
        assert workers.n_threads == n_threads
        assert workers.count == (wanted or 1)
    # A worker without a shard would take cores from the others.
    workers = plan_workers(4, device="auto", n_shards=1)
    assert (workers.count, workers.n_threads) == (1, 8)


def test_each_worker_gets_one_of_the_gpus_that_were_granted(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert plan_workers(None, device="auto", n_shards=9).gpus == ("2", "5")
    assert plan_workers(1, device="gpu", n_shards=9).gpus == ("2",)
    assert plan_workers(3, device="cpu", n_shards=9).gpus == ()
    with pytest.raises(RunError, match="GPUs: 2, workers that share one: 1"):
        plan_workers(3, device="auto", n_shards=9)
    with pytest.raises(RunError, match=r"raise cluster\.workers_per_gpu"):
        plan_workers(3, device="auto", n_shards=9)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert plan_workers(None, device="auto", n_shards=9).gpus == ()


def test_several_workers_may_share_a_gpu(monkeypatch):
    monkeypatch.setattr("nucleiseg.cluster.workers.available_cores", lambda: 12)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    shared = plan_workers(None, device="auto", n_shards=9, per_gpu=3)
    assert shared.gpus == ("2", "5", "2", "5", "2", "5")
    assert (shared.count, shared.n_threads) == (6, 2)
    assert plan_workers(3, device="gpu", n_shards=9, per_gpu=3).gpus == ("2", "5", "2")
    assert plan_workers(None, device="auto", n_shards=1, per_gpu=3).gpus == ("2",)
    with pytest.raises(RunError, match=r"6 is the most here \(GPUs: 2, .* one: 3\)"):
        plan_workers(7, device="auto", n_shards=9, per_gpu=3)
    assert expect_workers(None, device="auto", per_gpu=3) == (6, "gpu")
    assert plan_workers(None, device="cpu", n_shards=9, per_gpu=3).count == 1


def test_an_empty_probability_map_counts_0():
    settings = load_config(None).instances
    assert label_nuclei(np.zeros((9, 9, 1), "float32"), settings).max() == 0
