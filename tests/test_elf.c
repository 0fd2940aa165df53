/* test_elf.c - from ELF bytes to a pre-init snapshot: every malformed file is a result code, every good one has the right bytes.
   cc: cc -std=c11 -I.. test_elf.c -o test_elf
   run: ./test_elf     QUICK=1: a tenth of the fuzz rounds; needs neither /dev/kvm nor cJSON; builds two guests with $CC (cc) for the fuzz loop */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "test.h"
#include <stdlib.h>

/* ---- a small ELF: file offset = address, so that one number serves both ---- */

enum {
    TABLES = 0x800,   /* symbols, strings, relocations, notes, all in the first, read-only segment */
    SYMS = TABLES, STRS = 0x900, RELAS = 0xa00, JMPREL = 0xc00, RELR = 0xc40, NOTES = 0xd00, R_END = 0x1000,
    TEXT = 0x1000, TEXT_END = 0x1100,
    RW = 0x2000, DYN = 0x2000, GOT = 0x2200, TDATA = 0x2400, DATA = 0x3000, FILE_END = 0x3800, RW_END = 0x7000,
    NUM_PHDRS = 8, SPARE_PHDR = 7, SPARE_DYN = 10, BASE = 0x400000
};
enum { PH_R, PH_X, PH_W, PH_DYN, PH_RELRO, PH_TLS, PH_NOTE };
enum { SYM_NULL, SYM_F, SYM_MISSING, SYM_WEAK, SYM_ABS, SYM_TLS, SYM_IFUNC, SYM_TLS_MISSING, NUM_SYMS };
enum { DYN_RELA, DYN_RELASZ, DYN_JMPREL, DYN_PLTRELSZ, DYN_SYMTAB, DYN_STRTAB, DYN_STRSZ, DYN_RELR, DYN_RELRSZ };

#define EH(field) (uint32_t)offsetof(Elf64_Ehdr, field), (uint32_t)sizeof(((Elf64_Ehdr *)0)->field)
#define PH(i, field) (uint32_t)(64 + 56 * (i) + offsetof(Elf64_Phdr, field)), (uint32_t)sizeof(((Elf64_Phdr *)0)->field)
#define DY(i) (uint32_t)(DYN + 16 * (i) + 8), 8
#define DT(i) (uint32_t)(DYN + 16 * (i)), 8
#define RL(i, field) (uint32_t)(RELAS + 24 * (i) + offsetof(Elf64_Rela, field)), 8
#define SY(i, field) (uint32_t)(SYMS + 24 * (i) + offsetof(Elf64_Sym, field)), (uint32_t)sizeof(((Elf64_Sym *)0)->field)
#define INFO(sym, type) ((uint64_t)(sym) << 32 | (uint64_t)(type))

typedef struct image { uint8_t bytes[FILE_END]; } image;

static void put(image *m, uint32_t at, uint32_t size, uint64_t v) { memcpy(m->bytes + at, &v, size); }

static void put_phdr(image *m, uint32_t i, uint32_t type, uint32_t flags, uint64_t at, uint64_t filesz, uint64_t memsz) {
    put(m, PH(i, p_type), type);
    put(m, PH(i, p_flags), flags);
    put(m, PH(i, p_offset), at);
    put(m, PH(i, p_vaddr), at);
    put(m, PH(i, p_filesz), filesz);
    put(m, PH(i, p_memsz), memsz);
    put(m, PH(i, p_align), 4096);
}

static void put_rela(image *m, uint32_t at, uint64_t target, uint64_t info, uint64_t addend) {
    put(m, at, 8, target);
    put(m, at + 8, 8, info);
    put(m, at + 16, 8, addend);
}

static void put_sym(image *m, uint32_t i, uint32_t name, uint32_t info, uint32_t shndx, uint64_t value) {
    put(m, SY(i, st_name), name);
    put(m, SY(i, st_info), info);
    put(m, SY(i, st_shndx), shndx);
    put(m, SY(i, st_value), value);
}

static void put_note(image *m, uint32_t at, const char *name, uint32_t type, const void *desc, uint32_t size) {
    put(m, at, 4, strlen(name) + 1);
    put(m, at + 4, 4, size);
    put(m, at + 8, 4, type);
    memcpy(m->bytes + at + 12, name, strlen(name) + 1);
    memcpy(m->bytes + at + 12 + (strlen(name) + 4) / 4 * 4, desc, size);
}

static void put_tables(image *m) {
    static const char strings[] = "\0f\0missing\033[2J\0weak\0abs\0tls\0ifunc\0gone";
    static const uint8_t id[20] = {0xde, 0xad, 0xbe, 0xef, 0x01};
    static const uint32_t abi = HLSNAP_ABI_VERSION;
    memcpy(m->bytes + STRS, strings, sizeof(strings));
    put_sym(m, SYM_F, 1, ELF64_ST_INFO(STB_GLOBAL, STT_FUNC), 2, TEXT + 0x10);
    put_sym(m, SYM_MISSING, 3, ELF64_ST_INFO(STB_GLOBAL, STT_FUNC), SHN_UNDEF, 0);
    put_sym(m, SYM_WEAK, 15, ELF64_ST_INFO(STB_WEAK, STT_FUNC), SHN_UNDEF, 0);
    put_sym(m, SYM_ABS, 20, ELF64_ST_INFO(STB_GLOBAL, STT_NOTYPE), SHN_ABS, 0x1234);
    put_sym(m, SYM_TLS, 24, ELF64_ST_INFO(STB_GLOBAL, STT_TLS), 3, 8);
    put_sym(m, SYM_IFUNC, 28, ELF64_ST_INFO(STB_GLOBAL, STT_GNU_IFUNC), 2, TEXT + 0x20);
    put_sym(m, SYM_TLS_MISSING, 34, ELF64_ST_INFO(STB_GLOBAL, STT_TLS), SHN_UNDEF, 0);
    put_rela(m, RELAS, GOT, INFO(0, R_X86_64_RELATIVE), TEXT + 0x10);
    put_rela(m, RELAS + 24, GOT + 8, INFO(SYM_F, R_X86_64_64), 4);
    put_rela(m, RELAS + 48, GOT + 16, INFO(SYM_F, R_X86_64_GLOB_DAT), 99);
    put_rela(m, RELAS + 72, GOT + 24, INFO(SYM_WEAK, R_X86_64_64), 0);
    put_rela(m, RELAS + 96, GOT + 32, INFO(SYM_ABS, R_X86_64_64), 1);
    put_rela(m, RELAS + 120, GOT + 40, INFO(SYM_TLS, R_X86_64_TPOFF64), 2);
    put_rela(m, RELAS + 144, GOT + 48, INFO(SYM_TLS, R_X86_64_DTPMOD64), 0);
    put_rela(m, RELAS + 168, GOT + 56, INFO(SYM_TLS, R_X86_64_DTPOFF64), 3);
    put_rela(m, RELAS + 192, UINT64_MAX, INFO(0, R_X86_64_NONE), 0);
    put_rela(m, JMPREL, GOT + 64, INFO(SYM_F, R_X86_64_JUMP_SLOT), 99);
    put(m, RELR, 8, DATA);                             /* that word, then of the 63 after it the first and the third */
    put(m, RELR + 8, 8, 1 | 1 << 1 | 1 << 3);
    put_note(m, NOTES, "GNU", 3, id, sizeof(id));      /* 36 bytes, then 24 */
    put_note(m, NOTES + 36, "hlsnap", 1, &abi, sizeof(abi));
}

static void put_dynamic(image *m) {
    static const uint64_t rows[][2] = {{DT_RELA, RELAS}, {DT_RELASZ, 9 * 24}, {DT_JMPREL, JMPREL}, {DT_PLTRELSZ, 24},
        {DT_SYMTAB, SYMS}, {DT_STRTAB, STRS}, {DT_STRSZ, 40}, {HLSNAP__DT_RELR, RELR}, {HLSNAP__DT_RELRSZ, 16},
        {DT_RELAENT, 24}, {DT_DEBUG, 0}, {DT_NULL, 0}};
    memcpy(m->bytes + DYN, rows, sizeof(rows));
}

