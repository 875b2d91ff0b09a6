"""The configuration: a TOML file as frozen values, checked once when it is loaded.

Strict: an unknown key, a wrong type or an impossible value is an error that names the file, the line, the key
and what to do. docs/configuration.md is generated from the descriptions here. RFC 8601 §2.2 (authserv-id),
RFC 6376 §3.1 (selectors). Left out: whether key files can be loaded and sockets bound, which is for those who
use them. Needs the extra `[cli]`. Values are immutable and safe to share between threads.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from mailguard.errors import ConfigError, MissingExtraError, install_command

try:
    from pydantic import (
        Field,
        StrictBool,
        StrictFloat,
        StrictInt,
        ValidationError,
        field_validator,
        model_validator,
    )
except ModuleNotFoundError as error:
    raise MissingExtraError(
        f"reading a configuration needs pydantic; install it with: {install_command('cli')}"
    ) from error

from mailguard.config_file import KeyPath, TomlFile, sentences
from mailguard.config_inbound import (
    DmarcConfig,
    PolicyConfig,
    ResultsConfig,
    SpfConfig,
    TraceConfig,
    TrustedRule,
)
from mailguard.config_senders import SendersConfig
from mailguard.config_tlspolicy import TlsPolicyConfig
from mailguard.config_values import (
    DOMAINS_ONCE,
    AuthservId,
    DomainKey,
    DomainName,
    FieldName,
    FilePath,
    KeyPattern,
    ListenAddress,
    Name,
    Nameserver,
    Network,
    Section,
    Selector,
    SocketAddress,
    SocketMode,
)
from mailguard.rule import Mode

__all__ = [
    "DEFAULT_PATH",
    "DEFAULT_USER",
    "Config",
    "DnsConfig",
    "DomainRule",
    "Listener",
    "LogConfig",
    "Mode",
    "NetworkRule",
    "SelectorRule",
    "SignConfig",
    "SocketAddress",
    "VerifyConfig",
    "load",
    "parse",
]

DEFAULT_PATH = "/etc/mailguard/mailguard.toml"
DEFAULT_USER = "mailguard"
DEFAULT_KEY_PATTERN = "/etc/mailguard/keys/{domain}/{selector}.pem"

# Postfix waits 30 s for the reply to a milter command; the look-ups must leave time for the rest.
MAX_DEADLINE_S = 25
MAX_WORKERS = 256

# What follows the last dot of [domains.example.com], written without quotes.
_LAST_LABEL = re.compile("[a-z]{2,6}")
_BODY_LENGTH_KEY = re.compile(r"l|l_tag|.*(?:body|length).*")


class LogConfig(Section):
    """One line for each message."""

    destination: Literal["syslog", "stderr"] = Field(
        default="syslog",
        description="Where the line of each message goes: `syslog` is the mail facility of /dev/log; `stderr` suits"
        " systemd and containers. What the daemon itself does (a start, a reload, a dead worker) is said on stderr.",
    )
    format: Literal["logfmt", "json"] = Field(default="logfmt", description="`logfmt` (`key=value`) or `json`.")


class DnsConfig(Section):
    """How names are looked up."""

    nameservers: tuple[Nameserver, ...] = Field(
        default=(), description="Addresses of the resolvers to ask, in this order. Empty: those of /etc/resolv.conf."
    )
    port: StrictInt = Field(default=53, ge=1, le=65535, description="The port of these resolvers.")
    trust_ad: tuple[Nameserver, ...] = Field(
        default=(),
        description="Addresses of resolvers that validate DNSSEC and whose word counts (RFC 4035 §4.9.3), beside"
        " those on loopback. Only where nobody can get between: whoever can change their replies can turn DANE off.",
    )
    deadline_s: StrictFloat = Field(
        default=8.0,
        gt=0,
        le=MAX_DEADLINE_S,
        description="Seconds for all look-ups of one message; what is open then counts as a temporary error.",
    )
    query_timeout_s: StrictFloat = Field(
        default=2.0, gt=0, le=MAX_DEADLINE_S, description="Seconds to wait for one server before the next is asked."
    )
    cache_entries: StrictInt = Field(default=100_000, ge=1, description="The most answers that a worker keeps.")
    cache_bytes: StrictInt = Field(
        default=64 * 1024 * 1024, ge=1024, description="The most octets that a worker's kept answers may take."
    )
    zone_file: FilePath | None = Field(
        default=None,
        description="Answer from this master file (RFC 1035 §5) alone and ask no server. For tests and the demo.",
    )


class Listener(Section):
    """A socket on which Postfix reaches the milter."""

    address: ListenAddress = Field(
        default="unix:/run/mailguard/mailguard.sock",
        description="`unix:/absolute/path`, `inet:127.0.0.1:8891` or `inet6:[::1]:8891`. For a chrooted Postfix,"
        " a path below its queue directory; main.cf then names it relative to that. To an address on loopback every"
        " user of this host can connect, and have mail signed; who takes the port while mailguard is down is given"
        " all mail.",
    )
    mode: SocketMode = Field(
        default="0660",
        description="Permissions of a unix socket, in octal. Who can connect can claim to be anyone and have mail"
        " signed: leave it to the group of Postfix.",
    )
    group: Name | None = Field(default=None, description="Group of a unix socket. Default: that of `user`.")
    role: Literal["auto", "sign", "verify"] = Field(
        default="auto",
        description="`auto`: authenticated and listed clients are signed, all others verified. `sign` and `verify`"
        " fix it for this listener.",
    )
    workers: StrictInt | None = Field(
        default=None,
        ge=1,
        le=MAX_WORKERS,
        description="Processes that serve this listener. Default: one for each core. With libmilter each"
        " keeps to one core; with the native engine all listeners share as many as one of them asks for.",
    )
    allow_remote: StrictBool = Field(
        default=False,
        description="Permits an address that other hosts can reach. The milter protocol has no password.",
    )

    @model_validator(mode="after")
    def _is_local_or_allowed(self) -> Listener:
        if not self.socket_address.is_local and not self.allow_remote:
            raise ValueError(
                f"{self.address} can be reached by other hosts, and whoever reaches it can have mail signed;"
                " listen on 127.0.0.1 or ::1, or set allow_remote = true"
            )
        return self

    @property
    def socket_address(self) -> SocketAddress:
        """`address`, parsed."""
        return SocketAddress.parse(self.address)

    @property
    def mode_bits(self) -> int:
        """`mode` as the number that os.chmod takes."""
        return int(self.mode, 8)


class NetworkRule(Section):
    """Clients that are signed without a login, and for which domains in From."""

    networks: tuple[Network, ...] = Field(min_length=1, description="Networks of the clients.")
    domains: tuple[DomainName, ...] = Field(
        min_length=1,
        description="Domains in From for which these clients are signed; a subdomain is listed by itself. Never more"
        " than they own.",
    )


class SignConfig(Section):
    """Whose mail is signed, and how. There is no key for l=: signatures always cover the whole body."""

    daemon_names: tuple[Name, ...] = Field(
        default=("ORIGINATING",),
        description="A client is one of our own users where Postfix gives the milter one of these as"
        " `{daemon_name}`, as it is where it gives a login.",
    )
    networks: tuple[NetworkRule, ...] = Field(
        default=(), description="Rules for clients without a login. Empty: none is signed, loopback included."
    )
    canonicalization: Literal["relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple"] = Field(
        default="relaxed/relaxed", description="Of the header and of the body (RFC 6376 §3.4)."
    )
    lifetime_days: StrictInt = Field(
        default=7, ge=1, le=365, description="Days until a signature expires (x=, RFC 6376 §3.5)."
    )
    key_pattern: KeyPattern | None = Field(
        default=DEFAULT_KEY_PATTERN,
        description="Where the keys of a domain without a rule of its own are, for hosts with many domains."
        " Used if `key_selectors` is not empty.",
    )
    key_selectors: tuple[Selector, ...] = Field(
        default=(),
        description="Selectors to put into `key_pattern`; a domain is signed with those whose file exists.",
    )
    key_permissions: Literal["strict", "group"] = Field(
        default="strict",
        description="`strict`: only its owner may read a key file; `group`: its group may too, in which Postfix's"
        " user must not be, as it often is for the socket.",
    )

    @model_validator(mode="after")
    def _pattern_has_selectors(self) -> SignConfig:
        if self.key_pattern not in (None, DEFAULT_KEY_PATTERN) and not self.key_selectors:
            raise ValueError("key_pattern is given but key_selectors is empty, so that it would name no key")
        return self


class SelectorRule(Section):
    """One key of a domain."""

    name: Selector = Field(description="The selector (s=): the key is published at NAME._domainkey.DOMAIN.")
    key_file: FilePath = Field(
        description="The private key: PEM, or a raw or base64 Ed25519 key. A relative path begins at the directory"
        " of the configuration file."
    )


class DomainRule(Section):
    """The keys with which mail from a domain is signed."""

    selectors: tuple[SelectorRule, ...] = Field(default=(), description="The keys; mail is signed with each of them.")
    rotation: FilePath | None = Field(
        default=None,
        description="In place of `selectors`: the file in which `mailguard key rotate` keeps which keys sign. See"
        " [keys.md](keys.md).",
    )
    subdomains: StrictBool = Field(
        default=False, description="Sign mail from its subdomains too, with d= this domain."
    )

    @model_validator(mode="after")
    def _has_keys(self) -> DomainRule:
        if bool(self.selectors) is (self.rotation is not None):
            raise ValueError("give selectors, or rotation with the file of mailguard key rotate: one of the two")
        return self

    @field_validator("selectors")
    @classmethod
    def _different(cls, value: tuple[SelectorRule, ...]) -> tuple[SelectorRule, ...]:
        return _unique(value, lambda selector: selector.name, "selector")


class VerifyConfig(Section):
    """How the signatures of others are judged."""

    max_signatures: StrictInt = Field(
        default=10, ge=1, le=50, description="The most signatures of a message that are verified, aligned ones first."
    )
    body_length: Literal["policy", "accept-whole"] = Field(
        default="policy",
        description="A signature with l= gets the result `policy`; `accept-whole` accepts one that covers the"
        " whole body.",
    )
    strip_headers: tuple[FieldName, ...] = Field(
        default=(), description="Header fields that are removed from mail that is verified."
    )


class Config(Section):
    """The whole configuration."""

    mode: Mode = Field(
        default=Mode.MONITOR, description="`monitor` signs and annotates and refuses nothing; `enforce` refuses."
    )
    authserv_id: AuthservId = Field(
        default_factory=lambda: socket.getfqdn(),
        description="The name of this host in Authentication-Results (RFC 8601 §2.5). Fields that claim it in mail"
        " from outside are removed. Default: the host's full name.",
    )
    engine: Literal["libmilter", "native"] = Field(
        default="libmilter",
        description="What speaks with Postfix: `libmilter` is Sendmail's library, by pymilter; `native` is an event"
        " loop of mailguard's own. See [engines.md](engines.md).",
    )
    user: Name = Field(default=DEFAULT_USER, description="The user that the daemon becomes when root starts it.")
    runtime_directory: FilePath = Field(
        default="/run/mailguard", description="For the lock of the daemon and private files of its workers."
    )
    log: LogConfig = Field(default=LogConfig(), description="")
    dns: DnsConfig = Field(default=DnsConfig(), description="")
    listeners: tuple[Listener, ...] = Field(default=(Listener(),), min_length=1, description="")
    sign: SignConfig = Field(default=SignConfig(), description="")
    domains: Annotated[Mapping[DomainKey, DomainRule], DOMAINS_ONCE] = Field(default_factory=dict, description="")
    verify: VerifyConfig = Field(default=VerifyConfig(), description="")
    spf: SpfConfig = Field(default=SpfConfig(), description="")
    dmarc: DmarcConfig = Field(default=DmarcConfig(), description="")
    results: ResultsConfig = Field(default=ResultsConfig(), description="")
    policy: PolicyConfig = Field(default=PolicyConfig(), description="")
    trusted: tuple[TrustedRule, ...] = Field(default=(), description="")
    senders: SendersConfig = Field(default=SendersConfig(), description="")
    tlspolicy: TlsPolicyConfig = Field(default=TlsPolicyConfig(), description="")
    trace: TraceConfig = Field(default=TraceConfig(), description="")

    @model_validator(mode="after")
    def _helo_rules_have_results(self) -> Config:
        tables = (self.policy.helo, *(table.helo for table in self.policy.domains.values()))
        if not self.spf.check_helo and any(table.model_fields_set for table in tables):
            raise ValueError("policy.helo has no effect with check_helo = false in [spf]: remove one of the two")
        return self

    @field_validator("listeners")
    @classmethod
    def _addresses_once(cls, value: tuple[Listener, ...]) -> tuple[Listener, ...]:
        return _unique(value, lambda listener: listener.address, "address")


def _unique(values: tuple[Any, ...], key: Any, what: str) -> tuple[Any, ...]:
    seen = set()
    for value in values:
        if key(value) in seen:
            raise ValueError(f'the {what} "{key(value)}" is given twice')
        seen.add(key(value))
    return values


def _unknown_key(path: KeyPath) -> str | None:
    start = 2 if path[:2] == ("policy", "domains") else 1 if path[0] == "domains" else None
    if start and len(path) > start + 1 and "." not in str(path[start]) and _LAST_LABEL.fullmatch(str(path[-1])):
        table, domain = ".".join(map(str, path[:start])), ".".join(map(str, path[start:]))
        return f'a domain has quotes: write [{table}."{domain}"]'
    if path[0] == "trusted" and path[-1] in ("domain", "domains"):
        return "say by what the domain is verified: dkim (its signature), spf (its reverse path) or ptr (its host)"
    # A signature with l= lets whoever comes later append to the body (RFC 6376 §8.2).
    if path[0] in ("sign", "domains") and _BODY_LENGTH_KEY.fullmatch(str(path[-1]).lower()):
        return (
            "mailguard never signs with a body length (l=): anyone could then append text to a signed message"
            " and the signature would still verify"
        )
    return None


def load(path: str | os.PathLike[str]) -> Config:
    """The configuration in the TOML file `path`. Relative file names in it begin at its directory.

    Raises ConfigError, whose text has one line for each problem: `FILE:LINE: KEY: what is wrong`.
    """
    return _validated(TomlFile.read(path))


def parse(text: str, *, path: str) -> Config:
    """`load` of a file that will be at `path`, with this text. Raises ConfigError."""
    return _validated(TomlFile(path, text.encode("utf-8", "surrogateescape")))


def _validated(file: TomlFile) -> Config:
    try:
        return Config.model_validate(file.content, context={"directory": file.directory})
    except ValidationError as error:
        raise ConfigError("\n".join(sentences(error, Config, file=file, unknown_key=_unknown_key))) from None
