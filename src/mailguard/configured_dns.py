"""The resolver that a configuration describes, and whether DNSSEC can be trusted of it."""

from __future__ import annotations

from mailguard.config import DnsConfig
from mailguard.dns.live import LiveResolver, ResolverConfig
from mailguard.dns.servers import ServerAddress

__all__ = ["resolver_config", "servers_of"]


def resolver_config(dns: DnsConfig, *, zone_file: str | None = None) -> ResolverConfig:
    """As `[dns]` says; `zone_file` in place of asking anybody."""
    return ResolverConfig(
        nameservers=dns.nameservers,
        port=dns.port,
        query_timeout_s=dns.query_timeout_s,
        cache_entries=dns.cache_entries,
        cache_bytes=dns.cache_bytes,
        trust_ad=dns.trust_ad,
        zone_file=zone_file or dns.zone_file,
    )


def servers_of(dns: DnsConfig) -> tuple[ServerAddress, ...]:
    """The servers that a resolver asks that is opened now; none where a file takes their place.

    Raises ConfigError.
    """
    config = resolver_config(dns)
    if config.zone_file is not None:
        return ()
    with LiveResolver(config) as resolver:
        return resolver.servers
