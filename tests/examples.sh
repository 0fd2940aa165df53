#!/bin/sh
# examples.sh DIR - compiles each example by its own cc: lines, runs its run: lines, compares with its prints: lines, puts 04_oci
# through what it promises, and times examples/run in a clean clone. TAP; works in DIR on copies. An example that lacks its packages
# is skipped.
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1" && build=$(cd "$1" && pwd) || exit 1
# shellcheck source=tests/need.sh
. "$top/tests/need.sh"
# shellcheck source=tests/tap.sh
. "$top/tests/tap.sh"

rm -rf "$build/work" && mkdir -p "$build/work"
cp "$top"/*.h "$build/work/" && cp -R "$top/examples" "$build/work/" && cd "$build/work/examples" || exit 1

compiles() { # every cc: line, without a word from the compiler
    lines_of cc "$1" >lines
    [ -s lines ] || { echo "no cc: line"; return 1; }
    while read -r line; do
        out=$($line 2>&1) || { echo "$line: $out"; return 1; }
        [ -z "$out" ] || { echo "$line says: $out"; return 1; }
    done <lines
}
runs() { # the last run: line's output is what prints: says, where it says something
    lines_of run "$1" >lines
    while read -r line; do
        $line >output 2>errors || { cat errors; echo "$line: exit $?"; return 1; }
    done <lines
    lines_of prints "$1" >expected
    [ ! -s expected ] || diff expected output
}
for f in [0-9]*.c [0-9]*.cpp [0-9]*.sh; do
    problem=$(example_problem "$f")
    if [ -n "$problem" ]; then skip "$f" "$problem"; continue; fi
    check "$f compiles by its own line" compiles "$f"
    if [ -n "$(kvm_problem)" ]; then skip "$f runs" "$(kvm_problem)"; else check "$f prints what it says" runs "$f"; fi
done
readme() { # the program and the commands of the README, as they stand there, say what stands there
    rm -rf "$build/readme" && mkdir "$build/readme" && cp "$top"/*.h "$build/readme/" && cp -R "$top/examples" "$build/readme/" ||
        return 1
    sed -n '/^```c$/,/^```$/p' "$top/README.md" | grep -v '^```' >"$build/readme/twice.c"
    sed -n '/^```sh$/,/^```$/p' "$top/README.md" | sed -n 's/^\$ //p' >"$build/readme/commands"
    sed -n '/^```sh$/,/^```$/p' "$top/README.md" | awk '/^```/ { shell = 0 } /^\$ / { shell = 1; next } shell' | digests >expected
    (cd "$build/readme" && sh -e ./commands) >output 2>&1 || { cat output; return 1; }
    [ "$(wc -l <"$build/readme/commands")" -ge 8 ] && digests <output | diff expected -
}
digests() { sed 's/sha256:[0-9a-f]*/sha256:/'; }
lacks=$(missing= && for f in 06_lua.c 09_program.sh; do need_example "$f"; done && echo "$missing")
if [ -n "$lacks" ]; then skip "README's commands print what they say" "needs$lacks"
elif [ -n "$(kvm_problem)" ]; then skip "README's commands print what they say" "$(kvm_problem)"
else check "README's commands print what they say" readme; fi
[ -z "$(kvm_problem)" ] || finish

