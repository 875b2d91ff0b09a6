"""Mail from outside, judged through the real Postfix with a validating resolver: every policy, both modes.

RFC 7208, RFC 6376, RFC 9989 §4.7 (policy), RFC 9989 §5.3.6 (temporary errors), RFC 7372 (reply codes). The zones
are in judging_zones. The same messages go to a daemon that enforces and to one that monitors; a third has a policy of
its own. Forged identities of the envelope are in test_postfix_envelope.py, outages in test_postfix_outage.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

import zone0
from daemon_process import eventually
from judging_site import Fate, JudgingSite, Place, Sending, open_judging_site
from judging_zones import CLIENTS, LIST_CLIENT, signed_by
from postfix_site import STRANGER
from unbound_site import UNBOUND

pytestmark = [pytest.mark.postfix, pytest.mark.skipif(UNBOUND is None, reason="unbound is not installed")]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What enforcing makes of a message: where it ends, the rule of the log, and the word after dmarc=."""

    place: Place
    rule: str
    dmarc: str

    @property
    def action(self) -> str:
        """The word for it in the log."""
        words = {"delivered": "accept", "held": "quarantine", "refused": "reject", "deferred": "tempfail"}
        return words[self.place]


def passes() -> Outcome:
    return Outcome("delivered", "no-objection", "pass")


def refused(rule: str = "dmarc-reject") -> Outcome:
    return Outcome("refused", rule, "fail")


def held(rule: str = "dmarc-quarantine") -> Outcome:
    return Outcome("held", rule, "fail")


def accepted(rule: str, dmarc: str) -> Outcome:
    return Outcome("delivered", rule, dmarc)


def deferred(rule: str = "dmarc-temperror") -> Outcome:
    return Outcome("deferred", rule, "temperror")


def unsigned(
    author: str, *, sender: str = "x@evil.test", client: str = STRANGER, helo: str = "client.test"
) -> Sending:
    return Sending(zone0.mail(f"<{author}>"), sender, client, helo)


def signed(author: str, by: str, *, sender: str = "x@evil.test", client: str = STRANGER) -> Sending:
    return Sending(signed_by(by, zone0.mail(f"<{author}>")), sender, client)


def own(author: str, *, sender: str = "") -> Sending:
    """From the host that the author's domain names, with a reverse path of that domain."""
    return unsigned(author, sender=sender or author, client=CLIENTS[author.partition("@")[2]])


def several(*authors: str) -> Sending:
    return Sending(zone0.mail(", ".join(f"<{author}>" for author in authors)))


