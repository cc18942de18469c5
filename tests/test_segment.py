"""Label images and nuclei beside counts: the same for any division, kill and retry."""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

import jobs.count
from nucleiseg import synthetic
from nucleiseg.atomic import write_json
from nucleiseg.attempts import Attempts
from nucleiseg.cli import main
from nucleiseg.config import load_config
from nucleiseg.counting import claim, count, prepare, reset_failures
from nucleiseg.errors import RunError
from nucleiseg.evaluation import evaluate
from nucleiseg.inference import read_compute
from nucleiseg.runs import CountRun
from nucleiseg.shards import read_plan
from nucleiseg.tables import ImageRow, label_images, read_rows, tabulate, write_partial
from tests.conftest import REPOSITORY, run_nucleiseg
from tests.test_counting import find_workers, wait_for_parts
from tests.test_instances_block_labels import assert_same_nuclei

CPU = "inference.device=cpu"
SIZES = {"plates/a.npz": 40, "more/a.npz": 30}
N_IMAGES = 40 + 30 + 1 + 2


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Two archives of one file name, and an HDF5 file with an image and a stack."""
    folder = tmp_path_factory.mktemp("inputs")
    for seed, (name, n_images) in enumerate(SIZES.items()):
        images, _ = synthetic.draw_fields(n_images, (48, 64), seed=seed)
        images = images.astype("float32")
        images[7] = 0
        if seed == 0:
            images[5, 3, 4] = np.nan
        (folder / name).parent.mkdir()
        np.savez_compressed(folder / name, X=images)
    images, _ = synthetic.draw_fields(3, (64, 64), seed=9)
    with h5py.File(folder / "b.h5", "w") as file:
        file["wells/one/image"] = images[0]
        file["wells/two/image"] = images[1:, ..., np.newaxis]
    return [
        *(str(folder / name) for name in SIZES),
        f"{folder / 'b.h5'}:/wells/*/image",
    ]


def segment(inputs, model, folder, *settings, labels=True, workers=0):
    config = load_config(None, [CPU, *settings])
    prepared = prepare([str(name) for name in inputs], model, config, labels=labels)
    return count(prepared, folder, workers=workers)


@pytest.fixture(scope="module")
def reference(inputs, model, tmp_path_factory):
    """A run of large shards, computed in this process."""
    run = CountRun(tmp_path_factory.mktemp("reference") / "run")
    result = segment(inputs, model, run.root, "shards.images=500")
    assert result.merged.labels == run.labels()
    assert result.merged.nuclei == run.nuclei("csv")
    return run


def assert_same(run, reference):
    assert run.table("csv").read_bytes() == reference.table("csv").read_bytes()
    assert run.labels().read_bytes() == reference.labels().read_bytes()
    assert run.nuclei("csv").read_bytes() == reference.nuclei("csv").read_bytes()
    assert not list(run.root.glob(".*"))


def test_the_counts_are_those_of_count(inputs, model, reference, tmp_path):
    segment(inputs, model, tmp_path / "count", labels=False)
    table = (tmp_path / "count" / "counts.csv").read_bytes()
    assert table == reference.table("csv").read_bytes()
    assert not (tmp_path / "count" / "labels.h5").exists()
    assert not list((tmp_path / "count").glob("nuclei*"))


def test_each_nucleus_has_a_row(reference):
    images = pd.read_csv(reference.table("csv"), keep_default_na=False)
    rows = pd.read_csv(reference.nuclei("csv"))
    keys = ["index", "archive", "dataset"]
    # A model that was never tuned does not know how sure it is of a single one.
    assert rows["confidence"].isna().all()
    found = rows.groupby(keys, sort=False).agg(
        n=("label", "size"), highest=("label", "max"), border=("touches_edge", "sum")
    )
    images = images[images["count"].isin(["", "0"]) == 0].set_index(keys)
    assert found.index.tolist() == images.index.tolist()
    counts = images["count"].astype(int).tolist()
    assert found["n"].tolist() == found["highest"].tolist() == counts
    assert found["border"].tolist() == images["border_count"].astype(int).tolist()
    with h5py.File(reference.labels()) as file:
        for row in rows.sample(20, random_state=0).to_dict("records"):
            stack = file[f"/{row['archive']}/{row['dataset']}"][()]
            labels = stack if stack.ndim == 2 else np.squeeze(stack[row["index"]])
            y, x = np.nonzero(labels == row["label"])
            assert (row["y_px"], row["x_px"]) == (
                pytest.approx(y.mean(), abs=0.0051),
                pytest.approx(x.mean(), abs=0.0051),
            )
            assert row["area_px"] == len(y)


# With plain h5py, of whatever the table names; prints what it has checked.
_READER = """
import csv, sys
import h5py, numpy as np

