#!/bin/sh
# interop_new.sh DIR - layouts in the hands of newer tools than this machine's: oras, cosign, podman 5, skopeo, umoci and a
# docker-registry of Debian 13. They are unpacked below DIR, no script of their packages runs, nothing is installed; they run by
# chroot, with mounts and a network of their own in which there is nobody else: what a tool would ask the internet, it cannot.
# Here memory is compared; interop.sh has the tools of this machine, and guests that are started. TAP; all below DIR.
#   INSTALL=1   may download the tools (85 MB, from the mirrors that this machine's apt knows; 250 MB unpacked); they stay there
# exit 0 all passed or skipped, 1 failure, 77 all skipped.
# shellcheck disable=SC2317 # called by traps and by names
# shellcheck disable=SC2086 # hosts, tags and media types of this script have no blanks
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1" && build=$(cd "$1" && pwd) || exit 1
# shellcheck source=tests/need.sh
. "$top/tests/need.sh"
# shellcheck source=tests/tap.sh
. "$top/tests/tap.sh"
# shellcheck source=tests/mounts.sh
. "$top/tests/mounts.sh"
# shellcheck source=tests/layouts.sh
. "$top/tests/layouts.sh"
what="newer tools" root=$build/trixie work=$build/work pid=

# ---- the tools ----
[ "$(id -u)" = 0 ] || { skip "$what" "not root"; finish; }
need python3 python3
need_header cjson/cJSON.h libcjson-dev
[ -z "$missing" ] || { skip "$what" "no$missing"; finish; }
unpacked() { # unpacked DEB...: here, without manuals and the like
    for deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar -x --exclude='./var' --exclude='./usr/share/*/*/*' --exclude='./usr/lib/*/gconv' \
            --exclude='./usr/libexec/podman' || return 1
    done
}
download() ( # with what they depend on
    private_apt_suite trixie "$(dpkg --print-architecture)" </dev/null && private_apt get -qq install -y --no-install-recommends \
        --download-only oras cosign podman skopeo umoci docker-registry || exit 1
    rm -rf "$root.part" && mkdir -p "$root.part" && cd "$root.part" && mkdir dev proc sys tmp run var w || exit 1
    for d in bin sbin lib lib64; do ln -s "usr/$d" "$d" || exit 1; done
    unpacked "$build"/apt/archives/*.deb && rm -rf "$build/apt" "$root" && mv "$root.part" "$root"
)
if [ ! -d "$root" ]; then
    [ "${INSTALL:-0}" = 1 ] || { skip "$what" "INSTALL=1 downloads them"; finish; }
    started=$(date +%s)
    download >"$build/apt.log" 2>&1 || { skip "$what" "none of Debian 13 from apt: $(tail -n 1 "$build/apt.log")"; finish; }
    echo "# downloaded and unpacked in $(($(date +%s) - started)) s: $(du -sm "$root" | cut -f1) MiB"
fi

# ---- where they run ----
if [ -z "${ALONE:-}" ]; then
    unshare -n true 2>/dev/null || { skip "$what" "no network namespaces here"; finish; }
    ALONE=1 exec unshare -n sh "$0" "$@"
fi
stop() {
    [ -z "$pid" ] || { kill "$pid" && wait "$pid"; } 2>/dev/null
    pid=
}
clean() {
    stop
    umount -R -l "$root" 2>/dev/null
    unmount_all
}
alone "$what" 400 "$0" "$@"
read_only() { mount --bind "$1" "$2" && mount -o remount,bind,ro "$2"; }
mounted() { # all that they write is below $work and goes with it
    mkdir -p "$work/dev/shm" "$work/var/tmp" "$work/tmp" "$work/run" "$work/w" && read_only "$root" "$root" || return 1
    for d in dev var tmp run w; do mount --bind "$work/$d" "$root/$d" || return 1; done
    for d in null zero random urandom; do : >"$work/dev/$d" && mount --bind "/dev/$d" "$root/dev/$d" || return 1; done
    mount -t proc none "$root/proc" && read_only /sys "$root/sys"
}
up() { # the loopback interface: SIOCSIFFLAGS, IFF_UP
    python3 -c 'import fcntl, socket, struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh22x", b"lo", 1))'
}
{ mounted && up; } >"$work/log" 2>&1 || { skip "$what" "$(tail -n 1 "$work/log")"; finish; }
chroot=$(command -v chroot)
there() { # there COMMAND...: /w there is the current directory here
    env -i PATH=/usr/bin HOME=/tmp COSIGN_PASSWORD= PODMAN_IGNORE_CGROUPSV1_WARNING=1 timeout -k 5 60 "$chroot" "$root" "$@"
}
oras() { there oras "$@"; }
umoci() { there umoci "$@"; }
podman() { there podman --root /w/podman --runroot /run/podman "$@"; }
cosign() { # cosign COMMAND...: with that key pair, and nobody to ask
    c=$1
    shift
    case $c in
    sign* | attest) there cosign "$c" --yes --tlog-upload=false --key /w/key.key "$@" ;;
    verify*) there cosign "$c" --insecure-ignore-tlog --key /w/key.pub "$@" ;;
    *) there cosign "$c" "$@" ;;
    esac
}
copy() { there skopeo copy -q --src-tls-verify=false --dest-tls-verify=false "$@"; }
tool() { timeout -k 5 60 "$work/hlsnap_tool" "$@"; }
dump() { timeout -k 5 60 "$work/format_dump" "$@"; }
collect() { tool gc --grace 0 "$1"; }
fine() { is "$(tool fsck "$1")" ok; }
tags() { is "$(look tags "$1")" "$2"; }                                 # tags DIR "TAGS", "-" for none
oras_tag() { oras tag --oci-layout "/w/$1" "$2"; } # oras_tag DIR:REF TAG
take_back() { oras manifest delete --force --oci-layout "/w/$1"; } # take_back DIR:REF
cd "$work/w" || exit 1
host=127.0.0.1:5000 index_type=application/vnd.oci.image.index.v1+json
repo=$host/snap spdx=application/spdx+json signature=application/vnd.example.signature.v1

# ---- the snapshots: v1, and v2 that shares its layer ----
compiles() {
    cc="${CC:-cc} -std=gnu11 -O1 -I$top"
    $cc "$top/tests/format_dump.c" -o "$work/format_dump" -lcjson &&
        $cc "$top/examples/hlsnap_tool.c" -o "$work/hlsnap_tool" -lcjson
}
made() {
    look base "$top/tests" layout && fine layout && look blobs layout v1 >blobs.v1 && look blobs layout v2 >blobs.v2 &&
        is "$(wc -l <blobs.v1) $(wc -l <blobs.v2) $(sort -u blobs.v1 blobs.v2 | wc -l)" "4 6 8" &&
        for tag in v1 v2; do dump load layout $tag >line.$tag && grep memory= line.$tag || return 1; done
}
described() { # SBOMs as people have them: with a number that is no integer, with the digest of what they describe; and a large one
    printf '{"spdxVersion":"SPDX-2.3","score":7.5,"of":"%s"}\n' "$digest1" >sbom.json &&
        { printf '{"of":"%s","x":"' "$digest1" && head -c 4500000 /dev/urandom | base64 -w 0 && printf '"}\n'; } >large.json &&
        [ "$(wc -c <large.json)" -gt 6000000 ] && cosign generate-key-pair --output-key-prefix /w/key
}
blob() { echo "$1/blobs/sha256/${2#sha256:}"; } # blob DIR DIGEST
means() { # means DIR REF TAG: the same manifest and memory as TAG in layout
    dump load "$1" "$2" | sed 's/^[^ ]* //' >line && sed 's/^[^ ]* //' "line.$3" | diff - line
}
sound() { # sound DIR TAG...: all is sound, and these mean what they meant, by tag and by digest
    dir=$1
    shift
    fine "$dir" || return 1
    for tag; do
        means "$dir" "$tag" "$tag" && means "$dir" "$(cut -d' ' -f2 "line.$tag")" "$tag" && is "$(tool verify "$dir" "$tag")" ok ||
            return 1
    done
}
rows() { # rows DIR: "TAG DIGEST BYTES OWN" by `ls`
    tool ls --json "$1" >rows.json && look rows rows.json | sort
}
as() { rm -rf "$1" && cp -a "$2" "$1"; } # as DIR FROM: a copy, for one more test
check "compiles" compiles
check "a base and its delta" made
digest1=$(cut -d' ' -f2 line.v1) digest2=$(cut -d' ' -f2 line.v2) only=$(sed -n 2p blobs.v1) # which v2 has not
check "SBOMs, a key pair" described

# ---- a registry ----
listen() {
    cat >registry.yml <<END || return 1
version: 0.1
log: {level: info}
storage: {filesystem: {rootdirectory: /w/registry}, delete: {enabled: true}}
http: {addr: "$host"}
END
    die=
    setpriv --pdeathsig KILL true 2>/dev/null && die="setpriv --pdeathsig KILL" # even when this script is killed
    env -i PATH="$PATH" $die "$chroot" "$root" docker-registry serve /w/registry.yml >registry.log 2>&1 &
    pid=$!
    for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
        look http 5000 GET /v2/ body 2>/dev/null | grep -q ^200 && return
        kill -0 "$pid" || break
        sleep 0.$((i / 3 + 1))
    done
    tail -n 5 registry.log
    return 1
}
at() { # at REPO:TAG DIGEST: the registry has it, by its own word
    is "$(look http 5000 GET "/v2/${1%:*}/manifests/${1#*:}" body)" "200 $2" && cmp body "$(blob layout "$2")"
}
check "registry: listens on 127.0.0.1" listen
[ "$failed" = 0 ] || finish

# ---- round trips ----
push() { oras cp --from-oci-layout --to-plain-http "/w/$1" "$host/$2"; } # push LAYOUT:TAG REPO:TAG
pull() { oras cp --from-plain-http --to-oci-layout "$host/$1" "/w/$2"; } # pull REPO:REF LAYOUT:TAG
oras_copies() {
    for tag in v1 v2; do
        oras cp --from-oci-layout --to-oci-layout /w/layout:$tag /w/copy:$tag && identical copy $tag || return 1
    done
    sound copy v1 v2 && holds copy blobs.v1 blobs.v2
}
oras_pushes() {
    push layout:v1 snap:v1 && push layout:v2 snap:v2 && at snap:v1 "$digest1" && at snap:v2 "$digest2" &&
        is "$(oras resolve --plain-http $repo:v2)" "$digest2" && pull snap:v2 pulled:v2 && identical pulled v2 &&
        pull snap:v1 pulled:v1 && identical pulled v1 && sound pulled v1 v2 && holds pulled blobs.v1 blobs.v2 &&
        pull "snap@$digest2" bydigest:w && identical bydigest v2 w && means bydigest w v2 && means bydigest "$digest2" v2
}
oras_files() { # a pull makes files, by their titles
    oras pull --plain-http -o /w/files $repo:v2 && cd files && is "$(echo *)" "layer0.chunks layer0.mem layer1.chunks layer1.mem" &&
        sha256sum layer0.mem layer0.chunks layer1.mem layer1.chunks | cut -c1-64 >../got && cd .. && sed 1,2d blobs.v2 | diff - got
}
oras_tags() { # one more, then none: `manifest delete` takes all tags of a digest and what only they need
    as tagged layout && oras_tag tagged:v1 again && tags tagged "again v1 v2" && sound tagged v1 v2 &&
        means tagged again v1 && is "$(rows tagged | grep -c "$digest1")" 2 &&
        take_back tagged:v1 && tags tagged v2 && sound tagged v2 && holds tagged blobs.v2
}
oras_empties() { # an index whose entries are `null`
    take_back tagged:v2 && grep '"manifests":null' tagged/index.json && is "$(rows tagged)" "" &&
        fine tagged && collect tagged && dump copy layout v1 tagged v3 && identical tagged v1 v3 && means tagged v3 v1
}
skopeo_copies() { # an entry by its number, through a tar, and told to compress, which is not for blobs of these types
    first=$(look entries layout | head -n 1 | grep -o 'sha256:[0-9a-f]*') && copy oci:/w/layout:@0 oci:/w/s:a &&
        is "$(dump load s a | cut -d' ' -f2)" "$first" && copy oci:/w/layout:v2 oci-archive:/w/s.tar:v2 &&
        copy oci-archive:/w/s.tar:v2 oci:/w/s2:v2 && identical s2 v2 && copy docker://$repo:v1 oci:/w/s2:v1 && identical s2 v1 &&
        sound s2 v1 v2 && copy --dest-compress --dest-compress-format zstd oci:/w/s2:v2 docker://$host/zstd:v2 &&
        at zstd:v2 "$digest2"
}
podman_pulls() { # the store of its artifacts is a layout
    for tag in v1 v2; do
        digest=$(cut -d' ' -f2 line.$tag)
        podman artifact pull -q --tls-verify=false $repo:$tag && identical $pods $tag $repo:$tag && means $pods "$digest" $tag &&
            is "$(podman artifact inspect $repo:$tag | sed -n 's/^ *"Digest": "\(.*\)"/\1/p')" "$digest" || return 1
    done
    fine $pods && holds $pods blobs.v1 blobs.v2 && is "$(rows $pods | cut -d' ' -f1 | xargs)" "$repo:v1 $repo:v2"
}
podman_pushes() { # what it removes, the other one does not miss; and it takes none for an image
    podman artifact push -q --tls-verify=false $repo:v2 && at snap:v2 "$digest2" && podman artifact rm $repo:v1 &&
        holds $pods blobs.v2 && means $pods "$digest2" v2 && fine $pods &&
        ! podman pull -q --tls-verify=false $repo:v2 2>out && grep "unsupported image-specific operation on artifact" out
}
pods=podman/artifacts
check "oras: from layout to layout" oras_copies
check "oras: to a registry and back, by tag and by digest" oras_pushes
check "oras: pull gives named files" oras_files
check "oras: a second tag, and delete, which leaves the delta what it shares" oras_tags
check "oras: a layout that it emptied" oras_empties
check "skopeo: by number, through a tar, told to compress" skopeo_copies
if podman artifact ls >podman.log 2>&1; then
    check "podman: artifact pull, and its store is a layout" podman_pulls
    check "podman: a snapshot in its store is found by the name it has there" means $pods $repo:v2 v2
    check "podman: artifact push and rm, and no image" podman_pushes
else skip "podman" "$(tail -n 1 podman.log)"; fi

# ---- what is said of v1, in its layout: an SBOM, a signature, and a signature of the SBOM ----
attach() { # attach LAYOUT:REF TYPE FILE: prints the digest
    oras attach --oci-layout "/w/$1" --disable-path-validation --artifact-type "$2" "/w/$3:$2" >attach.log || return 1
    sed -n 's/^Digest: //p' attach.log | grep .
}
said() { # said LAYOUT:REF: the digests of what is said of it
    oras discover --oci-layout --format json "/w/$1" | sed -n 's/^ *"digest": "\(.*\)",/\1/p' | sort | xargs
}
sorted() { printf '%s\n' "$@" | sort | xargs; }
all_said() { # all_said DIR:REF [DIGEST...]: the above, and those
    ref=$1
    shift
    is "$(said "$ref")" "$(sorted "$sbom" "$sig1" "$@")" && is "$(said "${ref%%[:@]*}@$sbom")" "$sig2"
}
signed() { cosign sign-blob --output-signature "/w/$2" "/w/$1"; } # signed FILE SIGNATURE
verified() { cosign verify-blob --signature "/w/$2" "/w/$1"; }
attached() {
    as att layout && sbom=$(attach att:v1 $spdx sbom.json) &&
        cp "$(blob att "$digest1")" of_v1 && cp "$(blob att "$sbom")" of_sbom && signed of_v1 sig.v1 &&
        sig1=$(attach att:v1 $signature sig.v1) && signed of_sbom sig.sbom && sig2=$(attach "att@$sbom" $signature sig.sbom) &&
        tags att "- - - v1 v2" && all_said att:v1 && is "$(said att:v2)" "" &&
        as att_large att && large=$(attach att_large:v1 $spdx large.json) &&
        for d in att att_large; do look order $d "$digest1" "$digest2" "$sbom" || return 1; done # oras leaves that to chance
}
shown() { # shown DIR: as in layout, and what v1 alone takes is at least as much
    rows layout >want && rows "$1" >got && cut -d' ' -f1-3 want >w && cut -d' ' -f1-3 got | diff w - &&
        is "$(sed -n '2s/.* //p' got)" "$(sed -n '2s/.* //p' want)" || return 1
    own=$(sed -n '1s/.* //p' got) least=$(sed -n '1s/.* //p' want)
    case $own in *[!0-9]*) is "$own" "at least $least" ;; *) [ "$own" -ge "$least" ] ;; esac
}
kept() { # kept DIR: gc changes nothing
    held "$1" >before && cp "$1/index.json" index && collect "$1" && holds "$1" before && cmp index "$1/index.json" &&
        sound "$1" v1 v2
}
cleared() { # cleared DIR: v2 is left and no more; other tools find that sound
    holds "$1" blobs.v2 && tags "$1" v2 && sound "$1" v2 && identical "$1" v2 && is "$(said "$1:v2")" "" &&
        is "$(oras repo tags --oci-layout "/w/$1")" v2 && umoci gc --layout "/w/$1" && holds "$1" blobs.v2 &&
        is "$(umoci ls --layout "/w/$1")" v2
}
freed() { as t "$1" && tool rm t v1 && collect t && cleared t; } # freed FROM: without its tag v1 goes, with all that is said of it
attached_kept() { as t att && kept t && all_said t:v1; }
attached_neighbours() { # what oras wrote into the index stays, byte by byte
    as t att && look entries att | sort >before && dump copy layout v2 t v3 && tool tag t v1 w && tool rm t v3 && tool rm t w &&
        look entries t >after && grep -xFf before after | sort | diff before - && sound t v1 v2 && all_said t:v1
}
attached_travels() { # with all that is said of it, to a registry and back
    oras cp -r --from-oci-layout --to-plain-http /w/att:v1 $host/att:v1 && at att:v1 "$digest1" &&
        oras cp -r --from-plain-http --to-oci-layout $host/att:v1 /w/back:v1 && identical back v1 &&
        look order back "$digest1" "$sbom" && sound back v1 && all_said back:v1 &&
        oras blob fetch --oci-layout "/w/back@sha256:$(sha256sum <sig.v1 | cut -c1-64)" -o /w/sig && verified of_v1 sig &&
        ! verified of_sbom sig
}
attached_backwards() { # its entries in the order that has most to follow from the first
    as t att && look order t "$sig2" "$sbom" "$sig1" && is "$(look entries t | grep -c .)" 5 && sound t v1 v2 &&
        shown t && kept t && all_said t:v1
}
attached_young() { # within the grace time it stays
    as t att && held t >before && tool rm t v1 && tool gc --grace 3600 t && holds t before && all_said "t@$digest1" &&
        means t "$digest1" v1 && fine t && collect t && cleared t
}
attached_two_tags() {
    as t att && oras_tag t:v1 other && tool rm t v1 && held t >before && collect t && holds t before &&
        all_said t:other && means t other v1 && fine t && tool rm t other && collect t && cleared t
}
attached_tagged() { # for that name's sake, with its own signature
    as t att && oras_tag "t@$sbom" sbom && tool rm t v1 && collect t && tags t "- sbom v2" && sound t v2 &&
        [ ! -e "t/blobs/sha256/$only" ] && oras manifest fetch --oci-layout /w/t:sbom >out &&
        is "sha256:$(sha256sum <out | cut -c1-64)" "$sbom" && is "$(said "t@$sbom")" "$sig2"
}
attached_taken_back() { # by the tool that attached it
    as taken att && take_back "taken@$sig1" && is "$(said taken:v1)" "$sbom" && sound taken v1 v2 &&
        shown taken && freed taken
}
large_kept() { as t att_large && kept t && all_said t:v1 "$large"; }
check "oras: attaches an SBOM, a signature, a signature of the SBOM" attached
check "attached: fsck, verify and load" sound att v1 v2
check "attached: ls shows the snapshots, and what they alone take" shown att
check "attached: gc keeps it while the snapshot has its tag" attached_kept
check "attached: hlsnap saves, tags and untags beside it" attached_neighbours
check "attached: it travels, and the signature is good" attached_travels
check "attached: the index in another order" attached_backwards
check "attached: goes with its snapshot" freed att
check "attached: goes with its snapshot, after the grace time" attached_young
check "attached: goes with its snapshot's last tag" attached_two_tags
check "attached: an SBOM with a tag of its own stays, and keeps no memory" attached_tagged
check "attached: taken back by oras" attached_taken_back
check "attached: an SBOM of 6 MB: fsck, verify and load" sound att_large v1 v2
check "attached: an SBOM of 6 MB: ls" shown att_large
check "attached: an SBOM of 6 MB: gc keeps it" large_kept
check "attached: an SBOM of 6 MB: goes with its snapshot" freed att_large

# ---- cosign: a signature, an attestation and an SBOM, as tags sha256-<hex>.sig, .att and .sbom ----
cosigned() {
    cosign sign "$repo@$digest1" && cosign attest --predicate /w/sbom.json --type spdxjson "$repo@$digest1" &&
        cosign attach sbom --sbom /w/sbom.json --type spdx $repo:v1 && at snap:v1 "$digest1" && good $repo:v1 &&
        ! cosign verify $repo:v2 2>out && grep 'no signatures found' out
}
good() { # good REF...: signed and attested is this very manifest
    cosign verify "$@" >out && grep "\"docker-manifest-digest\":\"$digest1\"" out &&
        cosign verify-attestation --type spdxjson "$@" >out && sed 's/.*"payload":"\([^"]*\)".*/\1/' out | base64 -d >payload &&
        grep "\"subject\":\[{[^}]*\"digest\":{\"sha256\":\"${digest1#sha256:}\"}}\]" payload &&
        grep "\"predicate\":{\"of\":\"$digest1\",\"score\":7.5,\"spdxVersion\":\"SPDX-2.3\"}" payload
}
cosign_tags() { for x in att sbom sig; do echo "$hex1.$x"; done; }
hex1=sha256-${digest1#sha256:}
to_layout() { # by skopeo, one by one
    as cos layout && for t in $(cosign_tags); do copy "docker://$repo:$t" "oci:/w/cos:$t" || return 1; done &&
        tags cos "$(cosign_tags | xargs) v1 v2"
}
cosign_kept() { # and good where it is brought to
    as t cos && kept t && for t in v1 $(cosign_tags); do copy "oci:/w/t:$t" "docker://$host/cos:$t" || return 1; done &&
        at cos:v1 "$digest1" && good $host/cos:v1
}
cosign_two_tags() {
    as t cos && umoci tag --image /w/t:v1 other && tool rm t v1 && held t >before && collect t && holds t before &&
        means t other v1 && fine t && umoci rm --image /w/t:other && collect t && cleared t
}
fallback() { # where a registry knows no referrers
    oras attach --plain-http $repo:v1 --disable-path-validation --artifact-type $spdx "/w/sbom.json:$spdx" && as fb layout &&
        copy --all "docker://$repo:$hex1" "oci:/w/fb:$hex1" && look entry fb "$hex1" | grep "$index_type" && sound fb v1 v2 &&
        shown fb && as t fb && kept t
}
fallback_freed() { as t fb && tool rm t v1 && collect t && [ ! -e "t/blobs/sha256/$only" ] && sound t v2; }
saved() { # cosign's own layout: the snapshot and what is said of it are entries without names
    cosign save --dir /w/saved $repo:v1 && tags saved "- - -" && means saved "$digest1" v1 && fine saved &&
        good --local-image /w/saved && tool tag saved "$digest1" v1 && good --local-image /w/saved
}
saved_kept() { # while the snapshot has a tag
    as t saved && held t >before && collect t && holds t before && good --local-image /w/t && sound t v1 &&
        cosign load --dir /w/t $host/loaded:v1 && at loaded:v1 "$digest1" && good $host/loaded:v1
}
saved_freed() { # no more than what is said of it is left
    as t saved && tool rm t v1 && collect t && fine t && is "$(rows t)" "" && is "$(held t | grep -xFf blobs.v1)" ""
}
check "cosign: sign, verify, attest, verify-attestation" cosigned
check "cosign: its tags in a layout" to_layout
check "cosign: fsck, verify and load" sound cos v1 v2
check "cosign: ls shows the snapshots, and what they alone take" shown cos
check "cosign: gc keeps what is signed, and that is good elsewhere" cosign_kept
check "cosign: signatures go with their snapshot" freed cos
check "cosign: signatures go with their snapshot's last tag, whoever took it" cosign_two_tags
check "cosign: save" saved
check "cosign: save, then gc" saved_kept
check "cosign: save, then rm and gc" saved_freed
check "referrers by tag: an index that lists them" fallback
check "referrers by tag: keep no memory" fallback_freed

# ---- an index in the index that lists a snapshot ----
bundle() { # bundle DIR FROM
    as "$1" "$2" &&
        printf '{"schemaVersion":2,"mediaType":"%s","manifests":[%s]}' $index_type "$(look entry layout v1)" >bundle.json &&
        oras manifest push --oci-layout --media-type $index_type "/w/$1:bundle" /w/bundle.json
}
pinned() { held "$1" >before && tool rm "$1" v1 && collect "$1" && holds "$1" before && fine "$1" && sound "$1" v2; }
nested() {
    bundle nest layout && tags nest "bundle v1 v2" && sound nest v1 v2 && as t nest && pinned t &&
        oras manifest fetch --oci-layout "/w/t:bundle" >out && cmp out bundle.json
}
nested_found() { # without a tag, by its digest
    as t nest && pinned t && tags t "- bundle v2" && means t "$digest1" v1 &&
        oras manifest fetch --oci-layout "/w/t@$digest1" >out && cmp out "$(blob layout "$digest1")"
}
nested_said() { bundle t att && pinned t && all_said "t@$digest1"; }
nested_freed() { # nested_freed FROM
    bundle t "$1" && pinned t && umoci rm --image /w/t:bundle && collect t && cleared t
}
check "a nested index: what it lists stays" nested
check "a nested index: what it lists is found by its digest" nested_found
check "a nested index: when it goes, so does that" nested_freed layout
check "a nested index: what is said of what it lists stays, too" nested_said
check "a nested index: when it goes, so does that, with all that is said of it" nested_freed att
ended() { p=$pid && stop && ! kill -0 "$p" 2>/dev/null && ! look http 5000 GET /v2/ body; }
check "registry: ends" ended
finish
