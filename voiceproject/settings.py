"""All settings, read from the environment or a `.env` file beside manage.py. `.env.example` documents each."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import secrets
import socket
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dj_database_url
from django.templatetags.static import static
from django.utils.translation import gettext_lazy

from voiceproject.commands.template import CommandTemplate
from voiceproject.env import BadSetting, Env, check_url, not_writable, s3_options
from voiceproject.web import client_ip, cors, openapi_settings

BASE_DIR = Path(__file__).resolve().parent.parent
env = Env.read(BASE_DIR / ".env")

MAX_SECONDS = 30 * 24 * 3600
MAX_HOURS = 10 * 365 * 24

# --- The frame -------------------------------------------------------------------------------------------------------

DEBUG = env.flag("DEBUG", False)
HTTPS = env.flag("HTTPS", False)
ALLOWED_HOSTS = env.hosts("ALLOWED_HOSTS", ["localhost", "127.0.0.1", "[::1]"])

DATA_DIR = env.path("DATA_DIR", BASE_DIR / "data")
SCRATCH_DIR = DATA_DIR / "scratch"
UPLOAD_DIR = DATA_DIR / "uploads"
CACHE_DIR = DATA_DIR / "cache"
try:
    for folder in (DATA_DIR, SCRATCH_DIR, UPLOAD_DIR, CACHE_DIR, DATA_DIR / "media"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "Nothing can be written there", str(folder))
except OSError as error:
    raise not_writable("DATA_DIR", error, DATA_DIR) from None


def _stored_secret_key(path: Path) -> str:
    """The key kept in DATA_DIR; made by whichever process comes first (link() fails for all the others)."""
    if not path.exists():
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        fresh.touch(mode=0o600)
        fresh.write_text(secrets.token_urlsafe(64))
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return path.read_text().strip()


try:
    SECRET_KEY = env.text("SECRET_KEY") or _stored_secret_key(DATA_DIR / "secret_key")
except OSError as error:
    raise not_writable("DATA_DIR", error, DATA_DIR) from None
if len(SECRET_KEY) < 32:
    raise BadSetting("SECRET_KEY", "must have at least 32 characters")

INSTALLED_APPS = [
    "voiceproject",  # Some templates of the console go before those of the packages.
    "unfold.apps.BasicAppConfig",
    "voiceproject.apps.ConsoleConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "corsheaders",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "voices",
    "covers",
]

MIDDLEWARE = [
    # Outermost: every answer, also one made by a middleware below, carries the request id and is logged.
    "voiceproject.web.middleware.RequestMiddleware",
    "voiceproject.web.middleware.CompatHostMiddleware",
    "voiceproject.web.compression.TextCompressionMiddleware",
    "corsheaders.middleware.CorsMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "voiceproject.web.static_files.StaticFilesMiddleware",
    "voiceproject.web.middleware.PageBodyMiddleware",
    "voiceproject.web.middleware.PathMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "voiceproject.web.middleware.PageLanguageMiddleware",
    "voiceproject.web.middleware.HostMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "voiceproject.urls"
WSGI_APPLICATION = "voiceproject.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
            "libraries": {"console": "voiceproject.console.tags"},
        },
    }
]

# SQLAlchemy writes a driver into the scheme, as in postgresql+asyncpg:// and sqlite+aiosqlite://. Django has its own.
DATABASE_URL = re.sub(r"^(\w+)\+\w+:", r"\1:", env.text("DATABASE_URL", f"sqlite:///{DATA_DIR / 'db.sqlite3'}"))
try:
    _database = dj_database_url.parse(DATABASE_URL, conn_max_age=60, conn_health_checks=True)
except ValueError:
    raise BadSetting("DATABASE_URL", "must be a URL like postgres://user:password@host:5432/name") from None
if _database.get("ENGINE") not in ("django.db.backends.sqlite3", "django.db.backends.postgresql"):
    raise BadSetting("DATABASE_URL", "must be a postgres:// or sqlite:/// URL")
if _database["ENGINE"].endswith("sqlite3"):
    # Readers never wait for a writer (WAL); a transaction takes the write lock at its start, so that reading and then
    # writing cannot fail half-way; a busy lock is waited for. Each thread has a connection, and of what one has read
    # (up to 2 MB by default) a write of any other leaves nothing.
    _database["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-400;",
    }
    if ":" not in str(_database["NAME"]):  # Not :memory:
        _database["NAME"] = env.sqlite_file("DATABASE_URL", _database["NAME"])
        # It holds what tenants have written; SQLite's own files beside it get the same mode.
        try:
            Path(_database["NAME"]).parent.mkdir(parents=True, exist_ok=True)
            Path(_database["NAME"]).touch(mode=0o600)
        except OSError as error:
            place = "DATABASE_URL" if env.text("DATABASE_URL") else "DATA_DIR"
            raise not_writable(place, error, Path(_database["NAME"])) from None
    # Tests run several processes and threads on the same database: a file, not memory.
    _database["TEST"] = {"NAME": str(DATA_DIR / f"test-{os.getpid()}.sqlite3")}
else:
    # A server that has vanished from the network is noticed within seconds; the kernel alone takes a quarter of an
    # hour.
    for _name, _value in {
        "connect_timeout": 5,
        "tcp_user_timeout": 10_000,  # ms
        "keepalives_idle": 5,
        "keepalives_interval": 5,
        "keepalives_count": 2,
    }.items():
        _database.setdefault("OPTIONS", {}).setdefault(_name, _value)
DATABASES = {"default": _database}
DATABASE_POOL_SIZE = env.number("DATABASE_POOL_SIZE", 20, minimum=0, maximum=1000)
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = env.url("REDIS_URL", "", ("redis", "rediss", "unix"))

STORAGE_URL = env.text("STORAGE_URL")
STORAGE_PRESIGNED_REDIRECTS = env.flag("STORAGE_PRESIGNED_REDIRECTS", False)
_files: dict[str, Any] = {"BACKEND": "voiceproject.media.storage.WholeFileStorage"}
if STORAGE_URL:
    try:
        _files = {"BACKEND": "voiceproject.media.bucket.BucketStorage", "OPTIONS": s3_options(STORAGE_URL)}
    except ValueError as error:
        raise BadSetting("STORAGE_URL", str(error)) from None
STORAGES = {
    "default": _files,
    "staticfiles": {"BACKEND": "voiceproject.web.static_files.HashedNamesStorage"},
}
MEDIA_ROOT = DATA_DIR / "media"
FILE_UPLOAD_PERMISSIONS = 0o600
FILE_UPLOAD_DIRECTORY_PERMISSIONS = 0o700
STATIC_URL = "static/"
LOGIN_REDIRECT_URL = "admin:index"  # The tenants' page names its own.
# Static files are served from the packages themselves: nothing has to be collected first.
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG

# An upload goes to disk as it arrives, never into memory.
FILE_UPLOAD_HANDLERS = ["django.core.files.uploadhandler.TemporaryFileUploadHandler"]
FILE_UPLOAD_TEMP_DIR = str(UPLOAD_DIR)
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024
DATA_UPLOAD_MAX_NUMBER_FIELDS = 100
DATA_UPLOAD_MAX_NUMBER_FILES = 10

USE_TZ = True
TIME_ZONE = "UTC"
USE_I18N = True
# The API, logs and what is stored are English; pages for people are in the reader's language (PageLanguageMiddleware).
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("zh-hans", "简体中文")]
FORMAT_MODULE_PATH = "voiceproject.console.formats"
LOCALE_PATHS = [BASE_DIR / "voiceproject" / "locale"]
LANGUAGE_COOKIE_AGE = 365 * 24 * 3600
LANGUAGE_COOKIE_HTTPONLY = True
LANGUAGE_COOKIE_SAMESITE = "Lax"
LANGUAGE_COOKIE_SECURE = HTTPS

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]

# --- Clients of other services ---------------------------------------------------------------------------------------

GPTSOVITS_COMPAT_AT_ROOT = env.flag("GPTSOVITS_COMPAT_AT_ROOT", False)
GPTSOVITS_ADDRESS_KEYS = env.flag("GPTSOVITS_ADDRESS_KEYS", False)

# --- Browsers --------------------------------------------------------------------------------------------------------

COMPAT_HOSTS = env.pairs("COMPAT_HOSTS", ("openai", "elevenlabs", "gptsovits"))
ALLOWED_HOSTS = [*ALLOWED_HOSTS, *(host for host in COMPAT_HOSTS if host not in ALLOWED_HOSTS)]
OPEN_VOICES_OF = env.text("OPEN_VOICES_OF")

CORS_ORIGINS = [
    check_url("CORS_ORIGINS", origin, ("http", "https"), origin=True)
    for origin in env.words("CORS_ORIGINS", ["http://localhost:3000"])
]
CORS_ALLOWED_ORIGINS = CORS_ORIGINS
CORS_URLS_REGEX = r"^/(api/|openai/|elevenlabs/|gptsovits(/|$)|health$|openapi\.json$).*"
if GPTSOVITS_COMPAT_AT_ROOT:
    CORS_URLS_REGEX = rf"{CORS_URLS_REGEX}|^/(tts|speakers|set_gpt_weights|set_sovits_weights)?$"
CORS_ALLOW_HEADERS, CORS_EXPOSE_HEADERS = cors.ALLOWED, cors.EXPOSED

SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CSRF_FAILURE_VIEW = "voiceproject.web.errors.csrf_failure"
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"
CSRF_TRUSTED_ORIGINS = [
    check_url("CSRF_TRUSTED_ORIGINS", origin, ("https", "http"), origin=True)
    for origin in env.words("CSRF_TRUSTED_ORIGINS", [])
]
SECURE_REDIRECT_EXEMPT = [r"^health/?$"]  # A probe comes from inside, without TLS.
if HTTPS:
    SECURE_SSL_REDIRECT = True
    SECURE_HSTS_SECONDS = 365 * 24 * 3600
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

UNFOLD = {
    "SITE_TITLE": gettext_lazy("Voice console"),
    "SITE_HEADER": gettext_lazy("Voice console"),
    "SITE_SYMBOL": "graphic_eq",
    "SITE_FAVICONS": [{"rel": "icon", "href": lambda request: static("voiceproject/icon.svg")}],
    "STYLES": [lambda request: static("voiceproject/console.css")],
    "SCRIPTS": [lambda request: static("voiceproject/console.js")],
    "SHOW_VIEW_ON_SITE": False,
    "SHOW_LANGUAGES": True,
    "SIDEBAR": {"navigation": "voiceproject.console.site.navigation"},
}
# Whose X-Forwarded-For is believed: networks, and the word unix for proxies that connect through a Unix socket.
try:
    TRUSTED_PROXIES = [
        word if word == client_ip.UNIX else client_ip.parse_network(word) for word in env.words("TRUSTED_PROXIES", [])
    ]
except ValueError as error:
    raise BadSetting("TRUSTED_PROXIES", f"must be networks like 10.1.0.0/16: {error}") from None

# --- The API ---------------------------------------------------------------------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["voices.keys.auth.ApiKeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["voices.keys.auth.HasScope"],
    "DEFAULT_THROTTLE_CLASSES": ["voices.keys.auth.WithinRate"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["voiceproject.web.uploads.MultiPartParser", "voiceproject.web.api.BoundedJSONParser",
                               "rest_framework.parsers.FormParser"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "voiceproject.web.api.IgnoreAccept",
    "DEFAULT_SCHEMA_CLASS": "voiceproject.web.schema.EnvelopeSchema",
    "EXCEPTION_HANDLER": "voiceproject.web.errors.exception_handler",
    "URL_FORMAT_OVERRIDE": None,
    "UNAUTHENTICATED_USER": None,
}  # fmt: skip

SPECTACULAR_SETTINGS = openapi_settings.SPECTACULAR_SETTINGS

API_KEY = env.text("API_KEY")
if API_KEY:
    _PLACEHOLDERS = ("your-api-key", "your_api_key", "changeme", "change-me", "change_me", "placeholder", "example",
                     "your-secure-api-key", "secret-key-here", "api-key-here")  # fmt: skip
    if any(word in API_KEY.lower() for word in _PLACEHOLDERS) or len(set(API_KEY)) < 5:
        raise BadSetting("API_KEY", "is a placeholder; make one with: "
                         'python -c "import secrets; print(secrets.token_urlsafe(32))"')  # fmt: skip
    if len(API_KEY) < 16:
        raise BadSetting("API_KEY", "must have at least 16 characters")
    if not API_KEY.isascii() or not API_KEY.isprintable() or " " in API_KEY:
        raise BadSetting("API_KEY", "must be printable ASCII without spaces, since it travels in a header")

MAX_UPLOAD_SIZE = env.number("MAX_UPLOAD_SIZE", 10 * 1024 * 1024)
RATE_LIMIT_PER_MINUTE = env.number("RATE_LIMIT_PER_MINUTE", 0, minimum=0, maximum=1_000_000)

# --- Quotas ---------------------------------------------------------------------------------------------------------

MONTHLY_AUDIO_SECONDS = env.number("MONTHLY_AUDIO_SECONDS", 0, minimum=0)
MAX_STORAGE_BYTES = env.number("MAX_STORAGE_BYTES", 0, minimum=0)

# --- Texts -----------------------------------------------------------------------------------------------------------

TEXT_FILTER = env.text("TEXT_FILTER")
TEXT_FILTER_WORDS = env.path("TEXT_FILTER_WORDS", DATA_DIR / "refused-words.txt")

# --- Speech ----------------------------------------------------------------------------------------------------------

SOVITS_BASE_URLS = [check_url("SOVITS_BASE_URL", url, ("http", "https")) for url in env.words("SOVITS_BASE_URL", [])]
VOICE_ENGINES = {
    "builtin": "voices.engines.builtin.engine.BuiltinEngine",
    "gptsovits": "voices.engines.gptsovits.configured.ConfiguredGptSovits",
}
VOICE_ENGINE = env.text("VOICE_ENGINE", "gptsovits" if SOVITS_BASE_URLS else "builtin", choices=tuple(VOICE_ENGINES))
if VOICE_ENGINE == "gptsovits" and not SOVITS_BASE_URLS:
    SOVITS_BASE_URLS = ["http://localhost:9880"]
SOVITS_PROTOCOL = env.text("SOVITS_PROTOCOL", "api_v2", choices=("api_v2", "voiceproject"))
SOVITS_TOKEN = env.text("SOVITS_TOKEN")
if not SOVITS_TOKEN.isascii() or not (SOVITS_TOKEN + "x").isprintable() or " " in SOVITS_TOKEN:
    raise BadSetting("SOVITS_TOKEN", "must be printable ASCII without spaces, since it travels in a header")
SOVITS_PINNED_MODELS: dict[str, str] = {}
for _pin in env.words("SOVITS_PINNED_MODELS", []):
    _url, _, _model = _pin.rpartition("=")
    _url = _url.strip().rstrip("/")
    if _url not in SOVITS_BASE_URLS or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", _model.strip()):
        raise BadSetting("SOVITS_PINNED_MODELS", "must be URL=model, with URLs as they stand in SOVITS_BASE_URL")
    SOVITS_PINNED_MODELS[_url] = _model.strip()
SOVITS_TIMEOUT = env.number("SOVITS_TIMEOUT", 300, maximum=MAX_SECONDS)
SOVITS_REFERENCE_DIR = env.path("SOVITS_REFERENCE_DIR", DATA_DIR / "references")
SOVITS_REFERENCE_DIR_ON_SERVER = env.text("SOVITS_REFERENCE_DIR_ON_SERVER", str(SOVITS_REFERENCE_DIR))
SOVITS_QUEUE_SECONDS = env.number("SOVITS_QUEUE_SECONDS", 60, maximum=MAX_SECONDS)
SOVITS_MAX_WAITING = env.number("SOVITS_MAX_WAITING", 1000)
BUILTIN_CONCURRENCY = env.number("BUILTIN_CONCURRENCY", 1, maximum=64)
BUILTIN_QUEUE_SECONDS = env.number("BUILTIN_QUEUE_SECONDS", 60, maximum=MAX_SECONDS)
BUILTIN_MAX_WAITING = env.number("BUILTIN_MAX_WAITING", 1000)
SYNTHESIS_TIMEOUT_SECONDS = env.number("SYNTHESIS_TIMEOUT_SECONDS", 600, maximum=MAX_SECONDS)
SYNTHESIS_ASYNC_TIMEOUT_SECONDS = env.number("SYNTHESIS_ASYNC_TIMEOUT_SECONDS", 3600, maximum=MAX_SECONDS)
SYNTHESIS_CONCURRENCY = env.number("SYNTHESIS_CONCURRENCY", 1, minimum=0, maximum=64)
SYNTHESIS_MAX_ATTEMPTS = env.number("SYNTHESIS_MAX_ATTEMPTS", 3)
SYNTHESIS_MAX_QUEUED = env.number("SYNTHESIS_MAX_QUEUED", 100)
SYNTHESIS_MAX_RUNNING = env.number("SYNTHESIS_MAX_RUNNING", 4)
SYNTHESIS_TTL_HOURS = env.number("SYNTHESIS_TTL_HOURS", 24, maximum=MAX_HOURS)

# --- Links to what was made ------------------------------------------------------------------------------------------

SHARING = env.flag("SHARING", True)
SHARE_REQUESTS_PER_MINUTE = env.number("SHARE_REQUESTS_PER_MINUTE", 60, minimum=1, maximum=10_000)

# --- Provenance ------------------------------------------------------------------------------------------------------

C2PA_CERT = env.optional_path("C2PA_CERT")
C2PA_KEY = env.optional_path("C2PA_KEY")
if bool(C2PA_CERT) != bool(C2PA_KEY):
    raise BadSetting("C2PA_CERT" if C2PA_KEY else "C2PA_KEY", "is missing: set both, or neither")
WAV_MANIFEST = env.flag("WAV_MANIFEST", True)

# --- Covers ----------------------------------------------------------------------------------------------------------

COVER_SEPARATE_CMD_TEMPLATE = env.text(
    "COVER_SEPARATE_CMD_TEMPLATE",
    "{python_exec} gpu_scripts/builtin_separate.py --input {song_input} --vocal {vocal_output} --inst {inst_output}",
)
COVER_INFER_CMD_TEMPLATE = env.text(
    "COVER_INFER_CMD_TEMPLATE",
    "{python_exec} gpu_scripts/builtin_infer.py --reference {reference_voice} --input {input_vocal} "
    "--output {output_vocal} --pitch {pitch_shift}",
)
COVER_SEPARATE_PLACEHOLDERS = frozenset(
    {"python_exec", "project_root", "song_input", "vocal_output", "inst_output", "uvr_model"}
)
COVER_INFER_PLACEHOLDERS = frozenset(
    {"python_exec", "project_root", "reference_voice", "input_vocal", "output_vocal", "model_id", "pitch_shift",
     "reference_text_file", "lyrics_file", "gpt_weights", "sovits_weights", "voice_weights", "voice_index",
     "model_version"}
)  # fmt: skip
for _name, _template, _placeholders in (
    ("COVER_SEPARATE_CMD_TEMPLATE", COVER_SEPARATE_CMD_TEMPLATE, COVER_SEPARATE_PLACEHOLDERS),
    ("COVER_INFER_CMD_TEMPLATE", COVER_INFER_CMD_TEMPLATE, COVER_INFER_PLACEHOLDERS),
):
    for _problem in CommandTemplate(_template, _placeholders).problems:
        raise BadSetting(_name, _problem)
GPT_SOVITS_PYTHON = env.text("GPT_SOVITS_PYTHON", sys.executable)
GPT_SOVITS_PROJECT_ROOT = env.path("GPT_SOVITS_PROJECT_ROOT", BASE_DIR)
COVER_UVR_MODEL = env.text("COVER_UVR_MODEL", "HP2_all_vocals")
COVER_FIND_VOICE = env.flag("COVER_FIND_VOICE", True)
COVER_MAX_UPLOAD_SIZE = env.number("COVER_MAX_UPLOAD_SIZE", 100 * 1024 * 1024)
COVER_MAX_DURATION_SECONDS = env.number("COVER_MAX_DURATION_SECONDS", 480, maximum=MAX_SECONDS)
COVER_RESULT_TTL_HOURS = env.number("COVER_RESULT_TTL_HOURS", 24, maximum=MAX_HOURS)
COVER_CONCURRENCY = env.number("COVER_CONCURRENCY", 1, maximum=64)
COVER_STAGE_TIMEOUT_SECONDS = env.number("COVER_STAGE_TIMEOUT_SECONDS", 3600, maximum=MAX_SECONDS)
COVER_TIMEOUT_SECONDS = env.number("COVER_TIMEOUT_SECONDS", 7200, maximum=MAX_SECONDS)
COVER_MAX_ATTEMPTS = env.number("COVER_MAX_ATTEMPTS", 3)
COVER_MAX_QUEUED = env.number("COVER_MAX_QUEUED", 100)
COVER_MAX_RUNNING = env.number("COVER_MAX_RUNNING", 4)
COVER_RESIDENT = env.flag("COVER_RESIDENT", False)
COVER_RESIDENT_JOBS = env.number("COVER_RESIDENT_JOBS", 20)
COVER_RESIDENT_IDLE_SECONDS = env.number("COVER_RESIDENT_IDLE_SECONDS", 600, maximum=MAX_SECONDS)
COVER_SCRATCH_MAX_BYTES = env.number("COVER_SCRATCH_MAX_BYTES", 8 * 1024**3)

# --- Training --------------------------------------------------------------------------------------------------------

TRAINING_PLACEHOLDERS = frozenset(
    {"python_exec", "project_root", "dataset", "work", "output", "model_id", "version", "language", "sovits_epochs",
     "gpt_epochs", "epochs", "batch", "seed"}
)  # fmt: skip
TRAINING_GPTSOVITS_CMD_TEMPLATE = env.text("TRAINING_GPTSOVITS_CMD_TEMPLATE")
TRAINING_RVC_CMD_TEMPLATE = env.text("TRAINING_RVC_CMD_TEMPLATE")
for _name, _template in (
    ("TRAINING_GPTSOVITS_CMD_TEMPLATE", TRAINING_GPTSOVITS_CMD_TEMPLATE),
    ("TRAINING_RVC_CMD_TEMPLATE", TRAINING_RVC_CMD_TEMPLATE),
):
    for _problem in CommandTemplate(_template, TRAINING_PLACEHOLDERS).problems if _template else ():
        raise BadSetting(_name, _problem)
TRAINING_GPTSOVITS_VERSIONS = env.words("TRAINING_GPTSOVITS_VERSIONS", ["v2Pro"])
if not TRAINING_GPTSOVITS_VERSIONS or set(TRAINING_GPTSOVITS_VERSIONS) - {"v2", "v2Pro", "v2ProPlus"}:
    raise BadSetting("TRAINING_GPTSOVITS_VERSIONS", "must be some of v2, v2Pro, v2ProPlus")
TRAINING_CONCURRENCY = env.number("TRAINING_CONCURRENCY", 0, minimum=0, maximum=64)
TRAINING_MAX_UPLOAD_SIZE = env.number("TRAINING_MAX_UPLOAD_SIZE", 1024**3)
TRAINING_MAX_FILES = env.number("TRAINING_MAX_FILES", 100, maximum=2000)
TRAINING_MAX_MINUTES = env.number("TRAINING_MAX_MINUTES", 90, maximum=1440)
TRAINING_TIMEOUT_SECONDS = env.number("TRAINING_TIMEOUT_SECONDS", 86_400, maximum=MAX_SECONDS)
TRAINING_CHECKPOINT_SECONDS = env.number("TRAINING_CHECKPOINT_SECONDS", 600, minimum=5, maximum=MAX_SECONDS)
TRAINING_MAX_ATTEMPTS = env.number("TRAINING_MAX_ATTEMPTS", 3)
TRAINING_MAX_QUEUED = env.number("TRAINING_MAX_QUEUED", 10)
TRAINING_MAX_RUNNING = env.number("TRAINING_MAX_RUNNING", 1)
TRAINING_TTL_HOURS = env.number("TRAINING_TTL_HOURS", 168, maximum=MAX_HOURS)
TRAINING_SCRATCH_MAX_BYTES = env.number("TRAINING_SCRATCH_MAX_BYTES", 64 * 1024**3)
TRAINING_WEIGHTS_DOWNLOAD = env.flag("TRAINING_WEIGHTS_DOWNLOAD", False)
MODEL_CACHE_DIR = env.path("MODEL_CACHE_DIR", DATA_DIR / "models")
MODEL_CACHE_DIR_ON_SERVER = env.text("MODEL_CACHE_DIR_ON_SERVER", str(MODEL_CACHE_DIR))
MODEL_CACHE_MAX_BYTES = env.number("MODEL_CACHE_MAX_BYTES", 20 * 1024**3)

# --- Webhooks --------------------------------------------------------------------------------------------------------

PUBLIC_URL = env.url("PUBLIC_URL", "", ("https", "http"))
WEBHOOK_ALLOW_HTTP = env.flag("WEBHOOK_ALLOW_HTTP", False)
WORKER_SENDS_WEBHOOKS = env.flag("WORKER_SENDS_WEBHOOKS", True)
WEBHOOK_LOG_HOURS = env.number("WEBHOOK_LOG_HOURS", 168, maximum=MAX_HOURS)
try:
    WEBHOOK_ALLOWED_NETWORKS = [ipaddress.ip_network(words) for words in env.words("WEBHOOK_ALLOWED_NETWORKS", [])]
except ValueError as error:
    raise BadSetting("WEBHOOK_ALLOWED_NETWORKS", f"must be networks like 10.1.0.0/16: {error}") from None

# --- Workers ---------------------------------------------------------------------------------------------------------

WORKER_HOST = env.text("WORKER_HOST", socket.gethostname())
WORKER_HEARTBEAT_TIMEOUT_SECONDS = env.number("WORKER_HEARTBEAT_TIMEOUT_SECONDS", 30, minimum=5, maximum=MAX_SECONDS)
WORKER_LOOK_SECONDS = 2
WEB_PROCESSES = env.number("WEB_PROCESSES", 1, maximum=64)
WEB_THREADS = env.number("WEB_THREADS", 80, minimum=4, maximum=256)
WEB_STREAMS = env.number("WEB_STREAMS", 5000, maximum=100_000)
WEB_STREAMS_PER_TENANT = env.number("WEB_STREAMS_PER_TENANT", 1000, maximum=100_000)
WEB_AUDIO_MEMORY_MIB = env.number("WEB_AUDIO_MEMORY_MIB", 192, minimum=16, maximum=1_048_576)

# --- Logs ------------------------------------------------------------------------------------------------------------

LOG_LEVEL = env.text("LOG_LEVEL", "INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"))
LOG_FORMAT = env.text("LOG_FORMAT", "text", choices=("text", "json"))
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "text": {"()": "voiceproject.telemetry.logging.TextFormatter"},
        "json": {"()": "voiceproject.telemetry.logging.JsonFormatter"},
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": LOG_FORMAT}},
    "root": {"handlers": ["console"], "level": LOG_LEVEL},
    # An unhandled error is logged once, with its request id, by the code that answers it.
    "loggers": {
        "django.request": {"level": "CRITICAL"},
        "django.security.DisallowedHost": {"level": "CRITICAL"},
        "django.server": {"level": "WARNING"},
        "botocore": {"level": "WARNING"},
        "urllib3": {"level": "WARNING"},  # Its debug lines show URLs with their queries.
    },
}

# --- Observation -----------------------------------------------------------------------------------------------------

METRICS_TOKEN = env.text("METRICS_TOKEN")
if METRICS_TOKEN and (len(METRICS_TOKEN) < 16 or not METRICS_TOKEN.isascii() or not METRICS_TOKEN.isprintable()
                      or " " in METRICS_TOKEN):  # fmt: skip
    raise BadSetting("METRICS_TOKEN", "must be 16 or more printable ASCII characters without spaces")
WORKER_METRICS_PORT = env.number("WORKER_METRICS_PORT", 0, minimum=0, maximum=65535)
OTEL_EXPORTER_OTLP_ENDPOINT = env.url("OTEL_EXPORTER_OTLP_ENDPOINT", "", ("http", "https"))
SENTRY_DSN = env.text("SENTRY_DSN")
if SENTRY_DSN:
    _dsn = urlsplit(check_url("SENTRY_DSN", SENTRY_DSN, ("https", "http")))
    if not _dsn.username or not _dsn.path.strip("/"):
        raise BadSetting("SENTRY_DSN", "must be a URL like https://KEY@host/PROJECT, as Sentry shows it")
# Whom the product itself tells what is wrong: voiceproject.operations.alerts.
ALERT_EMAILS = env.words("ALERT_EMAILS", [])
for address in ALERT_EMAILS:
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", address):
        raise BadSetting("ALERT_EMAILS", f"{address!r} is not an e-mail address")
ALERT_WEBHOOK_URL = env.url("ALERT_WEBHOOK_URL", "", ("https", "http"))
ALERT_FAILED_PERCENT = env.number("ALERT_FAILED_PERCENT", 50, minimum=0, maximum=100)
ALERT_DISK_PERCENT = env.number("ALERT_DISK_PERCENT", 90, minimum=1, maximum=100)
ALERT_CERTIFICATE_DAYS = env.number("ALERT_CERTIFICATE_DAYS", 14)
EMAIL_HOST = env.text("EMAIL_HOST")
EMAIL_PORT = env.number("EMAIL_PORT", 25, maximum=65535)
EMAIL_HOST_USER = env.text("EMAIL_HOST_USER")
EMAIL_HOST_PASSWORD = env.text("EMAIL_HOST_PASSWORD")
EMAIL_USE_TLS = env.flag("EMAIL_USE_TLS", False)
EMAIL_USE_SSL = env.flag("EMAIL_USE_SSL", False)
DEFAULT_FROM_EMAIL = SERVER_EMAIL = env.text("EMAIL_FROM", "voice@localhost")
EMAIL_TIMEOUT = 10
if EMAIL_USE_TLS and EMAIL_USE_SSL:
    raise BadSetting(
        "EMAIL_USE_SSL", "cannot be with EMAIL_USE_TLS: the first is TLS from the start, the other STARTTLS"
    )
if ALERT_EMAILS and not EMAIL_HOST:
    raise BadSetting("ALERT_EMAILS", "needs EMAIL_HOST: there is no server that could send them")

# --- What was not read ----------------------------------------------------------------------------------------------

UNKNOWN_NAMES = env.unknown()  # Stays last: every setting has been asked for by now.
