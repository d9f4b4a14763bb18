"""What Alembic runs: the migrations, on the connection that `stores/sql.py` hands over, in its transaction."""

from alembic import context

from history.stores.sql import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
