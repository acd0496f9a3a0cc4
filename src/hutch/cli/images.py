"""`hutch image`: what instances are created from."""

from typing import Annotated

import typer

from hutch.cli import messages
from hutch.cli.connection import connect
from hutch.cli.options import Json
from hutch.cli.terminal import Terminal

ImageName = Annotated[
    str, typer.Argument(metavar="IMAGE", help=messages.IMAGE_NAME, show_default=False)
]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer()
    for name, command in (("list", list_all), ("add", add), ("pool", pool)):
        group.command(name, help=messages.HELP[f"image {name}"])(command)
    app.add_typer(
        group, name="image", help=messages.HELP["image"], rich_help_panel=messages.PANEL_LAB
    )


def list_all(as_json: Json = False) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        found = client.list_images()
    if as_json:
        terminal.answer(found)
    elif not found:
        terminal.note(messages.NO_IMAGE)
    else:
        terminal.table(
            messages.OF_IMAGES,
            [[image["name"], str(image["pool_size"]), image["description"]] for image in found],
        )


def add(
    name: ImageName,
    description: Annotated[
        str | None, typer.Option("--description", metavar="TEXT", help=messages.DESCRIPTION)
    ] = None,
    pool_size: Annotated[
        int | None, typer.Option("--pool", metavar="N", help=messages.KEPT_READY)
    ] = None,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        image = client.add_image(name, description=description, pool_size=pool_size)
    if as_json:
        terminal.answer(image)
    else:
        terminal.say(messages.IMAGE_ADDED.format(name=image["name"]))


def pool(
    name: ImageName,
    size: Annotated[int, typer.Argument(metavar="N", help=messages.KEPT_READY, show_default=False)],
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    with connect() as client:
        image = client.set_pool(name, size)
    if as_json:
        terminal.answer(image)
    else:
        terminal.say(messages.POOL_SET.format(count=image["pool_size"], name=image["name"]))
