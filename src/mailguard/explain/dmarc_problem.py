"""DmarcProblem: what there is to say of what a domain publishes for DMARC, and what to do about it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType

from mailguard.dmarc.result import DmarcReason
from mailguard.explain.advice import TRY_AGAIN, Advice
from mailguard.explain.check_advice import DMARC

__all__ = ["PROBLEMS", "DmarcProblem"]


class DmarcProblem(Enum):
    """What `mailguard dmarc check` finds to say of what a domain publishes."""

    NO_RECORD = "no-record"
    SEVERAL_RECORDS = "several-records"
    NOT_A_RECORD = "not-a-record"
    NO_POLICY = "no-policy"
    INVALID_TAG = "invalid-tag"
    OBSOLETE_TAG = "obsolete-tag"
    STRAY_TEXT = "stray-text"
    NO_REPORTS = "no-reports"
    IGNORED_DESTINATION = "ignored-destination"
    REPORTS_REFUSED = "reports-refused"
    NO_ANSWER = "no-answer"
    TESTING = "testing"
    ASKS_FOR_NOTHING = "asks-for-nothing"
    PUBLIC_SUFFIX = "public-suffix"


PROBLEMS: Mapping[DmarcProblem, Advice] = MappingProxyType(
    {
        DmarcProblem.NO_RECORD: Advice(
            "Neither the domain nor one above it has a record that holds for it.", DMARC[DmarcReason.NO_RECORD].sender
        ),
        DmarcProblem.SEVERAL_RECORDS: Advice(
            "A name has several DMARC records: none of them counts.", "leave one of those at _dmarc.{domain}"
        ),
        DmarcProblem.NOT_A_RECORD: Advice(
            "A TXT record looks as if it was meant to be a DMARC record, but does not begin with v=DMARC1 and a"
            " semicolon, or stands at another name.",
            "let the record stand at _dmarc.{domain} and begin with: v=DMARC1;",
        ),
        DmarcProblem.NO_POLICY: Advice(
            "p=, or where they are given sp= or np=, is not one of none, quarantine and reject: the record counts as"
            " p=none if it asks for reports, and else for nothing.",
            "write p=none, p=quarantine or p=reject into the record at _dmarc.{domain}, and repair sp= and np=",
        ),
        DmarcProblem.INVALID_TAG: Advice(
            "A tag has a value that is not valid, or stands there twice: it counts as if it were absent.",
            "repair the tag in the record at _dmarc.{domain}",
        ),
        DmarcProblem.OBSOLETE_TAG: Advice(
            "RFC 9989 has the tag no more (pct, rf, ri): who follows it ignores the tag.",
            "take the tag from the record at _dmarc.{domain}; in place of pct, t=y asks for one step less than p=",
        ),
        DmarcProblem.STRAY_TEXT: Advice(
            "What stands between two semicolons is no tag (NAME=VALUE): it is ignored.",
            "repair the record at _dmarc.{domain}: between two addresses in rua= stands a comma",
        ),
        DmarcProblem.NO_REPORTS: Advice(
            "The record asks for no reports (rua): whose mail fails remains unknown.",
            "add rua=mailto:ADDRESS to the record at _dmarc.{domain}",
        ),
        DmarcProblem.IGNORED_DESTINATION: Advice(
            "An item of rua= or ruf= is no mailto: or https: URI that can be used: no report goes there.",
            "write it as mailto:ADDRESS in the record at _dmarc.{domain}, with a comma between two",
        ),
        DmarcProblem.REPORTS_REFUSED: Advice(
            "Reports are to go to another organization, which does not say that it wants them: they are not sent.",
            "have the destination publish a TXT record with v=DMARC1; at {domain}._report._dmarc.DESTINATION, or name"
            " another destination",
        ),
        DmarcProblem.NO_ANSWER: Advice(
            "The DNS did not answer at a name of the walk.",
            "if it stays, look at the name servers of {domain}",
            TRY_AGAIN,
        ),
        DmarcProblem.TESTING: Advice(
            "t=y: the policy is taken one step weaker.",
            "take t=y from the record at _dmarc.{domain} when you are done",
        ),
        DmarcProblem.ASKS_FOR_NOTHING: Advice(
            "The policy is none: mail that fails is treated as if there were no record, and forged mail with it.",
            "when the reports show that your own mail passes, ask for quarantine and then for reject",
        ),
        DmarcProblem.PUBLIC_SUFFIX: Advice(
            "psd=y: names below it belong to others, each to an organization of its own.",
            "take psd=y from the record at _dmarc.{domain}, unless others register names below it",
        ),
    }
)
