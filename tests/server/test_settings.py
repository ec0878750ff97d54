"""Settings: every key of the contract with its default, where values come from, and every problem at once."""

import base64
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from fastauth.domain.hosts import is_loopback
from fastauth.server.settings import (
    SECRETS,
    Settings,
    SettingsRefused,
    known_keys,
    load_settings,
)
from tests.cases import each

MASTER_KEY = base64.b64encode(bytes(range(32))).decode()

# The contract's table: key -> (default, another value as text, what it becomes).
BUILT: dict[str, tuple[Any, str, Any]] = {
    "issuer": (None, "https://auth.example", "https://auth.example"),
    "host": ("127.0.0.1", "::1", "::1"),
    "port": (8000, "9000", 9000),
    "workers": (1, "4", 4),
    "data_dir": ("./var", "/srv/fastauth", "/srv/fastauth"),
    "master_key": (None, MASTER_KEY, MASTER_KEY),
    "database_url": (None, "sqlite:////srv/a.db", "sqlite:////srv/a.db"),
    "drain_s": (3.0, "0.5", 0.5),
    "grace_s": (30.0, "5", 5.0),
    "silent_worker_s": (10.0, "off", "off"),
    "worker_memory_mib": (1_024, "off", "off"),
    "allow_insecure": (False, "1", True),
    "tokens.alg": ("RS256", "Ed25519", "Ed25519"),
    "tokens.access_ttl_s": (3600, "60", 60),
    "tokens.expiry_jitter_s": (0, "30", 30),
    "tokens.refresh_idle_s": (14 * 86_400, "60", 60),
    "tokens.refresh_max_s": (90 * 86_400, "1209600", 14 * 86_400),
    "tokens.refresh_grace_s": (10, "0", 0),
    "tokens.audience": (None, "https://api.example", "https://api.example"),
    "tokens.user_scope": ("user", "a b", "a b"),
    "tokens.jwks_max_age_s": (300, "10", 10),
    "tokens.publish_ahead_s": (None, "600", 600),
    "tokens.rotate_every_s": (90 * 86_400, "off", "off"),
    "passwords.profile": ("owasp", "rfc9106-low-memory", "rfc9106-low-memory"),
    "database.pool_size": (10, "4", 4),
    "database.acquire_timeout_s": (0.25, "1.5", 1.5),
    "database.statement_timeout_s": (0.4, "2.0", 2.0),
    "database.prepared_statements": (100, "0", 0),
    "database.pgbouncer": (False, "1", True),
    "otel.endpoint": ("off", "http://127.0.0.1:4318", "http://127.0.0.1:4318"),
    "otel.sample_ratio": (0.01, "1", 1.0),
    "rehearsal.targets": (None, "https://auth.example", "https://auth.example"),
    "audit.file": ("stderr", "/audit.log", "/audit.log"),
    "revocation.max_stale_s": ("off", "30", 30.0),
    "redis_url": (None, "redis://127.0.0.1:6379/1", "redis://127.0.0.1:6379/1"),
    "redis_prefix": ("fastauth", "auth:eu-1", "auth:eu-1"),
    "limits.login_per_ip": ("30/m burst 60", "20/m burst 40 shadow", "20/m burst 40 shadow"),
    "limits.login_per_user": ("10/m burst 10", "off", "off"),
    "limits.login_global": ("1000/s burst 1000", "5/s leased", "5/s leased"),
    "limits.token_per_client": ("100/s burst 200", "5/s exact", "5/s exact"),
    "limits.refresh_per_ip": ("60/m burst 120", "off", "off"),
    "limits.refresh_per_family": ("60/m burst 120", "10/m shadow", "10/m shadow"),
    "limits.verify_per_ip": ("off", "100/s", "100/s"),
    "limits.max_buckets": (1 << 20, "2048", 2048),
    "limits.known_device_ttl_s": (90 * 86_400, "0", 0),
    "limits.ratelimit_fields": (False, "1", True),
    "proxy.trusted": (None, "10.0.0.0/8, ::1", "10.0.0.0/8, ::1"),
    "proxy.header": ("x-forwarded-for", "forwarded", "forwarded"),
    "identity.chain": ("local", "local", "local"),
    "identity.routes": (None, "svc-*=local", "svc-*=local"),
    "identity.provision": (True, "0", False),
    "identity.deadline_s": (5.0, "3", 3.0),
    "identity.cache_ttl_s": (0.0, "30", 30.0),
    "identity.http_url": (None, "https://id.example/check", "https://id.example/check"),
    "identity.http_timeout_s": (2.0, "1.5", 1.5),
    "identity.http_claims": (None, "department,roles", "department,roles"),
    "identity.http_bearer": (None, "sesame", "sesame"),
    "identity.http_pool_size": (16, "8", 8),
    "identity.ldap_start_tls": (True, "0", False),
    "identity.ldap_base_dn": (None, "dc=example", "dc=example"),
    "identity.ldap_user_filter": ("(uid={username})", "(mail={username})", "(mail={username})"),
    "identity.ldap_subject_attribute": ("entryUUID", "objectGUID", "objectGUID"),
    "identity.ldap_group_base_dn": (None, "ou=groups", "ou=groups"),
    "identity.ldap_group_filter": ("(member={dn})", "(memberUid={username})", "(memberUid={username})"),
    "identity.ldap_claims": (None, "mail", "mail"),
    "identity.ldap_timeout_s": (2.0, "1", 1.0),
    "identity.ldap_pool_size": (4, "2", 2),
    "breaker.window_s": (10.0, "20", 20.0),
    "breaker.min_calls": (10, "5", 5),
    "breaker.failure_rate": (0.5, "0.25", 0.25),
    "breaker.timeouts_in_a_row": (5, "3", 3),
    "breaker.open_s": (5.0, "2", 2.0),
    "lanes.login_deadline_s": (3.0, "5", 5.0),
    "lanes.login_burst_s": (2.0, "2.5", 2.5),
    "lanes.login_target_s": (0.02, "0.1", 0.1),
    "lanes.renew_burst_s": (2.0, "4", 4.0),
    "lanes.renew_target_s": (1.0, "0.2", 0.2),
    "lanes.hash_memory_mib": ("auto", "256", 256),
    "lanes.hash_nice": (5, "0", 0),
    "lanes.loop_policy": ("batch", "inherit", "inherit"),
    "lanes.tickets_per_s": (1_000, "0", 0),
    "lanes.handler_timeout_s": (10.0, "20", 20.0),
    "metrics.allow": ("loopback", "10.1.0.0/16", "10.1.0.0/16"),
}
FILES = {"tls.cert_file", "tls.key_file"}
# Those that go together with others: see the problems of identity sources below.
TOGETHER = {
    "identity.http_ca_file",
    "identity.http_cert_file",
    "identity.http_key_file",
    "identity.ldap_url",
    "identity.ldap_ca_file",
    "identity.ldap_bind_dn",
    "identity.ldap_bind_password",
    "identity.ldap_group_scopes",
}


