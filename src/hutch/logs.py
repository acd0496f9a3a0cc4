"""Logging: one JSON object per line on standard error, or text for a terminal.

What is bound to structlog's context (the request id) is in every line that is written meanwhile.
No line holds a token, a password, or a query string; tracebacks are printed without local values.
"""

import logging
import sys
from collections.abc import Sequence
from typing import Literal, TextIO

import structlog
from structlog.typing import Processor

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_NOISY = (
    "uvicorn.access", "uvicorn.error", "alembic", "httpx", "httpcore", "asyncio", "sqlalchemy",
    "websockets", "asyncssh",
)  # fmt: skip
"""Libraries of which only warnings are wanted. uvicorn tells of every WebSocket, with its query."""


def configure_logs(
    level: Literal["debug", "info", "warning", "error"],
    form: Literal["json", "console"],
    to: TextIO | None = None,
) -> None:
    """Write hutch's own lines, and those of the libraries, in one form; to standard error."""
    stream = to or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
    ]
    renderer = _renderer(form, stream)
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=_LEVELS[level], force=True)
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(_LEVELS[level], logging.WARNING))


def _renderer(form: Literal["json", "console"], stream: TextIO) -> Sequence[Processor]:
    if form == "console":
        return (structlog.dev.ConsoleRenderer(colors=stream.isatty()),)
    return (structlog.processors.EventRenamer("message"), structlog.processors.JSONRenderer())