CASES = {
    # id: (message, what enforcing makes of it)
    "SPF alone": (own("n@spf-only.test", sender="b@bounces.spf-only.test"), passes()),
    "DKIM alone": (signed("n@dkim-only.test", "dkim-only.test"), passes()),
    "both": (signed("n@bank.test", "bank.test", sender="n@bank.test", client=CLIENTS["bank.test"]), passes()),
    "D01 the signature of another": (signed("ceo@bank.test", "evil.test"), refused()),
    "SPF of another": (unsigned("ceo@bank.test"), refused()),
    "SPF fails": (unsigned("ceo@bank.test", sender="ceo@bank.test"), refused()),
    "a broken signature": (
        Sending(signed_by("bank.test", zone0.mail("<ceo@bank.test>")).replace(b"world", b"World")),
        refused(),
    ),
    "D32 one fails, another passes for another": (
        Sending(
            signed_by("evil.test", signed_by("bank.test", zone0.mail("<ceo@bank.test>")).replace(b"bh=", b"bh=AAAA"))
        ),
        refused(),
    ),
    "aspf=s": (
        unsigned("n@strict.test", sender="b@bounces.strict.test", client=CLIENTS["strict.test"]),
        refused(),
    ),
    "E12 only HELO passes": (
        unsigned("ceo@bank.test", sender="x@other.test", client=CLIENTS["bank.test"], helo="bank.test"),
        refused(),
    ),
    "E11 null sender, HELO fails": (unsigned("ceo@bank.test", sender="", helo="bank.test"), refused()),
    "E01 a sender that does not exist": (unsigned("ceo@bank.test", sender="x@nosuch.bank.test"), refused()),
    "p=quarantine": (unsigned("ceo@quarantine.test"), held()),
    "p=none": (unsigned("ceo@none.test"), accepted("dmarc-none", "fail")),
    "M10 t=y": (unsigned("ceo@testing.test"), held()),
    "sp= is not for the domain itself": (unsigned("ceo@sub.test"), accepted("dmarc-none", "fail")),
    "M05 sp=": (unsigned("ceo@exists.sub.test"), held()),
    "M05 np=": (unsigned("ceo@nosuch.sub.test"), refused()),
    "no policy": (unsigned("x@evil.test"), accepted("no-objection", "none")),
    "M01 two records": (unsigned("ceo@two-records.test"), accepted("no-objection", "none")),
    "F01 two From fields": (
        Sending(b"From: <ceo@bank.test>\r\n" + zone0.mail("<x@evil.test>")),
        Outcome("refused", "malformed", "permerror"),
    ),
    # RFC 9989 §11.5: of several domains the strictest verdict stands, and no pass.
    "F16 one of two domains fails": (several("ceo@bank.test", "x@evil.test"), refused()),
    "F16 one of two domains passes": (
        Sending(signed_by("dkim-only.test", several("n@dkim-only.test", "x@evil.test").content)),
        accepted("dmarc-permerror", "permerror"),
    ),
    # The DNS fails, and its answer could keep the message back.
    "M03 no policy can be had": (unsigned("ceo@no-policy.test"), deferred()),
    "D36 no key can be had": (signed("ceo@no-key.test", "no-key.test"), deferred()),
    "V11 all of the zone fails": (unsigned("ceo@failing.test", sender="ceo@failing.test"), deferred()),
    "N09 a bogus zone": (signed("ceo@bogus.test", "bogus.test", sender="ceo@bogus.test"), deferred()),
    "N09 a bogus zone, from its own host": (own("ceo@bogus.test"), deferred()),
    "N09 a bogus policy": (unsigned("ceo@bogus-policy.test"), deferred()),
    "N09 a bogus SPF record": (unsigned("ceo@bogus-spf.test", sender="x@bounces.bogus-spf.test"), deferred()),
    "N09 a bogus key": (signed("ceo@bogus-key.test", "bogus-key.test"), deferred()),
    # The DNS fails, and whatever it said, the message would be accepted.
    "M04 no policy, but an aligned pass": (own("n@no-policy.test"), accepted("no-objection", "temperror")),
    "no key, p=none": (signed("ceo@no-key-none.test", "no-key-none.test"), accepted("no-objection", "temperror")),
    "no SPF, p=none": (
        unsigned("ceo@no-spf-none.test", sender="x@bounces.no-spf-none.test"),
        accepted("no-objection", "temperror"),
    ),
}


@pytest.fixture(scope="module")
def enforcing() -> Iterator[JudgingSite]:
    with open_judging_site(mode="enforce") as made:
        yield made


@pytest.fixture(scope="module")
def monitoring() -> Iterator[JudgingSite]:
    with open_judging_site(mode="monitor") as made:
        yield made


def assert_reply(fate: Fate, outcome: Outcome, author: bytes) -> None:
    """A refusal says which domain's policy or data it hangs on, and the rule; RFC 7372 names the codes."""
    code, text = fate.answer.code, fate.answer.text
    assert text.split()[1] == b"mailguard:", fate
    assert b"[%b]" % outcome.rule.encode() in text, fate
    if outcome.rule == "malformed":
        assert (code, text[:6]) == (550, b"5.6.0 "), fate
        return
    assert b"DMARC" in text, fate
    assert author.rpartition(b"@")[2] in text, fate
    if outcome.place == "refused":
        assert (code, text[:7]) == (550, b"5.7.26 "), fate
    else:
        assert (code, text[:4]) == (451, b"4.7."), fate


