"""Whose a run directory is, which images are drawn, how far a count is: by the plan."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleiseg.atomic import create_private, write_json
from nucleiseg.counting import choose_pictures, refuse_others
from nucleiseg.errors import RunError
from nucleiseg.monitoring import read_status
from nucleiseg.runs import CountRun
from nucleiseg.shards import ArchiveRef, Block, Entry, Plan, write_plan
from nucleiseg.tables import BlockRow, tabulate, write_block_partial, write_partial
from tests.test_tables import make_row

ARCHIVES = (ArchiveRef("/data/a.npz", "a.npz", "0123"),)


def make_plan(*sizes, n_blocks=3, model="m"):
    """Plan shards of so many images; None stands for a large image in blocks."""
    entries = []
    for dataset, size in enumerate(sizes):
        key = f"X{dataset}"
        if size is not None:
            entries.append(Entry(0, len(entries), key, 10, 10 + size, 8, 8))
            continue
        for n in range(n_blocks):
            block = Block(0, 10 * n, 10, 10 * n + 10)
            number = len(entries)
            entries.append(Entry(0, number, key, 4, 5, 10, 30, block=block))
    return Plan(ARCHIVES, (*entries, Entry(0, reason="gone")), {"model": model})


def choose_slowly(plan, n_pictures):
    images = [
        (shard.shard, index)
        for shard in plan.shards
        if shard.block is None
        for index in range(shard.start, shard.stop)
    ]
    n = min(n_pictures, len(images))
    return [images[(2 * k + 1) * len(images) // (2 * n)] for k in range(n)]


class TestPictures:
    @given(
        st.lists(st.none() | st.integers(1, 9), max_size=8),
        st.integers(0, 60),
    )
    def test_against_a_list_of_all_images(self, sizes, n_pictures):
        plan = make_plan(*sizes)
        assert choose_pictures(plan, n_pictures) == choose_slowly(plan, n_pictures)

    def test_of_large_images_alone_there_are_none(self):
        assert choose_pictures(make_plan(None, None), 5) == []


@pytest.fixture
def run(tmp_path):
    run = CountRun(tmp_path / "run")
    for folder in (run.root, run.parts):
        create_private(folder)
    return run


def do(run, plan, *numbers):
    for number in numbers:
        shard = plan.shards[number]
        if shard.block is None:
            rows = [make_row("X", i) for i in range(shard.start, shard.stop)]
            write_partial(run, plan, shard, tabulate(rows, plan), compute="c")
        else:
            write_block_partial(run, plan, shard, BlockRow(b""), compute="c")


class TestRefuseOthers:
    PLAN = make_plan(3, 4)
    OTHER = make_plan(3, 4, model="n")

    def test_nothing_there(self, tmp_path):
        refuse_others(CountRun(tmp_path / "none"), self.PLAN)

    def test_the_same_run(self, run):
        write_plan(run.plan, self.PLAN)
        do(run, self.PLAN, 0, 1)
        refuse_others(run, self.PLAN)

    def test_another_without_any_result(self, run):
        write_plan(run.plan, self.OTHER)
        (run.parts / ".node-1-0123abcd.tmp.000000.parquet").touch()
        refuse_others(run, self.PLAN)

    def test_another_with_a_result(self, run):
        write_plan(run.plan, self.OTHER)
        do(run, self.OTHER, 1)
        with pytest.raises(RunError, match="holds another run: model was n and is now"):
            refuse_others(run, self.PLAN)

    def test_another_with_a_part_of_a_shard(self, run):
        write_plan(run.plan, self.OTHER)
        folder = run.attempts / "000001"
        folder.mkdir(parents=True)
        (folder / "rows-000000000-000000002.parquet").touch()
        with pytest.raises(RunError, match="holds another run"):
            refuse_others(run, self.PLAN)

    def test_results_without_a_plan(self, run):
        do(run, self.PLAN, 1)
        run.config.touch()
        words = "holds config.yaml, 000001.parquet and no plan of a count run"
        with pytest.raises(RunError, match=words):
            refuse_others(run, self.PLAN)


class TestStatus:
    def read(self, run, plan, *done):
        write_plan(run.plan, plan)
        do(run, plan, *done)
        return read_status(run.root, now_s=0)

    def test_a_large_image_is_done_when_all_its_blocks_are(self, run):
        plan = make_plan(3, None, 2, None)
        assert [shard.n_new_images for shard in plan.shards] == [3, 1, 0, 0, 2, 1, 0, 0]
        for done, n_images_done in [
            ((1, 3), 0),
            ((2,), 1),
            ((0,), 4),
            ((6,), 4),
            ((4, 5), 6),
            ((7,), 7),
        ]:
            found = self.read(run, plan, *done)
            assert found.n_images_done == n_images_done
            assert found.n_images == 7
        assert (found.n_shards, found.n_done) == (8, 8)
        assert found.n_unreadable == 1

    def test_a_large_image_fails_once(self, run):
        plan = make_plan(3, None)
        create_private(run.failures)
        for number, n_failed in ((0, 2), (1, 1), (3, 1), (77, 1)):
            write_json(run.failure(number), {"n_failed": n_failed})
        assert self.read(run, plan).n_images_failed == 0
        assert self.read(run, plan, 0).n_images_failed == 2
        assert self.read(run, plan, 1, 3).n_images_failed == 3
        assert self.read(run, plan).n_with_failures == 3

    def test_surplus_files_are_not_done(self, run):
        plan = make_plan(3)
        for name in ("000001.parquet", "0.parquet", "000000.parquet.bak"):
            (run.parts / name).touch()
        assert self.read(run, plan).n_done == 0

    def test_without_a_folder_nothing_is_done(self, run):
        run.parts.rmdir()
        found = self.read(run, make_plan(3, None))
        assert (found.n_done, found.n_images_done, found.state) == (0, 0, "planned")
