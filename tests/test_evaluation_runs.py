"""Runs against labels: which datasets pair up, what is left out, what is written."""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import h5py
import numpy as np
import pandas as pd
import pytest

from nucleiseg.archives import find_glob_words
from nucleiseg.cli import main
from nucleiseg.errors import NucleisegError
from nucleiseg.evaluation import evaluate
from nucleiseg.evaluation.partners import open_partners
from nucleiseg.labels import LabelFile, encode, name_dataset, read_gaps
from nucleiseg.runs import CountRun
from nucleiseg.shards import ArchiveRef, Entry, Plan, write_plan
from tests.test_evaluation import draw_labels, write_h5, write_npz


def make_run(folder, datasets, *, failed=(), unread=(), labels=True, missing=0):
    """Write a run as segment leaves it: plan, table and label images.

    `datasets` are label images by (path of the archive, key), in the table's order.
    """
    run = CountRun(folder)
    run.root.mkdir()
    paths = list(dict.fromkeys(path for path, _ in datasets))
    archives = [ArchiveRef(str(path), path.name, "f" * 32) for path in paths]
    entries, rows = [], []
    for number, ((path, key), images) in enumerate(datasets.items()):
        shape = images.shape[-2:]
        place = paths.index(path)
        entries.append(Entry(place, number, key, 0, len(images), *shape))
        for index, image in enumerate(images):
            is_failed = (key, index) in failed
            rows.append(
                {
                    "index": index,
                    "count": None if is_failed else int(len(np.unique(image)) - 1),
                    "archive": path.name,
                    "dataset": key,
                    "status": "failed" if is_failed else "ok",
                    "reason": "bad chunk" if is_failed else "",
                }
            )
    for path, reason in unread:
        archives.append(ArchiveRef(str(path), path.name, None))
        last = len(archives) - 1
        entries.append(Entry(last, None, None, 0, 0, 0, 0, reason))
        rows.append({"archive": path.name, "status": "failed", "reason": reason})
    write_plan(run.plan, Plan(tuple(archives), tuple(entries), {}))
    table = pd.DataFrame(rows).astype({"index": "Int64", "count": "Int64"})
    table.to_csv(run.table("csv"), index=False)
    if labels:
        with LabelFile(run.labels(), 99) as file:
            for (path, key), images in datasets.items():
                written = file.add_dataset(
                    name_dataset(path.name, key), images.shape, is_tiled=False
                )
                lost = [i for name, i in failed if name == key]
                for index, image in enumerate(images):
                    if index not in lost and image.any():
                        written.write_image(index, encode(image), int(image.max()))
                written.note(failed=lost, n_missing=missing)
    return str(run.root)


@pytest.fixture
def plate(tmp_path):
    """An archive of images and labels of two groups, and what a run found in it."""
    few, many = draw_labels([2, 3, 1]), draw_labels([9, 8, 7, 9], side=30)
    path = tmp_path / "plate.h5"
    write_h5(
        path,
        val__10x10__images=(40 * (few > 0)).astype(np.uint8),
        val__10x10__labels=few,
        val__9x9__images=(40 * (many > 0)).astype(np.uint8),
        val__9x9__labels=many,
    )
    found = many.copy()
    found[:, :3, :9] = 0  # three nuclei of each image are missed
    found[found > 0] -= 3
    # Not in the order of the names: that of the run decides.
    return path, {(path, "/val/9x9/images"): found, (path, "/val/10x10/images"): few}


