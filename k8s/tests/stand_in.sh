#!/bin/sh
# A stand-in of kind, docker or kubectl, for the tests of scripts: it notes how it was called, and answers as the test says. It starts
# nothing itself but for `cat`, since the scripts call it often.
#
# In the directory STAND_IN, `answers` is a script that answers; what it has nothing for is answered with success and no text.
# `fail`, if it is there, has a pattern of the command line that fails. Calls go to `calls`, with what they were given to read.
call=${0##*/}
case "$call $1" in
    'docker build') call="DOCKER_BUILDKIT=${DOCKER_BUILDKIT-} BUILDX_NO_DEFAULT_ATTESTATIONS=${BUILDX_NO_DEFAULT_ATTESTATIONS-} $call" ;;
esac
given=
before=
for argument; do
    case $argument in
        '' | *[!A-Za-z0-9_@%+=:,./-]*) call="$call '$argument'" ;;
        *) call="$call $argument" ;;
    esac
    case $argument in
        - | --stdin | --interactive) given=/dev/stdin ;;
    esac
    [ "$before" != --patch-file ] || given=$argument
    before=$argument
done
{
    printf '$ %s\n' "$call"
    if [ -n "$given" ]; then
        while IFS= read -r line || [ -n "$line" ]; do
            printf '    %s\n' "$line"
        done <"$given"
    fi
} >>"$STAND_IN/calls"

if [ -e "$STAND_IN/fail" ]; then
    failing=
    IFS= read -r failing <"$STAND_IN/fail"
    # shellcheck disable=SC2254 # a pattern
    case $call in
        $failing)
            echo "it does not work today" >&2
            exit 1
            ;;
    esac
fi

# answer NUMBER TEXT CODE [TEXT CODE]...: one after the other, the last one for ever.
answer() {
    counter=$STAND_IN/given-$1
    turn=0
    [ ! -e "$counter" ] || read -r turn <"$counter"
    echo $((turn + 1)) >"$counter"
    shift
    while [ "$turn" -gt 0 ] && [ $# -gt 2 ]; do
        shift 2
        turn=$((turn - 1))
    done
    printf %s "$1"
    exit "$2"
}
# shellcheck source=/dev/null
. "$STAND_IN/answers"
