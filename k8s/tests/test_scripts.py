"""The scripts of k8s/kind/ and docker/, run as a person would, with stand-ins for docker, kind and kubectl that note how they are called.
What they are called with, and in which order, is in golden/; and each of those calls is made to fail once."""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import re
import shlex
import shutil
import stat
import subprocess
import sys

import pytest
from conftest import GOLDEN, ROOT, default_signals, rendered, rendered_text
from stateful_set import ASKS, StatefulSet

KIND = ROOT / "k8s/kind"
SCRIPTS = sorted(path.name for path in KIND.glob("*.sh") if path.name != "lib.sh")
STAND_INS = ["docker", "kind", "kubectl"]
# All that the scripts use besides: PATH has nothing else, so that no real docker is ever called.
# A part of a script: so many seconds pass.
TICK = """now=0
[ ! -e "$STAND_IN/clock" ] || read -r now <"$STAND_IN/clock"
echo $((now + {})) >"$STAND_IN/clock"
"""
UTILITIES = "sh awk base64 cat dirname env git grep install mkdir mktemp printf readelf rm sed sha256sum sort tr wc".split()


@dataclasses.dataclass
class Ran:
    code: int
    out: str
    err: str
    calls: str

    @property
    def commands(self):
        return [line[2:] for line in self.calls.splitlines() if line.startswith("$ ")]

    def ended_with_a_sentence(self):
        assert self.code != 0, self
        last = self.err.strip().splitlines()[-1]
        assert last.startswith("error: ") and len(last) > len("error: a word"), self
        return last


class Machine:
    """A place to run scripts in: a copy of the checkout's, and PATH."""

    def __init__(self, tmp_path):
        self.tmp = tmp_path
        self.root = tmp_path / "checkout"
        for part in ["k8s/kind", "k8s/overlays", "docker"]:
            shutil.copytree(ROOT / part, self.root / part)
        shutil.copy(ROOT / "Cargo.toml", self.root)
        self.bin = tmp_path / "bin"
        self.bin.mkdir()
        for name in UTILITIES:
            # Without git, docker/build.sh goes on.
            if name != "git" or shutil.which(name):
                (self.bin / name).symlink_to(shutil.which(name))
        # Nobody waits: a second passes whenever somebody looks at the clock.
        self.program("sleep", "#!/bin/sh\n")
        self.program("date", "#!/bin/sh\n" + TICK.format(1) + 'echo "$now"\n')
        for name in STAND_INS:
            self.program(name, (ROOT / "k8s/tests/stand_in.sh").read_text())
        self.place = tmp_path / "stand-in"

    def program(self, name, text):
        path = self.bin / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def run(self, arguments, answers=(), fail=None, files=(), env=(), cluster=None):
        """With a cluster, that one answers kubectl where `answers` has nothing."""
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()
        (self.place / "answers").write_text(script_of(answers) + (ASKS if cluster else ""))
        if fail:
            (self.place / "fail").write_text(pattern(fail) + "\n")
        for name, content in files:
            path = self.tmp / name
            path.write_bytes(content)
            path.chmod(0o755)
        tmp = self.tmp / "tmp"
        shutil.rmtree(tmp, ignore_errors=True)
        tmp.mkdir()
        script, *rest = [each.replace("TMP", str(self.tmp)) for each in arguments]
        with cluster.serving(self.place) if cluster else contextlib.nullcontext():
            ran = subprocess.run(
                [self.root / script, *rest],
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                cwd=self.tmp,
                timeout=120,
                preexec_fn=default_signals,
                env={"PATH": str(self.bin), "STAND_IN": str(self.place), "HOME": str(self.tmp), "TMPDIR": str(tmp), **dict(env)},
            )
        assert list(tmp.iterdir()) == [], "temporary files are removed"
        calls = self.place / "calls"
        return Ran(ran.returncode, ran.stdout, ran.stderr, calls.read_text() if calls.exists() else "")

    def anywhere(self, text):
        """Without what differs from machine to machine and from run to run."""
        text = text.replace(str(self.root), "ROOT").replace(str(self.tmp), "TMP")
        text = re.sub(r"TMP/tmp/tmp\.\w+", "TMP/tmp", text)
        return re.sub(r"REVISION=\S+", "REVISION=...", text)


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


# --- What the cluster says ---------------------------------------------------------------------------------------------------


def says(pattern, *outs, code=0):
    """What commands that match the pattern (a shell's) somewhere are answered, the first time and so on, the last one for ever."""
    return pattern, [out if isinstance(out, tuple) else (out, code) for out in outs]


def pattern(call):
    """For a shell's `case`: this very call, whatever temporary file it names."""
    return "*".join(re.sub(r"([\\*?\[])", r"\\\1", part) for part in named(call).split("*"))


