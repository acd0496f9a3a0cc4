"""Images."""

from typing import Any

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from hutch.domain.images import Image
from hutch.errors import NameTakenError
from hutch.store.db import Session, columns
from hutch.store.tables import images


async def add_image(session: Session, image: Image) -> None:
    """Insert an image. Raises NameTakenError."""
    try:
        await session.execute(
            images.insert().values(
                id=image.id,
                name=image.name,
                description=image.description,
                pool_size=image.pool_size,
                created_at=image.created_at,
            )
        )
    except IntegrityError as error:
        raise NameTakenError("an image called", image.name) from error


async def update_image(session: Session, image_id: str, **values: Any) -> None:
    await session.execute(update(images).where(images.c.id == image_id).values(**values))


async def list_images(session: Session) -> list[Image]:
    rows = await session.execute(select(images).order_by(images.c.name))
    return [Image(**columns(row)) for row in rows]


async def find_image(session: Session, name: str) -> Image | None:
    row = (await session.execute(select(images).where(images.c.name == name))).one_or_none()
    return None if row is None else Image(**columns(row))


async def get_image(session: Session, image_id: str) -> Image | None:
    row = (await session.execute(select(images).where(images.c.id == image_id))).one_or_none()
    return None if row is None else Image(**columns(row))
