"""Settings: what they default to, what they refuse, and that .env.example tells all of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings

from tests.support.running.forked import run_forked
from voiceproject import settings as product_settings
from voiceproject.env import BadSetting, Env, check_host

EXAMPLE = Path(django_settings.BASE_DIR) / ".env.example"
SHOWN = """
import json, sys
from voiceproject import settings
print(json.dumps({name: getattr(settings, name) for name in sys.argv[1:]}, default=str))
"""


def start(tmp_path: Path, *names: str, dotenv: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """A fresh process that loads the settings and prints some of them as JSON."""
    (tmp_path / ".env").write_text(dotenv)
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "VIRTUAL_ENV")}
    environment = {**kept, "DATA_DIR": str(tmp_path / "data"), "ENV_FILE": str(tmp_path / ".env"), **environment}
    return run_forked(
        SHOWN, *names, cwd=Path(django_settings.BASE_DIR), environment=environment, log=tmp_path / "printed"
    )


def loaded(tmp_path: Path, *names: str, **environment: str) -> dict[str, Any]:
    result = start(tmp_path, *names, **environment)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_every_setting_is_documented_with_its_default_and_none_besides() -> None:
    documented = set(re.findall(r"^([A-Z][A-Z0-9_]+)=", EXAMPLE.read_text(), re.MULTILINE))
    assert documented == product_settings.env.names


def test_the_example_changes_nothing(tmp_path: Path) -> None:
    names = [name for name in sorted(product_settings.env.names) if hasattr(product_settings, name)]
    without = loaded(tmp_path, *names)
    assert len(without) > 30
    assert loaded(tmp_path, *names, dotenv=EXAMPLE.read_text()) == without


def test_the_defaults_that_were_promised(tmp_path: Path) -> None:
    promised = {
        "SOVITS_TIMEOUT": 300,
        "MAX_UPLOAD_SIZE": 10485760,
        "CORS_ORIGINS": ["http://localhost:3000"],
        "LOG_LEVEL": "INFO",
        "DEBUG": False,
        "COVER_UVR_MODEL": "HP2_all_vocals",
        "COVER_MAX_DURATION_SECONDS": 480,
        "COVER_RESULT_TTL_HOURS": 24,
        "BUILTIN_CONCURRENCY": 1,
        "VOICE_ENGINE": "builtin",
        "API_KEY": "",
    }
    assert loaded(tmp_path, *promised) == promised


@pytest.mark.parametrize(
    ("environment", "engine", "urls"),
    [
        ({}, "builtin", []),
        ({"SOVITS_BASE_URL": "http://gpu:9880/"}, "gptsovits", ["http://gpu:9880"]),
        ({"VOICE_ENGINE": "gptsovits"}, "gptsovits", ["http://localhost:9880"]),
        ({"VOICE_ENGINE": "builtin", "SOVITS_BASE_URL": "http://gpu:9880"}, "builtin", ["http://gpu:9880"]),
        ({"SOVITS_BASE_URL": "http://a:1, https://b:2"}, "gptsovits", ["http://a:1", "https://b:2"]),
    ],
)
def test_the_engine_follows_from_its_url_unless_it_is_named(
    tmp_path: Path, environment: dict[str, str], engine: str, urls: list[str]
) -> None:
    shown = loaded(tmp_path, "VOICE_ENGINE", "SOVITS_BASE_URLS", **environment)
    assert shown == {"VOICE_ENGINE": engine, "SOVITS_BASE_URLS": urls}


def test_servers_are_pinned_to_models(tmp_path: Path) -> None:
    pins = {"SOVITS_PINNED_MODELS": "http://b:2/ = anna, http://u:p%3D@c:3=default"}
    urls = {"SOVITS_BASE_URL": "http://a:1, http://b:2, http://u:p%3D@c:3"}
    shown = loaded(tmp_path, "SOVITS_PINNED_MODELS", **pins, **urls)["SOVITS_PINNED_MODELS"]
    assert shown == {"http://b:2": "anna", "http://u:p%3D@c:3": "default"}
    result = start(tmp_path, **urls, SOVITS_PINNED_MODELS="http://b:2=../anna")
    assert result.returncode == 1 and result.stderr.startswith("SOVITS_PINNED_MODELS: ")


@pytest.mark.parametrize(
    "value", ['["https://a.example", "http://b.example:3000"]', "https://a.example, http://b.example:3000/"]
)
def test_a_list_is_json_or_separated_by_commas(tmp_path: Path, value: str) -> None:
    assert loaded(tmp_path, "CORS_ORIGINS", CORS_ORIGINS=value)["CORS_ORIGINS"] == [
        "https://a.example",
        "http://b.example:3000",
    ]


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    dotenv = "SOVITS_TIMEOUT=10\nCOVER_UVR_MODEL='HP5 only'  # a comment\n"
    shown = loaded(tmp_path, "SOVITS_TIMEOUT", "COVER_UVR_MODEL", dotenv=dotenv, SOVITS_TIMEOUT="20")
    assert shown == {"SOVITS_TIMEOUT": 20, "COVER_UVR_MODEL": "HP5 only"}


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("COVER_CONCURENCY", "did you mean COVER_CONCURRENCY?"),
        ("sovits_base_url", "did you mean SOVITS_BASE_URL?"),
        ("SENTRY_DNS", "did you mean SENTRY_DSN?"),  # Sentry's own names begin so.
        ("ENV_FILE", "see .env.example for those that are."),
    ],
)
def test_a_name_in_the_file_that_is_no_setting_is_told(tmp_path: Path, name: str, advice: str) -> None:
    env = Env({}, tmp_path / ".env", [name, "LOG_LEVEL"])
    env.names = set(product_settings.env.names)
    assert env.unknown() == [f"{name} in {tmp_path / '.env'} is not a setting; {advice}"]


def test_what_the_first_service_of_this_kind_read_is_told_with_what_there_is_instead(tmp_path: Path) -> None:
    dotenv = (
        "JWT_SECRET_KEY=a\nSMTP_HOST=b\nCOVER_ASSET_ROOT=./cover_assets\nCOVER_ALLOWED_FORMATS=wav\n"
        "ALLOWED_AUDIO_FORMATS=wav\nAPI_V1_PREFIX=/api/v1\nCELERY_TASK_ALWAYS_EAGER=false\nCELERY_WORKER_SOMETHING=1\n"
    )
    told = loaded(tmp_path, "UNKNOWN_NAMES", dotenv=dotenv)["UNKNOWN_NAMES"]
    file = tmp_path / ".env"
    assert [sentence.partition("; ")[0] for sentence in told] == [
        f"JWT_SECRET_KEY, SMTP_HOST in {file}: no setting any more",
        f"COVER_ASSET_ROOT in {file}: no setting any more",
        f"COVER_ALLOWED_FORMATS, ALLOWED_AUDIO_FORMATS in {file}: no setting any more",
        f"API_V1_PREFIX in {file}: no setting any more",
        f"CELERY_TASK_ALWAYS_EAGER, CELERY_WORKER_SOMETHING in {file}: no setting any more",
    ]
    assert "API keys" in told[0] and "STORAGE_URL" in told[1] and "/api/v1" in told[3] and "worker" in told[4]


def test_a_misspelt_name_is_told_where_it_comes_from_the_environment_too(tmp_path: Path) -> None:
    others = {"COVER_LETTER": "x", "FRONTEND_URL": "http://x", "SMTP_HOST": "x", "HOSTNAME": "x"}
    told = loaded(tmp_path, "UNKNOWN_NAMES", COVER_CONCURENCY="2", CELERY_BROKER_URL="redis://x", **others)
    assert told["UNKNOWN_NAMES"] == [
        "COVER_CONCURENCY in the environment is not a setting; did you mean COVER_CONCURRENCY?",
        "CELERY_BROKER_URL in the environment: no setting any more; jobs are made by `manage.py worker`, as many at "
        "once as COVER_CONCURRENCY and SYNTHESIS_CONCURRENCY say.",
    ]


@pytest.mark.parametrize(
    ("url", "engine", "name"),
    [
        ("sqlite+aiosqlite:////{folder}/./voice_clone.db", "sqlite3", "voice_clone.db"),
        ("sqlite+pysqlite:////{folder}/a.db", "sqlite3", "/{folder}/a.db"),
        ("postgresql+asyncpg://u:p%2Bq@db:5433/voice", "postgresql", "voice"),
        ("postgres+psycopg2://u:p@db/voice", "postgresql", "voice"),
    ],
)
def test_a_database_url_may_name_a_driver_of_sqlalchemy(tmp_path: Path, url: str, engine: str, name: str) -> None:
    folder = str(tmp_path).strip("/")
    shown = loaded(tmp_path, "DATABASES", DATABASE_URL=url.format(folder=folder))["DATABASES"]["default"]
    assert shown["ENGINE"].rpartition(".")[2] == engine
    assert shown["NAME"].endswith(name.format(folder=folder))
    if "%2B" in url:
        assert shown["PASSWORD"] == "p+q" and shown["PORT"] == 5433


@pytest.mark.parametrize(
    "name",
    ["AWS_ACCESS_KEY_ID", "OTEL_SERVICE_NAME", "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
     "SENTRY_ENVIRONMENT", "PGPASSWORD", "POSTGRES_PASSWORD", "SSL_CERT_FILE", "IMAGEIO_FFMPEG_EXE", "LC_ALL", "TZ",
     "DJANGO_SETTINGS_MODULE", "GUNICORN_CMD_ARGS", "CUDA_VISIBLE_DEVICES", "dramatiq_worker_timeout", "no_proxy"],
)  # fmt: skip
def test_names_that_libraries_read_may_stand_there(tmp_path: Path, name: str) -> None:
    env = Env({}, tmp_path / ".env", [name, *product_settings.env.names])
    env.names = set(product_settings.env.names)
    assert env.unknown() == []


def test_the_env_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    for file, problem in ((tmp_path / "gone", "there is no file"), (tmp_path, "cannot be read: Is a directory")):
        result = start(tmp_path, ENV_FILE=str(file))
        assert (result.returncode, result.stdout) == (1, "")
        (line,) = result.stderr.splitlines()
        assert line.startswith("ENV_FILE: ") and problem in line and str(file) in line
    (tmp_path / "latin").write_bytes(b"SECRET_KEY=\xe9")
    assert start(tmp_path, ENV_FILE=str(tmp_path / "latin")).stderr.endswith("is not UTF-8\n")


WELL_FORMED = (
    "\ufeffLOG_LEVEL=WARNING\r\n\r\n# A comment that isn't closed\r\nexport COVER_UVR_MODEL='two words' # \"why\r\n"
    "SOVITS_TIMEOUT = 20\r\nSENTRY_ENVIRONMENT=it's\r\nAPI_KEY=\r\nCORS_ORIGINS='[\n\"http://a.example\"\n]'\r\n"
)


def test_a_file_as_others_write_it_is_read(tmp_path: Path) -> None:
    shown = loaded(tmp_path, "LOG_LEVEL", "COVER_UVR_MODEL", "SOVITS_TIMEOUT", "CORS_ORIGINS", dotenv=WELL_FORMED)
    assert shown == {
        "LOG_LEVEL": "WARNING",
        "COVER_UVR_MODEL": "two words",
        "SOVITS_TIMEOUT": 20,
        "CORS_ORIGINS": ["http://a.example"],
    }


@pytest.mark.parametrize(
    ("lines", "number", "problem"),
    [
        ("SECRET_KEY='swordfish\nDEBUG=true\n", 1, "the quote ' is not closed"),
        ('# One\n\n\nSECRET_KEY="swordfish\nDEBUG=true\n', 4, 'the quote " is not closed'),
        ("SECRET_KEY='swordfish\nDEBUG='true'\n", 1, "the quote ' is not closed"),
        ("SECRET_KEY='swordfish\nDEBUG=true\nLOG_FORMAT=text'\n", 1, "the quote is not closed before the next setting"),
        ("SECRET_KEY='swordfish' x\n", 1, "something follows the closing quote"),
        ("DEBUG=true\r\n\r\nSECRET_KEY: swordfish\r\n", 3, "must be NAME=value"),
        ("DEBUG=true\nSECRET_KEY:swordfish\n", 2, "must be NAME=value"),
        ("DEBUG\n", 1, "must be NAME=value"),
        ("=swordfish\n", 1, "must be NAME=value"),
        ("  set DEBUG=true", 1, "must be NAME=value"),
    ],
)
def test_a_line_that_sets_nothing_stops_the_start(tmp_path: Path, lines: str, number: int, problem: str) -> None:
    result = start(tmp_path, dotenv=lines)
    assert (result.returncode, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"{tmp_path / '.env'}, line {number}: {problem}")
    assert "swordfish" not in line


def test_a_name_that_stands_twice_in_the_file_is_told(tmp_path: Path) -> None:
    (told,) = loaded(tmp_path, "UNKNOWN_NAMES", dotenv="DEBUG=true\nLOG_LEVEL=INFO\nDEBUG=false\n")["UNKNOWN_NAMES"]
    assert told == f"DEBUG stands 2 times in {tmp_path / '.env'}; the last one counts."


PATHS = ("DATA_DIR", "TEXT_FILTER_WORDS", "SOVITS_REFERENCE_DIR", "GPT_SOVITS_PROJECT_ROOT", "C2PA_CERT", "C2PA_KEY")
SHOW_PATHS = f"""
import json, os, sys
sys.path.insert(0, {str(django_settings.BASE_DIR)!r})
from voiceproject.env import Env
from pathlib import Path
env = Env.read(Path(sys.argv[1]) / ".env")
print(json.dumps([{{name: str(env.optional_path(name)) for name in {PATHS}}}, env.for_children]))
"""


def test_relative_paths_count_from_the_checkout_in_the_file_and_from_here_in_the_environment(tmp_path: Path) -> None:
    home, here, elsewhere = (tmp_path / name for name in ("home", "here", "elsewhere"))
    for folder in (home, here, elsewhere):
        folder.mkdir()
    text = "".join(f"{name}=below/{name}\n" for name in PATHS)
    (home / ".env").write_text(text)
    (elsewhere / "settings").write_text(text)

    def shown(**environment: str) -> tuple[dict[str, str], dict[str, str]]:
        argv = [sys.executable, "-c", SHOW_PATHS, str(home)]
        environment = {"PATH": os.environ["PATH"], **environment}
        done = subprocess.run(argv, cwd=here, env=environment, capture_output=True, text=True, timeout=60, check=True)
        paths, for_children = json.loads(done.stdout)
        return paths, for_children

    from_file = {name: f"{home}/below/{name}" for name in PATHS}
    assert shown() == (from_file, {})
    named = str(elsewhere / "settings")
    assert shown(ENV_FILE="../elsewhere/settings") == (from_file, {"ENV_FILE": f"{here}/../elsewhere/settings"})
    assert shown(ENV_FILE=named, DATA_DIR="./data") == (
        {**from_file, "DATA_DIR": f"{here}/data"},
        {"ENV_FILE": named, "DATA_DIR": f"{here}/data"},
    )
    from_here = {name: f"{here}/{name}" for name in PATHS}
    assert shown(**{name: name for name in PATHS}) == (from_here, from_here)


SERVERS = {
    "manage.py": ["manage.py", "check"],
    "quickstart": ["manage.py", "quickstart"],
    "gunicorn": ["-m", "gunicorn", "voiceproject.wsgi", "--config", "python:voiceproject.serving"],
    "dramatiq": ["-m", "dramatiq", "voiceproject.worker", "--processes", "1"],
}


@pytest.mark.parametrize("server", SERVERS)
def test_a_line_that_sets_nothing_is_told_by_every_process(tmp_path: Path, server: str) -> None:
    (tmp_path / ".env").write_text("\nDEBUG='true\n")
    environment = {**os.environ, "DATA_DIR": str(tmp_path / "data"), "ENV_FILE": str(tmp_path / ".env")}
    result = subprocess.run(
        [sys.executable, *SERVERS[server]], cwd=django_settings.BASE_DIR, capture_output=True, text=True, timeout=60,
        env={**environment, "DJANGO_SETTINGS_MODULE": "voiceproject.settings"},
    )  # fmt: skip
    said = result.stdout + result.stderr
    assert result.returncode != 0
    assert f"{tmp_path / '.env'}, line 2: the quote ' is not closed\n" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATA_DIR", "/sys/kernel"),
        ("DATABASE_URL", "sqlite:////sys/kernel/none/db.sqlite3"),
        ("ENV_FILE", "/no/such/file"),
    ],
)
def test_a_place_that_cannot_be_used_is_told_by_every_process(
    tmp_path: Path, server: str, name: str, value: str
) -> None:
    environment = {**os.environ, "DATA_DIR": str(tmp_path / "data"), name: value}
    result = subprocess.run(
        [sys.executable, *SERVERS[server]], cwd=django_settings.BASE_DIR, capture_output=True, text=True, timeout=60,
        env={**environment, "DJANGO_SETTINGS_MODULE": "voiceproject.settings"},
    )  # fmt: skip
    assert result.returncode != 0
    said = result.stdout + result.stderr
    assert re.search(rf"^{name}: .*(Set it to|name one)", said, re.MULTILINE), said
    assert "Traceback" not in said


MALFORMED = [
    ("COMPAT_HOSTS", "tts.example.com=console"),
    ("MAX_UPLOAD_SIZE", "10MB"),
    ("MAX_UPLOAD_SIZE", "0"),
    ("SOVITS_TIMEOUT", "-5"),
    ("SOVITS_BASE_URL", "gpu:9880"),
    ("SOVITS_BASE_URL", "http://"),
    ("CORS_ORIGINS", '["http://a", 3]'),
    ("CORS_ORIGINS", "localhost:3000"),
    ("LOG_LEVEL", "LOUD"),
    ("DEBUG", "maybe"),
    ("VOICE_ENGINE", "espeak"),
    ("DATABASE_URL", "mysql://a/b"),
    ("DATABASE_URL", "nonsense"),
    ("REDIS_URL", "localhost:6379"),
    ("SECRET_KEY", "short"),
    ("COVER_CONCURRENCY", "1.5"),
    ("BUILTIN_CONCURRENCY", "1000"),
    ("DATA_DIR", "/proc/no/such"),
    ("DATA_DIR", "/sys/kernel"),  # It is there, and nobody, not even root, can write to it.
    ("CORS_ORIGINS", "http://localhost:3000/path"),
    ("ALLOWED_HOSTS", "https://voice.example.com"),
    ("ALLOWED_HOSTS", "localhost, voice.example.com/studio"),
    ("ALLOWED_HOSTS", "voice.example.com:8000"),
    ("ALLOWED_HOSTS", "[::1]:8000"),
    ("ALLOWED_HOSTS", "*.example.com"),
    ("ALLOWED_HOSTS", "two words"),
    ("ALLOWED_HOSTS", "[::1"),
    ("SYNTHESIS_TIMEOUT_SECONDS", "999999999999999999"),
    ("SYNTHESIS_TTL_HOURS", "999999999"),
    ("COVER_SEPARATE_CMD_TEMPLATE", "{python_exec} x.py {unknown}"),
    ("COVER_INFER_CMD_TEMPLATE", "{python_exec} 'x.py"),
    ("TRUSTED_PROXIES", "proxy.example"),
    ("TRUSTED_PROXIES", "2"),
    ("RATE_LIMIT_PER_MINUTE", "-1"),
    ("SOVITS_PROTOCOL", "grpc"),
    ("SOVITS_TOKEN", "two words"),
    ("SOVITS_PINNED_MODELS", "http://gpu:9880=anna"),
    ("SOVITS_PINNED_MODELS", "anna"),
    ("METRICS_TOKEN", "fifteen-letters"),
    ("METRICS_TOKEN", "two words of many letters"),
    ("WORKER_METRICS_PORT", "65536"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
    ("SENTRY_DSN", "https://sentry.example.com/1"),
    ("API_KEY", "your-api-key-here-please"),
    ("API_KEY", "fifteen-letters"),
    ("API_KEY", "aaaaaaaaaaaaaaaaaaaa"),
    ("API_KEY", "ein schlüssel mit leerzeichen"),
]


@pytest.mark.parametrize(("name", "value"), MALFORMED)
def test_a_malformed_value_stops_the_start_with_one_line_that_names_it(tmp_path: Path, name: str, value: str) -> None:
    result = start(tmp_path, **{name: value})
    assert result.returncode == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ("https://voice.example.com:443/x", "without a scheme"),
        ("voice.example.com/x", "without a path"),
        ("voice.example.com:443", "without a port"),
        ("[::1]:8000", "without a port"),
        ("*.example.com", "must have .example.com for all names below it"),
    ],
)
def test_what_is_no_host_name_is_told_why(host: str, problem: str) -> None:
    with pytest.raises(BadSetting, match=rf"^ALLOWED_HOSTS: .*{re.escape(problem)}"):
        check_host("ALLOWED_HOSTS", host)


def test_host_names_of_every_kind_are_taken(tmp_path: Path) -> None:
    hosts = "*,.example.com,a-b.example.com,web_1,127.0.0.1,[::1],localhost"
    assert loaded(tmp_path, "ALLOWED_HOSTS", ALLOWED_HOSTS=f"{hosts},2001:db8::1")["ALLOWED_HOSTS"] == [
        *hosts.split(","),
        "[2001:db8::1]",
    ]


def test_a_data_dir_that_is_a_file_is_told(tmp_path: Path) -> None:
    file = tmp_path / "kept"
    file.touch()
    for place in (file, file / "below" / "it"):
        assert start(tmp_path, DATA_DIR=str(place)).stderr == f"DATA_DIR: {file} is a file. Set it to a folder.\n"


def test_a_password_in_a_malformed_url_is_not_printed(tmp_path: Path) -> None:
    result = start(tmp_path, REDIS_URL="http://user:swordfish@host")
    assert result.returncode == 1
    assert "swordfish" not in result.stderr


def test_the_database_file_is_nobody_elses_to_read(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o755)
    loaded(tmp_path, "DEBUG")
    assert (tmp_path / "data" / "db.sqlite3").stat().st_mode & 0o077 == 0


def test_a_key_of_sixteen_characters_is_taken(tmp_path: Path) -> None:
    assert loaded(tmp_path, "API_KEY", API_KEY="a1B2c3D4e5F6g7H8")["API_KEY"] == "a1B2c3D4e5F6g7H8"


def test_a_secret_key_is_made_once_and_is_nobody_elses_to_read(tmp_path: Path) -> None:
    first, second = (loaded(tmp_path, "SECRET_KEY")["SECRET_KEY"] for _ in range(2))
    assert first == second
    assert len(first) >= 50
    assert (tmp_path / "data" / "secret_key").stat().st_mode & 0o077 == 0


def test_https_secures_cookies_and_redirects(tmp_path: Path) -> None:
    names = ("SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "SECURE_SSL_REDIRECT", "SECURE_HSTS_SECONDS")
    assert all(loaded(tmp_path, *names, HTTPS="true").values())


def test_numbers_have_bounds_that_are_told() -> None:
    with pytest.raises(SystemExit, match="N: must be from 1 to 3, not 4"):
        Env({"N": "4"}).number("N", 1, maximum=3)
    assert Env({"N": "3"}).number("N", 1, maximum=3) == 3
    assert Env({"N": " "}).number("N", 7) == 7
