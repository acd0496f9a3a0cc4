"""The connection to the server: kept up for ever, and begun anew whenever it breaks.

Nothing of importance is in it. After a break the agent says everything again, and the server asks
again what it has had no answer to.
"""

import asyncio
import json
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from hutch import __version__
from hutch.agent.credentials import read_token
from hutch.agent.threads import in_thread
from hutch.agent.watch import Look, Watch
from hutch.domain.accelerators import (
    FoundAccelerator,
    Health,
    OpenedDevice,
    Process,
    Reading,
    Revoked,
    Vendor,
    Verb,
)
from hutch.errors import ConfigurationError, HutchError

log = structlog.get_logger("hutch.agent")

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds before a connection that broke is tried again: doubled each time, and half of it left
to chance, so that the agents of a lab do not all come at once."""
REFUSED_PAUSE = 10.0
"""The same when the server does not want this agent: a person has to do something."""
HANG_SECONDS = 30.0
"""A look that has not come back after this will not: a device's driver has hung."""
LARGEST_MESSAGE = 1024 * 1024
PING_SECONDS = 10.0
KEPT_ANSWERS = 256
REPLACED = 4409
"""The code with which the server ends a connection when another one came."""

CarryOut = Callable[[Verb, str, Sequence[OpenedDevice]], Revoked]


class Agent:
    """Watches a node's accelerators, tells the server, and does what it is asked."""

    def __init__(
        self,
        server: str,
        token_file: Path,
        watch: Watch,
        carry_out: CarryOut,
        *,
        interval: float,
    ) -> None:
        """`server` is the server's address, `interval` the seconds between two looks."""
        self._url = socket_url(server)
        self._token_file = token_file
        self._watch = watch
        self._carry_out = carry_out
        self._interval = interval
        self._look: Look | None = None
        self._looked = asyncio.Event()
        self._answers: OrderedDict[str, dict[str, Any]] = OrderedDict()
        """What was done, by the order's id: asked again after a break, it is not done again."""
        self._one_at_a_time = asyncio.Lock()
        self._pause = FIRST_PAUSE

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_looking())
            group.create_task(self._stay_connected())

    # -- looking -------------------------------------------------------------------------------

    async def _keep_looking(self) -> None:
        while True:
            began = time.monotonic()
            look = asyncio.ensure_future(in_thread(self._watch.look))
            done, _ = await asyncio.wait({look}, timeout=HANG_SECONDS)
            while not done:
                self._tell_of_hanging(time.monotonic() - began)
                done, _ = await asyncio.wait({look}, timeout=self._interval)
            try:
                self._look = look.result()
            except Exception:
                log.exception("a look at the accelerators failed")
            self._looked.set()
            await asyncio.sleep(max(0.0, self._interval - (time.monotonic() - began)))

    def _tell_of_hanging(self, seconds: float) -> None:
        """Nobody knows which device it is: none of the real ones is well."""
        found, readings = self._look or ([], [])
        reason = f"The node's devices have not answered for {seconds:.0f} s."
        log.error("a look at the accelerators has not come back", seconds=round(seconds))
        hanging = {each.address for each in found if each.vendor is not Vendor.SIMULATED}
        self._look = (
            [_failed(each, reason) if each.address in hanging else each for each in found],
            [_failed_reading(each, reason) if each.address in hanging else each
             for each in readings],
        )  # fmt: skip
        self._looked.set()

    # -- the connection ------------------------------------------------------------------------

    async def _stay_connected(self) -> None:
        while True:
            pause = None
            try:
                await self._converse()
            except* InvalidStatus as group:
                pause = self._refused(_first(group).response.status_code)
            except* ConnectionClosed as group:
                pause = self._closed(_first(group))
            except* (OSError, InvalidHandshake, InvalidURI, TimeoutError, HutchError) as group:
                log.warning("the server cannot be reached", url=self._url, reason=_why(group))
            except* Exception:
                # A server that says nonsense, or a mistake of ours: either is no reason to end.
                log.exception("the connection has failed")
            # Being told to end in the very moment in which a connection breaks comes out of the
            # task group as the break alone (Python before 3.13): it counts all the same.
            if (task := asyncio.current_task()) and task.cancelling():
                raise asyncio.CancelledError
            if pause is None:
                pause = self._pause * random.uniform(0.5, 1)  # noqa: S311 - no secret
                self._pause = min(self._pause * 2, LONGEST_PAUSE)
            await asyncio.sleep(pause)

    def _refused(self, status: int) -> float | None:
        if status == 401:
            log.error("the server does not know this agent's token", file=str(self._token_file),
                      hint="`hutch node token NODE` makes a new one.")  # fmt: skip
            return REFUSED_PAUSE
        log.warning("the server refuses the connection", url=self._url, status=status)
        return REFUSED_PAUSE if status in {403, 404} else None

    def _closed(self, closed: ConnectionClosed) -> float | None:
        code = None if closed.rcvd is None else closed.rcvd.code
        log.warning("the connection has ended", code=code, reason=str(closed))
        if code == REPLACED:
            log.error("another agent has signed in with this node's token, or it has a new one")
            return REFUSED_PAUSE
        return None

    async def _converse(self) -> None:
        """One connection, until it breaks."""
        while self._look is None:
            self._looked.clear()
            await self._looked.wait()
        async with _Straight(
            self._url,
            additional_headers={"Authorization": f"Bearer {read_token(self._token_file)}"},
            user_agent_header=f"hutch/{__version__}",
            compression=None,
            # As the command line does: the server is near, and a proxy is for far away.
            proxy=None,
            max_size=LARGEST_MESSAGE,
            ping_interval=PING_SECONDS,
            ping_timeout=PING_SECONDS,
            close_timeout=1,
        ) as socket:
            found, _ = self._look
            await _say(socket, self._hello(found))
            server_clock = _ServerClock()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._tell(socket, found))
                while True:
                    message: dict[str, Any] = json.loads(await socket.recv())
                    match message.get("type"):
                        case "welcome":
                            server_clock.set(float(message["now"]))
                            self._pause = FIRST_PAUSE
                            log.info("signed in", node=message["node"], url=self._url,
                                     accelerators=len(found))  # fmt: skip
                        case "do":
                            group.create_task(self._do(socket, server_clock, message))
                        case "error":
                            log.error("the server refuses what was said", reason=message)
                        case _:
                            # A newer server may say more.
                            pass

    def _hello(self, found: list[FoundAccelerator]) -> dict[str, Any]:
        return {
            "type": "hello",
            "version": __version__,
            "boot_id": boot_id(),
            "nvidia_container": self._watch.has_nvidia_driver,
            "accelerators": [each.as_dict() for each in found],
        }

    async def _tell(self, socket: ClientConnection, told: list[FoundAccelerator]) -> None:
        """Say what changed, and what was read."""
        since = time.monotonic()
        while True:
            self._looked.clear()
            found, readings = self._look or ([], [])
            if found != told:
                told = found
                have = [each.as_dict() for each in found]
                await _say(socket, {"type": "accelerators", "accelerators": have})
            now = time.monotonic()
            # What was not told while there was no connection is not made up for.
            seconds = min(now - since, 2 * self._interval)
            since = now
            await _say(socket, {"type": "readings", "seconds": seconds,
                                "readings": [each.as_dict() for each in readings]})  # fmt: skip
            await self._looked.wait()

    # -- orders --------------------------------------------------------------------------------

    async def _do(
        self, socket: ClientConnection, clock: "_ServerClock", order: dict[str, Any]
    ) -> None:
        async with self._one_at_a_time:
            # Asked again after a break, or while it was at it: answered again, and not done again.
            answer = self._answers.get(order["id"])
            if answer is None:
                if clock.now() > float(order["until"]):
                    # It lay about too long, here or on the way: what it names may be another's now.
                    log.warning("an order came too late", order=order["id"])
                    await socket.close(1000, "the clocks differ")
                    return
                answer = await self._done(order)
        if answer is not None:
            with suppress(ConnectionClosed):
                await _say(socket, {"type": "done", "id": order["id"], **answer})

    async def _done(self, order: dict[str, Any]) -> dict[str, Any] | None:
        """Do it; what is answered, None for nothing: then the server asks again."""
        devices = [OpenedDevice(**each) for each in order["devices"]]
        try:
            verb, container = Verb(order["verb"]), str(order["container"])
            done = await in_thread(lambda: self._carry_out(verb, container, devices))
        except Exception:
            log.exception("an order could not be carried out", order=order["id"])
            return None
        answer = {"processes": [_as_dict(each) for each in done.processes], "is_shut": done.is_shut}
        self._answers[order["id"]] = answer
        while len(self._answers) > KEPT_ANSWERS:
            self._answers.popitem(last=False)
        return answer


