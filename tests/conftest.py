"""Fixtures that several test files share."""

import contextlib
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import hypothesis
import numpy as np
import pytest

# Before TensorFlow, and before any test: it configures logging, which makes absl's
# handler close the stream it was made with, where that is not today's sys.stderr.
import submitit  # noqa: F401

from nucleiseg import synthetic
from nucleiseg.bundle import read_bundle, write_info
from nucleiseg.config import Config
from nucleiseg.runs import Bundle
from tests.slurm import Options, PrivateSlurm, availability, best_proctrack

REPOSITORY = Path(__file__).parents[1]

# No timed tests: machines are noisy.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def run_nucleiseg(*arguments, cwd=None, timeout_s=300):
    """Run the command line in a process of its own, as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "nucleiseg", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@pytest.fixture(scope="session")
def data_folder():
    """Folder of the real images; tests that need it skip where it is missing."""
    folder = Path(os.environ.get("NUCLEISEG_DATA", REPOSITORY.parent / "shared/data"))
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}; set NUCLEISEG_DATA")
    return folder


@pytest.fixture(scope="session")
def training_archive(tmp_path_factory):
    """64 labelled synthetic images of 64x64."""
    path = tmp_path_factory.mktemp("training") / "train.npz"
    images, labels = synthetic.draw_fields(64, (64, 64), seed=5)
    np.savez_compressed(path, X=images, y=(labels > 0).astype("uint8"))
    return path


@pytest.fixture(scope="session")
def model(training_archive, tmp_path_factory):
    """Bundle of a small network that has learnt a little."""
    folder = tmp_path_factory.mktemp("model") / "run"
    config = folder.parent / "small.yaml"
    config.write_text(
        f"data: {{archive: {training_archive}}}\n"
        "model: {head: mask, base_filters: 4, dropout: 0.1}\n"
        "training: {epochs: 6, batch_size: 8, learning_rate: 5e-3}\n"
    )
    answer = run_nucleiseg("train", config, "--run", folder)
    assert answer.returncode == 0, answer.stderr
    return folder / "model"


@pytest.fixture
def make_bundle(tmp_path):
    """Make a model bundle whose weights are any bytes, without a network in it."""

    def make(config=None, *, name="bundle", weights=b"weights"):
        bundle = Bundle(tmp_path / name)
        bundle.root.mkdir(parents=True, exist_ok=True)
        bundle.weights.write_bytes(weights)
        write_info(
            bundle, config or Config(), training={"epochs": 3}, scores={"MAE": 1.5}
        )
        return read_bundle(bundle.root)

    return make


@pytest.fixture(autouse=True)
def _log_is_heard():
    """The command line keeps the log to itself; pytest's caplog needs to hear it."""
    logging.getLogger("nucleiseg").propagate = True


@pytest.fixture(scope="session")
def private_slurm():
    """Bring up real SLURMs, one for each set of options; skip where there can be none.

    Unless told otherwise, preempted jobs get the signal they asked for.
    """
    running = {}
    with contextlib.ExitStack() as stack:

        def bring_up(**options):
            options = {
                "proctrack": best_proctrack(),
                "preempt_send_user_signal": True,
                **options,
            }
            if reason := availability(options["proctrack"]):
                pytest.skip(reason)
            key = Options(**options)
            if key not in running:
                running[key] = stack.enter_context(PrivateSlurm(**options))
                if best_proctrack() != "cgroup":
                    warnings.warn("no SLURM with cgroups can run here", stacklevel=1)
            return running[key]

        yield bring_up


@pytest.fixture
def slurm(private_slurm, request, monkeypatch):
    """Real SLURM that this process and its children talk to, without jobs at the end.

    Options: ``@pytest.mark.parametrize("slurm", [{"grace_s": 0}], indirect=True)``.
    """
    slurm = private_slurm(**getattr(request, "param", {}))
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    yield slurm
    slurm.reset()
