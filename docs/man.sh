#!/bin/sh
# man.sh [FILE] - makes hlsnap_tool.1, a manual page, of docs/tool.md by way of lowdown (Debian: lowdown); FILE is standard output
# without. To read it: docs/man.sh hlsnap_tool.1 && man -l hlsnap_tool.1
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
version=$(sed -n 's/.*HLSNAP_VERSION_STRING "\(.*\)"/\1/p' "$top/hlsnap.h")
command -v lowdown >/dev/null || { echo "missing: lowdown; install it: apt-get install lowdown" >&2; exit 1; }
# The title is the page's, sections are one level up, and ^ stands for itself.
page() {
    sed '1{/^# /d}; s/^## /# /' "$top/docs/tool.md" |
        lowdown -s -tman --parse-no-super --out-no-smarty \
            -M title=HLSNAP_TOOL -M section=1 -M date= -M source="hlsnap $version" -M volume="User Commands"
}
if [ $# -gt 0 ]; then page >"$1"; else page; fi
