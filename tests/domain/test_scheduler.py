"""Who gets what, one rule at a time. Numbers are hours from now unless they say otherwise."""

from dataclasses import replace
from datetime import timedelta

import pytest

from hutch.domain.leases import LeaseState
from hutch.domain.scheduler import Waiting, decide
from tests.domain.situations import HOUR, MINUTE, NOW, Lab, applied, granted

# -- free accelerators -----------------------------------------------------------------------------


def test_free_accelerators_are_granted_at_once() -> None:
    lab = Lab(4)
    lab.wants("ada", 2)
    plan = lab.plan()
    assert granted(plan) == {"ada": ("alpha-0", "alpha-1")}
    assert plan.explanations == {}
    assert plan.next_at == NOW + 4 * HOUR


def test_nothing_is_known_and_nothing_is_done() -> None:
    plan = Lab(0).plan()
    assert (plan.grants, plan.expired, plan.reclaim, plan.pardon) == ((), (), (), ())
    assert not plan.warn
    assert plan.next_at is None


def test_a_lease_gets_all_that_it_asks_for_or_nothing() -> None:
    lab = Lab(4)
    lab.holds("bob", "alpha-0", until=3)
    lab.wants("ada", 4)
    assert lab.granted() == {}
    why = lab.why("ada")
    assert (why.waiting, why.free, why.held_by) == (Waiting.DEVICES, 3, ("bob",))
    assert why.projected_start == NOW + 3 * HOUR


def test_accelerators_of_another_node_are_no_use() -> None:
    lab = Lab(1)
    lab.add_devices(8, node="beta")
    lab.holds("bob", "alpha-0")
    lab.wants("ada", 1)
    assert lab.granted() == {}
    lab.wants("cleo", 8, node_id="beta")
    assert len(lab.granted()["cleo"]) == 8


def test_a_model_is_found_by_a_part_of_its_name_in_whatever_case() -> None:
    lab = Lab(0)
    lab.add_devices(1, model="Tesla V100")
    lab.add_devices(1, model="NVIDIA A100")
    lab.wants("ada", model="a100")
    assert lab.granted() == {"ada": ("alpha-1",)}
    lab.wants("bob", model="h100")
    assert lab.why("bob").waiting is Waiting.NO_SUCH_DEVICE


# -- the order of the line -------------------------------------------------------------------------


def test_who_comes_first_is_served_first() -> None:
    lab = Lab(1)
    for name in ("ada", "bob", "cleo"):
        lab.wants(name)
    plan = lab.plan()
    assert granted(plan) == {"ada": ("alpha-0",)}
    assert [plan.explanations[each].position for each in ("bob", "cleo")] == [1, 2]
    assert plan.explanations["cleo"].ahead == ("bob",)


def test_who_has_used_less_comes_before_who_came_first() -> None:
    lab = Lab(1)
    lab.wants("ada")
    lab.wants("bob")
    lab.usage = {"user:ada": 7200.0, "user:bob": 3600.0}
    assert lab.granted() == {"bob": ("alpha-0",)}


def test_a_groups_usage_counts_over_its_weight() -> None:
    lab = Lab(1)
    lab.group("physics", weight=3.0)
    lab.group("biology", weight=1.0)
    lab.wants("ada", group_id="biology")
    lab.wants("bob", group_id="physics")
    lab.usage = {"group:physics": 6000.0, "group:biology": 3000.0}
    assert lab.granted() == {"bob": ("alpha-0",)}


def test_inside_a_group_the_persons_own_usage_counts() -> None:
    lab = Lab(1)
    lab.group("physics")
    lab.wants("ada", group_id="physics")
    lab.wants("bob", group_id="physics")
    lab.usage = {"group:physics": 10.0, "user:ada": 9.0, "user:bob": 1.0}
    assert lab.granted() == {"bob": ("alpha-0",)}


def test_somebody_without_a_group_is_measured_by_their_own_usage() -> None:
    lab = Lab(1)
    lab.group("physics")
    lab.wants("ada", group_id="physics")
    lab.wants("bob")
    lab.usage = {"group:physics": 10.0, "user:ada": 0.0, "user:bob": 9.0}
    assert lab.granted() == {"bob": ("alpha-0",)}


