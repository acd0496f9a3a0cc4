"""The one place that says who may do what."""

from enum import StrEnum

from hutch.domain.people import Actor, Role, Scope
from hutch.domain.shares import Share


class Action(StrEnum):
    """Everything that can be asked of hutch; every route declares exactly one of these."""

    INSTANCE_CREATE = "instance:create"
    INSTANCE_READ = "instance:read"
    INSTANCE_CONTROL = "instance:control"
    INSTANCE_CONFIGURE = "instance:configure"
    INSTANCE_EXEC = "instance:exec"
    INSTANCE_REBUILD = "instance:rebuild"
    INSTANCE_DELETE = "instance:delete"
    APP_READ = "app:read"
    FILE_READ = "file:read"
    FILE_WRITE = "file:write"
    PORT_READ = "port:read"
    PORT_WRITE = "port:write"
    SHARE_READ = "share:read"
    SHARE_WRITE = "share:write"
    SNAPSHOT_READ = "snapshot:read"
    SNAPSHOT_WRITE = "snapshot:write"
    OPERATION_READ = "operation:read"
    OPERATION_RETRY = "operation:retry"
    KEY_READ = "key:read"
    KEY_WRITE = "key:write"
    TOKEN_READ = "token:read"  # noqa: S105 - the name of an action
    TOKEN_WRITE = "token:write"  # noqa: S105 - the name of an action
    PROFILE_READ = "profile:read"
    PROFILE_WRITE = "profile:write"
    USER_READ = "user:read"
    USER_WRITE = "user:write"
    IMAGE_READ = "image:read"
    IMAGE_WRITE = "image:write"
    NODE_READ = "node:read"
    NODE_WRITE = "node:write"
    EVENT_READ = "event:read"
    ACCELERATOR_READ = "accelerator:read"
    ACCELERATOR_WRITE = "accelerator:write"
    LEASE_READ = "lease:read"
    LEASE_WRITE = "lease:write"
    GROUP_READ = "group:read"
    GROUP_WRITE = "group:write"
    GROUP_MANAGE = "group:manage"
    REPORT_READ = "report:read"
    NOTICE_READ = "notice:read"
    NOTICE_WRITE = "notice:write"


# FILE_READ is not among them: a disk holds keys and tokens, with which one does more than read.
_READING = frozenset(
    {
        Action.APP_READ,
        Action.INSTANCE_READ,
        Action.PORT_READ,
        Action.SHARE_READ,
        Action.SNAPSHOT_READ,
        Action.OPERATION_READ,
        Action.KEY_READ,
        Action.TOKEN_READ,
        Action.PROFILE_READ,
        Action.USER_READ,
        Action.IMAGE_READ,
        Action.NODE_READ,
        Action.EVENT_READ,
        Action.ACCELERATOR_READ,
        Action.LEASE_READ,
        Action.GROUP_READ,
        Action.REPORT_READ,
        Action.NOTICE_READ,
    }
)
_ADMINS_ONLY = frozenset(
    {
        Action.USER_READ,
        Action.USER_WRITE,
        Action.IMAGE_WRITE,
        Action.NODE_WRITE,
        Action.EVENT_READ,
        Action.OPERATION_RETRY,
        Action.ACCELERATOR_WRITE,
        Action.GROUP_WRITE,
    }
)
_OF_THE_LAB = frozenset({Action.IMAGE_READ, Action.NODE_READ, Action.ACCELERATOR_READ})
_SHARED_VIEW = frozenset(
    {Action.INSTANCE_READ, Action.PORT_READ, Action.SHARE_READ, Action.SNAPSHOT_READ}
)
# Whoever logs in is root inside, and could stop the machine or read its disk from there anyway.
_SHARED_LOGIN = _SHARED_VIEW | {
    Action.APP_READ,
    Action.FILE_READ,
    Action.FILE_WRITE,
    Action.INSTANCE_EXEC,
    Action.INSTANCE_CONTROL,
}


def can(
    actor: Actor, action: Action, owner_id: str | None = None, share: Share | None = None
) -> bool:
    """Whether `actor` may do `action` on something that belongs to `owner_id`.

    `owner_id` is None for what belongs to the lab (nodes, images) and for making something of
    one's own. `share` is what the owner lets them do: to look, or to log in and to start and stop;
    never to delete, rebuild, restore or configure, nor to pass it on. A read-only token reads and
    nothing else, whoever holds it, and a browser's cookie opens apps and does nothing else.
    """
    if actor.scope is Scope.BROWSER and action is not Action.APP_READ:
        return False
    if actor.scope is Scope.READ and action not in _READING:
        return False
    if actor.role is Role.ADMIN:
        return True
    if action in _ADMINS_ONLY:
        return False
    if action is Action.GROUP_MANAGE:
        # `owner_id` is the group's. Without one it is asked whether there is any.
        return actor.manages is not None and owner_id in {None, actor.manages}
    if action in _OF_THE_LAB or owner_id is None:
        return True
    if owner_id == actor.user_id:
        return True
    if share is None or share.user_id != actor.user_id:
        return False
    return action in (_SHARED_VIEW if share.read_only_view else _SHARED_LOGIN)
