#!/bin/sh
# aarch64.sh DIR - the parts that need no VM, on another architecture: compiled for aarch64 by Debian's cross compiler, run by
# qemu-user. Then its layouts beside those of tests/snapshot_format.py, and kernels whose pages are larger. TAP; all below DIR.
# test_kvm, test_store and the examples need x86-64 guests, test_crash reads x86-64 registers.
#   INSTALL=1   may apt-get install gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user
# The arm64 libraries (cJSON, libcrypto) are downloaded with lists and architecture of their own, and unpacked, never installed.
# exit 0 all passed or skipped, 1 failure, 77 no compiler or QEMU.
# shellcheck disable=SC2046,SC2086
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1" && build=$(cd "$1" && pwd) || exit 1
# shellcheck source=tests/need.sh
. "$top/tests/need.sh"
# shellcheck source=tests/tap.sh
. "$top/tests/tap.sh"

trap 'rm -rf "$build/work"' EXIT

# ---- compiler, QEMU, libraries ----
cross=aarch64-linux-gnu-gcc root=/usr/aarch64-linux-gnu libs=$build/arm64/usr
need $cross gcc-aarch64-linux-gnu
[ -e $root/include/stdio.h ] || missing="$missing libc6-dev-arm64-cross"
command -v qemu-aarch64-static >/dev/null || need qemu-aarch64 qemu-user
wants=$missing
need_done >"$build/need.log" 2>&1 || { skip aarch64 "no$wants (INSTALL=1 installs them)"; finish; }
qemu=$(command -v qemu-aarch64 || command -v qemu-aarch64-static)
export QEMU_LD_PREFIX=$root QEMU_USER=1 QUICK=1

download() { # by an apt that knows arm64 only
    rm -rf "$libs" && private_apt_make <<CONF || return 1
#clear APT::Architectures;
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
CONF
    cd "$build/apt" && private_apt get update && private_apt get download libcjson-dev libcjson1 libssl-dev || return 1
    for deb in ./*.deb; do dpkg-deb -x "$deb" "$build/arm64.part" || return 1; done
    rm -rf "$build/arm64" && mv "$build/arm64.part" "$build/arm64" && rm -rf "$build/apt"
}
[ -e "$libs/include/cjson/cJSON.h" ] || (download) >"$build/apt.log" 2>&1 || :
[ -e "$libs/include/cjson/cJSON.h" ] && oci=1 || oci=
no_libs="no arm64 libraries from apt-get, see apt.log"

rm -rf "$build/work" && mkdir -p "$build/work" && cd "$build/work" || exit 1
gate="-Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Wundef -Wcast-qual -Wvla -Werror"
cgate="$gate -Wstrict-prototypes -Wmissing-prototypes"
include="-I$top -I$top/tests -isystem $libs/include -isystem $libs/include/aarch64-linux-gnu"
lib=$libs/lib/aarch64-linux-gnu
compile() { $cross -g -O2 $include "$@" -L"$lib"; }
emulated() { timeout -k 5 900 "$qemu" -E LD_LIBRARY_PATH="$lib" "$@"; }
large_pages() { emulated -p 65536 "$@"; }

# ---- the headers ----
headers() { # headers NAMES...: implemented, and a function of each called
    echo '#define HLSNAP_IMPLEMENTATION'
    for h; do echo "#include \"$h.h\""; done
}
cat >gates.c <<'END'
#include <stdio.h>
static hlsnap_result none(hlsnap_call *call, void *user);
static hlsnap_result none(hlsnap_call *call, void *user) { (void)call, (void)user; return HLSNAP_OK; }
int main(int argc, char **argv) { /* what is refused, and with which words */
    static const char image[64] = "\177ELF";
    static const hlsnap_function exports[] = {{"none", "void()", none, NULL}};
    static const hlsnap_module module = {exports, 1, NULL, 0};
    hlsnap_guest_desc data = HLSNAP_ZERO, self = HLSNAP_ZERO;
    hlsnap_snapshot *s = NULL;
    hlsnap_error err = HLSNAP_ZERO;
    hlsnap_result r;
    (void)argc, (void)argv;
    data.data = image;
    data.data_size = sizeof(image);
    self.self = &module;
    r = hlsnap_kvm_probe(&err);
    printf("kvm %s: %s\n", hlsnap_result_name(r), err.msg);
    r = hlsnap_snapshot_from_guest(&data, &s, &err);
    printf("data %s: %s\n", hlsnap_result_name(r), err.msg);
    r = hlsnap_snapshot_from_guest(&self, &s, &err);
    printf("self %s: %s\n", hlsnap_result_name(r), err.msg);
    return hlsnap_kvm() == NULL || s != NULL;
}
END
gates_compile() { # gates_compile STANDARD
    { headers hlsnap hlsnap_kvm && cat gates.c; } >"gates.$1.c" && compile -std="$1" $cgate "gates.$1.c" -o gates
}
for std in c99 c11 gnu17; do check "hlsnap.h and hlsnap_kvm.h, $std" gates_compile $std; done
syntax() { headers hlsnap hlsnap_kvm ${oci:+hlsnap_oci} >all.c && "$@" $include -fsyntax-only all.c; }
check "all headers" syntax $cross -std=c11 $cgate
if command -v clang >/dev/null; then
    check "all headers, clang" syntax clang --target=aarch64-linux-gnu -isystem $root/include -std=c11 $cgate
    check "all headers, clang as C++" syntax clang --target=aarch64-linux-gnu -isystem $root/include -x c++ -std=c++17 $gate
