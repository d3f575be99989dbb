#!/bin/sh
# status.sh: shows what Kubernetes says of balsa, what the nodes say of their cluster and of its modules, and what the client's check
# said. Changes nothing. Exit code 1 if no server is ready.
. "$(dirname "$0")/lib.sh"
take_options "$@"
need_cluster

say "Kubernetes"
kube get statefulset,deployment,pods,services,persistentvolumeclaims,poddisruptionbudgets --output wide \
    --selector 'app.kubernetes.io/name=balsa' || fail "Kubernetes does not list balsa's objects"
newest=$(kube get statefulset balsa --ignore-not-found --output 'jsonpath={.status.updateRevision}') ||
    fail "Kubernetes does not show the StatefulSet"
# By the pods: after a change was taken back, the StatefulSet's own status says nothing of those that had it already.
if [ -n "$newest" ] && [ -n "$(kube get pods --selector "$servers,controller-revision-hash!=$newest" --output name)" ]; then
    say "a changed template waits: k8s/kind/rollout.sh restarts the servers with it, one at a time"
fi

say "the client's check"
kube logs deployment/balsa-client --tail=10 || say "there is no client: k8s/kind/go_pods.sh makes one"

say "balsa"
on_server status || fail "no server answers: 'kubectl describe pod' and 'kubectl logs' of balsa-0 say why"
say "modules"
on_server module list || fail "the servers do not list their modules"
