#!/bin/sh
# powerloss.sh DIR - the power goes while layouts are changed on ext4, xfs and btrfs: copies of the disk are taken at random
# moments, mounted and looked at in full. What an operation had returned HLSNAP_OK for must be there; nothing may be half there.
# TAP; all below DIR. Needs root, mount namespaces, loop devices. Takes about ten minutes.
#   IMAGES=N    copies per file system and kind of disk; default 200
#   SEED=N      of the savers, and of what the moments are chosen by; when a moment comes depends on the machine, too
#   INSTALL=1   may apt-get install what is missing
#   ONLY=NAME   only this file system
#   DISK=NAME   only this kind of disk
# Two kinds of disk:
#   written     a file on xfs under a loop device, copied with FICLONE. Copying excludes writing, so the copy holds every write
#               that the device had completed, and nothing of those to come: a disk without a cache of its own. What is lost
#               is what the file system held back.
#   cached      powerloss_disk.c under the loop device: a disk with a cache. The copy holds what was written before the last
#               flush, and of what was written since some sectors in no order: none, all, a random choice, the first, the last.
# That all this can see a loss at all is shown by programs in which the library's fsync does nothing, spares directories, or
# files: these must be found out.
# exit 0 all passed or skipped, 1 failure, 77 all skipped.
# shellcheck disable=SC2317 # called by traps and by names
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1" && build=$(cd "$1" && pwd) || exit 1
# shellcheck source=tests/need.sh
. "$top/tests/need.sh"
# shellcheck source=tests/tap.sh
. "$top/tests/tap.sh"
# shellcheck source=tests/mounts.sh
. "$top/tests/mounts.sh"
work=$build/work savers='' daemon=''
IMAGES=${IMAGES:-200}
SEED=${SEED:-$(($(date +%s) % 1000000))}

unmount() { # unmount NAME: a loop device goes a little later than its mount
    for try in 1 2 3 4 5 6 7 8 9; do
        mountpoint -q "$work/$1" || return 0
        umount "$work/$1" 2>/dev/null || sleep "0.$try"
    done
    ! mountpoint -q "$work/$1" || umount -l "$work/$1"
}
each() { for pid in $savers; do kill "-$1" "$pid" 2>/dev/null; done; }
stop() { # the savers, and what they write to
    each KILL
    # shellcheck disable=SC2086
    [ -z "$savers" ] || wait $savers 2>/dev/null
    savers=
    for m in look at disk; do unmount "$m"; done
    for try in 1 2 3 4 5 6 7 8 9; do
        [ -n "$daemon" ] && kill -0 "$daemon" 2>/dev/null && sleep "0.$try"
    done
    [ -z "$daemon" ] || { kill "$daemon" && wait "$daemon"; } 2>/dev/null
    daemon=
}
clean() {
    stop 2>/dev/null
    unmount_all
}
alone "power loss" 2000 "$0" "$@"
losetup -f >/dev/null 2>&1 || { skip "power loss" "no loop devices"; finish; }
need mkfs.ext4 e2fsprogs
need mkfs.xfs xfsprogs
need mkfs.btrfs btrfs-progs
need pkg-config pkgconf
pkg-config --exists fuse3 2>/dev/null || missing="$missing libfuse3-dev"
need_header cjson/cJSON.h libcjson-dev
need_header openssl/sha.h libssl-dev
need_done || exit 1

# ---- the programs, and a file system with reflinks ----
mkdir "$work/bin" "$work/outer" "$work/at" "$work/look" && : >"$work/disk"
program() { # program SOURCE OUTPUT OPTIONS...
    t=$1 out=$2
    shift 2
    "${CC:-cc}" -std=gnu11 -O2 -I"$top" "$top/tests/$t.c" -o "$work/bin/$out" "$@"
}
{ program powerloss powerloss -lcjson -lcrypto && program powerloss none -DNO_FSYNC=0 -lcjson -lcrypto &&
    program powerloss dirs -DNO_FSYNC=S_IFDIR -lcjson -lcrypto && program powerloss files -DNO_FSYNC=S_IFREG -lcjson -lcrypto &&
    eval program powerloss_disk disk "$(pkg-config --cflags --libs fuse3)"; } >"$work/cc.log" 2>&1 || {
    sed 's/^/# /' "$work/cc.log" | tail -n 15
    fail compiles
    finish
}
{ truncate -s 1800M "$work/outer.img" && mkfs.xfs -q -m reflink=1 "$work/outer.img" &&
    mount -t xfs -o loop "$work/outer.img" "$work/outer"; } >"$work/log" 2>&1 || {
    skip "power loss" "no xfs: $(tail -n 1 "$work/log")"
    finish
}

# ---- a disk, its copies ----
file=$work/outer/disk image=$work/outer/image journal=$work/journal socket=$work/socket

mount_disk() { # mount_disk FS FILE WHERE: a copy has the same UUID as the disk, which xfs must be told
    options=loop
    [ "$1" != xfs ] || options=loop,nouuid
    mount -t "$1" -o "$options" "$2" "$3" 2>>"$work/log"
}

