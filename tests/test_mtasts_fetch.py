"""Fetching a policy over HTTPS (RFC 8461 §3.3): a real server on loopback, honest, broken and hostile.

ATTACKS.md rows: T08, T09, T10, T11, T12, N20.
"""

from __future__ import annotations

import gzip
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from mailguard.dns.question import Answer, Question, Status
from mailguard.dns.zone import ZoneResolver
from mailguard.domain import Domain
from mailguard.errors import ConfigError
from mailguard.mtasts.fetch import FetchLimits, PolicyFetcher
from mailguard.mtasts.policy import MAX_POLICY_BYTES, StsMode
from mailguard.mtasts.public_address import is_public
from mailguard.mtasts.result import FetchOutcome, FetchReason
from policy_site import DOMAIN, HOST, LOOPBACK, POLICY, Authority, Behaviour, Connection, PolicySite, fetched, reply

HURRIED = FetchLimits(wait_s=0.3, total_s=1.0)
# Never by how long one waits, only by how long all takes.
TOTAL_ONLY = FetchLimits(wait_s=10.0, total_s=1.0)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> str:
    return authority.issue(HOST)


# -- what is a policy ---------------------------------------------------------------------------------------------


def test_a_policy_is_fetched(authority: Authority, certificate: str) -> None:
    with PolicySite(certificate, reply()) as site:
        outcome = site.fetcher(ca_file=authority.ca_file).fetch(DOMAIN)
    assert outcome.reason is FetchReason.FETCHED, outcome
    assert outcome.policy is not None
    assert (outcome.policy.mode, outcome.policy.mx) == (StsMode.ENFORCE, ("mail.good.test",))
    assert outcome.address == "127.0.0.1"
    # RFC 8461 §3.2 has the path, RFC 8461 §7.1 wants the name in SNI.
    (request,) = site.requests
    lines = request.decode().split("\r\n")
    assert lines[0] == "GET /.well-known/mta-sts.txt HTTP/1.1"
    assert f"Host: {HOST}" in lines
    assert "Accept-Encoding: identity" in lines
    assert site.server_names == [HOST]


def test_it_is_fetched_over_ipv6(authority: Authority, certificate: str) -> None:
    try:
        site = PolicySite(certificate, reply(), address="::1")
    except OSError:
        pytest.skip("there is no IPv6 loopback here")
    with site:
        outcome = site.fetcher(ca_file=authority.ca_file).fetch(DOMAIN)
    assert (outcome.reason, outcome.address) == (FetchReason.FETCHED, "::1")


def ended_by_tls(connection: Connection) -> None:
    connection.send(HEAD + b"\r\n" + POLICY)
    connection.tls.unwrap()


def in_chunks(connection: Connection) -> None:
    connection.send(CHUNKED)
    for octet in POLICY:
        connection.send(b"1\r\n" + bytes([octet]) + b"\r\n")
    connection.send(b"0\r\n\r\n")


def after_a_word_of_patience(connection: Connection) -> None:
    connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    reply()(connection)


LARGEST = POLICY + b"note: " + b"x" * (MAX_POLICY_BYTES - len(POLICY) - 6)


@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(ended_by_tls, id="to-the-end-of-tls"),
        pytest.param(in_chunks, id="in-chunks"),
        pytest.param(after_a_word_of_patience, id="after-100"),
        pytest.param(reply(media_type="Text/Plain; charset=utf-8; x=y"), id="parameters"),
        pytest.param(reply(fields="Content-Encoding: identity\r\n"), id="identity"),
        pytest.param(reply(POLICY.replace(b"\r\n", b"\n")), id="lf-only"),
        pytest.param(reply(LARGEST), id="64-kB"),
    ],
)
def test_it_may_come_in_other_ways(authority: Authority, certificate: str, behaviour: Behaviour) -> None:
    outcome = fetched(behaviour, authority, certificate=certificate)
    assert outcome.reason is FetchReason.FETCHED, outcome


# -- what is not --------------------------------------------------------------------------------------------------


def cut_off(head: bytes) -> Behaviour:
    """The connection ends without the end of TLS: anybody on the way could have done that."""
    return lambda connection: connection.send(head + POLICY)


def ended_early(head: bytes) -> Behaviour:
    """TLS ends as it should, and the body before its end."""

    def behave(connection: Connection) -> None:
        connection.send(head + POLICY)
        connection.tls.unwrap()

    return behave


BOMB = gzip.compress(b"\n" * 50_000_000)

