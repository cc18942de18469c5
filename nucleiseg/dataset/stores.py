"""Blocks in memory: all of them held, or those that the next batches need."""

import contextlib
import functools
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from nucleiseg.dataset.blocks import Blocks, Pixels
from nucleiseg.dataset.order import BatchOrder
from nucleiseg.dataset.parts import Part

Load = Callable[[int], Pixels]
"""Loads a block by its number."""

_N_THREADS = 2
# tf.data has fewer batches than this in the making at any time.
_MOST_AHEAD = 64


class Store(Protocol):
    """Gives the blocks that batches need."""

    def open_batch(
        self, batch: int
    ) -> contextlib.AbstractContextManager[Callable[[int], Pixels]]:
        """Give, for as long as a batch is made, its blocks by their numbers."""


class HeldBlocks:
    """Holds every block from its first use on; for any number of threads."""

    def __init__(self, load: Load, n_blocks: int) -> None:
        self._load = load
        self._held: dict[int, Pixels] = {}
        self._locks = [threading.Lock() for _ in range(n_blocks)]

    @contextlib.contextmanager
    def open_batch(self, batch: int) -> Iterator[Callable[[int], Pixels]]:
        """Give the blocks, whatever the batch."""
        yield self.get

    def get(self, block: int) -> Pixels:
        """Get a block."""
        with self._locks[block]:
            if block not in self._held:
                self._held[block] = self._load(block)
            return self._held[block]


@dataclass(eq=False)
class _Entry:
    """A block, from the first batch to the last of one epoch that it is needed in."""

    key: tuple[int, int]
    """Epoch and block."""
    first: int
    last: int
    n_bytes: int
    loaded: "Future[Pixels] | None" = None


class StreamedBlocks:
    """Reads blocks ahead of the batches that need them, in bounded memory.

    Batches may be made by several threads at once and finish in any order, each of
    them once. A batch that comes again begins the pass anew: tf.data does so, and
    abandons passes in their middle.

    Parameters
    ----------
    part, order : Part, BatchOrder
    blocks : Blocks
    load : callable
    memory_bytes : int
        Blocks are read ahead up to so much. What a batch needs is read all the same.
    first_batch, n_batches : int
        The batches of a pass.
    """

    def __init__(
        self,
        part: Part,
        order: BatchOrder,
        blocks: Blocks,
        load: Load,
        *,
        memory_bytes: int,
        first_batch: int,
        n_batches: int,
    ) -> None:
        self._part, self._order, self._blocks, self._load = part, order, blocks, load
        self._memory_bytes = memory_bytes
        self._range = (first_batch, first_batch + n_batches)
        self._lock = threading.RLock()
        self._pool = self._start_pool()
        self._begin({})

    def _start_pool(self) -> ThreadPoolExecutor:
        pool = ThreadPoolExecutor(_N_THREADS, thread_name_prefix="read")
        weakref.finalize(self, pool.shutdown, wait=False, cancel_futures=True)
        return pool

    def _begin(self, former: dict[tuple[int, int], _Entry]) -> None:
        self._former = former
        self._present: dict[tuple[int, int], _Entry] = {}
        self._n_bytes = 0
        self._frontier = self._range[0]
        self._begun: set[int] = set()
        self._done: set[int] = set()
        self._pass = object()
        self._coming = _plan(self._part, self._order, self._blocks, self._range)
        self._next = next(self._coming, None)

    @contextlib.contextmanager
    def open_batch(self, batch: int) -> Iterator[Callable[[int], Pixels]]:
        """Give the batch's blocks, waiting for each until it is read."""
        if batch - self._frontier > _MOST_AHEAD:
            # Left over from a pass that was abandoned: reading all blocks up to it
            # would not fit into memory.
            yield functools.cache(self._load)
            return
        with self._lock:
            if batch < self._frontier or batch in self._begun:
                # Keras looks at a first batch before it begins: what was read for that
                # is read already. Of a pass that was in its middle nothing is kept.
                is_fresh = self._frontier - self._range[0] <= _MOST_AHEAD
                self._pool.shutdown(wait=False)
                self._pool = self._start_pool()
                self._begin(self._present if is_fresh else {})
            self._begun.add(batch)
            token = self._pass
            self._read_ahead(until=batch)
            entries = self._collect(batch)

        def get(block: int) -> Pixels:
            loaded = entries[block].loaded
            assert loaded is not None
            return loaded.result()

        yield get
        with self._lock:
            if token is self._pass:
                self._finish(batch)

    def _collect(self, batch: int) -> Mapping[int, _Entry]:
        epoch = batch // self._order.n_batches
        crops = self._order.indices(batch)
        blocks = np.unique(self._blocks.find(self._part.crop_images[crops]))
        return {block: self._present[epoch, block] for block in blocks.tolist()}

    def _finish(self, batch: int) -> None:
        self._done.add(batch)
        while self._frontier in self._done:
            self._done.remove(self._frontier)
            self._begun.remove(self._frontier)
            self._frontier += 1
        for entry in list(self._present.values()):
            if entry.last < self._frontier:
                del self._present[entry.key]
                self._n_bytes -= entry.n_bytes
        self._read_ahead(until=-1)
        if self._frontier == self._range[1]:
            # TensorFlow keeps every function it was ever given, and this with it: the
            # threads of each epoch's validation would be left.
            self._pool.shutdown(wait=False)

    def _read_ahead(self, *, until: int) -> None:
        """Have blocks read: all up to a batch, then as many as memory holds."""
        while (entry := self._next) is not None:
            is_needed = entry.first <= until
            if not is_needed and self._n_bytes + entry.n_bytes > self._memory_bytes:
                return
            former = self._former.pop(entry.key, None)
            entry.loaded = (
                former.loaded
                if former is not None
                else self._pool.submit(self._load, entry.key[1])
            )
            self._present[entry.key] = entry
            self._n_bytes += entry.n_bytes
            self._next = next(self._coming, None)


def _plan(
    part: Part, order: BatchOrder, blocks: Blocks, batches: tuple[int, int]
) -> Iterator[_Entry]:
    """Plan what is read: blocks in the order in which batches need them."""
    first_batch, stop = batches
    while first_batch < stop:
        epoch, position = divmod(first_batch, order.n_batches)
        start = epoch * order.n_batches
        last_batch = min(start + order.n_batches, stop) - 1
        crops = order.sequence(epoch)[
            position * order.batch_size : (last_batch - start + 1) * order.batch_size
        ]
        needed = blocks.find(part.crop_images[crops])
        found, firsts = np.unique(needed, return_index=True)
        lasts = needed.size - 1 - np.unique(needed[::-1], return_index=True)[1]
        for place in np.argsort(firsts, kind="stable"):
            yield _Entry(
                (epoch, int(found[place])),
                first_batch + int(firsts[place]) // order.batch_size,
                first_batch + int(lasts[place]) // order.batch_size,
                int(blocks.n_bytes[found[place]]),
            )
        first_batch = last_batch + 1
