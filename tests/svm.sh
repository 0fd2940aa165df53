#!/bin/sh
# svm.sh OUTDIR BINARY... - run statically linked TAP tests on kvm_amd: Debian's cloud kernel in
# QEMU (TCG, needs no /dev/kvm) with a CPU that has SVM. Everything is written below OUTDIR.
#   INSTALL=1     may apt-get install qemu-system-x86, busybox-static and xz-utils
#   SVM_ARGS      arguments for every binary (split at blanks)
#   SVM_TIMEOUT   seconds for each binary, default 300
#   SVM_KERNEL    kernel package, default linux-image-cloud-amd64 (downloaded, never installed)
#   SVM_CPU       QEMU CPU, default EPYC,+svm
# The binaries see SVM=1 and may use /bin/sh, /dev/kvm, /proc, /sys, /tmp and /dev/shm.
# exit 0 all passed or skipped, 1 failure, 77 no QEMU or kernel. Log: OUTDIR/svm.log
set -eu
export LC_ALL=C
exec 3>&1 # so that redirected commands still show what they run
say() { printf '+ %s\n' "$*" >&3; }
run() { say "$@"; "$@"; }
die() { printf 'svm: %s\n' "$*" >&2; exit 1; }
skip() { printf '# SKIP svm: %s\n' "$*"; exit 77; }
have() { for i; do command -v "$i" >/dev/null || return 1; done; }

[ $# -ge 2 ] || die "usage: svm.sh OUTDIR BINARY..."
mkdir -p "$1"
out=$(cd "$1" && pwd)
shift
limit=${SVM_TIMEOUT:-300} kernel=${SVM_KERNEL:-linux-image-cloud-amd64}
root=$out/svm.root log=$out/svm.log kdir=$out/$kernel

# ---- QEMU, busybox, kernel ----
if ! have qemu-system-x86_64 busybox xz; then
    [ "${INSTALL:-0}" = 1 ] || skip "no qemu-system-x86_64, busybox or xz (INSTALL=1 installs them)"
    run apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends \
        qemu-system-x86 busybox-static xz-utils >"$out/apt.log" 2>&1 || skip "apt-get failed, see $out/apt.log"
fi
busybox=$(command -v busybox) || skip "no busybox"
[ -z "$(LD_TRACE_LOADED_OBJECTS=1 "$busybox" true)" ] || skip "busybox is not static (busybox-static is)"
if [ ! -d "$kdir" ]; then
    have apt-get apt-cache dpkg-deb || skip "no apt to get the kernel with"
    real=$(apt-cache depends "$kernel" 2>/dev/null | sed -n 's/^ *Depends: *\(linux-image-[0-9].*\)/\1/p')
    rm -rf "$kdir.part" && mkdir "$kdir.part"
    (cd "$kdir.part" && run apt-get download "${real:-$kernel}") >"$out/apt.log" 2>&1 ||
        skip "no kernel package ${real:-$kernel}, see $out/apt.log"
    run dpkg-deb -x "$kdir.part"/*.deb "$kdir.part" || skip "cannot unpack ${real:-$kernel}"
    rm -f "$kdir.part"/*.deb && mv "$kdir.part" "$kdir"
fi
for vmlinuz in "$kdir"/boot/vmlinuz-*; do :; done
[ -f "$vmlinuz" ] || skip "no kernel in $kdir"

# ---- initramfs ----
module() ( # NAME: unpack it behind what it depends on; a subshell, so that it can recurse
    ko=$(find "$kdir" -name "$(printf '%s' "$1" | sed 's/[-_]/[-_]/g').ko*" | head -n 1)
    [ -n "$ko" ] && [ ! -f "$root/modules/$1.ko" ] || exit 0 # built in, or done
    case $ko in *.xz) xz -dc "$ko" ;; *) cat "$ko" ;; esac >"$root/modules/$1.ko"
    for i in $(tr '\0,' '\n ' <"$root/modules/$1.ko" | sed -n 's/^depends=//p'); do module "$i"; done
    printf '%s\n' "$1" >>"$root/modules/order"
)
rm -rf "$root"
mkdir -p "$root/bin" "$root/sbin" "$root/modules" "$root/proc" "$root/sys" "$root/dev" "$root/tmp"
cp "$busybox" "$root/sbin/busybox"
: >"$root/modules/order"
module kvm-amd
say "modules: $(tr '\n' ' ' <"$root/modules/order")"
for i; do
    name=${i##*/}
    case $name in '' | *[!A-Za-z0-9._+-]*) die "bad binary name: $i" ;; esac
    [ -x "$i" ] || die "not executable: $i"
    [ ! -e "$root/bin/$name" ] || die "two binaries are named $name"
    cp "$i" "$root/bin/$name"
    printf '%s\n' "$name" >>"$root/tests"
