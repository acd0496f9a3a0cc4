"""Who is asking: passwords, sign-in and API tokens."""

import asyncio
import hashlib
from collections.abc import Collection
from datetime import datetime, timedelta

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from hutch.domain import names
from hutch.domain.ids import new_id
from hutch.domain.people import Actor, Role, Scope, Token, User
from hutch.domain.permissions import Action, can
from hutch.errors import (
    BadLoginError,
    BadTokenError,
    InvalidInputError,
    InvalidLimitError,
    NotFoundError,
    TooManyRequestsError,
)
from hutch.services.access import require
from hutch.services.context import Context
from hutch.services.vault import TOKEN_PREFIX, digest, new_token
from hutch.store import events, tokens, users

LONGEST_PASSWORD = 1024
MOST_DAYS = 3650
TOUCH_EVERY = timedelta(minutes=5)
"""How exact a token's last use is: writing at every request would cost more than the request."""

# argon2id with the parameters of RFC 9106's second recommendation, which is the library's default.
_hasher = PasswordHasher()
# Each verification takes 64 MiB: at most this many at once, whoever knocks.
_verifying = asyncio.Semaphore(2)
# The hash of a password that was thrown away: an unknown name costs the same time as a wrong
# password. Written down, because making it would cost every start of a server a quarter second.
_NOBODY = (
    "$argon2id$v=19$m=65536,t=3,p=4$"
    "lruCPlJWETymYpYAAM9dxw$JElPYMnn3j0tEdDkB5/pHmIq5s3aHTPHKEkjKP+vuQs"
)


async def hash_password(password: str) -> str:
    async with _verifying:
        return await asyncio.to_thread(_hasher.hash, password)


def _matches(hashed: str, password: str) -> bool:
    try:
        return _hasher.verify(hashed, password)
    except (VerificationError, InvalidHashError, UnicodeEncodeError):
        return False


async def login(
    context: Context,
    name: str,
    password: str,
    *,
    address: str,
    request_id: str | None = None,
    scope: Scope = Scope.FULL,
) -> tuple[str, Token, User]:
    """Exchange a name and a password for a token, shown this once.

    Raises BadLoginError, alike in message and time for an unknown name, a wrong password and a
    disabled person, and TooManyRequestsError after too many failures of the name or the address.
    """
    user, hashed = await _proved(context, name, password, address=address, request_id=request_id)
    clear = new_token()
    token = Token(
        id=new_id(),
        user_id=user.id,
        title="browser" if scope is Scope.BROWSER else "login",
        scope=scope,
        created_at=context.now(),
        expires_at=context.now() + timedelta(days=context.settings.login_days),
        last_used_at=None,
    )
    actor = Actor(user.id, user.name, user.role, address=address, request_id=request_id)
    async with context.db.write() as session:
        # Who was shut out, or given another password, meanwhile gets no token for the old one.
        await users.lock_user(session, user.id)
        still = await users.get_user(session, user.id, user.quota)
        if still is None or still.disabled_at is not None:
            raise BadLoginError
        if await users.password_hash(session, user.id) != hashed:
            raise BadLoginError
        await tokens.add_token(session, token, digest(clear))
        await tokens.forget_failures(session, name_subject(user.name))
        await events.record(
            session, actor, context.now(), "user.login", ("user", user.id, user.name),
            owner_id=user.id,
        )  # fmt: skip
    return clear, token, user


async def recognize(
    context: Context, name: str, password: str, *, address: str, request_id: str | None
) -> Actor:
    """Whose name and password these are, without a token for them. Raises as `login` does."""
    user, _ = await _proved(context, name, password, address=address, request_id=request_id)
    async with context.db.write() as session:
        await tokens.forget_failures(session, name_subject(user.name))
    return Actor(user.id, user.name, user.role, address=address, request_id=request_id)


