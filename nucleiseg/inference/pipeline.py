"""Stages that run at once, in order, with bounded room between them."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ordered(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    pool: ThreadPoolExecutor,
    depth: int,
) -> Iterator[Result]:
    """Apply a function in a pool's threads and give the results in order.

    While a consumer works on one result, up to `depth` further items are being
    worked on. An exception of the function is raised where its result would come.

    Parameters
    ----------
    function : callable
    items : iterable
        Taken only as there is room, in the consumer's thread.
    pool : ThreadPoolExecutor
    depth : int
        Most items under way.
    """
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
