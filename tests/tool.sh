#!/bin/sh
# tool.sh DIR - compiles examples/hlsnap_tool.c by its own cc: line and puts every command to the test: what it says is compared with
# what tests/tool_check.py finds by itself. TAP; what runs a guest needs /dev/kvm, the rest does not.
# shellcheck disable=SC2016,SC2317 # what stands in sh -c '...' is for that shell; functions are called by check
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1" && build=$(cd "$1" && pwd) || exit 1
# shellcheck source=tests/need.sh
. "$top/tests/need.sh"
# shellcheck source=tests/tap.sh
. "$top/tests/tap.sh"
trap 'rm -rf "$build/work"' EXIT
format() { python3 -B "$top/tests/snapshot_format.py" "$@"; }
expect() { python3 -B "$top/tests/tool_check.py" "$@"; }

need python3 python3
need_header cjson/cJSON.h libcjson-dev
need_done || exit 1
rm -rf "$build/work" && mkdir -p "$build/work/examples"
mkdir "$build/work/examples/guests"
cp "$top"/*.h "$build/work/" && cp "$top/examples/hlsnap_tool.c" "$build/work/examples/" && cd "$build/work/examples" || exit 1
cp "$top/examples/guests/linux.c" guests/ || exit 1
compiles() { # by its own lines, without a word from the compiler
    lines_of cc hlsnap_tool.c >lines && [ "$(wc -l <lines)" = 2 ] || return 1
    while read -r line; do
        out=$($line 2>&1) && echo "$out" && [ -z "$out" ] || return 1
    done <lines
}
documented_line() { # the one of docs/tool.md, which needs no runtime: that is looked for beside the tool
    line=$(sed -n 's/^    cd examples && \(cc .*hlsnap_tool\) .*/\1/p' "$top/docs/tool.md") && [ -n "$line" ] || return 1
    mkdir -p alone && cp hlsnap_tool.c alone/ && (cd alone && ${line%-I..*}-I../..${line#*-I..}) && mv linux.elf kept.elf && alone/hlsnap_tool --version &&
        exits 11 "alone/linux.elf: No such file" alone/hlsnap_tool start true --save d t && grep -qF -- "--runtime FILE" err
    code=$?
    mv kept.elf linux.elf && return $code
}
warnings="-Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Wundef -Wcast-qual -Wvla -Werror"
strictly() { # by gcc or clang
    # shellcheck disable=SC2086
    "$1" -std=c11 -O1 $warnings -I.. hlsnap_tool.c -lcjson -o strict
}
check "compiles by its own lines" compiles
for c in gcc clang; do
    if command -v $c >/dev/null; then check "no warning of $c" strictly $c; else skip "no warning of $c" "no $c"; fi
done
[ "$failed" = 0 ] || finish
ignored() { # what the examples' own lines leave behind
    for f in "$top"/examples/*.c "$top"/examples/*.cpp; do lines_of cc "$f"; done | sed -n 's/.* -o \([^ ]*\).*/\1/p' >made_there && [ -s made_there ] &&
        while read -r f; do git -C "$top" check-ignore -q "examples/$f" || { echo "examples/$f"; return 1; }; done <made_there
}
if git -C "$top" rev-parse >/dev/null 2>&1; then check "git ignores what the examples make" ignored; else skip "git ignores what the examples make" "no repository"; fi
cp hlsnap_tool "$build/work/" && cd "$build/work" || exit 1
tool() { ./hlsnap_tool "$@"; }
exits() { # exits STATUS TEXT COMMAND...: the exit status, and what the first line of standard error says
    want=$1 text=$2
    shift 2
    "$@" >out 2>err
    got=$?
    head -c 2000 out err
    [ "$got" = "$want" ] || { echo "exit $got, not $want"; return 1; }
    [ -z "$text" ] || head -n 1 err | grep -qF -- "$text"
}
says() { # says TEXT COMMAND...: all of standard output, and nothing on standard error
    text=$1
    shift
    "$@" >out 2>err || { echo "exit $?"; cat err; return 1; }
    cat out err
    [ ! -s err ] && [ "$(cat out)" = "$text" ]
}
fits() { # a screen of 24 lines and 80 columns
    "$@" >out 2>err && [ ! -s err ] && awk 'length > 80 { bad = 1; print } END { print NR " lines"; exit bad || NR > 24 }' out
}

cd examples && check "compiles by the line of docs/tool.md" documented_line
cd ..

# ---- the command line ----
check "--help fits a screen" fits tool --help
for c in ls inspect verify start run diff map tag rm prune du gc fsck flatten copy export import unresolved completion; do
    mentions() { fits tool "$c" --help && head -n 1 out | grep -q "^usage: hlsnap_tool $c " && tool --help | grep -q "^  $c "; }
    check "$c --help fits a screen" mentions
done
check "--version" says "hlsnap_tool $(sed -n 's/.*HLSNAP_VERSION_STRING "\(.*\)"/\1/p' "$top/hlsnap.h") (snapshot format 3, ABI 2)" tool --version
check "no command" exits 2 "no command" tool
check "an unknown command" exits 2 "no command lss" tool lss
check "an unknown option" exits 2 "no option --jsn" tool ls --jsn d
check "an option of another command" exits 2 "no option --repair" tool ls --repair d
check "too few arguments" exits 2 "too few" tool inspect d
check "too many arguments" exits 2 "too many" tool ls d e
check "an option without its value" exits 2 "--threads needs N" tool verify d r --threads
check "a number that is none" exits 2 "--threads 4x" tool verify --threads 4x d r
start_line() { # --save in front, at the end, in one word; what stands behind PROGRAM is the program's
    exits 2 "no --save DIR TAG" tool start true && exits 2 "--save needs DIR TAG" tool start true --save d && exits 2 "too few" tool start --save d t &&
        exits 2 "d behind --save" tool start true --save d:t d && exits 2 "no option --jsn" tool start --jsn true --save d t &&
        exits 2 "--env A: not NAME=VALUE" tool start --env A true --save d t && exits 2 "--env =A: not" tool start --env =A true --save d t &&
        exits 2 "--cpu v5: not host, v1, v2, v3 or v4" tool start --cpu v5 true --save d t &&
        exits 2 "--heap 17G: not a number of bytes" tool start --heap 17G true --save d t && exits 2 "no --save" tool start -- true --nope &&
        exits 2 "no option --nope" tool start true --jsn --save d t --nope
}
check "start: its command line" start_line
map_line() { # before anything is looked at
    exits 2 "run: --map model: not NAME=PATH" tool run --map model d t f && exits 2 "--map =x: not NAME=PATH" tool run --map =x d t &&
        exits 2 "--map needs NAME=PATH" tool run --map && exits 2 "no option --map" tool inspect --map a=b d t &&
        exits 2 "start: --map x: not NAME=PATH" tool start --save d t --map x true && exits 3 "d: hlsnap_oci_load" tool run --map a=b=c d t f
}
check "--map: its command line" map_line
novm() { # all is well but for KVM: a program, its files, its runtime
    exits 12 "HLSNAP_ERR_HYPERVISOR" tool start --files . --env A=1 --heap 1M sh -c 'exit 1' --save d t && grep -q /dev/kvm err && [ ! -e d ]
}
if [ -n "$(kvm_problem)" ]; then check "start says what it lacks where there is no KVM" novm; fi
ranges() { # what is wrong, and what is right
    most=1000000000000
    for row in "--threads 65 verify 1 64" "--threads 0 verify 1 64" "--grace x gc 0 $most" "--grace 1h30m gc 0 $most" \
        "--grace h gc 0 $most" "--grace 11574075d gc 0 $most" "--grace 1H gc 0 $most" "--timeout -5 run 0 $most" \
        "--timeout 1000000000001 run 0 $most" "--timeout 1.5s run 0 $most" "--timeout 99999999999999999999s run 0 $most" \
        "--grace 18446744073709551615w gc 0 $most"; do
        # shellcheck disable=SC2086
        set -- $row
        unit=$(case $1 in --grace) echo " of seconds" ;; --timeout) echo " of milliseconds" ;; esac)
        exits 2 "$1 $2: not a number$unit from $4 to $5" tool "$3" "$1" "$2" d r f &&
            grep -q "^usage: hlsnap_tool $3 \[OPTION...\] DIR" err || return 1
    done
    exits 2 "" tool tag d && grep -qx "usage: hlsnap_tool tag \[OPTION...\] DIR REF TAG" err && exits 2 "" tool completion &&
        grep -qx "usage: hlsnap_tool completion bash" err
}
check "a number beyond its range" ranges
documented() { # docs/tool.md has each result's number
    sed -n 's/^    X(\([A-Z_]*\), \([0-9]*\), .*/\2 HLSNAP_\1/p' "$top/hlsnap.h" >numbers
    [ -s numbers ] && while read -r number name; do
        [ "$name" = HLSNAP_OK ] || grep -q "^| $number | \`$name\`" "$top/docs/tool.md" || { echo "$number $name"; return 1; }
    done <numbers
}
check "docs/tool.md lists every exit status" documented

# ---- made-up layouts ----
format write syn s --count 8 --layers 3 --pages 200 >/dev/null && format write syn l --seed 11 --layers 40 >/dev/null &&
    format write syn z --zero >/dev/null && format write syn big --pages 70000 --seed 4 >/dev/null &&
    expect changed made >digests && expect hostile evil && expect missing holes >/dev/null
