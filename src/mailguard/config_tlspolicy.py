"""The part of the configuration for the server that tells Postfix what TLS to demand of each destination.

Needs the extra `[cli]`. Left out: the resolver, which is that of [dns]. Values are immutable and safe to share
between threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt, field_validator, model_validator

from mailguard.config_values import (
    DomainName,
    FilePath,
    ListenAddress,
    Name,
    Network,
    Section,
    SocketAddress,
    SocketMode,
)

__all__ = ["TlsPolicyConfig"]

DEFAULT_ADDRESS = "inet:127.0.0.1:8461"


class TlsPolicyConfig(Section):
    """What TLS Postfix demands of destinations: the socketmap server `mailguard tlspolicy serve`."""

    listen: tuple[ListenAddress, ...] = Field(
        default=(DEFAULT_ADDRESS,),
        min_length=1,
        description="Where Postfix asks: `inet:127.0.0.1:8461`, `inet6:[::1]:8461` or `unix:/absolute/path`. A"
        " chrooted smtp service reaches unix sockets below Postfix's queue directory alone. Every user of this host"
        " can take a port while the server is down, and then says what TLS Postfix demands.",
    )
    mode: SocketMode = Field(default="0660", description="Permissions of unix sockets, in octal.")
    group: Name | None = Field(default=None, description="Group of unix sockets. Default: that of the process.")
    allow_remote: StrictBool = Field(
        default=False,
        description="Permits an address that other hosts can reach. The protocol has neither password nor encryption:"
        " who is in between can turn TLS off.",
    )
    mta_sts: StrictBool = Field(
        default=True,
        description="Use MTA-STS for destinations without DANE. Needs the extra `[mta-sts]`, and HTTPS to the world.",
    )
    cache_file: FilePath = Field(
        default="/var/lib/mailguard/mta-sts.sqlite",
        description="Where MTA-STS policies are kept, so that a restart forgets none.",
    )
    ca_file: FilePath | None = Field(
        default=None, description="Certification authorities for policy hosts (PEM), in place of the system's."
    )
    allowed_networks: tuple[Network, ...] = Field(
        default=(), description="Networks of policy hosts that are talked to though they are not of the Internet."
    )
    https_port: StrictInt = Field(default=443, ge=1, le=65535, description="The port of policy hosts. For tests.")
    insecure_mx: Literal["may", "dane"] = Field(
        default="may",
        description="What TLSA records count for where the MX records come without DNSSEC: `may`, nothing; `dane`, as"
        " much as otherwise, but for `dane-only` and for MTA-STS. The same as Postfix's"
        " `smtp_tls_dane_insecure_mx_policy`.",
    )
    mixed: Literal["dane", "dane-only"] = Field(
        default="dane",
        description="What is demanded where not every host is known to have usable TLSA records. `dane-only`, with"
        " which the other hosts get no mail, is for a `smtp_tls_security_level` above `dane`, which the reply takes"
        " the place of.",
    )
    connections: StrictInt = Field(default=500, ge=1, le=10_000, description="The most clients at once.")
    idle_s: StrictFloat = Field(
        default=60.0, ge=1, le=3_600, description="Seconds after which a client that says or reads nothing is closed."
    )
    cache_entries: StrictInt = Field(default=50_000, ge=1, description="The most destinations that are remembered.")
    cache_bytes: StrictInt = Field(
        default=64 * 1024 * 1024, ge=65_536, description="The most octets that their replies may take."
    )
    prefetch_s: StrictFloat = Field(
        default=600.0,
        ge=0,
        le=86_400,
        description="Seconds for which a destination is looked up ahead after it was asked for. 0: never.",
    )
    refreshes: StrictInt = Field(
        default=8, ge=1, le=100, description="Destinations, and MTA-STS policies, that are refreshed at once."
    )
    fetches: StrictInt = Field(default=32, ge=1, le=256, description="MTA-STS policies that are fetched at once.")
    dnssec_probe: DomainName | None = Field(
        default=None,
        description="A signed name with which the resolver is tested. Default: one of the root's. For a DNS of one's"
        " own.",
    )
    postconf: FilePath | None = Field(
        default="/usr/sbin/postconf",
        description="Postfix's program that tells its settings, which are examined at the start, if it is there.",
    )
    overrides: Mapping[Name, Name] = Field(
        default_factory=dict,
        description='What you demand yourself, as in smtp_tls_policy_maps: `"example.com" = "dane-only"`,'
        ' `".example.net" = "encrypt"` for subdomains, `"[mx.example.org]:587" = "secure match=example.org"`; or'
        " `default` (smtp_tls_security_level counts) or `discover` (look it up, whatever is said of its parent).",
    )

    @field_validator("listen")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for address in value:
            if value.count(address) > 1:
                raise ValueError(f'"{address}" is given twice')
        return value

    @model_validator(mode="after")
    def _is_local_or_allowed(self) -> TlsPolicyConfig:
        for address in self.listen:
            if not SocketAddress.parse(address).is_local and not self.allow_remote:
                raise ValueError(
                    f"{address} can be reached by other hosts; listen on 127.0.0.1 or ::1, or set allow_remote = true"
                )
        return self

    @property
    def mode_bits(self) -> int:
        """`mode` as the number that os.chmod takes."""
        return int(self.mode, 8)
