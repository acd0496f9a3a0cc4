"""What the client asks of files: names are bytes, content is streamed both ways."""

import http.client
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hutch.client import answers, paths
from hutch.client.asking import PREFIX, Asking
from hutch.client.transport import Query

PIECE = 256 * 1024


@dataclass(frozen=True, slots=True)
class Coming:
    """A download while it comes."""

    pieces: Iterator[bytes]
    start: int
    """Of which byte of the file `pieces` is the first."""
    size: int | None
    """Bytes of the whole file; None for an archive."""
    tag: str | None
    """Names this state of the file: send it back to go on in the middle."""


class Files(Asking):
    """What the client asks of files. A path begins at / or at the instance's owner's home."""

    def list_files(self, ref: str, path: bytes = b"") -> answers.Folder:
        return self._request("GET", _files(ref), query={"path": path})

    def show_file(self, ref: str, path: bytes) -> answers.File:
        return self._request("GET", f"{_files(ref)}/stat", query={"path": path})

    @contextmanager
    def download(
        self,
        ref: str,
        path: bytes,
        *,
        start: int = 0,
        tag: str | None = None,
        archive: str | None = None,
    ) -> Generator[Coming]:
        """A file from `start` on, if it is still the one of that `tag`, else from its beginning; a
        folder as an archive.

        `pieces` may end before all of it came: then the connection was cut, or the file changed.
        """
        headers = {"Range": f"bytes={start}-", "If-Range": tag} if start and tag else {}
        query = {"path": path, "archive": archive}
        with self._stream("GET", f"{_files(ref)}/content", query, headers) as answer:
            length = answer.getheader("Content-Length")
            begins = start if answer.status == http.HTTPStatus.PARTIAL_CONTENT else 0
            yield Coming(
                pieces=_pieces(answer),
                start=begins,
                size=None if length is None else begins + int(length),
                tag=answer.getheader("ETag"),
            )

    def show_upload(
        self, ref: str, path: bytes, upload: str, *, replace: bool = False
    ) -> answers.Uploaded:
        """How much of an upload has arrived."""
        query = {"path": path, "upload": upload, "replace": _flag(replace)}
        return self._request("GET", f"{_files(ref)}/upload", query=query)

    def upload(
        self,
        ref: str,
        path: bytes,
        content: Iterator[bytes],
        *,
        size: int,
        upload: str,
        offset: int = 0,
        replace: bool = False,
        mode: int | None = None,
        modified: int | None = None,
    ) -> answers.Uploaded:
        """Send the `size` bytes of a file from `offset` on, which is where `content` begins.

        `content` may end early: what came is kept, and the answer says that it is not `done`.
        """
        query = {
            "path": path,
            "upload": upload,
            "offset": offset,
            "size": size,
            "replace": _flag(replace),
            "mode": None if mode is None else f"{mode:03o}",
            "modified": modified,
        }
        # No length is announced, so that ending early is an end and not a broken connection.
        headers = {"Content-Type": "application/octet-stream"}
        target = f"{_files(ref)}/content"
        with self._stream("PUT", target, query, headers, content) as answer:
            return self._transport.decoded(answer.status, answer.read())

    def abandon_upload(self, ref: str, path: bytes, upload: str) -> None:
        query = {"path": path, "upload": upload}
        self._request("DELETE", f"{_files(ref)}/upload", query=query)

    def make_folder(self, ref: str, path: bytes, *, mode: int | None = None) -> answers.File:
        query = {"path": path, "mode": None if mode is None else f"{mode:03o}"}
        return self._request("POST", f"{_files(ref)}/folder", query=query)

    def make_link(self, ref: str, path: bytes, to: bytes, *, replace: bool = False) -> answers.File:
        query = {"path": path, "to": to, "replace": _flag(replace)}
        return self._request("POST", f"{_files(ref)}/link", query=query)

    def rename_file(
        self, ref: str, path: bytes, to: bytes, *, replace: bool = False
    ) -> answers.File:
        query = {"path": path, "to": to, "replace": _flag(replace)}
        return self._request("POST", f"{_files(ref)}/rename", query=query)

    def delete_file(self, ref: str, path: bytes, *, recursive: bool = False) -> None:
        query = {"path": path, "recursive": _flag(recursive)}
        self._request("DELETE", _files(ref), query=query)

    @contextmanager
    def _stream(
        self,
        method: str,
        path: str,
        query: Query,
        headers: dict[str, str],
        content: Iterator[bytes] | None = None,
    ) -> Generator[http.client.HTTPResponse]:
        self._check_signed_in()
        with self._transport.stream(method, PREFIX + path, query, headers, content) as answer:
            yield answer


def _files(ref: str) -> str:
    return f"{paths.instance(ref)}/files"


def _flag(value: bool) -> str | None:
    return "true" if value else None


def _pieces(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """What comes until the end, or until it is cut off."""
    try:
        while piece := answer.read(PIECE):
            yield piece
    except (OSError, http.client.HTTPException):
        return
