/* test_core_snapshots.h - part of test_core.c: snapshots, restores, the reset proof, failed restores, fork, memory access. */

/* ---- a model of guest memory, kept by the test ---- */

#define MODEL_GUESTS 3         /* the first two have one layout, the third another */
static const struct { uint32_t program; uint64_t heap; } model_guests[MODEL_GUESTS] = {
    {GUEST_ALL, 40}, {GUEST_FEW, 40}, {GUEST_OTHER, 67}};

typedef struct shot { hlsnap_snapshot *s; uint8_t *bytes; uint32_t guest; } shot;
#define SHOTS 12

typedef struct model {
    hlsnap_sandbox *sb;
    uint8_t *now;              /* the whole window; regions that are not stored stay zero */
    uint32_t guest;
    hlsnap__layout layouts[MODEL_GUESTS];
    shot shots[SHOTS];         /* the first MODEL_GUESTS are pristine and never replaced */
    long differ;               /* pages found wrong */
    long settled;              /* restores of a window that was */
    bool no_proc; /* its pagemap is a file that knows nothing */
} model;

static size_t model_size(const hlsnap__layout *l) { return (size_t)(l->pages * 4096); }

/* Every stored region byte by byte, and the mailbox, which must be zero after a restore. */
static void model_compare(model *m, bool wiped) {
    const hlsnap__layout *l = &m->layouts[m->guest];
    uint32_t i;
    for (i = 0; i < l->num_regions; i++) {
        const hlsnap__region *r = &l->regions[i];
        const size_t at = (size_t)(r->gva - l->base);
        uint64_t page;
        if (r->kind == HLSNAP__IDENTITY || (r->kind == HLSNAP__MAILBOX && !wiped)) continue;
        for (page = 0; page < r->pages; page++)
            m->differ += memcmp(m->sb->memory.mem + at + page * 4096, m->now + at + page * 4096, 4096) != 0;
    }
    if (!CHECK_EQ(m->differ, 0)) m->differ = 0;
}

/* Text and data as fake_elf made them; everything else zero. */
static void model_image(uint8_t *to, const hlsnap__layout *l, uint32_t program) {
    memset(to, 0, model_size(l));
    memcpy(to + (FAKE_TEXT - l->base), fake_elf(program) + 4096, 4096);
    memcpy(to + (FAKE_DATA - l->base), fake_elf(program) + 8192, FAKE_DATA_PAGES * 4096);
}

static void shot_drop(shot *s) {
    hlsnap_snapshot_release(s->s);
    free(s->bytes);
    memset(s, 0, sizeof(*s));
}

static model *model_create(void) {
    model *m = (model *)calloc(1, sizeof(*m));
    uint32_t i;
    for (i = 0; i < MODEL_GUESTS; i++) {
        hlsnap_sandbox *sb = start(model_guests[i].program, model_guests[i].heap);
        m->layouts[i] = sb->memory.layout;
        m->shots[i].guest = i;
        m->shots[i].bytes = (uint8_t *)malloc(model_size(&m->layouts[i]));
        model_image(m->shots[i].bytes, &m->layouts[i], model_guests[i].program);
        CHECK_EQ(hlsnap_sandbox_snapshot(sb, &m->shots[i].s, &err), HLSNAP_OK);
        hlsnap_sandbox_destroy(sb);
    }
    m->now = (uint8_t *)calloc(1, model_size(&m->layouts[MODEL_GUESTS - 1]) + model_size(&m->layouts[0]));
    memcpy(m->now, m->shots[0].bytes, model_size(&m->layouts[0]));
    m->sb = start(model_guests[0].program, model_guests[0].heap);
    model_compare(m, false);
    return m;
}

static void model_destroy(model *m) {
    uint32_t i;
    for (i = 0; i < SHOTS; i++) shot_drop(&m->shots[i]);
    hlsnap_sandbox_destroy(m->sb);
    free(m->now);
    free(m);
}

/* A random range inside one stored region; writable by the guest where asked. Often small, sometimes pages long. */
static uint64_t model_place(const model *m, bool guest, size_t *n) {
    const hlsnap__layout *l = &m->layouts[m->guest];
    const hlsnap__region *r;
    uint64_t at;
    do r = &l->regions[random_below(l->num_regions)];
    while (!hlsnap__kind_stored(r->kind) || (guest && !hlsnap__kind_writable(r->kind)));
    at = random_below((uint32_t)r->pages * 4096);
    *n = random_below(4) ? 1 + random_below(64) : 1 + random_below(9000);
    if (*n > r->pages * 4096 - at) *n = (size_t)(r->pages * 4096 - at);
    return r->gva + at;
}

static void model_write(model *m, bool guest) {
    static uint8_t data[9000];
    size_t i, n;
    const uint64_t gva = model_place(m, guest, &n);
    const bool zeros = random_below(5) == 0;
    if (!guest && gva < FAKE_TEXT + 64) return; /* the program's number stays */
    for (i = 0; i < n; i++) data[i] = zeros ? 0 : (uint8_t)random_below(256);
    if (guest) CHECK_EQ(hlsnap_sandbox_call(m->sb, "poke", HLSNAP_ARGS(hlsnap_u64(gva), hlsnap_bytes(data, n)), NULL, &err), HLSNAP_OK);
    else CHECK_EQ(hlsnap_sandbox_write(m->sb, gva, data, n, &err), HLSNAP_OK);
    memcpy(m->now + (gva - m->layouts[m->guest].base), data, n);
}

/* The invariants that a reader of a file would check. */
static void check_extents(const hlsnap_snapshot *s) {
    uint64_t pages[HLSNAP__MAX_LAYERS];
    uint32_t i;
    for (i = 0; i < s->num_layers; i++) pages[i] = s->layers[i]->pages;
    CHECK_EQ(hlsnap__extents_check(&s->guest->layout, s->maps, s->num_maps, pages, s->num_layers, s->extents, s->num_extents, HLSNAP_ERR_CONFIG, &err),
             HLSNAP_OK);
}

static void model_snapshot(model *m) {
    shot *s = &m->shots[MODEL_GUESTS + random_below(SHOTS - MODEL_GUESTS)];
    shot_drop(s);
    CHECK_EQ(hlsnap_sandbox_snapshot(m->sb, &s->s, &err), HLSNAP_OK);
    check_extents(s->s);
    s->guest = m->guest;
    s->bytes = (uint8_t *)malloc(model_size(&m->layouts[m->guest]));
    memcpy(s->bytes, m->now, model_size(&m->layouts[m->guest]));
}

static void model_restore(model *m, const shot *s) {
    uint32_t again = random_below(16) ? 0 : random_below(120); /* where a sandbox stays for long, what rests is mapped */
    CHECK_EQ(hlsnap_sandbox_restore(m->sb, s->s, &err), HLSNAP_OK);
    for (m->guest = s->guest; again; again--) {
        if (random_below(8) == 0) model_write(m, true);
        CHECK_EQ(hlsnap_sandbox_restore(m->sb, s->s, &err), HLSNAP_OK);
    }
    m->settled += m->sb->memory.settled;
    m->guest = s->guest;
    memcpy(m->now, s->bytes, model_size(&m->layouts[s->guest]));
    model_compare(m, true);
    CHECK_EQ(m->sb->generation, s->s->generation + 1);
}

/* A new sandbox in place of the old one, from a snapshot. */
static void model_replace(model *m, const shot *s) {
    const hlsnap_sandbox_desc d = host_desc();
    hlsnap_sandbox_destroy(m->sb);
    CHECK_EQ(hlsnap_sandbox_create_from(s->s, &d, &m->sb, &err), HLSNAP_OK);
    if (m->no_proc) m->sb->memory.pagemap = open("/dev/null", O_RDONLY | O_CLOEXEC);
    m->guest = s->guest;
    memcpy(m->now, s->bytes, model_size(&m->layouts[s->guest]));
    model_compare(m, true);
}

static void *model_poke_elsewhere(void *user) {
    model_write((model *)user, true);
    return NULL;
}

static void model_step(model *m) {
    const uint32_t what = random_below(100);
    const shot *s = &m->shots[random_below(SHOTS)];
    pthread_t thread;
    if (what < 38) model_write(m, true);
    else if (what < 52) model_write(m, false);
    else if (what < 55 && pthread_create(&thread, NULL, model_poke_elsewhere, m) == 0) pthread_join(thread, NULL);
    else if (what < 58) CHECK_EQ(call0(m->sb, "nop"), HLSNAP_OK);
    else if (what < 72) model_snapshot(m);
    else if (what < 75) model_compare(m, false);
    else if (what < 77 && s->s) model_replace(m, s);
    else if (what < 85) { /* a fault, then only a restore helps */
        while (!s->s) s = &m->shots[random_below(SHOTS)];
        CHECK_EQ(hlsnap_sandbox_call(m->sb, "poke", HLSNAP_ARGS(hlsnap_u64(8), hlsnap_bytes("x", 1)), NULL, &err), HLSNAP_ERR_FAULT);
        model_restore(m, s);
    } else if (s->s) model_restore(m, s);
}

static void reset_proof(long steps, bool no_proc) {
    model *m = model_create();
    const bool few = steps < 5000;
    m->no_proc = no_proc;
    if (no_proc) m->sb->memory.pagemap = open("/dev/null", O_RDONLY | O_CLOEXEC);
    while (steps-- && !test_bad) model_step(m);
    CHECK(no_proc || few || steps > 0 || m->settled >= 10);
    model_destroy(m);
}

static void resets(void) { reset_proof(operations(10000), false); }
static void resets_without_scan(void) {
    inject.no_scan = true; /* PAGEMAP_SCAN is there from Linux 6.7 on */
    reset_proof(operations(5000), false);
    inject.no_scan = false;
}
static void resets_without_proc(void) { reset_proof(operations(5000), true); }

