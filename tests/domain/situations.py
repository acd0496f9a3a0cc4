"""Situations written as people would tell them, for tests of the scheduler."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hutch.domain.leases import LeaseState
from hutch.domain.scheduler import (
    Device,
    Explanation,
    GroupShare,
    Plan,
    Policy,
    Request,
    Situation,
    decide,
    may_extend,
)

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
POLICY = Policy(protection=HOUR, reclaim_warning=10 * MINUTE)
MODEL = "NVIDIA A100-SXM4-80GB"


class Lab:
    """A lab that a test fills with devices, people, groups and leases."""

    def __init__(self, devices: int = 4, *, node: str = "alpha", sharers: int = 1) -> None:
        self.now = NOW
        self.policy = POLICY
        self.devices: dict[str, Device] = {}
        self.requests: dict[str, Request] = {}
        self.groups: dict[str, GroupShare] = {}
        self.maximum: dict[str, int] = {}
        self.usage: dict[str, float] = {}
        self.add_devices(devices, node=node, sharers=sharers)

    def add_devices(
        self, count: int, *, node: str = "alpha", model: str = MODEL, sharers: int = 1
    ) -> list[str]:
        first = sum(each.node_id == node for each in self.devices.values())
        ids = [f"{node}-{number}" for number in range(first, first + count)]
        for id_ in ids:
            self.devices[id_] = Device(id_, node, model, sharers, is_grantable=True)
        return ids

    def group(
        self, name: str, guarantee: int = 0, *, limit: int | None = None, weight: float = 1.0
    ) -> None:
        self.groups[name] = GroupShare(guarantee, limit, weight)

    def spoil(self, *devices: str) -> None:
        """Have devices fail, or be taken out of service."""
        for id_ in devices:
            self.devices[id_] = replace(self.devices[id_], is_grantable=False)

    def wants(self, id_: str, count: int = 1, *, hours: float = 4, **more: Any) -> None:
        """A lease that waits. Its owner is the one in its name: `ada-2` is Ada's."""
        owner = id_.partition("-")[0]
        self.maximum.setdefault(owner, 100)
        given: dict[str, Any] = {
            "instance_id": f"box-{id_}",
            "owner_id": owner,
            "group_id": None,
            "node_id": "alpha",
            "count": count,
            "model": None,
            "duration": hours * HOUR,
            "state": LeaseState.QUEUED,
            # In the order in which a test names them.
            "requested_at": self.now - 100 * HOUR + len(self.requests) * MINUTE,
        }
        self.requests[id_] = Request(id_, **(given | more))

    def holds(
        self, id_: str, *devices: str, since: float = -2, until: float = 2, **more: Any
    ) -> None:
        """A lease that has accelerators, from and until so many hours from now."""
        given: dict[str, Any] = {
            "state": LeaseState.ACTIVE,
            "granted_at": self.now + since * HOUR,
            "expires_at": self.now + until * HOUR,
            "devices": devices,
            "hours": until - since,
        }
        self.wants(id_, len(devices), **(given | more))

    def change(self, id_: str, **fields: Any) -> None:
        self.requests[id_] = replace(self.requests[id_], **fields)

    @property
    def situation(self) -> Situation:
        return Situation(
            self.now,
            list(self.devices.values()),
            list(self.requests.values()),
            self.groups,
            self.maximum,
            self.usage,
            self.policy,
        )

    def plan(self) -> Plan:
        return decide(self.situation)

    def granted(self) -> dict[str, tuple[str, ...]]:
        return granted(self.plan())

    def why(self, id_: str) -> Explanation:
        return self.plan().explanations[id_]

    def keeps_from_extending(self, id_: str) -> str | None:
        return may_extend(self.situation, id_)


def granted(plan: Plan) -> dict[str, tuple[str, ...]]:
    return {grant.request_id: grant.devices for grant in plan.grants}


def applied(situation: Situation, plan: Plan) -> Situation:
    """The situation once a plan was carried out, before any accelerator has left anyone."""
    grants: Mapping[str, tuple[str, ...]] = granted(plan)
    requests: list[Request] = []
    for each in situation.requests:
        after = each
        if each.id in grants:
            after = replace(
                each,
                state=LeaseState.ATTACHING,
                granted_at=situation.now,
                expires_at=situation.now + each.duration,
                devices=grants[each.id],
            )
        if each.id in plan.expired or each.id in plan.reclaim:
            after = replace(each, state=LeaseState.DETACHING)
        if each.id in plan.warn:
            after = replace(each, reclaim_due=plan.warn[each.id], reclaim_delivered=False)
        if each.id in plan.pardon:
            after = replace(each, reclaim_due=None, reclaim_delivered=False)
        requests.append(after)
    return replace(situation, requests=requests)
