"""The mean of a model and of what fine-tuning made of it."""

import shutil

import numpy as np
import pytest

from nucleiseg.atomic import read_json, write_json
from nucleiseg.bundle import file_sha256, read_bundle
from nucleiseg.errors import BundleError
from nucleiseg.model import average_models, load_network, save_weights
from nucleiseg.runs import Bundle
from tests.test_jobs import run_job, start_job


@pytest.fixture(scope="module")
def pair(model, tmp_path_factory):
    """A model, and one of the same network with other weights."""
    start = read_bundle(model)
    other = Bundle(tmp_path_factory.mktemp("tuned") / "model")
    shutil.copytree(start.paths.root, other.root)
    weights = [3 * values + 1 for values in load_network(start).get_weights()]
    save_weights(other, start.model, weights)
    info = {**read_json(other.info), "weights_sha256": file_sha256(other.weights)}
    write_json(other.info, info)
    return start, read_bundle(other.root)


@pytest.mark.parametrize("share", [0, 0.25, 1])
def test_weights_lie_in_between(pair, tmp_path, share):
    found = average_models(*pair, tmp_path / "mean", share=share)
    sets = [load_network(info).get_weights() for info in (*pair, found)]
    for start, tuned, mean in zip(*sets, strict=True):
        np.testing.assert_allclose(
            mean, (1 - share) * start + share * tuned, rtol=1e-6, atol=1e-6
        )
    assert found.preprocess == pair[0].preprocess
    assert found.calibration is None


def test_it_is_told_whose_mean_it_is(pair, tmp_path):
    found = average_models(*pair, tmp_path / "mean", share=0.25)
    parents = found.training["mean_of"]
    assert [one["share"] for one in parents] == [0.75, 0.25]
    assert parents[1]["training"] == pair[1].training


def test_another_network_is_refused(pair, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(pair[0].paths.root, other)
    info = read_json(other / "bundle.json")
    info["model"]["base_filters"] *= 2
    write_json(other / "bundle.json", info)
    with pytest.raises(BundleError, match="differ in model"):
        average_models(pair[0], read_bundle(other), tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_program(pair, tmp_path):
    roots = [info.paths.root for info in pair]
    assert "SHA-256" in run_job("average", *roots, tmp_path / "mean", 0.25)
    read_bundle(tmp_path / "mean")
    for arguments, words in (
        ((*roots, tmp_path / "mean"), "holds something already"),
        ((*roots, tmp_path / "new", 2), "the share is 2.0, expected 0 to 1"),
    ):
        answer = start_job("average", *arguments)
        assert answer.returncode == 2
        assert words in answer.stderr
        assert len(answer.stderr.splitlines()) == 1