async def _proved(
    context: Context, name: str, password: str, *, address: str, request_id: str | None
) -> tuple[User, str]:
    """The person, and the hash of the password that was right."""
    async with context.db.read() as session:
        user = await users.find_user(session, name[:64], context.settings.default_quota)
        hashed = None if user is None else await users.password_hash(session, user.id)
    await _verify(
        context,
        None if user is None or user.disabled_at is not None else hashed,
        password,
        name=name,
        # A name nobody has may be a password typed into the wrong field: it is not recorded.
        known="(unknown)" if user is None else user.name,
        address=address,
        request_id=request_id,
    )
    if user is None or hashed is None:
        raise BadLoginError
    return user, hashed


async def check_password(context: Context, actor: Actor, password: str) -> None:
    """Raise BadLoginError unless `password` is the actor's own, counting failures as `login`."""
    async with context.db.read() as session:
        hashed = await users.password_hash(session, actor.user_id)
    await _verify(
        context,
        hashed,
        password,
        name=actor.name,
        known=actor.name,
        address=actor.address or "",
        request_id=actor.request_id,
    )


async def _verify(
    context: Context,
    hashed: str | None,
    password: str,
    *,
    name: str,
    known: str,
    address: str,
    request_id: str | None,
) -> None:
    """Raise BadLoginError, and count it, unless the password has this hash; None: nobody's does."""
    subjects = (name_subject(name), f"address:{address[:100]}")
    async with _verifying:
        # Looked at when its turn has come: of a thousand guesses sent at once none has failed yet.
        await _check_rate(context, subjects)
        given = password[:LONGEST_PASSWORD]
        matches = await asyncio.to_thread(_matches, hashed or _NOBODY, given)
        if hashed is None or not matches:
            await _record_failure(context, subjects, known, address, request_id)
            raise BadLoginError


def name_subject(name: str) -> str:
    """What failed sign-ins of a name are counted under, whether anyone has that name or not.

    Not the name itself: it may be a password that was typed into the wrong field.
    """
    return "name:" + hashlib.sha256(name.encode(errors="replace")).hexdigest()


async def _check_rate(context: Context, subjects: tuple[str, ...]) -> None:
    now = context.now()
    window = timedelta(seconds=context.settings.login_window_seconds)
    async with context.db.read() as session:
        for subject in subjects:
            count, oldest = await tokens.count_failures(session, subject, now - window, now)
            if count >= context.settings.login_failures and oldest is not None:
                wait = int((oldest + window - now).total_seconds()) + 1
                raise TooManyRequestsError("Too many failed sign-ins.", retry_after=max(wait, 1))


async def _record_failure(
    context: Context,
    subjects: tuple[str, ...],
    user_name: str,
    address: str,
    request_id: str | None,
) -> None:
    now = context.now()
    async with context.db.write() as session:
        for subject in subjects:
            await tokens.add_failure(session, subject, now)
        await events.record(
            session,
            Actor("", "nobody", role=Role.MEMBER, address=address, request_id=request_id),
            now,
            "user.login",
            ("user", "", user_name),
            result="refused",
        )


async def authenticate(
    context: Context,
    token: str,
    *,
    address: str | None,
    request_id: str | None,
    browser: bool = False,
) -> Actor:
    """The actor behind a token. Raises BadTokenError when it is unknown, expired or revoked.

    A browser's is good for nothing but what asks for one, and no other is good for that.
    """
    if not token.startswith(TOKEN_PREFIX) or len(token) > 100 or not token.isascii():
        raise BadTokenError
    return await _authenticate(context, digest(token), address, request_id, browser)


async def authenticate_id(
    context: Context,
    token_id: str,
    *,
    address: str | None,
    request_id: str | None,
    browser: bool = False,
) -> Actor:
    """As `authenticate`, for a token of which hutch itself has written that it was shown."""
    return await _authenticate(context, token_id, address, request_id, browser)