def test_who_is_within_the_groups_guarantee_comes_before_all_others() -> None:
    lab = Lab(1)
    lab.group("physics", guarantee=1)
    lab.wants("ada")
    lab.wants("bob", group_id="physics")
    lab.usage = {"group:physics": 1e9, "user:bob": 1e9}
    plan = lab.plan()
    assert granted(plan) == {"bob": ("alpha-0",)}
    assert not plan.explanations["ada"].is_guaranteed


def test_a_guarantee_is_used_up_by_what_the_group_holds_on_any_node() -> None:
    lab = Lab(1)
    lab.add_devices(2, node="beta")
    lab.group("physics", guarantee=2)
    lab.holds("cleo", "beta-0", "beta-1", group_id="physics")
    lab.wants("ada")
    lab.wants("bob", group_id="physics")
    assert lab.granted() == {"ada": ("alpha-0",)}
    assert not lab.why("bob").is_guaranteed


# -- a later one may go first, if that puts nobody off ---------------------------------------------


def test_a_short_lease_goes_first_if_it_is_gone_before_the_head_can_start() -> None:
    lab = Lab(2)
    lab.holds("zoe", "alpha-0", until=5)
    lab.wants("ada", 2)
    lab.wants("bob", 1, hours=5)
    plan = lab.plan()
    assert granted(plan) == {"bob": ("alpha-1",)}
    assert plan.explanations["ada"].projected_start == NOW + 5 * HOUR


def test_a_long_lease_waits_though_enough_is_free() -> None:
    lab = Lab(2)
    lab.holds("zoe", "alpha-0", until=5)
    lab.wants("ada", 2)
    lab.wants("bob", 1, hours=5.01)
    plan = lab.plan()
    assert granted(plan) == {}
    why = plan.explanations["bob"]
    assert (why.waiting, why.free, why.ahead) == (Waiting.TURN, 1, ("ada",))
    assert why.held_by == ()


def test_a_long_lease_goes_first_on_what_the_head_does_not_need() -> None:
    lab = Lab(4)
    lab.holds("zoe", "alpha-0", "alpha-1", until=5)
    lab.wants("ada", 3)
    lab.wants("bob", 1, hours=100)
    plan = lab.plan()
    assert len(granted(plan)["bob"]) == 1
    assert plan.explanations["ada"].projected_start == NOW + 5 * HOUR


def test_what_is_kept_for_the_head_is_what_comes_free_last() -> None:
    lab = Lab(4)
    lab.holds("yan", "alpha-0", until=1)
    lab.holds("zoe", "alpha-1", "alpha-2", until=5)
    lab.wants("ada", 3)
    lab.wants("bob", 1, hours=100)
    # The free one: the head starts on the other three.
    assert lab.granted() == {"bob": ("alpha-3",)}


def test_a_head_that_wants_one_model_keeps_no_other() -> None:
    lab = Lab(0)
    lab.add_devices(1, model="A100")
    lab.add_devices(1, model="V100")
    lab.holds("zoe", "alpha-0", until=5)
    lab.wants("ada", model="A100")
    lab.wants("bob", model="V100", hours=100)
    assert lab.granted() == {"bob": ("alpha-1",)}


def test_who_waits_first_for_another_model_is_kept_that() -> None:
    lab = Lab(0)
    lab.add_devices(1, model="A100")
    lab.add_devices(2, model="V100")
    lab.holds("zoe", "alpha-0", until=5)
    lab.holds("yan", "alpha-1", until=3)
    lab.wants("ada", model="A100")
    lab.wants("bob", 2, model="V100")
    lab.wants("cleo", 1, model="V100", hours=4)
    assert lab.granted() == {}
    assert lab.why("cleo").waiting is Waiting.TURN


def test_behind_the_head_the_start_is_told_as_if_all_went_in_line() -> None:
    lab = Lab(1)
    lab.holds("zoe", "alpha-0", until=2)
    lab.wants("ada", hours=3)
    lab.wants("bob", hours=1)
    lab.wants("cleo", hours=1)
    plan = lab.plan()
    starts = [plan.explanations[each].projected_start for each in ("ada", "bob", "cleo")]
    assert starts == [NOW + 2 * HOUR, NOW + 5 * HOUR, NOW + 6 * HOUR]


