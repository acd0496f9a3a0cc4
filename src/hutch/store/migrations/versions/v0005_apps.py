"""Apps: what is told the whole path, and whose apps people trust at hutch's own address."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "ports", sa.Column("keeps_path", sa.Boolean(), server_default=sa.false(), nullable=False)
    )
    op.create_table(
        "trusts",
        sa.Column("user_id", sa.String(length=16), nullable=False),
        sa.Column("owner_id", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_trusts_user_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["users.id"], name="fk_trusts_owner_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", "owner_id", name="pk_trusts"),
    )


def downgrade() -> None:
    op.drop_table("trusts")
    op.drop_column("ports", "keeps_path")
