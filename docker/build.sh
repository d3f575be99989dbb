#!/bin/sh
# build.sh [--tag TAG] [--binary FILE] [--base IMAGE]: builds the images balsa:TAG and balsa-client:TAG.
#
#   --tag TAG             [default: the version in Cargo.toml]
#   --binary FILE         around this balsa, which has to be static (`make release`), instead of building it in docker
#   --base IMAGE          what the client runs in: any image with /bin/sh and sleep [default: alpine]
#
# Another command than docker: DOCKER.
set -eu
DOCKER=${DOCKER:-docker}
root=$(cd "$(dirname "$0")/.." && pwd)

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}
usage() { awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$0"; }

version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml")
tag=$version
binary=''
base=''
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help)
            usage
            exit 0
            ;;
        --tag | --binary | --base) [ $# -ge 2 ] || fail "$1 needs a value; --help says which" ;;
        *) fail "unknown argument: $1; --help says what there is" ;;
    esac
    case $1 in
        --tag) tag=$2 ;;
        --binary) binary=$2 ;;
        *) base=$2 ;;
    esac
    shift 2
done

command -v "${DOCKER%% *}" >/dev/null 2>&1 ||
    fail "${DOCKER%% *} is missing: https://docs.docker.com/engine/install has it; so has Debian: apt-get install docker.io"
# Which commit it was, for the label; with a + if the checkout has changes.
revision=$(git -C "$root" rev-parse HEAD 2>/dev/null || echo unknown)
[ -z "$(git -C "$root" status --porcelain 2>/dev/null)" ] || revision=$revision+

# An attestation says when an image was built, and makes each build of the same files another image.
export BUILDX_NO_DEFAULT_ATTESTATIONS=1

# build TARGET IMAGE CONTEXT
build() {
    # shellcheck disable=SC2086 # the variable may hold several words
    $DOCKER build --file "$root/docker/Dockerfile" --target "$1" --tag "$2:$tag" \
        --build-arg VERSION="$version" --build-arg REVISION="$revision" ${base:+--build-arg BASE="$base"} "$3" ||
        fail "the image $2:$tag cannot be built"
}

if [ -z "$binary" ]; then
    # BuildKit is what has cache mounts, and is not the default everywhere. Without them any builder does, so below this is left alone.
    export DOCKER_BUILDKIT="${DOCKER_BUILDKIT:-1}"
    build server balsa "$root"
    build client balsa-client "$root"
else
    [ -f "$binary" ] || fail "there is no file $binary"
    # An empty image has no loader: a dynamic binary would end with "no such file or directory".
    if command -v readelf >/dev/null 2>&1 && readelf --program-headers "$binary" 2>/dev/null | grep -q INTERP; then
        fail "$binary needs a loader and libraries, and the image has none: build it with make release"
    fi
    # A context of just what goes in; -p keeps its times, so that the same files give the same image.
    context=$(mktemp -d)
    trap 'rm -rf "$context"' EXIT
    trap 'exit 130' INT TERM HUP
    mkdir "$context/data"
    install -p -m 755 "$binary" "$context/balsa"
    install -p -m 755 "$root/docker/check-then-stay" "$context/check-then-stay"
    build server-from-binary balsa "$context"
    build client-from-binary balsa-client "$context"
fi

# What is promised of the server's image, in bytes. A binary for debuggers does not keep it, so that it is not an error.
most=30000000
# shellcheck disable=SC2086 # the variable may hold several words
size=$($DOCKER image inspect --format '{{.Size}}' "balsa:$tag") || fail "there is no image balsa:$tag after it was built"
if [ "${size:-0}" -gt $most ]; then
    echo "warning: balsa:$tag has $((size / 1000000)) MB, and should have $((most / 1000000)) at most: make release builds a binary of that size" >&2
fi
