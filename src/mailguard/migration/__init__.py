"""From OpenDKIM, OpenDMARC, policyd-spf and dkimpy-milter: their configuration as one of mailguard's.

Each program has a reader (text to values and notes), and one writer makes TOML of what they found. Readers and writer
are pure; they are handed what reads files. Left out: databases, LDAP and scripts that their configuration may name,
and everything that Postfix's configuration says.
"""
