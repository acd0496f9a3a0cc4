"""The tables, and the invariants that live in them.

What the database itself guarantees, whatever the code above does: one live operation per target,
one host port per forward over all nodes, one address per container on a node, one current
container per instance, one owner of an SSH key, one holder per place of an accelerator.
"""

from datetime import UTC, datetime, timedelta

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
    true,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Instant(TypeDecorator[datetime]):
    """A moment, kept as microseconds since 1970 in UTC: exact, ordered, the same on both."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        # Integer arithmetic: timestamp() is a float and would move a moment by a microsecond.
        return None if value is None else (value - EPOCH) // timedelta(microseconds=1)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else EPOCH + timedelta(microseconds=value)


def _id(name: str = "id") -> Column[str]:
    return Column(name, String(16), primary_key=True)


def _ref(
    name: str, target: str, *, nullable: bool = False, ondelete: str | None = None
) -> Column[str]:
    return Column(name, String(16), ForeignKey(target, ondelete=ondelete), nullable=nullable)


groups = Table(
    "groups",
    metadata,
    _id(),
    Column("name", String(63), nullable=False, unique=True),
    Column("guarantee", Integer, nullable=False),
    Column("limit", Integer),
    Column("weight", Float, nullable=False),
    # {"window": seconds, "threshold": 0 to 1, "warning": seconds}; None: the node's or the lab's.
    Column("idle", JSON(none_as_null=True)),
    Column("created_at", Instant, nullable=False),
)

users = Table(
    "users",
    metadata,
    _id(),
    Column("name", String(32), nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    Column("password_hash", Text),
    Column("disabled_at", Instant),
    Column("created_at", Instant, nullable=False),
    Column("keys_version", Integer, nullable=False, server_default=text("0")),
    # None: the lab's default from the settings.
    Column("quota_instances", Integer),
    Column("quota_cpus", Integer),
    Column("quota_memory", BigInteger),
    Column("quota_disk", BigInteger),
    Column("quota_accelerators", Integer),
)

# A person is in one group at most: what they hold is counted once.
memberships = Table(
    "memberships",
    metadata,
    Column("user_id", String(16), ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    _ref("group_id", "groups.id", ondelete="CASCADE"),
    Column("is_manager", Boolean, nullable=False),
    Index("ix_memberships_group_id", "group_id"),
)

ssh_keys = Table(
    "ssh_keys",
    metadata,
    _id(),
    _ref("user_id", "users.id", ondelete="CASCADE"),
    Column("title", String(64), nullable=False),
    Column("type", String(64), nullable=False),
    Column("public", Text, nullable=False),
    # One person per key: a gateway knows people by their key alone.
    Column("fingerprint", String(64), nullable=False, unique=True),
    Column("created_at", Instant, nullable=False),
    Index("ix_ssh_keys_user_id", "user_id"),
)

tokens = Table(
    "tokens",
    metadata,
    _id(),
    _ref("user_id", "users.id", ondelete="CASCADE"),
    Column("title", String(64), nullable=False),
    Column("scope", String(16), nullable=False),
    # SHA-256 of 256 random bits: nothing to guess, so no slow hash is needed.
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant),
    Column("last_used_at", Instant),
    Index("ix_tokens_user_id", "user_id"),
)

login_failures = Table(
    "login_failures",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    # `name:` and the name's SHA-256, or `address:192.0.2.7`.
    Column("subject", String(128), nullable=False),
    Column("at", Instant, nullable=False),
    Index("ix_login_failures_subject_at", "subject", "at"),
)

nodes = Table(
    "nodes",
    metadata,
    _id(),
    Column("name", String(63), nullable=False, unique=True),
    Column("engine", String(16), nullable=False),
    Column("url", Text, nullable=False),
    Column("project", String(63), nullable=False),
    Column("pool", String(63), nullable=False),
    Column("network", String(63), nullable=False),
    Column("subnet", String(43), nullable=False),
    Column("address", String(255), nullable=False),
    Column("state", String(16), nullable=False),
    Column("cpus", Integer, nullable=False),
    Column("memory", BigInteger, nullable=False),
    Column("disk", BigInteger, nullable=False),
    Column("disk_used", BigInteger, nullable=False, server_default=text("0")),
    Column("version", String(64), nullable=False),
    Column("boot_id", String(128), nullable=False),
    Column("seen_at", Instant),
    Column("unreachable_since", Instant),
    Column("created_at", Instant, nullable=False),
    # SHA-256 of the token with which the node's agent signs in; None: it has none yet.
    Column("agent_digest", LargeBinary(32)),
    Column("agent_seen_at", Instant),
    Column("agent_version", String(64)),
    # The one connection of an agent that counts: the latest that has said hello.
    Column("agent_connection", String(16)),
    Column("agent_silent_since", Instant),
    # Whether new instances can be given the libraries of the node's NVIDIA driver.
    Column("has_nvidia_driver", Boolean, nullable=False, server_default=text("false")),
    # As a group's.
    Column("idle", JSON(none_as_null=True)),
    Index("uq_nodes_agent_digest", "agent_digest", unique=True),
)

images = Table(
    "images",
    metadata,
    _id(),
    Column("name", String(63), nullable=False, unique=True),
    Column("description", Text, nullable=False),
    Column("pool_size", Integer, nullable=False),
    Column("created_at", Instant, nullable=False),
)

instances = Table(
    "instances",
    metadata,
    _id(),
    _ref("owner_id", "users.id"),
    Column("name", String(63), nullable=False),
    _ref("node_id", "nodes.id"),
    _ref("image_id", "images.id"),
    Column("state", String(16), nullable=False),
    Column("desired", String(16), nullable=False),
    Column("cpus", Integer, nullable=False),
    Column("memory", BigInteger, nullable=False),
    Column("disk", BigInteger, nullable=False),
    Column("processes", Integer, nullable=False),
    Column("ssh_host_key", Text, nullable=False),
    # Sealed with the server's secret key, so that a copy of the database alone is of no use.
    Column("ssh_host_secret", LargeBinary, nullable=False),
    Column("keys_version", Integer, nullable=False, server_default=text("-1")),
    Column("guests_version", Integer, nullable=False, server_default=text("0")),
    Column("drift", JSON(none_as_null=True)),
    Column("error", Text),
    # Whether coming through the gateway starts it when it is stopped.
    Column("wake_on_ssh", Boolean, nullable=False, server_default=true()),
    Column("created_at", Instant, nullable=False),
    UniqueConstraint("owner_id", "name"),
    Index("ix_instances_node_id", "node_id"),
)

# What the owner of an instance lets another person do with it.
shares = Table(
    "shares",
    metadata,
    _id(),
    _ref("instance_id", "instances.id", ondelete="CASCADE"),
    _ref("user_id", "users.id", ondelete="CASCADE"),
    Column("read_only_view", Boolean, nullable=False),
    Column("until", Instant),
    Column("created_at", Instant, nullable=False),
    UniqueConstraint("instance_id", "user_id"),
    Index("ix_shares_user_id", "user_id"),
    Index("ix_shares_until", "until"),
)

ports = Table(
    "ports",
    metadata,
    _id(),
    _ref("instance_id", "instances.id", ondelete="CASCADE"),
    Column("name", String(63), nullable=False),
    Column("protocol", String(3), nullable=False),
    Column("host_port", Integer),
    Column("target_port", Integer, nullable=False),
    Column("state", String(16), nullable=False, server_default=text("'open'")),
    # From the network, from the node's own programs, or in a browser alone.
    Column("reach", String(16), nullable=False, server_default=text("'network'")),
    # Who may open it in a browser, besides the owner and their guests.
    Column("open_to", String(16), nullable=False, server_default=text("'owner'")),
    # What listens there is told the whole path in a browser, not what comes after its prefix.
    Column("keeps_path", Boolean, nullable=False, server_default=false()),
    Column("until", Instant),
    Column("created_at", Instant),
    # Over all nodes, so that a move to another node keeps the number.
    UniqueConstraint("protocol", "host_port"),
    # What is reached in a browser alone takes none.
    CheckConstraint("(host_port IS NULL) = (reach = 'web')", name="ck_ports_host_port"),
    UniqueConstraint("instance_id", "name"),
    Index("uq_ports_target", "instance_id", "protocol", "target_port", unique=True),
    Index("ix_ports_until", "until"),
)

# Whose apps a person opens at hutch's own address, having been told what that means.
trusts = Table(
    "trusts",
    metadata,
    Column("user_id", String(16), ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("owner_id", String(16), ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("created_at", Instant, nullable=False),
)

# Who may open a port that is open to certain people.
port_people = Table(
    "port_people",
    metadata,
    Column("port_id", String(16), ForeignKey("ports.id", ondelete="CASCADE"), primary_key=True),
    Column("user_id", String(16), ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Index("ix_port_people_user_id", "user_id"),
)

containers = Table(
    "containers",
    metadata,
    _id(),
    _ref("node_id", "nodes.id"),
    Column("engine_name", String(63), nullable=False, unique=True),
    Column("address", String(15), nullable=False),
    _ref("image_id", "images.id"),
    Column("role", String(16), nullable=False),
    _ref("instance_id", "instances.id", nullable=True),
    Column("ready", Boolean, nullable=False),
    Column("created_at", Instant, nullable=False),
    UniqueConstraint("node_id", "address"),
    Index("ix_containers_instance_id", "instance_id"),
    Index(
        "uq_containers_current",
        "instance_id",
        unique=True,
        sqlite_where=text("role = 'current'"),
        postgresql_where=text("role = 'current'"),
    ),
)

snapshots = Table(
    "snapshots",
    metadata,
    _id(),
    _ref("instance_id", "instances.id", ondelete="CASCADE"),
    Column("name", String(63), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_at", Instant, nullable=False),
    UniqueConstraint("instance_id", "name"),
)

operations = Table(
    "operations",
    metadata,
    _id(),
    Column("kind", String(32), nullable=False),
    Column("target", String(64), nullable=False),
    Column("owner_id", String(16)),
    Column("params", JSON, nullable=False),
    Column("data", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("step", String(32), nullable=False),
    Column("undoing", Boolean, nullable=False),
    Column("cancel_requested", Boolean, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("run_at", Instant, nullable=False),
    Column("lease_token", String(16)),
    Column("lease_until", Instant),
    Column("progress", Float, nullable=False),
    Column("message", Text, nullable=False),
    Column("error", JSON(none_as_null=True)),
    Column("created_by", String(32), nullable=False),
    Column("request_id", String(64)),
    Column("created_at", Instant, nullable=False),
    Column("finished_at", Instant),
    Index(
        "uq_operations_live_target",
        "target",
        unique=True,
        sqlite_where=text("state IN ('pending', 'running', 'stuck')"),
        postgresql_where=text("state IN ('pending', 'running', 'stuck')"),
    ),
    Index(
        "ix_operations_due",
        "run_at",
        sqlite_where=text("state IN ('pending', 'running')"),
        postgresql_where=text("state IN ('pending', 'running')"),
    ),
    Index("ix_operations_owner_id_created_at", "owner_id", "created_at"),
    Index("ix_operations_created_at", "created_at"),
)

accelerators = Table(
    "accelerators",
    metadata,
    _id(),
    _ref("node_id", "nodes.id"),
    Column("address", String(64), nullable=False),
    Column("uuid", String(64)),
    Column("vendor", String(16), nullable=False),
    Column("model", String(128), nullable=False),
    Column("memory", BigInteger, nullable=False),
    # Device nodes: {"nodes": [[path, major, minor]], "shared": [...]}.
    Column("device_nodes", JSON, nullable=False),
    Column("health", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("withdrawn", Text),
    Column("sharers", Integer, nullable=False, server_default=text("1")),
    # The latest reading, for people to see.
    Column("reading", JSON(none_as_null=True)),
    Column("seen_at", Instant),
    Column("created_at", Instant, nullable=False),
    UniqueConstraint("node_id", "address"),
)

leases = Table(
    "leases",
    metadata,
    _id(),
    # No foreign keys to what may be deleted: the accounts of a lease outlive its instance.
    Column("instance_id", String(16), nullable=False),
    Column("instance_name", String(63), nullable=False),
    _ref("owner_id", "users.id"),
    Column("group_id", String(16)),
    Column("group_name", String(63)),
    _ref("node_id", "nodes.id"),
    Column("count", Integer, nullable=False),
    Column("model", String(128)),
    Column("seconds", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("end_reason", String(16)),
    Column("requested_at", Instant, nullable=False),
    Column("granted_at", Instant),
    Column("active_at", Instant),
    Column("expires_at", Instant),
    Column("ended_at", Instant),
    # {"reason", "at", "due", "notice"}: what was announced to the holder.
    Column("announcement", JSON(none_as_null=True)),
    Column("evidence", JSON(none_as_null=True)),
    Column("explanation", JSON(none_as_null=True)),
    Column("error", Text),
    Index("ix_leases_instance_id", "instance_id"),
    Index("ix_leases_owner_id_requested_at", "owner_id", "requested_at"),
    Index(
        "ix_leases_live",
        "node_id",
        sqlite_where=text("state != 'ended'"),
        postgresql_where=text("state != 'ended'"),
    ),
)

holdings = Table(
    "holdings",
    metadata,
    _id(),
    _ref("lease_id", "leases.id"),
    _ref("accelerator_id", "accelerators.id"),
    # 0 for an exclusive holder; 0 to sharers-1 on one that several may hold.
    Column("slot", Integer, nullable=False),
    Column("since", Instant, nullable=False),
    Column("until", Instant),
    Index("ix_holdings_lease_id", "lease_id"),
    Index("ix_holdings_accelerator_id_since", "accelerator_id", "since"),
    # Nobody else holds it at the same time, whatever the code above does.
    Index(
        "uq_holdings_held",
        "accelerator_id",
        "slot",
        unique=True,
        sqlite_where=text("until IS NULL"),
        postgresql_where=text("until IS NULL"),
    ),
)

# Seconds in which a held accelerator truly computed, by day in UTC.
busy_days = Table(
    "busy_days",
    metadata,
    Column("holding_id", String(16), ForeignKey("holdings.id"), primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("seconds", Float, nullable=False),
)

# Decayed accelerator-seconds of `group:ID` and `user:ID`, as they were at a moment.
decayed_usage = Table(
    "decayed_usage",
    metadata,
    Column("subject", String(32), primary_key=True),
    Column("seconds", Float, nullable=False),
    Column("at", Instant, nullable=False),
)

# What an accelerator did in one span of time: for the history and the verdict of idleness.
samples = Table(
    "samples",
    metadata,
    Column("accelerator_id", String(16), ForeignKey("accelerators.id"), primary_key=True),
    Column("at", Instant, primary_key=True),
    Column("seconds", Float, nullable=False),
    # Mean over the span, 0 to 1, and the most that was seen in it.
    Column("utilisation", Float),
    Column("peak", Float),
    Column("memory_used", BigInteger),
    Column("temperature", Float),
    Column("power", Float),
    Column("processes", JSON, nullable=False),
    Index("ix_samples_at", "at"),
)

# What a node's agent is asked to do about processes that hold an accelerator.
revocations = Table(
    "revocations",
    metadata,
    _id(),
    _ref("node_id", "nodes.id"),
    _ref("lease_id", "leases.id"),
    # holders: name them; ask: tell them to end; end: end them.
    Column("verb", String(16), nullable=False),
    Column("params", JSON, nullable=False),
    Column("result", JSON(none_as_null=True)),
    Column("created_at", Instant, nullable=False),
    Column("done_at", Instant),
    Index(
        "ix_revocations_open",
        "node_id",
        sqlite_where=text("done_at IS NULL"),
        postgresql_where=text("done_at IS NULL"),
    ),
    Index("ix_revocations_lease_id", "lease_id"),
)

notices = Table(
    "notices",
    metadata,
    _id(),
    _ref("user_id", "users.id", ondelete="CASCADE"),
    Column("instance_id", String(16)),
    Column("lease_id", String(16)),
    Column("kind", String(32), nullable=False),
    Column("text", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("delivered_at", Instant),
    Column("read_at", Instant),
    Index("ix_notices_user_id_created_at", "user_id", "created_at"),
)

events = Table(
    "events",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("at", Instant, nullable=False),
    Column("actor_id", String(16)),
    Column("actor_name", String(32), nullable=False),
    Column("action", String(64), nullable=False),
    Column("target_kind", String(32), nullable=False),
    Column("target_id", String(64), nullable=False),
    Column("target_name", String(128), nullable=False),
    Column("owner_id", String(16)),
    Column("result", String(16), nullable=False),
    Column("address", String(64)),
    Column("request_id", String(64)),
    Column("detail", JSON, nullable=False),
    Index("ix_events_at", "at"),
    Index("ix_events_target", "target_kind", "target_id"),
    sqlite_autoincrement=True,
)
