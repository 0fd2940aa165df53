/* oci_make.h - snapshots for the store's tests, made without any VM. Include it after an implementing hlsnap_oci.h and after
   test.h: a guest of 300 pages, layers of pseudo-random pages, deltas, and what two snapshots must have in common to be equal. */
#ifndef OCI_MAKE_H
#define OCI_MAKE_H

#define BASE 0x10000000ull
#define P 4096ull

static const hlsnap__region regions[] = {
    {HLSNAP__TEXT, BASE, 4},           {HLSNAP__RODATA, BASE + 4 * P, 2},     {HLSNAP__DATA, BASE + 6 * P, 8},
    {HLSNAP__HEAP, BASE + 16 * P, 256}, {HLSNAP__STACK, BASE + 273 * P, 4},    {HLSNAP__MAILBOX, BASE + 278 * P, 16},
    {HLSNAP__TLS, BASE + 295 * P, 1},  {HLSNAP__IDENTITY, BASE + 296 * P, 1}};

HLSNAP__UNUSED static void decl(hlsnap__decl *d, const char *name, const char *signature) {
    CHECK_EQ(hlsnap__decl_parse(d, name, strlen(name), signature, strlen(signature), NULL), 0);
}

HLSNAP__UNUSED static hlsnap__guest *guest_new(void) {
    hlsnap__guest *g = hlsnap__guest_alloc(NULL);
    size_t i;
    g->initialized = true;
    g->layout.base = BASE;
    g->layout.pages = 300;
    for (i = 0; i < HLSNAP_COUNT(regions); i++) g->layout.regions[g->layout.num_regions++] = regions[i];
    g->contract.num_exports = 3;
    g->contract.num_imports = 2;
    g->contract.exports = (hlsnap__decl *)hlsnap__alloc(3, sizeof(hlsnap__decl), NULL);
    g->contract.imports = (hlsnap__decl *)hlsnap__alloc(2, sizeof(hlsnap__decl), NULL);
    decl(&g->contract.exports[0], "twice", "i32(i32)");
    decl(&g->contract.exports[1], "all", "bytes(bool,i32,u32,i64,u64,f32,f64,str,bytes)");
    decl(&g->contract.exports[2], "a.b:c$-", "void()");
    decl(&g->contract.imports[0], "clock", "u64()");
    decl(&g->contract.imports[1], "twice", "str(str)");
    g->entry = BASE + 0x123;
    g->module = BASE + 4 * P + 64;
    g->tls_size = 0x180;
    g->elf_entry = 0x401000;
    g->load_address = 0xffffffffffff0000ull;
    g->features = hlsnap__cpu_features();
    strcpy(g->name, "g\xc3\xbc" "est \"x\".elf");
    strcpy(g->build_id, "0123456789abcdef0123456789abcdef01234567");
    strcpy(g->cpu_vendor, "AMDisbetter!");
    strcpy(g->hypervisor, "some_vm-1.0+x");
    g->id = hlsnap__guest_id(g);
    return g;
}

HLSNAP__UNUSED static uint64_t lcg(uint64_t *seed) {
    return (*seed = *seed * 6364136223846793005ull + 1442695040888963407ull) >> 20;
}

HLSNAP__UNUSED static hlsnap__layer *layer_new(uint32_t pages, uint64_t seed, uint32_t zero_page) {
    int fd = hlsnap__memfd(NULL);
    uint8_t page[P];
    uint32_t i, k;
    for (i = 0; i < pages; i++) {
        for (k = 0; k < P; k += 8) {
            uint64_t v = lcg(&seed);
            memcpy(page + k, &v, 8);
        }
        if (i == zero_page) memset(page, 0, sizeof(page));
        CHECK_EQ(pwrite(fd, page, P, (off_t)(i * P)), (ssize_t)P);
    }
    hlsnap__memfd_seal(fd, NULL);
    return hlsnap__layer_create(fd, true, pages, NULL);
}

HLSNAP__UNUSED static hlsnap_snapshot *snapshot_over(hlsnap__guest *g, hlsnap__layer *a, hlsnap__layer *b, const hlsnap__extent *e,
                                                     uint32_t num) {
    hlsnap__layer *layers[2];
    hlsnap_snapshot *s;
    layers[0] = a;
    layers[1] = b;
    CHECK_EQ(hlsnap__snapshot_create(g, 7, layers, b ? 2 : 1, e, num, &s, NULL), 0);
    hlsnap__guest_release(g);
    hlsnap__layer_release(a);
    hlsnap__layer_release(b);
    return s;
}

/* Two layers, seven extents over four regions, one zero page inside an extent, and extents that touch where regions do. */
HLSNAP__UNUSED static hlsnap_snapshot *snapshot_small(uint64_t seed) {
    static const hlsnap__extent e[] = {{0, 4, 0, 0},   {4, 2, 0, 4},    {6, 3, 1, 0},    {20, 30, 0, 6},
                                       {50, 2, 1, 3},  {100, 1, 0, 36}, {276, 1, 1, 5}};
    return snapshot_over(guest_new(), layer_new(37, seed, 10), layer_new(6, seed + 1, 99), e, HLSNAP_COUNT(e));
}