/* A pagemap whose descriptor somebody else's file got: it says that nothing is private, not even the identity page. */
static void pagemap_of_somebody(void) {
    hlsnap_sandbox *sb = start(GUEST_ALL, 64);
    hlsnap_snapshot *s;
    int fd;
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    CHECK(sb->memory.pagemap >= 0 && dup2(fd, sb->memory.pagemap) >= 0);
    close(fd);
    CHECK_EQ(hlsnap_sandbox_call(sb, "dirty", HLSNAP_ARGS(hlsnap_u64(region_gva(sb, HLSNAP__HEAP) + 20 * 4096), hlsnap_u32(3), hlsnap_u32(7)),
                                 NULL, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    CHECK(hlsnap__all_zero(hlsnap__memory_at(&sb->memory, hlsnap__gva_page(&sb->memory.layout, region_gva(sb, HLSNAP__HEAP) + 20 * 4096)), 3 * 4096));
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* After a plain restore the VM keeps its slot, and with it its tables; after retire it loses it, and gets it back. */
static void retire_takes_the_slot(void) {
    hlsnap_sandbox *sb = start(GUEST_ALL, 64);
    hlsnap_snapshot *s;
    long maps;
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    maps = hv.calls[FAKE_MAP];
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    CHECK_EQ(hv.calls[FAKE_MAP], maps);
    hlsnap_sandbox_retire(sb);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    CHECK_EQ(hv.calls[FAKE_MAP], maps + 2);
    CHECK_EQ(hv.shells, 1);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* ---- which way a restore goes ---- */

static hlsnap_result dirty(hlsnap_sandbox *sb, uint64_t first_page, uint32_t pages, uint32_t seed) {
    return hlsnap_sandbox_call(sb, "dirty", HLSNAP_ARGS(hlsnap_u64(region_gva(sb, HLSNAP__HEAP) + first_page * 4096),
                               hlsnap_u32(pages), hlsnap_u32(seed)), NULL, &err);
}
static uint64_t heap_word(hlsnap_sandbox *sb, uint64_t page) {
    uint64_t v = 0;
    CHECK_EQ(hlsnap_sandbox_read(sb, region_gva(sb, HLSNAP__HEAP) + page * 4096, &v, 8, &err), HLSNAP_OK);
    return v;
}

/* Mappings of guest memory that the child of a fork, or a core file, would have: those without the kernel's flags dc, dd. */
static uint32_t mappings_shown(const hlsnap_sandbox *sb) {
    const uint64_t from = (uint64_t)(uintptr_t)sb->memory.mem, to = from + sb->memory.layout.pages * 4096;
    FILE *f = fopen("/proc/self/smaps", "r");
    uint32_t shown = 0, found = 0;
    bool inside = false;
    char line[512];
    if (!CHECK(f != NULL)) return 0;
    while (fgets(line, sizeof(line), f)) {
        unsigned long long a, b;
        char perms[8];
        if (sscanf(line, "%llx-%llx %7s", &a, &b, perms) == 3) inside = a < to && b > from && strncmp(perms, "---", 3) != 0;
        else if (inside && strncmp(line, "VmFlags:", 8) == 0) found++, shown += !strstr(line, " dc") || !strstr(line, " dd");
    }
    fclose(f);
    CHECK(found > 0);
    return shown;
}
static void nobody_elses(void) {
    const hlsnap_sandbox_desc d = host_desc();
    hlsnap_sandbox *sb, *made;
    hlsnap_snapshot *first, *s;
    if (getenv("QEMU_USER")) SKIP("qemu-user ignores MADV_DONTFORK");
    sb = start(GUEST_ALL, 400);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &first, &err), HLSNAP_OK);
    CHECK_EQ(dirty(sb, 10, 200, 1), HLSNAP_OK); /* a layer that is mapped */
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_create_from(s, &d, &made, &err), HLSNAP_OK);
    CHECK_EQ(mappings_shown(sb), 0);
    CHECK_EQ(mappings_shown(made), 0);
    CHECK_EQ(hlsnap_sandbox_restore(made, first, &err), HLSNAP_OK);
    hlsnap_sandbox_retire(made);
    CHECK_EQ(hlsnap_sandbox_restore(made, s, &err), HLSNAP_OK);
    CHECK_EQ(mappings_shown(made), 0);
    hlsnap_sandbox_destroy(sb);
    hlsnap_sandbox_destroy(made);
    hlsnap_snapshot_release(first);
    hlsnap_snapshot_release(s);
}

/* A buffer that grows while a guest's messages come leaves none of them in the heap. */
static void nothing_in_freed_blocks(void) {
    static char text[9000];
    hlsnap_sandbox *sb = start(GUEST_ALL, 64);
    hlsnap_value out;
    size_t n;
    for (n = 64; n < sizeof(text); n *= 3) {
        memset(text, '.', sizeof(text));
        memcpy(text, "5ecret of a tenant", 18);
        inject_secret = "5ecret of a tenant";
        CHECK_EQ(hlsnap_sandbox_call(sb, "e_bytes", HLSNAP_ARGS(hlsnap_bytes(text, n)), &out, &err), HLSNAP_OK);
        CHECK_EQ(hlsnap_sandbox_call(sb, "r_bytes", HLSNAP_ARGS(hlsnap_bytes(text, n)), &out, &err), HLSNAP_OK);
    }
    CHECK_EQ(inject_left, 0);
    inject_secret = NULL;
    hlsnap_sandbox_destroy(sb);
}

/* Up to 1,024 new private pages the mapping stays and pages are copied; from there on the other snapshot is mapped. */
static void retarget_or_remap(void) {
    const hlsnap_sandbox_desc d = host_desc();
    hlsnap_sandbox *a = start(GUEST_ALL, 4096), *b;
    hlsnap_snapshot *origin, *little, *lots;
    CHECK_EQ(hlsnap_sandbox_snapshot(a, &origin, &err), HLSNAP_OK);
    CHECK_EQ(dirty(a, 10, 100, 5), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(a, &little, &err), HLSNAP_OK);
    CHECK_EQ(dirty(a, 500, HLSNAP__IN_PLACE_PAGES + 50, 9), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(a, &lots, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_create_from(origin, &d, &b, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_restore(b, little, &err), HLSNAP_OK);
    CHECK(b->memory.base == origin && b->memory.target == little); /* in place */
    CHECK(heap_word(b, 10) == 5 && heap_word(b, 109) == 5 + 99 * 0x100000001ull && heap_word(b, 110) == 0);
    CHECK_EQ(hlsnap_sandbox_restore(b, lots, &err), HLSNAP_OK);
    CHECK(b->memory.base == lots && b->memory.target == lots);     /* mapped */
    CHECK(heap_word(b, 10) == 5 && heap_word(b, 500) == 9 && heap_word(b, 499) == 0);
    CHECK_EQ(hlsnap_sandbox_restore(b, little, &err), HLSNAP_OK);
    CHECK(b->memory.base == little && heap_word(b, 500) == 0 && heap_word(b, 10) == 5);
    CHECK_EQ(hlsnap_sandbox_restore(b, origin, &err), HLSNAP_OK);
    CHECK(b->memory.base == little && b->memory.target == origin && heap_word(b, 10) == 0);
    CHECK_EQ(call0(b, "nop"), HLSNAP_OK);
    hlsnap_sandbox_destroy(a);
    hlsnap_sandbox_destroy(b);
    hlsnap_snapshot_release(origin);
    hlsnap_snapshot_release(little);
    hlsnap_snapshot_release(lots);
}

/* Pages that no call touches for 16 restores are given back, and found again when they are written. */
static void idle_pages(void) {
    hlsnap_sandbox *sb = start(GUEST_ALL, 1024);
    hlsnap_snapshot *s;
    hlsnap_stats before_drop, after;
    uint32_t i;
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    CHECK_EQ(dirty(sb, 0, 600, 1), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    hlsnap_sandbox_get_stats(sb, &before_drop);
    CHECK(before_drop.hot_pages >= 600 && before_drop.copied_bytes >= 600 * 4096);
    for (i = 0; i < 2 * HLSNAP__IDLE_RESETS; i++) { /* idleness is noticed at every eighth reset */
        CHECK_EQ(dirty(sb, 0, 3, i + 2), HLSNAP_OK);
        CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    }
    hlsnap_sandbox_get_stats(sb, &after);
    CHECK(after.hot_pages < 100 && hlsnap__bit(sb->memory.is_hot, region_gva(sb, HLSNAP__HEAP) / 4096 - sb->memory.layout.base / 4096));
    CHECK_EQ(dirty(sb, 0, 600, 77), HLSNAP_OK);
    CHECK_EQ(heap_word(sb, 599), 77 + 599 * 0x100000001ull);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    for (i = 0; i < 600; i++) CHECK_EQ(heap_word(sb, i), 0);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* While the target is not what is mapped, pages that differ cannot be dropped; of a few it is not worth to do anything about it. */
static void idle_pages_of_another_target(void) {
    const hlsnap_sandbox_desc d = host_desc();
    hlsnap_sandbox *a = start(GUEST_ALL, 512), *b;
    hlsnap_snapshot *origin, *s;
    uint32_t i;
    CHECK_EQ(hlsnap_sandbox_snapshot(a, &origin, &err), HLSNAP_OK);
    CHECK_EQ(dirty(a, 0, 60, 3), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(a, &s, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_create_from(origin, &d, &b, &err), HLSNAP_OK);
    CHECK_EQ(dirty(b, 60, 30, 4), HLSNAP_OK); /* these can go: zero in both */
    for (i = 0; i < 3 * HLSNAP__IDLE_RESETS; i++) CHECK_EQ(hlsnap_sandbox_restore(b, s, &err), HLSNAP_OK);
    CHECK(b->memory.base == origin && b->memory.num_hot >= 60 && b->memory.num_hot < 90);
    for (i = 0; i < 90; i++) CHECK_EQ(heap_word(b, i), i < 60 ? 3 + i * 0x100000001ull : 0);
    CHECK_EQ(hlsnap_sandbox_restore(b, origin, &err), HLSNAP_OK);
    for (i = 0; i < 90; i++) CHECK_EQ(heap_word(b, i), 0);
    hlsnap_sandbox_destroy(a);
    hlsnap_sandbox_destroy(b);
    hlsnap_snapshot_release(origin);
    hlsnap_snapshot_release(s);
}

/* dirty(), and what is then in each page of the heap. */
static void dirty_words(hlsnap_sandbox *sb, uint64_t *words, uint32_t first, uint32_t pages, uint32_t seed) {
    uint32_t i;
    CHECK_EQ(dirty(sb, first, pages, seed), HLSNAP_OK);
    for (i = 0; i < pages; i++) words[first + i] = seed + i * 0x100000001ull;
}
static void check_words(hlsnap_sandbox *sb, const uint64_t *words, uint32_t n) {
    uint32_t i;
    for (i = 0; i < n; i++)
        if (!CHECK_EQ(heap_word(sb, i), words[i])) return;
}

/* Of many, the target's content is laid below them where they lie side by side: the sandbox that built a snapshot then resets as one
   that was made from it. */
static void built_as_from_of(uint32_t n) {
    const hlsnap_sandbox_desc d = host_desc();
    static uint64_t older[3000], newer[3000], unused[3000];
    hlsnap_sandbox *sb = start(GUEST_ALL, 4096), *other;
    hlsnap_snapshot *origin, *s;
    uint32_t i;
    memset(older, 0, sizeof(older));
    dirty_words(sb, older, 0, n / 2, 5);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &origin, &err), HLSNAP_OK);
    for (i = 0; i < 3; i++) CHECK_EQ(hlsnap_sandbox_restore(sb, origin, &err), HLSNAP_OK);
    memcpy(newer, older, sizeof(newer));
    dirty_words(sb, newer, 10, n - 10, 6);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    for (i = 0; i < 10; i++) { /* some of what differs, too, works on */
        dirty_words(sb, unused, 5, 15, i + 7);
        CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    }
    CHECK(sb->memory.base == s && sb->memory.num_hot < 60);
    check_words(sb, newer, n);
    for (i = 0; i < 2 * HLSNAP__IDLE_RESETS; i++) CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    check_words(sb, newer, n); /* now these rest, too */
    dirty_words(sb, unused, 0, n, 99); /* what was given back is found again */
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    check_words(sb, newer, n);
    CHECK_EQ(hlsnap_sandbox_restore(sb, origin, &err), HLSNAP_OK);
    check_words(sb, older, n);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    check_words(sb, newer, n);
    CHECK_EQ(hlsnap_sandbox_create_from(s, &d, &other, &err), HLSNAP_OK);
    check_words(other, newer, n);
    hlsnap_sandbox_destroy(other);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(origin);
    hlsnap_snapshot_release(s);
}
static void built_as_from(void) {
    static const uint32_t sizes[] = {100, 300, 1500, 3000};
    uint32_t k;
    for (k = 0; k < HLSNAP_COUNT(sizes); k++) built_as_from_of(sizes[k]);
}

/* Those that lie apart do not stay for ever behind those that were laid. */
static void built_of_both(void) {
    static uint64_t words[3000];
    hlsnap_sandbox *sb = start(GUEST_ALL, 4096);
    hlsnap_snapshot *s;
    uint32_t i;
    dirty_words(sb, words, 0, 600, 5);
    for (i = 0; i < 1000; i++) dirty_words(sb, words, 1000 + 2 * i, 1, i + 9);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    for (i = 0; i < 20; i++) CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    CHECK(sb->memory.num_hot < 60);
    check_words(sb, words, 3000);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* What is laid is bounded; beyond it all of memory is mapped once more, and nothing stays private that need not. */
static void laid_without_end(void) {
    enum { RUNS = 120, RUN = 20, APART = 40 };
    hlsnap_sandbox *sb = start(GUEST_ALL, RUNS * APART);
    hlsnap_snapshot *s = NULL;
    uint32_t k, i, most = 0;
    for (k = 0; k < 60; k++) {
        for (i = 0; i < RUNS; i++) CHECK_EQ(dirty(sb, i * APART, RUN, k * RUNS + i), HLSNAP_OK);
        hlsnap_snapshot_release(s);
        CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
        for (i = 0; i < 4; i++) CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
        if (sb->memory.num_hot > most) most = sb->memory.num_hot;
        CHECK(sb->memory.num_mapped <= HLSNAP__MAX_MAPPED);
    }
    CHECK(most < 100);
    for (i = 0; i < RUNS; i++) CHECK_EQ(heap_word(sb, i * APART + 7), 59 * RUNS + i + 7 * 0x100000001ull);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* The kernel gives back nothing that is locked: neither runs of the snapshot's own layers nor of what was gathered. */
static void locked_pages_go(void) {
    const hlsnap_sandbox_desc d = host_desc();
    static uint64_t words[1000], unused[1000];
    hlsnap_sandbox *sb, *made;
    hlsnap_snapshot *s = NULL;
    uint32_t i;
    if (SANITIZED || RUNNING_ON_VALGRIND || getenv("QEMU_USER")) SKIP("locks more than there is");
    sb = start(GUEST_ALL, 1300);
    for (i = 0; i < 12; i++) {
        dirty_words(sb, words, i * 60, 50, i + 9);
        hlsnap_snapshot_release(s);
        CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    }
    CHECK_EQ(hlsnap_sandbox_create_from(s, &d, &made, &err), HLSNAP_OK);
    dirty_words(made, unused, 0, 750, 77);
    i = mlockall(MCL_CURRENT) == 0;
    if (!i) printf("# mlockall: %s\n", strerror(errno));
    for (i = 0; i < 24; i++) CHECK_EQ(hlsnap_sandbox_restore(made, s, &err), HLSNAP_OK);
    munlockall();
    CHECK(made->memory.num_hot < 60);
    check_words(made, words, 1000);
    hlsnap_sandbox_destroy(sb);
    hlsnap_sandbox_destroy(made);
    hlsnap_snapshot_release(s);
}

/* A limit that the gathered file does not keep to costs the gathering only. */
static void gathered_or_copied(void) {
    const struct rlimit limit = {1000 * 4096, RLIM_INFINITY}, none = {RLIM_INFINITY, RLIM_INFINITY};
    const hlsnap_sandbox_desc d = host_desc();
    static uint64_t words[3000];
    hlsnap_sandbox *sb = start(GUEST_ALL, 4096), *made;
    hlsnap_snapshot *s;
    uint32_t i;
    for (i = 0; i < 800; i++) dirty_words(sb, words, 2 * i, 1, i + 9);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    CHECK_EQ(hlsnap_sandbox_create_from(s, &d, &made, &err), HLSNAP_OK);
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &none), 0);
    CHECK(made->memory.num_hot >= 800 && !s->flat);
    check_words(made, words, 3000);
    hlsnap_sandbox_destroy(made);
    CHECK_EQ(hlsnap_sandbox_create_from(s, &d, &made, &err), HLSNAP_OK); /* and is tried again */
    CHECK(made->memory.num_hot < 60 && s->flat && s->flat->num == 1);
    CHECK(s->flat->layer->pages < 2u * (800 + 1));
    check_words(made, words, 3000);
    hlsnap_sandbox_destroy(made);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* Another writer's snapshot may have neighbours anywhere in a layer. */
static void scatter(hlsnap_sandbox *sb, uint64_t *words, uint32_t n, uint32_t step, uint32_t seed) {
    uint32_t i;
    for (i = 0; i < n; i++) dirty_words(sb, words, i * step, 1, seed + i);
}

/* A few pages here and there are copied into a new sandbox, and compared at each restore. One that stays has them mapped; those that
   change stay private. */
static void settles(void) {
    const hlsnap_sandbox_desc d = host_desc();
    static uint64_t words[200], other[200];
    hlsnap_sandbox *sb = start(GUEST_ALL, 256), *made;
    hlsnap_snapshot *origin, *s, *next;
    const hlsnap__flat *flat = NULL;
    uint32_t i, from, built;
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &origin, &err), HLSNAP_OK);
    scatter(sb, words, 30, 4, 3);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    memcpy(other, words, sizeof(words));
    scatter(sb, other, 50, 3, 900);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &next, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_create_from(s, &d, &made, &err), HLSNAP_OK);
    CHECK(made->memory.num_copied >= 30 && made->memory.num_hot >= 30);
    for (built = 0; built < 2; built++) { /* in the one that took it, whose window is mapped from another, too */
        hlsnap_sandbox *one = built ? sb : made;
        for (from = i = 0; i < 300; i++) {
            CHECK_EQ(dirty(one, 8, 1, i), HLSNAP_OK); /* one of them, at each call */
            CHECK_EQ(hlsnap_sandbox_restore(one, s, &err), HLSNAP_OK);
            if (!from && one->memory.settled) from = i;
            if (i == HLSNAP__SETTLE_RESETS / 2) CHECK(!one->memory.settled && one->memory.num_hot >= 30);
        }
        CHECK(from + 1 >= HLSNAP__SETTLE_RESETS && from < 4 * HLSNAP__SETTLE_RESETS);
        CHECK(one->memory.base == s && one->memory.num_hot < 15);
        check_words(one, words, 200);
        dirty_words(one, other, 0, 1, 5), other[0] = 900; /* each of them is private again when it is written, and comes back */
        CHECK_EQ(dirty(one, 0, 200, 77), HLSNAP_OK);
        CHECK_EQ(hlsnap_sandbox_restore(one, s, &err), HLSNAP_OK);
        check_words(one, words, 200);
        CHECK_EQ(hlsnap_sandbox_restore(one, next, &err), HLSNAP_OK); /* what lies below is not what others took it for */
        check_words(one, other, 200);
        CHECK_EQ(hlsnap_sandbox_restore(one, origin, &err), HLSNAP_OK);
        for (i = 0; i < 200; i++) CHECK_EQ(heap_word(one, i), 0);
        CHECK_EQ(hlsnap_sandbox_restore(one, s, &err), HLSNAP_OK);
        check_words(one, words, 200);
        if (!flat) flat = s->settled;
    }
    CHECK(flat && flat == s->settled && flat->num == 1); /* one file for both */
    hlsnap_sandbox_retire(made); /* all over again */
    CHECK_EQ(hlsnap_sandbox_restore(made, s, &err), HLSNAP_OK);
    CHECK(!made->memory.settled && made->memory.num_hot >= 30);
    for (i = 0; i < 300; i++) CHECK_EQ(hlsnap_sandbox_restore(made, s, &err), HLSNAP_OK);
    CHECK(made->memory.settled && made->memory.num_hot < 15);
    check_words(made, words, 200);
    hlsnap_sandbox_destroy(sb);
    hlsnap_sandbox_destroy(made);
    hlsnap_snapshot_release(origin);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(next);
}

/* Not for a few pages; later, where most of them change; and nothing is copied to a file twice. */
static void stays_copied(void) {
    static const struct { uint32_t n, step, further, changing; int from, to; uint32_t pages; } rows[] = {
        {3, 1, 0, 0, 0, 0, 0}, {40, 9, 0, 0, 64, 128, 0}, {200, 2, 0, 0, 0, 0, 0}, {200, 2, 12, 0, 64, 128, 34},
        {40, 4, 0, 0, 64, 128, 157}, {40, 4, 0, 30, 192, 320, 157}};
    const hlsnap_sandbox_desc d = host_desc();
    static uint64_t words[1000];
    uint32_t i, k;
    for (k = 0; k < HLSNAP_COUNT(rows); k++) {
        hlsnap_sandbox *sb = start(GUEST_ALL, 1024), *made;
        hlsnap_snapshot *s;
        int at = 0;
        memset(words, 0, sizeof(words));
        scatter(sb, words, rows[k].n, rows[k].step, 3);
        for (i = 0; i < rows[k].further; i++) CHECK_EQ(dirty(sb, 900 + 3 * i, 1, 70 + i), HLSNAP_OK);
        CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
        CHECK_EQ(hlsnap_sandbox_create_from(s, &d, &made, &err), HLSNAP_OK);
        for (i = 0; i < 600; i++) {
            if (rows[k].changing) CHECK_EQ(dirty(made, 0, 4 * rows[k].changing, i + 1000), HLSNAP_OK);
            CHECK_EQ(hlsnap_sandbox_restore(made, s, &err), HLSNAP_OK);
            if (!at && made->memory.settled) at = (int)i + 1;
        }
        CHECK(at >= rows[k].from && at <= rows[k].to);
        CHECK_EQ(s->settled && s->settled->layer ? s->settled->layer->pages : 0, rows[k].pages);
        check_words(made, words, 800);
        for (i = 0; i < rows[k].further; i++) CHECK_EQ(heap_word(made, 900 + 3 * i), 70 + i);
        if (test_bad) printf("# row %u: settled at %d\n", k, at);
        hlsnap_sandbox_destroy(sb);
        hlsnap_sandbox_destroy(made);
        hlsnap_snapshot_release(s);
    }
}

static void laid_below_in_pieces(void) {
    hlsnap_sandbox *sb = start(GUEST_ALL, 512);
    hlsnap_snapshot *origin, *s, *forged;
    hlsnap__extent e[40];
    static uint64_t words[200];
    uint32_t i, at = 0, n = 0;
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &origin, &err), HLSNAP_OK);
    dirty_words(sb, words, 0, 200, 5);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    for (i = 0; i < s->num_extents; i++) {
        e[n++] = s->extents[i];
        if (s->extents[i].pages < 200) continue;
        at = n; /* the first 80 pages of the heap and the 120 behind them change places in the layer */
        e[n] = e[n - 1];
        e[n - 1].pages = 80, e[n - 1].layer_page += 120;
        e[n].page += 80, e[n++].pages -= 80;
    }
    CHECK(at != 0);
    CHECK_EQ(hlsnap__snapshot_create(s->guest, s->generation, s->layers, s->num_layers, e, n, &forged, &err), HLSNAP_OK);
    for (i = 0; i < 20; i++) CHECK_EQ(hlsnap_sandbox_restore(sb, forged, &err), HLSNAP_OK);
    CHECK(sb->memory.base == forged && sb->memory.num_hot < 60);
    for (i = 0; i < 200; i++) CHECK_EQ(heap_word(sb, i), words[i < 80 ? i + 120 : i - 80]);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(origin);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(forged);
}

