"""Imports point down, heavy libraries stay where they are used, --help stays light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import nucleiseg

PACKAGE = Path(nucleiseg.__file__).parent

# A module may import those of smaller numbers only; a folder is one module.
LAYERS = {
    "errors": 0,
    "config": 1,
    "box": 1,
    "atomic": 1,
    "memory": 1,
    "runs": 1,
    "quality": 1,
    "loading": 1,
    "progress": 1,
    "provenance": 1,
    "archives": 2,
    "preprocess": 2,
    "augmentation": 2,
    "tiling": 2,
    "instances": 2,
    "labels": 2,
    "metrics": 2,
    "synthetic": 2,
    "attempts": 2,
    "bundle": 2,
    "devices": 2,
    "model": 3,
    "shards": 3,
    "dataset": 3,
    "report": 3,
    "inspection": 4,
    "tables": 4,
    "inference": 5,
    "evaluation": 5,
    "training": 5,
    "cluster": 6,
    "counting": 7,
    "doctor": 8,
    "launching": 8,
    "tuning": 8,
    "monitoring": 8,
    "cli": 9,
    "__main__": 10,
}

TENSORFLOW_USERS = {"model", "devices", "dataset", "training", "inference"}
ALLOWED_USERS = {
    "tensorflow": TENSORFLOW_USERS,
    "keras": TENSORFLOW_USERS,
    "dask": {"cluster"},
    "distributed": {"cluster"},
    "submitit": {"cluster"},
    "matplotlib": {"report"},
    "jobs": set(),
    "tests": set(),
}

# Subclasses dask's classes, so that importing it imports dask.
HEAVY_MODULE = "nucleiseg.cluster.processes"


def read_sources():
    """Read all sources, by path from the package on."""
    return {
        str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8")
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def find_early_importers(sources, module):
    """List sources that import a module as soon as they are imported themselves."""
    return [
        path
        for path, source in sources.items()
        for _, name in find_imports(path, source, late=False)
        if name == module or name.startswith(f"{module}.")
    ]


def walk(node: ast.AST, *, late: bool) -> Iterator[ast.AST]:
    """Walk a source; not `late`: only through what runs when it is imported."""
    for child in ast.iter_child_nodes(node):
        if not late and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if not late and is_for_type_checkers(child):
            continue
        yield child
        yield from walk(child, late=late)


def is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def find_imports(
    path: str, source: str, *, late: bool = True
) -> Iterator[tuple[int, str]]:
    """Find line and full name of what a source imports: wherever in it, if `late`."""
    folder = ["nucleiseg", *Path(path).parent.parts]
    for node in walk(ast.parse(source), late=late):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            start = folder[: len(folder) - node.level + 1] if node.level else []
            base = [*start, *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                yield node.lineno, ".".join([*base, alias.name])
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith(("import_module", "__import__"))
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield node.lineno, node.args[0].value


def find_violations(sources):
    """List imports that go up or sideways, and libraries in the wrong place."""
    return [
        f"nucleiseg/{path}:{line} {problem}"
        for path, source in sources.items()
        for line, name in find_imports(path, source)
        if (problem := find_problem(get_module(path), name))
    ]


def get_module(path: str) -> str:
    return Path(path).parts[0].removesuffix(".py")


def find_problem(importer: str, name: str) -> str | None:
    top, _, rest = name.partition(".")
    if top != "nucleiseg":
        if importer in ALLOWED_USERS.get(top, {importer}):
            return None
        return f"imports {top}, which {importer} may not"
    imported = rest.partition(".")[0]
    # The package itself holds the version only.
    if imported in ("", "__version__", importer):
        return None
    if importer == "__init__":
        return f"imports {imported} into the package itself"
    if imported not in LAYERS:
        return f"imports {imported}, which has no layer: give it one in LAYERS"
    if LAYERS[imported] < LAYERS.get(importer, -1):
        return None
    return (
        f"imports {imported} (layer {LAYERS[imported]}) into {importer} "
        f"(layer {LAYERS.get(importer, 'missing')})"
    )


class TestSources:
    def test_imports_point_down(self):
        assert find_violations(read_sources()) == []

    def test_every_module_has_a_layer(self):
        modules = {get_module(path) for path in read_sources()} - {"__init__"}
        assert modules == set(LAYERS)

    def test_something_was_read(self):
        imports = [
            name
            for path, source in read_sources().items()
            for _, name in find_imports(path, source)
        ]
        # Of every kind: at the head, in a function, in a string.
        assert "nucleiseg.archives.find_images" in imports
        assert "keras" in imports
        assert "tensorflow" in imports

    def test_heavy_module_is_imported_in_functions_only(self):
        sources = read_sources()
        assert find_early_importers(sources, HEAVY_MODULE) == []
        # In functions, it is: the test looks for the right name.
        imports = [n for p, s in sources.items() for _, n in find_imports(p, s)]
        assert f"{HEAVY_MODULE}.WatchingNanny" in imports

    def test_package_itself_imports_nothing_of_its_own(self):
        source = (PACKAGE / "__init__.py").read_text(encoding="utf-8")
        names = [name for _, name in find_imports("__init__.py", source)]
        assert not [name for name in names if name.startswith("nucleiseg")]


class TestChecker:
    """It sees what it should: each of these sources would fail the test above."""

    @pytest.mark.parametrize(
        ("path", "source"),
        [
            # Upwards, in every way of writing it.
            ("runs.py", "from nucleiseg.tables import merge"),
            ("runs.py", "from nucleiseg import tables"),
            ("runs.py", "import nucleiseg.tables"),
            ("runs.py", "import nucleiseg.tables as t, os"),
            ("runs.py", "from . import tables"),
            ("runs.py", "from .tables import merge"),
            ("archives/npz.py", "from ..tables import merge"),
            ("archives/npz.py", "from .. import tables"),
            ("runs.py", "def f():\n    from nucleiseg.tables import merge"),
            ("runs.py", "if TYPE_CHECKING:\n    from nucleiseg.tables import merge"),
            ("runs.py", "import importlib\nimportlib.import_module('nucleiseg.cli')"),
            ("cluster.py", "from nucleiseg.__main__ import main"),
            # Within a layer.
            ("runs.py", "from nucleiseg.config import Config"),
            ("metrics/counts.py", "from nucleiseg.instances import label_nuclei"),
            # Without a layer.
            ("runs.py", "from nucleiseg.utils import anything"),
            ("utils.py", "from nucleiseg.errors import RunError"),
            ("__init__.py", "from nucleiseg.config import Config"),
            # Libraries.
            ("metrics/counts.py", "import tensorflow as tf"),
            ("counting.py", "from keras import ops"),
            ("counting.py", "import importlib\nimportlib.import_module('tensorflow')"),
            ("inference/engine.py", "def f():\n    from distributed import Client"),
            ("inspection.py", "import matplotlib.pyplot as plt"),
            ("cli/count.py", "from jobs import count"),
            ("cli/count.py", "import jobs.count"),
        ],
    )
    def test_refuses(self, path, source):
        (violation,) = find_violations({path: source})
        assert violation.startswith(f"nucleiseg/{path}:")

    @pytest.mark.parametrize(
        ("path", "source"),
        [
            ("tables.py", "from nucleiseg.atomic import atomic_path"),
            ("bundle.py", "from nucleiseg import __version__"),
            ("provenance.py", "import nucleiseg"),
            ("archives/npz.py", "from nucleiseg.archives.reader import Reader"),
            ("archives/npz.py", "from .reader import Reader"),
            ("archives/npz.py", "from ..errors import ArchiveError"),
            ("cli/count.py", "from nucleiseg.counting import count"),
            ("training/fit.py", "def f():\n    import keras"),
            ("cluster.py", "def f():\n    from distributed import Client"),
            ("runs.py", "import json, numpy.typing"),
            # Words are no imports.
            ("runs.py", "'''import tensorflow'''"),
        ],
    )
    def test_lets_pass(self, path, source):
        assert find_violations({path: source}) == []

    @pytest.mark.parametrize(
        "source",
        [
            "from nucleiseg.cluster.processes import drain",
            "from nucleiseg.cluster import processes",
            "import nucleiseg.cluster.processes",
            "from .processes import drain",
            "from . import processes",
            "try:\n    from .processes import drain\nexcept ImportError:\n    pass",
            "if sys.platform:\n    from .processes import drain",
            "class A:\n    from .processes import drain",
            "import importlib\nimportlib.import_module('nucleiseg.cluster.processes')",
        ],
    )
    def test_sees_early_imports(self, source):
        sources = {"cluster/crew.py": source}
        assert find_early_importers(sources, HEAVY_MODULE) == ["cluster/crew.py"]

    @pytest.mark.parametrize(
        "source",
        [
            "def f():\n    from nucleiseg.cluster.processes import drain",
            "async def f():\n    from .processes import drain",
            "class A:\n    def f(self):\n        from . import processes",
            "if TYPE_CHECKING:\n    from .processes import WatchingNanny",
            "from .processes_of_others import drain",
        ],
    )
    def test_sees_no_late_imports(self, source):
        assert find_early_importers({"cluster/crew.py": source}, HEAVY_MODULE) == []


HEAVY = (
    "tensorflow",
    "keras",
    "dask",
    "distributed",
    "matplotlib",
    "pandas",
    "sklearn",
    "submitit",
)


def find_heavy_modules(program):
    """Run a program in a fresh interpreter; return its output and what it loaded."""
    check = (
        "import sys\n"
        "try:\n"
        f"    {program}\n"
        "except SystemExit as stop:\n"
        "    assert not stop.code, stop.code\n"
        f"print('loaded:', *[name for name in {HEAVY} if name in sys.modules])\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    output, _, loaded = answer.stdout.rpartition("loaded:")
    return output, loaded.split()


def run_command(*arguments):
    return (
        f"import runpy; sys.argv[1:] = {list(arguments)}; "
        "runpy.run_module('nucleiseg', run_name='__main__')"
    )


class TestLoaded:
    def test_importing_everything_loads_nothing_heavy(self):
        modules = [
            ".".join(["nucleiseg", *Path(path).with_suffix("").parts])
            for path in read_sources()
            if Path(path).stem not in ("__init__", "__main__")
        ]
        modules.remove(HEAVY_MODULE)
        assert {"nucleiseg.cli.train", "nucleiseg.evaluation.scoring"} < {*modules}
        assert find_heavy_modules(f"import {', '.join(modules)}") == ("", [])

    @pytest.mark.parametrize(
        "command", [[], ["evaluate"], ["count"], ["segment"], ["train"], ["status"]]
    )
    def test_help_loads_nothing_heavy(self, command):
        output, loaded = find_heavy_modules(run_command(*command, "--help"))
        assert output.startswith(" ".join(["usage: nucleiseg", *command]))
        assert loaded == []

    def test_one_module_is_exempt(self):
        _, loaded = find_heavy_modules(f"import {HEAVY_MODULE}")
        assert {*loaded} == {"dask", "distributed"}

    def test_and_it_would_show(self):
        _, loaded = find_heavy_modules("import nucleiseg.cli, matplotlib")
        assert loaded == ["matplotlib"]
