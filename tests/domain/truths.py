"""What must be true of every plan, looked up in the situation itself, one truth at a time.

`check` takes a plan apart with the plainest means there are. It knows the rules and nothing of how
the scheduler goes about them.
"""

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from bench.plain_scheduler import PlainScheduler

from hutch.domain.leases import HOLDING, LeaseState
from hutch.domain.reclaim import PATIENCE
from hutch.domain.scheduler import (
    OWN_LIMITS,
    Device,
    Explanation,
    Grant,
    Plan,
    Request,
    Situation,
    Waiting,
    decide,
)
from tests.domain.situations import applied

NOTHING = timedelta()


def check(situation: Situation, plan: Plan, *, thoroughly: bool = True) -> None:
    """Everything below. `thoroughly`: also what needs the scheduler or its plain twin again."""
    after = applied(situation, plan)
    for truth in ALWAYS:
        truth(situation, plan, after)
    if thoroughly:
        for truth in THOROUGHLY:
            truth(situation, plan, after)


# -- what the truths look up -----------------------------------------------------------------------


def held(situation: Situation) -> list[Request]:
    return [each for each in situation.requests if each.state in HOLDING]


def queued(situation: Situation) -> list[Request]:
    return [each for each in situation.requests if each.state is LeaseState.QUEUED]


def holders(situation: Situation, device: str) -> list[Request]:
    return [each for each in held(situation) if device in each.devices]


def suitable(situation: Situation, request: Request) -> list[Device]:
    """In service on its node, and of the model that it wants."""
    return [
        each
        for each in situation.devices
        if each.node_id == request.node_id
        and each.is_grantable
        and (request.model is None or request.model.lower() in each.model.lower())
    ]


def is_free(situation: Situation, request: Request, device: Device) -> bool:
    others = holders(situation, device.id)
    own = any(each.instance_id == request.instance_id for each in others)
    return len(others) < device.sharers and not own


def of_person(situation: Situation, owner_id: str) -> int:
    return sum(each.count for each in held(situation) if each.owner_id == owner_id)


def of_group(situation: Situation, group_id: str) -> int:
    return sum(each.count for each in held(situation) if each.group_id == group_id)


def borrowed(situation: Situation) -> set[str]:
    """The leases beyond their group's guarantee, by the order of their grants, once what is on
    its way out has left."""
    total: Counter[str] = Counter()
    found: set[str] = set()
    moment = situation.now
    for each in sorted(
        held(situation), key=lambda each: (each.granted_at or moment, each.requested_at, each.id)
    ):
        group = each.group_id
        if group is None:
            found.add(each.id)
            continue
        if each.state is not LeaseState.DETACHING and not is_over(situation, each):
            total[group] += each.count
        if group not in situation.groups or total[group] > situation.groups[group].guarantee:
            found.add(each.id)
    return found


def is_over(situation: Situation, request: Request) -> bool:
    return (
        request.state is LeaseState.ACTIVE
        and request.expires_at is not None
        and request.expires_at <= situation.now
    )


def ends(situation: Situation, request: Request) -> datetime:
    if request.state is LeaseState.DETACHING or is_over(situation, request):
        return situation.now
    assert request.expires_at is not None
    return max(situation.now, request.expires_at)


def in_line(explanation: Explanation) -> bool:
    """Whether it stands in its node's line, and is not held up by what it may hold."""
    return explanation.waiting not in OWN_LIMITS and explanation.projected_start is not None


# -- grants ----------------------------------------------------------------------------------------


def every_waiting_lease_is_granted_or_explained(
    before: Situation, plan: Plan, after: Situation
) -> None:
    granted = [grant.request_id for grant in plan.grants]
    assert len(granted) == len(set(granted))
    assert not set(granted) & set(plan.explanations)
    assert {each.id for each in queued(before)} == set(granted) | set(plan.explanations)


def a_grant_is_all_of_what_was_asked_for(before: Situation, plan: Plan, after: Situation) -> None:
    by_id = {each.id: each for each in before.requests}
    for grant in plan.grants:
        request = by_id[grant.request_id]
        possible = {each.id for each in suitable(before, request)}
        assert len(grant.devices) == len(set(grant.devices)) == request.count
        assert set(grant.devices) <= possible, "not in service, or not what was asked for"
        assert request.can_start


