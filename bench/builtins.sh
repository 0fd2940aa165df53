#!/bin/sh
# builtins.sh [FLAG...] - what -ffreestanding costs a guest, and what FLAGs, such as -mtune=haswell, change; honours CC
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
one() { # one VERSION FLAG...: all names but those of the work are the object's own
    v=$1; shift
    "${CC:-cc}" -O2 "$@" -DHLSNAP_GUEST -D_start=unused_start "-DVERSION=$v" -I"$top" -c "$top/bench/builtins.c" -o "$v.o"
    for w in small strings text bulk numbers; do echo "${w}_$v"; done >keep
    objcopy --keep-global-symbols=keep "$v.o"
}
one a -ffreestanding "$@"
one b "$@"
one c -fno-builtin "$@"
"${CC:-cc}" -O2 "$top/bench/builtins.c" a.o b.o c.o -o builtins
./builtins
