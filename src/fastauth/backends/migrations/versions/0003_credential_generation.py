"""How often a user's password was replaced: what is bound to an earlier one is void."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("users", sa.Column("credential_generation", sa.BigInteger, nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("users", "credential_generation")