def script_of(answers):
    """The answers as stand_in.sh wants them: of those that match, the first one counts."""
    lines = ["case $call in"]
    for at, (pattern, each) in enumerate(answers):
        glob = re.sub(r"[^*\[\]]+", lambda part: shlex.quote(part[0]), pattern)
        words = " ".join(f"{shlex.quote(out)} {code}" for out, code in each)
        lines.append(f"    *{glob}*) answer {at} {words} ;;")
    return "\n".join([*lines, "esac", ""])


def ready(*names):
    """Answers of kubectl about pods: these are ready."""
    return says("get pods --selector *component=server --output *jsonpath", "".join(f"{name} True\n" for name in names))


ALL = ["balsa-0", "balsa-1", "balsa-2"]
STATUS = (
    "cluster c, seen by balsa-0\n\nNAME     ID  ROLE      TERM\n"
    "balsa-0  a   leader       1\nbalsa-1  b   follower     1\nbalsa-2  c   follower     1\n"
)
WELL = [ready(*ALL), says("exec balsa-0 * status", STATUS)]
NAMES = ["balsa-control-plane", "balsa-worker", "balsa-worker2", "balsa-worker3", "balsa-worker4"]
NODES = [
    says("kind get nodes", "".join(f"{name}\n" for name in NAMES)),
    says("get nodes --output", "".join(f"{name} True\n" for name in NAMES)),
    says("docker container inspect --format *State* balsa-[cw]", "true\n"),
]
NOTHING = [
    says("docker container inspect --format *State* balsa-registry", "", code=1),
    says("kind get clusters", "other\n"),
    *NODES,
    says("docker container inspect --format *Networks", "bridge "),
]
THERE = [says("kind get clusters", "other\nbalsa\n"), *NODES, says("docker container inspect --format *Networks", "bridge kind ")]
EVERYTHING = [says("docker container inspect --format *State* balsa-registry", "true\n"), *THERE]
STOPPED_KIND = [
    says("docker container inspect --format *State* balsa-", "false\n"),
    says("config get-contexts kind-balsa", "", code=1),
    says("get --raw /readyz", ("", 1), ("ok", 0)),
    *THERE,
]
# Without the ConfigMap, which has the module in it.
RENDERED = says("kubectl kustomize", "---\n".join(each for each in rendered_text("overlays/kind").split("---\n") if "binaryData" not in each))
BUILT = [
    RENDERED,
    says("docker image inspect --format *Size* balsa:", "29000000\n"),
    says("docker image inspect * balsa:", "layers of the server\n"),
    says("docker image inspect * balsa-client:", "layers of the client\n"),
]
SERVER_TAG, CLIENT_TAG = (hashlib.sha256(f"layers of the {each}".encode()).hexdigest()[:12] for each in ["server", "client"])
HASH, OTHER = "ab" * 32, "cd" * 32


def module(name="kvstore-wasm", active=OTHER, last=(OTHER, 3, "activated")):
    serves = {"generation": 3, "hash": active, "size": 10, "version": "0.1.0"} if active else None
    row = {"from_hash": OTHER, "hash": last[0], "index": last[1], "name": name, "outcome": last[2], "reason": "no } of \"it\""}
    line = {"active": serves, "change": None, "last": row, "name": name, "wanted": [{"hash": None, "nodes": ALL}]}
    return json.dumps(line, separators=(",", ":")) + "\n"


def inspected(name="kvstore-wasm"):
    about = {"abi": 1, "hash": HASH, "methods": [{"method": "a.B/C"}], "name": name, "sdk": "s", "version": "0.2.0"}
    return says("module inspect", json.dumps(about, separators=(",", ":")) + "\n")


CONFIG = says("get configmap balsa", (ROOT / "k8s/base/balsa.toml").read_text().rstrip("\n"))
PATCHED = says("patch configmap", "configmap/balsa patched\n")
LISTED = "module list --output json"
MODULE = ("module.wasm", b"\0asm module")
COUNTER = module("kvstore-wasm") + module("counter", active=HASH, last=(HASH, 9, "activated"))


@dataclasses.dataclass
class Scenario:
    arguments: list
    answers: list
    files: list = dataclasses.field(default_factory=list)
    code: int = 0
    cluster: dict | None = None

    def run(self, machine, fail=None, more=()):
        """What came of it, and the cluster, if it is about one."""
        cluster = None if self.cluster is None else StatefulSet(**self.cluster)
        return machine.run([*self.arguments, *more], self.answers, fail, self.files, cluster=cluster), cluster


# A template that waits, one that works.
CHANGED = {"revisions": {"old": [1, True], "new": [2, True]}}
# A rollout that has stopped: a template that does not work has come as far as balsa-2.
STOPPED = {
    "revisions": {"old": [1, True], "never": [2, False], "broken": [3, False]},
    "pods": {"balsa-0": ["old", "ready"], "balsa-1": ["old", "ready"], "balsa-2": ["broken", "waiting"]},
}

