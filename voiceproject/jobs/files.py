"""The files of a job: where they stand in the storage, how they are deleted, and what is swept up after them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.core.files import File
from django.core.files.storage import default_storage
from django.db import models
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from voiceproject.jobs import signals
from voiceproject.jobs.status import TERMINAL
from voiceproject.media.storage import is_passing
from voiceproject.web.names import download_name

log = logging.getLogger(__name__)


def delete_folder(folder: str) -> None:
    """Deletes all files of a storage's folder, and the folder itself where the storage knows folders."""
    try:
        _, files = default_storage.listdir(folder)
    except FileNotFoundError:
        return
    signals.deleting_files.send(sender=None, folder=folder)
    for name in files:
        default_storage.delete(f"{folder}/{name}")
    try:
        default_storage.delete(folder)
    except OSError:
        pass  # Somebody has put a file there this moment; the sweep of orphans finds it.


def sweep_folders(root: str, known: Callable[[str], bool], older_than_seconds: float) -> int:
    """Deletes the folders below `root` of the storage that are not `known` by their names, once all of their files are
    so old; how many."""
    try:
        folders, _ = default_storage.listdir(root)
    except FileNotFoundError:
        return 0
    limit = timezone.now() - timedelta(seconds=older_than_seconds)
    count = 0
    for name in folders:
        if known(name):
            continue  # Asked first: a bucket takes a request for each file's age.
        folder = f"{root}/{name}"
        _, files = default_storage.listdir(folder)
        young = any(default_storage.get_modified_time(f"{folder}/{file}") > limit for file in files)
        if not young and not known(name):
            delete_folder(folder)
            count += 1
    return count


class JobFiles(models.Model):
    """The part of a job that is about its files. Names in the storage are `<folder>/<attempt>-<name>`."""

    # Fields of Job, which has all of them in one place.
    attempt: int
    input_bytes: int
    output_bytes: int
    note: Callable[..., bool]

    class Meta:
        abstract = True

    @classmethod
    def held_bytes(cls, tenant_id: int) -> int:
        """What the tenant's files of this kind take."""
        rows: Any = cls._default_manager  # of the whole job: this is a part of it
        held = rows.filter(tenant=tenant_id, files_expired=False).order_by()
        total = held.aggregate(n=models.Sum(F("input_bytes") + F("output_bytes")))["n"]
        return int(total or 0)

    def store(self, field: str, path: Path, name: str) -> bool:
        """Puts a finished file where every host finds it. False, and nothing kept, when the job is no longer ours."""
        stored = self.upload(field, path, name)
        if self.note(**self.with_output(path.stat().st_size, **{field: stored})):
            return True
        getattr(self, field).storage.delete(stored)
        return False

    def upload(self, field: str, path: Path, name: str) -> str:
        """The first half of `store`: the file under its name in the storage, which no row knows yet."""
        with path.open("rb") as file:
            return str(getattr(self, field).storage.save(f"{self.folder}/{self.attempt}-{name}", File(file)))

    @classmethod
    def file_fields(cls) -> list[str]:
        return [field.name for field in cls._meta.get_fields() if isinstance(field, models.FileField)]

    @classmethod
    def output_fields(cls) -> list[str]:
        """The files that a canceled job does not keep. Subclasses leave their inputs out."""
        return cls.file_fields()

    @classmethod
    def outputs_from(cls, stage: str) -> list[str]:
        """The files that this stage and those after it make."""
        return cls.output_fields()

    @property
    def folder(self) -> str:
        """Where the job's files stand in the storage."""
        return f"{self.storage_folder()}/{self.pk}"

    @classmethod
    def storage_folder(cls) -> str:
        """Where the folders of this kind stand. Each kind has its own: what has no row there is swept."""
        return cls._meta.app_label

    @property
    def shown_title(self) -> str:
        """What people call the job; empty where it has no name."""
        return str(getattr(self, "title", ""))

    def download_names(self, extension: str, suffix: str = "") -> dict[str, str]:
        """The name of a file of the job that is downloaded, and one of ASCII, for `file_response`."""
        plain = f"{self.pk}{suffix}.{extension}"
        return {"filename": download_name(self.shown_title, extension, suffix) or plain, "plain": plain}

    def heard(self) -> tuple[Any, str]:
        """The file of what was made, as it is passed on to others, and its format. Of a job that has succeeded."""
        # Every kind of job has its own, and Django's metaclass knows no abstract methods.
        raise NotImplementedError(f"{type(self).__name__} does not say what is heard of it")

    def with_output(self, size: int, **fields: Any) -> dict[str, Any]:
        """`fields` for `note` or `succeed` that name one more file of `size` bytes."""
        return {**fields, "output_bytes": self.output_bytes + size}

    def delete_all(self) -> None:
        """Deletes everything that was sent and made."""
        self.delete_files(self.file_fields())
        rows: Any = type(self)._default_manager
        rows.filter(pk=self.pk).update(input_bytes=0)
        self.input_bytes = 0

    def delete_files(self, fields: list[str], **condition: Any) -> None:
        """Empties these file fields in the row, then deletes what they named; nothing where `condition` is not so."""
        stored = [(getattr(self, name).storage, getattr(self, name).name) for name in fields if getattr(self, name)]
        if stored:
            signals.deleting_files.send(sender=type(self), folder=self.folder)
        emptied: dict[str, Any] = dict.fromkeys(fields, "") | {"output_bytes": 0}
        if not type(self)._default_manager.filter(pk=self.pk, **condition).update(**emptied):
            return
        for name, value in emptied.items():
            setattr(self, name, value)
        self._delete_stored(stored)

    @staticmethod
    def _delete_stored(stored: list[tuple[Any, str]]) -> None:
        for storage, name in stored:
            try:
                storage.delete(name)
            except Exception as error:
                if not is_passing(error):
                    raise
                # No row names it any more; it goes with the job's folder.
                log.warning("a file could not be deleted yet: %s", error, extra={"file": name})

    @classmethod
    def sweep_orphans(cls, older_than_seconds: float) -> int:
        """Deletes the folders of jobs that have no row, or whose files have expired, left by a process that was killed
        between the two, or by a bucket that was away; how many."""
        rows: Any = cls._default_manager
        kept = rows.filter(files_expired=False)
        return sweep_folders(cls.storage_folder(), lambda name: kept.filter(pk=name).exists(), older_than_seconds)

    @classmethod
    def expire(cls) -> int:
        """Deletes the files of jobs past their time; the rows stay and say so. How many."""
        rows: Any = cls._default_manager
        ended = rows.filter(status__in=TERMINAL, files_expired=False)
        count = 0
        for job in ended.filter(expires_at__lt=Now())[:100]:
            if ended.filter(pk=job.pk).update(files_expired=True):
                job.delete_all()
                delete_folder(job.folder)
                count += 1
        return count
