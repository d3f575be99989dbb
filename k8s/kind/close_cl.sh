#!/bin/sh
# close_cl.sh: removes the kind cluster with all that is in it, volumes included, and the registry.
. "$(dirname "$0")/lib.sh"
take_options "$@"
need kind
need_docker

say "removing the kind cluster $cluster, if there is one"
call_kind delete cluster --name "$cluster" || fail "kind cannot remove the cluster"
say "removing the registry, if there is one"
if call_docker container inspect "$registry_name" >/dev/null 2>&1; then
    # With the volume that holds what was pushed.
    call_docker rm --force --volumes "$registry_name" >/dev/null || fail "the registry's container cannot be removed"
fi
# Its images are gone, and so is what to deploy.
rm -rf "$deployed"
