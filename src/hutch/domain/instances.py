"""Instances: one person's machine, and the containers behind it."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from hutch.domain.limits import Limits
from hutch.domain.shares import Share


class InstanceState(StrEnum):
    """Where an instance is in its life: gerunds while something moves, adjectives at rest."""

    CREATING = "creating"
    RUNNING = "running"
    STOPPED = "stopped"
    STARTING = "starting"
    STOPPING = "stopping"
    RESTARTING = "restarting"
    REBUILDING = "rebuilding"
    RESTORING = "restoring"
    DELETING = "deleting"
    FAILED = "failed"
    """Its creation failed and was undone; the name and the reason are kept until it is deleted."""


class Desired(StrEnum):
    """What the owner last asked for; what a node brings back after it was away."""

    RUNNING = "running"
    STOPPED = "stopped"


class ContainerRole(StrEnum):
    """What a container is for."""

    CURRENT = "current"
    """The one that an instance lives in."""
    INCOMING = "incoming"
    """The one that a rebuild is preparing."""
    OUTGOING = "outgoing"
    """The one that a rebuild has left behind and is about to remove."""
    POOL = "pool"
    """Made in advance, never yet given to anyone."""


@dataclass(frozen=True, slots=True)
class Container:
    """The engine's side of an instance."""

    id: str
    node_id: str
    engine_name: str
    address: str
    """Its IPv4 address on the node's bridge."""
    image_id: str
    role: ContainerRole
    instance_id: str | None
    ready: bool
    """In the pool: booted, and waiting for a person."""
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Drift:
    """A difference between what should be and what is, made by someone other than hutch."""

    code: str
    message: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Instance:
    id: str
    owner_id: str
    owner_name: str
    name: str
    node_id: str
    node_name: str
    image_id: str
    image_name: str
    state: InstanceState
    desired: Desired
    limits: Limits
    ssh_host: str
    ssh_port: int
    ssh_host_key: str
    """The public host key as `ssh-ed25519 AAAA…`; a person's known_hosts can pin it."""
    keys_version: int
    """The version of the SSH keys that is inside."""
    guests_version: int
    """Grows with every change of the keys of those whom the owner lets log in. It and the version
    of the owner's own keys together are the version that should be inside."""
    drift: Drift | None
    error: str | None
    created_at: datetime
    share: Share | None = None
    """By which someone else than its owner sees it."""
    wake_on_ssh: bool = True
    """Whether coming through the gateway starts it when it is stopped."""