else
    skip "all headers, clang" "no clang"
fi
no_guests() { # a guest would compile into something that does nothing
    echo '#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"' >guest.c
    ! $cross -DHLSNAP_GUEST -ffreestanding -I"$top" -fsyntax-only guest.c 2>words && cat words && grep -q '#error.*guests are x86-64' words
}
check "guests do not compile" no_guests
says() { # says FILE PATTERN...: each stands in a line of the file
    cat "$1"
    words=$1
    shift
    for pattern; do grep -qE "$pattern" "$words" || { echo "nothing like $pattern"; return 1; }; done
}
refusals() { emulated ./gates >words && says words '^kvm HLSNAP_ERR_HYPERVISOR: .*x86-64' '^data HLSNAP_ERR_ELF: ' '^self HLSNAP_ERR_'; }
check "what there is none of is refused" refusals
refusals_large() { large_pages ./gates >words && says words '^data HLSNAP_ERR_UNSUPPORTED: .* 65536 ' '^self HLSNAP_ERR_UNSUPPORTED: .* 65536 '; }
check "guests where pages have 64 KiB are refused" refusals_large

# ---- the C tests ----
run_test() { # run_test NAME LIBS...: compiled and run in a directory of its own; the log ends with the exit code
    t=$1
    shift
    mkdir "$t" && compile -std=gnu11 $gate "$top/tests/$t.c" -o "$t/$t" "$@" >"$t.cc.log" 2>&1 ||
        { sed 's/^/# /' "$t.cc.log" && echo "not ok 1 - compiles" && echo "0 passed, 1 failed, 0 skipped" && echo "exit 1"; return; }
    (cd "$t" && emulated "./$t" 2>&1)
    echo "exit $?"
    rm -rf "$t"
}
report() { # report NAME: its lines, numbered on; each name with the test's before it
    awk -v t="$1" -v n="$n" '
        /^(not )?ok [0-9]+ - / {
            bad = $1 == "not"
            skip = !bad && / # SKIP /
            sub(/^(not )?ok [0-9]+ - /, "")
            printf "%sok %d - %s: %s\n", bad ? "not " : "", ++n, t, $0
            if (bad) f++; else if (skip) s++; else p++
            next
        }
        /^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$/ { closed = $1 == p + 0 && $3 == f + 0 && $5 == s + 0; next }
        /^exit [0-9]+$/ { code = $2; next }
        /^1\.\.[0-9]+$/ { next }
        { print /^#/ ? $0 : "# " $0 }
        END {
            if (!closed || (code != 0 && code != 77 && !f)) {
                printf "not ok %d - %s: exit %s%s\n", ++n, t, code, closed ? "" : ", no closing line that counts right"
                f++
            }
            printf "%d %d %d %d\n", n, p, f, s >"counts"
        }' "$1.log"
    read -r n p f s <counts
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}
tests="test_rt test_elf test_core test_oom"
if [ -n "$oci" ]; then
    tests="$tests test_oci test_sha test_layers test_golden"
    export GOLDEN_DIR="$top/tests/golden"
    run_test test_layers -lcjson >test_layers.log & # as long as all others
fi
run_test test_rt -lm >test_rt.log
run_test test_elf >test_elf.log
run_test test_core >test_core.log
run_test test_oom >test_oom.log
if [ -n "$oci" ]; then
    run_test test_oci -lcjson >test_oci.log
    run_test test_sha -lcjson -l:libcrypto.a >test_sha.log
    run_test test_golden -lcjson >test_golden.log
    wait
fi
for t in $tests; do report "$t"; done
[ -n "$oci" ] || { for t in test_oci test_sha test_layers test_golden layouts; do skip "$t" "$no_libs"; done; finish; }

# ---- layouts: the second reader and writer, told that it is of this architecture ----
if ! command -v python3 >/dev/null; then skip layouts "no python3"; finish; fi
sed 's/x86_64/THIS/g; s/aarch64/x86_64/g; s/THIS/aarch64/g' "$top/tests/snapshot_format.py" >other.py
other() { python3 -B other.py "$@"; }
x86() { python3 -B "$top/tests/snapshot_format.py" "$@"; }
hlsnap() { emulated ./format_dump "$@"; }
check "format_dump compiles" compile -std=gnu11 -Wall -Wextra -Werror "$top/tests/format_dump.c" -o format_dump -lcjson
[ -x format_dump ] || finish
reads() { # reads DIR
    other check "$1" >ours && hlsnap load "$1" $(cut -d' ' -f1 ours) >theirs && [ -s ours ] && diff ours theirs
}
written() { other write "w$1" s --count 3 --layers "$1" && other exact "w$1" s1 s2 s3 && reads "w$1"; }
copied() {
    other write "f$1" s --count 3 --layers "$1" --flat >flat || return 1
    for seed in 1 2 3; do hlsnap copy "w$1" "s$seed" "c$1" "s$seed" || return 1; done >copies
    diff copies flat && other exact "c$1" s1 s2 s3 && reads "c$1"
}
for layers in 1 3 16; do
    check "$layers layers: read as python wrote them" written $layers
    check "$layers layers: saved flat, as python does, byte by byte" copied $layers
done
foreign() { # of x86-64: the same but for the architecture's name, and refused by it
    x86 write x s --layers 3 --seed 1 && ! hlsnap load x s 2>words && says words "HLSNAP_ERR_ARCH: .*arch 'x86_64'.* this is aarch64"
}
check "a snapshot of x86-64 is refused by its arch" foreign
same_layers() { # where no architecture stands, the digests are the same
    find x/blobs/sha256 -type f -size +8k >blobs && [ "$(wc -l <blobs)" -ge 3 ] || return 1
    while read -r b; do cmp "$b" "w3${b#x}" || return 1; done <blobs
}
check "memory of x86-64 has the same bytes" same_layers
feature() { other write cpu s --features cx16,sse3 && ! hlsnap load cpu s 2>words && says words 'HLSNAP_ERR_CPU: .* lacks.* cx16.* sse3'; }
check "features that this CPU has not are named" feature
large() { ! large_pages ./format_dump load w3 s1 2>words && says words 'HLSNAP_ERR_ARCH: .* 65536 '; }
check "where pages have 64 KiB, nothing loads" large
verdicts() { # but for features of x86-64, which this machine has not, and one mutant that spells its own architecture in escapes
    other mutants m >want && hlsnap verdict m $(cut -d' ' -f1 want | sed 's,^,m/,') >got 2>why
    awk 'NR == FNR {want[$1] = $1 ~ /^(features-good[12]|cpu-v2)$/ ? "HLSNAP_ERR_CPU" : $2; next}
        {w = want[$1]; ok = w == $2 || w == "refused" && $2 != "HLSNAP_OK" || w == "either" && $2 == "HLSNAP_OK" || $1 == "json-escaped-value"}
        !ok {print $1 ": " $2 ", not " w; bad = 1} {seen++}
        END {if (seen < 600) print "only " seen " mutants"; exit bad || seen < 600}' want got
}
check "damaged and odd layouts are judged as the text says" verdicts
finish
