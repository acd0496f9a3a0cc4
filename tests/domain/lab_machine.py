"""A lab that lives: whatever may happen to it happens, and the scheduler's plans are carried out.

Each method is one thing that happens; numbers choose among what is there, so that a test can draw
them without knowing. After everything the scheduler decides, and the plan is checked.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from hutch.domain.leases import HOLDING, LeaseState
from hutch.domain.scheduler import (
    OWN_LIMITS,
    Device,
    GroupShare,
    Plan,
    Policy,
    Request,
    Situation,
    decide,
    may_extend,
)
from tests.domain import truths
from tests.domain.situations import NOW, applied

MINUTE = timedelta(minutes=1)
NODES = {
    # Node: its devices' models, and how many may share each.
    "alpha": (["NVIDIA A100"] * 4, 1),
    "beta": (["NVIDIA A100", "NVIDIA A100", "Tesla V100", "Tesla V100"], 1),
    "gamma": (["NVIDIA T4", "NVIDIA T4"], 3),
    "delta": (["NVIDIA A100"], 1),
}
PEOPLE = ("ada", "bob", "cleo", "dan", "eve", "finn")
MODELS = (None, None, None, "a100", "V100", "nvidia", "t4")
GROUPS = ("physics", "biology", "chemistry")


@dataclass
class LabMachine:
    now: datetime
    devices: dict[str, Device]
    requests: dict[str, Request]
    groups: dict[str, GroupShare]
    membership: dict[str, str | None]
    maximum: dict[str, int]
    usage: dict[str, float]
    policy: Policy
    plan: Plan
    thoroughly: bool = True
    named: int = 0

    @classmethod
    def open(cls, *, protection: int = 60, warning: int = 10) -> "LabMachine":
        devices = {
            f"{node}-{number}": Device(f"{node}-{number}", node, model, sharers, is_grantable=True)
            for node, (models, sharers) in NODES.items()
            for number, model in enumerate(models)
        }
        policy = Policy(protection * MINUTE, warning * MINUTE)
        groups = {
            "physics": GroupShare(4, 8, 1.0),
            "biology": GroupShare(2, None, 2.0),
            "chemistry": GroupShare(0, 3, 1.0),
        }
        membership = dict(zip(PEOPLE, (*GROUPS, "physics", "biology", None), strict=True))
        maximum = dict.fromkeys(PEOPLE, 8)
        nothing = decide(Situation(NOW, [], [], {}, {}, {}, policy))
        return cls(NOW, devices, {}, groups, membership, maximum, {}, policy, nothing)

    @property
    def situation(self) -> Situation:
        return Situation(
            self.now,
            list(self.devices.values()),
            list(self.requests.values()),
            dict(self.groups),
            dict(self.maximum),
            dict(self.usage),
            self.policy,
        )

    def settle(self) -> None:
        """Decide, check what was decided, and carry it out."""
        before = self.situation
        self.plan = decide(before)
        truths.check(before, self.plan, thoroughly=self.thoroughly)
        self.requests = {each.id: each for each in applied(before, self.plan).requests}

    # -- people ----------------------------------------------------------------------------------

    def ask(self, person: int, node: int, count: int, model: int, minutes: int, box: int) -> None:
        """Somebody asks for accelerators, unless that is refused at once."""
        owner = PEOPLE[person % len(PEOPLE)]
        live = sum(each.count for each in self.requests.values() if each.owner_id == owner)
        node_id, wanted = [*NODES][node % len(NODES)], MODELS[model % len(MODELS)]
        there = [e for e in self.devices.values() if e.node_id == node_id and e.matches(wanted)]
        if live + count > self.maximum[owner] or count > len(there):
            return
        self.named += 1
        id_ = f"{owner}-{self.named}"
        self.requests[id_] = Request(
            id=id_,
            instance_id=f"box-{owner}-{box}",
            owner_id=owner,
            group_id=self.membership[owner],
            node_id=node_id,
            count=count,
            model=wanted,
            duration=minutes * MINUTE,
            state=LeaseState.QUEUED,
            requested_at=self.now,
        )
        self.settle()

    def release(self, choice: int) -> None:
        """Somebody gives a lease back, or gives up waiting."""
        if lease := self._one_of(
            choice, LeaseState.QUEUED, LeaseState.ATTACHING, LeaseState.ACTIVE
        ):
            if lease.state is LeaseState.QUEUED:
                del self.requests[lease.id]
            else:
                self._change(lease, state=LeaseState.DETACHING)
            self.settle()

    def extend(self, choice: int, minutes: int) -> None:
        if lease := self._one_of(choice, LeaseState.ACTIVE):
            before = self.situation
            rival = may_extend(before, lease.id)
            rivals = truths.rivals(before, decide(before), lease)
            assert rival == (rivals[0] if rivals else None)
            if rival is None:
                assert lease.expires_at is not None
                self._change(lease, expires_at=lease.expires_at + minutes * MINUTE)
            self.settle()

    def stop(self, choice: int) -> None:
        if lease := self._one_of(choice, LeaseState.QUEUED):
            self._change(lease, can_start=False)
            self.settle()

    def start(self, choice: int) -> None:
        if stopped := [each for each in self.requests.values() if not each.can_start]:
            self._change(stopped[choice % len(stopped)], can_start=True)
            self.settle()

    # -- what the servers do -----------------------------------------------------------------------

    def arrive(self, choice: int) -> None:
        if lease := self._one_of(choice, LeaseState.ATTACHING):
            self._change(lease, state=LeaseState.ACTIVE)
            self.settle()

    def fail_to_arrive(self, choice: int) -> None:
        if lease := self._one_of(choice, LeaseState.ATTACHING):
            del self.requests[lease.id]
            self.settle()

    def have_left(self, choice: int) -> None:
        if lease := self._one_of(choice, LeaseState.DETACHING):
            del self.requests[lease.id]
            self.settle()

    def deliver(self, choice: int) -> None:
        told = [
            each
            for each in self.requests.values()
            if each.state in HOLDING and each.reclaim_due and not each.reclaim_delivered
        ]
        if told:
            self._change(told[choice % len(told)], reclaim_delivered=True)
            self.settle()

    # -- time --------------------------------------------------------------------------------------

    def pass_time(self, minutes: int) -> None:
        """Forward, or back."""
        self.now += minutes * MINUTE
        self.settle()

    def wait_for_the_next_moment(self) -> None:
        if self.plan.next_at is not None:
            self.now = max(self.now, self.plan.next_at)
        self.settle()

    # -- the lab -----------------------------------------------------------------------------------

    def spoil(self, choice: int) -> None:
        device = [*self.devices.values()][choice % len(self.devices)]
        self.devices[device.id] = replace(device, is_grantable=False)
        self.settle()

    def mend(self, choice: int) -> None:
        if broken := [each for each in self.devices.values() if not each.is_grantable]:
            device = broken[choice % len(broken)]
            self.devices[device.id] = replace(device, is_grantable=True)
            self.settle()

    def lose_or_find_a_node(self, choice: int, is_there: bool) -> None:
        node = [*NODES][choice % len(NODES)]
        for device in list(self.devices.values()):
            if device.node_id == node:
                self.devices[device.id] = replace(device, is_grantable=is_there)
        self.settle()

    def share(self, choice: int, sharers: int) -> None:
        """An administrator changes how many may share a device that nobody holds."""
        device = [*self.devices.values()][choice % len(self.devices)]
        if not any(device.id in each.devices for each in self.requests.values()):
            self.devices[device.id] = replace(device, sharers=sharers)
            self.settle()

    def set_maximum(self, person: int, maximum: int) -> None:
        self.maximum[PEOPLE[person % len(PEOPLE)]] = maximum
        self.settle()

    def set_group(self, choice: int, guarantee: int, limit: int | None, weight: float) -> None:
        limit = None if limit is None else max(limit, guarantee)
        self.groups[GROUPS[choice % len(GROUPS)]] = GroupShare(guarantee, limit, weight)
        self.settle()

    def move(self, person: int, group: int) -> None:
        """Somebody changes to another group; their leases still count to the old one."""
        self.membership[PEOPLE[person % len(PEOPLE)]] = (*GROUPS, None)[group % 4]
        self.settle()

    def count_usage(self, choice: int, hours: int) -> None:
        subjects = [f"user:{each}" for each in PEOPLE] + [f"group:{each}" for each in GROUPS]
        self.usage[subjects[choice % len(subjects)]] = hours * 3600.0
        self.settle()

    # -- nobody starves ----------------------------------------------------------------------------

    def run_dry(self) -> None:
        """From here on nobody does anything, and the servers do their part: in the end everyone
        has had their turn who is not held up by limits of their own."""
        twin = self._twin()
        for _ in range(20 * len(twin.requests) + 20):
            twin._serve()
            if not any(each.state in HOLDING for each in twin.requests.values()):
                break
            twin.wait_for_the_next_moment()
        else:
            raise AssertionError("it never comes to an end")
        assert all(why.waiting in OWN_LIMITS for why in twin.plan.explanations.values())

    def besiege(self) -> None:
        """Whoever is entitled and first in line starts when that was foretold, whatever number of
        others ask for what comes free."""
        for id_, why in self.plan.explanations.items():
            if why.is_guaranteed and why.position == 1 and truths.in_line(why):
                self._twin()._hold_out(id_)

    def _hold_out(self, id_: str) -> None:
        borrowed = truths.borrowed(self.situation)
        for each in list(self.requests.values()):
            # Only those could come before it, or use up its group's guarantee, who are in a group;
            # and what is borrowed now is not to become guaranteed meanwhile.
            if each.state is LeaseState.QUEUED and each.group_id is not None and each.id != id_:
                del self.requests[each.id]
            elif each.id in borrowed:
                self._change(each, group_id=None)
        self.settle()
        why = self.plan.explanations.get(id_)
        if why is None or not why.is_guaranteed or not truths.in_line(why):
            return
        entitled, start = self.requests[id_], why.projected_start
        assert start is not None
        self.maximum["intruder"] = 1000
        for number in range(400):
            self._serve()
            if self.requests[id_].state is not LeaseState.QUEUED:
                return
            intruder = replace(
                entitled,
                id=f"intruder-{number:03}",
                owner_id="intruder",
                instance_id=f"box-{number}",
                group_id=None,
                count=1 + number % 2,
                model=None,
                duration=(1 + 7 * (number % 9)) * MINUTE,
                requested_at=self.now,
            )
            self.requests[intruder.id] = intruder
            self.settle()
            assert self.now < start or self.requests[id_].state is not LeaseState.QUEUED, (
                f"{id_} still waits at {self.now}, and was to start at {start}"
            )
            soon = self.now + 5 * MINUTE if number < 100 else start
            self.now = min(soon, start, self.plan.next_at or start)
        raise AssertionError(f"{id_} never starts")

    def _serve(self) -> None:
        """The servers do all that is open: bring in, take out, deliver."""
        for _ in range(3 * len(self.requests) + 3):
            before = self.requests
            self.requests = {
                each.id: replace(
                    each,
                    state=LeaseState.ACTIVE if each.state is LeaseState.ATTACHING else each.state,
                    reclaim_delivered=each.reclaim_due is not None,
                )
                for each in self.requests.values()
                if each.state is not LeaseState.DETACHING
            }
            self.settle()
            if self.requests == before:
                return
        raise AssertionError("the servers never come to rest")

    def _twin(self) -> "LabMachine":
        return replace(
            self,
            devices=dict(self.devices),
            requests=dict(self.requests),
            groups=dict(self.groups),
            maximum=dict(self.maximum),
            usage=dict(self.usage),
            thoroughly=False,
        )

    def _one_of(self, choice: int, *states: LeaseState) -> Request | None:
        found = [each for each in self.requests.values() if each.state in states]
        return found[choice % len(found)] if found else None

    def _change(self, lease: Request, **fields: object) -> None:
        self.requests[lease.id] = replace(lease, **fields)