T08 = pytest.mark.attack("T08")
T09 = pytest.mark.attack("T09")
T10 = pytest.mark.attack("T10")
ELSEWHERE = reply(status="301 Moved", fields="Location: https://other.test/.well-known/mta-sts.txt\r\n")
BESIDE = reply(status="302 Found", fields=f"Location: https://{HOST}/policy.txt\r\n")
GZIPPED = gzip.compress(POLICY)


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        pytest.param(ELSEWHERE, "redirected", marks=T08, id="301"),
        pytest.param(BESIDE, "redirected", marks=T08, id="302"),
        pytest.param(reply(status="304 Not Modified"), "redirected", id="304"),
        pytest.param(reply(status="404 Not Found"), "status", id="404"),
        pytest.param(reply(status="500 Oops"), "status", id="500"),
        pytest.param(reply(status="201 Created"), "status", id="201"),
        pytest.param(reply(status="206 Partial Content"), "status", id="206"),
        pytest.param(reply(media_type="text/html"), "media-type", marks=T10, id="html"),
        pytest.param(reply(media_type="text/plainer"), "media-type", marks=T10, id="plainer"),
        pytest.param(reply(media_type=None), "media-type", marks=T10, id="no-type"),
        pytest.param(reply(fields="Content-Type: text/html\r\n"), "media-type", marks=T10, id="two-types"),
        pytest.param(reply(b"\xef\xbb\xbf" + POLICY), "malformed", marks=T10, id="bom"),
        pytest.param(reply(b"<html>"), "malformed", id="html-as-plain"),
        pytest.param(reply(b""), "malformed", id="empty"),
        pytest.param(reply(BOMB, fields="Content-Encoding: gzip\r\n"), "encoded", marks=T09, id="gzip-bomb"),
        pytest.param(reply(GZIPPED, fields="Content-Encoding: br\r\n"), "encoded", id="br"),
        pytest.param(reply(GZIPPED, fields="Transfer-Encoding: gzip\r\n"), "malformed", id="transfer-gzip"),
        pytest.param(reply(LARGEST + b"x"), "too-large", marks=T09, id="64-kB-and-1"),
        pytest.param(cut_off(HEAD + b"\r\n"), "tls", id="cut-off"),
        pytest.param(cut_off(HEAD + b"Content-Length: 4000\r\n\r\n"), "tls", id="shorter-than-it-says"),
        pytest.param(cut_off(CHUNKED + b"%x\r\n" % (len(POLICY) + 1)), "tls", id="cut-off-in-a-chunk"),
        pytest.param(ended_early(HEAD + b"Content-Length: 4000\r\n\r\n"), "http", id="ended-early"),
        pytest.param(ended_early(CHUNKED + b"%x\r\n" % (len(POLICY) + 1)), "http", id="ended-in-a-chunk"),
        pytest.param(ended_early(CHUNKED + b"%x\r\n" % len(POLICY)), "http", id="no-last-chunk"),
        pytest.param(lambda connection: None, "tls", id="nothing"),
        pytest.param(lambda connection: connection.send(b"SSH-2.0-x\r\n"), "http", id="ssh"),
        pytest.param(lambda connection: connection.send(b"\x00" * 1000 + b"\r\n"), "http", id="nul"),
        pytest.param(reply(fields="Content-Length: 1, 2\r\n"), "http", id="two-lengths"),
        pytest.param(lambda connection: connection.send(CHUNKED + b"-5\r\n" + POLICY), "http", id="negative-chunk"),
    ],
)  # fmt: skip
def test_it_is_refused(authority: Authority, certificate: str, behaviour: Behaviour, reason: str) -> None:
    with PolicySite(certificate, behaviour) as site:
        outcome = site.fetcher(ca_file=authority.ca_file).fetch(DOMAIN)
    assert outcome.reason.value == reason, outcome
    assert outcome.policy is None
    assert outcome.detail.removeprefix("127.0.0.1: ")
    assert outcome.detail.isascii()
    assert outcome.detail.isprintable()
    # Nothing was followed and nothing tried again.
    assert site.connections == 1


def test_an_outcome_is_what_it_says() -> None:
    with pytest.raises(ValueError, match="exactly where"):
        FetchOutcome(reason=FetchReason.FETCHED)
    with pytest.raises(TypeError):
        bool(FetchOutcome(reason=FetchReason.HTTP))


# -- what has no end ----------------------------------------------------------------------------------------------


