"""Which models there are, and what each may be used for: read from the operator's rows at every submission.

`default` is always there: the engine's own model, or the row of that name, which says what it is (its version, and the
weights that bring it back on a GPT-SoVITS server that has spoken with others). A disabled row `default` takes it away.
So does a row with the id of another model that the engine brings along, and it says instead what that id is.

A row with an owner is that tenant's: nobody else sees it, and `tenant` says throughout who asks (a primary key; None
for nobody's, so for what all are offered).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from voiceproject.errors import PublicError
from voiceproject.prepared import Select, Slot
from voices.engines import configured
from voices.engines.interface import Engine, Model, OwnModel
from voices.speech.models import DEFAULT_MODEL, EngineModel


@dataclass(frozen=True)
class _Registry:
    """The rows as one query has read them, for the running engine."""

    engine: Engine
    rows: dict[str, EngineModel]

    @property
    def default(self) -> EngineModel | None:
        """The row of the engine's own default; a row `default` of another engine is not that."""
        row = self.rows.get(DEFAULT_MODEL)
        return row if row and row.engine == self.engine.name else None

    @property
    def own(self) -> dict[str, OwnModel]:
        """The engine's own models, except the default and those that a row has replaced."""
        models: Sequence[OwnModel] = getattr(self.engine, "models", ())
        return {model.id: model for model in models if model.id not in self.rows}

    def speaks(self, model_id: str) -> bool:
        if model_id in self.own:
            return True
        default = self.default
        row = default if model_id == DEFAULT_MODEL else self.rows.get(model_id)
        if row is None and model_id != DEFAULT_MODEL:
            return False
        if row is not None and (not row.enabled or row.engine != self.engine.name):
            return False
        serves = getattr(self.engine, "serves", None)
        if serves is None:
            return model_id == DEFAULT_MODEL  # an engine with one model
        offers_default = default is None or default.enabled
        return serves(row.as_model() if row else None, default.as_model() if default else None, offers_default)

    def sings(self, model_id: str) -> bool:
        row = self.rows.get(model_id)
        return row.enabled if row else model_id == DEFAULT_MODEL

    def listed(self) -> list[dict[str, Any]]:
        entries = [self._entry(model_id) for model_id in dict.fromkeys([DEFAULT_MODEL, *self.own, *self.rows])]
        return [entry for entry in entries if entry["uses"]]

    def _entry(self, model_id: str) -> dict[str, Any]:
        own = self.own.get(model_id)
        row = self.default if model_id == DEFAULT_MODEL else self.rows.get(model_id)
        languages = row.spoken_languages() if row else self.engine.languages - {"auto"}
        return {
            "id": model_id,
            "name": row.name if row else own.name if own else f"{self.engine.name}'s default voice model",
            "description": own.description if own else "",
            "engine": row.engine if row else self.engine.name,
            "version": row.version if row else "",
            "languages": sorted(languages),
            "voice_id": row.voice_id if row else None,
            "owned": bool(row and row.owner_id),
            "uses": [use for use, can in (("synthesis", self.speaks), ("covers", self.sings)) if can(model_id)],
        }


_rows = Select(EngineModel.objects.for_tenant(Slot("tenant", EngineModel, "owner")))


_of_voice = Select(
    EngineModel.objects.filter(
        owner=Slot("tenant", EngineModel, "owner"), voice_id=Slot("voice_id", EngineModel), enabled=True
    ).order_by("-created_at", "-pk")
)


def _read(tenant: int | None) -> _Registry:
    return _Registry(configured.get_engine(), {row.model_id: row for row in _rows(tenant=tenant)})


def models(tenant: int | None = None) -> list[dict[str, Any]]:
    """The models that `model_id` may name, as `GET /voice/models` lists them."""
    return _read(tenant).listed()


def speaks(model_id: str, tenant: int | None = None) -> bool:
    """Whether the running engine can speak with this model."""
    return _read(tenant).speaks(model_id)


def of_voice(voice_id: uuid.UUID, tenant: int, weights: Sequence[str] = ()) -> str:
    """The id of the model that was trained for a saved voice last and can be used, empty where there is none.

    weights: fields of EngineModel, of which it has to have one, for a cover's command; none: it has to speak.
    """
    registry: _Registry | None = None
    for row in _of_voice(tenant=tenant, voice_id=voice_id):
        if weights:
            if any(getattr(row, name) for name in weights):
                return row.model_id
            continue
        registry = registry or _read(tenant)
        if registry.speaks(row.model_id):
            return row.model_id
    return ""


def use_model_of(fields: dict[str, Any], voice_id: uuid.UUID | None, tenant: int) -> None:
    """Where a request names a saved voice and no model, it gets the one that was trained for it.

    fields: of a SynthesizeSerializer or its like: `model_id` and `model` are set.
    """
    if voice_id is None or fields["model_id"]:
        return
    if own := of_voice(voice_id, tenant):
        fields["model_id"], fields["model"] = own, for_synthesis(own, tenant)


def for_synthesis(model_id: str, tenant: int | None = None) -> Model | None:
    """The model to speak with, None for the engine's own default; empty means the default.

    Raises PublicError validation_error, which lists what there is.
    """
    registry = _read(tenant)
    _check(registry, model_id, "synthesis")
    if model_id in registry.own:
        return Model(model_id)
    row = registry.rows.get(model_id) if model_id not in ("", DEFAULT_MODEL) else registry.default
    return row.as_model() if row else None


def for_cover(model_id: str, tenant: int | None = None) -> Model | None:
    """The model to sing with: any enabled one, whatever the speech engine. None and errors as in `for_synthesis`."""
    registry = _read(tenant)
    _check(registry, model_id, "covers")
    row = registry.rows.get(model_id or DEFAULT_MODEL)
    return row.as_model(on_server=False) if row else None


def _check(registry: _Registry, model_id: str, use: str) -> None:
    can = registry.speaks if use == "synthesis" else registry.sings
    if not can(model_id or DEFAULT_MODEL):
        known = [entry["id"] for entry in registry.listed() if use in entry["uses"]]
        what = f"There is no model {model_id} for {use}" if model_id else f"Choose a model for {use}"
        message = f"{what}; there are: {', '.join(known) or 'none'}."
        raise PublicError("validation_error", f"model_id: {message}", {"model_id": [message]})
