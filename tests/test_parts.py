"""A shard that kills: it is computed to the end, and only its killers are given up."""

import itertools
import math
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nucleiseg.atomic import read_json
from nucleiseg.attempts import Attempts, History
from nucleiseg.errors import RunError
from nucleiseg.inference.parts import Parts, find_gaps, find_part
from nucleiseg.instances import ImageSummary
from nucleiseg.runs import CountRun
from nucleiseg.shards import ArchiveRef, Entry, Plan
from nucleiseg.tables import ImageRow, read_rows, write_rows

COMPUTE = "float32, 8x128x128"
KILLED = "segmentation fault (SIGSEGV)"
GIVEN_UP = f"it killed its worker 3 times ({KILLED})"
NUMBER = 2


@pytest.fixture(autouse=True, scope="module")
def _no_power_cuts():
    # Thousands of small files: waiting for the disk would be most of the time.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nucleiseg.atomic._sync", lambda path: None)
        yield


class DeathError(Exception):
    """Stands for the end of a process: nothing after it is done."""


def make_row(index):
    if index % 7 == 3:
        return ImageRow(index, None, "image holds NaN; mask it")
    summary = ImageSummary(
        count=index % 5,
        foreground_share=0.25,
        mean_area_px=None,
        border_count=0,
        saturated_share=0.0,
        confidence=None,
    )
    return ImageRow(index, summary)


class Scene:
    """A shard, images in it that kill, and workers that come one after the other.

    Parameters
    ----------
    root : Path
    start, stop : int
        Images of the shard.
    poison : iterable of int
        Images that kill whoever computes them.
    events : iterable of {"kill", "vanish", None}
        What else happens to the attempts, one after the other.
    """

    def __init__(self, root, start, stop, *, poison=(), events=()):
        self.run = CountRun(root)
        self.run.root.mkdir(parents=True, exist_ok=True)
        self.whole = start, stop
        before = [Entry(0, n, "X", 0, 1, height=8, width=8) for n in range(NUMBER)]
        self.shard = Entry(0, NUMBER, "X", start, stop, height=8, width=8)
        archives = (ArchiveRef("/data/a.npz", "a.npz", "0123"),)
        self.plan = Plan(archives, (*before, self.shard), {})
        self.attempts = Attempts(self.run)
        self.poison = set(poison)
        self.events = iter(events)
        self.n_lives = 0
        self._indices = {}
        self.computed = []
        """Ranges that were asked for, in order."""

    def leave_rows(self, indices, *, name="rows-kept.parquet", compute=COMPUTE):
        """Leave rows of images that an earlier call has computed."""
        path = self.attempts.rows_folder(NUMBER) / name
        rows = [make_row(index) for index in indices]
        write_rows(path, self.plan, self.shard, rows, compute=compute)

    def indices_on_disk(self):
        for path in self.attempts.rows_files(NUMBER):
            if path not in self._indices:
                rows = read_rows(path, self.plan, self.shard, compute=COMPUTE)
                self._indices[path] = set(rows)
        return set().union(*self._indices.values())

    @property
    def n_deaths(self):
        return self.attempts.n_deaths(NUMBER)

    def compute_rows(self, start, stop):
        assert not self.indices_on_disk() & {*range(start, stop)}, "computed again"
        self.computed.append((start, stop))
        self._suffer(next(self.events, None))
        if self.poison & {*range(start, stop)}:
            self._die()
        return [make_row(index) for index in range(start, stop)]

    def _suffer(self, event):
        if event is None:
            return
        (path,) = (self.run.attempts / "running").glob(f"*-{os.getpid()}.json")
        if event == "vanish":
            path.rename(path.with_name(f"{NUMBER:06d}-elsewhere-{self.n_lives}.json"))
            raise DeathError
        attempt = read_json(path)
        part = attempt["start"], attempt["stop"]
        n_before = len(self.attempts.history(NUMBER).deaths.get(part, ()))
        # A third accident at one image would rightly give it up.
        if part[1] - part[0] > 1 or n_before < 2:
            self._die()

    def _die(self):
        # What the nanny does, once the process is gone.
        assert self.attempts.record_death(os.getpid(), KILLED) == [NUMBER]
        raise DeathError

    def compute(self, *, most_lives=500):
        """Compute the shard in one worker after the other, each of which may die."""
        while self.n_lives < most_lives:
            self.n_lives += 1
            parts = Parts(self.run, self.plan, COMPUTE, f"worker-{self.n_lives}")
            try:
                return parts.compute_shard(self.shard, self.compute_rows)
            except DeathError:
                continue
        raise AssertionError(f"not done after {most_lives} workers")


@pytest.fixture
def make_scene(tmp_path):
    def make(start, stop, **options):
        return Scene(tmp_path / "run", start, stop, **options)

    return make


