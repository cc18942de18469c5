"""The model bundle: what a trained network needs to be used rightly elsewhere."""

from nucleiseg.bundle.reading import BundleInfo, file_sha256, read_bundle, write_info
from nucleiseg.bundle.resolving import resolve_for_counting, resolve_for_training
from nucleiseg.bundle.tuned import find_tuned, write_tuned

__all__ = [
    "BundleInfo",
    "file_sha256",
    "find_tuned",
    "read_bundle",
    "resolve_for_counting",
    "resolve_for_training",
    "write_info",
    "write_tuned",
]