n_ok = n_failed = n_nuclei = 0
with h5py.File(sys.argv[1] + "/labels.h5", "r") as file:
    names = []
    file.visititems(
        lambda name, item: isinstance(item, h5py.Dataset) and names.append(name) or None
    )
    seen = set()
    for row in csv.DictReader(open(sys.argv[1] + "/counts.csv")):
        dataset = file["/" + row["archive"] + "/" + row["dataset"]]
        seen.add(dataset.name.lstrip("/"))
        assert dataset.dtype.kind == "u"
        stacked = dataset.ndim > 2
        labels = dataset[int(row["index"])] if stacked else dataset[()]
        if row["status"] == "failed":
            assert not labels.any()
            assert int(row["index"]) in dataset.attrs["failed"]
            n_failed += 1
            continue
        count = int(row["count"])
        assert np.array_equal(np.unique(np.append(labels, 0)), np.arange(count + 1))
        n_ok, n_nuclei = n_ok + 1, n_nuclei + count
    assert seen == set(names), (seen, names)
    print(n_ok, n_failed, n_nuclei)
    print({name: file[name].shape for name in sorted(names)})
"""


def test_any_reader_finds_them_wherever_the_run_is(reference, tmp_path):
    shutil.copytree(reference.root, tmp_path / "moved" / "run")
    # Nothing of it leans on the parts, or on where it was made.
    shutil.rmtree(tmp_path / "moved" / "run" / "parts")
    answer = subprocess.run(
        [sys.executable, "-c", _READER, "moved/run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    counted, shapes = answer.stdout.splitlines()
    n_nuclei = pd.read_csv(reference.table("csv"))["count"].sum()
    assert counted == f"{N_IMAGES - 1} 1 {n_nuclei:.0f}"
    assert n_nuclei > 100
    assert shapes == str(
        {
            "b.h5/wells/one/image": (64, 64),
            "b.h5/wells/two/image": (2, 64, 64, 1),
            "more/a.npz/X": (30, 48, 64),
            "plates/a.npz/X": (40, 48, 64),
        }
    )


def test_our_own_evaluation_reads_them(reference, inputs):
    truth = f"{inputs[-1].partition(':')[0]}:/wells/one/image"
    answer = run_nucleiseg(
        "evaluate", f"{reference.labels()}:/b.h5/wells/one/image", truth
    )
    assert answer.returncode == 0, answer.stderr


def test_a_run_is_evaluated_as_a_whole(reference):
    found = evaluate(str(reference.root), f"{reference.labels()}:**")
    assert (found.n_images, found.n_failed) == (N_IMAGES - 1, 1)
    assert found.instances.mean_ap_pooled.value == 1
    assert [dataset.name for dataset in found.datasets] == [
        "plates/a.npz:X",
        "more/a.npz:X",
        "b.h5:/wells/one/image",
        "b.h5:/wells/two/image",
    ]


def test_same_files_by_two_workers_and_after_a_kill(
    inputs, model, reference, tmp_path, capsys
):
    run = CountRun(tmp_path / "run")
    words = ["segment", *inputs, "--model", str(model), "--run", str(run.root)]
    words += ["--set", CPU, "--set", "shards.images=1", "--workers"]
    process = subprocess.Popen(
        [sys.executable, "-m", "nucleiseg", *words, "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for_parts(run.root, 5, process)
    workers = find_workers(process)
    assert len(workers) == 2
    process.kill()
    process.communicate()
    deadline_s = time.monotonic() + 60
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    n_there = len(list(run.parts.glob("[0-9]*")))
    assert 5 <= n_there < N_IMAGES
    assert not run.labels().exists()
    # By one more number of workers: none but this process.
    assert main([*words, "0"]) == 1
    shown = capsys.readouterr()
    assert f"({n_there} more are there)" in shown.err
    assert f"labels    {run.labels()}" in shown.out
    assert f"nuclei    {run.nuclei('csv')}" in shown.out
    assert_same(run, reference)
    for path in (run.labels(), run.nuclei("csv")):
        assert path.stat().st_mode & 0o077 == 0
    assert main(["status", str(run.root)]) == 0
    shown = capsys.readouterr().out
    assert f"labels     {run.labels()}" in shown
    assert f"nuclei     {run.nuclei('csv')}" in shown


@pytest.mark.parametrize("shard_images", [1, 7])
def test_same_files_for_any_division(inputs, model, reference, tmp_path, shard_images):
    run = CountRun(tmp_path / "run")
    segment(inputs, model, run.root, f"shards.images={shard_images}")
    assert_same(run, reference)


class TestGoingOn:
    """With a copy of the reference's run."""

    @pytest.fixture
    def run(self, reference, tmp_path):
        shutil.copytree(reference.root, tmp_path / "run")
        return CountRun(tmp_path / "run")

    def go_on(self, inputs, model, run):
        return segment(inputs, model, run.root, "shards.images=500")

    def test_lost_files_are_made_again(self, inputs, model, run, reference):
        for path in (run.labels(), run.nuclei("csv"), run.table("csv"), run.part(1)):
            path.unlink()
        assert self.go_on(inputs, model, run).n_computed == 1
        assert_same(run, reference)
        run.labels().unlink()
        assert self.go_on(inputs, model, run).n_computed == 0
        assert_same(run, reference)

    def test_killed_while_merging(self, inputs, model, run, reference, monkeypatch):
        for path in (run.labels(), run.nuclei("csv"), run.table("csv")):
            path.unlink()

        class Killed(BaseException):
            """What no handler stops."""

        def die(writer):
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(label_images._DatasetWriter, "note", die)
            with pytest.raises(Killed):
                self.go_on(inputs, model, run)
        for path in (run.labels(), run.nuclei("csv"), run.table("csv")):
            assert not path.exists()
        self.go_on(inputs, model, run)
        assert_same(run, reference)

    def test_a_damaged_part_is_named_and_computed_again(
        self, inputs, model, run, reference
    ):
        path = run.part(1)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0x10
        path.write_bytes(content)
        with pytest.raises(RunError, match="damaged") as caught:
            self.go_on(inputs, model, run)
        assert str(path) in str(caught.value)
        path.unlink()
        self.go_on(inputs, model, run)
        assert_same(run, reference)

    def test_a_shard_that_killed_is_computed_in_parts(
        self, inputs, model, run, reference
    ):
        run.part(0).unlink()
        attempts = Attempts(run)
        for part in [(0, 40), (0, 40), (0, 20), (20, 40)]:
            with attempts.attempt(0, part, worker="w"):
                attempts.record_death(os.getpid(), "segmentation fault")
        self.go_on(inputs, model, run)
        assert_same(run, reference)

    def test_retry_computes_what_failed_and_keeps_the_other_labels(
        self, inputs, model, run, reference
    ):
        plan, compute = read_plan(run.plan), read_compute(run).identity
        shard = plan.shards[1]
        rows = read_rows(run.part(1), plan, shard, compute=compute)
        marked = [
            ImageRow(index, None, "it was ill") if index in (3, 4) else row
            for index, row in rows.items()
        ]
        write_partial(run, plan, shard, tabulate(marked, plan), compute=compute)
        run.failures.mkdir(exist_ok=True)
        write_json(run.failure(1), {"n_failed": 2})
        # 2, and the one that fails for good.
        assert reset_failures(run, plan).n_images == 3
        (kept,) = Attempts(run).rows_files(1)
        found = read_rows(kept, plan, shard, compute=compute)
        assert len(found) == 28
        assert all(row.labels == rows[index].labels for index, row in found.items())
        assert all(row.nuclei == rows[index].nuclei for index, row in found.items())
        self.go_on(inputs, model, run)
        assert_same(run, reference)

    def test_merge(self, run, reference, capsys):
        run.labels().unlink()
        run.nuclei("csv").unlink()
        assert main(["merge", str(run.root)]) == 1
        assert f"labels    {run.labels()}" in capsys.readouterr().out
        assert_same(run, reference)
        run.part(1).unlink()
        assert main(["merge", "--partial", str(run.root)]) == 1
        with h5py.File(run.labels(incomplete=True)) as file:
            assert file["more/a.npz/X"].attrs["n_missing"] == 30
            assert not file["more/a.npz/X"][()].any()
            assert file["plates/a.npz/X"][()].any()
        whole, found = (
            pd.read_csv(run.nuclei("csv", incomplete=part)) for part in (False, True)
        )
        whole = whole[whole["archive"] != "more/a.npz"].reset_index(drop=True)
        pd.testing.assert_frame_equal(found, whole)

    def test_parquet_holds_the_same(self, run, reference, capsys):
        words = ["retry", str(run.root), "--set", "table.format=parquet"]
        assert main([*words, "--workers", "0"]) == 1
        assert f"nuclei    {run.nuclei('parquet')}" in capsys.readouterr().out
        found = pd.read_parquet(run.nuclei("parquet"))
        expected = pd.read_csv(reference.nuclei("csv"))
        pd.testing.assert_frame_equal(found, expected, check_dtype=False)

    def test_count_is_refused(self, inputs, model, run):
        with pytest.raises(RunError, match="planned with label images, and is now"):
            segment(inputs, model, run.root, "shards.images=500", labels=False)

    def test_labels_of_a_run_that_is_gone_are_not_left_beside_another(
        self, inputs, model, run
    ):
        shutil.rmtree(run.parts)
        with pytest.raises(RunError, match="holds another run"):
            segment(inputs[:1], model, run.root, labels=False)
        run.plan.unlink()
        with pytest.raises(RunError, match=r"labels\.h5, nuclei\.csv"):
            segment(inputs, model, run.root)