check "made-up layouts" test -s digests -a -d holes
a=$(sed -n 1p digests)
refs="s1 s2 s3 s4 s5 s6 s7 s8 l z big"
lists() { tool ls "$1" --json >out && python3 -m json.tool out >/dev/null && expect ls "$1" <out; }
listed() { # as text: a line for each, as wide as the widest
    tool ls made >out && cat out && [ "$(sed -n 1p out | tr -s ' ')" = "TAG DIGEST SIZE OWN PAGES LAYERS" ] && [ "$(wc -l <out)" = 4 ] &&
        grep -q "^a  *$(echo "$a" | cut -c1-19)  .* KiB  *929  1$" out && tool ls made --long | grep -q "$a"
}
inspects() { tool inspect "$1" "$2" --json >out && python3 -m json.tool out >/dev/null && expect inspect "$1" "$2" <out; }
inspects_all() { for r in $refs; do inspects syn "$r" || { echo "$r"; return 1; }; done; }
inspected() { # as text
    tool inspect made b >out && grep -q "^digest  *$(sed -n 2p digests)$" out && grep -q "^memory  *929 pages (3.6 MiB), " out &&
        grep -q "^heap  *0x[0-9a-f]*  *900  *[0-9]*  *[0-9]*  rw-$" out && grep -q "^ *1  sha256:[0-9a-f]*  *70  *70$" out
}
features() { # one that the format does not know: shown as one that is lacking, and no start
    format write odd f --features sse3,zz_unknown >/dev/null && tool inspect odd f --json >out && cat out &&
        grep -q '"cpu_has_features":false' out && grep -q 'lacks zz_unknown' out && exits 52 HLSNAP_ERR_CPU tool verify odd f &&
        says ok tool verify --any-cpu odd f
}
owns() { # two tags of one snapshot show the same; what goes when both go is what ls said; what cannot be told is no number
    rm -rf two && cp -r made two && tool tag two b again && lists two && inspects two b && inspects two a || return 1
    before=$(tool ls --json two | sed -n 's/.*"tag":"again".*"own_bytes":\([0-9]*\),.*/\1/p') && tool rm two b && tool gc two --grace 0 && tool rm two again &&
        [ "$(tool gc two --grace 0)" = "$before bytes freed" ] && says ok tool verify two a || return 1
    rm -rf two && cp -r made two && expect damage two b manifest bad && tool ls two >out && cat out && grep -q "^a .* KiB  *?  *929  1$" out &&
        tool ls two --json | grep '"tag":"a"' | grep -q '"own_bytes":null,' && tool inspect two a | grep -q ", ? of it nobody else's$" &&
        tool inspect two a --json | python3 -c 'import json, sys; sys.exit(json.load(sys.stdin)["own_bytes"] is not None)' && tool map two a | grep -q ", ? of it nobody"
}
maps() { tool map "$1" "$2" -o m.svg >out 2>&1 && [ ! -s out ] && expect svg "$1" "$2" m.svg && tool map "$1" "$2" | cmp - m.svg; }
maps_all() { for r in $refs; do maps syn "$r" || { echo "$r"; return 1; }; done; }
differs() { # differs STATUS DIR REF DIR2 REF2
    tool diff "$2" "$3" "$4" "$5" --json >out
    got=$?
    [ "$got" = "$1" ] && python3 -m json.tool out >/dev/null && expect diff "$2" "$3" "$4" "$5" <out
}
differ_as_made() { # 4 pages and the last bit of one; one that shows another of its layer; one that became zero; 63 that were
    differs 1 made a made b >said && cat said && grep -q "^equal 859 differ 70 only 0 0 ranges [67]$" said && tool diff made a b >out
    cat out
    [ "$(grep -c '^  0x' out)" = "$(sed 's/.* //' said)" ] && grep -q "^all  *859  *70  *0  *0$" out && grep -q "^heap differs at$" out && tail -n 1 out | grep -qx different
}
contract_differs() { # the same memory
    tool diff made a c >out
    [ $? = 1 ] && grep -q "^export only_here: A -, B i32(str)$" out && grep -q "^feature sse3: A -, B needed$" out && ! grep -q "differs at" out
}
other_layers() { # the same memory, from one layer and from three; and the same bytes in another layout
    for s in 1 2 3; do format write flat "s$s" --seed "$s" --layers 3 --pages 200 --flat || return 1; done >/dev/null
    differs 0 syn s1 flat s1 && differs 0 flat s3 syn s3 && says ok tool verify flat s2
}
scattered() { # more ranges than are shown
    format write zero a --seed 3 --pages 3000 --layers 5 && format write zero b --seed 3 --pages 3000 --layers 5 --zero || return 1
    differs 1 zero a zero b && tool diff zero a b >short
    tool diff zero a b --all >long
    grep -q "ranges more (--all)" short && ! grep -q "ranges more" long && [ "$(grep -c '^  0x' short)" -lt "$(grep -c '^  0x' long)" ]
}
check "ls" listed
check "ls --json" lists made
check "ls --json of many" lists syn
check "ls shows what cannot be read" lists holes
check "ls says what ails it" sh -c './hlsnap_tool ls holes | grep -q "^bad .* HLSNAP_ERR_FILE$"'
check "ls: bytes of its own" owns
dated="manifest overruled min10 h1 day1 week1 ahead none date local space tail feb30 dot old month13 h24 zone24"
tags() { # tags WANT OPTION...: in this order
    want=$1
    shift
    tool ls dated --json-lines "$@" >out || return 1
    got=$(sed -n 's/.*"tag":"\([^"]*\)".*/\1/p' out | sed 's/^$/-/' | xargs)
    [ "$got" = "$want" ] || { echo "$*: $got, not $want"; return 1; }
}
chosen() { # by tag and by time; what says no time is neither older nor newer than any
    tags "$dated -" && tags "$dated" --tagged && tags - --untagged && tags "" --tagged --untagged && tags "h1 h24" --match 'h*' &&
        tags "" --match nope && tags "$dated" --match '*' &&
        tags "manifest h1 day1 week1" --older-than 1h && tags "manifest h1 day1" --older-than 3600 --newer-than 2d &&
            tags "min10 ahead" --newer-than 900 && tags "week1" --older-than 1w --newer-than 8d &&
        tags "manifest overruled min10 h1 day1 week1" --older-than 0 && tags "overruled min10 ahead" --newer-than 59m --tagged &&
            exits 2 "--older-than x: not a number of seconds" tool ls dated --older-than x
}
sorted() {
    tags "- ahead date day1 dot feb30 h1 h24 local manifest min10 month13 none old overruled space tail week1 zone24" --sort name &&
        tags "zone24 week1 tail" --reverse --sort name --limit 3 &&
        tags "ahead min10 overruled h1 manifest day1 week1 none" --sort created --limit 8 && tags "min10" --limit 1 --sort size &&
            tags "overruled manifest -" --sort size --reverse --limit 3 &&
        tags "min10 day1 date dot old month13 manifest overruled" --sort own --match '[mod]*' &&
            tags "- zone24" --reverse --limit 2 && tags "manifest overruled" --limit 2 &&
            exits 2 "--sort age: not name, size" tool ls dated --sort age &&
        exits 2 "--limit 0: not a number" tool ls dated --limit 0 &&
            exits 2 "--json and --json-lines" tool ls dated --json --json-lines
}
lines() { # of --json-lines are those of --json; so is what people see
    tool ls "$1" --json-lines >lines && tool ls "$1" --json | sed 's/^\[//; s/,$//; s/\]$//' | cmp - lines &&
        python3 -c 'import json, sys; [json.loads(x) for x in sys.stdin]' <lines &&
        [ "$(tool ls "$1" | wc -l)" = $(($(wc -l <lines) + 1)) ]
}
when() { # as people see it, where any says one
    tool ls dated >out && cat out && head -n 1 out | grep -q "LAYERS  CREATED$" && grep -qE "^h1 .* 20[0-9-]{8}T[0-9:]{8}Z$" out &&
        grep -q "^feb30 .* -$" out && ! tool ls made | grep -q CREATED && tool ls --long made | grep -q "CREATED$" &&
        tool ls dated --json | grep -q '"tag":"feb30".*"created":null' &&
            tool inspect dated h1 --json | python3 -c '
import json, sys, time
sys.exit(not 3600 <= time.time() - json.load(sys.stdin)["created"] < 3720)'
}
many() { # columns fit the widest of them, not the last
    rm -rf lots && cp -r made lots && python3 -B -c '
import json
index = json.load(open("made/index.json"))
first = index["manifests"]
index["manifests"] = [dict(first[i % 2], annotations={"org.opencontainers.image.ref.name": "t" * (1 + i % 7) + str(i)})
                      for i in range(3000)]
json.dump(index, open("lots/index.json", "w"), separators=(",", ":"))' &&
        tool ls lots >out && [ "$(wc -l <out)" = 3001 ] && [ "$(grep -ob sha256 out | wc -l)" = 3000 ] &&
        awk '!/^TAG/ { at[index($0, "sha256")] } END { n = 0; for (i in at) n++; exit n != 1 }' out
}
dates() { expect dated dated && lines dated && lines holes && lines evil; }
check "ls --json-lines" dates
check "ls: which" chosen
check "ls --sort, --reverse, --limit" sorted
check "ls: when it was created" when
check "ls: many" many
check "inspect" inspected
check "inspect --json" inspects_all
check "inspect: features that this machine lacks" features
check "map" maps_all
check "diff: pages" differ_as_made
check "diff: the same" differs 0 made a made a
check "diff: a digest, and its beginning" differs 0 made "$a" made a
check "diff: contract" contract_differs
check "diff: other regions" differs 1 syn s1 syn s2
check "diff: other layers" other_layers
check "diff: many ranges" scattered
check "diff --verify" sh -c './hlsnap_tool diff --verify made a b >/dev/null; [ $? = 1 ]'

# ---- refs ----
short=$(echo "$a" | cut -c1-15)
check "a digest" says ok tool verify made "$a"
check "a digest of 8 digits" says ok tool verify made "$short"
check "a digest of 7 digits" exits 2 "HLSNAP_ERR_ARG: '$(echo "$a" | cut -c1-14)': of a digest, at least 8 digits" tool verify made "$(echo "$a" | cut -c1-14)"
check "a digest that no one has" exits 3 HLSNAP_ERR_NOT_FOUND tool inspect made sha256:00000000
twice() { rm -rf two && cp -r made two && tool tag two a again && says ok tool verify two "$short"; }
check "a digest with two tags" twice
alike() { expect alike two && exits 42 HLSNAP_ERR_AMBIGUOUS tool verify two "$short" && says ok tool verify two "$a" && tool ls two | grep -q "^- .* HLSNAP_ERR_FILE$"; }
check "two digests that begin alike" alike

pairs() { # DIR:REF; in whatever stands in front of the colon that is a directory, the longest of them
    says ok tool verify made:a && says ok tool verify ./made:"$a" && says ok tool verify "made:$short" &&
        says ok tool verify "$PWD/made:a" || return 1
    rm -rf colons && mkdir colons && cp -r made colons/x:y && cp -r syn colons/x && says ok tool verify colons/x:y:a &&
        says ok tool verify colons/x:s1 &&
        says ok tool verify colons/x:y a &&
            exits 3 "colons/x:y: hlsnap_oci_load: index.json: no tag 's1'" tool verify colons/x:y:s1 &&
            exits 2 "too few" tool verify colons/x:y || return 1
    differs_by 1 made:a b && differs_by 1 made:a made:b && differs_by 1 made:a made b && differs_by 1 made a made:b &&
        differs_by 0 made:a "$a" && inspects made a &&
        tool inspect made:a | grep -qx "digest      $a" && tool map made:a -o m.svg && expect svg made a m.svg || return 1
    mkdir -p sha256 && exits 3 "no snapshot's digest starts with 'sha256:00000000'" tool diff made:a sha256:00000000 || return 1
    rm -rf sha256 two && cp -r made two && exits 2 HLSNAP_ERR_ARG tool tag two:a c:d && says "" tool tag two:a c2 &&
        tool rm two:c2 && exits 3 "no tag 'c2'" tool inspect two:c2 && tool flatten two:a one && says ok tool verify two one ||
        return 1
    exits 3 "HLSNAP_ERR_NOT_FOUND: nowhere: hlsnap_oci_load" tool verify nowhere:a &&
        exits 3 "HLSNAP_ERR_NOT_FOUND: x:y/nowhere: hlsnap" tool verify x:y/nowhere:sha256:0123456789 &&
        exits 2 "too few" tool verify made:
}
differs_by() { # differs_by STATUS WORD...
    want=$1
    shift
    tool diff "$@" >out
    [ $? = "$want" ] || { echo "$*"; return 1; }
}
check "DIR:REF" pairs
tags_of() { tool ls --json "$1" | sed -n 's/.*"tag":"\([^"]*\)".*/\1/p' | sort | xargs; }
several() { # tags, globs, digests; one that means nothing: none goes
    rm -rf two && cp -r made two && for t in v1 v2 v3 v10 w1; do tool tag two a "$t" || return 1; done
    exits 3 "two: no tag matches 'x*'" tool rm two v1 'x*' &&
        exits 3 "two: no snapshot's digest starts with 'sha256:00000000'" tool rm two v1 sha256:00000000 &&
        exits 3 "two: hlsnap_oci_untag_listed: index.json: no tag 'nope'" tool rm two v1 nope 'v*' neither || return 1
    [ "$(tags_of two)" = "a b c v1 v10 v2 v3 w1" ] && tool rm two w1 'v?' 'v1*' w1 >out && cat out &&
        [ "$(sed -n 's/^untagged //p' out | sort | xargs)" = "v1 v10 v2 v3 w1" ] &&
        [ "$(tags_of two)" = "a b c" ] && tool tag two a again && tool rm two "$short" && [ "$(tags_of two)" = "b c" ] &&
            says ok tool verify two "$a" &&
        exits 3 "no tag leads to" tool rm two "$a" && exits 3 "no tag 'nope'" tool rm two nope && tool rm two '[bc]' &&
            [ "$(tags_of two)" = "" ]
}
check "rm: several, globs, digests" several
retag() { # retag NAME: a's snapshot by that name, too, as `oras tag` writes it: any text
    python3 -B -c '
import json, sys
index, name = json.load(open("two/index.json")), "org.opencontainers.image.ref.name"
entry = next(e for e in index["manifests"] if e.get("annotations", {}).get(name) == "a")
index["manifests"].append({**entry, "annotations": {name: sys.argv[1]}})
json.dump(index, open("two/index.json", "w"))' "$1"
}
odd_names() { # they can be loaded, and taken away, one by one and with others
    rm -rf two && cp -r made two || return 1
    for t in 'a b' 'ünï' .x +a -- '%41' "$(printf '%0300d' 7)"; do
        retag "$t" && says ok tool verify -- two "$t" && tool rm -- two "$t" && [ "$(tags_of two)" = "a b c" ] || return 1
    done
    retag 'x y' && retag -z && tool rm two "$short" && [ "$(tags_of two)" = "b c" ] || return 1
    rm -rf two && cp -r made two && retag 'x y' && retag -z && tool rm two '?[ z]*' && [ "$(tags_of two)" = "a b c" ] &&
        retag 'x y' && retag -z && tool prune two --keep-last 0 --match '[x-]*' && [ "$(tags_of two)" = "a b c" ]
}
check "rm, prune: tags of any text" odd_names
like_a_digest() { # of another snapshot, which stays
    b=$(tool inspect --json made b | sed -n 's/.*"digest":"\(sha256:[^"]*\)".*/\1/p' | head -n 1)
    for words in "rm two $short" "rm two sha256?*" "prune two --keep-last 0 --match sha* --gc --grace 0"; do
        rm -rf two && cp -r made two && tool rm two c && retag "$b" || return 1
        # shellcheck disable=SC2086
        (set -f && tool $words) && tags_of two >out && cat out && grep -qx "\(a \)\{0,1\}b" out && says ok tool verify two b || return 1
    done
    rm -rf two && cp -r made two && tool rm two c && retag "$b" && tool rm two "$b" && [ "$(tags_of two)" = "a $b" ]
}
check "rm, prune: a tag that looks like a digest" like_a_digest

