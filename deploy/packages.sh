#!/bin/sh
# Installs what Weir needs from Debian or Ubuntu, skipping what is there.
#   deploy/packages.sh build    to build and run
#   deploy/packages.sh test     to pass the tests as well
set -eu
packages="gcc libc6-dev cmake ninja-build pkg-config protobuf-compiler protobuf-c-compiler libprotobuf-c-dev libzmq3-dev
libsqlite3-dev libssl-dev libjansson-dev libcsv-dev libicu-dev uthash-dev libdnnl-dev libspng-dev libavformat-dev libavcodec-dev
libswscale-dev libavutil-dev libjpeg-dev libwebp-dev zlib1g-dev"
case "${1:-}" in
build) ;;
test) packages="$packages git ccache clang llvm libcmocka-dev python3-numpy procps" ;;
*) sed -n '2,4p' "$0" >&2; exit 64 ;;
esac

# install PACKAGE...: those that are not there yet
install() {
    missing=""
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    as_root=""
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || { echo "packages.sh: not root, and there is no sudo; these are missing:$missing" >&2; exit 64; }
        as_root="sudo DEBIAN_FRONTEND=noninteractive"
    fi
    echo "installing:$missing" >&2
    said=$(mktemp)
    if ! { $as_root apt-get update -qq && $as_root apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=600 $missing; } >"$said" 2>&1; then
        tail -n 20 "$said" >&2
        rm -f "$said"
        exit 70
    fi
    rm -f "$said"
}

export DEBIAN_FRONTEND=noninteractive
install $packages
if [ "$1" = test ]; then # the sanitizers' libraries are a package named after clang's version
    version=$(clang --version | sed -n 's/.*version \([0-9]*\).*/\1/p' | head -n 1)
    [ -e "$(clang -print-file-name=libclang_rt.fuzzer-x86_64.a)" ] || install "libclang-rt-$version-dev"
fi