class _Straight(connect):
    """A connection that is not sent on: the token is for the server that was named."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class _ServerClock:
    """The server's time, which no leap of the node's clock changes, and no sleep of the node."""

    def __init__(self) -> None:
        self._offset = 0.0

    def set(self, now: float) -> None:
        self._offset = now - time.clock_gettime(time.CLOCK_BOOTTIME)

    def now(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME) + self._offset


def socket_url(server: str) -> str:
    """Where the server takes agents. Raises ConfigurationError when that is no address."""
    parts = urlsplit(server)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigurationError(
            f"{server!r} is no address of a server.",
            hint="Give it as http://127.0.0.1:7480, or https:// and a name.",
        )
    scheme = "wss" if parts.scheme == "https" else "ws"
    return f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}/api/v1/agent"


def boot_id() -> str:
    """Changes with every start of the node."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


async def _say(socket: ClientConnection, message: dict[str, Any]) -> None:
    await socket.send(json.dumps(message))


def _as_dict(process: Process) -> dict[str, Any]:
    return {
        "pid": process.pid,
        "command": process.command,
        "container": process.container,
        "user": process.user,
        "memory": process.memory,
    }


def _failed(found: FoundAccelerator, reason: str) -> FoundAccelerator:
    return FoundAccelerator(
        found.address, found.vendor, found.model, found.memory, found.uuid, found.nodes,
        found.shared, Health.FAILED, reason,
    )  # fmt: skip


def _failed_reading(reading: Reading, reason: str) -> Reading:
    return Reading(reading.address, None, None, None, None, Health.FAILED, reason)


def _first(group: BaseExceptionGroup[Any]) -> Any:
    first: Any = group.exceptions[0]
    while isinstance(first, BaseExceptionGroup):
        first = cast("BaseExceptionGroup[Any]", first).exceptions[0]
    return first


def _why(group: BaseExceptionGroup[Any]) -> str:
    error: BaseException = _first(group)
    return str(error) or type(error).__name__
