"""Passes over npz members: made once, before their shards, or by who needs them."""

import json
import zipfile
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest

from nucleiseg import synthetic
from nucleiseg.archives import (
    Member,
    MemberNote,
    fingerprint,
    pass_member,
    read_note,
)
from nucleiseg.bundle import write_info
from nucleiseg.cluster import GatheredTeam
from nucleiseg.cluster.passes import Gate, Passes
from nucleiseg.cluster.task import Report
from nucleiseg.config import Config, ModelConfig, load_config
from nucleiseg.counting import claim, count, prepare, reset_failures
from nucleiseg.errors import ArchiveError, IncompleteError
from nucleiseg.inference.sources import Sources
from nucleiseg.model import build_unet, save_weights
from nucleiseg.runs import Bundle, CountRun
from nucleiseg.shards import read_plan


@pytest.fixture(scope="module")
def images():
    return synthetic.draw_fields(24, (64, 64), seed=3)[0]


@pytest.fixture
def archives(images, tmp_path):
    """Two deflated members in one npz, a stored one, and an HDF5 file."""
    np.savez_compressed(tmp_path / "a.npz", X=images, Z=images[:10])
    np.savez(tmp_path / "b.npz", X=images[:8])
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file.create_dataset("images", data=images[:6], chunks=(1, 64, 64))
    return [f"{tmp_path}/a.npz:*", f"{tmp_path}/b.npz:X", f"{tmp_path}/c.h5"]


