"""Whatever the description of the API allows, and what it forbids, is asked of a real server.

No answer is a mistake of ours, and every one is what the description says.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from hutch.api import PREFIX
from hutch.api.app import describe_api
from hutch.store import migrate
from tests.api.live import serving

EXAMPLES = int(os.environ.get("HUTCH_TEST_EXAMPLES", "5"))
"""Random requests per operation and database; the constructed ones come on top."""

_KNOWN = {
    "instance": "web",
    "user": "alice",
    "node": "node1",
    "image": "base",
    "group": "vision",
    "name": "first",
}
"""What there is, so that not every question ends with "not found"."""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    folder: Path = tmp_path_factory.mktemp("server")
    if request.param == "sqlite":
        url = f"sqlite:///{folder / 'hutch.db'}"
    else:
        postgresql = request.getfixturevalue("postgresql_server")
        url = postgresql.url(postgresql.create())
    migrate.upgrade(url)
    with serving(url, folder, quota_instances=10_000, login_failures=10_000) as (address, token):
        client = httpx.Client(
            base_url=address + PREFIX, headers={"Authorization": f"Bearer {token}"}
        )
        with client:
            created = client.post("/instances", json={"name": "web"}).json()["operation"]["id"]
            assert client.get(f"/operations/{created}?wait=30").json()["state"] == "done"
            client.post("/groups", json={"name": "vision"}).raise_for_status()
        yield address, token


CONFIG = schemathesis.Config.from_dict(
    {
        "checks": {
            # The domain refuses more than a schema can say, with better reasons.
            "positive_data_acceptance": {
                "expected-statuses": ["2xx", 401, 403, 404, 409, 422, 429, 503]
            },
            # What is too large is not looked at.
            "negative_data_rejection": {
                "expected-statuses": [400, 401, 403, 404, 405, 409, 413, 422, 429]
            },
        }
    }
)
schema: Any = schemathesis.openapi.from_dict(describe_api(), config=CONFIG).exclude(
    # It ends the token that everything else is asked with.
    operation_id="login_delete"
)


@schema.hook
def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any]:
    """Every other time, name something that is there."""
    return {
        name: _KNOWN[name] if name in _KNOWN and len(str(value)) % 2 else value
        for name, value in (path_parameters or {}).items()
    }


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_as_described(case: Any, server: tuple[str, str]):
    address, token = server
    case.call_and_validate(base_url=address, headers={"Authorization": f"Bearer {token}"})
