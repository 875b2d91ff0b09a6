"""PolicyFetcher: a policy over HTTPS from its policy host (RFC 8461 §3.3). The only importer of urllib3.

What the host does is an outcome and never an exception. Names are resolved once, and the connection goes to an
address that was examined: a name that points somewhere else a moment later is of no use. Nothing is decompressed,
cached or followed, no proxy is used, and nothing in a reply is repeated but in a bounded, escaped detail. Left out:
revocation, which RFC 8461 §3.3 leaves open; when to fetch (cache.py). A fetcher is safe to share between threads.
"""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address

from mailguard.dns.answers import Resolver
from mailguard.dns.question import Question, RecordType
from mailguard.domain import MAX_DOMAIN_CHARS, Domain
from mailguard.errors import ConfigError, MissingExtraError, install_command
from mailguard.mtasts.malformed import Malformed, shown
from mailguard.mtasts.metered_tls import Meter, MeteredContext
from mailguard.mtasts.policy import MAX_POLICY_BYTES, StsPolicy
from mailguard.mtasts.public_address import Address, is_public, unwrapped
from mailguard.mtasts.result import FetchOutcome, FetchReason

try:
    from urllib3 import BaseHTTPResponse, HTTPSConnectionPool, Timeout
    from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ReadTimeoutError
except ModuleNotFoundError as error:
    raise MissingExtraError(
        f"fetching MTA-STS policies needs urllib3; install it with: {install_command('mta-sts')}"
    ) from error

__all__ = ["FetchLimits", "PolicyFetcher"]

HTTPS_PORT = 443
PATH = "/.well-known/mta-sts.txt"
# RFC 8461 §3.2 asks for the media type; "identity" keeps honest servers from compressing.
HEADERS = {"User-Agent": "mailguard", "Accept": "text/plain", "Accept-Encoding": "identity", "Connection": "close"}
# A body with its header and with what the chunks of HTTP/1.1 add.
MAX_REPLY_BYTES = 2 * MAX_POLICY_BYTES
# Each may take the time of a connection that does not come about.
MAX_ADDRESSES = 4
MAX_CAUSES = 8
OK = 200
REDIRECTS = range(300, 400)


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchLimits:
    """In seconds. RFC 8461 §3.3 suggests a minute in total."""

    wait_s: float = 10.0
    """For a connection, for the TLS handshake, and for each further piece of the reply."""
    total_s: float = 60.0


class PolicyFetcher:
    """Fetches policies, one in each call."""

    def __init__(
        self,
        resolver: Resolver,
        *,
        ca_file: str | None = None,
        allowed_networks: Sequence[IPv4Network | IPv6Network] = (),
        port: int = HTTPS_PORT,
        limits: FetchLimits | None = None,
    ) -> None:
        """`ca_file`: PEM certificates to trust in place of the operating system's.

        Policy hosts in `allowed_networks` are talked to though those are not public. Raises ConfigError.
        """
        self._resolver = resolver
        self._authorities = _read_authorities(ca_file) if ca_file is not None else None
        self._allowed_networks = tuple(allowed_networks)
        self._port = port
        self._limits = limits or FetchLimits()

    def fetch(self, domain: Domain) -> FetchOutcome:
        """The policy that `domain` publishes now. Takes `total_s` at most, and blocks meanwhile."""
        host = f"mta-sts.{domain}"
        if len(host) > MAX_DOMAIN_CHARS:
            return FetchOutcome(reason=FetchReason.NO_ADDRESS, detail="the name of the policy host would be too long")
        deadline = time.monotonic() + self._limits.total_s
        addresses = self._addresses(host)
        if isinstance(addresses, FetchOutcome):
            return addresses
        outcome = FetchOutcome(reason=FetchReason.NO_ADDRESS, detail=f"{host} has no address")
        for address in addresses:
            outcome = self._fetch_from(address, host, deadline)
            # Who was reached has spoken; asking another address would double the time a hostile one can take.
            if outcome.reason is not FetchReason.UNREACHABLE or time.monotonic() >= deadline:
                break
        return outcome

    def _addresses(self, host: str) -> tuple[Address, ...] | FetchOutcome:
        """The first few that may be talked to. IPv4 first: where IPv6 leads nowhere, it takes the most time."""
        questions = [Question(host, rdtype) for rdtype in (RecordType.A, RecordType.AAAA)]
        answers = self._resolver.resolve(questions, deadline=time.monotonic() + self._limits.wait_s)
        found = [ip_address(text) for question in questions for text in answers[question].names()]
        if not found:
            failed = [str(question) for question in questions if answers[question].has_failed]
            if failed:
                detail = f"no answer from the DNS: {', '.join(failed)}"
                return FetchOutcome(reason=FetchReason.DNS_UNAVAILABLE, detail=detail)
            return FetchOutcome(reason=FetchReason.NO_ADDRESS, detail=f"{host} has no address")
        allowed = [address for address in found if self._is_allowed(address)]
        if not allowed:
            detail = f"{host} is {', '.join(map(str, found[:MAX_ADDRESSES]))}, which is not public"
            return FetchOutcome(reason=FetchReason.ADDRESS_REFUSED, detail=detail)
        return tuple(allowed[:MAX_ADDRESSES])

    def _is_allowed(self, address: Address) -> bool:
        plain = unwrapped(address)
        return is_public(address) or any(plain in network for network in self._allowed_networks)

    def _fetch_from(self, address: Address, host: str, deadline: float) -> FetchOutcome:
        limits = self._limits
        meter = Meter(wait_s=limits.wait_s, deadline=deadline, max_bytes=MAX_REPLY_BYTES)
        try:
            context = MeteredContext.of(meter, authorities=self._authorities)
            # RFC 8461 §7.1: the name goes into SNI; the address is only where the connection goes.
            with HTTPSConnectionPool(str(address), self._port, server_hostname=host, ssl_context=context) as pool:
                response = pool.urlopen(
                    "GET",
                    PATH,
                    headers={"Host": host, **HEADERS},
                    retries=False,
                    redirect=False,
                    timeout=Timeout(connect=meter.wait_s(), read=limits.wait_s),
                    preload_content=False,
                    decode_content=False,
                )
                try:
                    return _read(response, str(address))
                finally:
                    response.close()
        except (HTTPError, http.client.HTTPException, OSError, ValueError) as error:
            # Beside its own errors urllib3 lets those of http.client and of int() on a header through.
            reason, detail = _why(error, meter)
            return FetchOutcome(reason=reason, detail=f"{address}: {detail}", address=str(address))


