"""Loading TensorFlow in less time, and without its start-up chatter."""

import contextlib
import importlib.abc
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

_CHATTER = ("I0000", "WARNING: All log messages before absl")
# Keras imports them where they are installed, for wrappers and plots that nothing here
# uses: measured, 27 % of the time that `import tensorflow` takes.
_UNUSED = ("sklearn", "matplotlib")


@contextlib.contextmanager
def without_chatter() -> Iterator[None]:
    """Hold back the information lines that TensorFlow's C++ parts print on loading.

    They go straight to file descriptor 2 whatever TF_CPP_MIN_LOG_LEVEL says. Warnings
    and errors are passed on.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            held_back.seek(0)
            for line in held_back.read().decode(errors="replace").splitlines():
                if not line.startswith(_CHATTER):
                    sys.stderr.write(line + "\n")


@contextlib.contextmanager
def without_unused_packages() -> Iterator[None]:
    """Let Keras find neither scikit-learn nor matplotlib while it is being loaded.

    Both are optional to it. It goes without `keras.wrappers` and
    `keras.visualization` then, unless they were imported before. Other threads, and
    imports afterwards, find them as ever.
    """
    finder = _Refusing(_UNUSED)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Refusing(importlib.abc.MetaPathFinder):
    """Says of packages, in the thread that made it, that they are not installed."""

    def __init__(self, packages: Sequence[str]) -> None:
        self._packages = packages
        self._thread = threading.get_ident()

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        if fullname in self._packages and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        return None
