"""Images that are far larger than memory, block by block."""

import numpy as np
from numpy.typing import NDArray

from nucleiseg.archives import Reader
from nucleiseg.config import InstancesConfig, PreprocessConfig
from nucleiseg.errors import ArchiveError
from nucleiseg.inference.facts import ImageFacts, find_facts
from nucleiseg.inference.network import TiledNetwork
from nucleiseg.instances import measure_nuclei, summarise_block
from nucleiseg.labels import encode
from nucleiseg.preprocess import scale
from nucleiseg.runs import CountRun
from nucleiseg.shards import Entry, Plan
from nucleiseg.tables import BlockRow
from nucleiseg.tiling import Block


class BlockCounter:
    """Predicts blocks of a run's large images, and labels them.

    Parameters
    ----------
    run : CountRun
    plan : Plan
    network : TiledNetwork
    preprocess : PreprocessConfig
        The model's.
    instances : InstancesConfig
        The plan's.
    """

    def __init__(
        self,
        run: CountRun,
        plan: Plan,
        network: TiledNetwork,
        preprocess: PreprocessConfig,
        instances: InstancesConfig,
    ) -> None:
        self._run = run
        self._plan = plan
        self._network = network
        self._preprocess = preprocess
        self._instances = instances

    def count(self, shard: Entry, reader: Reader) -> BlockRow:
        """Count a block of an image.

        Raises
        ------
        ArchiveError
            Its pixels cannot be read, the image cannot be normalised, or the network's
            output is not finite.
        """
        archive = self._plan.archives[shard.archive]
        facts = find_facts(self._run, archive, shard, reader, self._preprocess)
        try:
            return self._summarise(shard, reader, facts)
        except ValueError as error:
            if str(error) != "not finite":
                raise
            raise ArchiveError(self._network.not_finite) from error

    def _summarise(self, shard: Entry, reader: Reader, facts: ImageFacts) -> BlockRow:
        assert shard.block is not None
        if facts.value_range is None:
            raise ArchiveError(str(facts.reason))
        block = self._network.tiling(shard.image_shape).block_of(shard.block.core)
        rows, columns = block.region
        pixels = reader.read_region(
            shard.start, (rows.start, rows.stop), (columns.start, columns.stop)
        )
        maps = self._predict(block, scale(pixels, facts.value_range))
        core = tuple(
            slice(side.start - start.start, side.stop - start.start)
            for side, start in zip(block.core, block.region, strict=True)
        )
        out = None
        if self._plan.has_labels:
            out = np.empty(pixels[core].shape, dtype=np.int32)
        summary = summarise_block(
            pixels[core],
            maps,
            block.core,
            shard.image_shape,
            self._instances,
            limit=facts.limit,
            calibration=self._plan.calibration,
            out=out,
        ).to_bytes()
        if out is None:
            return BlockRow(summary)
        nuclei = measure_nuclei(
            maps,
            out,
            core=block.core,
            image_shape=shard.image_shape,
            calibration=self._plan.calibration,
        )
        return BlockRow(summary, labels=encode(out), nuclei=nuclei.to_bytes() or None)

    def _predict(
        self, block: Block, values: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        tiles = np.stack(block.split(values))
        # What is not needed any more need not stay beside the larger outputs.
        del values
        outputs = list(self._network.predict_tiles(tiles))
        del tiles
        return block.join(outputs)
