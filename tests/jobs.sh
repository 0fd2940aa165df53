# shellcheck shell=sh
# jobs.sh - sourced by the matrix scripts: shell jobs, JOBS (2) at a time, each one TAP line.
#   job NAME TEXT    TEXT runs in its own sh after prelude.sh; its exit code: 0 = ok, 77 = skip (why: first line with "#"), else not ok
#   job "" TEXT      preparation: reported only when it fails
#   ONLY=WORD        in the environment: only jobs whose name contains it, and preparation
#   jobs_run         runs what was added since the last time and waits
#   jobs_report      TAP lines and `N passed, N failed, N skipped`; returns 0, 1, or 77 when all were skipped
jobs_number=0 jobs_done=0
rm -rf jobs && mkdir jobs

job() {
    case $1 in '' | *"${ONLY:-}"*) ;; *) return ;; esac
    jobs_number=$((jobs_number + 1))
    mkdir "jobs/$jobs_number"
    printf '%s\n' "$1" >"jobs/$jobs_number/name"
    { echo ". ./prelude.sh"; printf '%s\n' "$2"; } >"jobs/$jobs_number/run"
}

jobs_lane() {
    at=$jobs_done
    while at=$((at + 1)) && [ "$at" -le "$jobs_number" ]; do
        mkdir "jobs/$at/taken" 2>/dev/null || continue
        sh "jobs/$at/run" >"jobs/$at/log" 2>&1
        echo $? >"jobs/$at/rc"
    done
}

jobs_run() {
    lane=0
    while [ "$lane" -lt "${JOBS:-2}" ]; do
        lane=$((lane + 1))
        jobs_lane &
    done
    wait
    jobs_done=$jobs_number
}

jobs_report() {
    passed=0 failed=0 skipped=0 n=0 at=0
    while [ "$at" -lt "$jobs_number" ]; do
        at=$((at + 1))
        name=$(cat "jobs/$at/name")
        rc=$(cat "jobs/$at/rc" 2>/dev/null || echo 99)
        [ "$rc" = 0 ] && [ -z "$name" ] && continue
        n=$((n + 1))
        case $rc in
        0) passed=$((passed + 1)); echo "ok $n - $name" ;;
        77) skipped=$((skipped + 1)); echo "ok $n - ${name:-preparation} # SKIP $(sed -n 's/^# *//p' "jobs/$at/log" | head -n 1 | cut -c1-80)" ;;
        *) failed=$((failed + 1)); sed 's/^#* */# /' "jobs/$at/log" | head -n 15; echo "not ok $n - ${name:-preparation}" ;;
        esac
    done
    echo "1..$n"
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ] || return 1
    [ "$passed" -gt 0 ] || return 77
}
