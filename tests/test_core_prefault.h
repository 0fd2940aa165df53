/* test_core_prefault.h - part of test_core.c: what first calls wrote is ready at the next starts, and nothing else comes of it. */

static hlsnap_snapshot *learner(uint64_t heap_pages) { /* a snapshot whose first sandbox teaches */
    hlsnap_sandbox *sb;
    hlsnap_snapshot *s = NULL;
    fake_prefault = HLSNAP_PREFAULT_LEARN;
    sb = start(GUEST_ALL, heap_pages);
    fake_prefault = HLSNAP_PREFAULT_OFF;
    CHECK_EQ(dirty(sb, 0, 80, 1000), HLSNAP_OK); /* a layer that is mapped */
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    hlsnap_sandbox_destroy(sb); /* what its builder did is no first call */
    return s;
}

static hlsnap_sandbox *learner_from(hlsnap_snapshot *s) {
    const hlsnap_sandbox_desc d = host_desc();
    hlsnap_sandbox *sb = NULL;
    CHECK_EQ(hlsnap_sandbox_create_from(s, &d, &sb, &err), HLSNAP_OK);
    return sb;
}

static uint64_t learned(const hlsnap_snapshot *s) {
    hlsnap_snapshot_info info;
    hlsnap_snapshot_get_info(s, &info);
    CHECK_EQ(info.prefault, s->guest->learn ? HLSNAP_PREFAULT_LEARN : HLSNAP_PREFAULT_OFF);
    return info.learned_pages;
}

static uint64_t prefaulted(const hlsnap_sandbox *sb) {
    hlsnap_stats stats;
    hlsnap_sandbox_get_stats(sb, &stats);
    return stats.prefaulted_pages;
}

/* Whether that page of the heap has memory of its own by now, as the kernel says; 2: it cannot say (qemu-user makes none ready). */
static int heap_private(const hlsnap_sandbox *sb, uint64_t page) {
    const uint8_t *at = sb->memory.mem + (region_gva(sb, HLSNAP__HEAP) - sb->memory.layout.base) + page * 4096;
    const int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    uint64_t entry = 0;
    const ssize_t n = pread(fd, &entry, 8, (off_t)((uintptr_t)at / 4096 * 8));
    close(fd);
    return n != 8 || getenv("QEMU_USER") ? 2 : entry >> 62 && !(entry >> 61 & 1);
}

static void learns(void) {
    hlsnap_snapshot *s = learner(400);
    hlsnap_sandbox *sb = learner_from(s), *next;
    uint64_t pages;
    CHECK(learned(s) == 0 && prefaulted(sb) == 0 && hv.calls[FAKE_TOUCH] == 0 && heap_private(sb, 5) != 1);
    CHECK_EQ(dirty(sb, 5, 3, 9), HLSNAP_OK);
    CHECK_EQ(dirty(sb, 100, 20, 9), HLSNAP_OK);
    CHECK_EQ(learned(s), 0);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    pages = learned(s);
    CHECK(pages >= 23 && pages < 40 && pages == sb->memory.num_hot);
    next = learner_from(s);
    CHECK(prefaulted(next) == pages && hv.calls[FAKE_TOUCH] == 1 && next->memory.num_hot >= pages);
    CHECK(hv.touched > pages && hv.touched < pages + 20); /* text, identity page, XSAVE image */
    CHECK(heap_private(next, 4) != 1 && heap_private(next, 5) && heap_private(next, 7) && heap_private(next, 8) != 1);
    CHECK(heap_private(next, 100) && heap_private(next, 119) && heap_private(next, 120) != 1);
    CHECK_EQ(heap_word(next, 5), 1000 + 5 * 0x100000001ull); /* and they are as they were */
    CHECK_EQ(heap_word(next, 110), 0);
    CHECK_EQ(dirty(next, 0, 300, 3), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_restore(next, s, &err), HLSNAP_OK);
    CHECK_EQ(heap_word(next, 6), 1000 + 6 * 0x100000001ull);
    CHECK_EQ(heap_word(next, 110), 0);
    CHECK_EQ(learned(s), pages); /* the first one said it */
    CHECK_EQ(hlsnap_sandbox_restore(next, s, &err), HLSNAP_OK);
    CHECK_EQ(hv.calls[FAKE_TOUCH], 1); /* it is a start's work, */
    hlsnap_sandbox_retire(next);
    CHECK_EQ(hlsnap_sandbox_restore(next, s, &err), HLSNAP_OK);
    CHECK(hv.calls[FAKE_TOUCH] == 2 && prefaulted(next) == pages && heap_private(next, 5)); /* or of one that has to map */
    hlsnap_sandbox_destroy(sb);
    hlsnap_sandbox_destroy(next);
    hlsnap_snapshot_release(s);
}

