"""Settings from the environment: each value is read once, checked, and remembered by name.

A malformed value ends the process with one line that names it, before anything has started.
`Env.names` holds every name that was asked for; a test compares it with `.env.example`.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from dotenv.parser import Binding, parse_stream

log = logging.getLogger(__name__)


class BadSetting(SystemExit):
    """Ends the start with one line on standard error (SystemExit prints its argument) and exit status 1."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name}: {problem}")


# Names that libraries read, and the programs around this one, which may share a `.env` file with it.
FOREIGN = re.compile(
    r"(AWS|BOTO|OTEL|SENTRY|POSTGRES|COMPOSE|DOCKER|DJANGO|GUNICORN|DRAMATIQ|PIP|VOICEPROJECT|LC|SSL|REQUESTS|CURL|CUDA"
    r"|NVIDIA|ORT|OMP|OPENBLAS|MKL|NUMBA|HF|TORCH|IMAGEIO)_[A-Z0-9_]+"
    r"|(PG|PYTHON)[A-Z0-9]+|LANG|LANGUAGE|TZ|TMPDIR|PATH|HOME|(HTTP|HTTPS|ALL|NO)_PROXY|FORWARDED_ALLOW_IPS"
)


# What the first service of this kind read, and what there is instead.
FORMATS = "every format is told by its content; those that are taken are in docs/uploads.md"
JOBS = "jobs are made by `manage.py worker`, as many at once as COVER_CONCURRENCY and SYNTHESIS_CONCURRENCY say"
ACCOUNTS = "clients have API keys, and people sign in to the console: see docs/keys-and-quotas.md"
FORMER = {
    **dict.fromkeys(("COVER_ALLOWED_FORMATS", "ALLOWED_AUDIO_FORMATS"), FORMATS),
    "COVER_ASSET_ROOT": "files are kept in DATA_DIR, or where STORAGE_URL says",
    "API_V1_PREFIX": "the API is always below /api/v1",
    "COVER_QUEUE_NAME": JOBS,
    **dict.fromkeys(
        ("JWT_SECRET_KEY", "JWT_REFRESH_SECRET_KEY", "ACCESS_TOKEN_EXPIRE_MINUTES", "REFRESH_TOKEN_EXPIRE_DAYS",
         "TURNSTILE_SECRET_KEY", "SMTP_HOST", "SMTP_PORT", "SMTP_USER", "SMTP_PASSWORD", "FRONTEND_URL",
         "VERIFICATION_TOKEN_EXPIRE_MINUTES", "VERIFICATION_EMAIL_FROM"), ACCOUNTS,
    ),
    **dict.fromkeys(("APP_NAME", "APP_VERSION"), "the API has its own name and version"),
}  # fmt: skip
# What begins so is meant for this program, wherever it is set.
OURS = re.compile(r"(COVER|SOVITS|SYNTHESIS|BUILTIN|GPT_?SOVITS|CELERY|API_V1|ALLOWED_AUDIO)_[A-Z0-9_]+")


def not_writable(name: str, error: OSError, path: Path) -> BadSetting:
    """For a setting that names a place (`path`) where nothing can be kept."""
    place = Path(error.filename or path)
    if isinstance(error, FileExistsError | NotADirectoryError):
        # Of /a/file/b/c, the system names the last: the one that is in the way is told.
        file = next((parent for parent in (place, *place.parents) if parent.is_file()), place)
        return BadSetting(name, f"{file} is a file. Set it to a folder.")
    advice = "Set it to a place that the user who runs this may write to."
    return BadSetting(name, f"{error.strerror or error}: {place}. {advice}")


NAMED_VALUE = re.compile(r"\s*(export\s+)?[A-Za-z_][A-Za-z0-9_.]*\s*=\s*")


def read_lines(text: str, file: Path) -> list[tuple[str, str]]:
    """The names and values of a `.env` file, in its order. BadSetting for a line that sets nothing, and for a quote
    that is closed further down: the settings in between would be lost without a word."""
    found = []
    for binding in parse_stream(StringIO(text)):
        if binding.key is None and not binding.error:  # Blank lines and comments.
            continue
        if problem := _what_is_wrong(binding):
            blank = re.match(r"\s*", binding.original.string)
            number = binding.original.line + len(re.findall(r"\r\n|\n|\r", blank[0] if blank else ""))
            raise BadSetting(f"{file}, line {number}", problem)
        found.append((binding.key or "", binding.value or ""))
    return found


def _what_is_wrong(binding: Binding) -> str:
    """Never with the value, which may be a secret."""
    first, *rest = binding.original.string.strip().splitlines()
    begun = NAMED_VALUE.match(first)
    if binding.error and begun and (quote := first[begun.end() :][:1]) in ("'", '"'):
        closed = re.match(rf"{quote}(\\.|[^\\{quote}])*{quote}", first[begun.end() :])
        return "something follows the closing quote" if closed else f"the quote {quote} is not closed"
    if any(re.match(r"\s*(export\s+)?[A-Z][A-Z0-9_]*\s*=", line) for line in rest):
        return "the quote is not closed before the next setting begins"
    if binding.error or binding.value is None:
        return "must be NAME=value, or a comment that begins with #"
    return ""


