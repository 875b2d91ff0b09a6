"""mailguard: may this message claim the identity that it claims, and why."""
