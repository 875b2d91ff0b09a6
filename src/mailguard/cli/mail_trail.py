"""The way of one message through Postfix, told from the lines of its log and of the daemon's, by queue id.

Postfix logs the Message-ID once for each queue id that a message has: a content filter gives it a second one, and so
does a second attempt of pickup(8). The lines hold what strangers wrote: every part has a bound, and nothing here is
fit for a terminal yet. Pure; linear in the lines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from mailguard.cli.log_lines import Unreadable, record_of, split_line

__all__ = ["Delivery", "Hop", "Trail"]

# Longer ones end in a remote server's reply, of which this is enough.
MAX_CONTENT_CHARS = 4_000
# Other mail passes while the message is under way.
MAX_QUEUE_IDS = 2_000
MAX_HOPS = 10
MAX_OF_A_KIND = 20
MAX_WARNING_CHARS = 300

# Short ones are hexadecimal, long ones (enable_long_queue_ids) have no vowels: so "warning" is none.
_ENTRY = re.compile(r"(?P<id>[0-9A-F]{6,20}|[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-z]{10,24}): (?P<rest>.*)", re.DOTALL)
_PICKUP = re.compile(r"uid=(?P<uid>[0-9]+) from=<(?P<sender>[^>]*)>")
_CLIENT = re.compile(r"client=(?P<client>[^ ,]+)")
_DELIVERY = re.compile(
    r"to=<(?P<recipient>[^>]*)>, (?:orig_to=<[^>]*>, )?relay=(?P<relay>[^ ,]+), (?:conn_use=[0-9]+, )?"
    r"delay=[^ ]+, delays=[^ ]+, (?:[a-z_]+=[^ ,]+, )*?dsn=(?P<dsn>[0-9.]+), (?:[a-z_]+=[^ ,]+, )*?"
    # Who has received it may say so much that the line is cut before its last bracket.
    r"status=(?P<status>[A-Za-z]+) \((?P<reply>.*)",
    re.DOTALL,
)
_VERDICT = re.compile(
    r"(?P<kind>milter-)?(?P<verdict>reject|hold|discard): (?P<stage>\S+) (?:from )?(?P<text>.*)", re.DOTALL
)
# By the next server; by local(8), for another address of the recipient's.
_QUEUED_AS = re.compile(r"(?:queued|forwarded) as ([0-9A-Za-z]+)")
# What milter8.c says; other warnings quote strangers, their names and what they say.
_OF_MILTER = re.compile(r"(?:connect to Milter service \S+|milter \S+): ")
_LOOPBACK = re.compile(r"\[(?:127\.[0-9.]+|::1)\]")
_EXPIRED = "status=expired"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt for one recipient."""

    recipient: str
    relay: str
    """The server and its address, or `local`; `none` if there was none."""
    dsn: str
    """The enhanced status code."""
    status: str
    """`sent`, `deferred`, `bounced`."""
    reply: str
    """What the server or the mailbox said."""
    program: str
    """Of Postfix: `smtp`."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What cleanup(8) did with it by word of a milter or of header_checks."""

    by_milter: bool
    verdict: str
    """`reject`, `hold`, `discard`."""
    text: str
    """With the reply."""

    @property
    def is_temporary(self) -> bool:
        """Whether it was refused for a time. Postfix logs the enhanced status code, as in `4.7.1 Service ...`."""
        return self.verdict == "reject" and bool(re.search(r"\]: 4(?:\.|[0-9][0-9] )", self.text))


