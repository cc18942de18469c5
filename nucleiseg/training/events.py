"""Events for TensorBoard: the figures of each epoch, once."""

import contextlib
import csv
import errno
import os
import socket
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from nucleiseg.atomic import create_private
from nucleiseg.devices import import_tensorflow
from nucleiseg.runs import TrainRun
from nucleiseg.training.history import History, Row

_PREFIX = "events.out.tfevents."
# What TensorBoard expects a file to begin with.
_VERSION = "brain.Event:2"


class Events:
    """Writes figures where TensorBoard finds them.

    What `tf.summary` writes needs TensorBoard where one trains, and an epoch that is
    trained again, after a full disk or a damaged checkpoint, would be there twice. So
    each process begins a file of its own with all of the history, and drops those of
    earlier processes: they are a view of the history and hold nothing else.
    """

    def __init__(self, run: TrainRun) -> None:
        self._run = run
        self._writer: Any = None

    def begin(self, history: History) -> None:
        """Write all epochs so far into a new file, in place of those that are there.

        Raises
        ------
        OSError
            The disk is full; the next call begins anew.
        """
        folder = self._run.tensorboard
        create_private(folder)
        earlier = list(folder.glob(f"{_PREFIX}*"))
        self.close()
        stamp = f"{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        path = folder / f"{_PREFIX}{stamp}"
        with self._naming_full_disk():
            self._writer = import_tensorflow().io.TFRecordWriter(str(path))
            self._write(file_version=_VERSION)
            rates = self._read_rates()
            for row in history.rows:
                self._write_row(row, rates)
            self._writer.flush()
        for old in earlier:
            old.unlink(missing_ok=True)

    def add(self, history: History) -> None:
        """Write the last epoch, once its rate is known.

        Raises
        ------
        OSError
            The disk is full; the next call begins anew.
        """
        if self._writer is None:
            self.begin(history)
            return
        with self._naming_full_disk():
            self._write_row(history.rows[-1], self._read_rates())
            self._writer.flush()

    def _write_row(self, row: Row, rates: Mapping[int, dict[str, str]]) -> None:
        epoch = int(row["epoch"])
        rate = rates.get(epoch)
        figures = {name: value for name, value in row.items() if name != "epoch"}
        wall_time = time.time()
        if rate is not None:
            figures["images_per_s"] = float(rate["images_per_s"])
            wall_time = datetime.fromisoformat(rate["ended"]).timestamp()
        v1 = import_tensorflow().compat.v1
        values = [
            v1.Summary.Value(tag=name, simple_value=value)
            for name, value in figures.items()
        ]
        summary = v1.Summary(value=values)
        self._write(step=epoch, summary=summary, wall_time=wall_time)

    def _read_rates(self) -> dict[int, dict[str, str]]:
        """Read the times of epochs; of one that was trained twice the last."""
        if not self._run.rates.exists():
            return {}
        with self._run.rates.open(encoding="utf-8", newline="") as stream:
            return {int(row["epoch"]): row for row in csv.DictReader(stream)}

    def _write(self, *, wall_time: float | None = None, **fields: Any) -> None:
        event = import_tensorflow().compat.v1.Event(
            wall_time=wall_time or time.time(), **fields
        )
        self._writer.write(event.SerializeToString())

    @contextlib.contextmanager
    def _naming_full_disk(self) -> Iterator[None]:
        """Raise what other files raise; the same error means memory elsewhere."""
        exhausted = import_tensorflow().errors.ResourceExhaustedError
        try:
            yield
        except exhausted as error:
            # Half a record may be there, behind which nothing is read.
            self.close()
            raise OSError(
                errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._run.tensorboard)
            ) from error

    def close(self) -> None:
        """End the file."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(import_tensorflow().errors.OpError):
                writer.close()