/* The good one: position independent, with one of everything the loader knows. */
static void make(image *m) {
    memset(m, 0, sizeof(*m));
    memcpy(m->bytes, ELFMAG, SELFMAG);
    m->bytes[EI_CLASS] = ELFCLASS64;
    m->bytes[EI_DATA] = ELFDATA2LSB;
    put(m, EH(e_type), ET_DYN);
    put(m, EH(e_machine), EM_X86_64);
    put(m, EH(e_entry), TEXT + 0x10);
    put(m, EH(e_phoff), 64);
    put(m, EH(e_phentsize), 56);
    put(m, EH(e_phnum), NUM_PHDRS);
    put_phdr(m, PH_R, PT_LOAD, PF_R, 0, R_END, R_END);
    put_phdr(m, PH_X, PT_LOAD, PF_R | PF_X, TEXT, TEXT_END - TEXT, TEXT_END - TEXT);
    put_phdr(m, PH_W, PT_LOAD, PF_R | PF_W, RW, FILE_END - RW, RW_END - RW);
    put_phdr(m, PH_DYN, PT_DYNAMIC, PF_R | PF_W, DYN, 0x200, 0x200);
    put_phdr(m, PH_RELRO, PT_GNU_RELRO, PF_R, RW, 0x1000, 0x1000);
    put_phdr(m, PH_TLS, PT_TLS, PF_R, TDATA, 16, 40);
    put(m, PH(PH_TLS, p_align), 32);
    put_phdr(m, PH_NOTE, PT_NOTE, PF_R, NOTES, 60, 60);
    put_tables(m);
    put_dynamic(m);
    memset(m->bytes + TEXT, 0xcc, TEXT_END - TEXT);
    memcpy(m->bytes + TDATA, "thread-template!", 16);
    put(m, DATA, 8, 0x3100);
    put(m, DATA + 8, 8, 0x3200);
    put(m, DATA + 16, 8, 0x5555);
    put(m, DATA + 24, 8, 0x3300);
}

/* ---- loading, and what must hold of any outcome ---- */

static hlsnap_error last;

static bool fits_the_error(hlsnap_result r) {
    size_t i, n = strnlen(last.msg, sizeof(last.msg));
    bool ok = last.code == r && n > 0 && n < sizeof(last.msg);
    for (i = 0; i < n; i++) ok = ok && last.msg[i] >= 0x20 && last.msg[i] < 0x7f;
    return ok;
}

static bool fits_the_snapshot(const hlsnap_snapshot *s) {
    uint64_t pages[HLSNAP__MAX_LAYERS];
    uint32_t i;
    for (i = 0; i < s->num_layers; i++) pages[i] = s->layers[i]->pages;
    return !hlsnap__guest_check(s->guest, HLSNAP_ERR_ELF, NULL) &&
           !hlsnap__extents_check(&s->guest->layout, s->maps, s->num_maps, pages, s->num_layers, s->extents, s->num_extents, HLSNAP_ERR_ELF, NULL);
}

static hlsnap_result load(const void *data, size_t size, hlsnap_snapshot **out) {
    hlsnap_guest_desc d = HLSNAP_ZERO;
    hlsnap_result r;
    memset(&last, 0, sizeof(last));
    d.data = data;
    d.data_size = size;
    r = hlsnap_snapshot_from_guest(&d, out, &last);
    CHECK_EQ(*out != NULL, r == HLSNAP_OK);
    if (r) CHECK(fits_the_error(r));
    else CHECK(fits_the_snapshot(*out));
    return r;
}

static hlsnap_result load_code(const void *data, size_t size) {
    hlsnap_snapshot *s = NULL;
    hlsnap_result r = load(data, size, &s);
    hlsnap_snapshot_release(s);
    return r;
}

/* n bytes of guest memory; what no extent covers is zero. */
static void peek(const hlsnap_snapshot *s, uint64_t gva, void *to, size_t n) {
    size_t i;
    for (i = 0; i < n; i++, gva++) {
        const uint64_t page = (gva - s->guest->layout.base) / 4096;
        const hlsnap__extent *e = hlsnap__extent_at(s, page);
        uint8_t b = 0;
        if (e) b = s->layers[e->layer]->map[(e->layer_page + (page - e->page)) * 4096 + gva % 4096];
        ((uint8_t *)to)[i] = b;
    }
}

static uint64_t peek64(const hlsnap_snapshot *s, uint64_t gva) {
    uint64_t v;
    peek(s, gva, &v, sizeof(v));
    return v;
}

/* ---- what must be refused, and with which code ---- */

typedef struct poke { uint32_t at, size; uint64_t v; } poke;
typedef struct row { const char *what; hlsnap_result code; poke pokes[8]; } row;
/* One section of 0x20 bytes of code at that address; its header lies where the data have zeros. */
#define SECTION(addr, type) {{EH(e_shoff), FILE_END - 64}, {EH(e_shentsize), 64}, {EH(e_shnum), 1}, {FILE_END - 60, 4, type}, \
    {FILE_END - 56, 8, SHF_ALLOC | SHF_EXECINSTR}, {FILE_END - 48, 8, addr}, {FILE_END - 32, 8, 0x20}}

/* A third note: where the VM is entered, and where system calls lead. `size`: of its description, 16 where it is right. */
#define ENTRIES(entry, system, size) {{PH(PH_NOTE, p_filesz), 96}, {NOTES + 60, 4, 7}, {NOTES + 64, 4, size}, {NOTES + 68, 4, 2}, \
    {NOTES + 72, 8, 0x70616e736c68}, {NOTES + 80, 8, (uint64_t)(entry) - (NOTES + 80)}, {NOTES + 88, 8, (uint64_t)(system) - (NOTES + 88)}}

