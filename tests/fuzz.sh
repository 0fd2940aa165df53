#!/bin/sh
# fuzz.sh DIR [SECONDS] - tests/fuzz.c and tests/fuzz_linux.c, built by clang with ASan and UBSan. TAP; needs no /dev/kvm.
#   without SECONDS   the inputs that once failed; a short run of each target; the planted defects of tests/fuzz/planted, each of
#                     which its target must find in as long a run, or, a rare one, in the one that it names; and the lines of each
#                     parser that were reached, 90 % at least
#   SECONDS           a campaign, divided among the targets, two at a time; the corpus stays in DIR/corpus, where the next begins
#   FUZZ_TARGETS      in the environment: only these;  FUZZ_SHORT: seconds of a short run
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1" && build=$(cd "$1" && pwd) || exit 1
seconds=${2:-}
targets=${FUZZ_TARGETS:-layout index manifest config chunks dir elf boot host guest linux}
planted=$(for t in $targets; do
    for p in "$top/tests/fuzz/planted/$t"-*.patch; do [ ! -e "$p" ] || basename "$p" .patch; done
done)
cd "$build" || exit 1
# shellcheck source=tests/need.sh
. "$top/tests/need.sh"
need clang clang
need llvm-cov llvm
need patch patch
need_header cjson/cJSON.h libcjson-dev
echo 'int LLVMFuzzerTestOneInput(const char *p, unsigned long n) { return p && n > 8; }' >probe.c
clang -fsanitize=fuzzer,address probe.c -o probe 2>/dev/null || missing="$missing libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev"
need_done || exit 1

