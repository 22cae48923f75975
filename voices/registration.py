"""What the frame has to know of voices and syntheses (see voiceproject.registry)."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.utils.translation import gettext_lazy as _

from voiceproject.console.panels import (
    JOBS,
    TENANTS,
    JobPanel,
    Link,
    Section,
    TenantPart,
    register_jobs,
    register_links,
    register_tenant_parts,
)
from voiceproject.jobs import signals
from voiceproject.jobs.files import sweep_folders
from voiceproject.registry import EngineHealth, JobKind, SpeechEngine, registry
from voices import checks  # noqa: F401 - registers the system checks
from voices.account import personal_data
from voices.compat.elevenlabs import realtime
from voices.engines import configured
from voices.engines.gptsovits.references import sweep_references
from voices.keys.auth import admit
from voices.keys.models import ApiKey
from voices.lexicons.models import Lexicon
from voices.library import saved, use
from voices.library.models import Voice
from voices.speech import tasks, weights
from voices.speech.models import MODELS_FOLDER, EngineModel, Synthesis, WeightsFile
from voices.speech.serializers import SynthesisSerializer
from voices.text import identify
from voices.training import published
from voices.training import tasks as training_tasks
from voices.training.models import Training
from voices.training.serializers import TrainingSerializer

TRAINING_STAGES = {
    "check": _("check"),
    "slice": _("slice"),
    "transcribe": _("transcribe"),
    "features": _("features"),
    "train": _("train"),
    "train_sovits": _("train SoVITS"),
    "train_gpt": _("train GPT"),
    "index": _("index"),
    "evaluate": _("evaluate"),
    "publish": _("publish"),
}


def register() -> None:
    registry.job_kinds.append(
        JobKind(
            model=Synthesis,
            queue="synthesis",
            actor=tasks.run_syntheses,
            has_room=tasks.has_room,
            recover=_recover,
            scratch_in_use=tasks.scratch_in_use,
            serialize=_serialize,
        )
    )
    registry.job_kinds.append(
        JobKind(
            model=Training,
            queue="training",
            actor=training_tasks.run_trainings,
            has_room=training_tasks.has_room,
            recover=_recover_trainings,
            scratch_in_use=training_tasks.scratch_in_use,
            serialize=_serialize_training,
        )
    )
    saved.ended.connect(published.remove_of_voices)
    signals.ended.connect(use.on_job_ended, dispatch_uid="use of voices")
    registry.speech_engine = SpeechEngine(health=_engine_health, close=configured.close_engine)
    registry.admit = admit
    registry.websockets.append(realtime.route)
    registry.scopes_of_keys = ApiKey.objects.scopes_of
    registry.held_bytes += [
        Synthesis.held_bytes, Voice.held_bytes, Lexicon.held_bytes, Training.held_bytes, EngineModel.held_bytes
    ]  # fmt: skip
    registry.at_start.append(identify.load)
    registry.at_look += [personal_data.erase_requested, tasks.rest]
    registry.at_sweep += [saved.sweep_orphans, _finish_takedowns, _sweep_references, _sweep_models]
    registry.at_worker_stop.append(configured.close_engine)
    register_jobs(JobPanel(Synthesis, _("Syntheses"), place=20, stages={"infer": _("infer")}))
    register_jobs(JobPanel(Training, _("Trainings"), place=30, stages=TRAINING_STAGES))
    voices_and_models = Section(_("Voices and models"), 20)
    register_links(
        Link(JOBS, 20, "voices.synthesis", _("Syntheses"), "record_voice_over"),
        Link(JOBS, 25, "voices.training", _("Trainings"), "model_training"),
        Link(voices_and_models, 10, "voices.voice", _("Voices"), "mic"),
        Link(voices_and_models, 20, "voices.consent", _("Consents"), "verified_user"),
        Link(voices_and_models, 25, "voices.lexicon", _("Lexicons"), "dictionary"),
        Link(voices_and_models, 30, "voices.enginemodel", _("Models"), "neurology"),
        Link(TENANTS, 30, "voices.apikey", _("API keys"), "key"),
    )
    register_tenant_parts(
        TenantPart(10, ApiKey, _("API keys"), "user"),
        TenantPart(20, Voice, _("Voices")),
        TenantPart(30, Lexicon, _("Lexicons")),
    )


def _recover(silent_seconds: float) -> int:
    return Synthesis.recover(silent_seconds, settings.SYNTHESIS_MAX_ATTEMPTS, settings.SYNTHESIS_TTL_HOURS)


def _serialize(job: Synthesis, request: Any) -> dict[str, Any]:
    return SynthesisSerializer(job, context={"request": request}).data


def _recover_trainings(silent_seconds: float) -> int:
    return Training.recover(silent_seconds, settings.TRAINING_MAX_ATTEMPTS, settings.TRAINING_TTL_HOURS)


def _serialize_training(job: Training, request: Any) -> dict[str, Any]:
    return TrainingSerializer(job, context={"request": request}).data


def _sweep_models(older_than_seconds: float) -> None:
    """What killed processes have left of models, in the storage and in this host's cache."""
    sweep_folders(MODELS_FOLDER, lambda name: EngineModel.objects.filter(model_id=name).exists(), older_than_seconds)
    files = WeightsFile.objects.select_related("model")
    weights.forget({file.cached_as for file in files.iterator()}, older_than_seconds)


def _engine_health() -> EngineHealth:
    return configured.get_engine().health()


def _finish_takedowns(older_than_seconds: float) -> None:
    saved.finish_takedowns()


def _sweep_references(older_than_seconds: float) -> None:
    if settings.VOICE_ENGINE == "gptsovits" and settings.SOVITS_REFERENCE_DIR.is_dir():
        sweep_references(settings.SOVITS_REFERENCE_DIR, older_than_seconds)