#define G(n) ((uint64_t)(n) << 30)
static const row rows[] = {
    {"nothing changed", HLSNAP_OK, {{0, 0, 0}}},
    {"magic", HLSNAP_ERR_ELF, {{0, 4, 0x464c4500}}},
    {"32-bit class", HLSNAP_ERR_ELF, {{EI_CLASS, 1, ELFCLASS32}}},
    {"class 0", HLSNAP_ERR_ELF, {{EI_CLASS, 1, 0}}},
    {"big-endian", HLSNAP_ERR_ELF, {{EI_DATA, 1, ELFDATA2MSB}}},
    {"i386", HLSNAP_ERR_ELF, {{EH(e_machine), EM_386}}},
    {"aarch64", HLSNAP_ERR_ELF, {{EH(e_machine), EM_AARCH64}}},
    {"object file", HLSNAP_ERR_ELF, {{EH(e_type), ET_REL}}},
    {"core file", HLSNAP_ERR_ELF, {{EH(e_type), ET_CORE}}},
    {"type 0", HLSNAP_ERR_ELF, {{EH(e_type), ET_NONE}}},
    {"phentsize 0", HLSNAP_ERR_ELF, {{EH(e_phentsize), 0}}},
    {"phentsize 32", HLSNAP_ERR_ELF, {{EH(e_phentsize), 32}}},
    {"phentsize 57", HLSNAP_ERR_ELF, {{EH(e_phentsize), 57}}},
    {"no program headers", HLSNAP_ERR_ELF, {{EH(e_phnum), 0}}},
    {"headers all over the file", HLSNAP_ERR_ELF, {{EH(e_phoff), FILE_END - 56}, {EH(e_phnum), 0xffff}}},
    {"phoff at the end", HLSNAP_ERR_ELF, {{EH(e_phoff), FILE_END}}},
    {"phoff 55 bytes short", HLSNAP_ERR_ELF, {{EH(e_phoff), FILE_END - 55}, {EH(e_phnum), 1}}},
    {"phoff 2^63", HLSNAP_ERR_ELF, {{EH(e_phoff), 1ull << 63}}},
    {"phoff overflows", HLSNAP_ERR_ELF, {{EH(e_phoff), UINT64_MAX - 8}}},
    {"nothing to load", HLSNAP_ERR_ELF, {{PH(PH_R, p_type), PT_NULL}, {PH(PH_X, p_type), PT_NULL}, {PH(PH_W, p_type), PT_NULL}}},
    {"segment offset beyond the file", HLSNAP_ERR_ELF, {{PH(PH_W, p_offset), FILE_END}}},
    {"segment one byte beyond the file", HLSNAP_ERR_ELF, {{PH(PH_W, p_offset), RW + 1}}},
    {"segment offset overflows", HLSNAP_ERR_ELF, {{PH(PH_W, p_offset), UINT64_MAX - 7}}},
    {"offset + filesz overflows", HLSNAP_ERR_ELF, {{PH(PH_W, p_offset), UINT64_MAX - 0xff}, {PH(PH_W, p_filesz), 0x200}}},
    {"filesz 2^64 - 1", HLSNAP_ERR_ELF, {{PH(PH_W, p_filesz), UINT64_MAX}, {PH(PH_W, p_memsz), UINT64_MAX}}},
    {"filesz > memsz", HLSNAP_ERR_ELF, {{PH(PH_W, p_memsz), FILE_END - RW - 1}}},
    {"overlap", HLSNAP_ERR_ELF_SEGMENT, {{PH(PH_X, p_vaddr), R_END - 1}}},
    {"overlap by memsz", HLSNAP_ERR_ELF_SEGMENT, {{PH(PH_R, p_memsz), R_END + 1}}},
    {"same address twice", HLSNAP_ERR_ELF_SEGMENT, {{PH(PH_X, p_vaddr), 0}}},
    {"out of order", HLSNAP_ERR_ELF_SEGMENT, {{PH(PH_R, p_vaddr), 0x10000}}},
    {"R and X share a page", HLSNAP_ERR_ELF_SEGMENT, {{PH(PH_R, p_memsz), R_END + 8}, {PH(PH_X, p_vaddr), TEXT + 8}}},
    {"X and W share a page", HLSNAP_ERR_ELF_SEGMENT, {{PH(PH_X, p_memsz), RW - TEXT + 8}, {PH(PH_W, p_vaddr), RW + 8}}},
    {"RWX", HLSNAP_ERR_ELF_SEGMENT, {{PH(PH_X, p_flags), PF_R | PF_W | PF_X}}},
    {"WX", HLSNAP_ERR_ELF_SEGMENT, {{PH(PH_W, p_flags), PF_W | PF_X}}},
    {"no text", HLSNAP_ERR_ELF_SEGMENT, {{PH(PH_X, p_flags), PF_R}}},
    {"fixed address 0", HLSNAP_ERR_ELF_SEGMENT, {{EH(e_type), ET_EXEC}}},
    {"fixed address one page low", HLSNAP_ERR_ELF_SEGMENT, {{EH(e_type), ET_EXEC}, {PH(PH_R, p_vaddr), 0x1ff000},
        {PH(PH_X, p_vaddr), 0x200000}, {PH(PH_W, p_vaddr), 0x201000}}},
    {"address too high", HLSNAP_ERR_ELF_SEGMENT, {{PH(PH_W, p_vaddr), 0x7f0000000000}}},
    {"address 2^64 - 4096", HLSNAP_ERR_ELF_SEGMENT, {{PH(PH_W, p_vaddr), UINT64_MAX - 4095}}},
    {"kernel half", HLSNAP_ERR_ELF_SEGMENT, {{PH(PH_W, p_vaddr), 0xffffffff80000000}}},
    {"a hole of 127 TiB", HLSNAP_ERR_ELF_SEGMENT, {{PH(PH_W, p_vaddr), 0x7efffffe0000}}},
    {"window runs into the top", HLSNAP_ERR_ELF_SEGMENT, {{EH(e_type), ET_EXEC}, {PH(PH_R, p_vaddr), 0x7effffff0000},
        {PH(PH_X, p_vaddr), 0x7effffff1000}, {PH(PH_W, p_vaddr), 0x7effffff2000}}},
    {"memsz 2^64 - 1", HLSNAP_ERR_ELF_SEGMENT, {{PH(PH_W, p_memsz), UINT64_MAX}}},
    {"memsz to the top", HLSNAP_ERR_ELF_SEGMENT, {{PH(PH_W, p_memsz), 0x7f0000000000}}},
    {"memsz 16 GiB + 1", HLSNAP_ERR_ELF_SEGMENT, {{PH(PH_W, p_memsz), G(16) + 1}}},
    {"image over 16 GiB", HLSNAP_ERR_ELF_SEGMENT, {{PH(PH_W, p_memsz), G(16)}}},
    {"PT_INTERP", HLSNAP_ERR_ELF_DYNAMIC, {{PH(SPARE_PHDR, p_type), PT_INTERP}}},
    {"DT_NEEDED", HLSNAP_ERR_ELF_DYNAMIC, {{DT(SPARE_DYN), DT_NEEDED}}},
    {"dynamic section beyond the image", HLSNAP_ERR_ELF, {{PH(PH_DYN, p_vaddr), RW_END}}},
    {"dynamic section in a hole", HLSNAP_ERR_ELF, {{PH(PH_DYN, p_vaddr), TEXT_END}}},
    {"dynamic section overflows", HLSNAP_ERR_ELF, {{PH(PH_DYN, p_vaddr), UINT64_MAX - 7}}},
    {"dynamic section runs out of the image", HLSNAP_ERR_ELF, {{PH(PH_DYN, p_vaddr), RW_END - 8}, {PH(PH_DYN, p_memsz), UINT64_MAX}}},
    {"RELA beyond the image", HLSNAP_ERR_ELF_RELOC, {{DY(DYN_RELA), RW_END}}},
    {"RELA overflows", HLSNAP_ERR_ELF_RELOC, {{DY(DYN_RELA), UINT64_MAX - 7}}},
    {"RELASZ", HLSNAP_ERR_ELF_RELOC, {{DY(DYN_RELASZ), R_END}}},
    {"RELASZ 2^64 - 1", HLSNAP_ERR_ELF_RELOC, {{DY(DYN_RELASZ), UINT64_MAX}}},
    {"JMPREL beyond the image", HLSNAP_ERR_ELF_RELOC, {{DY(DYN_JMPREL), 0x100000}}},
    {"PLTRELSZ", HLSNAP_ERR_ELF_RELOC, {{DY(DYN_PLTRELSZ), UINT64_MAX - 23}}},
    {"target beyond the image", HLSNAP_ERR_ELF_RELOC, {{RL(0, r_offset), RW_END}}},
    {"target across the end", HLSNAP_ERR_ELF_RELOC, {{RL(0, r_offset), RW_END - 7}}},
    {"target in a hole", HLSNAP_ERR_ELF_RELOC, {{RL(0, r_offset), TEXT_END}}},
    {"target 2^64 - 1", HLSNAP_ERR_ELF_RELOC, {{RL(0, r_offset), UINT64_MAX}}},
    {"type 99", HLSNAP_ERR_ELF_RELOC, {{RL(0, r_info), INFO(0, 99)}}},
    {"type R_X86_64_32", HLSNAP_ERR_ELF_RELOC, {{RL(1, r_info), INFO(SYM_F, R_X86_64_32)}}},
    {"type COPY", HLSNAP_ERR_ELF_RELOC, {{RL(1, r_info), INFO(SYM_F, R_X86_64_COPY)}}},
    {"type IRELATIVE", HLSNAP_OK, {{RL(0, r_info), INFO(0, R_X86_64_IRELATIVE)}}},
    {"type IRELATIVE, without the C runtime", HLSNAP_ERR_ELF_RELOC, {{RL(0, r_info), INFO(0, R_X86_64_IRELATIVE)}, {PH(PH_NOTE, p_type), PT_NULL}}},
    {"type IRELATIVE beyond the image", HLSNAP_ERR_ELF_RELOC, {{RL(0, r_info), INFO(0, R_X86_64_IRELATIVE)}, {RL(0, r_offset), RW_END - 7}}},
    {"type TLSDESC", HLSNAP_ERR_ELF_RELOC, {{RL(0, r_info), INFO(0, R_X86_64_TLSDESC)}}},
    {"indirect function", HLSNAP_ERR_ELF_RELOC, {{RL(1, r_info), INFO(SYM_IFUNC, R_X86_64_64)}}},
    {"undefined symbol, 64", HLSNAP_ERR_ELF_RELOC, {{RL(1, r_info), INFO(SYM_MISSING, R_X86_64_64)}}},
    {"undefined symbol, GLOB_DAT", HLSNAP_ERR_ELF_RELOC, {{RL(2, r_info), INFO(SYM_MISSING, R_X86_64_GLOB_DAT)}}},
    {"undefined symbol, JUMP_SLOT", HLSNAP_ERR_ELF_RELOC, {{JMPREL + 8, 8, INFO(SYM_MISSING, R_X86_64_JUMP_SLOT)}}},
    {"undefined symbol, TPOFF64", HLSNAP_ERR_ELF_RELOC, {{RL(5, r_info), INFO(SYM_TLS_MISSING, R_X86_64_TPOFF64)}}},
    {"undefined symbol, DTPOFF64", HLSNAP_ERR_ELF_RELOC, {{RL(7, r_info), INFO(SYM_TLS_MISSING, R_X86_64_DTPOFF64)}}},
    {"symbol number", HLSNAP_ERR_ELF_RELOC, {{RL(1, r_info), INFO(0xffffff, R_X86_64_64)}}},
    {"symbol number 2^32 - 1", HLSNAP_ERR_ELF_RELOC, {{RL(1, r_info), INFO(0xffffffff, R_X86_64_64)}}},
    {"symbol number, TPOFF64", HLSNAP_ERR_ELF_RELOC, {{RL(5, r_info), INFO(0xffffff, R_X86_64_TPOFF64)}}},
    {"symbol table beyond the image", HLSNAP_ERR_ELF_RELOC, {{DY(DYN_SYMTAB), RW_END}}},
    {"symbol table overflows", HLSNAP_ERR_ELF_RELOC, {{DY(DYN_SYMTAB), UINT64_MAX - 3}}},
    {"string number", HLSNAP_ERR_ELF_RELOC, {{SY(SYM_F, st_name), 40}}},
    {"string number 2^32 - 1", HLSNAP_ERR_ELF_RELOC, {{SY(SYM_F, st_name), 0xffffffff}}},
    {"string without an end", HLSNAP_ERR_ELF_RELOC, {{DY(DYN_STRSZ), 2}}},
    {"string table beyond the image", HLSNAP_ERR_ELF_RELOC, {{DY(DYN_STRTAB), RW_END}}},
    {"STRSZ 2^64 - 1", HLSNAP_ERR_ELF_RELOC, {{DY(DYN_STRSZ), UINT64_MAX}}},
    {"RELR beyond the image", HLSNAP_ERR_ELF_RELOC, {{DY(DYN_RELR), RW_END}}},
    {"RELRSZ 2^64 - 1", HLSNAP_ERR_ELF_RELOC, {{DY(DYN_RELRSZ), UINT64_MAX}}},
    {"RELA in memory that the file has not", HLSNAP_ERR_ELF_RELOC, {{DY(DYN_RELA), FILE_END}}},
    {"RELA runs out of the file", HLSNAP_ERR_ELF_RELOC, {{DY(DYN_RELA), FILE_END - 24}}},
    {"RELR in memory that the file has not", HLSNAP_ERR_ELF_RELOC, {{DY(DYN_RELR), FILE_END}}},
    {"RELR runs out of the file", HLSNAP_ERR_ELF_RELOC, {{DY(DYN_RELR), FILE_END - 8}}},
    {"RELR address beyond the image", HLSNAP_ERR_ELF_RELOC, {{RELR, 8, RW_END}}},
    {"RELR address across the end", HLSNAP_ERR_ELF_RELOC, {{RELR, 8, RW_END - 6}}},
    {"RELR address 2^64 - 2", HLSNAP_ERR_ELF_RELOC, {{RELR, 8, UINT64_MAX - 1}}},
    {"RELR bitmap beyond the image", HLSNAP_ERR_ELF_RELOC, {{RELR, 8, RW_END - 8}}},
    {"RELR bitmap over a hole", HLSNAP_ERR_ELF_RELOC, {{RELR, 8, TEXT_END - 0x20}, {RELR + 8, 8, UINT64_MAX}}},
    {"TLS block over 1 MiB", HLSNAP_ERR_ELF_SEGMENT, {{PH(PH_TLS, p_memsz), (1 << 20) + 1}}},
    {"TLS block 2^64 - 1", HLSNAP_ERR_ELF_SEGMENT, {{PH(PH_TLS, p_memsz), UINT64_MAX}}},
    {"TLS filesz > memsz", HLSNAP_ERR_ELF_SEGMENT, {{PH(PH_TLS, p_filesz), 41}}},
    {"TLS alignment 3", HLSNAP_ERR_ELF_SEGMENT, {{PH(PH_TLS, p_align), 3}}},
    {"TLS alignment 8192", HLSNAP_ERR_ELF_SEGMENT, {{PH(PH_TLS, p_align), 8192}}},
    {"TLS alignment 2^63", HLSNAP_ERR_ELF_SEGMENT, {{PH(PH_TLS, p_align), 1ull << 63}}},
    {"TLS template beyond the image", HLSNAP_ERR_ELF_SEGMENT, {{PH(PH_TLS, p_vaddr), RW_END - 15}}},
    {"TLS template in a hole", HLSNAP_ERR_ELF_SEGMENT, {{PH(PH_TLS, p_vaddr), TEXT_END}}},
    {"entry in data", HLSNAP_ERR_ELF, {{EH(e_entry), RW}}},
    {"entry in read-only data", HLSNAP_ERR_ELF, {{EH(e_entry), 0}}},
    {"entry behind the image", HLSNAP_ERR_ELF, {{EH(e_entry), RW_END}}},
    {"entry 2^64 - 1", HLSNAP_ERR_ELF, {{EH(e_entry), UINT64_MAX}}},
    {"entry in code that the file has not", HLSNAP_ERR_ELF, {{PH(PH_X, p_filesz), 0x10}}},
    {"code that the file has none of", HLSNAP_ERR_ELF, {{PH(PH_X, p_filesz), 0}}},
    {"more code that the file has none of", HLSNAP_ERR_ELF, {{PH(SPARE_PHDR, p_type), PT_LOAD}, {PH(SPARE_PHDR, p_flags), PF_R | PF_X},
        {PH(SPARE_PHDR, p_vaddr), RW_END}, {PH(SPARE_PHDR, p_memsz), 0x1000}}},
    {"entry in a section without bytes", HLSNAP_ERR_ELF, SECTION(TEXT, SHT_NOBITS)},
    {"entry behind a section without bytes", HLSNAP_OK, SECTION(TEXT - 0x10, SHT_NOBITS)},
    {"entry in a section with bytes", HLSNAP_OK, SECTION(TEXT, SHT_PROGBITS)},
    {"section headers beyond the file", HLSNAP_OK, {{EH(e_shoff), FILE_END - 63}, {EH(e_shentsize), 64}, {EH(e_shnum), 1}}},
    {"no bytes at an offset beyond the file", HLSNAP_OK, {{PH(SPARE_PHDR, p_type), PT_LOAD}, {PH(SPARE_PHDR, p_offset), FILE_END + 1},
        {PH(SPARE_PHDR, p_flags), PF_R | PF_W}, {PH(SPARE_PHDR, p_vaddr), RW_END}, {PH(SPARE_PHDR, p_memsz), 0x1000}}},
    {"ABI note of another version", HLSNAP_ERR_ABI, {{NOTES + 36 + 20, 4, HLSNAP_ABI_VERSION + 1}}},
    {"ABI note 2^32 - 1", HLSNAP_ERR_ABI, {{NOTES + 36 + 20, 4, 0xffffffff}}},
    /* notes are advice until they are well-formed */
    {"note: owner's name too long", HLSNAP_OK, {{NOTES, 4, 0xffffffff}}},
    {"note: description too long", HLSNAP_OK, {{NOTES + 4, 4, 0xffffffff}}},
    {"note: both too long", HLSNAP_OK, {{NOTES, 4, 0xfffffffd}, {NOTES + 4, 4, 0xfffffffd}}},
    {"note: description to one beyond the end", HLSNAP_OK, {{NOTES + 4, 4, 45}}},
    {"note: no owner", HLSNAP_OK, {{NOTES, 4, 0}}},
    {"note: empty description", HLSNAP_OK, {{NOTES + 4, 4, 0}}},
    {"note: segment outside the file", HLSNAP_OK, {{PH(PH_NOTE, p_offset), FILE_END}}},
    {"note: segment overflows", HLSNAP_OK, {{PH(PH_NOTE, p_offset), UINT64_MAX - 3}, {PH(PH_NOTE, p_filesz), UINT64_MAX}}},
    {"note: segment to 2^64 - 1", HLSNAP_OK, {{PH(PH_NOTE, p_filesz), UINT64_MAX}}},
    {"note: 11 bytes", HLSNAP_OK, {{PH(PH_NOTE, p_filesz), 11}}},
    {"note: ABI of another size", HLSNAP_OK, {{NOTES + 40, 4, 3}, {NOTES + 56, 4, 7}}},
    {"note: another owner's type 1", HLSNAP_OK, {{NOTES + 36 + 12, 4, 0x6f6f6f6f}, {NOTES + 56, 4, 7}}},
    {"note: where system calls lead", HLSNAP_OK, ENTRIES(TEXT + 0x10, TEXT + 0x20, 16)},
    {"note: system calls lead to the last byte of text", HLSNAP_OK, ENTRIES(TEXT + 0x10, TEXT + 0xfff, 16)},
    {"note: system calls lead behind text", HLSNAP_ERR_ELF, ENTRIES(TEXT + 0x10, TEXT + 0x1000, 16)},
    {"note: system calls lead into read-only data", HLSNAP_ERR_ELF, ENTRIES(TEXT + 0x10, NOTES, 16)},
    {"note: system calls lead into data", HLSNAP_ERR_ELF, ENTRIES(TEXT + 0x10, DATA, 16)},
    {"note: system calls lead into the heap", HLSNAP_ERR_ELF, ENTRIES(TEXT + 0x10, RW_END + 0x10000, 16)},
    {"note: system calls lead into the gate", HLSNAP_ERR_ELF, ENTRIES(TEXT + 0x10, HLSNAP__SYS_AT(HLSNAP__SYS_GATE) + HLSNAP__GATE_SYSCALL - BASE, 16)},
    {"note: system calls lead into the stub", HLSNAP_ERR_ELF, ENTRIES(TEXT + 0x10, HLSNAP__SYS_AT(HLSNAP__SYS_STUBS) + HLSNAP__STUB_SYSCALL - BASE, 16)},
    {"note: system calls lead to 2^64 - 1", HLSNAP_ERR_ELF, ENTRIES(TEXT + 0x10, UINT64_MAX, 16)},
    {"note: system calls lead to a kernel's half", HLSNAP_ERR_ELF, ENTRIES(TEXT + 0x10, 0xffff800000000000, 16)},
    {"note: entered in data", HLSNAP_ERR_ELF, ENTRIES(DATA, TEXT + 0x20, 16)},
    {"note: entered at 0", HLSNAP_ERR_ELF, ENTRIES(0ull - BASE, TEXT + 0x20, 16)},
    {"note: system calls lead to 0: there are none", HLSNAP_OK, ENTRIES(DATA, 0, 16)},
    {"note: two entries of another size", HLSNAP_OK, ENTRIES(DATA, DATA, 12)},
    {"note: two entries beyond the end", HLSNAP_OK, ENTRIES(DATA, DATA, 17)},
    /* odd but harmless */
    {"RELRO elsewhere", HLSNAP_OK, {{PH(PH_RELRO, p_vaddr), UINT64_MAX - 0xfff}}},
    {"RELRO larger than its segment", HLSNAP_OK, {{PH(PH_RELRO, p_memsz), UINT64_MAX}}},
    {"empty segment out of order", HLSNAP_OK, {{PH(SPARE_PHDR, p_type), PT_LOAD}}},
    {"no relocations", HLSNAP_OK, {{PH(PH_DYN, p_type), PT_NULL}}},
    {"cut relocation at the end", HLSNAP_OK, {{DY(DYN_RELASZ), 9 * 24 + 23}}},
    {"unknown program header", HLSNAP_OK, {{PH(SPARE_PHDR, p_type), 0x6fffffff}}},
    {"TLS alignment 0", HLSNAP_OK, {{PH(PH_TLS, p_align), 0}}},
};

