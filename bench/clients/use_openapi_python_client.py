"""By a client of openapi-python-client."""

import importlib
import io
import pkgutil
import sys
import time
from pathlib import Path

import httpx
import voiceclient
from voiceclient import AuthenticatedClient
from voiceclient.api.cover import create_cover, get_cover, get_cover_result
from voiceclient.api.voice import synthesize
from voiceclient.models import CoverJob, CreateCoverRequest, Error, SynthesizeRequest
from voiceclient.types import File

for module in pkgutil.walk_packages(voiceclient.__path__, "voiceclient."):
    importlib.import_module(module.name)  # Each operation is one of its own, and not all are used below.

base, key, song, reference, folder = sys.argv[1:]


def file(path: str) -> File:
    return File(payload=io.BytesIO(Path(path).read_bytes()), file_name=Path(path).name)


client = AuthenticatedClient(base_url=base, token=key, timeout=httpx.Timeout(600))
said = synthesize.sync_detailed(
    client=client, body=SynthesizeRequest(text="Made by a generated client.", reference_audio=file(reference))
)
assert said.status_code == 200, said.content
Path(folder, "said.wav").write_bytes(said.content)
job = create_cover.sync(
    client=client,
    body=CreateCoverRequest(song=file(song), reference_voice=file(reference), preview_seconds=10, pitch_shift="3"),
)
assert isinstance(job, CoverJob), job
while job.status in ("queued", "running"):
    time.sleep(0.5)
    found = get_cover.sync(job.job_id, client=client, prefer="wait=30")
    assert isinstance(found, CoverJob), found
    job = found
assert (job.status, job.pitch_shift) == ("succeeded", 3), job.error_message
result = get_cover_result.sync_detailed(job.job_id, client=client)
assert result.status_code == 200
Path(folder, "cover.wav").write_bytes(result.content)
refused = create_cover.sync(
    client=client, body=CreateCoverRequest(song=file(song), reference_voice=file(reference), preview_seconds=3)
)
assert isinstance(refused, Error) and refused.error == "validation_error", refused
assert "preview_seconds" in refused.details.additional_properties
