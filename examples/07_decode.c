/* 07_decode.c - a thousand images, two of three hostile, through Debian's libpng: in this process, in a fork for each, in
   bubblewrap for each, in a micro VM that is put back for each. You learn: what each costs, and that a heap overflow in the
   decoder is an error with a name, behind which the next image decodes. Needs libpng-dev, zlib1g-dev; takes bubblewrap. Fewer
   images, for a slow machine: ./07_decode 100.

   cc: gcc -O2 -static -I.. guests/png.c -lpng16 -lz -lm -o png.elf
   cc: cc -std=gnu11 -O2 -I.. 07_decode.c -lpng16 -lz -lm -o 07_decode
   run: ./07_decode
   prints: 1000 images, all ways agree
   prints: a heap overflow: HLSNAP_ERR_FAULT; the next image: right */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#include "guests/decode.h"
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

enum { IMAGES = 1000, SIDE = 64, MOST = 65536, BWRAPS = 25 };
static struct image { uint8_t *file; size_t size; uint32_t sum; /* 0: no image */ } images[IMAGES];
static uint32_t state = 1;

static uint32_t dice(uint32_t n) { return (state = state * 1664525 + 1013904223) >> 8 > 0 ? (state >> 8) % n : 0; }

static void fix_checksums(uint8_t *file, size_t size) { /* so that what is wrong comes further than the first check */
    size_t at = 8, n, i;
    for (; at + 12 <= size; at += n + 12) {
        n = (size_t)file[at] << 24 | (size_t)file[at + 1] << 16 | (size_t)file[at + 2] << 8 | file[at + 3];
        if (n > size - at - 12) return;
        for (i = 0; i < 4; i++) file[at + 8 + n + i] = (uint8_t)(crc32(0, file + at + 4, (uInt)n + 4) >> (24 - 8 * i));
    }
}

static void make(struct image *m, bool hostile) {
    static uint8_t pixels[SIDE * SIDE * 4];
    png_image image;
    png_alloc_size_t size = MOST;
    size_t i;
    for (i = 0; i < sizeof(pixels); i++) pixels[i] = (uint8_t)(i / 256 + dice(8));
    memset(&image, 0, sizeof(image));
    image.version = PNG_IMAGE_VERSION;
    image.width = image.height = SIDE;
    image.format = PNG_FORMAT_RGBA;
    m->file = (uint8_t *)calloc(1, MOST);
    if (!m->file || !png_image_write_to_memory(&image, m->file, &size, 0, pixels, 0, NULL)) exit(1);
    for (i = hostile ? 1 + dice(8) : 0; i; i--) m->file[8 + dice(i % 2 ? 40 : (uint32_t)size - 8)] ^= (uint8_t)(1 + dice(255));
    if (hostile && dice(4)) fix_checksums(m->file, size);
    m->size = hostile && !dice(5) ? dice((uint32_t)size) : size;
}

static uint32_t here(const struct image *m) {
    uint32_t sum = 0;
    return decode_png(m->file, m->size, false, &sum) ? sum : 0;
}
static uint32_t in_fork(const struct image *m) {
    uint32_t sum = 0;
    int pipes[2];
    pid_t pid;
    if (pipe(pipes) != 0 || (pid = fork()) < 0) return 1;
    if (pid == 0) {
        sum = here(m);
        _exit(write(pipes[1], &sum, sizeof(sum)) != sizeof(sum));
    }
    close(pipes[1]);
    if (read(pipes[0], &sum, sizeof(sum)) != sizeof(sum)) sum = 0;
    close(pipes[0]);
    waitpid(pid, NULL, 0);
    return sum;
}
static uint32_t in_bwrap(const struct image *m) { /* this program again, with the image as its input */
    char command[600], self[400];
    const ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    FILE *f = fopen("07_decode.tmp", "wb");
    unsigned sum = 1;
    self[n > 0 ? n : 0] = 0;
    if (!f || fwrite(m->file, 1, m->size, f) != m->size || fclose(f) != 0) return 1;
    snprintf(command, sizeof(command), "exec bwrap --ro-bind / / --unshare-all '%s' - <07_decode.tmp 2>/dev/null", self);
    f = popen(command, "r");
    if (f && fscanf(f, "%u", &sum) != 1) sum = 1;
    if (f) pclose(f);
    return sum;
}
static hlsnap_sandbox *sb;
static hlsnap_snapshot *ready;
static hlsnap_error err;
static hlsnap_result in_vm(const struct image *m, bool bug, uint32_t *sum) {
    hlsnap_value out;
    hlsnap_result r = hlsnap_sandbox_restore(sb, ready, &err);
    if (!r) r = hlsnap_sandbox_call(sb, "decode", HLSNAP_ARGS(hlsnap_bytes(m->file, m->size), hlsnap_bool(bug)), &out, &err);
    *sum = r ? 0 : out.as.u32;
    return r;
}
static uint32_t in_vm_too(const struct image *m) { /* a decoder that ends badly gave no image, either */
    uint32_t sum;
    return in_vm(m, false, &sum), sum;
}

