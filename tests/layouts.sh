# shellcheck shell=sh
# layouts.sh - sourced by the suites that put layouts into other tools' hands: what is in a layout, and whether it is the same as in
# `layout`, which stands in the current directory.
# shellcheck disable=SC2154 # $top is the script's

look() { python3 -B "$top/tests/layouts.py" "$@"; }
is() { [ "$1" = "$2" ] || { echo "'$1', not '$2'"; return 1; }; }
named() { (cd "$1/blobs/sha256" && for b in *; do [ "$(sha256sum <"$b")" = "$b  -" ] || exit 1; done); } # by their sha256
identical() { # identical DIR TAG [TAG]: as in layout, blob by blob
    look blobs layout "$2" >ours && look blobs "$1" "${3:-$2}" >theirs && diff ours theirs && named "$1" || return 1
    while read -r b; do cmp "layout/blobs/sha256/$b" "$1/blobs/sha256/$b" || return 1; done <ours
}
held() { find "$1/blobs/sha256" -type f | sed 's,.*/,,' | sort; }
holds() { # holds DIR LISTS...: these blobs and no others
    held "$1" >there
    shift
    sort -u "$@" | diff - there
}
