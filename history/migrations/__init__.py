"""The schema's history, for Alembic; `stores/sql.py` runs it when it opens a database."""
