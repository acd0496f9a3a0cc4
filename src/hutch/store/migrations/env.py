"""What Alembic runs: the migrations, in the transaction that `hutch.store.migrate` has opened."""

from alembic import context

from hutch.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite can roll its schema back as PostgreSQL can, once the driver is kept from committing.
    transactional_ddl=True,
    # SQLite alters most things by copying the table.
    render_as_batch=True,
)
context.run_migrations()
