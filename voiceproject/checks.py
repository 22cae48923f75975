"""System checks: what would otherwise only show when the first job runs."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import connection


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
def folders(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    return [
        Error(f"{folder} is not writable.", hint="See DATA_DIR.", id="voiceproject.E003")
        for folder in (settings.MEDIA_ROOT, settings.SCRATCH_DIR, settings.UPLOAD_DIR)
        if not os.access(folder, os.W_OK)
    ]


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
    from voices.models import DEFAULT_MODEL, EngineModel

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
def exposed_without_https(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    if "*" in settings.ALLOWED_HOSTS and settings.HTTPS:
        return [Warning("ALLOWED_HOSTS answers to any host name.", id="voiceproject.W001")]
    return []


@register()
def signing(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """C2PA_CERT and C2PA_KEY load, belong together, have not expired, and C2PA takes them."""
    from voiceproject import provenance

    problem = provenance.problem()
    if problem is None:
        return []
    return [Error(f"Nothing can be signed: {problem}.", hint="See C2PA_CERT and C2PA_KEY.", id="voiceproject.E005")]
