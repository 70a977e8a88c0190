#!/bin/sh
# Build the Dockerfile with buildah, which needs no image registry, and use what came of it as people do: as its own
# user, as process 1, on a read-only file system. ./test.sh runs it where buildah is there.
set -eu
cd -- "$(dirname -- "$0")/.."

skip() { echo "tests/container.sh is left out: $1"; exit 0; }
fail() { echo "tests/container.sh: $1" >&2; cat "$work/log" >&2; exit 1; }
say() { echo "container: $1"; }
buildah() { command buildah --storage-driver vfs "$@"; }

PATH=$PATH:/usr/sbin:/sbin
[ "$(id -u)" = 0 ] || skip "only root can make what stands in for the image of Python"
for program in buildah debootstrap unshare nsenter; do
    command -v "$program" >/dev/null || skip "$program is not installed"
done
unshare --mount --pid --fork true 2>/dev/null || skip "this machine allows no namespaces"

base=docker.io/library/python:3.11-slim-bookworm
work=$(mktemp -d)
container=
clean_up() {
    [ -z "$container" ] || buildah rm "$container" >/dev/null
    buildah rmi image-generator-test >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 1' INT TERM
: > "$work/log"

# A Debian of the same release, with its Python. It stays in buildah's storage for the next time.
if [ -z "$(buildah images --quiet "$base" 2>/dev/null)" ]; then
    say "making a stand-in for $base"
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$work/base" >"$work/log" 2>&1 ||
        skip "debootstrap could not make a Debian: $(tail -n 1 "$work/log")"
    container=$(buildah from scratch) || skip "buildah cannot work here"
    buildah add --quiet "$container" "$work/base" / >/dev/null
    buildah commit --quiet --rm "$container" "$base" >/dev/null
    container=
    rm -rf "$work/base"
fi

# The certificates of this machine: a mirror may have one of a company's own.
say "building"
buildah bud --isolation chroot --pull-never --network host --format docker --volume /etc/ssl/certs:/etc/ssl/certs:ro \
    ${PIP_INDEX_URL:+--build-arg "PIP_INDEX_URL=$PIP_INDEX_URL"} ${EXTRAS:+--build-arg "EXTRAS=$EXTRAS"} \
    --tag image-generator-test . >"$work/log" 2>&1 ||
    fail "the Dockerfile cannot be built"
container=$(buildah from --pull-never image-generator-test)
root=$(buildah mount "$container")
buildah inspect --type image image-generator-test >"$work/image.json"

say "using"
.venv/bin/python -m tests.container "$root" "$work/image.json" "$work"
say "ok"
