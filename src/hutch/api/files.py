"""The files of an instance, whether it runs or not.

A path is the query's `path`: percent-encoded bytes, as names of files need not be text. Content is
streamed both ways.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from email.utils import format_datetime
from typing import Annotated
from urllib.parse import parse_qsl, quote, quote_from_bytes

import structlog
from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import ConfigDict
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send
from typing_extensions import TypedDict

from hutch.api import PREFIX
from hutch.api.answers import no_content, reply
from hutch.api.deps import ContextDep, allowed
from hutch.domain.file_paths import name_of
from hutch.domain.people import Actor
from hutch.domain.permissions import Action
from hutch.engine.files import Attributes, FileKind
from hutch.errors import HutchError
from hutch.services import downloads, files
from hutch.services.downloads import Archive, Download, Range
from hutch.services.files import Arrived, Found, Upload

log = structlog.get_logger("hutch.files")
router = APIRouter(prefix=f"{PREFIX}/instances/{{instance}}/files", tags=["file"])
Reader = Annotated[Actor, allowed(Action.FILE_READ)]
Writer = Annotated[Actor, allowed(Action.FILE_WRITE)]
STALL_SECONDS = 60.0
"""How long the other end may neither send nor take a byte."""

_MOST = 1 << 53
_LONGEST = 2400
"""Characters of a path: two of them, percent-encoded, fit into a request's first line."""
Path = Annotated[
    str,
    Query(
        max_length=_LONGEST, description="From / on, or from the owner's home; empty: that home."
    ),
]
To = Annotated[str, Query(max_length=_LONGEST, description="The new path.")]
Replace = Annotated[bool, Query(description="Take the place of a file of that name.")]
Mode = Annotated[
    str | None, Query(pattern="^[0-7]{3,4}$", description="Permission bits in octal, as 755.")
]
Modified = Annotated[
    int | None,
    Query(
        ge=0,
        lt=1 << 32,
        description="Seconds since 1970 at which it is to have been changed; default: now.",
    ),
]
UploadId = Annotated[
    str | None,
    Query(
        pattern="^[0-9a-z]{8,64}$",
        description="Chosen at random by who uploads; with it, what has arrived is kept.",
    ),
]


class File(TypedDict):
    """One thing on an instance's disk."""

    __pydantic_config__ = ConfigDict(  # pyright: ignore[reportGeneralTypeIssues]
        json_schema_extra={
            "example": {
                "name": "notes.txt",
                "encoded": "%2Fhome%2Falice%2Fnotes.txt",
                "kind": "file",
                "size": 1234,
                "modified": 1772366400,
                "mode": "644",
                "uid": 1000,
                "gid": 1000,
                "target": None,
                "tag": '"4d2-69a42d80-3e8-1a4"',
            }
        }
    )
    name: Annotated[str, "The last part, for people: what is no UTF-8 shows as U+FFFD."]
    encoded: Annotated[str, "The whole path as `path` takes it, whatever bytes it has."]
    kind: FileKind
    size: int
    modified: Annotated[int, "Seconds since 1970."]
    mode: Annotated[str, "Permission bits in octal."]
    uid: int
    gid: int
    target: Annotated[str | None, "Where a link points, if asked for it alone."]
    tag: Annotated[str, "The ETag of its content."]


class Folder(TypedDict):
    path: str
    encoded: str
    entries: list[File]
    truncated: Annotated[bool, "There are more than are listed."]


class Uploaded(TypedDict):
    """How far an upload has come."""

    size: Annotated[int, "Bytes that are there: where it goes on."]
    done: Annotated[bool, "The file is whole and has its name."]
    encoded: str


@router.get("", response_model=Folder, summary="List a folder")
async def list_all(
    request: Request, context: ContextDep, actor: Reader, instance: str, path: Path = ""
) -> Response:
    """By name, at most 10,000."""
    found = await files.list_all(context, actor, instance, _raw(request, "path"))
    head = found.path.rstrip(b"/") + b"/"
    now = context.now()
    answer: Folder = {
        "path": _text(found.path),
        "encoded": _encoded(found.path),
        "entries": [
            _as_json(head + each.name, each.attributes, downloads.tag_of(each.attributes, now))
            for each in found.entries
        ],
        "truncated": found.truncated,
    }
    return reply(answer)


@router.get("/stat", response_model=File, summary="Show a file, folder or link")
async def stat(
    request: Request, context: ContextDep, actor: Reader, instance: str, path: Path = ""
) -> Response:
    found = await files.stat(context, actor, instance, _raw(request, "path"))
    return _found(context, found)


