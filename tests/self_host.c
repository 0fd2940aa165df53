/* self_host.c - loads self_guest.c built as a shared object and lets it be its own guest; knows nothing of hlsnap.
   cc: cc self_host.c -ldl -o self_host
   run: ./self_host ./self.so [wait|other|stack|null]     other: the .so is asked to run this program's data as its module */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static const void *const not_a_module[8];

int main(int argc, char **argv) {
    int (*run)(int, char **);
    const char *(*other)(const void *);
    const char *local = "on the stack";
    void *so = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL, *p;
    if (!so) return printf("# %s\n", argc > 1 ? dlerror() : "usage: self_host SO [MODE]") < 0 ? 2 : 1;
    p = dlsym(so, "self_run");
    memcpy(&run, &p, sizeof(run));
    p = dlsym(so, "self_other");
    memcpy(&other, &p, sizeof(other));
    if (!run || !other) return 1;
    if (argc > 2 && strcmp(argv[2], "other") == 0) return puts(other(not_a_module)) < 0;
    if (argc > 2 && strcmp(argv[2], "stack") == 0) return puts(other(&local)) < 0;
    if (argc > 2 && strcmp(argv[2], "null") == 0) return puts(other((const void *)16)) < 0;
    return run(argc - 1, argv + 1);
}
