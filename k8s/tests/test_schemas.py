"""Every object of every overlay against the schemas of the versions of Kubernetes that are supported, strictly: a field that a
version does not know is an error there."""

import pytest
from conftest import OVERLAYS, rendered
from kubernetes_validate import utils as schemas

VERSIONS = ["1.28", "1.31", "1.34", "1.37"]
# The validator strips the domain off an API's group, so that any domain would do. This is the other half of the check.
GROUPS = {"v1", "apps/v1", "networking.k8s.io/v1", "policy/v1", "storage.k8s.io/v1"}
# No part of Kubernetes, so there is no schema here: the operator of Prometheus brings these.
WITHOUT_SCHEMA = {("monitoring.coreos.com/v1", "ServiceMonitor"), ("monitoring.coreos.com/v1", "PrometheusRule")}


def problems(objects, version):
    """What is wrong with each of them. The validator's own command passes kinds it does not know, and ends at the first error."""
    found = []
    for each in objects:
        what = f"{each['kind']} {each['metadata']['name']}"
        if (each["apiVersion"], each["kind"]) in WITHOUT_SCHEMA:
            continue
        if each["apiVersion"] not in GROUPS:
            found.append(f"{what}: {each['apiVersion']} is none of {sorted(GROUPS)}")
            continue
        try:
            used = schemas.validate(each, version, strict=True)
            # It falls back to an older schema where it has none.
            if used != version:
                found.append(f"{what}: there is no schema of {version}, it took {used}")
        except schemas.ValidationError as error:
            found.append(f"{what}: {'.'.join(map(str, error.path))}: {error.message}")
        except (schemas.SchemaNotFoundError, schemas.VersionNotSupportedError) as error:
            found.append(f"{what}: {error.message}")
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_valid(overlay, version):
    objects = rendered(overlay)
    assert objects
    assert problems(objects, version) == []


def test_what_is_wrong_is_found_in_every_object():
    objects = [
        {"apiVersion": "policy/v1beta1", "kind": "PodDisruptionBudget", "metadata": {"name": "old"}},
        {"apiVersion": "networking.k8s.oi/v1", "kind": "NetworkPolicy", "metadata": {"name": "misspelt"}},
        {"apiVersion": "v1", "kind": "Sevice", "metadata": {"name": "unknown"}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "field"}, "spec": {"selectors": {}}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "type"}, "spec": {"ports": [{"port": "x"}]}},
    ]
    assert len(problems(objects, "1.37")) == len(objects)
    assert len(problems(objects[-2:], "1.28")) == 2


def test_a_version_without_a_schema_is_not_passed_over():
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "well"}}
    assert problems([service], "1.37") == []
    assert problems([service], "1.99") != []
