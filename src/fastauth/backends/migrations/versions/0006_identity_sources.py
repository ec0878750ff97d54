"""Accounts whose password somebody else checks, and the claims that such a source adds to a session's tokens."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None
TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("users", sa.Column("source", TEXT, nullable=False, server_default="local"))
    op.add_column("users", sa.Column("subject", TEXT))
    op.create_index("ix_users_identity", "users", ["source", "subject"], unique=True)
    op.add_column("sessions", sa.Column("claims", sa.LargeBinary))
    # Programs of 0005 write none of these and read none; a user without a password has to log in on a newer node.
    op.execute("UPDATE schema_info SET revision = '0006', works_since = '0005'")


def downgrade() -> None:
    op.drop_column("sessions", "claims")
    op.drop_index("ix_users_identity", "users")
    op.drop_column("users", "subject")
    op.drop_column("users", "source")
    op.execute("UPDATE schema_info SET revision = '0005', works_since = '0005'")
