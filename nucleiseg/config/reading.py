"""Configuration files and overrides, read strictly, with errors that help."""

import difflib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from nucleiseg.config import dialect
from nucleiseg.config.schema import Config
from nucleiseg.errors import ConfigError


def load_config(
    path: Path | None = None,
    overrides: Sequence[str] = (),
    *,
    site: Path | None = None,
) -> Config:
    """Read a configuration file and apply overrides.

    Parameters
    ----------
    path : Path or None
        YAML file; ``None`` starts from the defaults.
    overrides : sequence of str
        Each ``section.key=value``, the value written as in YAML; later ones win.
    site : Path or None
        YAML file of a site, which gives the values that `path` does not.

    Raises
    ------
    ConfigError
        A key is unknown, a value is not allowed, or the file cannot be read.
    """
    values = {} if path is None else _read_yaml(path)
    if site is not None:
        # On its own first, so that its faults are laid at its door.
        _validate(site_values := _read_yaml(site), str(site), ())
        values = _complete(values, site_values)
    overridden = {_apply_override(values, override) for override in overrides}
    return _validate(values, str(path), overridden)


def _validate(
    values: dict[str, Any], path: str, overridden: Collection[tuple[str, str]]
) -> Config:
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(error, path, overridden)) from error


def _complete(values: dict[str, Any], site: dict[str, Any]) -> dict[str, Any]:
    """Give the values of a site where there are none of the experiment."""
    sections = {**site, **values}
    for name, keys in site.items():
        if isinstance(own := sections[name], dict):
            sections[name] = {**keys, **own}
    return sections


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        near = _nearest(path.name, [p.name for p in path.parent.glob("*.y*ml")])
        raise ConfigError(f"configuration file {path} not found{near}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"configuration file {path} cannot be read: {error}"
        ) from error
    try:
        values = dialect.load(text)
    except ConfigError as error:
        raise ConfigError(f"configuration file {path}: {error}") from error
    except yaml.YAMLError as error:
        where = " ".join(str(error).split())
        raise ConfigError(f"configuration file {path} is not YAML: {where}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"configuration file {path} holds a {type(values).__name__}, not sections "
            "such as 'training:' with keys below them"
        )
    # A section whose keys are all commented out reads as None.
    return {key: {} if value is None else value for key, value in values.items()}


def _apply_override(values: dict[str, Any], override: str) -> tuple[str, str]:
    """Change one value; give its section and key."""
    name, equals, text = override.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and dot and section and key):
        homes = [
            f"{known}.{name.strip()}"
            for known, keys in _sections().items()
            if name.strip() in keys
        ]
        raise ConfigError(
            f"--set {override}: expected section.key=value, for example "
            f"{homes[0] + '=' + text if homes and equals else 'training.epochs=10'}"
        )
    try:
        value = dialect.load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: the value is not YAML") from error
    group = values.setdefault(section, {})
    if not isinstance(group, dict):
        raise ConfigError(f"--set {override}: {section} is {group!r}, not a section")
    group[key] = value
    return section, key


def _sections() -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for name, field in Config.model_fields.items():
        section = field.annotation
        assert isinstance(section, type)
        assert issubclass(section, BaseModel)
        names[name] = list(section.model_fields)
    return names


def _nearest(name: str, candidates: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, candidates, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def _explain(
    error: ValidationError, path: str, overridden: Collection[tuple[str, str]]
) -> str:
    """All faults of a configuration in one line, each with its source and remedy."""
    overridden_sections = {section for section, _ in overridden}
    words = []
    for fault in error.errors(include_url=False, include_context=True):
        location = fault["loc"]
        is_override = (
            location[:2] in overridden
            if len(location) > 1
            else location[0] in overridden_sections
        )
        words.append(f"{'--set' if is_override else path}: {_explain_one(fault)}")
    return "; ".join(words)


def _explain_one(fault: Any) -> str:
    location = [str(part) for part in fault["loc"]]
    key = ".".join(location)
    value = fault["input"]
    if fault["type"] == "extra_forbidden":
        return _explain_unknown(location, value)
    if fault["type"] in ("model_type", "model_attributes_type"):
        keys = ", ".join(_sections().get(location[0], []))
        return f"{key} = {value!r} is not a section; its keys are {keys}"
    if fault["type"] == "value_error":
        return f"{key}: {fault['ctx']['error']}"
    allowed = fault["msg"][0].lower() + fault["msg"][1:]
    return f"{key} = {value!r} is not allowed: {allowed}"


def _explain_unknown(location: list[str], value: object) -> str:
    sections = _sections()
    name = location[-1]
    if len(location) > 1:
        valid = sections.get(location[0], [])
        elsewhere = [f"{s}.{name}" for s, keys in sections.items() if name in keys]
        near = (
            f"; did you mean '{elsewhere[0]}'?" if elsewhere else _nearest(name, valid)
        )
        return (
            f"unknown key {'.'.join(location)} (value {value!r}){near}; "
            f"keys of {location[0]}: {', '.join(valid)}"
        )
    homes = [f"{s}.{name}" for s, keys in sections.items() if name in keys]
    near = f"; did you mean '{homes[0]}'?" if homes else _nearest(name, list(sections))
    return (
        f"unknown section {name} (value {value!r}){near}; sections: "
        f"{', '.join(sections)}"
    )
