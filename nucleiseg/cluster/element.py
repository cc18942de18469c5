"""The leader of one job of a count: of its workers, and maybe of the coordinator.

It computes nothing and loads no network, so that it can always answer: it hears
SLURM's signals, lets workers finish their shard, asks to be requeued, starts a worker
again that died, and waits for a coordinator that is not there yet.

    starting -> waiting <-> working -> draining -> requeued     warned by SLURM
                   |            |          `----> ended         told to end
                   |            |---------------> left          nothing left to do
                   |            `---------------> ended         the run is done
                   `----------------------------> held          no coordinator
"""

import asyncio
import logging
import signal
import socket
import time
from pathlib import Path
from typing import Literal

from nucleiseg.cluster import slurm
from nucleiseg.cluster.crew import Crew, private_scratch
from nucleiseg.cluster.keeper import Keeper
from nucleiseg.cluster.orders import Orders
from nucleiseg.cluster.place import Place, Role
from nucleiseg.cluster.records import (
    Record,
    Recorder,
    is_cancelled,
    read_run_state,
)
from nucleiseg.cluster.rendezvous import Meeting, find_meeting
from nucleiseg.config import ClusterConfig
from nucleiseg.errors import NucleisegError, RunError
from nucleiseg.runs import CountRun

logger = logging.getLogger(__name__)

Ending = Literal["ended", "left", "requeued", "held", "failed"]

# Worker processes that die one after the other before they join: the node is broken.
_MOST_FAILED_STARTS = 3
_POLL_S = 1.0
# States of a run in which no worker is needed any more.
_OVER = ("merging", "finished", "incomplete", "failed")

STOP_SIGNAL = signal.SIGUSR1
"""Tells the coordinator's process to let shards at hand finish, and end."""


