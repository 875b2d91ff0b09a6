#!/bin/sh
# Compares mailguard with opendkim, opendmarc, pyspf-milter, dkimpy-milter and rspamd, as Debian ships them, set-up included.
#
#   sh benchmarks/run.sh [--replace-mta] [--quick | --goals] [--out DIRECTORY] [--only SECTION,...] [--rounds N]
#                        [--seconds S]
#
# For Debian 12 or 13, as root. It says what it installs before it does, and starts none of the packages' services.
# Everything runs in a network of its own, in which 192.0.2.10 is this machine, and with a private /etc/resolv.conf laid
# over the system's; nothing of the system is changed, and no query leaves the machine. The results go to
# benchmarks/results.
set -eu

PACKAGES="opendkim opendmarc pyspf-milter dkimpy-milter rspamd unbound postfix libmilter-dev gcc libc6-dev iproute2"
CLIENT=192.0.2.10

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
root=$(dirname -- "$here")

die() {
  printf 'benchmarks: %s\n' "$*" >&2
  exit 1
}

# What compare.py takes, before anything is installed for it.
check_options() {
  while [ "$#" -gt 0 ]; do
    case "$1" in
      -h | --help)
        sed -n '2,/^set -eu/s/^# \{0,1\}//p' "$here/run.sh"
        exit 0
        ;;
      --quick | --goals) ;;
      --out=* | --only=* | --rounds=* | --seconds=*) ;;
      --out | --only | --rounds | --seconds)
        [ "$#" -gt 1 ] || die "$1 needs a value; see: sh benchmarks/run.sh --help"
        shift
        ;;
      --replace-mta) die "--replace-mta comes first" ;;
      *) die "there is no option $1; see: sh benchmarks/run.sh --help" ;;
    esac
    shift
  done
}

is_installed() {
  dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed
}

inside() {
  ip link set lo up
  ip address add "$CLIENT/32" dev lo
  mount --bind "$TMPDIR/resolv.conf" /etc/resolv.conf
  MAILGUARD_BENCHMARK_NETWORK=1
  PYTHONPATH=$here:$root/contrib:$root/src:$root/milter
  export MAILGUARD_BENCHMARK_NETWORK PYTHONPATH
  exec "$root/.venv/bin/python" "$here/compare.py" "$@"
}

if [ "${1-}" = --inside ]; then
  shift
  inside "$@"
fi

replace=
if [ "${1-}" = --replace-mta ]; then
  replace=--replace-mta
  shift
fi
check_options "$@"
[ "$(id -u)" -eq 0 ] || die "Postfix and a network of its own need root; run this as root"
command -v apt-get >/dev/null || die "this is not Debian (no apt-get). Debian's names of what is needed: $PACKAGES"
MAILGUARD_BENCHMARK_LOAD=$(cut -d' ' -f1 /proc/loadavg)
export MAILGUARD_BENCHMARK_LOAD
# What the tests need holds for this too: Postfix, a compiler, the virtual environment.
# shellcheck disable=SC2086 # one word or none
sh "$root/contrib/setup.sh" $replace test
missing=
for package in $PACKAGES; do
  is_installed "$package" || missing="$missing $package"
done
if [ -n "$missing" ]; then
  printf 'To be installed with apt-get, and what they depend on; no daemon is started:\n %s\n' "$missing"
  # shellcheck disable=SC2086 # a list of names
  sh "$root/contrib/setup.sh" --packages-as-root keep $missing
fi

unshare --net --mount true 2>/dev/null ||
  die "this system lets root make no network of its own (in a container, run it privileged)"
# Not below /tmp: opendkim refuses a configuration in a directory that others can write to.
TMPDIR=$(mktemp -d /var/lib/mailguard-benchmark.XXXXXX)
chmod 0755 "$TMPDIR"
trap 'rm -rf -- "$TMPDIR"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
export TMPDIR
printf 'nameserver 127.0.0.1\n' >"$TMPDIR/resolv.conf"
code=0
unshare --net --mount sh "$here/run.sh" --inside "$@" || code=$?
exit "$code"
