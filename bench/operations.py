"""Operations per second: requests and the runner at work on an engine that takes no time."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from bench import databases, machine
from bench.figures import Measure, Report, median
from bench.instant import InstantEngine
from bench.population import make_node
from hutch.domain.ids import new_id
from hutch.domain.images import Image
from hutch.domain.people import Actor, Role
from hutch.operations.runner import Runner
from hutch.services import instances as services
from hutch.services import users
from hutch.services.context import Context, Engines
from hutch.services.instances import Wish
from hutch.services.vault import open_vault
from hutch.settings import Settings
from hutch.store import images, nodes, operations
from hutch.store.db import Database

COUNT = 100
_LOOK = 0.01

Rates = dict[str, list[float]]


def measure(rounds: int, count: int = COUNT) -> Report:
    report = Report("Operations on an engine that takes no time", machine.facts())
    for kind in databases.available():
        rates: Rates = defaultdict(list)
        for _ in range(rounds):
            with databases.fresh(kind) as (folder, url):
                asyncio.run(_measure(folder, url, count, rates))
        report.measures += [
            Measure(f"{kind}: {what}", median(found), "per second") for what, found in rates.items()
        ]
    report.facts["load at the end"] = f"{machine.load():.2f}"
    return report


async def _measure(folder: Path, url: str, count: int, rates: Rates) -> None:
    settings = Settings(data=folder, database_url=url, quota_instances=count, quota_cpus=count,
                        quota_memory=2**50, quota_disk=2**50)  # fmt: skip
    engine = InstantEngine()
    context = Context(
        db=Database(url),
        settings=settings,
        vault=open_vault(folder / "secret.key"),
        engines=Engines(lambda _: engine),
    )
    try:
        actor = await _fill(context, folder)
        names = [f"box{number}" for number in range(count)]
        wishes = [Wish(name, cpus=1) for name in names]
        await _lap(context, rates, "create", [_create(context, actor, w) for w in wishes])
        for verb, ask in (
            ("stop", services.stop), ("start", services.start), ("delete", services.delete),
        ):  # fmt: skip
            await _lap(context, rates, verb, [_ask(ask, context, actor, name) for name in names])
    finally:
        await context.db.close()


async def _fill(context: Context, folder: Path) -> Actor:
    at = context.now()
    async with context.db.write() as session:
        await nodes.add_node(session, make_node(folder / "engine.db", at))
        await images.add_image(session, Image(new_id(), "base", "", 0, at))
    system = Actor("", "hutch", Role.ADMIN)
    user, _ = await users.add(context, system, "alice", Role.MEMBER)
    return Actor(user.id, user.name, user.role)


Ask = Callable[[], Awaitable[object]]


def _create(context: Context, actor: Actor, wish: Wish) -> Ask:
    return lambda: services.create(context, actor, wish)


def _ask(
    ask: Callable[[Context, Actor, str], Awaitable[object]],
    context: Context,
    actor: Actor,
    name: str,
) -> Ask:
    return lambda: ask(context, actor, name)


async def _lap(context: Context, rates: Rates, verb: str, asks: list[Ask]) -> None:
    """Ask for everything, one request after the other, then let the runner carry it all out."""
    began = time.perf_counter()
    for ask in asks:
        await ask()
    rates[f"{verb}, requests granted"].append(len(asks) / (time.perf_counter() - began))
    began = time.perf_counter()
    running = asyncio.create_task(Runner(context).run())
    while await _live(context):
        await asyncio.sleep(_LOOK)
    rates[f"{verb}, carried out"].append(len(asks) / (time.perf_counter() - began))
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def _live(context: Context) -> bool:
    async with context.db.read() as session:
        return bool(await operations.live_targets(session))
