"""The numbers of the milter protocol: commands, replies, flags of actions and steps, stages, versions.

The names are those of libmilter's mfdef.h and mfapi.h (Sendmail 8.17), so that they are found in other texts.
Flags are plain integers: those of an enumeration take microseconds to combine, for each connection. No state.
"""

from __future__ import annotations

from typing import Final

# Version 1 has no list of what the MTA can do, and no MTA of this century speaks it.
MIN_VERSION: Final = 2
MAX_VERSION: Final = 6

# What an MTA says (SMFIC_*).
SMFIC_ABORT: Final = 0x41
SMFIC_BODY: Final = 0x42
SMFIC_CONNECT: Final = 0x43
SMFIC_MACRO: Final = 0x44
SMFIC_BODYEOB: Final = 0x45
SMFIC_HELO: Final = 0x48
SMFIC_QUIT_NC: Final = 0x4B
SMFIC_HEADER: Final = 0x4C
SMFIC_MAIL: Final = 0x4D
SMFIC_EOH: Final = 0x4E
SMFIC_OPTNEG: Final = 0x4F
SMFIC_QUIT: Final = 0x51
SMFIC_RCPT: Final = 0x52
SMFIC_DATA: Final = 0x54
SMFIC_UNKNOWN: Final = 0x55

# What a filter says (SMFIR_*).
SMFIR_ADDRCPT: Final = 0x2B
SMFIR_DELRCPT: Final = 0x2D
SMFIR_ADDRCPT_PAR: Final = 0x32
SMFIR_ACCEPT: Final = 0x61
SMFIR_REPLBODY: Final = 0x62
SMFIR_CONTINUE: Final = 0x63
SMFIR_DISCARD: Final = 0x64
SMFIR_CHGFROM: Final = 0x65
SMFIR_ADDHEADER: Final = 0x68
SMFIR_INSHEADER: Final = 0x69
SMFIR_CHGHEADER: Final = 0x6D
SMFIR_PROGRESS: Final = 0x70
SMFIR_QUARANTINE: Final = 0x71
SMFIR_REJECT: Final = 0x72
SMFIR_SKIP: Final = 0x73
SMFIR_TEMPFAIL: Final = 0x74
SMFIR_REPLYCODE: Final = 0x79

# What kind of address a client has (SMFIA_*).
SMFIA_UNKNOWN: Final = b"U"
SMFIA_UNIX: Final = b"L"
SMFIA_INET: Final = b"4"
SMFIA_INET6: Final = b"6"

# What the filter may do to a message (SMFIF_*): offered by the MTA, of which the filter takes a part.
SMFIF_ADDHDRS: Final = 0x0001
SMFIF_CHGBODY: Final = 0x0002
SMFIF_ADDRCPT: Final = 0x0004
SMFIF_DELRCPT: Final = 0x0008
SMFIF_CHGHDRS: Final = 0x0010
SMFIF_QUARANTINE: Final = 0x0020
SMFIF_CHGFROM: Final = 0x0040
SMFIF_ADDRCPT_PAR: Final = 0x0080
SMFIF_SETSYMLIST: Final = 0x0100
"""The filter may say which macros it wants: `symbols` of `negotiate`."""

# Which events are sent and answered (SMFIP_*): the filter asks for a part of what the MTA offers.
SMFIP_NOCONNECT: Final = 0x0000_0001
SMFIP_NOHELO: Final = 0x0000_0002
SMFIP_NOMAIL: Final = 0x0000_0004
SMFIP_NORCPT: Final = 0x0000_0008
SMFIP_NOBODY: Final = 0x0000_0010
SMFIP_NOHDRS: Final = 0x0000_0020
SMFIP_NOEOH: Final = 0x0000_0040
SMFIP_NR_HDR: Final = 0x0000_0080
SMFIP_NOUNKNOWN: Final = 0x0000_0100
SMFIP_NODATA: Final = 0x0000_0200
SMFIP_SKIP: Final = 0x0000_0400
SMFIP_RCPT_REJ: Final = 0x0000_0800
SMFIP_NR_CONN: Final = 0x0000_1000
SMFIP_NR_HELO: Final = 0x0000_2000
SMFIP_NR_MAIL: Final = 0x0000_4000
SMFIP_NR_RCPT: Final = 0x0000_8000
SMFIP_NR_DATA: Final = 0x0001_0000
SMFIP_NR_UNKN: Final = 0x0002_0000
SMFIP_NR_EOH: Final = 0x0004_0000
SMFIP_NR_BODY: Final = 0x0008_0000
SMFIP_HDR_LEADSPC: Final = 0x0010_0000
"""A header value has the space after the colon, in both directions."""

# The stages that have a list of macros of their own (SMFIM_*).
SMFIM_CONNECT: Final = 0
SMFIM_HELO: Final = 1
SMFIM_ENVFROM: Final = 2
SMFIM_ENVRCPT: Final = 3
SMFIM_DATA: Final = 4
SMFIM_EOM: Final = 5
SMFIM_EOH: Final = 6
