"""Syntheses, and the trained models that operators offer for them."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Collection
from typing import Any, ClassVar, Self

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from voiceproject.jobs.files import delete_folder
from voiceproject.jobs.job import Job
from voiceproject.jobs.status import JobStatus
from voiceproject.web.names import MAX_TITLE, first_words
from voices.engines.interface import Model
from voices.library.references import references
from voices.speech import weights
from voices.text.languages import LANGUAGES, speaking_seconds
from voices.text.lexicon import Lexicon
from voices.text.markdown import without_markdown

log = logging.getLogger(__name__)

DEFAULT_MODEL = "default"
# Of a text that makes its title, where none is given; its marks and tags are no part of that.
TITLED_CHARACTERS = 2000
TAG = re.compile(r"</?[A-Za-z][^<>]{0,500}>")
MODELS_FOLDER = "models"  # of the storage
WEIGHTS = {"gpt_weights": ".ckpt", "sovits_weights": ".pth", "voice_weights": ".pth", "voice_index": ".index"}
MODEL_LANGUAGES = tuple(LANGUAGES[1:])  # all but `auto`


class EngineModelQuerySet(models.QuerySet):
    def for_tenant(self, tenant_id: Any) -> Self:
        """What a tenant may name: the operators' models, and its own."""
        return self.filter(models.Q(owner=None) | models.Q(owner=tenant_id))


class EngineModel(models.Model):
    """A trained model; `model_id` of a request names it. See voices.speech.registry.

    Operators offer those without an owner to all. One that a tenant has trained is that tenant's alone: its weights are
    rows of WeightsFile, and the four fields name files of this host's cache (voices.speech.weights).
    """

    class Engine(models.TextChoices):
        GPTSOVITS = "gptsovits", "GPT-SoVITS"
        RVC = "rvc", "RVC"
        OTHER = "other", _("other")

    class Version(models.TextChoices):
        V1 = "v1"
        V2 = "v2"
        V2_PRO = "v2Pro"
        V2_PRO_PLUS = "v2ProPlus"
        V3 = "v3"
        V4 = "v4"

    # It becomes an argument of commands and a name on GPU machines: no dots, no slashes, no dash in front.
    model_id = models.CharField(
        _("model id"),
        max_length=100,
        unique=True,
        validators=[RegexValidator(r"\A[A-Za-z0-9_][A-Za-z0-9_-]*\Z", _("Letters, digits, - and _ only."))],
        help_text=_("What clients send. `default` is what they get when they send nothing."),
    )
    name = models.CharField(_("name"), max_length=100, help_text=_("For people"))
    engine = models.CharField(_("engine"), max_length=16, choices=Engine, default=Engine.GPTSOVITS)
    gpt_weights = models.CharField(
        _("gpt weights"),
        max_length=500,
        blank=True,
        help_text=_("The .ckpt, as the GPT-SoVITS server sees it (relative to its own folder)"),
    )
    sovits_weights = models.CharField(
        _("sovits weights"), max_length=500, blank=True, help_text=_("The .pth that belongs to it")
    )
    voice_weights = models.CharField(
        _("voice weights"), max_length=500, blank=True, help_text=_("RVC's .pth, as the workers see it")
    )
    voice_index = models.CharField(
        _("voice index"), max_length=500, blank=True, help_text=_("RVC's .index, if there is one")
    )
    version = models.CharField(
        _("version"), max_length=16, choices=Version, blank=True, help_text=_("Of GPT-SoVITS; v1 lacks yue, ko")
    )
    languages = models.JSONField(
        _("languages"), default=list, blank=True, help_text=_("What it speaks; none: all of its version")
    )
    enabled = models.BooleanField(_("enabled"), default=True)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, verbose_name=_("owner"), on_delete=models.CASCADE, null=True, editable=False,
        related_name="models", help_text=_("The tenant that has trained it; none: offered to all"),
    )  # fmt: skip
    # Not foreign keys: both may be deleted.
    voice_id = models.UUIDField(
        _("voice id"), null=True, editable=False, db_index=True, help_text=_("The saved voice that speaks with it")
    )
    training_id = models.UUIDField(_("training id"), null=True, editable=False, help_text=_("What has made it"))
    evaluation = models.JSONField(
        _("evaluation"), default=list, blank=True, db_default=[], editable=False,
        help_text=_("What each kept checkpoint scored"),
    )  # fmt: skip
    created_at = models.DateTimeField(_("created at"), db_default=Now(), editable=False)

    objects = EngineModelQuerySet.as_manager()

    class Meta:
        ordering = ("model_id",)
        verbose_name = _("model")
        verbose_name_plural = _("models")

    def __str__(self) -> str:
        return self.model_id

    def clean(self) -> None:
        if bool(self.gpt_weights) != bool(self.sovits_weights):
            raise ValidationError(_("GPT weights and SoVITS weights are given together."))
        if self.engine == self.Engine.RVC and not self.voice_weights:
            raise ValidationError({"voice_weights": _("RVC needs them.")})
        for field in ("gpt_weights", "sovits_weights", "voice_weights", "voice_index"):
            path = getattr(self, field)
            if path.startswith("-") or not path.isprintable():
                raise ValidationError(
                    {field: _("A path does not begin with a dash, and has printable characters only.")}
                )
        if not isinstance(self.languages, list) or set(self.languages) - set(MODEL_LANGUAGES):
            raise ValidationError({"languages": _("A list of some of: %s.") % ", ".join(MODEL_LANGUAGES)})
        lacking = sorted(set(self.languages) & {"yue", "ko"})
        if self.version == self.Version.V1 and lacking:
            raise ValidationError({"languages": _("v1 does not speak %s.") % ", ".join(lacking)})

    def spoken_languages(self) -> set[str]:
        """Without `auto`; empty where nothing is known."""
        if self.languages or self.engine != self.Engine.GPTSOVITS:
            return set(self.languages)
        return set(MODEL_LANGUAGES) - ({"yue", "ko"} if self.version == self.Version.V1 else set())

    def as_model(self, *, on_server: bool = True) -> Model:
        """on_server: with the paths of GPT-SoVITS' weights as its server sees them; else as commands of this host do.

        The operators' are as they stand in the row in both cases.
        """
        paths = {name: getattr(self, name) for name in WEIGHTS}
        if self.owner_id is None:
            return Model(self.model_id, **paths, version=self.version, languages=frozenset(self.languages))
        names = [name for name in paths.values() if name]
        where = weights.engine_path if on_server else weights.local_path
        return Model(
            self.model_id,
            **{name: where(path) for name, path in paths.items()},
            version=self.version,
            languages=frozenset(self.languages),
            fetch=lambda: weights.ensure(names, self.files.all()),
        )

    @property
    def folder(self) -> str:
        """Where the weights of a tenant's model stand in the storage."""
        return f"{MODELS_FOLDER}/{self.model_id}"

    @classmethod
    def held_bytes(cls, tenant_id: int) -> int:
        """The bytes that the weights of a tenant's models take."""
        own = WeightsFile.objects.filter(model__owner=tenant_id).order_by()
        return int(own.aggregate(n=models.Sum("bytes"))["n"] or 0)

    def remove(self) -> None:
        """Deletes the model for good, with its weights; copies in caches go with the next sweep of their hosts."""
        type(self).objects.filter(pk=self.pk).delete()
        if self.owner_id is not None:
            delete_folder(self.folder)
            log.info("a trained model was deleted", extra={"model": self.model_id})


