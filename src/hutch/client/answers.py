"""What the API answers, as it travels: JSON objects with these keys.

Times are texts (RFC 3339, UTC); memory and disk are bytes.
"""

from typing import Any, NotRequired, TypedDict


class Error(TypedDict):
    code: str
    message: str
    hint: str
    detail: dict[str, Any]
    request_id: NotRequired[str | None]


class Holding(TypedDict):
    """What a person holds, or may hold at most."""

    instances: int
    cpus: int
    memory: int
    disk: int
    accelerators: int


class SignedInUser(TypedDict):
    name: str
    role: str


class SignedIn(TypedDict):
    token: str
    expires_at: str | None
    user: SignedInUser


class Me(TypedDict):
    name: str
    role: str
    quota: Holding
    held: Holding


class Key(TypedDict):
    id: str
    title: str
    type: str
    public: str
    fingerprint: str
    created_at: str


class Token(TypedDict):
    id: str
    title: str
    scope: str
    created_at: str
    expires_at: str | None
    last_used_at: str | None


class NewToken(Token):
    token: str
    """The secret itself, answered this once."""


class AgentToken(TypedDict):
    token: str
    """The secret itself, answered this once."""


class Ssh(TypedDict):
    host: str
    port: int
    user: str
    host_key: str


class Drift(TypedDict):
    code: str
    message: str
    since: str


class Received(TypedDict):
    """How somebody else's instance is shared with oneself."""

    read_only_view: bool
    until: str | None


class Instance(TypedDict):
    id: str
    name: str
    owner: str
    state: str
    desired: str
    node: str
    image: str
    cpus: int
    memory: int
    disk: int
    processes: int
    ssh: Ssh
    drift: Drift | None
    error: str | None
    share: Received | None
    """None for one's own."""
    created_at: str


class Share(TypedDict):
    person: str
    read_only_view: bool
    until: str | None
    created_at: str


class UsedAllowed(TypedDict):
    used: int
    allowed: int


class CpuUsage(TypedDict):
    seconds: float
    """Processor time since the start."""
    allowed: int


class Usage(TypedDict):
    memory: UsedAllowed
    disk: UsedAllowed
    processes: UsedAllowed
    cpu: CpuUsage


class Target(TypedDict):
    kind: str
    id: str


class Operation(TypedDict):
    id: str
    kind: str
    target: Target
    state: str
    step: str
    progress: float
    """0 to 1."""
    message: str
    undoing: bool
    attempts: int
    error: Error | None
    created_by: str
    created_at: str
    finished_at: str | None
    version: str
    """Changes whenever something about the operation that people see does."""


class Begun(TypedDict):
    """Work was accepted and goes on: watch the operation."""

    operation: Operation


class InstanceBegun(Begun):
    instance: Instance


class Snapshot(TypedDict):
    id: str
    name: str
    kind: str
    state: str
    created_at: str


class SnapshotBegun(Begun):
    snapshot: Snapshot


class Ran(TypedDict):
    """What a program inside an instance did; the outputs are base64."""

    code: int
    stdout: str
    stderr: str
    truncated: bool


class User(TypedDict):
    id: str
    name: str
    role: str
    disabled_at: str | None
    created_at: str
    quota: Holding
    held: Holding


class NewUser(TypedDict):
    user: User
    password: str


class NewPassword(TypedDict):
    password: str


class Promised(TypedDict):
    cpus: int
    memory: int
    disk: int


class Idle(TypedDict):
    """When accelerators that nobody computes on are taken back."""

    window_minutes: float
    """0: never."""
    threshold_percent: float
    warning_minutes: float


class Node(TypedDict):
    name: str
    engine: str
    address: str
    state: str
    version: str
    cpus: int
    memory: int
    disk: int
    disk_used: int
    promised: Promised
    seen_at: str | None
    unreachable_since: str | None
    idle: Idle | None


class Member(TypedDict):
    user: str
    is_manager: bool
    maximum: int
    """The most accelerators that they may hold."""
    held: int
    """Accelerators that they hold or wait for."""


class Group(TypedDict):
    name: str
    guarantee: int
    limit: int | None
    weight: float
    idle: Idle | None
    held: int
    waiting: int
    members: list[Member]
    created_at: str


class Image(TypedDict):
    name: str
    description: str
    pool_size: int
    created_at: str


class EventTarget(TypedDict):
    kind: str
    id: str
    name: str


class Event(TypedDict):
    id: int
    at: str
    by: str
    action: str
    target: EventTarget
    result: str
    address: str | None
    request_id: str | None
    detail: dict[str, Any]
