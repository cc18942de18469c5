"""Options that send a run to a cluster."""

import argparse
from pathlib import Path

from nucleiseg.config import Config, load_config
from nucleiseg.errors import ConfigError
from nucleiseg.launching import Submitted, for_cluster
from nucleiseg.runs import CountRun


def load_settings(
    options: argparse.Namespace, path: Path | None, shorthands: list[str] | None = None
) -> Config:
    """Load the configuration that the options of a command name."""
    if options.site is not None and options.cluster is None:
        raise ConfigError("--site describes a cluster; add --cluster slurm")
    config = load_config(
        path, [*options.overrides, *(shorthands or [])], site=_find_site(options.site)
    )
    return config if options.cluster is None else for_cluster(config)


def load_settings_of_run(options: argparse.Namespace, run: CountRun) -> Config:
    """Load the configuration a run was made with, and what may change on top.

    Its file holds every value, so that a site's profile must replace the section.
    """
    if options.site is not None and options.cluster is None:
        raise ConfigError("--site describes a cluster; add --cluster slurm")
    config = load_config(run.config, options.overrides)
    site = _find_site(options.site)
    if site is None:
        return config
    own = [text for text in options.overrides if text.startswith("cluster.")]
    return config.model_copy(
        update={"cluster": load_config(None, own, site=site).cluster}
    )


def _find_site(name: str | None) -> Path | None:
    if name is None:
        return None
    candidates = [Path(name), Path("configs") / f"cluster-{name}.yaml"]
    for path in candidates:
        if path.is_file():
            return path
    raise ConfigError(
        f"--site {name}: neither {candidates[0]} nor {candidates[1]} is a file; name a "
        "YAML file with a cluster section"
    )


def print_submitted(submitted: Submitted) -> None:
    """Print what was sent off, and how to see what becomes of it."""
    for submission in submitted.submissions:
        what = f" ({submission.n_jobs} jobs)" if submission.n_jobs > 1 else ""
        print(f"{submission.role:<12} job {submission.job_id}{what}")
    print(f"status       nucleiseg status {quote(submitted.root)}")
    print(f"cancel       nucleiseg cancel {quote(submitted.root)}")


def print_texts(texts: list[str]) -> None:
    """Print what sbatch would get."""
    for text in texts:
        print()
        print(text.rstrip())


def quote(path: Path) -> str:
    """Write a path as a shell takes it."""
    import shlex

    return shlex.quote(str(path))
