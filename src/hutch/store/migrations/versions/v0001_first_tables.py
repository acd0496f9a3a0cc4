"""The first tables: people, nodes, images, instances, operations and the audit."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor_id", sa.String(length=16), nullable=True),
        sa.Column("actor_name", sa.String(length=32), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("target_kind", sa.String(length=32), nullable=False),
        sa.Column("target_id", sa.String(length=64), nullable=False),
        sa.Column("target_name", sa.String(length=128), nullable=False),
        sa.Column("owner_id", sa.String(length=16), nullable=True),
        sa.Column("result", sa.String(length=16), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=True),
        sa.Column("request_id", sa.String(length=64), nullable=True),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_at", "events", ["at"])
    op.create_index("ix_events_target", "events", ["target_kind", "target_id"])
    op.create_table(
        "images",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("pool_size", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_images"),
        sa.UniqueConstraint("name", name="uq_images_name"),
    )
    op.create_table(
        "login_failures",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("subject", sa.String(length=128), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_login_failures"),
    )
    op.create_index("ix_login_failures_subject_at", "login_failures", ["subject", "at"])
    op.create_table(
        "nodes",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("engine", sa.String(length=16), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("project", sa.String(length=63), nullable=False),
        sa.Column("pool", sa.String(length=63), nullable=False),
        sa.Column("network", sa.String(length=63), nullable=False),
        sa.Column("subnet", sa.String(length=43), nullable=False),
        sa.Column("address", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("cpus", sa.Integer(), nullable=False),
        sa.Column("memory", sa.BigInteger(), nullable=False),
        sa.Column("disk", sa.BigInteger(), nullable=False),
        sa.Column("disk_used", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("boot_id", sa.String(length=128), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=True),
        sa.Column("unreachable_since", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_nodes"),
        sa.UniqueConstraint("name", name="uq_nodes_name"),
    )
    op.create_table(
        "operations",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("target", sa.String(length=64), nullable=False),
        sa.Column("owner_id", sa.String(length=16), nullable=True),
        sa.Column("params", sa.JSON(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("step", sa.String(length=32), nullable=False),
        sa.Column("undoing", sa.Boolean(), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("run_at", sa.BigInteger(), nullable=False),
        sa.Column("lease_token", sa.String(length=16), nullable=True),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("progress", sa.Float(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("error", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("created_by", sa.String(length=32), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_operations"),
    )
    op.create_index("ix_operations_created_at", "operations", ["created_at"])
    op.create_index(
        "ix_operations_due",
        "operations",
        ["run_at"],
        sqlite_where=sa.text("state IN ('pending', 'running')"),
        postgresql_where=sa.text("state IN ('pending', 'running')"),
    )
    op.create_index("ix_operations_owner_id_created_at", "operations", ["owner_id", "created_at"])
    op.create_index(
        "uq_operations_live_target",
        "operations",
        ["target"],
        unique=True,
        sqlite_where=sa.text("state IN ('pending', 'running', 'stuck')"),
        postgresql_where=sa.text("state IN ('pending', 'running', 'stuck')"),
    )
    op.create_table(
        "users",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=True),
        sa.Column("disabled_at", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("keys_version", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("quota_instances", sa.Integer(), nullable=True),
        sa.Column("quota_cpus", sa.Integer(), nullable=True),
        sa.Column("quota_memory", sa.BigInteger(), nullable=True),
        sa.Column("quota_disk", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("name", name="uq_users_name"),
    )
    op.create_table(
        "instances",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("owner_id", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("node_id", sa.String(length=16), nullable=False),
        sa.Column("image_id", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("desired", sa.String(length=16), nullable=False),
        sa.Column("cpus", sa.Integer(), nullable=False),
        sa.Column("memory", sa.BigInteger(), nullable=False),
        sa.Column("disk", sa.BigInteger(), nullable=False),
        sa.Column("processes", sa.Integer(), nullable=False),
        sa.Column("ssh_host_key", sa.Text(), nullable=False),
        sa.Column("ssh_host_secret", sa.LargeBinary(), nullable=False),
        sa.Column("keys_version", sa.Integer(), server_default=sa.text("-1"), nullable=False),
        sa.Column("drift", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_instances_image_id"),
        sa.ForeignKeyConstraint(["node_id"], ["nodes.id"], name="fk_instances_node_id"),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name="fk_instances_owner_id"),
        sa.PrimaryKeyConstraint("id", name="pk_instances"),
        sa.UniqueConstraint("owner_id", "name", name="uq_instances_owner_id_name"),
    )
    op.create_index("ix_instances_node_id", "instances", ["node_id"])
    op.create_table(
        "ssh_keys",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("user_id", sa.String(length=16), nullable=False),
        sa.Column("title", sa.String(length=64), nullable=False),
        sa.Column("type", sa.String(length=64), nullable=False),
        sa.Column("public", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_ssh_keys_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_ssh_keys"),
        sa.UniqueConstraint("fingerprint", name="uq_ssh_keys_fingerprint"),
    )
    op.create_index("ix_ssh_keys_user_id", "ssh_keys", ["user_id"])
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("user_id", sa.String(length=16), nullable=False),
        sa.Column("title", sa.String(length=64), nullable=False),
        sa.Column("scope", sa.String(length=16), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("last_used_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_tokens_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sa.UniqueConstraint("digest", name="uq_tokens_digest"),
    )
    op.create_index("ix_tokens_user_id", "tokens", ["user_id"])
    op.create_table(
        "containers",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("node_id", sa.String(length=16), nullable=False),
        sa.Column("engine_name", sa.String(length=63), nullable=False),
        sa.Column("address", sa.String(length=15), nullable=False),
        sa.Column("image_id", sa.String(length=16), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("instance_id", sa.String(length=16), nullable=True),
        sa.Column("ready", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_containers_image_id"),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name="fk_containers_instance_id"
        ),
        sa.ForeignKeyConstraint(["node_id"], ["nodes.id"], name="fk_containers_node_id"),
        sa.PrimaryKeyConstraint("id", name="pk_containers"),
        sa.UniqueConstraint("engine_name", name="uq_containers_engine_name"),
        sa.UniqueConstraint("node_id", "address", name="uq_containers_node_id_address"),
    )
    op.create_index("ix_containers_instance_id", "containers", ["instance_id"])
    op.create_index(
        "uq_containers_current",
        "containers",
        ["instance_id"],
        unique=True,
        sqlite_where=sa.text("role = 'current'"),
        postgresql_where=sa.text("role = 'current'"),
    )
    op.create_table(
        "ports",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("instance_id", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("protocol", sa.String(length=3), nullable=False),
        sa.Column("host_port", sa.Integer(), nullable=False),
        sa.Column("target_port", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name="fk_ports_instance_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_ports"),
        sa.UniqueConstraint("instance_id", "name", name="uq_ports_instance_id_name"),
        sa.UniqueConstraint("protocol", "host_port", name="uq_ports_protocol_host_port"),
    )
    op.create_table(
        "snapshots",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("instance_id", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name="fk_snapshots_instance_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_snapshots"),
        sa.UniqueConstraint("instance_id", "name", name="uq_snapshots_instance_id_name"),
    )


def downgrade() -> None:
    for table in (
        "snapshots",
        "ports",
        "containers",
        "tokens",
        "ssh_keys",
        "instances",
        "users",
        "operations",
        "nodes",
        "login_failures",
        "images",
        "events",
    ):
        op.drop_table(table)
