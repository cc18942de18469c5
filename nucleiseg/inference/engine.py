"""A worker's network, and shards that go through it."""

import contextlib
import dataclasses
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nucleiseg.archives import Reader
from nucleiseg.atomic import read_json
from nucleiseg.attempts import Attempts
from nucleiseg.bundle import read_bundle
from nucleiseg.config import InstancesConfig, load_config
from nucleiseg.errors import ArchiveError
from nucleiseg.inference.large import BlockCounter
from nucleiseg.inference.notes import count_failed, noting_failures
from nucleiseg.inference.one_image import label_maps, predict_maps
from nucleiseg.inference.outages import refuse_outage
from nucleiseg.inference.parts import Parts
from nucleiseg.inference.scales import Scales
from nucleiseg.inference.setting_up import load, refuse_other_model
from nucleiseg.inference.sources import Sources
from nucleiseg.inference.streaming import Stream
from nucleiseg.inference.times import StageTimes
from nucleiseg.memory import Returns
from nucleiseg.runs import CountRun
from nucleiseg.shards import DatasetShare, Entry, read_plan
from nucleiseg.tables import (
    BlockRow,
    ImageRow,
    read_partial,
    tabulate,
    write_block_partial,
    write_partial,
)

# Freed memory is given back after so many pixels: a block, or shards of small images.
_RETURN_PIXELS = 2**23


@dataclass(frozen=True)
class ShardResult:
    """What a worker says of a finished shard."""

    shard: int
    n_images: int
    n_failed: int
    seconds: float
    already_there: bool
    times: StageTimes | None = None
    """Where the time went; None where it was there already."""