def nothing_has_more_holders_than_may_share_it(
    before: Situation, plan: Plan, after: Situation
) -> None:
    granted = {device for grant in plan.grants for device in grant.devices}
    for device in after.devices:
        having = holders(after, device.id)
        if device.id in granted:
            assert len(having) <= device.sharers
            instances = [each.instance_id for each in having]
            assert len(instances) == len(set(instances)), "an instance has it twice"


def no_grant_exceeds_a_maximum_or_a_limit(before: Situation, plan: Plan, after: Situation) -> None:
    by_id = {each.id: each for each in before.requests}
    for grant in plan.grants:
        request = by_id[grant.request_id]
        assert of_person(after, request.owner_id) <= before.maximum.get(request.owner_id, 0)
        share = before.groups.get(request.group_id or "")
        if request.group_id is not None and share is not None and share.limit is not None:
            assert of_group(after, request.group_id) <= share.limit


# -- endings and warnings --------------------------------------------------------------------------


def what_ends_is_what_is_over(before: Situation, plan: Plan, after: Situation) -> None:
    over = sorted(each.id for each in before.requests if is_over(before, each))
    assert list(plan.expired) == over


def only_the_borrowed_make_room_and_only_for_the_entitled(
    before: Situation, plan: Plan, after: Situation
) -> None:
    by_id = {each.id: each for each in after.requests}
    still = [
        was if was.id in plan.reclaim else each
        for was, each in zip(before.requests, after.requests, strict=True)
    ]
    borrowed_now = borrowed(replace(after, requests=still))
    warning = before.policy.reclaim_warning
    for id_ in (*plan.warn, *plan.reclaim):
        holder = by_id[id_]
        assert id_ in borrowed_now
        assert not is_over(before, holder)
        assert any(
            plan.explanations[each.id].is_guaranteed
            and each.node_id == holder.node_id
            and each.owner_id != holder.owner_id
            and each.group_id != holder.group_id
            for each in queued(after)
        )
    before_by_id = {each.id: each for each in before.requests}
    for id_, due in plan.warn.items():
        holder = before_by_id[id_]
        assert holder.state is LeaseState.ACTIVE
        assert holder.reclaim_due is None
        assert holder.granted_at is not None
        assert holder.granted_at + before.policy.protection <= before.now, "it is protected"
        assert due == before.now + warning


def nobody_is_reclaimed_from_who_was_not_told_in_time(
    before: Situation, plan: Plan, after: Situation
) -> None:
    for each in before.requests:
        if each.id in plan.reclaim:
            assert each.state is LeaseState.ACTIVE
            assert each.reclaim_delivered
            assert each.reclaim_due is not None
            assert each.reclaim_due <= before.now


def who_was_told_is_needed_or_pardoned(before: Situation, plan: Plan, after: Situation) -> None:
    told = {
        each.id
        for each in held(before)
        if each.reclaim_due is not None
        and each.state is not LeaseState.DETACHING
        and not is_over(before, each)
    }
    assert set(plan.pardon) <= told
    assert not set(plan.pardon) & (set(plan.reclaim) | set(plan.warn))
    entitled = [
        each for each in queued(after) if plan.explanations[each.id].is_guaranteed
    ]  # fmt: skip
    for each in held(before):
        if each.id in told - set(plan.pardon):
            assert any(other.node_id == each.node_id for other in entitled)


def the_next_moment_is_to_come_and_no_end_is_missed(
    before: Situation, plan: Plan, after: Situation
) -> None:
    assert plan.next_at is None or plan.next_at > before.now
    for each in held(after):
        if each.state is not LeaseState.DETACHING and ends(after, each) > before.now:
            assert plan.next_at is not None
            assert plan.next_at <= ends(after, each)


# -- explanations ----------------------------------------------------------------------------------


def what_is_said_to_be_free_is(before: Situation, plan: Plan, after: Situation) -> None:
    for each in queued(after):
        free = sum(is_free(after, each, device) for device in suitable(after, each))
        assert plan.explanations[each.id].free == free


