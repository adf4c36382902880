#!/bin/sh
# Installs what Weir needs from Debian or Ubuntu, skipping what is there.
#   deploy/packages.sh build    to build and run
#   deploy/packages.sh test     to pass the tests as well
set -eu
packages="gcc libc6-dev cmake ninja-build pkg-config protobuf-compiler protobuf-c-compiler libprotobuf-c-dev libzmq3-dev
libsqlite3-dev libssl-dev libjansson-dev libicu-dev uthash-dev libdnnl-dev libspng-dev libavformat-dev libavcodec-dev
libswscale-dev libavutil-dev"
case "${1:-}" in
build) ;;
test) packages="$packages git ccache clang llvm libcmocka-dev python3-numpy procps" ;;
*) sed -n '2,4p' "$0" >&2; exit 64 ;;
esac

missing=""
for package in $packages; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

as_root=""
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "packages.sh: not root, and there is no sudo; these are missing:$missing" >&2; exit 64; }
    as_root=sudo
fi
echo "installing:$missing" >&2
export DEBIAN_FRONTEND=noninteractive
quiet=$(mktemp)
trap 'rm -f "$quiet"' EXIT
if ! { $as_root apt-get update -qq && $as_root apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=600 $missing; } >"$quiet" 2>&1; then
    tail -n 20 "$quiet" >&2
    exit 70
fi
