"""Attempts on disk: who is blamed for the death of a worker, and who never is."""

import dataclasses
import itertools
import json
import os
import signal
import socket
import stat
import subprocess
import sys

import pytest

from nucleiseg.atomic import read_json, write_json
from nucleiseg.attempts import Attempts, History, halve
from nucleiseg.errors import RunError
from nucleiseg.runs import CountRun

KILLED = "killed (SIGKILL)"
CRASHED = "segmentation fault (SIGSEGV)"
ABORTED = "aborted (SIGABRT)"


@pytest.fixture(autouse=True)
def _no_power_cuts(monkeypatch):
    # Many small files: waiting for the disk is most of the time.
    monkeypatch.setattr("nucleiseg.atomic._sync", lambda path: None)


@pytest.fixture
def run(tmp_path):
    return CountRun(tmp_path / "run")


@pytest.fixture
def attempts(run):
    return Attempts(run)


@pytest.fixture
def begin(run, attempts):
    """Leave the file of an attempt that never ended, as a killed process does."""
    pids = itertools.count(2**22 + 1)

    def begin(shard, part, *, pid=None, host=None):
        pid = next(pids) if pid is None else pid
        host = socket.gethostname() if host is None else host
        with attempts.attempt(shard, part, worker="w-0"):
            (found,) = [a for a in attempts.running() if a.pid == os.getpid()]
        values = {**dataclasses.asdict(found), "pid": pid, "host": host}
        folder = run.attempts / "running"
        write_json(folder / f"{shard:06d}-{host}-{pid}.json", values)
        return pid

    return begin


@pytest.fixture
def die(attempts, begin):
    """Have a worker die while it computes a range."""

    def die(shard, part, cause=KILLED, *, times=1):
        for _ in range(times):
            assert attempts.record_death(begin(shard, part), cause) == [shard]

    return die


def list_files(run):
    return sorted(
        str(path.relative_to(run.attempts))
        for path in run.attempts.rglob("*")
        if path.is_file()
    )


class TestAttempt:
    def test_is_there_as_long_as_it_computes(self, run, attempts):
        with attempts.attempt(12, (3, 7), worker="node7-0"):
            (found,) = attempts.running()
            assert (found.shard, found.start, found.stop) == (12, 3, 7)
            assert (found.worker, found.pid) == ("node7-0", os.getpid())
            assert found.host == socket.gethostname()
            assert attempts.history(12).vanished == {(3, 7): 1}
        assert list_files(run) == []
        assert attempts.running() == []
        assert attempts.history(12) == History({}, {})

    def test_leaves_nothing_behind_an_exception(self, run, attempts):
        def fail():
            with attempts.attempt(1, (0, 4), worker="w"):
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert list_files(run) == []

    def test_is_nobody_elses_business(self, run, attempts):
        with attempts.attempt(1, (0, 4), worker="w"):
            for folder in (run.attempts, run.attempts / "running"):
                assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    def test_are_listed_by_shard(self, attempts, begin):
        for shard in (10, 2, 7):
            begin(shard, (0, 1))
        assert [found.shard for found in attempts.running()] == [2, 7, 10]

    def test_without_any_there_is_nothing(self, attempts):
        assert attempts.running() == []
        assert attempts.history(0).is_clean()
        assert attempts.n_deaths(0) == 0
        assert attempts.rows_files(0) == []

    def test_of_a_killed_process_stays(self, run, attempts):
        program = (
            "import os, sys\n"
            "from pathlib import Path\n"
            "from nucleiseg.attempts import Attempts\n"
            "from nucleiseg.runs import CountRun\n"
            "with Attempts(CountRun(Path(sys.argv[1]))).attempt("
            "5, (0, 8), worker='w'):\n"
            f"    os.kill(os.getpid(), {int(signal.SIGKILL)})\n"
        )
        process = subprocess.Popen([sys.executable, "-c", program, run.root])
        assert process.wait(timeout=60) == -signal.SIGKILL
        (found,) = attempts.running()
        assert (found.shard, found.pid) == (5, process.pid)
        # And its death is recorded by who watched it.
        assert attempts.record_death(process.pid, KILLED) == [5]
        assert attempts.running() == []
        assert attempts.history(5).deaths == {(0, 8): (KILLED,)}


