"""Fixtures: tenants with keys, a client, an engine that is quick, files to send.

The engine is a fake here: a tone, a tenth of a second for each character of a sentence up to thirty.
Everything around it is real.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management.color import no_style
from django.db import connection, connections
from django.test import TransactionTestCase
from rest_framework.test import APIClient

from tests import secrets_in_logs
from tests.support.audio import speech_like, wav_bytes
from voiceproject.media.storage import BucketStorage
from voices.engines import configured
from voices.engines.interface import EngineHealth, Piece, SynthesisRequest
from voices.keys.models import ApiKey
from voices.text.sentences import split

# They take longest. Begun last, one of them would keep one process busy while the other has nothing left to do.
LONGEST = (
    "test_builtin_engine", "test_last_release", "test_builtin_infer", "test_quickstart", "test_gptsovits_infer",
    "test_worker", "test_studio", "test_conversion", "test_japanese_chinese", "test_builtin_separate", "test_examples",
    "test_isolation", "test_openapi",
)  # fmt: skip
# What `migrate` makes beside the tables, and no test changes for good.
MADE_BY_MIGRATE = (ContentType, Permission, Group, Group.permissions.through)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


def empty_the_database(case: TransactionTestCase) -> None:
    """After a test that commits. Django's own way is `flush`, which makes permissions and roles anew each time, and
    that took longer than many a test."""
    kept = {model._meta.db_table for model in MADE_BY_MIGRATE}
    for name in case._databases_names(include_mirrors=False):
        database = connections[name]
        tables = database.introspection.django_table_names(only_existing=True, include_views=False)
        emptied = [table for table in tables if table not in kept]
        database.ops.execute_sql_flush(database.ops.sql_flush(no_style(), emptied))


@pytest.fixture(scope="session", autouse=True)
def quickly_emptied() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", empty_the_database)
        yield


def needs(program: str) -> None:
    """Skips where a program is missing; in CI, which installs it, that is a failure."""
    if shutil.which(program) is None:
        message = f"{program} is not installed"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)


@pytest.fixture(scope="session", autouse=True)
def no_secret_reaches_a_log() -> Iterator[None]:
    """At the end of all tests of this process; what they, and the servers that they started, have logged is looked
    through for what they have used."""
    with secrets_in_logs.watched() as watch:
        yield
        leaks = watch.leaks()
    assert not leaks, f"{len(leaks)} lines of the log show a secret or a text, such as {leaks[0]}"


@pytest.fixture
def redis_url() -> str:
    """A Redis server that a test may empty: TEST_REDIS_URL names it."""
    url = os.environ.get("TEST_REDIS_URL", "")
    if not url:
        message = "TEST_REDIS_URL is not set"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return url


def database_url() -> str:
    """Of the test's own database, for other processes."""
    database = django_settings.DATABASES["default"]
    if connection.vendor == "postgresql":
        return f"postgres://{database['USER']}@{database['HOST']}:{database['PORT']}/{database['NAME']}"
    return f"sqlite:///{database['NAME']}"


class FakeEngine:
    name = "builtin"
    languages = frozenset({"auto", "en", "zh", "ja"})
    sample_rate = 24_000

    def __init__(self) -> None:
        self.requests: list[SynthesisRequest] = []
        self.failure: BaseException | None = None
        self.before_piece: Callable[[int], None] = lambda index: None

    def synthesize(self, request: SynthesisRequest, deadline: float, canceled: Callable[[], bool]) -> Iterator[Piece]:
        self.requests.append(request)
        for index, sentence in enumerate(split(request.text, request.language)):
            self.before_piece(index)
            if self.failure:
                raise self.failure
            seconds = min(3.0, 0.1 * len(sentence.text)) / request.speed
            time = np.arange(int(seconds * self.sample_rate)) / self.sample_rate
            yield Piece((0.3 * np.sin(2 * np.pi * 220 * time)).astype(np.float32), self.sample_rate, sentence.text)

    def health(self) -> EngineHealth:
        return EngineHealth(self.name, available=True)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    fake = FakeEngine()
    monkeypatch.setattr(configured, "load_engine", functools.cache(lambda: fake))
    return fake


class Tenant:
    """A user with a key and a client that sends it."""

    def __init__(self, username: str, **key_fields: Any) -> None:
        self.user = User.objects.create(username=username)
        self.key, self.secret = ApiKey.objects.issue(self.user, "test", **key_fields)
        self.client = APIClient(headers={"X-API-Key": self.secret})


@pytest.fixture
def tenant(db: None) -> Tenant:
    return Tenant("alice")


@pytest.fixture
def other(db: None) -> Tenant:
    return Tenant("bob")


@pytest.fixture
def api(tenant: Tenant) -> APIClient:
    return tenant.client


def upload(content: bytes, name: str = "reference.wav", content_type: str = "audio/wav") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, content, content_type)


@pytest.fixture(scope="session")
def reference_wav() -> bytes:
    """4 s that pass for a reference."""
    return wav_bytes(speech_like(), 16_000)


@pytest.fixture
def leftovers() -> Callable[[], list[str]]:
    """What stands in the folders of uploads, scratch and media now."""

    def look() -> list[str]:
        folders = (django_settings.UPLOAD_DIR, django_settings.SCRATCH_DIR, django_settings.MEDIA_ROOT)
        files = [str(path) for folder in folders for path in Path(folder).rglob("*") if path.is_file()]
        if isinstance(default_storage, BucketStorage):
            files += [item.key for item in default_storage.bucket.objects.all()]
        return sorted(files)

    return look


@pytest.fixture(autouse=True)
def clean_media() -> Iterator[None]:
    yield
    for folder in (django_settings.UPLOAD_DIR, django_settings.SCRATCH_DIR, django_settings.MEDIA_ROOT):
        shutil.rmtree(folder, ignore_errors=True)
        Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    if django_settings.STORAGE_URL:
        default_storage.bucket.objects.all().delete()  # type: ignore[attr-defined]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
