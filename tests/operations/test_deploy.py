"""The files in deploy/ name settings, folders and scripts that exist. No image is built here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.running.web_server import DEPLOY, dockerfile_command
from voiceproject.commands.template import CommandTemplate
from voiceproject.settings import COVER_INFER_PLACEHOLDERS, COVER_SEPARATE_PLACEHOLDERS, env

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]


def settings_of(text: str) -> list[str]:
    return re.findall(r"^([A-Z][A-Z0-9_]+)=", text, re.MULTILINE)


def test_the_example_environment_names_only_settings_that_exist() -> None:
    names = settings_of((DEPLOY / "compose.env.example").read_text(encoding="utf-8"))
    assert {"DATABASE_URL", "REDIS_URL", "STORAGE_URL", "SECRET_KEY"} <= set(names) <= env.names


def test_compose_sets_only_settings_that_exist() -> None:
    for name in ("web", "worker", "gpu-worker"):
        assert set(SERVICES[name].get("environment", {})) <= env.names


@pytest.mark.parametrize(
    ("name", "placeholders"),
    [
        ("COVER_SEPARATE_CMD_TEMPLATE", COVER_SEPARATE_PLACEHOLDERS),
        ("COVER_INFER_CMD_TEMPLATE", COVER_INFER_PLACEHOLDERS),
    ],
)
def test_the_gpu_worker_s_commands_are_well_formed(name: str, placeholders: frozenset[str]) -> None:
    template = CommandTemplate(SERVICES["gpu-worker"]["environment"][name], placeholders)
    assert template.check() == []


def test_the_images_copy_what_is_there_and_run_what_is_there() -> None:
    for line in re.findall(r"^COPY (.+) \S+$", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE):
        for source in line.split():
            assert (ROOT / source).exists(), source
    script = next(part for part in SERVICES["speech"]["command"] if part.endswith(".py"))
    assert (ROOT / script.removeprefix("/app/")).is_file()


def test_a_build_sees_what_it_copies_and_nothing_else() -> None:
    seen = re.findall(r"^!(.+)$", (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    copied = re.findall(r"^COPY (.+) \S+$", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(seen) == sorted(source for line in copied for source in line.split())


def test_the_proxy_alone_is_open_to_the_outside_and_trusted() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["proxy"]
    (config,) = COMPOSE["networks"]["default"]["ipam"]["config"]
    assert SERVICES["web"]["environment"]["TRUSTED_PROXIES"] == config["subnet"]
    assert set(SERVICES["proxy"]["environment"]) == set(
        re.findall(r"{\$(VOICE_\w+)", (DEPLOY / "Caddyfile").read_text(encoding="utf-8"))
    ) - {"VOICE_UPSTREAM"}


def test_what_is_ours_runs_as_nobody_special_and_writes_only_to_its_volume() -> None:
    user = re.findall(r"^USER (\w+)$", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)[-1]
    # Debian has groups of these names, and useradd refuses a user like them.
    assert user not in ("root", "voice", "audio", "video")
    assert (
        user == re.findall(r"^USER (\w+)$", (DEPLOY / "Dockerfile.gpu").read_text(encoding="utf-8"), re.MULTILINE)[-1]
    )
    for name in ("migrate", "web", "worker"):
        assert SERVICES[name]["read_only"] and SERVICES[name]["cap_drop"] == ["ALL"]
        assert SERVICES[name]["volumes"] == ["data:/data"]


def test_a_stop_gives_a_worker_more_time_than_it_needs_to_hand_its_job_back() -> None:
    for name in ("worker", "gpu-worker"):
        command = SERVICES[name].get("command") or dockerfile_command("Dockerfile.gpu")
        milliseconds = int(command[command.index("--worker-shutdown-timeout") + 1])
        assert milliseconds < 1000 * int(SERVICES[name]["stop_grace_period"].removesuffix("s"))