class TestDeath:
    def test_moves_the_attempt_and_says_why(self, run, attempts, begin):
        pid = begin(3, (4, 8))
        assert attempts.record_death(pid, KILLED) == [3]
        assert attempts.running() == []
        (name,) = list_files(run)
        assert name.startswith("000003/death-")
        death = read_json(run.attempts / name)
        assert (death["cause"], death["pid"]) == (KILLED, pid)
        assert (death["start"], death["stop"]) == (4, 8)
        assert attempts.n_deaths(3) == 1
        assert attempts.n_deaths(4) == 0

    def test_of_an_idle_worker_blames_nothing(self, run, attempts, begin):
        begin(3, (4, 8))
        assert attempts.record_death(2**22 + 999, KILLED) == []
        assert attempts.history(3).deaths == {}
        assert len(attempts.running()) == 1

    @pytest.mark.parametrize("prefix", ["gpu-", "0-", "x"])
    @pytest.mark.parametrize("end", ["record_death", "forget"])
    def test_does_not_touch_a_host_of_a_longer_name(self, attempts, begin, prefix, end):
        host = prefix + socket.gethostname()
        begin(3, (4, 8), pid=77, host=host)
        arguments = (77, KILLED) if end == "record_death" else (77,)
        assert not getattr(attempts, end)(*arguments)
        (found,) = attempts.running()
        assert found.host == host
        assert attempts.history(3).deaths == {}

    def test_does_not_touch_a_longer_number(self, attempts, begin):
        begin(3, (4, 8), pid=177)
        assert attempts.record_death(77, KILLED) == []
        assert len(attempts.running()) == 1

    def test_on_purpose_is_forgotten(self, run, attempts, begin):
        pid, other = begin(3, (4, 8)), begin(4, (0, 8))
        attempts.forget(pid)
        assert [found.pid for found in attempts.running()] == [other]
        assert attempts.history(3) == History({}, {})
        attempts.forget(pid)


class TestHistory:
    def test_deaths_and_vanished_by_range(self, attempts, begin, die):
        die(6, (0, 8), KILLED)
        die(6, (0, 8), CRASHED)
        die(6, (4, 8), KILLED)
        die(7, (0, 8), KILLED)
        begin(6, (0, 4))
        begin(6, (0, 4))
        begin(8, (0, 4))
        history = attempts.history(6)
        assert {part: sorted(causes) for part, causes in history.deaths.items()} == {
            (0, 8): sorted([KILLED, CRASHED]),
            (4, 8): [KILLED],
        }
        assert history.vanished == {(0, 4): 2}
        assert attempts.n_deaths(6) == 3

    def test_is_not_mixed_up_with_that_of_a_longer_number(self, attempts, die, begin):
        die(1_000_006, (0, 8))
        begin(1_000_006, (0, 8))
        assert attempts.history(6) == History({}, {})
        assert attempts.history(100_000) == History({}, {})
        assert attempts.history(1_000_006).deaths == {(0, 8): (KILLED,)}

    def test_damaged_attempt_is_named(self, run, attempts, begin):
        begin(6, (0, 8))
        (path,) = (run.attempts / "running").iterdir()
        path.write_text("{")
        for look in (attempts.running, lambda: attempts.history(6)):
            with pytest.raises(RunError) as caught:
                look()
            assert str(path) in str(caught.value)

    def test_what_is_taken_away_in_this_moment_is_none(
        self, run, attempts, begin, die, monkeypatch
    ):
        """Another worker finishes the shard, and clears up behind it."""
        die(6, (0, 8))
        begin(6, (0, 8))

        def read_too_late(path):
            path.unlink()
            return read_json(path)

        monkeypatch.setattr("nucleiseg.attempts.read_json", read_too_late)
        assert attempts.history(6) == History({}, {})
        assert list_files(run) == []

    def test_damaged_death_is_named(self, run, attempts, die):
        die(6, (0, 8))
        (path,) = run.attempts.glob("000006/death-*")
        path.write_text("{")
        with pytest.raises(RunError, match=path.name):
            attempts.history(6)