/* Who never restores teaches by its end. */
static void learns_at_the_end(void) {
    hlsnap_snapshot *s = learner(100);
    hlsnap_sandbox *sb = learner_from(s);
    CHECK_EQ(dirty(sb, 85, 10, 9), HLSNAP_OK);
    hlsnap_sandbox_destroy(sb);
    CHECK(learned(s) >= 10 && learned(s) < 30);
    sb = learner_from(s);
    CHECK_EQ(prefaulted(sb), learned(s));
    CHECK(heap_private(sb, 84) != 1 && heap_private(sb, 85) && heap_private(sb, 94) && heap_private(sb, 95) != 1);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* Calls that ended badly, what a host wrote, who was retired, what became a snapshot, another snapshot's turn: nobody learns. */
static void teaches_nothing(void) {
    hlsnap_snapshot *s = learner(100), *other = learner(100), *taken, *off;
    hlsnap_sandbox *sb = learner_from(s);
    const uint64_t word = 5;
    CHECK_EQ(hlsnap_sandbox_write(sb, region_gva(sb, HLSNAP__HEAP), &word, 8, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK); /* no call yet: it may still teach */
    CHECK(learned(s) == 0 && sb->memory.learns);
    CHECK_EQ(hlsnap_sandbox_call(sb, "poke", HLSNAP_ARGS(hlsnap_u64(8), hlsnap_bytes("x", 1)), NULL, &err), HLSNAP_ERR_FAULT);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    CHECK(learned(s) == 0 && !sb->memory.learns);
    hlsnap_sandbox_retire(sb);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    CHECK_EQ(dirty(sb, 0, 10, 9), HLSNAP_OK);
    hlsnap_sandbox_retire(sb);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    CHECK_EQ(learned(s), 0);
    CHECK_EQ(dirty(sb, 0, 10, 9), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_restore(sb, other, &err), HLSNAP_OK);
    CHECK(learned(s) == 0 && learned(other) == 0);
    hlsnap_sandbox_destroy(sb);
    sb = learner_from(s);
    CHECK_EQ(dirty(sb, 0, 10, 9), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &taken, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    CHECK(learned(s) == 0 && learned(taken) == 0 && taken->guest->learn);
    CHECK_EQ(hlsnap_sandbox_call(sb, "poke", HLSNAP_ARGS(hlsnap_u64(8), hlsnap_bytes("x", 1)), NULL, &err), HLSNAP_ERR_FAULT);
    hlsnap_sandbox_destroy(sb);
    CHECK_EQ(learned(s), 0);
    sb = start(GUEST_ALL, 100); /* without the switch */
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &off, &err), HLSNAP_OK);
    hlsnap_sandbox_destroy(sb);
    sb = learner_from(off);
    CHECK_EQ(dirty(sb, 0, 10, 9), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_restore(sb, off, &err), HLSNAP_OK);
    CHECK(learned(off) == 0 && hv.calls[FAKE_TOUCH] == 0);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(other);
    hlsnap_snapshot_release(taken);
    hlsnap_snapshot_release(off);
}

/* No more than 4 MiB; and what was made ready is no reason to map all afresh. */
static void learns_within_bounds(void) {
    hlsnap_guest_desc g = fake_guest(GUEST_ALL, 16);
    const hlsnap_sandbox_desc d = host_desc();
    hlsnap_snapshot *s = learner(4000);
    hlsnap_sandbox *sb = learner_from(s);
    CHECK_EQ(dirty(sb, 0, 1800, 9), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    CHECK_EQ(learned(s), HLSNAP__LEARN_PAGES);
    hlsnap_sandbox_destroy(sb);
    sb = learner_from(s);
    CHECK_EQ(prefaulted(sb), HLSNAP__LEARN_PAGES);
    CHECK_EQ(heap_private(sb, 1500) == 1, false);
    CHECK_EQ(dirty(sb, 2000, 1800, 9), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    CHECK(sb->memory.given_back == 0 && sb->memory.num_hot >= 1800);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
    g.prefault = (hlsnap_prefault)(HLSNAP_PREFAULT_LEARN + 1);
    CHECK_EQ(hlsnap_sandbox_create(&g, &d, &sb, &err), HLSNAP_ERR_ARG);
    CHECK(strstr(err.msg, "prefault=2") != NULL);
}

/* Files that a stranger can cut are left alone, and so is the heap beside them. A VM that dies of it is an error of the start. */
static void prefault_fails(void) {
    const hlsnap_sandbox_desc d = host_desc();
    hlsnap_snapshot *s = learner(100);
    hlsnap_sandbox *sb = learner_from(s), *next;
    const long touches = hv.calls[FAKE_TOUCH];
    uint32_t i;
    CHECK_EQ(dirty(sb, 0, 10, 9), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    for (i = 0; i < s->num_layers; i++) s->layers[i]->sealed = false;
    next = learner_from(s);
    CHECK(prefaulted(next) == 0 && hv.calls[FAKE_TOUCH] == touches && heap_private(next, 5) != 1);
    hlsnap_sandbox_destroy(next);
    for (i = 0; i < s->num_layers; i++) s->layers[i]->sealed = true;
    hv.fail[FAKE_TOUCH] = 1;
    CHECK_EQ(hlsnap_sandbox_create_from(s, &d, &next, &err), HLSNAP_ERR_HYPERVISOR);
    CHECK(!next && err.os_errno == EFAULT && strstr(err.msg, "told to die") != NULL);
    hlsnap_sandbox_retire(sb);
    hv.fail[FAKE_TOUCH] = 1;
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_ERR_HYPERVISOR);
    CHECK_EQ(hlsnap_sandbox_get_state(sb), HLSNAP_POISONED);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    CHECK_EQ(call0(sb, "nop"), HLSNAP_OK);
    CHECK_EQ(heap_word(sb, 6), 1000 + 6 * 0x100000001ull);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* The proof of resets, with pages made ready at every start. */
static void resets_learned(void) {
    fake_prefault = HLSNAP_PREFAULT_LEARN;
    reset_proof(operations(3000), false);
    fake_prefault = HLSNAP_PREFAULT_OFF;
    CHECK(hv.calls[FAKE_TOUCH] > 0 || test_bad);
}

/* Where nothing can be scanned all is mapped afresh: what the guest never touched is not read for it either. */
static void unscanned_is_not_read(void) {
    hlsnap_sandbox *sb = start(GUEST_ALL, 400);
    hlsnap_snapshot *s;
    uint32_t i, there = 0;
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    if (sb->memory.pagemap >= 0) close(sb->memory.pagemap);
    sb->memory.pagemap = open("/dev/null", O_RDONLY | O_CLOEXEC);
    for (i = 0; i < 3; i++) {
        CHECK_EQ(dirty(sb, 5, 3, i + 1), HLSNAP_OK);
        CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    }
    for (i = 100; i < 400; i++) there += heap_private(sb, i) == 1;
    CHECK_EQ(there, 0);
    CHECK(sb->memory.num_hot < 32 && heap_word(sb, 5) == 0 && heap_word(sb, 7) == 0);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

#define TESTS_PREFAULT(X) X(unscanned_is_not_read) \
    X(learns) X(learns_at_the_end) X(teaches_nothing) X(learns_within_bounds) X(prefault_fails) X(resets_learned)
