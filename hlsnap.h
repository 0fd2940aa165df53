/* hlsnap.h - v0.3.0 - run untrusted native code in a micro VM, snapshot it, put it back. License: MIT, end of file.

Do this, in one C or C++ file:

    #define HLSNAP_IMPLEMENTATION
    #include "hlsnap.h"
    #include "hlsnap_kvm.h"    // the hypervisor: Linux KVM on x86-64
    #include "hlsnap_oci.h"    // only where snapshots go to disk; needs cJSON (-lcjson)

and include the headers plainly everywhere else. Put the define in a source file, never in a header and never in a -D for
a whole build. Include hlsnap.h before any system header, or compile as gnu11/gnu17.

OPTIONS             default            where to define it
  HLSNAP_IMPLEMENTATION  off           in exactly one source file
  HLSNAP_GUEST           off           every file of a separately built guest ELF (-nostdlib -static)
  HLSNAP_STATIC          off           beside HLSNAP_IMPLEMENTATION: everything static, nothing leaves the object file
  HLSNAP_API             extern, hidden visibility   every file that includes the header
  HLSNAP_MALLOC(size), HLSNAP_FREE(p)  malloc, free   beside HLSNAP_IMPLEMENTATION; both or neither
  HLSNAP_ASSERT(c)       nothing       beside HLSNAP_IMPLEMENTATION; guards hlsnap's own invariants only
  HLSNAP_CJSON_H         <cjson/cJSON.h>   beside HLSNAP_IMPLEMENTATION, for hlsnap_oci.h

QUICK START
    static hlsnap_result twice(hlsnap_call *call, void *user) {          // runs in the VM
        (void)user;
        return hlsnap_call_return(call, hlsnap_i32(2 * hlsnap_call_arg(call, 0).as.i32));
    }
    static const hlsnap_function exports[] = {{"twice", "i32(i32)", twice, NULL}};
    static const hlsnap_module module = {exports, HLSNAP_COUNT(exports), NULL, 0};

    hlsnap_guest_desc guest = HLSNAP_ZERO;                               // runs on the host
    hlsnap_sandbox_desc desc = HLSNAP_ZERO;
    guest.self = &module;
    desc.hypervisor = hlsnap_kvm();
    if (hlsnap_sandbox_create(&guest, &desc, &sb, &err)) puts(err.msg);
    else if (hlsnap_sandbox_call(sb, "twice", HLSNAP_ARGS(hlsnap_i32(21)), &out, &err)) puts(err.msg);
    else printf("%d\n", out.as.i32);

ERRORS
    Every function that can fail returns hlsnap_result, 0 = HLSNAP_OK. The last parameter, hlsnap_error *, may be NULL and
    is written only on failure: the code, errno, fault details and one line of text with the offending values. A NULL where
    an object or an out parameter is required is HLSNAP_ERR_ARG; a function without a result then does nothing. The library
    never prints, exits or aborts, and installs no signal handler.

STATES of a sandbox
                                            call, find,   snapshot,
                                            read, write   bind       restore     retire        destroy
    READY                                   yes           yes        yes         -> POISONED   yes
    BUSY (in a call, in a host function)    ERR_STATE *   ERR_STATE  ERR_STATE   no-op         cancels, frees at the end
    POISONED (fault, abort, cancel, limit)  ERR_STATE     ERR_STATE  -> READY    yes           yes
    * read and write work from inside a host function.

THREADS
    No global state but facts about the machine, read once. A sandbox belongs to one thread at a time and may move between
    threads. Snapshots are immutable and may be shared. hlsnap_interrupt_cancel() works from any thread. A sandbox does not
    survive fork(): in the child only hlsnap_sandbox_destroy() does something useful (it frees the child's copy). A pool
    may be used by all threads at once.
    A stack of 32 KiB is enough for every function of the three headers, compiled with optimization (-O1 or more); host
    functions, log and progress callbacks run on it, too, and the C library takes some of it.

MEMORY
    Objects are opaque and come from HLSNAP_MALLOC; every block below says who frees. Descs are copied; pointers inside
    live only for the call unless said otherwise. Results of a call are host copies that belong to the sandbox and live
    until its next operation. Arguments of a function live until it returns.

LIMITS
    16 GiB of heap, 32 GiB of guest memory in all, 64 GiB of maps beside it, 32 arguments, names of 63 bytes, 1,024 exports
    and imports, messages of 4 GiB and as far as the guest's heap has room for them. An image, and a snapshot's layer of
    more than 64 pages, is a memfd: one that RLIMIT_FSIZE does not allow is HLSNAP_ERR_OS (EFBIG), never SIGXFSZ.
    Guest code runs at CPL 3; it can neither see nor stop time, and it can read the CPU's identity and random source.

SEE docs/abi.md, docs/snapshot-format.md, docs/security.md, docs/performance.md, examples/. Search for ">>" to jump. */

#if defined(HLSNAP_IMPLEMENTATION) && !defined(_DEFAULT_SOURCE)
#define _DEFAULT_SOURCE 1 /* mmap, syscall, sigset_t under -std=c11; has effect when no system header came before */
#endif

#if (defined(HLSNAP_GUEST_LIBC) || defined(HLSNAP_GUEST_RUNTIME)) && !defined(HLSNAP_GUEST)
#define HLSNAP_GUEST
#endif
#if defined(HLSNAP_GUEST_RUNTIME) && !defined(HLSNAP_GUEST_LIBC)
#define HLSNAP_GUEST_LIBC
#endif

#ifndef HLSNAP_H
#define HLSNAP_H

/* MAJOR changes when source that compiles must change, MINOR when functions are added, PATCH otherwise. The host/guest ABI
   and the snapshot format have numbers of their own; version 0 of both may change in any release. */
#define HLSNAP_VERSION_MAJOR 0
#define HLSNAP_VERSION_MINOR 3
#define HLSNAP_VERSION_PATCH 0
#define HLSNAP_VERSION (HLSNAP_VERSION_MAJOR * 1000000 + HLSNAP_VERSION_MINOR * 1000 + HLSNAP_VERSION_PATCH)
#define HLSNAP_VERSION_STRING "0.3.0"
/* true when this header is at least a.b.c */
#define HLSNAP_VERSION_AT_LEAST(a, b, c) (HLSNAP_VERSION >= (a) * 1000000 + (b) * 1000 + (c))
#define HLSNAP_ABI_VERSION 2
#define HLSNAP_SNAPSHOT_VERSION 3

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(HLSNAP_STATIC) && !defined(HLSNAP_IMPLEMENTATION)
#error "HLSNAP_STATIC goes with HLSNAP_IMPLEMENTATION: every file that uses hlsnap statically needs its own copy"
#endif
#ifndef HLSNAP_API
#if defined(HLSNAP_STATIC)
#define HLSNAP_API static __attribute__((__unused__))
#else
#define HLSNAP_API extern __attribute__((__visibility__("hidden")))
#endif
#endif
#define HLSNAP_MUST __attribute__((__warn_unused_result__)) /* only where ignoring loses an object or data */
#define HLSNAP_COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define HLSNAP_NO_ARGS NULL, 0

#ifdef __cplusplus
#define HLSNAP_ZERO {}
#define HLSNAP_ARGS(...) hlsnap_impl_list({__VA_ARGS__}), sizeof(hlsnap_impl_size({__VA_ARGS__}))
extern "C" {
#else
#define HLSNAP_ZERO {0}
#define HLSNAP_ARGS(...) ((const hlsnap_value[]){__VA_ARGS__}), \
                         (sizeof((const hlsnap_value[]){__VA_ARGS__}) / sizeof(hlsnap_value))
#endif

/* ==== >>errors ==== */

/* X(name, number, text): the numbers are pinned, grouped by tens: caller, machine, call, guest image, store. */
#define HLSNAP_RESULTS(X) \
    X(OK, 0, "success") \
    X(ERR_ARG, 1, "an argument or a desc field is not acceptable") \
    X(ERR_STATE, 2, "not possible in the sandbox's state") \
    X(ERR_NOT_FOUND, 3, "no such function, tag or digest") \
    X(ERR_SIGNATURE, 4, "arguments or result do not match the signature") \
    X(ERR_CONTRACT, 5, "host functions missing or of another signature than the guest needs") \
    X(ERR_UNSUPPORTED, 6, "this mode is not implemented, or not on this machine") \
    X(ERR_LIMIT, 7, "too large: a message, a count or a size beyond its limit") \
    X(ERR_DUPLICATE, 8, "a name is given twice") \
    X(ERR_MEMORY, 10, "out of memory") \
    X(ERR_OS, 11, "a system call failed (os_errno)") \
    X(ERR_HYPERVISOR, 12, "no usable hypervisor, or it refused") \
    X(ERR_BUSY, 13, "all of them are in use") \
    X(ERR_FUNCTION, 20, "the function itself reported a failure (user_code, msg)") \
    X(ERR_FAULT, 21, "the guest caused a CPU exception") \
    X(ERR_ABORT, 22, "the guest aborted (user_code, msg)") \
    X(ERR_CANCELLED, 23, "cancelled through the interrupt") \
    X(ERR_TIMEOUT, 24, "the time limit ran out") \
    X(ERR_PROTOCOL, 25, "the guest broke the host/guest protocol") \
    X(ERR_EXIT, 26, "the guest's program ended (user_code: its status)") \
    X(ERR_ELF, 30, "not an ELF image this machine can run, or a truncated one") \
    X(ERR_ELF_SEGMENT, 31, "ELF segments overlap, overflow, or are writable and executable") \
    X(ERR_ELF_DYNAMIC, 32, "the ELF needs a dynamic linker") \
    X(ERR_ELF_RELOC, 33, "an ELF relocation that cannot be applied") \
    X(ERR_SELF, 34, "guest.self: the image in memory and its file do not agree") \
    X(ERR_ABI, 35, "the guest was built for another host/guest ABI") \
    X(ERR_LAYOUT, 40, "not an OCI Image Layout of a supported version") \
    X(ERR_INDEX, 41, "index.json is malformed") \
    X(ERR_AMBIGUOUS, 42, "a tag is listed more than once") \
    X(ERR_MANIFEST, 43, "a manifest is malformed") \
    X(ERR_MEDIA_TYPE, 44, "not an hlsnap snapshot") \
    X(ERR_CONFIG, 45, "a snapshot config is malformed or contradicts itself") \
    X(ERR_JSON, 46, "not strict JSON") \
    X(ERR_FILE, 47, "a file of the store is missing or not a regular file") \
    X(ERR_SIZE, 48, "a file's size differs from its descriptor") \
    X(ERR_DIGEST, 49, "content differs from its digest") \
    X(ERR_VERSION, 50, "a snapshot of another format or ABI version") \
    X(ERR_ARCH, 51, "a snapshot of another architecture or page size") \
    X(ERR_CPU, 52, "this CPU lacks a feature the snapshot was taken with") \
    X(ERR_CHANGED, 53, "a file changed while it was in use")

typedef enum hlsnap_result {
#define HLSNAP_IMPL_RESULT(name, number, text) HLSNAP_##name = number,
    HLSNAP_RESULTS(HLSNAP_IMPL_RESULT)
#undef HLSNAP_IMPL_RESULT
    HLSNAP_RESULT_FORCE32 = 0x7fffffff
} hlsnap_result;
#define HLSNAP_MAX_RESULTS 64  /* all of them are below */

typedef struct hlsnap_error {  /* caller-owned, optional, written only on failure */
    hlsnap_result code;
    int32_t os_errno;          /* 0 where no system call failed */
    int32_t user_code;         /* from hlsnap_call_fail (ERR_FUNCTION) or hlsnap_rt_abort (ERR_ABORT) */
    uint32_t vector, error_code; /* ERR_FAULT: CPU exception vector and its error code */
    uint64_t rip, cr2;         /* ERR_FAULT: guest addresses (GVA) */
    char region[16];           /* ERR_FAULT: what lies at cr2 (page faults) or rip: "text", "heap", "guard", "null", ... */
    char msg[512];             /* "function: what, with the offending values"; NUL-terminated, printable: ASCII, but for what a
                                  guest says itself when it fails, aborts or exits, which is as in hlsnap_log_fn */
} hlsnap_error;

/* hlsnap_result_name -- the name of a result, such as "HLSNAP_ERR_FAULT".
   code      in     any number
   returns   a static string, "HLSNAP_ERR_?" for a number that is none
   threads   any  */
HLSNAP_API const char *hlsnap_result_name(hlsnap_result code);

/* hlsnap_result_text -- one sentence on what a result means.
   code      in     any number
   returns   a static string, "unknown result" for a number that is none
   threads   any  */
HLSNAP_API const char *hlsnap_result_text(hlsnap_result code);

/* hlsnap_result_transient -- whether the same call can succeed later although nobody mends anything: something that is shared
   with others was used up or taken.
   err       in     of a failed call; may be NULL
   returns   true: HLSNAP_ERR_MEMORY, _BUSY; and HLSNAP_ERR_OS, _HYPERVISOR or _FILE when os_errno is of
               descriptors   EMFILE, ENFILE
               tasks, memory EAGAIN (also a lock or lease that another holds), ENOMEM, ENOBUFS, ENOLCK
               somebody else EBUSY, ETXTBSY (runs or writes that file), EDEADLK (waits for what we hold)
               the moment    EINTR, ETIMEDOUT (a file server)
             false: everything else, success and NULL too. ENOSPC, EDQUOT and EFBIG wait for a person; EIO and ESTALE may be damage;
             HLSNAP_ERR_TIMEOUT, _CANCELLED and _CHANGED are what the call itself found
   threads   any; on the host only  */
HLSNAP_API bool hlsnap_result_transient(const hlsnap_error *err);

/* hlsnap_version -- HLSNAP_VERSION of the compiled implementation, to compare with the header's.
   returns   major * 1000000 + minor * 1000 + patch
   threads   any  */
HLSNAP_API uint32_t hlsnap_version(void);

/* ==== >>values ==== */

typedef enum hlsnap_type {
    HLSNAP_VOID, HLSNAP_BOOL, HLSNAP_I32, HLSNAP_U32, HLSNAP_I64, HLSNAP_U64, HLSNAP_F32, HLSNAP_F64, HLSNAP_STR, HLSNAP_BYTES,
    HLSNAP_TYPE_FORCE32 = 0x7fffffff
} hlsnap_type;

/* hlsnap_value has fields i32, u32, i64, u64, f32 and f64. Where one of these is a macro for a type, say so instead of a syntax
   error; a typedef of that name, or another macro that leaves a field's name, does no harm. C++ takes no type's name there. */
#define HLSNAP_IMPL_TYPE_ ~, 1,
#define HLSNAP_IMPL_TYPE_char ~, 1,
#define HLSNAP_IMPL_TYPE_short ~, 1,
#define HLSNAP_IMPL_TYPE_int ~, 1,
#define HLSNAP_IMPL_TYPE_long ~, 1,
#define HLSNAP_IMPL_TYPE_signed ~, 1,
#define HLSNAP_IMPL_TYPE_unsigned ~, 1,
#define HLSNAP_IMPL_TYPE_float ~, 1,
#define HLSNAP_IMPL_TYPE_double ~, 1,
#define HLSNAP_IMPL_TYPE__Float32 ~, 1,
#define HLSNAP_IMPL_TYPE__Float64 ~, 1,
#ifdef __cplusplus
#define HLSNAP_IMPL_TYPE_std ~, 1,
#define HLSNAP_IMPL_TYPE_int32_t ~, 1,
#define HLSNAP_IMPL_TYPE_uint32_t ~, 1,
#define HLSNAP_IMPL_TYPE_int64_t ~, 1,
#define HLSNAP_IMPL_TYPE_uint64_t ~, 1,
#endif
#define HLSNAP_IMPL_PASTE(a, b) a##b
#define HLSNAP_IMPL_SECOND(a, b, ...) b
#define HLSNAP_IMPL_SECOND_OF(...) HLSNAP_IMPL_SECOND(__VA_ARGS__)
#define HLSNAP_IMPL_IS_TYPE(word) HLSNAP_IMPL_SECOND_OF(HLSNAP_IMPL_PASTE(HLSNAP_IMPL_TYPE_, word), 0, 0)
#if HLSNAP_IMPL_IS_TYPE(i32) || HLSNAP_IMPL_IS_TYPE(u32) || HLSNAP_IMPL_IS_TYPE(i64) || HLSNAP_IMPL_IS_TYPE(u64) || \
    HLSNAP_IMPL_IS_TYPE(f32) || HLSNAP_IMPL_IS_TYPE(f64)
#error "i32, u32, i64, u64, f32 or f64 is a macro for a type, but a field of hlsnap_value: make it a typedef, or #undef it here"
#endif
#undef HLSNAP_IMPL_TYPE_
#undef HLSNAP_IMPL_TYPE_char
#undef HLSNAP_IMPL_TYPE_short
#undef HLSNAP_IMPL_TYPE_int
#undef HLSNAP_IMPL_TYPE_long
#undef HLSNAP_IMPL_TYPE_signed
#undef HLSNAP_IMPL_TYPE_unsigned
#undef HLSNAP_IMPL_TYPE_float
#undef HLSNAP_IMPL_TYPE_double
#undef HLSNAP_IMPL_TYPE__Float32
#undef HLSNAP_IMPL_TYPE__Float64
#undef HLSNAP_IMPL_TYPE_std
#undef HLSNAP_IMPL_TYPE_int32_t
#undef HLSNAP_IMPL_TYPE_uint32_t
#undef HLSNAP_IMPL_TYPE_int64_t
#undef HLSNAP_IMPL_TYPE_uint64_t
#undef HLSNAP_IMPL_PASTE
#undef HLSNAP_IMPL_SECOND
#undef HLSNAP_IMPL_SECOND_OF
#undef HLSNAP_IMPL_IS_TYPE

typedef struct hlsnap_value {
    hlsnap_type type;
    const char *str;           /* STR: size bytes and a NUL, none inside; NULL for other types */
    const uint8_t *bytes;      /* BYTES: size bytes; NULL for other types */
    size_t size;               /* bytes; STR without its NUL */
    union { bool b; int32_t i32; uint32_t u32; int64_t i64; uint64_t u64; float f32; double f64; } as;
} hlsnap_value;

/* hlsnap_bool, hlsnap_i32, ... -- a value of that type.
   v         in     the value; hlsnap_str and hlsnap_bytes borrow what they point to for the value's life.
                    A NULL string is the empty one.
   returns   the value
   threads   any; host and guest  */
HLSNAP_API hlsnap_value hlsnap_bool(bool v);
HLSNAP_API hlsnap_value hlsnap_i32(int32_t v);
HLSNAP_API hlsnap_value hlsnap_u32(uint32_t v);
HLSNAP_API hlsnap_value hlsnap_i64(int64_t v);
HLSNAP_API hlsnap_value hlsnap_u64(uint64_t v);
HLSNAP_API hlsnap_value hlsnap_f32(float v);
HLSNAP_API hlsnap_value hlsnap_f64(double v);
HLSNAP_API hlsnap_value hlsnap_str(const char *s);
HLSNAP_API hlsnap_value hlsnap_bytes(const void *p, size_t size);

/* ==== >>functions: one shape for host functions, exports and imports, on both sides ==== */

#define HLSNAP_MAX_ARGS 32      /* arguments of a function */
#define HLSNAP_MAX_NAME 63      /* bytes of a function's name: [A-Za-z_][A-Za-z0-9_.:$-]* */
#define HLSNAP_MAX_FUNCTIONS 1024 /* exports of a guest; imports of a guest; host functions of a sandbox */

typedef struct hlsnap_call hlsnap_call; /* one call in progress */

/* A function: takes its arguments from the call, gives its result to the call, and returns. It must return: no exception
   and no longjmp may cross hlsnap. Anything but HLSNAP_OK fails the call without poisoning the sandbox. */
typedef hlsnap_result (*hlsnap_fn)(hlsnap_call *call, void *user);

typedef struct hlsnap_function {
    const char *name;
    const char *signature;     /* "i32(i32,str)"; void bool i32 u32 i64 u64 f32 f64 str bytes; void only as the result */
    hlsnap_fn fn;              /* NULL in a list of imports */
    void *user;                /* given to fn */
} hlsnap_function;

/* hlsnap_call_arg -- an argument of the call in progress.
   call      in     as given to the function
   i         in     0-based; beyond the last: a VOID value, and the call fails with HLSNAP_ERR_SIGNATURE
   returns   the value; what it points to lives until the function returns
   threads   the one the function runs on; host and guest  */
HLSNAP_API hlsnap_value hlsnap_call_arg(const hlsnap_call *call, size_t i);

/* hlsnap_call_return -- give the result of the call in progress; the last one given counts, also where one before had no room.
   call      in
   v         in     copied
   returns   HLSNAP_OK; HLSNAP_ERR_SIGNATURE (not the signature's type; a str with a NUL inside); HLSNAP_ERR_LIMIT (neither
             mailbox nor heap has room for it); return it from the function
   threads   the one the function runs on; host and guest  */
HLSNAP_API hlsnap_result hlsnap_call_return(hlsnap_call *call, hlsnap_value v);

/* hlsnap_call_return_fmt -- give a str result, formatted as by printf.
   call      in
   fmt       in     printf's conversions but n and a; L is not known
   returns   as hlsnap_call_return
   threads   the one the function runs on; host and guest  */
HLSNAP_API hlsnap_result hlsnap_call_return_fmt(hlsnap_call *call, const char *fmt, ...)
    __attribute__((__format__(__printf__, 2, 3)));

/* hlsnap_call_user -- in a host function: what the invocation that the guest is in has as its user.
   call      in
   returns   it; NULL: it has none, was made by name, or this is an export of a guest
   threads   the one the function runs on  */
HLSNAP_API void *hlsnap_call_user(const hlsnap_call *call);

/* hlsnap_call_reserve, hlsnap_call_return_reserved -- build a str or bytes result where it will be read: nothing is copied.
   call      in
   n         in     bytes of room; what another result had, or was reserved, before, is lost
   size      in     bytes of them that are the result
   returns   the room, of alignment 8, with anything in it, until the function returns; NULL: the signature's result is neither, or
             neither mailbox nor heap has so much room: less may do. HLSNAP_OK; HLSNAP_ERR_SIGNATURE (a str with a NUL inside),
             HLSNAP_ERR_LIMIT (more than was reserved); return it from the function. Where it was NULL and nothing smaller is given,
             the call fails with these
   threads   the one the function runs on; host and guest  */
HLSNAP_API void *hlsnap_call_reserve(hlsnap_call *call, size_t n);
HLSNAP_API hlsnap_result hlsnap_call_return_reserved(hlsnap_call *call, size_t size);

/* hlsnap_call_fail -- fail the call in progress; the caller gets HLSNAP_ERR_FUNCTION and the sandbox stays ready.
   call      in
   user_code in     for hlsnap_error.user_code
   text      in     copied, cut to what fits hlsnap_error.msg; NULL = empty
   returns   HLSNAP_ERR_FUNCTION, for the function to return
   threads   the one the function runs on; host and guest  */
HLSNAP_API hlsnap_result hlsnap_call_fail(hlsnap_call *call, int32_t user_code, const char *text);

/* ==== >>guest: what runs, and its memory (ends up in the snapshot) ==== */

typedef struct hlsnap_module {
    const hlsnap_function *exports; size_t num_exports;
    const hlsnap_function *imports; size_t num_imports; /* fn is NULL */
} hlsnap_module;

/* What CPUID shows a guest from its first instruction on, and what machines a snapshot of it needs: all that the machine has,
   or no more than a micro-architecture level of x86-64 (docs/abi.md "CPU levels") */
typedef enum hlsnap_cpu {
    HLSNAP_CPU_HOST,
    HLSNAP_CPU_V1,
    HLSNAP_CPU_V2,
    HLSNAP_CPU_V3,
    HLSNAP_CPU_V4,
    HLSNAP_CPU_FORCE32 = 0x7fffffff
} hlsnap_cpu;

/* Whether a sandbox that starts from a snapshot has pages ready that the first calls of another one wrote: docs/performance.md
   "First calls" has what it gains, docs/security.md "Residency" what it shows */
typedef enum hlsnap_prefault {
    HLSNAP_PREFAULT_OFF,
    HLSNAP_PREFAULT_LEARN, /* the first sandbox that is restored, or destroyed, after calls that ended well says which pages */
    HLSNAP_PREFAULT_FORCE32 = 0x7fffffff
} hlsnap_prefault;

typedef struct hlsnap_guest_desc { /* set exactly one of self, path, data */
    uint32_t _start_canary;
    const hlsnap_module *self; /* the program or .so that this address lies in is the guest: a fresh copy of its file, in which
                                  neither main nor any constructor of C++'s global objects has run */
    const char *path;          /* static ELF or static-PIE ELF */
    const void *data; size_t data_size; /* the same in memory; bytes; read during the call only */
    uint64_t heap_size;        /* bytes, multiple of 4096, up to 16 GiB; 0 = 1 MiB */
    uint64_t stack_size;       /* bytes, multiple of 4096, up to 1 GiB; 0 = 64 KiB */
    uint64_t mailbox_size;     /* bytes, multiple of 4096, 8 KiB .. 256 MiB; 0 = 64 KiB; messages of more than about half of it are
                                  passed in the heap, at the price of an entry more */
    /* of Linux programs only, see docs/programs.md */
    const char *runtime;       /* ELF of the guest runtime, for a program that is not linked with it; NULL = it is */
    const char *const *args; size_t num_args; /* main's, argv[0] first; NULL = the file's name alone */
    const char *const *env; size_t num_env;   /* "NAME=value"; none of this process's own is ever passed on */
    const void *files; size_t files_size;     /* a ustar archive, the program's read-only files; bytes; read during the call only */
    hlsnap_cpu cpu;            /* HLSNAP_CPU_HOST: snapshots start where all features of this machine are; a level: where it is */
    hlsnap_prefault prefault;  /* of all snapshots of the guest: at most 4 MiB of private memory for each sandbox */
    uint32_t _end_canary;
} hlsnap_guest_desc;

/* ==== >>sandbox: how it runs (never in a snapshot) ==== */

typedef struct hlsnap_hypervisor hlsnap_hypervisor;
typedef struct hlsnap_sandbox hlsnap_sandbox;
typedef struct hlsnap_snapshot hlsnap_snapshot;
typedef struct hlsnap_pool hlsnap_pool;
typedef struct hlsnap_interrupt hlsnap_interrupt;
typedef struct hlsnap_map hlsnap_map;
typedef enum hlsnap_state { HLSNAP_READY, HLSNAP_BUSY, HLSNAP_POISONED, HLSNAP_STATE_FORCE32 = 0x7fffffff } hlsnap_state;

/* One line from the guest: text is size bytes and a NUL, valid UTF-8. What could forge a line or a terminal's code is escaped as
   \xNN, byte by byte: controls but tabs, the backslash, line separators, what shows as nothing or turns the direction of
   writing, what is no character, and bytes that are not UTF-8. A \n at the end is dropped. level 0 = print. */
typedef void (*hlsnap_log_fn)(int level, const char *text, size_t size, void *user);

/* What the guest writes to fd 1 or 2, as it is: raw bytes, in the pieces it writes. */
typedef void (*hlsnap_output_fn)(int file, const void *bytes, size_t size, void *user);

typedef struct hlsnap_sandbox_desc {
    uint32_t _start_canary;
    int32_t log_level;         /* 1 error, 2 warning, 3 info, 4 debug: higher ones stay in the guest; 0 = errors; -1 = none */
    int32_t cancel_signal;     /* blocked on the calling thread during a call, no handler; 0 = SIGURG; or a realtime one. One
                                  signal for sandboxes whose host functions call each other */
    const hlsnap_hypervisor *hypervisor; /* required, such as hlsnap_kvm() */
    hlsnap_pool *pool;         /* the sandbox counts towards its bounds, and takes a warm VM of it; NULL = none */
    const hlsnap_function *functions; size_t num_functions; /* host functions; copied, user pointers kept */
    uint64_t timeout_ns;       /* per call, wall clock, host functions included; 0 = none */
    hlsnap_log_fn log; void *log_user; /* NULL = dropped; called on the calling thread */
    hlsnap_output_fn output; void *output_user; /* likewise; NULL = fd 1 becomes log lines of level 0, fd 2 of level 1 */
    bool no_clock;             /* the guest gets no wall clock: a program's clocks start at 0 and go on 1 us a question */
    bool strict_syscalls;      /* a system call that docs/programs.md does not list ends the call, instead of ENOSYS */
    uint64_t cpu_timeout_ns;   /* per call, CPU time of the thread it is made on, host functions included, noticed some ms late;
                                  0 = none. Waiting for a processor, or in a host function, costs nothing here */
    const hlsnap_map *maps; size_t num_maps; /* memory that the guest finds by name, from its init on; copied; see >>maps */
    bool huge_pages;           /* the heap's pages of zeros come 2 MiB at a time, where the kernel has them: for guests that fill
                                  what they allocate. All 2 MiB are private then: docs/performance.md "First calls" */
    uint32_t _end_canary;
} hlsnap_sandbox_desc;

typedef struct hlsnap_export { uint64_t id; } hlsnap_export; /* valid for any sandbox of the same guest */

typedef struct hlsnap_invocation {
    hlsnap_export target;
    const hlsnap_value *args; size_t num_args;
    uint64_t timeout_ns;       /* this call's time limit; 0 = the sandbox's */
    uint64_t cpu_ns;           /* and of CPU time; 0 = the sandbox's */
    void *user;                /* a trace id, say: see hlsnap_sandbox_get_user. Calls of different ones share no VM entry */
} hlsnap_invocation;

typedef struct hlsnap_stats {  /* since creation */
    uint64_t calls, exits, restores; /* guest functions called; returns from the VM; restores done */
    uint64_t hot_pages;        /* private pages tracked now, 4 KiB each */
    uint64_t copied_bytes;     /* copied by restores */
    uint64_t guest_ns;         /* wall clock inside the VM */
    /* What a guest needs of heap_size and stack_size: bytes. The heap's are what its runtime says, so that a hostile guest has them
       say anything up to heap_size; of a Linux program they are whole pages, all threads' stacks but the first one's among them. */
    uint64_t heap_used;        /* at the end of the last entry that the guest ended itself */
    uint64_t heap_peak;        /* the most at once, where blocks lie included; over all restores */
    uint64_t stack_peak;       /* from the deepest page of the stack that is not zero now to its end; looked for when asked */
    uint64_t snapshots;        /* taken */
    uint64_t ended[HLSNAP_MAX_RESULTS]; /* calls that ran, a batch as one, and the init, by their hlsnap_result */
    uint64_t prefaulted_pages; /* that were made ready when its memory was last given to the VM: guest_desc.prefault */
} hlsnap_stats;

/* hlsnap_sandbox_create -- load a guest, start a VM, run the guest's init.
   guest     in     what runs; not NULL; copied
   desc      in     how it runs; desc->hypervisor is required
   out       out    the sandbox, READY; NULL on failure
   err       out    may be NULL
   returns   HLSNAP_OK; HLSNAP_ERR_ARG (a desc field, canary); HLSNAP_ERR_ELF, _ELF_SEGMENT, _ELF_DYNAMIC, _ELF_RELOC,
             _SELF, _ABI (the image); HLSNAP_ERR_CONTRACT (imports without a matching host function); HLSNAP_ERR_ARG,
             _SIGNATURE, _DUPLICATE, _LIMIT (names, signatures or number of host functions, or of the guest's own);
             HLSNAP_ERR_HYPERVISOR, _OS, _MEMORY; HLSNAP_ERR_FAULT, _ABORT, _EXIT, _TIMEOUT, _PROTOCOL (the guest's init)
   owns      the caller: hlsnap_sandbox_destroy
   threads   any
   cost      file read + one VM + one entry  */
HLSNAP_API HLSNAP_MUST hlsnap_result hlsnap_sandbox_create(const hlsnap_guest_desc *guest, const hlsnap_sandbox_desc *desc,
                                                           hlsnap_sandbox **out, hlsnap_error *err);

/* hlsnap_sandbox_create_from -- start a sandbox from a snapshot; no ELF, no init (a pre-init snapshot runs init).
   snapshot  in     retained by the sandbox
   desc      in     as for hlsnap_sandbox_create; its host functions must satisfy the snapshot's imports, more are fine
   out       out    the sandbox, READY; NULL on failure
   err       out    may be NULL; names every missing and mismatched function
   returns   as hlsnap_sandbox_create, and HLSNAP_ERR_CPU; of a loaded snapshot also HLSNAP_ERR_CHANGED, _DIGEST; with desc->pool
             HLSNAP_ERR_BUSY, _STATE as hlsnap_pool_acquire
   owns      the caller: hlsnap_sandbox_destroy
   threads   any
   cost      one VM; memory is mapped, not copied  */
HLSNAP_API HLSNAP_MUST hlsnap_result hlsnap_sandbox_create_from(hlsnap_snapshot *snapshot, const hlsnap_sandbox_desc *desc,
                                                                hlsnap_sandbox **out, hlsnap_error *err);

/* hlsnap_sandbox_destroy -- end a sandbox.
   sb        in     NULL is fine; in a call: the call is cancelled and the sandbox freed when it returns
   threads   the sandbox's, also inside its host functions, log and output  */
HLSNAP_API void hlsnap_sandbox_destroy(hlsnap_sandbox *sb);

/* hlsnap_sandbox_get_state -- READY, BUSY or POISONED.
   sb        in     NULL is POISONED: it refuses every call
   returns   the state
   threads   any while the sandbox lives  */
HLSNAP_API hlsnap_state hlsnap_sandbox_get_state(const hlsnap_sandbox *sb);

/* hlsnap_sandbox_call -- run one guest function to completion, by name.
   sb        in     ready sandbox
   name      in     export name; borrowed for the call
   args      in     num_args values, matched against the export's signature, copied into the guest
   out       out    result, owned by sb until its next operation; NULL when not wanted
   err       out    may be NULL
   returns   HLSNAP_OK; HLSNAP_ERR_ARG; HLSNAP_ERR_STATE; HLSNAP_ERR_NOT_FOUND (name); HLSNAP_ERR_SIGNATURE, _LIMIT (args);
             HLSNAP_ERR_FUNCTION (the export failed, sb stays ready); HLSNAP_ERR_FAULT, _ABORT, _EXIT, _CANCELLED,
             _TIMEOUT, _PROTOCOL, _OS, _HYPERVISOR; of a loaded snapshot _CHANGED, _DIGEST (sb is poisoned)
   threads   one per sandbox at a time; hlsnap_interrupt_cancel() from any thread
   cost      one VM entry plus one per host call; arguments that the mailbox has no room for, one more. A copy each way
   spec      docs/abi.md "Messages"  */
HLSNAP_API hlsnap_result hlsnap_sandbox_call(hlsnap_sandbox *sb, const char *name, const hlsnap_value *args, size_t num_args,
                                             hlsnap_value *out, hlsnap_error *err);

/* hlsnap_sandbox_find -- a handle for an export, for hlsnap_sandbox_invoke.
   sb        in     ready sandbox
   name      in     export name
   signature in     what the caller expects, such as "i32(i32,str)"; NULL = any
   out       out    the handle; good for every sandbox of the same guest, also one started from a loaded snapshot
   err       out    may be NULL
   returns   HLSNAP_OK; HLSNAP_ERR_ARG; HLSNAP_ERR_STATE; HLSNAP_ERR_NOT_FOUND; HLSNAP_ERR_SIGNATURE
   threads   the sandbox's  */
HLSNAP_API hlsnap_result hlsnap_sandbox_find(const hlsnap_sandbox *sb, const char *name, const char *signature,
                                             hlsnap_export *out, hlsnap_error *err);

/* hlsnap_sandbox_invoke -- run guest functions by handle; several are a batch: one VM entry where they fit the mailbox.
   sb        in     ready sandbox
   calls     in     num_calls invocations, run in order; all are checked before the first runs. A batch's time limit is the
                    sum of its calls' limits; a call without one makes the whole batch unlimited.
   outs      out    num_calls results, owned by sb until its next operation; NULL when not wanted
   num_done  out    calls that completed; the next one is where err applies; may be NULL
   err       out    may be NULL
   returns   as hlsnap_sandbox_call; HLSNAP_ERR_NOT_FOUND (a handle of another guest)
   threads   the sandbox's  */
HLSNAP_API hlsnap_result hlsnap_sandbox_invoke(hlsnap_sandbox *sb, const hlsnap_invocation *calls, size_t num_calls,
                                               hlsnap_value *outs, size_t *num_done, hlsnap_error *err);

/* hlsnap_sandbox_snapshot -- take a snapshot; only pages that changed since the sandbox's own snapshot are copied.
   sb        in     ready sandbox
   out       out    the snapshot; NULL on failure
   err       out    may be NULL
   returns   HLSNAP_OK; HLSNAP_ERR_ARG; HLSNAP_ERR_STATE; HLSNAP_ERR_OS, _MEMORY (sb stays ready); HLSNAP_ERR_CHANGED (a file that
             it was loaded from, or of a PRIVATE map), _DIGEST (sb is poisoned)
   owns      the caller: hlsnap_snapshot_release
   threads   the sandbox's
   cost      one sealed memfd + a copy of the changed pages  */
HLSNAP_API hlsnap_result hlsnap_sandbox_snapshot(hlsnap_sandbox *sb, hlsnap_snapshot **out, hlsnap_error *err);

/* hlsnap_sandbox_restore -- put a sandbox back to a snapshot: its own, an older or newer one, or another guest's.
   sb        in     ready or poisoned sandbox; READY afterwards
   snapshot  in     retained by sb; sb's host functions must satisfy its imports
   err       out    may be NULL
   returns   HLSNAP_OK; HLSNAP_ERR_ARG; HLSNAP_ERR_STATE; HLSNAP_ERR_CONTRACT, _CPU, and _LIMIT for more maps than one may have
             (nothing was changed); HLSNAP_ERR_OS, _MEMORY, _HYPERVISOR, _CHANGED, _DIGEST (sb is poisoned; restore may be tried
             again, with this snapshot or another); HLSNAP_ERR_FAULT and others of init when the snapshot is a pre-init one
   threads   the sandbox's
   cost      one scan for private pages; a compare, and a copy where changed, of those changed of late  */
HLSNAP_API hlsnap_result hlsnap_sandbox_restore(hlsnap_sandbox *sb, hlsnap_snapshot *snapshot, hlsnap_error *err);

/* hlsnap_sandbox_retire -- between two tenants: refuse all calls until the next restore, and have that map all memory afresh.
   sb        in     READY becomes POISONED; one that is POISONED, by a fault or a limit, too; no effect in a call
   threads   the sandbox's
   cost      with the next restore that of mapping, and of the guest's first touch of each page, as after a start. In exchange
             no timing of the next tenant's can tell which pages this one used (docs/security.md "Residency")  */
HLSNAP_API void hlsnap_sandbox_retire(hlsnap_sandbox *sb);

/* hlsnap_sandbox_bind -- replace all host functions.
   sb        in     ready sandbox
   functions in     num_functions rows, copied; must satisfy the guest's imports
   err       out    may be NULL
   returns   HLSNAP_OK; HLSNAP_ERR_ARG, _DUPLICATE, _CONTRACT, _STATE, _MEMORY (the old ones stay)
   threads   the sandbox's  */
HLSNAP_API hlsnap_result hlsnap_sandbox_bind(hlsnap_sandbox *sb, const hlsnap_function *functions, size_t num_functions,
                                             hlsnap_error *err);

/* hlsnap_sandbox_read, hlsnap_sandbox_write -- copy bytes out of or into guest memory.
   sb        in     ready sandbox, or busy in a host function of its own
   gva       in     guest virtual address; the whole range must lie in mapped regions. Read: any region. Write: any but the
                    identity page; read-only and executable regions are writable this way; a restore undoes it.
   to, from  out/in n bytes
   err       out    may be NULL
   returns   HLSNAP_OK; HLSNAP_ERR_ARG (range; nothing copied); HLSNAP_ERR_STATE; HLSNAP_ERR_CHANGED, _DIGEST (copied, useless);
             HLSNAP_ERR_OS (guard NONE or DETECT, where process_vm_readv is forbidden)
   threads   the sandbox's  */
HLSNAP_API hlsnap_result hlsnap_sandbox_read(hlsnap_sandbox *sb, uint64_t gva, void *to, size_t n, hlsnap_error *err);
HLSNAP_API hlsnap_result hlsnap_sandbox_write(hlsnap_sandbox *sb, uint64_t gva, const void *from, size_t n, hlsnap_error *err);

/* hlsnap_sandbox_view -- guest memory where it is, to be looked at without a copy.
   sb        in     as for hlsnap_sandbox_read
   gva, n    in     as there
   out       out    n bytes, until the sandbox is called, snapshotted, restored, released or destroyed, or the map they are in
                    is removed; NULL on failure. They are the guest's: whoever looks twice after it ran may see something else
   err       out    may be NULL
   returns   as hlsnap_sandbox_read; HLSNAP_ERR_UNSUPPORTED (a loaded snapshot, or a map of a file, not in sealed memory when it was
             mapped: a file that is cut would be a SIGBUS; hlsnap_sandbox_read copies)
   threads   the sandbox's  */
HLSNAP_API hlsnap_result hlsnap_sandbox_view(hlsnap_sandbox *sb, uint64_t gva, size_t n, const void **out, hlsnap_error *err);

/* hlsnap_sandbox_set_log, hlsnap_sandbox_set_output -- who listens from now on, and after restores, too; fields of the desc.
   sb        in     in any state, also inside a host function of its own; NULL is fine
   level     in     as log_level; what is beyond -1..4 is the nearest
   log, output in   NULL = nobody
   threads   the sandbox's  */
HLSNAP_API void hlsnap_sandbox_set_log(hlsnap_sandbox *sb, int32_t level, hlsnap_log_fn log, void *user);
HLSNAP_API void hlsnap_sandbox_set_output(hlsnap_sandbox *sb, hlsnap_output_fn output, void *user);

/* hlsnap_sandbox_get_user -- the user of the invocation in progress, as for hlsnap_call_user: for log and output functions.
   sb        in
   returns   it; NULL: no call is in progress, it has none, or sb is NULL
   threads   the sandbox's  */
HLSNAP_API void *hlsnap_sandbox_get_user(const hlsnap_sandbox *sb);

/* hlsnap_sandbox_get_stats -- counters since creation.
   sb        in     NULL gives zeros
   out       out
   threads   the sandbox's  */
HLSNAP_API void hlsnap_sandbox_get_stats(const hlsnap_sandbox *sb, hlsnap_stats *out);

/* hlsnap_sandbox_get_interrupt -- a handle that cancels this sandbox's calls; it outlives the sandbox.
   sb        in
   returns   the handle, one reference more; NULL for a NULL sandbox, and inside a host function whose call cannot be made one
             that a cancel ends (no signals left to queue)
   owns      the caller: hlsnap_interrupt_release
   threads   the sandbox's  */
HLSNAP_API hlsnap_interrupt *hlsnap_sandbox_get_interrupt(hlsnap_sandbox *sb);

/* hlsnap_interrupt_cancel -- cancel the call in progress.
   h         in     NULL is fine: false
   returns   true: that call ends with HLSNAP_ERR_CANCELLED (a host function it is in is not stopped, but nothing of the
             guest runs after it); false: no call in progress, no effect now or later
   threads   any, and any signal handler: it takes no lock, waits for nobody, allocates nothing and keeps errno  */
HLSNAP_API bool hlsnap_interrupt_cancel(hlsnap_interrupt *h);

/* hlsnap_interrupt_release -- give up one reference.
   h         in     NULL is fine
   threads   any  */
HLSNAP_API void hlsnap_interrupt_release(hlsnap_interrupt *h);

/* ==== >>snapshot: immutable, reference counted, any thread ==== */

typedef struct hlsnap_snapshot_info {
    uint64_t pages;            /* of guest memory, 4 KiB each */
    uint64_t stored_pages;     /* that are stored: not those that are known to be zero */
    uint32_t layers;
    uint32_t guard;            /* hlsnap_oci_guard in force of a loaded snapshot; 0 for one taken in memory */
    char guest_name[64];       /* file name of the guest; "" when it came from memory */
    char build_id[48];         /* GNU build id in hex, at most 47 digits; "" when it has none */
    char cpu_vendor[16];       /* where the guest's init ran, such as "GenuineIntel" and "kvm"; "" before it did */
    char hypervisor[32];
    uint64_t entry;            /* guest virtual address (GVA) that the VM is entered at */
    uint64_t elf_entry, load_address; /* e_entry as the guest's ELF file has it, and what was added to its addresses */
    uint64_t generation;       /* grows with each snapshot of a line */
    hlsnap_cpu cpu;            /* as in the guest desc */
    hlsnap_cpu baseline;       /* the lowest level with all features that it needs; HLSNAP_CPU_HOST: none has them */
    hlsnap_prefault prefault;  /* as in the guest desc */
    uint64_t learned_pages;    /* that are made ready at a start; 0 = none are known yet */
} hlsnap_snapshot_info;

typedef struct hlsnap_region { /* of guest memory; regions ascend and do not overlap */
    uint64_t gva, pages;       /* guest virtual address, a multiple of 4 KiB; 4 KiB each */
    const char *kind;          /* text, rodata, data, tls, heap, stack; not stored: mailbox, identity */
    bool writable, executable, stored;
} hlsnap_region;

typedef struct hlsnap_extent { /* guest pages that a layer holds; extents ascend and do not overlap */
    uint64_t gva, pages;
    uint64_t layer_page;       /* the first one's number in its layer */
    uint32_t layer;
} hlsnap_extent;

/* hlsnap_snapshot_from_guest -- a pre-init snapshot: loaded, relocated, not yet run; needs no VM, cannot be saved.
   guest     in     as for hlsnap_sandbox_create
   out       out    the snapshot; NULL on failure
   err       out    may be NULL
   returns   HLSNAP_OK; HLSNAP_ERR_ARG; HLSNAP_ERR_ELF, _ELF_SEGMENT, _ELF_DYNAMIC, _ELF_RELOC, _SELF, _ABI; HLSNAP_ERR_OS,
             _MEMORY, _LIMIT; HLSNAP_ERR_UNSUPPORTED (this machine's pages are not of 4 KiB)
   owns      the caller: hlsnap_snapshot_release
   threads   any  */
HLSNAP_API HLSNAP_MUST hlsnap_result hlsnap_snapshot_from_guest(const hlsnap_guest_desc *guest, hlsnap_snapshot **out,
                                                                hlsnap_error *err);

/* hlsnap_guest_unresolved -- all that a guest would miss at once: what its file expects of others and the guest runtime has not.
   In a guest.self, using one of them is a fault that names it; a file with any is refused as a guest.
   guest     in     self; or path or data: any 64-bit x86-64 ELF file, also a shared object or a program with a dynamic linker
   to        out    cap bytes: names in ascending order, each once, each with a \n; NUL-terminated when cap > 0. What does not fit
                    is left out, whole names at a time
   size      out    bytes of all names with their \n, 0 = none is missing; may be NULL
   err       out    may be NULL
   returns   as hlsnap_snapshot_from_guest; HLSNAP_ERR_LIMIT (tens of thousands of names)
   threads   any  */
HLSNAP_API hlsnap_result hlsnap_guest_unresolved(const hlsnap_guest_desc *guest, char *to, size_t cap, size_t *size,
                                                 hlsnap_error *err);

/* hlsnap_snapshot_retain, hlsnap_snapshot_release -- one reference more; one less, freed with the last.
   s         in     NULL is fine
   returns   retain: s
   threads   any  */
HLSNAP_API hlsnap_snapshot *hlsnap_snapshot_retain(hlsnap_snapshot *s);
HLSNAP_API void hlsnap_snapshot_release(hlsnap_snapshot *s);

/* hlsnap_snapshot_get_info -- sizes and identity.
   s         in     NULL gives zeros
   out       out
   threads   any  */
HLSNAP_API void hlsnap_snapshot_get_info(const hlsnap_snapshot *s, hlsnap_snapshot_info *out);

/* hlsnap_snapshot_import, hlsnap_snapshot_export -- the contract: what a host must provide, what the guest provides.
   s         in
   i         in     0-based
   out       out    name and signature, owned by s; fn and user NULL
   returns   true; false past the end (a pre-init snapshot has none yet), or when s or out is NULL
   threads   any  */
HLSNAP_API bool hlsnap_snapshot_import(const hlsnap_snapshot *s, size_t i, hlsnap_function *out);
HLSNAP_API bool hlsnap_snapshot_export(const hlsnap_snapshot *s, size_t i, hlsnap_function *out);

/* hlsnap_snapshot_region, _extent, _feature -- what a snapshot is made of: its regions; which of their pages lie where, all
   others being zero; the CPU features that it needs, by name.
   s         in
   i         in     0-based
   out       out
   returns   true, or the name; false, or NULL, past the end, or when s or out is NULL
   threads   any
   spec      docs/snapshot-format.md "Config"  */
HLSNAP_API bool hlsnap_snapshot_region(const hlsnap_snapshot *s, size_t i, hlsnap_region *out);
HLSNAP_API bool hlsnap_snapshot_extent(const hlsnap_snapshot *s, size_t i, hlsnap_extent *out);
HLSNAP_API const char *hlsnap_snapshot_feature(const hlsnap_snapshot *s, size_t i);

/* hlsnap_snapshot_read -- copy guest memory out of a snapshot.
   s         in
   gva       in     guest virtual address; the whole range must lie in regions. Those that are not stored read as zero
   to        out    n bytes; undefined on failure
   err       out    may be NULL
   returns   HLSNAP_OK; HLSNAP_ERR_ARG (the range); HLSNAP_ERR_DIGEST, _CHANGED (the files it was loaded from);
             HLSNAP_ERR_OS
   threads   any
   cost      a system call for each extent in the range  */
HLSNAP_API hlsnap_result hlsnap_snapshot_read(const hlsnap_snapshot *s, uint64_t gva, void *to, size_t n,
                                              hlsnap_error *err);

/* ==== >>maps: files and memory of the host that a guest finds by name; docs/memory.md ==== */

#define HLSNAP_MAX_MAPS 16 /* of a sandbox; 64 GiB in all */

typedef enum hlsnap_map_mode {
    HLSNAP_MAP_READ,    /* the guest reads what is there; nothing of it is in a snapshot, nothing of it is put back */
    HLSNAP_MAP_PRIVATE, /* the guest writes to pages of its own, which are part of snapshots, and which a restore puts back */
    HLSNAP_MAP_SHARED,  /* both sides write to the same memory; as READ otherwise */
    HLSNAP_MAP_FORCE32 = 0x7fffffff
} hlsnap_map_mode;

struct hlsnap_map { /* set one of path and data */
    const char *name;          /* as a function's */
    hlsnap_map_mode mode;
    const char *path;          /* a regular file, or a memfd by /proc/self/fd/N; one that shrinks ends the call that notices with
                                  HLSNAP_ERR_CHANGED, and what others write to it is seen */
    void *data;                /* memory of the host, 4 KiB aligned, that stays until the map goes; READ never writes it. PRIVATE:
                                  copied once, now. If it is itself of a file that is cut, the host gets SIGBUS: give the file */
    uint64_t offset, size;     /* bytes of the file, offset a multiple of 4096; size 0 = to its end, else a multiple of 4096, or
                                  what is left. Of memory: offset 0, size a multiple of 4096 */
    const char *digest;        /* "sha256:<64 hex>": your word for what it holds, never computed here. A snapshot demands the same;
                                  NULL = not looked at */
    bool capture;              /* READ, PRIVATE: copied now, and part of every snapshot, as a layer of its own; up to 16 GiB */
    bool optional;             /* a snapshot starts without it, too: the guest then finds none */
    uint64_t gva;              /* out only: where it lies in the guest */
};

/* hlsnap_sandbox_map -- give the guest one more map. It stays, through restores too, until hlsnap_sandbox_unmap. Snapshots that are
   taken demand it at their start (name, mode and size; digest, when there is one), and have it at the same address.
   sb        in     ready sandbox, or busy in a host function of its own
   map       in     copied; the file is open and mapped when this returns
   err       out    may be NULL
   returns   HLSNAP_OK; HLSNAP_ERR_ARG (a field; an empty or too short file, or one of another kind); HLSNAP_ERR_DUPLICATE (the
             name); HLSNAP_ERR_LIMIT (number, sizes, the machine's physical addresses); HLSNAP_ERR_STATE; HLSNAP_ERR_OS, _MEMORY,
             _HYPERVISOR. The sandbox is as it was then, but after _HYPERVISOR, which may poison it
   threads   the sandbox's
   cost      a memory slot of the VM; PRIVATE ones a scan at each restore, of the pages that were touched; capture a copy  */
HLSNAP_API hlsnap_result hlsnap_sandbox_map(hlsnap_sandbox *sb, const hlsnap_map *map, hlsnap_error *err);

/* hlsnap_sandbox_unmap -- take a map away, whoever gave it: a guest that touches it then faults. A snapshot that demands it does
   not start any more, one that has captured it brings it back.
   sb        in     as for hlsnap_sandbox_map
   name      in     the map's
   err       out    may be NULL
   returns   HLSNAP_OK; HLSNAP_ERR_ARG; HLSNAP_ERR_NOT_FOUND; HLSNAP_ERR_STATE; HLSNAP_ERR_HYPERVISOR (sb is poisoned)
   threads   the sandbox's  */
HLSNAP_API hlsnap_result hlsnap_sandbox_unmap(hlsnap_sandbox *sb, const char *name, hlsnap_error *err);

/* hlsnap_snapshot_map -- the maps of a snapshot: those that it demands of a host, and those that it has captured.
   s         in
   i         in     0-based
   out       out    name, mode, size, digest (NULL = none), capture, optional, gva; strings owned by s
   returns   true; false past the end, or when s or out is NULL
   threads   any  */
HLSNAP_API bool hlsnap_snapshot_map(const hlsnap_snapshot *s, size_t i, hlsnap_map *out);

/* ==== >>pool: sandboxes for whoever serves requests, kept warm and put back off the request's path; docs/pool.md ==== */

typedef struct hlsnap_pool_desc {
    uint32_t _start_canary;
    const hlsnap_sandbox_desc *sandbox; /* of every sandbox of the pool, required; copied, user pointers kept; its pool is NULL */
    uint32_t max_sandboxes;    /* 0 = 64 */
    uint32_t warm;             /* VMs kept ready without a snapshot */
    uint64_t max_bytes;        /* private guest memory of all of them, as far as it is known; 0 = no bound */
    uint64_t wait_ns;          /* an acquire waits so long for a sandbox, 0 = HLSNAP_ERR_BUSY at once; and as long as it takes
                                  for one that the pool's thread puts back just now */
    uint64_t idle_ns;          /* then a sandbox that nobody acquired is ended; 0 = never */
    bool retire;               /* hlsnap_sandbox_retire at each release: which pages one tenant used cannot be told by the next */
    uint32_t _end_canary;
} hlsnap_pool_desc;

typedef struct hlsnap_pool_stats {
    uint32_t sandboxes, idle;  /* now: of the pool; of these, not acquired */
    uint64_t bytes;            /* now: private guest memory, as each had it when it was last put back */
    uint64_t acquired;         /* since creation, those that were given out: */
    uint64_t ready;            /* stood at that snapshot already; */
    uint64_t moved;            /* were put from another snapshot to it; */
    uint64_t made;             /* were created */
    uint64_t waited, refused;  /* acquires that had to wait; that got HLSNAP_ERR_BUSY */
    uint64_t ended;            /* sandboxes that are no more: idle for too long, over a bound, changed, beyond repair, destroyed */
} hlsnap_pool_stats;

/* hlsnap_pool_create -- an empty pool, but for its warm VMs.
   desc      in     copied
   out       out    the pool; NULL on failure
   err       out    may be NULL
   returns   HLSNAP_OK; HLSNAP_ERR_ARG (a field, canary); as hlsnap_sandbox_create for the sandbox desc and, where warm is not 0,
             for a VM
   owns      the caller: hlsnap_pool_destroy
   threads   any. A thread of its own puts back what takes long, keeps VMs warm and ends what is idle, with all signals blocked
             but those of faults (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS); it is started when there is need for it. In
             a static program that starts no thread itself, there is none, and those who acquire and release do all of it  */
HLSNAP_API HLSNAP_MUST hlsnap_result hlsnap_pool_create(const hlsnap_pool_desc *desc, hlsnap_pool **out, hlsnap_error *err);

/* hlsnap_pool_acquire -- a sandbox of one's own, READY, as if created from the snapshot; its stats begin at zero.
   pool      in
   snapshot  in     retained
   out       out    the sandbox, until hlsnap_pool_release or hlsnap_sandbox_destroy; NULL on failure
   err       out    may be NULL
   returns   HLSNAP_OK; HLSNAP_ERR_ARG (NULL); HLSNAP_ERR_BUSY (all are acquired, or max_bytes are used, for wait_ns);
             HLSNAP_ERR_STATE (the pool is being destroyed, or belongs to another process); as hlsnap_sandbox_create_from
   threads   any; each sandbox is one thread's at a time. Who holds one and waits for another may wait for itself
   cost      where one stands at that snapshot: a lock. One that this thread used last is preferred, then any at that snapshot, then
             another one of the same guest, or any, is put to it; now and then a new one instead, while there may be more, so that
             those who come in turns have one each in the end. One that is being put back is waited for  */
HLSNAP_API HLSNAP_MUST hlsnap_result hlsnap_pool_acquire(hlsnap_pool *pool, hlsnap_snapshot *snapshot, hlsnap_sandbox **out,
                                                         hlsnap_error *err);

/* hlsnap_pool_release -- give an acquired sandbox back, in any state. It is put back to the snapshot that it was acquired at: at
   once where that is quick, else by the pool's thread. Inside a host function of its own it is ended when the call ends.
   pool, sb  in     NULL is fine; sb must be acquired from this pool, and not be released yet: another may have it by then.
                    One of another pool, or made with desc.pool, is left alone. Log and output are the desc's again, handles
                    that cancel it cancel nothing any more; after hlsnap_sandbox_bind it is ended. hlsnap_sandbox_retire before
                    that does what desc.retire does, for once
   threads   the sandbox's  */
HLSNAP_API void hlsnap_pool_release(hlsnap_pool *pool, hlsnap_sandbox *sb);

/* hlsnap_pool_prefetch -- have so many sandboxes idle at a snapshot: new ones are made, within the pool's bounds, and those that
   are idle at other snapshots stay there.
   returns   HLSNAP_OK; HLSNAP_ERR_BUSY (the bounds; what fits is there); HLSNAP_ERR_STATE; as hlsnap_sandbox_create_from
   threads   any  */
HLSNAP_API hlsnap_result hlsnap_pool_prefetch(hlsnap_pool *pool, hlsnap_snapshot *snapshot, uint32_t sandboxes,
                                              hlsnap_error *err);

/* hlsnap_pool_trim -- end what is idle at a snapshot; NULL: whatever is idle, and the warm VMs, of which none are kept any more.
   threads   any  */
HLSNAP_API void hlsnap_pool_trim(hlsnap_pool *pool, hlsnap_snapshot *snapshot);

/* hlsnap_pool_get_stats -- a NULL pool gives zeros.
   threads   any  */
HLSNAP_API void hlsnap_pool_get_stats(hlsnap_pool *pool, hlsnap_pool_stats *out);

/* hlsnap_pool_destroy -- end what is idle. Acquired sandboxes go on, and end when they are released or destroyed; acquires that
   wait get HLSNAP_ERR_STATE. NULL is fine. In the child of a fork: frees what the child has of it.
   threads   any; nobody may begin to use the pool then, but to release  */
HLSNAP_API void hlsnap_pool_destroy(hlsnap_pool *pool);

/* ==== >>guest-runtime: callable in the guest only, which has one thread ==== */

#ifdef HLSNAP_GUEST
/* In one file of a separately built guest, at file scope. */
#define HLSNAP_GUEST_MAIN(module) const hlsnap_module *const hlsnap_rt_module = &(module)
extern const hlsnap_module *const hlsnap_rt_module;
#endif

/* hlsnap_rt_call -- call a host function.
   name      in     one of the module's imports
   args      in     num_args values, matched against the import's signature
   out       out    result, valid until the next hlsnap_rt_call or the export's return; NULL when not wanted
   err       out    may be NULL; user_code and msg as the host function gave them
   returns   HLSNAP_OK; HLSNAP_ERR_NOT_FOUND; HLSNAP_ERR_SIGNATURE; HLSNAP_ERR_LIMIT; HLSNAP_ERR_FUNCTION;
             HLSNAP_ERR_STATE (not in a guest)
   cost      one exit
   spec      docs/abi.md "Host calls"  */
HLSNAP_API hlsnap_result hlsnap_rt_call(const char *name, const hlsnap_value *args, size_t num_args, hlsnap_value *out,
                                        hlsnap_error *err);

/* hlsnap_rt_malloc, _calloc, _realloc, _free -- the guest's heap; 16-byte aligned.
   size      in     bytes; 0 gives a block of its own
   returns   NULL when the heap (guest_desc.heap_size) is full, or not in a guest; freeing what is no live block aborts
             the guest
   owns      the caller: hlsnap_rt_free  */
HLSNAP_API void *hlsnap_rt_malloc(size_t size);
HLSNAP_API void *hlsnap_rt_calloc(size_t count, size_t size);
HLSNAP_API void *hlsnap_rt_realloc(void *p, size_t size);
HLSNAP_API void hlsnap_rt_free(void *p);

/* hlsnap_rt_trim -- zeroes what is free in the heap, so that a snapshot does not store it. A guest that is a Linux program gives
   back what its libc has given back (malloc_trim).
   returns   nothing; without effect when not in a guest
   cost      reads all that is free, writes what is not zero there  */
HLSNAP_API void hlsnap_rt_trim(void);

/* hlsnap_rt_snprintf, hlsnap_rt_vsnprintf -- snprintf without libc; conversions as hlsnap_call_return_fmt.
   to        out    cap bytes, NUL-terminated when cap > 0
   ap        in     a va_list
   returns   the length it would have had, -1 beyond INT_MAX  */
HLSNAP_API int hlsnap_rt_snprintf(char *to, size_t cap, const char *fmt, ...) __attribute__((__format__(__printf__, 3, 4)));
HLSNAP_API int hlsnap_rt_vsnprintf(char *to, size_t cap, const char *fmt, __builtin_va_list ap)
    __attribute__((__format__(__printf__, 3, 0)));

/* hlsnap_rt_print, hlsnap_rt_log -- a line of text to the host's log function; print is level 0 and always passes.
   level     in     1 error .. 4 debug; above the sandbox's log_level nothing happens
   fmt       in     as hlsnap_call_return_fmt; cut at 1,023 bytes; needs no \n: one at the end is dropped, others are escaped
   returns   nothing; without effect when not in a guest
   cost      one exit  */
HLSNAP_API void hlsnap_rt_print(const char *fmt, ...) __attribute__((__format__(__printf__, 1, 2)));
HLSNAP_API void hlsnap_rt_log(int level, const char *fmt, ...) __attribute__((__format__(__printf__, 2, 3)));

/* hlsnap_rt_write -- bytes for the host's output function, as they are; where it has none they become lines of its log.
   stream    in     fd 1 or 2; for others nothing happens
   bytes     in     size bytes; any number of them
   returns   nothing; without effect when nobody listens, or not in a guest
   cost      one exit for every half a mailbox  */
HLSNAP_API void hlsnap_rt_write(int stream, const void *bytes, size_t size);

/* hlsnap_rt_abort -- end the call with HLSNAP_ERR_ABORT and poison the sandbox.
   user_code in     for hlsnap_error.user_code
   text      in     copied, at most 255 bytes; NULL = empty
   returns   never  */
HLSNAP_API __attribute__((__noreturn__)) void hlsnap_rt_abort(int32_t user_code, const char *text);

/* hlsnap_rt_random -- random bytes; seeded afresh by the host at every start and restore, so clones differ.
   to        out    n bytes; zeros when not in a guest
   returns   nothing  */
HLSNAP_API void hlsnap_rt_random(void *to, size_t n);

/* hlsnap_rt_time_ns -- the host's wall clock when this entry first asked; calls of one batch have the same.
   returns   ns since 1970; 0 = none is given (sandbox_desc.no_clock), or not in a guest
   cost      an exit, the first time in an entry; none in a guest that is a Linux program  */
HLSNAP_API uint64_t hlsnap_rt_time_ns(void);

/* hlsnap_rt_on_start -- has fn called first thing in a run that a start from a snapshot or a restore began, before that entry's
   calls: to seed, reopen or forget what clones must not share. Not in the run that it is given in.
   fn        in     everything of the runtime works inside of it but hlsnap_rt_call; NULL = none
   returns   nothing; without effect when not in a guest
   cost      a comparison in every entry  */
HLSNAP_API void hlsnap_rt_on_start(void (*fn)(void *user), void *user);

/* hlsnap_rt_map -- where a map of the host lies; its address stays the same for as long as it is there.
   name      in     the map's
   size      out    bytes, 0 when there is none; may be NULL
   returns   its first byte, at the start of a page; NULL when there is none of that name, or not in a guest. What an
             hlsnap_rt_call before it returned is not valid any more
   cost      one exit  */
HLSNAP_API void *hlsnap_rt_map(const char *name, uint64_t *size);

typedef struct hlsnap_rt_image hlsnap_rt_image;

/* hlsnap_rt_image_new, _map, _free -- memory that is shown at other places, copy on write: what an instance begins with. An image
   is what `from` held when it was made, in a block of the heap that nobody writes to; it is the guest's own memory, so snapshots
   and restores know it as they know the rest.
   from      in     size bytes that the guest can read; address and size are multiples of 4,096
   to        out    size bytes of heap or data, likewise, that hold the image's from `offset` on when it returns; what one place is
                    written to, neither the image nor another place sees
   returns   new: NULL where one of these is not so, the heap has no room, or not in a guest. map: HLSNAP_OK; HLSNAP_ERR_ARG, and
             nothing was changed; HLSNAP_ERR_STATE (not in a guest). What an hlsnap_rt_call before returned is not valid any more
   owns      new: the caller, hlsnap_rt_image_free. What was mapped stays until it is overwritten, by a map or otherwise
   cost      an exit each; map: up to 256 KiB are copied, without one; of more, nothing, but each page that is touched costs a
             fault. docs/memory.md says when that pays  */
HLSNAP_API hlsnap_rt_image *hlsnap_rt_image_new(const void *from, size_t size);
HLSNAP_API hlsnap_result hlsnap_rt_image_map(hlsnap_rt_image *image, void *to, size_t offset, size_t size);
HLSNAP_API void hlsnap_rt_image_free(hlsnap_rt_image *image);

#ifdef HLSNAP_GUEST_LIBC
/* hlsnap_rt_serve -- the main of a guest that is a Linux program calls it when it is ready: init ends, and all calls are served
   from inside it, on main's stack.
   returns   never; exit() or a return from main before it is HLSNAP_ERR_EXIT of the init
   threads   the program's first
   spec      docs/programs.md  */
HLSNAP_API __attribute__((__noreturn__)) void hlsnap_rt_serve(void);

/* A system call that the runtime refuses: its number and arguments as in the registers; returns the result or -errno. */
typedef long (*hlsnap_syscall_fn)(long number, const long args[6], void *user);

/* hlsnap_rt_on_syscall -- answers what the runtime refuses, sockets by host functions for instance.
   fn        in     -38 (ENOSYS) refuses again; NULL = none. System calls and hlsnap_rt_call work inside of it
   returns   nothing  */
HLSNAP_API void hlsnap_rt_on_syscall(hlsnap_syscall_fn fn, void *user);
#endif

/* hlsnap_rt_generation -- one more than when the snapshot was taken that this run started from or was restored to, so that a
   guest that remembers it in its memory sees that it was. Runs of one snapshot have the same; their random bytes differ.
   returns   the generation; 0 when not in a guest  */
HLSNAP_API uint64_t hlsnap_rt_generation(void);

/* ==== >>abi: what host and guest share; docs/abi.md is the contract ==== */
/* Fixed widths, little-endian, no pointers. Offsets are bytes from the start of the mailbox or of a message. */

#define HLSNAP_ABI_MAGIC 0x0070616e736c68ull /* "hlsnap\0\0" read as a little-endian number */
#define HLSNAP_ABI_PORT_RETURN 0xe0 /* OUT imm8, AL: the entry is done */
#define HLSNAP_ABI_PORT_CALL 0xe1   /* OUT imm8, AL: a request stands in the mailbox */
#define HLSNAP_ABI_OP_INIT 1
#define HLSNAP_ABI_OP_CALL 2
#define HLSNAP_ABI_OP_ROOM 3 /* the guest allocates `room` bytes for a call's message that the mailbox has no room for */
#define HLSNAP_ABI_FN_LOG 0xfffffff0u   /* request: i32 level, str text; no response */
#define HLSNAP_ABI_FN_ABORT 0xfffffff1u /* request: i32 user code, str text; does not return */
#define HLSNAP_ABI_FN_OUTPUT 0xfffffff2u /* request: i32 fd, bytes; no response */
#define HLSNAP_ABI_FN_EXIT 0xfffffff3u  /* request: i32 status, str text; does not return */
#define HLSNAP_ABI_FN_CLOCK 0xfffffff4u /* request: i32 0, str ""; the host writes realtime_ns of the mailbox */
#define HLSNAP_ABI_FN_MAP 0xfffffff5u   /* request: i32 0, str name; response: u64 GVA, u64 bytes, both 0 where there is none */
#define HLSNAP_ABI_FN_RESULT 0xfffffff6u /* request: u64 GVA, u64 bytes of a str or bytes result, copied now; no response */
#define HLSNAP_ABI_FN_TAKE 0xfffffff7u  /* request: u64 GVA, u64 bytes: where the large response goes; GVA 0 = it is dropped */
#define HLSNAP_ABI_FN_IMAGE 0xfffffff8u /* request: u64 from, u64 to, u64 bytes, u32 options; response: void, or refused */
#define HLSNAP_ABI_IMAGE_ONCE 1u          /* in its options: `from` is left alone */
#define HLSNAP_ABI_OPTION_OUTPUT 1u       /* somebody listens to HLSNAP_ABI_FN_OUTPUT */
#define HLSNAP_ABI_OPTION_STRICT 2u       /* a system call that is not there ends the call */
#define HLSNAP_ABI_OPTION_CLOCK 4u        /* there is a wall clock */
#define HLSNAP_ABI_STATUS_OK 0
#define HLSNAP_ABI_STATUS_FAILED 1      /* values: i32 user code, str text */
#define HLSNAP_ABI_STATUS_REFUSED 2     /* values: i32 hlsnap_result, str text */
#define HLSNAP_ABI_STATUS_LARGE 3       /* of a response: u64 bytes of the real one, which FN_TAKE asks for */
#define HLSNAP_ABI_REFERENCE 0x100u     /* in the type of a str or bytes that a guest sends: see hlsnap_abi_reference */
#define HLSNAP_ABI_IDENTITY_OFFSET 2048 /* of hlsnap_abi_identity in the identity page */
#define HLSNAP_ABI_RUNTIME_MIN 3072     /* least bytes of the tls region that are the guest runtime's */

typedef struct hlsnap_abi_mailbox { /* at the start of the mailbox */
    uint64_t magic;            /* in   HLSNAP_ABI_MAGIC */
    uint32_t abi_version;      /* in   HLSNAP_ABI_VERSION */
    uint32_t op;               /* in   HLSNAP_ABI_OP_x */
    uint32_t in_offset;        /* in   messages to the guest: calls, then the response to a request */
    uint32_t in_size;          /* in   bytes from there to the mailbox's end */
    uint32_t out_offset;       /* in   messages to the host: results, then a request */
    uint32_t out_size;         /* in   bytes there */
    uint32_t num_calls;        /* in   messages from in_offset on */
    uint32_t response;         /* in   offset where the response to a request stands */
    uint32_t num_done;         /* out  results from out_offset on */
    uint32_t request;          /* out  offset of the request */
    uint64_t entry;            /* out  INIT: where later entries start; 0 = where this one did */
    uint32_t guest_abi;        /* out  INIT: HLSNAP_ABI_VERSION the guest was built with */
    uint32_t num_exports;      /* out  INIT: the first message lists exports, then imports: str name, str signature each */
    uint64_t realtime_ns;      /* in   wall clock, ns since 1970: a Linux program's at this entry, others' by FN_CLOCK; 0 = none */
    uint64_t heap_used;        /* out  bytes of the heap in use when the guest leaves for good */
    uint64_t heap_peak;        /* out  ... and the most so far; 0 = it does not say */
    uint64_t large;            /* in   CALL: GVA of the one call's message, in what ROOM gave; 0 = at in_offset */
    uint64_t room;             /* in   ROOM: bytes */
    uint64_t room_at;          /* out  ... their GVA, a multiple of 16, in the heap; 0 = it has none */
} hlsnap_abi_mailbox;

typedef struct hlsnap_abi_message { /* 8-byte aligned; size counts header, values and payload */
    uint32_t size;             /* bytes, multiple of 8 */
    uint32_t function;         /* export or import by its number, or HLSNAP_ABI_FN_x */
    uint32_t status;           /* HLSNAP_ABI_STATUS_x */
    uint32_t num_values;
} hlsnap_abi_message;

typedef struct hlsnap_abi_value { /* num_values of them follow the header */
    uint32_t type;             /* hlsnap_type */
    uint32_t size;             /* str, bytes: bytes without the NUL; else 0 */
    uint64_t bits;             /* the value's bits, zero-extended; str, bytes: offset from the message, multiple of 8 */
} hlsnap_abi_value;

typedef struct hlsnap_abi_reference { /* where the value's bits lead to: bytes that are copied when the guest leaves */
    uint64_t gva, size;        /* gva 0: what FN_RESULT has brought already */
} hlsnap_abi_reference;

typedef struct hlsnap_abi_identity { /* read-only for the guest, new at every start and restore, never stored */
    uint64_t magic;
    uint32_t abi_version;
    int32_t log_level;         /* -1 = none, else as hlsnap_sandbox_desc */
    uint8_t id[16];            /* this start's own */
    uint8_t entropy[32];
    uint64_t generation;
    uint64_t mailbox, mailbox_size; /* GVA, bytes */
    uint64_t heap, heap_size;
    uint64_t module;           /* GVA of the hlsnap_module of a self guest, else 0 */
    uint64_t tls, tls_size;    /* the thread-local block below the identity page */
    uint64_t runtime, runtime_size; /* the guest runtime's own, HLSNAP_ABI_RUNTIME_MIN bytes at least; zero before init, stored */
    uint64_t program, program_size; /* GVA of the hlsnap_abi_program, bytes with all that it leads to; else 0; known to init only */
    uint64_t tsc_scale;        /* 2^32 ns over a tick of the time stamp counter; 0 = not known */
    uint32_t options;          /* HLSNAP_ABI_OPTION_x */
    uint32_t _reserved;
} hlsnap_abi_identity;

typedef struct hlsnap_abi_program { /* read-only; offsets are bytes from here */
    uint64_t entry, phdr, num_phdr; /* of the ELF file: GVAs; phdr 0 = not loaded */
    uint32_t num_args, num_env;
    uint64_t strings, strings_size; /* args, then env, each with its NUL */
    uint64_t files, files_size;     /* a ustar archive */
    uint64_t stack_size;            /* bytes */
} hlsnap_abi_program;

#ifdef __cplusplus
} /* extern "C" */
extern "C++" { /* local templates, no symbol leaves the object file; C++ also where the whole header is in an extern "C" */
template <size_t hlsnap_n> static inline const hlsnap_value *hlsnap_impl_list(const hlsnap_value (&a)[hlsnap_n]) { return a; }
template <size_t hlsnap_n> char (&hlsnap_impl_size(const hlsnap_value (&a)[hlsnap_n]))[hlsnap_n];
}
#endif
#endif /* HLSNAP_H */

/* ==========================================================================================================================
   >>implementation -- stop reading here if you only want the API
   ========================================================================================================================== */
#ifdef HLSNAP_IMPLEMENTATION
#ifndef HLSNAP_IMPLEMENTATION_ONCE
#define HLSNAP_IMPLEMENTATION_ONCE

/* Below, names that a program may have made macros are written so that no macro is meant: (strchr)(s, c), attributes with
   underscores. glibc 2.43 itself has such macros, which a C99 compiler does not take. */
#include <stdarg.h>
#if defined(HLSNAP_GUEST) && !defined(__x86_64__)
#error "guests are x86-64"
#endif
#if !(defined(__x86_64__) || defined(__aarch64__)) || !defined(__LP64__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "hlsnap runs on x86-64 and little-endian aarch64, 64-bit ABI; the declarations alone may be included anywhere"
#endif
#ifndef HLSNAP_GUEST
#if !defined(__linux__)
#error "hlsnap runs on Linux; the declarations alone may be included anywhere"
#endif
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>
#ifndef MAP_ANONYMOUS
#error "include hlsnap.h before any system header, or compile with -D_GNU_SOURCE or -std=gnu11"
#endif
#if defined(HLSNAP_MALLOC) != defined(HLSNAP_FREE)
#error "define both HLSNAP_MALLOC and HLSNAP_FREE or neither"
#endif
#ifndef HLSNAP_MALLOC
#define HLSNAP_MALLOC(size) malloc(size)
#define HLSNAP_FREE(p) free(p)
#endif
#endif /* HLSNAP_GUEST */
#ifndef HLSNAP_ASSERT
#define HLSNAP_ASSERT(c) ((void)0)
#endif

#define HLSNAP__UNUSED __attribute__((__unused__))
/* What every call of a linked program runs: side by side, since the first touch of a page is a fault in each new VM. Linkers put
   .text.hot together. */
#if defined(HLSNAP_GUEST_LIBC)
#define HLSNAP__EACH_CALL __attribute__((__section__(".text.hot.hlsnap")))
#else
#define HLSNAP__EACH_CALL
#endif
#define HLSNAP__STATIC_ASSERT(name, c) typedef char hlsnap__assert_##name[(c) ? 1 : -1] HLSNAP__UNUSED

#ifdef __cplusplus
extern "C" {
#endif

/* ---- >>structs ---- */

#define HLSNAP__PAGE 4096u
#define HLSNAP__MAX_MEMORY (16ull << 30) /* bytes of the heap; of an image; a whole guest may have twice that */
#define HLSNAP__MAX_PAGES (HLSNAP__MAX_MEMORY / HLSNAP__PAGE * 2)
#define HLSNAP__LARGE_MOST (UINT32_MAX - 65535u) /* bytes of a message, wherever it stands */
#define HLSNAP__PAGES(bytes) (((bytes) + HLSNAP__PAGE - 1) / HLSNAP__PAGE)

HLSNAP__STATIC_ASSERT(mailbox_size, sizeof(hlsnap_abi_mailbox) == 112 && offsetof(hlsnap_abi_mailbox, entry) == 48);
HLSNAP__STATIC_ASSERT(message_size, sizeof(hlsnap_abi_message) == 16 && sizeof(hlsnap_abi_value) == 16);
HLSNAP__STATIC_ASSERT(identity_size,
                      sizeof(hlsnap_abi_identity) == 176 && offsetof(hlsnap_abi_identity, runtime) == 128);
HLSNAP__STATIC_ASSERT(program_size, sizeof(hlsnap_abi_program) == 72);
HLSNAP__STATIC_ASSERT(results, HLSNAP_ERR_CHANGED < HLSNAP_MAX_RESULTS);

typedef struct hlsnap__signature {
    uint8_t result, num_args; /* hlsnap_type */
    uint8_t args[HLSNAP_MAX_ARGS];
} hlsnap__signature;

/* One call in progress, the same object on both sides: arguments in, one encoded message out. */
struct hlsnap_call {
    const hlsnap_value *args;
    const hlsnap__signature *signature;
    uint8_t *out;         /* where the result message is encoded */
    size_t out_size;      /* bytes there */
    uint8_t *box;         /* the same, in the mailbox; out may be larger memory instead, which is allocated */
    size_t box_size, most; /* bytes there; that such memory may have */
    size_t box_reached;    /* bytes there that were written before */
    bool given;           /* in a guest: the host has the result's bytes already */
    size_t used;          /* of the encoded message; 0 = nothing returned yet */
    size_t reached;       /* bytes of out that were ever written: those beyond `used` are of results taken back */
    size_t wanted;        /* bytes of the last result that did not fit; 0 = all did */
    size_t reserved;      /* bytes of out up to the end of what was reserved; 0 = nothing */
    void *user;           /* the invocation's, in a host function */
    void *large;          /* in a host function: the sandbox's buffer for what the mailbox has no room for */
    uint32_t function;    /* number, for the message */
    hlsnap_result failed; /* set by hlsnap_call_fail and misuse */
};

#ifndef HLSNAP_GUEST

/* What a region is decides what the guest may do there, so no file can ask for writable code. */
typedef enum hlsnap__kind {
    HLSNAP__TEXT,
    HLSNAP__RODATA,
    HLSNAP__DATA,
    HLSNAP__TLS,
    HLSNAP__HEAP,
    HLSNAP__STACK,
    HLSNAP__MAILBOX,
    HLSNAP__IDENTITY,
    HLSNAP__NUM_KINDS
} hlsnap__kind;

typedef struct hlsnap__region {
    uint32_t kind;  /* hlsnap__kind */
    uint64_t gva;   /* page-aligned */
    uint64_t pages; /* > 0 */
} hlsnap__region;

#define HLSNAP__MAX_REGIONS 32
/* Guest memory is one window of guest virtual addresses; page p of the guest is base + p * 4096. Pages of the window
   that no region covers are guards: they are never mapped, stored or touched. */
typedef struct hlsnap__layout {
    uint64_t base;  /* GVA, multiple of 2 MiB */
    uint64_t pages; /* of the window */
    uint32_t num_regions;
    hlsnap__region regions[HLSNAP__MAX_REGIONS]; /* ascending, disjoint */
} hlsnap__layout;

typedef struct hlsnap__decl { /* a function of the contract */
    hlsnap__signature signature;
    char name[HLSNAP_MAX_NAME + 1];
    char text[8 + HLSNAP_MAX_ARGS * 6]; /* the signature, canonical */
} hlsnap__decl;

typedef struct hlsnap__contract {
    hlsnap__decl *exports, *imports;
    uint32_t num_exports, num_imports;
} hlsnap__contract;

/* Everything about a guest that no call changes; shared by its snapshots and sandboxes. */
typedef struct hlsnap__guest {
    int32_t refs;     /* atomic */
    bool initialized; /* init has run: the contract is known, and a snapshot can be saved */
    bool noted;       /* its ELF has the note that the C runtime leaves */
    hlsnap__layout layout;
    hlsnap__contract contract;
    uint64_t entry;                   /* GVA in a text region where every VM entry starts */
    uint64_t syscall;                 /* GVA in a text region where SYSCALL leads, at CPL 3; 0 = SYSCALL is a fault */
    uint64_t program, program_size;   /* GVA, bytes of an hlsnap_abi_program and what it leads to; 0 = none */
    uint64_t module;                  /* GVA of a self guest's hlsnap_module, else 0 */
    uint64_t tls_size;                /* bytes of the TLS block, ending at the identity page */
    uint64_t elf_entry, load_address; /* for debuggers: e_entry as in the file, and what was added to its addresses */
    uint64_t features;                /* HLSNAP__CPU_x bits the guest may have come to rely on */
    uint32_t cpu;                     /* hlsnap_cpu: what it is shown, at every start */
    bool learn;                       /* hlsnap_prefault */
    char cpu_vendor[13], hypervisor[32]; /* where init ran, for people: hlsnap__machine_name_ok */
    uint64_t id;                         /* upper 48 bits of every handle; derived from the identity and the contract */
    char name[64], build_id[48];
    char *unresolved; /* names of functions a self guest lacks, each with its NUL, in slot order; or NULL */
    uint32_t num_unresolved;
} hlsnap__guest;

/* Layer pages [page, page + pages) are blob pages [at, ...). */
typedef struct hlsnap__place_run {
    uint32_t page, pages, at;
} hlsnap__place_run;

/* Where pages of a layer lie on disk, so that the next save need not write them again. Immutable. */
typedef struct hlsnap__place {
    int32_t refs;                /* atomic */
    char memory[72], chunks[72]; /* digests of the blob and of its chunk list */
    uint64_t pages;              /* of the blob */
    uint64_t dev, ino, ctime_s,
        ctime_ns; /* the file that was found to have that digest; 0 = none was hashed whole yet */
    uint64_t list_dev, list_ino, list_ctime_s,
        list_ctime_ns; /* the file whose chunks, all of them, were found to be those of the list; 0 = none */
    uint32_t num;
    hlsnap__place_run *runs; /* ascending by page, disjoint; in the same allocation */
} hlsnap__place;

/* Somebody who knows whether layers are still what they were loaded as: hlsnap_oci.h, for files that may change and for
   content that is verified while the guest runs already. */
typedef struct hlsnap__watch {
    int32_t refs; /* atomic */
    /* an error once is an error for ever; waits so long for the verification to end, UINT64_MAX = until it does; *pending:
       it has not, and nothing is known against the layers by now */
    hlsnap_result (*check)(struct hlsnap__watch *w, uint64_t wait_ns, bool *pending, hlsnap_error *err);
    void (*destroy)(struct hlsnap__watch *w);
} hlsnap__watch;

/* Where others find a layer who want the same pages: hlsnap_oci.h's cache. gone is called when nobody has the layer any more;
   false: it may still be looked at, so that its struct stays. */
typedef struct hlsnap__shelf {
    bool (*gone)(struct hlsnap__shelf *shelf);
} hlsnap__shelf;

/* A blob of guest pages. */
#define HLSNAP__NUM_PLACES 2 /* the last one and the one before: one snapshot saved into two layouts in turn */
typedef struct hlsnap__layer {
    int32_t refs; /* atomic */
    int fd;       /* sealed memfd, or a file of a layout; owned; -1 = a small layer in this process's own memory */
    bool sealed;  /* nobody can change it, so map may be dereferenced */
    bool image;   /* made for a guest's image: a sandbox has so many pages of these at most */
    uint64_t pages;
    uint32_t missing;    /* bytes of the last page that the file does not have: they are zero */
    const uint8_t *map;  /* all pages, read-only, when sealed; else NULL: read with pread */
    int32_t places_lock; /* atomic: 1 = somebody looks at or changes the places; 2 = for so long that nobody waits */
    hlsnap__place *places[HLSNAP__NUM_PLACES]; /* newest first; NULL = none */
    hlsnap__watch *watch;                      /* retained; NULL = nothing to watch */
    hlsnap__shelf *shelf;                      /* NULL = nobody else finds it */
} hlsnap__layer;

typedef struct hlsnap__extent { /* guest pages [page, page + pages) are layer pages [layer_page, ...) of a layer */
    uint32_t page, pages, layer, layer_page;
} hlsnap__extent;

/* Neighbouring short extents once more, as runs that are worth mapping: what is copied is compared at every reset. */
typedef struct hlsnap__flat {
    struct hlsnap__layer *layer; /* sealed; NULL = there are none */
    uint32_t num;
    struct hlsnap__extent *runs; /* ascending; of `layer` */
} hlsnap__flat;

/* Pages that the first calls of some sandbox wrote: ascending runs of pages of the window that the guest can write. A hint: what
   it names is made private earlier than it would be, and nothing else. */
typedef struct hlsnap__learned_run {
    uint32_t page, pages;
} hlsnap__learned_run;
typedef struct hlsnap__learned {
    uint32_t num, pages;
    hlsnap__learned_run *runs; /* in the same allocation */
} hlsnap__learned;

/* A map, as a snapshot says of it: memory that has a name and no region. */
typedef struct hlsnap__map {
    char name[HLSNAP_MAX_NAME + 1];
    char digest[72]; /* "" = none */
    uint32_t mode;   /* hlsnap_map_mode */
    bool capture, optional;
    uint64_t gva, size;   /* bytes */
    hlsnap__layer *layer; /* of a snapshot's captured one: what it showed at first; NULL = none has that any more */
} hlsnap__map;

#define HLSNAP__MAX_LAYERS 128
struct hlsnap_snapshot {
    int32_t refs; /* atomic */
    hlsnap__guest *guest;
    uint64_t generation;
    uint32_t guard; /* hlsnap_oci_guard in force */
    uint32_t num_layers;
    hlsnap__layer **layers;
    uint32_t num_extents;
    uint32_t map_run;        /* extents from this length on are mapped, shorter ones copied */
    hlsnap__flat *flat;      /* atomic: made when the snapshot is first mapped; NULL before */
    hlsnap__flat
        *settled; /* atomic: of what the first mapping copies, when a sandbox stays for many restores; NULL before */
    hlsnap__learned *learned; /* atomic: set once, by the first sandbox that knows; NULL before */
    hlsnap__extent *extents; /* ascending, disjoint, inside regions that are stored, and maps */
    uint32_t num_maps;
    hlsnap__map *maps; /* ascending by address; their layers are among those above */
};
#endif /* HLSNAP_GUEST */

/* Drops const for the few places where an interface lacks it (munmap, a call that records its misuse). */
HLSNAP__UNUSED static void *hlsnap__unconst(const void *p) { return (void *)(uintptr_t)p; }

/* ---- >>errors ---- */

HLSNAP_API const char *hlsnap_result_name(hlsnap_result code) {
    switch ((int)code) {
#define HLSNAP__RESULT(name, number, text) \
    case number: return "HLSNAP_" #name;
        HLSNAP_RESULTS(HLSNAP__RESULT)
#undef HLSNAP__RESULT
    default: return "HLSNAP_ERR_?";
    }
}

HLSNAP_API const char *hlsnap_result_text(hlsnap_result code) {
    switch ((int)code) {
#define HLSNAP__RESULT(name, number, text) \
    case number: return text;
        HLSNAP_RESULTS(HLSNAP__RESULT)
#undef HLSNAP__RESULT
    default: return "unknown result";
    }
}

HLSNAP_API uint32_t hlsnap_version(void) { return HLSNAP_VERSION; }

static int hlsnap__rt_vformat(char *to, size_t cap, const char *fmt, va_list ap);

HLSNAP__UNUSED __attribute__((__format__(__printf__, 3, 4))) static int hlsnap__format(char *to, size_t cap,
                                                                                       const char *fmt, ...) {
    va_list ap;
    int n;
    va_start(ap, fmt);
    n = hlsnap__rt_vformat(to, cap, fmt, ap);
    va_end(ap);
    return n;
}

/* The length of s, which has n bytes, without a UTF-8 character that begins in it and does not end. */
HLSNAP__UNUSED static size_t hlsnap__utf8_whole(const char *s, size_t n) {
    size_t k;
    for (k = 1; k <= 3 && k <= n; k++) {
        const unsigned char c = (unsigned char)s[n - k];
        if ((c & 0xc0) != 0x80) return c >= 0xc0 && (c >= 0xf0 ? 4u : c >= 0xe0 ? 3u : 2u) > k ? n - k : n;
    }
    return n;
}

/* Fills *err (NULL is fine) and returns code, so that a failing path is one line. os_errno is 0 or errno as it was. The
   text must be printable: guest and file text goes through hlsnap__readable or hlsnap__printable first. */
HLSNAP__UNUSED __attribute__((__format__(__printf__, 4, 5))) static hlsnap_result hlsnap__fail(hlsnap_error *err,
                                                                                               hlsnap_result code,
                                                                                               int os_errno,
                                                                                               const char *fmt, ...) {
    if (err) {
        static const hlsnap_error none = HLSNAP_ZERO;
        va_list ap;
        *err = none;
        err->code = code;
        err->os_errno = (int32_t)os_errno;
        va_start(ap, fmt);
        if (hlsnap__rt_vformat(err->msg, sizeof(err->msg), fmt, ap) >= (int)sizeof(err->msg))
            err->msg[hlsnap__utf8_whole(err->msg, sizeof(err->msg) - 1)] = 0;
        va_end(ap);
    }
    return code;
}

/* ---- >>values, their messages, signatures: the same code on both sides ---- */

HLSNAP__STATIC_ASSERT(offsets, offsetof(hlsnap_abi_message, num_values) == 12 && offsetof(hlsnap_abi_value, bits) == 8);
HLSNAP__STATIC_ASSERT(unit, sizeof(float) == 4 && sizeof(double) == 8 && sizeof(size_t) == 8);

static size_t hlsnap__rt_strlen(const char *s);
static void *hlsnap__rt_memcpy(void *to, const void *from, size_t n);
static void *hlsnap__rt_memset(void *to, int c, size_t n);
static void *hlsnap__rt_memchr(const void *s, int c, size_t n);
static int hlsnap__rt_memcmp(const void *a, const void *b, size_t n);

static hlsnap_value hlsnap__value(hlsnap_type type) {
    hlsnap_value v;
    v.type = type;
    v.str = NULL;
    v.bytes = NULL;
    v.size = 0;
    v.as.u64 = 0;
    return v;
}

HLSNAP_API hlsnap_value hlsnap_bool(bool x) {
    hlsnap_value v = hlsnap__value(HLSNAP_BOOL);
    v.as.b = x;
    return v;
}

HLSNAP_API hlsnap_value hlsnap_i32(int32_t x) {
    hlsnap_value v = hlsnap__value(HLSNAP_I32);
    v.as.i32 = x;
    return v;
}

HLSNAP_API hlsnap_value hlsnap_u32(uint32_t x) {
    hlsnap_value v = hlsnap__value(HLSNAP_U32);
    v.as.u32 = x;
    return v;
}

HLSNAP_API hlsnap_value hlsnap_i64(int64_t x) {
    hlsnap_value v = hlsnap__value(HLSNAP_I64);
    v.as.i64 = x;
    return v;
}

HLSNAP_API hlsnap_value hlsnap_u64(uint64_t x) {
    hlsnap_value v = hlsnap__value(HLSNAP_U64);
    v.as.u64 = x;
    return v;
}

HLSNAP_API hlsnap_value hlsnap_f32(float x) {
    hlsnap_value v = hlsnap__value(HLSNAP_F32);
    v.as.f32 = x;
    return v;
}

HLSNAP_API hlsnap_value hlsnap_f64(double x) {
    hlsnap_value v = hlsnap__value(HLSNAP_F64);
    v.as.f64 = x;
    return v;
}

HLSNAP_API hlsnap_value hlsnap_str(const char *s) {
    hlsnap_value v = hlsnap__value(HLSNAP_STR);
    v.str = s ? s : "";
    v.size = hlsnap__rt_strlen(v.str);
    return v;
}

HLSNAP_API hlsnap_value hlsnap_bytes(const void *p, size_t size) {
    hlsnap_value v = hlsnap__value(HLSNAP_BYTES);
    v.bytes = size ? (const uint8_t *)p : (const uint8_t *)"";
    v.size = size;
    return v;
}

static const char *hlsnap__type_name(uint32_t type) {
    static const char *const names[] = {"void", "bool", "i32", "u32", "i64", "u64", "f32", "f64", "str", "bytes"};
    return type < sizeof(names) / sizeof(names[0]) ? names[type] : "?";
}

/* Reads one type name at *at and moves past it; HLSNAP_TYPE_FORCE32 when there is none. */
static uint32_t hlsnap__type_parse(const char *s, size_t size, size_t *at) {
    uint32_t t;
    for (t = 0; t <= HLSNAP_BYTES; t++) {
        size_t n = hlsnap__rt_strlen(hlsnap__type_name(t));
        if (n > size - *at || hlsnap__rt_memcmp(s + *at, hlsnap__type_name(t), n) != 0) continue;
        *at += n;
        return t;
    }
    return HLSNAP_TYPE_FORCE32;
}

/* "i32(i32,str)", without blanks. */
static bool hlsnap__signature_parse(hlsnap__signature *sig, const char *s, size_t size) {
    size_t at = 0;
    uint32_t t = hlsnap__type_parse(s, size, &at);
    hlsnap__rt_memset(sig, 0, sizeof(*sig));
    if (t > HLSNAP_BYTES || at >= size || s[at++] != '(') return false;
    sig->result = (uint8_t)t;
    if (at + 1 == size && s[at] == ')') return true;
    for (;;) {
        t = hlsnap__type_parse(s, size, &at);
        if (t == HLSNAP_VOID || t > HLSNAP_BYTES || at >= size || sig->num_args == HLSNAP_MAX_ARGS) return false;
        sig->args[sig->num_args++] = (uint8_t)t;
        if (s[at] == ')') return at + 1 == size;
        if (s[at++] != ',') return false;
    }
}

HLSNAP__UNUSED static void hlsnap__signature_format(const hlsnap__signature *sig, char *to, size_t cap) {
    size_t i, n = (size_t)hlsnap__format(to, cap, "%s(", hlsnap__type_name(sig->result));
    for (i = 0; i < sig->num_args && n < cap; i++)
        n += (size_t)hlsnap__format(to + n, cap - n, i ? ",%s" : "%s", hlsnap__type_name(sig->args[i]));
    if (n < cap) hlsnap__format(to + n, cap - n, ")");
}

/* The values match the argument types; fills err with the first that does not. */
static hlsnap_result hlsnap__args_check(const hlsnap__signature *sig, const char *name, const hlsnap_value *args,
                                        size_t num, hlsnap_error *err) {
    size_t i;
    if (num && !args) return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "%s: %zu arguments at NULL", name, num);
    if (num != sig->num_args)
        return hlsnap__fail(err, HLSNAP_ERR_SIGNATURE, 0, "%s takes %d arguments, not %zu", name, sig->num_args, num);
    for (i = 0; i < num; i++) {
        const hlsnap_value *v = &args[i];
        if ((uint32_t)v->type != sig->args[i])
            return hlsnap__fail(err, HLSNAP_ERR_SIGNATURE, 0, "argument %zu of %s is %s, not %s", i, name,
                                hlsnap__type_name(sig->args[i]), hlsnap__type_name((uint32_t)v->type));
        if (v->size > HLSNAP__LARGE_MOST)
            return hlsnap__fail(err, HLSNAP_ERR_LIMIT, 0, "argument %zu of %s has %zu bytes", i, name, v->size);
        if ((v->type == HLSNAP_STR && (!v->str || hlsnap__rt_memchr(v->str, 0, v->size))) ||
            (v->type == HLSNAP_BYTES && !v->bytes && v->size))
            return hlsnap__fail(err, HLSNAP_ERR_SIGNATURE, 0, "argument %zu of %s is NULL or has a NUL inside", i,
                                name);
    }
    return HLSNAP_OK;
}

/* No switch here and below: its table would be one more page that each call reads. */
static bool hlsnap__type_is_32(uint32_t type) { return type == HLSNAP_I32 || type == HLSNAP_U32 || type == HLSNAP_F32; }
static bool hlsnap__type_is_64(uint32_t type) { return type == HLSNAP_I64 || type == HLSNAP_U64 || type == HLSNAP_F64; }

static uint64_t hlsnap__value_bits(const hlsnap_value *v) {
    if (hlsnap__type_is_32((uint32_t)v->type)) return v->as.u32;
    if (hlsnap__type_is_64((uint32_t)v->type)) return v->as.u64;
    return v->type == HLSNAP_BOOL && v->as.b;
}

static size_t hlsnap__round8(size_t n) { return (n + 7) & ~(size_t)7; }

/* Bytes a message of these values takes; sizes were checked, so the sum cannot overflow. */
static size_t hlsnap__message_size(const hlsnap_value *v, size_t num) {
    size_t i, n = sizeof(hlsnap_abi_message) + num * sizeof(hlsnap_abi_value);
    for (i = 0; i < num; i++)
        if (v[i].type == HLSNAP_STR || v[i].type == HLSNAP_BYTES)
            n += hlsnap__round8(v[i].size + (v[i].type == HLSNAP_STR));
    return n;
}

/* Encodes at `to` (8-byte aligned); 0 when it takes more than cap. Values may point into `to` - 1 and below, never into
   the message itself: inputs and outputs live in different halves of the mailbox. */
static HLSNAP__EACH_CALL size_t hlsnap__message_write(uint8_t *to, size_t cap, uint32_t function, uint32_t status,
                                                      const hlsnap_value *v, size_t num) {
    hlsnap_abi_message head;
    size_t i, size = hlsnap__message_size(v, num), at = sizeof(head) + num * sizeof(hlsnap_abi_value);
    if (size > cap || size > UINT32_MAX) return 0;
    head.size = (uint32_t)size;
    head.function = function;
    head.status = status;
    head.num_values = (uint32_t)num;
    hlsnap__rt_memcpy(to, &head, sizeof(head));
    for (i = 0; i < num; i++) {
        hlsnap_abi_value row;
        row.type = (uint32_t)v[i].type;
        row.size = 0;
        row.bits = hlsnap__value_bits(&v[i]);
        if (v[i].type == HLSNAP_STR || v[i].type == HLSNAP_BYTES) {
            size_t n = v[i].size, padded = hlsnap__round8(n + (v[i].type == HLSNAP_STR));
            const void *from = v[i].type == HLSNAP_STR ? (const void *)v[i].str : (const void *)v[i].bytes;
            row.size = (uint32_t)n;
            row.bits = at;
            if (n) hlsnap__rt_memcpy(to + at, from, n);
            hlsnap__rt_memset(to + at + n, 0, padded - n);
            at += padded;
        }
        hlsnap__rt_memcpy(to + sizeof(head) + i * sizeof(row), &row, sizeof(row));
    }
    return size;
}

/* One value of a message whose bytes nobody else can change any more. false: malformed. */
static HLSNAP__EACH_CALL bool hlsnap__value_read(const uint8_t *message, size_t size, const hlsnap_abi_value *row,
                                                 hlsnap_value *out) {
    *out = hlsnap__value((hlsnap_type)row->type);
    if (row->type == HLSNAP_STR || row->type == HLSNAP_BYTES) {
        size_t n = (size_t)row->size + (row->type == HLSNAP_STR);
        if (row->bits % 8 || row->bits > size || n > size - row->bits) return false;
        out->size = row->size;
        if (row->type == HLSNAP_BYTES) {
            out->bytes = message + row->bits;
            return true;
        }
        out->str = (const char *)message + row->bits;
        return out->str[row->size] == 0 && !hlsnap__rt_memchr(out->str, 0, row->size);
    }
    if (row->size) return false;
    if (hlsnap__type_is_64(row->type)) {
        out->as.u64 = row->bits;
        return true;
    }
    if (hlsnap__type_is_32(row->type)) {
        out->as.u32 = (uint32_t)row->bits;
        return row->bits >> 32 == 0;
    }
    out->as.b = row->bits != 0;
    return row->type == HLSNAP_BOOL && row->bits <= 1;
}

/* Decodes the values of a message that lies in `size` bytes at `message` (8-byte aligned); false: malformed, or not num
   values. The values point into the message. */
static HLSNAP__EACH_CALL bool hlsnap__message_read(const uint8_t *message, size_t size, hlsnap_abi_message *head,
                                                   hlsnap_value *out, size_t max_values) {
    hlsnap_abi_value row;
    size_t i;
    if (size < sizeof(*head)) return false;
    hlsnap__rt_memcpy(head, message, sizeof(*head));
    if (head->size > size || head->size % 8 || head->size < sizeof(*head) || head->num_values > max_values ||
        head->num_values > (head->size - sizeof(*head)) / sizeof(row))
        return false;
    for (i = 0; i < head->num_values; i++) {
        hlsnap__rt_memcpy(&row, message + sizeof(*head) + i * sizeof(row), sizeof(row));
        if (!hlsnap__value_read(message, head->size, &row, &out[i])) return false;
    }
    return true;
}

/* ---- >>syscalls: their names, for messages; the same code on both sides ---- */

#if !defined(HLSNAP_GUEST) || defined(HLSNAP_GUEST_LIBC)
static const char *hlsnap__syscall_name(uint64_t number) {
    // clang-format off
    static const char low[] = /* from 0 on, one string: tables of pointers take relocations */
    "read\0write\0open\0close\0stat\0fstat\0lstat\0poll\0lseek\0mmap\0mprotect\0munmap\0brk\0rt_sigaction\0rt_sigprocmask\0"
    "rt_sigreturn\0ioctl\0pread64\0pwrite64\0readv\0writev\0access\0pipe\0select\0sched_yield\0mremap\0msync\0mincore\0"
    "madvise\0shmget\0shmat\0shmctl\0dup\0dup2\0pause\0nanosleep\0getitimer\0alarm\0setitimer\0getpid\0sendfile\0socket\0"
    "connect\0accept\0sendto\0recvfrom\0sendmsg\0recvmsg\0shutdown\0bind\0listen\0getsockname\0getpeername\0socketpair\0"
    "setsockopt\0getsockopt\0clone\0fork\0vfork\0execve\0exit\0wait4\0kill\0uname\0semget\0semop\0semctl\0shmdt\0msgget\0"
    "msgsnd\0msgrcv\0msgctl\0fcntl\0flock\0fsync\0fdatasync\0truncate\0ftruncate\0getdents\0getcwd\0chdir\0fchdir\0rename\0"
    "mkdir\0rmdir\0creat\0link\0unlink\0symlink\0readlink\0chmod\0fchmod\0chown\0fchown\0lchown\0umask\0gettimeofday\0"
    "getrlimit\0getrusage\0sysinfo\0times\0ptrace\0getuid\0syslog\0getgid\0setuid\0setgid\0geteuid\0getegid\0setpgid\0"
    "getppid\0getpgrp\0setsid\0setreuid\0setregid\0getgroups\0setgroups\0setresuid\0getresuid\0setresgid\0getresgid\0"
    "getpgid\0setfsuid\0setfsgid\0getsid\0capget\0capset\0rt_sigpending\0rt_sigtimedwait\0rt_sigqueueinfo\0rt_sigsuspend\0"
    "sigaltstack\0utime\0mknod\0uselib\0personality\0ustat\0statfs\0fstatfs\0sysfs\0getpriority\0setpriority\0"
    "sched_setparam\0sched_getparam\0sched_setscheduler\0sched_getscheduler\0sched_get_priority_max\0"
    "sched_get_priority_min\0sched_rr_get_interval\0mlock\0munlock\0mlockall\0munlockall\0vhangup\0modify_ldt\0pivot_root\0"
    "_sysctl\0prctl\0arch_prctl\0adjtimex\0setrlimit\0chroot\0sync\0acct\0settimeofday\0mount\0umount2\0swapon\0swapoff\0"
    "reboot\0sethostname\0setdomainname\0iopl\0ioperm\0create_module\0init_module\0delete_module\0get_kernel_syms\0"
    "query_module\0quotactl\0nfsservctl\0getpmsg\0putpmsg\0afs_syscall\0tuxcall\0security\0gettid\0readahead\0setxattr\0"
    "lsetxattr\0fsetxattr\0getxattr\0lgetxattr\0fgetxattr\0listxattr\0llistxattr\0flistxattr\0removexattr\0lremovexattr\0"
    "fremovexattr\0tkill\0time\0futex\0sched_setaffinity\0sched_getaffinity\0set_thread_area\0io_setup\0io_destroy\0"
    "io_getevents\0io_submit\0io_cancel\0get_thread_area\0lookup_dcookie\0epoll_create\0epoll_ctl_old\0epoll_wait_old\0"
    "remap_file_pages\0getdents64\0set_tid_address\0restart_syscall\0semtimedop\0fadvise64\0timer_create\0timer_settime\0"
    "timer_gettime\0timer_getoverrun\0timer_delete\0clock_settime\0clock_gettime\0clock_getres\0clock_nanosleep\0"
    "exit_group\0epoll_wait\0epoll_ctl\0tgkill\0utimes\0vserver\0mbind\0set_mempolicy\0get_mempolicy\0mq_open\0mq_unlink\0"
    "mq_timedsend\0mq_timedreceive\0mq_notify\0mq_getsetattr\0kexec_load\0waitid\0add_key\0request_key\0keyctl\0ioprio_set\0"
    "ioprio_get\0inotify_init\0inotify_add_watch\0inotify_rm_watch\0migrate_pages\0openat\0mkdirat\0mknodat\0fchownat\0"
    "futimesat\0newfstatat\0unlinkat\0renameat\0linkat\0symlinkat\0readlinkat\0fchmodat\0faccessat\0pselect6\0ppoll\0"
    "unshare\0set_robust_list\0get_robust_list\0splice\0tee\0sync_file_range\0vmsplice\0move_pages\0utimensat\0epoll_pwait\0"
    "signalfd\0timerfd_create\0eventfd\0fallocate\0timerfd_settime\0timerfd_gettime\0accept4\0signalfd4\0eventfd2\0"
    "epoll_create1\0dup3\0pipe2\0inotify_init1\0preadv\0pwritev\0rt_tgsigqueueinfo\0perf_event_open\0recvmmsg\0"
    "fanotify_init\0fanotify_mark\0prlimit64\0name_to_handle_at\0open_by_handle_at\0clock_adjtime\0syncfs\0sendmmsg\0setns\0"
    "getcpu\0process_vm_readv\0process_vm_writev\0kcmp\0finit_module\0sched_setattr\0sched_getattr\0renameat2\0seccomp\0"
    "getrandom\0memfd_create\0kexec_file_load\0bpf\0execveat\0userfaultfd\0membarrier\0mlock2\0copy_file_range\0preadv2\0"
    "pwritev2\0pkey_mprotect\0pkey_alloc\0pkey_free\0statx\0io_pgetevents\0rseq\0";
    static const char high[] = /* from 424 on */
    "pidfd_send_signal\0io_uring_setup\0io_uring_enter\0io_uring_register\0open_tree\0move_mount\0fsopen\0fsconfig\0"
    "fsmount\0fspick\0pidfd_open\0clone3\0close_range\0openat2\0pidfd_getfd\0faccessat2\0process_madvise\0epoll_pwait2\0"
    "mount_setattr\0quotactl_fd\0landlock_create_ruleset\0landlock_add_rule\0landlock_restrict_self\0memfd_secret\0"
    "process_mrelease\0futex_waitv\0set_mempolicy_home_node\0cachestat\0fchmodat2\0map_shadow_stack\0futex_wake\0"
    "futex_wait\0futex_requeue\0statmount\0listmount\0lsm_get_self_attr\0lsm_set_self_attr\0lsm_list_modules\0mseal\0"
    "setxattrat\0getxattrat\0listxattrat\0removexattrat\0open_tree_attr\0file_getattr\0file_setattr\0";
    // clang-format on
    const bool is_high = number >= 424;
    const char *s = is_high ? high : low, *end = is_high ? high + sizeof(high) - 1 : low + sizeof(low) - 1;
    uint64_t left = is_high ? number - 424 : number;
    for (; s < end && left; left--) {
        while (*s) s++;
        s++;
    }
    return s < end ? s : "?";
}
#endif

/* ---- >>calls: the object a function gets ---- */

HLSNAP__EACH_CALL HLSNAP_API hlsnap_value hlsnap_call_arg(const hlsnap_call *call, size_t i) {
    if (i < call->signature->num_args) return call->args[i];
    ((hlsnap_call *)hlsnap__unconst(call))->failed = HLSNAP_ERR_SIGNATURE;
    return hlsnap__value(HLSNAP_VOID);
}

/* `used` bytes of message stand in out now. */
static HLSNAP__EACH_CALL void hlsnap__call_used(hlsnap_call *call, size_t used) {
    call->used = used;
    if (used > call->reached) call->reached = used;
}

#define HLSNAP__REFER_FROM 17u /* bytes; smaller ones are not worth a reference */

static bool hlsnap__value_refers(const hlsnap_value *v) {
    return (v->type == HLSNAP_STR || v->type == HLSNAP_BYTES) && v->size >= HLSNAP__REFER_FROM;
}

/* The same message with references to what is large in place of it: a guest's. 0: not even that fits. */
static size_t hlsnap__message_refer(uint8_t *to, size_t cap, uint32_t function, const hlsnap_value *v, size_t num) {
    hlsnap_value small[HLSNAP_MAX_ARGS];
    hlsnap_abi_reference where[HLSNAP_MAX_ARGS];
    size_t i, size;
    if (num > HLSNAP_MAX_ARGS) return 0;
    small[0] = hlsnap_i32(0);
    for (i = 0; i < num; i++) {
        small[i] = v[i];
        if (!hlsnap__value_refers(&v[i])) continue;
        where[i].gva = (uint64_t)(uintptr_t)(v[i].type == HLSNAP_STR ? (const void *)v[i].str : (const void *)v[i].bytes);
        where[i].size = v[i].size;
        small[i] = hlsnap_bytes(&where[i], sizeof(where[i]));
    }
    size = hlsnap__message_write(to, cap, function, HLSNAP_ABI_STATUS_OK, small, num);
    for (i = 0; size && i < num; i++) {
        uint8_t *at = to + sizeof(hlsnap_abi_message) + i * sizeof(hlsnap_abi_value);
        hlsnap_abi_value row;
        hlsnap__rt_memcpy(&row, at, sizeof(row));
        row.type = (uint32_t)v[i].type | HLSNAP_ABI_REFERENCE;
        row.size = 0;
        if (hlsnap__value_refers(&v[i])) hlsnap__rt_memcpy(at, &row, sizeof(row));
    }
    return size;
}

static void *hlsnap__call_alloc(const hlsnap_call *call, size_t size);
static void hlsnap__call_free(void *p);
static bool hlsnap__rt_give(const hlsnap_value *v);

/* Back to the mailbox. */
static void hlsnap__call_shrink(hlsnap_call *call) {
    if (call->out == call->box) return;
    hlsnap__call_free(call->out);
    call->out = call->box;
    call->out_size = call->box_size;
    call->used = 0;
    call->reached = call->box_reached;
}

/* Whether a message of n bytes fits, in memory of its own if need be. */
static bool hlsnap__call_room(hlsnap_call *call, size_t n) {
    uint8_t *p;
    if (n <= call->out_size) return true;
    p = n <= call->most ? (uint8_t *)hlsnap__call_alloc(call, n) : NULL;
    if (!p) return false;
    if (call->out == call->box) {
        hlsnap__rt_memset(call->box, 0, call->reached); /* nothing of what was taken back stays */
        call->box_reached = call->reached;
    }
    hlsnap__call_shrink(call);
    call->out = p;
    call->out_size = n;
    call->used = call->reached = 0;
    return true;
}

/* The message of a result that the host has already: its bytes are referred to, not there. */
static size_t hlsnap__call_refer(uint8_t *to, const hlsnap_call *call, uint64_t gva, uint64_t size) {
    hlsnap_abi_message head;
    hlsnap_abi_value row;
    hlsnap_abi_reference where;
    head.size = sizeof(head) + sizeof(row) + sizeof(where);
    head.function = call->function;
    head.status = HLSNAP_ABI_STATUS_OK;
    head.num_values = 1;
    row.type = call->signature->result | HLSNAP_ABI_REFERENCE;
    row.size = 0;
    row.bits = sizeof(head) + sizeof(row);
    where.gva = gva;
    where.size = size;
    hlsnap__rt_memcpy(to, &head, sizeof(head));
    hlsnap__rt_memcpy(to + sizeof(head), &row, sizeof(row));
    hlsnap__rt_memcpy(to + sizeof(head) + sizeof(row), &where, sizeof(where));
    return head.size;
}

/* Another result than the last one: where that was too large, less may do. */
static void hlsnap__call_again(hlsnap_call *call) {
    if (call->failed == HLSNAP_ERR_LIMIT) call->failed = HLSNAP_OK;
}

HLSNAP__EACH_CALL HLSNAP_API hlsnap_result hlsnap_call_return(hlsnap_call *call, hlsnap_value v) {
    size_t num = v.type != HLSNAP_VOID, need;
    hlsnap__call_again(call);
    if ((uint32_t)v.type != call->signature->result ||
        (v.type == HLSNAP_STR && (!v.str || hlsnap__rt_memchr(v.str, 0, v.size))) ||
        (v.type == HLSNAP_BYTES && !v.bytes && v.size))
        return call->failed = HLSNAP_ERR_SIGNATURE;
    need = v.size <= HLSNAP__LARGE_MOST ? hlsnap__message_size(&v, num) : v.size;
    call->given = false;
    call->used = 0;
    if (need > call->out_size && need <= call->most && hlsnap__rt_give(&v)) {
        call->given = true;
        hlsnap__call_shrink(call);
        hlsnap__call_used(call, hlsnap__call_refer(call->out, call, 0, v.size));
    } else if (hlsnap__call_room(call, need))
        hlsnap__call_used(call, hlsnap__message_write(call->out, call->out_size, call->function, HLSNAP_ABI_STATUS_OK,
                                                      &v, num));
    if (call->used) return call->failed;
    call->wanted = need;
    return call->failed = HLSNAP_ERR_LIMIT;
}

/* Replaces what the call returned by a failure; text is cut until it fits. */
static void hlsnap__call_refuse(hlsnap_call *call, uint32_t status, int32_t code, const char *text, size_t size) {
    hlsnap_value v[2];
    v[0] = hlsnap_i32(code);
    v[1] = hlsnap_str("");
    v[1].str = text;
    hlsnap__call_shrink(call);
    v[1].size =
        size < sizeof(((hlsnap_error *)0)->msg) ? size : hlsnap__utf8_whole(text, sizeof(((hlsnap_error *)0)->msg) - 1);
    hlsnap__call_used(call, hlsnap__message_write(call->out, call->out_size, call->function, status, v, 2));
    if (call->used) return;
    v[1].size = 0;
    hlsnap__call_used(call, hlsnap__message_write(call->out, call->out_size, call->function, status, v, 2));
}

HLSNAP_API hlsnap_result hlsnap_call_fail(hlsnap_call *call, int32_t user_code, const char *text) {
    hlsnap__call_refuse(call, HLSNAP_ABI_STATUS_FAILED, user_code, text ? text : "",
                        text ? hlsnap__rt_strlen(text) : 0);
    return call->failed = HLSNAP_ERR_FUNCTION;
}

#define HLSNAP__RESULT_AT \
    (sizeof(hlsnap_abi_message) + sizeof(hlsnap_abi_value)) /* a str's or bytes' first byte in its message */

/* Whether a str or bytes result of n bytes fits, or room for it can be made. */
static bool hlsnap__call_fits(hlsnap_call *call, size_t n) {
    const size_t most = HLSNAP__LARGE_MOST;
    call->given = false;
    call->wanted = n > most ? n : HLSNAP__RESULT_AT + hlsnap__round8(n + (call->signature->result == HLSNAP_STR));
    return n <= most && hlsnap__call_room(call, call->wanted);
}

/* Makes a message of n bytes that stand in its place already, and fit. */
static hlsnap_result hlsnap__call_finish(hlsnap_call *call, size_t n) {
    uint8_t *at = call->out + HLSNAP__RESULT_AT;
    const bool is_str = call->signature->result == HLSNAP_STR;
    hlsnap_abi_message message;
    hlsnap_abi_value row;
    if (is_str && hlsnap__rt_memchr(at, 0, n)) return call->failed = HLSNAP_ERR_SIGNATURE;
    message.size = (uint32_t)(HLSNAP__RESULT_AT + hlsnap__round8(n + is_str));
    message.function = call->function;
    message.status = HLSNAP_ABI_STATUS_OK;
    message.num_values = 1;
    row.type = call->signature->result;
    row.size = (uint32_t)n;
    row.bits = HLSNAP__RESULT_AT;
    hlsnap__rt_memset(at + n, 0, message.size - HLSNAP__RESULT_AT - n);
    hlsnap__rt_memcpy(call->out, &message, sizeof(message));
    hlsnap__rt_memcpy(call->out + sizeof(message), &row, sizeof(row));
    hlsnap__call_used(call, message.size);
    call->wanted = 0;
    return call->failed;
}

HLSNAP_API hlsnap_result hlsnap_call_return_fmt(hlsnap_call *call, const char *fmt, ...) {
    va_list ap;
    int n;
    const uint8_t *at = call->out;
    hlsnap__call_again(call);
    if (call->signature->result != HLSNAP_STR) return call->failed = HLSNAP_ERR_SIGNATURE;
    if (call->out_size <= HLSNAP__RESULT_AT) return call->failed = HLSNAP_ERR_LIMIT;
    va_start(ap, fmt);
    n = hlsnap__rt_vformat((char *)call->out + HLSNAP__RESULT_AT, call->out_size - HLSNAP__RESULT_AT, fmt, ap);
    va_end(ap);
    if (n < 0 || HLSNAP__RESULT_AT + (size_t)n >= call->out_size)
        call->reached = call->out_size;
    else if (HLSNAP__RESULT_AT + (size_t)n > call->reached)
        call->reached = HLSNAP__RESULT_AT + (size_t)n;
    if (n < 0 || !hlsnap__call_fits(call, (size_t)n)) {
        if (n < 0) call->wanted = 0;
        return call->failed = HLSNAP_ERR_LIMIT;
    }
    if (call->out != at) { /* once more, where there is room */
        va_start(ap, fmt);
        hlsnap__rt_vformat((char *)call->out + HLSNAP__RESULT_AT, call->out_size - HLSNAP__RESULT_AT, fmt, ap);
        va_end(ap);
    }
    return hlsnap__call_finish(call, (size_t)n);
}

HLSNAP_API void *hlsnap_call_reserve(hlsnap_call *call, size_t n) {
    const uint8_t type = call->signature->result;
    call->used = call->reserved = 0;
    hlsnap__call_again(call);
    if (call->failed) return NULL;
    if (type != HLSNAP_STR && type != HLSNAP_BYTES) {
        call->failed = HLSNAP_ERR_SIGNATURE;
        return NULL;
    }
    if (!hlsnap__call_fits(call, n)) {
        call->failed = HLSNAP_ERR_LIMIT;
        return NULL;
    }
    call->wanted = 0;
    call->reserved = HLSNAP__RESULT_AT + n;
    if (call->reserved > call->reached) call->reached = call->reserved;
    return call->out + HLSNAP__RESULT_AT;
}

HLSNAP_API hlsnap_result hlsnap_call_return_reserved(hlsnap_call *call, size_t size) {
    if (call->failed) return call->failed;
    if (!call->reserved) return call->failed = HLSNAP_ERR_SIGNATURE;
    if (size > call->reserved - HLSNAP__RESULT_AT) {
        call->wanted = 0;
        return call->failed = HLSNAP_ERR_LIMIT;
    }
    return hlsnap__call_finish(call, size);
}

HLSNAP_API void *hlsnap_call_user(const hlsnap_call *call) { return call->user; }

/* Runs fn and leaves exactly one message in call->out. */
static HLSNAP__EACH_CALL void hlsnap__call_run(hlsnap_call *call, hlsnap_fn fn, void *user) {
    hlsnap_result r;
    char text[160];
    int n;
    call->used = call->wanted = call->reached = call->reserved = 0;
    call->failed = HLSNAP_OK;
    call->given = false;
    call->box = call->out;
    call->box_size = call->out_size;
    call->box_reached = 0;
    r = fn(call, user);
    if (call->failed) r = call->failed;
    if (r == HLSNAP_ERR_FUNCTION && call->failed == HLSNAP_ERR_FUNCTION) return;
    if (!r && !call->used && call->signature->result == HLSNAP_VOID)
        hlsnap_call_return(call, hlsnap__value(HLSNAP_VOID));
    if (!r && !call->used) r = call->failed ? call->failed : HLSNAP_ERR_SIGNATURE; /* no result given */
    if (!r) return;
    n = hlsnap__format(text, sizeof(text), "the function returned %s", hlsnap_result_name(r));
    if (r == HLSNAP_ERR_LIMIT && call->wanted)
        n += hlsnap__format(text + n, sizeof(text) - (size_t)n, ": its result takes %zu bytes, %zu fit", call->wanted,
                            call->out_size);
    hlsnap__call_refuse(call, HLSNAP_ABI_STATUS_REFUSED, (int32_t)r, text, (size_t)n);
}

/* ---- >>rt: leaf code of the guest runtime (no libc, no state of its own) ---- */

// Hides where a pointer came from. A loop that steps through a hidden pointer is never recognised
// as memcpy, memset or strlen (which would make those functions call themselves), and the
// branches for long blocks draw no bounds warnings where they are inlined for short ones.
#define HLSNAP__RT_HIDE(p) __asm__("" : "+r"(p))

// Sanitizers count bytes: a whole-word read that is safe for the machine is still an error there.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(__SANITIZE_HWADDRESS__)
#define HLSNAP__SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(memory_sanitizer) || __has_feature(thread_sanitizer) || \
    __has_feature(hwaddress_sanitizer)
#define HLSNAP__SANITIZED 1
#endif
#endif
#ifndef HLSNAP__SANITIZED
#define HLSNAP__SANITIZED 0
#endif

#define HLSNAP__RT_PRINTF(args) __attribute__((__format__(__printf__, 3, args)))

// From this length on the microcoded string instructions win over the 32-byte loop.
#define HLSNAP__RT_REP_MIN ((size_t)768)

typedef uint16_t hlsnap__rt_u16 __attribute__((__may_alias__, __aligned__(1)));
typedef uint32_t hlsnap__rt_u32 __attribute__((__may_alias__, __aligned__(1)));
typedef uint64_t hlsnap__rt_u64 __attribute__((__may_alias__, __aligned__(1)));
typedef uint64_t hlsnap__rt_word __attribute__((__may_alias__));

/* ---- >>rt_mem ---- */

// Plain loads and stores, not __builtin_memcpy: no flag combination can turn them into a call.
static HLSNAP__UNUSED uint64_t hlsnap__rt_load(const unsigned char *p) {
    return *(const hlsnap__rt_u64 *)(const void *)p;
}

static HLSNAP__UNUSED void hlsnap__rt_store(unsigned char *p, uint64_t v) { *(hlsnap__rt_u64 *)(void *)p = v; }

// n <= 32. Every load comes before the first store, so any overlap is fine.
static HLSNAP__EACH_CALL HLSNAP__UNUSED void hlsnap__rt_copy_small(unsigned char *d, const unsigned char *s, size_t n) {
    if (n >= 16) {
        uint64_t a = hlsnap__rt_load(s), b = hlsnap__rt_load(s + 8);
        uint64_t y = hlsnap__rt_load(s + n - 16), z = hlsnap__rt_load(s + n - 8);
        hlsnap__rt_store(d, a);
        hlsnap__rt_store(d + 8, b);
        hlsnap__rt_store(d + n - 16, y);
        hlsnap__rt_store(d + n - 8, z);
    } else if (n >= 8) {
        uint64_t a = hlsnap__rt_load(s), z = hlsnap__rt_load(s + n - 8);
        hlsnap__rt_store(d, a);
        hlsnap__rt_store(d + n - 8, z);
    } else if (n >= 4) {
        uint32_t a = *(const hlsnap__rt_u32 *)(const void *)s;
        uint32_t z = *(const hlsnap__rt_u32 *)(const void *)(s + n - 4);
        *(hlsnap__rt_u32 *)(void *)d = a;
        *(hlsnap__rt_u32 *)(void *)(d + n - 4) = z;
    } else if (n >= 2) {
        uint16_t a = *(const hlsnap__rt_u16 *)(const void *)s;
        uint16_t z = *(const hlsnap__rt_u16 *)(const void *)(s + n - 2);
        *(hlsnap__rt_u16 *)(void *)d = a;
        *(hlsnap__rt_u16 *)(void *)(d + n - 2) = z;
    } else if (n == 1) {
        *d = *s;
    }
}

static HLSNAP__UNUSED void hlsnap__rt_copy32(unsigned char *d, const unsigned char *s) {
    uint64_t a = hlsnap__rt_load(s), b = hlsnap__rt_load(s + 8);
    uint64_t y = hlsnap__rt_load(s + 16), z = hlsnap__rt_load(s + 24);
    hlsnap__rt_store(d, a);
    hlsnap__rt_store(d + 8, b);
    hlsnap__rt_store(d + 16, y);
    hlsnap__rt_store(d + 24, z);
}

// n > 32, d below s or apart from it. The last 32 bytes are read first: with an overlap the loop
// may overwrite them.
static HLSNAP__EACH_CALL HLSNAP__UNUSED void hlsnap__rt_copy_up(unsigned char *d, const unsigned char *s, size_t n) {
    unsigned char *last = d + n - 32, tail[32];
    hlsnap__rt_copy32(tail, s + n - 32);
    while (d < last) {
        hlsnap__rt_copy32(d, s);
        d += 32;
        s += 32;
        HLSNAP__RT_HIDE(d);
        HLSNAP__RT_HIDE(s);
    }
    hlsnap__rt_copy32(last, tail);
}

// n > 32, d above s; the mirror image of copy_up.
static HLSNAP__UNUSED void hlsnap__rt_copy_down(unsigned char *d, const unsigned char *s, size_t n) {
    unsigned char *first = d, head[32];
    hlsnap__rt_copy32(head, s);
    d += n;
    s += n;
    while (d > first + 32) {
        d -= 32;
        s -= 32;
        hlsnap__rt_copy32(d, s);
        HLSNAP__RT_HIDE(d);
        HLSNAP__RT_HIDE(s);
    }
    hlsnap__rt_copy32(first, head);
}

static HLSNAP__UNUSED void *hlsnap__rt_memcpy(void *to, const void *from, size_t n) {
    unsigned char *d = (unsigned char *)to;
    const unsigned char *s = (const unsigned char *)from;
    HLSNAP__RT_HIDE(d);
    HLSNAP__RT_HIDE(s);
    if (n <= 32) {
        hlsnap__rt_copy_small(d, s, n);
        return to;
    }
#if defined(__x86_64__)
    if (n >= HLSNAP__RT_REP_MIN) {
        __asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
        return to;
    }
#endif
    hlsnap__rt_copy_up(d, s, n);
    return to;
}

static HLSNAP__UNUSED void *hlsnap__rt_memmove(void *to, const void *from, size_t n) {
    unsigned char *d = (unsigned char *)to;
    const unsigned char *s = (const unsigned char *)from;
    uintptr_t above = (uintptr_t)to - (uintptr_t)from, below = (uintptr_t)from - (uintptr_t)to;
    HLSNAP__RT_HIDE(d);
    HLSNAP__RT_HIDE(s);
    if (n > 32 && above < n) {
        hlsnap__rt_copy_down(d, s, n);
        return to;
    }
    // rep movsb is right for d below s, but crawls byte by byte when they are close.
    if (n > 32 && below < 64) {
        hlsnap__rt_copy_up(d, s, n);
        return to;
    }
    return hlsnap__rt_memcpy(to, from, n);
}

static HLSNAP__UNUSED void hlsnap__rt_fill_small(unsigned char *d, uint64_t v, size_t n) {
    if (n >= 8) {
        hlsnap__rt_store(d, v);
        hlsnap__rt_store(d + n - 8, v);
        if (n > 16) {
            hlsnap__rt_store(d + 8, v);
            hlsnap__rt_store(d + n - 16, v);
        }
    } else if (n >= 4) {
        *(hlsnap__rt_u32 *)(void *)d = (uint32_t)v;
        *(hlsnap__rt_u32 *)(void *)(d + n - 4) = (uint32_t)v;
    } else if (n > 0) {
        d[0] = (unsigned char)v;
        d[n / 2] = (unsigned char)v;
        d[n - 1] = (unsigned char)v;
    }
}

static HLSNAP__UNUSED void *hlsnap__rt_memset(void *to, int c, size_t n) {
    unsigned char *d = (unsigned char *)to, *last;
    uint64_t v = (uint64_t)(unsigned char)c * 0x0101010101010101u;
    HLSNAP__RT_HIDE(d);
    if (n <= 32) {
        hlsnap__rt_fill_small(d, v, n);
        return to;
    }
#if defined(__x86_64__)
    if (n >= HLSNAP__RT_REP_MIN) {
        __asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(c) : "memory");
        return to;
    }
#endif
    for (last = d + n - 32; d < last; d += 32) {
        HLSNAP__RT_HIDE(d);
        hlsnap__rt_fill_small(d, v, 32);
    }
    hlsnap__rt_fill_small(last, v, 32);
    return to;
}

static HLSNAP__UNUSED int hlsnap__rt_memcmp(const void *a, const void *b, size_t n) {
    const unsigned char *x = (const unsigned char *)a, *y = (const unsigned char *)b;
    HLSNAP__RT_HIDE(x);
    HLSNAP__RT_HIDE(y);
    for (; n >= 8 && hlsnap__rt_load(x) == hlsnap__rt_load(y); n -= 8) {
        x += 8;
        y += 8;
        HLSNAP__RT_HIDE(x);
    }
    for (; n > 0; n--, x++, y++) {
        HLSNAP__RT_HIDE(x);
        if (*x != *y) return *x < *y ? -1 : 1;
    }
    return 0;
}

// Index of the first byte c in s[0..n), or n. Reads aligned words only: a word that holds one byte
// of the object lies on that byte's page, so nothing beyond the page of the last byte looked at is
// ever touched (n may be SIZE_MAX).
static HLSNAP__UNUSED size_t hlsnap__rt_scan(const unsigned char *s, unsigned char c, size_t n) {
    size_t i = 0;
#if !HLSNAP__SANITIZED
    const uint64_t ones = 0x0101010101010101u, highs = 0x8080808080808080u, same = ones * c;
    for (; i < n && ((uintptr_t)(s + i) & 7u) != 0; i++)
        if (s[i] == c) return i;
    for (; n - i >= 8; i += 8) {
        uint64_t w;
        HLSNAP__RT_HIDE(s);
        w = *(const hlsnap__rt_word *)(const void *)(s + i) ^ same;
        if (((w - ones) & ~w & highs) != 0) break;
    }
#endif
    for (; i < n && s[i] != c; i++) HLSNAP__RT_HIDE(s);
    return i;
}

/* ---- >>rt_str ---- */

// The standard interface takes const and gives back non-const; the detour keeps -Wcast-qual quiet.
static HLSNAP__UNUSED char *hlsnap__rt_unconst(const void *p) { return (char *)(uintptr_t)p; }

static HLSNAP__UNUSED void *hlsnap__rt_memchr(const void *s, int c, size_t n) {
    size_t i = hlsnap__rt_scan((const unsigned char *)s, (unsigned char)c, n);
    return i < n ? hlsnap__rt_unconst((const unsigned char *)s + i) : NULL;
}

static HLSNAP__UNUSED size_t hlsnap__rt_strlen(const char *s) {
    return hlsnap__rt_scan((const unsigned char *)s, 0, SIZE_MAX);
}

static HLSNAP__UNUSED size_t hlsnap__rt_strnlen(const char *s, size_t max) {
    return hlsnap__rt_scan((const unsigned char *)s, 0, max);
}

static HLSNAP__UNUSED int hlsnap__rt_strncmp(const char *a, const char *b, size_t n) {
    const unsigned char *x = (const unsigned char *)a, *y = (const unsigned char *)b;
    for (; n > 0; n--, x++, y++) {
        HLSNAP__RT_HIDE(x);
        if (*x != *y) return *x < *y ? -1 : 1;
        if (*x == 0) return 0;
    }
    return 0;
}

static HLSNAP__UNUSED int hlsnap__rt_strcmp(const char *a, const char *b) { return hlsnap__rt_strncmp(a, b, SIZE_MAX); }

static HLSNAP__UNUSED char *hlsnap__rt_strchr(const char *s, int c) {
    for (;; s++) {
        HLSNAP__RT_HIDE(s);
        if (*s == (char)c) return hlsnap__rt_unconst(s);
        if (*s == 0) return NULL;
    }
}

static HLSNAP__UNUSED char *hlsnap__rt_strrchr(const char *s, int c) {
    size_t n = hlsnap__rt_strlen(s) + 1;
    while (n-- > 0)
        if (s[n] == (char)c) return hlsnap__rt_unconst(s + n);
    return NULL;
}

// Quadratic in the worst case; the needles of a guest are short.
static HLSNAP__UNUSED char *hlsnap__rt_strstr(const char *s, const char *what) {
    size_t n = hlsnap__rt_strlen(what);
    if (n == 0) return hlsnap__rt_unconst(s);
    for (; (s = hlsnap__rt_strchr(s, what[0])) != NULL; s++)
        if (hlsnap__rt_strncmp(s, what, n) == 0) return hlsnap__rt_unconst(s);
    return NULL;
}

static HLSNAP__UNUSED char *hlsnap__rt_strcpy(char *to, const char *from) {
    hlsnap__rt_memcpy(to, from, hlsnap__rt_strlen(from) + 1);
    return to;
}

static HLSNAP__UNUSED char *hlsnap__rt_strncpy(char *to, const char *from, size_t n) {
    size_t len = hlsnap__rt_strnlen(from, n);
    hlsnap__rt_memcpy(to, from, len);
    hlsnap__rt_memset(to + len, 0, n - len);
    return to;
}

static HLSNAP__UNUSED char *hlsnap__rt_strcat(char *to, const char *from) {
    hlsnap__rt_strcpy(to + hlsnap__rt_strlen(to), from);
    return to;
}

/* ---- >>rt_decimal: the exact decimal expansion of a double ---- */

// A double is a 53-bit integer times 2^e, -1074 <= e <= 971. Laid out as a fixed-point binary
// number it has at most 1024 bits before the point and 1074 after it: 35 and 120 groups of nine
// decimal digits.
#define HLSNAP__RT_FRAC_WORDS 34
#define HLSNAP__RT_WORDS 68
#define HLSNAP__RT_INT_DIGITS 315
#define HLSNAP__RT_BILLION 1000000000u

// value = 0.d[0]d[1]... * 10^point, no leading or trailing zeros; zero has count 0 and point 1.
typedef struct hlsnap__rt_decimal {
    char *d;
    int64_t count;
    int64_t point;
    char space[HLSNAP__RT_INT_DIGITS + 1080];
} hlsnap__rt_decimal;

static HLSNAP__UNUSED void hlsnap__rt_nine_digits(char *to, uint32_t v) {
    int i;
    for (i = 8; i >= 0; i--, v /= 10) to[i] = (char)('0' + (int)(v % 10));
}

// Division by 10^9 peels groups off the integer part from the right. Returns where they start.
static HLSNAP__UNUSED int hlsnap__rt_decimal_int(hlsnap__rt_decimal *x, uint32_t *w) {
    int at = HLSNAP__RT_INT_DIGITS, top = HLSNAP__RT_WORDS - 1, i;
    for (;;) {
        uint64_t rest = 0;
        while (top >= HLSNAP__RT_FRAC_WORDS && w[top] == 0) top--;
        if (top < HLSNAP__RT_FRAC_WORDS) return at;
        for (i = top; i >= HLSNAP__RT_FRAC_WORDS; i--) {
            rest = rest << 32 | w[i];
            w[i] = (uint32_t)(rest / HLSNAP__RT_BILLION);
            rest %= HLSNAP__RT_BILLION;
        }
        at -= 9;
        hlsnap__rt_nine_digits(x->space + at, (uint32_t)rest);
    }
}

// Multiplication by 10^9 pushes groups of the fraction over the point. Each step frees 9 low bits,
// so it ends. Returns the index behind the last digit.
static HLSNAP__UNUSED int hlsnap__rt_decimal_frac(hlsnap__rt_decimal *x, uint32_t *w) {
    int at = HLSNAP__RT_INT_DIGITS, low = 0, i;
    for (;;) {
        uint64_t carry = 0;
        while (low < HLSNAP__RT_FRAC_WORDS && w[low] == 0) low++;
        if (low == HLSNAP__RT_FRAC_WORDS) return at;
        for (i = low; i < HLSNAP__RT_FRAC_WORDS; i++) {
            carry += (uint64_t)w[i] * HLSNAP__RT_BILLION;
            w[i] = (uint32_t)carry;
            carry >>= 32;
        }
        hlsnap__rt_nine_digits(x->space + at, (uint32_t)carry);
        at += 9;
    }
}

static HLSNAP__UNUSED void hlsnap__rt_decimal_set(hlsnap__rt_decimal *x, uint64_t m, int e) {
    uint32_t w[HLSNAP__RT_WORDS];
    unsigned bit = (unsigned)(e + 32 * HLSNAP__RT_FRAC_WORDS), shift = bit % 32;
    int first, end;
    hlsnap__rt_memset(w, 0, sizeof w);
    w[bit / 32] = (uint32_t)(m << shift);
    w[bit / 32 + 1] = (uint32_t)(m >> (32 - shift));
    w[bit / 32 + 2] = (uint32_t)((m >> 32) >> (32 - shift));
    first = hlsnap__rt_decimal_int(x, w);
    end = hlsnap__rt_decimal_frac(x, w);
    while (first < end && x->space[first] == '0') first++;
    while (end > first && x->space[end - 1] == '0') end--;
    x->d = x->space + first;
    x->count = end - first;
    x->point = first < end ? HLSNAP__RT_INT_DIGITS - first : 1;
}

// Keeps the first `keep` digits: to nearest, ties to even. The expansion is exact, so a tie is a
// lone final 5.
static HLSNAP__UNUSED void hlsnap__rt_decimal_round(hlsnap__rt_decimal *x, int64_t keep) {
    bool up = false;
    if (keep >= x->count) return;
    if (keep >= 0) {
        bool tie = x->d[keep] == '5' && keep + 1 == x->count;
        bool odd = keep > 0 && ((x->d[keep - 1] - '0') & 1) != 0;
        up = tie ? odd : x->d[keep] >= '5';
    }
    for (x->count = keep < 0 ? 0 : keep; x->count > 0; x->count--) {
        if (up && x->d[x->count - 1] != '9') {
            x->d[x->count - 1]++;
            return;
        }
        if (!up && x->d[x->count - 1] != '0') return;
    }
    x->point = up ? x->point + 1 : 1;
    if (up) {
        x->d[0] = '1';
        x->count = 1;
    }
}

/* ---- >>rt_format ---- */

typedef struct hlsnap__rt_out {
    char *to;
    size_t cap;
    uint64_t len; // what it would be without the limit
} hlsnap__rt_out;

// A va_list parameter cannot be passed on by address (it may be an array); inside a struct it can.
typedef struct hlsnap__rt_args {
    va_list ap;
} hlsnap__rt_args;

typedef struct hlsnap__rt_spec {
    int64_t width;
    int64_t prec; // -1: not given
    bool left, plus, space, alt, zero;
    char length; // 0 h l z j t, 'H' for hh, 'q' for ll
    char conv;
} hlsnap__rt_spec;

static HLSNAP__UNUSED void hlsnap__rt_put(hlsnap__rt_out *o, const char *s, size_t n) {
    if (o->len < o->cap) {
        size_t at = (size_t)o->len, room = o->cap - at;
        hlsnap__rt_memcpy(o->to + at, s, n < room ? n : room);
    }
    o->len += n;
}

static HLSNAP__UNUSED void hlsnap__rt_pad(hlsnap__rt_out *o, char c, int64_t count) {
    uint64_t n = count > 0 ? (uint64_t)count : 0;
    if (o->len < o->cap) {
        size_t at = (size_t)o->len, room = o->cap - at;
        hlsnap__rt_memset(o->to + at, c, n < room ? (size_t)n : room);
    }
    o->len += n;
}

// Left padding and prefix of a field with `body` more characters; returns the right padding.
static HLSNAP__UNUSED int64_t hlsnap__rt_open(hlsnap__rt_out *o, const hlsnap__rt_spec *s, const char *prefix,
                                              int64_t body) {
    size_t n = hlsnap__rt_strlen(prefix);
    int64_t gap = s->width - (int64_t)n - body;
    if (!s->left && !s->zero) hlsnap__rt_pad(o, ' ', gap);
    hlsnap__rt_put(o, prefix, n);
    if (!s->left && s->zero) hlsnap__rt_pad(o, '0', gap);
    return s->left ? gap : 0;
}

static HLSNAP__UNUSED void hlsnap__rt_text(hlsnap__rt_out *o, hlsnap__rt_spec *s, const char *prefix, const char *text,
                                           size_t n) {
    int64_t right;
    s->zero = false;
    right = hlsnap__rt_open(o, s, prefix, (int64_t)n);
    hlsnap__rt_put(o, text, n);
    hlsnap__rt_pad(o, ' ', right);
}

static HLSNAP__UNUSED const char *hlsnap__rt_sign(const hlsnap__rt_spec *s, bool negative) {
    return negative ? "-" : s->plus ? "+" : s->space ? " " : "";
}

static HLSNAP__UNUSED const char *hlsnap__rt_hex_digits(bool upper) {
    return upper ? "0123456789ABCDEF" : "0123456789abcdef";
}

static HLSNAP__UNUSED void hlsnap__rt_integer(hlsnap__rt_out *o, hlsnap__rt_spec *s, const char *prefix, uint64_t v) {
    const char *digits = hlsnap__rt_hex_digits(s->conv == 'X');
    bool hex = s->conv == 'x' || s->conv == 'X' || s->conv == 'p';
    uint64_t base = hex ? 16 : s->conv == 'o' ? 8 : 10;
    char text[24];
    int64_t n = 0, zeros, right;
    if ((s->conv == 'x' || s->conv == 'X') && s->alt && v != 0) prefix = s->conv == 'x' ? "0x" : "0X";
    if (v == 0 && s->prec != 0) text[sizeof text - (size_t)++n] = '0';
    for (; v != 0; v /= base) text[sizeof text - (size_t)++n] = digits[v % base];
    zeros = s->prec > n ? s->prec - n : 0;
    if (s->conv == 'o' && s->alt && zeros == 0 && (n == 0 || text[sizeof text - (size_t)n] != '0')) zeros = 1;
    if (s->prec >= 0) s->zero = false;
    right = hlsnap__rt_open(o, s, prefix, zeros + n);
    hlsnap__rt_pad(o, '0', zeros);
    hlsnap__rt_put(o, text + sizeof text - (size_t)n, (size_t)n);
    hlsnap__rt_pad(o, ' ', right);
}

// Digits [from, to) of the decimal; positions outside the expansion are zeros.
static HLSNAP__UNUSED void hlsnap__rt_put_digits(hlsnap__rt_out *o, const hlsnap__rt_decimal *x, int64_t from,
                                                 int64_t to) {
    int64_t a, b;
    b = to < 0 ? to : 0;
    hlsnap__rt_pad(o, '0', b - from);
    a = from < 0 ? 0 : from;
    b = to < x->count ? to : x->count;
    if (a < b) {
        hlsnap__rt_put(o, x->d + a, (size_t)(b - a));
        a = b;
    }
    hlsnap__rt_pad(o, '0', to - a);
}

// "e+07", "p-1022": letter, sign, at least `least` digits. Returns the length.
static HLSNAP__UNUSED int hlsnap__rt_exponent(char to[8], char letter, int64_t e, int least) {
    uint32_t v = (uint32_t)(e < 0 ? -e : e), t = v;
    int n = 1, i;
    while (t >= 10 || n < least) {
        t /= 10;
        n++;
    }
    to[0] = letter;
    to[1] = e < 0 ? '-' : '+';
    for (i = n; i > 0; i--, v /= 10) to[1 + i] = (char)('0' + (int)(v % 10));
    return n + 2;
}

// f e g after rounding: `s->prec` digits behind the point, and an exponent unless fixed.
static HLSNAP__UNUSED void hlsnap__rt_put_decimal(hlsnap__rt_out *o, const hlsnap__rt_spec *s, const char *sign,
                                                  const hlsnap__rt_decimal *x, bool fixed) {
    char tail[8];
    bool dot = s->prec > 0 || s->alt;
    int n = fixed ? 0 : hlsnap__rt_exponent(tail, s->conv < 'a' ? 'E' : 'e', x->point - 1, 2);
    int64_t point = fixed ? x->point : 1;
    int64_t from = point > 0 ? 0 : point - 1; // at least one digit before the point
    int64_t right = hlsnap__rt_open(o, s, sign, point - from + dot + s->prec + n);
    hlsnap__rt_put_digits(o, x, from, point);
    hlsnap__rt_put(o, ".", dot ? 1 : 0);
    hlsnap__rt_put_digits(o, x, point, point + s->prec);
    hlsnap__rt_put(o, tail, (size_t)n);
    hlsnap__rt_pad(o, ' ', right);
}

static HLSNAP__UNUSED void hlsnap__rt_float_decimal(hlsnap__rt_out *o, hlsnap__rt_spec *s, const char *sign, uint64_t m,
                                                    int e) {
    hlsnap__rt_decimal x;
    bool general = s->conv == 'g' || s->conv == 'G', fixed = s->conv == 'f' || s->conv == 'F';
    int64_t need;
    hlsnap__rt_decimal_set(&x, m, e);
    if (s->prec < 0) s->prec = 6;
    if (general && s->prec == 0) s->prec = 1;
    hlsnap__rt_decimal_round(&x, fixed ? x.point + s->prec : general ? s->prec : s->prec + 1);
    if (general) {
        fixed = x.point > -4 && x.point <= s->prec;
        s->prec -= fixed ? x.point : 1;
        need = x.count - (fixed ? x.point : 1);
        if (!s->alt && s->prec > need) s->prec = need > 0 ? need : 0;
    }
    hlsnap__rt_put_decimal(o, s, sign, &x, fixed);
}

static HLSNAP__UNUSED void hlsnap__rt_float_hex(hlsnap__rt_out *o, const hlsnap__rt_spec *s, bool negative, uint64_t m,
                                                int e) {
    const char *sign = hlsnap__rt_sign(s, negative);
    const char *digits = hlsnap__rt_hex_digits(s->conv == 'A');
    char prefix[4], text[13], tail[8];
    int64_t prec = s->prec, stored, right;
    int n = hlsnap__rt_exponent(tail, s->conv == 'A' ? 'P' : 'p', m == 0 ? 0 : e + 52, 1), i;
    size_t at = hlsnap__rt_strlen(sign);
    bool dot;
    if (prec >= 0 && prec < 13) {
        unsigned cut = (unsigned)(13 - prec) * 4;
        uint64_t rest = m & (((uint64_t)1 << cut) - 1), half = (uint64_t)1 << (cut - 1);
        m >>= cut;
        m += rest > half || (rest == half && (m & 1u) != 0);
        m <<= cut;
    }
    for (i = 0; i < 13; i++) text[i] = digits[m >> (48 - 4 * i) & 15u];
    for (stored = 13; prec < 0 && stored > 0 && text[stored - 1] == '0';) stored--;
    if (prec < 0) prec = stored;
    if (stored > prec) stored = prec;
    dot = prec > 0 || s->alt;
    hlsnap__rt_memcpy(prefix, sign, at);
    hlsnap__rt_memcpy(prefix + at, s->conv == 'A' ? "0X" : "0x", 3);
    right = hlsnap__rt_open(o, s, prefix, 1 + dot + prec + n);
    hlsnap__rt_put(o, digits + (m >> 52), 1);
    hlsnap__rt_put(o, ".", dot ? 1 : 0);
    hlsnap__rt_put(o, text, (size_t)stored);
    hlsnap__rt_pad(o, '0', prec - stored);
    hlsnap__rt_put(o, tail, (size_t)n);
    hlsnap__rt_pad(o, ' ', right);
}

static HLSNAP__UNUSED void hlsnap__rt_float(hlsnap__rt_out *o, hlsnap__rt_spec *s, double value) {
    uint64_t bits = *(const hlsnap__rt_u64 *)(const void *)&value;
    uint64_t m = bits & (((uint64_t)1 << 52) - 1);
    int e = (int)(bits >> 52 & 0x7ff);
    bool negative = bits >> 63 != 0, upper = s->conv < 'a';
    if (e == 0x7ff) {
        const char *text = m != 0 ? (upper ? "NAN" : "nan") : (upper ? "INF" : "inf");
        hlsnap__rt_text(o, s, hlsnap__rt_sign(s, negative), text, 3);
        return;
    }
    if (e == 0)
        e = 1; // denormal: the smallest exponent, no hidden bit
    else
        m |= (uint64_t)1 << 52;
    if (s->conv == 'a' || s->conv == 'A')
        hlsnap__rt_float_hex(o, s, negative, m, e - 1075);
    else
        hlsnap__rt_float_decimal(o, s, hlsnap__rt_sign(s, negative), m, e - 1075);
}

// Stops growing above INT_MAX: the result is then too long for any field, which vformat reports.
static HLSNAP__UNUSED const char *hlsnap__rt_parse_number(const char *f, int64_t *v) {
    for (*v = 0; *f >= '0' && *f <= '9'; f++)
        if (*v <= __INT_MAX__) *v = *v * 10 + (*f - '0');
    return f;
}

static HLSNAP__UNUSED const char *hlsnap__rt_parse_flags(const char *f, hlsnap__rt_spec *s) {
    s->left = s->plus = s->space = s->alt = s->zero = false;
    for (;; f++) {
        switch (*f) {
        case '-': s->left = true; break;
        case '+': s->plus = true; break;
        case ' ': s->space = true; break;
        case '#': s->alt = true; break;
        case '0': s->zero = true; break;
        default: return f;
        }
    }
}

// f is behind the '%'. Returns the conversion character's place.
static HLSNAP__UNUSED const char *hlsnap__rt_parse(const char *f, hlsnap__rt_spec *s, hlsnap__rt_args *a) {
    f = hlsnap__rt_parse_flags(f, s);
    if (*f == '*') {
        s->width = va_arg(a->ap, int);
        s->left = s->left || s->width < 0;
        s->width = s->width < 0 ? -s->width : s->width;
        f++;
    } else {
        f = hlsnap__rt_parse_number(f, &s->width);
    }
    s->prec = -1;
    if (f[0] == '.' && f[1] == '*') {
        s->prec = va_arg(a->ap, int);
        s->prec = s->prec < 0 ? -1 : s->prec;
        f += 2;
    } else if (f[0] == '.') {
        f = hlsnap__rt_parse_number(f + 1, &s->prec);
    }
    s->length = 0;
    if (*f == 'h' || *f == 'l') {
        s->length = *f++;
        if (*f == s->length) {
            s->length = *f == 'h' ? 'H' : 'q';
            f++;
        }
    } else if (*f == 'z' || *f == 'j' || *f == 't') {
        s->length = *f++;
    }
    s->conv = *f;
    return f;
}

static HLSNAP__UNUSED int64_t hlsnap__rt_arg_signed(const hlsnap__rt_spec *s, hlsnap__rt_args *a) {
    switch (s->length) {
    case 'H': return (signed char)va_arg(a->ap, int);
    case 'h': return (short)va_arg(a->ap, int);
    case 'l': return va_arg(a->ap, long);
    case 'q': return va_arg(a->ap, long long);
    case 'j': return va_arg(a->ap, intmax_t);
    case 'z':
    case 't': return va_arg(a->ap, ptrdiff_t);
    default: return va_arg(a->ap, int);
    }
}

static HLSNAP__UNUSED uint64_t hlsnap__rt_arg_unsigned(const hlsnap__rt_spec *s, hlsnap__rt_args *a) {
    switch (s->length) {
    case 'H': return (unsigned char)va_arg(a->ap, unsigned);
    case 'h': return (unsigned short)va_arg(a->ap, unsigned);
    case 'l': return va_arg(a->ap, unsigned long);
    case 'q': return va_arg(a->ap, unsigned long long);
    case 'j': return va_arg(a->ap, uintmax_t);
    case 'z':
    case 't': return va_arg(a->ap, size_t);
    default: return va_arg(a->ap, unsigned);
    }
}

static HLSNAP__UNUSED void hlsnap__rt_string(hlsnap__rt_out *o, hlsnap__rt_spec *s, const char *text) {
    size_t max = s->prec < 0 || (uint64_t)s->prec > SIZE_MAX ? SIZE_MAX : (size_t)s->prec;
    if (text == NULL) text = "(null)";
    hlsnap__rt_text(o, s, "", text, hlsnap__rt_strnlen(text, max));
}

// Formats one argument. false: no conversion of ours (%n, %Lf, %ls), nothing was read or written.
static HLSNAP__UNUSED bool hlsnap__rt_convert(hlsnap__rt_out *o, hlsnap__rt_spec *s, hlsnap__rt_args *a) {
    int64_t v;
    char c;
    switch (s->conv) {
    case 'd':
    case 'i':
        v = hlsnap__rt_arg_signed(s, a);
        hlsnap__rt_integer(o, s, hlsnap__rt_sign(s, v < 0), v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
        return true;
    case 'u':
    case 'x':
    case 'X':
    case 'o': hlsnap__rt_integer(o, s, "", hlsnap__rt_arg_unsigned(s, a)); return true;
    case 'f':
    case 'F':
    case 'e':
    case 'E':
    case 'g':
    case 'G':
    case 'a':
    case 'A':
        if (s->length != 0 && s->length != 'l') return false;
        hlsnap__rt_float(o, s, va_arg(a->ap, double));
        return true;
    default: break;
    }
    if (s->length != 0) return false;
    if (s->conv == 'c') {
        c = (char)va_arg(a->ap, int);
        hlsnap__rt_text(o, s, "", &c, 1);
    } else if (s->conv == 's') {
        hlsnap__rt_string(o, s, va_arg(a->ap, const char *));
    } else if (s->conv == 'p') {
        hlsnap__rt_integer(o, s, "0x", (uint64_t)(uintptr_t)va_arg(a->ap, void *));
    } else {
        return false;
    }
    return true;
}

/* vsnprintf without locale, wide characters, long double and %n. An unknown conversion and
   everything behind it is copied as it stands: the type of its argument, and so the place of the
   next one, is not known.
   returns   the length of the whole text; -1 when that is above INT_MAX (to[] holds its start)  */
static HLSNAP__UNUSED HLSNAP__RT_PRINTF(0) int hlsnap__rt_vformat(char *to, size_t cap, const char *fmt, va_list ap) {
    hlsnap__rt_out o;
    hlsnap__rt_args args;
    hlsnap__rt_spec spec;
    o.to = to;
    o.cap = cap;
    o.len = 0;
    va_copy(args.ap, ap);
    while (*fmt != 0) {
        const char *end = fmt;
        if (fmt[0] == '%' && fmt[1] != '%') {
            end = hlsnap__rt_parse(fmt + 1, &spec, &args);
            if (!hlsnap__rt_convert(&o, &spec, &args)) {
                hlsnap__rt_put(&o, fmt, hlsnap__rt_strlen(fmt));
                break;
            }
            fmt = end + 1;
            continue;
        }
        fmt += fmt[0] == '%' ? 1 : 0; // "%%": the text starts with the second one
        for (end = fmt + 1; *end != 0 && *end != '%';) end++;
        hlsnap__rt_put(&o, fmt, (size_t)(end - fmt));
        fmt = end;
    }
    va_end(args.ap);
    if (cap > 0) to[o.len < cap ? (size_t)o.len : cap - 1] = 0;
    return o.len > __INT_MAX__ ? -1 : (int)o.len;
}

/* ---- >>rt_heap ---- */

/* The region is [struct heap][blocks ...][untouched tail]. Blocks lie back to back from base to top
   and start 8 bytes below a multiple of 16, so that what follows the 8-byte head is aligned:
     live   head, caller's bytes up to the next block
     free   head, next, prev, ..., own size in the last 8 bytes (for the block behind it)
   Nothing above top is ever written, two free blocks never touch, and the last block is always live
   (a free one goes back to the tail). A head seals its address, size and flags with 16 check bits.
   A head that drops out of use is left marked free: a second free of the same pointer finds that.
   This guards against mistakes, not against a guest that wants to break its own heap.  */
#define HLSNAP__RT_LIVE ((uint64_t)1)
#define HLSNAP__RT_PREV_FREE ((uint64_t)2)
#define HLSNAP__RT_SIZE_MASK (((uint64_t)1 << 48) - 16)
#define HLSNAP__RT_MIN_BLOCK ((size_t)32)
#define HLSNAP__RT_EXACT_BINS 64 // one size each, up to 1008 bytes; above: 4 per power of two
#define HLSNAP__RT_BINS 192
// As far as the bins reach, or half of a 32-bit address space.
#define HLSNAP__RT_HEAP_MAX ((size_t)(SIZE_MAX / 2 < (uint64_t)1 << 40 ? SIZE_MAX / 2 : (uint64_t)1 << 40))
#define HLSNAP__RT_SCAN 16 // blocks tried in a mixed bin before a larger one is cut

// may_alias: the same bytes are the caller's objects at other times.
typedef struct __attribute__((__may_alias__)) hlsnap__rt_block {
    uint64_t head;
    struct hlsnap__rt_block *next, *prev; // only while free
} hlsnap__rt_block;

typedef struct hlsnap__rt_heap {
    uintptr_t base, top, end; // first block, start of the untouched tail, end of the region
    uintptr_t high;           // highest top so far
    size_t live;              // bytes of live blocks, heads included
    uint64_t filled[HLSNAP__RT_BINS / 64];
    hlsnap__rt_block *bin[HLSNAP__RT_BINS];
} hlsnap__rt_heap;

static HLSNAP__UNUSED hlsnap__rt_block *hlsnap__rt_block_at(uintptr_t at) { return (hlsnap__rt_block *)at; }

static HLSNAP__UNUSED uint64_t hlsnap__rt_seal(uintptr_t at, uint64_t bits) {
    uint64_t mix = ((uint64_t)at + bits * 0x9e3779b97f4a7c15u) * 0xd1342543de82ef95u;
    mix ^= mix >> 29;
    mix *= 0xbf58476d1ce4e5b9u;
    return bits | mix >> 48 << 48;
}

// Size and flags of the block at an address that may be anything; 0 if there is none.
static HLSNAP__UNUSED uint64_t hlsnap__rt_head(const hlsnap__rt_heap *h, uintptr_t at) {
    uint64_t head, bits, size;
    if (at < h->base || at >= h->top || (at & 15u) != 8) return 0;
    head = hlsnap__rt_block_at(at)->head;
    bits = head & (HLSNAP__RT_SIZE_MASK | HLSNAP__RT_LIVE | HLSNAP__RT_PREV_FREE);
    size = bits & HLSNAP__RT_SIZE_MASK;
    if (hlsnap__rt_seal(at, bits) != head || size < HLSNAP__RT_MIN_BLOCK || size > h->top - at) return 0;
    return bits;
}

static HLSNAP__UNUSED size_t hlsnap__rt_size(uint64_t bits) { return (size_t)(bits & HLSNAP__RT_SIZE_MASK); }

static HLSNAP__UNUSED unsigned hlsnap__rt_bin(size_t size) {
    uint64_t units = (uint64_t)size / 16;
    unsigned log;
    if (units < HLSNAP__RT_EXACT_BINS) return (unsigned)units;
    log = 63u - (unsigned)__builtin_clzll(units);
    return HLSNAP__RT_EXACT_BINS + (log - 6) * 4 + ((unsigned)(units >> (log - 2)) & 3u);
}

// Size of the free block at `at` if it is one and hangs properly in its list, else 0.
static HLSNAP__UNUSED size_t hlsnap__rt_free_size(const hlsnap__rt_heap *h, uintptr_t at) {
    const hlsnap__rt_block *b = hlsnap__rt_block_at(at);
    uint64_t bits = hlsnap__rt_head(h, at);
    size_t size = hlsnap__rt_size(bits);
    if (bits == 0 || (bits & HLSNAP__RT_LIVE) != 0) return 0;
    if (b->next != NULL && (hlsnap__rt_head(h, (uintptr_t)b->next) == 0 || b->next->prev != b)) return 0;
    if (b->prev == NULL) return h->bin[hlsnap__rt_bin(size)] == b ? size : 0;
    return hlsnap__rt_head(h, (uintptr_t)b->prev) != 0 && b->prev->next == b ? size : 0;
}

static HLSNAP__UNUSED void hlsnap__rt_bin_drop(hlsnap__rt_heap *h, unsigned i) {
    h->bin[i] = NULL;
    h->filled[i / 64] &= ~((uint64_t)1 << i % 64);
}

static HLSNAP__UNUSED void hlsnap__rt_unlink(hlsnap__rt_heap *h, uintptr_t at) {
    hlsnap__rt_block *b = hlsnap__rt_block_at(at);
    unsigned i = hlsnap__rt_bin(hlsnap__rt_size(b->head));
    if (b->next != NULL) b->next->prev = b->prev;
    if (b->prev != NULL)
        b->prev->next = b->next;
    else if (b->next != NULL)
        h->bin[i] = b->next;
    else
        hlsnap__rt_bin_drop(h, i);
}

// Tells the block at `at`, if any, whether the one before it is free. A broken head is not made
// good by that.
static HLSNAP__UNUSED void hlsnap__rt_mark_prev(hlsnap__rt_heap *h, uintptr_t at, uint64_t flag) {
    uint64_t bits = hlsnap__rt_head(h, at);
    if (bits != 0) hlsnap__rt_block_at(at)->head = hlsnap__rt_seal(at, (bits & ~HLSNAP__RT_PREV_FREE) | flag);
}

// Makes [at, at+size) free; the blocks on both sides are live or do not exist.
static HLSNAP__UNUSED void hlsnap__rt_release(hlsnap__rt_heap *h, uintptr_t at, size_t size) {
    hlsnap__rt_block *b = hlsnap__rt_block_at(at);
    unsigned i = hlsnap__rt_bin(size);
    if (at + size == h->top) {
        h->top = at;
        return;
    }
    b->head = hlsnap__rt_seal(at, size);
    *(hlsnap__rt_word *)(at + size - 8) = size;
    hlsnap__rt_mark_prev(h, at + size, HLSNAP__RT_PREV_FREE);
    b->prev = NULL;
    b->next = h->bin[i];
    if (b->next != NULL) b->next->prev = b;
    h->bin[i] = b;
    h->filled[i / 64] |= (uint64_t)1 << i % 64;
}

// Turns [at, at+have), in no list, into a live block of `need` bytes and frees the rest when it can
// stand alone.
static HLSNAP__UNUSED void hlsnap__rt_carve(hlsnap__rt_heap *h, uintptr_t at, size_t have, size_t need,
                                            uint64_t flags) {
    if (have - need < HLSNAP__RT_MIN_BLOCK && at + have != h->top) need = have;
    hlsnap__rt_block_at(at)->head = hlsnap__rt_seal(at, need | HLSNAP__RT_LIVE | flags);
    h->live += need;
    if (need < have)
        hlsnap__rt_release(h, at + need, have - need);
    else
        hlsnap__rt_mark_prev(h, at + have, 0);
}

/* Sets up a heap in [start, start+size). h may be anywhere; when it lies at the start of the
   region, blocks begin behind it. Writes *h and nothing else. A region too small for a block makes
   a heap that is always full.  */
static HLSNAP__UNUSED void hlsnap__rt_heap_init(hlsnap__rt_heap *h, void *start, size_t size) {
    uintptr_t from = (uintptr_t)start, limit = from + size, self = (uintptr_t)h;
    if (self >= from && self < limit) from = self + sizeof *h;
    hlsnap__rt_memset(h, 0, sizeof *h);
    h->base = (from + 8 + 15) / 16 * 16 - 8;
    h->end = limit > h->base ? h->base + (limit - h->base) / 16 * 16 : h->base;
    if (h->end - h->base > HLSNAP__RT_HEAP_MAX) h->end = h->base + HLSNAP__RT_HEAP_MAX / 16 * 16;
    h->top = h->high = h->base;
}

// A free block of at least `need` bytes, or 0. A bin with broken contents is given up.
static HLSNAP__UNUSED uintptr_t hlsnap__rt_heap_find(hlsnap__rt_heap *h, size_t need, size_t scan) {
    unsigned i = hlsnap__rt_bin(need);
    uintptr_t at = (uintptr_t)h->bin[i];
    for (; at != 0 && scan > 0; scan--, at = (uintptr_t)hlsnap__rt_block_at(at)->next) {
        size_t size = hlsnap__rt_free_size(h, at);
        if (size >= need) return at;
        if (size == 0) {
            hlsnap__rt_bin_drop(h, i);
            break;
        }
    }
    for (i++; i < HLSNAP__RT_BINS;) {
        uint64_t above = h->filled[i / 64] >> i % 64;
        if (above == 0) {
            i = (i / 64 + 1) * 64;
            continue;
        }
        i += (unsigned)__builtin_ctzll(above);
        if (hlsnap__rt_free_size(h, (uintptr_t)h->bin[i]) >= need) return (uintptr_t)h->bin[i];
        hlsnap__rt_bin_drop(h, i);
    }
    return 0;
}

// Block size for a request; 0 when no heap could hold it.
static HLSNAP__UNUSED size_t hlsnap__rt_need(size_t size) {
    size_t need;
    if (size > HLSNAP__RT_HEAP_MAX) return 0;
    need = (size + 8 + 15) / 16 * 16;
    return need < HLSNAP__RT_MIN_BLOCK ? HLSNAP__RT_MIN_BLOCK : need;
}

static HLSNAP__UNUSED void *hlsnap__rt_heap_alloc(hlsnap__rt_heap *h, size_t size) {
    size_t need = hlsnap__rt_need(size), have = need;
    uintptr_t at;
    if (need == 0) return NULL;
    at = hlsnap__rt_heap_find(h, need, HLSNAP__RT_SCAN);
    if (at == 0 && need > h->end - h->top)
        at = hlsnap__rt_heap_find(h, need, (h->top - h->base) / HLSNAP__RT_MIN_BLOCK);
    if (at != 0) {
        have = hlsnap__rt_size(hlsnap__rt_block_at(at)->head);
        hlsnap__rt_unlink(h, at);
    } else if (need <= h->end - h->top) {
        at = h->top;
        h->top += need;
        h->high = h->top > h->high ? h->top : h->high;
    } else {
        return NULL;
    }
    hlsnap__rt_carve(h, at, have, need, 0);
    return (void *)(at + 8);
}

/* returns   0, also for NULL
             1   not a live block of this heap: freed before, foreign, or its head overwritten
             2   a live block with a broken neighbour; nothing was changed  */
static HLSNAP__UNUSED int hlsnap__rt_heap_free(hlsnap__rt_heap *h, void *p) {
    uintptr_t at = (uintptr_t)p - 8, next;
    uint64_t bits, behind;
    size_t size, after = 0, before = 0;
    if (p == NULL) return 0;
    bits = hlsnap__rt_head(h, at);
    if ((bits & HLSNAP__RT_LIVE) == 0) return 1;
    size = hlsnap__rt_size(bits);
    next = at + size;
    if (next < h->top) {
        behind = hlsnap__rt_head(h, next);
        if (behind == 0 || (behind & HLSNAP__RT_PREV_FREE) != 0) return 2;
        if ((behind & HLSNAP__RT_LIVE) == 0 && (after = hlsnap__rt_free_size(h, next)) == 0) return 2;
    }
    if ((bits & HLSNAP__RT_PREV_FREE) != 0) {
        before = (size_t) * (const hlsnap__rt_word *)(at - 8);
        if (before == 0 || before > at - h->base || hlsnap__rt_free_size(h, at - before) != before) return 2;
    }
    h->live -= size;
    // A second free finds this mark, wherever the block ends up.
    hlsnap__rt_block_at(at)->head = hlsnap__rt_seal(at, size);
    if (after != 0) hlsnap__rt_unlink(h, next);
    if (before != 0) hlsnap__rt_unlink(h, at - before);
    hlsnap__rt_release(h, at - before, before + size + after);
    return 0;
}

/* Grows in place into a free neighbour or the tail, else moves. NULL p: alloc. Size 0: shrinks to
   a minimal block.
   returns   the block; NULL: no room (p stays as it was) or p is not a live block  */
static HLSNAP__UNUSED void *hlsnap__rt_heap_realloc(hlsnap__rt_heap *h, void *p, size_t size) {
    size_t need = hlsnap__rt_need(size), old, have;
    uintptr_t at = (uintptr_t)p - 8, next;
    uint64_t bits;
    void *moved;
    if (p == NULL) return hlsnap__rt_heap_alloc(h, size);
    bits = hlsnap__rt_head(h, at);
    if (need == 0 || (bits & HLSNAP__RT_LIVE) == 0) return NULL;
    old = have = hlsnap__rt_size(bits);
    next = at + old;
    if (need == old) return p;
    if (next == h->top && need > old && need - old <= h->end - h->top) {
        h->top = at + need;
        h->high = h->top > h->high ? h->top : h->high;
        have = need;
    } else if (next != h->top && old + hlsnap__rt_free_size(h, next) >= need) {
        have += hlsnap__rt_free_size(h, next);
        if (have > old) hlsnap__rt_unlink(h, next);
    }
    if (have >= need) {
        h->live -= old;
        hlsnap__rt_carve(h, at, have, need, bits & HLSNAP__RT_PREV_FREE);
        return p;
    }
    moved = hlsnap__rt_heap_alloc(h, size);
    if (moved == NULL) return NULL;
    hlsnap__rt_memcpy(moved, p, old - 8);
    (void)hlsnap__rt_heap_free(h, p);
    return moved;
}

/* A block whose address is a multiple of `align`, a power of two. What is cut off in front of it is a free block.
   returns   the block; NULL: no room for it and for what may be cut off  */
static HLSNAP__UNUSED void *hlsnap__rt_heap_aligned(hlsnap__rt_heap *h, size_t align, size_t size) {
    const size_t need = hlsnap__rt_need(size);
    uintptr_t p, at;
    size_t gap, have;
    if (align == 0 || (align & (align - 1)) != 0 || need == 0 || align > HLSNAP__RT_HEAP_MAX) return NULL;
    if (align <= 16) return hlsnap__rt_heap_alloc(h, size);
    p = (uintptr_t)hlsnap__rt_heap_alloc(h, need + align + HLSNAP__RT_MIN_BLOCK);
    if (p == 0) return NULL;
    at = p - 8;
    have = hlsnap__rt_size(hlsnap__rt_block_at(at)->head);
    h->live -= have;
    gap = (size_t)(0 - p) & (align - 1);
    if (gap != 0 && gap < HLSNAP__RT_MIN_BLOCK) gap += align;
    hlsnap__rt_block_at(at + gap)->head = hlsnap__rt_seal(at + gap, (have - gap) | HLSNAP__RT_LIVE);
    if (gap != 0) hlsnap__rt_release(h, at, gap);
    if (at + have != h->top) { /* what heap_alloc cut off behind it joins what is cut off now */
        const uintptr_t next = at + have;
        const size_t after = hlsnap__rt_free_size(h, next);
        if (after != 0) hlsnap__rt_unlink(h, next);
        have += after;
    }
    hlsnap__rt_carve(h, at + gap, have - gap, need, gap != 0 ? HLSNAP__RT_PREV_FREE : 0);
    return (void *)(p + gap);
}

// Bytes that the owner of a live block may use; 0 for all else.
static HLSNAP__UNUSED size_t hlsnap__rt_heap_usable(const hlsnap__rt_heap *h, const void *p) {
    const uint64_t bits = p ? hlsnap__rt_head(h, (uintptr_t)p - 8) : 0;
    return (bits & HLSNAP__RT_LIVE) != 0 ? hlsnap__rt_size(bits) - 8 : 0;
}

// Zeroes [from, to), multiples of 8. What is zero is only read: a page that nobody wrote stays shared.
static HLSNAP__UNUSED void hlsnap__rt_zero(uintptr_t from, uintptr_t to) {
    while (from < to) {
        const uintptr_t page = (from | 4095) + 1, end = page < to ? page : to;
        uintptr_t at = from;
        while (at < end && *(const hlsnap__rt_word *)at == 0) at += 8;
        if (at < end) hlsnap__rt_memset((void *)at, 0, end - at);
        from = end;
    }
}

// All that is free becomes zero, but for the lists. Stops at a broken head.
static HLSNAP__UNUSED void hlsnap__rt_heap_trim(hlsnap__rt_heap *h) {
    uintptr_t at = h->base;
    uint64_t bits;
    for (; at < h->top && (bits = hlsnap__rt_head(h, at)) != 0; at += hlsnap__rt_size(bits))
        if ((bits & HLSNAP__RT_LIVE) == 0)
            hlsnap__rt_zero(at + sizeof(hlsnap__rt_block), at + hlsnap__rt_size(bits) - 8);
    if (h->top <= h->high && h->high <= h->end) hlsnap__rt_zero(h->top, h->high);
}

// Number of blocks in the lists; SIZE_MAX if one is broken or in the wrong place.
static HLSNAP__UNUSED size_t hlsnap__rt_check_bins(const hlsnap__rt_heap *h) {
    size_t count = 0, most = (h->top - h->base) / HLSNAP__RT_MIN_BLOCK;
    unsigned i;
    for (i = 0; i < HLSNAP__RT_BINS; i++) {
        const hlsnap__rt_block *b = h->bin[i];
        if ((b != NULL) != ((h->filled[i / 64] >> i % 64 & 1u) != 0)) return SIZE_MAX;
        for (; b != NULL; b = b->next) {
            size_t size = hlsnap__rt_free_size(h, (uintptr_t)b);
            if (size == 0 || hlsnap__rt_bin(size) != i || ++count > most) return SIZE_MAX;
        }
    }
    return count;
}

/* Walks every block and every list.
   returns   0; wrong: 1 the heap struct, 2 a head, 3 neighbours' flags, 4 a footer, 5 a list, 6 the count  */
static HLSNAP__UNUSED int hlsnap__rt_heap_check(const hlsnap__rt_heap *h) {
    uintptr_t at = h->base;
    size_t count = 0, live = 0;
    bool was_free = false;
    if (h->top < h->base || h->top > h->high || h->high > h->end || (h->base & 15u) != 8) return 1;
    while (at < h->top) {
        uint64_t bits = hlsnap__rt_head(h, at);
        bool is_free = (bits & HLSNAP__RT_LIVE) == 0;
        if (bits == 0) return 2;
        if (was_free != ((bits & HLSNAP__RT_PREV_FREE) != 0) || (was_free && is_free)) return 3;
        at += hlsnap__rt_size(bits);
        if (is_free && *(const hlsnap__rt_word *)(at - 8) != hlsnap__rt_size(bits)) return 4;
        count += is_free;
        if (!is_free) live += hlsnap__rt_size(bits);
        was_free = is_free;
    }
    if (was_free) return 3;
    if (live != h->live) return 6;
    return hlsnap__rt_check_bins(h) == count ? 0 : 5;
}

/* ---- >>rt_random ---- */

// A copy of the struct, and so a restored snapshot, repeats the stream: seed again after a restore.
typedef struct hlsnap__rt_random {
    uint32_t key[8];
    uint64_t counter; // blocks made so far
    uint32_t left;    // unused bytes, at the end of out[]
    uint32_t unused;
    uint8_t out[256];
} hlsnap__rt_random;

// The asm counts as a reader, so the stores to dying memory stay.
static HLSNAP__UNUSED void hlsnap__rt_wipe(void *p, size_t n) {
    hlsnap__rt_memset(p, 0, n);
    __asm__ volatile("" : : "r"(p) : "memory");
}

static HLSNAP__UNUSED uint32_t hlsnap__rt_rotl(uint32_t v, unsigned n) { return v << n | v >> (32 - n); }

static HLSNAP__UNUSED void hlsnap__rt_quarter(uint32_t *x, unsigned a, unsigned b, unsigned c, unsigned d) {
    x[a] += x[b];
    x[d] = hlsnap__rt_rotl(x[d] ^ x[a], 16);
    x[c] += x[d];
    x[b] = hlsnap__rt_rotl(x[b] ^ x[c], 12);
    x[a] += x[b];
    x[d] = hlsnap__rt_rotl(x[d] ^ x[a], 8);
    x[c] += x[d];
    x[b] = hlsnap__rt_rotl(x[b] ^ x[c], 7);
}

// The ChaCha20 block function (RFC 8439, 2.3): 16 state words to 64 bytes of key stream.
static HLSNAP__UNUSED void hlsnap__rt_chacha_block(const uint32_t state[16], uint8_t out[64]) {
    uint32_t x[16];
    unsigned i;
    hlsnap__rt_memcpy(x, state, sizeof x);
    for (i = 0; i < 10; i++) {
        hlsnap__rt_quarter(x, 0, 4, 8, 12);
        hlsnap__rt_quarter(x, 1, 5, 9, 13);
        hlsnap__rt_quarter(x, 2, 6, 10, 14);
        hlsnap__rt_quarter(x, 3, 7, 11, 15);
        hlsnap__rt_quarter(x, 0, 5, 10, 15);
        hlsnap__rt_quarter(x, 1, 6, 11, 12);
        hlsnap__rt_quarter(x, 2, 7, 8, 13);
        hlsnap__rt_quarter(x, 3, 4, 9, 14);
    }
    for (i = 0; i < 16; i++) {
        uint32_t v = x[i] + state[i];
        out[4 * i] = (uint8_t)v;
        out[4 * i + 1] = (uint8_t)(v >> 8);
        out[4 * i + 2] = (uint8_t)(v >> 16);
        out[4 * i + 3] = (uint8_t)(v >> 24);
    }
    hlsnap__rt_wipe(x, sizeof x);
}

static HLSNAP__UNUSED void hlsnap__rt_random_key(hlsnap__rt_random *r, const uint8_t from[32]) {
    unsigned i;
    for (i = 0; i < 8; i++)
        r->key[i] = (uint32_t)from[4 * i] | (uint32_t)from[4 * i + 1] << 8 | (uint32_t)from[4 * i + 2] << 16 |
                    (uint32_t)from[4 * i + 3] << 24;
}

static HLSNAP__UNUSED void hlsnap__rt_random_seed(hlsnap__rt_random *r, const uint8_t seed[32]) {
    hlsnap__rt_memset(r, 0, sizeof *r);
    hlsnap__rt_random_key(r, seed);
}

// Fast key erasure: the first 32 bytes of each refill replace the key that made it, so a later look
// at the struct (or at a snapshot of it) cannot tell what was handed out before.
static HLSNAP__UNUSED void hlsnap__rt_random_refill(hlsnap__rt_random *r) {
    uint32_t state[16];
    size_t at;
    state[0] = 0x61707865; // "expand 32-byte k"
    state[1] = 0x3320646e;
    state[2] = 0x79622d32;
    state[3] = 0x6b206574;
    hlsnap__rt_memcpy(state + 4, r->key, sizeof r->key);
    state[14] = state[15] = 0;
    for (at = 0; at < sizeof r->out; at += 64, r->counter++) {
        state[12] = (uint32_t)r->counter;
        state[13] = (uint32_t)(r->counter >> 32);
        hlsnap__rt_chacha_block(state, r->out + at);
    }
    hlsnap__rt_random_key(r, r->out);
    hlsnap__rt_wipe(r->out, 32);
    hlsnap__rt_wipe(state, sizeof state);
    r->left = (uint32_t)sizeof r->out - 32;
}

static HLSNAP__UNUSED void hlsnap__rt_random_bytes(hlsnap__rt_random *r, void *to, size_t n) {
    uint8_t *d = (uint8_t *)to;
    while (n > 0) {
        uint8_t *from;
        size_t part;
        if (r->left == 0) hlsnap__rt_random_refill(r);
        part = n < r->left ? n : r->left;
        from = r->out + sizeof r->out - r->left;
        hlsnap__rt_memcpy(d, from, part);
        hlsnap__rt_wipe(from, part);
        r->left -= (uint32_t)part;
        d += part;
        n -= part;
    }
}

/* ---- >>guest-runtime: runs in the VM; no libc, no mutable statics ---- */

#ifdef HLSNAP_GUEST
#define hlsnap__rt_in_guest 1
#else
/* The loader stores 1 into the copy in guest memory; on the host it stays 0. */
static const volatile uint64_t hlsnap__rt_in_guest = 0;
#endif

typedef struct hlsnap__rt_state {  /* at the start of the tls region: every call writes it, few need the heap */
    hlsnap_call *call;             /* the export in progress, or NULL */
    hlsnap__signature *signatures; /* of the exports, then of the imports */
    void (*on_start)(void *user);  /* hlsnap_rt_on_start; not of libc guests */
    void *on_start_user;
    uint8_t started_as[16]; /* identity of the run that on_start knows of */
    int32_t error_number;   /* errno */
    uint8_t seeded_for[16]; /* identity the random source was seeded for */
    hlsnap__rt_random random;
    void *large, *result, *response; /* a call's message, its result, a response: those that had no room in the mailbox */
    hlsnap__rt_heap heap;
} hlsnap__rt_state;
HLSNAP__STATIC_ASSERT(rt_state, sizeof(hlsnap__rt_state) <= HLSNAP_ABI_RUNTIME_MIN);

#if defined(__x86_64__)
#if defined(HLSNAP_GUEST_LIBC)
static const hlsnap_abi_identity *hlsnap__rt_identity(void); /* FS is the libc's: >>linux knows */
#else
static const hlsnap_abi_identity *hlsnap__rt_identity(void) {
    uint64_t tcb;
    __asm__ volatile("movq %%fs:0, %0" : "=r"(tcb));
    return (const hlsnap_abi_identity *)(uintptr_t)(tcb + HLSNAP_ABI_IDENTITY_OFFSET);
}
#endif
static void hlsnap__rt_out_return(void) {
    __asm__ volatile("outb %%al, %0" : : "N"(HLSNAP_ABI_PORT_RETURN), "a"(0) : "memory");
}
static void hlsnap__rt_out_call(void) {
    __asm__ volatile("outb %%al, %0" : : "N"(HLSNAP_ABI_PORT_CALL), "a"(0) : "memory");
}
#else /* no guests of this architecture yet */
static const hlsnap_abi_identity *hlsnap__rt_identity(void) {
    uintptr_t none = 0;
    HLSNAP__RT_HIDE(none); /* else the compiler warns of what follows from a NULL that nobody comes to see */
    return (const hlsnap_abi_identity *)none;
}
static void hlsnap__rt_out_return(void) {}
static void hlsnap__rt_out_call(void) {}
#endif

static hlsnap_abi_mailbox *hlsnap__rt_mailbox(void) {
    return (hlsnap_abi_mailbox *)(uintptr_t)hlsnap__rt_identity()->mailbox;
}
static hlsnap__rt_state *hlsnap__rt_state_get(void) {
    return (hlsnap__rt_state *)(uintptr_t)hlsnap__rt_identity()->runtime;
}

static const hlsnap_module *hlsnap__rt_module(void) {
#ifdef HLSNAP_GUEST
    return hlsnap_rt_module;
#else
    return (const hlsnap_module *)(uintptr_t)hlsnap__rt_identity()->module;
#endif
}

/* Where a request goes: behind whatever the export returned so far. *room: the bytes there. */
#if defined(HLSNAP_GUEST_LIBC)
/* Behind the results, too, while the libc flushes: >>linux knows. */
static uint8_t *hlsnap__rt_request_at(size_t *room);
#else
static uint8_t *hlsnap__rt_request_at(size_t *room) {
    hlsnap_abi_mailbox *m = hlsnap__rt_mailbox();
    const hlsnap_call *call = hlsnap__rt_state_get()->call;
    uint8_t *at =
        call ? call->box + (call->out == call->box ? call->used : 0) : (uint8_t *)m + m->out_offset;
    *room = (size_t)((uint8_t *)m + m->out_offset + m->out_size - at);
    return at;
}
#endif

/* Sends a request; false when there is no room for it. */
static bool hlsnap__rt_request(uint32_t function, const hlsnap_value *args, size_t num) {
    hlsnap_abi_mailbox *m = hlsnap__rt_mailbox();
    size_t room;
    uint8_t *at = hlsnap__rt_request_at(&room);
    if (!hlsnap__message_write(at, room, function, HLSNAP_ABI_STATUS_OK, args, num)) return false;
    m->request = (uint32_t)(at - (uint8_t *)m);
    hlsnap__rt_out_call();
    return true;
}

/* How much heap there was use for, before the guest leaves for good. */
#if defined(HLSNAP_GUEST_LIBC)
static void hlsnap__rt_tell(hlsnap_abi_mailbox *m); /* pages: >>linux knows */
#else
static void hlsnap__rt_tell(hlsnap_abi_mailbox *m) {
    const hlsnap__rt_heap *h = &hlsnap__rt_state_get()->heap;
    m->heap_used = h->live;
    m->heap_peak = h->high - hlsnap__rt_identity()->heap;
}
#endif

HLSNAP_API __attribute__((__noreturn__)) void hlsnap_rt_abort(int32_t user_code, const char *text) {
    hlsnap_value v[2];
    if (!hlsnap__rt_in_guest) __builtin_trap();
    hlsnap__rt_tell(hlsnap__rt_mailbox());
    v[0] = hlsnap_i32(user_code);
    v[1] = hlsnap_str(text);
    if (v[1].size > 255) v[1] = hlsnap_str("(a text of over 255 bytes)");
    hlsnap__rt_request(HLSNAP_ABI_FN_ABORT, v, 2);
    for (;;) hlsnap__rt_out_return(); /* only when the host went on after an abort */
}

/* ABI: negative codes are the runtime's own. */
#define HLSNAP__ABORT_STACK (-1)
#define HLSNAP__ABORT_HEAP (-2)
#define HLSNAP__ABORT_LIBC (-3)
#define HLSNAP__ABORT_OVERFLOW (-4)
#define HLSNAP__ABORT_MAILBOX (-5)

#if defined(HLSNAP_GUEST_LIBC) && !defined(HLSNAP_GUEST_RUNTIME)
extern void *hlsnap__libc_malloc(size_t size) __asm__("malloc");
extern void *hlsnap__libc_realloc(void *p, size_t size) __asm__("realloc");
extern void hlsnap__libc_free(void *p) __asm__("free");
HLSNAP_API void *hlsnap_rt_malloc(size_t size) { return hlsnap__libc_malloc(size ? size : 1); }
HLSNAP_API void *hlsnap_rt_realloc(void *p, size_t size) { return hlsnap__libc_realloc(p, size ? size : 1); }
HLSNAP_API void hlsnap_rt_free(void *p) { hlsnap__libc_free(p); }
#else
HLSNAP_API void *hlsnap_rt_malloc(size_t size) {
    return hlsnap__rt_in_guest ? hlsnap__rt_heap_alloc(&hlsnap__rt_state_get()->heap, size) : NULL;
}

HLSNAP_API void *hlsnap_rt_realloc(void *p, size_t size) {
    return hlsnap__rt_in_guest ? hlsnap__rt_heap_realloc(&hlsnap__rt_state_get()->heap, p, size) : NULL;
}

HLSNAP_API void hlsnap_rt_free(void *p) {
    if (p && hlsnap__rt_in_guest && hlsnap__rt_heap_free(&hlsnap__rt_state_get()->heap, p))
        hlsnap_rt_abort(HLSNAP__ABORT_HEAP, "free of what is no live block");
}
#endif

#ifdef HLSNAP_GUEST
static void *hlsnap__call_alloc(const hlsnap_call *call, size_t size) { return (void)call, hlsnap_rt_malloc(size); }
static void hlsnap__call_free(void *p) { hlsnap_rt_free(p); }
#endif

/* In a guest: the host copies a large result now, so that it may go. false: not in a guest, or not that large. */
static bool hlsnap__rt_give(const hlsnap_value *result) {
    hlsnap_value v[2];
    if (!hlsnap__rt_in_guest) return false;
    v[0] = hlsnap_u64((uint64_t)(uintptr_t)(result->type == HLSNAP_STR ? (const void *)result->str : (const void *)result->bytes));
    v[1] = hlsnap_u64(result->size);
    return hlsnap__rt_request(HLSNAP_ABI_FN_RESULT, v, 2);
}

HLSNAP_API void *hlsnap_rt_calloc(size_t count, size_t size) {
    void *p = size && count > SIZE_MAX / size ? NULL : hlsnap_rt_malloc(count * size);
    if (p) hlsnap__rt_memset(p, 0, count * size);
    return p;
}

HLSNAP_API int hlsnap_rt_snprintf(char *to, size_t cap, const char *fmt, ...) {
    va_list ap;
    int n;
    va_start(ap, fmt);
    n = hlsnap__rt_vformat(to, cap, fmt, ap);
    va_end(ap);
    return n;
}

HLSNAP_API int hlsnap_rt_vsnprintf(char *to, size_t cap, const char *fmt, __builtin_va_list ap) {
    return hlsnap__rt_vformat(to, cap, fmt, ap);
}

static void hlsnap__rt_vlog(int level, const char *fmt, va_list ap) {
    char text[1024];
    hlsnap_value v[2];
    int n;
    if (!hlsnap__rt_in_guest || level > hlsnap__rt_identity()->log_level) return;
    n = hlsnap__rt_vformat(text, sizeof(text), fmt, ap);
    if (n < 0) return;
    v[0] = hlsnap_i32(level);
    v[1] = hlsnap_str("");
    v[1].str = text;
    v[1].size = (size_t)n < sizeof(text) ? (size_t)n : hlsnap__utf8_whole(text, sizeof(text) - 1);
    hlsnap__rt_request(HLSNAP_ABI_FN_LOG, v, 2);
}

HLSNAP_API void hlsnap_rt_print(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    hlsnap__rt_vlog(0, fmt, ap);
    va_end(ap);
}

HLSNAP_API void hlsnap_rt_log(int level, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    hlsnap__rt_vlog(level < 1 ? 1 : level, fmt, ap);
    va_end(ap);
}

HLSNAP_API void hlsnap_rt_random(void *to, size_t n) {
    hlsnap__rt_state *s;
    const hlsnap_abi_identity *id;
    hlsnap__rt_memset(to, 0, n);
    if (!hlsnap__rt_in_guest) return;
    s = hlsnap__rt_state_get();
    id = hlsnap__rt_identity();
    if (hlsnap__rt_memcmp(s->seeded_for, id->id, sizeof(s->seeded_for)) !=
        0) { /* a start or restore since the last time */
        hlsnap__rt_random_seed(&s->random, id->entropy);
        hlsnap__rt_memcpy(s->seeded_for, id->id, sizeof(s->seeded_for));
    }
    hlsnap__rt_random_bytes(&s->random, to, n);
}

HLSNAP_API void hlsnap_rt_write(int stream, const void *bytes, size_t size) {
    const uint8_t *from = (const uint8_t *)bytes;
    if (!hlsnap__rt_in_guest || (stream != 1 && stream != 2) ||
        !(hlsnap__rt_identity()->options & HLSNAP_ABI_OPTION_OUTPUT))
        return;
    while (size) {
        hlsnap_value v[2];
        size_t room, n;
        hlsnap__rt_request_at(&room);
        if (room <= 64) return; /* only when the mailbox's header was overwritten: 1,280 bytes stay free for such */
        n = size < room - 64 ? size : room - 64; /* 48 bytes and up to 8 are the message's own */
        v[0] = hlsnap_i32(stream);
        v[1] = hlsnap_bytes(from, n);
        if (!hlsnap__rt_request(HLSNAP_ABI_FN_OUTPUT, v, 2)) return;
        from += n;
        size -= n;
    }
}

HLSNAP_API uint64_t hlsnap_rt_time_ns(void) {
    hlsnap_value v[2];
    if (!hlsnap__rt_in_guest || !(hlsnap__rt_identity()->options & HLSNAP_ABI_OPTION_CLOCK)) return 0;
    v[0] = hlsnap_i32(0);
    v[1] = hlsnap_str("");
    if (!hlsnap__rt_mailbox()->realtime_ns) hlsnap__rt_request(HLSNAP_ABI_FN_CLOCK, v, 2);
    return hlsnap__rt_mailbox()->realtime_ns;
}

HLSNAP_API void *hlsnap_rt_map(const char *name, uint64_t *size) {
    const hlsnap_abi_mailbox *m = hlsnap__rt_in_guest ? hlsnap__rt_mailbox() : NULL;
    hlsnap_abi_message head;
    hlsnap_value v[2];
    if (size) *size = 0;
    v[0] = hlsnap_i32(0);
    v[1] = hlsnap_str(name);
    if (!m || !name || !hlsnap__rt_request(HLSNAP_ABI_FN_MAP, v, 2)) return NULL;
    if (!hlsnap__message_read((const uint8_t *)m + m->response, m->in_offset + m->in_size - m->response, &head, v, 2) ||
        head.num_values != 2)
        hlsnap_rt_abort(HLSNAP__ABORT_MAILBOX, "malformed response");
    if (size) *size = v[1].as.u64;
    return (void *)(uintptr_t)v[0].as.u64;
}

#if !defined(HLSNAP_GUEST_LIBC)
HLSNAP_API void hlsnap_rt_trim(void) {
    if (hlsnap__rt_in_guest) hlsnap__rt_heap_trim(&hlsnap__rt_state_get()->heap);
}

HLSNAP_API void hlsnap_rt_on_start(void (*fn)(void *user), void *user) {
    hlsnap__rt_state *s;
    if (!hlsnap__rt_in_guest) return;
    s = hlsnap__rt_state_get();
    s->on_start = fn;
    s->on_start_user = user;
    hlsnap__rt_memcpy(s->started_as, hlsnap__rt_identity()->id, sizeof(s->started_as));
}

/* In every entry, before its calls. */
static void hlsnap__rt_arrive(void) {
    hlsnap__rt_state *s = hlsnap__rt_state_get();
    const uint8_t *id = hlsnap__rt_identity()->id;
    if (!s->on_start || (hlsnap__rt_load(id) == hlsnap__rt_load(s->started_as) &&
                         hlsnap__rt_load(id + 8) == hlsnap__rt_load(s->started_as + 8)))
        return;
    hlsnap__rt_memcpy(s->started_as, id, sizeof(s->started_as));
    s->on_start(s->on_start_user);
}
#endif

HLSNAP_API uint64_t hlsnap_rt_generation(void) { return hlsnap__rt_in_guest ? hlsnap__rt_identity()->generation : 0; }

/* A request whose large arguments are not copied but referred to. */
static bool hlsnap__rt_request_large(uint32_t function, const hlsnap_value *args, size_t num) {
    hlsnap_abi_mailbox *m = hlsnap__rt_mailbox();
    size_t room;
    uint8_t *at = hlsnap__rt_request_at(&room);
    if (!hlsnap__message_refer(at, room, function, args, num)) return false;
    m->request = (uint32_t)(at - (uint8_t *)m);
    hlsnap__rt_out_call();
    return true;
}

/* The response that had no room in the mailbox; NULL: nor has it in the heap. */
static const uint8_t *hlsnap__rt_take(uint64_t size) {
    hlsnap__rt_state *s = hlsnap__rt_state_get();
    hlsnap_value v[2];
    s->response = size <= HLSNAP__LARGE_MOST ? hlsnap_rt_malloc(size) : NULL;
    v[0] = hlsnap_u64((uint64_t)(uintptr_t)s->response);
    v[1] = hlsnap_u64(size);
    hlsnap__rt_request(HLSNAP_ABI_FN_TAKE, v, 2);
    return (const uint8_t *)s->response;
}

/* The response to a host call: its value, or the failure in err. */
static hlsnap_result hlsnap__rt_response(const hlsnap__signature *sig, const char *name, hlsnap_value *out,
                                         hlsnap_error *err) {
    const hlsnap_abi_mailbox *m = hlsnap__rt_mailbox();
    const uint8_t *at = (const uint8_t *)m + m->response;
    const uint8_t *end = (const uint8_t *)m + m->in_offset + m->in_size;
    hlsnap_abi_message head;
    hlsnap_value v[2];
    hlsnap_result code;
    if (!hlsnap__message_read(at, (size_t)(end - at), &head, v, 2))
        hlsnap_rt_abort(HLSNAP__ABORT_MAILBOX, "malformed response");
    if (head.status == HLSNAP_ABI_STATUS_LARGE) {
        const uint64_t size = head.num_values ? v[0].as.u64 : 0;
        at = hlsnap__rt_take(size);
        if (!at)
            return hlsnap__fail(err, HLSNAP_ERR_LIMIT, 0, "the result of %s takes %llu bytes, which the heap has not",
                                name, (unsigned long long)size);
        if (!hlsnap__message_read(at, (size_t)size, &head, v, 2))
            hlsnap_rt_abort(HLSNAP__ABORT_MAILBOX, "malformed response");
    }
    if (head.status == HLSNAP_ABI_STATUS_OK) {
        if (head.num_values != (sig->result != HLSNAP_VOID) || (head.num_values && (uint32_t)v[0].type != sig->result))
            return hlsnap__fail(err, HLSNAP_ERR_SIGNATURE, 0, "%s returned another type than the import says", name);
        if (out) *out = head.num_values ? v[0] : hlsnap__value(HLSNAP_VOID);
        return HLSNAP_OK;
    }
    if (head.num_values != 2 || v[0].type != HLSNAP_I32 || v[1].type != HLSNAP_STR)
        hlsnap_rt_abort(HLSNAP__ABORT_MAILBOX, "malformed response");
    code = head.status == HLSNAP_ABI_STATUS_FAILED ? HLSNAP_ERR_FUNCTION : (hlsnap_result)v[0].as.i32;
    if (!code) hlsnap_rt_abort(HLSNAP__ABORT_MAILBOX, "malformed response");
    hlsnap__fail(err, code, 0, "%s", v[1].str);
    if (err && code == HLSNAP_ERR_FUNCTION) err->user_code = v[0].as.i32;
    return code;
}

static int hlsnap__rt_strcmp(const char *a, const char *b);

HLSNAP_API hlsnap_result hlsnap_rt_call(const char *name, const hlsnap_value *args, size_t num_args, hlsnap_value *out,
                                        hlsnap_error *err) {
    const hlsnap_module *module;
    const hlsnap__signature *sig;
    hlsnap_result r;
    size_t i;
    if (!hlsnap__rt_in_guest || !hlsnap__rt_state_get()->call)
        return hlsnap__fail(err, HLSNAP_ERR_STATE, 0, "hlsnap_rt_call(%s) outside a guest's export", name);
    module = hlsnap__rt_module();
    for (i = 0; i < module->num_imports; i++)
        if (hlsnap__rt_strcmp(module->imports[i].name, name) == 0) break;
    if (i == module->num_imports)
        return hlsnap__fail(err, HLSNAP_ERR_NOT_FOUND, 0, "%s is not among the imports", name);
    sig = &hlsnap__rt_state_get()->signatures[module->num_exports + i];
    r = hlsnap__args_check(sig, name, args, num_args, err);
    if (r) return r;
    if (hlsnap__rt_state_get()->response) {
        hlsnap_rt_free(hlsnap__rt_state_get()->response);
        hlsnap__rt_state_get()->response = NULL;
    }
    if (!hlsnap__rt_request((uint32_t)i, args, num_args) && !hlsnap__rt_request_large((uint32_t)i, args, num_args))
        return hlsnap__fail(err, HLSNAP_ERR_LIMIT, 0, "the arguments of %s take %zu bytes: too many, mailbox_size=%llu",
                            name, hlsnap__message_size(args, num_args),
                            (unsigned long long)hlsnap__rt_identity()->mailbox_size);
    return hlsnap__rt_response(sig, name, out, err);
}

/* Lists exports and imports for the host: one message, name and signature in turn. */
static bool hlsnap__rt_list(hlsnap_abi_mailbox *m, const hlsnap_module *module) {
    const size_t num = module->num_exports + module->num_imports;
    uint8_t *out = (uint8_t *)m + m->out_offset;
    size_t i, k, at = sizeof(hlsnap_abi_message) + 2 * num * sizeof(hlsnap_abi_value);
    hlsnap_abi_message head;
    if (at > m->out_size || module->num_exports > HLSNAP_MAX_FUNCTIONS || module->num_imports > HLSNAP_MAX_FUNCTIONS)
        return false;
    for (i = 0; i < num; i++) {
        const hlsnap_function *f =
            i < module->num_exports ? &module->exports[i] : &module->imports[i - module->num_exports];
        const char *text[2];
        text[0] = f->name;
        text[1] = f->signature;
        for (k = 0; k < 2; k++) {
            hlsnap_abi_value row;
            size_t n = hlsnap__rt_strlen(text[k]);
            if (hlsnap__round8(n + 1) > m->out_size - at) return false;
            row.type = HLSNAP_STR;
            row.size = (uint32_t)n;
            row.bits = at;
            hlsnap__rt_memcpy(out + sizeof(head) + (2 * i + k) * sizeof(row), &row, sizeof(row));
            hlsnap__rt_memset(out + at + n, 0, hlsnap__round8(n + 1) - n);
            hlsnap__rt_memcpy(out + at, text[k], n);
            at += hlsnap__round8(n + 1);
        }
    }
    head.size = (uint32_t)at;
    head.function = 0;
    head.status = HLSNAP_ABI_STATUS_OK;
    head.num_values = (uint32_t)(2 * num);
    hlsnap__rt_memcpy(out, &head, sizeof(head));
    m->num_exports = (uint32_t)module->num_exports;
    m->num_done = 1;
    return true;
}

#if defined(HLSNAP_GUEST) && !defined(HLSNAP_GUEST_LIBC)
extern void (*const __init_array_start[])(void) __attribute__((__weak__, __visibility__("hidden")));
extern void (*const __init_array_end[])(void) __attribute__((__weak__, __visibility__("hidden")));

/* IRELATIVE relocations: indirect functions, whose address a function of the image chooses by the CPU. A static image that is not
   position independent has them between these two, one that is has them in the tables that its dynamic section names. */
typedef struct hlsnap__rt_rela {
    uint64_t at, info, addend;
} hlsnap__rt_rela;
extern const hlsnap__rt_rela __rela_iplt_start[] __attribute__((__weak__, __visibility__("hidden")));
extern const hlsnap__rt_rela __rela_iplt_end[] __attribute__((__weak__, __visibility__("hidden")));
extern const uint64_t _DYNAMIC[]
    __attribute__((__weak__, __visibility__("hidden"))); /* tag, value; the last tag is 0 */
extern const uint8_t __ehdr_start[] __attribute__((__weak__, __visibility__("hidden")));

static void hlsnap__rt_indirect(const hlsnap__rt_rela *row, uint64_t bytes, uint64_t base) {
    for (; bytes >= sizeof(*row); row++, bytes -= sizeof(*row))
        if ((uint32_t)row->info == 37) /* R_X86_64_IRELATIVE */
            *(hlsnap__rt_word *)(uintptr_t)(row->at + base) =
                ((uint64_t(*)(void))(uintptr_t)(row->addend + base))(); /* it may not look at its arguments */
}

/* Where the image is, less where it was linked to be: by the program header of the dynamic section (type 2). */
static uint64_t hlsnap__rt_base(void) {
    const uint8_t *at = __ehdr_start + hlsnap__rt_load(__ehdr_start + 32); /* e_phoff */
    uint32_t num = *(const hlsnap__rt_u16 *)(const void *)(__ehdr_start + 56);
    for (; num; num--, at += 56)
        if (*(const hlsnap__rt_u32 *)(const void *)at == 2)
            return (uint64_t)(uintptr_t)_DYNAMIC - hlsnap__rt_load(at + 16);
    return 0;
}

static void hlsnap__rt_indirect_all(void) {
    const uint64_t *d = _DYNAMIC;
    uint64_t value[24] = {0}, base; /* by tag */
    hlsnap__rt_indirect(__rela_iplt_start, (uint64_t)((uintptr_t)__rela_iplt_end - (uintptr_t)__rela_iplt_start), 0);
    if (!d || !__ehdr_start) return;
    base = hlsnap__rt_base();
    for (; d[0]; d += 2)
        if (d[0] < 24) value[d[0]] = d[1];
    hlsnap__rt_indirect((const hlsnap__rt_rela *)(uintptr_t)(value[7] + base), value[8], base); /* DT_RELA, DT_RELASZ */
    hlsnap__rt_indirect((const hlsnap__rt_rela *)(uintptr_t)(value[23] + base), value[2],
                        base); /* DT_JMPREL, DT_PLTRELSZ */
}
#endif

__attribute__((__noinline__)) static void hlsnap__rt_init(hlsnap_abi_mailbox *m) {
    const hlsnap_abi_identity *id = hlsnap__rt_identity();
    const hlsnap_module *module = hlsnap__rt_module();
    hlsnap__rt_state *s = hlsnap__rt_state_get();
    const size_t num = module->num_exports + module->num_imports, size = num * sizeof(hlsnap__signature);
    size_t i;
    hlsnap__rt_memset(s, 0, sizeof(*s));
#if !defined(HLSNAP_GUEST_LIBC)
    hlsnap__rt_heap_init(&s->heap, (void *)(uintptr_t)id->heap, (size_t)id->heap_size);
#endif
    s->signatures = (hlsnap__signature *)(s + 1);
    if (size > id->runtime_size - sizeof(*s)) s->signatures = (hlsnap__signature *)hlsnap_rt_malloc(size);
    if (!s->signatures) hlsnap_rt_abort(HLSNAP__ABORT_HEAP, "the heap is too small: raise heap_size of the guest desc");
#if defined(HLSNAP_GUEST) && !defined(HLSNAP_GUEST_LIBC)
    hlsnap__rt_indirect_all();
    {
        void (*const *f)(void);
        for (f = __init_array_start; f != __init_array_end; f++) (*f)();
    }
#endif
    for (i = 0; i < num; i++) { /* the host refuses malformed ones; here they only must not be used */
        const hlsnap_function *f =
            i < module->num_exports ? &module->exports[i] : &module->imports[i - module->num_exports];
        hlsnap__signature_parse(&s->signatures[i], f->signature, hlsnap__rt_strlen(f->signature));
    }
    m->guest_abi = HLSNAP_ABI_VERSION;
    m->entry = 0;
    if (!hlsnap__rt_list(m, module))
        hlsnap_rt_abort(HLSNAP__ABORT_MAILBOX, "exports and imports do not fit the mailbox");
}

/* Bytes behind the calls and behind the results that stay free, so that a log line, an abort and a failure always fit. */
#define HLSNAP__RESERVE_IN 1024u
#define HLSNAP__RESERVE_OUT 1280u

/* At the start of an entry: the last one's result was copied. Then, where it is asked for, memory for a call's message. */
static void hlsnap__rt_room(hlsnap_abi_mailbox *m) {
    hlsnap__rt_state *s = hlsnap__rt_state_get();
    hlsnap_rt_free(s->result);
    s->result = NULL;
    if (m->op != HLSNAP_ABI_OP_ROOM) return;
    hlsnap_rt_free(s->large);
    s->large = m->room <= HLSNAP__LARGE_MOST ? hlsnap_rt_malloc(m->room) : NULL;
    m->room_at = (uint64_t)(uintptr_t)s->large;
    m->num_calls = 0;
}

/* At the end of a call with large messages: its result stays until the host has it. */
static void hlsnap__rt_large_end(hlsnap__rt_state *s, hlsnap_call *call) {
    hlsnap_abi_value row;
    hlsnap_rt_free(s->large);
    hlsnap_rt_free(s->response);
    s->large = s->response = NULL;
    if (call->out == call->box) return;
    hlsnap__rt_memcpy(&row, call->out + sizeof(hlsnap_abi_message), sizeof(row));
    s->result = call->out;
    call->used = hlsnap__call_refer(call->box, call, (uint64_t)(uintptr_t)call->out + HLSNAP__RESULT_AT, row.size);
    call->out = call->box;
}

/* Bytes of results. */
static HLSNAP__EACH_CALL size_t hlsnap__rt_calls(hlsnap_abi_mailbox *m) {
    const hlsnap_module *module = hlsnap__rt_module();
    hlsnap__rt_state *s = hlsnap__rt_state_get();
    size_t in = 0, out = 0;
    m->num_done = 0;
    if (s->result || m->op == HLSNAP_ABI_OP_ROOM) hlsnap__rt_room(m);
    while (m->num_done < m->num_calls) {
        hlsnap_value args[HLSNAP_MAX_ARGS];
        hlsnap_abi_message head;
        hlsnap_call call;
        const uint8_t *at = m->large ? (const uint8_t *)s->large : (const uint8_t *)m + m->in_offset + in;
        if (!hlsnap__message_read(at, m->large ? UINT32_MAX : m->in_size - in, &head, args, HLSNAP_MAX_ARGS) ||
            head.function >= module->num_exports || head.num_values != s->signatures[head.function].num_args)
            hlsnap_rt_abort(HLSNAP__ABORT_MAILBOX, "malformed call");
        call.args = args;
        call.signature = &s->signatures[head.function];
        call.out = (uint8_t *)m + m->out_offset + out;
        call.out_size = m->out_size - HLSNAP__RESERVE_OUT - out;
        call.most = HLSNAP__LARGE_MOST;
        call.function = head.function;
        call.user = NULL;
        s->call = &call;
        hlsnap__call_run(&call, module->exports[head.function].fn, module->exports[head.function].user);
        s->call = NULL;
        if (m->large || call.out != call.box || s->response) hlsnap__rt_large_end(s, &call);
        out += call.used;
        in += head.size;
        m->num_done++;
        if (call.failed) break;
    }
    return out;
}

/* Where every VM entry starts. */
#if !defined(HLSNAP_GUEST_LIBC)
#ifdef HLSNAP_GUEST
__attribute__((__noreturn__, __used__)) void _start(hlsnap_abi_mailbox *m);
__attribute__((__noreturn__, __used__)) void _start(hlsnap_abi_mailbox *m)
#else
__attribute__((__noreturn__)) static void hlsnap__rt_start(hlsnap_abi_mailbox *m)
#endif
{
    if (m->op == HLSNAP_ABI_OP_INIT) {
        hlsnap__rt_init(m);
    } else {
        hlsnap__rt_arrive();
        hlsnap__rt_calls(m);
    }
    hlsnap__rt_tell(m);
    for (;;) hlsnap__rt_out_return();
}
#endif

/* What compilers call behind a program's back, and the basics that programs expect. */
#if !defined(HLSNAP_GUEST_LIBC) || defined(HLSNAP_GUEST_RUNTIME)
__attribute__((__noreturn__)) static void hlsnap__rt_stack_fail(void) {
    hlsnap_rt_abort(HLSNAP__ABORT_STACK, "stack smashing detected");
}
__attribute__((__noreturn__)) static void hlsnap__rt_libc_abort(void) {
    hlsnap_rt_abort(HLSNAP__ABORT_LIBC, "abort() called");
}

__attribute__((__noreturn__)) static void hlsnap__rt_assert_fail(const char *what, const char *file, unsigned line,
                                                                 const char *in) {
    char text[256];
    hlsnap__format(text, sizeof(text), "%s:%u: %s: assertion failed: %s", file, line, in ? in : "", what);
    hlsnap_rt_abort(HLSNAP__ABORT_LIBC, text);
}
static int *hlsnap__rt_errno_location(void) { return &hlsnap__rt_state_get()->error_number; }
static int hlsnap__rt_abs(int v) { return v < 0 ? (int)(0 - (unsigned)v) : v; }
static long hlsnap__rt_labs(long v) { return v < 0 ? (long)(0 - (unsigned long)v) : v; }
static long long hlsnap__rt_llabs(long long v) { return v < 0 ? (long long)(0 - (unsigned long long)v) : v; }
static void *hlsnap__rt_aligned_alloc(size_t align, size_t n) {
    return hlsnap__rt_in_guest ? hlsnap__rt_heap_aligned(&hlsnap__rt_state_get()->heap, align, n) : NULL;
}
static int hlsnap__rt_posix_memalign(void **to, size_t align, size_t n) {
    void *p = align % sizeof(void *) ? NULL : hlsnap__rt_aligned_alloc(align, n);
    if (!p) return !align || align % sizeof(void *) || (align & (align - 1)) ? 22 /* EINVAL */ : 12 /* ENOMEM */;
    *to = p;
    return 0;
}
static size_t hlsnap__rt_malloc_usable_size(const void *p) {
    return hlsnap__rt_in_guest ? hlsnap__rt_heap_usable(&hlsnap__rt_state_get()->heap, p) : 0;
}

/* What compilers make of copies that go on where the last one ended. */
static void *hlsnap__rt_mempcpy(void *to, const void *from, size_t n) {
    return (char *)hlsnap__rt_memcpy(to, from, n) + n;
}
static char *hlsnap__rt_stpcpy(char *to, const char *from) {
    const size_t n = hlsnap__rt_strlen(from);
    return (char *)hlsnap__rt_memcpy(to, from, n + 1) + n;
}

/* What fortified code calls: the same, with the size of what is written to. */
static void *hlsnap__rt_memcpy_chk(void *to, const void *from, size_t n, size_t cap) {
    if (n > cap) hlsnap_rt_abort(HLSNAP__ABORT_OVERFLOW, "buffer overflow detected");
    return hlsnap__rt_memcpy(to, from, n);
}
static void *hlsnap__rt_memmove_chk(void *to, const void *from, size_t n, size_t cap) {
    if (n > cap) hlsnap_rt_abort(HLSNAP__ABORT_OVERFLOW, "buffer overflow detected");
    return hlsnap__rt_memmove(to, from, n);
}
static void *hlsnap__rt_memset_chk(void *to, int c, size_t n, size_t cap) {
    if (n > cap) hlsnap_rt_abort(HLSNAP__ABORT_OVERFLOW, "buffer overflow detected");
    return hlsnap__rt_memset(to, c, n);
}
static char *hlsnap__rt_strcpy_chk(char *to, const char *from, size_t cap) {
    hlsnap__rt_memcpy_chk(to, from, hlsnap__rt_strlen(from) + 1, cap);
    return to;
}
static char *hlsnap__rt_stpcpy_chk(char *to, const char *from, size_t cap) {
    const size_t n = hlsnap__rt_strlen(from);
    return (char *)hlsnap__rt_memcpy_chk(to, from, n + 1, cap) + n;
}
static void *hlsnap__rt_mempcpy_chk(void *to, const void *from, size_t n, size_t cap) {
    return (char *)hlsnap__rt_memcpy_chk(to, from, n, cap) + n;
}
static char *hlsnap__rt_strncpy_chk(char *to, const char *from, size_t n, size_t cap) {
    if (n > cap) hlsnap_rt_abort(HLSNAP__ABORT_OVERFLOW, "buffer overflow detected");
    return hlsnap__rt_strncpy(to, from, n);
}
static char *hlsnap__rt_strcat_chk(char *to, const char *from, size_t cap) {
    const size_t n = hlsnap__rt_strlen(to);
    hlsnap__rt_memcpy_chk(to + n, from, hlsnap__rt_strlen(from) + 1, cap < n ? 0 : cap - n);
    return to;
}
static int hlsnap__rt_vsnprintf_chk(char *to, size_t n, int flag, size_t cap, const char *fmt, va_list ap) {
    (void)flag;
    if (n > cap) hlsnap_rt_abort(HLSNAP__ABORT_OVERFLOW, "buffer overflow detected");
    return hlsnap__rt_vformat(to, n, fmt, ap);
}

/* X(kind, result, name in two parts, (parameters), (arguments), implementation): what guests of both kinds find under the names of
   the C library. The parts are joined in guests only, and there as a symbol: a program may have poisoned such names, made macros
   of them, or declared them otherwise. */
#define HLSNAP__RT_LIBC(X) \
    X(RESULT, void *, mem, cpy, (void *to, const void *from, size_t n), (to, from, n), hlsnap__rt_memcpy) \
    X(RESULT, void *, mem, move, (void *to, const void *from, size_t n), (to, from, n), hlsnap__rt_memmove) \
    X(RESULT, void *, mem, set, (void *to, int c, size_t n), (to, c, n), hlsnap__rt_memset) \
    X(RESULT, int, mem, cmp, (const void *a, const void *b, size_t n), (a, b, n), hlsnap__rt_memcmp) \
    X(RESULT, void *, mem, chr, (const void *s, int c, size_t n), (s, c, n), hlsnap__rt_memchr) \
    X(RESULT, int, b, cmp, (const void *a, const void *b, size_t n), (a, b, n), hlsnap__rt_memcmp) \
    X(RESULT, size_t, str, len, (const char *s), (s), hlsnap__rt_strlen) \
    X(RESULT, size_t, str, nlen, (const char *s, size_t n), (s, n), hlsnap__rt_strnlen) \
    X(RESULT, int, str, cmp, (const char *a, const char *b), (a, b), hlsnap__rt_strcmp) \
    X(RESULT, int, str, ncmp, (const char *a, const char *b, size_t n), (a, b, n), hlsnap__rt_strncmp) \
    X(RESULT, char *, str, cpy, (char *to, const char *from), (to, from), hlsnap__rt_strcpy) \
    X(RESULT, char *, str, ncpy, (char *to, const char *from, size_t n), (to, from, n), hlsnap__rt_strncpy) \
    X(RESULT, char *, str, cat, (char *to, const char *from), (to, from), hlsnap__rt_strcat) \
    X(RESULT, char *, stp, cpy, (char *to, const char *from), (to, from), hlsnap__rt_stpcpy) \
    X(RESULT, void *, memp, cpy, (void *to, const void *from, size_t n), (to, from, n), hlsnap__rt_mempcpy) \
    X(RESULT, char *, str, chr, (const char *s, int c), (s, c), hlsnap__rt_strchr) \
    X(RESULT, char *, str, rchr, (const char *s, int c), (s, c), hlsnap__rt_strrchr) \
    X(RESULT, char *, str, str, (const char *s, const char *what), (s, what), hlsnap__rt_strstr) \
    X(RESULT, void *, m, alloc, (size_t n), (n), hlsnap_rt_malloc) \
    X(RESULT, void *, c, alloc, (size_t k, size_t n), (k, n), hlsnap_rt_calloc) \
    X(RESULT, void *, re, alloc, (void *p, size_t n), (p, n), hlsnap_rt_realloc) \
    X(RESULT, void *, aligned_, alloc, (size_t align, size_t n), (align, n), hlsnap__rt_aligned_alloc) \
    X(RESULT, int, posix_, memalign, (void **to, size_t align, size_t n), (to, align, n), hlsnap__rt_posix_memalign) \
    X(RESULT, size_t, malloc_, usable_size, (const void *p), (p), hlsnap__rt_malloc_usable_size) \
    X(NOTHING, void, fr, ee, (void *p), (p), hlsnap_rt_free) \
    X(VARIADIC, int, sn, printf, (char *to, size_t n, const char *fmt, ...), (to, n, fmt, ap), hlsnap__rt_vformat) \
    X(RESULT, int, vsn, printf, (char *to, size_t n, const char *fmt, va_list ap), (to, n, fmt, ap), \
      hlsnap__rt_vformat) \
    X(RESULT, int, a, bs, (int v), (v), hlsnap__rt_abs) \
    X(RESULT, long, la, bs, (long v), (v), hlsnap__rt_labs) \
    X(RESULT, long long, lla, bs, (long long v), (v), hlsnap__rt_llabs) \
    X(NOTHING, void, ab, ort, (void), (), hlsnap__rt_libc_abort) \
    X(NOTHING, void, __assert_, fail, (const char *what, const char *file, unsigned line, const char *in), \
      (what, file, line, in), hlsnap__rt_assert_fail) \
    X(RESULT, int *, __errno_, location, (void), (), hlsnap__rt_errno_location) \
    X(RESULT, int *, ___errno_, location, (void), (), hlsnap__rt_errno_location) \
    X(NOTHING, void, __stack_, chk_fail, (void), (), hlsnap__rt_stack_fail) \
    X(RESULT, void *, __memcpy_, chk, (void *to, const void *from, size_t n, size_t cap), (to, from, n, cap), \
      hlsnap__rt_memcpy_chk) \
    X(RESULT, void *, __memmove_, chk, (void *to, const void *from, size_t n, size_t cap), (to, from, n, cap), \
      hlsnap__rt_memmove_chk) \
    X(RESULT, void *, __memset_, chk, (void *to, int c, size_t n, size_t cap), (to, c, n, cap), hlsnap__rt_memset_chk) \
    X(RESULT, char *, __strcpy_, chk, (char *to, const char *from, size_t cap), (to, from, cap), \
      hlsnap__rt_strcpy_chk) \
    X(RESULT, char *, __stpcpy_, chk, (char *to, const char *from, size_t cap), (to, from, cap), \
      hlsnap__rt_stpcpy_chk) \
    X(RESULT, void *, __mempcpy_, chk, (void *to, const void *from, size_t n, size_t cap), (to, from, n, cap), \
      hlsnap__rt_mempcpy_chk) \
    X(RESULT, char *, __strncpy_, chk, (char *to, const char *from, size_t n, size_t cap), (to, from, n, cap), \
      hlsnap__rt_strncpy_chk) \
    X(RESULT, char *, __strcat_, chk, (char *to, const char *from, size_t cap), (to, from, cap), \
      hlsnap__rt_strcat_chk) \
    X(VARIADIC, int, __snprintf_, chk, (char *to, size_t n, int flag, size_t cap, const char *fmt, ...), \
      (to, n, flag, cap, fmt, ap), hlsnap__rt_vsnprintf_chk) \
    X(RESULT, int, __vsnprintf_, chk, (char *to, size_t n, int flag, size_t cap, const char *fmt, va_list ap), \
      (to, n, flag, cap, fmt, ap), hlsnap__rt_vsnprintf_chk)
#endif

#ifdef HLSNAP_GUEST
#if !defined(HLSNAP_GUEST_LIBC) || defined(HLSNAP_GUEST_RUNTIME)
/* Weak, so a guest with a libc of its own keeps that; used, because compilers call them behind a program's back. */
#define HLSNAP__RT_RESULT(args, impl) return impl args;
#define HLSNAP__RT_NOTHING(args, impl) impl args;
#define HLSNAP__RT_VARIADIC(args, impl) \
    va_list ap; \
    int result; \
    va_start(ap, fmt); \
    result = impl args; \
    va_end(ap); \
    return result;
#define HLSNAP__RT_DEFINE(kind, result, a, b, params, args, impl) \
    __attribute__((__weak__, __used__)) result hlsnap__weak_##a##b params __asm__(#a #b); \
    __attribute__((__weak__, __used__)) result hlsnap__weak_##a##b params { HLSNAP__RT_##kind(args, impl) }
HLSNAP__RT_LIBC(HLSNAP__RT_DEFINE)
#undef HLSNAP__RT_DEFINE
#undef HLSNAP__RT_RESULT
#undef HLSNAP__RT_NOTHING
#undef HLSNAP__RT_VARIADIC
#endif

/* Says which ABI this guest speaks before anything of it runs; ELF note, owner "hlsnap", type 1. */
typedef struct hlsnap__rt_note {
    uint32_t name_size, desc_size, type;
    char name[8];
    uint32_t abi;
} hlsnap__rt_note;
static const hlsnap__rt_note hlsnap__rt_abi_note
    __attribute__((__section__(".note.hlsnap"), __used__, __aligned__(4))) = {
        7, 4, 1, {'h', 'l', 's', 'n', 'a', 'p', 0, 0}, HLSNAP_ABI_VERSION};
#else
/* Undefined symbols of a self guest that bind to the runtime; every other one becomes a typed fault when called. */
typedef struct hlsnap__rt_binding {
    const char *name;
    void (*fn)(void);
} hlsnap__rt_binding;
/* The same with arguments in place of a va_list. */
static int hlsnap__rt_vformat_args(char *to, size_t n, const char *fmt, ...) {
    va_list ap;
    int k;
    va_start(ap, fmt);
    k = hlsnap__rt_vformat(to, n, fmt, ap);
    va_end(ap);
    return k;
}
static int hlsnap__rt_vsnprintf_chk_args(char *to, size_t n, int flag, size_t cap, const char *fmt, ...) {
    va_list ap;
    int k;
    va_start(ap, fmt);
    k = hlsnap__rt_vsnprintf_chk(to, n, flag, cap, fmt, ap);
    va_end(ap);
    return k;
}
/* Thread-local variables of a shared object; there is one module and one thread. */
static void *hlsnap__rt_tls_get_addr(const uint64_t *index) {
    return (void *)(uintptr_t)(hlsnap__rt_identity()->tls + index[1]);
}
#define HLSNAP__RT_BIND_RESULT(impl) impl
#define HLSNAP__RT_BIND_NOTHING(impl) impl
#define HLSNAP__RT_BIND_VARIADIC(impl) impl##_args
#define HLSNAP__RT_BIND(kind, result, a, b, params, args, impl) {#a #b, (void (*)(void))HLSNAP__RT_BIND_##kind(impl)},
static const hlsnap__rt_binding hlsnap__rt_bindings[] = {
    HLSNAP__RT_LIBC(HLSNAP__RT_BIND){"__tls_get_addr", (void (*)(void))hlsnap__rt_tls_get_addr}};
#undef HLSNAP__RT_BIND
#undef HLSNAP__RT_BIND_RESULT
#undef HLSNAP__RT_BIND_NOTHING
#undef HLSNAP__RT_BIND_VARIADIC
#endif

/* ---- >>rt_image: a block of the heap that the host shows at other places ---- */

struct hlsnap_rt_image {
    uint64_t live; /* tells one that was freed, as far as its memory was not used again */
    uint8_t *at;
    size_t size;
};
#define HLSNAP__RT_IMAGE_LIVE 0x6567616d69706e73ull

#if defined(HLSNAP_GUEST_LIBC) && !defined(HLSNAP_GUEST_RUNTIME)
extern void *hlsnap__libc_aligned_alloc(size_t align, size_t size) __asm__("aligned_alloc");
static void *hlsnap__rt_pages(size_t size) { return hlsnap__libc_aligned_alloc(4096, size); }
#else
static void *hlsnap__rt_pages(size_t size) {
    return hlsnap__rt_heap_aligned(&hlsnap__rt_state_get()->heap, 4096, size);
}
#endif

/* Shows at `to` what is at `from`; NULL: zeros. */
static hlsnap_result hlsnap__rt_image_ask(const void *from, void *to, size_t size, uint32_t options) {
    const hlsnap_abi_mailbox *m = hlsnap__rt_mailbox();
    hlsnap_abi_message head;
    hlsnap_value v[4];
    v[0] = hlsnap_u64((uint64_t)(uintptr_t)from);
    v[1] = hlsnap_u64((uint64_t)(uintptr_t)to);
    v[2] = hlsnap_u64(size);
    v[3] = hlsnap_u32(options);
    if (!hlsnap__rt_request(HLSNAP_ABI_FN_IMAGE, v, 4)) return HLSNAP_ERR_LIMIT;
    if (!hlsnap__message_read((const uint8_t *)m + m->response, m->in_offset + m->in_size - m->response, &head, v, 2) ||
        (head.status != HLSNAP_ABI_STATUS_OK && head.num_values != 2))
        hlsnap_rt_abort(HLSNAP__ABORT_MAILBOX, "malformed response");
    return head.status == HLSNAP_ABI_STATUS_OK ? HLSNAP_OK : (hlsnap_result)v[0].as.i32;
}

/* The same where the host has no more room for it: a copy is as good. */
static hlsnap_result hlsnap__rt_image_show(const uint8_t *from, void *to, size_t size, uint32_t options) {
    const hlsnap_result r = hlsnap__rt_image_ask(from, to, size, options);
    if (r == HLSNAP_ERR_LIMIT) hlsnap__rt_memcpy(to, from, size);
    return r == HLSNAP_ERR_LIMIT ? HLSNAP_OK : r;
}

#define HLSNAP__RT_IMAGE_COPIED (256u << 10) /* bytes up to which a copy costs no more than the exit, whatever is touched */

/* A little, to where in the heap it does not overlap the image: the runtime can see that for itself. */
static bool hlsnap__rt_image_little(const uint8_t *from, const void *to, size_t size) {
    const hlsnap_abi_identity *id = hlsnap__rt_identity();
    const uint64_t a = (uint64_t)(uintptr_t)from, b = (uint64_t)(uintptr_t)to;
    return size && size <= HLSNAP__RT_IMAGE_COPIED && !(size % 4096) && !(b % 4096) && b >= id->heap &&
           b - id->heap <= id->heap_size - size && (b >= a + size || a >= b + size);
}

HLSNAP_API hlsnap_rt_image *hlsnap_rt_image_new(const void *from, size_t size) {
    hlsnap_rt_image *image;
    if (!hlsnap__rt_in_guest || !from || !size || size % 4096) return NULL;
    image = (hlsnap_rt_image *)hlsnap_rt_malloc(sizeof(*image));
    if (!image) return NULL;
    image->at = (uint8_t *)hlsnap__rt_pages(size);
    image->size = size;
    image->live = HLSNAP__RT_IMAGE_LIVE;
    if (image->at && hlsnap__rt_image_show((const uint8_t *)from, image->at, size, HLSNAP_ABI_IMAGE_ONCE) == HLSNAP_OK)
        return image;
    image->live = 0;
    hlsnap_rt_free(image->at);
    hlsnap_rt_free(image);
    return NULL;
}

HLSNAP_API hlsnap_result hlsnap_rt_image_map(hlsnap_rt_image *image, void *to, size_t offset, size_t size) {
    if (!hlsnap__rt_in_guest) return HLSNAP_ERR_STATE;
    if (!image || image->live != HLSNAP__RT_IMAGE_LIVE || !to || offset > image->size || size > image->size - offset ||
        offset % 4096)
        return HLSNAP_ERR_ARG;
    if (!hlsnap__rt_image_little(image->at + offset, to, size))
        return hlsnap__rt_image_show(image->at + offset, to, size, 0);
    hlsnap__rt_memcpy(to, image->at + offset, size);
    return HLSNAP_OK;
}

HLSNAP_API void hlsnap_rt_image_free(hlsnap_rt_image *image) {
    if (!image || !hlsnap__rt_in_guest) return;
    if (image->live != HLSNAP__RT_IMAGE_LIVE) hlsnap_rt_abort(HLSNAP__ABORT_HEAP, "free of what is no image");
    image->live = 0;
    hlsnap__rt_image_ask(NULL, image->at, image->size, 0); /* its pages go back to the host; the block is zero or as it was */
    hlsnap_rt_free(image->at);
    hlsnap_rt_free(image);
}

/* ---- >>linux: what a program asks its kernel for, answered in the guest at CPL 3 (docs/programs.md) ---- */
/* For guests that are Linux programs with the libc of their toolchain. SYSCALL leads to hlsnap__lx_syscall without leaving the VM,
   with rax = number, rcx = return address and all other registers as the program left them. Four rules hold from here to
   >>linux-end:
   - General registers only: a system call keeps all vector state. No call leaves the section, so there is no memcpy that a
     compiler puts in for a struct; hlsnap__lx_copy and _fill do that. A test disassembles it.
   - No relocations: a static PIE relocates itself while it makes system calls. No tables of pointers; switch instead.
   - All state is in guest memory: snapshots need to know nothing of it.
   - The program's pointers are used as they are: a bad one is a typed fault, as it would be in the program itself. Everything else
     it says is bounded before arithmetic.
   Under HLSNAP__LX_HOST the section is part of a host program, for tests, which defines what touches the machine. */

#if defined(HLSNAP_GUEST_LIBC) || defined(HLSNAP__LX_HOST)

#if defined(HLSNAP__LX_HOST)
#elif defined(__clang__)
#pragma clang attribute push(__attribute__((target("general-regs-only"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("general-regs-only")
#pragma GCC optimize("no-tree-loop-distribute-patterns")
#endif

/* What fails returns -HLSNAP__LX_x: errno of Linux on x86-64. */
// clang-format off
enum hlsnap__lx_errno {
    HLSNAP__LX_EPERM = 1, HLSNAP__LX_ENOENT = 2, HLSNAP__LX_ESRCH = 3, HLSNAP__LX_EINTR = 4, HLSNAP__LX_EIO = 5,
    HLSNAP__LX_ENXIO = 6, HLSNAP__LX_EBADF = 9, HLSNAP__LX_ECHILD = 10, HLSNAP__LX_EAGAIN = 11, HLSNAP__LX_ENOMEM = 12,
    HLSNAP__LX_EACCES = 13, HLSNAP__LX_EFAULT = 14, HLSNAP__LX_ENFILE = 23, HLSNAP__LX_EBUSY = 16,
    HLSNAP__LX_EEXIST = 17, HLSNAP__LX_EXDEV = 18, HLSNAP__LX_ENODEV = 19, HLSNAP__LX_ENOTDIR = 20,
    HLSNAP__LX_EISDIR = 21, HLSNAP__LX_EINVAL = 22, HLSNAP__LX_EMFILE = 24, HLSNAP__LX_ENOTTY = 25, HLSNAP__LX_EFBIG = 27,
    HLSNAP__LX_ENOSPC = 28, HLSNAP__LX_ESPIPE = 29, HLSNAP__LX_EROFS = 30, HLSNAP__LX_EPIPE = 32, HLSNAP__LX_ERANGE = 34,
    HLSNAP__LX_ENAMETOOLONG = 36, HLSNAP__LX_ENOSYS = 38, HLSNAP__LX_ENOTEMPTY = 39, HLSNAP__LX_ELOOP = 40,
    HLSNAP__LX_EOVERFLOW = 75, HLSNAP__LX_EOPNOTSUPP = 95, HLSNAP__LX_ETIMEDOUT = 110
};
// clang-format on

#define HLSNAP__LX_NEVER UINT64_MAX
#define HLSNAP__LX_SECOND 1000000000ull /* ns */

typedef struct hlsnap__lx_frame { /* the program's registers, as hlsnap__lx_syscall pushes them */
    uint64_t rbx, rbp, r12, r13, r14, r15, r9, r8, r10, rdx, rsi, rdi, r11, rcx, rax, rsp;
} hlsnap__lx_frame;

#if defined(HLSNAP__LX_HOST) /* where sanitizers see them */
static void hlsnap__lx_copy(void *to, const void *from, uint64_t n) {
    if (n) memmove(to, from, (size_t)n);
}
static void hlsnap__lx_fill(void *to, int c, uint64_t n) {
    if (n) memset(to, c, (size_t)n);
}
#else
static void hlsnap__lx_copy(void *to, const void *from, uint64_t n) {
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}
static void hlsnap__lx_fill(void *to, int c, uint64_t n) {
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(c) : "memory");
}
#endif
static uint64_t hlsnap__lx_len(const char *s) {
    uint64_t n = 0;
    while (s[n]) n++;
    return n;
}
static HLSNAP__EACH_CALL bool hlsnap__lx_same(const void *a, const void *b, uint64_t n) {
    const uint8_t *x = (const uint8_t *)a, *y = (const uint8_t *)b;
    while (n--)
        if (*x++ != *y++) return false;
    return true;
}
static uint64_t hlsnap__lx_min(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* The program's memory, whatever type it has there. */
typedef uint16_t hlsnap__lx_u16 __attribute__((__may_alias__, __aligned__(1)));
typedef uint32_t hlsnap__lx_u32 __attribute__((__may_alias__, __aligned__(1)));
typedef uint64_t hlsnap__lx_u64 __attribute__((__may_alias__, __aligned__(1)));
static void hlsnap__lx_put16(uint64_t at, uint16_t v) { *(hlsnap__lx_u16 *)(uintptr_t)at = v; }
static void hlsnap__lx_put32(uint64_t at, uint32_t v) { *(hlsnap__lx_u32 *)(uintptr_t)at = v; }
static void hlsnap__lx_put64(uint64_t at, uint64_t v) { *(hlsnap__lx_u64 *)(uintptr_t)at = v; }
static uint16_t hlsnap__lx_get16(uint64_t at) { return *(const hlsnap__lx_u16 *)(uintptr_t)at; }
static uint32_t hlsnap__lx_get32(uint64_t at) { return *(const hlsnap__lx_u32 *)(uintptr_t)at; }
static uint64_t hlsnap__lx_get64(uint64_t at) { return *(const hlsnap__lx_u64 *)(uintptr_t)at; }

typedef struct hlsnap__lx_time {
    uint64_t tsc;               /* at the last entry */
    uint64_t asked;             /* questions, where there is no clock */
    uint64_t ahead, real_ahead; /* ns that sleeping moved the clocks; the wall clock's is this entry's only */
    uint64_t last, real_last;
    uint64_t start; /* of the monotonic clock */
    uint64_t idle;  /* ns of it that were no work: sleep, and what lay between two entries */
} hlsnap__lx_time;

/* What each call reads and writes, in one page: it is a fault in each new VM, and a copy at each restore. */
typedef struct hlsnap__lx_state {
    uint64_t entry_tsc; /* this and the next two: for the assembly in >>lx_start, which knows where they are */
    uint64_t parked;    /* stack pointer of who is parked, 0 = before the start; */
    uint64_t fs;        /* its thread pointer */
    const hlsnap_abi_identity *id; /* NULL: setup has not been */
    uint64_t out_used;             /* bytes of results that stand in the mailbox's out part: requests go behind them */
    hlsnap__lx_time clock;
    uint8_t started_as[16];       /* identity of the start or restore that was noticed last */
    void (*on_start)(void *user); /* of hlsnap_rt_on_start */
    void *on_start_user;
    uint64_t num_used, peak; /* pages of the heap region */
    uint64_t random_counter;
    bool wipes;                /* MADV_WIPEONFORK was asked for */
    uint32_t vectors;          /* 0 = not asked, 1 = FXSAVE, 2 = XSAVE */
    uint32_t num_refused;
    uint16_t refused_list[32]; /* the first of them */
    uint64_t refused[8];       /* a bit a system call that was refused, up to 511 */
} hlsnap__lx_state;
static hlsnap__lx_state hlsnap__lx __asm__("hlsnap__lx") __attribute__((__aligned__(512), __used__));
HLSNAP__STATIC_ASSERT(lx_state, sizeof(hlsnap__lx_state) <= 512 && offsetof(hlsnap__lx_state, fs) == 16);

/* ---- >>lx_host: what goes to the host ---- */

#if defined(HLSNAP__LX_HOST) /* defined by the test */
static void hlsnap__lx_request_out(void);
static void hlsnap__lx_return_out(void);
static uint64_t hlsnap__lx_rdtsc(void);
static uint64_t hlsnap__lx_fs_get(void);
static void hlsnap__lx_fs_set(uint64_t fs);
static void hlsnap__lx_vectors_save(uint64_t to);
static void hlsnap__lx_vectors_load(uint64_t from);
#else
static void hlsnap__lx_request_out(void) {
    __asm__ volatile("outb %%al, %0" : : "N"(HLSNAP_ABI_PORT_CALL), "a"(0) : "memory");
}
static void hlsnap__lx_return_out(void) {
    __asm__ volatile("outb %%al, %0" : : "N"(HLSNAP_ABI_PORT_RETURN), "a"(0) : "memory");
}
static uint64_t hlsnap__lx_rdtsc(void) {
    uint64_t lo, hi;
    __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
    return hi << 32 | lo;
}
static uint64_t hlsnap__lx_fs_get(void) {
    uint64_t fs;
    __asm__ volatile("rdfsbase %0" : "=r"(fs));
    return fs;
}
static void hlsnap__lx_fs_set(uint64_t fs) { __asm__ volatile("wrfsbase %0" : : "r"(fs) : "memory"); }
#endif

static HLSNAP__EACH_CALL hlsnap_abi_mailbox *hlsnap__lx_mailbox(void) {
    return (hlsnap_abi_mailbox *)(uintptr_t)hlsnap__lx.id->mailbox;
}

/* Where a request goes: behind whatever stands in the out part so far. */
static uint64_t hlsnap__lx_request_at(void) {
    const hlsnap_abi_mailbox *m = hlsnap__lx_mailbox();
    const hlsnap_call *call = ((hlsnap__rt_state *)(uintptr_t)hlsnap__lx.id->runtime)->call;
    return call ? (uint64_t)(uintptr_t)(call->out + call->used)
                : (uint64_t)(uintptr_t)m + m->out_offset + hlsnap__lx.out_used;
}

/* Sends a request of two values, the second of them str or bytes; 1,000 bytes always fit. */
static void hlsnap__lx_request(uint32_t function, int32_t number, uint32_t type, const void *bytes, uint64_t n) {
    hlsnap_abi_mailbox *m = hlsnap__lx_mailbox();
    const uint64_t at = hlsnap__lx_request_at();
    const uint64_t values = sizeof(hlsnap_abi_message) + 2 * sizeof(hlsnap_abi_value), size = (values + n + 8) & ~7ull;
    hlsnap__lx_fill((void *)(uintptr_t)at, 0, size);
    hlsnap__lx_put32(at, (uint32_t)size);
    hlsnap__lx_put32(at + 4, function);
    hlsnap__lx_put32(at + 12, 2);
    hlsnap__lx_put32(at + 16, HLSNAP_I32);
    hlsnap__lx_put32(at + 24, (uint32_t)number);
    hlsnap__lx_put32(at + 32, type);
    hlsnap__lx_put32(at + 36, (uint32_t)n);
    hlsnap__lx_put32(at + 40, (uint32_t)values);
    hlsnap__lx_copy((void *)(uintptr_t)(at + values), bytes, n);
    m->request = (uint32_t)(at - (uint64_t)(uintptr_t)m);
    hlsnap__lx_request_out();
}

typedef struct hlsnap__lx_text { /* zero it by n = 0 */
    uint32_t n;
    char s[252];
} hlsnap__lx_text;

static void hlsnap__lx_say(hlsnap__lx_text *t, const char *s) {
    while (*s && t->n < sizeof(t->s)) t->s[t->n++] = *s++;
}
static void hlsnap__lx_say_number(hlsnap__lx_text *t, int64_t v) {
    char digits[20];
    uint32_t n = 0;
    uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    if (v < 0) hlsnap__lx_say(t, "-");
    do digits[n++] = (char)('0' + u % 10);
    while (u /= 10);
    while (n && t->n < sizeof(t->s)) t->s[t->n++] = digits[--n];
}

static void hlsnap__lx_log(int32_t level, const hlsnap__lx_text *t) {
    if (level <= hlsnap__lx.id->log_level) hlsnap__lx_request(HLSNAP_ABI_FN_LOG, level, HLSNAP_STR, t->s, t->n);
}

static void hlsnap__lx_tell(void);

/* Ends the call; the sandbox is poisoned. */
__attribute__((__noreturn__)) static void hlsnap__lx_end(uint32_t function, int32_t code, const hlsnap__lx_text *t) {
    hlsnap__lx_tell();
    hlsnap__lx_request(function, code, HLSNAP_STR, t->s, t->n);
    for (;;) hlsnap__lx_return_out();
}
#define HLSNAP__ABORT_SIGNAL (-6) /* the program sent itself a signal, or made a call that strict mode does not allow */
#define HLSNAP__ABORT_DEADLOCK (-7) /* every thread waits for another */

/* Bytes for fd 1 or 2 of the program. */
static void hlsnap__lx_output(int32_t fd, const uint8_t *bytes, uint64_t n) {
    if (!(hlsnap__lx.id->options & HLSNAP_ABI_OPTION_OUTPUT)) return;
    while (n) {
        const hlsnap_abi_mailbox *m = hlsnap__lx_mailbox();
        const uint64_t end = (uint64_t)(uintptr_t)m + m->out_offset + m->out_size;
        const uint64_t k = hlsnap__lx_min(n, end - hlsnap__lx_request_at() - 64);
        hlsnap__lx_request(HLSNAP_ABI_FN_OUTPUT, fd, HLSNAP_BYTES, bytes, k);
        bytes += k;
        n -= k;
    }
}

/* ---- >>lx_memory: pages of the heap region; brk grows from its start, mappings from its end ---- */

#define HLSNAP__LX_PAGE 4096ull
#define HLSNAP__LX_WIPES 32u
#define HLSNAP__LX_SHARES 64u

typedef struct hlsnap__lx_range {
    uint64_t from, to; /* addresses; equal = not used */
    uint32_t node;     /* of a shared mapping: the file */
} hlsnap__lx_range;

static struct hlsnap__lx_memory {
    uint64_t base, pages;         /* of the heap region */
    uint64_t *used, *dirty, *own; /* bitmaps: taken; not known to be zero; the personality's; */
    uint64_t *copies;             /* the program's, and private copies of a file's */
    uint64_t brk_start, brk;
    uint64_t top;                               /* all pages from here on are taken */
    uint64_t small[8];                          /* lists of free small blocks, of 32 << i bytes */
    hlsnap__lx_range wipes[HLSNAP__LX_WIPES];   /* MADV_WIPEONFORK: zero at every start and restore */
    hlsnap__lx_range shares[HLSNAP__LX_SHARES]; /* mappings that are a file's own pages */
} hlsnap__lx_mem;

static bool hlsnap__lx_bit(const uint64_t *map, uint64_t i) { return map[i / 64] >> (i % 64) & 1; }

static void hlsnap__lx_bits(uint64_t *map, uint64_t at, uint64_t n, bool set) {
    while (n) {
        const uint64_t k = hlsnap__lx_min(n, 64 - at % 64), mask = (k == 64 ? ~0ull : (1ull << k) - 1) << at % 64;
        map[at / 64] = set ? map[at / 64] | mask : map[at / 64] & ~mask;
        at += k;
        n -= k;
    }
}

/* Whether all of n bits are as asked. */
static bool hlsnap__lx_all(const uint64_t *map, uint64_t at, uint64_t n, bool set) {
    if (n > hlsnap__lx_mem.pages || at > hlsnap__lx_mem.pages - n) return false;
    while (n) {
        const uint64_t k = hlsnap__lx_min(n, 64 - at % 64), mask = (k == 64 ? ~0ull : (1ull << k) - 1) << at % 64;
        if ((set ? ~map[at / 64] : map[at / 64]) & mask) return false;
        at += k;
        n -= k;
    }
    return true;
}
static bool hlsnap__lx_is_free(uint64_t at, uint64_t n) { return hlsnap__lx_all(hlsnap__lx_mem.used, at, n, false); }

/* The highest n free pages in a row; UINT64_MAX = there are none. */
static uint64_t hlsnap__lx_find(uint64_t n) {
    const uint64_t *used = hlsnap__lx_mem.used;
    uint64_t at = hlsnap__lx_mem.top, run = 0;
    bool lower = false; /* something free was seen */
    while (at && n) {
        const bool whole = at % 64 == 0 && at >= 64;
        if (whole && used[at / 64 - 1] == ~0ull) {
            at -= 64;
            run = 0;
        } else if (whole && !used[at / 64 - 1] && run + 64 < n) {
            at -= 64;
            run += 64;
            lower = true;
        } else {
            at--;
            run = hlsnap__lx_bit(used, at) ? 0 : run + 1;
            lower = lower || run;
        }
        if (!lower) hlsnap__lx_mem.top = at;
        if (run >= n) return at;
    }
    return UINT64_MAX;
}

static void *hlsnap__lx_page(uint64_t at) { return (void *)(uintptr_t)(hlsnap__lx_mem.base + at * HLSNAP__LX_PAGE); }

/* Makes pages, which must be free, taken and zero. written: they count as not zero from now on. */
static void hlsnap__lx_take(uint64_t at, uint64_t n, bool written) {
    uint64_t i;
    for (i = at; i < at + n; i++) {
        if (!hlsnap__lx_mem.dirty[i / 64])
            i |= 63;
        else if (hlsnap__lx_bit(hlsnap__lx_mem.dirty, i))
            hlsnap__lx_fill(hlsnap__lx_page(i), 0, HLSNAP__LX_PAGE);
    }
    hlsnap__lx_bits(hlsnap__lx_mem.used, at, n, true);
    hlsnap__lx_bits(hlsnap__lx_mem.dirty, at, n, written);
    hlsnap__lx_bits(hlsnap__lx_mem.copies, at, n, false);
    hlsnap__lx.num_used += n;
    if (hlsnap__lx.num_used > hlsnap__lx.peak) hlsnap__lx.peak = hlsnap__lx.num_used;
}

/* Pages of the program, some of which may be free already. The personality's stay: a program may unmap what it never mapped, or
   has unmapped before, and knows nothing of what came to lie there. */
static void hlsnap__lx_give_back(uint64_t at, uint64_t n) {
    if (at + n > hlsnap__lx_mem.top) hlsnap__lx_mem.top = at + n;
    while (n) {
        const uint64_t k = hlsnap__lx_min(n, 64 - at % 64), mask = (k == 64 ? ~0ull : (1ull << k) - 1) << at % 64;
        uint64_t gone = hlsnap__lx_mem.used[at / 64] & ~hlsnap__lx_mem.own[at / 64] & mask;
        hlsnap__lx_mem.used[at / 64] &= ~gone;
        for (; gone; gone &= gone - 1) hlsnap__lx.num_used--;
        at += k;
        n -= k;
    }
}

/* As hlsnap__lx_take, for the personality itself. */
static void hlsnap__lx_keep(uint64_t at, uint64_t n) {
    hlsnap__lx_take(at, n, true);
    hlsnap__lx_bits(hlsnap__lx_mem.own, at, n, true);
}

/* What the host's figures of the heap are. */
static HLSNAP__EACH_CALL void hlsnap__lx_tell(void) {
    hlsnap_abi_mailbox *m = hlsnap__lx_mailbox();
    m->heap_used = hlsnap__lx.num_used * HLSNAP__LX_PAGE;
    m->heap_peak = hlsnap__lx.peak * HLSNAP__LX_PAGE;
}

static uint64_t hlsnap__lx_round(uint64_t bytes) { return bytes / HLSNAP__LX_PAGE + (bytes % HLSNAP__LX_PAGE != 0); }

/* Zeroed pages for the personality's own use; NULL = the heap is full. */
static void *hlsnap__lx_pages(uint64_t bytes) {
    const uint64_t n = hlsnap__lx_round(bytes), at = hlsnap__lx_find(n);
    if (!n || at == UINT64_MAX) return NULL;
    hlsnap__lx_keep(at, n);
    return hlsnap__lx_page(at);
}
static void hlsnap__lx_pages_free(void *p, uint64_t bytes) {
    const uint64_t at = ((uint64_t)(uintptr_t)p - hlsnap__lx_mem.base) / HLSNAP__LX_PAGE, n = hlsnap__lx_round(bytes);
    if (!p) return;
    hlsnap__lx_bits(hlsnap__lx_mem.own, at, n, false);
    hlsnap__lx_give_back(at, n);
}
/* Makes such pages more in place, the new ones zero; false = what follows them is taken. */
static bool hlsnap__lx_pages_grow(void *p, uint64_t bytes, uint64_t to) {
    const uint64_t at = ((uint64_t)(uintptr_t)p - hlsnap__lx_mem.base) / HLSNAP__LX_PAGE,
                   have = hlsnap__lx_round(bytes), want = hlsnap__lx_round(to);
    if (want <= have) return true;
    if (!hlsnap__lx_is_free(at + have, want - have)) return false;
    hlsnap__lx_keep(at + have, want - have);
    return true;
}

/* Zeroed bytes for small things; hlsnap__lx_release wants the same size again. */
static uint32_t hlsnap__lx_class(uint64_t bytes) {
    uint32_t i = 0;
    while (i < 8 && bytes > 32ull << i) i++;
    return i;
}
static void *hlsnap__lx_alloc(uint64_t bytes) {
    const uint32_t i = hlsnap__lx_class(bytes);
    uint64_t block = i < 8 ? hlsnap__lx_mem.small[i] : 0, at;
    if (i == 8) return hlsnap__lx_pages(bytes);
    if (!block) {
        block = (uint64_t)(uintptr_t)hlsnap__lx_pages(HLSNAP__LX_PAGE);
        if (!block) return NULL;
        for (at = block; at + 2 * (32ull << i) <= block + HLSNAP__LX_PAGE; at += 32ull << i)
            hlsnap__lx_put64(at, at + (32ull << i));
    }
    hlsnap__lx_mem.small[i] = hlsnap__lx_get64(block);
    hlsnap__lx_fill((void *)(uintptr_t)block, 0, 32ull << i);
    return (void *)(uintptr_t)block;
}
static void hlsnap__lx_release(void *p, uint64_t bytes) {
    const uint32_t i = hlsnap__lx_class(bytes);
    if (!p) return;
    if (i == 8) {
        hlsnap__lx_pages_free(p, bytes);
        return;
    }
    hlsnap__lx_put64((uint64_t)(uintptr_t)p, hlsnap__lx_mem.small[i]);
    hlsnap__lx_mem.small[i] = (uint64_t)(uintptr_t)p;
}

static void hlsnap__lx_memory_setup(void) {
    struct hlsnap__lx_memory *m = &hlsnap__lx_mem;
    const uint64_t pages = hlsnap__lx.id->heap_size / HLSNAP__LX_PAGE, words = (pages + 63) / 64;
    const uint64_t own = hlsnap__lx_round(words * 4 * sizeof(*m->used));
    m->base = hlsnap__lx.id->heap;
    m->pages = m->top = pages;
    m->used = (uint64_t *)(uintptr_t)m->base;
    m->dirty = m->used + words;
    m->own = m->dirty + words;
    m->copies = m->own + words;
    hlsnap__lx_bits(m->used, pages, words * 64 - pages, true);
    hlsnap__lx_keep(0, own);
    m->brk_start = m->brk = m->base + own * HLSNAP__LX_PAGE;
}

static bool hlsnap__lx_in_heap(uint64_t at, uint64_t bytes) {
    const uint64_t size = hlsnap__lx_mem.pages * HLSNAP__LX_PAGE;
    return at >= hlsnap__lx_mem.base && bytes <= size && at - hlsnap__lx_mem.base <= size - bytes;
}
static uint64_t hlsnap__lx_page_of(uint64_t at) { return (at - hlsnap__lx_mem.base) / HLSNAP__LX_PAGE; }

static void hlsnap__lx_unmap(uint64_t from, uint64_t to); /* of >>lx_mappings */

static int64_t hlsnap__lx_brk(uint64_t to) {
    struct hlsnap__lx_memory *m = &hlsnap__lx_mem;
    uint64_t have, want;
    if (to < m->brk_start || !hlsnap__lx_in_heap(to, 0)) return (int64_t)m->brk;
    have = hlsnap__lx_round(m->brk - m->base);
    want = hlsnap__lx_round(to - m->base);
    if (want > have) {
        if (!hlsnap__lx_is_free(have, want - have)) return (int64_t)m->brk;
        hlsnap__lx_take(have, want - have, true);
    } else if (want < have)
        hlsnap__lx_unmap(m->base + want * HLSNAP__LX_PAGE, m->base + have * HLSNAP__LX_PAGE);
    m->brk = to; /* as on Linux, what the last page holds behind it stays there */
    return (int64_t)to;
}

/* ---- >>lx_mappings ---- */

static int64_t hlsnap__lx_refuse(uint64_t number, int32_t error); /* of >>lx_calls */

enum {
    HLSNAP__LX_PROT_WRITE = 2,
    HLSNAP__LX_PROT_EXEC = 4,
    HLSNAP__LX_MAP_SHARED = 1,
    HLSNAP__LX_MAP_FIXED = 0x10,
    HLSNAP__LX_MAP_ANONYMOUS = 0x20,
    HLSNAP__LX_MAP_NOREPLACE = 0x100000,
    HLSNAP__LX_MAYMOVE = 1,
    HLSNAP__LX_DONTNEED = 4,
    HLSNAP__LX_WIPEONFORK = 18,
    HLSNAP__LX_KEEPONFORK = 19,
    HLSNAP__LX_ADVICES = 0x2fffd1f /* a bit each: 0..4, 8, 10..23, 25; libraries try whether others are refused */
};

/* Of >>lx_files. A file that mmap may show: its node, or -errno. */
static int64_t hlsnap__lx_map_node(int32_t fd, bool shared, bool write);
/* Its bytes from an offset on: how many there are. */
static uint64_t hlsnap__lx_node_bytes(uint32_t node, uint64_t offset, const uint8_t **from);
/* The pages of a file that can be written, at least so many bytes, which stay where they are until it is unpinned as often as it
   was pinned; NULL = there is no room, or it is a file of the archive. */
static uint8_t *hlsnap__lx_node_pin(uint32_t node, uint64_t bytes);
static void hlsnap__lx_node_unpin(uint32_t node);

/* Takes [from, to) out of a range; what is left above goes to *rest, when the range is cut in two. */
static void hlsnap__lx_range_cut(hlsnap__lx_range *r, uint64_t from, uint64_t to, hlsnap__lx_range *rest) {
    rest->from = rest->to = 0;
    rest->node = r->node;
    if (to <= r->from || from >= r->to) return;
    if (to < r->to && from > r->from) {
        rest->from = to;
        rest->to = r->to;
    }
    if (from > r->from)
        r->to = from;
    else if (to < r->to)
        r->from = to;
    else
        r->from = r->to = 0;
}

static bool hlsnap__lx_range_add(hlsnap__lx_range *list, uint32_t num, uint64_t from, uint64_t to, uint32_t node) {
    uint32_t i;
    for (i = 0; i < num; i++) {
        if (list[i].from != list[i].to) continue;
        list[i].from = from;
        list[i].to = to;
        list[i].node = node;
        return true;
    }
    return false;
}

/* No wiping of [from, to) from now on. A range cut in two when the list is full loses its upper part, which is wiped right away:
   what was meant to be forgotten at the next restore is forgotten now. */
static void hlsnap__lx_wipe_remove(uint64_t from, uint64_t to) {
    uint32_t i;
    for (i = 0; i < HLSNAP__LX_WIPES; i++) {
        hlsnap__lx_range rest;
        hlsnap__lx_range_cut(&hlsnap__lx_mem.wipes[i], from, to, &rest);
        if (rest.to && !hlsnap__lx_range_add(hlsnap__lx_mem.wipes, HLSNAP__LX_WIPES, rest.from, rest.to, 0))
            hlsnap__lx_fill((void *)(uintptr_t)rest.from, 0, rest.to - rest.from);
    }
}

/* At every start and restore. */
static void hlsnap__lx_wipe(void) {
    uint32_t i;
    for (i = 0; hlsnap__lx.wipes && i < HLSNAP__LX_WIPES; i++) {
        const hlsnap__lx_range *r = &hlsnap__lx_mem.wipes[i];
        hlsnap__lx_fill((void *)(uintptr_t)r->from, 0, r->to - r->from);
    }
}

/* The first of the shared mappings that an address lies in, or NULL; *end: no further than where the next one begins. */
static hlsnap__lx_range *hlsnap__lx_share_at(uint64_t at, uint64_t *end) {
    hlsnap__lx_range *r = hlsnap__lx_mem.shares, *found = NULL;
    const hlsnap__lx_range *last = r + HLSNAP__LX_SHARES;
    for (; r < last; r++) {
        if (!found && r->from <= at && at < r->to) found = r;
        if (r->from > at && r->from < r->to) *end = hlsnap__lx_min(*end, r->from);
    }
    return found;
}

/* Takes a part out of a shared mapping. */
static void hlsnap__lx_share_cut(hlsnap__lx_range *r, uint64_t from, uint64_t to) {
    hlsnap__lx_range rest;
    hlsnap__lx_range_cut(r, from, to, &rest);
    if (rest.to && !hlsnap__lx_range_add(hlsnap__lx_mem.shares, HLSNAP__LX_SHARES, rest.from, rest.to, rest.node))
        r->to = rest.to; /* the hole stays mapped */
    else if (rest.to)
        hlsnap__lx_node_pin(rest.node, 0);
    if (r->from == r->to) hlsnap__lx_node_unpin(r->node);
}

/* Whole pages of the heap, taken or not, become free; those of files stay the files'. What is mapped twice is so at one address:
   each page goes out of one mapping. */
static void hlsnap__lx_unmap(uint64_t from, uint64_t to) {
    hlsnap__lx_wipe_remove(from, to);
    hlsnap__lx_give_back(hlsnap__lx_page_of(from), (to - from) / HLSNAP__LX_PAGE);
    while (from < to) {
        uint64_t end = to;
        hlsnap__lx_range *r = hlsnap__lx_share_at(from, &end);
        if (r) {
            end = hlsnap__lx_min(to, r->to);
            hlsnap__lx_share_cut(r, from, end);
        }
        from = end;
    }
}

static int64_t hlsnap__lx_map_shared(uint32_t node, uint64_t bytes, uint64_t offset) {
    uint8_t *p = offset <= UINT64_MAX - bytes ? hlsnap__lx_node_pin(node, offset + bytes) : NULL;
    const uint64_t from = (uint64_t)(uintptr_t)p + offset;
    if (!p) return -HLSNAP__LX_ENOMEM;
    if (hlsnap__lx_range_add(hlsnap__lx_mem.shares, HLSNAP__LX_SHARES, from, from + bytes, node)) return (int64_t)from;
    hlsnap__lx_node_unpin(node);
    return -HLSNAP__LX_ENOMEM;
}

/* Where a new mapping goes: a page number, or -errno. */
static int64_t hlsnap__lx_map_place(uint64_t hint, uint64_t n, uint64_t flags) {
    const bool inside = hint % HLSNAP__LX_PAGE == 0 && hlsnap__lx_in_heap(hint, n * HLSNAP__LX_PAGE);
    uint64_t at = inside ? hlsnap__lx_page_of(hint) : 0;
    if (flags & (HLSNAP__LX_MAP_FIXED | HLSNAP__LX_MAP_NOREPLACE)) {
        if (hint % HLSNAP__LX_PAGE) return -HLSNAP__LX_EINVAL;
        if (!inside) return -HLSNAP__LX_ENOMEM;
        if (hlsnap__lx_is_free(at, n)) return (int64_t)at;
        if (flags & HLSNAP__LX_MAP_NOREPLACE) return -HLSNAP__LX_EEXIST;
        if (!hlsnap__lx_all(hlsnap__lx_mem.own, at, n, false)) return -HLSNAP__LX_ENOMEM;
        hlsnap__lx_unmap(hint, hint + n * HLSNAP__LX_PAGE);
        return (int64_t)at;
    }
    if (!inside || !hint || !hlsnap__lx_is_free(at, n)) at = hlsnap__lx_find(n);
    return at == UINT64_MAX ? -HLSNAP__LX_ENOMEM : (int64_t)at;
}

static int64_t hlsnap__lx_mmap(uint64_t hint, uint64_t bytes, uint64_t prot, uint64_t flags, int32_t fd,
                               uint64_t offset) {
    const uint64_t n = hlsnap__lx_round(bytes);
    const bool write = prot & HLSNAP__LX_PROT_WRITE, shared = flags & HLSNAP__LX_MAP_SHARED;
    const uint8_t *from = NULL;
    int64_t at, node = -1;
    if (!bytes || offset % HLSNAP__LX_PAGE || !(flags & 3)) return -HLSNAP__LX_EINVAL; /* neither shared nor private */
    if (prot & HLSNAP__LX_PROT_EXEC) return hlsnap__lx_refuse(9, HLSNAP__LX_EACCES);
    if (bytes > hlsnap__lx_mem.pages * HLSNAP__LX_PAGE) return -HLSNAP__LX_ENOMEM;
    if (!(flags & HLSNAP__LX_MAP_ANONYMOUS)) {
        node = hlsnap__lx_map_node(fd, shared, write);
        if (node < 0) return node;
        if (offset > INT64_MAX - n * HLSNAP__LX_PAGE) return -HLSNAP__LX_EOVERFLOW;
        if (shared && !(flags & (HLSNAP__LX_MAP_FIXED | HLSNAP__LX_MAP_NOREPLACE))) {
            at = hlsnap__lx_map_shared((uint32_t)node, n * HLSNAP__LX_PAGE, offset);
            if (at > 0 || write) return at;
        } else if (shared && write)
            return -HLSNAP__LX_ENOMEM; /* a file's pages are where they are */
    }
    at = hlsnap__lx_map_place(hint, n, flags);
    if (at < 0) return at;
    hlsnap__lx_take((uint64_t)at, n, write || node >= 0);
    if (node >= 0) { /* whole pages, whatever was asked for */
        const uint64_t have = hlsnap__lx_node_bytes((uint32_t)node, offset, &from);
        hlsnap__lx_copy(hlsnap__lx_page((uint64_t)at), from, hlsnap__lx_min(have, n * HLSNAP__LX_PAGE));
        hlsnap__lx_bits(hlsnap__lx_mem.copies, (uint64_t)at, n, true);
    }
    return (int64_t)(uintptr_t)hlsnap__lx_page((uint64_t)at);
}

/* [at, at + bytes) cut to whole pages of the heap; false = none. */
static bool hlsnap__lx_clip(uint64_t at, uint64_t bytes, uint64_t *from, uint64_t *to) {
    const uint64_t base = hlsnap__lx_mem.base, end = base + hlsnap__lx_mem.pages * HLSNAP__LX_PAGE;
    const uint64_t last =
        bytes > UINT64_MAX - HLSNAP__LX_PAGE - at ? end : at + hlsnap__lx_round(bytes) * HLSNAP__LX_PAGE;
    *from = at > base ? at : base;
    *to = hlsnap__lx_min(last, end);
    return *from < *to;
}

static int64_t hlsnap__lx_munmap(uint64_t at, uint64_t bytes) {
    uint64_t from, to;
    if (at % HLSNAP__LX_PAGE || !bytes) return -HLSNAP__LX_EINVAL;
    if (hlsnap__lx_clip(at, bytes, &from, &to)) hlsnap__lx_unmap(from, to); /* the image's own pages stay */
    return 0;
}

/* The range of wiped pages that all of these are in, if any; false = a range has some of them, which on Linux are two mappings. */
static bool hlsnap__lx_wiped(uint64_t from, uint64_t to, hlsnap__lx_range **found) {
    hlsnap__lx_range *r = hlsnap__lx_mem.wipes;
    const hlsnap__lx_range *end = r + HLSNAP__LX_WIPES;
    *found = NULL;
    for (; r < end; r++) {
        if (r->to <= from || r->from >= to) continue;
        if (r->from > from || r->to < to) return false;
        *found = r;
    }
    return true;
}

/* Ends a move: pages that were to be wiped are so where they are now, or it does not come about. */
static int64_t hlsnap__lx_moved(uint64_t at, uint64_t have, uint64_t to, uint64_t want, bool wiped) {
    const uint64_t now = (uint64_t)(uintptr_t)hlsnap__lx_page(to), end = now + want * HLSNAP__LX_PAGE;
    if (wiped && !hlsnap__lx_range_add(hlsnap__lx_mem.wipes, HLSNAP__LX_WIPES, now, end, 0)) {
        hlsnap__lx_unmap(now, end);
        return -HLSNAP__LX_ENOMEM;
    }
    if (hlsnap__lx_bit(hlsnap__lx_mem.copies, hlsnap__lx_page_of(at))) hlsnap__lx_bits(hlsnap__lx_mem.copies, to, have, true);
    hlsnap__lx_unmap(at, at + have * HLSNAP__LX_PAGE);
    return (int64_t)now;
}

static int64_t hlsnap__lx_mremap(uint64_t at, uint64_t old, uint64_t bytes, uint64_t flags) {
    const uint64_t have = hlsnap__lx_round(old), want = hlsnap__lx_round(bytes);
    hlsnap__lx_range *wiped;
    uint64_t page, to;
    uint32_t i;
    if (at % HLSNAP__LX_PAGE || !bytes || !old || flags & ~(uint64_t)HLSNAP__LX_MAYMOVE) return -HLSNAP__LX_EINVAL;
    if (bytes > hlsnap__lx_mem.pages * HLSNAP__LX_PAGE) return -HLSNAP__LX_ENOMEM;
    if (!hlsnap__lx_in_heap(at, old) || !hlsnap__lx_in_heap(at, have * HLSNAP__LX_PAGE)) return -HLSNAP__LX_EINVAL;
    page = hlsnap__lx_page_of(at);
    if (!hlsnap__lx_all(hlsnap__lx_mem.used, page, have, true)) return -HLSNAP__LX_EFAULT;
    if (want <= have) {
        if (want < have) hlsnap__lx_unmap(at + want * HLSNAP__LX_PAGE, at + have * HLSNAP__LX_PAGE);
        return (int64_t)at;
    }
    for (i = 0; i < HLSNAP__LX_SHARES; i++)
        if (at < hlsnap__lx_mem.shares[i].to && at + old > hlsnap__lx_mem.shares[i].from) return -HLSNAP__LX_ENOMEM;
    if (!hlsnap__lx_wiped(at, at + have * HLSNAP__LX_PAGE, &wiped)) return -HLSNAP__LX_EFAULT;
    if (hlsnap__lx_is_free(page + have, want - have)) {
        hlsnap__lx_take(page + have, want - have, true);
        if (wiped) wiped->to = at + want * HLSNAP__LX_PAGE;
        return (int64_t)at;
    }
    to = flags & HLSNAP__LX_MAYMOVE ? hlsnap__lx_find(want) : UINT64_MAX;
    if (to == UINT64_MAX) return -HLSNAP__LX_ENOMEM;
    hlsnap__lx_take(to, want, true);
    hlsnap__lx_copy(hlsnap__lx_page(to), (const void *)(uintptr_t)at, have * HLSNAP__LX_PAGE);
    return hlsnap__lx_moved(at, have, to, want, wiped != NULL);
}

/* The page tables are fixed: rights that are asked for are there already, and those given up stay. */
static int64_t hlsnap__lx_mprotect(uint64_t at, uint64_t bytes, uint64_t prot) {
    uint64_t from, to, page, n;
    if (at % HLSNAP__LX_PAGE) return -HLSNAP__LX_EINVAL;
    if (prot & HLSNAP__LX_PROT_EXEC) return hlsnap__lx_refuse(10, HLSNAP__LX_EACCES);
    if (!hlsnap__lx_clip(at, bytes, &from, &to)) return 0;
    page = hlsnap__lx_page_of(from);
    n = (to - from) / HLSNAP__LX_PAGE;
    if (prot & HLSNAP__LX_PROT_WRITE) hlsnap__lx_bits(hlsnap__lx_mem.dirty, page, n, true);
    return hlsnap__lx_all(hlsnap__lx_mem.used, page, n, true) ? 0 : -HLSNAP__LX_ENOMEM;
}

static int64_t hlsnap__lx_madvise(uint64_t at, uint64_t bytes, uint64_t advice) {
    uint64_t from, to, page, n;
    if (at % HLSNAP__LX_PAGE || advice > 31 || !(1u << advice & HLSNAP__LX_ADVICES)) return -HLSNAP__LX_EINVAL;
    if (!hlsnap__lx_clip(at, bytes, &from, &to)) return advice == HLSNAP__LX_WIPEONFORK ? -HLSNAP__LX_EINVAL : 0;
    page = hlsnap__lx_page_of(from);
    n = (to - from) / HLSNAP__LX_PAGE;
    switch (advice) {
    case HLSNAP__LX_DONTNEED:
        for (; from < to; from += HLSNAP__LX_PAGE)
            if (hlsnap__lx_bit(hlsnap__lx_mem.dirty, hlsnap__lx_page_of(from)) &&
                !hlsnap__lx_bit(hlsnap__lx_mem.own, hlsnap__lx_page_of(from)) && /* a file keeps what is in it, */
                !hlsnap__lx_bit(hlsnap__lx_mem.copies, hlsnap__lx_page_of(from))) /* and so does a copy of it */
                hlsnap__lx_fill((void *)(uintptr_t)from, 0, HLSNAP__LX_PAGE);
        return hlsnap__lx_all(hlsnap__lx_mem.used, page, n, true) ? 0 : -HLSNAP__LX_ENOMEM;
    case HLSNAP__LX_WIPEONFORK:
        if (!hlsnap__lx_all(hlsnap__lx_mem.own, page, n, false) || !hlsnap__lx_all(hlsnap__lx_mem.copies, page, n, false))
            return -HLSNAP__LX_EINVAL; /* of a file, as on Linux */
        if (!hlsnap__lx_all(hlsnap__lx_mem.used, page, n, true))
            return -HLSNAP__LX_ENOMEM; /* what will be there is not what was meant */
        hlsnap__lx_wipe_remove(from, to);
        hlsnap__lx.wipes = true;
        return hlsnap__lx_range_add(hlsnap__lx_mem.wipes, HLSNAP__LX_WIPES, from, to, 0) ? 0 : -HLSNAP__LX_ENOMEM;
    case HLSNAP__LX_KEEPONFORK: hlsnap__lx_wipe_remove(from, to); return 0;
    default: return 0;
    }
}

/* Zeroes what is free, so that no snapshot holds it. */
static void hlsnap__lx_trim(void) {
    uint64_t i;
    for (i = 0; i < hlsnap__lx_mem.pages; i++)
        if (hlsnap__lx_bit(hlsnap__lx_mem.dirty, i) && !hlsnap__lx_bit(hlsnap__lx_mem.used, i)) {
            hlsnap__lx_fill(hlsnap__lx_page(i), 0, HLSNAP__LX_PAGE);
            hlsnap__lx_bits(hlsnap__lx_mem.dirty, i, 1, false);
        }
}

/* ---- >>lx_time: the wall clock of the entry, and the time stamp counter since ---- */

__extension__ typedef unsigned __int128 hlsnap__lx_u128;

static HLSNAP__EACH_CALL uint64_t hlsnap__lx_wall(void) {
    const uint64_t at_entry = hlsnap__lx_mailbox()->realtime_ns, scale = hlsnap__lx.id->tsc_scale;
    if (!at_entry) return ++hlsnap__lx.clock.asked * 1000;
    if (!scale) return at_entry + ++hlsnap__lx.clock.asked;
    return at_entry + (uint64_t)(((hlsnap__lx_u128)(hlsnap__lx_rdtsc() - hlsnap__lx.clock.tsc) * scale) >> 32);
}

/* ns; no two answers are the same, none is below an earlier one, also after a restore on a machine whose clock is behind. */
static uint64_t hlsnap__lx_monotonic(void) {
    uint64_t ns = hlsnap__lx_wall() + hlsnap__lx.clock.ahead - hlsnap__lx.clock.start;
    if ((int64_t)(ns - hlsnap__lx.clock.last) <= 0) ns = hlsnap__lx.clock.last + 1;
    return hlsnap__lx.clock.last = ns;
}
static uint64_t hlsnap__lx_realtime(void) {
    uint64_t ns = hlsnap__lx_wall() + hlsnap__lx.clock.real_ahead;
    if (ns <= hlsnap__lx.clock.real_last) ns = hlsnap__lx.clock.real_last + 1;
    return hlsnap__lx.clock.real_last = ns;
}

/* After an entry. On a machine whose clock is behind what was told, the monotonic one goes on from there, at the clock's pace. */
static HLSNAP__EACH_CALL void hlsnap__lx_catch_up(void) {
    const uint64_t ns = hlsnap__lx_mailbox()->realtime_ns + hlsnap__lx.clock.ahead - hlsnap__lx.clock.start;
    if (!hlsnap__lx_mailbox()->realtime_ns) return;
    if ((int64_t)(ns - hlsnap__lx.clock.last) < 0)
        hlsnap__lx.clock.ahead += hlsnap__lx.clock.last - ns;
    else
        hlsnap__lx.clock.idle += ns - hlsnap__lx.clock.last;
}

/* Sleeping costs no time: a sandbox that slept would cost its host a thread. */
static void hlsnap__lx_time_jump(uint64_t until) {
    const uint64_t now = hlsnap__lx_monotonic();
    if (until <= now || until - now > 1ull << 62) return;
    hlsnap__lx.clock.ahead += until - now;
    hlsnap__lx.clock.real_ahead += until - now;
    hlsnap__lx.clock.idle += until - now;
    hlsnap__lx.clock.last = until;
}

/* What the program has worked: of CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID, and those with a number below 0. */
static uint64_t hlsnap__lx_worked(void) { return hlsnap__lx_monotonic() - hlsnap__lx.clock.idle; }

static bool hlsnap__lx_clock_is_real(uint64_t clock) { /* an int there */
    return !(uint32_t)clock || (uint32_t)clock == 5 || (uint32_t)clock == 11;
}

static int64_t hlsnap__lx_clock_get(uint64_t clock, uint64_t to, uint64_t unit) {
    uint64_t ns;
    if ((int32_t)clock > 11) return -HLSNAP__LX_EINVAL;
    ns = hlsnap__lx_clock_is_real(clock)                                                  ? hlsnap__lx_realtime()
         : (int32_t)clock < 0 || (uint32_t)clock == 2 || (uint32_t)clock == 3 ? hlsnap__lx_worked()
                                                                                          : hlsnap__lx_monotonic();
    hlsnap__lx_put64(to, ns / HLSNAP__LX_SECOND);
    hlsnap__lx_put64(to + 8, ns % HLSNAP__LX_SECOND / unit);
    return 0;
}

/* A struct timespec as ns; HLSNAP__LX_NEVER when there is none or it is too long, UINT64_MAX - 1 when it is malformed. */
#define HLSNAP__LX_MALFORMED (UINT64_MAX - 1)
static uint64_t hlsnap__lx_timespec(uint64_t at, uint64_t unit) {
    uint64_t s, ns;
    if (!at) return HLSNAP__LX_NEVER;
    s = hlsnap__lx_get64(at);
    ns = hlsnap__lx_get64(at + 8);
    if ((int64_t)s < 0 || ns >= HLSNAP__LX_SECOND / unit) return HLSNAP__LX_MALFORMED;
    return s > 1ull << 33 ? HLSNAP__LX_NEVER : s * HLSNAP__LX_SECOND + ns * unit;
}
/* The monotonic time that is `ns` from now. */
static uint64_t hlsnap__lx_in(uint64_t ns) { return ns == HLSNAP__LX_NEVER ? ns : hlsnap__lx_monotonic() + ns; }

/* ---- >>lx_random: ChaCha20 over the entropy that every start and restore brings ---- */

static uint32_t hlsnap__lx_rotl(uint32_t v, unsigned n) { return v << n | v >> (32 - n); }

static void hlsnap__lx_random_block(uint32_t out[16], uint64_t counter) {
    static const uint8_t quarters[8][4] = {{0, 4, 8, 12},  {1, 5, 9, 13},  {2, 6, 10, 14}, {3, 7, 11, 15},
                                           {0, 5, 10, 15}, {1, 6, 11, 12}, {2, 7, 8, 13},  {3, 4, 9, 14}};
    uint32_t in[16];
    int round, q;
    in[0] = 0x61707865u;
    in[1] = 0x3320646eu;
    in[2] = 0x79622d32u;
    in[3] = 0x6b206574u;
    hlsnap__lx_copy(in + 4, hlsnap__lx.id->entropy, 32);
    in[12] = (uint32_t)counter;
    in[13] = (uint32_t)(counter >> 32);
    in[14] = 0x6c78u; /* another stream than hlsnap_rt_random's */
    in[15] = 1;
    hlsnap__lx_copy(out, in, 64);
    for (round = 0; round < 10; round++)
        for (q = 0; q < 8; q++) {
            uint32_t *a = out + quarters[q][0], *b = out + quarters[q][1], *c = out + quarters[q][2],
                     *d = out + quarters[q][3];
            *a += *b;
            *d = hlsnap__lx_rotl(*d ^ *a, 16);
            *c += *d;
            *b = hlsnap__lx_rotl(*b ^ *c, 12);
            *a += *b;
            *d = hlsnap__lx_rotl(*d ^ *a, 8);
            *c += *d;
            *b = hlsnap__lx_rotl(*b ^ *c, 7);
        }
    for (q = 0; q < 16; q++) out[q] += in[q];
}

static int64_t hlsnap__lx_random(uint64_t to, uint64_t n) {
    uint64_t done;
    for (done = 0; done < n; done += 64) {
        uint32_t block[16];
        hlsnap__lx_random_block(block, hlsnap__lx.random_counter++);
        hlsnap__lx_copy((void *)(uintptr_t)(to + done), block, hlsnap__lx_min(n - done, 64));
    }
    return (int64_t)n;
}

/* ---- >>lx_fds: descriptors ---- */

/* What a descriptor is open to. The last ones are of >>lx_streams. */
typedef enum hlsnap__lx_kind {
    HLSNAP__LX_FREE,
    HLSNAP__LX_INPUT,  /* fd 0 */
    HLSNAP__LX_OUTPUT, /* object: 1 or 2 */
    HLSNAP__LX_NULL,
    HLSNAP__LX_ZERO,
    HLSNAP__LX_RANDOM,
    HLSNAP__LX_FILE, /* object: a node */
    HLSNAP__LX_DIR,
    HLSNAP__LX_PIPE_READ,
    HLSNAP__LX_PIPE_WRITE,
    HLSNAP__LX_EVENT,
    HLSNAP__LX_EPOLL
} hlsnap__lx_kind;

typedef struct hlsnap__lx_open { /* an open file description: what dup shares */
    uint32_t kind, refs;         /* refs: descriptors that lead here */
    uint32_t flags;              /* of open: access mode, O_APPEND, O_NONBLOCK */
    uint32_t object;
    uint64_t at;  /* of a file, or in a directory */
    uint64_t end; /* of a directory's listing: what came later is not in it */
} hlsnap__lx_open;

#define HLSNAP__LX_FDS 1024u /* descriptors, and descriptions */

/* The description behind a descriptor, or NULL. */
static hlsnap__lx_open *hlsnap__lx_fd(int32_t fd);
/* A descriptor for something new: the lowest free one, or -EMFILE. flags: of open, O_CLOEXEC among them. */
static int64_t hlsnap__lx_fd_add(uint32_t kind, uint32_t object, uint64_t flags);
/* Drops a reference to it: the last one closes it. Who waits in a call holds one (refs + 1), whatever is closed meanwhile. */
static void hlsnap__lx_open_put(hlsnap__lx_open *o);
/* What can be done with it now: HLSNAP__LX_POLLIN, _POLLOUT, _POLLHUP, _POLLERR. */
static uint32_t hlsnap__lx_ready(const hlsnap__lx_open *o);

/* Standard input: of >>lx_start. Whether a read would find something, the end included; what it finds; waits for more to come,
   when nothing in the program can run: the call that is in progress gets its answer, and the next one brings input. */
static bool hlsnap__lx_input_ready(void);
static int64_t hlsnap__lx_input_read(uint64_t to, uint64_t n);
static void hlsnap__lx_input_wait(void);
/* What the program writes to fd 1 or 2. */
static void hlsnap__lx_standard_output(int32_t fd, uint64_t from, uint64_t n);

/* Of >>lx_streams: pipes, events, epolls. */
static int64_t hlsnap__lx_stream_read(hlsnap__lx_open *o, uint64_t to, uint64_t n);
static int64_t hlsnap__lx_stream_write(hlsnap__lx_open *o, uint64_t from, uint64_t n);
/* The last reference is gone; of standard input and output, too. */
static void hlsnap__lx_stream_close(hlsnap__lx_open *o);
static uint32_t hlsnap__lx_stream_ready(const hlsnap__lx_open *o);
static uint32_t hlsnap__lx_stream_size(const hlsnap__lx_open *o); /* for FIONREAD */

/* Of >>lx_threads. The running thread waits until somebody wakes the channel, an address: true; or until a time of
   hlsnap__lx_monotonic: false. input: it also waits for standard input, see hlsnap__lx_input_wait. */
static bool hlsnap__lx_wait(uint64_t channel, uint64_t until, bool input);
/* Makes up to n of those that wait there runnable; how many. They run when this thread waits or yields. */
static uint64_t hlsnap__lx_wake(uint64_t channel, uint64_t n);
/* Something may have become ready: wakes all that poll. */
static void hlsnap__lx_poke(void);

enum {
    HLSNAP__LX_AT_CWD = -100,
    HLSNAP__LX_AT_NOFOLLOW = 0x100,
    HLSNAP__LX_AT_REMOVEDIR = 0x200,
    HLSNAP__LX_AT_EMPTY_PATH = 0x1000
};
enum {
    HLSNAP__LX_O_WRONLY = 1,
    HLSNAP__LX_O_RDWR = 2,
    HLSNAP__LX_O_CREAT = 0x40,
    HLSNAP__LX_O_EXCL = 0x80,
    HLSNAP__LX_O_TRUNC = 0x200,
    HLSNAP__LX_O_APPEND = 0x400,
    HLSNAP__LX_O_NONBLOCK = 0x800,
    HLSNAP__LX_O_DIRECTORY = 0x10000,
    HLSNAP__LX_O_NOFOLLOW = 0x20000,
    HLSNAP__LX_O_CLOEXEC = 0x80000,
    HLSNAP__LX_O_PATH = 0x200000
};
enum {
    HLSNAP__LX_POLLIN = 1,
    HLSNAP__LX_POLLOUT = 4,
    HLSNAP__LX_POLLERR = 8,
    HLSNAP__LX_POLLHUP = 16,
    HLSNAP__LX_POLLNVAL = 32
};

enum {
    HLSNAP__LX_O_ACCESS = 3,
    HLSNAP__LX_O_NOCTTY = 0x100,
    HLSNAP__LX_O_LARGEFILE = 0x8000,
    HLSNAP__LX_O_TMPFILE = 0x400000
};
enum { HLSNAP__LX_READS = 1, HLSNAP__LX_WRITES = 2 };
#define HLSNAP__LX_MOST 0x7ffff000ull /* bytes that one read or write moves */

static struct hlsnap__lx_fds {
    uint64_t used[HLSNAP__LX_FDS / 64], cloexec[HLSNAP__LX_FDS / 64]; /* a bit a descriptor */
    uint64_t opened[HLSNAP__LX_FDS / 64];                             /* a bit a description */
    uint16_t to[HLSNAP__LX_FDS];                                      /* the description of a descriptor */
    hlsnap__lx_open open[HLSNAP__LX_FDS];
} hlsnap__lx_fds;

/* Of >>lx_nodes. */
static void hlsnap__lx_node_hold(uint32_t node);
static void hlsnap__lx_node_put(uint32_t node);
static uint64_t hlsnap__lx_listed(void); /* the place of the newest entry of a directory */
static int64_t hlsnap__lx_file_read(uint32_t node, uint64_t at, uint64_t to, uint64_t n);
static int64_t hlsnap__lx_file_write(uint32_t node, uint64_t at, uint64_t from, uint64_t n);
static uint64_t hlsnap__lx_node_size(uint32_t node);
static bool hlsnap__lx_node_full(uint32_t node); /* /dev/full */

static int64_t hlsnap__lx_lowest(const uint64_t *map, uint64_t from) {
    uint64_t i;
    for (i = from / 64; i < HLSNAP__LX_FDS / 64; i++) {
        const uint64_t free = ~map[i] & (i == from / 64 ? ~0ull << from % 64 : ~0ull);
        if (free) return (int64_t)(i * 64 + (uint64_t)__builtin_ctzll(free));
    }
    return -HLSNAP__LX_EMFILE;
}

static hlsnap__lx_open *hlsnap__lx_fd(int32_t fd) {
    if (fd < 0 || fd >= (int32_t)HLSNAP__LX_FDS || !hlsnap__lx_bit(hlsnap__lx_fds.used, (uint64_t)fd)) return NULL;
    return &hlsnap__lx_fds.open[hlsnap__lx_fds.to[fd]];
}

/* The same, when it can be used for HLSNAP__LX_READS, _WRITES, or neither; O_PATH is for neither. */
static hlsnap__lx_open *hlsnap__lx_fd_for(int32_t fd, uint32_t what) {
    hlsnap__lx_open *o = hlsnap__lx_fd(fd);
    if (!o || o->flags & HLSNAP__LX_O_PATH) return NULL;
    return what & ~((o->flags & HLSNAP__LX_O_ACCESS) + 1) & 3 ? NULL : o; /* O_RDONLY 0, O_WRONLY 1, O_RDWR 2 */
}

static void hlsnap__lx_fd_set(uint64_t fd, const hlsnap__lx_open *o, bool cloexec) {
    hlsnap__lx_fds.to[fd] = (uint16_t)(o - hlsnap__lx_fds.open);
    hlsnap__lx_bits(hlsnap__lx_fds.used, fd, 1, true);
    hlsnap__lx_bits(hlsnap__lx_fds.cloexec, fd, 1, cloexec);
}

static int64_t hlsnap__lx_fd_add(uint32_t kind, uint32_t object, uint64_t flags) {
    const int64_t fd = hlsnap__lx_lowest(hlsnap__lx_fds.used, 0), i = hlsnap__lx_lowest(hlsnap__lx_fds.opened, 0);
    const uint64_t not_kept =
        HLSNAP__LX_O_CLOEXEC | HLSNAP__LX_O_CREAT | HLSNAP__LX_O_EXCL | HLSNAP__LX_O_TRUNC | HLSNAP__LX_O_NOCTTY;
    hlsnap__lx_open *o;
    if (fd < 0 || i < 0) return -HLSNAP__LX_EMFILE;
    o = &hlsnap__lx_fds.open[i];
    hlsnap__lx_bits(hlsnap__lx_fds.opened, (uint64_t)i, 1, true);
    o->kind = kind;
    o->refs = 1;
    o->flags = (uint32_t)(flags & ~not_kept);
    o->object = object;
    o->at = 0;
    o->end = hlsnap__lx_listed();
    if (kind == HLSNAP__LX_FILE || kind == HLSNAP__LX_DIR) hlsnap__lx_node_hold(object);
    hlsnap__lx_fd_set((uint64_t)fd, o, flags & HLSNAP__LX_O_CLOEXEC);
    return fd;
}

static void hlsnap__lx_open_put(hlsnap__lx_open *o) {
    if (--o->refs) return;
    if (o->kind == HLSNAP__LX_FILE || o->kind == HLSNAP__LX_DIR)
        hlsnap__lx_node_put(o->object);
    else
        hlsnap__lx_stream_close(o);
    o->kind = HLSNAP__LX_FREE;
    hlsnap__lx_bits(hlsnap__lx_fds.opened, (uint64_t)(o - hlsnap__lx_fds.open), 1, false);
}

static int64_t hlsnap__lx_close(int32_t fd) {
    hlsnap__lx_open *o = hlsnap__lx_fd(fd);
    if (!o) return -HLSNAP__LX_EBADF;
    hlsnap__lx_bits(hlsnap__lx_fds.used, (uint64_t)fd, 1, false);
    hlsnap__lx_open_put(o);
    return 0;
}

static int64_t hlsnap__lx_close_range(uint64_t first, uint64_t last, uint64_t flags) {
    uint64_t fd;
    first &= 0xffffffffu; /* unsigned int there */
    last &= 0xffffffffu;
    if (flags & ~6ull || first > last) return -HLSNAP__LX_EINVAL; /* CLOSE_RANGE_UNSHARE, _CLOEXEC */
    for (fd = first; fd <= last && fd < HLSNAP__LX_FDS; fd++) {
        if (!(flags & 4))
            hlsnap__lx_close((int32_t)fd);
        else if (hlsnap__lx_bit(hlsnap__lx_fds.used, fd))
            hlsnap__lx_bits(hlsnap__lx_fds.cloexec, fd, 1, true);
    }
    return 0;
}

/* The lowest free number from `from` on leads to the same description. */
static int64_t hlsnap__lx_dup_from(hlsnap__lx_open *o, uint64_t from, bool cloexec) {
    const int64_t fd = hlsnap__lx_lowest(hlsnap__lx_fds.used, from);
    if (fd < 0) return fd;
    o->refs++;
    hlsnap__lx_fd_set((uint64_t)fd, o, cloexec);
    return fd;
}

static int64_t hlsnap__lx_dup(int32_t fd) {
    hlsnap__lx_open *o = hlsnap__lx_fd(fd);
    return o ? hlsnap__lx_dup_from(o, 0, false) : -HLSNAP__LX_EBADF;
}

static int64_t hlsnap__lx_dup3(int32_t fd, int32_t to, uint64_t flags) {
    hlsnap__lx_open *o = hlsnap__lx_fd(fd);
    if (flags & ~(uint64_t)HLSNAP__LX_O_CLOEXEC || fd == to) return -HLSNAP__LX_EINVAL;
    if (!o || to < 0 || to >= (int32_t)HLSNAP__LX_FDS) return -HLSNAP__LX_EBADF;
    o->refs++; /* first: what is closed may be the same */
    hlsnap__lx_close(to);
    hlsnap__lx_fd_set((uint64_t)to, o, flags != 0);
    return to;
}

static int64_t hlsnap__lx_dup2(int32_t fd, int32_t to) {
    if (fd != to) return hlsnap__lx_dup3(fd, to, 0);
    return hlsnap__lx_fd(fd) ? to : -HLSNAP__LX_EBADF;
}

static uint32_t hlsnap__lx_ready(const hlsnap__lx_open *o) {
    if (o->flags & HLSNAP__LX_O_PATH) return HLSNAP__LX_POLLNVAL;
    if (o->kind >= HLSNAP__LX_PIPE_READ) return hlsnap__lx_stream_ready(o);
    if (o->kind == HLSNAP__LX_INPUT) return hlsnap__lx_input_ready() ? HLSNAP__LX_POLLIN : 0;
    return o->kind == HLSNAP__LX_OUTPUT ? HLSNAP__LX_POLLOUT : HLSNAP__LX_POLLIN | HLSNAP__LX_POLLOUT;
}

static bool hlsnap__lx_seekable(const hlsnap__lx_open *o) {
    return o->kind > HLSNAP__LX_OUTPUT && o->kind < HLSNAP__LX_PIPE_READ;
}

/* Who waits holds the description, which another thread may close meanwhile. */
static int64_t hlsnap__lx_read_input(hlsnap__lx_open *o, uint64_t to, uint64_t n) {
    int64_t r = 0;
    o->refs++;
    while (n && !hlsnap__lx_input_ready() && !(o->flags & HLSNAP__LX_O_NONBLOCK))
        hlsnap__lx_wait((uint64_t)(uintptr_t)&hlsnap__lx_fds, HLSNAP__LX_NEVER, true);
    if (n) r = hlsnap__lx_input_ready() ? hlsnap__lx_input_read(to, n) : -HLSNAP__LX_EAGAIN;
    hlsnap__lx_open_put(o);
    return r;
}

/* at: -1 = where the description is, which goes on. */
static int64_t hlsnap__lx_read_open(hlsnap__lx_open *o, uint64_t to, uint64_t n, int64_t at) {
    int64_t r;
    n = hlsnap__lx_min(n, HLSNAP__LX_MOST);
    switch (o->kind) {
    case HLSNAP__LX_FILE:
        r = hlsnap__lx_file_read(o->object, at < 0 ? o->at : (uint64_t)at, to, n);
        if (at < 0) o->at += (uint64_t)r;
        return r;
    case HLSNAP__LX_DIR: return -HLSNAP__LX_EISDIR;
    case HLSNAP__LX_NULL: return 0;
    case HLSNAP__LX_ZERO: hlsnap__lx_fill((void *)(uintptr_t)to, 0, n); return (int64_t)n;
    case HLSNAP__LX_RANDOM: return hlsnap__lx_random(to, n);
    case HLSNAP__LX_INPUT: return hlsnap__lx_read_input(o, to, n);
    default: return hlsnap__lx_stream_read(o, to, n);
    }
}

static int64_t hlsnap__lx_write_open(hlsnap__lx_open *o, uint64_t from, uint64_t n, int64_t at, bool append) {
    uint64_t place;
    int64_t r;
    n = hlsnap__lx_min(n, HLSNAP__LX_MOST);
    switch (o->kind) {
    case HLSNAP__LX_FILE: /* O_APPEND counts for pwrite, too, as on Linux */
        place = append || o->flags & HLSNAP__LX_O_APPEND ? hlsnap__lx_node_size(o->object)
                : at < 0                                 ? o->at
                                                         : (uint64_t)at;
        r = hlsnap__lx_file_write(o->object, place, from, n);
        if (at < 0 && r > 0) o->at = place + (uint64_t)r;
        return r;
    case HLSNAP__LX_OUTPUT: hlsnap__lx_standard_output((int32_t)o->object, from, n); return (int64_t)n;
    case HLSNAP__LX_ZERO: return hlsnap__lx_node_full(o->object) ? -HLSNAP__LX_ENOSPC : (int64_t)n;
    case HLSNAP__LX_NULL:
    case HLSNAP__LX_RANDOM: return (int64_t)n;
    case HLSNAP__LX_INPUT:
    case HLSNAP__LX_DIR: return -HLSNAP__LX_EBADF;
    default: return hlsnap__lx_stream_write(o, from, n);
    }
}

static int64_t hlsnap__lx_read(int32_t fd, uint64_t to, uint64_t n) {
    hlsnap__lx_open *o = hlsnap__lx_fd_for(fd, HLSNAP__LX_READS);
    if (!o) return -HLSNAP__LX_EBADF;
    return (int64_t)n < 0 ? -HLSNAP__LX_EINVAL : hlsnap__lx_read_open(o, to, n, -1);
}

static int64_t hlsnap__lx_write(int32_t fd, uint64_t from, uint64_t n) {
    hlsnap__lx_open *o = hlsnap__lx_fd_for(fd, HLSNAP__LX_WRITES);
    if (!o) return -HLSNAP__LX_EBADF;
    return (int64_t)n < 0 ? -HLSNAP__LX_EINVAL : hlsnap__lx_write_open(o, from, n, -1, false);
}

/* Whether what is said of a place in it makes sense: 0, or -errno. */
static int64_t hlsnap__lx_place(const hlsnap__lx_open *o, uint64_t n, int64_t at) {
    if (!o) return -HLSNAP__LX_EBADF;
    if (!hlsnap__lx_seekable(o)) return -HLSNAP__LX_ESPIPE;
    return (int64_t)n < 0 || at > INT64_MAX - (int64_t)n ? -HLSNAP__LX_EINVAL : 0;
}

static int64_t hlsnap__lx_pread(int32_t fd, uint64_t to, uint64_t n, int64_t at) {
    hlsnap__lx_open *o = hlsnap__lx_fd_for(fd, HLSNAP__LX_READS);
    const int64_t r = at < 0 ? -HLSNAP__LX_EINVAL : hlsnap__lx_place(o, n, at);
    return r ? r : hlsnap__lx_read_open(o, to, n, at);
}

static int64_t hlsnap__lx_pwrite(int32_t fd, uint64_t from, uint64_t n, int64_t at) {
    hlsnap__lx_open *o = hlsnap__lx_fd_for(fd, HLSNAP__LX_WRITES);
    const int64_t r = at < 0 ? -HLSNAP__LX_EINVAL : hlsnap__lx_place(o, n, at);
    return r ? r : hlsnap__lx_write_open(o, from, n, at, false);
}

/* Whether a vector's lengths add up: 0, or -errno. */
static int64_t hlsnap__lx_vector(const hlsnap__lx_open *o, uint64_t iov, uint64_t num, int64_t at) {
    uint64_t i, sum = 0;
    if (!o) return -HLSNAP__LX_EBADF;
    if (num > 1024 || at < -1) return -HLSNAP__LX_EINVAL;
    if (at >= 0 && !hlsnap__lx_seekable(o)) return -HLSNAP__LX_ESPIPE;
    for (i = 0; i < num; i++) {
        const uint64_t n = hlsnap__lx_get64(iov + 16 * i + 8);
        if (n > INT64_MAX || sum + n > INT64_MAX) return -HLSNAP__LX_EINVAL;
        sum += n;
    }
    return at > INT64_MAX - (int64_t)hlsnap__lx_min(sum, HLSNAP__LX_MOST) ? -HLSNAP__LX_EINVAL : 0;
}

/* at: -1 = where the description is. flags: RWF_HIPRI, _DSYNC and _SYNC have nothing to do, _APPEND has. */
static int64_t hlsnap__lx_readv(int32_t fd, uint64_t iov, uint64_t num, int64_t at, uint64_t flags) {
    hlsnap__lx_open *o = hlsnap__lx_fd_for(fd, HLSNAP__LX_READS);
    int64_t r = hlsnap__lx_vector(o, iov, num, at), sum = 0;
    uint64_t i;
    if (r) return r;
    if (flags & ~7ull) return -HLSNAP__LX_EOPNOTSUPP;
    o->refs++; /* a read that waits lets others close it */
    for (i = 0; i < num; i++) {
        const uint64_t n = hlsnap__lx_min(hlsnap__lx_get64(iov + 16 * i + 8), HLSNAP__LX_MOST - (uint64_t)sum);
        if (!n) continue;
        if (sum && !(hlsnap__lx_ready(o) & HLSNAP__LX_POLLIN)) break; /* what is there does not wait for more */
        r = hlsnap__lx_read_open(o, hlsnap__lx_get64(iov + 16 * i), n, at < 0 ? at : at + sum);
        if (r < 0) break;
        sum += r;
        if ((uint64_t)r < n) break;
    }
    if (!sum && o->kind == HLSNAP__LX_DIR) r = -HLSNAP__LX_EISDIR;
    hlsnap__lx_open_put(o);
    return sum || r > 0 ? sum : r;
}

static int64_t hlsnap__lx_writev(int32_t fd, uint64_t iov, uint64_t num, int64_t at, uint64_t flags) {
    hlsnap__lx_open *o = hlsnap__lx_fd_for(fd, HLSNAP__LX_WRITES);
    int64_t r = hlsnap__lx_vector(o, iov, num, at), sum = 0;
    uint64_t i;
    if (r) return r;
    if (flags & ~0x17ull) return -HLSNAP__LX_EOPNOTSUPP;
    o->refs++;
    for (i = 0; i < num; i++) {
        const uint64_t n = hlsnap__lx_min(hlsnap__lx_get64(iov + 16 * i + 8), HLSNAP__LX_MOST - (uint64_t)sum);
        if (!n) continue;
        r = hlsnap__lx_write_open(o, hlsnap__lx_get64(iov + 16 * i), n, at < 0 ? at : at + sum, flags & 0x10);
        if (r < 0) break;
        sum += r;
        if ((uint64_t)r < n) break;
    }
    hlsnap__lx_open_put(o);
    return sum || r > 0 ? sum : r;
}

static int64_t hlsnap__lx_lseek(int32_t fd, int64_t at, uint64_t whence) {
    hlsnap__lx_open *o = hlsnap__lx_fd_for(fd, 0);
    uint64_t from = 0, size;
    if (!o) return -HLSNAP__LX_EBADF;
    if (!hlsnap__lx_seekable(o)) return -HLSNAP__LX_ESPIPE;
    if (whence > 4) return -HLSNAP__LX_EINVAL;
    if (o->kind != HLSNAP__LX_FILE && o->kind != HLSNAP__LX_DIR) return 0;
    size = o->kind == HLSNAP__LX_FILE ? hlsnap__lx_node_size(o->object) : 0;
    if (whence > 1 && o->kind == HLSNAP__LX_DIR) return -HLSNAP__LX_EINVAL;
    if (whence > 2) { /* SEEK_DATA, SEEK_HOLE: all of it is data */
        if (at < 0 || (uint64_t)at >= size) return -HLSNAP__LX_ENXIO;
        at = whence == 3 ? at : (int64_t)size;
    } else
        from = whence == 0 ? 0 : whence == 1 ? o->at : size;
    if (at > 0 && from > (uint64_t)INT64_MAX - (uint64_t)at) return -HLSNAP__LX_EINVAL;
    if ((int64_t)from + at < 0) return -HLSNAP__LX_EINVAL;
    o->at = from + (uint64_t)at;
    return (int64_t)o->at;
}

/* Locks of files: nobody else is there to hold one. flock: type, whence, start, length, pid. */
static int64_t hlsnap__lx_lock(const hlsnap__lx_open *o, uint64_t op, uint64_t a) {
    const uint16_t type = hlsnap__lx_get16(a);
    const bool asks = op == 5 || op == 36; /* F_GETLK, F_OFD_GETLK */
    const uint32_t can = (o->flags & HLSNAP__LX_O_ACCESS) + 1;
    if (hlsnap__lx_get16(a + 2) > 2 || type > 2 || (asks && type == 2)) return -HLSNAP__LX_EINVAL;
    if (op >= 36 && hlsnap__lx_get32(a + 24)) return -HLSNAP__LX_EINVAL;
    if (asks)
        hlsnap__lx_put16(a, 2); /* F_UNLCK */
    else if (type < 2 && !(can & 1u << type))
        return -HLSNAP__LX_EBADF; /* F_RDLCK, F_WRLCK */
    return 0;
}

static int64_t hlsnap__lx_fcntl(int32_t fd, uint64_t op, uint64_t a) {
    const uint32_t settable = HLSNAP__LX_O_APPEND | HLSNAP__LX_O_NONBLOCK;
    hlsnap__lx_open *o = hlsnap__lx_fd(fd);
    if (!o) return -HLSNAP__LX_EBADF;
    switch (op) {
    case 0:    /* F_DUPFD */
    case 1030: /* F_DUPFD_CLOEXEC */
        return a < HLSNAP__LX_FDS ? hlsnap__lx_dup_from(o, a, op != 0) : -HLSNAP__LX_EINVAL;
    case 1: /* F_GETFD */ return hlsnap__lx_bit(hlsnap__lx_fds.cloexec, (uint64_t)fd);
    case 2: /* F_SETFD */ hlsnap__lx_bits(hlsnap__lx_fds.cloexec, (uint64_t)fd, 1, a & 1); return 0;
    case 3: /* F_GETFL */ return o->flags;
    default: break;
    }
    if (o->flags & HLSNAP__LX_O_PATH) return -HLSNAP__LX_EBADF;
    switch (op) {
    case 4: /* F_SETFL */ o->flags = (o->flags & ~settable) | ((uint32_t)a & settable); return 0;
    case 5: /* F_GETLK, F_SETLK, F_SETLKW, and those of open file descriptions */
    case 6:
    case 7:
    case 36:
    case 37:
    case 38: return hlsnap__lx_lock(o, op, a);
    case 9: /* F_GETOWN */ return 0;
    default: return -HLSNAP__LX_EINVAL;
    }
}

static int64_t hlsnap__lx_ioctl(int32_t fd, uint64_t op, uint64_t a) {
    hlsnap__lx_open *o = hlsnap__lx_fd_for(fd, 0);
    if (!o) return -HLSNAP__LX_EBADF;
    switch ((uint32_t)op) {
    case 0x5451: /* FIOCLEX, FIONCLEX */
    case 0x5450: hlsnap__lx_bits(hlsnap__lx_fds.cloexec, (uint64_t)fd, 1, (uint32_t)op == 0x5451); return 0;
    case 0x5421: /* FIONBIO */
        o->flags = (o->flags & ~(uint32_t)HLSNAP__LX_O_NONBLOCK) |
                   (hlsnap__lx_get32(a) ? (uint32_t)HLSNAP__LX_O_NONBLOCK : 0u);
        return 0;
    case 0x541b: /* FIONREAD */
        if (o->kind == HLSNAP__LX_FILE)
            hlsnap__lx_put32(a, (uint32_t)(hlsnap__lx_node_size(o->object) - o->at));
        else if (o->kind != HLSNAP__LX_PIPE_READ && o->kind != HLSNAP__LX_PIPE_WRITE)
            return -HLSNAP__LX_ENOTTY;
        else
            hlsnap__lx_put32(a, hlsnap__lx_stream_size(o));
        return 0;
    default: return -HLSNAP__LX_ENOTTY;
    }
}

/* fsync, fdatasync, flock, fadvise64: nothing to do. */
static int64_t hlsnap__lx_file_sync(int32_t fd) { return hlsnap__lx_fd_for(fd, 0) ? 0 : -HLSNAP__LX_EBADF; }

static void hlsnap__lx_fds_setup(void) {
    uint32_t i;
#if defined(HLSNAP__LX_HOST)
    hlsnap__lx_fill(&hlsnap__lx_fds, 0, sizeof(hlsnap__lx_fds));
#endif
    for (i = 0; i < 3; i++) hlsnap__lx_fd_add(i ? HLSNAP__LX_OUTPUT : HLSNAP__LX_INPUT, i, i ? HLSNAP__LX_O_WRONLY : 0);
}

/* ---- >>lx_nodes: files and directories, those of the archive and those that the program made ---- */

/* What a node is says its mode, as st_mode does. */
enum {
    HLSNAP__LX_FMT = 0170000,
    HLSNAP__LX_FIFO = 0010000,
    HLSNAP__LX_DEVICE = 0020000,
    HLSNAP__LX_FOLDER = 0040000,
    HLSNAP__LX_REGULAR = 0100000,
    HLSNAP__LX_LINK = 0120000
};
enum {
    HLSNAP__LX_N_ARCHIVE = 1, /* cannot be changed: EROFS */
    HLSNAP__LX_N_SYSTEM = 2,  /* is always there: EACCES, EPERM */
    HLSNAP__LX_N_FIXED = 4,   /* a directory in which nothing can be made */
    HLSNAP__LX_N_FDS = 8,     /* /proc/self/fd: its entries are made when they are asked for */
    HLSNAP__LX_N_GONE = 16
}; /* no directory lists it any more */

/* Numbers of what has no node: the link /proc/self/fd/n, and what descriptor n is open to when that is no file. */
#define HLSNAP__LX_FD_LINK 0x80000000u
#define HLSNAP__LX_FD_ITSELF 0xc0000000u
#define HLSNAP__LX_ROOT 1u /* 0 = no node */

typedef struct hlsnap__lx_node {
    uint8_t *data;               /* file: its bytes; link: where it leads to */
    uint64_t size, room;         /* bytes; that there is memory for, 0 = the archive's; a device's size is its number */
    int64_t mtime, atime, ctime; /* ns since 1970 */
    const char *name;            /* no NUL behind it */
    uint64_t place;              /* in the listing of its directory, which is sorted by it */
    uint32_t parent, next, prev; /* in its directory; next also of the free nodes */
    uint32_t hash, chain;        /* of parent and name; the next one in its bucket */
    uint32_t first, last, listed; /* directory: its entries; where a listing may go on */
    uint32_t links;               /* names; directory: directories in it */
    uint32_t same;                /* hard link of the archive: the node that has all but name and place */
    uint32_t refs, pins; /* who holds it: descriptions, pins, the working directory, directories that were in it */
    uint16_t mode;
    uint8_t name_size, flags;
} hlsnap__lx_node;

static struct hlsnap__lx_tree {
    hlsnap__lx_node *chunk[26]; /* of 32, 64, 128 ... nodes: they never move */
    uint32_t num, free;         /* nodes that were ever used; a list of those that are not any more */
    uint32_t *bucket, mask, num_hashed;
    uint32_t few[64];          /* buckets, before there are more */
    hlsnap__lx_node start[32]; /* the first chunk: what is always there needs no heap */
    uint64_t place;            /* the last one that was given out */
    uint32_t cwd, exe, maps;   /* exe: what /proc/self/exe leads to; nowhere listed */
    uint32_t umask;
} hlsnap__lx_tree;

static hlsnap__lx_node *hlsnap__lx_node_at(uint32_t i) {
    const uint32_t log = 31u - (uint32_t)__builtin_clz(i + 32u);
    return hlsnap__lx_tree.chunk[log - 5] + (i + 32u - (1u << log));
}

static bool hlsnap__lx_has_node(uint32_t i) { return i && i < HLSNAP__LX_FD_LINK; }
static bool hlsnap__lx_is(uint32_t i, uint32_t what) {
    if (i >= HLSNAP__LX_FD_ITSELF) return false;
    if (i >= HLSNAP__LX_FD_LINK) return what == HLSNAP__LX_LINK;
    return i && (hlsnap__lx_node_at(i)->mode & HLSNAP__LX_FMT) == what;
}
/* The node that has the contents. */
static uint32_t hlsnap__lx_content(uint32_t i) {
    const uint32_t same = hlsnap__lx_has_node(i) ? hlsnap__lx_node_at(i)->same : 0;
    return same ? same : i;
}

static uint64_t hlsnap__lx_listed(void) { return hlsnap__lx_tree.place; }
static void hlsnap__lx_node_hold(uint32_t node) { hlsnap__lx_node_at(node)->refs++; }
static uint64_t hlsnap__lx_node_size(uint32_t node) { return hlsnap__lx_node_at(node)->size; }
static bool hlsnap__lx_node_full(uint32_t node) { return node && hlsnap__lx_node_at(node)->size == 0x107; }

/* A node that is nowhere yet; 0 = the heap is full. */
static uint32_t hlsnap__lx_node_new(uint32_t mode, uint32_t flags) {
    struct hlsnap__lx_tree *t = &hlsnap__lx_tree;
    uint32_t i = t->free;
    hlsnap__lx_node *p;
    if (!i) {
        const uint32_t log = 31u - (uint32_t)__builtin_clz(t->num + 33u);
        if (log > 30) return 0;
        if (!t->chunk[log - 5]) t->chunk[log - 5] = (hlsnap__lx_node *)hlsnap__lx_pages((1ull << log) * sizeof(*p));
        if (!t->chunk[log - 5]) return 0;
        i = ++t->num;
    }
    p = hlsnap__lx_node_at(i);
    if (i == t->free) t->free = p->next;
    p->next = 0;
    p->mode = (uint16_t)mode;
    p->flags = (uint8_t)flags;
    return i;
}

static void hlsnap__lx_node_free(uint32_t i) {
    hlsnap__lx_node *p = hlsnap__lx_node_at(i);
    if (p->room) hlsnap__lx_release(p->data, p->room);
    if (!(p->flags & (HLSNAP__LX_N_ARCHIVE | HLSNAP__LX_N_SYSTEM)))
        hlsnap__lx_release((void *)(uintptr_t)p->name, p->name_size);
    hlsnap__lx_fill(p, 0, sizeof(*p));
    p->next = hlsnap__lx_tree.free;
    hlsnap__lx_tree.free = i;
}

/* ---- directories ---- */

static uint32_t hlsnap__lx_hash(uint32_t dir, const char *name, uint64_t n) {
    uint64_t h = dir * 0x9e3779b97f4a7c15ull, i;
    for (i = 0; i < n; i++) h = (h ^ (uint8_t)name[i]) * 0x9ddfea08eb382d69ull;
    return (uint32_t)(h >> 32 ^ h >> 15);
}

static uint32_t hlsnap__lx_child(uint32_t dir, const char *name, uint64_t n) {
    const uint32_t hash = hlsnap__lx_hash(dir, name, n);
    uint32_t i = hlsnap__lx_tree.bucket[hash & hlsnap__lx_tree.mask];
    while (i) {
        const hlsnap__lx_node *p = hlsnap__lx_node_at(i);
        if (p->hash == hash && p->parent == dir && p->name_size == n && hlsnap__lx_same(p->name, name, n)) break;
        i = p->chain;
    }
    return i;
}

static void hlsnap__lx_chain(uint32_t i) {
    hlsnap__lx_node *p = hlsnap__lx_node_at(i);
    uint32_t *bucket = &hlsnap__lx_tree.bucket[p->hash & hlsnap__lx_tree.mask];
    p->chain = *bucket;
    *bucket = i;
}

/* Four times the buckets, when there are as many nodes; a full heap makes it slower, not wrong. */
static void hlsnap__lx_buckets_grow(void) {
    struct hlsnap__lx_tree *t = &hlsnap__lx_tree;
    const uint64_t have = (uint64_t)t->mask + 1, want = 4 * have;
    uint32_t *bucket = want <= 1u << 30 ? (uint32_t *)hlsnap__lx_pages(want * 4) : NULL, *old = t->bucket;
    uint64_t b;
    if (!bucket) return;
    t->bucket = bucket;
    t->mask = (uint32_t)(want - 1);
    for (b = 0; b < have; b++) {
        uint32_t i = old[b];
        while (i) {
            const uint32_t next = hlsnap__lx_node_at(i)->chain;
            hlsnap__lx_chain(i);
            i = next;
        }
    }
    if (old != t->few) hlsnap__lx_pages_free(old, have * 4);
}

/* Puts a node into a directory, at its end, or in the place of an entry that was there. */
static void hlsnap__lx_attach(uint32_t i, uint32_t dir, const char *name, uint64_t n, uint64_t place, uint32_t before) {
    hlsnap__lx_node *p = hlsnap__lx_node_at(i), *d = hlsnap__lx_node_at(dir);
    if (hlsnap__lx_tree.num_hashed++ > hlsnap__lx_tree.mask) hlsnap__lx_buckets_grow();
    p->parent = dir;
    p->name = name;
    p->name_size = (uint8_t)n;
    p->hash = hlsnap__lx_hash(dir, name, n);
    hlsnap__lx_chain(i);
    p->place = place ? place : ++hlsnap__lx_tree.place;
    p->next = before;
    p->prev = before ? hlsnap__lx_node_at(before)->prev : d->last;
    if (p->prev)
        hlsnap__lx_node_at(p->prev)->next = i;
    else
        d->first = i;
    if (before)
        hlsnap__lx_node_at(before)->prev = i;
    else
        d->last = i;
    if (hlsnap__lx_is(i, HLSNAP__LX_FOLDER))
        d->links++;
    else
        p->links = 1;
}

static void hlsnap__lx_detach(uint32_t i) {
    hlsnap__lx_node *p = hlsnap__lx_node_at(i), *d = hlsnap__lx_node_at(p->parent);
    uint32_t *chain = &hlsnap__lx_tree.bucket[p->hash & hlsnap__lx_tree.mask];
    while (*chain != i) chain = &hlsnap__lx_node_at(*chain)->chain;
    *chain = p->chain;
    hlsnap__lx_tree.num_hashed--;
    if (p->prev)
        hlsnap__lx_node_at(p->prev)->next = p->next;
    else
        d->first = p->next;
    if (p->next)
        hlsnap__lx_node_at(p->next)->prev = p->prev;
    else
        d->last = p->prev;
    if (d->listed == i) d->listed = p->prev;
    if (hlsnap__lx_is(i, HLSNAP__LX_FOLDER))
        d->links--;
    else
        p->links = 0;
    p->next = p->prev = p->chain = 0;
}

static void hlsnap__lx_touched(uint32_t dir) {
    hlsnap__lx_node *d = hlsnap__lx_node_at(dir);
    d->mtime = d->ctime = (int64_t)hlsnap__lx_realtime();
}

/* One less holds it. What nobody holds and no directory lists goes, and then perhaps the directory that it was in. */
static void hlsnap__lx_node_put(uint32_t i) {
    for (;;) {
        hlsnap__lx_node *p = hlsnap__lx_node_at(i);
        const uint32_t parent = p->parent;
        const bool dir = hlsnap__lx_is(i, HLSNAP__LX_FOLDER);
        if (--p->refs || !(p->flags & HLSNAP__LX_N_GONE)) return;
        hlsnap__lx_node_free(i);
        if (!dir) return;
        i = parent;
    }
}

/* Takes an entry out of its directory. What holds it still has it; a directory keeps the one that it was in, for "..". */
static void hlsnap__lx_remove(uint32_t i) {
    hlsnap__lx_node *p = hlsnap__lx_node_at(i);
    hlsnap__lx_detach(i);
    hlsnap__lx_touched(p->parent);
    p->ctime = hlsnap__lx_node_at(p->parent)->mtime;
    p->flags |= HLSNAP__LX_N_GONE;
    p->refs++;
    if (hlsnap__lx_is(i, HLSNAP__LX_FOLDER)) hlsnap__lx_node_hold(p->parent);
    hlsnap__lx_node_put(i);
}

/* Something new with a name of its own; 0 = the heap is full. */
static uint32_t hlsnap__lx_make(uint32_t dir, const char *name, uint64_t n, uint32_t mode) {
    char *own = (char *)hlsnap__lx_alloc(n);
    const uint32_t i = own ? hlsnap__lx_node_new(mode, 0) : 0;
    if (!i) {
        hlsnap__lx_release(own, n);
        return 0;
    }
    hlsnap__lx_copy(own, name, n);
    hlsnap__lx_attach(i, dir, own, n, 0, 0);
    hlsnap__lx_touched(dir);
    hlsnap__lx_node_at(i)->mtime = hlsnap__lx_node_at(i)->atime = hlsnap__lx_node_at(i)->ctime =
        hlsnap__lx_node_at(dir)->mtime;
    return i;
}

/* ---- what is in a file ---- */

/* Beyond its size, what a file has room for is zero, unless it is mapped: the program may write there. */
static uint64_t hlsnap__lx_room_for(uint64_t bytes) {
    uint64_t room = 64;
    if (bytes > HLSNAP__LX_PAGE) return hlsnap__lx_round(bytes) * HLSNAP__LX_PAGE;
    while (room < bytes) room *= 2;
    return room;
}

/* The last resort of a large file in a heap that is nearly full: pages right below it. Half of those that are free, so that few
   steps lead to the end. */
static bool hlsnap__lx_room_below(hlsnap__lx_node *p, uint64_t need) {
    const uint64_t end = hlsnap__lx_page_of((uint64_t)(uintptr_t)p->data), least = (need - p->room) / HLSNAP__LX_PAGE;
    uint64_t free = 0, more;
    while (free < end && !hlsnap__lx_bit(hlsnap__lx_mem.used, end - 1 - free)) free++;
    if (free < least) return false;
    more = (free / 2 > least ? free / 2 : least) * HLSNAP__LX_PAGE;
    hlsnap__lx_keep(end - more / HLSNAP__LX_PAGE, more / HLSNAP__LX_PAGE);
    hlsnap__lx_copy(p->data - more, p->data, p->size); /* downwards: the two may overlap */
    p->data -= more;
    p->room += more;
    hlsnap__lx_fill(p->data + p->size, 0, more);
    return true;
}

/* Room for so many bytes, in place when there is any, else elsewhere, unless it is mapped. */
static bool hlsnap__lx_room(hlsnap__lx_node *p, uint64_t bytes, uint64_t want) {
    const uint64_t need = hlsnap__lx_room_for(bytes), more = hlsnap__lx_room_for(want > need ? want : need);
    uint64_t room = more;
    uint8_t *data;
    if (bytes <= p->room) return true;
    if (need > hlsnap__lx_mem.pages * HLSNAP__LX_PAGE) return false;
    if (p->room >= HLSNAP__LX_PAGE) {
        if (!hlsnap__lx_pages_grow(p->data, p->room, room))
            room = hlsnap__lx_pages_grow(p->data, p->room, need) ? need : 0;
        if (room) p->room = room;
        if (room) return true;
        room = more;
    }
    if (p->pins) return false;
    data = (uint8_t *)hlsnap__lx_alloc(room);
    if (!data) data = (uint8_t *)hlsnap__lx_alloc(room = need);
    if (!data) return p->room >= HLSNAP__LX_PAGE && hlsnap__lx_room_below(p, need);
    if (p->room) {
        hlsnap__lx_copy(data, p->data, p->size);
        hlsnap__lx_release(p->data, p->room);
    }
    p->data = data;
    p->room = room;
    return true;
}

static int64_t hlsnap__lx_file_read(uint32_t node, uint64_t at, uint64_t to, uint64_t n) {
    const hlsnap__lx_node *p = hlsnap__lx_node_at(node);
    if (at >= p->size) return 0;
    n = hlsnap__lx_min(n, p->size - at);
    hlsnap__lx_copy((void *)(uintptr_t)to, p->data + at, n);
    return (int64_t)n;
}

static int64_t hlsnap__lx_file_write(uint32_t node, uint64_t at, uint64_t from, uint64_t n) {
    hlsnap__lx_node *p = hlsnap__lx_node_at(node);
    if (!n) return 0;
    if (at > INT64_MAX - n) return -HLSNAP__LX_EFBIG;
    if (!hlsnap__lx_room(p, at + n, p->room * 2)) {
        if (at >= p->room) return -HLSNAP__LX_ENOSPC;
        n = hlsnap__lx_min(n, p->room - at);
    }
    if (at > p->size && p->pins) hlsnap__lx_fill(p->data + p->size, 0, at - p->size);
    hlsnap__lx_copy(p->data + at, (const void *)(uintptr_t)from, n);
    if (at + n > p->size) p->size = at + n;
    p->mtime = p->ctime = (int64_t)hlsnap__lx_realtime();
    return (int64_t)n;
}

/* Gives back what a file does not need any more. Its pages stay where they are mapped. */
static void hlsnap__lx_shrink(hlsnap__lx_node *p, uint64_t size) {
    const uint64_t keep = hlsnap__lx_round(size) * HLSNAP__LX_PAGE;
    uint64_t end = p->size;
    if (p->pins || !p->room)
        ;
    else if (!size) {
        hlsnap__lx_release(p->data, p->room);
        p->data = NULL;
        p->room = end = 0;
    } else if (keep < p->room) {
        hlsnap__lx_pages_free(p->data + keep, p->room - keep);
        p->room = keep;
        end = hlsnap__lx_min(end, keep);
    }
    if (size < end) hlsnap__lx_fill(p->data + size, 0, end - size);
    p->size = size;
}

static int64_t hlsnap__lx_resize(uint32_t node, uint64_t size) {
    hlsnap__lx_node *p = hlsnap__lx_node_at(node);
    if (size < p->size)
        hlsnap__lx_shrink(p, size);
    else if (!hlsnap__lx_room(p, size, 0))
        return -HLSNAP__LX_ENOSPC;
    else if (p->pins)
        hlsnap__lx_fill(p->data + p->size, 0, size - p->size);
    p->size = size;
    p->mtime = p->ctime = (int64_t)hlsnap__lx_realtime();
    return 0;
}

/* ---- what >>lx_mappings asks ---- */

static int64_t hlsnap__lx_map_node(int32_t fd, bool shared, bool write) {
    const hlsnap__lx_open *o = hlsnap__lx_fd_for(fd, 0);
    const bool zero = o && o->kind == HLSNAP__LX_ZERO && !hlsnap__lx_node_full(o->object);
    if (!o) return -HLSNAP__LX_EBADF;
    if (!hlsnap__lx_fd_for(fd, HLSNAP__LX_READS)) return -HLSNAP__LX_EACCES;
    if (shared && write && !hlsnap__lx_fd_for(fd, HLSNAP__LX_WRITES)) return -HLSNAP__LX_EACCES;
    return o->kind == HLSNAP__LX_FILE || zero ? (int64_t)o->object : -HLSNAP__LX_ENODEV;
}

static uint64_t hlsnap__lx_node_bytes(uint32_t node, uint64_t offset, const uint8_t **from) {
    const hlsnap__lx_node *p = hlsnap__lx_node_at(node);
    if (!hlsnap__lx_is(node, HLSNAP__LX_REGULAR) || offset >= p->size) return 0;
    *from = p->data + offset;
    return p->size - offset;
}

/* The first mapping brings pages to spare, as a file that is mapped cannot move when it grows: SQLite's shared memory does. */
#define HLSNAP__LX_PIN_ROOM (128ull << 10)
static uint8_t *hlsnap__lx_node_pin(uint32_t node, uint64_t bytes) {
    hlsnap__lx_node *p = hlsnap__lx_node_at(node);
    uint64_t need = bytes > p->size ? bytes : p->size, want;
    const uint64_t free = (hlsnap__lx_mem.pages - hlsnap__lx.num_used) * HLSNAP__LX_PAGE;
    if (need > hlsnap__lx_mem.pages * HLSNAP__LX_PAGE) return NULL; /* and twice of it is a number */
    if (!hlsnap__lx_is(node, HLSNAP__LX_REGULAR) || p->flags & (HLSNAP__LX_N_ARCHIVE | HLSNAP__LX_N_SYSTEM))
        return NULL;
    if (need < HLSNAP__LX_PAGE) need = HLSNAP__LX_PAGE; /* whole pages, not a small block */
    want = hlsnap__lx_min(need * 2, need + HLSNAP__LX_PIN_ROOM);
    if (need < HLSNAP__LX_PIN_ROOM) want = HLSNAP__LX_PIN_ROOM;
    if (want > free / 16) want = need > free / 16 ? need : free / 16;
    if (p->pins) want = need;
    if (!hlsnap__lx_room(p, want, want) && !hlsnap__lx_room(p, need, need)) return NULL;
    p->pins++;
    p->refs++;
    return p->data;
}

static void hlsnap__lx_node_unpin(uint32_t node) {
    hlsnap__lx_node *p = hlsnap__lx_node_at(node);
    if (!--p->pins) hlsnap__lx_fill(p->data + p->size, 0, p->room - p->size);
    hlsnap__lx_node_put(node);
}

/* ---- >>lx_paths ---- */

typedef struct hlsnap__lx_span {
    const char *p;
    uint64_t n;
} hlsnap__lx_span;

#define HLSNAP__LX_PATH_MAX 4096u
#define HLSNAP__LX_NAME_MAX 255u
#define HLSNAP__LX_MAX_LINKS 40u

enum {
    HLSNAP__LX_FOLLOW = 1,   /* a link at the end, too */
    HLSNAP__LX_PARENT = 2,   /* the last component is a name, whatever it leads to; it may be too long */
    HLSNAP__LX_CREATE = 4,   /* a slash behind a name is an error: what is made is a file */
    HLSNAP__LX_EMPTY = 8,    /* "" is what the descriptor is open to */
    HLSNAP__LX_ARCHIVED = 16 /* directories that are missing are made as the archive's */
};
enum { HLSNAP__LX_LAST_NAME, HLSNAP__LX_LAST_DOT, HLSNAP__LX_LAST_DOTS, HLSNAP__LX_LAST_ROOT };

typedef struct hlsnap__lx_walk {
    uint32_t dir, node;   /* where it ends: the directory, and what is there; 0 = nothing */
    hlsnap__lx_span name; /* the last component */
    uint32_t last;        /* HLSNAP__LX_LAST_x */
    bool slash;           /* stands behind it */
    uint32_t depth, links;
    hlsnap__lx_span left[HLSNAP__LX_MAX_LINKS + 3]; /* what is to go yet, the innermost link last */
} hlsnap__lx_walk;

/* The number that a name says, as /proc/self/fd has them; UINT32_MAX = none. */
static uint32_t hlsnap__lx_fd_name(hlsnap__lx_span name) {
    uint32_t fd = 0;
    uint64_t i;
    for (i = 0; i < name.n; i++) {
        if (name.p[i] < '0' || name.p[i] > '9' || i > 4 || (i && !fd)) return UINT32_MAX;
        fd = fd * 10 + (uint32_t)(name.p[i] - '0');
    }
    return name.n ? fd : UINT32_MAX;
}

static uint32_t hlsnap__lx_lookup(uint32_t dir, hlsnap__lx_span name) {
    uint32_t fd;
    if (!(hlsnap__lx_node_at(dir)->flags & HLSNAP__LX_N_FDS)) return hlsnap__lx_child(dir, name.p, name.n);
    fd = hlsnap__lx_fd_name(name);
    return fd < HLSNAP__LX_FDS && hlsnap__lx_fd((int32_t)fd) ? HLSNAP__LX_FD_LINK + fd : 0;
}

/* What a descriptor is open to. */
static uint32_t hlsnap__lx_node_of(uint32_t fd) {
    const hlsnap__lx_open *o = hlsnap__lx_fd((int32_t)fd);
    const bool node = o->kind >= HLSNAP__LX_NULL && o->kind < HLSNAP__LX_PIPE_READ && o->object;
    return node ? o->object : HLSNAP__LX_FD_ITSELF + fd;
}

/* Goes on where a link leads to. 1 = w->node is it already; 0 = there is a path to go; or -errno. */
static int64_t hlsnap__lx_follow(hlsnap__lx_walk *w) {
    const hlsnap__lx_node *p;
    if (++w->links > HLSNAP__LX_MAX_LINKS) return -HLSNAP__LX_ELOOP;
    if (w->node >= HLSNAP__LX_FD_LINK) {
        w->node = hlsnap__lx_node_of(w->node - HLSNAP__LX_FD_LINK);
        return 1;
    }
    p = hlsnap__lx_node_at(w->node);
    if (!p->data) {
        w->node = hlsnap__lx_tree.exe;
        return 1;
    }
    if (!p->size) return -HLSNAP__LX_ENOENT;
    if (w->left[w->depth].n) w->depth++; /* else nothing follows it there */
    w->left[w->depth].p = (const char *)p->data;
    w->left[w->depth].n = p->size;
    if (p->data[0] == '/') w->dir = HLSNAP__LX_ROOT;
    return 0;
}

static int64_t hlsnap__lx_archive_dir(uint32_t dir, hlsnap__lx_span name, uint32_t *made); /* of >>lx_archive */

/* Takes the next component off what is left: false = there is none. */
static bool hlsnap__lx_step(hlsnap__lx_walk *w) {
    hlsnap__lx_span *left = &w->left[w->depth];
    while (left->n && *left->p == '/') {
        left->p++;
        left->n--;
    }
    w->name.p = left->p;
    for (w->name.n = 0; w->name.n < left->n && left->p[w->name.n] != '/';) w->name.n++;
    left->p += w->name.n;
    left->n -= w->name.n;
    w->slash = w->slash || left->n;
    while (left->n && *left->p == '/') {
        left->p++;
        left->n--;
    }
    return w->name.n != 0;
}

/* Walks what is left from w->dir on. */
static int64_t hlsnap__lx_walk_on(hlsnap__lx_walk *w, uint32_t how) {
    for (;;) {
        const bool slash = w->slash; /* behind the link whose last component this may be */
        bool last, dot, dots;
        if (!hlsnap__lx_step(w)) {
            w->node = w->dir;
            w->last = HLSNAP__LX_LAST_ROOT;
            if (!w->depth) return 0;
            w->depth--;
            continue;
        }
        last = !w->left[w->depth].n && !w->depth;
        if (!last) w->slash = slash;
        dot = w->name.n == 1 && w->name.p[0] == '.';
        dots = w->name.n == 2 && w->name.p[0] == '.' && w->name.p[1] == '.';
        if (!dot && !dots && last && w->slash && how & HLSNAP__LX_CREATE) return -HLSNAP__LX_EISDIR;
        if (w->name.n > HLSNAP__LX_NAME_MAX && !(last && how & HLSNAP__LX_PARENT)) return -HLSNAP__LX_ENAMETOOLONG;
        if (dots) w->dir = hlsnap__lx_node_at(w->dir)->parent;
        w->last = dot ? HLSNAP__LX_LAST_DOT : dots ? HLSNAP__LX_LAST_DOTS : HLSNAP__LX_LAST_NAME;
        w->node = dot || dots ? w->dir : hlsnap__lx_lookup(w->dir, w->name);
        if (!w->node && how & HLSNAP__LX_ARCHIVED) {
            const int64_t r = hlsnap__lx_archive_dir(w->dir, w->name, &w->node);
            if (r) return r;
        }
        if (!w->node) return last ? 0 : -HLSNAP__LX_ENOENT;
        if (hlsnap__lx_is(w->node, HLSNAP__LX_LINK) && !(last && how & HLSNAP__LX_PARENT) &&
            (!last || w->slash || how & HLSNAP__LX_FOLLOW)) {
            const int64_t r = hlsnap__lx_follow(w);
            if (r < 0) return r;
            if (!r) continue;
        }
        if (last && (!w->slash || how & HLSNAP__LX_PARENT)) return 0;
        if (!hlsnap__lx_is(w->node, HLSNAP__LX_FOLDER)) return -HLSNAP__LX_ENOTDIR;
        if (last) return 0;
        w->dir = w->node;
        if (!w->left[w->depth].n) w->depth--;
    }
}

/* Walks a path of the program. */
static int64_t hlsnap__lx_walk_path(hlsnap__lx_walk *w, int32_t dir, uint64_t path, uint32_t how) {
    const char *p = (const char *)(uintptr_t)path;
    const hlsnap__lx_open *o = NULL;
    uint64_t n = 0;
    if (!path && !(how & HLSNAP__LX_EMPTY)) return -HLSNAP__LX_EFAULT;
    while (path && n < HLSNAP__LX_PATH_MAX && p[n]) n++;
    if (n == HLSNAP__LX_PATH_MAX) return -HLSNAP__LX_ENAMETOOLONG;
    if (!n && !(how & HLSNAP__LX_EMPTY)) return -HLSNAP__LX_ENOENT;
    w->slash = false;
    w->depth = w->links = 0;
    w->last = HLSNAP__LX_LAST_ROOT;
    w->left[0].p = w->name.p = p;
    w->left[0].n = n;
    w->name.n = 0;
    if (n && p[0] == '/')
        w->dir = HLSNAP__LX_ROOT;
    else if (dir == HLSNAP__LX_AT_CWD)
        w->dir = hlsnap__lx_tree.cwd;
    else {
        o = hlsnap__lx_fd(dir);
        if (!o) return -HLSNAP__LX_EBADF;
        if (n && o->kind != HLSNAP__LX_DIR) return -HLSNAP__LX_ENOTDIR;
        w->dir = o->object;
    }
    if (n) return hlsnap__lx_walk_on(w, how);
    w->node = o ? hlsnap__lx_node_of((uint32_t)dir) : w->dir;
    return 0;
}

/* Whether an entry may be taken away or changed: 0, or -errno. */
static int64_t hlsnap__lx_sealed(uint32_t i, int64_t system) {
    const uint32_t flags = hlsnap__lx_has_node(i) ? hlsnap__lx_node_at(i)->flags : (uint32_t)HLSNAP__LX_N_SYSTEM;
    if (flags & HLSNAP__LX_N_ARCHIVE) return -HLSNAP__LX_EROFS;
    return flags & HLSNAP__LX_N_SYSTEM ? system : 0;
}

/* Whether something may be made in a directory. */
static int64_t hlsnap__lx_closed(uint32_t dir) {
    return hlsnap__lx_node_at(dir)->flags & (HLSNAP__LX_N_FIXED | HLSNAP__LX_N_GONE) ? -HLSNAP__LX_ENOENT : 0;
}

/* Whether a directory is `above`, or somewhere in it. */
static bool hlsnap__lx_within(uint32_t dir, uint32_t above) {
    while (dir != above && dir != HLSNAP__LX_ROOT) dir = hlsnap__lx_node_at(dir)->parent;
    return dir == above;
}

/* Bytes of a node's path; 0 = it has none any more. */
static uint64_t hlsnap__lx_path_size(uint32_t i) {
    uint64_t n = i == HLSNAP__LX_ROOT;
    for (; i != HLSNAP__LX_ROOT; i = hlsnap__lx_node_at(i)->parent) {
        if (hlsnap__lx_node_at(i)->flags & HLSNAP__LX_N_GONE) return 0;
        n += hlsnap__lx_node_at(i)->name_size + 1u;
    }
    return n;
}

/* The first `most` of these bytes. */
static void hlsnap__lx_path_put(uint32_t i, uint64_t to, uint64_t size, uint64_t most) {
    if (most) hlsnap__lx_fill((void *)(uintptr_t)to, '/', 1);
    for (; i != HLSNAP__LX_ROOT; i = hlsnap__lx_node_at(i)->parent) {
        const hlsnap__lx_node *p = hlsnap__lx_node_at(i);
        size -= p->name_size;
        if (size < most)
            hlsnap__lx_copy((void *)(uintptr_t)(to + size), p->name, hlsnap__lx_min(p->name_size, most - size));
        size--;
        if (size < most) hlsnap__lx_fill((void *)(uintptr_t)(to + size), '/', 1);
    }
}

/* ---- >>lx_archive: the members of a ustar archive become nodes, whose names and bytes stay in it ---- */

typedef struct hlsnap__lx_tar {
    const uint8_t *base;
    uint64_t size, at;
    hlsnap__lx_span path, link;   /* of the next member, from a header before it; n = 0: none */
    hlsnap__lx_span prefix, name; /* the directory of the last member, which is `dir`; 0 = there was none */
    uint32_t dir;
    uint64_t skipped, first_skipped; /* members that cannot be there: how many, where the first is */
} hlsnap__lx_tar;

/* Octal digits between blanks, or GNU's big-endian numbers; UINT64_MAX = neither. */
static uint64_t hlsnap__lx_tar_number(const uint8_t *p, uint32_t n) {
    uint64_t v = 0;
    uint32_t i = 0;
    if (p[0] == 0x80) {
        for (i = 1; i < n; i++) {
            if (v >> 55) return UINT64_MAX;
            v = v << 8 | p[i];
        }
        return v;
    }
    while (i < n && p[i] == ' ') i++;
    for (; i < n && p[i] >= '0' && p[i] <= '7'; i++) v = v << 3 | (p[i] & 7u);
    return i < n && p[i] && p[i] != ' ' ? UINT64_MAX : v;
}

/* Of unsigned bytes, as all write it; old ones added signed bytes. The field itself counts as blanks. */
static bool hlsnap__lx_tar_sum(const uint8_t *h) {
    const uint64_t want = hlsnap__lx_tar_number(h + 148, 8), mask = 0x00ff00ff00ff00ffull;
    uint64_t lanes = 0, sum, high = 0;
    uint32_t i;
    for (i = 0; i < 512; i += 8) { /* four sums at once, which stay below 1 << 16 */
        const uint64_t v = hlsnap__lx_get64((uint64_t)(uintptr_t)(h + i));
        lanes += (v & mask) + (v >> 8 & mask);
        high += (v >> 7 & 0x0101010101010101ull) * 0x0101010101010101ull >> 56;
    }
    sum = (lanes & 0xffff) + (lanes >> 16 & 0xffff) + (lanes >> 32 & 0xffff) + (lanes >> 48);
    for (i = 148; i < 156; i++) {
        sum -= h[i];
        high -= h[i] >> 7;
    }
    sum += 8u * ' ';
    return sum == want || sum - 256 * high == want;
}

static bool hlsnap__lx_tar_zero(const uint8_t *h) {
    uint32_t i;
    for (i = 0; i < 512; i += 8)
        if (hlsnap__lx_get64((uint64_t)(uintptr_t)(h + i))) return false;
    return true;
}

static void hlsnap__lx_tar_span(hlsnap__lx_span *s, const uint8_t *p, uint64_t most) {
    s->p = (const char *)p;
    for (s->n = 0; s->n < most && p[s->n];) s->n++;
}

/* The value of a record of a pax header, "25 path=some/where\n", when it is the key's. */
static bool hlsnap__lx_pax_is(hlsnap__lx_span *out, const char *record, uint64_t n, const char *key) {
    const uint64_t k = hlsnap__lx_len(key);
    if (n < k || !hlsnap__lx_same(record, key, k)) return false;
    out->p = record + k;
    out->n = n - k;
    return true;
}

static bool hlsnap__lx_tar_pax(hlsnap__lx_tar *t, const char *p, uint64_t n) {
    while (n) {
        uint64_t size = 0, i = 0;
        while (i < n && i < 8 && p[i] >= '0' && p[i] <= '9') size = size * 10 + (uint64_t)(p[i++] - '0');
        if (!i && !*p) return true; /* padding */
        if (!i || i == n || p[i] != ' ' || size > n || size < i + 2 || p[size - 1] != '\n') return false;
        i++;
        if (!hlsnap__lx_pax_is(&t->path, p + i, size - 1 - i, "path="))
            hlsnap__lx_pax_is(&t->link, p + i, size - 1 - i, "linkpath=");
        p += size;
        n -= size;
    }
    return true;
}

static int64_t hlsnap__lx_ns(uint64_t seconds) {
    return (int64_t)hlsnap__lx_min(seconds, 9223372036ull) * (int64_t)HLSNAP__LX_SECOND;
}

static int64_t hlsnap__lx_archive_dir(uint32_t dir, hlsnap__lx_span name, uint32_t *made) {
    *made = hlsnap__lx_node_at(dir)->flags & HLSNAP__LX_N_FIXED
                ? 0
                : hlsnap__lx_node_new(HLSNAP__LX_FOLDER | 0755, HLSNAP__LX_N_ARCHIVE);
    if (!*made) return -HLSNAP__LX_ENOSPC;
    hlsnap__lx_attach(*made, dir, name.p, name.n, 0, 0);
    return 0;
}

/* A name that is too long, has a NUL in it, or ".." among its components. */
static bool hlsnap__lx_bad_name(hlsnap__lx_span s) {
    uint64_t i, start = 0;
    if (s.n >= HLSNAP__LX_PATH_MAX) return true;
    for (i = 0; i <= s.n; i++) {
        if (i < s.n && !s.p[i]) return true;
        if (i < s.n && s.p[i] != '/') continue;
        if (i - start == 2 && s.p[start] == '.' && s.p[start + 1] == '.') return true;
        start = i + 1;
    }
    return false;
}

/* The directory that a member is in, made when it is missing; what remains of the name is its last component. 0, or -errno. */
static int64_t hlsnap__lx_tar_dir(hlsnap__lx_tar *t, hlsnap__lx_span prefix, hlsnap__lx_span *name) {
    hlsnap__lx_walk w;
    hlsnap__lx_span dir = *name;
    int64_t r;
    while (dir.n && dir.p[dir.n - 1] != '/') dir.n--;
    name->p += dir.n;
    name->n -= dir.n;
    if (t->dir && dir.n == t->name.n && prefix.n == t->prefix.n && hlsnap__lx_same(dir.p, t->name.p, dir.n) &&
        hlsnap__lx_same(prefix.p, t->prefix.p, prefix.n))
        return 0;
    t->dir = 0;
    w.dir = HLSNAP__LX_ROOT;
    w.slash = false;
    w.links = 0;
    w.depth = prefix.n && dir.n;
    w.left[0] = dir.n ? dir : prefix;
    w.left[1] = prefix;
    r = hlsnap__lx_walk_on(&w, HLSNAP__LX_FOLLOW | HLSNAP__LX_ARCHIVED);
    if (r || !hlsnap__lx_is(w.node, HLSNAP__LX_FOLDER)) return r ? r : -HLSNAP__LX_ENOTDIR;
    t->prefix = prefix;
    t->name = dir;
    t->dir = w.node;
    return 0;
}

/* What a hard link of the archive leads to: a node with contents, or 0. */
static uint32_t hlsnap__lx_tar_target(hlsnap__lx_span to) {
    hlsnap__lx_walk w;
    if (!to.n) return 0;
    w.dir = HLSNAP__LX_ROOT;
    w.slash = false;
    w.links = w.depth = 0;
    w.left[0] = to;
    if (hlsnap__lx_walk_on(&w, 0) || !hlsnap__lx_has_node(w.node) || hlsnap__lx_is(w.node, HLSNAP__LX_FOLDER)) return 0;
    return hlsnap__lx_node_at(w.node)->flags & HLSNAP__LX_N_ARCHIVE ? hlsnap__lx_content(w.node) : 0;
}

/* Makes way for a member of the same name: 1 = there was nothing, or it is gone, and its place free; 0 = the member is no news; or
   -errno. */
static int64_t hlsnap__lx_tar_replace(uint32_t was, bool dir) {
    hlsnap__lx_node *p;
    if (!was) return 1;
    if (was >= HLSNAP__LX_FD_LINK) return -HLSNAP__LX_EEXIST;
    p = hlsnap__lx_node_at(was);
    if (dir && hlsnap__lx_is(was, HLSNAP__LX_FOLDER)) return 0;
    if (p->flags & HLSNAP__LX_N_SYSTEM || p->first) return -HLSNAP__LX_EEXIST;
    p->refs++; /* it stays: hard links may have what is in it */
    hlsnap__lx_detach(was);
    p->flags |= HLSNAP__LX_N_GONE;
    return 1;
}

/* Its name: the directory is t->dir then, what is left is the last component; 1 = it is the root; or -errno. */
static int64_t hlsnap__lx_tar_name(hlsnap__lx_tar *t, const uint8_t *h, hlsnap__lx_span *name, uint32_t *mode) {
    static const char magic[6] = {'u', 's', 't', 'a', 'r', 0};
    hlsnap__lx_span prefix;
    int64_t r;
    prefix.p = (const char *)h;
    prefix.n = 0;
    *name = t->path;
    if (!name->n && hlsnap__lx_same(h + 257, magic, 6)) hlsnap__lx_tar_span(&prefix, h + 345, 155);
    if (!name->n) hlsnap__lx_tar_span(name, h, 100);
    if (*mode == HLSNAP__LX_REGULAR && name->n && name->p[name->n - 1] == '/')
        *mode = HLSNAP__LX_FOLDER; /* of old archives */
    while (name->n && name->p[name->n - 1] == '/') name->n--;
    if (hlsnap__lx_bad_name(*name) || hlsnap__lx_bad_name(prefix)) return -HLSNAP__LX_EINVAL;
    if (!name->n || (name->n == 1 && name->p[0] == '.' && !prefix.n)) return 1;
    r = hlsnap__lx_tar_dir(t, prefix, name);
    if (r) return r;
    if (name->n > HLSNAP__LX_NAME_MAX || (name->n == 1 && name->p[0] == '.')) return -HLSNAP__LX_EINVAL;
    return hlsnap__lx_node_at(t->dir)->flags & HLSNAP__LX_N_FIXED ? -HLSNAP__LX_EEXIST : 0;
}

/* A member that is a file, link or directory. 0, or -errno. */
static int64_t hlsnap__lx_tar_member(hlsnap__lx_tar *t, const uint8_t *h, hlsnap__lx_span data) {
    const uint8_t type = h[156];
    const uint64_t bits = hlsnap__lx_tar_number(h + 100, 8), seconds = hlsnap__lx_tar_number(h + 136, 12);
    uint32_t mode = type == '5' ? HLSNAP__LX_FOLDER : type == '2' ? HLSNAP__LX_LINK : HLSNAP__LX_REGULAR, same = 0, i;
    hlsnap__lx_span name, link = t->link;
    hlsnap__lx_node *p;
    int64_t r = hlsnap__lx_tar_name(t, h, &name, &mode);
    if (r) return r < 0 ? r : 0;
    if (!link.n) hlsnap__lx_tar_span(&link, h + 157, 100);
    if (link.n >= HLSNAP__LX_PATH_MAX || (type == '2' && !link.n)) return -HLSNAP__LX_EINVAL;
    if (type == '1' && !(same = hlsnap__lx_tar_target(link))) return -HLSNAP__LX_ENOENT;
    i = hlsnap__lx_child(t->dir, name.p, name.n);
    if (same && i && hlsnap__lx_content(i) == same) return 0;
    r = hlsnap__lx_tar_replace(i, mode == HLSNAP__LX_FOLDER);
    if (r < 0) return r;
    if (!r && hlsnap__lx_node_at(i)->flags & HLSNAP__LX_N_SYSTEM) return 0;
    if (r) {
        i = hlsnap__lx_node_new(same ? hlsnap__lx_node_at(same)->mode : mode, HLSNAP__LX_N_ARCHIVE);
        if (!i) return -HLSNAP__LX_ENOSPC;
        hlsnap__lx_attach(i, t->dir, name.p, name.n, 0, 0);
    }
    p = hlsnap__lx_node_at(i);
    p->same = same;
    if (same) {
        hlsnap__lx_node_at(same)->links++;
        return 0;
    }
    p->mode = (uint16_t)(mode | (mode == HLSNAP__LX_LINK ? 0777u : bits != UINT64_MAX ? bits & 07777u : 0755u));
    p->mtime = p->atime = p->ctime = seconds != UINT64_MAX ? hlsnap__lx_ns(seconds) : 0;
    if (mode == HLSNAP__LX_LINK) data = link;
    if (mode == HLSNAP__LX_FOLDER) return 0;
    p->data = (uint8_t *)(uintptr_t)data.p;
    p->size = data.n;
    return 0;
}

/* One header and what follows it: NULL, or what is wrong with it, which ends the reading. */
static const char *hlsnap__lx_tar_one(hlsnap__lx_tar *t) {
    const uint8_t *h = t->base + t->at;
    const uint8_t type = h[156];
    uint64_t size =
        type >= '1' && type <= '6' ? 0 : hlsnap__lx_tar_number(h + 124, 12); /* links, devices, directories */
    hlsnap__lx_span data;
    int64_t r = 0;
    if (!hlsnap__lx_tar_sum(h)) return "its checksum is wrong";
    if (size > t->size - t->at - 512) return "its size is wrong";
    data.p = (const char *)h + 512;
    data.n = size;
    if (type == 'L')
        hlsnap__lx_tar_span(&t->path, h + 512, size);
    else if (type == 'K')
        hlsnap__lx_tar_span(&t->link, h + 512, size);
    else if (type == 'x') {
        if (!hlsnap__lx_tar_pax(t, data.p, data.n)) return "its pax header is wrong";
    } else if (type != 'g') {
        r = !type || (type >= '0' && type <= '7' && type != '3' && type != '4' && type != '6')
                ? hlsnap__lx_tar_member(t, h, data)
                : -HLSNAP__LX_EINVAL;
        if (r == -HLSNAP__LX_ENOSPC) return "the heap is full";
        if (r && !t->skipped++) t->first_skipped = t->at;
        t->path.n = t->link.n = 0;
    }
    size = (size + 511) / 512 * 512;
    t->at += 512;
    t->at += hlsnap__lx_min(size, t->size - t->at);
    return NULL;
}

static void hlsnap__lx_tar_say(int32_t level, const char *what, uint64_t at, const char *why) {
    hlsnap__lx_text text;
    text.n = 0;
    hlsnap__lx_say(&text, what);
    hlsnap__lx_say_number(&text, (int64_t)at);
    hlsnap__lx_say(&text, ": ");
    hlsnap__lx_say(&text, why);
    hlsnap__lx_log(level, &text);
}

static void hlsnap__lx_tar_read(const uint8_t *base, uint64_t size) {
    const char *bad = NULL;
    hlsnap__lx_tar t;
    hlsnap__lx_fill(&t, 0, sizeof(t));
    t.base = base;
    t.size = size;
    while (!bad && t.size - t.at >= 512 && !hlsnap__lx_tar_zero(base + t.at)) bad = hlsnap__lx_tar_one(&t);
    if (!bad && t.at < t.size && t.size - t.at < 512) bad = "it is cut off";
    if (bad) hlsnap__lx_tar_say(1, "the archive of files ends at the header at offset ", t.at, bad);
    if (t.skipped)
        hlsnap__lx_tar_say(2, "the archive of files has a member at offset ", t.first_skipped, "it is not in a guest");
}

/* ---- >>lx_files: calls ---- */

typedef struct hlsnap__lx_stat {
    uint64_t ino, links, device, size;
    int64_t atime, mtime, ctime;
    uint32_t mode;
} hlsnap__lx_stat;

static void hlsnap__lx_stat_of(uint32_t i, hlsnap__lx_stat *s) {
    const hlsnap__lx_open *o = i >= HLSNAP__LX_FD_ITSELF ? hlsnap__lx_fd((int32_t)(i - HLSNAP__LX_FD_ITSELF)) : NULL;
    hlsnap__lx_fill(s, 0, sizeof(*s));
    i = hlsnap__lx_content(i);
    s->ino = i;
    s->links = 1;
    if (o) /* a stream; what is not even a pipe has no type on Linux */
        s->mode = o->kind == HLSNAP__LX_EVENT || o->kind == HLSNAP__LX_EPOLL ? 0600 : HLSNAP__LX_FIFO | 0600;
    else if (i >= HLSNAP__LX_FD_LINK) {
        s->mode = HLSNAP__LX_LINK | 0700;
        s->size = 64;
    } else {
        const hlsnap__lx_node *p = hlsnap__lx_node_at(i);
        const bool dir = hlsnap__lx_is(i, HLSNAP__LX_FOLDER);
        s->mode = p->mode;
        s->links = dir ? (p->flags & HLSNAP__LX_N_GONE ? 0 : p->links + 2) : p->links;
        s->device = hlsnap__lx_is(i, HLSNAP__LX_DEVICE) ? p->size : 0;
        s->size = dir ? HLSNAP__LX_PAGE : s->device ? 0 : p->size;
        s->atime = p->atime;
        s->mtime = p->mtime;
        s->ctime = p->ctime;
    }
}

/* ns as seconds, rounded down, and what remains. */
static void hlsnap__lx_put_time(uint64_t to, int64_t ns) {
    const int64_t second = (int64_t)HLSNAP__LX_SECOND, rest = (ns % second + second) % second;
    hlsnap__lx_put64(to, (uint64_t)((ns - rest) / second));
    hlsnap__lx_put64(to + 8, (uint64_t)rest);
}

static int64_t hlsnap__lx_put_stat(uint32_t i, uint64_t to) {
    hlsnap__lx_stat s;
    if (!to) return -HLSNAP__LX_EFAULT;
    hlsnap__lx_stat_of(i, &s);
    hlsnap__lx_fill((void *)(uintptr_t)to, 0, 144);
    hlsnap__lx_put64(to, 1); /* st_dev */
    hlsnap__lx_put64(to + 8, s.ino);
    hlsnap__lx_put64(to + 16, s.links);
    hlsnap__lx_put32(to + 24, s.mode);
    hlsnap__lx_put32(to + 28, 1000);
    hlsnap__lx_put32(to + 32, 1000);
    hlsnap__lx_put64(to + 40, s.device);
    hlsnap__lx_put64(to + 48, s.size);
    hlsnap__lx_put64(to + 56, HLSNAP__LX_PAGE);
    hlsnap__lx_put64(to + 64, (s.size + 511) / 512);
    hlsnap__lx_put_time(to + 72, s.atime);
    hlsnap__lx_put_time(to + 88, s.mtime);
    hlsnap__lx_put_time(to + 104, s.ctime);
    return 0;
}

static int64_t hlsnap__lx_fstat(int32_t fd, uint64_t to) {
    return hlsnap__lx_fd(fd) ? hlsnap__lx_put_stat(hlsnap__lx_node_of((uint32_t)fd), to) : -HLSNAP__LX_EBADF;
}

/* What a path with AT_x flags leads to: 0, or -errno. */
static int64_t hlsnap__lx_find_at(hlsnap__lx_walk *w, int32_t dir, uint64_t path, uint64_t flags) {
    const uint32_t follow = flags & HLSNAP__LX_AT_NOFOLLOW ? 0u : (uint32_t)HLSNAP__LX_FOLLOW;
    const uint32_t empty = flags & HLSNAP__LX_AT_EMPTY_PATH ? (uint32_t)HLSNAP__LX_EMPTY : 0u;
    const int64_t r = hlsnap__lx_walk_path(w, dir, path, empty | follow);
    if (r) return r;
    return w->node ? 0 : -HLSNAP__LX_ENOENT;
}

static int64_t hlsnap__lx_fstatat(int32_t dir, uint64_t path, uint64_t to, uint64_t flags) {
    hlsnap__lx_walk w;
    int64_t r;
    if (flags & ~0x1900ull) return -HLSNAP__LX_EINVAL; /* AT_NO_AUTOMOUNT, AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW */
    r = hlsnap__lx_find_at(&w, dir, path, flags);
    return r ? r : hlsnap__lx_put_stat(w.node, to);
}

static int64_t hlsnap__lx_statx(int32_t dir, uint64_t path, uint64_t flags, uint64_t to) {
    hlsnap__lx_walk w;
    hlsnap__lx_stat s;
    int64_t r;
    if (flags & ~0x7900ull || (flags & 0x6000) == 0x6000) return -HLSNAP__LX_EINVAL; /* those, and AT_STATX_x_SYNC */
    r = hlsnap__lx_find_at(&w, dir, path, flags);
    if (r) return r;
    if (!to) return -HLSNAP__LX_EFAULT;
    hlsnap__lx_stat_of(w.node, &s);
    hlsnap__lx_fill((void *)(uintptr_t)to, 0, 256);
    hlsnap__lx_put32(to, 0x7ff); /* STATX_BASIC_STATS */
    hlsnap__lx_put32(to + 4, (uint32_t)HLSNAP__LX_PAGE);
    hlsnap__lx_put32(to + 16, (uint32_t)s.links);
    hlsnap__lx_put32(to + 20, 1000);
    hlsnap__lx_put32(to + 24, 1000);
    hlsnap__lx_put16(to + 28, (uint16_t)s.mode);
    hlsnap__lx_put64(to + 32, s.ino);
    hlsnap__lx_put64(to + 40, s.size);
    hlsnap__lx_put64(to + 48, (s.size + 511) / 512);
    hlsnap__lx_put_time(to + 64, s.atime);
    hlsnap__lx_put_time(to + 96, s.ctime);
    hlsnap__lx_put_time(to + 112, s.mtime);
    hlsnap__lx_put32(to + 128, (uint32_t)s.device >> 8);
    hlsnap__lx_put32(to + 132, (uint32_t)s.device & 0xff);
    hlsnap__lx_put32(to + 140, 1); /* stx_dev_minor */
    return 0;
}

/* The bits of a mode are kept and told, but only what no owner may do either is refused. */
static int64_t hlsnap__lx_faccessat(int32_t dir, uint64_t path, uint64_t mode, uint64_t flags) {
    hlsnap__lx_walk w;
    uint32_t i;
    int64_t r;
    if (mode & ~7ull || flags & ~0x1300ull) return -HLSNAP__LX_EINVAL; /* AT_EACCESS, and the others */
    r = hlsnap__lx_find_at(&w, dir, path, flags);
    if (r || !hlsnap__lx_has_node(w.node)) return r;
    i = hlsnap__lx_content(w.node);
    if (hlsnap__lx_is(i, HLSNAP__LX_FOLDER))
        return mode & 2 && hlsnap__lx_node_at(i)->flags & HLSNAP__LX_N_FIXED ? -HLSNAP__LX_EACCES : 0;
    if (mode & 2 && hlsnap__lx_is(i, HLSNAP__LX_REGULAR) && (r = hlsnap__lx_sealed(i, -HLSNAP__LX_EACCES)) != 0)
        return r;
    return mode & 1 && !(hlsnap__lx_node_at(i)->mode & 0111) ? -HLSNAP__LX_EACCES : 0;
}

/* ---- open ---- */

/* What another descriptor is open to, opened again by its name in /dev or /proc/self/fd. */
static int64_t hlsnap__lx_reopen(uint32_t fd, uint64_t flags) {
    hlsnap__lx_open *o = hlsnap__lx_fd((int32_t)fd);
    const uint64_t access = flags & HLSNAP__LX_O_ACCESS;
    if (flags & HLSNAP__LX_O_DIRECTORY) return -HLSNAP__LX_ENOTDIR;
    if (o->kind == HLSNAP__LX_EVENT || o->kind == HLSNAP__LX_EPOLL) return -HLSNAP__LX_ENXIO;
    if (o->kind >= HLSNAP__LX_PIPE_READ) return hlsnap__lx_dup_from(o, 0, flags & HLSNAP__LX_O_CLOEXEC);
    if (access != (o->kind == HLSNAP__LX_OUTPUT ? 1 : 0) && access != 2) return -HLSNAP__LX_EACCES;
    return hlsnap__lx_fd_add(o->kind, o->object,
                             (flags & ~3ull) | (o->kind == HLSNAP__LX_OUTPUT ? HLSNAP__LX_O_WRONLY : 0));
}

static int64_t hlsnap__lx_open_device(uint32_t i, uint64_t flags) {
    switch (hlsnap__lx_node_at(i)->size) {
    case 0x103: return hlsnap__lx_fd_add(HLSNAP__LX_NULL, i, flags);
    case 0x105:
    case 0x107: return hlsnap__lx_fd_add(HLSNAP__LX_ZERO, i, flags);
    case 0x108:
    case 0x109: return hlsnap__lx_fd_add(HLSNAP__LX_RANDOM, i, flags);
    default: return -HLSNAP__LX_ENXIO; /* /dev/tty: there is none */
    }
}

static int64_t hlsnap__lx_open_node(uint32_t i, uint64_t flags) {
    const bool path = flags & HLSNAP__LX_O_PATH, write = flags & (HLSNAP__LX_O_ACCESS | HLSNAP__LX_O_TRUNC);
    int64_t r;
    if (i >= HLSNAP__LX_FD_ITSELF)
        return path ? -HLSNAP__LX_EACCES : hlsnap__lx_reopen(i - HLSNAP__LX_FD_ITSELF, flags);
    i = hlsnap__lx_content(i);
    if (hlsnap__lx_is(i, HLSNAP__LX_FOLDER)) {
        if (write || flags & HLSNAP__LX_O_CREAT) return -HLSNAP__LX_EISDIR;
        return hlsnap__lx_fd_add(HLSNAP__LX_DIR, i, path ? flags : flags | HLSNAP__LX_O_LARGEFILE);
    }
    if (flags & HLSNAP__LX_O_DIRECTORY) return -HLSNAP__LX_ENOTDIR;
    if (i >= HLSNAP__LX_FD_LINK) return -HLSNAP__LX_ELOOP;
    if (path) return hlsnap__lx_fd_add(HLSNAP__LX_FILE, i, flags);
    if (hlsnap__lx_is(i, HLSNAP__LX_LINK)) return -HLSNAP__LX_ELOOP;
    if (hlsnap__lx_is(i, HLSNAP__LX_DEVICE)) return hlsnap__lx_open_device(i, flags | HLSNAP__LX_O_LARGEFILE);
    if (i == hlsnap__lx_tree.exe) return -HLSNAP__LX_EACCES;
    if (write && (r = hlsnap__lx_sealed(i, -HLSNAP__LX_EACCES)) != 0) return r;
    if (flags & HLSNAP__LX_O_TRUNC) hlsnap__lx_resize(i, 0);
    return hlsnap__lx_fd_add(HLSNAP__LX_FILE, i, flags | HLSNAP__LX_O_LARGEFILE);
}

static int64_t hlsnap__lx_openat(int32_t dir, uint64_t path, uint64_t flags, uint64_t mode) {
    const uint64_t create = flags & HLSNAP__LX_O_CREAT, anew = HLSNAP__LX_O_CREAT | HLSNAP__LX_O_EXCL;
    uint32_t how = create ? HLSNAP__LX_CREATE : 0;
    hlsnap__lx_walk w;
    int64_t r;
    if (flags & HLSNAP__LX_O_PATH)
        flags &= HLSNAP__LX_O_PATH | HLSNAP__LX_O_DIRECTORY | HLSNAP__LX_O_NOFOLLOW | HLSNAP__LX_O_CLOEXEC;
    else if (flags & HLSNAP__LX_O_TMPFILE)
        return -HLSNAP__LX_EOPNOTSUPP;
    else if (create && flags & HLSNAP__LX_O_DIRECTORY)
        return -HLSNAP__LX_EINVAL;
    if (flags & HLSNAP__LX_O_PATH) how = 0;
    if (!(flags & HLSNAP__LX_O_NOFOLLOW) && (flags & anew) != anew) how |= HLSNAP__LX_FOLLOW;
    if (hlsnap__lx_lowest(hlsnap__lx_fds.used, 0) < 0) return -HLSNAP__LX_EMFILE; /* nothing is made then */
    r = hlsnap__lx_walk_path(&w, dir, path, how);
    if (r) return r;
    if (w.node) return (flags & anew) == anew ? -HLSNAP__LX_EEXIST : hlsnap__lx_open_node(w.node, flags);
    if (!(flags & HLSNAP__LX_O_CREAT)) return -HLSNAP__LX_ENOENT;
    r = hlsnap__lx_closed(w.dir);
    if (r) return r;
    w.node = hlsnap__lx_make(w.dir, w.name.p, w.name.n,
                             HLSNAP__LX_REGULAR | ((uint32_t)mode & 07777 & ~hlsnap__lx_tree.umask));
    return w.node ? hlsnap__lx_fd_add(HLSNAP__LX_FILE, w.node, flags | HLSNAP__LX_O_LARGEFILE) : -HLSNAP__LX_ENOSPC;
}

/* ---- directories ---- */

typedef struct hlsnap__lx_dirents {
    uint64_t to, size, used;
} hlsnap__lx_dirents;

/* A struct linux_dirent64; false = it does not fit. */
static bool hlsnap__lx_dirents_add(hlsnap__lx_dirents *l, uint64_t ino, uint64_t place, uint32_t mode, const char *name,
                                   uint64_t n) {
    const uint64_t size = (19 + n + 1 + 7) & ~7ull, at = l->to + l->used;
    if (size > l->size - l->used) return false;
    hlsnap__lx_put64(at + size - 8, 0);
    hlsnap__lx_put64(at, ino);
    hlsnap__lx_put64(at + 8, place);
    hlsnap__lx_put16(at + 16, (uint16_t)size);
    hlsnap__lx_fill((void *)(uintptr_t)(at + 18), (int)(mode >> 12), 1); /* DT_x is what st_mode begins with */
    hlsnap__lx_copy((void *)(uintptr_t)(at + 19), name, n);
    hlsnap__lx_fill((void *)(uintptr_t)(at + 19 + n), 0, 1);
    l->used += size;
    return true;
}

/* Places: 0 is before ".", 1 behind it, 2 behind ".."; then those of the entries. */
static bool hlsnap__lx_dirents_dots(hlsnap__lx_dirents *l, hlsnap__lx_open *o) {
    if (o->at < 1) {
        if (!hlsnap__lx_dirents_add(l, o->object, 1, HLSNAP__LX_FOLDER, ".", 1)) return false;
        o->at = 1;
    }
    if (o->at < 2) {
        if (!hlsnap__lx_dirents_add(l, hlsnap__lx_node_at(o->object)->parent, 2, HLSNAP__LX_FOLDER, "..", 2))
            return false;
        o->at = 2;
    }
    return true;
}

static bool hlsnap__lx_dirents_fds(hlsnap__lx_dirents *l, hlsnap__lx_open *o) {
    for (; o->at - 2 < HLSNAP__LX_FDS; o->at++) {
        const uint64_t fd = o->at - 2;
        hlsnap__lx_text t;
        if (!hlsnap__lx_bit(hlsnap__lx_fds.used, fd)) continue;
        t.n = 0;
        hlsnap__lx_say_number(&t, (int64_t)fd);
        if (!hlsnap__lx_dirents_add(l, HLSNAP__LX_FD_LINK + fd, o->at + 1, HLSNAP__LX_LINK, t.s, t.n)) return false;
    }
    return true;
}

/* The entries behind o->at, but none that came after the listing began. */
static bool hlsnap__lx_dirents_entries(hlsnap__lx_dirents *l, hlsnap__lx_open *o) {
    hlsnap__lx_node *d = hlsnap__lx_node_at(o->object);
    uint32_t i = d->listed && hlsnap__lx_node_at(d->listed)->place <= o->at ? d->listed : d->first;
    while (i && hlsnap__lx_node_at(i)->place <= o->at) i = hlsnap__lx_node_at(i)->next;
    while (i) {
        const hlsnap__lx_node *p = hlsnap__lx_node_at(i);
        const uint32_t c = hlsnap__lx_content(i);
        if (p->place > o->end) break;
        if (!hlsnap__lx_dirents_add(l, c, p->place, hlsnap__lx_node_at(c)->mode, p->name, p->name_size)) return false;
        o->at = p->place;
        d->listed = i;
        i = p->next;
    }
    return true;
}

static int64_t hlsnap__lx_getdents(int32_t fd, uint64_t to, uint64_t n) {
    hlsnap__lx_open *o = hlsnap__lx_fd_for(fd, 0);
    hlsnap__lx_dirents l;
    bool all;
    if (!o) return -HLSNAP__LX_EBADF;
    if (o->kind != HLSNAP__LX_DIR) return -HLSNAP__LX_ENOTDIR;
    if (hlsnap__lx_node_at(o->object)->flags & HLSNAP__LX_N_GONE) return -HLSNAP__LX_ENOENT;
    if (!o->at) o->end = hlsnap__lx_listed(); /* a listing begins */
    l.to = to;
    l.size = (uint32_t)n; /* unsigned int there */
    l.used = 0;
    all = hlsnap__lx_dirents_dots(&l, o);
    if (all && hlsnap__lx_node_at(o->object)->flags & HLSNAP__LX_N_FDS)
        all = hlsnap__lx_dirents_fds(&l, o);
    else if (all)
        all = hlsnap__lx_dirents_entries(&l, o);
    return l.used || all ? (int64_t)l.used : -HLSNAP__LX_EINVAL;
}

static int64_t hlsnap__lx_getcwd(uint64_t to, uint64_t n) {
    const uint64_t size = hlsnap__lx_path_size(hlsnap__lx_tree.cwd);
    if (!size) return -HLSNAP__LX_ENOENT;
    if (size >= HLSNAP__LX_PATH_MAX) return -HLSNAP__LX_ENAMETOOLONG;
    if (size >= n) return -HLSNAP__LX_ERANGE;
    hlsnap__lx_path_put(hlsnap__lx_tree.cwd, to, size, size);
    hlsnap__lx_fill((void *)(uintptr_t)(to + size), 0, 1);
    return (int64_t)size + 1;
}

static int64_t hlsnap__lx_chdir_to(uint32_t i) {
    if (!hlsnap__lx_is(i, HLSNAP__LX_FOLDER)) return -HLSNAP__LX_ENOTDIR;
    hlsnap__lx_node_hold(i);
    hlsnap__lx_node_put(hlsnap__lx_tree.cwd);
    hlsnap__lx_tree.cwd = i;
    return 0;
}
static int64_t hlsnap__lx_chdir(uint64_t path) {
    hlsnap__lx_walk w;
    const int64_t r = hlsnap__lx_find_at(&w, HLSNAP__LX_AT_CWD, path, 0);
    return r ? r : hlsnap__lx_chdir_to(w.node);
}
static int64_t hlsnap__lx_fchdir(int32_t fd) {
    return hlsnap__lx_fd(fd) ? hlsnap__lx_chdir_to(hlsnap__lx_node_of((uint32_t)fd)) : -HLSNAP__LX_EBADF;
}

/* What a link of /proc/self/fd says. */
static int64_t hlsnap__lx_fd_link(uint32_t fd, uint64_t to, uint64_t n) {
    const hlsnap__lx_open *o = hlsnap__lx_fd((int32_t)fd);
    const uint32_t i = hlsnap__lx_node_of(fd);
    const uint64_t size = hlsnap__lx_has_node(i) ? hlsnap__lx_path_size(i) : 0;
    hlsnap__lx_text t;
    t.n = 0;
    if (size) {
        hlsnap__lx_path_put(i, to, size, n);
        return (int64_t)hlsnap__lx_min(size, n);
    }
    if (hlsnap__lx_has_node(i))
        hlsnap__lx_say(&t, "/ (deleted)");
    else if (o->kind == HLSNAP__LX_EVENT)
        hlsnap__lx_say(&t, "anon_inode:[eventfd]");
    else if (o->kind == HLSNAP__LX_EPOLL)
        hlsnap__lx_say(&t, "anon_inode:[eventpoll]");
    else {
        hlsnap__lx_say(&t, "pipe:[");
        hlsnap__lx_say_number(&t, o->kind < HLSNAP__LX_PIPE_READ ? (int64_t)o->object : 100 + (int64_t)o->object);
        hlsnap__lx_say(&t, "]");
    }
    hlsnap__lx_copy((void *)(uintptr_t)to, t.s, hlsnap__lx_min(t.n, n));
    return (int64_t)hlsnap__lx_min(t.n, n);
}

/* "/" and the name that the program was started by. */
static int64_t hlsnap__lx_exe_link(uint64_t to, uint64_t n) {
    const hlsnap__lx_node *exe = hlsnap__lx_node_at(hlsnap__lx_tree.exe);
    hlsnap__lx_fill((void *)(uintptr_t)to, '/', 1);
    hlsnap__lx_copy((void *)(uintptr_t)(to + 1), exe->name, hlsnap__lx_min(exe->name_size, n - 1));
    return (int64_t)hlsnap__lx_min(exe->name_size + 1u, n);
}

static int64_t hlsnap__lx_readlinkat(int32_t dir, uint64_t path, uint64_t to, uint64_t n) {
    hlsnap__lx_walk w;
    const hlsnap__lx_node *p;
    int64_t r;
    if ((int32_t)n <= 0) return -HLSNAP__LX_EINVAL;
    n &= 0x7fffffff;
    r = hlsnap__lx_walk_path(&w, dir, path, HLSNAP__LX_EMPTY);
    if (!r && w.last == HLSNAP__LX_LAST_ROOT && !w.name.n && (!path || !*(const char *)(uintptr_t)path) &&
        !hlsnap__lx_is(w.node, HLSNAP__LX_LINK))
        return -HLSNAP__LX_ENOENT;
    if (r || !w.node) return r ? r : -HLSNAP__LX_ENOENT;
    if (!hlsnap__lx_is(w.node, HLSNAP__LX_LINK)) return -HLSNAP__LX_EINVAL;
    if (w.node >= HLSNAP__LX_FD_LINK) return hlsnap__lx_fd_link(w.node - HLSNAP__LX_FD_LINK, to, n);
    p = hlsnap__lx_node_at(w.node);
    if (!p->data) return hlsnap__lx_exe_link(to, n);
    n = hlsnap__lx_min(n, p->size);
    hlsnap__lx_copy((void *)(uintptr_t)to, p->data, n);
    return (int64_t)n;
}

/* ---- what changes the tree ---- */

static int64_t hlsnap__lx_mkdirat(int32_t dir, uint64_t path, uint64_t mode) {
    hlsnap__lx_walk w;
    int64_t r = hlsnap__lx_walk_path(&w, dir, path, HLSNAP__LX_PARENT);
    if (r) return r;
    if (w.node) return -HLSNAP__LX_EEXIST;
    r = w.name.n > HLSNAP__LX_NAME_MAX ? -HLSNAP__LX_ENAMETOOLONG : hlsnap__lx_closed(w.dir);
    if (r) return r;
    w.node = hlsnap__lx_make(w.dir, w.name.p, w.name.n,
                             HLSNAP__LX_FOLDER | ((uint32_t)mode & 01777 & ~hlsnap__lx_tree.umask));
    return w.node ? 0 : -HLSNAP__LX_ENOSPC;
}

static int64_t hlsnap__lx_unlinkat(int32_t dir, uint64_t path, uint64_t flags) {
    const bool rmdir = flags & HLSNAP__LX_AT_REMOVEDIR;
    hlsnap__lx_walk w;
    bool folder;
    int64_t r;
    if (flags & ~(uint64_t)HLSNAP__LX_AT_REMOVEDIR) return -HLSNAP__LX_EINVAL;
    r = hlsnap__lx_walk_path(&w, dir, path, HLSNAP__LX_PARENT);
    if (r) return r;
    if (w.last != HLSNAP__LX_LAST_NAME) {
        if (!rmdir) return -HLSNAP__LX_EISDIR;
        return w.last == HLSNAP__LX_LAST_DOT    ? -HLSNAP__LX_EINVAL
               : w.last == HLSNAP__LX_LAST_DOTS ? -HLSNAP__LX_ENOTEMPTY
                                                : -HLSNAP__LX_EBUSY;
    }
    if (!w.node) return w.name.n > HLSNAP__LX_NAME_MAX ? -HLSNAP__LX_ENAMETOOLONG : -HLSNAP__LX_ENOENT;
    folder = hlsnap__lx_is(w.node, HLSNAP__LX_FOLDER);
    if (!rmdir && w.slash) return folder ? -HLSNAP__LX_EISDIR : -HLSNAP__LX_ENOTDIR;
    r = hlsnap__lx_sealed(w.node, -HLSNAP__LX_EACCES);
    if (r) return r;
    if (rmdir != folder) return rmdir ? -HLSNAP__LX_ENOTDIR : -HLSNAP__LX_EISDIR;
    if (folder && hlsnap__lx_node_at(w.node)->first) return -HLSNAP__LX_ENOTEMPTY;
    hlsnap__lx_remove(w.node);
    return 0;
}

/* Whether the one may become the other: 0, or -errno, in Linux's order. */
static int64_t hlsnap__lx_may_rename(const hlsnap__lx_walk *from, const hlsnap__lx_walk *to, uint64_t flags) {
    const bool folder = hlsnap__lx_is(from->node, HLSNAP__LX_FOLDER), over = hlsnap__lx_is(to->node, HLSNAP__LX_FOLDER);
    int64_t r;
    if (from->name.n > HLSNAP__LX_NAME_MAX) return -HLSNAP__LX_ENAMETOOLONG;
    if (!from->node) return -HLSNAP__LX_ENOENT;
    if (to->name.n > HLSNAP__LX_NAME_MAX) return -HLSNAP__LX_ENAMETOOLONG;
    if (to->node && flags & 1) return -HLSNAP__LX_EEXIST;
    if (!folder && (from->slash || to->slash)) return -HLSNAP__LX_ENOTDIR;
    if (folder && hlsnap__lx_within(to->dir, from->node)) return -HLSNAP__LX_EINVAL;
    if (over && hlsnap__lx_within(from->dir, to->node)) return -HLSNAP__LX_ENOTEMPTY;
    r = hlsnap__lx_sealed(from->node, -HLSNAP__LX_EACCES);
    if (r) return r;
    if (from->node == to->node) return 0;
    if (!to->node) return hlsnap__lx_closed(to->dir);
    r = hlsnap__lx_sealed(to->node, -HLSNAP__LX_EACCES);
    if (r) return r;
    if (folder != over) return folder ? -HLSNAP__LX_ENOTDIR : -HLSNAP__LX_EISDIR;
    return over && hlsnap__lx_node_at(to->node)->first ? -HLSNAP__LX_ENOTEMPTY : 0;
}

/* A name that is replaced keeps its place in the listing of its directory: whoever reads it finds the name once. */
static int64_t hlsnap__lx_renameat(int32_t from_dir, uint64_t from_path, int32_t to_dir, uint64_t to_path,
                                   uint64_t flags) {
    hlsnap__lx_walk from, to;
    uint64_t place = 0;
    uint32_t before = 0;
    char *name;
    int64_t r;
    if (flags & ~1ull) return -HLSNAP__LX_EINVAL; /* RENAME_NOREPLACE */
    r = hlsnap__lx_walk_path(&from, from_dir, from_path, HLSNAP__LX_PARENT);
    if (!r) r = hlsnap__lx_walk_path(&to, to_dir, to_path, HLSNAP__LX_PARENT);
    if (r) return r;
    if (from.last != HLSNAP__LX_LAST_NAME) return -HLSNAP__LX_EBUSY;
    if (to.last != HLSNAP__LX_LAST_NAME) return flags & 1 ? -HLSNAP__LX_EEXIST : -HLSNAP__LX_EBUSY;
    r = hlsnap__lx_may_rename(&from, &to, flags);
    if (r || from.node == to.node) return r;
    name = (char *)hlsnap__lx_alloc(to.name.n);
    if (!name) return -HLSNAP__LX_ENOSPC;
    hlsnap__lx_copy(name, to.name.p, to.name.n);
    hlsnap__lx_detach(from.node);
    if (to.node) {
        place = hlsnap__lx_node_at(to.node)->place;
        before = hlsnap__lx_node_at(to.node)->next;
        hlsnap__lx_remove(to.node);
    }
    hlsnap__lx_release((void *)(uintptr_t)hlsnap__lx_node_at(from.node)->name,
                       hlsnap__lx_node_at(from.node)->name_size);
    hlsnap__lx_attach(from.node, to.dir, name, to.name.n, place, before);
    hlsnap__lx_touched(from.dir);
    hlsnap__lx_touched(to.dir);
    hlsnap__lx_node_at(from.node)->ctime = hlsnap__lx_node_at(to.dir)->mtime;
    return 0;
}

/* ---- what changes a file ---- */

static int64_t hlsnap__lx_truncate(uint64_t path, int64_t size) {
    hlsnap__lx_walk w;
    uint32_t i;
    int64_t r;
    if (size < 0) return -HLSNAP__LX_EINVAL;
    r = hlsnap__lx_find_at(&w, HLSNAP__LX_AT_CWD, path, 0);
    if (r) return r;
    i = hlsnap__lx_content(w.node);
    if (hlsnap__lx_is(i, HLSNAP__LX_FOLDER)) return -HLSNAP__LX_EISDIR;
    if (!hlsnap__lx_is(i, HLSNAP__LX_REGULAR)) return -HLSNAP__LX_EINVAL;
    r = hlsnap__lx_sealed(i, -HLSNAP__LX_EACCES);
    return r ? r : hlsnap__lx_resize(i, (uint64_t)size);
}

static int64_t hlsnap__lx_ftruncate(int32_t fd, int64_t size) {
    const hlsnap__lx_open *o = hlsnap__lx_fd_for(fd, 0);
    if (size < 0) return -HLSNAP__LX_EINVAL;
    if (!o) return -HLSNAP__LX_EBADF;
    if (o->kind != HLSNAP__LX_FILE || !hlsnap__lx_fd_for(fd, HLSNAP__LX_WRITES)) return -HLSNAP__LX_EINVAL;
    return hlsnap__lx_resize(o->object, (uint64_t)size);
}

static int64_t hlsnap__lx_fallocate(int32_t fd, uint64_t mode, int64_t at, int64_t size) {
    const hlsnap__lx_open *o = hlsnap__lx_fd_for(fd, HLSNAP__LX_WRITES);
    hlsnap__lx_node *p;
    uint64_t end;
    if (!hlsnap__lx_fd_for(fd, 0)) return -HLSNAP__LX_EBADF;
    if (at < 0 || size <= 0) return -HLSNAP__LX_EINVAL;
    if (mode & ~0x13ull || (mode & 0x12) == 0x12 || (mode & 3) == 2)
        return -HLSNAP__LX_EOPNOTSUPP; /* PUNCH_HOLE needs KEEP_SIZE */
    if (!o) return -HLSNAP__LX_EBADF;
    if (o->kind != HLSNAP__LX_FILE) return hlsnap__lx_seekable(o) ? -HLSNAP__LX_ENODEV : -HLSNAP__LX_ESPIPE;
    if (at > INT64_MAX - size) return -HLSNAP__LX_EFBIG;
    p = hlsnap__lx_node_at(o->object);
    end = (uint64_t)at + (uint64_t)size;
    if (!(mode & 2) && !hlsnap__lx_room(p, end, 0)) return -HLSNAP__LX_ENOSPC;
    if (mode & 0x12 && (uint64_t)at < p->size)
        hlsnap__lx_fill(p->data + at, 0, hlsnap__lx_min(end, p->size) - (uint64_t)at);
    if (!(mode & 1) && end > p->size) return hlsnap__lx_resize(o->object, end);
    if (mode & 0x12) p->mtime = p->ctime = (int64_t)hlsnap__lx_realtime();
    return 0;
}

static int64_t hlsnap__lx_chmod_node(uint32_t i, uint64_t mode) {
    hlsnap__lx_node *p;
    const int64_t r = hlsnap__lx_sealed(hlsnap__lx_content(i), -HLSNAP__LX_EPERM);
    if (r) return r;
    p = hlsnap__lx_node_at(i);
    p->mode = (uint16_t)((p->mode & HLSNAP__LX_FMT) | (mode & 07777));
    p->ctime = (int64_t)hlsnap__lx_realtime();
    return 0;
}
static int64_t hlsnap__lx_fchmod(int32_t fd, uint64_t mode) {
    return hlsnap__lx_fd_for(fd, 0) ? hlsnap__lx_chmod_node(hlsnap__lx_node_of((uint32_t)fd), mode) : -HLSNAP__LX_EBADF;
}
static int64_t hlsnap__lx_fchmodat(int32_t dir, uint64_t path, uint64_t mode) {
    hlsnap__lx_walk w;
    const int64_t r = hlsnap__lx_find_at(&w, dir, path, 0);
    return r ? r : hlsnap__lx_chmod_node(w.node, mode);
}

/* All is user 1000's, who may give it to nobody. */
static int64_t hlsnap__lx_set_id(uint64_t a, uint64_t b, uint64_t c); /* of >>lx_process */
static int64_t hlsnap__lx_chownat(int32_t dir, uint64_t path, uint64_t user, uint64_t group, uint64_t flags) {
    hlsnap__lx_walk w;
    const int64_t r = flags & ~0x1100ull ? -HLSNAP__LX_EINVAL : hlsnap__lx_find_at(&w, dir, path, flags);
    return r ? r : hlsnap__lx_set_id(user, group, group);
}
static int64_t hlsnap__lx_fchown(int32_t fd, uint64_t user, uint64_t group) {
    return hlsnap__lx_fd_for(fd, 0) ? hlsnap__lx_set_id(user, group, group) : -HLSNAP__LX_EBADF;
}

/* A struct statfs: all files are in the heap. */
static int64_t hlsnap__lx_put_statfs(uint64_t to) {
    const uint64_t free = hlsnap__lx_mem.pages - hlsnap__lx.num_used;
    hlsnap__lx_fill((void *)(uintptr_t)to, 0, 120);
    hlsnap__lx_put64(to, 0x01021994); /* tmpfs */
    hlsnap__lx_put64(to + 8, HLSNAP__LX_PAGE);
    hlsnap__lx_put64(to + 16, hlsnap__lx_mem.pages);
    hlsnap__lx_put64(to + 24, free);
    hlsnap__lx_put64(to + 32, free);
    hlsnap__lx_put64(to + 40, hlsnap__lx_tree.num + free); /* nodes; those that may come */
    hlsnap__lx_put64(to + 48, free);
    hlsnap__lx_put64(to + 64, HLSNAP__LX_NAME_MAX);
    hlsnap__lx_put64(to + 72, HLSNAP__LX_PAGE);
    return 0;
}
static int64_t hlsnap__lx_statfs(uint64_t path, uint64_t to) {
    hlsnap__lx_walk w;
    const int64_t r = hlsnap__lx_find_at(&w, HLSNAP__LX_AT_CWD, path, 0);
    return r ? r : hlsnap__lx_put_statfs(to);
}
static int64_t hlsnap__lx_fstatfs(int32_t fd, uint64_t to) {
    return hlsnap__lx_fd(fd) ? hlsnap__lx_put_statfs(to) : -HLSNAP__LX_EBADF;
}

/* One of the two times of utimensat: false = it is malformed. */
#define HLSNAP__LX_UTIME_NOW 0x3fffffffull
#define HLSNAP__LX_UTIME_OMIT 0x3ffffffeull
static bool hlsnap__lx_utime(uint64_t at, int64_t now, int64_t *to) {
    const uint64_t ns = at ? hlsnap__lx_get64(at + 8) : HLSNAP__LX_UTIME_NOW;
    const int64_t s = at ? (int64_t)hlsnap__lx_get64(at) : 0, most = 9223372035;
    if (ns == HLSNAP__LX_UTIME_OMIT) return true;
    if (ns != HLSNAP__LX_UTIME_NOW && ns >= HLSNAP__LX_SECOND) return false;
    *to = (s > most ? most : s < -most ? -most : s) * (int64_t)HLSNAP__LX_SECOND + (int64_t)ns;
    if (ns == HLSNAP__LX_UTIME_NOW) *to = now;
    return true;
}

static int64_t hlsnap__lx_utimensat(int32_t dir, uint64_t path, uint64_t times, uint64_t flags) {
    const int64_t now = (int64_t)hlsnap__lx_realtime();
    const uint64_t omit = HLSNAP__LX_UTIME_OMIT;
    const bool fd = !path && dir != HLSNAP__LX_AT_CWD;
    hlsnap__lx_node *p;
    hlsnap__lx_walk w;
    int64_t atime, mtime, r;
    if (times && hlsnap__lx_get64(times + 8) == omit && hlsnap__lx_get64(times + 24) == omit) return 0;
    if (flags & ~0x1100ull || (fd && flags)) return -HLSNAP__LX_EINVAL;
    if (fd && !hlsnap__lx_fd_for(dir, 0)) return -HLSNAP__LX_EBADF;
    r = hlsnap__lx_find_at(&w, dir, path, fd ? (uint64_t)HLSNAP__LX_AT_EMPTY_PATH : path ? flags : 0);
    if (r) return r;
    w.node = hlsnap__lx_content(w.node);
    p = hlsnap__lx_has_node(w.node) ? hlsnap__lx_node_at(w.node) : NULL;
    atime = p ? p->atime : 0;
    mtime = p ? p->mtime : 0;
    if (!hlsnap__lx_utime(times, now, &atime) || !hlsnap__lx_utime(times ? times + 16 : 0, now, &mtime))
        return -HLSNAP__LX_EINVAL;
    r = hlsnap__lx_sealed(w.node, -HLSNAP__LX_EPERM);
    if (r) return r;
    p->atime = atime;
    p->mtime = mtime;
    p->ctime = now;
    return 0;
}

static int64_t hlsnap__lx_umask(uint64_t mask) {
    const uint32_t was = hlsnap__lx_tree.umask;
    hlsnap__lx_tree.umask = (uint32_t)mask & 0777;
    return was;
}

/* ---- the tree at the start ---- */

static const hlsnap_abi_program *hlsnap__lx_program(void); /* of >>lx_start */

static uint32_t hlsnap__lx_system(uint32_t dir, const char *name, uint32_t mode, uint64_t size, const char *text) {
    const uint32_t i = hlsnap__lx_node_new(mode, HLSNAP__LX_N_SYSTEM);
    hlsnap__lx_node *p;
    p = hlsnap__lx_node_at(i);
    p->data = (uint8_t *)(uintptr_t)text;
    p->size = text ? hlsnap__lx_len(text) : size;
    p->mtime = p->atime = p->ctime = (int64_t)hlsnap__lx_realtime();
    if (dir) hlsnap__lx_attach(i, dir, name, hlsnap__lx_len(name), 0, 0);
    return i;
}

static void hlsnap__lx_system_tree(void) {
    const uint32_t dir = HLSNAP__LX_FOLDER | 0755, device = HLSNAP__LX_DEVICE | 0666, link = HLSNAP__LX_LINK | 0777;
    const uint32_t root = hlsnap__lx_system(0, "", dir, 0, NULL), dev = hlsnap__lx_system(root, "dev", dir, 0, NULL),
                   proc = hlsnap__lx_system(root, "proc", dir, 0, NULL),
                   self = hlsnap__lx_system(proc, "self", dir, 0, NULL);
    hlsnap__lx_node_at(root)->parent = root;
    hlsnap__lx_system(root, "tmp", HLSNAP__LX_FOLDER | 01777, 0, NULL);
    hlsnap__lx_system(dev, "shm", HLSNAP__LX_FOLDER | 01777, 0, NULL);
    hlsnap__lx_system(dev, "null", device, 0x103, NULL);
    hlsnap__lx_system(dev, "zero", device, 0x105, NULL);
    hlsnap__lx_system(dev, "full", device, 0x107, NULL);
    hlsnap__lx_system(dev, "random", device, 0x108, NULL);
    hlsnap__lx_system(dev, "urandom", device, 0x109, NULL);
    hlsnap__lx_system(dev, "tty", device, 0x500, NULL);
    hlsnap__lx_system(dev, "fd", link, 0, "/proc/self/fd");
    hlsnap__lx_system(dev, "stdin", link, 0, "/proc/self/fd/0");
    hlsnap__lx_system(dev, "stdout", link, 0, "/proc/self/fd/1");
    hlsnap__lx_system(dev, "stderr", link, 0, "/proc/self/fd/2");
    hlsnap__lx_system(self, "exe", link, 0, NULL);
    hlsnap__lx_tree.maps = hlsnap__lx_system(self, "maps", HLSNAP__LX_REGULAR | 0444, 0, NULL);
    hlsnap__lx_node_at(hlsnap__lx_system(self, "fd", dir, 0, NULL))->flags |= HLSNAP__LX_N_FDS | HLSNAP__LX_N_FIXED;
    hlsnap__lx_node_at(self)->flags |= HLSNAP__LX_N_FIXED;
    hlsnap__lx_node_at(proc)->flags |= HLSNAP__LX_N_FIXED;
    hlsnap__lx_tree.exe = hlsnap__lx_system(0, "", HLSNAP__LX_REGULAR | 0755, 0, NULL);
}

/* What the program calls itself: the last component of its first argument, which stays where it is. */
static void hlsnap__lx_exe_name(const hlsnap_abi_program *program) {
    const char *name = program->num_args ? (const char *)program + program->strings : "";
    uint64_t n = hlsnap__lx_len(name), start = n;
    while (start && name[start - 1] != '/') start--;
    name += start;
    n -= start;
    if (!n) name = "program";
    if (!n) n = hlsnap__lx_len(name);
    hlsnap__lx_node_at(hlsnap__lx_tree.exe)->name = name;
    hlsnap__lx_node_at(hlsnap__lx_tree.exe)->name_size = (uint8_t)hlsnap__lx_min(n, HLSNAP__LX_NAME_MAX);
    hlsnap__lx_node_at(hlsnap__lx_tree.exe)->parent = HLSNAP__LX_ROOT;
}

static void hlsnap__lx_files_setup(void) {
    const hlsnap_abi_program *program = hlsnap__lx_program();
#if defined(HLSNAP__LX_HOST)
    hlsnap__lx_fill(&hlsnap__lx_tree, 0, sizeof(hlsnap__lx_tree));
#endif
    hlsnap__lx_tree.bucket = hlsnap__lx_tree.few;
    hlsnap__lx_tree.chunk[0] = hlsnap__lx_tree.start;
    hlsnap__lx_tree.mask = HLSNAP_COUNT(hlsnap__lx_tree.few) - 1;
    hlsnap__lx_tree.place = 2;
    hlsnap__lx_tree.cwd = HLSNAP__LX_ROOT;
    hlsnap__lx_tree.umask = 022;
    hlsnap__lx_fds_setup();
    hlsnap__lx_system_tree();
    hlsnap__lx_node_hold(HLSNAP__LX_ROOT);
    hlsnap__lx_exe_name(program);
    if (program->files_size) hlsnap__lx_tar_read((const uint8_t *)program + program->files, program->files_size);
}

/* ---- >>lx_vectors: x87, SSE, AVX and AVX-512 state, and PKRU, where a program's stays in the registers ---- */

#define HLSNAP__LX_VECTORS 4096u /* bytes of an area, 64-byte aligned; with AVX-512 and PKRU it takes 2,696 */
#if !defined(HLSNAP__LX_HOST)
static bool hlsnap__lx_has_xsave(void) {
    if (!hlsnap__lx.vectors) { /* asked after every start: it may be another machine */
        uint32_t a = 1, b, c = 0, d;
        __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
        hlsnap__lx.vectors = 1 + (c >> 27 & 1);
    }
    return hlsnap__lx.vectors == 2;
}
/* An area of the program's own stack may hold anything: the header is cleared first. */
static void hlsnap__lx_vectors_save(uint64_t to) {
    hlsnap__lx_fill((void *)(uintptr_t)(to + 512), 0, 64);
    if (hlsnap__lx_has_xsave())
        __asm__ volatile("xsave64 (%0)" : : "r"(to), "a"(0x2e7), "d"(0) : "memory");
    else
        __asm__ volatile("fxsave64 (%0)" : : "r"(to) : "memory");
}
static void hlsnap__lx_vectors_load(uint64_t from) {
    if (hlsnap__lx_has_xsave())
        __asm__ volatile("xrstor64 (%0)" : : "r"(from), "a"(0x2e7), "d"(0) : "memory");
    else
        __asm__ volatile("fxrstor64 (%0)" : : "r"(from) : "memory");
}
#endif

/* ---- >>lx_threads: co-operative; they change over in calls that wait ---- */

#define HLSNAP__LX_THREADS 64u
#define HLSNAP__LX_STACK 16384u
static uint64_t hlsnap__lx_top __asm__("hlsnap__lx_top") __attribute__((__used__)); /* where the handler stack begins */

static void hlsnap__lx_exit(int32_t status); /* of the program */
static int64_t hlsnap__lx_pid(void);
static void hlsnap__lx_input_came(void); /* of >>lx_polling */

enum { HLSNAP__LX_UNUSED, HLSNAP__LX_RUNS, HLSNAP__LX_WAITS };

typedef struct hlsnap__lx_thread {
    uint64_t sp, top, fs; /* while another one runs */
    uint64_t stack, vectors;  /* the end of its handler stack, where its vector state goes; an unused slot keeps them */
    uint64_t turn;            /* those who run and those who wait come by order of it */
    uint64_t channel, until; /* what it waits for: see hlsnap__lx_wait */
    uint64_t clear_tid;
    uint64_t alternate[2]; /* of sigaltstack: address and size; size 0 = none */
    uint32_t state, bits; /* bits: of a futex that it waits for */
    uint32_t tid;         /* 0 = the program's first thread, whose number is the process's */
    bool input, woken;
} hlsnap__lx_thread;

static struct hlsnap__lx_tasks {
    hlsnap__lx_thread of[HLSNAP__LX_THREADS];
    hlsnap__lx_thread *current;
    uint64_t turns;
    uint32_t slots; /* all that were ever used lie below */
    uint32_t living, waiting, last_tid;
    int32_t status; /* of the first thread, when it has ended */
} hlsnap__lx_tasks;

static void hlsnap__lx_threads_setup(uint64_t top) {
    hlsnap__lx_thread *t = hlsnap__lx_tasks.of;
    t->stack = top;
    t->state = HLSNAP__LX_RUNS;
    t->bits = ~0u;
    hlsnap__lx_tasks.current = t;
    hlsnap__lx_tasks.slots = hlsnap__lx_tasks.living = 1;
}

/* The oldest thread in a state; one that waits, on a channel with one of the bits. NULL = there is none. */
static hlsnap__lx_thread *hlsnap__lx_oldest(uint32_t state, uint64_t channel, uint32_t bits) {
    hlsnap__lx_thread *found = NULL, *t = hlsnap__lx_tasks.of;
    const hlsnap__lx_thread *end = t + hlsnap__lx_tasks.slots;
    for (; t < end; t++)
        if (t->state == state && t->channel == channel && (t->bits & bits) && (!found || t->turn < found->turn))
            found = t;
    return found;
}

static void hlsnap__lx_resume(hlsnap__lx_thread *t, bool woken) {
    t->state = HLSNAP__LX_RUNS;
    t->woken = woken;
    t->channel = 0;
    t->bits = ~0u;
    t->turn = ++hlsnap__lx_tasks.turns;
    hlsnap__lx_tasks.waiting--;
}

/* The waiting thread whose time comes first, or NULL. */
static hlsnap__lx_thread *hlsnap__lx_soonest(void) {
    hlsnap__lx_thread *found = NULL, *t = hlsnap__lx_tasks.of;
    const hlsnap__lx_thread *end = t + hlsnap__lx_tasks.slots;
    for (; t < end; t++)
        if (t->state == HLSNAP__LX_WAITS && t->until != HLSNAP__LX_NEVER &&
            (!found || t->until < found->until || (t->until == found->until && t->turn < found->turn)))
            found = t;
    return found;
}

/* Times that have come: without it, a thread that yields until another has slept would yield for ever. */
static hlsnap__lx_thread *hlsnap__lx_expire(void) {
    hlsnap__lx_thread *t = hlsnap__lx_tasks.waiting ? hlsnap__lx_soonest() : NULL;
    const uint64_t now = t ? hlsnap__lx_monotonic() : 0;
    for (; t && t->until <= now; t = hlsnap__lx_soonest()) hlsnap__lx_resume(t, false);
    return t;
}

/* Standard input, when somebody waits for it. */
static bool hlsnap__lx_fed(void) {
    const hlsnap__lx_thread *end = hlsnap__lx_tasks.of + hlsnap__lx_tasks.slots;
    hlsnap__lx_thread *t = hlsnap__lx_tasks.of;
    while (t < end && !(t->state == HLSNAP__LX_WAITS && t->input)) t++;
    if (t == end) return false;
    hlsnap__lx_input_wait();
    hlsnap__lx_input_came();
    for (t = hlsnap__lx_tasks.of; t < end; t++)
        if (t->state == HLSNAP__LX_WAITS && t->input) hlsnap__lx_resume(t, true);
    return true;
}

/* Whose turn it is. When nobody can run, input comes before time: a program that waits for both is at its ready point, and a sleep
   that is over costs nothing. */
static hlsnap__lx_thread *hlsnap__lx_choose(void) {
    for (;;) {
        hlsnap__lx_thread *next = hlsnap__lx_expire(), *t = hlsnap__lx_oldest(HLSNAP__LX_RUNS, 0, ~0u);
        hlsnap__lx_text text;
        if (t) return t;
        if (hlsnap__lx_fed()) continue;
        if (next) {
            hlsnap__lx_time_jump(next->until);
            hlsnap__lx_resume(next, false);
            continue;
        }
        text.n = 0;
        hlsnap__lx_say(&text, "deadlock: every thread waits");
        hlsnap__lx_end(HLSNAP_ABI_FN_ABORT, HLSNAP__ABORT_DEADLOCK, &text);
    }
}

/* Changes the stack: stores the stack pointer of who runs, takes that of another, and returns there with rax = 0: in a new thread,
   to hlsnap__lx_back, which is how a child's clone returns. */
// clang-format off
__asm__(
".pushsection .text\n.p2align 4\n.type hlsnap__lx_switch,@function\n"
"hlsnap__lx_switch:\n"
"  push %rbx\n  push %rbp\n  push %r12\n  push %r13\n  push %r14\n  push %r15\n  mov %rsp, (%rdi)\n  mov %rsi, %rsp\n"
"  pop %r15\n  pop %r14\n  pop %r13\n  pop %r12\n  pop %rbp\n  pop %rbx\n  xor %eax, %eax\n  ret\n"
".size hlsnap__lx_switch,.-hlsnap__lx_switch\n.popsection\n");
// clang-format on
extern void hlsnap__lx_switch(uint64_t *from, uint64_t to) __asm__("hlsnap__lx_switch");
extern const char hlsnap__lx_back[] __asm__("hlsnap__lx_back") __attribute__((__visibility__("hidden")));

/* Lets others run, as far as they can; returns when it is this thread's turn again, and never when its slot is unused. */
static void hlsnap__lx_schedule(void) {
    hlsnap__lx_thread *from = hlsnap__lx_tasks.current, *to = hlsnap__lx_choose();
    if (to == from) return;
    from->top = hlsnap__lx_top;
    from->fs = hlsnap__lx_fs_get();
    if (from->state != HLSNAP__LX_UNUSED) hlsnap__lx_vectors_save(from->vectors);
    hlsnap__lx_tasks.current = to;
    hlsnap__lx_top = to->top;
    hlsnap__lx_fs_set(to->fs);
    hlsnap__lx_vectors_load(to->vectors);
    hlsnap__lx_switch(&from->sp, to->sp);
}

static bool hlsnap__lx_wait_bits(uint64_t channel, uint32_t bits, uint64_t until, bool input) {
    hlsnap__lx_thread *t = hlsnap__lx_tasks.current;
    t->state = HLSNAP__LX_WAITS;
    t->channel = channel;
    t->bits = bits;
    t->until = until < 1ull << 62 ? until : HLSNAP__LX_NEVER;
    t->input = input;
    t->turn = ++hlsnap__lx_tasks.turns;
    hlsnap__lx_tasks.waiting++;
    hlsnap__lx_schedule();
    return t->woken;
}
static bool hlsnap__lx_wait(uint64_t channel, uint64_t until, bool input) {
    return hlsnap__lx_wait_bits(channel, ~0u, until, input);
}

static uint64_t hlsnap__lx_wake_bits(uint64_t channel, uint64_t n, uint32_t bits) {
    uint64_t woken = 0;
    hlsnap__lx_thread *t;
    if (!hlsnap__lx_tasks.waiting) return 0;
    while (woken < n && (t = hlsnap__lx_oldest(HLSNAP__LX_WAITS, channel, bits)) != NULL) {
        hlsnap__lx_resume(t, true);
        woken++;
    }
    return woken;
}
static uint64_t hlsnap__lx_wake(uint64_t channel, uint64_t n) { return hlsnap__lx_wake_bits(channel, n, ~0u); }

static int64_t hlsnap__lx_yield(void) {
    hlsnap__lx_tasks.current->turn = ++hlsnap__lx_tasks.turns;
    hlsnap__lx_schedule();
    return 0;
}

/* The first thread's number is the process's, as programs that ask whether they are in it rely on, and changes with it. All others
   are odd, which a process's never is, and stay. */
static int64_t hlsnap__lx_gettid(void) {
    return hlsnap__lx_tasks.current->tid ? (int64_t)hlsnap__lx_tasks.current->tid : hlsnap__lx_pid();
}
static int64_t hlsnap__lx_set_tid_address(uint64_t at) {
    hlsnap__lx_tasks.current->clear_tid = at;
    return hlsnap__lx_gettid();
}

static uint32_t hlsnap__lx_new_tid(void) {
    uint32_t i, tid = hlsnap__lx_tasks.last_tid;
    do { /* 22 bits, as Linux has them: libcs keep flags above */
        tid = tid < 3 || tid >= 0x3fffff ? 3 : tid + 2;
        for (i = 0; i < hlsnap__lx_tasks.slots; i++)
            if (hlsnap__lx_tasks.of[i].state != HLSNAP__LX_UNUSED && hlsnap__lx_tasks.of[i].tid == tid) break;
    } while (i < hlsnap__lx_tasks.slots);
    return hlsnap__lx_tasks.last_tid = tid;
}

/* A slot with all that a thread needs; NULL = there is no room. */
static hlsnap__lx_thread *hlsnap__lx_slot(void) {
    hlsnap__lx_thread *t = hlsnap__lx_tasks.of;
    const hlsnap__lx_thread *end = t + HLSNAP__LX_THREADS;
    while (t < end && t->state != HLSNAP__LX_UNUSED) t++;
    if (t == end) return NULL;
    if (!hlsnap__lx_tasks.of[0].vectors) /* a program without threads does without */
        hlsnap__lx_tasks.of[0].vectors = (uint64_t)(uintptr_t)hlsnap__lx_pages(HLSNAP__LX_VECTORS);
    if (!t->stack) {
        t->vectors = (uint64_t)(uintptr_t)hlsnap__lx_pages(HLSNAP__LX_VECTORS + HLSNAP__LX_STACK);
        if (t->vectors) t->stack = t->vectors + HLSNAP__LX_VECTORS + HLSNAP__LX_STACK;
    }
    if (!hlsnap__lx_tasks.of[0].vectors || !t->stack) return NULL;
    if (t == hlsnap__lx_tasks.of + hlsnap__lx_tasks.slots) hlsnap__lx_tasks.slots++;
    return t;
}

enum {
    HLSNAP__LX_CLONE_VM = 0x100,
    HLSNAP__LX_CLONE_SIGHAND = 0x800,
    HLSNAP__LX_CLONE_THREAD = 0x10000,
    HLSNAP__LX_CLONE_NEEDS = 0x10f00, /* also FS and FILES */
    HLSNAP__LX_CLONE_SETTLS = 0x80000,
    HLSNAP__LX_CLONE_PARENT_SETTID = 0x100000,
    HLSNAP__LX_CLONE_CHILD_CLEARTID = 0x200000,
    HLSNAP__LX_CLONE_CHILD_SETTID = 0x1000000,
    HLSNAP__LX_CLONE_IGNORED = 0xc420ff /* the signal of its end, PTRACE, SYSVSEM, DETACHED, UNTRACED */
};

/* 0, or why there will be no such thread. */
static int64_t hlsnap__lx_clone_flags(uint64_t flags, uint64_t tls) {
    const uint64_t known = HLSNAP__LX_CLONE_NEEDS | HLSNAP__LX_CLONE_SETTLS | HLSNAP__LX_CLONE_PARENT_SETTID |
                           HLSNAP__LX_CLONE_CHILD_CLEARTID | HLSNAP__LX_CLONE_CHILD_SETTID | HLSNAP__LX_CLONE_IGNORED;
    if ((flags & HLSNAP__LX_CLONE_THREAD) && !(flags & HLSNAP__LX_CLONE_SIGHAND)) return -HLSNAP__LX_EINVAL;
    if ((flags & HLSNAP__LX_CLONE_SIGHAND) && !(flags & HLSNAP__LX_CLONE_VM)) return -HLSNAP__LX_EINVAL;
    if (~flags & HLSNAP__LX_CLONE_NEEDS || flags & ~known)
        return hlsnap__lx_refuse(56, HLSNAP__LX_EPERM); /* a process, or something of its own */
    if (flags & HLSNAP__LX_CLONE_SETTLS && tls >= 1ull << 47) return -HLSNAP__LX_EPERM;
    return 0;
}

static int64_t hlsnap__lx_clone(const hlsnap__lx_frame *frame) {
    const uint64_t flags = frame->rdi;
    const int64_t refused = hlsnap__lx_clone_flags(flags, frame->r8);
    hlsnap__lx_thread *t = refused ? NULL : hlsnap__lx_slot();
    hlsnap__lx_frame *child;
    if (!t) return refused ? refused : -HLSNAP__LX_EAGAIN;
    t->tid = hlsnap__lx_new_tid();
    t->clear_tid = flags & HLSNAP__LX_CLONE_CHILD_CLEARTID ? frame->r10 : 0;
    t->fs = flags & HLSNAP__LX_CLONE_SETTLS ? frame->r8 : hlsnap__lx_fs_get();
    t->top = t->stack;
    hlsnap__lx_vectors_save(t->vectors);
    child = (hlsnap__lx_frame *)(uintptr_t)(t->top - sizeof(*child));
    hlsnap__lx_copy(child, frame, sizeof(*child));
    if (frame->rsi) child->rsp = frame->rsi;
    t->sp = t->top - sizeof(*child) - 7 * 8; /* what hlsnap__lx_switch takes: six registers, and where to */
    hlsnap__lx_fill((void *)(uintptr_t)t->sp, 0, 6 * 8);
    hlsnap__lx_put64(t->sp + 6 * 8, (uint64_t)(uintptr_t)hlsnap__lx_back);
    if (flags & HLSNAP__LX_CLONE_PARENT_SETTID) hlsnap__lx_put32(frame->rdx, t->tid);
    if (flags & HLSNAP__LX_CLONE_CHILD_SETTID) hlsnap__lx_put32(frame->r10, t->tid);
    t->channel = t->alternate[0] = t->alternate[1] = 0;
    t->bits = ~0u;
    t->state = HLSNAP__LX_RUNS;
    t->turn = ++hlsnap__lx_tasks.turns;
    hlsnap__lx_tasks.living++;
    return t->tid;
}

/* Libcs block signals before they make a thread, and hold no lock yet (musl's clone is called with one). When slots become few,
   others get a turn there, who may be about to end: elsewhere they would have run meanwhile. */
static void hlsnap__lx_make_room(void) {
    if (hlsnap__lx_tasks.living > HLSNAP__LX_THREADS / 2) hlsnap__lx_yield();
}

/* The program ends with its last thread, and the status of its first. */
static int64_t hlsnap__lx_thread_exit(int32_t status) {
    hlsnap__lx_thread *t = hlsnap__lx_tasks.current;
    if (!t->tid) hlsnap__lx_tasks.status = status;
    if (hlsnap__lx_tasks.living == 1) {
        hlsnap__lx_exit(hlsnap__lx_tasks.status);
        return 0;
    }
    hlsnap__lx_tasks.living--;
    if (t->clear_tid) {
        hlsnap__lx_put32(t->clear_tid, 0);
        hlsnap__lx_wake(t->clear_tid, 1);
    }
    /* What follows runs on its stack still: nothing takes the slot before another thread runs. */
    t->state = HLSNAP__LX_UNUSED;
    hlsnap__lx_schedule();
    return 0;
}

/* ---- >>lx_futex: waiting for memory to change, and for time to pass ---- */

enum {
    HLSNAP__LX_FUTEX_WAIT,
    HLSNAP__LX_FUTEX_WAKE,
    HLSNAP__LX_FUTEX_REQUEUE = 3,
    HLSNAP__LX_FUTEX_CMP_REQUEUE,
    HLSNAP__LX_FUTEX_WAKE_OP,
    HLSNAP__LX_FUTEX_WAIT_BITSET = 9,
    HLSNAP__LX_FUTEX_WAKE_BITSET,
    HLSNAP__LX_FUTEX_PRIVATE = 128,
    HLSNAP__LX_FUTEX_REALTIME = 256
};

/* A point of time as that of the monotonic clock. */
static uint64_t hlsnap__lx_at(uint64_t ns, bool real) {
    uint64_t now;
    if (ns == HLSNAP__LX_NEVER || !real) return ns;
    now = hlsnap__lx_realtime();
    return ns > now ? hlsnap__lx_in(ns - now) : 0;
}

static int64_t hlsnap__lx_futex_wait(uint64_t at, uint32_t value, uint32_t bits, uint64_t until) {
    if (hlsnap__lx_get32(at) != value) return -HLSNAP__LX_EAGAIN;
    return hlsnap__lx_wait_bits(at, bits, until, false) ? 0 : -HLSNAP__LX_ETIMEDOUT;
}

/* Linux wakes one where none or fewer are asked for. */
static int64_t hlsnap__lx_futex_wake(uint64_t at, uint32_t n, uint32_t bits) {
    return (int64_t)hlsnap__lx_wake_bits(at, (int32_t)n < 1 ? 1 : n, bits);
}

/* Wakes some; the next ones wait at another place from now on, behind those there. */
static int64_t hlsnap__lx_futex_requeue(uint64_t at, int32_t wake, int32_t move, uint64_t to) {
    const uint64_t newest = hlsnap__lx_tasks.turns;
    int64_t n;
    if (wake < 0 || move < 0) return -HLSNAP__LX_EINVAL;
    n = (int64_t)hlsnap__lx_wake(at, (uint64_t)wake);
    for (; move; move--, n++) {
        hlsnap__lx_thread *t = hlsnap__lx_oldest(HLSNAP__LX_WAITS, at, ~0u);
        if (!t || t->turn > newest) break;
        t->channel = to;
        t->turn = ++hlsnap__lx_tasks.turns;
    }
    return n;
}

static bool hlsnap__lx_futex_compare(uint32_t how, int32_t a, int32_t b) {
    switch (how) {
    case 0: return a == b;
    case 1: return a != b;
    case 2: return a < b;
    case 3: return a <= b;
    case 4: return a > b;
    default: return a >= b;
    }
}

/* code: 4 bits what to do to *at2 (the highest: with a power of two), 4 bits how to compare what it was, 12 bits with a sign
   each of what to do it with and what to compare with. */
static int64_t hlsnap__lx_futex_wake_op(uint64_t at, uint32_t n, uint64_t at2, uint32_t n2, uint32_t code) {
    const uint32_t op = code >> 28 & 7, how = code >> 24 & 15, was = hlsnap__lx_get32(at2);
    uint32_t arg = (uint32_t)((int32_t)(code << 8) >> 20);
    int64_t woken;
    if (code >> 31) arg = 1u << (arg & 31);
    if (op > 4) return -HLSNAP__LX_ENOSYS;
    hlsnap__lx_put32(at2, op == 0 ? arg : op == 1 ? was + arg : op == 2 ? was | arg : op == 3 ? was & ~arg : was ^ arg);
    if (how > 5) return -HLSNAP__LX_ENOSYS;
    woken = hlsnap__lx_futex_wake(at, n, ~0u);
    if (hlsnap__lx_futex_compare(how, (int32_t)was, (int32_t)(code << 20) >> 20))
        woken += hlsnap__lx_futex_wake(at2, n2, ~0u);
    return woken;
}

/* timeout: for what neither waits nor wakes only, a second number. */
static int64_t hlsnap__lx_futex(uint64_t at, uint32_t op, uint32_t value, uint64_t timeout, uint64_t at2,
                                uint32_t value3) {
    const uint32_t what = op & ~(uint32_t)(HLSNAP__LX_FUTEX_PRIVATE | HLSNAP__LX_FUTEX_REALTIME);
    const bool waits = what == HLSNAP__LX_FUTEX_WAIT || what == HLSNAP__LX_FUTEX_WAIT_BITSET,
               real = op & HLSNAP__LX_FUTEX_REALTIME;
    const bool two = what >= HLSNAP__LX_FUTEX_REQUEUE && what <= HLSNAP__LX_FUTEX_WAKE_OP;
    const uint64_t ns = waits ? hlsnap__lx_timespec(timeout, 1) : 0;
    if (ns == HLSNAP__LX_MALFORMED) return -HLSNAP__LX_EINVAL;
    if (real && what != HLSNAP__LX_FUTEX_WAIT_BITSET) return -HLSNAP__LX_ENOSYS;
    if ((waits || two || what == HLSNAP__LX_FUTEX_WAKE || what == HLSNAP__LX_FUTEX_WAKE_BITSET) &&
        (at % 4 || (two && at2 % 4)))
        return -HLSNAP__LX_EINVAL;
    switch (what) {
    case HLSNAP__LX_FUTEX_WAIT: return hlsnap__lx_futex_wait(at, value, ~0u, hlsnap__lx_in(ns));
    case HLSNAP__LX_FUTEX_WAIT_BITSET:
        return value3 ? hlsnap__lx_futex_wait(at, value, value3, hlsnap__lx_at(ns, real)) : -HLSNAP__LX_EINVAL;
    case HLSNAP__LX_FUTEX_WAKE: return hlsnap__lx_futex_wake(at, value, ~0u);
    case HLSNAP__LX_FUTEX_WAKE_BITSET: return value3 ? hlsnap__lx_futex_wake(at, value, value3) : -HLSNAP__LX_EINVAL;
    case HLSNAP__LX_FUTEX_CMP_REQUEUE:
        if ((int32_t)value < 0 || (int32_t)timeout < 0) return -HLSNAP__LX_EINVAL;
        if (hlsnap__lx_get32(at) != value3) return -HLSNAP__LX_EAGAIN;
        return hlsnap__lx_futex_requeue(at, (int32_t)value, (int32_t)timeout, at2);
    case HLSNAP__LX_FUTEX_REQUEUE: return hlsnap__lx_futex_requeue(at, (int32_t)value, (int32_t)timeout, at2);
    case HLSNAP__LX_FUTEX_WAKE_OP: return hlsnap__lx_futex_wake_op(at, value, at2, (uint32_t)timeout, value3);
    default: return -HLSNAP__LX_ENOSYS;
    }
}

#define HLSNAP__LX_SLEEP 1u /* a channel that nobody wakes: no futex can be there */

/* flags: 1 = request is a point of time. A sleep of no time is a turn for others. */
static int64_t hlsnap__lx_nanosleep(uint64_t clock, uint64_t flags, uint64_t request) {
    uint64_t ns;
    if (clock == 10 || clock > 11) return -HLSNAP__LX_EINVAL;
    if (clock >= 3 && clock <= 6) return -HLSNAP__LX_EOPNOTSUPP; /* a thread's, the raw and the coarse ones */
    if (clock == 8 || clock == 9) return -HLSNAP__LX_EPERM;      /* they would wake the machine */
    if (!request) return -HLSNAP__LX_EFAULT;
    ns = hlsnap__lx_timespec(request, 1);
    if (ns == HLSNAP__LX_MALFORMED) return -HLSNAP__LX_EINVAL;
    hlsnap__lx_wait(HLSNAP__LX_SLEEP,
                    flags & 1 ? hlsnap__lx_at(ns, hlsnap__lx_clock_is_real(clock)) : hlsnap__lx_in(ns), false);
    return 0;
}

/* For a signal, of which none comes; timeout: a struct timespec, 0 = none. */
static int64_t hlsnap__lx_pause(uint64_t timeout) {
    const uint64_t ns = hlsnap__lx_timespec(timeout, 1);
    if (ns == HLSNAP__LX_MALFORMED) return -HLSNAP__LX_EINVAL;
    hlsnap__lx_wait(HLSNAP__LX_SLEEP, hlsnap__lx_in(ns), false);
    return -HLSNAP__LX_EAGAIN;
}

/* ---- >>lx_streams: pipes and eventfds ---- */

#define HLSNAP__LX_PIPES 256u
#define HLSNAP__LX_EVENTS 256u
#define HLSNAP__LX_PIPE_PAGES 16u
#define HLSNAP__LX_PIPE_SIZE 65536u
#define HLSNAP__LX_PIPE_BUF 4096u /* so many bytes are written in one piece or not at all */

typedef struct hlsnap__lx_list { /* of watches, see >>lx_polling */
    struct hlsnap__lx_watch *first, *last;
} hlsnap__lx_list;

typedef struct hlsnap__lx_pipe_state {
    uint8_t *pages[HLSNAP__LX_PIPE_PAGES]; /* a ring; each is got when a byte first goes there */
    uint32_t at, size;                     /* of the oldest byte; bytes that are in it */
    bool readers, writers;                 /* the ends that are open */
    hlsnap__lx_list in, out;
} hlsnap__lx_pipe_state;

typedef struct hlsnap__lx_event {
    uint64_t count;
    bool used, semaphore;
    hlsnap__lx_list watches;
} hlsnap__lx_event;

static struct hlsnap__lx_streams {
    hlsnap__lx_pipe_state pipes[HLSNAP__LX_PIPES];
    hlsnap__lx_event events[HLSNAP__LX_EVENTS];
} hlsnap__lx_streams;

/* Of >>lx_polling: something happened to an object that may make it ready, for what mask says (0: anything). */
static void hlsnap__lx_happened(hlsnap__lx_list *watches, uint32_t mask);
static uint32_t hlsnap__lx_epoll_ready(uint32_t object);
static void hlsnap__lx_epoll_close(uint32_t object);
static void hlsnap__lx_unwatch(const hlsnap__lx_open *o);

/* The channels of a pipe's readers and writers, and of an event's. */
static uint64_t hlsnap__lx_in_channel(const hlsnap__lx_list *l) { return (uint64_t)(uintptr_t)l; }
static uint64_t hlsnap__lx_out_channel(const hlsnap__lx_list *l) { return (uint64_t)(uintptr_t)l + 1; }

static int64_t hlsnap__lx_pipe(uint64_t to, uint64_t flags) {
    uint32_t i = 0;
    int64_t in, out;
    hlsnap__lx_pipe_state *p = hlsnap__lx_streams.pipes;
    if (flags & ~(uint64_t)(HLSNAP__LX_O_CLOEXEC | HLSNAP__LX_O_NONBLOCK))
        return -HLSNAP__LX_EINVAL; /* O_DIRECT among them */
    while (i < HLSNAP__LX_PIPES && (p[i].readers || p[i].writers)) i++;
    if (i == HLSNAP__LX_PIPES) return -HLSNAP__LX_ENFILE;
    in = hlsnap__lx_fd_add(HLSNAP__LX_PIPE_READ, i, flags);
    if (in < 0) return in;
    p[i].readers = true; /* before the other end can fail: its close must find it */
    out = hlsnap__lx_fd_add(HLSNAP__LX_PIPE_WRITE, i, flags | HLSNAP__LX_O_WRONLY);
    if (out < 0) {
        hlsnap__lx_close((int32_t)in);
        return out;
    }
    p[i].writers = true;
    hlsnap__lx_put32(to, (uint32_t)in);
    hlsnap__lx_put32(to + 4, (uint32_t)out);
    return 0;
}

/* How many of n bytes may be written now. */
static uint64_t hlsnap__lx_pipe_room(const hlsnap__lx_pipe_state *p, uint64_t n) {
    const uint32_t room = HLSNAP__LX_PIPE_SIZE - p->size;
    return n <= HLSNAP__LX_PIPE_BUF && n > room ? 0 : hlsnap__lx_min(n, room);
}
/* Whether any write can go on: whoever waits to write is woken when it becomes so, and not for less. */
static bool hlsnap__lx_pipe_writable(const hlsnap__lx_pipe_state *p) {
    return HLSNAP__LX_PIPE_SIZE - p->size >= HLSNAP__LX_PIPE_BUF;
}

/* Moves bytes that are there, or for which there is room. Less than n: no memory for a page. */
static uint64_t hlsnap__lx_pipe_put(hlsnap__lx_pipe_state *p, uint64_t from, uint64_t n) {
    uint64_t done = 0;
    while (done < n) {
        const uint32_t at = (p->at + p->size) % HLSNAP__LX_PIPE_SIZE, in_page = at % HLSNAP__LX_PIPE_BUF;
        const uint32_t k = (uint32_t)hlsnap__lx_min(n - done, HLSNAP__LX_PIPE_BUF - in_page);
        uint8_t **page = p->pages + at / HLSNAP__LX_PIPE_BUF;
        if (!*page) *page = (uint8_t *)hlsnap__lx_pages(HLSNAP__LX_PIPE_BUF);
        if (!*page) break;
        hlsnap__lx_copy(*page + in_page, (const void *)(uintptr_t)(from + done), k);
        p->size += k;
        done += k;
    }
    return done;
}
static uint64_t hlsnap__lx_pipe_get(hlsnap__lx_pipe_state *p, uint64_t to, uint64_t n) {
    uint64_t done = 0;
    n = hlsnap__lx_min(n, p->size);
    while (done < n) {
        const uint32_t in_page = p->at % HLSNAP__LX_PIPE_BUF,
                       k = (uint32_t)hlsnap__lx_min(n - done, HLSNAP__LX_PIPE_BUF - in_page);
        hlsnap__lx_copy((void *)(uintptr_t)(to + done), p->pages[p->at / HLSNAP__LX_PIPE_BUF] + in_page, k);
        p->at = (p->at + k) % HLSNAP__LX_PIPE_SIZE;
        p->size -= k;
        done += k;
    }
    if (!p->size) p->at = 0; /* a pipe that carries little keeps to one page */
    return done;
}

static int64_t hlsnap__lx_pipe_read(hlsnap__lx_pipe_state *p, bool wait, uint64_t to, uint64_t n) {
    const uint64_t in = hlsnap__lx_in_channel(&p->in);
    bool was_full;
    if (!n) return 0;
    while (!p->size) {
        if (!p->writers) return 0;
        if (!wait) return -HLSNAP__LX_EAGAIN;
        hlsnap__lx_wait(in, HLSNAP__LX_NEVER, false);
    }
    was_full = !hlsnap__lx_pipe_writable(p);
    n = hlsnap__lx_pipe_get(p, to, n);
    if (p->size) hlsnap__lx_wake(in, 1);
    if (was_full && hlsnap__lx_pipe_writable(p)) {
        hlsnap__lx_wake(hlsnap__lx_out_channel(&p->in), 1);
        hlsnap__lx_happened(&p->out, HLSNAP__LX_POLLOUT);
    }
    return (int64_t)n;
}

/* Writers wake one another, as readers do: one is woken for what is new, and the next for what that leaves. */
static int64_t hlsnap__lx_pipe_write(hlsnap__lx_pipe_state *p, bool wait, uint64_t from, uint64_t n) {
    const uint64_t out = hlsnap__lx_out_channel(&p->in);
    int64_t why = 0;
    uint64_t done = 0, moved;
    while (done < n && !why) {
        const uint64_t k = hlsnap__lx_pipe_room(p, n - done);
        if (!p->readers)
            why = -HLSNAP__LX_EPIPE;
        else if (!k && !wait)
            why = -HLSNAP__LX_EAGAIN;
        if (why) break;
        if (!k) {
            hlsnap__lx_wait(out, HLSNAP__LX_NEVER, false);
            continue;
        }
        moved = hlsnap__lx_pipe_put(p, from + done, k);
        if (moved < k) why = -HLSNAP__LX_ENOMEM;
        if (!moved) break;
        done += moved;
        hlsnap__lx_wake(hlsnap__lx_in_channel(&p->in), 1);
        hlsnap__lx_happened(&p->in, HLSNAP__LX_POLLIN);
    }
    if (p->readers && hlsnap__lx_pipe_writable(p)) hlsnap__lx_wake(out, 1);
    return done ? (int64_t)done : why;
}

static void hlsnap__lx_pipe_close(hlsnap__lx_pipe_state *p, bool reader) {
    uint32_t i;
    if (reader)
        p->readers = false;
    else
        p->writers = false;
    hlsnap__lx_wake(reader ? hlsnap__lx_out_channel(&p->in) : hlsnap__lx_in_channel(&p->in), UINT64_MAX);
    hlsnap__lx_happened(reader ? &p->out : &p->in, 0);
    if (p->readers || p->writers) return;
    for (i = 0; i < HLSNAP__LX_PIPE_PAGES; i++) hlsnap__lx_pages_free(p->pages[i], HLSNAP__LX_PIPE_BUF);
    hlsnap__lx_fill(p, 0, sizeof(*p));
}

static uint32_t hlsnap__lx_if(bool is, uint32_t mask) { return is ? mask : 0; }
static uint32_t hlsnap__lx_pipe_ready(const hlsnap__lx_pipe_state *p, bool reader) {
    if (reader) return hlsnap__lx_if(p->size, HLSNAP__LX_POLLIN) | hlsnap__lx_if(!p->writers, HLSNAP__LX_POLLHUP);
    return hlsnap__lx_if(hlsnap__lx_pipe_writable(p), HLSNAP__LX_POLLOUT) |
           hlsnap__lx_if(!p->readers, HLSNAP__LX_POLLERR);
}

static int64_t hlsnap__lx_eventfd(uint64_t value, uint64_t flags) {
    uint32_t i = 0;
    hlsnap__lx_event *e = hlsnap__lx_streams.events;
    int64_t fd;
    if (flags & ~(uint64_t)(HLSNAP__LX_O_CLOEXEC | HLSNAP__LX_O_NONBLOCK | 1)) return -HLSNAP__LX_EINVAL;
    while (i < HLSNAP__LX_EVENTS && e[i].used) i++;
    if (i == HLSNAP__LX_EVENTS) return -HLSNAP__LX_ENFILE;
    fd = hlsnap__lx_fd_add(HLSNAP__LX_EVENT, i, (flags & ~1ull) | HLSNAP__LX_O_RDWR);
    if (fd < 0) return fd;
    e[i].used = true;
    e[i].semaphore = flags & 1;
    e[i].count = (uint32_t)value;
    return fd;
}

static int64_t hlsnap__lx_event_read(hlsnap__lx_event *e, bool wait, uint64_t to, uint64_t n) {
    uint64_t value;
    if (n < 8) return -HLSNAP__LX_EINVAL;
    while (!e->count) {
        if (!wait) return -HLSNAP__LX_EAGAIN;
        hlsnap__lx_wait(hlsnap__lx_in_channel(&e->watches), HLSNAP__LX_NEVER, false);
    }
    value = e->semaphore ? 1 : e->count;
    e->count -= value;
    hlsnap__lx_put64(to, value);
    if (e->count) hlsnap__lx_wake(hlsnap__lx_in_channel(&e->watches), 1);
    hlsnap__lx_wake(hlsnap__lx_out_channel(&e->watches), UINT64_MAX); /* each knows whether its number fits */
    hlsnap__lx_happened(&e->watches, HLSNAP__LX_POLLOUT);
    return 8;
}

static int64_t hlsnap__lx_event_write(hlsnap__lx_event *e, bool wait, uint64_t from, uint64_t n) {
    uint64_t value;
    if (n < 8) return -HLSNAP__LX_EINVAL;
    value = hlsnap__lx_get64(from);
    if (value == UINT64_MAX) return -HLSNAP__LX_EINVAL;
    while (UINT64_MAX - e->count <= value) {
        if (!wait) return -HLSNAP__LX_EAGAIN;
        hlsnap__lx_wait(hlsnap__lx_out_channel(&e->watches), HLSNAP__LX_NEVER, false);
    }
    e->count += value;
    if (e->count) hlsnap__lx_wake(hlsnap__lx_in_channel(&e->watches), 1);
    hlsnap__lx_happened(&e->watches, HLSNAP__LX_POLLIN);
    return 8;
}

static uint32_t hlsnap__lx_event_ready(const hlsnap__lx_event *e) {
    return hlsnap__lx_if(e->count, HLSNAP__LX_POLLIN) | hlsnap__lx_if(e->count < UINT64_MAX - 1, HLSNAP__LX_POLLOUT);
}

/* The description stays until the call is over, whatever other threads close meanwhile. */
static int64_t hlsnap__lx_stream_read(hlsnap__lx_open *o, uint64_t to, uint64_t n) {
    const bool wait = !(o->flags & HLSNAP__LX_O_NONBLOCK);
    int64_t r;
    o->refs++;
    switch (o->kind) {
    case HLSNAP__LX_PIPE_READ: r = hlsnap__lx_pipe_read(hlsnap__lx_streams.pipes + o->object, wait, to, n); break;
    case HLSNAP__LX_EVENT: r = hlsnap__lx_event_read(hlsnap__lx_streams.events + o->object, wait, to, n); break;
    case HLSNAP__LX_PIPE_WRITE: r = -HLSNAP__LX_EBADF; break;
    default: r = -HLSNAP__LX_EINVAL;
    }
    hlsnap__lx_open_put(o);
    return r;
}
static int64_t hlsnap__lx_stream_write(hlsnap__lx_open *o, uint64_t from, uint64_t n) {
    const bool wait = !(o->flags & HLSNAP__LX_O_NONBLOCK);
    int64_t r;
    o->refs++;
    switch (o->kind) {
    case HLSNAP__LX_PIPE_WRITE: r = hlsnap__lx_pipe_write(hlsnap__lx_streams.pipes + o->object, wait, from, n); break;
    case HLSNAP__LX_EVENT: r = hlsnap__lx_event_write(hlsnap__lx_streams.events + o->object, wait, from, n); break;
    case HLSNAP__LX_PIPE_READ: r = -HLSNAP__LX_EBADF; break;
    default: r = -HLSNAP__LX_EINVAL;
    }
    hlsnap__lx_open_put(o);
    return r;
}

/* Of any description; its number may be another's at once. */
static void hlsnap__lx_stream_close(hlsnap__lx_open *o) {
    hlsnap__lx_unwatch(o);
    switch (o->kind) {
    case HLSNAP__LX_PIPE_READ: hlsnap__lx_pipe_close(hlsnap__lx_streams.pipes + o->object, true); break;
    case HLSNAP__LX_PIPE_WRITE: hlsnap__lx_pipe_close(hlsnap__lx_streams.pipes + o->object, false); break;
    case HLSNAP__LX_EVENT: hlsnap__lx_fill(hlsnap__lx_streams.events + o->object, 0, sizeof(hlsnap__lx_event)); break;
    case HLSNAP__LX_EPOLL: hlsnap__lx_epoll_close(o->object); break;
    default: break;
    }
}

static uint32_t hlsnap__lx_stream_ready(const hlsnap__lx_open *o) {
    switch (o->kind) {
    case HLSNAP__LX_PIPE_READ: return hlsnap__lx_pipe_ready(hlsnap__lx_streams.pipes + o->object, true);
    case HLSNAP__LX_PIPE_WRITE: return hlsnap__lx_pipe_ready(hlsnap__lx_streams.pipes + o->object, false);
    case HLSNAP__LX_EVENT: return hlsnap__lx_event_ready(hlsnap__lx_streams.events + o->object);
    case HLSNAP__LX_EPOLL: return hlsnap__lx_epoll_ready(o->object);
    default: return 0;
    }
}

/* Bytes that can be read, for FIONREAD. */
static uint32_t hlsnap__lx_stream_size(const hlsnap__lx_open *o) {
    return o->kind == HLSNAP__LX_PIPE_READ || o->kind == HLSNAP__LX_PIPE_WRITE
               ? hlsnap__lx_streams.pipes[o->object].size
               : 0;
}

/* ---- >>lx_polling: poll, select, epoll ---- */

#define HLSNAP__LX_EPOLLS 64u
#define HLSNAP__LX_WATCHES 1024u /* in an epoll */
enum {
    HLSNAP__LX_POLLRDNORM = 0x40,
    HLSNAP__LX_POLLWRNORM = 0x100,
    HLSNAP__LX_POLLALWAYS = HLSNAP__LX_POLLERR | HLSNAP__LX_POLLHUP
};

typedef struct hlsnap__lx_watch { /* a descriptor in an epoll */
    const hlsnap__lx_open *open;
    struct hlsnap__lx_epoll *epoll;
    struct hlsnap__lx_watch *same_fd; /* another description that had the number, too, and is open still */
    struct {
        struct hlsnap__lx_watch *next, *prev;
    } in[2]; /* of the object's watches; of what may be ready */
    uint64_t data;
    uint32_t events; /* 0 but for what is no event: it was reported, and once was enough */
    int32_t fd;
    bool queued;
} hlsnap__lx_watch;

typedef struct hlsnap__lx_epoll {
    hlsnap__lx_watch **by_fd; /* pages; NULL = unused */
    uint32_t num, nested;     /* watches; those that are epolls */
    hlsnap__lx_list ready;    /* what may be ready, in the order in which it became so */
    hlsnap__lx_list watches;  /* of this one, by others */
} hlsnap__lx_epoll;

static struct hlsnap__lx_polling {
    hlsnap__lx_epoll epolls[HLSNAP__LX_EPOLLS];
    hlsnap__lx_list input, output; /* watches of standard input; of output, which is always ready */
    uint64_t channel;              /* its address is where poll and select wait */
} hlsnap__lx_polling;

static void hlsnap__lx_list_add(hlsnap__lx_list *l, hlsnap__lx_watch *w, int which) {
    w->in[which].next = NULL;
    w->in[which].prev = l->last;
    if (l->last)
        l->last->in[which].next = w;
    else
        l->first = w;
    l->last = w;
}
static void hlsnap__lx_list_remove(hlsnap__lx_list *l, hlsnap__lx_watch *w, int which) {
    if (w->in[which].prev)
        w->in[which].prev->in[which].next = w->in[which].next;
    else
        l->first = w->in[which].next;
    if (w->in[which].next)
        w->in[which].next->in[which].prev = w->in[which].prev;
    else
        l->last = w->in[which].prev;
}

/* Where an object's watches are; NULL = it cannot be watched. */
static hlsnap__lx_list *hlsnap__lx_watches(const hlsnap__lx_open *o) {
    switch (o->kind) {
    case HLSNAP__LX_INPUT: return &hlsnap__lx_polling.input;
    case HLSNAP__LX_OUTPUT: return &hlsnap__lx_polling.output;
    case HLSNAP__LX_PIPE_READ: return &hlsnap__lx_streams.pipes[o->object].in;
    case HLSNAP__LX_PIPE_WRITE: return &hlsnap__lx_streams.pipes[o->object].out;
    case HLSNAP__LX_EVENT: return &hlsnap__lx_streams.events[o->object].watches;
    case HLSNAP__LX_EPOLL: return &hlsnap__lx_polling.epolls[o->object].watches;
    default: return NULL;
    }
}

static void hlsnap__lx_poke(void) { hlsnap__lx_wake((uint64_t)(uintptr_t)&hlsnap__lx_polling.channel, UINT64_MAX); }

/* As hlsnap__lx_ready, with the other names that the same things have. */
static uint32_t hlsnap__lx_ready_all(const hlsnap__lx_open *o) {
    const uint32_t is = hlsnap__lx_ready(o);
    if (o->kind == HLSNAP__LX_EVENT) return is; /* which has them not */
    return is | hlsnap__lx_if(is & HLSNAP__LX_POLLIN, HLSNAP__LX_POLLRDNORM) |
           hlsnap__lx_if(is & HLSNAP__LX_POLLOUT, HLSNAP__LX_POLLWRNORM);
}

/* A watch goes where its epoll looks, and one who waits there wakes up. */
static void hlsnap__lx_watch_queue(hlsnap__lx_watch *w) {
    if (!w->queued) hlsnap__lx_list_add(&w->epoll->ready, w, 1);
    w->queued = true;
    hlsnap__lx_wake((uint64_t)(uintptr_t)w->epoll, 1);
}
static void hlsnap__lx_watch_unqueue(hlsnap__lx_watch *w) {
    if (w->queued) hlsnap__lx_list_remove(&w->epoll->ready, w, 1);
    w->queued = false;
}

/* Epolls among the watches' owners are watched by epolls that nobody watches: two steps are all. */
static void hlsnap__lx_happened(hlsnap__lx_list *watches, uint32_t mask) {
    hlsnap__lx_watch *w, *v;
    if (mask & HLSNAP__LX_POLLIN) mask |= HLSNAP__LX_POLLRDNORM;
    if (mask & HLSNAP__LX_POLLOUT) mask |= HLSNAP__LX_POLLWRNORM;
    for (w = watches->first; w; w = w->in[0].next) {
        if (!(w->events & 0xffff) || (mask && !(w->events & mask))) continue;
        hlsnap__lx_watch_queue(w);
        for (v = w->epoll->watches.first; v; v = v->in[0].next)
            if (v->events & (HLSNAP__LX_POLLIN | HLSNAP__LX_POLLRDNORM)) hlsnap__lx_watch_queue(v);
    }
    hlsnap__lx_poke();
}

/* After standard input was waited for. */
static void hlsnap__lx_input_came(void) { hlsnap__lx_happened(&hlsnap__lx_polling.input, HLSNAP__LX_POLLIN); }

static uint32_t hlsnap__lx_watch_ready(const hlsnap__lx_watch *w) {
    return hlsnap__lx_ready_all(w->open) & w->events & 0xffff;
}

/* Whether something in it is ready; what is not any more leaves the list. */
static uint32_t hlsnap__lx_epoll_ready(uint32_t object) {
    hlsnap__lx_epoll *e = hlsnap__lx_polling.epolls + object;
    while (e->ready.first && !hlsnap__lx_watch_ready(e->ready.first)) hlsnap__lx_watch_unqueue(e->ready.first);
    return e->ready.first ? HLSNAP__LX_POLLIN : 0;
}

static void hlsnap__lx_watch_remove(hlsnap__lx_watch *w) {
    hlsnap__lx_watch **at = w->epoll->by_fd + w->fd;
    hlsnap__lx_watch_unqueue(w);
    hlsnap__lx_list_remove(hlsnap__lx_watches(w->open), w, 0);
    while (*at != w) at = &(*at)->same_fd;
    *at = w->same_fd;
    w->epoll->num--;
    w->epoll->nested -= w->open->kind == HLSNAP__LX_EPOLL;
    hlsnap__lx_release(w, sizeof(*w));
}

static void hlsnap__lx_unwatch(const hlsnap__lx_open *o) {
    hlsnap__lx_list *l = hlsnap__lx_watches(o);
    hlsnap__lx_watch *w = l ? l->first : NULL, *next;
    for (; w; w = next) {
        next = w->in[0].next;
        if (w->open == o) hlsnap__lx_watch_remove(w);
    }
}

static int64_t hlsnap__lx_epoll_create(uint64_t flags) {
    uint32_t i = 0;
    int64_t fd;
    hlsnap__lx_epoll *e = hlsnap__lx_polling.epolls;
    if (flags & ~(uint64_t)HLSNAP__LX_O_CLOEXEC) return -HLSNAP__LX_EINVAL;
    while (i < HLSNAP__LX_EPOLLS && e[i].by_fd) i++;
    if (i == HLSNAP__LX_EPOLLS) return -HLSNAP__LX_EMFILE;
    e[i].by_fd = (hlsnap__lx_watch **)hlsnap__lx_pages(HLSNAP__LX_FDS * sizeof(hlsnap__lx_watch *));
    if (!e[i].by_fd) return -HLSNAP__LX_ENOMEM;
    fd = hlsnap__lx_fd_add(HLSNAP__LX_EPOLL, i, flags | HLSNAP__LX_O_RDWR);
    if (fd < 0) hlsnap__lx_epoll_close(i);
    return fd;
}

static void hlsnap__lx_epoll_close(uint32_t object) {
    hlsnap__lx_epoll *e = hlsnap__lx_polling.epolls + object;
    uint32_t i;
    for (i = 0; i < HLSNAP__LX_FDS && e->num; i++)
        while (e->by_fd[i]) hlsnap__lx_watch_remove(e->by_fd[i]);
    hlsnap__lx_pages_free(e->by_fd, HLSNAP__LX_FDS * sizeof(hlsnap__lx_watch *));
    hlsnap__lx_fill(e, 0, sizeof(*e));
}

enum {
    HLSNAP__LX_EPOLL_ADD = 1,
    HLSNAP__LX_EPOLL_DEL,
    HLSNAP__LX_EPOLL_MOD,
    HLSNAP__LX_EPOLL_EXCLUSIVE = 1 << 28,
    HLSNAP__LX_EPOLL_ONESHOT = 1 << 30
};
#define HLSNAP__LX_EPOLL_EDGE 0x80000000u

/* Events as the program wants them from now on, which may be there already. */
static void hlsnap__lx_watch_set(hlsnap__lx_watch *w, uint64_t event) {
    w->events = hlsnap__lx_get32(event) | HLSNAP__LX_POLLALWAYS;
    w->data = hlsnap__lx_get64(event + 4);
    if (!hlsnap__lx_watch_ready(w)) return;
    hlsnap__lx_watch_queue(w);
    hlsnap__lx_happened(&w->epoll->watches, HLSNAP__LX_POLLIN);
}

static int64_t hlsnap__lx_watch_add(hlsnap__lx_epoll *e, const hlsnap__lx_open *o, int32_t fd, uint64_t event) {
    const uint32_t events = hlsnap__lx_get32(event);
    hlsnap__lx_watch *w;
    /* Of what else there is, only IN, OUT, ERR, HUP, EPOLLWAKEUP and EDGE go with EXCLUSIVE. */
    if (events & HLSNAP__LX_EPOLL_EXCLUSIVE &&
        (o->kind == HLSNAP__LX_EPOLL || events & ~(HLSNAP__LX_EPOLL_EDGE | 3u << 28 | 0x1du)))
        return -HLSNAP__LX_EINVAL;
    if (o->kind == HLSNAP__LX_EPOLL && (e->watches.first || hlsnap__lx_polling.epolls[o->object].nested))
        return -HLSNAP__LX_ELOOP;
    if (e->num == HLSNAP__LX_WATCHES) return -HLSNAP__LX_ENOSPC;
    w = (hlsnap__lx_watch *)hlsnap__lx_alloc(sizeof(*w));
    if (!w) return -HLSNAP__LX_ENOMEM;
    w->open = o;
    w->epoll = e;
    w->fd = fd;
    w->same_fd = e->by_fd[fd];
    e->by_fd[fd] = w;
    e->num++;
    e->nested += o->kind == HLSNAP__LX_EPOLL;
    hlsnap__lx_list_add(hlsnap__lx_watches(o), w, 0);
    hlsnap__lx_watch_set(w, event);
    return 0;
}

static int64_t hlsnap__lx_epoll_ctl(int32_t epoll, uint64_t op, int32_t fd, uint64_t event) {
    const hlsnap__lx_open *of = hlsnap__lx_fd(epoll), *o = hlsnap__lx_fd(fd);
    hlsnap__lx_epoll *e;
    hlsnap__lx_watch *w;
    if (!of || !o) return -HLSNAP__LX_EBADF;
    if (!hlsnap__lx_watches(o)) return -HLSNAP__LX_EPERM;
    if (of == o || of->kind != HLSNAP__LX_EPOLL) return -HLSNAP__LX_EINVAL;
    e = hlsnap__lx_polling.epolls + of->object;
    for (w = e->by_fd[fd]; w && w->open != o;) w = w->same_fd;
    switch (op) {
    case HLSNAP__LX_EPOLL_ADD: return w ? -HLSNAP__LX_EEXIST : hlsnap__lx_watch_add(e, o, fd, event);
    case HLSNAP__LX_EPOLL_DEL:
        if (!w) return -HLSNAP__LX_ENOENT;
        hlsnap__lx_watch_remove(w);
        return 0;
    case HLSNAP__LX_EPOLL_MOD:
        if (!w) return -HLSNAP__LX_ENOENT;
        if ((w->events | hlsnap__lx_get32(event)) & HLSNAP__LX_EPOLL_EXCLUSIVE) return -HLSNAP__LX_EINVAL;
        hlsnap__lx_watch_set(w, event);
        return 0;
    default: return -HLSNAP__LX_EINVAL;
    }
}

/* Reports what is ready, each at most once. What stays ready goes behind what did not fit: all get their turn. */
static int32_t hlsnap__lx_epoll_take(hlsnap__lx_epoll *e, uint64_t to, int32_t most) {
    const hlsnap__lx_watch *last = e->ready.last;
    int32_t n = 0;
    bool more = last != NULL;
    while (more && n < most) {
        hlsnap__lx_watch *w = e->ready.first;
        const uint32_t is = hlsnap__lx_watch_ready(w);
        more = w != last;
        hlsnap__lx_watch_unqueue(w);
        if (!is) continue;
        hlsnap__lx_put32(to + 12 * (uint64_t)n, is);
        hlsnap__lx_put64(to + 12 * (uint64_t)n + 4, w->data);
        n++;
        if (w->events & HLSNAP__LX_EPOLL_ONESHOT)
            w->events &= ~0xffffu;
        else if (!(w->events & HLSNAP__LX_EPOLL_EDGE)) {
            hlsnap__lx_list_add(&e->ready, w, 1);
            w->queued = true;
        }
    }
    if (n && e->ready.first)
        hlsnap__lx_wake((uint64_t)(uintptr_t)e, 1); /* there may be something for another thread, too */
    return n;
}

/* Whether one who waits there waits for standard input: directly, or by an epoll in it. */
static bool hlsnap__lx_epoll_input(const hlsnap__lx_epoll *e) {
    const hlsnap__lx_watch *w = hlsnap__lx_polling.input.first, *v;
    if (!w || hlsnap__lx_input_ready()) return false;
    for (; w; w = w->in[0].next) {
        if (!(w->events & HLSNAP__LX_POLLIN)) continue;
        if (w->epoll == e) return true;
        for (v = w->epoll->watches.first; v; v = v->in[0].next)
            if (v->epoll == e && (v->events & HLSNAP__LX_POLLIN)) return true;
    }
    return false;
}

static int64_t hlsnap__lx_epoll_wait_ns(int32_t epoll, uint64_t to, int32_t most, uint64_t ns) {
    hlsnap__lx_open *o = hlsnap__lx_fd(epoll);
    const uint64_t until = ns && ns < HLSNAP__LX_MALFORMED ? hlsnap__lx_in(ns) : ns;
    hlsnap__lx_epoll *e;
    int32_t n;
    bool waits = ns != 0;
    if (ns == HLSNAP__LX_MALFORMED || most <= 0 || most > INT32_MAX / 12) return -HLSNAP__LX_EINVAL;
    if (!o) return -HLSNAP__LX_EBADF;
    if (o->kind != HLSNAP__LX_EPOLL) return -HLSNAP__LX_EINVAL;
    e = hlsnap__lx_polling.epolls + o->object;
    o->refs++; /* it stays until the call is over, even if others close it */
    while (!(n = hlsnap__lx_epoll_take(e, to, most)) && waits)
        waits = hlsnap__lx_wait((uint64_t)(uintptr_t)e, until, hlsnap__lx_epoll_input(e));
    hlsnap__lx_open_put(o);
    return n;
}

static uint64_t hlsnap__lx_ms(int32_t ms) { return ms < 0 ? HLSNAP__LX_NEVER : (uint64_t)ms * 1000000u; }
static int64_t hlsnap__lx_epoll_wait(int32_t epoll, uint64_t to, int32_t most, int32_t timeout_ms) {
    return hlsnap__lx_epoll_wait_ns(epoll, to, most, hlsnap__lx_ms(timeout_ms));
}

static bool hlsnap__lx_is_idle_input(const hlsnap__lx_open *o) {
    return o->kind == HLSNAP__LX_INPUT && !hlsnap__lx_input_ready();
}
/* The same of an epoll that is polled itself. */
static bool hlsnap__lx_polls_input(const hlsnap__lx_open *o, uint32_t events) {
    if (!(events & (HLSNAP__LX_POLLIN | HLSNAP__LX_POLLRDNORM))) return false;
    return o->kind == HLSNAP__LX_EPOLL ? hlsnap__lx_epoll_input(hlsnap__lx_polling.epolls + o->object)
                                       : hlsnap__lx_is_idle_input(o);
}

/* Looks at all of them once; input: one waits for standard input. */
static int64_t hlsnap__lx_poll_look(uint64_t fds, uint64_t num, bool *input) {
    int64_t n = 0;
    uint64_t at;
    *input = false;
    for (at = fds; at < fds + 8 * num; at += 8) {
        const int32_t fd = (int32_t)hlsnap__lx_get32(at);
        const uint32_t events = hlsnap__lx_get16(at + 4);
        const hlsnap__lx_open *o = fd < 0 ? NULL : hlsnap__lx_fd(fd);
        uint32_t is = fd < 0 ? 0 : HLSNAP__LX_POLLNVAL;
        if (o) is = hlsnap__lx_ready_all(o) & (events | HLSNAP__LX_POLLALWAYS | HLSNAP__LX_POLLNVAL);
        if (o && hlsnap__lx_polls_input(o, events)) *input = true;
        hlsnap__lx_put16(at + 6, (uint16_t)is);
        n += is != 0;
    }
    return n;
}

static int64_t hlsnap__lx_poll_until(uint64_t fds, uint64_t num, uint64_t until) {
    int64_t n;
    bool waits = until != 0, input;
    if (num > HLSNAP__LX_FDS) return -HLSNAP__LX_EINVAL;
    while (!(n = hlsnap__lx_poll_look(fds, num, &input)) && waits)
        waits = hlsnap__lx_wait((uint64_t)(uintptr_t)&hlsnap__lx_polling.channel, until, input);
    return n;
}
static int64_t hlsnap__lx_poll(uint64_t fds, uint64_t num, int32_t timeout_ms) {
    return hlsnap__lx_poll_until(fds, num, timeout_ms ? hlsnap__lx_in(hlsnap__lx_ms(timeout_ms)) : 0);
}

/* What is left of a timeout, where Linux leaves it. What would not change is not written: {0, 0} may be in read-only memory. */
static void hlsnap__lx_time_left(uint64_t to, uint64_t until, uint64_t unit) {
    uint64_t now, left;
    if (!to || until == HLSNAP__LX_NEVER) return;
    now = until ? hlsnap__lx_monotonic() : 0;
    left = until > now ? until - now : 0;
    if (hlsnap__lx_get64(to) == left / HLSNAP__LX_SECOND && hlsnap__lx_get64(to + 8) == left % HLSNAP__LX_SECOND / unit)
        return;
    hlsnap__lx_put64(to, left / HLSNAP__LX_SECOND);
    hlsnap__lx_put64(to + 8, left % HLSNAP__LX_SECOND / unit);
}

static int64_t hlsnap__lx_ppoll(uint64_t fds, uint64_t num, uint64_t timespec) {
    const uint64_t ns = hlsnap__lx_timespec(timespec, 1),
                   until = ns && ns < HLSNAP__LX_MALFORMED ? hlsnap__lx_in(ns) : ns;
    int64_t n;
    if (ns == HLSNAP__LX_MALFORMED) return -HLSNAP__LX_EINVAL;
    n = hlsnap__lx_poll_until(fds, num, until);
    hlsnap__lx_time_left(timespec, until, 1);
    return n;
}

/* The three sets of select, a bit a descriptor, as words; 0 = there is no such set. */
typedef struct hlsnap__lx_sets {
    uint64_t at[3];
    uint32_t num;
} hlsnap__lx_sets;

static uint64_t hlsnap__lx_set_word(const hlsnap__lx_sets *s, int which, uint32_t word) {
    const uint64_t mask = s->num - word * 64 < 64 ? (1ull << (s->num - word * 64)) - 1 : ~0ull;
    return s->at[which] ? hlsnap__lx_get64(s->at[which] + 8ull * word) & mask : 0;
}

/* What of a word of a set is ready. */
static uint64_t hlsnap__lx_set_look(const hlsnap__lx_sets *s, int which, uint32_t word, bool *input) {
    const uint32_t mask = HLSNAP__LX_POLLNVAL | (which == 0   ? HLSNAP__LX_POLLIN | HLSNAP__LX_POLLALWAYS
                                                 : which == 1 ? HLSNAP__LX_POLLOUT | HLSNAP__LX_POLLERR
                                                              : 0);
    const uint64_t bits = hlsnap__lx_set_word(s, which, word);
    uint64_t is = 0;
    uint32_t i;
    for (i = 0; i < 64 && bits >> i; i++) {
        const hlsnap__lx_open *o = bits >> i & 1 ? hlsnap__lx_fd((int32_t)(word * 64 + i)) : NULL;
        if (!o) continue;
        if (hlsnap__lx_ready_all(o) & mask) is |= 1ull << i;
        if (hlsnap__lx_polls_input(o, mask)) *input = true;
    }
    return is;
}

/* Looks at all of them once. */
static int64_t hlsnap__lx_select_look(const hlsnap__lx_sets *s, bool *input) {
    int64_t n = 0;
    uint32_t word;
    int which;
    *input = false;
    for (which = 0; which < 3; which++)
        for (word = 0; word < (s->num + 63) / 64; word++) {
            uint64_t is = hlsnap__lx_set_look(s, which, word, input);
            for (; is; is &= is - 1) n++;
        }
    return n;
}

/* What was seen takes the place of what was asked. */
static void hlsnap__lx_select_write(const hlsnap__lx_sets *s) {
    uint32_t word;
    int which;
    bool input;
    for (which = 0; which < 3; which++)
        for (word = 0; word < (s->num + 63) / 64 && s->at[which]; word++)
            hlsnap__lx_put64(s->at[which] + 8ull * word, hlsnap__lx_set_look(s, which, word, &input));
}

static bool hlsnap__lx_select_open(const hlsnap__lx_sets *s) {
    uint32_t fd;
    for (fd = 0; fd < s->num; fd++) {
        const uint64_t bits = hlsnap__lx_set_word(s, 0, fd / 64) | hlsnap__lx_set_word(s, 1, fd / 64) |
                              hlsnap__lx_set_word(s, 2, fd / 64);
        if (!bits)
            fd |= 63;
        else if (bits >> fd % 64 & 1 && !hlsnap__lx_fd((int32_t)fd))
            return false;
    }
    return true;
}

/* A struct timeval may have a second and more in its microseconds. */
static uint64_t hlsnap__lx_select_time(uint64_t at, uint64_t unit) {
    uint64_t s, us;
    if (unit == 1 || !at) return hlsnap__lx_timespec(at, unit);
    s = hlsnap__lx_get64(at);
    us = hlsnap__lx_get64(at + 8);
    if ((int64_t)s < 0 || (int64_t)us < 0) return HLSNAP__LX_MALFORMED;
    return s > 1ull << 32 || us > 1ull << 50 ? HLSNAP__LX_NEVER : s * HLSNAP__LX_SECOND + us * unit;
}

/* As Linux does, numbers beyond what there can be are left out. */
static int64_t hlsnap__lx_select(uint64_t num, uint64_t in, uint64_t out, uint64_t ex, uint64_t timeout,
                                 uint64_t unit) {
    const uint64_t ns = hlsnap__lx_select_time(timeout, unit),
                   until = ns && ns < HLSNAP__LX_MALFORMED ? hlsnap__lx_in(ns) : ns;
    hlsnap__lx_sets s;
    int64_t n;
    bool waits = ns != 0, input;
    if (ns == HLSNAP__LX_MALFORMED || (int32_t)num < 0) return -HLSNAP__LX_EINVAL;
    s.num = (uint32_t)hlsnap__lx_min((uint32_t)num, HLSNAP__LX_FDS);
    s.at[0] = in;
    s.at[1] = out;
    s.at[2] = ex;
    if (!hlsnap__lx_select_open(&s)) return -HLSNAP__LX_EBADF;
    while (!(n = hlsnap__lx_select_look(&s, &input)) && waits)
        waits = hlsnap__lx_wait((uint64_t)(uintptr_t)&hlsnap__lx_polling.channel, until, input);
    hlsnap__lx_select_write(&s);
    hlsnap__lx_time_left(timeout, until, unit);
    return n;
}

/* ---- >>lx_process: who the program is ---- */

static struct hlsnap__lx_process {
    uint64_t actions[64][4]; /* of rt_sigaction, which remembers; no signal ever comes */
    uint64_t mask;
    char name[16];
} hlsnap__lx_self;

/* Another one after every start and restore, since libraries (OpenSSL's among them) seed afresh when it changes. */
static int64_t hlsnap__lx_pid(void) {
    return 2 + (int64_t)(hlsnap__lx_get32((uint64_t)(uintptr_t)hlsnap__lx.id->id) & 0x3ffffe);
}

static int64_t hlsnap__lx_sigaction(uint64_t number, uint64_t act, uint64_t old, uint64_t size) {
    if (size != 8 || !number || number > 64) return -HLSNAP__LX_EINVAL;
    if (act && (number == 9 || number == 19)) return -HLSNAP__LX_EINVAL;
    if (old) hlsnap__lx_copy((void *)(uintptr_t)old, hlsnap__lx_self.actions[number - 1], 32);
    if (act) hlsnap__lx_copy(hlsnap__lx_self.actions[number - 1], (const void *)(uintptr_t)act, 32);
    return 0;
}

static int64_t hlsnap__lx_sigprocmask(uint64_t how, uint64_t set, uint64_t old, uint64_t size) {
    const uint64_t was = hlsnap__lx_self.mask;
    hlsnap__lx_make_room();
    if (size != 8 || (set && how > 2)) return -HLSNAP__LX_EINVAL;
    if (set) {
        const uint64_t bits = hlsnap__lx_get64(set);
        hlsnap__lx_self.mask = (how == 0 ? was | bits : how == 1 ? was & ~bits : bits) & ~(1ull << 8 | 1ull << 18);
    }
    if (old) hlsnap__lx_put64(old, was);
    return 0;
}

/* struct: address, flags, size. No signal ever runs there. */
static int64_t hlsnap__lx_sigaltstack(uint64_t set, uint64_t old) {
    uint64_t *is = hlsnap__lx_tasks.current->alternate;
    const uint64_t at = set ? hlsnap__lx_get64(set) : 0, size = set ? hlsnap__lx_get64(set + 16) : 0;
    const uint32_t flags = set ? hlsnap__lx_get32(set + 8) & 0x7fffffffu : 0; /* without SS_AUTODISARM */
    if (flags > 2) return -HLSNAP__LX_EINVAL; /* SS_ONSTACK 1, SS_DISABLE 2 */
    if (set && flags != 2 && size < 2048) return -HLSNAP__LX_ENOMEM;
    if (old) {
        hlsnap__lx_put64(old, is[0]);
        hlsnap__lx_put64(old + 8, is[1] ? 0 : 2);
        hlsnap__lx_put64(old + 16, is[1]);
    }
    if (!set) return 0;
    is[0] = flags == 2 ? 0 : at;
    is[1] = flags == 2 ? 0 : size;
    return 0;
}

/* A signal of the program to itself: what is ignored is, all else ends the call. */
static int64_t hlsnap__lx_signal(uint64_t number) {
    const uint64_t ignored = 1ull << 17 | 1ull << 18 | 1ull << 23 | 1ull << 28; /* CHLD, CONT, URG, WINCH */
    hlsnap__lx_text t;
    if (number > 64) return -HLSNAP__LX_EINVAL;
    if (!number || hlsnap__lx_self.actions[number - 1][0] == 1) return 0;
    if (number < 64 && ignored >> number & 1 && !hlsnap__lx_self.actions[number - 1][0]) return 0;
    t.n = 0;
    hlsnap__lx_say(&t, number == 6 ? "abort() called" : "the program sent itself signal ");
    if (number != 6) hlsnap__lx_say_number(&t, (int64_t)number);
    hlsnap__lx_end(HLSNAP_ABI_FN_ABORT, number == 6 ? HLSNAP__ABORT_LIBC : HLSNAP__ABORT_SIGNAL, &t);
}

/* To its process or its group; there is no other, as programs learn that look whether the owner of a lock is alive. */
static int64_t hlsnap__lx_kill(int32_t pid, uint64_t number) {
    const int32_t own = (int32_t)hlsnap__lx_pid();
    if (number > 64) return -HLSNAP__LX_EINVAL;
    return !pid || pid == own || pid == -own ? hlsnap__lx_signal(number) : -HLSNAP__LX_ESRCH;
}

/* A libc keeps the first thread's number, which is another one since: any that is even, as a process's is, means that thread. */
static int64_t hlsnap__lx_tgkill(int64_t pid, int32_t tid, uint64_t number) {
    const hlsnap__lx_thread *t = hlsnap__lx_tasks.of, *end = t + hlsnap__lx_tasks.slots;
    const uint32_t wanted = tid % 2 ? (uint32_t)tid : 0;
    if (pid <= 0 || tid <= 0 || number > 64) return -HLSNAP__LX_EINVAL;
    while (t < end && (t->state == HLSNAP__LX_UNUSED || t->tid != wanted)) t++;
    return pid % 2 == 0 && t < end ? hlsnap__lx_signal(number) : -HLSNAP__LX_ESRCH;
}

static int64_t hlsnap__lx_uname(uint64_t to) {
    hlsnap__lx_fill((void *)(uintptr_t)to, 0, 6 * 65);
    hlsnap__lx_copy((void *)(uintptr_t)to, "Linux", 5);
    hlsnap__lx_copy((void *)(uintptr_t)(to + 65), "guest", 5);
    hlsnap__lx_copy((void *)(uintptr_t)(to + 130), "6.1.0", 5);
    hlsnap__lx_copy((void *)(uintptr_t)(to + 195), "hlsnap", 6);
    hlsnap__lx_copy((void *)(uintptr_t)(to + 260), "x86_64", 6);
    return 0;
}

static int64_t hlsnap__lx_sysinfo(uint64_t to) {
    hlsnap__lx_fill((void *)(uintptr_t)to, 0, 112);
    hlsnap__lx_put64(to, hlsnap__lx_monotonic() / HLSNAP__LX_SECOND);
    hlsnap__lx_put64(to + 32, hlsnap__lx_mem.pages * HLSNAP__LX_PAGE);
    hlsnap__lx_put64(to + 40, (hlsnap__lx_mem.pages - hlsnap__lx.num_used) * HLSNAP__LX_PAGE);
    hlsnap__lx_put16(to + 80, 1); /* processes */
    hlsnap__lx_put32(to + 104, 1);
    return 0;
}

static uint64_t hlsnap__lx_stack_size; /* of the stack region */

static int64_t hlsnap__lx_getrlimit(uint64_t which, uint64_t to) {
    uint64_t soft = UINT64_MAX;
    if (which > 15) return -HLSNAP__LX_EINVAL;
    if (!to) return 0;
    if (which == 3) soft = hlsnap__lx_stack_size;
    if (which == 4) soft = 0; /* core files */
    if (which == 6) soft = HLSNAP__LX_THREADS;
    if (which == 7) soft = HLSNAP__LX_FDS;
    if (which == 2 || which == 9) soft = hlsnap__lx_mem.pages * HLSNAP__LX_PAGE;
    hlsnap__lx_put64(to, soft);
    hlsnap__lx_put64(to + 8, soft);
    return 0;
}

/* All time is the program's own: nobody else runs in here. */
static int64_t hlsnap__lx_getrusage(uint64_t to) {
    hlsnap__lx_fill((void *)(uintptr_t)to, 0, 144);
    hlsnap__lx_clock_get(2, to, 1000);
    hlsnap__lx_put64(to + 32, hlsnap__lx.peak * HLSNAP__LX_PAGE / 1024);
    return 0;
}
static int64_t hlsnap__lx_times(uint64_t to) {
    const uint64_t ticks = hlsnap__lx_monotonic() / (HLSNAP__LX_SECOND / 100);
    if (to) hlsnap__lx_fill((void *)(uintptr_t)to, 0, 32);
    if (to) hlsnap__lx_put64(to, hlsnap__lx_worked() / (HLSNAP__LX_SECOND / 100));
    return (int64_t)ticks;
}

static int64_t hlsnap__lx_prctl(uint64_t op, uint64_t a) {
    switch (op) {
    case 15: { /* PR_SET_NAME: what follows 15 bytes is not looked at */
        const char *name = (const char *)(uintptr_t)a;
        uint32_t n = 0;
        hlsnap__lx_fill(hlsnap__lx_self.name, 0, 16);
        for (; n < 15 && name[n]; n++) hlsnap__lx_self.name[n] = name[n];
        return 0;
    }
    case 16: hlsnap__lx_copy((void *)(uintptr_t)a, hlsnap__lx_self.name, 16); return 0;
    case 3: return 0;  /* PR_GET_DUMPABLE */
    case 4:            /* PR_SET_DUMPABLE */
    case 22:           /* PR_SET_SECCOMP: there is nothing to be kept from */
    case 38: return 0; /* PR_SET_NO_NEW_PRIVS */
    default: return -HLSNAP__LX_EINVAL;
    }
}

static int64_t hlsnap__lx_arch_prctl(uint64_t op, uint64_t a) {
    if (op == 0x1002) { /* ARCH_SET_FS */
        if (a >= 1ull << 47) return -HLSNAP__LX_EPERM;
        hlsnap__lx_fs_set(a);
        return 0;
    }
    if (op != 0x1003) return -HLSNAP__LX_EINVAL;
    hlsnap__lx_put64(a, hlsnap__lx_fs_get());
    return 0;
}

static int64_t hlsnap__lx_affinity(uint64_t size, uint64_t to) {
    if (size < 8 || size % 8) return -HLSNAP__LX_EINVAL;
    hlsnap__lx_put64(to, 1);
    return 8;
}

/* To what it is already, or -1: not at all. */
static int64_t hlsnap__lx_set_id(uint64_t a, uint64_t b, uint64_t c) {
    const uint32_t none = UINT32_MAX, x = (uint32_t)a, y = (uint32_t)b, z = (uint32_t)c;
    return (x == 1000 || x == none) && (y == 1000 || y == none) && (z == 1000 || z == none) ? 0 : -HLSNAP__LX_EPERM;
}

static int64_t hlsnap__lx_three(uint64_t a, uint64_t b, uint64_t c) { /* getresuid, getresgid */
    hlsnap__lx_put32(a, 1000);
    hlsnap__lx_put32(b, 1000);
    hlsnap__lx_put32(c, 1000);
    return 0;
}

/* ---- >>lx_calls: the table ---- */

/* X(number, name, answer): a to f are the arguments as they came, frame the registers. What is not in here is refused. */
// clang-format off
#define HLSNAP__LX_CALLS(X) \
    X(0, read, hlsnap__lx_read((int32_t)a, b, c)) X(1, write, hlsnap__lx_write((int32_t)a, b, c)) \
    X(2, open, hlsnap__lx_openat(HLSNAP__LX_AT_CWD, a, b, c)) X(3, close, hlsnap__lx_close((int32_t)a)) \
    X(4, stat, hlsnap__lx_fstatat(HLSNAP__LX_AT_CWD, a, b, 0)) X(5, fstat, hlsnap__lx_fstat((int32_t)a, b)) \
    X(6, lstat, hlsnap__lx_fstatat(HLSNAP__LX_AT_CWD, a, b, HLSNAP__LX_AT_NOFOLLOW)) \
    X(7, poll, hlsnap__lx_poll(a, b, (int32_t)c)) X(8, lseek, hlsnap__lx_lseek((int32_t)a, (int64_t)b, c)) \
    X(9, mmap, hlsnap__lx_mmap(a, b, c, d, (int32_t)e, f)) X(10, mprotect, hlsnap__lx_mprotect(a, b, c)) \
    X(11, munmap, hlsnap__lx_munmap(a, b)) X(12, brk, hlsnap__lx_brk(a)) X(13, rt_sigaction, hlsnap__lx_sigaction(a, b, c, d)) \
    X(14, rt_sigprocmask, hlsnap__lx_sigprocmask(a, b, c, d)) X(16, ioctl, hlsnap__lx_ioctl((int32_t)a, b, c)) \
    X(17, pread64, hlsnap__lx_pread((int32_t)a, b, c, (int64_t)d)) \
    X(18, pwrite64, hlsnap__lx_pwrite((int32_t)a, b, c, (int64_t)d)) X(19, readv, hlsnap__lx_readv((int32_t)a, b, c, -1, 0)) \
    X(20, writev, hlsnap__lx_writev((int32_t)a, b, c, -1, 0)) X(21, access, hlsnap__lx_faccessat(HLSNAP__LX_AT_CWD, a, b, 0)) \
    X(22, pipe, hlsnap__lx_pipe(a, 0)) X(23, select, hlsnap__lx_select(a, b, c, d, e, 1000)) \
    X(24, sched_yield, hlsnap__lx_yield()) X(25, mremap, hlsnap__lx_mremap(a, b, c, d)) X(26, msync, 0) \
    X(28, madvise, hlsnap__lx_madvise(a, b, c)) X(32, dup, hlsnap__lx_dup((int32_t)a)) \
    X(33, dup2, hlsnap__lx_dup2((int32_t)a, (int32_t)b)) X(34, pause, hlsnap__lx_pause(0)) \
    X(35, nanosleep, hlsnap__lx_nanosleep(1, 0, a)) \
    X(39, getpid, hlsnap__lx_pid()) X(40, sendfile, -HLSNAP__LX_ENOSYS) \
    X(56, clone, hlsnap__lx_clone(frame)) X(57, fork, hlsnap__lx_refuse(57, HLSNAP__LX_EPERM)) \
    X(58, vfork, hlsnap__lx_refuse(58, HLSNAP__LX_EPERM)) \
    X(59, execve, hlsnap__lx_refuse(59, HLSNAP__LX_EPERM)) X(60, exit, hlsnap__lx_thread_exit((int32_t)a)) \
    X(61, wait4, -HLSNAP__LX_ECHILD) X(62, kill, hlsnap__lx_kill((int32_t)a, b)) X(63, uname, hlsnap__lx_uname(a)) \
    X(72, fcntl, hlsnap__lx_fcntl((int32_t)a, b, c)) X(73, flock, hlsnap__lx_file_sync((int32_t)a)) \
    X(74, fsync, hlsnap__lx_file_sync((int32_t)a)) X(75, fdatasync, hlsnap__lx_file_sync((int32_t)a)) \
    X(76, truncate, hlsnap__lx_truncate(a, (int64_t)b)) X(77, ftruncate, hlsnap__lx_ftruncate((int32_t)a, (int64_t)b)) \
    X(79, getcwd, hlsnap__lx_getcwd(a, b)) X(80, chdir, hlsnap__lx_chdir(a)) X(81, fchdir, hlsnap__lx_fchdir((int32_t)a)) \
    X(82, rename, hlsnap__lx_renameat(HLSNAP__LX_AT_CWD, a, HLSNAP__LX_AT_CWD, b, 0)) \
    X(83, mkdir, hlsnap__lx_mkdirat(HLSNAP__LX_AT_CWD, a, b)) \
    X(84, rmdir, hlsnap__lx_unlinkat(HLSNAP__LX_AT_CWD, a, HLSNAP__LX_AT_REMOVEDIR)) \
    X(85, creat, hlsnap__lx_openat(HLSNAP__LX_AT_CWD, a, HLSNAP__LX_O_CREAT | HLSNAP__LX_O_WRONLY | HLSNAP__LX_O_TRUNC, b)) \
    X(87, unlink, hlsnap__lx_unlinkat(HLSNAP__LX_AT_CWD, a, 0)) \
    X(89, readlink, hlsnap__lx_readlinkat(HLSNAP__LX_AT_CWD, a, b, c)) \
    X(90, chmod, hlsnap__lx_fchmodat(HLSNAP__LX_AT_CWD, a, b)) X(91, fchmod, hlsnap__lx_fchmod((int32_t)a, b)) \
    X(92, chown, hlsnap__lx_chownat(HLSNAP__LX_AT_CWD, a, b, c, 0)) X(93, fchown, hlsnap__lx_fchown((int32_t)a, b, c)) \
    X(94, lchown, hlsnap__lx_chownat(HLSNAP__LX_AT_CWD, a, b, c, HLSNAP__LX_AT_NOFOLLOW)) \
    X(95, umask, hlsnap__lx_umask(a)) X(96, gettimeofday, a ? hlsnap__lx_clock_get(0, a, 1000) : 0) \
    X(97, getrlimit, hlsnap__lx_getrlimit(a, b)) X(98, getrusage, hlsnap__lx_getrusage(b)) X(99, sysinfo, hlsnap__lx_sysinfo(a)) \
    X(100, times, hlsnap__lx_times(a)) X(102, getuid, 1000) X(104, getgid, 1000) X(105, setuid, hlsnap__lx_set_id(a, a, a)) \
    X(106, setgid, hlsnap__lx_set_id(a, a, a)) X(107, geteuid, 1000) X(108, getegid, 1000) X(110, getppid, 0) \
    X(111, getpgrp, hlsnap__lx_pid()) X(113, setreuid, hlsnap__lx_set_id(a, b, b)) X(114, setregid, hlsnap__lx_set_id(a, b, b)) \
    X(115, getgroups, 0) X(116, setgroups, -HLSNAP__LX_EPERM) X(117, setresuid, hlsnap__lx_set_id(a, b, c)) \
    X(118, getresuid, hlsnap__lx_three(a, b, c)) X(119, setresgid, hlsnap__lx_set_id(a, b, c)) \
    X(120, getresgid, hlsnap__lx_three(a, b, c)) X(121, getpgid, hlsnap__lx_pid()) X(124, getsid, hlsnap__lx_pid()) \
    X(127, rt_sigpending, (hlsnap__lx_fill((void *)(uintptr_t)a, 0, 8), 0)) X(128, rt_sigtimedwait, hlsnap__lx_pause(c)) \
    X(130, rt_sigsuspend, hlsnap__lx_pause(0)) X(131, sigaltstack, hlsnap__lx_sigaltstack(a, b)) \
    X(137, statfs, hlsnap__lx_statfs(a, b)) X(138, fstatfs, hlsnap__lx_fstatfs((int32_t)a, b)) \
    X(140, getpriority, 20) X(145, sched_getscheduler, 0) X(149, mlock, 0) X(150, munlock, 0) \
    X(151, mlockall, 0) X(152, munlockall, 0) X(157, prctl, hlsnap__lx_prctl(a, b)) \
    X(158, arch_prctl, hlsnap__lx_arch_prctl(a, b)) X(160, setrlimit, 0) X(186, gettid, hlsnap__lx_gettid()) \
    X(200, tkill, hlsnap__lx_tgkill(2, (int32_t)a, b)) X(201, time, hlsnap__lx_time_get(a)) \
    X(202, futex, hlsnap__lx_futex(a, (uint32_t)b, (uint32_t)c, d, e, (uint32_t)f)) X(203, sched_setaffinity, 0) \
    X(204, sched_getaffinity, hlsnap__lx_affinity(b, c)) \
    X(213, epoll_create, (int32_t)a > 0 ? hlsnap__lx_epoll_create(0) : -HLSNAP__LX_EINVAL) \
    X(217, getdents64, hlsnap__lx_getdents((int32_t)a, b, c)) X(218, set_tid_address, hlsnap__lx_set_tid_address(a)) \
    X(221, fadvise64, hlsnap__lx_file_sync((int32_t)a)) X(228, clock_gettime, hlsnap__lx_clock_get(a, b, 1)) \
    X(229, clock_getres, hlsnap__lx_clock_getres(a, b)) X(230, clock_nanosleep, hlsnap__lx_nanosleep(a, b, c)) \
    X(231, exit_group, (hlsnap__lx_exit((int32_t)a), 0)) \
    X(232, epoll_wait, hlsnap__lx_epoll_wait((int32_t)a, b, (int32_t)c, (int32_t)d)) \
    X(233, epoll_ctl, hlsnap__lx_epoll_ctl((int32_t)a, b, (int32_t)c, d)) \
    X(234, tgkill, hlsnap__lx_tgkill((int32_t)a, (int32_t)b, c)) \
    X(247, waitid, -HLSNAP__LX_ECHILD) X(257, openat, hlsnap__lx_openat((int32_t)a, b, c, d)) \
    X(258, mkdirat, hlsnap__lx_mkdirat((int32_t)a, b, c)) X(260, fchownat, hlsnap__lx_chownat((int32_t)a, b, c, d, e)) \
    X(262, newfstatat, hlsnap__lx_fstatat((int32_t)a, b, c, d)) \
    X(263, unlinkat, hlsnap__lx_unlinkat((int32_t)a, b, c)) \
    X(264, renameat, hlsnap__lx_renameat((int32_t)a, b, (int32_t)c, d, 0)) \
    X(267, readlinkat, hlsnap__lx_readlinkat((int32_t)a, b, c, d)) X(268, fchmodat, hlsnap__lx_fchmodat((int32_t)a, b, c)) \
    X(269, faccessat, hlsnap__lx_faccessat((int32_t)a, b, c, 0)) X(270, pselect6, hlsnap__lx_select(a, b, c, d, e, 1)) \
    X(271, ppoll, hlsnap__lx_ppoll(a, b, c)) X(273, set_robust_list, -HLSNAP__LX_ENOSYS) \
    X(274, get_robust_list, -HLSNAP__LX_ENOSYS) \
    X(280, utimensat, hlsnap__lx_utimensat((int32_t)a, b, c, d)) \
    X(281, epoll_pwait, hlsnap__lx_epoll_wait((int32_t)a, b, (int32_t)c, (int32_t)d)) X(284, eventfd, hlsnap__lx_eventfd(a, 0)) \
    X(285, fallocate, hlsnap__lx_fallocate((int32_t)a, b, (int64_t)c, (int64_t)d)) X(290, eventfd2, hlsnap__lx_eventfd(a, b)) \
    X(291, epoll_create1, hlsnap__lx_epoll_create(a)) X(292, dup3, hlsnap__lx_dup3((int32_t)a, (int32_t)b, c)) \
    X(293, pipe2, hlsnap__lx_pipe(a, b)) \
    X(295, preadv, (int64_t)d < 0 ? -HLSNAP__LX_EINVAL : hlsnap__lx_readv((int32_t)a, b, c, (int64_t)d, 0)) \
    X(296, pwritev, (int64_t)d < 0 ? -HLSNAP__LX_EINVAL : hlsnap__lx_writev((int32_t)a, b, c, (int64_t)d, 0)) \
    X(302, prlimit64, hlsnap__lx_getrlimit(b, d)) \
    X(309, getcpu, hlsnap__lx_getcpu(a, b)) X(316, renameat2, hlsnap__lx_renameat((int32_t)a, b, (int32_t)c, d, e)) \
    X(318, getrandom, hlsnap__lx_random(a, b)) X(322, execveat, hlsnap__lx_refuse(322, HLSNAP__LX_EPERM)) \
    X(324, membarrier, 0) X(325, mlock2, 0) X(326, copy_file_range, -HLSNAP__LX_ENOSYS) \
    X(327, preadv2, hlsnap__lx_readv((int32_t)a, b, c, (int64_t)d, f)) \
    X(328, pwritev2, hlsnap__lx_writev((int32_t)a, b, c, (int64_t)d, f)) X(332, statx, hlsnap__lx_statx((int32_t)a, b, c, e)) \
    X(334, rseq, -HLSNAP__LX_ENOSYS) X(435, clone3, -HLSNAP__LX_ENOSYS) X(436, close_range, hlsnap__lx_close_range(a, b, c)) \
    X(439, faccessat2, hlsnap__lx_faccessat((int32_t)a, b, c, d)) \
    X(441, epoll_pwait2, hlsnap__lx_epoll_wait_ns((int32_t)a, b, (int32_t)c, hlsnap__lx_timespec(d, 1)))
// clang-format on

static int64_t hlsnap__lx_time_get(uint64_t to) {
    const uint64_t s = hlsnap__lx_realtime() / HLSNAP__LX_SECOND;
    if (to) hlsnap__lx_put64(to, s);
    return (int64_t)s;
}
static int64_t hlsnap__lx_clock_getres(uint64_t clock, uint64_t to) {
    if ((int32_t)clock > 11) return -HLSNAP__LX_EINVAL;
    if (!to) return 0;
    hlsnap__lx_put64(to, 0);
    hlsnap__lx_put64(to + 8, 1);
    return 0;
}
static int64_t hlsnap__lx_getcpu(uint64_t cpu, uint64_t node) {
    if (cpu) hlsnap__lx_put32(cpu, 0);
    if (node) hlsnap__lx_put32(node, 0);
    return 0;
}

/* "socket (41)" */
static void hlsnap__lx_say_call(hlsnap__lx_text *t, uint64_t number) {
    hlsnap__lx_say(t, hlsnap__syscall_name(number));
    hlsnap__lx_say(t, " (");
    hlsnap__lx_say_number(t, (int64_t)number);
    hlsnap__lx_say(t, ")");
}

/* A call that is not in the table, or asks for what no guest has: once per number, it is logged and remembered for the text of an
   exit. */
static int64_t hlsnap__lx_refuse(uint64_t number, int32_t error) {
    const uint64_t bit = hlsnap__lx_min(number, 511);
    hlsnap__lx_text t;
    t.n = 0;
    if (hlsnap__lx.id->options & HLSNAP_ABI_OPTION_STRICT) {
        hlsnap__lx_say(&t, "system call ");
        hlsnap__lx_say_call(&t, number);
        hlsnap__lx_say(&t, " is not in a guest");
        hlsnap__lx_end(HLSNAP_ABI_FN_ABORT, HLSNAP__ABORT_SIGNAL, &t);
    }
    if (hlsnap__lx_bit(hlsnap__lx.refused, bit)) return -error;
    hlsnap__lx_bits(hlsnap__lx.refused, bit, 1, true);
    if (hlsnap__lx.num_refused < HLSNAP_COUNT(hlsnap__lx.refused_list))
        hlsnap__lx.refused_list[hlsnap__lx.num_refused++] = (uint16_t)hlsnap__lx_min(number, 0xffff);
    hlsnap__lx_say(&t, "system call ");
    hlsnap__lx_say_call(&t, number);
    hlsnap__lx_say(&t, " is not in a guest: ");
    hlsnap__lx_say(&t, error == HLSNAP__LX_EPERM ? "EPERM" : error == HLSNAP__LX_EACCES ? "EACCES" : "ENOSYS");
    hlsnap__lx_log(2, &t);
    return -error;
}

/* "exit 1; refused: socket (41), ..." */
static void hlsnap__lx_say_exit(hlsnap__lx_text *t, int32_t status) {
    uint32_t i;
    hlsnap__lx_say(t, "exit ");
    hlsnap__lx_say_number(t, status);
    for (i = 0; i < hlsnap__lx.num_refused; i++) {
        hlsnap__lx_say(t, i ? ", " : "; refused: ");
        hlsnap__lx_say_call(t, hlsnap__lx.refused_list[i]);
    }
}

static int64_t hlsnap__lx_ask(const hlsnap__lx_frame *frame);

__attribute__((__used__)) static int64_t hlsnap__lx_dispatch(hlsnap__lx_frame *frame) __asm__("hlsnap__lx_dispatch");
static int64_t hlsnap__lx_dispatch(hlsnap__lx_frame *frame) {
    const uint64_t a = frame->rdi, b = frame->rsi, c = frame->rdx, d = frame->r10, e = frame->r8, f = frame->r9;
    switch (frame->rax) {
#define HLSNAP__LX_CALL(number, name, answer) \
    case number: return answer;
        HLSNAP__LX_CALLS(HLSNAP__LX_CALL)
#undef HLSNAP__LX_CALL
    default: return hlsnap__lx_ask(frame);
    }
}

/* ---- >>lx_start: the way in and out ---- */

static uint64_t hlsnap__lx_program_rsp __asm__("hlsnap__lx_program_rsp") __attribute__((__used__));
static uint8_t hlsnap__lx_stack0[HLSNAP__LX_STACK] __asm__("hlsnap__lx_stack0")
    __attribute__((__aligned__(64), __used__));

#if !defined(HLSNAP__LX_HOST)
// clang-format off
__asm__(
".text\n"
/* SYSCALL: the program's registers to the handler's stack, the answer, and back; with the direction flag as the program had it. */
".p2align 4\n.globl hlsnap__lx_syscall\n.hidden hlsnap__lx_syscall\n.type hlsnap__lx_syscall,@function\n"
"hlsnap__lx_syscall:\n"
"  cld\n  mov %rsp, hlsnap__lx_program_rsp(%rip)\n  mov hlsnap__lx_top(%rip), %rsp\n"
"  push hlsnap__lx_program_rsp(%rip)\n"
"  push %rax\n  push %rcx\n  push %r11\n  push %rdi\n  push %rsi\n  push %rdx\n  push %r10\n  push %r8\n  push %r9\n"
"  push %r15\n  push %r14\n  push %r13\n  push %r12\n  push %rbp\n  push %rbx\n"
"  mov %rsp, %rdi\n  call hlsnap__lx_dispatch\n"
".globl hlsnap__lx_back\n.hidden hlsnap__lx_back\nhlsnap__lx_back:\n"
"  pop %rbx\n  pop %rbp\n  pop %r12\n  pop %r13\n  pop %r14\n  pop %r15\n"
"  pop %r9\n  pop %r8\n  pop %r10\n  pop %rdx\n  pop %rsi\n  pop %rdi\n  pop %r11\n  pop %rcx\n  add $8, %rsp\n"
"  test $0x400, %r11d\n  jnz 1f\n"
"2: pop %rsp\n  jmp *%rcx\n"
"1: std\n  jmp 2b\n"
".size hlsnap__lx_syscall,.-hlsnap__lx_syscall\n"
#if defined(HLSNAP_GUEST_RUNTIME)
".globl _start\n.hidden _start\n.set _start, hlsnap__lx_entry\n"
#endif
/* Every VM entry: rdi = mailbox, rsi = identity page, rsp = the end of the stack region. */
".pushsection .text.hot.hlsnap,\"ax\",@progbits\n.p2align 4\n"
".globl hlsnap__lx_entry\n.hidden hlsnap__lx_entry\n.type hlsnap__lx_entry,@function\n"
"hlsnap__lx_entry:\n"
"  rdtsc\n  shl $32, %rdx\n  or %rdx, %rax\n  mov %rax, hlsnap__lx(%rip)\n"
"  mov hlsnap__lx+8(%rip), %rax\n  test %rax, %rax\n  jnz 1f\n"
"  mov %rsp, %rdx\n  lea 16384+hlsnap__lx_stack0(%rip), %rsp\n  call hlsnap__lx_first\n  ud2\n"
"1: mov %rax, %rsp\n  mov hlsnap__lx+16(%rip), %rax\n  wrfsbase %rax\n"
"  fldcw 4(%rsp)\n  ldmxcsr (%rsp)\n  add $8, %rsp\n"
"  pop %rbx\n  pop %rbp\n  pop %r12\n  pop %r13\n  pop %r14\n  pop %r15\n  ret\n"
".size hlsnap__lx_entry,.-hlsnap__lx_entry\n"
/* Leaves the VM; returns at the next entry. */
".p2align 4\n.type hlsnap__lx_park,@function\n"
"hlsnap__lx_park:\n"
"  push %r15\n  push %r14\n  push %r13\n  push %r12\n  push %rbp\n  push %rbx\n  sub $8, %rsp\n  stmxcsr (%rsp)\n  fnstcw 4(%rsp)\n"
"  rdfsbase %rax\n  mov %rax, hlsnap__lx+16(%rip)\n  mov %rsp, hlsnap__lx+8(%rip)\n"
"1: outb %al, $0xe0\n  jmp 1b\n"
".size hlsnap__lx_park,.-hlsnap__lx_park\n.popsection\n"
/* The program's start: rdi = its stack, rsi = where. */
".p2align 4\n.type hlsnap__lx_go,@function\n"
"hlsnap__lx_go:\n  mov %rdi, %rsp\n  mov %rsi, %rax\n  xor %edx, %edx\n  xor %ebp, %ebp\n  xor %edi, %edi\n  xor %esi, %esi\n"
"  jmp *%rax\n"
".size hlsnap__lx_go,.-hlsnap__lx_go\n"
/* A function of the program on the program's stack: rdi = it, rsi, rdx, rcx = its arguments, r8 = the stack. Its own system calls
   go on below here. */
".p2align 4\n.type hlsnap__lx_upcall,@function\n"
"hlsnap__lx_upcall:\n  push %rbp\n  mov %rsp, %rbp\n  push hlsnap__lx_top(%rip)\n  mov %rsp, %rax\n  and $-64, %rax\n"
"  mov %rax, hlsnap__lx_top(%rip)\n  mov %rdi, %rax\n  mov %rsi, %rdi\n  mov %rdx, %rsi\n  mov %rcx, %rdx\n  mov %r8, %rsp\n"
"  call *%rax\n"
"  lea -8(%rbp), %rsp\n  pop hlsnap__lx_top(%rip)\n  pop %rbp\n  ret\n"
".size hlsnap__lx_upcall,.-hlsnap__lx_upcall\n"
/* Where to enter and where SYSCALL leads, each relative to itself: no relocation. */
".pushsection .note.hlsnap,\"a\",@note\n.p2align 2\n.long 7, 16, 2\n.asciz \"hlsnap\"\n.p2align 2\n"
"8: .quad hlsnap__lx_entry - 8b\n9: .quad hlsnap__lx_syscall - 9b\n.popsection\n");
// clang-format on
extern void hlsnap__lx_park(void) __asm__("hlsnap__lx_park");
extern void hlsnap__lx_go(uint64_t sp, uint64_t pc) __asm__("hlsnap__lx_go") __attribute__((__noreturn__));
extern int64_t hlsnap__lx_upcall(uint64_t fn, uint64_t a, uint64_t b, uint64_t c,
                                 uint64_t sp) __asm__("hlsnap__lx_upcall");
#endif

/* After every entry: what is new, when a start or a restore lies between. */
static HLSNAP__EACH_CALL bool hlsnap__lx_arrive(void) {
    hlsnap__lx.clock.tsc = hlsnap__lx.entry_tsc;
    hlsnap__lx.clock.real_ahead = 0;
    hlsnap__lx_catch_up();
    if (hlsnap__lx_same(hlsnap__lx.started_as, hlsnap__lx.id->id, 16)) return false;
    hlsnap__lx_copy(hlsnap__lx.started_as, hlsnap__lx.id->id, 16);
    hlsnap__lx.random_counter = hlsnap__lx.vectors = 0;
    hlsnap__lx_wipe();
    return true;
}

/* Before the program's first instruction. */
static void hlsnap__lx_setup(const uint8_t *identity) {
    hlsnap__lx.id = (const hlsnap_abi_identity *)(const void *)(identity + HLSNAP_ABI_IDENTITY_OFFSET);
    hlsnap__lx_top = (uint64_t)(uintptr_t)(hlsnap__lx_stack0 + HLSNAP__LX_STACK);
    hlsnap__lx_memory_setup();
    hlsnap__lx_arrive();
    hlsnap__lx.clock.start = hlsnap__lx_mailbox()->realtime_ns ? hlsnap__lx_wall() - HLSNAP__LX_SECOND : 0;
    hlsnap__lx.clock.idle = hlsnap__lx.clock.start ? HLSNAP__LX_SECOND : 0;
    hlsnap__lx_threads_setup(hlsnap__lx_top);
    hlsnap__lx_files_setup();
}

/* The identity page tells it to init only; a program that starts after a restore has it from there. */
static uint64_t hlsnap__lx_program_at;
static const hlsnap_abi_program *hlsnap__lx_program(void) {
    if (hlsnap__lx.id->program) hlsnap__lx_program_at = hlsnap__lx.id->program;
    return (const hlsnap_abi_program *)(uintptr_t)hlsnap__lx_program_at;
}

/* Pointers to num strings from *at on, and a NULL. */
static void hlsnap__lx_stack_strings(uint64_t *list, uint64_t num, uint64_t *at) {
    uint64_t i;
    for (i = 0; i < num; i++) {
        hlsnap__lx_put64(*list, *at);
        *list += 8;
        *at += hlsnap__lx_len((const char *)(uintptr_t)*at) + 1;
    }
    hlsnap__lx_put64(*list, 0);
    *list += 8;
}

static void hlsnap__lx_stack_aux(uint64_t *list, uint64_t type, uint64_t value) {
    hlsnap__lx_put64(*list, type);
    hlsnap__lx_put64(*list + 8, value);
    *list += 16;
}

/* /proc/self/maps: where the first stack is, as libcs look there. */
static hlsnap__lx_text hlsnap__lx_maps;
static void hlsnap__lx_say_address(hlsnap__lx_text *t, uint64_t v) {
    int shift = 60;
    while (shift && !(v >> shift)) shift -= 4;
    for (; shift >= 0 && t->n < sizeof(t->s); shift -= 4) t->s[t->n++] = "0123456789abcdef"[v >> shift & 15];
}
static void hlsnap__lx_say_stack(uint64_t end, uint64_t size) {
    hlsnap__lx_node *p = hlsnap__lx_node_at(hlsnap__lx_tree.maps);
    end = (end + HLSNAP__LX_PAGE - 1) & ~(HLSNAP__LX_PAGE - 1);
    hlsnap__lx_maps.n = 0;
    hlsnap__lx_say_address(&hlsnap__lx_maps, end - size);
    hlsnap__lx_say(&hlsnap__lx_maps, "-");
    hlsnap__lx_say_address(&hlsnap__lx_maps, end);
    hlsnap__lx_say(&hlsnap__lx_maps, " rw-p 00000000 00:00 0 [stack]\n");
    p->data = (uint8_t *)hlsnap__lx_maps.s;
    p->size = hlsnap__lx_maps.n;
}

/* Where on it the 16 bytes of AT_RANDOM are; the platform's name stands above. */
static uint64_t hlsnap__lx_stack_random(uint64_t end) { return ((end - 16) & ~15ull) - 16; }

/* The stack that a kernel would have made, below `end`: argc, argv, env, auxv, and what they lead to. Its pointer. */
static uint64_t hlsnap__lx_stack_make(uint64_t end) {
    const hlsnap_abi_program *p = hlsnap__lx_program();
    const uint64_t random = hlsnap__lx_stack_random(end), platform = random + 16;
    const uint64_t strings = (random - p->strings_size) & ~15ull;
    const uint64_t sp = (strings - 8 * (1 + p->num_args + 1 + p->num_env + 1) - 16 * 20) & ~15ull;
    uint64_t list = sp, at = strings;
    hlsnap__lx_copy((void *)(uintptr_t)platform, "x86_64", 7);
    hlsnap__lx_random(random, 16);
    hlsnap__lx_copy((void *)(uintptr_t)strings, (const uint8_t *)p + p->strings, p->strings_size);
    hlsnap__lx_put64(list, p->num_args);
    list += 8;
    hlsnap__lx_stack_strings(&list, p->num_args, &at);
    hlsnap__lx_stack_strings(&list, p->num_env, &at);
    if (p->phdr) {
        hlsnap__lx_stack_aux(&list, 3, p->phdr);
        hlsnap__lx_stack_aux(&list, 4, 56);
        hlsnap__lx_stack_aux(&list, 5, p->num_phdr);
    }
    hlsnap__lx_stack_aux(&list, 6, HLSNAP__LX_PAGE);
    hlsnap__lx_stack_aux(&list, 7, 0); /* AT_BASE */
    hlsnap__lx_stack_aux(&list, 8, 0); /* AT_FLAGS */
    hlsnap__lx_stack_aux(&list, 9, p->entry);
    hlsnap__lx_stack_aux(&list, 11, 1000); /* AT_UID, AT_EUID, AT_GID, AT_EGID */
    hlsnap__lx_stack_aux(&list, 12, 1000);
    hlsnap__lx_stack_aux(&list, 13, 1000);
    hlsnap__lx_stack_aux(&list, 14, 1000);
    hlsnap__lx_stack_aux(&list, 15, platform);
    hlsnap__lx_stack_aux(&list, 17, 100); /* AT_CLKTCK */
    hlsnap__lx_stack_aux(&list, 23, 0);   /* AT_SECURE */
    hlsnap__lx_stack_aux(&list, 25, random);
    hlsnap__lx_stack_aux(&list, 31, strings); /* AT_EXECFN */
    hlsnap__lx_stack_aux(&list, 51, 4096);    /* AT_MINSIGSTKSZ */
    hlsnap__lx_stack_aux(&list, 0, 0);
    hlsnap__lx_stack_size = p->stack_size;
    hlsnap__lx_say_stack(end, p->stack_size);
    return sp;
}

#if !defined(HLSNAP__LX_HOST)
/* hlsnap_rt_on_syscall; named, as what a program's own SYSCALL reads must be there whatever the compiler sees of it. */
static hlsnap_syscall_fn hlsnap__lx_hook __asm__("hlsnap__lx_hook") __attribute__((__used__));
static void *hlsnap__lx_hook_user __asm__("hlsnap__lx_hook_user") __attribute__((__used__));
#endif

/* A call that is not in the table goes to the guest's own function, if it gave one, on the program's stack: below the red zone, and
   below the vector state, which it may use. It may make system calls itself. */
static int64_t hlsnap__lx_ask(const hlsnap__lx_frame *frame) {
#if !defined(HLSNAP__LX_HOST)
    const uint64_t area = (frame->rsp - 128 - HLSNAP__LX_VECTORS) & ~63ull;
    uint64_t args[6];
    int64_t r;
    if (!hlsnap__lx_hook) return hlsnap__lx_refuse(frame->rax, HLSNAP__LX_ENOSYS);
    args[0] = frame->rdi;
    args[1] = frame->rsi;
    args[2] = frame->rdx;
    args[3] = frame->r10;
    args[4] = frame->r8;
    args[5] = frame->r9;
    hlsnap__lx_vectors_save(area);
    hlsnap__lx_copy((void *)(uintptr_t)(area - 64), args, sizeof(args));
    r = hlsnap__lx_upcall((uint64_t)(uintptr_t)hlsnap__lx_hook, frame->rax, area - 64,
                          (uint64_t)(uintptr_t)hlsnap__lx_hook_user, area - 64);
    hlsnap__lx_vectors_load(area);
    return r == -HLSNAP__LX_ENOSYS ? hlsnap__lx_refuse(frame->rax, HLSNAP__LX_ENOSYS) : r;
#else
    return hlsnap__lx_refuse(frame->rax, HLSNAP__LX_ENOSYS);
#endif
}

#if defined(HLSNAP__LX_HOST)
#elif defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
/* ---- >>linux-end ---- */

#if !defined(HLSNAP__LX_HOST)
static const hlsnap_abi_identity *hlsnap__rt_identity(void) { return hlsnap__lx.id; }
static void hlsnap__rt_tell(hlsnap_abi_mailbox *m) {
    (void)m;
    hlsnap__lx_tell();
}
static uint8_t *hlsnap__rt_request_at(size_t *room) {
    const hlsnap_abi_mailbox *m = hlsnap__lx_mailbox();
    const uint64_t at = hlsnap__lx_request_at();
    *room = (size_t)((uint64_t)(uintptr_t)m + m->out_offset + m->out_size - at);
    return (uint8_t *)(uintptr_t)at;
}

HLSNAP_API void hlsnap_rt_trim(void) { hlsnap__lx_trim(); }

HLSNAP_API void hlsnap_rt_on_start(void (*fn)(void *user), void *user) {
    hlsnap__lx.on_start = fn;
    hlsnap__lx.on_start_user = user;
}

/* Leaves the VM until the next entry; true when a start or a restore lies between. */
static HLSNAP__EACH_CALL bool hlsnap__lx_leave(void) {
    hlsnap__lx_tell();
    hlsnap__lx_park();
    hlsnap__lx.out_used = 0;
    return hlsnap__lx_arrive();
}

__attribute__((__used__, __noreturn__)) static void hlsnap__lx_first(hlsnap_abi_mailbox *m, const uint8_t *identity,
                                                                     uint64_t stack) __asm__("hlsnap__lx_first");

#if !defined(HLSNAP_GUEST_RUNTIME)
/* ---- >>lx_serve: a program that was linked with the runtime ---- */

static bool hlsnap__lx_input_ready(void) { return true; }
static int64_t hlsnap__lx_input_read(uint64_t to, uint64_t n) {
    (void)to;
    (void)n;
    return 0;
}
static void hlsnap__lx_input_wait(void) {}
static void hlsnap__lx_standard_output(int32_t fd, uint64_t from, uint64_t n) {
    hlsnap__lx_output(fd, (const uint8_t *)(uintptr_t)from, n);
}

static void hlsnap__lx_exit(int32_t status) {
    hlsnap__lx_text t;
    t.n = 0;
    hlsnap__lx_say_exit(&t, status);
    hlsnap__lx_end(HLSNAP_ABI_FN_EXIT, status, &t);
}

static void hlsnap__lx_first(hlsnap_abi_mailbox *m, const uint8_t *identity, uint64_t stack) {
    (void)m;
    hlsnap__lx_setup(identity);
    hlsnap__lx_go(hlsnap__lx_stack_make(stack), hlsnap__lx_program()->entry);
}

#if !defined(HLSNAP_GUEST_NO_STDIO)
extern void *hlsnap__libc_stdout __asm__("stdout");
extern size_t hlsnap__libc_pending(void *file) __asm__("__fpending");
extern int hlsnap__libc_fflush(void *file) __asm__("fflush"); /* strong: a weak one is not pulled from an archive */
#endif
/* stdout alone: to go through all streams costs glibc a second page of stack and a lock, at each call. */
static HLSNAP__EACH_CALL void hlsnap__lx_flush(void) {
#if !defined(HLSNAP_GUEST_NO_STDIO)
    if (hlsnap__libc_pending(hlsnap__libc_stdout)) hlsnap__libc_fflush(hlsnap__libc_stdout);
#endif
}

HLSNAP__EACH_CALL HLSNAP_API __attribute__((__noreturn__)) void hlsnap_rt_serve(void) {
    hlsnap_abi_mailbox *m = hlsnap__rt_mailbox();
    hlsnap__lx_flush();
    hlsnap__rt_init(m);
    for (;;) {
        if (hlsnap__lx_leave() && hlsnap__lx.on_start) hlsnap__lx.on_start(hlsnap__lx.on_start_user);
        hlsnap__lx.out_used = hlsnap__rt_calls(m);
        hlsnap__lx_flush(); /* what it prints goes behind the results */
    }
}

HLSNAP_API void hlsnap_rt_on_syscall(hlsnap_syscall_fn fn, void *user) {
    hlsnap__lx_hook = fn;
    hlsnap__lx_hook_user = user;
}
#else /* HLSNAP_GUEST_RUNTIME */
/* ---- >>lx_feed: a program as it is: main, feed, more, status ---- */
/* The program runs inside of a call, up to where it waits for more input than it was fed, or to its end. There the call gets its
   answer, and the VM is left with the program standing in its system call: the ready point. */

enum hlsnap__lx_export { HLSNAP__LX_MAIN, HLSNAP__LX_FEED, HLSNAP__LX_MORE, HLSNAP__LX_STATUS };
static const hlsnap_function hlsnap__lx_exports[] = {{"main", "i32()", NULL, NULL},
                                                     {"feed", "bytes(bytes)", NULL, NULL},
                                                     {"more", "bytes()", NULL, NULL},
                                                     {"status", "i32()", NULL, NULL}};
static const hlsnap_module hlsnap__lx_module = {hlsnap__lx_exports, 4, NULL, 0};
const hlsnap_module *const hlsnap_rt_module = &hlsnap__lx_module;

static struct hlsnap__lx_feed {
    uint32_t function;           /* the call in progress */
    bool started, ended, closed; /* the program; its input: no more will come */
    bool fed;                    /* output is kept for feed and more */
    int32_t status;              /* once it ended */
    uint8_t *in, *out;
    uint64_t in_size, in_at, out_size, out_at, out_room;
    uint8_t *large; /* a call's message that the mailbox had no room for */
    uint64_t large_size;
    size_t calls_at; /* bytes of the entry's calls that were read */
} hlsnap__lx_io;

static void hlsnap__lx_answer(uint32_t status, const hlsnap_value *v, size_t num) {
    hlsnap_abi_mailbox *m = hlsnap__lx_mailbox();
    uint8_t *at = (uint8_t *)m + m->out_offset + hlsnap__lx.out_used;
    hlsnap__message_write(at, m->out_size - hlsnap__lx.out_used, hlsnap__lx_io.function, status, v, num);
    hlsnap__lx.out_used += hlsnap__message_size(v, num);
    m->num_done++;
    if (status != HLSNAP_ABI_STATUS_OK) m->num_calls = m->num_done; /* the rest of a batch does not run */
}
static void hlsnap__lx_answer_i32(int32_t number) {
    const hlsnap_value v = hlsnap_i32(number);
    hlsnap__lx_answer(HLSNAP_ABI_STATUS_OK, &v, 1);
}
static void hlsnap__lx_answer_fail(const char *why) {
    hlsnap_value v[2];
    v[0] = hlsnap_i32(hlsnap__lx_io.ended ? hlsnap__lx_io.status : -1);
    v[1] = hlsnap_str(why);
    hlsnap__lx_answer(HLSNAP_ABI_STATUS_FAILED, v, 2);
}
/* Output that was not fetched yet, as much as fits; what is left is for more. */
static void hlsnap__lx_answer_output(void) {
    struct hlsnap__lx_feed *f = &hlsnap__lx_io;
    const hlsnap_abi_mailbox *m = hlsnap__lx_mailbox();
    const uint64_t room = m->out_size - hlsnap__lx.out_used - HLSNAP__RESERVE_OUT - 64;
    const uint64_t n = hlsnap__lx_min(f->out_size - f->out_at, room);
    const hlsnap_value v = hlsnap_bytes(f->out + f->out_at, (size_t)n);
    hlsnap__lx_answer(HLSNAP_ABI_STATUS_OK, &v, 1);
    f->out_at += n;
    if (f->out_at < f->out_size) return;
    hlsnap__lx_pages_free(f->out, f->out_room);
    f->out = NULL;
    f->out_at = f->out_size = f->out_room = 0;
}

/* Input is kept from when the program starts to when it has read all of it. */
static bool hlsnap__lx_take_input(const hlsnap_value *v) {
    struct hlsnap__lx_feed *f = &hlsnap__lx_io;
    uint8_t *in = (uint8_t *)hlsnap__lx_pages(f->in_size - f->in_at + v->size + 1);
    if (!in) return false;
    if (f->in) hlsnap__lx_copy(in, f->in + f->in_at, f->in_size - f->in_at);
    hlsnap__lx_copy(in + f->in_size - f->in_at, v->bytes, v->size);
    hlsnap__lx_pages_free(f->in, f->in_size + 1);
    f->in = in;
    f->in_size = f->in_size - f->in_at + v->size;
    f->in_at = 0;
    f->closed = !v->size;
    return true;
}

/* Memory for a message of n bytes, instead of what the last one had. */
static void hlsnap__lx_large(uint64_t n) {
    struct hlsnap__lx_feed *f = &hlsnap__lx_io;
    hlsnap__lx_pages_free(f->large, f->large_size);
    f->large = n && n <= HLSNAP__LARGE_MOST ? (uint8_t *)hlsnap__lx_pages(n) : NULL;
    f->large_size = n;
}

/* The next call, of this entry or of one to come; its argument, if it has one. */
static void hlsnap__lx_next_call(hlsnap_value *arg) {
    hlsnap_abi_mailbox *m = hlsnap__lx_mailbox();
    hlsnap_abi_message head;
    hlsnap_value args[HLSNAP_MAX_ARGS];
    const uint8_t *at;
    hlsnap__lx_large(0);
    while (m->op != HLSNAP_ABI_OP_CALL || m->num_done >= m->num_calls) {
        if (m->op == HLSNAP_ABI_OP_ROOM) {
            hlsnap__lx_large(m->room);
            m->room_at = (uint64_t)(uintptr_t)hlsnap__lx_io.large;
        }
        hlsnap__lx_leave();
        hlsnap__lx_io.calls_at = 0;
        m->num_done = 0;
    }
    at = m->large ? hlsnap__lx_io.large : (const uint8_t *)m + m->in_offset + hlsnap__lx_io.calls_at;
    if (!hlsnap__message_read(at, m->large ? UINT32_MAX : m->in_size - hlsnap__lx_io.calls_at, &head, args, HLSNAP_MAX_ARGS) ||
        head.function > HLSNAP__LX_STATUS || head.num_values != (head.function == HLSNAP__LX_FEED))
        hlsnap_rt_abort(HLSNAP__ABORT_MAILBOX, "malformed call");
    hlsnap__lx_io.calls_at += head.size;
    hlsnap__lx_io.function = head.function;
    if (head.num_values) *arg = args[0];
}

/* Serves calls until one of them has the program go on. */
static void hlsnap__lx_serve(void) {
    struct hlsnap__lx_feed *f = &hlsnap__lx_io;
    hlsnap_value arg;
    for (;;) {
        hlsnap__lx_next_call(&arg);
        if (f->function == HLSNAP__LX_STATUS)
            hlsnap__lx_answer_i32(f->ended ? f->status : -1);
        else if (f->function == HLSNAP__LX_MORE && (f->started || f->out_size))
            hlsnap__lx_answer_output();
        else if (f->ended)
            hlsnap__lx_answer_fail("the program has ended");
        else if (f->function == HLSNAP__LX_MAIN && f->started)
            hlsnap__lx_answer_fail("the program runs already");
        else if (f->function == HLSNAP__LX_FEED && f->closed)
            hlsnap__lx_answer_fail("the program's input has ended");
        else if (f->function == HLSNAP__LX_FEED && !hlsnap__lx_take_input(&arg))
            hlsnap__lx_answer_fail("the input does not fit the heap: raise heap_size of the guest desc");
        else
            break;
    }
    if (f->function == HLSNAP__LX_MAIN) f->closed = true;
    f->fed = f->function != HLSNAP__LX_MAIN;
    f->started = true;
}

static bool hlsnap__lx_input_ready(void) { return hlsnap__lx_io.in_at < hlsnap__lx_io.in_size || hlsnap__lx_io.closed; }
static int64_t hlsnap__lx_input_read(uint64_t to, uint64_t n) {
    struct hlsnap__lx_feed *f = &hlsnap__lx_io;
    n = hlsnap__lx_min(n, f->in_size - f->in_at);
    hlsnap__lx_copy((void *)(uintptr_t)to, f->in + f->in_at, n);
    f->in_at += n;
    return (int64_t)n;
}

static uint8_t hlsnap__lx_input_vectors[HLSNAP__LX_VECTORS] __attribute__((__aligned__(64)));

static void hlsnap__lx_input_wait(void) {
    hlsnap__lx_vectors_save((uint64_t)(uintptr_t)hlsnap__lx_input_vectors);
    hlsnap__lx_answer_output();
    hlsnap__lx_serve();
    hlsnap__lx_vectors_load((uint64_t)(uintptr_t)hlsnap__lx_input_vectors);
}

/* What feed is to return is kept, where there is room; all else goes to the host as it comes. */
static void hlsnap__lx_standard_output(int32_t fd, uint64_t from, uint64_t n) {
    struct hlsnap__lx_feed *f = &hlsnap__lx_io;
    if (fd != 1 || !f->fed) {
        hlsnap__lx_output(fd, (const uint8_t *)(uintptr_t)from, n);
        return;
    }
    if (n > f->out_room - f->out_size) {
        const uint64_t room = (f->out_size + n) * 2 + 65536;
        uint8_t *more = (uint8_t *)hlsnap__lx_pages(room);
        if (!more) {
            hlsnap__lx_output(fd, (const uint8_t *)(uintptr_t)from, n);
            return;
        }
        if (f->out) hlsnap__lx_copy(more, f->out, f->out_size);
        hlsnap__lx_pages_free(f->out, f->out_room);
        f->out = more;
        f->out_room = room;
    }
    hlsnap__lx_copy(f->out + f->out_size, (const void *)(uintptr_t)from, n);
    f->out_size += n;
}

static void hlsnap__lx_exit(int32_t status) {
    struct hlsnap__lx_feed *f = &hlsnap__lx_io;
    f->ended = true;
    f->status = status;
    if (hlsnap__lx.num_refused && status) { /* what it was denied may be why */
        hlsnap__lx_text t;
        t.n = 0;
        hlsnap__lx_say_exit(&t, status);
        hlsnap__lx_log(2, &t);
    }
    if (f->fed)
        hlsnap__lx_answer_output();
    else
        hlsnap__lx_answer_i32(status);
    for (;;) hlsnap__lx_serve(); /* which never comes back from a program that has ended */
}

static void hlsnap__lx_first(hlsnap_abi_mailbox *m, const uint8_t *identity, uint64_t stack) {
    uint64_t sp, entry;
    hlsnap__lx_setup(identity);
    m->guest_abi = HLSNAP_ABI_VERSION;
    m->entry = 0;
    if (!hlsnap__rt_list(m, hlsnap_rt_module))
        hlsnap_rt_abort(HLSNAP__ABORT_MAILBOX, "exports and imports do not fit the mailbox");
    sp = hlsnap__lx_stack_make(stack); /* now, since only init knows the program */
    entry = hlsnap__lx_program()->entry;
    hlsnap__lx_serve();
    hlsnap__lx_random(hlsnap__lx_stack_random(stack), 16); /* as it starts, so that clones differ */
    hlsnap__lx_go(sp, entry);
}
#endif
#endif /* HLSNAP__LX_HOST */
#endif /* HLSNAP_GUEST_LIBC || HLSNAP__LX_HOST */

#ifndef HLSNAP_GUEST
/* ---- >>memory: allocation, reference counts ---- */

/* Memory as it comes, or NULL with the error filled. */
static void *hlsnap__alloc_raw(size_t size, hlsnap_error *err) {
    void *p = HLSNAP_MALLOC(size > 0 ? size : 1);
    if (!p) hlsnap__fail(err, HLSNAP_ERR_MEMORY, 0, "out of memory: %zu bytes", size);
    return p;
}

/* The same, zeroed. */
static void *hlsnap__alloc(size_t count, size_t size, hlsnap_error *err) {
    void *p = NULL;
    if (count > SIZE_MAX / size)
        hlsnap__fail(err, HLSNAP_ERR_MEMORY, 0, "out of memory: %zu times %zu bytes", count, size);
    else
        p = hlsnap__alloc_raw(count * size, err);
    if (p) memset(p, 0, count * size);
    return p;
}

static void hlsnap__free(void *p) {
    if (p) HLSNAP_FREE(p);
}

typedef struct hlsnap__buffer {
    uint8_t *data;
    size_t size, cap;
    size_t most; /* bytes it held since the last restore */
} hlsnap__buffer;

#define HLSNAP__BUFFER_EXACT (1u << 20) /* beyond that nothing is allocated in advance */

static hlsnap_result hlsnap__buffer_room(hlsnap__buffer *b, size_t more, hlsnap_error *err) {
    const size_t need = b->size + more, cap = need < 4096 ? 4096 : need > HLSNAP__BUFFER_EXACT ? need : need + need / 2;
    uint8_t *bigger;
    if (need <= b->cap) return HLSNAP_OK;
    bigger = (uint8_t *)hlsnap__alloc(1, cap, err);
    if (!bigger) return HLSNAP_ERR_MEMORY;
    if (b->size) memcpy(bigger, b->data, b->size);
    if (b->most) memset(b->data, 0, b->most);
    hlsnap__free(b->data);
    b->data = bigger;
    b->cap = cap;
    return HLSNAP_OK;
}

#define HLSNAP__BUFFER_KEPT 65536u

/* At a restore: nothing that the last tenant sent stays, nor memory that only one before that needed. */
static void hlsnap__buffer_clear(hlsnap__buffer *b) {
    if (b->most) memset(b->data, 0, b->most);
    if (b->cap > HLSNAP__BUFFER_KEPT && b->most < b->cap / 4) {
        hlsnap__free(b->data);
        b->data = NULL;
        b->cap = 0;
    }
    b->size = b->most = 0;
}

/* For a result that has no room in the mailbox, on whichever side. The host's is kept: to touch new memory costs more than to
   copy. */
static void *hlsnap__call_alloc(const hlsnap_call *call, size_t size) {
    hlsnap__buffer *b = (hlsnap__buffer *)call->large;
    if (hlsnap__rt_in_guest) return hlsnap_rt_malloc(size);
    if (hlsnap__buffer_room(b, size, NULL)) return NULL;
    if (size > b->most) b->most = size;
    return b->data;
}
static void hlsnap__call_free(void *p) {
    if (hlsnap__rt_in_guest) hlsnap_rt_free(p);
}

static void hlsnap__retain(int32_t *refs) { __atomic_add_fetch(refs, 1, __ATOMIC_RELAXED); }
/* true when that was the last one */
static bool hlsnap__release(int32_t *refs) { return __atomic_sub_fetch(refs, 1, __ATOMIC_ACQ_REL) == 0; }

/* What a call's time is limited by; times of it are absolute, 0 = no limit. */
typedef enum hlsnap__clock {
    HLSNAP__WALL, /* CLOCK_MONOTONIC */
    HLSNAP__CPU,  /* CLOCK_THREAD_CPUTIME_ID */
    HLSNAP__CLOCKS
} hlsnap__clock;

static const clockid_t hlsnap__clock_ids[HLSNAP__CLOCKS] = {CLOCK_MONOTONIC, CLOCK_THREAD_CPUTIME_ID};

/* UINT64_MAX and errno: it cannot be read, which a seccomp profile brings about. Then every limit is over. */
static uint64_t hlsnap__clock_read(clockid_t id) {
    struct timespec t;
    if (clock_gettime(id, &t)) return UINT64_MAX;
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
static uint64_t hlsnap__clock_ns(hlsnap__clock clock) { return hlsnap__clock_read(hlsnap__clock_ids[clock]); }
static uint64_t hlsnap__now_ns(void) { return hlsnap__clock_ns(HLSNAP__WALL); }

/* The clock whose deadline has come; HLSNAP__CLOCKS: none's has. */
static hlsnap__clock hlsnap__overdue(const uint64_t deadlines[HLSNAP__CLOCKS]) {
    uint32_t i;
    for (i = 0; i < HLSNAP__CLOCKS; i++)
        if (deadlines[i] && hlsnap__clock_ns((hlsnap__clock)i) >= deadlines[i]) break;
    return (hlsnap__clock)i;
}

/* errno in words, of all that the system calls here return; strerror is not for a library: it may share a buffer with other
   threads. */
static const char *hlsnap__errno_text(int number) {
    static const struct {
        int number;
        const char *text;
    } rows[] = {{ENOENT, "no such file or directory"},
                {EACCES, "permission denied"},
                {EPERM, "not permitted"},
                {ENOTDIR, "not a directory"},
                {EISDIR, "a directory"},
                {ELOOP, "a symbolic link, or too many"},
                {ENAMETOOLONG, "the name is too long"},
                {EEXIST, "there is one already"},
                {ENOTEMPTY, "the directory is not empty"},
                {EXDEV, "on another file system"},
                {EMLINK, "too many names for one file"},
                {EROFS, "the file system is read-only"},
                {ENOSPC, "no space left"},
                {EDQUOT, "the disk quota is used up"},
                {EFBIG, "too large for a file"},
                {EOVERFLOW, "too large for its type"},
                {E2BIG, "too large an argument"},
                {EMFILE, "too many files are open in this process (RLIMIT_NOFILE)"},
                {ENFILE, "too many files are open in the system (fs.file-max)"},
                {ENOMEM, "out of memory"},
                {ENOBUFS, "no room in a buffer"},
                {EAGAIN, "not now: somebody else holds it, or a limit is reached"},
                {EBUSY, "in use"},
                {ETXTBSY, "the file is being run or written"},
                {ENOLCK, "no more locks"},
                {EDEADLK, "two wait for each other"},
                {EINTR, "interrupted by a signal"},
                {ETIMEDOUT, "no answer in time"},
                {EIO, "input/output error"},
                {ESTALE, "the file is gone from its server"},
                {ENODEV, "no such device, or it cannot do that"},
                {ENXIO, "no such device or address"},
                {ENOTTY, "it knows no such request"},
                {ENOSYS, "the kernel has no such call"},
                {EOPNOTSUPP, "not supported"},
                {EINVAL, "not accepted"},
                {EBADF, "not an open file"},
                {EFAULT, "memory that is not there"},
                {ESPIPE, "not a file with positions"},
                {ESRCH, "no such process or thread"}};
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(rows); i++)
        if (rows[i].number == number) return rows[i].text;
    return "failed";
}

HLSNAP_API bool hlsnap_result_transient(const hlsnap_error *err) {
    static const int passing[] = {EMFILE, ENFILE,  EAGAIN,  ENOMEM, ENOBUFS,  ENOLCK,
                                  EBUSY,  ETXTBSY, EDEADLK, EINTR,  ETIMEDOUT};
    size_t i;
    if (!err) return false;
    if (err->code == HLSNAP_ERR_MEMORY || err->code == HLSNAP_ERR_BUSY) return true;
    if (err->code != HLSNAP_ERR_OS && err->code != HLSNAP_ERR_HYPERVISOR && err->code != HLSNAP_ERR_FILE) return false;
    for (i = 0; i < HLSNAP_COUNT(passing); i++)
        if (err->os_errno == passing[i]) return true;
    return false;
}

/* A failed mmap of so many bytes, errno as it was. Without memory that is HLSNAP_ERR_MEMORY, and limits that can be the
   reason are named; all else is the system's. */
static hlsnap_result hlsnap__fail_map(hlsnap_error *err, uint64_t bytes, const char *what) {
    const int number = errno;
    const char *limits = number == ENOMEM   ? "; RLIMIT_AS, vm.max_map_count and vm.overcommit_memory limit it"
                         : number == EAGAIN ? "; RLIMIT_MEMLOCK limits it, after mlockall"
                                            : "";
    return hlsnap__fail(err, number == ENOMEM ? HLSNAP_ERR_MEMORY : HLSNAP_ERR_OS, number,
                        "mapping %llu bytes for %s: %s (errno %d)%s", (unsigned long long)bytes, what,
                        hlsnap__errno_text(number), number, limits);
}

/* The character at s, which has n > 0 bytes, by the table of the Unicode standard that has no overlong form and no surrogate; its
   bytes, or 0. */
static size_t hlsnap__utf8_get(const unsigned char *s, size_t n, uint32_t *code) {
    const size_t len = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
    size_t i;
    if (!len || len > n) return 0;
    *code = len == 1 ? s[0] : s[0] & (0x7fu >> len);
    for (i = 1; i < len; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
        *code = *code << 6 | (s[i] & 0x3fu);
    }
    if ((len == 3 && *code < 0x800) || (len == 4 && (*code < 0x10000 || *code > 0x10ffff)) ||
        (*code >= 0xd800 && *code < 0xe000))
        return 0;
    return len;
}

/* What no line shows as it is: controls, line and paragraph separators, format characters (which show as nothing, or turn the
   direction of writing), blocks that are set aside for more of them, and what is no character. */
static bool hlsnap__hidden(uint32_t c) {
    static const uint32_t rows[][2] = {{0x00, 0x1f},       {0x7f, 0x9f},       {0xad, 0xad},       {0x600, 0x605},
                                       {0x61c, 0x61c},     {0x6dd, 0x6dd},     {0x70f, 0x70f},     {0x890, 0x891},
                                       {0x8e2, 0x8e2},     {0x180e, 0x180e},   {0x200b, 0x200f},   {0x2028, 0x202e},
                                       {0x2060, 0x206f},   {0xfdd0, 0xfdef},   {0xfeff, 0xfeff},   {0xfff0, 0xfffb},
                                       {0x110bd, 0x110bd}, {0x110cd, 0x110cd}, {0x13430, 0x1343f}, {0x1bca0, 0x1bca3},
                                       {0x1d173, 0x1d17a}, {0xe0000, 0xe0fff}};
    size_t i;
    if (c >= 0x20 && c < 0x7f) return false;
    for (i = 0; i < sizeof(rows) / sizeof(rows[0]) && c >= rows[i][0]; i++)
        if (c <= rows[i][1]) return true;
    return (c & 0xfffe) == 0xfffe;
}

/* Text of a stranger, made fit for one line of a message, a log or a terminal: what is not for show becomes \xNN, byte by byte.
   `wide`: characters beyond ASCII pass. A tab passes where wanted. Returns the length, < cap. */
static size_t hlsnap__shown(char *to, size_t cap, const void *text, size_t size, bool tabs, bool wide) {
    static const char hex[] = "0123456789abcdef";
    const unsigned char *s = (const unsigned char *)text;
    size_t i, k, len, n = 0;
    for (i = 0; i < size; i += len) {
        uint32_t code = 0;
        bool plain;
        len = hlsnap__utf8_get(s + i, size - i, &code);
        plain = len && ((!hlsnap__hidden(code) && code != '\\' && (wide || len == 1)) || (tabs && code == '\t'));
        if (!len || (!wide && !plain)) len = 1;
        if (n + (plain ? len : 4 * len) >= cap) break;
        for (k = 0; k < len; k++) {
            if (plain) {
                to[n++] = (char)s[i + k];
                continue;
            }
            to[n++] = '\\';
            to[n++] = 'x';
            to[n++] = hex[s[i + k] >> 4];
            to[n++] = hex[s[i + k] & 15];
        }
    }
    to[n] = 0;
    return n;
}

/* ASCII alone: names and paths, where characters that look alike would mislead. */
static size_t hlsnap__printable(char *to, size_t cap, const void *text, size_t size, bool tabs) {
    return hlsnap__shown(to, cap, text, size, tabs, false);
}

/* All of UTF-8: what a guest says to people. */
static size_t hlsnap__readable(char *to, size_t cap, const void *text, size_t size, bool tabs) {
    return hlsnap__shown(to, cap, text, size, tabs, true);
}

/* ---- >>contract: names and signatures of exports and imports ---- */

static bool hlsnap__name_ok(const char *name, size_t size) {
    size_t i;
    if (size < 1 || size > HLSNAP_MAX_NAME) return false;
    for (i = 0; i < size; i++) {
        char c = name[i];
        bool letter = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
        bool other = (c >= '0' && c <= '9') || c == '.' || c == ':' || c == '$' || c == '-';
        if (!letter && !(i && other)) return false;
    }
    return true;
}

static void hlsnap__contract_free(hlsnap__contract *c) {
    hlsnap__free(c->exports);
    hlsnap__free(c->imports);
}

/* Fills one row from text that a stranger may have written. */
static hlsnap_result hlsnap__decl_parse(hlsnap__decl *d, const char *name, size_t name_size, const char *text,
                                        size_t text_size, hlsnap_error *err) {
    char shown[80];
    if (!hlsnap__name_ok(name, name_size)) {
        hlsnap__printable(shown, sizeof(shown), name, name_size, false);
        return hlsnap__fail(err, HLSNAP_ERR_ARG, 0,
                            "function name '%s' (%zu bytes) is not [A-Za-z_][A-Za-z0-9_.:$-]{0,62}", shown, name_size);
    }
    if (!hlsnap__signature_parse(&d->signature, text, text_size)) {
        hlsnap__printable(shown, sizeof(shown), text, text_size, false);
        return hlsnap__fail(err, HLSNAP_ERR_SIGNATURE, 0, "signature '%s' of '%.*s' is not like i32(i32,str)", shown,
                            (int)name_size, name);
    }
    memcpy(d->name, name, name_size);
    d->name[name_size] = 0;
    hlsnap__signature_format(&d->signature, d->text, sizeof(d->text));
    return HLSNAP_OK;
}

/* The row of that name, or num. */
static uint32_t hlsnap__decl_find(const hlsnap__decl *rows, uint32_t num, const char *name) {
    uint32_t i;
    for (i = 0; i < num; i++)
        if (strcmp(rows[i].name, name) == 0) break;
    return i;
}

static bool hlsnap__signature_equal(const hlsnap__signature *a, const hlsnap__signature *b) {
    return a->result == b->result && a->num_args == b->num_args && memcmp(a->args, b->args, a->num_args) == 0;
}

/* No name twice among num rows; the rows may come from a file. */
static hlsnap_result hlsnap__decls_unique(const hlsnap__decl *rows, uint32_t num, hlsnap_error *err) {
    uint32_t i;
    for (i = 1; i < num; i++)
        if (hlsnap__decl_find(rows, i, rows[i].name) < i)
            return hlsnap__fail(err, HLSNAP_ERR_DUPLICATE, 0, "function '%s' is listed twice", rows[i].name);
    return HLSNAP_OK;
}

/* ---- >>cpu: the features a snapshot may have come to rely on ---- */

/* X(name, CPUID leaf, register 0..3 = a b c d, bit, XCR0 bits that must be on) */
// clang-format off
#define HLSNAP__CPU_FEATURES(X) \
    X(sse3, 1, 2, 0, 0) X(pclmul, 1, 2, 1, 0) X(ssse3, 1, 2, 9, 0) X(fma, 1, 2, 12, 6) X(cx16, 1, 2, 13, 0) \
    X(sse4_1, 1, 2, 19, 0) X(sse4_2, 1, 2, 20, 0) X(movbe, 1, 2, 22, 0) X(popcnt, 1, 2, 23, 0) X(aes, 1, 2, 25, 0) \
    X(avx, 1, 2, 28, 6) X(f16c, 1, 2, 29, 6) X(rdrand, 1, 2, 30, 0) X(bmi1, 7, 1, 3, 0) X(avx2, 7, 1, 5, 6) \
    X(bmi2, 7, 1, 8, 0) X(erms, 7, 1, 9, 0) X(avx512f, 7, 1, 16, 0xe6) X(avx512dq, 7, 1, 17, 0xe6) \
    X(rdseed, 7, 1, 18, 0) X(adx, 7, 1, 19, 0) X(avx512ifma, 7, 1, 21, 0xe6) X(clflushopt, 7, 1, 23, 0) \
    X(clwb, 7, 1, 24, 0) X(avx512cd, 7, 1, 28, 0xe6) X(sha_ni, 7, 1, 29, 0) X(avx512bw, 7, 1, 30, 0xe6) \
    X(avx512vl, 7, 1, 31, 0xe6) X(avx512vbmi, 7, 2, 1, 0xe6) X(avx512vbmi2, 7, 2, 6, 0xe6) X(gfni, 7, 2, 8, 0) \
    X(vaes, 7, 2, 9, 6) X(vpclmulqdq, 7, 2, 10, 6) X(avx512vnni, 7, 2, 11, 0xe6) X(avx512bitalg, 7, 2, 12, 0xe6) \
    X(avx512vpopcntdq, 7, 2, 14, 0xe6) X(rdpid, 7, 2, 22, 0) X(movdiri, 7, 2, 27, 0) X(fsrm, 7, 3, 4, 0) \
    X(lzcnt, 0x80000001u, 2, 5, 0)
// clang-format on

typedef enum hlsnap__cpu_bit {
#define HLSNAP__CPU(name, leaf, reg, bit, xcr0) HLSNAP__CPU_##name,
    HLSNAP__CPU_FEATURES(HLSNAP__CPU)
#undef HLSNAP__CPU
        HLSNAP__NUM_CPU_FEATURES
} hlsnap__cpu_bit;

static const char *const hlsnap__cpu_feature_names[] = {
#define HLSNAP__CPU(name, leaf, reg, bit, xcr0) #name,
    HLSNAP__CPU_FEATURES(HLSNAP__CPU)
#undef HLSNAP__CPU
};
HLSNAP__STATIC_ASSERT(cpu_bits, HLSNAP__NUM_CPU_FEATURES <= 63);

/* The micro-architecture levels of the x86-64 psABI, by name; bits of the features that a level has, all lower ones' included.
   LAHF, OSXSAVE and what every x86-64 CPU has are no rows of the table. */
static const char *const hlsnap__cpu_level_names[] = {"host", "v1", "v2", "v3", "v4"};

#define HLSNAP__HAS(name) (1ull << HLSNAP__CPU_##name)
static uint64_t hlsnap__cpu_level_features(uint32_t level) {
    uint64_t bits = 0;
    if (level >= HLSNAP_CPU_V2)
        bits |= HLSNAP__HAS(sse3) | HLSNAP__HAS(ssse3) | HLSNAP__HAS(cx16) | HLSNAP__HAS(sse4_1) | HLSNAP__HAS(sse4_2) |
                HLSNAP__HAS(popcnt);
    if (level >= HLSNAP_CPU_V3)
        bits |= HLSNAP__HAS(avx) | HLSNAP__HAS(avx2) | HLSNAP__HAS(bmi1) | HLSNAP__HAS(bmi2) | HLSNAP__HAS(f16c) |
                HLSNAP__HAS(fma) | HLSNAP__HAS(lzcnt) | HLSNAP__HAS(movbe);
    if (level >= HLSNAP_CPU_V4)
        bits |= HLSNAP__HAS(avx512f) | HLSNAP__HAS(avx512bw) | HLSNAP__HAS(avx512cd) | HLSNAP__HAS(avx512dq) |
                HLSNAP__HAS(avx512vl);
    return bits;
}
#undef HLSNAP__HAS

/* The lowest level with all of these features; HLSNAP_CPU_HOST: none has them. */
static uint32_t hlsnap__cpu_level_for(uint64_t features) {
    uint32_t level = HLSNAP_CPU_V1;
    while (level <= HLSNAP_CPU_V4 && features & ~hlsnap__cpu_level_features(level)) level++;
    return level <= HLSNAP_CPU_V4 ? level : (uint32_t)HLSNAP_CPU_HOST;
}

/* The highest level whose features are all among these. */
static uint32_t hlsnap__cpu_level_in(uint64_t features) {
    uint32_t level = HLSNAP_CPU_V4;
    while (level > HLSNAP_CPU_V1 && hlsnap__cpu_level_features(level) & ~features) level--;
    return level;
}

#if defined(__x86_64__)
static const struct hlsnap__cpu_row {
    uint32_t leaf, reg, bit, xcr0;
} hlsnap__cpu_rows[] = {
#define HLSNAP__CPU(name, leaf, reg, bit, xcr0) {leaf, reg, bit, xcr0},
    HLSNAP__CPU_FEATURES(HLSNAP__CPU)
#undef HLSNAP__CPU
};

static void hlsnap__cpuid(uint32_t leaf, uint32_t subleaf, uint32_t r[4]) {
    __asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "0"(leaf), "2"(subleaf));
}

static uint64_t hlsnap__xgetbv0(void) {
    uint32_t a, d;
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return a | (uint64_t)d << 32;
}
#endif

/* What CPUID, or nothing, says who made the CPU; published with hlsnap__cpu_published. */
static uint32_t hlsnap__cpu_vendor_words[3];

static uint64_t hlsnap__cpu_read(void) {
    uint64_t found = 0;
#if defined(__x86_64__)
    const struct hlsnap__cpu_row *rows = hlsnap__cpu_rows;
    uint32_t r[4], leaf = 0xffffffffu, max, max_ext, i;
    uint64_t xcr0;
    hlsnap__cpuid(0x80000000u, 0, r);
    max_ext = r[0];
    hlsnap__cpuid(0, 0, r);
    max = r[0];
    __atomic_store_n(&hlsnap__cpu_vendor_words[0], r[1], __ATOMIC_RELAXED);
    __atomic_store_n(&hlsnap__cpu_vendor_words[1], r[3], __ATOMIC_RELAXED);
    __atomic_store_n(&hlsnap__cpu_vendor_words[2], r[2], __ATOMIC_RELAXED);
    hlsnap__cpuid(1, 0, r);
    xcr0 = r[2] >> 27 & 1 ? hlsnap__xgetbv0() : 0;
    for (i = 0; i < HLSNAP__NUM_CPU_FEATURES; i++) {
        if (rows[i].leaf > (rows[i].leaf >> 31 ? max_ext : max)) continue;
        if (rows[i].leaf != leaf) hlsnap__cpuid(leaf = rows[i].leaf, 0, r);
        if (r[rows[i].reg] >> rows[i].bit & 1 && (xcr0 & rows[i].xcr0) == rows[i].xcr0) found |= 1ull << i;
    }
#endif
    return found;
}

/* Bits of hlsnap__cpu_bit that this machine has and its kernel enables. Read once per process: each CPUID is an exit where
   this process itself runs in a VM. */
static uint64_t hlsnap__cpu_published; /* bit 63: valid */

static uint64_t hlsnap__cpu_features(void) {
    uint64_t bits = __atomic_load_n(&hlsnap__cpu_published, __ATOMIC_ACQUIRE);
    if (!bits) {
        bits = hlsnap__cpu_read() | 1ull << 63;
        __atomic_store_n(&hlsnap__cpu_published, bits, __ATOMIC_RELEASE);
    }
    return bits & ~(1ull << 63);
}

/* Names that go into annotations of a manifest, which tools print: plain ASCII without what JSON or HTML would escape. */
static bool hlsnap__machine_name_ok(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c && (strchr)(" !+-._", c));
}

static void hlsnap__machine_name(char *to, size_t cap, const char *from, size_t size) {
    size_t i;
    for (i = 0; i < size && i < cap - 1 && from[i]; i++) to[i] = hlsnap__machine_name_ok(from[i]) ? from[i] : '_';
    to[i] = 0;
}

/* Notes the machine that a guest is initialized on. */
static void hlsnap__guest_machine(hlsnap__guest *g, const char *hypervisor) {
    uint32_t words[3], i;
    char vendor[12];
    g->features = g->cpu ? hlsnap__cpu_level_features(g->cpu) : hlsnap__cpu_features();
    for (i = 0; i < 3; i++) words[i] = __atomic_load_n(&hlsnap__cpu_vendor_words[i], __ATOMIC_RELAXED);
    memcpy(vendor, words, sizeof(vendor));
    hlsnap__machine_name(g->cpu_vendor, sizeof(g->cpu_vendor), vendor, sizeof(vendor));
    hlsnap__machine_name(g->hypervisor, sizeof(g->hypervisor), hypervisor, strlen(hypervisor));
}

/* A snapshot's features hold one more bit: it needs features that this build has no names for. */
#define HLSNAP__CPU_UNKNOWN (1ull << 63)

static const char *hlsnap__cpu_feature_name(uint32_t bit) {
    return bit < HLSNAP__NUM_CPU_FEATURES ? hlsnap__cpu_feature_names[bit] : "unknown";
}

/* Writes the names of the bits, separated by blanks. */
static void hlsnap__cpu_names(uint64_t bits, char *to, size_t cap) {
    size_t n = 0;
    uint32_t i;
    to[0] = 0;
    for (i = 0; i < 64; i++)
        if (bits >> i & 1 && n + 20 < cap)
            n += (size_t)hlsnap__format(to + n, cap - n, n ? " %s" : "%s", hlsnap__cpu_feature_name(i));
}

/* What this machine lacks is said of a snapshot; and how to make one that it starts. */
static hlsnap_result hlsnap__cpu_refuse(uint32_t level, uint64_t missing, hlsnap_error *err) {
    const char *fits = hlsnap__cpu_level_names[hlsnap__cpu_level_in(hlsnap__cpu_features())];
    char names[300], of[64];
    hlsnap__cpu_names(missing, names, sizeof(names));
    of[0] = 0;
    if (level) hlsnap__format(of, sizeof(of), " at CPU level %s", hlsnap__cpu_level_names[level]);
    return hlsnap__fail(
        err, HLSNAP_ERR_CPU, 0,
        "this CPU lacks what the snapshot was taken with%s: %s; one made with guest_desc.cpu of %s would start here",
        of, names, fits);
}

/* ---- >>layout: regions in the guest's window ---- */

static const char *const hlsnap__kind_names[HLSNAP__NUM_KINDS] = {"text", "rodata", "data",    "tls",
                                                                  "heap", "stack",  "mailbox", "identity"};

static bool hlsnap__kind_writable(uint32_t kind) {
    return kind != HLSNAP__TEXT && kind != HLSNAP__RODATA && kind != HLSNAP__IDENTITY;
}

/* Stored in snapshots; the mailbox is wiped and the identity page rewritten at every start instead. */
static bool hlsnap__kind_stored(uint32_t kind) { return kind != HLSNAP__MAILBOX && kind != HLSNAP__IDENTITY; }

/* First region of that kind, or NULL. */
static const hlsnap__region *hlsnap__layout_find(const hlsnap__layout *l, uint32_t kind) {
    uint32_t i;
    for (i = 0; i < l->num_regions; i++)
        if (l->regions[i].kind == kind) return &l->regions[i];
    return NULL;
}

/* The region that gva lies in, or NULL. */
static const hlsnap__region *hlsnap__layout_at(const hlsnap__layout *l, uint64_t gva) {
    uint32_t i;
    for (i = 0; i < l->num_regions; i++)
        if (gva >= l->regions[i].gva && gva - l->regions[i].gva < l->regions[i].pages * HLSNAP__PAGE)
            return &l->regions[i];
    return NULL;
}

/* Whether all of [gva, gva + n) lies in regions; to write, in those that can be written. */
static hlsnap_result hlsnap__layout_holds(const hlsnap__layout *l, uint64_t gva, size_t n, bool write,
                                          hlsnap_error *err) {
    uint64_t left = n, from = gva;
    while (left) {
        const hlsnap__region *region = hlsnap__layout_at(l, from);
        uint64_t room;
        if (!region || (write && region->kind == HLSNAP__IDENTITY))
            return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "%s of %zu bytes at 0x%llx: 0x%llx is %s",
                                write ? "write" : "read", n, (unsigned long long)gva, (unsigned long long)from,
                                region ? "the identity page" : "not mapped");
        room = region->gva + region->pages * HLSNAP__PAGE - from;
        from += left < room ? left : room;
        left -= left < room ? left : room;
    }
    return HLSNAP_OK;
}

static uint32_t hlsnap__layout_count(const hlsnap__layout *l, uint32_t kind) {
    uint32_t i, n = 0;
    for (i = 0; i < l->num_regions; i++) n += l->regions[i].kind == kind;
    return n;
}

/* First page number of a region in the window. */
static uint64_t hlsnap__region_page(const hlsnap__layout *l, const hlsnap__region *r) {
    return (r->gva - l->base) / HLSNAP__PAGE;
}

#define HLSNAP__LOWEST_GVA 0x200000ull /* below it: null, unresolved functions, the supervisor area */
#define HLSNAP__HIGHEST_GVA 0x7f0000000000ull

/* Maps lie above all windows. They have page numbers, too, behind the window's and far enough from them, so that a number is
   all that extents and the bookkeeping of pages need; guest-physical addresses follow the number. */
#define HLSNAP__MAPS_GVA HLSNAP__HIGHEST_GVA
#define HLSNAP__MAPS_SIZE (64ull << 30)
#define HLSNAP__MAPS_STEP (2ull << 20) /* where one may begin: two never touch */

static uint64_t hlsnap__maps_page(const hlsnap__layout *l) { return (l->pages + 1023) / 512 * 512; }

static uint64_t hlsnap__gva_page(const hlsnap__layout *l, uint64_t gva) {
    return gva < HLSNAP__MAPS_GVA ? (gva - l->base) / HLSNAP__PAGE
                                  : hlsnap__maps_page(l) + (gva - HLSNAP__MAPS_GVA) / HLSNAP__PAGE;
}

static uint64_t hlsnap__page_gva(const hlsnap__layout *l, uint64_t page) {
    return page < hlsnap__maps_page(l) ? l->base + page * HLSNAP__PAGE
                                       : HLSNAP__MAPS_GVA + (page - hlsnap__maps_page(l)) * HLSNAP__PAGE;
}

/* Everything a layout must satisfy, whether built from an ELF or read from a file; code is what a violation returns. */
static hlsnap_result hlsnap__layout_check(const hlsnap__layout *l, hlsnap_result code, hlsnap_error *err) {
    static const uint32_t once[] = {HLSNAP__TLS, HLSNAP__HEAP, HLSNAP__STACK, HLSNAP__MAILBOX, HLSNAP__IDENTITY};
    const hlsnap__region *identity, *stack;
    uint64_t end = l->base;
    uint32_t i;
    if (l->base & 0x1fffff || l->base < HLSNAP__LOWEST_GVA || l->base >= HLSNAP__HIGHEST_GVA || !l->pages ||
        l->pages > HLSNAP__MAX_PAGES || l->pages > (HLSNAP__HIGHEST_GVA - l->base) / HLSNAP__PAGE)
        return hlsnap__fail(err, code, 0, "window of 0x%llx pages at 0x%llx is out of range",
                            (unsigned long long)l->pages, (unsigned long long)l->base);
    if (!l->num_regions || l->num_regions > HLSNAP__MAX_REGIONS)
        return hlsnap__fail(err, code, 0, "%u regions, not 1 to %d", l->num_regions, HLSNAP__MAX_REGIONS);
    for (i = 0; i < l->num_regions; i++) {
        const hlsnap__region *r = &l->regions[i];
        if (r->kind >= HLSNAP__NUM_KINDS || r->gva % HLSNAP__PAGE || r->gva < end || !r->pages ||
            r->gva - l->base >= l->pages * HLSNAP__PAGE || r->pages > l->pages - hlsnap__region_page(l, r))
            return hlsnap__fail(err, code, 0,
                                "region %u (kind %u, 0x%llx pages at 0x%llx) is outside the window or its place", i,
                                r->kind, (unsigned long long)r->pages, (unsigned long long)r->gva);
        end = r->gva + r->pages * HLSNAP__PAGE;
    }
    for (i = 0; i < sizeof(once) / sizeof(once[0]); i++)
        if (hlsnap__layout_count(l, once[i]) != 1)
            return hlsnap__fail(err, code, 0, "%u regions of kind %s, not 1", hlsnap__layout_count(l, once[i]),
                                hlsnap__kind_names[once[i]]);
    if (!hlsnap__layout_find(l, HLSNAP__TEXT)) return hlsnap__fail(err, code, 0, "no text region");
    identity = hlsnap__layout_find(l, HLSNAP__IDENTITY);
    stack = hlsnap__layout_find(l, HLSNAP__STACK);
    if (identity->pages != 1 || hlsnap__layout_find(l, HLSNAP__MAILBOX)->pages < 2 ||
        hlsnap__layout_find(l, HLSNAP__MAILBOX)->pages > 65536)
        return hlsnap__fail(err, code, 0, "identity region of 0x%llx pages or mailbox of 0x%llx pages",
                            (unsigned long long)identity->pages,
                            (unsigned long long)hlsnap__layout_find(l, HLSNAP__MAILBOX)->pages);
    if (hlsnap__layout_at(l, stack->gva - 1))
        return hlsnap__fail(err, code, 0, "no guard page below the stack at 0x%llx", (unsigned long long)stack->gva);
    return HLSNAP_OK;
}

/* ---- >>guest: what no call changes ---- */

static void hlsnap__guest_release(hlsnap__guest *g) {
    if (!g || !hlsnap__release(&g->refs)) return;
    hlsnap__contract_free(&g->contract);
    hlsnap__free(g->unresolved);
    hlsnap__free(g);
}

static hlsnap__guest *hlsnap__guest_alloc(hlsnap_error *err) {
    hlsnap__guest *g = (hlsnap__guest *)hlsnap__alloc(1, sizeof(*g), err);
    if (g) g->refs = 1;
    return g;
}

static uint64_t hlsnap__mix(uint64_t h, const void *data, size_t size) { /* FNV-1a, 64 bit */
    const unsigned char *p = (const unsigned char *)data;
    size_t i;
    for (i = 0; i < size; i++) h = (h ^ p[i]) * 0x100000001b3ull;
    return h;
}

/* Handles must not mix up guests by accident; a hostile clash gains nothing, since each call is checked by signature. */
static uint64_t hlsnap__guest_id(const hlsnap__guest *g) {
    uint64_t h = 0xcbf29ce484222325ull;
    uint32_t i;
    h = hlsnap__mix(h, g->build_id, strlen(g->build_id));
    h = hlsnap__mix(h, &g->layout.base, sizeof(g->layout.base));
    h = hlsnap__mix(h, &g->entry, sizeof(g->entry));
    h = hlsnap__mix(h, &g->module, sizeof(g->module));
    h = hlsnap__mix(h, &g->syscall, sizeof(g->syscall));
    for (i = 0; i < g->contract.num_exports; i++) {
        h = hlsnap__mix(h, g->contract.exports[i].name, strlen(g->contract.exports[i].name) + 1);
        h = hlsnap__mix(h, g->contract.exports[i].text, strlen(g->contract.exports[i].text) + 1);
    }
    h ^= h >> 29;
    return (h | 1) << 16;
}

/* What holds of every guest beyond its layout; a guest from a file passes here before anything uses it. */
static hlsnap_result hlsnap__guest_check(const hlsnap__guest *g, hlsnap_result code, hlsnap_error *err) {
    const hlsnap__region *at, *tls, *identity;
    hlsnap_result r = hlsnap__layout_check(&g->layout, code, err);
    if (r) return r;
    at = hlsnap__layout_at(&g->layout, g->entry);
    if (!at || at->kind != HLSNAP__TEXT)
        return hlsnap__fail(err, code, 0, "entry 0x%llx is not in a text region", (unsigned long long)g->entry);
    at = g->syscall ? hlsnap__layout_at(&g->layout, g->syscall) : at;
    if (!at || at->kind != HLSNAP__TEXT)
        return hlsnap__fail(err, code, 0, "syscall 0x%llx is not in a text region", (unsigned long long)g->syscall);
    if (g->module) {
        at = hlsnap__layout_at(&g->layout, g->module);
        if (!at || at->kind == HLSNAP__MAILBOX || at->kind == HLSNAP__IDENTITY)
            return hlsnap__fail(err, code, 0, "module 0x%llx is in no image region", (unsigned long long)g->module);
    }
    tls = hlsnap__layout_find(&g->layout, HLSNAP__TLS);
    identity = hlsnap__layout_find(&g->layout, HLSNAP__IDENTITY);
    if (tls->gva + tls->pages * HLSNAP__PAGE != identity->gva ||
        g->tls_size > tls->pages * HLSNAP__PAGE - HLSNAP_ABI_RUNTIME_MIN)
        return hlsnap__fail(err, code, 0, "tls region of 0x%llx pages for 0x%llx bytes, or not below the identity page",
                            (unsigned long long)tls->pages, (unsigned long long)g->tls_size);
    if (g->contract.num_exports > HLSNAP_MAX_FUNCTIONS || g->contract.num_imports > HLSNAP_MAX_FUNCTIONS)
        return hlsnap__fail(err, HLSNAP_ERR_LIMIT, 0, "%u exports and %u imports, at most %d of each",
                            g->contract.num_exports, g->contract.num_imports, HLSNAP_MAX_FUNCTIONS);
    r = hlsnap__decls_unique(g->contract.exports, g->contract.num_exports, err);
    return r ? r : hlsnap__decls_unique(g->contract.imports, g->contract.num_imports, err);
}

/* ---- >>map-contract: what snapshots say of their maps ---- */

static const char *const hlsnap__map_modes[] = {"read", "private", "shared"};

static const hlsnap__map *hlsnap__map_find(const hlsnap__map *maps, uint32_t num, const char *name) {
    uint32_t i;
    for (i = 0; i < num; i++)
        if (strcmp(maps[i].name, name) == 0) return &maps[i];
    return NULL;
}

/* Pages of it can be part of a snapshot, and are put back. */
static bool hlsnap__map_stored(const hlsnap__map *map) { return map->mode == HLSNAP_MAP_PRIVATE || map->capture; }

/* The map that a page lies in, or NULL. */
static const hlsnap__map *hlsnap__map_at(const hlsnap__layout *l, const hlsnap__map *maps, uint32_t num,
                                         uint64_t page) {
    uint32_t i;
    for (i = 0; i < num; i++)
        if (page - hlsnap__gva_page(l, maps[i].gva) < HLSNAP__PAGES(maps[i].size)) return &maps[i];
    return NULL;
}

/* Whether a page that no extent has is zero. In a map that was not captured it is what the host gives. */
static bool hlsnap__page_sparse(const hlsnap__layout *l, const hlsnap__map *maps, uint32_t num, uint64_t page) {
    const hlsnap__map *map = page < l->pages ? NULL : hlsnap__map_at(l, maps, num, page);
    return !map || map->capture;
}

/* The region or map that a page lies in, NULL outside of them: only to be compared. */
static const void *hlsnap__page_room(const hlsnap__layout *l, const hlsnap__map *maps, uint32_t num, uint64_t page) {
    return page < l->pages ? (const void *)hlsnap__layout_at(l, l->base + page * HLSNAP__PAGE)
                           : (const void *)hlsnap__map_at(l, maps, num, page);
}

static bool hlsnap__sha256_ok(const char *text) {
    return strncmp(text, "sha256:", 7) == 0 && strspn(text + 7, "0123456789abcdef") == 64 && !text[71];
}

/* What holds of each by itself. */
static hlsnap_result hlsnap__map_check(const hlsnap__map *map, hlsnap_result code, hlsnap_error *err) {
    const uint64_t most = map->capture ? HLSNAP__MAX_MEMORY : HLSNAP__MAPS_SIZE;
    char shown[80];
    hlsnap__printable(shown, sizeof(shown), map->name, strlen(map->name), false);
    if (!hlsnap__name_ok(map->name, strlen(map->name)))
        return hlsnap__fail(err, code, 0, "map name '%s' is not [A-Za-z_][A-Za-z0-9_.:$-]{0,62}", shown);
    if (map->mode > HLSNAP_MAP_SHARED)
        return hlsnap__fail(err, code, 0, "map '%s': mode %u is none", shown, map->mode);
    if (map->capture && (map->mode == HLSNAP_MAP_SHARED || map->optional))
        return hlsnap__fail(err, code, 0, "map '%s': what is captured is neither shared nor optional", shown);
    if (map->digest[0] && !hlsnap__sha256_ok(map->digest))
        return hlsnap__fail(err, code, 0, "map '%s': the digest is not sha256:<64 hex digits>", shown);
    if (!map->size || map->size > most)
        return hlsnap__fail(err, code == HLSNAP_ERR_ARG && map->size ? HLSNAP_ERR_LIMIT : code, 0,
                            "map '%s' has %llu bytes, not 1 to %llu", shown, (unsigned long long)map->size,
                            (unsigned long long)most);
    return HLSNAP_OK;
}

/* All of a snapshot, which may be a stranger's. */
HLSNAP__UNUSED static hlsnap_result hlsnap__maps_check(const hlsnap__map *maps, uint32_t num, hlsnap_result code,
                                                       hlsnap_error *err) {
    uint64_t next = HLSNAP__MAPS_GVA;
    uint32_t i;
    for (i = 0; i < num; i++) {
        const hlsnap_result r = hlsnap__map_check(&maps[i], code, err);
        if (r) return r;
        if (hlsnap__map_find(maps, i, maps[i].name))
            return hlsnap__fail(err, code, 0, "map '%s' is listed twice", maps[i].name);
        if (maps[i].gva < next || maps[i].gva % HLSNAP__MAPS_STEP ||
            maps[i].gva - HLSNAP__MAPS_GVA > HLSNAP__MAPS_SIZE - maps[i].size)
            return hlsnap__fail(err, code, 0, "map '%s' of %llu bytes at 0x%llx is out of place", maps[i].name,
                                (unsigned long long)maps[i].size, (unsigned long long)maps[i].gva);
        next = maps[i].gva + HLSNAP__PAGES(maps[i].size + 1) * HLSNAP__PAGE; /* a page between them at least */
    }
    return HLSNAP_OK;
}

/* Whether this kernel's pages are ours; larger ones, as some of arm64 have, could not be mapped one by one. */
static hlsnap_result hlsnap__page_check(hlsnap_result code, hlsnap_error *err) {
    const long page = sysconf(_SC_PAGESIZE);
    if (page == (long)HLSNAP__PAGE) return HLSNAP_OK;
    return hlsnap__fail(err, code, 0, "this machine has pages of %ld bytes, only %u will do", page, HLSNAP__PAGE);
}

/* ---- >>file-writes: every write and every resize of a file or memfd, and nothing else ---- */

#define HLSNAP__FICLONE 0x40049409u

static int hlsnap__ioctl(int fd, unsigned long request, uintptr_t arg);

/* Whether this process may have a file of that size. Beyond RLIMIT_FSIZE the kernel's answer is a signal that ends the
   process, SIGXFSZ, for a memfd, a clone and a resize, too; so it is asked for nothing before this was. */
static hlsnap_result hlsnap__file_room(uint64_t size, const char *what, hlsnap_error *err) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || size <= limit.rlim_cur)
        return HLSNAP_OK;
    return hlsnap__fail(err, HLSNAP_ERR_OS, EFBIG, "%s of %llu bytes: %s (errno %d), RLIMIT_FSIZE is %llu", what,
                        (unsigned long long)size, hlsnap__errno_text(EFBIG), EFBIG, (unsigned long long)limit.rlim_cur);
}

/* Writes all of it at offset; short counts and EINTR are not errors. */
static hlsnap_result hlsnap__pwrite(int fd, const void *from, size_t n, uint64_t offset, hlsnap_error *err) {
    const char *p = (const char *)from;
    const hlsnap_result r = hlsnap__file_room(offset + n, "a file or memfd", err);
    while (!r && n) {
        ssize_t k = pwrite(fd, p, n, (off_t)offset);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) {
            const int number = k ? errno : ENOSPC;
            return hlsnap__fail(err, HLSNAP_ERR_OS, number, "writing %zu bytes at %llu: %s (errno %d)", n,
                                (unsigned long long)offset, hlsnap__errno_text(number), number);
        }
        p += k;
        n -= (size_t)k;
        offset += (uint64_t)k;
    }
    return r;
}

/* Makes an empty memfd that large. */
HLSNAP__UNUSED static hlsnap_result hlsnap__file_resize(int fd, uint64_t size, hlsnap_error *err) {
    const hlsnap_result r = hlsnap__file_room(size, "a memfd", err);
    if (r || ftruncate(fd, (off_t)size) == 0) return r;
    return hlsnap__fail(err, HLSNAP_ERR_OS, errno, "a memfd of %llu bytes: %s (errno %d)", (unsigned long long)size,
                        hlsnap__errno_text(errno), errno);
}

/* Asks the file system for room for the whole file. That there is none is an error; that it cannot say is not. */
HLSNAP__UNUSED static hlsnap_result hlsnap__file_reserve(int fd, uint64_t size, hlsnap_error *err) {
    const hlsnap_result r = hlsnap__file_room(size, "a file", err);
    if (r || syscall(SYS_fallocate, fd, 0, (off_t)0, (off_t)size) == 0 || errno != ENOSPC) return r;
    return hlsnap__fail(err, HLSNAP_ERR_OS, ENOSPC, "a file of %llu bytes: %s (errno %d)", (unsigned long long)size,
                        hlsnap__errno_text(ENOSPC), ENOSPC);
}

/* Gives an empty file the blocks of another one of that size; false: this file system, or this process, cannot. */
HLSNAP__UNUSED static bool hlsnap__file_clone(int fd, int from, uint64_t size) {
    return hlsnap__file_room(size, "a clone", NULL) == HLSNAP_OK &&
           hlsnap__ioctl(fd, HLSNAP__FICLONE, (uintptr_t)from) == 0;
}

/* ---- >>snapshot: layers and extents ---- */

#ifndef MFD_CLOEXEC
#define MFD_CLOEXEC 1u
#endif
#define HLSNAP__MFD_ALLOW_SEALING 2u
#define HLSNAP__MFD_NOEXEC_SEAL 8u
#define HLSNAP__F_ADD_SEALS 1033
#define HLSNAP__F_GET_SEALS 1034
#define HLSNAP__F_SEAL_SHRINK 2
#define HLSNAP__SEALS (1 | 2 | 4 | 8) /* SEAL, SHRINK, GROW, WRITE */
#define HLSNAP__SEALS_FUTURE (1 | 2 | 4 | 16) /* FUTURE_WRITE for WRITE, Linux 5.1 */

/* A memfd, or -1 with the error filled. Kernels before 6.3 do not know NOEXEC_SEAL. */
static int hlsnap__memfd(hlsnap_error *err) {
    long fd = syscall(SYS_memfd_create, "hlsnap", MFD_CLOEXEC | HLSNAP__MFD_ALLOW_SEALING | HLSNAP__MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL) fd = syscall(SYS_memfd_create, "hlsnap", MFD_CLOEXEC | HLSNAP__MFD_ALLOW_SEALING);
    if (fd < 0)
        hlsnap__fail(err, HLSNAP_ERR_OS, errno, "memfd_create: %s (errno %d)", hlsnap__errno_text(errno), errno);
    return (int)fd;
}

/* From here on nobody, not even this process, can change the bytes. For F_SEAL_WRITE the kernel wants pages that nobody holds, and
   is EBUSY where reclaim or compaction holds one at the moment, or where they are huge (always, up to Linux 5.16). What
   F_SEAL_FUTURE_WRITE leaves out is writable mappings made before, and of these there never is one: all is written by pwrite. */
static hlsnap_result hlsnap__memfd_seal(int fd, hlsnap_error *err) {
    if (fcntl(fd, HLSNAP__F_ADD_SEALS, HLSNAP__SEALS) == 0) return HLSNAP_OK;
    if (errno == EBUSY && fcntl(fd, HLSNAP__F_ADD_SEALS, HLSNAP__SEALS_FUTURE) == 0) return HLSNAP_OK;
    return hlsnap__fail(err, HLSNAP_ERR_OS, errno, "sealing a memfd: %s (errno %d)", hlsnap__errno_text(errno), errno);
}

/* Reads all of it at offset; an early end means that the file shrank. */
static hlsnap_result hlsnap__pread(int fd, void *to, size_t n, uint64_t offset, hlsnap_error *err) {
    char *p = (char *)to;
    while (n) {
        ssize_t k = pread(fd, p, n, (off_t)offset);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0)
            return hlsnap__fail(err, HLSNAP_ERR_OS, errno, "reading %zu bytes at %llu: %s (errno %d)", n,
                                (unsigned long long)offset, hlsnap__errno_text(errno), errno);
        if (k == 0)
            return hlsnap__fail(err, HLSNAP_ERR_CHANGED, 0, "a file ends at %llu, %zu bytes early",
                                (unsigned long long)offset, n);
        p += k;
        n -= (size_t)k;
        offset += (uint64_t)k;
    }
    return HLSNAP_OK;
}

static void hlsnap__watch_release(hlsnap__watch *w) {
    if (w && hlsnap__release(&w->refs)) w->destroy(w);
}

static void hlsnap__place_release(hlsnap__place *place) {
    if (place && hlsnap__release(&place->refs)) hlsnap__free(place);
}

/* Held for a few instructions, but in the child of a fork for ever, when another thread had it. Who does not get it in a
   tenth of a second, and everybody from then on until it is given back, does without: that must cost bytes at most. */
static bool hlsnap__brief_lock(int32_t *lock) {
    const struct timespec nap = {0, 1000000};
    int32_t was;
    int tries;
    for (tries = 0; tries < 200; tries++) {
        was = 0;
        if (__atomic_compare_exchange_n(lock, &was, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) return true;
        if (was == 2) return false;
        if (tries < 100)
            sched_yield();
        else
            nanosleep(&nap, NULL); /* lets a holder of lower priority run */
    }
    was = 1;
    __atomic_compare_exchange_n(lock, &was, 2, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return false;
}
static void hlsnap__brief_unlock(int32_t *lock) { __atomic_store_n(lock, 0, __ATOMIC_RELEASE); }

/* Takes over place as the newest; one in the same blob makes way for it. */
HLSNAP__UNUSED static void hlsnap__layer_place_set(hlsnap__layer *layer, hlsnap__place *place) {
    hlsnap__place *old = place;
    if (hlsnap__brief_lock(&layer->places_lock)) {
        old = layer->places[0];
        layer->places[0] = place;
        if (old && strcmp(old->memory, place->memory) != 0) {
            hlsnap__place *oldest = layer->places[1];
            layer->places[1] = old;
            old = oldest;
        }
        hlsnap__brief_unlock(&layer->places_lock);
    }
    hlsnap__place_release(old);
}

/* Place number i, retained, or NULL. */
HLSNAP__UNUSED static hlsnap__place *hlsnap__layer_place_get(hlsnap__layer *layer, uint32_t i) {
    hlsnap__place *place;
    if (!hlsnap__brief_lock(&layer->places_lock)) return NULL;
    place = layer->places[i];
    if (place) hlsnap__retain(&place->refs);
    hlsnap__brief_unlock(&layer->places_lock);
    return place;
}

static void hlsnap__layer_release(hlsnap__layer *layer) {
    uint32_t i;
    bool found;
    if (!layer || !hlsnap__release(&layer->refs)) return;
    found = layer->shelf && !layer->shelf->gone(layer->shelf);
    /* still locked by a thread that a fork left behind, they may be half changed */
    for (i = 0; !layer->places_lock && i < HLSNAP__NUM_PLACES; i++) hlsnap__place_release(layer->places[i]);
    hlsnap__watch_release(layer->watch);
    if (layer->fd < 0)
        hlsnap__free(hlsnap__unconst(layer->map));
    else if (layer->map)
        munmap(hlsnap__unconst(layer->map), (size_t)(layer->pages * HLSNAP__PAGE));
    if (layer->fd >= 0) close(layer->fd);
    if (!found) hlsnap__free(layer);
}

/* A layer of that many pages over fd, which it owns from now on, also when this fails. */
static hlsnap__layer *hlsnap__layer_create(int fd, bool sealed, uint64_t pages, hlsnap_error *err) {
    hlsnap__layer *layer = (hlsnap__layer *)hlsnap__alloc(1, sizeof(*layer), err);
    if (!layer) {
        close(fd);
        return NULL;
    }
    layer->refs = 1;
    layer->fd = fd;
    layer->sealed = sealed;
    layer->pages = pages;
    if (sealed && pages) { /* private: before Linux 6.7 MAP_SHARED of what is write-sealed is EPERM */
        void *map = mmap(NULL, (size_t)(pages * HLSNAP__PAGE), PROT_READ, MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED) {
            hlsnap__fail_map(err, pages * HLSNAP__PAGE, "a layer");
            hlsnap__layer_release(layer);
            return NULL;
        }
        layer->map = (const uint8_t *)map;
    }
    return layer;
}

/* A layer over allocated memory, which it owns from now on unless this fails. */
static hlsnap__layer *hlsnap__layer_from_memory(const uint8_t *pages, uint64_t num, hlsnap_error *err) {
    hlsnap__layer *layer = (hlsnap__layer *)hlsnap__alloc(1, sizeof(*layer), err);
    if (!layer) return NULL;
    layer->refs = 1;
    layer->fd = -1;
    layer->sealed = true;
    layer->pages = num;
    layer->map = pages;
    return layer;
}

/* Copies n pages out of a layer, never by touching memory that a stranger can truncate. */
static hlsnap_result hlsnap__layer_read(const hlsnap__layer *layer, uint64_t page, uint64_t n, void *to,
                                        hlsnap_error *err) {
    const size_t size = (size_t)(n * HLSNAP__PAGE), missing = page + n == layer->pages ? layer->missing : 0;
    HLSNAP_ASSERT(n <= layer->pages && page <= layer->pages - n);
    if (layer->map) {
        memcpy(to, layer->map + page * HLSNAP__PAGE, size);
        return HLSNAP_OK;
    }
    if (missing) memset((uint8_t *)to + size - missing, 0, missing);
    return hlsnap__pread(layer->fd, to, size - missing, page * HLSNAP__PAGE, err);
}

/* The page behind the region or map that stores a page; 0 where none does. */
static uint64_t hlsnap__stored_to(const hlsnap__layout *l, const hlsnap__map *maps, uint32_t num, uint64_t page) {
    const hlsnap__region *r = page < l->pages ? hlsnap__layout_at(l, l->base + page * HLSNAP__PAGE) : NULL;
    const hlsnap__map *map = page < l->pages ? NULL : hlsnap__map_at(l, maps, num, page);
    if (r) return hlsnap__kind_stored(r->kind) ? hlsnap__region_page(l, r) + r->pages : 0;
    return map && hlsnap__map_stored(map) ? hlsnap__gva_page(l, map->gva) + HLSNAP__PAGES(map->size) : 0;
}

/* Whether an extent shows a captured map as it was at first: pages of a layer of its size, each at its own place. */
static bool hlsnap__extent_own(const hlsnap__layout *l, const hlsnap__map *maps, uint32_t num, const hlsnap__extent *e,
                               uint64_t layer_pages) {
    const hlsnap__map *map = e->page < l->pages ? NULL : hlsnap__map_at(l, maps, num, e->page);
    return map && map->capture && HLSNAP__PAGES(map->size) == layer_pages &&
           e->page - hlsnap__gva_page(l, map->gva) == e->layer_page;
}

/* Extents ascend, do not overlap, stay inside their layer and inside regions that are stored, or maps, and those of a layer
   show no more pages than it has, but that several captured maps may have the same content: what a sandbox copies of it is bounded
   by its size, and by theirs. For extents from a file. */
HLSNAP__UNUSED static hlsnap_result hlsnap__extents_check(const hlsnap__layout *l, const hlsnap__map *maps,
                                                          uint32_t num_maps, const uint64_t *layer_pages,
                                                          uint32_t num_layers, const hlsnap__extent *e, uint32_t num,
                                                          hlsnap_result code, hlsnap_error *err) {
    uint64_t end = 0, shown[HLSNAP__MAX_LAYERS] = {0};
    uint32_t i;
    for (i = 0; i < num; i++) {
        if (!e[i].pages || e[i].page < end || e[i].layer >= num_layers || e[i].pages > layer_pages[e[i].layer] ||
            e[i].layer_page > layer_pages[e[i].layer] - e[i].pages ||
            (uint64_t)e[i].page + e[i].pages > hlsnap__stored_to(l, maps, num_maps, e[i].page))
            return hlsnap__fail(err, code, 0,
                                "extent %u (guest page %u, %u pages, layer %u, layer page %u) is out of place", i,
                                e[i].page, e[i].pages, e[i].layer, e[i].layer_page);
        end = (uint64_t)e[i].page + e[i].pages;
        if (hlsnap__extent_own(l, maps, num_maps, &e[i], layer_pages[e[i].layer])) continue;
        shown[e[i].layer] += e[i].pages;
        if (shown[e[i].layer] > layer_pages[e[i].layer])
            return hlsnap__fail(err, code, 0, "extent %u: layer %u has only %llu pages, but is shown more than once", i,
                                e[i].layer, (unsigned long long)layer_pages[e[i].layer]);
    }
    return HLSNAP_OK;
}

/* Whether all layers are what they were loaded as; as hlsnap__watch's check. */
static hlsnap_result hlsnap__snapshot_await(const hlsnap_snapshot *s, uint64_t wait_ns, bool *pending,
                                            hlsnap_error *err) {
    hlsnap__watch *last = NULL;
    hlsnap_result r = HLSNAP_OK;
    uint32_t i;
    for (i = 0; i < s->num_layers && !r; i++) {
        hlsnap__watch *w = s->layers[i]->watch;
        if (w && w != last)
            r = (w->check)(w, wait_ns, pending, err); /* one watches all layers that were loaded together */
        last = w;
    }
    return r;
}

static hlsnap_result hlsnap__snapshot_check(const hlsnap_snapshot *s, bool wait, hlsnap_error *err) {
    bool pending = false;
    return hlsnap__snapshot_await(s, wait ? UINT64_MAX : 0, &pending, err);
}

static bool hlsnap__snapshot_watched(const hlsnap_snapshot *s) {
    uint32_t i;
    for (i = 0; i < s->num_layers; i++)
        if (s->layers[i]->watch) return true;
    return false;
}

/* The extent that covers a guest page, or NULL: the page is zero. */
static const hlsnap__extent *hlsnap__extent_at(const hlsnap_snapshot *s, uint64_t page) {
    uint32_t lo = 0, hi = s->num_extents;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (page < s->extents[mid].page)
            hi = mid;
        else if (page - s->extents[mid].page >= s->extents[mid].pages)
            lo = mid + 1;
        else
            return &s->extents[mid];
    }
    return NULL;
}

/* The part of extent e from page `at` on, not beyond `end`. */
static hlsnap__extent hlsnap__extent_part(const hlsnap__extent *e, uint64_t at, uint64_t end) {
    hlsnap__extent part = *e;
    const uint64_t stop = (uint64_t)e->page + e->pages < end ? (uint64_t)e->page + e->pages : end;
    part.page = (uint32_t)at;
    part.layer_page = e->layer_page + (uint32_t)(at - e->page);
    part.pages = (uint32_t)(stop - at);
    return part;
}

HLSNAP_API hlsnap_snapshot *hlsnap_snapshot_retain(hlsnap_snapshot *s) {
    if (s) hlsnap__retain(&s->refs);
    return s;
}

static void hlsnap__flat_free(hlsnap__flat *f) {
    if (!f) return;
    hlsnap__layer_release(f->layer);
    hlsnap__free(f->runs);
    hlsnap__free(f);
}

HLSNAP_API void hlsnap_snapshot_release(hlsnap_snapshot *s) {
    uint32_t i;
    if (!s || !hlsnap__release(&s->refs)) return;
    for (i = 0; i < s->num_layers; i++) hlsnap__layer_release(s->layers[i]);
    hlsnap__flat_free(s->flat);
    hlsnap__flat_free(s->settled);
    hlsnap__free(s->learned);
    hlsnap__guest_release(s->guest);
    hlsnap__free(s->layers);
    hlsnap__free(s->extents);
    hlsnap__free(s->maps);
    hlsnap__free(s);
}

#define HLSNAP__MAP_RUN 16u
#define HLSNAP__MAX_MAPPED 2048u /* of a snapshot; each may take two mappings of the 65,530 of a process */

/* From how many pages on a run is mapped: as few mappings as the kernel can take for many sandboxes, whatever a file says. */
static uint32_t hlsnap__map_run(const hlsnap__extent *e, uint32_t num) {
    uint32_t run = HLSNAP__MAP_RUN, i, count;
    for (;; run *= 2) {
        for (i = count = 0; i < num; i++) count += e[i].pages >= run;
        if (count <= HLSNAP__MAX_MAPPED) return run;
    }
}

/* A snapshot over these layers; retains guest and layers, copies the extents. Layers that no extent uses are left out. */
static hlsnap_result hlsnap__snapshot_create(hlsnap__guest *guest, uint64_t generation, hlsnap__layer *const *layers,
                                             uint32_t num_layers, const hlsnap__extent *extents, uint32_t num_extents,
                                             hlsnap_snapshot **out, hlsnap_error *err) {
    hlsnap_snapshot *s = (hlsnap_snapshot *)hlsnap__alloc(1, sizeof(*s), err);
    uint32_t i, *number = NULL;
    *out = NULL;
    if (!s) return HLSNAP_ERR_MEMORY;
    s->refs = 1;
    s->guest = guest;
    hlsnap__retain(&guest->refs);
    s->generation = generation;
    s->layers = (hlsnap__layer **)hlsnap__alloc(num_layers, sizeof(hlsnap__layer *), err);
    s->extents = (hlsnap__extent *)hlsnap__alloc(num_extents, sizeof(*extents), err);
    number = (uint32_t *)hlsnap__alloc(num_layers, sizeof(*number), err);
    if (!s->layers || !s->extents || !number) {
        hlsnap__free(number);
        hlsnap_snapshot_release(s);
        return HLSNAP_ERR_MEMORY;
    }
    for (i = 0; i < num_extents; i++) number[extents[i].layer] = 1;
    for (i = 0; i < num_layers; i++) {
        if (!number[i]) continue;
        number[i] = s->num_layers;
        hlsnap__retain(&layers[i]->refs);
        s->layers[s->num_layers++] = layers[i];
    }
    for (i = 0; i < num_extents; i++) {
        s->extents[i] = extents[i];
        s->extents[i].layer = number[extents[i].layer];
    }
    s->num_extents = num_extents;
    s->map_run = hlsnap__map_run(s->extents, num_extents);
    hlsnap__free(number);
    *out = s;
    return HLSNAP_OK;
}

/* The layer that shows a captured map as it was at first: each page of it at its own place. NULL: none does any more. */
static hlsnap__layer *hlsnap__map_layer(const hlsnap_snapshot *s, const hlsnap__map *map) {
    const uint64_t first = hlsnap__gva_page(&s->guest->layout, map->gva), pages = HLSNAP__PAGES(map->size);
    uint32_t i;
    for (i = 0; map->capture && i < s->num_extents; i++) {
        const hlsnap__extent *e = &s->extents[i];
        if (e->page - first < pages && e->page - first == e->layer_page && s->layers[e->layer]->pages == pages)
            return s->layers[e->layer];
    }
    return NULL;
}

/* Gives a snapshot that nobody else knows yet its maps, which are copied. */
static hlsnap_result hlsnap__snapshot_maps(hlsnap_snapshot *s, const hlsnap__map *maps, uint32_t num,
                                           hlsnap_error *err) {
    uint32_t i;
    if (!num) return HLSNAP_OK;
    s->maps = (hlsnap__map *)hlsnap__alloc(num, sizeof(*maps), err);
    if (!s->maps) return HLSNAP_ERR_MEMORY;
    for (i = 0; i < num; i++) {
        s->maps[i] = maps[i];
        s->maps[i].layer = hlsnap__map_layer(s, &maps[i]);
    }
    s->num_maps = num;
    return HLSNAP_OK;
}

/* Whether a layer is what a map showed when it was captured: it stays a layer of its own. */
static bool hlsnap__snapshot_captured(const hlsnap_snapshot *s, const hlsnap__layer *layer) {
    uint32_t i;
    for (i = 0; i < s->num_maps; i++)
        if (s->maps[i].layer == layer) return true;
    return false;
}

/* The number of its extents that lie in the window; those of maps follow. */
static uint32_t hlsnap__extents_in_window(const hlsnap_snapshot *s) {
    uint32_t n = s->num_extents;
    while (n && s->extents[n - 1].page >= s->guest->layout.pages) n--;
    return n;
}

/* What was learned by now, or NULL. */
static const hlsnap__learned *hlsnap__learned_get(const hlsnap_snapshot *s) {
    return __atomic_load_n(&s->learned, __ATOMIC_ACQUIRE);
}

HLSNAP_API void hlsnap_snapshot_get_info(const hlsnap_snapshot *s, hlsnap_snapshot_info *out) {
    static const hlsnap_snapshot_info none = HLSNAP_ZERO;
    const hlsnap__learned *learned = s ? hlsnap__learned_get(s) : NULL;
    uint32_t i;
    if (out) *out = none;
    if (!out || !s) return;
    for (i = 0; i < s->guest->layout.num_regions; i++) out->pages += s->guest->layout.regions[i].pages;
    for (i = 0; i < s->num_extents; i++) out->stored_pages += s->extents[i].pages;
    out->layers = s->num_layers;
    out->guard = s->guard;
    memcpy(out->guest_name, s->guest->name, sizeof(out->guest_name));
    memcpy(out->build_id, s->guest->build_id, sizeof(out->build_id));
    out->cpu = (hlsnap_cpu)s->guest->cpu;
    out->prefault = s->guest->learn ? HLSNAP_PREFAULT_LEARN : HLSNAP_PREFAULT_OFF;
    out->learned_pages = learned ? learned->pages : 0;
    out->baseline = (hlsnap_cpu)(s->guest->cpu ? s->guest->cpu : hlsnap__cpu_level_for(s->guest->features));
    memcpy(out->cpu_vendor, s->guest->cpu_vendor, sizeof(s->guest->cpu_vendor));
    memcpy(out->hypervisor, s->guest->hypervisor, sizeof(out->hypervisor));
    out->entry = s->guest->entry;
    out->elf_entry = s->guest->elf_entry;
    out->load_address = s->guest->load_address;
    out->generation = s->generation;
}

static bool hlsnap__decl_show(const hlsnap__decl *rows, uint32_t num, size_t i, hlsnap_function *out) {
    if (i >= num || !out) return false;
    out->name = rows[i].name;
    out->signature = rows[i].text;
    out->fn = NULL;
    out->user = NULL;
    return true;
}

HLSNAP_API bool hlsnap_snapshot_region(const hlsnap_snapshot *s, size_t i, hlsnap_region *out) {
    const hlsnap__region *r;
    if (!s || !out || i >= s->guest->layout.num_regions) return false;
    r = &s->guest->layout.regions[i];
    out->gva = r->gva;
    out->pages = r->pages;
    out->kind = hlsnap__kind_names[r->kind];
    out->writable = hlsnap__kind_writable(r->kind);
    out->executable = r->kind == HLSNAP__TEXT;
    out->stored = hlsnap__kind_stored(r->kind);
    return true;
}

HLSNAP_API bool hlsnap_snapshot_extent(const hlsnap_snapshot *s, size_t i, hlsnap_extent *out) {
    if (!s || !out || i >= s->num_extents) return false;
    out->gva = hlsnap__page_gva(&s->guest->layout, s->extents[i].page);
    out->pages = s->extents[i].pages;
    out->layer_page = s->extents[i].layer_page;
    out->layer = s->extents[i].layer;
    return true;
}

HLSNAP_API const char *hlsnap_snapshot_feature(const hlsnap_snapshot *s, size_t i) {
    uint32_t bit;
    for (bit = 0; s && bit < 64; bit++)
        if (s->guest->features >> bit & 1 && i-- == 0) return hlsnap__cpu_feature_name(bit);
    return NULL;
}

/* Copies n bytes from byte `skip` of a guest page on, as many as lie in one piece; *done says how many. */
static hlsnap_result hlsnap__snapshot_piece(const hlsnap_snapshot *s, uint64_t page, size_t skip, uint8_t *to, size_t n,
                                            size_t *done, hlsnap_error *err) {
    const hlsnap__extent *e = hlsnap__extent_at(s, page);
    const hlsnap__layer *layer = e ? s->layers[e->layer] : NULL;
    const uint64_t at = e ? e->layer_page + (page - e->page) : 0, left = e ? e->pages - (page - e->page) : 0;
    if (e && !skip && n >= HLSNAP__PAGE) {
        const uint64_t pages = n / HLSNAP__PAGE < left ? n / HLSNAP__PAGE : left;
        *done = (size_t)(pages * HLSNAP__PAGE);
        return hlsnap__layer_read(layer, at, pages, to, err);
    }
    *done = n < HLSNAP__PAGE - skip ? n : HLSNAP__PAGE - skip;
    if (layer && !layer->map) return hlsnap__pread(layer->fd, to, *done, at * HLSNAP__PAGE + skip, err);
    if (layer)
        memcpy(to, layer->map + at * HLSNAP__PAGE + skip, *done);
    else
        memset(to, 0, *done);
    return HLSNAP_OK;
}

/* Whether all of [gva, gva + n) lies in regions, or in one map that was captured. */
static hlsnap_result hlsnap__snapshot_holds(const hlsnap_snapshot *s, uint64_t gva, size_t n, hlsnap_error *err) {
    const hlsnap__layout *l = &s->guest->layout;
    const hlsnap__map *map =
        gva < HLSNAP__MAPS_GVA ? NULL : hlsnap__map_at(l, s->maps, s->num_maps, hlsnap__gva_page(l, gva));
    if (map && map->capture && n <= HLSNAP__PAGES(map->size) * HLSNAP__PAGE - (gva - map->gva)) return HLSNAP_OK;
    return hlsnap__layout_holds(l, gva, n, false, err);
}

HLSNAP_API hlsnap_result hlsnap_snapshot_read(const hlsnap_snapshot *s, uint64_t gva, void *to, size_t n,
                                              hlsnap_error *err) {
    uint8_t *p = (uint8_t *)to;
    uint64_t at;
    size_t done = 0;
    hlsnap_result r;
    if (!s || (!to && n))
        return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "hlsnap_snapshot_read: %s is NULL", s ? "to" : "the snapshot");
    at = hlsnap__gva_page(&s->guest->layout, gva) * HLSNAP__PAGE + gva % HLSNAP__PAGE;
    r = hlsnap__snapshot_holds(s, gva, n, err);
    for (; !r && n; n -= done, p += done, at += done)
        r = hlsnap__snapshot_piece(s, at / HLSNAP__PAGE, (size_t)(at % HLSNAP__PAGE), p, n, &done, err);
    return r ? r : hlsnap__snapshot_check(s, true, err);
}

HLSNAP_API bool hlsnap_snapshot_import(const hlsnap_snapshot *s, size_t i, hlsnap_function *out) {
    return s && hlsnap__decl_show(s->guest->contract.imports, s->guest->contract.num_imports, i, out);
}

HLSNAP_API bool hlsnap_snapshot_map(const hlsnap_snapshot *s, size_t i, hlsnap_map *out) {
    static const hlsnap_map none = HLSNAP_ZERO;
    const hlsnap__map *map;
    if (!s || !out || i >= s->num_maps) return false;
    map = &s->maps[i];
    *out = none;
    out->name = map->name;
    out->mode = (hlsnap_map_mode)map->mode;
    out->size = map->size;
    out->digest = map->digest[0] ? map->digest : NULL;
    out->capture = map->capture;
    out->optional = map->optional;
    out->gva = map->gva;
    return true;
}

HLSNAP_API bool hlsnap_snapshot_export(const hlsnap_snapshot *s, size_t i, hlsnap_function *out) {
    return s && hlsnap__decl_show(s->guest->contract.exports, s->guest->contract.num_exports, i, out);
}
#endif /* HLSNAP_GUEST */

#ifndef HLSNAP_GUEST
/* ---- >>elf: from file bytes to a layout, an image and a pre-init snapshot ---- */

typedef struct hlsnap__elf_segment {
    uint64_t vaddr, memsz, offset, filesz;
    uint32_t flags;
} hlsnap__elf_segment;

#define HLSNAP__MAX_SEGMENTS 16
#define HLSNAP__MAX_SYMBOL 256u /* bytes of a symbol's name that are looked at, with a NUL */
typedef struct hlsnap__elf {
    const uint8_t *data; /* the whole file, a private copy */
    uint64_t size;
    bool position_independent; /* ET_DYN */
    bool self;                 /* a running program's image: symbols bind to the runtime, what is missing is no error */
    uint64_t entry;
    uint32_t num_segments;
    hlsnap__elf_segment segments[HLSNAP__MAX_SEGMENTS]; /* PT_LOAD, ascending */
    hlsnap__elf_segment dynamic, relro, tls;            /* memsz 0 = none */
    uint64_t tls_align;
    uint64_t base;      /* added to the file's addresses to get guest addresses */
    uint64_t host_base; /* self: added to the file's addresses to get this process's */
    uint64_t rela, rela_size, jmprel, jmprel_size, symtab, strtab, strtab_size, relr, relr_size;
    uint8_t *image;                   /* loaded bytes; the page of image_start first */
    uint64_t image_start, image_size; /* file addresses, page-aligned */
    uint8_t *written; /* one byte a page: anything was stored there; the rest is zero and never looked at */
    uint64_t section_offset;
    uint32_t num_sections;
    char build_id[48];
    bool noted;   /* there is an ABI note */
    bool program; /* a Linux program: it relocates itself, and a runtime answers its system calls */
    uint64_t note_entry, note_syscall; /* file addresses, of a runtime's second note; 0 = none */
    uint64_t phdr, num_phdr;           /* file address of the program headers; 0 = not loaded */
    struct hlsnap__elf *runtime;       /* of a program that is not linked with one */
    uint8_t *block;                    /* an hlsnap_abi_program and what it leads to, whole pages */
    uint64_t block_size, block_gva;
    char *unresolved;
    size_t unresolved_size;
    uint32_t num_unresolved;
} hlsnap__elf;

#define HLSNAP__IMAGE_GVA 0x400000ull     /* where a position independent image goes */
#define HLSNAP__UNRESOLVED_GVA 0x10000ull /* slot i of the functions a self guest lacks is 16 * i above this */
#define HLSNAP__MAX_UNRESOLVED 0xf000u    /* never mapped, so a call there is a typed fault */
#define HLSNAP__MAX_FILE (2ull << 30)

/* DT_RELR is younger than many a system's elf.h. */
#define HLSNAP__DT_RELRSZ 35
#define HLSNAP__DT_RELR 36

/* Copies n bytes at a file offset into *to; false when they are not all there. */
static bool hlsnap__elf_get(const hlsnap__elf *e, uint64_t offset, void *to, size_t n) {
    if (n > e->size || offset > e->size - n) return false;
    memcpy(to, e->data + offset, n);
    return true;
}

/* The n loaded bytes at a file address, or NULL when they are not all in the image. */
static uint8_t *hlsnap__elf_at(const hlsnap__elf *e, uint64_t vaddr, uint64_t n) {
    uint32_t i;
    for (i = 0; i < e->num_segments; i++) {
        const hlsnap__elf_segment *s = &e->segments[i];
        if (vaddr >= s->vaddr && n <= s->memsz && vaddr - s->vaddr <= s->memsz - n)
            return e->image + (vaddr - e->image_start);
    }
    return NULL;
}

/* n live bytes of a self guest's image; false when they cannot be read. They are read through the kernel, where it lets us
   (some seccomp profiles do not): what is mapped otherwise than it seemed, or cut off, is an error then and no signal. */
static bool hlsnap__self_live(const hlsnap__elf *e, uint64_t vaddr, void *to, size_t n) {
    const uint64_t host = vaddr + e->host_base;
    struct iovec mine, remote;
    long k;
    if (!hlsnap__elf_at(e, vaddr, n)) return false;
    mine.iov_base = to;
    remote.iov_base = hlsnap__unconst((const void *)(uintptr_t)host);
    mine.iov_len = remote.iov_len = n;
    k = syscall(SYS_process_vm_readv, getpid(), &mine, 1l, &remote, 1l, 0l);
    if (k < 0 && (errno == ENOSYS || errno == EPERM)) {
        memcpy(to, (const void *)(uintptr_t)host, n);
        return true;
    }
    return k == (long)n;
}

/* Whether all of them are in the file: a table that ends in memory which is only zero would cost time and say nothing. */
static bool hlsnap__elf_stored(const hlsnap__elf *e, uint64_t vaddr, uint64_t n) {
    uint32_t i;
    for (i = 0; i < e->num_segments; i++) {
        const hlsnap__elf_segment *s = &e->segments[i];
        if (vaddr >= s->vaddr && n <= s->filesz && vaddr - s->vaddr <= s->filesz - n) return true;
    }
    return false;
}

/* Stores n > 0 bytes at a place that hlsnap__elf_at gave. */
static void hlsnap__elf_put(hlsnap__elf *e, uint8_t *at, const void *from, uint64_t n) {
    const uint64_t first = (uint64_t)(at - e->image) / HLSNAP__PAGE,
                   last = ((uint64_t)(at - e->image) + n - 1) / HLSNAP__PAGE;
    memset(e->written + first, 1, (size_t)(last - first + 1));
    memcpy(at, from, (size_t)n);
}

/* GNU build id and the runtime's notes: which ABI it speaks, and, where it answers system calls, where it is entered. */
static hlsnap_result hlsnap__elf_notes(hlsnap__elf *e, uint64_t offset, uint64_t vaddr, uint64_t size,
                                       hlsnap_error *err) {
    uint64_t at = 0;
    while (size >= 12 && at <= size - 12) {
        uint32_t head[3], abi;
        char name[8] = {0};
        uint64_t desc;
        if (!hlsnap__elf_get(e, offset + at, head, sizeof(head))) break;
        desc = at + 12 + ((uint64_t)head[0] + 3) / 4 * 4;
        if (desc > size || head[1] > size - desc || head[0] > 8 ||
            !hlsnap__elf_get(e, offset + at + 12, name, head[0])) {
            at = desc + ((uint64_t)head[1] + 3) / 4 * 4;
            continue;
        }
        if (head[0] == 4 && head[2] == 3 && memcmp(name, "GNU", 4) == 0) {
            uint8_t id[23];
            uint32_t i, n = head[1] < sizeof(id) ? head[1] : (uint32_t)sizeof(id);
            if (!hlsnap__elf_get(e, offset + desc, id, n)) break;
            for (i = 0; i < n; i++) hlsnap__format(e->build_id + 2 * i, sizeof(e->build_id) - 2 * i, "%02x", id[i]);
        }
        if (head[0] == 7 && head[2] == 1 && head[1] == 4 && memcmp(name, "hlsnap", 7) == 0 &&
            hlsnap__elf_get(e, offset + desc, &abi, sizeof(abi))) {
            e->noted = true;
            if (abi != HLSNAP_ABI_VERSION)
                return hlsnap__fail(err, HLSNAP_ERR_ABI, 0, "the guest was built for ABI %u, this is ABI %d", abi,
                                    HLSNAP_ABI_VERSION);
        }
        if (head[0] == 7 && head[2] == 2 && head[1] == 16 && memcmp(name, "hlsnap", 7) == 0) {
            uint64_t from_here[2];
            if (!hlsnap__elf_get(e, offset + desc, from_here, sizeof(from_here))) break;
            e->note_entry = vaddr + desc + from_here[0];
            e->note_syscall = vaddr + desc + 8 + from_here[1];
        }
        at = desc + ((uint64_t)head[1] + 3) / 4 * 4;
    }
    return HLSNAP_OK;
}

static hlsnap_result hlsnap__elf_segment_add(hlsnap__elf *e, const Elf64_Phdr *p, hlsnap_error *err) {
    hlsnap__elf_segment s, *last = e->num_segments ? &e->segments[e->num_segments - 1] : NULL;
    s.vaddr = p->p_vaddr;
    s.memsz = p->p_memsz;
    s.offset = p->p_filesz ? p->p_offset : 0;
    s.filesz = p->p_filesz;
    s.flags = p->p_flags;
    if (!s.memsz) return HLSNAP_OK;
    if (e->num_segments == HLSNAP__MAX_SEGMENTS)
        return hlsnap__fail(err, HLSNAP_ERR_ELF_SEGMENT, 0, "more than %d loadable segments", HLSNAP__MAX_SEGMENTS);
    if (s.filesz > s.memsz || s.filesz > e->size || s.offset > e->size - s.filesz)
        return hlsnap__fail(err, HLSNAP_ERR_ELF, 0,
                            "segment at 0x%llx: 0x%llx bytes at offset 0x%llx of a file of 0x%llx",
                            (unsigned long long)s.vaddr, (unsigned long long)s.filesz, (unsigned long long)s.offset,
                            (unsigned long long)e->size);
    if (s.vaddr >= HLSNAP__HIGHEST_GVA || s.memsz > HLSNAP__MAX_MEMORY || s.memsz > HLSNAP__HIGHEST_GVA - s.vaddr)
        return hlsnap__fail(err, HLSNAP_ERR_ELF_SEGMENT, 0, "segment of 0x%llx bytes at 0x%llx is out of range",
                            (unsigned long long)s.memsz, (unsigned long long)s.vaddr);
    if ((s.flags & (PF_W | PF_X)) == (PF_W | PF_X))
        return hlsnap__fail(err, HLSNAP_ERR_ELF_SEGMENT, 0, "segment at 0x%llx is writable and executable",
                            (unsigned long long)s.vaddr);
    if (last && s.vaddr < last->vaddr + last->memsz)
        return hlsnap__fail(err, HLSNAP_ERR_ELF_SEGMENT, 0,
                            "segment at 0x%llx overlaps the one before or is out of order",
                            (unsigned long long)s.vaddr);
    e->segments[e->num_segments++] = s;
    return HLSNAP_OK;
}

static hlsnap_result hlsnap__elf_phdr(hlsnap__elf *e, const Elf64_Phdr *p, hlsnap_error *err) {
    hlsnap__elf_segment s;
    s.vaddr = p->p_vaddr;
    s.memsz = p->p_memsz;
    s.offset = p->p_offset;
    s.filesz = p->p_filesz;
    s.flags = p->p_flags;
    switch (p->p_type) {
    case PT_LOAD: return hlsnap__elf_segment_add(e, p, err);
    case PT_NOTE: return hlsnap__elf_notes(e, p->p_offset, p->p_vaddr, p->p_filesz, err);
    case PT_DYNAMIC: e->dynamic = s; break;
    case PT_GNU_RELRO: e->relro = s; break;
    case PT_TLS:
        e->tls = s;
        e->tls_align = p->p_align ? p->p_align : 1;
        break;
    case PT_INTERP:
        if (!e->self)
            return hlsnap__fail(err, HLSNAP_ERR_ELF_DYNAMIC, 0,
                                "the guest asks for a dynamic linker: link it with -static");
        break;
    default: break;
    }
    return HLSNAP_OK;
}

/* Whether a section holds the address as code without bytes: so is all code in a file of debug information that kept its
   program headers as they were. */
static bool hlsnap__elf_emptied(const hlsnap__elf *e, uint64_t vaddr) {
    uint32_t i;
    for (i = 0; e->section_offset && e->section_offset <= UINT64_MAX / 2 && i < e->num_sections; i++) {
        Elf64_Shdr s;
        if (!hlsnap__elf_get(e, e->section_offset + i * sizeof(s), &s, sizeof(s))) break;
        if (s.sh_type == SHT_NOBITS && s.sh_flags & SHF_EXECINSTR && vaddr >= s.sh_addr &&
            vaddr - s.sh_addr < s.sh_size)
            return true;
    }
    return false;
}

/* The code must be in the file. (That the entry point is in code at all is looked at later, for every kind of guest.) */
static hlsnap_result hlsnap__elf_entry_check(const hlsnap__elf *e, hlsnap_error *err) {
    uint32_t i;
    for (i = 0; i < e->num_segments; i++) {
        const hlsnap__elf_segment *s = &e->segments[i];
        const bool here = e->entry >= s->vaddr && e->entry - s->vaddr < s->memsz;
        if (!(s->flags & PF_X) || !(here || !s->filesz)) continue;
        if (here && e->entry - s->vaddr < s->filesz && !hlsnap__elf_emptied(e, e->entry)) continue;
        return hlsnap__fail(err, HLSNAP_ERR_ELF, 0,
                            "%s 0x%llx lies where the file has no bytes: a file of debug information?",
                            here ? "the entry point" : "code at", (unsigned long long)(here ? e->entry : s->vaddr));
    }
    return HLSNAP_OK;
}

/* The thread-local block is the host's to make, unless a libc does. */
static hlsnap_result hlsnap__elf_tls_check(const hlsnap__elf *e, hlsnap_error *err) {
    const hlsnap__elf_segment *s = &e->tls;
    if (s->filesz <= s->memsz && s->memsz <= (1u << 20) && e->tls_align <= HLSNAP__PAGE &&
        !(e->tls_align & (e->tls_align - 1)))
        return HLSNAP_OK;
    return hlsnap__fail(err, HLSNAP_ERR_ELF_SEGMENT, 0, "thread-local block of 0x%llx bytes aligned to 0x%llx",
                        (unsigned long long)s->memsz, (unsigned long long)e->tls_align);
}

static void hlsnap__elf_find_phdr(hlsnap__elf *e, const Elf64_Ehdr *h) {
    const uint64_t size = (uint64_t)h->e_phnum * sizeof(Elf64_Phdr);
    uint32_t i;
    e->num_phdr = h->e_phnum;
    for (i = 0; i < e->num_segments; i++) {
        const hlsnap__elf_segment *s = &e->segments[i];
        if (h->e_phoff >= s->offset && size <= s->filesz && h->e_phoff - s->offset <= s->filesz - size)
            e->phdr = s->vaddr + (h->e_phoff - s->offset);
    }
}

static const char *hlsnap__elf_type(uint32_t type) {
    switch (type) {
    case ET_REL: return "an object file (.o) that is not linked yet";
    case ET_EXEC:
    case ET_DYN: return "no program";
    case ET_CORE: return "a core file";
    default: return "of no known type";
    }
}

static hlsnap_result hlsnap__elf_parse(hlsnap__elf *e, hlsnap_error *err) {
    Elf64_Ehdr h;
    uint32_t i;
    if (!hlsnap__elf_get(e, 0, &h, sizeof(h)) || memcmp(h.e_ident, ELFMAG, SELFMAG) != 0)
        return hlsnap__fail(err, HLSNAP_ERR_ELF, 0, "not an ELF file (%llu bytes)", (unsigned long long)e->size);
    if (h.e_ident[EI_CLASS] != ELFCLASS64 || h.e_ident[EI_DATA] != ELFDATA2LSB || h.e_machine != EM_X86_64)
        return hlsnap__fail(err, HLSNAP_ERR_ELF, 0,
                            "ELF class %d, data %d, machine %d: not 64-bit little-endian x86-64", h.e_ident[EI_CLASS],
                            h.e_ident[EI_DATA], h.e_machine);
    if ((h.e_type != ET_EXEC && h.e_type != ET_DYN) || h.e_phentsize != sizeof(Elf64_Phdr) || !h.e_phnum)
        return hlsnap__fail(err, HLSNAP_ERR_ELF, 0, "ELF type %d with %d program headers of %d bytes: it is %s",
                            h.e_type, h.e_phnum, h.e_phentsize, hlsnap__elf_type(h.e_type));
    e->position_independent = h.e_type == ET_DYN;
    e->entry = h.e_entry;
    e->section_offset = h.e_shentsize == sizeof(Elf64_Shdr) ? h.e_shoff : 0;
    e->num_sections = h.e_shnum;
    for (i = 0; i < h.e_phnum; i++) {
        Elf64_Phdr p;
        hlsnap_result r;
        if (h.e_phoff > UINT64_MAX / 2 || !hlsnap__elf_get(e, h.e_phoff + i * sizeof(p), &p, sizeof(p)))
            return hlsnap__fail(err, HLSNAP_ERR_ELF, 0, "program header %u lies outside the file", i);
        r = hlsnap__elf_phdr(e, &p, err);
        if (r) return r;
    }
    if (!e->num_segments) return hlsnap__fail(err, HLSNAP_ERR_ELF, 0, "no loadable segment");
    hlsnap__elf_find_phdr(e, &h);
    e->program = e->note_syscall != 0;
    e->image_start = e->segments[0].vaddr & ~(uint64_t)(HLSNAP__PAGE - 1);
    e->image_size = e->segments[e->num_segments - 1].vaddr + e->segments[e->num_segments - 1].memsz - e->image_start;
    e->image_size = (e->image_size + HLSNAP__PAGE - 1) & ~(uint64_t)(HLSNAP__PAGE - 1);
    if (e->image_size > HLSNAP__MAX_MEMORY || (!e->position_independent && e->image_start < HLSNAP__LOWEST_GVA))
        return hlsnap__fail(err, HLSNAP_ERR_ELF_SEGMENT, 0,
                            "image of 0x%llx bytes at 0x%llx: the lowest address is 0x%llx",
                            (unsigned long long)e->image_size, (unsigned long long)e->image_start,
                            (unsigned long long)HLSNAP__LOWEST_GVA);
    e->base = e->position_independent ? HLSNAP__IMAGE_GVA - e->image_start : 0;
    return e->self ? HLSNAP_OK : hlsnap__elf_entry_check(e, err);
}

/* ---- >>elf-layout: regions ---- */

static hlsnap_result hlsnap__region_add(hlsnap__layout *l, uint32_t kind, uint64_t gva, uint64_t end,
                                        hlsnap_error *err) {
    hlsnap__region *r;
    if (gva >= end) return HLSNAP_OK;
    if (l->num_regions == HLSNAP__MAX_REGIONS)
        return hlsnap__fail(err, HLSNAP_ERR_ELF_SEGMENT, 0, "more than %d regions", HLSNAP__MAX_REGIONS);
    r = &l->regions[l->num_regions++];
    r->kind = kind;
    r->gva = gva;
    r->pages = (end - gva) / HLSNAP__PAGE;
    return HLSNAP_OK;
}

/* One segment's pages; its RELRO part is read-only where the host has relocated it already. */
static hlsnap_result hlsnap__elf_region(const hlsnap__elf *e, const hlsnap__elf_segment *s, hlsnap__layout *l,
                                        hlsnap_error *err) {
    const uint64_t mask = HLSNAP__PAGE - 1;
    uint64_t from = (s->vaddr & ~mask) + e->base, to = ((s->vaddr + s->memsz + mask) & ~mask) + e->base, split = from;
    uint32_t kind = s->flags & PF_X ? HLSNAP__TEXT : s->flags & PF_W ? HLSNAP__DATA : HLSNAP__RODATA;
    hlsnap__region *last = l->num_regions ? &l->regions[l->num_regions - 1] : NULL;
    hlsnap_result r;
    if (last && from < last->gva + last->pages * HLSNAP__PAGE) {
        if (last->kind != kind)
            return hlsnap__fail(err, HLSNAP_ERR_ELF_SEGMENT, 0, "segments of different rights share the page at 0x%llx",
                                (unsigned long long)from);
        from = split = last->gva + last->pages * HLSNAP__PAGE;
    }
    if (kind == HLSNAP__DATA && !e->program && e->relro.memsz && (e->relro.vaddr & ~mask) == (s->vaddr & ~mask) &&
        e->relro.memsz <= s->memsz)
        split = ((e->relro.vaddr + e->relro.memsz) & ~mask) + e->base;
    if (split > from && split <= to) {
        r = hlsnap__region_add(l, HLSNAP__RODATA, from, split, err);
        if (r) return r;
        from = split;
    }
    return hlsnap__region_add(l, kind, from, to, err);
}

#define HLSNAP__PROGRAM_GUARD (8ull << 20) /* below a program's stack: frames of ordinary code skip a single page */
#define HLSNAP__PROGRAM_STACK (1ull << 20)
#define HLSNAP__PROGRAM_HEAP (64ull << 20)

static uint64_t hlsnap__elf_stack_size(const hlsnap__elf *e, const hlsnap_guest_desc *desc) {
    return desc->stack_size ? desc->stack_size : e->program ? HLSNAP__PROGRAM_STACK : 64u << 10;
}

static uint64_t hlsnap__elf_tls_size(const hlsnap__elf *e) {
    return e->tls.memsz && !e->program ? (e->tls.memsz + e->tls_align - 1) / e->tls_align * e->tls_align : 0;
}

/* Bytes of the tls region: the runtime's own at its start, the thread-local block at its end. */
static uint64_t hlsnap__elf_tls_region(const hlsnap__elf *e) {
    return (HLSNAP_ABI_RUNTIME_MIN + hlsnap__elf_tls_size(e) + HLSNAP__PAGE - 1) / HLSNAP__PAGE * HLSNAP__PAGE;
}

/* A program has what comes before its stack in its window, too: the runtime's image, and the block for its start. */
static hlsnap_result hlsnap__elf_layout_program(hlsnap__elf *e, hlsnap__layout *l, uint64_t *at, hlsnap_error *err) {
    hlsnap_result r = HLSNAP_OK;
    uint32_t i;
    if (e->runtime) {
        e->runtime->base = *at - e->runtime->image_start;
        for (i = 0; i < e->runtime->num_segments && !r; i++)
            r = hlsnap__elf_region(e->runtime, &e->runtime->segments[i], l, err);
        *at += e->runtime->image_size + HLSNAP__PAGE;
    }
    e->block_gva = *at;
    if (!r) r = hlsnap__region_add(l, HLSNAP__RODATA, *at, *at + e->block_size, err);
    *at += e->block_size + HLSNAP__PROGRAM_GUARD;
    return r;
}

/* image | guard | stack | tls | identity | mailbox | guard | heap. What every call touches lies together, from the stack's
   top page on, in one aligned group of 8 pages and one page table: software KVM then maps all of it in one fault. */
static hlsnap_result hlsnap__elf_layout(hlsnap__elf *e, const hlsnap_guest_desc *desc, hlsnap__layout *l,
                                        hlsnap_error *err) {
    const uint64_t heap = desc->heap_size ? desc->heap_size
                          : e->program    ? HLSNAP__PROGRAM_HEAP
                                          : 1u << 20,
                   stack = hlsnap__elf_stack_size(e, desc);
    const uint64_t mailbox = desc->mailbox_size ? desc->mailbox_size : 64u << 10, huge = 2u << 20,
                   group = 8 * HLSNAP__PAGE;
    const uint64_t tls = hlsnap__elf_tls_region(e);
    uint64_t at = e->image_start + e->base + e->image_size + HLSNAP__PAGE;
    hlsnap_result r = e->program ? HLSNAP_OK : hlsnap__elf_tls_check(e, err);
    uint32_t i;
    l->base = (e->image_start + e->base) & ~(huge - 1);
    for (i = 0; i < e->num_segments && !r; i++) r = hlsnap__elf_region(e, &e->segments[i], l, err);
    if (!r && e->program) r = hlsnap__elf_layout_program(e, l, &at, err);
    if (r) return r;
    at += group - (at + stack - HLSNAP__PAGE) % group;
    r = hlsnap__region_add(l, HLSNAP__STACK, at, at + stack, err);
    at += stack;
    if (!r) r = hlsnap__region_add(l, HLSNAP__TLS, at, at + tls, err);
    at += tls;
    if (!r) r = hlsnap__region_add(l, HLSNAP__IDENTITY, at, at + HLSNAP__PAGE, err);
    at += HLSNAP__PAGE;
    if (!r) r = hlsnap__region_add(l, HLSNAP__MAILBOX, at, at + mailbox, err);
    at += mailbox + HLSNAP__PAGE;
    if (!r) r = hlsnap__region_add(l, HLSNAP__HEAP, at, at + heap, err);
    l->pages = (at + heap - l->base) / HLSNAP__PAGE;
    return r ? r : hlsnap__layout_check(l, HLSNAP_ERR_ELF_SEGMENT, err);
}

/* ---- >>elf-relocation ---- */

static hlsnap_result hlsnap__elf_dynamic(hlsnap__elf *e, hlsnap_error *err) {
    uint64_t at;
    for (at = 0; e->dynamic.memsz >= sizeof(Elf64_Dyn) && at <= e->dynamic.memsz - sizeof(Elf64_Dyn);
         at += sizeof(Elf64_Dyn)) {
        Elf64_Dyn d;
        if (!hlsnap__elf_at(e, e->dynamic.vaddr + at, sizeof(d)))
            return hlsnap__fail(err, HLSNAP_ERR_ELF, 0, "the dynamic section at 0x%llx is not in the image",
                                (unsigned long long)e->dynamic.vaddr);
        memcpy(&d, hlsnap__elf_at(e, e->dynamic.vaddr + at, sizeof(d)), sizeof(d));
        if (d.d_tag == DT_NULL) break;
        switch (d.d_tag) {
        case DT_NEEDED:
            if (!e->self)
                return hlsnap__fail(err, HLSNAP_ERR_ELF_DYNAMIC, 0,
                                    "the guest needs shared libraries: link it with -static");
            break;
        case DT_RELA: e->rela = d.d_un.d_ptr; break;
        case DT_RELASZ: e->rela_size = d.d_un.d_val; break;
        case DT_JMPREL: e->jmprel = d.d_un.d_ptr; break;
        case DT_PLTRELSZ: e->jmprel_size = d.d_un.d_val; break;
        case DT_SYMTAB: e->symtab = d.d_un.d_ptr; break;
        case DT_STRTAB: e->strtab = d.d_un.d_ptr; break;
        case DT_STRSZ: e->strtab_size = d.d_un.d_val; break;
        case HLSNAP__DT_RELR: e->relr = d.d_un.d_ptr; break;
        case HLSNAP__DT_RELRSZ: e->relr_size = d.d_un.d_val; break;
        default: break;
        }
    }
    return HLSNAP_OK;
}

/* Guest address of something of this process that lies in the same image. */
static bool hlsnap__elf_host_to_guest(const hlsnap__elf *e, uint64_t host, uint64_t *guest) {
    uint64_t vaddr = host - e->host_base;
    if (!e->self || vaddr < e->image_start || vaddr - e->image_start >= e->image_size) return false;
    *guest = vaddr + e->base;
    return true;
}

/* An address that faults and can be named. */
static hlsnap_result hlsnap__elf_unresolved(hlsnap__elf *e, const char *name, uint64_t *value, hlsnap_error *err) {
    size_t n = strnlen(name, 255) + 1;
    if (e->num_unresolved == HLSNAP__MAX_UNRESOLVED || e->unresolved_size + n > (4u << 20))
        return hlsnap__fail(err, HLSNAP_ERR_LIMIT, 0, "more than %u unresolved symbols", e->num_unresolved);
    if ((e->unresolved_size + 65535) / 65536 != (e->unresolved_size + n + 65535) / 65536) {
        char *bigger = (char *)hlsnap__alloc(1, (e->unresolved_size + n + 65535) / 65536 * 65536, err);
        if (!bigger) return HLSNAP_ERR_MEMORY;
        if (e->unresolved) memcpy(bigger, e->unresolved, e->unresolved_size);
        hlsnap__free(e->unresolved);
        e->unresolved = bigger;
    }
    hlsnap__printable(e->unresolved + e->unresolved_size, n, name, n - 1, false);
    e->unresolved_size += strlen(e->unresolved + e->unresolved_size) + 1;
    *value = HLSNAP__UNRESOLVED_GVA + 16ull * e->num_unresolved++;
    return HLSNAP_OK;
}

/* The name of a symbol, bounded by the string table; false when it has none. A long one is cut: each relocation may ask for
   one, so that a search for its end would make the work quadratic. */
static bool hlsnap__elf_name(const hlsnap__elf *e, uint32_t at, char name[HLSNAP__MAX_SYMBOL]) {
    const char *table = (const char *)hlsnap__elf_at(e, e->strtab, e->strtab_size);
    size_t i;
    for (i = 0; table && i < HLSNAP__MAX_SYMBOL - 1 && at + i < e->strtab_size && table[at + i]; i++)
        name[i] = table[at + i];
    name[i] = 0;
    return table && at + i < e->strtab_size;
}

/* What the runtime has under that name, or NULL. */
static const hlsnap__rt_binding *hlsnap__elf_bound(const char *name) {
    size_t i;
    for (i = 0; i < sizeof(hlsnap__rt_bindings) / sizeof(hlsnap__rt_bindings[0]); i++)
        if (strcmp(name, hlsnap__rt_bindings[i].name) == 0) return &hlsnap__rt_bindings[i];
    return NULL;
}

/* What a relocation's symbol stands for, as a guest address. */
static hlsnap_result hlsnap__elf_symbol(hlsnap__elf *e, const Elf64_Rela *rel, uint64_t *value, hlsnap_error *err) {
    Elf64_Sym sym;
    char name[HLSNAP__MAX_SYMBOL], shown[80];
    const hlsnap__rt_binding *bound;
    const uint32_t index = (uint32_t)ELF64_R_SYM(rel->r_info);
    const uint8_t *at = e->symtab <= UINT64_MAX - index * sizeof(sym)
                            ? hlsnap__elf_at(e, e->symtab + index * sizeof(sym), sizeof(sym))
                            : NULL;
    *value = 0;
    if (!index) return HLSNAP_OK;
    if (!at) return hlsnap__fail(err, HLSNAP_ERR_ELF_RELOC, 0, "symbol %u lies outside the image", index);
    memcpy(&sym, at, sizeof(sym));
    if (!hlsnap__elf_name(e, sym.st_name, name))
        return hlsnap__fail(err, HLSNAP_ERR_ELF_RELOC, 0, "symbol %u has no name in the string table", index);
    if (ELF64_ST_TYPE(sym.st_info) == STT_GNU_IFUNC && sym.st_shndx != SHN_UNDEF) {
        uint64_t host = 0;
        if (!e->self) return hlsnap__fail(err, HLSNAP_ERR_ELF_RELOC, 0, "indirect function at symbol %u", index);
        hlsnap__self_live(e, rel->r_offset, &host, sizeof(host));
        return hlsnap__elf_host_to_guest(e, host, value) ? HLSNAP_OK : hlsnap__elf_unresolved(e, name, value, err);
    }
    if (sym.st_shndx == SHN_ABS) {
        *value = sym.st_value;
        return HLSNAP_OK;
    }
    if (sym.st_shndx != SHN_UNDEF) {
        *value = sym.st_value + e->base;
        return HLSNAP_OK;
    }
    bound = e->self ? hlsnap__elf_bound(name) : NULL;
    if (bound && hlsnap__elf_host_to_guest(e, (uint64_t)(uintptr_t)bound->fn, value)) return HLSNAP_OK;
    if (ELF64_ST_BIND(sym.st_info) == STB_WEAK) return HLSNAP_OK; /* programs test these for NULL */
    if (e->self) return hlsnap__elf_unresolved(e, name, value, err);
    hlsnap__printable(shown, sizeof(shown), name, strlen(name), false);
    return hlsnap__fail(err, HLSNAP_ERR_ELF_RELOC, 0, "undefined symbol %s", shown);
}

/* Offset of a thread-local symbol in its block. A self guest may name ones that it has not: libc's errno is the runtime's then,
   any other is where nothing is and no other variable either: a fault. */
static hlsnap_result hlsnap__elf_tls_value(const hlsnap__elf *e, const Elf64_Rela *rel, uint64_t *value,
                                           hlsnap_error *err) {
    Elf64_Sym sym;
    const uint64_t index = ELF64_R_SYM(rel->r_info);
    const uint8_t *at = index ? hlsnap__elf_at(e, e->symtab + index * sizeof(sym), sizeof(sym)) : NULL;
    memset(&sym, 0, sizeof(sym));
    if (at) memcpy(&sym, at, sizeof(sym));
    if (index && !e->self && (!at || sym.st_shndx == SHN_UNDEF))
        return hlsnap__fail(err, HLSNAP_ERR_ELF_RELOC, 0, "thread-local symbol %u is not in the image",
                            (unsigned)index);
    *value = sym.st_value + (uint64_t)rel->r_addend;
    if (index && (!at || sym.st_shndx == SHN_UNDEF)) {
        char name[HLSNAP__MAX_SYMBOL];
        const bool is_errno = at && hlsnap__elf_name(e, sym.st_name, name) && strcmp(name, "errno") == 0;
        *value = 1ull << 62;
        if (is_errno)
            *value = offsetof(hlsnap__rt_state, error_number) + hlsnap__elf_tls_size(e) - hlsnap__elf_tls_region(e);
    }
    return HLSNAP_OK;
}

/* A static glibc's copies go by thresholds that its start-up code computes; a fresh copy of the program has none of them, so
   they run far off. Which slots are theirs shows in where this process's own lead. The names are asm labels because the
   prototypes differ between C, C++ and feature macros. */
extern void hlsnap__libc_memcpy(void) __asm__("memcpy");
extern void hlsnap__libc_memmove(void) __asm__("memmove");
extern void hlsnap__libc_mempcpy(void) __asm__("mempcpy");
extern void hlsnap__libc_memset(void) __asm__("memset");
#ifdef __GLIBC__
extern void hlsnap__libc_memcpy_chk(void) __asm__("__memcpy_chk");
extern void hlsnap__libc_memmove_chk(void) __asm__("__memmove_chk");
extern void hlsnap__libc_mempcpy_chk(void) __asm__("__mempcpy_chk");
extern void hlsnap__libc_memset_chk(void) __asm__("__memset_chk");
#endif

/* The function behind an address that may be a jump through a slot (endbr64? bnd? jmp *slot(%rip)) of this image. */
static uint64_t hlsnap__elf_behind(const hlsnap__elf *e, uint64_t host) {
    uint8_t p[16] = {0};
    uint64_t target;
    int32_t rel;
    uint32_t skip;
    if (!hlsnap__self_live(e, host - e->host_base, p, sizeof(p))) return host;
    skip = p[0] == 0xf3 && p[1] == 0x0f && p[2] == 0x1e && p[3] == 0xfa ? 4 : 0;
    skip += p[skip] == 0xf2;
    if (p[skip] != 0xff || p[skip + 1] != 0x25) return host;
    memcpy(&rel, p + skip + 2, sizeof(rel));
    target = host + skip + 6 + (uint64_t)(int64_t)rel;
    return hlsnap__self_live(e, target - e->host_base, &target, sizeof(target)) ? target : host;
}

/* The runtime's function for one of libc's that copies or fills. */
static bool hlsnap__elf_libc_copy(const hlsnap__elf *e, uint64_t host, uint64_t *guest) {
    static const struct {
        void (*libc)(void), (*rt)(void);
    } rows[] = {
#ifdef __GLIBC__
        {hlsnap__libc_memcpy_chk, (void (*)(void))hlsnap__rt_memcpy_chk},
        {hlsnap__libc_memmove_chk, (void (*)(void))hlsnap__rt_memmove_chk},
        {hlsnap__libc_mempcpy_chk, (void (*)(void))hlsnap__rt_mempcpy},
        {hlsnap__libc_memset_chk, (void (*)(void))hlsnap__rt_memset_chk},
#endif
        {hlsnap__libc_memcpy, (void (*)(void))hlsnap__rt_memcpy},
        {hlsnap__libc_memmove, (void (*)(void))hlsnap__rt_memmove},
        {hlsnap__libc_mempcpy, (void (*)(void))hlsnap__rt_mempcpy},
        {hlsnap__libc_memset, (void (*)(void))hlsnap__rt_memset}};
    size_t i;
    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (hlsnap__elf_behind(e, (uint64_t)(uintptr_t)rows[i].libc) == host)
            return hlsnap__elf_host_to_guest(e, (uint64_t)(uintptr_t)rows[i].rt, guest);
    return false;
}

/* IRELATIVE: a self guest takes the pointer that this process resolved, one of the C runtime asks at its init. */
static hlsnap_result hlsnap__elf_irelative(hlsnap__elf *e, const Elf64_Rela *rel, uint64_t *value, hlsnap_error *err) {
    uint64_t host = 0;
    if (!e->self)
        return hlsnap__fail(
            err, HLSNAP_ERR_ELF_RELOC, 0,
            "IRELATIVE relocation at 0x%llx: the guest has no runtime that applies it; build it without indirect "
            "functions (ifunc, target_clones), or with the C runtime",
            (unsigned long long)rel->r_offset);
    hlsnap__self_live(e, rel->r_offset, &host, sizeof(host));
    if (hlsnap__elf_libc_copy(e, host, value)) return HLSNAP_OK;
    return hlsnap__elf_host_to_guest(e, host, value) ? HLSNAP_OK
                                                     : hlsnap__elf_unresolved(e, "(indirect function)", value, err);
}

static hlsnap_result hlsnap__elf_relocate_one(hlsnap__elf *e, const Elf64_Rela *rel, hlsnap_error *err) {
    uint8_t *at = hlsnap__elf_at(e, rel->r_offset, 8);
    uint64_t value = 0;
    hlsnap_result r = HLSNAP_OK;
    if (ELF64_R_TYPE(rel->r_info) == R_X86_64_NONE) return HLSNAP_OK;
    if (!at)
        return hlsnap__fail(err, HLSNAP_ERR_ELF_RELOC, 0, "relocation at 0x%llx lies outside the image",
                            (unsigned long long)rel->r_offset);
    switch (ELF64_R_TYPE(rel->r_info)) {
    case R_X86_64_RELATIVE: value = e->base + (uint64_t)rel->r_addend; break;
    case R_X86_64_64:
        r = hlsnap__elf_symbol(e, rel, &value, err);
        value += (uint64_t)rel->r_addend;
        break;
    case R_X86_64_GLOB_DAT:
    case R_X86_64_JUMP_SLOT: r = hlsnap__elf_symbol(e, rel, &value, err); break;
    case R_X86_64_IRELATIVE:
        if (!e->self && e->noted && !e->note_syscall) return HLSNAP_OK;
        r = hlsnap__elf_irelative(e, rel, &value, err);
        break;
    case R_X86_64_DTPMOD64: value = 1; break;
    case R_X86_64_DTPOFF64: r = hlsnap__elf_tls_value(e, rel, &value, err); break;
    case R_X86_64_TPOFF64:
        r = hlsnap__elf_tls_value(e, rel, &value, err);
        value -= hlsnap__elf_tls_size(e);
        break;
    case R_X86_64_COPY:
        if (e->self) return HLSNAP_OK; /* libc's data: zero in the guest */
        /* fall through */
    default:
        if (!e->self)
            return hlsnap__fail(err, HLSNAP_ERR_ELF_RELOC, 0, "relocation type %u at 0x%llx",
                                (unsigned)ELF64_R_TYPE(rel->r_info), (unsigned long long)rel->r_offset);
        r = hlsnap__elf_unresolved(e, "(relocation not supported)", &value, err);
        break;
    }
    if (!r) hlsnap__elf_put(e, at, &value, sizeof(value));
    return r;
}

static hlsnap_result hlsnap__elf_relocate_table(hlsnap__elf *e, uint64_t table, uint64_t size, hlsnap_error *err) {
    uint64_t at;
    if (size && !hlsnap__elf_stored(e, table, size))
        return hlsnap__fail(err, HLSNAP_ERR_ELF_RELOC, 0, "relocations of 0x%llx bytes at 0x%llx lie outside the file",
                            (unsigned long long)size, (unsigned long long)table);
    for (at = 0; at + sizeof(Elf64_Rela) <= size; at += sizeof(Elf64_Rela)) {
        Elf64_Rela rel;
        hlsnap_result r;
        memcpy(&rel, hlsnap__elf_at(e, table + at, sizeof(rel)), sizeof(rel));
        r = hlsnap__elf_relocate_one(e, &rel, err);
        if (r) return r;
    }
    return HLSNAP_OK;
}

/* DT_RELR: an address, then bitmaps of the 63 words after it. */
static hlsnap_result hlsnap__elf_relocate_relr(hlsnap__elf *e, hlsnap_error *err) {
    uint64_t at, where = 0;
    if (e->relr_size && !hlsnap__elf_stored(e, e->relr, e->relr_size))
        return hlsnap__fail(err, HLSNAP_ERR_ELF_RELOC, 0, "RELR table at 0x%llx lies outside the file",
                            (unsigned long long)e->relr);
    for (at = 0; at + 8 <= e->relr_size; at += 8) {
        uint64_t entry, bits, word, k;
        memcpy(&entry, hlsnap__elf_at(e, e->relr + at, 8), 8);
        bits = entry & 1 ? entry >> 1 : 1;
        if (!(entry & 1)) where = entry;
        for (k = 0; bits; k++, bits >>= 1) {
            uint8_t *p = bits & 1 ? hlsnap__elf_at(e, where + 8 * k, 8) : NULL;
            if (!(bits & 1)) continue;
            if (!p)
                return hlsnap__fail(err, HLSNAP_ERR_ELF_RELOC, 0, "RELR relocation at 0x%llx lies outside the image",
                                    (unsigned long long)(where + 8 * k));
            memcpy(&word, p, 8);
            word += e->base;
            hlsnap__elf_put(e, p, &word, 8);
        }
        where += entry & 1 ? 63 * 8 : 8;
    }
    return HLSNAP_OK;
}

static bool hlsnap__elf_table_indirect(const hlsnap__elf *e, uint64_t table, uint64_t size) {
    uint64_t at;
    if (!size || !hlsnap__elf_stored(e, table, size)) return false;
    for (at = 0; at + sizeof(Elf64_Rela) <= size; at += sizeof(Elf64_Rela)) {
        Elf64_Rela rel;
        memcpy(&rel, hlsnap__elf_at(e, table + at, sizeof(rel)), sizeof(rel));
        if (ELF64_R_TYPE(rel.r_info) == R_X86_64_IRELATIVE) return true;
    }
    return false;
}

/* Before there are regions: where the guest's runtime stores the addresses of indirect functions, nothing is read-only. */
static void hlsnap__elf_keep_writable(hlsnap__elf *e) {
    uint32_t i;
    bool found = false;
    if (e->self || e->program || !e->relro.memsz) return;
    if (e->dynamic.memsz && hlsnap__elf_dynamic(e, NULL) == HLSNAP_OK)
        found = hlsnap__elf_table_indirect(e, e->rela, e->rela_size) ||
                hlsnap__elf_table_indirect(e, e->jmprel, e->jmprel_size);
    for (i = 0;
         !e->dynamic.memsz && !found && e->section_offset && e->section_offset <= UINT64_MAX / 2 && i < e->num_sections;
         i++) {
        Elf64_Shdr s;
        if (!hlsnap__elf_get(e, e->section_offset + i * sizeof(s), &s, sizeof(s))) break;
        found = s.sh_type == SHT_RELA && s.sh_flags & SHF_ALLOC && hlsnap__elf_table_indirect(e, s.sh_addr, s.sh_size);
    }
    if (found) e->relro.memsz = 0;
}

/* A static executable without PT_DYNAMIC has its IRELATIVE relocations in allocated sections only. */
static hlsnap_result hlsnap__elf_relocate_static(hlsnap__elf *e, hlsnap_error *err) {
    uint32_t i;
    for (i = 0; e->section_offset && i < e->num_sections; i++) {
        Elf64_Shdr s;
        hlsnap_result r;
        if (e->section_offset > UINT64_MAX / 2 || !hlsnap__elf_get(e, e->section_offset + i * sizeof(s), &s, sizeof(s)))
            break;
        if (s.sh_type != SHT_RELA || !(s.sh_flags & SHF_ALLOC)) continue;
        r = hlsnap__elf_relocate_table(e, s.sh_addr, s.sh_size, err);
        if (r) return r;
    }
    return HLSNAP_OK;
}

static hlsnap_result hlsnap__elf_relocate(hlsnap__elf *e, hlsnap_error *err) {
    hlsnap_result r;
    if (e->program) return HLSNAP_OK; /* its start does that, and would do RELR twice */
    if (!e->dynamic.memsz) return e->self ? hlsnap__elf_relocate_static(e, err) : HLSNAP_OK;
    r = hlsnap__elf_dynamic(e, err);
    if (!r) r = hlsnap__elf_relocate_relr(e, err);
    if (!r) r = hlsnap__elf_relocate_table(e, e->rela, e->rela_size, err);
    if (!r) r = hlsnap__elf_relocate_table(e, e->jmprel, e->jmprel_size, err);
    return r;
}

/* ---- >>builder: a new layer and the extents over it, page by page in ascending order ---- */

#define HLSNAP__BUFFER_PAGES 64u /* a layer of up to this many pages needs no memfd, and its pages no system calls */
typedef struct hlsnap__builder {
    bool to_file;                  /* a memfd in any case: for what many sandboxes will map */
    int fd;                        /* memfd being written, -1 before the buffer overflows */
    uint32_t pages;                /* stored so far */
    uint32_t layer;                /* number its extents carry */
    uint8_t *buffer;               /* the last of them */
    uint32_t buffered, buffer_cap; /* pages */
    hlsnap__extent *extents;
    uint32_t num, cap;
} hlsnap__builder;

static const hlsnap__builder hlsnap__builder_none = {false, -1, 0, 0, NULL, 0, 0, NULL, 0, 0};

static bool hlsnap__all_zero(const void *p, size_t n) { /* n > 0 */
    const unsigned char *s = (const unsigned char *)p;
    return s[0] == 0 && memcmp(s, s + 1, n - 1) == 0;
}

/* Adds an extent, or grows the last one when it simply goes on. */
static hlsnap_result hlsnap__builder_extent(hlsnap__builder *b, const hlsnap__extent *e, bool join, hlsnap_error *err) {
    hlsnap__extent *last = b->num ? &b->extents[b->num - 1] : NULL;
    if (join && last && last->layer == e->layer && last->page + last->pages == e->page &&
        last->layer_page + last->pages == e->layer_page) {
        last->pages += e->pages;
        return HLSNAP_OK;
    }
    if (b->num == b->cap) {
        const uint32_t cap = b->cap ? b->cap * 2 : 16;
        hlsnap__extent *bigger = (hlsnap__extent *)hlsnap__alloc_raw(cap * sizeof(*bigger), err);
        if (!bigger) return HLSNAP_ERR_MEMORY;
        if (b->num) memcpy(bigger, b->extents, b->num * sizeof(*bigger));
        hlsnap__free(b->extents);
        b->extents = bigger;
        b->cap = cap;
    }
    b->extents[b->num++] = *e;
    return HLSNAP_OK;
}

/* Writes the buffer behind what the memfd holds. */
static hlsnap_result hlsnap__builder_flush(hlsnap__builder *b, hlsnap_error *err) {
    hlsnap_result r;
    if (b->fd < 0 && (b->fd = hlsnap__memfd(err)) < 0) return HLSNAP_ERR_OS;
    r = hlsnap__pwrite(b->fd, b->buffer, (size_t)b->buffered * HLSNAP__PAGE,
                       (uint64_t)(b->pages - b->buffered) * HLSNAP__PAGE, err);
    b->buffered = 0;
    return r;
}

/* Room for one more page in the buffer. */
static hlsnap_result hlsnap__builder_room(hlsnap__builder *b, hlsnap_error *err) {
    const uint32_t cap = b->buffer_cap ? b->buffer_cap * 2 : 16;
    uint8_t *bigger;
    if (b->buffered < b->buffer_cap) return HLSNAP_OK;
    if (cap > HLSNAP__BUFFER_PAGES) return hlsnap__builder_flush(b, err);
    bigger = (uint8_t *)hlsnap__alloc_raw((size_t)cap * HLSNAP__PAGE, err);
    if (!bigger) return HLSNAP_ERR_MEMORY;
    if (b->buffered) memcpy(bigger, b->buffer, (size_t)b->buffered * HLSNAP__PAGE);
    hlsnap__free(b->buffer);
    b->buffer = bigger;
    b->buffer_cap = cap;
    return HLSNAP_OK;
}

/* Stores one page. `join` is false where a new region begins: an extent never spans two. */
static hlsnap_result hlsnap__builder_store(hlsnap__builder *b, uint64_t page, const void *from, bool join,
                                           hlsnap_error *err) {
    hlsnap__extent e;
    const hlsnap_result r = hlsnap__builder_room(b, err);
    if (r) return r;
    memcpy(b->buffer + (size_t)b->buffered++ * HLSNAP__PAGE, from, HLSNAP__PAGE);
    e.page = (uint32_t)page;
    e.pages = 1;
    e.layer = b->layer;
    e.layer_page = b->pages++;
    return hlsnap__builder_extent(b, &e, join, err);
}

/* Stores the pages of one region that are not zero; `written`, a byte a page, says which can be other than zero. */
static hlsnap_result hlsnap__builder_range(hlsnap__builder *b, uint64_t page, const uint8_t *from, uint64_t pages,
                                           const uint8_t *written, hlsnap_error *err) {
    hlsnap_result r = HLSNAP_OK;
    uint64_t i;
    for (i = 0; i < pages && !r; i++)
        if ((!written || written[i]) && !hlsnap__all_zero(from + i * HLSNAP__PAGE, HLSNAP__PAGE))
            r = hlsnap__builder_store(b, page + i, from + i * HLSNAP__PAGE, i > 0, err);
    return r;
}

static void hlsnap__builder_free(hlsnap__builder *b) {
    if (b->fd >= 0) close(b->fd);
    hlsnap__free(b->buffer);
    hlsnap__free(b->extents);
}

/* Makes a layer of what was stored; *out is NULL when that is nothing. */
static hlsnap_result hlsnap__builder_seal(hlsnap__builder *b, hlsnap__layer **out, hlsnap_error *err) {
    hlsnap_error why;
    hlsnap_result r;
    *out = NULL;
    if (!b->pages) return HLSNAP_OK;
    if (b->fd < 0 && !b->to_file) {
        *out = hlsnap__layer_from_memory(b->buffer, b->pages, err);
        if (*out) b->buffer = NULL;
        return *out ? HLSNAP_OK : HLSNAP_ERR_MEMORY;
    }
    r = hlsnap__builder_flush(b, err);
    if (!r) r = hlsnap__memfd_seal(b->fd, err);
    if (r) return r;
    *out = hlsnap__layer_create(b->fd, true, b->pages, &why);
    b->fd = -1;
    if (*out) return HLSNAP_OK;
    if (err) *err = why;
    return why.code;
}

/* ---- >>self: the image that an address of this process lies in ---- */

/* What a file is, where it is not a regular one. */
static const char *hlsnap__file_kind(mode_t mode) {
    return S_ISDIR(mode)                      ? "a directory"
           : S_ISCHR(mode) || S_ISBLK(mode)   ? "a device"
           : S_ISFIFO(mode) || S_ISSOCK(mode) ? "a pipe or socket"
                                              : "no regular file";
}

/* All of an open file, of at most max bytes, in *data (hlsnap__free). The size is what was read, whatever stat says. */
static hlsnap_result hlsnap__fd_read(int fd, const char *shown, uint64_t max, uint8_t **data, uint64_t *size,
                                     hlsnap_error *err) {
    uint64_t cap = 65536, n = 0;
    struct stat st;
    uint8_t *p = NULL, *bigger;
    hlsnap_result r = HLSNAP_OK;
    if (fstat(fd, &st))
        r = hlsnap__fail(err, HLSNAP_ERR_OS, errno, "%s: fstat: %s (errno %d)", shown, hlsnap__errno_text(errno),
                         errno);
    else if (!S_ISREG(st.st_mode))
        r = hlsnap__fail(err, HLSNAP_ERR_OS, EINVAL, "%s is %s and not a regular file", shown,
                         hlsnap__file_kind(st.st_mode));
    else if (st.st_size > 0)
        cap = (uint64_t)st.st_size + 1;
    while (!r) {
        ssize_t k;
        if (cap > max + 1)
            r = hlsnap__fail(err, HLSNAP_ERR_LIMIT, 0, "%s is larger than %llu bytes", shown, (unsigned long long)max);
        else if (!p || n == cap) {
            if (p) cap *= 2;
            bigger = (uint8_t *)hlsnap__alloc(1, (size_t)cap, err);
            if (!bigger)
                r = HLSNAP_ERR_MEMORY;
            else if (n)
                memcpy(bigger, p, (size_t)n);
            if (bigger) hlsnap__free(p);
            if (bigger) p = bigger;
        }
        if (r) break;
        k = read(fd, p + n, (size_t)(cap - n));
        if (k < 0 && errno == EINTR) continue;
        if (k < 0)
            r = hlsnap__fail(err, HLSNAP_ERR_OS, errno, "reading %s: %s (errno %d)", shown, hlsnap__errno_text(errno),
                             errno);
        if (k <= 0) break;
        n += (uint64_t)k;
    }
    if (r)
        hlsnap__free(p);
    else
        *data = p;
    *size = n;
    return r;
}

/* The same by its path. */
static hlsnap_result hlsnap__file_read(const char *path, uint64_t max, uint8_t **data, uint64_t *size,
                                       hlsnap_error *err) {
    char shown[300];
    hlsnap_result r;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), number = errno;
    hlsnap__printable(shown, sizeof(shown), path, strlen(path), false);
    if (fd < 0)
        return hlsnap__fail(err, HLSNAP_ERR_OS, number, "cannot open %s: %s (errno %d)", shown,
                            hlsnap__errno_text(number), number);
    r = hlsnap__fd_read(fd, shown, max, data, size, err);
    close(fd);
    return r;
}

static uint64_t hlsnap__parse_hex(const char **at) {
    uint64_t v = 0;
    for (;; (*at)++) {
        char c = **at;
        if (c >= '0' && c <= '9')
            v = v * 16 + (uint64_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            v = v * 16 + (uint64_t)(c - 'a') + 10;
        else
            return v;
    }
}

/* One line of /proc/self/maps: "start-end perms offset dev inode   path". */
typedef struct hlsnap__mapping {
    uint64_t start, end, offset;
    bool readable;
    const char *id, *path; /* "dev inode", the same for all mappings of one file; NULL = no file */
    size_t id_size, path_size;
} hlsnap__mapping;

static const char *hlsnap__word_end(const char *at, const char *end) {
    while (at < end && *at != ' ') at++;
    return at;
}

static const char *hlsnap__word_next(const char *at, const char *end) {
    while (at < end && *at == ' ') at++;
    return at;
}

/* Reads the line at `line`; returns the next one, NULL where there is no whole line. */
static const char *hlsnap__mapping_parse(const char *line, const char *end, hlsnap__mapping *m) {
    const char *next = (const char *)(memchr)(line, '\n', (size_t)(end - line)), *at = line;
    if (!next) return NULL;
    m->start = hlsnap__parse_hex(&at);
    at += *at == '-';
    m->end = hlsnap__parse_hex(&at);
    at += *at == ' ';
    m->readable = *at == 'r';
    at += next - at < 5 ? 0 : 5;
    m->offset = hlsnap__parse_hex(&at);
    m->id = hlsnap__word_next(at, next);
    at = hlsnap__word_next(hlsnap__word_end(m->id, next), next);
    at = hlsnap__word_end(at, next);
    m->id_size = (size_t)(at - m->id);
    m->path = hlsnap__word_next(at, next);
    m->path_size = (size_t)(next - m->path);
    if (!m->path_size || *m->path != '/') m->path = NULL; /* [heap], [anon:NAME] */
    return next + 1;
}

/* What was found out about guest.self, by one reading of /proc/self/maps. */
typedef struct hlsnap__self {
    uint64_t address;
    uint8_t *maps;
    uint64_t maps_size;
    hlsnap__mapping held; /* the mapping that the address is in; what it maps is the file */
    bool program;         /* to be opened as /proc/self/exe: that works for a deleted file, too */
    uint64_t path_size;
    char path[4096], exe[4096]; /* of the file, the last bytes of a longer one; of the program's */
} hlsnap__self;

static bool hlsnap__mapping_find(const hlsnap__self *s, uint64_t address, hlsnap__mapping *m) {
    const char *at = (const char *)s->maps, *end = at + s->maps_size;
    while (at && at < end) {
        at = hlsnap__mapping_parse(at, end, m);
        if (at && address >= m->start && address < m->end) return true;
    }
    return false;
}

static bool hlsnap__mapping_same(const hlsnap__mapping *a, const hlsnap__mapping *b) {
    return a->path && b->path && a->id_size == b->id_size && memcmp(a->id, b->id, a->id_size) == 0;
}

/* A character of a path as maps shows it, where a newline is \012; *step is its width there. */
static char hlsnap__mapping_char(const hlsnap__mapping *m, size_t at, size_t *step) {
    const bool newline = m->path_size - at >= 4 && memcmp(m->path + at, "\\012", 4) == 0;
    *step = newline ? 4 : 1;
    return newline ? '\n' : m->path[at];
}

static void hlsnap__self_shown_path(hlsnap__self *s) {
    const size_t size = s->held.path_size, cap = sizeof(s->path);
    size_t at, step, n = 0, skip;
    s->path_size = 0;
    for (at = 0; at < size; at += step, s->path_size++) hlsnap__mapping_char(&s->held, at, &step);
    skip = s->path_size < cap ? 0 : (size_t)s->path_size - cap + 1;
    for (at = 0; at < size; at += step, n++) {
        const char c = hlsnap__mapping_char(&s->held, at, &step);
        if (n >= skip) s->path[n - skip] = c;
    }
    s->path[n - skip] = 0;
}

/* The file's path, and whether it is the program's. The links below map_files tell a newline from the characters \012, but
   not every process may read them, and no link is longer than 4,095 bytes. */
static void hlsnap__self_path(hlsnap__self *s) {
    char link[64];
    hlsnap__mapping headers;
    const ssize_t exe = readlink("/proc/self/exe", s->exe, sizeof(s->exe) - 1);
    ssize_t n;
    hlsnap__format(link, sizeof(link), "/proc/self/map_files/%llx-%llx", (unsigned long long)s->held.start,
                   (unsigned long long)s->held.end);
    n = readlink(link, s->path, sizeof(s->path) - 1);
    if (n > 0) {
        s->path[n] = 0;
        s->path_size = (uint64_t)n;
    } else {
        hlsnap__self_shown_path(s);
    }
    if (exe > 0)
        s->program = (uint64_t)exe == s->path_size && memcmp(s->exe, s->path, (size_t)exe) == 0;
    else if (s->path_size >= sizeof(s->path)) /* the program is where its headers are */
        s->program = hlsnap__mapping_find(s, getauxval(AT_PHDR), &headers) && hlsnap__mapping_same(&headers, &s->held);
}

/* The mapping that the address is in decides which file is meant: others of the same file, anywhere, mean nothing. */
static hlsnap_result hlsnap__self_find(hlsnap__self *s, hlsnap_error *err) {
    hlsnap_result r = hlsnap__file_read("/proc/self/maps", 64u << 20, &s->maps, &s->maps_size, err);
    if (r) return r;
    if (!hlsnap__mapping_find(s, s->address, &s->held))
        return hlsnap__fail(err, HLSNAP_ERR_SELF, 0, "guest.self = 0x%llx: nothing is mapped there",
                            (unsigned long long)s->address);
    if (!s->held.path)
        return hlsnap__fail(err, HLSNAP_ERR_SELF, 0,
                            "guest.self = 0x%llx is in memory that no file is mapped to; it must be static const in a "
                            "program or shared object, and one that is packed (UPX) cannot be its own guest",
                            (unsigned long long)s->address);
    hlsnap__self_path(s);
    return HLSNAP_OK;
}

/* Why the file of guest.self cannot be opened. What this process or the system has run out of is no fault of the file. */
static hlsnap_result hlsnap__self_unreadable(const hlsnap__self *s, int number, hlsnap_error *err) {
    static const char deleted[] = " (deleted)";
    const size_t n = strlen(s->path), tail = sizeof(deleted) - 1;
    const hlsnap_result code =
        number == EMFILE || number == ENFILE || number == ENOMEM || number == EIO ? HLSNAP_ERR_OS : HLSNAP_ERR_SELF;
    char shown[300];
    hlsnap__printable(shown, sizeof(shown), s->path, n, false);
    if (s->path_size >= sizeof(s->path) && !s->program)
        return hlsnap__fail(err, code, ENAMETOOLONG,
                            "guest.self: the path of its file has %llu bytes, and none of over 4095 can be opened",
                            (unsigned long long)s->path_size);
    if (code == HLSNAP_ERR_SELF && n > tail && strcmp(s->path + n - tail, deleted) == 0) {
        if (strncmp(s->path, "/memfd:", 7) == 0)
            return hlsnap__fail(err, code, number,
                                "guest.self was loaded from memory (%s): there is no file to read it from", shown);
        return hlsnap__fail(err, code, number, "guest.self: its file was deleted or replaced since it was loaded: %s",
                            shown);
    }
    return hlsnap__fail(err, code, number, "guest.self: cannot open its file %s: %s (errno %d)", shown,
                        hlsnap__errno_text(number), number);
}

static hlsnap_result hlsnap__self_read(const hlsnap__self *s, uint8_t **data, uint64_t *size, hlsnap_error *err) {
    char shown[300];
    hlsnap_result r;
    int fd = -1, number = ENAMETOOLONG;
    if (s->program || s->path_size < sizeof(s->path)) {
        fd = open(s->program ? "/proc/self/exe" : s->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        number = errno;
    }
    if (fd < 0) return hlsnap__self_unreadable(s, number, err);
    hlsnap__printable(shown, sizeof(shown), s->path, strlen(s->path), false);
    r = hlsnap__fd_read(fd, shown, HLSNAP__MAX_FILE, data, size, err);
    close(fd);
    return r;
}

/* Whether the file's segments are what is mapped, from the first to the last, where `bias` puts them. Pages without a file are
   no objection (some move their code to huge pages), other files and holes are. */
static bool hlsnap__self_fits(const hlsnap__elf *e, const hlsnap__self *s, uint64_t bias) {
    const char *at = (const char *)s->maps, *end = at + s->maps_size;
    const uint64_t mask = HLSNAP__PAGE - 1;
    uint64_t next[HLSNAP__MAX_SEGMENTS]; /* up to there all is well */
    hlsnap__mapping m;
    uint32_t i;
    for (i = 0; i < e->num_segments; i++) {
        next[i] = (e->segments[i].vaddr & ~mask) + bias;
        if (!e->segments[i].filesz)
            next[i] = UINT64_MAX;
        else if ((e->segments[i].vaddr & mask) != (e->segments[i].offset & mask))
            return false;
    }
    while (at && at < end) {
        at = hlsnap__mapping_parse(at, end, &m);
        for (i = 0; at && i < e->num_segments; i++) {
            const hlsnap__elf_segment *seg = &e->segments[i];
            if (m.end <= next[i] || m.start >= seg->vaddr + seg->filesz + bias) continue;
            if (m.start > next[i] || (seg->flags & PF_R && !m.readable)) return false;
            if (m.path && (!hlsnap__mapping_same(&m, &s->held) ||
                           m.offset - m.start != (seg->offset & ~mask) - (seg->vaddr & ~mask) - bias))
                return false;
            next[i] = m.end;
        }
    }
    for (i = 0; i < e->num_segments; i++)
        if (next[i] < e->segments[i].vaddr + e->segments[i].filesz + bias) return false;
    return true;
}

/* Where in this process the image is that the address belongs to. One page of the file may be in two segments: all that hold
   the address are tried. */
static hlsnap_result hlsnap__self_place(hlsnap__elf *e, const hlsnap__self *s, hlsnap_error *err) {
    const uint64_t at = s->held.offset + (s->address - s->held.start), mask = HLSNAP__PAGE - 1;
    char shown[300];
    uint32_t i;
    for (i = 0; i < e->num_segments; i++) {
        const hlsnap__elf_segment *seg = &e->segments[i];
        const uint64_t bias = s->address - at - (seg->vaddr - seg->offset);
        if (!seg->filesz || at < (seg->offset & ~mask) || at >= ((seg->offset + seg->filesz + mask) & ~mask)) continue;
        if ((!e->position_independent && bias) || !hlsnap__self_fits(e, s, bias)) continue;
        e->host_base = bias;
        return HLSNAP_OK;
    }
    hlsnap__printable(shown, sizeof(shown), s->path, strlen(s->path), false);
    return hlsnap__fail(
        err, HLSNAP_ERR_SELF, 0,
        "what is mapped around guest.self = 0x%llx is not the image of its file: was %s replaced, or is it packed?",
        (unsigned long long)s->address, shown);
}

/* Whether n bytes of this process are those of the file; *buffer has 64 KiB. */
static bool hlsnap__self_equal(const hlsnap__elf *e, uint64_t vaddr, uint64_t offset, uint64_t n, uint8_t *buffer) {
    uint64_t at, k;
    if (n > e->size || offset > e->size - n) return false;
    for (at = 0; at < n; at += k) {
        k = n - at < 65536 ? n - at : 65536;
        if (!hlsnap__self_live(e, vaddr + at, buffer, (size_t)k)) return false;
        if (memcmp(buffer, e->data + offset + at, (size_t)k) != 0) return false;
    }
    return true;
}

/* Compares what is read-only and of that type; counts what there was. */
static bool hlsnap__self_compare(const hlsnap__elf *e, const Elf64_Ehdr *h, uint32_t type, uint32_t *num,
                                 uint8_t *buffer) {
    uint32_t i;
    for (i = 0; i < h->e_phnum; i++) {
        Elf64_Phdr p;
        if (!hlsnap__elf_get(e, h->e_phoff + i * sizeof(p), &p, sizeof(p))) return false;
        if (p.p_type != type || p.p_flags & PF_W || !p.p_filesz || !(p.p_flags & PF_R)) continue;
        if (!hlsnap__elf_at(e, p.p_vaddr, p.p_filesz)) continue;
        if (!hlsnap__self_equal(e, p.p_vaddr, p.p_offset, p.p_filesz, buffer)) return false;
        ++*num;
    }
    return true;
}

/* The image in memory is the one in the file: same headers, same build id; without one, the same read-only bytes. */
static hlsnap_result hlsnap__self_check(const hlsnap__elf *e, hlsnap_error *err) {
    Elf64_Ehdr h;
    uint32_t i, num = 0;
    bool same = true;
    const bool have_id = e->build_id[0] != 0;
    uint8_t *buffer = (uint8_t *)hlsnap__alloc(65536, 1, err);
    if (!buffer) return HLSNAP_ERR_MEMORY;
    hlsnap__elf_get(e, 0, &h, sizeof(h));
    for (i = 0; same && i < e->num_segments; i++) { /* not every linker script loads the headers */
        const uint64_t size = h.e_phoff + h.e_phnum * sizeof(Elf64_Phdr);
        if (e->segments[i].offset == 0 && e->segments[i].filesz >= size && e->segments[i].flags & PF_R)
            same = hlsnap__self_equal(e, e->segments[i].vaddr, 0, size, buffer);
    }
    if (same && have_id) same = hlsnap__self_compare(e, &h, PT_NOTE, &num, buffer);
    if (same && !num) same = hlsnap__self_compare(e, &h, PT_LOAD, &num, buffer);
    hlsnap__free(buffer);
    if (same) return HLSNAP_OK;
    return hlsnap__fail(err, HLSNAP_ERR_SELF, 0,
                        "the program's file (build id %s) is not the one in memory: it was replaced",
                        have_id ? e->build_id : "none");
}

/* ---- >>load: a guest desc to a pre-init snapshot ---- */

/* Maps the image and copies the segments' bytes into it. */
static hlsnap_result hlsnap__image_map(hlsnap__elf *e, hlsnap_error *err) {
    uint32_t i;
    void *p =
        mmap(NULL, (size_t)e->image_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return hlsnap__fail_map(err, e->image_size, "the guest's image");
    e->image = (uint8_t *)p;
    e->written = (uint8_t *)hlsnap__alloc((size_t)(e->image_size / HLSNAP__PAGE), 1, err);
    if (!e->written) return HLSNAP_ERR_MEMORY;
    for (i = 0; i < e->num_segments; i++)
        if (e->segments[i].filesz)
            hlsnap__elf_put(e, e->image + (e->segments[i].vaddr - e->image_start), e->data + e->segments[i].offset,
                            e->segments[i].filesz);
    return HLSNAP_OK;
}

/* What makes a fresh copy of this program a guest: it knows that it is one, and where to start. */
static hlsnap_result hlsnap__self_adapt(hlsnap__elf *e, const hlsnap_module *module, hlsnap__guest *g,
                                        hlsnap_error *err) {
    const uint64_t one = 1;
    uint64_t flag;
    uint8_t *at = NULL;
    if (hlsnap__elf_host_to_guest(e, (uint64_t)(uintptr_t)&hlsnap__rt_in_guest, &flag))
        at = hlsnap__elf_at(e, flag - e->base, sizeof(one));
    if (!at || !hlsnap__elf_host_to_guest(e, (uint64_t)(uintptr_t)&hlsnap__rt_start, &g->entry) ||
        !hlsnap__elf_host_to_guest(e, (uint64_t)(uintptr_t)module, &g->module))
        return hlsnap__fail(err, HLSNAP_ERR_SELF, 0, "guest.self and hlsnap's implementation lie in different images");
    hlsnap__elf_put(e, at, &one, sizeof(one));
    g->unresolved = e->unresolved;
    g->num_unresolved = e->num_unresolved;
    e->unresolved = NULL;
    return HLSNAP_OK;
}

/* Whether a region is part of the image; if so, it is stored. */
static bool hlsnap__image_store_region(const hlsnap__elf *e, const hlsnap__layout *l, const hlsnap__region *region,
                                       hlsnap__builder *b, hlsnap_result *r, hlsnap_error *err) {
    const uint64_t start = e->image_start + e->base, offset = region->gva - start;
    if (region->gva < start || offset >= e->image_size) return false;
    *r = hlsnap__builder_range(b, hlsnap__region_page(l, region), e->image + offset, region->pages,
                               e->written + offset / HLSNAP__PAGE, err);
    return true;
}

static hlsnap_result hlsnap__image_store_tls(const hlsnap__elf *e, const hlsnap__guest *g, const hlsnap__region *region,
                                             hlsnap__builder *b, hlsnap_error *err) {
    const uint64_t size = region->pages * HLSNAP__PAGE;
    uint8_t *block = (uint8_t *)hlsnap__alloc(1, (size_t)size, err);
    const uint8_t *from = hlsnap__elf_at(e, e->tls.vaddr, e->tls.filesz);
    hlsnap_result r;
    if (!block) return HLSNAP_ERR_MEMORY;
    if (from) memcpy(block + size - g->tls_size, from, (size_t)e->tls.filesz);
    r = hlsnap__builder_range(b, hlsnap__region_page(&g->layout, region), block, region->pages, NULL, err);
    hlsnap__free(block);
    return r;
}

/* All regions that the images, a program's block and the TLS template fill. */
static hlsnap_result hlsnap__image_store(const hlsnap__elf *e, const hlsnap__guest *g, hlsnap__builder *b,
                                         hlsnap_error *err) {
    const hlsnap__layout *l = &g->layout;
    hlsnap_result r = HLSNAP_OK;
    uint32_t i;
    for (i = 0; i < l->num_regions && !r; i++) {
        const hlsnap__region *region = &l->regions[i];
        if (hlsnap__image_store_region(e, l, region, b, &r, err)) continue;
        if (e->runtime && hlsnap__image_store_region(e->runtime, l, region, b, &r, err)) continue;
        if (e->block && region->gva == e->block_gva)
            r = hlsnap__builder_range(b, hlsnap__region_page(l, region), e->block, region->pages, NULL, err);
        else if (region->kind == HLSNAP__TLS && !e->program)
            r = hlsnap__image_store_tls(e, g, region, b, err);
    }
    return r;
}

/* ---- >>load-program: a Linux program, the runtime that answers it, and what it finds at its start ---- */

#define HLSNAP__MAX_STRINGS 4096u /* args; env */

/* Adds up a list of strings; NULL among them or too many are refused. */
static hlsnap_result hlsnap__strings_size(const char *name, const char *const *list, size_t num, uint64_t *size,
                                          hlsnap_error *err) {
    size_t i;
    if (num > HLSNAP__MAX_STRINGS || (num && !list))
        return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "guest desc: num_%s=%zu, at most %u, and %s is %s", name, num,
                            HLSNAP__MAX_STRINGS, name, list ? "given" : "NULL");
    for (i = 0; i < num; i++) {
        if (!list[i]) return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "guest desc: %s[%zu] is NULL", name, i);
        *size += strlen(list[i]) + 1;
    }
    return HLSNAP_OK;
}

static uint8_t *hlsnap__strings_put(uint8_t *to, const char *const *list, size_t num) {
    size_t i;
    for (i = 0; i < num; i++) {
        const size_t n = strlen(list[i]) + 1;
        memcpy(to, list[i], n);
        to += n;
    }
    return to;
}

/* Makes the block: header, strings, archive. */
static hlsnap_result hlsnap__program_block(hlsnap__elf *e, const hlsnap_guest_desc *desc, const char *name,
                                           hlsnap_error *err) {
    const char *const name_alone[1] = {name[0] ? name : "guest"}, *const *args =
                                                                      desc->num_args ? desc->args : name_alone;
    const uint64_t num_args = desc->num_args ? desc->num_args : 1, stack = hlsnap__elf_stack_size(e, desc);
    hlsnap_abi_program p;
    hlsnap_result r;
    memset(&p, 0, sizeof(p));
    r = hlsnap__strings_size("args", args, (size_t)num_args, &p.strings_size, err);
    if (!r) r = hlsnap__strings_size("env", desc->env, desc->num_env, &p.strings_size, err);
    if (r) return r;
    if (p.strings_size + 16 * (num_args + desc->num_env) > stack / 4)
        return hlsnap__fail(err, HLSNAP_ERR_ARG, 0,
                            "guest desc: args and env take %llu bytes, a quarter of stack_size=%llu at most",
                            (unsigned long long)p.strings_size, (unsigned long long)stack);
    if ((desc->files != NULL) != (desc->files_size != 0) || desc->files_size > HLSNAP__MAX_FILE)
        return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "guest desc: files_size=%zu of %s", desc->files_size,
                            desc->files ? "files" : "no files");
    p.entry = e->entry + e->base;
    p.phdr = e->phdr ? e->phdr + e->base : 0;
    p.num_phdr = e->num_phdr;
    p.num_args = (uint32_t)num_args;
    p.num_env = (uint32_t)desc->num_env;
    p.strings = sizeof(p);
    p.files = (sizeof(p) + p.strings_size + 511) & ~511ull;
    p.files_size = desc->files_size;
    p.stack_size = stack;
    e->block_size = (p.files + p.files_size + HLSNAP__PAGE - 1) & ~(uint64_t)(HLSNAP__PAGE - 1);
    e->block = (uint8_t *)hlsnap__alloc(1, (size_t)e->block_size, err);
    if (!e->block) return HLSNAP_ERR_MEMORY;
    memcpy(e->block, &p, sizeof(p));
    hlsnap__strings_put(hlsnap__strings_put(e->block + p.strings, args, (size_t)num_args), desc->env, desc->num_env);
    if (desc->files_size) memcpy(e->block + p.files, desc->files, desc->files_size);
    return HLSNAP_OK;
}

static hlsnap_result hlsnap__image_map(hlsnap__elf *e, hlsnap_error *err);

/* The runtime of a program that has none of its own. */
static hlsnap_result hlsnap__program_runtime(hlsnap__elf *e, const char *path, uint8_t **owned, hlsnap_error *err) {
    hlsnap__elf *rt = (hlsnap__elf *)hlsnap__alloc(1, sizeof(*rt), err);
    hlsnap_error why;
    hlsnap_result r;
    if (!rt) return HLSNAP_ERR_MEMORY;
    e->runtime = rt;
    r = hlsnap__file_read(path, HLSNAP__MAX_FILE, owned, &rt->size, &why);
    if (!r) {
        rt->data = *owned;
        r = hlsnap__elf_parse(rt, &why);
    }
    if (!r && (!rt->note_syscall || !rt->position_independent || rt->tls.memsz))
        r = hlsnap__fail(&why, HLSNAP_ERR_ELF, 0, "it is %s: build examples/guests/linux.c",
                         !rt->note_syscall ? "no guest runtime"
                         : rt->tls.memsz   ? "with thread-local data"
                                           : "not position independent");
    if (!r) r = hlsnap__image_map(rt, &why);
    if (r) return hlsnap__fail(err, r, why.os_errno, "guest desc: runtime: %s", why.msg);
    rt->program = false; /* the host relocates it */
    return HLSNAP_OK;
}

/* After the program's file was read. */
static hlsnap_result hlsnap__load_program(hlsnap__elf *e, const hlsnap_guest_desc *desc, uint8_t **owned,
                                          const hlsnap__guest *g, hlsnap_error *err) {
    hlsnap_result r = HLSNAP_OK;
    if (desc->runtime && (e->program || e->self || e->noted))
        return hlsnap__fail(err, HLSNAP_ERR_ARG, 0,
                            "guest desc: runtime is set, but the guest brings a runtime of its own");
    if (desc->runtime) r = hlsnap__program_runtime(e, desc->runtime, owned, err);
    e->program = e->program || e->runtime;
    if (!r && !e->program && (desc->num_args || desc->num_env || desc->files || desc->files_size))
        return hlsnap__fail(
            err, HLSNAP_ERR_ARG, 0,
            "guest desc: args, env and files are for Linux programs: link with the runtime, or set guest.runtime");
    return r || !e->program ? r : hlsnap__program_block(e, desc, g->name, err);
}

static hlsnap_result hlsnap__load_image(hlsnap__elf *e, const hlsnap_guest_desc *desc, hlsnap__guest *g,
                                        hlsnap_error *err) {
    const hlsnap__region *at;
    const hlsnap__elf *runtime = e->runtime ? e->runtime : e;
    hlsnap_result r;
    hlsnap__elf_keep_writable(e);
    r = hlsnap__elf_layout(e, desc, &g->layout, err);
    if (!r && !e->program && e->tls.filesz && !hlsnap__elf_at(e, e->tls.vaddr, e->tls.filesz))
        r = hlsnap__fail(err, HLSNAP_ERR_ELF_SEGMENT, 0, "the thread-local template lies outside the image");
    if (!r) r = hlsnap__elf_relocate(e, err);
    if (!r && e->runtime) r = hlsnap__elf_relocate(e->runtime, err);
    at = r || e->self ? NULL : hlsnap__layout_at(&g->layout, e->base);
    if (!r && e->program && e->entry) {
        const hlsnap__region *start = hlsnap__layout_at(&g->layout, e->entry + e->base);
        if (!start || start->kind != HLSNAP__TEXT)
            return hlsnap__fail(err, HLSNAP_ERR_ELF, 0, "the entry point 0x%llx is not in the program's code",
                                (unsigned long long)e->entry);
    }
    if (!r && !e->self && !e->entry && (!at || at->kind != HLSNAP__TEXT))
        r = hlsnap__fail(err, HLSNAP_ERR_ELF, 0, "the file has no entry point: a shared object?");
    if (r) return r;
    g->entry = (e->program ? runtime->note_entry : e->entry) + runtime->base;
    g->syscall = e->program ? runtime->note_syscall + runtime->base : 0;
    g->program = e->program ? e->block_gva : 0;
    g->program_size = e->block_size;
    g->elf_entry = e->entry;
    g->load_address = e->base;
    g->tls_size = hlsnap__elf_tls_size(e);
    g->noted = e->noted || e->runtime;
    memcpy(g->build_id, e->build_id, sizeof(g->build_id));
    if (e->self) {
        r = hlsnap__self_adapt(e, desc->self, g, err);
        if (r) return r;
    }
    return hlsnap__guest_check(g, HLSNAP_ERR_ELF, err);
}

static void hlsnap__guest_name(hlsnap__guest *g, const char *path) {
    const char *slash = (strrchr)(path, '/');
    hlsnap__printable(g->name, sizeof(g->name), slash ? slash + 1 : path, strlen(slash ? slash + 1 : path), false);
}

/* Finds the image that the module is in, reads its file and checks that they agree. */
static hlsnap_result hlsnap__load_self(hlsnap__elf *e, const hlsnap_module *module, uint8_t **owned, hlsnap__guest *g,
                                       hlsnap_error *err) {
    hlsnap__self *s = (hlsnap__self *)hlsnap__alloc(1, sizeof(*s), err);
    hlsnap_result r;
    if (!s) return HLSNAP_ERR_MEMORY;
    e->self = true;
    s->address = (uint64_t)(uintptr_t)module;
    r = hlsnap__self_find(s, err);
    if (!r) r = hlsnap__self_read(s, owned, &e->size, err);
    if (!r) {
        e->data = *owned;
        hlsnap__guest_name(g, s->path);
        r = hlsnap__elf_parse(e, err);
    }
    if (!r) r = hlsnap__self_place(e, s, err);
    if (!r) r = hlsnap__image_map(e, err);
    if (!r) r = hlsnap__self_check(e, err);
    hlsnap__free(s->maps);
    hlsnap__free(s);
    return r;
}

/* Reads the file, or takes the caller's bytes. */
static hlsnap_result hlsnap__load_file(hlsnap__elf *e, const hlsnap_guest_desc *desc, uint8_t **owned, hlsnap__guest *g,
                                       hlsnap_error *err) {
    hlsnap_result r = HLSNAP_OK;
    if (desc->self) return hlsnap__load_self(e, desc->self, owned, g, err);
    e->data = (const uint8_t *)desc->data;
    e->size = desc->data_size;
    if (desc->path) {
        r = hlsnap__file_read(desc->path, HLSNAP__MAX_FILE, owned, &e->size, err);
        if (r) return r;
        e->data = *owned;
        hlsnap__guest_name(g, desc->path);
    }
    r = hlsnap__elf_parse(e, err);
    return r ? r : hlsnap__image_map(e, err);
}

static hlsnap_result hlsnap__size_check(const char *name, uint64_t size, uint64_t min, uint64_t max,
                                        hlsnap_error *err) {
    if (size % HLSNAP__PAGE)
        return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "guest desc: %s=%llu is not a multiple of %u", name,
                            (unsigned long long)size, HLSNAP__PAGE);
    if (!size || (size >= min && size <= max)) return HLSNAP_OK; /* 0: the default */
    return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "guest desc: %s=%llu is not in %llu..%llu", name,
                        (unsigned long long)size, (unsigned long long)min, (unsigned long long)max);
}

static hlsnap_result hlsnap__guest_desc_check(const hlsnap_guest_desc *d, hlsnap_error *err) {
    hlsnap_result r;
    if (!d || d->_start_canary || d->_end_canary)
        return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "guest desc is NULL or was not initialised with HLSNAP_ZERO");
    if ((d->self != NULL) + (d->path != NULL) + (d->data != NULL) != 1)
        return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "guest desc: set exactly one of self, path and data");
    r = hlsnap__size_check("heap_size", d->heap_size, HLSNAP__PAGE, HLSNAP__MAX_MEMORY, err);
    if (!r) r = hlsnap__size_check("stack_size", d->stack_size, HLSNAP__PAGE, 1u << 30, err);
    if (!r) r = hlsnap__size_check("mailbox_size", d->mailbox_size, 2 * HLSNAP__PAGE, 256u << 20, err);
    if (!r && (uint32_t)d->cpu > HLSNAP_CPU_V4)
        r = hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "guest desc: cpu=%d is no hlsnap_cpu", (int)d->cpu);
    if (!r && (uint32_t)d->prefault > HLSNAP_PREFAULT_LEARN)
        r = hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "guest desc: prefault=%d is no hlsnap_prefault", (int)d->prefault);
    return r;
}

static void hlsnap__elf_free(hlsnap__elf *e) {
    if (!e) return;
    if (e->image) munmap(e->image, (size_t)e->image_size);
    hlsnap__free(e->unresolved);
    hlsnap__free(e->written);
    hlsnap__free(e->block);
    hlsnap__free(e);
}

HLSNAP_API hlsnap_result hlsnap_snapshot_from_guest(const hlsnap_guest_desc *desc, hlsnap_snapshot **out,
                                                    hlsnap_error *err) {
    hlsnap__elf *e = NULL;
    hlsnap__guest *g = NULL;
    hlsnap__builder b = hlsnap__builder_none;
    hlsnap__layer *layer = NULL;
    uint8_t *owned = NULL, *owned_runtime = NULL;
    hlsnap_result r;
    if (!out) return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "hlsnap_snapshot_from_guest: out is NULL");
    *out = NULL;
    r = hlsnap__guest_desc_check(desc, err);
    if (!r) r = hlsnap__page_check(HLSNAP_ERR_UNSUPPORTED, err);
    if (r) return r;
    b.to_file = true;
    e = (hlsnap__elf *)hlsnap__alloc(1, sizeof(*e), err);
    g = e ? hlsnap__guest_alloc(err) : NULL;
    r = g ? hlsnap__load_file(e, desc, &owned, g, err) : HLSNAP_ERR_MEMORY;
    if (!r) r = hlsnap__load_program(e, desc, &owned_runtime, g, err);
    if (!r) r = hlsnap__load_image(e, desc, g, err);
    if (!r) {
        g->cpu = (uint32_t)desc->cpu;
        g->learn = desc->prefault == HLSNAP_PREFAULT_LEARN;
        g->features = hlsnap__cpu_level_features(g->cpu);
    }
    if (!r) r = hlsnap__image_store(e, g, &b, err);
    if (!r) r = hlsnap__builder_seal(&b, &layer, err);
    if (!r) r = hlsnap__snapshot_create(g, 0, &layer, layer ? 1 : 0, b.extents, b.num, out, err);
    hlsnap__layer_release(layer);
    hlsnap__builder_free(&b);
    hlsnap__guest_release(g);
    if (e) hlsnap__elf_free(e->runtime);
    hlsnap__elf_free(e);
    hlsnap__free(owned);
    hlsnap__free(owned_runtime);
    return r;
}

/* ---- >>unresolved: what a guest would miss ---- */

/* Whether a relocation needs a symbol that neither the file nor the runtime has; its name. */
static bool hlsnap__elf_misses(const hlsnap__elf *e, const Elf64_Rela *rel, char name[HLSNAP__MAX_SYMBOL]) {
    const uint32_t type = (uint32_t)ELF64_R_TYPE(rel->r_info);
    const uint64_t index = ELF64_R_SYM(rel->r_info);
    const bool tls = type == R_X86_64_TPOFF64 || type == R_X86_64_DTPOFF64 || type == R_X86_64_TLSDESC;
    const uint8_t *at;
    Elf64_Sym sym;
    if (!index || !(tls || type == R_X86_64_64 || type == R_X86_64_GLOB_DAT || type == R_X86_64_JUMP_SLOT))
        return false;
    at = e->symtab <= UINT64_MAX - index * sizeof(sym) ? hlsnap__elf_at(e, e->symtab + index * sizeof(sym), sizeof(sym))
                                                       : NULL;
    if (!at) return false;
    memcpy(&sym, at, sizeof(sym));
    if (sym.st_shndx != SHN_UNDEF || ELF64_ST_BIND(sym.st_info) == STB_WEAK) return false;
    if (!hlsnap__elf_name(e, sym.st_name, name) || !name[0]) return false;
    return tls ? strcmp(name, "errno") != 0 : !hlsnap__elf_bound(name);
}

static hlsnap_result hlsnap__elf_missing_of(hlsnap__elf *e, uint64_t table, uint64_t size, hlsnap_error *err) {
    char name[HLSNAP__MAX_SYMBOL], last[HLSNAP__MAX_SYMBOL] = "";
    hlsnap_result r = HLSNAP_OK;
    uint64_t at, value;
    if (size && !hlsnap__elf_stored(e, table, size))
        return hlsnap__fail(err, HLSNAP_ERR_ELF_RELOC, 0, "relocations of 0x%llx bytes at 0x%llx lie outside the file",
                            (unsigned long long)size, (unsigned long long)table);
    for (at = 0; at + sizeof(Elf64_Rela) <= size && !r; at += sizeof(Elf64_Rela)) {
        Elf64_Rela rel;
        memcpy(&rel, hlsnap__elf_at(e, table + at, sizeof(rel)), sizeof(rel));
        if (!hlsnap__elf_misses(e, &rel, name) || strcmp(name, last) == 0) continue;
        memcpy(last, name, sizeof(name));
        r = hlsnap__elf_unresolved(e, name, &value, err);
    }
    return r;
}

static int hlsnap__name_compare(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The names that were noted, sorted, each once. */
static hlsnap_result hlsnap__elf_names(const hlsnap__elf *e, char *to, size_t cap, size_t *size, hlsnap_error *err) {
    const char **names, *s = e->unresolved;
    size_t i, n, at = 0, all = 0;
    bool room = cap > 0;
    if (cap) to[0] = 0;
    if (size) *size = 0;
    if (!e->num_unresolved) return HLSNAP_OK;
    names = (const char **)hlsnap__alloc(e->num_unresolved, sizeof(*names), err);
    if (!names) return HLSNAP_ERR_MEMORY;
    for (i = 0; i < e->num_unresolved; i++, s += strlen(s) + 1) names[i] = s;
    qsort(names, e->num_unresolved, sizeof(*names), hlsnap__name_compare);
    for (i = 0; i < e->num_unresolved; i++) {
        if (i && strcmp(names[i], names[i - 1]) == 0) continue;
        n = strlen(names[i]) + 1;
        all += n;
        room = room && n < cap - at;
        if (!room) continue;
        memcpy(to + at, names[i], n - 1);
        at += n;
        to[at - 1] = '\n';
        to[at] = 0;
    }
    hlsnap__free(names);
    if (size) *size = all;
    return HLSNAP_OK;
}

HLSNAP_API hlsnap_result hlsnap_guest_unresolved(const hlsnap_guest_desc *desc, char *to, size_t cap, size_t *size,
                                                 hlsnap_error *err) {
    hlsnap__elf *e = NULL;
    hlsnap__guest *g = NULL;
    uint8_t *owned = NULL;
    hlsnap_result r = hlsnap__guest_desc_check(desc, err);
    if (!r && cap && !to) r = hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "hlsnap_guest_unresolved: to is NULL, cap=%zu", cap);
    if (!r) r = hlsnap__page_check(HLSNAP_ERR_UNSUPPORTED, err);
    if (r) return r;
    e = (hlsnap__elf *)hlsnap__alloc(1, sizeof(*e), err);
    g = e ? hlsnap__guest_alloc(err) : NULL;
    if (e) e->self = true; /* a file is looked at as if it were to be a guest of its own: what it lacks is no error */
    r = g ? hlsnap__load_file(e, desc, &owned, g, err) : HLSNAP_ERR_MEMORY;
    if (!r && e->dynamic.memsz) r = hlsnap__elf_dynamic(e, err);
    if (!r) r = hlsnap__elf_missing_of(e, e->rela, e->rela_size, err);
    if (!r) r = hlsnap__elf_missing_of(e, e->jmprel, e->jmprel_size, err);
    if (!r) r = hlsnap__elf_names(e, to, cap, size, err);
    hlsnap__guest_release(g);
    hlsnap__elf_free(e);
    hlsnap__free(owned);
    return r;
}

/* ---- >>machine: the supervisor area, made by the host at every start and never part of a snapshot ---- */

/* Guest page p has GPA 4 GiB + 2 MiB + p * 4096: clear of every legacy hole below 4 GiB. The supervisor area lies right below
   page 0, in guest-physical addresses as on the host, so that one memory slot holds both: each slot costs the kernel a grace
   period. What the guest can reach is decided by the page tables alone. */
#define HLSNAP__SYS_GVA 0x100000ull
#define HLSNAP__SYS_PAGES 128u
#define HLSNAP__SYS_SIZE (HLSNAP__SYS_PAGES * HLSNAP__PAGE)
#define HLSNAP__MEM_GPA ((4ull << 30) + (2ull << 20))
#define HLSNAP__SYS_GPA (HLSNAP__MEM_GPA - HLSNAP__SYS_SIZE)
#define HLSNAP__PAGE_GPA(page) (HLSNAP__MEM_GPA + (uint64_t)(page)*HLSNAP__PAGE)
enum hlsnap__sys_page {
    HLSNAP__SYS_TABLES,
    HLSNAP__SYS_STUBS,
    HLSNAP__SYS_STACK,
    HLSNAP__SYS_GATE,
    HLSNAP__SYS_XSAVE,
    HLSNAP__SYS_PAGING /* PML4 first, then whatever tables it takes */
};
#define HLSNAP__SYS_AT(page) (HLSNAP__SYS_GVA + (uint64_t)(page)*HLSNAP__PAGE)
#define HLSNAP__SYS_PHYS(page) (HLSNAP__SYS_GPA + (uint64_t)(page)*HLSNAP__PAGE)

/* Where SYSCALL leads in a guest that names no entry for it, on software KVM, which takes it to LSTAR whatever EFER says: not
   mapped, so that the fault can be told. */
#define HLSNAP__SYSCALL_GVA (HLSNAP__SYS_AT(HLSNAP__SYS_PAGES) - 0x100)

/* GDT selectors, in the order of SYSCALL (supervisor code, then data) and SYSRET (user data, then code). */
#define HLSNAP__SEL_CODE0 0x08u
#define HLSNAP__SEL_DATA0 0x10u
#define HLSNAP__SEL_DATA3 0x1bu
#define HLSNAP__SEL_CODE3 0x23u
#define HLSNAP__SEL_TSS 0x28u
#define HLSNAP__GDT_SIZE 0x38u
#define HLSNAP__IDT_OFFSET 0x800u /* in the tables page */
#define HLSNAP__IST_TOP 0x800u    /* in the stack page, whose end is RSP0's */
#define HLSNAP__TSS_OFFSET 0x100u /* in the tables page */
#define HLSNAP__TSS_BITMAP 0x68u  /* in the TSS: one bit a port, ports 0..255, then 0xff */
#define HLSNAP__TSS_SIZE (HLSNAP__TSS_BITMAP + 33u)
#define HLSNAP__NUM_VECTORS 32u
#define HLSNAP__PORT_FAULT 0x20u   /* + vector: stubs leave by these, which the bitmap denies to the guest */
#define HLSNAP__GATE_ENTER 0u      /* offsets in the gate page: jump to r11 */
#define HLSNAP__GATE_SCRUB 16u     /* the same after clearing all vector state; r10 = the XSAVE image */
#define HLSNAP__GATE_KEYS 32u      /* the same after clearing PKRU, and, unless r10 is 0, all vector state */
#define HLSNAP__GATE_SYSRET 0x80u  /* SYSCALL's stub returns to here, at CPL 3, with number and return address in rax */
#define HLSNAP__GATE_SYSCALL 0xa0u /* on to the guest's system-call entry: rax = number, rcx = return address */
#define HLSNAP__GATE_SLOT 0xb0u    /* that entry's address, or HLSNAP__SYSCALL_GVA */
#define HLSNAP__STUB_SYSCALL 0x400u /* in the stubs page: where SYSCALL leads at CPL 0 */
#define HLSNAP__STUB_SYSCALL_SIZE 28u

/* Page-table entry bits. A and D are preset, so no CPU and no shadow MMU ever writes a table. */
#define HLSNAP__PTE_P 1ull
#define HLSNAP__PTE_W 2ull
#define HLSNAP__PTE_U 4ull
#define HLSNAP__PTE_AD 0x60ull
#define HLSNAP__PTE_PS 0x80ull
#define HLSNAP__PTE_NX (1ull << 63)
#define HLSNAP__PTE_TABLE (HLSNAP__PTE_P | HLSNAP__PTE_W | HLSNAP__PTE_U | 0x20ull)

static void hlsnap__put64(uint8_t *at, uint64_t v) { memcpy(at, &v, 8); }
static uint64_t hlsnap__get64(const uint8_t *at) {
    uint64_t v;
    memcpy(&v, at, 8);
    return v;
}

typedef struct hlsnap__paging {
    uint8_t *sys;  /* host address of the supervisor area */
    uint32_t used; /* pages of it */
} hlsnap__paging;

/* The entry for gva in a table of the given level (3 = PML4 .. 0), tables made on the way. */
static uint8_t *hlsnap__pte(hlsnap__paging *p, uint64_t gva, int level) {
    uint64_t table = HLSNAP__SYS_PAGING;
    int i;
    for (i = 3;; i--) {
        uint8_t *entry = p->sys + table * HLSNAP__PAGE + (gva >> (12 + 9 * i) & 511) * 8;
        if (i == level) return entry;
        if (!hlsnap__get64(entry)) {
            HLSNAP_ASSERT(p->used < HLSNAP__SYS_PAGES);
            hlsnap__put64(entry, HLSNAP__SYS_PHYS(p->used++) | HLSNAP__PTE_TABLE);
        }
        table = ((hlsnap__get64(entry) & 0x000ffffffffff000ull) - HLSNAP__SYS_GPA) / HLSNAP__PAGE;
    }
}

static uint64_t hlsnap__kind_pte(uint32_t kind) {
    if (kind == HLSNAP__TEXT) return HLSNAP__PTE_P | HLSNAP__PTE_U | HLSNAP__PTE_AD;
    return HLSNAP__PTE_P | HLSNAP__PTE_U | HLSNAP__PTE_AD | HLSNAP__PTE_NX |
           (hlsnap__kind_writable(kind) ? HLSNAP__PTE_W : 0);
}

/* Shows `pages` pages from gva on, which lie one behind the other from page number `page` on. At most 1 PML4 + 2 + 33 upper
   tables + 2 page tables a region: 128 pages hold any layout that passed its check. */
static void hlsnap__paging_show(hlsnap__paging *p, uint64_t gva, uint64_t page, uint64_t pages, uint64_t bits) {
    const uint64_t huge = 2u << 20, end = gva + pages * HLSNAP__PAGE;
    uint64_t gpa = HLSNAP__PAGE_GPA(page);
    while (gva < end) { /* as many entries of one table as there are */
        const int level = gva % huge == 0 && end - gva >= huge;
        const uint64_t step = level ? huge : HLSNAP__PAGE, entry = bits | (level ? HLSNAP__PTE_PS : 0);
        uint8_t *at = hlsnap__pte(p, gva, level);
        uint64_t n = 512 - gva / step % 512;
        for (; n && end - gva >= step; n--, at += 8, gva += step, gpa += step) hlsnap__put64(at, entry | gpa);
    }
}

/* Tables that maps need at most, beside the window's: of 1 GiB each, and one for the end of each map. */
static uint32_t hlsnap__paging_of_maps(const hlsnap__map *maps, uint32_t num) {
    uint32_t i, tables = num ? 1 : 0;
    uint64_t next = 0; /* GiB that has no table yet */
    for (i = 0; i < num; i++) {
        const uint64_t first = maps[i].gva >> 30, last = (maps[i].gva + maps[i].size - 1) >> 30;
        if (first > next || i == 0) next = first;
        if (last >= next) tables += (uint32_t)(last + 1 - next);
        next = last + 1;
        tables++;
    }
    return tables;
}

/* A 64-bit descriptor word: the accessed bit is preset, because the CPU could not write it. */
static uint64_t hlsnap__segment(uint64_t type, uint64_t dpl, uint64_t code) {
    return 0xffffull | type << 40 | 1ull << 44 | dpl << 45 | 1ull << 47 | 0xfull << 48 | code << 53 | (1 - code) << 54 |
           1ull << 55;
}

static void hlsnap__machine_tables(uint8_t *page) {
    const uint64_t tss = HLSNAP__SYS_AT(HLSNAP__SYS_TABLES) + HLSNAP__TSS_OFFSET;
    uint8_t *t = page + HLSNAP__TSS_OFFSET;
    hlsnap__put64(page + HLSNAP__SEL_CODE0, hlsnap__segment(11, 0, 1));
    hlsnap__put64(page + HLSNAP__SEL_DATA0, hlsnap__segment(3, 0, 0));
    hlsnap__put64(page + (HLSNAP__SEL_CODE3 & ~3u), hlsnap__segment(11, 3, 1));
    hlsnap__put64(page + (HLSNAP__SEL_DATA3 & ~3u), hlsnap__segment(3, 3, 0));
    hlsnap__put64(page + HLSNAP__SEL_TSS, (HLSNAP__TSS_SIZE - 1) | (tss & 0xffffff) << 16 | 11ull << 40 | 1ull << 47 |
                                              (tss >> 24 & 0xff) << 56);
    hlsnap__put64(page + HLSNAP__SEL_TSS + 8, tss >> 32);
    hlsnap__put64(t + 4, HLSNAP__SYS_AT(HLSNAP__SYS_STACK + 1));                /* RSP0: the end of the page */
    hlsnap__put64(t + 36, HLSNAP__SYS_AT(HLSNAP__SYS_STACK) + HLSNAP__IST_TOP); /* IST1 */
    t[102] = (uint8_t)HLSNAP__TSS_BITMAP;                                       /* offset of the bitmap */
    memset(t + HLSNAP__TSS_BITMAP, 0xff, 33);
    t[HLSNAP__TSS_BITMAP + HLSNAP_ABI_PORT_RETURN / 8] &= (uint8_t) ~(1u << HLSNAP_ABI_PORT_RETURN % 8);
    t[HLSNAP__TSS_BITMAP + HLSNAP_ABI_PORT_CALL / 8] &= (uint8_t) ~(1u << HLSNAP_ABI_PORT_CALL % 8);
}

/* IDT gates of DPL 0 (INT3 and INTO reach them from CPL 3 as vectors 3 and 4), one OUT per vector behind them. */
static void hlsnap__machine_stubs(uint8_t *idt, uint8_t *stubs) {
    uint32_t v;
    for (v = 0; v < HLSNAP__NUM_VECTORS; v++) {
        const uint64_t at = HLSNAP__SYS_AT(HLSNAP__SYS_STUBS) + v * 4, dpl = v == 3 || v == 4 ? 3 : 0;
        /* those that could hit SYSCALL's stub, too, which runs on the guest's RSP: MOV SS before it holds a #DB back */
        const uint64_t ist = v == 1 || v == 2 || v == 8 || v == 18;
        static const uint8_t loop[2] = {0xeb, 0xfc};
        hlsnap__put64(idt + v * 16, (at & 0xffff) | HLSNAP__SEL_CODE0 << 16 | ist << 32 | 0x8eull << 40 | dpl << 45 |
                                        (at >> 16 & 0xffff) << 48);
        hlsnap__put64(idt + v * 16 + 8, at >> 32);
        stubs[v * 4] = 0xe6; /* out %al, $imm8; the host never resumes it, the jump is for the day it would */
        stubs[v * 4 + 1] = (uint8_t)(HLSNAP__PORT_FAULT + v);
        memcpy(stubs + v * 4 + 2, loop, 2);
    }
}

/* The gate is entered at CPL 3 at addresses where no OUT stands, so no completion of a former tenant's exit can hit it. Its
   XRSTOR is of the compacted form: all components take their initial values from a 576-byte image. That is memory, which PKRU may
   forbid to read, though not to fetch code from: it is cleared first. */
static void hlsnap__machine_gate(uint8_t *gate, uint8_t *image) {
    static const uint8_t enter[] = {0x41, 0xff, 0xe3};                  /* jmp *%r11 */
    static const uint8_t scrub[] = {0x49, 0x0f, 0xae, 0x2a, 0x31, 0xc0, /* xrstor64 (%r10); xor %eax, %eax */
                                    0x31, 0xd2, 0x45, 0x31, 0xd2,       /* xor %edx, %edx; xor %r10d, %r10d */
                                    0x41, 0xff, 0xe3};                  /* jmp *%r11 */
    static const uint8_t keys[] = {0x31, 0xc0, 0x31, 0xd2, 0x0f, 0x01, 0xef, /* xor %eax, %eax; xor %edx, %edx; wrpkru: ecx is 0 */
                                   0x4d, 0x85, 0xd2,                         /* test %r10, %r10 */
                                   0x74, 0xff & (HLSNAP__GATE_ENTER - HLSNAP__GATE_KEYS - 12), /* jz enter */
                                   0x83, 0xc8, 0xff, 0x83, 0xca, 0xff,       /* or $-1, %eax; or $-1, %edx */
                                   0xeb, 0xff & (HLSNAP__GATE_SCRUB - HLSNAP__GATE_KEYS - 20)}; /* jmp scrub */
    memset(gate, 0xf4, HLSNAP__PAGE);
    memcpy(gate + HLSNAP__GATE_ENTER, enter, sizeof(enter));
    memcpy(gate + HLSNAP__GATE_SCRUB, scrub, sizeof(scrub));
    memcpy(gate + HLSNAP__GATE_KEYS, keys, sizeof(keys));
    hlsnap__put64(image + 520, 1ull << 63); /* XCOMP_BV; XSTATE_BV = 0: everything initial, MXCSR 0x1f80 included */
}

/* SYSCALL, in a guest that names an entry for it, comes back to CPL 3 at once, by constant instructions that touch no memory and
   no stack: number (65535 for all beyond) and return address travel in rax, every other register is the guest's, RCX and the
   flags of SYSRET are not. Software KVM goes to GATE_SYSCALL straight away. */
static void hlsnap__machine_syscall(uint8_t *stubs, uint8_t *gate) {
    // clang-format off
    static const uint8_t stub[HLSNAP__STUB_SYSCALL_SIZE] = {
        0x48, 0x3d, 0xff, 0xff, 0x00, 0x00,     /*    cmp $65535, %rax */
        0x76, 0x05,                             /*    jbe 1f */
        0xb8, 0xff, 0xff, 0x00, 0x00,           /*    mov $65535, %eax */
        0x48, 0xc1, 0xe0, 0x30,                 /* 1: shl $48, %rax */
        0x48, 0x09, 0xc8,                       /*    or %rcx, %rax */
        0xb9, HLSNAP__GATE_SYSRET, 0x30, 0x10, 0x00, /* mov $gate, %ecx */
        0x48, 0x0f, 0x07};                      /*    sysretq */
    static const uint8_t back[] = {
        0x48, 0x89, 0xc1, 0x48, 0xc1, 0xe1, 0x10, /* mov %rax, %rcx; shl $16, %rcx */
        0x48, 0xc1, 0xe9, 0x10, 0x48, 0xc1, 0xe8, 0x30, /* shr $16, %rcx; shr $48, %rax */
        0xff, 0x25, HLSNAP__GATE_SLOT - HLSNAP__GATE_SYSRET - 21, 0, 0, 0}; /* jmp *slot */
    static const uint8_t on[] = {0xff, 0x25, HLSNAP__GATE_SLOT - HLSNAP__GATE_SYSCALL - 6, 0, 0, 0};
    // clang-format on
    memcpy(stubs + HLSNAP__STUB_SYSCALL, stub, sizeof(stub));
    memcpy(gate + HLSNAP__GATE_SYSRET, back, sizeof(back));
    memcpy(gate + HLSNAP__GATE_SYSCALL, on, sizeof(on));
}
HLSNAP__STATIC_ASSERT(gate, HLSNAP__SYS_AT(HLSNAP__SYS_GATE) + HLSNAP__GATE_SYSRET == 0x103080u);

/* Where SYSCALL leads from the gate on: an address that CPL 3 jumps to; at every start. */
static void hlsnap__machine_slot(uint8_t *sys, uint64_t syscall_entry) {
    hlsnap__put64(sys + HLSNAP__SYS_GATE * HLSNAP__PAGE + HLSNAP__GATE_SLOT,
                  syscall_entry ? syscall_entry : HLSNAP__SYSCALL_GVA);
}

/* Fills the supervisor area (zeroed, HLSNAP__SYS_PAGES pages) for a layout; returns the pages used. */
static uint32_t hlsnap__machine_build(uint8_t *sys, const hlsnap__layout *l) {
    hlsnap__paging p;
    uint32_t i;
    p.sys = sys;
    p.used = HLSNAP__SYS_PAGING + 1;
    hlsnap__machine_tables(sys + HLSNAP__SYS_TABLES * HLSNAP__PAGE);
    hlsnap__machine_stubs(sys + HLSNAP__SYS_TABLES * HLSNAP__PAGE + HLSNAP__IDT_OFFSET,
                          sys + HLSNAP__SYS_STUBS * HLSNAP__PAGE);
    hlsnap__machine_gate(sys + HLSNAP__SYS_GATE * HLSNAP__PAGE, sys + HLSNAP__SYS_XSAVE * HLSNAP__PAGE);
    hlsnap__machine_syscall(sys + HLSNAP__SYS_STUBS * HLSNAP__PAGE, sys + HLSNAP__SYS_GATE * HLSNAP__PAGE);
    for (i = 0; i < HLSNAP__SYS_PAGING; i++) {
        uint64_t bits = HLSNAP__PTE_P | HLSNAP__PTE_AD;
        if (i == HLSNAP__SYS_STACK) bits |= HLSNAP__PTE_W;
        if (i == HLSNAP__SYS_GATE || i == HLSNAP__SYS_XSAVE) bits |= HLSNAP__PTE_U;
        if (i != HLSNAP__SYS_GATE && i != HLSNAP__SYS_STUBS) bits |= HLSNAP__PTE_NX;
        hlsnap__put64(hlsnap__pte(&p, HLSNAP__SYS_AT(i), 0), HLSNAP__SYS_PHYS(i) | bits);
    }
    for (i = 0; i < l->num_regions; i++) {
        const hlsnap__region *r = &l->regions[i];
        hlsnap__paging_show(&p, r->gva, hlsnap__region_page(l, r), r->pages, hlsnap__kind_pte(r->kind));
    }
    return p.used;
}

/* ---- >>hypervisor: what a hypervisor does for a sandbox; hlsnap_kvm.h is one, the tests' fake another ---- */

typedef enum hlsnap__exit_kind {
    HLSNAP__EXIT_RETURN,
    HLSNAP__EXIT_CALL,
    HLSNAP__EXIT_FAULT,
    HLSNAP__EXIT_KICKED,   /* a signal: the caller decides whether it was a cancel, the time limit or nothing */
    HLSNAP__EXIT_PROTOCOL, /* the guest left in a way that is none of ours */
    HLSNAP__EXIT_DEAD      /* the hypervisor failed */
} hlsnap__exit_kind;

typedef struct hlsnap__exit {
    hlsnap__exit_kind kind;
    uint32_t vector, error_code;
    uint64_t rip, cr2, rax, rcx; /* FAULT */
    hlsnap_result code;          /* DEAD: what the call returns */
    int os_errno;
    bool dead;      /* the shell is of no use any more */
    bool outer;     /* KICKED by the time limit of a call around this one, on the same thread */
    char what[192]; /* PROTOCOL, DEAD: for the message */
} hlsnap__exit;

typedef struct hlsnap__entry {
    uint64_t rip, rsp, rdi, rsi, fs_base;
    bool syscall; /* SYSCALL leads on to the gate's slot, and the guest may set FS and GS bases; else it is a fault */
    bool fresh;   /* after a restore: every register is rewritten, vector state cleared */
} hlsnap__entry;

typedef struct hlsnap__slot {
    uint32_t number; /* 0 .. HLSNAP_MAX_MAPS */
    bool readonly;   /* for the VM */
    uint64_t gpa, size;
    void *hva;
} hlsnap__slot;

typedef struct hlsnap__span { /* GVAs of pages, all of which code at CPL 3 may read */
    uint64_t from, to;
    bool write; /* and write */
} hlsnap__span;

typedef struct hlsnap__shell hlsnap__shell; /* one VM with one vCPU; each hypervisor has its own */

struct hlsnap_hypervisor {
    const char *name;
    uint32_t quirks; /* for tests: bits by which an implementation avoids its faster ways */
    /* cpu: an hlsnap_cpu, what the VM shows to whatever runs in it, for good */
    hlsnap_result (*shell_create)(const hlsnap_hypervisor *hv, int cancel_signal, uint32_t cpu, hlsnap__shell **out,
                                  hlsnap_error *err);
    /* forked: in the child of a fork, where only file descriptors may be closed and heap memory freed */
    void (*shell_destroy)(hlsnap__shell *shell, bool forked);
    /* Memory of the VM. Slot 0 is from GPA HLSNAP__SYS_GPA on: the supervisor area, then guest memory; the others are maps.
       Slots do not overlap. size 0 takes the slot away, and nothing of it can be seen any more. */
    hlsnap_result (*map)(hlsnap__shell *shell, const hlsnap__slot *slot, hlsnap_error *err);
    /* A call begins and ends on one thread. Without `cancellable` nobody will call cancel; begin may be called again during the
       call, with the same deadlines, to change that. */
    hlsnap_result (*begin)(hlsnap__shell *shell, const uint64_t deadlines[HLSNAP__CLOCKS], bool cancellable,
                           hlsnap_error *err);
    void (*end)(hlsnap__shell *shell);
    /* Runs to the next exit; entry NULL goes on where the last one was. */
    void (*run)(hlsnap__shell *shell, const hlsnap__entry *entry, hlsnap__exit *out);
    /* Makes a run in progress, or the next one before end(), return KICKED; any thread, between begin and end only. */
    void (*cancel)(hlsnap__shell *shell);
    /* 2^32 ns over a tick of the guest's time stamp counter; 0 = not known. NULL = never known */
    uint64_t (*tsc_scale)(hlsnap__shell *shell);
    /* Whether guests that name an entry for SYSCALL can run; NULL = they cannot */
    hlsnap_result (*syscall_check)(hlsnap__shell *shell, hlsnap_error *err);
    /* Whether the VM, with its memory mapped, shows the level that it was created with, of which the machine has all;
       NULL = it shows but HLSNAP_CPU_HOST */
    hlsnap_result (*cpu_check)(hlsnap__shell *shell, hlsnap_error *err);
    /* Has the VM, with its memory mapped, know these pages before the guest touches them, whose content stays; outside calls. The
       next call will enter with `entry`. What cannot be done for now is left: only a shell that is of no use any more is a
       failure, as *out says. NULL = it cannot */
    void (*touch)(hlsnap__shell *shell, const hlsnap__entry *entry, const hlsnap__span *spans, uint32_t num, hlsnap__exit *out);
};

/* ---- >>guest-memory: a window mapped from a snapshot, and the pages of it that became private ---- */

typedef struct hlsnap__hot { /* a page that is, or may be, private to this sandbox */
    uint32_t page;
    uint32_t idle;              /* restores in a row that found it unchanged */
    const hlsnap__layer *layer; /* where the content it is put back to stands; NULL = zero */
    uint32_t layer_page;
} hlsnap__hot;

/* A map, as this sandbox has it. */
typedef struct hlsnap__mapped {
    hlsnap__map map; /* gva 0: it has no place yet */
    uint64_t first, pages;
    uint8_t *hva;     /* NULL: nothing reserved yet */
    size_t reserved;  /* bytes of it that are ours; 0 = memory of the host */
    hlsnap__layer *layer; /* stored ones: what it shows where no extent has a page, from page `at` on; NULL = zero */
    uint64_t at;
    uint32_t slot;
    bool given;       /* by the host: it stays; else it is of the snapshot that is restored */
    bool trusted;     /* as the window's */
    bool shown;       /* its slot is set */
    bool in_base, in_target; /* these snapshots have it: their extents hold */
} hlsnap__mapped;

typedef struct hlsnap__memory {
    uint8_t *mem;      /* host address of the window, 2 MiB aligned; NULL = none */
    uint32_t sys_used; /* pages of the supervisor area, which lies right below mem, that are not zero */
    void *reservation;
    size_t reserved;             /* bytes */
    hlsnap__layout layout;       /* of what is mapped */
    hlsnap_snapshot *base;       /* what the window is mapped from */
    hlsnap_snapshot *under;      /* what it was mapped from before the guest mapped images; NULL = it did not */
    hlsnap_snapshot *target;     /* what a reset puts back; its content and base's differ in hot pages only */
    bool trusted;                /* no layer under the mapping can be truncated by a stranger */
    bool watched;                /* a layer under it, or one that a reset reads, has a watch */
    bool valid;                  /* the mapping and the hot set describe each other; else only mapping afresh helps */
    bool forget;                 /* the next reset maps afresh, so that nobody can tell which pages were used */
    int pagemap;                 /* /proc/self/pagemap; -1 = not open */
    uint64_t scan_from, scan_to; /* pages: all that the guest can write, and the identity page, lie between */
    uint32_t given_back;         /* pages new to the last scan, when they were so many that memory was mapped afresh */
    hlsnap__hot *hot;
    uint32_t num_hot, cap_hot;
    uint32_t num_copied; /* of the hot ones: those that mapping afresh would make private, too */
    uint32_t num_mapped; /* mappings of layers in the window */
    uint32_t idled;      /* times that a page was found unchanged, as long as the window is not settled */
    bool settled;        /* what was copied is mapped instead, where it comes in runs */
    uint64_t *is_hot; /* bitmaps over all pages */
    uint64_t *pinned; /* pages whose content the mapping below does not have */
    size_t words;     /* of each */
    hlsnap__mapped *maps; /* by address; NULL = there never was one */
    uint32_t num_maps;
    uint32_t sys_window; /* of sys_used: all but the tables of maps */
    uint64_t copied_bytes;
    uint32_t resets; /* in place, so that every eighth looks at pages that kept changing */
    bool learns;     /* mapped from a snapshot that wants to know which pages first calls write, */
    bool ran;        /* and the guest has run since */
    bool huge;       /* sandbox_desc.huge_pages */
    uint32_t prefaulted; /* pages, when it was last given to the VM */
    bool sorted;     /* hot, by page */
} hlsnap__memory;

#define HLSNAP__IDLE_RESETS 16u /* then a page is given back, in batches */
#define HLSNAP__IDLE_BATCH 32u
#define HLSNAP__HOT_MANY 2048u  /* so many new pages are given back at once, */
#define HLSNAP__HOT_IDLE 256u   /* so many that were found unchanged twice, */
#define HLSNAP__HOT_MOST 16384u /* and so many in any case */
#define HLSNAP__STUCK_RESETS 8u /* where another snapshot is mapped: found unchanged so often, */
#define HLSNAP__STUCK_MANY 64u  /* so many pages have the target's content laid below them, */
#define HLSNAP__REST_RUNS 256u  /* in so many pieces at most; else all is mapped */
#define HLSNAP__MADV_POPULATE_WRITE 23
#define HLSNAP__MADV_WIPEONFORK 18

/* struct pm_scan_arg and PAGEMAP_SCAN of Linux 6.7, which older headers lack */
typedef struct hlsnap__pm_scan {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages, category_inverted, category_mask,
        category_anyof_mask, return_mask;
} hlsnap__pm_scan;
typedef struct hlsnap__pm_region {
    uint64_t start, end, categories;
} hlsnap__pm_region;
#define HLSNAP__PAGEMAP_SCAN 0xc0606610ul
#define HLSNAP__PM_FILE 4u
#define HLSNAP__PM_PRESENT 8u
#define HLSNAP__PM_SWAPPED 16u
#define HLSNAP__PM_PFNZERO 32u

static int hlsnap__ioctl(int fd, unsigned long request, uintptr_t arg) {
    return (int)syscall(SYS_ioctl, fd, request, arg);
}

static bool hlsnap__bit(const uint64_t *map, uint64_t i) { return map[i / 64] >> (i % 64) & 1; }
static void hlsnap__bit_set(uint64_t *map, uint64_t i) { map[i / 64] |= 1ull << (i % 64); }
static void hlsnap__bit_clear(uint64_t *map, uint64_t i) { map[i / 64] &= ~(1ull << (i % 64)); }

/* The map of a page, or NULL. */
static hlsnap__mapped *hlsnap__mapped_at(const hlsnap__memory *m, uint64_t page) {
    uint32_t i;
    for (i = 0; page > m->layout.pages && i < m->num_maps; i++)
        if (page - m->maps[i].first < m->maps[i].pages) return &m->maps[i];
    return NULL;
}

/* Host address of a page that is there. */
static uint8_t *hlsnap__memory_at(const hlsnap__memory *m, uint64_t page) {
    const hlsnap__mapped *x = hlsnap__mapped_at(m, page);
    return x ? x->hva + (page - x->first) * HLSNAP__PAGE : m->mem + page * HLSNAP__PAGE;
}
/* The supervisor area. */
static uint8_t *hlsnap__memory_sys(const hlsnap__memory *m) { return m->mem - HLSNAP__SYS_SIZE; }

/* Whether the page cannot be taken away by a stranger. */
static bool hlsnap__memory_trusts(const hlsnap__memory *m, uint64_t page) {
    const hlsnap__mapped *x = hlsnap__mapped_at(m, page);
    return x ? x->trusted : m->trusted;
}

/* Whether that holds of all memory. */
static bool hlsnap__memory_trusted(const hlsnap__memory *m) {
    uint32_t i;
    for (i = 0; i < m->num_maps; i++)
        if (!m->maps[i].trusted) return false;
    return m->trusted;
}

/* Copies between this process and guest memory, from byte `skip` of a page on, whose backing a stranger may have truncated: an
   error, never SIGBUS. The kernel copies less than 2 GiB at once, and no further than there is something. */
static hlsnap_result hlsnap__memory_move(const hlsnap__memory *m, void *mine, uint64_t page, size_t skip, size_t n,
                                         bool write, hlsnap_error *err) {
    uint8_t *theirs = hlsnap__memory_at(m, page) + skip;
    struct iovec local, remote;
    size_t done = 0;
    if (hlsnap__memory_trusts(m, page)) {
        memcpy(write ? theirs : mine, write ? mine : theirs, n);
        return HLSNAP_OK;
    }
    while (done < n) {
        ssize_t k;
        local.iov_base = (uint8_t *)mine + done;
        remote.iov_base = theirs + done;
        local.iov_len = remote.iov_len = n - done;
        /* long, since the kernel looks at all 64 bits, of which varargs leave the upper half of an int undefined */
        k = syscall(write ? SYS_process_vm_writev : SYS_process_vm_readv, getpid(), &local, 1l, &remote, 1l, 0l);
        if (k < 0 && (errno == EPERM || errno == ENOSYS))
            return hlsnap__fail(err, HLSNAP_ERR_OS, errno,
                                "process_vm_%s of this process's own memory: %s (errno %d): a snapshot whose files are "
                                "not guarded needs it",
                                write ? "writev" : "readv", hlsnap__errno_text(errno), errno);
        if (k < 0 && errno != EFAULT)
            return hlsnap__fail(err, HLSNAP_ERR_OS, errno, "process_vm_%s: %s (errno %d)", write ? "writev" : "readv",
                                hlsnap__errno_text(errno), errno);
        if (k <= 0)
            return hlsnap__fail(err, HLSNAP_ERR_CHANGED, k < 0 ? errno : 0,
                                "guest memory is gone: a file below it was truncated");
        done += (size_t)k;
    }
    return HLSNAP_OK;
}

/* The page's bytes, through `bounce` where they cannot be trusted to be there. */
static hlsnap_result hlsnap__memory_peek(const hlsnap__memory *m, uint64_t page, uint8_t *bounce, const uint8_t **out,
                                         hlsnap_error *err) {
    *out = hlsnap__memory_trusts(m, page) ? hlsnap__memory_at(m, page) : bounce;
    return *out == bounce ? hlsnap__memory_move(m, bounce, page, 0, HLSNAP__PAGE, false, err) : HLSNAP_OK;
}

/* Whether the guest can write to a page. */
static bool hlsnap__page_writable(const hlsnap__memory *m, uint64_t page) {
    const hlsnap__mapped *x = hlsnap__mapped_at(m, page);
    const hlsnap__region *r;
    if (x) return x->map.mode != HLSNAP_MAP_READ;
    r = hlsnap__layout_at(&m->layout, m->layout.base + page * HLSNAP__PAGE);
    return r && hlsnap__kind_writable(r->kind);
}

/* Whether a page is one that is put back: not of a map that is not there, nor of one that is the host's own. */
static bool hlsnap__page_ours(const hlsnap__memory *m, uint64_t page) {
    const hlsnap__mapped *x = hlsnap__mapped_at(m, page);
    return x ? hlsnap__map_stored(&x->map) : page < m->layout.pages;
}

/* Where a page's content in snapshot s stands. */
static void hlsnap__hot_source(const hlsnap__memory *m, hlsnap__hot *h, const hlsnap_snapshot *s) {
    const hlsnap__mapped *x = hlsnap__mapped_at(m, h->page);
    const bool has = !x || (s == m->base ? x->in_base : s != m->target || x->in_target);
    const hlsnap__extent *e = has ? hlsnap__extent_at(s, h->page) : NULL;
    h->layer = e ? s->layers[e->layer] : NULL;
    h->layer_page = e ? e->layer_page + (h->page - e->page) : 0;
    if (e || !x || !x->layer || (has && x->map.capture)) return;
    h->layer = x->layer;
    h->layer_page = (uint32_t)(x->at + (h->page - x->first));
}

/* The page's bytes, as hlsnap__memory_peek, and whether they are other than in snapshot s; `two` has room for two pages. */
static hlsnap_result hlsnap__memory_differs(const hlsnap__memory *m, uint64_t page, const hlsnap_snapshot *s,
                                            uint8_t *two, const uint8_t **now, bool *differs, hlsnap_error *err) {
    const uint8_t *old = two + HLSNAP__PAGE;
    hlsnap__hot source;
    hlsnap_result r = hlsnap__memory_peek(m, page, two, now, err);
    if (r) return r;
    source.page = (uint32_t)page;
    hlsnap__hot_source(m, &source, s);
    if (!source.layer)
        old = NULL;
    else if (source.layer->map)
        old = source.layer->map + (uint64_t)source.layer_page * HLSNAP__PAGE;
    else
        r = hlsnap__layer_read(source.layer, source.layer_page, 1, two + HLSNAP__PAGE, err);
    if (r) return r;
    *differs = old ? memcmp(*now, old, HLSNAP__PAGE) != 0 : !hlsnap__all_zero(*now, HLSNAP__PAGE);
    return HLSNAP_OK;
}

/* Every page that is or becomes private passes here: found by a scan, copied in, or written by the host. */
static hlsnap_result hlsnap__hot_add(hlsnap__memory *m, uint64_t page, hlsnap_error *err) {
    hlsnap__hot *h;
    if (hlsnap__bit(m->is_hot, page)) return HLSNAP_OK;
    if (m->num_hot == m->cap_hot) {
        const uint32_t cap = m->cap_hot ? m->cap_hot * 2 : 64;
        hlsnap__hot *bigger = (hlsnap__hot *)hlsnap__alloc(cap, sizeof(*bigger), err);
        if (!bigger) return HLSNAP_ERR_MEMORY;
        if (m->num_hot) memcpy(bigger, m->hot, m->num_hot * sizeof(*bigger));
        hlsnap__free(m->hot);
        m->hot = bigger;
        m->cap_hot = cap;
    }
    h = &m->hot[m->num_hot++];
    h->page = (uint32_t)page;
    h->idle = 0;
    hlsnap__hot_source(m, h, m->target);
    hlsnap__bit_set(m->is_hot, page);
    m->sorted = false;
    return HLSNAP_OK;
}

/* Pages whose content goes, those of a map for instance, are not put back any more. */
static void hlsnap__hot_forget(hlsnap__memory *m, uint64_t first, uint64_t pages) {
    uint32_t i, kept = 0;
    uint64_t page;
    for (i = 0; i < m->num_hot; i++)
        if (m->hot[i].page - first >= pages) m->hot[kept++] = m->hot[i];
    m->num_hot = kept;
    if (m->num_copied > kept) m->num_copied = kept;
    for (page = first; page < first + pages && page < m->words * 64; page++) {
        hlsnap__bit_clear(m->is_hot, page);
        hlsnap__bit_clear(m->pinned, page);
    }
}

static void hlsnap__memory_unmap(hlsnap__memory *m) {
    if (m->reservation) munmap(m->reservation, m->reserved);
    m->reservation = NULL;
    m->mem = NULL;
}

static void hlsnap__mapped_free(hlsnap__mapped *x, bool forked) {
    if (x->reserved && !forked) munmap(x->hva, x->reserved);
    hlsnap__layer_release(x->layer);
}

/* forked: the mappings are not in this process any more, only their bookkeeping is */
static void hlsnap__memory_free(hlsnap__memory *m, bool forked) {
    if (!forked) hlsnap__memory_unmap(m);
    while (m->num_maps) hlsnap__mapped_free(&m->maps[--m->num_maps], forked);
    hlsnap__free(m->maps);
    if (m->pagemap >= 0) close(m->pagemap);
    hlsnap_snapshot_release(m->base);
    hlsnap_snapshot_release(m->under);
    hlsnap_snapshot_release(m->target);
    hlsnap__free(m->hot);
    hlsnap__free(m->is_hot);
    hlsnap__free(m->pinned);
}

/* ---- >>guest-memory-map ---- */

/* Behind the last page that can be put back, in a window of that layout. */
static uint64_t hlsnap__pages_end(const hlsnap__memory *m, const hlsnap__layout *l) {
    uint64_t end = l->pages;
    uint32_t i;
    for (i = 0; i < m->num_maps; i++)
        if (hlsnap__map_stored(&m->maps[i].map) && m->maps[i].map.gva)
            end = hlsnap__gva_page(l, m->maps[i].map.gva) + m->maps[i].pages;
    return end;
}

/* Bitmaps for all pages, those of maps included, of a window of that layout. */
static hlsnap_result hlsnap__bitmaps_make(const hlsnap__memory *m, const hlsnap__layout *l, uint64_t **is_hot,
                                          uint64_t **pinned, size_t *words, hlsnap_error *err) {
    *words = (size_t)(hlsnap__pages_end(m, l) + 63) / 64;
    *is_hot = (uint64_t *)hlsnap__alloc(*words, sizeof(uint64_t), err);
    *pinned = (uint64_t *)hlsnap__alloc(*words, sizeof(uint64_t), err);
    if (*is_hot && *pinned) return HLSNAP_OK;
    hlsnap__free(*is_hot);
    hlsnap__free(*pinned);
    *is_hot = *pinned = NULL;
    return HLSNAP_ERR_MEMORY;
}

/* Maps came, or got another place, in a window that stays: their pages get bits, those that there are keep theirs. */
static hlsnap_result hlsnap__bitmaps_grow(hlsnap__memory *m, hlsnap_error *err) {
    uint64_t *is_hot, *pinned;
    size_t words;
    if (hlsnap__pages_end(m, &m->layout) <= m->words * 64) return HLSNAP_OK;
    if (hlsnap__bitmaps_make(m, &m->layout, &is_hot, &pinned, &words, err)) return HLSNAP_ERR_MEMORY;
    memcpy(is_hot, m->is_hot, m->words * 8);
    memcpy(pinned, m->pinned, m->words * 8);
    hlsnap__free(m->is_hot);
    hlsnap__free(m->pinned);
    m->is_hot = is_hot;
    m->pinned = pinned;
    m->words = words;
    return HLSNAP_OK;
}

/* Gives maps their page numbers. */
static void hlsnap__maps_number(hlsnap__memory *m) {
    uint32_t i;
    for (i = 0; i < m->num_maps; i++)
        m->maps[i].first = m->maps[i].map.gva ? hlsnap__gva_page(&m->layout, m->maps[i].map.gva) : UINT64_MAX / 2;
}

/* Room for a window of that layout instead of the one that there is. When this fails, nothing was changed. */
static hlsnap_result hlsnap__memory_reserve(hlsnap__memory *m, const hlsnap__layout *l, hlsnap_error *err) {
    const size_t huge = 2u << 20;
    size_t words;
    uint64_t *is_hot, *pinned;
    const size_t reserved = HLSNAP__SYS_SIZE + (size_t)(l->pages * HLSNAP__PAGE) + huge;
    uint8_t *mem = NULL;
    hlsnap_result r = hlsnap__bitmaps_make(m, l, &is_hot, &pinned, &words, err);
    uint32_t i;
    void *p = r ? MAP_FAILED : mmap(NULL, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!r && p == MAP_FAILED) r = hlsnap__fail_map(err, reserved, "guest memory");
    if (!r) mem = (uint8_t *)(((uintptr_t)p + HLSNAP__SYS_SIZE + huge - 1) & ~(uintptr_t)(huge - 1));
    if (!r && mprotect(mem - HLSNAP__SYS_SIZE, HLSNAP__SYS_SIZE, PROT_READ | PROT_WRITE))
        r = hlsnap__fail_map(err, HLSNAP__SYS_SIZE, "the supervisor area");
    if (r) {
        if (p != MAP_FAILED) munmap(p, reserved);
        hlsnap__free(is_hot);
        hlsnap__free(pinned);
        return r;
    }
    hlsnap__memory_unmap(m);
    hlsnap__free(m->is_hot);
    hlsnap__free(m->pinned);
    m->is_hot = is_hot;
    m->pinned = pinned;
    m->words = words;
    m->reservation = p;
    m->reserved = reserved;
    m->mem = mem;
    m->sys_used = 0;
    m->layout = *l;
    hlsnap__maps_number(m);
    m->scan_from = UINT64_MAX;
    m->scan_to = 0;
    for (i = 0; i < l->num_regions; i++) {
        const uint64_t first = hlsnap__region_page(l, &l->regions[i]), end = first + l->regions[i].pages;
        if (!hlsnap__kind_writable(l->regions[i].kind) && l->regions[i].kind != HLSNAP__IDENTITY) continue;
        if (first < m->scan_from) m->scan_from = first;
        if (end > m->scan_to) m->scan_to = end;
    }
    return HLSNAP_OK;
}

/* Long runs are mapped, and shared between all sandboxes; short ones are copied: the guest's first touch of a mapped page
   costs a fault of its own, while software KVM maps private pages eight at a time. */
static bool hlsnap__extent_mapped(const hlsnap_snapshot *s, const hlsnap__extent *e) {
    return s->layers[e->layer]->fd >= 0 && e->pages >= s->map_run;
}

/* A mapping of layer pages from `from` on, closed; layer NULL: of zeros. */
static bool hlsnap__pages_map(uint8_t *at, uint64_t pages, const hlsnap__layer *layer, uint64_t from) {
    const int flags = MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE | (layer ? 0 : MAP_ANONYMOUS);
    return mmap(at, (size_t)(pages * HLSNAP__PAGE), PROT_NONE, flags, layer ? layer->fd : -1,
                layer ? (off_t)(from * HLSNAP__PAGE) : 0) != MAP_FAILED;
}

/* A layer is mapped at a page. */
static void hlsnap__memory_rely(hlsnap__memory *m, uint64_t page, const hlsnap__layer *layer) {
    hlsnap__mapped *x = hlsnap__mapped_at(m, page);
    bool *trusted = x ? &x->trusted : &m->trusted;
    *trusted = *trusted && layer->sealed;
}

static hlsnap_result hlsnap__run_map(hlsnap__memory *m, const hlsnap__layer *layer, const hlsnap__extent *e,
                                     hlsnap_error *err) {
    if (!hlsnap__pages_map(hlsnap__memory_at(m, e->page), e->pages, layer, e->layer_page))
        return hlsnap__fail_map(err, (uint64_t)e->pages * HLSNAP__PAGE, "guest memory, from a layer");
    hlsnap__memory_rely(m, e->page, layer);
    return HLSNAP_OK;
}

/* The run that has the extent, or NULL; *k, 0 at first, goes along while the extents ascend. */
static const hlsnap__extent *hlsnap__flat_run(const hlsnap__extent *runs, uint32_t num, const hlsnap__extent *e,
                                              uint32_t *k) {
    while (*k < num && (uint64_t)runs[*k].page + runs[*k].pages <= e->page) ++*k;
    return *k < num && runs[*k].page <= e->page ? &runs[*k] : NULL;
}

/* What goes into runs: extents that are not mapped, nor in `but`'s runs. */
typedef struct hlsnap__flat_terms {
    uint32_t least;          /* pages that a run stores; */
    uint32_t sparse;         /* it has so many times as many, at most: who reads a gap fills it */
    const hlsnap__flat *but; /* NULL = none */
} hlsnap__flat_terms;

static bool hlsnap__extent_gathered(const hlsnap_snapshot *s, const hlsnap__extent *e, const hlsnap__flat_terms *t,
                                    uint32_t *k) {
    if (e->page >= s->guest->layout.pages) return false; /* of a map, whose gaps need not be zero */
    return !hlsnap__extent_mapped(s, e) && !(t->but && hlsnap__flat_run(t->but->runs, t->but->num, e, k));
}

/* The number of extents from i on that lie near each other in one region and would each be copied. *stored: pages of them;
   *span: with the zero pages in the gaps. */
static uint32_t hlsnap__cluster(const hlsnap_snapshot *s, uint32_t i, const hlsnap__flat_terms *t, uint32_t *k,
                                uint32_t *stored, uint32_t *span) {
    const hlsnap__layout *l = &s->guest->layout;
    const hlsnap__extent *e = &s->extents[i];
    const hlsnap__region *region = hlsnap__layout_at(l, l->base + (uint64_t)e->page * HLSNAP__PAGE);
    const uint32_t first = e->page;
    uint32_t n = 0;
    *stored = *span = 0;
    while (i + n < s->num_extents && hlsnap__extent_gathered(s, e, t, k) &&
           e->page < hlsnap__region_page(l, region) + region->pages) {
        const uint32_t longer = e->page + e->pages - first;
        if (longer > t->sparse * (uint64_t)(*stored + e->pages)) break;
        *stored += e->pages;
        *span = longer;
        n++;
        e++;
    }
    return n;
}

/* Finds the runs; their pages lie one behind the other in the layer to be. */
static hlsnap_result hlsnap__flat_runs(const hlsnap_snapshot *s, const hlsnap__flat_terms *t, hlsnap__builder *b,
                                       hlsnap_error *err) {
    hlsnap_result r = HLSNAP_OK;
    uint32_t i, n, stored, k = 0;
    for (i = 0; !r && i < s->num_extents; i += n ? n : 1) {
        hlsnap__extent run = {s->extents[i].page, 0, 0, b->pages};
        n = hlsnap__cluster(s, i, t, &k, &stored, &run.pages);
        if (stored < t->least) continue;
        r = hlsnap__builder_extent(b, &run, false, err);
        b->pages += run.pages;
    }
    return r;
}

/* Writes the pages of an extent from page `at` of the file on. */
static hlsnap_result hlsnap__flat_write(int fd, uint64_t at, const hlsnap_snapshot *s, const hlsnap__extent *e,
                                        hlsnap_error *err) {
    const hlsnap__layer *layer = s->layers[e->layer];
    uint8_t bounce[HLSNAP__PAGE];
    hlsnap_result r = HLSNAP_OK;
    uint32_t i;
    if (layer->map)
        return hlsnap__pwrite(fd, layer->map + (uint64_t)e->layer_page * HLSNAP__PAGE, (size_t)e->pages * HLSNAP__PAGE,
                              at * HLSNAP__PAGE, err);
    for (i = 0; i < e->pages && !r; i++) {
        r = hlsnap__layer_read(layer, (uint64_t)e->layer_page + i, 1, bounce, err);
        if (!r) r = hlsnap__pwrite(fd, bounce, HLSNAP__PAGE, (at + i) * HLSNAP__PAGE, err);
    }
    return r;
}

/* The runs' file, with holes where the gaps are. */
static hlsnap_result hlsnap__flat_layer(const hlsnap_snapshot *s, const hlsnap__builder *b, hlsnap__layer **out,
                                        hlsnap_error *err) {
    const int fd = hlsnap__memfd(err);
    hlsnap_result r = fd < 0 ? HLSNAP_ERR_OS : hlsnap__file_resize(fd, (uint64_t)b->pages * HLSNAP__PAGE, err);
    hlsnap_error why;
    uint32_t i, k = 0;
    for (i = 0; i < s->num_extents && !r; i++) {
        const hlsnap__extent *e = &s->extents[i];
        const hlsnap__extent *run = hlsnap__flat_run(b->extents, b->num, e, &k);
        if (run) r = hlsnap__flat_write(fd, (uint64_t)run->layer_page + (e->page - run->page), s, e, err);
    }
    if (!r) r = hlsnap__memfd_seal(fd, err);
    if (r && fd >= 0) close(fd);
    if (r) return r;
    *out = hlsnap__layer_create(fd, true, b->pages, &why);
    if (*out) return HLSNAP_OK;
    if (err) *err = why;
    return why.code;
}

static hlsnap_result hlsnap__flat_make(const hlsnap_snapshot *s, const hlsnap__flat_terms *t, hlsnap__flat *f,
                                       hlsnap_error *err) {
    hlsnap__builder b = hlsnap__builder_none;
    hlsnap_result r = hlsnap__flat_runs(s, t, &b, err);
    if (!r && b.num && b.num <= HLSNAP__MAX_MAPPED) r = hlsnap__flat_layer(s, &b, &f->layer, err);
    if (!r && f->layer) {
        f->num = b.num;
        f->runs = b.extents;
        b.extents = NULL;
    }
    hlsnap__builder_free(&b);
    return r;
}

static const hlsnap__flat hlsnap__flat_none = {NULL, 0, NULL};

/* A flat form, made by the first who needs it. Where it cannot be made for now, it has no runs. */
static const hlsnap__flat *hlsnap__flat_at(hlsnap_snapshot *s, hlsnap__flat **at, const hlsnap__flat_terms *t) {
    hlsnap__flat *f = __atomic_load_n(at, __ATOMIC_ACQUIRE), *none = NULL;
    if (f) return f;
    f = (hlsnap__flat *)hlsnap__alloc(1, sizeof(*f), NULL);
    if (f && !hlsnap__flat_make(s, t, f, NULL)) {
        if (__atomic_compare_exchange_n(at, &none, f, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) return f;
        hlsnap__flat_free(f);
        return none; /* another thread's */
    }
    hlsnap__flat_free(f);
    return &hlsnap__flat_none;
}

/* Of many short extents: to be mapped from the start. */
static const hlsnap__flat *hlsnap__flat_get(hlsnap_snapshot *s) {
    hlsnap__flat_terms t = {0, 2, NULL};
    t.least = s->map_run;
    return hlsnap__flat_at(s, &s->flat, &t);
}

/* Of what is copied then. */
static const hlsnap__flat *hlsnap__flat_settled(hlsnap_snapshot *s) {
    hlsnap__flat_terms t = {4, 4, NULL};
    t.but = hlsnap__flat_get(s);
    return hlsnap__flat_at(s, &s->settled, &t);
}

/* Writes a layer's page, NULL = zeros, to a page where memory or layer can be truncated by a stranger: no pointer is followed.
   With `look`, only when it differs: *same says. */
static hlsnap_result hlsnap__page_put(hlsnap__memory *m, uint64_t page, const hlsnap__layer *layer, uint64_t layer_page,
                                      bool look, bool *same, hlsnap_error *err) {
    uint8_t bounce[HLSNAP__PAGE] = {0}, now[HLSNAP__PAGE];
    hlsnap_result r = layer ? hlsnap__layer_read(layer, layer_page, 1, bounce, err) : HLSNAP_OK;
    if (!r && look) r = hlsnap__memory_move(m, now, page, 0, HLSNAP__PAGE, false, err);
    *same = !r && look && memcmp(now, bounce, HLSNAP__PAGE) == 0;
    return r || *same ? r : hlsnap__memory_move(m, bounce, page, 0, HLSNAP__PAGE, true, err);
}

static hlsnap_result hlsnap__extent_copy(hlsnap__memory *m, const hlsnap_snapshot *s, const hlsnap__extent *e,
                                         hlsnap_error *err) {
    const hlsnap__mapped *x = hlsnap__mapped_at(m, e->page);
    const bool writable = hlsnap__page_writable(m, e->page), below = x && !x->trusted; /* a file, which the window has not here */
    const hlsnap__layer *layer = s->layers[e->layer];
    bool same = false;
    uint32_t i;
    hlsnap_result r = below ? HLSNAP_OK
                            : hlsnap__layer_read(layer, e->layer_page, e->pages, hlsnap__memory_at(m, e->page), err);
    for (i = 0; i < e->pages && !r; i++) {
        if (below) r = hlsnap__page_put(m, e->page + i, layer, (uint64_t)e->layer_page + i, false, &same, err);
        if (r) break;
        hlsnap__bit_set(m->pinned, e->page + i);
        /* the guest cannot change the others, and a host write adds them */
        if (writable) r = hlsnap__hot_add(m, e->page + i, err);
    }
    return r;
}

/* Makes the pages of a run of neighbouring extents that will be copied private in one system call, not by a fault each. */
static void hlsnap__memory_populate(hlsnap__memory *m, const hlsnap_snapshot *s, uint32_t i) {
    const hlsnap__extent *first = &s->extents[i], *e = first;
    uint32_t end = first->page + first->pages;
    if (i && !hlsnap__extent_mapped(s, e - 1) && e[-1].page + e[-1].pages == e->page) return;
    while (++i < s->num_extents && (++e)->page == end && !hlsnap__extent_mapped(s, e)) end += e->pages;
    if (end - first->page < 4) return;
    madvise(hlsnap__memory_at(m, first->page), (size_t)(end - first->page) * HLSNAP__PAGE, HLSNAP__MADV_POPULATE_WRITE);
}

/* What every call writes, from the stack's top to the mailbox's first page, is made private in one go: the guest's first
   touch of each page then costs no host fault. */
static void hlsnap__memory_prefault(hlsnap__memory *m) {
    const hlsnap__layout *l = &m->layout;
    const hlsnap__region *stack = hlsnap__layout_find(l, HLSNAP__STACK);
    const uint64_t from = hlsnap__region_page(l, stack) + stack->pages - 1;
    const uint64_t box = hlsnap__region_page(l, hlsnap__layout_find(l, HLSNAP__MAILBOX));
    if (box > from && box - from < 64)
        madvise(hlsnap__memory_at(m, from), (size_t)(box + 1 - from) * HLSNAP__PAGE, HLSNAP__MADV_POPULATE_WRITE);
}

/* Opens guest memory, which was mapped closed: after mlockall(MCL_FUTURE) the kernel would have made each page private at once,
   and gives back none that are locked. The child of a fork gets none of it, nor does a core file: guests have secrets, and
   windows of 32 GiB. */
static hlsnap_result hlsnap__pages_open(uint8_t *at, size_t size, int prot, hlsnap_error *err) {
    munlock(at, size);
    if (mprotect(at, size, prot)) return hlsnap__fail_map(err, size, "guest memory");
    if (madvise(at, size, MADV_DONTFORK))
        return hlsnap__fail(err, HLSNAP_ERR_OS, errno, "MADV_DONTFORK: %s (errno %d)", hlsnap__errno_text(errno),
                            errno);
    madvise(at, size, MADV_DONTDUMP);
    return HLSNAP_OK;
}

/* The same of pages that are put back: khugepaged would hand the guest 512 new private ones where it wrote one. */
static hlsnap_result hlsnap__memory_open(uint8_t *at, size_t size, hlsnap_error *err) {
    const hlsnap_result r = hlsnap__pages_open(at, size, PROT_READ | PROT_WRITE, err);
    if (!r) madvise(at, size, MADV_NOHUGEPAGE); /* a kernel without huge pages says EINVAL */
    return r;
}

/* Where it is asked for, the heap may have huge pages after all. */
static void hlsnap__heap_huge(const hlsnap__memory *m) {
    const hlsnap__region *heap = hlsnap__layout_find(&m->layout, HLSNAP__HEAP);
    if (m->huge)
        madvise(hlsnap__memory_at(m, hlsnap__region_page(&m->layout, heap)), (size_t)(heap->pages * HLSNAP__PAGE),
                MADV_HUGEPAGE);
}

/* Maps a stored map from s, where s has it (NULL has none), and from what the host gave. */
static hlsnap_result hlsnap__mapped_fill(hlsnap__memory *m, hlsnap__mapped *x, const hlsnap_snapshot *s,
                                         hlsnap_error *err) {
    const bool has = s && hlsnap__map_find(s->maps, s->num_maps, x->map.name);
    const hlsnap__layer *below = has && x->map.capture ? NULL : x->layer;
    const uint64_t end = x->first + x->pages, size = x->pages * HLSNAP__PAGE;
    hlsnap_result r = HLSNAP_OK;
    uint32_t i, first = 0;
    x->in_base = x->in_target = has;
    x->trusted = !below || below->sealed;
    if (!hlsnap__pages_map(x->hva, x->pages, below, x->at)) return hlsnap__fail_map(err, size, "a map");
    while (has && first < s->num_extents && s->extents[first].page < x->first) first++;
    for (i = first; has && !r && i < s->num_extents && s->extents[i].page < end; i++) {
        if (!hlsnap__extent_mapped(s, &s->extents[i])) continue;
        r = hlsnap__run_map(m, s->layers[s->extents[i].layer], &s->extents[i], err);
        m->num_mapped++;
    }
    if (!r) r = hlsnap__memory_open(x->hva, (size_t)size, err);
    for (i = first; has && !r && i < s->num_extents && s->extents[i].page < end; i++) {
        if (hlsnap__extent_mapped(s, &s->extents[i])) continue;
        hlsnap__memory_populate(m, s, i);
        r = hlsnap__extent_copy(m, s, &s->extents[i], err);
    }
    return r;
}

/* Maps the window from s. When this fails the memory is in no state to run; mapping again is always possible. */
static hlsnap_result hlsnap__memory_map(hlsnap__memory *m, hlsnap_snapshot *s, hlsnap_error *err) {
    const hlsnap__layout *l = &s->guest->layout;
    const size_t size = (size_t)(l->pages * HLSNAP__PAGE);
    const uint32_t num = hlsnap__extents_in_window(s);
    const hlsnap__flat *flat = NULL;
    hlsnap_result r = HLSNAP_OK;
    uint32_t i, k = 0;
    const bool again = m->mem && memcmp(l, &m->layout, sizeof(*l)) == 0;
    r = again ? hlsnap__bitmaps_grow(m, err) : hlsnap__memory_reserve(m, l, err);
    if (r) return r;
    if (again) memset(m->is_hot, 0, m->words * 8);
    if (again) memset(m->pinned, 0, m->words * 8);
    m->num_hot = 0;
    m->valid = false;
    m->trusted = true;
    hlsnap_snapshot_retain(s);
    hlsnap_snapshot_retain(s);
    hlsnap_snapshot_release(m->base);
    hlsnap_snapshot_release(m->under);
    hlsnap_snapshot_release(m->target);
    m->base = m->target = s;
    m->under = NULL;
    m->watched = hlsnap__snapshot_watched(s);
    if (again && !hlsnap__pages_map(m->mem, l->pages, NULL, 0)) return hlsnap__fail_map(err, size, "guest memory");
    flat = hlsnap__flat_get(s);
    m->num_mapped = flat->num;
    for (i = 0; i < num && !r; i++) {
        if (!hlsnap__extent_mapped(s, &s->extents[i])) continue;
        r = hlsnap__run_map(m, s->layers[s->extents[i].layer], &s->extents[i], err);
        m->num_mapped++;
    }
    for (i = 0; !r && i < flat->num; i++) r = hlsnap__run_map(m, flat->layer, &flat->runs[i], err);
    if (!r) r = hlsnap__memory_open(m->mem, size, err); /* behind all that is mapped, before anything is copied */
    if (!r) hlsnap__heap_huge(m);
    if (!r) hlsnap__memory_prefault(m);
    for (i = 0; i < num && !r; i++) {
        const hlsnap__extent *e = &s->extents[i];
        if (hlsnap__extent_mapped(s, e) || hlsnap__flat_run(flat->runs, flat->num, e, &k)) continue;
        hlsnap__memory_populate(m, s, i);
        r = hlsnap__extent_copy(m, s, &s->extents[i], err);
    }
    for (i = 0; i < m->num_maps && !r; i++)
        if (hlsnap__map_stored(&m->maps[i].map)) r = hlsnap__mapped_fill(m, &m->maps[i], s, err);
    if (r) return r;
    m->num_copied = m->num_hot;
    m->idled = 0;
    m->settled = false;
    m->valid = true;
    m->forget = false;
    m->learns = s->guest->learn && s->guest->initialized && !hlsnap__learned_get(s);
    return HLSNAP_OK;
}

/* ---- >>guest-memory-scan: which pages became private ---- */

static int hlsnap__hot_order(const void *a, const void *b) {
    const hlsnap__hot *x = (const hlsnap__hot *)a, *y = (const hlsnap__hot *)b;
    return x->page < y->page ? -1 : x->page > y->page;
}

static void hlsnap__hot_sort(hlsnap__memory *m) {
    if (!m->sorted) qsort(m->hot, m->num_hot, sizeof(*m->hot), hlsnap__hot_order);
    m->sorted = true;
}

static hlsnap_result hlsnap__hot_add_range(hlsnap__memory *m, uint64_t page, uint64_t end, hlsnap_error *err) {
    for (; page < end; page++)
        if (hlsnap__hot_add(m, page, err)) return HLSNAP_ERR_MEMORY;
    return HLSNAP_OK;
}

/* What a scan found: pages [page, end) are private, or show the kernel's page of zeros, which is news where the snapshot
   below has other content. Those that the guest cannot write are the host's own. *seen: the identity page is among them. */
static hlsnap_result hlsnap__scan_found(hlsnap__memory *m, uint64_t page, uint64_t end, bool zero, bool *seen,
                                        hlsnap_error *err) {
    hlsnap__hot below;
    for (; page < end; page++) {
        const hlsnap__region *g;
        if (hlsnap__bit(m->is_hot, page)) continue;
        below.page = (uint32_t)page;
        if (zero) hlsnap__hot_source(m, &below, m->base);
        g = page < m->layout.pages ? hlsnap__layout_at(&m->layout, m->layout.base + page * HLSNAP__PAGE) : NULL;
        if (g && g->kind == HLSNAP__IDENTITY) *seen = true;
        if (!hlsnap__page_writable(m, page) || (zero && !below.layer)) continue;
        if (hlsnap__hot_add(m, page, err)) return HLSNAP_ERR_MEMORY;
    }
    return HLSNAP_OK;
}

/* Linux 6.7 on. HLSNAP_ERR_UNSUPPORTED: this kernel has none. */
static hlsnap_result hlsnap__scan_ioctl(hlsnap__memory *m, uint64_t page, uint64_t end, bool *seen, hlsnap_error *err) {
    const uintptr_t from = (uintptr_t)hlsnap__memory_at(m, page);
    hlsnap__pm_region found[32];
    hlsnap__pm_scan a;
    memset(&a, 0, sizeof(a));
    a.size = sizeof(a);
    a.end = from + (end - page) * HLSNAP__PAGE;
    a.vec = (uint64_t)(uintptr_t)found;
    a.vec_len = HLSNAP_COUNT(found);
    a.category_inverted = a.category_mask = HLSNAP__PM_FILE;
    a.category_anyof_mask = HLSNAP__PM_PRESENT | HLSNAP__PM_SWAPPED;
    a.return_mask = HLSNAP__PM_PFNZERO;
    for (a.walk_end = from; a.walk_end < a.end;) {
        long i, n;
        a.start = a.walk_end;
        n = hlsnap__ioctl(m->pagemap, HLSNAP__PAGEMAP_SCAN, (uintptr_t)&a);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 || a.walk_end <= a.start) return HLSNAP_ERR_UNSUPPORTED;
        for (i = 0; i < n; i++)
            if (hlsnap__scan_found(m, page + (found[i].start - from) / HLSNAP__PAGE,
                                   page + (found[i].end - from) / HLSNAP__PAGE,
                                   (found[i].categories & HLSNAP__PM_PFNZERO) != 0, seen, err))
                return HLSNAP_ERR_MEMORY;
    }
    return HLSNAP_OK;
}

/* Before Linux 6.7: bit 63 present, 62 swapped, 61 file page or shared anonymous. The zero page counts as private: harmless. */
static hlsnap_result hlsnap__scan_pagemap(hlsnap__memory *m, uint64_t page, uint64_t end, bool *seen,
                                          hlsnap_error *err) {
    uint64_t entry[256];
    while (page < end) {
        const size_t n = end - page < HLSNAP_COUNT(entry) ? (size_t)(end - page) : HLSNAP_COUNT(entry);
        size_t i;
        const ssize_t k =
            pread(m->pagemap, entry, n * 8, (off_t)((uintptr_t)hlsnap__memory_at(m, page) / HLSNAP__PAGE * 8));
        if (k < 0 && errno == EINTR) continue;
        if (k != (ssize_t)(n * 8)) return HLSNAP_ERR_UNSUPPORTED;
        for (i = 0; i < n; i++)
            if (entry[i] >> 62 && !(entry[i] >> 61 & 1) &&
                hlsnap__scan_found(m, page + i, page + i + 1, false, seen, err))
                return HLSNAP_ERR_MEMORY;
        page += n;
    }
    return HLSNAP_OK;
}

#define HLSNAP__PROC_SUPER_MAGIC 0x9fa0

/* The pagemap of this process, and of nothing else that may lie under that name. */
static int hlsnap__pagemap_open(void) {
    struct statfs fs;
    const int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || (fstatfs(fd, &fs) == 0 && (uint64_t)fs.f_type == HLSNAP__PROC_SUPER_MAGIC)) return fd;
    close(fd);
    return -1;
}

static hlsnap_result hlsnap__scan_range(hlsnap__memory *m, uint64_t page, uint64_t end, bool *seen, hlsnap_error *err) {
    const hlsnap_result r = page < end ? hlsnap__scan_ioctl(m, page, end, seen, err) : HLSNAP_OK;
    return r == HLSNAP_ERR_UNSUPPORTED ? hlsnap__scan_pagemap(m, page, end, seen, err) : r;
}

#define HLSNAP__SCAN_AROUND 16u /* pages in a row that are hot already; for fewer, another system call costs more */

/* All but runs of the first num hot pages; *i goes along. */
static hlsnap_result hlsnap__scan_span(hlsnap__memory *m, uint64_t page, uint64_t to, uint32_t num, uint32_t *i,
                                       bool *seen, hlsnap_error *err) {
    hlsnap_result r = HLSNAP_OK;
    uint32_t n;
    for (; *i < num && m->hot[*i].page < to && !r; *i += n) {
        const uint64_t first = m->hot[*i].page;
        for (n = 1; *i + n < num && m->hot[*i + n].page == first + n;) n++;
        if (n < HLSNAP__SCAN_AROUND || first < page) continue;
        r = hlsnap__scan_range(m, page, first, seen, err);
        page = first + n;
    }
    return r ? r : hlsnap__scan_range(m, page, to, seen, err);
}

/* Brings the hot set up to date: asks the kernel, at every reset, which pages of the window are private, whoever made them so;
   but for those that are hot already, which are looked at in any case. Nothing cheaper is believed: fault counters do not
   see what other threads and processes do. HLSNAP_ERR_UNSUPPORTED: it cannot be asked (no /proc, no descriptor left), or
   gives an answer without the identity page, which is always private. */
static hlsnap_result hlsnap__memory_scan(hlsnap__memory *m, hlsnap_error *err) {
    const uint32_t num = m->num_hot; /* what is found is added behind those */
    hlsnap_result r;
    uint32_t i, at = 0;
    bool seen = false;
    if (m->pagemap < 0) m->pagemap = hlsnap__pagemap_open();
    if (m->pagemap < 0) return HLSNAP_ERR_UNSUPPORTED;
    hlsnap__hot_sort(m);
    r = hlsnap__scan_span(m, m->scan_from, m->scan_to, num, &at, &seen, err);
    for (i = 0; i < m->num_maps && !r; i++) {
        const hlsnap__mapped *x = &m->maps[i];
        if (x->map.mode == HLSNAP_MAP_PRIVATE)
            r = hlsnap__scan_span(m, x->first, x->first + x->pages, num, &at, &seen, err);
    }
    return r || seen ? r : HLSNAP_ERR_UNSUPPORTED;
}

static hlsnap_result hlsnap__compare_span(hlsnap__memory *m, uint64_t page, uint64_t pages, const hlsnap_snapshot *s,
                                          uint8_t *two, hlsnap_error *err) {
    const uint64_t end = page + pages;
    hlsnap_result r = HLSNAP_OK;
    for (; page < end && !r; page++) {
        const uint8_t *now;
        bool differs = false;
        if (hlsnap__bit(m->is_hot, page)) continue;
        r = hlsnap__memory_differs(m, page, s, two, &now, &differs, err);
        if (!r && differs) r = hlsnap__hot_add(m, page, err);
    }
    return r;
}

/* The same without help: every page that the guest can write is looked at, and is hot when it differs from s. */
static hlsnap_result hlsnap__memory_compare(hlsnap__memory *m, const hlsnap_snapshot *s, hlsnap_error *err) {
    const hlsnap__layout *l = &m->layout;
    uint8_t *two = (uint8_t *)hlsnap__alloc(2, HLSNAP__PAGE, err);
    hlsnap_result r = two ? HLSNAP_OK : HLSNAP_ERR_MEMORY;
    uint32_t i;
    for (i = 0; i < l->num_regions && !r; i++)
        if (hlsnap__kind_writable(l->regions[i].kind))
            r = hlsnap__compare_span(m, hlsnap__region_page(l, &l->regions[i]), l->regions[i].pages, s, two, err);
    for (i = 0; i < m->num_maps && !r; i++)
        if (m->maps[i].map.mode == HLSNAP_MAP_PRIVATE)
            r = hlsnap__compare_span(m, m->maps[i].first, m->maps[i].pages, s, two, err);
    hlsnap__free(two);
    return r;
}

/* ---- >>prefault: what first calls wrote is kept, and made private at the next starts ---- */

#define HLSNAP__LEARN_PAGES 1024u /* of a snapshot, at most */

/* Room for a list of so many runs, or NULL. */
static hlsnap__learned *hlsnap__learned_alloc(uint32_t runs) {
    hlsnap__learned *w = (hlsnap__learned *)hlsnap__alloc(1, sizeof(*w) + runs * sizeof(*w->runs), NULL);
    if (w) w->runs = (hlsnap__learned_run *)(void *)(w + 1);
    return w;
}

static void hlsnap__learned_add(hlsnap__learned *w, uint32_t page, uint32_t pages) {
    hlsnap__learned_run *last = w->num ? &w->runs[w->num - 1] : NULL;
    w->pages += pages;
    if (last && last->page + last->pages == page) {
        last->pages += pages;
        return;
    }
    w->runs[w->num].page = page;
    w->runs[w->num++].pages = pages;
}

/* Takes the list over: the first one stays. */
static void hlsnap__learned_set(hlsnap_snapshot *s, hlsnap__learned *w) {
    hlsnap__learned *none = NULL;
    if (w && !__atomic_compare_exchange_n(&s->learned, &none, w, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        hlsnap__free(w);
}

/* Keeps what became private since the window was mapped, as far as that was found and fits. */
static void hlsnap__memory_learn(hlsnap__memory *m) {
    hlsnap__learned *w = hlsnap__learned_alloc(m->num_hot < HLSNAP__LEARN_PAGES ? m->num_hot : HLSNAP__LEARN_PAGES);
    uint32_t i;
    m->learns = false;
    hlsnap__hot_sort(m);
    for (i = 0; w && i < m->num_hot && w->pages < HLSNAP__LEARN_PAGES && m->hot[i].page < m->layout.pages; i++)
        hlsnap__learned_add(w, m->hot[i].page, 1);
    hlsnap__learned_set(m->base, w);
}

/* Makes them private, by a system call for each run; before Linux 5.14, which has it, the VM does so page by page. They are among
   the hot ones then: no news to the next scan, for which it could map all afresh. */
static void hlsnap__memory_populate_learned(hlsnap__memory *m, const hlsnap__learned *w) {
    uint32_t i;
    for (i = 0; i < w->num; i++) {
        const hlsnap__learned_run *run = &w->runs[i];
        if (hlsnap__hot_add_range(m, run->page, (uint64_t)run->page + run->pages, NULL)) return;
        madvise(hlsnap__memory_at(m, run->page), (size_t)run->pages * HLSNAP__PAGE, HLSNAP__MADV_POPULATE_WRITE);
        m->prefaulted += run->pages;
    }
}

/* Marks what the VM is to know: these pages, what was copied that the guest only reads (text, mostly), and the identity page. */
static void hlsnap__prefault_mark(const hlsnap__memory *m, const hlsnap__learned *w, uint64_t *marks) {
    const uint64_t identity = hlsnap__region_page(&m->layout, hlsnap__layout_find(&m->layout, HLSNAP__IDENTITY));
    uint32_t i, k, copied = 0;
    uint64_t page;
    for (i = 0; i < w->num; i++)
        for (k = 0; k < w->runs[i].pages; k++) hlsnap__bit_set(marks, w->runs[i].page + k);
    hlsnap__bit_set(marks, identity);
    for (page = 0; page < m->layout.pages && copied < HLSNAP__LEARN_PAGES; page++) {
        if (!m->pinned[page / 64]) page |= 63;
        if (page >= m->layout.pages || !hlsnap__bit(m->pinned, page) || hlsnap__page_writable(m, page)) continue;
        hlsnap__bit_set(marks, page);
        copied++;
    }
}

/* Spans of marked pages; returns their number, of which no more than cap are written. */
static uint32_t hlsnap__prefault_spans(const hlsnap__memory *m, const uint64_t *marks, hlsnap__span *spans,
                                       uint32_t cap) {
    hlsnap__span span;
    uint32_t num = 0;
    uint64_t page, end;
    for (page = 0; page < m->layout.pages; page = end) {
        end = page + 1;
        if (!marks[page / 64]) end = (page | 63) + 1;
        if (!hlsnap__bit(marks, page)) continue;
        span.write = hlsnap__page_writable(m, page);
        while (end < m->layout.pages && hlsnap__bit(marks, end) && hlsnap__page_writable(m, end) == span.write) end++;
        span.from = m->layout.base + page * HLSNAP__PAGE;
        span.to = m->layout.base + end * HLSNAP__PAGE;
        if (num < cap) spans[num] = span;
        num++;
    }
    return num;
}

/* ---- >>reset: back to a snapshot, in place ---- */

/* Puts one hot page back where memory or layer can be truncated by a stranger. As below, it is looked at now and then. */
static hlsnap_result hlsnap__hot_reset(hlsnap__memory *m, hlsnap__hot *h, bool look, hlsnap_error *err) {
    bool same = false;
    const hlsnap_result r = hlsnap__page_put(m, h->page, h->layer, h->layer_page, look || h->idle, &same, err);
    h->idle = same ? h->idle + 1 : 0;
    m->copied_bytes += same ? 0 : HLSNAP__PAGE;
    return r;
}

/* Puts hot pages from number i to `end` back under full trust, runs of them in one copy. A page that differed last time is
   copied without a look, but when `look` says so, which is every eighth reset, and where there are many, so that pages which
   became idle are noticed. */
static void hlsnap__hot_reset_runs(hlsnap__memory *m, uint32_t i, uint32_t end, bool look) {
    static const uint8_t zero[HLSNAP__PAGE] = {0};
    uint8_t *to = NULL;
    const uint8_t *source = NULL;
    size_t n = 0;
    for (; i < end; i++) {
        hlsnap__hot *h = &m->hot[i];
        uint8_t *at = hlsnap__memory_at(m, h->page);
        const uint8_t *from = h->layer ? h->layer->map + (uint64_t)h->layer_page * HLSNAP__PAGE : zero;
        if ((look || h->idle) && memcmp(at, from, HLSNAP__PAGE) == 0) {
            h->idle++;
            m->idled++;
            continue;
        }
        h->idle = 0;
        m->copied_bytes += HLSNAP__PAGE;
        if (n && to + n == at && source + n == from) {
            n += HLSNAP__PAGE;
            continue;
        }
        if (n) memcpy(to, source, n);
        to = at;
        source = from;
        n = HLSNAP__PAGE;
    }
    if (n) memcpy(to, source, n);
}

/* The pristine content of all hot pages from number i to `end` can be read in place. */
static bool hlsnap__hot_direct(const hlsnap__memory *m, uint32_t i, uint32_t end) {
    const hlsnap__mapped *x = i < end ? hlsnap__mapped_at(m, m->hot[i].page) : NULL;
    if (!(x ? x->trusted : m->trusted)) return false;
    for (i = 0; i < m->target->num_layers; i++)
        if (!m->target->layers[i]->map) return false;
    return !x || !x->layer || x->layer->map;
}

/* Puts all hot pages back: first the window's, then each map's. */
static hlsnap_result hlsnap__hot_reset_all(hlsnap__memory *m, hlsnap_error *err) {
    const bool look = (m->resets++ & 7) == 0 || m->num_hot > HLSNAP__HOT_IDLE;
    hlsnap_result r = HLSNAP_OK;
    uint32_t i, end;
    hlsnap__hot_sort(m);
    for (i = 0; i < m->num_hot && !r; i = end) {
        const hlsnap__mapped *x = hlsnap__mapped_at(m, m->hot[i].page);
        end = m->num_maps ? i : m->num_hot;
        while (end < m->num_hot && hlsnap__mapped_at(m, m->hot[end].page) == x) end++;
        if (hlsnap__hot_direct(m, i, end))
            hlsnap__hot_reset_runs(m, i, end, look);
        else
            for (; i < end && !r; i++) r = hlsnap__hot_reset(m, &m->hot[i], look, err);
    }
    return r;
}

/* The mapping below the page has the content that a reset wants there. */
static bool hlsnap__hot_below(const hlsnap__memory *m, const hlsnap__hot *h) {
    hlsnap__hot below = *h;
    if (hlsnap__bit(m->pinned, h->page)) return false;
    hlsnap__hot_source(m, &below, m->base);
    return below.layer == h->layer && below.layer_page == h->layer_page;
}

/* Gives private pages back. The kernel gives none back that mlockall locked: the window, or the map, is unlocked then. */
static bool hlsnap__pages_drop(const hlsnap__memory *m, uint64_t page, uint32_t num) {
    const hlsnap__mapped *x = hlsnap__mapped_at(m, page);
    uint8_t *at = hlsnap__memory_at(m, page);
    const size_t size = (size_t)num * HLSNAP__PAGE, all = (size_t)((x ? x->pages : m->layout.pages) * HLSNAP__PAGE);
    if (madvise(at, size, MADV_DONTNEED) == 0) return true;
    return errno == EINVAL && munlock(x ? x->hva : m->mem, all) == 0 && madvise(at, size, MADV_DONTNEED) == 0;
}

/* Gives pages back that were idle for long; each one kept costs a compare at every reset. */
static void hlsnap__hot_drop_idle(hlsnap__memory *m) {
    uint32_t i, idle = 0, kept = 0;
    for (i = 0; i < m->num_hot; i++) idle += m->hot[i].idle >= HLSNAP__IDLE_RESETS;
    if (idle < HLSNAP__IDLE_BATCH && (!idle || idle < m->num_hot / 8)) return;
    for (i = 0; i < m->num_hot; i++) {
        hlsnap__hot *h = &m->hot[i];
        if (h->idle >= HLSNAP__IDLE_RESETS && hlsnap__hot_below(m, h) && hlsnap__pages_drop(m, h->page, 1)) {
            hlsnap__bit_clear(m->is_hot, h->page);
            continue;
        }
        if (h->idle >= HLSNAP__IDLE_RESETS) h->idle = 0; /* what must stay is asked again in 16 resets */
        m->hot[kept++] = *h;
    }
    m->num_hot = kept;
}

/* ---- >>rest: pages that rest are given back in runs, and what they are put back to is laid below them where it is not ---- */

static hlsnap_result hlsnap__images_undo(hlsnap__memory *m, hlsnap_error *err); /* of >>images */

/* A run of hot pages. */
typedef struct hlsnap__rest {
    uint32_t num;
    bool below; /* they need only be dropped */
    bool goes;  /* they were found unchanged so often, and can be given back */
} hlsnap__rest;

/* The run from hot page i on: they lie side by side, and what they are put back to does. */
static hlsnap__rest hlsnap__rest_at(const hlsnap__memory *m, uint32_t i, uint32_t idle) {
    const hlsnap__hot *h = &m->hot[i];
    hlsnap__rest rest = {1, hlsnap__hot_below(m, h), h->idle >= idle};
    while (i + rest.num < m->num_hot) {
        const hlsnap__hot *next = &h[rest.num];
        if (next->page != h->page + rest.num || next->layer != h->layer || (next->idle >= idle) != rest.goes ||
            (h->layer && next->layer_page != h->layer_page + rest.num) || hlsnap__hot_below(m, next) != rest.below)
            break;
        rest.num++;
    }
    if (rest.below) return rest;
    rest.goes = rest.goes && rest.num >= HLSNAP__MAP_RUN && (!h->layer || (h->layer->fd >= 0 && h->layer->sealed));
    return rest;
}

/* What there is to give back. */
typedef struct hlsnap__rests {
    uint32_t pages, runs;
    uint32_t laid;  /* runs that need a mapping */
    uint32_t stuck; /* pages that rest and cannot be dropped as they are */
    uint32_t apart; /* of these: in runs too short to be laid; they go by mapping all of memory, if at all */
} hlsnap__rests;

static hlsnap__rests hlsnap__rests_count(hlsnap__memory *m, uint32_t idle, uint32_t least) {
    hlsnap__rests all = {0, 0, 0, 0, 0};
    hlsnap__rest rest;
    uint32_t i, pages = 0;
    for (i = 0; i < m->num_hot; i++) pages += m->hot[i].idle >= idle;
    if (pages <= least) return all;
    hlsnap__hot_sort(m);
    for (i = 0; i < m->num_hot; i += rest.num) {
        rest = hlsnap__rest_at(m, i, idle);
        if (m->hot[i].idle < idle) continue;
        if (rest.goes) all.pages += rest.num, all.runs++;
        if (!rest.below) all.stuck += rest.num, all.laid += rest.goes;
        if (!rest.goes) all.apart += rest.num;
    }
    return all;
}

/* A mapping moves over what is at `to`. Without _GNU_SOURCE there is no mremap. */
static bool hlsnap__pages_move(const void *from, const void *to, size_t size) {
    const long may_move = 1, fixed = 2;
    return syscall(SYS_mremap, from, size, size, may_move | fixed, to) == (long)(uintptr_t)to;
}

/* Whether there is a mapping at each of these pages. */
static bool hlsnap__pages_there(uint8_t *at, uint64_t pages) {
    unsigned char seen[512];
    uint64_t n;
    for (; pages; pages -= n, at += n * HLSNAP__PAGE) {
        n = pages < sizeof(seen) ? pages : sizeof(seen);
        if (mincore(at, (size_t)(n * HLSNAP__PAGE), seen)) return false;
    }
    return true;
}

/* Lays the source of a run of hot pages in the place of the pages: made elsewhere, so that the place has either all of it or
   what it had. false: what it had, or, when *lost, nothing. */
static bool hlsnap__pages_lay(hlsnap__memory *m, uint64_t page, uint32_t num, const hlsnap__layer *layer, uint32_t from,
                              bool *lost) {
    const size_t size = (size_t)num * HLSNAP__PAGE;
    uint8_t *at = hlsnap__memory_at(m, page);
    void *p = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return false;
    if (hlsnap__pages_map((uint8_t *)p, num, layer, from) && !hlsnap__memory_open((uint8_t *)p, size, NULL) &&
        hlsnap__pages_move(p, at, size)) {
        m->num_mapped++;
        return true;
    }
    munmap(p, size);
    *lost = !hlsnap__pages_there(at, num);
    return false;
}

static void hlsnap__laid(hlsnap__memory *m, uint64_t page, uint32_t num) {
    for (; num; num--, page++) {
        hlsnap__bit_clear(m->is_hot, page);
        hlsnap__bit_clear(m->pinned, page);
    }
}

/* After pages were given back: what is mapped is the target now; hot pages that stay although something else lies below them are
   pinned. */
static void hlsnap__memory_rebase(hlsnap__memory *m) {
    uint32_t i, kept = 0, pinned = 0;
    for (i = 0; i < m->num_hot; i++) {
        const hlsnap__hot *h = &m->hot[i];
        if (!hlsnap__bit(m->is_hot, h->page)) continue;
        if (!hlsnap__hot_below(m, h)) {
            hlsnap__bit_set(m->pinned, h->page);
            pinned++;
        }
        m->hot[kept++] = *h;
    }
    m->num_hot = kept;
    if (m->num_copied > pinned) m->num_copied = pinned;
    for (i = 0; i < m->num_maps; i++) m->maps[i].in_base = m->maps[i].in_target;
    hlsnap_snapshot_retain(m->target);
    hlsnap_snapshot_release(m->base);
    m->base = m->target;
}

/* Gives them back. When this fails the memory is in no state to run. */
static hlsnap_result hlsnap__memory_rest(hlsnap__memory *m, uint32_t idle, hlsnap_error *err) {
    uint32_t i;
    bool lost = false;
    hlsnap__rest rest = {0, false, false};
    hlsnap__hot_sort(m);
    for (i = 0; i < m->num_hot && !lost; i += rest.num) {
        const hlsnap__hot *h = &m->hot[i];
        rest = hlsnap__rest_at(m, i, idle);
        if (!rest.goes) continue;
        if (rest.below ? hlsnap__pages_drop(m, h->page, rest.num)
                       : hlsnap__pages_lay(m, h->page, rest.num, h->layer, h->layer_page, &lost))
            hlsnap__laid(m, h->page, rest.num);
    }
    if (lost) m->valid = false;
    if (lost) return hlsnap__fail_map(err, (uint64_t)rest.num * HLSNAP__PAGE, "guest memory, from a layer");
    hlsnap__memory_rebase(m);
    return HLSNAP_OK;
}

/* Pages that were copied when the window was mapped, which cost less then, are compared at each restore. Where they were found
   unchanged for long, mappings take their place. */
static hlsnap_result hlsnap__memory_settle(hlsnap__memory *m, hlsnap_error *err) {
    const hlsnap__flat *f = hlsnap__flat_settled(m->target);
    uint32_t i;
    bool lost = false;
    m->settled = true;
    for (i = 0; i < f->num && m->num_mapped < HLSNAP__MAX_MAPPED && !lost; i++) {
        const hlsnap__extent *run = &f->runs[i];
        if (hlsnap__pages_lay(m, run->page, run->pages, f->layer, run->layer_page, &lost))
            hlsnap__laid(m, run->page, run->pages);
    }
    if (lost) m->valid = false;
    if (lost) return hlsnap__memory_map(m, m->target, err);
    hlsnap__memory_rebase(m);
    return HLSNAP_OK;
}

/* Calls visit(first page, pages) for each run where the two snapshots take their content from different places. */
typedef hlsnap_result (*hlsnap__diff_fn)(hlsnap__memory *m, uint64_t page, uint64_t pages, void *user,
                                         hlsnap_error *err);

static hlsnap_result hlsnap__snapshot_diff(hlsnap__memory *m, const hlsnap_snapshot *a, const hlsnap_snapshot *b,
                                           hlsnap__diff_fn visit, void *user, hlsnap_error *err) {
    uint32_t i = 0, k = 0;
    uint64_t at = 0;
    while (i < a->num_extents || k < b->num_extents) {
        const hlsnap__extent *x = i < a->num_extents ? &a->extents[i] : NULL,
                             *y = k < b->num_extents ? &b->extents[k] : NULL;
        const uint64_t x0 = x ? x->page : UINT64_MAX, y0 = y ? y->page : UINT64_MAX;
        const uint64_t x1 = x ? x0 + x->pages : UINT64_MAX, y1 = y ? y0 + y->pages : UINT64_MAX;
        uint64_t end;
        hlsnap_result r = HLSNAP_OK;
        if (at < x0 && at < y0) at = x0 < y0 ? x0 : y0;
        end = at < x0 ? (x0 < y1 ? x0 : y1) : at < y0 ? (y0 < x1 ? y0 : x1) : (x1 < y1 ? x1 : y1);
        if (at < x0 || at < y0 || a->layers[x->layer] != b->layers[y->layer] ||
            x->layer_page + (at - x0) != y->layer_page + (at - y0))
            r = visit(m, at, end - at, user, err);
        if (r) return r;
        at = end;
        i += at >= x1;
        k += at >= y1;
    }
    return HLSNAP_OK;
}

static hlsnap_result hlsnap__diff_count(hlsnap__memory *m, uint64_t page, uint64_t pages, void *user,
                                        hlsnap_error *err) {
    uint64_t *count = (uint64_t *)user, i;
    (void)err;
    for (i = 0; i < pages; i++) *count += hlsnap__page_ours(m, page + i) && !hlsnap__bit(m->is_hot, page + i);
    return HLSNAP_OK;
}

static hlsnap_result hlsnap__diff_add(hlsnap__memory *m, uint64_t page, uint64_t pages, void *user, hlsnap_error *err) {
    uint64_t i;
    (void)user;
    for (i = 0; i < pages; i++)
        if (hlsnap__page_ours(m, page + i) && hlsnap__hot_add(m, page + i, err)) return HLSNAP_ERR_MEMORY;
    return HLSNAP_OK;
}

/* Whether maps are such that what differs from s are pages with extents: what base and s do not know by these is the same, unless
   only s has them, or only one has captured them. Else all is mapped anew. */
static bool hlsnap__maps_known(const hlsnap__memory *m, const hlsnap_snapshot *s) {
    uint32_t i;
    for (i = 0; i < m->num_maps; i++) {
        const hlsnap__mapped *x = &m->maps[i];
        const bool has = hlsnap__map_find(s->maps, s->num_maps, x->map.name) != NULL;
        if (hlsnap__map_stored(&x->map) && has != x->in_base && (has || x->map.capture)) return false;
    }
    return true;
}

#define HLSNAP__IN_PLACE_PAGES 1024u /* more new private pages than this: mapping the other snapshot is cheaper */

/* Makes s what resets put back to: keeps the mapping and adds the pages where s differs from it to the hot set. false in
   *in_place: too many, map s instead. */
static hlsnap_result hlsnap__memory_retarget(hlsnap__memory *m, hlsnap_snapshot *s, bool *in_place, hlsnap_error *err) {
    uint64_t count = 0;
    hlsnap_result r;
    uint32_t i;
    *in_place = true;
    if (s == m->target) return HLSNAP_OK;
    r = hlsnap__snapshot_diff(m, s, m->base, hlsnap__diff_count, &count, err);
    if (!r && count > HLSNAP__IN_PLACE_PAGES) *in_place = false;
    if (r || !*in_place) return r;
    hlsnap_snapshot_retain(s);
    hlsnap_snapshot_release(m->target);
    m->target = s;
    m->watched = m->watched || hlsnap__snapshot_watched(s);
    for (i = 0; i < m->num_maps; i++)
        m->maps[i].in_target = hlsnap__map_find(s->maps, s->num_maps, m->maps[i].map.name) != NULL;
    for (i = 0; i < m->num_hot; i++) hlsnap__hot_source(m, &m->hot[i], s);
    return hlsnap__snapshot_diff(m, s, m->base, hlsnap__diff_add, NULL, err);
}

/* Whether what the guest read, and what a reset puts back, is what was loaded; as hlsnap__watch's check. */
static hlsnap_result hlsnap__memory_await(const hlsnap__memory *m, uint64_t wait_ns, bool *pending, hlsnap_error *err) {
    hlsnap_result r = HLSNAP_OK;
    if (!m->watched) return r;
    r = hlsnap__snapshot_await(m->base, wait_ns, pending, err);
    if (!r && m->under) r = hlsnap__snapshot_await(m->under, wait_ns, pending, err);
    return r || m->target == m->base ? r : hlsnap__snapshot_await(m->target, wait_ns, pending, err);
}

static hlsnap_result hlsnap__memory_check(const hlsnap__memory *m, bool wait, hlsnap_error *err) {
    bool pending = false;
    return hlsnap__memory_await(m, wait ? UINT64_MAX : 0, &pending, err);
}

/* Who touches much pays for it: pages that became private in very large numbers since the last reset are not put back, and
   compared at each of the next ones, but given back with everything else. Those of the next call that are as many again
   stay, for a guest that changes much in each call would pay a fault for each page. */
static bool hlsnap__hot_too_many(hlsnap__memory *m, uint32_t before) {
    const uint32_t found = m->num_hot - before;
    const bool many = found > HLSNAP__HOT_MANY, again = m->given_back && found >= m->given_back / 2;
    m->given_back = many && !again ? found : 0;
    return (many && !again) || m->num_hot > m->num_copied + HLSNAP__HOT_MOST;
}

/* Finds out whether putting pages back where they are is possible, and cheaper than to map all of s. */
static hlsnap_result hlsnap__reset_plan(hlsnap__memory *m, hlsnap_snapshot *s, bool *in_place, hlsnap_error *err) {
    const uint32_t before = m->num_hot;
    hlsnap_error unused;
    hlsnap_result r;
    *in_place = false;
    if (!m->valid || m->forget || memcmp(&s->guest->layout, &m->layout, sizeof(m->layout)) != 0 ||
        !hlsnap__maps_known(m, s))
        return HLSNAP_OK;
    if (m->watched && hlsnap__snapshot_check(m->base, false, &unused)) return HLSNAP_OK;
    if (s != m->target) m->given_back = 0; /* somebody else's turn */
    r = hlsnap__memory_scan(m, err);
    if (r == HLSNAP_ERR_UNSUPPORTED || (!r && hlsnap__hot_too_many(m, before))) return HLSNAP_OK;
    return r ? r : hlsnap__memory_retarget(m, s, in_place, err);
}

#define HLSNAP__SETTLE_LEAST 8u   /* pages; fewer cost less than a mapping does in a scan */
#define HLSNAP__SETTLE_RESETS 64u /* by then, comparing has cost as much as mapping, and touching them again, will */

static bool hlsnap__settle_pays(hlsnap__memory *m) {
    uint32_t i, pinned = 0;
    if (m->idled < HLSNAP__SETTLE_LEAST * HLSNAP__SETTLE_RESETS || m->resets % HLSNAP__SETTLE_RESETS) return false;
    for (i = 0; i < m->num_hot; i++) pinned += !hlsnap__hot_below(m, &m->hot[i]);
    if (m->idled / HLSNAP__SETTLE_RESETS < pinned) return false;
    m->idled = 0;
    return pinned >= HLSNAP__SETTLE_LEAST;
}

/* Gives pages back that need not be private any more: when they are many, and every eighth time those that can never be dropped
   and that a mapping of all memory would not make private. */
static hlsnap_result hlsnap__reset_tidy(hlsnap__memory *m, hlsnap_snapshot *s, hlsnap_error *err) {
    const bool many = m->num_hot > HLSNAP__HOT_IDLE;
    const uint32_t idle = many ? 2 : HLSNAP__STUCK_RESETS, most = m->num_copied + HLSNAP__STUCK_MANY;
    hlsnap__rests all = {0, 0, 0, 0, 0};
    if (many || m->resets % HLSNAP__STUCK_RESETS == 0) all = hlsnap__rests_count(m, idle, HLSNAP__STUCK_MANY);
    if ((many && all.pages > HLSNAP__HOT_IDLE) || all.stuck > most) {
        if (all.apart > most || all.runs > HLSNAP__REST_RUNS || m->num_mapped + all.laid > HLSNAP__MAX_MAPPED)
            return hlsnap__memory_map(m, s, err);
        if (!hlsnap__memory_rest(m, idle, NULL)) return HLSNAP_OK;
        if (!m->valid) return hlsnap__memory_map(m, s, err);
    }
    if (!m->settled && hlsnap__settle_pays(m)) return hlsnap__memory_settle(m, err);
    hlsnap__hot_drop_idle(m);
    return HLSNAP_OK;
}

/* Brings every page back to s. */
static hlsnap_result hlsnap__memory_reset(hlsnap__memory *m, hlsnap_snapshot *s, hlsnap_error *err) {
    bool in_place;
    hlsnap_result r;
    if (m->under && m->valid && !m->forget && hlsnap__images_undo(m, NULL)) m->valid = false;
    r = hlsnap__reset_plan(m, s, &in_place, err);
    if (!r && !in_place) return hlsnap__memory_map(m, s, err);
    if (!r && m->learns && m->ran) {
        if (s == m->base) hlsnap__memory_learn(m);
        m->learns = false; /* what is private now is more than what calls wrote */
    }
    if (!r) r = hlsnap__hot_reset_all(m, err);
    if (r) {
        m->valid = false;
        return r;
    }
    return hlsnap__reset_tidy(m, s, err);
}

/* ---- >>images: ranges of the window that show what others held, each its own from then on ---- */

#define HLSNAP__IMAGE_LAYERS (HLSNAP__MAX_LAYERS + HLSNAP_MAX_MAPS + 32) /* of what is mapped, with images' own */
#define HLSNAP__IMAGE_NEW UINT32_MAX                                      /* an extent's layer: the one just made */

/* What `base` is where images are mapped: a snapshot that nobody took, so that all that compares what is mapped with what is
   wanted goes on as ever. `under` is what was there before, and is put back, by mappings, before anything else is. */

/* A part of a range: of one extent, zeros, or pages that are private. */
typedef struct hlsnap__part {
    uint64_t pages;
    const hlsnap__extent *extent; /* NULL = none */
    bool hot;
} hlsnap__part;

/* The part from a page on; *k, 0 at first, goes along. */
static hlsnap__part hlsnap__part_at(const hlsnap__memory *m, const hlsnap_snapshot *s, uint64_t page, uint64_t end,
                                    uint32_t *k) {
    hlsnap__part part = {1, NULL, hlsnap__bit(m->is_hot, page)};
    const hlsnap__extent *e;
    while (*k < s->num_extents && (uint64_t)s->extents[*k].page + s->extents[*k].pages <= page) ++*k;
    e = *k < s->num_extents ? &s->extents[*k] : NULL;
    if (e && e->page <= page) {
        part.extent = e;
        if ((uint64_t)e->page + e->pages < end) end = (uint64_t)e->page + e->pages;
    } else if (e && e->page < end) {
        end = e->page;
    }
    while (part.pages < end - page && hlsnap__bit(m->is_hot, page + part.pages) == part.hot) part.pages++;
    return part;
}

/* What a range holds, for another place: extents there of what can be mapped; the rest is zero, or copied. */
typedef struct hlsnap__image {
    uint64_t from, to, pages; /* page numbers; from may be that of a map */
    bool nothing;             /* zeros instead of what is at `from` */
    uint64_t hot, copied;     /* pages that are private; that would have to be copied */
    hlsnap__layer *layer;     /* of all of it; NULL = none was made */
    hlsnap__builder at;       /* extents at `to` */
} hlsnap__image;

static hlsnap_result hlsnap__image_look(hlsnap__memory *m, hlsnap__image *x, hlsnap_error *err) {
    const uint64_t end = x->from + x->pages;
    const uint32_t least = m->base->map_run;
    hlsnap_result r = HLSNAP_OK;
    hlsnap__part part;
    uint64_t page;
    uint32_t k = 0;
    bool seen;
    if (x->nothing) return r;
    if (m->pagemap < 0) m->pagemap = hlsnap__pagemap_open();
    if (x->from < m->layout.pages)
        r = m->pagemap < 0 ? HLSNAP_ERR_UNSUPPORTED : hlsnap__scan_range(m, x->from, end, &seen, err);
    if (x->from >= m->layout.pages || r == HLSNAP_ERR_UNSUPPORTED) { /* which are private, is not known */
        x->hot = x->copied = x->pages;
        return HLSNAP_OK;
    }
    for (page = x->from; page < end && !r; page += part.pages) {
        const hlsnap__layer *layer;
        part = hlsnap__part_at(m, m->base, page, end, &k);
        layer = part.extent && !part.hot ? m->base->layers[part.extent->layer] : NULL;
        if (layer && layer->fd >= 0 && part.pages >= least) {
            hlsnap__extent e = hlsnap__extent_part(part.extent, page, page + part.pages);
            e.page = (uint32_t)(x->to + (page - x->from));
            r = hlsnap__builder_extent(&x->at, &e, false, err);
        } else if (part.hot || layer) {
            x->copied += part.pages;
        }
        x->hot += part.hot ? part.pages : 0;
    }
    return r;
}

/* Makes one layer of all of it. */
static hlsnap_result hlsnap__image_seal(const hlsnap__memory *m, hlsnap__image *x, hlsnap_error *err) {
    const hlsnap__extent whole = {(uint32_t)x->to, (uint32_t)x->pages, HLSNAP__IMAGE_NEW, 0};
    uint8_t *buffer = (uint8_t *)hlsnap__alloc_raw(HLSNAP__MAP_RUN * HLSNAP__PAGE, err);
    const int fd = buffer ? hlsnap__memfd(err) : -1;
    hlsnap_result r = !buffer ? HLSNAP_ERR_MEMORY : fd < 0 ? HLSNAP_ERR_OS : HLSNAP_OK;
    hlsnap_error why;
    uint64_t page, n;
    if (!r) r = hlsnap__file_resize(fd, x->pages * HLSNAP__PAGE, err);
    for (page = 0; page < x->pages && !r; page += n) {
        const size_t size = HLSNAP__PAGE * (size_t)(n = x->pages - page < HLSNAP__MAP_RUN ? x->pages - page : HLSNAP__MAP_RUN);
        r = hlsnap__memory_move(m, buffer, x->from + page, 0, size, false, err);
        if (!r && !hlsnap__all_zero(buffer, size)) r = hlsnap__pwrite(fd, buffer, size, page * HLSNAP__PAGE, err);
    }
    hlsnap__free(buffer);
    if (!r) r = hlsnap__memfd_seal(fd, err);
    if (r && fd >= 0) close(fd);
    if (r) return r;
    x->layer = hlsnap__layer_create(fd, true, x->pages, &why);
    if (!x->layer && err) *err = why;
    if (!x->layer) return why.code;
    x->layer->image = true;
    x->at.num = 0;
    x->copied = 0;
    return hlsnap__builder_extent(&x->at, &whole, false, err);
}

/* What is mapped, with these extents in the range from a page on; *out is the caller's. */
static hlsnap_result hlsnap__image_over(const hlsnap_snapshot *s, const hlsnap__image *x, uint64_t page,
                                        hlsnap_snapshot **out, hlsnap_error *err) {
    const uint64_t end = page + x->pages;
    hlsnap__layer **layers = (hlsnap__layer **)hlsnap__alloc((size_t)s->num_layers + 1, sizeof(*layers), err);
    hlsnap__builder b = hlsnap__builder_none;
    hlsnap_result r = layers ? HLSNAP_OK : HLSNAP_ERR_MEMORY;
    uint32_t i, number = 0;
    for (i = 0; i < s->num_layers && !r; i++) layers[i] = s->layers[i];
    while (x->layer && number < s->num_layers && s->layers[number] != x->layer) number++;
    if (!r) layers[s->num_layers] = x->layer; /* dropped where no extent has it */
    for (i = 0; i < s->num_extents && !r && s->extents[i].page < page; i++) {
        const hlsnap__extent part = hlsnap__extent_part(&s->extents[i], s->extents[i].page, page);
        r = hlsnap__builder_extent(&b, &part, false, err);
    }
    for (i = 0; i < x->at.num && !r; i++) {
        hlsnap__extent e = x->at.extents[i];
        e.page = (uint32_t)(page + (e.page - x->to));
        if (e.layer == HLSNAP__IMAGE_NEW) e.layer = number;
        r = hlsnap__builder_extent(&b, &e, false, err);
    }
    for (i = 0; i < s->num_extents && !r; i++) {
        const hlsnap__extent *e = &s->extents[i];
        hlsnap__extent part;
        if ((uint64_t)e->page + e->pages <= end) continue;
        part = hlsnap__extent_part(e, e->page > end ? e->page : end, UINT64_MAX);
        r = hlsnap__builder_extent(&b, &part, false, err);
    }
    *out = NULL;
    if (!r) r = hlsnap__snapshot_create(s->guest, s->generation, layers, s->num_layers + (number == s->num_layers), b.extents,
                                        b.num, out, err);
    if (!r) r = hlsnap__snapshot_maps(*out, s->maps, s->num_maps, err);
    if (r) hlsnap_snapshot_release(*out);
    hlsnap__builder_free(&b);
    hlsnap__free(layers);
    return r;
}

/* Whether it may be mapped so: mappings, descriptors and pages are bounded, whatever a guest does. */
static hlsnap_result hlsnap__image_room(const hlsnap__memory *m, const hlsnap_snapshot *over, hlsnap_error *err) {
    const uint64_t most = hlsnap__layout_find(&m->layout, HLSNAP__HEAP)->pages;
    uint64_t pages = 0;
    uint32_t i;
    for (i = 0; i < over->num_layers; i++) pages += over->layers[i]->image ? over->layers[i]->pages : 0;
    if (pages > most)
        return hlsnap__fail(err, HLSNAP_ERR_LIMIT, 0, "images: %llu pages are held for them, at most %llu",
                            (unsigned long long)pages, (unsigned long long)most);
    if (over->num_layers > HLSNAP__IMAGE_LAYERS)
        return hlsnap__fail(err, HLSNAP_ERR_LIMIT, 0, "images: %u layers with the snapshot's, at most %u",
                            over->num_layers, HLSNAP__IMAGE_LAYERS);
    if (over->map_run > m->base->map_run)
        return hlsnap__fail(err, HLSNAP_ERR_LIMIT, 0, "images: more than %u mappings", HLSNAP__MAX_MAPPED);
    return HLSNAP_OK;
}

/* Lays layer pages, or zeros, in the place of pages that are not private any more then. */
static hlsnap_result hlsnap__image_lay(hlsnap__memory *m, uint64_t page, uint64_t pages, const hlsnap__layer *layer,
                                       uint32_t from, hlsnap_error *err) {
    const uint32_t mapped = m->num_mapped;
    bool lost = false;
    if (!pages) return HLSNAP_OK;
    if (!hlsnap__pages_lay(m, page, (uint32_t)pages, layer, from, &lost))
        return hlsnap__fail_map(err, pages * HLSNAP__PAGE, "guest memory, for an image");
    m->num_mapped = mapped; /* what is not the snapshot's is bounded by itself */
    if (layer) hlsnap__memory_rely(m, page, layer);
    return HLSNAP_OK;
}

/* Pages that will be laid are not private any more. But those where a reset puts back something else than was mapped stay hot:
   where an image has what was mapped before it, nothing else knows of them. */
static void hlsnap__image_forget(hlsnap__memory *m, uint64_t first, uint64_t pages) {
    const hlsnap_snapshot *under = m->under ? m->under : m->base;
    uint32_t i, kept = 0;
    for (i = 0; i < m->num_hot; i++) {
        const hlsnap__hot *h = &m->hot[i];
        hlsnap__hot below = *h;
        if (h->page - first < pages) {
            hlsnap__bit_clear(m->pinned, h->page);
            hlsnap__hot_source(m, &below, under);
            if (below.layer == h->layer && below.layer_page == h->layer_page) {
                hlsnap__bit_clear(m->is_hot, h->page);
                continue;
            }
        }
        m->hot[kept++] = *h;
    }
    m->num_hot = kept;
    if (m->num_copied > kept) m->num_copied = kept;
}

/* Lays it in the range from a page on. */
static hlsnap_result hlsnap__image_place(hlsnap__memory *m, const hlsnap__image *x, uint64_t page, hlsnap_error *err) {
    const uint64_t end = page + x->pages;
    hlsnap_result r = HLSNAP_OK;
    uint64_t at = page;
    uint32_t i;
    hlsnap__image_forget(m, page, x->pages);
    for (i = 0; i < x->at.num && !r; i++) {
        const hlsnap__extent *e = &x->at.extents[i];
        const uint64_t first = page + (e->page - x->to);
        r = hlsnap__image_lay(m, at, first - at, NULL, 0, err);
        if (!r)
            r = hlsnap__image_lay(m, first, e->pages, x->layer ? x->layer : m->base->layers[e->layer], e->layer_page, err);
        at = first + e->pages;
    }
    return r ? r : hlsnap__image_lay(m, at, end - at, NULL, 0, err);
}

/* Copies what no extent at `to` has. */
static hlsnap_result hlsnap__image_copy(hlsnap__memory *m, const hlsnap__image *x, hlsnap_error *err) {
    uint8_t bounce[HLSNAP__PAGE];
    hlsnap_result r = HLSNAP_OK;
    uint64_t i;
    uint32_t k = 0;
    for (i = 0; i < x->pages && x->copied && !r; i++) {
        const uint8_t *now;
        while (k < x->at.num && (uint64_t)x->at.extents[k].page + x->at.extents[k].pages <= x->to + i) k++;
        if (k < x->at.num && x->at.extents[k].page <= x->to + i) continue;
        r = hlsnap__memory_peek(m, x->from + i, bounce, &now, err);
        if (r || hlsnap__all_zero(now, HLSNAP__PAGE)) continue;
        if (now != bounce) memcpy(bounce, now, HLSNAP__PAGE);
        r = hlsnap__memory_move(m, bounce, x->to + i, 0, HLSNAP__PAGE, true, err);
        if (!r) r = hlsnap__hot_add(m, x->to + i, err);
    }
    return r;
}

/* Shows at `to` what is at `from`. Where this fails with HLSNAP_ERR_LIMIT nothing was changed. With `once` nothing is laid at
   `from`, which goes on being written to; else many private pages of it become a layer below it, too, so that the next time
   costs less. */
static hlsnap_result hlsnap__image_show(hlsnap__memory *m, hlsnap__image *x, bool once, hlsnap_error *err) {
    hlsnap_snapshot *over = NULL, *both = NULL;
    hlsnap_result r = hlsnap__image_look(m, x, err);
    if (!r && (once ? x->copied : x->hot) >= HLSNAP__MAP_RUN) r = hlsnap__image_seal(m, x, err);
    if (!r) r = hlsnap__image_over(m->base, x, x->to, &over, err);
    if (!r && x->layer && !once) {
        r = hlsnap__image_over(over, x, x->from, &both, err);
        hlsnap_snapshot_release(over);
        over = r ? NULL : both;
    }
    if (!r) r = hlsnap__image_room(m, over, err);
    if (r) {
        hlsnap_snapshot_release(over);
        return r;
    }
    m->valid = false; /* until it is done */
    r = hlsnap__image_place(m, x, x->to, err);
    if (!r) r = hlsnap__image_copy(m, x, err);
    if (!r && both) r = hlsnap__image_place(m, x, x->from, err);
    if (!m->under) {
        m->under = m->base;
        hlsnap_snapshot_retain(m->under);
    }
    hlsnap_snapshot_release(m->base);
    m->base = over;
    m->valid = !r;
    return r;
}

/* Lays what was there before images in a run where they are; user: a uint32_t as in hlsnap__part_at. */
static hlsnap_result hlsnap__image_undo_run(hlsnap__memory *m, uint64_t page, uint64_t pages, void *user,
                                            hlsnap_error *err) {
    const hlsnap_snapshot *s = m->under;
    const uint64_t end = page + pages;
    hlsnap_result r = HLSNAP_OK;
    hlsnap__part part;
    hlsnap__hot_forget(m, page, pages);
    for (; page < end && !r; page += part.pages) {
        hlsnap__extent e = {0, 0, 0, 0};
        part = hlsnap__part_at(m, s, page, end, (uint32_t *)user);
        if (part.extent) e = hlsnap__extent_part(part.extent, page, page + part.pages);
        if (part.extent && hlsnap__extent_mapped(s, part.extent)) {
            r = hlsnap__image_lay(m, page, part.pages, s->layers[e.layer], e.layer_page, err);
            continue;
        }
        r = hlsnap__image_lay(m, page, part.pages, NULL, 0, err);
        if (!r && part.extent) r = hlsnap__extent_copy(m, s, &e, err);
    }
    return r;
}

/* Takes all that images changed back. When this fails the memory is in no state to run. */
static hlsnap_result hlsnap__images_undo(hlsnap__memory *m, hlsnap_error *err) {
    uint32_t k = 0;
    hlsnap_result r = hlsnap__snapshot_diff(m, m->base, m->under, hlsnap__image_undo_run, &k, err);
    hlsnap_snapshot_release(m->base);
    m->base = m->under;
    m->under = NULL;
    /* what the target has there need not be what is mapped again */
    if (!r && m->target != m->base) r = hlsnap__snapshot_diff(m, m->target, m->base, hlsnap__diff_add, NULL, err);
    return r;
}

/* A snapshot has them: from now on they are what is mapped. */
static void hlsnap__images_keep(hlsnap__memory *m) {
    uint32_t i;
    if (!m->under) return;
    for (i = 0; i < m->base->num_extents; i++) m->num_mapped += hlsnap__extent_mapped(m->base, &m->base->extents[i]);
    for (i = 0; i < m->under->num_extents; i++)
        if (m->num_mapped) m->num_mapped -= hlsnap__extent_mapped(m->under, &m->under->extents[i]);
    hlsnap_snapshot_release(m->under);
    m->under = NULL;
}

/* Where images are mapped: the window's extents of the last snapshot, and in their place theirs. */
typedef struct hlsnap__blend {
    hlsnap__builder *b;
    uint32_t next, over; /* extents of the target, and of base */
    uint64_t at;
} hlsnap__blend;

/* The parts of extents of s that lie in [from, to); *k goes along; layers are numbered from `number` on. */
static hlsnap_result hlsnap__blend_parts(hlsnap__builder *b, const hlsnap_snapshot *s, uint32_t *k, uint64_t from,
                                       uint64_t to, uint32_t number, hlsnap_error *err) {
    hlsnap_result r = HLSNAP_OK;
    while (*k < s->num_extents && (uint64_t)s->extents[*k].page + s->extents[*k].pages <= from) ++*k;
    for (; *k < s->num_extents && s->extents[*k].page < to && !r; ++*k) {
        const hlsnap__extent *e = &s->extents[*k];
        hlsnap__extent part = hlsnap__extent_part(e, e->page > from ? e->page : from, to);
        part.layer += number;
        r = hlsnap__builder_extent(b, &part, false, err);
        if ((uint64_t)e->page + e->pages > to) break; /* goes on */
    }
    return r;
}

static hlsnap_result hlsnap__blend_run(hlsnap__memory *m, uint64_t page, uint64_t pages, void *user, hlsnap_error *err) {
    hlsnap__blend *x = (hlsnap__blend *)user;
    hlsnap_result r = hlsnap__blend_parts(x->b, m->target, &x->next, x->at, page, 0, err);
    if (!r) r = hlsnap__blend_parts(x->b, m->base, &x->over, page, page + pages, m->target->num_layers, err);
    x->at = page + pages;
    return r;
}

/* Adds them to b; layers: the target's, then base's. */
static hlsnap_result hlsnap__blend_window(hlsnap__memory *m, hlsnap__builder *b, hlsnap_error *err) {
    hlsnap__blend x = {b, 0, 0, 0};
    hlsnap_result r = m->under ? hlsnap__snapshot_diff(m, m->base, m->under, hlsnap__blend_run, &x, err) : HLSNAP_OK;
    return r ? r : hlsnap__blend_parts(b, m->target, &x.next, x.at, m->layout.pages, 0, err);
}

/* ---- >>take: a snapshot of guest memory ---- */

#define HLSNAP__VIEW_LAYERS (2 * HLSNAP__IMAGE_LAYERS) /* of what a snapshot is made from: the last one's, and images' */
#define HLSNAP__LAYERS 32u      /* of a snapshot as this code makes it: then small layers are merged */
#define HLSNAP__MERGE 8u        /* so many at least, since the next new layer would have to do it again */
#define HLSNAP__MERGE_SLACK 64u /* pages in layers that nothing shows, which are not worth a merge */

/* What a snapshot shows of a layer, and whether its pages go into the next new layer. */
typedef struct hlsnap__share {
    uint64_t pages, shown;
    bool fixed; /* must stay */
    bool merge;
} hlsnap__share;

/* Chooses layers to merge with what is new. The first one stays: it is the image, or the base of a chain, and all its other
   snapshots have it, too. First the layers of which less than half is shown, when that is so of all together: what is copied
   is less than what goes. Then, when there would be too many, the smallest; as soon as these are not of one size any more,
   also those that are no larger than these together. So a page is copied about as often as its number of layers doubles. */
static void hlsnap__shares_choose(hlsnap__share *share, uint32_t num) {
    uint32_t order[HLSNAP__VIEW_LAYERS + HLSNAP_MAX_MAPS], n = 0, i, k, least;
    uint64_t pages = 0, shown = 0, sum = 0;
    for (i = 1; i < num; i++) pages += share[i].pages;
    for (i = 1; i < num; i++) shown += share[i].shown;
    for (i = 1; i < num; i++) {
        share[i].merge =
            !share[i].fixed && pages > 2 * shown + HLSNAP__MERGE_SLACK && share[i].pages > 2 * share[i].shown;
        if (share[i].merge || share[i].fixed) continue;
        for (k = n++; k > 0 && share[order[k - 1]].shown > share[i].shown; k--) order[k] = order[k - 1];
        order[k] = i;
    }
    for (i = k = 0; i < num; i++) k += !share[i].merge;
    if (k + 1 <= HLSNAP__LAYERS) return;
    least = k + 1 - HLSNAP__LAYERS > HLSNAP__MERGE ? k + 1 - HLSNAP__LAYERS : HLSNAP__MERGE;
    for (i = 0; i < n; i++) {
        const uint64_t size = share[order[i]].shown;
        if (i >= least && (share[order[least - 1]].shown <= 8 * share[order[0]].shown || size > sum)) break;
        share[order[i]].merge = true;
        sum += size;
    }
}

/* What a snapshot shows of each of its layers. Those that are watched stay: a copy would have nobody who looks at it. So do
   captured ones, which other snapshots have, too, and images that are shown at several places. */
static void hlsnap__snapshot_shares(const hlsnap_snapshot *s, hlsnap__share *share) {
    uint32_t i;
    memset(share, 0, s->num_layers * sizeof(*share));
    for (i = 0; i < s->num_layers; i++) share[i].pages = s->layers[i]->pages;
    for (i = 0; i < s->num_layers; i++)
        share[i].fixed = s->layers[i]->watch != NULL || hlsnap__snapshot_captured(s, s->layers[i]);
    for (i = 0; i < s->num_extents; i++) share[s->extents[i].layer].shown += s->extents[i].pages;
    for (i = 0; i < s->num_layers; i++) share[i].fixed = share[i].fixed || share[i].shown > share[i].pages;
}

/* Whether a page and the one before it are in one region or map of the snapshot. */
static bool hlsnap__snapshot_goes_on(const hlsnap_snapshot *s, uint64_t page) {
    const hlsnap__layout *l = &s->guest->layout;
    return page > 0 && hlsnap__page_room(l, s->maps, s->num_maps, page - 1) ==
                           hlsnap__page_room(l, s->maps, s->num_maps, page);
}

/* Whether a page must be stored: all but zeros where those are what there is without. */
static bool hlsnap__page_counts(const hlsnap_snapshot *s, uint64_t page, const uint8_t *now) {
    return !hlsnap__all_zero(now, HLSNAP__PAGE) ||
           !hlsnap__page_sparse(&s->guest->layout, s->maps, s->num_maps, page);
}

/* Stores pages of a parent's layer that is merged, but for those that need not be. */
static hlsnap_result hlsnap__take_merged(hlsnap__builder *b, const hlsnap_snapshot *parent, const hlsnap__extent *e,
                                         hlsnap_error *err) {
    bool join = hlsnap__snapshot_goes_on(parent, e->page);
    uint8_t page[HLSNAP__PAGE];
    hlsnap_result r = HLSNAP_OK;
    uint32_t i;
    for (i = 0; !r && i < e->pages; i++, join = true) {
        r = hlsnap__layer_read(parent->layers[e->layer], (uint64_t)e->layer_page + i, 1, page, err);
        if (!r && hlsnap__page_counts(parent, (uint64_t)e->page + i, page))
            r = hlsnap__builder_store(b, (uint64_t)e->page + i, page, join, err);
    }
    return r;
}

/* Adds the parent's extents that lie in [*at, end) to the builder and moves on. */
static hlsnap_result hlsnap__take_parent(hlsnap__builder *b, const hlsnap_snapshot *parent, const hlsnap__share *share,
                                         uint32_t *next, uint64_t *at, uint64_t end, hlsnap_error *err) {
    while (*next < parent->num_extents && *at < end) {
        const hlsnap__extent *e = &parent->extents[*next];
        hlsnap__extent part;
        hlsnap_result r;
        if ((uint64_t)e->page + e->pages <= *at) {
            (*next)++;
            continue;
        }
        if (e->page >= end) break;
        part = hlsnap__extent_part(e, e->page > *at ? e->page : *at, end);
        r = share[part.layer].merge ? hlsnap__take_merged(b, parent, &part, err)
                                    : hlsnap__builder_extent(b, &part, part.page != e->page, err);
        if (r) return r;
        *at = (uint64_t)part.page + part.pages;
    }
    *at = end;
    return HLSNAP_OK;
}

/* The parent's extents with every hot page that differs from the parent replaced by one of a new layer, and what the layers
   that are merged show moved there. */
static hlsnap_result hlsnap__take_pages(hlsnap__memory *m, const hlsnap_snapshot *parent, const hlsnap__share *share,
                                        hlsnap__builder *b, hlsnap_error *err) {
    uint8_t *two = (uint8_t *)hlsnap__alloc(2, HLSNAP__PAGE, err);
    uint64_t at = 0;
    uint32_t i, next = 0;
    hlsnap_result r = two ? HLSNAP_OK : HLSNAP_ERR_MEMORY;
    hlsnap__hot_sort(m);
    for (i = 0; i < m->num_hot && !r; i++) {
        const uint64_t page = m->hot[i].page;
        const uint32_t idle = m->hot[i].idle;
        bool differs = false;
        const uint8_t *now;
        m->hot[i].idle = 0; /* what is not stored must not go */
        if (!hlsnap__stored_to(&m->layout, parent->maps, parent->num_maps, page)) continue;
        r = hlsnap__memory_differs(m, page, parent, two, &now, &differs, err);
        if (!r && !differs) m->hot[i].idle = idle + 1;
        if (r || !differs) continue;
        r = hlsnap__take_parent(b, parent, share, &next, &at, page, err);
        at = page + 1; /* whatever the parent had here is replaced, by a page or by zero */
        if (!r && hlsnap__page_counts(parent, page, now))
            r = hlsnap__builder_store(b, page, now, hlsnap__snapshot_goes_on(parent, page), err);
    }
    if (!r) r = hlsnap__take_parent(b, parent, share, &next, &at, UINT32_MAX, err);
    hlsnap__free(two);
    return r;
}

/* Pages of a region or map that are not what they are without an extent. */
static hlsnap_result hlsnap__take_span(hlsnap__memory *m, const hlsnap_snapshot *parent, hlsnap__builder *b,
                                       uint64_t first, uint64_t pages, hlsnap_error *err) {
    uint8_t bounce[HLSNAP__PAGE];
    hlsnap_result r = HLSNAP_OK;
    uint64_t k;
    for (k = 0; k < pages && !r; k++) {
        const uint8_t *now;
        if (!hlsnap__bit(m->is_hot, first + k) && !hlsnap__extent_at(parent, first + k)) continue;
        r = hlsnap__memory_peek(m, first + k, bounce, &now, err);
        if (!r && hlsnap__page_counts(parent, first + k, now)) r = hlsnap__builder_store(b, first + k, now, k > 0, err);
    }
    return r;
}

/* Every page that must be stored, into one layer: when there are too many layers to add one. */
static hlsnap_result hlsnap__take_all(hlsnap__memory *m, const hlsnap_snapshot *parent, hlsnap__builder *b,
                                      hlsnap_error *err) {
    const hlsnap__layout *l = &m->layout;
    hlsnap_result r = HLSNAP_OK;
    uint32_t i;
    for (i = 0; i < l->num_regions && !r; i++)
        if (hlsnap__kind_stored(l->regions[i].kind))
            r = hlsnap__take_span(m, parent, b, hlsnap__region_page(l, &l->regions[i]), l->regions[i].pages, err);
    for (i = 0; i < m->num_maps && !r; i++)
        if (hlsnap__map_stored(&m->maps[i].map))
            r = hlsnap__take_span(m, parent, b, m->maps[i].first, m->maps[i].pages, err);
    return r;
}

/* What is added to: the last snapshot as the maps are now. Pages of maps that are not those of that one are left out; those of
   maps that were captured since are there. Retained. */
static hlsnap_result hlsnap__take_view(hlsnap__memory *m, hlsnap__guest *guest, hlsnap_snapshot **out,
                                       hlsnap_error *err) {
    hlsnap_snapshot *target = m->target;
    hlsnap__layer *layers[HLSNAP__VIEW_LAYERS + HLSNAP_MAX_MAPS];
    hlsnap__map maps[HLSNAP_MAX_MAPS];
    hlsnap__builder b = hlsnap__builder_none;
    hlsnap_result r = HLSNAP_OK;
    uint32_t i, k = hlsnap__extents_in_window(target), num = target->num_layers;
    *out = target;
    hlsnap_snapshot_retain(target);
    if (!m->num_maps && !target->num_maps && !m->under) return HLSNAP_OK;
    hlsnap_snapshot_release(target);
    *out = NULL;
    memcpy(layers, target->layers, num * sizeof(*layers));
    for (i = 0; m->under && i < m->base->num_layers; i++) layers[num++] = m->base->layers[i];
    r = hlsnap__blend_window(m, &b, err);
    for (i = 0; i < m->num_maps && !r; i++) {
        const hlsnap__mapped *x = &m->maps[i];
        const hlsnap__extent whole = {(uint32_t)x->first, (uint32_t)x->pages, num, (uint32_t)x->at};
        maps[i] = x->map;
        if (x->map.capture && !x->in_target) {
            layers[num++] = x->layer;
            r = hlsnap__builder_extent(&b, &whole, false, err);
        }
        for (; x->in_target && k < target->num_extents && target->extents[k].page < x->first; k++) {
        }
        for (; !r && x->in_target && k < target->num_extents && target->extents[k].page < x->first + x->pages; k++)
            r = hlsnap__builder_extent(&b, &target->extents[k], false, err);
    }
    if (!r) r = hlsnap__snapshot_create(guest, target->generation, layers, num, b.extents, b.num, out, err);
    if (!r) r = hlsnap__snapshot_maps(*out, maps, m->num_maps, err);
    if (r) hlsnap_snapshot_release(*out);
    hlsnap__builder_free(&b);
    return r;
}

#define HLSNAP__TAKE_LAYERS 64u /* that must stay; then everything goes into one layer */

/* A snapshot of what memory holds now, over the layers of the last one. The mappings stay as they are; from now on resets
   go to the new one. */
static hlsnap_result hlsnap__memory_take(hlsnap__memory *m, hlsnap__guest *guest, uint64_t generation,
                                         hlsnap_snapshot **out, hlsnap_error *err) {
    hlsnap_snapshot *parent;
    hlsnap__builder b = hlsnap__builder_none;
    hlsnap__layer *layers[HLSNAP__VIEW_LAYERS + HLSNAP_MAX_MAPS + 1], *layer = NULL;
    hlsnap__share share[HLSNAP__VIEW_LAYERS + HLSNAP_MAX_MAPS];
    uint32_t i, kept, stay = 0;
    hlsnap__rests rests;
    hlsnap_result r = hlsnap__take_view(m, guest, &parent, err);
    if (r) return r;
    r = hlsnap__memory_scan(m, err);
    if (r == HLSNAP_ERR_UNSUPPORTED) r = hlsnap__memory_compare(m, parent, err);
    kept = parent->num_layers;
    hlsnap__snapshot_shares(parent, share);
    hlsnap__shares_choose(share, kept);
    for (i = 0; i < parent->num_layers; i++) stay += !share[i].merge;
    if (stay >= HLSNAP__TAKE_LAYERS) kept = 0;
    b.layer = kept;
    if (!r)
        r = stay < HLSNAP__TAKE_LAYERS ? hlsnap__take_pages(m, parent, share, &b, err)
                                       : hlsnap__take_all(m, parent, &b, err);
    if (!r) r = hlsnap__builder_seal(&b, &layer, err);
    for (i = 0; i < kept; i++) layers[i] = parent->layers[i];
    layers[i] = layer;
    if (!r) r = hlsnap__snapshot_create(guest, generation, layers, kept + (layer ? 1 : 0), b.extents, b.num, out, err);
    if (!r) r = hlsnap__snapshot_maps(*out, parent->maps, parent->num_maps, err);
    if (r) hlsnap_snapshot_release(*out);
    if (r) *out = NULL;
    hlsnap__layer_release(layer);
    hlsnap__builder_free(&b);
    hlsnap_snapshot_release(parent);
    if (r) return r;
    hlsnap_snapshot_retain(*out);
    hlsnap_snapshot_release(m->target);
    m->target = *out;
    hlsnap__images_keep(m);
    for (i = 0; i < m->num_maps; i++) m->maps[i].in_target = true;
    for (i = 0; i < m->num_hot; i++) hlsnap__hot_source(m, &m->hot[i], *out);
    m->resets = 0;               /* the next reset looks at every page */
    m->learns = false;
    if (!kept) return HLSNAP_OK; /* which pages rest was not looked at */
    rests = hlsnap__rests_count(m, 2, HLSNAP__HOT_IDLE);
    if (rests.pages <= HLSNAP__HOT_IDLE || rests.runs > HLSNAP__REST_RUNS ||
        m->num_mapped + rests.laid > HLSNAP__MAX_MAPPED)
        return HLSNAP_OK;
    r = hlsnap__memory_rest(m, 2, err);
    if (r) hlsnap_snapshot_release(*out);
    if (r) *out = NULL;
    return r;
}

/* ---- >>maps: what the host gives ---- */

#define HLSNAP__MAP_FILE_MOST (1ull << 44) /* bytes of a file: page numbers have 32 bits */

/* Opens what is a regular file, and nothing else: to open a device may be to use it, a FIFO waits. */
static hlsnap_result hlsnap__map_open(const hlsnap_map *map, int *fd, uint64_t *bytes, hlsnap_error *err) {
    const int flags = O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (map->mode == HLSNAP_MAP_SHARED ? O_RDWR : O_RDONLY);
    struct stat st;
    char shown[256];
    int failed = stat(map->path, &st) ? errno : 0;
    hlsnap__printable(shown, sizeof(shown), map->path, strlen(map->path), false);
    if (!failed && S_ISREG(st.st_mode)) {
        *fd = open(map->path, flags);
        failed = *fd < 0 || fstat(*fd, &st) ? errno : 0;
    }
    if (failed)
        return hlsnap__fail(err, HLSNAP_ERR_OS, failed, "map '%s': %s: %s (errno %d)", map->name, shown,
                            hlsnap__errno_text(failed), failed);
    *bytes = (uint64_t)st.st_size;
    if (S_ISREG(st.st_mode)) return HLSNAP_OK;
    return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "map '%s': %s is no regular file", map->name, shown);
}

/* How many bytes of a file of so many. */
static hlsnap_result hlsnap__map_extent(const hlsnap_map *map, uint64_t bytes, uint64_t *size, hlsnap_error *err) {
    const uint64_t left = map->offset < bytes ? bytes - map->offset : 0;
    *size = map->size ? map->size : left;
    if (map->offset % HLSNAP__PAGE || !left || *size > left || (map->size % HLSNAP__PAGE && map->size != left))
        return hlsnap__fail(err, HLSNAP_ERR_ARG, 0,
                            "map '%s': %llu bytes from %llu on of a file of %llu: offset and size are multiples of "
                            "4096, but for what is left at its end",
                            map->name, (unsigned long long)map->size, (unsigned long long)map->offset,
                            (unsigned long long)bytes);
    if (map->offset <= HLSNAP__MAP_FILE_MOST && *size <= HLSNAP__MAP_FILE_MOST - map->offset) return HLSNAP_OK;
    return hlsnap__fail(err, HLSNAP_ERR_LIMIT, 0, "map '%s': up to byte %llu of a file, at most %llu", map->name,
                        (unsigned long long)(map->offset + *size), (unsigned long long)HLSNAP__MAP_FILE_MOST);
}

/* Address space for a map, where huge pages of a file can be seen as such. */
static hlsnap_result hlsnap__mapped_reserve(hlsnap__mapped *x, hlsnap_error *err) {
    const size_t size = (size_t)(x->pages * HLSNAP__PAGE), huge = 2u << 20, slack = size < huge ? 0 : huge;
    uint8_t *p = (uint8_t *)mmap(NULL, size + slack, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    size_t before;
    if (p == MAP_FAILED) return hlsnap__fail_map(err, size, "a map");
    before = slack ? (huge - (uintptr_t)p % huge) % huge : 0;
    if (before) munmap(p, before);
    if (slack - before) munmap(p + before + size, slack - before);
    x->hva = p + before;
    x->reserved = size;
    return HLSNAP_OK;
}

/* A sealed copy of what the host gives, of a file or, with fd -1, of memory. */
static hlsnap_result hlsnap__map_copy(const hlsnap_map *map, int from, uint64_t size, hlsnap__layer **out,
                                      hlsnap_error *err) {
    const size_t piece = 16 * HLSNAP__PAGE;
    uint8_t *buffer = from < 0 ? NULL : (uint8_t *)hlsnap__alloc_raw(piece, err);
    const int fd = from < 0 || buffer ? hlsnap__memfd(err) : -1;
    hlsnap_result r = from >= 0 && !buffer ? HLSNAP_ERR_MEMORY : fd < 0 ? HLSNAP_ERR_OS : HLSNAP_OK;
    hlsnap_error why;
    uint64_t at;
    size_t n;
    if (!r) r = hlsnap__file_resize(fd, HLSNAP__PAGES(size) * HLSNAP__PAGE, err);
    for (at = 0; at < size && !r; at += n) {
        const uint8_t *p = buffer ? buffer : (const uint8_t *)map->data + at;
        n = size - at < piece ? (size_t)(size - at) : piece;
        if (buffer) r = hlsnap__pread(from, buffer, n, map->offset + at, err);
        if (!r && !hlsnap__all_zero(p, n)) r = hlsnap__pwrite(fd, p, n, at, err);
    }
    hlsnap__free(buffer);
    if (!r) r = hlsnap__memfd_seal(fd, err);
    if (r && fd >= 0) close(fd);
    if (r) return r;
    *out = hlsnap__layer_create(fd, true, HLSNAP__PAGES(size), &why);
    if (!*out && err) *err = why;
    return *out ? HLSNAP_OK : why.code;
}

/* What the guest sees of a file that it sees as it is. */
static hlsnap_result hlsnap__mapped_show(hlsnap__mapped *x, int fd, uint64_t offset, hlsnap_error *err) {
    const bool shared = x->map.mode == HLSNAP_MAP_SHARED;
    const int flags = (shared ? MAP_SHARED : MAP_PRIVATE) | MAP_FIXED | MAP_NORESERVE;
    const hlsnap_result r = hlsnap__mapped_reserve(x, err);
    if (r) return r;
    if (mmap(x->hva, x->reserved, PROT_NONE, flags, fd, (off_t)offset) == MAP_FAILED)
        return hlsnap__fail_map(err, x->reserved, "a map");
    return hlsnap__pages_open(x->hva, x->reserved, shared ? PROT_READ | PROT_WRITE : PROT_READ, err);
}

/* Takes over fd. */
static hlsnap_result hlsnap__mapped_file(hlsnap__mapped *x, const hlsnap_map *map, int fd, hlsnap_error *err) {
    const int seals = fcntl(fd, HLSNAP__F_GET_SEALS, 0);
    const bool stays = seals >= 0 && seals & HLSNAP__F_SEAL_SHRINK;
    const uint64_t end = map->offset + x->map.size;
    hlsnap_error why;
    hlsnap_result r;
    x->trusted = stays;
    if (map->mode == HLSNAP_MAP_PRIVATE && !map->capture) {
        x->at = map->offset / HLSNAP__PAGE;
        x->layer = hlsnap__layer_create(fd, stays, HLSNAP__PAGES(end), &why);
        if (!x->layer && err) *err = why;
        if (!x->layer) return why.code;
        x->layer->missing = (uint32_t)(x->layer->pages * HLSNAP__PAGE - end);
        return HLSNAP_OK;
    }
    r = map->capture ? hlsnap__map_copy(map, fd, x->map.size, &x->layer, err)
                     : hlsnap__mapped_show(x, fd, map->offset, err);
    close(fd);
    return r;
}

static hlsnap_result hlsnap__mapped_data(hlsnap__mapped *x, const hlsnap_map *map, hlsnap_error *err) {
    if (map->offset || !map->size || map->size % HLSNAP__PAGE || (uintptr_t)map->data % HLSNAP__PAGE ||
        map->size > UINTPTR_MAX - (uintptr_t)map->data)
        return hlsnap__fail(err, HLSNAP_ERR_ARG, 0,
                            "map '%s': %llu bytes of memory at %p, offset %llu: address and size are multiples of 4096, "
                            "the offset is 0",
                            map->name, (unsigned long long)map->size, map->data, (unsigned long long)map->offset);
    x->trusted = true;
    if (hlsnap__map_stored(&x->map)) return hlsnap__map_copy(map, -1, map->size, &x->layer, err);
    x->hva = (uint8_t *)map->data;
    return HLSNAP_OK;
}

/* Fills in what the host gives; freed by the caller, also after a failure. */
static hlsnap_result hlsnap__mapped_make(hlsnap__mapped *x, const hlsnap_map *map, hlsnap_error *err) {
    const size_t name = map->name ? strnlen(map->name, sizeof(x->map.name)) : 0;
    hlsnap_result r = HLSNAP_OK;
    int fd = -1;
    memset(x, 0, sizeof(*x));
    if (!map->name || !map->path == !map->data || name == sizeof(x->map.name))
        return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "map '%.*s' has %s", (int)name, map->name ? map->name : "",
                            name == sizeof(x->map.name) ? "too long a name"
                            : !map->name                ? "no name"
                                                        : "not one of path and data");
    memcpy(x->map.name, map->name, name);
    x->map.mode = (uint32_t)map->mode;
    x->map.capture = map->capture;
    x->map.optional = map->optional;
    x->map.size = HLSNAP__PAGE; /* until it is known */
    x->given = true;
    if (map->digest) memcpy(x->map.digest, map->digest, strnlen(map->digest, sizeof(x->map.digest) - 1));
    if (map->digest && !hlsnap__sha256_ok(map->digest)) x->map.digest[0] = '?';
    r = hlsnap__map_check(&x->map, HLSNAP_ERR_ARG, err);
    if (!r && map->path) r = hlsnap__map_open(map, &fd, &x->map.size, err);
    if (!r) r = map->path ? hlsnap__map_extent(map, x->map.size, &x->map.size, err) : HLSNAP_OK;
    if (map->data) x->map.size = map->size ? map->size : HLSNAP__PAGE;
    if (!r) r = hlsnap__map_check(&x->map, HLSNAP_ERR_ARG, err);
    x->pages = HLSNAP__PAGES(x->map.size);
    if (r && fd >= 0) close(fd);
    if (r) return r;
    return map->path ? hlsnap__mapped_file(x, map, fd, err) : hlsnap__mapped_data(x, map, err);
}

static hlsnap__mapped *hlsnap__mapped_find(const hlsnap__memory *m, const char *name) {
    uint32_t i;
    for (i = 0; i < m->num_maps; i++)
        if (strcmp(m->maps[i].map.name, name) == 0) return &m->maps[i];
    return NULL;
}

/* One more, which has no place yet. */
static hlsnap_result hlsnap__maps_give(hlsnap__memory *m, const hlsnap_map *map, hlsnap_error *err) {
    hlsnap_result r;
    if (!m->maps) m->maps = (hlsnap__mapped *)hlsnap__alloc(HLSNAP_MAX_MAPS, sizeof(*m->maps), err);
    if (!m->maps) return HLSNAP_ERR_MEMORY;
    if (m->num_maps == HLSNAP_MAX_MAPS)
        return hlsnap__fail(err, HLSNAP_ERR_LIMIT, 0, "more than %d maps", HLSNAP_MAX_MAPS);
    if (map->name && hlsnap__mapped_find(m, map->name)) /* before a copy is made of it */
        return hlsnap__fail(err, HLSNAP_ERR_DUPLICATE, 0, "map '%s' is there already", map->name);
    r = hlsnap__mapped_make(&m->maps[m->num_maps], map, err);
    if (r)
        hlsnap__mapped_free(&m->maps[m->num_maps], false);
    else
        m->maps[m->num_maps++].first = UINT64_MAX / 2;
    return r;
}

/* Whether the files of PRIVATE maps are still as long: who cuts one takes the pages that the guest has written, too. One that has
   grown again since is not noticed. */
static hlsnap_result hlsnap__maps_whole(const hlsnap__memory *m, hlsnap_error *err) {
    uint32_t i;
    for (i = 0; i < m->num_maps; i++) {
        const hlsnap__mapped *x = &m->maps[i];
        const uint64_t size = x->layer ? x->layer->pages * HLSNAP__PAGE - x->layer->missing : 0;
        struct stat st;
        if (x->trusted || !size) continue;
        if (fstat(x->layer->fd, &st) != 0)
            return hlsnap__fail(err, HLSNAP_ERR_OS, errno, "map '%s': fstat: %s (errno %d)", x->map.name,
                                hlsnap__errno_text(errno), errno);
        if (st.st_size < 0 || (uint64_t)st.st_size < size)
            return hlsnap__fail(err, HLSNAP_ERR_CHANGED, 0, "map '%s': its file has %lld bytes, not %llu any more", x->map.name,
                                (long long)st.st_size, (unsigned long long)size);
    }
    return HLSNAP_OK;
}

/* Why a map that a snapshot demands does not start with what the host gives; "" = it does. */
static void hlsnap__map_differs(const hlsnap__map *want, const hlsnap__mapped *have, char *to, size_t cap) {
    to[0] = 0;
    if (!have || !have->given)
        hlsnap__format(to, cap, "%s (%s, %llu bytes) is missing", want->name, hlsnap__map_modes[want->mode],
                       (unsigned long long)want->size);
    else if (have->map.mode != want->mode || have->map.size != want->size || have->map.capture != want->capture)
        hlsnap__format(to, cap, "%s is %s%s of %llu bytes, not %s%s of %llu", want->name,
                       have->map.capture ? "captured " : "", hlsnap__map_modes[have->map.mode],
                       (unsigned long long)have->map.size, want->capture ? "captured " : "",
                       hlsnap__map_modes[want->mode], (unsigned long long)want->size);
    else if (!want->capture && want->digest[0] && strcmp(want->digest, have->map.digest) != 0)
        hlsnap__format(to, cap, "%s has the digest %.19s, not %.19s", want->name,
                       have->map.digest[0] ? have->map.digest : "(none)", want->digest);
}

/* Whether the maps that there are do for a snapshot. A failure names all that are missing or differ. */
static hlsnap_result hlsnap__maps_accept(const hlsnap__memory *m, const hlsnap_snapshot *s, hlsnap_error *err) {
    char text[400], one[200];
    size_t n = 0;
    uint32_t i, num = s->num_maps, more = 0;
    for (i = 0; i < m->num_maps; i++)
        num += m->maps[i].given && !hlsnap__map_find(s->maps, s->num_maps, m->maps[i].map.name);
    if (num > HLSNAP_MAX_MAPS)
        return hlsnap__fail(err, HLSNAP_ERR_LIMIT, 0, "%u maps with the snapshot's, at most %d", num, HLSNAP_MAX_MAPS);
    for (i = 0; i < s->num_maps; i++) {
        const hlsnap__map *want = &s->maps[i];
        const hlsnap__mapped *have = hlsnap__mapped_find(m, want->name);
        if ((!have || !have->given) && (want->capture || want->optional)) continue;
        hlsnap__map_differs(want, have, one, sizeof(one));
        if (one[0] && !more && n + strlen(one) + sizeof("; ; and 16 more") <= sizeof(text))
            n += (size_t)hlsnap__format(text + n, sizeof(text) - n, "%s%s", n ? "; " : "", one);
        else
            more += one[0] != 0;
    }
    if (more) hlsnap__format(text + n, sizeof(text) - n, "; and %u more", more);
    return n ? hlsnap__fail(err, HLSNAP_ERR_CONTRACT, 0, "maps: %s", text) : HLSNAP_OK;
}

/* Whether a map at that address would lie on one of these, or right behind or before it. */
static const hlsnap__map *hlsnap__maps_clash(const hlsnap__map *maps, uint32_t num, uint64_t gva, uint64_t size) {
    uint32_t i;
    for (i = 0; i < num; i++)
        if (maps[i].gva && gva < maps[i].gva + maps[i].size + HLSNAP__PAGE && maps[i].gva < gva + size + HLSNAP__PAGE)
            return &maps[i];
    return NULL;
}

/* The first place for one more beside these; 0: there is none. */
static uint64_t hlsnap__maps_gap(const hlsnap__map *maps, uint32_t num, uint64_t size) {
    uint64_t gva = HLSNAP__MAPS_GVA;
    const hlsnap__map *clash;
    while ((clash = hlsnap__maps_clash(maps, num, gva, size)) != NULL)
        gva = (clash->gva + clash->size + HLSNAP__PAGE + HLSNAP__MAPS_STEP - 1) & ~(HLSNAP__MAPS_STEP - 1);
    return gva - HLSNAP__MAPS_GVA <= HLSNAP__MAPS_SIZE - size ? gva : 0;
}

static int hlsnap__mapped_order(const void *a, const void *b) {
    const uint64_t x = ((const hlsnap__mapped *)a)->map.gva, y = ((const hlsnap__mapped *)b)->map.gva;
    return x < y ? -1 : x > y;
}

/* Where maps are to lie, and which of those that there are that is. */
typedef struct hlsnap__maps_plan {
    uint32_t num;
    hlsnap__map maps[HLSNAP_MAX_MAPS];
    uint32_t from[HLSNAP_MAX_MAPS]; /* number in the memory's maps; UINT32_MAX: of none */
} hlsnap__maps_plan;

/* For a snapshot that was accepted: its own come first, then the host's others, at their old places where these are free. */
static void hlsnap__maps_plan_make(const hlsnap__memory *m, const hlsnap_snapshot *s, hlsnap__maps_plan *p) {
    uint32_t i;
    for (i = 0; i < s->num_maps; i++) {
        const hlsnap__mapped *x = hlsnap__mapped_find(m, s->maps[i].name);
        const bool same = x && x->map.mode == s->maps[i].mode && x->map.size == s->maps[i].size;
        p->maps[i] = s->maps[i];
        p->from[i] = same && (x->given || s->maps[i].capture) ? (uint32_t)(x - m->maps) : UINT32_MAX;
    }
    p->num = i;
    for (i = 0; i < m->num_maps; i++) {
        const hlsnap__mapped *x = &m->maps[i];
        hlsnap__map *to = &p->maps[p->num];
        if (!x->given || hlsnap__map_find(s->maps, s->num_maps, x->map.name)) continue;
        *to = x->map;
        if (!to->gva || hlsnap__maps_clash(p->maps, p->num, to->gva, to->size))
            to->gva = hlsnap__maps_gap(p->maps, p->num, to->size);
        p->from[p->num++] = i;
    }
}

/* Whether nothing is to be done for that: those that are there lie so, and those that are not, need not be. */
static bool hlsnap__maps_placed(const hlsnap__memory *m, const hlsnap_snapshot *s) {
    hlsnap__maps_plan p;
    uint32_t i, there = 0;
    if (!m->num_maps && !s->num_maps) return true;
    hlsnap__maps_plan_make(m, s, &p);
    for (i = 0; i < p.num; i++) {
        if (p.from[i] == UINT32_MAX && !p.maps[i].capture) continue;
        if (p.from[i] == UINT32_MAX || m->maps[p.from[i]].map.gva != p.maps[i].gva) return false;
        there++;
    }
    return there == m->num_maps; /* else there are some of another snapshot */
}

/* A map as planned: one that there is, or a captured one of the snapshot. */
static hlsnap_result hlsnap__mapped_place(const hlsnap__memory *m, const hlsnap__maps_plan *p, uint32_t i,
                                          hlsnap__mapped *x, hlsnap_error *err) {
    const hlsnap__map *map = &p->maps[i];
    if (!map->gva)
        return hlsnap__fail(err, HLSNAP_ERR_LIMIT, 0, "map '%s' of %llu bytes: all maps take at most %llu", map->name,
                            (unsigned long long)map->size, (unsigned long long)HLSNAP__MAPS_SIZE);
    memset(x, 0, sizeof(*x));
    if (p->from[i] != UINT32_MAX) *x = m->maps[p->from[i]];
    if (!x->given) x->map = *map;
    x->map.gva = map->gva;
    x->pages = HLSNAP__PAGES(map->size);
    return x->hva ? HLSNAP_OK : hlsnap__mapped_reserve(x, err);
}

/* Puts all maps where the snapshot wants them. Nobody looks at memory then. When this fails nothing was changed. */
static hlsnap_result hlsnap__maps_place(hlsnap__memory *m, const hlsnap_snapshot *s, hlsnap_error *err) {
    hlsnap__mapped *maps = (hlsnap__mapped *)hlsnap__alloc(HLSNAP_MAX_MAPS, sizeof(*maps), err);
    hlsnap__maps_plan p;
    hlsnap_result r = maps ? HLSNAP_OK : HLSNAP_ERR_MEMORY;
    uint32_t i, num = 0, keep = 0;
    hlsnap__maps_plan_make(m, s, &p);
    for (i = 0; i < p.num && !r; i++) {
        if (p.from[i] == UINT32_MAX && !p.maps[i].capture) continue; /* optional */
        r = hlsnap__mapped_place(m, &p, i, &maps[num], err);
        if (!r && p.from[i] != UINT32_MAX) keep |= 1u << p.from[i];
        num += !r;
    }
    for (i = 0; r && i < num; i++) { /* undone: what was reserved here */
        const hlsnap__mapped *old = hlsnap__mapped_find(m, maps[i].map.name);
        if (!old || old->hva != maps[i].hva) munmap(maps[i].hva, maps[i].reserved);
    }
    if (r) {
        hlsnap__free(maps);
        return r;
    }
    for (i = 0; i < m->num_maps; i++)
        if (!(keep >> i & 1)) hlsnap__mapped_free(&m->maps[i], false);
    hlsnap__free(m->maps);
    qsort(maps, num, sizeof(*maps), hlsnap__mapped_order);
    for (i = 0; i < num; i++) maps[i].slot = i + 1;
    m->maps = maps;
    m->num_maps = num;
    m->valid = false;
    hlsnap__maps_number(m);
    return HLSNAP_OK;
}

/* ---- >>host-functions ---- */

typedef struct hlsnap__host_function {
    hlsnap__decl decl;
    hlsnap_fn fn;
    void *user;
} hlsnap__host_function;

typedef struct hlsnap__binding { /* of a guest's imports to host functions; index = number of the import */
    const hlsnap__host_function **rows;
} hlsnap__binding;

static int hlsnap__host_function_order(const void *a, const void *b) {
    return strcmp(((const hlsnap__host_function *)a)->decl.name, ((const hlsnap__host_function *)b)->decl.name);
}

/* The host functions, sorted by name. */
static hlsnap_result hlsnap__host_functions_copy(const hlsnap_function *from, size_t num, hlsnap__host_function **out,
                                                 hlsnap_error *err) {
    hlsnap__host_function *rows;
    hlsnap_result r = HLSNAP_OK;
    size_t i;
    *out = NULL;
    if (num > HLSNAP_MAX_FUNCTIONS || (num && !from))
        return hlsnap__fail(err, num > HLSNAP_MAX_FUNCTIONS ? HLSNAP_ERR_LIMIT : HLSNAP_ERR_ARG, 0,
                            "%zu host functions at %s", num, from ? "most 1024" : "NULL");
    rows = (hlsnap__host_function *)hlsnap__alloc(num, sizeof(*rows), err);
    if (!rows) return HLSNAP_ERR_MEMORY;
    for (i = 0; i < num && !r; i++) {
        if (!from[i].name || !from[i].signature || !from[i].fn)
            r = hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "host function %zu lacks a name, a signature or fn", i);
        else
            r = hlsnap__decl_parse(&rows[i].decl, from[i].name, strlen(from[i].name), from[i].signature,
                                   strlen(from[i].signature), err);
        rows[i].fn = from[i].fn;
        rows[i].user = from[i].user;
    }
    if (!r) qsort(rows, num, sizeof(*rows), hlsnap__host_function_order);
    for (i = 1; i < num && !r; i++)
        if (strcmp(rows[i - 1].decl.name, rows[i].decl.name) == 0)
            r = hlsnap__fail(err, HLSNAP_ERR_DUPLICATE, 0, "host function '%s' is given twice", rows[i].decl.name);
    if (r)
        hlsnap__free(rows);
    else
        *out = rows;
    return r;
}

/* The host function of that name, or NULL. */
static const hlsnap__host_function *hlsnap__host_function_find(const hlsnap__host_function *rows, size_t num,
                                                               const char *name) {
    size_t low = 0, high = num;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const int order = strcmp(rows[middle].decl.name, name);
        if (order == 0) return &rows[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

/* Finds a host function for every import. A failure names all that are missing or differ. */
static hlsnap_result hlsnap__bind_imports(const hlsnap__contract *c, const hlsnap__host_function *functions, size_t num,
                                          hlsnap__binding *out, hlsnap_error *err) {
    char text[400];
    size_t n = 0;
    uint32_t i;
    out->rows = (const hlsnap__host_function **)hlsnap__alloc(c->num_imports, sizeof(out->rows[0]), err);
    if (!out->rows) return HLSNAP_ERR_MEMORY;
    text[0] = 0;
    for (i = 0; i < c->num_imports; i++) {
        const hlsnap__decl *want = &c->imports[i];
        const hlsnap__host_function *have = hlsnap__host_function_find(functions, num, want->name);
        if (have && hlsnap__signature_equal(&have->decl.signature, &want->signature)) out->rows[i] = have;
        if (out->rows[i] || n >= sizeof(text) - 1) continue;
        if (have)
            n += (size_t)hlsnap__format(text + n, sizeof(text) - n, "%s%s is %s, not %s", n ? "; " : "", want->name,
                                        have->decl.text, want->text);
        else
            n += (size_t)hlsnap__format(text + n, sizeof(text) - n, "%s%s %s is missing", n ? "; " : "", want->name,
                                        want->text);
    }
    if (!n) return HLSNAP_OK;
    hlsnap__free(out->rows);
    out->rows = NULL;
    return hlsnap__fail(err, HLSNAP_ERR_CONTRACT, 0, "host functions: %s", text);
}

/* ---- >>interrupt: outlives its sandbox; whoever cancels never waits, so that signal handlers and realtime threads may ---- */

enum hlsnap__interrupt_bit {
    HLSNAP__CALL_RUNNING = 1,
    HLSNAP__CALL_CANCELLED = 2,
    HLSNAP__CALL_KICKING = 4, /* the one that cancelled it is about to stop the guest: the call's end waits for that */
    HLSNAP__CALL_ENDING = 8   /* and does so now */
};

struct hlsnap_interrupt {
    int32_t refs;  /* atomic */
    int32_t state; /* atomic: bits of the call in progress, 0 between calls; a futex */
    int pid;       /* whose calls: in the child of a fork there are none */
    const hlsnap_hypervisor *hv;
    hlsnap__shell *shell; /* while running */
};

static void hlsnap__futex(int32_t *word, int op, int32_t value) {
    syscall(SYS_futex, word, (long)op, (long)value, NULL, NULL, 0l);
}

static void hlsnap__interrupt_begin(hlsnap_interrupt *h, hlsnap__shell *shell) {
    h->shell = shell;
    __atomic_store_n(&h->state, (int32_t)HLSNAP__CALL_RUNNING, __ATOMIC_RELEASE);
}

/* From here on a cancel has no effect; true when one came before. That one may still be on its way to the shell. */
static bool hlsnap__interrupt_end(hlsnap_interrupt *h) {
    int32_t state = __atomic_and_fetch(&h->state, (int32_t)~HLSNAP__CALL_RUNNING, __ATOMIC_SEQ_CST);
    while (state & HLSNAP__CALL_KICKING) {
        state = __atomic_or_fetch(&h->state, (int32_t)HLSNAP__CALL_ENDING, __ATOMIC_SEQ_CST);
        if (state & HLSNAP__CALL_KICKING) hlsnap__futex(&h->state, 128 /* FUTEX_WAIT_PRIVATE */, state);
        state = __atomic_load_n(&h->state, __ATOMIC_ACQUIRE);
    }
    __atomic_store_n(&h->state, 0, __ATOMIC_RELAXED);
    return (state & HLSNAP__CALL_CANCELLED) != 0;
}

static bool hlsnap__interrupt_pending(const hlsnap_interrupt *h) {
    return (__atomic_load_n(&h->state, __ATOMIC_ACQUIRE) & HLSNAP__CALL_CANCELLED) != 0;
}

HLSNAP_API bool hlsnap_interrupt_cancel(hlsnap_interrupt *h) {
    int32_t state = HLSNAP__CALL_RUNNING;
    int saved;
    if (!h || h->pid != getpid()) return false;
    if (!__atomic_compare_exchange_n(&h->state, &state,
                                     (int32_t)(HLSNAP__CALL_RUNNING | HLSNAP__CALL_CANCELLED | HLSNAP__CALL_KICKING),
                                     false, __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE))
        return (state & HLSNAP__CALL_RUNNING) != 0;
    saved = errno;
    h->hv->cancel(h->shell);
    state = __atomic_and_fetch(&h->state, (int32_t)~HLSNAP__CALL_KICKING, __ATOMIC_SEQ_CST);
    if (state & HLSNAP__CALL_ENDING) hlsnap__futex(&h->state, 129 /* FUTEX_WAKE_PRIVATE */, INT32_MAX);
    errno = saved;
    return true;
}

HLSNAP_API void hlsnap_interrupt_release(hlsnap_interrupt *h) {
    if (h && hlsnap__release(&h->refs)) hlsnap__free(h);
}

/* ---- >>sandbox ---- */

#define HLSNAP__LINE 1000u
typedef struct hlsnap__line { /* the beginning of one, within one call */
    size_t size;
    char text[HLSNAP__LINE];
} hlsnap__line;

/* What a pool knows of a sandbox; written under its lock. */
typedef struct hlsnap__pooled {
    hlsnap_pool *pool;         /* whose bounds it counts towards; NULL = none's */
    bool was;                  /* it came into being, and counts when it ends */
    bool acquired;             /* from there */
    bool changed;              /* its host functions are not the pool's any more, or the pool is no more: it ends */
    bool dirty;                /* idle, and still to be put back */
    hlsnap_snapshot *snapshot; /* that it was acquired at */
    const void *thread;        /* who used it last: only ever compared, and no harm where it is another one by now */
    hlsnap_sandbox *next;      /* in the list of idle ones */
    uint64_t bytes, cost_ns;   /* private memory, and what putting it back took, when it was last put back */
    uint64_t since_ns;         /* idle */
} hlsnap__pooled;

struct hlsnap_sandbox {
    int32_t state; /* hlsnap_state; atomic, written by the owning thread only */
    int pid;       /* the process it works in */
    const hlsnap_hypervisor *hv;
    hlsnap__shell *shell; /* NULL: the next restore makes a new one */
    uint32_t shell_cpu;   /* hlsnap_cpu that it shows */
    bool shell_dead;      /* to be replaced by the next restore */
    bool shell_mapped;    /* its slot shows the memory below */
    hlsnap__memory memory;
    hlsnap__guest *guest;
    hlsnap__host_function *functions;
    size_t num_functions;
    hlsnap__binding binding;
    hlsnap_interrupt *interrupt;
    hlsnap_log_fn log;
    void *log_user;
    hlsnap_output_fn output;
    void *output_user;
    hlsnap__line *lines; /* of fd 1 and 2, where nobody takes raw output; NULL = no output came yet */
    bool no_clock, strict_syscalls;
    int32_t log_level, cancel_signal;
    uint64_t timeouts[HLSNAP__CLOCKS];  /* of each call, ns; 0 = none */
    uint64_t limits[HLSNAP__CLOCKS];    /* of the call in progress, ns; 0 = none; */
    uint64_t deadlines[HLSNAP__CLOCKS]; /* by the clock */
    void *user;                         /* its invocation's */
    const char *calling;   /* what the guest was entered for: the first export */
    uint32_t calling_more; /* ... and so many calls behind it */
    uint64_t generation;   /* of this start: one more than the snapshot's */
    uint8_t entropy[256];  /* from the kernel, for several starts; */
    uint32_t entropy_left; /* its last bytes, which were not used yet */
    bool fresh;            /* the next entry starts from a reset machine */
    bool in_host;          /* inside a host function */
    bool destroyed;        /* by that host function: freed when the call ends */
    uint8_t *mailbox;      /* host addresses */
    uint64_t mailbox_size;
    uint32_t in_used;                /* bytes of calls in the mailbox */
    hlsnap__buffer request, results; /* private copies of what the guest sent */
    uint64_t given;                  /* bytes of a result behind those results, which its message will refer to */
    uint64_t large;                  /* GVA of the message of the call that comes next, or 0 */
    hlsnap__buffer response;         /* one that the guest is to take; size 0 = none */
    hlsnap_stats stats;
    hlsnap__pooled pooled;
};

static void hlsnap__state_set(hlsnap_sandbox *sb, hlsnap_state s) {
    __atomic_store_n(&sb->state, (int32_t)s, __ATOMIC_RELEASE);
}

static hlsnap_state hlsnap__state(const hlsnap_sandbox *sb) {
    return (hlsnap_state)__atomic_load_n(&sb->state, __ATOMIC_ACQUIRE);
}

HLSNAP_API hlsnap_state hlsnap_sandbox_get_state(const hlsnap_sandbox *sb) {
    return sb ? hlsnap__state(sb) : HLSNAP_POISONED;
}

/* true in the child of a fork: neither memory nor VM came along. The supervisor area tells without a system call: the
   kernel wipes it there, GDT and all (MADV_WIPEONFORK). */
static bool hlsnap__forked(const hlsnap_sandbox *sb) {
    if (sb->memory.sys_used && hlsnap__get64(hlsnap__memory_sys(&sb->memory) + HLSNAP__SEL_CODE0)) return false;
    return sb->pid != getpid();
}

#define HLSNAP__IN(state) (1u << (state))
#define HLSNAP__IN_READY HLSNAP__IN(HLSNAP_READY)

/* Why hlsnap__need refuses: `what` is the public function, `name` the guest's that it is to call, or NULL. */
static hlsnap_result hlsnap__need_not_met(const hlsnap_sandbox *sb, const char *what, const char *name,
                                          hlsnap_error *err) {
    static const char *const states[] = {"ready", "busy", "poisoned"};
    char shown[80], who[128];
    hlsnap__printable(shown, sizeof(shown), name, name ? strnlen(name, 64) : 0, false);
    hlsnap__format(who, sizeof(who), name ? "%s(%s)" : "%s", what, shown);
    if (!sb) return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "%s: the sandbox is NULL", who);
    if (hlsnap__forked(sb))
        return hlsnap__fail(err, HLSNAP_ERR_STATE, 0, "%s: the sandbox belongs to process %d, not its child", who,
                            sb->pid);
    return hlsnap__fail(err, HLSNAP_ERR_STATE, 0, "%s: the sandbox is %s", who, states[hlsnap__state(sb)]);
}

/* There is a sandbox, in one of these states, and in its own process. */
static hlsnap_result hlsnap__need(const hlsnap_sandbox *sb, uint32_t states, const char *what, const char *name,
                                  hlsnap_error *err) {
    if (sb && states & HLSNAP__IN(hlsnap__state(sb)) && !hlsnap__forked(sb)) return HLSNAP_OK;
    return hlsnap__need_not_met(sb, what, name, err);
}

/* ---- >>mailbox: the host's side of it ---- */

#define HLSNAP__IN_OFFSET ((uint32_t)sizeof(hlsnap_abi_mailbox))

static uint32_t hlsnap__half(const hlsnap_sandbox *sb) {
    return (uint32_t)(sb->mailbox_size - HLSNAP__IN_OFFSET) / 2 & ~7u;
}
/* Header, calls, then results and requests (half of what is left of the mailbox), then the response: what a small call
   needs lies in the first page. */
static uint32_t hlsnap__out_offset(const hlsnap_sandbox *sb) { return HLSNAP__IN_OFFSET + sb->in_used; }
static uint32_t hlsnap__response_offset(const hlsnap_sandbox *sb) { return hlsnap__out_offset(sb) + hlsnap__half(sb); }

/* The host is about to write, or has written, bytes [at, end) of the mailbox. */
static hlsnap_result hlsnap__mailbox_touch(hlsnap_sandbox *sb, uint64_t at, uint64_t end, hlsnap_error *err) {
    const uint64_t first = (uint64_t)(sb->mailbox - sb->memory.mem) / HLSNAP__PAGE;
    uint64_t page;
    for (page = first + at / HLSNAP__PAGE; page < first + (end + HLSNAP__PAGE - 1) / HLSNAP__PAGE; page++) {
        if (hlsnap__bit(sb->memory.pinned, page)) continue;
        if (hlsnap__hot_add(&sb->memory, page, err)) return HLSNAP_ERR_MEMORY;
        hlsnap__bit_set(sb->memory.pinned, page);
    }
    return HLSNAP_OK;
}

/* 0: there is none, as with no_clock. */
static uint64_t hlsnap__realtime_ns(void) {
    const uint64_t ns = hlsnap__clock_read(CLOCK_REALTIME);
    return ns == UINT64_MAX ? 0 : ns;
}

/* Writes the header afresh: the guest may have scribbled over it. */
static hlsnap_result hlsnap__mailbox_begin(hlsnap_sandbox *sb, uint32_t op, uint32_t num_calls, uint64_t room,
                                           hlsnap_error *err) {
    hlsnap_abi_mailbox m;
    hlsnap_result r = hlsnap__mailbox_touch(sb, 0, hlsnap__out_offset(sb), err);
    memset(&m, 0, sizeof(m));
    m.magic = HLSNAP_ABI_MAGIC;
    m.abi_version = HLSNAP_ABI_VERSION;
    m.op = op;
    m.in_offset = HLSNAP__IN_OFFSET;
    m.in_size = (uint32_t)sb->mailbox_size - HLSNAP__IN_OFFSET;
    m.out_size = hlsnap__half(sb);
    m.out_offset = hlsnap__out_offset(sb);
    m.num_calls = num_calls;
    m.response = hlsnap__response_offset(sb);
    m.realtime_ns = sb->guest->syscall && !sb->no_clock ? hlsnap__realtime_ns() : 0; /* others ask */
    m.large = sb->large;
    m.room = room;
    if (!r) memcpy(sb->mailbox, &m, sizeof(m));
    return r;
}

/* Copies a message of the guest, at an offset of the out part, into a private buffer; only the copy is looked at. */
static hlsnap_result hlsnap__mailbox_copy(hlsnap_sandbox *sb, uint32_t offset, hlsnap__buffer *to, hlsnap_error *err) {
    const uint32_t start = hlsnap__out_offset(sb), size = hlsnap__half(sb);
    hlsnap_abi_message head;
    hlsnap_result r;
    if (offset < start || offset % 8 || offset - start > size - sizeof(head))
        return hlsnap__fail(err, HLSNAP_ERR_PROTOCOL, 0, "the guest's message at offset %u is not in 0x%x .. 0x%x",
                            offset, start, start + size);
    memcpy(&head, sb->mailbox + offset, sizeof(head));
    if (head.size < sizeof(head) || head.size % 8 || head.size > size - (offset - start))
        return hlsnap__fail(err, HLSNAP_ERR_PROTOCOL, 0, "the guest's message has %u bytes, %u are left", head.size,
                            size - (offset - start));
    r = hlsnap__buffer_room(to, head.size, err);
    if (r) return r;
    memcpy(to->data + to->size, &head, sizeof(head)); /* the header as it was checked */
    memcpy(to->data + to->size + sizeof(head), sb->mailbox + offset + sizeof(head), head.size - sizeof(head));
    to->size += head.size;
    if (to->size > to->most) to->most = to->size;
    return HLSNAP_OK;
}

/* ---- >>large: what has no room in the mailbox lies in the guest's memory ---- */

static uint64_t hlsnap__heap_bytes(const hlsnap_sandbox *sb) {
    return hlsnap__layout_find(&sb->memory.layout, HLSNAP__HEAP)->pages * HLSNAP__PAGE;
}

/* Bytes that one message may have; a guest can make the host hold so many. */
static uint64_t hlsnap__large_most(const hlsnap_sandbox *sb) {
    const uint64_t heap = hlsnap__heap_bytes(sb);
    return heap < HLSNAP__LARGE_MOST ? heap : HLSNAP__LARGE_MOST;
}

/* Whether n bytes from gva on are memory that the guest can read. */
static hlsnap_result hlsnap__large_check(const hlsnap_sandbox *sb, uint64_t gva, uint64_t n, hlsnap_error *err) {
    const hlsnap__mapped *x =
        gva < HLSNAP__MAPS_GVA ? NULL : hlsnap__mapped_at(&sb->memory, hlsnap__gva_page(&sb->memory.layout, gva));
    if (n > hlsnap__large_most(sb) || (x ? n > x->map.gva + x->pages * HLSNAP__PAGE - gva
                                         : hlsnap__layout_holds(&sb->memory.layout, gva, (size_t)n, false, NULL) != 0))
        return hlsnap__fail(err, HLSNAP_ERR_PROTOCOL, 0, "the guest sends %llu bytes at 0x%llx, which it has not",
                            (unsigned long long)n, (unsigned long long)gva);
    return HLSNAP_OK;
}

/* Copies n bytes that the guest refers to, and at least one zero up to the next multiple of 8, which there is room for. */
static hlsnap_result hlsnap__large_copy(const hlsnap_sandbox *sb, uint64_t gva, uint64_t n, uint8_t *to,
                                        hlsnap_error *err) {
    memset(to + n, 0, hlsnap__round8((size_t)n + 1) - (size_t)n);
    return !n ? HLSNAP_OK
              : hlsnap__memory_move(&sb->memory, to, hlsnap__gva_page(&sb->memory.layout, gva), gva % HLSNAP__PAGE,
                                    (size_t)n, false, err);
}

/* Value i of a message that was copied to buffer byte `start`: a reference, when it is one. */
static bool hlsnap__reference_at(const uint8_t *message, uint32_t i, hlsnap_abi_value *row,
                                 hlsnap_abi_reference *where) {
    hlsnap_abi_message head;
    memcpy(&head, message, sizeof(head));
    memcpy(row, message + sizeof(head) + i * sizeof(*row), sizeof(*row));
    if (!(row->type & HLSNAP_ABI_REFERENCE) || row->bits % 8 || head.size < sizeof(*where) ||
        row->bits > head.size - sizeof(*where))
        return false;
    memcpy(where, message + row->bits, sizeof(*where));
    return true;
}

/* Brings what a message in a buffer, its last one, refers to behind it, so that it is one like any other. */
static hlsnap_result hlsnap__message_expand(hlsnap_sandbox *sb, hlsnap__buffer *b, size_t start, hlsnap_error *err) {
    const uint64_t most = hlsnap__large_most(sb);
    hlsnap_abi_message head;
    hlsnap_abi_value row;
    hlsnap_abi_reference where;
    uint64_t more = 0;
    uint32_t i;
    hlsnap_result r = HLSNAP_OK;
    memcpy(&head, b->data + start, sizeof(head));
    if (head.num_values > (head.size - sizeof(head)) / sizeof(row)) return HLSNAP_OK; /* whoever reads it refuses it */
    for (i = 0; i < head.num_values && !r; i++) {
        if (!hlsnap__reference_at(b->data + start, i, &row, &where)) continue;
        r = hlsnap__large_check(sb, where.gva, where.size, err);
        more += r ? 0 : hlsnap__round8((size_t)where.size + 1);
        if (more > most + 8 * head.num_values || more > UINT32_MAX - head.size)
            r = hlsnap__fail(err, HLSNAP_ERR_PROTOCOL, 0, "the guest sends more than %llu bytes in a message",
                             (unsigned long long)most);
    }
    if (!r && more) r = hlsnap__buffer_room(b, (size_t)more, err);
    for (i = 0; more && i < head.num_values && !r; i++) {
        if (!hlsnap__reference_at(b->data + start, i, &row, &where)) continue;
        r = hlsnap__large_copy(sb, where.gva, where.size, b->data + b->size, err);
        row.type &= ~HLSNAP_ABI_REFERENCE;
        row.size = (uint32_t)where.size;
        row.bits = b->size - start;
        memcpy(b->data + start + sizeof(head) + i * sizeof(row), &row, sizeof(row));
        b->size += hlsnap__round8((size_t)where.size + 1);
    }
    head.size = (uint32_t)(b->size - start);
    memcpy(b->data + start, &head, sizeof(head));
    if (b->size > b->most) b->most = b->size;
    return r;
}

#define HLSNAP__GIVEN_AT (sizeof(hlsnap_abi_message) + sizeof(hlsnap_abi_value))

/* FN_RESULT: the bytes of the result that comes next go where they will stand. */
static hlsnap_result hlsnap__large_given(hlsnap_sandbox *sb, uint64_t gva, uint64_t n, hlsnap_error *err) {
    const size_t more = n <= HLSNAP__LARGE_MOST ? HLSNAP__GIVEN_AT + hlsnap__round8((size_t)n + 1) : 0;
    hlsnap_result r = hlsnap__large_check(sb, gva, n, err);
    if (!r) r = hlsnap__buffer_room(&sb->results, more, err);
    if (r) return r;
    sb->given = n;
    if (sb->results.size + more > sb->results.most) sb->results.most = sb->results.size + more;
    return hlsnap__large_copy(sb, gva, n, sb->results.data + sb->results.size + HLSNAP__GIVEN_AT, err);
}

/* The message of such a result, at an offset of the mailbox; *is: it is one. */
static hlsnap_result hlsnap__large_result(hlsnap_sandbox *sb, uint32_t offset, bool *is, hlsnap_error *err) {
    const uint32_t start = hlsnap__out_offset(sb), size = hlsnap__half(sb);
    struct {
        hlsnap_abi_message head;
        hlsnap_abi_value row;
        hlsnap_abi_reference where;
    } m;
    *is = false;
    if (!sb->given || offset < start || offset % 8 || offset - start > size - sizeof(m)) return HLSNAP_OK;
    memcpy(&m, sb->mailbox + offset, sizeof(m));
    *is = m.head.size == sizeof(m) && m.head.num_values == 1 && m.row.type & HLSNAP_ABI_REFERENCE && !m.where.gva;
    if (!*is) return HLSNAP_OK;
    if (m.where.size != sb->given)
        return hlsnap__fail(err, HLSNAP_ERR_PROTOCOL, 0, "the guest's result has %llu bytes, it gave %llu",
                            (unsigned long long)m.where.size, (unsigned long long)sb->given);
    m.row.type &= ~HLSNAP_ABI_REFERENCE;
    m.row.size = (uint32_t)sb->given;
    m.row.bits = HLSNAP__GIVEN_AT;
    m.head.size = (uint32_t)(HLSNAP__GIVEN_AT + hlsnap__round8((size_t)sb->given + 1));
    memcpy(sb->results.data + sb->results.size, &m.head, sizeof(m.head));
    memcpy(sb->results.data + sb->results.size + sizeof(m.head), &m.row, sizeof(m.row));
    sb->results.size += m.head.size;
    sb->given = 0;
    return HLSNAP_OK;
}

/* Whether n bytes that the guest offers lie in its heap, where the host may write. */
static bool hlsnap__large_in_heap(const hlsnap_sandbox *sb, uint64_t gva, uint64_t n) {
    const hlsnap__region *heap = hlsnap__layout_find(&sb->memory.layout, HLSNAP__HEAP);
    return gva >= heap->gva && n <= hlsnap__heap_bytes(sb) && gva - heap->gva <= hlsnap__heap_bytes(sb) - n;
}

/* FN_TAKE. */
static hlsnap_result hlsnap__large_take(hlsnap_sandbox *sb, uint64_t gva, uint64_t n, hlsnap_error *err) {
    hlsnap_result r = HLSNAP_OK;
    if (!n || n != sb->response.size || (gva && !hlsnap__large_in_heap(sb, gva, n)))
        return hlsnap__fail(err, HLSNAP_ERR_PROTOCOL, 0, "the guest takes a response of %llu bytes to 0x%llx",
                            (unsigned long long)n, (unsigned long long)gva);
    if (gva)
        r = hlsnap__memory_move(&sb->memory, sb->response.data, hlsnap__gva_page(&sb->memory.layout, gva),
                                gva % HLSNAP__PAGE, (size_t)n, true, err);
    sb->response.size = 0;
    return r;
}

/* ---- >>faults: what to say about a CPU exception ---- */

static const char *hlsnap__region_name(const hlsnap__layout *l, uint64_t gva) {
    const hlsnap__region *r = hlsnap__layout_at(l, gva);
    if (r) return hlsnap__kind_names[r->kind];
    if (gva < HLSNAP__UNRESOLVED_GVA) return "null";
    if (gva < HLSNAP__SYS_GVA) return "unresolved";
    if (gva < HLSNAP__SYS_GVA + HLSNAP__SYS_PAGES * HLSNAP__PAGE) return "supervisor";
    return gva >= l->base && gva - l->base < l->pages * HLSNAP__PAGE ? "guard" : "unmapped";
}

static const char *hlsnap__vector_name(uint32_t v) {
    // clang-format off
    static const char *const names[] = {"divide error", "debug", "NMI", "breakpoint", "overflow", "bound range", "invalid opcode",
        "device not available", "double fault", "", "invalid TSS", "segment not present", "stack fault", "general protection",
        "page fault", "", "x87 error", "alignment check", "machine check", "SIMD error"};
    // clang-format on
    return v < sizeof(names) / sizeof(names[0]) && names[v][0] ? names[v] : "exception";
}

/* The name of a self guest's missing function, by the address that was called. */
static const char *hlsnap__unresolved_name(const hlsnap__guest *g, uint64_t gva) {
    const char *s = g->unresolved;
    uint64_t i = (gva - HLSNAP__UNRESOLVED_GVA) / 16;
    if (gva < HLSNAP__UNRESOLVED_GVA || gva >= HLSNAP__SYS_GVA) return NULL;
    if (!s || i >= g->num_unresolved) return "(name not kept)";
    while (i--) s += strlen(s) + 1;
    return s;
}

/* SYSCALL: #UD at the instruction on hardware; on software KVM a fetch from the address in LSTAR, with RCX behind the
   instruction. *at: its address. */
static bool hlsnap__is_syscall(const hlsnap_sandbox *sb, const hlsnap__exit *x, uint64_t *at) {
    const bool soft = x->vector == 14 && x->rip == HLSNAP__SYSCALL_GVA && x->cr2 == x->rip;
    const uint64_t rip = soft ? x->rcx - 2 : x->rip;
    const hlsnap__region *r = hlsnap__layout_at(&sb->memory.layout, rip);
    uint8_t code[2] = {0, 0};
    if (!soft && x->vector != 6) return false;
    if (r && r->kind == HLSNAP__TEXT && hlsnap__layout_at(&sb->memory.layout, rip + 1) == r)
        hlsnap__memory_move(&sb->memory, code, hlsnap__gva_page(&sb->memory.layout, rip), rip % HLSNAP__PAGE, 2, false,
                            NULL);
    if (code[0] != 0x0f || code[1] != 0x05) return soft; /* a mere jump to that address has anything in RCX */
    *at = rip;
    return true;
}

static hlsnap_result hlsnap__fault(const hlsnap_sandbox *sb, const hlsnap__exit *x, hlsnap_error *err) {
    const uint64_t where = x->vector == 14 ? x->cr2 : x->rip;
    const bool map = where >= HLSNAP__MAPS_GVA && where - HLSNAP__MAPS_GVA < HLSNAP__MAPS_SIZE &&
                     hlsnap__mapped_at(&sb->memory, hlsnap__gva_page(&sb->memory.layout, where));
    const char *region = map ? "map" : hlsnap__region_name(&sb->memory.layout, where), *missing = NULL;
    const hlsnap__region *stack = hlsnap__layout_find(&sb->memory.layout, HLSNAP__STACK);
    uint64_t rip = x->rip;
    if (x->vector == 14) missing = hlsnap__unresolved_name(sb->guest, where);
    if (hlsnap__is_syscall(sb, x, &rip))
        hlsnap__fail(
            err, HLSNAP_ERR_FAULT, 0,
            "guest fault: system call attempted: %s (%llu) at rip 0x%llx; there is no operating system in here",
            hlsnap__syscall_name(x->rax), (unsigned long long)x->rax, (unsigned long long)rip);
    else if (missing)
        hlsnap__fail(err, HLSNAP_ERR_FAULT, 0, "guest fault: unresolved symbol: %.128s (libc is not in the guest)",
                     missing);
    else if (x->vector == 14 && where < stack->gva &&
             where >= stack->gva - (sb->guest->syscall ? HLSNAP__PROGRAM_GUARD : HLSNAP__PAGE))
        hlsnap__fail(err, HLSNAP_ERR_FAULT, 0,
                     "guest fault: stack overflow at rip 0x%llx: raise stack_size=%llu of the guest desc",
                     (unsigned long long)x->rip, (unsigned long long)(stack->pages * HLSNAP__PAGE));
    else
        hlsnap__fail(err, HLSNAP_ERR_FAULT, 0,
                     "guest fault: vector %u (%s), error code 0x%x, rip 0x%llx, address 0x%llx (%s)", x->vector,
                     hlsnap__vector_name(x->vector), x->error_code, (unsigned long long)x->rip,
                     (unsigned long long)where, region);
    if (!err) return HLSNAP_ERR_FAULT;
    err->vector = x->vector;
    err->error_code = x->error_code;
    err->rip = rip;
    err->cr2 = x->cr2;
    hlsnap__format(err->region, sizeof(err->region), "%s", region);
    return HLSNAP_ERR_FAULT;
}

/* ---- >>host-calls: what a guest asks for ---- */

static int32_t hlsnap__log_level(const hlsnap_sandbox *sb) { return sb->log_level ? sb->log_level : 1; }
static bool hlsnap__log_wanted(const hlsnap_sandbox *sb, int32_t level) {
    return sb->log && level <= hlsnap__log_level(sb);
}

static void hlsnap__log_set(hlsnap_sandbox *sb, int32_t level, hlsnap_log_fn log, void *user) {
    sb->log = log;
    sb->log_user = user;
    sb->log_level = !log || level < -1 ? -1 : level > 4 ? 4 : level;
}

/* A line as people may read it. */
static hlsnap_result hlsnap__log_line(hlsnap_sandbox *sb, int32_t level, const char *from, size_t n,
                                      hlsnap_error *err) {
    char *text;
    if (!hlsnap__log_wanted(sb, level)) return HLSNAP_OK; /* not any more: it changed since the guest began the line */
    if (n && from[n - 1] == '\n') n--; /* people end what they print with one; inside, it would forge a line */
    text = (char *)hlsnap__alloc_raw(n * 4 + 1, err); /* not of the stack, which may be small */
    if (!text) return HLSNAP_ERR_MEMORY;
    n = hlsnap__readable(text, n * 4 + 1, from, n, true);
    sb->log(level, text, n, sb->log_user);
    hlsnap__free(text);
    return HLSNAP_OK;
}

static hlsnap_result hlsnap__guest_log(hlsnap_sandbox *sb, const hlsnap_value *v, hlsnap_error *err) {
    if (v[0].as.i32 < 0 || v[0].as.i32 > 4 || v[1].size > 1023)
        return hlsnap__fail(err, HLSNAP_ERR_PROTOCOL, 0, "the guest logs %zu bytes at level %d", v[1].size,
                            v[0].as.i32);
    return hlsnap__log_wanted(sb, v[0].as.i32) ? hlsnap__log_line(sb, v[0].as.i32, v[1].str, v[1].size, err)
                                               : HLSNAP_OK;
}

/* ---- >>output: what a guest writes to fd 1 and 2 ---- */

/* A line ends with its first n bytes; the rest begins the next one. */
static hlsnap_result hlsnap__line_end(hlsnap_sandbox *sb, int32_t fd, size_t n, hlsnap_error *err) {
    hlsnap__line *line = &sb->lines[fd - 1];
    const hlsnap_result r = hlsnap__log_line(sb, fd - 1, line->text, n, err);
    memmove(line->text, line->text + n, line->size - n);
    line->size -= n;
    return r;
}

/* At the end of every entry: what has no newline is a line, too. */
static hlsnap_result hlsnap__output_flush(hlsnap_sandbox *sb, hlsnap_error *err) {
    hlsnap_result r = HLSNAP_OK;
    int32_t fd;
    for (fd = 1; fd <= 2 && sb->lines && !r; fd++)
        if (sb->lines[fd - 1].size) r = hlsnap__line_end(sb, fd, sb->lines[fd - 1].size, err);
    return r;
}

static hlsnap_result hlsnap__output_lines(hlsnap_sandbox *sb, int32_t fd, const char *bytes, size_t n,
                                          hlsnap_error *err) {
    hlsnap_result r = HLSNAP_OK;
    if (!sb->lines) sb->lines = (hlsnap__line *)hlsnap__alloc(2, sizeof(*sb->lines), err);
    if (!sb->lines) return HLSNAP_ERR_MEMORY;
    while (n && !r) {
        hlsnap__line *line = &sb->lines[fd - 1];
        const char *end = (const char *)(memchr)(bytes, '\n', n);
        size_t k = end ? (size_t)(end - bytes) : n;
        const bool full = k > HLSNAP__LINE - line->size;
        if (full) k = HLSNAP__LINE - line->size;
        memcpy(line->text + line->size, bytes, k);
        line->size += k;
        if (end && !full) k++; /* the newline itself */
        bytes += k;
        n -= k;
        if (full)
            r = hlsnap__line_end(sb, fd, hlsnap__utf8_whole(line->text, line->size), err);
        else if (end)
            r = hlsnap__line_end(sb, fd, line->size, err);
    }
    return r;
}

static hlsnap_result hlsnap__guest_output(hlsnap_sandbox *sb, const hlsnap_value *v, hlsnap_error *err) {
    const int32_t fd = v[0].as.i32;
    if (fd != 1 && fd != 2)
        return hlsnap__fail(err, HLSNAP_ERR_PROTOCOL, 0, "the guest writes %zu bytes to fd %d", v[1].size, fd);
    if (!sb->output)
        return hlsnap__log_wanted(sb, fd - 1) ? hlsnap__output_lines(sb, fd, (const char *)v[1].bytes, v[1].size, err)
                                              : HLSNAP_OK;
    if (v[1].size) sb->output(fd, v[1].bytes, v[1].size, sb->output_user);
    return HLSNAP_OK;
}

/* Its header was written, and is private, since the entry began. */
static hlsnap_result hlsnap__guest_clock(hlsnap_sandbox *sb) {
    const uint64_t ns = sb->no_clock ? 0 : hlsnap__realtime_ns();
    memcpy(sb->mailbox + offsetof(hlsnap_abi_mailbox, realtime_ns), &ns, sizeof(ns));
    return HLSNAP_OK;
}

/* The response to a request of the runtime's. */
static hlsnap_result hlsnap__respond(hlsnap_sandbox *sb, uint32_t function, uint32_t status, const hlsnap_value *v,
                                     size_t num, hlsnap_error *err) {
    const uint32_t at = hlsnap__response_offset(sb);
    const size_t n = hlsnap__message_write(sb->mailbox + at, (size_t)sb->mailbox_size - at, function, status, v, num);
    return hlsnap__mailbox_touch(sb, at, at + n, err);
}

/* Where a map lies. */
static hlsnap_result hlsnap__guest_map(hlsnap_sandbox *sb, const hlsnap_value *name, hlsnap_error *err) {
    const hlsnap__mapped *x = name->size <= HLSNAP_MAX_NAME ? hlsnap__mapped_find(&sb->memory, name->str) : NULL;
    hlsnap_value v[2];
    v[0] = hlsnap_u64(x ? x->map.gva : 0);
    v[1] = hlsnap_u64(x ? x->map.size : 0);
    return hlsnap__respond(sb, HLSNAP_ABI_FN_MAP, HLSNAP_ABI_STATUS_OK, v, 2, err);
}

/* Whether mappings may be laid there: all of it is in one region, whose pages are stored and the guest's to write. */
static bool hlsnap__image_fits(const hlsnap__layout *l, uint64_t gva, uint64_t size) {
    const hlsnap__region *at = hlsnap__layout_at(l, gva);
    return at && (at->kind == HLSNAP__HEAP || at->kind == HLSNAP__DATA) &&
           size <= at->gva + at->pages * HLSNAP__PAGE - gva;
}

/* Whether a guest's range can be shown at another place. */
static hlsnap_result hlsnap__image_check(const hlsnap_sandbox *sb, uint64_t from, uint64_t to, uint64_t size,
                                         hlsnap_error *err) {
    const hlsnap__layout *l = &sb->memory.layout;
    const hlsnap__mapped *x = from < HLSNAP__MAPS_GVA ? NULL : hlsnap__mapped_at(&sb->memory, hlsnap__gva_page(l, from));
    const char *what = NULL;
    if (from % HLSNAP__PAGE || to % HLSNAP__PAGE || size % HLSNAP__PAGE || !size)
        what = "these are no multiples of 4096";
    else if (!hlsnap__image_fits(l, to, size))
        what = "it is not to heap or data";
    else if (from && (x ? size > x->map.gva + x->pages * HLSNAP__PAGE - from
                        : hlsnap__layout_holds(l, from, (size_t)size, false, NULL) != 0))
        what = "the guest has not what it is from";
    else if (from && from < to + size && to < from + size)
        what = "they overlap";
    return !what ? HLSNAP_OK
                 : hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "image of 0x%llx bytes from 0x%llx to 0x%llx: %s",
                                (unsigned long long)size, (unsigned long long)from, (unsigned long long)to, what);
}

/* FN_IMAGE: a range of the guest's memory shows what another one, or nothing, holds. */
static hlsnap_result hlsnap__guest_image(hlsnap_sandbox *sb, const hlsnap_value *v, hlsnap_error *err) {
    const uint64_t from = v[0].as.u64, to = v[1].as.u64, size = v[2].as.u64;
    hlsnap__image x = {0, 0, 0, false, 0, 0, NULL, {false, -1, 0, 0, NULL, 0, 0, NULL, 0, 0}};
    hlsnap_value answer[2];
    hlsnap_error why = HLSNAP_ZERO;
    hlsnap_result r = hlsnap__image_check(sb, from, to, size, &why);
    bool once;
    if (v[3].as.u32 & ~HLSNAP_ABI_IMAGE_ONCE)
        return hlsnap__fail(err, HLSNAP_ERR_PROTOCOL, 0, "the guest asks for an image with options 0x%x", v[3].as.u32);
    if (!r) {
        x.nothing = !from;
        x.from = from ? hlsnap__gva_page(&sb->memory.layout, from) : 0;
        x.to = hlsnap__gva_page(&sb->memory.layout, to);
        x.pages = size / HLSNAP__PAGE;
        once = v[3].as.u32 & HLSNAP_ABI_IMAGE_ONCE || !hlsnap__image_fits(&sb->memory.layout, from, size);
        r = hlsnap__image_show(&sb->memory, &x, once, &why);
        /* descriptors, memory, the limit of a file's size: nothing was changed, and a copy needs none of them */
        if (r && sb->memory.valid && (hlsnap_result_transient(&why) || why.os_errno == EFBIG)) r = HLSNAP_ERR_LIMIT;
        hlsnap__layer_release(x.layer);
        hlsnap__builder_free(&x.at);
    }
    if (r && err) *err = why;
    if (r && r != HLSNAP_ERR_ARG && r != HLSNAP_ERR_LIMIT) return r;
    answer[0] = hlsnap_i32((int32_t)r);
    answer[1] = hlsnap_str(why.msg);
    return hlsnap__respond(sb, HLSNAP_ABI_FN_IMAGE, r ? HLSNAP_ABI_STATUS_REFUSED : HLSNAP_ABI_STATUS_OK, answer, r ? 2 : 0,
                           err);
}

/* The guest ends itself: an abort, or the exit of its program. */
static hlsnap_result hlsnap__guest_end(const hlsnap_abi_message *head, const hlsnap_value *v, hlsnap_error *err) {
    const bool left = head->function == HLSNAP_ABI_FN_EXIT;
    char text[300];
    hlsnap__readable(text, sizeof(text), v[1].str, v[1].size, false);
    if (left)
        hlsnap__fail(err, HLSNAP_ERR_EXIT, 0, "the guest's program ended: %s", text);
    else
        hlsnap__fail(err, HLSNAP_ERR_ABORT, 0, "guest abort %d: %s", v[0].as.i32, text);
    if (err) err->user_code = v[0].as.i32;
    return left ? HLSNAP_ERR_EXIT : HLSNAP_ERR_ABORT;
}

/* A host function's result that has no room in the mailbox is kept until the guest has said where it is to go. */
static hlsnap_result hlsnap__import_large(hlsnap_sandbox *sb, hlsnap_call *call, hlsnap_error *err) {
    const uint32_t response = hlsnap__response_offset(sb);
    const hlsnap_value v = hlsnap_u64(call->used);
    size_t n;
    sb->response.size = call->used;
    n = hlsnap__message_write(call->box, call->box_size, call->function, HLSNAP_ABI_STATUS_LARGE, &v, 1);
    return hlsnap__mailbox_touch(sb, response, response + (n > call->box_reached ? n : call->box_reached), err);
}

/* A call of import `head->function` with these arguments; the response goes behind the out part. */
static hlsnap_result hlsnap__import_call(hlsnap_sandbox *sb, const hlsnap_abi_message *head, const hlsnap_value *args,
                                         hlsnap_error *err) {
    const hlsnap__host_function *f;
    const uint32_t response = hlsnap__response_offset(sb);
    hlsnap_call call;
    if (!sb->guest->initialized || head->function >= sb->guest->contract.num_imports)
        return hlsnap__fail(err, HLSNAP_ERR_PROTOCOL, 0, "the guest calls import %u of %u", head->function,
                            sb->guest->initialized ? sb->guest->contract.num_imports : 0);
    f = sb->binding.rows[head->function];
    if (hlsnap__args_check(&f->decl.signature, f->decl.name, args, head->num_values, err)) {
        if (err) err->code = HLSNAP_ERR_PROTOCOL;
        return HLSNAP_ERR_PROTOCOL;
    }
    call.args = args;
    call.signature = &f->decl.signature;
    call.function = head->function;
    call.user = sb->user;
    call.large = &sb->response;
    call.out = sb->mailbox + response;
    call.out_size = (size_t)sb->mailbox_size - response;
    call.most = (size_t)hlsnap__large_most(sb);
    sb->in_host = true;
    hlsnap__call_run(&call, f->fn, f->user);
    sb->in_host = false;
    if (call.out != call.box) return hlsnap__import_large(sb, &call, err);
    if (call.reached > call.used) memset(call.out + call.used, 0, call.reached - call.used);
    return hlsnap__mailbox_touch(sb, response, response + call.reached, err);
}

static hlsnap_result hlsnap__host_call(hlsnap_sandbox *sb, hlsnap_error *err) {
    hlsnap_abi_mailbox m;
    hlsnap_abi_message head;
    hlsnap_value args[HLSNAP_MAX_ARGS];
    hlsnap_result r;
    memcpy(&m, sb->mailbox, sizeof(m));
    sb->request.size = 0;
    r = hlsnap__mailbox_copy(sb, m.request, &sb->request, err);
    if (!r) r = hlsnap__message_expand(sb, &sb->request, 0, err);
    if (r) return r;
    if (!hlsnap__message_read(sb->request.data, sb->request.size, &head, args, HLSNAP_MAX_ARGS) ||
        head.size != sb->request.size)
        return hlsnap__fail(err, HLSNAP_ERR_PROTOCOL, 0, "the guest's request at offset %u is malformed", m.request);
    if (head.function != HLSNAP_ABI_FN_TAKE) sb->response.size = 0;
    if (head.function < HLSNAP_ABI_FN_LOG) return hlsnap__import_call(sb, &head, args, err);
    if ((head.function == HLSNAP_ABI_FN_TAKE || head.function == HLSNAP_ABI_FN_RESULT) && sb->guest->initialized &&
        head.num_values == 2 && args[0].type == HLSNAP_U64 && args[1].type == HLSNAP_U64)
        return (head.function == HLSNAP_ABI_FN_TAKE ? hlsnap__large_take : hlsnap__large_given)(
            sb, args[0].as.u64, args[1].as.u64, err);
    if (head.function == HLSNAP_ABI_FN_IMAGE && head.num_values == 4 && args[0].type == HLSNAP_U64 &&
        args[1].type == HLSNAP_U64 && args[2].type == HLSNAP_U64 && args[3].type == HLSNAP_U32)
        return hlsnap__guest_image(sb, args, err);
    if (head.num_values != 2 || args[0].type != HLSNAP_I32 || head.function > HLSNAP_ABI_FN_MAP ||
        args[1].type != (head.function == HLSNAP_ABI_FN_OUTPUT ? HLSNAP_BYTES : HLSNAP_STR))
        return hlsnap__fail(err, HLSNAP_ERR_PROTOCOL, 0, "the guest's request 0x%x of %u values is malformed",
                            head.function, head.num_values);
    switch (head.function) {
    case HLSNAP_ABI_FN_LOG: return hlsnap__guest_log(sb, args, err);
    case HLSNAP_ABI_FN_OUTPUT: return hlsnap__guest_output(sb, args, err);
    case HLSNAP_ABI_FN_CLOCK: return hlsnap__guest_clock(sb);
    case HLSNAP_ABI_FN_MAP: return hlsnap__guest_map(sb, &args[1], err);
    default: return hlsnap__guest_end(&head, args, err);
    }
}

/* ---- >>enter: from the gate to the guest's return ---- */

static hlsnap_result hlsnap__timed_out(const hlsnap_sandbox *sb, hlsnap__clock clock, hlsnap_error *err) {
    char more[48] = "";
    if (sb->calling_more) hlsnap__format(more, sizeof(more), " or one of the %u behind it", sb->calling_more);
    return hlsnap__fail(err, HLSNAP_ERR_TIMEOUT, 0, "%s%s: the %stime limit of %llu ns ran out", sb->calling, more,
                        clock == HLSNAP__CPU ? "CPU " : "", (unsigned long long)sb->limits[clock]);
}

/* Whether the call must end now, whatever the guest does. */
static hlsnap_result hlsnap__call_overdue(hlsnap_sandbox *sb, hlsnap_error *err) {
    hlsnap__clock late;
    if (sb->destroyed) return hlsnap__fail(err, HLSNAP_ERR_CANCELLED, 0, "the sandbox was destroyed during the call");
    if (hlsnap__interrupt_pending(sb->interrupt))
        return hlsnap__fail(err, HLSNAP_ERR_CANCELLED, 0, "the call was cancelled");
    late = hlsnap__overdue(sb->deadlines);
    return late == HLSNAP__CLOCKS ? HLSNAP_OK : hlsnap__timed_out(sb, late, err);
}

static hlsnap_result hlsnap__outer_timed_out(const hlsnap_sandbox *sb, hlsnap_error *err) {
    return hlsnap__fail(err, HLSNAP_ERR_TIMEOUT, 0, "%s: the call around this one ran out of time, or was cancelled",
                        sb->calling);
}

#define HLSNAP__GATE_STEP_NS 5000000u /* how late a cancel may be noticed while content is verified */

/* Before anything that the guest did has an effect: what it read was verified. Until then the call can run out of time. */
static hlsnap_result hlsnap__gate(hlsnap_sandbox *sb, const hlsnap__exit *x, hlsnap_error *err) {
    for (;;) {
        bool pending = false;
        hlsnap_result r = hlsnap__memory_await(&sb->memory, HLSNAP__GATE_STEP_NS, &pending, err);
        if (r || !pending) return r;
        r = hlsnap__call_overdue(sb, err);
        if (!r && x->kind == HLSNAP__EXIT_KICKED && x->outer) r = hlsnap__outer_timed_out(sb, err);
        if (r) return r;
    }
}

static void hlsnap__run(hlsnap_sandbox *sb, const hlsnap__entry *entry, hlsnap__exit *x) {
    const uint64_t start = hlsnap__now_ns();
    memset(x, 0, sizeof(*x));
    sb->hv->run(sb->shell, entry, x);
    sb->stats.guest_ns += hlsnap__now_ns() - start;
    sb->stats.exits++;
}

/* Where and with what the next call enters. */
static hlsnap__entry hlsnap__entry_next(const hlsnap_sandbox *sb) {
    const hlsnap__layout *l = &sb->memory.layout;
    const hlsnap__region *stack = hlsnap__layout_find(l, HLSNAP__STACK);
    hlsnap__entry entry;
    entry.rip = sb->guest->entry;
    entry.rsp = stack->gva + stack->pages * HLSNAP__PAGE - 8; /* as after a call: 16-byte aligned plus 8 */
    entry.rdi = hlsnap__layout_find(l, HLSNAP__MAILBOX)->gva;
    entry.fs_base = entry.rsi = hlsnap__layout_find(l, HLSNAP__IDENTITY)->gva;
    entry.syscall = sb->guest->syscall != 0;
    entry.fresh = sb->fresh;
    return entry;
}

/* Runs the guest from its entry until it returns, serving its host calls. */
static hlsnap_result hlsnap__enter_run(hlsnap_sandbox *sb, hlsnap_error *err) {
    const hlsnap__entry entry = hlsnap__entry_next(sb), *next = &entry;
    hlsnap__exit x;
    hlsnap_result r = HLSNAP_OK;
    while (!r) {
        hlsnap__run(sb, next, &x);
        sb->fresh = false;
        next = NULL;
        sb->shell_dead = sb->shell_dead || x.dead;
        r = hlsnap__gate(sb, &x, err);
        if (r) break;
        switch (x.kind) {
        case HLSNAP__EXIT_RETURN: return hlsnap__call_overdue(sb, err); /* the timer may be later than the guest */
        case HLSNAP__EXIT_CALL:
            r = hlsnap__host_call(sb, err);
            if (!r) r = hlsnap__call_overdue(sb, err);
            break;
        case HLSNAP__EXIT_FAULT: r = hlsnap__fault(sb, &x, err); break;
        case HLSNAP__EXIT_KICKED:
            r = hlsnap__call_overdue(sb, err);
            if (!r && x.outer) r = hlsnap__outer_timed_out(sb, err);
            break;
        case HLSNAP__EXIT_PROTOCOL:
            r = hlsnap__fail(err, HLSNAP_ERR_PROTOCOL, 0, "the guest left the VM by %s", x.what);
            break;
        default:
            if (x.os_errno == EFAULT && !hlsnap__memory_trusted(&sb->memory)) x.code = HLSNAP_ERR_CHANGED;
            r = hlsnap__fail(err, x.code ? x.code : HLSNAP_ERR_HYPERVISOR, x.os_errno, "the VM stopped: %s", x.what);
            break;
        }
    }
    return r;
}

/* What the guest says of its heap as it leaves. */
static void hlsnap__heap_told(hlsnap_sandbox *sb) {
    const uint64_t most = hlsnap__heap_bytes(sb);
    hlsnap_abi_mailbox m;
    memcpy(&m, sb->mailbox, sizeof(m));
    if (!m.heap_peak) return;
    sb->stats.heap_used = m.heap_used < most ? m.heap_used : most;
    if (m.heap_peak > most) m.heap_peak = most;
    if (m.heap_peak > sb->stats.heap_peak) sb->stats.heap_peak = m.heap_peak;
}

static hlsnap_result hlsnap__enter(hlsnap_sandbox *sb, hlsnap_error *err) {
    const hlsnap_result r = hlsnap__enter_run(sb, err),
                        flushed = sb->lines ? hlsnap__output_flush(sb, r ? NULL : err) : HLSNAP_OK;
    if (!r || r == HLSNAP_ERR_ABORT || r == HLSNAP_ERR_EXIT) hlsnap__heap_told(sb);
    return r ? r : flushed;
}

/* ---- >>call: one public call around one or more entries ---- */

static hlsnap_result hlsnap__call_begin(hlsnap_sandbox *sb, const uint64_t limits[HLSNAP__CLOCKS], hlsnap_error *err) {
    hlsnap_result r;
    uint32_t i;
    for (i = 0; i < HLSNAP__CLOCKS; i++) {
        const uint64_t limit = limits[i], now = limit ? hlsnap__clock_ns((hlsnap__clock)i) : 0;
        if (now == UINT64_MAX)
            return hlsnap__fail(err, HLSNAP_ERR_OS, errno, "clock_gettime, for a %stime limit: %s (errno %d)",
                                i == HLSNAP__CPU ? "CPU " : "", hlsnap__errno_text(errno), errno);
        sb->limits[i] = limit;
        sb->deadlines[i] = !limit ? 0 : limit < UINT64_MAX - now ? now + limit : UINT64_MAX;
    }
    sb->calling = "init";
    sb->calling_more = 0;
    sb->results.size = 0;
    sb->response.size = 0;
    r = sb->hv->begin(sb->shell, sb->deadlines, __atomic_load_n(&sb->interrupt->refs, __ATOMIC_RELAXED) > 1, err);
    if (r) return r;
    hlsnap__state_set(sb, HLSNAP_BUSY);
    hlsnap__interrupt_begin(sb->interrupt, sb->shell);
    return HLSNAP_OK;
}

static void hlsnap__sandbox_free(hlsnap_sandbox *sb);

/* Ends the call with result r. A cancel that was answered true always shows. */
static hlsnap_result hlsnap__call_end(hlsnap_sandbox *sb, hlsnap_result r, hlsnap_error *err) {
    const bool cancelled = hlsnap__interrupt_end(sb->interrupt);
    sb->hv->end(sb->shell);
    if (cancelled && r != HLSNAP_ERR_CANCELLED)
        r = hlsnap__fail(err, HLSNAP_ERR_CANCELLED, 0, "the call was cancelled");
    hlsnap__state_set(sb, r && r != HLSNAP_ERR_FUNCTION && r != HLSNAP_ERR_SIGNATURE && r != HLSNAP_ERR_LIMIT
                              ? HLSNAP_POISONED
                              : HLSNAP_READY);
    sb->stats.ended[r]++;
    sb->user = NULL;
    if (sb->destroyed) hlsnap__sandbox_free(sb);
    return r;
}

static uint32_t hlsnap__handle_index(const hlsnap_sandbox *sb, hlsnap_export e) {
    const uint32_t i = (uint32_t)(e.id & 0xffff);
    return e.id >> 16 == sb->guest->id >> 16 && i < sb->guest->contract.num_exports ? i : UINT32_MAX;
}

static bool hlsnap__is_scalar(uint32_t type) { return type != HLSNAP_STR && type != HLSNAP_BYTES; }

/* Of several calls the sum; none where one has none. */
static void hlsnap__invocations_limits(const hlsnap_sandbox *sb, const hlsnap_invocation *calls, size_t num,
                                       uint64_t limits[HLSNAP__CLOCKS]) {
    uint32_t k;
    size_t i;
    for (k = 0; k < HLSNAP__CLOCKS; k++) {
        limits[k] = 0;
        for (i = 0; i < num; i++) {
            const uint64_t own = k == HLSNAP__WALL ? calls[i].timeout_ns : calls[i].cpu_ns;
            const uint64_t limit = own ? own : sb->timeouts[k];
            if (!limit) {
                limits[k] = 0;
                break;
            }
            limits[k] = limit < UINT64_MAX - limits[k] ? limits[k] + limit : UINT64_MAX;
        }
    }
}

static size_t hlsnap__call_size(const hlsnap_invocation *call) {
    return hlsnap__message_size(call->args, call->num_args);
}

/* Checks every invocation before anything runs. */
static hlsnap_result hlsnap__invocations_check(const hlsnap_sandbox *sb, const hlsnap_invocation *calls, size_t num,
                                               uint64_t limits[HLSNAP__CLOCKS], hlsnap_error *err) {
    size_t i;
    for (i = 0; i < num; i++) {
        const uint32_t at = hlsnap__handle_index(sb, calls[i].target);
        const hlsnap__decl *d;
        hlsnap_result r;
        if (at == UINT32_MAX)
            return hlsnap__fail(err, HLSNAP_ERR_NOT_FOUND, 0, "invocation %zu: handle 0x%llx is of another guest", i,
                                (unsigned long long)calls[i].target.id);
        d = &sb->guest->contract.exports[at];
        r = hlsnap__args_check(&d->signature, d->name, calls[i].args, calls[i].num_args, err);
        if (r) return r;
        if (hlsnap__call_size(&calls[i]) > hlsnap__half(sb) - HLSNAP__RESERVE_IN &&
            hlsnap__call_size(&calls[i]) > hlsnap__large_most(sb))
            return hlsnap__fail(err, HLSNAP_ERR_LIMIT, 0,
                                "the arguments of %s take %zu bytes, %llu fit (heap_size=%llu)", d->name,
                                hlsnap__call_size(&calls[i]), (unsigned long long)hlsnap__large_most(sb),
                                (unsigned long long)hlsnap__heap_bytes(sb));
    }
    hlsnap__invocations_limits(sb, calls, num, limits);
    return HLSNAP_OK;
}

/* Writes as many calls as one entry can take; returns how many. A str or bytes result gets an entry of its own, so that
   its largest size does not depend on the calls before it. */
static uint32_t hlsnap__batch_write(hlsnap_sandbox *sb, const hlsnap_invocation *calls, size_t num) {
    const uint32_t room = hlsnap__half(sb) - HLSNAP__RESERVE_IN, out = hlsnap__half(sb) - HLSNAP__RESERVE_OUT;
    const uint32_t scalar = sizeof(hlsnap_abi_message) + sizeof(hlsnap_abi_value);
    uint8_t *in = sb->mailbox + HLSNAP__IN_OFFSET;
    uint32_t n = 0;
    sb->in_used = 0;
    while (n < num && (n + 1) * scalar <= out) {
        const uint32_t at = hlsnap__handle_index(sb, calls[n].target);
        const bool alone = !hlsnap__is_scalar(sb->guest->contract.exports[at].signature.result);
        const size_t size = hlsnap__call_size(&calls[n]);
        if ((n && (alone || calls[n].user != calls[0].user)) || size > room - sb->in_used) break;
        if (hlsnap__mailbox_touch(sb, 0, HLSNAP__IN_OFFSET + sb->in_used + size, NULL)) break;
        sb->in_used += (uint32_t)hlsnap__message_write(in + sb->in_used, room - sb->in_used, at, HLSNAP_ABI_STATUS_OK,
                                                       calls[n].args, calls[n].num_args);
        n++;
        if (alone) break;
    }
    return n;
}

/* What a failed export said. */
static hlsnap_result hlsnap__export_failed(const hlsnap_sandbox *sb, const hlsnap__decl *d,
                                           const hlsnap_abi_message *head, const hlsnap_value *v, hlsnap_error *err) {
    char text[400];
    hlsnap_result code;
    if (head->num_values != 2 || v[0].type != HLSNAP_I32 || v[1].type != HLSNAP_STR)
        return hlsnap__fail(err, HLSNAP_ERR_PROTOCOL, 0, "%s: malformed failure", d->name);
    hlsnap__readable(text, sizeof(text), v[1].str, v[1].size, false);
    code = HLSNAP_ERR_FUNCTION;
    if (head->status != HLSNAP_ABI_STATUS_FAILED &&
        (v[0].as.i32 == HLSNAP_ERR_SIGNATURE || v[0].as.i32 == HLSNAP_ERR_LIMIT))
        code = (hlsnap_result)v[0].as.i32;
    if (code == HLSNAP_ERR_LIMIT)
        hlsnap__fail(err, code, 0, "%s: %s (mailbox_size=%llu)", d->name, text, (unsigned long long)sb->mailbox_size);
    else
        hlsnap__fail(err, code, 0, "%s: %s", d->name, text);
    if (err && head->status == HLSNAP_ABI_STATUS_FAILED) err->user_code = v[0].as.i32;
    return code;
}

/* Reads the results of one entry into sb->results; *done counts those that succeeded. */
static hlsnap_result hlsnap__results_read(hlsnap_sandbox *sb, const hlsnap_invocation *calls, uint32_t num,
                                          uint32_t *done, hlsnap_error *err) {
    uint32_t offset = hlsnap__out_offset(sb), num_done;
    hlsnap_abi_mailbox m;
    memcpy(&m, sb->mailbox, sizeof(m));
    num_done = m.num_done;
    *done = 0;
    if (num_done < 1 || num_done > num)
        return hlsnap__fail(err, HLSNAP_ERR_PROTOCOL, 0, "the guest did %u of %u calls", num_done, num);
    while (*done < num_done) {
        const size_t start = sb->results.size;
        const uint32_t at = hlsnap__handle_index(sb, calls[*done].target);
        const hlsnap__decl *d = &sb->guest->contract.exports[at];
        hlsnap_abi_message head;
        hlsnap_value v[2];
        uint32_t size = sizeof(head);
        bool given = false;
        hlsnap_result r = hlsnap__large_result(sb, offset, &given, err);
        if (!r && !given) r = hlsnap__mailbox_copy(sb, offset, &sb->results, err);
        if (!r && !given) memcpy(&size, sb->results.data + start, sizeof(size)); /* the message begins with it */
        if (!r && !given) r = hlsnap__message_expand(sb, &sb->results, start, err);
        if (r) return r;
        if (!hlsnap__message_read(sb->results.data + start, sb->results.size - start, &head, v, 2))
            return hlsnap__fail(err, HLSNAP_ERR_PROTOCOL, 0, "the result of %s is malformed", d->name);
        if (head.status != HLSNAP_ABI_STATUS_OK) return hlsnap__export_failed(sb, d, &head, v, err);
        if (head.num_values != (d->signature.result != HLSNAP_VOID) ||
            (head.num_values && (uint32_t)v[0].type != d->signature.result))
            return hlsnap__fail(err, HLSNAP_ERR_PROTOCOL, 0, "%s returned %u values, or not the type of %s", d->name,
                                head.num_values, d->text);
        offset += size;
        (*done)++;
    }
    return num_done == num
               ? HLSNAP_OK
               : hlsnap__fail(err, HLSNAP_ERR_PROTOCOL, 0, "the guest stopped after %u of %u calls", num_done, num);
}

/* Decodes what results_read collected. */
static void hlsnap__results_decode(const hlsnap_sandbox *sb, hlsnap_value *outs, size_t num) {
    size_t i, at = 0;
    for (i = 0; i < num; i++) {
        hlsnap_abi_message head;
        hlsnap_value v;
        v = hlsnap__value(HLSNAP_VOID);
        hlsnap__message_read(sb->results.data + at, sb->results.size - at, &head, &v, 1);
        outs[i] = v;
        at += head.size;
    }
}

/* A call whose arguments have no room in the mailbox: asks the guest for memory, in an entry of its own, and writes it there. */
static hlsnap_result hlsnap__large_call(hlsnap_sandbox *sb, const hlsnap_invocation *call, hlsnap_error *err) {
    const uint32_t at = hlsnap__handle_index(sb, call->target);
    const size_t size = hlsnap__call_size(call);
    hlsnap_abi_mailbox m;
    uint8_t *to = NULL, *own = NULL;
    hlsnap_result r;
    sb->in_used = 0;
    r = hlsnap__mailbox_begin(sb, HLSNAP_ABI_OP_ROOM, 0, size, err);
    if (!r) r = hlsnap__enter(sb, err);
    if (r) return r;
    memcpy(&m, sb->mailbox, sizeof(m));
    if (!m.room_at)
        return hlsnap__fail(err, HLSNAP_ERR_LIMIT, 0,
                            "the arguments of %s take %zu bytes; the guest's heap has no room for them (heap_size=%llu), "
                            "nor has the mailbox (mailbox_size=%llu)",
                            sb->calling, size, (unsigned long long)hlsnap__heap_bytes(sb),
                            (unsigned long long)sb->mailbox_size);
    if (m.room_at % 16 || !hlsnap__large_in_heap(sb, m.room_at, size))
        return hlsnap__fail(err, HLSNAP_ERR_PROTOCOL, 0, "the guest has %zu bytes at 0x%llx for a message", size,
                            (unsigned long long)m.room_at);
    sb->large = m.room_at;
    to = hlsnap__memory_at(&sb->memory, hlsnap__gva_page(&sb->memory.layout, m.room_at)) + m.room_at % HLSNAP__PAGE;
    if (!sb->memory.trusted) to = own = (uint8_t *)hlsnap__alloc_raw(size, err);
    if (!to) return HLSNAP_ERR_MEMORY;
    hlsnap__message_write(to, size, at, HLSNAP_ABI_STATUS_OK, call->args, call->num_args);
    if (own)
        r = hlsnap__memory_move(&sb->memory, own, hlsnap__gva_page(&sb->memory.layout, m.room_at), m.room_at % HLSNAP__PAGE,
                                size, true, err);
    hlsnap__free(own);
    return r;
}

/* The calls, in a sandbox that is ready for them. */
static hlsnap_result hlsnap__invoke(hlsnap_sandbox *sb, const hlsnap_invocation *calls, size_t num_calls,
                                    hlsnap_value *outs, size_t *num_done, hlsnap_error *err) {
    uint64_t limits[HLSNAP__CLOCKS] = {0, 0};
    size_t done = 0;
    hlsnap_result r = hlsnap__invocations_check(sb, calls, num_calls, limits, err);
    if (!r) r = hlsnap__call_begin(sb, limits, err);
    if (r) return r;
    while (!r && done < num_calls) {
        const bool large = hlsnap__call_size(&calls[done]) > hlsnap__half(sb) - HLSNAP__RESERVE_IN;
        uint32_t n = large ? 1 : hlsnap__batch_write(sb, calls + done, num_calls - done), k = 0;
        sb->calling = sb->guest->contract.exports[hlsnap__handle_index(sb, calls[done].target)].name;
        sb->calling_more = n ? n - 1 : 0;
        sb->user = calls[done].user;
        sb->given = 0;
        if (large) r = hlsnap__large_call(sb, &calls[done], err);
        if (!n) r = hlsnap__fail(err, HLSNAP_ERR_MEMORY, 0, "out of memory");
        if (!r) r = hlsnap__mailbox_begin(sb, HLSNAP_ABI_OP_CALL, n, 0, err);
        sb->large = 0;
        if (!r) r = hlsnap__enter(sb, err);
        if (!r) r = hlsnap__results_read(sb, calls + done, n, &k, err);
        if (!r && done + n < num_calls) r = hlsnap__call_overdue(sb, err);
        done += k;
    }
    sb->stats.calls += done;
    if (outs && !sb->destroyed) hlsnap__results_decode(sb, outs, done);
    if (num_done) *num_done = done;
    return hlsnap__call_end(sb, r, err);
}

HLSNAP_API hlsnap_result hlsnap_sandbox_invoke(hlsnap_sandbox *sb, const hlsnap_invocation *calls, size_t num_calls,
                                               hlsnap_value *outs, size_t *num_done, hlsnap_error *err) {
    hlsnap_result r = hlsnap__need(sb, HLSNAP__IN_READY, "hlsnap_sandbox_invoke", NULL, err);
    if (num_done) *num_done = 0;
    if (!r && num_calls && !calls) r = hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "hlsnap_sandbox_invoke: calls is NULL");
    return r ? r : hlsnap__invoke(sb, calls, num_calls, outs, num_done, err);
}

/* The export of that name, for the public function `what`. */
static hlsnap_result hlsnap__find(const hlsnap_sandbox *sb, const char *what, const char *name, hlsnap_export *out,
                                  hlsnap_error *err) {
    hlsnap_result r = hlsnap__need(sb, HLSNAP__IN_READY, what, name, err);
    char shown[80];
    uint32_t i;
    if (r) return r;
    if (!name || !out) return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "%s: %s is NULL", what, name ? "out" : "name");
    i = hlsnap__decl_find(sb->guest->contract.exports, sb->guest->contract.num_exports, name);
    out->id = (sb->guest->id & ~0xffffull) | i;
    if (i < sb->guest->contract.num_exports) return HLSNAP_OK;
    hlsnap__printable(shown, sizeof(shown), name, strnlen(name, 64), false);
    return hlsnap__fail(err, HLSNAP_ERR_NOT_FOUND, 0, "%s: the guest exports no function '%s'", what, shown);
}

HLSNAP_API hlsnap_result hlsnap_sandbox_find(const hlsnap_sandbox *sb, const char *name, const char *signature,
                                             hlsnap_export *out, hlsnap_error *err) {
    hlsnap_export e;
    hlsnap_result r = hlsnap__find(sb, "hlsnap_sandbox_find", name, out ? &e : NULL, err);
    hlsnap__signature want;
    uint32_t i;
    if (r) return r;
    i = hlsnap__handle_index(sb, e);
    if (signature && (!hlsnap__signature_parse(&want, signature, strlen(signature)) ||
                      !hlsnap__signature_equal(&want, &sb->guest->contract.exports[i].signature)))
        return hlsnap__fail(err, HLSNAP_ERR_SIGNATURE, 0, "hlsnap_sandbox_find: %s is %s, not %.200s", name,
                            sb->guest->contract.exports[i].text, signature);
    *out = e;
    return HLSNAP_OK;
}

HLSNAP_API hlsnap_result hlsnap_sandbox_call(hlsnap_sandbox *sb, const char *name, const hlsnap_value *args,
                                             size_t num_args, hlsnap_value *out, hlsnap_error *err) {
    hlsnap_invocation one;
    hlsnap_result r = hlsnap__find(sb, "hlsnap_sandbox_call", name, &one.target, err);
    if (r) return r;
    one.args = args;
    one.num_args = num_args;
    one.timeout_ns = one.cpu_ns = 0;
    one.user = NULL;
    return hlsnap__invoke(sb, &one, 1, out, NULL, err);
}

/* ---- >>start: a sandbox's machine around a snapshot ---- */

static hlsnap_result hlsnap__random(void *to, size_t n, hlsnap_error *err) {
    if (syscall(SYS_getrandom, to, n, 0) == (long)n) return HLSNAP_OK;
    return hlsnap__fail(err, HLSNAP_ERR_OS, errno, "getrandom: %s (errno %d)", hlsnap__errno_text(errno), errno);
}

/* n bytes nobody has seen and nobody will, at a quarter of a system call. */
static hlsnap_result hlsnap__entropy_take(hlsnap_sandbox *sb, void *to, uint32_t n, hlsnap_error *err) {
    uint8_t *from;
    if (sb->entropy_left < n) {
        hlsnap_result r = hlsnap__random(sb->entropy, sizeof(sb->entropy), err);
        if (r) return r;
        sb->entropy_left = sizeof(sb->entropy);
    }
    from = sb->entropy + sizeof(sb->entropy) - sb->entropy_left;
    memcpy(to, from, n);
    memset(from, 0, n);
    sb->entropy_left -= n;
    return HLSNAP_OK;
}

static uint32_t hlsnap__identity_options(const hlsnap_sandbox *sb) {
    return (sb->output || sb->log ? HLSNAP_ABI_OPTION_OUTPUT : 0) |
           (sb->strict_syscalls ? HLSNAP_ABI_OPTION_STRICT : 0) | (sb->no_clock ? 0 : HLSNAP_ABI_OPTION_CLOCK);
}

/* Who listens has changed: the guest looks here before it says anything. */
static void hlsnap__identity_update(hlsnap_sandbox *sb) {
    const int32_t level = hlsnap__log_level(sb);
    const uint32_t options = hlsnap__identity_options(sb);
    uint8_t *id;
    if (hlsnap__forked(sb) || !sb->memory.valid || hlsnap__state(sb) == HLSNAP_POISONED)
        return; /* the next start writes it */
    id =
        hlsnap__memory_at(&sb->memory, hlsnap__region_page(&sb->memory.layout,
                                                           hlsnap__layout_find(&sb->memory.layout, HLSNAP__IDENTITY))) +
        HLSNAP_ABI_IDENTITY_OFFSET;
    memcpy(id + offsetof(hlsnap_abi_identity, log_level), &level, sizeof(level));
    memcpy(id + offsetof(hlsnap_abi_identity, options), &options, sizeof(options));
}

/* A new identity page: thread control block with a new canary, id, entropy, generation. */
static hlsnap_result hlsnap__identity_write(hlsnap_sandbox *sb, hlsnap_error *err) {
    const hlsnap__layout *l = &sb->memory.layout;
    const hlsnap__region *identity = hlsnap__layout_find(l, HLSNAP__IDENTITY),
                         *mailbox = hlsnap__layout_find(l, HLSNAP__MAILBOX);
    const hlsnap__region *heap = hlsnap__layout_find(l, HLSNAP__HEAP), *tls = hlsnap__layout_find(l, HLSNAP__TLS);
    uint8_t *page = hlsnap__memory_at(&sb->memory, hlsnap__region_page(l, identity));
    struct {
        uint8_t id[16], entropy[32];
        uint64_t canary, guard;
    } random;
    hlsnap_abi_identity id;
    hlsnap_result r = hlsnap__entropy_take(sb, &random, sizeof(random), err);
    if (r) return r;
    memset(&id, 0, sizeof(id));
    id.magic = HLSNAP_ABI_MAGIC;
    id.abi_version = HLSNAP_ABI_VERSION;
    id.log_level = hlsnap__log_level(sb);
    memcpy(id.id, random.id, sizeof(id.id));
    memcpy(id.entropy, random.entropy, sizeof(id.entropy));
    id.generation = sb->generation;
    id.mailbox = mailbox->gva;
    id.mailbox_size = mailbox->pages * HLSNAP__PAGE;
    id.heap = heap->gva;
    id.heap_size = heap->pages * HLSNAP__PAGE;
    id.module = sb->guest->module;
    id.tls_size = sb->guest->tls_size;
    id.tls = identity->gva - id.tls_size;
    id.runtime = tls->gva;
    id.runtime_size = id.tls - id.runtime;
    if (!sb->guest->initialized) {
        id.program = sb->guest->program;
        id.program_size = sb->guest->program_size;
    }
    if (sb->guest->syscall && sb->hv->tsc_scale) id.tsc_scale = sb->hv->tsc_scale(sb->shell);
    id.options = hlsnap__identity_options(sb);
    hlsnap__put64(page, identity->gva);                   /* tcb */
    hlsnap__put64(page + 0x10, identity->gva);            /* self */
    hlsnap__put64(page + 0x28, random.canary & ~0xffull); /* stack protector: a zero byte stops string overruns */
    hlsnap__put64(page + 0x30, random.guard);
    memcpy(page + HLSNAP_ABI_IDENTITY_OFFSET, &id, sizeof(id));
    return HLSNAP_OK;
}

/* Shows a map to the VM, or takes it away. */
static hlsnap_result hlsnap__map_slot(hlsnap_sandbox *sb, hlsnap__mapped *x, bool show, hlsnap_error *err) {
    hlsnap__slot slot;
    slot.number = x->slot;
    slot.readonly = x->map.mode == HLSNAP_MAP_READ;
    slot.gpa = HLSNAP__PAGE_GPA(x->first);
    slot.size = show ? x->pages * HLSNAP__PAGE : 0;
    slot.hva = show ? x->hva : NULL;
    x->shown = false;
    if (sb->hv->map(sb->shell, &slot, err)) return err ? err->code : HLSNAP_ERR_HYPERVISOR;
    x->shown = show;
    return HLSNAP_OK;
}

/* Whether there is room for the page tables of all maps. */
static hlsnap_result hlsnap__maps_fit(const hlsnap__memory *m, hlsnap_error *err) {
    hlsnap__map maps[HLSNAP_MAX_MAPS];
    uint32_t i;
    for (i = 0; i < m->num_maps; i++) maps[i] = m->maps[i].map;
    if (hlsnap__paging_of_maps(maps, m->num_maps) <= HLSNAP__SYS_PAGES - m->sys_window) return HLSNAP_OK;
    return hlsnap__fail(err, HLSNAP_ERR_LIMIT, 0, "%u maps need more page tables than fit", m->num_maps);
}

/* Adds a map's entries to the page tables. */
static void hlsnap__map_tables(hlsnap__memory *m, const hlsnap__mapped *x) {
    hlsnap__paging p;
    p.sys = hlsnap__memory_sys(m);
    p.used = m->sys_used;
    hlsnap__paging_show(&p, x->map.gva, x->first, x->pages,
                        HLSNAP__PTE_P | HLSNAP__PTE_U | HLSNAP__PTE_AD | HLSNAP__PTE_NX |
                            (x->map.mode == HLSNAP_MAP_READ ? 0 : HLSNAP__PTE_W));
    m->sys_used = p.used;
}

/* The page tables of all maps, instead of those that there are: only when the VM has no memory, or has just lost a slot, with which
   KVM drops whatever it, or the CPU, had kept of any table. Tables that it knows are never changed but by entries that come. */
static void hlsnap__maps_tables(hlsnap__memory *m) {
    uint8_t *sys = hlsnap__memory_sys(m);
    hlsnap__paging p;
    uint32_t i;
    p.sys = sys;
    p.used = m->sys_window;
    hlsnap__put64(hlsnap__pte(&p, HLSNAP__MAPS_GVA, 3), 0);
    memset(sys + (size_t)m->sys_window * HLSNAP__PAGE, 0, (size_t)(m->sys_used - m->sys_window) * HLSNAP__PAGE);
    m->sys_used = m->sys_window;
    for (i = 0; i < m->num_maps; i++) hlsnap__map_tables(m, &m->maps[i]);
}

/* Builds the supervisor area for the mapped layout and shows it, the window and the maps to the VM. */
static hlsnap_result hlsnap__attach(hlsnap_sandbox *sb, hlsnap_error *err) {
    hlsnap__memory *m = &sb->memory;
    uint8_t *sys = hlsnap__memory_sys(&sb->memory);
    hlsnap__slot slot = {0, false, HLSNAP__SYS_GPA, 0, NULL};
    hlsnap_result r;
    uint32_t i;
    if (m->sys_used)
        memset(sys, 0, (size_t)m->sys_used * HLSNAP__PAGE);
    else if (madvise(sys, HLSNAP__SYS_SIZE, HLSNAP__MADV_WIPEONFORK))
        return hlsnap__fail(err, HLSNAP_ERR_OS, errno, "MADV_WIPEONFORK: %s (errno %d)", hlsnap__errno_text(errno),
                            errno);
    else
        madvise(sys, (HLSNAP__SYS_PAGING + 6) * HLSNAP__PAGE, HLSNAP__MADV_POPULATE_WRITE);
    m->sys_used = m->sys_window = hlsnap__machine_build(sys, &m->layout);
    r = hlsnap__maps_fit(m, err);
    for (i = 0; i < m->num_maps && !r; i++) hlsnap__map_tables(m, &m->maps[i]);
    slot.size = HLSNAP__SYS_SIZE + m->layout.pages * HLSNAP__PAGE;
    slot.hva = sys;
    if (!r) r = sb->hv->map(sb->shell, &slot, err);
    for (i = 0; i < m->num_maps && !r; i++) r = hlsnap__map_slot(sb, &m->maps[i], true, err);
    sb->shell_mapped = !r;
    return r;
}

/* Takes the memory away from the VM, before it moves or its tables change. */
static hlsnap_result hlsnap__detach(hlsnap_sandbox *sb, hlsnap_error *err) {
    const hlsnap__slot slot = {0, false, HLSNAP__SYS_GPA, 0, NULL};
    hlsnap_result r = HLSNAP_OK;
    uint32_t i;
    if (!sb->shell || !sb->shell_mapped) return HLSNAP_OK;
    sb->shell_mapped = false;
    for (i = 0; i < sb->memory.num_maps && !r; i++)
        if (sb->memory.maps[i].shown) r = hlsnap__map_slot(sb, &sb->memory.maps[i], false, err);
    return r ? r : sb->hv->map(sb->shell, &slot, err);
}

static void hlsnap__shell_drop(hlsnap_sandbox *sb, bool forked) {
    uint32_t i;
    for (i = 0; i < sb->memory.num_maps; i++) sb->memory.maps[i].shown = false;
    if (sb->shell) sb->hv->shell_destroy(sb->shell, forked);
    sb->shell = NULL;
    sb->shell_dead = sb->shell_mapped = false;
}

static hlsnap_result hlsnap__syscall_check(hlsnap_sandbox *sb, hlsnap_error *err) {
    if (sb->hv->syscall_check) return sb->hv->syscall_check(sb->shell, err);
    return hlsnap__fail(err, HLSNAP_ERR_UNSUPPORTED, 0, "the hypervisor %s runs no guests with system calls",
                        sb->hv->name);
}

static hlsnap_result hlsnap__cpu_check(hlsnap_sandbox *sb, hlsnap_error *err) {
    if (sb->hv->cpu_check) return sb->hv->cpu_check(sb->shell, err);
    return hlsnap__fail(err, HLSNAP_ERR_UNSUPPORTED, 0,
                        "CPU level %s: the hypervisor %s shows guests the machine's CPU",
                        hlsnap__cpu_level_names[sb->shell_cpu], sb->hv->name);
}

static hlsnap__shell *hlsnap__pool_shell(hlsnap_pool *pool); /* of >>pool */

/* A VM that shows what the guest is to be shown. What one shows cannot be changed once it has run. */
static hlsnap_result hlsnap__shell_for(hlsnap_sandbox *sb, const hlsnap__guest *g, hlsnap_error *err) {
    if (sb->shell_dead || (sb->shell && sb->shell_cpu != g->cpu)) hlsnap__shell_drop(sb, false);
    if (sb->shell) return HLSNAP_OK;
    sb->shell_cpu = g->cpu;
    if (sb->pooled.pool && g->cpu == HLSNAP_CPU_HOST) sb->shell = hlsnap__pool_shell(sb->pooled.pool);
    if (sb->shell) return HLSNAP_OK;
    return sb->hv->shell_create(sb->hv, sb->cancel_signal, g->cpu, &sb->shell, err);
}

/* Has the VM know the pages that were prefaulted, and what every call reads. */
static hlsnap_result hlsnap__prefault_touch(hlsnap_sandbox *sb, const hlsnap__learned *w, hlsnap_error *err) {
    const hlsnap__memory *m = &sb->memory;
    const hlsnap__entry entry = hlsnap__entry_next(sb);
    uint64_t *marks = (uint64_t *)hlsnap__alloc(m->words, sizeof(*marks), NULL);
    hlsnap__span *spans = NULL;
    hlsnap__exit x;
    uint32_t num = 0;
    memset(&x, 0, sizeof(x));
    if (marks) hlsnap__prefault_mark(m, w, marks);
    if (marks) num = hlsnap__prefault_spans(m, marks, NULL, 0);
    if (marks) spans = (hlsnap__span *)hlsnap__alloc(num + 1, sizeof(*spans), NULL);
    if (spans) {
        hlsnap__prefault_spans(m, marks, spans, num);
        spans[num].from = HLSNAP__SYS_AT(HLSNAP__SYS_XSAVE);
        spans[num].to = HLSNAP__SYS_AT(HLSNAP__SYS_XSAVE + 1);
        spans[num].write = false;
        sb->hv->touch(sb->shell, &entry, spans, num + 1, &x);
        sb->shell_dead = sb->shell_dead || x.dead;
    }
    hlsnap__free(spans);
    hlsnap__free(marks);
    if (!x.dead && x.kind != HLSNAP__EXIT_DEAD) return HLSNAP_OK;
    return hlsnap__fail(err, x.code ? x.code : HLSNAP_ERR_HYPERVISOR, x.os_errno, "the VM stopped: %s", x.what);
}

/* What first calls from the snapshot were found to write is made ready; not where a file below could be truncated. */
static hlsnap_result hlsnap__prefault(hlsnap_sandbox *sb, const hlsnap_snapshot *s, hlsnap_error *err) {
    const hlsnap__learned *w = s->guest->learn ? hlsnap__learned_get(s) : NULL;
    sb->memory.prefaulted = 0;
    if (!w || !w->num || !hlsnap__memory_trusted(&sb->memory)) return HLSNAP_OK;
    hlsnap__memory_populate_learned(&sb->memory, w);
    return sb->hv->touch ? hlsnap__prefault_touch(sb, w, err) : HLSNAP_OK;
}

/* Memory, machine, identity and binding as the snapshot wants them; takes the new binding's rows, if there are any. On failure
   the shell is gone and the next try builds a new one. */
static hlsnap_result hlsnap__machine_reset(hlsnap_sandbox *sb, hlsnap_snapshot *s, hlsnap__binding *binding,
                                           hlsnap_error *err) {
    const bool same = sb->memory.mem && !sb->memory.forget &&
                      memcmp(&s->guest->layout, &sb->memory.layout, sizeof(s->guest->layout)) == 0;
    const bool placed = hlsnap__maps_placed(&sb->memory, s);
    bool attach;
    hlsnap_result r;
    hlsnap__buffer_clear(&sb->request);
    hlsnap__buffer_clear(&sb->results);
    hlsnap__buffer_clear(&sb->response);
    r = hlsnap__shell_for(sb, s->guest, err);
    if (!r && !(same && placed)) r = hlsnap__detach(sb, err);
    if (!r && !placed) r = hlsnap__maps_place(&sb->memory, s, err);
    if (!r) r = hlsnap__memory_reset(&sb->memory, s, err);
    if (!r) r = hlsnap__memory_check(&sb->memory, false, err);
    attach = !sb->shell_mapped;
    if (!r && attach) r = hlsnap__attach(sb, err);
    if (!r && s->guest->syscall) r = hlsnap__syscall_check(sb, err);
    if (!r && s->guest->cpu) r = hlsnap__cpu_check(sb, err);
    if (r) {
        hlsnap__shell_drop(sb, false);
        return r;
    }
    hlsnap__retain(&s->guest->refs);
    hlsnap__guest_release(sb->guest);
    sb->guest = s->guest;
    hlsnap__machine_slot(hlsnap__memory_sys(&sb->memory), s->guest->syscall);
    if (binding->rows) {
        hlsnap__free(sb->binding.rows);
        sb->binding = *binding;
        binding->rows = NULL;
    }
    sb->mailbox = hlsnap__memory_at(
        &sb->memory, hlsnap__region_page(&sb->memory.layout, hlsnap__layout_find(&sb->memory.layout, HLSNAP__MAILBOX)));
    sb->mailbox_size = hlsnap__layout_find(&sb->memory.layout, HLSNAP__MAILBOX)->pages * HLSNAP__PAGE;
    sb->in_used = 0;
    sb->generation = s->generation + 1; /* not of the sandbox: it would tell how many others were served */
    sb->fresh = true;
    r = hlsnap__identity_write(sb, err);
    return !r && attach ? hlsnap__prefault(sb, s, err) : r;
}

/* The exports and imports that init listed, as a new guest. */
static hlsnap_result hlsnap__contract_read(hlsnap_sandbox *sb, hlsnap__guest *g, uint32_t num_exports,
                                           hlsnap_error *err) {
    hlsnap_abi_message head;
    hlsnap_value *v;
    uint32_t i, num;
    hlsnap_result r = hlsnap__mailbox_copy(sb, hlsnap__out_offset(sb), &sb->results, err);
    if (r) return r;
    memcpy(&head, sb->results.data, sizeof(head));
    if (head.num_values % 2 || head.num_values > 4 * HLSNAP_MAX_FUNCTIONS || num_exports > head.num_values / 2 ||
        num_exports > HLSNAP_MAX_FUNCTIONS || head.num_values / 2 - num_exports > HLSNAP_MAX_FUNCTIONS)
        return hlsnap__fail(err, HLSNAP_ERR_PROTOCOL, 0, "the guest lists %u values with %u exports", head.num_values,
                            num_exports);
    num = head.num_values / 2;
    v = (hlsnap_value *)hlsnap__alloc(head.num_values, sizeof(*v), err);
    g->contract.exports = v ? (hlsnap__decl *)hlsnap__alloc(num_exports, sizeof(hlsnap__decl), err) : NULL;
    g->contract.imports = v ? (hlsnap__decl *)hlsnap__alloc(num - num_exports, sizeof(hlsnap__decl), err) : NULL;
    if (!g->contract.exports || !g->contract.imports)
        r = HLSNAP_ERR_MEMORY;
    else if (!hlsnap__message_read(sb->results.data, sb->results.size, &head, v, head.num_values))
        r = hlsnap__fail(err, HLSNAP_ERR_PROTOCOL, 0, "the guest's list of functions is malformed");
    for (i = 0; i < num && !r; i++) {
        hlsnap__decl *d = i < num_exports ? &g->contract.exports[i] : &g->contract.imports[i - num_exports];
        if (v[2 * i].type != HLSNAP_STR || v[2 * i + 1].type != HLSNAP_STR)
            r = hlsnap__fail(err, HLSNAP_ERR_PROTOCOL, 0, "the guest's list of functions holds no str at %u", 2 * i);
        else
            r = hlsnap__decl_parse(d, v[2 * i].str, v[2 * i].size, v[2 * i + 1].str, v[2 * i + 1].size, err);
    }
    g->contract.num_exports = num_exports;
    g->contract.num_imports = num - num_exports;
    hlsnap__free(v);
    return r;
}

/* A copy of the pre-init guest, to be completed by what init says. */
static hlsnap__guest *hlsnap__guest_copy(const hlsnap__guest *from, hlsnap_error *err) {
    static const hlsnap__contract none = {NULL, NULL, 0, 0};
    hlsnap__guest *g = hlsnap__guest_alloc(err);
    size_t i, n = 0;
    if (!g) return NULL;
    *g = *from;
    g->refs = 1;
    g->contract = none;
    g->unresolved = NULL;
    for (i = 0; i < from->num_unresolved; i++) n += strlen(from->unresolved + n) + 1;
    if (n) g->unresolved = (char *)hlsnap__alloc(1, n, err);
    if (n && !g->unresolved) {
        hlsnap__guest_release(g);
        return NULL;
    }
    if (n) memcpy(g->unresolved, from->unresolved, n);
    return g;
}

/* An ordinary program's first instructions fault, or call for an operating system. A guest in another language than C need not
   have a note, so that its absence is only a hint. */
static void hlsnap__init_hint(const hlsnap__guest *g, hlsnap_result r, hlsnap_error *err) {
    char said[sizeof(((hlsnap_error *)0)->msg)];
    if (!err || g->noted || g->module || (r != HLSNAP_ERR_FAULT && r != HLSNAP_ERR_PROTOCOL)) return;
    memcpy(said, err->msg, sizeof(said));
    hlsnap__format(
        err->msg, sizeof(err->msg),
        "no hlsnap guest? its ELF has no hlsnap note (a Linux program needs guest.runtime), and its init failed: %s",
        said);
}

/* Runs the guest's init and takes its contract. Duplicates and malformed names make no guest. */
static hlsnap_result hlsnap__guest_init(hlsnap_sandbox *sb, hlsnap_error *err) {
    hlsnap_abi_mailbox m;
    hlsnap__guest *g;
    hlsnap_result r = hlsnap__call_begin(sb, sb->timeouts, err);
    if (r) return r;
    r = hlsnap__mailbox_begin(sb, HLSNAP_ABI_OP_INIT, 0, 0, err);
    if (!r) r = hlsnap__enter(sb, err);
    if (r) hlsnap__init_hint(sb->guest, r, err);
    r = hlsnap__call_end(sb, r, err); /* a log line of init may have destroyed sb */
    if (r) return r;
    hlsnap__state_set(sb, HLSNAP_POISONED); /* until the contract holds */
    g = hlsnap__guest_copy(sb->guest, err);
    if (!g) return HLSNAP_ERR_MEMORY;
    memcpy(&m, sb->mailbox, sizeof(m));
    sb->results.size = 0;
    if (m.guest_abi != HLSNAP_ABI_VERSION)
        r = hlsnap__fail(err, HLSNAP_ERR_ABI, 0, "the guest speaks ABI %u, this is %d", m.guest_abi,
                         HLSNAP_ABI_VERSION);
    if (!r) r = hlsnap__contract_read(sb, g, m.num_exports, err);
    if (!r && m.entry) g->entry = m.entry;
    hlsnap__guest_machine(g, sb->hv->name);
    if (!r) r = hlsnap__guest_check(g, HLSNAP_ERR_PROTOCOL, err);
    if (!r) r = hlsnap__bind_imports(&g->contract, sb->functions, sb->num_functions, &sb->binding, err);
    if (r) {
        hlsnap__guest_release(g);
        return r;
    }
    g->initialized = true;
    g->id = hlsnap__guest_id(g);
    hlsnap__guest_release(sb->guest);
    sb->guest = g;
    return HLSNAP_OK;
}

/* Everything that can be refused before anything changes: CPU features, and a binding of the snapshot's imports, unless the
   sandbox has it, being one of that guest. */
static hlsnap_result hlsnap__snapshot_accept(const hlsnap_sandbox *sb, const hlsnap_snapshot *s,
                                             hlsnap__binding *binding, hlsnap_error *err) {
    const uint64_t missing = s->guest->features & ~hlsnap__cpu_features();
    hlsnap_result r;
    if (HLSNAP__SANITIZED && s->guest->module && !s->guest->initialized)
        return hlsnap__fail(err, HLSNAP_ERR_SELF, 0,
                            "guest.self was built with a sanitizer (-fsanitize=address, thread or memory): it needs "
                            "memory and a library that a VM lacks; build a guest without, as a file of its own");
    if (missing) return hlsnap__cpu_refuse(s->guest->cpu, missing, err);
    if (s->generation > UINT64_MAX / 2)
        return hlsnap__fail(err, HLSNAP_ERR_LIMIT, 0, "generation 0x%llx", (unsigned long long)s->generation);
    r = hlsnap__maps_accept(&sb->memory, s, err);
    if (r) return r;
    if (s->guest == sb->guest && sb->binding.rows) return HLSNAP_OK;
    return hlsnap__bind_imports(&s->guest->contract, sb->functions, sb->num_functions, binding, err);
}

/* To READY at snapshot s, from any state but BUSY. */
static hlsnap_result hlsnap__sandbox_reset(hlsnap_sandbox *sb, hlsnap_snapshot *s, hlsnap_error *err) {
    hlsnap__binding binding = {NULL};
    hlsnap_result r = hlsnap__snapshot_accept(sb, s, &binding, err);
    if (r) return r;
    if (!sb->fresh && hlsnap__state(sb) != HLSNAP_READY) sb->memory.learns = false; /* a call that ended badly teaches nothing */
    sb->memory.ran = !sb->fresh;
    hlsnap__state_set(sb, HLSNAP_POISONED);
    r = hlsnap__machine_reset(sb, s, &binding, err);
    hlsnap__free(binding.rows);
    if (!r && !s->guest->initialized) {
        hlsnap__free(sb->binding.rows);
        sb->binding.rows = NULL;
        r = hlsnap__guest_init(sb, err);
    }
    if (!r) hlsnap__state_set(sb, HLSNAP_READY);
    return r;
}

/* ---- >>public: the sandbox ---- */

static hlsnap_result hlsnap__sandbox_desc_check(const hlsnap_sandbox_desc *d, hlsnap_error *err) {
    if (!d || d->_start_canary || d->_end_canary)
        return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "sandbox desc is NULL or was not initialised with HLSNAP_ZERO");
    if (!d->hypervisor)
        return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "sandbox desc: hypervisor is NULL; use hlsnap_kvm()");
    if (d->log_level < -1 || d->log_level > 4)
        return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "sandbox desc: log_level=%d is not in -1..4", d->log_level);
    if (d->cancel_signal && d->cancel_signal != SIGURG && (d->cancel_signal < SIGRTMIN || d->cancel_signal > SIGRTMAX))
        return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "sandbox desc: cancel_signal=%d is neither SIGURG nor realtime",
                            d->cancel_signal);
    if (d->num_maps && !d->maps)
        return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "sandbox desc: %zu maps at NULL", d->num_maps);
    return HLSNAP_OK;
}

/* In place of the one that there is, whose handles cancel nothing from now on. */
static hlsnap_result hlsnap__interrupt_make(hlsnap_sandbox *sb, hlsnap_error *err) {
    hlsnap_interrupt *h = (hlsnap_interrupt *)hlsnap__alloc(1, sizeof(*h), err);
    if (!h) return HLSNAP_ERR_MEMORY;
    h->refs = 1;
    h->pid = sb->pid;
    h->hv = sb->hv;
    hlsnap_interrupt_release(sb->interrupt);
    sb->interrupt = h;
    return HLSNAP_OK;
}

static void hlsnap__pool_left(hlsnap_pool *pool, uint64_t bytes, bool was); /* of >>pool */
static hlsnap_result hlsnap__pool_enter(hlsnap_pool *pool, const hlsnap_sandbox_desc *d, hlsnap_error *err);

static void hlsnap__sandbox_free(hlsnap_sandbox *sb) {
    const bool forked = hlsnap__forked(sb);
    hlsnap_pool *pool = forked ? NULL : sb->pooled.pool;
    const uint64_t bytes = sb->pooled.bytes;
    const bool was = sb->pooled.was;
    if (!forked && sb->memory.learns && !sb->fresh && hlsnap__state(sb) == HLSNAP_READY &&
        !hlsnap__memory_scan(&sb->memory, NULL))
        hlsnap__memory_learn(&sb->memory);
    hlsnap__shell_drop(sb, forked);
    hlsnap__free(sb->lines);
    hlsnap__memory_free(&sb->memory, forked);
    hlsnap__guest_release(sb->guest);
    hlsnap__free(sb->functions);
    hlsnap__free(sb->binding.rows);
    hlsnap__free(sb->request.data);
    hlsnap__free(sb->results.data);
    hlsnap__free(sb->response.data);
    hlsnap_interrupt_release(sb->interrupt);
    hlsnap_snapshot_release(sb->pooled.snapshot);
    hlsnap__free(sb);
    if (pool) hlsnap__pool_left(pool, bytes, was);
}

/* The pool's place, where there is one, was taken, and is given up on failure. */
static hlsnap_result hlsnap__sandbox_make(hlsnap_snapshot *snapshot, const hlsnap_sandbox_desc *desc, hlsnap_pool *pool,
                                          hlsnap_sandbox **out, hlsnap_error *err) {
    hlsnap_sandbox *sb = (hlsnap_sandbox *)hlsnap__alloc(1, sizeof(*sb), err);
    hlsnap_result r;
    size_t i;
    if (!sb && pool) hlsnap__pool_left(pool, 0, false);
    if (!sb) return HLSNAP_ERR_MEMORY;
    sb->pid = getpid();
    sb->hv = desc->hypervisor;
    sb->pooled.pool = pool;
    sb->memory.pagemap = -1;
    sb->memory.huge = desc->huge_pages;
    hlsnap__log_set(sb, desc->log_level, desc->log, desc->log_user);
    sb->output = desc->output;
    sb->output_user = desc->output_user;
    sb->no_clock = desc->no_clock;
    sb->strict_syscalls = desc->strict_syscalls;
    sb->cancel_signal = desc->cancel_signal ? desc->cancel_signal : SIGURG;
    sb->timeouts[HLSNAP__WALL] = desc->timeout_ns;
    sb->timeouts[HLSNAP__CPU] = desc->cpu_timeout_ns;
    sb->num_functions = desc->num_functions;
    hlsnap__state_set(sb, HLSNAP_POISONED);
    r = hlsnap__host_functions_copy(desc->functions, desc->num_functions, &sb->functions, err);
    for (i = 0; i < desc->num_maps && !r; i++) r = hlsnap__maps_give(&sb->memory, &desc->maps[i], err);
    if (!r) r = hlsnap__interrupt_make(sb, err);
    if (!r) r = hlsnap__sandbox_reset(sb, snapshot, err);
    sb->pooled.was = !r;
    if (r)
        hlsnap__sandbox_free(sb);
    else
        *out = sb;
    return r;
}

HLSNAP_API hlsnap_result hlsnap_sandbox_create_from(hlsnap_snapshot *snapshot, const hlsnap_sandbox_desc *desc,
                                                    hlsnap_sandbox **out, hlsnap_error *err) {
    hlsnap_result r;
    if (!out) return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "hlsnap_sandbox_create_from: out is NULL");
    *out = NULL;
    r = hlsnap__sandbox_desc_check(desc, err);
    if (!r && !snapshot) r = hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "hlsnap_sandbox_create_from: the snapshot is NULL");
    if (!r && desc->pool) r = hlsnap__pool_enter(desc->pool, desc, err);
    return r ? r : hlsnap__sandbox_make(snapshot, desc, desc->pool, out, err);
}

HLSNAP_API hlsnap_result hlsnap_sandbox_create(const hlsnap_guest_desc *guest, const hlsnap_sandbox_desc *desc,
                                               hlsnap_sandbox **out, hlsnap_error *err) {
    hlsnap_snapshot *s;
    hlsnap_result r;
    if (!out) return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "hlsnap_sandbox_create: out is NULL");
    *out = NULL;
    r = hlsnap__sandbox_desc_check(desc, err);
    if (r) return r;
    r = hlsnap_snapshot_from_guest(guest, &s, err);
    if (r) return r;
    r = hlsnap_sandbox_create_from(s, desc, out, err);
    hlsnap_snapshot_release(s);
    return r;
}

HLSNAP_API void hlsnap_sandbox_destroy(hlsnap_sandbox *sb) {
    if (!sb) return;
    if (!hlsnap__forked(sb) && hlsnap__state(sb) == HLSNAP_BUSY)
        sb->destroyed = true;
    else
        hlsnap__sandbox_free(sb);
}

HLSNAP_API hlsnap_result hlsnap_sandbox_snapshot(hlsnap_sandbox *sb, hlsnap_snapshot **out, hlsnap_error *err) {
    hlsnap_result r = hlsnap__need(sb, HLSNAP__IN_READY, "hlsnap_sandbox_snapshot", NULL, err);
    if (!r && !out) r = hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "hlsnap_sandbox_snapshot: out is NULL");
    if (out) *out = NULL;
    if (r) return r;
    r = hlsnap__memory_take(&sb->memory, sb->guest, sb->generation, out, err);
    if (!sb->memory.valid || r == HLSNAP_ERR_CHANGED || r == HLSNAP_ERR_DIGEST) hlsnap__state_set(sb, HLSNAP_POISONED);
    if (r) return r;
    r = hlsnap__memory_check(&sb->memory, true, err);
    if (!r) r = hlsnap__maps_whole(&sb->memory, err);
    sb->stats.snapshots += !r;
    if (!r) return HLSNAP_OK;
    hlsnap__state_set(sb, HLSNAP_POISONED);
    hlsnap_snapshot_release(*out);
    *out = NULL;
    return r;
}

HLSNAP_API hlsnap_result hlsnap_sandbox_restore(hlsnap_sandbox *sb, hlsnap_snapshot *snapshot, hlsnap_error *err) {
    hlsnap_result r =
        hlsnap__need(sb, HLSNAP__IN_READY | HLSNAP__IN(HLSNAP_POISONED), "hlsnap_sandbox_restore", NULL, err);
    if (!r && !snapshot) r = hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "hlsnap_sandbox_restore: the snapshot is NULL");
    if (!r) r = hlsnap__sandbox_reset(sb, snapshot, err);
    if (!r) sb->stats.restores++;
    return r;
}

HLSNAP_API void hlsnap_sandbox_retire(hlsnap_sandbox *sb) {
    if (!sb || hlsnap__state(sb) == HLSNAP_BUSY) return;
    sb->memory.forget = true;
    hlsnap__state_set(sb, HLSNAP_POISONED);
}

HLSNAP_API hlsnap_result hlsnap_sandbox_bind(hlsnap_sandbox *sb, const hlsnap_function *functions, size_t num_functions,
                                             hlsnap_error *err) {
    hlsnap__host_function *rows = NULL;
    hlsnap__binding binding = {NULL};
    hlsnap_result r = hlsnap__need(sb, HLSNAP__IN_READY, "hlsnap_sandbox_bind", NULL, err);
    if (!r) r = hlsnap__host_functions_copy(functions, num_functions, &rows, err);
    if (!r) r = hlsnap__bind_imports(&sb->guest->contract, rows, num_functions, &binding, err);
    if (r) {
        hlsnap__free(rows);
        return r;
    }
    hlsnap__free(sb->functions);
    hlsnap__free(sb->binding.rows);
    sb->functions = rows;
    sb->num_functions = num_functions;
    sb->binding = binding;
    sb->pooled.changed = true;
    return HLSNAP_OK;
}

/* The guest does not run: the sandbox is ready, or busy in a host function of its own. */
static hlsnap_result hlsnap__need_still(const hlsnap_sandbox *sb, const char *what, hlsnap_error *err) {
    const uint32_t states = sb && sb->in_host ? HLSNAP__IN_READY | HLSNAP__IN(HLSNAP_BUSY) : HLSNAP__IN_READY;
    return hlsnap__need(sb, states, what, NULL, err);
}

/* The first page of [gva, gva + n), all of it in regions or one map; `other` is the caller's end. */
static hlsnap_result hlsnap__range(hlsnap_sandbox *sb, const char *what, uint64_t gva, const void *other, size_t n,
                                   bool write, uint64_t *page, hlsnap_error *err) {
    hlsnap_result r = hlsnap__need_still(sb, what, err);
    const hlsnap__mapped *x;
    if (!r && n && !other) r = hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "%s: %s is NULL", what, write ? "from" : "to");
    if (r) return r;
    *page = hlsnap__gva_page(&sb->memory.layout, gva);
    x = gva < HLSNAP__MAPS_GVA ? NULL : hlsnap__mapped_at(&sb->memory, *page);
    if (!x) return hlsnap__layout_holds(&sb->memory.layout, gva, n, write, err);
    if (n > x->map.gva + x->pages * HLSNAP__PAGE - gva || (write && x->map.mode == HLSNAP_MAP_READ))
        return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "%s: %zu bytes at 0x%llx: map '%s' has %llu bytes at 0x%llx%s", what,
                            n, (unsigned long long)gva, x->map.name, (unsigned long long)x->map.size,
                            (unsigned long long)x->map.gva, write ? ", mode READ is not written to" : "");
    return HLSNAP_OK;
}

HLSNAP_API hlsnap_result hlsnap_sandbox_read(hlsnap_sandbox *sb, uint64_t gva, void *to, size_t n, hlsnap_error *err) {
    uint64_t page;
    hlsnap_result r = hlsnap__range(sb, "hlsnap_sandbox_read", gva, to, n, false, &page, err);
    if (r || !n) return r;
    r = hlsnap__memory_move(&sb->memory, to, page, gva % HLSNAP__PAGE, n, false, err);
    return r ? r : hlsnap__memory_check(&sb->memory, true, err);
}

HLSNAP_API hlsnap_result hlsnap_sandbox_view(hlsnap_sandbox *sb, uint64_t gva, size_t n, const void **out,
                                             hlsnap_error *err) {
    uint64_t page = 0;
    hlsnap_result r = out ? HLSNAP_OK : hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "hlsnap_sandbox_view: out is NULL");
    if (out) *out = NULL;
    if (!r) r = hlsnap__range(sb, "hlsnap_sandbox_view", gva, out, n, false, &page, err);
    if (!r && !hlsnap__memory_trusts(&sb->memory, page))
        r = hlsnap__fail(
            err, HLSNAP_ERR_UNSUPPORTED, 0,
            "hlsnap_sandbox_view: that memory is not sealed but in files; hlsnap_sandbox_read copies");
    if (!r) r = hlsnap__memory_check(&sb->memory, true, err);
    if (!r) *out = hlsnap__memory_at(&sb->memory, page) + gva % HLSNAP__PAGE;
    return r;
}

HLSNAP_API hlsnap_result hlsnap_sandbox_write(hlsnap_sandbox *sb, uint64_t gva, const void *from, size_t n,
                                              hlsnap_error *err) {
    uint64_t page;
    const uint64_t skip = gva % HLSNAP__PAGE;
    hlsnap_result r = hlsnap__range(sb, "hlsnap_sandbox_write", gva, from, n, true, &page, err);
    if (r || !n) return r;
    if (hlsnap__page_ours(&sb->memory, page))
        r = hlsnap__hot_add_range(&sb->memory, page, page + HLSNAP__PAGES(skip + n), err);
    return r ? r : hlsnap__memory_move(&sb->memory, hlsnap__unconst(from), page, (size_t)skip, n, true, err);
}

/* ---- >>maps-public ---- */

/* Takes a map's slot away, where the VM has one; the sandbox can go on only when that is done. */
static hlsnap_result hlsnap__map_hide(hlsnap_sandbox *sb, hlsnap__mapped *x, hlsnap_error *err) {
    const hlsnap_result r = x->shown ? hlsnap__map_slot(sb, x, false, err) : HLSNAP_OK;
    if (r) sb->shell_dead = true;
    if (r && hlsnap__state(sb) == HLSNAP_READY) hlsnap__state_set(sb, HLSNAP_POISONED);
    return r;
}

/* Takes map number i away, which the VM has not. */
static void hlsnap__map_drop(hlsnap_sandbox *sb, uint32_t i) {
    hlsnap__memory *m = &sb->memory;
    hlsnap__hot_forget(m, m->maps[i].first, m->maps[i].pages);
    hlsnap__mapped_free(&m->maps[i], false);
    memmove(&m->maps[i], &m->maps[i + 1], (--m->num_maps - i) * sizeof(*m->maps));
}

/* Where a map that was just given may lie: what a snapshot here wants to have somewhere, keeps its place. */
static uint64_t hlsnap__map_place(const hlsnap__memory *m, const hlsnap__map *map) {
    hlsnap__map taken[2 * HLSNAP_MAX_MAPS];
    const hlsnap__map *same = hlsnap__map_find(m->target->maps, m->target->num_maps, map->name);
    uint32_t i, num = 0;
    for (i = 0; i < m->num_maps; i++) taken[num++] = m->maps[i].map;
    if (same && same->size == map->size && !hlsnap__maps_clash(taken, num, same->gva, same->size)) return same->gva;
    for (i = 0; i < m->target->num_maps; i++) taken[num++] = m->target->maps[i];
    return hlsnap__maps_gap(taken, num, map->size);
}

/* Shows the map that was given last. On failure it is still there, and whether the VM sees it is known. */
static hlsnap_result hlsnap__map_add(hlsnap_sandbox *sb, hlsnap_error *err) {
    hlsnap__memory *m = &sb->memory;
    hlsnap__mapped *x = &m->maps[m->num_maps - 1];
    uint32_t taken = 0, i;
    hlsnap_result r = HLSNAP_OK;
    for (i = 0; i < m->num_maps; i++) taken |= 1u << m->maps[i].slot;
    for (x->slot = 1; taken >> x->slot & 1;) x->slot++;
    x->map.gva = hlsnap__map_place(m, &x->map);
    if (!x->map.gva)
        return hlsnap__fail(err, HLSNAP_ERR_LIMIT, 0, "map '%s' of %llu bytes: all maps take at most %llu", x->map.name,
                            (unsigned long long)x->map.size, (unsigned long long)HLSNAP__MAPS_SIZE);
    if (!x->hva) r = hlsnap__mapped_reserve(x, err);
    if (r) return r;
    hlsnap__maps_number(m);
    r = hlsnap__bitmaps_grow(m, err);
    if (!r && hlsnap__map_stored(&x->map)) r = hlsnap__mapped_fill(m, x, NULL, err);
    if (!r) r = hlsnap__maps_fit(m, err);
    if (!r) r = hlsnap__map_slot(sb, x, true, err);
    if (!r) hlsnap__map_tables(m, x);
    return r;
}

HLSNAP_API hlsnap_result hlsnap_sandbox_map(hlsnap_sandbox *sb, const hlsnap_map *map, hlsnap_error *err) {
    hlsnap_result r = hlsnap__need_still(sb, "hlsnap_sandbox_map", err);
    if (!r && !map) r = hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "hlsnap_sandbox_map: map is NULL");
    if (!r) r = hlsnap__maps_give(&sb->memory, map, err);
    if (r) return r;
    r = hlsnap__map_add(sb, err);
    if (r)
        hlsnap__map_drop(sb, sb->memory.num_maps - 1);
    else
        qsort(sb->memory.maps, sb->memory.num_maps, sizeof(*sb->memory.maps), hlsnap__mapped_order);
    sb->pooled.changed = sb->pooled.changed || !r;
    return r;
}

HLSNAP_API hlsnap_result hlsnap_sandbox_unmap(hlsnap_sandbox *sb, const char *name, hlsnap_error *err) {
    hlsnap_result r = hlsnap__need_still(sb, "hlsnap_sandbox_unmap", err);
    hlsnap__mapped *x = r || !name ? NULL : hlsnap__mapped_find(&sb->memory, name);
    char shown[80];
    if (r) return r;
    if (!name) return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "hlsnap_sandbox_unmap: name is NULL");
    hlsnap__printable(shown, sizeof(shown), name, strnlen(name, 64), false);
    if (!x) return hlsnap__fail(err, HLSNAP_ERR_NOT_FOUND, 0, "hlsnap_sandbox_unmap: there is no map '%s'", shown);
    r = hlsnap__map_hide(sb, x, err);
    if (r) return r;
    hlsnap__map_drop(sb, (uint32_t)(x - sb->memory.maps));
    hlsnap__maps_tables(&sb->memory);
    sb->pooled.changed = true;
    return HLSNAP_OK;
}

/* Pages of the window that cannot be anything but zero are not looked at: neither in the snapshot below, nor touched since. */
static bool hlsnap__page_used(const hlsnap__memory *m, uint64_t page, uint64_t entry) {
    uint8_t bounce[HLSNAP__PAGE];
    const uint8_t *at;
    if (!entry && !hlsnap__bit(m->is_hot, page) && !hlsnap__extent_at(m->base, page)) return false;
    return !hlsnap__memory_peek(m, page, bounce, &at, NULL) && !hlsnap__all_zero(at, HLSNAP__PAGE);
}

static uint64_t hlsnap__stack_peak(const hlsnap_sandbox *sb) {
    const hlsnap__memory *m = &sb->memory;
    const hlsnap__region *stack;
    uint64_t entry[256], page, end, n, i = 0;
    int fd;
    if (!m->mem || !m->valid || hlsnap__forked(sb)) return 0;
    stack = hlsnap__layout_find(&m->layout, HLSNAP__STACK);
    page = hlsnap__region_page(&m->layout, stack);
    end = page + stack->pages;
    fd = hlsnap__pagemap_open();
    for (; page < end; page += n) {
        n = end - page < HLSNAP_COUNT(entry) ? end - page : HLSNAP_COUNT(entry);
        /* bits 63 and 62: present, swapped; where they cannot be had, every page is looked at */
        if (fd < 0 || pread(fd, entry, n * 8, (off_t)((uintptr_t)hlsnap__memory_at(m, page) / HLSNAP__PAGE * 8)) !=
                          (ssize_t)(n * 8))
            memset(entry, 0xff, sizeof(entry));
        for (i = 0; i < n; i++)
            if (hlsnap__page_used(m, page + i, entry[i] >> 62)) break;
        if (i < n) break;
    }
    if (fd >= 0) close(fd);
    return page < end ? (end - page - i) * HLSNAP__PAGE : 0;
}

HLSNAP_API void hlsnap_sandbox_set_log(hlsnap_sandbox *sb, int32_t level, hlsnap_log_fn log, void *user) {
    if (!sb) return;
    hlsnap__log_set(sb, level, log, user);
    hlsnap__identity_update(sb);
}

HLSNAP_API void hlsnap_sandbox_set_output(hlsnap_sandbox *sb, hlsnap_output_fn output, void *user) {
    if (!sb) return;
    sb->output = output;
    sb->output_user = user;
    hlsnap__identity_update(sb);
}

HLSNAP_API void hlsnap_sandbox_get_stats(const hlsnap_sandbox *sb, hlsnap_stats *out) {
    static const hlsnap_stats none = HLSNAP_ZERO;
    if (out) *out = sb ? sb->stats : none;
    if (!out || !sb) return;
    out->hot_pages = sb->memory.num_hot;
    out->copied_bytes = sb->memory.copied_bytes;
    out->stack_peak = hlsnap__stack_peak(sb);
    out->prefaulted_pages = sb->memory.prefaulted;
}

HLSNAP_API void *hlsnap_sandbox_get_user(const hlsnap_sandbox *sb) { return sb ? sb->user : NULL; }

HLSNAP_API hlsnap_interrupt *hlsnap_sandbox_get_interrupt(hlsnap_sandbox *sb) {
    if (!sb) return NULL;
    if (hlsnap__state(sb) == HLSNAP_BUSY && sb->hv->begin(sb->shell, sb->deadlines, true, NULL)) return NULL;
    hlsnap__retain(&sb->interrupt->refs);
    return sb->interrupt;
}

/* ---- >>pool ---- */

struct hlsnap_pool {
    pthread_mutex_t lock;
    int pid;
    uint32_t refs; /* its owner's, one for each sandbox, one for each call in progress */
    bool closed;
    hlsnap_sandbox_desc desc;
    hlsnap_function *functions; /* the desc's, and their names behind them */
    hlsnap_map *maps;           /* likewise; NULL = none */
    uint32_t max, num, num_idle, num_warm, want_warm;
    uint64_t max_bytes, wait_ns, idle_ns;
    hlsnap_sandbox *idle; /* the one that came back last first */
    hlsnap__shell **warm; /* want_warm of them, at most */
    uint32_t steals;      /* what sandboxes that were another's cost, until a new one was made instead */
    int32_t returns, waiting; /* a futex: changes when one comes back; those who wait there */
    hlsnap_sandbox *in_hand;  /* that the thread puts back just now */
    uint64_t wakes_ns;        /* when the thread looks again by itself */
    bool retire;
    bool threaded; /* there is a thread; */
    pthread_t thread;
    int32_t work;      /* a futex: changes when there is something for it */
    uint64_t retry_ns; /* it does not try to make a VM before that */
    hlsnap_pool_stats stats;
};

/* NULL where a static program has no threads of its own. */
static int hlsnap__thread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *user)
    __attribute__((__weakref__("pthread_create")));
static int hlsnap__thread_join(pthread_t thread, void **out) __attribute__((__weakref__("pthread_join")));

/* What a thread of hlsnap's own blocks: signals that are sent, not those of its own faults, whose handlers report crashes. */
static void hlsnap__thread_signals(sigset_t *blocked) {
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
    size_t i;
    sigfillset(blocked);
    for (i = 0; i < HLSNAP_COUNT(faults); i++) sigdelset(blocked, faults[i]);
}

#define HLSNAP__POOL_SLOW_NS 200000u /* what takes longer to put back is the thread's, to wake which takes some 20 us */
#define HLSNAP__POOL_RETRY_NS 1000000000u
/* A new sandbox, once others' have cost as much: another thread's, whose memory and VM are warm on another processor; one that is
   put to another snapshot of its guest; to another guest's. In units of about 10 us. */
#define HLSNAP__POOL_NEW 72u
#define HLSNAP__POOL_THREAD 1u
#define HLSNAP__POOL_GUEST 4u
#define HLSNAP__POOL_OTHER 24u

/* ns: UINT64_MAX = without end. */
static void hlsnap__futex_wait(int32_t *word, int32_t value, uint64_t ns) {
    struct timespec t;
    t.tv_sec = (time_t)(ns / 1000000000u);
    t.tv_nsec = (long)(ns % 1000000000u);
    syscall(SYS_futex, word, 128l /* FUTEX_WAIT_PRIVATE */, (long)value, ns == UINT64_MAX ? NULL : &t, NULL, 0l);
}

static void hlsnap__futex_wake(int32_t *word, int32_t num) { hlsnap__futex(word, 129 /* FUTEX_WAKE_PRIVATE */, num); }

static void hlsnap__pool_free(hlsnap_pool *p, bool forked) {
    while (p->num_warm) p->desc.hypervisor->shell_destroy(p->warm[--p->num_warm], forked);
    if (!forked) pthread_mutex_destroy(&p->lock);
    hlsnap__free(p->warm);
    hlsnap__free(p->functions);
    hlsnap__free(p->maps);
    hlsnap__free(p);
}

/* Takes the lock and a reference: the pool stays as long as the call. */
static hlsnap_result hlsnap__pool_begin(hlsnap_pool *p, const char *what, hlsnap_error *err) {
    if (!p) return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "%s: the pool is NULL", what);
    if (p->pid != getpid())
        return hlsnap__fail(err, HLSNAP_ERR_STATE, 0, "%s: the pool belongs to process %d, not its child", what,
                            p->pid);
    pthread_mutex_lock(&p->lock);
    p->refs++;
    return HLSNAP_OK;
}

/* Gives them back. */
static void hlsnap__pool_end(hlsnap_pool *p) {
    const bool last = --p->refs == 0;
    pthread_mutex_unlock(&p->lock);
    if (last) hlsnap__pool_free(p, false);
}

static hlsnap_result hlsnap__pool_closed(const hlsnap_pool *p, const char *what, hlsnap_error *err) {
    return p->closed ? hlsnap__fail(err, HLSNAP_ERR_STATE, 0, "%s: the pool is being destroyed", what) : HLSNAP_OK;
}

/* Something came back, or is not awaited any more: all who wait look again, since it may be room for several. */
static void hlsnap__pool_returned(hlsnap_pool *p) {
    __atomic_fetch_add(&p->returns, 1, __ATOMIC_RELAXED);
    if (p->waiting) hlsnap__futex_wake(&p->returns, INT32_MAX);
}

static void hlsnap__pool_wake(hlsnap_pool *p) {
    __atomic_fetch_add(&p->work, 1, __ATOMIC_RELAXED);
    if (p->threaded) hlsnap__futex_wake(&p->work, 1);
}

static void hlsnap__pool_left(hlsnap_pool *p, uint64_t bytes, bool was) {
    pthread_mutex_lock(&p->lock);
    p->num--;
    p->stats.bytes -= bytes;
    p->stats.ended += was;
    hlsnap__pool_returned(p);
    hlsnap__pool_end(p); /* its own reference */
}

static bool hlsnap__pool_threaded(hlsnap_pool *p);

static hlsnap__shell *hlsnap__pool_shell(hlsnap_pool *p) {
    hlsnap__shell *shell = NULL;
    pthread_mutex_lock(&p->lock);
    if (p->num_warm) shell = p->warm[--p->num_warm];
    if (shell && hlsnap__pool_threaded(p)) hlsnap__pool_wake(p);
    pthread_mutex_unlock(&p->lock);
    return shell;
}

/* ---- the list of idle ones ---- */

static void hlsnap__pool_push(hlsnap_pool *p, hlsnap_sandbox *sb) {
    const uint64_t bytes = (uint64_t)sb->memory.num_hot * HLSNAP__PAGE;
    p->stats.bytes += bytes - sb->pooled.bytes;
    sb->pooled.bytes = bytes;
    sb->pooled.since_ns = hlsnap__now_ns();
    sb->pooled.next = p->idle;
    p->idle = sb;
    p->num_idle++;
    hlsnap__pool_returned(p);
}

static hlsnap_sandbox *hlsnap__pool_pop(hlsnap_pool *p, hlsnap_sandbox **at) {
    hlsnap_sandbox *sb = *at;
    *at = sb->pooled.next;
    sb->pooled.next = NULL;
    p->num_idle--;
    return sb;
}

/* Ends a list of sandboxes that were taken out; without the lock. */
static void hlsnap__pool_drop(hlsnap_sandbox *list) {
    while (list) {
        hlsnap_sandbox *next = list->pooled.next;
        hlsnap__sandbox_free(list);
        list = next;
    }
}

/* Takes out what nobody acquired for too long, and, the oldest first, what is beyond max_bytes. */
static hlsnap_sandbox *hlsnap__pool_expired(hlsnap_pool *p) {
    const uint64_t now = p->idle_ns ? hlsnap__now_ns() : 0;
    hlsnap_sandbox **at = &p->idle, *gone = NULL, *sb;
    uint64_t beyond = p->max_bytes && p->stats.bytes > p->max_bytes ? p->stats.bytes - p->max_bytes : 0, kept = 0;
    for (sb = p->idle; sb; sb = sb->pooled.next) kept += sb->pooled.bytes;
    kept = kept > beyond ? kept - beyond : 0; /* of the idle ones' bytes, the newest */
    while (*at) {
        const bool fits = !beyond || (*at)->pooled.bytes <= kept;
        if (fits) kept -= beyond ? (*at)->pooled.bytes : 0;
        if (fits && (!p->idle_ns || now - (*at)->pooled.since_ns < p->idle_ns)) {
            at = &(*at)->pooled.next;
            continue;
        }
        sb = hlsnap__pool_pop(p, at);
        p->stats.bytes -= sb->pooled.bytes;
        sb->pooled.bytes = 0;
        sb->pooled.next = gone;
        gone = sb;
    }
    return gone;
}

/* How near an idle sandbox is to what is wanted. */
typedef enum hlsnap__pool_rank {
    HLSNAP__POOL_OWN,   /* at the snapshot, and this thread used it last */
    HLSNAP__POOL_READY, /* at the snapshot */
    HLSNAP__POOL_DIRTY, /* it is to be put back to it */
    HLSNAP__POOL_SAME,  /* of the same guest, at another snapshot */
    HLSNAP__POOL_ANY,
    HLSNAP__POOL_NONE
} hlsnap__pool_rank;

/* The nearest one that belongs to the snapshot, of several the last. It looks at `pooled` alone: of many sandboxes anything else is
   in no cache. */
static hlsnap_sandbox **hlsnap__pool_find_at(hlsnap_pool *p, const hlsnap_snapshot *s, hlsnap__pool_rank *rank) {
    const void *thread = &errno;
    hlsnap_sandbox **at, **best = NULL;
    for (at = &p->idle; *at && *rank != HLSNAP__POOL_OWN; at = &(*at)->pooled.next) {
        const hlsnap__pooled *x = &(*at)->pooled;
        const hlsnap__pool_rank is = x->dirty              ? HLSNAP__POOL_DIRTY
                                     : x->thread == thread ? HLSNAP__POOL_OWN
                                                           : HLSNAP__POOL_READY;
        if (x->snapshot != s || is >= *rank) continue;
        *rank = is;
        best = at;
    }
    return best;
}

/* The nearest one; of those at other snapshots the one that is idle for longest. */
static hlsnap_sandbox **hlsnap__pool_find(hlsnap_pool *p, const hlsnap_snapshot *s, hlsnap__pool_rank *rank) {
    hlsnap_sandbox **at, **best;
    *rank = HLSNAP__POOL_NONE;
    best = hlsnap__pool_find_at(p, s, rank);
    for (at = best ? NULL : &p->idle; at && *at; at = &(*at)->pooled.next) {
        const hlsnap__layout *l = &(*at)->memory.layout;
        const hlsnap__pool_rank is = memcmp(l, &s->guest->layout, sizeof(*l)) == 0 ? HLSNAP__POOL_SAME : HLSNAP__POOL_ANY;
        if (is > *rank) continue;
        *rank = is;
        best = at;
    }
    return best;
}

static bool hlsnap__pool_grows(const hlsnap_pool *p) {
    return p->num < p->max && (!p->max_bytes || p->stats.bytes < p->max_bytes);
}

/* Whether a new one is worth its price by now. */
static bool hlsnap__pool_rather_new(hlsnap_pool *p, hlsnap__pool_rank rank) {
    if (rank == HLSNAP__POOL_NONE) return true;
    if (rank == HLSNAP__POOL_OWN || rank == HLSNAP__POOL_DIRTY) return false;
    p->steals += rank == HLSNAP__POOL_READY  ? HLSNAP__POOL_THREAD
                 : rank == HLSNAP__POOL_SAME ? HLSNAP__POOL_GUEST
                                             : HLSNAP__POOL_OTHER;
    if (p->steals < HLSNAP__POOL_NEW) return false;
    p->steals = 0;
    return true;
}

/* Waits until something comes back, *left of ns at most; with the lock, which it gives up meanwhile. */
static void hlsnap__pool_wait(hlsnap_pool *p, uint64_t *left) {
    const int32_t seen = __atomic_load_n(&p->returns, __ATOMIC_RELAXED);
    const uint64_t from = hlsnap__now_ns();
    uint64_t now, gone;
    p->waiting++;
    pthread_mutex_unlock(&p->lock);
    hlsnap__futex_wait(&p->returns, seen, *left);
    pthread_mutex_lock(&p->lock);
    p->waiting--;
    now = hlsnap__now_ns();
    gone = now == UINT64_MAX ? now : now - from; /* without a clock one wait is all */
    if (*left != UINT64_MAX) *left = gone < *left ? *left - gone : 0;
}

static hlsnap_result hlsnap__pool_busy(const hlsnap_pool *p, const char *what, hlsnap_error *err) {
    return hlsnap__fail(err, HLSNAP_ERR_BUSY, 0, "%s: %u sandboxes of at most %u, %u of them idle, %llu bytes of %llu",
                        what, p->num, p->max, p->num_idle, (unsigned long long)p->stats.bytes,
                        (unsigned long long)p->max_bytes);
}

/* Counts one more, which need not be there yet. */
static void hlsnap__pool_count(hlsnap_pool *p) {
    p->num++;
    p->refs++;
}

/* A place for a sandbox of somebody's own desc: an idle one makes room for it. */
static hlsnap_result hlsnap__pool_enter(hlsnap_pool *p, const hlsnap_sandbox_desc *d, hlsnap_error *err) {
    static const char what[] = "hlsnap_sandbox_create_from";
    const int32_t mine = d->cancel_signal ? d->cancel_signal : SIGURG;
    const int32_t its = p->desc.cancel_signal ? p->desc.cancel_signal : SIGURG;
    hlsnap_sandbox *gone = NULL, **at;
    uint64_t left = p->wait_ns, always = UINT64_MAX;
    hlsnap_result r;
    if (d->hypervisor != p->desc.hypervisor || mine != its)
        return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "sandbox desc: the pool has another hypervisor or cancel_signal");
    r = hlsnap__pool_begin(p, what, err);
    if (r) return r;
    while (!(r = hlsnap__pool_closed(p, what, err)) && !hlsnap__pool_grows(p) && !p->idle && (left || p->in_hand))
        hlsnap__pool_wait(p, p->in_hand ? &always : &left);
    if (!r && !hlsnap__pool_grows(p) && p->idle) {
        for (at = &p->idle; (*at)->pooled.next;) at = &(*at)->pooled.next;
        gone = hlsnap__pool_pop(p, at); /* it counts until it is ended: one more than max for a moment */
    } else if (!r && !hlsnap__pool_grows(p))
        r = hlsnap__pool_busy(p, what, err);
    if (!r) hlsnap__pool_count(p);
    hlsnap__pool_end(p);
    hlsnap__pool_drop(gone);
    return r;
}

/* ---- putting back ---- */

static hlsnap_result hlsnap__pool_put_back(const hlsnap_pool *p, hlsnap_sandbox *sb) {
    const uint64_t from = hlsnap__now_ns();
    hlsnap_result r;
    if (p->retire) hlsnap_sandbox_retire(sb);
    r = hlsnap_sandbox_restore(sb, sb->pooled.snapshot, NULL);
    sb->pooled.cost_ns = hlsnap__now_ns() - from;
    sb->pooled.dirty = false;
    return r;
}

/* One that is idle, to the snapshot that is wanted. */
static hlsnap_result hlsnap__pool_move(const hlsnap_pool *p, hlsnap_sandbox *sb, hlsnap_snapshot *s,
                                       hlsnap_error *err) {
    if (p->retire && sb->pooled.dirty) hlsnap_sandbox_retire(sb); /* else it was */
    return hlsnap_sandbox_restore(sb, s, err);
}

static void hlsnap__pool_warm(hlsnap_pool *p) {
    hlsnap__shell *shell = NULL;
    hlsnap_result r;
    pthread_mutex_unlock(&p->lock);
    r = p->desc.hypervisor->shell_create(p->desc.hypervisor, p->desc.cancel_signal ? p->desc.cancel_signal : SIGURG,
                                         HLSNAP_CPU_HOST, &shell, NULL);
    pthread_mutex_lock(&p->lock);
    if (r) p->retry_ns = hlsnap__now_ns() + HLSNAP__POOL_RETRY_NS;
    if (!r && p->num_warm < p->want_warm) {
        p->warm[p->num_warm++] = shell;
    } else if (!r) { /* trimmed meanwhile */
        pthread_mutex_unlock(&p->lock);
        p->desc.hypervisor->shell_destroy(shell, false);
        pthread_mutex_lock(&p->lock);
    }
}

/* Without the lock, but for the beginning and the end. */
static void hlsnap__pool_put_back_there(hlsnap_pool *p, hlsnap_sandbox *sb) {
    bool lost;
    p->in_hand = sb;
    pthread_mutex_unlock(&p->lock);
    lost = hlsnap__pool_put_back(p, sb) != HLSNAP_OK;
    pthread_mutex_lock(&p->lock);
    p->in_hand = NULL;
    if (!lost && !sb->pooled.changed) {
        hlsnap__pool_push(p, sb);
        return;
    }
    hlsnap__pool_returned(p); /* it does not, and was waited for */
    pthread_mutex_unlock(&p->lock);
    hlsnap__sandbox_free(sb);
    pthread_mutex_lock(&p->lock);
}

/* Does one thing, if there is one; with the lock. */
static bool hlsnap__pool_do(hlsnap_pool *p) {
    hlsnap_sandbox **at = &p->idle, *gone = hlsnap__pool_expired(p);
    if (gone) {
        pthread_mutex_unlock(&p->lock);
        hlsnap__pool_drop(gone);
        pthread_mutex_lock(&p->lock);
        return true;
    }
    while (*at && !(*at)->pooled.dirty) at = &(*at)->pooled.next;
    if (*at) {
        hlsnap__pool_put_back_there(p, hlsnap__pool_pop(p, at));
        return true;
    }
    if (p->num_warm >= p->want_warm || (p->retry_ns && hlsnap__now_ns() < p->retry_ns)) return false;
    hlsnap__pool_warm(p);
    return true;
}

/* ns until something is to be done that nobody will tell of. */
static uint64_t hlsnap__pool_rests(const hlsnap_pool *p) {
    const uint64_t now = hlsnap__now_ns();
    uint64_t ns = UINT64_MAX;
    const hlsnap_sandbox *sb;
    for (sb = p->idle_ns ? p->idle : NULL; sb; sb = sb->pooled.next) {
        const uint64_t gone = now - sb->pooled.since_ns, left = gone < p->idle_ns ? p->idle_ns - gone : 1;
        if (left < ns) ns = left;
    }
    return p->num_warm < p->want_warm && ns > HLSNAP__POOL_RETRY_NS ? HLSNAP__POOL_RETRY_NS : ns;
}

static void *hlsnap__pool_run(void *user) {
    hlsnap_pool *p = (hlsnap_pool *)user;
    pthread_mutex_lock(&p->lock);
    while (!p->closed) {
        const int32_t seen = __atomic_load_n(&p->work, __ATOMIC_RELAXED);
        uint64_t ns;
        if (hlsnap__pool_do(p)) continue;
        ns = hlsnap__pool_rests(p);
        p->wakes_ns = ns == UINT64_MAX ? ns : hlsnap__now_ns() + ns;
        pthread_mutex_unlock(&p->lock);
        hlsnap__futex_wait(&p->work, seen, ns);
        pthread_mutex_lock(&p->lock);
        p->wakes_ns = 0;
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

/* Whether the pool's thread is there; it is started when it is asked for. With the lock. */
static bool hlsnap__pool_threaded(hlsnap_pool *p) {
    sigset_t blocked, old;
    if (p->threaded || p->closed || !hlsnap__thread_create || !hlsnap__thread_join) return p->threaded;
    hlsnap__thread_signals(&blocked);
    /* the thread's, which the new one inherits; an older libc has the other function elsewhere */
    if (sigprocmask(SIG_SETMASK, &blocked, &old)) return false;
    p->threaded = hlsnap__thread_create(&p->thread, NULL, hlsnap__pool_run, p) == 0;
    sigprocmask(SIG_SETMASK, &old, NULL);
    return p->threaded;
}

/* ---- the public functions ---- */

/* The desc's host functions, with their texts. */
static hlsnap_result hlsnap__pool_functions(hlsnap_pool *p, const hlsnap_sandbox_desc *d, hlsnap_error *err) {
    hlsnap__host_function *rows;
    const hlsnap_result r = hlsnap__host_functions_copy(d->functions, d->num_functions, &rows, err);
    size_t i, size = d->num_functions * sizeof(hlsnap_function);
    char *text;
    if (r) return r;
    hlsnap__free(rows);
    for (i = 0; i < d->num_functions; i++) size += strlen(d->functions[i].name) + strlen(d->functions[i].signature) + 2;
    p->functions = (hlsnap_function *)hlsnap__alloc(1, size + 1, err);
    if (!p->functions) return HLSNAP_ERR_MEMORY;
    text = (char *)(p->functions + d->num_functions);
    for (i = 0; i < d->num_functions; i++) {
        const size_t name = strlen(d->functions[i].name) + 1, signature = strlen(d->functions[i].signature) + 1;
        p->functions[i] = d->functions[i];
        p->functions[i].name = (const char *)memcpy(text, d->functions[i].name, name);
        p->functions[i].signature = (const char *)memcpy(text + name, d->functions[i].signature, signature);
        text += name + signature;
    }
    p->desc = *d;
    p->desc.functions = p->functions;
    return HLSNAP_OK;
}

static size_t hlsnap__map_texts(const hlsnap_map *map) {
    return (map->name ? strlen(map->name) + 1 : 0) + (map->path ? strlen(map->path) + 1 : 0) +
           (map->digest ? strlen(map->digest) + 1 : 0);
}

static const char *hlsnap__text_keep(char **to, const char *text) {
    const size_t size = text ? strlen(text) + 1 : 0;
    const char *at = text ? *to : NULL;
    if (text) memcpy(*to, text, size);
    *to += size;
    return at;
}

/* And its maps. What is wrong with them, the first sandbox says. */
static hlsnap_result hlsnap__pool_maps(hlsnap_pool *p, const hlsnap_sandbox_desc *d, hlsnap_error *err) {
    size_t i, size = d->num_maps * sizeof(hlsnap_map);
    char *text;
    p->desc.maps = NULL;
    if (!d->num_maps) return HLSNAP_OK;
    if (d->num_maps > HLSNAP_MAX_MAPS)
        return hlsnap__fail(err, HLSNAP_ERR_LIMIT, 0, "%zu maps, at most %d", d->num_maps, HLSNAP_MAX_MAPS);
    for (i = 0; i < d->num_maps; i++) size += hlsnap__map_texts(&d->maps[i]);
    p->maps = (hlsnap_map *)hlsnap__alloc(1, size, err);
    if (!p->maps) return HLSNAP_ERR_MEMORY;
    text = (char *)(p->maps + d->num_maps);
    for (i = 0; i < d->num_maps; i++) {
        p->maps[i] = d->maps[i];
        p->maps[i].name = hlsnap__text_keep(&text, d->maps[i].name);
        p->maps[i].path = hlsnap__text_keep(&text, d->maps[i].path);
        p->maps[i].digest = hlsnap__text_keep(&text, d->maps[i].digest);
    }
    p->desc.maps = p->maps;
    return HLSNAP_OK;
}

static hlsnap_result hlsnap__pool_desc_check(const hlsnap_pool_desc *d, hlsnap_error *err) {
    hlsnap_result r;
    if (!d || d->_start_canary || d->_end_canary)
        return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "pool desc is NULL or was not initialised with HLSNAP_ZERO");
    r = hlsnap__sandbox_desc_check(d->sandbox, err);
    if (!r && d->sandbox->pool) r = hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "pool desc: its sandbox desc has a pool");
    if (!r && d->warm > (d->max_sandboxes ? d->max_sandboxes : 64))
        r = hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "pool desc: warm=%u, max_sandboxes=%u", d->warm, d->max_sandboxes);
    return r;
}

HLSNAP_API hlsnap_result hlsnap_pool_create(const hlsnap_pool_desc *desc, hlsnap_pool **out, hlsnap_error *err) {
    hlsnap_pool *p;
    hlsnap_result r = out ? HLSNAP_OK : hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "hlsnap_pool_create: out is NULL");
    if (out) *out = NULL;
    if (!r) r = hlsnap__pool_desc_check(desc, err);
    if (r) return r;
    p = (hlsnap_pool *)hlsnap__alloc(1, sizeof(*p), err);
    if (!p) return HLSNAP_ERR_MEMORY;
    p->pid = getpid();
    p->refs = 1;
    p->max = desc->max_sandboxes ? desc->max_sandboxes : 64;
    p->want_warm = desc->warm;
    p->max_bytes = desc->max_bytes;
    p->wait_ns = desc->wait_ns;
    p->idle_ns = desc->idle_ns;
    p->retire = desc->retire;
    pthread_mutex_init(&p->lock, NULL);
    r = hlsnap__pool_functions(p, desc->sandbox, err);
    if (!r) r = hlsnap__pool_maps(p, desc->sandbox, err);
    if (!r) p->warm = (hlsnap__shell **)hlsnap__alloc(desc->warm, sizeof(*p->warm), err);
    if (!r && !p->warm) r = HLSNAP_ERR_MEMORY;
    while (!r && p->num_warm < p->want_warm) {
        r = p->desc.hypervisor->shell_create(p->desc.hypervisor, p->desc.cancel_signal ? p->desc.cancel_signal : SIGURG,
                                             HLSNAP_CPU_HOST, &p->warm[p->num_warm], err);
        p->num_warm += !r;
    }
    if (r)
        hlsnap__pool_free(p, false);
    else
        *out = p;
    return r;
}

/* What the acquire gives out: an idle one, or NULL: one is to be made, and has its place. With the lock. */
static hlsnap_result hlsnap__pool_take(hlsnap_pool *p, const hlsnap_snapshot *s, const char *what, hlsnap_sandbox **out,
                                       hlsnap__pool_rank *rank, hlsnap_error *err) {
    uint64_t left = p->wait_ns, always = UINT64_MAX;
    bool waited = false;
    *out = NULL;
    for (;;) {
        hlsnap_sandbox **at = hlsnap__pool_find(p, s, rank);
        const hlsnap_result r = hlsnap__pool_closed(p, what, err);
        if (r) return r;
        if (hlsnap__pool_grows(p) && hlsnap__pool_rather_new(p, *rank)) {
            *rank = HLSNAP__POOL_NONE;
            hlsnap__pool_count(p);
            return HLSNAP_OK;
        }
        if (at) {
            *out = hlsnap__pool_pop(p, at);
            return HLSNAP_OK;
        }
        if (!left && !p->in_hand) {
            p->stats.refused++;
            return hlsnap__pool_busy(p, what, err);
        }
        p->stats.waited += !waited;
        waited = true;
        hlsnap__pool_wait(p, p->in_hand ? &always : &left);
    }
}

/* It is the caller's from here on. */
static void hlsnap__pool_give(hlsnap_sandbox *sb, hlsnap_snapshot *s) {
    if (sb->pooled.snapshot != s) {
        hlsnap_snapshot_retain(s);
        hlsnap_snapshot_release(sb->pooled.snapshot);
        sb->pooled.snapshot = s;
        sb->pooled.cost_ns = 0;
    }
    sb->pooled.acquired = true;
    sb->pooled.dirty = false;
    sb->pooled.thread = &errno;
    memset(&sb->stats, 0, sizeof(sb->stats));
    sb->memory.copied_bytes = 0;
}

/* An idle one, to the snapshot that is wanted. What refuses that without having touched it, stays idle. */
static hlsnap_result hlsnap__pool_moved(hlsnap_pool *p, hlsnap_sandbox *sb, hlsnap_snapshot *s, hlsnap_error *err) {
    const hlsnap_result r = hlsnap__pool_move(p, sb, s, err);
    if (r && hlsnap__state(sb) == HLSNAP_READY) {
        pthread_mutex_lock(&p->lock);
        if (!p->closed) {
            hlsnap__pool_push(p, sb);
            sb = NULL;
        }
        pthread_mutex_unlock(&p->lock);
    }
    if (r && sb) hlsnap__sandbox_free(sb);
    return r;
}

/* A new one; where there is none to be had just now, an idle one all the same. */
static hlsnap_result hlsnap__pool_made(hlsnap_pool *p, hlsnap_snapshot *s, hlsnap_sandbox **out,
                                       hlsnap__pool_rank *rank, hlsnap_error *err) {
    hlsnap_sandbox **at, *sb = NULL;
    hlsnap_error why;
    hlsnap_result r = hlsnap__sandbox_make(s, &p->desc, p, out, &why);
    if (r && err) *err = why;
    if (!r || !hlsnap_result_transient(&why)) return r;
    pthread_mutex_lock(&p->lock);
    at = hlsnap__pool_find(p, s, rank);
    if (at) sb = hlsnap__pool_pop(p, at);
    pthread_mutex_unlock(&p->lock);
    if (!sb) return r;
    *out = sb;
    return *rank > HLSNAP__POOL_READY ? hlsnap__pool_moved(p, sb, s, err) : HLSNAP_OK;
}

HLSNAP_API hlsnap_result hlsnap_pool_acquire(hlsnap_pool *p, hlsnap_snapshot *snapshot, hlsnap_sandbox **out,
                                             hlsnap_error *err) {
    static const char what[] = "hlsnap_pool_acquire";
    hlsnap__pool_rank rank = HLSNAP__POOL_NONE;
    hlsnap_sandbox *sb = NULL;
    hlsnap_result r = HLSNAP_OK;
    if (out) *out = NULL;
    if (!out || !snapshot)
        return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "%s: %s is NULL", what, out ? "the snapshot" : "out");
    r = hlsnap__pool_begin(p, what, err);
    if (r) return r;
    r = hlsnap__pool_take(p, snapshot, what, &sb, &rank, err);
    if (!r) {
        pthread_mutex_unlock(&p->lock);
        if (!sb)
            r = hlsnap__pool_made(p, snapshot, &sb, &rank, err);
        else if (rank > HLSNAP__POOL_READY)
            r = hlsnap__pool_moved(p, sb, snapshot, err);
        if (!r) hlsnap__pool_give(sb, snapshot);
        pthread_mutex_lock(&p->lock);
    }
    if (!r) {
        p->stats.acquired++;
        p->stats.ready += rank <= HLSNAP__POOL_DIRTY;
        p->stats.moved += rank == HLSNAP__POOL_SAME || rank == HLSNAP__POOL_ANY;
        p->stats.made += rank == HLSNAP__POOL_NONE;
        *out = sb;
    }
    hlsnap__pool_end(p);
    return r;
}

/* The thread would sleep for longer than this one may be idle. */
static bool hlsnap__pool_too_late(const hlsnap_pool *p, const hlsnap_sandbox *sb) {
    return p->idle_ns < UINT64_MAX - sb->pooled.since_ns && sb->pooled.since_ns + p->idle_ns < p->wakes_ns;
}

/* Takes a reference, and decides who puts it back; false: it was not acquired. */
static bool hlsnap__pool_given_back(hlsnap_pool *p, hlsnap_sandbox *sb) {
    bool was;
    pthread_mutex_lock(&p->lock);
    was = sb->pooled.acquired;
    sb->pooled.acquired = false;
    if (was) p->refs++;
    if (was) /* a pre-init snapshot runs its guest, whose host functions and log are this thread's */
        sb->pooled.dirty = sb->pooled.cost_ns > HLSNAP__POOL_SLOW_NS && sb->pooled.snapshot->guest->initialized &&
                           hlsnap__pool_threaded(p);
    if (p->closed) sb->pooled.changed = true;
    pthread_mutex_unlock(&p->lock);
    return was;
}

HLSNAP_API void hlsnap_pool_release(hlsnap_pool *p, hlsnap_sandbox *sb) {
    hlsnap_sandbox *gone = NULL;
    bool lost;
    if (!p || !sb || sb->pooled.pool != p) return;
    if (hlsnap__forked(sb) || hlsnap__state(sb) == HLSNAP_BUSY) {
        hlsnap_sandbox_destroy(sb);
        return;
    }
    if (!hlsnap__pool_given_back(p, sb)) return;
    hlsnap_sandbox_set_log(sb, p->desc.log_level, p->desc.log, p->desc.log_user);
    hlsnap_sandbox_set_output(sb, p->desc.output, p->desc.output_user);
    lost = sb->pooled.changed;
    if (!lost && __atomic_load_n(&sb->interrupt->refs, __ATOMIC_ACQUIRE) != 1)
        lost = hlsnap__interrupt_make(sb, NULL) != HLSNAP_OK;
    if (!lost && !sb->pooled.dirty) lost = hlsnap__pool_put_back(p, sb) != HLSNAP_OK;
    if (lost) hlsnap__sandbox_free(sb);
    pthread_mutex_lock(&p->lock);
    if (!lost && p->closed) {
        gone = sb;
    } else if (!lost) {
        hlsnap__pool_push(p, sb);
        if (sb->pooled.dirty || (p->idle_ns && hlsnap__pool_threaded(p) && hlsnap__pool_too_late(p, sb)))
            hlsnap__pool_wake(p);
        if (p->max_bytes || (p->idle_ns && !p->threaded)) gone = hlsnap__pool_expired(p);
    }
    hlsnap__pool_end(p);
    hlsnap__pool_drop(gone);
}

HLSNAP_API hlsnap_result hlsnap_pool_prefetch(hlsnap_pool *p, hlsnap_snapshot *snapshot, uint32_t sandboxes,
                                              hlsnap_error *err) {
    static const char what[] = "hlsnap_pool_prefetch";
    hlsnap_sandbox *sb, *gone = NULL;
    hlsnap_result r;
    if (!snapshot) return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "%s: the snapshot is NULL", what);
    r = hlsnap__pool_begin(p, what, err);
    if (r) return r;
    for (;;) {
        uint32_t there = 0;
        for (sb = p->idle; sb; sb = sb->pooled.next) there += sb->pooled.snapshot == snapshot;
        r = hlsnap__pool_closed(p, what, err);
        if (r || there >= sandboxes) break;
        if (!hlsnap__pool_grows(p)) r = hlsnap__pool_busy(p, what, err);
        if (r) break;
        hlsnap__pool_count(p);
        pthread_mutex_unlock(&p->lock);
        r = hlsnap__sandbox_make(snapshot, &p->desc, p, &sb, err);
        if (!r) hlsnap__pool_give(sb, snapshot);
        pthread_mutex_lock(&p->lock);
        if (r) break;
        sb->pooled.thread = NULL;
        sb->pooled.acquired = false;
        if (p->closed) {
            gone = sb;
            continue; /* which says so */
        }
        hlsnap__pool_push(p, sb);
    }
    if (!gone && p->max_bytes) gone = hlsnap__pool_expired(p);
    if (p->idle_ns && p->num_idle && hlsnap__pool_threaded(p)) hlsnap__pool_wake(p);
    hlsnap__pool_end(p);
    hlsnap__pool_drop(gone);
    return r;
}

HLSNAP_API void hlsnap_pool_trim(hlsnap_pool *p, hlsnap_snapshot *snapshot) {
    hlsnap_sandbox **at, *sb, *gone = NULL;
    if (hlsnap__pool_begin(p, "", NULL)) return;
    for (at = &p->idle; *at;) {
        if (snapshot && (*at)->pooled.snapshot != snapshot) {
            at = &(*at)->pooled.next;
            continue;
        }
        sb = hlsnap__pool_pop(p, at);
        sb->pooled.next = gone;
        gone = sb;
    }
    if (p->in_hand && (!snapshot || p->in_hand->pooled.snapshot == snapshot)) p->in_hand->pooled.changed = true;
    if (!snapshot) p->want_warm = 0;
    while (!snapshot && p->num_warm) {
        hlsnap__shell *shell = p->warm[--p->num_warm];
        pthread_mutex_unlock(&p->lock);
        p->desc.hypervisor->shell_destroy(shell, false);
        pthread_mutex_lock(&p->lock);
    }
    hlsnap__pool_end(p);
    hlsnap__pool_drop(gone);
}

HLSNAP_API void hlsnap_pool_get_stats(hlsnap_pool *p, hlsnap_pool_stats *out) {
    static const hlsnap_pool_stats none = HLSNAP_ZERO;
    if (!out) return;
    *out = none;
    if (hlsnap__pool_begin(p, "", NULL)) return;
    *out = p->stats;
    out->sandboxes = p->num;
    out->idle = p->num_idle;
    hlsnap__pool_end(p);
}

HLSNAP_API void hlsnap_pool_destroy(hlsnap_pool *p) {
    hlsnap_sandbox *gone;
    bool threaded;
    if (!p) return;
    if (p->pid != getpid()) { /* its lock may be another thread's that this process does not have */
        hlsnap__pool_drop(p->idle);
        hlsnap__pool_free(p, true);
        return;
    }
    pthread_mutex_lock(&p->lock);
    p->closed = true;
    gone = p->idle;
    p->idle = NULL;
    p->num_idle = 0;
    threaded = p->threaded;
    hlsnap__pool_wake(p);
    hlsnap__pool_returned(p);
    pthread_mutex_unlock(&p->lock);
    if (threaded) hlsnap__thread_join(p->thread, NULL);
    hlsnap__pool_drop(gone);
    pthread_mutex_lock(&p->lock);
    gone = p->idle; /* what the thread put back last */
    p->idle = NULL;
    hlsnap__pool_end(p);
    hlsnap__pool_drop(gone);
}

#endif /* HLSNAP_GUEST */
#ifdef __cplusplus
} /* extern "C" */
#endif
#endif /* HLSNAP_IMPLEMENTATION_ONCE */
#endif /* HLSNAP_IMPLEMENTATION */

/* MIT License. Copyright (c) 2026 the hlsnap authors

   Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation
   files (the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy,
   modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the
   Software is furnished to do so, subject to the following conditions:

   The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
   Software.

   THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
   WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
   COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE,
   ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE. */
