"""Apps that one may open in a browser."""

from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from hutch.api import PREFIX
from hutch.api.answers import reply
from hutch.api.deps import ContextDep, allowed
from hutch.domain.people import Actor
from hutch.domain.permissions import Action
from hutch.services import apps

router = APIRouter(prefix=f"{PREFIX}/apps", tags=["app"])


class App(TypedDict):
    """What listens at a port of an instance, to be opened in a browser."""

    __pydantic_config__ = ConfigDict(  # pyright: ignore[reportGeneralTypeIssues]
        json_schema_extra={
            "example": {
                "instance": "box",
                "owner": "alice",
                "name": "jupyter",
                "port": 8888,
                "url": "/apps/box/8888/",
            }
        }
    )
    instance: str
    owner: str
    name: str
    port: int
    url: Annotated[str, Field(description="An address, or a path at hutch's own.")]


@router.get("", response_model=list[App], summary="List the apps that you may open")
async def list_all(
    context: ContextDep, actor: Annotated[Actor, allowed(Action.APP_READ)]
) -> Response:
    """Your own, those of instances that you may log in to, and those that are open to you."""
    found: list[App] = [
        {
            "instance": instance.name,
            "owner": instance.owner_name,
            "name": port.name,
            "port": port.target_port,
            "url": apps.url_of(context.settings, actor, instance, port),
        }
        for instance, port in await apps.list_all(context, actor)
    ]
    return reply(found)