def test_an_explanation_names_ten_at_most() -> None:
    lab = Lab(12)
    for number in range(12):
        lab.holds(f"zoe-{number:02}", f"alpha-{number}", until=20 - number)
    for number in range(13):
        lab.wants(f"ada-{number:02}")
    why = lab.why("ada-12")
    assert why.position == 13
    assert why.ahead == tuple(f"ada-{number:02}" for number in range(10))
    assert why.held_by == tuple(f"zoe-{number:02}" for number in range(11, 1, -1))


# -- limits of one's own ---------------------------------------------------------------------------


def test_nobody_gets_more_than_their_maximum_over_all_nodes() -> None:
    lab = Lab(4)
    lab.add_devices(4, node="beta")
    lab.holds("ada-1", "beta-0", "beta-1", until=3)
    lab.wants("ada-2", 1)
    lab.wants("ada-3", 1, node_id="beta")
    lab.maximum["ada"] = 3
    assert set(lab.granted()) == {"ada-2"}
    why = lab.why("ada-3")
    assert (why.waiting, why.held_by) == (Waiting.PERSON, ("ada-1", "ada-2"))
    assert why.projected_start is None


def test_a_maximum_lowered_below_what_is_held_takes_nothing_and_gives_nothing() -> None:
    lab = Lab(4)
    lab.holds("ada-1", "alpha-0", "alpha-1")
    lab.wants("ada-2")
    lab.maximum["ada"] = 1
    plan = lab.plan()
    assert (plan.grants, plan.expired, plan.reclaim) == ((), (), ())
    assert plan.explanations["ada-2"].waiting is Waiting.PERSON


def test_what_is_on_its_way_out_still_counts() -> None:
    lab = Lab(4)
    lab.holds("ada-1", "alpha-0", state=LeaseState.DETACHING)
    lab.wants("ada-2")
    lab.maximum["ada"] = 1
    assert lab.why("ada-2").waiting is Waiting.PERSON


def test_a_group_gets_no_more_than_its_limit() -> None:
    lab = Lab(4)
    lab.group("physics", limit=3)
    lab.holds("ada", "alpha-0", group_id="physics")
    lab.wants("bob", 2, group_id="physics")
    lab.wants("cleo", 1, group_id="physics")
    plan = lab.plan()
    assert set(granted(plan)) == {"bob"}
    why = plan.explanations["cleo"]
    assert (why.waiting, why.held_by, why.free) == (Waiting.GROUP, ("ada", "bob"), 1)


def test_who_is_held_up_by_limits_of_their_own_holds_up_nobody() -> None:
    lab = Lab(2)
    lab.holds("zoe", "alpha-0", until=5)
    lab.wants("ada", 2)
    lab.wants("bob", 1, hours=100)
    lab.maximum["ada"] = 1
    plan = lab.plan()
    assert set(granted(plan)) == {"bob"}
    assert plan.explanations["ada"].position == 1


def test_a_lease_of_an_instance_that_does_not_run_holds_up_nobody() -> None:
    lab = Lab(1)
    lab.wants("ada", can_start=False)
    lab.wants("bob")
    plan = lab.plan()
    assert set(granted(plan)) == {"bob"}
    assert plan.explanations["ada"].waiting is Waiting.INSTANCE


def test_of_somebody_about_whom_nothing_is_known_nothing_is_granted() -> None:
    lab = Lab(1)
    lab.wants("ada")
    lab.maximum.clear()
    assert lab.why("ada").waiting is Waiting.PERSON


def test_a_later_lease_of_the_same_group_does_not_use_up_what_the_head_needs() -> None:
    lab = Lab(4)
    lab.group("physics", limit=4)
    lab.holds("zoe", "alpha-0", until=5)
    lab.wants("ada", 4, group_id="physics")
    lab.wants("bob", 1, hours=1, group_id="physics")
    plan = lab.plan()
    assert granted(plan) == {}
    assert plan.explanations["bob"].waiting is Waiting.TURN


