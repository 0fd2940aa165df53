#!/bin/sh
# linux.sh DIR - the Linux personality as compilers make it: programs linked with it are disassembled by tests/linux_section.py. TAP;
# needs no /dev/kvm. CFLAGS is honoured.
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1" && build=$(cd "$1" && pwd) || exit 1
cd "$build" || exit 1
# shellcheck source=tests/need.sh
. "$top/tests/need.sh"
need gcc gcc
need g++ g++
need clang clang
need musl-gcc musl-tools
need objdump binutils
need python3 python3
need_done || exit 1
rm -rf ./*.elf broken && mkdir broken || exit 1
export top
export CFLAGS="${CFLAGS:-}"
cat >guest.c <<'END'
#define HLSNAP_GUEST_LIBC
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include <stdio.h>
#include <stdlib.h>
static hlsnap_result hello(hlsnap_call *call, void *user) {
    (void)user;
    printf("hello %s\n", hlsnap_call_arg(call, 0).str);
    return hlsnap_call_return(call, hlsnap_str(getenv("HOME") ? "home" : "none"));
}
static const hlsnap_function exports[] = {{"hello", "str(str)", hello, NULL}};
static const hlsnap_module module = {exports, 1, NULL, 0};
HLSNAP_GUEST_MAIN(module);
int main(void) { hlsnap_rt_serve(); }
END
cat >prelude.sh <<'END'
section() { # section OUTPUT HEADERS COMPILER...
    out=$1.elf headers=$2
    shift 2
    echo "# $* guest.c"
    # shellcheck disable=SC2086
    "$@" $CFLAGS -I"$headers" guest.c -o "$out" && python3 -B "$top/tests/linux_section.py" "$headers/hlsnap.h" "$out"
}
broken() { # broken OUTPUT WHAT SED COMPILER...: the disassembly must show what has been broken
    bad=$1 what=$2
    mkdir -p "broken/$bad" && sed "$3" "$top/hlsnap.h" >"broken/$bad/hlsnap.h" || return 1
    shift 3
    ! cmp -s "broken/$bad/hlsnap.h" "$top/hlsnap.h" || { echo '# the sed command finds nothing any more'; return 1; }
    section "$bad" "broken/$bad" "$@" >"broken/$bad/log" 2>&1
    cat "broken/$bad/log"
    grep -q "$what" "broken/$bad/log"
}
END
# shellcheck source=tests/jobs.sh
. "$top/tests/jobs.sh"
for cc in gcc clang musl-gcc; do
    for how in "-O0" "-O2" "-O3 -march=native"; do
        for static in -static -static-pie; do
            [ "$cc$static" != musl-gcc-static-pie ] || continue # makes a dynamic program of it
            job "$cc $how $static" "section $(echo "$cc$how$static" | tr -d ' =') '$top' $cc $how $static"
        done
    done
done
job "g++ -O2 -static" "section gxx '$top' g++ -x c++ -O2 -static"
job "a call of memset shows" \
    "broken memset 'leaves the section' '/^static int64_t hlsnap__lx_uname/,/^}/s/hlsnap__lx_fill(/memset(/' gcc -O0 -static"
job "a vector register shows" \
    "broken vector 'uses a vector register' '/^static int64_t hlsnap__lx_umask/,/^}/s/return was/__asm__ volatile(\"pxor %xmm0, %xmm0\"); return was/' gcc -O2 -static"
job "a table of pointers shows" \
    "broken table 'a relocation at' '/^static int64_t hlsnap__lx_umask/,/^}/s/return was/static const char *const t[] = {\"a\", \"b\", \"d\"}; return was + *t[was % 3]/' gcc -O2 -static-pie"
jobs_run
jobs_report