SCENARIOS = {
    "kind-with-registry, from nothing": Scenario(["k8s/kind/kind-with-registry.sh"], NOTHING),
    "kind-with-registry, again": Scenario(["k8s/kind/kind-with-registry.sh"], EVERYTHING),
    "kind-with-registry, after a stop": Scenario(["k8s/kind/kind-with-registry.sh"], STOPPED_KIND),
    "build, from source": Scenario(["docker/build.sh"], []),
    "build, around a binary": Scenario(
        ["docker/build.sh", "--binary", "TMP/balsa", "--base", "busybox:1", "--tag", "new"], [], [("balsa", b"#!/bin/sh\n")]
    ),
    "start, from nothing": Scenario(["k8s/kind/start.sh"], [*NOTHING, *BUILT], cluster={}),
    "start, again, elsewhere, with a binary": Scenario(
        ["k8s/kind/start.sh", "-n", "here", "--binary", "TMP/balsa"],
        [*EVERYTHING, *BUILT],
        [("balsa", b"#!/bin/sh\n")],
        cluster=CHANGED,
    ),
    "go_statefulset": Scenario(["k8s/kind/go_statefulset.sh"], [RENDERED, says("get statefulset balsa --ignore", "3")]),
    "go_statefulset, another cluster": Scenario(
        ["k8s/kind/go_statefulset.sh", "--context", "other", "-n", "here", "-k", "TMP/checkout/k8s/overlays/production", "--timeout", "7"], []
    ),
    "go_pods": Scenario(["k8s/kind/go_pods.sh", "--current-context", "-k", "TMP/checkout/k8s/overlays/production"], []),
    "status": Scenario(
        ["k8s/kind/status.sh"],
        [*WELL, says("get statefulset balsa --ignore-not-found --output *jsonpath", "new"), says("get pods * --output name", "pod/balsa-0\n")],
    ),
    "deleteS": Scenario(["k8s/kind/deleteS.sh"], []),
    "deleteS, volumes too": Scenario(["k8s/kind/deleteS.sh", "--volumes"], []),
    "close_cl": Scenario(["k8s/kind/close_cl.sh"], []),
    "close_cl, again": Scenario(["k8s/kind/close_cl.sh"], [says("docker container inspect", "", code=1)]),
    "rollout, nothing to do": Scenario(["k8s/kind/rollout.sh"], [], cluster={}),
    "rollout": Scenario(["k8s/kind/rollout.sh"], [], cluster=CHANGED),
    "rollout of an image": Scenario(["k8s/kind/rollout.sh", "--image", "balsa:new"], [], cluster={}),
    "rollout, restart": Scenario(["k8s/kind/rollout.sh", "--restart"], [], cluster={}),
    "rollout, undo": Scenario(["k8s/kind/rollout.sh", "--undo"], [], cluster=STOPPED),
    "swap-module": Scenario(
        ["k8s/kind/swap-module.sh", "TMP/module.wasm", "--timeout", "15"],
        [*WELL, inspected(), CONFIG, PATCHED, says(LISTED, *[module()] * 13, module(active=HASH, last=(HASH, 9, "activated")))],
        [MODULE],
    ),
    "swap-module, a new name": Scenario(
        ["k8s/kind/swap-module.sh", "TMP/module.wasm"],
        [*WELL, inspected("counter"), CONFIG, PATCHED, says(LISTED, module(), module(), COUNTER)],
        [MODULE],
    ),
    "swap-module, refused": Scenario(
        ["k8s/kind/swap-module.sh", "--unchecked", "TMP/module.wasm"],
        # An older refusal of the same module is not taken for the new one.
        [*WELL, inspected(), CONFIG, PATCHED, says(LISTED, *[module(last=(HASH, 7, "refused"))] * 5, module(last=(HASH, 9, "refused")))],
        [MODULE],
        code=5,
    ),
    "swap-module, refused before": Scenario(
        ["k8s/kind/swap-module.sh", "--unchecked", "TMP/module.wasm"],
        [*WELL, inspected(), CONFIG, says("patch configmap", "configmap/balsa patched (no change)\n"), says(LISTED, module(last=(HASH, 7, "refused")))],
        [MODULE],
        code=5,
    ),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_commands_and_their_order(name, machine, golden):
    scenario = SCENARIOS[name]
    ran, _ = scenario.run(machine)
    assert ran.code == scenario.code, ran
    golden(f"{name.replace(', ', '-').replace(' ', '-')}.txt", machine.anywhere(ran.calls))


def test_every_golden_file_belongs_to_a_scenario():
    assert {path.name for path in GOLDEN.iterdir()} == {f"{name.replace(', ', '-').replace(' ', '-')}.txt" for name in SCENARIOS}


# --- What fails --------------------------------------------------------------------------------------------------------------

# Questions to which no is an answer, and what is only shown.
MAY_FAIL = re.compile(
    r"docker container inspect|kind get clusters|kubectl .*config get-contexts|kubectl .*logs deployment/balsa-client|kubectl .*get pods --selector \S+ --output wide$"
    r"|get pods \S+ \S+ --output name"
)
CHANGES = re.compile(
    r"^DOCKER_BUILDKIT|^docker (build|run|start|push|tag|rm|network|exec)|^kind (create|delete|export)"
    r"|kubectl .*\b(apply(?! --dry-run)|patch|delete|annotate|set image|rollout restart|rollout undo)\b"
)
# What puts things back, however a script ends.
PUTS_BACK = '"partition":9'

# Those that have each call of each script among them.
FAILING = [
    "kind-with-registry, from nothing",
    "kind-with-registry, after a stop",
    "build, from source",
    "build, around a binary",
    "start, from nothing",
    "go_statefulset",
    "go_pods",
    "status",
    "deleteS, volumes too",
    "close_cl",
    "rollout of an image",
    "rollout, restart",
    "rollout, undo",
    "swap-module, a new name",
]


def named(call):
    """Temporary files have another name each time."""
    return re.sub(r"/tmp/tmp\.\w+", "/tmp/tmp.*", call)


def kinds(commands):
    """One of those that differ in an ordinal only."""
    return {re.sub(r"\d", "N", each): each for each in reversed(commands)}.values()


@pytest.mark.parametrize("name", FAILING)
def test_a_command_that_fails_stops_it_with_a_sentence(name, machine):
    scenario = SCENARIOS[name]
    more = ["--timeout", "5"] if "k8s" in scenario.arguments[0] else []
    commands = [each for each in kinds(scenario.run(machine, None, more)[0].commands) if not MAY_FAIL.search(each)]
    assert commands
    for failing in commands:
        ran, cluster = scenario.run(machine, failing, more)
        ran.ended_with_a_sentence()
        at = [named(each) for each in ran.commands].index(named(failing))
        changes = [each for each in ran.commands[at + 1 :] if CHANGES.search(each) and each != failing and PUTS_BACK not in each]
        assert changes == [], f"it went on after {failing}"
        if cluster and PUTS_BACK not in failing:
            assert cluster.strategy == StatefulSet().strategy, f"pods get the newest template by themselves after {failing}"


@pytest.mark.parametrize("name", FAILING)
def test_a_question_that_fails_does_no_harm(name, machine):
    scenario = SCENARIOS[name]
    for question in [each for each in kinds(scenario.run(machine)[0].commands) if MAY_FAIL.search(each)]:
        ran, _ = scenario.run(machine, question)
        if ran.code != scenario.code:
            ran.ended_with_a_sentence()


# --- Rollouts ----------------------------------------------------------------------------------------------------------------


def rolled(machine, cluster, *options, answers=()):
    return machine.run(["k8s/kind/rollout.sh", "--timeout", "9", *options], answers, cluster=cluster)


def restarted(ran):
    return re.findall(r"delete pod balsa-(\d)", ran.calls)


def all_run(cluster, revision):
    held = cluster.strategy == {"type": "RollingUpdate", "rollingUpdate": {"partition": 9}}
    return held and cluster.current == cluster.update == revision and set(map(tuple, cluster.pods.values())) == {(revision, "ready")}


def test_a_rollout_restarts_one_server_at_a_time_from_the_highest_down(machine):
    cluster = StatefulSet(**CHANGED)
    ran = rolled(machine, cluster)
    assert ran.code == 0 and all_run(cluster, "new"), ran
    assert restarted(ran) == ["2", "1", "0"]
    assert min(cluster.ready) == 2


def test_a_pod_that_does_not_get_ready_stops_the_rollout_there_and_undo_takes_it_back(machine):
    cluster = StatefulSet()
    ran = rolled(machine, cluster, "--image", "balsa:nowhere")
    last = ran.ended_with_a_sentence()
    assert "balsa-2 did not get ready" in last and last.endswith("rollout.sh --undo"), last
    assert restarted(ran) == ["2"] and cluster.strategy["rollingUpdate"] == {"partition": 9}
    ran = rolled(machine, cluster, "--undo")
    assert ran.code == 0 and all_run(cluster, "old"), ran
    assert restarted(ran) == ["2"]
    assert min(cluster.ready) == 2


def test_undo_restarts_what_is_unwell_before_what_is_well(machine):
    pods = {"balsa-0": ["old", "ready"], "balsa-1": ["new", "stuck"], "balsa-2": ["new", "ready"]}
    # As an older rollout.sh left it: with a change of the template, Kubernetes would delete balsa-2 beside balsa-1.
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}
    cluster = StatefulSet(**CHANGED, pods=pods, strategy=strategy)
    ran = rolled(machine, cluster, "--undo")
    assert ran.code == 0 and all_run(cluster, "old"), ran
    assert restarted(ran) == ["1", "2"]
    assert min(cluster.ready) == 2


