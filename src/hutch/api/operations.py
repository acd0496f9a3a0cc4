"""Operations: watching work in progress."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from hutch.api import PREFIX
from hutch.api.answers import reply
from hutch.api.deps import ContextDep, allowed
from hutch.api.waiting import attended
from hutch.domain.operations import Operation as Entity
from hutch.domain.operations import OperationState
from hutch.domain.people import Actor
from hutch.domain.permissions import Action
from hutch.services import operations

router = APIRouter(prefix=f"{PREFIX}/operations", tags=["operation"])
Reader = Annotated[Actor, allowed(Action.OPERATION_READ)]

LONGEST_WAIT = 60
"""Seconds: proxies commonly give up on a silent answer soon after."""


class Target(TypedDict):
    kind: str
    id: str


class Operation(TypedDict):
    """Work in progress, or what became of it."""

    __pydantic_config__ = ConfigDict(  # pyright: ignore[reportGeneralTypeIssues]
        json_schema_extra={
            "example": {
                "id": "8d0f6a1c2b3e4f50",
                "kind": "instance_create",
                "target": {"kind": "instance", "id": "1f2e3d4c5b6a7980"},
                "state": "running",
                "step": "start",
                "progress": 0.5,
                "message": "Starting",
                "undoing": False,
                "attempts": 0,
                "error": None,
                "created_by": "alice",
                "created_at": "2026-03-01T12:00:00Z",
                "finished_at": None,
                "version": "running.start.0.00",
            }
        }
    )
    id: str
    kind: str
    target: Target
    state: OperationState
    step: str
    progress: Annotated[float, Field(description="0 to 1.")]
    message: str
    undoing: bool
    attempts: int
    error: Annotated[dict[str, Any] | None, Field(description="As in the shape of failures.")]
    created_by: str
    created_at: datetime
    finished_at: datetime | None
    version: Annotated[str, Field(description="Give it as `seen` to wait for the next change.")]


class Begun(TypedDict):
    """What was begun."""

    operation: Operation


def as_json(operation: Entity) -> Operation:
    kind, _, target_id = operation.target.partition(":")
    return {
        "id": operation.id,
        "kind": operation.kind,
        "target": {"kind": kind, "id": target_id},
        "state": operation.state,
        "step": operation.step,
        "progress": operation.progress,
        "message": operation.message,
        "undoing": operation.undoing,
        "attempts": operation.attempts,
        "error": operation.error,
        "created_by": operation.created_by,
        "created_at": operation.created_at,
        "finished_at": operation.finished_at,
        "version": operations.version(operation),
    }


def begun(operation: Entity) -> Response:
    """202, and the operation that carries out what was asked."""
    answer: Begun = {"operation": as_json(operation)}
    return reply(answer, 202)


@router.get("", response_model=list[Operation], summary="List operations, newest first")
async def list_all(
    context: ContextDep,
    actor: Reader,
    everyone: Annotated[
        bool, Query(alias="all", description="Everyone's; for administrators.")
    ] = False,
    live: Annotated[bool, Query(description="Only those that have not ended.")] = False,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> Response:
    found = await operations.list_all(context, actor, everyone=everyone, live=live, limit=limit)
    return reply([as_json(operation) for operation in found])


@router.get("/{operation}", response_model=Operation, summary="Show or wait for an operation")
async def show(
    request: Request,
    context: ContextDep,
    actor: Reader,
    operation: str,
    wait: Annotated[
        float, Query(ge=0, le=LONGEST_WAIT, description="Seconds to wait for it to end or change.")
    ] = 0,
    seen: Annotated[str, Query(max_length=128, description="The version that you know.")] = "",
) -> Response:
    """With `wait`, answers once it has ended or no longer has the version `seen`."""
    found = None
    if wait:
        found = await attended(
            request, operations.wait(context, actor, operation, timeout=wait, seen=seen)
        )
    return reply(as_json(found or await operations.show(context, actor, operation)))


@router.post("/{operation}/retry", response_model=Operation, summary="Retry a stuck operation")
async def retry(
    context: ContextDep,
    actor: Annotated[Actor, allowed(Action.OPERATION_RETRY)],
    operation: str,
) -> Response:
    return reply(as_json(await operations.retry(context, actor, operation)))
