"""What no schema says: that the objects of an overlay fit together, and that they fit balsa.toml. `problems` lists what does not."""

import re
import tomllib
from pathlib import Path

DOCKERFILE = Path(__file__).parents[2] / "docker/Dockerfile"
SERVER = {"app.kubernetes.io/name": "balsa", "app.kubernetes.io/component": "server"}
CLIENT = {"app.kubernetes.io/name": "balsa", "app.kubernetes.io/component": "client"}
# Of a container's port, the key of balsa.toml that says where the node listens.
ADDRESSES = {"client": "client_addr", "peer": "peer_addr", "http": "http_addr"}
# The most nodes that a cluster may have: a partition from here on holds all of them back.
NODES_MAX = 9


class Objects:
    """The objects of an overlay, by kind and name."""

    def __init__(self, objects):
        self.all = {(each["kind"], each["metadata"]["name"]): each for each in objects}
        self.found = []
        if len(self.all) != len(objects):
            self.found.append("two objects have the same kind and name")

    def get(self, kind, name):
        if (kind, name) not in self.all:
            self.found.append(f"there is no {kind} {name}")
        return self.all.get((kind, name))

    def of(self, kind):
        return [each for (its, _), each in self.all.items() if its == kind]

    def expect(self, well, what):
        if not well:
            self.found.append(what)


def matches(selector, labels):
    return all(labels.get(key) == value for key, value in selector.items())


def named_ports(pod):
    return {port["name"]: port["containerPort"] for each in pod["spec"]["containers"] for port in each.get("ports", [])}


def problems(objects):
    """What does not fit, as sentences."""
    o = Objects(objects)
    servers, client = o.get("StatefulSet", "balsa"), o.get("Deployment", "balsa-client")
    config = o.get("ConfigMap", "balsa")
    if not (servers and client and config):
        return o.found
    server, client_pod = servers["spec"]["template"], client["spec"]["template"]
    toml = tomllib.loads(config["data"]["balsa.toml"])

    selectors(o, servers, client, server, client_pod)
    for pod, claims in [(server, servers["spec"]["volumeClaimTemplates"]), (client_pod, [])]:
        volumes(o, pod, claims)
        identity(o, pod)
    services(o, servers, server)
    network(o, server)
    probes(o, server)
    listening(o, server, toml)
    files(o, server, config, toml)
    numbers(o, servers, toml)
    addresses(o, servers, server, client_pod)
    for pod in o.of("Pod"):
        restoring(o, pod, servers, server)
    for claim in o.of("PersistentVolumeClaim"):
        o.expect(claim_of(o.of("Pod")) == claim["metadata"]["name"], "a claim that is for no pod")
    return o.found


def selectors(o, servers, client, server, client_pod):
    for each, pod, labels in [(servers, server, SERVER), (client, client_pod, CLIENT)]:
        o.expect(each["spec"]["selector"]["matchLabels"] == labels, f"{each['kind']}: it selects other pods than {labels}")
        o.expect(matches(labels, pod["metadata"]["labels"]), f"{each['kind']}: its pods lack the labels it selects by")
    o.expect(o.of("PodDisruptionBudget"), "a drain may take all servers at once")
    for budget in o.of("PodDisruptionBudget"):
        o.expect(budget["spec"]["selector"]["matchLabels"] == SERVER, "PodDisruptionBudget: it is not of the servers alone")
        o.expect(budget["spec"].get("maxUnavailable") == 1, "PodDisruptionBudget: more than one server may be away")
    spread = server["spec"].get("topologySpreadConstraints", [])
    terms = server["spec"].get("affinity", {}).get("podAntiAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution", [])
    o.expect(spread, "StatefulSet: its pods are not spread")
    for each in spread + terms:
        o.expect(each["labelSelector"]["matchLabels"] == SERVER, "StatefulSet: it is spread by other labels than its pods have")


def volumes(o, pod, claims):
    there = {each["name"] for each in pod["spec"].get("volumes", [])} | {each["metadata"]["name"] for each in claims}
    mounts = [mount for each in pod["spec"]["containers"] for mount in each.get("volumeMounts", [])]
    mounted = {mount["name"] for mount in mounts}
    o.expect(mounted <= there, f"mounted, and no volume: {sorted(mounted - there)}")
    o.expect(there <= mounted, f"a volume that nobody mounts: {sorted(there - mounted)}")
    o.expect(not any("subPath" in mount for mount in mounts), "a subPath never follows its ConfigMap")
    for volume in pod["spec"].get("volumes", []):
        if "configMap" in volume:
            o.get("ConfigMap", volume["configMap"]["name"])
    for claim in claims:
        wanted = claim["spec"].get("storageClassName")
        if wanted:
            o.get("StorageClass", wanted)