def test_what_the_pods_run_counts_and_not_what_the_status_says(machine):
    # After kubectl's undo: the newest template is the one that all had, but for balsa-2.
    pods = {"balsa-0": ["old", "ready"], "balsa-1": ["old", "ready"], "balsa-2": ["new", "ready"]}
    cluster = StatefulSet(revisions={"new": [1, True], "old": [2, True]}, pods=pods)
    ran = rolled(machine, cluster)
    assert ran.code == 0 and all_run(cluster, "old"), ran
    assert restarted(ran) == ["2"]


def test_a_rollout_that_was_interrupted_goes_on(machine):
    pods = {"balsa-0": ["old", "ready"], "balsa-1": ["old", "ready"], "balsa-2": ["new", "waiting"]}
    cluster = StatefulSet(**CHANGED, pods=pods, strategy={"type": "OnDelete", "rollingUpdate": None})
    ran = rolled(machine, cluster)
    assert ran.code == 0 and all_run(cluster, "new"), ran
    assert restarted(ran) == ["1", "0"]
    assert min(cluster.ready) == 2


@pytest.mark.parametrize("kill", ["INT", "TERM", "HUP"])
def test_an_interrupted_rollout_holds_all_servers_back(kill, machine):
    # While it waits for balsa-2, in whose time pods get the newest template.
    machine.program("sleep", f"#!/bin/sh\nkill -{kill} $PPID\n")
    cluster = StatefulSet(**CHANGED)
    ran = rolled(machine, cluster)
    assert ran.code == 130 and restarted(ran) == ["2"], ran
    assert '"type":"OnDelete"' in ran.calls and cluster.strategy == StatefulSet().strategy


