"""The configuration with which `ssh NAME` leads to one's instances."""

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from typing_extensions import TypedDict

from hutch.api import PREFIX
from hutch.api.answers import reply
from hutch.api.deps import ContextDep, allowed
from hutch.domain.people import Actor
from hutch.domain.permissions import Action
from hutch.services import ssh_config

router = APIRouter(prefix=f"{PREFIX}/ssh-config", tags=["ssh_config"])
_ALIAS = r"^[a-z][a-z0-9-]{0,62}$"


class Part(StrEnum):
    CONFIG = "config"
    KNOWN_HOSTS = "known_hosts"


class SshConfig(TypedDict):
    """What a person's ssh has to know."""

    alias: Annotated[str, "What the gateway is called in it."]
    host: str
    port: int
    config: Annotated[str, "For a file in ~/.ssh/config.d."]
    known_hosts: Annotated[str, "For ~/.ssh/hutch/known_hosts."]


@router.get(
    "",
    response_model=SshConfig,
    summary="What your ssh has to know",
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def show(
    request: Request,
    context: ContextDep,
    actor: Annotated[Actor, allowed(Action.INSTANCE_READ)],
    alias: Annotated[
        str | None, Query(pattern=_ALIAS, description="What to call the gateway.")
    ] = None,
    part: Annotated[Part, Query(description="Which of the two texts.")] = Part.CONFIG,
) -> Response:
    """One of the two as a text, or both as JSON for who asks with `Accept: application/json`."""
    lab, config, known_hosts = await ssh_config.show(context, actor, alias)
    if "application/json" not in request.headers.get("accept", ""):
        text = config if part is Part.CONFIG else known_hosts
        return Response(text, media_type="text/plain")
    answer: SshConfig = {
        "alias": lab.alias,
        "host": lab.host,
        "port": lab.port,
        "config": config,
        "known_hosts": known_hosts,
    }
    return reply(answer)
