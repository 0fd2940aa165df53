# shellcheck shell=sh
# tap.sh - sourced by the suites that are shell scripts: TAP lines, counted.
#   check NAME COMMAND...    one line: ok when the command succeeds; what it says stands in $build/check.log, and its end is shown when
#                            it fails
#   pass NAME, fail NAME, skip NAME WHY   one line
#   finish                   closes with `N passed, N failed, N skipped`; exit 0, 1, or 77 when all were skipped
n=0 passed=0 failed=0 skipped=0

check() {
    what=$1
    shift
    if "$@" >"$build/check.log" 2>&1; then pass "$what"
    else fail "$what" && sed 's/^/# /' "$build/check.log" | tail -n 15; fi
}

pass() { n=$((n + 1)) passed=$((passed + 1)) && echo "ok $n - $1"; }
fail() { n=$((n + 1)) failed=$((failed + 1)) && echo "not ok $n - $1"; }
skip() { n=$((n + 1)) skipped=$((skipped + 1)) && echo "ok $n - $1 # SKIP $2"; }

finish() {
    echo "1..$n" && echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ] || exit 1
    [ "$passed" != 0 ] || exit 77
    exit 0
}
