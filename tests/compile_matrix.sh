#!/bin/sh
# The headers in every language, standard, order and role; then what their object files and their text must look like.
# usage: compile_matrix.sh [BUILD_DIR]     honours CC and CXX (then only those; cc and c++ mean all that are found); JOBS (2) at a time
#   API_DIR=DIR   also builds hello.c, cloud.c, game.c and plugin.cpp of DIR against an api.h that includes the headers
# One TAP line each; ends with `N passed, N failed, N skipped`; exit 0 or 1.
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
build=${1:-$top/build/compile_matrix}
CCS=${CC:-cc} CXXS=${CXX:-c++}
[ "$CCS" != cc ] || CCS="gcc clang"
[ "$CXXS" != c++ ] || CXXS="g++ clang++"
export top
mkdir -p "$build" && cd "$build" || exit 1
rm -rf ./*.c ./*.cc ./*.o ./*.so ./*.exe ./*.layout v1 v2 api
# shellcheck source=tests/jobs.sh
. "$top/tests/jobs.sh"

have() { command -v "$1" >/dev/null 2>&1; }
found=
for c in $CCS $CXXS; do have "$c" && found="$found $c"; done
only() { # of the compilers found, those of one language
    for c in $found; do case $c in *++*) [ "$1" = c++ ] && echo "$c" ;; *) [ "$1" = c ] && echo "$c" ;; esac; done
}
CCS=$(only c) CXXS=$(only c++)
[ -n "$CCS" ] || { echo "1..0 # SKIP no C compiler"; exit 77; }
first=${CCS%%[!A-Za-z0-9_./+-]*}
firstxx=${CXXS%%[!A-Za-z0-9_./+-]*}

headers="hlsnap hlsnap_kvm" oci='' libs=''
if [ -f "$top/hlsnap_oci.h" ] && echo '#include <cjson/cJSON.h>' | "$first" -E - >/dev/null 2>&1; then
    oci=hlsnap_oci headers="$headers hlsnap_oci" libs=-lcjson
fi
echo "# headers: $headers"

cat >prelude.sh <<'END'
gate="-Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Wundef -Wcast-qual -Wvla -Werror"
cgate="$gate -Wstrict-prototypes -Wmissing-prototypes"
cc() { echo "$*" >&2; command "$@"; }
END

# A program that includes the headers as listed and calls a function of each. $1 = what to define, $2 = main's name, rest = headers.
program() {
    define=$1 name=$2; shift 2
    [ -n "$define" ] && echo "#define $define"
    [ "$define" = HLSNAP_STATIC ] && echo "#define HLSNAP_IMPLEMENTATION"
    for h; do echo "#include \"$h.h\""; done
    echo '#ifdef __cplusplus'
    [ "$name" = main ] || echo 'extern "C"'
    echo '#endif'
    [ "$name" = main ] || echo "int $name(void);"
    echo "int $name(void) {"
    echo "    hlsnap_error err = HLSNAP_ZERO;"
    echo "    int bad = hlsnap_version() != HLSNAP_VERSION || err.code != HLSNAP_OK;"
    echo "    hlsnap_snapshot *s = NULL;"
    echo "    bad += hlsnap_snapshot_from_guest(NULL, &s, &err) != HLSNAP_ERR_ARG;"
    case " $* " in *" hlsnap_kvm "*) echo "    bad += hlsnap_kvm() == NULL;" ;; esac
    case " $* " in *" hlsnap_oci "*)
        echo '    bad += hlsnap_oci_load("/nowhere/at/all", "v1", NULL, &s, NULL, &err) == HLSNAP_OK;' ;;
    esac
    echo "    return bad;"
    echo "}"
}

# Sets of headers: each alone, all in every order, all of them twice.
sets() {
    for h in $headers; do echo "$h"; done
    if [ -n "$oci" ]; then
        for a in $headers; do for b in $headers; do for c in $headers; do
            [ "$a" != "$b" ] && [ "$a" != "$c" ] && [ "$b" != "$c" ] && echo "$a $b $c"
        done; done; done
    else
        echo "hlsnap hlsnap_kvm"; echo "hlsnap_kvm hlsnap"
    fi
    echo "$headers $headers"
}
sets >sets.txt
n=0
while read -r set; do
    n=$((n + 1))
    # shellcheck disable=SC2086
    {
        program "" main $set >"decl$n.c"
        program HLSNAP_IMPLEMENTATION main $set >"impl$n.c"
    }
done <sets.txt
all=$n
# shellcheck disable=SC2086
{
    program HLSNAP_STATIC main $headers >static.c
    program HLSNAP_STATIC other $headers >static2.c
    program HLSNAP_IMPLEMENTATION library $headers >library.c
}
cp library.c library.cc
cat >guest.c <<'END'
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
static hlsnap_result twice(hlsnap_call *call, void *user) {
    (void)user;
    return hlsnap_call_return(call, hlsnap_i32(2 * hlsnap_call_arg(call, 0).as.i32));
}
static const hlsnap_function exports[] = {{"twice", "i32(i32)", twice, NULL}};
static const hlsnap_module module = {exports, HLSNAP_COUNT(exports), NULL, 0};
HLSNAP_GUEST_MAIN(module);
END
cp guest.c guest.cc
# Everything that README says a guest may call, and mathematics as it says.
cat >mod.c <<'END'
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#ifdef __cplusplus
struct local { float v; local(float x); };
__attribute__((noinline)) local::local(float x) : v(x) {}
#endif
static char a[64], b[64];
static hlsnap_result all(hlsnap_call *call, void *user) {
    float x = hlsnap_call_arg(call, 0).as.f32;
    size_t n = (size_t)x;
    void *p = realloc(calloc(n, 2), n), *q = malloc(n);
    (void)user;
#ifdef __cplusplus
    static local kept(x);
    x = kept.v;
#endif
    if (!p || !q) abort();
    memcpy(a, p, n), memmove(b, a, n), memset(a, 7, n), strcpy(a, b), strncpy(b, a, n), strcat(a, b);
    if (memcmp(a, b, n) || strcmp(a, b) || strncmp(a, b, n)) n += strlen(a) + strnlen(b, n);
    if (memchr(a, 7, n) || strchr(a, 7) || strrchr(a, 7) || strstr(a, b)) n += (size_t)abs((int)n) + (size_t)labs(7) + (size_t)llabs(7);
    free(p), free(q);
    p = aligned_alloc(64, 64);
    if (posix_memalign(&q, 64, n) || snprintf(a, sizeof(a), "%p %d", p, errno) < 0) errno = 7;
    free(p), free(q);
    assert(n);
    return hlsnap_call_return(call, hlsnap_f32(__builtin_sqrtf(x) + (float)__builtin_sqrt((double)n)));
}
static const hlsnap_function exports[] = {{"all", "f32(f32)", all, NULL}};
static const hlsnap_module module = {exports, HLSNAP_COUNT(exports), NULL, 0};
HLSNAP_GUEST_MAIN(module);
END
cp mod.c mod.cpp
sed -n 's/^    \(cc\|c++\) \(-O2 -DHLSNAP_GUEST .* -o mod.elf\)$/\1 \2/p' "$top/README.md" >guest_lines
cat >plain.c <<'END'
#include "hlsnap.h"
#include "hlsnap_kvm.h"
int used(const hlsnap_call *call);
int used(const hlsnap_call *call) { return hlsnap_call_arg(call, 0).as.i32 + (hlsnap_kvm() != NULL); }
END

# Implementations that other jobs link with.
for cc in $CCS; do job "" "cc $cc \$cgate -I$top -c library.c -o library.${cc##*/}.o"; done
for cc in $CXXS; do job "" "cc $cc \$gate -std=c++17 -I$top -x c++ -c library.c -o library.${cc##*/}.o"; done
jobs_run

