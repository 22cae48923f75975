"""The product's own settings, with a data folder of the test run's own and nothing of the developer's `.env`."""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

_folder = tempfile.mkdtemp(prefix="voiceproject-tests-")
atexit.register(shutil.rmtree, _folder, ignore_errors=True)

# Which servers the run has is the environment's to say; everything else starts from the defaults.
_KEPT = ("DATABASE_URL", "REDIS_URL", "STORAGE_URL", "LOG_LEVEL")
for _line in (Path(__file__).parent.parent / ".env.example").read_text(encoding="utf-8").splitlines():
    _name = _line.lstrip("# ").partition("=")[0].strip()
    if _name.isupper() and _name not in _KEPT:
        os.environ.pop(_name, None)
os.environ["ENV_FILE"] = os.devnull
os.environ["DATA_DIR"] = _folder
# Hundreds of processes are started, each of which would otherwise compile the product anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# What all processes of the run share is in the folder of the first one, which ends last.
os.environ.setdefault("TEST_RUN_DIR", _folder)

from voiceproject.settings import *  # noqa: E402, F403

# The songs of most tests are two tones, in which nobody sings.
COVER_FIND_VOICE = False
ALLOWED_HOSTS = ["testserver", "localhost", "127.0.0.1"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