def gigabyte(head: bytes, piece: bytes) -> Callable[[list[int]], Behaviour]:
    """Sends `head` and then `piece` again and again, and counts the octets that went out."""

    def counting(sent: list[int]) -> Behaviour:
        def behave(connection: Connection) -> None:
            connection.send(head)
            large = piece * (65_536 // len(piece))
            while sum(sent) < 1_000_000_000 and not connection.over.is_set():
                connection.send(large)
                sent.append(len(large))

        return behave

    return counting


@pytest.mark.attack("T09")
@pytest.mark.parametrize(
    ("endless", "reasons"),
    [
        pytest.param(gigabyte(HEAD + b"Content-Length: 1000000000\r\n\r\n", b"x" * 64), "too-large", id="body"),
        pytest.param(gigabyte(HEAD + b"\r\n", b"x" * 64), "too-large", id="body-without-length"),
        pytest.param(gigabyte(CHUNKED, b"1\r\nx\r\n"), "too-large", id="chunks"),
        pytest.param(gigabyte(CHUNKED, b"0" * 64), "too-large http", id="size-of-a-chunk"),
        pytest.param(gigabyte(CHUNKED + b"0\r\n", b"a: b\r\n"), "too-large http", id="trailer"),
        pytest.param(gigabyte(HEAD, b"a: b\r\n"), "http", id="fields"),
        pytest.param(gigabyte(HEAD, b"a" * 64), "too-large http", id="field"),
        pytest.param(gigabyte(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "too-large http", id="patience"),
        pytest.param(gigabyte(b"HTTP/1.1 ", b"2" * 64), "too-large http", id="status-line"),
    ],
)
def test_what_never_ends_is_left(
    authority: Authority, certificate: str, endless: Callable[[list[int]], Behaviour], reasons: str
) -> None:
    sent: list[int] = []
    outcome = fetched(endless(sent), authority, certificate=certificate)
    assert outcome.reason.value in reasons.split(), outcome
    # What the sockets of the two ends hold, and no gigabyte.
    assert sum(sent) < 30_000_000


@pytest.mark.attack("T09")
@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(HEAD, id="in-the-header"),
        pytest.param(HEAD + b"Content-Length: 1000\r\n\r\n" + b"x" * 1000, id="in-the-body"),
        pytest.param(CHUNKED + b"1\r\nx\r\n" * 1000, id="in-chunks"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" * 100, id="in-words-of-patience"),
    ],
)
def test_a_drip_ends_with_the_time_for_all(authority: Authority, certificate: str, octets: bytes) -> None:
    begun = time.monotonic()
    with PolicySite(certificate, lambda connection: connection.drip(octets, every_s=0.05)) as site:
        outcome = site.fetcher(ca_file=authority.ca_file, limits=TOTAL_ONLY).fetch(DOMAIN)
        took_s = time.monotonic() - begun
    assert outcome.reason is FetchReason.TIMED_OUT, outcome
    assert took_s < 10 * TOTAL_ONLY.total_s


@pytest.mark.attack("T09")
def test_silence_ends_with_the_time_for_one_wait(authority: Authority, certificate: str) -> None:
    limits = FetchLimits(wait_s=0.3, total_s=60.0)
    begun = time.monotonic()
    with PolicySite(certificate, lambda connection: connection.drip(b"H", every_s=20)) as site:
        outcome = site.fetcher(ca_file=authority.ca_file, limits=limits).fetch(DOMAIN)
        took_s = time.monotonic() - begun
    assert outcome.reason is FetchReason.TIMED_OUT, outcome
    assert took_s < limits.total_s / 2


@pytest.mark.attack("T09")
def test_a_drip_in_the_handshake_ends_too(authority: Authority) -> None:
    over = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            for octet in b"\x16\x03\x03\x40\x00" + bytes(1000):
                if over.wait(0.05):
                    return
                connection.sendall(bytes([octet]))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,), daemon=True)
        thread.start()
        zone = ZoneResolver({HOST: {"A": ["127.0.0.1"]}})
        fetcher = PolicyFetcher(
            zone,
            ca_file=authority.ca_file,
            allowed_networks=LOOPBACK,
            port=listener.getsockname()[1],
            limits=TOTAL_ONLY,
        )
        begun = time.monotonic()
        outcome = fetcher.fetch(DOMAIN)
        took_s = time.monotonic() - begun
        over.set()
        thread.join(5)
    assert outcome.reason is FetchReason.TIMED_OUT, outcome
    assert took_s < 10 * TOTAL_ONLY.total_s


def test_the_bounds_are_those_that_the_standard_suggests() -> None:
    assert FetchLimits() == FetchLimits(wait_s=10.0, total_s=60.0)
    assert MAX_POLICY_BYTES == 64 * 1024


# -- certificates -------------------------------------------------------------------------------------------------