def what_it_waits_for_is_what_it_waits_for(before: Situation, plan: Plan, after: Situation) -> None:
    making_room = making_room_for(plan, after)
    for each in queued(after):
        why = plan.explanations[each.id]
        own = own_limit(after, each)
        if own is not None:
            assert why.waiting is own
        elif underway_in_group(plan, after, each) and not why.is_guaranteed:
            assert why.waiting is Waiting.GUARANTEE
        elif why.free >= each.count:
            assert why.waiting is Waiting.TURN
        elif why.waiting is Waiting.RECLAIM:
            assert why.is_guaranteed
            assert making_room & {other.node_id for other in (each,)}
        else:
            assert why.waiting is Waiting.DEVICES
        if why.waiting in OWN_LIMITS:
            assert why.projected_start is None


def own_limit(situation: Situation, request: Request) -> Waiting | None:
    if not request.can_start:
        return Waiting.INSTANCE
    maximum = situation.maximum.get(request.owner_id, 0)
    if of_person(situation, request.owner_id) + request.count > maximum:
        return Waiting.PERSON
    share = situation.groups.get(request.group_id or "")
    limit = None if share is None else share.limit
    if limit is not None and of_group(situation, request.group_id or "") + request.count > limit:
        return Waiting.GROUP
    if len(suitable(situation, request)) < request.count:
        return Waiting.NO_SUCH_DEVICE
    return None


def making_room_for(plan: Plan, after: Situation) -> set[str]:
    """The nodes on which somebody was told to make room."""
    return {
        each.node_id
        for each in held(after)
        if each.reclaim_due is not None and each.id not in plan.pardon
    }


def underway_in_group(plan: Plan, after: Situation, request: Request) -> bool:
    """Whether room is being made for a lease within the guarantee of its group."""
    if request.group_id is None:
        return False
    return any(
        plan.explanations[each.id].is_guaranteed
        and (start := plan.explanations[each.id].projected_start) is not None
        and start <= after.now + after.policy.reclaim_warning
        and not waits_for_the_unreached(plan, after, each)
        for each in queued(after)
        if each.group_id == request.group_id
    )


def waits_for_the_unreached(plan: Plan, after: Situation, request: Request) -> bool:
    """Whether somebody on its node was told, did not hear of it in time, and is still needed."""
    return plan.explanations[request.id].waiting is Waiting.RECLAIM and any(
        each.node_id == request.node_id
        and each.reclaim_due is not None
        and each.reclaim_due + PATIENCE <= after.now
        and not each.reclaim_delivered
        and each.id not in plan.pardon
        for each in held(after)
    )


def the_line_is_in_order(before: Situation, plan: Plan, after: Situation) -> None:
    def order(request: Request) -> tuple[bool, float, float, datetime, str]:
        usage = after.usage
        own = usage.get(f"user:{request.owner_id}", 0.0)
        share = own
        if request.group_id is not None:
            group = after.groups.get(request.group_id)
            share = usage.get(f"group:{request.group_id}", 0.0) / (group.weight if group else 1.0)
        entitled = plan.explanations[request.id].is_guaranteed
        return (not entitled, share, own, request.requested_at, request.id)

    lines: dict[str, list[str]] = {}
    for each in sorted(queued(after), key=order):
        line = lines.setdefault(each.node_id, [])
        why = plan.explanations[each.id]
        assert why.position == len(line) + 1
        assert list(why.ahead) == line[:10]
        if in_line(why):
            line.append(each.id)


def who_is_said_to_hold_it_does(before: Situation, plan: Plan, after: Situation) -> None:
    for each in queued(after):
        why = plan.explanations[each.id]
        if why.waiting is Waiting.PERSON:
            having = [other for other in held(after) if other.owner_id == each.owner_id]
        elif why.waiting is Waiting.GROUP:
            having = [other for other in held(after) if other.group_id == each.group_id]
        elif why.waiting in (Waiting.DEVICES, Waiting.RECLAIM):
            busy = {d.id for d in suitable(after, each) if not is_free(after, each, d)}
            having = [other for other in held(after) if busy & set(other.devices)]
        else:
            having = []
        assert set(why.held_by) <= {other.id for other in having}
        assert len(why.held_by) == min(10, len(having))
        by_id = {other.id: other for other in having}
        moments = [told_end(after, by_id[id_], plan) for id_ in why.held_by]
        assert moments == sorted(moments)


