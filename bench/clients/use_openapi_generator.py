"""By a client of openapi-generator's python."""

import importlib
import pkgutil
import sys
import time
from pathlib import Path

import generated
from generated import ApiClient, Configuration, CoverApi, VoiceApi
from generated.exceptions import BadRequestException

for module in pkgutil.walk_packages(generated.__path__, "generated."):
    importlib.import_module(module.name)

base, key, song, reference, folder = sys.argv[1:]
configuration = Configuration(host=base, api_key={"ApiKey": key}, access_token=key)
with ApiClient(configuration) as client:
    voices, covers = VoiceApi(client), CoverApi(client)
    said = voices.synthesize_without_preload_content(text="Made by a generated client.", reference_audio=reference)
    assert said.status == 200, said.read()
    Path(folder, "said.wav").write_bytes(said.read())
    job = covers.create_cover(song=song, reference_voice=reference, preview_seconds=10, pitch_shift="3")
    while job.status in ("queued", "running"):
        time.sleep(0.5)
        job = covers.get_cover(str(job.job_id), prefer="wait=30")
    assert (job.status, job.pitch_shift) == ("succeeded", 3), job
    Path(folder, "cover.wav").write_bytes(covers.get_cover_result(str(job.job_id)))
    try:
        covers.create_cover(song=song, reference_voice=reference, pitch_shift="99")
    except BadRequestException as refused:
        assert refused.data.error == "validation_error", refused
        assert "pitch_shift" in refused.data.details
    else:
        raise AssertionError("it was not refused")
