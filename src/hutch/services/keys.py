"""SSH keys: kept once, and inside every running instance of their owner seconds later."""

from hutch.domain import names
from hutch.domain.ids import new_id
from hutch.domain.operations import Kind
from hutch.domain.people import Actor, SshKey
from hutch.domain.permissions import Action, can
from hutch.domain.sshkeys import parse_public_key
from hutch.errors import BusyError, ConflictError, NotFoundError
from hutch.services.access import require
from hutch.services.context import Context
from hutch.services.operations import enqueue
from hutch.store import events, instances, keys, users
from hutch.store.db import Session


async def add(
    context: Context, actor: Actor, line: str, title: str | None = None, user: str | None = None
) -> SshKey:
    """Register a public key of one's own, or of `user` as an administrator."""
    parsed = parse_public_key(line)
    async with context.db.write() as session:
        user_id = await _owner(session, context, actor, user)
        await users.lock_user(session, user_id)
        if await keys.count_keys(session, user_id) >= context.settings.keys_per_user:
            raise ConflictError(
                f"More than {context.settings.keys_per_user} SSH keys are not allowed.",
                hint="Remove one that is no longer used: `hutch key list`.",
            )
        key = SshKey(
            id=new_id(),
            user_id=user_id,
            title=names.title("key", title) if title else _title_from(parsed.comment),
            type=parsed.type,
            public=parsed.public,
            fingerprint=parsed.fingerprint,
            created_at=context.now(),
        )
        await keys.add_key(session, key)
        await push_keys(session, context, actor, user_id)
        await events.record(
            session, actor, context.now(), "key.add", ("key", key.id, key.title),
            owner_id=user_id, fingerprint=key.fingerprint,
        )  # fmt: skip
    context.hints.work.set()
    return key


def _title_from(comment: str) -> str:
    """A key's own comment as far as it can be shown safely."""
    kept = "".join(c for c in comment if c.isascii() and (c.isalnum() or c in "._@+- "))
    return kept.strip(" ._@+-")[:64] or "key"


async def list_all(context: Context, actor: Actor, user: str | None = None) -> list[SshKey]:
    async with context.db.read() as session:
        user_id = await _owner(session, context, actor, user, Action.KEY_READ)
        return await keys.list_keys(session, user_id)


async def remove(context: Context, actor: Actor, ref: str) -> None:
    """Remove a key by its id or its fingerprint."""
    async with context.db.write() as session:
        mine = await keys.list_keys(session, actor.user_id)
        key = next((key for key in mine if ref in {key.id, key.fingerprint}), None)
        key = key or await keys.get_key(session, ref)
        if key is None or not can(actor, Action.KEY_READ, key.user_id):
            raise NotFoundError("key", ref)
        require(actor, Action.KEY_WRITE, key.user_id)
        await keys.delete_key(session, key)
        await push_keys(session, context, actor, key.user_id)
        await events.record(
            session, actor, context.now(), "key.remove", ("key", key.id, key.title),
            owner_id=key.user_id, fingerprint=key.fingerprint,
        )  # fmt: skip
    context.hints.work.set()


async def _owner(
    session: Session,
    context: Context,
    actor: Actor,
    name: str | None,
    action: Action = Action.KEY_WRITE,
) -> str:
    if name is None or name == actor.name:
        require(actor, action, actor.user_id)
        return actor.user_id
    user = await users.find_user(session, name, context.settings.default_quota)
    if user is None or not can(actor, action, user.id):
        raise NotFoundError("user", name)
    return user.id


async def push_keys(
    session: Session,
    context: Context,
    actor: Actor,
    user_id: str | None = None,
    instance_id: str | None = None,
) -> int:
    """Start bringing running instances up to the keys that open them.

    One instance, those that a person's keys open (their own and what is shared with them), or
    all. Returns how many were started.

    An instance that is already being brought up to date, and may have read the keys before this
    change, is found again by the reconciler.
    """
    begun = 0
    behind = await instances.behind_on_keys(session, user_id, instance_id)
    for found_id, owner, name in behind:
        try:
            await enqueue(
                session,
                context,
                actor,
                Kind.KEYS_PUSH,
                f"keys:{found_id}",
                owner_id=owner,
                label=name,
                params={"instance": found_id},
            )
            begun += 1
        except BusyError:
            continue
    return begun