@pytest.mark.attack("T12")
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda authority: authority.issue(HOST, days=(-5, -1)), id="expired"),
        pytest.param(lambda authority: authority.issue(HOST, days=(2, 5)), id="not-yet"),
        pytest.param(lambda authority: authority.issue("mail.good.test", str(DOMAIN)), id="wrong-name"),
        pytest.param(lambda authority: authority.issue(f"x.{HOST}", "*.test", "*"), id="wrong-depth"),
        pytest.param(lambda authority: authority.issue(f"mta-*.{DOMAIN}", "mta-sts.*.test"), id="part-of-a-label"),
        pytest.param(lambda authority: authority.issue(HOST, is_self_signed=True), id="self-signed"),
        pytest.param(lambda authority: authority.issue(common_name=HOST), id="cn-only"),
        pytest.param(lambda authority: authority.issue("other.test", common_name=HOST), id="cn-beside-names"),
        pytest.param(lambda authority: authority.issue_with_sha1(HOST), id="sha-1"),
    ],
)
def test_a_certificate_that_is_not_valid_gives_no_policy(
    authority: Authority, make: Callable[[Authority], str]
) -> None:
    with PolicySite(make(authority), reply()) as site:
        outcome = site.fetcher(ca_file=authority.ca_file).fetch(DOMAIN)
    assert outcome.reason is FetchReason.CERTIFICATE, outcome
    assert outcome.detail.removeprefix("127.0.0.1: ")
    assert site.requests == []


def test_a_wildcard_stands_for_the_first_label(authority: Authority) -> None:
    assert fetched(reply(), authority, certificate=authority.issue(f"*.{DOMAIN}")).reason is FetchReason.FETCHED


@pytest.mark.attack("T12")
def test_an_authority_that_is_not_trusted_gives_no_policy(
    authority: Authority, certificate: str, tmp_path: Path
) -> None:
    for ca_file in (Authority(tmp_path).ca_file, None):
        with PolicySite(certificate, reply()) as site:
            outcome = site.fetcher(ca_file=ca_file).fetch(DOMAIN)
        assert outcome.reason is FetchReason.CERTIFICATE, outcome


