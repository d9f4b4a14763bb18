"""The table of documents."""

import sqlalchemy as sql
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "documents",
        sql.Column("owner", sql.String(64), primary_key=True),
        sql.Column("id", sql.String(32), primary_key=True),
        sql.Column("version", sql.Integer, nullable=False),
        sql.Column("text", sql.Text, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("documents")
