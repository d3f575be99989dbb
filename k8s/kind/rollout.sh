#!/bin/sh
# rollout.sh [--restart] [--image IMAGE] [--undo]: restarts the servers with the StatefulSet's newest template, one at a time. Before
# each of them and at the end, all pods must be ready, and all nodes must say that they take part, with one leader. It stops where that
# does not come to be within --timeout; run again, it goes on there. `kubectl apply -k` of a changed template waits for this script.
#
# Servers that are not ready come first: one that has not even started is no vote that could be lost, and where none is ready, all are
# restarted at once.
#
#   --image IMAGE         change the servers' image first
#   --restart             restart them even if nothing has changed, for keys of balsa.toml that are obeyed only at start
#   --undo                take a change back that has not reached all servers: the template becomes the one that all had before
default_timeout=720
. "$(dirname "$0")/lib.sh"

image=''
restart=''
undo=''
own_option() {
    taken=1
    case $1 in
        --restart) restart=1 ;;
        --undo) undo=1 ;;
        --image)
            [ $# -ge 2 ] || wrong "--image needs an image"
            image=$2
            taken=2
            ;;
        *) taken=0 ;;
    esac
}
take_options "$@"
[ -z "$undo" ] || [ -z "$image$restart" ] || wrong "--undo goes back, --image and --restart go on"
need_cluster
need_statefulset
trap 'exit 130' INT TERM HUP

# --- What Kubernetes may do by itself --------------------------------------------------------------------------------------

set_strategy() { kube patch statefulset balsa --type merge --patch '{"spec":{"updateStrategy":'"$1"'}}' >/dev/null; }

# Nothing. A pod that is lost comes back with the template that all have had.
hold() {
    set_strategy '{"type":"RollingUpdate","rollingUpdate":{"partition":'"$held"'}}' ||
        fail "the StatefulSet's partition cannot be set to $held; until it is, pods that are lost may come back with the newest template. Run this again"
}

# Nothing either, but a pod that is deleted comes back with the newest template. A lower partition would have Kubernetes itself delete all
# pods from there on that have another one, from the highest down, whether or not others are ready.
release() {
    set_strategy '{"type":"OnDelete","rollingUpdate":null}' || fail "the StatefulSet's update strategy cannot be set to OnDelete"
}

# --- What there is ---------------------------------------------------------------------------------------------------------

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

# Sets pods, one a line: name, template, whether it is ready and has started, and since when it is being deleted.
read_pods() {
    why="Kubernetes does not list the servers' pods"
    pods=$(kube get pods --selector "$servers" --output 'jsonpath={range .items[*]}{.metadata.name}|{.metadata.labels.controller-revision-hash}|{.status.conditions[?(@.type=="Ready")].status}|{.status.containerStatuses[?(@.name=="balsa")].started}|{.metadata.deletionTimestamp}{"\n"}{end}')
}
look() { read_statefulset && read_pods; }

# pod NAME TEMPLATE READY STARTED: whether it is there, as these patterns say, and not being deleted.
pod() { printf '%s\n' "$pods" | grep -qx "$1|$2|$3|$4|"; }
is_ready() { pod "$1" '[^|]*' True '[^|]*'; }
has_started() { pod "$1" '[^|]*' '[^|]*' true; }
somebody_is_ready() { is_ready '[^|]*'; }

# The servers that have another template than the newest: those that are not ready, then the others, from the highest ordinal down.
old() {
    printf '%s\n' "$pods" | awk -F '|' -v newest="$update" -v replicas="$replicas" '
        { ordinal = $1; sub(/.*-/, "", ordinal) }
        $1 != "" && ordinal < replicas && $2 != newest { print ($3 == "True" && $5 == ""), ordinal, $1 }' |
        sort -k 1,1n -k 2,2nr | awk '{ print $3 }'
}

# healthy [BUT]: all servers, but for BUT, are ready, and say that they take part in a cluster that has one leader. Both are asked: a pod
# may be ready while the nodes cannot agree any more that it belongs to them.
healthy() {
    look || return 1
    for name in $(all_but "${1:-}"); do
        why="$name is not ready"
        is_ready "$name" || return 1
    done
    nodes=$(on_server status 2>&1) || {
        why="balsa status, on a server: $(printf '%s\n' "$nodes" | awk 'NF { last = $0 } END { print last }')"
        return 1
    }
    for name in $(all_but "${1:-}"); do
        why="$name takes no part in the cluster"
        printf '%s\n' "$nodes" | awk -v name="$name" '$1 == name && ($3 == "leader" || $3 == "follower") { found = 1 } END { exit !found }' ||
            return 1
    done
    leaders=$(printf '%s\n' "$nodes" | awk '$3 == "leader" { count++ } END { print count + 0 }')
    why="$leaders nodes say that they lead"
    [ "$leaders" -eq 1 ]
}

