"""What the tests of the manifests and of their scripts share. `make test-manifests` runs them, with the tools of target/venv on PATH."""

import functools
import os
import pathlib
import signal
import subprocess

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = pathlib.Path(__file__).parent / "golden"

# All that can be applied. The test of Kubernetes has an overlay of its own, for a version that is too old for these tests.
OVERLAYS = ["base", "restore"] + sorted(f"overlays/{path.parent.name}" for path in ROOT.glob("k8s/overlays/*/kustomization.yaml"))


def default_signals():
    """For `preexec_fn`: a script that is to be interrupted is started as at a terminal, whoever started the tests. Under nohup, and in what a
    script starts in the background, signals are ignored, and a shell can do nothing about those."""
    for each in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)


@functools.cache
def rendered_text(overlay):
    return subprocess.run(
        ["kubectl", "kustomize", ROOT / "k8s" / overlay], check=True, capture_output=True, text=True
    ).stdout


def rendered(overlay):
    """The objects of an overlay, as kubectl would send them; the caller's own, to be changed at will."""
    return list(yaml.safe_load_all(rendered_text(overlay)))


@pytest.fixture
def golden(request):
    """Compares text with a file of golden/, or writes it with UPDATE_GOLDEN=1."""

    def compare(name, text):
        path = GOLDEN / name
        if os.environ.get("UPDATE_GOLDEN"):
            path.write_text(text)
        assert path.exists(), f"{path} is not there yet; UPDATE_GOLDEN=1 writes it"
        assert text == path.read_text(), f"another sequence than in {path}; UPDATE_GOLDEN=1 writes it anew, then look at the difference"

    return compare
