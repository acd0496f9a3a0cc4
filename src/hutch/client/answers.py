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


class SshConfig(TypedDict):
    """What a person's ssh has to know."""

    alias: str
    host: str
    port: int
    config: str
    known_hosts: str


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


class TerminalTicket(TypedDict):
    ticket: str
    expires_at: str


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
    wake_on_ssh: bool
    created_at: str


class App(TypedDict):
    instance: str
    owner: str
    name: str
    port: int
    url: str
    """An address, or a path at the server's."""


class Port(TypedDict):
    id: str
    instance: str
    owner: str
    name: str
    protocol: str
    port: int
    """The instance's."""
    reach: str
    """`network`, `node` or `web`."""
    host: str | None
    host_port: int | None
    """Both None for `web`: nothing listens for it."""
    state: str
    open_to: str
    people: list[str]
    keep_path: bool
    url: str | None
    """As an app in a browser: an address, or a path at the server's. None for UDP."""
    until: str | None
    created_at: str | None


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


class PortBegun(Begun):
    port: Port


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


class Agent(TypedDict):
    version: str
    seen_at: str
    silent_since: str | None


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
    agent: Agent | None


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


class Held(TypedDict):
    """An accelerator that a lease holds, or held."""

    id: str
    name: str
    """`node/address`."""
    model: str


class Announcement(TypedDict):
    reason: str
    at: str
    due: str


class Other(TypedDict):
    """Somebody's lease, as everyone may know it."""

    id: str
    owner: str
    count: int
    state: str
    expires_at: str | None


class Explanation(TypedDict):
    """Why a lease waits."""

    waiting: str
    """One of `domain.scheduler.Waiting`."""
    position: int
    ahead: list[Other]
    free: int
    held_by: list[Other]
    projected_start: str | None
    is_guaranteed: bool


class Lease(TypedDict):
    id: str
    instance: str | None
    """None: another person's, and not the asker's to know."""
    owner: str
    group: str | None
    node: str
    count: int
    model: str | None
    minutes: float
    state: str
    end_reason: str | None
    requested_at: str
    granted_at: str | None
    active_at: str | None
    expires_at: str | None
    ended_at: str | None
    accelerators: list[Held]
    announcement: Announcement | None
    evidence: dict[str, Any] | None
    explanation: Explanation | None
    error: str | None
    version: str
    """Changes whenever something about the lease that people see does."""


class Process(TypedDict):
    pid: int
    command: str
    user: str
    instance: str | None
    memory: int


class Reading(TypedDict):
    """What an accelerator was last seen doing."""

    utilisation: float | None
    """0 to 1."""
    memory_used: int | None
    temperature: float | None
    power: float | None
    processes: list[Process]


class Holder(TypedDict):
    owner: str
    until: str | None
    state: str
    is_mine: bool
    lease: str | None
    instance: str | None


class Accelerator(TypedDict):
    id: str
    name: str
    """`node/address`."""
    node: str
    address: str
    uuid: str | None
    vendor: str
    model: str
    memory: int
    health: str
    reason: str
    withdrawn: str | None
    sharers: int
    seen_at: str | None
    reading: Reading | None
    holders: list[Holder]


class GpuUsage(TypedDict):
    name: str | None
    model: str | None
    leases: int
    held_hours: float
    busy_hours: float


class GpuReport(TypedDict):
    by: str
    first: str
    last: str
    rows: list[GpuUsage]


class Notice(TypedDict):
    id: str
    kind: str
    text: str
    instance: str | None
    lease: str | None
    created_at: str
    delivered_at: str | None
    read_at: str | None


class Marked(TypedDict):
    marked: int
    """How many had not been read."""


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


class File(TypedDict):
    name: str
    encoded: str
    kind: str
    size: int
    modified: int
    mode: str
    uid: int
    gid: int
    target: str | None
    tag: str


class Folder(TypedDict):
    path: str
    encoded: str
    entries: list[File]
    truncated: bool


class Uploaded(TypedDict):
    size: int
    done: bool
    encoded: str
