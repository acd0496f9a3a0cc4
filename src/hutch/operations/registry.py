"""Every kind of operation, by its name."""

from hutch.operations import (
    instance_configure,
    instance_create,
    instance_delete,
    instance_power,
    instance_rebuild,
    keys_push,
    lease_attach,
    lease_detach,
    notice_deliver,
    pool,
    ports,
    snapshots,
)
from hutch.operations.base import Procedure

PROCEDURES: dict[str, Procedure] = {
    procedure.kind.value: procedure
    for procedure in (
        instance_create.CREATE,
        instance_power.START,
        instance_power.STOP,
        instance_power.RESTART,
        instance_rebuild.REBUILD,
        instance_configure.CONFIGURE,
        instance_delete.DELETE,
        snapshots.CREATE,
        snapshots.RESTORE,
        snapshots.DELETE,
        ports.ADD,
        ports.REMOVE,
        keys_push.PUSH,
        lease_attach.ATTACH,
        lease_detach.DETACH,
        notice_deliver.DELIVER,
        pool.ADD,
        pool.REMOVE,
    )
}
