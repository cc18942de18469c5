import dataclasses

import numpy as np
import pytest

from nucleiseg.bundle import read_bundle, write_info
from nucleiseg.config import Config, ModelConfig
from nucleiseg.devices import import_tensorflow
from nucleiseg.errors import BundleError
from nucleiseg.model import (
    build_unet,
    describe,
    load_network,
    predict,
    round_kernel,
    save_weights,
)
from nucleiseg.runs import Bundle

SMALL = ModelConfig(head="mask", base_filters=2)


@pytest.fixture(scope="module")
def notebook_network():
    return build_unet(
        ModelConfig(head="mask", base_filters=64, dropout=0.5), image_shape=(128, 128)
    )


def test_notebook_network_has_the_notebook_s_parameters(notebook_network):
    assert notebook_network.count_params() == 34_512_193
    assert notebook_network.input_shape == (None, 128, 128, 1)
    assert notebook_network.output_shape == (None, 128, 128, 1)
    assert "34,512,193" not in describe(notebook_network)
    assert describe(notebook_network).count("Conv2D") == 23


def test_notebook_network_has_the_notebook_s_layers(notebook_network):
    kinds = [type(layer).__name__ for layer in notebook_network.layers]
    down = ["Conv2D", "Conv2D", "MaxPooling2D"] * 4
    up = ["UpSampling2D", "Conv2D", "Concatenate", "Conv2D", "Conv2D"] * 4
    middle = ["Conv2D", "Conv2D"]
    assert kinds == ["InputLayer", *down, *middle, *up, "Dropout", "Conv2D"]
    convolutions = [x for x in notebook_network.layers if type(x).__name__ == "Conv2D"]
    filters = [64, 64, 128, 128, 256, 256, 512, 512, 1024, 1024]
    filters += [512] * 3 + [256] * 3 + [128] * 3 + [64] * 3 + [1]
    assert [x.filters for x in convolutions] == filters
    assert {x.activation.__name__ for x in convolutions[:-1]} == {"relu"}
    assert convolutions[-1].activation.__name__ == "sigmoid"
    assert convolutions[-1].kernel_size == (1, 1)
    dropout = next(x for x in notebook_network.layers if "dropout" in x.name)
    assert dropout.rate == 0.5


def test_concatenation_takes_the_up_sampled_features_first(notebook_network):
    concatenate = next(x for x in notebook_network.layers if "concatenate" in x.name)
    first, second = (tensor._keras_history.operation for tensor in concatenate.input)
    names = [layer.name for layer in notebook_network.layers]
    assert names.index(first.name) > names.index(second.name)


def save_bundle(folder, network, settings=SMALL):
    bundle = Bundle(folder)
    folder.mkdir()
    save_weights(bundle, settings, network.get_weights())
    write_info(bundle, Config(model=settings), training={}, scores={})
    return read_bundle(folder)


def test_a_bundle_predicts_what_the_network_predicted(tmp_path):
    network = build_unet(SMALL)
    info = save_bundle(tmp_path / "model", network)
    images = np.random.default_rng(0).random((3, 32, 48), dtype=np.float32)
    expected = predict(network, images, batch_size=2)
    assert expected.shape == (*images.shape, 1)
    assert expected.min() < expected.max()
    loaded = load_network(info)
    np.testing.assert_array_equal(predict(loaded, images, batch_size=2), expected)


def test_weights_trained_in_bfloat16_run_in_float32_and_back(tmp_path):
    trained = build_unet(SMALL, precision="bfloat16")
    info = save_bundle(tmp_path / "model", trained)
    images = np.random.default_rng(0).random((2, 32, 32), dtype=np.float32)
    full = load_network(info)
    assert {layer.compute_dtype for layer in full.layers} == {"float32"}
    brief = load_network(info, precision="bfloat16")
    assert "bfloat16" in {layer.compute_dtype for layer in brief.layers}
    assert brief.layers[-1].compute_dtype == "float32"
    exact = predict(full, images, batch_size=2)
    rounded = predict(brief, images, batch_size=2)
    assert rounded.dtype == np.float32
    assert 0 < np.abs(exact - rounded).max() < 0.02


def test_weights_of_another_network_are_refused(tmp_path):
    info = save_bundle(tmp_path / "model", build_unet(SMALL))
    wider = dataclasses.replace(info, model=ModelConfig(head="mask", base_filters=4))
    with pytest.raises(BundleError, match="does not hold the network") as caught:
        load_network(wider)
    assert "\n" not in str(caught.value)


class TestRoundKernel:
    @pytest.fixture(params=["bfloat16", "float16"])
    def dtype(self, request):
        return import_tensorflow().as_dtype(request.param).as_numpy_dtype

    @pytest.fixture
    def kernel(self):
        rng = np.random.default_rng(5)
        return rng.normal(scale=0.1, size=(3, 3, 16, 32)).astype(np.float32)

    def test_values_are_of_the_type_and_near(self, kernel, dtype):
        rounded = round_kernel(kernel, dtype)
        assert rounded.shape == kernel.shape
        np.testing.assert_array_equal(rounded.astype(dtype).astype("f"), rounded)
        # Its own rounding, and the error that it takes over from a larger tap.
        step = 2.0**-8 * np.abs(kernel).max()
        assert 0 < np.abs(rounded - kernel).max() < step

    def test_sums_over_the_taps_are_kept(self, kernel, dtype):
        def error(rounded):
            return np.abs((rounded - kernel).sum(axis=(0, 1), dtype=np.float64)).max()

        one_by_one = kernel.astype(dtype).astype(np.float32)
        assert error(round_kernel(kernel, dtype)) < error(one_by_one) / 5

    def test_what_the_type_holds_stays(self, dtype):
        kernel = np.zeros((3, 3, 2, 2), dtype=np.float32)
        kernel[1, 1], kernel[0, 2] = 0.5, -0.375
        np.testing.assert_array_equal(round_kernel(kernel, dtype), kernel)


def test_load_network_rounds_the_kernels_of_16_bit_layers_only(tmp_path):
    network = build_unet(SMALL)
    info = save_bundle(tmp_path / "model", network)
    dtype = import_tensorflow().bfloat16.as_numpy_dtype
    loaded = load_network(info, precision="bfloat16")
    kernels = network.get_weights()[::2]
    found = loaded.get_weights()[::2]
    np.testing.assert_array_equal(found[0], kernels[0])
    np.testing.assert_array_equal(found[-1], kernels[-1])
    for kernel, rounded in zip(kernels[1:-1], found[1:-1], strict=True):
        np.testing.assert_array_equal(rounded, round_kernel(kernel, dtype))
