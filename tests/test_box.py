"""The models in the box: found by name, whole, and said to be what they are."""

import json

import numpy as np
import pytest

from nucleiseg import synthetic
from nucleiseg.box import DEFAULT_MODEL, find_model, list_models, name_model
from nucleiseg.bundle import file_sha256, read_bundle, write_tuned
from nucleiseg.cli import main
from nucleiseg.config import load_config
from nucleiseg.errors import BundleError
from nucleiseg.model import load_network
from nucleiseg.training import resolve_start


@pytest.mark.parametrize("name", list_models())
def test_each_is_whole_and_says_what_it_is(name):
    info = read_bundle(name)
    assert (info.card["name"], info.reference) == (name, name)
    assert file_sha256(info.paths.weights) == info.weights_sha256
    card = info.paths.root / "README.md"
    assert card.read_text().startswith(f"# {name} {info.card['version']}\n")


def test_without_a_name_it_is_the_default_one():
    assert DEFAULT_MODEL in list_models()
    assert find_model(None) == find_model(DEFAULT_MODEL)
    assert read_bundle(None) == read_bundle(DEFAULT_MODEL)


def test_title_is_name_version_and_the_beginning_of_the_hash():
    info = read_bundle(None)
    title = f"{DEFAULT_MODEL} {info.card['version']} (SHA-256 "
    assert info.title == f"{title}{info.weights_sha256[:16]}…)"


def test_only_folders_of_the_box_have_names(tmp_path):
    assert name_model(find_model(DEFAULT_MODEL)) == DEFAULT_MODEL
    assert name_model(tmp_path / DEFAULT_MODEL) is None


def test_folders_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_model("mine/model") == tmp_path / "mine" / "model"


def test_a_name_that_is_unknown_lists_those_that_are_known():
    with pytest.raises(BundleError) as caught:
        read_bundle("nuclei-flou")
    message = str(caught.value)
    assert "nuclei-flou not found" in message
    assert message.endswith(f"a model in the box: {', '.join(list_models())}")


def test_a_folder_that_is_called_so_is_not_guessed_at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / DEFAULT_MODEL).mkdir()
    with pytest.raises(BundleError, match=r"name .* for the folder"):
        find_model(DEFAULT_MODEL)
    assert find_model(tmp_path / DEFAULT_MODEL) == tmp_path / DEFAULT_MODEL
    # Without a name nothing is meant but the box.
    assert name_model(find_model(None)) == DEFAULT_MODEL


def test_it_stays_as_it_is_and_copies_are_others(tmp_path):
    info = read_bundle(None)
    before = info.paths.info.read_bytes()
    with pytest.raises(BundleError, match=r"stays as it is; .*\(--out\)"):
        write_tuned(info, info.instances, {})
    copy = write_tuned(info, info.instances, {"by": "hand"}, out=tmp_path / "copy")
    assert info.paths.info.read_bytes() == before
    assert copy.weights_sha256 == info.weights_sha256
    # It is no longer the one that the card speaks of.
    assert (copy.card, copy.reference) == ({}, str(tmp_path / "copy"))
    assert str(tmp_path / "copy") in copy.title
    assert json.loads(copy.paths.info.read_text())["tuning"] == {"by": "hand"}


def test_count_without_a_model_says_which_it_takes(training_archive, capsys):
    assert main(["count", f"{training_archive}:X", "--dry-run"]) == 0
    out = capsys.readouterr().out
    info = read_bundle(None)
    assert f"model      {info.title}\n" in out
    assert f"weights    SHA-256 {info.weights_sha256}\n" in out


def test_count_with_an_unknown_name_is_one_line(training_archive, capsys):
    words = ["count", f"{training_archive}:X", "--model", "nuclei-flou", "--dry-run"]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"a model in the box: {', '.join(list_models())}")


def test_training_may_start_from_it():
    info = read_bundle(None)
    config = resolve_start(
        load_config(None, [f"training.start_from={DEFAULT_MODEL}", "model.dropout=0.2"])
    )
    assert config.preprocess == info.preprocess
    assert config.instances == info.instances
    assert config.model == info.model.model_copy(update={"dropout": 0.2})
    # By name: a job may run where the package lies elsewhere.
    assert config.training.start_from == DEFAULT_MODEL


def test_training_from_it_has_its_network(tmp_path, capsys):
    images, labels = synthetic.draw_fields(8, (64, 64), seed=5)
    np.savez(tmp_path / "train.npz", X=images, y=labels)
    config = tmp_path / "mine.yaml"
    config.write_text(f"data: {{archive: {tmp_path / 'train.npz'}}}\n")
    words = ["train", str(config), "--from", DEFAULT_MODEL, "--dry-run"]
    assert main(words) == 0, capsys.readouterr().err
    network = load_network(read_bundle(None))
    assert f"{network.count_params():,} parameters\n" in capsys.readouterr().out
