"""How images of any size become tiles of one shape, and their outputs images again."""

from nucleiseg.tiling.block import Block, Tile
from nucleiseg.tiling.tiling import Tiling

__all__ = ["Block", "Tile", "Tiling"]
