#!/bin/sh
# format.sh DIR - docs/snapshot-format.md put to the test: tests/snapshot_format.py, written from that text alone, and
# hlsnap_oci.h read what the other wrote, write the same bytes, and refuse the same damaged layouts. TAP; needs no /dev/kvm.
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1" && build=$(cd "$1" && pwd) || exit 1
# shellcheck source=tests/need.sh
. "$top/tests/need.sh"
# shellcheck source=tests/tap.sh
. "$top/tests/tap.sh"

trap 'rm -rf "$build/work"' EXIT
python() { python3 -B "$top/tests/snapshot_format.py" "$@"; }
hlsnap() { "$build/format_dump" "$@"; }

need python3 python3
need sha256sum coreutils
need_header cjson/cJSON.h libcjson-dev
need_done || exit 1
compiles() { "${CC:-cc}" -std=gnu11 -O1 -Wall -Wextra -Werror -I"$top" "$top/tests/format_dump.c" -o "$build/format_dump" -lcjson; }
check "format_dump compiles" compiles
[ "$failed" = 0 ] || finish
rm -rf "$build/work" && mkdir -p "$build/work" && cd "$build/work" || exit 1

# ---- what the one writes, the other reads ----
reads() { # reads DIR: both say the same of every tag
    python check "$1" >ours || return 1
    # shellcheck disable=SC2046
    hlsnap load "$1" $(cut -d' ' -f1 ours) >theirs || return 1
    [ -s ours ] && diff ours theirs
}
written() { # written LAYERS: several seeds
    python write "w$1" s --count 3 --layers "$1" && python exact "w$1" s1 s2 s3 && reads "w$1"
}
copied() { # copied LAYERS: hlsnap saves the chain as one layer, and python, asked for one layer, comes to the same bytes
    python write "f$1" s --count 3 --layers "$1" --flat >flat || return 1
    for seed in 1 2 3; do hlsnap copy "w$1" "s$seed" "c$1" "s$seed" || return 1; done >copies
    diff copies flat && python exact "c$1" s1 s2 s3 && python same "w$1" s2 "c$1" s2 || return 1
    reads "w$1" && sed 's/ .* / /' ours >chains && reads "c$1" && sed 's/ .* / /' ours | diff chains -
}
for layers in 1 2 3 16 128; do
    check "$layers layers: hlsnap reads what python wrote" written $layers
    check "$layers layers: hlsnap saves it flat, as python does, byte by byte" copied $layers