begin() { # begin FS DISK: made and mounted; or why not
    fs=$1
    known "$fs" || { why="this kernel has no $fs"; return 1; }
    # sectors of 4096 bytes: what powerloss_disk.c never tears
    case $fs in ext4) options="-q -F -b 4096" ;; xfs) options="-q -f -s size=4096" ;; *) options="-q -f" ;; esac
    rm -f "$file" "$image" "$journal" && : >"$journal" && : >"$work/log" && truncate -s 400M "$file"
    # shellcheck disable=SC2086
    "mkfs.$fs" $options "$file" >"$work/log" 2>&1 || { why="mkfs.$fs: $(tail -n 1 "$work/log")"; return 1; }
    from=$file
    if [ "$2" = cached ]; then
        [ -e /dev/fuse ] || { why="no /dev/fuse"; return 1; }
        "$work/bin/disk" serve "$file" "$work/disk" "$socket" >>"$work/log" 2>&1 &
        daemon=$!
        while ! mountpoint -q "$work/disk"; do
            kill -0 "$daemon" 2>/dev/null || { daemon='' why="fuse: $(tail -n 1 "$work/log")"; return 1; }
            sleep 0.01
        done
        from=$work/disk
    fi
    mount_disk "$fs" "$from" "$work/at" || { why="mount: $(tail -n 1 "$work/log")"; return 1; }
    sync -f "$work/at"
    cp --reflink=always "$file" "$image"
    mount_disk "$fs" "$image" "$work/look" && unmount look && return
    why="this kernel cannot mount $fs and its copy at once: $(tail -n 1 "$work/log")"
    return 1
}

moment() { # moment DISK SEED: takes an image; prints the journal's sizes
    if [ "$1" = cached ]; then "$work/bin/disk" image "$socket" "$image" "$journal" "$2"
    else "$work/bin/powerloss" clone "$file" "$image" "$journal" "$2"; fi
}

# Savers work between two looks; they stand still while an image is looked at, for the machine's sake.
images() { # images FS DISK PROGRAM NUMBER [lost|torn]: fewer, when after 20 of them this has been seen
    lost=0 torn=0 broken=0 taken=0 dirty=0
    for who in 0 1; do
        "$work/bin/$3" save "$work/at" "$journal" "$who" "$SEED$n" >>"$work/saver.log" 2>&1 &
        savers="$savers $!"
    done
    while [ "$taken" -lt "$4" ]; do
        [ "$taken" -lt 20 ] || case ${5:-} in
            lost) [ "$lost" = 0 ] || break ;;
            torn) [ "$torn" = 0 ] || break ;;
        esac
        taken=$((taken + 1))
        each CONT
        for pid in $savers; do
            kill -0 "$pid" 2>/dev/null || { echo "# a saver ended: $(tail -n 1 "$work/saver.log")" && return 1; }
        done
        sizes=$(moment "$2" "$SEED$n$taken") || { echo "# no image" && return 1; }
        each STOP
        case $sizes in *", 0 sectors"*) ;; *sectors*) dirty=$((dirty + 1)) ;; esac
        if mount_disk "$1" "$image" "$work/look"; then
            # shellcheck disable=SC2086
            "$work/bin/powerloss" check "$work/look" "$journal" ${sizes%%:*} >"$work/check.log" 2>&1
            code=$?
            ! grep -q '^# lost' "$work/check.log" || lost=$((lost + 1))
            ! grep -q '^# torn' "$work/check.log" || torn=$((torn + 1))
            [ "$code" -le 1 ] || { sed 's/^/# /' "$work/check.log" && return 1; }
            [ "$code" = 0 ] || [ "$3" != powerloss ] || { echo "# image $taken, $sizes" && head -n 12 "$work/check.log"; }
            unmount look
        else
            broken=$((broken + 1))
            echo "# image $taken, $sizes: $(tail -n 1 "$work/log")"
        fi
    done
}

run() { # run FS DISK PROGRAM NUMBER [lost|torn]
    started=$(date +%s)
    : >"$work/saver.log"
    begin "$1" "$2" || { stop; skip "$1, $2 disk" "$why"; return 1; }
    images "$@"
    code=$?
    stop
    operations=$(grep -c '^E' "$journal")
    saves=$(grep -c '^E.* save ' "$journal")
    counts="$taken images"
    [ "$2" != cached ] || counts="$counts ($dirty with writes in the cache)"
    counts="$counts, $lost lost, $torn torn, $saves saves, $operations operations, $(($(date +%s) - started)) s"
    [ "$broken" = 0 ] || counts="$counts; $broken images did not mount"
    return "$code"
}

holds() { # holds FS DISK
    [ "${ONLY:-$1}" = "$1" ] && [ "${DISK:-$2}" = "$2" ] || return
    run "$1" "$2" powerloss "$IMAGES" || [ "$why" ] || { fail "$1, $2 disk: $counts"; return; }
    if [ "$why" ]; then why=; return; fi
    if [ "$lost$torn$broken" = 000 ] && [ "$saves" -gt "$IMAGES" ]; then pass "$1, $2 disk: $counts"
    else fail "$1, $2 disk: $counts"; fi
}

finds() { # finds FS DISK PROGRAM WHAT HOW: a control; HOW: lost or torn is what it must be
    [ "${ONLY:-$1}" = "$1" ] && [ "${DISK:-$2}" = "$2" ] || return
    run "$1" "$2" "$3" 200 "$5" || [ "$why" ] || { fail "$1, $2 disk, $4: $counts"; return; }
    if [ "$why" ]; then why=; return; fi
    case $5 in lost) found=$lost ;; *) found=$torn ;; esac
    if [ "$found" -gt 0 ]; then pass "$1, $2 disk, $4, is found out: $counts"
    else fail "$1, $2 disk, $4, is found out: $counts"; fi
}

why=
echo "# SEED=$SEED IMAGES=$IMAGES"
for disk in written cached; do
    finds ext4 "$disk" none "without fsync" lost
    finds ext4 "$disk" dirs "without fsync of directories" lost
    finds ext4 "$disk" files "without fsync of files" torn
    finds xfs "$disk" none "without fsync" lost
    finds btrfs "$disk" none "without fsync" lost
done
for disk in written cached; do
    for fs in ext4 xfs btrfs; do holds "$fs" "$disk"; done
done
finish