static void refused(void) {
    image m;
    size_t i, k;
    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        hlsnap_result r;
        make(&m);
        for (k = 0; k < HLSNAP_COUNT(rows[i].pokes); k++) put(&m, rows[i].pokes[k].at, rows[i].pokes[k].size, rows[i].pokes[k].v);
        r = load_code(m.bytes, sizeof(m.bytes));
        if (r != rows[i].code)
            printf("# %s: %s, not %s (%s)\n", rows[i].what, hlsnap_result_name(r), hlsnap_result_name(rows[i].code), last.msg);
        CHECK(r == rows[i].code);
    }
}

/* What a file is that is no program, in words. */
static void said_in_words(void) {
    static const struct { const char *words; poke pokes[2]; } said[] = {
        {"object file (.o)", {{EH(e_type), ET_REL}, {EH(e_phnum), 0}}}, {"core file", {{EH(e_type), ET_CORE}}},
        {"shared object?", {{EH(e_entry), 0}}}, {"no known type", {{EH(e_type), 0xfe00}}},
        {"the entry point 0x1010 lies where the file has no bytes: a file of debug information?", {{PH(PH_X, p_filesz), 0}}},
        {"code at 0x1000 lies where the file has no bytes", {{PH(PH_X, p_filesz), 0}, {EH(e_entry), 0}}}};
    image m;
    size_t i, k;
    for (i = 0; i < HLSNAP_COUNT(said); i++) {
        make(&m);
        for (k = 0; k < 2; k++) put(&m, said[i].pokes[k].at, said[i].pokes[k].size, said[i].pokes[k].v);
        CHECK_EQ(load_code(m.bytes, sizeof(m.bytes)), HLSNAP_ERR_ELF);
        if (!CHECK(strstr(last.msg, said[i].words) != NULL)) printf("# %s: %s\n", said[i].words, last.msg);
    }
}

