"""What Sendmail 8.18.1 (Debian 13) said to a filter in one session, octet for octet, and what each engine hears.

A login by IPv6, two messages with a third between them that RSET ends. It offers what Postfix does, and sends the
macros that it is asked for. Before the ABORT of a message it sends those of the next MAIL, and again behind it; a
sender of its own domain it tells by the mailbox alone.
"""

from __future__ import annotations

from engine_process import CONTINUE, Host, notes
from mailguard_milter.protocol import Negotiate
from milter_packets import decoded, packets

SESSION = bytes.fromhex(
    "0000000d4f00000006000001ff001fffff0000001544437b6461656d6f6e5f6e616d657d004d5441360000000023436c6f63616c"
    "686f73740036d155495076363a303a303a303a303a303a303a303a3100000000134448690036414e4c416b694930313331353700"
    "0000000d48636c69656e742e746573740000000042444d7b617574685f747970657d00504c41494e007b617574685f6175746865"
    "6e7d00616c6963654075732e74657374007b6d61696c5f616464727d00616c69636500000000134d3c616c6963652b784075732e"
    "746573743e00000000134452690036414e4c416b6949303133313537000000000f523c614073696e6b2e746573743e0000000013"
    "4454690036414e4c416b6949303133313537000000001d4c46726f6d0020416c696365203c616c6963654075732e746573743e00"
    "000000154c5375626a656374002074776f0a206c696e6573000000000c4c582d4f637465747300ff0000000013444e690036414e"
    "4c416b694930313331353700000000014e000000084268656c6c6f0d0a000000134445690036414e4c416b694930313331353700"
    "000000014500000048444d7b617574685f747970657d00504c41494e007b617574685f61757468656e7d00616c6963654075732e"
    "74657374007b6d61696c5f616464727d0078406576696c2e7465737400000000174d3c78406576696c2e746573743e0053495a45"
    "3d313000000000134452690036414e4c416b694a3031333135370000000011523c6f6e654073696e6b2e746573743e000000003d"
    "444d7b617574685f747970657d00504c41494e007b617574685f61757468656e7d00616c6963654075732e74657374007b6d6169"
    "6c5f616464727d0000000000044d3c3e00000000134452690036414e4c416b694b303133313537000000000f523c614073696e6b"
    "2e746573743e00000000134454690036414e4c416b694b303133313537000000001d4c46726f6d0020416c696365203c616c6963"
    "654075732e746573743e0000000013444e690036414e4c416b694b30313331353700000000014e000000134445690036414e4c41"
    "6b694b3031333135370000000001450000000151"
)
ALICE = "[('{auth_authen}', b'alice@us.test'), ('{auth_type}', b'PLAIN'), ('{mail_addr}', b'%s')]"


def test_both_engines_hear_the_same(host: Host) -> None:
    offer, *rest = packets(SESSION)
    with host.client() as client:
        client.raw(offer)
        assert client.receive()[0] == b"O"
        client.raw(b"".join(rest))
        first, second = client.conclusion(), client.conclusion()
    assert decoded(offer) == [Negotiate(6, 0x1FF, 0x1FFFFF)]
    session = [["connect", "::1", "[('{daemon_name}', b'MTA6')]"], ["helo", "client.test"]]
    assert first[-1] == second[-1] == CONTINUE
    assert notes(first)["events"] == [
        *session,
        ["mail", "<alice+x@us.test>", ALICE % "alice"],
        ["rcpt"],
        ["header", "From", " Alice <alice@us.test>"],
        ["header", "Subject", " two\n lines"],
        ["header", "X-Octets", "\xff"],
        ["end of header"],
        ["body", "7"],
        ["end of message"],
    ]
    assert notes(second)["events"] == [
        *session,
        ["mail", "<>", ALICE % ""],
        ["rcpt"],
        ["header", "From", " Alice <alice@us.test>"],
        ["end of header"],
        ["end of message"],
    ]
    logged = [line["queue_id"] for line in host.messages_logged(2)]
    assert logged == ["6ANLAkiI013157", "6ANLAkiK013157"]
