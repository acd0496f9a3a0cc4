"""The command line: `python -m bench WHAT [--rounds N] [--json FILE]`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import cast

import bench
from bench import machine
from bench.figures import Report
from hutch.domain.sizes import parse_size
from hutch.errors import InvalidSizeError
from hutch.logs import configure_logs


@dataclass(frozen=True, slots=True)
class Subject:
    module: str
    rounds: int
    """As many as the published numbers are made of."""
    help: str


SUBJECTS = {
    "lifecycle": Subject("bench.lifecycle", 10, "one instance's life against the incus command"),
    "parallel": Subject("bench.parallel", 3, "20 creations at once against as many chains"),
    "api": Subject("bench.api", 3, "the server with 2,000 simulated instances and 500 people"),
    "forwards": Subject("bench.forwards", 10, "three ways to lead a host port to a container"),
    "gateway": Subject("bench.gateway", 20, "the SSH gateway beside OpenSSH as the jump host"),
    "operations": Subject("bench.operations", 3, "operations per second on an instant engine"),
    "apps": Subject("bench.apps", 5, "web applications through hutch, nginx, and directly"),
    "files": Subject("bench.files", 3, "files there and back against scp"),
    "terminal": Subject("bench.terminal", 2, "what a web terminal carries, and others' echo"),
    "gpu": Subject("bench.gpu", 20, "take and release against `incus config device`"),
    "leases": Subject("bench.leases", 3, "grants per second through the database"),
    "scheduler": Subject("bench.scheduler", 15, "a pass over 1,000 nodes, and over ten times that"),
}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=bench.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=list(SUBJECTS))
    parser.add_argument("--rounds", type=int, metavar="N", help="how often; the default is enough")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every sample, for a program")
    parser.add_argument(
        "--quiet-for", type=float, default=0, metavar="SECONDS",
        help="wait so long, at most, until the load is below 0.5",
    )  # fmt: skip
    parser.add_argument(
        "--whole", type=_size, metavar="SIZE",
        help="files: one file of that size there and back instead, interrupted once; such as 5GiB",
    )  # fmt: skip
    parsed = parser.parse_args(arguments)
    if parsed.whole is not None and parsed.what != "files":
        parser.error("--whole is for files")
    if parsed.rounds is not None and not 1 <= parsed.rounds <= 1000:
        parser.error("--rounds: give 1 to 1000")
    return parsed


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except InvalidSizeError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def main() -> int:
    parsed = parse(sys.argv[1:])
    configure_logs("warning", "console")
    subject = SUBJECTS[parsed.what]
    module = subject.module if parsed.whole is None else "bench.whole"
    measure = cast("Callable[[int], Report]", import_module(module).measure)
    machine.wait_until_quiet(0.5, parsed.quiet_for)
    report = measure(parsed.whole or parsed.rounds or subject.rounds)
    print(report.as_text())
    if parsed.json is not None:
        parsed.json.write_text(json.dumps(report.as_json(), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
