"""The module in k8s/base is a build product, kept here because `kubectl apply -k` takes only files. So it has to be what its sources give."""

import os
import pathlib
import subprocess

import pytest
from conftest import ROOT

HERE = pathlib.Path(__file__).parent
SHIPPED = (ROOT / "k8s/base/kvstore.wasm").read_bytes()
RENEW = "kvstore-wasm/ or sdk/ has changed since k8s/base/kvstore.wasm was made of them: `make shipped-module` renews it"


def number(data, at):
    """An unsigned LEB128, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def section(module, wanted):
    """The custom section of that name."""
    at = 8
    while at < len(module):
        kind = module[at]
        size, body = number(module, at + 1)
        if kind == 0:
            length, start = number(module, body)
            if module[start : start + length] == wanted:
                return module[start + length : body + size]
        at = body + size
    raise AssertionError(f"there is no section {wanted}")


@pytest.fixture
def built():
    path = os.environ.get("BALSA_KVSTORE_WASM")
    assert path, "BALSA_KVSTORE_WASM says which module was just built; `make test-manifests` sets it"
    return pathlib.Path(path).read_bytes()


def test_the_shipped_module_says_of_itself_what_the_built_one_says(built):
    """Name, version and descriptors: with any compiler."""
    assert section(SHIPPED, b"balsa.module") == section(built, b"balsa.module"), RENEW


def test_the_shipped_module_was_made_of_these_sources():
    here = subprocess.run([HERE / "sources"], check=True, capture_output=True, text=True).stdout
    assert here == (HERE / "kvstore.sources").read_text(), RENEW


def test_it_leaves_room_for_a_client_side_apply():
    # kubectl keeps a copy in base64 in an annotation; all annotations of an object hold 256 KiB at most.
    assert len(SHIPPED) < 120_000
