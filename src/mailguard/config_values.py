"""The kinds of value that the configuration knows, each checked and normalised in one place.

Domains and selectors (RFC 6376 §3.1), networks, listening addresses, file paths, the authserv-id (RFC 8601 §2.2)
and names of header fields (RFC 5322 §3.6.8), as annotated types for pydantic models. What is wrong with a value is
said in one plain sentence. Left out: whether files exist and hosts answer. Needs the extra `[cli]`. Functions
without state, safe on any thread.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, PlainValidator, StrictStr, ValidationInfo

from mailguard.dkim.signature import own_selector
from mailguard.domain import Domain
from mailguard.errors import DomainError

__all__ = [
    "DOMAINS_ONCE",
    "AuthservId",
    "DomainKey",
    "DomainName",
    "FieldName",
    "FilePath",
    "KeyPattern",
    "ListenAddress",
    "Name",
    "Nameserver",
    "Network",
    "Secret",
    "Section",
    "Selector",
    "SocketAddress",
    "SocketMode",
]

# sockaddr_un.sun_path is 108 octets with its NUL on Linux (unix(7)).
MAX_SOCKET_PATH_BYTES = 107

# RFC 2045 §5.1: the octets of a token, which is one form of the `value` that RFC 8601 §2.2 asks for.
_TOKEN = re.compile(r"[!#$%&'*+\-.0-9A-Z^_`a-z{|}~]+")
# RFC 5322 §3.6, and what tells where a message came from and how to read it.
_KEPT_FIELDS = frozenset(
    [
        "from",
        "sender",
        "reply-to",
        "to",
        "cc",
        "date",
        "message-id",
        "in-reply-to",
        "references",
        "subject",
        "received",
        "return-path",
        "mime-version",
        "content-type",
        "content-transfer-encoding",
        "dkim-signature",
    ]
)
# RFC 5322 §3.6.8: the octets of a field name.
_FIELD_NAME = re.compile(r"[!-9;-~]+")
_SOCKET_MODE = re.compile(r"0?[0-7]{3}")
_INET = re.compile(r"(?:inet:(?P<v4>[^\[\]:]+)|inet6:\[(?P<v6>[^\[\]]+)\]):(?P<port>[0-9]{1,5})")


class Section(BaseModel):
    """A table of the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


@dataclass(frozen=True, slots=True)
class SocketAddress:
    """Where a listener listens: `path` for "unix", `ip` and `port` for "inet" and "inet6"."""

    family: Literal["unix", "inet", "inet6"]
    path: str = ""
    ip: IPv4Address | IPv6Address | None = None
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> SocketAddress:
        """`unix:/absolute/path`, `inet:192.0.2.1:8891` or `inet6:[2001:db8::1]:8891`. Raises ValueError."""
        if text.startswith("unix:"):
            path = text.removeprefix("unix:")
            if not path.startswith("/"):
                raise ValueError("the path of a unix socket begins with /, as in unix:/run/mailguard/mailguard.sock")
            if "\0" in path or path.endswith("/") or len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
                raise ValueError(
                    f"the path of a unix socket names a file and has at most {MAX_SOCKET_PATH_BYTES} octets"
                )
            return cls("unix", path=path)
        inet = _INET.fullmatch(text)
        if inet is None:
            raise ValueError(
                f'"{text}" is not an address to listen on; write unix:/absolute/path, inet:127.0.0.1:8891'
                " or inet6:[::1]:8891"
            )
        port = int(inet["port"])
        if not 1 <= port <= 65535:
            raise ValueError(f"port {port} is not between 1 and 65535")
        try:
            if inet["v4"]:
                return cls("inet", ip=IPv4Address(inet["v4"]), port=port)
            return cls("inet6", ip=IPv6Address(inet["v6"]), port=port)
        except AddressValueError:
            version = "an IPv4" if inet["v4"] else "an IPv6"
            raise ValueError(
                f'"{inet["v4"] or inet["v6"]}" is not {version} address; host names are not looked up'
            ) from None

    @property
    def is_local(self) -> bool:
        """Whether only this host can reach it."""
        return self.ip is None or self.ip.is_loopback


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be text in quotes, not {value!r:.60}")
    if not value or "\0" in value:
        raise ValueError("must not be empty or hold a NUL")
    return value


def _secret(value: object) -> str:
    """As `_text`. The log, where it is told what is wrong when a reload fails, is for more people than the file."""
    if not isinstance(value, str):
        raise ValueError("must be text in quotes")
    return _text(value)


def _domain(value: object) -> Domain:
    text = _text(value)
    try:
        return Domain.parse(text)
    except DomainError as error:
        raise ValueError(f'"{text}" is not a domain name: {error}') from None


def _table_of_a_domain(value: object) -> Domain:
    text = _text(value)
    if text.startswith("*."):
        raise ValueError(f'"{text}" is not a domain name: write "{text[2:]}", and subdomains = true in its table')
    return _domain(text)


