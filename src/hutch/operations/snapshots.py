"""Snapshots.

| operation | step     | does                                           | undo                   |
|-----------|----------|------------------------------------------------|----------------------- |
| create    | snapshot | takes it                                       | deletes it             |
| delete    | remove   | deletes it                                     | none                   |
| restore   | validate | looks whether its data is there                |                        |
|           | before   | takes a snapshot of the present: the way back  | deletes that           |
|           | halt     | stops the machine                              | starts it if it ran    |
|           | restore  | puts the disk back                             | puts the present one back|
|           | resume   | starts it if it ran                            | stops it               |
|           | tidy     | deletes older ways back (pivot)                |                        |
"""

from typing import Any

from hutch.domain.ids import new_id
from hutch.domain.instances import InstanceState
from hutch.domain.operations import Kind
from hutch.domain.snapshots import Snapshot, SnapshotKind, SnapshotState
from hutch.engine.plans import extra, plan_all
from hutch.errors import EngineError
from hutch.operations import lending, machine
from hutch.operations.base import Failed, Procedure, Step, Work
from hutch.services import scheduling
from hutch.store import snapshots
from hutch.store.db import Session


def engine_name(snapshot_id: str) -> str:
    """A snapshot's name in the engine: opaque, like a container's."""
    return f"s-{snapshot_id}"


async def _take(work: Work) -> None:
    it = await machine.load(work)
    await it.engine.snapshot(it.name, engine_name(work.params["snapshot"]))


async def _drop(work: Work) -> None:
    it = await machine.load(work)
    await it.engine.delete_snapshot(it.name, engine_name(work.params["snapshot"]))


async def _taken(session: Session, work: Work) -> None:
    await snapshots.set_state(session, work.params["snapshot"], SnapshotState.READY)


async def _not_taken(session: Session, work: Work, _error: dict[str, Any]) -> None:
    await snapshots.delete_snapshot(session, work.params["snapshot"])


async def _dropped(session: Session, work: Work) -> None:
    await snapshots.delete_snapshot(session, work.params["snapshot"])


async def _validate(work: Work) -> None:
    it = await machine.load(work)
    if engine_name(work.params["snapshot"]) not in await it.engine.snapshots(it.name):
        raise Failed(
            EngineError(
                f"The data of snapshot {work.params['name']} is gone from the node.",
                hint="Your machine is as it was. Delete this snapshot, and restore another one.",
            )
        )


async def _keep_present(work: Work) -> None:
    it = await machine.load(work)
    if "before" not in work.data:
        now = work.context.now()
        before = Snapshot(
            id=new_id(),
            instance_id=it.instance.id,
            # With the microsecond, so that two restores in one second do not collide.
            name=f"before-restore-{now:%Y%m%d-%H%M%S-%f}",
            kind=SnapshotKind.BEFORE_RESTORE,
            state=SnapshotState.CREATING,
            created_at=now,
        )
        async with work.guarded(before=before.id) as session:
            await snapshots.add_snapshot(session, before)
    await it.engine.snapshot(it.name, engine_name(work.data["before"]))
    async with work.guarded() as session:
        await snapshots.set_state(session, work.data["before"], SnapshotState.READY)


async def _forget_present(work: Work) -> None:
    before = work.data.get("before")
    if before is None:
        return
    it = await machine.load(work)
    await it.engine.delete_snapshot(it.name, engine_name(before))
    async with work.guarded() as session:
        await snapshots.delete_snapshot(session, before)


async def _resume(work: Work) -> None:
    if work.params["running"]:
        await machine.ensure_running(work)


async def _put_back(work: Work) -> None:
    it = await machine.load(work)
    await it.engine.restore(it.name, engine_name(work.params["snapshot"]))
    await _set_right(work, it)


async def _set_right(work: Work, it: machine.Machine) -> None:
    """The limits, the ports and what is on loan are the database's to say, not the snapshot's."""
    seen = await it.engine.get(it.name)
    async with work.context.db.read() as session:
        held = plan_all(await lending.entitled(session, it.instance))
    if seen is not None and (strange := extra(seen.devices, held)):
        await it.engine.detach(it.name, strange)
    if seen is not None and seen.limits != it.instance.limits:
        await it.engine.set_limits(it.name, it.instance.limits)
    await machine.ensure_forwards(it, seen)


async def _put_present_back(work: Work) -> None:
    it = await machine.load(work)
    await it.engine.stop(it.name)
    await it.engine.restore(it.name, engine_name(work.data["before"]))
    await _set_right(work, it)


async def _tidy(work: Work) -> None:
    it = await machine.load(work)
    async with work.context.db.read() as session:
        everything = await snapshots.list_snapshots(session, it.instance.id)
    # One way back is kept; a restore to an older way back keeps that one too.
    keep = {work.data["before"], work.params["snapshot"]}
    for old in everything:
        if old.kind is SnapshotKind.BEFORE_RESTORE and old.id not in keep:
            await it.engine.delete_snapshot(it.name, engine_name(old.id))
            async with work.guarded() as session:
                await snapshots.delete_snapshot(session, old.id)


async def _restored(session: Session, work: Work) -> None:
    running = work.params["running"]
    state = InstanceState.RUNNING if running else InstanceState.STOPPED
    await machine.came_to_rest(session, work, state)


CREATE = Procedure(
    Kind.SNAPSHOT_CREATE,
    (Step("snapshot", "Taking the snapshot", _take, _drop),),
    done=_taken,
    failed=_not_taken,
)
DELETE = Procedure(
    Kind.SNAPSHOT_DELETE,
    (Step("remove", "Deleting the snapshot", _drop),),
    done=_dropped,
    # It may be gone already: there is nothing to go back to.
    forward_only=True,
)
RESTORE = Procedure(
    Kind.SNAPSHOT_RESTORE,
    (
        Step("validate", "Looking at the snapshot", _validate),
        Step("before", "Keeping the present state", _keep_present, _forget_present),
        Step("halt", "Shutting down", machine.ensure_stopped, _resume),
        Step("restore", "Putting the disk back", _put_back, _put_present_back),
        Step("resume", "Starting", _resume, machine.ensure_stopped),
        Step("tidy", "Tidying up", _tidy, pivot=True),
    ),
    done=_restored,
    failed=machine.fell_back,
    after=scheduling.poke,
)
