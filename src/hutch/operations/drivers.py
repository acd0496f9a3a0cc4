"""Machines get the libraries of their node's NVIDIA driver at each start, where the node has them.

No machine stays down, and none stays unmade, because a driver on its node is broken: then it runs
without the libraries, and says so.
"""

from dataclasses import replace

import structlog

from hutch.engine.base import ContainerSpec, Engine, Observed, Power
from hutch.errors import EngineError
from hutch.operations.base import Work

log = structlog.get_logger(__name__)

WITHOUT = (
    "It runs, but without the libraries of the node's NVIDIA driver: the node could not put them"
    " in. Its administrator finds the reason in the server's log."
)


async def make(work: Work, engine: Engine, spec: ContainerSpec) -> None:
    """Make a container and start it."""
    try:
        await engine.create(spec, start=True)
    except EngineError as error:
        if not spec.has_nvidia_driver or not _is_refusal(error):
            raise
        if await engine.get(spec.name) is not None:
            await engine.set_nvidia_driver(spec.name, False)
        await engine.create(replace(spec, has_nvidia_driver=False), start=True)
        await _say(work, spec.name, error)


async def start(work: Work, engine: Engine, name: str, *, wanted: bool) -> Observed | None:
    """Start a container, with the libraries if they are `wanted`; what it was before."""
    before = await engine.get(name)
    has_it = before is not None and before.has_nvidia_driver
    if before is not None and before.power is Power.STOPPED and has_it is not wanted:
        has_it = await _set(work, engine, name, wanted)
    try:
        await engine.start(name)
    except EngineError as error:
        if not has_it or not _is_refusal(error):
            raise
        await engine.set_nvidia_driver(name, False)
        await engine.start(name)
        await _say(work, name, error)
    return before


async def _set(work: Work, engine: Engine, name: str, wanted: bool) -> bool:
    """Have the libraries put in or no longer; whether they are to be put in."""
    try:
        await engine.set_nvidia_driver(name, wanted)
    except EngineError as error:
        if not _is_refusal(error):
            raise
        await _say(work, name, error)
        return not wanted
    return wanted


def _is_refusal(error: EngineError) -> bool:
    """Whether it is none of the errors that say something of their own: not there, or busy."""
    return type(error) is EngineError


async def _say(work: Work, name: str, error: EngineError) -> None:
    log.warning("without the NVIDIA driver", container=name, reason=error.message)
    await work.remember(warning=WITHOUT)
