#!/bin/sh
# The whole check of this checkout (test.sh) on another release of Debian, with its Postfix, libmilter and Python.
#
#   sh contrib/test-release.sh RELEASE [pytest arguments]        RELEASE: trixie, say
#
# As root. The release is installed by debootstrap into a directory below /var/tmp, where the checkout is copied to, and
# goes with it: 2 GB, and a few minutes besides the tests. Its processes see none of this machine's, and nothing
# of this machine is changed; they share its kernel and its network.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
root=$(dirname -- "$here")

die() {
  printf 'mailguard test-release: %s\n' "$*" >&2
  exit 1
}

# Mounts, which end with the name space that they are made in. The tree is mounted on itself, as what has a name space
# of its own in there (some tests) wants a root that is a mount point.
inside() {
  tree=$1
  vectors=$2
  shift 2
  mount --rbind "$tree" "$tree"
  mount -t proc proc "$tree/proc"
  for name in sys dev; do
    mount --rbind "/$name" "$tree/$name"
    mount --make-rslave "$tree/$name"
  done
  mount -t tmpfs -o mode=1777 tmpfs "$tree/tmp"
  mount -t tmpfs -o mode=0755 tmpfs "$tree/run"
  if [ -d "$vectors" ]; then
    mkdir -p "$tree/srv/vectors"
    mount --bind -o ro "$vectors" "$tree/srv/vectors"
    # What the tests look for beside them.
    if [ -f "$vectors/../ATTACKS.md" ]; then cp "$vectors/../ATTACKS.md" "$tree/srv/"; fi
  fi
  exec chroot "$tree" /usr/bin/env -i HOME=/root LC_ALL=C.UTF-8 MAILGUARD_VECTORS=/srv/vectors \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PIP_CERT=/etc/machine-ca.crt \
    ${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} \
    sh /srv/mailguard/contrib/test.sh "$@"
}

if [ "${1-}" = --inside ]; then
  shift
  inside "$@"
fi

case "${1-}" in
  '' | -*) die "which release? For example: sh contrib/test-release.sh trixie" ;;
esac
release=$1
shift
[ "$(id -u)" -eq 0 ] || die "a system within the system needs root; run this as root"
command -v debootstrap >/dev/null || die "debootstrap installs the release, and is not there: apt install debootstrap"
[ -e "/usr/share/debootstrap/scripts/$release" ] ||
  die "this debootstrap knows no release \"$release\" (see /usr/share/debootstrap/scripts)"

place=$(mktemp -d /var/tmp/mailguard-release.XXXXXX)
trap 'rm -rf --one-file-system -- "$place"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
# The daemon's user must be able to pass.
chmod 0755 "$place"
tree=$place/tree
printf 'installing Debian %s (some minutes)\n' "$release"
debootstrap --variant=minbase --include=ca-certificates "$release" "$tree" >"$place/log" 2>&1 || {
  tail -n 5 "$place/log" >&2
  die "the release could not be installed (the last lines are above); is the network there?"
}
cp -L /etc/resolv.conf "$tree/etc/resolv.conf"
# Whom this machine trusts: a proxy may have a certificate of its own.
cp -L /etc/ssl/certs/ca-certificates.crt "$tree/etc/machine-ca.crt"
mkdir "$tree/srv/mailguard"
tar -C "$root" --exclude=./.venv -cf - . | tar -C "$tree/srv/mailguard" --no-same-owner -xf -
code=0
unshare --mount --pid --fork --kill-child --propagation private \
  sh "$here/test-release.sh" --inside "$tree" "${MAILGUARD_VECTORS:-$root/../shared/vectors}" "$@" || code=$?
exit "$code"