def expected_rows(scene):
    """All rows of a shard, given that exactly its killers are given up."""
    return [
        ImageRow(index, None, GIVEN_UP) if index in scene.poison else make_row(index)
        for index in range(*scene.whole)
    ]


def most_deaths(n_images, n_poison):
    """Bound of the deaths that some images cause in a shard.

    The whole shard dies twice. On the way from there to a single image lie at most
    ceil(log2 n) - 1 ranges that die once each, and the image dies three times.
    """
    if not n_poison:
        return 0
    depth = math.ceil(math.log2(n_images))
    return 2 + n_poison * (max(0, depth - 1) + 3)


def draw_indices(whole, **options):
    return st.sets(st.integers(whole[0], whole[1] - 1), **options)


@st.composite
def shards(draw, most_images):
    """Draw first image and the one behind the last."""
    start = draw(st.integers(0, 1000))
    return start, start + draw(st.integers(1, most_images))


# Its examples are many small files, which is slow and no fault.
property_test = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)


class TestProperties:
    @property_test
    @given(data=st.data())
    def test_exactly_the_killers_are_given_up(self, tmp_path_factory, data):
        whole = data.draw(shards(33))
        poison = data.draw(draw_indices(whole, max_size=5))
        there = data.draw(draw_indices(whole)) - poison
        scene = Scene(tmp_path_factory.mktemp("scene"), *whole, poison=poison)
        if there:
            scene.leave_rows(sorted(there))
        assert scene.compute() == expected_rows(scene)
        assert scene.n_deaths == scene.n_lives - 1
        assert scene.n_deaths <= most_deaths(whole[1] - whole[0], len(poison))
        assert not there & {i for part in scene.computed for i in range(*part)}
        assert scene.attempts.running() == []

    @property_test
    @given(data=st.data())
    def test_innocent_is_never_given_up(self, tmp_path_factory, data):
        """Whoever is killed by accident or preempted, as often as it may be."""
        whole = data.draw(shards(20))
        poison = data.draw(draw_indices(whole, max_size=2))
        events = data.draw(
            st.lists(st.sampled_from(["kill", "vanish", None]), max_size=40)
        )
        scene = Scene(
            tmp_path_factory.mktemp("scene"), *whole, poison=poison, events=events
        )
        assert scene.compute() == expected_rows(scene)
        most = most_deaths(whole[1] - whole[0], len(poison)) + events.count("kill")
        assert scene.n_deaths <= most


class TestDeaths:
    @pytest.mark.parametrize("exponent", range(1, 8))
    @pytest.mark.parametrize("place", [0, 0.4, 1])
    def test_bound_is_reached(self, make_scene, exponent, place):
        """The bound of the test above is no larger than it must be."""
        n = 2**exponent
        scene = make_scene(100, 100 + n, poison=[100 + round(place * (n - 1))])
        assert scene.compute() == expected_rows(scene)
        assert scene.n_deaths == most_deaths(n, 1) == exponent + 4

    def test_single_image(self, make_scene):
        scene = make_scene(5, 6, poison=[5])
        assert scene.compute() == [ImageRow(5, None, GIVEN_UP)]
        assert scene.n_deaths == 3

    def test_every_image_kills(self, make_scene):
        scene = make_scene(0, 16, poison=range(16))
        assert scene.compute() == [ImageRow(i, None, GIVEN_UP) for i in range(16)]
        # Of the tree of halves: twice the root, 14 ranges once, 16 images thrice.
        assert scene.n_deaths == 2 + 14 + 3 * 16

    def test_one_accident_halves_nothing(self, make_scene):
        scene = make_scene(0, 8, events=["kill"])
        assert scene.compute() == expected_rows(scene)
        assert scene.computed == [(0, 8), (0, 8)]

    def test_preemptions_halve_a_shard_and_give_up_nothing(self, make_scene):
        scene = make_scene(0, 8, events=["vanish"] * 60)
        assert scene.compute() == expected_rows(scene)
        assert scene.n_deaths == 0
        # Four times each: the shard, its half, its quarter, and the image ever after.
        assert scene.computed[:13] == [
            *[(0, 8)] * 4,
            *[(0, 4)] * 4,
            *[(0, 2)] * 4,
            (0, 1),
        ]
        assert scene.computed.count((0, 1)) == 60 - 12 + 1

    def test_way_through_the_halves(self, make_scene):
        scene = make_scene(0, 8, poison=[5])
        assert scene.compute() == expected_rows(scene)
        assert scene.computed == [
            *[(0, 8)] * 2,
            (0, 4),
            (4, 8),
            (4, 6),
            (4, 5),
            *[(5, 6)] * 3,
            (6, 8),
        ]

    def test_killers_given_up_before_stay_given_up(self, make_scene):
        scene = make_scene(0, 8, poison=[5])
        first = scene.compute()
        n_lives = scene.n_lives
        assert scene.compute() == first
        assert scene.n_lives == n_lives + 1


