"""What happens to the jobs of a count on a cluster, done to them on purpose.

Each interruption is a small function that does one such thing to a run; tests do one
alone, a storm does many at random. :class:`Faults` slows the shards down, so that there
is something to interrupt, and writes down which shards were computed, so that work that
was done twice shows.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.slurm import PrivateSlurm, QueuedJob, processes

REPOSITORY = Path(__file__).parents[1]

# Loaded by every Python that starts with its folder on PYTHONPATH, so in the workers
# too, of which none knows of it.
_HOOK = """\
import importlib.util
import os
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).parent


def read(name):
    try:
        return (FOLDER / name).read_text()
    except FileNotFoundError:
        return ""


def note(*words):
    descriptor = os.open(
        FOLDER / "computed.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600
    )
    # One write, so that lines of several processes do not mix.
    os.write(descriptor, (" ".join(map(str, words)) + "\\n").encode())
    os.close(descriptor)


def eat():
    try:
        (FOLDER / "hungry").unlink()
    except FileNotFoundError:
        return
    kept = []
    for _ in range(200):
        kept.append(bytearray(os.urandom(2**20) * 32))
        time.sleep(0.01)
    time.sleep(60)


def spoil(engine):
    compute_rows, count = engine.Engine._compute_rows, engine.Stream._count_image

    def slow(self, shard):
        note(shard.shard, shard.start, shard.stop, os.getpid())
        eat()
        start = time.monotonic()
        # Looked at again and again: the rest of a run need not be slow.
        while time.monotonic() - start < float(read("slow_s") or 0):
            time.sleep(0.02)
        return compute_rows(self, shard)

    def deadly(self, index, *images):
        if str(index) in read("deadly").split():
            import ctypes

            ctypes.string_at(0)
        return count(self, index, *images)

    engine.Engine._compute_rows, engine.Stream._count_image = slow, deadly


class Spoiler:
    def find_spec(self, name, path=None, target=None):
        if name != "nucleiseg.inference.engine":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            spoil(module)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Spoiler())
