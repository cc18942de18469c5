"""A bounded number of open readers, shared by the threads that load."""

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nucleiseg.archives import Reader, fingerprint, needs_pass, open_reader
from nucleiseg.dataset.sources import Source

_MOST_IDLE = 4

_Pair = tuple[Reader, Reader]


@dataclass
class Readers:
    """Lends a reader of a source's images and one of its labels, to one thread."""

    index: Path
    """Folder of the seek points of deflated members."""
    _idle: "OrderedDict[tuple[Source, int], _Pair]" = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _fingerprints: dict[Path, str] = field(default_factory=dict)
    _is_closed: bool = False

    @contextlib.contextmanager
    def lend(self, source: Source) -> Iterator[_Pair]:
        """Lend an idle pair of readers, or a new one."""
        pair = self._take(source) or self._open(source)
        try:
            yield pair
        except BaseException:
            _close(pair)
            raise
        with self._lock:
            # Several of one source may be idle.
            self._idle[source, id(pair)] = pair
            surplus = len(self._idle) - (0 if self._is_closed else _MOST_IDLE)
            old = [self._idle.popitem(last=False)[1] for _ in range(surplus)]
        for pair in old:
            _close(pair)

    def _take(self, source: Source) -> _Pair | None:
        with self._lock:
            for key in reversed(self._idle):
                if key[0] == source:
                    return self._idle.pop(key)
        return None

    def _open(self, source: Source) -> _Pair:
        images = self._open_one(source.path, source.images.key)
        try:
            return images, self._open_one(source.path, source.masks.key)
        except BaseException:
            images.close()
            raise

    def _open_one(self, path: Path, key: str) -> Reader:
        if not needs_pass(path, key):
            return open_reader(path, key)
        return open_reader(path, key, index=(self.index, self.find_fingerprint(path)))

    def find_fingerprint(self, path: Path) -> str:
        """Find an archive's fingerprint, once: it takes reading up to 8 MB."""
        if path not in self._fingerprints:
            self._fingerprints[path] = fingerprint(path)
        return self._fingerprints[path]

    def close(self) -> None:
        """Close what is idle, and what threads that still read have when they end."""
        with self._lock:
            self._is_closed = True
            old = list(self._idle.values())
            self._idle.clear()
        for pair in old:
            _close(pair)


def _close(pair: _Pair) -> None:
    for reader in pair:
        reader.close()
