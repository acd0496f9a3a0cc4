"""Somebody's first key: `ssh register@lab`, for who has an account, a password, and ssh.

The name and the password are asked for while ssh logs in (RFC 4256), so that it works wherever ssh
can ask: at a terminal, or by a program of the desktop. ssh has offered its keys before: one of them
is chosen and registered. Who has none there sends the line of one on standard input.

Nobody is logged in by it: the connection can register a key, and nothing else.
"""

# asyncssh says nothing of the types that its channels carry.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

import asyncssh
import structlog
from asyncssh.constants import EXTENDED_DATA_STDERR

from hutch.cli.exits import FAILED, INTERRUPTED, exit_code
from hutch.domain.people import Actor, SshKey
from hutch.domain.sshkeys import LONGEST_LINE
from hutch.errors import BadLoginError, HutchError
from hutch.gateway import messages
from hutch.services import keys, tokens
from hutch.services.context import Context

USER = "register"
"""The user name that asks for this; every other one is ignored."""
_LANGUAGE = "en"
_YES = frozenset({"y", "yes"})
_ENDS = "\r\n"
_LEAVE = "\x03\x04"

Challenge = tuple[str, str, str, Sequence[tuple[str, bool]]]
"""A title, what is said, its language, and prompts with whether the answer is shown."""

log = structlog.get_logger("hutch.gateway")


class Registration:
    """The questions and answers, up to a key that is registered or is still to be sent."""

    def __init__(
        self, context: Context, offered: Mapping[str, str], address: str, request_id: str
    ) -> None:
        self._context = context
        self._offered = offered
        self._address = address
        self._request_id = request_id
        self._next: Callable[[str], Awaitable[Challenge | bool]] = self._take_name
        self._name = ""
        self._chosen = ""
        self.actor: Actor | None = None
        """Who it is, once the password was right."""
        self.key: SshKey | None = None
        """What was registered."""
        self.is_done = False
        """Whether all is answered, so that ssh is let in."""

    def begin(self, *, again: bool = False) -> Challenge:
        """What is asked first; `again` after a name and password that were wrong."""
        return _ask(messages.WRONG if again else messages.REGISTER, messages.NAME)

    async def answer(self, responses: Sequence[str]) -> Challenge | bool:
        """What to ask next; at the end, whether ssh is let in. Raises HutchError."""
        if len(responses) > 1:
            return False
        step = await self._next("".join(responses).strip("\r\n"))
        self.is_done = step is True
        return step

    async def add(self, line: str) -> SshKey:
        """Register a key. Raises HutchError."""
        if self.actor is None:
            raise BadLoginError
        self.key = await keys.add(self._context, self.actor, line)
        log.info(
            "Registered", person=self.actor.name, address=self._address,
            fingerprint=self.key.fingerprint, request_id=self._request_id,
        )  # fmt: skip
        return self.key

    async def _take_name(self, answer: str) -> Challenge | bool:
        self._name = answer.strip()
        self._next = self._take_password
        return _ask("", messages.ITS_PASSWORD, is_shown=False)

    async def _take_password(self, answer: str) -> Challenge | bool:
        try:
            self.actor = await tokens.recognize(
                self._context, self._name, answer,
                address=self._address, request_id=self._request_id,
            )  # fmt: skip
        except BadLoginError:
            return False
        return self._ask_which(messages.YOU_ARE.format(name=self.actor.name))

    def _ask_which(self, said: str) -> Challenge | bool:
        if not self._offered or self.actor is None:
            return True
        lines = [
            messages.KEY_LINE.format(number=at, fingerprint=fingerprint, type=line.split()[0])
            for at, (fingerprint, line) in enumerate(self._offered.items(), 1)
        ]
        if len(lines) == 1:
            (self._chosen,) = self._offered
            self._next = self._take_consent
            text = "\n".join([said, messages.ONE_KEY, *lines])
            return _ask(text, self._consent(self.actor))
        self._next = self._take_number
        text = "\n".join([said, messages.SEVERAL_KEYS, *lines])
        return _ask(text, messages.WHICH_KEY.format(count=len(lines)))

    async def _take_number(self, answer: str) -> Challenge | bool:
        answer = answer.strip()
        number = int(answer) if answer.isascii() and answer.isdigit() and len(answer) < 4 else -1
        if number == 0:
            return True
        if self.actor is None or not 0 < number <= len(self._offered):
            return self._ask_which("")
        self._chosen = list(self._offered)[number - 1]
        self._next = self._take_consent
        return _ask("", self._consent(self.actor))

    def _consent(self, actor: Actor) -> str:
        return messages.ADD_IT.format(fingerprint=self._chosen, name=actor.name)

    async def _take_consent(self, answer: str) -> Challenge | bool:
        if answer.strip().lower() not in _YES:
            # Another one, then: on standard input.
            return True
        try:
            await self.add(self._offered[self._chosen])
        except HutchError as error:
            if len(self._offered) == 1:
                self._next = self._go_on
                return "", _said(error), _LANGUAGE, ()
            return self._ask_which(_said(error))
        return True

    async def _go_on(self, _: str) -> Challenge | bool:
        return True


