"""System checks of the frame: what would otherwise only show when the first job runs. The apps have their own.

Those that ask other machines run with `manage.py check --deploy` alone, so that every other command starts at once.
"""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.files.storage import default_storage
from django.db import Error as DatabaseError
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from voiceproject.operations import health
from voiceproject.provenance import fingerprint, manifest
from voiceproject.registry import registry
from voiceproject.telemetry import sentry, tracing
from voiceproject.tenants import textfilter


@register()
def names_in_the_env_file(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """A misspelt name would go unnoticed. In the environment of the process it does, among all the names of others."""
    return [Warning(sentence, id="voiceproject.W013") for sentence in settings.UNKNOWN_NAMES]


@register()
def folders(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    return [
        Error(f"{folder} is not writable.", hint="See DATA_DIR.", id="voiceproject.E003")
        for folder in (settings.DATA_DIR, settings.MEDIA_ROOT, settings.SCRATCH_DIR, settings.UPLOAD_DIR,
                       settings.CACHE_DIR)
        if not os.access(folder, os.W_OK | os.X_OK)
    ]  # fmt: skip


@register()
def observation(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    problems: list[CheckMessage] = []
    for name, module, packages in (
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "opentelemetry.exporter.otlp.proto.http", tracing.PACKAGES),
        ("SENTRY_DSN", "sentry_sdk", sentry.PACKAGES),
    ):
        if getattr(settings, name) and not _is_installed(module):
            message = f"{name} is set, and its packages are not installed: nothing is sent."
            problems.append(Error(message, hint=f"pip install {packages}", id="voiceproject.E006"))
    if settings.WORKER_METRICS_PORT and not settings.METRICS_TOKEN:
        message = "WORKER_METRICS_PORT is set, and METRICS_TOKEN is not: nothing is counted."
        problems.append(Warning(message, id="voiceproject.W007"))
    return problems


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # Not even the package that it stands in.
        return False


@register("services", deploy=True)
def services(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Whether the database, Redis, the storage and the engine answer, and whether there is room on the disk."""
    problems = _database()
    if settings.REDIS_URL and health.check_broker() != "ok":
        hint = "Work goes on without it: workers then look at the database every two seconds. See REDIS_URL."
        problems.append(Warning("Redis cannot be reached.", hint=hint, id="voiceproject.W008"))
    storage = health.check_storage()
    if storage == "unreachable":
        message = f"The bucket {default_storage.bucket_name} cannot be reached."  # type: ignore[attr-defined]
        problems.append(Error(message, hint="See STORAGE_URL.", id="voiceproject.E008"))
    elif storage == "nearly full":
        free = shutil.disk_usage(settings.UPLOAD_DIR).free // 2**20
        message = f"The disk of DATA_DIR has {free} MiB left, less than two uploads may take."
        problems.append(Warning(message, id="voiceproject.W009"))
    if settings.VOICE_ENGINE == "gptsovits" and not any("W014" in str(problem.id) for problem in problems):
        state = registry.engine.health()
        if not state.available:
            message = f"No GPT-SoVITS server speaks: {state.detail or 'no answer'}."
            problems.append(Warning(message, hint="See SOVITS_BASE_URL.", id="voiceproject.W010"))
    return problems


def _database() -> list[CheckMessage]:
    """Warnings while it is away or was never set up: both may be as they should, before a deployment's first start."""
    try:
        executor = MigrationExecutor(connection)
        waiting = [str(migration) for migration, _ in executor.migration_plan(executor.loader.graph.leaf_nodes())]
    except DatabaseError as error:
        message = f"The database cannot be reached, so nobody knows whether migrations are missing: {one_line(error)}"
        return [Warning(message, hint="See DATABASE_URL.", id="voiceproject.W014")]
    hint = "Run: manage.py migrate"
    if waiting and not executor.loader.applied_migrations:
        return [Warning("The database has no tables yet.", hint=hint, id="voiceproject.W015")]
    if waiting:
        named = ", ".join(waiting[:3]) + (", ..." if len(waiting) > 3 else "")
        message = f"The database lacks {len(waiting)} of this version's migrations: {named}."
        return [Error(message, hint=hint, id="voiceproject.E009")]
    return []


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())


@register()
def text_filter(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """A filter that cannot be asked refuses everything; better said now."""
    if not settings.TEXT_FILTER:
        return []
    try:
        if textfilter.load(settings.TEXT_FILTER) is textfilter.words:
            textfilter.words("", 0, "synthesis")
    except Exception as error:
        hint = "See TEXT_FILTER and TEXT_FILTER_WORDS."
        return [Error(f"TEXT_FILTER cannot be used: {error}", hint=hint, id="voiceproject.E011")]
    return []


@register()
def exposed_without_https(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    if "*" in settings.ALLOWED_HOSTS and settings.HTTPS:
        return [Warning("ALLOWED_HOSTS answers to any host name.", id="voiceproject.W001")]
    return []


# Django's own warnings that go with HTTPS=true, and name settings of Django that nobody sets here.
ANSWERED_BY_HTTPS = ("security.W004", "security.W008", "security.W012", "security.W016")


@register(Tags.security, deploy=True)
def plain_http(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    if settings.HTTPS:
        return []
    hint = (
        "Set HTTPS=true behind a proxy that speaks TLS and sets X-Forwarded-Proto: it turns on secure cookies, the "
        f"redirect and HSTS, and answers {', '.join(ANSWERED_BY_HTTPS)}."
    )
    message = "HTTPS is false: keys, passwords and recordings may travel in the clear."
    return [Warning(message, hint=hint, id="voiceproject.W011")]


@register()
def signing(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """C2PA_CERT and C2PA_KEY load, belong together, have not expired, and C2PA takes them."""
    problem = manifest.problem()
    if problem is None:
        return []
    return [Error(f"Nothing can be signed: {problem}.", hint="See C2PA_CERT and C2PA_KEY.", id="voiceproject.E010")]


@register()
def told_by_sound(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """FFmpeg with Chromaprint is there, by which recordings that carry no manifest are told."""
    problem = fingerprint.problem()
    if problem is None:
        return []
    hint = "Install requirements.txt, or name an FFmpeg with Chromaprint in IMAGEIO_FFMPEG_EXE."
    return [Warning(f"Recordings cannot be told by their sound: {problem}", hint=hint, id="voiceproject.W012")]
