"""`hutch report`: GPU-hours, held and truly computing."""

from enum import StrEnum
from typing import Annotated

import typer

from hutch.cli import exits, messages
from hutch.cli.connection import connect
from hutch.cli.options import Json
from hutch.cli.terminal import Cell, Styled, Terminal
from hutch.cli.words import gpus as words
from hutch.client.answers import GpuReport, GpuUsage
from hutch.domain.sheets import as_csv


class ByName(StrEnum):
    PERSON = "person"
    GROUP = "group"
    ACCELERATOR = "accelerator"
    MONTH = "month"


def add_to(app: typer.Typer) -> None:
    group = typer.Typer()
    group.command("gpu", help=words.HELP["report gpu"])(gpu)
    # One command of its own would otherwise be the group itself.
    group.callback()(_no_options)
    app.add_typer(
        group, name="report", help=words.HELP["report"], rich_help_panel=messages.PANEL_LAB
    )


def _no_options() -> None:
    """Nothing."""


def gpu(
    month: Annotated[
        str | None,
        typer.Option("--month", metavar="MONTH", help=words.MONTH, show_default=False),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="MONTH", help=words.SINCE, show_default=False),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="MONTH", help=words.UNTIL, show_default=False),
    ] = None,
    by: Annotated[
        ByName,
        typer.Option("--by", metavar="person|group|accelerator|month", help=words.BY),
    ] = ByName.PERSON,
    mine: Annotated[bool, typer.Option("--mine", help=words.MINE)] = False,
    csv: Annotated[bool, typer.Option("--csv", help=words.CSV)] = False,
    as_json: Json = False,
) -> None:
    terminal = Terminal(as_json=as_json)
    if month is not None and (since is not None or until is not None):
        raise exits.UsageError(words.NOT_TWO_MONTHS)
    if csv and as_json:
        raise exits.UsageError(words.CSV_OR_JSON)
    with connect() as client:
        report = client.report_gpu(
            by=by.value, first=month or since, last=month or until, mine=mine
        )
    if as_json:
        terminal.answer(report)
    elif csv:
        terminal.say(_as_csv(report).rstrip("\n"))
    elif not report["rows"]:
        terminal.note(words.NO_HOURS.format(**report))
    else:
        _tell(terminal, report)


def _as_csv(report: GpuReport) -> str:
    """The same as the API's objects, one line each, with the span in each line."""
    head = ["first", "last", report["by"], "model", "leases", "held_hours", "busy_hours"]
    return as_csv(
        head,
        [
            [report["first"], report["last"], row["name"], row["model"], row["leases"],
             row["held_hours"], row["busy_hours"]]
            for row in report["rows"]
        ],
    )  # fmt: skip


def _tell(terminal: Terminal, report: GpuReport) -> None:
    with_model = report["by"] == "accelerator"
    head = [words.REPORTED[report["by"]], *([words.MODEL] if with_model else [])]
    rows: list[list[Cell]] = [_row(row, with_model) for row in report["rows"]]
    if len(rows) > 1:
        rows.append(_total(report["rows"], with_model))
    terminal.table([*head, *words.OF_REPORT], rows)


def _row(row: GpuUsage, with_model: bool) -> list[Cell]:
    named: list[Cell] = [row["name"] or words.NO_GROUP]
    if with_model:
        named.append(row["model"] or "")
    return [*named, str(row["leases"]), *_hours(row["held_hours"], row["busy_hours"])]


def _total(rows: list[GpuUsage], with_model: bool) -> list[Cell]:
    """Hours add up; leases do not, for one may stand in several rows."""
    held, busy = (sum(row[key] for row in rows) for key in ("held_hours", "busy_hours"))
    blank: list[Cell] = [""] * (2 if with_model else 1)
    return [Styled(words.TOTAL, "bold"), *blank, *_hours(held, busy)]


def _hours(held: float, busy: float) -> list[Cell]:
    return [f"{held:.1f}", f"{busy:.1f}", f"{100 * busy / held:.0f}" if held else words.NOT_TOLD]