@router.get(
    "/content",
    summary="Download a file, or a folder as an archive",
    response_class=Response,
    responses={
        200: {"content": {"application/octet-stream": {}}},
        206: {"description": "The part that was asked for"},
    },
)
async def download(
    request: Request,
    context: ContextDep,
    actor: Reader,
    instance: str,
    path: Path = "",
    archive: Annotated[Archive, Query(description="Of what kind, for a folder.")] = Archive.TAR,
    range_: Annotated[str | None, Header(alias="Range")] = None,
    if_range: Annotated[str | None, Header(alias="If-Range")] = None,
) -> Response:
    """`Range: bytes=N-` with `If-Range: ETAG` goes on after an interruption.

    The connection is cut when the file changes meanwhile: what came is then not to be used.
    """
    return _Streamed(
        downloads.send(
            context,
            actor,
            instance,
            _raw(request, "path"),
            wanted=_range(range_),
            only_if=if_range,
            archive=archive,
        )
    )


@router.put(
    "/content",
    response_model=Uploaded,
    summary="Upload a file",
    openapi_extra={
        "requestBody": {
            "content": {"application/octet-stream": {"schema": {"type": "string"}}},
            "required": True,
        }
    },
)
async def upload(
    request: Request,
    context: ContextDep,
    actor: Writer,
    instance: str,
    path: Path = "",
    replace: Replace = False,
    mode: Mode = None,
    upload: UploadId = None,
    offset: Annotated[int, Query(ge=0, le=_MOST, description="Where this goes on.")] = 0,
    size: Annotated[int | None, Query(ge=0, le=_MOST, description="Bytes in all.")] = None,
    modified: Modified = None,
) -> Response:
    """The body is the content. The file has its name once all of it is there, and not before."""
    wanted = Upload(
        _raw(request, "path"),
        id=upload,
        offset=offset,
        size=size,
        replace=replace,
        mode=None if mode is None else int(mode, 8),
        modified=modified,
    )
    try:
        arrived = await files.receive(context, actor, instance, wanted, _body(request))
    except ClientDisconnect:
        return no_content()
    return _arrived(arrived)


@router.post("/link", response_model=File, status_code=201, summary="Make a symbolic link")
async def make_link(
    request: Request,
    context: ContextDep,
    actor: Writer,
    instance: str,
    path: Path = "",
    to: Annotated[str, Query(max_length=_LONGEST, description="Where it points.")] = "",
    replace: Replace = False,
) -> Response:
    """It belongs to root, and points wherever it is told to."""
    found = await files.make_link(
        context, actor, instance, _raw(request, "path"), _raw(request, "to"), replace=replace
    )
    return _found(context, found, 201)


@router.get("/upload", response_model=Uploaded, summary="Show how far an upload has come")
async def show_upload(
    request: Request,
    context: ContextDep,
    actor: Annotated[Actor, allowed(Action.FILE_READ)],
    instance: str,
    path: Path = "",
    replace: Replace = False,
    upload: UploadId = None,
) -> Response:
    """Fails as the upload itself would: ask before you send."""
    wanted = Upload(_raw(request, "path"), id=upload, replace=replace)
    return _arrived(await files.arrived(context, actor, instance, wanted))


@router.delete("/upload", status_code=204, summary="Forget an upload that was interrupted")
async def abandon(
    request: Request,
    context: ContextDep,
    actor: Writer,
    instance: str,
    path: Path = "",
    upload: UploadId = None,
) -> Response:
    await files.abandon(context, actor, instance, Upload(_raw(request, "path"), id=upload))
    return no_content()


@router.post("/folder", response_model=File, status_code=201, summary="Make a folder")
async def make_folder(
    request: Request,
    context: ContextDep,
    actor: Writer,
    instance: str,
    path: Path = "",
    mode: Mode = None,
) -> Response:
    """It belongs to the instance's owner."""
    bits = 0o755 if mode is None else int(mode, 8)
    found = await files.make_folder(context, actor, instance, _raw(request, "path"), mode=bits)
    return _found(context, found, 201)


@router.post("/rename", response_model=File, summary="Rename or move a file or folder")
async def rename(
    request: Request,
    context: ContextDep,
    actor: Writer,
    instance: str,
    path: Path = "",
    to: To = "",
    replace: Replace = False,
) -> Response:
    """In one step, on the same disk."""
    found = await files.rename(
        context, actor, instance, _raw(request, "path"), _raw(request, "to"), replace=replace
    )
    return _found(context, found)