def author_of(sending: Sending) -> bytes:
    return sending.content.partition(b"From: <")[2].partition(b">")[0]


@pytest.mark.attack(
    "D01", "D32", "D36", "E01", "E11", "E12", "F01", "F16", "M01", "M03", "M04", "M05", "M10", "N09", "V11"
)
@pytest.mark.parametrize("name", CASES)
def test_enforce(enforcing: JudgingSite, name: str) -> None:
    sending, outcome = CASES[name]
    fate = enforcing.fate(sending)
    assert fate.place == outcome.place, fate
    record = fate.record
    assert (record["action"], record["rule"], record["dmarc"]) == (outcome.action, outcome.rule, outcome.dmarc), fate
    assert record.get("would") is None, fate
    if outcome.place in ("delivered", "held"):
        assert fate.clause("dmarc").split()[0] == f"dmarc={outcome.dmarc}", fate
    else:
        assert_reply(fate, outcome, author_of(sending))


@pytest.mark.attack(
    "D01", "D32", "D36", "E01", "E11", "E12", "F01", "F16", "M01", "M03", "M04", "M05", "M10", "N09", "V11"
)
@pytest.mark.parametrize("name", CASES)
def test_monitor(monitoring: JudgingSite, name: str) -> None:
    sending, outcome = CASES[name]
    fate = monitoring.fate(sending)
    assert fate.place == "delivered", fate
    record = fate.record
    assert (record["action"], record["rule"], record["dmarc"]) == ("accept", outcome.rule, outcome.dmarc), fate
    assert record.get("would") == (None if outcome.action == "accept" else outcome.action), fate
    assert fate.clause("dmarc").split()[0] == f"dmarc={outcome.dmarc}", fate
    if outcome.dmarc != "permerror":
        assert f"header.from={author_of(sending).rpartition(b'@')[2].decode()}" in fate.clause("dmarc"), fate


def test_the_resolver_validates(monitoring: JudgingSite) -> None:
    """N09 shows something only if a signed zone is not bogus, and an expired one is."""
    fate = monitoring.fate(signed("n@bank.test", "bank.test"))
    assert fate.clause("dkim").startswith("dkim=pass"), fate
    fate = monitoring.fate(signed("n@bogus.test", "bogus.test"))
    assert fate.clause("dkim").startswith("dkim=temperror"), fate
    assert "DNSSEC" in fate.clause("dkim"), fate


def test_what_is_held_is_judged_and_released_as_it_is(enforcing: JudgingSite) -> None:
    fate = enforcing.fate(unsigned("ceo@quarantine.test"))
    assert fate.place == "held"
    assert fate.message.startswith(b"Authentication-Results: mx.us.test;"), fate
    eventually(lambda: "milter-hold: END-OF-MESSAGE" in enforcing.mail.postfix.log())
    # Why, Postfix says from 3.10 on.
    assert "the policy of quarantine.test is quarantine" in str(fate.record["reason"])
    known = len(enforcing.mail.records())
    count = enforcing.mail.postfix.delivered_count()
    enforcing.mail.postfix.release(fate.answer.queue_id)
    released = enforcing.mail.postfix.wait_delivered(count + 1)[-1]
    assert released.message.replace(b"\n", b"\r\n") == fate.message
    assert len(enforcing.mail.records()) == known


# --- Local policy ----------------------------------------------------------------------------------------------

LOCAL_POLICY = """
[policy.dmarc]
none = "header"
[policy.spf]
softfail = "quarantine"
[policy.domains."none.test".dmarc]
none = "quarantine"
[[trusted]]
type = "mailing_list"
dkim = ["lists.test", "no-key.test"]
[[trusted]]
type = "trusted_forwarder"
spf = ["spf-only.test"]
networks = ["203.0.113.128/25"]
[[trusted]]
type = "local_policy"
ptr = ["lists.test"]
"""
TRUSTED_NETWORK_CLIENT = "203.0.113.200"


@pytest.fixture(scope="module")
def choosing(engine: str) -> Iterator[JudgingSite]:
    with open_judging_site(mode="enforce", policy=LOCAL_POLICY, engine=engine) as made:
        yield made