def identity(o, pod):
    spec = pod["spec"]
    o.get("ServiceAccount", spec["serviceAccountName"])
    o.expect(spec["automountServiceAccountToken"] is False, "a pod gets a token of the API")
    o.expect(spec["enableServiceLinks"] is False, "a pod gets BALSA_PORT and the like")
    for account in o.of("ServiceAccount"):
        o.expect(account["automountServiceAccountToken"] is False, "an account gives its token away")


def services(o, servers, server):
    ports = named_ports(server)
    for each in o.of("Service"):
        name, spec = each["metadata"]["name"], each["spec"]
        o.expect(spec["selector"] == SERVER, f"Service {name}: it selects other pods than the servers")
        for port in spec["ports"]:
            o.expect(ports.get(port["targetPort"]) == port["port"], f"Service {name}: port {port['port']} is not the servers' {port['targetPort']}")
    headless = o.get("Service", servers["spec"]["serviceName"])
    if headless:
        o.expect(headless["spec"].get("clusterIP") == "None", "the StatefulSet's Service is not headless")
        o.expect(headless["spec"].get("publishNotReadyAddresses") is True, "servers cannot find each other before they are ready")
        o.expect({port["targetPort"] for port in headless["spec"]["ports"]} == set(ADDRESSES), "the headless Service lacks a port")
    clients = o.get("Service", "balsa")
    if clients:
        o.expect(not clients["spec"].get("publishNotReadyAddresses"), "clients are sent to servers that are not ready")
        o.expect([port["targetPort"] for port in clients["spec"]["ports"]] == ["client"], "the clients' Service has another port, too")


def network(o, server):
    ports = named_ports(server)
    policy = o.get("NetworkPolicy", "balsa")
    if not policy:
        return
    o.expect("Ingress" in policy["spec"]["policyTypes"], "NetworkPolicy: it does not say who may connect")
    o.expect(policy["spec"]["podSelector"]["matchLabels"] == SERVER, "NetworkPolicy: it is not of the servers")
    open_to = {}
    for each in o.of("NetworkPolicy"):
        for rule in each["spec"]["ingress"]:
            o.expect(rule.get("ports"), "NetworkPolicy: a rule is of all ports")
            o.expect(rule.get("from"), "NetworkPolicy: a rule is for everybody")
            for port in rule.get("ports", []):
                o.expect(port["port"] in ports, f"NetworkPolicy: {port['port']} is no port of the servers")
                open_to.setdefault(port["port"], []).extend(rule.get("from", []))
    o.expect(set(open_to) == set(ports), f"NetworkPolicy: it says nothing of {sorted(set(ports) - set(open_to))}")
    o.expect(open_to.get("peer") == [{"podSelector": {"matchLabels": SERVER}}], "NetworkPolicy: others than servers reach the peers' port")


def probes(o, server):
    container = server["spec"]["containers"][0]
    for name, path in [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]:
        o.expect(container[name].get("httpGet") == {"path": path, "port": "http"}, f"{name}: it does not ask {path} of the port http")
    budget = container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"]
    o.expect(budget >= 300, f"startupProbe: {budget} s are too few to read a long log")
    o.expect("preStop" not in container.get("lifecycle", {}), "preStop is not needed")
    o.expect(server["spec"]["terminationGracePeriodSeconds"] == 60, "the pod's time to stop is not what the node counts on")


def listening(o, server, toml):
    ports = named_ports(server)
    o.expect(set(ports) == set(ADDRESSES), "the pod has other ports than a node")
    for name, key in ADDRESSES.items():
        address = toml["node"].get(key, "")
        o.expect(address == f"0.0.0.0:{ports.get(name)}", f"balsa.toml: {key} is {address}, and the pod's port is {ports.get(name)}")


def files(o, server, config, toml):
    container = server["spec"]["containers"][0]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    args = container["args"]
    o.expect(args == ["serve"], "the node is started with other arguments than the image's")
    named = re.search(r"^ENV BALSA_CONFIG=(.*)$", DOCKERFILE.read_text(), re.MULTILINE)
    o.expect(named and named[1] == f"{mounts['config']}/balsa.toml", "the image's BALSA_CONFIG is not what is mounted")
    o.expect(toml["node"]["data_dir"].startswith(mounts["data"] + "/"), "balsa.toml: data_dir is not on the volume")
    keys = set(config["data"]) | set(config.get("binaryData", {}))
    paths = {module["path"] for module in toml.get("module", [])}
    o.expect(paths <= keys, f"balsa.toml: {sorted(paths - keys)} is not in the ConfigMap")
    o.expect(keys - {"balsa.toml"} <= paths, f"the ConfigMap has {sorted(keys - paths - {'balsa.toml'})}, which balsa.toml does not name")
    # A client-side apply keeps a copy of the whole ConfigMap in an annotation, all of which hold 256 KiB at most.
    size = sum(map(len, config["data"].values())) + sum(map(len, config.get("binaryData", {}).values()))
    o.expect(size < 190 * 1024, f"the ConfigMap has {size} bytes: kubectl apply would need --server-side")


