#!/bin/sh
# go_pods.sh: deletes the client's pod and makes it anew, waits until its check of the cluster has passed, and shows it.
. "$(dirname "$0")/lib.sh"
take_options "$@"
find_overlay
need_cluster
render
# The servers and the ConfigMap are left alone.
selector=$clients
would_take

say "deleting the client, if there is one"
kube delete deployment balsa-client --ignore-not-found --cascade=foreground --timeout="${timeout}s" ||
    fail "the client was not gone within $timeout s"
say "applying the client of $overlay"
kube apply --kustomize "$overlay" --selector "$selector" || fail "the cluster does not take the client of $overlay"
wait_for_check
