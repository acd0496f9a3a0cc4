"""Reports: accelerator-hours, held and truly used."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from hutch.api import PREFIX
from hutch.api.answers import reply
from hutch.api.deps import ContextDep, allowed
from hutch.domain.people import Actor
from hutch.domain.permissions import Action
from hutch.domain.reports import By, Month, Usage, parse_month
from hutch.services import reports

router = APIRouter(prefix=f"{PREFIX}/reports", tags=["report"])
MonthText = Annotated[str | None, Query(max_length=16, description="Such as 2026-11, in UTC.")]


class GpuUsage(TypedDict):
    name: Annotated[
        str | None,
        Field(description="Of the person, group, accelerator or month; null: in no group."),
    ]
    model: Annotated[str | None, Field(description="Of an accelerator.")]
    leases: int
    held_hours: Annotated[float, Field(description="A shared one counts for each who holds it.")]
    busy_hours: Annotated[float, Field(description="Hours of these in which they computed.")]


class GpuReport(TypedDict):
    """Accelerator-hours, most held first, or by month in order."""

    __pydantic_config__ = ConfigDict(  # pyright: ignore[reportGeneralTypeIssues]
        json_schema_extra={
            "example": {
                "by": "person",
                "first": "2026-11",
                "last": "2026-11",
                "rows": [
                    {
                        "name": "alice",
                        "model": None,
                        "leases": 3,
                        "held_hours": 12.5,
                        "busy_hours": 10.25,
                    }
                ],
            }
        }
    )
    by: By
    first: Annotated[str, Field(description="The first month.")]
    last: Annotated[str, Field(description="The last month, which is included.")]
    rows: list[GpuUsage]


def as_json(row: Usage) -> GpuUsage:
    return {
        "name": row.name,
        "model": row.model,
        "leases": row.leases,
        "held_hours": round(row.held / 3600, 4),
        "busy_hours": round(row.busy / 3600, 4),
    }


@router.get("/gpu", response_model=GpuReport, summary="Report accelerator-hours")
async def gpu(
    context: ContextDep,
    actor: Annotated[Actor, allowed(Action.REPORT_READ)],
    by: By = By.PERSON,
    first: MonthText = None,
    last: MonthText = None,
    mine: Annotated[bool, Query(description="Your own alone.")] = False,
) -> Response:
    """Everybody's for administrators, the group's for its managers, one's own for others."""
    begin, end, found = await reports.gpu_hours(
        context, actor, by=by, first=_month(first), last=_month(last), mine=mine
    )
    answer: GpuReport = {
        "by": by,
        "first": str(begin),
        "last": str(end),
        "rows": [as_json(row) for row in found],
    }
    return reply(answer)


def _month(text: str | None) -> Month | None:
    return None if text is None else parse_month(text)