/* A snapshot changes nothing of the sandbox, not even what no snapshot has. */
static void mailbox_outlives_rest(void) {
    hlsnap_sandbox *sb = start(GUEST_ALL, 1024);
    const uint64_t gva = region_gva(sb, HLSNAP__MAILBOX) + 4096, page = (gva - sb->memory.layout.base) / 4096;
    hlsnap_snapshot *s[3];
    uint32_t i, k;
    for (i = 0; i < 3; i++) {
        CHECK_EQ(dirty(sb, 0, 600, 3), HLSNAP_OK);
        CHECK_EQ(hlsnap_sandbox_call(sb, "dirty", HLSNAP_ARGS(hlsnap_u64(gva), hlsnap_u32(1), hlsnap_u32(77 + i)), NULL, &err), HLSNAP_OK);
        if (i == 0) CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s[0], &err), HLSNAP_OK);
        for (k = 0; i == 0 && k < 12; k++) CHECK_EQ(hlsnap_sandbox_restore(sb, s[0], &err), HLSNAP_OK); /* it rests */
        if (i) CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s[i], &err), HLSNAP_OK);
        if (i) CHECK_EQ(hlsnap__get64(hlsnap__memory_at(&sb->memory, page)), 77 + i);
    }
    CHECK(sb->memory.num_hot < 100);
    hlsnap_sandbox_destroy(sb);
    for (i = 0; i < 3; i++) hlsnap_snapshot_release(s[i]);
}

