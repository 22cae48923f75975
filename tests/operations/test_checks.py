"""System checks: each misconfiguration is named before a job meets it. Templates, servers: test_covers, test_models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.checks import registry, run_checks
from django.db.migrations.recorder import MigrationRecorder

import covers.checks
import voices.checks
from tests.support.running.servers import free_port
from tests.support.waiting import until
from voiceproject.operations import checks, health
from voiceproject.telemetry import sentry, tracing
from voices.engines import configured


def ids(problems: Any) -> list[str]:
    return [str(problem.id).removeprefix("voiceproject.") for problem in problems]


def check(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", "check", *arguments],
        cwd=django_settings.BASE_DIR,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "voiceproject.settings", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_plain_start_has_nothing_to_complain_of_and_asks_nobody() -> None:
    modules = {module.__name__ for module in (checks, covers.checks, voices.checks)}
    ours = [check for check in registry.registry.get_checks() if check.__module__ in modules]
    assert {"command_templates", "folders", "engine_files", "engine_packages", "observation"} <= {
        check.__name__ for check in ours
    }
    assert checks.services not in ours
    assert checks.services in registry.registry.get_checks(include_deployment_checks=True)
    for one in ours:
        assert one(None, databases=None) == []


@pytest.mark.parametrize("name", ["DATA_DIR", "MEDIA_ROOT", "CACHE_DIR", "SCRATCH_DIR", "UPLOAD_DIR"])
def test_a_folder_that_takes_no_files(settings: Any, name: str, tmp_path: Path) -> None:
    setattr(settings, name, tmp_path / "gone")  # Root may write to every folder that is there.
    (problem,) = checks.folders(None)
    assert (problem.id, str(tmp_path) in problem.msg) == ("voiceproject.E003", True)


def test_a_package_of_the_builtin_engine_that_is_not_installed(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = voices.checks.find_spec
    monkeypatch.setattr(
        voices.checks, "find_spec", lambda name: None if name in ("pyworld", "haqumei") else found(name)
    )
    (problem,) = voices.checks.engine_packages(None)
    assert (problem.id, "haqumei, pyworld-prebuilt" in problem.msg) == ("voiceproject.E005", True)
    settings.VOICE_ENGINE = "gptsovits"
    assert voices.checks.engine_packages(None) == []


def test_the_packages_that_are_looked_for_are_those_that_are_required() -> None:
    required = (Path(django_settings.BASE_DIR) / "requirements.txt").read_text()
    assert all(f"\n{package}" in required for package in voices.checks.BUILTIN_PACKAGES.values())


def test_a_gptsovits_that_is_not_where_it_should_be(settings: Any, tmp_path: Path) -> None:
    settings.COVER_INFER_CMD_TEMPLATE = "{python_exec} gpu_scripts/gptsovits_infer.py --project-root {project_root}"
    settings.COVER_SEPARATE_CMD_TEMPLATE = (
        "{python_exec} gpu_scripts/gptsovits_separate.py --project-root {project_root}"
    )
    settings.GPT_SOVITS_PROJECT_ROOT = tmp_path / "nowhere"
    assert ids(covers.checks.engine_files(None)) == ["W006", "W006"]
    settings.GPT_SOVITS_PROJECT_ROOT = root = tmp_path / "engine"
    for path in ("tools/uvr5/vr.py", "tools/uvr5/uvr5_weights/HP2.pth", "GPT_SoVITS/TTS_infer_pack/TTS.py"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    (root / "GPT_SoVITS/pretrained_models").mkdir()
    (problem,) = covers.checks.engine_files(None)
    assert problem.msg.startswith("COVER_INFER_CMD_TEMPLATE") and "pretrained_models" in problem.msg
    (root / "GPT_SoVITS/pretrained_models/s1.ckpt").touch()
    assert covers.checks.engine_files(None) == []


LOADED = """
import sys
import django; django.setup()
import voiceproject.urls, voiceproject.worker
print(*[name for name in ("scipy.signal", "scipy.ndimage", "pyworld", "onnxruntime", "av") if name in sys.modules])
"""


def test_a_process_that_serves_loads_nothing_that_only_engines_compute_with() -> None:
    """They are 0.6 s of every start, and 60 MB of every process."""
    process = subprocess.run(
        [sys.executable, "-c", LOADED], cwd=django_settings.BASE_DIR, capture_output=True, text=True,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "voiceproject.settings"}, timeout=60,
    )  # fmt: skip
    assert (process.returncode, process.stdout) == (0, "\n"), process.stderr


WITHOUT_PACKAGES = """
import sys
sys.modules["opentelemetry.exporter"] = sys.modules["sentry_sdk"] = None
import django; django.setup()
from voiceproject.operations import checks
from voiceproject.telemetry import tracing
checks.find_spec = lambda name: None if name.startswith(("opentelemetry", "sentry_sdk")) else 1
with tracing.span("x") as span:
    assert span is None
for problem in checks.observation(None):
    print(problem.id, problem.msg.split()[0], problem.hint)
