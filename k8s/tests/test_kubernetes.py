"""What k8s/test does around its cases, with stand-ins for what it starts: which of its programs it trusts, and that nothing is left."""

import fcntl
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import pytest
from conftest import ROOT, default_signals

PROGRAMS = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet"]
VERSION = "1.20.2"
# As these scripts say that a machine is not what they are for.
SKIPPED = 77
PATIENCE_S = 30


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


# --- k8s/test/binaries -------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path):
    """All that is kept of a build, and a machine without Debian's packages."""
    place = tmp_path / "cache" / f"kubernetes-{VERSION}"
    for name in PROGRAMS:
        program(place / name, f"echo Kubernetes v{VERSION}")
    for name in ["pause", "etcd", "busybox"]:
        program(place / name, "exit 0")
    bin = tmp_path / "bin"
    bin.mkdir()
    for name in ["sh", "flock", "mkdir", "rm", "chmod", "id", "date"]:
        (bin / name).symlink_to(shutil.which(name))
    return place


def binaries(cache):
    env = {"PATH": str(cache.parents[1] / "bin"), "BALSA_CACHE": str(cache.parent), "HOME": "/nowhere"}
    return subprocess.run([ROOT / "k8s/test/binaries"], capture_output=True, text=True, stdin=subprocess.DEVNULL, env=env, timeout=60)


def test_what_is_there_and_runs_is_not_built_again(cache):
    ran = binaries(cache)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"{cache}\n", "")


@pytest.mark.parametrize("name", [*PROGRAMS, "pause", "etcd", "busybox"])
def test_a_cache_that_lacks_a_program_is_not_taken(name, cache):
    (cache / name).unlink()
    ran = binaries(cache)
    assert ran.returncode == SKIPPED and ran.stdout == ""
    assert f"{name} in {cache} is missing, or does not run" in ran.stderr
    assert ran.stderr.splitlines()[-1].startswith("==> SKIPPED: no Kubernetes here: this machine is no Debian")


@pytest.mark.parametrize("text", ["exit 1", "echo Kubernetes v1.19.0"])
def test_a_program_that_does_not_run_or_is_another_is_not_taken(text, cache):
    program(cache / "kubelet", text)
    ran = binaries(cache)
    assert ran.returncode == SKIPPED and "kubelet" in ran.stderr


def test_what_a_build_has_left_that_was_killed_is_removed_by_the_next(cache):
    (cache / "kubelet").unlink()
    left = cache.parent / f"kubernetes-{VERSION}.build" / "go"
    left.mkdir(parents=True)
    (left / "module").touch()
    # As Go leaves them.
    left.chmod(0o555)
    binaries(cache)
    assert sorted(each.name for each in cache.parent.iterdir()) == [cache.name, f"{cache.name}.lock"]


@pytest.fixture
def debian(cache, tmp_path):
    """A machine whose apt has this source of Kubernetes, and a compiler that does not compile it."""
    (cache / "kubelet").unlink()
    bin = tmp_path / "bin"
    for name in ["awk", "cat", "cp", "env", "ln", "sort", "tar", "xz"]:
        (bin / name).symlink_to(shutil.which(name))
    tree = tmp_path / f"kubernetes-{VERSION}"
    tree.mkdir()
    subprocess.run(["tar", "-C", tmp_path, "-cJf", tmp_path / "orig.tar.xz", tree.name], check=True)
    for name in ["dpkg-deb", "sudo", "rsync", "cc", "make"]:
        program(bin / name, "[ ${0##*/} != make ]")

    def build(dsc):
        program(
            bin / "apt-get",
            f"""case "$*" in
                indextargets*) echo deb-src there bookworm main ;;
                *' source '*) : >{dsc}; cp {tmp_path}/orig.tar.xz kubernetes_1.orig.tar.xz ;;
                *' download '*) : >etcd-server_1.deb; : >busybox-static_1.deb ;;
            esac""",
        )
        return binaries(cache)

    return build