# An includer's surroundings. all.c and each.c include everything, with and without the implementation.
for h in $headers; do echo "#include \"$h.h\""; done >each.h
{ cat each.h; echo 'int main(void) { return hlsnap_i32(7).as.i32 != 7; }'; } >each.c
{ echo '#define HLSNAP_IMPLEMENTATION'; cat each.c; } >all.c
{ echo 'extern "C" {'; cat each.h; echo '}'; sed -n '/^int main/p' each.c; } >c_linkage.c
{ echo '#define HLSNAP_IMPLEMENTATION'; cat c_linkage.c; } >c_linkage_all.c
# glibc 2.43: macros that need C11 to keep const, in place of functions; here they name nothing, so that a use fails everywhere.
cat >const_macros.h <<'END'
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <stdlib.h>
#include <string.h>
#include <wchar.h>
#define memchr(s, c, n) _Generic((s), default: const_macro_in_use)
#define memrchr(s, c, n) _Generic((s), default: const_macro_in_use)
#define rawmemchr(s, c) _Generic((s), default: const_macro_in_use)
#define strchr(s, c) _Generic((s), default: const_macro_in_use)
#define strchrnul(s, c) _Generic((s), default: const_macro_in_use)
#define strrchr(s, c) _Generic((s), default: const_macro_in_use)
#define strpbrk(s, a) _Generic((s), default: const_macro_in_use)
#define strstr(s, n) _Generic((s), default: const_macro_in_use)
#define strcasestr(s, n) _Generic((s), default: const_macro_in_use)
#define memmem(s, n, t, m) _Generic((s), default: const_macro_in_use)
#define bsearch(k, b, n, w, c) _Generic((b), default: const_macro_in_use)
#define index(s, c) _Generic((s), default: const_macro_in_use)
#define rindex(s, c) _Generic((s), default: const_macro_in_use)
#define wcschr(s, c) _Generic((s), default: const_macro_in_use)
#define wcsstr(s, n) _Generic((s), default: const_macro_in_use)
END
# Words that programs make macros of: for anything, for nothing, and as functions.
words='internal local check in min max linux unix near far small huge page global persist byte uint u8 u16 i8 i16 word state context
    current interface verify require swap abs clamp lerp pi OK ERROR FAIL TRUE FALSE BOOL PAGE_SIZE KB MB likely unlikely unused used
    packed aligned hidden weak noreturn pure cold hot format printf section visibility warn_unused_result deprecated may_alias
    ARRAY_SIZE offset_of foreach forever loop until begin end vector2 pixel debug trace warn error panic die len buffer string I X Y
    N M S T U V A B C D E F major minor stat sun mips erase clear move refresh timeout box echo alloc release create reset at fd next
    head tail first last mask flags IN OUT OPTIONAL CONST VOID'