def _selector(value: object) -> str:
    text = _text(value)
    try:
        return own_selector(text)
    except DomainError as error:
        raise ValueError(f'"{text}" is not a selector: {error}') from None


def _network(value: object) -> IPv4Network | IPv6Network:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    text = _text(value)
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f'"{text}" is not a network; write 192.0.2.0/24 or 2001:db8::/32') from None
    if not network.prefixlen:
        raise ValueError(f'"{text}" is every address there is; name those that you mean')
    if isinstance(network, IPv6Network) and network.prefixlen >= 96 and network.network_address.ipv4_mapped:
        inner = f"{network.network_address.ipv4_mapped}/{network.prefixlen - 96}"
        raise ValueError(f'"{text}" is IPv4 in IPv6 form, which no client has here; write {inner}')
    if "/" in text and network.network_address != ip_address(text.partition("/")[0]):
        raise ValueError(f'"{text}" has bits set beside the network; did you mean {network}?')
    return network


def _path(value: object, info: ValidationInfo) -> str:
    text = _text(value)
    if text.startswith("/"):
        return text
    directory = (info.context or {}).get("directory")
    if directory is None:
        raise ValueError(f'"{text}" must be an absolute path')
    return os.path.join(directory, text)


def _key_pattern(value: object, info: ValidationInfo) -> str:
    pattern = _path(value, info)
    for place in ("{domain}", "{selector}"):
        if place not in pattern:
            raise ValueError(f'"{value}" must hold {place}, or several keys would be one file')
    if re.search(r"[{}]", pattern.replace("{domain}", "").replace("{selector}", "")):
        raise ValueError(f'"{value}" may hold {{domain}} and {{selector}}, and no other braces')
    return pattern


def _authserv_id(value: str) -> str:
    # RFC 8601 §2.2: authserv-id = value, and a value is a token or a quoted string (RFC 2045 §5.1).
    if not _TOKEN.fullmatch(value):
        raise ValueError(
            f'"{value}" cannot name this host in Authentication-Results; set authserv_id to {_meant(value)}'
        )
    return value


def _meant(value: str) -> str:
    """What the administrator may have meant."""
    try:
        # RFC 8601 §1.5.2: U-labels are for internationalized mail, and this one id is in all mail.
        return f'its A-labels: "{Domain.parse(value)}"'
    except DomainError:
        return "a domain name of yours"


def _field_name(value: str) -> str:
    if not _FIELD_NAME.fullmatch(value):
        raise ValueError(f'"{value}" is not the name of a header field')
    if value.lower() in _KEPT_FIELDS:
        raise ValueError(f'"{value}" is a field that a message cannot do without; it is not stripped')
    return value


def _nameserver(value: str) -> str:
    try:
        ip_address(value)
    except ValueError:
        raise ValueError(f'"{value}" is not an IP address; a name server is given by its address') from None
    return value


def _listen_address(value: str) -> str:
    SocketAddress.parse(value)
    return value


def _socket_mode(value: str) -> str:
    if not _SOCKET_MODE.fullmatch(value):
        raise ValueError(f'"{value}" is not a mode in octal; write it as in "0660"')
    if int(value, 8) & stat.S_IWOTH:
        raise ValueError(f'"{value}" lets every user connect, and whoever connects can have mail signed; use "0660"')
    return value


AuthservId = Annotated[StrictStr, AfterValidator(_authserv_id)]


def _domains_once(value: Any) -> Any:
    """A table by domain, as written. The same domain twice would lose one of the two."""
    seen: dict[Domain, object] = {}
    for written in value if isinstance(value, Mapping) else ():
        try:
            domain = Domain.parse(written)
        except DomainError:
            continue  # said where the keys are checked
        if domain in seen:
            raise ValueError(f'"{written}" and "{seen[domain]}" are the same domain')
        seen[domain] = written
    return value


DOMAINS_ONCE = BeforeValidator(_domains_once)
DomainKey = Annotated[str, PlainValidator(_table_of_a_domain)]
DomainName = Annotated[Domain, PlainValidator(_domain)]
FieldName = Annotated[StrictStr, AfterValidator(_field_name)]
FilePath = Annotated[str, PlainValidator(_path)]
KeyPattern = Annotated[str, PlainValidator(_key_pattern)]
ListenAddress = Annotated[StrictStr, AfterValidator(_listen_address)]
Name = Annotated[str, PlainValidator(_text)]
Nameserver = Annotated[StrictStr, AfterValidator(_nameserver)]
Network = Annotated[IPv4Network | IPv6Network, PlainValidator(_network)]
Secret = Annotated[str, PlainValidator(_secret)]
Selector = Annotated[str, PlainValidator(_selector)]
SocketMode = Annotated[StrictStr, AfterValidator(_socket_mode)]
