"""Ending what holds a device: named, asked, ended; and never anything else.

A process is signalled through a handle of the very process (pidfd), opened before it is looked at
again: that it still is in that container, is one of its users' and has the device open. So a
number that has been given to another process meanwhile is of no harm.
"""

import os
import select
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from hutch.agent import holders, processes
from hutch.agent.processes import PROC, Container
from hutch.agent.shut import Nodes, nodes_of, shut
from hutch.domain.accelerators import OpenedDevice, Process, Revoked, Verb

log = structlog.get_logger("hutch.agent")

END_SECONDS = 5.0
"""How long processes that were ended may take to be gone: the driver lets go of the device then."""
ROUNDS = 20
"""How often what a process has begun while it was being ended is looked for again."""
LOOKS = 2
"""How often in a row nobody has to be found: one may hand a device on to another in between."""
MOST = 200
"""Processes that are named in one answer."""

_SIGNALS = {Verb.ASK: signal.SIGTERM, Verb.END: signal.SIGKILL}


def carry_out(
    verb: Verb, container: str, devices: Sequence[OpenedDevice], proc: Path = PROC
) -> Revoked:
    """Do what was ordered; the processes that were found, and that it was done to.

    The devices are shut before anybody is named or ended, so that nobody opens one anew. The first
    process of a container is named and never signalled: with it the machine would stop.
    """
    sought = _sought(container, devices, proc)
    is_shut = verb is not Verb.ASK and bool(sought.nodes.of_each) and shut(sought.nodes)
    find = _end if verb is Verb.END else _look
    return Revoked(tuple(find(verb, container, sought, proc)[:MOST]), is_shut)


@dataclass(frozen=True, slots=True)
class _Sought:
    """What nobody is to have open."""

    devices: tuple[OpenedDevice, ...]
    nodes: Nodes


def _sought(name: str, devices: Sequence[OpenedDevice], proc: Path) -> _Sought:
    container = processes.find_container(name, processes.members(name, proc), proc)
    nodes = Nodes() if container is None else nodes_of(container, devices, proc)
    return _Sought(tuple(devices), nodes)


def _look(verb: Verb, container: str, sought: _Sought, proc: Path) -> list[Process]:
    for _ in range(LOOKS):
        if named := _round(verb, container, sought, proc)[0]:
            return named
    return []


def _end(verb: Verb, container: str, sought: _Sought, proc: Path) -> list[Process]:
    deadline = time.monotonic() + END_SECONDS
    ended: dict[int, Process] = {}
    for _ in range(ROUNDS):
        named, handles = _round(verb, container, sought, proc)
        ended |= {each.pid: each for each in named}
        _await_end(handles, deadline)
        if not handles or time.monotonic() >= deadline:
            break
    return list(ended.values())


def _round(verb: Verb, name: str, sought: _Sought, proc: Path) -> tuple[list[Process], list[int]]:
    """Find the holders once, and signal them; those found, and handles of those being ended."""
    named: list[Process] = []
    handles: list[int] = []
    inside = processes.members(name, proc)
    container = processes.find_container(name, inside, proc)
    for pid in inside:
        if not holders.has_open(pid, sought.devices, sought.nodes.identities, proc):
            continue
        named.append(processes.describe(pid, container, proc=proc))
        if verb in _SIGNALS and container is not None:
            handle = _signal(pid, container, sought, _SIGNALS[verb], proc)
            if handle is not None and verb is Verb.END:
                handles.append(handle)
            elif handle is not None:
                os.close(handle)
    return named, handles


def _signal(pid: int, container: Container, sought: _Sought, number: int, proc: Path) -> int | None:
    """Signal a process if it is what is meant; its handle, None if it is not, or has ended."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return None  # it has ended
    try:
        if _is_meant(pid, container, sought, proc):
            signal.pidfd_send_signal(handle, number)
            log.info("signalled what holds a device", pid=pid, container=container.name,
                     signal=signal.Signals(number).name)  # fmt: skip
            return handle
    except (ProcessLookupError, PermissionError) as error:
        log.info("a holder could not be signalled", pid=pid, reason=str(error))
    os.close(handle)
    return None


def _is_meant(pid: int, container: Container, sought: _Sought, proc: Path) -> bool:
    return (
        pid != container.init
        and processes.belongs_to(pid, container, proc)
        and holders.has_open(pid, sought.devices, sought.nodes.identities, proc)
    )


def _await_end(handles: list[int], deadline: float) -> None:
    """Wait until processes have ended: the kernel has closed what they had open by then."""
    for handle in handles:
        waiting = select.poll()
        waiting.register(handle, select.POLLIN)
        waiting.poll(max(0.0, deadline - time.monotonic()) * 1000)
        os.close(handle)