"""


def test_what_would_send_and_is_not_installed_is_told_and_stops_nothing(settings: Any) -> None:
    wanted = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "SENTRY_DSN": "http://key@127.0.0.1/1"}
    for name, value in wanted.items():
        setattr(settings, name, value)
    assert checks.observation(None) == []
    process = subprocess.run(
        [sys.executable, "-c", WITHOUT_PACKAGES], cwd=django_settings.BASE_DIR, capture_output=True, text=True,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "voiceproject.settings", **wanted}, timeout=60,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines() == [
        f"voiceproject.E006 OTEL_EXPORTER_OTLP_ENDPOINT pip install {tracing.PACKAGES}",
        f"voiceproject.E006 SENTRY_DSN pip install {sentry.PACKAGES}",
    ]
    assert process.stderr.count("pip install") == 2


def test_the_packages_to_install_are_those_that_are_tested() -> None:
    tested = (Path(django_settings.BASE_DIR) / "requirements-dev.txt").read_text().split()
    assert {*tracing.PACKAGES.split(), *sentry.PACKAGES.split()} <= set(tested)


def test_a_port_for_metrics_that_nobody_counts(settings: Any) -> None:
    settings.WORKER_METRICS_PORT = 9191
    assert ids(checks.observation(None)) == ["W007"]


# --- check --deploy ------------------------------------------------------------------------------------------


def test_django_s_warnings_about_plain_http_are_traced_to_our_setting(settings: Any) -> None:
    warned = run_checks(tags=["security"], include_deployment_checks=True)
    (ours,) = (problem for problem in warned if problem.id == "voiceproject.W011")
    assert "HTTPS=true" in ours.hint
    named = {problem.id for problem in warned} - {ours.id}
    assert named == set(checks.ANSWERED_BY_HTTPS) and all(name in ours.hint for name in named)
    settings.HTTPS = True
    assert checks.plain_http(None) == []


@pytest.mark.django_db
def test_everything_answers(settings: Any) -> None:
    assert checks.services(None) == []


def test_a_database_that_is_not_there_is_told_within_the_bounds_of_a_connection(tmp_path: Path) -> None:
    url = f"postgres://user:swordfish@127.0.0.1:{free_port()}/none"
    process = check("--deploy", "--tag", "services", DATABASE_URL=url, DATA_DIR=str(tmp_path))
    assert process.returncode == 0
    assert "voiceproject.W014) The database cannot be reached, so nobody knows whether migrations" in process.stderr
    assert "swordfish" not in process.stderr and "Traceback" not in process.stderr


def test_a_database_that_lacks_migrations_is_told_with_their_names(db: None) -> None:
    recorder = MigrationRecorder.Migration.objects
    last = recorder.filter(app="voices").order_by("-pk").first()
    last.delete()
    (problem,) = checks.services(None)
    assert problem.id == "voiceproject.E009"
    assert problem.msg == f"The database lacks 1 of this version's migrations: voices.{last.name}."
    recorder.all().delete()
    (problem,) = checks.services(None)
    assert (problem.id, problem.hint) == ("voiceproject.W015", "Run: manage.py migrate")


def test_check_deploy_tells_of_a_database_that_was_never_set_up(tmp_path: Path) -> None:
    process = check("--deploy", "--tag", "services", DATA_DIR=str(tmp_path))
    assert process.returncode == 0 and "manage.py migrate" in process.stderr


# --- names in the .env file ---


def test_a_name_that_is_no_setting_is_told_by_every_command_and_by_the_servers(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("SYNTHESIS_TTL=3\nLOG_LEVEL=WARNING\nPGHOST=db\n")
    kept = {"DATA_DIR": str(tmp_path / "data"), "ENV_FILE": str(file), "LOG_FORMAT": "json"}
    process = check(**kept)
    assert process.returncode == 0
    told = f"SYNTHESIS_TTL in {file} is not a setting; did you mean SYNTHESIS_TTL_HOURS?"
    assert f"(voiceproject.W013) {told}" in process.stderr and "PGHOST" not in process.stderr
    environment = {**os.environ, **kept, "DJANGO_SETTINGS_MODULE": "voiceproject.settings"}
    web = ["gunicorn", "voiceproject.wsgi", "--config", "python:voiceproject.serving", "--workers", "2"]
    work = ["dramatiq", "voiceproject.worker", "--processes", "2", "--threads", "1", "--skip-logging"]
    for argv in ([*web, "--bind", f"127.0.0.1:{free_port()}"], work):
        log = tmp_path / argv[0]
        with log.open("wb") as output:
            server = subprocess.Popen(
                [sys.executable, "-m", *argv],
                cwd=django_settings.BASE_DIR, env=environment, stdout=output, stderr=output,
            )  # fmt: skip
        try:
            until(lambda log=log: "is not a setting" in log.read_text(), 60)
            time.sleep(2)  # The other process of each has started too.
        finally:
            server.terminate()
            server.wait(30)
        lines = [json.loads(line)["message"] for line in log.read_text().splitlines() if "is not a setting" in line]
        assert lines == [told], argv[0]


@pytest.mark.django_db
def test_redis_and_an_engine_that_do_not_answer(settings: Any) -> None:
    settings.REDIS_URL = f"redis://127.0.0.1:{free_port()}/0"
    assert ids(checks.services(None)) == ["W008"]


@pytest.mark.django_db(transaction=True)
def test_a_gptsovits_server_that_does_not_answer(settings: Any) -> None:
    settings.VOICE_ENGINE = "gptsovits"
    settings.SOVITS_BASE_URLS = [f"http://127.0.0.1:{free_port()}"]
    configured.load_engine.cache_clear()
    try:
        assert ids(checks.services(None)) == ["W010"]
    finally:
        configured.load_engine.cache_clear()


@pytest.mark.django_db
def test_a_bucket_and_a_disk(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "check_storage", lambda: "unreachable")
    monkeypatch.setattr(checks, "default_storage", SimpleNamespace(bucket_name="voices"))
    (problem,) = checks.services(None)
    assert (problem.id, "voices" in problem.msg) == ("voiceproject.E008", True)
    monkeypatch.undo()
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=50 * 2**20))
    (problem,) = checks.services(None)
    assert (problem.id, "50 MiB" in problem.msg) == ("voiceproject.W009", True)
