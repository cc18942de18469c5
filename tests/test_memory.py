"""Freed memory goes back to the system."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from nucleiseg import memory
from nucleiseg.memory import Returns

_GAPS = """
import re
from pathlib import Path
from nucleiseg.memory import give_back

def resident_mb():
    text = Path("/proc/self/status").read_text()
    return int(re.search(r"VmRSS:\\s+(\\d+)", text)[1]) / 1024

# All but every 32nd of many are freed: gaps below what is held.
blocks = [bytearray(65_536) for _ in range(3_000)]
held = blocks[1::32]
del blocks
before = resident_mb()
give_back()
print(before - resident_mb())
"""


@pytest.mark.skipif(
    not (
        Path("/proc/self/status").exists() and hasattr(ctypes.CDLL(None), "malloc_trim")
    ),
    reason="needs Linux with glibc",
)
def test_gaps_between_what_is_held_are_given_back():
    ran = subprocess.run(
        [sys.executable, "-c", _GAPS], capture_output=True, text=True, check=True
    )
    assert float(ran.stdout) > 100


def test_it_is_given_back_after_so_many_pixels(monkeypatch):
    times = []
    monkeypatch.setattr(memory, "give_back", lambda: times.append(1))
    returns = Returns(100)
    for _ in range(5):
        returns.add(60)
    assert len(times) == 2


def test_without_glibc_nothing_happens(monkeypatch):
    libraries = []

    class Library:
        """Of a system that cannot give memory back."""

        def __init__(self, name):
            libraries.append(name)

    monkeypatch.setattr(ctypes, "CDLL", Library)
    monkeypatch.setattr(memory, "_find_trim", memory._find_trim.__wrapped__)
    memory.give_back()
    assert libraries == [None]