done
again() { # into the layout that has the layers already: they stay when they are few and the upper ones small
    for row in "1 2" "2 3" "12 3" "13 4" "8 9" "10 16" "14 32" "15 33" \
        "16 33 --small --pages 900" "17 45 --small --pages 2000" "18 90 --small --pages 3000" \
        "20 8 --maps 16" "24 2 --maps 5" "25 40 --small --pages 2000 --maps 16"; do
        # shellcheck disable=SC2086
        set -- $row
        seed=$1 layers=$2
        shift 2
        python write a "s$seed" --seed "$seed" --layers "$layers" "$@" && d=$(hlsnap copy a "s$seed" a "t$seed") &&
            want=$(python write b "s$seed" --seed "$seed" --layers "$layers" "$@" --again) || return 1
        [ "$d" = "$want" ] || { echo "seed $seed, $layers layers: $d, not $want"; return 1; }
        [ "${1:-}" != --small ] || hlsnap load a "t$seed" | grep -E 'layers=(1[0-9]|2[0-9]|3[0-2]) ' || return 1 # merged
    done
    python exact a t1 t2 t12 t13 t8 t10 t14 t15 t16 t17 t18 t20 t24 t25 && reads a
}
check "a chain saved again into its layout" again
maps() { # of each mode and source, from none to 16; what was captured is one blob, whoever writes it where
    python write k s --seed 30 --count 4 --layers 4 --maps 16 && python write k t --seed 40 --layers 9 --maps 7 || return 1
    reads k || return 1
    for tag in s30 s31 s32 s33 t; do hlsnap copy k $tag kc $tag && python same k $tag kc $tag || return 1; done
    python exact kc s30 s31 s32 s33 t && reads kc && for size in 2093056 2097152; do # 511 and 512 pages
        find k/blobs -size "${size}c" | sed 's,.*/,,' | sort >own
        find kc/blobs -size "${size}c" | sed 's,.*/,,' | sort | diff own - && [ -s own ] || return 1
    done
}
check "maps" maps
goldens() { # tests/golden, where the C that is gone wrote it ("extreme" would be 32 GiB to read)
    python exact "$GOLDEN_DIR" small extreme maps guest delta && hlsnap load "$GOLDEN_DIR" small maps guest delta >theirs &&
        python check "$GOLDEN_DIR" small maps guest delta >ours && diff ours theirs
}
: "${GOLDEN_DIR:=$top/tests/golden}"
check "the layouts that are checked in" goldens
vectors() { # the text's table, of every tag; what "extreme" has in memory only in the long form: its digest says as much
    sed -n '/^## Test vectors/,/^## Writing/p' "$top/docs/snapshot-format.md" | grep '^| `' >table
    sed 's/^| `\([a-z]*\)`.*/\1/' table >tags
    grep -oE '"org.opencontainers.image.ref.name":"[^"]*"' "$GOLDEN_DIR/index.json" | cut -d'"' -f4 | diff - tags || return 1
    # shellcheck disable=SC2046
    python vectors "$GOLDEN_DIR" --unhashed $(cat tags) >short && sed 's/ [^|]*|$//' table | diff - short || return 1
    unhashed=$([ "${LONG:-0}" != 0 ] || echo extreme)
    # shellcheck disable=SC2046
    python vectors "$GOLDEN_DIR" $(grep -vx "$unhashed" tags) >full && grep -v "^| .$unhashed. " table | diff - full
}
check "the text's test vectors are what python reads" vectors
zero() {
    python write z chain --zero --layers 3 && hlsnap copy z chain zc one && python write zf one --zero --layers 3 --flat &&
        python check zc >x && python check zf >y && diff x y && reads z
}
check "memory that is all zero" zero
features() {
    python write cpu few --features cx16,sse3 && reads cpu && hlsnap copy cpu few cpu again && python exact cpu few again &&
        python write cpu unknown --features sse3,zzz --seed 2 && ! python check cpu unknown &&
        python check cpu unknown --any-machine && hlsnap load cpu unknown 2>&1 | grep HLSNAP_ERR_CPU
}
check "CPU features" features
both_add() { # one layout, written by turns: nobody harms the other's entries
    python write t p1 --seed 1 --layers 2 && hlsnap copy t p1 t c1 && python write t p2 --seed 2 && hlsnap copy t p2 t p1 &&
        python write t c1 --seed 3 --layers 3 && python check t >ours && [ "$(wc -l <ours)" = 3 ] && python same t p1 t p2 && reads t
}
check "one layout, written by turns" both_add
gaps() { # more extents than a config can hold: zero pages between are stored
    python write g s --scatter && d=$(hlsnap copy g s gc s) && flat=$(python write gf s --scatter --flat) && rm -rf g gc gf &&
        [ "$d" = "$flat" ]
}
example() { # what a guest that ran leaves behind
    mkdir e && cp -R "$top/examples" "$top"/*.h e/ && cd e/examples || return 1
    lines_of cc 04_oci.c >lines
    sed 's/-std=c11 -O2/-std=c11 -O0/' lines >faster # to compile
    while read -r line; do $line || return 1; done <faster
    ./04_oci save layout v1 04_oci.c guests/index.c && python exact layout v1 && reads layout
}
if [ -n "$(kvm_problem)" ]; then skip "what examples/04_oci.c saves" "$(kvm_problem)"
else check "what examples/04_oci.c saves" example; cd "$build/work" || exit 1; fi
if [ "$(df -Pk . | awk 'NR == 2 {print $4}')" -lt 2000000 ]; then skip "gaps are stored" "less than 2 GB of disk"
else check "gaps are stored where the config would be too large" gaps; fi

# ---- what the one refuses, the other refuses ----
verdicts() { # verdicts OPTIONS...: each mutant is judged alike, by its name
    rm -rf m && python mutants m "$@" >want || return 1
    cut -d' ' -f1 want | sed 's,^,m/,' >dirs
    # shellcheck disable=SC2046
    python verdict m $(cat dirs) >ours 2>why && hlsnap verdict m $(cat dirs) >theirs 2>>why
}
as_expected() { # as_expected VERDICTS OK|DIGEST: `either` means the second
    awk -v either="$2" 'NR == FNR {want[$1] = $2; next}
        {w = want[$1]; ok = w == $2 || w == "refused" && $2 != "HLSNAP_OK" || w == "either" && $2 == either}
        !ok {print $1 ": " $2 ", not " w; bad = 1} {seen++}
        END {if (seen < 600) print "only " seen " mutants"; exit bad || seen < 600}' want "$1"
}
random() { # one odd value somewhere: accepted or refused by both, the result may name another rule
    verdicts --random 250 --seed 7 && sed 's/HLSNAP_ERR.*/refused/' ours >x && sed 's/HLSNAP_ERR.*/refused/' theirs >y &&
        grep -q OK x && grep -q refused x && diff x y
}
check "damaged and odd layouts are made" verdicts
check "python judges them as the text says" as_expected ours HLSNAP_ERR_DIGEST
check "hlsnap judges them as the text says" as_expected theirs HLSNAP_OK
check "a random change: both accept it, or none" random
finish
