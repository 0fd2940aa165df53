/* machine.h - what a bench says of the machine it ran on: comment lines before its rows. */
#ifndef MACHINE_H
#define MACHINE_H

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

static void print_machine(void) {
    struct utsname u;
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "model name", 10) == 0) {
            printf("# cpu: %s", strchr(line, ':') + 2);
            break;
        }
    if (f) fclose(f);
    uname(&u);
    printf("# kernel: %s %s\n", u.sysname, u.release);
}

#endif