def _read(response: BaseHTTPResponse, address: str) -> FetchOutcome:
    def failed(reason: FetchReason, detail: str) -> FetchOutcome:
        return FetchOutcome(reason=reason, detail=f"{address}: {detail}", address=address)

    # RFC 8461 §3.3: "only valid if the HTTP response code is 200", "3xx redirects MUST NOT be followed".
    if response.status in REDIRECTS:
        return failed(FetchReason.REDIRECTED, f"status {response.status}; redirects are not followed")
    if response.status != OK:
        return failed(FetchReason.STATUS, f"status {response.status}")
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip(" \t")
    if media_type.lower() != "text/plain":
        return failed(FetchReason.MEDIA_TYPE, f"the media type is {_quoted(media_type)}, not text/plain")
    encoding = response.headers.get("Content-Encoding", "").strip(" \t")
    if encoding.lower() not in ("", "identity"):
        return failed(FetchReason.ENCODED, f"the body is encoded as {_quoted(encoding)}")
    body = response.read(MAX_POLICY_BYTES + 1, decode_content=False)
    if len(body) > MAX_POLICY_BYTES:
        return failed(FetchReason.TOO_LARGE, f"the body has more than {MAX_POLICY_BYTES} octets")
    # What the length or the last chunk promises beyond that is an error of its own.
    response.read(1, decode_content=False)
    policy = StsPolicy.parse(body)
    if isinstance(policy, Malformed):
        return failed(FetchReason.MALFORMED, policy.detail)
    return FetchOutcome(reason=FetchReason.FETCHED, policy=policy, address=address)


def _why(error: BaseException, meter: Meter) -> tuple[FetchReason, str]:
    """What urllib3, http.client and ssl have raised, in our words."""
    if meter.is_too_large:
        return FetchReason.TOO_LARGE, f"the reply has more than {MAX_REPLY_BYTES} octets"
    if meter.is_late:
        return FetchReason.TIMED_OUT, "the time for the whole fetch is over"
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return FetchReason.CERTIFICATE, _quoted(cause.verify_message)
    if any(isinstance(cause, NewConnectionError | ConnectTimeoutError) for cause in causes):
        refused = [cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror]
        return FetchReason.UNREACHABLE, f"no connection: {refused[0] if refused else 'no answer in time'}"
    if any(isinstance(cause, ReadTimeoutError | TimeoutError) for cause in causes):
        return FetchReason.TIMED_OUT, "nothing came in time"
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            return FetchReason.TLS, _quoted(cause.reason or type(cause).__name__)
    return FetchReason.HTTP, f"the reply is not complete: {type(causes[-1]).__name__} {_quoted(str(causes[-1]))}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and what is behind it: urllib3 carries that as an argument, a reason, a cause or a context."""
    pending, seen = [error], 0
    while pending and seen < MAX_CAUSES:
        seen += 1
        current = pending.pop()
        yield current
        inner = [*current.args, getattr(current, "reason", None), current.__cause__ or current.__context__]
        pending += [one for one in inner if isinstance(one, BaseException) and one not in pending]


def _quoted(text: str) -> str:
    return shown(text.encode("utf-8", "surrogateescape"))


def _read_authorities(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="backslashreplace") as file:
            text = file.read()
        # Not create_default_context(), which takes an empty text for none.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: the certificates to trust cannot be read: {error}") from error
    return text