# -- accelerators that fail, go and come back ------------------------------------------------------


def test_what_is_not_well_is_not_granted_and_who_holds_it_keeps_it() -> None:
    lab = Lab(2)
    lab.holds("zoe", "alpha-0")
    lab.spoil("alpha-0", "alpha-1")
    lab.wants("ada")
    plan = lab.plan()
    assert (plan.grants, plan.expired, plan.reclaim) == ((), (), ())
    assert plan.explanations["ada"].waiting is Waiting.NO_SUCH_DEVICE
    assert plan.explanations["ada"].projected_start is None


def test_a_lease_that_nothing_on_the_node_can_serve_holds_up_nobody() -> None:
    lab = Lab(3)
    lab.spoil("alpha-0")
    lab.wants("ada", 3)
    lab.wants("bob", 1, hours=1000)
    plan = lab.plan()
    assert set(granted(plan)) == {"bob"}
    why = plan.explanations["ada"]
    assert (why.waiting, why.free) == (Waiting.NO_SUCH_DEVICE, 1)


def test_a_device_that_is_gone_altogether_does_no_harm() -> None:
    lab = Lab(2)
    lab.holds("zoe", "alpha-0", "alpha-9")
    lab.wants("ada")
    assert lab.granted() == {"ada": ("alpha-1",)}


# -- the end of a lease ----------------------------------------------------------------------------


def test_a_lease_ends_when_its_time_is_up_and_its_accelerators_are_held_until_they_left() -> None:
    lab = Lab(1)
    lab.holds("zoe", "alpha-0", until=0)
    lab.wants("ada")
    plan = lab.plan()
    assert plan.expired == ("zoe",)
    assert plan.grants == ()
    why = plan.explanations["ada"]
    assert (why.waiting, why.held_by, why.projected_start) == (Waiting.DEVICES, ("zoe",), NOW)
    lab.change("zoe", state=LeaseState.DETACHING)
    assert lab.plan().expired == ()
    del lab.requests["zoe"]
    assert set(lab.granted()) == {"ada"}


def test_a_lease_on_its_way_in_ends_once_it_has_arrived() -> None:
    lab = Lab(1)
    lab.holds("zoe", "alpha-0", until=-1, state=LeaseState.ATTACHING)
    assert lab.plan().expired == ()
    lab.change("zoe", state=LeaseState.ACTIVE)
    assert lab.plan().expired == ("zoe",)


def test_a_clock_that_was_set_back_ends_and_gives_nothing() -> None:
    lab = Lab(1)
    lab.group("physics", guarantee=1)
    lab.holds("zoe", "alpha-0", until=1, reclaim_due=NOW + 1 * MINUTE, reclaim_delivered=True)
    lab.wants("ada", group_id="physics")
    lab.now = NOW - 30 * HOUR
    plan = lab.plan()
    assert (plan.grants, plan.expired, plan.reclaim) == ((), (), ())
    assert plan.next_at == NOW + 1 * MINUTE


def test_the_next_moment_of_interest_is_the_next_end() -> None:
    lab = Lab(2)
    lab.holds("yan", "alpha-0", until=7)
    lab.holds("zoe", "alpha-1", until=3)
    assert lab.plan().next_at == NOW + 3 * HOUR


# -- borrowing, and giving back --------------------------------------------------------------------


def borrowing() -> Lab:
    """Physics is guaranteed two accelerators of four. Zoe, of no group, has borrowed all four in
    three leases; Ada of physics wants one."""
    lab = Lab(4)
    lab.group("physics", guarantee=2)
    lab.holds("zoe-1", "alpha-0", "alpha-1", since=-5, until=20)
    lab.holds("zoe-2", "alpha-2", since=-4, until=20)
    lab.holds("zoe-3", "alpha-3", since=-3, until=20)
    lab.wants("ada", 1, group_id="physics")
    return lab


def test_idle_accelerators_are_lent_beyond_a_guarantee() -> None:
    lab = Lab(4)
    lab.group("physics", guarantee=4)
    lab.wants("bob", 4)
    assert len(lab.granted()["bob"]) == 4