class WeightsFile(models.Model):
    """One file of a tenant's model, in the storage. kind: the field of EngineModel that names its copies."""

    model = models.ForeignKey(EngineModel, on_delete=models.CASCADE, related_name="files")
    kind = models.CharField(max_length=16, choices=[(name, name) for name in WEIGHTS])
    file = models.FileField(max_length=200)
    sha256 = models.CharField(max_length=64)
    bytes = models.PositiveBigIntegerField()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["model", "kind"], name="one_weights_file_a_kind")]

    def __str__(self) -> str:
        return f"{self.kind} of {self.model_id}"

    @property
    def cached_as(self) -> str:
        return weights.cache_name(self.model.model_id, self.sha256, WEIGHTS[self.kind])


class Synthesis(Job):
    """One text spoken in one voice."""

    webhook_kind: ClassVar[str] = "synthesis"
    turn_field: ClassVar[str] = "synthesis_served_at"
    searched_fields: ClassVar[tuple[str, ...]] = ("title", "text")

    title = models.CharField(
        _("title"), max_length=MAX_TITLE, blank=True, default="", db_default="",
        help_text=_("What it was renamed; empty: its first words"),
    )  # fmt: skip
    background = models.BooleanField(
        _("background"), default=False, help_text=_("Made by a worker; otherwise by the process where its client waits")
    )
    text = models.TextField(_("text"))
    language = models.CharField(_("language"), max_length=8, default="auto")
    reference_hash = models.CharField(
        _("reference hash"), max_length=64, help_text=_("SHA-256 of the uploaded reference")
    )
    reference_audio = models.FileField(
        _("reference audio"), max_length=200, blank=True, help_text=_("Kept where a worker needs it")
    )
    reference_text = models.TextField(_("reference text"), blank=True)
    reference_language = models.CharField(_("reference language"), max_length=8, default="auto")
    speed = models.FloatField(_("speed"), default=1.0)
    temperature = models.FloatField(_("temperature"), default=0.7)
    seed = models.BigIntegerField(_("seed"), null=True)
    model_id = models.CharField(_("model id"), max_length=100, blank=True)
    response_format = models.CharField(_("response format"), max_length=8, default="wav")
    output_format = models.CharField(
        _("output format"),
        max_length=32,
        blank=True,
        default="",
        db_default="",
        help_text=_("What another service's client got; empty: the response format"),
    )
    engine = models.CharField(_("engine"), max_length=32, blank=True)
    audio = models.FileField(_("audio"), max_length=200, blank=True)
    duration_seconds = models.FloatField(_("duration seconds"), null=True)
    warnings = models.JSONField(
        _("warnings"), default=list, blank=True, help_text=_("What was left out of the text, or guessed: code, message")
    )
    sample_rate = models.PositiveIntegerField(_("sample rate"), null=True, help_text=_("Hz"))
    lexicon = models.JSONField(
        _("lexicon"), default=list, blank=True, help_text=_("The entries of lexicons that the text has in it")
    )
    spoken = models.JSONField(
        _("spoken"), default=list, blank=True, db_default=[],
        help_text=_("Each sentence, with the seconds at which it begins and ends"),
    )  # fmt: skip
    # See voices.speech.dialogue.Line. What the row itself says of a voice and a language is of no dialogue.
    turns = models.JSONField(
        _("turns"), default=list, blank=True, db_default=[], help_text=_("Of a dialogue: who says what, and when")
    )

    class Meta(Job.Meta):
        verbose_name = _("synthesis")
        verbose_name_plural = _("syntheses")
        abstract = False

    @property
    def resumable(self) -> bool:
        return self.background

    def heard(self) -> tuple[Any, str]:
        return self.audio, self.response_format

    @property
    def shown_title(self) -> str:
        if self.title:
            return self.title
        beginning = TAG.sub(" ", self.text[:TITLED_CHARACTERS])
        return first_words(without_markdown(beginning)) or first_words(self.text)

    @property
    def pronunciations(self) -> Lexicon:
        """How words of the text are said."""
        return Lexicon.of_json(self.lexicon)

    @property
    def characters(self) -> int:
        return sum(len(turn["text"]) for turn in self.turns) if self.turns else len(self.text)

    @property
    def voice_ids(self) -> list[uuid.UUID]:
        spoken_by = {uuid.UUID(turn["voice_id"]) for turn in self.turns if turn["voice_id"]}
        return [*super().voice_ids, *sorted(spoken_by)]

    @classmethod
    def made_with(cls, voice_ids: Collection[uuid.UUID]) -> models.Q:
        speakers = DialogueSpeaker.objects.filter(voice_id__in=voice_ids)
        return super().made_with(voice_ids) | models.Q(pk__in=speakers.values("synthesis_id"))

    def accept_parts(self) -> None:
        if self.turns:
            speakers = [DialogueSpeaker(synthesis=self, voice_id=voice_id) for voice_id in self.voice_ids]
            DialogueSpeaker.objects.bulk_create(speakers)

    def alike(self) -> models.Q:
        return models.Q(engine=self.engine, background=self.background)

    def expected_seconds(self) -> float:
        if self.turns:
            return sum(speaking_seconds(turn["text"]) / turn["speed"] + turn["pause_seconds"] for turn in self.turns)
        return speaking_seconds(self.text) / self.speed

    def made_seconds(self) -> float:
        if self.status == JobStatus.SUCCEEDED:
            return self.duration_seconds or 0.0
        # Canceled on its way: who was making it knows better, and says so (usage.correct).
        return self.expected_seconds() * self.progress / 100

    def revoke(self, ttl_hours: float = 24) -> bool:
        references.forget(self.reference_hash)
        return super().revoke(ttl_hours)

    def remove(self) -> None:
        super().remove()
        references.forget(self.reference_hash)

    @classmethod
    def for_workers(cls) -> models.QuerySet:
        return cls.objects.filter(background=True)

    @classmethod
    def output_fields(cls) -> list[str]:
        return ["audio"]


class DialogueSpeaker(models.Model):
    """A saved voice that speaks in a dialogue, so that the dialogues of a voice are found when it is taken down."""

    synthesis = models.ForeignKey(Synthesis, on_delete=models.CASCADE, related_name="speakers")
    # Not a foreign key, as in Job.
    voice_id = models.UUIDField(db_index=True)

    class Meta:
        verbose_name = _("speaker of a dialogue")
        verbose_name_plural = _("speakers of dialogues")
