"""Random changes of training crops: pure functions of pixels, settings and a generator.

Geometry and intensity are apart. What moves pixels (flips, turns, rotation, scale,
elastic) is composed into one map from the crop's pixels to the image's, so that pixels
are interpolated once, out of a region that is read as large as the map needs: nothing
of the crop's border is ever made up where the image has it. Labels take the same map,
by nearest neighbour. What changes values knows only the image.
"""

from nucleiseg.augmentation.geometry import Turn, Warp, draw_geometry, moves_pixels
from nucleiseg.augmentation.intensity import change_values, changes_values

__all__ = [
    "Turn",
    "Warp",
    "change_values",
    "changes_values",
    "draw_geometry",
    "moves_pixels",
]