def told_end(after: Situation, request: Request, plan: Plan) -> datetime:
    end = ends(after, request)
    if request.reclaim_due is None or request.id in plan.pardon:
        return end
    if request.state is LeaseState.DETACHING:
        return after.now
    return min(end, max(after.now, request.reclaim_due))


def the_entitled_are_within_the_guarantee(before: Situation, plan: Plan, after: Situation) -> None:
    for each in queued(after):
        if plan.explanations[each.id].is_guaranteed:
            assert each.group_id is not None
            total = of_group(after, each.group_id) + each.count
            assert total <= after.groups[each.group_id].guarantee


def who_could_be_entitled_is_unless_the_guarantee_is_spoken_for(
    before: Situation, plan: Plan, after: Situation
) -> None:
    for each in queued(after):
        if each.group_id is None or each.group_id not in after.groups:
            continue
        if plan.explanations[each.id].is_guaranteed:
            continue
        total = of_group(after, each.group_id) + each.count
        if total <= after.groups[each.group_id].guarantee:
            assert underway_in_group(plan, after, each)


def the_heads_start_is_when_enough_comes_free(
    before: Situation, plan: Plan, after: Situation
) -> None:
    """Of a head to whom nobody is obliged: then its start follows from the ends of leases alone."""
    for each in queued(after):
        why = plan.explanations[each.id]
        if not in_line(why) or why.position != 1 or why.is_guaranteed:
            continue
        moments = sorted(opens(after, each, device) for device in suitable(after, each))
        assert why.projected_start == moments[each.count - 1]


def opens(situation: Situation, request: Request, device: Device) -> datetime:
    others = holders(situation, device.id)
    own = [ends(situation, e) for e in others if e.instance_id == request.instance_id]
    must_go = len(others) - device.sharers + 1
    moments = sorted(ends(situation, each) for each in others)
    moment = situation.now if must_go <= 0 else moments[must_go - 1]
    return max([moment, *own])


def rivals(situation: Situation, plan: Plan, lease: Request) -> list[str]:
    """For whom a lease may not be extended, the first of the line first."""
    own = [each for each in situation.devices if each.id in lease.devices]
    found: list[tuple[int, str]] = []
    for each in queued(situation):
        why = plan.explanations.get(each.id)
        if why is None or why.waiting in OWN_LIMITS or each.owner_id == lease.owner_id:
            continue
        is_due = why.is_guaranteed or lease.id in borrowed(situation)
        if is_due and any(device in suitable(situation, each) for device in own):
            found.append((why.position, each.id))
    return [id_ for _, id_ in sorted(found)]


# -- what needs the scheduler again ----------------------------------------------------------------


def a_plan_carried_out_leaves_nothing_to_grant(
    before: Situation, plan: Plan, after: Situation
) -> None:
    again = decide(after)
    assert again.grants == ()
    assert again.expired == ()
    if not plan.reclaim:
        assert again.explanations == plan.explanations
        assert not again.warn
        assert not again.pardon


def the_order_of_what_is_known_makes_no_difference(
    before: Situation, plan: Plan, after: Situation
) -> None:
    chance = random.Random(len(before.requests))
    shuffled = replace(
        before,
        requests=chance.sample(before.requests, len(before.requests)),
        devices=chance.sample(before.devices, len(before.devices)),
    )
    assert decide(shuffled) == plan


def the_plain_scheduler_says_the_same(before: Situation, plan: Plan, after: Situation) -> None:
    verdicts = PlainScheduler(before).decide()
    granted = {
        Grant(id_, verdict.devices) for id_, verdict in verdicts.items() if verdict.devices
    }  # fmt: skip
    assert set(plan.grants) == granted
    for id_, why in plan.explanations.items():
        verdict = verdicts[id_]
        said = (why.waiting, why.position, why.projected_start, why.is_guaranteed)
        assert said == (verdict.waiting, verdict.position, verdict.start, verdict.is_guaranteed)


