"""Files of an instance, seen from outside it, whether it runs or not.

Everything is done as the instance's own root, which its owner is anyway (`sudo`); what is made
belongs to the owner's account. What changes something is recorded before it is done, and once more
when it then failed.
"""

import heapq
import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from hutch.domain.file_paths import LONGEST, absolute, folder_of, join, name_of
from hutch.domain.instances import Instance, InstanceState
from hutch.domain.people import Actor
from hutch.domain.permissions import Action
from hutch.engine.files import Attributes, Entry, FileKind, Files, shown
from hutch.errors import (
    DiskFullError,
    FileTakenError,
    FolderNotEmptyError,
    HutchError,
    InvalidInputError,
    InvalidPathError,
    NotFoundError,
    WrongFileTypeError,
    WrongOffsetError,
    WrongStateError,
)
from hutch.services import claims
from hutch.services.context import Context
from hutch.services.held import Claim
from hutch.services.instances import current
from hutch.store import events

MOST_ENTRIES = 10_000
"""Of one folder: a list of more is cut off, and says so."""
_UPLOAD = re.compile(r"[0-9a-z]{8,64}", re.ASCII)
_PART = b".hutch-upload-"
_AT_REST = frozenset({InstanceState.RUNNING, InstanceState.STOPPED})
_OF_THE_KERNEL = frozenset({b"/", b"/proc", b"/sys", b"/dev"})
_ROOT = (0, 0)


@dataclass(frozen=True, slots=True)
class Found:
    """One thing at a path."""

    path: bytes
    attributes: Attributes
    target: bytes | None = None
    """Where a link points."""


@dataclass(frozen=True, slots=True)
class Listing:
    path: bytes
    entries: list[Entry]
    """By name."""
    truncated: bool


@dataclass(frozen=True, slots=True)
class Upload:
    """What comes in, and where to."""

    path: bytes
    id: str | None = None
    """By which it may go on after an interruption; None: all of it comes now or not at all."""
    offset: int = 0
    size: int | None = None
    """Bytes in all; None: it ends where what comes now ends."""
    replace: bool = False
    mode: int | None = None
    modified: int | None = None
    """When it is to have been changed; None: when it arrives."""


@dataclass(frozen=True, slots=True)
class Arrived:
    path: bytes
    size: int
    """Bytes that are there."""
    done: bool
    """Whether the file is whole and has its name."""


@dataclass(frozen=True, slots=True)
class Place:
    """The files of one instance, while they are looked at or changed."""

    context: Context
    actor: Actor
    instance: Instance
    files: Files

    def path(self, given: bytes) -> bytes:
        return absolute(given, self.home)

    @property
    def home(self) -> bytes:
        return f"/home/{self.instance.owner_name}".encode()

    async def owner(self) -> tuple[int, int]:
        """The numbers that the owner's account has inside; root's when it has none any more."""
        try:
            has = await self.files.stat(self.home)
        except HutchError:
            return _ROOT
        return has.uid, has.gid

    async def record(self, verb: str, path: bytes, *, result: str = "ok", **detail: object) -> None:
        instance = self.instance
        async with self.context.db.write() as session:
            await events.record(
                session, self.actor, self.context.now(), f"file.{verb}",
                ("instance", instance.id, instance.name),
                owner_id=instance.owner_id, result=result, path=shown(path), **detail,
            )  # fmt: skip

    @asynccontextmanager
    async def recorded(self, verb: str, path: bytes, **detail: Any) -> AsyncGenerator[None]:
        await self.record(verb, path, **detail)
        try:
            yield
        except HutchError as error:
            with suppress(HutchError):
                await self.record(verb, path, result="failed", code=error.code, **detail)
            raise


@asynccontextmanager
async def opened(context: Context, actor: Actor, action: Action, ref: str) -> AsyncGenerator[Place]:
    """The files of an instance, for as long as the actor may and it stays running or stopped.

    Raises TooManyRequestsError when the actor has too many files under way already.
    """
    with context.transfers.take(actor.user_id):
        instance, node, container = await current(context, actor, action, ref)
        if instance.state not in _AT_REST:
            raise WrongStateError(
                f"{instance.name} is {instance.state}.", hint="Wait until it is running or stopped."
            )
        # An operation that finds files open would wait for them: it says so by the state, and
        # whatever is under way ends.
        claim = Claim(actor, instance.id, action, frozenset({instance.state}))
        async with (
            claims.holding(context, claim),
            context.engines.of(node).files(container.engine_name) as files,
        ):
            yield Place(context, actor, instance, files)


async def list_all(context: Context, actor: Actor, ref: str, given: bytes) -> Listing:
    """What a folder has, by name."""
    async with opened(context, actor, Action.FILE_READ, ref) as place:
        path = place.path(given)
        count = 0

        async def counted() -> AsyncIterator[Entry]:
            nonlocal count
            async for entry in place.files.entries(path):
                count += 1
                yield entry

        # All are looked at, so that those that are shown are the first; few are held.
        first: list[Entry] = []
        async for entry in counted():
            first.append(entry)
            if len(first) >= 2 * MOST_ENTRIES:
                first = heapq.nsmallest(MOST_ENTRIES, first, key=_name)
        first = heapq.nsmallest(MOST_ENTRIES, first, key=_name)
        return Listing(path, first, truncated=count > len(first))


