"""Snapshots of an instance."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from hutch.api import PREFIX, operations
from hutch.api.answers import reply
from hutch.api.deps import ContextDep, allowed
from hutch.api.fields import Body, Name
from hutch.api.operations import Begun, Operation, begun
from hutch.domain.people import Actor
from hutch.domain.permissions import Action
from hutch.domain.snapshots import Snapshot as Entity
from hutch.domain.snapshots import SnapshotKind, SnapshotState
from hutch.services import snapshots

router = APIRouter(prefix=f"{PREFIX}/instances/{{instance}}/snapshots", tags=["snapshot"])
Writer = Annotated[Actor, allowed(Action.SNAPSHOT_WRITE)]


class Snapshot(TypedDict):
    """A point in time of an instance's disk."""

    id: str
    name: str
    kind: SnapshotKind
    state: SnapshotState
    created_at: datetime


class CreatedSnapshot(TypedDict):
    snapshot: Snapshot
    operation: Operation


class NewSnapshot(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "before-upgrade"}]})
    name: Name = Field(description="1 to 63 of a-z, 0-9 and '-', beginning with a letter.")


def as_json(snapshot: Entity) -> Snapshot:
    return {
        "id": snapshot.id,
        "name": snapshot.name,
        "kind": snapshot.kind,
        "state": snapshot.state,
        "created_at": snapshot.created_at,
    }


@router.get("", response_model=list[Snapshot], summary="List snapshots, oldest first")
async def list_all(
    context: ContextDep,
    actor: Annotated[Actor, allowed(Action.SNAPSHOT_READ)],
    instance: str,
) -> Response:
    found = await snapshots.list_all(context, actor, instance)
    return reply([as_json(snapshot) for snapshot in found])


@router.post("", response_model=CreatedSnapshot, status_code=202, summary="Take a snapshot")
async def create(context: ContextDep, actor: Writer, instance: str, body: NewSnapshot) -> Response:
    snapshot, operation = await snapshots.create(context, actor, instance, body.name)
    answer: CreatedSnapshot = {
        "snapshot": as_json(snapshot),
        "operation": operations.as_json(operation),
    }
    return reply(answer, 202)


@router.delete("/{name}", response_model=Begun, status_code=202, summary="Delete a snapshot")
async def delete(context: ContextDep, actor: Writer, instance: str, name: str) -> Response:
    return begun(await snapshots.delete(context, actor, instance, name))


@router.post("/{name}/restore", response_model=Begun, status_code=202, summary="Restore a snapshot")
async def restore(context: ContextDep, actor: Writer, instance: str, name: str) -> Response:
    """A snapshot of the present state is taken first and kept as the way back."""
    return begun(await snapshots.restore(context, actor, instance, name))
