"""The tools that know what is usually wrong with such files: each must have nothing to say, and must be able to say something."""

import json
import os
import subprocess

import pytest
from conftest import OVERLAYS, ROOT, rendered, rendered_text

# All shell scripts beside the manifests: those that are run, and those that others read.
FILES = sorted(path for place in [".ci", "docker", "k8s"] for path in (ROOT / place).rglob("*") if path.is_file())
SCRIPTS = [path for path in FILES if path.suffix == ".sh" or path.read_bytes().startswith(b"#!/bin/sh\n")]


def run(*arguments, **options):
    return subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT, **options)


def silent(*arguments, **options):
    ran = run(*arguments, **options)
    assert (ran.returncode, ran.stdout + ran.stderr) == (0, "")


def test_yamllint():
    silent("yamllint", "--strict", "k8s", "docker", ".yamllint.yaml")


def test_yamllint_would_say_something():
    assert run("yamllint", "-", input="a: 1\na: 2\n").returncode == 1


def test_hadolint():
    silent("hadolint", "docker/Dockerfile")


def test_hadolint_would_say_something():
    assert "DL3006" in run("hadolint", "-", input="FROM debian\n").stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_shellcheck(script):
    # SC2329 is about functions that are only named: by a trap, or as what is to be waited for.
    silent("shellcheck", "--external-sources", "--source-path=SCRIPTDIR", "--exclude=SC2329", script)


def test_shellcheck_would_say_something():
    assert run("shellcheck", "-", input="#!/bin/sh\nrm $1\n").returncode == 1


def test_scripts_can_be_run():
    for script in SCRIPTS:
        assert os.access(script, os.X_OK) == script.read_bytes().startswith(b"#!"), script


def trivy(directory):
    """The ids of what it finds in the files of a directory, with the checks that are built into it."""
    ran = run(
        *("trivy", "config", "--quiet", "--skip-check-update", "--skip-version-check", "--disable-telemetry"),
        *("--cache-dir", directory / "cache", "--ignorefile", ROOT / "k8s/tests/trivyignore.yaml", "--format", "json"),
        directory / "files",
    )
    assert ran.returncode == 0, ran.stderr
    results = json.loads(ran.stdout).get("Results", [])
    found = sorted({each["ID"] for result in results for each in result.get("Misconfigurations", [])})
    return {result["Target"] for result in results}, found


@pytest.fixture
def files(tmp_path):
    (tmp_path / "files").mkdir()
    return tmp_path / "files"


def test_trivy(tmp_path, files):
    for overlay in OVERLAYS:
        (files / f"{overlay.replace('/', '-')}.yaml").write_text(rendered_text(overlay))
    (files / "Dockerfile").write_text((ROOT / "docker/Dockerfile").read_text())
    targets, found = trivy(tmp_path)
    assert "Dockerfile" in targets and "base.yaml" in targets, "it has looked"
    assert found == []


def test_trivy_would_say_something(tmp_path, files):
    (files / "base.yaml").write_text(rendered_text("base").replace("readOnlyRootFilesystem: true", "privileged: true"))
    (files / "Dockerfile").write_text("FROM debian:12\nUSER root\n")
    _, found = trivy(tmp_path)
    assert {"KSV-0014", "KSV-0017", "DS-0002"} <= set(found)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_only_servers_have_no_limit_of_cpu(overlay):
    for each in rendered(overlay):
        if each["kind"] in ("Deployment", "Pod"):
            for container in each["spec"].get("template", each)["spec"]["containers"]:
                assert "cpu" in container["resources"]["limits"]
