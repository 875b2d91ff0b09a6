#!/bin/sh
# Shows mailguard at work: a message is signed when it is submitted, relayed, verified and delivered, by a private
# Postfix on loopback. What that needs is installed first (setup.sh says what), on Debian 12 or 13 as root or with
# sudo.
#
#   sh contrib/demo.sh [--replace-mta] [--keep]
#
#   --replace-mta   permit that Postfix replaces the mail server that is installed
#   --keep          leave the directories with the configuration, the mail and the logs
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
keep=
replace=
for option in "$@"; do
  case "$option" in
    --keep) keep=--keep ;;
    --replace-mta) replace=--replace-mta ;;
    *)
      echo "usage: sh contrib/demo.sh [--replace-mta] [--keep]" >&2
      exit 64
      ;;
  esac
done
sh "$here/setup.sh" ${replace:+"$replace"} demo
set -- "$here/../.venv/bin/python" "$here/demo.py" ${keep:+"$keep"}
if [ "$(id -u)" -eq 0 ]; then exec "$@"; fi
# Nothing that root writes stays in the checkout.
exec sudo -- env PYTHONDONTWRITEBYTECODE=1 "$@"
