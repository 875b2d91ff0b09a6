"""The signed messages that the RFCs print: RFC 6376 appendix A.2 and RFC 8463 appendix A.

Written from the texts, independent of any suite. Left out: verdicts other than on these two messages.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

import pytest

from mailguard.dkim.result import DkimResult, DkimStatus
from mailguard.dkim.signing_key import KeyCheck, SigningKey
from mailguard.dns.zone import ZoneResolver
from mailguard.message import Message
from mailguard.pipeline import verify_dkim

NOW = 1_760_000_000

# RFC 6376 §A.2. The page shows two blanks after "game." and folds of five; the message that was signed with
# simple/simple has one blank and folds of six. As printed it does not verify (test_rfc6376_as_printed).
RFC_6376_HEADER = """\
DKIM-Signature: v=1; a=rsa-sha256; s=brisbane; d=example.com;
      c=simple/simple; q=dns/txt; i=joe@football.example.com;
      h=Received : From : To : Subject : Date : Message-ID;
      bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
      b=AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB
      4nujc7YopdG5dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHut
      KVdkLLkpVaVVQPzeRDI009SO2Il5Lu7rDNH6mZckBdrIx0orEtZV
      4bmp/YzhwvcubU4=;
Received: from client1.football.example.com  [192.0.2.1]
      by submitserver.example.com with SUBMISSION;
      Fri, 11 Jul 2003 21:01:54 -0700 (PDT)
"""
SIXPACK_HEADER = """\
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>
"""
SIXPACK_BODY = """
Hi.

We lost the game. Are you hungry yet?