# ---- completion ----
completes() { # completes BREAKS WANT LINE: what bash would offer at its end
    got=$(bash -c '. ./completion.bash; COMP_WORDBREAKS=$1 COMP_LINE=$2 COMP_POINT=${#2}; _hlsnap_tool
        printf "%s\n" "${COMPREPLY[@]}"' - "$1" "$3" | xargs)
    [ "$got" = "$2" ] || { echo "$3: $got, not $2"; return 1; }
}
unresolved() { # of a shared object, of a program, of a guest; sorted, each once
    printf '#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <errno.h>\nextern int weak(void) __attribute__((weak));
        int f(char *s); int f(char *s) { puts(s); errno = 1; if (weak) weak(); return puts(strchr(s, 65)) + atoi(s) + (int)strlen(s) + (int)strcspn(s, "z"); }\n' >plugin.c
    "${CC:-cc}" -shared -fPIC -O1 plugin.c -o plugin.so && tool unresolved plugin.so >out && cat out || return 1
    [ "$(grep -E '^(puts|strcspn|strchr|strlen|__errno_location|weak)$' out | tr '\n' ' ')" = "puts strcspn " ] || return 1
    tool unresolved --json plugin.so | python3 -c 'import json, sys; v = json.load(sys.stdin); sys.exit(v != sorted(set(v)) or "puts" not in v)' &&
        tool unresolved ./hlsnap_tool | grep -qx mmap && exits 11 "cannot open nofile" tool unresolved nofile && exits 30 "not an ELF file" tool unresolved plugin.c &&
        "${CC:-cc}" -O2 -DHLSNAP_GUEST -nostdlib -static -I"$top" "$top/tests/guest_echo.c" -o echo.elf && [ -z "$(tool unresolved echo.elf)" ] &&
        [ "$(tool unresolved --json echo.elf)" = "[]" ]
}
completion() { # commands, options, directories, tags; with a colon that parts words, as it does by default, and without
    rm -rf comp && mkdir comp && cp -r made comp/made && cp -r evil comp/evil && cp hlsnap_tool comp &&
        ./hlsnap_tool completion bash >comp/completion.bash && bash -n comp/completion.bash && cd comp || return 1
    sed -i 's/\("org.opencontainers.image.ref.name":"\)evil"/\1plain"/' evil/index.json && tool tag made a '2.x-y_z' &&
        python3 -B -c '
import json
index = json.load(open("made/index.json"))
for tag in ("$(touch owned)", "`touch owned`", "x y", ";touch owned", "-rf"):
    index["manifests"].append(dict(index["manifests"][0], annotations={"org.opencontainers.image.ref.name": tag}))
json.dump(index, open("made/index.json", "w"))'
    completes : verify "./hlsnap_tool ve" && completes : "--all --any-cpu" "./hlsnap_tool verify --a" &&
        completes : made "./hlsnap_tool verify m" && completes : "a b c 2.x-y_z" "./hlsnap_tool verify made " &&
        completes : "a b c 2.x-y_z" "./hlsnap_tool verify made:" &&
        completes : b "./hlsnap_tool verify made:b" && completes "" made:b "./hlsnap_tool verify made:b" &&
            completes : b "./hlsnap_tool verify --threads 3 made b" && completes : 2.x-y_z "./hlsnap_tool rm made a 2" &&
            completes := completion.bash "./hlsnap_tool run --map m=com" && completes : m=completion.bash "./hlsnap_tool run --map m=com" &&
            completes := "" "./hlsnap_tool run --map com" && completes := --map "./hlsnap_tool start --m" &&
            completes : size "./hlsnap_tool ls --sort s" && completes : "" "./hlsnap_tool ls --limit " &&
        completes : plain "./hlsnap_tool verify evil " && completes : made "./hlsnap_tool copy evil plain m" &&
            completes : c "./hlsnap_tool copy evil plain made c" && completes : "b" "./hlsnap_tool diff made a b" &&
            completes : b "./hlsnap_tool diff made:a b" && completes : completion.bash "./hlsnap_tool export made a com" &&
        completes : "b" "./hlsnap_tool import completion.bash made b" && completes : "" "./hlsnap_tool nope " &&
            completes : "bash tags" "./hlsnap_tool completion " && completes : "" "./hlsnap_tool verify nowhere " && [ ! -e owned ]
    status=$?
    cd ..
    [ "$status" = 0 ] && exits 2 "bash, or tags DIR" tool completion zsh && exits 3 nowhere tool completion tags nowhere
}
check "unresolved: what a file would miss as a guest" unresolved
if command -v bash >/dev/null; then check "completion bash" completion; else skip "completion bash" "no bash"; fi

# ---- errors: the exit status is the number ----
around() { # a signature, and an index of images: ls counts them, inspect and rm name them, gc takes the one and leaves the other
    rm -rf two && cp -r made two && python3 -B - "$a" <<'EOF' || return 1
import hashlib, json, sys
index = json.load(open("two/index.json"))
manifest = next(e for e in index["manifests"] if e["digest"] == sys.argv[1])
kinds = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"
empty = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": "sha256:" + hashlib.sha256(b"{}").hexdigest(), "size": 2}
about = {"schemaVersion": 2, "artifactType": "a/b", "config": empty, "layers": [empty],
         "subject": {"mediaType": kinds[0], "digest": sys.argv[1], "size": manifest["size"]}}
images = {"schemaVersion": 2, "manifests": [{"mediaType": kinds[0], "digest": sys.argv[1], "size": manifest["size"]}]}
for kind, document, tag in zip(kinds, (about, images), (None, "images")):
    text = json.dumps(document).encode()
    digest = hashlib.sha256(text).hexdigest()
    open("two/blobs/sha256/" + digest, "wb").write(text)
    index["manifests"].append({"mediaType": kind, "digest": "sha256:" + digest, "size": len(text),
                               **({"annotations": {"org.opencontainers.image.ref.name": tag}} if tag else {})})
json.dump(index, open("two/index.json", "w"))
EOF
    tool ls two >out && cat out && grep -q "^a .* pinned, 1 about it$" out && grep -q "^b .* 2 *$" out &&
        tool ls two --json | grep -q '"pinned":true,"referrers":1' && tool inspect two a >out && cat out &&
        grep -q "^held by     sha256:[0-9a-f]\{12\} (no tag), which is about it and goes with it$" out &&
        grep -q "^held by     sha256:[0-9a-f]\{12\} (images)$" out && tool rm two a >out && cat out &&
        grep -q "^  held by sha256:[0-9a-f]\{12\} (images)$" out && tool gc two --grace 0 >out && says ok tool verify two "$a"
}
check "what a snapshot has around it" around
wall() { # said while there is time
    rm -rf two && cp -r made two && python3 -c '
import json
index = json.load(open("two/index.json"))
index["x"] = "y" * (25 << 20)
json.dump(index, open("two/index.json", "w"))' && tool ls two >out 2>err && cat err &&
        grep -q "warning: two: index.json has 25.0 MiB of the 32.0 MiB" err && tool ls made 2>err >out && [ ! -s err ]
}
check "an index that is nearly full" wall
waits() { # for a saver's lock, as long as it is told to
    rm -rf two && cp -r made two && : >>two/.hlsnap.lock && python3 -c '
import fcntl, os, struct, sys, time
fd = os.open("two/.hlsnap.lock", os.O_RDWR)
fcntl.fcntl(fd, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 1, 1, 0))  # OFD_SETLK of the index lock
print("locked", flush=True)
time.sleep(60)' >locked & holder=$!
    while ! grep -q locked locked 2>/dev/null; do sleep 0.05; done
    exits 75 "tag: HLSNAP_ERR_OS" tool tag two a x --wait 200ms && exits 75 "trying again may help" tool rm two a --wait 1 &&
        exits 75 "lock" tool gc two --wait 1 && exits 75 "lock" tool flatten two a f --wait 1 &&
        exits 75 "lock" tool copy made b two --wait 1 && exits 75 "lock" tool fsck --repair two --wait 1 && says ok tool verify two a
    got=$?
    kill "$holder"
    [ "$got" = 0 ] && tool tag two a x --wait 1m
}
check "--wait" waits
check "no such directory" exits 3 "no layout there" tool ls nowhere
check "not a layout" exits 3 "no layout there" tool ls "$build/work/examples"
which() { # of two layouts, and of one: the message starts with it
    rm -rf empty "$(printf 'e\033[31m')" && mkdir empty "$(printf 'e\033[31m')" && exits 3 "diff: HLSNAP_ERR_NOT_FOUND: empty: hlsnap" tool diff made a empty a &&
        exits 3 "diff: HLSNAP_ERR_NOT_FOUND: empty: hlsnap" tool diff empty a made a && exits 3 "diff: HLSNAP_ERR_NOT_FOUND: ./made: hlsnap" tool diff made a ./made nope &&
        exits 3 "NOT_FOUND: made: no snapshot's" tool diff made sha256:00000000 syn s1 || return 1
    for c in "ls empty" "inspect empty a" "verify empty a" "verify empty sha256:00000000" "run empty a f" "map empty a" "tag empty a b" "rm empty a" "gc empty" "fsck empty" "flatten empty a b"; do
        # shellcheck disable=SC2086
        exits 3 "hlsnap_tool: ${c%% *}: HLSNAP_ERR_NOT_FOUND: empty: hlsnap_oci_" tool $c || { echo "$c"; return 1; }
    done
    exits 3 'HLSNAP_ERR_NOT_FOUND: e\x1b[31m: hlsnap' tool ls "$(printf 'e\033[31m')" && expect printable <err
}
check "which layout it is" which
errnos() { exits 11 "the name is too long (errno 36)" tool ls "$(printf %0300d 1)" && grep -q ' (errno 36)$' err; }
check "a number of the system's has words, once" errnos
version2() { rm -rf bad && cp -r made bad && echo '{"imageLayoutVersion":"2.0.0"}' >bad/oci-layout && exits 40 HLSNAP_ERR_LAYOUT tool ls bad; }
check "a layout of another version" version2
transient() { # what passes by itself is 75, whatever its number, and says so
    exits 75 "too many files are open in this process (RLIMIT_NOFILE) (errno 24); trying again may help" sh -c 'ulimit -n 5; exec ./hlsnap_tool verify syn l' || return 1
    exits 3 "" tool verify syn nope && ! grep -q "trying again" err
}
check "what is transient is 75" transient
check "no such tag" exits 3 "hlsnap_tool: inspect: HLSNAP_ERR_NOT_FOUND: made: hlsnap_oci_get_info: index.json: no tag 'nope'; tags: a b c" tool inspect made nope
check "not a tag" exits 2 HLSNAP_ERR_ARG tool tag made a 'a b'
flipped() { # one bit: verify says so on both ways out; what is not asked to verify does not
    rm -rf flip && cp -r made flip && expect flip flip a && exits 49 "hlsnap_tool: verify: HLSNAP_ERR_DIGEST: " tool verify flip a &&
        [ "$(cat out)" = HLSNAP_ERR_DIGEST ] && exits 49 HLSNAP_ERR_DIGEST tool fsck flip && grep -qE '^HLSNAP_ERR_DIGEST  sha256:[0-9a-f]{12}  [ac]  blobs/sha256/' out && [ "$(tail -n 1 out)" = "1 problem" ] &&
        exits 49 HLSNAP_ERR_DIGEST tool diff --verify flip a b && exits 49 HLSNAP_ERR_DIGEST tool flatten flip a f && tool map flip a >/dev/null &&
        tool diff flip a made a >/dev/null # believes the digests
}
check "one bit" flipped
check "verify, with threads" says ok tool verify --threads 3 syn big
broken_json() { rm -rf bad && cp -r made bad && echo '{' >bad/index.json && exits 46 HLSNAP_ERR_JSON tool ls bad; }
check "an index that is none" broken_json
short_blob() {
    rm -rf bad && cp -r made bad && big=$(find bad/blobs -type f -size +500k) && truncate -s -4096 "$big" && exits 48 HLSNAP_ERR_SIZE tool verify bad a
}
check "a blob that is too short" short_blob
gone() { exits 47 HLSNAP_ERR_FILE tool inspect holes bad && exits 47 HLSNAP_ERR_FILE tool verify holes bad; }
check "a blob that is missing" gone
mutants() { # whatever it is given: inspect and verify end with what the text says, and print what can be printed
    format mutants mutants >verdicts && : >all || return 1
    while read -r name want; do
        got=$(timeout 20 ./hlsnap_tool verify --any-cpu "mutants/$name" m 2>err)
        status=$?
        [ "$status" -lt 64 ] || { echo "$name: exit $status"; return 1; }
        case $want in
        HLSNAP_OK) [ "$got" = ok ] || { echo "$name: $got, not ok"; return 1; } ;;
        HLSNAP_ERR_CPU | refused | either | "?") ;;
        *) [ "$got" = "$want" ] || [ "$got" = "$(echo "$want" | sed 's/_NOT_FOUND$/_FILE/')" ] || { echo "$name: $got, not $want"; return 1; } ;;
        esac
        timeout 20 ./hlsnap_tool inspect "mutants/$name" m >>all 2>&1
        if [ $? -ge 64 ]; then echo "inspect $name" && return 1; fi
    done <verdicts
    expect printable <all
}
check "damaged layouts, one by one" mutants