def test_a_server_that_is_unwell_is_mended_first(machine):
    pods = {"balsa-0": ["old", "stuck"], "balsa-1": ["old", "ready"], "balsa-2": ["old", "ready"]}
    cluster = StatefulSet(**CHANGED, pods=pods)
    ran = rolled(machine, cluster)
    assert ran.code == 0 and all_run(cluster, "new"), ran
    assert restarted(ran) == ["0", "2", "1"]
    assert min(cluster.ready) == 2


def test_of_two_that_are_unwell_but_run_none_is_restarted(machine):
    pods = {f"balsa-{at}": ["old", "ready" if at < 3 else "stuck"] for at in range(5)}
    cluster = StatefulSet(**CHANGED, pods=pods, replicas=5)
    ran = rolled(machine, cluster)
    assert "before balsa-4 is restarted: balsa-3 is not ready" in ran.ended_with_a_sentence()
    assert restarted(ran) == []


def test_what_has_not_started_is_no_vote_to_be_lost(machine):
    pods = {f"balsa-{at}": ["old", "ready"] if at < 3 else ["broken", "waiting"] for at in range(5)}
    cluster = StatefulSet(revisions={"old": [1, True], "broken": [2, False], "new": [3, True]}, pods=pods, replicas=5)
    ran = rolled(machine, cluster)
    assert ran.code == 0 and all_run(cluster, "new"), ran
    assert restarted(ran) == ["4", "3", "2", "1", "0"]
    assert min(cluster.ready) == 3


@pytest.mark.parametrize(
    "pods, answers, why",
    [
        ({"balsa-0": ["new", "stuck"]}, [], "balsa-0 is not ready"),
        ({}, [says("exec balsa-0 * status", STATUS.replace("balsa-1  b   follower", "balsa-1  -   unreachable"))], "balsa-1 takes no part"),
        ({}, [says("exec balsa-0 * status", STATUS.replace("leader  ", "follower"))], "0 nodes say that they lead"),
        ({}, [says("exec balsa-0 * status", "exec is forbidden\n", code=1)], "balsa status, on a server: exec is forbidden"),
        ({}, [says("exec balsa-0 * status", "", code=3)], "balsa status, on a server: "),
    ],
)
def test_no_server_is_restarted_while_another_one_is_unwell(pods, answers, why, machine):
    cluster = StatefulSet(**CHANGED, pods=StatefulSet().pods | pods)
    ran = rolled(machine, cluster, answers=answers)
    assert f"before balsa-2 is restarted: {why}" in ran.ended_with_a_sentence()
    assert restarted(ran) == []


def test_a_step_may_take_as_long_as_a_node_may_take_to_stop_and_start(machine):
    servers = next(each for each in rendered("base") if each["kind"] == "StatefulSet")["spec"]["template"]["spec"]
    probe = servers["containers"][0]["startupProbe"]
    patience = int(re.search(r"--timeout SECONDS.*default: (\d+)", machine.run(["k8s/kind/rollout.sh", "--help"]).out)[1])
    assert patience >= probe["periodSeconds"] * probe["failureThreshold"] + servers["terminationGracePeriodSeconds"]


# --- Modules -----------------------------------------------------------------------------------------------------------------


def test_a_module_that_would_be_refused_changes_nothing(machine):
    answers = [*WELL, inspected(), CONFIG, says("module check", "it lacks Get\n", code=1), says(LISTED, module())]
    ran = machine.run(["k8s/kind/swap-module.sh", "TMP/module.wasm"], answers, files=[MODULE])
    assert "nothing was changed" in ran.ended_with_a_sentence()
    assert "it lacks Get" in ran.out
    assert not [each for each in ran.commands if CHANGES.search(each)]