def refuse(*args, **options):
    with pytest.raises(NucleisegError) as caught:
        evaluate(*args, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ---- pairing


def test_run_pairs_by_what_the_wildcard_stands_for(plate, tmp_path):
    path, datasets = plate
    run = make_run(tmp_path / "run", datasets)
    found = evaluate(run, f"{path}:/val/*/labels")
    assert [d.name for d in found.datasets] == [
        "plate.h5:/val/9x9/images",
        "plate.h5:/val/10x10/images",
    ]
    worse, same = found.datasets
    assert (same.counts.mae.value, same.instances.mean_ap_pooled.value) == (0, 1)
    assert worse.counts.bias.value < 0
    assert found.predicted == run
    # The same, by names without wildcards in the run's order.
    names = [f"{path}:/val/9x9/labels", f"{path}:/val/10x10/labels"]
    assert replace(evaluate(run, names), truth="") == replace(found, truth="")
    # In the wrong order they do not lie over each other.
    assert "shape (4, 30, 30), but" in refuse(run, names[::-1])


def test_label_file_alone_takes_a_glob_of_one_star(plate, tmp_path):
    path, datasets = plate
    run = make_run(tmp_path / "run", dict(sorted(datasets.items())))
    for glob in ("*", "**", "/plate.h5/val/*/images"):
        found = evaluate(f"{run}/labels.h5:{glob}", f"{path}:/val/*/labels")
        assert found.n_images == 7
    # One star still means the top where something is there.
    flat = write_h5(tmp_path / "t.h5", y=draw_labels([1]), a__y=draw_labels([2]))
    assert evaluate(f"{flat}:*", f"{flat}:/y").counts.true_total == 1


def test_run_without_label_images_compares_its_table(plate, tmp_path):
    path, datasets = plate
    run = make_run(tmp_path / "run", datasets, labels=False)
    found = evaluate(run, f"{path}:/val/*/labels")
    assert found.instances is None
    assert "no label images" in found.notes[0]
    assert [d.n_images for d in found.datasets] == [4, 3]
    assert found.datasets[1].bias == 0
    # Tables are truth for a run, too, and label images are not looked at then.
    (tmp_path / "truth.csv").write_text((tmp_path / "run" / "counts.csv").read_text())
    assert evaluate(run, str(tmp_path / "truth.csv")).counts.exact.value == 1
    (tmp_path / "run" / "counts.csv").unlink()
    message = refuse(run, f"{path}:/val/*/labels")
    assert "without counts.csv or counts.parquet" in message
    assert "nucleiseg merge" in message


def test_the_table_of_a_run_is_that_written_last(plate, tmp_path):
    path, datasets = plate
    root = Path(make_run(tmp_path / "run", datasets, labels=False))
    run = CountRun(root)
    truth = f"{path}:/val/*/labels"
    table = pd.read_csv(run.table("csv"))
    right = evaluate(str(root), truth).counts.predicted_total
    # As after a retry that was merged into another format.
    table.assign(count=table["count"] + 1).to_parquet(run.table("parquet"))
    later_s = run.table("csv").stat().st_mtime + 10
    os.utime(run.table("parquet"), (later_s, later_s))
    assert evaluate(str(root), truth).counts.predicted_total == right + 7
    os.utime(run.table("csv"), (later_s + 10, later_s + 10))
    assert evaluate(str(root), truth).counts.predicted_total == right
    run.table("notebook").write_text("Row,Count\n0,1\n")
    os.utime(run.table("notebook"), (later_s + 20, later_s + 20))
    assert "names no images" in refuse(str(root), truth)
    assert f"--run {root} --format csv" in refuse(str(root), truth)


def test_failed_images_are_no_empty_ones(plate, tmp_path):
    path, datasets = plate
    run = make_run(
        tmp_path / "run",
        datasets,
        failed=[("/val/9x9/images", 1), ("/val/10x10/images", 2)],
        unread=[(tmp_path / "lost.h5", "it is truncated")],
    )
    found = evaluate(run, f"{path}:/val/*/labels")
    assert (found.n_images, found.n_failed) == (5, 3)
    assert found.left_out == {
        "failed while it was segmented": 2,
        "archive not read: it is truncated": 1,
    }
    assert found.counts.true_total == 9 + 7 + 9 + 2 + 3
    # The same images count if only the table is compared.
    (tmp_path / "run" / "labels.h5").rename(tmp_path / "alone.h5")
    table = evaluate(run, f"{path}:/val/*/labels")
    assert table.counts == found.counts
    assert table.n_failed == 3
    # As truth, too, they are not known.
    name = f"{tmp_path / 'alone.h5'}:/plate.h5/val/10x10/images"
    turned = evaluate(f"{path}:/val/10x10/labels", name)
    assert turned.left_out == {"the truth has no count": 1}
    counted = tmp_path / "c.csv"
    counted.write_text("index,count\n0,2\n1,3\n2,1\n")
    assert evaluate(str(counted), name).left_out == {"the truth has no count": 1}


def test_single_nuclei_of_a_run_are_no_masks(tmp_path):
    path = tmp_path / "a.npz"
    one = draw_labels([1, 1])
    one[0, 20, 20] = 1  # in two pieces, as only a label can be
    write_npz(path, y=one)
    run = make_run(tmp_path / "run", {(path, "X"): one})
    found = evaluate(run, f"{path}:y")
    assert found.counts.predicted_total == 2
    assert "a.npz:y holds masks" in found.notes[0]
    assert len(found.notes) == 1


def test_incomplete_label_images_are_refused(plate, tmp_path):
    path, datasets = plate
    run = make_run(tmp_path / "run", datasets, missing=5)
    message = refuse(run, f"{path}:/val/*/labels")
    assert "5 images are not segmented yet, expected all" in message
    with h5py.File(f"{run}/labels.h5", "a") as file:
        attributes = file["/plate.h5/val/9x9/images"].attrs
        attributes["n_missing"], attributes["n_failed"] = 0, 7000
    message = refuse(run, f"{path}:/val/*/labels")
    assert "7000 images failed, of which the file names 0" in message
    with h5py.File(f"{run}/labels.h5", "a") as file:
        file["/plate.h5/val/9x9/images"].attrs["n_failed"] = "many"
    assert "no whole numbers" in refuse(run, f"{path}:/val/*/labels")


def test_gaps_are_those_of_label_files_only(tmp_path):
    path = tmp_path / "t.npz"
    write_npz(path, y=draw_labels([1]))
    assert read_gaps(path, "y") is None
    write_h5(tmp_path / "t.h5", y=draw_labels([1]))
    assert read_gaps(tmp_path / "t.h5", "y") is None


# ---- names


@pytest.mark.parametrize(
    ("pattern", "key", "words"),
    [
        ("/val/*/labels", "/val/520x696/labels", ("520x696",)),
        ("val/*/labels", "/val/520x696/labels", ("520x696",)),
        ("*_labels", "plate7_labels", ("plate7",)),
        ("/plate?/y", "/plate7/y", ("plate7",)),
        ("/**/y", "/a b/c/y", ("a b", "c")),
        ("/**/y", "/y", ()),
        ("/[AB]*/f?/y", "/A12/f3/y", ("A12", "f3")),
    ],
)
def test_words_of_wildcards_are_whole(pattern, key, words):
    assert find_glob_words(pattern, key) == words


def test_words_need_a_glob_that_matches():
    with pytest.raises(ValueError, match="does not match"):
        find_glob_words("/a/*", "/b/c")


def partners(tmp_path, counted, glob, *keys):
    path = tmp_path / "t.h5"
    write_h5(path, **{k.replace("/", "__"): draw_labels([1]) for k in keys})
    found = open_partners("RUN", counted, [f"{path}:{glob}"])
    return [dataset.info.key for dataset in found]


def test_words_are_not_found_in_longer_ones(tmp_path):
    counted = ["p.h5:/images_A10", "p.h5:/images_A1"]
    found = partners(tmp_path, counted, "/labels_*", "labels_A1", "labels_A10")
    assert found == ["/labels_A10", "/labels_A1"]


def test_of_several_the_rest_of_the_path_decides(tmp_path):
    counted = ["p.h5:/train/A1/X", "p.h5:/val/A1/X", "p.h5:/val/A2/X"]
    keys = ("val/A1/y", "val/A2/y", "train/A1/y")
    found = partners(tmp_path, counted, "/*/*/y", *keys)
    assert found == ["/train/A1/y", "/val/A1/y", "/val/A2/y"]


def test_labels_at_the_root_belong_to_images_there(tmp_path):
    counted = ["p.h5:/a/b/X", "p.h5:/a/X", "p.h5:/X"]
    found = partners(tmp_path, counted, "**/y", "y", "a/y", "a/b/y")
    assert found == ["/a/b/y", "/a/y", "/y"]


@pytest.mark.parametrize(
    ("counted", "words"),
    [
        (["p.h5:/A/X"], "2 label datasets (t.h5:/A/y, t.h5:/B/y), expected one for"),
        (["p.h5:/A/X", "p.h5:/C/X"], "t.h5:/B/y: no dataset of RUN has B in its name"),
        (["p.h5:/A/1", "p.h5:/A/2"], "t.h5:/A/y: belongs to any of 2 datasets of RUN"),
        (["p.h5:/A/B", "q.h5:/C/X"], "t.h5:/B/y: belongs to p.h5:/A/B of RUN by its"),
    ],
)
def test_refuses_labels_that_do_not_pair_up(tmp_path, counted, words):
    with pytest.raises(NucleisegError) as caught:
        partners(tmp_path, counted, "/*/y", "A/y", "B/y")
    assert words in str(caught.value)
    assert re.search("name (the )?labels", str(caught.value))


# ---- the command, and what it writes


@pytest.fixture
def call(capsys):
    def run(*arguments):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as leaving:
            status = leaving.code
        return status, *capsys.readouterr()

    return run


def test_everything_is_written(plate, tmp_path, call):
    path, datasets = plate
    run = make_run(tmp_path / "run", datasets)
    words = ["evaluate", run, "--labels", f"{path}:/val/*/labels"]
    out = tmp_path / "new" / "out"
    status, printed, log = call(*words, "--out", out, "--pictures", 2)
    assert status == 0, log
    assert f"wrote     {out / 'scores.json'}" in log
    assert printed == (out / "scores.txt").read_text()
    scores = json.loads((out / "scores.json").read_text())
    assert scores == json.loads(call(*words, "--json")[1])
    assert scores["datasets"][0]["instances"]["areas"][0]["missed"] > 0

    table = pd.read_csv(out / "scores.csv")
    assert table["dataset"].tolist() == [
        "all",
        "plate.h5:/val/9x9/images",
        "plate.h5:/val/10x10/images",
    ]
    for row, one in zip(table.itertuples(), [scores, *scores["datasets"]], strict=True):
        bias, ap = one["counts"]["bias"], one["instances"]["ap_pooled"][0]
        assert row.bias == pytest.approx(bias["value"], abs=1e-5)
        assert row.bias_low == pytest.approx(bias["low"], abs=1e-5)
        assert row.ap_pooled_50_high == pytest.approx(ap["high"], abs=1e-5)

    images = pd.read_csv(out / "images.csv")
    assert len(images) == 7
    assert images["error"].sum() == scores["counts"]["predicted_total"] - 39
    assert (images["missed"] == images["true"] - images["found"]).all()
    expected = [6 / 9, 5 / 8, 4 / 7, 6 / 9, 1, 1, 1]
    assert images["ap_50"].tolist() == pytest.approx(expected, abs=1e-5)
    # The images of 7 and 8 nuclei have lost the largest shares.
    worst = sorted((out / "worst").iterdir())
    assert [one.name for one in worst] == [
        "001-plate.h5-val_9x9_images-000002.png",
        "002-plate.h5-val_9x9_images-000001.png",
    ]
    assert all(cv2.imread(str(one)) is not None for one in worst)

    # Another time, with fewer pictures: none of those is left.
    (out / "worst" / "mine.png").touch()
    assert call(*words, "--out", out, "--pictures", 1)[0] == 0
    left = sorted(one.name for one in (out / "worst").iterdir())
    assert left == ["001-plate.h5-val_9x9_images-000002.png", "mine.png"]


def test_tables_give_files_without_pictures(plate, tmp_path, call):
    path, datasets = plate
    run = make_run(tmp_path / "run", datasets, labels=False)
    words = ["evaluate", run, f"{path}:/val/*/labels", "--out", tmp_path / "out"]
    assert call(*words)[0] == 0
    names = sorted(one.name for one in (tmp_path / "out").iterdir())
    assert names == ["images.csv", "scores.csv", "scores.json", "scores.txt"]
    images = pd.read_csv(tmp_path / "out" / "images.csv")
    assert list(images) == ["dataset", "index", "true", "predicted", "error"]
    status, _, log = call(*words, "--pictures", 1)
    assert status == 2
    assert "expected label images on both sides" in log


def test_images_are_named_or_left_out(plate, tmp_path, call):
    path, datasets = plate
    found = write_npz(tmp_path / "p.npz", y=datasets[path, "/val/9x9/images"])
    words = ["evaluate", f"{found}:y", f"{path}:/val/9x9/labels", "--out"]
    words += [tmp_path / "out", "--pictures", 1]
    picture = tmp_path / "out" / "worst" / "001-p.npz-y-000002.png"
    assert call(*words)[0] == 0
    dark = cv2.imread(str(picture))
    assert call(*words, "--images", f"{path}:/val/9x9/images")[0] == 0
    assert cv2.imread(str(picture)).mean() > dark.mean()
    for name, complaint in (
        ("10x10", "images of shape (3, 24, 24), expected (4, 30, 30)"),
        ("*", "2 datasets of images"),
    ):
        status, _, log = call(*words, "--images", f"{path}:/val/{name}/images")
        assert (status, len(log.splitlines())) == (2, 1)
        assert complaint in log


def test_images_of_a_run_that_are_gone_are_named(plate, tmp_path, call):
    path, datasets = plate
    run = make_run(tmp_path / "run", datasets)
    truth = shutil.copy(path, tmp_path / "plate_labels.h5")
    path.unlink()
    words = ["evaluate", run, f"{truth}:/val/*/labels", "--out", tmp_path / "out"]
    status, _, log = call(*words, "--pictures", 1)
    assert status == 2
    assert f"{path}: not found" in log
    names = [f"{truth}:/val/9x9/images", f"{truth}:/val/10x10/images"]
    assert call(*words, "--pictures", 1, "--images", *names)[0] == 0
    assert call(*words)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "p.csv: no truth, expected one of TRUTH and --labels"),
        (["t.csv", "--labels", "t.npz:y"], "both TRUTH and --labels"),
        (["--labels", "t.csv", "t.npz:y"], "t.csv: one of 2 names, expected one table"),
        (["t.csv", "--pictures", "2"], "--pictures 2 without a folder"),
        (["t.csv", "--images", "a.npz"], "--images a.npz without pictures"),
    ],
)
def test_refuses_in_one_line(call, arguments, words):
    status, out, log = call("evaluate", "p.csv", *arguments)
    assert (status, out, len(log.splitlines())) == (2, "", 1)
    assert words in log
