"""How a worker's time is told: on a clock that is told the time."""

import pytest

from nucleiseg.cli.status import _describe_bottleneck
from nucleiseg.inference import times
from nucleiseg.inference.streaming import count_label_threads
from nucleiseg.inference.times import StageTimes, Standstill


class Clock:
    """Stands in for the module `time`."""

    def __init__(self):
        self.now_s = 1000.0

    def monotonic(self):
        return self.now_s


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(times, "time", clock)
    return clock


def test_standing_still_is_waiting_for_images_or_for_labelling(clock):
    def images():
        for wait_s in (3, 1):
            clock.now_s += wait_s
            yield "image"

    def compute(image):
        clock.now_s += 2

    found = StageTimes()
    standstill = Standstill(found)
    call = standstill.around(compute)
    for image in standstill.watch(images()):
        call(image)
        clock.now_s += 5  # labelling: after the last call it holds up nothing
    standstill.note()
    assert (found.waited_s, found.blocked_s) == (4, 5)


def test_waiting_that_no_call_follows_is_none(clock):
    def images():
        yield "image"
        clock.now_s += 3  # and there is no other

    found = StageTimes()
    standstill = Standstill(found)
    call = standstill.around(lambda _: None)
    clock.now_s += 5
    for image in standstill.watch(images()):
        call(image)
    standstill.note()
    assert (found.waited_s, found.blocked_s) == (0, 5)


def test_what_is_left_waits_for_the_end_of_the_images(clock):
    def images():
        yield "image"
        clock.now_s += 3

    found = StageTimes()
    standstill = Standstill(found)
    rest = list(standstill.watch(images()))
    standstill.around(len)(rest)
    standstill.note()
    assert (found.waited_s, found.blocked_s) == (3, 0)


def test_nothing_stands_still_while_another_call_runs(clock):
    def images():
        yield 1
        clock.now_s += 7  # the first is being computed
        yield 2

    found = StageTimes()
    standstill = Standstill(found)
    source = standstill.watch(images())
    running = standstill.around(lambda _: list(source))
    assert running(next(source)) == [2]
    clock.now_s += 9
    standstill.note()
    assert (found.waited_s, found.blocked_s) == (0, 0)


def test_a_call_that_fails_has_ended(clock):
    def fail(_):
        clock.now_s += 2
        raise ValueError("sorry")

    found = StageTimes()
    standstill = Standstill(found)
    with pytest.raises(ValueError, match="sorry"):
        standstill.around(fail)(1)
    clock.now_s += 4
    standstill.around(str)(1)
    standstill.note()
    assert (found.waited_s, found.blocked_s) == (0, 4)


@pytest.mark.parametrize(
    ("waited_s", "blocked_s", "said"),
    [
        (1, 0, "the network is the bottleneck: it waited 10 %"),
        (4, 1, "normalising the images is the bottleneck: the network waited 50 %"),
        (1, 4, "labelling the nuclei is the bottleneck: the network waited 50 %"),
        (1, None, "the network is the bottleneck: it waited 10 %"),
    ],
)
def test_status_names_the_bottleneck(waited_s, blocked_s, said):
    stages = {
        **StageTimes(wall_s=10, waited_s=waited_s, blocked_s=blocked_s or 0).as_dict(),
        "core_ms": {"read": 1, "normalise": 2, "network": 9, "label": 3},
    }
    if blocked_s is None:
        del stages["network_blocked_s"]
    assert _describe_bottleneck(stages).startswith(said)


def test_a_run_that_has_done_nothing_yet():
    assert "it waited 0 %" in _describe_bottleneck(StageTimes().as_dict())


@pytest.mark.parametrize(
    ("side_px", "n_threads", "n_labelling"),
    [(16, 8, 1), (128, 8, 1), (256, 8, 2), (512, 8, 8), (512, 4, 4), (2000, 1, 1)],
)
def test_small_images_are_labelled_by_few_threads(side_px, n_threads, n_labelling):
    assert count_label_threads(side_px**2, n_threads) == n_labelling
