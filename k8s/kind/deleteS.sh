#!/bin/sh
# deleteS.sh [--volumes]: deletes the servers, and waits until they are gone. Services, ConfigMap and client stay, and so do the volumes:
# go_statefulset.sh brings the same cluster back.
#
#   --volumes             the volumes too, and with them all that the cluster has stored
. "$(dirname "$0")/lib.sh"

volumes=
while [ $# -gt 0 ]; do
    common_option "$@"
    if [ "$taken" -gt 0 ]; then
        shift "$taken"
        continue
    fi
    case $1 in
        --volumes) volumes=1 ;;
        *) wrong "unknown argument: $1" ;;
    esac
    shift
done
need_cluster

say "deleting the servers"
kube delete statefulset balsa --ignore-not-found --cascade=foreground --timeout="${timeout}s" ||
    fail "the servers were not gone within $timeout s"
if [ -n "$volumes" ]; then
    say "deleting their volumes"
    kube delete persistentvolumeclaims --selector "$servers" --ignore-not-found --timeout="${timeout}s" ||
        fail "the volumes were not gone within $timeout s"
fi
