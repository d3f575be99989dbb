"""A model of one StatefulSet, its pods and its revisions, which answers in kubectl's place.

It does what Kubernetes' controller does with a StatefulSet of parallel pods; k8s/test/cases runs the same scripts on the real one. Each call is
one look of the controller and one of the kubelet, so that pods go, come back and get ready from call to call. What it does not know, it answers
with success and no text."""

import contextlib
import copy
import errno
import json
import os
import re
import threading

# What becomes of a pod whose template works, from call to call. One whose template does not work never starts.
LIFE = ["waiting", "started", "ready"]


class StatefulSet:
    def __init__(self, **state):
        self.generation = 2
        self.replicas = 3
        self.strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 9}}
        # By name: number, and whether it works. The template is the one of the highest number.
        self.revisions = {"old": [1, True]}
        self.current = "old"
        # By name: template and state. "stuck" is one that has started and is not ready, and does not get so.
        self.pods = {f"balsa-{at}": ["old", "ready"] for at in range(3)}
        # How many were ready, after each call.
        self.ready = []
        self.__dict__.update(copy.deepcopy(state))

    @property
    def update(self):
        return max(self.revisions, key=lambda name: self.revisions[name][0])

    def names(self, state="ready"):
        return sorted(name for name, (_, its) in self.pods.items() if its == state)

    def change(self, name, works=True):
        """The template becomes this one, which it may have been before."""
        known = self.revisions.get(name, [0, works])
        self.revisions[name] = [1 + max(number for number, _ in self.revisions.values()), known[1]]
        self.generation += 1

    # --- What Kubernetes does --------------------------------------------------------------------------------------------------

    def look(self):
        for name in self.names("deleted"):
            del self.pods[name]
        for name, (revision, state) in self.pods.items():
            if state in LIFE[:-1] and self.revisions[revision][1]:
                self.pods[name][1] = LIFE[LIFE.index(state) + 1]
        rolls = self.strategy["type"] == "RollingUpdate"
        partition = self.strategy["rollingUpdate"]["partition"] if rolls else 0
        for at in range(self.replicas):
            name = f"balsa-{at}"
            if name not in self.pods:
                self.pods[name] = [self.current if at < partition else self.update, "waiting"]
        if rolls:
            self.roll(partition)
        self.ready.append(len(self.names()))

    def roll(self, partition):
        if {tuple(each) for each in self.pods.values()} == {(self.update, "ready")}:
            self.current = self.update
        # From the highest on: no look at those below.
        for at in reversed(range(partition, self.replicas)):
            revision, state = self.pods[f"balsa-{at}"]
            if revision != self.update and state != "deleted":
                self.pods[f"balsa-{at}"][1] = "deleted"
                return
            if state != "ready":
                return

    # --- What kubectl is asked -------------------------------------------------------------------------------------------------

    def answer(self, arguments):
        """Text and exit code."""
        call = " ".join(arguments)
        if call.startswith("get statefulset balsa"):
            if "--output name" in call:
                return "statefulset.apps/balsa\n", 0
            words = {
                ".metadata.generation": self.generation,
                ".status.observedGeneration": self.generation,
                ".spec.replicas": self.replicas,
                ".status.currentRevision": self.current,
                ".status.updateRevision": self.update,
            }
            return " ".join(str(words[each]) for each in re.findall(r"{([^}]*)}", call)), 0
        if call.startswith("get pods") and "jsonpath" in call:
            return "".join(self.row(name, "|" in call) for name in sorted(self.pods)), 0
        if call.startswith("get controllerrevision"):
            return str(self.revisions[arguments[2]][0]), 0
        if call.endswith("-- balsa status"):
            return self.status()
        if call.startswith("patch statefulset"):
            self.strategy = json.loads(arguments[-1])["spec"]["updateStrategy"]
            assert (self.strategy["type"] == "OnDelete") == (self.strategy["rollingUpdate"] is None)
        elif call.startswith("set image"):
            self.change(arguments[-1].split("=")[1].replace(":", "-"), works="nowhere" not in call)
        elif call.startswith("rollout restart"):
            self.change("restarted")
        elif call.startswith("rollout undo"):
            number = int(re.search(r"--to-revision=(\d+)", call)[1])
            self.change(next(name for name, each in self.revisions.items() if each[0] == number))
        elif call.startswith("delete pod "):
            self.pods[arguments[2]][1] = "deleted"
        return "", 0

    def row(self, name, whole):
        revision, state = self.pods[name]
        ready = str(state in ("ready", "deleted"))
        started = str(state in ("ready", "deleted", "stuck")).lower()
        deleted = "2026-11-29T00:00:00Z" if state == "deleted" else ""
        return f"{name}|{revision}|{ready}|{started}|{deleted}\n" if whole else f"{name} {ready}\n"

    def status(self):
        ready = self.names()
        if len(ready) <= self.replicas // 2:
            return "", 3
        rows = [f"{name}  id  {'leader' if name == ready[0] else 'follower'}  1" for name in ready]
        rows += [f"balsa-{at}  -  unreachable  -" for at in range(self.replicas) if f"balsa-{at}" not in ready]
        return "cluster c, seen by " + ready[0] + "\n\nNAME  ID  ROLE  TERM\n" + "\n".join(rows) + "\n", 0


    # --- How it is asked -------------------------------------------------------------------------------------------------------

    def call(self, arguments):
        """What came of kubectl with these arguments: text and exit code."""
        while arguments and arguments[0].startswith("--"):
            arguments = arguments[2:]
        answer = self.answer(arguments)
        self.look()
        return answer

    @contextlib.contextmanager
    def serving(self, place):
        """Answers those who write their arguments into the pipe `asked`, one a line, and read `answer`: exit code, and text."""
        asked, answer = place / "asked", place / "answer"
        os.mkfifo(asked)
        os.mkfifo(answer)

        def serve():
            # Nothing asked is the end.
            while arguments := asked.read_text().splitlines():
                text, code = self.call(arguments)
                with contextlib.suppress(BrokenPipeError):
                    answer.write_text(f"{code}\n{text}")

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            while thread.is_alive():
                # It waits to be asked, or for one who has asked and was killed.
                for pipe, mode in [(asked, os.O_WRONLY), (answer, os.O_RDONLY)]:
                    try:
                        os.close(os.open(pipe, mode | os.O_NONBLOCK))
                    except OSError as error:
                        assert error.errno == errno.ENXIO
                thread.join(0.01)


# For a stand-in (stand_in.sh), which has these arguments.
ASKS = """case $call in
    kubectl*)
        printf '%s\\n' "$@" >"$STAND_IN/asked"
        exec 3<"$STAND_IN/answer"
        read -r code <&3
        cat <&3
        exit "$code"
        ;;
esac
"""
