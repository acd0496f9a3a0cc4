import json
import socket
import threading

import pytest

from hutch import errors
from hutch.client import Client
from hutch.client.failures import rebuild
from hutch.errors import (
    ConfigurationError,
    HutchError,
    NotAuthenticatedError,
    NotFoundError,
    TooManyRequestsError,
    UnavailableError,
)
from tests.client.stub import Answer, Stub, as_json, refusal


def family(kind: type[HutchError]) -> list[type[HutchError]]:
    return [kind, *(one for child in kind.__subclasses__() for one in family(child))]


KINDS = [kind for kind in family(HutchError) if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_every_code_comes_back_as_the_error_that_was_raised(
    stub: Stub, client: Client, kind: type[HutchError]
) -> None:
    stub.answers = [
        refusal(kind.status, kind.code, message="What.", hint="Do.", detail={"message": 1, "a": 2})
    ]
    with pytest.raises(HutchError) as caught:
        client.me()
    error = caught.value
    assert type(error) is kind
    assert (error.code, error.message, error.hint) == (kind.code, "What.", "Do.")
    assert error.detail == {"message": 1, "a": 2, "request_id": "r1"}
    assert str(error) == "What."


def test_being_told_to_wait_says_how_long(stub: Stub, client: Client) -> None:
    stub.answers = [refusal(429, "too_many_requests", detail={"retry_after": 17})]
    with pytest.raises(TooManyRequestsError) as caught:
        client.me()
    assert caught.value.retry_after == 17


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, errors.NotAuthenticatedError),
        (403, errors.ForbiddenError),
        (422, errors.InvalidInputError),
        (503, errors.UnavailableError),
        (500, errors.InternalError),
        (418, errors.InternalError),
    ],
)
def test_a_code_of_a_newer_server_is_known_by_its_kind(
    stub: Stub, client: Client, status: int, kind: type[HutchError]
) -> None:
    stub.answers = [refusal(status, "brand_new", message="What.")]
    with pytest.raises(kind) as caught:
        client.me()
    assert caught.value.code == "brand_new"
    # The next error with the kind's own code is not mistaken for it.
    assert type(rebuild(kind.code, "", "", {})) is kind


def test_an_answer_that_is_not_hutchs_names_the_address(stub: Stub, client: Client) -> None:
    for answer in (
        Answer(404, b"<html>nothing here"),
        Answer(200, b"<html>a wiki"),
        Answer(500, b'{"error": "text"}'),
        Answer(400, b"[]"),
    ):
        stub.answers = [answer]
        with pytest.raises(UnavailableError, match="is not hutch") as caught:
            client.me()
        assert stub.url in caught.value.message
        assert "HUTCH_URL" in caught.value.hint


def test_a_proxy_without_a_server_behind_it_is_told_apart(stub: Stub, client: Client) -> None:
    stub.answers = [Answer(502, b"<html>Bad Gateway")]
    with pytest.raises(UnavailableError, match="proxy"):
        client.me()


def test_a_redirect_is_not_followed_with_the_token(stub: Stub, client: Client) -> None:
    stub.answers = [Answer(308, b"", {"Location": "https://evil.example/"})]
    with pytest.raises(UnavailableError, match=r"evil\.example"):
        client.me()
    assert len(stub.asked) == 1


def test_where_nothing_listens_the_error_says_where_and_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with (
        pytest.raises(UnavailableError) as caught,
        Client(f"http://127.0.0.1:{port}", "hutch_1") as client,
    ):
        client.me()
    assert f"http://127.0.0.1:{port}" in caught.value.message
    assert "nothing listens" in caught.value.message
    assert "hutch up" in caught.value.hint


def test_a_host_that_does_not_exist_is_named() -> None:
    with (
        pytest.raises(UnavailableError, match=r"nowhere\.invalid"),
        Client("http://nowhere.invalid", "hutch_1") as client,
    ):
        client.me()


def test_a_server_that_says_nothing_is_given_up(stub: Stub) -> None:
    go_on = threading.Event()
    stub.answers = [Answer(wait=go_on)]
    try:
        with (
            Client(stub.url, "hutch_1", timeout=0.2) as client,
            pytest.raises(UnavailableError, match="did not answer in time"),
        ):
            client.me()
    finally:
        go_on.set()


