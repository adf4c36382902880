# What the shell tests share: the programs, a folder to work in, a cluster that runs. A test's first line of code is
#   . "$(dirname "$0")/cluster.sh"
# and its arguments are BUILD_DIR SOURCE_DIR [KILL_PRELOAD].
#
# Variables  weir, encode   the programs
#            golden, tiny   the folder of the tiny models, and the first of them
#            work           an empty folder, removed at the end, in which lie: out; tmp, which is TMPDIR; words and
#                           stdout, what the last weir_ends said on stderr and stdout; log, what clusters said
#            serve          the process of the cluster that runs, or empty
# Functions  fail WORDS...                         ends the test with them, and with the ends of words and log
#            eventually SECONDS WORDS COMMAND...   waits until the command succeeds; fails with WORDS if it never does
#            weir_ends CODE ARGUMENTS...           weir ends so; where no cluster runs, it leaves nothing
#            refused CODE PATTERN ARGUMENTS...     ... with one line on stderr, which matches, and no new file in out
#            said PATTERN                          what stderr said matches
#            verified FILE OPTIONS...              `weir verify` makes the same bytes
#            start DIR ARGUMENTS...                `weir serve`; returns when it answers. One at a time
#            stop                                  ends it
#            nothing_left WHO                      neither files in tmp nor processes
#
# With KILL_PRELOAD a cluster's worker dies at the moment that stands in $work/kill (kill_preload.c).
# shellcheck shell=sh disable=SC2034 # what only the tests use
weir=$1/bin/weir
encode=$1/bin/weir-encode
golden=$2/tests/golden
tiny=$golden/tiny-a
kill_preload=${3-}
serve=""
work=$(mktemp -d)
mkdir "$work/tmp" "$work/out"
export TMPDIR="$work/tmp"

stop() {
    [ -n "$serve" ] || return 0
    kill "$serve" 2>/dev/null || :
    wait "$serve" || :
    serve=""
}
cleanup() {
    stop
    rm -rf "$work"
}
trap cleanup EXIT INT TERM

fail() {
    echo "$(basename "$0" .sh): $*" >&2
    for file in "$work/words" "$work/log"; do
        [ ! -f "$file" ] || tail -30 "$file" | sed 's/^/    /' >&2
    done
    exit 1
}

eventually() {
    deadline=$(($(date +%s) + $1)) late=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ -z "$serve" ] || kill -0 "$serve" 2>/dev/null || fail "serve ended"
        [ "$(date +%s)" -le "$deadline" ] || fail "$late"
        sleep 0.01
    done
}

nothing_left() {
    [ -z "$(ls -A "$work/tmp")" ] || fail "$1 left $(ls -A "$work/tmp")"
    # The brackets keep pgrep from finding itself where /proc counts processes otherwise than we do.
    if pgrep -f "[w]eir-.*( |ipc://)$work/" >/dev/null; then fail "$1 left processes"; fi
}

weir_ends() {
    code=$1
    shift
    got=0
    "$weir" "$@" >"$work/stdout" 2>"$work/words" || got=$?
    [ "$got" = "$code" ] || fail "weir $*: exit code $got, not $code: $(cat "$work/stdout")"
    [ -n "$serve" ] || nothing_left "weir $*"
}

said() { grep -q -e "$1" "$work/words" || fail "no '$1' in"; }

refused() {
    code=$1 pattern=$2
    shift 2
    before=$(ls -A "$work/out")
    weir_ends "$code" "$@"
    [ "$(wc -l <"$work/words")" = 1 ] || fail "weir $*: not one line"
    said "$pattern"
    [ ! -s "$work/stdout" ] || fail "weir $*: something on stdout"
    [ "$(ls -A "$work/out")" = "$before" ] || fail "weir $* left $(ls -A "$work/out")"
}

verified() {
    weir_ends 0 verify "$@" -q
    [ "$(cat "$work/stdout")" = "same bytes" ] || fail "weir verify $*: $(cat "$work/stdout")"
    [ ! -s "$work/words" ] || fail "weir verify $*: words on stderr"
}

start() {
    at=$1
    shift
    env ${kill_preload:+LD_PRELOAD="$kill_preload"} WEIR_TEST_KILL="$work/kill" \
        "$weir" serve --dir "$at" --test-timers "$@" >>"$work/log" 2>&1 &
    serve=$!
    eventually 60 "serve does not answer" "$weir" ls --dir "$at"
}