# ---- texts that are meant for the terminal ----
hostile() {
    for c in "ls evil" "ls evil --json" "ls evil --long" "inspect evil evil" "inspect evil evil --json" "map evil evil" "diff evil evil evil" \
        "inspect evil nope" "verify evil evil"; do
        # shellcheck disable=SC2086
        tool $c >out 2>&1
        expect printable <out || { echo "$c"; return 1; }
    done
    exits 2 "" tool "$(printf '\033[31mx')" && expect printable <err && exits 2 "" tool ls "$(printf -- '--\033[31m')" && expect printable <err
}
check "control codes do not get through" hostile
check "nor is JSON broken by them" lists evil
check "nor its texts" inspects evil evil
check "nor SVG" maps evil evil

# ---- progress ----
quiet() { tool verify syn big >out 2>err && cat err && [ ! -s err ]; }
bar() { # drawn, with rate and time left, and cleared
    expect terminal ./hlsnap_tool "$@" >bar || { cat bar; return 1; }
    cat bar
    grep -qE "$1 .* ?[0-9]+% \[#* *\] .*/s, [0-9]+:[0-9][0-9] left" bar && [ "$(tail -c 4 bar | od -An -tx1 | tr -d ' \n')" = 0d1b5b4b ]
}
check "no progress where there is no terminal" quiet
check "a bar on a terminal: verify" bar verify syn big
check "a bar on a terminal: flatten" bar flatten syn s1 flat
rises() { # rises WORDS COMMAND...: one bar for all that is done, one after the other
    words=$1
    shift
    expect terminal ./hlsnap_tool "$@" >bar
    cat -v bar
    # shellcheck disable=SC2086
    eval "expect rising $words" <bar
}
narrow() { # a bar is as wide as it may be, down to none
    for row in "80 ]..*left" "60 ]..*left" "50 ]..*left" "40 ]" "25 ]" "20 ]"; do
        expect resized "${row%% *}" ./hlsnap_tool verify syn big >bar && cat bar && grep -q "^verify .*${row#* }$" bar || return 1
    done
    expect resized 19 ./hlsnap_tool verify syn big >bar && [ "$(cat bar)" = ok ] && COLUMNS=30 expect resized 0 ./hlsnap_tool verify syn big && COLUMNS=x expect resized 80 ./hlsnap_tool verify syn big
}
resized() { # while it is drawn
    expect resized 80,30 ./hlsnap_tool flatten syn s1 flat >bar && cat bar && [ "$(grep -c '^flatten' bar)" -ge 2 ] &&
        expect resized 80,10 ./hlsnap_tool flatten syn s1 flat >bar && cat bar && [ "$(grep -c '^flatten' bar)" = 1 ]
}
check "one bar for two passes: flatten" rises "read write" flatten syn s1 flat
check "one bar for three: diff --verify" rises "'hash A' 'hash B' compare" diff --verify made a b
check "a bar on a narrow terminal" narrow
check "a bar on one that becomes narrower" resized
check "^C" exits 23 "" expect interrupted default ./hlsnap_tool verify syn big
check "^C of fsck" exits 23 "" expect interrupted default ./hlsnap_tool fsck syn
check "^C that is ignored" exits 0 "" expect interrupted ignored ./hlsnap_tool verify syn big
check "none on a dumb one" sh -c 'script -qec "TERM=dumb ./hlsnap_tool verify syn big" /dev/null >out 2>&1; [ "$(tr -d "\r" <out)" = ok ]'

# ---- standard output that is full, closed, or has had enough ----
check "a full disk" sh -c './hlsnap_tool ls syn >/dev/full 2>err; s=$?; cat err; [ $s = 11 ] && grep -q "standard output" err'
check "standard output closed" sh -c './hlsnap_tool ls syn >&- 2>err; s=$?; cat err; [ $s = 11 ]'
check "all closed: the layout is not written into" sh -c './hlsnap_tool tag syn s1 t1 <&- >&- 2>&-; ./hlsnap_tool fsck syn >/dev/null && ./hlsnap_tool verify syn t1'
check "a pipe that nobody reads" sh -c '(sleep 0.3; ./hlsnap_tool ls syn 2>err; echo $? >status) | true; sleep 0.3; cat err status; [ ! -s err ] && [ "$(cat status)" = 11 ]'
check "map -o a full disk" exits 11 "HLSNAP_ERR_OS: /dev/full: No space left" tool map syn s1 -o /dev/full
check "map -o nowhere" exits 11 HLSNAP_ERR_OS tool map syn s1 -o nowhere/m.svg

