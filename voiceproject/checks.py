"""System checks: what would otherwise only show when the first job runs."""

from __future__ import annotations

import os
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register


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
def exposed_without_https(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    if "*" in settings.ALLOWED_HOSTS and settings.HTTPS:
        return [Warning("ALLOWED_HOSTS answers to any host name.", id="voiceproject.W001")]
    return []
