"""A stand-in of kind, docker or kubectl, for the tests of scripts: it notes how it was called, and answers as the test says.

The directory STAND_IN has `answers.json`: a list of [pattern, answers], of which the first that matches the command line counts. Its
answers are given one after the other, the last of them for ever: {"out": text, "code": number}. What nothing matches is answered with
success and no text. `fail.txt`, if it is there, is a command line that fails. Calls go to `calls.txt`."""

import fcntl
import json
import os
import pathlib
import re
import shlex
import sys

# Which arguments say that standard input, or a file, is what matters.
READS_STDIN = {"-", "--stdin", "--interactive"}
READS_FILE = "--patch-file"


def main():
    place = pathlib.Path(os.environ["STAND_IN"])
    name, arguments = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
    call = shlex.join([name, *arguments])
    if name == "docker" and arguments[:1] == ["build"]:
        call = f"DOCKER_BUILDKIT={os.environ.get('DOCKER_BUILDKIT')} {call}"
    given = ""
    if READS_STDIN & set(arguments):
        given = sys.stdin.buffer.read().decode(errors="replace")
    elif READS_FILE in arguments:
        given = pathlib.Path(arguments[arguments.index(READS_FILE) + 1]).read_text()
    with open(place / "calls.txt", "a") as calls:
        fcntl.flock(calls, fcntl.LOCK_EX)
        calls.write(f"$ {call}\n" + "".join(f"    {line}\n" for line in given.splitlines()))
    fail = place / "fail.txt"
    if fail.exists() and call == fail.read_text():
        print("it does not work today", file=sys.stderr)
        return 1
    answer = find(place, call)
    sys.stdout.write(answer.get("out", ""))
    sys.stderr.write(answer.get("err", ""))
    return answer.get("code", 0)


def find(place, call):
    for at, (pattern, answers) in enumerate(json.loads((place / "answers.json").read_text())):
        if re.search(pattern, call):
            counter = place / f"given-{at}"
            given = int(counter.read_text()) if counter.exists() else 0
            counter.write_text(str(given + 1))
            return answers[min(given, len(answers) - 1)]
    return {}


sys.exit(main())
