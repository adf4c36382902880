#!/bin/sh
# The installed SDK is enough: an example compiles with pkg-config's words alone, and makes a film through a cluster.
#   test_sdk.sh BUILD_DIR SOURCE_DIR
set -eu
build=$1
source=$2
work=$(mktemp -d)
server=""
cleanup() {
    [ -z "$server" ] || { kill "$server" 2>/dev/null && wait "$server" || :; }
    rm -rf "$work"
}
trap cleanup EXIT INT TERM

cmake --install "$build" --prefix "$work/prefix" >/dev/null
PKG_CONFIG_PATH=$(dirname "$(find "$work/prefix" -name weir.pc)")
export PKG_CONFIG_PATH
libdir=$(pkg-config --variable=libdir weir | sed "s|^.*/lib|$work/prefix/lib|")
# The prefix of the file is the one that was configured; the test installs elsewhere.
flags=$(pkg-config --define-variable=prefix="$work/prefix" --cflags --libs weir)
cc -std=c11 -Wall -Wextra -Werror ${WEIR_SANITIZE:+-fsanitize=$WEIR_SANITIZE} "$source/tests/integration/sdk_example.c" $flags \
    -L"$libdir" -Wl,-rpath,"$libdir" -o "$work/example"

"$build/bin/weir" serve --dir "$work/state" --model "$source/tests/golden/tiny-a" >"$work/serve.log" 2>&1 &
server=$!
tries=0
until grep -q '^serving' "$work/serve.log"; do
    tries=$((tries + 1))
    [ "$tries" -lt 300 ] && kill -0 "$server" 2>/dev/null || { cat "$work/serve.log"; exit 1; }
    sleep 0.1
done
until "$work/example" "$work/state" "a red circle" "$work/film.mp4"; do
    tries=$((tries + 1))
    [ "$tries" -lt 400 ] || { cat "$work/serve.log"; exit 1; }
    sleep 0.1
done
"$build/bin/weir-encode" probe "$work/film.mp4" | grep -q '"frames"'
if "$work/example" "$work/nowhere" "a red circle" "$work/film.mp4" 2>"$work/words"; then exit 1; fi
grep -q nowhere "$work/words"
echo "test_sdk: passed"
