"""Where a request came from, behind proxies too, and whether that is inside a list of networks."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Collection, Mapping
from typing import Any

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

UNIX = "unix"  # Stands in TRUSTED_PROXIES for whoever connects through a Unix socket, which has no address.
MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")  # IPv4 addresses as a socket of IPv6 shows them


def parse_address(text: str) -> Address | None:
    """An address as proxies write it: also `[::1]:80`, `1.2.3.4:80` and IPv4 inside IPv6. None for anything else."""
    text = text.strip()
    match = re.fullmatch(r"\[([^\]]*)\](?::\d{1,5})?|(\d{1,3}(?:\.\d{1,3}){3}):\d{1,5}", text)
    try:
        address = ipaddress.ip_address((match[1] or match[2]) if match else text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def parse_network(text: str) -> Network:
    """An address, or a network like 10.1.0.0/16. Raises ValueError that says what is wrong."""
    network = ipaddress.ip_network(text.strip(), strict=False)
    if "/" in text and network.network_address != ipaddress.ip_interface(text.strip()).ip:
        raise ValueError(f"{text.strip()} has bits behind its mask; the network is {network}")
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(MAPPED):
        mapped = network.network_address.ipv4_mapped
        return ipaddress.ip_network(f"{mapped}/{network.prefixlen - MAPPED.prefixlen}")
    return network


def written(network: Network) -> str:
    """As people write it: without a mask where it is one address."""
    return str(network.network_address) if network.num_addresses == 1 else str(network)


def client_address(meta: Mapping[str, Any], trusted: Collection[Network | str]) -> str:
    """The address of the client, from a request's META; empty where there is none, as on a Unix socket.

    That is who has connected, unless it is one of the `trusted` proxies (networks, or UNIX). Each of those is believed
    who had connected to it, as X-Forwarded-For says from right to left, and no further than it is trusted itself: what
    stands left of there, anybody may have written.
    """
    said = str(meta.get("REMOTE_ADDR", ""))
    address = parse_address(said)
    found = str(address) if address else said
    if not comes_from_proxy(meta, trusted):
        return found
    for hop in reversed(str(meta.get("HTTP_X_FORWARDED_FOR", "")).split(",")):
        address = parse_address(hop)
        if address is None:
            break
        found = str(address)
        if not _is_trusted(address, trusted):
            break
    return found


def comes_from_proxy(meta: Mapping[str, Any], trusted: Collection[Network | str]) -> bool:
    """Whether who has connected is one of the `trusted` proxies."""
    said = str(meta.get("REMOTE_ADDR", ""))
    return _is_trusted(parse_address(said), trusted) if said else UNIX in trusted


def _is_trusted(address: Address | None, trusted: Collection[Network | str]) -> bool:
    return address is not None and any(address in network for network in trusted if not isinstance(network, str))


@functools.lru_cache(maxsize=1024)
def _networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(parse_network(text) for text in texts)


def is_within(text: str, networks: list[str]) -> bool:
    """Whether an address is in one of the networks. What is no address is in none."""
    address = parse_address(text)
    return address is not None and any(address in network for network in _networks(tuple(networks)))


def is_part(text: str, networks: list[str]) -> bool:
    """Whether a network lies in one of the others as a whole."""
    inner = parse_network(text)
    return any(
        inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type] # of one version
        for outer in _networks(tuple(networks))
    )


def overlap(text: str, networks: list[str]) -> bool:
    """Whether a network has an address in common with one of the others."""
    one = parse_network(text)
    return any(one.version == other.version and one.overlaps(other) for other in _networks(tuple(networks)))
