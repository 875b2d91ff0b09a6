"""What a reload makes the daemon tell, without the daemon: python tests/told_keys.py CONFIG.

As the daemon's user it loads what a generation loads, and writes keys.json; it ends with 1 where a daemon would keep
what it has.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mailguard.config import load
from mailguard.errors import MailguardError
from mailguard.rotation.loaded import KEYS_NAME
from mailguard_milter.identity import Identity
from mailguard_milter.loaded_keys import loaded_keys
from mailguard_milter.service import Service


def tell(config_file: str) -> None:
    """Raises MailguardError."""
    config = load(config_file)
    Identity.to_become(config.user).become()
    told = Path(config.runtime_directory, KEYS_NAME)
    fresh = told.with_suffix(".new")
    fresh.write_text(loaded_keys(Service.open(config)).text())
    fresh.replace(told)


if __name__ == "__main__":
    try:
        tell(sys.argv[1])
    except MailguardError as error:
        sys.exit(str(error))