scratch=$(mktemp -d /dev/shm/hlsnap-fuzz.XXXXXX 2>/dev/null || mktemp -d) || exit 1 # where layouts are made: in memory
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM
export FUZZ_DIR="$scratch"
rm -rf work artifacts headers planted-* fuzz fuzz_cov fuzz_linux fuzz_linux_cov && mkdir -p work corpus headers || exit 1
cp "$top/hlsnap.h" "$top/hlsnap_oci.h" headers/ || exit 1 # all builds are of the same, whatever is edited meanwhile
cat >prelude.sh <<EOF
top='$top' short='${FUZZ_SHORT:-6}' seconds='$seconds' targets='$targets'
EOF
cat >>prelude.sh <<'EOF'
set -u
source_of() { # source_of TARGET: what it is in
    if [ "$1" = linux ]; then echo fuzz_linux; else echo fuzz; fi
}
build() { # build SOURCE OUTPUT HEADERS OPTIONS...
    source=$1 out=$2 headers=$3
    shift 3
    clang -std=gnu11 -gline-tables-only "${level:--O1}" -Wall -Wextra -Werror -Wno-unused-function "$@" -I"$headers" -I"$top/tests" "$top/tests/$source.c" -o "$out" -lcjson
}
build_fuzz() { # and the seeds of all targets
    for f in fuzz fuzz_linux; do build $f $f headers -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all || return 1; done
    for pie in -static -static-pie; do
        clang -O1 -DHLSNAP_GUEST -ffreestanding -nostdlib "$pie" -fPIE -Iheaders "$top/tests/guest_echo.c" -o "guest$pie.elf" || return 1
    done
    for t in $targets; do mkdir -p "work/seeds/$t" && FUZZ_TARGET=$t "./$(source_of "$t")" --seeds "work/seeds/$t" || return 1; done
    [ ! -d work/seeds/elf ] || cp guest-*.elf work/seeds/elf/
}
build_planted() { # build_planted NAME: runs so little that to optimize it would cost more
    mkdir "planted-$1" && cp headers/*.h "planted-$1/" || return 1
    (cd "planted-$1" && patch -p1 -F2 <"$top/tests/fuzz/planted/$1.patch") || { echo "$1.patch does not apply any more"; return 1; }
    level=-O0
    build "$(source_of "${1%%-*}")" "planted-$1/fuzz" "planted-$1" -fsanitize=fuzzer,address
}

options() { # options TARGET: real guests are ELF files of some 20 KiB
    case $1:$seconds in elf:*) longest=65536 ;; *:) longest=8192 ;; *) longest=32768 ;; esac
    echo "-max_len=$longest -timeout=25 -rss_limit_mb=3000 -mutate_depth=2 -print_final_stats=1 -dict=$top/tests/fuzz/hlsnap.dict"
}
fuzz() { # fuzz TARGET BINARY NAME ARGUMENTS...: its output to work/NAME.log; says why it failed
    t=$1 binary=$2 name=$3
    shift 3
    mkdir -p "artifacts/$name"
    # shellcheck disable=SC2046
    FUZZ_TARGET=$t nice "$binary" $(options "$t") "-artifact_prefix=artifacts/$name/" "$@" >"work/$name.log" 2>&1 && return
    grep -E '^fuzz: |^==[0-9]*==ERROR|runtime error:|ALARM|Test unit|^ *#[0-9]+ 0x.* (in|at) .*(fuzz\.c|hlsnap)' "work/$name.log" | head -n 12
    return 1
}
executions() { sed -n 's/^stat::number_of_executed_units: *//p' "work/$1.log"; }
figures() { # figures TARGET SECONDS
    n=$(executions "$1")
    edges=$(sed -n 's/.*\(DONE\|pulse\) *cov: \([0-9]*\).*/\2/p' "work/$1.log" | tail -n 1)
    echo "$1: $n executions, $((n / $2)) a second, $edges edges"
    [ "$n" -gt 100 ]
}
budget() { # budget TARGET [NAME]: where a defect is planted, as many executions as it may take to find it; of a rare one, for itself
    runs=$({ cat "$top/tests/fuzz/planted/$1-"*.patch 2>/dev/null | grep '^budget .* executions$'
        [ -z "${2:-}" ] || grep '^budget' "$top/tests/fuzz/planted/$2.patch"; } | sed 's/^budget \([0-9]*\) .*/\1/' | sort -n | tail -n 1)
    if [ -n "$runs" ]; then echo "-runs=$runs"; else echo "-max_total_time=$short"; fi
}
short_run() { # short_run TARGET
    mkdir -p "work/$1"
    began=$(date +%s)
    fuzz "$1" "./$(source_of "$1")" "$1" -seed=1 "$(budget "$1")" "work/$1" "work/seeds/$1" && figures "$1" $(($(date +%s) - began + 1)) >"work/$1.figures"
}
planted_run() { # planted_run NAME: in the seeds alone it must not show
    t=${1%%-*}
    mkdir -p "work/corpus-$1"
    fuzz "$t" "planted-$1/fuzz" "$1" -runs=0 "work/seeds/$t" || { echo 'the seeds have it already'; return 1; }
    fuzz "$t" "planted-$1/fuzz" "$1" -seed=1 "$(budget "$t" "$1")" "work/corpus-$1" "work/seeds/$t" && { echo 'not found'; return 1; }
    why=$(grep -m 1 -oE '^fuzz: .*|AddressSanitizer: [a-zA-Z-]*' "work/$1.log") || return 1
    echo "$1: found after $(executions "$1") executions: $why" | cut -c1-120 >"work/$1.figures"
}
regressions() {
    for f in "$top"/tests/fuzz/regress/*-*; do
        t=$(basename "$f") && t=${t%%-*}
        case " $targets " in *" $t "*) fuzz "$t" "./$(source_of "$t")" regressions -timeout=5 "$f" || { echo "$f"; return 1; } ;; esac
    done
}
coverage() { # of what the short runs have gathered
    for t in $targets; do
        FUZZ_TARGET=$t LLVM_PROFILE_FILE=work/$t.profraw "./$(source_of "$t")_cov" -runs=0 -max_len=65536 "work/$t" "work/seeds/$t" >"work/$t.cov.log" 2>&1 || return 1
    done
    llvm-profdata merge -o work/all.profdata work/*.profraw || return 1
    llvm-cov export -format=lcov -instr-profile=work/all.profdata ./fuzz_cov -object ./fuzz_linux_cov headers/hlsnap.h headers/hlsnap_oci.h >work/all.lcov || return 1
    awk -f "$top/tests/fuzz/coverage.awk" work/all.lcov headers/hlsnap.h headers/hlsnap_oci.h >work/lines
    enough=$?
    grep ' % of' work/lines >work/parsers.figures
    [ "$enough" = 0 ] || cat work/lines
    return "$enough"
}
campaign() { # campaign TARGET SECONDS: what it adds to the corpus is kept
    mkdir -p "corpus/$1"
    fuzz "$1" "./$(source_of "$1")" "$1" "-max_total_time=$2" "corpus/$1" "work/seeds/$1" || return 1
    figures "$1" "$2" >"work/$1.figures"
    rm -rf "work/merged-$1" && mkdir "work/merged-$1"
    fuzz "$1" "./$(source_of "$1")" "$1-merge" -merge=1 "work/merged-$1" "corpus/$1" && rm -rf "corpus/$1" && mv "work/merged-$1" "corpus/$1"
}
EOF
# shellcheck source=tests/jobs.sh
. "$top/tests/jobs.sh"

report() {
    cat work/*.figures 2>/dev/null | sed 's/^#* */# /'
    for f in artifacts/*/*; do
        case $f in "artifacts/*"* | artifacts/*-*/*) ;; *) t=$(basename "$(dirname "$f")"); echo "# input: FUZZ_TARGET=$t $build/$(if [ "$t" = linux ]; then echo fuzz_linux; else echo fuzz; fi) $build/$f" ;; esac
    done
    jobs_report
    exit
}

job "" build_fuzz
if [ -n "$seconds" ]; then
    jobs_run
    [ -x fuzz ] || report
    each=$((seconds * 2 / $(echo "$targets" | wc -w)))
    [ "$each" -le "$seconds" ] || each=$seconds
    for t in $targets; do job "$t: nothing in $each s" "campaign $t $each"; done
    jobs_run
    report
fi
[ -n "${FUZZ_TARGETS:-}" ] || for f in fuzz fuzz_linux; do
    job "" "build $f ${f}_cov headers -fsanitize=fuzzer -fprofile-instr-generate -fcoverage-mapping"
done
for name in $planted; do job "" "build_planted $name"; done
jobs_run
[ -x fuzz ] || report
job "inputs that once failed" regressions
for t in $targets; do job "$t: nothing in a short run" "short_run $t"; done
for name in $planted; do job "planted: $name is found" "planted_run $name"; done
jobs_run
[ -n "${FUZZ_TARGETS:-}" ] || job "each parser: 90 % of its lines are reached" coverage
jobs_run
report
