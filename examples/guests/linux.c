/* linux.c - the guest runtime as a file of its own, for Linux programs that were not linked with it: guest_desc.runtime.

   cc: cc -O2 -ffreestanding -nostdlib -static-pie -fno-stack-protector -I. examples/guests/linux.c -o linux.elf

   The program is any static x86-64 Linux binary. Its sandbox exports main, feed, more and status: docs/programs.md. */
#define HLSNAP_GUEST_RUNTIME
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
