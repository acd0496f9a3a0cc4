"""Values as people read them."""

from datetime import timedelta

from hutch.cli import messages
from hutch.cli.terminal import Cell
from hutch.cli.words import groups
from hutch.client import answers
from hutch.domain.durations import format_duration
from hutch.domain.sizes import format_size

_BAR = 10
"""Characters of a bar."""


def size(count: int) -> str:
    """Bytes with a unit."""
    return format_size(count)


def moment(at: str | None) -> str:
    """A time of the API (RFC 3339, UTC), to the minute."""
    return "-" if at is None else at[:16].replace("T", " ")


def moment_utc(at: str) -> str:
    return f"{moment(at)} UTC"


def until(at: str | None) -> str:
    """Up to when something holds, to follow a sentence; nothing where there is no end."""
    return "" if at is None else messages.UNTIL.format(at=moment_utc(at))


def port(found: answers.Port) -> str:
    """A port that leads to an instance: `8888/tcp at 192.0.2.1:30000 (jupyter)`."""
    text = messages.LEADING_WEB if found["reach"] == "web" else messages.LEADING
    return text.format(**found, ends=until(found["until"]))


def used_of(used: int, allowed: int, *, is_size: bool) -> str:
    show = size if is_size else str
    return messages.USED_OF.format(used=show(used), allowed=show(allowed))


def ssh_place(ssh: answers.Ssh) -> str:
    host = f"[{ssh['host']}]" if ":" in ssh["host"] else ssh["host"]
    return f"{host}:{ssh['port']}"


def snapshots_too(count: int) -> str:
    """What a question says about an instance's snapshots, which go with its disk."""
    if count == 0:
        return ""
    return messages.AND_SNAPSHOT if count == 1 else messages.AND_SNAPSHOTS.format(count=count)


def idle(policy: answers.Idle | None) -> str:
    """When idle accelerators are taken back, as a group or a node has it."""
    if policy is None:
        return groups.IDLE_OF_LAB
    if not policy["window_minutes"]:
        return groups.IDLE_NEVER
    return groups.IDLE.format(
        window=duration(policy["window_minutes"]),
        threshold=policy["threshold_percent"],
        warning=duration(policy["warning_minutes"]),
    )


def duration(minutes: float) -> str:
    """A span of time, such as `1d12h`."""
    return format_duration(timedelta(minutes=minutes))


def share_bar(share: float) -> str:
    """A share from 0 to 1 as a bar that can be compared at a glance, and as a number."""
    full = round(min(max(share, 0.0), 1.0) * _BAR)
    # Plain characters: half of all terminals between a person and a server know no others.
    return f"{'#' * full}{'.' * (_BAR - full)} {share * 100:3.0f} %"


def quota_rows(held: answers.Holding, quota: answers.Holding) -> list[list[Cell]]:
    """What a person holds and may hold, as rows of a table."""
    return [
        [messages.RESOURCES["instances"], str(held["instances"]), str(quota["instances"])],
        [messages.RESOURCES["cpus"], str(held["cpus"]), str(quota["cpus"])],
        [messages.RESOURCES["memory"], size(held["memory"]), size(quota["memory"])],
        [messages.RESOURCES["disk"], size(held["disk"]), size(quota["disk"])],
        [
            messages.RESOURCES["accelerators"],
            str(held["accelerators"]),
            str(quota["accelerators"]),
        ],
    ]