@pytest.mark.parametrize("version", ["1.20.5+really1.20.2-1.1+deb12u1", "1.20.5+really1.20.2-1", "1.20.2-1"])
def test_the_source_is_known_by_the_version_that_it_really_has(version, debian):
    ran = debian(f"kubernetes_{version}.dsc")
    assert ran.returncode == 1 and ran.stderr.splitlines()[-1] == "error: kubernetes: Kubernetes does not compile", ran.stderr


@pytest.mark.parametrize("version", ["1.33.4+ds-1", "1.20.25-1", "11.20.2-1"])
def test_another_source_is_not_compiled(version, debian):
    ran = debian(f"kubernetes_{version}.dsc")
    assert f"kubernetes_{version}.dsc" in ran.stderr.splitlines()[-1] and "does not compile" not in ran.stderr
    # Debian 12 is to have it; another one need not.
    bookworm = "VERSION_CODENAME=bookworm" in pathlib.Path("/etc/os-release").read_text()
    assert ran.returncode == (1 if bookworm else SKIPPED), ran.stderr


# --- k8s/test/run ------------------------------------------------------------------------------------------------------------


class Run:
    """k8s/test/run in a checkout where `up` makes its directory and then does what it is told, and `down` removes it."""

    def __init__(self, tmp_path):
        self.root = tmp_path / "checkout"
        self.root.mkdir()
        self.directories = tmp_path / "tmp"
        self.directories.mkdir()
        for name in ["k8s/test/run", "k8s/test/cases"]:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.root / name)
        program(self.root / ".ci/setup", "exit 0")
        program(self.root / ".ci/docker-plugins", "exit 77")
        program(self.root / "balsa", "exit 0")
        # It takes a moment: a run that does not wait for it is seen.
        program(self.root / "k8s/test/down", 'sleep 0.2\nrm -rf "$1"')

    def start(self, up):
        program(self.root / "k8s/test/up", f'mkdir "$1"\ntouch "$1/up"\n{up}')
        return subprocess.Popen(
            [self.root / "k8s/test/run", "apply"],
            env={**os.environ, "TMPDIR": str(self.directories), "BALSA_BINARY": str(self.root / "balsa")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=default_signals,
        )

    def started(self):
        return list(self.directories.glob("*/up"))

    def left(self):
        return list(self.directories.iterdir()) + list((self.root / "target").glob("*care*"))


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def eventually(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_interrupted_removes_everything_before_it_ends(kill, run):
    process = run.start("exec sleep 600")
    eventually(run.started)
    # As a terminal does it: to all of them.
    os.killpg(process.pid, kill)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert run.left() == []


def test_what_a_killed_run_has_started_is_removed(run):
    process = run.start("exec sleep 600")
    eventually(run.started)
    process.kill()
    try:
        eventually(lambda: not run.left())
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=PATIENCE_S)


def test_a_case_waits_for_a_test_that_is_alone_on_the_machine(run, tmp_path):
    for name in ["k8s/test/images.sh", "Cargo.toml", "docker/Dockerfile"]:
        (run.root / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, run.root / name)
    called = tmp_path / "called"
    program(tmp_path / "bin/kubectl", f"touch {called}; exit 1")
    lock = run.root / "target/alone.lock"
    lock.parent.mkdir()
    with lock.open("w") as alone:
        fcntl.flock(alone, fcntl.LOCK_EX)
        env = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "PLUGINS": "", "LOGS": str(tmp_path), "TMPDIR": str(tmp_path)}
        cases = subprocess.Popen([run.root / "k8s/test/cases", "apply"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
        # Until it stands in the queue; the kernel shows who does.
        queued = re.compile(rf"-> FLOCK .*:{os.fstat(alone.fileno()).st_ino} ")
        eventually(lambda: queued.search(pathlib.Path("/proc/locks").read_text()) or cases.poll() is not None)
        assert not called.exists() and cases.poll() is None
    out, _ = cases.communicate(timeout=PATIENCE_S)
    assert called.exists() and "FAILED  apply" in out


@pytest.mark.parametrize("code, says", [(1, ""), (SKIPPED, "==> SKIPPED: nothing was tested on Kubernetes, for the reason above\n")])
def test_a_cluster_that_does_not_come_up_is_removed_and_why_is_handed_on(code, says, run):
    process = run.start(f"exit {code}")
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (code, says)
    assert run.left() == []