/* The last segment ends at the file's end, so every shorter file lacks something. */
static void truncated(void) {
    image m;
    uint8_t *exact;
    size_t n;
    make(&m);
    for (n = 0; n < sizeof(m.bytes); n += n < 64 + NUM_PHDRS * 56 ? 1 : 37) {
        exact = (uint8_t *)malloc(n ? n : 1);          /* so that a sanitizer sees a byte too far */
        if (!CHECK(exact != NULL)) return;
        memcpy(exact, m.bytes, n);
        if (load_code(exact, n) != HLSNAP_ERR_ELF) printf("# %zu bytes: %s\n", n, last.msg);
        CHECK_EQ(last.code, HLSNAP_ERR_ELF);
        free(exact);
    }
}

static void too_many_segments(void) {
    uint32_t i, n;
    for (n = HLSNAP__MAX_SEGMENTS; n <= HLSNAP__MAX_SEGMENTS + 1; n++) {
        image m;
        make(&m);
        put(&m, EH(e_phnum), n);
        memset(m.bytes + TABLES, 0, R_END - TABLES);
        for (i = 0; i < n; i++) put_phdr(&m, i, PT_LOAD, i ? PF_R : PF_R | PF_X, 0x1000ull * i, i ? 0 : 16, 0x1000);
        for (i = 0; i < n; i++) put(&m, PH(i, p_offset), 0);
        put(&m, EH(e_entry), 0);
        CHECK_EQ(load_code(m.bytes, sizeof(m.bytes)), n > HLSNAP__MAX_SEGMENTS ? HLSNAP_ERR_ELF_SEGMENT : HLSNAP_OK);
    }
}

/* ---- what a good file becomes ---- */

static void regions(void) {
    static const hlsnap__region want[] = {{HLSNAP__RODATA, BASE, 1}, {HLSNAP__TEXT, BASE + TEXT, 1},
        {HLSNAP__RODATA, BASE + RW, 1}, {HLSNAP__DATA, BASE + DATA, 4}, {HLSNAP__STACK, 0, 16}, {HLSNAP__TLS, 0, 1},
        {HLSNAP__IDENTITY, 0, 1}, {HLSNAP__MAILBOX, 0, 16}, {HLSNAP__HEAP, 0, 256}}; /* gva 0: where is the loader's choice */
    const hlsnap__layout *l;
    hlsnap_snapshot *s = NULL;
    hlsnap_snapshot_info info;
    image m;
    uint32_t i;
    make(&m);
    CHECK_EQ(load(m.bytes, sizeof(m.bytes), &s), HLSNAP_OK);
    if (!s) return;
    l = &s->guest->layout;
    CHECK_EQ(l->num_regions, HLSNAP_COUNT(want));
    for (i = 0; i < HLSNAP_COUNT(want) && i < l->num_regions; i++) {
        CHECK_EQ(l->regions[i].kind, want[i].kind);
        if (want[i].gva) CHECK_EQ(l->regions[i].gva, want[i].gva);
        CHECK_EQ(l->regions[i].pages, want[i].pages);
        if (i == 4 || i == 8) CHECK(!hlsnap__layout_at(l, l->regions[i].gva - 1)); /* guards below stack and heap */
    }
    CHECK_EQ(l->regions[5].gva + 4096, l->regions[6].gva); /* the thread-local block ends at the identity page */
    CHECK_EQ(s->guest->entry, BASE + TEXT + 0x10);
    CHECK_EQ(s->guest->elf_entry, TEXT + 0x10);
    CHECK_EQ(s->guest->load_address, BASE);
    CHECK_EQ(s->guest->module, 0);
    CHECK(!s->guest->initialized);
    hlsnap_snapshot_get_info(s, &info);
    CHECK_EQ(info.pages, 1 + 1 + 1 + 4 + 16 + 1 + 1 + 16 + 256);
    CHECK_EQ(info.stored_pages, 5);                    /* R, text, RELRO, data, TLS: neither bss, heap nor stack */
    CHECK_EQ(info.layers, 1);
    CHECK_STR(info.guest_name, "");
    CHECK_STR(info.build_id, "deadbeef01000000000000000000000000000000");
    CHECK(!hlsnap_snapshot_export(s, 0, &(hlsnap_function){NULL, NULL, NULL, NULL}));
    hlsnap_snapshot_release(s);
}

static void relocated(void) {
    static const struct { uint64_t at, want; } words[] = {
        {GOT, BASE + TEXT + 0x10}, {GOT + 8, BASE + TEXT + 0x14}, {GOT + 16, BASE + TEXT + 0x10}, {GOT + 24, 0},
        {GOT + 32, 0x1235}, {GOT + 40, (uint64_t)(8 + 2 - 64)}, {GOT + 48, 1}, {GOT + 56, 8 + 3}, {GOT + 64, BASE + TEXT + 0x10},
        {DATA, BASE + 0x3100}, {DATA + 8, BASE + 0x3200}, {DATA + 16, 0x5555}, {DATA + 24, BASE + 0x3300}, {DATA + 32, 0},
        {FILE_END, 0}, {RW_END - 8, 0}};
    hlsnap_snapshot *s = NULL;
    image m;
    size_t i;
    make(&m);
    CHECK_EQ(load(m.bytes, sizeof(m.bytes), &s), HLSNAP_OK);
    if (!s) return;
    for (i = 0; i < sizeof(words) / sizeof(words[0]); i++) CHECK_EQ(peek64(s, BASE + words[i].at), words[i].want);
    CHECK_EQ(peek64(s, BASE), 0x00010102464c457f & ~0xff000000000000);
    CHECK_EQ(peek64(s, BASE + TEXT), (int64_t)0xcccccccccccccccc);
    hlsnap_snapshot_release(s);
}

