"""The compute setting: chosen once, and refused where it cannot be met."""

import errno
import hashlib
import json
import platform
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from nucleiseg import devices
from nucleiseg.config import InferenceConfig
from nucleiseg.errors import RunError
from nucleiseg.inference import choose_compute
from nucleiseg.inference.compute import Compute
from nucleiseg.runs import CountRun

CPU = Compute("cpu", "float32", batch_size=None, tile_px=512, context_px=64)


def pretend(monkeypatch, *flags):
    monkeypatch.setattr(devices, "_cpu_flags", lambda: {"fpu", "avx2", *flags})


def choose(folder, precision="auto", **options):
    settings = InferenceConfig(device="cpu", precision=precision)
    return choose_compute(CountRun(folder), settings, **options)


@pytest.mark.parametrize(
    ("flags", "precision", "requires"),
    [
        ([], "float32", None),
        (["avx512_bf16"], "float32", None),
        (["avx512_bf16", "amx_bf16"], "bfloat16", "amx_bf16"),
    ],
)
def test_the_precision_follows_the_cpu(
    tmp_path, monkeypatch, flags, precision, requires
):
    pretend(monkeypatch, *flags)
    compute = choose(tmp_path)
    assert (compute.precision, compute.requires) == (precision, requires)


@pytest.mark.parametrize(
    ("first", "later"),
    [
        (["amx_bf16", "avx512_bf16"], ["avx512_bf16"]),
        (["amx_bf16"], []),
        (["avx512_bf16"], ["amx_bf16", "avx512_bf16"]),
        ([], ["amx_bf16"]),
    ],
)
def test_bfloat16_binds_to_what_computes_it(tmp_path, monkeypatch, first, later):
    pretend(monkeypatch, *first)
    chosen = choose(tmp_path, "bfloat16")
    assert choose(tmp_path, "bfloat16") == chosen
    pretend(monkeypatch, *later)
    with pytest.raises(RunError, match="computes in bfloat16 on a CPU with") as caught:
        choose(tmp_path, "bfloat16")
    assert (first[0] if first else "nothing made for it") in str(caught.value)
    assert "inference.precision=float32" in str(caught.value)


def test_float32_goes_on_anywhere(tmp_path, monkeypatch):
    pretend(monkeypatch, "amx_bf16")
    chosen = choose(tmp_path, "float32")
    pretend(monkeypatch)
    assert choose(tmp_path, "float32") == chosen


@pytest.mark.skipif(platform.machine() != "x86_64", reason="oneDNN is chosen on x86")
@pytest.mark.parametrize(("first", "later"), [("1", "0"), ("0", "1")])
def test_kernels_bind_all_workers(tmp_path, monkeypatch, first, later):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", first)
    chosen = choose(tmp_path)
    assert choose(tmp_path) == chosen
    assert chosen.onednn == (first == "1")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", later)
    with pytest.raises(RunError, match=f"set TF_ENABLE_ONEDNN_OPTS={first}"):
        choose(tmp_path)


def test_a_run_of_an_earlier_version_goes_on(tmp_path):
    chosen = choose(tmp_path)
    path = CountRun(tmp_path).compute
    values = json.loads(path.read_text())
    del values["onednn"]
    path.write_text(json.dumps(values))
    before = choose(tmp_path)
    assert before == replace(chosen, onednn=None)
    text = json.dumps(values, sort_keys=True)
    assert before.identity == hashlib.sha256(text.encode()).hexdigest()[:16]
    # Where it is noted, tables made with and without it are told apart.
    noted = [replace(chosen, onednn=with_it).identity for with_it in (True, False)]
    assert len({before.identity, *noted}) == 3


def test_who_comes_first_measures_for_all(tmp_path, monkeypatch):
    pretend(monkeypatch)
    measured = []

    def measure(compute):
        measured.append(compute)
        return replace(compute, batch_pixels=8 * 128 * 128, xla=True)

    chosen = choose(tmp_path, measure=measure)
    assert chosen.batch_shape((128, 128)) == (8, 128, 128)
    assert choose(tmp_path, measure=measure) == choose(tmp_path) == chosen
    assert len(measured) == 1
    assert chosen.xla
    assert json.loads((tmp_path / "compute.json").read_text())["batch_pixels"] == 2**17


def test_two_that_come_together_measure_once(tmp_path):
    """Workers that share a GPU would time each other."""
    has_begun, n_measured = threading.Event(), []

    def measure(compute):
        n_measured.append(1)
        has_begun.set()
        time.sleep(0.3)
        return replace(compute, batch_pixels=len(n_measured) * 2**20)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(choose, tmp_path, measure=measure)
        assert has_begun.wait(60)
        second = pool.submit(choose, tmp_path, measure=measure)
        assert first.result() == second.result()
    assert first.result().batch_pixels == 2**20
    assert len(n_measured) == 1


def test_who_cannot_lock_measures_all_the_same(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("nucleiseg.inference.compute.fcntl.flock", refuse)
    found = choose(tmp_path, measure=lambda one: replace(one, batch_pixels=2**19))
    assert found.batch_pixels == 2**19


def test_what_was_set_binds_without_measuring(tmp_path, monkeypatch):
    pretend(monkeypatch)
    settings = InferenceConfig(device="cpu", batch_size=6, xla=True)
    compute = choose_compute(CountRun(tmp_path), settings)
    assert compute.batch_shape((64, 64)) == (6, 64, 64)
    assert compute.xla


@pytest.mark.parametrize("batch_pixels", [None, 2**14, 2**18, 2**20])
@pytest.mark.parametrize("side", [16, 48, 128, 512, 2048])
def test_batches_are_even_and_bounded(batch_pixels, side):
    compute = Compute("cpu", "float32", None, 512, 64, batch_pixels)
    n_tiles, *shape = compute.batch_shape((side, side))
    assert shape == [side, side]
    assert 2 <= n_tiles <= 256
    assert n_tiles % 2 == 0
    assert n_tiles == 2 or n_tiles * side**2 <= (batch_pixels or 2**18)


def test_everything_that_makes_the_bits_is_in_the_identity():
    others = [
        replace(CPU, precision="bfloat16"),
        replace(CPU, batch_size=4),
        replace(CPU, batch_pixels=2**18),
        replace(CPU, tile_px=256),
        replace(CPU, requires="amx_bf16"),
        replace(CPU, xla=True),
    ]
    assert len({compute.identity for compute in [CPU, *others]}) == 7
