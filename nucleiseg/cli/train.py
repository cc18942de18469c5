"""``nucleiseg train``."""

import argparse
import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator

from nucleiseg.atomic import create_private
from nucleiseg.cli.exit_status import DONE
from nucleiseg.cli.main import log_file
from nucleiseg.cli.site import load_settings, print_submitted, print_texts
from nucleiseg.config import Config
from nucleiseg.counting import find_test_input, prepare
from nucleiseg.devices import n_gpus
from nucleiseg.errors import ArchiveError, ConfigError
from nucleiseg.launching import (
    preview_training,
    refuse_while_active,
    submit_training,
)
from nucleiseg.runs import TrainRun
from nucleiseg.shards import read_plan
from nucleiseg.training import TrainResult, preview, resolve_start, train

logger = logging.getLogger(__name__)


def run(options: argparse.Namespace) -> int:
    """Train, and count the test archive where one is configured."""
    shorthands = []
    if options.start_from is not None:
        shorthands.append(f"training.start_from={options.start_from}")
    config = resolve_start(load_settings(options, options.config, shorthands))
    if options.dry_run:
        _print_preview(config)
        if options.cluster == "slurm":
            print_texts(preview_training(config, options.run))
        return DONE
    if options.run is None:
        raise ConfigError(
            "train needs --run DIR, the folder for checkpoints and model (or --dry-run)"
        )
    test_input = find_test_input(config)
    if options.cluster is not None:
        print_submitted(submit_training(config, options.run, options.cluster))
        return DONE
    # The job of a cluster runs this very command.
    if "SLURM_JOB_ID" not in os.environ and "SUBMITIT_EXECUTOR" not in os.environ:
        refuse_while_active(TrainRun(options.run).jobs)
    create_private(options.run)
    with log_file(options.run / "logs" / "train.log"), _stop_requests() as must_stop:
        result = train(config, options.run, must_stop=must_stop)
    _print_result(result)
    if test_input is None:
        return DONE
    return _count_test(config, result.run, test_input)


@contextlib.contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """Take signals as the wish that training stop after this step.

    USR1 comes from a job's leader, USR2 from SLURM before the time limit, TERM from
    whoever wants the device back: often twice, from SLURM and from the leader.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    numbers = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)
    before = [
        signal.signal(number, lambda received, _: asked.append(received))
        for number in numbers
    ]
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _count_test(config: Config, training: TrainRun, test_input: str) -> int:
    from nucleiseg.cli.count import count_and_report

    folder = training.test.root
    # A GPU is still held by this process, which trained on it.
    workers = 0 if n_gpus() else None
    prepared = prepare(
        [test_input], training.bundle.root, config, folder=folder, workers=workers
    )
    _move_outdated(training, prepared.plan.identity)
    return count_and_report(
        [test_input],
        model=training.bundle.root,
        folder=folder,
        config=config,
        workers=workers,
    )


def _move_outdated(training: TrainRun, plan: str) -> None:
    """Move the count of an earlier model of this training aside."""
    test = training.test
    if not test.plan.exists() or read_plan(test.plan).identity == plan:
        return
    number = 1
    while (aside := test.root.with_name(f"test-before-{number}")).exists():
        number += 1
    test.root.rename(aside)
    logger.info("the counts of the model before are now in %s", aside)


def _print_preview(config: Config) -> None:
    seen = preview(config)
    print(seen.layers)
    print(f"network      {seen.n_parameters:,} parameters")
    print(
        f"split        {seen.n_training}/{seen.n_validation} images for "
        "training/validation"
    )
    training = config.training
    print(
        f"training     {training.epochs} epochs in batches of {training.batch_size}, "
        f"{training.optimizer} with learning rate {training.learning_rate:g}"
    )
    try:
        test_input = find_test_input(config)
    except ArchiveError as error:
        test_input = f"would be refused: {error}"
    if test_input:
        print(f"then counts  {test_input}")


def _print_result(result: TrainResult) -> None:
    if result.already_finished:
        print(f"finished before, after {result.history.epochs} epochs: nothing is done")
    scores = result.scores["validation"]
    root = result.run.root
    print(f"model        {result.run.bundle.root}")
    print(f"history      {result.run.history}, {root / 'loss.png'}")
    print(
        f"validation   {scores['predicted_total']:,} nuclei counted of "
        f"{scores['true_total']:,} in {scores['n_images']:,} images"
        + _as_percent(", count error", scores["count_error"])
    )


def _as_percent(label: str, share: float | None) -> str:
    return "" if share is None else f"{label} {100 * share:.1f} %"
