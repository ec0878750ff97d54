"""Sessions with their refresh tokens, clients, and the news that every worker follows."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# Names are compared and ordered byte by byte, as SQLite does it, whatever the locale of the database is.
TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "sessions",
        sa.Column("sid", TEXT, primary_key=True),
        sa.Column("sub", TEXT, nullable=False, index=True),
        sa.Column("client_id", TEXT, nullable=False),
        sa.Column("scope", TEXT, nullable=False),
        sa.Column("auth_time", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("ends_at", sa.BigInteger, nullable=False, index=True),
        sa.Column("tokens_until", sa.BigInteger, nullable=False),
        sa.Column("token_hash", sa.LargeBinary, nullable=False),
        sa.Column("parent_hash", sa.LargeBinary),
        sa.Column("sealed_successor", sa.LargeBinary),
        sa.Column("rotated_at_ms", sa.BigInteger, nullable=False),
        sa.Column("pace_us", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,  # found by sid alone: one tree instead of two
    )
    has_successor = sa.text("sealed_successor IS NOT NULL")
    op.create_index(
        "ix_sessions_to_wipe",
        "sessions",
        ["rotated_at_ms"],
        sqlite_where=has_successor,
        postgresql_where=has_successor,
    )
    op.create_table(
        "clients",
        sa.Column("client_id", TEXT, primary_key=True),
        sa.Column("name", TEXT, nullable=False, unique=True),
        sa.Column("secret_hash", sa.LargeBinary, nullable=False),
        sa.Column("old_secret_hash", sa.LargeBinary),
        sa.Column("old_secret_until", sa.BigInteger, nullable=False),
        sa.Column("grants", TEXT, nullable=False),
        sa.Column("scope", TEXT),
        sa.Column("introspect", TEXT, nullable=False),
        sa.Column("disabled", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "news",
        # Never used twice, not even after the newest rows were purged: workers remember how far they have read.
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("issued_until", sa.BigInteger, nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False, index=True),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    for table in ("news", "clients", "sessions"):
        op.drop_table(table)
