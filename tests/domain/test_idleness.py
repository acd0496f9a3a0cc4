"""The verdict of idleness: minutes before now unless said otherwise, samples of a minute each."""

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hutch.domain.groups import IdlePolicy
from hutch.domain.idleness import HELD_MEMORY, Kind, judge

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
POLICY = IdlePolicy(window=30 * MINUTE, threshold=0.05, warning=15 * MINUTE)


@dataclass(frozen=True)
class Seen:
    at: datetime
    seconds: float = 60.0
    utilisation: float | None = 0.0
    peak: float | None = 0.0
    memory_used: int | None = 0


def quiet(minutes: int = 60, **more: object) -> list[Seen]:
    """As many samples up to now, in which nothing was computed."""
    return [replace(Seen(NOW - n * MINUTE), **more) for n in reversed(range(minutes))]


def kind(samples: list[Seen], *, policy: IdlePolicy = POLICY, now: datetime = NOW) -> Kind:
    return judge({"gpu": samples}, policy, now).kind


def test_nobody_computed_and_nothing_is_held():
    verdict = judge({"gpu": quiet()}, POLICY, NOW)
    assert verdict.kind is Kind.IDLE
    assert verdict.since == NOW - 60 * MINUTE


def test_memory_that_is_held_without_computing_is_told_apart():
    assert kind(quiet(memory_used=HELD_MEMORY + 1)) is Kind.HOLDING
    assert kind(quiet(memory_used=HELD_MEMORY)) is Kind.IDLE
    assert kind(quiet(memory_used=None)) is Kind.IDLE


def test_computing_a_little_within_the_window_is_busy():
    samples = quiet()
    samples[-25] = replace(samples[-25], utilisation=0.06, peak=0.5)
    verdict = judge({"gpu": samples}, POLICY, NOW)
    assert (verdict.kind, verdict.since) == (Kind.BUSY, samples[-25].at)


def test_a_burst_counts_though_the_mean_of_its_minute_is_low():
    samples = quiet()
    samples[-3] = replace(samples[-3], utilisation=0.01, peak=0.9)
    assert kind(samples) is Kind.BUSY


def test_the_window_slides():
    samples = quiet()
    samples[-31] = replace(samples[-31], utilisation=1.0)
    assert kind(samples) is Kind.IDLE
    samples[-30] = replace(samples[-30], utilisation=1.0)
    assert kind(samples) is Kind.BUSY


def test_below_the_threshold_is_idle_and_at_it_is_busy():
    assert kind(quiet(utilisation=0.049, peak=0.049)) is Kind.IDLE
    assert kind(quiet(utilisation=0.05)) is Kind.BUSY
    assert kind(quiet(), policy=replace(POLICY, threshold=0.0)) is Kind.BUSY


def test_without_samples_there_is_no_verdict():
    assert judge({}, POLICY, NOW).kind is Kind.UNKNOWN
    verdict = judge({"gpu": []}, POLICY, NOW)
    assert (verdict.kind, verdict.since) == (Kind.UNKNOWN, None)


@pytest.mark.parametrize(
    "samples",
    [
        quiet(20),
        quiet()[:-4],
        [*quiet()[:-12], *quiet()[-10:]],
        quiet(utilisation=None),
        [*quiet()[:-5], replace(quiet()[-5], utilisation=None), *quiet()[-4:]],
        [*quiet(), Seen(NOW + 10 * MINUTE)],
    ],
    ids=["too few", "silent since", "a gap", "does not tell", "once untold", "clock set back"],
)
def test_what_was_not_seen_without_a_gap_is_not_judged(samples: list[Seen]):
    assert kind(samples) is Kind.UNKNOWN


def test_a_sample_that_comes_a_little_late_is_no_gap():
    samples = quiet()
    samples[-5] = replace(samples[-5], seconds=55.0)
    assert kind(samples, now=NOW + timedelta(seconds=80)) is Kind.IDLE


