"""Progress: figures worked out by hand, on a clock that is told the time."""

import contextlib
import io
import logging

import pytest

from nucleiseg import progress
from nucleiseg.progress import Progress


class Clock:
    """Stands in for the module `time`."""

    def __init__(self):
        self.now_s = 1000.0

    def monotonic(self):
        return self.now_s


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


@pytest.fixture(autouse=True)
def _all_lines(caplog):
    caplog.set_level(logging.INFO, logger="nucleiseg")


def make_progress(total=100, **more):
    return Progress(total, label="counting", unit="images", **more)


class TestLine:
    def test_by_hand(self, clock):
        with make_progress() as shown:
            clock.now_s += 10
            shown.update(25)
            assert shown.line() == (
                "counting: 25/100 images (25 %), 2.5 images/s, 0:00:30 left"
            )

    def test_what_was_there_before_does_not_count_for_the_rate(self, clock):
        with make_progress(done=50) as shown:
            clock.now_s += 10
            shown.update(10)
            assert shown.line() == (
                "counting: 60/100 images (60 %), 1.0 images/s, 0:00:40 left"
            )

    def test_rate_is_that_of_the_last_ten_minutes(self, clock):
        with make_progress(10_000) as shown:
            clock.now_s += 1000  # a slow start
            shown.update(100)
            for _ in range(70):
                clock.now_s += 10
                shown.update(10)
            assert "(8 %), 1.0 images/s, 2:33:20 left" in shown.line()

    def test_rate_of_rare_updates_is_that_since_the_one_before(self, clock):
        with make_progress(10_000) as shown:
            for n_units in (10, 2000, 3000):
                clock.now_s += 1000
                shown.update(n_units)
            assert "(50 %), 3.0 images/s, 0:27:43 left" in shown.line()

    def test_rate_of_workers_that_end_their_shards_in_bursts(self, clock):
        with make_progress(1_000_000) as shown:
            for _ in range(10):
                clock.now_s += 174
                for _ in range(4):
                    shown.update(1000)
                    clock.now_s += 2
                    shown.update(0)  # as while members are passed over
                rate = float(shown.line().split(", ")[1].split()[0])
                assert rate == pytest.approx(4000 / 182, rel=0.2)

    def test_units_within_a_second_are_counted(self, clock):
        with make_progress() as shown:
            for _ in range(25):
                clock.now_s += 0.125
                shown.update(1)
            assert "25/100 images (25 %), 8.0 images/s" in shown.line()

    def test_first_update_of_what_warms_up_does_not_count(self, clock, caplog):
        with make_progress(warms_up=True, done=20) as shown:
            clock.now_s += 30
            shown.update(10)
            assert shown.line().endswith("0.0 images/s, unknown left")
            assert not caplog.records
            clock.now_s += 10
            shown.update(20)
            assert shown.line() == (
                "counting: 50/100 images (50 %), 2.0 images/s, 0:00:25 left"
            )

    def test_before_the_first(self, clock):
        with make_progress() as shown:
            assert shown.line() == (
                "counting: 0/100 images (0 %), 0.0 images/s, unknown left"
            )

    def test_done(self, clock):
        with make_progress() as shown:
            clock.now_s += 10
            shown.update(100)
            assert shown.line().endswith("(100 %), 10.0 images/s, 0:00:00 left")

    def test_nothing_to_do(self, clock):
        with make_progress(0) as shown:
            assert shown.line().startswith("counting: 0/0 images (100 %)")

    def test_long_work(self, clock):
        with make_progress(1_000_000) as shown:
            clock.now_s += 100
            shown.update(1000)
            assert shown.line().endswith("10.0 images/s, 27:45:00 left")

    def test_note_is_that_of_the_last_update(self, clock):
        with make_progress() as shown:
            shown.update(1, "2 failed")
            assert shown.line().endswith(" left, 2 failed")
            shown.update(1)
            assert shown.line().endswith(" left")


class TestLog:
    def test_a_line_each_interval(self, clock, caplog):
        with make_progress(interval_s=10) as shown:
            for _ in range(25):
                clock.now_s += 1
                shown.update(1)
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == 2
        assert lines[0].startswith("counting: 10/100 images")
        assert lines[1].startswith("counting: 20/100 images")

    def test_no_bar(self, clock, capsys):
        with make_progress() as shown:
            clock.now_s += 100
            shown.update(50)
        assert "\r" not in capsys.readouterr().err


class TestTerminal:
    def test_bar_and_no_lines(self, clock, caplog):
        with contextlib.redirect_stderr(Terminal()) as terminal:
            with make_progress(done=10) as shown:
                clock.now_s += 100
                shown.update(90, "2 failed")
            written = terminal.getvalue()
        assert "counting" in written
        assert " images" in written
        assert "10/100" in written
        assert caplog.records == []

    def test_bar_is_wiped_where_the_work_fails(self, clock):
        def fail():
            with make_progress():
                raise KeyboardInterrupt

        with contextlib.redirect_stderr(Terminal()) as terminal:
            with pytest.raises(KeyboardInterrupt):
                fail()
            assert terminal.getvalue().endswith(" \r")
