"""What jobs say of themselves, and how workers find their coordinator."""

import dataclasses
import json
import os
import stat
import subprocess
import sys

import pytest

from nucleiseg.atomic import read_json, write_text
from nucleiseg.cluster import Record, is_cancelled, read_records, remove_keys
from nucleiseg.cluster.records import (
    HEARTBEAT_S,
    Recorder,
    ask_to_leave,
    read_run_state,
    take_leave_note,
)
from nucleiseg.cluster.rendezvous import Meeting, announced, find_meeting, make_keys
from nucleiseg.counting import Journal
from nucleiseg.errors import RunError
from nucleiseg.inference import ShardResult
from nucleiseg.runs import CountRun, TrainRun

ADDRESS = "tls://10.0.0.7:41234"
OVER = ["left", "ended", "failed", "requeued", "held"]
NOT_OVER = ["starting", "waiting", "working", "draining"]


@pytest.fixture
def run(tmp_path):
    run = CountRun(tmp_path / "run")
    run.root.mkdir()
    return run


@pytest.fixture
def clock(monkeypatch):
    """Time as the modules see it, in seconds."""

    class Clock:
        now_s = 1_000_000.0

        def time(self):
            return self.now_s

        monotonic = time

    clock = Clock()
    for module in ("cluster.records", "counting.journal"):
        monkeypatch.setattr(f"nucleiseg.{module}.time", clock)
    return clock


def make_record(name="77_0", **values):
    values = {"role": "workers", "state": "starting", "host": "node7", **values}
    return Record(name=name, **values)


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


class TestRecorder:
    @pytest.mark.parametrize("kind", [CountRun, TrainRun])
    def test_writes_what_it_says(self, tmp_path, clock, kind):
        jobs = kind(tmp_path).jobs
        recorder = Recorder(jobs, make_record(node="node7", restarts=2))
        assert read_records(jobs) == []
        recorder.say("working", devices=["H200"])
        (found,) = read_records(jobs)
        assert found == recorder.record
        assert (found.state, found.devices, found.restarts) == ("working", ["H200"], 2)
        assert found.updated_s == clock.now_s
        assert found.updated
        assert mode_of(jobs.records) == 0o700

    def test_says_only_what_has_changed(self, run, clock):
        recorder = Recorder(run.jobs, make_record())
        recorder.say("working", devices=["H200"])
        recorder.say(deaths=1, error="a worker died: killed")
        recorder.say("draining")
        (found,) = read_records(run.jobs)
        assert found.devices == ["H200"]
        assert (found.state, found.deaths) == ("draining", 1)
        assert found.error == "a worker died: killed"

    def test_nothing_can_be_said_as_well(self, run, clock):
        recorder = Recorder(run.jobs, make_record())
        recorder.say("working", devices=["H200"], deaths=3, error="x")
        recorder.say(devices=[], deaths=0, error="")
        (found,) = read_records(run.jobs)
        assert (found.devices, found.deaths, found.error) == ([], 0, "")

    def test_role_may_change(self, run):
        recorder = Recorder(run.jobs, make_record(role="coordinator and workers"))
        recorder.say(role="coordinator")
        assert read_records(run.jobs)[0].role == "coordinator"

    def test_is_alive_not_more_often_than_it_must(self, run, clock):
        recorder = Recorder(run.jobs, make_record())
        recorder.say()
        path = run.jobs.records / "77_0.json"
        path.unlink()
        clock.now_s += HEARTBEAT_S - 0.1
        recorder.say_alive()
        assert not path.exists()
        clock.now_s += 0.1
        recorder.say_alive()
        assert read_records(run.jobs)[0].updated_s == clock.now_s

    def test_started_again_it_writes_over_its_record(self, run):
        for restarts in (0, 1):
            Recorder(run.jobs, make_record(restarts=restarts)).say("working")
        (found,) = read_records(run.jobs)
        assert found.restarts == 1

    def test_records_are_in_order_and_nothing_else_is_one(self, run):
        for name in ("77_1", "77_0", "76"):
            Recorder(run.jobs, make_record(name)).say()
        ask_to_leave(run, "77_0.0-0")
        (run.jobs.records / ".node-1-0a1b2c3d.tmp.77_2.json").write_text("{")
        assert [r.name for r in read_records(run.jobs)] == ["76", "77_0", "77_1"]

    def test_damaged_record_is_named(self, run):
        Recorder(run.jobs, make_record()).say()
        (run.jobs.records / "77_0.json").write_text("{")
        with pytest.raises(RunError, match=r"77_0\.json"):
            read_records(run.jobs)


