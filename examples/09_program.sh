#!/bin/sh
# 09_program.sh - programs that know nothing of hlsnap, started once, warmed, saved, and continued by other processes. You learn:
# hlsnap_tool start and run, with a program's files and environment. Three of them: bash as Debian has it; CPython and SQLite linked
# here with Debian's static libraries. Needs bash-static, libpython3-dev, libexpat1-dev, zlib1g-dev, libsqlite3-dev, libcjson-dev.
#
# cc: cc -O2 -ffreestanding -nostdlib -static-pie -fno-stack-protector -I.. guests/linux.c -o linux.elf
# cc: cc -std=c11 -O2 -DEMBED_RUNTIME -I.. hlsnap_tool.c -lcjson -o hlsnap_tool
# run: ./09_program.sh
# prints: bash: 42 is the answer, said first
# prints: bash: 42 is the answer, said second
# prints: bash: status 5
# prints: sqlite3: 10000 rows, 5000 of them odd
# prints: sqlite3: 1 row
# prints: sqlite3: 10000 rows, 5000 of them odd
# prints: python3: {"words": 3, "longest": "continued"}
# prints: python3: {"words": 3, "longest": "continued"}
# prints: python3: status 6
set -eu
problem=$([ -r /dev/kvm ] && [ -w /dev/kvm ] || echo "no usable /dev/kvm")
[ -z "$problem" ] || { echo "$problem"; exit 77; }
command -v bash-static >/dev/null || { echo "missing: bash-static"; exit 77; }
rm -rf programs
mkdir programs
exec 3>programs/log
trap 'status=$?; [ $status = 0 ] || tail -n 20 programs/log >&2; exit $status' EXIT

link() { # link OUTPUT SOURCE OPTION...: a static program; the linker warns of what wants shared objects at run time
    out=programs/$1
    shift
    "${CC:-cc}" -O2 -static "$@" -lm -o "$out" 2>&3
}
go_on() { # go_on TAG: a process of its own, which goes on from there with an input of its own; none sees what another did
    ./hlsnap_tool run programs/store "$1" >programs/answer 2>&3 && sed "s/^/$1: /" programs/answer
}
ends() { # ends TAG: the same, and says the program's exit status
    status=0
    ./hlsnap_tool run programs/store "$1" >&3 2>&3 || status=$?
    echo "$1: status $status"
}

# What takes long is done once: the shell reads this, waits for more, and that is the snapshot.
./hlsnap_tool start --input - bash-static --save programs/store bash >&3 2>&3 <<'WARM'
sum=0
for ((i = 1; i <= 2000; i++)); do ((sum += i % 3)); done
say() { echo "$((sum - 1959)) is the answer, said $1"; }
WARM
echo 'say first; sum=0' | go_on bash
echo 'say second' | go_on bash
echo 'exit 5' | ends bash

link sqlite3 guests/sqlite3.c -lsqlite3
./hlsnap_tool start --input - programs/sqlite3 --save programs/store sqlite3 >&3 2>&3 <<'WARM'
CREATE TABLE t (n INTEGER PRIMARY KEY, text);
WITH RECURSIVE up(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM up WHERE n < 10000) INSERT INTO t SELECT n, 'row ' || n FROM up;
CREATE INDEX by_text ON t (text);
WARM
count="SELECT count(*) || ' rows, ' || sum(n % 2) || ' of them odd' FROM t;"
echo "$count" | go_on sqlite3
echo "DELETE FROM t WHERE text <> 'row 77'; SELECT count(*) || ' row' FROM t;" | go_on sqlite3
echo "$count" | go_on sqlite3

# An interpreter wants its library: files that it sees as /usr/lib, and no others.
python=$(find /usr/include/python3* -name Python.h | sed 's,.*/\(python[0-9.]*\)/.*,\1,' | sort -V | tail -n 1)
link python3 "-I/usr/include/$python" guests/python3.c "-l$python" -lexpat -lz
mkdir -p "programs/files/usr/lib/$python"
for module in "/usr/lib/$python"/*.py; do
    case $module in */sitecustomize.py) ;; *) cp "$module" "programs/files/usr/lib/$python" ;; esac
done
for package in encodings json re collections importlib; do
    cp -R "/usr/lib/$python/$package" "programs/files/usr/lib/$python"
done
./hlsnap_tool start --files programs/files --env PYTHONHOME=/usr --heap 256M --input - \
    programs/python3 -S -i -q -B --save programs/store python3 >&3 2>&3 <<'WARM'
import json, re
find = re.compile(r'[a-z]+').findall
WARM
text='words = find("warmed, saved, continued"); print(json.dumps({"words": len(words), "longest": max(words, key=len)}))'
echo "$text; del find" | go_on python3
echo "$text" | go_on python3
echo 'raise SystemExit(6)' | ends python3
rm -rf programs
