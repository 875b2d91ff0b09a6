"""What a generation has loaded to sign with, for `mailguard key rotate`, which waits until the daemon says so."""

from __future__ import annotations

from mailguard.rotation.loaded import LoadedDomain, LoadedKeys
from mailguard_milter.service import Service

__all__ = ["loaded_keys"]


def loaded_keys(service: Service) -> LoadedKeys:
    """The keys of every domain of [domains], from the ring that the workers use."""
    rules = service.config.domains
    domains: dict[str, LoadedDomain] = {
        domain: LoadedDomain(
            {key.selector: key.fingerprint for key in service.key_ring.keys_for(domain)}, rules[domain].rotation
        )
        for domain in service.key_ring.domains()
    }
    return LoadedKeys(domains, service.signing.lifetime_s)