# ---- the store ----
changes() {
    rm -rf store && cp -r made store && says "" tool tag store b B.2 && says ok tool verify store B.2 &&
        tool rm store b | grep -q untagged && exits 3 HLSNAP_ERR_NOT_FOUND tool inspect store b && says ok tool verify store B.2 &&
        tool rm store B.2 >/dev/null && tool ls store | grep -q "^-  *sha256:" && says "0 bytes freed" tool gc store || return 1
    du -sb store/blobs >before
    freed=$(tool gc --grace 0 store) && du -sb store/blobs >after && echo "$freed" &&
        [ "${freed% bytes freed}" = $(($(cut -f1 before) - $(cut -f1 after))) ] && [ "${freed% bytes freed}" -gt 280000 ] &&
        says ok tool verify store a && says ok tool fsck store && [ "$(tool ls store | wc -l)" = 3 ]
}
check "tag, rm, gc, fsck" changes
graces() { # what is younger stays
    rm -rf store && cp -r made store && tool rm store b >out && touch -d "+1 second" store/blobs/sha256/* &&
        says "0 bytes freed" tool gc --grace 1ms store && touch store/blobs/sha256/* && sleep 2.1 || return 1 # not rounded to none
    for t in 1h 2m 1000 1d 1w 3600000ms 900s; do says "0 bytes freed" tool gc --grace "$t" store || { echo "$t"; return 1; }; done
    freed=$(tool gc --grace 1001ms store) && [ "${freed% bytes freed}" -gt 280000 ] || return 1
    for t in 1 1s 0m 0; do says "0 bytes freed" tool gc --grace "$t" store || { echo "$t"; return 1; }; done
}
check "gc --grace, with units" graces

future() { # said where it counts, and not where nothing is held back
    rm -rf store && cp -r made store && tool rm store b >out && find store/blobs -type f -exec touch -d "30 minutes" {} + &&
        tool gc store >out && grep -q "^[0-9]* blobs are dated in the future" out && [ "$(tail -n 1 out)" = "0 bytes freed" ] &&
        tool gc --grace 0 store >out && ! grep -q future out && ! grep -q "^0 bytes" out
}
check "gc of blobs from the future" future

same_json() { # same_json STATUS WANT COMMAND...: one JSON value on standard output, with these members
    want=$1 members=$2
    shift 2
    "$@" >out 2>err
    got=$?
    cat out err
    [ "$got" = "$want" ] && expect json "$members" <out
}
mended() { # mended HOW-MANY COMMAND...: fsck found as many, and repaired them
    many=$1
    shift
    "$@" >out 2>err || { cat out err; return 1; }
    cat out err
    [ ! -s err ] && [ "$(tail -n 1 out)" = "ok: $many, repaired" ] && [ "$(grep -c '  repaired: ' out)" = "${many%% *}" ]
}
tells() { # each problem once, whatever the order; those that cannot be mended stay
    rm -rf store && cp -r made store && g=$(expect damage store b manifest gone) && m=$(expect damage store a memory bad) &&
        echo x >store/blobs/sha256/notes.txt && echo x >"store/blobs/sha256/$(printf '%064d' 7)" && rm store/oci-layout &&
        m=${m##*/} g=${g##*/} || return 1
    for threads in 1 3; do
        exits 47 "hlsnap_tool: fsck: HLSNAP_ERR_FILE: store: hlsnap_oci_fsck_with: oci-layout" tool fsck --threads $threads store &&
            [ "$(wc -l <out)" = 6 ] && [ "$(tail -n 1 out)" = "5 problems" ] && grep -q "^HLSNAP_ERR_FILE  -  -  oci-layout" out &&
            grep -q "^HLSNAP_ERR_DIGEST  sha256:$(echo "$m" | cut -c1-12)  [ac]  blobs/sha256/$m: " out &&
            grep -q "^HLSNAP_ERR_FILE  sha256:$(echo "$g" | cut -c1-12)  b  " out && grep -q "notes.txt: no blob's name$" out &&
            grep -q "^HLSNAP_ERR_DIGEST  sha256:000000000000  -  blobs" out || return 1
    done
    same_json 47 '{"found":5,"repaired":0,"ok":false,"error":"HLSNAP_ERR_FILE","status":47,"problems":[{"error":"HLSNAP_ERR_FILE","tag":"","digest":"","repaired":false,"status":47},{"tag":"b","digest":"sha256:'"$g"'"},{},{},{}]}' \
        tool fsck --json --threads 1 store && { tool fsck --json-lines store 2>err; [ $? = 47 ]; } >out && [ "$(wc -l <out)" = 6 ] &&
        tail -n 1 out >last && expect json '{"found":5,"repaired":0,"ok":false,"status":47}' <last && head -n 1 out >first && expect json '{"status":47,"repaired":false}' <first &&
        exits 2 "--json and --json-lines" tool fsck --json --json-lines store && exits 47 "" tool fsck --repair store &&
        [ "$(tail -n 1 out)" = "5 problems, 2 of them repaired" ] && [ "$(tool fsck store 2>err | tail -n 1)" = "3 problems" ]
}
repaired() { # a blob that nobody needs, and whose name is not its sha256
    rm -rf store && cp -r made store && echo x >"store/blobs/sha256/$(printf '%064d' 7)" && exits 49 HLSNAP_ERR_DIGEST tool fsck store &&
        mended "1 problem" tool fsck --repair store && says ok tool fsck store
}
check "fsck --repair" repaired
worst() { # the status is not that of what is merely too large to be read, though that stands first
    rm -rf store && cp -r made store && expect damage store a memory bad >out && python3 -c '
import json
index = json.load(open("store/index.json"))
index["manifests"].insert(0, {"mediaType": "a/b", "digest": "sha256:" + "7" * 64, "size": 40 << 30})
json.dump(index, open("store/index.json", "w"))' && truncate -s 40G "store/blobs/sha256/$(printf '%064d' 0 | tr 0 7)" &&
        exits 49 "hlsnap_tool: fsck: HLSNAP_ERR_DIGEST: " tool fsck store && head -n 1 out | grep -q "^HLSNAP_ERR_LIMIT  "
}
check "fsck names all problems" tells
check "fsck: the status of the worst" worst
verifies_all() { # a line for each snapshot, whatever its tags; the worst one's status
    rm -rf two && cp -r made two && tool tag two a again && tool verify --all two >out 2>err && cat out err && [ ! -s err ] &&
        cut -d' ' -f1-3 out | xargs >lines && sed 's/^\(.\{19\}\).*/ok \1/' digests | xargs | cmp - lines && grep -q '^ok  .*  a, again$' out ||
        return 1
    format write two odd --features zz_unknown && rm -f two/blobs/sha256/x &&
        exits 52 "two: hlsnap_oci_load" tool verify --all two && [ "$(grep -c ^ok out)" = 3 ] &&
        grep -q "^HLSNAP_ERR_CPU  sha256:[0-9a-f]*  odd$" out &&
        tool verify --all --any-cpu two >/dev/null && expect damage two c config bad && exits 49 "" tool verify --all two &&
            [ "$(grep -c ^ok out)" = 2 ] && grep -q "^HLSNAP_ERR_DIGEST .*  c$" out && grep -q "^HLSNAP_ERR_CPU" out || return 1
    ok='{"ok":true,"tags":["a","again"],"error":null},{"ok":true,"tags":["b"]}'
    bad='{"ok":false,"tags":["c"],"error":"HLSNAP_ERR_DIGEST","status":49},{"ok":false,"status":52}'
    same_json 49 "[$ok,$bad]" tool verify --all --json two &&
        exits 2 "too many" tool verify --all two a && exits 2 "too few" tool verify two &&
            exits 3 "HLSNAP_ERR_NOT_FOUND: nowhere" tool verify --all nowhere
}
check "verify --all" verifies_all
usage() { tool du "$1" --json >out && expect du "$1" <out; }
usages() {
    rm -rf two && cp -r made two && tool tag two a again && tool rm two c >out && echo x >two/blobs/sha256/stray && usage two &&
        usage syn && usage made || return 1
    tool du two >out && cat out && grep -qE "^ *[0-9.]+ KiB  *[0-9.]+ KiB  *[0-9.]+ KiB  sha256:[0-9a-f]{12}  a, again$" out &&
        grep -qE "^[0-9.]+ [KM]iB in [0-9]+ blobs; [0-9.]+ [KMGi]*B of it some snapshot's own$" out && tool du holes >out &&
        grep -q "^ *?  *?  *?  sha256:[0-9a-f]*  HLSNAP_ERR_FILE: bad$" out
}
check "du" usages
pruned() { # pruned LEFT OPTION...: of `dated`, and --dry-run says the same and does nothing
    left=$1
    shift
    rm -rf two && cp -r dated two && before=$(tags_of two) && tool prune --dry-run "$@" two >would &&
        [ "$(tags_of two)" = "$before" ] && tool prune "$@" two >out && cat out &&
        [ "$(sed -n 's/^would untag /untagged /p' would)" = "$(sed -n '/^untagged/p' out)" ] || return 1
    got=$(tool ls two --json-lines --tagged | sed -n 's/.*"tag":"\([^"]*\)".*/\1/p' | xargs)
    [ "$got" = "$left" ] || { echo "$*: $got left, not $left"; return 1; }
}
prunes() { # oldest first; what does not say when is older than what does, but --older-than leaves it alone; nothing but tags goes
    pruned "" --keep-last 0 && pruned "manifest overruled min10 h1 day1 ahead" --keep-last 6 && pruned "$dated" --keep-last 18 &&
        pruned "$dated" --keep-last 99 &&
        pruned "overruled min10 ahead none date local space tail feb30 dot old month13 h24 zone24" --older-than 30m &&
        pruned "manifest overruled min10 h1 day1 ahead none date local space tail feb30 dot old month13 h24 zone24" \
            --older-than 2d --keep-last 3 &&
            pruned "$dated" --older-than 30m --keep-last 7 &&
        pruned "manifest overruled min10 h1 week1 ahead none local space tail feb30 old month13 h24 zone24" \
            --match 'd*' --keep-last 0 &&
            [ "$(sed -n 's/^untagged \([a-z0-9]*\) .*/\1/p' out | xargs)" = "date dot day1" ] || return 1
    exits 2 "--keep-last or --older-than must say which" tool prune two && exits 2 "" tool prune --match 'x*' two &&
        [ "$(wc -l <two/index.json)" = "$(wc -l <dated/index.json)" ] || return 1
    rm -rf two && cp -r made two && sed -i 's/"b"/"a"/' two/index.json && tool prune two --keep-last 0 && [ "$(tags_of two)" = "" ]
}
# At least what gc then frees, and all of it where nothing is shared by those that go alone; of what cannot be read the tag stays.
frees() {
    rm -rf two && cp -r made two && tool tag two a again &&
        least=$(tool prune --keep-last 1 --match '[abc]' two | sed -n 's/^gc frees at least \(.*\) bytes$/\1/p') &&
        freed=$(tool gc --grace 0 two) && [ "$least" -gt 0 ] &&
        [ "${freed% bytes freed}" -ge "$least" ] && [ "$(tags_of two)" = "again c" ] || return 1
    rm -rf two && cp -r made two &&
        least=$(tool prune --keep-last 0 --match b --dry-run two | sed -n 's/^gc would free at least \(.*\) bytes$/\1/p') &&
        [ "$(tool prune --keep-last 0 --match b --gc --grace 0 two | tail -n 1)" = "$least bytes freed" ] &&
            says ok tool fsck two || return 1
    rm -rf two && cp -r made two &&
        same_json 0 '{"dry_run":true,"untagged":[{"tag":"a","digest":"'"$a"'"}]}' tool prune --json --dry-run --keep-last 2 two &&
        same_json 0 '{"dry_run":false,"freed_bytes":0}' tool prune --json --gc --keep-last 2 two &&
        [ "$(tags_of two)" = "b c" ] && rm -rf two && cp -r holes two && tool prune --keep-last 0 two && [ "$(tags_of two)" = bad ]
}
check "prune" prunes
check "prune: what gc frees" frees
in_json() { # what all other commands say
    rm -rf store && cp -r made store && d='"digest":"'$a'"'
    same_json 0 '{"ref":"a","ok":true,"error":null,"status":0}' tool verify --json store a &&
        same_json 3 '{"ok":false,"error":"HLSNAP_ERR_NOT_FOUND","status":3}' tool verify --json store x &&
        same_json 0 '{"ok":true}' tool fsck --json store &&
        same_json 0 "{\"tag\":\"n\",$d}" tool tag --json store a n &&
            same_json 0 '{"untagged":["n","b"]}' tool rm --json store n b &&
            same_json 0 '{"freed_bytes":0}' tool gc --json store &&
            same_json 0 "{\"file\":\"m.svg\",$d}" tool map --json -o m.svg store a &&
        exits 2 "--json needs -o FILE" tool map --json store a && same_json 0 '{"tag":"f"}' tool flatten --json store a f &&
            echo x >"store/blobs/sha256/$(printf '%064d' 7)" &&
            same_json 49 '{"ok":false,"error":"HLSNAP_ERR_DIGEST","status":49}' tool fsck --json store
}
check "--json of the others" in_json
lacking() { # the name of a feature that this CPU has not
    for f in $(expect features); do
        rm -rf odd && format write odd f --layers 3 --features "$f" >/dev/null && ! tool verify odd f >out 2>&1 && echo "$f" &&
            return
    done
    return 1
}
flattens_any() {
    exits 52 HLSNAP_ERR_CPU tool flatten odd f one && tool flatten --any-cpu odd f one &&
        tool inspect odd one --json | grep -q '"cpu_has_features":false' && says ok tool verify --any-cpu odd one &&
        tool diff odd f one >out
}
if lacking >/dev/null; then check "flatten --any-cpu" flattens_any; else skip "flatten --any-cpu" "this CPU has all features"; fi
# ---- to other layouts, and archives ----
b=$(sed -n 2p digests)
whole_copy() { # whole_copy DIR REF DIGEST: it is there, sound, and what it was
    says ok tool fsck "$1" && says ok tool verify "$1" "$2" && tool inspect --json "$1" "$2" | grep -q "^{\"digest\":\"$3\",$" &&
        [ -z "$(find . -maxdepth 2 -name '.hlsnap-*')" ]
}
copies() {
    rm -rf new && says "$b" tool copy made b new && whole_copy new b "$b" && says "$a" tool copy made a new other &&
        whole_copy new other "$a" && [ "$(tags_of new)" = "b other" ] || return 1
    rm -rf new && says "$b" tool copy "made:$b" new:x && whole_copy new x "$b" && says "$a" tool copy made "$short" new &&
        tool ls new | grep -q "^-  *$(echo "$a" | cut -c1-19)" &&
        same_json 0 '{"tag":null,"digest":"'"$a"'"}' tool copy --json made "$short" new &&
        same_json 0 '{"tag":"y","digest":"'"$a"'"}' tool copy --json made:a new:y &&
            exits 3 "HLSNAP_ERR_NOT_FOUND: hlsnap_oci_copy: made: index.json: no tag 'n'" tool copy made n there &&
            exits 7 HLSNAP_ERR_LIMIT tool copy --max-bytes 4K made a there && [ ! -e there ] &&
        exits 49 "hlsnap_oci_copy: flip: " tool copy flip a there && [ ! -e there ] &&
            exits 2 "--max-bytes 1X: not a number of bytes" tool copy --max-bytes 1X made a there || return 1
    format write odd2 f --features zz_unknown >/dev/null && rm -rf new && tool copy odd2 f new &&
        says ok tool verify --any-cpu new f && bar copy syn big new
}
check "copy" copies
archives() { # the same bytes each time; other tools read it
    rm -rf new x.tar y.tar && says "$b" tool export made b x.tar && tool export made:b - >y.tar && cmp x.tar y.tar &&
        tool copy made a new z && tool copy made b new && sleep 1.1 && (umask 077 && tool export new b y.tar) && cmp x.tar y.tar &&
        [ "$(stat -c %a x.tar)" = 600 ] && [ "$(tar tf x.tar | grep -cv ^blobs)" = 2 ] &&
            (TAR_OPTIONS=--wrong tool export made b y.tar) && cmp x.tar y.tar && says "$b" tool import x.tar there &&
            whole_copy there b "$b" || return 1
    exits 3 "no tag 'n'" tool export made n x.tar && cmp x.tar y.tar &&
        exits 11 "nowhere/x.tar: No such file" tool export made a nowhere/x.tar && exits 11 "" tool export made a /dev/full &&
        [ -c /dev/full ] && exits 2 "standard output" tool export --json made a - &&
        same_json 0 '{"tag":"a","digest":"'"$a"'"}' tool export --json made a z.tar && ln -sf y.tar link.tar &&
            tool export made a link.tar && [ -L link.tar ] && cmp y.tar z.tar && tool export made "$a" untagged.tar &&
            rm -rf there && says "$a" tool import untagged.tar there &&
        tool ls there | grep -q '^- ' && [ -z "$(find . -maxdepth 1 -name '.hlsnap-*')" ]
}
imports() { # what is asked for of several; what is too much; from a pipe
    rm -rf there many.tar && tar cf many.tar -C made blobs index.json oci-layout &&
        exits 42 "many.tar: several snapshots" tool import many.tar there && [ ! -e there ] &&
        says "$b" tool import --ref b many.tar there && whole_copy there b "$b" &&
        says "$a" tool import --ref "$short" many.tar there:t && exits 3 "no tag 'n'" tool import --ref n many.tar there &&
            exits 7 "more than 4096 bytes" tool import --max-bytes 4K x.tar there && rm -rf there &&
            says "$b" tool import - there <x.tar &&
        says "$b" tool import - there n <x.tar && [ "$(tags_of there)" = "b n" ] &&
            exits 11 "nofile: No such" tool import nofile there && exits 47 "nowhere/there" tool import x.tar nowhere/there
}
hostile_archives() { # each with the status that tests/tool_check.py gives it; nothing lands elsewhere, nothing stays
    rm -rf one arch && tool copy made b one >/dev/null && expect archives one arch >list || return 1
    while read -r name status; do
        rm -rf there && timeout 20 ./hlsnap_tool import "arch/$name" there >out 2>err
        got=$?
        [ "$name" != above ] || [ "$got" != 0 ] || status=0 # tar may leave it out, or refuse all
        [ "$got" = "$status" ] || { echo "$name: exit $got, not $status" && cat err; return 1; }
        if [ "$got" = 0 ]; then whole_copy there b "$b" ||
            { echo "$name"; return 1; }; elif [ -e there ]; then echo "$name: there" && return 1; fi
        [ -z "$(find . .. /tmp -maxdepth 1 \( -name 'hlsnap-tool-outside' -o -path './.hlsnap-*' \))" ] ||
            { echo "$name left something"; return 1; }
    done <list
    [ "$(wc -l <list)" -ge 20 ]
}
no_leftovers() { [ -z "$(find . -maxdepth 1 -name '.hlsnap-*')" ] && [ ! -e "$1" ]; }
interrupts() { # by ^C and by SIGTERM, while bytes are copied and while tar waits for more: no file, no directory stays
    rm -rf there e.tar big.tar fifo && exits 23 "" expect interrupted default ./hlsnap_tool export syn big e.tar &&
        no_leftovers e.tar && tool export syn big big.tar &&
        exits 23 "" expect interrupted default ./hlsnap_tool import big.tar there && no_leftovers there || return 1
    for signal in TERM INT HUP; do
        rm -f fifo && mkfifo fifo && { (head -c 200000 big.tar; exec sleep 600) >fifo & writer=$!; } &&
            expect started "$signal" ./hlsnap_tool import - there <fifo >out 2>err
        got=$?
        kill "$writer"
        cat err
        if [ "$got" != 23 ] || ! no_leftovers there; then echo "$signal: exit $got" && return 1; fi
    done
}
if tar --version 2>/dev/null | grep -q GNU; then
    check "export" archives
    check "import" imports
    check "import: hostile archives" hostile_archives
    check "export and import end by signals" interrupts
    no_tar() { exits 6 "the program tar: No such file" env PATH=/nowhere ./hlsnap_tool export made a n.tar && no_leftovers n.tar; }
    check "export without tar" no_tar
