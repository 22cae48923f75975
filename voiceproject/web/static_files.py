"""Static files, straight from the packages that bring them: no step has to collect them first.

Pages name `studio.3f2a94c0d1e5.js`, with a hash of the content, which browsers keep for a year. The plain name is
served too, for what one file names in another, such as a font in a style sheet; it is asked for again after a minute.
Texts are compressed once, into a folder of CACHE_DIR.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import os
import secrets
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.staticfiles import finders
from django.contrib.staticfiles.storage import StaticFilesStorage, staticfiles_storage
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from whitenoise.compress import Compressor
from whitenoise.middleware import WhiteNoiseMiddleware
from whitenoise.responders import StaticFile

YEAR_SECONDS = 365 * 24 * 3600
COMPRESSED_BYTES = 500  # What is smaller gains nothing by it.
# Source maps are large, and asked for by developer tools alone.
LEFT_ALONE = (*Compressor.SKIP_COMPRESS_EXTENSIONS, "map")


@functools.cache
def digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]


class HashedNamesStorage(StaticFilesStorage):
    """`{% static %}` gives the name with the hash; with DEBUG the plain one, since the file may change."""

    def url(self, name: str | None) -> str:
        path = None if settings.DEBUG or not name else _found(name)
        if path is None:
            return super().url(name)
        stem, suffix = os.path.splitext(str(name))
        return super().url(f"{stem}.{digest(path)}{suffix}")


@functools.cache
def _found(name: str) -> str | None:
    path = finders.find(name)
    return path if isinstance(path, str) and os.path.isfile(path) else None


class StaticFilesMiddleware(WhiteNoiseMiddleware):
    """WhiteNoise, which knows each file by its hashed name too."""

    FOREVER = YEAR_SECONDS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.packed = Path(settings.CACHE_DIR) / "static"
        self.packed.mkdir(mode=0o700, exist_ok=True)
        self.compressor = Compressor(LEFT_ALONE, quiet=True)
        super().__init__(*args, **kwargs)

    def add_file_to_dictionary(self, url: str, path: str, stat_cache: Any = None) -> None:
        super().add_file_to_dictionary(url, path, stat_cache)
        hashed = staticfiles_storage.url(url.removeprefix(self.static_prefix))
        if hashed != url:
            super().add_file_to_dictionary(hashed, path, stat_cache)

    def get_static_file(self, path: str, url: str, stat_cache: Any = None) -> StaticFile:
        file = super().get_static_file(path, url, stat_cache)
        if settings.DEBUG or (packed := self.compressed(path)) is None:
            return file
        headers = dict(file.alternatives[0][2])
        del headers["Content-Length"]
        return StaticFile(path, list(headers.items()), encodings={"gzip": str(packed)})

    def compressed(self, path: str) -> Path | None:
        """The file's compressed copy, which is made where there is none yet; None for what is left as it is."""
        if not self.compressor.should_compress(path) or os.path.getsize(path) < COMPRESSED_BYTES:
            return None
        packed = self.packed / f"{digest(path)}.gz"
        if not packed.exists():
            partial = packed.with_suffix(f".{secrets.token_hex(8)}")
            partial.write_bytes(gzip.compress(Path(path).read_bytes(), mtime=0))
            partial.replace(packed)
        return packed

    @staticmethod
    def serve(static_file: StaticFile, request: Any) -> HttpResponseBase:
        # Whole, and not as a stream of an open file, which Django gathers under ASGI anyhow.
        found = static_file.get_response(request.method, request.META)
        content = b""
        if found.file is not None:
            with found.file:
                content = found.file.read()
        response = HttpResponse(content, status=int(found.status))
        del response["Content-Type"]
        for name, value in found.headers:
            response[name] = value
        return response
