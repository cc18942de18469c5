"""The coordinator's process: ``python -m nucleiseg.counting RUN``."""

import logging
import os
import stat
import sys
import threading
from pathlib import Path

from nucleiseg.counting.coordinate import coordinate
from nucleiseg.errors import IncompleteError, NucleisegError, StoppedError


def main() -> int:
    """Coordinate; 0: done or to be gone on with, 2: cannot start, 3: incomplete.

    1 is Python's own: a crash, after which the job's leader starts it again.
    """
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s coordinator: %(message)s"
    )
    logger = logging.getLogger(__name__)
    if stat.S_ISFIFO(os.fstat(0).st_mode):
        threading.Thread(target=_end_with_leader, daemon=True).start()
    try:
        merged = coordinate(Path(sys.argv[1])).merged
    except StoppedError:
        return 0
    except IncompleteError as error:
        logger.error("%s", error)
        return 3
    except NucleisegError as error:
        logger.error("%s", error)
        return 2
    logger.info(
        "%s: %d nuclei in %d images, %d failed",
        merged.path,
        merged.n_nuclei,
        merged.n_images,
        merged.n_failed,
    )
    return 0


def _end_with_leader() -> None:
    """End when the leader is killed, whose end of the pipe is then closed.

    Otherwise there would be two coordinators as soon as the job is requeued: not all
    sites kill what a killed process has started.
    """
    while os.read(0, 1024):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