/* What a file would miss: each name once, in order, whole ones only. */
static void unresolved(void) {
    hlsnap_guest_desc d = HLSNAP_ZERO;
    image m;
    char to[200];
    size_t size = 77, cap;
    make(&m);
    d.data = m.bytes;
    d.data_size = sizeof(m.bytes);
    CHECK_EQ(hlsnap_guest_unresolved(&d, to, sizeof(to), &size, &last), HLSNAP_OK);
    CHECK_STR(to, "");
    CHECK_EQ(size, 0);
    put(&m, RL(1, r_info), INFO(SYM_MISSING, R_X86_64_64));
    put(&m, RL(2, r_info), INFO(SYM_TLS_MISSING, R_X86_64_TPOFF64));
    put(&m, JMPREL + 8, 8, INFO(SYM_MISSING, R_X86_64_JUMP_SLOT));
    put(&m, PH(SPARE_PHDR, p_type), PT_INTERP); /* no guest as it is */
    put(&m, DT(SPARE_DYN), DT_NEEDED);
    CHECK_EQ(hlsnap_guest_unresolved(&d, to, sizeof(to), &size, &last), HLSNAP_OK);
    CHECK_STR(to, "gone\nmissing\\x1b\n"); /* cut: it is no longer than the name was */
    CHECK_EQ(size, strlen(to));
    for (cap = 0; cap <= strlen("gone\nmissing\\x1b\n"); cap++) { /* what does not fit is left out whole */
        memset(to, 'x', sizeof(to));
        CHECK_EQ(hlsnap_guest_unresolved(&d, cap ? to : NULL, cap, &size, NULL), HLSNAP_OK);
        CHECK_EQ(size, strlen("gone\nmissing\\x1b\n"));
        if (cap) CHECK_STR(to, cap > 5 ? "gone\n" : "");
        CHECK_EQ(to[cap], 'x');
    }
    CHECK_EQ(hlsnap_guest_unresolved(&d, NULL, 1, NULL, &last), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_guest_unresolved(NULL, to, 1, NULL, &last), HLSNAP_ERR_ARG);
    put(&m, DY(DYN_RELASZ), UINT64_MAX);
    CHECK_EQ(hlsnap_guest_unresolved(&d, to, sizeof(to), &size, &last), HLSNAP_ERR_ELF_RELOC);
}

/* This program's own: what its host's part uses of libc is missing, what the runtime has is not. */
static void unresolved_of_self(void) {
    static const hlsnap_function none[1] = {{"f", "void()", NULL, NULL}};
    static const hlsnap_module module = {none, 1, NULL, 0};
    hlsnap_guest_desc d = HLSNAP_ZERO;
    char *text = (char *)calloc(1, 1 << 20), *line, *end, before[256] = "";
    bool have_mmap = false;
    size_t size = 0;
    if (HLSNAP__SANITIZED) SKIP("sanitizers have names of their own");
    d.self = &module;
#if !defined(__x86_64__)
    CHECK_EQ(hlsnap_guest_unresolved(&d, text, 1 << 20, &size, &last), HLSNAP_ERR_ELF);
    free(text);
    SKIP("a program of another architecture is no guest");
#endif
    CHECK_EQ(hlsnap_guest_unresolved(&d, text, 1 << 20, &size, &last), HLSNAP_OK);
    CHECK_EQ(strlen(text), size);
    for (line = text; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        *end = 0;
        CHECK(strcmp(line, before) > 0);
        snprintf(before, sizeof(before), "%s", line);
        have_mmap = have_mmap || strcmp(line, "mmap") == 0 || strcmp(line, "mmap64") == 0;
        CHECK(strcmp(line, "memcpy") != 0 && strcmp(line, "malloc") != 0 && strcmp(line, "snprintf") != 0 && strcmp(line, "__errno_location") != 0);
    }
    CHECK(have_mmap || !size); /* a static program misses nothing */
    free(text);
}

/* A self guest may name thread-local variables that it has not: errno is the runtime's, any other a fault. */
static void missing_variables_of_self(void) {
    static const char *const names[] = {"errno", "errno2"};
    size_t i;
    for (i = 0; i < 2; i++) {
        hlsnap__elf *e = (hlsnap__elf *)calloc(1, sizeof(*e));
        uint64_t value = 7;
        Elf64_Rela rel;
        image m;
        size_t at = 0;
        make(&m);
        if (!CHECK(e != NULL)) return;
        while (memcmp(m.bytes + at, "missing", 7) != 0) at++;
        memcpy(m.bytes + at, names[i], strlen(names[i]) + 1);
        e->data = m.bytes;
        e->size = sizeof(m.bytes);
        CHECK_EQ(hlsnap__elf_parse(e, &last), HLSNAP_OK);
        CHECK_EQ(hlsnap__image_map(e, &last), HLSNAP_OK);
        CHECK_EQ(hlsnap__elf_dynamic(e, &last), HLSNAP_OK);
        memset(&rel, 0, sizeof(rel));
        rel.r_info = INFO(SYM_MISSING, R_X86_64_TPOFF64);
        e->self = true;
        CHECK_EQ(hlsnap__elf_tls_value(e, &rel, &value, &last), HLSNAP_OK);
        CHECK_EQ(value, i ? 1ull << 62 : offsetof(hlsnap__rt_state, error_number) + hlsnap__elf_tls_size(e) - hlsnap__elf_tls_region(e));
        hlsnap__elf_free(e);
    }
}

/* IRELATIVE is the guest's own to apply: the word stays, and its page is writable, which RELRO's is not else. */
static void indirect_functions(void) {
    static const struct { uint32_t at; bool dynamic; } places[] = {{RELAS + 8, true}, {JMPREL + 8, true}, {RELAS + 8, false}};
    size_t i;
    for (i = 0; i < sizeof(places) / sizeof(places[0]) + 1; i++) {
        const bool some = i < sizeof(places) / sizeof(places[0]);
        hlsnap_snapshot *s = NULL;
        image m;
        make(&m);
        if (some) put(&m, places[i].at, 8, INFO(0, R_X86_64_IRELATIVE));
        if (some) put(&m, (uint32_t)(GOT + (places[i].at == JMPREL + 8 ? 64 : 0)), 8, 0x7777);
        if (some && !places[i].dynamic) { /* a fixed address, relocations in a section */
            const uint64_t delta = 0x300000;
            put(&m, PH(PH_DYN, p_type), PT_NULL);
            put(&m, EH(e_type), ET_EXEC);
            put(&m, EH(e_entry), TEXT + 0x10 + delta);
            put(&m, PH(PH_R, p_vaddr), delta);
            put(&m, PH(PH_X, p_vaddr), TEXT + delta);
            put(&m, PH(PH_W, p_vaddr), RW + delta);
            put(&m, PH(PH_RELRO, p_vaddr), RW + delta);
            put(&m, PH(PH_TLS, p_vaddr), TDATA + delta);
            put(&m, EH(e_shoff), FILE_END - 64);
            put(&m, EH(e_shentsize), 64);
            put(&m, EH(e_shnum), 1);
            put(&m, FILE_END - 60, 4, SHT_RELA);
            put(&m, FILE_END - 56, 8, SHF_ALLOC);
            put(&m, FILE_END - 48, 8, RELAS + delta);
            put(&m, FILE_END - 32, 8, 24);
        }
        CHECK_EQ(load(m.bytes, sizeof(m.bytes), &s), HLSNAP_OK);
        if (!s) continue;
        if (some && places[i].dynamic) CHECK_EQ(peek64(s, BASE + GOT + (places[i].at == JMPREL + 8 ? 64 : 0)), 0x7777);
        CHECK_EQ(hlsnap__layout_at(&s->guest->layout, (some && !places[i].dynamic ? 0x300000 : BASE) + GOT)->kind,
                 some ? HLSNAP__DATA : HLSNAP__RODATA);
        hlsnap_snapshot_release(s);
        put(&m, PH(PH_NOTE, p_type), PT_NULL);
        if (some && places[i].dynamic) {
            CHECK_EQ(load_code(m.bytes, sizeof(m.bytes)), HLSNAP_ERR_ELF_RELOC);
            CHECK(strstr(last.msg, "without indirect functions") != NULL);
        }
    }
}

