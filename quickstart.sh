#!/bin/sh
# From nothing to a film:  sh quickstart.sh "a red circle moving right on a navy background" [weir run options]
# Installs the packages that are missing (as root or through sudo), builds, and runs `weir run`. The second time it only
# runs.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
[ $# -gt 0 ] || set -- "a red circle moving right on a navy background"
sh "$here/deploy/packages.sh" build
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { cmake -S "$here" --preset release -B "$here/build/release" && cmake --build "$here/build/release"; } >"$log" 2>&1; then
    tail -n 40 "$log" >&2
    echo "quickstart.sh: the build failed" >&2
    exit 70
fi
rm -f "$log"
trap - EXIT
exec "$here/build/release/bin/weir" run "$@"