def variable(key: str) -> str:
    return "FASTAUTH_" + key.upper().replace(".", "__")


def value_of(settings: Settings, key: str) -> Any:
    found: Any = settings
    for name in key.split("."):
        found = getattr(found, name)
    return found


def load(environment: dict[str, str] | None = None, toml: Path | None = None, **flags: object) -> Settings:
    return load_settings(toml, environment or {}, flags)


def problems_of(environment: dict[str, str] | None = None, toml: Path | None = None, **flags: object) -> list[str]:
    with pytest.raises(SettingsRefused) as refused:
        load(environment, toml, **flags)
    assert refused.value.problems
    assert str(refused.value).startswith(refused.value.problems[0])
    return refused.value.problems


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "fastauth.toml"


# ------------------------------------------------------------------ the contract's table


def test_the_known_keys_are_exactly_those_of_the_contract() -> None:
    assert set(known_keys()) == BUILT.keys() | FILES | TOGETHER
    assert {
        "master_key",
        "database_url",
        "redis_url",
        "identity.http_bearer",
        "identity.ldap_bind_password",
    } == SECRETS


@each("key", [*BUILT, *FILES])
def test_without_any_configuration_a_key_has_its_default(key: str) -> None:
    default = {
        **{key: entry[0] for key, entry in BUILT.items()},
        "tls.cert_file": None,
        "tls.key_file": None,
    }
    assert value_of(load(), key) == default[key]


