#!/bin/sh
# The real parts that integration tests run against. As root on Debian or Ubuntu they are installed; elsewhere it is said what is
# missing, and the tests that need it are counted as skipped.
set -eu
packages='python3-keystone python3-glance python3-pip qemu-utils xz-utils zstd bzip2 nginx-light genisoimage e2fsprogs util-linux openssl gnupg minisign xmlsec1 curl prometheus lua5.1 shellcheck'
# A node that runs pods, and the images for it. They need root anyway.
node_packages='containerd runc containernetworking-plugins iproute2 nftables conntrack buildah mmdebstrap debian-archive-keyring busybox-static'
say() { printf 'setup-tests: %s\n' "$*"; }

if ! command -v dpkg-query >/dev/null 2>&1; then
  say "not a Debian system: tests whose programs are missing will be skipped (Debian calls them: $packages)"
  exit 0
fi
missing=
[ "$(id -u)" -ne 0 ] || packages="$packages $node_packages"
for package in $packages; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
  say "missing, so the tests that need them will be skipped:$missing (as root: apt-get install --no-install-recommends$missing)"
  exit 0
fi

say "installing$missing"
# Packages with daemons start them at once; a test machine wants the programs only, and nobody wants an nginx on port 80.
policy=/usr/sbin/policy-rc.d
log=$(mktemp)
made_policy=
cleanup() {
  [ -z "$made_policy" ] || rm -f "$policy"
  rm -f "$log"
}
trap cleanup EXIT
trap 'exit 1' HUP INT TERM
if [ ! -e "$policy" ]; then
  made_policy=yes
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi
install() {
  # shellcheck disable=SC2086
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
}
if ! { install || { apt-get update -qq && install; }; } >"$log" 2>&1 </dev/null; then
  tail -n 20 "$log"
  say 'apt-get failed (see above); the tests that need these packages will be skipped'
fi