def test_a_run_that_count_made_is_refused(inputs, model, tmp_path):
    segment(inputs[1:2], model, tmp_path / "run", labels=False)
    answer = run_nucleiseg(
        "segment", inputs[1], "--model", model, "--run", tmp_path / "run", "--set", CPU
    )
    assert answer.returncode == 2
    assert "planned without label images, and is now to be with them" in answer.stderr
    assert "use another --run" in answer.stderr


def test_a_run_of_before_goes_on_without_nuclei(inputs, model, tmp_path):
    config = load_config(None, [CPU])
    now = prepare(inputs[1:2], model, config, labels=True)
    settings = {k: v for k, v in now.plan.settings.items() if k != "nuclei"}
    before = replace(now, plan=replace(now.plan, settings=settings))
    run = CountRun(tmp_path / "run")
    merged = count(before, run.root, workers=0).merged
    assert merged.n_nuclei > 10
    assert merged.labels == run.labels()
    assert merged.nuclei is None
    run.part(0).unlink()
    assert main(["retry", str(run.root), "--workers", "0"]) == 0
    assert not list(run.root.glob("nuclei*"))
    with pytest.raises(RunError, match=r"made no table of nuclei .*; use another --r"):
        count(now, run.root, workers=0)


def test_what_only_was_planned_may_become_the_other(inputs, model, tmp_path):
    config = load_config(None, [CPU])
    counted = prepare(inputs[1:2], model, config)
    run = CountRun(tmp_path / "run")
    claim(run, counted.plan, counted.config, counted.model)
    segment(inputs[1:2], model, run.root)
    assert run.labels().exists()


