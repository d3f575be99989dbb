#!/bin/sh
# deleteS.sh [--volumes]: deletes the servers, and waits until they are gone. Services, ConfigMap and client stay, and so do the volumes:
# go_statefulset.sh brings the same cluster back.
#
#   --volumes             the volumes too, and with them all that the cluster has stored
. "$(dirname "$0")/lib.sh"

volumes=
own_option() {
    taken=1
    case $1 in
        --volumes) volumes=1 ;;
        *) taken=0 ;;
    esac
}
take_options "$@"
need_cluster

say "deleting the servers"
kube delete statefulset balsa --ignore-not-found --cascade=foreground --timeout="${timeout}s" ||
    fail "the servers were not gone within $timeout s"
if [ -n "$volumes" ]; then
    say "deleting their volumes"
    kube delete persistentvolumeclaims --selector "$servers" --ignore-not-found --timeout="${timeout}s" ||
        fail "the volumes were not gone within $timeout s"
fi
