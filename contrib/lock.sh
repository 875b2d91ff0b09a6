#!/bin/sh
# Makes the two lock files of the development environment anew: every package with its version and its hashes,
# and no address of an index. Run it after a change of the dependencies in pyproject.toml.
#
#   build-requirements.lock   what builds the packages that come as source (pymilter, mailguard itself)
#   requirements.lock         everything else
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
cd "$here/.."
scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT

"${PYTHON:-/usr/bin/python3}" -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip --disable-pip-version-check install --quiet pip-tools

compile() {
  "$scratch/venv/bin/python" -m piptools compile --quiet --strip-extras --generate-hashes --allow-unsafe \
    --annotation-style line --no-header --no-emit-index-url --no-emit-find-links --no-emit-options \
    --no-emit-trusted-host --output-file "$@"
}

# hatchling and editables build mailguard's editable wheel, setuptools builds pymilter's.
printf '%s\n' hatchling editables setuptools >"$scratch/build.in"
compile "$scratch/build.lock" "$scratch/build.in"
compile "$scratch/all.lock" --extra dev pyproject.toml

# The extras refer to the project itself, which is installed from the checkout.
sed -e '/^# WARNING: pip install will require/d' -e '/^# Consider using a hashable URL/d' \
  -e '/^mailguard-milter @ file:/d' "$scratch/all.lock" >"$scratch/requirements.lock"
sed -e 's| *# via -r .*||' "$scratch/build.lock" >"$scratch/build-requirements.lock"
if grep -n '://' "$scratch/requirements.lock" "$scratch/build-requirements.lock"; then
  echo "lock.sh: an address got into a lock file; nothing was written" >&2
  exit 1
fi
cp -- "$scratch/requirements.lock" "$scratch/build-requirements.lock" "$here/"
