"""A card stays the same card, and what somebody holds is never made into another one."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from hutch.domain.accelerators import Accelerator, FoundAccelerator, Health, Vendor
from hutch.domain.inventory import Inventory, compare

AT = datetime(2026, 3, 1, tzinfo=UTC)


def card(address: str, uuid: str | None = None, **more: object) -> FoundAccelerator:
    return FoundAccelerator(address, Vendor.NVIDIA, "H100", 80, uuid, **more)  # type: ignore[arg-type]


def known(key: str, address: str, uuid: str | None = None) -> Accelerator:
    return Accelerator(key, "n", "node1", card(address, uuid), None, 1, AT, AT)


def ids(pairs: list[tuple[Accelerator, FoundAccelerator]]) -> dict[str, str]:
    return {each.id: seen.address for each, seen in pairs}


def test_what_is_found_for_the_first_time_is_new():
    news = compare([], [card("0:1", "a")], ())
    assert news == Inventory(new=[card("0:1", "a")])


def test_what_is_found_again_is_the_same():
    news = compare([known("x", "0:1", "a")], [card("0:1", "a")], ())
    assert ids(news.same) == {"x": "0:1"}
    assert not news.new
    assert not news.missing


def test_a_card_keeps_its_row_when_its_address_changed():
    # A card was put in before it, and the buses were counted anew.
    news = compare([known("x", "0:1", "a")], [card("0:1", "new"), card("0:2", "a")], ())
    assert ids(news.same) == {"x": "0:2"}
    assert news.new == [card("0:1", "new")]
    assert not news.replaced


def test_two_cards_that_changed_places_keep_their_rows():
    news = compare(
        [known("x", "0:1", "a"), known("y", "0:2", "b")], [card("0:1", "b"), card("0:2", "a")], ()
    )
    assert ids(news.same) == {"x": "0:2", "y": "0:1"}


def test_another_card_in_the_same_place_goes_on_under_its_id():
    news = compare([known("x", "0:1", "a")], [card("0:1", "b")], ())
    assert ids(news.replaced) == {"x": "0:1"}


def test_another_card_in_the_place_of_a_held_one_waits():
    news = compare([known("x", "0:1", "a")], [card("0:1", "b")], {"x"})
    assert [(each.id, why) for each, why in news.missing] == [
        ("x", "Another card is in its place since.")
    ]
    assert not news.replaced
    assert not news.new


def test_a_held_card_that_was_put_elsewhere_is_not_offered_there():
    news = compare([known("x", "0:1", "a")], [card("0:2", "a")], {"x"})
    assert [each.id for each, _ in news.missing] == ["x"]
    assert not news.new


def test_a_driver_that_tells_no_uuid_yet_makes_no_other_card():
    news = compare([known("x", "0:1", "a")], [card("0:1")], ())
    assert news.same[0][1].uuid == "a"


def test_a_uuid_that_is_told_at_last_is_kept():
    news = compare([known("x", "0:1")], [card("0:1", "a")], {"x"})
    assert news.same[0][1].uuid == "a"


def test_a_missing_card_whose_address_another_known_one_took_has_none():
    news = compare([known("x", "0:1", "a"), known("y", "0:2", "b")], [card("0:2", "a")], ())
    assert ids(news.same) == {"x": "0:2"}
    assert [each.id for each, _ in news.missing] == ["y"]
    assert [each.id for each in news.displaced] == ["y"]


places = st.sampled_from([f"0:{n}" for n in range(5)])
uuids = st.sampled_from(["a", "b", "c", "d", None])


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Accelerator], list[FoundAccelerator], set[str]]:
    def cards() -> list[FoundAccelerator]:
        drawn = draw(st.lists(st.tuples(places, uuids), max_size=5, unique_by=lambda c: c[0]))
        used: set[str | None] = set()
        unique: list[FoundAccelerator] = []
        for address, uuid in drawn:
            unique.append(card(address, None if uuid in used else uuid))
            used.add(uuid)
        return unique

    rows = [
        Accelerator(str(n), "n", "node1", each, None, 1, AT, AT) for n, each in enumerate(cards())
    ]
    held = {each.id for each in rows if draw(st.booleans())}
    return rows, cards(), held


@given(situations())
def test_whatever_is_found_no_address_has_two_rows_and_every_row_has_one_fate(
    situation: tuple[list[Accelerator], list[FoundAccelerator], set[str]],
):
    rows, found, held = situation
    news = compare(rows, found, held)
    after = {each.id: each.found.address for each in rows}
    for each in news.displaced:
        after[each.id] = f"gone:{each.id}"
    for each, seen in (*news.same, *news.replaced):
        after[each.id] = seen.address
    addresses = [*after.values(), *(seen.address for seen in news.new)]
    assert len(addresses) == len(set(addresses))
    fates = [
        *(each.id for each, _ in news.same),
        *(each.id for each, _ in news.replaced),
        *(each.id for each, _ in news.missing),
    ]
    assert sorted(fates) == sorted(each.id for each in rows)
    for each in rows:
        if each.id in held:
            assert after[each.id] == each.found.address
            assert each.id not in {other.id for other, _ in news.replaced}


@given(situations())
def test_what_nobody_contradicts_is_offered(
    situation: tuple[list[Accelerator], list[FoundAccelerator], set[str]],
):
    rows, found, _ = situation
    news = compare(rows, found, ())
    offered = {seen.address for _, seen in (*news.same, *news.replaced)} | {
        seen.address for seen in news.new
    }
    assert offered == {seen.address for seen in found}
    assert all(each.found.health is Health.OK for each, _ in news.missing)
