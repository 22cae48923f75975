"""What a tenant's archive tells: an allow-list of fields for each model that names a tenant.

A field stands in `fields`, or in `withheld` with those that are the operators' or mean nothing outside: who operates
the service and from where, its hosts, its commands' words, hashes of secrets, numbers of rows. One that stands in
neither fails a test, so that a new one is decided on.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.db import models

Values = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """Rows of one model. owner: the lookup of the tenant's id; keys: names of foreign keys to an API key, which is told
    by its public id; files_too: whether the files that its rows name are given out; told: takes the row, the tenant's
    id and the values, and gives those that are told."""

    name: str
    owner: str
    fields: tuple[str, ...]
    withheld: frozenset[str] = frozenset()
    keys: tuple[str, ...] = ()
    files_too: Callable[[], bool] = lambda: True
    told: Callable[[Any, int, Values], Values] = field(default=lambda row, tenant_id, values: values)

    def values(self, row: models.Model, tenant_id: int) -> Values:
        found = {name: _value(row, name) for name in self.fields}
        for name in self.keys:
            key = getattr(row, name)
            found[name] = None if key is None else key.public_id
        return self.told(row, tenant_id, found)


def _value(row: models.Model, name: str) -> Any:
    value = row._meta.get_field(name).value_from_object(row)  # type: ignore[union-attr]
    return value.name if isinstance(value, models.fields.files.FieldFile) else value


def _job(row: Any, tenant_id: int, values: Values) -> Values:
    # A mark also names the host.
    marks = [{name: mark[name] for name in ("attempt", "stage", "at") if name in mark} for mark in row.marks]
    return values | {"marks": marks}


def _audit_entry(row: Any, tenant_id: int, values: Values) -> Values:
    """What the tenant did itself is told as it stands; of what others did to it, that it was done."""
    own = row.actor_id == tenant_id
    try:
        target_id = str(uuid.UUID(values["target_id"]))
    except ValueError:
        target_id = ""  # the number of a row
    told = {"by": "you" if own else "operator" if row.actor_id or row.actor_name else "system", "target_id": target_id}
    return {name: values[name] for name in ("at", "action", "target_type")} | told | (
        {name: values[name] for name in _OWN} if own else {}
    )  # fmt: skip


_OWN = ("key_prefix", "target_name", "address", "request_id", "details")
_JOB = (
    "id", "status", "priority", "revision", "created_at", "updated_at", "started_at", "finished_at", "request_id",
    "stage", "progress", "attempt", "marks", "error", "error_message", "expires_at", "engine_seconds", "input_bytes",
    "output_bytes", "files_expired", "voice_id", "revoked_at", "callback_url", "first_attempt",
)  # fmt: skip
_OPERATORS = frozenset(
    {"tenant", "host", "worker", "heartbeat_at", "error_detail", "cause", "callback_base", "trace_parent"}
)

ACCOUNT_FIELDS = ("username", "email", "first_name", "last_name", "date_joined")

# A model that names a tenant and stands neither here nor below fails a test.
PARTS = {
    "voiceproject.Tenant": Part(
        "limits", "user",
        ("served_at", "synthesis_served_at", "training_served_at", "max_running", "max_queued", "requests_per_minute",
         "monthly_audio_seconds", "max_storage_bytes", "erase_requested_at"),
        withheld=frozenset({"user"}),
    ),
    "voices.ApiKey": Part(
        "keys", "user",
        ("public_id", "name", "kind", "prefix", "scopes", "expires_at", "allowed_networks", "requests_per_minute",
         "max_concurrent_jobs", "monthly_audio_seconds", "revoked_at", "last_used_at", "lineage", "from_environment",
         "chosen_model", "chosen_voice", "created_at"),
        withheld=frozenset({"id", "user", "key_hash"}), keys=("replaced_by",),
    ),
    "voices.Synthesis": Part(
        "syntheses", "tenant",
        (*_JOB, "title", "background", "text", "language", "reference_hash", "reference_audio", "reference_text",
         "reference_language", "speed", "temperature", "seed", "model_id", "response_format", "engine", "audio",
         "duration_seconds", "sample_rate", "warnings", "lexicon", "output_format", "spoken", "turns"),
        withheld=_OPERATORS, keys=("api_key",), told=_job,
    ),
    "covers.CoverJob": Part(
        "covers", "tenant",
        (*_JOB, "title", "reference_voice", "song", "own_instrumental", "song_hash", "model_id", "pitch_shift",
         "pitch_auto", "preview_seconds", "preview_start_seconds", "remix_of", "input_kind", "on_no_vocals",
         "shift_instrumental", "response_format", "reference_text", "lyrics", "vocal_gain_db", "instrumental_gain_db",
         "duration_seconds", "warning", "warnings", "details", "vocals", "instrumental", "converted", "result",
         "result_flac", "result_mp3"),
        withheld=_OPERATORS | {"stems_key"}, keys=("api_key",), told=_job,
    ),
    "voices.Training": Part(
        "trainings", "tenant",
        (*_JOB, "name", "language", "engine", "base", "options", "makes_voice", "duration_seconds", "warnings",
         "report", "evaluation", "model_id"),
        # Checkpoints are gigabytes, and there while it is under way.
        withheld=_OPERATORS | {"prepared", "trained", "evaluated"}, keys=("api_key",), told=_job,
    ),
    "voices.TrainingRecording": Part(
        "training_recordings", "training__tenant",
        ("id", "training", "number", "name", "audio", "audio_bytes", "uploaded_hash", "transcript"),
    ),
    "voices.EngineModel": Part(
        "models", "owner",
        ("model_id", "name", "engine", "version", "languages", "enabled", "voice_id", "training_id", "evaluation",
         "created_at"),
        withheld=frozenset({"id", "owner", "gpt_weights", "sovits_weights", "voice_weights", "voice_index"}),
    ),
    "voices.WeightsFile": Part(
        "model_weights", "model__owner", ("kind", "file", "sha256", "bytes"),
        withheld=frozenset({"id", "model"}), files_too=lambda: settings.TRAINING_WEIGHTS_DOWNLOAD,
    ),
    "voices.Voice": Part(
        "voices", "tenant",
        ("id", "name", "description", "language", "lexicon", "reference", "reference_hash", "reference_transcript",
         "reference_frames", "reference_rate", "reference_bytes", "tag_lines", "speaking_style", "taken_down_at",
         "created_at", "updated_at", "used_at"),
        withheld=frozenset({"tenant"}),
    ),
    "voices.VoiceAlias": Part(
        "voice_aliases", "tenant", ("alias", "voice", "preset"), withheld=frozenset({"id", "tenant"}),
    ),
    "voices.Lexicon": Part(
        "lexicons", "tenant",
        ("id", "name", "description", "language", "is_default", "version_id", "entries_count", "archived_at",
         "created_at", "updated_at"),
        withheld=frozenset({"tenant"}),
    ),
    "voices.LexiconVersion": Part(
        "lexicon_versions", "lexicon__tenant",
        ("id", "lexicon", "number", "language", "entries", "bytes", "created_at"),
    ),
    "voices.VoiceSample": Part(
        "voice_samples", "voice__tenant",
        ("id", "voice", "audio", "audio_hash", "uploaded_hash", "transcript", "duration_seconds", "sample_rate",
         "audio_bytes", "quality", "created_at"),
    ),
    "voices.EngineData": Part(
        "voice_engine_data", "voice__tenant", ("voice", "engine", "language", "file", "bytes", "created_at"),
        withheld=frozenset({"id", "key"}),
    ),
    "voices.Consent": Part(
        "consents", "tenant",
        ("tenant_name", "key_prefix", "address", "request_id", "statement", "voice_id", "voice_name", "sample_id",
         "sample_hash", "created_at"),
        withheld=frozenset({"id", "tenant"}),
    ),
    "voices.StandingConsent": Part(
        "standing_consent", "tenant", ("statement", "key_prefix", "address", "given_at"),
        withheld=frozenset({"tenant"}),
    ),
    "voices.RecordedConsent": Part(
        "recorded_consents", "tenant", ("id", "name", "language", "recording_hash", "created_at"),
        withheld=frozenset({"tenant"}),
    ),
    "voiceproject.UsageEntry": Part(
        "usage", "tenant_id",
        ("key_id", "lineage", "key_prefix", "key_name", "operation", "job_id", "attempt", "state", "reserved_ms",
         "audio_ms", "characters", "engine_ms", "day", "accepted_at", "ended_at"),
        withheld=frozenset({"id", "tenant_id"}),
    ),
    "voiceproject.Share": Part(
        "links", "tenant", ("id", "kind", "job_id", "created_at", "expires_at", "revoked_at"),
        withheld=frozenset({"tenant"}),
    ),
    "voiceproject.WebhookDelivery": Part(
        "webhook_deliveries", "tenant",
        ("id", "job_id", "type", "sequence", "url", "payload", "status", "attempts", "first_attempt",
         "next_attempt_at", "last_status", "last_error", "created_at", "updated_at", "delivered_at"),
        withheld=frozenset({"tenant", "claimed_until"}),
    ),
    "voiceproject.WebhookSecret": Part(
        "webhook_secret", "user", ("previous_until", "created_at"),
        withheld=frozenset({"user", "secret", "previous"}),
    ),
    "voiceproject.IdempotencyKey": Part(
        "idempotency_keys", "tenant", ("key", "job_id", "created_at"),
        withheld=frozenset({"id", "tenant", "request_hash"}),
    ),
    "voiceproject.AuditEntry": Part(
        "audit_log", "tenant_id", ("at", "action", "target_type", "target_id", *_OWN),
        withheld=frozenset({"id", "tenant_id", "actor", "actor_name"}), told=_audit_entry,
    ),
}  # fmt: skip
# Whose turn it is, and who waits: told in no archive, since nothing of them is kept.
LEFT_OUT = {"voiceproject.EngineTurn", "voiceproject.EngineWaiter"}