@router.delete("", status_code=204, summary="Delete a file or folder")
async def delete(
    request: Request,
    context: ContextDep,
    actor: Writer,
    instance: str,
    path: Path = "",
    recursive: Annotated[bool, Query(description="A folder with what is in it.")] = False,
) -> Response:
    """Of a link the link alone."""
    raw = _raw(request, "path")
    await files.delete(context, actor, instance, raw, recursive=recursive)
    return no_content()


# -- what travels ------------------------------------------------------------------------------


def _raw(request: Request, name: str) -> bytes:
    """A parameter's own bytes, of which the framework has made a text as well as it could."""
    query = request.scope["query_string"].decode("latin-1")
    for key, value in parse_qsl(query, keep_blank_values=True, errors="surrogateescape"):
        if key == name:
            return value.encode("utf-8", "surrogateescape")
    return b""


def _text(path: bytes) -> str:
    return path.decode("utf-8", "replace")


def _encoded(path: bytes) -> str:
    return quote_from_bytes(path, safe="")


def _as_json(path: bytes, has: Attributes, tag: str, target: bytes | None = None) -> File:
    return {
        "name": _text(name_of(path)),
        "encoded": _encoded(path),
        "kind": has.kind,
        "size": has.size,
        "modified": has.modified,
        "mode": f"{has.mode:o}",
        "uid": has.uid,
        "gid": has.gid,
        "target": None if target is None else _text(target),
        "tag": tag,
    }


def _found(context: ContextDep, found: Found, status: int = 200) -> Response:
    tag = downloads.tag_of(found.attributes, context.now())
    return reply(_as_json(found.path, found.attributes, tag, found.target), status)


def _arrived(arrived: Arrived) -> Response:
    answer: Uploaded = {
        "size": arrived.size,
        "done": arrived.done,
        "encoded": _encoded(arrived.path),
    }
    return reply(answer)


def _range(header: str | None) -> Range | None:
    """The one range that is asked for; None for anything else, which is answered with all of it."""
    unit, _, spans = (header or "").partition("=")
    first, dash, last = spans.strip().partition("-")
    if unit.strip().lower() != "bytes" or not dash or len(spans) > 60:
        return None
    if not first and last.isascii() and last.isdecimal():
        return Range(-int(last)) if int(last) else None
    if not (first.isascii() and first.isdecimal()) or (last and not last.isdecimal()):
        return None
    if last and int(last) < int(first):
        return None
    return Range(int(first), int(last) if last else None)


async def _body(request: Request) -> AsyncIterator[bytes]:
    """What comes in, in pieces; what stalls is given up."""
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(STALL_SECONDS):
                piece = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise ClientDisconnect from None
        if piece:
            yield piece


class _Streamed(Response):
    """An answer whose content is read while it is sent, no faster than it is taken."""

    def __init__(self, download: AbstractAsyncContextManager[Download]) -> None:
        super().__init__()
        self._download = download

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(_gone(receive))
        began = False
        try:
            async with self._download as download:
                pieces = download.pieces
                # What is wrong at the first piece is still told in an answer.
                first = await anext(pieces, b"")
                await send(_start(download))
                began = True
                await _send_piece(send, first, gone)
                async for piece in pieces:
                    await _send_piece(send, piece, gone)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (HutchError, TimeoutError, ClientDisconnect) as error:
            if not began:
                raise
            # Nothing can be told any more: that it is cut off says that it is not whole.
            log.info("a download was cut off", reason=getattr(error, "message", "") or repr(error))
        finally:
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone


async def _send_piece(send: Send, piece: bytes, gone: "asyncio.Future[None]") -> None:
    if gone.done():
        raise ClientDisconnect
    if piece:
        async with asyncio.timeout(STALL_SECONDS):
            await send({"type": "http.response.body", "body": piece, "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _start(download: Download) -> Message:
    text = _text(download.name)
    plain = "".join(c if " " <= c <= "~" and c not in '"\\' else "_" for c in text)
    headers: dict[str, str] = {
        # Never a page: whoever opens it in a browser saves it.
        "content-type": "application/octet-stream",
        "content-disposition": (
            f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(text, safe='')}"
        ),
    }
    if download.length is not None:
        headers["content-length"] = str(download.length)
        headers["accept-ranges"] = "bytes"
    if download.tag is not None:
        headers["etag"] = download.tag
    if download.modified is not None:
        headers["last-modified"] = format_datetime(download.modified, usegmt=True)
    if download.is_part:
        end = download.start + (download.length or 0) - 1
        headers["content-range"] = f"bytes {download.start}-{end}/{download.size}"
    return {
        "type": "http.response.start",
        "status": 206 if download.is_part else 200,
        "headers": _encoded_headers(headers),
    }


def _encoded_headers(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()]
