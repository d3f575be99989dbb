"""The objects of each overlay fit together, balsa.toml and the images included, and what does not fit would be found."""

import re
import tomllib

import pytest
import yaml
from conftest import OVERLAYS, ROOT, rendered
from references import problems

# What is applied beside one of these and holds no cluster of its own.
BESIDE = ["overlays/monitoring", "restore"]
VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]


def whole(overlay):
    return rendered(overlay) + (rendered("base") if overlay in BESIDE else [])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_fits(overlay):
    assert problems(whole(overlay)) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_says_that_it_is_part_of_balsa(overlay):
    for each in rendered(overlay):
        assert each["metadata"].get("labels", {}).get("app.kubernetes.io/part-of") == "balsa", each["metadata"]["name"]
        assert "namespace" not in each["metadata"], "it goes wherever kubectl is"


def images(overlay):
    kinds = {"StatefulSet": "balsa", "Deployment": "balsa-client", "Pod": "balsa"}
    return {
        kinds[each["kind"]]: each["spec"].get("template", each)["spec"]["containers"][0]["image"]
        for each in rendered(overlay)
        if each["kind"] in kinds
    }


def test_images_have_the_version_of_the_program():
    names = ["balsa", "balsa-client"]
    assert images("base") == {name: f"{name}:{VERSION}" for name in names}
    assert images("overlays/production") == images("base")
    assert images("restore") == {"balsa": f"balsa:{VERSION}"}
    assert images("overlays/kind") == {name: f"localhost:5001/{name}:{VERSION}" for name in names}


def dockerfile():
    return (ROOT / "docker/Dockerfile").read_text()


def test_the_images_are_what_the_manifests_expect():
    text = dockerfile()
    versions = set(re.findall(r"^ARG VERSION=(.*)$", text, re.MULTILINE))
    assert versions == {VERSION}
    assert set(re.findall(r"^USER (.*)$", text, re.MULTILINE)) == {"65532:65532"}
    assert re.findall(r"^EXPOSE (.*)$", text, re.MULTILINE) == ["6000 6001 6080"]
    assert set(re.findall(r"--chown=(\S+)", text)) == {"65532:65532"}
    for each in whole("restore"):
        if each["kind"] in ("StatefulSet", "Deployment", "Pod"):
            context = each["spec"].get("template", each)["spec"]["securityContext"]
            assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (65532, 65532, 65532)


def test_compose_fits_its_configuration_and_the_dockerfile():
    compose = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
    toml = tomllib.loads((ROOT / "docker/balsa.toml").read_text())
    services = compose["services"]
    nodes = [name for name in services if name != "client"]
    assert nodes == [f"balsa-{at}" for at in range(toml["cluster"]["replicas"])]
    targets = re.findall(r"^FROM \S+ AS (\S+)$", dockerfile(), re.MULTILINE)
    assert len(targets) == len(set(targets))
    for at, name in enumerate(nodes):
        service = services[name]
        assert service["hostname"] == name
        assert service["image"] == f"balsa:{VERSION}"
        # Its own volume, and the file that all share.
        assert service["volumes"] == [f"data-{at}:/var/lib/balsa", "./balsa.toml:/etc/balsa/balsa.toml:ro"]
        # On this host alone, where a second node of one host would be; and never the peers' port.
        assert service["ports"] == [f"127.0.0.1:{6000 + 100 * at}:6000", f"127.0.0.1:{6080 + 100 * at}:6080"]
    assert set(compose["volumes"]) == {f"data-{at}" for at in range(len(nodes))}
    assert toml["node"]["data_dir"].startswith("/var/lib/balsa/")
    for key, port in [("client_addr", 6000), ("peer_addr", 6001), ("http_addr", 6080)]:
        assert toml["node"][key] == f"0.0.0.0:{port}"
    for key, port in [("advertise_client_addr", 6000), ("advertise_peer_addr", 6001)]:
        assert toml["node"][key] == f"{{name}}:{port}"
    client = services["client"]
    assert client["image"] == f"balsa-client:{VERSION}"
    # Each image is built by one service: builds run side by side, and two that write one tag get into each other's way.
    built = sorted((service["image"], service["build"]["target"]) for service in services.values() if "build" in service)
    assert built == [(f"balsa-client:{VERSION}", "client"), (f"balsa:{VERSION}", "server")]
    assert {target for _, target in built} <= set(targets)
    assert client["environment"]["BALSA_ENDPOINTS"] == ",".join(f"{name}:6000" for name in nodes)
    assert set(client["depends_on"]) == set(nodes)


