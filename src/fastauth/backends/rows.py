"""The columns of the tables that every database has, in the order in which rows are read and written."""

from collections.abc import Sequence
from typing import Any, Final

from fastauth.domain.clients import Client
from fastauth.domain.password_schemes import cost_us
from fastauth.domain.ports import StoredKey
from fastauth.domain.sessions import Session
from fastauth.domain.users import User

Row = Sequence[Any]

USER: Final = (
    "sub, name, password_hash, scope, disabled, credential_generation, created_at, updated_at, source, subject"
)
NEW_USER: Final = f"{USER}, skeleton, hash_cost_us"
CLIENT: Final = (
    "client_id, name, secret_hash, old_secret_hash, old_secret_until, grants, scope, introspect, disabled, "
    "created_at, updated_at"
)
SESSION: Final = (
    "sid, sub, client_id, scope, auth_time, expires_at, ends_at, tokens_until, "
    "token_hash, parent_hash, sealed_successor, claims, rotated_at_ms, pace_us"
)
KEY: Final = "kid, alg, public_jwk, wrapped_private, published_ms, activates_ms, removes_ms"


def user_of(row: Row) -> User:
    """In: the columns ``USER``."""
    sub, name, password_hash, scope, disabled, credential_generation, created_at_s, updated_at_s, source, subject = row
    return User(
        sub=sub,
        name=name,
        password_hash=password_hash,
        scope=scope,
        disabled=bool(disabled),
        credential_generation=credential_generation,
        created_at_s=created_at_s,
        updated_at_s=updated_at_s,
        source=source,
        subject=subject,
    )


def row_of_user(user: User, skeleton: str) -> tuple[object, ...]:
    """Out: the columns ``NEW_USER``."""
    return (
        user.sub,
        user.name,
        user.password_hash,
        user.scope,
        user.disabled,
        user.credential_generation,
        user.created_at_s,
        user.updated_at_s,
        user.source,
        user.subject,
        skeleton,
        cost_us(user.password_hash) if user.password_hash else 0,
    )


def client_of(row: Row) -> Client:
    """In: the columns ``CLIENT``."""
    client_id, name, secret_hash, old_secret_hash, old_until_s, grants, scope, introspect, *rest = row
    disabled, created_at_s, updated_at_s = rest
    return Client(
        client_id=client_id,
        name=name,
        secret_hash=secret_hash,
        old_secret_hash=old_secret_hash,
        old_secret_until_s=old_until_s,
        grants=tuple(grants.split()),
        scope=scope,
        introspect=introspect,
        disabled=bool(disabled),
        created_at_s=created_at_s,
        updated_at_s=updated_at_s,
    )


def row_of_client(client: Client) -> tuple[object, ...]:
    """Out: the columns ``CLIENT``."""
    return (
        client.client_id,
        client.name,
        client.secret_hash,
        client.old_secret_hash,
        client.old_secret_until_s,
        " ".join(client.grants),
        client.scope,
        client.introspect,
        client.disabled,
        client.created_at_s,
        client.updated_at_s,
    )


def session_of(row: Row) -> Session:
    """In: the columns ``SESSION``."""
    sid, sub, client_id, scope, auth_time_s, expires_at_s, ends_at_s, tokens_until_s, *of_tokens = row
    token_hash, parent_hash, sealed_successor, claims, rotated_at_ms, pace_us = of_tokens
    return Session(
        sid=sid,
        sub=sub,
        client_id=client_id,
        scope=scope,
        auth_time_s=auth_time_s,
        expires_at_s=expires_at_s,
        ends_at_s=ends_at_s,
        tokens_until_s=tokens_until_s,
        token_hash=token_hash,
        parent_hash=parent_hash,
        sealed_successor=sealed_successor,
        claims=claims,
        rotated_at_ms=rotated_at_ms,
        pace_us=pace_us,
    )


def row_of_session(session: Session) -> tuple[object, ...]:
    """Out: the columns ``SESSION``."""
    return (
        session.sid,
        session.sub,
        session.client_id,
        session.scope,
        session.auth_time_s,
        session.expires_at_s,
        session.ends_at_s,
        session.tokens_until_s,
        session.token_hash,
        session.parent_hash,
        session.sealed_successor,
        session.claims,
        session.rotated_at_ms,
        session.pace_us,
    )


def key_of(row: Row) -> StoredKey:
    """In: the columns ``KEY``."""
    kid, alg, public_jwk, wrapped, published_ms, activates_ms, removes_ms = row
    return StoredKey(
        kid=kid,
        alg=alg,
        public_jwk=public_jwk,
        wrapped_private=wrapped,
        published_ms=published_ms,
        activates_ms=activates_ms,
        removes_ms=removes_ms,
    )


def row_of_key(key: StoredKey) -> tuple[object, ...]:
    """Out: the columns ``KEY``."""
    return (
        key.kid,
        key.alg,
        key.public_jwk,
        key.wrapped_private,
        key.published_ms,
        key.activates_ms,
        key.removes_ms,
    )
