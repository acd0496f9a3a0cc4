"""What the client asks of terminals: a WebSocket to a shell."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from hutch.client import answers, paths
from hutch.client.asking import PREFIX, Asking
from hutch.client.failures import from_answer
from hutch.errors import UnavailableError

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection


class Terminals(Asking):
    """What the client asks of terminals."""

    def create_terminal_ticket(self, ref: str) -> answers.TerminalTicket:
        """What a page opens one terminal of an instance with, in place of the token."""
        return self._do("POST", f"{paths.instance(ref)}/terminal/ticket")

    @contextmanager
    def open_terminal(
        self, ref: str, session: str | None, columns: int, rows: int, window: int | None = None
    ) -> Generator["ClientConnection"]:
        """A connection that speaks as docs/reference/terminal.md says; raises as the others do."""
        # Imported here: most commands never need it.
        from websockets.exceptions import InvalidStatus, WebSocketException
        from websockets.sync.client import connect

        self._check_signed_in()
        asked = {"columns": columns, "rows": rows, "session": session, "window": window}
        query = urlencode({key: value for key, value in asked.items() if value is not None})
        address, headers = self._transport.websocket()
        url = f"{address}{PREFIX}{paths.instance(ref)}/terminal?{query}"
        try:
            socket = connect(
                url, additional_headers=headers, compression=None, max_size=None, proxy=None
            )
        except InvalidStatus as refused:
            body = bytes(refused.response.body or b"")
            raise from_answer(self.url, refused.response.status_code, body) from None
        except (OSError, WebSocketException) as error:
            raise UnavailableError(f"hutch at {self.url} cannot be reached: {error}.") from None
        with socket:
            yield socket