done
printf '%s\n' "${SVM_ARGS:-}" >"$root/args"
cat >"$root/init" <<INIT
#!/sbin/busybox sh
/sbin/busybox --install -s /sbin
export PATH=/sbin:/bin HOME=/tmp SVM=1
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mkdir /dev/shm; mount -t tmpfs tmp /tmp; mount -t tmpfs shm /dev/shm
[ -e /bin/sh ] || ln -s /sbin/sh /bin/sh
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
poweroff -f
INIT
chmod 755 "$root/init"
say "cpio $out/svm.cpio.gz"
(cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$out/svm.cpio.gz"

# ---- run and report ----
# One CPU: with two, QEMU's nested SVM under TCG locks the emulated machine up every second run; its kernel's watchdog then
# says so, and panics. Should that happen all the same, it alone is tried again, and said; what a test reports stands.
boot() {
    code=0
    run timeout --foreground -k 5 $((limit * $1 + 120)) qemu-system-x86_64 -accel tcg -cpu "${SVM_CPU:-EPYC,+svm}" \
        -m 2048 -smp 1 -nodefaults -display none -serial stdio -no-reboot -kernel "$vmlinuz" \
        -initrd "$out/svm.cpio.gz" -append "console=ttyS0 quiet loglevel=1 oops=panic softlockup_panic=1 panic=-1" \
        </dev/null >"$log.raw" 2>&1 || code=$?
    tr -d '\r' <"$log.raw" | grep -v "warning: TCG doesn't support" >"$log" || :
    rm -f "$log.raw"
}
status=0 trouble= try=1
boot $#
while [ $try -lt 4 ] && grep -q 'soft lockup' "$log"; do
    echo "# svm: the emulated machine locked up behind: $(grep -E '^(not )?ok ' "$log" | tail -n 1); once more"
    try=$((try + 1))
    boot $#
done
sed -n 's/^@@ up /# svm: booted in /p' "$log"
[ $code = 0 ] || trouble="QEMU failed with exit code $code"
[ $code != 124 ] && [ $code != 137 ] || trouble="timeout, QEMU was killed"
! grep -q '^@@ no /dev/kvm' "$log" || trouble="no /dev/kvm in the guest"
! grep -q 'Kernel panic' "$log" || trouble="kernel panic"
awk -v limit="$limit" '
    function bad(why) { printf "not ok - %s: %s\n", name, why; failed++; status = 1 }
    FNR == NR { todo[++tests] = $1; next }
    /^@@ [^ ]+ start$/ { name = $2; closed = nfail = 0; print "# svm: " name; next }
    name == "" || /^$/ || /^\[ *[0-9]+\.[0-9]+\] / { next } # kernel messages stay in the log
    $1 == "@@" && $2 == name && $3 == "exit" {
        hint = $4 == 137 ? " (limit " limit " s)" : $4 == 127 ? " (not static?)" : ""
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
        printf "svm: %d passed, %d failed, %d skipped\n", passed, failed, skipped; exit status
    }' "$root/tests" "$log" >"$out/svm.tap" || status=1
[ -z "$trouble" ] || { status=1; printf '# svm: %s; the log ends with\n' "$trouble"; tail -n 30 "$log"; }
cat "$out/svm.tap"
exit $status