def test_a_dry_run_writes_nothing(inputs, model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["segment", *inputs, "--model", str(model), "--run", "run", "--dry-run"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "labels     run/labels.h5" in shown
    assert "nuclei     run/nuclei.csv" in shown
    assert list(tmp_path.iterdir()) == []
    assert main(["segment", *inputs, "--model", str(model)]) == 2
    assert "segment needs --run" in capsys.readouterr().err


def test_names_that_cannot_lie_in_one_file_are_refused_at_once(model, tmp_path):
    image = synthetic.draw_fields(1, (32, 32), seed=0)[0]
    for path, key in [("p/x", "y/z"), ("q/x/y", "z"), ("r/w/y", "z")]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(tmp_path / path, "w") as file:
            file[key] = image
    names = [str(tmp_path / path) for path in ("p/x", "q/x/y", "r/w/y")]
    with pytest.raises(RunError, match="cannot lie in one file"):
        prepare(names, model, load_config(None, [CPU]), labels=True)
    assert prepare(names, model, load_config(None, [CPU])).plan.n_images == 3


def test_images_too_large_for_one_chunk_are_refused_at_once(model, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("X", (2**15, 2**15), "uint8", chunks=(256, 256))
    prepare([str(tmp_path / "a.h5")], model, load_config(None, [CPU]), labels=True)
    config = load_config(None, [CPU, f"shards.block_pixels={2**30}"])
    with pytest.raises(RunError, match=r"lower shards\.block_pixels"):
        prepare([str(tmp_path / "a.h5")], model, config, labels=True)


def test_the_program_that_a_site_copies(inputs, model, tmp_path, monkeypatch):
    words = ["jobs.segment", str(model), str(tmp_path / "run"), inputs[1], "--set", CPU]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(
        jobs.count, "count", lambda *planned, workers: count(*planned, workers=0)
    )
    # Its last line is all that it does beyond jobs.count.
    last = (REPOSITORY / "jobs" / "segment.py").read_text().splitlines()[-1].strip()
    assert last == "sys.exit(main(labels=True))"
    assert jobs.count.main(labels=True) == 0
    assert (tmp_path / "run" / "labels.h5").exists()
    assert (tmp_path / "run" / "nuclei.csv").exists()
    text = (REPOSITORY / "slurm" / "count.sbatch").read_text()
    assert "\nJOB=count " in text
    assert '-m "jobs.$JOB" ' in text


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    images, _ = synthetic.draw_fields(3, (400, 470), seed=21)
    images = images.astype("float32")
    images[1, 300, 17] = np.nan
    np.savez(folder / "stack.npz", X=images)
    with h5py.File(folder / "slide.h5", "w") as file:
        file["slide"] = images[2]
    return [folder / "stack.npz", folder / "slide.h5"]


class TestLargeImages:
    """Labelled in blocks, the same nuclei as in one piece."""

    TILES = ("inference.tile_px=128", "inference.context_px=32")
    BLOCKS = "shards.block_pixels=40000"

    def test_same_nuclei_as_in_one_piece(self, slides, model, tmp_path):
        minimum = "instances.min_area_px=30"
        runs = [CountRun(tmp_path / name) for name in ("blocks", "whole")]
        segment(slides, model, runs[0].root, minimum, *self.TILES, self.BLOCKS)
        segment(slides, model, runs[1].root, minimum, *self.TILES)
        tables = [run.table("csv").read_bytes() for run in runs]
        assert tables[0] == tables[1]
        table = pd.read_csv(runs[0].table("csv"), dtype={"count": "Int64"})
        assert list(table["status"]) == ["ok", "failed", "ok", "ok"]
        assert min(table["count"].dropna()) > 10
        with h5py.File(runs[0].labels()) as blocks, h5py.File(runs[1].labels()) as file:
            stack, whole = blocks["stack.npz/X"], file["stack.npz/X"]
            assert stack.chunks == (1, 256, 256)
            assert not stack[1].any()
            assert stack.attrs["failed"].tolist() == [1]
            for index in (0, 2):
                assert stack[index].max() == table["count"][index]
                assert_same_nuclei(stack[index], whole[index])
            assert blocks["slide.h5/slide"].shape == (400, 470)
            np.testing.assert_array_equal(blocks["slide.h5/slide"][()], stack[2])
        # Numbered by blocks, and else the same.
        tables = [pd.read_csv(run.nuclei("csv")) for run in runs]
        order = ["dataset", "index", "y_px", "x_px", "area_px"]
        nuclei = [
            one.drop(columns="label").sort_values(order, ignore_index=True)
            for one in tables
        ]
        pd.testing.assert_frame_equal(*nuclei)
        assert len(tables[0]) == table["count"].sum()

    def test_a_lost_block_is_computed_again(self, slides, model, tmp_path):
        settings = (*self.TILES, self.BLOCKS)
        run = CountRun(tmp_path / "run")
        segment(slides[1:], model, run.root, *settings)
        results = (run.table("csv"), run.labels(), run.nuclei("csv"))
        before = [path.read_bytes() for path in results]
        run.part(2).unlink()
        for path in results:
            path.unlink()
        assert segment(slides[1:], model, run.root, *settings).n_computed == 1
        assert [path.read_bytes() for path in results] == before