class Env:
    """Typed look-ups in a mapping of strings. An empty value counts as not set.

    `file`: the `.env` file that some of them come from, with their names in `file_names`. A relative path in the file
    is one from `home`; one in the environment is one from the folder that this process was started in, and
    `for_children` has what a process in another folder has to be given instead.
    """

    TRUE = frozenset({"1", "true", "yes", "on"})
    FALSE = frozenset({"0", "false", "no", "off"})

    def __init__(
        self,
        values: dict[str, str],
        file: Path | None = None,
        file_names: Iterable[str] = (),
        home: Path | None = None,
    ) -> None:
        self.values = values
        self.file = file
        self.file_names = list(file_names)
        self.home = home or Path.cwd()
        self.for_children: dict[str, str] = {}
        self.names: set[str] = set()

    @classmethod
    def read(cls, default_file: Path) -> Env:
        """The process environment over a `.env` file (the environment wins).

        It is the one that ENV_FILE names, which has to be there, else `default_file`, which need not. Relative paths
        in either count from the folder of `default_file`."""
        named = os.environ.get("ENV_FILE", "").strip()
        file = Path(named).expanduser().absolute() if named else default_file
        whose = "ENV_FILE" if named else str(file)
        try:
            text = file.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            if named:
                raise BadSetting(whose, f"there is no file {file}; name one, or leave ENV_FILE out") from None
            text = ""
        except OSError as error:
            raise BadSetting(whose, f"{file} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise BadSetting(whose, f"{file} is not UTF-8") from None
        lines = read_lines(text, file)
        env = cls({**dict(lines), **os.environ}, file, [name for name, _ in lines], default_file.parent)
        if named:
            env.for_children["ENV_FILE"] = str(file)
        return env

    def unknown(self) -> list[str]:
        """What the `.env` file sets and nothing reads, and what it sets twice, in sentences; of the environment, which
        has names of other programs too, what looks like ours.

        To be asked once all settings are read."""
        told = [
            f"{name} stands {count} times in {self.file}; the last one counts."
            for name, count in Counter(self.file_names).items()
            if count > 1
        ]
        former: dict[tuple[str, str], list[str]] = {}
        in_file = dict.fromkeys(self.file_names)
        for name in [*in_file, *(name for name in self.values if name not in in_file)]:
            where = str(self.file) if name in in_file else "the environment"
            ours = OURS.fullmatch(name.upper())
            if name in self.names or not (name in in_file or ours):
                continue
            advice = FORMER.get(name.upper()) or (JOBS if name.upper().startswith("CELERY_") else "")
            if advice:
                former.setdefault((where, advice), []).append(name)
                continue
            # SENTRY_DNS is nobody's name, although it begins like one of Sentry's.
            likeness = 0.9 if FOREIGN.fullmatch(name.upper()) else 0.75
            near = get_close_matches(name.upper(), sorted(self.names), n=1, cutoff=likeness)
            if not near and (likeness == 0.9 or name not in in_file):
                continue
            advice = f"did you mean {near[0]}?" if near else "see .env.example for those that are."
            told.append(f"{name} in {where} is not a setting; {advice}")
        for (where, advice), names in former.items():
            told.append(f"{', '.join(names)} in {where}: no setting any more; {advice}.")
        return told

    def _get(self, name: str) -> str:
        self.names.add(name)
        return self.values.get(name, "").strip()

    def text(self, name: str, default: str = "", choices: tuple[str, ...] = ()) -> str:
        value = self._get(name) or default
        if choices and value not in choices:
            raise BadSetting(name, f"must be one of {', '.join(choices)}, not {value!r}")
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self._get(name).lower()
        if not value:
            return default
        if value not in self.TRUE | self.FALSE:
            raise BadSetting(name, f"must be true or false, not {value!r}")
        return value in self.TRUE

    def number(self, name: str, default: int, minimum: int = 1, maximum: int = 10**12) -> int:
        value = self._get(name)
        if not value:
            return default
        if not re.fullmatch(r"[+-]?\d{1,18}", value):
            raise BadSetting(name, f"must be a whole number, not {value!r}")
        number = int(value)
        if not minimum <= number <= maximum:
            raise BadSetting(name, f"must be from {minimum} to {maximum}, not {number}")
        return number

    def words(self, name: str, default: list[str]) -> list[str]:
        """A JSON array of strings, or values separated by commas."""
        value = self._get(name)
        if not value:
            return default
        if value.startswith("["):
            try:
                items = json.loads(value)
            except ValueError:
                items = None
            if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
                raise BadSetting(name, f"must be a JSON list of strings or a comma list, not {value!r}")
        else:
            items = value.split(",")
        return [item.strip() for item in items if item.strip()]

    def url(self, name: str, default: str, schemes: tuple[str, ...]) -> str:
        value = self._get(name) or default
        return check_url(name, value, schemes) if value else ""

    def path(self, name: str, default: Path | str) -> Path:
        return self.optional_path(name) or Path(default).expanduser().absolute()

    def optional_path(self, name: str) -> Path | None:
        value = self._get(name)
        if not value:
            return None
        path = self.absolute(name, value)
        if name in os.environ:
            self.for_children[name] = str(path)
        return path

    def sqlite_file(self, name: str, path: str) -> str:
        """The file of an SQLite URL's relative or absolute path."""
        file = str(self.absolute(name, path))
        if name in os.environ:
            self.for_children[name] = f"sqlite:///{quote(file)}"
        return file

    def hosts(self, name: str, default: list[str]) -> list[str]:
        return [check_host(name, host) for host in self.words(name, default)]

    def pairs(self, name: str, choices: tuple[str, ...]) -> dict[str, str]:
        """`host=choice` pairs, separated by commas: each host, in small letters, with its choice."""
        found: dict[str, str] = {}
        for word in self.words(name, []):
            host, separator, choice = (part.strip().lower() for part in word.partition("="))
            if not separator or choice not in choices or host in found or host.startswith((".", "*")):
                raise BadSetting(name, f"must be host=one of {', '.join(choices)}, each host once; not {word!r}")
            found[check_host(name, host)] = choice
        return found

    def absolute(self, name: str, path: str) -> Path:
        """A path in the value of the setting `name`, from where that value counts from."""
        return (Path.cwd() if name in os.environ else self.home) / Path(path).expanduser()


def log_unknown(sentences: list[str]) -> None:
    """`Env.unknown` in a server's log; not under `quickstart`, whose own start has told it."""
    if not os.environ.get("VOICEPROJECT_LIFELINE"):
        for sentence in sentences:
            log.warning(sentence)


def check_url(name: str, value: str, schemes: tuple[str, ...], *, origin: bool = False) -> str:
    """The URL without a trailing slash. BadSetting: another scheme, no host; as an `origin` also a path or a user."""
    try:
        parts = urlsplit(value)
        valid = parts.scheme in schemes and (bool(parts.hostname) or parts.scheme == "unix") and parts.port != 0
        if origin and (parts.path.strip("/") or parts.query or parts.fragment or parts.username):
            valid = False
    except ValueError:
        valid = False
    if not valid:
        # A user's password may stand before the @.
        shown = re.sub(r"//[^/@]*@", "//***@", value)
        raise BadSetting(name, f"must be a URL like {schemes[0]}://host:port, not {shown!r}")
    return value.rstrip("/")


def check_host(name: str, value: str) -> str:
    """A host name as Django compares it: `*`, `.example.com` with all below it, an IPv6 address in brackets."""
    if value == "*":
        return value
    try:
        if ipaddress.ip_address(value).version == 6:
            return f"[{value}]"
    except ValueError:
        pass
    if "//" in value:
        raise BadSetting(name, f"must be host names without a scheme, not {value!r}")
    if "/" in value:
        raise BadSetting(name, f"must be host names without a path, not {value!r}")
    if re.fullmatch(r".*[^:]:\d*", value) and not re.fullmatch(r"\[[^]]*\]", value):
        raise BadSetting(name, f"must be host names without a port, not {value!r}")
    if value.startswith("*."):
        raise BadSetting(name, f"must have {value[1:]} for all names below it, not {value!r}")
    if not re.fullmatch(r"\.?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?|\[[0-9A-Fa-f:.]+\]", value):
        raise BadSetting(name, f"must be host names like voice.example.com, not {value!r}")
    return value


def s3_options(url: str) -> dict[str, Any]:
    """The options of `voiceproject.media.bucket.BucketStorage` in `s3://KEY:SECRET@bucket/prefix?endpoint=https://host&region=eu-1`.

    Key and secret may be left out: boto3 then takes them from where it usually finds them (AWS_ACCESS_KEY_ID and
    AWS_SECRET_ACCESS_KEY, an instance's role). Raises ValueError with what is wrong.
    """
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.hostname:
        raise ValueError("must be a URL like s3://KEY:SECRET@bucket/prefix?endpoint=https://host&region=NAME")
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = given.keys() - {"endpoint", "region"}
    if unknown:
        raise ValueError(f"has an unknown option {sorted(unknown)[0]!r}; known are endpoint and region")
    endpoint = given.get("endpoint") or None
    if endpoint and urlsplit(endpoint).scheme not in ("http", "https"):
        raise ValueError("has an endpoint that is no http:// or https:// URL")
    if bool(parts.username) != bool(parts.password):
        raise ValueError("has a key without a secret, or a secret without a key")
    return {
        # Not parts.hostname, which is in lower case whatever was written.
        "bucket_name": parts.netloc.rpartition("@")[2],
        "location": parts.path.strip("/"),
        "endpoint_url": endpoint,
        "region_name": given.get("region") or None,
        "access_key": unquote(parts.username) if parts.username else None,
        "secret_key": unquote(parts.password) if parts.password else None,
    }
