"""The YAML that configurations are written in: safe, and free of two surprises."""

import re
from collections.abc import Hashable
from typing import Any

import yaml

from nucleiseg.errors import ConfigError


class Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-4 is a number and a key may stand only once."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Construct a mapping, refusing a key that stands twice."""
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if not isinstance(key, Hashable):
                continue  # refused by PyYAML itself, with its place
            if key in seen:
                line = key_node.start_mark.line + 1
                raise ConfigError(
                    f"key '{key}' stands twice, the second time in line {line}; keep "
                    "one"
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


class Dumper(yaml.SafeDumper):
    """Writes what :class:`Loader` reads back as the same value."""


# YAML 1.1 reads 1e-4 as text, since it wants a dot: every learning rate would fail.
# The dumper must know it too, or it would not quote a dataset that is called 1e5.
for _dialect in (Loader, Dumper):
    _dialect.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$"),
        list("-+.0123456789"),
    )
    # First match wins, and the pattern above also matches whole numbers.
    for _first in "-+0123456789":
        _dialect.yaml_implicit_resolvers[_first].sort(
            key=lambda pair: "float" in pair[0]
        )


def load(text: str) -> Any:
    """Read a value; raises `yaml.YAMLError` or ConfigError."""
    # Loader is safe: it makes plain values only.
    return yaml.load(text, Loader=Loader)


def dump(value: Any) -> str:
    """Write a value so that :func:`load` gives it back."""
    return yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True)
