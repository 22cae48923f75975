"""System checks of covers: the commands, and what they need on this host's disk."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

from covers.commands import template


@register()
def command_templates(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
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


# Below GPT_SOVITS_PROJECT_ROOT, by the script of ours that needs it.
ENGINE_FILES = {
    "gptsovits_separate.py": ("tools/uvr5/vr.py", "tools/uvr5/uvr5_weights"),
    "gptsovits_infer.py": ("GPT_SoVITS/TTS_infer_pack/TTS.py", "GPT_SoVITS/pretrained_models"),
}


@register()
def engine_files(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """GPT-SoVITS's code and weights, where a command of ours uses them."""
    problems: list[CheckMessage] = []
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
