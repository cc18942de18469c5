"""One row of the plan: a shard, a block of a large image, or what cannot be read."""

from dataclasses import dataclass

from nucleiseg.shards.naming import escape_unprintable


@dataclass(frozen=True)
class Block:
    """The rectangle of a large image whose output a shard gives, in its pixels.

    The blocks of an image cover it once, row by row::

        +-----------+-----------+
        |     A     |     B     |
        +-----------+-----------+
        |     C     |     D     |
        +-----------+-----------+
    """

    top: int
    left: int
    bottom: int
    """First row behind it."""
    right: int
    """First column behind it."""

    @property
    def core(self) -> tuple[slice, slice]:
        """Rows and columns, to index an image with."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def __str__(self) -> str:
        return f"rows {self.top}:{self.bottom}, columns {self.left}:{self.right}"


@dataclass(frozen=True)
class Entry:
    """One row of the plan: a shard, or an input that cannot be read."""

    archive: int
    """Which of the plan's archives."""
    shard: int | None = None
    """Number of the shard, from 0; None for an unreadable input."""
    dataset: str | None = None
    start: int = 0
    stop: int = 0
    height: int = 0
    width: int = 0
    reason: str | None = None
    """Why the input cannot be read; None for a shard."""
    block: Block | None = None
    """Part of the image `start` that the shard covers; None: whole images. Blocks of
    one image follow each other in the plan."""

    @property
    def shown_dataset(self) -> str | None:
        """The dataset, as a table can hold it."""
        return None if self.dataset is None else escape_unprintable(self.dataset)

    @property
    def n_images(self) -> int:
        """Images in the range; 1 for each block of an image."""
        return self.stop - self.start

    @property
    def n_new_images(self) -> int:
        """Images that no shard before it has a part of: what sums must add up."""
        return self.n_images if self.block is None else int(self.is_first_block)

    @property
    def is_first_block(self) -> bool:
        """Whether it is the first block of a large image."""
        return self.block is not None and self.block.top == self.block.left == 0

    @property
    def n_pixels(self) -> int:
        """Pixels that it covers."""
        if self.block is None:
            return self.n_images * self.height * self.width
        block = self.block
        return (block.bottom - block.top) * (block.right - block.left)

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of each whole image."""
        return self.height, self.width
