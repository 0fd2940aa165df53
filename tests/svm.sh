#!/bin/sh
# svm.sh OUTDIR FILE... - run TAP tests on kvm_amd: Debian's cloud kernel in QEMU (TCG, needs no /dev/kvm) with a CPU that has SVM.
# tests/vm.sh says what FILEs may be, and what the environment sets. VM_CPU: default EPYC,+svm.
top=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=tests/vm.sh
. "$top/tests/vm.sh"

initramfs kvm-amd SVM=1 "$@"

# One CPU: with two, QEMU's nested SVM under TCG locks the emulated machine up every second run; its kernel's watchdog then
# says so, and panics. Should that happen all the same, it alone is tried again, and said; what a test reports stands.
# no_timer_check: on a busy machine the emulated timer may seem dead to the kernel, which then panics.
boot() {
    code=0
    run timeout --foreground -k 5 $((limit * $1 + 120)) qemu-system-x86_64 -accel tcg -cpu "${VM_CPU:-EPYC,+svm}" \
        -m 2048 -smp 1 -nodefaults -display none -serial stdio -no-reboot -kernel "$vmlinuz" -initrd "$base.cpio" \
        -append "console=ttyS0 quiet loglevel=1 no_timer_check oops=panic softlockup_panic=1 panic=-1" \
        </dev/null >"$log.raw" 2>&1 || code=$?
    tr -d '\r' <"$log.raw" | grep -v "warning: TCG doesn't support" >"$log" || :
    rm -f "$log.raw"
}
try=1
boot $#
while [ $try -lt 4 ] && grep -q 'soft lockup' "$log"; do
    echo "# svm: the emulated machine locked up behind: $(grep -E '^(not )?ok ' "$log" | tail -n 1); once more"
    try=$((try + 1))
    boot $#
done
[ $code = 0 ] || trouble="QEMU failed with exit code $code"
[ $code != 124 ] && [ $code != 137 ] || trouble="timeout, QEMU was killed"
report
