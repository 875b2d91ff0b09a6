#!/bin/sh
# The whole check of this checkout: ruff, mypy --strict and every test. What they need is installed first (setup.sh).
#
#   sh contrib/test.sh [--replace-mta] [pytest arguments]
#
# All three run, also when one fails; the exit code is 0 only if none does. As a user with sudo, the tests run as
# root, because Postfix needs it.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
if [ "${1-}" = --replace-mta ]; then
  shift
  sh "$here/setup.sh" --replace-mta test
else
  sh "$here/setup.sh" test
fi
cd "$here/.."
python=$PWD/.venv/bin/python
failed=

check() {
  name=$1
  shift
  printf '\n== %s\n' "$name"
  "$@" || failed="$failed $name"
}

run_tests() {
  # Two processes on two cores. A later -n of the caller counts.
  set -- "$python" -m pytest -n "$(nproc)" "$@"
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  else
    # Nothing that root writes stays in the checkout.
    sudo -- env PYTHONDONTWRITEBYTECODE=1 HYPOTHESIS_STORAGE_DIRECTORY=/tmp/mailguard-hypothesis "$@" -p no:cacheprovider
  fi
}

check ruff "$python" -m ruff check src milter tests contrib benchmarks
check mypy "$python" -m mypy --strict
if [ -n "$failed" ]; then printf '\nFailed so far:%s\n' "$failed"; fi
# Last, so that the output ends with pytest's summary line.
check pytest run_tests "$@"
[ -z "$failed" ]
