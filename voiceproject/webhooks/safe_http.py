"""Requests to addresses that clients name, kept away from everything that is not the public internet.

A name is resolved, every address that it has must be allowed, and the connection goes to the very address that was
judged: an answer of the DNS that changes in between changes nothing. TLS still asks for the certificate of the name.
Redirects are not followed, and of an answer no more than its head is read.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from django.conf import settings

from voiceproject import http_client

MAX_URL_CHARACTERS = 2000
TIMEOUT_SECONDS = 15.0

_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# Global by the letter of some Python versions, and yet nobody's server.
_RESERVED = tuple(
    ipaddress.ip_network(network)
    for network in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)


class Refused(Exception):
    """A URL or an address that is not called, with a reason that a client may read."""


class Unreachable(Exception):
    """No answer, with a reason that a client may read."""


@dataclass(frozen=True)
class Target:
    scheme: str
    host: str
    port: int
    path: str

    @property
    def url(self) -> str:
        """In ASCII, its host as it is looked up."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


def parse(url: str) -> Target:
    """Raises Refused where the URL has another form than `https://host[:port]/path?query`."""
    if len(url) > MAX_URL_CHARACTERS:
        raise Refused(f"Has more than {MAX_URL_CHARACTERS} characters.")
    # Also in the host, whose letters may be any: what urlsplit would drop without a word, tabs and line breaks.
    if re.search(r"[\x00-\x20\x7f]", url) or not re.fullmatch(
        r"[!-\[\]-~]+", re.sub(r"^(https?://)[^/?#]*", r"\1x", url, flags=re.I)
    ):
        raise Refused("Has spaces, backslashes or characters that have to be percent-encoded.")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("ascii" if ":" in (parts.hostname or "") else "idna").decode()
    except ValueError:
        raise Refused("Is no valid URL.") from None
    schemes = ("https", "http") if settings.WEBHOOK_ALLOW_HTTP else ("https",)
    if parts.scheme not in schemes:
        hint = "" if "http" in schemes else " (WEBHOOK_ALLOW_HTTP=true on the server lets http:// in, for development)"
        raise Refused(f"Must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}{hint}.")
    if "@" in parts.netloc:
        raise Refused("A user name or password in it is refused: verify the signature instead.")
    if "#" in url:
        raise Refused("A fragment (#...) in it is refused, since it would never be sent.")
    if port == 0 or not re.fullmatch(r"[a-z0-9._-]{1,253}|[0-9a-f:.]+", host):
        raise Refused("Is no valid URL.")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, host, port or {"http": 80, "https": 443}[parts.scheme], path)


def is_allowed(address: str) -> bool:
    """Whether an IP address is a public one, or in WEBHOOK_ALLOWED_NETWORKS.

    Of an IPv6 address that stands for an IPv4 one (mapped, NAT64) the latter is judged.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        elif ip in _NAT64:
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    if ip.is_multicast or ip.is_unspecified:
        return False
    if any(ip in network for network in settings.WEBHOOK_ALLOWED_NETWORKS):
        return True
    if any(ip in network for network in _RESERVED):
        return False
    return ip.is_global and (ip.version == 4 or ip in _GLOBAL_UNICAST)


def resolve(target: Target) -> list[str]:
    """The addresses of the host, all of them allowed. Raises Refused, or Unreachable where there is none in time."""
    return _allowed_addresses(target.host, target.port, http_client.RESOLVE_SECONDS)


def _allowed_addresses(host: str, port: int, seconds: float) -> list[str]:
    try:
        found = http_client.resolve(host, port, seconds)
    except TimeoutError:
        raise Unreachable("The host's name could not be resolved in time.") from None
    except (OSError, UnicodeError):
        raise Unreachable("The host's name could not be resolved.") from None
    if not found:
        raise Unreachable("The host's name could not be resolved.")
    if not all(is_allowed(address) for address in found):
        raise Refused("The host has an address that is not public. WEBHOOK_ALLOWED_NETWORKS on the server lets it in.")
    return found


def post(url: str, body: bytes, headers: Mapping[str, str], seconds: float = TIMEOUT_SECONDS) -> int:
    """Sends `body` and returns the status of the answer (200 to 599). All of it takes at most about `seconds`.

    Raises Refused where the URL or an address of it is not allowed now, Unreachable where no answer came.
    """
    deadline = time.monotonic() + seconds
    headers = {**headers, "Connection": "close"}
    try:
        with (
            http_client.Session(lookup=_allowed_addresses) as session,
            session.call("POST", parse(url).url, deadline, body=body, headers=headers) as answer,
        ):
            status = answer.status_code
    except http_client.DeadlinePassed:
        raise Unreachable(f"The receiver did not answer within {seconds:g} seconds.") from None
    except http_client.NotConnected as error:
        raise Unreachable(_why(error.reason, seconds)) from None
    except http_client.NoAnswer:
        raise Unreachable("The connection failed or broke off.") from None
    except http_client.BadAnswer:
        raise Unreachable("The receiver's answer was not HTTP.") from None
    if not 200 <= status <= 599:
        raise Unreachable("The receiver's answer was not HTTP.")
    return status


def _why(reason: Exception, seconds: float) -> str:
    if isinstance(reason, TimeoutError):
        return f"The receiver did not answer within {seconds:g} seconds."
    if isinstance(reason, ssl.SSLCertVerificationError):
        return "The receiver's certificate is not valid for its name."
    if isinstance(reason, ssl.SSLError):
        return "A TLS connection could not be made."
    if isinstance(reason, ConnectionRefusedError):
        return "The connection was refused."
    return "The connection failed or broke off."
