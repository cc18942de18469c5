"""What a worker finds out about its network by trying, and how it says what failed."""

import platform
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from nucleiseg.bundle import read_bundle, write_info
from nucleiseg.config import Config, ModelConfig
from nucleiseg.devices import import_tensorflow
from nucleiseg.errors import NucleisegError
from nucleiseg.inference.compute import Compute
from nucleiseg.inference.network import TiledNetwork
from nucleiseg.model import build_unet, save_weights
from nucleiseg.runs import Bundle

SHAPE = (32, 32)
COMPUTE = Compute("cpu", "float32", batch_size=2, tile_px=64, context_px=16)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    config = Config(model=ModelConfig(base_filters=1))
    bundle = Bundle(tmp_path_factory.mktemp("model") / "model")
    bundle.root.mkdir()
    save_weights(bundle, config.model, build_unet(config.model).get_weights())
    write_info(bundle, config, training={"epochs": 1}, scores={})
    return read_bundle(bundle.root)


@pytest.fixture
def network(model):
    return TiledNetwork(model, COMPUTE, n_threads=1)


@pytest.mark.parametrize(("with_xla", "is_taken"), [(104, True), (102, False)])
def test_xla_is_taken_where_it_is_clearly_faster(
    network, monkeypatch, with_xla, is_taken
):
    rates = [100.0, float(with_xla)]
    monkeypatch.setattr(network, "_measure", lambda shape: rates.pop(0))
    assert network.try_xla(SHAPE) == replace(COMPUTE, xla=is_taken)


def test_xla_that_cannot_compile_is_not_taken_and_said(network, monkeypatch, caplog):
    def measure(shape):
        if network._compute.xla:
            raise RuntimeError("PTX 8.5 does not support sm_120")
        return 100.0

    monkeypatch.setattr(network, "_measure", measure)
    assert network.try_xla(SHAPE) == COMPUTE
    assert "sm_120" in caplog.text


def test_xla_computes_the_same_network(model, network):
    tiles = np.random.default_rng(0).random((2, *SHAPE), dtype=np.float32)
    compiled = TiledNetwork(model, replace(COMPUTE, xla=True), n_threads=1)
    compiled.warm_up(SHAPE)
    np.testing.assert_allclose(compiled.run(tiles), network.run(tiles), atol=1e-6)
    (function,) = compiled._functions.values()
    assert function.function_def.attr["_XlaMustCompile"].b


def test_xla_that_was_set_and_cannot_compile_is_one_line(model, monkeypatch):
    network = TiledNetwork(model, replace(COMPUTE, xla=True), n_threads=1)
    errors = import_tensorflow().errors

    def fail(tiles):
        raise errors.InvalidArgumentError(None, None, "no PTX\nfor this card")

    monkeypatch.setattr(network, "run", fail)
    with pytest.raises(NucleisegError, match=r"no PTX for this card.*xla=false"):
        network.warm_up(SHAPE)


def test_a_batch_size_that_was_set_is_not_measured(network, monkeypatch):
    monkeypatch.setattr(network, "_measure", pytest.fail)
    assert network.measure(SHAPE) == COMPUTE


@pytest.fixture
def untried(model):
    return TiledNetwork(model, replace(COMPUTE, batch_size=None), n_threads=1)


def test_the_smallest_of_equally_fast_batches_is_taken(untried, monkeypatch):
    rates = {64: 800.0, 128: 990.0, 256: 1000.0}
    monkeypatch.setattr(untried, "_measure", lambda shape: rates[shape[0]])
    assert untried.measure(SHAPE).batch_shape(SHAPE) == (128, *SHAPE)


@pytest.mark.parametrize(
    ("shape", "tried"),
    [((128, 128), [4, 8, 16, 32]), ((512, 512), [2]), ((1024, 1024), [2])],
)
def test_on_a_cpu_no_batch_is_tried_that_takes_much_more_memory(
    untried, monkeypatch, shape, tried
):
    shapes = []

    def measure(batch_shape):
        shapes.append(batch_shape)
        return float(len(shapes))

    monkeypatch.setattr(untried, "_measure", measure)
    monkeypatch.setattr("nucleiseg.inference.trying._LONGEST_CALL_S", 1e9)
    assert untried.measure(shape).batch_shape(shape) == (tried[-1], *shape)
    assert [number for number, *_ in shapes] == tried


def test_what_another_worker_measured_is_taken_over(network):
    found = replace(COMPUTE, batch_pixels=2**14, xla=True)
    assert network.bind(found)
    assert network.batch_shape(SHAPE) == found.batch_shape(SHAPE)
    assert not network.bind(replace(found, tile_px=128))


class TestOneDnn:
    """TensorFlow by itself leaves it out on CPUs without AVX-512 VNNI."""

    SCRIPT = """\
import os
from nucleiseg.devices import import_tensorflow
import_tensorflow()
from tensorflow.python.util._pywrap_util_port import IsMklEnabled
print(os.environ["TF_ENABLE_ONEDNN_OPTS"], IsMklEnabled())
"""

    def run(self, monkeypatch, wanted):
        monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
        if wanted is not None:
            monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", wanted)
        command = [sys.executable, "-c", self.SCRIPT]
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
        return answer.stdout.split()

    @pytest.mark.skipif(
        platform.machine() != "x86_64", reason="TensorFlow for x86 has oneDNN"
    )
    def test_is_used(self, monkeypatch):
        assert self.run(monkeypatch, None) == ["1", "True"]

    def test_a_user_may_do_without(self, monkeypatch):
        assert self.run(monkeypatch, "0")[0] == "0"