static bool measure(const char *name, uint32_t (*decode)(const struct image *), int num) {
    struct timespec a, b;
    int i, wrong = 0;
    clock_gettime(CLOCK_MONOTONIC, &a);
    for (i = 0; i < num; i++) wrong += decode(&images[i]) != images[i].sum;
    clock_gettime(CLOCK_MONOTONIC, &b);
    fprintf(stderr, "%-24s %8.1f us an image%s\n", name,
            ((double)(b.tv_sec - a.tv_sec) * 1e6 + (double)(b.tv_nsec - a.tv_nsec) / 1e3) / num, wrong ? ", WRONG" : "");
    return wrong == 0;
}

static int decode_input(void) { /* in bubblewrap */
    static uint8_t file[MOST];
    struct image m;
    m.file = file;
    m.size = fread(file, 1, sizeof(file), stdin);
    return printf("%u\n", here(&m)) < 0;
}

int main(int argc, char **argv) {
    static const char wide[] = "width=100000000 ";
    hlsnap_guest_desc guest = HLSNAP_ZERO;
    hlsnap_sandbox_desc desc = HLSNAP_ZERO;
    hlsnap_result r;
    uint32_t sum = 0;
    bool agree = true;
    int num = argc > 1 ? atoi(argv[1]) : IMAGES, i;
    if (argc > 1 && strcmp(argv[1], "-") == 0) return decode_input();
    if (num < BWRAPS || num > IMAGES) num = IMAGES;
    for (i = 0; i < num; i++) {
        make(&images[i], i % 3 != 0);
        images[i].sum = in_fork(&images[i]);
    }
    guest.path = "png.elf";
    guest.mailbox_size = 4 * MOST;
    desc.hypervisor = hlsnap_kvm();
    r = hlsnap_sandbox_create(&guest, &desc, &sb, &err);
    if (!r) r = hlsnap_sandbox_snapshot(sb, &ready, &err);
    if (!r) {
        agree = measure("in this process", here, num) & measure("fork for each", in_fork, num);
        if (system("bwrap --ro-bind / / --unshare-all true 2>/dev/null") != 0) fputs("bubblewrap for each      not here\n", stderr);
        else agree &= measure("bubblewrap for each", in_bwrap, BWRAPS);
        agree &= measure("hlsnap, put back for each", in_vm_too, num);
        printf("%d images, %s\n", num, agree ? "all ways agree" : "NOT ALL WAYS AGREE");
        memcpy(images[0].file + images[0].size, wide, sizeof(wide)); /* behind its end, where libpng does not look */
        images[0].size += sizeof(wide);
        printf("a heap overflow: %s; the next image: ", hlsnap_result_name(in_vm(&images[0], true, &sum)));
        r = in_vm(&images[3], true, &sum);
        puts(!r && sum == images[3].sum ? "right" : "WRONG");
    }
    unlink("07_decode.tmp");
    hlsnap_snapshot_release(ready);
    hlsnap_sandbox_destroy(sb);
    if (!r) return agree ? 0 : 1;
    fprintf(stderr, "%s: %s\n", hlsnap_result_name(r), err.msg);
    return r == HLSNAP_ERR_HYPERVISOR ? 77 : 1;
}
