"""An agent of a node without a node: it knows which programs have which devices open.

    agent = FakeAgent(context, node)
    await agent.sign_in(*cards)
    agent.open(container, "/dev/nvidia0", "python3")
    async with answering(context): ...

The programs end as programs do: when they are asked, when they are ended, or never.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from weakref import WeakKeyDictionary

from hutch.domain.accelerators import FoundAccelerator, OpenedDevice, Process, Revoked, Verb
from hutch.domain.nodes import Node
from hutch.services import accelerators, agents
from hutch.services.context import Context
from hutch.store.db import Database
from hutch.store.revocations import Revocation


class Manner(StrEnum):
    POLITE = "ends when it is asked"
    STUBBORN = "ends when it is ended"
    IMMORTAL = "hangs in the kernel"


@dataclass(frozen=True)
class Program:
    """A process that has a device open."""

    process: Process
    path: str
    manner: Manner


_agents: WeakKeyDictionary[Database, "FakeAgent"] = WeakKeyDictionary()


def agent_of(context: Context) -> "FakeAgent":
    """The agent of a lab that has one."""
    return _agents[context.db]


@asynccontextmanager
async def answering(context: Context) -> AsyncGenerator[None]:
    """The lab's agent answers meanwhile, if there is one."""
    agent = _agents.get(context.db)
    tasks = [asyncio.create_task(agent.serve())] if agent is not None else []
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class FakeAgent:
    def __init__(self, context: Context, node: Node) -> None:
        self.context = context
        self.node = node
        self.programs: list[Program] = []
        self.asked: list[Verb] = []
        """What it was asked to do, in order."""
        self.silent = False
        self.finds_devices = True
        """Whether it can shut them."""
        self._connection = ""
        _agents[context.db] = self

    async def sign_in(self, *cards: FoundAccelerator) -> None:
        self._connection = await accelerators.record_hello(
            self.context, self.node, cards, version="fake", has_nvidia_driver=False
        )

    def open(
        self, container: str, path: str, command: str, manner: Manner = Manner.POLITE
    ) -> Process:
        """A program begins to use a device."""
        process = Process(4000 + len(self.programs), command, container, "alice")
        self.programs.append(Program(process, path, manner))
        return process

    def users(self, path: str) -> list[str]:
        """The programs that have a device open."""
        return [each.process.command for each in self.programs if each.path == path]

    async def serve(self) -> None:
        """Answer for ever."""
        async for order in agents.orders(self.context, self.node.id, self._connection):
            if not self.silent:
                self.asked.append(order.verb)
                found = self._obey(order)
                await agents.answer(self.context, self.node.id, order.id, found)

    def _obey(self, order: Revocation) -> Revoked:
        found = [each for each in self.programs if _uses(each, order.container, order.devices)]
        ending = {
            Verb.SHUT: set[Manner](),
            Verb.ASK: {Manner.POLITE},
            Verb.END: {Manner.POLITE, Manner.STUBBORN},
        }[order.verb]
        self.programs = [
            each for each in self.programs if each not in found or each.manner not in ending
        ]
        is_shut = self.finds_devices and order.verb is not Verb.ASK
        return Revoked(tuple(each.process for each in found), is_shut)


def _uses(program: Program, container: str, devices: Sequence[OpenedDevice]) -> bool:
    return program.process.container == container and program.path in {
        each.path for each in devices
    }
