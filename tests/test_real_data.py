"""The whole path on the real images; skipped where they are missing."""

import pandas as pd
import pytest

from tests.conftest import REPOSITORY, run_nucleiseg

pytestmark = pytest.mark.data

PRESET = REPOSITORY / "configs" / "notebook.yaml"


def test_notebook_dry_run_tells_network_and_split(data_folder, tmp_path):
    answer = run_nucleiseg(
        *("train", PRESET, "--dry-run"),
        *("--set", f"data.archive={data_folder / 'X_and_y.npz'}"),
        cwd=tmp_path,
    )
    assert answer.returncode == 0, answer.stderr
    assert "34,512,193 parameters" in answer.stdout
    assert "1500/500 images" in answer.stdout
    assert list(tmp_path.iterdir()) == []


def test_whole_images_of_five_sizes_are_counted(data_folder, model, tmp_path):
    archive = data_folder / "dsb2018_fluo.h5"
    answer = run_nucleiseg(
        *("count", f"{archive}:/val/*/images", "--model", model),
        *("--run", tmp_path / "run", "--workers", "2", "--pictures", "1"),
    )
    assert answer.returncode == 0, answer.stderr
    table = pd.read_csv(tmp_path / "run" / "counts.csv")
    assert len(table) == 93
    assert table["dataset"].nunique() == 5
    assert set(table["status"]) == {"ok"}
    answer = run_nucleiseg(
        "evaluate", tmp_path / "run" / "counts.csv", f"{archive}:/val/*/labels"
    )
    assert answer.returncode == 0, answer.stderr
    assert "93 of 93 images: 4441 true" in answer.stdout


def test_masks_lose_the_nuclei_that_touch(data_folder):
    """The figure that the README gives for perfect masks."""
    answer = run_nucleiseg(
        *("evaluate", f"{data_folder / 'X_and_y.npz'}:y"),
        f"{data_folder / 'X_and_labels.npz'}:y",
    )
    assert answer.returncode == 0, answer.stderr
    (line,) = (x for x in answer.stdout.splitlines() if x.startswith("bias"))
    assert "-13." in line
