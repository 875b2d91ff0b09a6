"""Authentication-Results: what we write is read back by others as what it was (RFC 8601 §2.2)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import authres
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mailguard.authresults import build
from mailguard.dkim.result import DkimReason, DkimResult, DkimStatus
from mailguard.domain import Domain

US = "mx.us.test"
MAX_LINE_OCTETS = 998  # RFC 5322 §2.1.1


def dkim_result(
    status: DkimStatus = DkimStatus.PASS,
    *,
    detail: str = "the signature verifies",
    domain: str | None = "bank.test",
    selector: str | None = "s1",
    identity: str | None = "@bank.test",
    algorithm: str | None = "rsa-sha256",
    prefix: str | None = "abcd+/12",
    key_bits: int | None = 2048,
    testing: bool = False,
) -> DkimResult:
    return DkimResult(
        status=status,
        reason=DkimReason.VERIFIED if status is DkimStatus.PASS else DkimReason.SIGNATURE,
        detail=detail,
        # The constructor, not `parse`: the builder is to be safe even with a name that nobody checked.
        domain=None if domain is None else Domain(domain),
        selector=selector,
        identity=identity,
        algorithm=algorithm,
        key_bits=key_bits,
        signature_prefix=prefix,
        testing=testing,
    )


# -- a reader of our own for RFC 8601 §2.2, as strict as the grammar -----------------------------------------------


@dataclass
class Clause:
    method: str
    result: str
    comment: str = ""
    reason: str | None = None
    properties: list[tuple[str, str]] = field(default_factory=list)


_TOKEN = r"[!#$%&'*+\-.0-9A-Z^_`a-z{|}~]+"
_QUOTED = r'"(?:[\t !#-\[\]-~]|\\[\t -~])*"'
_DOT_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\-]+"
_NAME = r"[A-Za-z0-9.\-]+"
_PVALUE = rf"(?:{_QUOTED}|(?:{_DOT_ATOM})?@{_NAME}|{_TOKEN})(?=[ \t;]|$)"
_ID = re.compile(rf"[ \t]*({_TOKEN})[ \t]*")
_METHOD = re.compile(r"[ \t]*;[ \t]*([a-z][a-z0-9\-]*)=([a-z]+)")
_COMMENT = re.compile(r"[ \t]+\(([\t !-'*-\[\]-~]*)\)")
_REASON = re.compile(rf"[ \t]+reason=({_QUOTED}|{_TOKEN})(?=[ \t;]|$)")
_PROPERTY = re.compile(rf"[ \t]+(smtp|header|body|policy)\.([a-z]+)=({_PVALUE})")


def unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text


def read_strictly(value: bytes) -> tuple[str, list[Clause]]:
    """The field by the grammar; raises AssertionError where it does not fit."""
    text = value.decode("ascii").replace("\r\n\t", "\t")
    assert not re.search(r"[^\t -~]", text), "a control character or a line end that is no fold"
    match = _ID.match(text)
    assert match, text
    authserv_id, at, clauses = match[1], match.end(), []
    while at < len(text):
        match = _METHOD.match(text, at)
        assert match, text[at:]
        clause = Clause(match[1], match[2])
        at = match.end()
        for pattern in (_COMMENT, _REASON):
            if match := pattern.match(text, at):
                at = match.end()
                if pattern is _COMMENT:
                    clause.comment = match[1]
                else:
                    clause.reason = unquoted(match[1])
        while match := _PROPERTY.match(text, at):
            clause.properties.append((f"{match[1]}.{match[2]}", unquoted(match[3])))
            at = match.end()
        clauses.append(clause)
    return authserv_id, clauses


def test_the_reader_is_strict() -> None:
    for value in (
        b" mx.us.test;\r\n\tdkim=pass header.d=a;b",
        b" mx.us.test; dkim=pass reason=a@b",
        b" mx.us.test; dkim=pass (a(b)",
        b" mx.us.test; dkim=pass\r\n\r\n",
        b" mx.us.test; dkim=pass header.s=a/b",
        b" mx.us.test; dkim=pass header.d=a.test\r\nX: y",
    ):
        with pytest.raises(AssertionError):
            read_strictly(value)


# -- what we write --------------------------------------------------------------------------------------------------


def test_a_pass_says_which_key_and_signature() -> None:
    written = build(US, dkim=[dkim_result()])
    assert written.name == b"Authentication-Results"
    assert written.value.startswith(b" mx.us.test;"), "SMFIP_HDR_LEADSPC: the blank is ours to write"
    assert read_strictly(written.value) == (
        US,
        [
            Clause(
                "dkim",
                "pass",
                "2048-bit key",
                None,
                [
                    ("header.d", "bank.test"),
                    ("header.i", "@bank.test"),
                    ("header.a", "rsa-sha256"),
                    ("header.s", "s1"),
                    ("header.b", "abcd+/12"),
                ],
            )
        ],
    )


def test_no_signature_is_none() -> None:
    assert build(US, dkim=[]).value == b" mx.us.test;\r\n\tdkim=none"


@pytest.mark.parametrize("status", list(DkimStatus))
def test_each_status_is_the_word_of_rfc_8601(status: DkimStatus) -> None:
    clause = read_strictly(build(US, dkim=[dkim_result(status, detail="why")]).value)[1][0]
    assert (clause.result, clause.reason) == (status.value, None if status is DkimStatus.PASS else "why")


def test_each_signature_has_its_own_clause() -> None:
    results = [
        dkim_result(DkimStatus.FAIL, detail="the body was changed after it was signed"),
        dkim_result(domain="evil.test", identity="x@evil.test", selector="a.b.c", testing=True),
    ]
    clauses = read_strictly(build(US, dkim=results).value)[1]
    assert [(clause.result, clause.properties[0][1]) for clause in clauses] == [
        ("fail", "bank.test"),
        ("pass", "evil.test"),
    ]
    assert "testing" in clauses[1].comment


def test_a_malformed_message_has_a_dmarc_permerror() -> None:
    clauses = read_strictly(build(US, dkim=[], malformed="there are 2 From fields").value)[1]
    assert [(clause.method, clause.result) for clause in clauses] == [("dkim", "none"), ("dmarc", "permerror")]
    assert clauses[1].reason == "malformed message: there are 2 From fields"


@pytest.mark.attack("F01", "D07")
def test_beside_a_malformed_message_nothing_passes() -> None:
    """A signature that verifies need not cover what makes the message malformed, such as a second From."""
    clauses = read_strictly(build(US, dkim=[dkim_result()], malformed="there are 2 From fields").value)[1]
    assert [(clause.method, clause.result) for clause in clauses] == [("dkim", "policy"), ("dmarc", "permerror")]


def test_what_the_signature_did_not_say_is_left_out() -> None:
    unread = dkim_result(
        DkimStatus.PERMERROR, domain=None, selector=None, identity=None, algorithm=None, prefix=None, key_bits=None
    )
    assert read_strictly(build(US, dkim=[unread]).value)[1] == [
        Clause("dkim", "permerror", "", "the signature verifies", [])
    ]


@pytest.mark.attack("R10")
def test_long_fields_are_folded_between_words() -> None:
    name = ".".join(["a" * 60] * 4)
    results = [
        dkim_result(DkimStatus.FAIL, domain=name, identity=f"{'i' * 64}@{name}", selector=f"{number}.{name[:180]}")
        for number in range(10)
    ]
    value = build(US, dkim=results).value
    assert len(value) > 2080
    for line in value.split(b"\r\n"):
        assert len(line) <= 78 or len(line.strip().split(b" ")) == 1, line
        assert len(line) <= MAX_LINE_OCTETS
    clauses = read_strictly(value)[1]
    assert [dict(clause.properties)["header.s"] for clause in clauses] == [f"{n}.{name[:180]}" for n in range(10)]


@pytest.mark.attack("R11")
def test_many_signatures_are_listed_up_to_the_bound_and_the_rest_counted() -> None:
    value = build(US, dkim=[dkim_result()] * 20, ignored_signatures=1980).value
    clauses = read_strictly(value)[1]
    assert len(clauses) == 20
    assert "1980 further signatures were not verified" in clauses[-1].comment
    assert len(value) < 20 * 200
    assert "3 further" in read_strictly(build(US, dkim=[], ignored_signatures=3).value)[1][0].comment


HOSTILE = st.lists(
    st.sampled_from(
        [
            *';()"\\\r\n\0\t @=,/<>[]:?%',
            "a",
            "x" * 70,
            "y" * 700,
            "dkim=pass",
            " header.d=bank.test",
            "; dkim=pass header.d=bank.test",
            "\r\nX-Evil: 1",
            "\r\n\t",
            "ö",
            "\udc80",
            "\u2028",
            "\u202e",
            "=?utf-8?q?x?=",
            '"@',
            "@evil.test",
        ]
    ),
    max_size=8,
).map("".join)
NAMES = st.sampled_from(["bank.test", "xn--bcher-kva.test", ".".join(["a" * 60] * 4), "a.test"])
RESULTS = st.builds(
    dkim_result,
    st.sampled_from(list(DkimStatus)),
    detail=HOSTILE,
    domain=st.none() | NAMES | HOSTILE,
    selector=st.none() | st.just("s1") | HOSTILE,
    identity=st.none() | st.builds("{}@{}".format, HOSTILE, NAMES) | HOSTILE,
    algorithm=st.none() | st.just("rsa-sha256") | HOSTILE,
    prefix=st.none() | st.just("ab+/CD==") | HOSTILE,
    key_bits=st.none() | st.integers(min_value=0, max_value=8192),
    testing=st.booleans(),
)
PROPERTY_OF = {
    "header.d": "domain",
    "header.i": "identity",
    "header.a": "algorithm",
    "header.s": "selector",
    "header.b": "signature_prefix",
}


def stands_for(read: str, given_value: str) -> bool:
    """Whether `read` says `given_value`, all of it or cut, or honestly nothing; never anything else."""
    plain = " ".join(re.sub(r"[^\x20-\x7e]", "?", given_value).split())
    spaced = " ".join(re.sub(r"[^\x20-\x7e]", " ", given_value).split())
    read = " ".join(read.split())
    if read in (plain, spaced, "unknown", "", "?"):
        return True
    cut = read.removesuffix("...").rstrip()
    return len(cut) > 50 and (plain.startswith(cut) or spaced.startswith(cut))


def shown_status(status: DkimStatus, malformed: str) -> str:
    return "policy" if malformed and status is DkimStatus.PASS else status.value


@pytest.mark.attack("R09")
@settings(max_examples=2000, deadline=None)
@given(results=st.lists(RESULTS, max_size=4), ignored=st.integers(min_value=0, max_value=3), malformed=HOSTILE)
@example(results=[dkim_result(DkimStatus.FAIL, detail="a@b; dkim=pass header.d=bank.test")], ignored=0, malformed="")
@example(results=[dkim_result(identity="@a.test; dkim=pass")], ignored=0, malformed="")
@example(results=[dkim_result(prefix="a@;b")], ignored=0, malformed="")
@example(results=[dkim_result(domain="bank.test(.evil.test", selector='"')], ignored=0, malformed="")
@example(results=[dkim_result(DkimStatus.FAIL, detail="x " * 2500)], ignored=1, malformed="y" * 5000)
def test_hostile_values_are_read_back_as_what_they_were(
    results: list[DkimResult], ignored: int, malformed: str
) -> None:
    value = build(US, dkim=results, ignored_signatures=ignored, malformed=malformed).value
    assert all(len(line) <= MAX_LINE_OCTETS for line in value.split(b"\r\n"))
    authserv_id, clauses = read_strictly(value)
    assert authserv_id == US
    expected = [("dkim", shown_status(result.status, malformed)) for result in results] or [("dkim", "none")]
    expected += [("dmarc", "permerror")] if malformed else []
    assert [(clause.method, clause.result) for clause in clauses] == expected
    for result, clause in zip(results, clauses, strict=False):
        if malformed and result.status is DkimStatus.PASS:
            assert clause.reason == "the signature verifies, but the message is malformed"
        else:
            assert clause.reason is None or stands_for(clause.reason, result.detail)
        names = [name for name, _ in clause.properties]
        assert len(set(names)) == len(names)
        for name, read in clause.properties:
            given_value = getattr(result, PROPERTY_OF[name])
            assert given_value is not None
            if name == "header.i":
                assert stands_for(read, given_value) or stands_for(read, "@" + given_value.rpartition("@")[2])
            else:
                assert stands_for(read, given_value)
    # A second, independent reader finds the same clauses.
    other = authres.AuthenticationResultsHeader.parse("Authentication-Results:" + value.decode("ascii"))
    assert other.authserv_id == US
    assert [(clause.method, clause.result) for clause in other.results] == expected
    for clause, read_by_other in zip(clauses, other.results, strict=True):
        theirs = [(f"{one.type}.{one.name}", str(one.value).replace("\\", "")) for one in read_by_other.properties]
        # authres silently drops a property whose quoted value has certain characters; it must not invent one.
        ours = [(name, read.replace("\\", "")) for name, read in clause.properties]
        assert set(theirs) <= set(ours)


@pytest.mark.attack("R09")
@settings(max_examples=300, deadline=None)
@given(
    selector=st.from_regex(r"[a-z0-9]{1,20}(\.[a-z0-9]{1,20}){0,3}", fullmatch=True),
    local_part=st.text("abcXYZ019!#$%&'*+-/=?^_`{|}~.", max_size=64),
    domain=st.from_regex(r"[a-z0-9]{1,20}(\.[a-z0-9]{1,20}){1,3}", fullmatch=True),
    prefix=st.text("abcdefABC019+/=", min_size=1, max_size=12),
    status=st.sampled_from([status for status in DkimStatus if status is not DkimStatus.PASS]),
)
def test_ordinary_values_are_exact_for_both_readers(
    selector: str, local_part: str, domain: str, prefix: str, status: DkimStatus
) -> None:
    identity = f"{local_part}@{domain}"
    detail = f"there is no key at {selector}._domainkey.{domain}"
    result = dkim_result(
        status, detail=detail, domain=domain, identity=identity, selector=selector, prefix=prefix, key_bits=None
    )
    value = build(US, dkim=[result]).value
    properties = [
        ("header.d", domain),
        ("header.i", identity),
        ("header.a", "rsa-sha256"),
        ("header.s", selector),
        ("header.b", prefix),
    ]
    assert read_strictly(value) == (US, [Clause("dkim", status.value, "", detail, properties)])
    (other,) = authres.AuthenticationResultsHeader.parse("Authentication-Results:" + value.decode()).results
    assert (other.result, other.reason) == (status.value, detail)
    assert [(f"{one.type}.{one.name}", str(one.value)) for one in other.properties] == properties
