"""When each signing key signs and is removed, and a version of the ring that workers follow."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A default, because rows exist; what it says of them is mended below.
    op.add_column("signing_keys", sa.Column("published_ms", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("signing_keys", sa.Column("activates_ms", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("signing_keys", sa.Column("removes_ms", sa.BigInteger))
    op.execute("UPDATE signing_keys SET published_ms = created_at * 1000, activates_ms = created_at * 1000")
    op.drop_column("signing_keys", "created_at")
    ring = op.create_table(
        "key_ring",
        sa.Column("version", sa.BigInteger, nullable=False),
        # How the servers sign and for how long they publish a key first: commands may have other settings.
        sa.Column("alg", sa.Text),
        sa.Column("publish_ahead_s", sa.BigInteger),
    )
    op.bulk_insert(ring, [{"version": 1}])


def downgrade() -> None:
    # The schema before knows no removal: a removed key would verify again.
    op.execute("DELETE FROM signing_keys WHERE removes_ms IS NOT NULL OR length(wrapped_private) = 0")
    op.add_column("signing_keys", sa.Column("created_at", sa.BigInteger, nullable=False, server_default="0"))
    op.execute("UPDATE signing_keys SET created_at = published_ms / 1000")
    for column in ("published_ms", "activates_ms", "removes_ms"):
        op.drop_column("signing_keys", column)
    op.drop_table("key_ring")
