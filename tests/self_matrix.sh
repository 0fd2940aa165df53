#!/bin/sh
# Builds tests/self_guest.c in every way that changes what a program's image looks like, and runs it as its own guest.
# usage: self_matrix.sh [BUILD_DIR]     honours CC and CXX (then only those; cc and c++ mean all that are found) and CFLAGS; JOBS (2) at a time
# One TAP line each; ends with `N passed, N failed, N skipped`; exit 0, 1, or 77 when all were skipped.
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
build=${1:-$top/build/self_matrix}
CCS=${CC:-cc} CXXS=${CXX:-c++} CFLAGS=${CFLAGS:-}
[ "$CCS" != cc ] || CCS="gcc clang"
[ "$CXXS" != c++ ] || CXXS="g++ clang++"
export top CFLAGS
mkdir -p "$build" && cd "$build" || exit 1
rm -rf ./*.so* ./*.o ./*.exe ./fifo.* ./deep.* ./lines*
# shellcheck source=tests/jobs.sh
. "$top/tests/jobs.sh"

cat >prelude.sh <<'END'
src=$top/tests/self_guest.c
# Says "skip" for what this toolchain cannot do even to an empty program.
unable() {
    first=$1; shift
    lang=c
    for a; do
        shift
        case $a in -x | -shared | -DSELF_SO | -c) ;; c++) lang=c++ ;; *) set -- "$@" "$a" ;; esac
    done
    echo 'int main(void) { return 0; }' >"probe.$$"
    "$first" -x $lang "probe.$$" -x none "$@" -o "probe.$$.exe" >/dev/null 2>&1 && "./probe.$$.exe"
    rc=$?
    rm -f "probe.$$" "probe.$$.exe"
    [ $rc != 0 ] && echo "# not on this system"
}
compile() { # OUT, command
    out=$1; shift
    echo "$* -I.. tests/self_guest.c -o $out" >&2
    "$@" $CFLAGS -I"$top" "$src" -o "$out" && return 0
    unable "$@" && exit 77
    exit 1
}
link() { # OUT, OBJECT, command
    out=$1 object=$2; shift 2
    echo "$* $object -o $out" >&2
    "$@" $CFLAGS "$object" -o "$out" && return 0
    unable "$@" && exit 77
    exit 1
}
run() { "$@"; rc=$?; [ $rc = 127 ] && echo "# not on this system" && exit 77; return $rc; }
so() { out=$1; shift; compile "$out" "$@" -shared -fPIC -DSELF_SO; }
want() { # expected, actual
    [ "$1" = "$2" ] && return 0
    case $2 in "#"*) echo "$2"; exit 77 ;; esac
    echo "expected $1, got $2"
    return 1
}
# Starts the program in mode `wait`, changes the files while it waits, lets it go on; prints what it says last.
meanwhile() { # CHANGE, command
    change=$1; shift
    fifo=fifo.$$
    rm -f $fifo && mkfifo $fifo && : >$fifo.out || return 1
    "$@" wait <$fifo >$fifo.out &
    exec 3>$fifo
    i=0
    until [ -s $fifo.out ] || [ $i -ge 200 ]; do sleep 0.02; i=$((i + 1)); done
    eval "$change"
    echo go >&3
    exec 3>&-
    wait $!
    tail -n 1 $fifo.out
    rm -f $fifo $fifo.out
}
# Says a program's message, which must hold the words.
says() { # WORDS, command
    words=$1; shift
    line=$("$@" 2>&1 | tail -n 1)
    case $line in *"$words"*) return 0 ;; "#"*) echo "$line"; exit 77 ;; esac
    echo "expected '$words' in '$line'"
    return 1
}
END

have() { command -v "$1" >/dev/null 2>&1; }

# musl has no kernel headers of its own.
mkdir -p kernel
for d in linux asm asm-generic; do
    for from in /usr/include "/usr/include/$(uname -m)-linux-gnu"; do
        [ -d "$from/$d" ] && ln -sfn "$from/$d" "kernel/$d"
    done
done

# Objects that several links share, and the program that loads shared objects.
first=
for cc in $CCS; do
    have "$cc" || continue
    first=${first:-$cc}
    b=$(basename "$cc")
    for o in -O0 -O1 -O2 -O3 -Os; do
        for pic in -fPIE -fno-pie; do job "" "compile $b$o$pic.o $cc $o $pic -c"; done
    done
    job "" "so $b.so $cc -O0; so $b-O2.so $cc -O2"
done
[ -n "$first" ] || { echo "1..0 # SKIP no compiler of: $CCS"; exit 77; }
job "" "$first -I$top $top/tests/self_host.c -o host.exe -ldl"
job "" "compile waiting.exe $first -O0"
for id in -Wl,--build-id -Wl,--build-id=none; do
    job "" "so old$id.so $first -O0 $id; so new$id.so $first -O1 $id"
    job "" "compile pie$id.exe $first -O1 $id; compile static-pie$id.exe $first -O1 -fPIE -static-pie $id
        compile static$id.exe $first -O1 -fno-pie -static $id"
done
jobs_run

for cc in $CCS; do
    have "$cc" || continue
    b=$(basename "$cc")
    n=0
    # compiler, optimization, kind of executable
    for o in -O0 -O1 -O2 -O3 -Os; do
        for kind in "-fPIE -pie" "-fPIE -static-pie" "-fno-pie -no-pie" "-fno-pie -static"; do
            n=$((n + 1))
            job "$cc $o $kind" "link $b$n.exe $b$o${kind% *}.o $cc $o ${kind#* }; run ./$b$n.exe"
        done
    done
    # what only the link changes
    while read -r pic flags; do
        n=$((n + 1))
        job "$cc -O1 $pic $flags" "link $b$n.exe $b-O1$pic.o $cc $flags; run ./$b$n.exe"
    done <<'END'
-fPIE -pie -s
-fno-pie -static -s
-fPIE -pie -Wl,-z,now
-fPIE -pie -Wl,-z,lazy -Wl,-z,relro
-fPIE -pie -Wl,-z,norelro
-fno-pie -static -Wl,-z,norelro
-fPIE -pie -Wl,-z,noseparate-code
-fPIE -pie -Wl,-z,max-page-size=0x200000
-fPIE -pie -Wl,-z,pack-relative-relocs
-fPIE -static-pie -Wl,-z,pack-relative-relocs
-fPIE -pie -Wl,--build-id=none
-fno-pie -static -Wl,--build-id=none -s
-fPIE -pie -Wl,--build-id=0x0123
-fPIE -pie -fuse-ld=lld
-fno-pie -no-pie -fuse-ld=lld
-fno-pie -static -fuse-ld=lld
-fPIE -static-pie -fuse-ld=lld
-fPIE -pie -fuse-ld=lld -Wl,--pack-dyn-relocs=relr
-fPIE -static-pie -fuse-ld=lld -Wl,--pack-dyn-relocs=relr
-fPIE -pie -fuse-ld=gold
END
    # what the compiler does otherwise
    while read -r flags; do
        n=$((n + 1))
        job "$cc $flags" "compile $b$n.exe $cc $flags; run ./$b$n.exe"
    done <<'END'
-O3 -march=native
-O1 -march=native -static
-O1 -ffunction-sections -fdata-sections -Wl,--gc-sections -s
-O1 -fcf-protection=full
-O1 -fcf-protection=none -fno-plt
-O0 -fstack-protector-all
-O1 -fstack-protector-all -static
-O2 -fstack-protector-strong -D_FORTIFY_SOURCE=2
-O1 -fstack-protector-strong -D_FORTIFY_SOURCE=3
-O1 -D_FORTIFY_SOURCE=2 -static
-O0 --coverage
-O1 -fsanitize=undefined -fno-sanitize=null
-O0 -g -std=c99
END
    # sanitizers that need shadow memory or a library are refused in words
    for s in address thread memory; do
        case $cc-$s in *clang*) ;; *-memory) continue ;; esac
        job "$cc -O1 -fsanitize=$s" "compile $b$s.exe $cc -O1 -fsanitize=$s; want HLSNAP_ERR_SELF \"\$(./$b$s.exe code)\""
    done
    case $cc in *clang*) lto="-O1 -flto -fuse-ld=lld" ;; *) lto="-O1 -flto" ;; esac
    job "$cc $lto" "compile ${b}lto.exe $cc $lto; run ./${b}lto.exe"
    job "$cc -shared" "run ./host.exe ./$b.so"
    job "$cc -shared -O2" "run ./host.exe ./$b-O2.so"
done
for cxx in $CXXS; do
    have "$cxx" || continue
    b=$(basename "$cxx")
    job "$cxx -std=c++11 -O0" "compile $b.exe $cxx -x c++ -std=c++11 -O0; run ./$b.exe"
    job "$cxx -std=c++20 -O2 -static" "compile ${b}2.exe $cxx -x c++ -std=c++20 -O2 -static; run ./${b}2.exe"
    job "$cxx -shared -O1" "so $b.so $cxx -x c++ -O1; run ./host.exe ./$b.so"
done
if have musl-gcc; then
    job "musl-gcc -O1" "compile musl.exe musl-gcc -idirafter kernel -O1; run ./musl.exe"
    job "musl-gcc -O1 -static" "compile musl2.exe musl-gcc -idirafter kernel -O1 -static; run ./musl2.exe"
fi
job "$first -shared with lld, stripped" "so lld.so $first -O0 -fuse-ld=lld -s; run ./host.exe ./lld.so"

# Which image is meant, and whether its file is still the one in memory.
so=./$(basename "$first").so
job "module of the program, implementation in a shared object" "want HLSNAP_ERR_SELF \"\$(./host.exe $so other)\""
job "module on the stack" "want HLSNAP_ERR_SELF \"\$(./host.exe $so stack)\""
job "module at address 16" "want HLSNAP_ERR_SELF \"\$(./host.exe $so null)\""
job "program deleted while it runs" "cp waiting.exe gone.exe; want HLSNAP_OK \"\$(meanwhile 'rm gone.exe' ./gone.exe)\""
job "program replaced while it runs: its own file still counts" \
    "cp waiting.exe moved.exe; cp /bin/sh sh.exe; want HLSNAP_OK \"\$(meanwhile 'mv sh.exe moved.exe' ./moved.exe)\""
job "shared object renamed" "cp $so a1.so; want HLSNAP_OK \"\$(meanwhile 'mv a1.so b1.so' ./host.exe ./a1.so)\""
job "shared object deleted" "cp $so a2.so; want HLSNAP_ERR_SELF \"\$(meanwhile 'rm a2.so' ./host.exe ./a2.so)\""
for id in -Wl,--build-id -Wl,--build-id=none; do
    t=a${#id}
    job "shared object replaced ($id)" "cp old$id.so ${t}r.so; cp new$id.so ${t}n.so
        want HLSNAP_ERR_SELF \"\$(meanwhile 'mv ${t}n.so ${t}r.so' ./host.exe ./${t}r.so)\""
    job "another file under the name that the kernel shows ($id)" "cp old$id.so $t.so; cp new$id.so '$t.so (deleted)'
        want HLSNAP_ERR_SELF \"\$(meanwhile 'rm $t.so' ./host.exe ./$t.so)\""
    job "a cut file under that name ($id)" "cp old$id.so ${t}c.so; head -c 20000 old$id.so >'${t}c.so (deleted)'
        want HLSNAP_ERR_ELF \"\$(meanwhile 'rm ${t}c.so' ./host.exe ./${t}c.so)\""
done
# The image's file mapped once more, also in part, below the image or where there was room; what is known of it is who holds the address.
for id in -Wl,--build-id -Wl,--build-id=none; do
    for how in map page shared none middle text; do
        job "file of the shared object mapped once more: $how ($id)" "run ./host.exe ./old$id.so $how"
        for kind in pie static-pie static; do
            job "file of the $kind program mapped once more: $how ($id)" "run ./$kind$id.exe $how"
        done
    done
    job "file of the shared object mapped before it is loaded ($id)" "run ./host.exe ./old$id.so before"
done

# Why a file cannot be had, in words; and paths that are only unusual.
new_line=$(printf 'lines\n2')
mkdir -p "$new_line" 'lines\0122'
job "newline in a program's path" "cp waiting.exe '$new_line/prog'; says 'HLSNAP_OK ' '$new_line/prog' message"
job "newline in a shared object's path" "cp $so '$new_line/plug.so'; says 'HLSNAP_OK ' ./host.exe '$new_line/plug.so' message"
job "what the kernel makes of a newline as a path" "cp $so 'lines\0122/plain.so'; says 'HLSNAP_OK ' ./host.exe 'lines\0122/plain.so' message"
job "both of these paths" "cp old-Wl,--build-id.so '$new_line/both.so'; cp new-Wl,--build-id.so 'lines\0122/both.so'
    says 'HLSNAP_OK ' ./host.exe '$new_line/both.so' message && says 'HLSNAP_OK ' ./host.exe 'lines\0122/both.so' message"
job "program with a path of over 4,095 bytes" "says 'HLSNAP_OK ' ./host.exe exec waiting.exe message"
job "shared object with a path of over 4,095 bytes" "says 'HLSNAP_ERR_SELF guest.self: the path of its file has 4' ./host.exe $so long"
job "shared object loaded from memory" "says 'HLSNAP_ERR_SELF guest.self was loaded from memory (/memfd:plug (deleted)): there is no file' ./host.exe $so memfd"
job "packed program: memory without a file" "says 'packed' ./waiting.exe packed && says 'is in memory that no file is mapped to' ./waiting.exe packed"
job "packed program: HLSNAP_ERR_SELF" "says 'HLSNAP_ERR_SELF guest.self = 0x' ./waiting.exe packed"
job "address that nothing is mapped at" "says 'HLSNAP_ERR_SELF' ./host.exe $so null"
job "deleted shared object is named as such" "cp $so a3.so; says 'deleted' ./host.exe ./a3.so removed"
# Mode 0111, run by somebody else where this is root.
job "program that may be run but not read" "d=\$(mktemp -d); chmod 755 \$d; cp waiting.exe \$d/prog; chmod 111 \$d/prog
    if [ \$(id -u) = 0 ]; then as='setpriv --reuid=65534 --clear-groups'; else as=; fi
    says 'permission denied (errno 13)' \$as \$d/prog message; rc=\$?; rm -rf \$d; exit \$rc"
jobs_run
jobs_report
