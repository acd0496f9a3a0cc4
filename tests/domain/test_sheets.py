"""What is opened in a spreadsheet program is data there, whatever somebody called themself."""

import csv
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hutch.domain.sheets import as_csv

texts = st.text().filter(str.isprintable)


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", '=HYPERLINK("http://x")', "\t=1", "\r=1", "\n=1"]
)
def test_a_text_that_would_be_a_formula_is_none(text: str) -> None:
    ((cell,),) = list(csv.reader(StringIO(as_csv(["name"], [[text]]), newline="")))[1:]
    assert cell[0] in {"'", "\N{REPLACEMENT CHARACTER}"}


def test_a_text_stays_in_its_row() -> None:
    assert as_csv(["a"], [["x\r\ny\0"]]).count("\n") == 2


def test_numbers_stay_numbers_and_nothing_is_an_empty_cell() -> None:
    assert as_csv(["a", "b", "c"], [[-1.5, None, "x,y"]]) == 'a,b,c\n-1.5,,"x,y"\n'


@given(st.lists(st.lists(texts, min_size=2, max_size=2), max_size=5))
def test_every_other_text_comes_back_as_it_was(rows: list[list[str]]) -> None:
    read = list(csv.reader(StringIO(as_csv(["a", "b"], rows), newline="")))[1:]
    assert [[cell.removeprefix("'") for cell in row] for row in read] == [
        [cell.removeprefix("'") for cell in row] for row in rows
    ]