@dataclass(slots=True)
class Hop:
    """What happened under one queue id."""

    queue_id: str
    message_id: str = ""
    is_other: bool = False
    """Another message has this queue id."""
    uid: str = ""
    """Of who gave it to sendmail(1)."""
    sender: str = ""
    client: str = ""
    """Who gave it to smtpd(8)."""
    deliveries: list[Delivery] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    is_removed: bool = False

    def add(self, delivery: Delivery) -> None:
        """One more; where there are too many, what went wrong is kept."""
        if len(self.deliveries) >= MAX_OF_A_KIND:
            sent = next((each for each in self.deliveries if each.status == "sent"), None)
            if sent is None or delivery.status == "sent":
                return
            self.deliveries.remove(sent)
        self.deliveries.append(delivery)

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be expected soon."""
        if self.is_removed or self.verdicts:
            return True
        # cleanup(8) bounces without the queue manager, who would remove it.
        return any(each.status == "deferred" or each.program == "cleanup" for each in self.deliveries)

    @property
    def passed_on_as(self) -> frozenset[str]:
        """The queue ids that the next servers gave it."""
        return frozenset(found[1] for each in self.deliveries if (found := _QUEUED_AS.search(each.reply)))


def _delivery(found: re.Match[str], program: str) -> Delivery:
    status = found["status"].lower()
    return Delivery(
        found["recipient"],
        found["relay"],
        found["dsn"],
        # soft_bounce: it stays in the queue.
        "deferred" if status == "softbounce" else status,
        found["reply"].removesuffix(")"),
        program,
    )


class Trail:
    """Fed line by line; what it holds are the lines about one message so far."""

    def __init__(self, message_id: str, *, sender: str, uid: int, queue_id: str) -> None:
        """`message_id` with its brackets. `uid` and `sender` tell it before its Message-ID is logged."""
        self._message_id, self._sender, self._uid = message_id, sender, str(uid)
        self._queue_id = queue_id
        self._known: dict[str, Hop] = {}
        self._records: dict[str, Mapping[str, str]] = {}
        self.warnings: list[str] = []
        """What Postfix says of milters, once each."""

    def feed(self, line: bytes) -> None:
        """A line without its end."""
        _, program, content = split_line(line)
        content = content[:MAX_CONTENT_CHARS]
        if "/" not in program:
            self._daemon_line(content)
            return
        name = program.rpartition("/")[2]
        entry = _ENTRY.match(content)
        if entry is not None:
            self._entry(self._hop(entry["id"]), name, entry["rest"])
        elif name in ("cleanup", "smtpd") and content.startswith("warning: "):
            text = content.removeprefix("warning: ")[:MAX_WARNING_CHARS]
            if not _OF_MILTER.match(text):
                return
            if text not in self.warnings and len(self.warnings) < MAX_OF_A_KIND:
                self.warnings.append(text)

    def _daemon_line(self, content: str) -> None:
        record = record_of(content)
        if record is None or record is Unreadable.DAMAGED or "action" not in record or "queue_id" not in record:
            return
        self._records.pop(record["queue_id"], None)
        self._records[record["queue_id"]] = record
        if len(self._records) > MAX_QUEUE_IDS:
            del self._records[next(iter(self._records))]

    def _hop(self, queue_id: str) -> Hop:
        hop = self._known.get(queue_id)
        if hop is None:
            hop = self._known[queue_id] = Hop(queue_id)
            if len(self._known) > MAX_QUEUE_IDS:
                others = (name for name, each in self._known.items() if not each.message_id)
                del self._known[next(others, next(iter(self._known)))]
        return hop

    def _entry(self, hop: Hop, program: str, rest: str) -> None:
        if rest.startswith("message-id="):
            hop.message_id = self._message_id if rest == f"message-id={self._message_id}" else ""
            hop.is_other = not hop.message_id
        elif pickup := _PICKUP.match(rest):
            hop.uid, hop.sender = pickup["uid"], pickup["sender"]
        elif client := _CLIENT.match(rest):
            hop.client = client["client"]
        elif found := _DELIVERY.match(rest):
            hop.add(_delivery(found, program))
        elif found := _VERDICT.match(rest):
            if len(hop.verdicts) < MAX_OF_A_KIND:
                hop.verdicts.append(Verdict(found["kind"] is not None, found["verdict"], found["text"]))
        elif rest == "removed" or _EXPIRED in rest:
            hop.is_removed = True

    @property
    def hops(self) -> tuple[Hop, ...]:
        """Those of the message, in the order in which they began. Where somebody sends it back to us, not that."""
        named = [
            each
            for each in self._known.values()
            if each.message_id or (each.queue_id == self._queue_id and not each.is_other)
        ]
        ours: list[Hop] = []
        for each in named:
            is_next = any(each.queue_id in before.passed_on_as for before in ours)
            if not ours or is_next or each.uid or _LOOPBACK.search(each.client):
                ours.append(each)
        if not ours:
            # A milter that refuses it at once has cleanup end before the header is read.
            ours = [
                each
                for each in self._known.values()
                if (each.uid, each.sender) == (self._uid, self._sender) and each.verdicts and not each.is_other
            ]
        return tuple(ours[:MAX_HOPS])

    def record(self, hop: Hop) -> Mapping[str, str] | None:
        """What mailguard has logged of it."""
        return self._records.get(hop.queue_id)

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be expected soon."""
        hops = self.hops
        return bool(hops) and all(each.is_over for each in hops)