/* The block ends at the identity page, its size rounded to its alignment; the template, then zeros. */
static void thread_local_block(void) {
    static const struct { uint64_t memsz, align, size; } cases[] = {{40, 32, 64}, {40, 1, 40}, {40, 0, 40}, {16, 16, 16},
        {64, 64, 64}, {65, 64, 128}, {4096, 4096, 4096}, {4097, 4096, 8192}, {1 << 20, 8, 1 << 20}};
    size_t i;
    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        hlsnap_snapshot *s = NULL;
        const hlsnap__region *tls, *identity;
        uint8_t block[40];
        image m;
        make(&m);
        put(&m, PH(PH_TLS, p_memsz), cases[i].memsz);
        put(&m, PH(PH_TLS, p_align), cases[i].align);
        CHECK_EQ(load(m.bytes, sizeof(m.bytes), &s), HLSNAP_OK);
        if (!s) continue;
        identity = hlsnap__layout_find(&s->guest->layout, HLSNAP__IDENTITY);
        tls = hlsnap__layout_find(&s->guest->layout, HLSNAP__TLS);
        CHECK_EQ(s->guest->tls_size, cases[i].size);
        CHECK_EQ(tls->gva + tls->pages * 4096, identity->gva);
        peek(s, identity->gva - cases[i].size, block, 40 < cases[i].size ? 40 : (size_t)cases[i].size);
        CHECK(memcmp(block, "thread-template!", 16) == 0);
        if (cases[i].size > 16) CHECK_EQ(peek64(s, identity->gva - cases[i].size + 16), 0);
        CHECK_EQ(peek64(s, BASE + GOT + 40), 8 + 2 - (int64_t)cases[i].size);
        hlsnap_snapshot_release(s);
    }
}

static void fixed_address(void) {
    static const uint32_t ph[] = {PH_R, PH_X, PH_W, PH_DYN, PH_RELRO, PH_TLS};
    hlsnap_snapshot *s = NULL;
    image m;
    size_t i;
    make(&m);
    put(&m, EH(e_type), ET_EXEC);
    put(&m, EH(e_entry), 0x40000000 + TEXT);
    for (i = 0; i < HLSNAP_COUNT(ph); i++) {
        uint64_t v;
        memcpy(&v, m.bytes + 64 + 56 * ph[i] + offsetof(Elf64_Phdr, p_vaddr), 8);
        put(&m, PH(ph[i], p_vaddr), v + 0x40000000);
    }
    memset(m.bytes + DYN, 0, 16);                      /* DT_NULL first: nothing to relocate */
    CHECK_EQ(load(m.bytes, sizeof(m.bytes), &s), HLSNAP_OK);
    if (!s) return;
    CHECK_EQ(s->guest->entry, 0x40000000 + TEXT);
    CHECK_EQ(s->guest->load_address, 0);
    CHECK_EQ(s->guest->layout.regions[0].gva, 0x40000000);
    CHECK_EQ(peek64(s, 0x40000000 + DATA), 0x3100);
    hlsnap_snapshot_release(s);
}

/* Segments of the same rights may share a page; RELRO may end at its segment's end. */
static void joined_segments(void) {
    hlsnap_snapshot *s = NULL;
    image m;
    make(&m);
    put(&m, PH(PH_RELRO, p_memsz), RW_END - RW);
    CHECK_EQ(load(m.bytes, sizeof(m.bytes), &s), HLSNAP_OK);
    if (s) CHECK(!hlsnap__layout_find(&s->guest->layout, HLSNAP__DATA));
    hlsnap_snapshot_release(s);
    make(&m);
    put_phdr(&m, SPARE_PHDR, PT_LOAD, PF_R | PF_W, 0x3000, 0x20, 0x20);
    put(&m, PH(SPARE_PHDR, p_vaddr), RW_END - 0x100);
    put(&m, PH(PH_W, p_memsz), RW_END - 0x200 - RW);
    CHECK_EQ(load(m.bytes, sizeof(m.bytes), &s), HLSNAP_OK);
    if (!s) return;
    CHECK_EQ(s->guest->layout.regions[3].pages, 4);
    CHECK_EQ(peek64(s, BASE + RW_END - 0x100), 0x3100);
    CHECK_EQ(peek64(s, BASE + RW_END - 0x100 + 16), 0x5555);
    hlsnap_snapshot_release(s);
}

/* 15 GiB of zeros are neither stored nor walked byte by byte. */
static void huge_bss(void) {
    hlsnap_snapshot *s = NULL;
    hlsnap_snapshot_info info;
    uint64_t ns = hlsnap__now_ns();
    image m;
    make(&m);
    put(&m, PH(PH_W, p_memsz), G(15));
    CHECK_EQ(load(m.bytes, sizeof(m.bytes), &s), HLSNAP_OK);
    ns = hlsnap__now_ns() - ns;
    printf("# 15 GiB of bss: %llu ms\n", (unsigned long long)(ns / 1000000));
    CHECK(ns < 10000000000ull);
    if (!s) return;
    hlsnap_snapshot_get_info(s, &info);
    CHECK_EQ(info.stored_pages, 5);
    hlsnap_snapshot_release(s);
}

/* ---- guest desc ---- */

static void bad_descs(void) {
    static const struct { uint64_t heap, stack, mailbox; hlsnap_result code; } sizes[] = {
        {0, 0, 0, HLSNAP_OK}, {4096, 4096, 8192, HLSNAP_OK}, {G(15), G(1), 256 << 20, HLSNAP_OK}, {1, 0, 0, HLSNAP_ERR_ARG},
        {4097, 0, 0, HLSNAP_ERR_ARG}, {0, 100, 0, HLSNAP_ERR_ARG}, {0, 0, 4095, HLSNAP_ERR_ARG}, {0, 0, 4096, HLSNAP_ERR_ARG},
        {G(16) + 4096, 0, 0, HLSNAP_ERR_ARG}, {0, G(1) + 4096, 0, HLSNAP_ERR_ARG}, {0, 0, (256 << 20) + 4096, HLSNAP_ERR_ARG},
        {UINT64_MAX - 4095, 0, 0, HLSNAP_ERR_ARG}, {0, UINT64_MAX - 4095, 0, HLSNAP_ERR_ARG}, {0, 0, UINT64_MAX - 4095, HLSNAP_ERR_ARG}};
    static const hlsnap_module module = {NULL, 0, NULL, 0};
    hlsnap_snapshot *s = NULL;
    image m;
    size_t i;
    make(&m);
    for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        hlsnap_guest_desc d = HLSNAP_ZERO;
        d.data = m.bytes;
        d.data_size = sizeof(m.bytes);
        d.heap_size = sizes[i].heap;
        d.stack_size = sizes[i].stack;
        d.mailbox_size = sizes[i].mailbox;
        if (!CHECK_EQ(hlsnap_snapshot_from_guest(&d, &s, &last), sizes[i].code)) printf("# row %zu\n", i);
        hlsnap_snapshot_release(s);
    }
    for (i = 0; i < 3; i++) {                          /* what only Linux programs can have is not passed over */
        static const char *const words[] = {"a", "b"};
        hlsnap_guest_desc d = HLSNAP_ZERO;
        d.data = m.bytes;
        d.data_size = sizeof(m.bytes);
        if (i == 0) d.args = words, d.num_args = 2;
        if (i == 1) d.env = words, d.num_env = 2;
        if (i == 2) d.files = m.bytes, d.files_size = sizeof(m.bytes);
        CHECK_EQ(hlsnap_snapshot_from_guest(&d, &s, &last), HLSNAP_ERR_ARG);
        CHECK(s == NULL && strstr(last.msg, "args, env and files are for Linux programs") != NULL);
    }
    for (i = 0; i < 7; i++) {                          /* one source and zeroed canaries, no less and no more */
        hlsnap_guest_desc d = HLSNAP_ZERO;
        d.data = i == 1 ? NULL : m.bytes;
        d.data_size = sizeof(m.bytes);
        if (i == 2 || i == 4) d.path = "/nowhere";
        if (i == 3 || i == 4) d.self = &module;
        if (i == 5) d._start_canary = 1;
        if (i == 6) d._end_canary = 1;
        CHECK_EQ(hlsnap_snapshot_from_guest(i ? &d : NULL, &s, NULL), HLSNAP_ERR_ARG);
        CHECK(s == NULL);
    }
}

static void bad_paths(void) {
    char dir[] = "/tmp/hlsnap-elf-XXXXXX", path[64];
    static const char *const names[] = {"missing", "empty", "text", ".", "fifo", "two\nlines", "empty/under"};
    static const hlsnap_result codes[] = {HLSNAP_ERR_OS, HLSNAP_ERR_ELF, HLSNAP_ERR_ELF, HLSNAP_ERR_OS, HLSNAP_ERR_OS,
                                          HLSNAP_ERR_OS, HLSNAP_ERR_OS};
    static const char *const words[] = {"no such file or directory (errno 2)", "not an ELF file (0 bytes)", "not an ELF file",
                                        "a directory and not a regular file", "a pipe", "two\\x0alines: no such file",
                                        "not a directory (errno 20)"};
    size_t i;
    if (!CHECK(mkdtemp(dir) != NULL)) return;
    for (i = 0; i < HLSNAP_COUNT(names); i++) {
        hlsnap_guest_desc d = HLSNAP_ZERO;
        hlsnap_snapshot *s = NULL;
        FILE *f;
        snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        if (i == 1 || i == 2) {
            f = fopen(path, "w");
            if (f && i == 2) fputs("#!/bin/sh\n", f);
            if (f) fclose(f);
        }
        if (i == 4) CHECK_EQ(mkfifo(path, 0600), 0);
        d.path = path;
        CHECK_EQ(hlsnap_snapshot_from_guest(&d, &s, &last), codes[i]);
        CHECK(fits_the_error(codes[i]));
        if (!CHECK(strstr(last.msg, words[i]) != NULL)) printf("# %s\n", last.msg);
    }
    for (i = 0; i < HLSNAP_COUNT(names); i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        if (i != 3) unlink(path);
    }
    rmdir(dir);
}