class TestDecisions:
    @pytest.mark.parametrize(
        ("n_deaths", "n_vanished", "is_whole", "expected"),
        [
            (0, 0, True, False),
            # Once may be by accident; a half of what killed twice needs no other proof.
            (1, 0, True, False),
            (2, 0, True, True),
            (0, 0, False, False),
            (1, 0, False, True),
            # Preempted is not guilty; four times may be more than that.
            (0, 3, True, False),
            (0, 4, True, True),
            (0, 3, False, False),
            (0, 4, False, True),
            (1, 3, True, False),
        ],
    )
    def test_halving(self, n_deaths, n_vanished, is_whole, expected):
        part = (0, 8)
        history = History({part: (KILLED,) * n_deaths}, {part: n_vanished})
        assert history.must_halve(part, is_whole=is_whole) is expected
        assert not history.must_halve((0, 4), is_whole=is_whole)

    @pytest.mark.parametrize(
        ("deaths", "vanished", "expected"),
        [
            ({}, {}, True),
            ({}, {(0, 8): 3}, True),
            ({}, {(0, 8): 4}, False),
            ({}, {(0, 8): 2, (0, 4): 2}, False),
            ({(0, 8): (KILLED,)}, {}, False),
        ],
    )
    def test_clean(self, deaths, vanished, expected):
        assert History(deaths, vanished).is_clean() is expected

    @pytest.mark.parametrize("n_deaths", [0, 1, 2])
    def test_no_verdict_before_the_third_death(self, attempts, die, n_deaths):
        die(6, (5, 6), CRASHED, times=n_deaths)
        die(6, (5, 6), KILLED, times=5 - n_deaths)
        assert attempts.history(6).verdict(5) is None

    @pytest.mark.parametrize(("cause", "times"), [(CRASHED, 3), (KILLED, 6)])
    def test_verdict_after_enough(self, attempts, die, cause, times):
        die(6, (5, 6), cause, times=times - 1)
        assert attempts.history(6).verdict(5) is None
        die(6, (5, 6), cause)
        reason = f"it killed its worker {times} times ({cause})"
        assert attempts.history(6).verdict(5) == reason
        assert attempts.history(6).verdict(4) is None
        assert attempts.history(6).verdict(6) is None
        # The table must not depend on how many workers were at it at once.
        die(6, (5, 6), cause, times=2)
        assert attempts.history(6).verdict(5) == reason

    def test_crashes_among_kills_are_told(self, attempts, die):
        die(6, (5, 6), KILLED, times=5)
        die(6, (5, 6), CRASHED, times=3)
        reason = f"it killed its worker 3 times ({CRASHED})"
        assert attempts.history(6).verdict(5) == reason

    def test_no_verdict_from_deaths_of_a_range(self, attempts, die):
        die(6, (5, 7), times=30)
        assert attempts.history(6).verdict(5) is None

    def test_no_verdict_from_attempts_that_vanished(self, attempts, begin, die):
        for _ in range(30):
            begin(6, (5, 6))
        assert attempts.history(6).vanished == {(5, 6): 30}
        assert attempts.history(6).verdict(5) is None
        die(6, (5, 6), times=2)
        assert attempts.history(6).verdict(5) is None

    @pytest.mark.parametrize(
        "causes", sorted({*itertools.permutations([CRASHED, ABORTED, CRASHED, "x"])})
    )
    def test_most_frequent_cause_in_any_order(self, causes):
        assert f"({CRASHED})" in History({(5, 6): causes}, {}).verdict(5)

    @pytest.mark.parametrize(
        "causes", [*itertools.permutations([CRASHED, ABORTED, "out of memory"])]
    )
    def test_of_equally_frequent_causes_always_the_same(self, causes):
        assert f"({ABORTED})" in History({(5, 6): causes}, {}).verdict(5)

    @pytest.mark.parametrize("part", [(0, 2), (3, 6), (0, 513), (7, 9)])
    def test_halves(self, part):
        first, second = halve(part)
        assert (first[0], second[1]) == part
        assert first[1] == second[0]
        sizes = [stop - start for start, stop in (first, second)]
        assert min(sizes) >= 1
        assert max(sizes) - min(sizes) <= 1


class TestClear:
    @pytest.fixture
    def _past(self, attempts, die, begin):
        for shard in (6, 60, 1_000_006):
            die(shard, (0, 8), times=2)
            begin(shard, (0, 4))
            (attempts.rows_folder(shard) / "rows-000000-000004.parquet").touch()

    @pytest.mark.usefixtures("_past")
    def test_done_shard_has_no_past(self, run, attempts):
        before = list_files(run)
        attempts.clear(6)
        left = list_files(run)
        assert {*before} - {*left} == {
            name for name in before if name.startswith(("000006/", "running/000006-"))
        }
        assert len(before) - len(left) == 4
        assert attempts.history(6) == History({}, {})
        # Another worker may have done the same at the same moment.
        attempts.clear(6)

    @pytest.mark.usefixtures("_past")
    def test_another_chance_keeps_the_rows(self, run, attempts):
        attempts.clear_deaths(6)
        assert attempts.n_deaths(6) == 0
        assert [path.name for path in attempts.rows_files(6)] == [
            "rows-000000-000004.parquet"
        ]
        assert attempts.history(6).vanished == {(0, 4): 1}
        assert attempts.n_deaths(60) == 2

    def test_rows_are_private_and_in_order(self, attempts):
        folder = attempts.rows_folder(6)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for start in (1000, 20, 3):
            (folder / f"rows-{start:09d}-{start + 1:09d}.parquet").touch()
        (folder / ".node-1.tmp.rows-000000000-000000001.parquet").touch()
        (folder / "death-0.json").write_text(json.dumps({}))
        starts = [int(path.name.split("-")[1]) for path in attempts.rows_files(6)]
        assert starts == [3, 20, 1000]