# The names of all servers but this one.
all_but() {
    at=0
    while [ $at -lt "$replicas" ]; do
        [ "balsa-$at" = "$1" ] || echo "balsa-$at"
        at=$((at + 1))
    done
}

# --- One pod after the other -----------------------------------------------------------------------------------------------

stop() {
    kube get pods --selector "$servers" --output wide >&2 || true
    fail "$1. The other servers run on as they were. Mend it and run this again; or take the change back, with rollout.sh --undo"
}

may_be_replaced() {
    look || return 1
    has_started "$1" || return 0
    healthy "$1"
}

# Whether pod $1 is one of the newest template, and ready.
renewed() {
    look || return 1
    why="$1 is being restarted"
    pod "$1" "$update" '[^|]*' '[^|]*' || return 1
    why="$1 runs, and is not ready yet"
    is_ready "$1"
}

# replace POD...: restarts them at once, with the newest template.
replace() {
    released=
    # With the template that all have had, pods come back anyway.
    if [ "$current" != "$update" ]; then
        released=1
        trap hold EXIT
        release
        eventually "$timeout" read_statefulset || stop "$why"
    fi
    for name in "$@"; do
        kube delete pod "$name" --wait=false >/dev/null || stop "$name cannot be deleted"
    done
    for name in "$@"; do
        eventually "$timeout" renewed "$name" || stop "$name did not get ready with the newest template within $timeout s ($why)"
    done
    [ -n "$released" ] || return 0
    trap - EXIT
    hold
}

# --- The template ----------------------------------------------------------------------------------------------------------

# Before the template changes, or Kubernetes might begin at once; and for whoever lowered it.
hold
eventually "$timeout" read_statefulset || fail "$why"
if [ -n "$image" ]; then
    kube set image statefulset/balsa "balsa=$image" || fail "the StatefulSet's image cannot be set"
fi
if [ -n "$restart" ]; then
    kube rollout restart statefulset/balsa || fail "the StatefulSet's template cannot be changed"
fi
if [ -n "$undo" ] && [ "$current" != "$update" ]; then
    # By its number. Without one, kubectl goes to the template before the newest, which no server may ever have run.
    number=$(kube get controllerrevision "$current" --output 'jsonpath={.revision}') && [ -n "$number" ] ||
        fail "Kubernetes does not know the template $current any more"
    kube rollout undo statefulset/balsa --to-revision="$number" || fail "the template $current cannot be made the newest again"
fi

# --- The rollout -----------------------------------------------------------------------------------------------------------

eventually "$timeout" look || fail "$why"
[ -n "$(old)" ] || say "nothing to restart: no server has an older template"
# An election makes all of them unready for a moment, too.
moment=$((timeout < 30 ? timeout : 30))
somebody_gets_ready() {
    why="no server is ready"
    look && somebody_is_ready
}
if [ -n "$(old)" ] && ! eventually $moment somebody_gets_ready; then
    # shellcheck disable=SC2046 # words
    set -- $(old)
    say "no server is ready, so that there is nothing to lose: restarting $* at once"
    replace "$@"
fi
while :; do
    # As the last look has shown.
    # shellcheck disable=SC2046 # words
    set -- $(old)
    [ $# -gt 0 ] || break
    say "$1: looking at the other servers first"
    eventually "$timeout" may_be_replaced "$1" || stop "before $1 is restarted: $why"
    replace "$1"
done
say "looking at all servers"
eventually "$timeout" healthy || {
    kube get pods --selector "$servers" --output wide >&2 || true
    fail "all servers have the newest template, but within $timeout s: $why; 'kubectl describe pod' and 'kubectl logs' of it say more"
}

[ -z "$(old)" ] || fail "$(old) has come back with an older template meanwhile: run this again"

# Kubernetes notes that all have it; a pod that is lost before comes back with the one that all had.
complete() {
    read_statefulset || return 1
    why="Kubernetes has not counted all servers yet"
    [ "$current" = "$update" ]
}
eventually "$timeout" complete || fail "$why"
say "done: all $replicas servers run the newest template"
