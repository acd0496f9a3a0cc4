"""Grants per second through the database, beside the least that a grant could be.

The rival is one statement, `UPDATE … WHERE nobody holds it`, in a transaction of its own: no
quota, no queue, no fairness, no event, and nothing that would bring the accelerator into a
machine. It is the floor that the database itself sets, and both take turns.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from pathlib import Path

from sqlalchemy import text
from tests.leases import Hands, add_accelerators, add_machine

from bench import databases, machine
from bench.figures import Comparison, Measure, Report, median
from bench.instant import InstantEngine
from bench.population import make_node
from hutch.domain.ids import new_id
from hutch.domain.images import Image
from hutch.domain.leases import Lease, LeaseState
from hutch.domain.limits import Holding
from hutch.domain.nodes import Node
from hutch.domain.people import Actor, Role, User
from hutch.services import leases as services
from hutch.services import scheduling
from hutch.services.context import Context, Engines
from hutch.services.vault import open_vault
from hutch.settings import Settings
from hutch.store import images, leases, nodes, users
from hutch.store.db import Database, Session

NODES = 16
ACCELERATORS = 8
PEOPLE = 32
AT_ONCE = 16
_MUCH = 10_000
_QUOTA = Holding(_MUCH, _MUCH, 2**50, 2**50, _MUCH)

Samples = dict[str, tuple[list[float], list[float]]]
"""By what was done: seconds for one grant, of hutch and of the rival."""


def measure(rounds: int, node_count: int = NODES) -> Report:
    report = Report("Grants through the database", machine.facts())
    report.facts["lab"] = f"{node_count} nodes with {ACCELERATORS} accelerators, {PEOPLE} people"
    for kind in databases.available():
        samples: Samples = defaultdict(lambda: ([], []))
        for _ in range(rounds):
            with databases.fresh(kind) as (folder, url):
                asyncio.run(_measure(folder, url, node_count, samples))
        for what, (hutch, rival) in samples.items():
            report.comparisons.append(Comparison(f"{kind}: {what}", hutch, rival))
            report.measures += [
                Measure(f"{kind}: {what}", 1 / median(hutch), "grants/s"),
                Measure(f"{kind}: {what}, the plain UPDATE", 1 / median(rival), "grants/s"),
            ]
    report.facts["load at the end"] = f"{machine.load():.2f}"
    report.notes.append("“By hand” is the plain UPDATE of one row.")
    return report


async def _measure(folder: Path, url: str, node_count: int, samples: Samples) -> None:
    settings = Settings(
        data=folder, database_url=url, quota_accelerators=_MUCH, agent_silence_seconds=3600
    )
    engine = InstantEngine()
    context = Context(
        db=Database(url),
        settings=settings,
        vault=open_vault(folder / "secret.key"),
        engines=Engines(lambda _: engine),
    )
    try:
        lab = _Lab(context, await _fill(context, folder, node_count))
        await lab.one_after_the_other(*samples["one after the other"])
        await lab.hand_on(*samples["from an end to the next in line"])
        await lab.many_at_once(*samples[f"{AT_ONCE} at once"])
    finally:
        await context.db.close()


class _Lab:
    """Everyone's machines, and every accelerator once for hutch and once for the rival."""

    def __init__(self, context: Context, machines: list[tuple[Actor, str]]) -> None:
        self._context = context
        self._hands = Hands(context)
        self._machines = machines
        """As many as there are accelerators, so many on each node."""

    async def one_after_the_other(self, hutch: list[float], rival: list[float]) -> None:
        for person, name in self._machines:
            hutch.append(await _timed(lambda p=person, n=name: self._take(p, n)))
            rival.append(await _timed(self._update))

    async def hand_on(self, hutch: list[float], rival: list[float]) -> None:
        """Everything is held: a lease that waits is granted when another one ends."""
        for held in await self._live():
            person, name = next(m for m in self._machines if m[1] == held.instance_name)
            waiting = await services.take(self._context, person, count=1, instance=name)
            await services.release(self._context, person, lease=held.id)
            hutch.append(await _timed(lambda lease=held: self._hands.detach(lease)))
            granted = await self._hands.lease(waiting.id)
            if granted.state is not LeaseState.ATTACHING:
                raise RuntimeError(f"it was not handed on: {granted}")
            rival.append(await _timed(self._let_go_and_update))

    async def many_at_once(self, hutch: list[float], rival: list[float]) -> None:
        """Each sample is the time of all of them over their number."""
        await self._clear()
        takes = [lambda p=p, n=n: self._ask(p, n) for p, n in self._machines]
        hutch.append(await _timed(lambda: self._until_granted(takes)) / len(takes))
        updates = [self._update for _ in self._machines]
        rival.append(await _timed(lambda: _at_once(updates)) / len(updates))

    async def _until_granted(self, takes: Sequence[Callable[[], Awaitable[object]]]) -> None:
        """On a busy machine an answer may come before the pass that grants."""
        await _at_once(takes)
        while any(lease.state is LeaseState.QUEUED for lease in await self._live()):
            await scheduling.poke(self._context)

    async def _ask(self, person: Actor, name: str) -> Lease:
        return await services.take(self._context, person, count=1, instance=name)

    async def _take(self, person: Actor, name: str) -> None:
        lease = await self._ask(person, name)
        if lease.state is LeaseState.QUEUED:
            await scheduling.poke(self._context)
            lease = await self._hands.lease(lease.id)
        if lease.state is not LeaseState.ATTACHING:
            raise RuntimeError(f"it was not granted: {lease}")

    async def _update(self) -> None:
        async with self._context.db.write() as session:
            await _grant_plainly(session)

    async def _let_go_and_update(self) -> None:
        async with self._context.db.write() as session:
            await session.execute(
                text(
                    "UPDATE rival SET holder = NULL "
                    "WHERE id = (SELECT id FROM rival WHERE holder IS NOT NULL LIMIT 1)"
                )
            )
        await self._update()

    async def _clear(self) -> None:
        while live := await self._live():
            for lease in live:
                person = next(p for p, name in self._machines if name == lease.instance_name)
                await services.release(self._context, person, lease=lease.id)
            await self._hands.detach(*live)
        async with self._context.db.write() as session:
            await session.execute(text("UPDATE rival SET holder = NULL"))

    async def _live(self) -> list[Lease]:
        async with self._context.db.read() as session:
            return await leases.list_live(session)


