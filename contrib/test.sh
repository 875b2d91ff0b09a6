#!/bin/sh
# The whole check of this checkout: ruff, mypy --strict and every test. What they need is installed first (setup.sh).
#
#   sh contrib/test.sh [--replace-mta] [pytest arguments]
#
# All three run, also when one fails; the exit code is 0 only if none does. The tests run as root, with sudo where
# that is needed: Postfix changes its user, and so does the daemon.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
root=$(dirname -- "$here")
failed=

check() {
  name=$1
  shift
  printf '\n== %s\n' "$name"
  "$@" || failed="$failed $name"
}

tests() {
  if [ "$(id -u)" -eq 0 ]; then
    sh "$here/test.sh" --tests-as-root "$@"
  else
    # Nothing that root writes stays in the checkout.
    sudo -- env PYTHONDONTWRITEBYTECODE=1 HYPOTHESIS_STORAGE_DIRECTORY=/tmp/mailguard-hypothesis \
      ${MAILGUARD_VECTORS:+MAILGUARD_VECTORS="$MAILGUARD_VECTORS"} \
      sh "$here/test.sh" --tests-as-root -p no:cacheprovider "$@"
  fi
}

# In a checkout that the user of the daemon cannot read (one below /root, say), the tests run in a copy of it.
tests_as_root() {
  directory=$root
  if ! setpriv --reuid=nobody --regid=nogroup --clear-groups \
    "$root/.venv/bin/python" -P -c 'import mailguard_milter.worker' >/dev/null 2>&1; then
    echo "(in a copy of the checkout: the user nobody, as whom daemons run here, cannot read $root)"
    directory=$(mktemp -d /tmp/mailguard-checkout.XXXXXX)
    trap 'rm -rf -- "$directory"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    cp -RP -- "$root/." "$directory/"
    chmod -R go+rX,go-w -- "$directory"
    PIP_USER=0 "$directory/.venv/bin/python" -m pip --disable-pip-version-check install --quiet \
      --root-user-action=ignore --no-deps --no-build-isolation --editable "$directory"
    export MAILGUARD_VECTORS="${MAILGUARD_VECTORS:-$root/../shared/vectors}"
  fi
  cd -- "$directory"
  # What measures CPU time runs by itself, before the rest; 5 means that no such test was asked for. Where nothing is
  # asked for, it is looked for in its own files: to collect all takes longer.
  alone=0
  if [ "$#" -eq 0 ]; then
    grep -l "mark\.alone$" tests/test_*.py | xargs .venv/bin/python -m pytest -m alone || alone=$?
  else
    .venv/bin/python -m pytest -m alone "$@" || alone=$?
  fi
  if [ "$alone" -eq 5 ]; then alone=0; fi
  # Most tests wait for daemons: five processes for two cores. Each takes whole files, which start their daemons once,
  # by name: those with the fewest tests, which are the longest, would come last otherwise, and one would wait for them.
  # A later -n of the caller counts.
  .venv/bin/python -m pytest -n "$((5 * $(nproc) / 2))" --dist loadfile --no-loadscope-reorder -m "not alone" "$@" ||
    alone=$?
  return "$alone"
}

if [ "${1-}" = --tests-as-root ]; then
  shift
  tests_as_root "$@"
  exit
fi
if [ "${1-}" = --replace-mta ]; then
  shift
  sh "$here/setup.sh" --replace-mta test
else
  sh "$here/setup.sh" test
fi
cd -- "$root"
check ruff .venv/bin/python -m ruff check .
check format .venv/bin/python -m ruff format --check .
check mypy .venv/bin/python -m mypy --strict
if [ -n "$failed" ]; then printf '\nFailed so far:%s\n' "$failed"; fi
# Last, so that the output ends with pytest's summary line.
check pytest tests "$@"
[ -z "$failed" ]
