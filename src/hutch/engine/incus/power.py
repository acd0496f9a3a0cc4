"""Starts and stops containers, and knows when to believe what the server says of that."""

import asyncio
from typing import cast

import structlog

from hutch.engine.base import Power
from hutch.engine.incus import devices, programs, spec
from hutch.engine.incus.client import Client, Json, cancel, part
from hutch.errors import EngineConflictError, EngineError, EngineUnavailableError

log = structlog.get_logger(__name__)

_HALT = 37
"""SIGRTMIN+3, by which systemd is told to halt."""
_PAUSE = 0.05
"""Seconds between two looks whether a container has come to rest."""
_LOOKS = 600
_IN_A_ROW = 3
"""Looks that have to agree on it."""


class Switch:
    """Each method acts, whatever is so already; what that means is the caller's business."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def is_off(self, name: str) -> bool:
        return await self._power(name) is Power.STOPPED

    async def is_on(self, name: str) -> bool:
        """Whether it runs. For about a second after a start that failed, the server says so of a
        container in which nothing runs: hence the second question, which is seldom asked."""
        return await self._power(name) is Power.RUNNING and await self._has_processes(name)

    async def _power(self, name: str) -> Power:
        instance = await self._client.get(f"/instances/{part(name)}")
        return spec.observed(cast("Json", instance)).power

    async def _has_processes(self, name: str) -> bool:
        try:
            state = cast("Json", await self._client.get(f"/instances/{part(name)}/state"))
        except EngineError as error:
            log.debug("no state of a container", container=name, reason=error.message)
            return False
        return int(state["pid"]) > 0

    async def start(self, name: str) -> None:
        """Start, without the devices on loan that the node has lost."""
        while True:
            try:
                return await self._set(name, {"action": "start", "timeout": -1})
            except EngineConflictError:
                raise
            except EngineError as error:
                await self.come_to_rest(name)
                lost = devices.lost(error.message)
                if lost is None or not await devices.take_away(self._client, name, [lost]):
                    raise
                log.warning("device lost", container=name, device=lost, reason=error.message)

    async def come_to_rest(self, name: str) -> None:
        """Wait until a start that failed is cleared away: before that the server refuses to change
        the container, and to start it. It says one thing and the other meanwhile."""
        at_rest = 0
        for _ in range(_LOOKS):
            if await self.is_off(name):
                at_rest += 1
            elif await self._has_processes(name):
                return
            else:
                at_rest = 0
            if at_rest == _IN_A_ROW:
                return
            await asyncio.sleep(_PAUSE)

    async def stop(self, name: str, timeout: float) -> None:
        """Shut down; after `timeout` seconds, if that is at least one, by force."""
        if timeout >= 1:
            nudging = asyncio.create_task(self._nudge(name))
            try:
                return await self._set(name, {"action": "stop", "timeout": int(timeout)})
            except EngineConflictError:
                raise
            except EngineError as error:
                log.info("container is stopped by force", container=name, reason=error.message)
            finally:
                await cancel(nudging)
        return await self._set(name, {"action": "stop", "timeout": -1, "force": True})

    async def _nudge(self, name: str) -> None:
        """Repeat the request to shut down, which a system that has only just begun to boot does
        not hear: at first soon and then less and less so."""
        pause = 2.0
        while True:
            await asyncio.sleep(pause)
            pause *= 2
            try:
                argv = ["sh", "-c", f"kill -{_HALT} 1"]
                await programs.run(self._client, name, argv, timeout=pause)
            except (EngineError, EngineUnavailableError) as error:
                log.debug("container not asked again to stop", container=name, why=error.message)

    async def _set(self, name: str, body: Json) -> None:
        await self._client.send("PUT", f"/instances/{part(name)}/state", body)