/* ---- fuzz: flipped bytes in the small ELF above and in real ones ---- */

static uint64_t seed = 0x9e3779b97f4a7c15;
static uint32_t rnd(uint32_t below) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 32) % below;
}

/* Where a flip is likely to matter: the headers, the tables behind the program headers' offsets, and everywhere. */
static uint32_t pick(const uint8_t *p, uint32_t size) {
    uint64_t at;
    uint32_t i = rnd(8);
    if (i < 3) return rnd(size < 64 + 12 * 56 ? size : 64 + 12 * 56);
    if (i < 6) {
        memcpy(&at, p + 64 + 56 * rnd(10) + offsetof(Elf64_Phdr, p_offset), 8);
        if (at < size) return (uint32_t)at + rnd(size - (uint32_t)at < 512 ? size - (uint32_t)at : 512);
    }
    return rnd(size);
}

static void flip(uint8_t *p, uint32_t size) {
    static const uint8_t edges[] = {0, 1, 0x7f, 0x80, 0xff, 0x10, 7, 8};
    const uint32_t at = pick(p, size);
    uint32_t i, n = 1 + rnd(8);
    switch (rnd(4)) {
    case 0: p[at] ^= (uint8_t)(1u << rnd(8)); break;
    case 1: p[at] = (uint8_t)rnd(256); break;
    case 2: p[at] = edges[rnd(8)]; break;
    default:
        for (i = 0; i < n && at + i < size; i++) p[at + i] = edges[4 * rnd(2)];
        break;
    }
}

static void fuzz_one(const char *name, const uint8_t *from, uint32_t size, uint32_t rounds) {
    static const hlsnap_result allowed[] = {HLSNAP_OK, HLSNAP_ERR_ELF, HLSNAP_ERR_ELF_SEGMENT, HLSNAP_ERR_ELF_DYNAMIC,
                                            HLSNAP_ERR_ELF_RELOC, HLSNAP_ERR_ABI};
    uint32_t i, k, count[6] = {0};
    uint64_t slowest = 0;
    uint8_t *p = (uint8_t *)malloc(size);
    if (!CHECK(p != NULL)) return;
    if (getenv("QUICK")) rounds /= 10;
    for (i = 0; i < rounds; i++) {
        uint64_t ns = hlsnap__now_ns();
        hlsnap_result r;
        memcpy(p, from, size);
        for (k = 1 + rnd(4); k; k--) flip(p, size);
        r = load_code(p, rnd(16) ? size : rnd(size));
        ns = hlsnap__now_ns() - ns;
        if (ns > slowest) slowest = ns;
        for (k = 0; k < 6 && allowed[k] != r; k++) {}
        if (CHECK(k < 6)) count[k]++;
        else printf("# %s: %s\n", hlsnap_result_name(r), last.msg);
    }
    printf("# %s, %u flipped: %u ok, %u ELF, %u segment, %u dynamic, %u relocation, %u ABI; slowest %llu us\n", name, rounds,
           count[0], count[1], count[2], count[3], count[4], count[5], (unsigned long long)(slowest / 1000));
    CHECK(count[0] && count[1] && count[2]);
    CHECK(slowest < 20000000000ull);
    free(p);
}

static void fuzz_small(void) {
    image m;
    make(&m);
    fuzz_one("small ELF", m.bytes, sizeof(m.bytes), 12000);
}

static void fuzz_real(const char *name, const char *flags) {
    char command[1024], dir[] = "/tmp/hlsnap-elf-XXXXXX", path[64];
    const char *cc = getenv("CC"), *slash = strrchr(__FILE__, '/');
    const int here = slash ? (int)(slash - __FILE__) : 1;
    uint8_t *data = NULL;
    uint64_t size = 0;
    if (!CHECK(mkdtemp(dir) != NULL)) return;
    snprintf(path, sizeof(path), "%s/guest", dir);
    snprintf(command, sizeof(command), "%s -O1 -DHLSNAP_GUEST -ffreestanding -nostdlib %s -I%.*s/.. -o %s %.*s/guest_echo.c 2>%s.log",
             cc && *cc ? cc : "cc", flags, here, slash ? __FILE__ : ".", path, here, slash ? __FILE__ : ".", path);
    if (system(command) != 0) test_why = "no compiler for the guest";
    else if (CHECK_EQ(hlsnap__file_read(path, 16u << 20, &data, &size, &last), HLSNAP_OK)) {
        CHECK_EQ(load_code(data, (size_t)size), HLSNAP_OK);
        fuzz_one(name, data, (uint32_t)size, 3000);
    }
    hlsnap__free(data);
    unlink(path);
    snprintf(path, sizeof(path), "%s/guest.log", dir);
    unlink(path);
    rmdir(dir);
}

/* A real program's file of debug information, as the tools make it, and the program without it. */
static void debug_files(void) {
    static const char *const tools[] = {"objcopy", "llvm-objcopy"};
    char command[1024], dir[] = "/tmp/hlsnap-elf-XXXXXX", path[64];
    const char *cc = getenv("CC"), *slash = strrchr(__FILE__, '/');
    const int here = slash ? (int)(slash - __FILE__) : 1;
    size_t i, seen = 0;
    if (!CHECK(mkdtemp(dir) != NULL)) return;
    for (i = 0; i < 2 * HLSNAP_COUNT(tools); i++) {
        hlsnap_guest_desc d = HLSNAP_ZERO;
        hlsnap_snapshot *s = NULL;
        snprintf(path, sizeof(path), "%s/it", dir);
        snprintf(command, sizeof(command), "{ %s -g -DHLSNAP_GUEST -ffreestanding -nostdlib %s -I%.*s/.. -o %s %.*s/guest_echo.c && "
                 "%s --only-keep-debug %s %s.debug && %s --strip-debug %s; } >%s.log 2>&1", cc && *cc ? cc : "cc",
                 i % 2 ? "-fPIC -shared" : "-static", here, slash ? __FILE__ : ".", path, here, slash ? __FILE__ : ".",
                 tools[i / 2], path, path, tools[i / 2], path, path);
        if (system(command) != 0) continue;
        seen++;
        snprintf(path, sizeof(path), "%s/it.debug", dir);
        d.path = path;
        CHECK_EQ(hlsnap_snapshot_from_guest(&d, &s, &last), HLSNAP_ERR_ELF);
        if (!CHECK(strstr(last.msg, "debug information?") != NULL)) printf("# %s: %s\n", tools[i / 2], last.msg);
        if (i % 2) continue;
        path[strlen(path) - 6] = 0;
        CHECK_EQ(hlsnap_snapshot_from_guest(&d, &s, &last), HLSNAP_OK);
        hlsnap_snapshot_release(s);
    }
    if (!seen) test_why = "no compiler for the guest, or no objcopy";
    snprintf(command, sizeof(command), "rm -r %s", dir);
    CHECK_EQ(system(command), 0);
}

static void fuzz_static(void) { fuzz_real("static guest", "-static -fno-pie -no-pie"); }
static void fuzz_static_pie(void) { fuzz_real("static-pie guest", "-static-pie -fPIE"); }

/* Bounded memory: nothing above came near what a hostile header could ask for. */
static void peak_memory(void) {
    struct rusage u;
    CHECK_EQ(getrusage(RUSAGE_SELF, &u), 0);
    printf("# peak resident set: %ld MiB\n", u.ru_maxrss / 1024);
    CHECK(u.ru_maxrss < 1024 * 1024);
}

int main(int argc, char **argv) {
    static const test_row tests[] = {TEST(refused), TEST(said_in_words), TEST(truncated), TEST(too_many_segments), TEST(regions), TEST(relocated),
        TEST(unresolved), TEST(unresolved_of_self), TEST(missing_variables_of_self), TEST(indirect_functions), TEST(thread_local_block), TEST(fixed_address), TEST(joined_segments), TEST(huge_bss), TEST(bad_descs), TEST(bad_paths), TEST(debug_files),
        TEST(fuzz_small), TEST(fuzz_static), TEST(fuzz_static_pie), TEST(peak_memory)};
    return TEST_MAIN(tests, argc, argv);
}
