"""Watching a lease: in the line, on the way into the machine, and on the way back."""

from collections.abc import Callable

from hutch.cli import exits, explaining
from hutch.cli.terminal import Terminal
from hutch.cli.waiting import POLL_SECONDS, Show, live, through_restarts
from hutch.cli.words import gpus as words
from hutch.client.answers import Lease
from hutch.client.client import Client
from hutch.errors import WrongStateError


def until_attached(terminal: Terminal, client: Client, lease: Lease) -> Lease:
    """Watch until the GPUs are in the machine.

    Raises FailedOperationError when the lease ends before. An interrupt stops the watching alone,
    and InterruptedByPersonError says what goes on.
    """
    lease = _watch(terminal, client, lease, {"queued", "attaching"}, _on_the_way, _interrupted)
    if lease["state"] == "active":
        return lease
    if terminal.as_json:
        terminal.answer(lease)
    reason = explaining.ended(lease).removesuffix(".")
    raise exits.FailedOperationError(
        WrongStateError(
            words.CAME_TO_NOTHING.format(reason=reason),
            hint=words.TAKE_AGAIN.format(count=lease["count"]),
            lease=lease["id"],
            reason=lease["end_reason"],
        )
    )


def _on_the_way(lease: Lease) -> str:
    title = words.TAKING.format(gpus=explaining.wanted(lease), name=explaining.machine(lease))
    if lease["state"] == "queued":
        return f"{title}: {explaining.line(lease)}"
    return f"{title}: {words.ATTACHING.format(name=explaining.machine(lease))}"


def _interrupted(lease: Lease) -> exits.InterruptedByPersonError:
    if lease["state"] == "queued":
        hint = words.KEEPS_PLACE_HINT.format(id=lease["id"])
        return exits.InterruptedByPersonError(words.KEEPS_PLACE, hint=hint)
    return exits.InterruptedByPersonError(
        words.GOES_IN.format(name=explaining.machine(lease)),
        hint=words.GOES_IN_HINT.format(id=lease["id"]),
    )


def until_back(terminal: Terminal, client: Client, lease: Lease) -> Lease:
    """Watch until nothing uses the GPUs any more and they are free. Interrupted as above."""
    return _watch(terminal, client, lease, {"detaching"}, _on_the_way_back, _left)


def _left(lease: Lease) -> exits.InterruptedByPersonError:
    return exits.InterruptedByPersonError(words.GOES_BACK, hint=words.GOES_BACK_HINT)


def _on_the_way_back(lease: Lease) -> str:
    return words.DETACHING.format(
        gpus=explaining.gpus(lease["count"]), name=explaining.machine(lease)
    )


def _watch(
    terminal: Terminal,
    client: Client,
    lease: Lease,
    moving: set[str],
    say: Callable[[Lease], str],
    interrupted: Callable[[Lease], exits.InterruptedByPersonError],
) -> Lease:
    """The lease once it is in none of these states."""
    if lease["state"] not in moving:
        return lease
    with live(terminal) as show:
        try:
            while lease["state"] in moving:
                show(say(lease))
                lease = _next(client, lease, show)
        except KeyboardInterrupt:
            # The connection is in the middle of an answer: what is known already must do.
            raise interrupted(lease) from None
    return lease


def _next(client: Client, lease: Lease, show: Show) -> Lease:
    """The lease after its next change."""
    return through_restarts(
        lambda: client.show_lease(lease["id"], wait=POLL_SECONDS, seen=lease["version"]),
        show,
        hint=words.SEE_WHY.format(id=lease["id"]),
    )
