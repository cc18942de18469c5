"""Measure: ``python -m jobs.benchmark COMMAND ...``, here or on a cluster."""

import argparse
import importlib
import signal
import sys

from jobs.benchmark import cluster_options
from nucleiseg.errors import NucleisegError

# Each is a module of this package, imported only when it is asked for, with
# `add_arguments(parser)` and `run(options)`, which returns the exit status.
_BENCHMARKS = {
    "agreement": "the same images whole, in tiles, in other dtypes and by segment",
    "count": "images a second beside the notebook's way and the bare network",
    "ceiling": "images a second of all but the network: how fast a device pays",
    "cluster": "what coordinating costs: shards that hold no work",
    "figure": "one crowded field, the notebook's result and ours, errors marked",
    "flags": "how often flags are raised, on real images as they are and spoilt",
    "input": "training crops a second and a core, and peak memory for more images",
    "labelling": "core time of labelling beside that of the network",
    "ladder": "each part of ours switched on in turn: what it gives and costs",
    "memory": "peak memory of a worker, for small and for large archives",
    "plan-merge": "what a million images cost beside their pixels: plan, status, merge",
    "precision": "counts in one precision against those in another",
    "resume": "kill trainings at random instants, and compare what they end with",
    "rivals": "StarDist, the notebook's way and ours after the same core-minutes",
    "scale": "images a second of one worker and of several",
    "scales": "counts and AP of images reduced and enlarged, rescaled or not",
    "read": "np.load, the pass over a member, a seek, and reading forwards",
    "train": "images a second beside model.fit and the bare compiled step",
    "storm": "interrupt counts on a real SLURM at random, and compare their tables",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one benchmark, and return its exit status; 2: it could not start."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmark", description=__doc__, allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="benchmark", required=True)
    module = None
    for name, description in _BENCHMARKS.items():
        command = commands.add_parser(name, help=description, description=description)
        if name in arguments[:1]:
            module = importlib.import_module(f"jobs.benchmark.{name.replace('-', '_')}")
            module.add_arguments(command)
            cluster_options.add_arguments(command)
    options = parser.parse_args(arguments)
    assert module is not None
    if options.submit or options.dry_run:
        from jobs.benchmark import submission

        return submission.send(options, arguments)
    # Daemons and workers must be taken down when a time limit ends this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return int(module.run(options))
    except NucleisegError as error:
        print(f"jobs.benchmark: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
