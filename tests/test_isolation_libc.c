/* test_isolation_libc.c - test_isolation with a Linux program: what a libc and the personality have in registers and memory, too.
   cc: cc -std=gnu11 -O2 -I.. test_isolation_libc.c -o test_isolation_libc
   run: GUEST_DIR=... ./test_isolation_libc [NAME]                      guest_isolation_libc.elf lies in GUEST_DIR */
#define ISO_GUEST "guest_isolation_libc.elf"
#include "test_isolation.c"
