/* test_isolation_syscall.c - test_isolation with a guest that makes system calls: SYSCALL leads somewhere, and WRFSBASE is allowed.
   cc: cc -std=gnu11 -O2 -I.. test_isolation_syscall.c -o test_isolation_syscall
   run: GUEST_DIR=... ./test_isolation_syscall [NAME]                   guest_isolation_syscall.elf lies in GUEST_DIR */
#define ISO_GUEST "guest_isolation_syscall.elf"
#include "test_isolation.c"
