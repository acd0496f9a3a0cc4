"""Images that instances are created from."""

from hutch.domain import names
from hutch.domain.ids import new_id
from hutch.domain.images import Image
from hutch.domain.people import Actor
from hutch.domain.permissions import Action
from hutch.errors import InvalidLimitError, NotFoundError
from hutch.services.access import require
from hutch.services.context import Context
from hutch.store import events, images

LARGEST_POOL = 100


async def add(
    context: Context, actor: Actor, name: str, description: str = "", pool_size: int = 0
) -> Image:
    """Offer an image, which the nodes' engines have under this alias, to everyone."""
    require(actor, Action.IMAGE_WRITE)
    names.instance_name(name)
    _check_pool(pool_size)
    image = Image(new_id(), name, description[:500], pool_size, context.now())
    async with context.db.write() as session:
        await images.add_image(session, image)
        await events.record(session, actor, context.now(), "image.add", ("image", image.id, name))
    context.hints.reconcile.set()
    return image


async def list_all(context: Context, actor: Actor) -> list[Image]:
    require(actor, Action.IMAGE_READ)
    async with context.db.read() as session:
        return await images.list_images(session)


async def set_pool(context: Context, actor: Actor, name: str, pool_size: int) -> Image:
    """How many containers of an image each node keeps ready to be given away; 0 keeps none."""
    require(actor, Action.IMAGE_WRITE)
    _check_pool(pool_size)
    async with context.db.write() as session:
        image = await images.find_image(session, name)
        if image is None:
            raise NotFoundError("image", name)
        await images.update_image(session, image.id, pool_size=pool_size)
        await events.record(
            session, actor, context.now(), "image.set_pool", ("image", image.id, name),
            pool_size=pool_size,
        )  # fmt: skip
        changed = await images.get_image(session, image.id)
    context.hints.reconcile.set()
    return changed or image


def _check_pool(pool_size: int) -> None:
    if not 0 <= pool_size <= LARGEST_POOL:
        raise InvalidLimitError("pool_size", str(pool_size), f"0 to {LARGEST_POOL}")
