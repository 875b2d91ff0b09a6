"""The part of the configuration that says who may use which address: the sources, and how logins are compared.

Needs the extra `[cli]`; a source that is a database needs `[sql]` when it is opened. Left out: opening the sources,
which is for sender_sources.py, so that a database that is down keeps no configuration from being loaded. Values are
immutable and safe to share between threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr, field_validator, model_validator

from mailguard.config_values import DomainName, FilePath, Name, Secret, Section
from mailguard.errors import ConfigError
from mailguard.rule import Disposition, Rule
from mailguard.senders.cache import DEFAULT_CACHE_ENTRIES, DEFAULT_LIFETIME_S
from mailguard.senders.identity import LoginCase, LoginRules
from mailguard.senders.inline import InlineSource
from mailguard.senders.map_list import parse_maps
from mailguard.submission import ACTION_KEYS

__all__ = [
    "InlineSenders",
    "MailInABoxSenders",
    "PostfixAdminSenders",
    "PostfixSenders",
    "SenderActions",
    "SendersConfig",
    "SourceName",
]

SourceName = Literal["inline", "postfix", "postfixadmin", "mailinabox"]

# Postfix waits 30 s for the reply to a milter command, and several sources may have to be asked.
MAX_DEADLINE_S = 10
MAX_CACHE_S = 3_600

_DISPOSITIONS: Mapping[str, Disposition | None] = {
    "off": None,
    "log": Disposition.ACCEPT,
    "header": Disposition.HEADER,
    "quarantine": Disposition.QUARANTINE,
    "reject": Disposition.REJECT,
}

# Of the database systems, as others call them.
_OTHER_NAMES = {"mariadb": "mysql", "pgsql": "postgresql", "postgres": "postgresql", "sqlite3": "sqlite"}

SenderAction = Literal["off", "log", "header", "quarantine", "reject"]


class SenderActions(Section):
    """What is done with mail of a login, or of a listed network, under a name that it may not use.

    `off`: nobody looks. `log`: it is signed, and the log tells. `header`: signed, with `X-Mailguard-Policy`.
    `quarantine`: signed, into Postfix's hold queue. `reject`: refused with 550. The last two happen with
    `mode = "enforce"`; in monitor mode such mail is signed, and the log says what would have been done. Mail that
    they may keep back waits (451) while a source is down.
    """

    envelope: SenderAction = Field(default="reject", description="The reverse path (MAIL FROM) is not permitted.")
    header_from: SenderAction = Field(
        default="reject",
        description="A mailbox in From is not permitted, or From has several and no permitted Sender tells who"
        " sends.",
    )
    sender: SenderAction = Field(default="reject", description="The mailbox in Sender is not permitted.")
    resent: SenderAction = Field(
        default="reject", description="One in Resent-From or Resent-Sender is not permitted."
    )
    reply_to: SenderAction = Field(default="log", description="One in Reply-To is not permitted.")
    null_sender: SenderAction = Field(
        default="reject", description="The reverse path is empty, and a mailbox in From is not permitted."
    )
    alignment: SenderAction = Field(
        default="off", description="The reverse path and From do not agree; what that means, `alignment` above says."
    )

    def dispositions(self) -> Mapping[Rule, Disposition | None]:
        """By rule; None: off."""
        return {rule: _DISPOSITIONS[getattr(self, key)] for rule, key in ACTION_KEYS.items()}


class InlineSenders(Section):
    """Who may use what, listed here. What this source does not grant, the ones after it decide."""

    own_address: StrictBool = Field(default=True, description="A login may use the address that it is itself.")
    logins: Mapping[Name, tuple[Name, ...]] = Field(
        default_factory=dict,
        description='What else a login may use: addresses, and whole domains as `"@example.com"`, as in'
        ' `"alice@example.com" = ["sales@example.com", "@shop.example"]`.',
    )

    @field_validator("logins")
    @classmethod
    def _can_be_read(cls, value: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
        try:
            InlineSource(value, rules=LoginRules())
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return value


class PostfixSenders(Section):
    """Postfix's own tables. `mailguard senders import` writes this section from main.cf."""

    maps: Name | None = Field(
        default=None,
        description="The value of `smtpd_sender_login_maps`, as `postconf -hx` prints it. Read are hash, btree, lmdb,"
        " texthash, inline, unionmap, mysql, pgsql and sqlite.",
    )
    local_domains: tuple[DomainName, ...] = Field(
        default=(),
        description="Domains for which an entry without domain counts: `$mydestination` and `$myorigin`.",
    )
    postmap: FilePath = Field(
        default="/usr/sbin/postmap", description="Postfix's program that lists tables of type hash, btree and lmdb."
    )

    @field_validator("maps")
    @classmethod
    def _can_be_read(cls, value: str | None) -> str | None:
        try:
            parse_maps(value or "")
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return value