for w in $words; do echo "#undef $w"; echo "#define $w @"; done >words_any.h
for w in $words out err inout tag dir; do echo "#undef $w"; echo "#define $w"; done >words_none.h
for w in $words out err inout args tag dir self name size count data info code text log user value type region; do echo "#define $w(...) @"; done >words_functions.h
for w in internal local check min max near far small huge page global byte uint u8 u16 word state context interface verify require swap clamp \
    OK ERROR FAIL TRUE FALSE BOOL PAGE_SIZE likely unlikely noreturn pure cold debug trace warn error panic die err out in self \
    I X Y N M S T U V A B C D E F IN OUT move erase clear timeout echo box; do echo "#define $w(...) @"; done >words_inside.h
cat >poison.h <<'END'
#define _GNU_SOURCE 1
#include <stdlib.h>
#include <string.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif
#include <signal.h>
#include <stdio.h>
#include <pthread.h>
void *own_alloc(size_t n);
void own_free(void *p);
#define HLSNAP_MALLOC(n) own_alloc(n)
#define HLSNAP_FREE(p) own_free(p)
#pragma GCC poison malloc free calloc realloc strdup strcpy strcat strncpy strncat strtok sprintf vsprintf gmtime localtime ctime asctime mktemp
END
[ -z "$oci" ] || sed -i 's/^void \*own_alloc/#include <cjson\/cJSON.h>\n&/' poison.h
# What is said of macros of the names of hlsnap_value's fields: "said" is in the header's own words.
cat >fields.sh <<'END'
for m in f32=float u32=unsigned+int i64=long f64= u32=uint32_t f32=my_f32 f32=f32; do
    echo "#define ${m%%=*} $(echo "${m#*=}" | tr + ' ')" >"field.$$.h"
    if "$1" -x "$2" -Wall -Wextra -Wpedantic -Werror -I"$top" -include stdint.h -include "./field.$$.h" -fsyntax-only each.c 2>"field.$$.log"
    then printf '%s: ok ' "$m"
    elif grep -q 'error.*is a macro for a type' "field.$$.log"; then printf '%s: said ' "$m"
    else printf '%s: not said ' "$m"; fi
done
rm -f "field.$$.h" "field.$$.log"
END
field_job() { echo "sh fields.sh $1 $2"; }
# shellcheck disable=SC2016
surroundings='for w in any none functions; do cc $CMD -include ./words_$w.h each.c || exit 1; done; cc $CMD -include ./words_inside.h all.c'

# A loop in the job: one TAP line for each compiler and standard, over all sets.
# shellcheck disable=SC2016
declarations='i=0; while [ $i -lt '$all' ]; do i=$((i + 1)); cc $CMD -fsyntax-only decl$i.c || exit 1
    [ $i -lt '$all' ] || { cc $CMD decl$i.c -x none library.$C.o $LIBS -o decl.$$.exe && ./decl.$$.exe || exit 1; }; done'
implementation() { # sets: one after the other
    for i; do echo "cc \$CMD impl$i.c -x none \$LIBS -o impl.\$\$.exe && ./impl.\$\$.exe || exit 1"; done
}
orders=$(seq 1 "$all" | tr '\n' ' ')
last=$all
[ -n "$oci" ] && alone="1 2 3" || alone="1 2"
for cc in $CCS; do
    for std in c99 c11 gnu17; do
        v="C=${cc##*/} LIBS=$libs; CMD=\"$cc -std=$std \$cgate -I$top\"
"
        job "$cc -std=$std declarations, all sets and orders" "$v $declarations"
        job "$cc -std=$std freestanding declarations" "$v cc \$CMD -ffreestanding -fsyntax-only plain.c && cc \$CMD -ffreestanding -DHLSNAP_GUEST -fsyntax-only plain.c"
        # shellcheck disable=SC2086
        job "$cc -std=$std implementation, each alone, all twice" "$v $(implementation $alone $last)"
        job "$cc -std=$std guest" "$v cc \$CMD -O1 -DHLSNAP_GUEST -ffreestanding -nostdlib -static guest.c -o guest.${cc##*/}.$std.exe"
    done
    for std in c99 c2x; do
        v="CMD=\"$cc -std=$std \$cgate -I$top -fsyntax-only\"
"
        job "$cc -std=$std, macros as in glibc 2.43" "$v cc \$CMD -include ./const_macros.h all.c"
        job "$cc -std=$std, words that are macros" "$v $surroundings"
    done
    job "$cc, malloc and others poisoned" "cc $cc \$cgate -I$top -include ./poison.h -fsyntax-only all.c"
    job "$cc, macros of the fields' names" "[ \"\$($(field_job "$cc" c))\" = 'f32=float: said u32=unsigned+int: said i64=long: said f64=: said u32=uint32_t: ok f32=my_f32: ok f32=f32: ok ' ]"
    # shellcheck disable=SC2086
    job "$cc implementation, every order" "C=${cc##*/} LIBS=$libs; CMD=\"$cc -std=gnu11 \$cgate -I$top\"
$(implementation $orders)"
    job "$cc HLSNAP_STATIC, in two files" "cc $cc \$cgate -I$top static.c static2.c $libs -o static.${cc##*/}.exe && ./static.${cc##*/}.exe"
    job "$cc: README's line for guests" "cc $cc \$(sed -n 's/^cc //p' guest_lines) -I$top -fno-math-errno"
    job "$cc -O2 implementation" "cc $cc \$cgate -O2 -I$top impl$last.c $libs -o o2.${cc##*/}.exe && ./o2.${cc##*/}.exe"
done
for cc in $CXXS; do
    for std in c++11 c++14 c++17 c++20; do
        v="C=${cc##*/} LIBS=$libs; CMD=\"$cc -x c++ -std=$std \$gate -I$top\"
"
        job "$cc -std=$std declarations, all sets and orders" "$v $declarations"
        job "$cc -std=$std freestanding declarations" "$v cc \$CMD -ffreestanding -fsyntax-only plain.c && cc \$CMD -ffreestanding -DHLSNAP_GUEST -fsyntax-only plain.c"
        job "$cc -std=$std: README's line for guests" "cc $cc \$(sed -n 's/^c++ //p' guest_lines) -std=gnu++${std#c++} -I$top -fno-math-errno"
        job "$cc -std=$std implementation, all twice" "$v $(implementation "$last")"
        job "$cc -std=$std guest" "$v cc \$CMD -O1 -DHLSNAP_GUEST -ffreestanding -nostdlib -static guest.c -o guest.${cc##*/}.$std.exe"
    done
    for std in c++11 c++2b; do
        v="CMD=\"$cc -x c++ -std=$std \$gate -I$top -fsyntax-only\"
"
        job "$cc -std=$std, macros as in glibc 2.43" "$v cc \$CMD -include ./const_macros.h all.c"
        job "$cc -std=$std, words that are macros" "$v $surroundings"
        job "$cc -std=$std, extern \"C\" around the include" "$v cc \$CMD c_linkage.c && cc \$CMD c_linkage_all.c"
    done
    job "$cc, malloc and others poisoned" "cc $cc -x c++ \$gate -I$top -include ./poison.h -fsyntax-only all.c"
    job "$cc, extern \"C\" around the implementation: linked" "cc $cc -x c++ \$gate -I$top c_linkage_all.c -x none $libs -o c_linkage.${cc##*/}.exe && ./c_linkage.${cc##*/}.exe"
    job "$cc, macros of the fields' names" "[ \"\$($(field_job "$cc" c++))\" = 'f32=float: said u32=unsigned+int: said i64=long: said f64=: said u32=uint32_t: said f32=my_f32: ok f32=f32: ok ' ]"
    # shellcheck disable=SC2086
    job "$cc implementation, each alone" "C=${cc##*/} LIBS=$libs; CMD=\"$cc -x c++ -std=c++17 \$gate -I$top\"
$(implementation $alone)"
    job "$cc HLSNAP_STATIC, in two files" "cc $cc \$gate -x c++ -I$top static.c static2.c -x none $libs -o static.${cc##*/}.exe && ./static.${cc##*/}.exe"
    for c in $CCS; do
        job "$c implements, $cc uses" "cc $cc \$gate -x c++ -I$top decl$last.c -x none library.${c##*/}.o $libs -o use.${cc##*/}.${c##*/}.exe && ./use.${cc##*/}.${c##*/}.exe"
        job "$cc implements, $c uses" "cc $c \$cgate -c -I$top decl$last.c -o use.${c##*/}.${cc##*/}.o && cc $cc use.${c##*/}.${cc##*/}.o library.${cc##*/}.o $libs -o use.${c##*/}.${cc##*/}.exe && ./use.${c##*/}.${cc##*/}.exe"
    done
done

# Programs with asserted output. A program's 77 is a skip.
expect() { # name, command to build, command to run; expected output on stdin
    cat >"$1.want"
    job "$1" "$2 || exit 1; $3 >$1.got; rc=\$?; [ \$rc = 77 ] && echo '# no hypervisor' && exit 77
        diff $1.want $1.got && [ \$rc = 0 ]"
}
with=${oci:+-DWITH_OCI}
for cc in $CCS; do
    b=$(basename "$cc")
    expect "api_hello.$b" "cc $cc \$cgate -std=c11 -I$top $top/tests/api_hello.c -o api_hello.$b.exe" "./api_hello.$b.exe" <<'END'
log 1: told about tea
tea costs 1.25 EUR
log 1: told about cake
cake costs 2.50 EUR
HLSNAP_ERR_FUNCTION 7, still ready: 1
HLSNAP_ERR_SIGNATURE, HLSNAP_ERR_NOT_FOUND
HLSNAP_ERR_ABORT 7, poisoned: 1
END
    expect "api_game.$b" "cc $cc \$cgate -std=c11 -I$top $top/tests/api_game.c -o api_game.$b.exe" "./api_game.$b.exe" <<'END'
HLSNAP_ERR_SIGNATURE
played 10, one of them faulted: x 4.5, frame 10, faults 1
rolled back to 8: x 3.0, frame 7, faults 1
resimulated with a late push: x 18.0, frame 10, faults 1
HLSNAP_ERR_TIMEOUT
after a time limit, at 9: x 8.0, frame 8, faults 1
END
    expect "api_cloud.$b" "cc $cc \$cgate -std=c11 $with -I$top $top/tests/api_cloud.c $libs -o api_cloud.$b.exe" \
        "./api_cloud.$b.exe ./$b.layout" <<'END'
by digest: 1
by tag: 1
abc 9
abc 10
HLSNAP_ERR_FUNCTION 404
abc 9
abc 10
HLSNAP_ERR_FUNCTION 404
HLSNAP_ERR_CONTRACT
END
done
for cc in $CXXS; do
    b=$(basename "$cc")
    p="cc $cc \$gate -std=c++17 -I$top $top/tests/api_plugin.cpp"
    expect "api_plugin.$b" "$p -shared -fPIC -o $b.1.so && cp $b.1.so $b.2.so && $p -DPLUGIN_HOST -o plugin.$b.exe -ldl" \
        "./plugin.$b.exe ./$b.1.so ./$b.2.so" <<'END'
one! (1, 2)
one! (2, 3)
rolled back: HLSNAP_ERR_ABORT
one! (1, 2)
log: oneoneone
two! (1, 2)
two! (2, 3)
rolled back: HLSNAP_ERR_ABORT
two! (1, 2)
log: twotwotwo
END
done

# The programs that the interface was drawn from, where they are at hand.
if [ -n "${API_DIR:-}" ]; then
    mkdir -p api
    for f in hello.c cloud.c game.c plugin.cpp; do cp "$API_DIR/$f" api/; done
    for h in $headers; do echo "#include \"$h.h\""; done >api/api.h
    cat >api/host.c <<'END'
int plugin_entry(const char *text);
int main(void) { return plugin_entry("plugged") < 0; }
END
    echo 'bool mod_load(void *, const char *, const void *, unsigned long, void *); int main(void) { return mod_load == 0; }' >api/main.c
    sed -i '1i #include <stdbool.h>' api/main.c
    echo "Hello, World! Today is Monday." >hello.want
    echo "plugged!" >plugin.want
    in="-Iapi -I$top"
    job "API_DIR hello.c" "cc $first -O2 $in api/hello.c $libs -o api/hello.exe && ./api/hello.exe | diff hello.want -"
    job "API_DIR cloud.c" "cc $first \$cgate $in api/cloud.c library.${first##*/}.o $libs -o api/cloud.exe"
    job "API_DIR game.c" "cc $first \$cgate $in -c api/game.c -o api/game.o && cc $first api/main.c api/game.o library.${first##*/}.o $libs -o api/game.exe"
    [ -n "$firstxx" ] && job "API_DIR plugin.cpp" "cc $first -fPIC -I$top -c library.c -o api/library.o &&
        cc $firstxx -std=c++17 -shared -fPIC $in api/plugin.cpp api/library.o $libs -o api/libplugin.so &&
        cc $first api/host.c -Lapi -lplugin -Wl,-rpath,\$PWD/api -o api/host.exe && ./api/host.exe | diff plugin.want -"
fi

# Two releases in one process: each shared object calls its own.
for v in 1 2; do
    mkdir -p v$v
    cp "$top"/hlsnap*.h v$v/
    {
        echo '#define HLSNAP_IMPLEMENTATION'
        for h in $headers; do echo "#include \"$h.h\""; done
        echo "__attribute__((visibility(\"default\"))) unsigned version$v(void);"
        echo "unsigned version$v(void) { return hlsnap_version() + (hlsnap_kvm() == NULL); }"
    } >v$v.c
done
sed -i 's/^#define HLSNAP_VERSION_PATCH .*/#define HLSNAP_VERSION_PATCH 77/; s/^#if HLSNAP_VERSION != .*/#if HLSNAP_VERSION < 77/' v2/*.h
cat >versions.c <<'END'
#include <stdio.h>
unsigned version1(void);
unsigned version2(void);
int main(void) {
    printf("%u %u\n", version1(), version2());
    return version1() == version2() || version2() % 1000 != 77;
}
END
job "two versions in two shared objects" "for v in 1 2; do cc $first -shared -fPIC -Iv\$v v\$v.c $libs -o lib\$v.so || exit 1; done
    cc $first versions.c -L. -l:lib1.so -l:lib2.so -Wl,-rpath,\$PWD -o versions.exe && ./versions.exe"
job "headers of two releases do not mix" "mkdir -p mixed && cp v2/hlsnap.h v1/hlsnap_kvm.h mixed/ && echo '#include \"hlsnap_kvm.h\"' >mixed.c &&
    ! $first -Imixed -fsyntax-only mixed.c 2>mixed.log && grep -q 'different release' mixed.log"
job "HLSNAP_STATIC needs HLSNAP_IMPLEMENTATION; HLSNAP_MALLOC needs HLSNAP_FREE" "echo '#include \"hlsnap.h\"' >lone.c
    ! $first -I$top -DHLSNAP_STATIC -fsyntax-only lone.c 2>/dev/null &&
    ! $first -I$top -DHLSNAP_IMPLEMENTATION '-DHLSNAP_MALLOC(n)=0' -fsyntax-only lone.c 2>/dev/null"
job "HLSNAP_API may export" "cc $first -I$top '-DHLSNAP_API=extern __attribute__((visibility(\"default\")))' -shared -fPIC library.c $libs -o exporting.so &&
    nm -D exporting.so | grep -q ' T hlsnap_version' && cc $first decl$last.c -I$top exporting.so -Wl,-rpath,\$PWD $libs -o exported.exe 2>&1 | head -n 3
    $first '-DHLSNAP_API=extern' decl$last.c -I$top exporting.so -Wl,-rpath,\$PWD $libs -o exported.exe && ./exported.exe"

# What the object file may hold.
job "no writable data but the published facts and a count of calls" "cc $first -fno-pie -I$top -c library.c -o fixed.o && nm fixed.o | awk '\$2 ~ /^[dDbBsSgGcC]\$/ && \$3 !~ /^hlsnap__(kvm_facts_|kvm_num_armed|cpu_published|cpu_vendor_words|rt_in_guest)/ { print \"# \" \$3; bad = 1 } END { exit bad }'"
job "nothing that exits, prints, or changes the process" "nm -u library.${first##*/}.o | awk '{ print \$NF }' | sed 's/@.*//' >undefined
    if grep -xE '_?_?(exit|_exit|_Exit|abort|printf|fprintf|vprintf|vfprintf|puts|putchar|fputs|fwrite|perror|warn|warnx|err|errx|signal|sigaction|bsd_signal|setlocale|strerror|strerror_r|cJSON_InitHooks|cJSON_GetErrorPtr|__assert_fail|system|setenv|atexit|stdout|stderr)' undefined; then exit 1; fi"
