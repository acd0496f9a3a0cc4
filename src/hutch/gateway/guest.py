"""Whoever is at the other end of a connection: who they are, and what they may open.

A person is known by their key alone. The user name that ssh sends says nothing about who comes:
any name will do. If it happens to be one of the person's instances that is stopped, they are told
that going there starts it. The one name that means something else is `register`, for somebody whose
key nobody knows.
"""

import asyncio
import math
import secrets
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, cast

import asyncssh
import structlog
from asyncssh.constants import (
    DISC_NO_MORE_AUTH_METHODS_AVAILABLE,
    DISC_SERVICE_NOT_AVAILABLE,
    DISC_TOO_MANY_CONNECTIONS,
    OPEN_ADMINISTRATIVELY_PROHIBITED,
    OPEN_RESOURCE_SHORTAGE,
)

from hutch.domain.instances import Instance, InstanceState
from hutch.domain.people import Actor
from hutch.errors import HutchError
from hutch.gateway import jump, messages, register
from hutch.gateway.errand import Errand
from hutch.gateway.limits import unit
from hutch.gateway.pipe import Pipe
from hutch.gateway.register import Challenge, Reception, Registration
from hutch.gateway.wire import Connection, Lane
from hutch.services import gateway as services

if TYPE_CHECKING:
    from hutch.gateway.server import Gateway

MOST_KEYS = 20
"""Keys that one connection may offer; an agent has a handful."""
MOST_LANES = 64
"""Channels that one connection may have open."""

_FRESH_SECONDS = 2.0

log = structlog.get_logger("hutch.gateway")


