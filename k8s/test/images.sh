# shellcheck shell=sh
# shellcheck disable=SC2154 # what k8s/test/cases and k8s/test/run have set
# Cases of k8s/test/cases that have no use for a cluster, only for the engine: the images from source, and docker/compose.yaml. They read the
# words of k8s/test/cases; $PLUGINS is what .ci/docker-plugins prints, and $BINARY a static balsa.
#
# What cannot be pulled has a stand-in under its own name: alpine is busybox, and Rust is k8s/test/rust, which compiles nothing. All else is as
# it is shipped.

VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
BUILDER=$(sed -n 's/^ARG RUST=//p' docker/Dockerfile)
BASE=$(sed -n 's/^ARG BASE=//p' docker/Dockerfile)

# All that `make release` reads: the workspace without what only tests read.
sources() {
    members=$(sed -n '/^members = \[/,/^\]/s/^ *"\(.*\)",/\1/p' Cargo.toml)
    {
        echo "$members" | xargs -I {} find {} \( -name target -o -name __pycache__ -o -path node/tests \) -prune -o -type f ! -name '*.redb' -print
        # In no member, and read by one.
        find modules sdk \( -name target -o -name __pycache__ \) -prune -o -type f -print
        printf '%s\n' .ci/setup Cargo.lock Cargo.toml LICENSE Makefile docker/check-then-stay
    } | LC_ALL=C sort -u
}

stand_ins() {
    ! docker image inspect "$BUILDER" "$BASE" >/dev/null 2>&1 || return 0
    docker tag base:test "$BASE"
    root=$scratch/builder
    mkdir -p "$root/bin" "$root/rust"
    docker export "$(docker create base:test none)" | tar -C "$root" -x bin
    cp k8s/test/rust/make k8s/test/rust/install "$root/bin/"
    sources >"$root/rust/expected"
    strip --strip-debug -o "$root/rust/balsa" "$BINARY"
    tar -C "$root" -c bin rust | docker import - "$BUILDER" >/dev/null
}

# of FORMAT IMAGE WANTED
inspected() {
    is=$(docker image inspect --format "$1" "$2")
    [ "$is" = "$3" ] || wrong "$2: $1 is $is, and not $3"
}
label() { inspected "{{index .Config.Labels \"org.opencontainers.image.$2\"}}" "$1" "$3"; }
layers() { docker image inspect --format '{{json .RootFS.Layers}}' "$1"; }

# The checksum that the stand-in has written behind the binary of image $1.
made_of() {
    container=$(docker create "$1" none)
    docker cp "$container:/usr/local/bin/balsa" - | tar -x --to-stdout | tail -c 68 | cut -c 1-64
    docker rm "$container" >/dev/null
}

build_here() {
    (cd "$1" && shift && docker/build.sh "$@") >"$scratch/build" 2>&1 || { tail -n 40 "$scratch/build"; wrong "docker/build.sh fails"; }
}