/* A sandbox that goes on between its snapshots looks at what it touches, not at all that it ever touched. */
static void checkpoints_of_much(void) {
    enum { TIMES = 8, MUCH = 6000 };
    static uint64_t words[TIMES][MUCH];
    hlsnap_sandbox *sb = start(GUEST_ALL, 8192);
    hlsnap_snapshot *s[TIMES];
    uint32_t k;
    dirty_words(sb, words[0], 0, MUCH, 1);
    for (k = 0; k < TIMES; k++) {
        if (k) memcpy(words[k], words[k - 1], sizeof(words[k]));
        dirty_words(sb, words[k], k * 40, 100, k + 2);
        CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s[k], &err), HLSNAP_OK);
        check_words(sb, words[k], MUCH);
    }
    CHECK(sb->memory.num_hot < 1000);
    CHECK_EQ(s[7]->generation, s[6]->generation);
    for (k = TIMES; k-- > 0;) { /* back through all of them */
        CHECK_EQ(hlsnap_sandbox_restore(sb, s[k], &err), HLSNAP_OK);
        check_words(sb, words[k], MUCH);
        hlsnap_snapshot_release(s[k]);
    }
    hlsnap_sandbox_destroy(sb);
}

/* Pages with gaps between them are mapped in runs, too, and none is private before it is written; too far apart they are copied. */
static void scattered_pages_of(uint32_t n, uint32_t gap) {
    const hlsnap_sandbox_desc d = host_desc();
    uint64_t *words = (uint64_t *)calloc((size_t)n * gap + 2000, 8), *unused = (uint64_t *)calloc((size_t)n * gap + 2000, 8);
    hlsnap_sandbox *a = start(GUEST_ALL, n * gap + 2000), *b;
    hlsnap_snapshot *s;
    const bool gathered = gap <= 2u;
    uint32_t i;
    for (i = 0; i < n; i++) dirty_words(a, words, i * gap, 1, 3 + i);
    CHECK_EQ(hlsnap_sandbox_snapshot(a, &s, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_create_from(s, &d, &b, &err), HLSNAP_OK);
    CHECK((b->memory.num_hot >= n) == !gathered && (gathered ? b->memory.num_hot < 60 : b->memory.num_copied >= n));
    check_words(b, words, n * gap);
    dirty_words(b, unused, 0, 2000, 4);
    for (i = 0; i < 8; i++) {
        const uint64_t copied = b->memory.copied_bytes;
        CHECK_EQ(hlsnap_sandbox_restore(b, s, &err), HLSNAP_OK);
        if (i > 3) CHECK(b->memory.base == s && b->memory.copied_bytes - copied < 60 * 4096);
        if (i > 3) CHECK((b->memory.num_hot >= n) == !gathered);
    }
    if (!gathered) CHECK(b->memory.hot[n / 2].idle >= 3); /* not mapped again and again */
    check_words(b, words, n * gap);
    free(words), free(unused);
    hlsnap_sandbox_destroy(a);
    hlsnap_sandbox_destroy(b);
    hlsnap_snapshot_release(s);
}
static void scattered_pages(void) {
    scattered_pages_of(1000, 2);
    scattered_pages_of(400, 3);
    scattered_pages_of(400, 17);
    scattered_pages_of(HLSNAP__HOT_MOST + 100, 3);
}

/* What differs between two extent tables, against page by page; forged tables have what no snapshot of ours has. */
static uint8_t diff_seen[80];
static hlsnap_result diff_visit(hlsnap__memory *m, uint64_t page, uint64_t pages, void *user, hlsnap_error *e) {
    (void)m, (void)user, (void)e;
    while (pages--) diff_seen[page++]++;
    return HLSNAP_OK;
}

static uint32_t diff_forge(hlsnap__extent *e) {
    uint32_t n = 0, page = random_below(6);
    while (page < 60) {
        e[n].page = page;
        e[n].pages = 1 + random_below(8);
        e[n].layer = random_below(2);
        e[n].layer_page = random_below(3) ? page : random_below(50); /* mostly the same content */
        page += e[n++].pages + (random_below(2) ? 0 : random_below(9));
    }
    return n;
}

static void extent_diffs(void) {
    static const hlsnap__memory none; /* no maps */
    hlsnap__layer one, two, *layers[2] = {&one, &two};
    hlsnap__extent e[2][64];
    hlsnap_snapshot s[2];
    long i, n = operations(20000);
    uint32_t k, page;
    for (i = 0; i < n; i++) {
        memset(diff_seen, 0, sizeof(diff_seen));
        memset(s, 0, sizeof(s));
        for (k = 0; k < 2; k++) {
            s[k].layers = layers;
            s[k].extents = e[k];
            s[k].num_extents = random_below(10) ? diff_forge(e[k]) : 0;
        }
        if (random_below(4) == 0) s[1] = s[0];
        CHECK_EQ(hlsnap__snapshot_diff(NULL, &s[0], &s[1], diff_visit, NULL, &err), HLSNAP_OK);
        for (page = 0; page < sizeof(diff_seen) && !test_bad; page++) {
            hlsnap__hot a, b;
            a.page = b.page = page;
            hlsnap__hot_source(&none, &a, &s[0]);
            hlsnap__hot_source(&none, &b, &s[1]);
            CHECK_EQ(diff_seen[page], a.layer != b.layer || a.layer_page != b.layer_page);
        }
    }
}

/* ---- what a snapshot stores ---- */

static hlsnap_snapshot_info info_of(const hlsnap_snapshot *s) {
    hlsnap_snapshot_info info;
    hlsnap_snapshot_get_info(s, &info);
    return info;
}

static void stored_pages(void) {
    static const uint8_t zeros[8192];
    const hlsnap_guest_desc g = fake_guest(GUEST_ALL, 256);
    hlsnap_sandbox *sb = start(GUEST_ALL, 256);
    hlsnap_snapshot *s[5];
    uint32_t i;
    CHECK_EQ(hlsnap_snapshot_from_guest(&g, &s[0], &err), HLSNAP_OK);
    CHECK_EQ(info_of(s[0]).stored_pages, 1 + FAKE_DATA_PAGES); /* text and data; bss, stack and heap are zero */
    CHECK_EQ(info_of(s[0]).layers, 1);
    CHECK_STR(info_of(s[0]).guest_name, "");
    CHECK_STR(info_of(s[0]).build_id, "00000000");
    CHECK_EQ(info_of(s[0]).pages, 1 + FAKE_DATA_PAGES + 1 + 16 + 1 + 1 + 16 + 256);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s[1], &err), HLSNAP_OK); /* unchanged: no layer of its own */
    CHECK(s[1]->num_layers == 1 && s[1]->layers[0] == sb->memory.base->layers[0] && s[1]->num_extents == s[0]->num_extents);
    CHECK_EQ(dirty(sb, 0, 50, 1), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s[2], &err), HLSNAP_OK); /* the delta, over the same parent */
    CHECK(s[2]->num_layers == 2 && s[2]->layers[0] == s[1]->layers[0]);
    CHECK_EQ(s[2]->layers[1]->pages, 50);
    CHECK_EQ(info_of(s[2]).stored_pages, info_of(s[1]).stored_pages + 50);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s[3], &err), HLSNAP_OK); /* unchanged again */
    CHECK(s[3]->num_layers == 2 && s[3]->layers[1] == s[2]->layers[1]);
    for (i = 0; i < 50; i += 2) /* zero again: nothing is stored, and what was is not listed */
        CHECK_EQ(hlsnap_sandbox_write(sb, region_gva(sb, HLSNAP__HEAP) + i * 4096, zeros, 4096, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_write(sb, FAKE_DATA, zeros, 4096, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s[4], &err), HLSNAP_OK);
    CHECK(s[4]->num_layers == 2 && s[4]->layers[1] == s[2]->layers[1]);
    CHECK_EQ(info_of(s[4]).stored_pages, info_of(s[1]).stored_pages + 25 - 1);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s[2], &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s[4], &err), HLSNAP_OK);
    for (i = 0; i < 50; i++) CHECK_EQ(heap_word(sb, i), i % 2 ? 1 + i * 0x100000001ull : 0);
    hlsnap_sandbox_destroy(sb); /* snapshots outlive their sandbox */
    for (i = 0; i < 5; i++) CHECK_EQ(hlsnap_snapshot_retain(s[i]) == s[i], true);
    for (i = 0; i < 10; i++) hlsnap_snapshot_release(s[i % 5]);
}

