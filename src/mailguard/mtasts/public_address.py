"""is_public: whether an address is of the public Internet, for names that a stranger lets point where they like.

Goes by the registries of special-purpose addresses (RFC 6890 §2.2) as Python's ipaddress has them, and is stricter
where those differ between its versions. Pure; safe to share between threads.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network

__all__ = ["Address", "is_public", "unwrapped"]

Address = IPv4Address | IPv6Address

# RFC 4291 §2.4: what is handed out as global unicast. Site-local, unique local and multicast are outside of it.
_GLOBAL_UNICAST = IPv6Network("2000::/3")
# RFC 6052 §2.1: a network without IPv4 reaches it by these.
_NAT64 = IPv6Network("64:ff9b::/96")
# RFC 3056 §2: the address in the second to fifth octet is where the packet goes. Teredo (2001::/32) is not global.
_6TO4 = IPv6Network("2002::/16")
# RFC 9637 §1: documentation; not known to older versions of ipaddress.
_DOCUMENTATION = IPv6Network("3fff::/20")


def unwrapped(address: Address) -> Address:
    """The IPv4 address where an IPv6 one merely stands for it."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
        if address in _6TO4:
            return IPv4Address(int(address) >> 80 & 0xFFFF_FFFF)
    return address


def is_public(address: Address) -> bool:
    """False for private, loopback, link-local, shared, multicast, reserved and unspecified addresses."""
    address = unwrapped(address)
    if isinstance(address, IPv6Address) and (address not in _GLOBAL_UNICAST or address in _DOCUMENTATION):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)
