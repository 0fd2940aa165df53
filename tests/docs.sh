#!/bin/sh
# docs.sh DIR - what the documents name is there: the tests that prove a promise, files, functions, options. TAP.
# shellcheck disable=SC2317 # called by check
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1" && build=$(cd "$1" && pwd) || exit 1
# shellcheck source=tests/tap.sh
. "$top/tests/tap.sh"
cd "$top" || exit 1
documents="README.md docs/*.md"

# `test_x`: one, two; `test_y`: three -> test_x one, test_x two, test_y three
proofs() { grep -oE '`test_[a-z]+`: [a-z_0-9, ]+' "$1" | sed 's/ *$//' | awk -F'`: ' '{
    test = substr($1, 2); n = split($2, names, ", "); for (i = 1; i <= n; i++) print test, names[i] }' | sort -u; }
tests_exist() {
    proofs docs/security.md >"$build/proofs"
    [ "$(wc -l <"$build/proofs")" -ge 45 ] || { echo "only $(wc -l <"$build/proofs") tests are named"; return 1; }
    bad=0
    while read -r test name; do # defined, and in a list of tests
        [ "$(cat "tests/$test.c" "tests/$test"_*.h 2>/dev/null | grep -cE "static void $name\(void\)|(TEST|X)\($name\)")" -ge 2 ] ||
            { echo "docs/security.md: $test has no test $name"; bad=1; }
    done <"$build/proofs"
    return $bad
}
every_promise_has_a_proof() { # the last column of each row names a test or a suite
    awk -F'|' '/^\|/ && NF == 5 && $2 !~ /^ (promise|---)/ && $2 !~ /^-/ && $4 !~ /`test/ { print "no test: " $2; bad = 1 } END { exit bad }' docs/security.md
}
files_exist() {
    bad=0
    # shellcheck disable=SC2086
    for f in $(grep -ohE '[a-z/]*(tests|docs|examples|bench)/[A-Za-z0-9_./-]*[A-Za-z0-9_]' $documents | sed 's|^/||' | grep -v '^build/' | sort -u); do
        [ -e "$f" ] || { echo "there is no $f"; bad=1; }
    done
    for f in $(grep -oE '`[0-9a-z_]+\.(c|cpp)`' README.md | tr -d '`'); do
        [ -e "examples/$f" ] || [ "$f" = twice.c ] || { echo "there is no examples/$f"; bad=1; }
    done
    return $bad
}
functions_exist() {
    bad=0
    # shellcheck disable=SC2086
    for f in $(grep -ohE '\bhlsnap_[a-z]+_[a-z_0-9]+\(' $documents | tr -d '(' | sort -u); do
        grep -q "^HLSNAP_API.*\b$f(" hlsnap.h hlsnap_kvm.h hlsnap_oci.h || { echo "there is no $f()"; bad=1; }
    done
    return $bad
}
results_exist() {
    bad=0
    # shellcheck disable=SC2086
    for e in $(grep -ohE '\bHLSNAP_ERR_[A-Z_]+' $documents | sort -u); do
        grep -q "X(${e#HLSNAP_}," hlsnap.h || { echo "there is no $e"; bad=1; }
    done
    return $bad
}
suites_exist() { # ./tests/run NAME, as the documents have it
    bad=0
    # shellcheck disable=SC2086
    for s in $(grep -ohE 'tests/run( --[a-z]+)* [a-z][a-z_0-9]*' $documents | sed 's/.* //' | sort -u); do
        grep -qE "(c_test|suite|vm|piece) $s\b" tests/run || { echo "tests/run has no suite $s"; bad=1; }
    done
    return $bad
}
lines_fit() { # code and prose read in a window of 132 columns; tables may be wider
    awk 'length($0) > 132 && !/^\|/ { print FILENAME ":" FNR ": " length($0) " columns"; bad = 1 } END { exit bad }' \
        hlsnap.h hlsnap_kvm.h hlsnap_oci.h README.md docs/*.md examples/*.c examples/*.cpp
}
documented() { # every public function stands under a block that begins with its name or that of one beside it
    awk '/>>implementation/ { nextfile } /^\/\* hlsnap_/ { block = 1 } /^$/ { block = 0 }
        /^HLSNAP_API/ && !block { print FILENAME ": " $0; bad = 1 } END { exit bad }' hlsnap.h hlsnap_kvm.h hlsnap_oci.h
}
# What a guest may call is listed in full: README.md and docs/abi.md have what hlsnap.h defines, by name, and no more.
runtime_listed() {
    rows=$(sed -n '/^#define HLSNAP__RT_LIBC/,/^$/s/^ *X([A-Z]*, [^,]*, \([a-z_]*\), \([a-z_]*\),.*/\1\2/p' hlsnap.h)
    elf=$(echo "$rows" | grep -v '^_' | sort | xargs)
    [ "$(echo "$elf" | wc -w)" -ge 28 ] || { echo "only '$elf' found in hlsnap.h"; return 1; }
    [ "$(sed -n '/^    memcpy /,/^$/p' README.md | xargs -n 1 | sort | xargs)" = "$elf" ] || { echo "README.md: not $elf"; return 1; }
    bound=$(echo "$rows"; sed -n '/hlsnap__rt_bindings\[\] = {/,/};/p' hlsnap.h | grep -oE '\{"[a-z_]+"' | tr -d '{"')
    section() { sed -n "/^## $1\$/,/^## /p" docs/abi.md | grep -oE '`_*[a-z_]+`' | tr -d '`' | sort -u; }
    bad=0
    for f in $rows; do section 'The C runtime' | grep -qx "$f" || { echo "docs/abi.md: no $f"; bad=1; }; done
    for f in $bound; do
        { section 'The C runtime'; section 'Self guests'; } | grep -qx "$f" || { echo "docs/abi.md: no $f of self guests"; bad=1; }
    done
    for f in $(section 'Self guests'); do
        case $f in main | errno) ;; *) echo "$bound" | grep -qx "$f" || { echo "docs/abi.md: self guests have no $f"; bad=1; } ;; esac
    done
    return $bad
}
man_page() { # all sections, commands, options and statuses are in it, and man has nothing to say about it
    page=$build/hlsnap_tool.1
    docs/man.sh "$page" && LC_ALL=C.UTF-8 MANWIDTH=100 man --warnings -l "$page" >"$build/man.txt" 2>"$build/man.err" || return 1
    cat "$build/man.err" && [ ! -s "$build/man.err" ] || return 1
    {
        sed -n 's/^## //p; s/^| `\(-[-a-z]*\).*/\1/p' docs/tool.md
        grep -oE '^    hlsnap_tool [a-z]+ ' docs/tool.md | sed 's/  *$//; s/^ *//'
        grep -oE '`HLSNAP_ERR_[A-Z_]+` \|' docs/tool.md | tr -d '`| '
        echo '2^53'
    } | sort -u >"$build/man.words"
    [ "$(wc -l <"$build/man.words")" -ge 80 ] || { echo "only $(wc -l <"$build/man.words") words"; return 1; }
    while read -r word; do
        grep -qF -- "$word" "$build/man.txt" || { echo "not in the page: $word"; return 1; }
    done <"$build/man.words"
    lexgrog "$page" | grep -q 'hlsnap_tool - look at'
}
if command -v lowdown >/dev/null && command -v man >/dev/null; then check "docs/tool.md makes a manual page" man_page
else skip "docs/tool.md makes a manual page" "no lowdown, or no man"; fi
check "docs/security.md: every test named exists" tests_exist
check "docs/security.md: every promise names its tests" every_promise_has_a_proof
check "files named exist" files_exist
check "functions named exist" functions_exist
check "results named exist" results_exist
check "suites named exist" suites_exist
check "the runtime's functions are listed" runtime_listed
# docs/programs.md names every system call that is answered, and no other.
calls_listed() {
    sed -n '/^#define HLSNAP__LX_CALLS/,/^\/\/ clang-format on/p' hlsnap.h | grep -o 'X([0-9]*, [a-z0-9_]*' | sed 's/.*, //' | sort >"$build/answered"
    sed -n '/^## What is there/,/^Not there/p' docs/programs.md | sed -n 's/^| \([a-z0-9_ ]*\) |.*/\1/p' | tr ' ' '\n' | grep -vx calls | grep . | sort >"$build/listed"
    [ "$(wc -l <"$build/answered")" -gt 140 ] && diff "$build/answered" "$build/listed"
}
check "system calls are listed" calls_listed
check "lines fit" lines_fit
check "public functions are documented" documented
finish
