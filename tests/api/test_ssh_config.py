"""The configuration for ssh, over HTTP."""

from typing import Any

from cryptography.fernet import Fernet

from hutch.services.context import Context
from hutch.services.hostkeys import gateway_host_key
from hutch.services.vault import Vault
from tests.api.conftest import Running, Send, told


async def test_it_is_a_text_for_curl_and_json_for_programs(
    send: Send, running: Running, context: Context
) -> None:
    box = await running("alice", "box")
    answer = await send("GET", "/ssh-config", as_="alice", headers={"accept": "*/*"})
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert "Host box box.lab\n" in answer.text
    keys = await send("GET", "/ssh-config?part=known_hosts", as_="alice", headers={"accept": "*/*"})
    public, _ = gateway_host_key(context.vault)
    assert keys.text.splitlines() == [
        f"hutch-gateway-{context.vault.lab} {public}",
        f"hutch-{box.id} {box.ssh_host_key}",
    ]
    both = await send("GET", "/ssh-config", as_="alice", headers={"accept": "application/json"})
    made: dict[str, Any] = both.json()
    assert (made["config"], made["known_hosts"]) == (answer.text, keys.text)
    assert (made["alias"], made["host"], made["port"]) == ("lab", "192.0.2.1", 2222)


async def test_a_name_that_would_be_something_else_in_the_file_is_refused(send: Send) -> None:
    for alias in ("a b", "x\n    ProxyCommand id", "*", "-o", ""):
        answer = await send("GET", "/ssh-config", as_="alice", params={"alias": alias})
        told(answer, 422, "invalid_input")


def test_the_gateways_key_follows_from_the_secret_key_alone() -> None:
    key = Fernet.generate_key()
    public, _ = gateway_host_key(Vault(key))
    assert gateway_host_key(Vault(key))[0] == public
    assert gateway_host_key(Vault(Fernet.generate_key()))[0] != public