def _name(entry: Entry) -> bytes:
    return entry.name


async def stat(context: Context, actor: Actor, ref: str, given: bytes) -> Found:
    """What is at a path; a link is told as one, with where it points."""
    async with opened(context, actor, Action.FILE_READ, ref) as place:
        return await look(place, place.path(given))


async def look(place: Place, path: bytes) -> Found:
    has = await place.files.stat(path, follow=False)
    target = await place.files.read_link(path) if has.kind is FileKind.LINK else None
    return Found(path, has, target)


async def make_folder(
    context: Context, actor: Actor, ref: str, given: bytes, *, mode: int = 0o755
) -> Found:
    """Make a folder that belongs to the instance's owner."""
    async with opened(context, actor, Action.FILE_WRITE, ref) as place:
        path = place.path(given)
        async with place.recorded("mkdir", path):
            await place.files.make_folder(path)
            await place.files.describe(path, mode=mode, owner=await place.owner())
        return await look(place, path)


async def make_link(
    context: Context, actor: Actor, ref: str, given: bytes, to: bytes, *, replace: bool = False
) -> Found:
    """Make a symbolic link that points to `to`, whatever is there. With `replace` a file or link of
    that name goes."""
    async with opened(context, actor, Action.FILE_WRITE, ref) as place:
        if not to or b"\0" in to or len(to) > LONGEST:
            raise InvalidPathError(
                "A link cannot point there.", hint=f"Give 1 to {LONGEST} bytes without NUL."
            )
        path = place.path(given)
        await _check_target(place.files, path, replace=replace)
        async with place.recorded("link", path, to=shown(to)):
            if replace:
                part = _part(path, None)
                await place.files.make_link(part, to)
                try:
                    await place.files.rename(part, path)
                except BaseException:
                    with suppress(HutchError):
                        await place.files.remove(part)
                    raise
            else:
                await place.files.make_link(path, to)
        return await look(place, path)


async def rename(
    context: Context, actor: Actor, ref: str, given: bytes, to: bytes, *, replace: bool = False
) -> Found:
    """Give something another name or place. With `replace` a file of that name goes."""
    async with opened(context, actor, Action.FILE_WRITE, ref) as place:
        path, target = place.path(given), place.path(to)
        _refuse_kernels(path)
        moved = await place.files.stat(path, follow=False)
        async with place.recorded("rename", path, to=shown(target)):
            if replace:
                await place.files.rename(path, target)
            else:
                await _name_anew(place.files, path, target, moved.kind)
        return await look(place, target)


async def _name_anew(files: Files, path: bytes, to: bytes, kind: FileKind) -> None:
    """Rename without ever replacing anything."""
    if kind is FileKind.FILE:
        # A second name is refused where there is one already; a look before would prove nothing.
        await files.link(path, to)
        await files.remove(path)
        return
    if await _is_there(files, to):
        raise taken(to)
    await files.rename(path, to)


def taken(path: bytes) -> FileTakenError:
    return FileTakenError(
        f"There is something of that name already: {shown(path)}.",
        hint="Choose another name, or say that it is to be replaced.",
        path=shown(path),
    )


async def _is_there(files: Files, path: bytes) -> bool:
    try:
        await files.stat(path, follow=False)
    except NotFoundError:
        return False
    return True


async def delete(
    context: Context, actor: Actor, ref: str, given: bytes, *, recursive: bool = False
) -> None:
    """Remove a file, a link (never what it leads to), or a folder; with what is in it only when
    `recursive`."""
    async with opened(context, actor, Action.FILE_WRITE, ref) as place:
        path = place.path(given)
        _refuse_kernels(path)
        has = await place.files.stat(path, follow=False)
        async with place.recorded("delete", path, recursive=recursive):
            if has.kind is not FileKind.FOLDER:
                await place.files.remove(path)
            elif recursive:
                await _remove_tree(place.files, path)
            else:
                await _remove_empty(place.files, path)


async def _remove_empty(files: Files, path: bytes) -> None:
    try:
        await files.remove_folder(path)
    except FolderNotEmptyError as error:
        raise FolderNotEmptyError(
            error.message, hint="Say that what is in it is to go as well.", **error.detail
        ) from None


async def _remove_tree(files: Files, top: bytes) -> None:
    """Remove a folder with all that is below it; links are removed, not followed."""
    left = [(top, False)]
    while left:
        path, is_empty = left.pop()
        if is_empty:
            await files.remove_folder(path)
            continue
        # Looked at again: it may be a link by now, whose target is none of this.
        if (await files.stat(path, follow=False)).kind is not FileKind.FOLDER:
            await files.remove(path)
            continue
        left.append((path, True))
        below = [entry async for entry in files.entries(path)]
        for entry in below:
            inside = join(path, entry.name)
            if entry.attributes.kind is FileKind.FOLDER:
                left.append((inside, False))
            else:
                with suppress(NotFoundError):
                    await files.remove(inside)


