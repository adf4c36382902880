#!/bin/sh
# The installed SDK is enough: an example compiles with pkg-config's words alone, and makes a film through a cluster.
#   test_sdk.sh BUILD_DIR SOURCE_DIR
set -eu
# shellcheck source=tests/integration/cluster.sh
. "$(dirname "$0")/cluster.sh"

cmake --install "$1" --prefix "$work/prefix" >/dev/null
PKG_CONFIG_PATH=$(dirname "$(find "$work/prefix" -name weir.pc)")
export PKG_CONFIG_PATH
libdir=$(pkg-config --variable=libdir weir | sed "s|^.*/lib|$work/prefix/lib|")
# The prefix of the file is the one that was configured; the test installs elsewhere.
flags=$(pkg-config --define-variable=prefix="$work/prefix" --cflags --libs weir)
cc -std=c11 -Wall -Wextra -Werror ${WEIR_SANITIZE:+-fsanitize=$WEIR_SANITIZE} "$2/tests/integration/sdk_example.c" $flags \
    -L"$libdir" -Wl,-rpath,"$libdir" -o "$work/example"

start "$work/state" --model "$tiny"
eventually 30 "the example makes no film" "$work/example" "$work/state" "a red circle" "$work/film.mp4"
"$encode" probe "$work/film.mp4" | grep -q '"frames"'
if "$work/example" "$work/nowhere" "a red circle" "$work/film.mp4" 2>"$work/words"; then fail "a film from nowhere"; fi
said nowhere
echo "test_sdk: passed"