class Reception(asyncssh.SSHServerSession[bytes]):
    """The session after it: says what was registered, or reads the line of a key."""

    def __init__(self, registration: Registration, place: str) -> None:
        self._registration = registration
        self._place = place
        self._channel: asyncssh.SSHServerChannel[bytes] | None = None
        self._has_terminal = False
        self._line = ""
        self._is_read = False
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, chan: Any) -> None:
        self._channel = cast("asyncssh.SSHServerChannel[bytes]", chan)

    def connection_lost(self, exc: Exception | None) -> None:
        self._channel = None

    def pty_requested(
        self, term_type: str, term_size: tuple[int, int, int, int], term_modes: Mapping[int, int]
    ) -> bool:
        self._has_terminal = True
        return True

    def shell_requested(self) -> bool:
        return True

    def exec_requested(self, command: str) -> bool:
        return True

    def session_started(self) -> None:
        if self._registration.key is not None:
            self._tell(self._registration.key)
        else:
            self._say(messages.SEND_KEY)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if self._is_read or self._registration.key is not None:
            return
        text = data.decode("utf-8", "replace")
        end = min((text.find(each) for each in _ENDS if each in text), default=len(text))
        if self._has_terminal and any(each in _LEAVE for each in text[:end]):
            self._end(INTERRUPTED)
            return
        self._line += text[:end]
        if self._has_terminal and self._channel is not None:
            # ssh shows nothing of it by itself.
            self._channel.write(text[:end].encode())
        if end < len(text) or len(self._line) > LONGEST_LINE:
            self._take()

    def eof_received(self) -> bool:
        if not self._is_read and self._registration.key is None:
            self._take()
        return True

    def _take(self) -> None:
        self._is_read = True
        task = asyncio.get_running_loop().create_task(self._add())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _add(self) -> None:
        if self._has_terminal:
            self._say("")
        if not self._line.strip():
            self._say(messages.NO_KEY)
            self._end(FAILED)
            return
        try:
            key = await self._registration.add(self._line)
        except HutchError as error:
            self._say(_said(error))
            self._end(exit_code(error))
        except Exception:
            log.exception("Registering a key failed")
            self._say(messages.BROKEN)
            self._end(FAILED)
        else:
            self._tell(key)

    def _tell(self, key: SshKey) -> None:
        actor = self._registration.actor
        host, _, port = self._place.rpartition(":")
        text = messages.REGISTERED.format(
            fingerprint=key.fingerprint, name=actor.name if actor else "", host=host.strip("[]"),
            port=port,
        )  # fmt: skip
        if self._channel is not None:
            self._channel.write(text.encode() + (b"\r\n" if self._has_terminal else b"\n"))
        self._end(0)

    def _say(self, text: str) -> None:
        if self._channel is not None:
            end = "\r\n" if self._has_terminal else "\n"
            self._channel.write(f"{text}{end}".encode(), EXTENDED_DATA_STDERR)

    def _end(self, code: int) -> None:
        self._is_read = True
        if self._channel is not None:
            self._channel.exit(code)


def _ask(said: str, prompt: str, *, is_shown: bool = True) -> Challenge:
    return "", said, _LANGUAGE, ((prompt, is_shown),)


def _said(error: HutchError) -> str:
    return f"{error.message} {error.hint}".strip()
