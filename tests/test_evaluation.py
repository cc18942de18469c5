"""Reading, pairing and scoring of tables and label images, and every refusal."""

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from nucleiseg import evaluation
from nucleiseg.errors import NucleisegError
from nucleiseg.evaluation import evaluate
from nucleiseg.evaluation.sides import open_side

DATA = Path(
    os.environ.get("NUCLEISEG_DATA")
    or Path(__file__).resolve().parents[2] / "shared" / "data"
)
needs_data = pytest.mark.skipif(
    not (DATA / "test_labels.npz").is_file(),
    reason=f"no test_labels.npz in {DATA}; set NUCLEISEG_DATA",
)


def draw_labels(counts, side=24, first=1):
    """Label images with so many 2×2 nuclei each, no two of which touch."""
    labels = np.zeros((len(counts), side, side), np.uint16)
    for image, count in zip(labels, counts, strict=True):
        for k in range(count):
            y, x = 3 * (k // (side // 3)), 3 * (k % (side // 3))
            image[y : y + 2, x : x + 2] = first + k
    return labels


def write_table(
    path, counts, *, dataset=None, archive="a.h5", encoding="utf-8", **more
):
    rows = pd.DataFrame({"index": range(len(counts)), "count": counts})
    rows["count"] = rows["count"].astype("Int64")
    if dataset:
        rows = rows.assign(archive=archive, dataset=dataset)
    rows = rows.assign(**more)
    if path.suffix == ".parquet":
        rows.to_parquet(path)
    else:
        rows.to_csv(path, index=False, encoding=encoding)
    return str(path)


def join_tables(path, *names):
    tables = [pd.read_csv(name, keep_default_na=False) for name in names]
    pd.concat(tables).to_csv(path, index=False)
    return str(path)


def write_npz(path, **arrays):
    np.savez_compressed(path, **arrays)
    return str(path)


def write_h5(path, **arrays):
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            file[key.replace("__", "/")] = array
    return str(path)


def refuse(*args, **options):
    """Give the message of the refusal, which must be one line."""
    with pytest.raises(NucleisegError) as caught:
        evaluate(*args, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ---- table against table


@pytest.mark.parametrize("kind", ["csv", "csv with BOM", "parquet"])
def test_simple_tables(tmp_path, kind):
    name = "p.parquet" if kind == "parquet" else "p.csv"
    encoding = "utf-8-sig" if "BOM" in kind else "utf-8"
    predicted = write_table(tmp_path / name, [9, 20, 0], encoding=encoding)
    truth = write_table(tmp_path / "t.csv", [10, 20, 0])
    found = evaluate(predicted, truth)
    assert (found.n_images, found.n_failed, found.left_out) == (3, 0, {})
    assert found.counts.mae.value == pytest.approx(1 / 3)
    assert found.counts.bias.value == pytest.approx(-1 / 30)
    assert found.instances is None
    assert found.datasets == ()


def test_rows_are_joined_by_index_not_by_place(tmp_path):
    predicted = tmp_path / "p.csv"
    predicted.write_text("count,index\n30,2\n10,0\n20,1\n")
    truth = write_table(tmp_path / "t.csv", [10, 20, 30])
    assert evaluate(str(predicted), truth).counts.exact.value == 1


def test_tables_of_several_datasets_join_on_all_names(tmp_path):
    one = write_table(tmp_path / "1.csv", [5, 6], dataset="/x")
    two = write_table(tmp_path / "2.csv", [8, 9], dataset="NA")
    other = write_table(tmp_path / "3.csv", [1, 1], dataset="/x", archive="b.h5")
    predicted = join_tables(tmp_path / "p.csv", one, two, other)
    truth = join_tables(tmp_path / "t.csv", other, two, one)
    found = evaluate(predicted, truth)
    assert found.counts.exact.value == 1
    assert [d.name for d in found.datasets] == ["a.h5:/x", "a.h5:NA", "b.h5:/x"]
    assert [d.true_total for d in found.datasets] == [11, 17, 2]


def test_one_named_dataset_joins_a_truth_of_index_alone(tmp_path):
    predicted = write_table(tmp_path / "p.csv", [5, 6], dataset="/x", status="ok")
    truth = write_table(tmp_path / "t.parquet", [5, 7])
    assert evaluate(predicted, truth).counts.mae.value == 0.5


def test_failed_images_are_left_out_and_reported(tmp_path):
    predicted = write_table(
        tmp_path / "p.csv",
        [5, None, 900, None],
        status=["ok", "failed", "failed", "ok"],
        reason=["", "bad chunk", "bad chunk", ""],
    )
    truth = write_table(tmp_path / "t.csv", [5, 6, 7, 8])
    found = evaluate(predicted, truth)
    assert (found.n_images, found.n_failed) == (1, 3)
    assert found.left_out == {"bad chunk": 2, "no count, no reason given": 1}
    assert found.counts.true_total == 5
    text = found.to_text()
    assert "compared   1 of 4 images" in text
    assert "3 images, 3 of them failed: 2 × bad chunk" in text


def test_image_without_true_count_is_left_out_but_not_failed(tmp_path):
    predicted = write_table(tmp_path / "p.csv", [5, 6, None], reason=["", "", "gone"])
    truth = write_table(tmp_path / "t.csv", [5, None, None])
    found = evaluate(predicted, truth)
    assert (found.n_images, found.n_failed) == (1, 1)
    assert found.left_out == {"gone": 1, "the truth has no count": 1}


def test_unreadable_archive(tmp_path):
    one = write_table(tmp_path / "1.csv", [5, 6], dataset="/x", status="ok", reason="")
    lost = write_table(tmp_path / "2.csv", [7, 8, 9], dataset="/x", archive="b.h5")
    predicted = tmp_path / "p.csv"
    row = ",,b.h5,,failed,b.h5 is truncated\n"
    predicted.write_text(Path(one).read_text() + row)
    # The truth names the archive: its three images are what failed.
    found = evaluate(str(predicted), join_tables(tmp_path / "t.csv", one, lost))
    assert (found.n_images, found.n_failed) == (2, 3)
    assert found.left_out == {"archive not read: b.h5 is truncated": 3}
    # It does not: the archive counts as one.
    assert (
        evaluate(str(predicted), write_table(tmp_path / "u.csv", [5, 6])).n_failed == 1
    )
    # Label images have no name for it; the readable dataset is still comparable.
    labels = write_npz(tmp_path / "t.npz", y=draw_labels([5, 6]))
    assert evaluate(str(predicted), labels).counts.exact.value == 1


@pytest.mark.parametrize(
    ("named", "n_lost"),
    [
        ("/y", 2),
        ("y", 2),
        ("/[yz]", 5),
        ("**", 5),
        ("", 5),
        ("/gone", 1),
        ("/[z-a]", 1),
    ],
)
def test_unreadable_datasets_of_an_archive_that_is_read(tmp_path, named, n_lost):
    one = write_table(tmp_path / "1.csv", [5, 6], dataset="/x", status="ok", reason="")
    two = write_table(tmp_path / "2.csv", [7, 8], dataset="/y")
    three = write_table(tmp_path / "3.csv", [9, 9, 9], dataset="/z")
    parts = {"/y": [two], "/gone": [], "/[z-a]": []}.get(f"/{named.strip('/')}")
    parts = [two, three] if parts is None else parts
    predicted = tmp_path / "p.csv"
    row = f",,a.h5,{named},failed,it is complex\n"
    predicted.write_text(Path(one).read_text() + row)
    found = evaluate(str(predicted), join_tables(tmp_path / "t.csv", one, *parts))
    assert (found.n_images, found.n_failed) == (2, n_lost)
    assert found.counts.exact.value == 1
    kind = "dataset" if named else "archive"
    assert found.left_out == {f"{kind} not read: it is complex": n_lost}


def test_an_unreadable_dataset_takes_no_other_along(tmp_path):
    one = write_table(tmp_path / "1.csv", [5, 6], dataset="/x", status="ok", reason="")
    two = write_table(tmp_path / "2.csv", [7, 8], dataset="/y")
    three = write_table(tmp_path / "3.csv", [9], dataset="/z")
    predicted = tmp_path / "p.csv"
    predicted.write_text(Path(one).read_text() + ",,a.h5,/y,failed,it is complex\n")
    # The third is not in the run at all.
    truth = join_tables(tmp_path / "t.csv", one, two, three)
    assert "no row for index 0 of a.h5:/z" in refuse(str(predicted), truth)
    # A truth that names archives, or datasets, alone.
    rows = pd.read_csv(one)
    rows.drop(columns="dataset").to_csv(tmp_path / "archives.csv", index=False)
    assert evaluate(str(predicted), str(tmp_path / "archives.csv")).n_failed == 1
    rows = pd.concat([rows, pd.read_csv(two)])
    rows.drop(columns="archive").to_csv(tmp_path / "datasets.csv", index=False)
    found = evaluate(str(predicted), str(tmp_path / "datasets.csv"))
    assert (found.n_images, found.n_failed) == (2, 2)


# ---- label images


def test_table_against_label_images(tmp_path):
    predicted = write_table(tmp_path / "p.csv", [3, 0, 1])
    labels = draw_labels([3, 0, 2], first=40)
    truth = write_npz(tmp_path / "t.npz", y=labels)
    for name in (truth, f"{truth}:y", write_h5(tmp_path / "t.h5", y=labels) + ":/y"):
        found = evaluate(predicted, name)
        assert found.counts.true_total == 5
        assert found.counts.bias.value == pytest.approx(-1 / 5)
        assert found.instances is None
    assert evaluate(truth, predicted).counts.bias.value == pytest.approx(1 / 4)


def test_table_against_several_datasets_in_order(tmp_path):
    # Not in the order of their names: the order of first appearance decides.
    one = write_table(tmp_path / "1.csv", [4, 5, 6], dataset="/z/images")
    two = write_table(tmp_path / "2.csv", [2, 1], dataset="/b/images")
    predicted = join_tables(tmp_path / "p.csv", one, two)
    truth = write_h5(
        tmp_path / "t.h5",
        a__labels=draw_labels([4, 5, 7], side=18),
        b__labels=draw_labels([2, 2]),
    )
    found = evaluate(predicted, f"{truth}:/*/labels")
    assert [(d.name, d.n_images) for d in found.datasets] == [
        ("a.h5:/z/images", 3),
        ("a.h5:/b/images", 2),
    ]
    assert [d.bias for d in found.datasets] == pytest.approx([-1 / 16, -1 / 4])
    assert found.counts.bias.value == pytest.approx(-2 / 20)


def test_label_images_of_one_name_in_several_folders(tmp_path):
    names = []
    for folder, counts in (("a", [4, 5]), ("b/c", [2, 1, 3])):
        (tmp_path / folder).mkdir(parents=True)
        labels = write_npz(tmp_path / folder / "labels.npz", Y=draw_labels(counts))
        names.append(f"{labels}:Y")
    parts = [
        write_table(tmp_path / f"{n}.csv", counts, dataset=f"/{n}/images")
        for n, counts in enumerate([[4, 5], [2, 1, 3]])
    ]
    table = join_tables(tmp_path / "p.csv", *parts)
    found = evaluate(table, names)
    assert found.counts.exact.value == 1
    assert [d.n_images for d in found.datasets] == [2, 3]
    turned = refuse(table, names[::-1])
    assert "2 images of a.h5:/0/images" in turned
    assert "has 3 of c/labels.npz:Y" in turned
    # Both sides label images: two rows of scores, by names that differ.
    (tmp_path / "found").mkdir()
    both = write_h5(
        tmp_path / "found" / "labels.h5",
        a__Y=draw_labels([4, 5]),
        c__Y=draw_labels([2, 1, 2]),
    )
    scores = evaluate(f"{both}:/*/Y", names)
    assert [d.bias for d in scores.datasets] == pytest.approx([0, -1 / 6])
    # As predictions, they are called by what tells them apart.
    sides = open_side(names)
    assert [d.group for d in sides.datasets] == ["a/labels.npz:Y", "c/labels.npz:Y"]


def test_datasets_of_one_name_stay_apart(tmp_path):
    one = write_table(tmp_path / "1.csv", [4, 5], dataset="/x")
    two = write_table(tmp_path / "2.csv", [4, 6], dataset="/y")
    table = join_tables(tmp_path / "p.csv", one, two)
    labels = write_npz(tmp_path / "t.npz", y=draw_labels([4, 5]))
    found = evaluate(table, [labels, labels])
    assert [d.true_total for d in found.datasets] == [9, 9]
    # Columns tell datasets apart, not the one name that is made of them.
    one = write_table(tmp_path / "1.csv", [4, 5], archive="a:b", dataset="c")
    two = write_table(tmp_path / "2.csv", [4, 6], archive="a", dataset="b:c")
    table = join_tables(tmp_path / "p.csv", one, two)
    found = evaluate(table, [labels, labels])
    assert [d.predicted_total for d in found.datasets] == [9, 10]
    assert evaluate(table, table).n_images == 4
    assert len(evaluate(table, table).datasets) == 2


def test_labels_against_labels(tmp_path):
    labels = draw_labels([2, 1, 0], first=7)
    predicted = labels.copy()
    labels[1][labels[1] > 0] = 60_000
    predicted[0, 3:, :] = predicted[0, :, 3:] = 0  # one of two is missing
    predicted[1, 1, :2] = 0  # half of the only one: IoU 0.5
    found = evaluate(
        write_h5(tmp_path / "p.h5", x=predicted.astype(np.int64)) + ":x",
        write_npz(tmp_path / "t.npz", y=labels) + ":y",
    )
    assert found.instances.n_images == found.n_images == 3
    assert [e.value for e in found.instances.ap_pooled[:2]] == pytest.approx(
        [2 / 3, 1 / 4]
    )
    assert found.instances.ap_per_image[0].value == pytest.approx((0.5 + 1 + 1) / 3)
    assert found.instances.n_empty == 1
    assert found.counts.true_total == 3
    assert found.counts.predicted_total == 2
    assert found.notes == ()


def test_damage_of_labels_without_compression_is_noticed(tmp_path):
    labels = draw_labels([2, 1, 0], side=96)
    truth = tmp_path / "t.npz"
    np.savez(truth, y=labels)
    content = bytearray(truth.read_bytes())
    content[content.index(labels[1].tobytes())] ^= 4
    truth.write_bytes(content)
    with pytest.raises(NucleisegError, match="Bad CRC-32"):
        evaluate(write_h5(tmp_path / "p.h5", x=labels) + ":x", f"{truth}:y")


def test_one_image_in_two_axes(tmp_path):
    truth = write_npz(tmp_path / "t.npz", y=draw_labels([4])[0])
    found = evaluate(truth, truth)
    assert (found.n_images, found.instances.ap_pooled[9].value) == (1, 1)
    assert "[–, –]" in found.to_text()  # of one image there is no interval


def test_stacks_of_other_sizes_side_by_side(tmp_path):
    truth = write_h5(
        tmp_path / "t.h5",
        a__labels=draw_labels([4, 2], side=18),
        b__labels=draw_labels([1]),
        b__images=np.ones((1, 24, 24), np.uint8),
    )
    found = evaluate(f"{truth}:/*/labels", f"{truth}:*/labels")
    assert found.instances.mean_ap_pooled.value == 1
    assert [d.name for d in found.datasets] == ["t.h5:/a/labels", "t.h5:/b/labels"]
    assert "t.h5:/b/labels" in found.to_text()


def test_pieces_do_not_change_the_scores(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    labels = draw_labels(rng.integers(0, 9, 11))
    predicted = write_npz(tmp_path / "p.npz", y=np.roll(labels, 1, axis=2))
    truth = write_npz(tmp_path / "t.npz", y=labels)
    whole = evaluate(predicted, truth)
    monkeypatch.setattr(evaluation.labels, "_PIECE_BYTES", 8 * 24 * 24 * 3)
    raw, opened = [], evaluation.labels._read_raw

    def spy(path, info):
        for piece in opened(path, info):
            raw.append(len(piece))
            yield piece

    monkeypatch.setattr(evaluation.labels, "_read_raw", spy)
    assert evaluate(predicted, truth) == whole
    assert max(raw) == 3


@pytest.mark.parametrize("dtype", ["bool", "float32", "uint8", "uint8 255"])
def test_masks_become_components(tmp_path, dtype):
    labels = draw_labels([3, 1])
    labels[1, 2, 2] = 1  # touches a corner of the one there: 8-connected
    mask = (labels > 0).astype(dtype.split()[0])
    if dtype == "uint8 255":
        mask *= 255
    if dtype == "float32":
        mask *= 0.6
    predicted = write_npz(tmp_path / "p.npz", y=mask)
    truth = write_npz(tmp_path / "t.npz", y=labels)
    found = evaluate(predicted, truth)
    assert found.counts.predicted_total == 4
    assert found.instances.mean_ap_pooled.value == 1
    assert found.notes == (
        "p.npz:y holds masks: its nuclei are their 8-connected components",
    )
    assert "8-connected" in found.to_text()


def test_labels_are_no_masks_for_one_later_label(tmp_path):
    labels = draw_labels([1, 1, 2])
    labels[0, 20, 20] = 1  # as labels still one nucleus, as a mask two
    name = write_npz(tmp_path / "t.npz", y=labels)
    assert evaluate(name, name).counts.true_total == 4
    masks = write_npz(tmp_path / "m.npz", y=labels[:2])
    assert evaluate(masks, masks).counts.true_total == 3


def test_min_true_area(tmp_path):
    labels = draw_labels([2, 3])
    labels[0, 1, :2] = 0  # two pixels are left of the first
    predicted = write_table(tmp_path / "p.csv", [1, 3])
    truth = write_npz(tmp_path / "t.npz", y=labels)
    assert evaluate(predicted, truth).counts.exact.value == 0.5
    found = evaluate(predicted, truth, min_true_area_px=3)
    assert found.counts.exact.value == 1
    assert "3 px" in found.notes[0]
    matched = evaluate(truth, truth, min_true_area_px=3)
    assert (matched.instances.n_predicted, matched.instances.n_true) == (5, 4)


# ---- results


def test_dict_is_json_and_nan_is_null(tmp_path):
    name = write_npz(tmp_path / "t.npz", y=draw_labels([0, 0]))
    content = json.loads(json.dumps(evaluate(name, name).to_dict(), allow_nan=False))
    assert content["counts"]["mape"] == {"value": None, "low": None, "high": None}
    assert content["counts"]["mae"]["value"] == 0
    assert content["instances"]["mean_ap_per_image"]["value"] == 1
    assert content["instances"]["thresholds"][0] == 0.5
    assert content["datasets"] == []


def test_text_names_figures_units_and_intervals(tmp_path):
    predicted = write_table(tmp_path / "p.csv", [9, 20, 0, 3])
    truth = write_table(tmp_path / "t.csv", [10, 20, 0, 2])
    found = evaluate(predicted, truth)
    lines = {line[:12].strip(): line for line in found.to_text().splitlines()}
    mae = found.counts.mae
    assert f"0.500 nuclei an image [{mae.low:.3f}, {mae.high:.3f}]" in lines["MAE"]
    assert "20.00 %" in lines["MAPE"]
    assert "1 images without true nuclei left out" in lines["MAPE"]
    assert "50.00 %" in lines["exact"]


def test_same_input_gives_the_same_intervals(tmp_path):
    counts = np.arange(40)
    predicted = write_table(tmp_path / "p.csv", counts + counts % 7)
    truth = write_table(tmp_path / "t.csv", counts)
    one = evaluate(predicted, truth)
    assert evaluate(predicted, truth) == one
    other = evaluate(predicted, truth, rng=np.random.default_rng(99))
    assert other.counts.bias != one.counts.bias
    assert other.counts.bias.value == one.counts.bias.value


def test_misses_by_size_count_true_and_false_nuclei(tmp_path):
    labels = draw_labels([3])
    labels[0, 12:22, 12:22] = 9
    predicted = labels.copy()
    predicted[labels == 1] = 0  # a small one is missed
    predicted[0, 0:10, 12:22] = 8  # and a large one is not there
    found = evaluate(
        write_npz(tmp_path / "p.npz", y=predicted),
        write_npz(tmp_path / "t.npz", y=labels),
    )
    lines = found.to_text().splitlines()
    head = lines.index(next(line for line in lines if line.startswith("by area, px")))
    # Classes without nuclei are left out.
    rows = [line.split() for line in lines[head + 1 :]]
    assert rows == [
        ["1–31", "1–6", "3", "1", "33.3", "2", "0", "0.0"],
        ["64–127", "9–13", "1", "0", "0.0", "2", "1", "50.0"],
    ]


def test_every_dataset_has_all_figures_and_intervals(tmp_path):
    few, many = draw_labels([2, 3, 1]), draw_labels([9, 8, 7, 9])
    truth = write_h5(tmp_path / "t.h5", a__y=few, b__y=many)
    worse = many.copy()
    worse[:, :3] = 0
    predicted = write_h5(tmp_path / "p.h5", a__y=few, b__y=worse)
    found = evaluate(f"{predicted}:/*/y", f"{truth}:/*/y")
    one, other = found.datasets
    alone = evaluate(f"{predicted}:/b/y", f"{truth}:/b/y")
    assert other.counts.bias.value == alone.counts.bias.value == other.bias < 0
    assert other.counts.bias.low < other.bias < other.counts.bias.high
    assert other.instances.areas == alone.instances.areas
    assert other.instances.ap_pooled[0].value == alone.instances.ap_pooled[0].value
    assert (one.counts.mae.value, one.instances.mean_ap_pooled.value) == (0, 1)
    text = found.to_text()
    assert text.count("p.h5:/b/y") == 2  # among the counts, and the instances
    counts = next(line for line in text.splitlines() if line.startswith("p.h5:/b/y"))
    assert f"{100 * other.bias:.2f}" in counts
    # The figures of all images are those without groups.
    assert json.loads(json.dumps(found.to_dict()))["datasets"][1]["counts"]["r2"]


# ---- refusals


def test_refuses_unmatched_rows(tmp_path):
    short = write_table(tmp_path / "short.csv", [1] * 2)
    long = write_table(tmp_path / "long.csv", [1] * 9)
    for pair in ((short, long), (long, short)):
        message = refuse(*pair)
        assert message.startswith(
            f"{short}: no row for index 2, 3, 4, 5, 6 … (7 in all)"
        )
        assert long in message


def test_refuses_doubled_rows(tmp_path):
    doubled = tmp_path / "p.csv"
    doubled.write_text("index,count\n0,1\n1,1\n1,2\n")
    truth = write_table(tmp_path / "t.csv", [1, 1])
    for pair in ((str(doubled), truth), (truth, str(doubled))):
        assert f"{doubled}: more than one row for index 1," in refuse(*pair)


def test_refuses_other_names(tmp_path):
    predicted = write_table(tmp_path / "p.csv", [1], dataset="X")
    truth = write_table(tmp_path / "t.csv", [1], dataset="Y")
    assert "index 0 of a.h5:X" in refuse(truth, predicted)


@pytest.mark.parametrize("n_true", [2, 4])
def test_refuses_several_datasets_against_index_alone(tmp_path, n_true):
    one = write_table(tmp_path / "1.csv", [1, 1], dataset="/x")
    two = write_table(tmp_path / "2.csv", [1, 1], dataset="/y")
    several = join_tables(tmp_path / "p.csv", one, two)
    plain = write_table(tmp_path / "t.csv", [1] * n_true)
    for pair in ((several, plain), (plain, several)):
        message = refuse(*pair)
        assert f"{several}: 2 datasets" in message
        assert "archive and dataset" in message


def test_refuses_another_number_or_length_of_datasets(tmp_path):
    one = write_table(tmp_path / "1.csv", [1, 1], dataset="/x")
    two = write_table(tmp_path / "2.csv", [1, 1], dataset="/y")
    several = join_tables(tmp_path / "p.csv", one, two)
    single = write_npz(tmp_path / "t.npz", y=draw_labels([1, 1]))
    message = refuse(several, single)
    assert "2 datasets (a.h5:/x, a.h5:/y)" in message
    assert "has 1 (t.npz:y)" in message
    longer = write_npz(tmp_path / "u.npz", y=draw_labels([1, 1, 2]))
    message = refuse(one, longer)
    assert "2 images of a.h5:/x" in message
    assert "3 of u.npz:y" in message


def test_refuses_label_images_that_do_not_fit(tmp_path):
    truth = write_npz(tmp_path / "t.npz", y=draw_labels([1, 2]))
    other = write_npz(tmp_path / "o.npz", y=draw_labels([1, 2], side=18))
    message = refuse(other, truth)
    assert "(2, 18, 18)" in message
    assert "(2, 24, 24)" in message
    several = write_npz(tmp_path / "s.npz", a=draw_labels([2]), b=draw_labels([2]))
    assert "2 datasets (a, b)" in refuse(f"{several}:*", truth)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "cannot be read as a table"),
        ("index,count\n0,many\n", "cannot be read as a table"),
        ("index,count\n0,1.5\n", "cannot be read as a table"),
        ("index,nuclei\n0,1\n", "no column count"),
        ("index,count\n0,-1\n", "negative"),
        ("index,count\n,4\n", "without an index"),
        ("index,count\n0,\n", "no image is left"),
        ("index,count,status,reason\n0,,failed,gone\n", "1 × gone"),
    ],
)
def test_refuses_bad_tables(tmp_path, content, words):
    bad = tmp_path / "bad.csv"
    bad.write_text(content)
    message = refuse(str(bad), write_table(tmp_path / "t.csv", [1]))
    assert message.startswith(f"{bad}: ")
    assert words in message


