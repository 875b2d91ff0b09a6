"""The part of the configuration that judges mail from outside: what is checked, written, refused, and trusted.

RFC 7208 (SPF), RFC 9989 (DMARC), RFC 7372 (replies). Needs the extra `[cli]`. Values are immutable and safe to share
between threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictInt, model_validator

from mailguard.config_values import DOMAINS_ONCE, DomainKey, DomainName, FilePath, Name, Network, Section
from mailguard.domain import Domain
from mailguard.inbound import DEFAULT_INTERNAL_NETWORKS
from mailguard.policy import DomainPolicy, OverrideKind, TrustedSource
from mailguard.rule import Disposition, Rule

__all__ = [
    "DmarcConfig",
    "DomainPolicyTable",
    "PolicyConfig",
    "ResultsConfig",
    "SpfConfig",
    "TraceConfig",
    "TrustedRule",
]

ActionWord = Literal["accept", "header", "quarantine", "tempfail", "reject"]
# A fault of the DNS keeps nobody's mail for good.
TemporaryWord = Literal["accept", "header", "tempfail"]


class SpfConfig(Section):
    """SPF (RFC 7208)."""

    check_helo: StrictBool = Field(
        default=True, description="Check the HELO name too, beside the reverse path (RFC 7208 §2.3)."
    )


class DmarcConfig(Section):
    """DMARC (RFC 9989)."""

    organizational_domain: Literal["treewalk", "psl"] = Field(
        default="treewalk",
        description="`treewalk`: ask the DNS, as RFC 9989 has it. `psl`: the list of public suffixes, as RFC 7489"
        " had it; needs the extra `[psl]`. `mailguard dmarc check DOMAIN --compare-7489` shows the difference.",
    )
    suffix_list: FilePath | None = Field(
        default=None, description="The list of public suffixes to use with `psl`. Default: the one of the package."
    )
    permissive_spf_counts: StrictBool = Field(
        default=True,
        description="Whether SPF's pass counts where its term covers half of all addresses or more, such as `+all`,"
        " as RFC 9989 has it. `false`: such mail passes DMARC by its DKIM signature alone.",
    )

    @model_validator(mode="after")
    def _uses_its_list(self) -> DmarcConfig:
        if self.suffix_list is not None and self.organizational_domain != "psl":
            raise ValueError('suffix_list is used only with organizational_domain = "psl": add that, or remove it')
        return self


class ResultsConfig(Section):
    """What is written into the header of mail that is judged, beside the results of SPF, DKIM and DMARC."""

    iprev: StrictBool = Field(
        default=False, description="Look up the client's name and back (RFC 8601 §3), and write the result."
    )
    login: StrictBool = Field(
        default=False,
        description="Write an auth= result into mail that is signed for a login. It tells the world the login.",
    )
    received_spf: StrictBool = Field(default=False, description="Write a Received-SPF field too (RFC 7208 §9.1).")


class DmarcActions(Section):
    """What follows from DMARC. Each is `accept`, `header`, `quarantine`, `tempfail` or `reject`."""

    reject: ActionWord | None = Field(
        default=None, description="The message fails and its domain asks for reject. Default: `reject`."
    )
    quarantine: ActionWord | None = Field(
        default=None, description="The message fails and its domain asks for quarantine. Default: `quarantine`."
    )
    none: ActionWord | None = Field(
        default=None,
        description="The message fails and its domain asks for nothing (p=none). Default: `accept`; RFC 9989 §5.4"
        " allows no other for domains of others.",
    )
    temperror: TemporaryWord | None = Field(
        default=None,
        description="The DNS did not answer, and its answer could keep the message back. Default: `tempfail`.",
    )
    permerror: ActionWord | None = Field(
        default=None, description="From names several domains, none of which fails. Default: `accept`."
    )


class SpfActions(Section):
    """What follows from SPF by itself, whatever DMARC says. All but `temperror` accept by default."""

    fail: ActionWord | None = Field(default=None, description="The domain says that the client may not send for it.")
    softfail: ActionWord | None = Field(default=None, description="The domain says so with a doubt (`~all`).")
    neutral: ActionWord | None = Field(default=None, description="The domain says nothing about the client.")
    none: ActionWord | None = Field(default=None, description="The domain has no record, or there is no domain.")
    permerror: ActionWord | None = Field(default=None, description="The record cannot be used.")
    temperror: TemporaryWord | None = Field(
        default=None,
        description="The DNS did not answer. Default: `tempfail`, if another result could keep the message back.",
    )


class DkimActions(Section):
    """What follows from DKIM by itself. RFC 6376 §6.1 gives no reason to refuse; `accept` by default."""

    no_pass: ActionWord | None = Field(default=None, description="No signature passes, or there is none.")
    no_author_pass: ActionWord | None = Field(
        default=None, description="A signature passes, but none of the domain in From."
    )
    temperror: TemporaryWord | None = Field(
        default=None,
        description="A key could not be looked up. Default: `tempfail`, if one of the two above keeps mail back.",
    )


class IprevActions(Section):
    """What follows from the client's name, looked up where `fail` is given, or with iprev = true in [results]."""

    fail: ActionWord | None = Field(
        default=None, description="The client has no name that leads back to its address. Default: `accept`."
    )
    temperror: TemporaryWord | None = Field(
        default=None, description="The DNS did not answer. Default: `tempfail`, if `fail` keeps mail back."
    )