def test_a_window_without_a_sample_of_its_own_is_not_judged():
    policy = replace(POLICY, window=MINUTE)
    assert kind([Seen(NOW - MINUTE, seconds=120.0)], policy=policy) is Kind.UNKNOWN


def test_a_window_of_zero_never_takes_anything_back():
    assert kind(quiet(), policy=replace(POLICY, window=timedelta())) is Kind.UNKNOWN


def test_what_others_left_idle_before_is_nobodys_fault():
    samples = {"gpu": quiet()}
    assert judge(samples, POLICY, NOW, held_since=NOW - 29 * MINUTE).kind is Kind.UNKNOWN
    assert judge(samples, POLICY, NOW, held_since=NOW - 30 * MINUTE).kind is Kind.IDLE


def test_a_lease_of_several_is_busy_if_any_of_them_is():
    busy = quiet(utilisation=0.8)
    assert judge({"one": quiet(), "two": busy}, POLICY, NOW).kind is Kind.BUSY
    assert judge({"one": [], "two": busy}, POLICY, NOW).kind is Kind.BUSY
    assert judge({"one": [], "two": quiet()}, POLICY, NOW).kind is Kind.UNKNOWN
    held = quiet(memory_used=10 * HELD_MEMORY)
    assert judge({"one": held, "two": quiet()}, POLICY, NOW).kind is Kind.HOLDING


def test_several_are_idle_since_the_last_of_them_is():
    one, two = quiet(), quiet()
    one[-50] = replace(one[-50], utilisation=1.0)
    two[-40] = replace(two[-40], utilisation=1.0)
    verdict = judge({"one": one, "two": two}, POLICY, NOW)
    assert (verdict.kind, verdict.since) == (Kind.IDLE, two[-40].at)


def test_the_evidence_says_what_was_seen_of_each_and_is_plain():
    samples = quiet(utilisation=0.01, peak=0.02, memory_used=7)
    evidence = judge({"gpu": samples}, POLICY, NOW).evidence
    assert json.loads(json.dumps(evidence)) == {
        "at": NOW.isoformat(),
        "window_seconds": 1800.0,
        "threshold": 0.05,
        "accelerators": {
            "gpu": {
                "verdict": "idle",
                "since": (NOW - 60 * MINUTE).isoformat(),
                "samples": 30,
                "mean": pytest.approx(0.01),
                "peak": 0.02,
                "memory_used": 7,
                "last_sample": NOW.isoformat(),
            }
        },
    }


shares = st.one_of(st.none(), st.floats(0, 1))
histories = st.lists(
    st.builds(
        Seen,
        at=st.integers(-20, 3700).map(lambda ago: NOW - timedelta(seconds=ago)),
        seconds=st.floats(0.5, 120),
        utilisation=shares,
        peak=shares,
        memory_used=st.one_of(st.none(), st.integers(0, 2 * HELD_MEMORY)),
    ),
    max_size=40,
    unique_by=lambda each: each.at,
)


@given(histories, st.floats(0, 1), st.integers(0, 40))
def test_nobody_is_called_idle_who_computed_or_was_not_seen(
    samples: list[Seen], threshold: float, minutes: int
):
    policy = IdlePolicy(minutes * MINUTE, threshold, MINUTE)
    verdict = judge({"gpu": samples}, policy, NOW)
    assert verdict == judge({"gpu": sorted(samples, key=lambda each: each.at)}, policy, NOW)
    window = [each for each in samples if each.at > NOW - policy.window]
    if verdict.kind in (Kind.IDLE, Kind.HOLDING):
        assert all(
            each.utilisation is not None and max(each.utilisation, each.peak or 0) < threshold
            for each in window
        )
        # Each sample accounts for its own length, half of that again where one came late, and
        # the newest for another span, which is still going on.
        seen = sum(each.seconds * 1.5 + 5 for each in window)
        newest = max(window, key=lambda each: each.at).seconds
        assert seen + newest + 10 >= policy.window.total_seconds()
    if verdict.kind is Kind.BUSY:
        assert any(max(each.utilisation or 0, each.peak or 0) >= threshold for each in window)
