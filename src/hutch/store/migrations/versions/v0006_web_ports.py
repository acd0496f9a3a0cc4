"""From where a port is reached; what is reached in a browser alone takes no host port."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_ports = sa.table(
    "ports",
    sa.column("id", sa.String()),
    sa.column("is_local", sa.Boolean()),
    sa.column("reach", sa.String()),
)
_people = sa.table("port_people", sa.column("port_id", sa.String()))


def upgrade() -> None:
    op.add_column(
        "ports",
        sa.Column(
            "reach", sa.String(length=16), server_default=sa.text("'network'"), nullable=False
        ),
    )
    op.execute(_ports.update().where(_ports.c.is_local).values(reach="node"))
    # SQLite changes a column only by making the table anew.
    with op.batch_alter_table("ports") as table:
        table.alter_column("host_port", existing_type=sa.Integer(), nullable=True)
        table.drop_column("is_local")
        table.create_check_constraint("ck_ports_host_port", "(host_port IS NULL) = (reach = 'web')")


def downgrade() -> None:
    # The older version knows no port without a host port. While tables change, SQLite does not
    # delete what refers to a row with it.
    web = sa.select(_ports.c.id).where(_ports.c.reach == "web")
    op.execute(_people.delete().where(_people.c.port_id.in_(web)))
    op.execute(_ports.delete().where(_ports.c.reach == "web"))
    op.add_column(
        "ports", sa.Column("is_local", sa.Boolean(), server_default=sa.false(), nullable=False)
    )
    op.execute(_ports.update().where(_ports.c.reach == "node").values(is_local=sa.true()))
    with op.batch_alter_table("ports") as table:
        table.drop_constraint("ck_ports_host_port", type_="check")
        table.alter_column("host_port", existing_type=sa.Integer(), nullable=False)
        table.drop_column("reach")
