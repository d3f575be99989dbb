#!/bin/sh
# rollout.sh [--restart] [--image IMAGE]: restarts the servers with the StatefulSet's newest template, one at a time. Before
# each of them and at the end, all pods must be ready, and all nodes must say that they take part, with one leader. It stops where that
# does not come to be within --timeout; run again, it goes on there. `kubectl apply -k` of a changed template waits for this script.
#
#   --image IMAGE         change the servers' image first
#   --restart             restart them even if nothing has changed, for keys of balsa.toml that are obeyed only at start
. "$(dirname "$0")/lib.sh"

image=''
restart=''
own_option() {
    taken=1
    case $1 in
        --restart) restart=1 ;;
        --image)
            [ $# -ge 2 ] || wrong "--image needs an image"
            image=$2
            taken=2
            ;;
        *) taken=0 ;;
    esac
}
take_options "$@"
need_cluster
need_statefulset

# Only pods from this ordinal on get the newest template.
set_partition() {
    kube patch statefulset balsa --type merge --patch '{"spec":{"updateStrategy":{"rollingUpdate":{"partition":'"$1"'}}}}' >/dev/null ||
        fail "the StatefulSet's partition cannot be set to $1"
}

# Sets replicas, current and update once the controller has seen the newest template.
read_statefulset() {
    # shellcheck disable=SC2046 # five words
    set -- $(kube get statefulset balsa --output 'jsonpath={.metadata.generation} {.status.observedGeneration} {.spec.replicas} {.status.currentRevision} {.status.updateRevision}')
    why="Kubernetes does not show the StatefulSet"
    [ $# -eq 5 ] || return 1
    replicas=$3
    current=$4
    update=$5
    why="Kubernetes has not looked at the StatefulSet's newest template yet"
    [ "$1" = "$2" ]
}

# healthy [BUT]: all servers, but for BUT, are ready, and say that they take part in a cluster that has one leader. Both are asked: a pod
# may be ready while the nodes cannot agree any more that it belongs to them.
healthy() {
    read_statefulset || return 1
    pods=$(kube get pods --selector "$servers" --output \
        'jsonpath={range .items[*]}{.metadata.name}{" "}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}')
    # Without a server that answers this is empty, and everything is missing below.
    nodes=$(on_server status 2>/dev/null) || nodes=
    leaders=$(printf '%s\n' "$nodes" | awk '$3 == "leader"' | wc -l)
    at=0
    while [ $at -lt "$replicas" ]; do
        name=balsa-$at
        at=$((at + 1))
        [ "$name" != "${1:-}" ] || continue
        why="$name is not ready"
        printf '%s\n' "$pods" | grep -qx "$name True" || return 1
        why="$name takes no part in the cluster"
        printf '%s\n' "$nodes" | awk -v name="$name" '$1 == name && ($3 == "leader" || $3 == "follower") { found = 1 } END { exit !found }' ||
            return 1
    done
    why="$((leaders)) nodes say that they lead"
    [ "$leaders" -eq 1 ]
}

# Sets pod_is to the template of pod $1 and whether it is ready; to nothing where there is no such pod.
read_pod() {
    why="Kubernetes does not show $1"
    pod_is=$(kube get pod "$1" --ignore-not-found --output \
        'jsonpath={.metadata.labels.controller-revision-hash} {.status.conditions[?(@.type=="Ready")].status}')
}

# Whether pod $1 is one of the newest template, and ready.
renewed() {
    read_pod "$1" || return 1
    why="$1 is being restarted"
    [ "${pod_is% *}" = "$update" ] || return 1
    why="$1 runs, and is not ready yet"
    [ "${pod_is#* }" = True ]
}

stop() {
    fail "$1. The other servers run on as they were. Mend it and run this again; or take the change back, with 'kubectl rollout undo statefulset/balsa', \
and run this again"
}

if [ -n "$image$restart" ]; then
    # Before the template changes, or Kubernetes would begin at once.
    set_partition $held
    if [ -n "$image" ]; then
        kube set image statefulset/balsa "balsa=$image" || fail "the StatefulSet's image cannot be set"
    fi
    if [ -n "$restart" ]; then
        kube rollout restart statefulset/balsa || fail "the StatefulSet's template cannot be changed"
    fi
fi

eventually "$timeout" read_statefulset || fail "$why"
if [ "$current" = "$update" ]; then
    say "nothing to roll out: all servers run the newest template"
    exit 0
fi

ordinal=$((replicas - 1))
while [ $ordinal -ge 0 ]; do
    pod=balsa-$ordinal
    eventually "$timeout" read_pod "$pod" || stop "$why"
    if [ "$pod_is" = "$update True" ]; then
        say "$pod has the newest template already"
    else
        # It may be unwell itself, from an earlier run: then it is the one that this mends.
        say "$pod: looking at the other servers first"
        eventually "$timeout" healthy "$pod" || stop "before $pod is restarted: $why"
    fi
    set_partition $ordinal
    eventually "$timeout" renewed "$pod" || stop "$pod did not get ready with the newest template within $timeout s ($why)"
    ordinal=$((ordinal - 1))
done
say "looking at all servers"
eventually "$timeout" healthy || stop "all servers are restarted, but: $why"

# Kubernetes notes that all have it; only then may the next template wait again.
complete() {
    read_statefulset || return 1
    why="Kubernetes has not counted all servers yet"
    [ "$current" = "$update" ]
}
eventually "$timeout" complete || fail "$why"
set_partition $held
say "done: all $replicas servers run the newest template"