job "global symbols begin with hlsnap_ and are hidden" "nm -g --defined-only library.${first##*/}.o | awk '\$3 !~ /^hlsnap_[a-z]/ && \$3 != \"library\" { print \"# \" \$3; bad = 1 } END { exit bad }' &&
    readelf -sW library.${first##*/}.o | awk '\$5 == \"GLOBAL\" && \$6 == \"DEFAULT\" && \$7 != \"UND\" && \$8 != \"library\" { print \"# \" \$8; bad = 1 } END { exit bad }'"
job "no symbol leaves a static copy" "cc $first -I$top -c static2.c -o static2.o && nm -g --defined-only static2.o | awk '\$3 != \"other\" { print \"# \" \$3; bad = 1 } END { exit bad }'"

# What the text must look like.
cat >docs.awk <<'AWK'
# Each group of HLSNAP_API declarations stands directly below a comment that says what it returns or which threads may call it.
/>>implementation --/ { nextfile }
FNR == 1 { group = 0; comment = ""; inside = 0 }
/^ *\/\*/ { comment = ""; inside = 1 }
inside { comment = comment "\n" $0; if (/\*\//) { inside = 0; fresh = FNR } ; next }
/^HLSNAP_API/ {
    if (!group && (fresh != FNR - 1 || comment !~ /returns|threads/)) {
        print "# " FILENAME ":" FNR ": " $0
        bad = 1
    }
    group = 1
    count++
    next
}
/^$/ { group = 0 }
END { print "# " count " declarations"; exit bad || count < 20 }
AWK
cat >writes.awk <<'AWK'
# What writes or resizes a file stands in hlsnap.h's >>file-writes and nowhere else: there RLIMIT_FSIZE is asked first.
FNR == 1 { room = 0 }
/^\/\* ---- >>/ { room = /^\/\* ---- >>file-writes:/ && FILENAME ~ /hlsnap\.h$/ }
/(^|[^A-Za-z0-9_])(p?writev?2?|pwrite64|f?truncate(64)?|(posix_)?fallocate(64)?|copy_file_range|sendfile(64)?|v?m?splice|tee|f(open|write|puts|printf)|mkstemp|creat) *\(/ ||
/SYS_(p?writev?2?|pwrite64|f?truncate(64)?|fallocate|copy_file_range|sendfile(64)?|splice|vmsplice|tee|creat)[^A-Za-z0-9_]/ || /FICLONE|FIDEDUPE/ {
    if (room) found++
    else { print "# " FILENAME ":" FNR ": " $0; bad = 1 }
}
END { print "# " found " in >>file-writes"; exit bad || found < 4 }
AWK
cat >length.awk <<'AWK'
# A function at column 0 of over 60 lines needs a comment right above it that says why.
FNR == 1 { start = 0 }
/^[A-Za-z_].*\(/ && !start && !/;[ ]*(\/[*\/].*)?$/ && !/^(typedef|#|static const [a-z_ ]*=)/ { head = FNR; why = previous ~ /\*\/ *$|^\/\// ; text = $0 }
/^[A-Za-z_ ].*\{ *(\/[*\/].*)?$/ && head && !start && !/= \{/ && !/^(struct|enum|union|typedef|extern)/ { if (/^[A-Za-z_]/ || FNR - head < 6) start = head }
/^\}/ { if (start && FNR - start + 1 > 60 && !why) { print "# " FILENAME ":" start ": " FNR - start + 1 " lines: " text; bad = 1 } ; if (start) count++; start = 0; head = 0 }
{ previous = $0 }
END { print "# " count " functions"; exit bad || count < 100 }
AWK
job "every declaration has its block" "for h in $headers; do awk -f docs.awk $top/\$h.h >docs.\$h; [ \$h = hlsnap ] && rc=\$?; grep -h . docs.\$h; grep -qv declarations docs.\$h && rc=1; done; exit \$rc"
job "no function over 60 lines without a reason" \
    "find $top -maxdepth 2 \\( -path '$top/*.h' -o -path '$top/examples/*.c*' -o -path '$top/tests/*.[ch]' -o -path '$top/tests/*.cpp' -o -path '$top/bench/*.[ch]' \\) >files && xargs awk -f length.awk <files"
job "files are written where their limit is asked, and nowhere else" "awk -f writes.awk $top/hlsnap*.h"
job "no reserved names, leftovers or tabs" "for h in $headers; do awk -v f=\$h '/>>implementation --/ { exit } /hlsnap__|HLSNAP__|#pragma|\\t/ { print \"# \" f \":\" FNR \": \" \$0; bad = 1 } END { exit bad }' $top/\$h.h || exit 1; done
    ! grep -nE 'TODO|FIXME|XXX|#pragma' $top/hlsnap*.h | grep -vE '#pragma (GCC (push_options|pop_options|target|optimize)|clang attribute) ?'"
jobs_run

# Cost of including, and of implementing; reported, not judged.
cost() { # name, command
    t0=$(date +%s%N)
    for i in 1 2 3 4 5 6 7 8 9 10; do sh -c "$2" >/dev/null 2>&1; done
    echo "# $1: $((($(date +%s%N) - t0) / 10000000)) ms"
}
: "${i:=}"
echo >empty.c
cost "$first, an empty file" "$first -fsyntax-only empty.c"
cost "$first, the declarations of all headers" "$first -I$top -fsyntax-only decl$last.c"
[ -z "$firstxx" ] || cost "$firstxx, the declarations of all headers" "$firstxx -x c++ -I$top -fsyntax-only decl$last.c"
t0=$(date +%s%N)
"$first" -O2 -I"$top" -c library.c -o cost.o && echo "# $first -O2, all implemented: $((($(date +%s%N) - t0) / 1000000)) ms, $(size cost.o | awk 'NR == 2 { print $1 }') bytes of text"
jobs_report
