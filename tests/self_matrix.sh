#!/bin/sh
# Builds tests/self_guest.c in every way that changes what a program's image looks like, and runs it as its own guest.
# usage: self_matrix.sh [BUILD_DIR]     honours CC and CXX (then only those), CFLAGS; JOBS (2) at a time
# One TAP line each; ends with `N passed, N failed, N skipped`; exit 0, 1, or 77 when all were skipped.
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
build=${1:-$top/build/self_matrix}
CCS=${CC:-gcc clang} CXXS=${CXX:-g++ clang++} CFLAGS=${CFLAGS:-} JOBS=${JOBS:-2}
mkdir -p "$build" && cd "$build" || exit 1
rm -rf ./*.d
src=$top/tests/self_guest.c
number=0
lane=0

# Work goes to files job.N.d/cmd, and is run below, JOBS at a time: N is its TAP number.
job() { # name, shell text; the text ends with 0 = ok, 77 = skip, else = not ok
    number=$((number + 1))
    mkdir -p "job.$number.d"
    printf '%s\n' "$1" >"job.$number.d/name"
    printf '%s\n' "$2" >"job.$number.d/cmd"
}

# A failure to build counts as a skip when the flags do not even build an empty program here.
cat >lib.sh <<'END'
compile() { # out, command...: prints it; 77 = this toolchain cannot do that at all
    out=$1; shift
    echo "$* -I.. tests/self_guest.c -o $out"
    "$@" $CFLAGS -I"$top" "$src" -o "$out" && return 0
    first=$1; shift
    case " $* " in *" c++ "*) lang=c++ ;; *) lang=c ;; esac
    echo 'int main(void) { return 0; }' >"$out.probe"
    "$first" -x $lang "$out.probe" -o "$out.exe" $(drop_x "$@") >/dev/null 2>&1 || return 77
    return 1
}
drop_x() {
    for a; do
        shift
        case $a in -x | c++) ;; -shared | -DSELF_SO) ;; *) echo "$a" ;; esac
    done
}
link_run() { # out, object, command...
    out=$1 object=$2; shift 2
    echo "$* $(basename "$object") -o $out"
    "$@" $CFLAGS "$object" -o "$out" || return 1
    "$out"
}
END
export top src CFLAGS

# Every compiler, optimization and kind of executable; one object serves two kinds of link.
for cc in $CCS; do
    command -v "$cc" >/dev/null 2>&1 || continue
    for o in -O0 -O1 -O2 -O3 -Os; do
        for pic in "-fPIE" "-fno-pie"; do
            tag=$(basename "$cc")$o$pic
            kinds="-pie|-static-pie"
            [ "$pic" = -fno-pie ] && kinds="-no-pie|-static"
            # shellcheck disable=SC2016
            job "$cc $o ${kinds%|*}" 'compile ./'"$tag.o $cc $o $pic -c"' || exit
                link_run ./'"$tag.exe1 ./$tag.o $cc $o ${kinds%|*}"
            job "$cc $o ${kinds#*|}" '@object
                link_run ./'"$tag.exe2 ./$tag.o $cc $o ${kinds#*|}"
        done
    done
done

# What else a build may ask for.
variant() { # compiler, flags
    number_text=$((number + 1))
    job "$1 $2" "compile ./v$number_text $1 $2 || exit; ./v$number_text"
}
for cc in $CCS; do
    command -v "$cc" >/dev/null 2>&1 || continue
    while read -r flags; do
        [ -n "$flags" ] && variant "$cc" "$flags"
    done <<'END'
-O2 -s
-O1 -g
-O2 -march=native
-O3 -march=native -static
-O2 -ffunction-sections -fdata-sections -Wl,--gc-sections -s
-O1 -Wl,-z,now
-O1 -Wl,-z,relro -Wl,-z,lazy
-O1 -Wl,-z,norelro
-O1 -Wl,-z,norelro -static
-O1 -Wl,-z,noseparate-code
-O1 -Wl,-z,max-page-size=0x200000
-O1 -Wl,-z,pack-relative-relocs
-O1 -Wl,-z,pack-relative-relocs -static-pie -fPIE
-O1 -fcf-protection=full
-O1 -fcf-protection=none -fno-plt
-O0 -fstack-protector-all
-O2 -fstack-protector-all
-O2 -fstack-protector-strong -D_FORTIFY_SOURCE=2
-O2 -fstack-protector-strong -D_FORTIFY_SOURCE=3
-O2 -D_FORTIFY_SOURCE=2 -static
-O1 -fstack-protector-all -static
-O0 --coverage
-O1 -Wl,--build-id=none
-O1 -Wl,--build-id=none -static -s
-O1 -Wl,--build-id=0x0123
-O1 -fuse-ld=lld
-O1 -fuse-ld=lld -no-pie -fno-pie
-O1 -fuse-ld=lld -static
-O1 -fuse-ld=lld -Wl,--pack-dyn-relocs=relr
-O1 -fuse-ld=gold
-O2 -flto -fuse-ld=lld
-O1 -fomit-frame-pointer -fno-asynchronous-unwind-tables
-O2 -fvisibility=hidden -fno-semantic-interposition
-O1 -ftrapv -fwrapv
-O1 -mcmodel=large
-std=c99 -D_GNU_SOURCE
-std=c11
END
done
for cc in $CCS; do
    case $cc in *gcc*) variant "$cc" "-O2 -flto"; variant "$cc" "-O2 -flto -static"; variant "$cc" "-O1 -mno-red-zone -mavx" ;; esac
done
for cxx in $CXXS; do
    command -v "$cxx" >/dev/null 2>&1 || continue
    for flags in "-O0 -std=c++11" "-O2 -std=c++17" "-O2 -std=c++20 -static" "-O1 -fno-exceptions -fno-rtti -no-pie -fno-pie"; do
        variant "$cxx -x c++" "$flags"
    done
done
if command -v musl-gcc >/dev/null 2>&1; then
    for flags in "-O1 -static" "-O2 -static-pie -fPIE" "-O1"; do variant musl-gcc "-idirafter kernel-headers $flags"; done
fi

# Shared objects, and files that change under a running program. `ask` gives the program its line after the file was changed.
cc=${CCS%% *}
cxx=${CXXS%% *}
# shellcheck disable=SC2016
cat >so.sh <<'END'
host() { [ -x ./host ] || { "$cc" -I"$top" "$top/tests/self_host.c" -o "./host.$$" -ldl && mv "./host.$$" ./host; }; }
so() { out=$1; shift; compile "$out" "$@" -shared -fPIC -DSELF_SO; }
want() { # expected, actual
    [ "$1" = "$2" ] && return 0
    echo "expected $1, got $2"
    return 1
}
# Starts "$@ wait", runs $change while it waits, then lets it go on; prints what it says last.
while_waiting() {
    change=$1; shift
    fifo=./fifo.$$
    rm -f "$fifo" && mkfifo "$fifo" || return 1
    "$@" wait <"$fifo" >"$fifo.out" &
    exec 3>"$fifo"
    i=0
    while [ "$(head -n 1 "$fifo.out")" = "" ] && [ $i -lt 200 ]; do sleep 0.02; i=$((i + 1)); done
    eval "$change"
    echo go >&3
    exec 3>&-
    wait $!
    case $(head -n 1 "$fifo.out") in "#"*) rm -f "$fifo"; exit 77 ;; esac
    tail -n 1 "$fifo.out"
    rm -f "$fifo"
}
END
for cc_ in $CCS; do
    command -v "$cc_" >/dev/null 2>&1 || continue
    for o in -O0 -O2; do
        b=$(basename "$cc_")$o
        job "$cc_ $o shared object" "host; so ./$b.so $cc_ $o || exit; ./host ./$b.so"
    done
done
command -v "$cxx" >/dev/null 2>&1 &&
    job "$cxx shared object" "host; so ./cxx.so $cxx -x c++ -O1 || exit; ./host ./cxx.so"
job "shared object with lld, stripped" "host; so ./lld.so $cc -O1 -fuse-ld=lld -s || exit; ./host ./lld.so"
job "shared object, module of the program: HLSNAP_ERR_SELF" \
    "host; so ./other.so $cc -O0 || exit; want HLSNAP_ERR_SELF \"\$(./host ./other.so other)\""
job "shared object, module on the stack, at address 16: HLSNAP_ERR_SELF" \
    "host; so ./other2.so $cc -O0 || exit; want HLSNAP_ERR_SELF \"\$(./host ./other2.so stack)\" &&
     want HLSNAP_ERR_SELF \"\$(./host ./other2.so null)\""
job "program deleted while it runs" \
    "compile ./gone $cc -O0 || exit; want HLSNAP_OK \"\$(while_waiting 'rm ./gone' ./gone)\""
job "program replaced while it runs: its own file still counts" \
    "compile ./moved $cc -O0 || exit; want HLSNAP_OK \"\$(while_waiting 'cp /bin/sh ./new.moved; mv ./new.moved ./moved' ./moved)\""
job "shared object renamed while it is loaded" \
    "host; so ./named.so $cc -O0 || exit; want HLSNAP_OK \"\$(while_waiting 'mv ./named.so ./renamed.so' ./host ./named.so)\""
job "shared object deleted: HLSNAP_ERR_SELF" \
    "host; so ./lost.so $cc -O0 || exit; want HLSNAP_ERR_SELF \"\$(while_waiting 'rm ./lost.so' ./host ./lost.so)\""
job "shared object replaced: HLSNAP_ERR_SELF" \
    "host; so ./old.so $cc -O0 || exit; so ./new.so $cc -O1 || exit
     want HLSNAP_ERR_SELF \"\$(while_waiting 'mv ./new.so ./old.so' ./host ./old.so)\""
for id in "" -Wl,--build-id=none; do
    t=hostile${id:+2}
    job "another file under the name that the kernel shows: HLSNAP_ERR_SELF ${id:+(no build id)}" \
        "host; so ./$t.so $cc -O0 $id || exit; so './$t.so (deleted)' $cc -O1 $id || exit
         want HLSNAP_ERR_SELF \"\$(while_waiting 'rm ./$t.so' ./host ./$t.so)\""
    job "a cut file under that name: HLSNAP_ERR_SELF or _ELF ${id:+(no build id)}" \
        "host; so ./cut$t.so $cc -O0 $id || exit; head -c 20000 ./cut$t.so >'./cut$t.so (deleted)'
         case \$(while_waiting 'rm ./cut$t.so' ./host ./cut$t.so) in HLSNAP_ERR_SELF|HLSNAP_ERR_ELF) ;; *) exit 1 ;; esac"
done

# musl has no kernel headers of its own.
mkdir -p kernel-headers
for d in linux asm asm-generic; do
    for from in /usr/include "/usr/include/$(uname -m)-linux-gnu"; do
        [ -d "$from/$d" ] && ln -sfn "$from/$d" "kernel-headers/$d"
    done
done

one() {
    dir=job.$1.d
    {
        echo "cc=$cc"
        echo ". ./lib.sh; . ./so.sh"
        cat "$dir/cmd"
    } >"$dir/run"
    sh "$dir/run" >"$dir/log" 2>&1
    echo $? >"$dir/rc"
}
# A lane takes every JOBS-th pair of jobs, so that a job marked @object runs after the one that makes its object.
work() {
    n=$1
    while [ "$n" -le "$number" ]; do
        sed '1s/^@object/:/' "job.$n.d/cmd" >"job.$n.d/cmd2" && mv "job.$n.d/cmd2" "job.$n.d/cmd"
        one "$n"
        next=$((n + 1))
        if [ -f "job.$next.d/cmd" ] && grep -q '^@object' "job.$next.d/cmd"; then
            sed '1s/^@object/:/' "job.$next.d/cmd" >"job.$next.d/cmd2" && mv "job.$next.d/cmd2" "job.$next.d/cmd"
            one "$next"
        fi
        n=$(claim "$n") || return
    done
}
claim() { # the next job that nobody has and that needs no other; mkdir is atomic
    c=$1
    while c=$((c + 1)) && [ "$c" -le "$number" ]; do
        grep -q '^@object' "job.$c.d/cmd" 2>/dev/null && continue
        [ -f "job.$c.d/rc" ] && continue
        mkdir "job.$c.d/claim" 2>/dev/null && echo "$c" && return
    done
    echo $((number + 1))
}
while [ "$lane" -lt "$JOBS" ]; do
    lane=$((lane + 1))
    work "$(claim 0)" &
done
wait

passed=0 failed=0 skipped=0 n=0
while [ $n -lt $number ]; do
    n=$((n + 1))
    name=$(cat "job.$n.d/name")
    rc=$(cat "job.$n.d/rc" 2>/dev/null || echo 99)
    case $rc in
    0) passed=$((passed + 1)); echo "ok $n - $name" ;;
    77) skipped=$((skipped + 1)); echo "ok $n - $name # SKIP $(grep '^#' "job.$n.d/log" | head -n 1 | cut -c3-100 || :)" ;;
    *) failed=$((failed + 1)); sed 's/^/# /' "job.$n.d/log" | head -n 12; echo "not ok $n - $name" ;;
    esac
done
echo "1..$number"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] || exit 1
[ "$passed" -gt 0 ] || exit 77