async def _grant_plainly(session: Session) -> None:
    """One row for one holder, and nothing else."""
    skip = " FOR UPDATE SKIP LOCKED" if session.dialect.name == "postgresql" else ""
    done = await session.execute(
        text(
            "UPDATE rival SET holder = :holder "
            f"WHERE id = (SELECT id FROM rival WHERE holder IS NULL LIMIT 1{skip})"
        ),
        {"holder": new_id()},
    )
    if done.rowcount != 1:
        raise RuntimeError("the rival found nothing free")


async def _timed(act: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await act()
    return time.perf_counter() - began


async def _at_once(acts: Sequence[Callable[[], Awaitable[object]]]) -> None:
    """All of them, `AT_ONCE` at a time."""
    left = iter(acts)

    async def work() -> None:
        for act in left:
            await act()

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))


async def _fill(context: Context, folder: Path, node_count: int) -> list[tuple[Actor, str]]:
    at = context.now()
    machines: list[tuple[Actor, str]] = []
    async with context.db.write() as session:
        await images.add_image(session, Image(new_id(), "base", "", 0, at))
        people = [await _add_person(session, number, at) for number in range(PEOPLE)]
        await session.execute(text("CREATE TABLE rival (id VARCHAR(16) PRIMARY KEY, holder TEXT)"))
        for number in range(node_count):
            node = await _add_node(session, folder, number, at)
            for accelerator in await add_accelerators(session, node, ACCELERATORS, at):
                await session.execute(
                    text("INSERT INTO rival (id) VALUES (:id)"), {"id": accelerator}
                )
                person = people[len(machines) % PEOPLE]
                name = f"box-{len(machines)}"
                await add_machine(session, person, node, name)
                machines.append((person, name))
    return machines


async def _add_person(session: Session, number: int, at: datetime) -> Actor:
    user = User(new_id(), f"person{number}", Role.MEMBER, None, at, 0, _QUOTA)
    await users.add_user(session, user, None)
    return Actor(user.id, user.name, user.role)


async def _add_node(session: Session, folder: Path, number: int, at: datetime) -> Node:
    node = make_node(folder / f"engine{number}.db", at, f"node{number}")
    await nodes.add_node(session, node)
    return node
