"""The archive that is counted when a training is done (notebook steps N8 to N10)."""

from pathlib import Path

from nucleiseg.archives import find_images, split_name
from nucleiseg.config import Config
from nucleiseg.errors import ArchiveError


def find_test_input(config: Config) -> str | None:
    """Find the archive to count after a training (notebook steps N8 to N10).

    Returns
    -------
    str or None
        ``ARCHIVE[:KEY]``, with a relative path completed by the folder of
        `data.archive`; None where none is configured.

    Raises
    ------
    ArchiveError
        It cannot be read: better now than after hours of training.
    """
    if config.data.test_archive is None or config.data.archive is None:
        return None
    path, key = split_name(config.data.test_archive)
    beside = Path(config.data.archive).parent / config.data.test_archive
    if not path.is_absolute():
        path, key = split_name(str(beside))
    try:
        find_images(path, key)
    except ArchiveError as error:
        raise ArchiveError(
            f"{error} (data.test_archive, to be counted after the training; set it to "
            "null to train only)"
        ) from error
    return str(path) if key is None else f"{path}:{key}"