@each("key", BUILT)
def test_a_key_is_read_from_its_variable(key: str) -> None:
    _, text, value = BUILT[key]
    found = value_of(load({variable(key): text}), key)
    assert found == value
    assert type(found) is type(value)


@each("key", [key for key, entry in BUILT.items() if entry[0] is not None])
def test_a_key_takes_its_default_spelled_out(key: str) -> None:
    default = BUILT[key][0]
    assert value_of(load({variable(key): str(default)}), key) == default


@pytest.mark.parametrize("key", BUILT)
def test_a_key_is_read_from_toml(toml: Path, key: str) -> None:
    _, _, value = BUILT[key]
    section, _, name = key.rpartition(".")
    text = str(value).lower() if isinstance(value, bool | int | float) else f'"{value}"'
    toml.write_text((f"[{section}]\n" if section else "") + f"{name} = {text}\n")
    assert value_of(load(toml=toml), key) == value


def write_certificate(cert: Path, key: Path) -> None:
    """A certificate for nobody, signed by itself."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    start, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, private.public_key(), 1, start, end)
    cert.write_bytes(builder.sign(private, hashes.SHA256()).public_bytes(Encoding.PEM))
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


LDAP = {
    "FASTAUTH_IDENTITY__CHAIN": "local,ldap",
    "FASTAUTH_IDENTITY__LDAP_URL": "ldaps://ldap.example",
    "FASTAUTH_IDENTITY__LDAP_BASE_DN": "dc=example",
}
IDENTITY_PROBLEMS: dict[str, tuple[dict[str, str], str]] = {
    "an unknown source": ({"CHAIN": "local,saml"}, "identity.chain"),
    "a source twice": ({"CHAIN": "local,local"}, "identity.chain"),
    "an empty chain": ({"CHAIN": ","}, "identity.chain"),
    "http without a URL": ({"CHAIN": "http"}, "identity.http_url"),
    "ldap without a URL": ({"CHAIN": "ldap"}, "identity.ldap_url"),
    "passwords in the clear": ({"HTTP_URL": "http://id.example/"}, "identity.http_url"),
    "a user in the URL": ({"HTTP_URL": "https://hunter2:x@id.example/"}, "identity.http_url"),
    "a route to nowhere": ({"ROUTES": "*=http"}, "identity.routes"),
    "a route without a pattern": ({"ROUTES": "local"}, "identity.routes"),
    "a claim with a space": ({"HTTP_CLAIMS": "a b"}, "identity.http_claims"),
    "a certificate without its key": (
        {"HTTP_URL": "https://id.example/", "HTTP_CERT_FILE": "cert.pem"},
        "identity: http_cert_file",
    ),
    "an authority that is no file": (
        {"HTTP_URL": "https://id.example/", "HTTP_CA_FILE": "/nowhere.pem"},
        "identity: http_ca_file",
    ),
    "a bearer with a line end": ({"HTTP_URL": "https://id.example/", "HTTP_BEARER": "a\nb"}, "identity.http_bearer"),
    "another protocol": ({"LDAP_URL": "http://ldap.example"}, "identity.ldap_url"),
    "a directory in the clear": ({"LDAP_URL": "ldap://ldap.example", "LDAP_START_TLS": "0"}, "identity.ldap_start_tls"),
    "no base": ({"LDAP_URL": "ldaps://ldap.example", "LDAP_BASE_DN": ""}, "identity.ldap_base_dn"),
    "a DN without its password": ({**LDAP, "LDAP_BIND_DN": "cn=x"}, "identity: ldap_bind_dn"),
    "a filter that finds everybody": ({**LDAP, "LDAP_USER_FILTER": "(uid=*)"}, "identity.ldap_user_filter"),
    "a group filter for everybody": ({**LDAP, "LDAP_GROUP_FILTER": "(cn=*)"}, "identity.ldap_group_filter"),
    "scopes without DNs": ({**LDAP, "LDAP_GROUP_SCOPES": "admin"}, "identity.ldap_group_scopes"),
    "scopes without a base": ({**LDAP, "LDAP_GROUP_SCOPES": "admin=cn=x"}, "identity.ldap_group_base_dn"),
}


@each("case", IDENTITY_PROBLEMS)
def test_what_cannot_be_meant_of_identity_sources_is_named(case: str) -> None:
    chosen, key = IDENTITY_PROBLEMS[case]
    prefix = "FASTAUTH_IDENTITY__"
    found = problems_of({name if name.startswith(prefix) else prefix + name: value for name, value in chosen.items()})
    assert any(key in problem for problem in found), found
    assert not any("hunter2" in problem for problem in found)


def test_tls_files_are_read_from_the_environment_and_must_both_be_there(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    write_certificate(cert, key)
    both = {"FASTAUTH_TLS__CERT_FILE": str(cert), "FASTAUTH_TLS__KEY_FILE": str(key)}
    settings = load(both)
    assert (settings.tls.cert_file, settings.tls.key_file) == (str(cert), str(key))
    assert settings.base_url == "https://127.0.0.1:8000"
    for one in both:
        assert any("go together" in problem for problem in problems_of({one: both[one]}))
    key.write_text("no key")
    assert any(problem.startswith("tls: ") for problem in problems_of(both))
    key.write_text(cert.read_text())
    assert any("not a PEM certificate" in problem for problem in problems_of(both))
    key.unlink()
    assert any("no such file" in problem for problem in problems_of(both))


# ------------------------------------------------------------------ where values come from


def test_toml_is_overridden_by_the_environment_and_that_by_flags(toml: Path) -> None:
    toml.write_text('port = 1001\nworkers = 2\nhost = "::1"\n[tokens]\naccess_ttl_s = 61\nuser_scope = "t"\n')
    environment = {"FASTAUTH_PORT": "1002", "FASTAUTH_WORKERS": "3", "FASTAUTH_TOKENS__ACCESS_TTL_S": "62"}
    settings = load(environment, toml, port=1003, workers=None)
    assert (settings.port, settings.workers, settings.host) == (1003, 3, "::1")
    assert (settings.tokens.access_ttl_s, settings.tokens.user_scope) == (62, "t")


def test_other_variables_are_none_of_our_business() -> None:
    assert (
        load({"PATH": "/bin", "PORT": "x", "fastauth_port": "x", "XFASTAUTH_PORT": "x", "FASTAUTHPORT": "x"}).port
        == 8000
    )


def test_variables_that_are_no_settings_are_passed_over() -> None:
    assert load({"FASTAUTH_CONFIG": "x", "FASTAUTH_PURE_PYTHON": "1", "FASTAUTH_CFLAGS": "-O1"}).port == 8000


def test_what_kubernetes_sets_beside_a_service_named_fastauth_is_ignored() -> None:
    environment = {
        "FASTAUTH_SERVICE_HOST": "10.0.0.1",
        "FASTAUTH_SERVICE_PORT": "8000",
        "FASTAUTH_SERVICE_PORT_HTTP": "8000",
        "FASTAUTH_SERVICE_PORT_HTTP_METRICS": "9000",
        "FASTAUTH_PORT": "tcp://10.0.0.1:8000",
        "FASTAUTH_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "FASTAUTH_PORT_8000_TCP_PROTO": "tcp",
        "FASTAUTH_PORT_8000_TCP_PORT": "8000",
        "FASTAUTH_PORT_8000_TCP_ADDR": "10.0.0.1",
    }
    settings = load(environment)
    assert (settings.port, settings.host) == (8000, "127.0.0.1")


def test_toml_has_types_of_its_own_and_the_environment_has_text(toml: Path) -> None:
    assert load({"FASTAUTH_PORT": "9000"}).port == 9000
    for line in (
        'port = "9000"',
        "port = 9000.5",
        "port = true",
        "host = 5",
        'allow_insecure = "1"',
        "data_dir = ['x']",
    ):
        toml.write_text(line + "\n")
        assert len(problems_of(toml=toml)) == 1


@each(("text", "value"), [("1", True), ("true", True), ("0", False), ("false", False)])
def test_a_yes_or_no_is_spelled_in_the_usual_ways(text: str, value: bool) -> None:
    assert load({"FASTAUTH_ALLOW_INSECURE": text}).allow_insecure is value


# ------------------------------------------------------------------ secrets and their files


@pytest.mark.parametrize("key", ["master_key", "database_url"])
def test_a_secret_may_come_from_a_file_that_the_environment_names(key: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{BUILT[key][1]}\r\n")
    assert value_of(load({variable(key) + "_FILE": str(file)}), key) == BUILT[key][1]


def test_a_secret_may_come_from_a_file_that_toml_names(toml: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(MASTER_KEY)
    toml.write_text(f'master_key_file = "{tmp_path / "secret"}"\n')
    assert load(toml=toml).master_key == MASTER_KEY


def test_every_secret_has_a_twin_and_nothing_else_has() -> None:
    for key in SECRETS:
        assert any("No such file" in problem for problem in problems_of({variable(key) + "_FILE": "/no/such/file"}))
    assert "no such setting" in problems_of({"FASTAUTH_ISSUER_FILE": "/etc/hostname"})[0]


def test_a_secret_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(MASTER_KEY)
    problems = problems_of({"FASTAUTH_MASTER_KEY": MASTER_KEY, "FASTAUTH_MASTER_KEY_FILE": str(file)})
    assert any("twice" in problem for problem in problems)


def test_a_secret_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    binary, empty = tmp_path / "binary", tmp_path / "empty"
    binary.write_bytes(b"\xff\xfe\xfd")
    empty.touch()
    for path in (binary, empty, tmp_path):
        assert "FASTAUTH_MASTER_KEY_FILE" in problems_of({"FASTAUTH_MASTER_KEY_FILE": str(path)})[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FASTAUTH_MASTER_KEY", "hunter2"),
        ("FASTAUTH_MASTER_KEY", "hunter2é"),
        ("FASTAUTH_MASTER_KEY", "hunter2" * 1000),
        ("FASTAUTH_DATABASE_URL", "postgresql://user:hunter2@db/x"),
        ("FASTAUTH_DATABASE_URL", "hunter2" * 1000),
        ("FASTAUTH_REDIS_URL", "http://:hunter2@redis/0"),
        ("FASTAUTH_REDIS_URL", "redis://:hunter2@redis:hunter2/0"),
        ("FASTAUTH_REDIS_URL", "redis://:hunter2@/0"),
        ("FASTAUTH_REDIS_URL", "redis+sentinel://:hunter2@redis"),
        ("FASTAUTH_MASTER_KEYS", "hunter2"),
        ("FASTAUTH_REDIS_PASSWORD", "hunter2"),
    ],
)
def test_no_problem_ever_repeats_a_secret(name: str, value: str, toml: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text(value)
    toml.write_text(f'{name.removeprefix("FASTAUTH_").lower()} = "{value}"\n')
    told = problems_of({name: value}) + problems_of(toml=toml) + problems_of({f"{name}_FILE": str(file)})
    assert "hunter2" not in " ".join(told)
    with pytest.raises(SettingsRefused) as refused:
        load({name: value})
    assert "hunter2" not in f"{refused.value!r} {refused.value.args}"


def test_settings_that_are_printed_show_no_secret() -> None:
    settings = load({"FASTAUTH_MASTER_KEY": MASTER_KEY, "FASTAUTH_DATABASE_URL": "sqlite:////srv/hunter2.db"})
    assert MASTER_KEY not in f"{settings!r} {settings} {[settings]}"
    assert "hunter2" not in repr(settings)


# ------------------------------------------------------------------ problems


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("FASTAUTH_ISUER", "FASTAUTH_ISSUER"),
        ("FASTAUTH_WORKER", "FASTAUTH_WORKERS"),
        ("FASTAUTH_TOKENS__ACCESS_TTL", "FASTAUTH_TOKENS__ACCESS_TTL_S"),
        ("FASTAUTH_TOKENS_ACCESS_TTL_S", "FASTAUTH_TOKENS__ACCESS_TTL_S"),
        ("FASTAUTH_LIMIT__LOGIN_PER_IP", "FASTAUTH_LIMITS__LOGIN_PER_IP"),
        ("FASTAUTH_MASTERKEY_FILE", "FASTAUTH_MASTER_KEY_FILE"),
    ],
)
def test_an_unknown_variable_is_refused_and_the_nearest_known_one_named(given: str, meant: str) -> None:
    (problem,) = problems_of({given: "x"})
    assert problem.startswith(given)
    assert problem.endswith(meant)


def test_an_unknown_key_in_toml_is_refused_and_the_nearest_known_one_named(toml: Path) -> None:
    toml.write_text('isuer = "x"\n[tokens]\naccess_ttl = 5\n[token]\nalg = "RS256"\n')
    first, second, third = problems_of(toml=toml)
    assert first.startswith(f"{toml}: isuer")
    assert first.endswith("issuer")
    assert second.endswith("tokens.access_ttl_s")
    assert third.endswith("tokens.alg")


@each(
    ("values", "key"),
    [
        ({"PUBLISH_AHEAD_S": "300"}, "tokens.publish_ahead_s"),
        ({"PUBLISH_AHEAD_S": "1", "JWKS_MAX_AGE_S": "1"}, "tokens.publish_ahead_s"),
        ({"ROTATE_EVERY_S": "7200", "PUBLISH_AHEAD_S": "7200"}, "tokens.rotate_every_s"),
        ({"ROTATE_EVERY_S": "3599"}, "tokens.rotate_every_s"),
        ({"ROTATE_EVERY_S": "never"}, "tokens.rotate_every_s"),
        ({"EXPIRY_JITTER_S": "60", "ACCESS_TTL_S": "60"}, "tokens.expiry_jitter_s"),
        ({"ALG": "HS256"}, "tokens.alg"),
        ({"ALG": "EdDSA"}, "tokens.alg"),
    ],
)
def test_a_rotation_that_could_not_work_is_refused(values: dict[str, str], key: str) -> None:
    (problem,) = problems_of({f"FASTAUTH_TOKENS__{name}": value for name, value in values.items()})
    assert f"{key}: " in problem


def test_a_key_is_published_for_longer_than_the_jwks_is_kept_and_clocks_differ() -> None:
    tokens = load_settings(None, {"FASTAUTH_TOKENS__JWKS_MAX_AGE_S": "100"}, {}).tokens
    assert tokens.publishes_ahead_s == 100 + 60 + 2
    assert tokens.rotation_period_s == 90 * 86_400
    assert load_settings(None, {"FASTAUTH_TOKENS__ROTATE_EVERY_S": "off"}, {}).tokens.rotation_period_s is None


def test_a_key_that_is_like_no_other_gets_no_guess() -> None:
    (problem,) = problems_of({"FASTAUTH_ZZZZZZ": "x"})
    assert problem == "FASTAUTH_ZZZZZZ: no such setting"


def test_a_section_in_place_of_a_value_and_a_value_in_place_of_a_section_are_refused(toml: Path) -> None:
    for text in ("tokens = 5\n", "[issuer]\nx = 1\n", "[tokens.alg]\nx = 1\n", "[[tokens]]\nalg = 1\n"):
        toml.write_text(text)
        assert problems_of(toml=toml)


def test_a_postgresql_url_needs_a_host_a_database_and_an_issuer() -> None:
    issuer = {"FASTAUTH_ISSUER": "https://auth.example"}
    for url in (
        "postgresql://db/fastauth",
        "postgres://user:p%40ss@[::1]:5433/fastauth?sslmode=verify-full",
        "postgresql:///fastauth?host=/run/postgresql",
    ):
        assert load({"FASTAUTH_DATABASE_URL": url, **issuer}).sqlite_path is None
        (problem,) = problems_of({"FASTAUTH_DATABASE_URL": url})
        assert problem.startswith("issuer: must be set")
    for url in (
        "postgresql://",
        "postgres://hunter2@",
        "postgresql://db",
        "postgresql://db:0/x",
        "postgresql://db:x/x",
    ):
        (problem,) = problems_of({"FASTAUTH_DATABASE_URL": url, **issuer})
        assert problem.startswith("database_url: ")
        assert "hunter2" not in problem


def test_every_problem_is_reported_at_once(toml: Path) -> None:
    toml.write_text('colour = "blue"\nport = 0\n[tokens]\nalg = "ES512"\n')
    environment = {
        "FASTAUTH_WORKERS": "many",
        "FASTAUTH_ISSUER": "ftp://x",
        "FASTAUTH_MASTER_KEY": "short",
        "FASTAUTH_DATABASE_URL": "mysql://x",
        "FASTAUTH_TOKENS__USER_SCOPE": "a  b",
        "FASTAUTH_PASSWORDS__PROFILE": "cheapest-for-tests",
        "FASTAUTH_UNKNOWN": "x",
    }
    problems = problems_of(environment, toml)
    expected = {"colour", "port", "tokens.alg", "workers", "issuer", "master_key", "database_url", "tokens.user_scope"}
    expected |= {"passwords.profile", "FASTAUTH_UNKNOWN"}
    for name in expected:
        assert sum(f"{name}: " in problem for problem in problems) == 1, (name, problems)
    assert len(problems) == 10
    assert all("\n" not in problem for problem in problems)
    assert "9 more" in str(SettingsRefused(problems))


@each(
    ("name", "values"),
    [
        ("FASTAUTH_PORT", ["0", "65536", "-1", "", "x", "80.5", "8000 ", "0x50"]),
        ("FASTAUTH_WORKERS", ["0", "65", "two", ""]),
        ("FASTAUTH_DRAIN_S", ["-1", "nan", "inf", "x", "99999"]),
        ("FASTAUTH_GRACE_S", ["0", "nan", "99999"]),
        ("FASTAUTH_TOKENS__ACCESS_TTL_S", ["0", "86401", "-5", "1.5", "1h", ""]),
        ("FASTAUTH_TOKENS__USER_SCOPE", ["", " ", "a  b", 'a"b', "é"]),
        ("FASTAUTH_TOKENS__AUDIENCE", ["x" * 513]),
        ("FASTAUTH_PASSWORDS__PROFILE", ["", "md5", "OWASP"]),
        ("FASTAUTH_ALLOW_INSECURE", ["", "maybe", "2"]),
        ("FASTAUTH_HOST", [""]),
        ("FASTAUTH_DATA_DIR", [""]),
        ("FASTAUTH_DATABASE_URL", ["", "sqlite://x.db", "sqlite:", "/srv/x.db"]),
        ("FASTAUTH_DATABASE__POOL_SIZE", ["0", "501", "x"]),
        ("FASTAUTH_DATABASE__STATEMENT_TIMEOUT_S", ["0", "61", "nan"]),
        ("FASTAUTH_REVOCATION__MAX_STALE_S", ["1", "0", "-1", "nan", "x", "86401"]),
        ("FASTAUTH_MASTER_KEY", ["", "short", "A" * 42, "A" * 64, "é" * 43]),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_name(name: str, values: list[str]) -> None:
    key = name.removeprefix("FASTAUTH_").lower().replace("__", ".")
    for value in values:
        problems = problems_of({name: value})
        assert len(problems) == 1, (value, problems)
        assert key in problems[0]


def test_a_file_that_is_missing_or_no_toml_is_one_problem(toml: Path, tmp_path: Path) -> None:
    assert len(problems_of(toml=toml)) == 1
    assert len(problems_of(toml=tmp_path)) == 1
    for content in (b"port = ", b"\xff\xfe", b"port 8000", b"port = 1\nport = 2\n", b"[tokens\n"):
        toml.write_bytes(content)
        (problem,) = problems_of(toml=toml)
        assert str(toml) in problem


def test_a_flag_out_of_bounds_is_named_as_a_flag() -> None:
    (problem,) = problems_of(port=0)
    assert problem.startswith("--port")


def test_the_cheapest_profile_needs_a_second_word() -> None:
    cheapest = {"FASTAUTH_PASSWORDS__PROFILE": "cheapest-for-tests"}
    assert "FASTAUTH_ALLOW_INSECURE" in problems_of(cheapest)[0]
    assert load({**cheapest, "FASTAUTH_ALLOW_INSECURE": "1"}).passwords.profile == "cheapest-for-tests"


# ------------------------------------------------------------------ the issuer


def test_the_issuer_is_the_address_unless_it_is_set() -> None:
    assert load().issuer_url == "http://127.0.0.1:8000"
    assert load({"FASTAUTH_PORT": "9000", "FASTAUTH_HOST": "::1"}).issuer_url == "http://[::1]:9000"
    assert load({"FASTAUTH_ISSUER": "https://auth.example/x"}).issuer_url == "https://auth.example/x"


def test_the_audience_is_the_issuer_unless_it_is_set() -> None:
    assert load({"FASTAUTH_ISSUER": "https://auth.example"}).audience == "https://auth.example"
    assert load({"FASTAUTH_TOKENS__AUDIENCE": "api"}).audience == "api"


ANYWHERE = "0.0.0.0"  # noqa: S104 - a setting, not bound to


@each("host", [ANYWHERE, "::", "192.0.2.1", "auth.example", "2001:db8::1", "127.0.0.1.example"])
def test_a_host_that_others_can_reach_needs_an_issuer(host: str) -> None:
    (problem,) = problems_of({"FASTAUTH_HOST": host})
    assert "FASTAUTH_ISSUER" in problem
    assert load({"FASTAUTH_HOST": host, "FASTAUTH_ISSUER": "https://auth.example"}).host == host


@each("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_none(host: str) -> None:
    assert is_loopback(host)
    assert load({"FASTAUTH_HOST": host}).host == host


@each("issuer", ["https://auth.example", "http://127.0.0.1:8000", "https://a.example/tenant", "https://[::1]:8"])
def test_an_issuer_is_an_http_url_and_is_kept_exactly(issuer: str) -> None:
    assert load({"FASTAUTH_ISSUER": issuer}).issuer_url == issuer


@each(
    "issuer",
    [
        *("", "auth.example", "ftp://auth.example", "https://", "https:auth.example", "//auth.example", "https:///x"),
        *("https://auth.example?x=1", "https://auth.example#x", "https://auth.example?", "https://auth.example#"),
        *(
            "https://auth.example\n",
            "https://auth.example ",
            " https://auth.example",
            "https://auth .example",
            "https://a\tb",
        ),
        *("http://[::1", "https://[zz]/", "https://auth.example:99999", "https://auth.example:port"),
    ],
)
def test_any_other_issuer_is_refused(issuer: str) -> None:
    (problem,) = problems_of({"FASTAUTH_ISSUER": issuer})
    assert "issuer" in problem


@each("text", ["auth.example", "https://auth.example/path", "https://a.example, ftp://b.example"])
def test_a_target_of_rehearsals_is_an_origin(text: str) -> None:
    (problem,) = problems_of({"FASTAUTH_REHEARSAL__TARGETS": text})
    assert problem.startswith("rehearsal.targets: each must be like http://")


def test_passwords_of_a_rehearsal_do_not_cross_the_network_in_clear() -> None:
    (problem,) = problems_of({"FASTAUTH_REHEARSAL__TARGETS": "http://auth.example"})
    assert problem.startswith("rehearsal.targets: over http")
    for more in ({"FASTAUTH_ALLOW_INSECURE": "1"}, {"FASTAUTH_REHEARSAL__TARGETS": "http://127.0.0.1:8000"}):
        assert load({"FASTAUTH_REHEARSAL__TARGETS": "http://auth.example", **more}).rehearsal.origins


def test_targets_of_rehearsals_are_a_list_in_toml_and_separated_by_commas_in_the_environment(toml: Path) -> None:
    toml.write_text('[rehearsal]\ntargets = ["https://a.example", "https://b.example:8443"]\n')
    both = ["https://a.example", "https://b.example:8443"]
    assert load(toml=toml).rehearsal.origins == both
    assert load({"FASTAUTH_REHEARSAL__TARGETS": ", ".join(both)}).rehearsal.origins == both
    assert load().rehearsal.origins == []


# ------------------------------------------------------------------ paths


def test_the_database_is_in_the_data_directory_unless_it_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load().sqlite_path == tmp_path / "var" / "fastauth.db"
    assert load(data_dir="/srv/x").sqlite_path == Path("/srv/x/fastauth.db")
    assert load({"FASTAUTH_DATABASE_URL": "sqlite:////srv/a.db"}).sqlite_path == Path("/srv/a.db")
    assert load({"FASTAUTH_DATABASE_URL": "sqlite:///a.db"}).sqlite_path == tmp_path / "a.db"


def test_the_documentation_names_every_key() -> None:
    text = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    for key in known_keys():
        name = key.rpartition(".")[2].upper()
        assert re.search(rf"_{name}\b", text), key
