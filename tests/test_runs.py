"""Paths of runs."""

import os
from pathlib import Path

import pytest

from nucleiseg.runs import NOTEBOOK_TABLE, CountRun, TrainRun


def list_paths(run):
    """List the paths of a run, and the folders of what it holds, by name."""
    names = [name for name, v in vars(type(run)).items() if isinstance(v, property)]
    values = {name: getattr(run, name) for name in names}
    return {n: v if isinstance(v, Path) else v.root for n, v in values.items()}


class TestPaths:
    @pytest.mark.parametrize(
        ("table_format", "name"),
        [
            ("csv", "counts.csv"),
            ("parquet", "counts.parquet"),
            ("notebook", "U-Net Project Results.csv"),
        ],
    )
    def test_table(self, tmp_path, table_format, name):
        assert CountRun(tmp_path).table(table_format) == tmp_path / name

    def test_notebook_table_is_named_as_in_the_notebook(self):
        assert NOTEBOOK_TABLE == "U-Net Project Results.csv"

    def test_parts_sort_by_shard(self, tmp_path):
        run = CountRun(tmp_path)
        parts = [run.part(shard) for shard in (0, 9, 10, 999_999)]
        assert parts == sorted(parts)
        assert {part.parent for part in parts} == {run.parts}
        assert parts[1].name == "000009.parquet"

    @pytest.mark.parametrize("kind", [CountRun, TrainRun])
    def test_no_two_paths_are_one(self, tmp_path, kind):
        run = kind(tmp_path)
        own = list_paths(run)
        of_jobs = list_paths(run.jobs)
        del own["jobs"]
        # Where jobs log, whatever started them.
        assert own.pop("logs", tmp_path / "logs") == of_jobs["logs"]
        paths = [*own.values(), *of_jobs.values()]
        assert len(set(paths)) == len(paths) > 8
        assert all(path.parent == tmp_path for path in paths)

    @pytest.mark.parametrize("table_format", ["csv", "parquet", "notebook"])
    def test_incomplete_table_says_so_in_its_name(self, tmp_path, table_format):
        run = CountRun(tmp_path)
        path = run.table(table_format, incomplete=True)
        assert path.name.partition(".")[2].startswith("partial.")
        assert path.suffix == run.table(table_format).suffix

    def test_the_table_is_that_written_last(self, tmp_path):
        run = CountRun(tmp_path)
        assert run.find_table() is None
        run.table("csv", incomplete=True).touch()
        run.table("parquet").mkdir()
        assert run.find_table() is None
        run.table("parquet").rmdir()
        for table_format in ("csv", "parquet", "notebook"):
            run.table(table_format).touch()
        for last in ("csv", "notebook", "parquet", "csv"):
            for table_format in ("csv", "parquet", "notebook"):
                # A nanosecond counts: a merge of few images takes few milliseconds.
                time_ns = 1_700_000_000_000_000_000 + (table_format == last)
                os.utime(run.table(table_format), ns=(time_ns, time_ns))
            assert run.find_table() == run.table(last)

    def test_training_holds_its_model_and_its_test(self, tmp_path):
        run = TrainRun(tmp_path)
        assert run.bundle.weights == tmp_path / "model" / "model.keras"
        assert run.bundle.info == tmp_path / "model" / "bundle.json"
        assert run.test.plan == tmp_path / "test" / "plan.parquet"
        assert run.checkpoint(12) == run.checkpoints / "step-000000012"
