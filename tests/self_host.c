/* self_host.c - loads self_guest.c built as a shared object and lets it be its own guest; knows nothing of hlsnap.
   cc: cc self_host.c -ldl -o self_host
   run: ./self_host ./self.so [MODE]   other, stack, null: the .so is asked to run this program's data as its module
                                       before: its file is mapped at a low address before it is loaded
                                       memfd: loaded from memory; long: by a path of over 4,095 bytes; both say the message
                                       all other modes are self_guest.c's
        ./self_host exec ./prog ARG    runs a program by a path of over 4,095 bytes */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static const void *const not_a_module[8];

static int map_low(const char *file) {
    const int fd = open(file, O_RDONLY);
    struct stat st;
    if (fd < 0 || fstat(fd, &st)) return -1;
    return mmap((void *)0x100000, (size_t)st.st_size, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0) == MAP_FAILED ? -1 : 0;
}

/* Copies a file into memory; *path names that from then on. */
static int into_memory(const char *file, char *path, size_t cap) {
    const int from = open(file, O_RDONLY), to = (int)syscall(SYS_memfd_create, "plug", 0);
    char buffer[65536];
    ssize_t n;
    while ((n = read(from, buffer, sizeof(buffer))) > 0)
        if (write(to, buffer, (size_t)n) != n) return -1;
    snprintf(path, cap, "/proc/self/fd/%d", to);
    return n < 0 ? -1 : 0;
}

/* Goes down into a directory whose path has over 4,095 bytes, the file with it. */
static int far_down(const char *file) {
    char top[] = "deep.XXXXXX", name[201];
    const int from = open(".", O_RDONLY | O_DIRECTORY);
    int i;
    memset(name, 'd', 200);
    name[200] = 0;
    if (!mkdtemp(top) || chmod(top, 0755) || chdir(top)) return -1;
    for (i = 0; i < 21; i++)
        if (mkdir(name, 0755) || chdir(name)) return -1;
    return linkat(from, file, AT_FDCWD, "it", 0);
}

int main(int argc, char **argv) {
    int (*run)(int, char **);
    const char *(*other)(const void *), *mode = argc > 2 ? argv[2] : "", *local = "on the stack";
    char path[64];
    void *so, *p;
    if (argc < 2) return puts("# usage: self_host SO [MODE]") < 0 ? 2 : 1;
    snprintf(path, sizeof(path), "%.63s", argv[1]);
    if (strcmp(path, "exec") == 0 && argc > 3) return far_down(argv[2]) || execl("./it", "./it", argv[3], (char *)NULL) ? 1 : 0;
    if (strcmp(mode, "before") == 0 && map_low(path)) return 1;
    if (strcmp(mode, "memfd") == 0 && into_memory(argv[1], path, sizeof(path))) return 1;
    if (strcmp(mode, "long") == 0 && (far_down(path) || !strcpy(path, "./it"))) return 1;
    so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!so) return printf("# %s\n", dlerror()) < 0 ? 2 : 1;
    p = dlsym(so, "self_run");
    memcpy(&run, &p, sizeof(run));
    p = dlsym(so, "self_other");
    memcpy(&other, &p, sizeof(other));
    if (!run || !other) return 1;
    if (strcmp(mode, "other") == 0) return puts(other(not_a_module)) < 0;
    if (strcmp(mode, "stack") == 0) return puts(other(&local)) < 0;
    if (strcmp(mode, "null") == 0) return puts(other((const void *)16)) < 0;
    if (strcmp(mode, "before") == 0) argc = 2;
    if (strcmp(mode, "memfd") == 0 || strcmp(mode, "long") == 0) argv[2] = strcpy(path, "message");
    return run(argc - 1, argv + 1);
}
