"""Accelerators: groups, leases and who holds what, telemetry, and what people are told."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "decayed_usage",
        sa.Column("subject", sa.String(length=32), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("subject", name="pk_decayed_usage"),
    )
    op.create_table(
        "groups",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("guarantee", sa.Integer(), nullable=False),
        sa.Column("limit", sa.Integer(), nullable=True),
        sa.Column("weight", sa.Float(), nullable=False),
        sa.Column("idle", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_groups"),
        sa.UniqueConstraint("name", name="uq_groups_name"),
    )
    op.create_table(
        "accelerators",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("node_id", sa.String(length=16), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("uuid", sa.String(length=64), nullable=True),
        sa.Column("vendor", sa.String(length=16), nullable=False),
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("memory", sa.BigInteger(), nullable=False),
        sa.Column("device_nodes", sa.JSON(), nullable=False),
        sa.Column("health", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("withdrawn", sa.Text(), nullable=True),
        sa.Column("sharers", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("reading", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("seen_at", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["node_id"], ["nodes.id"], name="fk_accelerators_node_id"),
        sa.PrimaryKeyConstraint("id", name="pk_accelerators"),
        sa.UniqueConstraint("node_id", "address", name="uq_accelerators_node_id_address"),
    )
    op.create_table(
        "leases",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("instance_id", sa.String(length=16), nullable=False),
        sa.Column("instance_name", sa.String(length=63), nullable=False),
        sa.Column("owner_id", sa.String(length=16), nullable=False),
        sa.Column("group_id", sa.String(length=16), nullable=True),
        sa.Column("group_name", sa.String(length=63), nullable=True),
        sa.Column("node_id", sa.String(length=16), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(length=128), nullable=True),
        sa.Column("seconds", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("end_reason", sa.String(length=16), nullable=True),
        sa.Column("requested_at", sa.BigInteger(), nullable=False),
        sa.Column("granted_at", sa.BigInteger(), nullable=True),
        sa.Column("active_at", sa.BigInteger(), nullable=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("announcement", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("evidence", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("explanation", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["node_id"], ["nodes.id"], name="fk_leases_node_id"),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name="fk_leases_owner_id"),
        sa.PrimaryKeyConstraint("id", name="pk_leases"),
    )
    op.create_index("ix_leases_instance_id", "leases", ["instance_id"])
    op.create_index(
        "ix_leases_live",
        "leases",
        ["node_id"],
        sqlite_where=sa.text("state != 'ended'"),
        postgresql_where=sa.text("state != 'ended'"),
    )
    op.create_index("ix_leases_owner_id_requested_at", "leases", ["owner_id", "requested_at"])
    op.create_table(
        "memberships",
        sa.Column("user_id", sa.String(length=16), nullable=False),
        sa.Column("group_id", sa.String(length=16), nullable=False),
        sa.Column("is_manager", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["group_id"], ["groups.id"], name="fk_memberships_group_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_memberships_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", name="pk_memberships"),
    )
    op.create_index("ix_memberships_group_id", "memberships", ["group_id"])
    op.create_table(
        "notices",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("user_id", sa.String(length=16), nullable=False),
        sa.Column("instance_id", sa.String(length=16), nullable=True),
        sa.Column("lease_id", sa.String(length=16), nullable=True),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("delivered_at", sa.BigInteger(), nullable=True),
        sa.Column("read_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_notices_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_notices"),
    )
    op.create_index("ix_notices_user_id_created_at", "notices", ["user_id", "created_at"])
    op.create_table(
        "holdings",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("lease_id", sa.String(length=16), nullable=False),
        sa.Column("accelerator_id", sa.String(length=16), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["accelerator_id"], ["accelerators.id"], name="fk_holdings_accelerator_id"
        ),
        sa.ForeignKeyConstraint(["lease_id"], ["leases.id"], name="fk_holdings_lease_id"),
        sa.PrimaryKeyConstraint("id", name="pk_holdings"),
    )
    op.create_index("ix_holdings_accelerator_id_since", "holdings", ["accelerator_id", "since"])
    op.create_index("ix_holdings_lease_id", "holdings", ["lease_id"])
    op.create_index(
        "uq_holdings_held",
        "holdings",
        ["accelerator_id", "slot"],
        unique=True,
        sqlite_where=sa.text("until IS NULL"),
        postgresql_where=sa.text("until IS NULL"),
    )
    op.create_table(
        "revocations",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("node_id", sa.String(length=16), nullable=False),
        sa.Column("lease_id", sa.String(length=16), nullable=False),
        sa.Column("verb", sa.String(length=16), nullable=False),
        sa.Column("params", sa.JSON(), nullable=False),
        sa.Column("result", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("done_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["lease_id"], ["leases.id"], name="fk_revocations_lease_id"),
        sa.ForeignKeyConstraint(["node_id"], ["nodes.id"], name="fk_revocations_node_id"),
        sa.PrimaryKeyConstraint("id", name="pk_revocations"),
    )
    op.create_index("ix_revocations_lease_id", "revocations", ["lease_id"])
    op.create_index(
        "ix_revocations_open",
        "revocations",
        ["node_id"],
        sqlite_where=sa.text("done_at IS NULL"),
        postgresql_where=sa.text("done_at IS NULL"),
    )
    op.create_table(
        "samples",
        sa.Column("accelerator_id", sa.String(length=16), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("utilisation", sa.Float(), nullable=True),
        sa.Column("peak", sa.Float(), nullable=True),
        sa.Column("memory_used", sa.BigInteger(), nullable=True),
        sa.Column("temperature", sa.Float(), nullable=True),
        sa.Column("power", sa.Float(), nullable=True),
        sa.Column("processes", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["accelerator_id"], ["accelerators.id"], name="fk_samples_accelerator_id"
        ),
        sa.PrimaryKeyConstraint("accelerator_id", "at", name="pk_samples"),
    )
    op.create_index("ix_samples_at", "samples", ["at"])
    op.create_table(
        "busy_days",
        sa.Column("holding_id", sa.String(length=16), nullable=False),
        sa.Column("day", sa.String(length=10), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["holding_id"], ["holdings.id"], name="fk_busy_days_holding_id"),
        sa.PrimaryKeyConstraint("holding_id", "day", name="pk_busy_days"),
    )
    op.add_column("nodes", sa.Column("agent_digest", sa.LargeBinary(length=32), nullable=True))
    op.add_column("nodes", sa.Column("agent_seen_at", sa.BigInteger(), nullable=True))
    op.add_column("nodes", sa.Column("agent_version", sa.String(length=64), nullable=True))
    op.add_column("nodes", sa.Column("agent_connection", sa.String(length=16), nullable=True))
    op.add_column("nodes", sa.Column("agent_silent_since", sa.BigInteger(), nullable=True))
    op.add_column(
        "nodes",
        sa.Column(
            "has_nvidia_driver", sa.Boolean(), server_default=sa.text("false"), nullable=False
        ),
    )
    op.add_column("nodes", sa.Column("idle", sa.JSON(none_as_null=True), nullable=True))
    op.create_index("uq_nodes_agent_digest", "nodes", ["agent_digest"], unique=True)
    op.add_column("users", sa.Column("quota_accelerators", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("users", "quota_accelerators")
    op.drop_index("uq_nodes_agent_digest", table_name="nodes")
    for column in (
        "idle",
        "has_nvidia_driver",
        "agent_silent_since",
        "agent_connection",
        "agent_version",
        "agent_seen_at",
        "agent_digest",
    ):
        op.drop_column("nodes", column)
    for table in (
        "busy_days",
        "samples",
        "revocations",
        "holdings",
        "notices",
        "memberships",
        "leases",
        "accelerators",
        "groups",
        "decayed_usage",
    ):
        op.drop_table(table)
