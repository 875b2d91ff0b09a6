"""OpenDKIM's miltertest as the MTA: a client of the milter protocol that nobody here wrote, with each engine.

Debian's package miltertest; its scripts are Lua. Inserted values of a few thousand octets overflow a buffer of it
(2.11.0 beta 2), so the messages are short. The worker has a stand-in session (engine_host.py), which does what
fields called X-Do ask for.
"""

from __future__ import annotations

import shutil
import subprocess

import pytest

from engine_process import Host

MILTERTEST = shutil.which("miltertest")
TIMEOUT_S = 60.0

pytestmark = pytest.mark.skipif(MILTERTEST is None, reason="miltertest is not installed")

# What every script begins with: a session up to the first recipient, and a check of what is said to be done.
BEGINNING = """
conn = mt.connect(address)
function holds(what, name) if not what then mt.echo("does not hold: " .. name) error(name) end end
function done(what) holds(what == nil, what) end
done(mt.negotiate(conn, %(version)s, nil, nil))
done(mt.macro(conn, SMFIC_CONNECT, "{daemon_name}", "smtpd"))
done(mt.conninfo(conn, "client.test", "192.0.2.1"))
done(mt.helo(conn, "client.test"))

function message(orders)
  done(mt.macro(conn, SMFIC_MAIL, "i", "4QUEUEID", "{auth_authen}", "bob"))
  done(mt.mailfrom(conn, "<x@evil.test>", "SIZE=100"))
  done(mt.rcptto(conn, "<one@us.test>"))
  done(mt.rcptto(conn, "<two@us.test>", "NOTIFY=NEVER"))
  done(mt.header(conn, "Subject", "hello"))
  for _, order in ipairs(orders) do done(mt.header(conn, "X-Do", order)) end
  done(mt.eoh(conn))
  done(mt.bodystring(conn, string.rep("0123456789abcde\\r\\n", 3000)))
  done(mt.eom(conn))
end
"""
SCRIPTS = {
    "accepted": """
message({"delete X-Gone 2", "insert X-New 20" .. "76"})
holds(mt.getreply(conn) == SMFIR_CONTINUE, "reply")
holds(mt.eom_check(conn, MT_HDRDELETE, "X-Gone"), "deleted")
holds(mt.eom_check(conn, MT_HDRINSERT, "X-New"), "inserted")
holds(not mt.eom_check(conn, MT_HDRADD), "added")
holds(not mt.eom_check(conn, MT_QUARANTINE), "held")
events = mt.getheader(conn, "X-Events", 0)
for _, seen in ipairs({"bob", "192.0.2.1", "client.test", "<x@evil.test>", "hello", "end of message"}) do
  holds(string.find(events, seen, 1, true), seen .. " in " .. events)
end
""",
    "quarantined": """
message({"quarantine for a look"})
holds(mt.getreply(conn) == SMFIR_CONTINUE, "reply")
holds(mt.eom_check(conn, MT_QUARANTINE, "for a look"), "held")
""",
    "refused, and the next one accepted": """
message({"reply 550 5.7.1 not here"})
holds(mt.getreply(conn) == SMFIR_REPLYCODE, "reply")
holds(mt.eom_check(conn, MT_SMTPREPLY, "550", "5.7.1", "not here"), "text")
message({})
holds(mt.getreply(conn) == SMFIR_CONTINUE, "next reply")
""",
    "failed": """
message({"raise body"})
holds(mt.eom_check(conn, MT_SMTPREPLY, "451", "4.3.0", "mailguard: internal error, please try again later"), "text")
""",
    "dropped": """
done(mt.mailfrom(conn, "<dropped@evil.test>"))
done(mt.abort(conn))
message({})
holds(not string.find(mt.getheader(conn, "X-Events", 0), "dropped", 1, true), "dropped")
""",
    "left": """
done(mt.mailfrom(conn, "<x@evil.test>"))
mt.disconnect(conn, false)
conn = mt.connect(address)
message({})
holds(mt.getreply(conn) == SMFIR_CONTINUE, "reply")
""",
}


@pytest.mark.attack("X09")
@pytest.mark.parametrize("version", [2, 4, 6])
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_session(host: Host, name: str, version: int) -> None:
    assert MILTERTEST is not None
    script = BEGINNING % {"version": version} + SCRIPTS[name]
    done = subprocess.run(
        [MILTERTEST, "-D", f"address=unix:{host.address}"],
        input=script,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, (done.stdout, done.stderr, script)


def test_a_script_that_does_not_hold_fails(host: Host) -> None:
    assert MILTERTEST is not None
    script = BEGINNING % {"version": 6} + 'message({})\nholds(mt.eom_check(conn, MT_QUARANTINE), "held")\n'
    command = [MILTERTEST, "-D", f"address=unix:{host.address}"]
    done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode != 0
    assert "held" in done.stdout + done.stderr