def test_a_module_that_is_never_activated_is_not_waited_for_for_ever(machine):
    answers = [*WELL, inspected(), CONFIG, PATCHED, says(LISTED, module())]
    ran = machine.run(["k8s/kind/swap-module.sh", "TMP/module.wasm", "--timeout", "3"], answers, files=[MODULE])
    assert "within 3 s" in ran.ended_with_a_sentence()


def test_what_commands_take_is_a_part_of_the_timeout(machine):
    shebang, body = (machine.bin / "kubectl").read_text().split("\n", 1)
    machine.program("kubectl", shebang + "\n" + TICK.format(60) + body)
    answers = [*WELL, inspected(), CONFIG, PATCHED, says(LISTED, module())]
    ran = machine.run(["k8s/kind/swap-module.sh", "TMP/module.wasm", "--timeout", "300"], answers, files=[MODULE])
    assert "within 300 s" in ran.ended_with_a_sentence()
    assert 1 < ran.calls.count(LISTED) < 10


@pytest.mark.parametrize(
    "files, why",
    [([], "there is no file"), ([("module.wasm", b"x" * 1_000_001)], "compress it")],
)
def test_a_file_that_cannot_be_a_module_changes_nothing(files, why, machine):
    ran = machine.run(["k8s/kind/swap-module.sh", "TMP/module.wasm"], files=files)
    assert why in ran.ended_with_a_sentence()
    assert ran.calls == ""


@pytest.mark.parametrize("size, warning", [(30_000_000, ""), (31_500_000, "warning: balsa:0.1.0 has 31 MB, and should have 30 at most")])
def test_a_server_image_that_is_too_large_is_said_to_be(size, warning, machine):
    ran = machine.run(["docker/build.sh"], [says("docker image inspect --format *Size* balsa:", f"{size}\n")])
    assert ran.code == 0 and ran.err.startswith(warning) and bool(ran.err) == bool(warning), ran


def test_a_dynamic_binary_is_not_put_into_an_empty_image(machine):
    ran = machine.run(["docker/build.sh", "--binary", "TMP/balsa"], files=[("balsa", pathlib.Path(sys.executable).resolve().read_bytes())])
    assert "needs a loader" in ran.ended_with_a_sentence()
    assert ran.calls == ""


@pytest.mark.parametrize("script", [f"k8s/kind/{name}" for name in SCRIPTS] + ["docker/build.sh"])
def test_help_says_what_it_does_and_calls_nothing(script, machine):
    ran = machine.run([script, "--help"])
    assert ran.code == 0 and ran.calls == "" and ran.err == ""
    assert ran.out.startswith(f"{pathlib.Path(script).name}"), ran.out
    assert "set -" not in ran.out and "lib.sh" not in ran.out


@pytest.mark.parametrize("script", [f"k8s/kind/{name}" for name in SCRIPTS] + ["docker/build.sh"])
def test_a_wrong_argument_is_named_and_nothing_is_called(script, machine):
    for arguments in [["--no-such"], ["--timeout", "soon"], ["--context"]]:
        ran = machine.run([script, *arguments])
        assert arguments[-1] in ran.ended_with_a_sentence() or arguments[0] in ran.err
        assert ran.calls == ""


@pytest.mark.parametrize("script", [f"k8s/kind/{name}" for name in SCRIPTS] + ["docker/build.sh"])
def test_a_missing_tool_is_named_with_the_way_to_get_it(script, machine):
    arguments = [script] + (["TMP/module.wasm", "--timeout", "1"] if "swap" in script else [])
    missing = 0
    for tool in STAND_INS:
        hidden = machine.tmp / tool
        (machine.bin / tool).rename(hidden)
        answers = [*EVERYTHING, *BUILT, inspected(), CONFIG, says(LISTED, module())]
        ran = machine.run(arguments, answers, files=[MODULE], cluster=StatefulSet())
        hidden.rename(machine.bin / tool)
        if f"{tool} is missing" in ran.err:
            missing += 1
            assert re.search(r"error: \w+ is missing: https://\S+ has it; so (has|does) ", ran.err)
            assert not [each for each in ran.commands if CHANGES.search(each)]
    assert missing > 0


def test_an_engine_that_does_not_answer_is_named(machine):
    ran = machine.run(["k8s/kind/start.sh"], [says("docker info", "", code=1)])
    assert "engine does not answer" in ran.ended_with_a_sentence()


def test_a_cluster_that_does_not_answer_is_named(machine):
    ran = machine.run(["k8s/kind/status.sh"], [says("get --raw /readyz", "", code=1)])
    assert "no cluster answers in context kind-balsa" in ran.ended_with_a_sentence()


def test_status_says_whether_a_template_waits(machine):
    answers = SCENARIOS["status"].answers
    assert "rollout.sh restarts the servers with it" in machine.run(["k8s/kind/status.sh"], answers).out
    assert "rollout.sh" not in machine.run(["k8s/kind/status.sh"], answers[:-1]).out


