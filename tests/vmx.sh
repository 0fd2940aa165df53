#!/bin/sh
# vmx.sh OUTDIR FILE... - run TAP tests on kvm_intel: Debian's cloud kernel in Bochs, which emulates a CPU with VMX, EPT and
# unrestricted guests; needs no /dev/kvm. tests/vm.sh says what FILEs may be, and what the environment sets; the programs see
# VMX=1, too. VM_CPU: a model of `bochs-bin --help cpu`, default corei7_haswell_4770.
# What Bochs 2.7 and 3.0 have wrong, so that it is not looked for here:
#   - entered from RFLAGS.IF = 0, a guest with IF = 0 is not interrupted by the host's timer: hlsnap's guests have IF = 1;
#   - models with XSAVEC (corei7_skylake_x on): Linux finds XSAVE inconsistent and switches it off; kept on by
#     clearcpuid=xsavec,xsaves, a compacted XRSTOR leaves MXCSR as it was, which the reset tests find;
#   - CPUID 0x15 of the same models tells another frequency than the emulated one: tsc_early_khz= tells the right one.
top=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=tests/vm.sh
. "$top/tests/vm.sh"

initramfs kvm-intel "SVM=1 VMX=1" "$@"

# ---- a CD: Bochs loads no kernel by itself ----
ips=50000000 bios=/usr/share/bochs disc=$base.disc
boot="console=ttyS0 quiet loglevel=1 mitigations=off intel_pstate=disable tsc_early_khz=$((ips / 1000)) tsc=reliable random.trust_cpu=1"
faster="cryptomgr.notests=1 initcall_blacklist=crypto_kdf108_init,init_kprobe_trace"
rm -rf "$disc" && mkdir "$disc"
cp "$vmlinuz" "$disc/vmlinuz"
cp "$base.cpio" "$disc/initrd"
cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$disc"
cat >"$disc/isolinux.cfg" <<CFG
default linux
prompt 0
label linux
kernel /vmlinuz
initrd /initrd
append $boot $faster clearcpuid=xsavec,xsaves oops=panic softlockup_panic=1 panic=-1
CFG
run xorriso -as mkisofs -quiet -o "$base.iso" -b isolinux.bin -c boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table "$disc" \
    >"$base.iso.log" 2>&1 || die "xorriso failed, see $base.iso.log"

# ---- Bochs ----
cat >"$base.bochsrc" <<CFG
config_interface: textconfig
display_library: term
cpu: model=${VM_CPU:-corei7_haswell_4770}, count=1, ips=$ips, reset_on_triple_fault=0
memory: guest=768, host=768
romimage: file=$bios/BIOS-bochs-latest, options=fastboot
vgaromimage: file=/usr/share/vgabios/vgabios.bin
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path="$base.iso", status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev="$log.raw"
log: $base.bochs.log
panic: action=fatal
error: action=ignore
info: action=report
debug: action=ignore
clock: sync=none, time0=local
CFG
debugger='' code=0
echo c >"$base.rc" # Debian's Bochs 2.7 starts in its debugger, where this says go on; 3.0 does not
! bochs-bin --help 2>&1 | grep -q -e ' -rc ' || debugger="-rc $base.rc"
rm -f "$log.raw"
# shellcheck disable=SC2086
TERM=vt100 run timeout -k 5 $((limit * 2 * $# + 240)) bochs-bin -q $debugger -f "$base.bochsrc" </dev/null >"$base.screen" 2>&1 ||
    code=$?
touch "$log.raw"
tr -d '\r' <"$log.raw" >"$log"
rm -f "$log.raw"
[ $code != 124 ] && [ $code != 137 ] || trouble="timeout, Bochs was killed" # a power off is an exit code, too
report
