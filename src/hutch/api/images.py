"""Images that instances are created from."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from hutch.api import PREFIX
from hutch.api.answers import reply
from hutch.api.deps import ContextDep, allowed
from hutch.api.fields import Body, Count, Name, Text
from hutch.domain.images import Image as Entity
from hutch.domain.people import Actor
from hutch.domain.permissions import Action
from hutch.services import images

router = APIRouter(prefix=f"{PREFIX}/images", tags=["image"])
Writer = Annotated[Actor, allowed(Action.IMAGE_WRITE)]


class Image(TypedDict):
    name: str
    description: str
    pool_size: Annotated[int, Field(description="Containers of it kept ready on each node.")]
    created_at: datetime


class NewImage(Body):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "base", "description": "Debian 12"}]}
    )
    name: Name = Field(description="Its alias in the nodes' engines.")
    description: Text = Field("", max_length=500)
    pool_size: Count = 0


class NewPool(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"pool_size": 2}]})
    pool_size: Count


def as_json(image: Entity) -> Image:
    return {
        "name": image.name,
        "description": image.description,
        "pool_size": image.pool_size,
        "created_at": image.created_at,
    }


@router.get("", response_model=list[Image], summary="List images")
async def list_all(
    context: ContextDep, actor: Annotated[Actor, allowed(Action.IMAGE_READ)]
) -> Response:
    return reply([as_json(image) for image in await images.list_all(context, actor)])


@router.post("", response_model=Image, status_code=201, summary="Offer an image")
async def create(context: ContextDep, actor: Writer, body: NewImage) -> Response:
    image = await images.add(context, actor, body.name, body.description, body.pool_size)
    return reply(as_json(image), 201)


@router.patch("/{image}", response_model=Image, summary="Set how many are kept ready")
async def configure(context: ContextDep, actor: Writer, image: str, body: NewPool) -> Response:
    return reply(as_json(await images.set_pool(context, actor, image, body.pool_size)))
