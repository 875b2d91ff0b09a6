"""The resolver that a configuration describes."""

from __future__ import annotations

from mailguard.config import DnsConfig
from mailguard.dns.live import ResolverConfig

__all__ = ["resolver_config"]


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
