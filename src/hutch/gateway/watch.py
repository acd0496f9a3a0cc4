"""Looks again and again whether those who are in may still be in."""

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING

import structlog

from hutch.domain.instances import InstanceState
from hutch.domain.people import Actor
from hutch.errors import HutchError
from hutch.gateway import messages
from hutch.gateway.guest import Guest
from hutch.services import gateway as services
from hutch.services.context import Context

if TYPE_CHECKING:
    from hutch.gateway.server import Gateway

_LOOK_SECONDS = 2.0
"""A key that is removed, or a person who is shut out, is out after so long at most."""
_FAREWELL_SECONDS = 60.0
"""How long a connection with nothing open may stay when the gateway is ending."""

log = structlog.get_logger("hutch.gateway")


class Watch:
    """Ends what no longer holds: a lost key or instance, and connections where nothing moves."""

    def __init__(self, context: Context, gateway: "Gateway") -> None:
        self._context = context
        self._gateway = gateway

    async def run(self) -> None:
        """Look until cancelled. A database that does not answer ends nobody's session."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                await self.look()
            except HutchError as error:
                log.warning("Keys cannot be looked up again", reason=error.message)
            except Exception:
                log.exception("Looking after connections failed")

    async def look(self) -> None:
        self._end_idle()
        guests = [each for each in self._gateway.guests if each.actor is not None]
        if guests:
            await self._end_unknown(guests)
            await self._end_unreachable(guests)

    def _end_idle(self) -> None:
        now = asyncio.get_running_loop().time()
        minutes = self._context.settings.gateway_idle_minutes
        for guest in list(self._gateway.guests):
            silent = now - guest.heard
            if minutes and guest.actor is not None and silent > minutes * 60:
                guest.dismiss(messages.IDLE.format(minutes=minutes))
            elif self._gateway.is_draining and guest.is_idle and silent > _FAREWELL_SECONDS:
                guest.dismiss(messages.ENDING)

    async def _end_unknown(self, guests: Collection[Guest]) -> None:
        known = await services.still_known(self._context, {each.fingerprint for each in guests})
        for guest in guests:
            if guest.actor and known.get(guest.fingerprint) != guest.actor.user_id:
                log.info("Shut out", person=guest.actor.name, fingerprint=guest.fingerprint)
                guest.dismiss(messages.NO_LONGER)

    async def _end_unreachable(self, guests: Collection[Guest]) -> None:
        pipes = [(guest.actor, pipe) for guest in guests for pipe in guest.pipes if guest.actor]
        ways: set[tuple[Actor, str]] = {(actor, pipe.instance.id) for actor, pipe in pipes}
        if not ways:
            return
        still = await services.still_reachable(self._context, ways)
        for actor, pipe in pipes:
            state = still.get((actor.user_id, pipe.instance.id))
            if state is None:
                pipe.lose(messages.NOT_YOURS)
            elif state is InstanceState.STOPPED:
                # Its programs may have been ended so that they could not say goodbye.
                pipe.lose(messages.HAS_STOPPED)