def no_backfill_puts_off_the_head(before: Situation, plan: Plan, after: Situation) -> None:
    """Without those of its node who came later, the head would start no sooner."""
    twin = PlainScheduler(before)
    twin.decide()
    place = {id_: number for number, id_ in enumerate(twin.first_walk)}
    granted = {grant.request_id for grant in plan.grants}
    for head in queued(after):
        why = plan.explanations[head.id]
        if not in_line(why) or why.position != 1:
            continue
        alone = [
            given
            for each, given in zip(before.requests, after.requests, strict=True)
            if not is_later(each, head, place)
        ]
        without = decide(replace(after, requests=alone)).explanations.get(head.id)
        assert without is not None, "without them it would have started"
        if not in_line(without):
            continue
        if without.is_guaranteed and not why.is_guaranteed:
            # Its own group used up the guarantee, on another node.
            assert any(
                each.id in granted and each.group_id == head.group_id
                and each.node_id != head.node_id for each in before.requests
            )  # fmt: skip
            continue
        assert without.projected_start is not None
        assert why.projected_start is not None
        assert why.projected_start <= without.projected_start


def is_later(request: Request, head: Request, place: dict[str, int]) -> bool:
    return (
        request.state is LeaseState.QUEUED
        and request.node_id == head.node_id
        and place[request.id] > place[head.id]
    )


def whose_turn_it_is_not_would_put_somebody_off(
    before: Situation, plan: Plan, after: Situation
) -> None:
    """On nodes that are all alike and where nobody is entitled: whatever the choice of devices."""
    for each in queued(after):
        why = plan.explanations[each.id]
        if why.waiting is not Waiting.TURN or not in_line(why) or not is_simple(after, plan, each):
            continue
        free = [d.id for d in suitable(after, each) if is_free(after, each, d)]
        for devices in itertools.combinations(free, each.count):
            started = replace(
                each,
                state=LeaseState.ATTACHING,
                granted_at=after.now,
                expires_at=after.now + each.duration,
                devices=devices,
            )
            requests = [started if other.id == each.id else other for other in after.requests]
            forced = decide(replace(after, requests=requests))
            assert any(is_put_off(plan, forced, id_) for id_ in why.ahead)


def is_simple(after: Situation, plan: Plan, request: Request) -> bool:
    devices = [each for each in after.devices if each.node_id == request.node_id]
    return (
        len({each.model for each in devices}) == 1
        and all(each.sharers == 1 for each in devices)
        and not any(
            plan.explanations[each.id].is_guaranteed
            for each in queued(after)
            if each.node_id == request.node_id
        )
    )


def is_put_off(plan: Plan, forced: Plan, id_: str) -> bool:
    if id_ not in forced.explanations:
        return False
    then, now = forced.explanations[id_].projected_start, plan.explanations[id_].projected_start
    return then is None or (now is not None and then > now)


Truth = Callable[[Situation, Plan, Situation], None]
ALWAYS: Iterable[Truth] = (
    every_waiting_lease_is_granted_or_explained,
    a_grant_is_all_of_what_was_asked_for,
    nothing_has_more_holders_than_may_share_it,
    no_grant_exceeds_a_maximum_or_a_limit,
    what_ends_is_what_is_over,
    only_the_borrowed_make_room_and_only_for_the_entitled,
    nobody_is_reclaimed_from_who_was_not_told_in_time,
    who_was_told_is_needed_or_pardoned,
    the_next_moment_is_to_come_and_no_end_is_missed,
    what_is_said_to_be_free_is,
    what_it_waits_for_is_what_it_waits_for,
    the_line_is_in_order,
    who_is_said_to_hold_it_does,
    the_entitled_are_within_the_guarantee,
    who_could_be_entitled_is_unless_the_guarantee_is_spoken_for,
    the_heads_start_is_when_enough_comes_free,
)
THOROUGHLY: Iterable[Truth] = (
    a_plan_carried_out_leaves_nothing_to_grant,
    the_order_of_what_is_known_makes_no_difference,
    the_plain_scheduler_says_the_same,
    no_backfill_puts_off_the_head,
    whose_turn_it_is_not_would_put_somebody_off,
)
