"""Files in an S3 bucket that all hosts share. Loaded where `STORAGE_URL` names one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from django.utils.deconstruct import deconstructible
from storages.backends.s3 import S3Storage

CONNECT_SECONDS, READ_SECONDS = 5, 60
PRESIGNED_SECONDS = 300


@deconstructible
class BucketStorage(S3Storage):
    """Files in a private S3 bucket, by django-storages. Parts of files are read as parts."""

    def __init__(self, **options: Any) -> None:
        # Buckets of servers other than Amazon's are found by path. A dead server is noticed within seconds; a passing
        # fault is tried again by botocore.
        style = "path" if options.get("endpoint_url") else "auto"
        config = Config(
            signature_version="s3v4",
            s3={"addressing_style": style},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"max_attempts": 4, "mode": "standard"},
        )
        defaults = {
            "client_config": config,
            "default_acl": None,
            "file_overwrite": False,
            "querystring_auth": True,
            "querystring_expire": PRESIGNED_SECONDS,
            "max_memory_size": 1024 * 1024,
        }
        super().__init__(**{**defaults, **options})

    def blocks(self, name: str, start: int, length: int, block_bytes: int) -> Iterator[bytes]:
        """`length` bytes from `start` on, asked for as a range: a player's jump does not fetch the whole file."""
        body = self.bucket.Object(self._normalize_name(name)).get(Range=f"bytes={start}-{start + length - 1}")["Body"]
        with closing(body):
            yield from body.iter_chunks(block_bytes)

    def fetch(self, name: str, path: Path) -> None:
        try:
            self.bucket.download_file(self._normalize_name(name), str(path))
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                raise FileNotFoundError(name) from error
            raise

    def reachable(self, seconds: float) -> bool:
        """Whether the bucket answers and lets us in, within about `seconds`."""
        quick = Config(connect_timeout=seconds, read_timeout=seconds, retries={"total_max_attempts": 1})
        client = self._create_session().client(
            "s3",
            region_name=self.region_name,
            endpoint_url=self.endpoint_url,
            config=self.client_config.merge(quick),
        )
        try:
            client.head_bucket(Bucket=self.bucket_name)
        except (BotoCoreError, ClientError):
            return False
        finally:
            client.close()
        return True
