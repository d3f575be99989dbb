#!/bin/sh
# go_statefulset.sh [--fewer]: deletes the servers that run and applies everything anew, then waits until all are ready. Their volumes stay,
# and so does the cluster's data. What the ConfigMap held is what is applied: a module that swap-module.sh put there is replaced.
#
#   --fewer               even if there are more servers now than what is applied has; the others may be no majority
. "$(dirname "$0")/lib.sh"

own_option() {
    taken=1
    case $1 in
        --fewer) fewer=1 ;;
        *) taken=0 ;;
    esac
}
take_options "$@"
find_overlay
need_cluster
render
refuse_fewer
would_take

say "deleting the StatefulSet, if there is one"
# In the foreground: it returns when the pods are gone too, each of which has drained first.
kube delete statefulset balsa --ignore-not-found --cascade=foreground --timeout="${timeout}s" ||
    fail "the StatefulSet was not gone within $timeout s"
say "applying $overlay"
kube apply --kustomize "$overlay" || fail "the cluster does not take the manifests of $overlay, and the servers are deleted; their volumes are there, and the next run uses them"
wait_for_servers
kube get pods --selector "$servers" --output wide || fail "the pods cannot be listed"
