"""Reading ahead in threads, in order, with bounded memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# Small files on a network file system are waited for, not computed.
_N_THREADS = 4
# How far ahead: so many items, or fewer that are so large in all.
_MOST_ITEMS = 64
_MOST_SIZE = 2**17


def map_ahead(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    size: Callable[[Item], int],
) -> Iterator[Result]:
    """Apply a function to items in threads, and give the results in order.

    Parameters
    ----------
    function : callable
    items : iterable
    size : callable
        Size of an item, in any unit of which about 100,000 fit into memory well.

    Raises
    ------
    Exception
        The first, in order, that the function raised.
    """
    waiting: deque[tuple[Future[Result], int]] = deque()
    total = 0
    with ThreadPoolExecutor(_N_THREADS) as pool:
        try:
            for item in items:
                length = size(item)
                while waiting and (
                    len(waiting) >= _MOST_ITEMS or total + length > _MOST_SIZE
                ):
                    future, done = waiting.popleft()
                    total -= done
                    yield future.result()
                waiting.append((pool.submit(function, item), length))
                total += length
            while waiting:
                yield waiting.popleft()[0].result()
        finally:
            # Where the first one failed, the others need not be read.
            pool.shutdown(wait=False, cancel_futures=True)
