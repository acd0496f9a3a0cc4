"""Sums of what was held and of what was used of it."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, and_, case, func, or_, select, type_coerce

from hutch.domain.reports import By, Usage
from hutch.store.db import Session
from hutch.store.tables import EPOCH, accelerators, busy_days, holdings, leases, nodes, users

_MICROSECONDS = 1_000_000
_NAMES: dict[By, tuple[ColumnElement[Any], ...]] = {
    By.PERSON: (users.c.name,),
    By.GROUP: (leases.c.group_name,),
    By.ACCELERATOR: (nodes.c.name, accelerators.c.address, accelerators.c.model),
    By.MONTH: (),
}


async def gpu_seconds(
    session: Session,
    since: datetime,
    until: datetime,
    now: datetime,
    by: By,
    *,
    owner_id: str | None = None,
    group_id: str | None = None,
) -> list[Usage]:
    """What was held and used from `since` to `until`, both the first moment of a day in UTC.

    What is held now counts until `now`. Only leases of the person, or of the group, or of either
    if both are given. `By.MONTH` gives one row for the whole span, or none.
    """
    names = _NAMES[by]
    shown = _whose(owner_id, group_id)
    held = await session.execute(_held(names, since, until, now).where(*shown))
    busy = await session.execute(_busy(names, since, until).where(*shown))
    computed = {tuple(row[:-1]): float(row[-1] or 0) for row in busy}
    found: list[Usage] = []
    for row in held:
        *values, count, microseconds = list[Any](row)
        key = tuple(values)
        if count:
            used = computed.get(key, 0.0)
            found.append(
                Usage(*_named(by, key), int(count), int(microseconds) / _MICROSECONDS, used)
            )
    return found


def _named(by: By, key: tuple[Any, ...]) -> tuple[str | None, str | None]:
    if by is By.ACCELERATOR:
        node, address, model = key
        return f"{node}/{address}", model
    return (key[0] if key else None), None


def _whose(owner_id: str | None, group_id: str | None) -> list[ColumnElement[bool]]:
    wanted = [
        column == value
        for column, value in ((leases.c.owner_id, owner_id), (leases.c.group_id, group_id))
        if value is not None
    ]
    return [or_(*wanted)] if wanted else []


def _held(
    names: tuple[ColumnElement[Any], ...], since: datetime, until: datetime, now: datetime
) -> Any:
    # Numbers from here on: a difference of moments is no moment.
    since_ = type_coerce(holdings.c.since, BigInteger)
    until_ = type_coerce(holdings.c.until, BigInteger)
    first, last = _number(since), _number(until)
    ended = func.coalesce(until_, _number(now))
    begin = case((since_ < first, first), else_=since_)
    end = case((ended > last, last), else_=ended)
    spent = case((end > begin, end - begin), else_=0)
    return (
        select(*names, func.count(leases.c.id.distinct()), func.coalesce(func.sum(spent), 0))
        .select_from(_joined(holdings))
        .where(
            holdings.c.since < until,
            or_(holdings.c.until.is_(None), holdings.c.until > since),
        )
        .group_by(*names)
        .order_by(*names)
    )


def _busy(names: tuple[ColumnElement[Any], ...], since: datetime, until: datetime) -> Any:
    first, end = since.date().isoformat(), until.date().isoformat()
    days = busy_days.join(holdings, holdings.c.id == busy_days.c.holding_id)
    return (
        select(*names, func.sum(busy_days.c.seconds))
        .select_from(_joined(days))
        .where(and_(busy_days.c.day >= first, busy_days.c.day < end))
        .group_by(*names)
    )


def _joined(start: Any) -> Any:
    return (
        start.join(leases, leases.c.id == holdings.c.lease_id)
        .join(users, users.c.id == leases.c.owner_id)
        .join(accelerators, accelerators.c.id == holdings.c.accelerator_id)
        .join(nodes, nodes.c.id == accelerators.c.node_id)
    )


def _number(moment: datetime) -> int:
    """A moment as it is kept."""
    return (moment - EPOCH) // timedelta(microseconds=1)