def test_what_goes_into_a_build_is_there():
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line.startswith("!"):
            assert (ROOT / line[1:]).exists(), line


# --- What does not fit is found ----------------------------------------------------------------------------------------------


def find(objects, kind, name):
    return next(each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name))


def path(kind, name, *keys):
    """A change of one value, or its removal if there is none to put there."""

    def change(objects, value=None):
        at = find(objects, kind, name)
        for key in keys[:-1]:
            at = at[key]
        if value is None:
            del at[keys[-1]]
        else:
            at[keys[-1]] = value

    return change


def toml(old, new):
    def change(objects, _):
        data = find(objects, "ConfigMap", "balsa")["data"]
        assert old in data["balsa.toml"]
        data["balsa.toml"] = data["balsa.toml"].replace(old, new)

    return change


SPEC = ("StatefulSet", "balsa", "spec")
POD = (*SPEC, "template", "spec")
CONTAINER = (*POD, "containers", 0)
RESTORE = ("Pod", "balsa-restore", "spec")
OTHER = {"app.kubernetes.io/name": "balsa"}
WRONG = {
    "replicas": (path(*SPEC, "replicas"), 5),
    "serviceName": (path(*SPEC, "serviceName"), "balsa"),
    "partition": (path(*SPEC, "updateStrategy", "rollingUpdate", "partition"), 0),
    "maxUnavailable": (path(*SPEC, "updateStrategy", "rollingUpdate", "maxUnavailable"), 1),
    "ordered": (path(*SPEC, "podManagementPolicy"), "OrderedReady"),
    "labels": (path(*SPEC, "template", "metadata", "labels", "app.kubernetes.io/component"), "other"),
    "selector": (path(*SPEC, "selector", "matchLabels"), OTHER),
    "claim": (path(*SPEC, "volumeClaimTemplates", 0, "metadata", "name"), "other"),
    "storage class": (path(*SPEC, "volumeClaimTemplates", 0, "spec", "storageClassName"), "nowhere"),
    "volume": (path(*POD, "volumes", 0, "configMap", "name"), "other"),
    "links": (path(*POD, "enableServiceLinks"), True),
    "token": (path(*POD, "automountServiceAccountToken"), True),
    "account": (path(*POD, "serviceAccountName"), "default"),
    "spread": (path(*POD, "topologySpreadConstraints", 0, "labelSelector", "matchLabels"), OTHER),
    "grace": (path(*POD, "terminationGracePeriodSeconds"), 30),
    "subPath": (path(*CONTAINER, "volumeMounts", 1, "subPath"), "balsa.toml"),
    "mount": (path(*CONTAINER, "volumeMounts", 1, "mountPath"), "/etc/other"),
    "probe's port": (path(*CONTAINER, "readinessProbe", "httpGet", "port"), "client"),
    "probe's path": (path(*CONTAINER, "livenessProbe", "httpGet", "path"), "/readyz"),
    "port": (path(*CONTAINER, "ports", 1, "containerPort"), 6002),
    "port's name": (path(*CONTAINER, "ports", 1, "name"), "raft"),
    "memory": (path(*CONTAINER, "resources", "requests", "memory"), "256Mi"),
    "throttled": (path(*CONTAINER, "resources", "limits", "cpu"), "1"),
    "namespace": (path(*CONTAINER, "env", 0, "name"), "NAMESPACE"),
    "advertised": (path(*CONTAINER, "env", 1, "value"), "{name}.balsa.$(POD_NAMESPACE).svc.cluster.local.:6000"),
    "not headless": (path("Service", "balsa-headless", "spec", "clusterIP"), None),
    "hidden": (path("Service", "balsa-headless", "spec", "publishNotReadyAddresses"), None),
    "service's port": (path("Service", "balsa", "spec", "ports", 0, "port"), 6001),
    "service's target": (path("Service", "balsa", "spec", "ports", 0, "targetPort"), "grpc"),
    "service's pods": (path("Service", "balsa", "spec", "selector"), OTHER),
    "budget": (path("PodDisruptionBudget", "balsa", "spec", "selector", "matchLabels"), OTHER),
    "two away": (path("PodDisruptionBudget", "balsa", "spec", "maxUnavailable"), 2),
    "peers": (path("NetworkPolicy", "balsa", "spec", "ingress", 0, "from", 0, "podSelector"), {}),
    "everybody": (path("NetworkPolicy", "balsa", "spec", "ingress", 0, "from"), None),
    "all ports": (path("NetworkPolicy", "balsa", "spec", "ingress", 1, "ports"), None),
    "policy's port": (path("NetworkPolicy", "balsa", "spec", "ingress", 0, "ports", 0, "port"), "raft"),
    "endpoints": (path("Deployment", "balsa-client", "spec", "template", "spec", "containers", 0, "env", 1, "value"), "balsa:6000"),
    "unmounted": (path("Deployment", "balsa-client", "spec", "template", "spec", "containers", 0, "volumeMounts"), []),
    "key": (path("ConfigMap", "balsa", "binaryData", "kvstore.wasm"), None),
    "another key": (path("ConfigMap", "balsa", "binaryData", "other.wasm"), "AA=="),
    "too large": (path("ConfigMap", "balsa", "binaryData", "kvstore.wasm"), "A" * 200_000),
    "toml's replicas": (toml("replicas = 3", "replicas = 5"), None),
    "toml's port": (toml("0.0.0.0:6001", "0.0.0.0:6002"), None),
    "toml's directory": (toml('"/var/lib/balsa/data"', '"/data"'), None),
    "restore's volume": (path(*RESTORE, "volumes", 0, "persistentVolumeClaim", "claimName"), "data-balsa-1"),
    "restore's configuration": (path(*RESTORE, "volumes", 1, "configMap", "name"), "other"),
    "restore's node": (path(*RESTORE, "containers", 0, "args", 3), "balsa-1"),
    "restore's rights": (path(*RESTORE, "containers", 0, "securityContext", "readOnlyRootFilesystem"), None),
    "restore's user": (path(*RESTORE, "securityContext", "fsGroup"), 0),
    "restore's token": (path(*RESTORE, "automountServiceAccountToken"), True),
    "restore's memory": (path(*RESTORE, "containers", 0, "resources", "limits", "memory"), "64Mi"),
    "restore's address": (path(*RESTORE, "containers", 0, "env", 2, "value"), "balsa-0:6001"),
    "restore's end": (path(*RESTORE, "containers", 0, "stdinOnce"), None),
    "restored again": (path(*RESTORE, "restartPolicy"), "Always"),
    "restore is served": (path("Pod", "balsa-restore", "metadata", "labels", "app.kubernetes.io/component"), "server"),
    "claim's size": (path("PersistentVolumeClaim", "data-balsa-0", "spec", "resources", "requests", "storage"), "1Gi"),
    "claim's labels": (path("PersistentVolumeClaim", "data-balsa-0", "metadata", "labels"), OTHER),
    "toml's module": (toml('"kvstore.wasm"', '"other.wasm"'), None),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_found(what):
    objects = whole("restore")
    change, value = WRONG[what]
    change(objects, value)
    assert problems(objects) != []


@pytest.mark.parametrize("at", range(len(whole("restore"))))
def test_each_object_is_needed(at):
    objects = whole("restore")
    removed = objects.pop(at)
    assert problems(objects) != [], removed["kind"]