"""


@dataclass(frozen=True)
class Computation:
    """Images of a shard that a worker process began to compute."""

    shard: int
    start: int
    stop: int
    pid: int


class Faults:
    """Makes workers slow, deadly or hungry, and knows what they computed.

    Parameters
    ----------
    folder : made, for the hook and what it reads and writes.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        self.folder = folder
        (folder / "sitecustomize.py").write_text(_HOOK)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment for all this."""
        return {"PYTHONPATH": str(self.folder)}

    def slow_down(self, seconds: float) -> None:
        """Let every shard take so long, those at hand included."""
        self._write("slow_s", str(seconds))

    def make_deadly(self, *images: int) -> None:
        """Let images of these numbers crash the process that counts them."""
        self._write("deadly", " ".join(map(str, images)))

    def make_hungry(self) -> None:
        """Let the next worker that begins a shard take more memory than there is."""
        self._write("hungry", "")

    @property
    def is_hungry(self) -> bool:
        """Whether no worker has begun to take it yet."""
        return (self.folder / "hungry").exists()

    def computations(self) -> list[Computation]:
        """List what workers began to compute."""
        path = self.folder / "computed.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        return [Computation(*map(int, line.split())) for line in lines]

    def n_images_begun(self) -> int:
        """Count images that workers began to compute, each as often as they did."""
        return sum(each.stop - each.start for each in self.computations())

    def _write(self, name: str, text: str) -> None:
        # Renamed, since workers read it all the time.
        temporary = self.folder / f".{name}"
        temporary.write_text(text)
        temporary.replace(self.folder / name)


@dataclass(frozen=True)
class Scene:
    """A count that runs on a private SLURM.

    Parameters
    ----------
    slurm : where its jobs are.
    root : its run directory.
    faults : what slows it down.
    rng : chooses whom an interruption hits.
    """

    slurm: PrivateSlurm
    root: Path
    faults: Faults
    rng: random.Random = field(default_factory=lambda: random.Random(0))

    def jobs(self, role: str | None = None) -> list[QueuedJob]:
        """List the jobs of the run in the queue, of one role or all."""
        path = self.root / "jobs.json"
        ids = [
            entry["job_id"]
            for entry in (json.loads(path.read_text()) if path.exists() else [])
            if role in (None, entry["role"])
        ]
        return [
            job for job in self.slurm.queue() if job.job_id.partition("_")[0] in ids
        ]

    def running(self, role: str) -> list[QueuedJob]:
        """List the running jobs of the run of one role."""
        return [job for job in self.jobs(role) if job.state == "RUNNING"]

    def coordinator(self) -> QueuedJob | None:
        """Find the job of the coordinator, where it runs in one of its own."""
        return next(iter(self.running("coordinator")), None)

    def leaders(self, job: QueuedJob) -> list[int]:
        """Find the process that leads a job."""
        return self._processes(job, "submitit.core._submit")

    def workers(self, job: QueuedJob) -> list[int]:
        """Find the processes of a job that compute, or will."""
        return self._processes(job, "spawn_main")

    def coordinators(self) -> list[int]:
        """Find the process that coordinates, in whatever job it is."""
        jobs = [*self.running("coordinator"), *self.running("workers")]
        return [
            pid for job in jobs for pid in self._processes(job, "nucleiseg.counting")
        ]

    def n_begun(self) -> int:
        """Count computations that workers began."""
        return len(self.faults.computations())

    def n_done(self) -> int:
        """Count finished shards."""
        return len(list((self.root / "parts").glob("0*.parquet")))

    def n_workers(self) -> int:
        """Count workers that there are."""
        return sum(len(self.workers(job)) for job in self.running("workers"))

    def state(self) -> str | None:
        """State of the run, as its coordinator wrote it."""
        path = self.root / "progress.json"
        return json.loads(path.read_text())["state"] if path.exists() else None

    def is_over(self) -> bool:
        """Whether no job of the run is left."""
        return not self.jobs()

    def processes(self) -> set[int]:
        """Find what any job has started and still runs, whether SLURM knows or not."""
        return processes.job_processes(self.slurm.conf)

    def wait_until(self, predicate: Callable[[], object], timeout_s: float) -> None:
        """Wait until something is so; if it never is, show queue and logs."""
        try:
            self.slurm.wait_until(predicate, timeout_s)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.logs()}") from None

    def wait_for_work(self, n_shards: int = 2, timeout_s: float = 90) -> None:
        """Wait until workers have begun some more shards."""
        n_wanted = self.n_begun() + n_shards
        self.wait_until(lambda: self.n_begun() >= n_wanted or self.is_over(), timeout_s)

    def wait_for_end(self, timeout_s: float = 150) -> None:
        """Let the rest be fast, and wait until no job is left."""
        self.faults.slow_down(0)
        with self.slurm.hastened():
            self.wait_until(self.is_over, timeout_s)

    def logs(self, n_lines: int = 40) -> str:
        """Last lines of the logs of all jobs of the run."""
        parts = []
        for path in sorted((self.root / "logs").glob("*.out")):
            lines = path.read_text(errors="replace").splitlines()[-n_lines:]
            parts.append("\n".join((f"--- {path.name}", *lines)))
        return "\n".join(parts)

    def _processes(self, job: QueuedJob, words: str) -> list[int]:
        return [
            pid
            for pid in self.slurm.processes_of(job.own_id, steps_only=True)
            if words in _command_line(pid)
        ]


@dataclass(frozen=True)
class Interruption:
    """Something that happens to jobs."""

    name: str
    apply: Callable[[Scene], int | None]
    """Does it; how many workers may lose the shard at hand by it, None: it could not
    happen, for nobody was there whom it could hit."""
    needs: str = ""
    """What it needs: `minutes` of time, or `nodes` for the coordinator to move."""


def kill_worker(scene: Scene) -> int | None:
    """Kill one process that computes."""
    pids = [pid for job in scene.running("workers") for pid in scene.workers(job)]
    return _kill(scene, pids) and 1


def kill_leader(scene: Scene) -> int | None:
    """Kill the process that leads a job of workers."""
    jobs = {pid: job for job in scene.running("workers") for pid in scene.leaders(job)}
    if not jobs:
        return None
    pid = scene.rng.choice(sorted(jobs))
    n_workers = len(scene.workers(jobs[pid]))
    return _kill(scene, [pid]) and n_workers


def kill_coordinator(scene: Scene) -> int | None:
    """Kill the process that coordinates."""
    n_workers = scene.n_workers()
    return _kill(scene, scene.coordinators()) and n_workers


def kill_leader_of_coordinator(scene: Scene) -> int | None:
    """Kill the process that leads the coordinator's job."""
    job = scene.coordinator()
    n_workers = scene.n_workers()
    return _kill(scene, scene.leaders(job) if job else []) and n_workers


