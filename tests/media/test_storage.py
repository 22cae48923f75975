"""Files in an S3 bucket, on a real S3 server (moto's): covers from submission to deletion, ranges, redirects."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
import soundfile as sf
from botocore.config import Config
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from rest_framework.test import APIClient

from covers.models import CoverJob
from tests.support.audio import upload
from tests.support.tenants import Tenant
from voiceproject.env import s3_options
from voiceproject.jobs.files import delete_folder
from voiceproject.jobs.job import Job
from voiceproject.media.bucket import BucketStorage
from voiceproject.media.storage import fetch, is_passing, read_blocks


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 server with nothing in it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 30
        while True:
            try:
                requests.get(url, timeout=5)
                break
            except requests.ConnectionError:
                assert server.poll() is None and time.monotonic() < deadline, "the S3 server does not start"
                time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture
def bucket(s3_server: str, settings: Any) -> Iterator[Any]:
    """A fresh private bucket, which the product keeps its files in during the test."""
    resource = boto3.resource(
        "s3",
        endpoint_url=s3_server,
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        config=Config(s3={"addressing_style": "path"}),
    )
    name = f"voices-{time.monotonic_ns()}"
    resource.create_bucket(Bucket=name)
    options = s3_options(f"s3://key:secret@{name}/files?endpoint={s3_server}&region=us-east-1")
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {"BACKEND": "voiceproject.media.bucket.BucketStorage", "OPTIONS": options},
    }
    yield resource.Bucket(name)


def keys(bucket: Any) -> list[str]:
    return sorted(item.key for item in bucket.objects.all())


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("https://bucket", "like s3://"),
        ("s3://", "like s3://"),
        ("s3://key@bucket", "without a secret"),
        ("s3://bucket?endpoint=host:9000", "endpoint"),
        ("s3://bucket?acl=public-read", "'acl'"),
    ],
)
def test_a_malformed_storage_url_says_what_is_wrong(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        s3_options(url)


def test_a_storage_url_may_have_a_prefix_and_signs_in_its_secret() -> None:
    options = s3_options("s3://AKIA:a%2Fb%3D@My-Bucket/team/voices?endpoint=http://127.0.0.1:9000&region=eu-1")
    assert options == {
        "bucket_name": "My-Bucket",
        "location": "team/voices",
        "endpoint_url": "http://127.0.0.1:9000",
        "region_name": "eu-1",
        "access_key": "AKIA",
        "secret_key": "a/b=",
    }


def test_settings_refuse_a_malformed_storage_url_in_one_line() -> None:
    environment = {**os.environ, "STORAGE_URL": "s3://key@bucket", "ENV_FILE": os.devnull}
    done = subprocess.run(
        [sys.executable, "-c", "import voiceproject.settings"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.strip() == "STORAGE_URL: has a key without a secret, or a secret without a key"


def test_a_part_of_a_file_is_read_as_a_part(bucket: Any, db: None, tmp_path: Path) -> None:
    content = os.urandom(1_500_000)
    name = default_storage.save("covers/x/1-result.wav", ContentFile(content))
    assert keys(bucket) == ["files/covers/x/1-result.wav"]
    assert b"".join(read_blocks(default_storage, name, 700_000, 400_001)) == content[700_000:1_100_001]
    fetch(default_storage, name, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content
    with pytest.raises(FileNotFoundError):
        fetch(default_storage, "covers/x/2-result.wav", tmp_path / "none")
    delete_folder("covers/x")
    assert keys(bucket) == []


def test_nothing_in_the_bucket_is_public(bucket: Any) -> None:
    name = default_storage.save("covers/x/1-result.wav", ContentFile(b"sound"))
    grants = bucket.Object(f"files/{name}").Acl().grants
    assert [grant["Grantee"]["Type"] for grant in grants] == ["CanonicalUser"]


def test_health_tells_a_bucket_that_answers_from_one_that_does_not(bucket: Any) -> None:
    assert isinstance(default_storage, BucketStorage)
    assert default_storage.reachable(2)
    gone = BucketStorage(bucket_name="voices-none", endpoint_url="http://127.0.0.1:9", region_name="us-east-1",
                         access_key="key", secret_key="secret")  # fmt: skip
    started = time.monotonic()
    assert not gone.reachable(1)
    assert time.monotonic() - started < 10


def submit(api: APIClient, reference_wav: bytes, song: bytes) -> CoverJob:
    response = api.post(
        "/api/v1/cover/jobs",
        {"song": upload(song, "song.wav"), "reference_voice": upload(reference_wav), "input_kind": "vocals"},
    )
    assert response.status_code == 202, response.json()
    return CoverJob.objects.get(pk=response.json()["job_id"])


@pytest.fixture
def finished(bucket: Any, api: APIClient, tenant: Tenant, reference_wav: bytes, tmp_path: Path) -> CoverJob:
    """A cover whose result stands in the bucket."""
    job = submit(api, reference_wav, reference_wav)
    claimed = CoverJob.claim("worker", "host", 1, 1)
    assert claimed is not None and claimed.pk == job.pk
    local = tmp_path / "result.wav"
    local.write_bytes(reference_wav)
    assert claimed.store("result", local, "result.wav")
    assert claimed.succeed(24)
    return claimed


def test_a_cover_is_submitted_fetched_in_ranges_and_deleted_in_a_bucket(
    finished: CoverJob, bucket: Any, api: APIClient, reference_wav: bytes, settings: Any
) -> None:
    assert keys(bucket) == [f"files/covers/{finished.pk}/{name}" for name in (
        "0-reference_voice", "0-song", "1-result.wav")]  # fmt: skip
    assert not [path for path in settings.MEDIA_ROOT.rglob("*") if path.is_file()]
    url = f"/api/v1/cover/jobs/{finished.pk}/result"
    whole = api.get(url)
    content = b"".join(whole.streaming_content)
    assert content == reference_wav
    assert sf.info(io.BytesIO(content)).duration == pytest.approx(4.0)
    part = api.get(url, headers={"Range": "bytes=100-1099"})
    assert part.status_code == 206
    assert part["Content-Range"] == f"bytes 100-1099/{len(reference_wav)}"
    assert b"".join(part.streaming_content) == reference_wav[100:1100]
    assert api.get(url, headers={"Range": "bytes=99999999-"}).status_code == 416
    assert api.delete(f"/api/v1/cover/jobs/{finished.pk}").status_code == 204
    assert keys(bucket) == []


def test_another_format_of_a_result_is_made_from_the_bucket(finished: CoverJob, bucket: Any, api: APIClient) -> None:
    response = api.get(f"/api/v1/cover/jobs/{finished.pk}/result?format=flac")
    assert sf.info(io.BytesIO(b"".join(response.streaming_content))).format == "FLAC"
    assert f"files/covers/{finished.pk}/1-result.flac" in keys(bucket)


def test_a_redirect_to_the_bucket_is_signed_private_and_opt_in(
    finished: CoverJob, bucket: Any, api: APIClient, other: Tenant, settings: Any, reference_wav: bytes
) -> None:
    url = f"/api/v1/cover/jobs/{finished.pk}/result"
    settings.STORAGE_PRESIGNED_REDIRECTS = True
    assert other.client.get(url).status_code == 404
    response = api.get(url)
    assert response.status_code == 307
    found = requests.get(response["Location"], timeout=10)
    assert found.content == reference_wav
    assert found.headers["Content-Type"] == "audio/wav"
    assert found.headers["Content-Disposition"] == f'attachment; filename="{finished.title}.wav"'
    assert "X-Amz-Signature" in response["Location"] and "X-Amz-Expires=300" in response["Location"]
    # Our own pages load nothing from elsewhere.
    of_ours = api.get(url, headers={"Sec-Fetch-Site": "same-origin"})
    assert b"".join(of_ours.streaming_content) == reference_wav
    assert api.get(url, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 307


def test_what_has_expired_leaves_the_bucket_and_is_gone(finished: CoverJob, bucket: Any, api: APIClient) -> None:
    from datetime import timedelta

    from django.db.models.functions import Now

    CoverJob.objects.filter(pk=finished.pk).update(expires_at=Now() - timedelta(seconds=1))
    assert CoverJob.expire() == 1
    assert keys(bucket) == []
    answer = api.get(f"/api/v1/cover/jobs/{finished.pk}/result")
    assert (answer.status_code, answer.json()["error"]) == (410, "result_expired")


def test_the_sweep_finds_files_without_a_job_in_a_bucket(finished: CoverJob, bucket: Any) -> None:
    default_storage.save("covers/00000000-0000-4000-8000-000000000000/1-result.wav", ContentFile(b"orphan"))
    kept = keys(bucket)[1:]
    assert CoverJob.sweep_orphans(3600) == 0
    assert CoverJob.sweep_orphans(-60) == 1
    assert keys(bucket) == kept
    assert isinstance(finished, Job)


def test_a_server_that_refuses_connections_is_away_and_nothing_is_wrong_with_the_file(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = s3_options(f"s3://key:secret@bucket?endpoint=http://127.0.0.1:{port}&region=us-east-1")
    storage = BucketStorage(**options, client_config=Config(retries={"total_max_attempts": 1}))
    for action in (lambda: fetch(storage, "x", tmp_path / "x"), lambda: storage.save("x", ContentFile(b"x"))):
        with pytest.raises(Exception) as caught:
            action()
        assert is_passing(caught.value), repr(caught.value)
    assert not is_passing(FileNotFoundError("x"))
