"""The nodes of an explanation, the advice in them, and how names are compared: the parts that the tree is made of."""

from __future__ import annotations

import json
import string
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import pytest

from mailguard.address import AddressFlag
from mailguard.dkim.result import DkimReason
from mailguard.dmarc.record import AlignmentMode
from mailguard.dmarc.result import Aligned, Alignment, DmarcReason
from mailguard.domain import Domain
from mailguard.explain import Explanation
from mailguard.explain.advice import Advice, Names
from mailguard.explain.check_advice import (
    ALIGNMENT,
    DKIM,
    DKIM_UNSIGNED,
    DMARC,
    FLAGS,
    IPREV,
    MALFORMED,
    SPF,
    SPF_PERMISSIVE,
)
from mailguard.explain.dmarc_node import compared
from mailguard.explain.dmarc_problem import PROBLEMS, DmarcProblem
from mailguard.explain.explanation import MAX_TEXT_CHARS
from mailguard.explain.rule_advice import KEYS, OF_DOMAINS, RULES
from mailguard.iprev import IprevStatus
from mailguard.message import MalformedReason
from mailguard.rule import Rule
from mailguard.spf.result import SpfReason

# -- a node -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("plain", "plain", id="plain"),
        pytest.param("a\r\nb", "a\\r\\nb", id="line end"),
        pytest.param("\x1b[2J", "\\x1b[2J", id="escape"),
        pytest.param("\N{RIGHT-TO-LEFT OVERRIDE}x", "\\u202ex", id="reordering"),
        pytest.param("b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher", "b\\xfccher", id="letter"),
        pytest.param("\udcff\0\x7f", "\\udcff\\x00\\x7f", id="surrogate, NUL, DEL"),
        pytest.param("[red]", "[red]", id="markup"),
    ],
)
def test_every_text_of_a_node_is_printable(text: str, shown: str) -> None:
    node = Explanation(text, text, text, text, text, ((text, text),), (Explanation(text),))
    one_line = (
        node.title,
        node.status,
        node.reason,
        node.detail,
        node.advice,
        *node.facts[0],
        node.children[0].title,
    )
    assert set(one_line) == {shown}
    assert node.text().isascii()


@pytest.mark.parametrize("text", ["x" * 100_000, "\0" * 100_000, "x" * (MAX_TEXT_CHARS - 1) + "\0"])
def test_a_text_is_cut(text: str) -> None:
    title = Explanation(text).title
    assert len(title) == MAX_TEXT_CHARS
    assert title.endswith("...")
    assert Explanation("x" * MAX_TEXT_CHARS).title == "x" * MAX_TEXT_CHARS


def test_lines_and_json() -> None:
    child = Explanation("b", "pass")
    node = Explanation("a", "fail", "why", "because", "do it", (("n", "v"), ("n", "w"), ("alone", "")), (child,))
    assert node.text().splitlines() == [
        "a: fail (why)",
        "  because",
        "  n: v",
        "  n: w",
        "  alone",
        "  what to do: do it",
        "  b: pass",
    ]
    written = json.loads(json.dumps(node.to_json()))
    assert list(written) == ["title", "status", "reason", "detail", "what_to_do", "facts", "children"]
    assert written["facts"] == [
        {"name": "n", "value": "v"},
        {"name": "n", "value": "w"},
        {"name": "alone", "value": ""},
    ]
    assert [each["title"] for each in written["children"]] == ["b"]
    assert list(written["children"][0]) == list(written), "every node has every key"


# -- advice -------------------------------------------------------------------------------------------------------


TABLES: dict[str, tuple[Mapping[Any, Advice], set[Any]]] = {
    "spf": (SPF, set(SpfReason)),
    "dkim": (DKIM, set(DkimReason)),
    "dmarc": (DMARC, set(DmarcReason)),
    "from": (MALFORMED, set(MalformedReason)),
    "flags": (FLAGS, set(AddressFlag)),
    "iprev": (IPREV, set(IprevStatus)),
    "rules": (RULES, set(Rule)),
    "alignment": (ALIGNMENT, {(method, mode) for method in ("spf", "dkim") for mode in AlignmentMode}),
    "problems": (PROBLEMS, set(DmarcProblem)),
}


@pytest.mark.parametrize("table", TABLES)
def test_there_is_advice_for_every_word(table: str) -> None:
    advice, words = TABLES[table]
    assert set(advice) == words


def every_advice() -> Iterator[Advice]:
    for table, _ in TABLES.values():
        yield from table.values()
    yield from (DKIM_UNSIGNED, SPF_PERMISSIVE)