else skip "export and import" "no GNU tar"; fi
by_skopeo() { # both ways
    rm -rf sk.tar there sk && skopeo copy -q oci-archive:x.tar:b oci:sk:b && whole_copy sk b "$b" &&
        skopeo copy -q oci:made:b oci-archive:sk.tar:b && says "$b" tool import sk.tar there && whole_copy there b "$b"
}
if command -v skopeo >/dev/null; then check "an archive that skopeo reads, and one of its own" by_skopeo
else skip "archives and skopeo" "no skopeo"; fi

# ---- docs/tool.md "When something is damaged": what it says mends it, mends it ----
damages() { # damages COMMAND...: with each kind of damage to `one` in store, by $b, $part and $how
    for part in manifest config memory chunks; do
        for how in gone bad short; do
            rm -rf store && cp -r whole store && b=$(expect damage store one "$part" "$how") || return 1
            if tool fsck store >out 2>err || ! "$@"; then echo "$part $how" && cat out err && return 1; fi
        done
    done
}
saved_again() { tool flatten store l one >out && says ok tool fsck store && says ok tool verify store one; }
copied_again() { # what is there and wrong, skopeo takes for right
    rm -f "$b" && skopeo copy -q oci:whole:one oci:store:one && says ok tool fsck store && says ok tool verify store one
}
given_up() {
    [ "$part" != manifest ] || ! tool gc --grace 0 store >out 2>err || return 1 # what it leads to is not known
    tool rm store one >out && tool gc --grace 0 store >out && says ok tool fsck store && says ok tool verify store l
}
elsewhere() { # with a manifest beside it that is wrong
    rm -rf store moved && cp -r whole store && expect damage store one manifest bad && skopeo copy -q oci:store:l oci:moved:l && says ok tool fsck moved && says ok tool verify moved l
}
whole() { rm -rf whole && format write whole l --seed 11 --layers 4 && tool flatten whole l one && says ok tool fsck whole; }
stray() { # nobody's: in the way of nothing but fsck
    rm -rf store && cp -r made store && echo x >store/blobs/sha256/notes.txt && exits 47 "notes.txt: no blob's name" tool fsck --repair store && says "0 bytes freed" tool gc --grace 0 store &&
        says ok tool verify store a && rm store/blobs/sha256/notes.txt && says ok tool fsck store
}
repairs() { # oci-layout, a link in the place of a blob that nobody needs, what killed writers left
    rm -rf store && cp -r made store && rm store/oci-layout && ln -s /etc/passwd "store/blobs/sha256/$(printf '%064d' 7)" && mkdir store/.hlsnap-tmp &&
        echo x >store/.hlsnap-0123abcd.tmp && echo x >store/.hlsnap-tmp/.hlsnap-4567.tmp && exits 47 oci-layout tool fsck store && mended "2 problems" tool fsck --repair store && says ok tool verify store a &&
        [ "$(find store -name '.hlsnap-*' -o -type l)" = "" ] && echo '{"imageLayoutVersion":"2.0.0"}' >store/oci-layout && exits 40 LAYOUT tool fsck --repair store &&
        rm store/oci-layout && mended "1 problem" tool fsck --repair store
}
tagged_twice() {
    rm -rf store && cp -r made store && sed -i 's/"b"/"a"/' store/index.json && exits 42 AMBIGUOUS tool verify store a && exits 42 AMBIGUOUS tool fsck store && tool rm store a >out && tool tag store "$a" a && says ok tool verify store a
}
index_gone() { # the blobs are still there, and fsck names them again; nothing else does
    rm -rf store && cp -r whole store && echo '{' >store/index.json && exits 46 HLSNAP_ERR_JSON tool fsck --repair store && rm store/index.json && exits 47 index.json tool ls store &&
        exits 47 "lost: there is none" tool copy made:a store && exits 47 "lost: there is none" tool gc --grace 0 store && tool fsck --repair store >out &&
        back=$(tool ls store | sed -n 's/^\(recovered-[0-9a-f]*\) .*/\1/p' | head -n 1) && [ -n "$back" ] && tool tag store "$back" one && says ok tool verify store one
}
if whole >"$build/check.log" 2>&1; then
    check "damage: saved again" damages saved_again
    check "damage: given up" damages given_up
    if command -v skopeo >/dev/null; then
        check "damage: copied again" damages copied_again
        check "damage: the others copied elsewhere" damages elsewhere
    else skip "damage: copies" "no skopeo"; fi
    check "damage: the index" index_gone