Joe.
"""
# RFC 6376 appendix C
RFC_6376_ZONE = {
    "brisbane._domainkey.example.com": (
        "v=DKIM1; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQ",
        "KBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYt",
        "IxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v",
        "/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhi",
        "tdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB",
    )
}

# RFC 8463 §A.3
RFC_8463_SIGNATURES = """\
DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
"""
# RFC 8463 §A.2
RFC_8463_ZONE = {
    "brisbane._domainkey.football.example.com": (
        "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    ),
    "test._domainkey.football.example.com": (
        "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWR",
        "iGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutAC",
        "DfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3",
        "Ip3G+2kryOTIKT+l/K4w3QIDAQAB",
    ),
}
# RFC 8463 §A.1: published test keys, secret from nobody.
ED25519_KEY = b"nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="
RSA_KEY = b"""\
-----BEGIN RSA PRIVATE KEY-----
MIICXQIBAAKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQi
Y/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqM
KrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB
AoGAH0cxOhFZDgzXWhDhnAJDw5s4roOXN4OhjiXa8W7Y3rhX3FJqmJSPuC8N9vQm
6SVbaLAE4SG5mLMueHlh4KXffEpuLEiNp9Ss3O4YfLiQpbRqE7Tm5SxKjvvQoZZe
zHorimOaChRL2it47iuWxzxSiRMv4c+j70GiWdxXnxe4UoECQQDzJB/0U58W7RZy
6enGVj2kWF732CoWFZWzi1FicudrBFoy63QwcowpoCazKtvZGMNlPWnC7x/6o8Gc
uSe0ga2xAkEA8C7PipPm1/1fTRQvj1o/dDmZp243044ZNyxjg+/OPN0oWCbXIGxy
WvmZbXriOWoSALJTjExEgraHEgnXssuk7QJBALl5ICsYMu6hMxO73gnfNayNgPxd
WFV6Z7ULnKyV7HSVYF0hgYOHjeYe9gaMtiJYoo0zGN+L3AAtNP9huqkWlzECQE1a
licIeVlo1e+qJ6Mgqr0Q7Aa7falZ448ccbSFYEPD6oFxiOl9Y9se9iYHZKKfIcst
o7DUw1/hz2Ck4N5JrgUCQQCyKveNvjzkkd8HjYs0SwM0fPjK16//5qDZ2UiDGnOe
uEzxBDAr518Z8VFbR41in3W4Y3yCDgQlLlcETrS+zYcL
-----END RSA PRIVATE KEY-----
"""

RFC_6376_MESSAGE = RFC_6376_HEADER + SIXPACK_HEADER + SIXPACK_BODY
RFC_8463_MESSAGE = RFC_8463_SIGNATURES + SIXPACK_HEADER + SIXPACK_BODY.replace("game. ", "game.  ")


def verify_text(text: str, zone: Mapping[str, tuple[str, ...]]) -> tuple[DkimResult, ...]:
    """The results for a message with LF line ends; each record is given by its character-strings."""
    resolver = ZoneResolver({name: {"TXT": [strings]} for name, strings in zone.items()})
    return verify_dkim(Message.parse(text.replace("\n", "\r\n").encode("ascii")), resolver=resolver, now=NOW)


def verdicts(text: str, zone: Mapping[str, tuple[str, ...]]) -> list[str]:
    return [result.reason.value for result in verify_text(text, zone)]


def test_rfc6376_appendix_a() -> None:
    (result,) = verify_text(RFC_6376_MESSAGE, RFC_6376_ZONE)
    assert result.status is DkimStatus.PASS
    assert (result.domain, result.selector, result.identity) == (
        "example.com",
        "brisbane",
        "joe@football.example.com",
    )
    assert (result.algorithm, result.key_bits, result.signature_prefix) == ("rsa-sha256", 1024, "AuUoFEfD")


def test_rfc8463_appendix_a() -> None:
    found = verify_text(RFC_8463_MESSAGE, RFC_8463_ZONE)
    assert [(r.status.value, r.algorithm, r.selector, r.key_bits, r.signature_prefix) for r in found] == [
        ("pass", "ed25519-sha256", "brisbane", 256, "/gCrinpc"),
        ("pass", "rsa-sha256", "test", 1024, "F45dVWDf"),
    ]


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (RFC_6376_MESSAGE.replace("game. ", "game.  "), "body-hash"),
        (RFC_6376_MESSAGE.replace("\n      ", "\n     "), "signature"),
    ],
    ids=["two blanks in the body", "folds of five"],
)
def test_rfc6376_as_printed(printed: str, expected: str) -> None:
    """simple/simple notices each blank that the page has more or less than the message that was signed."""
    assert verdicts(printed, RFC_6376_ZONE) == [expected]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (RFC_8463_MESSAGE.replace("game.  ", "game. "), ["verified", "verified"]),
        (RFC_8463_MESSAGE.replace("Subject: Is", "SUBJECT :   Is"), ["verified", "verified"]),
        (RFC_8463_MESSAGE.replace("hungry", "Hungry"), ["body-hash", "body-hash"]),
        (RFC_8463_MESSAGE.replace("dinner", "Dinner"), ["signature", "signature"]),
        (RFC_8463_MESSAGE.replace("t=1528637909; h=from : to :\n", "t=1528637908; h=from : to :\n"),
         ["signature", "verified"]),
        # h= lists From, Subject and Date twice: a second one breaks both signatures.
        (RFC_8463_MESSAGE.replace("Subject:", "Subject: a\nSubject:"), ["signature", "signature"]),
    ],
)  # fmt: skip
def test_rfc8463_changed(changed: str, expected: list[str]) -> None:
    assert changed != RFC_8463_MESSAGE
    assert verdicts(changed, RFC_8463_ZONE) == expected


@pytest.mark.parametrize(
    ("octets", "selector", "number"), [(ED25519_KEY, "brisbane", 0), (RSA_KEY, "test", 1)], ids=["ed25519", "rsa"]
)
def test_rfc8463_keys_sign_to_the_printed_octets(octets: bytes, selector: str, number: int) -> None:
    """Both algorithms are deterministic: the keys of §A.1 make the b= of §A.3 and the records of §A.2."""
    key = SigningKey.from_bytes(octets, domain="football.example.com", selector=selector, check=KeyCheck.FULL)
    assert key.record().decode("ascii") == "".join(RFC_8463_ZONE[key.public_name])
    field = "DKIM-Signature:" + RFC_8463_SIGNATURES.split("DKIM-Signature:")[number + 1]
    unsigned, _, b = field.partition(" b=")
    # Canonicalized by hand (RFC 6376 §3.4.2): h= is From to Message-ID once; the second names are of absent fields.
    lines = [*SIXPACK_HEADER.splitlines(), " ".join(unsigned.split()) + " b="]
    signed = [line.partition(":")[0].lower() + ":" + line.partition(": ")[2] for line in lines]
    assert key.sign("\r\n".join(signed).encode("ascii")) == base64.b64decode(b)
