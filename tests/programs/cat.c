/* cat.c - a program without stdio: a line that says how it was started, then its input. With "fault", "abort" or "socket" as its
   argument it does that instead. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static volatile int *volatile nowhere = (volatile int *)16;

int main(int argc, char **argv) {
    char text[4096];
    ssize_t n;
    int i, len = 0;
    for (i = 0; i < argc; i++) len += snprintf(text + len, sizeof(text) - (size_t)len, "%.100s,", argv[i]);
    len += snprintf(text + len, sizeof(text) - (size_t)len, "%s\n", getenv("SAY") ? getenv("SAY") : "");
    if (write(1, text, (size_t)len) != len) return 1;
    if (argc > 1 && !strcmp(argv[1], "fault")) *nowhere = 1;
    if (argc > 1 && !strcmp(argv[1], "abort")) abort();
    if (argc > 1 && !strcmp(argv[1], "socket")) return socket(AF_INET, SOCK_STREAM, 0) < 0 ? 4 : 0;
    while ((n = read(0, text, sizeof(text))) > 0)
        if (write(1, text, (size_t)n) != n) return 1;
    return n < 0 ? 2 : 0;
}
