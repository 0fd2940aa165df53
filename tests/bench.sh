#!/bin/sh
# bench.sh DIR - bench/run --quick ends in time and prints every row with its limit and ratio. It does not judge the figures:
# machines are noisy, and docs/performance.md says what they were. TAP.
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1" && cd "$1" && build=$PWD || exit 1
# shellcheck source=tests/need.sh
. "$top/tests/need.sh"
# shellcheck source=tests/tap.sh
. "$top/tests/tap.sh"
for c in bench limit_check scale programs server builtins levels; do # where none of them can run, too
    # shellcheck disable=SC2086
    check "$c.c compiles without a warning" "${CC:-cc}" -std=gnu11 -O2 -Wall -Wextra -Werror -Wno-unused-function ${CFLAGS:-} -I"$top" \
        -I"$top/tests" -fsyntax-only "$top/bench/$c.c"
done
for c in bench program; do
    # shellcheck disable=SC2086
    check "guest_$c.c compiles without a warning" "${CC:-cc}" -std=gnu11 -O2 -Wall -Wextra -Werror ${CFLAGS:-} -DHLSNAP_GUEST \
        -I"$top" -fsyntax-only "$top/bench/guest_$c.c"
done
hello() { # by its own line, within 2 s: the best of three, since machines stutter
    line=$(lines_of cc "$top/examples/01_hello.c")
    best=99999
    for i in 1 2 3; do
        t0=$(date +%s%N) && (cd "$top/examples" && $line -o "$build/hello") || return 1
        t=$((($(date +%s%N) - t0) / 1000000)) && [ "$t" -lt "$best" ] && best=$t
    done
    echo "$best ms" && [ "$best" -le 2000 ]
}
check "01_hello.c compiles in 2 s" hello
if [ -n "$(kvm_problem)" ]; then skip bench "$(kvm_problem)"; finish; fi

started=$(date +%s)
"$top/bench/run" --quick >rows.tsv 2>errors
check "bench/run --quick exits 0" [ $? = 0 ]
check "within 60 s, and 20 more to compile on a busy machine" [ $(($(date +%s) - started)) -le 80 ]
row() { # name, unit, then positive numbers: value, limit, ratio
    awk -F'\t' -v name="$1" '$1 == name && $3 > 0 && $4 > 0 && $5 > 0 { found = 1 } END { exit !found }' rows.tsv
}
for name in call host_call restore_call_0 restore_call_1 restore_call_16 restore_call_64 restore_call_256 restore_call_1024 \
    restore_delta restore_small_delta restore_scattered restore_built pool_16 pool_64 pool_256 pool_1024 pool_call_64 pool_call_256 pool_call_1024 pool_guest pool_other pool_cold \
    map_16 map_shared map_restore_16 map_private_16 map_sealed_16 map_start image_16 image_256 image_4096 \
    message_1 message_64 message_host_1 message_host_64 snapshot_16 snapshot_large spawn oci_save delta_save \
    chain_bytes chain_load verify_gbps load_mapped load_private load_2_threads load_cached tenants_memory oci_load_first_call compute \
    include_ms; do
    check "row $name" row "$name"
done
left_out() { grep -q '^# messages of 512 MiB are left out: they need' rows.tsv; }
if left_out; then skip "row message_512" "not enough memory"; else check "row message_512" row message_512; fi
sed 's/^/# /' rows.tsv
for name in exit host_call restore_call_16 map_16 map_shared snapshot_16 spawn oci_save_1m delta_save_1m verify_64m chunks_64m \
    load_mapped_64m load_private_64m; do
    check "the limit's check limit_$name" row "# limit_$name"
done
[ "$failed" = 0 ] || cat errors

"$top/bench/run" --server --quick >rows.tsv 2>errors
check "bench/run --server --quick exits 0" [ $? = 0 ]
server_row() { # name, tenants; then positive numbers: of requests, where there are any, of CPU, and the ratio, where there is one
    awk -F'\t' -v name="$1" -v tenants="$2" '$1 == name && $2 == tenants && ($3 == "-" || ($3 > 0 && $4 > 0 && $5 > 0)) && $6 > 0 &&
        ($7 == "-" || $7 > 0) { found = 1 } END { exit !found }' rows.tsv
}
for t in 1 8; do
    for name in inside fork renew restore own reuse few pool; do check "row $name of $t tenants" server_row "$name" "$t"; done
done
sed 's/^/# /' rows.tsv
[ "$failed" = 0 ] || cat errors

# The programs are those of the suite of this name, if it ran.
[ ! -e ../programs/linux.elf ] || export PROGRAMS="$build/../programs"
"$top/bench/run" --programs --quick >rows.tsv 2>errors
check "bench/run --programs --quick exits 0" [ $? = 0 ]
for libc in musl glibc; do
    for name in syscall call restore_call spawn_call; do check "row ${name}_$libc" row "${name}_$libc"; done
done
for name in lua sqlite3 python3; do check "row start_$name" row "start_$name"; done
sed 's/^/# /' rows.tsv
[ "$failed" = 0 ] || cat errors
finish