@pytest.mark.parametrize(
    ("sending", "kind", "identity"),
    [
        pytest.param(signed("ceo@bank.test", "lists.test"), "mailing_list", "dkim=lists.test", id="dkim"),
        pytest.param(
            unsigned("ceo@bank.test", sender="x@bounces.spf-only.test", client=CLIENTS["spf-only.test"]),
            "trusted_forwarder",
            "spf=bounces.spf-only.test",
            id="spf",
        ),
        pytest.param(
            unsigned("ceo@bank.test", client=TRUSTED_NETWORK_CLIENT),
            "trusted_forwarder",
            f"network {TRUSTED_NETWORK_CLIENT}",
            id="network",
        ),
        pytest.param(unsigned("ceo@bank.test", client=LIST_CLIENT), "local_policy", "ptr=mx.lists.test", id="ptr"),
        pytest.param(signed("ceo@quarantine.test", "lists.test"), "mailing_list", "dkim=lists.test", id="quarantine"),
    ],
)
def test_a_trusted_source_is_accepted_with_a_comment(
    choosing: JudgingSite, sending: Sending, kind: str, identity: str
) -> None:
    fate = choosing.fate(sending)
    assert fate.place == "delivered", fate
    assert fate.clause("dmarc").startswith("dmarc=fail "), fate
    # RFC 8601 §2.2: a comment stands in parentheses.
    assert f"(policy overridden: {kind} {identity})" in fate.clause("dmarc").replace('"', ""), fate
    assert fate.record["override"] == f"{kind} {identity}"
    assert fate.record["action"] == "accept"


@pytest.mark.parametrize(
    ("sending", "outcome"),
    [
        pytest.param(
            Sending(signed_by("lists.test", zone0.mail("<ceo@bank.test>")).replace(b"world", b"World")),
            refused(),
            id="a broken signature of the list",
        ),
        pytest.param(unsigned("ceo@bank.test", sender="x@lists.test"), refused(), id="a reverse path of the list"),
        pytest.param(unsigned("ceo@bank.test", helo="mx.lists.test"), refused(), id="the HELO name of the list"),
        pytest.param(
            Sending(signed_by("lists.test", b"From: <ceo@bank.test>\r\n" + zone0.mail("<x@evil.test>"))),
            Outcome("refused", "malformed", "permerror"),
            id="malformed, signed by the list",
        ),
    ],
)
def test_who_only_claims_to_be_trusted_is_refused(choosing: JudgingSite, sending: Sending, outcome: Outcome) -> None:
    fate = choosing.fate(sending)
    assert (fate.place, fate.record["rule"]) == (outcome.place, outcome.rule), fate
    assert fate.record.get("override") is None


def test_a_list_that_cannot_be_verified_now_waits(choosing: JudgingSite) -> None:
    fate = choosing.fate(signed("ceo@bank.test", "no-key.test"))
    assert (fate.place, fate.answer.code) == ("deferred", 451), fate
    assert fate.record["rule"] == "trusted-temperror", fate


def test_local_actions(choosing: JudgingSite) -> None:
    marked = choosing.fate(unsigned("ceo@sub.test"))
    assert (marked.place, marked.record["action"]) == ("delivered", "header"), marked
    assert b"\r\nX-Mailguard-Policy: dmarc-none\r\n" in b"\r\n" + marked.message, marked
    forged = Sending(b"X-Mailguard-Policy: no-objection\r\n" + zone0.mail("<x@evil.test>"))
    assert b"X-Mailguard-Policy" not in choosing.fate(forged).message
    quarantined = choosing.fate(unsigned("ceo@none.test"))
    assert (quarantined.place, quarantined.record["rule"]) == ("held", "dmarc-none"), quarantined
    doubtful = choosing.fate(unsigned("x@softfail.test", sender="x@softfail.test"))
    assert (doubtful.place, doubtful.record["rule"]) == ("held", "spf-softfail"), doubtful