class TestStale:
    @pytest.mark.parametrize("state", NOT_OVER)
    def test_who_is_silent_for_three_heartbeats(self, clock, state):
        record = make_record(state=state, updated_s=clock.now_s)
        assert not record.is_over
        assert not record.is_stale(clock.now_s + 3 * HEARTBEAT_S)
        assert record.is_stale(clock.now_s + 3 * HEARTBEAT_S + 0.1)

    @pytest.mark.parametrize("state", OVER)
    def test_never_who_said_that_it_ends(self, clock, state):
        record = make_record(state=state, updated_s=clock.now_s)
        assert record.is_over
        assert not record.is_stale(clock.now_s + 1e6)

    def test_every_state_is_one_of_them(self):
        states = set(Record.__dataclass_fields__["state"].type.__args__)
        assert states == {*OVER, *NOT_OVER}


class TestNotes:
    def test_is_taken_once_and_by_its_worker(self, run):
        ask_to_leave(run, "77_0.0-1")
        assert not take_leave_note(run, "77_0.0-0")
        assert not take_leave_note(run, "77_0.0-10")
        assert take_leave_note(run, "77_0.0-1")
        assert not take_leave_note(run, "77_0.0-1")

    def test_is_private(self, run):
        ask_to_leave(run, "77_0.0-1")
        assert mode_of(run.jobs.records) == 0o700
        (note,) = run.jobs.records.iterdir()
        assert mode_of(note) == 0o600

    def test_without_any_folder_there_is_none(self, run):
        assert not take_leave_note(run, "77_0.0-1")


class TestCancelled:
    def test_from_the_cancellation_on(self, run):
        assert not is_cancelled(run.jobs)
        write_text(run.jobs.cancelled, "now\n")
        assert is_cancelled(run.jobs)
        run.jobs.cancelled.unlink()
        assert not is_cancelled(run.jobs)

    def test_before_there_is_a_folder(self, tmp_path):
        assert not is_cancelled(CountRun(tmp_path / "missing").jobs)


class TestJournal:
    def test_state_is_there_for_others(self, run):
        assert read_run_state(run.jobs) is None
        journal = Journal(run)
        for state in ("submitted", "running", "merging", "finished"):
            journal.write(state)
            assert read_run_state(run.jobs) == state

    def test_damage_is_named(self, run):
        run.jobs.progress.write_text("{")
        with pytest.raises(RunError, match=run.jobs.progress.name):
            read_run_state(run.jobs)

    def test_error_is_that_of_the_last_state(self, run):
        journal = Journal(run)
        journal.write("incomplete", error="no workers are left")
        assert read_json(run.jobs.progress)["error"] == "no workers are left"
        journal.write("running")
        assert read_json(run.jobs.progress)["error"] is None

    def test_ticks_are_written_every_few_seconds(self, run, clock):
        journal = Journal(run)
        journal.write("running")
        clock.now_s += 4.9
        journal.tick(3)
        assert read_json(run.jobs.progress)["n_workers"] == 0
        clock.now_s += 0.1
        journal.tick(3)
        found = read_json(run.jobs.progress)
        assert (found["n_workers"], found["state"]) == (3, "running")
        assert found["updated_s"] == clock.now_s
        assert found["pid"] == os.getpid()

    def test_rate_is_that_of_the_last_minutes(self, run, clock):
        def add(n_images, after_s, *, already_there=False):
            clock.now_s += after_s
            journal.add(ShardResult(0, n_images, 0, 1.0, already_there))
            return journal.images_per_s

        journal = Journal(run)
        assert journal.images_per_s == 0
        assert add(100, 10) == pytest.approx(10)
        # A shard that another call had computed is no sign of speed.
        assert add(1000, 0, already_there=True) == pytest.approx(10)
        assert add(300, 10) == pytest.approx(20)
        # After an hour without a shard, the first minutes no longer count.
        for _ in range(40):
            rate = add(50, 100)
        assert rate == pytest.approx(0.5)
        # And nobody needs a new shard to see that there is none.
        clock.now_s += 1000
        assert journal.images_per_s < 0.2


class TestKeys:
    def test_only_the_owner_can_read_them(self, run):
        umask = os.umask(0)
        try:
            incarnation, keys = make_keys(run)
        finally:
            os.umask(umask)
        assert mode_of(run.tls) == mode_of(run.tls / incarnation) == 0o700
        files = [p for p in run.tls.rglob("*") if p.is_file()]
        assert {*files} == {keys.certificate, keys.key}
        assert {mode_of(path) for path in files} == {0o600}
        assert b"PRIVATE KEY" in keys.key.read_bytes()
        assert b"PRIVATE KEY" not in keys.certificate.read_bytes()

    def test_each_coordinator_has_others(self, run):
        (one, keys), (two, others) = make_keys(run), make_keys(run)
        assert one != two
        assert keys.key.read_bytes() != others.key.read_bytes()

    def test_nothing_but_tls(self, run):
        _, keys = make_keys(run)
        security = keys.security()
        assert security.require_encryption
        for role in ("client", "worker", "scheduler"):
            arguments = security.get_connection_args(role)
            assert arguments["require_encryption"]
            assert arguments["ssl_context"] is not None


