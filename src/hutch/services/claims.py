"""What goes on for long is asked again and again whether it still may.

A file that is sent, a terminal that is open: a token that is revoked, a person who is shut out, an
instance that is no longer shared, or that is about to be started or deleted, ends it within
seconds.
"""

from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial

from hutch.errors import BadTokenError, ForbiddenError, HutchError, NotFoundError, WrongStateError
from hutch.services.access import find_instance
from hutch.services.context import Context
from hutch.services.held import Claim
from hutch.store import tokens
from hutch.store.db import Session


def holding(context: Context, claim: Claim) -> AbstractAsyncContextManager[None]:
    """Let the block run while the claim holds; then it is cancelled, and the reason raised."""
    return context.held.holding(claim, partial(reasons_to_end, context))


async def reasons_to_end(context: Context, claims: Collection[Claim]) -> dict[Claim, HutchError]:
    """Those of the claims that hold no longer, each with why."""
    found: dict[Claim, HutchError] = {}
    async with context.db.read() as session:
        ids = {each.actor.token_id for each in claims if each.actor.token_id}
        alive = await tokens.alive(session, ids, context.now())
        for claim in claims:
            reason = await _reason_to_end(session, claim, alive)
            if reason is not None:
                found[claim] = reason
    return found


async def _reason_to_end(
    session: Session, claim: Claim, alive: dict[str, tokens.Bearer]
) -> HutchError | None:
    actor = claim.actor
    if actor.token_id is not None:
        if actor.token_id not in alive:
            return BadTokenError()
        # What a person may has perhaps changed since they began.
        actor = replace(actor, role=alive[actor.token_id].role)
    try:
        instance = await find_instance(session, actor, claim.action, claim.instance_id)
    except (NotFoundError, ForbiddenError) as error:
        return error
    if instance.state not in claim.states:
        return WrongStateError(
            f"{instance.name} is {instance.state}, which ended this.",
            hint="Go on when that is done.",
        )
    return None
