"""A hutch server in a thread: the API and the operations, over the simulated engine.

Without reconcilers: what they find is written by the tests that want to see it shown.
"""

import asyncio
import io
import json
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import structlog
import uvicorn

from hutch.api.app import create_app
from hutch.cli.app import run
from hutch.domain.accelerators import FoundAccelerator
from hutch.domain.ids import new_id
from hutch.domain.people import Actor, Role, Scope, User
from hutch.engine.simulated import SimulatedEngine
from hutch.operations.runner import Runner
from hutch.services import tokens
from hutch.services.context import Context, utc_now
from hutch.services.vault import new_password
from hutch.store import users
from tests import lab as labs
from tests.agents_fake import FakeAgent

T = TypeVar("T")
PLAIN = {"PATH": os.environ["PATH"], "TERM": "xterm"} | {
    name: value for name, value in os.environ.items() if name == "PYTHONPATH"
}
"""The environment of a process that runs the sources under test, and nothing of whoever runs it."""
PROGRAM = [sys.executable, "-c", "from hutch.cli import main; main()"]
"""`hutch` as a process of its own."""


@dataclass
class Ran:
    """How a command line ended, and what it printed."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def out(self) -> str:
        return self.stdout.decode()

    @property
    def err(self) -> str:
        return self.stderr.decode()


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    # Who has no home has that of whoever runs the tests, with their keys and settings.
    kept = {"PATH": os.environ["PATH"], "TERM": "xterm", "HOME": "/nonexistent", **variables}
    with mock.patch.dict(os.environ, kept, clear=True):
        yield


def run_hutch(*words: str, stdin: bytes = b"", **variables: str) -> Ran:
    """Run `hutch` in this process; nothing of it is a terminal."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    given = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
    with (
        environment(variables),
        mock.patch.object(sys, "stdin", given),
        mock.patch.object(sys, "stdout", out),
        mock.patch.object(sys, "stderr", err),
    ):
        try:
            code = run(words)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        out.flush()
        err.flush()
        return Ran(code, out.buffer.getvalue(), err.buffer.getvalue())  # type: ignore[attr-defined]


@dataclass
class Person:
    """Someone with an account, and a home of their own."""

    name: str
    password: str
    token: str
    url: str
    home: Path
    variables: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def signed_in(self) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "HUTCH_URL": self.url,
            "HUTCH_TOKEN": self.token,
            **self.variables,
        }

    def hutch(self, *words: str, stdin: bytes = b"") -> Ran:
        return run_hutch(*words, stdin=stdin, **self.signed_in)

    def json(self, *words: str) -> Any:
        """What a command that must go well prints with --json."""
        ran = self.hutch(*words, "--json")
        assert (ran.code, ran.err) == (0, ""), ran
        return json.loads(ran.out)

    def process(self, *words: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        """Run `hutch` as a process of its own."""
        variables = PLAIN | self.signed_in
        return subprocess.run(
            [*PROGRAM, *words], env=variables, capture_output=True, timeout=60, **options
        )


class Server:
    """Started by `start`, ended by `stop`. What it holds lives in its own event loop."""

    def __init__(self, database: str, data: Path, homes: Path, **settings: Any) -> None:
        self._database = database
        self._settings = settings
        self._data = data
        self._homes = homes
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._ready: Future[None] = Future()
        self._loop: asyncio.AbstractEventLoop
        self._hashed: str
        self.context: Context
        self.lab: labs.Lab
        self.url = ""

    def start(self) -> None:
        # Its log would otherwise be written to what a test reads as the command's output.
        self._log = (self._data / "server.log").open("w")
        self._configured = structlog.get_config()
        structlog.configure(logger_factory=structlog.WriteLoggerFactory(file=self._log))
        self._thread.start()
        self._ready.result(30)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        structlog.configure(**self._configured)
        self._log.close()

    @property
    def engine(self) -> SimulatedEngine:
        engine = self.context.engines.of(self.lab.node)
        assert isinstance(engine, SimulatedEngine)
        return engine

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work` done inside the server."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def join(self, *cards: FoundAccelerator) -> FakeAgent:
        """An agent of the node, which has these accelerators and answers for ever."""

        async def begin() -> FakeAgent:
            agent = FakeAgent(self.context, self.lab.node)
            await agent.sign_in(*cards)
            self._agent = asyncio.create_task(agent.serve())
            return agent

        return self.do(begin())

    def person(self, role: Role = Role.MEMBER, scope: Scope = Scope.FULL) -> Person:
        """Someone new, signed in."""
        name = f"p{secrets.token_hex(4)}"
        home = self._homes / name
        home.mkdir()
        return self.do(self._add(name, role, scope, home))

    async def _add(self, name: str, role: Role, scope: Scope, home: Path) -> Person:
        quota = self.context.settings.default_quota
        user = User(new_id(), name, role, None, utc_now(), 0, quota)
        async with self.context.db.write() as session:
            await users.add_user(session, user, self._hashed)
        actor = Actor(user.id, name, role)
        token, _ = await tokens.create(self.context, actor, "test", scope, 1)
        return Person(name, self._password, token, self.url, home)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            self.context = labs.open_context(self._database, self._data, **self._settings)
            quota = self.context.settings.default_quota
            self.lab = await labs.fill(self.context.db, self._data / "engine.db", quota)
            # Hashing is slow by design: everyone has the same password, made anew in each run.
            self._password = new_password()
            self._hashed = await tokens.hash_password(self._password)
            app = create_app(self.context, [Runner(self.context)])
            config = uvicorn.Config(app, port=0, log_config=None, access_log=False)
            self._server = _Announcing(config, self)
            await self._server.serve()
        except BaseException as error:
            if not self._ready.done():
                self._ready.set_exception(error)
            raise

    def announce(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._ready.set_result(None)


class _Announcing(uvicorn.Server):
    """Tells the port that it was given, once it answers."""

    def __init__(self, config: uvicorn.Config, owner: Server) -> None:
        super().__init__(config)
        self._owner = owner

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self._owner.announce(self.servers[0].sockets[0].getsockname()[1])
