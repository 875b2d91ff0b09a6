"""Keys that take turns: the stages of their life, what moves them on, and what the daemon says it signs with."""