def test_refuses_what_is_not_there(tmp_path):
    truth = write_table(tmp_path / "t.csv", [1])
    assert "no.csv" in refuse(str(tmp_path / "no.csv"), truth)
    assert "no.npz" in refuse(str(tmp_path / "no.npz"), truth)
    assert "a folder" in refuse(str(tmp_path), truth)
    broken = tmp_path / "p.parquet"
    broken.write_bytes(b"PAR1 and no more")
    assert "p.parquet: cannot be read" in refuse(str(broken), truth)


@pytest.mark.parametrize("values", [[0.0, 7.0], [0, -3], [0.0, float("nan")]])
def test_refuses_values_that_are_neither_labels_nor_masks(tmp_path, values):
    images = np.resize(np.array(values), (2, 24, 24))
    name = write_npz(tmp_path / "t.npz", y=images)
    assert "neither label image nor mask" in refuse(name, name)


def test_refuses_min_area_for_a_table(tmp_path):
    name = write_table(tmp_path / "t.csv", [1])
    assert "10 px" in refuse(name, name, min_true_area_px=10)


# ---- real data


@needs_data
@pytest.mark.data
def test_real_labels_against_themselves():
    name = f"{DATA / 'test_labels.npz'}:y"
    found = evaluate(name, name)
    assert found.n_images == 2000
    assert found.instances.mean_ap_pooled.value == 1
    assert found.instances.mean_ap_per_image.value == 1
    assert found.instances.splits == found.instances.merges == 0


@needs_data
@pytest.mark.data
def test_real_counts_against_labels():
    found = evaluate(str(DATA / "test_counts.csv"), str(DATA / "test_labels.npz"))
    assert found.n_images == 2000
    assert found.counts.mae.value < 0.1
    assert found.counts.true_total > 10_000
