/* cat.c - a program without stdio: a line that says how it was started, then its input. With "fault", "abort" or "socket" as its
   argument it does that instead; "random", "vectors": see below. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/socket.h>
#include <unistd.h>

static volatile int *volatile nowhere = (volatile int *)16;

int main(int argc, char **argv) {
    char text[4096];
    ssize_t n;
    int i, len = 0;
    for (i = 0; i < argc; i++) len += snprintf(text + len, sizeof(text) - (size_t)len, "%.100s,", argv[i]);
    len += snprintf(text + len, sizeof(text) - (size_t)len, "%s\n", getenv("SAY") ? getenv("SAY") : "");
    if (argc > 1 && !strcmp(argv[1], "random")) { /* what the kernel gave it to begin with */
        const unsigned char *r = (const unsigned char *)getauxval(AT_RANDOM);
        for (i = 0; i < 16; i++) len += snprintf(text + len, sizeof(text) - (size_t)len, "%02x", r[i]);
    }
    if (write(1, text, (size_t)len) != len) return 1;
    if (argc > 1 && !strcmp(argv[1], "fault")) *nowhere = 1;
    if (argc > 1 && !strcmp(argv[1], "abort")) abort();
    if (argc > 1 && !strcmp(argv[1], "socket")) return socket(AF_INET, SOCK_STREAM, 0) < 0 ? 4 : 0;
    while (argc > 1 && !strcmp(argv[1], "vectors")) { /* they are as they were, however long a read takes */
        const unsigned down = 0x3f80, usual = 0x1f80;
        unsigned long x = 0x0123456789abcdef, y = 0;
        unsigned after = 0;
        __asm__ volatile("ldmxcsr %4\n movq %3, %%xmm3\n syscall\n movq %%xmm3, %1\n stmxcsr %2\n ldmxcsr %5"
                         : "=a"(n), "=&r"(y), "=m"(after)
                         : "r"(x), "m"(down), "m"(usual), "0"(0l), "D"(0l), "S"(text), "d"(sizeof(text)) : "rcx", "r11", "xmm3", "memory");
        if (n <= 0 || write(1, x == y && after == down ? "kept\n" : "lost\n", 5) != 5) return n < 0;
    }
    while ((n = read(0, text, sizeof(text))) > 0)
        if (write(1, text, (size_t)n) != n) return 1;
    return n < 0 ? 2 : 0;
}
