"""rspamd as Debian ships it, with only its modules spf, dkim, dmarc and milter_headers, or dkim_signing.

The proxy worker speaks the milter protocol and scans by itself. Left out: everything that finds spam (rules, Bayes,
fuzzy checks), redis, the controller and the web interface. Of itself rspamd also finds out in which language a text
is written. No setting ends that but a directory in which there are no languages: with it, it is a contender of its
own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from bench_keys import ED25519_SELECTOR, RSA_SELECTOR
from compared_daemon import ComparedDaemon, Task
from sample_mail import AUTHSERV_ID, OUR_DOMAIN

__all__ = ["Rspamd", "RspamdWithoutLanguages"]

_COMMON = """\
options {{
    pidfile = "{directory}/run/rspamd.pid";
    tempdir = "{directory}/state";
    cache_file = "{directory}/state/symbols.cache";
    hs_cache_dir = "{directory}/state/";
    stats_file = "{directory}/state/stats.ucl";
    history_file = "{directory}/state/rspamd.history";
    control_socket = "{directory}/run/rspamd.sock mode=0600";
    url_tld = "{suffixes}";
    filters = "{filters}";
    explicit_modules = [];
    local_addrs = [];
    dns {{ timeout = 1s; sockets = 16; retransmits = 5; nameserver = ["127.0.0.1:53:1"]; }}
    task_timeout = 8s;
    check_all_filters = false;
    enable_shutdown_workaround = true;
}}
logging {{ type = "file"; filename = "{directory}/log"; level = "error"; }}
modules {{ path = "/usr/share/rspamd/plugins"; fallback_path = "/usr/share/rspamd/lua"; }}
worker "rspamd_proxy" {{
    bind_socket = "{socket} mode=0666";
    milter = yes;
    timeout = 120s;
    count = {workers};
    upstream "local" {{ default = yes; self_scan = yes; }}
}}
actions {{ reject = 1000; add_header = 999; }}
"""
_JUDGING = """\
spf {{ spf_cache_size = 2k; spf_cache_expire = 1d; }}
dkim {{ dkim_cache_size = 2k; dkim_cache_expire = 1d; time_jitter = 6h; trusted_only = false; skip_multi = false; }}
dmarc {{ }}
milter_headers {{
    use = ["authentication-results"];
    skip_local = false;
    skip_authenticated = false;
    routines {{ authentication-results {{ add_smtp_user = false; remove = 0; }} }}
}}
"""
_SIGNING = """\
dkim_signing {{
    sign_authenticated = true;
    sign_local = true;
    use_domain = "header";
    use_esld = false;
    allow_username_mismatch = true;
    try_fallback = false;
    check_pubkey = false;
    domain {{ {domain} {{ selectors = [ {selectors} ] }} }}
}}
"""
# Its own list, or, from Debian 13 on, that of the package publicsuffix.
_SUFFIXES = (
    Path("/usr/share/rspamd/effective_tld_names.dat"),
    Path("/usr/share/publicsuffix/effective_tld_names.dat"),
)


class Rspamd(ComparedDaemon):
    """One worker a core, as mailguard has them."""

    name = "rspamd"
    package = "rspamd"
    starts_in_s = 15.0
    settings: ClassVar[str] = ""
    """Of its own, besides those of the task."""

    def command(self) -> Sequence[str]:
        return ["rspamd", "-f", "-c", str(self.directory / "rspamd.conf")]

    def files(self) -> Mapping[str, str]:
        judging = self.task is Task.JUDGE
        text = _COMMON + self.settings + (_JUDGING if judging else _SIGNING)
        keys = {
            "rsa": f'{{ path = "{self.directory}/keys/rsa.pem"; selector = "{RSA_SELECTOR}"; }}',
            "ed25519": f'{{ path = "{self.directory}/keys/ed25519.secret"; selector = "{ED25519_SELECTOR}"; }}',
        }
        return {
            "rspamd.conf": text.format(
                directory=self.directory,
                socket=self.path,
                workers=os.cpu_count() or 1,
                filters="dkim",
                suffixes=next(filter(Path.exists, _SUFFIXES), _SUFFIXES[0]),
                authserv_id=AUTHSERV_ID,
                domain=OUR_DOMAIN,
                selectors=", ".join(keys[name] for name in self.task.algorithms),
            ),
        }


class RspamdWithoutLanguages(Rspamd):
    """As nobody has it by default: it does no more than was asked for, but for taking texts apart."""

    # In the path of its socket, which rspamd reads up to the first comma.
    name = "rspamd-no-languages"
    settings = 'lang_detection {{ languages = "{directory}/no-languages"; }}\n'