def test_who_borrowed_last_is_told_to_make_room_for_the_entitled() -> None:
    plan = borrowing().plan()
    assert plan.warn == {"zoe-3": NOW + 10 * MINUTE}
    assert plan.reclaim == ()
    why = plan.explanations["ada"]
    assert why.waiting is Waiting.RECLAIM
    assert why.is_guaranteed
    assert why.projected_start == NOW + 10 * MINUTE
    assert why.held_by[0] == "zoe-3"
    assert plan.next_at == NOW + 10 * MINUTE


def test_as_few_leases_as_possible_make_room() -> None:
    lab = borrowing()
    lab.change("ada", count=2)
    assert set(lab.plan().warn) == {"zoe-1"}


def test_nobody_makes_room_for_who_is_beyond_the_guarantee() -> None:
    lab = borrowing()
    lab.change("ada", count=3)
    plan = lab.plan()
    assert not plan.warn
    assert plan.explanations["ada"].waiting is Waiting.DEVICES
    assert plan.explanations["ada"].projected_start == NOW + 20 * HOUR


def test_a_borrowed_lease_is_reclaimed_once_it_was_told_and_the_time_has_come() -> None:
    lab = borrowing()
    for due, delivered, reclaimed in (
        (1 * MINUTE, True, False),
        (0 * MINUTE, False, False),
        (0 * MINUTE, True, True),
        (-1 * HOUR, True, True),
    ):
        lab.change("zoe-3", reclaim_due=NOW + due, reclaim_delivered=delivered)
        assert lab.plan().reclaim == (("zoe-3",) if reclaimed else ())


def test_what_was_told_stays_told_and_nobody_else_is() -> None:
    lab = borrowing()
    lab.change("zoe-2", reclaim_due=NOW + 5 * MINUTE, reclaim_delivered=True)
    plan = lab.plan()
    assert (plan.warn, plan.pardon) == ({}, ())
    assert plan.explanations["ada"].projected_start == NOW + 5 * MINUTE


def test_who_is_no_longer_needed_is_pardoned() -> None:
    lab = borrowing()
    lab.change("zoe-3", reclaim_due=NOW + 5 * MINUTE, reclaim_delivered=True)
    del lab.requests["ada"]
    assert lab.plan().pardon == ("zoe-3",)


def test_who_is_told_twice_over_is_pardoned_for_the_surplus() -> None:
    lab = borrowing()
    for each in ("zoe-2", "zoe-3"):
        lab.change(each, reclaim_due=NOW + 5 * MINUTE, reclaim_delivered=True)
    assert lab.plan().pardon == ("zoe-2",)


def test_a_borrowed_lease_is_safe_for_a_while() -> None:
    lab = Lab(1)
    lab.group("physics", guarantee=1)
    lab.holds("zoe", "alpha-0", since=-0.25, until=20)
    lab.wants("ada", group_id="physics")
    plan = lab.plan()
    assert not plan.warn
    assert plan.explanations["ada"].waiting is Waiting.DEVICES
    assert plan.explanations["ada"].projected_start == NOW + 55 * MINUTE
    assert plan.next_at == NOW + 45 * MINUTE
    lab.now = NOW + 45 * MINUTE
    assert lab.plan().warn == {"zoe": NOW + 55 * MINUTE}


def test_nobody_is_told_before_that_would_be_of_use() -> None:
    # One of the two is guaranteed to somebody else for another hour.
    lab = Lab(2)
    lab.group("physics", guarantee=2)
    lab.group("biology", guarantee=1)
    lab.holds("bob", "alpha-0", until=1, group_id="biology")
    lab.holds("zoe", "alpha-1", until=20)
    lab.wants("ada", 2, group_id="physics")
    plan = lab.plan()
    assert not plan.warn
    assert plan.next_at == NOW + 50 * MINUTE
    lab.now = NOW + 50 * MINUTE
    assert lab.plan().warn == {"zoe": NOW + 1 * HOUR}


def test_nobody_is_reclaimed_from_while_another_is_still_missing() -> None:
    lab = Lab(2)
    lab.group("physics", guarantee=2)
    lab.holds("yan", "alpha-0", until=20, reclaim_due=NOW, reclaim_delivered=True)
    lab.holds("zoe", "alpha-1", until=20, reclaim_due=NOW + 5 * MINUTE, reclaim_delivered=True)
    lab.wants("ada", 2, group_id="physics")
    assert lab.plan().reclaim == ()
    lab.now = NOW + 5 * MINUTE
    assert lab.plan().reclaim == ("yan", "zoe")