def numbers(o, servers, toml):
    spec = servers["spec"]
    o.expect(spec["replicas"] == toml["cluster"]["replicas"], f"{spec['replicas']} replicas, and {toml['cluster']['replicas']} in balsa.toml")
    o.expect(spec["podManagementPolicy"] == "Parallel", "servers would wait for each other")
    rolling = spec["updateStrategy"].get("rollingUpdate", {})
    o.expect(rolling.get("partition", 0) >= NODES_MAX, "a changed template would not wait for rollout.sh")
    o.expect("maxUnavailable" not in rolling, "maxUnavailable stops several servers at once")
    resources = spec["template"]["spec"]["containers"][0]["resources"]
    o.expect(resources["requests"]["memory"] == resources["limits"]["memory"], "the servers' memory is not theirs")
    o.expect("cpu" not in resources["limits"], "the servers may be throttled")


def addresses(o, servers, server, client_pod):
    def of(pod):
        return {each["name"]: each.get("value", "") for each in pod["spec"]["containers"][0]["env"]}

    ports, env, domain = named_ports(server), of(server), "$(POD_NAMESPACE).svc.cluster.local."
    for name in ["client", "peer"]:
        wanted = f"{{name}}.{servers['spec']['serviceName']}.{domain}:{ports.get(name)}"
        key = f"BALSA_NODE__ADVERTISE_{name.upper()}_ADDR"
        o.expect(env.get(key) == wanted, f"{key} is {env.get(key)}, and the pod's name in DNS {wanted}")
    o.expect(of(client_pod).get("BALSA_ENDPOINTS") == f"balsa.{domain}:{ports.get('client')}", "the client looks for the cluster elsewhere")
    for pod in [server, client_pod]:
        # A variable is filled in only if it stands above.
        before = [*of(pod), "POD_NAMESPACE"].index("POD_NAMESPACE")
        users = [at for at, value in enumerate(of(pod).values()) if "$(POD_NAMESPACE)" in value]
        o.expect(users and min(users) > before, "POD_NAMESPACE has to come before what contains it")


def claim_of(pods):
    """The one claim of all volumes of these pods."""
    claims = [each["persistentVolumeClaim"]["claimName"] for pod in pods for each in pod["spec"]["volumes"] if "persistentVolumeClaim" in each]
    return claims[0] if len(claims) == 1 else None


def restoring(o, pod, servers, server):
    """k8s/restore: for the first server, as that one will be, on the volume that it will have."""
    volumes(o, pod, [])
    identity(o, pod)
    o.expect(not matches(SERVER, pod["metadata"]["labels"]), "Pod: clients are sent to it as to a server")
    spec, its = pod["spec"], pod["spec"]["containers"][0]
    servers_spec, servers_own = server["spec"], server["spec"]["containers"][0]
    o.expect(spec["securityContext"] == servers_spec["securityContext"], "Pod: it has another user than the servers")
    for key in ["image", "env", "securityContext", "volumeMounts"]:
        o.expect(its[key] == servers_own[key], f"Pod: it has another {key} than the servers")
    o.expect(its["resources"]["limits"]["memory"] == servers_own["resources"]["limits"]["memory"], "Pod: it has other memory than the servers")
    o.expect(spec.get("restartPolicy") == "Never", "Pod: it would begin again without a backup")
    o.expect(its.get("stdin") and its.get("stdinOnce"), "Pod: it is sent no backup, or never the end of one")

    name = f"{servers['metadata']['name']}-0"
    o.expect(its["args"] == ["restore", "/dev/stdin", "--name", name], f"Pod: it is not {name} that is restored")
    template = servers["spec"]["volumeClaimTemplates"][0]
    wanted = f"{template['metadata']['name']}-{name}"
    o.expect(claim_of([pod]) == wanted, f"Pod: it writes to another volume than {wanted}")
    claim = o.get("PersistentVolumeClaim", wanted)
    if claim:
        o.expect(matches(SERVER, claim["metadata"]["labels"]), "PersistentVolumeClaim: deleteS.sh --volumes does not find it")
        o.expect(claim["spec"] == template["spec"], "PersistentVolumeClaim: it is not what the StatefulSet asks for")