_TABLES = {"dmarc": DmarcActions, "spf": SpfActions, "helo": SpfActions, "dkim": DkimActions, "iprev": IprevActions}


class DomainPolicyTable(Section):
    """Actions for mail whose From is in this domain, in place of the general ones."""

    subdomains: StrictBool = Field(default=False, description="For its subdomains too.")
    dmarc: DmarcActions = Field(default=DmarcActions(), description="")
    spf: SpfActions = Field(default=SpfActions(), description="")
    helo: SpfActions = Field(default=SpfActions(), description="")
    dkim: DkimActions = Field(default=DkimActions(), description="")


class PolicyConfig(Section):
    """What becomes of mail. In `mode = "monitor"` the log tells it and nothing is refused."""

    malformed: ActionWord = Field(
        default="reject",
        description="Mail from outside whose header names no author that could be judged: no From, several, or an"
        " unreadable one.",
    )
    trusted_temperror: TemporaryWord = Field(
        default="tempfail",
        description="Mail that would be kept back, while the DNS does not say whether a [[trusted]] source sent it.",
    )
    internal_networks: tuple[Network, ...] = Field(
        default=DEFAULT_INTERNAL_NETWORKS,
        description="Clients of your own. Their mail is never refused, and neither SPF nor DMARC judge it.",
    )
    dmarc: DmarcActions = Field(default=DmarcActions(), description="")
    spf: SpfActions = Field(default=SpfActions(), description="")
    helo: SpfActions = Field(default=SpfActions(), description="")
    dkim: DkimActions = Field(default=DkimActions(), description="")
    iprev: IprevActions = Field(default=IprevActions(), description="")
    domains: Annotated[Mapping[DomainKey, DomainPolicyTable], DOMAINS_ONCE] = Field(
        default_factory=dict, description=""
    )

    def actions(self) -> dict[Rule, Disposition]:
        """The actions that differ from the default."""
        return {
            Rule.MALFORMED: Disposition(self.malformed),
            Rule.TRUSTED_TEMPERROR: Disposition(self.trusted_temperror),
            **dict(_given(self)),
        }

    def domain_policies(self) -> tuple[DomainPolicy, ...]:
        """The domains that have actions of their own."""
        return tuple(
            DomainPolicy(domain=Domain.parse(name), subdomains=table.subdomains, actions=dict(_given(table)))
            for name, table in self.domains.items()
        )


def _given(tables: PolicyConfig | DomainPolicyTable) -> Iterator[tuple[Rule, Disposition]]:
    for prefix in _TABLES:
        table = getattr(tables, prefix, None)
        for key in type(table).model_fields if table is not None else ():
            word = getattr(table, key)
            if word is not None:
                yield Rule(f"{prefix}-{key.replace('_', '-')}"), Disposition(word)


class TrustedRule(Section):
    """A source whose mail is accepted although policy would keep it back: a mailing list, a forwarder, your own
    hosts. One of its identities has to be verified. Domain names match their subdomains too."""

    type: Literal["mailing_list", "trusted_forwarder", "local_policy"] = Field(
        description="Why; the word stands in Authentication-Results and in the log."
    )
    dkim: tuple[DomainName, ...] = Field(default=(), description="Domains (d=) of a signature that passes.")
    spf: tuple[DomainName, ...] = Field(default=(), description="Domains of a reverse path for which SPF passes.")
    ptr: tuple[DomainName, ...] = Field(
        default=(), description="Names of the client that lead back to its address; looked up where this is given."
    )
    networks: tuple[Network, ...] = Field(
        default=(), description="Networks of the client. Excuse malformed messages too."
    )
    logins: tuple[Name, ...] = Field(
        default=(), description="Logins, on a listener that only verifies. Excuse malformed messages too."
    )

    @model_validator(mode="after")
    def _names_somebody(self) -> TrustedRule:
        if not (self.dkim or self.spf or self.ptr or self.networks or self.logins):
            raise ValueError("it trusts nobody: give dkim, spf, ptr, networks or logins")
        for name in (*self.dkim, *self.spf, *self.ptr):
            if "." not in name:
                raise ValueError(f'"{name}" is a top-level domain: it would let in everybody below it')
        return self

    def source(self) -> TrustedSource:
        """The rule as policy has it."""
        return TrustedSource(
            kind=OverrideKind(self.type),
            networks=self.networks,
            logins=self.logins,
            dkim=tuple(map(Domain.parse, self.dkim)),
            spf=tuple(map(Domain.parse, self.spf)),
            ptr=tuple(map(Domain.parse, self.ptr)),
        )


class TraceConfig(Section):
    """Keep how each message was judged: header, digests of the body, envelope and DNS answers, and not the body.
    `mailguard explain QUEUE_ID` shows it."""

    enabled: StrictBool = Field(default=False, description="Keep traces. They hold addresses and subjects.")
    path: FilePath = Field(default="/var/lib/mailguard/trace.sqlite", description="The database, made when needed.")
    max_days: StrictInt = Field(default=7, ge=1, le=366, description="Days after which a trace is deleted.")
    max_megabytes: StrictInt = Field(
        default=256, ge=1, le=1_000_000, description="The size of the database at which the oldest are deleted."
    )