else fail "a layout to damage"; fi
check "damage: a stray file" stray
check "damage: what fsck --repair does" repairs
check "damage: a tag listed twice" tagged_twice
flattened() {
    rm -rf store && cp -r syn store && digest=$(tool flatten store l one) && [ "$(tool ls --json store | grep '"one"' | grep -c '"layers":1}')" = 1 ] &&
        [ "$(tool inspect --json store one | sed -n 's/.*"digest":"\([^"]*\)".*/\1/p' | head -n 1)" = "$digest" ] && differs 0 store l store one &&
        [ "$digest" = "$(format write flat l --seed 11 --layers 40 --flat)" ]
}
check "flatten" flattened
moved() { # by other tools, and back
    rm -rf moved && skopeo copy -q oci:made:b dir:moved.dir && skopeo copy -q dir:moved.dir oci:moved:b && tool ls moved && inspects moved b &&
        says ok tool verify moved b && differs 0 made b moved b && maps moved b
}
if command -v skopeo >/dev/null; then check "a layout that went through skopeo" moved; else skip "a layout that went through skopeo" "no skopeo"; fi

# ---- run ----
problem=$(kvm_problem)
if [ -n "$problem" ]; then skip "run" "$problem" && finish; fi
cc=${CC:-cc}
made() {
    "$cc" -O2 -DHLSNAP_GUEST -ffreestanding -nostdlib -static -I"$top" "$top/tests/guest_kvm.c" -o guest_kvm.elf &&
        "$cc" -std=c11 -O1 -Wall -Wextra -I"$top" "$top/tests/tool_make.c" -o tool_make -lcjson && ./tool_make kvm guest_kvm.elf
}
check "a layout of a real guest" made
[ -d kvm ] || finish
same_as() { # same_as WANT FUNCTION ARG...
    want=$1
    shift
    says "$want" tool run kvm delta "$@" || { echo "$*"; return 1; }
}
values() {
    same_as true echo_bool true && same_as false echo_bool false && same_as -2147483648 echo_i32 -2147483648 && same_as 2147483647 echo_i32 0x7fffffff &&
        same_as -1 echo_i32 -0x1 && same_as 4294967295 echo_u32 4294967295 && same_as -9223372036854775808 echo_i64 -9223372036854775808 &&
        same_as 9223372036854775807 echo_i64 9223372036854775807 && same_as 18446744073709551615 echo_u64 0xFFFFFFFFFFFFFFFF && same_as 0.100000001 echo_f32 0.1 &&
        same_as 0.10000000000000001 echo_f64 0.1 && same_as inf echo_f64 inf && same_as 4.9406564584124654e-324 echo_f64 5e-324 && same_as "" echo_str "" &&
        same_as "--json" echo_str --json && same_as "ä € 😀" echo_str "ä € 😀" && same_as 00ffabcd echo_bytes 00ffAbCd &&
        same_as "" echo_bytes "" && same_as "" nop && same_as "1 -2 3 -4 5 0.5 0.25 [six] 2 fe" mixed true -2 3 -4 5 .5 0.25 six 01fe
}
files() {
    head -c 20000 /dev/urandom >bytes && tool run --raw kvm base echo_bytes @bytes | cmp - bytes &&
        [ "$(tool run kvm base echo_bytes @bytes)" = "$(od -An -v -tx1 bytes | tr -d ' \n')" ] && exits 11 "nofile: No such file" tool run kvm base echo_bytes @nofile
}
refused() {
    for row in "echo_bool 1" "echo_i32 2147483648" "echo_i32 -2147483649" "echo_i32 1.5" "echo_i32 0x" "echo_i32 +1" "echo_u32 -1" "echo_u32 4294967296" \
        "echo_i64 9223372036854775808" "echo_u64 18446744073709551616" "echo_f32 1e39" "echo_f64 1e309" "echo_f64 1x" "echo_bytes 0" "echo_bytes 0g" \
        "echo_i32" "echo_i32 1 2" "nop 1" "mixed true"; do
        # shellcheck disable=SC2086
        exits 4 HLSNAP_ERR_SIGNATURE tool run kvm base $row || { echo "$row"; return 1; }
    done
    exits 4 HLSNAP_ERR_SIGNATURE tool run kvm base echo_i32 "" && exits 4 HLSNAP_ERR_SIGNATURE tool run kvm base echo_f64 " 1"
}
fails() {
    exits 3 "no 'nope'" tool run kvm base nope && exits 20 "HLSNAP_ERR_FUNCTION: fail: oh (code -7)" tool run kvm base fail -7 oh && exits 21 HLSNAP_ERR_FAULT tool run kvm base fault 1 0 &&
        exits 22 HLSNAP_ERR_ABORT tool run kvm base abort 5 bye && exits 24 HLSNAP_ERR_TIMEOUT timeout 20 ./hlsnap_tool run --timeout 200 kvm base spin 99999999999999 &&
        exits 2 "no option --nope" tool run --nope kvm base nop
}
host() { exits 20 "called its host's host_i32 i32(i32)" tool run kvm base pass_i32 5; }
logs() {
    tool run kvm base log 2 "$(printf 'a\033[31mb')" >out 2>err && cat err && [ ! -s out ] && grep -q '^guest: warning: a' err && expect printable <err &&
        tool run kvm base echo_str "$(printf 'a\033[31mb\302\233')" >out && expect printable <out && [ "$(tool run --raw kvm base echo_str "$(printf 'a\033b')" | od -An -tx1 | tr -d ' ')" = 611b62 ]
}
forged() { # no line that a guest says passes for one of the tool's, whatever its level
    for level in 0 1 2 3 4; do
        tool run kvm base log "$level" "$(printf 'debug: fine\nhlsnap_tool: run: HLSNAP_ERR_FAULT: x\n\n\rhlsnap_tool: y')" >out 2>err && cat err && [ -s err ] && ! grep -qv '^guest: ' err || return 1
    done
    tool run kvm base log 2 "a
" >out 2>err && cat err && grep -q '^guest: warning: a' err && [ "$(wc -l <err)" = 1 ]
}
memory() { # of base and delta; tests/tool_make.c says what it changed
    differs 1 kvm base kvm delta >said && cat said && grep -q "differ 7 only" said && inspects kvm delta && maps kvm delta && lists kvm && says ok tool verify kvm delta &&
        tool flatten kvm delta flat >/dev/null && differs 0 kvm delta kvm flat && says 5 tool run kvm flat echo_i32 5
}
gives() { # gives JSON FUNCTION ARG...
    want=$1
    shift
    same_json 0 "$want" tool run --json kvm:delta "$@" || { echo "$*"; return 1; }
}
in_json_too() { # values as JSON has them; what it has not is a string
    gives '{"type":"bool","result":true}' echo_bool true && gives '{"type":"i32","result":-5}' echo_i32 -5 &&
        gives '{"type":"u32","result":4294967295}' echo_u32 4294967295 && gives '{"type":"i64","result":"-9"}' echo_i64 -9 &&
        gives '{"type":"u64","result":"18446744073709551615"}' echo_u64 18446744073709551615 &&
        gives '{"type":"f64","result":0.1}' echo_f64 0.1 && gives '{"type":"f64","result":"inf"}' echo_f64 inf &&
        gives '{"type":"f32","result":"nan"}' echo_f32 nan && gives '{"type":"void","result":null}' nop &&
        gives '{"type":"str","result":"a\"\u001b"}' echo_str "$(printf 'a"\033')" && gives '{"type":"bytes","result":"00ff"}' echo_bytes 00ff
}
check "run --json" in_json_too
damaged() { rm -rf bad && cp -r kvm bad && expect flip bad base && exits 49 HLSNAP_ERR_DIGEST tool run bad base nop; }
check "run: values of all types" values
check "run: bytes of files" files
check "run: values that are none" refused
check "run: what fails, fails as the library says" fails
check "run: a host function that is not there" host
check "run: the guest's log, and its strings" logs
check "run: the guest's log forges no line" forged
check "run: nothing of a damaged snapshot" damaged
check "a base and its delta" memory

# ---- maps: tests/tool_make.c says which, and what was changed ----
model=0x7f0000000000 patch=0x7f0000200000 shared=0x7f0000400000 extra=0x7f0000600000 table=0x7f0000800000 work=0x7f0000a00000
digest_of() { sha256sum <"$1" | cut -c1-64; }
sum() { python3 -c 'import sys; print(sum(sys.stdin.buffer.read()))' <"$1"; }
mapped() { # files that are no whole pages, a page of zeros in one of them
    rm -rf given kept maps && mkdir given && python3 -c '
for name, size in ("model", 12388), ("patch", 1228900), ("shared", 4096), ("extra", 5000), ("table", 24576), ("work", 20480):
    data = bytearray((i * 31 + i // 4096 + len(name)) % 255 + 1 for i in range(size))
    if name == "table":
        data[12288:16384] = bytes(4096)
    open("given/" + name, "wb").write(data)' && ./tool_make maps guest_kvm.elf given "sha256:$(digest_of given/model)" && cp -r given kept
}
with() { tool run --map model=given/model --map patch=given/patch --map shared=given/shared "$@"; }
gives_maps() { # those that are demanded, optional, captured, and one that nobody asked for; and what becomes of the files
    says $((model)) with maps one map model false && says 12388 with maps:one map model true &&
        says "$(sum given/model)" with maps one pages 0 $model 12388 1 0 && says "$(sum given/extra)" with --map x=given/extra maps one pages 0 0x7f0000c00000 5000 1 0 &&
        says "$(sum given/table)" with maps one pages 0 $table 24576 1 0 && says 0 with maps one map extra false &&
        says $((extra)) with --map extra=given/extra maps one map extra false && says 24576 with --map x=given/table maps one map x true || return 1
    tail -c +4097 given/work >rest && says $((97 * 4096 + $(sum rest))) with maps one pages 0 $work 20480 1 0 || return 1
    says 7 with maps one poke $patch 7 1 && cmp given/patch kept/patch && exits 21 HLSNAP_ERR_FAULT with maps one poke $model 7 1 && cmp given/model kept/model &&
        exits 21 HLSNAP_ERR_FAULT with --map x=given/extra maps one poke 0x7f0000c00000 7 1 &&
        cmp given/extra kept/extra && cmp given/shared kept/shared && same_json 0 '{"type":"u64","result":"65"}' with --json maps one poke $shared 65 1 &&
        [ "$(head -c 1 given/shared)" = A ] && tail -c +2 given/shared >rest && tail -c +2 kept/shared | cmp - rest && says 65 with maps one pages 0 $shared 1 1 0
}
patched() { # pages of the file, and those that the snapshot has instead: 1, 2 and 6
    for page in 0 3 4 5 7; do tail -c +$((page * 4096 + 1)) given/patch | head -c 4096; done >rest
    says $(($(sum rest) + 3 * 97 * 4096)) with maps one pages 0 $patch 32768 1 0 && tail -c +1228801 given/patch >rest &&
        says "$(sum rest)" with maps one pages 0 0x7f000032c000 4096 1 0
}
lacks_maps() { # every one that is missing or wrong is named; a file is what it is, whatever is asked for
    exits 5 "maps: model (read, 12388 bytes) is missing; patch (private, 1228900 bytes) is missing; shared (shared, 4096 bytes) is missing; --map NAME=PATH" tool run maps one nop &&
        exits 5 "CONTRACT: maps: shared (shared, 4096 bytes) is missing; --map" tool run --map model=given/model --map patch=given/patch maps one nop &&
        exits 5 "maps: patch (private, 1228900 bytes) is missing; shared" tool run --map model=given/model --map patches=given/patch maps one nop || return 1
    head -c 12387 given/model >odd.file && exits 5 "maps: model is read of 12387 bytes, not read of 12388" with_odd model && ! grep -q -- "--map" err &&
        { cat given/patch given/patch; } | head -c 1232896 >odd.file && exits 5 "patch is private of 1232896 bytes, not private of 1228900" with_odd patch &&
        cat given/shared given/shared >odd.file && exits 5 "shared is shared of 8192 bytes, not shared of 4096" with_odd shared || return 1
    { printf x && tail -c +2 given/model; } >odd.file && ! cmp -s odd.file given/model && with_odd model 2>err
    [ $? = 5 ] && cat err && grep -qF "maps: model has the digest sha256:$(digest_of odd.file | cut -c1-12), not sha256:$(digest_of given/model | cut -c1-12)" err &&
        says "$(sum odd.file)" tool run --map more=given/extra --map model=odd.file maps other pages 0 $model 12388 1 0
}
with_odd() { # with_odd NAME: given/NAME's place is odd.file's
    set -- "$1" --map "$1=odd.file"
    for name in model patch shared; do [ "$name" = "$1" ] || set -- "$@" --map "$name=given/$name"; done
    shift
    timeout 20 ./hlsnap_tool run "$@" maps one nop
}
no_maps() { # what is no file, or no map
    rm -rf odd.file && exits 11 "map 'model': odd.file: no such file" with_odd model && mkdir odd.file && exits 2 "map 'model': odd.file is no regular file" with_odd model &&
        rmdir odd.file && mkfifo odd.file && exits 2 "odd.file is no regular file" with_odd model && exits 2 "odd.file is no regular file" with_odd shared &&
        rm odd.file && : >odd.file && exits 2 "map 'x': 0 bytes from 0 on of a file of 0" with --map x=odd.file maps one nop &&
        exits 11 "map 'x': : no such file" with --map x= maps one nop && exits 2 "map name '1x' is not" with --map 1x=given/extra maps one nop || return 1
    long=$(printf 'm%063d' 1)
    exits 2 "too long a name" with --map "$long=given/extra" maps one nop && says $((0x7f0000c00000)) with --map "${long%?}=given/extra" maps one map "${long%?}" false &&
        exits 8 "map 'model' is there already" with --map model=given/model maps one nop &&
        exits 5 "--map table: the snapshot has this map in its layers" with --map table=given/table maps one nop || return 1
    set --
    for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17; do
        set -- "$@" --map "m$i=given/extra"
        if [ "$i" = 10 ]; then says 5000 with "$@" maps one map m10 true || return 1; fi
        if [ "$i" = 11 ]; then exits 7 "17 maps with the snapshot's, at most 16" with "$@" maps one nop || return 1; fi
        if [ "$i" = 16 ]; then says 5000 tool run "$@" kvm base map m16 true || return 1; fi
    done
    exits 7 "more than 16 maps" tool run "$@" kvm base nop
}
shows_maps() { # to people, and in JSON
    for tag in one two three other; do inspects maps $tag && maps maps $tag || { echo $tag; return 1; }; done
    tool inspect maps one >out && cat out && tr -s ' ' <out >lines && grep -qx "MAP MODE SOURCE GVA SIZE STORED DIGEST" lines &&
        grep -qx "model read host $model 12388 0 sha256:$(digest_of given/model)" lines && grep -qx "patch private host $patch 1228900 3 -" lines &&
        grep -qx "shared shared host $shared 4096 0 -" lines && grep -qx "extra read optional $extra 5000 0 -" lines &&
        grep -qx "table read layers $table 24576 6 -" lines && grep -qx "work private layers $work 20480 5 -" lines &&
        grep -q "^memory .* stored (.*); of maps 14 (56.0 KiB)$" lines || return 1
    tool inspect kvm base >out && ! grep -q "^MAP\|of maps" out && tool inspect --json kvm base | grep -qx '"maps":\[\],' && ! tool map kvm base | grep -q "what the host gives" &&
        tool map maps one | grep -q "what the host gives"
}
compares_maps() { # pages that one has changed, both have changed, to the same and to others; captured ones; what maps are
    differs 1 maps one maps two >said && cat said && grep -q "differ 295 only 0 0 ranges 5$" said && differs 1 maps two maps one && differs 1 maps one maps three &&
        differs 1 maps two maps three >said && cat said && differs 0 maps one maps one && differs 1 maps one maps other && differs 1 maps other maps two || return 1
    { tool diff maps two three >out; [ $? = 1 ]; } && cat out && tr -s ' ' <out >lines && grep -qx "map patch $patch 299 2 0 0" lines &&
        grep -qx "map work $work 3 2 0 0" lines && grep -qx "map table $table 6 0 0 0" lines && ! grep -q "^map \(model\|shared\|extra\)" lines &&
        grep -qx "map patch differs at" lines && grep -qx " 0x7f0000204000..0x7f0000205000 1" lines && grep -qx " 0x7f0000322000..0x7f0000323000 1" lines || return 1
    { tool diff --verify maps one other >out; [ $? = 1 ]; } && cat out && grep -qx "map patch: A private host $patch 1228900, B private layers $patch 1228900" out &&
        grep -qx "map model: A read host $model 12388 sha256:$(digest_of given/model), B read host $model 12388" out && grep -qx "map more: A -, B read host $extra 5000" out &&
        grep -qx "map extra: A read optional $extra 5000, B -" out && tr -s ' ' <out >lines && grep -qx "map patch $patch 0 0 301 0" lines &&
        grep -qx "map patch $patch 0 0 0 301" lines
}
keeps_maps() { # what else there is takes them as they are; what is captured is there once, by the digest of the file
    lists maps && usage maps && says ok tool verify maps two && says ok tool fsck maps && [ -e "maps/blobs/sha256/$(digest_of given/table)" ] &&
        [ -e "maps/blobs/sha256/$(digest_of given/work)" ] && rm -rf two && cp -r maps two && tool flatten two two flat && inspects two flat && differs 0 two two two flat &&
        says ok tool verify two flat && tool rm two one two three && tool gc --grace 0 two && says ok tool fsck two &&
        says "$(sum given/table)" tool run --map model=given/model --map patch=given/patch --map shared=given/shared two flat pages 0 $table 24576 1 0 || return 1
    rm -rf new && d=$(tool copy maps:two new) && whole_copy new two "$d" && differs 0 maps two new two && inspects new two
}
exports_maps() { tool export maps two maps.tar && rm -rf there && d=$(tool import maps.tar there) && whole_copy there two "$d" && differs 0 there two maps two; }
check "layouts of a guest with maps" mapped
check "run --map" gives_maps
check "run --map: PRIVATE pages of the snapshot, over the file's" patched
check "run --map: what is missing, of another size, of another digest" lacks_maps
check "run --map: what is no map" no_maps
check "inspect, map: maps" shows_maps
check "diff: maps" compares_maps
check "verify, fsck, flatten, copy, du: maps" keeps_maps
if tar --version 2>/dev/null | grep -q GNU; then check "export, import: maps" exports_maps; else skip "export, import: maps" "no GNU tar"; fi

# ---- start, and run of a program ----
program=$(command -v busybox)
[ -z "$program" ] || [ -z "$(LD_TRACE_LOADED_OBJECTS=1 "$program" true)" ] || program=
if [ -z "$program" ]; then skip "start" "no static busybox (busybox-static)" && finish; fi
starts() { # starts TAG OPTION... PROGRAM ARG...
    tag=$1
    shift
    tool start --save prog "$tag" "$@" >digest 2>err || { cat err; return 1; }
    grep -qE '^sha256:[0-9a-f]{64}$' digest && [ "$(wc -l <digest)" = 1 ]
}
begins() { # each run begins it; its status is ours
    starts echo "$program" echo hello world && [ ! -s err ] && says "hello world" tool run prog echo && says "hello world" tool run prog:echo </dev/null &&
        tool start "$program" sh -c 'read -r l; echo "$l" >&2; exit 7' --save prog:status --json </dev/null | grep -q '"tag":"status"' || return 1
    echo "to err" | { tool run prog status >out 2>err; [ $? = 7 ]; } && [ ! -s out ] && grep -qx "to err" err && head -c 300000 /dev/urandom >bytes &&
        starts cat "$program" cat && tool run prog cat <bytes 2>err | cmp - bytes && [ -z "$(tool run prog cat 2>err </dev/null)" ]
}
waits() { # until it waits for input, and through a file; what it said then is not said again
    printf 'x=41; echo warm; f() { echo $((x + $1)); }\n' >in && starts sh --until-input "$program" sh && starts warm --input in "$program" sh &&
        cat err && [ "$(cat err)" = warm ] && printf 'f 1; exit 3\n' >more && { tool run prog warm <more >out 2>err; [ $? = 3 ]; } && cat out err &&
        [ "$(cat out)" = 42 ] && [ ! -s err ] && { tool run prog sh <more >out 2>err; [ $? = 3 ]; } && grep -q "f: not found" err || return 1
    [ "$(printf 'f 2\n' | tool run prog warm)" = 43 ] && exits 26 "HLSNAP_ERR_EXIT: the program ended, with status 1, before" \
        tool start --until-input --save prog no "$program" false && exits 26 "" tool start --input - --save prog no "$program" head -n 1 <in &&
        grep -q "status 0, before it waited for more input" err && exits 3 "" tool inspect prog no
}
sees() { # a directory, the same as an archive, environment, and nothing else
    long=$(printf '%090d' 1)
    rm -rf tree back && mkdir -p tree/a/b "tree/$long" back && echo one >tree/a/b/f && ln -s b/f tree/a/l && ln -s b tree/a/d && : >tree/empty &&
        head -c 5000 bytes >"tree/$long/$long" && chmod 640 tree/empty && touch -d @86400 tree/a/b/f &&
        starts tree --files tree "$program" tar -cf - -C / a empty "$long" && tool run prog tree >got.tar && tar -xf got.tar -C back && diff -r tree back &&
        [ "$(readlink back/a/l)$(readlink back/a/d)" = b/fb ] && [ "$(stat -c '%a %Y' back/empty back/a/b/f)" = "$(stat -c '%a %Y' tree/empty tree/a/b/f)" ] &&
        tar --format=ustar -C tree -cf tree.tar . && starts tar --files tree.tar "$program" cat /a/l && [ "$(tool run prog tar 2>err)" = one ] &&
        starts env --env A=1 --env B=2=3 "$program" env && says "A=1
B=2=3" tool run prog env &&
        starts sizes --heap 4M --stack 64K "$program" sh -c 'ulimit -v; ulimit -s' && says "4096
64" tool run prog sizes &&
        PATH=$(dirname "$program"):$PATH starts named "${program##*/}" echo found && says found tool run prog named
}
unpackable() { # what an archive cannot hold, by name
    rm -rf odd && mkdir odd && : >"odd/$(printf '%0101d' 1)" && exits 7 "a name that is too long" tool start --files odd --save prog no "$program" true &&
        rm -rf odd && mkdir odd && mkfifo odd/pipe && exits 47 "pipe: no file, directory or symbolic link" tool start --files odd --save prog no "$program" true &&
        exits 11 "nowhere: No such file" tool start --files nowhere --save prog no "$program" true
}
stops() { # a time limit, a reader that goes away, a FUNC, a guest that is no program, a missing one
    starts spin "$program" sh -c 'while :; do :; done' && exits 24 HLSNAP_ERR_TIMEOUT timeout 20 ./hlsnap_tool run --timeout 300 prog spin &&
        [ "$(tool run prog cat <bytes 2>err | head -c 5 | wc -c)" = 5 ] && [ "$(tool run prog echo main 2>err)" = 0 ] || return 1
    exits 2 "FUNC is missing" tool run kvm base && exits 2 "--json is for functions" tool run --json prog echo && exits 11 "cannot open nope" tool start nope --save prog no &&
        exits 11 "runtime: cannot open nope" tool start --runtime nope "$program" true --save prog no && exits 32 HLSNAP_ERR_ELF_DYNAMIC tool start ./hlsnap_tool --save prog no
}
levels() { # where KVM keeps it, any machine of that level will do; where it cannot, it says so
    tool start --cpu v2 "$program" echo x --save prog v2 >out 2>err
    status=$?
    cat err
    if [ $status = 0 ]; then tool inspect prog v2 >out && cat out && grep -qx "CPU level   v2, fits every machine of level x86-64-v2" out && says x tool run prog v2 </dev/null
    else [ $status = 6 ] && grep -q "CPU level v2: this KVM runs guests with the machine's own CPUID" err; fi
}
sees_map() { # a program is told where to look; each run must give it the file
    printf '#include <stdlib.h>\n#include <unistd.h>\nint main(int argc, char **argv) {
        return argc != 3 || write(1, (void *)strtoull(argv[1], NULL, 16), strtoull(argv[2], NULL, 10)) < 0; }\n' >see.c && "$cc" -O1 -static see.c -o see &&
        starts mapped --map text=given/model ./see $model 12388 && tool run --map text=given/model prog mapped </dev/null | cmp - given/model &&
        exits 5 "maps: text (read, 12388 bytes) is missing; --map" tool run prog mapped </dev/null && tool inspect prog mapped | grep -q "^text  read  host .* 12388 .* -$" &&
        exits 5 "text is read of 5000 bytes" tool run --map text=given/extra prog mapped </dev/null && exits 11 "map 'text': nofile: no such" tool start --map text=nofile ./see --save prog no &&
        exits 8 "map 'a' is there already" tool start --map a=given/model ./see --save prog no --map a=given/extra && exits 3 "" tool inspect prog no
}
check "start and run --map: a program" sees_map
check "start: a CPU level" levels
check "start: a program that has not begun" begins
check "start: to where it waits for input, and on" waits
check "start: its files and environment" sees
check "start: files that cannot be packed" unpackable
check "start and run: what fails" stops
finish
