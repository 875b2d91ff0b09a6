"""What `mailguard verify` prints: a tree on a terminal, plain lines elsewhere, or JSON.

What strangers wrote is escaped: nothing that a message holds can move the cursor or colour a line. Colours
obey NO_COLOR, and the tree is drawn in ASCII where the terminal knows nothing else (rich sees to both).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import click
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from mailguard.cli.exit_code import ExitCode
from mailguard.cli.printable import printable
from mailguard.dkim.result import DkimResult, DkimStatus
from mailguard.dkim.second_opinion import SecondOpinion, difference
from mailguard.explain.check_advice import DKIM
from mailguard.explain.dkim_node import signature_names
from mailguard.message import MalformedReason, Message

__all__ = ["Judged", "report_json", "show"]


@dataclass(frozen=True, slots=True)
class Judged:
    """A signature's result, and what dkimpy says of it if it was asked."""

    result: DkimResult
    opinion: SecondOpinion | None


def report_json(message: Message, judged: Sequence[Judged], ignored: int, code: ExitCode) -> dict[str, object]:
    """The report as a value for json.dumps; statuses and reasons are the words that DkimResult has."""
    return {
        "result": _verdict_word(code),
        "author_domains": list(message.author.domains),
        "malformed": message.malformed.value if message.malformed else None,
        "malformed_detail": message.malformed_detail,
        "signatures": [_signature_as_json(each) for each in judged],
        "signatures_not_verified": ignored,
    }


def _signature_as_json(judged: Judged) -> dict[str, object]:
    result, opinion = judged.result, judged.opinion
    report: dict[str, object] = {
        "status": result.status.value,
        "reason": result.reason.value,
        "detail": result.detail,
        "domain": result.domain,
        "selector": result.selector,
        "identity": result.identity,
        "algorithm": result.algorithm,
        "key_bits": result.key_bits,
        "header_b": result.signature_prefix,
        "testing": result.testing,
        "what_to_do": _advice(result),
    }
    if opinion is not None:
        report["second_opinion"] = {
            "by": "dkimpy",
            "verdict": opinion.verdict.value,
            "detail": opinion.detail,
            "difference": difference(result, opinion),
        }
    return report


def show(message: Message, judged: Sequence[Judged], ignored: int, code: ExitCode) -> None:
    """Print the report to standard output."""
    console = Console(highlight=False)
    summary = _summary(message, judged, ignored, code)
    entries = [(f"signature {n}", each.result.status, tuple(_lines(each))) for n, each in enumerate(judged, 1)]
    notes = [_author(message)]
    if not console.is_terminal:
        click.echo("\n".join([summary, *notes]))
        for name, status, lines in entries:
            click.echo("\n  ".join([f"{name}: {status.value}", *lines]))
        return
    tree = Tree(Text(summary, style=f"bold {_COLOURS[code]}"))
    for note in notes:
        tree.add(Text(note))
    for name, status, lines in entries:
        branch = tree.add(Text.assemble(f"{name}: ", (status.value, _STATUS_COLOURS.get(status, "yellow"))))
        for line in lines:
            branch.add(Text(line))
    console.print(tree)


_COLOURS = {ExitCode.PASS: "green", ExitCode.FAIL: "red"} | dict.fromkeys(
    (ExitCode.NO_SIGNATURE, ExitCode.TEMPORARY), "yellow"
)
_STATUS_COLOURS = {DkimStatus.PASS: "green", DkimStatus.FAIL: "red", DkimStatus.PERMERROR: "red"}


def _verdict_word(code: ExitCode) -> str:
    return {ExitCode.PASS: "pass", ExitCode.TEMPORARY: "temperror", ExitCode.NO_SIGNATURE: "none"}.get(code, "fail")


def _summary(message: Message, judged: Sequence[Judged], ignored: int, code: ExitCode) -> str:
    if code is ExitCode.NO_SIGNATURE and message.malformed is MalformedReason.HEADER_SYNTAX:
        return "none: there is no DKIM signature in the part of the header that can be read"
    if code is ExitCode.NO_SIGNATURE:
        return "none: the message has no DKIM signature"
    if not judged:
        what = "1 signature was" if ignored == 1 else f"{ignored} signatures were"
        return f"{_verdict_word(code)}: {what} not verified: {printable(message.malformed_detail)}"
    passed = sum(each.result.status is DkimStatus.PASS for each in judged)
    verb = "passes" if passed == 1 else "pass"
    text = f"{_verdict_word(code)}: {passed} of {len(judged)} signatures {verb}"
    if passed and message.malformed is not None:
        text = f"{text}, but the message is malformed"
    return f"{text}; {ignored} more not verified" if ignored else text


def _author(message: Message) -> str:
    if message.malformed is not None:
        return f"From: malformed ({message.malformed.value}): {printable(message.malformed_detail)}"
    return f"From: {', '.join(message.author.domains)}"


def _lines(judged: Judged) -> Iterator[str]:
    result, opinion = judged.result, judged.opinion
    yield f"reason: {result.reason.value}: {printable(result.detail)}"
    known = (("d", result.domain), ("s", result.selector), ("i", result.identity), ("a", result.algorithm))
    tags = [f"{name}={printable(value)}" for name, value in known if value]
    if result.signature_prefix:
        tags.append(f"b={printable(result.signature_prefix)}...")
    if result.key_bits:
        tags.append(f"key of {result.key_bits} bits")
    if tags:
        yield ", ".join(tags)
    if result.testing:
        yield "the key says that the domain is testing (t=y)"
    yield f"what to do: {_advice(result)}"
    if opinion is not None:
        yield f"dkimpy: {opinion.verdict.value}: {opinion.detail}"
        differs = difference(result, opinion)
        if differs:
            yield f"they differ: {differs}"


def _advice(result: DkimResult) -> str:
    return DKIM[result.reason].text(signature_names(result)) or "nothing"
