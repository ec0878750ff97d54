"""What ``deploy/`` and its runbook say of fastauth is true of it; their own linters are run by ``deploy/check.sh``."""

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click
import pytest
import yaml

from fastauth.cli import cli
from fastauth.server.settings import Settings, SettingsRefused, load_settings
from tests.proxy_servers import DEPLOY

ROOT: Final = DEPLOY.parent
RUNBOOK: Final = ROOT / "docs" / "operating.md"
FILES: Final = sorted(path for path in DEPLOY.rglob("*") if path.is_file() and "secrets" not in path.parent.name)
VERSION: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
KUBERNETES: Final = [
    document
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
]
COMPOSE: Final = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((DEPLOY / "compose").glob("*.yaml"))}
DOCKERFILE: Final = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")


def unit() -> dict[str, list[tuple[str, str]]]:
    """The systemd unit: what stands in each section, in order."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for line in (DEPLOY / "systemd" / "fastauth.service").read_text().splitlines():
        if line.startswith("["):
            entries = sections.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            name, _, value = line.partition("=")
            entries.append((name, value))
    return sections


def kubernetes(kind: str) -> dict[str, Any]:
    """The one object of a kind."""
    (found,) = [document for document in KUBERNETES if document["kind"] == kind]
    return dict(found)


def environment_file(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))


def image_environment() -> dict[str, str]:
    """``ENV`` of the last stage."""
    (line,) = re.findall(r"^ENV (.*)$", DOCKERFILE, re.MULTILINE)
    return dict(item.split("=", 1) for item in shlex.split(line) if item.startswith("FASTAUTH_"))


def environments() -> Iterator[tuple[str, dict[str, str]]]:
    """Every whole environment of a server, by where it stands."""
    image = image_environment()
    for name, document in COMPOSE.items():
        for service, said in document["services"].items():
            if said["image"].startswith("fastauth:"):
                yield f"compose/{name}/{service}", {**image, **said["environment"]}
    yield "kubernetes", {**image, **kubernetes("ConfigMap")["data"]}
    text = (DEPLOY / "systemd" / "fastauth.env").read_text()
    own = {"FASTAUTH_DATA_DIR": "/var/lib/fastauth"}
    yield "systemd, embedded", {**own, **environment_file(text)}
    yield "systemd, of a fleet", {**own, **environment_file(text.replace("\n#FASTAUTH", "\nFASTAUTH"))}


ENVIRONMENTS: Final = dict(environments())


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``compose/secrets.sh`` makes."""
    folder = tmp_path_factory.mktemp("compose")
    script = shutil.copy(DEPLOY / "compose" / "secrets.sh", folder)
    subprocess.run(["sh", script], check=True, timeout=30)
    again = subprocess.run(["sh", script], check=False, timeout=30, capture_output=True, text=True)
    assert again.returncode == 1  # it would cost every key
    assert "is there already" in again.stderr
    return folder / "secrets"


def settings_of(environment: Mapping[str, str], secrets: Path) -> Settings:
    """With the secrets that were made in place of those that are mounted."""
    there = dict(environment)
    for name, value in environment.items():
        if name.endswith("_FILE"):
            made = secrets / Path(value).name.replace(".", "_")
            if not made.exists():
                made.write_text("redis://redis.example:6379/0\n")
            there[name] = str(made)
    return load_settings(None, there, {})


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_environment_is_a_good_configuration(name: str, secrets: Path) -> None:
    settings = settings_of(ENVIRONMENTS[name], secrets)
    assert settings.issuer
    assert settings.proxy.trusted or "embedded" in name
    assert settings.proxy.header == "x-forwarded-for"
    is_of_fleet = "embedded" not in name
    assert (settings.sqlite_path is None) == is_of_fleet
    assert (settings.redis_url is not None) == is_of_fleet
    assert (settings.master_key is not None) == is_of_fleet  # an embedded one makes its own


