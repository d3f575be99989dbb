#!/bin/sh
# start.sh [--binary FILE] [--fewer]: from nothing to a checked cluster in kind: makes the cluster and the registry, builds the images and
# pushes them, deploys, waits, and shows the client's check. Needs docker, kind and kubectl.
#
# Run again, it deploys what has changed since, in the manifests or in what an image holds and how it is run; servers are then restarted one at
# a time, by rollout.sh. If the first attempt went wrong so that no server is ready, all of them are, at once. The ConfigMap becomes
# what the files say: a module that swap-module.sh put there is replaced.
#
#   --binary FILE         images around this balsa (static, as `make release` builds it) instead of building it in docker
#   --fewer               even if there are more servers now than what is deployed has; the others may be no majority
#
# What is deployed, from whatever overlay, has the images that were just built. Without -k it is what was deployed before, or else
# k8s/overlays/kind.
. "$(dirname "$0")/lib.sh"

binary=
own_option() {
    taken=1
    case $1 in
        --fewer) fewer=1 ;;
        --binary)
            [ $# -ge 2 ] || wrong "--binary needs a file"
            binary=$2
            taken=2
            ;;
        *) taken=0 ;;
    esac
}
take_options "$@"

need kind kubectl
need_docker
[ -z "$binary" ] || [ -x "$binary" ] || fail "$binary is not a program; make release builds one"
if [ -z "$overlay" ]; then
    overlay=$root/k8s/overlays/kind
    [ ! -e "$deployed/kustomization.yaml" ] || overlay=$(sed -n 's/^# Of //p' "$deployed/kustomization.yaml")
fi
find_overlay
render

# The same options for the scripts that this one runs. One that has more patience keeps it, unless somebody has said how much.
set -- --context "$context"
[ -z "$timeout_given" ] || set -- "$@" --timeout "$timeout"
[ -z "$namespace" ] || set -- "$@" --namespace "$namespace"

# A tag that changes if and only if what the image holds does, or how it is run: what has not changed restarts nothing, and no node runs an
# older image that it happens to have under the same name. Its id will not do, since the commit is a label of it.
push() {
    content=$(call_docker image inspect --format \
        '{{json .RootFS.Layers}} {{json .Config.Env}} {{json .Config.User}} {{json .Config.WorkingDir}} {{json .Config.Entrypoint}} {{json .Config.Cmd}}' "$1") ||
        fail "there is no image $1 after it was built"
    # By what there is: the last one is everywhere.
    tag=$(printf %s "$content" | { sha256sum || shasum -a 256 || cksum; } 2>/dev/null)
    tag=$(printf %.12s "$tag" | tr -d ' ')
    repository=localhost:$registry_port/${1%%:*}
    # The version, too, which is what k8s/overlays/kind says.
    for each in "$tag" "${1#*:}"; do
        call_docker tag "$1" "$repository:$each" || fail "$1 cannot be tagged"
        call_docker push "$repository:$each" || fail "$repository:$each cannot be pushed to the registry"
    done
}

# What the manifests call an image, without its tag: its name, in whatever registry.
called() {
    printf '%s\n' "$manifests" | sed -n 's/^[ -]*image: *//p' | sed 's/@.*//; s|:[^:/]*$||' | sort -u | grep -E "^(.*/)?$1\$"
}

# pushed NAME TAG: an entry of `images` for each of those.
pushed() {
    names=$(called "$1") || fail "$overlay has no image $1"
    for name in $names; do
        printf '  - name: %s\n    newName: localhost:%s/%s\n    newTag: "%s"\n' "$name" "$registry_port" "$1" "$2"
    done
}

# Of the overlay that is deployed, with the images that were just pushed.
write_overlay() {
    # kustomize takes no absolute path: up to the root, and down from there.
    base=$(cd "$overlay" && pwd -P)
    mkdir -p "$deployed"
    place=$(cd "$deployed" && pwd -P)
    [ "$base" != "$place" ] || fail "$overlay is what this script writes: name what it was made of, or nothing"
    server=$(pushed balsa "$server_tag")
    client=$(pushed balsa-client "$client_tag")
    cat >"$deployed/kustomization.yaml" <<-YAML
	# Written by k8s/kind/start.sh.
	# Of $base
	apiVersion: kustomize.config.k8s.io/v1beta1
	kind: Kustomization
	resources:
	  - $(printf %s "$place" | sed 's|/[^/]*|../|g')${base#/}
	images:
	$server
	$client
	YAML
}

"$here/kind-with-registry.sh" "$@"
refuse_fewer

say "building the images"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml")
"$root/docker/build.sh" --tag "$version" ${binary:+--binary "$binary"}

say "pushing them to localhost:$registry_port"
push "balsa:$version"
server_tag=$tag
push "balsa-client:$version"
client_tag=$tag

write_overlay
say "deploying $overlay"
kube apply --kustomize "$deployed" || fail "the cluster does not take the manifests of $overlay"
# Also the first time: it waits until all are well, and mends what is not.
"$here/rollout.sh" "$@"
wait_for_check
say "try: kubectl --context $context ${namespace:+--namespace $namespace }exec -it deploy/balsa-client -- balsa put a b"
