#!/bin/sh
# kind-with-registry.sh: makes a kind cluster of five nodes on this machine, and a registry on localhost:5001 that they pull from.
#
# What is there already stays as it is, so that it can be run again after it was interrupted; what has stopped is started again. Images are
# tagged localhost:5001/NAME:TAG, pushed by docker, and pulled under the same name by the cluster. close_cl.sh removes all of it.
#
# The registry's image: REGISTRY_IMAGE [default: registry:2]; the nodes': KIND_NODE_IMAGE [default: kind's own].
. "$(dirname "$0")/lib.sh"
take_options "$@"
need kind kubectl
need_docker

start_registry() {
    case $(call_docker container inspect --format '{{.State.Running}}' "$registry_name" 2>/dev/null || echo missing) in
        true) say "the registry runs" ;;
        false)
            say "starting the registry again"
            call_docker start "$registry_name" >/dev/null || fail "the registry's container cannot be started"
            ;;
        *)
            say "starting a registry on localhost:$registry_port"
            # On this machine's own address only: it takes pushes from whoever reaches it.
            call_docker run --detach --restart=always --name "$registry_name" --publish "127.0.0.1:$registry_port:5000" \
                "${REGISTRY_IMAGE:-registry:2}" >/dev/null ||
                fail "the registry cannot be started; is port $registry_port taken?"
            ;;
    esac
}

create_cluster() {
    if call_kind get clusters 2>/dev/null | grep -qx "$cluster"; then
        say "the kind cluster $cluster is there"
        wake_cluster
        return
    fi
    say "making the kind cluster $cluster: a control plane and four workers (minutes, the first time)"
    # config_path has each node's containerd look for a registry's real address in the directories that tell_nodes writes.
    call_kind create cluster --name "$cluster" ${KIND_NODE_IMAGE:+--image "$KIND_NODE_IMAGE"} --config - <<-'YAML' ||
	kind: Cluster
	apiVersion: kind.x-k8s.io/v1alpha4
	nodes:
	  - role: control-plane
	  - role: worker
	  - role: worker
	  - role: worker
	  - role: worker
	containerdConfigPatches:
	  - |-
	    [plugins."io.containerd.grpc.v1.cri".registry]
	      config_path = "/etc/containerd/certs.d"
	YAML
        fail "kind cannot make the cluster"
}

# Docker may have been stopped since, and the kubeconfig may be another one.
wake_cluster() {
    find_nodes
    for node in $nodes; do
        [ "$(call_docker container inspect --format '{{.State.Running}}' "$node" 2>/dev/null)" != false ] || {
            say "starting the node $node again"
            call_docker start "$node" >/dev/null || fail "the node $node cannot be started"
        }
    done
    # It would become kubectl's current context, so only if it has to.
    [ "$context" != "kind-$cluster" ] || kube config get-contexts "$context" >/dev/null 2>&1 || {
        say "writing the context $context into the kubeconfig"
        call_kind export kubeconfig --name "$cluster" || fail "kind cannot say how the cluster is reached"
    }
}

find_nodes() { nodes=$(call_kind get nodes --name "$cluster") || fail "kind cannot name the cluster's nodes"; }

cluster_works() {
    why="its apiserver does not answer"
    kube get --raw /readyz --request-timeout=10s >/dev/null 2>&1 || return 1
    ready=$(kube get nodes --output 'jsonpath={range .items[*]}{.metadata.name}{" "}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}') || return 1
    # A context that is somebody else's will not become this cluster's.
    # shellcheck disable=SC2086 # words
    printf '%s\n' $nodes | grep -qFx "$(printf '%s\n' "$ready" | awk '{ print $1 }')" ||
        fail "the context $context is not that of the kind cluster $cluster: it has none of its nodes"
    for node in $nodes; do
        why="its node $node is not ready"
        printf '%s\n' "$ready" | grep -qx "$node True" || return 1
    done
}

wait_for_cluster() {
    find_nodes
    eventually "$timeout" cluster_works || fail "the kind cluster $cluster does not work: $why. One whose making was interrupted stays so: \
k8s/kind/close_cl.sh removes it, with all that is stored in it, and then this makes a new one"
}

# Within a node, localhost is the node: what it calls localhost:5001 is the registry's container.
tell_nodes() {
    directory=/etc/containerd/certs.d/localhost:$registry_port
    for node in $nodes; do
        call_docker exec "$node" mkdir -p "$directory" || fail "the node $node has no place for the registry's address"
        printf '[host."http://%s:5000"]\n' "$registry_name" |
            call_docker exec --interactive "$node" cp /dev/stdin "$directory/hosts.toml" ||
            fail "the node $node cannot be told where the registry is"
    done
}

connect_registry() {
    # shellcheck disable=SC2016 # docker's variables, not ours
    networks=$(call_docker container inspect --format '{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}' "$registry_name") ||
        fail "docker does not show the registry's networks"
    case " $networks " in
        *" kind "*) ;;
        *) call_docker network connect kind "$registry_name" || fail "the registry cannot join the network of kind's nodes" ;;
    esac
}

# A convention by which other tools (Tilt, Skaffold) find a local registry.
document_registry() {
    # Whatever --namespace says, which is about balsa.
    (
        namespace=
        kube apply --filename -
    ) <<-YAML || fail "the cluster does not take the note of where its registry is"
	apiVersion: v1
	kind: ConfigMap
	metadata:
	  name: local-registry-hosting
	  namespace: kube-public
	data:
	  localRegistryHosting.v1: |
	    host: "localhost:$registry_port"
	    help: "https://kind.sigs.k8s.io/docs/user/local-registry/"
	YAML
}

start_registry
create_cluster
wait_for_cluster
tell_nodes
connect_registry
document_registry
say "ready: kubectl --context $context get nodes"
