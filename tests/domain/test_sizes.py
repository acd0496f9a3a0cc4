import pytest
from hypothesis import given
from hypothesis import strategies as st

from hutch.domain.sizes import LARGEST, GiB, KiB, MiB, TiB, format_size, parse_size
from hutch.errors import InvalidSizeError

sizes = st.integers(1, LARGEST)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("1000000", 1_000_000),
        ("512B", 512),
        ("4K", 4 * KiB),
        ("512MiB", 512 * MiB),
        ("4GiB", 4 * GiB),
        ("4gib", 4 * GiB),
        ("4 GiB", 4 * GiB),
        ("  4GiB\n", 4 * GiB),
        ("4G", 4 * GiB),
        ("4GB", 4 * 1000**3),
        ("1.5T", TiB + TiB // 2),
        ("0.5KiB", 512),
        ("1.001K", 1025),
        ("1024TiB", LARGEST),
        ("1125899906842624", LARGEST),
    ],
)
def test_what_people_write_is_understood(text: str, size: int):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "0",
        "0GiB",
        "0.0001K",
        "-1",
        "-4GiB",
        "+4GiB",
        "9e99",
        "1e3",
        "inf",
        "nan",
        "4GiBs",
        "4XiB",
        "4 G iB",
        "GiB",
        ".5G",
        "4.G",
        "1,5G",
        "0x10",
        "1_000",
        "٤GiB",
        "4ＧiB",
        "1025TiB",
        "9" * 16 + "T",
        "9" * 10_000,
        "4GiB; rm",
        "4\0",
        "1.2345G",
    ],
    ids=lambda text: ascii(text[:12]),
)
def test_what_makes_no_sense_is_refused(text: str):
    with pytest.raises(InvalidSizeError) as caught:
        parse_size(text)
    assert caught.value.hint
    assert len(caught.value.message) < 100


@given(st.text())
def test_any_text_is_a_size_or_refused(text: str):
    try:
        size = parse_size(text)
    except InvalidSizeError:
        return
    assert 0 < size <= LARGEST


@given(sizes)
def test_plain_bytes_come_back_exactly(size: int):
    assert parse_size(str(size)) == size


@given(st.integers(1, 1023), st.sampled_from(["KiB", "MiB", "GiB", "TiB"]))
def test_whole_units_come_back_exactly(number: int, unit: str):
    assert format_size(parse_size(f"{number}{unit}")) == f"{number}{unit}"


@given(st.integers(1, LARGEST - TiB // 10))
def test_what_is_printed_is_within_rounding_of_what_is_meant(size: int):
    # One decimal: off by at most half a tenth of the unit printed, which is at most the size.
    assert abs(parse_size(format_size(size)) - size) <= size * 0.05 + 1


@given(sizes, sizes)
def test_printing_keeps_the_order(one: int, two: int):
    small, large = sorted((one, two))
    if large < LARGEST - TiB // 10:
        assert parse_size(format_size(small)) <= parse_size(format_size(large))


def test_nothing_is_printed_in_bytes():
    assert format_size(0) == "0B"
    assert format_size(1023) == "1023B"
    assert format_size(1536) == "1.5KiB"
