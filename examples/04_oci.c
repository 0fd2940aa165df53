/* 04_oci.c - work once, save, start from there anywhere. You learn: saving a sandbox as an OCI Image Layout under a tag,
   and starting from the layout in another process that has neither the guest's ELF nor its input.

   cc: cc -O2 -DHLSNAP_GUEST -nostdlib -static -I.. guests/index.c -o index.elf
   cc: cc -std=c11 -O2 -I.. 04_oci.c -lcjson -o 04_oci
   run: ./04_oci save layout v1 04_oci.c guests/index.c
   run: ./04_oci run layout v1 hlsnap_oci_save grow */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#include "hlsnap_oci.h"
#include <stdio.h>
#include <string.h>

static hlsnap_result feed_file(hlsnap_sandbox *sb, const char *path, hlsnap_error *err) {
    static char piece[64 * 1024];
    FILE *f = fopen(path, "rb");
    size_t n = 1;
    hlsnap_result r = hlsnap_sandbox_call(sb, "begin", HLSNAP_ARGS(hlsnap_str(path)), NULL, err);
    if (!f) {
        snprintf(err->msg, sizeof(err->msg), "cannot open %s", path);
        return HLSNAP_ERR_OS;
    }
    while (!r && n) {                                      /* the last piece is empty: end of file */
        n = fread(piece, 1, sizeof(piece), f);
        r = hlsnap_sandbox_call(sb, "feed", HLSNAP_ARGS(hlsnap_bytes(piece, n)), NULL, err);
    }
    fclose(f);
    return r;
}

static hlsnap_result save(const char *elf, const char *dir, const char *tag, char **paths, int num, hlsnap_error *err) {
    hlsnap_guest_desc guest = HLSNAP_ZERO;
    hlsnap_sandbox_desc desc = HLSNAP_ZERO;
    hlsnap_sandbox *sb = NULL;
    hlsnap_snapshot *snapshot = NULL;
    hlsnap_oci_digest digest;
    hlsnap_result r;
    int i;
    guest.path = elf;
    guest.heap_size = 256u << 20;                          /* only pages that hold something are saved */
    guest.mailbox_size = 256u << 10;
    desc.hypervisor = hlsnap_kvm();
    r = hlsnap_sandbox_create(&guest, &desc, &sb, err);
    for (i = 0; i < num && !r; i++) r = feed_file(sb, paths[i], err);
    if (!r) r = hlsnap_sandbox_snapshot(sb, &snapshot, err);
    if (!r) r = hlsnap_oci_save(dir, tag, snapshot, NULL, &digest, err);
    if (!r) printf("%s\n", digest.text);
    hlsnap_snapshot_release(snapshot);
    hlsnap_sandbox_destroy(sb);
    return r;
}

static hlsnap_result look_up(hlsnap_sandbox *sb, const char *word, hlsnap_error *err) {
    hlsnap_value out;
    uint32_t file, times;
    hlsnap_result r = hlsnap_sandbox_call(sb, "total", HLSNAP_ARGS(hlsnap_str(word)), &out, err);
    if (!r) printf("%s %u\n", word, out.as.u32);
    for (file = 0; !r; file++) {
        r = hlsnap_sandbox_call(sb, "in_file", HLSNAP_ARGS(hlsnap_str(word), hlsnap_u32(file)), &out, err);
        times = r ? 0 : out.as.u32;
        if (!r) r = hlsnap_sandbox_call(sb, "file_name", HLSNAP_ARGS(hlsnap_u32(file)), &out, err);
        if (!r && times) printf("  %s %u\n", out.str, times);
    }
    return r == HLSNAP_ERR_FUNCTION ? HLSNAP_OK : r;       /* past the last file */
}

static hlsnap_result run(const char *dir, const char *ref, char **words, int num, hlsnap_error *err) {
    hlsnap_sandbox_desc desc = HLSNAP_ZERO;
    hlsnap_snapshot *snapshot = NULL;
    hlsnap_sandbox *sb = NULL;
    hlsnap_result r = hlsnap_oci_load(dir, ref, NULL, &snapshot, NULL, err);
    int i;
    desc.hypervisor = hlsnap_kvm();
    if (!r) r = hlsnap_sandbox_create_from(snapshot, &desc, &sb, err);
    for (i = 0; i < num && !r; i++) r = look_up(sb, words[i], err);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(snapshot);
    return r;
}

int main(int argc, char **argv) {
    hlsnap_error err = HLSNAP_ZERO;
    hlsnap_result r = HLSNAP_ERR_ARG;
    if (argc > 4 && strcmp(argv[1], "save") == 0) r = save("index.elf", argv[2], argv[3], argv + 4, argc - 4, &err);
    else if (argc > 4 && strcmp(argv[1], "run") == 0) r = run(argv[2], argv[3], argv + 4, argc - 4, &err);
    else snprintf(err.msg, sizeof(err.msg), "usage: 04_oci save DIR TAG FILE... | 04_oci run DIR TAG|DIGEST WORD...");
    if (r) fprintf(stderr, "%s: %s\n", hlsnap_result_name(r), err.msg);
    return r == HLSNAP_OK ? 0 : r == HLSNAP_ERR_HYPERVISOR ? 77 : 1;
}
