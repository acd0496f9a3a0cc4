"""The engine protocol over one Incus (or LXD) server."""

import itertools
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import structlog

from hutch.domain.accelerators import FoundAccelerator
from hutch.domain.limits import Limits
from hutch.domain.sizes import format_size
from hutch.engine.base import (
    Change,
    ContainerSpec,
    Device,
    ExecResult,
    Forward,
    NodeStatus,
    Observed,
    Power,
    Usage,
    check_device_names,
    check_devices,
)
from hutch.engine.files import Files
from hutch.engine.incus import banner, disks, files, programs, sftp, terminals
from hutch.engine.incus import devices as loans
from hutch.engine.incus import spec as bodies
from hutch.engine.incus.accelerators import found_accelerators
from hutch.engine.incus.client import (
    Certificates,
    Client,
    Json,
    OperationLostError,
    part,
)
from hutch.engine.incus.power import Switch
from hutch.engine.incus.server import Server
from hutch.engine.incus.streams import Streams
from hutch.engine.incus.watch import Listing
from hutch.engine.streams import EngineStream
from hutch.engine.terminals import EngineTerminal
from hutch.errors import (
    EngineConflictError,
    EngineError,
    EngineNotFoundError,
)

log = structlog.get_logger(__name__)


class IncusEngine:
    """Containers of one project of one server, on one storage pool and one bridge."""

    def __init__(
        self,
        url: str,
        *,
        project: str,
        pool: str,
        network: str,
        certificates: Certificates | None = None,
    ) -> None:
        """`url` is `unix:///path/to/socket`, or `https://host:port` with `certificates`."""
        self._client = Client(url, project, certificates=certificates)
        self._pool = pool
        self._network = network
        self._server = Server(self._client, pool)
        self._switch = Switch(self._client)
        self._streams = Streams(self._client)
        self._listing = Listing(self._client, self.get)

    async def close(self) -> None:
        await self._streams.close()
        await self._listing.watcher.close()
        await self._client.close()

    # -- looking -------------------------------------------------------------------------------

    async def status(self) -> NodeStatus:
        return await self._server.status()

    async def images(self) -> list[str]:
        aliases = await self._client.get("/images/aliases", recursion=1)
        return sorted(alias["name"] for alias in cast("list[Json]", aliases))

    async def containers(self) -> list[Observed]:
        return await self._listing.read()

    async def get(self, name: str) -> Observed | None:
        instance = await self._client.find(f"/instances/{part(name)}")
        return bodies.observed(instance) if instance else None

    async def _instance(self, name: str) -> Json:
        return cast("Json", await self._client.get(f"/instances/{part(name)}"))

    async def usage(self, name: str) -> Usage:
        state = cast("Json", await self._client.get(f"/instances/{part(name)}/state"))
        disk = await self._disk_used(name)
        if disk is None:
            root = cast("dict[str, Json]", state.get("disk") or {}).get("root", {})
            disk = int(root.get("usage", 0))
        if state["status"] == "Stopped":
            return Usage(cpu_seconds=0.0, memory=0, disk=disk, processes=0)
        return Usage(
            cpu_seconds=max(0, int(state["cpu"]["usage"])) / 1e9,
            memory=max(0, int(state["memory"]["usage"])),
            disk=disk,
            processes=max(0, int(state["processes"])),
        )

    async def _disk_used(self, name: str) -> int | None:
        """Bytes that count against the disk's limit, where the server itself tells something else
        and they can be measured."""
        if await self._server.storage_driver() != "btrfs":
            return None
        path = disks.volume_path(self._client.socket, self._client.project, self._pool, name)
        return await disks.referenced(path) if path else None

    # -- making it so --------------------------------------------------------------------------

    @asynccontextmanager
    async def _changing(self, name: str) -> AsyncGenerator[None]:
        """Have the listing look again at a container that is changed here, before and after."""
        self._listing.touched(name)
        try:
            yield
        finally:
            self._listing.touched(name)

    async def _ensure(
        self,
        name: str,
        is_so: Callable[[], Awaitable[bool]],
        act: Callable[[], Awaitable[Any]],
    ) -> None:
        """Act unless it is already so. What counts in the end is what is there: the act may fail
        because another did the same, and the server may forget what it was asked."""
        if await is_so():
            return
        try:
            await self._apply(name, act)
        except (EngineError, OperationLostError):
            if not await is_so():
                raise

    async def _change(self, name: str, body: Json) -> None:
        """Change what `body` names and leave the rest."""
        await self._apply(
            name, lambda: self._client.send("PATCH", f"/instances/{part(name)}", body)
        )

    async def _apply(self, name: str, act: Callable[[], Awaitable[Any]]) -> None:
        """Act, once more with a little room when the container's disk is full."""
        async with self._changing(name):
            try:
                await act()
            except EngineError as error:
                if not disks.is_full(error):
                    raise
                instance = await self._instance(name)
                body = disks.widened(instance, bodies.root_disk(instance))
                await self._client.send("PATCH", f"/instances/{part(name)}", body)
                await act()

    async def create(self, spec: ContainerSpec, *, start: bool = False) -> None:
        flavour = await self._server.flavour()
        for forward in spec.forwards:
            await self._refuse_taken_port(spec.name, forward)
        body = bodies.instance_body(
            spec,
            pool=self._pool,
            network=self._network,
            guest_api=flavour.guest_api,
            start=start and flavour.starts_what_it_creates,
        )
        async with self._changing(spec.name):
            try:
                await self._client.send("POST", "/instances", body)
            except (EngineError, OperationLostError) as error:
                if not await self._adopt(spec.name, error):
                    await self._client.send("POST", "/instances", body)
        if start:
            # Costs one look at a container that runs; one that was there may be stopped.
            await self.start(spec.name)

    async def _adopt(self, name: str, error: Exception) -> bool:
        """Accept the container that is there instead of the one that could not be made.

        One whose making was begun by another, or by a hutch that has died, is waited for. One that
        an Incus which has died left unfinished is removed: False. Raises `error` when there is
        none.
        """
        part(name)
        operation = await self._operation_on(name)
        if operation:
            log.info("waiting for a container that is already being made", container=name)
            try:
                await self._client.wait(operation)
            except (EngineError, OperationLostError) as failure:
                log.info("the other making failed", container=name, reason=failure.message)
        found = await self._client.find(f"/instances/{part(name)}")
        if not found:
            raise error
        if bodies.is_whole(found):
            if type(error) is EngineError:
                # It was made, and did not start.
                await self._switch.come_to_rest(name)
            return True
        log.warning("removing a container that was never made whole", container=name)
        await self._client.send("DELETE", f"/instances/{part(name)}")
        return False

    async def _operation_on(self, name: str) -> str | None:
        """The running operation of the server that works on a container."""
        found = cast("dict[str, list[Json]]", await self._client.get("/operations", recursion=1))
        for operation in (found or {}).get("running", []):
            resources = cast("dict[str, list[str] | None]", operation.get("resources") or {})
            for url in itertools.chain.from_iterable(urls or [] for urls in resources.values()):
                if url.split("?")[0].rsplit("/", 1)[-1] == name:
                    return str(operation["id"])
        return None

    async def start(self, name: str) -> None:
        switch = self._switch
        await self._ensure(name, lambda: switch.is_on(name), lambda: switch.start(name))

    async def stop(self, name: str, *, timeout: float = 30.0) -> None:
        switch = self._switch
        await self._ensure(name, lambda: switch.is_off(name), lambda: switch.stop(name, timeout))
        await self._take_slack_back(name)

    async def delete(self, name: str) -> None:
        async def is_gone() -> bool:
            return await self.get(name) is None

        await self._ensure(name, is_gone, lambda: self._delete(name))

    async def _delete(self, name: str) -> None:
        if not await self._switch.is_off(name):
            await self.stop(name, timeout=0)
        await self._client.send("DELETE", f"/instances/{part(name)}")

    async def set_limits(self, name: str, limits: Limits) -> None:
        await self._change(name, await self._limiting(await self._instance(name), limits))

    async def _limiting(self, instance: Json, limits: Limits) -> Json:
        """The limits as a body to PATCH. Raises EngineError when the disk would be too small."""
        shrinks, slack = bodies.shrinks(instance, limits.disk), disks.slack_of(instance)
        tidied = False
        if (shrinks or slack) and await self._server.storage_driver() == "btrfs":
            name: str = instance["name"]
            used = await self._disk_used(name)
            if shrinks:
                disks.check_shrink(name, limits.disk, used)
            tidied = disks.fits(used, limits.disk)
        return bodies.resized(instance, limits, tidied=tidied)

    async def _take_slack_back(self, name: str) -> None:
        """Undo the room that a full disk was given, once its owner has tidied up: it is there for
        the next time, however often that is."""
        instance = await self._client.find(f"/instances/{part(name)}")
        promised = bodies.observed(instance).limits if instance else None
        if not instance or not promised or not disks.slack_of(instance):
            return
        try:
            await self._change(name, await self._limiting(instance, promised))
        except EngineError as error:
            log.warning("disk keeps its room", container=name, reason=error.message)

    async def set_labels(self, name: str, labels: Mapping[str, str]) -> None:
        await self._change(name, {"config": bodies.labels_config(labels)})

    async def set_forward(self, name: str, forward: Forward) -> None:
        instance = await self._instance(name)
        await self._change(name, {"devices": await self._forwarding(instance, forward)})

    async def prepare(
        self, name: str, *, limits: Limits, forward: Forward, labels: Mapping[str, str]
    ) -> None:
        instance = await self._instance(name)
        body = await self._limiting(instance, limits)
        body["devices"] |= await self._forwarding(instance, forward)
        body["config"] |= bodies.labels_config(labels)
        await self._change(name, body)

    async def _forwarding(self, instance: Json, forward: Forward) -> Json:
        """The forward as devices to PATCH."""
        name: str = instance["name"]
        await self._refuse_taken_port(name, forward)
        address = bodies.address(instance)
        if address is None:
            raise EngineError(
                f"Container {name} has no fixed address to forward a port to.",
                hint="Someone changed its network card by hand: give it its address back.",
            )
        return bodies.forward_devices((forward,), address)

    async def _refuse_taken_port(self, name: str, forward: Forward) -> None:
        """The server would install a second forward of the same port without a word."""
        wanted = (forward.protocol, forward.listen_address, forward.listen_port)
        for container in await self.containers():
            for each in container.forwards:
                if (container.name, each.name) == (name, forward.name):
                    continue
                if (each.protocol, each.listen_address, each.listen_port) == wanted:
                    raise EngineConflictError(
                        f"Port {forward.listen_port} of {forward.listen_address} already leads to "
                        f"{container.name}.",
                        container=container.name,
                    )

    async def remove_forward(self, name: str, forward_name: str) -> None:
        await self._take_away(name, [bodies.forward_device(forward_name)])

    async def _take_away(self, name: str, devices: Collection[str]) -> None:
        take_away = partial(loans.take_away, self._client, name, devices)
        await self._lend(name, take_away, lambda found: found.keys().isdisjoint(devices))

    async def _lend(
        self, name: str, act: Callable[[], Awaitable[Any]], is_so: Callable[[Json], bool]
    ) -> None:
        """Change devices. On a full disk the server does so and then fails to write that down:
        nobody must keep a device by filling their disk, so what counts is what is there."""
        try:
            await self._apply(name, act)
        except EngineError as error:
            instance = await self._client.find(f"/instances/{part(name)}")
            if not instance or not is_so(instance["devices"]):
                raise
            log.warning("devices changed all the same", container=name, reason=error.message)

    # -- devices of the node -------------------------------------------------------------------

    async def accelerators(self) -> list[FoundAccelerator]:
        return found_accelerators(await self._client.get("/resources"))

    async def attach(self, name: str, devices: Sequence[Device]) -> None:
        check_devices(devices)
        wanted = loans.devices_config(devices)
        path = f"/instances/{part(name)}"
        give = partial(self._client.send, "PATCH", path, {"devices": wanted})
        await self._lend(name, give, lambda found: wanted.items() <= found.items())

    async def detach(self, name: str, devices: Sequence[str]) -> None:
        check_device_names(devices)
        await self._take_away(name, [loans.device_name(each) for each in devices])

    async def set_nvidia_driver(self, name: str, wanted: bool) -> None:
        await self._change(name, {"config": loans.driver_config(wanted)})

    # -- snapshots -----------------------------------------------------------------------------

    async def snapshots(self, name: str) -> list[str]:
        found = cast(
            "list[Json]", await self._client.get(f"/instances/{part(name)}/snapshots", recursion=1)
        )
        # Times have nanoseconds: as text they sort by age only when written alike, which they are.
        oldest_first = sorted(found, key=lambda each: each["created_at"])
        return [each["name"].rsplit("/", 1)[-1] for each in oldest_first]

    async def snapshot(self, name: str, snapshot: str) -> None:
        async def is_there() -> bool:
            return await self._snapshot(name, snapshot) is not None

        await self._instance(name)
        body = {"name": part(snapshot), "stateful": False}
        await self._ensure(
            name,
            is_there,
            lambda: self._client.send("POST", f"/instances/{part(name)}/snapshots", body),
        )

    async def _snapshot(self, name: str, snapshot: str) -> Json | None:
        return await self._client.find(f"/instances/{part(name)}/snapshots/{part(snapshot)}")

    async def restore(self, name: str, snapshot: str) -> None:
        path = f"/instances/{part(name)}"
        before = await self._instance(name)
        if bodies.observed(before).power is not Power.STOPPED:
            raise EngineError(
                f"Container {name} must be stopped before it is restored.", container=name
            )
        taken = await self._snapshot(name, snapshot)
        if not taken:
            raise EngineNotFoundError(f"Container {name} has no snapshot {snapshot}.")
        if bodies.disk_of(taken) > bodies.disk_of(before):
            # More may be in it than the disk may hold now, and then nothing could be repaired.
            raise EngineError(
                f"Snapshot {snapshot} was taken when the disk was larger: "
                f"{format_size(bodies.disk_of(taken))}.",
                hint=f"Make the disk {format_size(bodies.disk_of(taken))} large, then restore.",
                container=name,
            )
        async with self._changing(name):
            await self._client.send("PUT", path, {"restore": snapshot})
        # The server puts the settings back as well. Those are not the snapshot's to decide: the
        # quota may be another by now, and the port someone else's.
        await self._apply(name, lambda: self._client.send("PUT", path, loans.writable(before)))

    async def delete_snapshot(self, name: str, snapshot: str) -> None:
        async def is_gone() -> bool:
            return await self._snapshot(name, snapshot) is None

        path = f"/instances/{part(name)}/snapshots/{part(snapshot)}"
        await self._ensure(name, is_gone, lambda: self._client.send("DELETE", path))

    # -- inside --------------------------------------------------------------------------------

    async def exec(
        self,
        name: str,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        environment: Mapping[str, str] | None = None,
        user: int = 0,
        group: int = 0,
        cwd: str = "/",
        timeout: float = 30.0,
        most_output: int = 1024 * 1024,
    ) -> ExecResult:
        return await programs.run(
            self._client,
            name,
            argv,
            stdin=stdin,
            environment=environment,
            user=user,
            group=group,
            cwd=cwd,
            timeout=timeout,
            most_output=most_output,
        )

    async def read_file(self, name: str, path: str, *, most: int = 1024 * 1024) -> bytes | None:
        try:
            return await files.read(self._client, name, path, most=most)
        except EngineNotFoundError:
            await self._instance(name)  # raises when it is the container that is not there
            return None

    @asynccontextmanager
    async def files(self, name: str) -> AsyncGenerator[Files]:
        async with sftp.opened(self._client, name) as found:
            yield found

    @asynccontextmanager
    async def terminal(
        self,
        name: str,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        columns: int,
        rows: int,
    ) -> AsyncGenerator[EngineTerminal]:
        async with terminals.opened(
            self._client, name, argv, environment=environment, columns=columns, rows=rows
        ) as terminal:
            yield terminal

    @asynccontextmanager
    async def connect(self, name: str, port: int) -> AsyncGenerator[EngineStream]:
        async with self._streams.opened(name, port) as stream:
            yield stream

    async def wait_for_banner(self, name: str, host: str, port: int, *, timeout: float) -> bool:
        began = time.monotonic()
        answers = await banner.wait_for_banner(host, port, timeout=timeout)
        log.debug(
            "waited for the SSH server",
            container=name,
            answers=answers,
            seconds=round(time.monotonic() - began, 3),
        )
        return answers

    def changes(self) -> AsyncIterator[Change]:
        return self._listing.watcher.changes()
