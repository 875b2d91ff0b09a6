#!/bin/sh
# Gives Postfix a renewed certificate, unless senders that know DANE would then keep their mail.
#
#   certbot renew --deploy-hook /usr/local/sbin/mailguard-rollover.sh      (or copy it to renewal-hooks/deploy/)
#   mailguard-rollover.sh /etc/letsencrypt/live/mx.example.com             by hand, once the new records have settled
#
# Postfix reads one file, $CHAIN below, never certbot's own: smtpd_tls_chain_files = /etc/postfix/tls/chain.pem
# Where the TLSA records do not match the new certificate, that file stays as it is, the records to publish are
# printed, and the script ends with 1. Ends with what `mailguard dane rollover` ends with; 0 when it is deployed.
set -eu

# What can be set in the environment, or here.
HOST=${MAILGUARD_HOST:-$(postconf -hx myhostname)}
CHAIN=${MAILGUARD_CHAIN:-/etc/postfix/tls/chain.pem}
MAILGUARD=${MAILGUARD:-/opt/mailguard/bin/mailguard}
RELOAD=${MAILGUARD_RELOAD:-postfix reload}

lineage=${1:-${RENEWED_LINEAGE:-}}
if [ -z "$lineage" ]; then
  echo "mailguard-rollover: usage: mailguard-rollover.sh /etc/letsencrypt/live/NAME" >&2
  exit 64
fi
# certbot tells the names of what was renewed: a certificate for something else is none of ours. *.example.com is for
# mx.example.com, too.
case " ${RENEWED_DOMAINS:-$HOST} " in
  *" $HOST "* | *" *.${HOST#*.} "*) ;;
  *) exit 0 ;;
esac

code=0
"$MAILGUARD" dane rollover "$lineage/fullchain.pem" --host "$HOST" >&2 || code=$?
if [ "$code" -ne 0 ]; then
  echo "mailguard-rollover: $HOST keeps its certificate; afterwards run: $0 $lineage" >&2
  exit "$code"
fi

umask 077
mkdir -p -- "$(dirname -- "$CHAIN")"
fresh=$(mktemp "$CHAIN.XXXXXX")
trap 'rm -f -- "$fresh"' EXIT
cat -- "$lineage/privkey.pem" "$lineage/fullchain.pem" >"$fresh"
sync -- "$fresh"
mv -f -- "$fresh" "$CHAIN"
$RELOAD