/* The first word of a heap page as the snapshot has it. */
static uint64_t heap_of(const hlsnap_snapshot *s, uint32_t i) {
    const hlsnap__layout *l = &s->guest->layout;
    const uint64_t page = hlsnap__region_page(l, hlsnap__layout_find(l, HLSNAP__HEAP)) + i;
    const hlsnap__extent *e = hlsnap__extent_at(s, page);
    uint8_t bytes[4096];
    if (!e) return 0;
    CHECK_EQ(hlsnap__layer_read(s->layers[e->layer], e->layer_page + (page - e->page), 1, bytes, &err), HLSNAP_OK);
    return hlsnap__get64(bytes);
}

/* A thousand snapshots: the chain of layers stays short, in one sandbox and from sandbox to sandbox. */
static void chains(void) {
    const hlsnap_sandbox_desc d = host_desc();
    hlsnap_sandbox *sb = start(GUEST_ALL, 64), *next;
    hlsnap_snapshot *s = NULL, *last = NULL;
    uint32_t i, most = 0, in_heap[64] = {0};
    const uint32_t n = (uint32_t)operations(1000);
    for (i = 0; i < n; i++) {
        CHECK_EQ(dirty(sb, i % 64, 1, i + 1), HLSNAP_OK);
        CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
        if (s->num_layers > most) most = s->num_layers;
        hlsnap_snapshot_release(last);
        last = s;
    }
    CHECK_EQ(most, HLSNAP__LAYERS);
    for (i = most = 0; i < n; i++) { /* every snapshot starts the next sandbox */
        in_heap[i % 64] = 5000 + i;
        CHECK_EQ(hlsnap_sandbox_create_from(last, &d, &next, &err), HLSNAP_OK);
        hlsnap_sandbox_destroy(sb);
        sb = next;
        CHECK_EQ(dirty(sb, i % 64, 1, 5000 + i), HLSNAP_OK);
        CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
        if (s->num_layers > most) most = s->num_layers;
        hlsnap_snapshot_release(last);
        last = s;
    }
    CHECK_EQ(most, HLSNAP__LAYERS);
    check_extents(last);
    CHECK_EQ(hlsnap_sandbox_restore(sb, last, &err), HLSNAP_OK);
    for (i = 0; i < 64; i++) CHECK(!in_heap[i] || heap_word(sb, i) == in_heap[i]);
    hlsnap_snapshot_release(last);
    hlsnap_sandbox_destroy(sb);
}

/* What a chain copies: a large layer never, and a small one not often; and what is not shown any more goes. */
static void chains_copy_little(void) {
    hlsnap_sandbox *sb = start(GUEST_ALL, 8192);
    hlsnap_snapshot *s = NULL, *last = NULL;
    uint64_t copied = 0, changed = 0, seed = 1, held = 0, most = 0;
    const hlsnap__layer *large, *image;
    uint32_t i, k;
    CHECK_EQ(dirty(sb, 0, 4096, 1), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &last, &err), HLSNAP_OK);
    large = last->layers[last->num_layers - 1];
    image = last->layers[0];
    for (i = 0; i < 100; i++) {
        for (k = 0; k < 8; k++) {
            seed = seed * 6364136223846793005u + 1;
            CHECK_EQ(dirty(sb, (uint32_t)(seed >> 40) % 4096, 1, i + 2), HLSNAP_OK);
        }
        CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
        CHECK(s->num_layers <= HLSNAP__LAYERS && s->layers[0] == image && s->layers[1] == large);
        copied += s->layers[s->num_layers - 1]->pages;
        changed += 8;
        if (i == 49) CHECK(copied * 2 <= changed * 3);
        hlsnap_snapshot_release(last);
        last = s;
    }
    CHECK(copied <= 2 * changed);
    check_extents(last);
    for (i = 0; i < 60; i++) { /* nine of ten pages again and again: what they were is not kept */
        for (k = 0; k < 100; k++)
            if (i == 0 || (k + i) % 10) CHECK_EQ(dirty(sb, 5000 + k, 1, 900 + i), HLSNAP_OK);
        CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
        for (k = 2, held = 0; k < s->num_layers; k++) held += s->layers[k]->pages;
        if (held > most) most = held;
        hlsnap_snapshot_release(last);
        last = s;
    }
    CHECK(most < 2 * (800 + 100) + 200);
    check_extents(last);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(last);
}

/* Layers that somebody watches are not copied into one that nobody does. */
static hlsnap_result sound(hlsnap__watch *w, uint64_t wait_ns, bool *pending, hlsnap_error *e) {
    (void)w, (void)wait_ns, (void)pending, (void)e;
    return HLSNAP_OK;
}
static void no_destroy(hlsnap__watch *w) { (void)w; }
static void watched_layers_stay(void) {
    const hlsnap_sandbox_desc d = host_desc();
    hlsnap_sandbox *sb = start(GUEST_ALL, 128), *next;
    hlsnap_snapshot *s = NULL, *last = NULL;
    hlsnap__watch watch = HLSNAP_ZERO;
    uint32_t i, k, n;
    watch.check = sound;
    watch.destroy = no_destroy;
    watch.refs = 1;
    for (i = 0; i < 30; i++) {
        CHECK_EQ(dirty(sb, i, 1, i + 1), HLSNAP_OK);
        hlsnap_snapshot_release(last);
        CHECK_EQ(hlsnap_sandbox_snapshot(sb, &last, &err), HLSNAP_OK);
    }
    n = last->num_layers;
    for (i = 0; i < n; i++) {
        hlsnap__retain(&watch.refs);
        last->layers[i]->watch = &watch;
    }
    CHECK_EQ(hlsnap_sandbox_create_from(last, &d, &next, &err), HLSNAP_OK);
    for (i = 0; i < 20; i++) {
        CHECK_EQ(dirty(next, 60 + i, 1, i + 1), HLSNAP_OK);
        CHECK_EQ(hlsnap_sandbox_snapshot(next, &s, &err), HLSNAP_OK);
        for (k = 0; k < n; k++) CHECK(s->layers[k] == last->layers[k]);
        hlsnap_snapshot_release(s);
    }
    hlsnap_sandbox_destroy(next);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(last);
    CHECK_EQ(watch.refs, 1);
}

/* A snapshot that copies all of memory, since all its layers must stay, has not looked at which pages rest. */
static void mailbox_outlives_a_whole_copy(void) {
    hlsnap_sandbox *sb = start(GUEST_ALL, 70 * 70);
    const uint64_t gva = region_gva(sb, HLSNAP__MAILBOX) + 4096, page = (gva - sb->memory.layout.base) / 4096;
    hlsnap_snapshot *s = NULL, *whole;
    hlsnap__watch watch = HLSNAP_ZERO;
    uint32_t i, k;
    watch.check = sound;
    watch.destroy = no_destroy;
    watch.refs = 1;
    for (i = 0; i < 66 && (!s || s->num_layers < HLSNAP__TAKE_LAYERS); i++) {
        CHECK_EQ(dirty(sb, i * 70, 70, i + 1), HLSNAP_OK);
        hlsnap_snapshot_release(s);
        CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
        for (k = 0; k < s->num_layers; k++) {
            if (s->layers[k]->watch) continue;
            hlsnap__retain(&watch.refs);
            s->layers[k]->watch = &watch;
        }
    }
    CHECK(s->num_layers >= HLSNAP__TAKE_LAYERS);
    CHECK_EQ(dirty(sb, 0, 66 * 70, 9), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_call(sb, "dirty", HLSNAP_ARGS(hlsnap_u64(gva), hlsnap_u32(1), hlsnap_u32(77)), NULL, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap__memory_scan(&sb->memory, &err), HLSNAP_OK);
    for (i = 0; i < sb->memory.num_hot; i++) sb->memory.hot[i].idle = 5; /* as restores before it may have left them */
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &whole, &err), HLSNAP_OK);
    CHECK_EQ(whole->num_layers, 1);
    CHECK_EQ(hlsnap__get64(hlsnap__memory_at(&sb->memory, page)), 77);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(whole);
    CHECK_EQ(watch.refs, 1);
}

/* Pages that layers cut into short pieces are mapped as well, once there are enough side by side: a reset looks at what was
   changed only. */
static void scattered_deltas(void) {
    const hlsnap_sandbox_desc d = host_desc();
    hlsnap_sandbox *sb = start(GUEST_ALL, 1024), *next;
    hlsnap_snapshot *s[3];
    hlsnap_stats stats;
    uint32_t i, n;
    CHECK_EQ(dirty(sb, 0, 300, 1), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s[0], &err), HLSNAP_OK);
    for (i = 0; i < 300; i += 2) CHECK_EQ(dirty(sb, i, 1, 1000 + i), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s[1], &err), HLSNAP_OK);
    for (i = 0; i < 10; i++) CHECK_EQ(dirty(sb, 400 + i * 5, 1, 7), HLSNAP_OK); /* alone: copied */
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s[2], &err), HLSNAP_OK);
    CHECK(s[2]->num_extents >= 300);
    for (n = 0; n < 3; n++) {
        CHECK_EQ(hlsnap_sandbox_create_from(s[n], &d, &next, &err), HLSNAP_OK);
        hlsnap_sandbox_get_stats(next, &stats);
        CHECK(stats.hot_pages < 40);
        CHECK_EQ(dirty(next, 0, 20, 9), HLSNAP_OK);
        CHECK_EQ(hlsnap_sandbox_restore(next, s[n], &err), HLSNAP_OK);
        hlsnap_sandbox_get_stats(next, &stats);
        CHECK(stats.hot_pages < 60);
        for (i = 0; i < 300; i++) CHECK_EQ(heap_word(next, i), heap_of(s[n], i));
        for (i = 400; i < 450; i++) CHECK_EQ(heap_word(next, i), heap_of(s[n], i));
        CHECK_EQ(hlsnap_sandbox_restore(next, s[(n + 1) % 3], &err), HLSNAP_OK);
        for (i = 0; i < 450; i++) CHECK_EQ(heap_word(next, i), heap_of(s[(n + 1) % 3], i));
        hlsnap_sandbox_destroy(next);
    }
    for (n = 0; n < 3; n++) hlsnap_snapshot_release(s[n]);
    hlsnap_sandbox_destroy(sb);
}

