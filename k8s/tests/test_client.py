"""docker/check-then-stay, which the client's container runs, with a stand-in for balsa."""

import os
import pathlib
import signal
import subprocess

import pytest
from conftest import ROOT

CHECKED = pathlib.Path("/tmp/checked")
PATIENCE_S = 30


@pytest.fixture
def client(tmp_path):
    """Runs it with a balsa that ends with these exit codes, one after the other."""
    started = []

    def start(*codes):
        script = (ROOT / "docker/check-then-stay").read_text()
        # Its note goes to a directory of the test's.
        assert script.count(str(CHECKED)) == 2
        (tmp_path / "check-then-stay").write_text(script.replace(str(CHECKED), str(tmp_path / "checked")))
        (tmp_path / "codes").write_text("".join(f"{code}\n" for code in codes))
        balsa = tmp_path / "balsa"
        balsa.write_text(
            f"#!/bin/sh\ncd {tmp_path}\necho balsa \"$@\"\nread -r code <codes\nsed -i 1d codes\nexit \"$code\"\n"
        )
        balsa.chmod(0o755)
        sleep = tmp_path / "sleep"
        # A pause between two attempts is none; the long one is there until it is ended.
        sleep.write_text('#!/bin/sh\n[ "$1" -gt 10 ] && exec /bin/sleep 600\nexit 0\n')
        sleep.chmod(0o755)
        env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "BALSA_ENDPOINTS": "balsa:6000"}
        process = subprocess.Popen(
            ["sh", tmp_path / "check-then-stay", "--size", "8"], env=env, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def test_it_tries_until_the_check_passes_and_stays_until_it_is_told_to_go(client, tmp_path):
    process = client(3, 4, 0)
    lines = [process.stdout.readline() for _ in range(7)]
    assert lines[0] == "==> balsa check through balsa:6000\n"
    assert lines.count("balsa check --size 8\n") == 3
    assert lines.count("==> not yet: trying again\n") == 2
    assert lines[-1].startswith("==> the check has passed")
    assert (tmp_path / "checked").exists()
    assert process.poll() is None
    process.terminate()
    assert process.wait(PATIENCE_S) == 0


def test_a_check_that_finds_something_wrong_ends_it(client, tmp_path):
    process = client(1)
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert out.endswith("==> the check failed with exit code 1\n")
    assert not (tmp_path / "checked").exists()
