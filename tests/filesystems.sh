#!/bin/sh
# filesystems.sh DIR [PROGRAMS] - the store's tests on ext4, xfs, btrfs, tmpfs and overlayfs, on small images in memory; test_clone
# is told whether a load at guard PRIVATE must be a clone there. What of test_shared runs anywhere also through FUSE: bindfs, and
# exfat-fuse, which has no hard links, modes or owners, and where a name is gone for a moment when it is replaced. TAP; all below
# DIR. Needs root, mount namespaces, loop devices.
#   PROGRAMS    where test_oci and the others were built, by default the directory around DIR; what is missing there or older
#               than its source is compiled
#   INSTALL=1   may apt-get install xfsprogs, btrfs-progs, bindfs, exfat-fuse and exfatprogs
#   ONLY=NAME   only this file system
# exit 0 all passed or skipped, 1 failure, 77 all skipped.
# shellcheck disable=SC2317 # called by traps and by names
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1" && build=$(cd "$1" && pwd) || exit 1
programs=$(cd "${2:-$build/..}" && pwd) || exit 1
# shellcheck source=tests/need.sh
. "$top/tests/need.sh"
# shellcheck source=tests/tap.sh
. "$top/tests/tap.sh"
# shellcheck source=tests/mounts.sh
. "$top/tests/mounts.sh"
work=$build/work child='' device=
clean() {
    [ -z "$child" ] || { kill "$child" && wait "$child"; } 2>/dev/null
    unmount_all
    [ -z "$device" ] || losetup -d "$device"
}
alone "file systems" 3500 "$0" "$@"

# ---- the programs ----
mkdir "$work/bin" "$work/at"
program() { # program NAME LIBS...
    t=$1 cc=${CC:-cc}
    shift
    if [ -x "$programs/$t" ] && [ -z "$(find "$top"/*.h "$top"/tests/*.h "$top/tests/$t.c" -newer "$programs/$t")" ]; then
        ln -s "$programs/$t" "$work/bin/$t"
    else
        "$cc" -std=gnu11 -O1 -I"$top" "$top/tests/$t.c" -o "$work/bin/$t" "$@"
    fi
}
guest() { "${CC:-cc}" -O2 -DHLSNAP_GUEST -ffreestanding -nostdlib -static -I"$top" "$top/tests/$1.c" -o "$work/bin/$1.elf"; }
{ program test_oci -lcjson && program test_layers -lcjson && program test_crash -lcjson -lcrypto && program test_clone -lcjson &&
    program test_store -lcjson && program test_shared -lcjson && program test_cache -lcjson &&
    guest guest_store; } >"$work/cc.log" 2>&1 || {
    sed 's/^/# /' "$work/cc.log" | tail -n 15
    fail compiles
    finish
}
export GUEST_DIR="$work/bin" QUICK=1