class Guest(asyncssh.SSHServer):
    """One connection's other end."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway
        self._context = gateway.context
        self._request_id = secrets.token_hex(8)
        self._connection: Connection | None = None
        self._name = ""
        self._offered: dict[str, str] = {}
        self._candidate: tuple[Actor, str] | None = None
        self._destination: Instance | None = None
        """What the user name leads to, when the key was looked up."""
        self._looked_up = -math.inf
        self._is_announced = False
        self._registration: Registration | None = None
        self.address = ""
        """What counts as one address."""
        self._from = ""
        self.actor: Actor | None = None
        """Who it is, once they have proved it."""
        self.fingerprint = ""
        self.pipes: set[Pipe] = set()

    # ---- coming and going ---------------------------------------------------------------------

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = cast("Connection", conn)
        self._from = conn.get_extra_info("peername")[0]
        self.address = unit(self._from)
        self._gateway.limits.begin(self)
        self._gateway.guests.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gateway.limits.end(self)
        for pipe in list(self.pipes):
            pipe.close()
        if self.actor is not None:
            self._gateway.limits.leave(self.actor.user_id)
            self._gateway.errands.passes.end(self)
            log.info("Left", person=self.actor.name, request_id=self._request_id)
        elif self._is_registered:
            log.info("Left", request_id=self._request_id)
        elif self._offered and self._candidate is None:
            self._gateway.limits.fail(self.address)
            self._gateway.audit.refused(self._from, self._request_id, tuple(self._offered))
        self._gateway.left(self)

    def abort(self) -> None:
        """End the connection without a word."""
        if self._connection is not None:
            self._connection.abort()

    def dismiss(self, reason: str, code: int = DISC_SERVICE_NOT_AVAILABLE) -> None:
        """End the connection, and say why."""
        if self._connection is not None:
            self._connection.dismiss(code, reason)

    @property
    def heard(self) -> float:
        """When something moved last, by the loop's clock."""
        return self._connection.heard if self._connection is not None else 0.0

    @property
    def is_idle(self) -> bool:
        """Whether nothing is open on the connection."""
        return self._connection is None or not self._connection.channels

    # ---- who it is ----------------------------------------------------------------------------

    def begin_auth(self, username: str) -> bool:
        self._name = username
        self._registration = None
        self._candidate = None
        self._destination = None
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> Awaitable[bool]:
        return self._knows(key)

    def kbdint_auth_supported(self) -> bool:
        may = self._context.settings.gateway_register == "password"
        return may and self._name == register.USER

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Challenge:
        # ssh asks again when an answer was refused.
        again = self._registration is not None
        self._registration = Registration(
            self._context, self._offered, self._from, self._request_id
        )
        return self._registration.begin(again=again)

    async def validate_kbdint_response(
        self, username: str, responses: Sequence[str]
    ) -> Challenge | bool:
        if self._registration is None:
            return False
        try:
            return await self._registration.answer(responses)
        except HutchError as error:
            self.dismiss(f"{error.message} {error.hint}", DISC_NO_MORE_AUTH_METHODS_AVAILABLE)
            return False

    @property
    def _is_registered(self) -> bool:
        """Whether this connection has no more rights than to register a key.

        Somebody's key may have been offered on it too, which proves nothing.
        """
        return self._registration is not None and self._registration.is_done

    async def _knows(self, key: asyncssh.SSHKey) -> bool:
        """Whether somebody has registered this key; asked when it is offered and when it signs."""
        fingerprint = key.get_fingerprint()
        if self._candidate is not None and self._candidate[1] == fingerprint and self._is_fresh:
            return True
        self._candidate = self._destination = None
        try:
            found = await services.whose_key(
                self._context, fingerprint, self._name,
                address=self._from, request_id=self._request_id,
            )  # fmt: skip
        except HutchError:
            self.dismiss(messages.UNAVAILABLE)
            return False
        if found is None:
            self._offered[fingerprint] = key.export_public_key("openssh").decode()
            if len(self._offered) >= MOST_KEYS:
                text = messages.TOO_MANY_KEYS.format(count=len(self._offered))
                self.dismiss(text, DISC_NO_MORE_AUTH_METHODS_AVAILABLE)
            return False
        actor, self._destination = found
        self._candidate = actor, fingerprint
        self._looked_up = asyncio.get_running_loop().time()
        self._announce()
        return True

    @property
    def _is_fresh(self) -> bool:
        """Whether what was looked up last is as good as new: `Watch` looks no more often."""
        return asyncio.get_running_loop().time() - self._looked_up < _FRESH_SECONDS

    def _announce(self) -> None:
        """Say that a stopped instance will be started, if it is the one that ssh has named.

        It can only be said now: once somebody is logged in ssh shows nothing that a gateway says
        about a channel. `hutch ssh-config` writes a configuration that names it.
        """
        found = self._destination
        if self._is_announced or self._connection is None or found is None:
            return
        if found.state is InstanceState.STOPPED and found.wake_on_ssh:
            self._is_announced = True
            self._connection.send_auth_banner(messages.WAKING.format(name=found.name))

    def auth_completed(self) -> None:
        if self._is_registered:
            # It keeps its place among those that have not logged in, and a term.
            seconds = self._context.settings.gateway_login_seconds
            self._gateway.later(seconds, self.dismiss, messages.TIME_IS_UP)
            return
        if self._candidate is None:
            self.abort()
            return
        actor, self.fingerprint = self._candidate
        self._gateway.limits.end(self)
        refusal = self._gateway.limits.enter(actor.user_id)
        if refusal:
            self.dismiss(refusal, DISC_TOO_MANY_CONNECTIONS)
            return
        self.actor = actor
        self._gateway.audit.entered(actor, self.fingerprint)
        log.info(
            "Entered", person=actor.name, address=self._from, fingerprint=self.fingerprint,
            request_id=self._request_id,
        )  # fmt: skip

    # ---- what they open -----------------------------------------------------------------------

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> tuple[Lane, Awaitable[Pipe]]:
        self._check_room()
        if self._is_registered:
            raise asyncssh.ChannelOpenError(
                OPEN_ADMINISTRATIVELY_PROHIBITED, messages.ONLY_REGISTERING
            )
        if self._connection is None:
            raise asyncssh.ChannelOpenError(OPEN_RESOURCE_SHORTAGE, messages.ENDING)
        return self._connection.new_lane(), self._open_pipe(dest_host, dest_port)

    def _tell_loss(self, text: str) -> None:
        """Say why a way has ended. ssh shows nothing that is said about a channel that is open, so
        it can only be told with the end of the connection: where nothing else is open on it."""
        if self._connection is not None and self._connection.channels <= 1:
            self.dismiss(text)

    def _check_room(self) -> None:
        if self._connection is not None and self._connection.channels >= MOST_LANES:
            text = messages.TOO_MANY_LANES.format(most=MOST_LANES)
            raise asyncssh.ChannelOpenError(OPEN_RESOURCE_SHORTAGE, text)

    def session_requested(self) -> Errand | Reception:
        self._check_room()
        if self._connection is None:
            raise asyncssh.ChannelOpenError(OPEN_RESOURCE_SHORTAGE, messages.ENDING)
        place = self._gateway.place(self._connection.get_extra_info("sockname"))
        if self._registration is not None and self._is_registered:
            return Reception(self._registration, place)
        if self.actor is None:
            raise asyncssh.ChannelOpenError(OPEN_RESOURCE_SHORTAGE, messages.ENDING)
        return Errand(self._gateway.errands, self, self.actor, place)

    async def _open_pipe(self, host: str, port: int) -> Pipe:
        if self.actor is None:
            raise asyncssh.ChannelOpenError(OPEN_RESOURCE_SHORTAGE, messages.ENDING)
        is_known = host == self._name and self._is_fresh
        known = self._destination if is_known else None
        pipe = await jump.open_pipe(self._context, self.actor, host, port, known)
        self.pipes.add(pipe)
        pipe.on_end(lambda: self.pipes.discard(pipe), self._tell_loss)
        if self not in self._gateway.guests:
            # They left while it was being opened: nobody else would close it.
            pipe.close()
        return pipe