case_images() {
    stand_ins
    build_here . --tag from-source
    step "docker/build.sh: both images, from a context of $(sources | wc -l) files"

    revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
    [ -z "$(git status --porcelain 2>/dev/null)" ] || revision=$revision+
    for image in balsa balsa-client; do
        label $image:from-source title $image
        label $image:from-source licenses Apache-2.0
        label $image:from-source version "$VERSION"
        label $image:from-source revision "$revision"
        inspected '{{.Config.User}}' $image:from-source 65532:65532
    done
    label balsa:from-source description "A replicated, durable, linearizable gRPC service whose logic is your WebAssembly module"
    label balsa-client:from-source description "Balsa's command line, which checks the cluster when it starts and then waits for kubectl exec"
    inspected '{{json .Config.Env}}' balsa:from-source '["PATH=/usr/local/bin","BALSA_CONFIG=/etc/balsa/balsa.toml"]'
    inspected '{{json .Config.ExposedPorts}}' balsa:from-source '{"6000/tcp":{},"6001/tcp":{},"6080/tcp":{}}'
    inspected '{{json .Config.Entrypoint}} {{json .Config.Cmd}}' balsa:from-source '["/usr/local/bin/balsa"] ["serve"]'
    inspected '{{json .Config.Healthcheck.Test}}' balsa:from-source '["CMD","/usr/local/bin/balsa","health"]'
    inspected '{{.Config.WorkingDir}} {{json .Config.Cmd}}' balsa-client:from-source '/tmp ["/usr/local/bin/check-then-stay"]'
    step "they have the labels, users and commands that they should"

    # But for what Docker itself puts into a container. Builders differ in whose /var is.
    docker export "$(docker create balsa:from-source)" | tar -t --verbose --numeric-owner |
        awk '$6 !~ /^(\.dockerenv|dev|etc|proc|sys|var\/$|var\/lib\/$)/ { print $1, $2, $6 }' | LC_ALL=C sort -k 3 >"$scratch/files"
    cmp -s "$scratch/files" - <<-'FILES' || { cat "$scratch/files"; wrong "balsa's image has other files, or of other owners"; }
	drwxr-xr-x 0/0 usr/
	drwxr-xr-x 0/0 usr/local/
	drwxr-xr-x 0/0 usr/local/bin/
	-rwxr-xr-x 0/0 usr/local/bin/balsa
	drwxr-xr-x 65532/65532 var/lib/balsa/
	FILES
    [ "$(docker run --rm --network none balsa:from-source --version)" = "balsa $VERSION" ] || wrong "what is in balsa's image does not run"
    [ "$(docker run --rm --network none balsa-client:from-source balsa --version)" = "balsa $VERSION" ] || wrong "what is in the client's image does not run"
    step "the server's has the binary and an empty directory of its user, and both run"

    DOCKER_BUILDKIT=1 docker build --quiet --file docker/Dockerfile --target server --tag balsa:relabelled --build-arg REVISION=another . >"$scratch/build" 2>&1 ||
        { cat "$scratch/build"; wrong "docker build fails"; }
    label balsa:relabelled revision another
    [ "$(layers balsa:relabelled)" = "$(layers balsa:from-source)" ] || wrong "another label makes other layers, so that start.sh would restart all servers"
    step "another commit with the same sources holds the same"

    # Cargo goes by times: of two checkouts that share what was compiled, the second may have the older files.
    other=$scratch/other
    mkdir "$other"
    { sources && printf '%s\n' .dockerignore docker/Dockerfile docker/build.sh; } | tar -c -T - | tar -C "$other" -x
    echo '// other' >>"$other/node/src/lib.rs"
    find "$other" -type f -exec touch -d 2001-01-01 {} +
    build_here "$other" --tag other
    wanted=$(cd "$other" && sources | xargs sha256sum | sha256sum | cut -c 1-64)
    [ "$(made_of balsa:other)" = "$wanted" ] || wrong "the image of one checkout has the binary of another one"
    step "another checkout with older files gets what is compiled of its own"
}

compose() { timeout "$PATIENCE" docker compose --file docker/compose.yaml "$@" >"$scratch/compose" 2>&1 || { tail -n 40 "$scratch/compose"; wrong "docker compose $1 fails"; }; }

# docker/README.md, line by line.
case_compose() {
    stand_ins
    compose up --build --detach --wait
    step "docker compose up: three nodes and the client are healthy"
    compose logs client
    grep -q ' OK$' "$scratch/compose" || { cat "$scratch/compose"; wrong "the client's log shows no passed check"; }
    compose exec -T client balsa put hello world
    compose exec -T client balsa get hello
    grep -qx world "$scratch/compose" || wrong "what was put is not what is there"
    compose exec -T client balsa status
    [ "$(grep -cE '^balsa-[012] .* (leader|follower) ' "$scratch/compose")" = 3 ] || { cat "$scratch/compose"; wrong "three nodes do not take part"; }
    step "put, get and status, in the client's container"
    BALSA_ENDPOINTS=127.0.0.1:6000,127.0.0.1:6100,127.0.0.1:6200 balsa get hello >"$scratch/log" || wrong "the ports that are published do not answer"
    compose kill balsa-1
    compose exec -T client balsa get hello
    grep -qx world "$scratch/compose" || wrong "two of three nodes do not go on"
    compose up --detach --wait
    step "killed, two of three go on, and it comes back"
    compose down --timeout 1
    compose up --detach --wait
    compose exec -T client balsa get hello
    grep -qx world "$scratch/compose" || wrong "what was put is gone after down and up"
    compose down --volumes --timeout 1
    left=$(docker ps --all --quiet --filter label=com.docker.compose.project=balsa)
    volumes=$(docker volume ls --quiet --filter label=com.docker.compose.project=balsa)
    [ -z "$left$volumes" ] || wrong "something is left"
    step "what is stored outlives docker compose down, and goes with its volumes"
}
