"""The states of a job, what a failed one says, and the error for one whose voice was taken down."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _
from django.utils.translation import gettext_noop

from voiceproject.errors import PublicError

# What a client reads in `error_message` of a failed job. The rest of the story (standard error) is the operator's.
ERROR_MESSAGES = {
    "preprocess_failed": gettext_noop("The song or the reference could not be prepared."),
    "separation_failed": gettext_noop("The vocals could not be separated from the song."),
    "no_vocals": gettext_noop("No singing was found in the song."),
    "inference_failed": gettext_noop("The vocals could not be converted to the reference's voice."),
    "mix_failed": gettext_noop("The converted vocals could not be mixed with the accompaniment."),
    "out_of_memory": gettext_noop("The work needed more memory than there is. Try a shorter song."),
    "timed_out": gettext_noop("The work took longer than it may."),
    "too_long": gettext_noop("The audio is too long."),
    "worker_lost": gettext_noop("The worker was lost each time that this job was tried."),
    "storage_full": gettext_noop("The server's storage is full. Try again later."),
    "engine_error": gettext_noop("The speech engine could not make this audio."),
    "dataset_refused": gettext_noop("No voice can be trained on these recordings. See the report."),
    "training_failed": gettext_noop("The training broke off. Try again; operators can see why."),
    "not_better": gettext_noop(
        "Nothing that was trained speaks better than the untrained model, so nothing is kept. Send more, or cleaner, "
        "speech."
    ),
}


class JobStatus(models.TextChoices):
    QUEUED = "queued", _("Queued")
    RUNNING = "running", _("Running")
    SUCCEEDED = "succeeded", _("Succeeded")
    FAILED = "failed", _("Failed")
    CANCELED = "canceled", _("Canceled")


LIVE = (JobStatus.QUEUED, JobStatus.RUNNING)
TERMINAL = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELED)


def revoked() -> PublicError:
    return PublicError(
        "revoked", gettext_noop("The operator has taken this voice down; what was made with it is gone.")
    )
