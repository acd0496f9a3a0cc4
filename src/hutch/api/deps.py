"""What handlers ask for: the context, and an actor who may do what the route is for."""

from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.routing import APIRoute

from hutch.api.call import SCOPE_KEY, Call
from hutch.domain.people import Actor
from hutch.domain.permissions import Action
from hutch.errors import InvalidInputError, NotAuthenticatedError
from hutch.services import tokens
from hutch.services.access import require
from hutch.services.context import Context


async def _context(request: Request) -> Context:
    return request.app.state.context


async def _call(request: Request) -> Call:
    return request.scope[SCOPE_KEY]


ContextDep = Annotated[Context, Depends(_context)]
CallDep = Annotated[Call, Depends(_call)]


class Allowed:
    """Lets a request pass whose token may be used for `action`, and tells whose it is.

    Whether the action is allowed on a particular thing is the service's to say, which knows whose
    it is. Raises NotAuthenticatedError, BadTokenError and ForbiddenError.
    """

    def __init__(self, action: Action) -> None:
        self.action = action

    async def __call__(self, request: Request) -> Actor:
        call: Call = request.scope[SCOPE_KEY]
        actor = await tokens.authenticate(
            request.app.state.context,
            bearer(request.headers.get("authorization")),
            address=call.address,
            request_id=call.request_id,
        )
        call.actor = actor.name
        require(actor, self.action)
        if request.scope["query_string"]:
            _check_parameters(request)
        return actor


def allowed(action: Action) -> Any:
    """The dependency by which a route declares the one action that it is for."""
    return Depends(Allowed(action))


def _check_parameters(request: Request) -> None:
    """Refuse what is not asked for here: a misspelt filter would otherwise answer with too much."""
    route: APIRoute = request.scope["route"]
    known = {parameter.alias for parameter in route.dependant.query_params}
    for name in request.query_params:
        if name not in known:
            raise InvalidInputError(
                f"There is no parameter {name[:40]!r} here.",
                hint=f"There are {', '.join(sorted(known))}." if known else "There are none.",
                field=name[:40],
            )


def bearer(header: str | None) -> str:
    """The token of an Authorization header. Raises NotAuthenticatedError when there is none."""
    kind, _, token = (header or "").partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise NotAuthenticatedError(
            "This needs a token.", hint="Sign in with `hutch login`, or send Authorization: Bearer."
        )
    return token.strip()
