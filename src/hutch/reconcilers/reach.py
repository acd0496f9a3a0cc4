"""Asking engines without waiting for ever, and all nodes at once."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog

from hutch.domain.nodes import Node
from hutch.errors import EngineUnavailableError, HutchError

log = structlog.get_logger(__name__)

ANSWER_SECONDS = 10.0
"""A question that an engine answers from memory, and has not answered after this, it will not."""

T = TypeVar("T")


async def answer(call: Awaitable[T]) -> T:
    """What an engine answers. Raises EngineUnavailableError also when it stays silent."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await call
    except TimeoutError:
        raise EngineUnavailableError(
            f"The engine has not answered within {ANSWER_SECONDS:g} s.",
            hint="Look at the node: its load, its disk, and the engine's own log.",
        ) from None


async def each_node(
    what: str, nodes: Sequence[Node], work: Callable[[Node], Awaitable[float | None]]
) -> float | None:
    """Do `work` for all nodes at once; the least of the seconds that they gave.

    A node that fails is logged and keeps no other from being looked at. One that does not answer
    is not even logged: the reconciler of nodes tells that, once.
    """

    async def one(node: Node) -> float | None:
        try:
            return await work(node)
        except EngineUnavailableError:
            return None
        except HutchError as error:
            log.warning(what + " gave up until its next pass", node=node.name,
                        code=error.code, reason=error.message)  # fmt: skip
        except Exception:
            log.exception(what + " failed", node=node.name)
        return None

    waits = await asyncio.gather(*(one(node) for node in nodes))
    return min((wait for wait in waits if wait is not None), default=None)
