"""How the client's methods ask: one connection, one way to say a path, a query and a body."""

from typing import Any

from hutch.client.transport import Query, Transport
from hutch.errors import NotAuthenticatedError

PREFIX = "/api/v1"
LONGEST_WAIT = 60
"""Seconds for which the server keeps a request that waits for something to change."""

Size = int | str
"""Bytes, or a text such as `4GiB`."""


class Asking:
    """A person at one hutch server, without anything that they could ask for."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout: float = 30.0,
        on_behalf_of: str | None = None,
    ) -> None:
        """`on_behalf_of` is the address of the person for whom this asks, where it is another's.

        The server believes it of those that it trusts as proxies.
        """
        self._transport = Transport(url, token, timeout=timeout, on_behalf_of=on_behalf_of)
        self._timeout = timeout
        self._signed_in = token is not None

    @property
    def url(self) -> str:
        return self._transport.url

    def close(self) -> None:
        self._transport.close()

    def _get(self, path: str, **query: str | int | None) -> Any:
        return self._request("GET", path, query=query)

    def _do(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """A request whose body leaves out what is None: the server's default holds."""
        if body is not None:
            body = {key: value for key, value in body.items() if value is not None}
        return self._request(method, path, body=body)

    def _request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Any:
        self._check_signed_in()
        return self._transport.request(
            method, PREFIX + path, query=query, body=body, timeout=timeout
        )

    def _check_signed_in(self) -> None:
        if not self._signed_in:
            raise NotAuthenticatedError(
                f"You are not signed in at {self.url}.", hint="Sign in with `hutch login`."
            )

    def _open(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """A request that needs no sign-in."""
        return self._transport.request(method, PREFIX + path, body=body)