def cancel_element(scene: Scene) -> int | None:
    """Cancel one job of workers, though never the last."""
    jobs = scene.running("workers")
    if len(jobs) < 2:
        return None
    job = scene.rng.choice(jobs)
    n_workers = len(scene.workers(job))
    scene.slurm.run("scancel", job.job_id)
    return n_workers


def preempt(scene: Scene) -> int | None:
    """Take a node away for an urgent job; whether with a warning is up to SLURM."""
    node = _choose_node(scene)
    if node is None:
        return None
    n_workers = _count_on(scene, node)
    urgent = scene.slurm.preempt(node, hold_s=1)
    scene.wait_until(lambda: urgent not in scene.slurm.jobs_left(), 60)
    return n_workers


def fail_node(scene: Scene) -> int | None:
    """Let a node die with all that is on it, and come back."""
    node = _choose_node(scene)
    if node is None:
        return None
    n_workers = _count_on(scene, node)
    scene.slurm.fail_node(node, is_noticed=True)
    scene.slurm.restore_node(node)
    return n_workers


def exhaust_memory(scene: Scene) -> int | None:
    """Let a worker take more memory than its job was granted."""
    scene.faults.make_hungry()
    with suppress(TimeoutError):
        scene.slurm.wait_until(lambda: not scene.faults.is_hungry, 30)
        return 1
    return None


def drain_all(scene: Scene) -> int | None:
    """Warn all workers at once, as a common time limit does."""
    jobs = scene.running("workers")
    if not jobs:
        return None
    # To the steps only, as `--signal=USR2@…` does.
    for job in jobs:
        scene.slurm.run("scancel", "--signal=USR2", job.job_id)
    return 0


def reach_time_limit(scene: Scene) -> int | None:
    """Let a job of workers come to its time limit, of which SLURM warns it before."""
    jobs = scene.running("workers")
    if not jobs:
        return None
    job = scene.rng.choice(jobs)
    # A minute after its start; SLURM takes no shorter ones.
    scene.slurm.run("scontrol", "update", f"JobId={job.own_id}", "TimeLimit=1")

    def is_requeued() -> bool:
        found = [each for each in scene.jobs("workers") if each.job_id == job.job_id]
        return not found or found[0].n_restarts > job.n_restarts

    scene.wait_until(is_requeued, 100)
    with suppress(RuntimeError):
        scene.slurm.run(
            "scontrol", "update", f"JobId={job.own_id}", "TimeLimit=UNLIMITED"
        )
    return 0


def move_coordinator(scene: Scene) -> int | None:
    """Requeue the coordinator's job, while its node takes no new ones."""
    job = scene.coordinator()
    if job is None:
        return None
    n_workers = scene.n_workers()
    with drained(scene.slurm, job.node):
        scene.slurm.run("scontrol", "requeue", job.job_id)
        with scene.slurm.hastened():
            scene.wait_until(lambda: _has_moved(scene, job), 60)
    return n_workers


INTERRUPTIONS = (
    Interruption("worker killed", kill_worker),
    Interruption("leader of workers killed", kill_leader),
    Interruption("coordinator killed", kill_coordinator),
    Interruption("leader of coordinator killed", kill_leader_of_coordinator),
    Interruption("job cancelled", cancel_element),
    Interruption("preempted", preempt),
    Interruption("node failed", fail_node),
    Interruption("out of memory", exhaust_memory),
    Interruption("all drain", drain_all),
    Interruption("time limit", reach_time_limit, needs="minutes"),
    Interruption("coordinator moved", move_coordinator, needs="nodes"),
)
BY_NAME = {each.name: each for each in INTERRUPTIONS}