/* So large that layers are files (memfds) that sandboxes map, and shared by all of them. */
static void large_layers(void) {
    const hlsnap_sandbox_desc d = host_desc();
    hlsnap_sandbox *sb = start(GUEST_ALL, 1024), *many[5];
    hlsnap_snapshot *s;
    uint32_t i;
    int fd;
    CHECK_EQ(dirty(sb, 0, 1000, 11), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    fd = s->layers[s->num_layers - 1]->fd;
    CHECK(fd >= 0 && s->layers[s->num_layers - 1]->sealed);
    CHECK(pwrite(fd, "x", 1, 0) < 0 && ftruncate(fd, 0) < 0 && ftruncate(fd, 1 << 30) < 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) < 0);
    CHECK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
    for (i = 0; i < 5; i++) {
        CHECK_EQ(hlsnap_sandbox_create_from(s, &d, &many[i], &err), HLSNAP_OK);
        CHECK_EQ(dirty(many[i], i * 100, 100, 1000 * i), HLSNAP_OK);
    }
    for (i = 0; i < 5; i++) { /* what one writes the others do not see */
        CHECK(heap_word(many[i], i * 100) == 1000 * i && heap_word(many[(i + 1) % 5], i * 100) == 11 + i * 100 * 0x100000001ull);
        CHECK_EQ(hlsnap_sandbox_restore(many[i], s, &err), HLSNAP_OK);
        CHECK_EQ(heap_word(many[i], i * 100), 11 + i * 100 * 0x100000001ull);
    }
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s); /* sandboxes retain what they are mapped from */
    for (i = 0; i < 5; i++) {
        CHECK_EQ(heap_word(many[i], 999), 11 + 999 * 0x100000001ull);
        hlsnap_sandbox_destroy(many[i]);
    }
}

/* Nothing needs what Linux has learnt since 5.10. */
static void old_kernel(void) {
    hlsnap_sandbox *sb;
    inject.old = true;
    sb = start(GUEST_ALL, 1024);
    if (CHECK(sb != NULL)) large_layers(), reset_proof(operations(500), -1);
    else printf("# %s\n", err.msg);
    CHECK(inject.refused > 0);
    inject.old = false;
    hlsnap_sandbox_destroy(sb);
}

/* A page that the kernel holds keeps nobody from sealing, and what is sealed then is sealed as well. */
static void pages_held(void) {
    inject.held = true;
    inject.refused = 0;
    large_layers();
    CHECK(inject.refused > 0);
    inject.held = false;
}

static uint64_t generation_of(hlsnap_sandbox *sb) {
    hlsnap_value out = hlsnap_u64(0);
    CHECK_EQ(hlsnap_sandbox_call(sb, "generation", HLSNAP_NO_ARGS, &out, &err), HLSNAP_OK);
    return out.as.u64;
}

/* The stack protector's canary and the pointer guard are new, too: none twice, none a constant. */
static void secrets(hlsnap_sandbox *sb, uint64_t (*pairs)[2], uint32_t n) {
    uint32_t i, k;
    CHECK_EQ(hlsnap_sandbox_read(sb, region_gva(sb, HLSNAP__IDENTITY) + 0x28, pairs[n], 16, &err), HLSNAP_OK);
    CHECK_EQ(pairs[n][0] & 0xff, 0); /* a string that runs over it ends there */
    for (k = 0; k < 2; k++)
        for (i = 0; i < n; i++) CHECK(pairs[n][k] != pairs[i][0] && pairs[n][k] != pairs[i][1]);
    CHECK(pairs[n][0] && pairs[n][1] && pairs[n][0] != (pairs[n][1] & ~0xffull));
}

static void generations(void) {
    const hlsnap_sandbox_desc d = host_desc();
    hlsnap_sandbox *a = start(GUEST_ALL, 16), *b;
    hlsnap_snapshot *early, *late;
    hlsnap_abi_identity x, y;
    uint64_t pairs[5][2];
    const uint64_t first = generation_of(a), identity = region_gva(a, HLSNAP__IDENTITY) + HLSNAP_ABI_IDENTITY_OFFSET;
    secrets(a, pairs, 0);
    CHECK_EQ(hlsnap_sandbox_snapshot(a, &early, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_restore(a, early, &err), HLSNAP_OK);
    secrets(a, pairs, 1);
    CHECK(generation_of(a) > first);
    CHECK_EQ(hlsnap_sandbox_restore(a, early, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(a, &late, &err), HLSNAP_OK);
    CHECK_EQ(late->generation, generation_of(a));
    CHECK_EQ(hlsnap_sandbox_create_from(late, &d, &b, &err), HLSNAP_OK);
    secrets(b, pairs, 2);
    CHECK(generation_of(b) > generation_of(a));
    CHECK_EQ(hlsnap_sandbox_restore(b, early, &err), HLSNAP_OK); /* what the guest remembers is older still, */
    secrets(b, pairs, 3);
    CHECK_EQ(generation_of(b), early->generation + 1); /* and how often this sandbox served others is nobody's business */
    CHECK_EQ(hlsnap_sandbox_read(a, identity, &x, sizeof(x), &err), HLSNAP_OK); /* clones differ, restores differ */
    CHECK_EQ(hlsnap_sandbox_read(b, identity, &y, sizeof(y), &err), HLSNAP_OK);
    CHECK(memcmp(x.id, y.id, sizeof(x.id)) != 0 && memcmp(x.entropy, y.entropy, sizeof(x.entropy)) != 0);
    CHECK_EQ(hlsnap_sandbox_restore(a, late, &err), HLSNAP_OK);
    secrets(a, pairs, 4);
    CHECK_EQ(hlsnap_sandbox_read(a, identity, &y, sizeof(y), &err), HLSNAP_OK);
    CHECK(memcmp(x.id, y.id, sizeof(x.id)) != 0 && memcmp(x.entropy, y.entropy, sizeof(x.entropy)) != 0);
    CHECK(y.magic == HLSNAP_ABI_MAGIC && y.heap == region_gva(a, HLSNAP__HEAP) && y.heap_size == 16 * 4096 && !y.module);
    late->generation = UINT64_MAX / 2 + 1; /* as a forged file may say */
    CHECK_EQ(hlsnap_sandbox_restore(a, late, &err), HLSNAP_ERR_LIMIT);
    late->guest->features |= 1ull << 63;
    late->generation = 1;
    CHECK_EQ(hlsnap_sandbox_restore(a, late, &err), HLSNAP_ERR_CPU);
    CHECK(strstr(err.msg, "unknown; one made with guest_desc.cpu of v"));
    CHECK_EQ(hlsnap_sandbox_get_state(a), HLSNAP_READY);
    hlsnap_sandbox_destroy(a);
    hlsnap_sandbox_destroy(b);
    hlsnap_snapshot_release(early);
    hlsnap_snapshot_release(late);
}

/* A guest of a level runs in a shell of that level, whatever ran in the sandbox before; a shell serves as long as the level stays. */
static void levels(void) {
    const hlsnap_sandbox_desc d = host_desc();
    const uint32_t most = hlsnap__cpu_level_in(hlsnap__cpu_features());
    hlsnap_guest_desc g = fake_guest(GUEST_FEW, 16);
    hlsnap_snapshot *s[HLSNAP_CPU_V4 + 1] = {NULL};
    hlsnap_snapshot_info info;
    hlsnap_sandbox *sb;
    uint32_t level, i;
    long shells;
    for (level = 0; level <= HLSNAP_CPU_V4; level++) {
        g.cpu = (hlsnap_cpu)level;
        hv.level = 99;
        if (!CHECK_EQ(hlsnap_sandbox_create(&g, &d, &sb, &err), level <= most ? HLSNAP_OK : HLSNAP_ERR_CPU)) continue;
        CHECK_EQ(hv.level, level <= most ? level : 99); /* nothing ran */
        if (level > most) continue;
        CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s[level], &err), HLSNAP_OK);
        hlsnap_snapshot_get_info(s[level], &info);
        CHECK_EQ(info.cpu, level);
        CHECK_EQ(info.baseline, level ? level : hlsnap__cpu_level_for(hlsnap__cpu_features()));
        CHECK_EQ(s[level]->guest->features, level ? hlsnap__cpu_level_features(level) : hlsnap__cpu_features());
        hlsnap_sandbox_destroy(sb);
    }
    CHECK_EQ(hlsnap_sandbox_create_from(s[0], &d, &sb, &err), HLSNAP_OK);
    shells = hv.calls[FAKE_CREATE];
    for (i = 0; i < 3; i++)
        for (level = 0; level <= most; level++) {
            CHECK_EQ(hlsnap_sandbox_restore(sb, s[level], &err), HLSNAP_OK);
            CHECK_EQ(hlsnap_sandbox_restore(sb, s[level], &err), HLSNAP_OK);
            CHECK_EQ(call0(sb, "nop"), HLSNAP_OK);
            CHECK_EQ(hv.level, level);
        }
    CHECK_EQ(hv.calls[FAKE_CREATE] - shells, 3 * (long)most + 2);
    hv.ops.cpu_check = NULL; /* another hypervisor shows its machine's CPU */
    CHECK_EQ(hlsnap_sandbox_restore(sb, s[1], &err), HLSNAP_ERR_UNSUPPORTED);
    CHECK(strstr(err.msg, "CPU level v1"));
    CHECK_EQ(hlsnap_sandbox_get_state(sb), HLSNAP_POISONED);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s[0], &err), HLSNAP_OK);
    CHECK_EQ(call0(sb, "nop"), HLSNAP_OK);
    hlsnap_sandbox_destroy(sb);
    hv.ops.cpu_check = fake_cpu_check;
    for (level = 0; level <= most; level++) hlsnap_snapshot_release(s[level]);
}

