"""One image of any size: counted in blocks, the same as in one piece."""

import h5py
import numpy as np
import pandas as pd
import pytest

from nucleiseg import synthetic
from nucleiseg.config import load_config
from nucleiseg.counting import count, prepare
from nucleiseg.runs import CountRun
from tests.conftest import run_nucleiseg

TILES = ("inference.tile_px=128", "inference.context_px=32")
BLOCKS = "shards.block_pixels=40000"
WHOLE = "shards.block_pixels=100000000"


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """Two slides in each of three archives, of several dtypes and storages."""
    folder = tmp_path_factory.mktemp("slides")
    images, _ = synthetic.draw_fields(2, (610, 470), seed=21)
    scaled = (images.astype("float64") / images.max() * 4000).astype("uint16")
    with h5py.File(folder / "gzip.h5", "w") as file:
        for number, image in enumerate(scaled):
            file.create_dataset(
                f"slide{number}", data=image, chunks=(100, 100), compression="gzip"
            )
    np.savez(folder / "stored.npz", X=scaled)
    np.savez_compressed(folder / "deflated.npz", X=images.astype("float32"))
    return [
        f"{folder / 'gzip.h5'}:/slide*",
        folder / "stored.npz",
        folder / "deflated.npz",
    ]


def count_here(inputs, model, folder, *settings, workers=0):
    config = load_config(None, [*TILES, *settings])
    prepared = prepare([str(name) for name in inputs], model, config)
    return prepared.plan, count(prepared, folder, workers=workers)


def test_counts_of_blocks_are_those_of_whole_images(slides, model, tmp_path):
    plan, _ = count_here(slides, model, tmp_path / "blocks", BLOCKS)
    assert plan.n_images == 6
    assert len(plan.shards) > 40
    assert all(shard.block for shard in plan.shards)
    whole, _ = count_here(slides, model, tmp_path / "whole", WHOLE)
    assert not any(shard.block for shard in whole.shards)
    table = (tmp_path / "blocks" / "counts.csv").read_bytes()
    assert table == (tmp_path / "whole" / "counts.csv").read_bytes()
    frame = pd.read_csv(tmp_path / "blocks" / "counts.csv")
    assert frame["count"].min() > 20
    assert list(frame["count"][:2]) == list(frame["count"][2:4])


def test_blocks_go_to_several_workers_and_are_computed_again(slides, model, tmp_path):
    _, first = count_here(slides, model, tmp_path / "one", BLOCKS)
    reference = (tmp_path / "one" / "counts.csv").read_bytes()
    answer = run_nucleiseg(
        *("count", *slides, "--model", model, "--run", tmp_path / "two"),
        *("--workers", "2", "--set", BLOCKS),
        *(word for setting in TILES for word in ("--set", setting)),
    )
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "two" / "counts.csv").read_bytes() == reference

    run = CountRun(tmp_path / "one")
    for number in (3, 17):
        run.part(number).unlink()
    run.table("csv").unlink()
    _, again = count_here(slides, model, run.root, BLOCKS)
    assert again.n_computed == 2
    assert first.merged.n_nuclei == again.merged.n_nuclei
    assert run.table("csv").read_bytes() == reference


def test_an_image_with_a_nan_fails_alone(model, tmp_path):
    images, _ = synthetic.draw_fields(3, (300, 300), seed=3)
    images = images.astype("float32")
    images[1, 250, 17] = np.nan
    np.savez(tmp_path / "a.npz", X=images)
    _, result = count_here([tmp_path / "a.npz"], model, tmp_path / "run", BLOCKS)
    frame = pd.read_csv(tmp_path / "run" / "counts.csv")
    assert list(frame["status"]) == ["ok", "failed", "ok"]
    assert "NaN" in frame["reason"][1]
    assert result.merged.n_failed == 1
    status = run_nucleiseg("status", tmp_path / "run")
    assert "3 of 3 counted" in status.stdout
    assert "1 failed" in status.stdout


def test_a_range_is_found_once_and_kept(slides, model, tmp_path, monkeypatch):
    from nucleiseg.inference import facts

    measured = []
    measure = facts._measure

    def note(reader, image, settings):
        measured.append((reader.info.key, image))
        return measure(reader, image, settings)

    monkeypatch.setattr(facts, "_measure", note)
    count_here(slides[1:], model, tmp_path / "run", BLOCKS)
    assert measured == [("X", 0), ("X", 1)] * 2