async def _authenticate(
    context: Context,
    wanted: bytes | str,
    address: str | None,
    request_id: str | None,
    browser: bool,
) -> Actor:
    now = context.now()
    async with context.db.read() as session:
        found = await tokens.holder(session, wanted, now)
    if found is None or (found[3] is Scope.BROWSER) != browser:
        raise BadTokenError
    user_id, name, role, scope, token_id, used, manages = found
    if used is None or abs(now - used) > TOUCH_EVERY:
        await _touch(context, token_id, now)
    return Actor(user_id, name, role, scope, token_id, address, request_id, manages)


async def _touch(context: Context, token_id: str, now: datetime) -> None:
    async with context.db.write() as session:
        await tokens.touch_token(session, token_id, now)


async def create(
    context: Context, actor: Actor, title: str, scope: Scope, days: int | None
) -> tuple[str, Token]:
    """A new token of one's own, shown this once. `days` None: it never expires."""
    require(actor, Action.TOKEN_WRITE, actor.user_id)
    names.title("token", title)
    if scope is Scope.BROWSER:
        raise InvalidInputError(
            "A token of this scope comes from signing in with a browser.", hint="full or read."
        )
    if days is not None and not 1 <= days <= MOST_DAYS:
        raise InvalidLimitError("days", str(days), f"1 to {MOST_DAYS}, or none for no end")
    clear = new_token()
    now = context.now()
    token = Token(
        id=new_id(),
        user_id=actor.user_id,
        title=title,
        scope=scope,
        created_at=now,
        expires_at=None if days is None else now + timedelta(days=days),
        last_used_at=None,
    )
    async with context.db.write() as session:
        await tokens.add_token(session, token, digest(clear))
        await events.record(
            session, actor, now, "token.create", ("token", token.id, title),
            owner_id=actor.user_id, scope=scope.value,
        )  # fmt: skip
    return clear, token


async def lend(context: Context, actor: Actor, title: str, lasting: timedelta) -> tuple[str, Token]:
    """A token for what hutch itself does in somebody's name, who has proved who they are.

    It is given back when that is over; should nobody be left to do so, it ends by itself.
    """
    clear = new_token()
    now = context.now()
    token = Token(new_id(), actor.user_id, title, Scope.FULL, now, now + lasting, now)
    async with context.db.write() as session:
        await tokens.add_token(session, token, digest(clear))
    return clear, token


async def prolong(context: Context, token_ids: Collection[str], lasting: timedelta) -> None:
    """Let tokens that are lent last so long from now. What was revoked stays so."""
    async with context.db.write() as session:
        await tokens.set_end(session, token_ids, context.now() + lasting)


async def give_back(context: Context, token_ids: Collection[str]) -> None:
    async with context.db.write() as session:
        await tokens.delete_these(session, token_ids)


async def list_all(context: Context, actor: Actor) -> list[Token]:
    require(actor, Action.TOKEN_READ, actor.user_id)
    async with context.db.read() as session:
        return await tokens.list_tokens(session, actor.user_id)


async def revoke(context: Context, actor: Actor, token_id: str) -> None:
    """Revoke a token of one's own, or anyone's as an administrator."""
    async with context.db.write() as session:
        token = await tokens.get_token(session, token_id)
        if token is None or not can(actor, Action.TOKEN_READ, token.user_id):
            raise NotFoundError("token", token_id)
        require(actor, Action.TOKEN_WRITE, token.user_id)
        await tokens.delete_token(session, token_id)
        await events.record(
            session, actor, context.now(), "token.revoke", ("token", token.id, token.title),
            owner_id=token.user_id,
        )  # fmt: skip


async def end_browser(context: Context, actor: Actor) -> None:
    """Sign a browser out: the token that it has as a cookie ends."""
    token_id = actor.token_id or ""
    async with context.db.write() as session:
        await tokens.delete_token(session, token_id)
        await events.record(
            session, actor, context.now(), "token.revoke", ("token", token_id, "browser"),
            owner_id=actor.user_id,
        )  # fmt: skip
