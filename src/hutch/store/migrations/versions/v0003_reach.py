"""Reaching instances: with whom they are shared, and ports of one's own."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "shares",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("instance_id", sa.String(length=16), nullable=False),
        sa.Column("user_id", sa.String(length=16), nullable=False),
        sa.Column("read_only_view", sa.Boolean(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name="fk_shares_instance_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_shares_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_shares"),
        sa.UniqueConstraint("instance_id", "user_id", name="uq_shares_instance_id_user_id"),
    )
    op.create_index("ix_shares_user_id", "shares", ["user_id"])
    op.create_index("ix_shares_until", "shares", ["until"])
    op.add_column(
        "instances",
        sa.Column("guests_version", sa.Integer(), server_default=sa.text("0"), nullable=False),
    )
    for column in (
        sa.Column("state", sa.String(length=16), server_default=sa.text("'open'"), nullable=False),
        sa.Column("is_local", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column(
            "open_to", sa.String(length=16), server_default=sa.text("'owner'"), nullable=False
        ),
        sa.Column("until", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=True),
    ):
        op.add_column("ports", column)
    op.create_index(
        "uq_ports_target", "ports", ["instance_id", "protocol", "target_port"], unique=True
    )
    op.create_index("ix_ports_until", "ports", ["until"])
    op.create_table(
        "port_people",
        sa.Column("port_id", sa.String(length=16), nullable=False),
        sa.Column("user_id", sa.String(length=16), nullable=False),
        sa.ForeignKeyConstraint(
            ["port_id"], ["ports.id"], name="fk_port_people_port_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_port_people_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("port_id", "user_id", name="pk_port_people"),
    )
    op.create_index("ix_port_people_user_id", "port_people", ["user_id"])


def downgrade() -> None:
    op.drop_table("port_people")
    op.drop_index("ix_ports_until", table_name="ports")
    op.drop_index("uq_ports_target", table_name="ports")
    for column in ("created_at", "until", "open_to", "is_local", "state"):
        op.drop_column("ports", column)
    op.drop_column("instances", "guests_version")
    op.drop_table("shares")
