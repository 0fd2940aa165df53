# shellcheck shell=sh
# mounts.sh - sourced by the suites that mount file systems, after tap.sh: all that they mount is in a namespace of their own and
# ends with it, even when the script is killed.
#   alone WHAT MIB "$0" "$@"   goes on as root in such a namespace, with a tmpfs of so many MiB at $work; where that cannot be had, WHAT
#                              is skipped. At the end `clean` is called, which the script defines and which ends with `unmount_all`.
#   known FS                   whether this kernel has it

# shellcheck disable=SC2154 # $build and $work are the script's
alone() {
    what=$1 size=$2
    shift 2
    [ "$(id -u)" = 0 ] || { skip "$what" "not root"; finish; }
    unshare -m true 2>/dev/null || { skip "$what" "no mount namespaces here"; finish; }
    [ -n "${MOUNTS_INSIDE:-}" ] || MOUNTS_INSIDE=1 exec unshare -m --propagation private sh "$@"
    unset MOUNTS_INSIDE
    memory=$(awk '/^MemAvailable/ {print int($2 / 1024)}' /proc/meminfo)
    [ "$memory" -ge $((size + 500)) ] || { skip "$what" "only $memory MiB of memory are free, not $((size + 500))"; finish; }
    trap 'trap "" HUP INT TERM && cd "$build" && clean' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    mkdir -p "$work" || exit 1
    mount -t tmpfs -o "size=${size}m,mode=0755" none "$work" 2>/dev/null || { skip "$what" "cannot mount"; finish; }
}
unmount_all() {
    umount -R "$work" 2>/dev/null || umount -R -l "$work" 2>/dev/null # what tests have mounted below goes, too
    rmdir "$work" 2>/dev/null
}
known() { grep -qw "$1" /proc/filesystems || { modprobe -q "$1" && grep -qw "$1" /proc/filesystems; } 2>/dev/null; }
