"""Reports: accelerator-hours, held and truly used."""

from dataclasses import replace

from hutch.domain.people import Actor
from hutch.domain.permissions import Action
from hutch.domain.reports import By, Month, Usage, month_of, months
from hutch.errors import InvalidInputError
from hutch.services.access import require
from hutch.services.context import Context
from hutch.store import reports

USUAL_MONTHS = 12
"""What a report by month goes back, unless it is told."""


async def gpu_hours(
    context: Context,
    actor: Actor,
    *,
    by: By = By.PERSON,
    first: Month | None = None,
    last: Month | None = None,
    mine: bool = False,
) -> tuple[Month, Month, list[Usage]]:
    """What was held and used from the first month to the last, both included, most held first.

    Left out, the last month is the present one, and the first is the last; a report by month goes
    back a year. An administrator sees everybody's, a manager their group's and their own, and
    everybody else, or with `mine` anyone, their own.
    """
    require(actor, Action.REPORT_READ, actor.user_id)
    now = context.now()
    last = last or max(first or month_of(now), month_of(now))
    first = first or (last.plus(1 - USUAL_MONTHS) if by is By.MONTH else last)
    spans = list(months(first, last))
    if first > month_of(now):
        raise InvalidInputError(
            f"{first} has not begun.", hint=f"It is {month_of(now)} now, in UTC."
        )
    whose: dict[str, str] = {}
    if mine or not actor.is_admin:
        whose = {"owner_id": actor.user_id}
        if not mine and actor.manages is not None:
            whose["group_id"] = actor.manages
    async with context.db.read() as session:
        if by is not By.MONTH:
            found = await reports.gpu_seconds(
                session, first.begin, last.next.begin, now, by, **whose
            )
            return first, last, sorted(found, key=lambda row: -row.held)
        rows: list[Usage] = []
        for span in spans:
            found = await reports.gpu_seconds(
                session, span.begin, span.next.begin, now, by, **whose
            )
            rows += [replace(row, name=str(span)) for row in found]
    return first, last, rows
