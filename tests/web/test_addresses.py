"""Where a request came from: who has connected, and as far as trusted proxies vouch for it, whom they tell of."""

from __future__ import annotations

import pytest

from voiceproject.web.client_ip import client_address, is_part, is_within, parse_network, written

NEAR = [parse_network("10.0.0.0/8"), parse_network("2001:db8:1::/48")]


def seen(remote: str, forwarded: str | None = None, trusted: list = NEAR) -> str:
    meta = {"REMOTE_ADDR": remote} | ({} if forwarded is None else {"HTTP_X_FORWARDED_FOR": forwarded})
    return client_address(meta, trusted)


@pytest.mark.parametrize(
    ("remote", "forwarded", "address"),
    [
        ("203.0.113.5", None, "203.0.113.5"),
        ("203.0.113.5", "198.51.100.1", "203.0.113.5"),  # A stranger says what it likes.
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "8.8.8.8, 198.51.100.1", "198.51.100.1"),  # The client had written the first one itself.
        ("10.0.0.1", "8.8.8.8, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "10.0.0.9, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "10.0.0.3,10.0.0.2", "10.0.0.3"),  # One of the inside.
        ("10.0.0.1", "198.51.100.1, nonsense", "10.0.0.1"),
        ("10.0.0.1", "nonsense, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("10.0.0.1", "[2001:db8:9::7]:4711", "2001:db8:9::7"),
        ("2001:db8:1::2", "2001:DB8:9:0::7", "2001:db8:9::7"),
        ("::ffff:10.0.0.1", "::ffff:198.51.100.1", "198.51.100.1"),  # As a socket of IPv6 shows IPv4.
        ("", "198.51.100.1", ""),
    ],
)
def test_each_trusted_proxy_is_believed_who_connected_to_it_and_nobody_else(
    remote: str, forwarded: str | None, address: str
) -> None:
    assert seen(remote, forwarded) == address


def test_without_trusted_proxies_the_header_is_not_read() -> None:
    assert seen("10.0.0.1", "198.51.100.1", []) == "10.0.0.1"


def test_a_proxy_on_a_unix_socket_is_trusted_by_name() -> None:
    assert seen("", "198.51.100.1", ["unix"]) == "198.51.100.1"
    assert seen("", "8.8.8.8, 198.51.100.1, 10.0.0.2", [*NEAR, "unix"]) == "198.51.100.1"
    assert seen("203.0.113.5", "198.51.100.1", ["unix"]) == "203.0.113.5"


@pytest.mark.parametrize(
    ("text", "kept"),
    [("192.0.2.7", "192.0.2.7"), ("192.0.2.7/32", "192.0.2.7"), (" 192.0.2.0/24 ", "192.0.2.0/24"),
     ("2001:DB8:0::/32", "2001:db8::/32"), ("::ffff:192.0.2.0/120", "192.0.2.0/24"), ("0.0.0.0/0", "0.0.0.0/0")],
)  # fmt: skip
def test_a_network_is_kept_in_one_way_of_writing(text: str, kept: str) -> None:
    assert written(parse_network(text)) == kept


@pytest.mark.parametrize("text", ["", "example.com", "192.0.2", "192.0.2.7/24", "192.0.2.0/33", "1.2.3.4-1.2.3.9"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_network(text)


def test_an_address_is_within_networks_of_its_own_kind_only() -> None:
    networks = ["192.0.2.0/24", "2001:db8::/32"]
    for address in ("192.0.2.200", "::ffff:192.0.2.1", "2001:db8:7::1"):
        assert is_within(address, networks), address
    for address in ("192.0.3.1", "2001:db9::1", "", "unknown"):
        assert not is_within(address, networks), address
    assert not is_within("192.0.2.200", ["::/0"])
    assert not is_within("192.0.2.200", [])


def test_a_network_is_part_of_another_as_a_whole() -> None:
    assert is_part("192.0.2.0/25", ["2001:db8::/32", "192.0.2.0/24"])
    assert is_part("192.0.2.7", ["192.0.2.7"])
    assert not is_part("192.0.0.0/16", ["192.0.2.0/24"])
    assert not is_part("0.0.0.0/0", ["::/0"])
