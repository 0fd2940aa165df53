#!/bin/sh
# programs.sh OUTDIR - builds the Linux programs that test_programs.c runs as guests, one TAP row each; *.elf in OUTDIR.
#   INSTALL=1    may apt-get install what is missing; sources of lua5.4, sqlite3 and zlib come by an apt of its own
#   MARCH        of the -O3 build, default native; x86-64-v2 is built beside it, for emulated machines
# A row is skipped, with the reason, only where its compiler or package cannot be had.
# shellcheck disable=SC2317 # functions that row and check call
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
[ $# = 1 ] || { echo "usage: programs.sh OUTDIR" >&2; exit 2; }
mkdir -p "$1" || exit 1
build=$(cd "$1" && pwd)
src=$top/tests/programs
# shellcheck source=tests/need.sh
. "$top/tests/need.sh"
# shellcheck source=tests/tap.sh
. "$top/tests/tap.sh"
CC=${CC:-cc} CXX=${CXX:-c++}
cd "$build" || exit 1

[ "${INSTALL:-0}" != 1 ] || need_each_program

stale() { # stale OUTPUT: it is not there, or older than what it is made of
    # shellcheck disable=SC2086
    [ ! -e "$1" ] || [ -n "$(find $made_of -newer "$1")" ]
}
made_of="$top/tests/programs.sh $top/hlsnap.h $src"

# row NAME MISSING COMMAND...: makes NAME.elf by COMMAND; MISSING says what cannot be had, or is empty
row() {
    name=$1 lacks=$2
    shift 2
    if [ -n "$lacks" ]; then
        rm -f "$name.elf"
        skip "$name" "no $lacks"
    elif ! stale "$name.elf"; then pass "$name"
    else
        rm -f "$name.elf"
        check "$name" "$@"
    fi
}
lacks() { # lacks COMMAND|HEADER.h|FILE PACKAGE...: the package, where it is not there
    case $1 in
    /*) [ -e "$1" ] || echo "$2" ;;
    *.h) printf '#include <%s>\n' "$1" | "$CC" -E -I/usr/include/lua5.4 -I/usr/include/libxml2 - >/dev/null 2>&1 || echo "$2" ;;
    *) command -v "$1" >/dev/null 2>&1 || echo "$2" ;;
    esac
}

# ---- basic.c: each compiler and libc at each level ----
warnings="-Wall -Wextra -Werror"
basic() { # basic NAME MISSING COMMAND...
    kind=$1 none=$2
    shift 2
    for level in "O0 -O0" "O2 -O2" "O3 -O3 -march=${MARCH:-native}" "v2 -O3 -march=x86-64-v2"; do
        # shellcheck disable=SC2086
        row "basic.$kind.${level%% *}" "$none" "$@" ${level#* } -I"$top" "$src/basic.c" -o "basic.$kind.${level%% *}.elf" -lm
    done
}
# shellcheck disable=SC2086
{
    basic musl "$(lacks musl-gcc musl-tools)" musl-gcc $warnings -static
    basic glibc "$(lacks gcc gcc)" gcc $warnings -static
    basic pie "$(lacks gcc gcc)" gcc $warnings -static-pie
    basic clang "$(lacks clang clang)" clang $warnings -static
}

# ---- linked with the runtime ----
linked() { # linked NAME MISSING COMPILER SOURCE LIBS...
    name=$1 none=$2 compiler=$3 source=$src/$4
    shift 4
    # shellcheck disable=SC2086
    row "$name" "$none" "$compiler" $warnings -O2 -static -I"$top" -I/usr/include/lua5.4 -I/usr/include/libxml2 "$source" \
        -o "$name.elf" "$@"
}
linked lua "$(lacks lua5.4/lua.h liblua5.4-dev)" "$CC" lua.c -llua5.4 -lm
linked sqlite "$(lacks sqlite3.h libsqlite3-dev)" "$CC" sqlite.c -lsqlite3 -lm
linked cpp "$(lacks "$CXX" g++)" "$CXX" cpp.cpp
none=
for p in libxml/parser.h:libxml2-dev png.h:libpng-dev zstd.h:libzstd-dev openssl/evp.h:libssl-dev lzma.h:liblzma-dev \
    unicode/uversion.h:libicu-dev lua5.4/lua.h:liblua5.4-dev sqlite3.h:libsqlite3-dev zlib.h:zlib1g-dev; do
    none="$none$(lacks "${p%%:*}" " ${p#*:}")"
done
linked debian "${none# }" "$CC" debian.c -llua5.4 -lpng16 -lsqlite3 -lzstd -lxml2 -licuuc -licudata -llzma -lcrypto -lz -lstdc++ -lm
rust() { # static and static-PIE, as rustc makes them
    "$CC" -O2 -fPIE -c -I"$top" "$src/glue.c" -o glue.rust.o &&
        rustc --edition 2021 -O -C target-feature=+crt-static -C relocation-model="$1" -C link-arg="$build/glue.rust.o" \
            "$src/rust.rs" -o "$2"
}
row rust "$(lacks rustc rustc)" rust static rust.elf
row rust_pie "$(lacks rustc rustc)" rust pie rust_pie.elf
go_linked() {
    rm -rf go.work && mkdir go.work && cp "$src/go_linked/main.go" "$src/glue.c" go.work && cp "$top/hlsnap.h" go.work &&
        (cd go.work && go mod init guest && CGO_ENABLED=1 CGO_CFLAGS=-O2 \
            go build -ldflags '-linkmode external -extldflags -static' -o "$build/go_linked.elf")
}
row go_linked "$(lacks go golang-go)" go_linked

# ---- programs as they are ----
go_wrapped() {
    rm -rf go.work && mkdir go.work && cp "$src/go_wrapped/main.go" go.work &&
        (cd go.work && go mod init program && CGO_ENABLED=0 go build -o "$build/go.elf")
}
row go "$(lacks go golang-go)" go_wrapped
runtime=$top/examples/guests/linux.c
# shellcheck disable=SC2046
row linux "" "$CC" $(lines_of cc "$runtime" | sed 's/^[^ ]* //;s,-I\. .*,,') -I"$top" "$runtime" -o linux.elf
row cat "" "$CC" -O2 -static "$src/cat.c" -o cat.elf
row cat_dynamic "" "$CC" -O2 "$src/cat.c" -o cat_dynamic.elf
for p in busybox:busybox-static bash-static:bash-static zsh-static:zsh-static mksh-static:mksh sash:sash; do
    name=${p%%:*}
    found=$(command -v "$name" || { [ "$name" != mksh-static ] || { [ -x /bin/mksh-static ] && echo /bin/mksh-static; }; })
    none=$([ -n "$found" ] || echo "${p#*:}")
    [ -n "$none" ] || ! LD_TRACE_LOADED_OBJECTS=1 "$found" true 2>/dev/null </dev/null | grep -q '=>' || none="static ${p#*:}"
    row "${name%-static}" "$none" cp -L "$found" "${name%-static}.elf"
done

made_of="$top/tests/programs.sh $src" # nothing of hlsnap's is in these

# Sources as Debian has them, once; apt checks them against the release's signature.
source_get() ( # source_get PACKAGE...
    command -v apt-get >/dev/null || exit 1
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    mkdir -p sources && cd sources || exit 1
    # shellcheck source=/dev/null
    release=$(. /etc/os-release && echo "$VERSION_CODENAME")
    private_apt_make <<CONF || exit 1
Dir::Etc::sourcelist "$build/apt/sources";
Dir::Etc::sourceparts "-";
Acquire::Languages "none";
CONF
    # shellcheck disable=SC2016
    apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' 'Component: main' | sort -u |
        sed -n "s,^\([^ ]*\) $release\$,deb-src [signed-by=$keyring] \1 $release main,p" >"$build/apt/sources"
    private_apt get update && private_apt get source --download-only "$@" && for t in *.orig.tar.*; do tar -xf "$t" || exit 1; done
)
if [ ! -e sources/done ]; then
    rm -rf sources
    if source_get lua5.4 sqlite3 zlib >sources.log 2>&1; then : >sources/done; fi
fi
[ -e sources/done ] && none= || none="sources of lua5.4, sqlite3, zlib from this machine's mirrors (see sources.log)"
lua_program() ( # lua_program OUTPUT COMPILER
    cd sources/lua-5.4*/src || exit 1
    rm -f luac.c # another program
    "$2" -O2 -static -DLUA_USE_POSIX -o "$build/$1" ./*.c -lm
)
row lua_program "$none" lua_program lua_program.elf gcc
row lua_musl "${none:-$(lacks musl-gcc musl-tools)}" lua_program lua_musl.elf musl-gcc
# The shell's source is put together from others', what its own Tcl script does; the library is the -dev package's.
sqlite_program() (
    cd sources/sqlite3-*/src || exit 1
    awk 'function put(line,   name) {
             if (match(line, /^typedef .*[^A-Za-z0-9_][A-Za-z0-9_]+;/)) {
                 name = line; sub(/;.*/, "", name); sub(/.*[^A-Za-z0-9_]/, "", name)
                 if (seen[name]++) return
             }
             print line
         }
         !/^INCLUDE / { put($0); next }
         { while ((getline line < $2) > 0) if (line !~ /^#include "sqlite|^# *include "test_windirent.h"/) put(line) }
        ' shell.c.in >shell.c &&
        gcc -O2 -static -DSQLITE_THREADSAFE=0 -DSQLITE_OMIT_LOAD_EXTENSION -I. -I../ext/misc shell.c \
            -o "$build/sqlite_program.elf" -lsqlite3 -lm
)
row sqlite_program "${none:-$(lacks sqlite3.h libsqlite3-dev)}" sqlite_program
minigzip() { gcc -O2 -static -I"$1" "$1/test/minigzip.c" -o minigzip.elf -lz; }
row minigzip "${none:-$(lacks zlib.h zlib1g-dev)}" minigzip "$(echo sources/zlib-*)"

# CPython: its library, and as much of the standard library as an archive of a few MB holds.
python=$(find /usr/lib/python3* -maxdepth 2 -name 'libpython3.*.a' ! -name '*-pic.a' 2>/dev/null | sort | tail -n 1)
python_version=$(echo "$python" | sed 's,.*libpython\(3\.[0-9]*\)\.a,\1,')
python_make() {
    gcc -O2 -static -I"/usr/include/python$python_version" "$src/python.c" -o python.elf "$python" -lexpat -lz -lm
}
python_files() (
    to=$build/stdlib/usr/lib/python$python_version
    rm -rf stdlib && mkdir -p "$to" && cd "/usr/lib/python$python_version" || exit 1
    cp ./*.py "$to" && cp -r encodings json re collections importlib "$to" && rm -f "$to/sitecustomize.py" || exit 1
    find "$to" -name __pycache__ -exec rm -rf {} +
    tar --format=ustar --owner=0 --group=0 --sort=name -C "$build/stdlib" -cf "$build/python_files.elf" usr &&
        chmod +x "$build/python_files.elf" # for vm.sh, which takes guests by that name
)
none=$([ -n "$python" ] && [ -e "/usr/include/python$python_version/Python.h" ] || echo libpython3-dev)
row python "${none:-$(lacks expat.h libexpat1-dev)}" python_make
row python_files "$none" python_files
finish