@contextmanager
def drained(slurm: PrivateSlurm, node: str) -> Iterator[None]:
    """Let a node take no new jobs inside the block."""
    slurm.run(
        "scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=maintenance"
    )
    try:
        yield
    finally:
        slurm.run("scontrol", "update", f"NodeName={node}", "State=RESUME")


@dataclass(frozen=True)
class Hit:
    """An interruption that happened."""

    name: str
    n_workers: int
    """Workers that may have lost the shard at hand."""
    second: float
    """Since the storm began."""


def rage(
    scene: Scene, n: int, kinds: Sequence[Interruption], *, n_shards: int
) -> list[Hit]:
    """Interrupt a run again and again, at random, while it is at work."""
    hits: list[Hit] = []
    start_s = time.monotonic()
    with scene.slurm.hastened():
        while len(hits) < n and not scene.is_over():
            _stretch(scene, n - len(hits), n_shards - scene.n_done())
            # Also in the middle of recovering from the one before.
            scene.wait_for_work(scene.rng.choice((0, 1, 3)))
            kind = scene.rng.choice(kinds)
            n_workers = kind.apply(scene)
            if n_workers is not None:
                hits.append(Hit(kind.name, n_workers, time.monotonic() - start_s))
    return hits


def submit_count(
    slurm: PrivateSlurm,
    root: Path,
    archives: Sequence[object],
    model: Path,
    *options: object,
    faults: Faults | None = None,
) -> subprocess.CompletedProcess[str]:
    """Send a count off on the command line, on the CPU although it asks for GPUs."""
    return call(
        *("count", *archives, "--model", model, "--run", root, "--cluster", "slurm"),
        *settings(
            **{
                "inference.device": "cpu",
                "cluster.coordinator_partition": "cpu",
                "cluster.coordinator_cpus": 1,
                "cluster.coordinator_memory_gb": 1,
                "cluster.cpus": 1,
                "cluster.memory_gb": 2,
            }
        ),
        *options,
        environment=slurm.environment | (faults.environment if faults else {}),
    )


def settings(**values: object) -> list[str]:
    """Write settings as options of the command line."""
    return [
        word for name, value in values.items() for word in ("--set", f"{name}={value}")
    ]


def call(
    *arguments: object,
    environment: dict[str, str] | None = None,
    timeout_s: float = 300,
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "nucleiseg", *map(str, arguments)],
        env=os.environ | (environment or {}),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def _kill(scene: Scene, pids: Sequence[int]) -> bool | None:
    """Kill one of some processes; None where there is none."""
    if not pids:
        return None
    try:
        os.kill(scene.rng.choice(sorted(pids)), signal.SIGKILL)
    except ProcessLookupError:
        return None
    return True


def _choose_node(scene: Scene) -> str | None:
    nodes = sorted({job.node for job in scene.running("workers")})
    return scene.rng.choice(nodes) if nodes else None


def _count_on(scene: Scene, node: str) -> int:
    """Count workers that lose their shard with a node: all, if it coordinates."""
    job = scene.coordinator()
    if job is None or job.node == node:
        return scene.n_workers()
    return sum(
        len(scene.workers(job)) for job in scene.running("workers") if job.node == node
    )


def _has_moved(scene: Scene, before: QueuedJob) -> bool:
    job = scene.coordinator()
    return job is not None and job.node != before.node


def _stretch(scene: Scene, n_hits: int, n_left: int) -> None:
    """Make shards so slow that those left last for the interruptions to come."""
    # About the time in which four workers recover from one.
    needed_s = 4 * 12 * n_hits
    scene.faults.slow_down(min(5.0, max(0.3, needed_s / max(1, n_left))))


def _command_line(pid: int) -> str:
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return ""
    return text.replace(b"\0", b" ").decode(errors="replace")
