"""Running the agent of a node until it is told to stop."""

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from hutch.agent import quotas, revoke
from hutch.agent.connection import Agent
from hutch.agent.credentials import read_token
from hutch.agent.simulated import MAJOR, Simulated
from hutch.agent.watch import Watch
from hutch.domain.accelerators import OpenedDevice, Revoked, Verb
from hutch.errors import ConfigurationError

log = structlog.get_logger("hutch.agent")


def run(server: str, token_file: Path, simulated: Simulated, *, interval: float) -> None:
    """Watch and obey until SIGTERM or SIGINT.

    Raises ConfigurationError for a token that cannot be used, a server that is no address, or a
    simulated device whose name something else has.
    """
    read_token(token_file)
    # Also with none: those of before are removed.
    simulated.make_devices()
    if os.geteuid() != 0:
        log.warning("not root: nobody is asked to let go of a device, and devices are not made")
    agent = Agent(server, token_file, Watch(simulated), carry_out, interval=interval)
    asyncio.run(_until_stopped(agent))


def carry_out(verb: Verb, container: str, devices: Sequence[OpenedDevice]) -> Revoked:
    """Do what was ordered, as far as this process may.

    Raises ConfigurationError without root's rights, unless there is nothing to do: a simulated
    engine has no processes, and without root no real one has simulated devices.
    """
    if os.geteuid() == 0:
        return revoke.carry_out(verb, container, devices)
    if all(each.major == MAJOR for each in devices):
        return Revoked()
    raise ConfigurationError("Only root sees who has a device open.", hint="Run it as root.")


async def _work(agent: Agent) -> None:
    # Not a task group: what ends the agent is told as it is, and Python before 3.13 can lose a
    # cancellation that comes with it.
    keeping = asyncio.create_task(quotas.keep()) if os.geteuid() == 0 else None
    try:
        await agent.run()
    finally:
        if keeping is not None:
            keeping.cancel()


async def _until_stopped(agent: Agent) -> None:
    loop = asyncio.get_running_loop()
    working = asyncio.ensure_future(_work(agent))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, working.cancel)
    with suppress(asyncio.CancelledError):
        await working
