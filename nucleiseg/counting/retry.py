"""Counting again what failed, and nothing else."""

import logging
from dataclasses import dataclass

from nucleiseg.archives import forget_damage
from nucleiseg.atomic import read_json
from nucleiseg.attempts import Attempts
from nucleiseg.config import load_config
from nucleiseg.counting.journal import Journal
from nucleiseg.inference import find_index, forget_failed_facts, read_compute
from nucleiseg.runs import CountRun
from nucleiseg.shards import Plan
from nucleiseg.tables import read_rows, write_rows

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reset:
    """What will be counted again."""

    n_images: int
    """Images that had failed."""
    n_shards: int
    """Shards they are in, or that had killed their workers."""


def reset_failures(run: CountRun, plan: Plan) -> Reset:
    """Forget the failures of a run: its next start computes those images again.

    The rows of all other images are kept, and not computed again. A kill at any
    moment leaves each shard either as it was or forgotten.
    """
    index = find_index(run, load_config(run.config))
    for share in plan.dataset_shares:
        fingerprint = plan.archives[share.archive].fingerprint
        if fingerprint is not None:
            forget_damage(index, fingerprint, share.dataset)
    attempts = Attempts(run)
    n_images = 0
    touched = set()
    # Of large images: what a disk read wrong once it may read right the next time.
    forget_failed_facts(run)
    failed_whole = set()
    notes = sorted(run.failures.glob("[0-9]*.json"))
    if notes and run.compute.exists():
        compute = read_compute(run).identity
        for note in notes:
            number = int(note.stem)
            part = run.part(number)
            if not part.exists():
                # To be computed anyway; who does so replaces the note.
                continue
            shard = plan.shards[number]
            if shard.block is None:
                n_images += int(read_json(note)["n_failed"])
            else:
                failed_whole.add((shard.archive, shard.dataset, shard.start))
            rows = read_rows(part, plan, shard, compute=compute)
            kept = [row for row in rows.values() if row.summary is not None]
            path = attempts.rows_folder(number) / "rows-kept.parquet"
            write_rows(path, plan, shard, kept, compute=compute)
            # A worker that was killed at its end leaves them, and failures in them.
            for outdated in attempts.rows_files(number):
                if outdated != path:
                    outdated.unlink(missing_ok=True)
            part.unlink()
            touched.add(number)
            note.unlink()
    for folder in sorted(run.attempts.glob("[0-9]*")):
        number = int(folder.name)
        if attempts.n_deaths(number):
            attempts.clear_deaths(number)
            touched.add(number)
    if touched:
        Journal(run).write("stopped")
    return Reset(n_images + len(failed_whole), len(touched))
