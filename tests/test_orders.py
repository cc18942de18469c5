"""What a job makes of the signals that it gets, and how long it then has."""

import asyncio
import os
import signal

import pytest

from nucleiseg.cluster import orders, slurm
from nucleiseg.cluster.orders import Orders
from nucleiseg.cluster.place import Place
from nucleiseg.errors import RunError

SIGNAL_DELAY_S = 90.0


def make_orders(*, is_slurm):
    place = Place(
        job_id="7",
        element=0,
        restarts=0,
        node="n1",
        memory_bytes=None,
        gpus=(),
        is_slurm=is_slurm,
    )
    return Orders(place, SIGNAL_DELAY_S)


def receive(number, *, is_slurm=True):
    """Orders of a job that was sent a signal."""

    async def listen():
        given = make_orders(is_slurm=is_slurm)
        given.listen()
        try:
            os.kill(os.getpid(), number)
            # At once, or this test would take a minute.
            await given.wait(60.0)
        finally:
            for heard in (signal.SIGUSR2, signal.SIGTERM):
                asyncio.get_running_loop().remove_signal_handler(heard)
        return given

    return asyncio.run(listen())


def test_without_a_signal_a_job_goes_on():
    given = make_orders(is_slurm=True)
    assert not given.are_given
    assert given.read() is None
    asyncio.run(given.wait(0.01))
    assert given.read() is None


def test_a_warning_means_to_be_requeued():
    given = receive(signal.SIGUSR2)
    assert given.are_given
    assert given.read() == "requeued"
    # 10 s less than the warning came early: to requeue, and to end.
    assert given.give_deadline().limit_s == SIGNAL_DELAY_S - 10


@pytest.mark.parametrize(
    ("is_preempted", "ending"), [(True, "requeued"), (False, "ended")]
)
def test_what_sigterm_means_is_asked_of_slurm_once(monkeypatch, is_preempted, ending):
    asked = []

    def answer(job_id):
        asked.append(job_id)
        return is_preempted

    monkeypatch.setattr(slurm, "is_preempted", answer)
    given = receive(signal.SIGTERM)
    assert [given.read(), given.read()] == [ending, ending]
    assert asked == ["7"]
    assert given.give_deadline().limit_s == 20


def test_sigterm_ends_a_job_where_slurm_does_not_say_why(monkeypatch):
    def refuse(job_id):
        raise RunError("no answer")

    monkeypatch.setattr(slurm, "is_preempted", refuse)
    assert receive(signal.SIGTERM).read() == "ended"


def test_slurm_is_not_asked_where_there_is_none(monkeypatch):
    monkeypatch.setattr(slurm, "is_preempted", lambda job_id: True)
    assert receive(signal.SIGTERM, is_slurm=False).read() == "ended"


def test_told_to_end_after_a_warning_leaves_less_time(monkeypatch):
    now_s = 1000.0
    monkeypatch.setattr(orders.time, "monotonic", lambda: now_s)

    def is_over_at(deadline, moment_s):
        nonlocal now_s
        now_s = moment_s
        return deadline.is_over()

    async def play():
        nonlocal now_s
        given = make_orders(is_slurm=True)
        given._warned.set()
        deadline = given.give_deadline()
        found = [is_over_at(deadline, 1000.0 + after_s) for after_s in (0.0, 30.0)]
        given._told_to_end.set()
        # 20 s from when it is seen; never more than what the warning left.
        return found + [
            is_over_at(deadline, 1000.0 + after_s) for after_s in (31.0, 50.9, 51.0)
        ]

    assert asyncio.run(play()) == [False, False, False, False, True]


def test_told_to_end_does_not_put_a_deadline_off(monkeypatch):
    now_s = 0.0
    monkeypatch.setattr(orders.time, "monotonic", lambda: now_s)
    given = make_orders(is_slurm=True)
    given._warned.set()
    deadline = given.give_deadline()
    given._told_to_end.set()
    now_s = 75.0
    assert not deadline.is_over()
    now_s = 80.0
    assert deadline.is_over()
