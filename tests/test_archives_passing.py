"""Passes over npz members in a process of their own: what comes of them, and when."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from nucleiseg.archives import Member, fingerprint, pass_members, passing, read_note
from nucleiseg.errors import ArchiveError, StoppedError


@pytest.fixture
def member(tmp_path):
    """A deflated member whose pass takes a few progress reports."""
    rng = np.random.default_rng(0)
    path = tmp_path / "a.npz"
    np.savez_compressed(path, X=rng.integers(0, 40, (600, 64, 64)).astype("uint16"))
    return Member(str(path), "X", fingerprint(path), tmp_path / "index")


@pytest.fixture
def apart(monkeypatch):
    """Whatever its size, and nothing of it in this process."""
    monkeypatch.setattr(passing, "_APART_BYTES", 0)
    monkeypatch.setattr(passing, "pass_member", None)


def list_children():
    """Numbers of the processes that this one has started, whichever thread did."""
    paths = Path("/proc/self/task").glob("*/children")
    return {pid for path in paths for pid in path.read_text().split()}


def test_a_small_member_is_passed_over_here(member, monkeypatch):
    monkeypatch.setattr(passing.sys, "executable", "/bin/false")
    shares = []
    pass_members(
        [member], n_threads=1, on_progress=lambda which, share: shares.append(share)
    )
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert read_note(member.folder, member.fingerprint, member.key).has_points


def test_a_process_apart_finds_the_same(member, apart, tmp_path, monkeypatch):
    pass_members([member], n_threads=2)
    found = read_note(member.folder, member.fingerprint, member.key)
    monkeypatch.undo()
    here = Member(member.path, member.key, member.fingerprint, tmp_path / "here")
    pass_members([here], n_threads=1)
    assert found == read_note(here.folder, here.fingerprint, here.key)


def test_it_tells_how_far_it_is(member, apart, tmp_path, monkeypatch):
    # A process that says what one says, at once: the real one says it seldom.
    script = tmp_path / "say"
    script.write_text(f"#!{sys.executable}\nprint('0 0.25\\n1 0.5\\n1 0.75')\n")
    script.chmod(0o700)
    monkeypatch.setattr(passing.sys, "executable", str(script))
    other = Member(member.path, "Y", member.fingerprint, member.folder)
    heard = []
    pass_members(
        [member, other], n_threads=1, on_progress=lambda *say: heard.append(say)
    )
    assert heard == [(member, 0.25), (other, 0.5), (other, 0.75)]


def test_what_it_refuses_is_raised_here(member, apart):
    other = Member(member.path, "X", "0" * 32, member.folder)
    with pytest.raises(ArchiveError, match="is not the archive that was planned"):
        pass_members([other], n_threads=1)


def test_an_archive_that_is_gone_is_named(member):
    Path(member.path).unlink()
    with pytest.raises(ArchiveError, match=r"a\.npz"):
        pass_members([member], n_threads=1)


def test_its_death_is_named(member, apart, monkeypatch):
    monkeypatch.setattr(passing.sys, "executable", "/bin/false")
    with pytest.raises(ArchiveError, match=r":X: .* ended with 1 .* ask for more"):
        pass_members([member], n_threads=1)


def test_it_ends_when_asked(member, apart):
    def check():
        raise StoppedError("enough")

    # Others' helpers, such as the resource tracker of multiprocessing, stay.
    before = list_children()
    with pytest.raises(StoppedError):
        pass_members([member], n_threads=1, check=check)
    assert list_children() <= before
    assert read_note(member.folder, member.fingerprint, member.key) is None


def test_one_that_is_killed_has_no_words_of_others(member, apart):
    def check():
        for pid in list_children() - before:
            os.kill(int(pid), signal.SIGKILL)

    before = list_children()
    with pytest.raises(ArchiveError, match=r"ended with -9 \(it said nothing\)"):
        pass_members([member], n_threads=1, check=check)
