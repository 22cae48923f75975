"""Requests to addresses that clients name, kept away from everything that is not the public internet.

A name is resolved, every address that it has must be allowed, and the connection goes to the very address that was
judged: an answer of the DNS that changes in between changes nothing. TLS still asks for the certificate of the name.
Redirects are not followed, and of an answer no more than its status line is read.
"""

from __future__ import annotations

import ipaddress
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from django.conf import settings

MAX_URL_CHARACTERS = 2000
RESOLVE_SECONDS = 5.0
TIMEOUT_SECONDS = 15.0
MAX_HEAD_BYTES = 16 * 1024

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
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == {"http": 80, "https": 443}[self.scheme] else f"{host}:{self.port}"


def parse(url: str) -> Target:
    """Raises Refused where the URL has another form than `https://host[:port]/path?query`."""
    if len(url) > MAX_URL_CHARACTERS:
        raise Refused(f"Has more than {MAX_URL_CHARACTERS} characters.")
    # Also what urlsplit would drop without a word: tabs and line breaks.
    if not re.fullmatch(r"[!-\[\]-~]+", re.sub(r"^(https?://)[^/?#]*", r"\1x", url, flags=re.I)):
        raise Refused("Has spaces, backslashes or characters that have to be percent-encoded.")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("ascii" if ":" in (parts.hostname or "") else "idna").decode()
    except ValueError:
        raise Refused("Is no valid URL.") from None
    schemes = ("https", "http") if settings.WEBHOOK_ALLOW_HTTP else ("https",)
    if parts.scheme not in schemes:
        raise Refused(f"Must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}.")
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


def resolve(target: Target, seconds: float = RESOLVE_SECONDS) -> list[str]:
    """The addresses of the host, all of them allowed. Raises Refused, or Unreachable where there is none in time."""
    answers: queue.Queue[list[str] | OSError | UnicodeError] = queue.Queue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
            answers.put(list(dict.fromkeys(str(entry[4][0]) for entry in found)))
        except (OSError, UnicodeError) as error:
            answers.put(error)

    # The system's resolver knows no deadline; a thread that is left behind ends with the resolver's own.
    threading.Thread(target=ask, name="resolve", daemon=True).start()
    try:
        found = answers.get(timeout=max(0.0, seconds))
    except queue.Empty:
        raise Unreachable("The host's name could not be resolved in time.") from None
    if not isinstance(found, list) or not found:
        raise Unreachable("The host's name could not be resolved.")
    if not all(is_allowed(address) for address in found):
        raise Refused("The host has an address that is not public.")
    return found


def post(url: str, body: bytes, headers: Mapping[str, str], seconds: float = TIMEOUT_SECONDS) -> int:
    """Sends `body` and returns the status of the answer (100 to 599). All of it takes at most about `seconds`.

    Raises Refused where the URL or an address of it is not allowed now, Unreachable where no answer came.
    """
    deadline = time.monotonic() + seconds
    target = parse(url)
    addresses = resolve(target, min(RESOLVE_SECONDS, seconds))
    head = [f"POST {target.path} HTTP/1.1", f"Host: {target.host_header}", f"Content-Length: {len(body)}",
            *(f"{name}: {value}" for name, value in headers.items()), "Connection: close"]  # fmt: skip
    request = "\r\n".join([*head, "", ""]).encode("ascii") + body
    try:
        with _connect(target, addresses, deadline) as connection:
            connection.settimeout(_left(deadline))
            connection.sendall(request)
            return _read_status(connection, deadline)
    except TimeoutError:
        raise Unreachable(f"The receiver did not answer within {seconds:g} seconds.") from None
    except ssl.SSLCertVerificationError:
        raise Unreachable("The receiver's certificate is not valid for its name.") from None
    except ssl.SSLError:
        raise Unreachable("A TLS connection could not be made.") from None
    except ConnectionRefusedError:
        raise Unreachable("The connection was refused.") from None
    except OSError:
        raise Unreachable("The connection failed or broke off.") from None


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _connect(target: Target, addresses: list[str], deadline: float) -> socket.socket:
    """A connection to the first address that takes one. The name is not looked up again."""
    for index, address in enumerate(addresses):
        try:
            # One dead address must not use up the time of the next.
            plain = socket.create_connection((address, target.port), _left(deadline) / (len(addresses) - index))
            break
        except OSError:
            if index == len(addresses) - 1:
                raise
    if target.scheme == "http":
        return plain
    try:
        plain.settimeout(_left(deadline))
        return ssl.create_default_context().wrap_socket(plain, server_hostname=target.host)
    except BaseException:
        plain.close()
        raise


def _read_status(connection: socket.socket, deadline: float) -> int:
    """The status of the final answer; interim ones (100 Continue, 103 Early Hints) are passed over."""
    received = b""
    while len(received) < MAX_HEAD_BYTES:
        match = re.match(rb"HTTP/1\.[01] ([1-5]\d\d)[ \r\n]", received)
        if match and not match[1].startswith(b"1"):
            return int(match[1])
        if match and b"\r\n\r\n" in received:
            received = received.partition(b"\r\n\r\n")[2]
            continue
        if not match and b"\n" in received:
            break
        connection.settimeout(_left(deadline))
        block = connection.recv(4096)
        if not block:
            break
        received += block
    raise Unreachable("The receiver's answer was not HTTP.")