@pytest.mark.parametrize("path", [*FILES, RUNBOOK], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_setting_that_is_named_anywhere_is_one_that_fastauth_knows(path: Path) -> None:
    named = re.findall(r"FASTAUTH_[A-Z0-9_]*[A-Z0-9]", path.read_text())
    assert {name for name in named if is_unknown(name)} == set()


def is_unknown(variable: str) -> bool:
    try:
        load_settings(None, {variable: ""}, {})
    except SettingsRefused as refusal:
        return any("no such setting" in problem for problem in refusal.problems)
    return False


def test_a_setting_that_fastauth_does_not_know_would_be_found() -> None:
    assert is_unknown("FASTAUTH_DRAIN_SECONDS")
    assert not is_unknown("FASTAUTH_DRAIN_S")


def has_command(words: list[str]) -> bool:
    """Whether the command line has what these words begin with: a command, its subcommand, each option."""
    command: click.Command | None = cli
    while isinstance(command, click.Group) and words:
        if words[0] in ("--version", "--help"):
            return True
        command = command.get_command(click.Context(command), words.pop(0))
    options = {option for one in (command.params if command else []) for option in (*one.opts, *one.secondary_opts)}
    return command is not None and {word for word in words if word.startswith("--")} <= options


def commands() -> Iterator[tuple[str, str]]:
    """Every command of fastauth, by where it stands."""
    (entry,) = re.findall(r"^ENTRYPOINT (.*)$", DOCKERFILE, re.MULTILINE)
    (default,) = re.findall(r"^CMD (.*)$", DOCKERFILE, re.MULTILINE)
    yield "Dockerfile", " ".join([*yaml.safe_load(entry), *yaml.safe_load(default)])
    for document in COMPOSE.values():
        for service, said in document["services"].items():
            if said["image"].startswith("fastauth:") and "command" in said:
                yield f"compose {service}", " ".join(["fastauth", *said["command"]])
    for kind in ("Deployment", "Job"):
        for container in kubernetes(kind)["spec"]["template"]["spec"]["containers"]:
            yield kind, " ".join(["fastauth", *container["args"]])
    for name, value in unit()["Service"]:
        if name.startswith("Exec"):
            yield name, value
    text = RUNBOOK.read_text()
    for found in re.findall(r"^fastauth ([a-z].*?)(?:\s+#.*)?$", text, re.MULTILINE):
        yield "docs/operating.md", f"fastauth {found}"
    for found in re.findall(r"`fastauth ([a-z][^`]*)`", text):
        yield "docs/operating.md", f"fastauth {found}"


@pytest.mark.parametrize(("where", "command"), sorted(set(commands())))
def test_every_command_is_one_that_the_command_line_has(where: str, command: str) -> None:
    words = shlex.split(command)
    assert Path(words[0]).name == "fastauth"
    assert has_command(words[1:]), f"{where}: {command}"


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def test_whoever_stops_a_server_waits_for_its_drain_and_its_grace(secrets: Path) -> None:
    def longest_s(name: str) -> float:
        settings = settings_of(ENVIRONMENTS[name], secrets)
        return settings.drain_s + settings.grace_s

    for name, document in COMPOSE.items():
        for service, said in document["services"].items():
            if said["image"].startswith("fastauth:") and said.get("command") != ["migrate"]:
                assert seconds(said["stop_grace_period"]) >= longest_s(f"compose/{name}/{service}") + 5
    pod = kubernetes("Deployment")["spec"]["template"]["spec"]
    before_s = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= before_s + longest_s("kubernetes") + 5
    service_of = dict(unit()["Service"])
    assert service_of["KillMode"] == "mixed"
    assert seconds(service_of["TimeoutStopSec"]) >= longest_s("systemd, embedded") + 5


def test_a_drain_is_seen_by_every_check_before_it_is_over(secrets: Path) -> None:
    drain_s = min(settings_of(environment, secrets).drain_s for environment in ENVIRONMENTS.values())
    haproxy = re.search(r"check inter (\d+)ms fall (\d+)", (DEPLOY / "haproxy" / "haproxy.cfg").read_text())
    assert haproxy is not None
    assert int(haproxy[1]) / 1000 * int(haproxy[2]) < drain_s / 2
    envoy = yaml.safe_load((DEPLOY / "envoy" / "envoy.yaml").read_text())
    (check,) = envoy["static_resources"]["clusters"][0]["health_checks"]
    assert seconds(check["interval"]) * check["unhealthy_threshold"] < drain_s / 2
    probe = kubernetes("Deployment")["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] < drain_s


def test_the_image_its_user_and_its_port_are_the_same_everywhere() -> None:
    user = re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)[-1]
    port = int(image_environment()["FASTAUTH_PORT"])
    for kind in ("Deployment", "Job"):
        pod = kubernetes(kind)["spec"]["template"]["spec"]
        context = pod["securityContext"]
        assert (str(context["runAsUser"]), str(context["fsGroup"])) == user
        assert pod["containers"][0]["image"] == f"fastauth:{VERSION}"
        assert pod["enableServiceLinks"] is False
    assert kubernetes("Deployment")["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"] == port
    for document in COMPOSE.values():
        for said in document["services"].values():
            if said["image"].startswith("fastauth:"):
                assert said["image"] == f"fastauth:{VERSION}"
            for mount in said.get("tmpfs", []):
                assert "uid" not in mount or f"uid={user[0]},gid={user[1]}" in mount


def test_the_selectors_of_kubernetes_select_the_pods_of_the_deployment() -> None:
    labels = kubernetes("Deployment")["spec"]["template"]["metadata"]["labels"].items()
    for selector in (
        kubernetes("Deployment")["spec"]["selector"]["matchLabels"],
        kubernetes("Service")["spec"]["selector"],
        kubernetes("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        kubernetes("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels
    job = kubernetes("Job")["spec"]["template"]["metadata"]["labels"].items()
    assert not kubernetes("Service")["spec"]["selector"].items() <= job


def test_no_address_of_a_registry_stands_in_an_image_and_every_image_has_a_version() -> None:
    images = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    images += [said["image"] for document in COMPOSE.values() for said in document["services"].values()]
    for image in images:
        name, _, version = image.partition(":")
        assert "/" not in name
        assert version not in ("", "latest")


def test_the_health_check_of_the_image_fails_where_nobody_answers() -> None:
    (check,) = re.findall(r"^HEALTHCHECK .*?CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    environment = {**os.environ, "FASTAUTH_PORT": "1"}
    done = subprocess.run(yaml.safe_load(check), env=environment, capture_output=True, check=False, timeout=30)
    assert done.returncode == 1


def test_the_runbook_knows_what_to_do_about_every_event_of_the_log() -> None:
    contract = (ROOT / "docs" / "contract.md").read_text()
    (row,) = [line for line in contract.splitlines() if line.startswith("| log events |")]
    runbook = RUNBOOK.read_text()
    assert {event for event in re.findall(r"`(\w+)`", row) if f"`{event}`" not in runbook} == set()
