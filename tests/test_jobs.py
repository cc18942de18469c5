"""The programs that a site copies run as they stand."""

import subprocess
import sys

import numpy as np
import pandas as pd

from nucleiseg import synthetic
from tests.conftest import REPOSITORY


def start_job(name, *arguments):
    return subprocess.run(
        [sys.executable, "-m", f"jobs.{name}", *map(str, arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def run_job(name, *arguments):
    answer = start_job(name, *arguments)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_train_count_evaluate(training_archive, tmp_path):
    (tmp_path / "small.yaml").write_text("model: {base_filters: 2}")
    run_job(
        *("train", tmp_path / "small.yaml", tmp_path / "train"),
        *(f"data.archive={training_archive}", "training.epochs=1"),
    )
    images, labels = synthetic.draw_fields(5, (32, 32), seed=6)
    np.savez(tmp_path / "a.npz", X=images)
    np.savez(tmp_path / "truth.npz", y=labels)
    run_job("count", tmp_path / "train/model", tmp_path / "count", tmp_path / "a.npz")
    table = tmp_path / "count" / "counts.csv"
    assert len(pd.read_csv(table)) == 5
    assert '"n_images": 5' in run_job("evaluate", table, tmp_path / "truth.npz:y")


def test_what_cannot_start_is_one_line_and_2(tmp_path):
    for arguments in (
        ("train", tmp_path / "missing.yaml", tmp_path / "run"),
        ("count", tmp_path / "no_model", tmp_path / "run", tmp_path / "a.npz"),
        ("segment", tmp_path / "no_model", tmp_path / "run", tmp_path / "a.npz"),
    ):
        answer = start_job(*arguments)
        assert answer.returncode == 2
        assert answer.stderr.startswith(f"jobs.{arguments[0]}: ")
        assert len(answer.stderr.splitlines()) == 1