def test_a_guaranteed_lease_is_never_reclaimed() -> None:
    lab = Lab(1)
    lab.group("physics", guarantee=1)
    lab.group("biology", guarantee=1)
    lab.holds("bob", "alpha-0", until=20, group_id="biology")
    lab.wants("ada", group_id="physics")
    plan = lab.plan()
    assert not plan.warn
    assert plan.explanations["ada"].waiting is Waiting.DEVICES


def test_what_a_group_was_granted_beyond_its_guarantee_is_borrowed() -> None:
    lab = Lab(3)
    lab.group("physics", guarantee=1)
    lab.group("biology", guarantee=2)
    lab.holds("bob-1", "alpha-0", since=-5, until=20, group_id="biology")
    lab.holds("bob-2", "alpha-1", since=-6, until=20, group_id="biology")
    lab.holds("bob-3", "alpha-2", since=-4, until=20, group_id="biology")
    lab.wants("ada", group_id="physics")
    assert set(lab.plan().warn) == {"bob-3"}


def test_nobody_is_told_to_make_room_for_a_lease_of_their_own() -> None:
    lab = Lab(1)
    lab.group("physics", guarantee=1)
    lab.holds("ada-1", "alpha-0", until=20)
    lab.wants("ada-2", group_id="physics")
    assert not lab.plan().warn


def test_who_was_not_reached_in_time_is_left_and_somebody_else_is_told() -> None:
    lab = borrowing()
    lab.change("zoe-3", reclaim_due=NOW - 1 * MINUTE, reclaim_delivered=False)
    plan = lab.plan()
    assert plan.pardon == ("zoe-3",)
    assert plan.warn == {"zoe-2": NOW + 10 * MINUTE}


def test_nobody_who_was_told_is_let_off_for_one_who_cannot_be_told_yet() -> None:
    lab = Lab(2)
    lab.policy = replace(lab.policy, protection=0 * MINUTE)
    lab.group("physics", guarantee=1)
    lab.holds("yan", "alpha-0", until=20, reclaim_due=NOW - 5 * MINUTE)
    lab.holds("zoe", "alpha-1", since=-0.1, until=20, state=LeaseState.ATTACHING)
    lab.wants("ada", group_id="physics")
    plan = lab.plan()
    assert (plan.warn, plan.pardon) == ({}, ())
    lab.change("zoe", state=LeaseState.ACTIVE)
    plan = lab.plan()
    assert (set(plan.warn), plan.pardon) == ({"zoe"}, ("yan",))


def test_an_entitled_lease_that_waits_is_kept_what_comes_free_for_it() -> None:
    lab = borrowing()
    lab.group("physics", guarantee=2)
    lab.change("ada", count=2)
    lab.change("zoe-1", state=LeaseState.DETACHING)
    lab.wants("bob", hours=1)
    plan = lab.plan()
    assert granted(plan) == {}
    assert not plan.warn
    assert plan.explanations["ada"].projected_start == NOW


def test_several_entitled_leases_each_have_room_made_for_them() -> None:
    lab = borrowing()
    lab.wants("bob", 1, group_id="physics")
    assert lab.plan().warn == {"zoe-2": NOW + 10 * MINUTE, "zoe-3": NOW + 10 * MINUTE}


def test_behind_the_head_as_well_the_entitled_are_kept_what_is_free() -> None:
    lab = Lab(4)
    lab.group("physics", guarantee=4)
    lab.group("biology", guarantee=3)
    lab.holds("yan", "alpha-1", "alpha-2", since=-3, until=2, group_id="biology")
    lab.holds("zoe", "alpha-3", until=4, group_id="biology")
    lab.wants("ada", 2, group_id="physics", hours=9)
    lab.wants("bob", 2, group_id="physics", hours=9)
    lab.wants("cleo", 1, hours=9)
    plan = lab.plan()
    assert granted(plan) == {}
    assert plan.explanations["ada"].projected_start == NOW + 2 * HOUR
    assert plan.explanations["bob"].projected_start == NOW + 4 * HOUR
    assert plan.explanations["cleo"].waiting is Waiting.TURN


