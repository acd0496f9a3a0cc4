"""The states are stored and shown: every one is accounted for, and their words do not change."""

from hutch.domain.instances import InstanceState
from hutch.domain.operations import ENDED, LIVE, Kind, OperationState


def test_an_operation_is_either_live_or_ended():
    assert set(OperationState) == LIVE | ENDED
    assert not LIVE & ENDED


def test_words_are_lower_case_and_the_same_as_their_names():
    for each in [*OperationState, *InstanceState, *Kind]:
        assert each.value == each.name.lower()
