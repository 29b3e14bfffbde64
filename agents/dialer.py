"""Keeping a session: which replica to dial next, when, and when to give up.

Owns: the order of replicas, the back-off and what a refusal means.
Must not know: what is said in a session.

Any replica will do.  A session that ends is followed at once, with jitter, by the next replica in
the list; only whole rounds without success make the pauses grow.  A replica that sends the agent to its
node's owner is obeyed with the next dial, and forgotten with the one after.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from agents.alone import alone
from agents.errors import NotAdmitted, SessionLost, SessionRejected
from agents.session import Host, Session, SessionTracer, dial
from cluster.network import Client, Network
from raft.errors import SkerryError
from raft.protocols import Dice

log = structlog.get_logger(__name__)

FATAL_REFUSALS = frozenset({"bad-token", "wrong-cluster", "protocol-version"})
"""Waiting does not cure these."""
PAUSE_FIRST_S = 0.1
PAUSE_MAX_S = 3.0
STEP_S_MAX = 10.0
"""Last guard: no dial may hold up the next one for longer, whatever a broken connection does."""
ROUNDS_REFUSED_MAX = 2
CONNECTIONS_MAX = 4


class Rotation:
    """Whom to dial and how long to wait before (pure; chance comes in).

    Gives up when every answer of `ROUNDS_REFUSED_MAX` whole rounds was a fatal refusal and no
    replica ever accepted this process: one misconfigured replica never ends a working agent.
    """

    def __init__(self, replicas: tuple[str, ...], dice: Dice) -> None:
        assert replicas, "an agent needs a replica to dial"
        self._replicas = replicas
        self._dice = dice
        self._at = dice.below(len(replicas))
        self._failures = 0
        self._refusals = 0
        self._ever_accepted = False
        self._place_of: dict[str, int] = {}
        """Which address a replica answered at."""

    @property
    def address(self) -> str:
        """The replica to dial now."""
        return self._replicas[self._at]

    def accepted(self, replica: str) -> None:
        """A session with `replica` stands."""
        self._ever_accepted = True
        self._refusals = 0
        self._place_of[replica] = self._at

    def sent_to(self, replica: str) -> float:
        """The session ended because `replica` owns this node: it is next; returns the pause in seconds.

        Where its address is not known yet, the next one that is not known to be another replica's.
        """
        pause_s = self.failed(fatal=False)
        known = self._place_of.get(replica)
        if known is None:
            others = self._place_of.values()
            rest = [(self._at + step) % len(self._replicas) for step in range(len(self._replicas))]
            known = next((place for place in rest if place not in others), self._at)
        self._at = known
        return pause_s

    def confirmed(self) -> None:
        """The session carries heartbeats: the next loss begins with short pauses again."""
        self._failures = 0

    def failed(self, *, fatal: bool) -> float:
        """A dial or session ended; moves on to the next replica and returns the pause in seconds."""
        self._at = (self._at + 1) % len(self._replicas)
        self._refusals += 1 if fatal else 0
        rounds = self._failures // len(self._replicas)
        self._failures += 1
        longest = PAUSE_MAX_S if fatal else min(PAUSE_MAX_S, PAUSE_FIRST_S * 2 ** min(rounds, 16))
        return longest * (0.5 + self._dice.below(1001) / 2000)

    @property
    def hopeless(self) -> bool:
        """Whether everyone who answers refuses, and always has."""
        return not self._ever_accepted and self._refusals >= ROUNDS_REFUSED_MAX * len(self._replicas)


class Dialer:
    """Dials for ever, one session at a time."""

    def __init__(
        self,
        replicas: tuple[str, ...],
        token: str,
        host: Host,
        tracer: SessionTracer,
        dice: Dice,
        network: Network,
    ) -> None:
        self._rotation = Rotation(replicas, dice)
        self._token = token
        self._host = host
        self._tracer = tracer
        self._network = network
        self._session: Session | None = None

    @property
    def connected(self) -> bool:
        """Whether a session stands now."""
        return self._session is not None

    def confirmed(self) -> None:
        """A heartbeat of the present session was confirmed."""
        self._rotation.confirmed()

    async def run(self, *, heartbeat_s: float, confirm_timeout_s: float) -> None:
        """Keep a session until cancelled (which says goodbye).

        Raises:
            NotAdmitted: see `Rotation`.
        """
        async with self._network.client(connections_max=CONNECTIONS_MAX, reuse=False) as client:
            while True:
                pause_s = await alone(self._once(client, heartbeat_s, confirm_timeout_s))
                await asyncio.sleep(pause_s)

    async def _once(self, client: Client, heartbeat_s: float, confirm_timeout_s: float) -> float:
        """One session from dial to end; returns the pause before the next."""
        address = self._rotation.address
        session: Session | None = None
        try:
            session = await _bounded(dial(client, address, self._token, self._host, self._tracer), address)
            self._rotation.accepted(session.replica)
            self._session = session
            await session.run(heartbeat_s=heartbeat_s, confirm_timeout_s=confirm_timeout_s)
        except SessionRejected as error:
            return self._refused(address, error)
        except SessionLost as error:
            if session is None:
                self._tracer.emit("conn", peer=address, what="refused", why=error.message)
            owner = str(error.details.get("owner", ""))
            if owner:
                log.info("moving to this node's owner", owner=owner, address=address)
                return self._rotation.sent_to(owner)
            log.warning("session lost" if session else "replica not reached", address=address, why=error.message)
            return self._rotation.failed(fatal=False)
        finally:
            self._session = None
            if session is not None:
                await session.goodbye("agent ends the session")
        raise AssertionError("a session only ends by an exception")

    def _refused(self, address: str, error: SkerryError) -> float:
        code = str(error.details.get("refusal", error.code))
        fatal = code in FATAL_REFUSALS
        self._tracer.emit("conn", peer=address, what="refused", why=code)
        log.error("replica refuses this agent", address=address, code=code, why=error.message, hint=error.hint)
        pause_s = self._rotation.failed(fatal=fatal)
        if self._rotation.hopeless:
            raise NotAdmitted(
                f"no replica admits this agent; {address} says {code}: {error.message}", hint=error.hint, refusal=code
            )
        return pause_s


async def _bounded(dialling: Coroutine[Any, Any, Session], address: str) -> Session:
    """The session, or SessionLost: also when a broken connection neither answers nor lets itself be cancelled."""
    task = asyncio.ensure_future(dialling)
    try:
        done, _ = await asyncio.wait({task}, timeout=STEP_S_MAX)
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait({task}, timeout=1.0)
        raise
    if not done:
        task.cancel()
        raise SessionLost(f"{address} did not answer within {STEP_S_MAX:g} s")
    return task.result()