def test_the_authorities_of_the_system_count_where_none_are_named(
    authority: Authority, certificate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", authority.ca_file)
    with PolicySite(certificate, reply()) as site:
        assert site.fetcher(ca_file=None).fetch(DOMAIN).reason is FetchReason.FETCHED


def test_authorities_that_cannot_be_read_are_a_fault_of_the_configuration(tmp_path: Path) -> None:
    for name, text in (("empty", ""), ("blank", "\n"), ("other", "no certificate")):
        (tmp_path / f"{name}.pem").write_text(text)
    for name in ("empty", "blank", "other", "absent"):
        with pytest.raises(ConfigError, match=rf"{name}\.pem: the certificates to trust cannot be read"):
            PolicyFetcher(ZoneResolver({}), ca_file=str(tmp_path / f"{name}.pem"))


# -- addresses ----------------------------------------------------------------------------------------------------


class Counting(ZoneResolver):
    """Says something else each time it is asked, as a name does that is to be rebound; counts the questions."""

    def __init__(self, *zones: ZoneResolver) -> None:
        super().__init__({})
        self.zones = list(zones)
        self.asked: list[Question] = []

    def resolve(self, questions: Iterable[Question], *, deadline: float) -> dict[Question, Answer]:
        questions = list(questions)
        self.asked += questions
        return self.zones.pop(0).resolve(questions, deadline=deadline)


PRIVATE_IPV4 = """
    127.0.0.1 127.255.255.254 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 0.0.0.0 224.0.0.1
    240.0.0.1 255.255.255.255 192.0.2.1 198.18.0.1
"""
PRIVATE_IPV6 = """
    ::1 :: fe80::1 fc00::1 fd00::1 fec0::1 ff02::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe
    2002:7f00:1:: 2001:db8::1 2001::1 3fff::1 ::127.0.0.1 100::1
"""


@pytest.mark.attack("T11", "N20")
@pytest.mark.parametrize("address", [*PRIVATE_IPV4.split(), *PRIVATE_IPV6.split()])
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert not is_public(ip_address(address))
    zone = ZoneResolver({HOST: {"AAAA" if ":" in address else "A": [address]}})
    outcome = PolicyFetcher(zone, limits=HURRIED).fetch(DOMAIN)
    assert outcome.reason is FetchReason.ADDRESS_REFUSED, outcome
    assert HOST in outcome.detail


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1", "64:ff9b::808:808", "::ffff:8.8.8.8", "2002:808:808::"]
)
def test_public_addresses_are_not(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.attack("T11")
def test_a_private_address_among_public_ones_is_left_out(authority: Authority, certificate: str) -> None:
    with PolicySite(certificate, reply(), address="127.0.0.2") as site:
        zone = ZoneResolver({HOST: {"A": ["10.1.2.3", "169.254.169.254", "127.0.0.2"], "AAAA": ["::1"]}})
        fetcher = PolicyFetcher(
            zone, ca_file=authority.ca_file, allowed_networks=[ip_network("127.0.0.2/32")], port=site.port
        )
        assert fetcher.fetch(DOMAIN).address == "127.0.0.2"


@pytest.mark.attack("N20")
def test_the_address_that_was_examined_is_the_one_that_is_talked_to(authority: Authority, certificate: str) -> None:
    with PolicySite(certificate, reply(), address="127.0.0.2") as site:
        first, then = (ZoneResolver({HOST: {"A": [address]}}) for address in ("127.0.0.2", "127.0.0.1"))
        resolver = Counting(first, then)
        fetcher = PolicyFetcher(
            resolver, ca_file=authority.ca_file, allowed_networks=[ip_network("127.0.0.2/32")], port=site.port
        )
        assert fetcher.fetch(DOMAIN).address == "127.0.0.2"
        assert [str(question) for question in resolver.asked] == [f"{HOST} A", f"{HOST} AAAA"]
        assert fetcher.fetch(DOMAIN).reason is FetchReason.ADDRESS_REFUSED
    assert site.connections == 1


def test_the_next_address_is_tried_where_nothing_listens(authority: Authority, certificate: str) -> None:
    with PolicySite(certificate, reply(), address="127.0.0.2") as site:
        zone = ZoneResolver({HOST: {"A": ["127.0.0.3", "127.0.0.2"]}})
        outcome = site.fetcher(ca_file=authority.ca_file, resolver=zone).fetch(DOMAIN)
        assert outcome.address == "127.0.0.2"
    # Nothing listens there any more.
    outcome = site.fetcher(ca_file=authority.ca_file, resolver=zone).fetch(DOMAIN)
    assert outcome.reason is FetchReason.UNREACHABLE
    assert "Connection refused" in outcome.detail


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        pytest.param(reply(status="500 Oops"), FetchReason.STATUS, id="reply"),
        pytest.param(lambda connection: connection.drip(b"H", every_s=20), FetchReason.TIMED_OUT, id="silence"),
    ],
)
def test_the_next_address_is_not_tried_where_somebody_was_reached(
    authority: Authority, certificate: str, behaviour: Behaviour, reason: FetchReason
) -> None:
    with PolicySite(certificate, behaviour, address="127.0.0.2") as site:
        zone = ZoneResolver({HOST: {"A": ["127.0.0.2", "127.0.0.2"]}})
        outcome = site.fetcher(ca_file=authority.ca_file, resolver=zone, limits=HURRIED).fetch(DOMAIN)
    assert (outcome.reason, outcome.address) == (reason, "127.0.0.2")
    assert site.connections == 1


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        pytest.param(Status.TEMPFAIL, FetchReason.DNS_UNAVAILABLE, id="servfail"),
        pytest.param(Status.BOGUS, FetchReason.DNS_UNAVAILABLE, id="bogus"),
        pytest.param(Status.NXDOMAIN, FetchReason.NO_ADDRESS, id="nxdomain"),
        pytest.param(Status.NODATA, FetchReason.NO_ADDRESS, id="nodata"),
    ],
)
def test_a_host_without_an_address(status: Status, reason: FetchReason) -> None:
    zone = ZoneResolver({}, status={(HOST, "*"): status})
    assert PolicyFetcher(zone).fetch(DOMAIN).reason is reason


def test_a_name_that_is_too_long_is_not_asked_for() -> None:
    domain = Domain.parse(".".join(["a" * 62] * 4))
    assert PolicyFetcher(Counting()).fetch(domain).reason is FetchReason.NO_ADDRESS


# -- the dependency -----------------------------------------------------------------------------------------------


def test_without_urllib3_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['urllib3'] = None\nimport mailguard.mtasts.fetch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert "pip install 'mailguard-milter[mta-sts]'" in done.stderr
    # All else is there without it.
    code = "import sys; sys.modules['urllib3'] = None\nimport mailguard.mtasts.cache, mailguard.mtasts.record"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_no_proxy_is_used(authority: Authority, certificate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert fetched(reply(), authority, certificate=certificate).reason is FetchReason.FETCHED