/* What each level has, as the psABI lists it; and which one holds, or is held by, a set of features. */
static void level_tables(void) {
    char names[400];
    hlsnap__cpu_names(hlsnap__cpu_level_features(HLSNAP_CPU_V1), names, sizeof(names));
    CHECK_STR(names, "");
    hlsnap__cpu_names(hlsnap__cpu_level_features(HLSNAP_CPU_V2), names, sizeof(names));
    CHECK_STR(names, "sse3 ssse3 cx16 sse4_1 sse4_2 popcnt");
    hlsnap__cpu_names(hlsnap__cpu_level_features(HLSNAP_CPU_V3), names, sizeof(names));
    CHECK_STR(names, "sse3 ssse3 fma cx16 sse4_1 sse4_2 movbe popcnt avx f16c bmi1 avx2 bmi2 lzcnt");
    hlsnap__cpu_names(hlsnap__cpu_level_features(HLSNAP_CPU_V4), names, sizeof(names));
    CHECK_STR(names, "sse3 ssse3 fma cx16 sse4_1 sse4_2 movbe popcnt avx f16c bmi1 avx2 bmi2 avx512f avx512dq avx512cd avx512bw avx512vl lzcnt");
    CHECK_EQ(hlsnap__cpu_level_for(0), HLSNAP_CPU_V1);
    CHECK_EQ(hlsnap__cpu_level_for(1ull << HLSNAP__CPU_popcnt), HLSNAP_CPU_V2);
    CHECK_EQ(hlsnap__cpu_level_for(1ull << HLSNAP__CPU_lzcnt), HLSNAP_CPU_V3);
    CHECK_EQ(hlsnap__cpu_level_for(1ull << HLSNAP__CPU_avx512vl), HLSNAP_CPU_V4);
    CHECK_EQ(hlsnap__cpu_level_for(1ull << HLSNAP__CPU_aes), HLSNAP_CPU_HOST);
    CHECK_EQ(hlsnap__cpu_level_for(1ull << 63), HLSNAP_CPU_HOST);
    CHECK_EQ(hlsnap__cpu_level_in(0), HLSNAP_CPU_V1);
    CHECK_EQ(hlsnap__cpu_level_in(~0ull), HLSNAP_CPU_V4);
    CHECK_EQ(hlsnap__cpu_level_in(~(1ull << HLSNAP__CPU_f16c)), HLSNAP_CPU_V2);
    CHECK_EQ(hlsnap__cpu_level_in(~(1ull << HLSNAP__CPU_cx16)), HLSNAP_CPU_V1);
}

/* A pre-init snapshot runs init, again at every restore. */
static void pre_init(void) {
    const hlsnap_guest_desc g = fake_guest(GUEST_FEW, 16);
    const hlsnap_sandbox_desc d = host_desc();
    hlsnap_snapshot *pre;
    hlsnap_sandbox *sb;
    CHECK_EQ(hlsnap_snapshot_from_guest(&g, &pre, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_create_from(pre, &d, &sb, &err), HLSNAP_OK);
    CHECK_EQ(dirty(sb, 0, 10, 1), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_restore(sb, pre, &err), HLSNAP_OK);
    CHECK_EQ(heap_word(sb, 0), 0);
    CHECK_EQ(call0(sb, "nop"), HLSNAP_OK);
    hv.fail[FAKE_RUN] = 1;
    CHECK_EQ(hlsnap_sandbox_restore(sb, pre, &err), HLSNAP_ERR_HYPERVISOR);
    CHECK_EQ(hlsnap_sandbox_get_state(sb), HLSNAP_POISONED);
    CHECK_EQ(hlsnap_sandbox_restore(sb, pre, &err), HLSNAP_OK);
    CHECK_EQ(call0(sb, "nop"), HLSNAP_OK);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(pre);
}

/* ---- failed restores ---- */

/* After a failure of any kind the sandbox is poisoned, and the next restore brings everything back. */
static void failed_restore(hlsnap_sandbox *sb, hlsnap_snapshot *from, hlsnap_snapshot *to, int op, long nth, long sys) {
    hlsnap_result r;
    bool hit;
    CHECK_EQ(hlsnap_sandbox_restore(sb, from, &err), HLSNAP_OK);
    if (op < FAKE_NUM_OPS) hv.fail[op] = nth;
    inject_arm(-1, sys);
    r = hlsnap_sandbox_restore(sb, to, &err);
    hit = inject_disarm();
    memset(hv.fail, 0, sizeof(hv.fail));
    if (op < FAKE_NUM_OPS && (to->guest != from->guest || op == FAKE_RUN)) CHECK(r == HLSNAP_OK || r == HLSNAP_ERR_HYPERVISOR);
    CHECK(r == HLSNAP_OK || hit || op < FAKE_NUM_OPS);
    CHECK_EQ(hlsnap_sandbox_get_state(sb), r ? HLSNAP_POISONED : HLSNAP_READY);
    if (r) CHECK_EQ(call0(sb, "nop"), HLSNAP_ERR_STATE);
    if (r) CHECK_EQ(hlsnap_sandbox_restore(sb, to, &err), HLSNAP_OK);
    CHECK_EQ(call0(sb, "nop"), HLSNAP_OK);
}

static uint8_t *window_copy(hlsnap_sandbox *sb, size_t *n) {
    const hlsnap__layout *l = &sb->memory.layout;
    uint8_t *copy = (uint8_t *)calloc(1, model_size(l));
    uint32_t i;
    *n = model_size(l);
    for (i = 0; i < l->num_regions; i++)
        if (hlsnap__kind_stored(l->regions[i].kind))
            CHECK_EQ(hlsnap_sandbox_read(sb, l->regions[i].gva, copy + (l->regions[i].gva - l->base),
                                         (size_t)l->regions[i].pages * 4096, &err), HLSNAP_OK);
    return copy;
}

static bool window_same(hlsnap_sandbox *sb, const uint8_t *want, size_t n) {
    size_t have;
    uint8_t *copy = window_copy(sb, &have);
    const bool same = have == n && memcmp(copy, want, n) == 0;
    free(copy);
    return same;
}

/* From one snapshot to its sibling in place, to a far one that is mapped, and to another guest's. */
static void failed_restores(void) {
    hlsnap_sandbox *sb = start(GUEST_ALL, 2048), *other = start(GUEST_OTHER, 100);
    hlsnap_snapshot *s[4];
    uint8_t *want[4];
    size_t size[4];
    uint32_t i, op;
    long k;
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s[0], &err), HLSNAP_OK);
    want[0] = window_copy(sb, &size[0]);
    CHECK_EQ(dirty(sb, 5, 40, 3), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s[1], &err), HLSNAP_OK);
    want[1] = window_copy(sb, &size[1]);
    CHECK_EQ(dirty(sb, 100, 1500, 8), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s[2], &err), HLSNAP_OK);
    want[2] = window_copy(sb, &size[2]);
    CHECK_EQ(dirty(other, 0, 30, 6), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(other, &s[3], &err), HLSNAP_OK);
    want[3] = window_copy(other, &size[3]);
    for (i = 0; i < 16; i++) {
        hlsnap_snapshot *from = s[i / 4], *to = s[i % 4];
        for (op = 0; op < FAKE_NUM_OPS; op++)
            for (k = 1; k <= 4; k++) failed_restore(sb, from, to, (int)op, k, -1);
        CHECK(window_same(sb, want[i % 4], size[i % 4]));
        for (k = 0, inject.hits = 1; inject.hits && k < 100; k++) {
            failed_restore(sb, from, to, FAKE_NUM_OPS, 0, k);
            if (!CHECK(window_same(sb, want[i % 4], size[i % 4]))) printf("# %u to %u, system call %ld\n", i / 4, i % 4, k);
        }
        CHECK(k < 100);
    }
    for (i = 0; i < 4; i++) {
        hlsnap_snapshot_release(s[i]);
        free(want[i]);
    }
    hlsnap_sandbox_destroy(sb);
    hlsnap_sandbox_destroy(other);
}

/* ---- reading and writing guest memory ---- */

static void memory_access(void) {
    hlsnap_sandbox *sb = start(GUEST_ALL, 16);
    const uint64_t stack = region_gva(sb, HLSNAP__STACK), heap = region_gva(sb, HLSNAP__HEAP), box = region_gva(sb, HLSNAP__MAILBOX);
    const uint64_t identity = region_gva(sb, HLSNAP__IDENTITY), end = heap + 16 * 4096;
    const struct { uint64_t gva; size_t n; hlsnap_result read, write; } rows[] = {
        {heap, 16 * 4096, HLSNAP_OK, HLSNAP_OK}, {heap + 100, 16 * 4096 - 99, HLSNAP_ERR_ARG, HLSNAP_ERR_ARG},
        {end - 1, 1, HLSNAP_OK, HLSNAP_OK}, {end - 1, 2, HLSNAP_ERR_ARG, HLSNAP_ERR_ARG}, {end, 1, HLSNAP_ERR_ARG, HLSNAP_ERR_ARG},
        {end, 0, HLSNAP_OK, HLSNAP_OK}, {FAKE_TEXT + 128, 100, HLSNAP_OK, HLSNAP_OK},
        {FAKE_TEXT + 4090, 20, HLSNAP_OK, HLSNAP_OK}, {FAKE_TEXT - 1, 2, HLSNAP_ERR_ARG, HLSNAP_ERR_ARG},
        {FAKE_DATA, 4 * 4096, HLSNAP_OK, HLSNAP_OK}, {FAKE_DATA, 4 * 4096 + 1, HLSNAP_ERR_ARG, HLSNAP_ERR_ARG},
        {stack - 1, 1, HLSNAP_ERR_ARG, HLSNAP_ERR_ARG}, {identity, 4096, HLSNAP_OK, HLSNAP_ERR_ARG},
        {identity + 4090, 20, HLSNAP_OK, HLSNAP_ERR_ARG}, /* on into the mailbox, which follows */
        {box, 65536, HLSNAP_OK, HLSNAP_OK}, {0, 1, HLSNAP_ERR_ARG, HLSNAP_ERR_ARG}, {UINT64_MAX, 1, HLSNAP_ERR_ARG, HLSNAP_ERR_ARG},
        {UINT64_MAX, 2, HLSNAP_ERR_ARG, HLSNAP_ERR_ARG}, {heap, SIZE_MAX, HLSNAP_ERR_ARG, HLSNAP_ERR_ARG},
        {HLSNAP__SYS_GVA, 8, HLSNAP_ERR_ARG, HLSNAP_ERR_ARG}};
    static uint8_t bytes[65536], back[65536];
    hlsnap_snapshot *s;
    size_t i, n;
    uint8_t *want = window_copy(sb, &n);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    for (i = 0; i < sizeof(bytes); i++) bytes[i] = (uint8_t)(i * 13 + 1);
    for (i = 0; i < HLSNAP_COUNT(rows); i++) {
        if (!CHECK_EQ(hlsnap_sandbox_write(sb, rows[i].gva, bytes, rows[i].n, &err), rows[i].write)) printf("# row %zu\n", i);
        if (!CHECK_EQ(hlsnap_sandbox_read(sb, rows[i].gva, back, rows[i].n, &err), rows[i].read)) printf("# row %zu\n", i);
        if (!rows[i].write && !rows[i].read) CHECK(memcmp(bytes, back, rows[i].n) == 0);
    }
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK); /* undone everywhere, text included */
    CHECK(window_same(sb, want, n));
    CHECK_EQ(hlsnap_sandbox_write(sb, FAKE_TEXT + 128, bytes, 8, &err), HLSNAP_OK);
    hlsnap_snapshot_release(s);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK); /* and kept by a snapshot */
    CHECK_EQ(hlsnap_sandbox_write(sb, FAKE_TEXT + 128, back + 100, 8, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_read(sb, FAKE_TEXT + 128, back, 8, &err), HLSNAP_OK);
    CHECK(memcmp(back, bytes, 8) == 0);
    free(want);
    hlsnap_snapshot_release(s);
    hlsnap_sandbox_destroy(sb);
}