def test_commands_may_be_others_with_arguments(machine):
    shutil.copy(machine.bin / "kubectl", machine.bin / "k3s")
    (machine.bin / "kubectl").unlink()
    ran = machine.run(["k8s/kind/deleteS.sh"], env={"KUBECTL": "k3s kubectl --v=1", "CONTEXT": ""}.items())
    assert ran.code == 0
    assert ran.commands[0].startswith("k3s kubectl --v=1 get --raw /readyz")


# --- What start.sh deploys ---------------------------------------------------------------------------------------------------


PUSHED = {f"localhost:5001/balsa:{SERVER_TAG}", f"localhost:5001/balsa-client:{CLIENT_TAG}"}


def test_what_start_deploys_has_the_images_that_it_pushed(machine):
    shutil.copytree(ROOT / "k8s/base", machine.root / "k8s/base")
    ran = machine.run(["k8s/kind/start.sh"], [*EVERYTHING, *BUILT], cluster=StatefulSet())
    assert ran.code == 0, ran
    text = subprocess.run(["kubectl", "kustomize", machine.root / "target/kind"], check=True, capture_output=True, text=True).stdout
    assert set(re.findall(r"image: (\S+)", text)) == PUSHED
    # The other scripts apply the same from then on.
    assert f"--kustomize {machine.root}/target/kind" in machine.run(["k8s/kind/go_statefulset.sh"]).calls
    machine.run(["k8s/kind/close_cl.sh"])
    assert not (machine.root / "target/kind").exists()


def test_an_overlay_of_ones_own_is_deployed_with_the_images_that_were_pushed(machine):
    shutil.copytree(ROOT / "k8s/base", machine.root / "k8s/base")
    own = machine.tmp / "own"
    own.mkdir()
    (own / "kustomization.yaml").write_text(
        "resources: [../checkout/k8s/base]\nnamePrefix: my-\n"
        "images: [{name: balsa, newName: registry.example:5000/team/balsa, digest: sha256:" + "0" * 64 + "}]\n"
    )

    def kustomize(directory):
        return subprocess.run(["kubectl", "kustomize", directory], check=True, capture_output=True, text=True).stdout

    documents = kustomize(own).split("---\n")
    answers = [says("kubectl kustomize", "---\n".join(each for each in documents if "binaryData" not in each)), *EVERYTHING, *BUILT]
    ran = machine.run(["k8s/kind/start.sh", "-k", "TMP/own"], answers, cluster=StatefulSet())
    assert ran.code == 0, ran
    text = kustomize(machine.root / "target/kind")
    assert set(re.findall(r"image: (\S+)", text)) == PUSHED
    assert "name: my-balsa\n" in text


def test_what_start_deploys_is_not_made_of_itself(machine):
    (machine.root / "target/kind").mkdir(parents=True)
    (machine.root / "target/kind/kustomization.yaml").touch()
    ran = machine.run(["k8s/kind/start.sh", "-k", "TMP/checkout/target/kind"], [*EVERYTHING, *BUILT], cluster=StatefulSet())
    assert "name what it was made of" in ran.ended_with_a_sentence()


def test_the_overlay_names_images_that_start_pushes(machine):
    ran = machine.run(["k8s/kind/start.sh"], [*EVERYTHING, *BUILT], cluster=StatefulSet())
    pushed = {each.removeprefix("docker push ") for each in ran.commands if each.startswith("docker push ")}
    assert set(re.findall(r"image: (\S+)", rendered_text("overlays/kind"))) < pushed == PUSHED | {
        each["spec"]["template"]["spec"]["containers"][0]["image"] for each in rendered("overlays/kind") if each["kind"] in ("StatefulSet", "Deployment")
    }


def test_the_commit_that_an_image_is_of_is_no_part_of_its_tag(machine):
    ran = machine.run(["k8s/kind/start.sh"], [*EVERYTHING, *BUILT], cluster=StatefulSet())
    asked = [each for each in ran.commands if each.startswith("docker image inspect") and "Size" not in each]
    assert asked and not [each for each in asked if "Id" in each or "Labels" in each or "RootFS" not in each]


def test_start_mends_a_first_deployment_that_went_wrong(machine):
    pods = {f"balsa-{at}": ["broken", "waiting"] for at in range(3)}
    cluster = StatefulSet(revisions={"broken": [1, False], "mended": [2, True]}, current="broken", pods=pods)
    ran = machine.run(["k8s/kind/start.sh"], [*EVERYTHING, *BUILT], cluster=cluster)
    assert ran.code == 0 and all_run(cluster, "mended"), ran
    assert "restarting balsa-2 balsa-1 balsa-0 at once" in ran.out
    assert restarted(ran) == ["2", "1", "0"]


