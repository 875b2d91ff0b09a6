"""`python -m mailguard`: the command line."""

from __future__ import annotations

from mailguard.cli import main

if __name__ == "__main__":
    main()
