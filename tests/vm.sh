# shellcheck shell=sh
# vm.sh - sourced by svm.sh and vmx.sh: Debian's cloud kernel, an initramfs with the tests in it, and the report of what they said.
#   INSTALL=1     may apt-get install what is missing
#   VM_SUITE      the Debian release whose kernel runs, default bookworm (Linux 6.1); bullseye has 5.10
#   VM_ARGS       arguments for every program (split at blanks)
#   VM_ENV        more of their environment, NAME=VALUE... (split at blanks)
#   VM_TIMEOUT    seconds for each program, default 300
#   VM_CPU        the emulator's CPU model
#   VM_KEEP       a directory below /tmp that the programs make: OUTDIR/NAME.tar.gz; such a FILE is unpacked there again
# FILEs are programs that print TAP, static or not (what ldd names comes along), and guests: *.elf, to be found in GUEST_DIR.
# The programs see SVM=1 (all is slow) and may use /bin/sh, /dev/kvm, /proc, /sys, /tmp and /dev/shm. Everything is written below
# OUTDIR; the log is OUTDIR/NAME-SUITE.log. exit 0 all passed or skipped, 1 failure, 77 no emulator or kernel.
set -eu
export LC_ALL=C
exec 3>&1 # so that redirected commands still show what they run
vm=$(basename "$0" .sh)
say() { printf '+ %s\n' "$*" >&3; }
run() { say "$@"; "$@"; }
die() { printf '%s: %s\n' "$vm" "$*" >&2; exit 1; }
skip() { printf '# SKIP %s: %s\n0 passed, 0 failed, 1 skipped\n' "$vm" "$*"; exit 77; }