def test_a_first_deployment_that_does_not_come_up_is_not_waited_for_for_ever(machine):
    pods = {f"balsa-{at}": ["broken", "waiting"] for at in range(3)}
    cluster = StatefulSet(revisions={"broken": [1, False]}, current="broken", pods=pods)
    ran = machine.run(["k8s/kind/start.sh", "--timeout", "5"], [*EVERYTHING, *BUILT], cluster=cluster)
    assert "within 5 s: balsa-0 is not ready" in ran.ended_with_a_sentence()
    assert restarted(ran) == []


@pytest.mark.parametrize("script", ["start.sh", "go_statefulset.sh"])
def test_more_servers_than_are_applied_are_not_taken_away_at_once(script, machine):
    answers = [says("get statefulset balsa --ignore-not-found --output *spec.replicas", "5"), *EVERYTHING, *BUILT]
    ran = machine.run([f"k8s/kind/{script}"], answers, cluster=StatefulSet())
    last = ran.ended_with_a_sentence()
    assert "there are 5 servers" in last and "has 3" in last and "--fewer" in last
    # start.sh has made sure that there is a cluster, and no more.
    assert not [each for each in ran.commands if re.search(r"\bdelete\b|docker build|--kustomize", each)]
    ran = machine.run([f"k8s/kind/{script}", "--fewer"], answers, cluster=StatefulSet())
    assert ran.code == 0, ran
    assert "--kustomize" in ran.calls


@pytest.mark.parametrize("script", ["go_statefulset.sh", "go_pods.sh"])
def test_what_the_cluster_does_not_take_deletes_nothing(script, machine):
    ran = machine.run([f"k8s/kind/{script}"], [says("apply --dry-run=server", "", code=1), RENDERED])
    assert "does not take the manifests of" in ran.ended_with_a_sentence() and "nothing was changed" in ran.ended_with_a_sentence()
    assert not [each for each in ran.commands if CHANGES.search(each)]


def test_what_cannot_be_changed_is_made_anew(machine):
    shebang, body = (machine.bin / "kubectl").read_text().split("\n", 1)
    told = 'case "$*" in *--dry-run=server*) echo "Forbidden: updates to statefulset spec for fields other than" >&2; exit 1 ;; esac\n'
    machine.program("kubectl", f"{shebang}\n{told}{body}")
    ran = machine.run(["k8s/kind/go_statefulset.sh"], [RENDERED])
    assert ran.code == 0 and "delete statefulset" in ran.calls


@pytest.mark.parametrize("script", ["go_statefulset.sh", "go_pods.sh"])
@pytest.mark.parametrize("where", [["--current-context"], ["--context", "other"]])
def test_what_is_applied_to_another_cluster_has_to_be_said(script, where, machine):
    ran = machine.run([f"k8s/kind/{script}", *where])
    assert "--overlay" in ran.ended_with_a_sentence() and ran.calls == ""


def test_start_deploys_again_what_it_deployed_before(machine):
    own = machine.root / "k8s/overlays/production"
    answers = [*EVERYTHING, *BUILT]
    machine.run(["k8s/kind/start.sh", "-k", str(own)], answers, cluster=StatefulSet())
    ran = machine.run(["k8s/kind/start.sh"], answers, cluster=StatefulSet())
    assert ran.code == 0 and f"kubectl kustomize {own}\n" in ran.calls, ran


@pytest.mark.parametrize("script", ["start.sh", "go_statefulset.sh", "go_pods.sh"])
def test_what_cannot_be_rendered_deletes_nothing(script, machine):
    ran = machine.run([f"k8s/kind/{script}"], [says("kubectl kustomize", "", code=1), *EVERYTHING, *BUILT], cluster=StatefulSet())
    assert "does not make manifests; nothing was changed" in ran.ended_with_a_sentence()
    assert not [each for each in ran.commands if CHANGES.search(each)]


# --- A kind cluster that is not whole ----------------------------------------------------------------------------------------


def test_a_kind_cluster_that_was_made_by_halves_is_named_with_the_way_out(machine):
    half = says("get nodes --output", "balsa-control-plane True\nbalsa-worker False\n")
    ran = machine.run(["k8s/kind/kind-with-registry.sh", "--timeout", "3"], [half, *EVERYTHING])
    last = ran.ended_with_a_sentence()
    assert "its node balsa-worker is not ready" in last and "k8s/kind/close_cl.sh removes it" in last
    assert not [each for each in ran.commands if CHANGES.search(each)]


def test_a_context_of_another_cluster_is_not_waited_for(machine):
    other = says("get nodes --output", "node-1 True\nnode-2 True\n")
    ran = machine.run(["k8s/kind/kind-with-registry.sh", "--context", "other"], [other, *EVERYTHING])
    last = ran.ended_with_a_sentence()
    assert "the context other is not that of the kind cluster balsa" in last and "close_cl" not in last
    assert not [each for each in ran.commands if CHANGES.search(each)]


def test_a_context_that_is_there_is_not_written_again(machine):
    assert "export kubeconfig" not in machine.run(["k8s/kind/kind-with-registry.sh"], EVERYTHING).calls
