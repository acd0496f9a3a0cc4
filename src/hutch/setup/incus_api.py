"""A small blocking client for the Incus (or LXD) REST API, for the setup alone.

The server has its own asynchronous one in `hutch.engine.incus`; the setup prepares the place that
one works in, one call after the other, and must run before anything else of hutch does.
"""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast

import httpx

Json = dict[str, Any]


class IncusApiError(Exception):
    """Incus refused a call, or an operation of it failed. `code` is its HTTP status."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        super().__init__(message)


class IncusApi:
    """One Incus server behind a unix socket, in one project."""

    def __init__(self, socket: Path, project: str = "default") -> None:
        self.socket = socket
        self.project = project
        transport = httpx.HTTPTransport(uds=str(socket))
        self._http = httpx.Client(transport=transport, base_url="http://incus", timeout=60)

    def __enter__(self) -> IncusApi:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def in_project(self, project: str) -> IncusApi:
        """The same server, seen from another project."""
        return IncusApi(self.socket, project)

    def call(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        content: Iterator[bytes] | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = 600,
    ) -> Any:
        """Makes one call under /1.0, waits for the operation it may start, returns metadata.

        Raises:
            IncusApiError: the answer or the operation says so.
            httpx.TransportError: nobody answers at the socket.
        """
        answer = self._http.request(
            method,
            f"/1.0{path}",
            params={"project": self.project},
            json=body,
            content=content,
            headers=headers,
            timeout=timeout,
        )
        found = _metadata(answer)
        if answer.status_code == HTTPStatus.ACCEPTED:
            return self._wait(cast("Json", found), timeout)
        return found

    def _wait(self, operation: Json, timeout: float) -> Json:
        answer = self._http.get(
            f"/1.0/operations/{operation['id']}/wait",
            params={"timeout": int(timeout), "project": self.project},
            timeout=timeout + 10,
        )
        ended = cast("Json", _metadata(answer))
        if ended["status_code"] != HTTPStatus.OK:
            raise IncusApiError(int(ended["status_code"]), str(ended.get("err") or ended["status"]))
        return ended

    def get(self, path: str) -> Any:
        return self.call("GET", path)

    def find(self, path: str) -> Json | None:
        """The object at `path`, or None where there is none."""
        try:
            return cast("Json", self.call("GET", path))
        except IncusApiError as error:
            if error.code == HTTPStatus.NOT_FOUND:
                return None
            raise

    def names(self, path: str) -> list[str]:
        """The names of a collection, taken from the links Incus lists."""
        links = cast("list[str]", self.get(path))
        return [link.split("?")[0].rsplit("/", 1)[-1] for link in links]

    def answers(self) -> bool:
        """Whether a daemon answers at the socket."""
        try:
            self.get("")
        except (httpx.TransportError, IncusApiError):
            return False
        return True


def _metadata(answer: httpx.Response) -> object:
    try:
        body = cast("Json", answer.json())
    except ValueError as error:
        raise IncusApiError(answer.status_code, answer.text[:300]) from error
    if answer.is_error or body.get("type") == "error":
        raise IncusApiError(answer.status_code, str(body.get("error")))
    return body.get("metadata")