[ $# -ge 2 ] || die "usage: $vm.sh OUTDIR FILE..."
mkdir -p "$1"
build=$(cd "$1" && pwd)
shift
suite=${VM_SUITE:-bookworm} limit=${VM_TIMEOUT:-300}
base=$build/$vm-$suite
root=$base.root log=$base.log kdir=$build/kernel-$suite started=$(date +%s) status=0 trouble=
# shellcheck source=tests/need.sh disable=SC2154
. "$top/tests/need.sh"

# ---- emulator, busybox, kernel ----
"need_$vm"
wants=$missing
need_done >"$build/need.log" 2>&1 || skip "no$wants (INSTALL=1 installs them)"
busybox=$(command -v busybox)
[ -z "$(LD_TRACE_LOADED_OBJECTS=1 "$busybox" true)" ] || skip "busybox is not static (busybox-static is)"

# From the machine's own mirrors, with that suite's name put in. The oldest that is to be had: it has least of what came later.
kernel_get() (
    private_apt_suite "$suite" amd64 </dev/null || exit 1
    private_apt cache pkgnames linux-image- | grep -E '^linux-image-[0-9][0-9.]*-[0-9]+-cloud-amd64$' | sort -V \
        >"$build/apt/kernels"
    cd "$build/apt"
    while read -r name; do
        private_apt get download "$name" || continue
        dpkg-deb -x "$name"_*.deb "$kdir.part" && rm -rf "$build/apt" && mv "$kdir.part" "$kdir"
        exit 0
    done <"$build/apt/kernels"
    exit 1
)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
if [ ! -d "$kdir" ]; then
    [ -e $keyring ] || skip "no $keyring (package debian-archive-keyring) to check the kernel with"
    rm -rf "$kdir.part"
    kernel_get >"$build/apt.log" 2>&1 || skip "no kernel of Debian $suite from this machine's mirrors, see $build/apt.log"
fi
for vmlinuz in "$kdir"/boot/vmlinuz-*; do :; done
[ -f "$vmlinuz" ] || skip "no kernel in $kdir"

# ---- initramfs ----
module() ( # NAME: unpack it behind what it depends on; a subshell, so that it can recurse
    ko=$(find "$kdir" -name "$(printf '%s' "$1" | sed 's/[-_]/[-_]/g').ko*" | head -n 1)
    [ -n "$ko" ] && [ ! -f "$root/modules/$1.ko" ] || exit 0 # built in, or done
    case $ko in *.xz) xz -dc "$ko" ;; *) cat "$ko" ;; esac >"$root/modules/$1.ko"
    for i in $(tr '\0,' '\n ' <"$root/modules/$1.ko" | sed -n 's/^depends=//p'); do module "$i"; done
    strip -g -R .BTF -R .BTF.ext "$root/modules/$1.ko" # which takes an emulator seconds to look at, as does a signature
    printf '%s\n' "$1" >>"$root/modules/order"
)
file() { # file FILE: a program with its libraries, or a guest
    name=${1##*/}
    case $name in '' | *[!A-Za-z0-9._+-]*) die "bad name: $1" ;; esac
    case $name in *.tar.gz) [ -s "$1" ] ;; *) [ -x "$1" ] ;; esac || die "not executable, or nothing in it: $1"
    [ ! -e "$root/bin/$name" ] || die "two files are named $name"
    cp "$1" "$root/bin/$name"
    case $name in *.elf | *.tar.gz) return ;; esac
    printf '%s\n' "$name" >>"$root/tests"
    ldd "$1" 2>/dev/null | sed -n 's,^[^/]*\(/[^ ]*\) (0x.*,\1,p' | while read -r lib; do
        mkdir -p "$root${lib%/*}" && cp -L "$lib" "$root$lib"
    done
}
initramfs() { # initramfs MODULE ENVIRONMENT FILE...
    rm -rf "$root"
    mkdir -p "$root/bin" "$root/sbin" "$root/modules" "$root/proc" "$root/sys" "$root/dev" "$root/tmp"
    cp "$busybox" "$root/sbin/busybox"
    : >"$root/modules/order"
    module "$1"
    say "modules: $(tr '\n' ' ' <"$root/modules/order")"
    environment=$2
    shift 2
    for i; do file "$i"; done
    printf '%s\n' "${VM_ARGS:-}" >"$root/args"
    cat >"$root/init" <<INIT
#!/sbin/busybox sh
/sbin/busybox --install -s /sbin
export PATH=/sbin:/bin HOME=/tmp GUEST_DIR=/bin $environment ${VM_ENV:-}
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mkdir /dev/shm; mount -t tmpfs tmp /tmp; mount -t tmpfs shm /dev/shm
[ -e /bin/sh ] || ln -s /sbin/sh /bin/sh
for i in /bin/*.tar.gz; do [ ! -e \$i ] || tar xzf \$i -C /tmp; done
for i in \$(cat /modules/order); do insmod /modules/\$i.ko; done
[ -c /dev/kvm ] || { dmesg | tail -n 20; echo "@@ no /dev/kvm"; poweroff -f; }
echo "@@ up \$(cut -d ' ' -f 1 /proc/uptime) s, \$(uname -r)"
set -f; set -- \$(cat /args); dmesg -c >/dev/null
for i in \$(cat /tests); do
    printf '\n@@ %s start\n' \$i
    timeout -s KILL $limit /bin/\$i "\$@" </dev/null
    code=\$?
    case \$code in 0|1|77) ;; *) echo; dmesg -c | tail -n 5 | sed 's/^/# dmesg: /' ;; esac
    printf '\n@@ %s exit %s\n' \$i \$code
done
[ -z "${VM_KEEP:-}" ] || { echo '@@ keep'; tar c -C /tmp ${VM_KEEP:-} | gzip | base64; echo '@@ kept'; }
sleep 1 # for what is still on its way through the serial port
poweroff -f
INIT
    chmod 755 "$root/init"
    say "cpio $base.cpio"
    (cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null) >"$base.cpio" # to unpack it takes an emulator longer than to read it
}

# ---- report: of $log, and of $trouble where the emulator had some; exits ----
report() {
    [ -z "${VM_KEEP:-}" ] || sed -n '/^@@ keep$/,/^@@ kept$/p' "$log" | grep -v '^@@' | base64 -d >"$build/$VM_KEEP.tar.gz" ||
        trouble="$VM_KEEP is lost"
    sed -n "s/^@@ up /# $vm: booted in /p" "$log"
    ! grep -q '^@@ no /dev/kvm' "$log" || trouble="no /dev/kvm in the guest"
    ! grep -q 'Kernel panic' "$log" || trouble="kernel panic"
    awk -v limit="$limit" -v vm="$vm" '
        function bad(why) { printf "not ok - %s: %s\n", name, why; failed++; status = 1 }
        FNR == NR { todo[++tests] = $1; next }
        /^@@ [^ ]+ start$/ { name = $2; closed = nfail = 0; print "# " vm ": " name; next }
        name == "" || /^$/ || /^\[ *[0-9]+\.[0-9]+\] / { next } # kernel messages stay in the log
        $1 == "@@" && $2 == name && $3 == "exit" {
            hint = $4 == 137 ? " (limit " limit " s)" : $4 == 127 ? " (a library is missing?)" : ""
            if (!closed) bad("exit " $4 ", no closing line" hint)
            else if ($4 != 0 && $4 != 77 && !nfail) bad("exit " $4)
            done[name] = 1; name = ""; next
        }
        { print }
        /^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$/ {
            closed = 1; nfail = $3; passed += $1; failed += $3; skipped += $5; if (nfail > 0) status = 1
        }
        END {
            for (i = 1; i <= tests; i++) if (!(todo[i] in done)) { name = todo[i]; bad("did not finish") }
            printf "%s: %d passed, %d failed, %d skipped\n", vm, passed, failed, skipped; exit status
        }' "$root/tests" "$log" >"$base.tap" || status=1
    [ -z "$trouble" ] || { status=1; printf '# %s: %s; the log ends with\n' "$vm" "$trouble"; tail -n 30 "$log"; }
    echo "# $vm: $(($(date +%s) - started)) s"
    cat "$base.tap"
    exit $status
}