class Engine:
    """Computes shards of one run.

    Parameters
    ----------
    run : CountRun
        A planned run.
    n_threads : int
        Cores this worker may keep busy.
    """

    def __init__(self, run: CountRun, *, n_threads: int) -> None:
        self.run = run
        self.plan = read_plan(run.plan)
        self.config = load_config(run.config)
        # OpenCV would start as many threads as the node has cores, in each worker.
        cv2.setNumThreads(1)
        # What binds is read from the plan, which partial tables are stamped with.
        self._instances = InstancesConfig.model_validate(
            self.plan.settings["instances"]
        )
        model = read_bundle(read_json(run.manifest)["model"])
        refuse_other_model(run, self.plan, model)
        self._preprocess = model.preprocess
        self.compute, self._network = load(
            run, self.plan, self.config, model, n_threads=n_threads
        )
        self._stream = Stream(
            self._network,
            model.preprocess,
            self._instances,
            n_threads=n_threads,
            labels=self.plan.has_labels,
            calibration=self.plan.calibration,
        )
        self._blocks = BlockCounter(
            run, self.plan, self._network, model.preprocess, self._instances
        )
        self._sources = Sources(run, self.plan, self.config, n_threads=n_threads)
        self._scales = Scales(
            run,
            self.plan,
            model.preprocess,
            self._instances,
            compute=self.compute.identity,
            open_dataset=self._open_dataset,
            predict=self._network.predict_tiles,
        )
        self._attempts = Attempts(run)
        self._worker = os.environ.get("NUCLEISEG_WORKER") or socket.gethostname()
        # Of the parts of the shard at hand.
        self._times: list[StageTimes] = []
        self._returns = Returns(_RETURN_PIXELS)

    def compute_shard(self, number: int) -> ShardResult:
        """Compute one shard's partial table, unless it is there.

        Raises
        ------
        RunError
            A partial table is there and does not belong to this run.
        """
        shard = self.plan.shards[number]
        result = self._compute_shard(number, shard)
        if not result.already_there:
            self._returns.add(shard.n_pixels)
        return result

    def _compute_shard(self, number: int, shard: Entry) -> ShardResult:
        start_s = time.monotonic()
        self._times.clear()
        there = read_partial(self.run, self.plan, shard, compute=self.compute.identity)
        if there is not None:
            return ShardResult(number, shard.n_images, count_failed(there), 0.0, True)
        # Before any attempt: a pass that kills its worker is no image's fault, and
        # images that are looked at for the scale are others.
        with contextlib.suppress(ArchiveError):
            self._sources.open(shard)
            self._scales.find(shard)
        if shard.block is not None:
            return self._compute_block(number, shard)
        table = self._compute_all(number, shard)
        n_failed = count_failed(table)
        with noting_failures(self.run, self.plan, shard, n_failed):
            write_partial(
                self.run, self.plan, shard, table, compute=self.compute.identity
            )
        self._attempts.clear(number)
        times = StageTimes()
        for part in self._times:
            times.add(part)
        return ShardResult(
            number, shard.n_images, n_failed, time.monotonic() - start_s, False, times
        )

    def _compute_block(self, number: int, shard: Entry) -> ShardResult:
        """Compute a block of a large image; where one fails, its image does."""
        times = StageTimes(n_images=shard.n_new_images)
        with times.running():
            reason = self._attempts.history(number).verdict(shard.start)
            row = BlockRow(None, reason)
            if reason is None:
                whole = (shard.start, shard.stop)
                with self._attempts.attempt(number, whole, worker=self._worker):
                    try:
                        row = self._blocks.count(shard, self._sources.open(shard))
                    except ArchiveError as error:
                        refuse_outage(error)
                        row = BlockRow(None, error.reason)
            is_failed = row.reason is not None
            with noting_failures(self.run, self.plan, shard, int(is_failed)):
                write_block_partial(
                    self.run, self.plan, shard, row, compute=self.compute.identity
                )
            self._attempts.clear(number)
        n_failed = int(is_failed and shard.is_first_block)
        return ShardResult(
            number, shard.n_new_images, n_failed, times.wall_s, False, times
        )

    def _compute_all(self, number: int, shard: Entry) -> pa.Table:
        """Compute a shard, whole or, where it killed or is known in part, in parts."""

        def compute_rows(start: int, stop: int) -> list[ImageRow]:
            part = dataclasses.replace(shard, start=start, stop=stop)
            return list(self._compute_rows(part))

        if self._attempts.history(number).is_clean() and not self._attempts.rows_files(
            number
        ):
            whole = (shard.start, shard.stop)
            with self._attempts.attempt(number, whole, worker=self._worker):
                return tabulate(self._compute_rows(shard), self.plan)
        parts = Parts(self.run, self.plan, self.compute.identity, self._worker)
        return tabulate(parts.compute_shard(shard, compute_rows), self.plan)

    def predict_image(
        self, shard: Entry, pixels: NDArray[Any]
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Predict and label an image of a shard, as within it.

        Returns
        -------
        maps : (H, W, C) float32 ndarray, in [0, 1]
        labels : (H, W) int32 ndarray
        """
        return label_maps(self._predict(shard, pixels), pixels.shape, self._instances)

    def predict_maps(self, share: DatasetShare, index: int) -> NDArray[np.float32]:
        """Predict an image of a dataset, at the scale that the network sees it at.

        Returns
        -------
        (h, w, C) float32 ndarray, in [0, 1]
            Not of the image's size where it is enlarged or reduced.

        Raises
        ------
        ArchiveError
            The image cannot be read or normalised, or the output is not finite.
        """
        pixels = self._sources.open(share).read(index, index + 1)[0]
        return self._predict(share, pixels)

    def _predict(
        self, source: Entry | DatasetShare, pixels: NDArray[Any]
    ) -> NDArray[np.float32]:
        scale = self._scales.find(source)
        return predict_maps(self._network, pixels, self._preprocess, scale=scale)

    def open_source(self, shard: Entry) -> Reader:
        """Open a reader of a shard's dataset, to be closed by the caller.

        Raises
        ------
        ArchiveError, IncompleteError
            See :meth:`Sources.open`.
        """
        return self._open_dataset(shard.archive, str(shard.dataset))

    def _open_dataset(self, archive: int, dataset: str) -> Reader:
        return self._sources.open_anew(self.plan.archives[archive], dataset)

    def _compute_rows(self, shard: Entry) -> Iterator[ImageRow]:
        try:
            reader = self._sources.open(shard)
        except ArchiveError as error:
            for index in range(shard.start, shard.stop):
                yield ImageRow(index, None, error.reason)
            return
        times = StageTimes(n_images=shard.n_images)
        self._times.append(times)
        scale = self._scales.find(shard)
        yield from self._stream.count(shard, reader, times, scale=scale)
        if shard.stop == reader.info.n_images:
            self._sources.close()

    def close(self) -> None:
        """Close the archive that is open."""
        self._sources.close()