run() { # run FS PROGRAM[:TESTS]: there, in a directory of its own; one line for all that it says
    tests=${2#*:}
    set -- "$1" "${2%:*}"
    [ "$tests" != "$2" ] || tests=
    mkdir "$work/at/$1/t" && cd "$work/at/$1/t" || exit 1
    started=$(date +%s)
    TMPDIR=$work/at/$1/t timeout -k 5 120 "$work/bin/$2" ${tests:+"$tests"} >"$work/log" 2>&1 &
    child=$!
    wait "$child"
    code=$?
    child=
    counts=$(grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$work/log")
    cd "$work" && rm -rf "$work/at/$1/t"
    counts="${counts:-no closing line}, $(($(date +%s) - started)) s"
    if [ "$code" = 77 ]; then skip "$1: $2" "$(sed -n 's/.*# SKIP //p' "$work/log" | head -n 1)" && return; fi
    if [ "$code" = 0 ] && [ "${counts#no}" = "$counts" ]; then pass "$1: $2 ($counts)" && return; fi
    fail "$1: $2 (exit $code; $counts)"
    grep -v '^ok ' "$work/log" | grep -v ' allocations$' | sed 's/^\(# \)*/# /' | tail -n 40
}

# ---- the file systems ----
image() { # image FS MKFS...: on a loop device, which goes with its mount
    fs=$1
    shift
    known "$fs" || { why="this kernel has no $fs"; return 1; }
    command -v "$1" >/dev/null || { why="no $1 (INSTALL=1 installs it)"; return 1; }
    losetup -f >/dev/null 2>&1 || { why="no loop devices"; return 1; }
    size=640M options=loop
    # a small one fills up with what is gone, but not yet free: btrfs's metadata until the next commit ("Transaction aborted (error
    # -28)"), xfs's files without a name until it gets round to them (errno 28 for savers)
    case $fs in btrfs) size=2G options=loop,commit=2 ;; xfs) size=2G ;; esac
    mkdir "$work/at/$fs" && truncate -s "$size" "$work/$fs.img" && "$@" "$work/$fs.img" >"$work/log" 2>&1 &&
        mount -o "$options" "$work/$fs.img" "$work/at/$fs" 2>>"$work/log" && return
    why="$1 or mount: $(tail -n 1 "$work/log")"
    return 1
}
overlay() { # overlay NAME UPPER: over that file system
    known overlay || { why="this kernel has no overlay"; return 1; }
    mountpoint -q "$work/at/$2" || { why="no $2 to lie upon"; return 1; }
    mkdir -p "$work/lower" "$work/at/$2/upper" "$work/at/$2/work" "$work/at/$1" &&
        mount -t overlay -o "lowerdir=$work/lower,upperdir=$work/at/$2/upper,workdir=$work/at/$2/work" none "$work/at/$1" \
            2>"$work/log" && return
    why="mount: $(tail -n 1 "$work/log")"
    return 1
}
fuse() { # fuse NAME COMMAND...: with the directory to mount on as its last argument
    fs=$1
    shift
    [ -e /dev/fuse ] && known fuse || { why="no /dev/fuse"; return 1; }
    command -v "$1" >/dev/null || { why="no $1 (INSTALL=1 installs it)"; return 1; }
    mkdir "$work/at/$fs" "$work/$fs" && truncate -s 64M "$work/$fs.img" || return 1
    if [ "$fs" = exfat ]; then
        mkfs.exfat "$work/$fs.img" >"$work/log" 2>&1 && device=$(losetup -f --show "$work/$fs.img" 2>>"$work/log") ||
            { why="mkfs.exfat or losetup: $(tail -n 1 "$work/log")"; return 1; }
        set -- "$@" "$device"
    fi
    "$@" "$work/at/$fs" >"$work/log" 2>&1 && mountpoint -q "$work/at/$fs" && return
    why="$1: $(tail -n 1 "$work/log")"
    return 1
}
memory() { mkdir "$work/at/tmpfs" && mount -t tmpfs -o size=640m none "$work/at/tmpfs"; }
on() { # on FS EXPECT_CLONE "PROGRAMS" COMMAND...: which mounts it, or says why not
    fs=$1 progs=$3
    export EXPECT_CLONE="$2"
    shift 3
    [ "${ONLY:-$fs}" = "$fs" ] || return
    "$@" || { skip "$fs" "$why"; return; }
    for p in $progs; do run "$fs" "$p"; done
}

need mkfs.xfs xfsprogs
need mkfs.btrfs btrfs-progs
need bindfs bindfs
need mount.exfat-fuse exfat-fuse
need mkfs.exfat exfatprogs
[ "${INSTALL:-0}" != 1 ] || need_done >"$work/log" 2>&1 || :
all="test_clone test_oci test_layers test_crash test_store test_shared test_cache"
why=
on ext4 0 "$all" image ext4 mkfs.ext4 -q -F
on xfs 1 "$all" image xfs mkfs.xfs -q -m reflink=1
on btrfs 1 "$all" image btrfs mkfs.btrfs -q
on tmpfs 0 "test_clone test_oci test_layers" memory # test_crash is there anyway
on overlay 0 "$all" overlay overlay tmpfs
on bindfs 0 "test_shared:fs_" fuse bindfs bindfs "$work/bindfs"
on exfat 0 "test_shared:fs_" fuse exfat mount.exfat-fuse
on overlay-xfs 1 "test_clone" overlay overlay-xfs xfs
finish
