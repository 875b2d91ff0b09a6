#!/bin/sh
# Set-up for demo.sh and test.sh: Debian packages and the virtual environment .venv of this checkout.
#
#   sh contrib/setup.sh [--replace-mta] demo|test
#
# Says what it will install before it does. Can be run again at any time: what is there already is left alone, and
# then nothing is fetched. The packages do not start their daemons. Another mail server is replaced only with
# --replace-mta. Needs root, or sudo, for the packages; .venv is made as the user who calls.
set -eu

# What a private Postfix and the milter need: pymilter comes as source (gcc, headers); saslpasswd2 is in sasl2-bin.
DEMO_PACKAGES="postfix libsasl2-modules sasl2-bin libmilter-dev gcc libc6-dev python3 python3-dev python3-venv
  ca-certificates"
# The peers that the tests compare with, DNS servers, systemd-analyze for the unit, databases (MariaDB without its
# service) with Postfix's clients for them, Dovecot for logins, what docs/enforcing-senders.md calls, the shells that
# complete the command, what shows manual pages, and ip(8), with which some have a network of their own.
TEST_PACKAGES="$DEMO_PACKAGES opendkim opendkim-tools miltertest unbound nsd bind9 bind9-dnsutils systemd dovecot-core
  postgresql pgbouncer mariadb-server-core mariadb-client-core postfix-mysql postfix-pgsql postfix-sqlite
  postfix-lmdb swaks sqlite3 zsh fish man-db groff-base mandoc iproute2"

POLICY=/usr/sbin/policy-rc.d
POLICY_SAVED=/usr/sbin/policy-rc.d.before-mailguard-setup
POLICY_MARK="# Made by mailguard's contrib/setup.sh while it installs packages; it removes it again."
LOCK_PATIENCE_S=600

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
root=$(dirname -- "$here")

say() { printf '%s\n' "$*"; }
die() {
  printf 'mailguard set-up: %s\n' "$*" >&2
  exit 1
}

# ---- packages: this part runs as root, called from the other one as `setup.sh --packages-as-root NAME...`

restore_policy() {
  # Ours goes, also one that an earlier run left when it was killed.
  if [ -f "$POLICY" ] && grep -qxF "$POLICY_MARK" "$POLICY"; then rm -f "$POLICY"; fi
  if [ -e "$POLICY_SAVED" ] || [ -L "$POLICY_SAVED" ]; then mv -f "$POLICY_SAVED" "$POLICY"; fi
}

keep_daemons_from_starting() {
  restore_policy
  if [ -e "$POLICY" ] || [ -L "$POLICY" ]; then
    code=0
    "$POLICY" postfix start >/dev/null 2>&1 </dev/null || code=$?
    # invoke-rc.d(8): 101 is "action forbidden". A policy that forbids already is used as it is.
    if [ "$code" -eq 101 ]; then return; fi
    say "  $POLICY permits daemons to start: it is set aside until the packages are installed"
    mv "$POLICY" "$POLICY_SAVED"
  fi
  printf '#!/bin/sh\n%s\nexit 101\n' "$POLICY_MARK" >"$POLICY"
  chmod 0755 "$POLICY"
}

# apt-get with its output in $log; waits while another process holds a lock of the package manager.
apt_get() {
  waited=0
  until apt-get -q -y -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confold "$@" >"$log" 2>&1 </dev/null; do
    grep -qE 'Could not get lock|Unable to (acquire|lock)' "$log" || return 1
    if [ "$waited" -ge "$LOCK_PATIENCE_S" ]; then return 1; fi
    if [ "$((waited % 60))" -eq 0 ]; then
      say "  waiting: another process uses the package manager ($(sed -n 's/.*\(held by process [^.]*\).*/\1/p;T;q' "$log"))"
    fi
    waited=$((waited + 5))
    sleep 5
  done
}

give_up() {
  tail -n 25 "$log" >&2
  die "$1"
}

install_packages() {
  mode=$1
  shift
  log=$(mktemp)
  trap 'restore_policy; rm -f "$log"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true LC_ALL=C.UTF-8
  keep_daemons_from_starting
  for package in "$@"; do
    if [ "$package" = postfix ]; then
      say "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections
    fi
  done
  wanted="$*"
  set -- install --no-install-recommends "$@"
  # Without leave, nothing that is installed goes.
  if [ "$mode" = keep ]; then set -- --no-remove "$@"; fi
  updated=no
  if ! apt-get -s -qq "$@" >/dev/null 2>&1; then
    update_lists
    updated=yes
  fi
  say "  installing"
  if ! apt_get "$@"; then
    # A list that is out of date names files that are gone.
    if [ "$updated" = yes ]; then give_up "apt-get could not install the packages (its last lines are above)"; fi
    update_lists
    apt_get "$@" || give_up "apt-get could not install the packages (its last lines are above)"
  fi
  leave_off
}

# What was installed for the tests alone does not start with the machine either: three DNS servers want one port.
leave_off() {
  command -v systemctl >/dev/null || return 0
  for package in $wanted; do
    case "$package" in
      bind9) unit=named.service ;;
      dovecot-core) unit=dovecot.service ;;
      nsd | unbound) unit=$package.service ;;
      *) continue ;;
    esac
    systemctl disable "$unit" >/dev/null 2>&1 || say "  (could not disable $unit: it may start with the machine)"
  done
}

