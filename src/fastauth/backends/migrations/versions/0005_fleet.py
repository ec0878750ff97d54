"""Leases for what one node at a time does, and what the schema says about itself."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None
TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "leases",
        sa.Column("name", TEXT, primary_key=True),
        sa.Column("holder", TEXT, nullable=False),
        sa.Column("until_ms", sa.BigInteger, nullable=False),
    )
    about = op.create_table(
        "schema_info",
        # Each migration says here which one it is.
        sa.Column("revision", sa.Text, nullable=False),
        # The oldest schema whose programs work with this one: a later migration that only adds leaves it as it is.
        sa.Column("works_since", sa.Text, nullable=False),
        # The installation that is being copied into this database; null once it is whole.
        sa.Column("moving_from", sa.Text),
    )
    op.bulk_insert(about, [{"revision": "0005", "works_since": "0005"}])


def downgrade() -> None:
    for table in ("schema_info", "leases"):
        op.drop_table(table)