def _refuse_kernels(path: bytes) -> None:
    if path in _OF_THE_KERNEL:
        raise InvalidPathError(
            f"{shown(path)} cannot go: the machine needs it.", hint="Name what is in it."
        )


# -- uploads -----------------------------------------------------------------------------------


async def arrived(context: Context, actor: Actor, ref: str, upload: Upload) -> Arrived:
    """How much of an upload that was interrupted is there; 0 when nothing is.

    Raises what the upload itself would be refused with.
    """
    async with opened(context, actor, Action.FILE_WRITE, ref) as place:
        path = place.path(upload.path)
        await _check_target(place.files, path, replace=upload.replace)
        return Arrived(path, await _size_of_part(place.files, _part(path, upload.id)), done=False)


async def abandon(context: Context, actor: Actor, ref: str, upload: Upload) -> None:
    """Forget what has arrived of an upload."""
    async with opened(context, actor, Action.FILE_WRITE, ref) as place:
        part = _part(place.path(upload.path), upload.id)
        with suppress(NotFoundError):
            await place.files.remove(part)


async def receive(
    context: Context, actor: Actor, ref: str, upload: Upload, content: AsyncIterator[bytes]
) -> Arrived:
    """Write what comes into a file beside the target, which takes its name once it is whole.

    Whatever goes wrong, under the target's name there is what was there before. What has arrived
    stays for the upload to go on, if it has an id and the disk is not full.
    """
    async with opened(context, actor, Action.FILE_WRITE, ref) as place:
        path = place.path(upload.path)
        before = await _check_target(place.files, path, replace=upload.replace)
        part = _part(path, upload.id)
        has = 0 if upload.id is None else await _size_of_part(place.files, part)
        if upload.offset != has:
            raise WrongOffsetError(has, upload.offset)
        kept = False
        try:
            size = await _write(place, part, upload, has, before, content)
            if upload.size is not None and size < upload.size:
                kept = True
                return Arrived(path, size, done=False)
            async with place.recorded("upload", path, size=size):
                if upload.replace:
                    await place.files.rename(part, path)
                else:
                    await _name_anew(place.files, part, path, FileKind.FILE)
            kept = True
            return Arrived(path, size, done=True)
        except DiskFullError as error:
            # Of the part beside it nobody has heard.
            raise DiskFullError(
                f"The disk of the instance is full: {shown(path)} has no room.",
                hint="Make room there, or give it a larger disk: hutch set NAME --disk SIZE.",
                path=shown(path),
            ) from error
        except HutchError:
            # What is wrong now would be wrong again: the room is better free.
            raise
        except BaseException:
            kept = upload.id is not None
            raise
        finally:
            if not kept:
                with suppress(HutchError):
                    await place.files.remove(part)


async def _write(
    place: Place,
    part: bytes,
    upload: Upload,
    has: int,
    before: Attributes | None,
    content: AsyncIterator[bytes],
) -> int:
    """Append what comes to a part; its size then."""
    is_new = has == 0 and not await _is_there(place.files, part)
    size = has
    async with place.files.writing(part, offset=None if is_new else has) as file:
        if is_new:
            owner = (before.uid, before.gid) if before else await place.owner()
            await file.describe(mode=0o600, owner=owner)
        async for piece in content:
            size += len(piece)
            if upload.size is not None and size > upload.size:
                raise InvalidInputError(
                    f"More came than the {upload.size} bytes that were announced.",
                    hint="Begin anew: the file has probably changed.",
                )
            await file.write(piece)
        await file.flush()
        mode = upload.mode if upload.mode is not None else before.mode if before else 0o644
        if upload.size is None or size == upload.size:
            await file.describe(mode=mode, modified=upload.modified)
    return size


async def _check_target(files: Files, path: bytes, *, replace: bool) -> Attributes | None:
    """What is at an upload's target at the moment. Raises when nothing can be put there."""
    if (await files.stat(folder_of(path))).kind is not FileKind.FOLDER:
        raise WrongFileTypeError(f"That is not a folder: {shown(folder_of(path))}.")
    try:
        has = await files.stat(path, follow=False)
    except NotFoundError:
        return None
    if has.kind is FileKind.FOLDER or not name_of(path):
        raise WrongFileTypeError(
            f"That is a folder: {shown(path)}.", hint="Name the file that is to be in it."
        )
    if not replace:
        raise taken(path)
    return has if has.kind is FileKind.FILE else None


def _part(path: bytes, upload_id: str | None) -> bytes:
    if upload_id is not None and not _UPLOAD.fullmatch(upload_id):
        raise InvalidInputError(
            "That is no id of an upload.", hint="Choose 8 to 64 of a-z and 0-9, at random."
        )
    return join(folder_of(path), _PART + (upload_id or secrets.token_hex(16)).encode())


async def _size_of_part(files: Files, part: bytes) -> int:
    try:
        has = await files.stat(part, follow=False)
    except NotFoundError:
        return 0
    if has.kind is not FileKind.FILE:
        raise WrongFileTypeError(f"That is not a file: {shown(part)}.", path=shown(part))
    return has.size
