"""Static files, straight from the packages that bring them: no step has to collect them first.

Pages name `studio.3f2a94c0d1e5.js`, with a hash of the content, which browsers keep for a year. The plain name is
served too, for what one file names in another, such as a font in a style sheet; it is asked for again after a minute.
A file is looked at when it is first asked for: there are hundreds, and most are never. Texts are compressed once, into
a folder of CACHE_DIR.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import os
import re
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

HASH = re.compile(r"\.[0-9a-f]{12}(?=(\.[^./]+)?$)")  # in a name, before its ending
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
        path = None if settings.DEBUG or not name else _paths().get(name)
        if path is None:
            return super().url(name)
        stem, suffix = os.path.splitext(str(name))
        return super().url(f"{stem}.{digest(path)}{suffix}")


@functools.cache
def _paths() -> dict[str, str]:
    """Where the files are, by their plain names. Of two with one name, the first is found, as by Django's own."""
    found: dict[str, str] = {}
    for finder in finders.get_finders():
        for path, storage in finder.list(None):
            prefix = getattr(storage, "prefix", None)
            found.setdefault(f"{prefix}/{path}" if prefix else path, storage.path(path))
    return found


class StaticFilesMiddleware(WhiteNoiseMiddleware):
    """WhiteNoise, which knows each file by its hashed name too."""

    FOREVER = YEAR_SECONDS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.packed = Path(settings.CACHE_DIR) / "static"
        self.packed.mkdir(mode=0o700, exist_ok=True)
        self.compressor = Compressor(LEFT_ALONE, quiet=True)
        super().__init__(*args, **kwargs)

    def add_files_from_finders(self) -> None:
        """Adds none yet: `__call__` does."""

    def __call__(self, request: Any) -> Any:
        url = request.path_info
        if url.startswith(self.static_prefix) and not self.autorefresh and url not in self.files:
            self.look_for(url)
        return super().__call__(request)

    def look_for(self, url: str) -> None:
        name = url.removeprefix(self.static_prefix)
        path = _paths().get(name)
        if path is None:
            plain = HASH.sub("", name)
            path = _paths().get(plain)
            if path is None or staticfiles_storage.url(plain) != url:
                return
        self.add_file_to_dictionary(url, path)

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
