"""Users and signing keys."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Names are compared and ordered byte by byte, as SQLite does it, whatever the locale of the database is.
TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("sub", TEXT, primary_key=True),
        sa.Column("name", TEXT, nullable=False, unique=True),
        sa.Column("skeleton", TEXT, nullable=False, unique=True),
        sa.Column("password_hash", TEXT, nullable=False),
        # What a check of the hash costs, roughly: a login with an unknown name takes as long as the slowest.
        sa.Column("hash_cost_us", sa.BigInteger, nullable=False, index=True),
        sa.Column("scope", TEXT),
        sa.Column("disabled", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "signing_keys",
        sa.Column("kid", TEXT, primary_key=True),
        sa.Column("alg", TEXT, nullable=False),
        sa.Column("public_jwk", TEXT, nullable=False),
        sa.Column("wrapped_private", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    for table in ("signing_keys", "users"):
        op.drop_table(table)