class TestMeeting:
    def test_is_found_as_long_as_it_lasts(self, run):
        assert find_meeting(run) is None
        incarnation, keys = make_keys(run)
        # Keys alone are no coordinator yet.
        assert find_meeting(run) is None
        with announced(run, incarnation, ADDRESS):
            meeting = find_meeting(run)
            assert (meeting.address, meeting.incarnation) == (ADDRESS, incarnation)
            assert meeting.keys(run) == keys
        assert find_meeting(run) is None
        assert not run.tls.exists()

    def test_nothing_is_left_after_an_exception(self, run):
        incarnation, _ = make_keys(run)

        def fail():
            with announced(run, incarnation, ADDRESS):
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert not run.tls.exists()

    def test_killed_one_leaves_keys_that_the_next_one_drops(self, run):
        program = (
            "import os, sys\n"
            "from pathlib import Path\n"
            "from nucleiseg.cluster.rendezvous import announced, make_keys\n"
            "from nucleiseg.runs import CountRun\n"
            "run = CountRun(Path(sys.argv[1]))\n"
            "incarnation, _ = make_keys(run)\n"
            f"with announced(run, incarnation, {ADDRESS!r}):\n"
            "    os.kill(os.getpid(), 9)\n"
        )
        command = [sys.executable, "-c", program, run.root]
        assert subprocess.run(command, check=False, timeout=60).returncode == -9
        killed = find_meeting(run)
        assert killed is not None
        incarnation, _ = make_keys(run)
        # Until it is announced, workers still look for the one that was killed.
        assert find_meeting(run) == killed
        with announced(run, incarnation, "tls://10.0.0.8:1"):
            assert find_meeting(run).incarnation == incarnation
            assert not killed.keys(run).key.exists()
            folders = [path.name for path in run.tls.iterdir() if path.is_dir()]
            assert folders == [incarnation]
        assert not run.tls.exists()

    def test_end_of_one_that_was_replaced_takes_nothing_from_the_next(self, run):
        first, _ = make_keys(run)
        old = announced(run, first, ADDRESS)
        old.__enter__()
        second, keys = make_keys(run)
        with announced(run, second, "tls://10.0.0.8:1"):
            old.__exit__(None, None, None)
            assert find_meeting(run).incarnation == second
            assert keys.key.exists()
        assert not run.tls.exists()

    def test_nor_from_one_that_is_only_starting(self, run):
        first, _ = make_keys(run)
        with announced(run, first, ADDRESS):
            second, keys = make_keys(run)
        assert keys.key.exists()
        assert find_meeting(run) is None
        with announced(run, second, "tls://10.0.0.8:1"):
            assert find_meeting(run).incarnation == second
        assert not run.tls.exists()

    def test_file_without_its_keys_is_none(self, run):
        incarnation, keys = make_keys(run)
        with announced(run, incarnation, ADDRESS):
            keys.key.unlink()
            assert find_meeting(run) is None

    def test_one_that_ends_in_this_moment_is_none(self, run, monkeypatch):
        incarnation, _ = make_keys(run)

        def read_too_late(path):
            path.unlink()
            return read_json(path)

        with announced(run, incarnation, ADDRESS):
            with monkeypatch.context() as patch:
                patch.setattr("nucleiseg.cluster.rendezvous.read_json", read_too_late)
                assert find_meeting(run) is None

    def test_damage_is_named(self, run):
        incarnation, _ = make_keys(run)
        with announced(run, incarnation, ADDRESS):
            path = run.tls / "coordinator.json"
            whole = path.read_text()
            path.write_text("{")
            with pytest.raises(RunError, match=r"coordinator\.json"):
                find_meeting(run)
            path.write_text(whole)

    def test_holds_no_key_itself(self, run):
        incarnation, _ = make_keys(run)
        with announced(run, incarnation, ADDRESS):
            found = json.loads((run.tls / "coordinator.json").read_text())
        assert set(found) == {field.name for field in dataclasses.fields(Meeting)}

    def test_keys_of_a_killed_one_can_be_removed(self, run):
        make_keys(run)
        remove_keys(run)
        assert not run.tls.exists()
        remove_keys(run)

    @pytest.mark.parametrize(
        ("address", "hostname"),
        [
            (ADDRESS, "10.0.0.7"),
            ("tls://node7.cluster:8786", "node7.cluster"),
            ("tls://[fe80::1]:8786", "[fe80::1]"),
        ],
    )
    def test_hostname(self, address, hostname):
        assert Meeting(address, "0", "node7").hostname == hostname