def test_what_one_leaves_beyond_the_need_serves_the_next_entitled() -> None:
    lab = Lab(4)
    lab.group("physics", guarantee=4)
    lab.holds("zoe", *lab.devices, until=20)
    lab.wants("ada", 1, group_id="physics")
    lab.wants("bob", 3, group_id="physics")
    plan = lab.plan()
    assert set(plan.warn) == {"zoe"}
    assert plan.explanations["bob"].projected_start == NOW + 10 * MINUTE


def test_while_room_is_made_for_one_of_a_group_the_others_do_not_use_up_its_guarantee() -> None:
    lab = borrowing()
    lab.add_devices(4, node="beta")
    lab.change("ada", count=2)
    lab.wants("bob", 1, node_id="beta", group_id="physics")
    plan = lab.plan()
    assert granted(plan) == {}
    assert plan.explanations["bob"].waiting is Waiting.GUARANTEE
    lab.wants("cleo", 1, node_id="beta")
    assert set(lab.granted()) == {"cleo"}


def test_while_nobody_can_make_room_the_others_of_the_group_do_not_wait() -> None:
    lab = Lab(2)
    lab.add_devices(1, node="beta")
    lab.group("physics", guarantee=2)
    lab.group("biology", guarantee=2)
    lab.holds("dan", "alpha-0", "alpha-1", until=20, group_id="biology")
    lab.wants("ada", 2, group_id="physics")
    lab.wants("bob", 1, node_id="beta", group_id="physics")
    plan = lab.plan()
    assert set(granted(plan)) == {"bob"}
    # With Bob's, Ada's would be beyond the guarantee.
    assert not plan.explanations["ada"].is_guaranteed


# -- shared accelerators ---------------------------------------------------------------------------


def test_a_shared_accelerator_has_as_many_holders_as_may_share_it() -> None:
    lab = Lab(1, sharers=3)
    for name in ("ada", "bob", "cleo", "dan"):
        lab.wants(name)
    plan = lab.plan()
    assert set(granted(plan)) == {"ada", "bob", "cleo"}
    assert plan.explanations["dan"].waiting is Waiting.DEVICES


def test_holders_spread_over_shared_accelerators() -> None:
    lab = Lab(2, sharers=2)
    lab.holds("zoe", "alpha-0")
    lab.wants("ada")
    assert lab.granted() == {"ada": ("alpha-1",)}


def test_an_instance_never_gets_the_same_accelerator_twice() -> None:
    lab = Lab(1, sharers=2)
    lab.holds("ada-1", "alpha-0", until=3, instance_id="box")
    lab.wants("ada-2", instance_id="box")
    plan = lab.plan()
    assert plan.grants == ()
    why = plan.explanations["ada-2"]
    assert (why.free, why.held_by, why.projected_start) == (0, ("ada-1",), NOW + 3 * HOUR)
    lab.wants("bob")
    assert set(lab.granted()) == {"bob"}


def test_a_lease_does_not_keep_its_own_instance_from_what_an_earlier_one_of_it_waits_for() -> None:
    lab = Lab(1, sharers=2)
    lab.add_devices(1)
    lab.holds("zoe", "alpha-1", until=3)
    lab.wants("ada-1", 2, instance_id="box")
    lab.wants("ada-2", 1, hours=4, instance_id="box")
    plan = lab.plan()
    assert granted(plan) == {}
    assert plan.explanations["ada-2"].waiting is Waiting.TURN
    lab.wants("bob", hours=4)
    assert set(lab.granted()) == {"bob"}


def test_several_at_once_are_several_devices_and_not_shares_of_one() -> None:
    lab = Lab(2, sharers=4)
    lab.wants("ada", 2)
    lab.wants("bob", 3)
    plan = lab.plan()
    assert granted(plan)["ada"] == ("alpha-0", "alpha-1")
    assert plan.explanations["bob"].waiting is Waiting.NO_SUCH_DEVICE


