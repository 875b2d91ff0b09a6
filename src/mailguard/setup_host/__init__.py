"""Setting up a mail host for mailguard: what Postfix must be told, and its files changed so that it can be undone."""