class Element:
    """The leader of one job.

    Parameters
    ----------
    run : CountRun
        A planned run.
    plan : str
        Identity of its plan.
    role : Role
    place : Place
    settings : ClusterConfig
    """

    def __init__(
        self,
        run: CountRun,
        plan: str,
        role: Role,
        place: Place,
        settings: ClusterConfig,
    ) -> None:
        self._run = run
        self._plan = plan
        self._role = role
        self._place = place
        self._settings = settings
        self._orders = Orders(place, settings.signal_delay_s)
        self._crew: Crew | None = None
        self._n_failed_starts = 0
        self._has_joined = False
        self._alone_since_s = time.monotonic()
        self._recorder = Recorder(
            run.jobs,
            Record(
                name=place.job_id,
                role=role.name,
                state="starting",
                host=socket.gethostname(),
                node=place.node,
                restarts=place.restarts,
            ),
        )
        self._keeper = Keeper(run, place.job_id, self._recorder)

    async def lead(self) -> Ending:
        """Lead until the run is done, SLURM wants the node back, or nothing is left."""
        self._orders.listen()
        self._recorder.say("starting")
        with private_scratch() as scratch:
            try:
                ending = await self._work(scratch)
                await self._finish_work()
            except NucleisegError as error:
                logger.error("%s", error)
                self._recorder.say(error=str(error))
                ending = "failed"
            finally:
                await self._close_crew()
                self._keeper.send_signal(signal.SIGKILL)
        ending = self._conclude(ending)
        self._recorder.say(ending)
        logger.info("job %s: %s", self._place.job_id, ending)
        return ending

    async def _work(self, scratch: Path) -> Ending:
        while True:
            ending = self._must_end()
            if ending is None and self._role.coordinates:
                ending = self._keeper.look_after()
            if ending is None and self._role.n_workers:
                ending = await self._see_to_workers(scratch)
            if ending is not None:
                return ending
            self._recorder.say_alive()
            await self._orders.wait(_POLL_S)

    def _must_end(self) -> Ending | None:
        """Whether somebody wants this job to end."""
        if is_cancelled(self._run.jobs):
            return "ended"
        ending = self._orders.read()
        if ending is not None:
            return ending
        if self._role.coordinates:
            return None  # the coordinator's process says when all is done
        is_over = read_run_state(self._run.jobs) in _OVER
        return "ended" if is_over else None

    # --- workers ---

    async def _see_to_workers(self, scratch: Path) -> Ending | None:
        """Have workers join the coordinator, watch them; why they are done for good."""
        meeting = find_meeting(self._run)
        crew = self._crew
        if crew is None:
            if meeting is not None and await self._start_crew(meeting, scratch):
                return None
            return self._wait_for_coordinator()
        self._report_deaths(crew)
        if not crew.is_up:
            was_sent_home = crew.was_sent_home()
            await self._close_crew()
            return "left" if was_sent_home else None
        if meeting != crew.meeting:
            # Another coordinator, or none: the connection may not know it yet.
            await self._close_crew()
        return None

    def _wait_for_coordinator(self) -> Ending | None:
        if self._recorder.record.state != "waiting":
            self._recorder.say("waiting")
        waited_s = time.monotonic() - self._alone_since_s
        if waited_s <= 60 * self._settings.idle_min or self._role.coordinates:
            return None
        logger.info("no coordinator for %.0f s: freeing the GPU", waited_s)
        return "held"

    async def _start_crew(self, meeting: Meeting, scratch: Path) -> bool:
        """Start the workers; False where they cannot join, and may later."""
        self._crew = Crew(
            self._run,
            self._plan,
            meeting,
            self._place,
            self._settings,
            n_workers=self._role.n_workers,
            scratch=scratch,
        )
        starting = asyncio.ensure_future(self._crew.start())
        deadline_s = time.monotonic() + 60 * self._settings.idle_min
        while not starting.done():
            # Loading a network takes a while; signals must not wait for it.
            await asyncio.wait([starting], timeout=0.2)
            if self._starts_in_vain(meeting) or time.monotonic() > deadline_s:
                starting.cancel()
                await asyncio.wait([starting])
        try:
            starting.result()
        except asyncio.CancelledError:
            await self._close_crew()
            return False
        except (OSError, RuntimeError) as error:
            refusal = self._crew.refusal
            await self._close_crew()
            if refusal is not None:
                self._give_up_workers(refusal)
            elif not meeting.is_reachable():
                # The address of a coordinator that was killed: not this node's fault.
                logger.info("no connection to %s: %s", meeting.address, error)
            elif find_meeting(self._run) == meeting:
                self._count_failed_start(error)
            return False
        self._n_failed_starts = 0
        self._has_joined = True
        self._recorder.say("working", devices=self._crew.devices)
        for device in self._crew.devices:
            logger.info("worker on %s: %s", self._place.node, device)
        return True

    def _starts_in_vain(self, meeting: Meeting) -> bool:
        """Whether workers that are starting will find no coordinator."""
        if self._must_end() or find_meeting(self._run) != meeting:
            return True
        # Its own one is started again only when nothing else is waited for.
        return self._role.coordinates and not self._keeper.is_up

    def _count_failed_start(self, error: Exception) -> None:
        self._n_failed_starts += 1
        if self._n_failed_starts < _MOST_FAILED_STARTS:
            logger.warning("a worker died before it could join (%s); once more", error)
            return
        self._give_up_workers(
            f"workers on {socket.gethostname()} die before they can join ({error}); "
            f"see the log of job {self._place.job_id} in {self._run.logs}"
        )

    def _give_up_workers(self, reason: str) -> None:
        """Do without workers on this node; a coordinator goes on for the others."""
        if not self._role.coordinates:
            raise RunError(reason)
        logger.error("%s", reason)
        self._role = Role(coordinates=True, n_workers=0)
        self._recorder.say(role=self._role.name, error=reason)

    def _report_deaths(self, crew: Crew) -> None:
        if crew.n_deaths > self._recorder.record.deaths:
            self._recorder.say(
                deaths=crew.n_deaths, error=f"a worker died: {crew.last_cause}"
            )

    async def _close_crew(self) -> None:
        if self._crew is not None:
            await self._crew.close()
            self._crew = None
        # Not after each vain attempt to join, or it would wait for ever.
        if self._has_joined:
            self._has_joined = False
            self._alone_since_s = time.monotonic()

    # --- the end ---

    async def _finish_work(self) -> None:
        """Let all processes finish what they are at, as far as time allows."""
        if not self._orders.are_given or is_cancelled(self._run.jobs):
            return  # nothing is at hand, or nothing of it is wanted
        deadline = self._orders.give_deadline()
        self._recorder.say("draining")
        logger.info(
            "finishing the shards at hand, for at most %.0f s", deadline.limit_s
        )
        self._keeper.send_signal(STOP_SIGNAL)
        if self._crew is not None:
            self._crew.drain()
        while not deadline.is_over():
            crew_is_up = self._crew is not None and self._crew.is_up
            if not crew_is_up and not self._keeper.is_up:
                return
            await asyncio.sleep(0.1)
        logger.warning("not finished in time; those shards will be computed again")

    def _conclude(self, ending: Ending) -> Ending:
        """Ask SLURM for what is to become of this job."""
        if ending not in ("requeued", "held") or not self._place.is_slurm:
            return ending
        if self._place.restarts >= self._settings.max_restarts:
            self._recorder.say(
                error=f"was requeued {self._place.restarts} times, which is "
                "cluster.max_restarts"
            )
            return "ended"
        if not slurm.is_available():
            # Its batch script asks. Never held: nobody could release it.
            return "requeued"
        try:
            slurm.requeue(self._place.job_id, hold=ending == "held")
        except RunError as error:
            self._recorder.say(error=str(error))
            logger.error("%s", error)
            return "failed"
        return ending