/* In place, and what the guest does later is seen there. */
static void memory_views(void) {
    hlsnap_sandbox *sb = start(GUEST_ALL, 600);
    const uint64_t heap = region_gva(sb, HLSNAP__HEAP), end = heap + 600 * 4096;
    const void *p = sb, *q;
    CHECK_EQ(dirty(sb, 0, 600, 9), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_view(sb, heap, 600 * 4096, &p, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap__get64((const uint8_t *)p + 599 * 4096), 9 + 599 * 0x100000001ull);
    CHECK_EQ(hlsnap_sandbox_view(sb, heap + 4096, 8, &q, &err), HLSNAP_OK);
    CHECK(q == (const uint8_t *)p + 4096);
    CHECK_EQ(dirty(sb, 0, 600, 10), HLSNAP_OK);
    CHECK_EQ(hlsnap__get64((const uint8_t *)p), 10);
    CHECK_EQ(hlsnap_sandbox_view(sb, end, 0, &q, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_view(sb, end - 1, 2, &q, &err), HLSNAP_ERR_ARG);
    CHECK(q == NULL);
    CHECK_EQ(hlsnap_sandbox_view(sb, UINT64_MAX, 2, &q, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_sandbox_view(sb, heap, SIZE_MAX, &q, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_sandbox_view(sb, heap, 1, NULL, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_sandbox_view(NULL, heap, 1, &q, &err), HLSNAP_ERR_ARG);
    sb->memory.trusted = false;
    CHECK_EQ(hlsnap_sandbox_view(sb, heap, 1, &q, &err), HLSNAP_ERR_UNSUPPORTED);
    CHECK(q == NULL && strstr(err.msg, "hlsnap_sandbox_read copies") != NULL);
    hlsnap_sandbox_destroy(sb);
}

/* Memory over files that a stranger may cut is moved by the kernel, which does less at once than it was asked for. */
static void memory_moves_in_pieces(void) {
    static uint8_t bytes[100 * 4096], back[100 * 4096];
    hlsnap_sandbox *sb = start(GUEST_ALL, 128);
    const uint64_t heap = region_gva(sb, HLSNAP__HEAP);
    const long moves = inject.moves;
    size_t i;
    if (getenv("QEMU_USER")) {
        hlsnap_sandbox_destroy(sb);
        SKIP("qemu-user has no process_vm_readv");
    }
    for (i = 0; i < sizeof(bytes); i++) bytes[i] = (uint8_t)(i * 7 + i / 4096);
    sb->memory.trusted = false;
    inject.move_most = 10000;
    CHECK_EQ(hlsnap_sandbox_write(sb, heap + 77, bytes, sizeof(bytes), &err), HLSNAP_OK);
    CHECK_EQ(inject.moves - moves, 41);
    CHECK_EQ(hlsnap_sandbox_read(sb, heap + 77, back, sizeof(back), &err), HLSNAP_OK);
    CHECK(memcmp(bytes, back, sizeof(back)) == 0);
    CHECK_EQ(mprotect(hlsnap__memory_at(&sb->memory, (heap - sb->memory.layout.base) / 4096 + 50), 4096, PROT_NONE), 0);
    CHECK_EQ(hlsnap_sandbox_read(sb, heap, back, sizeof(back), &err), HLSNAP_ERR_CHANGED);
    CHECK_EQ(err.os_errno, EFAULT);
    CHECK_EQ(mprotect(hlsnap__memory_at(&sb->memory, (heap - sb->memory.layout.base) / 4096 + 50), 4096, PROT_READ | PROT_WRITE), 0);
    inject.move_errno = EPERM; /* a seccomp profile */
    CHECK_EQ(hlsnap_sandbox_read(sb, heap, back, 1, &err), HLSNAP_ERR_OS);
    CHECK_EQ(err.os_errno, EPERM);
    CHECK(strstr(err.msg, "process_vm_readv of this process's own memory: ") != NULL && strstr(err.msg, " (errno 1): ") != NULL);
    inject.move_errno = ENOSYS;
    CHECK_EQ(hlsnap_sandbox_write(sb, heap, back, 1, &err), HLSNAP_ERR_OS);
    CHECK(strstr(err.msg, "process_vm_writev") != NULL);
    inject.move_most = 0, inject.move_errno = 0;
    hlsnap_sandbox_destroy(sb);
}

static void statistics(void) {
    hlsnap_sandbox *sb = start(GUEST_ALL, 64);
    hlsnap_snapshot *s;
    hlsnap_stats a, b;
    hlsnap_sandbox_get_stats(sb, &a);
    CHECK(a.calls == 0 && a.exits == 1 && a.restores == 0); /* init */
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    CHECK_EQ(call0(sb, "nop"), HLSNAP_OK);
    CHECK_EQ(call0(sb, "hook"), HLSNAP_OK);
    CHECK_EQ(dirty(sb, 0, 20, 1), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_restore(sb, NULL, &err), HLSNAP_ERR_ARG);
    hlsnap_sandbox_get_stats(sb, &b);
    CHECK(b.calls == 3 && b.exits == 1 + 4 && b.restores == 1);
    CHECK(b.hot_pages >= 20 && b.copied_bytes >= a.copied_bytes + 20 * 4096 && b.guest_ns >= a.guest_ns);
    CHECK(b.snapshots == 1 && b.ended[HLSNAP_OK] == 1 + 3);
    CHECK_EQ(hlsnap_sandbox_call(sb, "code", HLSNAP_ARGS(hlsnap_i32(HLSNAP_ERR_FUNCTION)), NULL, &err), HLSNAP_ERR_FUNCTION);
    CHECK_EQ(hlsnap_sandbox_call(sb, "no such", NULL, 0, NULL, &err), HLSNAP_ERR_NOT_FOUND); /* did not run */
    CHECK_EQ(hlsnap_sandbox_call(sb, "abort", HLSNAP_ARGS(hlsnap_i32(1), hlsnap_bytes("", 0)), NULL, &err), HLSNAP_ERR_ABORT);
    CHECK_EQ(call0(sb, "nop"), HLSNAP_ERR_STATE);
    hlsnap_sandbox_get_stats(sb, &b);
    CHECK(b.ended[HLSNAP_OK] == 1 + 3 && b.ended[HLSNAP_ERR_FUNCTION] == 1 && b.ended[HLSNAP_ERR_ABORT] == 1);
    CHECK(!b.ended[HLSNAP_ERR_NOT_FOUND] && !b.ended[HLSNAP_ERR_STATE]);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* ---- fork ---- */

/* In the child: nothing works but destroy, and destroy touches nothing that is mapped there by now. */
static int child(hlsnap_snapshot *s) {
    const uint32_t num = HLSNAP_COUNT(state_ops);
    const size_t n = model_size(&self->memory.layout);
    uint8_t *mine = self->memory.mem, bad = 0;
    const int fds = count_fds();
    uint32_t i;
    own = s;
    bad |= !hlsnap__all_zero(hlsnap__memory_sys(&self->memory), HLSNAP__SYS_SIZE); /* the kernel wiped what did come along */
    for (i = 0; i < num; i++)
        if (state_ops[i].run != op_retire && state_ops[i].run != op_cancel) bad |= state_ops[i].run() != HLSNAP_ERR_STATE;
    if (RUNNING_ON_VALGRIND) { /* it believes that the parent's mappings are still there */
        hlsnap_sandbox_destroy(self);
        return bad;
    }
    bad |= mmap(mine, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != mine;
    if (bad) return 1;
    memset(mine, 7, n);
    hlsnap_sandbox_destroy(self);
    for (i = 0; i < n; i++) bad |= mine[i] != 7;
    return bad || hv.forked != 1 || hv.bad ? 2 : count_fds() > fds ? 3 : 0;
}

static void forks(void) {
    hlsnap_snapshot *s;
    int status = -1, i;
    if (getenv("QEMU_USER")) SKIP("qemu-user ignores MADV_WIPEONFORK and MADV_DONTFORK");
    self = start(GUEST_ALL, 16);
    CHECK_EQ(hlsnap_sandbox_snapshot(self, &s, &err), HLSNAP_OK);
    CHECK_EQ(dirty(self, 0, 10, 5), HLSNAP_OK);
    for (i = 0; i < 2; i++) {
        const pid_t pid = fork();
        if (!pid) _exit(child(s));
        CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
        CHECK_EQ(status, 0);
        CHECK_EQ(heap_word(self, 9), 5 + 9 * 0x100000001ull);
        CHECK_EQ(call0(self, "nop"), HLSNAP_OK);
        CHECK_EQ(hlsnap_sandbox_restore(self, s, &err), HLSNAP_OK);
        CHECK_EQ(heap_word(self, 9), 0);
        CHECK_EQ(dirty(self, 0, 10, 5), HLSNAP_OK);
    }
    hlsnap_sandbox_destroy(self);
    hlsnap_snapshot_release(s);
}

#define TESTS_SNAPSHOTS(X) \
    X(resets) X(resets_without_scan) X(resets_without_proc) X(pagemap_of_somebody) X(retire_takes_the_slot) X(nobody_elses) X(nothing_in_freed_blocks) X(retarget_or_remap) X(idle_pages) X(idle_pages_of_another_target) X(built_as_from) X(built_of_both) X(laid_without_end) X(locked_pages_go) X(gathered_or_copied) X(settles) X(stays_copied) X(laid_below_in_pieces) \
    X(mailbox_outlives_rest) X(mailbox_outlives_a_whole_copy) X(checkpoints_of_much) X(scattered_pages) \
    X(extent_diffs) \
    X(stored_pages) X(chains) X(chains_copy_little) X(watched_layers_stay) X(scattered_deltas) X(large_layers) X(old_kernel) X(pages_held) \
    X(generations) X(levels) X(level_tables) X(pre_init) X(failed_restores) X(memory_access) X(memory_views) X(memory_moves_in_pieces) X(statistics) X(forks)
