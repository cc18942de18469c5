"""Where a result comes from: said where it is known, and not guessed where not."""

import datetime
import json
import os
import platform
import re
import socket
import subprocess

import numpy as np
import pytest

import nucleiseg
from nucleiseg.provenance import describe_environment, timestamp


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Empty checkout that the package seems to lie in."""
    monkeypatch.setattr(nucleiseg, "__file__", str(tmp_path / "nucleiseg/__init__.py"))
    # Nothing of this machine's settings, nor of a hook that runs these tests.
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    return tmp_path


def git(folder, *arguments):
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    answer = subprocess.run(
        ["git", *identity, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return answer.stdout.strip()


@pytest.fixture
def committed(checkout):
    git(checkout, "init", "--quiet")
    (checkout / "a.txt").write_text("1")
    git(checkout, "add", "a.txt")
    git(checkout, "commit", "--quiet", "--message", "Begin")
    return checkout


def test_versions_and_host():
    found = describe_environment()
    assert found["nucleiseg"] == nucleiseg.__version__
    assert found["python"] == platform.python_version()
    assert found["packages"]["numpy"] == np.__version__
    assert found["packages"].keys() >= {"h5py", "pandas", "pyarrow"}
    assert found["host"] == socket.gethostname()
    assert found["cores"] == len(os.sched_getaffinity(0))


def test_goes_into_json():
    found = describe_environment()
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("job", ["4711", None])
def test_slurm_job(monkeypatch, job):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    if job:
        monkeypatch.setenv("SLURM_JOB_ID", job)
    assert describe_environment()["slurm_job"] == job


def test_package_that_is_not_installed_is_left_out(monkeypatch):
    monkeypatch.setattr("nucleiseg.provenance._PACKAGES", ("numpy", "no-such-package"))
    assert list(describe_environment()["packages"]) == ["numpy"]


def test_commit(committed):
    commit = git(committed, "rev-parse", "HEAD")
    assert describe_environment()["commit"] == commit[:12]


def test_commit_of_a_changed_checkout(committed):
    (committed / "a.txt").write_text("2")
    assert describe_environment()["commit"].endswith("-dirty")


def test_no_commit_where_it_is_installed(checkout):
    assert describe_environment()["commit"] is None


def test_checkout_without_a_commit_is_not_guessed(checkout):
    git(checkout, "init", "--quiet")
    assert describe_environment()["commit"] == "unknown: git could not be asked"


def test_machine_without_git(committed, monkeypatch):
    monkeypatch.setenv("PATH", str(committed))
    assert describe_environment()["commit"] == "unknown: git could not be asked"


def test_timestamp_is_utc_to_the_second():
    before = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    text = timestamp()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", text)
    found = datetime.datetime.fromisoformat(text)
    assert before <= found <= datetime.datetime.now(datetime.UTC)