# ---- 04_oci on this repository's own text ----
rm -rf layout text && mkdir text
cp "$top"/*.h "$top"/*.md "$top"/docs/*.md "$top"/examples/*.c "$top"/examples/guests/*.c "$top"/tests/*.c text/ 2>/dev/null
compiles 04_oci.c && digest=$(./04_oci save layout v1 text/*) || { check "04_oci saves" false; finish; }
words="hlsnap_sandbox static x the HLSNAP_API Hlsnap_sandbox 4096 nosuchword_"
for w in $words; do # what grep counts, in all and per file, before the text goes
    echo "$w $(cat text/* | LC_ALL=C grep -ow "$w" | wc -l)"
    for f in text/*; do
        c=$(LC_ALL=C grep -ow "$w" "$f" | wc -l)
        [ "$c" = 0 ] || echo "  $f $c"
    done
done >want
rm -rf text index.elf
answers() { ./04_oci run "$1" "$2" $words >got && diff want got; }
opens_only_the_layout() { # but libraries, the kernel's own files and the devices it lives on
    strace -f -e trace=open,openat,openat2,execve -o trace ./04_oci run layout v1 static >/dev/null || return 1
    grep -E 'open' trace | grep -v ENOENT | grep -oE '"[^"]*"' | tr -d '"' | sort -u |
        grep -vE '^(\.$|/etc/ld\.so\.|/lib|/usr/lib|/dev/kvm$|/proc/self/|layout$|oci-layout$|index\.json$|blobs|\.hlsnap\.lock$|[0-9a-f]{64}$|sha256)' >other
    if [ -s other ]; then cat other; return 1; fi
    grep -q 'layout' trace
}
blobs_are_named_right() { (cd "$1/blobs/sha256" && for b in *; do [ "$(sha256sum <"$b" | cut -d' ' -f1)" = "$b" ] || exit 1; done); }
copied() {
    rm -rf copy && skopeo copy -q oci:layout:v1 oci:copy:v1 && grep -q "${digest#sha256:}" copy/index.json &&
        cmp "layout/blobs/sha256/${digest#sha256:}" "copy/blobs/sha256/${digest#sha256:}" && answers copy v1
}
check "04_oci answers as grep counts" answers layout v1
check "04_oci answers by digest" answers layout "$digest"
check "04_oci run opens nothing but the layout" opens_only_the_layout
check "every blob is named by its sha256" blobs_are_named_right layout
check "an unknown tag is an error" sh -c '! ./04_oci run layout v2 x'
if command -v skopeo >/dev/null; then check "a copy by skopeo keeps the digest and runs" copied; else skip "skopeo" "no skopeo"; fi
no_permission() { # somebody who may not open /dev/kvm is told what to do, and the exit code says "skipped"
    cp 01_hello /tmp/hlsnap_hello.$$ && chmod 755 /tmp/hlsnap_hello.$$
    setpriv --reuid 65534 --regid 65534 --clear-groups /tmp/hlsnap_hello.$$ >output 2>&1
    code=$?
    rm -f /tmp/hlsnap_hello.$$
    cat output
    case $(stat -c '%a %g' /dev/kvm) in # a group helps where one of its own may use the device, and never root's
    *[67]?\ 0 | *[67]?\ 65534 | ?[0-5]?\ *) [ $code = 77 ] && grep -q "setfacl" output && ! grep -q usermod output ;;
    *) [ $code = 77 ] && grep -q "usermod -aG" output ;;
    esac
}
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null && [ "$(stat -c %a /dev/kvm)" != 666 ]; then
    check "without permission for /dev/kvm: exit 77 and what to do" no_permission
fi

# ---- the newcomer's path: a clone as this tree is, and what README has one do there ----
clone() {
    rm -rf "$build/clone"
    git clone -q "$top" "$build/clone" && cd "$top" && # what is not committed, too; a file that is gone is not missed
        { git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$build/clone" 2>/dev/null || :; }
}
newcomer() { # works, however long it takes
    "$build/clone/examples/run" --install >output 2>errors || { cat output errors; return 1; }
    for f in 06_lua.c 08_wasm.c 09_program.sh; do
        problem=$(example_problem "$f")
        if [ -n "$problem" ]; then grep -qF "$f is left out: $problem" output || { echo "$f: nothing of '$problem'"; return 1; }
        elif lines_of prints "$f" | grep -vxFf output; then echo "$f does not print that"; return 1; fi
    done
}
lacks=$(INSTALL=1 missing= && for f in 0[6-9]_*; do need_example "$f"; done && echo "$missing")
if [ -n "$lacks" ]; then skip "examples/run --install in a clean clone" "it would install$lacks"
elif ! git -C "$top" rev-parse >/dev/null 2>&1; then skip "examples/run --install in a clean clone" "this is no clone"
elif ! (clone) >"$build/check.log" 2>&1; then fail "a clean clone" && cat "$build/check.log"
else
    started=$(date +%s)
    check "examples/run --install in a clean clone" newcomer
    echo "# from a clean clone, examples/run --install, 06_lua and all, takes $(($(date +%s) - started)) s"
fi
finish
