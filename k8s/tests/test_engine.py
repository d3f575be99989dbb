""".ci/docker, which the tests with containers start their engine by: what it leaves alone, and what it leaves behind."""

import os
import subprocess

import pytest
from conftest import ROOT

# Of .ci/docker: the kernel forbids containers.
FORBIDDEN = 77


@pytest.fixture
def docker(tmp_path):
    """Runs .ci/docker with other programs than the machine's."""
    if os.geteuid() != 0:
        pytest.skip("only root has engines, and sudo hands on no PATH")
    bin = tmp_path / "bin"
    bin.mkdir()

    def run(*arguments, **programs):
        for name, text in programs.items():
            (bin / name).write_text(f"#!/bin/sh\n{text}\n")
            (bin / name).chmod(0o755)
        ran = subprocess.run(
            [ROOT / ".ci/docker", *arguments],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=120,
            env={**os.environ, "PATH": f"{bin}:{os.environ['PATH']}"},
        )
        if ran.returncode == FORBIDDEN:
            pytest.skip(ran.stderr)
        return ran

    return run


def test_an_engine_has_a_configuration_of_its_own_and_its_directory_goes_with_it(docker, tmp_path):
    place = tmp_path / "engine"
    dockerd = f'echo "$@" >{place}/arguments\nwhile [ "$1" != --config-file ]; do shift; done\ncat "$2" >{place}/configuration\nexec sleep 600'
    # It answers once the engine has read its configuration.
    ran = docker("up", place, dockerd=dockerd, docker=f"[ -s {place}/configuration ]")
    assert (ran.returncode, ran.stdout) == (0, f"{place}/docker.sock\n"), ran.stderr
    assert f"--config-file {place}/daemon.json " in (place / "arguments").read_text()
    assert (place / "configuration").read_text() == "{}\n"
    assert docker("down", place).returncode == 0
    assert not place.exists()


def test_what_is_removed_by_halves_can_be_removed_later(docker, tmp_path):
    place = tmp_path / "engine"
    for name in ["data", "exec"]:
        (place / name).mkdir(parents=True)
    (place / "holder").write_text("1\n")
    # Of the directory it removes the mark first, and is then interrupted: the shell that asked for it is killed.
    rm = f"for last; do :; done\n[ \"$last\" != {place} ] || {{ /bin/rm -f {place}/holder; kill -KILL $PPID; exit 1; }}\nexec /bin/rm \"$@\""
    assert docker("down", place, rm=rm).returncode != 0
    ran = docker("down", place, rm='exec /bin/rm "$@"')
    assert ran.returncode == 0, ran.stderr
    assert not place.exists()


def test_a_directory_that_is_not_an_engines_stays(docker, tmp_path):
    place = tmp_path / "somebodys"
    place.mkdir()
    (place / "file").write_text("precious")
    ran = docker("down", place)
    assert ran.returncode == 1 and "please name a new directory" in ran.stderr
    assert (place / "file").read_text() == "precious"
