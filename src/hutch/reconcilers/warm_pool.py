"""Keeps as many containers ready per node and image as the administrator wants."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from hutch.domain.images import Image
from hutch.domain.instances import Container, ContainerRole
from hutch.domain.nodes import Capacity, Node, NodeState, has_room
from hutch.domain.operations import Kind, Operation, OperationState
from hutch.domain.people import SYSTEM
from hutch.errors import BusyError, NoAddressLeftError
from hutch.reconcilers.reach import answer, each_node
from hutch.services.context import Context
from hutch.services.operations import enqueue
from hutch.store import containers, images, nodes, operations
from hutch.store.db import Session, lock

log = structlog.get_logger(__name__)

BUSY_LOAD = 0.7
"""Runnable processes per processor, over a minute, above which a machine is not quiet."""
PATIENCE_SECONDS = 600.0
"""A machine that computes day and night is never quiet: after this long its load is ignored."""
FIRST_PAUSE = 30.0
"""Seconds until another attempt after one that failed; doubled each time."""
LONGEST_PAUSE = 3600.0
_POOL = frozenset({Kind.POOL_ADD.value, Kind.POOL_REMOVE.value})
_WORKING = frozenset({OperationState.PENDING, OperationState.RUNNING})
_MANY = 500


def making(node_id: str) -> str:
    """The target of a node's additions: one at a time."""
    return f"pool:{node_id}"


def removing(container_id: str) -> str:
    """The target of a container's removal."""
    return f"container:{container_id}"


class TakenError(Exception):
    """The container has become someone's: nothing of the transaction is wanted any more."""


async def withdraw(session: Session, context: Context, container: Container) -> None:
    """Begin to remove a container of the pool, out of reach for whoever looks for one.

    Raises BusyError when that has begun, TakenError when someone was faster; let both end the
    transaction.
    """
    await containers.set_role(session, container.id, ContainerRole.OUTGOING)
    # Read after the row is ours: whoever took it before has left their mark.
    known = await containers.get_container(session, container.id)
    if known is None or known.instance_id is not None:
        raise TakenError
    await enqueue(
        session,
        context,
        SYSTEM,
        Kind.POOL_REMOVE,
        removing(container.id),
        owner_id=None,
        label=container.engine_name,
        params={"container": container.id},
    )


@dataclass(slots=True)
class _Attempt:
    """The last addition to a pool."""

    operation_id: str
    failures: int
    not_before: float


class WarmPool:
    name = "warm_pool"

    def __init__(self, context: Context, clock: Callable[[], float] = time.monotonic) -> None:
        self._context = context
        self._clock = clock
        self._attempts: dict[tuple[str, str], _Attempt] = {}
        self._short_since: dict[str, float] = {}

    async def reconcile(self) -> float | None:
        async with self._context.db.read() as session:
            wanted = await images.list_images(session)
            everything = await nodes.list_nodes(session)

        async def look(node: Node) -> float | None:
            return await self._look(node, wanted)

        return await each_node("filling a pool", everything, look)

    async def _look(self, node: Node, wanted: list[Image]) -> float | None:
        if node.unreachable_since is not None:
            return None
        short: Image | None = None
        for image in wanted:
            async with self._context.db.read() as session:
                count = await containers.count_pool(session, node.id, image.id)
            if count > image.pool_size:
                await self._shrink(node, image)
            elif count < image.pool_size and short is None and await self._may_try(node, image):
                short = image
        if short is None:
            self._short_since.pop(node.id, None)
        elif await self._has_space(node) and await self._is_quiet(node):
            await self._add(node, short)
        return None

    async def _may_try(self, node: Node, image: Image) -> bool:
        """Whether the last attempt did not fail, or long enough ago."""
        attempt = self._attempts.get((node.id, image.id))
        if attempt is None:
            return True
        if attempt.operation_id:
            async with self._context.db.read() as session:
                last = await operations.get_operation(session, attempt.operation_id)
            if last is not None and last.state in _WORKING | {OperationState.STUCK}:
                return False
            if last is None or last.state is OperationState.DONE:
                del self._attempts[node.id, image.id]
                return True
            self._put_off(attempt)
        return attempt.not_before <= self._clock()

    def _put_off(self, attempt: _Attempt) -> None:
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(attempt.failures, 16))
        attempt.failures += 1
        attempt.operation_id = ""
        attempt.not_before = self._clock() + pause

    async def _has_space(self, node: Node) -> bool:
        """Whether the node would still take an instance: else there is nothing to prepare for."""
        settings = self._context.settings
        if node.state is not NodeState.ACTIVE:
            return False
        if node.capacity.disk - node.disk_used < settings.disk_reserve:
            return False
        async with self._context.db.read() as session:
            promised = await nodes.promised(session)
        given = promised.get(node.id, Capacity(0, 0, 0))
        return has_room(node.capacity, given, settings.default_limits, settings.overcommit)

    async def _is_quiet(self, node: Node) -> bool:
        async with self._context.db.read() as session:
            working = await operations.list_operations(session, states=_WORKING, limit=_MANY)
        if any(self._is_work(operation) for operation in working):
            return False
        since = self._short_since.setdefault(node.id, self._clock())
        if not node.url.startswith("unix:"):
            # Nothing is known of the load of another machine.
            return True
        load = os.getloadavg()[0] / (os.cpu_count() or 1)
        return load < BUSY_LOAD or self._clock() - since > PATIENCE_SECONDS

    def _is_work(self, operation: Operation) -> bool:
        """Whether people wait for it now; one that is put off waits for something else."""
        put_off = operation.state is OperationState.PENDING and (
            operation.run_at > self._context.now()
        )
        return operation.kind not in _POOL and not put_off

    async def _add(self, node: Node, image: Image) -> None:
        key = (node.id, image.id)
        if image.name not in await answer(self._context.engines.of(node).images()):
            attempt = self._attempts.setdefault(key, _Attempt("", 0, 0.0))
            self._put_off(attempt)
            log.warning("a pool's image is not on the node", node=node.name, image=image.name)
            return
        try:
            async with self._context.db.write() as session:
                await lock(session, making(node.id))
                if await containers.count_pool(session, node.id, image.id) >= image.pool_size:
                    return
                container = await containers.add_container(
                    session, node, image.id, ContainerRole.POOL, self._context.now()
                )
                operation = await enqueue(
                    session,
                    self._context,
                    SYSTEM,
                    Kind.POOL_ADD,
                    making(node.id),
                    owner_id=None,
                    label=container.engine_name,
                    params={"container": container.id},
                )
        except BusyError:
            return
        except NoAddressLeftError as error:
            log.warning("a pool cannot be filled", node=node.name, reason=error.message)
            return
        before = self._attempts.get(key)
        self._attempts[key] = _Attempt(operation.id, before.failures if before else 0, 0.0)
        self._context.hints.work.set()

    async def _shrink(self, node: Node, image: Image) -> None:
        """Remove what is too much, the newest first, which has been of use to nobody yet."""
        async with self._context.db.read() as session:
            mine = [
                each
                for each in await containers.list_containers(session, node_id=node.id)
                if each.role is ContainerRole.POOL and each.image_id == image.id and each.ready
            ]
        for container in mine[image.pool_size :]:
            try:
                async with self._context.db.write() as session:
                    await withdraw(session, self._context, container)
            except (BusyError, TakenError):
                continue
            self._context.hints.work.set()