class TestRows:
    def test_whole_shard_leaves_none(self, make_scene):
        scene = make_scene(0, 8)
        scene.compute()
        assert scene.attempts.rows_files(NUMBER) == []

    def test_finished_part_is_kept_over_a_death(self, make_scene):
        scene = make_scene(0, 8, poison=[5])
        scene.compute()
        names = [path.name for path in scene.attempts.rows_files(NUMBER)]
        assert names == [
            f"rows-{start:09d}-{stop:09d}.parquet"
            for start, stop in [(0, 4), (4, 5), (6, 8)]
        ]

    def test_kept_ones_are_not_computed_again(self, make_scene):
        scene = make_scene(10, 30)
        scene.leave_rows([10, 11, 15, 29])
        assert scene.compute() == expected_rows(scene)
        assert scene.computed == [(12, 15), (16, 29)]

    def test_all_kept(self, make_scene):
        scene = make_scene(10, 13)
        scene.leave_rows([10, 11, 12])
        assert scene.compute() == expected_rows(scene)
        assert scene.computed == []

    def test_of_another_precision_are_refused(self, make_scene):
        scene = make_scene(0, 4)
        scene.leave_rows([0], compute="float16")
        with pytest.raises(RunError, match="belongs to another compute"):
            scene.compute()

    def test_taken_away_in_this_moment_are_computed_again(
        self, make_scene, monkeypatch
    ):
        """Another worker finishes the shard, and clears up behind it."""
        scene = make_scene(0, 4)
        scene.leave_rows([0, 1])

        def read_too_late(path, *arguments, **options):
            path.unlink(missing_ok=True)
            return read_rows(path, *arguments, **options)

        monkeypatch.setattr("nucleiseg.inference.parts.read_rows", read_too_late)
        assert scene.compute() == expected_rows(scene)
        assert scene.computed == [(0, 4)]


class TestFindGaps:
    @pytest.mark.parametrize(
        ("done", "gaps"),
        [
            ([], [(3, 9)]),
            (range(3, 9), []),
            ([3, 4], [(5, 9)]),
            ([8], [(3, 8)]),
            ([5], [(3, 5), (6, 9)]),
            ([4, 6, 7], [(3, 4), (5, 6), (8, 9)]),
            # Those of other ranges do not count.
            ([0, 1, 2, 9, 10], [(3, 9)]),
        ],
    )
    def test_examples(self, done, gaps):
        assert list(find_gaps((3, 9), done=set(done))) == gaps

    @given(done=st.sets(st.integers(0, 40)), start=st.integers(0, 30))
    def test_what_is_missing_each_once_and_in_order(self, done, start):
        gaps = list(find_gaps((start, start + 10), done=done))
        missing = [index for index in range(start, start + 10) if index not in done]
        assert [index for gap in gaps for index in range(*gap)] == missing
        # Never two that could be one.
        assert all(a[1] < b[0] for a, b in itertools.pairwise(gaps))


class TestFindPart:
    @pytest.mark.parametrize(
        ("deaths", "done", "part"),
        [
            ({}, [], (0, 8)),
            ({}, range(7), (0, 8)),
            ({}, range(8), None),
            ({(0, 8): 1}, [], (0, 8)),
            ({(0, 8): 2}, [], (0, 4)),
            ({(0, 8): 2}, range(4), (4, 8)),
            ({(0, 8): 2}, [0, 1, 3], (0, 4)),
            ({(0, 8): 2, (0, 4): 1}, [], (0, 2)),
            ({(0, 8): 2, (0, 4): 1, (0, 2): 1}, [], (0, 1)),
            # A single image has no halves, however often it kills.
            ({(0, 8): 2, (0, 4): 1, (0, 2): 1, (0, 1): 9}, [], (0, 1)),
            ({(0, 8): 2, (0, 4): 1, (0, 2): 1, (0, 1): 9}, [0], (1, 2)),
            ({(0, 8): 2, (0, 4): 1, (0, 2): 1}, [0, 1], (2, 4)),
            ({(0, 8): 2, (4, 8): 1}, range(4), (4, 6)),
            # What killed, and is done all the same, is not looked at again.
            ({(0, 8): 2, (0, 4): 1}, range(4), (4, 8)),
            ({(0, 8): 2}, range(8), None),
        ],
    )
    def test_examples(self, deaths, done, part):
        causes = {part: (KILLED,) * n for part, n in deaths.items()}
        assert find_part(History(causes, {}), (0, 8), done=set(done)) == part