def plan_run(archives, model, folder, *settings):
    settings = ("shards.images=4", "inference.device=cpu", *settings)
    prepared = prepare(archives, model, load_config(overrides=settings), folder=folder)
    run = CountRun(folder)
    claim(run, prepared.plan, prepared.config, prepared.model)
    return run, prepared


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A network that has learnt nothing: what it counts is not what is tested."""
    config = Config(model=ModelConfig(base_filters=1))
    bundle = Bundle(tmp_path_factory.mktemp("model") / "model")
    bundle.root.mkdir()
    save_weights(bundle, config.model, build_unet(config.model).get_weights())
    write_info(bundle, config, training={"epochs": 1}, scores={})
    return bundle.root


def test_shards_wait_for_their_own_member_only(archives, model, tmp_path):
    run, prepared = plan_run(archives, model, tmp_path / "run")
    plan = prepared.plan
    gate = Gate(run.root, list(plan.shards))
    assert [(m.path.rpartition("/")[2], m.key) for m in gate.members] == [
        ("a.npz", "X"),
        ("a.npz", "Z"),
        ("b.npz", "X"),
    ]
    hdf5 = [s.shard for s in plan.shards if s.dataset.strip("/") == "images"]
    assert gate.open == hdf5
    assert gate.n_held == len(plan.shards) - len(hdf5)
    second = gate.members[1]
    released = gate.release(second)
    assert [plan.shards[n].dataset for n in released] == ["Z"] * 3
    assert gate.release(second) == []


def test_what_was_passed_over_before_waits_no_more(archives, model, tmp_path):
    run, prepared = plan_run(archives, model, tmp_path / "run")
    shards = list(prepared.plan.shards)
    member = Gate(run.root, shards).members[0]
    pass_member(
        member.path,
        member.key,
        folder=member.folder,
        fingerprint=member.fingerprint,
        n_threads=1,
    )
    assert member.folder == run.index
    assert member not in Gate(run.root, shards).members


def test_whoever_opens_a_source_makes_a_missing_pass(archives, model, images, tmp_path):
    run, prepared = plan_run(archives, model, tmp_path / "run")
    plan = read_plan(run.plan)
    sources = Sources(run, plan, prepared.config, n_threads=1)
    shard = plan.shards[3]
    reader = sources.open(shard)
    np.testing.assert_array_equal(
        reader.read(shard.start, shard.stop), images[shard.start : shard.stop]
    )
    note = read_note(run.index, plan.archives[0].fingerprint, "X")
    assert note is not None
    assert note.has_points
    assert sources.open(plan.shards[4]) is reader
    sources.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_runs_may_share_an_index(archives, model, tmp_path, workers):
    shared = tmp_path / "shared"
    tables, indexes = [], []
    for name in ("one", "two"):
        settings = [f"shards.index={shared}", "inference.device=cpu"]
        config = load_config(overrides=settings)
        prepared = prepare(archives, model, config, folder=tmp_path / name)
        result = count(prepared, tmp_path / name, workers=workers)
        tables.append(result.merged.path.read_bytes())
        assert not CountRun(tmp_path / name).index.exists()
        indexes.append({path: path.stat().st_mtime_ns for path in shared.iterdir()})
    assert tables[0] == tables[1]
    assert indexes[0] == indexes[1]
    assert len(indexes[0]) == 5  # three notes, and the points of two


def test_a_damaged_member_is_failed_rows_and_the_others_are_counted(
    archives, model, tmp_path
):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("Z.npy")
    content = bytearray(path.read_bytes())
    place = member.header_offset + member.compress_size // 2
    content[place : place + 8] = bytes(8)
    path.write_bytes(content)
    run, prepared = plan_run(archives, model, tmp_path / "run")
    result = count(prepared, run.root, workers=1)
    table = pd.read_csv(result.merged.path)
    failed = table[table["status"] == "failed"]
    assert set(failed["dataset"]) == {"Z"}
    assert len(failed) == 10
    assert failed["reason"].nunique() == 1
    assert fingerprint(path) == prepared.plan.archives[0].fingerprint
    note = read_note(run.index, prepared.plan.archives[0].fingerprint, "Z")
    assert note.damage in failed["reason"].iloc[0]
    assert json.loads(run.jobs.progress.read_text())["passes"] is None
    # Perhaps the disk reads it right the next time.
    reset_failures(run, prepared.plan)
    assert read_note(run.index, prepared.plan.archives[0].fingerprint, "Z") is None
    assert read_note(run.index, prepared.plan.archives[0].fingerprint, "X") is not None


def test_passes_are_described_for_people():
    passes = Passes(3)
    assert not passes.is_done
    passes.note("plate.npz:X", 0.25)
    assert str(passes) == "passed over 0 of 3 npz members (plate.npz:X: 25 %)"
    assert Passes(0).is_done


def test_the_size_of_shards_stays_that_of_the_first_plan(archives, model, tmp_path):
    config = load_config(overrides=["inference.device=cpu", "shards.images=null"])
    first = prepare(archives, model, config, folder=tmp_path / "run", workers=1)
    run = CountRun(tmp_path / "run")
    claim(run, first.plan, first.config, first.model)
    again = prepare(archives, model, config, folder=run.root, workers=40)
    assert again.plan.identity == first.plan.identity
    assert again.plan.shard_pixels == first.plan.shard_pixels


def test_a_pass_that_one_worker_cannot_make_is_tried_by_others(tmp_path):
    team = GatheredTeam(
        tmp_path,
        "",
        client=None,
        scheduler=SimpleNamespace(workers={}),
        watch=lambda _: True,
    )
    member = Member("/plate.npz", "X", "f", tmp_path)
    error = IncompleteError("/plate.npz is gone")
    assert team.judge(member, Report("a", error)) is None
    assert team.judge(member, Report("b", error)) is None
    note = MemberNote("X", "f", 10, has_points=True, damage=None)
    assert team.judge(member, Report("c", note)) is note
    # After three of them the shards go out, and say what is wrong.
    assert team.judge(member, Report("d", error)) is error


@pytest.mark.parametrize("is_open", [False, True])
def test_a_file_system_that_fails_for_a_while_fails_no_image(
    archives, model, tmp_path, monkeypatch, is_open
):
    run, prepared = plan_run(archives, model, tmp_path / "run")
    sources = Sources(run, prepared.plan, prepared.config, n_threads=1)
    shard = prepared.plan.shards[0]
    if is_open:
        sources.open(shard)

    def fail(path):
        raise ArchiveError("it cannot be read") from OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("nucleiseg.inference.sources.fingerprint", fail)
        with pytest.raises(IncompleteError, match="cannot be read; then run the same"):
            sources.open(shard)
    assert sources.open(shard).info.n_images == 24
    sources.close()