/* What a sandbox that ran on would give: `num` pages of the heap from page `first` on in a new layer, all else as in s. */
HLSNAP__UNUSED static hlsnap_snapshot *derive(hlsnap_snapshot *s, uint32_t first, uint32_t num, uint64_t seed) {
    hlsnap__extent e[300];
    hlsnap__layer *layers[HLSNAP__MAX_LAYERS];
    hlsnap_snapshot *out = NULL;
    uint32_t i, n = 0;
    bool put = false;
    for (i = 0; i < s->num_layers; i++) layers[i] = s->layers[i];
    layers[i] = layer_new(num, seed, num);
    for (i = 0; i <= s->num_extents; i++) {
        const hlsnap__extent *old = i < s->num_extents ? &s->extents[i] : NULL;
        if (!put && (!old || old->page + old->pages > first)) {
            if (old && old->page < first) e[n++] = hlsnap__extent_part(old, old->page, first);
            e[n].page = first;
            e[n].pages = num;
            e[n].layer = s->num_layers;
            e[n++].layer_page = 0;
            put = true;
        }
        if (!old || old->page + old->pages <= first) {
            if (old) e[n++] = *old;
        } else if (old->page + old->pages > first + num) {
            e[n++] = hlsnap__extent_part(old, old->page > first + num ? old->page : first + num, UINT32_MAX);
        }
    }
    CHECK_EQ(hlsnap__snapshot_create(s->guest, s->generation + 1, layers, s->num_layers + 1, e, n, &out, NULL), HLSNAP_OK);
    hlsnap__layer_release(layers[s->num_layers]);
    return out;
}

/* A snapshot of which `pages` heap pages are stored: large enough that deltas are small beside it. */
HLSNAP__UNUSED static hlsnap_snapshot *large(uint32_t pages, uint64_t seed) {
    hlsnap__extent e[2] = {{0, 4, 0, 0}, {16, 0, 0, 4}};
    e[1].pages = pages;
    return snapshot_over(guest_new(), layer_new(pages + 4, seed, pages + 4), NULL, e, 2);
}

HLSNAP__UNUSED static void page_of(const hlsnap_snapshot *s, uint32_t page, uint8_t *to) {
    CHECK_EQ(hlsnap__oci_read_pages(s, page, 1, to, NULL), 0);
}

HLSNAP__UNUSED static void check_contract(const hlsnap__decl *a, const hlsnap__decl *b, uint32_t num) {
    uint32_t i;
    for (i = 0; i < num; i++) {
        CHECK_STR(a[i].name, b[i].name);
        CHECK_STR(a[i].text, b[i].text);
        CHECK(memcmp(&a[i].signature, &b[i].signature, sizeof(a[i].signature)) == 0);
    }
}

/* Pages of maps that the extents of `a` show, and no others, are the same in b; those of captured ones also where b shows none. */
HLSNAP__UNUSED static void check_same_map_pages(const hlsnap_snapshot *a, const hlsnap_snapshot *b) {
    const hlsnap__layout *l = &a->guest->layout;
    uint8_t pa[P], pb[P];
    uint32_t i, k, different = 0;
    for (i = hlsnap__extents_in_window(a); i < a->num_extents; i++)
        for (k = 0; k < a->extents[i].pages; k++) {
            const uint32_t page = a->extents[i].page + k;
            page_of(a, page, pa);
            page_of(b, page, pb);
            different += memcmp(pa, pb, P) != 0 ||
                         (!hlsnap__page_sparse(l, a->maps, a->num_maps, page) && !hlsnap__extent_at(b, page));
        }
    CHECK_EQ(different, 0);
}

HLSNAP__UNUSED static void check_same_maps(const hlsnap_snapshot *a, const hlsnap_snapshot *b) {
    uint32_t i;
    if (!CHECK_EQ(a->num_maps, b->num_maps)) return;
    for (i = 0; i < a->num_maps; i++) {
        CHECK_STR(a->maps[i].name, b->maps[i].name);
        CHECK_STR(a->maps[i].digest, b->maps[i].digest);
        CHECK_EQ(a->maps[i].mode, b->maps[i].mode);
        CHECK_EQ(a->maps[i].capture, b->maps[i].capture);
        CHECK_EQ(a->maps[i].optional, b->maps[i].optional);
        CHECK_EQ(a->maps[i].gva, b->maps[i].gva);
        CHECK_EQ(a->maps[i].size, b->maps[i].size);
    }
    check_same_map_pages(a, b);
    check_same_map_pages(b, a);
}

HLSNAP__UNUSED static void check_same(const hlsnap_snapshot *a, const hlsnap_snapshot *b) {
    const hlsnap__guest *g = a->guest, *h = b->guest;
    uint8_t pa[P], pb[P];
    uint32_t i, different = 0;
    CHECK(h->initialized);
    CHECK(memcmp(&g->layout, &h->layout, sizeof(g->layout)) == 0);
    CHECK_EQ(g->entry, h->entry);
    CHECK_EQ(g->module, h->module);
    CHECK_EQ(g->tls_size, h->tls_size);
    CHECK_EQ(g->elf_entry, h->elf_entry);
    CHECK_EQ(g->load_address, h->load_address);
    CHECK_EQ(g->cpu, h->cpu);
    CHECK_EQ(g->features, h->features);
    CHECK_EQ(g->id, h->id);
    CHECK_STR(g->name, h->name);
    CHECK_STR(g->build_id, h->build_id);
    CHECK_STR(g->cpu_vendor, h->cpu_vendor);
    CHECK_STR(g->hypervisor, h->hypervisor);
    CHECK_EQ(a->generation, b->generation);
    if (CHECK_EQ(g->contract.num_exports, h->contract.num_exports))
        check_contract(g->contract.exports, h->contract.exports, g->contract.num_exports);
    if (CHECK_EQ(g->contract.num_imports, h->contract.num_imports))
        check_contract(g->contract.imports, h->contract.imports, g->contract.num_imports);
    check_same_maps(a, b);
    for (i = 0; i < g->layout.pages; i++) {
        page_of(a, i, pa);
        page_of(b, i, pb);
        different += memcmp(pa, pb, P) != 0;
    }
    CHECK_EQ(different, 0);
}
#endif
