"""Count nuclei in large microscopy archives with a U-Net.

The package imports nothing heavy: TensorFlow, dask and matplotlib are loaded by
the functions that need them, so that ``nucleiseg --help`` answers at once.
"""

__version__ = "0.1.0"
