#!/bin/sh
# swap-module.sh FILE: puts a module (.wasm, or .wasm.zst) into the ConfigMap, has all servers look at it at once, waits until the
# cluster has activated it, and shows that. The servers run on; no call is lost.
#
# The module replaces the one of its own name. One with a new name is added to balsa.toml, and serves beside the others. It is checked
# first, as a node would, and against what clients use now; if it does not pass, nothing is changed. Exit code 5 if the cluster refuses it
# nevertheless; then the old one serves on.
#
#   --unchecked           leave that check to the cluster, for instance since balsa.toml allows a breaking change
. "$(dirname "$0")/lib.sh"

file=''
unchecked=''
own_option() {
    taken=1
    case $1 in
        --unchecked) unchecked=1 ;;
        -*) taken=0 ;;
        *)
            [ -z "$file" ] || wrong "one module at a time, not $file and $1"
            file=$1
            ;;
    esac
}
take_options "$@"
[ -n "$file" ] || wrong "which module? A .wasm or .wasm.zst file is missing"
[ -f "$file" ] || fail "there is no file $file"
# A ConfigMap holds 1 MiB in all, beside balsa.toml and other modules.
bytes=$(($(wc -c <"$file")))
[ "$bytes" -le 1000000 ] || fail "$file has $bytes bytes, and a ConfigMap holds about a million: compress it, with zstd -19 $file"
need base64
need_cluster

pod=$(ready_pod)
[ -n "$pod" ] || fail "no server is ready, and a swap needs a majority of them"
# The file goes there on standard input: a server's own files are read-only.
module() { kube exec --stdin "$pod" --container balsa -- balsa module "$@" /dev/stdin <"$file"; }

# text NAME, out of one line of JSON: the last string of that name.
text() { sed -n 's/.*"'"$1"'":"\([^"]*\)".*/\1/p'; }

about=$(module inspect --output json) || fail "$file is not a module that balsa can read"
name=$(printf %s "$about" | text name)
hash=$(printf %s "$about" | text hash)
[ -n "$name" ] && [ -n "$hash" ] || fail "balsa says neither name nor hash of $file"
# Twelve digits, as balsa shows it.
short=$(printf %.12s "$hash")
say "$name $(printf %s "$about" | text version) $short"

# What the cluster knows of modules, a line of JSON for each; and of it, this one's.
read_modules() { modules=$(on_server module list --output json); }
known() { printf '%s\n' "$modules" | grep -F '"name":"'"$name"'"'; }
# The hash of the module that serves, or nothing.
active() { known | sed -n 's/.*"active":{[^}]*"hash":"\([0-9a-f]*\)".*/\1/p'; }
# The index of the last refusal of this very module, or nothing.
refused() { known | sed -n 's/.*"last":{[^}]*"hash":"'"$hash"'","index":\([0-9]*\)[^}]*"outcome":"refused".*/\1/p'; }

read_modules || fail "the servers do not list their modules"
if [ -z "$unchecked" ]; then
    against=
    [ -z "$(active)" ] || against=--against-cluster
    # shellcheck disable=SC2086 # nothing, or one word
    module check $against || fail "nothing was changed: the module did not pass the check, or that could not be made; see above"
fi

# --- The ConfigMap ---------------------------------------------------------------------------------------------------------

# The path that balsa.toml (standard input) gives the module $1.
path_of() {
    awk -v wanted="$1" '
        function value(line) {
            sub(/^[^=]*=[ \t]*/, "", line)
            quote = substr(line, 1, 1)
            line = substr(line, 2)
            return substr(line, 1, index(line, quote) - 1)
        }
        /^[ \t]*\[/ { name = path = ""; inside = /^[ \t]*\[\[[ \t]*module[ \t]*\]\]/ }
        inside && /^[ \t]*name[ \t]*=/ { name = value($0) }
        inside && /^[ \t]*path[ \t]*=/ { path = value($0) }
        inside && name == wanted && path != "" { print path; exit }
    '
}
# Standard input as the inside of a string of JSON.
quoted() { awk '{ gsub(/\\/, "\\\\"); gsub(/"/, "\\\""); gsub(/\t/, "\\t"); printf "%s\\n", $0 }'; }

toml=$(kube get configmap balsa --output 'jsonpath={.data.balsa\.toml}') || fail "there is no ConfigMap balsa"
[ -n "$toml" ] || fail "the ConfigMap balsa has no balsa.toml"
path=$(printf '%s\n' "$toml" | path_of "$name")
data=
if [ -z "$path" ]; then
    say "balsa.toml has no module $name yet: adding it"
    path=$name.wasm
    toml=$(printf '%s\n\n[[module]]\nname = "%s"\npath = "%s"' "$toml" "$name" "$path")
    data='"data":{"balsa.toml":"'$(printf '%s\n' "$toml" | quoted)'"},'
fi
case $path in
    */*) fail "balsa.toml has $name in $path, which is no file of the ConfigMap" ;;
esac

refused_before=$(refused)
patch=$(mktemp)
trap 'rm -f "$patch"' EXIT
trap 'exit 130' INT TERM HUP
# In a file: a command line may not have room for a module.
printf '{%s"binaryData":{"%s":"%s"}}' "$data" "$path" "$(base64 <"$file" | tr -d '\n')" >"$patch"
answer=$(kube patch configmap balsa --type merge --patch-file "$patch") ||
    fail "the ConfigMap does not take the module; it may hold 1 MiB in all"
say "$answer"
case $answer in
    # Nothing will be tried again, so an earlier refusal is the answer.
    *'no change'*) refused_before= ;;
esac

# --- The cluster -----------------------------------------------------------------------------------------------------------

# The kubelet looks at a pod whose annotations have changed at once; else it would take up to a minute and a half. It may look before
# it has heard of the new ConfigMap itself, so this is done again from time to time.
looks=0
look() {
    looks=$((looks + 1))
    kube annotate pods --selector "$servers" --overwrite "balsa/look-again=$short-$looks" >/dev/null ||
        fail "the pods cannot be annotated"
}

came_of_it() {
    [ $((polls % 10)) -ne 0 ] || look
    polls=$((polls + 1))
    why="balsa module list does not answer"
    read_modules 2>/dev/null || return 1
    why="the cluster has not activated it"
    [ "$(active)" != "$hash" ] || return 0
    refusal=$(refused)
    [ -n "$refusal" ] && [ "$refusal" != "$refused_before" ]
}
polls=0
say "waiting for $short to be activated"
eventually "$timeout" came_of_it || {
    on_server module list >&2 || true
    fail "that has not happened within $timeout s; it may still"
}
on_server module list || fail "the servers do not list their modules"
if [ "$(active)" != "$hash" ]; then
    printf 'error: the cluster refuses %s; the module that served before serves on\n' "$short" >&2
    exit 5
fi
