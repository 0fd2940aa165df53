#!/bin/sh
# interop.sh DIR - layouts in the hands of the tools they are meant for: skopeo, umoci and a docker-registry on 127.0.0.1, started
# and stopped here. What comes back is compared blob by blob, and started. TAP; all below DIR, the tools' caches, too.
#   INSTALL=1   may apt-get install skopeo and umoci. docker-registry is downloaded and unpacked below DIR and never installed: its
#               package starts a service on port 5000 of all addresses
# Without /dev/kvm the snapshots are tests/snapshot_format.py's, and nothing is started.
# exit 0 all passed or skipped, 1 failure, 77 all skipped.
# shellcheck disable=SC2317 # called by traps and by names
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1" && build=$(cd "$1" && pwd) || exit 1
# shellcheck source=tests/need.sh
. "$top/tests/need.sh"
# shellcheck source=tests/tap.sh
. "$top/tests/tap.sh"
# shellcheck source=tests/layouts.sh
. "$top/tests/layouts.sh"
pid=
stop() {
    [ -z "$pid" ] || { kill "$pid" && wait "$pid"; } 2>/dev/null
    pid=
}
clean() {
    trap '' HUP INT TERM
    stop
    [ "$failed" != 0 ] || rm -rf "$build/work"
}
trap clean EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# ---- the tools ----
need python3 python3
need skopeo skopeo
need umoci umoci
need_header cjson/cJSON.h libcjson-dev
wants=$missing
need_done >"$build/need.log" 2>&1 || { skip "interop" "no$wants (INSTALL=1 installs them)"; finish; }
download() {
    rm -rf "$build/deb" && mkdir "$build/deb" && cd "$build/deb" || return 1
    apt-get download docker-registry || { ${sudo:-} apt-get update -qq && apt-get download docker-registry; } || return 1
    dpkg-deb -x ./*.deb . && mv usr/bin/docker-registry ../docker-registry && cd .. && rm -rf deb
}
registry=$(command -v docker-registry || command -v registry || echo "$build/docker-registry")
if [ ! -x "$registry" ] && [ "${INSTALL:-0}" = 1 ]; then
    [ "$(id -u)" = 0 ] || sudo=sudo
    (download) >"$build/need.log" 2>&1 || :
fi
export HOME="$build/work/home" XDG_DATA_HOME="$build/work/home/data" _CONTAINERS_ROOTLESS_UID=1000 # skopeo's cache goes there,
export TMPDIR="$HOME"                                                                             # and its temporary files
caches=$XDG_DATA_HOME/containers
skopeo() { timeout -k 5 60 skopeo "$@"; }
umoci() { timeout -k 5 60 umoci "$@"; }
python() { python3 -B "$top/tests/snapshot_format.py" "$@"; }
hlsnap() { timeout -k 5 60 "$build/work/interop_store" "$@"; }
dump() { timeout -k 5 60 "$build/work/format_dump" "$@"; }
indexer() { timeout -k 5 60 "$build/work/examples/04_oci" "$@"; }
tool() { timeout -k 5 60 "$build/work/examples/hlsnap_tool" "$@"; }
copy() { skopeo copy -q --src-tls-verify=false --dest-tls-verify=false "$1" "$2"; }

rm -rf "$build/work" && mkdir -p "$build/work/home" && cd "$build/work" || exit 1

# ---- the snapshots: v1, and v2 that shares its layer ----
words="hlsnap_sandbox static x HLSNAP_API 4096 nosuchword_ zebra_ interop_word"
counted() { # counted FILES...: as grep has it
    for w in $words; do
        echo "$w $(cat "$@" | LC_ALL=C grep -ow "$w" | wc -l)"
        for f; do
            c=$(LC_ALL=C grep -ow "$w" "$f" | wc -l)
            [ "$c" = 0 ] || echo "  $f $c"
        done
    done
}
compiles() {
    cc="${CC:-cc} -std=gnu11 -O1 -Wall -Wextra -Werror -I$top"
    $cc "$top/tests/interop_store.c" -o interop_store -lcjson && $cc "$top/tests/format_dump.c" -o format_dump -lcjson || return 1
    cp "$top"/*.h . && cp -R "$top/examples" . && cd examples && lines_of cc hlsnap_tool.c >lines && [ -s lines ] || return 1
    [ -n "$novm" ] || lines_of cc 04_oci.c >>lines
    while read -r line; do $line || return 1; done <lines
}
indexed() {
    mkdir text && cp "$top"/*.h "$top"/docs/*.md "$top"/tests/*.c text/ && counted text/* >want.v1 &&
        echo "zebra_ interop_word, static interop_word" >extra && counted text/* extra >want.v2 &&
        cp examples/index.elf . && indexer save layout v1 text/* && hlsnap more layout v1 v2 extra && rm -r text index.elf examples/index.elf
}
made() {
    if [ -n "$novm" ]; then look base "$top/tests" layout; else indexed; fi || return 1
    loaded layout v1 >line.v1 && loaded layout v2 >line.v2 && hlsnap layers layout v1 >layers.v1 && hlsnap layers layout v2 >layers.v2 &&
        [ "$(wc -l <layers.v1) $(wc -l <layers.v2)" = "1 2" ] && [ "$(head -n 1 layers.v2)" = "$(cat layers.v1)" ] &&
        hlsnap fsck layout && python exact layout v1 v2 && python write other v3 --seed 3 &&
        look blobs layout v1 >blobs.v1 && look blobs layout v2 >blobs.v2 &&
        sed 1d blobs.v2 | grep -vxFf blobs.v1 | sort >blobs.new && [ "$(wc -l <blobs.new)" = 3 ] # config, memory, chunk list
}
loaded() { if [ -n "$novm" ]; then dump load "$@"; else hlsnap load "$@"; fi; } # with all of memory where no guest shows it
means() { # means DIR REF TAG: the same manifest and memory as TAG had first
    loaded "$1" "$2" | sed 's/^[^ ]* //' >line && sed 's/^[^ ]* //' "line.$3" | diff - line
}
sound() { # sound DIR TAG...: all is sound, and these mean what they meant
    dir=$1
    shift
    hlsnap fsck "$dir" || return 1
    for tag; do means "$dir" "$tag" "$tag" || return 1; done
}
answers() { # answers DIR REF TAG: in a fresh process, as the text is counted that TAG was made of
    # shellcheck disable=SC2086
    indexer run "$1" "$2" $words >got && diff "want.$3" got
}
starts() { # starts WHAT DIR REF TAG
    if [ -n "$novm" ]; then skip "$1 answers calls" "$novm"; else check "$1 answers calls" answers "$2" "$3" "$4"; fi
}
more() { # more DIR REF TAG: with KVM by a guest that runs on, else what another program wrote
    if [ -n "$novm" ]; then dump copy other v3 "$1" "$3"; else hlsnap more "$1" "$2" "$3" extra; fi
}

novm=$(kvm_problem)
check "compiles" compiles
cd "$build/work" || exit 1
check "a base and its delta" made
[ "$failed" = 0 ] || finish
digest1=$(sed -n 's/^v1 \([^ ]*\) .*/\1/p' line.v1) digest2=$(sed -n 's/^v2 \([^ ]*\) .*/\1/p' line.v2) base=$(sed -n 3p blobs.v1)
starts "the base" layout v1 v1
starts "the delta" layout v2 v2

# ---- skopeo: from layout to layout ----
copied() {
    copy oci:layout:v1 oci:copy:v1 && identical copy v1 && holds copy blobs.v1 && before=$(stat -c '%i %Y' "copy/blobs/sha256/$base") &&
        copy oci:layout:v2 oci:copy:v2 && identical copy v2 && identical copy v1 && holds copy blobs.v1 blobs.v2 &&
        is "$(stat -c '%i %Y' "copy/blobs/sha256/$base")" "$before" && sound copy v1 v2
}
raw() { # raw DIR TAG: skopeo shows the manifest's bytes
    skopeo inspect --raw "oci:$1:$2" >raw && cmp raw "$1/blobs/sha256/$(look blobs "$1" "$2" | head -n 1)"
}
archived() { # through a tar file, and through skopeo's own directory of blobs
    copy oci:layout:v2 oci-archive:v2.tar:v2 && copy oci-archive:v2.tar:v2 oci:untarred:v2 && identical untarred v2 && sound untarred v2 &&
        copy oci:layout:v2 dir:plain && copy dir:plain oci:fromdir:w && identical fromdir v2 w && means fromdir w v2
}
saved_into_copy() { # the index is skopeo's now
    [ ! -e copy/.hlsnap.lock ] && more copy v2 v3 >digest && is "$(hlsnap list copy | grep -c .)" 3 && sound copy v1 v2 && raw copy v3 &&
        copy oci:copy:v3 oci:copy3:v3 && is "$(look blobs copy3 v3)" "$(look blobs copy v3)" && named copy3 && hlsnap fsck copy3 &&
        hlsnap untag copy v3 && hlsnap gc copy 0 && holds copy blobs.v1 blobs.v2 && sound copy v1 v2
}
replaced() { # a tag that skopeo moves leaves the old manifest untagged: hlsnap finds it by digest, and collects it
    copy oci:layout:v1 oci:moved:v && copy oci:layout:v2 oci:moved:v && is "$(look tags moved)" "- v" && means moved v v2 &&
        means moved "$digest1" v1 && hlsnap gc moved 0 && is "$(look tags moved)" v && holds moved blobs.v2 && hlsnap fsck moved && means moved v v2
}
killed() { # what a copy leaves that was killed before it wrote an index; then hlsnap saves there, and the next copy gets through
    mkdir -p dead/blobs/sha256 && echo partly >dead/oci-put-blob123456789 && cp "layout/blobs/sha256/$base" dead/blobs/sha256/ &&
        dump copy layout v1 dead v1 && identical dead v1 && copy oci:layout:v2 oci:dead:v2 && identical dead v2 && sound dead v1 v2 &&
        hlsnap gc dead 0 && hlsnap repair dead && [ -e dead/oci-put-blob123456789 ] && sound dead v1 v2
}
check "skopeo: a copy has the same manifest and blobs, the base's once" copied
starts "skopeo: the copied base" copy v1 v1
starts "skopeo: the copied delta" copy v2 v2
starts "skopeo: the copy, by digest" copy "$digest2" v2
check "skopeo: shows the manifest as it is" raw layout v2
check "skopeo: through oci-archive and dir" archived
check "skopeo: hlsnap saves, untags and collects in the copy" saved_into_copy
check "skopeo: a tag that it moves" replaced
check "skopeo: where a copy was killed" killed

# ---- a registry ----
listen() {
    mkdir -p registry && cat >registry.yml <<END || return 1
version: 0.1
log: {level: info}
storage: {filesystem: {rootdirectory: $build/work/registry}, delete: {enabled: true}}
http: {addr: "127.0.0.1:0"}
END
    die=
    setpriv --pdeathsig KILL true 2>/dev/null && die="setpriv --pdeathsig KILL" # even when this script is killed
    # shellcheck disable=SC2086
    env -i PATH="$PATH" $die "$registry" serve registry.yml >registry.log 2>&1 &
    pid=$!
    for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        port=$(sed -n 's/.*listening on 127\.0\.0\.1:\([0-9]*\).*/\1/p' registry.log)
        [ -n "$port" ] && look http "$port" GET /v2/ body | grep -q ^200 && return
        kill -0 "$pid" || break
        sleep 0.$((i / 4 + 1))
    done
    tail -n 5 registry.log
    return 1
}
at() { echo "docker://127.0.0.1:$port/$1"; }
requests() { sed -n 's/.*\] "\([A-Z]*\) \([^ ]*\) HTTP[^"]*" \([0-9]*\) .*/\1 \2 \3/p' registry.log; } # METHOD PATH STATUS
fresh() { rm -rf "$caches" && seen=$(requests | wc -l); }                                              # skopeo remembers nothing
since() { requests | tail -n +$((seen + 1)); }
push() { # push DIR TAG REPO:TAG
    fresh && copy "oci:$1:$2" "$(at "$3")" && eventually logged "PUT /v2/${3%:*}/manifests/${3#*:} 201"
}
eventually() { # the log may come a moment later than the answer
    for i in 1 2 3 4 5 6 7 8 9; do
        "$@" && return
        sleep "0.$i"
    done
    since
    return 1
}
logged() { since | grep -qx "$1"; }
uploaded() { since | sed -n 's/^PUT .*digest=sha256%3A\([0-9a-f]*\).* 201$/\1/p' | sort | diff "$1" -; } # uploaded LIST: no other blobs
uploads() { logged "PUT .*digest=sha256%3A$1.*"; }
downloaded() { since | sed -n 's,^GET /v2/x/blobs/sha256:\([0-9a-f]*\) 200$,\1,p' | sort | diff "$1" -; }
stored() { echo "registry/docker/registry/v2/blobs/sha256/$(echo "$1" | cut -c1-2)/$1/data"; } # where the registry has it
served() { # served REPO TAG DIGEST: by the registry's own word
    b=layout/blobs/sha256/${3#sha256:}
    is "$(look http "$port" GET "/v2/$1/manifests/$2" body)" "200 $3" && cmp body "$b" &&
        is "$(look http "$port" GET "/v2/$1/manifests/$3" body)" "200 $3" && cmp body "$b" &&
        skopeo inspect --raw --tls-verify=false "$(at "$1:$2")" >raw && cmp raw "$b"
}
pushed_base() { push layout v1 x:v1 && served x v1 "$digest1" && sed 1d blobs.v1 | sort >want && eventually uploaded want; }
pulled() { # pulled FROM DIR TAG
    fresh && copy "$(at "$1")" "oci:$2:$3" && identical "$2" "$3" && sound "$2" "$3"
}
pushed_delta() { # the base's blobs are asked for and found; for each other one there is one upload
    before=$(stat -c '%i %Y' "$(stored "$base")") && push layout v2 x:v2 && served x v2 "$digest2" && eventually uploaded blobs.new &&
        is "$(stat -c '%i %Y' "$(stored "$base")")" "$before" && since && is "$(since | grep -c '^POST ')" 3 || return 1
    sed 1,2d blobs.v1 | while read -r b; do eventually logged "HEAD /v2/x/blobs/sha256:$b 200" || exit 1; done
}
pulled_over() { # into the layout that holds the base: only the rest is asked for
    before=$(stat -c '%i %Y' "pull1/blobs/sha256/$base") && pulled x:v2 pull1 v2 && holds pull1 blobs.v1 blobs.v2 && sound pull1 v1 v2 &&
        is "$(stat -c '%i %Y' "pull1/blobs/sha256/$base")" "$before" && eventually downloaded blobs.new
}
other_repository() { push layout v2 y:v2 && served y v2 "$digest2" && pulled y:v2 pull_y v2; }
pushed_pulled() { copy oci:pull1:v2 "$(at z:v2)" && served z v2 "$digest2" && copy "$(at z:v2)" "$(at z:again)" && served z again "$digest2"; }
collected() { # the registry's own collector knows what a snapshot leads to
    is "$(look http "$port" DELETE "/v2/x/manifests/$digest1" body)" "202 -" && stop &&
        "$registry" garbage-collect registry.yml >gc.log 2>&1 && listen && look http "$port" GET /v2/x/manifests/v1 body | grep "^404" &&
        [ -e "$(stored "$base")" ] && [ ! -e "$(stored "$(sed -n 2p blobs.v1)")" ] && pulled x:v2 pull_gc v2
}
saved_into_pulled() { # what a registry gave is a store like any other
    more pull2 v2 v3 >digest && hlsnap tag pull2 v3 v4 && push pull2 v4 x:v4 && ! uploads "$base" && copy "$(at x:v4)" oci:pull4:v4 &&
        is "$(look blobs pull4 v4)" "$(look blobs pull2 v3)" && named pull4 && hlsnap fsck pull4 &&
        hlsnap untag pull2 v3 && hlsnap untag pull2 v4 && hlsnap gc pull2 0 && holds pull2 blobs.v2 && sound pull2 v2
}
undated() { sed 's/ 20[0-9-]*T[0-9:]*Z$/ -/; /image\.created/d'; } # the entry says it, and other tools drop what entries say
tool_looks() { # at what came from the registry, as at what went there
    tool ls --long layout | undated >ours && tool ls --long pull1 >theirs && diff ours theirs && grep "^v1 *$digest1 " theirs &&
        grep "^v2 *$digest2 " theirs || return 1
    for tag in v1 v2; do
        is "$(tool verify pull1 "$tag")" ok && tool inspect layout "$tag" | undated >ours && tool inspect pull1 "$tag" >theirs &&
            diff ours theirs &&
            tool map layout "$tag" >ours.svg && tool map pull1 "$tag" >theirs.svg && cmp ours.svg theirs.svg || return 1
    done
    is "$(sed -n 's/^digest *//p' theirs)" "$digest2" && is "$(sed -n '/^LAYER/,/^$/s/^ *[01]  sha256:\([0-9a-f]*\) .*/\1/p' theirs | head -n 1)" "$base" &&
        python3 -c 'import xml.dom.minidom as m; d = m.parse("theirs.svg").documentElement; assert d.tagName == "svg" and d.getElementsByTagName("rect")'
}
tool_compares() {
    tool diff pull1 v2 layout v2 >out && is "$(tail -n 1 out)" same || return 1
    tool diff --verify pull1 v1 v2 >out
    is "$? $(tail -n 1 out)" "1 different"
}
tool_runs() {
    grep -v '^ ' want.v2 >words || return 1
    while read -r word times; do is "$(tool run pull1 v2 total "$word")" "$times" || return 1; done <words
}
if [ -x "$registry" ]; then
    check "registry: listens on 127.0.0.1" listen
    check "registry: has the base as it is" pushed_base
    check "registry: the base comes back identical" pulled x:v1 pull1 v1
    starts "registry: the pulled base" pull1 v1 v1
    check "registry: by digest, too" pulled "x@$digest1" pull_digest v1
    check "registry: a delta is pushed without its base" pushed_delta
    check "registry: the delta comes back identical" pulled x:v2 pull2 v2
    starts "registry: the pulled delta" pull2 v2 v2
    check "registry: the delta is pulled without its base, which is there" pulled_over
    starts "registry: the delta pulled over its base" pull1 v2 v2
    check "hlsnap_tool: ls, inspect, verify and map see in it what went there" tool_looks
    check "hlsnap_tool: diff" tool_compares
    if [ -n "$novm" ]; then skip "hlsnap_tool: run" "$novm"; else check "hlsnap_tool: run" tool_runs; fi
    check "registry: in another repository" other_repository
    check "registry: what was pulled is pushed" pushed_pulled
    check "registry: hlsnap saves into what was pulled; that is pushed, too" saved_into_pulled
    check "registry: its garbage-collect leaves the delta what it needs" collected
    starts "registry: the delta after garbage-collect" pull_gc v2 v2
else
    why="INSTALL=1 downloads it"
    [ "${INSTALL:-0}" != 1 ] || why="apt-get download: $(tail -n 1 "$build/need.log")"
    skip "registry" "no docker-registry ($why)"
fi

# ---- umoci ----
tags() { is "$(umoci ls --layout "$1" | sort | tr '\n' ' ')" "$2 "; } # tags DIR "TAGS"
orphan() { b=$(echo "$2" | sha256sum | cut -c1-64) && echo "$2" >"$1/blobs/sha256/$b"; } # orphan DIR TEXT: named $b
umoci_tags() { # hlsnap's lock file beside it
    cp -a layout u && [ -e u/.hlsnap.lock ] && tags u "v1 v2" && umoci tag --image u:v1 stable && tags u "stable v1 v2" &&
        is "$(look tags u)" "stable v1 v2" && means u stable v1 && is "$(look entry u v2)" "$(look entry layout v2)" && sound u v1 v2
}
umoci_removes() { # the base's tag goes, then all that only it led to; the delta keeps what it shares
    umoci rm --image u:v1 && umoci rm --image u:stable && tags u v2 && is "$(hlsnap list u | cut -d' ' -f1)" v2 &&
        dump verdict v1 u | grep -x "u HLSNAP_ERR_NOT_FOUND" && holds u blobs.v1 blobs.v2 && umoci gc --layout u && holds u blobs.v2 && sound u v2
}
umoci_collects() { # an orphan goes; what hlsnap untagged stays, since an index entry leads to it, until hlsnap collects
    rm -rf u && cp -a layout u && orphan u one && hlsnap untag u v1 && umoci gc --layout u && holds u blobs.v1 blobs.v2 && tags u v2 &&
        means u "$digest1" v1 && sound u v2 && orphan u two && hlsnap gc u 3600 && [ -e "u/blobs/sha256/$b" ] &&
        hlsnap gc u 0 && holds u blobs.v2 && tags u v2 && sound u v2
}
leftovers() { # what either leaves behind when it is killed is none of the other's business
    mkdir u/.umoci-123456 u/.hlsnap-tmp && touch u/.umoci-123456/index-1 u/.umoci-1234567890.tmp u/.hlsnap-tmp/1 u/.hlsnap-1.tmp &&
        more u v2 v3 >digest && hlsnap gc u 0 && hlsnap repair u && [ -e u/.umoci-123456/index-1 ] && [ -e u/.umoci-1234567890.tmp ] &&
        touch u/.hlsnap-2.tmp && umoci gc --layout u && [ -e u/.hlsnap-2.tmp ] && [ -e u/.hlsnap.lock ] && tags u "v2 v3" && sound u v2
}
then_hlsnap() { # in a layout that umoci wrote last, without a lock file
    rm -rf u && cp -a layout u && rm u/.hlsnap.lock && umoci tag --image u:v2 w && more u w v3 >digest && tags u "v1 v2 v3 w" && sound u v1 v2 &&
        umoci rm --image u:v3 && umoci gc --layout u && holds u blobs.v1 blobs.v2 && hlsnap flatten u w flat >digest && tags u "flat v1 v2 w" &&
        umoci rm --image u:w && umoci rm --image u:v1 && umoci rm --image u:v2 && umoci gc --layout u && hlsnap fsck u && tags u flat &&
        is "$(hlsnap layers u flat | wc -l)" 1 && is "$(dump load u flat | sed 's/.*memory=//')" "$(dump load layout v2 | sed 's/.*memory=//')" &&
        is "$(held u | wc -l)" 4
}
check "umoci: lists and tags, and changes no other entry" umoci_tags
check "umoci: rm and gc leave the delta what it shares" umoci_removes
starts "umoci: the delta after rm and gc" u v2 v2
check "umoci: gc removes orphans and keeps what is untagged; hlsnap collects that" umoci_collects
check "umoci: what was left by killed processes" leftovers
check "umoci: hlsnap saves and flattens in a layout that it wrote" then_hlsnap
starts "umoci: the flattened delta after rm of all others" u flat v2

# ---- a real container image in the same layout ----
container() { # three layers, tar and gzip, the last one a whiteout; `root` is what must come out
    mkdir -p root/bin root/etc "root/var/lib/with blank" more/etc && printf '#!/bin/sh\necho hello\n' >root/bin/hello && chmod 755 root/bin/hello &&
        ln -s hello root/bin/hi && ln root/bin/hello root/bin/hard && head -c 300000 /dev/urandom >root/var/lib/noise && echo gone >root/etc/old &&
        chmod 600 root/var/lib/noise && echo new >more/etc/motd && umoci init --layout both && umoci new --image both:app &&
        umoci insert --rootless --image both:app root / && umoci insert --rootless --image both:app more/etc/motd /etc/motd &&
        umoci insert --rootless --image both:app --whiteout /etc/old &&
        umoci config --image both:app --config.entrypoint /bin/hello --config.label a=b --no-history && umoci gc --layout both &&
        rm root/etc/old && cp more/etc/motd root/etc/ && look blobs both app >blobs.app && is "$(wc -l <blobs.app)" 5 && holds both blobs.app &&
        cp -a both pristine && look entry both app >entry.app
}
unpacked() { # unpacked DIR: and the files are there
    rm -rf bundle && umoci unpack --rootless --image "$1:app" bundle && diff -r bundle/rootfs root && [ -x bundle/rootfs/bin/hello ] &&
        is "$(readlink bundle/rootfs/bin/hi)" hello && is "$(stat -c %a bundle/rootfs/var/lib/noise)" 600
}
intact() { # byte by byte; the tools find it as before
    look entry both app | diff entry.app - || return 1
    while read -r b; do cmp "pristine/blobs/sha256/$b" "both/blobs/sha256/$b" || return 1; done <blobs.app
    skopeo inspect oci:both:app >inspected && grep -q '"a": "b"' inspected && rm -rf out &&
        copy oci:both:app oci:out:app && holds out blobs.app && named out
}
neighbours() { # all that hlsnap does to a layout
    loose= # without KVM v2 is flat already: flat is the same manifest, and what loses its tag stays with the blobs
    [ -z "$novm" ] || loose='- '
    dump copy layout v1 both v1 && intact && more both v1 v2 && intact && hlsnap tag both v2 w && hlsnap untag both v2 && intact &&
        hlsnap flatten both w flat && hlsnap untag both w && intact && hlsnap fsck both &&
        hlsnap gc both 0 && intact && hlsnap repair both && intact &&
        is "$(look tags both)" "${loose}app flat v1" && sound both v1 && is "$(hlsnap list both | cut -d' ' -f1 | tr '\n' ' ')" "v1 ${loose}flat "
}
refused() { # neither takes the other's for its own
    dump verdict app both | grep -x "both HLSNAP_ERR_MEDIA_TYPE" && ! umoci unpack --rootless --image both:v1 nothing && [ ! -e nothing/rootfs ]
}
rebuilt() { # the image gets a layer and a new config, the old ones go; no snapshot loses a blob
    hlsnap untag both flat && hlsnap gc both 0 && dump copy other v3 both v3 && look blobs both v3 >blobs.v3 && loaded both v3 >line.v3 &&
        echo newer >root/etc/motd && umoci insert --rootless --image both:app root/etc/motd /etc/motd && umoci tag --image both:app latest &&
        umoci rm --image both:app && umoci tag --image both:latest app && umoci rm --image both:latest && umoci gc --layout both &&
        look blobs both app >blobs.new_app && is "$(wc -l <blobs.new_app)" 6 && holds both blobs.v1 blobs.v3 blobs.new_app &&
        sound both v1 v3 && unpacked both
}
untagged() { # an untagged image is not a snapshot: nobody's entry is removed, nor what it leads to
    umoci rm --image both:app && skopeo copy -q oci:pristine:app oci:both:v3 && is "$(look tags both)" "- v1 v3" && hlsnap gc both 0 &&
        is "$(look tags both)" "v1 v3" && hlsnap fsck both && sound both v1 && dump copy layout v2 both v3 && hlsnap gc both 0 &&
        is "$(look tags both)" "- v1 v3" && hlsnap fsck both && sound both v1 || return 1
    while read -r b; do cmp "pristine/blobs/sha256/$b" "both/blobs/sha256/$b" || return 1; done <blobs.app
}
registered() { # both kinds in one repository
    push both app mixed:app && push both v1 mixed:v1 && copy "$(at mixed:app)" oci:mixed:app && copy "$(at mixed:v1)" oci:mixed:v1 &&
        holds mixed blobs.app blobs.v1 && named mixed && unpacked mixed && sound mixed v1
}
check "container image: made by umoci" container
check "container image: hlsnap saves, tags, untags, flattens, collects and repairs beside it" neighbours
check "container image: unpacks to the same files" unpacked both
check "container image: is no snapshot, and a snapshot is none" refused
starts "container image: the snapshot beside it" both v1 v1
if [ -n "$pid" ]; then check "container image: both go through one repository of a registry" registered
else skip "container image: both go through one repository of a registry" "no docker-registry"; fi
check "container image: rebuilt and collected by umoci" rebuilt
starts "container image: the snapshot after that" both v1 v1
check "container image: one that lost its tag stays" untagged
ended() { p=$pid && stop && ! kill -0 "$p" 2>/dev/null && ! look http "$port" GET /v2/ body; }
[ -z "$pid" ] || check "registry: ends" ended
finish
