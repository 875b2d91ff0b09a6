"""Next hops, as Postfix writes them."""

from __future__ import annotations

import pytest

from mailguard.dane.destination import Destination, DestinationKind, is_address

DOMAIN, HOST, ADDRESS = DestinationKind.DOMAIN, DestinationKind.HOST, DestinationKind.ADDRESS


@pytest.mark.parametrize(
    ("text", "name", "kind", "port"),
    [
        ("example.com", "example.com", DOMAIN, 25),
        ("Example.COM:587", "example.com", DOMAIN, 587),
        ("b\u00fccher.example", "xn--bcher-kva.example", DOMAIN, 25),
        ("[mx.example.com]", "mx.example.com", HOST, 25),
        # What Postfix delivers to, and what is no name for people (RFC 5890): as it is in the DNS.
        ("A_b.example.com", "a_b.example.com", DOMAIN, 25),
        ("[xn--a.ws]:26", "xn--a.ws", HOST, 26),
        ("[mx.example.com]:2525", "mx.example.com", HOST, 2525),
        ("[192.0.2.1]", "192.0.2.1", ADDRESS, 25),
        ("[192.0.2.1]:26", "192.0.2.1", ADDRESS, 26),
        ("[IPv6:2001:DB8::1]", "2001:db8::1", ADDRESS, 25),
        ("[2001:db8::1]:26", "2001:db8::1", ADDRESS, 26),
        ("192.0.2.1", "192.0.2.1", ADDRESS, 25),
    ],
)
def test_forms(text: str, name: str, kind: DestinationKind, port: int) -> None:
    destination = Destination.parse(text)
    assert (destination.name, destination.kind, destination.port) == (name, kind, port)
    assert Destination.parse(str(destination)) == destination


NO_FORM = ["", "[]", "[mx.example.com", "mx.example.com]", "a.test:", "a.test:smtp", "2001:db8::1", "[[a.test]]"]
NO_FORM += ["[a.test]:25:25", "a.test:100000"]
NO_PORT = ["a.test:0", "a.test:65536"]
NO_NAME = ["a..test", ".example.com", "a b.test", "a.test\n", "a\0.test", "x" * 100_000, "[a_b-.test]", "a_b..test"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        *((text, "a destination is") for text in NO_FORM),
        *((text, "is no port") for text in NO_PORT),
        *((text, "label|name") for text in NO_NAME),
    ],
)
def test_what_is_none(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Destination.parse(text)


def test_addresses() -> None:
    assert is_address("192.0.2.1")
    assert is_address("2001:db8::1")
    assert not is_address("192.0.2.1.example.com")
    assert not is_address("\\049\\057")