class PostfixAdminSenders(Section):
    """PostfixAdmin's database: mailboxes, aliases, alias domains. It is only read."""

    database: Literal["mysql", "postgresql", "sqlite"] | None = Field(
        default=None, description="What it is; `mysql` is MariaDB too."
    )
    host: Name | None = Field(
        default=None,
        description="The server's name or address. Without it: the local socket, where no user of this host can stand"
        " in for a server that is down, as at a port.",
    )
    port: StrictInt | None = Field(default=None, ge=1, le=65535, description="Default: 3306 or 5432.")
    socket: FilePath | None = Field(default=None, description="The server's socket. Default: where Debian has it.")
    path: FilePath | None = Field(default=None, description="The file, with `sqlite`.")
    name: Name = Field(default="postfix", description="The name of the database.")
    user: Name = Field(default="mailguard", description="The database's user; it needs no more than SELECT.")
    password: Secret | None = Field(
        default=None, description="The user's password. Everybody who can read this file has it."
    )
    password_file: FilePath | None = Field(
        default=None, description="Or the file whose first line it is; others must not be able to read it."
    )
    table_prefix: StrictStr = Field(
        default="", pattern=r"^[A-Za-z0-9_]*$", description="What the tables' names begin with."
    )
    forwards: StrictBool = Field(
        default=False, description="To whom a mailbox forwards its mail may use its address. Aliases always give it."
    )

    @field_validator("database", mode="before")
    @classmethod
    def _by_its_name_here(cls, value: object) -> object:
        name = _OTHER_NAMES.get(value) if isinstance(value, str) else None
        if name is not None:
            raise ValueError(f'"{value}" is called "{name}" here')
        return value

    @model_validator(mode="after")
    def _has_a_place(self) -> PostfixAdminSenders:
        if self.database == "sqlite" and self.path is None:
            raise ValueError('path is missing: the file of the database, with database = "sqlite"')
        if self.database != "sqlite" and self.path is not None:
            raise ValueError('path has no effect without database = "sqlite"')
        if self.host is not None and self.socket is not None:
            raise ValueError("host and socket are two places: remove one of them")
        if self.port is not None and self.host is None:
            raise ValueError("port has no effect without host")
        if self.password is not None and self.password_file is not None:
            raise ValueError("password and password_file are given both: remove one of them")
        return self


class MailInABoxSenders(Section):
    """Mail-in-a-Box's database: users, aliases, permitted senders. It is only read."""

    path: FilePath = Field(default="/home/user-data/mail/users.sqlite", description="The file of the database.")


class SendersConfig(Section):
    """Who may use which address: the sources that are asked, and how logins are compared."""

    sources: tuple[SourceName, ...] = Field(
        default=(),
        description="What is asked, in this order: `inline`, `postfix`, `postfixadmin`, `mailinabox`. The first that"
        " grants or denies decides. Empty: our own users may write what they like, as before.",
    )
    actions: SenderActions = Field(default=SenderActions(), description="")
    alignment: Literal["relaxed", "strict"] = Field(
        default="relaxed",
        description="Whether the reverse path and From must have one Organizational Domain (RFC 9989) or one domain,"
        " where `alignment` under `[senders.actions]` is not `off`.",
    )
    default_domain: DomainName | None = Field(
        default=None, description="What a login without @ belongs to, so that `alice` is `alice@DOMAIN`."
    )
    login_case: Literal["ignored", "significant"] = Field(
        default="ignored",
        description="`ignored`: `Alice` is `alice`, unless a table has both. `significant`: they are two accounts.",
    )
    recipient_delimiter: StrictStr = Field(
        default="",
        max_length=8,
        description="As Postfix has it: with `+`, who may use `alice@` may use `alice+anything@`. Empty: not so.",
    )
    deadline_s: StrictFloat = Field(
        default=1.5,
        gt=0,
        le=MAX_DEADLINE_S,
        description="Seconds for all that one question asks of a database; one query may take a third of it.",
    )
    cache_s: StrictFloat = Field(
        default=DEFAULT_LIFETIME_S,
        ge=0,
        le=MAX_CACHE_S,
        description="Seconds for which a grant is remembered; a refusal for five at most. 0: nothing is remembered.",
    )
    cache_entries: StrictInt = Field(
        default=DEFAULT_CACHE_ENTRIES, ge=1, le=1_000_000, description="The most answers that a worker remembers."
    )
    inline: InlineSenders = Field(default=InlineSenders(), description="")
    postfix: PostfixSenders = Field(default=PostfixSenders(), description="")
    postfixadmin: PostfixAdminSenders = Field(default=PostfixAdminSenders(), description="")
    mailinabox: MailInABoxSenders = Field(default=MailInABoxSenders(), description="")

    @field_validator("sources")
    @classmethod
    def _once(cls, value: tuple[SourceName, ...]) -> tuple[SourceName, ...]:
        for name in value:
            if value.count(name) > 1:
                raise ValueError(f'"{name}" is given twice')
        return value

    @model_validator(mode="after")
    def _tables_are_used(self) -> SendersConfig:
        for name in ("inline", "postfix", "postfixadmin", "mailinabox"):
            if name in self.model_fields_set and name not in self.sources:
                raise ValueError(f'the table [senders.{name}] has no effect: add "{name}" to sources in [senders]')
        if not self.sources and {"actions", "alignment"} & self.model_fields_set:
            raise ValueError("actions and alignment have no effect: sources is missing in [senders], or empty")
        if "postfix" in self.sources and not self.postfix.maps:
            raise ValueError('maps is missing in [senders.postfix]; "mailguard senders import" writes it')
        if "postfixadmin" in self.sources and self.postfixadmin.database is None:
            raise ValueError('database is missing in [senders.postfixadmin]: "mysql", "postgresql" or "sqlite"')
        return self

    @property
    def rules(self) -> LoginRules:
        """How logins are read."""
        return LoginRules(self.default_domain, LoginCase(self.login_case))