def test_every_advice_is_whole() -> None:
    known = {field.name for field in fields(Names)}
    for advice in every_advice():
        assert advice.meaning[0].isupper() or advice.meaning.startswith(("i=", "p=", "psd=", "t=")), advice
        assert advice.meaning.endswith("."), advice
        for text in (advice.sender, advice.receiver):
            assert {name for _, name, _, _ in string.Formatter().parse(text) if name is not None} <= known, text
        shown = advice.text()
        assert shown.isascii()
        assert shown.isprintable()
        assert "{" not in shown
        assert not shown.endswith((".", " "))


NEEDS_NOTHING = {
    DkimReason.VERIFIED,
    DmarcReason.ALIGNED,
    IprevStatus.PASS,
    Rule.NO_OBJECTION,
    *AddressFlag,
}


def test_only_what_is_well_needs_nothing() -> None:
    silent = {word for table, _ in TABLES.values() for word, advice in table.items() if not advice.text()}
    assert silent == NEEDS_NOTHING


def test_advice_fills_in_names() -> None:
    advice = Advice("M.", "publish at {selector}._domainkey.{domain}", "list {client} ({term})")
    names = Names(domain="a.test", client="192.0.2.1", term="ip4:192.0.2.1")
    assert advice.text(names) == (
        "sending side: publish at SELECTOR._domainkey.a.test; receiving side: list 192.0.2.1 (ip4:192.0.2.1)"
    )
    hostile = Names(domain="{selector}{0}{")
    assert advice.text(hostile).startswith("sending side: publish at SELECTOR._domainkey.{selector}{0}{;")


def test_every_rule_names_its_key_of_the_configuration() -> None:
    from mailguard.config import Config
    from mailguard.config_inbound import DomainPolicyTable

    assert {rule for rule in Rule if not KEYS[rule]} == {
        Rule.NO_OBJECTION,
        Rule.INTERNAL_CLIENT,
        Rule.SENDER_UNAVAILABLE,
    }
    for rule, key in KEYS.items():
        section: Any = Config
        for name in filter(None, key.split(".")):
            field = section.model_fields[name]
            section = field.annotation
        assert not key or key in RULES[rule].receiver, rule
        may_be_of_a_domain = len(key.split(".")) == 3 and key.split(".")[1] in OF_DOMAINS
        assert ("[policy.domains]" in RULES[rule].receiver) == may_be_of_a_domain
    assert set(DomainPolicyTable.model_fields) - {"subdomains"} == OF_DOMAINS


# -- alignment, label by label ------------------------------------------------------------------------------------


def alignment(domain: str, aligned: Aligned, *, organization: str | None = None, strict: bool = False) -> Alignment:
    return Alignment(
        method="dkim",
        domain=Domain(domain),
        result="pass",
        mode=AlignmentMode.STRICT if strict else AlignmentMode.RELAXED,
        aligned=aligned,
        organizational_domain=Domain(organization) if organization else None,
        counts=True,
    )


YES, NO, UNKNOWN = Aligned.YES, Aligned.NO, Aligned.UNKNOWN


@pytest.mark.parametrize(
    ("one", "said"),
    [
        pytest.param(alignment("bank.test", YES), "bank.test vs bank.test: the same name", id="same"),
        pytest.param(
            alignment("mail.bank.test", YES, organization="bank.test"),
            "mail.bank.test vs bank.test: same Organizational Domain bank.test",
            id="below",
        ),
        pytest.param(
            alignment("mail.bank.test", YES),
            "mail.bank.test vs bank.test: same Organizational Domain bank.test",
            id="below, the author's known only",
        ),
        pytest.param(
            alignment("evil.test", NO),
            "evil.test vs bank.test: from the right, test is the same, then evil is not bank",
            id="second label",
        ),
        pytest.param(
            alignment("bank.test.evil.example", NO),
            "bank.test.evil.example vs bank.test: from the right, example is not test",
            id="first label",
        ),
        pytest.param(
            alignment("notbank.test", NO),
            "notbank.test vs bank.test: from the right, test is the same, then notbank is not bank",
            id="no partial label",
        ),
        pytest.param(
            alignment("a.bank.test", NO, organization="a.bank.test"),
            "a.bank.test vs bank.test: the former is below bank.test; Organizational Domains a.bank.test and"
            " bank.test",
            id="below, yet apart",
        ),
        pytest.param(alignment("test", NO), "test vs bank.test: the latter is below test", id="above"),
        pytest.param(
            alignment("mail.bank.test", NO, strict=True),
            "mail.bank.test vs bank.test: not the same name, which strict alignment asks for: the former is below"
            " bank.test",
            id="strict",
        ),
        pytest.param(
            alignment("mail.bank.test", UNKNOWN),
            "mail.bank.test vs bank.test: the DNS did not say whether they have the same Organizational Domain",
            id="servfail",
        ),
    ],
)
def test_identifiers_are_compared_label_by_label(one: Alignment, said: str) -> None:
    """RFC 9989 §4.4."""
    assert compared(one, Domain("bank.test"), Domain("bank.test")) == said