def test_of_a_shared_accelerator_the_entitled_gets_one_share() -> None:
    lab = Lab(1, sharers=2)
    lab.group("physics", guarantee=1)
    lab.holds("yan", "alpha-0", since=-3, until=20)
    lab.holds("zoe", "alpha-0", since=-2, until=20)
    lab.wants("ada", group_id="physics")
    assert set(lab.plan().warn) == {"zoe"}


# -- extension -------------------------------------------------------------------------------------


def test_a_lease_may_be_extended_while_nobody_waits() -> None:
    lab = Lab(1)
    lab.holds("zoe", "alpha-0")
    assert lab.keeps_from_extending("zoe") is None


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({}, True),
        ({"model": "a100"}, True),
        ({"model": "v100"}, False),
        ({"node_id": "beta"}, False),
        ({"can_start": False}, False),
        ({"count": 2}, False),
        ({"owner_id": "zoe"}, False),
    ],
)
def test_a_lease_is_not_extended_while_somebody_waits_who_could_use_it(
    change: dict[str, object], refused: bool
) -> None:
    lab = Lab(1)
    lab.add_devices(1, node="beta")
    lab.holds("yan", "beta-0")
    lab.holds("zoe", "alpha-0")
    lab.wants("ada")
    lab.change("ada", **change)
    assert lab.keeps_from_extending("zoe") == ("ada" if refused else None)


def test_a_guaranteed_lease_yields_to_the_entitled_alone() -> None:
    lab = Lab(1)
    lab.group("physics", guarantee=1)
    lab.group("biology", guarantee=1)
    lab.holds("zoe", "alpha-0", group_id="physics")
    lab.wants("ada")
    assert lab.keeps_from_extending("zoe") is None
    lab.wants("bob", group_id="biology")
    assert lab.keeps_from_extending("zoe") == "bob"


def test_what_nobody_could_be_given_may_be_kept() -> None:
    lab = Lab(2)
    lab.holds("yan", "alpha-1")
    lab.holds("zoe", "alpha-0")
    lab.spoil("alpha-0")
    lab.wants("ada")
    assert lab.keeps_from_extending("zoe") is None
    assert lab.keeps_from_extending("yan") == "ada"


# -- the plan as a whole ---------------------------------------------------------------------------


def test_a_plan_carried_out_leaves_nothing_more_to_grant_and_the_same_explanations() -> None:
    lab = borrowing()
    lab.add_devices(3)
    lab.wants("bob", 2, hours=1)
    lab.wants("cleo", 4, hours=9)
    plan = lab.plan()
    assert plan.grants
    again = decide(applied(lab.situation, plan))
    assert again.grants == ()
    assert again.explanations == plan.explanations


def test_a_lease_that_ended_is_nothing_to_anyone() -> None:
    lab = Lab(1)
    lab.holds("zoe", "alpha-0", state=LeaseState.ENDED)
    lab.wants("ada")
    plan = lab.plan()
    assert set(granted(plan)) == {"ada"}


def test_a_line_of_ages_is_not_foretold() -> None:
    lab = Lab(1)
    lab.holds("zoe", "alpha-0", until=1)
    for number in range(120):
        lab.wants(f"ada-{number:03}", hours=24 * 366)
    plan = lab.plan()
    assert plan.explanations["ada-001"].projected_start is not None
    assert plan.explanations["ada-119"].projected_start is None


def test_an_explanation_travels_as_plain_values() -> None:
    lab = borrowing()
    assert lab.why("ada").as_dict() == {
        "waiting": "reclaim",
        "position": 1,
        "ahead": [],
        "free": 0,
        "held_by": ["zoe-3", "zoe-1", "zoe-2"],
        "projected_start": (NOW + timedelta(minutes=10)).isoformat(),
        "is_guaranteed": True,
    }


def test_a_lease_without_an_end_is_never_over_and_nobody_can_tell() -> None:
    lab = Lab(1)
    lab.holds("zoe", "alpha-0")
    lab.change("zoe", expires_at=None)
    lab.wants("ada")
    assert lab.plan().expired == ()
    assert lab.why("ada").projected_start is None
    assert replace(lab.plan()).next_at is None
