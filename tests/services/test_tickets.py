"""Tickets: nobody else can make, change or keep one."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from hutch.services.tickets import Tickets
from hutch.services.vault import Vault

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
KEY = Fernet.generate_key()
tickets = Tickets(Vault(KEY), "test")


@given(st.text(st.characters(codec="utf-8"), max_size=200))
def test_a_ticket_says_what_it_was_given_for(content: str):
    ticket = tickets.give(content, LATER)
    if len(ticket) <= 1024:
        assert tickets.read(ticket, NOW) == content


def test_its_time_ends():
    ticket = tickets.give("token host", LATER)
    assert tickets.read(ticket, LATER - timedelta(seconds=1)) == "token host"
    assert tickets.read(ticket, LATER) is None


def test_one_for_another_purpose_or_of_another_lab_is_worth_nothing():
    ticket = tickets.give("token host", LATER)
    assert Tickets(Vault(KEY), "another").read(ticket, NOW) is None
    assert Tickets(Vault(Fernet.generate_key()), "test").read(ticket, NOW) is None


@given(st.data())
def test_no_character_of_it_can_be_changed(data: st.DataObject):
    ticket = tickets.give("token host", LATER)
    at = data.draw(st.integers(0, len(ticket) - 1))
    other = data.draw(st.characters())
    changed = ticket[:at] + other + ticket[at + 1 :]
    if changed != ticket:
        assert tickets.read(changed, NOW) is None


@pytest.mark.parametrize("text", ["", ".", "a", "a.b", "é.é", "a" * 2000, ".".join("abc")])
def test_what_is_none_is_none(text: str):
    assert tickets.read(text, NOW) is None