def test_waiting_for_an_operation_waits_longer_than_other_requests(stub: Stub) -> None:
    go_on = threading.Event()
    stub.answers = [Answer(wait=go_on, body=b'{"id": "1"}')]
    threading.Timer(0.5, go_on.set).start()
    with Client(stub.url, "hutch_1", timeout=0.2) as client:
        assert client.show_operation("1", wait=10)["id"] == "1"


def test_one_connection_serves_many_requests(stub: Stub, client: Client) -> None:
    for _ in range(3):
        client.me()
    assert stub.connections == 1


def test_a_connection_closed_meanwhile_is_opened_again(stub: Stub, client: Client) -> None:
    stub.answers = [as_json({}), Answer(drop=True), as_json({"name": "alice"})]
    client.me()
    assert client.me()["name"] == "alice"


def test_a_change_goes_through_after_a_pause_in_which_the_server_hung_up(
    stub: Stub, client: Client
) -> None:
    stub.answers = [Answer(hang_up=True), as_json({})]
    client.me()
    assert stub.hung_up.wait(10)
    client.start_instance("box")
    assert [asked.method for asked in stub.asked] == ["GET", "POST"]


def test_what_changes_something_is_not_sent_twice(stub: Stub, client: Client) -> None:
    stub.answers = [as_json({}), Answer(drop=True), as_json({})]
    client.me()
    with pytest.raises(UnavailableError):
        client.start_instance("box")
    assert [asked.method for asked in stub.asked] == ["GET", "POST"]


def test_the_token_goes_into_the_header_and_nowhere_else(stub: Stub, client: Client) -> None:
    client.list_instances(everyone=True)
    (asked,) = stub.asked
    assert asked.headers["Authorization"] == "Bearer hutch_token"
    assert "hutch_token" not in asked.path


def test_without_a_token_nothing_is_asked(stub: Stub) -> None:
    with Client(stub.url) as client, pytest.raises(NotAuthenticatedError, match="not signed in"):
        client.me()
    assert stub.asked == []


AWKWARD = ["a b", "a/b", "../users", "a?b=c", "a#b", "a%2Fb", "$(id)", "`id`", ";id", "ü", "a\nb"]


@pytest.mark.parametrize("name", AWKWARD)
def test_every_character_of_a_name_stays_within_its_part_of_the_path(
    stub: Stub, client: Client, name: str
) -> None:
    client.start_instance(name)
    path = stub.asked[0].path
    assert path.startswith("/api/v1/instances/")
    assert path.endswith("/start")
    assert path.count("/") == 5
    assert "?" not in path


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_that_would_be_another_place_is_not_asked_for(
    stub: Stub, client: Client, name: str
) -> None:
    with pytest.raises(NotFoundError):
        client.delete_instance(name)
    assert stub.asked == []


def test_bytes_that_are_no_text_do_not_break_a_request(stub: Stub, client: Client) -> None:
    odd = b"\xff\xfe".decode("utf-8", "surrogateescape")
    client.show_instance(odd)
    client.list_instances(owner=odd)
    client.execute("box", ["echo", odd])
    assert len(stub.asked) == 3


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hutch.example",
        "ftp://hutch.example",
        "http://",
        "http://host:notaport",
        "http://host:99999",
        "http://host/ path",
        "http://host\r\nX: y",
        "http://name:word@host",
        "http://host/?a=b",
        "javascript:alert(1)",
    ],
)
def test_what_is_not_an_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="not an address"):
        Client(url, "hutch_1")


def test_a_server_below_a_path_is_reached_there(stub: Stub) -> None:
    with Client(f"{stub.url}/hutch/", "hutch_1") as client:
        client.me()
    assert stub.asked[0].path == "/hutch/api/v1/me"


def test_bodies_leave_out_what_was_not_given(stub: Stub, client: Client) -> None:
    client.create_instance("box", memory="4GiB")
    assert json.loads(stub.asked[0].body) == {"name": "box", "memory": "4GiB"}


def test_a_token_without_end_says_so(stub: Stub, client: Client) -> None:
    client.create_token("x", scope="read", days=None)
    assert json.loads(stub.asked[0].body) == {"title": "x", "scope": "read", "days": None}
