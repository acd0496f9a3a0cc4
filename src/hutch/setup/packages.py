"""Installs what the tests need of the operating system: `python -m hutch.setup.packages EXTRA…`.

The same packages as a real setup, so that both work with the same Incus, and those named.
"""

from __future__ import annotations

import sys

from hutch.setup.machine import packages
from hutch.setup.steps import Reporter, StepFailedError, run_step


def main() -> int:
    reporter = Reporter()
    try:
        run_step(packages(with_incus=True, extra=sys.argv[1:]), reporter)
    except StepFailedError as error:
        reporter.line(f"{error}\n{error.advice}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