update_lists() {
  say "  fetching the package lists (apt-get update)"
  apt_get update || give_up "apt-get update failed (its last lines are above); is the network there?"
}

# ---- what is missing

is_installed() {
  # One line for each architecture.
  dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed
}

missing_packages() {
  for package in "$@"; do
    if ! is_installed "$package"; then printf '%s ' "$package"; fi
  done
}

other_mta() {
  # shellcheck disable=SC2016 # dpkg-query's variables, not the shell's
  dpkg-query -W -f '${Package} ${db:Status-Status} ${Provides}\n' |
    awk '$1 != "postfix" && $2 != "not-installed" && $2 != "config-files" && / mail-transport-agent([ ,]|$)/ {print $1}'
}

# ---- the virtual environment

choose_python() {
  for candidate in /usr/bin/python3 python3 python3.15 python3.14 python3.13 python3.12 python3.11; do
    path=$(command -v "$candidate") || continue
    if "$path" - <<'PYTHON' >/dev/null 2>&1; then
import ensurepip, os, sys, sysconfig, venv
ok = sys.version_info >= (3, 11) and os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h"))
sys.exit(not ok)
PYTHON
      printf '%s' "$path"
      return
    fi
  done
  return 1
}

environment_is_up_to_date() {
  python=$(choose_python) || return 1
  [ "$(cat -- "$root/.venv/.mailguard-setup" 2>/dev/null)" = "$(environment_stamp)" ] &&
    "$root/.venv/bin/python" -c 'import mailguard' 2>/dev/null
}

environment_stamp() {
  # Where the checkout is belongs to it: scripts in .venv name their interpreter by its whole path.
  "$python" -c 'import sys; print(sys.version)'
  printf '%s\n' "$root"
  cd "$root" && sha256sum contrib/build-requirements.lock contrib/requirements.lock pyproject.toml
}

make_environment() {
  python=$(choose_python) || die "no Python of at least 3.11 with venv and its C headers was found"
  rm -rf -- "$root/.venv" || die "$root/.venv cannot be removed; remove it yourself: sudo rm -rf '$root/.venv'"
  mkdir -- "$root/.venv" || die "$root cannot be written to"
  "$python" -m venv "$root/.venv"
  pip() {
    # PIP_USER would be refused in an environment.
    PIP_USER=0 "$root/.venv/bin/python" -m pip --disable-pip-version-check --no-input "$@"
  }
  install() { pip install --quiet --root-user-action=ignore --no-build-isolation "$@"; }
  {
    # First what builds the others: a build of its own would fetch what no hash vouches for.
    install --require-hashes --no-deps -r "$here/build-requirements.lock" &&
      install --require-hashes --no-deps --use-pep517 -r "$here/requirements.lock" &&
      install --no-deps --editable "$root" &&
      { pip check >/dev/null || pip check >&2; }
  } || die "the virtual environment could not be made (pip's message is above); run the same command again"
  environment_stamp >"$root/.venv/.mailguard-setup"
  # Root in somebody's checkout: it stays theirs.
  if [ "$(id -u)" -eq 0 ]; then chown -R -h --reference="$root" -- "$root/.venv"; fi
}

# ---- the start

replace=no
if [ "${1-}" = --packages-as-root ]; then
  shift
  install_packages "$@"
  exit
fi
if [ "${1-}" = --replace-mta ]; then
  replace=yes
  shift
fi
case "${1-}" in
  demo) packages=$DEMO_PACKAGES ;;
  test) packages=$TEST_PACKAGES ;;
  *) die "usage: sh contrib/setup.sh [--replace-mta] demo|test" ;;
esac

as_root=
if [ "$(id -u)" -ne 0 ]; then
  as_root=sudo
  command -v sudo >/dev/null ||
    die "Postfix needs root, and there is no sudo here; run the same command as root"
fi
if ! command -v apt-get >/dev/null; then
  die "this is not Debian (no apt-get). Debian's names of what is needed: $packages"
fi

# shellcheck disable=SC2086 # a list of names
missing=$(missing_packages $packages)
mode=keep
case " $missing" in
  *" postfix "*)
    mta=$(other_mta)
    if [ -n "$mta" ]; then
      if [ "$replace" = no ]; then
        die "this machine has another mail server ($mta), which postfix would replace. Nothing was changed." \
          "To replace it, add --replace-mta to the command."
      fi
      mode=replace
      say "To be removed, as --replace-mta says: $mta"
    fi
    ;;
esac
if [ -n "$missing" ]; then
  say "To be installed with apt-get, and what they depend on; no daemon is started:"
  say "  $missing"
fi
# One at a time: demo and tests may be started together.
exec 9<"$root"
flock 9
if [ -n "$missing" ] || ! environment_is_up_to_date; then
  say "To be installed into $root/.venv, if it is not up to date:"
  say "  the Python packages of contrib/requirements.lock, each checked by its hash"
fi
if [ -n "$missing" ]; then
  # shellcheck disable=SC2086 # a list of names
  $as_root sh "$here/setup.sh" --packages-as-root "$mode" $missing
  # shellcheck disable=SC2086 # a list of names
  missing=$(missing_packages $missing)
  if [ -n "$missing" ]; then die "still not installed: $missing"; fi
fi
if ! environment_is_up_to_date; then
  say "  making .venv (about a minute)"
  make_environment
fi
