"""A stub of a server and a client that talks to it."""

from collections.abc import Iterator

import pytest

from hutch.client import Client
from tests.client.stub import Stub


@pytest.fixture
def stub() -> Iterator[Stub]:
    started = Stub()
    yield started
    started.stop()


@pytest.fixture
def client(stub: Stub) -> Iterator[Client]:
    with Client(stub.url, "hutch_token", timeout=5) as opened:
        yield opened
