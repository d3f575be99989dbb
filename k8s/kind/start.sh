#!/bin/sh
# start.sh [--binary FILE]: from nothing to a checked cluster in kind: makes the cluster and the registry, builds the images and
# pushes them, deploys, waits, and shows the client's check. Needs docker, kind and kubectl.
#
# Run again, it deploys what has changed since; servers are then restarted one at a time, by rollout.sh. The ConfigMap becomes what the files
# say: a module that swap-module.sh put there is replaced.
#
#   --binary FILE         images around this balsa (static, as `make release` builds it) instead of building it in docker
. "$(dirname "$0")/lib.sh"

binary=
own_option() {
    taken=2
    case $1 in
        --binary)
            [ $# -ge 2 ] || wrong "--binary needs a file"
            binary=$2
            ;;
        *) taken=0 ;;
    esac
}
take_options "$@"

need kind kubectl
need_docker
[ -z "$binary" ] || [ -x "$binary" ] || fail "$binary is not a program; make release builds one"

# The same options for the scripts that this one runs.
set -- --context "$context" --timeout "$timeout"
[ -z "$namespace" ] || set -- "$@" --namespace "$namespace"

# A tag that changes if and only if the image does: what has not changed restarts nothing, and no node runs an older image that
# it happens to have under the same name.
push() {
    id=$(call_docker image inspect --format '{{.Id}}' "$1") || fail "there is no image $1 after it was built"
    id=${id#sha256:}
    tag=$(printf %.12s "$id")
    repository=localhost:$registry_port/${1%%:*}
    call_docker tag "$1" "$repository:$tag" || fail "$1 cannot be tagged"
    call_docker push "$repository:$tag" || fail "$repository:$tag cannot be pushed to the registry"
}

# Of the overlay that is deployed, with the images that were just pushed.
write_overlay() {
    mkdir -p "$deployed"
    cat >"$deployed/kustomization.yaml" <<-YAML
	# Written by k8s/kind/start.sh.
	apiVersion: kustomize.config.k8s.io/v1beta1
	kind: Kustomization
	resources:
	  - ../../k8s/overlays/kind
	images:
	  - name: localhost:$registry_port/balsa
	    newTag: "$server_tag"
	  - name: localhost:$registry_port/balsa-client
	    newTag: "$client_tag"
	YAML
}

"$here/kind-with-registry.sh" "$@"

say "building the images"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml")
"$root/docker/build.sh" --tag "$version" ${binary:+--binary "$binary"}

say "pushing them to localhost:$registry_port"
push "balsa:$version"
server_tag=$tag
push "balsa-client:$version"
client_tag=$tag

if [ -z "$overlay" ]; then
    write_overlay
    overlay=$deployed
fi
find_overlay
say "deploying"
kube apply --kustomize "$overlay" || fail "the cluster does not take the manifests of $overlay"
wait_for_servers
"$here/rollout.sh" "$@"
wait_for_check
say "try: kubectl --context $context ${namespace:+--namespace $namespace }exec -it deploy/balsa-client -- balsa put a b"
