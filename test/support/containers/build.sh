#!/bin/sh
# Builds container images on a machine without Docker and without a registry, as root, and leaves nothing but the archives.
#
#   build.sh base SUITE TAR                        a file system of that Debian, as slim as the one that registries have
#   build.sh product CONTEXT FROM BASE NAME TAR    from CONTEXT's own Dockerfile; FROM is what it calls the file system in BASE
#   build.sh pause NAME TAR                        what keeps a pod's namespaces: one static program that sleeps
set -eu
umask 022

# Mounts of the build end with this process.
if [ "${IN_NAMESPACE:-}" != yes ]; then
  IN_NAMESPACE=yes exec unshare --mount --propagation private --fork --kill-child -- sh "$0" "$@"
fi

work=$(mktemp -d)
trap 'umount "$work/probe/merged" 2>/dev/null || true; rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# A store of our own. Overlays do not lie on overlays (as in most containers): there, layers are copied.
open_store() {
  mkdir -p "$work/probe/lower" "$work/probe/upper" "$work/probe/work" "$work/probe/merged"
  driver=vfs
  if mount -t overlay overlay "$work/probe/merged" \
    -o "lowerdir=$work/probe/lower,upperdir=$work/probe/upper,workdir=$work/probe/work" 2>/dev/null; then
    driver=overlay
    umount "$work/probe/merged"
  fi
  printf '[storage]\ndriver = "%s"\ngraphroot = "%s/store"\nrunroot = "%s/run"\n' "$driver" "$work" "$work" >"$work/storage.conf"
  export CONTAINERS_STORAGE_CONF="$work/storage.conf" BUILDAH_ISOLATION=chroot TMPDIR="$work"
}

# Whole, or not at all. Docker's form, for containerd takes the name of the image from it.
save() {
  buildah push --quiet "$1" "docker-archive:$work/image.tar:$1"
  mv "$work/image.tar" "$2"
}

case ${1:-} in
  base)
    mmdebstrap --quiet --variant=minbase --hook-dir=/usr/share/mmdebstrap/hooks/maybe-merged-usr \
      --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
      --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
      "$2" "$work/base.tar"
    mv "$work/base.tar" "$3"
    ;;
  product)
    open_store
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$4" / >/dev/null
    buildah commit --quiet --rm "$container" "docker.io/library/$3" >/dev/null
    # What this machine says of authorities and mirrors holds in the build too, and stays out of the image.
    mkdir "$work/authorities"
    cp /usr/local/share/ca-certificates/*.crt "$work/authorities/" 2>/dev/null || true
    { cat "${HOME:-/root}/.npmrc" 2>/dev/null || true; printf '\ncafile=/etc/ssl/certs/ca-certificates.crt\n'; } >"$work/npmrc"
    files=$(prlimit --nofile --noheadings --output=HARD --pid $$)
    buildah bud --pull-never --ulimit "nofile=$files:$files" --tag "$5" \
      --volume "$work/authorities:/usr/local/share/ca-certificates" --volume "$work/npmrc:/root/.npmrc:ro" "$2"
    save "$5" "$6"
    ;;
  pause)
    open_store
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$(command -v busybox)" /pause/busybox >/dev/null
    buildah config --entrypoint '["/pause/busybox", "sleep", "infinity"]' --user 65535:65535 "$container"
    buildah commit --quiet --rm "$container" "$2" >/dev/null
    save "$2" "$3"
    ;;
  *)
    sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
    exit 64
    ;;
esac
