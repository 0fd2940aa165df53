/* hlsnap_oci.h - v0.3.0 - hlsnap snapshots on disk, as OCI Image Layouts. License: MIT, end of file.

Do this, in the one C or C++ file that implements hlsnap:

    #define HLSNAP_IMPLEMENTATION
    #include "hlsnap.h"
    #include "hlsnap_kvm.h"
    #include "hlsnap_oci.h"    // cc main.c -lcjson

and include the header plainly everywhere else. It lies beside hlsnap.h, of the same release.

OPTIONS             default            where to define it
  HLSNAP_CJSON_H         <cjson/cJSON.h>   beside HLSNAP_IMPLEMENTATION; "cJSON.h" for a copy in your tree; 1.7.13 or later
  all options of hlsnap.h

QUICK START
    hlsnap_oci_digest digest;
    if (hlsnap_oci_save("store", "v1", snapshot, NULL, &digest, &err)) puts(err.msg);
    ...                                                                  // later, elsewhere
    if (hlsnap_oci_load("store", "v1", NULL, &snapshot, NULL, &err)) puts(err.msg);
    else if (hlsnap_sandbox_create_from(snapshot, &desc, &sb, &err)) puts(err.msg);

    "store" is an OCI Image Layout: skopeo copy oci:store:v1 docker://registry/name:v1 moves it, and back, unchanged.

ERRORS
    As in hlsnap.h. The text names the file, the place in its JSON, what was expected and what was found. Whatever stands
    in a layout costs bounded time and memory and an error, never more. A digest that matches proves that nothing was
    damaged on the way; it does not prove who wrote it: sign the manifest's digest where that matters.

THREADS
    In the child of a fork() a snapshot goes on as in its parent; what verify_later had not verified by then, the child
    verifies for itself, with threads of its own, when it first needs to know.
    No global state of its own: any number of saves and loads, of one layout or several, in threads or processes. Saves
    into one layout are safe against each other and against loads (a lock file and atomic renames). One thing to know:
    cJSON stores the place of its last parse error in a global variable, so loads in two threads at once make a data race
    that nothing reads; a race detector sees it.

MEMORY
    From HLSNAP_MALLOC, but for what cJSON takes while a call lasts. A load keeps an open file for each layer: a clone or a
    sealed memfd (guard PRIVATE), or the blob itself; with verify_later also the chunk lists and a thread, until it is done.

LIMITS
    32,768 runs of pages, 128 layers, JSON of 1 MiB.
    index.json: 64 MiB are read, saves and tags let it grow to 32 MiB, some 80,000 tags; removing them works beyond that.
    Blobs are memory dumps of the guest: files are 0600, directories 0700. Where the directory is its group's to write, or has
    a default ACL, they are that group's, too (0660, 0770), and where it is another user's, that user's: root takes nobody's
    store away. A new index.json has owner, group, permissions and ACL of the old one, or is refused. desc->mode: otherwise.
    Of a snapshot at most 2,048 runs are mapped, the others copied. Threads need -pthread with glibc before 2.34.
    Writers need byte-range locks (OFD) that they share: all go through one mount of the directory. Two mounts of a FUSE file
    system, such a mount and what lies below it, and an overlayfs and its layers do not share them, nor do two machines on NFS
    with nolock; that cannot be seen from here, and tags are lost. No hard links, O_TMPFILE or modes are needed. rclone mount
    holds layouts for reading only: it answers links and ACLs by EIO, as a broken disk does.

SEE docs/snapshot-format.md, docs/security.md. Search for ">>" to jump. */

#if defined(HLSNAP_IMPLEMENTATION) && !defined(_DEFAULT_SOURCE)
#define _DEFAULT_SOURCE 1 /* as in hlsnap.h */
#endif

#include "hlsnap.h"

#ifndef HLSNAP_OCI_H
#define HLSNAP_OCI_H

#if HLSNAP_VERSION != 3000 /* 0.3.0 */
#error "hlsnap.h and hlsnap_oci.h are of different releases"
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ==== >>oci: dir is an OCI Image Layout; ref is a tag or "sha256:<64 hex>", or a name such as "host/app:v1", which other tools
   write ==== */

#define HLSNAP_OCI_INDEX_MAX (32u << 20) /* bytes to which saves and tags let index.json grow: some 80,000 tags */

typedef struct hlsnap_oci_digest { char text[72]; } hlsnap_oci_digest; /* of a manifest: "sha256:<64 lowercase hex>" */

/* Called now and then on the calling thread with bytes of guest memory that were read, hashed or written; false cancels. A save's
   total grows when it finds that there is more to do. Not for what verify_later puts off. While a layout is saved to, it must not
   change that layout, nor wait for somebody who does. While a call waits for another writer it is called with done 0 and total
   UINT64_MAX, every 10 ms or sooner. */
typedef bool (*hlsnap_oci_progress)(uint64_t done, uint64_t total, void *user);

/* What protects a loaded snapshot from changes of its files. */
typedef enum hlsnap_oci_guard {
    HLSNAP_OCI_GUARD_DEFAULT,  /* PRIVATE */
    HLSNAP_OCI_GUARD_NONE,     /* the file itself is mapped: no copy; nobody may ever write to or truncate it */
    HLSNAP_OCI_GUARD_DETECT,   /* as NONE, and looked at: a change is HLSNAP_ERR_CHANGED before what the guest did counts */
    HLSNAP_OCI_GUARD_LEASE,    /* as DETECT, and who opens the file for writing waits until this process has noticed; PRIVATE
                                  where that cannot be had: another's file, or somebody writes already */
    HLSNAP_OCI_GUARD_PRIVATE,  /* a clone where the file system can, else a sealed copy; what was verified is what runs */
    HLSNAP_OCI_GUARD_FORCE32 = 0x7fffffff
} hlsnap_oci_guard;

/* Something that hlsnap_oci_fsck found; it lives for the call. */
typedef struct hlsnap_oci_problem {
    hlsnap_result code;        /* as hlsnap_oci_fsck returns it where this is the first one */
    int os_errno;              /* as in hlsnap_error */
    bool repaired;             /* it is not there any more, and does not count for the result */
    const char *ref;           /* of an entry that leads there, as the index has it, whatever characters; "" = none is known */
    const char *digest;        /* of the manifest or blob that it is about; "" = a file of another name, which text says */
    const char *text;          /* what is wrong, one line of printable ASCII below 512 bytes, names in it perhaps cut */
} hlsnap_oci_problem;

/* Called on the calling thread for each problem, once, as it is found; false cancels. There may be as many as there are files and
   entries: who writes them down sees to it that it is not too much. It must not change that layout, nor wait for somebody who
   does. */
typedef bool (*hlsnap_oci_on_problem)(const hlsnap_oci_problem *problem, void *user);

typedef struct hlsnap_oci_cache hlsnap_oci_cache; /* what loads share: >>cache */

typedef struct hlsnap_oci_desc {
    uint32_t _start_canary;
    hlsnap_oci_guard guard;    /* load: what protects the files in use; 0 = PRIVATE; save: not looked at */
    bool disable_verify;       /* load: trust that content matches its digests; structure is checked all the same */
    bool verify_later;         /* load: return before content is verified and go on in a thread. The guest can run, but its first
                                  host call, log line or result waits (not beyond the call's time limit), and is an error where
                                  a byte is wrong */
    bool any_cpu;              /* load: to look at, also what this CPU cannot run; to start it is HLSNAP_ERR_CPU all the same */
    uint32_t threads;          /* for hashing what is there, at most 64; 0 = 1 */
    uint64_t max_bytes;        /* load: refuse a snapshot whose memory layers are larger, together, before they are read; save:
                                  refuse to read and hash again more than that of what was loaded; 0 = what the format allows */
    hlsnap_oci_progress progress; void *user; /* NULL = none */
    hlsnap_oci_on_problem on_problem; /* fsck, with the same user; NULL = only the first one is told, by err */
    int64_t created;           /* save: seconds since 1970, written into manifest and index; 0 = the time of the save, only into the
                                  index, so that equal snapshots have equal digests; -1 = none */
    uint32_t mode;             /* save: permissions of the files written, such as 0644 to publish to other users; a directory that
                                  is made gets x for each r; 0 = 0600, 0660 where the directory is shared by its group: LIMITS */
    uint64_t wait_ns;          /* save and other changes: longest wait for other writers, in all; then HLSNAP_ERR_OS with EAGAIN;
                                  0 = as long as it takes */
    hlsnap_oci_cache *cache;   /* load: share what was verified and parsed with other loads that have it; NULL = with nobody */
    hlsnap_prefault prefault;  /* load: as in the guest desc, which is not in a layout; of snapshots of its sandboxes, too */
    uint32_t _end_canary;
} hlsnap_oci_desc;

/* hlsnap_oci_save -- write a snapshot into a layout under a tag.
   dir       in     the layout's directory; made when it is missing (not its parent); one that is there must be a sound
                    layout or hold neither oci-layout nor index.json
   tag       in     [A-Za-z0-9_][A-Za-z0-9._-]{0,127}; a tag that is there is moved, its old manifest stays untagged
   s         in     snapshot of an initialized guest; not NULL
   desc      in     NULL = defaults
   out       out    digest of the manifest, good for hlsnap_oci_load; may be NULL
   err       out    may be NULL
   returns   HLSNAP_OK: the snapshot is on stable storage, complete; HLSNAP_ERR_ARG (tag, canary, NULL);
             HLSNAP_ERR_STATE (a pre-init snapshot); HLSNAP_ERR_LAYOUT, _INDEX, _JSON, _FILE (what is there is not sound, or its
             index is lost; it is left alone); HLSNAP_ERR_LIMIT (the index would pass 32 MiB; desc->max_bytes);
             HLSNAP_ERR_CANCELLED (by desc->progress);
             HLSNAP_ERR_CHANGED (the files of an unguarded snapshot); HLSNAP_ERR_CPU (it needs features that this version has
             no names for); HLSNAP_ERR_OS, _MEMORY; of these EPERM: index.json is somebody's who could not use the new one. After
             a failure the directory is as it was; only when the very last step fails, an fsync, may the tag have moved.
   threads   any; savers of one layout wait for each other, briefly, at the end, and for a gc: desc->wait_ns; desc->threads of its
             own, for the time of the call, all signals blocked but those of faults
   cost      two sha256 and one write of the pages that the layout has not (as far as this process loaded or saved them), fsync.
             Of a chain, small layers are written again, merged, when there would be more than 32: a page about as often as the
             number of layers doubles; the whole image when the rest is more than half as large as the base.
             The first save over a blob that was loaded reads and hashes that one whole, as progress says, which may cancel it;
             on one thread, others hash other blobs, and chunks unless the load verified all of them and the file is the same.
             With desc->max_bytes it is HLSNAP_ERR_LIMIT, before it is read, when all such blobs together are larger
   spec      docs/snapshot-format.md  */
HLSNAP_API HLSNAP_MUST hlsnap_result hlsnap_oci_save(const char *dir, const char *tag, hlsnap_snapshot *s,
                                                     const hlsnap_oci_desc *desc, hlsnap_oci_digest *out,
                                                     hlsnap_error *err);

/* hlsnap_oci_load -- read a snapshot from a layout.
   dir       in     the layout's directory; only read, so a read-only file system will do
   ref       in     a tag, of any text that other tools may have given it, or the digest of a manifest that the index lists;
                    what looks like a digest is one
   desc      in     NULL = defaults
   out       out    the snapshot; NULL on failure
   digest    out    digest of the manifest, that is, what the tag meant; may be NULL
   err       out    may be NULL
   returns   HLSNAP_OK; HLSNAP_ERR_ARG (ref, canary, NULL); HLSNAP_ERR_NOT_FOUND (the tag or digest, or there is no layout: nothing
             of that name was saved, so that one may start afresh);
             HLSNAP_ERR_AMBIGUOUS; HLSNAP_ERR_LAYOUT, _INDEX, _MANIFEST, _CONFIG (content
             of these files), HLSNAP_ERR_JSON (not strict JSON); HLSNAP_ERR_MEDIA_TYPE (something else than a snapshot);
             HLSNAP_ERR_FILE (a blob or the index is lost; or a symlink, directory, device); HLSNAP_ERR_SIZE, _DIGEST (a blob and
             its descriptor differ); HLSNAP_ERR_LIMIT (JSON beyond 1 MiB, an index beyond 64 MiB; desc->max_bytes);
             HLSNAP_ERR_CHANGED (while it was read);
             HLSNAP_ERR_VERSION, _ARCH, _CPU (not for this build or machine); HLSNAP_ERR_CANCELLED; HLSNAP_ERR_OS, _MEMORY
   owns      the caller: hlsnap_snapshot_release
   threads   any; desc->threads of its own, for the time of the call or until verified (verify_later), all signals
             blocked but those of faults
   cost      read, sha256 and, at PRIVATE, copy of the stored pages; guard NONE with disable_verify: a few small files
   spec      docs/snapshot-format.md  */
HLSNAP_API HLSNAP_MUST hlsnap_result hlsnap_oci_load(const char *dir, const char *ref, const hlsnap_oci_desc *desc,
                                                     hlsnap_snapshot **out, hlsnap_oci_digest *digest,
                                                     hlsnap_error *err);

/* hlsnap_oci_resolve -- what a tag means now: whether it moved is to be known without a load.
   dir, ref  in     as for hlsnap_oci_load
   out       out    digest of the manifest that hlsnap_oci_load would read; not NULL
   err       out    may be NULL
   returns   HLSNAP_OK: the index says so; nothing beyond it was looked at; HLSNAP_ERR_ARG; HLSNAP_ERR_NOT_FOUND, _AMBIGUOUS;
             HLSNAP_ERR_LAYOUT, _INDEX, _JSON, _MEDIA_TYPE (something else than a manifest), _FILE, _LIMIT, _CHANGED, _OS, _MEMORY
   threads   any
   cost      reads oci-layout and index.json  */
HLSNAP_API hlsnap_result hlsnap_oci_resolve(const char *dir, const char *ref, hlsnap_oci_digest *out, hlsnap_error *err);

/* ==== >>cache: for whoever loads many snapshots that have layers in common; docs/cache.md ==== */

/* hlsnap_oci_cache_create -- an empty cache, for desc.cache of any loads, of one layout or several.
   At guard PRIVATE, where nobody can change what was loaded, loads share layers: each takes those that others verified, for files
   that were found to hold them and have not changed since; other files it reads and verifies, but does not copy (verify_later and
   disable_verify: as without a cache). What it verified itself it leaves to others, with verify_later once that is done. So a load
   succeeds and fails as without a cache, except that of a layer of which half is used all is verified. NONE, DETECT and LEASE map
   the files, which the kernel shares. Loads at any guard share parsed indexes: one is parsed again when it changed, and when it
   had changed less than 3 s before it was read.
   max_bytes in     so much of the layers that were loaded last is kept, in use or not. Beyond that, those whose last load is
                    longest ago are kept no longer than snapshots have them; until then they are shared. 0 = no layer is kept, nor
                    an index; UINT64_MAX = no bound. Kept are at most a quarter as many layers as the process may open files, and 16
                    indexes of 64 MiB together
   out       out    the cache; NULL on failure
   err       out    may be NULL
   returns   HLSNAP_OK; HLSNAP_ERR_ARG (out is NULL); HLSNAP_ERR_MEMORY
   owns      the caller: hlsnap_oci_cache_destroy
   threads   any, of it and of the loads. Of loads that want the same layer at once one makes it; the others wait until it has, or
             failed, or got no further for a second, when another one makes it; desc.progress is called meanwhile. Without memory
             for the cache's own, a load shares nothing. The child of a fork has a cache of its own, with all that this one held;
             if a thread was changing it just then, loads share nothing there, and what it held is not freed
   cost      a descriptor and a mapping for each layer that is kept  */
HLSNAP_API HLSNAP_MUST hlsnap_result hlsnap_oci_cache_create(uint64_t max_bytes, hlsnap_oci_cache **out, hlsnap_error *err);

/* hlsnap_oci_cache_destroy -- let go of what only the cache has. Snapshots stay, and loads that run go on. NULL is fine.
   threads   any; nobody may begin to use the cache then  */
HLSNAP_API void hlsnap_oci_cache_destroy(hlsnap_oci_cache *cache);

/* ==== >>store: what a layout holds, and keeping it in order ==== */

/* Called for an entry: tag, "" = none; bytes of all blobs that its manifest leads to, 0 = the manifest cannot be read; what is
   passed lives for the call. False ends the list. */
typedef bool (*hlsnap_oci_visit)(const char *tag, const hlsnap_oci_digest *digest, uint64_t bytes, void *user);

/* Called for an annotation. False ends the list. */
typedef bool (*hlsnap_oci_visit_text)(const char *key, const char *value, void *user);

typedef struct hlsnap_oci_layer {
    hlsnap_oci_digest memory, chunks; /* of the memory layer's blob, and of the list of its chunks' digests */
    uint64_t pages;            /* 4 KiB each; the blob has as many bytes */
} hlsnap_oci_layer;

/* Called for a layer, from number 0 on. False ends the list. */
typedef bool (*hlsnap_oci_visit_layer)(const hlsnap_oci_layer *layer, void *user);

typedef struct hlsnap_oci_info {
    hlsnap_oci_digest digest;  /* of the manifest */
    uint64_t bytes;            /* of all blobs that it leads to, its own included */
    uint64_t own_bytes;        /* of those that no other snapshot or image of the layout leads to: what goes when all its tags go;
                                  0 also when that cannot be told */
    uint64_t pages;            /* of guest memory, 4 KiB each */
    uint64_t stored_pages;     /* that are stored: not those that are known to be zero */
    uint32_t layers;
    uint32_t referrers;        /* entries that are about it: signatures, SBOMs, attestations; gc takes them with it */
    bool pinned;               /* something else in the layout leads to it: it stays without a tag, too; hlsnap_oci_holders */
    int64_t created;           /* seconds since 1970, as its entry or else its manifest says; 0 = they do not */
} hlsnap_oci_info;

/* Called for an entry: as hlsnap_oci_visit, with all of hlsnap_oci_get_info, and what that would return; where it is not
   HLSNAP_OK, only info->digest is set. False ends the list. */
typedef bool (*hlsnap_oci_visit_info)(const char *tag, hlsnap_result r, const hlsnap_oci_info *info, void *user);

/* hlsnap_oci_list -- the snapshots of a layout, tagged or not, in the order of its index; entries of other kinds are left out.
   dir       in     the layout's directory; only read
   visit     in     not NULL
   err       out    may be NULL
   returns   HLSNAP_OK; HLSNAP_ERR_ARG; HLSNAP_ERR_NOT_FOUND (no layout there); HLSNAP_ERR_LAYOUT, _INDEX, _JSON, _FILE, _LIMIT;
             HLSNAP_ERR_OS, _MEMORY
   threads   any  */
HLSNAP_API hlsnap_result hlsnap_oci_list(const char *dir, hlsnap_oci_visit visit, void *user, hlsnap_error *err);

/* hlsnap_oci_get_info -- what one snapshot takes, and what of it would go if it went.
   dir, ref  in     as for hlsnap_oci_load; nothing is read of guest memory
   out       out    not NULL
   err       out    may be NULL
   returns   as hlsnap_oci_load, but for _CPU: it need not run here
   threads   any
   cost      reads the manifests of all entries  */
HLSNAP_API hlsnap_result hlsnap_oci_get_info(const char *dir, const char *ref, hlsnap_oci_info *out, hlsnap_error *err);

/* hlsnap_oci_list_info -- hlsnap_oci_list and hlsnap_oci_get_info of each, in one walk.
   visit     in     not NULL
   returns   as hlsnap_oci_list
   threads   any
   cost      reads each manifest three times and each config once; of what is collected meanwhile nothing is told  */
HLSNAP_API hlsnap_result hlsnap_oci_list_info(const char *dir, hlsnap_oci_visit_info visit, void *user, hlsnap_error *err);

typedef enum hlsnap_oci_held {
    HLSNAP_OCI_HELD_TAG,       /* an entry of the snapshot itself, with a tag */
    HLSNAP_OCI_HELD_BY,        /* an entry that leads to it, such as an index of several images */
    HLSNAP_OCI_HELD_ABOUT,     /* an entry that is about it, such as a signature: does not keep it, and goes with it */
    HLSNAP_OCI_HELD_FORCE32 = 0x7fffffff
} hlsnap_oci_held;

typedef struct hlsnap_oci_holder {
    hlsnap_oci_held kind;
    const char *ref_name, *digest; /* of the entry: its tag, "" = none */
} hlsnap_oci_holder;

/* Called for a holder, which lives for the call. False ends the list. */
typedef bool (*hlsnap_oci_visit_holder)(const hlsnap_oci_holder *holder, void *user);

/* hlsnap_oci_holders -- what keeps a snapshot in a layout, and what is about it. Of many entries that lead to it through one and
   the same document, two are told.
   dir, ref  in     as for hlsnap_oci_load; it need not be a snapshot
   visit     in     not NULL
   err       out    may be NULL
   returns   as hlsnap_oci_gc
   threads   any
   cost      reads the manifests of all entries  */
HLSNAP_API hlsnap_result hlsnap_oci_holders(const char *dir, const char *ref, hlsnap_oci_visit_holder visit, void *user,
                                            hlsnap_error *err);

/* hlsnap_oci_annotations -- the annotations of a snapshot: those of its index entry, then those of its manifest.
   dir, ref  in     as for hlsnap_oci_load
   visit     in     not NULL
   err       out    may be NULL
   returns   as hlsnap_oci_list; HLSNAP_ERR_NOT_FOUND, _AMBIGUOUS, _MANIFEST, _MEDIA_TYPE, _SIZE, _DIGEST,
             _VERSION (its manifest is of another)
   threads   any  */
HLSNAP_API hlsnap_result hlsnap_oci_annotations(const char *dir, const char *ref, hlsnap_oci_visit_text visit, void *user,
                                                hlsnap_error *err);

/* hlsnap_oci_layers -- the blobs that hold a snapshot's memory; numbers are those of hlsnap_snapshot_extent after a load.
   dir, ref  in     as for hlsnap_oci_load; nothing is read of guest memory
   visit     in     not NULL
   err       out    may be NULL
   returns   as hlsnap_oci_annotations
   threads   any  */
HLSNAP_API hlsnap_result hlsnap_oci_layers(const char *dir, const char *ref, hlsnap_oci_visit_layer visit, void *user,
                                           hlsnap_error *err);

/* hlsnap_oci_tag -- give a snapshot of the layout a tag; it keeps those that it has.
   dir       in     the layout's directory
   ref       in     a tag, or the digest of a manifest that the index lists
   tag       in     as for hlsnap_oci_save; one that is there is moved, also from an entry of another kind; that stays, untagged
   err       out    may be NULL
   returns   HLSNAP_OK: on stable storage; as hlsnap_oci_annotations; HLSNAP_ERR_ARG (tag, ref, NULL)
   threads   any; changes of one layout wait for each other  */
HLSNAP_API hlsnap_result hlsnap_oci_tag(const char *dir, const char *ref, const char *tag, hlsnap_error *err);

/* hlsnap_oci_tag_with -- hlsnap_oci_tag, with a limit.
   desc      in     wait_ns, and progress, which is called only while it waits; the rest is not looked at; NULL = defaults
   returns   as hlsnap_oci_tag; HLSNAP_ERR_OS with EAGAIN (wait_ns is over), HLSNAP_ERR_CANCELLED (by desc->progress): nothing was
             changed
   threads   any; waits for other changes of the index, which are brief, not for saves that are under way  */
HLSNAP_API hlsnap_result hlsnap_oci_tag_with(const char *dir, const char *ref, const char *tag, const hlsnap_oci_desc *desc,
                                             hlsnap_error *err);

/* hlsnap_oci_untag -- take a tag away. The snapshot stays, good for hlsnap_oci_load by its digest, until hlsnap_oci_gc.
   tag       in     as ref of hlsnap_oci_load; a digest: all tags of that snapshot
   returns   HLSNAP_OK: on stable storage; HLSNAP_ERR_NOT_FOUND; HLSNAP_ERR_MEDIA_TYPE (the tag of something else than a snapshot);
             as hlsnap_oci_list. A manifest that is missing or damaged does not hinder, where its entry does not say that it is
             another's
   threads   any; changes of one layout wait for each other  */
HLSNAP_API hlsnap_result hlsnap_oci_untag(const char *dir, const char *tag, hlsnap_error *err);

/* hlsnap_oci_untag_with -- hlsnap_oci_untag, with a limit.
   desc      in     as for hlsnap_oci_tag_with
   returns   as hlsnap_oci_untag; HLSNAP_ERR_OS with EAGAIN, HLSNAP_ERR_CANCELLED, as hlsnap_oci_tag_with
   threads   as hlsnap_oci_tag_with  */
HLSNAP_API hlsnap_result hlsnap_oci_untag_with(const char *dir, const char *tag, const hlsnap_oci_desc *desc,
                                               hlsnap_error *err);

/* hlsnap_oci_untag_all -- take several tags away by one change of the index: all of them or, when one cannot be, none.
   tags      in     num of them, each as tag of hlsnap_oci_untag, in any order; what is meant twice goes once. 0: nothing is
                    changed, and tags may be NULL
   desc      in     as for hlsnap_oci_tag_with
   returns   as hlsnap_oci_untag_with; of several that cannot be taken away the text names the first
   threads   as hlsnap_oci_tag_with
   cost      one reading and one writing of the index, however many they are, and a manifest for each  */
HLSNAP_API hlsnap_result hlsnap_oci_untag_all(const char *dir, const char *const *tags, uint32_t num,
                                              const hlsnap_oci_desc *desc, hlsnap_error *err);

/* hlsnap_oci_untag_listed -- hlsnap_oci_untag_all for what hlsnap_oci_list told: each is that tag and nothing else, also one
   that another tool gave the looks of a digest, which may be another snapshot's.
   returns   as hlsnap_oci_untag_all  */
HLSNAP_API hlsnap_result hlsnap_oci_untag_listed(const char *dir, const char *const *tags, uint32_t num,
                                                 const hlsnap_oci_desc *desc, hlsnap_error *err);

/* hlsnap_oci_gc -- remove snapshots without a tag, what is about them (signatures, SBOMs, attestations), and blobs that nothing
   leads to. Entries of others stay, whatever they are, and what they lead to.
   grace_s   in     seconds; what was written or named later than that ago stays: other tools may be about to list it.
                    3600 is a good value where they do. A time in the future, by more than that, keeps nothing. 0 = nobody else
                    writes here: no file's time is looked at
   freed     out    bytes of the files removed; may be NULL
   err       out    may be NULL
   returns   HLSNAP_OK; as hlsnap_oci_list; HLSNAP_ERR_OS (files that cannot be removed, the first one's errno, and how many: all
             else is removed all the same); HLSNAP_ERR_DIGEST, _OS (a document that the index leads to, of whatever kind, is damaged
             or cannot be read), HLSNAP_ERR_FILE (the manifest of a tag is missing): what it leads to is then not known, and nothing
             is removed
   threads   any; waits for saves that are under way, and those that come later for it. Sandboxes and snapshots in memory are not
             touched; a load that meets it reads the index again
   cost      reads each manifest twice, and each document of others whole  */
HLSNAP_API hlsnap_result hlsnap_oci_gc(const char *dir, uint64_t grace_s, uint64_t *freed, hlsnap_error *err);

/* hlsnap_oci_gc_with -- hlsnap_oci_gc, with a limit: saves that come while it waits wait for it.
   desc      in     as for hlsnap_oci_tag_with
   returns   as hlsnap_oci_gc; HLSNAP_ERR_OS with EAGAIN, HLSNAP_ERR_CANCELLED: nothing was removed
   threads   as hlsnap_oci_gc  */
HLSNAP_API hlsnap_result hlsnap_oci_gc_with(const char *dir, uint64_t grace_s, const hlsnap_oci_desc *desc, uint64_t *freed,
                                            hlsnap_error *err);

/* hlsnap_oci_fsck -- check everything: every entry and tag, every blob against its name, memory against its chunk list.
   repair    in     also make oci-layout where it is missing; where index.json is lost, one that lists all snapshots that are found,
                    as "recovered-" and 12 digits; and remove what killed savers left and blobs that hold something else than
                    their names say, when nothing leads to them. A blob that is damaged and needed is only reported:
                    saving the same snapshot again mends it. Without repair nothing at all is written, nor where index.json is
                    there and cannot be read
   err       out    the first problem that is (still) there, which does not depend on threads; may be NULL
   returns   HLSNAP_OK: all is sound, as far as it is not another machine's; else the first problem's: as hlsnap_oci_load. One
             problem ends nothing: what does not need it is looked at all the same, without an index all blobs
   threads   any; with repair it waits for saves that are under way, without it a save under way is no problem, nor what is
             collected meanwhile
   cost      reads and hashes all blobs; one beyond 32 GiB is HLSNAP_ERR_LIMIT  */
HLSNAP_API hlsnap_result hlsnap_oci_fsck(const char *dir, bool repair, hlsnap_error *err);

/* hlsnap_oci_fsck_with -- hlsnap_oci_fsck that tells all problems, shows how far it is, and can be ended.
   desc      in     on_problem; progress: bytes of blobs hashed, of all there are, 0 while entries are read; threads; max_bytes: a
                    blob beyond it is HLSNAP_ERR_LIMIT instead of read, but for documents that may lead to others; wait_ns:
                    without repair it does not wait. The rest is not looked at; NULL = defaults
   returns   as hlsnap_oci_fsck; HLSNAP_ERR_OS with EAGAIN (wait_ns is over): nothing was looked at; HLSNAP_ERR_CANCELLED (by
             desc->progress or on_problem): not all was looked at, what was repaired stays so
   threads   as hlsnap_oci_fsck; desc->threads of its own that hash, for the time of the call, all signals blocked but those of
             faults. With several, problems of blobs come in any order
   cost      as hlsnap_oci_fsck; a blob takes two threads at most: its digest is a chain, its chunks go beside it. For each
             problem that was told, 500 bytes  */
HLSNAP_API hlsnap_result hlsnap_oci_fsck_with(const char *dir, bool repair, const hlsnap_oci_desc *desc, hlsnap_error *err);

/* hlsnap_oci_flatten -- write a snapshot again with one layer instead of many.
   dir       in     the layout's directory
   ref       in     as for hlsnap_oci_load
   tag       in     for the new snapshot; may be ref itself, whose manifest then stays untagged
   desc      in     threads, max_bytes, mode, wait_ns, progress (called for reading, then for writing); what is written was
                    verified, whatever the rest says; NULL = defaults
   out       out    digest of the new manifest; may be NULL
   err       out    may be NULL
   returns   as hlsnap_oci_load and hlsnap_oci_save
   threads   any  */
HLSNAP_API hlsnap_result hlsnap_oci_flatten(const char *dir, const char *ref, const char *tag, const hlsnap_oci_desc *desc,
                                            hlsnap_oci_digest *out, hlsnap_error *err);

/* hlsnap_oci_copy -- copy one snapshot into another layout, byte for byte: its digest stays.
   from_dir  in     the layout to copy from; only read, as by hlsnap_oci_load, whatever stands in it
   ref       in     as for hlsnap_oci_load
   to_dir    in     as hlsnap_oci_save's dir, made when it is missing; may be from_dir
   tag       in     as for hlsnap_oci_save; NULL = ref, where that is a tag, else none: to_dir lists it by its digest, until
                    hlsnap_oci_gc. Annotations of the entry in from_dir's index do not come along, those of the manifest do
   desc      in     max_bytes, progress; nothing else is looked at: all blobs are verified, of whatever CPU, architecture and
                    version the snapshot is; NULL = defaults
   out       out    digest of the manifest; may be NULL
   err       out    may be NULL; its text names the layout that it is about
   returns   HLSNAP_OK: on stable storage, complete; as hlsnap_oci_load, but for _CPU and _ARCH, and as hlsnap_oci_save;
             _VERSION only where the manifest says so, of which it is then not known what it leads to
   threads   any; as for hlsnap_oci_save
   cost      blobs that to_dir has already are read and hashed, and replaced where they are damaged; others are clones where
                    the file system can, which are hashed, else they are hashed while they are copied; fsync  */
HLSNAP_API hlsnap_result hlsnap_oci_copy(const char *from_dir, const char *ref, const char *to_dir, const char *tag,
                                         const hlsnap_oci_desc *desc, hlsnap_oci_digest *out, hlsnap_error *err);

#ifdef __cplusplus
}
#endif
#endif /* HLSNAP_OCI_H */

/* ==========================================================================================================================
   >>implementation -- stop reading here if you only want the API
   ========================================================================================================================== */
#if defined(HLSNAP_IMPLEMENTATION) && !defined(HLSNAP_GUEST)
#ifndef HLSNAP_OCI_IMPLEMENTATION_ONCE
#define HLSNAP_OCI_IMPLEMENTATION_ONCE

#ifndef HLSNAP_CJSON_H
#define HLSNAP_CJSON_H <cjson/cJSON.h>
#endif
#include HLSNAP_CJSON_H
#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/xattr.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define HLSNAP__OCI_INDEX_TYPE "application/vnd.oci.image.index.v1+json"
#define HLSNAP__OCI_MANIFEST_TYPE "application/vnd.oci.image.manifest.v1+json"
#define HLSNAP__OCI_ARTIFACT_TYPE "application/vnd.hlsnap.snapshot.v1"
#define HLSNAP__OCI_CONFIG_TYPE "application/vnd.hlsnap.snapshot.config.v1+json"
#define HLSNAP__OCI_MEMORY_TYPE "application/vnd.hlsnap.snapshot.memory.v1"
#define HLSNAP__OCI_CHUNKS_TYPE "application/vnd.hlsnap.snapshot.chunks.v1"
#define HLSNAP__OCI_REF_NAME "org.opencontainers.image.ref.name"
#define HLSNAP__OCI_CREATED "org.opencontainers.image.created"
#define HLSNAP__OCI_LAST_TIME 253402300799ll /* 9999-12-31T23:59:59Z */
#define HLSNAP__OCI_TITLE "org.opencontainers.image.title"
#if defined(__x86_64__)
#define HLSNAP__OCI_ARCH "x86_64"
#else
#define HLSNAP__OCI_ARCH "aarch64"
#endif
#define HLSNAP__OCI_JSON_MAX (1u << 20)     /* bytes of any JSON file but the index */
#define HLSNAP__OCI_INDEX_READ (64u << 20)  /* bytes of index.json that are read */
#define HLSNAP__OCI_MANIFEST_MAX (4u << 20) /* bytes of a foreign manifest, as registries have it */
#define HLSNAP__OCI_MAX_EXTENTS 32768u      /* runs of pages: what one process can map and 1 MiB of config can hold */
#define HLSNAP__OCI_CHUNK 65536u            /* bytes of a memory layer under one digest of its chunk list */
#define HLSNAP__OCI_BATCH (16u * HLSNAP__OCI_CHUNK) /* bytes moved at a time: as many chunks as there are lanes */

/* ---- >>sha256 ---- */

typedef void (*hlsnap__sha256_lane)(uint32_t h[8], const uint8_t *p, size_t blocks);

typedef struct hlsnap__sha256 {
    hlsnap__sha256_lane lane;
    uint32_t h[8];
    uint64_t size;    /* bytes so far */
    uint8_t tail[64]; /* the last size % 64 of them */
} hlsnap__sha256;

static const uint32_t hlsnap__sha256_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t hlsnap__sha256_rotr(uint32_t x, int n) { return x >> n | x << (32 - n); }

/* One step of FIPS 180-4, 6.2.2; v is the state a..h, turned by `at` places instead of moved. */
static inline void hlsnap__sha256_step(uint32_t v[8], unsigned at, uint32_t k, uint32_t w) {
    const uint32_t a = v[(0 - at) & 7], b = v[(1 - at) & 7], c = v[(2 - at) & 7], e = v[(4 - at) & 7],
                   f = v[(5 - at) & 7], g = v[(6 - at) & 7];
    const uint32_t t = v[(7 - at) & 7] + k + w + ((e & (f ^ g)) ^ g) +
                       (hlsnap__sha256_rotr(e, 6) ^ hlsnap__sha256_rotr(e, 11) ^ hlsnap__sha256_rotr(e, 25));
    v[(3 - at) & 7] += t;
    v[(7 - at) & 7] = t + ((a & (b ^ c)) ^ (b & c)) +
                      (hlsnap__sha256_rotr(a, 2) ^ hlsnap__sha256_rotr(a, 13) ^ hlsnap__sha256_rotr(a, 22));
}

/* Replaces eight words of the message schedule, from `at` on, by those of sixteen steps later. */
static inline void hlsnap__sha256_stretch(uint32_t w[16], unsigned at) {
    unsigned i;
    for (i = at; i < at + 8; i++) {
        const uint32_t a = w[(i + 1) & 15], b = w[(i + 14) & 15];
        w[i] += (hlsnap__sha256_rotr(a, 7) ^ hlsnap__sha256_rotr(a, 18) ^ a >> 3) + w[(i + 9) & 15] +
                (hlsnap__sha256_rotr(b, 17) ^ hlsnap__sha256_rotr(b, 19) ^ b >> 10);
    }
}

/* The message schedule is a ring of 16 words. Unrolled by eight, so that the state stays in registers. */
static void hlsnap__sha256_portable(uint32_t h[8], const uint8_t *p, size_t blocks) {
    uint32_t w[16], v[8];
    unsigned i;
    for (; blocks; blocks--, p += 64) {
        memcpy(v, h, sizeof(v));
        for (i = 0; i < 16; i++)
            w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
        for (i = 0; i < 64; i += 8) {
            const uint32_t *k = hlsnap__sha256_k + i;
            uint32_t *x = w + (i & 8);
            hlsnap__sha256_step(v, 0, k[0], x[0]);
            hlsnap__sha256_step(v, 1, k[1], x[1]);
            hlsnap__sha256_step(v, 2, k[2], x[2]);
            hlsnap__sha256_step(v, 3, k[3], x[3]);
            hlsnap__sha256_step(v, 4, k[4], x[4]);
            hlsnap__sha256_step(v, 5, k[5], x[5]);
            hlsnap__sha256_step(v, 6, k[6], x[6]);
            hlsnap__sha256_step(v, 7, k[7], x[7]);
            if (i < 48) hlsnap__sha256_stretch(w, i & 8);
        }
        for (i = 0; i < 8; i++) h[i] += v[i];
    }
}

static void hlsnap__sha256_init(hlsnap__sha256 *s, hlsnap__sha256_lane lane) {
    static const uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                  0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    s->lane = lane;
    memcpy(s->h, h, sizeof(h));
    s->size = 0;
}

static void hlsnap__sha256_update(hlsnap__sha256 *s, const void *data, size_t n) {
    const uint8_t *p = (const uint8_t *)data;
    size_t have = s->size % 64, take = 64 - have;
    if (!n) return;
    s->size += n;
    if (n < take) {
        memcpy(s->tail + have, p, n);
        return;
    }
    if (have) {
        memcpy(s->tail + have, p, take);
        s->lane(s->h, s->tail, 1);
        p += take;
        n -= take;
    }
    s->lane(s->h, p, n / 64);
    memcpy(s->tail, p + n / 64 * 64, n % 64);
}

static void hlsnap__sha256_final(hlsnap__sha256 *s, uint8_t out[32]) {
    uint64_t bits = s->size * 8;
    uint8_t pad[72] = {0x80};
    size_t n = 64 - (s->size + 8) % 64; /* 1..64 bytes of padding, then the length */
    int i;
    for (i = 0; i < 8; i++) pad[n + (size_t)i] = (uint8_t)(bits >> (56 - 8 * i));
    hlsnap__sha256_update(s, pad, n + 8);
    for (i = 0; i < 32; i++) out[i] = (uint8_t)(s->h[i / 4] >> (24 - 8 * (i % 4)));
}

static void hlsnap__sha256_of(hlsnap__sha256_lane lane, const void *data, size_t n, uint8_t out[32]) {
    hlsnap__sha256 s;
    hlsnap__sha256_init(&s, lane);
    hlsnap__sha256_update(&s, data, n);
    hlsnap__sha256_final(&s, out);
}

#if defined(__x86_64__)
/* Four rounds, and the schedule of the four that come 16 rounds later. */
#define HLSNAP__SHA256_ROUNDS(abef, cdgh, w, i) \
    x = _mm_add_epi32(w, _mm_loadu_si128((const __m128i *)(const void *)&hlsnap__sha256_k[i])); \
    cdgh = _mm_sha256rnds2_epu32(cdgh, abef, x); \
    abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(x, 0x0e))
#define HLSNAP__SHA256_SCHEDULE(w0, w1, w2, w3) \
    w0 = _mm_sha256msg2_epu32(_mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8(w3, w2, 4)), w3)
#define HLSNAP__SHA256_LOAD(p, i) _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(const void *)(p) + (i)), swap)
/* For CPUs that do not foresee what a stream reads next. An address, not a pointer: it may lie beyond the data. */
#define HLSNAP__SHA256_PREFETCH(p) __builtin_prefetch((const void *)((uintptr_t)(p) + 1024))

/* The CPU's SHA extensions want the state as ABEF (s[0]) and CDGH (s[1]). */
__attribute__((__target__("sha,ssse3,sse4.1"))) static void hlsnap__sha256_ni_load(__m128i s[2], const uint32_t h[8]) {
    const __m128i *from = (const __m128i *)(const void *)h;
    __m128i badc = _mm_shuffle_epi32(_mm_loadu_si128(from), 0xb1);
    __m128i efgh = _mm_shuffle_epi32(_mm_loadu_si128(from + 1), 0x1b);
    s[0] = _mm_alignr_epi8(badc, efgh, 8);
    s[1] = _mm_blend_epi16(efgh, badc, 0xf0);
}

__attribute__((__target__("sha,ssse3,sse4.1"))) static void hlsnap__sha256_ni_store(uint32_t h[8], __m128i abef,
                                                                                    __m128i cdgh) {
    __m128i *to = (__m128i *)(void *)h;
    abef = _mm_shuffle_epi32(abef, 0x1b);
    cdgh = _mm_shuffle_epi32(cdgh, 0xb1);
    _mm_storeu_si128(to, _mm_blend_epi16(abef, cdgh, 0xf0));
    _mm_storeu_si128(to + 1, _mm_alignr_epi8(cdgh, abef, 8));
}

/* hlsnap__sha256_portable with the SHA extensions. */
__attribute__((__target__("sha,ssse3,sse4.1"))) static void hlsnap__sha256_ni(uint32_t h[8], const uint8_t *p,
                                                                              size_t blocks) {
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bll, 0x0405060700010203ll);
    __m128i s[2], abef, cdgh, x, w0, w1, w2, w3;
    int i;
    hlsnap__sha256_ni_load(s, h);
    for (; blocks; blocks--, p += 64) {
        HLSNAP__SHA256_PREFETCH(p);
        abef = s[0];
        cdgh = s[1];
        w0 = HLSNAP__SHA256_LOAD(p, 0);
        w1 = HLSNAP__SHA256_LOAD(p, 1);
        w2 = HLSNAP__SHA256_LOAD(p, 2);
        w3 = HLSNAP__SHA256_LOAD(p, 3);
        for (i = 0; i < 48; i += 16) {
            HLSNAP__SHA256_ROUNDS(abef, cdgh, w0, i);
            HLSNAP__SHA256_SCHEDULE(w0, w1, w2, w3);
            HLSNAP__SHA256_ROUNDS(abef, cdgh, w1, i + 4);
            HLSNAP__SHA256_SCHEDULE(w1, w2, w3, w0);
            HLSNAP__SHA256_ROUNDS(abef, cdgh, w2, i + 8);
            HLSNAP__SHA256_SCHEDULE(w2, w3, w0, w1);
            HLSNAP__SHA256_ROUNDS(abef, cdgh, w3, i + 12);
            HLSNAP__SHA256_SCHEDULE(w3, w0, w1, w2);
        }
        HLSNAP__SHA256_ROUNDS(abef, cdgh, w0, 48);
        HLSNAP__SHA256_ROUNDS(abef, cdgh, w1, 52);
        HLSNAP__SHA256_ROUNDS(abef, cdgh, w2, 56);
        HLSNAP__SHA256_ROUNDS(abef, cdgh, w3, 60);
        s[0] = _mm_add_epi32(s[0], abef);
        s[1] = _mm_add_epi32(s[1], cdgh);
    }
    hlsnap__sha256_ni_store(h, s[0], s[1]);
}

/* Four rounds of two messages: one's instructions run while the other's wait for each other. */
#define HLSNAP__SHA256_STEP_X2(w0, w1, w2, w3, v0, v1, v2, v3, i) \
    HLSNAP__SHA256_ROUNDS(abef, cdgh, w0, i); \
    HLSNAP__SHA256_SCHEDULE(w0, w1, w2, w3); \
    HLSNAP__SHA256_ROUNDS(abef1, cdgh1, v0, i); \
    HLSNAP__SHA256_SCHEDULE(v0, v1, v2, v3)
/* Three of these instead of a loop: gcc -O2 keeps the 12 registers of a loop in memory (1.80 GB/s, this way 1.97). */
#define HLSNAP__SHA256_STEPS_X2(i) \
    HLSNAP__SHA256_STEP_X2(w0, w1, w2, w3, v0, v1, v2, v3, i); \
    HLSNAP__SHA256_STEP_X2(w1, w2, w3, w0, v1, v2, v3, v0, (i) + 4); \
    HLSNAP__SHA256_STEP_X2(w2, w3, w0, w1, v2, v3, v0, v1, (i) + 8); \
    HLSNAP__SHA256_STEP_X2(w3, w0, w1, w2, v3, v0, v1, v2, (i) + 12)

__attribute__((__target__("sha,ssse3,sse4.1"))) static void hlsnap__sha256_ni_x2(uint32_t h[][8],
                                                                                 const uint8_t *const p[],
                                                                                 size_t blocks) {
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bll, 0x0405060700010203ll);
    const uint8_t *p0 = p[0], *p1 = p[1];
    __m128i s[4], abef, cdgh, abef1, cdgh1, x, w0, w1, w2, w3, v0, v1, v2, v3;
    hlsnap__sha256_ni_load(s, h[0]);
    hlsnap__sha256_ni_load(s + 2, h[1]);
    for (; blocks; blocks--, p0 += 64, p1 += 64) {
        HLSNAP__SHA256_PREFETCH(p0);
        HLSNAP__SHA256_PREFETCH(p1);
        abef = s[0];
        cdgh = s[1];
        abef1 = s[2];
        cdgh1 = s[3];
        w0 = HLSNAP__SHA256_LOAD(p0, 0);
        w1 = HLSNAP__SHA256_LOAD(p0, 1);
        w2 = HLSNAP__SHA256_LOAD(p0, 2);
        w3 = HLSNAP__SHA256_LOAD(p0, 3);
        v0 = HLSNAP__SHA256_LOAD(p1, 0);
        v1 = HLSNAP__SHA256_LOAD(p1, 1);
        v2 = HLSNAP__SHA256_LOAD(p1, 2);
        v3 = HLSNAP__SHA256_LOAD(p1, 3);
        HLSNAP__SHA256_STEPS_X2(0);
        HLSNAP__SHA256_STEPS_X2(16);
        HLSNAP__SHA256_STEPS_X2(32);
        HLSNAP__SHA256_ROUNDS(abef, cdgh, w0, 48);
        HLSNAP__SHA256_ROUNDS(abef1, cdgh1, v0, 48);
        HLSNAP__SHA256_ROUNDS(abef, cdgh, w1, 52);
        HLSNAP__SHA256_ROUNDS(abef1, cdgh1, v1, 52);
        HLSNAP__SHA256_ROUNDS(abef, cdgh, w2, 56);
        HLSNAP__SHA256_ROUNDS(abef1, cdgh1, v2, 56);
        HLSNAP__SHA256_ROUNDS(abef, cdgh, w3, 60);
        HLSNAP__SHA256_ROUNDS(abef1, cdgh1, v3, 60);
        s[0] = _mm_add_epi32(s[0], abef);
        s[1] = _mm_add_epi32(s[1], cdgh);
        s[2] = _mm_add_epi32(s[2], abef1);
        s[3] = _mm_add_epi32(s[3], cdgh1);
    }
    hlsnap__sha256_ni_store(h[0], s[0], s[1]);
    hlsnap__sha256_ni_store(h[1], s[2], s[3]);
}

/* Sixteen messages, one per 32-bit lane of a 512-bit register. a to h do not move from round to round, their names do:
   number k of them is v[k - j] in round j. The masks are full and cost nothing; without them g++ 12 -Wall finds
   uninitialized variables in its own header. */
#define HLSNAP__SHA256_ROR(x, n) _mm512_maskz_ror_epi32(0xffff, x, n)
#define HLSNAP__SHA256_V(j, k) v[((k) + 16 - (j)) & 7]
#define HLSNAP__SHA256_SIGMA(x, r1, r2, y) \
    _mm512_ternarylogic_epi32(HLSNAP__SHA256_ROR(x, r1), HLSNAP__SHA256_ROR(x, r2), y, 0x96) /* 0x96: exclusive or */
#define HLSNAP__SHA256_ROUND_X16(j) \
    x = _mm512_add_epi32(w[j], _mm512_set1_epi32((int)hlsnap__sha256_k[i + (j)])); \
    y = HLSNAP__SHA256_V(j, 4); \
    x = _mm512_add_epi32(x, HLSNAP__SHA256_V(j, 7)); \
    x = _mm512_add_epi32(x, _mm512_ternarylogic_epi32(y, HLSNAP__SHA256_V(j, 5), HLSNAP__SHA256_V(j, 6), 0xca)); \
    x = _mm512_add_epi32(x, HLSNAP__SHA256_SIGMA(y, 6, 11, HLSNAP__SHA256_ROR(y, 25))); \
    HLSNAP__SHA256_V(j, 3) = _mm512_add_epi32(HLSNAP__SHA256_V(j, 3), x); \
    y = HLSNAP__SHA256_V(j, 0); \
    x = _mm512_add_epi32(x, _mm512_ternarylogic_epi32(y, HLSNAP__SHA256_V(j, 1), HLSNAP__SHA256_V(j, 2), 0xe8)); \
    HLSNAP__SHA256_V(j, 7) = _mm512_add_epi32(x, HLSNAP__SHA256_SIGMA(y, 2, 13, HLSNAP__SHA256_ROR(y, 22)))
/* A round, and the word of the one that comes 16 rounds later. Taking turns keeps both of the CPU's vector units busy:
   only one of them rotates, and the schedule rotates most. */
#define HLSNAP__SHA256_STEP_X16(j) \
    HLSNAP__SHA256_ROUND_X16(j); \
    x = w[((j) + 1) & 15]; \
    y = w[((j) + 14) & 15]; \
    w[j] = _mm512_add_epi32(_mm512_add_epi32(w[j], w[((j) + 9) & 15]), \
                            _mm512_add_epi32(HLSNAP__SHA256_SIGMA(x, 7, 18, _mm512_maskz_srli_epi32(0xffff, x, 3)), \
                                             HLSNAP__SHA256_SIGMA(y, 17, 19, _mm512_maskz_srli_epi32(0xffff, y, 10))))

/* Transposes in two steps. Of messages k, k + 4, k + 8 and k + 12, the quarters: t[k][j] has words 4 * j to 4 * j + 3
   of each. Then the words of each quarter of t[0..3][j]: w[i] has word i of all messages. */
#define HLSNAP__SHA256_HALF(k, j) _mm256_loadu_si256((const __m256i *)(const void *)(p[k] + at) + (j))
#define HLSNAP__SHA256_HALVES(k, j) \
    _mm512_maskz_inserti64x4(0xff, _mm512_castsi256_si512(HLSNAP__SHA256_HALF(k, j)), HLSNAP__SHA256_HALF((k) + 4, j), \
                             1)
#define HLSNAP__SHA256_LOAD_X16(k) \
    x = HLSNAP__SHA256_HALVES(k, 0); \
    y = HLSNAP__SHA256_HALVES((k) + 8, 0); \
    t[k][0] = _mm512_maskz_shuffle_i32x4(0xffff, x, y, 0x88); \
    t[k][1] = _mm512_maskz_shuffle_i32x4(0xffff, x, y, 0xdd); \
    x = HLSNAP__SHA256_HALVES(k, 1); \
    y = HLSNAP__SHA256_HALVES((k) + 8, 1); \
    t[k][2] = _mm512_maskz_shuffle_i32x4(0xffff, x, y, 0x88); \
    t[k][3] = _mm512_maskz_shuffle_i32x4(0xffff, x, y, 0xdd)
#define HLSNAP__SHA256_WORDS_X16(j) \
    x = _mm512_maskz_unpacklo_epi32(0xffff, t[0][j], t[1][j]); \
    y = _mm512_maskz_unpacklo_epi32(0xffff, t[2][j], t[3][j]); \
    w[4 * (j)] = _mm512_shuffle_epi8(_mm512_maskz_unpacklo_epi64(0xff, x, y), swap); \
    w[4 * (j) + 1] = _mm512_shuffle_epi8(_mm512_maskz_unpackhi_epi64(0xff, x, y), swap); \
    x = _mm512_maskz_unpackhi_epi32(0xffff, t[0][j], t[1][j]); \
    y = _mm512_maskz_unpackhi_epi32(0xffff, t[2][j], t[3][j]); \
    w[4 * (j) + 2] = _mm512_shuffle_epi8(_mm512_maskz_unpacklo_epi64(0xff, x, y), swap); \
    w[4 * (j) + 3] = _mm512_shuffle_epi8(_mm512_maskz_unpackhi_epi64(0xff, x, y), swap)
#define HLSNAP__SHA256_SET_X16(j) v[j] = s[j]
#define HLSNAP__SHA256_ADD_X16(j) s[j] = _mm512_add_epi32(s[j], v[j])
// clang-format off
/* Loops that are not there, so that v, w and t are registers at -O2 too. */
#define HLSNAP__SHA256_ALL4(X) X(0); X(1); X(2); X(3)
#define HLSNAP__SHA256_ALL8(X) HLSNAP__SHA256_ALL4(X); X(4); X(5); X(6); X(7)
#define HLSNAP__SHA256_ALL16(X) HLSNAP__SHA256_ALL8(X); X(8); X(9); X(10); X(11); X(12); X(13); X(14); X(15)
// clang-format on

__attribute__((__target__("avx512f,avx512bw"))) static void hlsnap__sha256_avx512(uint32_t h[][8],
                                                                                  const uint8_t *const p[],
                                                                                  size_t blocks) {
    const __m512i swap =
        _mm512_maskz_broadcast_i32x4(0xffff, _mm_set_epi64x(0x0c0d0e0f08090a0bll, 0x0405060700010203ll));
    __m512i s[8], v[8], w[16], t[4][4], x, y;
    uint32_t column[16];
    size_t at, i;
    for (i = 0; i < 8; i++) {
        for (at = 0; at < 16; at++) column[at] = h[at][i];
        s[i] = _mm512_loadu_si512(column);
    }
    for (at = 0; at < blocks * 64; at += 64) {
        HLSNAP__SHA256_ALL4(HLSNAP__SHA256_LOAD_X16);
        HLSNAP__SHA256_ALL4(HLSNAP__SHA256_WORDS_X16);
        HLSNAP__SHA256_ALL8(HLSNAP__SHA256_SET_X16);
        for (i = 0; i < 48; i += 16) {
            HLSNAP__SHA256_ALL16(HLSNAP__SHA256_STEP_X16);
        }
        HLSNAP__SHA256_ALL16(HLSNAP__SHA256_ROUND_X16);
        HLSNAP__SHA256_ALL8(HLSNAP__SHA256_ADD_X16);
    }
    for (i = 0; i < 8; i++) {
        _mm512_storeu_si512(column, s[i]);
        for (at = 0; at < 16; at++) h[at][i] = column[at];
    }
}
#endif

/* Hashes several messages of equal length at a time: h and p have `lanes` rows, which may repeat. It is used from
   `least` messages on: from there it is faster than what comes next. */
typedef struct hlsnap__sha256_wide {
    void (*run)(uint32_t h[][8], const uint8_t *const p[], size_t blocks); /* NULL: there is none */
    size_t lanes, least;
} hlsnap__sha256_wide;

#define HLSNAP__SHA256_MAX_LANES 16

/* What a machine with the features `need` hashes with. */
typedef struct hlsnap__sha256_ways {
    uint64_t need; /* bits of hlsnap__cpu_bit */
    hlsnap__sha256_lane one;
    hlsnap__sha256_wide wide[2]; /* the widest first */
} hlsnap__sha256_ways;

#define HLSNAP__SHA256_NI (1ull << HLSNAP__CPU_sha_ni | 1ull << HLSNAP__CPU_ssse3 | 1ull << HLSNAP__CPU_sse4_1)
#define HLSNAP__SHA256_AVX512 (1ull << HLSNAP__CPU_avx512f | 1ull << HLSNAP__CPU_avx512bw)

/* The fastest ways of a machine that has these features. */
static const hlsnap__sha256_ways *hlsnap__sha256_pick(uint64_t features) {
    static const hlsnap__sha256_ways rows[] = {
#if defined(__x86_64__)
        {HLSNAP__SHA256_NI | HLSNAP__SHA256_AVX512,
         hlsnap__sha256_ni,
         {{hlsnap__sha256_avx512, 16, 10}, {hlsnap__sha256_ni_x2, 2, 2}}},
        {HLSNAP__SHA256_AVX512, hlsnap__sha256_portable, {{hlsnap__sha256_avx512, 16, 2}, {NULL, 0, 0}}},
        {HLSNAP__SHA256_NI, hlsnap__sha256_ni, {{hlsnap__sha256_ni_x2, 2, 2}, {NULL, 0, 0}}},
#endif
        {0, hlsnap__sha256_portable, {{NULL, 0, 0}, {NULL, 0, 0}}}
    };
    const hlsnap__sha256_ways *ways = rows;
    while ((features & ways->need) != ways->need) ways++;
    return ways;
}

/* num <= lanes messages of n bytes each, one behind the other; n is a multiple of 64. */
static void hlsnap__sha256_wide_of(const hlsnap__sha256_wide *wide, const uint8_t *p, size_t n, size_t num,
                                   uint8_t *sums) {
    const uint8_t *rows[HLSNAP__SHA256_MAX_LANES];
    uint32_t h[HLSNAP__SHA256_MAX_LANES][8];
    uint8_t pad[64] = {0x80};
    uint64_t bits = (uint64_t)n * 8;
    hlsnap__sha256 start;
    size_t i;
    hlsnap__sha256_init(&start, NULL);
    for (i = 0; i < wide->lanes; i++) {
        memcpy(h[i], start.h, sizeof(h[i]));
        rows[i] = p + (i < num ? i : 0) * n;
    }
    wide->run(h, rows, n / 64);
    for (i = 0; i < 8; i++) pad[56 + i] = (uint8_t)(bits >> (56 - 8 * i));
    for (i = 0; i < wide->lanes; i++) rows[i] = pad;
    wide->run(h, rows, 1);
    for (i = 0; i < num * 32; i++) sums[i] = (uint8_t)(h[i / 32][i / 4 % 8] >> (24 - 8 * (i % 4)));
}

/* The sha256 of each `chunk` bytes of the n at p, 32 bytes each. chunk is a multiple of 64; the last one may be
   shorter, of any length. */
static void hlsnap__sha256_chunks(const hlsnap__sha256_ways *ways, const uint8_t *p, size_t n, size_t chunk,
                                  uint8_t *sums) {
    const hlsnap__sha256_wide *wide, *end = ways->wide + 2;
    size_t num, size;
    for (; n; n -= size, p += size, sums += 32 * num) {
        const size_t whole = n / chunk;
        for (wide = ways->wide; wide < end && (!wide->run || whole < wide->least);) wide++;
        if (wide < end) {
            num = whole < wide->lanes ? whole : wide->lanes;
            size = num * chunk;
            hlsnap__sha256_wide_of(wide, p, chunk, num, sums);
        } else {
            num = 1;
            size = whole ? chunk : n;
            hlsnap__sha256_of(ways->one, p, size, sums);
        }
    }
}

/* "sha256:<hex>" and its NUL: 72 bytes. */
static void hlsnap__sha256_text(const uint8_t sum[32], char text[72]) {
    static const char hex[] = "0123456789abcdef";
    size_t i;
    memcpy(text, "sha256:", 7);
    for (i = 0; i < 32; i++) {
        text[7 + 2 * i] = hex[sum[i] >> 4];
        text[8 + 2 * i] = hex[sum[i] & 15];
    }
    text[71] = 0;
}

/* "sha256:" and 64 lowercase hex digits, the only digests that name a file here. */
static bool hlsnap__sha256_text_ok(const char *text) {
    return strlen(text) == 71 && memcmp(text, "sha256:", 7) == 0 && strspn(text + 7, "0123456789abcdef") == 64;
}

/* ---- >>json: strict before cJSON, which is not: docs/snapshot-format.md "JSON" ---- */

#define HLSNAP__JSON_DEPTH 16
#define HLSNAP__JSON_NODES 262144u
#define HLSNAP__JSON_INT_MAX (1ull << 53)

typedef struct hlsnap__json { /* one document */
    char file[80];            /* its path in the layout, for messages */
    hlsnap_result code;       /* what a violation of its schema returns */
    char *text;               /* size bytes and a NUL */
    size_t size;
    cJSON *root;         /* NULL: no document */
    size_t odd;          /* where the first number stands that is no plain integer; only where that was allowed */
    const char *odd_why; /* NULL: there is none */
} hlsnap__json;

typedef struct hlsnap__json_span { /* a piece of a document, as it is written */
    const char *at;
    size_t size;
} hlsnap__json_span;

typedef struct hlsnap__json_scan {
    const unsigned char *p, *end;
    uint32_t depth, max_depth, nodes, max_nodes;
    const char *why;          /* of a failure, at p; "" = none */
    const unsigned char *odd; /* the first number that is no plain integer, and why */
    const char *odd_why;
    bool keep_names;          /* and refuse a name that stands twice in one object */
    hlsnap__json_span *names; /* of the objects that are open; the caller frees them */
    uint32_t num_names, cap_names;
} hlsnap__json_scan;

typedef struct hlsnap__json_level { /* an object or array that is walked through */
    uint32_t names;                 /* where those of an object begin */
    char close;
    bool first;
} hlsnap__json_level;

static bool hlsnap__json_stop(hlsnap__json_scan *s, const char *why) {
    s->why = why;
    return false;
}

static const char hlsnap__json_no_memory[] = "out of memory";

static void hlsnap__json_space(hlsnap__json_scan *s) {
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\t' || *s->p == '\r')) s->p++;
}

/* Takes c where it comes next. */
static bool hlsnap__json_take(hlsnap__json_scan *s, char c) {
    if (s->p >= s->end || *s->p != (unsigned char)c) return false;
    s->p++;
    return true;
}

/* Bytes of the UTF-8 character at p, of at most n bytes; 0: none (overlong, a surrogate, beyond U+10FFFF, cut). */
static size_t hlsnap__json_utf8(const unsigned char *p, size_t n) {
    size_t size = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0, i;
    if (size > n) return 0;
    for (i = 1; i < size; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
        (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return size;
}

/* Whether the character at p, of a text that ends with a NUL, is a control character: C0, DEL or C1. */
static bool hlsnap__json_control(const unsigned char *p) {
    return *p < 0x20 || *p == 0x7f || (*p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0);
}

/* The four hex digits of \u, or -1. */
static int32_t hlsnap__json_hex4(hlsnap__json_scan *s) {
    int32_t v = 0;
    int i;
    for (i = 0; i < 4; i++, s->p++) {
        int c = s->p < s->end ? *s->p : 0, digit;
        if (c >= '0' && c <= '9')
            digit = c - '0';
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            digit = (c | 0x20) - 'a' + 10;
        else
            return -1;
        v = v << 4 | digit;
    }
    return v;
}

/* What follows a backslash. No \u0000: cJSON would end the string there. */
static bool hlsnap__json_escape(hlsnap__json_scan *s) {
    int32_t unit;
    if (s->p < s->end && *s->p && (strchr)("\"\\/bfnrt", *s->p)) {
        s->p++;
        return true;
    }
    if (!hlsnap__json_take(s, 'u')) return hlsnap__json_stop(s, "unknown escape");
    unit = hlsnap__json_hex4(s);
    if (unit <= 0) return hlsnap__json_stop(s, unit ? "\\u without four hex digits" : "\\u0000 in a string");
    if (unit < 0xd800 || unit > 0xdfff) return true;
    if (unit <= 0xdbff && hlsnap__json_take(s, '\\') && hlsnap__json_take(s, 'u')) {
        unit = hlsnap__json_hex4(s);
        if (unit >= 0xdc00 && unit <= 0xdfff) return true;
    }
    return hlsnap__json_stop(s, "lone surrogate");
}

static bool hlsnap__json_string_scan(hlsnap__json_scan *s) {
    if (!hlsnap__json_take(s, '"')) return hlsnap__json_stop(s, "no string where one must be");
    while (s->p < s->end) {
        size_t n;
        while (s->p < s->end && *s->p >= 0x20 && *s->p < 0x80 && *s->p != '"' && *s->p != '\\') s->p++;
        if (s->p == s->end) break;
        n = hlsnap__json_utf8(s->p, (size_t)(s->end - s->p));
        if (!n) return hlsnap__json_stop(s, "not UTF-8");
        if (*s->p < 0x20) return hlsnap__json_stop(s, "control character in a string");
        if (*s->p == '"') {
            s->p++;
            return true;
        }
        if (*s->p != '\\')
            s->p += n;
        else if (s->p++, !hlsnap__json_escape(s))
            return false;
    }
    return hlsnap__json_stop(s, "string without end");
}

static bool hlsnap__json_digits(hlsnap__json_scan *s) {
    const unsigned char *from = s->p;
    while (s->p < s->end && *s->p >= '0' && *s->p <= '9') s->p++;
    return s->p > from;
}

static bool hlsnap__json_odd(hlsnap__json_scan *s, const unsigned char *at, const char *why) {
    if (!s->odd_why) s->odd = at;
    if (!s->odd_why) s->odd_why = why;
    return true;
}

/* A plain integer: -?(0|[1-9][0-9]*), not -0, of a magnitude that a double holds exactly. Any other number is odd. */
static bool hlsnap__json_number_scan(hlsnap__json_scan *s) {
    const unsigned char *start = s->p, *from, *end;
    const bool negative = hlsnap__json_take(s, '-');
    bool plain = true;
    uint64_t v = 0;
    from = s->p;
    if (!hlsnap__json_digits(s) || (*from == '0' && s->p - from > 1)) return hlsnap__json_stop(s, "not a number");
    end = s->p;
    if (hlsnap__json_take(s, '.')) plain = false;
    if (!plain && !hlsnap__json_digits(s)) return hlsnap__json_stop(s, "not a number");
    if (hlsnap__json_take(s, 'e') || hlsnap__json_take(s, 'E')) {
        plain = false;
        if (!hlsnap__json_take(s, '+')) hlsnap__json_take(s, '-');
        if (!hlsnap__json_digits(s)) return hlsnap__json_stop(s, "not a number");
    }
    if (!plain || (negative && *from == '0')) return hlsnap__json_odd(s, start, "not a plain integer");
    for (; from < end; from++) {
        v = v * 10 + (uint64_t)(*from - '0');
        if (v > HLSNAP__JSON_INT_MAX) return hlsnap__json_odd(s, start, "number beyond 2^53");
    }
    return true;
}

static bool hlsnap__json_word_scan(hlsnap__json_scan *s) {
    static const char *const words[] = {"null", "true", "false"};
    size_t i, n;
    for (i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        n = strlen(words[i]);
        if ((size_t)(s->end - s->p) < n || memcmp(s->p, words[i], n) != 0) continue;
        s->p += n;
        return true;
    }
    return hlsnap__json_stop(s, "no value where one must be");
}

/* The character at *p, inside a string that was scanned, its escape resolved; *p moves behind it. 0: the string ends. */
static uint32_t hlsnap__json_char(const unsigned char **p) {
    static const char letters[] = "bfnrt", means[] = "\b\f\n\r\t";
    hlsnap__json_scan s;
    const unsigned char *at = *p;
    const char *letter;
    uint32_t c = *at, i, n;
    if (c == '"') return 0;
    if (c < 0x80 && c != '\\') {
        *p = at + 1;
        return c;
    }
    if (c != '\\') {
        n = (uint32_t)hlsnap__json_utf8(at, 4);
        c &= 0x7fu >> n;
        for (i = 1; i < n; i++) c = c << 6 | (at[i] & 0x3fu);
        *p = at + n;
        return c;
    }
    *p = at + 2;
    letter = (strchr)(letters, at[1]);
    if (at[1] != 'u') return letter ? (uint32_t)means[letter - letters] : at[1];
    s.p = at + 2;
    s.end = at + 12;
    c = (uint32_t)hlsnap__json_hex4(&s);
    *p = s.p;
    if (c < 0xd800 || c > 0xdbff) return c;
    s.p += 2;
    c = 0x10000u + ((c - 0xd800u) << 10) + ((uint32_t)hlsnap__json_hex4(&s) - 0xdc00u);
    *p = s.p;
    return c;
}

static int hlsnap__json_name_order(const void *a, const void *b) {
    const unsigned char *p = (const unsigned char *)((const hlsnap__json_span *)a)->at + 1;
    const unsigned char *q = (const unsigned char *)((const hlsnap__json_span *)b)->at + 1;
    for (;;) {
        const uint32_t c = hlsnap__json_char(&p), d = hlsnap__json_char(&q);
        if (c != d) return c < d ? -1 : 1;
        if (!c) return 0;
    }
}

static bool hlsnap__json_escaped(hlsnap__json_span span) { return (memchr)(span.at, '\\', span.size) != NULL; }

static bool hlsnap__json_name_same(const hlsnap__json_span *a, const hlsnap__json_span *b) {
    if (hlsnap__json_escaped(*a) || hlsnap__json_escaped(*b)) return hlsnap__json_name_order(a, b) == 0;
    return a->size == b->size && memcmp(a->at, b->at, a->size) == 0;
}

/* Whether two of an object's names are the same, escapes resolved. */
static bool hlsnap__json_twice(hlsnap__json_span *names, uint32_t num) {
    uint32_t i, k;
    if (num > 8) {
        qsort(names, num, sizeof(names[0]), hlsnap__json_name_order);
        for (i = 1; i < num; i++)
            if (hlsnap__json_name_order(&names[i - 1], &names[i]) == 0) return true;
        return false;
    }
    for (i = 1; i < num; i++)
        for (k = 0; k < i; k++)
            if (hlsnap__json_name_same(&names[k], &names[i])) return true;
    return false;
}

static bool hlsnap__json_name_add(hlsnap__json_scan *s, hlsnap__json_span name) {
    if (s->num_names == s->cap_names) {
        const uint32_t cap = s->cap_names ? 2 * s->cap_names : 64;
        hlsnap__json_span *names = (hlsnap__json_span *)hlsnap__alloc(cap, sizeof(names[0]), NULL);
        if (!names) return hlsnap__json_stop(s, hlsnap__json_no_memory);
        if (s->num_names) memcpy(names, s->names, s->num_names * sizeof(names[0]));
        hlsnap__free(s->names);
        s->names = names;
        s->cap_names = cap;
    }
    s->names[s->num_names++] = name;
    return true;
}

static hlsnap__json_span hlsnap__json_span_from(const unsigned char *from, const hlsnap__json_scan *s) {
    hlsnap__json_span span;
    span.at = (const char *)from;
    span.size = (size_t)(s->p - from);
    return span;
}

/* Begins to walk through the object or array that s stands at. */
static bool hlsnap__json_enter(hlsnap__json_scan *s, hlsnap__json_level *l) {
    l->close = hlsnap__json_take(s, '{') ? '}' : ']';
    if (l->close == ']') s->p++;
    l->names = s->num_names;
    l->first = true;
    return ++s->depth <= s->max_depth ? true : hlsnap__json_stop(s, "nested too deep");
}

/* Whether there is one more element, or member with *name: s then stands at its value. False at the end, or s->why says. */
static bool hlsnap__json_more(hlsnap__json_scan *s, hlsnap__json_level *l, hlsnap__json_span *name) {
    const unsigned char *from;
    const bool first = l->first;
    l->first = false;
    hlsnap__json_space(s);
    if (hlsnap__json_take(s, l->close)) {
        s->depth--;
        if (s->num_names > l->names && hlsnap__json_twice(s->names + l->names, s->num_names - l->names))
            return hlsnap__json_stop(s, "an object holds a name twice");
        s->num_names = l->names;
        return false;
    }
    if (!first && !hlsnap__json_take(s, ',')) return hlsnap__json_stop(s, "no ',' and no end where one must be");
    hlsnap__json_space(s);
    if (l->close == ']') return true;
    from = s->p;
    if (!hlsnap__json_string_scan(s)) return false;
    *name = hlsnap__json_span_from(from, s);
    if (s->keep_names && !hlsnap__json_name_add(s, *name)) return false;
    hlsnap__json_space(s);
    if (!hlsnap__json_take(s, ':')) return hlsnap__json_stop(s, "no ':' after a name");
    hlsnap__json_space(s);
    return true;
}

/* Moves past one value. */
static bool hlsnap__json_value_scan(hlsnap__json_scan *s) {
    hlsnap__json_level level;
    hlsnap__json_span name;
    if (s->p >= s->end) return hlsnap__json_stop(s, "ends too early");
    if (++s->nodes > s->max_nodes) return hlsnap__json_stop(s, "too many values");
    if (*s->p == '"') return hlsnap__json_string_scan(s);
    if (*s->p == '-' || (*s->p >= '0' && *s->p <= '9')) return hlsnap__json_number_scan(s);
    if (*s->p != '{' && *s->p != '[') return hlsnap__json_word_scan(s);
    if (!hlsnap__json_enter(s, &level)) return false;
    while (hlsnap__json_more(s, &level, &name))
        if (!hlsnap__json_value_scan(s)) return false;
    return !s->why[0];
}

static hlsnap__json_scan hlsnap__json_start(const char *text, size_t size) {
    hlsnap__json_scan s;
    memset(&s, 0, sizeof(s));
    s.p = (const unsigned char *)text;
    s.end = size ? s.p + size : s.p; /* no text: NULL */
    s.max_depth = HLSNAP__JSON_DEPTH;
    s.max_nodes = HLSNAP__JSON_NODES;
    s.why = "";
    return s;
}

/* Fills err for a scan that stopped. */
static hlsnap_result hlsnap__json_stopped(const hlsnap__json *d, const hlsnap__json_scan *s, hlsnap_error *err) {
    if (s->why == hlsnap__json_no_memory) return hlsnap__fail(err, HLSNAP_ERR_MEMORY, 0, "%s: out of memory", d->file);
    return hlsnap__fail(err, HLSNAP_ERR_JSON, 0, "%s: byte %zu: %s", d->file,
                        (size_t)(s->p - (const unsigned char *)d->text), s->why);
}

static void hlsnap__json_close(hlsnap__json *d) {
    cJSON_Delete(d->root);
    hlsnap__free(d->text);
    d->root = NULL;
    d->text = NULL;
}

/* Fills d->root from d->text; numbers that are no plain integers are noted in d->odd. */
static hlsnap_result hlsnap__json_parse(hlsnap__json *d, hlsnap_error *err) {
    hlsnap__json_scan s = hlsnap__json_start(d->text, d->size);
    bool ok;
    s.keep_names = true;
    hlsnap__json_space(&s);
    ok = hlsnap__json_value_scan(&s);
    hlsnap__json_space(&s);
    if (ok && s.p != s.end) ok = hlsnap__json_stop(&s, "more text after the end");
    hlsnap__free(s.names);
    if (!ok) return hlsnap__json_stopped(d, &s, err);
    d->odd = s.odd_why ? (size_t)(s.odd - (const unsigned char *)d->text) : 0;
    d->odd_why = s.odd_why;
    d->root = cJSON_ParseWithLength(d->text, d->size);
    if (!d->root)
        return hlsnap__fail(err, HLSNAP_ERR_MEMORY, 0,
                            "%s: cJSON cannot parse it: out of memory, or built with CJSON_NESTING_LIMIT below %d",
                            d->file, HLSNAP__JSON_DEPTH);
    if (!cJSON_IsObject(d->root)) return hlsnap__fail(err, d->code, 0, "%s: not an object", d->file);
    return HLSNAP_OK;
}

/* The same for documents whose numbers decide about memory. */
static hlsnap_result hlsnap__json_plain(const hlsnap__json *d, hlsnap_error *err) {
    if (!d->odd_why) return HLSNAP_OK;
    return hlsnap__fail(err, HLSNAP_ERR_JSON, 0, "%s: byte %zu: %s", d->file, d->odd, d->odd_why);
}

static const cJSON *hlsnap__json_get(const cJSON *o, const char *name) {
    return cJSON_GetObjectItemCaseSensitive(o, name);
}

/* path is where o stands, such as "layers[3].", name the member that is wrong, "" for o itself. */
static hlsnap_result hlsnap__json_bad(const hlsnap__json *d, const char *path, const char *name, const char *expected,
                                      const cJSON *found, hlsnap_error *err) {
    char text[100] = "nothing", member[72];
    hlsnap__printable(member, sizeof(member), name, strlen(name), false);
    if (cJSON_IsString(found))
        hlsnap__printable(text, sizeof(text), found->valuestring, strlen(found->valuestring), false);
    else if (cJSON_IsNumber(found))
        hlsnap__format(text, sizeof(text), "%.0f", found->valuedouble);
    else if (cJSON_IsObject(found))
        hlsnap__format(text, sizeof(text), "an object");
    else if (found)
        hlsnap__format(text, sizeof(text), "%s",
                       cJSON_IsArray(found)   ? "an array"
                       : cJSON_IsNull(found)  ? "null"
                       : cJSON_IsTrue(found)  ? "true"
                       : cJSON_IsFalse(found) ? "false"
                                              : "something else");
    return hlsnap__fail(err, d->code, 0, "%s: %s%s: expected %s, found %s%s%s", d->file, path, member, expected,
                        cJSON_IsString(found) ? "'" : "", text, cJSON_IsString(found) ? "'" : "");
}

static hlsnap_result hlsnap__json_string(const hlsnap__json *d, const cJSON *o, const char *path, const char *name,
                                         const char **out, hlsnap_error *err) {
    const cJSON *v = hlsnap__json_get(o, name);
    if (!cJSON_IsString(v)) return hlsnap__json_bad(d, path, name, "a string", v, err);
    *out = v->valuestring;
    return HLSNAP_OK;
}

/* A whole number from 0 to max. */
static hlsnap_result hlsnap__json_int(const hlsnap__json *d, const cJSON *o, const char *path, const char *name,
                                      uint64_t max, uint64_t *out, hlsnap_error *err) {
    const cJSON *v = hlsnap__json_get(o, name);
    char expected[64];
    if (cJSON_IsNumber(v) && v->valuedouble >= 0 && v->valuedouble <= (double)max) {
        *out = (uint64_t)v->valuedouble;
        return HLSNAP_OK;
    }
    hlsnap__format(expected, sizeof(expected), "an integer from 0 to %llu", (unsigned long long)max);
    return hlsnap__json_bad(d, path, name, expected, v, err);
}

/* A 64-bit value: "0x" and up to 16 lowercase hex digits, no needless zeros. */
static hlsnap_result hlsnap__json_hex(const hlsnap__json *d, const cJSON *o, const char *path, const char *name,
                                      uint64_t *out, hlsnap_error *err) {
    const cJSON *v = hlsnap__json_get(o, name);
    const char *s = cJSON_IsString(v) ? v->valuestring : "";
    size_t n = strlen(s);
    if (n < 3 || n > 18 || s[0] != '0' || s[1] != 'x' || strspn(s + 2, "0123456789abcdef") != n - 2 ||
        (s[2] == '0' && n > 3))
        return hlsnap__json_bad(d, path, name, "a string such as \"0x1f\"", v, err);
    *out = strtoull(s + 2, NULL, 16);
    return HLSNAP_OK;
}

static hlsnap_result hlsnap__json_array(const hlsnap__json *d, const cJSON *o, const char *path, const char *name,
                                        uint32_t max, const cJSON **first, uint32_t *num, hlsnap_error *err) {
    const cJSON *v = hlsnap__json_get(o, name);
    char expected[64];
    *num = cJSON_IsArray(v) ? (uint32_t)cJSON_GetArraySize(v) : UINT32_MAX;
    hlsnap__format(expected, sizeof(expected), "an array of at most %u", max);
    if (*num > max) return hlsnap__json_bad(d, path, name, expected, v, err);
    *first = v->child;
    return HLSNAP_OK;
}

/* o is an object with exactly these members; names end with NULL. */
static hlsnap_result hlsnap__json_exactly(const hlsnap__json *d, const cJSON *o, const char *path,
                                          const char *const *names, hlsnap_error *err) {
    const cJSON *c;
    size_t i;
    if (!cJSON_IsObject(o)) return hlsnap__json_bad(d, path, "", "an object", o, err);
    for (i = 0; names[i]; i++)
        if (!hlsnap__json_get(o, names[i])) return hlsnap__json_bad(d, path, names[i], "a value", NULL, err);
    for (c = o->child; c; c = c->next) {
        for (i = 0; names[i] && strcmp(names[i], c->string) != 0; i++) {
        }
        if (!names[i]) return hlsnap__json_bad(d, path, c->string, "no such field", c, err);
    }
    return HLSNAP_OK;
}

/* ---- >>text: JSON is written by hand, because cJSON's numbers are doubles and its layout is its own ---- */

typedef struct hlsnap__text { /* size > cap: it did not fit */
    char *at;                 /* cap + 1 bytes */
    size_t size, cap;
} hlsnap__text;

/* Starts a text of up to cap bytes. The caller frees t->at in the end. */
static hlsnap_result hlsnap__text_start(hlsnap__text *t, size_t cap, hlsnap_error *err) {
    t->size = 0;
    if (t->at && cap <= t->cap) return HLSNAP_OK;
    hlsnap__free(t->at);
    t->at = (char *)hlsnap__alloc(1, cap + 1, err);
    t->cap = cap;
    return t->at ? HLSNAP_OK : HLSNAP_ERR_MEMORY;
}

static void hlsnap__text_raw(hlsnap__text *t, const void *p, size_t n) {
    if (t->size > t->cap || n > t->cap - t->size) {
        t->size = t->cap + 1;
        return;
    }
    memcpy(t->at + t->size, p, n);
    t->size += n;
}

__attribute__((__format__(__printf__, 2, 3))) static void hlsnap__text_add(hlsnap__text *t, const char *fmt, ...) {
    va_list ap;
    int n;
    if (t->size > t->cap) return;
    va_start(ap, fmt);
    n = hlsnap__rt_vformat(t->at + t->size, t->cap + 1 - t->size, fmt, ap);
    va_end(ap);
    t->size = n < 0 || (size_t)n > t->cap - t->size ? t->cap + 1 : t->size + (size_t)n;
}

/* A JSON string. What a file may not hold (control characters, broken UTF-8) becomes '_'. */
static void hlsnap__text_string(hlsnap__text *t, const char *s) {
    const unsigned char *p = (const unsigned char *)s;
    size_t left = strlen(s), n;
    hlsnap__text_raw(t, "\"", 1);
    for (; left; left -= n, p += n) {
        n = hlsnap__json_utf8(p, left);
        if (!n || hlsnap__json_control(p))
            hlsnap__text_raw(t, "_", n ? n : (n = 1));
        else if (*p == '"' || *p == '\\')
            hlsnap__text_add(t, "\\%c", *p);
        else
            hlsnap__text_raw(t, p, n);
    }
    hlsnap__text_raw(t, "\"", 1);
}

/* "[page,pages,layer,layer_page]": there may be 32,768 of them, and the general formatter takes 80 ns for a number. */
static void hlsnap__text_extent(hlsnap__text *t, const hlsnap__extent *e, bool comma) {
    char text[64];
    size_t at = sizeof(text), i;
    uint32_t v[4];
    v[0] = e->page;
    v[1] = e->pages;
    v[2] = e->layer;
    v[3] = e->layer_page;
    text[--at] = ']';
    for (i = 4; i-- > 0;) {
        do {
            text[--at] = (char)('0' + v[i] % 10);
            v[i] /= 10;
        } while (v[i]);
        text[--at] = i ? ',' : '[';
    }
    if (comma) text[--at] = ',';
    hlsnap__text_raw(t, text + at, sizeof(text) - at);
}

/* Moves past a value that was scanned before. */
static hlsnap__json_span hlsnap__json_value(hlsnap__json_scan *s) {
    const unsigned char *from = s->p;
    hlsnap__json_value_scan(s);
    return hlsnap__json_span_from(from, s);
}

/* Whether a name, as it is written, is this one of ASCII without quotes. */
static bool hlsnap__json_name_is(hlsnap__json_span name, const char *is) {
    const unsigned char *p = (const unsigned char *)name.at + 1;
    if (name.size != strlen(is) + 2 && !hlsnap__json_escaped(name)) return false;
    for (; *is; is++)
        if (hlsnap__json_char(&p) != (uint32_t)*is) return false;
    return *p == '"';
}

/* Writes an object, which stands in `text` and was scanned before, without the member that `path` leads to: names from outside
   in, NULL at the end. */
static void hlsnap__text_without(hlsnap__text *t, hlsnap__json_span text, const char *const *path) {
    hlsnap__json_scan s = hlsnap__json_start(text.at, text.size);
    hlsnap__json_level level;
    hlsnap__json_span name, value;
    bool first = true;
    s.max_depth = s.max_nodes = UINT32_MAX;
    hlsnap__text_raw(t, "{", 1);
    hlsnap__json_enter(&s, &level);
    while (hlsnap__json_more(&s, &level, &name)) {
        const bool on_path = hlsnap__json_name_is(name, path[0]);
        value = hlsnap__json_value(&s);
        if (on_path && !path[1]) continue;
        if (!first) hlsnap__text_raw(t, ",", 1);
        first = false;
        hlsnap__text_raw(t, name.at, name.size);
        hlsnap__text_raw(t, ":", 1);
        if (on_path && value.at[0] == '{')
            hlsnap__text_without(t, value, path + 1);
        else
            hlsnap__text_raw(t, value.at, value.size);
    }
    hlsnap__text_raw(t, "}", 1);
}

/* ---- >>files: a layout may be hostile, so nothing is opened through a link and only regular files are read ---- */

#define HLSNAP__OCI_F_SETSIG 10
#define HLSNAP__OCI_F_SETLEASE 1024
#define HLSNAP__OCI_F_GETLEASE 1025
#define HLSNAP__OCI_RESOLVE (0x08u | 0x04u | 0x02u) /* BENEATH, NO_SYMLINKS, NO_MAGICLINKS */
#define HLSNAP__OCI_READ (O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY) /* a FIFO must not block */
#define HLSNAP__OCI_LOOK (010000000 | O_NOFOLLOW | O_CLOEXEC) /* O_PATH, which libc has for _GNU_SOURCE only */
#ifndef SYS_openat2
#define SYS_openat2 437
#endif

/* A failed system call on a path; what says which. Paths that lead nowhere, or to something else than a file or directory
   of our own, are the store's fault, the rest is the system's. */
static hlsnap_result hlsnap__oci_os(hlsnap_error *err, int number, const char *what, const char *path) {
    const bool store = number == ENOENT || number == ENOTDIR || number == ELOOP || number == EXDEV ||
                       number == EISDIR || number == ENXIO,
               mount = number == EIO && (strcmp(what, "link") == 0 || strcmp(what, "read its ACL") == 0);
    char shown[200];
    hlsnap__printable(shown, sizeof(shown), path, strlen(path), false);
    return hlsnap__fail(err, store ? HLSNAP_ERR_FILE : HLSNAP_ERR_OS, number, "%s: %s: %s (errno %d)%s", shown, what,
                        number == ENOENT    ? "there is none"
                        : number == ENOTDIR ? "not a directory"
                        : number == ELOOP   ? "a symbolic link"
                        : store             ? "not a regular file"
                                            : hlsnap__errno_text(number),
                        number, mount ? "; an rclone mount? it holds layouts for reading only" : "");
}

/* Opens a path below root without following any link; where openat2 is not to be had, component by component. -1, errno. */
static int hlsnap__oci_openat(int root, const char *path, int flags) {
    struct {
        uint64_t flags, mode, resolve;
    } how = {(uint64_t)flags, 0, HLSNAP__OCI_RESOLVE};
    long fd = syscall(SYS_openat2, root, path, &how, sizeof(how));
    const char *slash;
    int at = root;
    if (fd >= 0 || (errno != ENOSYS && errno != EPERM && errno != EINVAL && errno != E2BIG)) return (int)fd;
    while (at >= 0 && (slash = (strchr)(path, '/')) != NULL) {
        char part[80];
        int next;
        hlsnap__format(part, sizeof(part), "%.*s", (int)(slash - path), path);
        next = openat(at, part, HLSNAP__OCI_READ | O_DIRECTORY);
        if (at != root) close(at);
        at = next;
        path = slash + 1;
    }
    if (at < 0) return -1;
    fd = openat(at, path, flags);
    if (at != root) {
        int saved = errno;
        close(at);
        errno = saved;
    }
    return (int)fd;
}

/* Names of a directory, one after another; NULL at the end or, with *r set, at an error. */
static DIR *hlsnap__oci_dir_open(int at, hlsnap_error *err, hlsnap_result *r) {
    const int fd = openat(at, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* its own offset */
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    *r = d ? HLSNAP_OK : hlsnap__oci_os(err, errno, "open", "a directory");
    if (!d && fd >= 0) close(fd);
    return d;
}

static const char *hlsnap__oci_dir_next(DIR *d, hlsnap_error *err, hlsnap_result *r) {
    const struct dirent *e;
    errno = 0;
    do e = readdir(d);
    while (e && (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0));
    if (!e && errno) *r = hlsnap__oci_os(err, errno, "read", "a directory");
    return e ? e->d_name : NULL;
}

/* Opens a path of the layout, which must be a regular file. */
static hlsnap_result hlsnap__oci_open_as(int root, const char *path, int flags, int *fd, uint64_t *size,
                                         hlsnap_error *err) {
    struct stat st;
    hlsnap_result r = HLSNAP_OK;
    *fd = hlsnap__oci_openat(root, path, flags);
    if (*fd < 0) return hlsnap__oci_os(err, errno, "open", path);
    if (fstat(*fd, &st) != 0)
        r = hlsnap__oci_os(err, errno, "stat", path);
    else if (!S_ISREG(st.st_mode))
        r = hlsnap__fail(err, HLSNAP_ERR_FILE, 0, "%s: %s", path,
                         S_ISLNK(st.st_mode) ? "a symbolic link" : "not a regular file");
    if (!r) {
        *size = (uint64_t)st.st_size;
        return HLSNAP_OK;
    }
    close(*fd);
    *fd = -1;
    return r;
}

/* Opens a regular file of the layout, and nothing else: to open a device may be to use it. */
static hlsnap_result hlsnap__oci_open(int root, const char *path, int *fd, uint64_t *size, hlsnap_error *err) {
    hlsnap_result r = hlsnap__oci_open_as(root, path, HLSNAP__OCI_LOOK, fd, size, err);
    if (r) return r;
    close(*fd);
    return hlsnap__oci_open_as(root, path, HLSNAP__OCI_READ, fd, size, err);
}

/* Opens a blob, whose size must be its descriptor's. */
static hlsnap_result hlsnap__oci_open_blob(int root, const char *digest, uint64_t size, int *fd, hlsnap_error *err) {
    char path[96];
    uint64_t found;
    hlsnap_result r;
    hlsnap__format(path, sizeof(path), "blobs/sha256/%s", digest + 7);
    r = hlsnap__oci_open(root, path, fd, &found, err);
    if (r || found == size) return r;
    close(*fd);
    *fd = -1;
    return hlsnap__fail(err, HLSNAP_ERR_SIZE, 0, "%s: %llu bytes, not %llu as its descriptor says", path,
                        (unsigned long long)found, (unsigned long long)size);
}

/* size bytes and a NUL of an open file, which must end there. The caller frees *out, also after a failure. */
static hlsnap_result hlsnap__oci_slurp(int fd, const char *path, size_t size, char **out, hlsnap_error *err) {
    hlsnap_result r;
    ssize_t more;
    char beyond;
    *out = (char *)hlsnap__alloc(1, size + 1, err);
    if (!*out) return HLSNAP_ERR_MEMORY;
    r = hlsnap__pread(fd, *out, size, 0, err);
    if (r) return r;
    do more = pread(fd, &beyond, 1, (off_t)size);
    while (more < 0 && errno == EINTR);
    if (more < 0) return hlsnap__oci_os(err, errno, "read", path);
    return more ? hlsnap__fail(err, HLSNAP_ERR_CHANGED, 0, "%s: grew beyond %zu bytes", path, size) : HLSNAP_OK;
}

/* One try of what follows. */
static hlsnap_result hlsnap__oci_read_text_once(int root, const char *path, uint64_t max, hlsnap__json *d,
                                                hlsnap_error *err) {
    uint64_t size;
    int fd;
    hlsnap_result r = hlsnap__oci_open(root, path, &fd, &size, err);
    if (r) return r;
    d->size = (size_t)size;
    if (size > max)
        r = hlsnap__fail(err, HLSNAP_ERR_LIMIT, 0, "%s: %llu bytes, at most %llu are read", path,
                         (unsigned long long)size, (unsigned long long)max);
    else
        r = hlsnap__oci_slurp(fd, path, d->size, &d->text, err);
    close(fd);
    return r;
}

#define HLSNAP__OCI_TRIES 8        /* after 1, 2, 4 .. 128 ms */
#define HLSNAP__OCI_TRIES_UNBORN 3 /* where there was never an index */
#define HLSNAP__OCI_LOCK ".hlsnap.lock"

/* What a lock file says of the index, in its only byte. Empty: none was written yet: the first save is at work, or was killed. */
#define HLSNAP__OCI_MARK_WAS 'i'   /* there was one */
#define HLSNAP__OCI_MARK_DOUBT '?' /* it was made where blobs lay already: what they are is to be looked at first */

/* Whether a lock file says that no index was written yet. */
static bool hlsnap__oci_unborn(int root) {
    struct stat st;
    return fstatat(root, HLSNAP__OCI_LOCK, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) && !st.st_size;
}

/* How often to look again for an index that is not there. */
static int hlsnap__oci_tries(int root) {
    return hlsnap__oci_unborn(root) ? HLSNAP__OCI_TRIES_UNBORN : HLSNAP__OCI_TRIES;
}

static void hlsnap__oci_pause(uint64_t ns) {
    struct timespec nap = {0, 0};
    nap.tv_sec = (time_t)(ns / 1000000000u);
    nap.tv_nsec = (long)(ns % 1000000000u);
    nanosleep(&nap, NULL);
}

/* Whether anything says that a directory is a layout: files of it may come and go, all of them do not. */
static bool hlsnap__oci_is_layout(int root) {
    struct stat st;
    return fstatat(root, "oci-layout", &st, AT_SYMLINK_NOFOLLOW) == 0 ||
           fstatat(root, "index.json", &st, AT_SYMLINK_NOFOLLOW) == 0 ||
           fstatat(root, "blobs", &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Reads a JSON file that stands under its name, of at most max bytes; code is what a violation of its schema will return. A file
   server may have no file of that name for a moment while it is replaced, or have forgotten the one that was opened: then
   again, a little later, where there is a layout. */
static hlsnap_result hlsnap__oci_read_text(int root, const char *path, uint64_t max, hlsnap_result code,
                                           hlsnap__json *d, hlsnap_error *err) {
    hlsnap_result r;
    int i;
    for (i = 0;; i++) {
        r = hlsnap__oci_read_text_once(root, path, max, d, err);
        if (!r || i >= HLSNAP__OCI_TRIES || (err->os_errno != ENOENT && err->os_errno != ESTALE) ||
            !hlsnap__oci_is_layout(root) || i >= hlsnap__oci_tries(root))
            break;
        hlsnap__free(d->text);
        d->text = NULL;
        hlsnap__oci_pause((uint64_t)1000000 << i);
    }
    hlsnap__format(d->file, sizeof(d->file), "%s", path);
    d->code = code;
    return r;
}

/* ---- >>store: an open layout, locked; what a failed save made is unmade ---- */

#ifdef __O_TMPFILE
#define HLSNAP__OCI_O_TMPFILE (__O_TMPFILE | O_DIRECTORY)
#else
#define HLSNAP__OCI_O_TMPFILE (020000000 | O_DIRECTORY)
#endif
#define HLSNAP__OCI_AT_EMPTY_PATH 0x1000
#define HLSNAP__OCI_OFD_SETLK 37
#define HLSNAP__OCI_OFD_SETLKW 38
#define HLSNAP__OCI_TEMP ".hlsnap-tmp"
#define HLSNAP__OCI_LOCK_GC 0    /* shared: savers; exclusive: who removes blobs, or the lock file */
#define HLSNAP__OCI_LOCK_INDEX 1 /* exclusive, while index.json is read, merged and replaced */
#define HLSNAP__OCI_LOCK_TURN 2  /* held while waiting for the first: so that gc gets it although savers never pause */

#define HLSNAP__OCI_ACL "system.posix_acl_access"
#define HLSNAP__OCI_ACL_INHERITED "system.posix_acl_default"
#define HLSNAP__OCI_ACL_MAX (4 + 8 * 512) /* bytes: a header and 512 entries */

typedef struct hlsnap__oci_store {
    int root, blobs, sha256, temp, lock; /* directories and the lock file; -1: not open */
    bool made_root, made_blobs, made_sha256, made_lock, made_temp;
    const hlsnap_oci_desc *desc;
    uint64_t waited_ns; /* for locks, until now */
    uid_t uid; /* the owner and the group of the layout's directory, which are to have what is made in it, too */
    gid_t gid;
    mode_t file_mode, dir_mode, lock_mode; /* of what is made */
    bool inherits;                         /* it has an ACL from its directory, which says more than the mode */
} hlsnap__oci_store;

static const hlsnap_oci_desc hlsnap__oci_no_desc = HLSNAP_ZERO;

/* An ACL as the kernel passes it; *size is 0 where there is none. */
static hlsnap_result hlsnap__oci_acl_read(int fd, const char *name, uint8_t *acl, size_t *size, const char *file,
                                          hlsnap_error *err) {
    const ssize_t n = fgetxattr(fd, name, acl, HLSNAP__OCI_ACL_MAX);
    *size = n < 0 ? 0 : (size_t)n;
    if (n >= 0 || errno == ENODATA || errno == EOPNOTSUPP || errno == ENOSYS || errno == EPERM) return HLSNAP_OK;
    return hlsnap__oci_os(err, errno, errno == ERANGE ? "an ACL of more than 512 entries" : "read its ACL", file);
}

/* What a file's group may do, as three bits: where there is an ACL, the mode has its mask in their place. */
static unsigned hlsnap__oci_group_may(mode_t mode, const uint8_t *acl, size_t size) {
    unsigned group = (unsigned)mode >> 3 & 7, mask = 7;
    size_t i;
    for (i = 4; i + 8 <= size; i += 8) { /* tag, permissions: 16 bits each, little-endian; whose: 32 */
        if (acl[i] == 0x04) group = acl[i + 2];
        if (acl[i] == 0x10) mask = acl[i + 2];
    }
    return group & mask & 7;
}

/* Finds out whose the layout is and who is to use it: who writes into its directory shares what is in it. */
static hlsnap_result hlsnap__oci_store_owner(hlsnap__oci_store *store, hlsnap_error *err) {
    const mode_t asked = (mode_t)store->desc->mode;
    uint8_t acl[HLSNAP__OCI_ACL_MAX];
    struct stat st;
    size_t size;
    bool shared;
    hlsnap_result r;
    if (fstat(store->root, &st) != 0) return hlsnap__oci_os(err, errno, "stat", "the layout");
    r = hlsnap__oci_acl_read(store->root, HLSNAP__OCI_ACL_INHERITED, acl, &size, "the layout", err);
    store->inherits = !r && size > 0;
    if (!r) r = hlsnap__oci_acl_read(store->root, HLSNAP__OCI_ACL, acl, &size, "the layout", err);
    if (r) return r;
    shared = hlsnap__oci_group_may(st.st_mode, acl, size) & 2 || (store->inherits && st.st_mode & 070);
    store->uid = st.st_uid;
    store->gid = st.st_gid;
    store->file_mode = asked ? asked : shared ? 0660 : 0600;
    store->dir_mode = store->file_mode | (store->file_mode & 0444) >> 2;
    store->lock_mode = 0600 | (shared ? 060 : 0) | (st.st_mode & 002 ? 006 : 0);
    if (store->made_root && asked && fchmod(store->root, store->dir_mode | (st.st_mode & 07000)) != 0)
        return hlsnap__oci_os(err, errno, "chmod", "the layout");
    return HLSNAP_OK;
}

/* Whether a file system or a process just has no such thing as other owners or permissions. */
static bool hlsnap__oci_cannot(int number) {
    return number == EPERM || number == EOPNOTSUPP || number == ENOSYS || number == EINVAL;
}

/* Gives a file to an owner and a group, or at least to the group: 0, or -1 and errno. */
static int hlsnap__oci_chown(int fd, const struct stat *st, uid_t uid, gid_t gid) {
    if ((st->st_uid == uid && st->st_gid == gid) || fchown(fd, uid, gid) == 0) return 0;
    return st->st_gid == gid ? -1 : fchown(fd, (uid_t)-1, gid);
}

/* Gives what was just made to those who use the layout, as far as this process may. A umask takes nothing away. */
static hlsnap_result hlsnap__oci_give(const hlsnap__oci_store *store, int fd, mode_t mode, const char *what,
                                      hlsnap_error *err) {
    const bool asked = store->desc->mode != 0, exact = asked || (mode & 077 && !store->inherits);
    struct stat st;
    if (fstat(fd, &st) != 0) return hlsnap__oci_os(err, errno, "stat", what);
    if (exact && (st.st_mode & mode) != mode && fchmod(fd, mode | (st.st_mode & 07000)) != 0 &&
        (asked || !hlsnap__oci_cannot(errno)))
        return hlsnap__oci_os(err, errno, "chmod", what);
    if (hlsnap__oci_chown(fd, &st, store->uid, store->gid) == 0 || hlsnap__oci_cannot(errno)) return HLSNAP_OK;
    return hlsnap__oci_os(err, errno, "chown", what);
}

static int hlsnap__oci_lock_try(int fd, int byte, int type, int command) {
    struct flock f;
    int r;
    memset(&f, 0, sizeof(f));
    f.l_type = (short)type;
    f.l_whence = SEEK_SET;
    f.l_start = byte;
    f.l_len = 1;
    do r = fcntl(fd, command, &f);
    while (r < 0 && errno == EINTR);
    return r;
}

/* Waits a little for a lock that another holds, or not any more. *pause: so long, ns. */
static hlsnap_result hlsnap__oci_lock_wait(hlsnap__oci_store *store, uint64_t *pause, hlsnap_error *err) {
    const hlsnap_oci_desc *desc = store->desc;
    const uint64_t start = hlsnap__now_ns();
    uint64_t ns = *pause, now;
    if (desc->progress && !desc->progress(0, UINT64_MAX, desc->user))
        return hlsnap__fail(err, HLSNAP_ERR_CANCELLED, 0, HLSNAP__OCI_LOCK ": cancelled after %llu ms of waiting",
                            (unsigned long long)(store->waited_ns / 1000000u));
    if (desc->wait_ns && store->waited_ns >= desc->wait_ns)
        return hlsnap__fail(err, HLSNAP_ERR_OS, EAGAIN,
                            HLSNAP__OCI_LOCK ": another writer has it, %llu ms long (errno %d)",
                            (unsigned long long)(store->waited_ns / 1000000u), EAGAIN);
    if (desc->wait_ns && ns > desc->wait_ns - store->waited_ns) ns = desc->wait_ns - store->waited_ns;
    hlsnap__oci_pause(ns);
    now = hlsnap__now_ns();
    store->waited_ns += now == UINT64_MAX ? ns : now - start; /* no clock */
    *pause = *pause * 2 < 10000000u ? *pause * 2 : 10000000u;
    return HLSNAP_OK;
}

/* Takes a lock. The kernel has no wait with an end, nor one that asks anybody: then it is tried again and again. */
static hlsnap_result hlsnap__oci_lock(hlsnap__oci_store *store, int byte, int type, hlsnap_error *err) {
    const bool patient = !store->desc->wait_ns && !store->desc->progress;
    uint64_t pause = 100000;
    for (;;) {
        hlsnap_result r;
        if (hlsnap__oci_lock_try(store->lock, byte, type, patient ? HLSNAP__OCI_OFD_SETLKW : HLSNAP__OCI_OFD_SETLK) ==
            0)
            return HLSNAP_OK;
        if (patient || (errno != EAGAIN && errno != EACCES)) break;
        r = hlsnap__oci_lock_wait(store, &pause, err);
        if (r) return r;
    }
    if (errno == EINVAL) /* nothing else will do: other locks are a process's, or whole files' */
        return hlsnap__fail(err, HLSNAP_ERR_OS, EINVAL,
                            HLSNAP__OCI_LOCK ": lock: this kernel or file system has no byte-range locks of open files "
                                             "(F_OFD_SETLK), without which nobody can write here safely (errno %d)",
                            EINVAL);
    return hlsnap__oci_os(err, errno, "lock", HLSNAP__OCI_LOCK);
}

static void hlsnap__oci_unlock(const hlsnap__oci_store *store, int byte) {
    hlsnap__oci_lock_try(store->lock, byte, F_UNLCK, HLSNAP__OCI_OFD_SETLK);
}

/* Opens a directory below at, making it where it is missing. */
static hlsnap_result hlsnap__oci_make_dir(const hlsnap__oci_store *store, int at, const char *name, int *fd, bool *made,
                                          hlsnap_error *err) {
    *made = mkdirat(at, name, store->dir_mode) == 0;
    if (!*made && errno != EEXIST) return hlsnap__oci_os(err, errno, "mkdir", name);
    *fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (*fd < 0) return hlsnap__oci_os(err, errno, "open", name);
    return *made ? hlsnap__oci_give(store, *fd, store->dir_mode, name, err) : HLSNAP_OK;
}

/* There is no layout, nor anything of one: nothing was saved there yet. */
static hlsnap_result hlsnap__oci_no_layout(hlsnap_error *err) {
    return hlsnap__fail(err, HLSNAP_ERR_NOT_FOUND, ENOENT, "no layout there");
}

/* Opens the layout's directory; -1 and HLSNAP_OK when there is none. */
static hlsnap_result hlsnap__oci_open_root(const char *dir, int *fd, hlsnap_error *err) {
    struct stat st;
    *fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*fd >= 0) return HLSNAP_OK;
    if (errno != ENOENT) return hlsnap__oci_os(err, errno, "open", dir);
    if (lstat(dir, &st) != 0 || !S_ISLNK(st.st_mode)) return HLSNAP_OK;
    return hlsnap__oci_os(err, ENOENT, "a link that leads nowhere", dir);
}

/* Gives a file without a name one that is not taken: 0, or -1 and errno. */
static int hlsnap__oci_link_fd(int fd, int at, const char *name) {
    char path[40];
    hlsnap__format(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (linkat(AT_FDCWD, path, at, name, AT_SYMLINK_FOLLOW) == 0) return 0;
    if (errno != ENOENT) return -1;
    return linkat(fd, "", at, name, HLSNAP__OCI_AT_EMPTY_PATH); /* no /proc; takes CAP_DAC_READ_SEARCH on old kernels */
}

/* A name that no other save uses. */
static void hlsnap__oci_temp_name(char *to, size_t cap) {
    hlsnap__format(to, cap, ".hlsnap-%ld-%llx.tmp", (long)getpid(), (unsigned long long)hlsnap__now_ns());
}

static hlsnap_result hlsnap__oci_exists(int root, const char *name, bool *there, hlsnap_error *err);
static bool hlsnap__oci_has_blobs(int root);
static hlsnap_result hlsnap__oci_fsync(int fd, const char *what, hlsnap_error *err);

/* Makes of a new file a lock file, in doubt or not. Where there is an index, a full disk hinders nobody who removes something:
   the doubt is about a day when there is none. */
static hlsnap_result hlsnap__oci_lock_fill(const hlsnap__oci_store *store, int fd, bool doubt, hlsnap_error *err) {
    static const char mark = HLSNAP__OCI_MARK_DOUBT;
    hlsnap_error unused;
    bool indexed = false;
    hlsnap_result r = hlsnap__oci_give(store, fd, store->lock_mode, HLSNAP__OCI_LOCK, err);
    if (r || !doubt) return r;
    r = hlsnap__file_room(1, "the lock file", err);
    if (!r) r = hlsnap__pwrite(fd, &mark, 1, 0, err);
    if (!r) r = hlsnap__oci_fsync(fd, HLSNAP__OCI_LOCK, err); /* the name must not be on the disk without it */
    if (r) hlsnap__oci_exists(store->root, "index.json", &indexed, &unused);
    return indexed ? HLSNAP_OK : r;
}

/* Makes the lock file, which is what it shall be before it has its name: its descriptor, or -1 and errno. */
static int hlsnap__oci_lock_make_whole(const hlsnap__oci_store *store, bool doubt, hlsnap_result *r,
                                       hlsnap_error *err) {
    char temp[64] = "";
    int fd = openat(store->root, ".", HLSNAP__OCI_O_TMPFILE | O_RDWR | O_CLOEXEC, store->lock_mode), named = -1, saved;
    if (fd < 0 && doubt) {
        hlsnap__oci_temp_name(temp, sizeof(temp));
        fd = openat(store->root, temp, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, store->lock_mode);
    }
    if (fd < 0) return -1;
    *r = hlsnap__oci_lock_fill(store, fd, doubt, err);
    if (!*r)
        named = temp[0] ? linkat(store->root, temp, store->root, HLSNAP__OCI_LOCK, 0)
                        : hlsnap__oci_link_fd(fd, store->root, HLSNAP__OCI_LOCK);
    saved = errno;
    if (temp[0]) unlinkat(store->root, temp, 0);
    if (named != 0) close(fd);
    errno = saved;
    return named == 0 ? fd : -1;
}

/* Makes the lock file: its descriptor, or -1 and errno. Others would find one that they may not open, or that says that there
   never was an index: where it is to be theirs, too, or where blobs lie, it is made whole. Without links that cannot be done;
   then it is empty for a moment. */
static int hlsnap__oci_lock_make(const hlsnap__oci_store *store, hlsnap_result *r, hlsnap_error *err) {
    const bool ours = store->lock_mode == 0600 && store->uid == geteuid() && store->gid == getegid();
    struct stat st;
    bool doubt;
    int fd;
    *r = HLSNAP_OK;
    if (fstatat(store->root, HLSNAP__OCI_LOCK, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        errno = EEXIST;
        return -1;
    }
    doubt = hlsnap__oci_has_blobs(store->root);
    if (!ours || doubt) {
        fd = hlsnap__oci_lock_make_whole(store, doubt, r, err);
        if (fd >= 0 || *r || errno == EEXIST) return fd;
    }
    fd = openat(store->root, HLSNAP__OCI_LOCK, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, store->lock_mode);
    if (fd >= 0) *r = hlsnap__oci_lock_fill(store, fd, doubt, err);
    return fd;
}

/* What the lock file says of the index; 0: nothing. */
static char hlsnap__oci_mark(const hlsnap__oci_store *store) {
    hlsnap_error unused;
    struct stat st;
    char mark = HLSNAP__OCI_MARK_DOUBT;
    if (fstat(store->lock, &st) == 0 && !st.st_size) return 0;
    return hlsnap__pread(store->lock, &mark, 1, 0, &unused) ? HLSNAP__OCI_MARK_DOUBT : mark;
}

/* A lock that is held must keep others out. Where a file system passes locks on as its own process's, all get them. */
static hlsnap_result hlsnap__oci_lock_prove(const hlsnap__oci_store *store, int byte, hlsnap_error *err) {
    const int fd = openat(store->root, HLSNAP__OCI_LOCK, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    int number;
    if (fd < 0) return hlsnap__oci_os(err, errno, "open", HLSNAP__OCI_LOCK);
    number = hlsnap__oci_lock_try(fd, byte, F_WRLCK, HLSNAP__OCI_OFD_SETLK) == 0 ? EOPNOTSUPP : errno;
    close(fd);
    if (number == EAGAIN || number == EACCES) return HLSNAP_OK;
    return number != EOPNOTSUPP ? hlsnap__oci_os(err, number, "lock", HLSNAP__OCI_LOCK)
                                : hlsnap__fail(err, HLSNAP_ERR_OS, number,
                                               HLSNAP__OCI_LOCK ": lock: two at once could have it: the file system "
                                                                "passes locks on as its own (errno %d)",
                                               number);
}

/* Opens the lock file and takes the gc lock, a saver's share of it or all (F_RDLCK, F_WRLCK), or the index lock instead (F_UNLCK:
   none of the other). *stale: the file was removed meanwhile by a save that failed.
   Who removes the file holds both locks of it, whole. So whoever holds either, and sees then that the name leads to the file,
   knows that it will until the lock is given back: of two that hold the index lock, one had to see another file or none. To
   change only the index needs no share in the gc lock: who removes blobs holds the index lock, too. */
static hlsnap_result hlsnap__oci_lock_open(hlsnap__oci_store *store, int type, bool *stale, hlsnap_error *err) {
    const int flags = O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    const int held = type == F_UNLCK ? HLSNAP__OCI_LOCK_INDEX : HLSNAP__OCI_LOCK_GC;
    struct stat mine, named;
    hlsnap_result r;
    *stale = false;
    store->lock = hlsnap__oci_lock_make(store, &r, err);
    store->made_lock = store->lock >= 0;
    if (r) return r;
    if (store->lock < 0 && errno == EEXIST) {
        uint64_t size;
        int look;
        r = hlsnap__oci_open_as(store->root, HLSNAP__OCI_LOCK, HLSNAP__OCI_LOOK, &look, &size, err);
        *stale = r == HLSNAP_ERR_FILE && err->os_errno == ENOENT;
        if (r) return *stale ? HLSNAP_OK : r;
        close(look);
        store->lock = openat(store->root, HLSNAP__OCI_LOCK, flags);
    }
    *stale = store->lock < 0 && errno == ENOENT;
    if (*stale) return HLSNAP_OK;
    if (store->lock < 0) return hlsnap__oci_os(err, errno, "open", HLSNAP__OCI_LOCK);
    if (fstat(store->lock, &mine) != 0) return hlsnap__oci_os(err, errno, "stat", HLSNAP__OCI_LOCK);
    r = type == F_UNLCK ? HLSNAP_OK : hlsnap__oci_lock(store, HLSNAP__OCI_LOCK_TURN, type, err);
    if (!r) r = hlsnap__oci_lock(store, held, type == F_UNLCK ? F_WRLCK : type, err);
    if (r) return r;
    if (type != F_UNLCK) hlsnap__oci_unlock(store, HLSNAP__OCI_LOCK_TURN);
    *stale = fstatat(store->root, HLSNAP__OCI_LOCK, &named, AT_SYMLINK_NOFOLLOW) != 0 || named.st_ino != mine.st_ino ||
             named.st_dev != mine.st_dev;
    return *stale ? HLSNAP_OK : hlsnap__oci_lock_prove(store, held, err);
}

/* Whether nobody else uses a store, and nobody will until it is closed: those who do hold one of these locks. */
static bool hlsnap__oci_lock_alone(const hlsnap__oci_store *store) {
    if (hlsnap__oci_lock_try(store->lock, HLSNAP__OCI_LOCK_GC, F_WRLCK, HLSNAP__OCI_OFD_SETLK) != 0)
        return errno == EINVAL; /* there are no locks: nobody could begin */
    return hlsnap__oci_lock_try(store->lock, HLSNAP__OCI_LOCK_INDEX, F_WRLCK, HLSNAP__OCI_OFD_SETLK) == 0;
}

/* Ends with the store. After a failure what this save made goes, when nobody else uses the layout: others take their share
   of the lock before they rely on anything, and who waits for it finds out that the file is gone. */
static void hlsnap__oci_store_close(const char *dir, hlsnap__oci_store *store, bool failed) {
    if (store->temp >= 0) close(store->temp);
    if (store->made_temp) unlinkat(store->root, HLSNAP__OCI_TEMP, AT_REMOVEDIR);
    if (failed && store->lock >= 0 && hlsnap__oci_lock_alone(store)) {
        if (store->made_sha256) unlinkat(store->blobs, "sha256", AT_REMOVEDIR);
        if (store->made_blobs) unlinkat(store->root, "blobs", AT_REMOVEDIR);
        if (store->made_lock) unlinkat(store->root, HLSNAP__OCI_LOCK, 0);
    }
    if (failed && store->made_root) rmdir(dir); /* succeeds only when it is empty */
    if (store->lock >= 0) { /* not only closed: a child of this process may have the file open, too */
        hlsnap__oci_unlock(store, HLSNAP__OCI_LOCK_TURN);
        hlsnap__oci_unlock(store, HLSNAP__OCI_LOCK_INDEX);
        hlsnap__oci_unlock(store, HLSNAP__OCI_LOCK_GC);
        close(store->lock);
    }
    if (store->sha256 >= 0) close(store->sha256);
    if (store->blobs >= 0) close(store->blobs);
    if (store->root >= 0) close(store->root);
    store->root = store->blobs = store->sha256 = store->temp = store->lock = -1;
}

typedef struct hlsnap__oci_index hlsnap__oci_index;
static hlsnap_result hlsnap__oci_layout_check(int root, bool *marked, bool *indexed, hlsnap_error *err);
static hlsnap_result hlsnap__oci_index_missing(int root, hlsnap_error *err);
static hlsnap_result hlsnap__oci_index_check(int root, hlsnap_error *err);

static void hlsnap__oci_store_none(hlsnap__oci_store *store) {
    memset(store, 0, sizeof(*store));
    store->desc = &hlsnap__oci_no_desc;
    store->root = store->blobs = store->sha256 = store->temp = store->lock = -1;
}

/* Checks what is there, before anything is written; whether it is a layout at all, when it must be one. */
static hlsnap_result hlsnap__oci_store_check(int root, bool must_be, hlsnap_error *err) {
    bool marked = false, indexed = false;
    hlsnap_result r = hlsnap__oci_layout_check(root, &marked, &indexed, err);
    if (!r && must_be)
        return indexed ? r : hlsnap__oci_index_missing(root, err); /* and is read under its lock at once */
    return r || !indexed ? r : hlsnap__oci_index_check(root, err);
}

/* Opens the directories of blobs, which must be there. */
static hlsnap_result hlsnap__oci_open_dirs(hlsnap__oci_store *store, hlsnap_error *err) {
    store->blobs = openat(store->root, "blobs", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (store->blobs < 0) return hlsnap__oci_os(err, errno, "open", "blobs");
    store->sha256 = openat(store->blobs, "sha256", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return store->sha256 < 0 ? hlsnap__oci_os(err, errno, "open", "blobs/sha256") : HLSNAP_OK;
}

/* Before a store is opened once more, because the name of the lock file led elsewhere when the lock was got. A file that was
   removed is no reason to give up: who waits for a lock behind others may find that many times. Then it is waited for as
   for a lock. *odd: how often in a row it was something else. */
static hlsnap_result hlsnap__oci_lock_again(const char *dir, hlsnap__oci_store *store, int *tries, int *odd,
                                            uint64_t *pause, hlsnap_error *err) {
    struct stat st;
    const bool removed = store->lock >= 0 && fstat(store->lock, &st) == 0 && !st.st_nlink;
    *odd = removed ? 0 : *odd + 1;
    if (store->root >= 0) hlsnap__oci_store_close(dir, store, false);
    if (*odd >= 100)
        return hlsnap__fail(err, HLSNAP_ERR_OS, EAGAIN,
                            HLSNAP__OCI_LOCK ": it, or its directory, is another one each time (errno %d)", EAGAIN);
    return ++*tries < 8 ? HLSNAP_OK : hlsnap__oci_lock_wait(store, pause, err);
}

/* Opens a layout: checks it, or makes its directory when `create` says so, and takes the gc lock. Whatever comes of it, the
   store must be closed. */
static hlsnap_result hlsnap__oci_store_open(const char *dir, hlsnap__oci_store *store, const hlsnap_oci_desc *desc,
                                            int type, bool create, hlsnap_error *err) {
    bool stale = true, again;
    uint64_t pause = 100000;
    hlsnap_result r = HLSNAP_OK;
    int tries = 0, odd = 0;
    hlsnap__oci_store_none(store);
    store->desc = desc;
    for (again = false; stale; again = true) {
        if (again) r = hlsnap__oci_lock_again(dir, store, &tries, &odd, &pause, err);
        if (!r) r = hlsnap__oci_open_root(dir, &store->root, err);
        if (r) return r;
        if (store->root >= 0) {
            r = hlsnap__oci_store_check(store->root, !create, err);
        } else if (!create) {
            return hlsnap__oci_no_layout(err);
        } else {
            store->made_root = mkdir(dir, 0700) == 0;
            if (!store->made_root && errno != EEXIST)
                return hlsnap__oci_os(err, errno, errno == ENOENT ? "its parent" : "mkdir", dir);
            store->root = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
            if (store->root < 0 && errno == ENOENT && !store->made_root) continue; /* made and unmade by another save */
            if (store->root < 0) return hlsnap__oci_os(err, errno, "open", dir);
        }
        if (!r) r = hlsnap__oci_store_owner(store, err);
        if (!r) r = hlsnap__oci_lock_open(store, type, &stale, err);
        if (r) return r;
    }
    if (!create) return hlsnap__oci_open_dirs(store, err);
    r = hlsnap__oci_make_dir(store, store->root, "blobs", &store->blobs, &store->made_blobs, err);
    return r ? r : hlsnap__oci_make_dir(store, store->blobs, "sha256", &store->sha256, &store->made_sha256, err);
}

/* Notes in the lock file that there is an index, for the day when there is none. Best effort. Under the index lock. */
static void hlsnap__oci_index_noted(const hlsnap__oci_store *store) {
    static const char mark = HLSNAP__OCI_MARK_WAS;
    hlsnap_error unused;
    if (hlsnap__oci_mark(store) != mark && !hlsnap__file_room(1, "the lock file", &unused))
        hlsnap__pwrite(store->lock, &mark, 1, 0, &unused);
}

/* Brings a file or directory to the disk. Some file systems have nothing that a directory could be synced with, and say EINVAL. */
static hlsnap_result hlsnap__oci_fsync(int fd, const char *what, hlsnap_error *err) {
    struct stat st;
    int r, saved;
    do r = fsync(fd);
    while (r < 0 && errno == EINTR);
    saved = r ? errno : 0;
    if (!r || ((saved == EINVAL || saved == EOPNOTSUPP) && fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)))
        return HLSNAP_OK;
    return hlsnap__oci_os(err, saved, "fsync", what);
}

/* ---- >>blobs: written without a name, named when they are complete and on the disk ---- */

#define HLSNAP__OCI_START_WRITING 2 /* SYNC_FILE_RANGE_WRITE, of Linux; libc has it for _GNU_SOURCE only */

typedef struct hlsnap__oci_blob {
    int fd;        /* -1: none */
    char temp[64]; /* its name for now, where there is no O_TMPFILE; else "" */
    int at;        /* the directory of that name: the store's root or temp */
    char digest[72];
    uint64_t size;
    bool named;    /* this save gave it its name, and takes it back when it fails */
    bool unsynced; /* a file of that name could not be brought to the disk: it must be replaced */
    bool young;    /* the times of the file below may not tell the next change */
    bool shared;   /* a file of that name was there and hashed whole; these tell it again: */
    uint64_t dev, ino, ctime_s, ctime_ns; /* 0: not known */
} hlsnap__oci_blob;

static void hlsnap__oci_blob_none(hlsnap__oci_blob *b) {
    memset(b, 0, sizeof(*b));
    b->fd = -1;
}

/* A new empty file in a directory of its own at the root, never beside the blobs, where tools take every name for a digest.
   The directory is opened once, and is no link: what is written must not end up elsewhere. */
static hlsnap_result hlsnap__oci_blob_create_named(hlsnap__oci_store *store, hlsnap__oci_blob *b, hlsnap_error *err) {
    hlsnap_result r = HLSNAP_OK;
    bool made;
    int i;
    for (i = 0; i < 100; i++) {
        store->made_temp = true;
        r = store->temp >= 0 ? HLSNAP_OK
                             : hlsnap__oci_make_dir(store, store->root, HLSNAP__OCI_TEMP, &store->temp, &made, err);
        if (r && err->os_errno != ENOENT) return r;
        hlsnap__oci_temp_name(b->temp, sizeof(b->temp));
        b->at = store->temp;
        b->fd = r ? -1 : openat(b->at, b->temp, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, store->file_mode);
        if (b->fd >= 0) return hlsnap__oci_give(store, b->fd, store->file_mode, "a new file", err);
        b->temp[0] = 0;
        if (!r) r = hlsnap__oci_os(err, errno, "create a file in", HLSNAP__OCI_TEMP);
        if (err->os_errno != EEXIST && err->os_errno != ENOENT) return r;
        if (err->os_errno == EEXIST || store->temp < 0) continue;
        close(store->temp); /* another save just removed the directory; this one has nothing in it */
        store->temp = -1;
    }
    return r;
}

/* A new empty file in the file system of directory at: without a name, where that is possible. */
static hlsnap_result hlsnap__oci_blob_create(hlsnap__oci_store *store, int at, hlsnap__oci_blob *b, hlsnap_error *err) {
    b->fd = openat(at, ".", HLSNAP__OCI_O_TMPFILE | O_RDWR | O_CLOEXEC, store->file_mode);
    if (b->fd >= 0) return hlsnap__oci_give(store, b->fd, store->file_mode, "a new file", err);
    if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL && errno != ENOENT)
        return hlsnap__oci_os(err, errno, "create a file", at == store->root ? "the layout" : "blobs/sha256");
    return hlsnap__oci_blob_create_named(store, b, err);
}

/* Closes a file; takes back its name when the save failed. */
static void hlsnap__oci_blob_close(const hlsnap__oci_store *store, hlsnap__oci_blob *b, bool failed) {
    if (failed && b->named) unlinkat(store->sha256, b->digest + 7, 0);
    if (b->temp[0]) unlinkat(b->at, b->temp, 0);
    if (b->fd >= 0) close(b->fd);
    b->fd = -1;
    b->temp[0] = 0;
    b->named = false;
}

/* Gives the file a name that is not taken: 0, or -1 and errno. Where there are no hard links it is looked whether the name is
   taken: whoever gives names here holds the index lock, and what another tool puts there meanwhile is the same bytes. */
static int hlsnap__oci_link(hlsnap__oci_blob *b, int at, const char *name) {
    struct stat st;
    if (!b->temp[0]) return hlsnap__oci_link_fd(b->fd, at, name);
    if (linkat(b->at, b->temp, at, name, 0) == 0) {
        if (unlinkat(b->at, b->temp, 0) == 0) b->temp[0] = 0;
        return 0;
    }
    if (!hlsnap__oci_cannot(errno) && errno != EMLINK) return -1;
    if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) == 0) errno = EEXIST;
    if (errno != ENOENT || renameat(b->at, b->temp, at, name) != 0) return -1;
    b->temp[0] = 0;
    return 0;
}

/* Gives the file a name, taken or not, in one step. */
static hlsnap_result hlsnap__oci_replace(const hlsnap__oci_store *store, hlsnap__oci_blob *b, int at, const char *name,
                                         hlsnap_error *err) {
    char temp[64];
    int i, r = -1;
    for (i = 0; !b->temp[0] && i < 100; i++) {
        hlsnap__oci_temp_name(temp, sizeof(temp));
        r = hlsnap__oci_link(b, store->root, temp);
        if (r == 0) {
            memcpy(b->temp, temp, sizeof(temp));
            b->at = store->root;
        } else if (errno != EEXIST)
            return hlsnap__oci_os(err, errno, "link", temp);
    }
    if (!b->temp[0] || renameat(b->at, b->temp, at, name) != 0) return hlsnap__oci_os(err, errno, "rename", name);
    b->temp[0] = 0;
    return HLSNAP_OK;
}

/* A small file, complete; not on the disk yet, so that one journal commit can do for several. */
static hlsnap_result hlsnap__oci_file_write(hlsnap__oci_store *store, int at, hlsnap__oci_blob *b, const void *data,
                                            size_t n, hlsnap_error *err) {
    hlsnap_result r = hlsnap__file_room(n, "a file", err);
    b->size = n;
    if (!r) r = hlsnap__oci_blob_create(store, at, b, err);
    return r ? r : hlsnap__pwrite(b->fd, data, n, 0, err);
}

/* Whether nobody loses or gains a right to a file that has these owners instead of those that it had; else an error. */
static hlsnap_result hlsnap__oci_kept(const struct stat *is, const struct stat *was, const uint8_t *acl, size_t size,
                                      const char *name, hlsnap_error *err) {
    const unsigned group = hlsnap__oci_group_may(was->st_mode, acl, size);
    if (is->st_gid != was->st_gid && group != ((unsigned)was->st_mode & 7))
        return hlsnap__fail(err, HLSNAP_ERR_OS, EPERM,
                            "%s: it is of group %u, which would lose it: only a member or root may replace it", name,
                            (unsigned)was->st_gid);
    if (is->st_uid == was->st_uid || (is->st_gid == was->st_gid && (group & 6) == 6)) return HLSNAP_OK;
    return hlsnap__fail(err, HLSNAP_ERR_OS, EPERM,
                        "%s: it is user %u's, who would lose it: only that user or root may replace it, or its group "
                        "%u where that may write",
                        name, (unsigned)was->st_uid, (unsigned)was->st_gid);
}

/* Gives a file owner, group, permissions and ACL of the open one that it is to replace. */
static hlsnap_result hlsnap__oci_keep_of(const hlsnap__oci_store *store, int fd, int old, const char *name,
                                         hlsnap_error *err) {
    uint8_t acl[HLSNAP__OCI_ACL_MAX];
    struct stat was, is;
    size_t size = 0;
    mode_t mode;
    hlsnap_result r = HLSNAP_OK;
    if (fstat(old, &was) != 0) return hlsnap__oci_os(err, errno, "stat", name);
    r = hlsnap__oci_acl_read(old, HLSNAP__OCI_ACL, acl, &size, name, err);
    if (r) return r;
    if (size ? fsetxattr(fd, HLSNAP__OCI_ACL, acl, size, 0) != 0
             : store->inherits && fremovexattr(fd, HLSNAP__OCI_ACL) != 0 && errno != ENODATA)
        return hlsnap__oci_os(err, errno, "set its ACL", name);
    if (fstat(fd, &is) != 0) return hlsnap__oci_os(err, errno, "stat", name);
    mode = (was.st_mode | (mode_t)store->desc->mode) & 0666;
    if ((is.st_mode & 0777) != mode && ((is.st_mode ^ was.st_mode) & 0777 || store->desc->mode) &&
        fchmod(fd, mode) != 0)
        return hlsnap__oci_os(err, errno, "chmod", name);
    if (hlsnap__oci_chown(fd, &is, was.st_uid, was.st_gid) != 0 && !hlsnap__oci_cannot(errno))
        return hlsnap__oci_os(err, errno, "chown", name);
    if (fstat(fd, &is) != 0) return hlsnap__oci_os(err, errno, "stat", name);
    return hlsnap__oci_kept(&is, &was, acl, size, name, err);
}

/* The same for a file of that name, where there is one: who could use it can use the new one, or it is refused. */
static hlsnap_result hlsnap__oci_keep(const hlsnap__oci_store *store, int fd, const char *name, hlsnap_error *err) {
    uint64_t size;
    int old;
    hlsnap_result r = hlsnap__oci_open(store->root, name, &old, &size, err);
    if (r) return r == HLSNAP_ERR_FILE && err->os_errno == ENOENT ? HLSNAP_OK : r;
    r = hlsnap__oci_keep_of(store, fd, old, name, err);
    close(old);
    return r;
}

/* A small file that will stand at the root, as hlsnap__oci_file_write. */
static hlsnap_result hlsnap__oci_root_write(hlsnap__oci_store *store, hlsnap__oci_blob *b, const char *name,
                                            const char *data, size_t n, hlsnap_error *err) {
    hlsnap_result r = hlsnap__oci_file_write(store, store->root, b, data, n, err);
    return r ? r : hlsnap__oci_keep(store, b->fd, name, err);
}

/* Finds out whether index.json may be replaced at all, before much is written. */
static hlsnap_result hlsnap__oci_root_probe(hlsnap__oci_store *store, const char *name, hlsnap_error *err) {
    hlsnap__oci_blob b;
    struct stat st;
    hlsnap_result r = HLSNAP_OK;
    if (fstatat(store->root, name, &st, AT_SYMLINK_NOFOLLOW) != 0 || (st.st_uid == geteuid() && st.st_gid == getegid()))
        return HLSNAP_OK;
    hlsnap__oci_blob_none(&b);
    r = hlsnap__oci_blob_create(store, store->root, &b, err);
    if (!r) r = hlsnap__oci_keep(store, b.fd, name, err);
    hlsnap__oci_blob_close(store, &b, false);
    return r;
}

/* Puts such a file under its name, in one step, once the disk has it. */
static hlsnap_result hlsnap__oci_root_name(hlsnap__oci_store *store, hlsnap__oci_blob *b, const char *name,
                                           hlsnap_error *err) {
    hlsnap_result r = hlsnap__oci_fsync(b->fd, name, err);
    return r ? r : hlsnap__oci_replace(store, b, store->root, name, err);
}

static hlsnap_result hlsnap__oci_marker_write(hlsnap__oci_store *store, hlsnap_error *err) {
    static const char marker[] = "{\"imageLayoutVersion\":\"1.0.0\"}";
    hlsnap__oci_blob b;
    hlsnap_result r;
    hlsnap__oci_blob_none(&b);
    r = hlsnap__oci_root_write(store, &b, "oci-layout", marker, sizeof(marker) - 1, err);
    if (!r) r = hlsnap__oci_root_name(store, &b, "oci-layout", err);
    hlsnap__oci_blob_close(store, &b, false);
    return r;
}

/* An open file holds exactly the bytes of a digest, and its chunk list is that of another one, or any (NULL). */
static hlsnap_result hlsnap__oci_hash_file(int fd, uint64_t size, const char *digest, const char *chunks,
                                           const hlsnap__sha256_ways *sha, uint8_t *buffer, hlsnap_error *err) {
    hlsnap__sha256 whole, list;
    uint8_t sum[32], sums[HLSNAP__OCI_BATCH / HLSNAP__OCI_CHUNK * 32];
    char text[72];
    uint64_t at;
    size_t n;
    hlsnap__sha256_init(&whole, sha->one);
    hlsnap__sha256_init(&list, sha->one);
    for (at = 0; at < size; at += n) {
        hlsnap_result r;
        n = size - at < HLSNAP__OCI_BATCH ? (size_t)(size - at) : HLSNAP__OCI_BATCH;
        r = hlsnap__pread(fd, buffer, n, at, err);
        if (r) return r;
        hlsnap__sha256_update(&whole, buffer, n);
        if (!chunks) continue;
        hlsnap__sha256_chunks(sha, buffer, n, HLSNAP__OCI_CHUNK, sums);
        hlsnap__sha256_update(&list, sums, (n + HLSNAP__OCI_CHUNK - 1) / HLSNAP__OCI_CHUNK * 32);
    }
    hlsnap__sha256_final(&whole, sum);
    hlsnap__sha256_text(sum, text);
    if (strcmp(text, digest) != 0)
        return hlsnap__fail(err, HLSNAP_ERR_DIGEST, 0, "blobs/sha256/%s: its content is %s", digest + 7, text);
    hlsnap__sha256_final(&list, sum);
    hlsnap__sha256_text(sum, text);
    if (!chunks || strcmp(text, chunks) == 0) return HLSNAP_OK;
    return hlsnap__fail(err, HLSNAP_ERR_DIGEST, 0, "blobs/sha256/%s: its chunk list is %s, not %s", digest + 7, text,
                        chunks);
}

/* Whether st is the file that was found to be a blob's equal. */
static bool hlsnap__oci_blob_same(const hlsnap__oci_blob *b, const struct stat *st) {
    return b->shared && S_ISREG(st->st_mode) && (uint64_t)st->st_dev == b->dev && (uint64_t)st->st_ino == b->ino &&
           (uint64_t)st->st_size == b->size && (uint64_t)st->st_ctim.tv_sec == b->ctime_s &&
           (uint64_t)st->st_ctim.tv_nsec == b->ctime_ns;
}

static void hlsnap__oci_blob_stat(hlsnap__oci_blob *b, const struct stat *st) {
    b->dev = (uint64_t)st->st_dev;
    b->ino = (uint64_t)st->st_ino;
    b->ctime_s = (uint64_t)st->st_ctim.tv_sec;
    b->ctime_ns = (uint64_t)st->st_ctim.tv_nsec;
}

/* Whether a file changed so lately that another change in the same tick of the clock would not be seen. */
static bool hlsnap__oci_young(const struct stat *st) {
    struct timespec now = {0, 0};
    clock_gettime(CLOCK_REALTIME, &now);
    if (st->st_ctim.tv_sec > now.tv_sec) return true; /* the clock was set back: how old it is, nobody knows */
    return now.tv_sec - 2 < st->st_ctim.tv_sec &&
           (now.tv_sec - st->st_ctim.tv_sec) * 1000000000 + (now.tv_nsec - st->st_ctim.tv_nsec) < 20000000;
}

/* Looks whether the blob is in the layout already, and sound: then b->shared. Anything else will be replaced. For a blob that
   is known, known says what its chunk list is, since a load checks only that, and of which file all this was found out. */
static void hlsnap__oci_blob_look(const hlsnap__oci_store *store, hlsnap__oci_blob *b, const hlsnap__place *known,
                                  const hlsnap__sha256_ways *sha, uint8_t *buffer) {
    hlsnap_error unused;
    struct stat st;
    uint64_t size;
    int fd;
    b->shared = false;
    if (hlsnap__oci_open(store->sha256, b->digest + 7, &fd, &size, &unused) != HLSNAP_OK) return;
    if (fstat(fd, &st) == 0 && size == b->size) {
        const bool young = hlsnap__oci_young(&st); /* asked before it is read */
        hlsnap__oci_blob_stat(b, &st);
        b->shared = known && known->ino == b->ino && known->dev == b->dev && known->ctime_s == b->ctime_s &&
                    known->ctime_ns == b->ctime_ns;
        if (!b->shared && hlsnap__oci_hash_file(fd, b->size, b->digest, known ? known->chunks : NULL, sha, buffer,
                                                &unused) == HLSNAP_OK) {
            /* who wrote it may not have done that; a failure is reported once only, so it is never asked again */
            if (hlsnap__oci_fsync(fd, b->digest, &unused) != HLSNAP_OK) b->unsynced = true;
            b->shared = !b->unsynced;
            b->young = young;
        }
    }
    close(fd);
}

/* Makes the blob's name stand for its content. Under the index lock. */
static hlsnap_result hlsnap__oci_blob_commit(const hlsnap__oci_store *store, hlsnap__oci_blob *b,
                                             const hlsnap__sha256_ways *sha, uint8_t *buffer, hlsnap_error *err) {
    const char *name = b->digest + 7;
    struct stat st;
    if (fstatat(store->sha256, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && hlsnap__oci_blob_same(b, &st)) return HLSNAP_OK;
    if (hlsnap__oci_link(b, store->sha256, name) == 0) {
        b->named = true;
        if (fstat(b->fd, &st) == 0) hlsnap__oci_blob_stat(b, &st);
        return HLSNAP_OK;
    }
    if (errno != EEXIST) return hlsnap__oci_os(err, errno, "link", name);
    if (!b->unsynced) hlsnap__oci_blob_look(store, b, NULL, sha, buffer); /* came meanwhile, changed, or is not sound */
    return b->shared ? HLSNAP_OK : hlsnap__oci_replace(store, b, store->sha256, name, err);
}

/* ---- >>index: oci-layout, index.json, descriptors ---- */

typedef struct hlsnap__oci_ref { /* a descriptor; points into its document */
    const char *type, *digest;
    uint64_t size;
} hlsnap__oci_ref;

/* "type/subtype" of RFC 6838, no parameters. */
static bool hlsnap__oci_media_type_ok(const char *s) {
    static const char first[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    static const char rest[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$&^_.+-";
    int part;
    for (part = 0; part < 2; part++) {
        size_t n = strspn(s, rest);
        if (n < 1 || n > 127 || !strspn(s, first) || s[n] != (part ? 0 : '/')) return false;
        s += n + 1;
    }
    return true;
}

/* The digest of any descriptor; only sha256 ones name files that this code opens. */
static bool hlsnap__oci_digest_ok(const char *s) {
    static const char word[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    static const char encoded[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789=_-";
    const char *at = s;
    size_t n;
    if (strncmp(s, "sha256:", 7) == 0) return hlsnap__sha256_text_ok(s);
    for (;;) {
        n = strspn(at, word);
        if (!n) return false;
        at += n;
        if (!*at || !(strchr)("+._-", *at)) break;
        at++;
    }
    if (*at++ != ':') return false;
    n = strspn(at, encoded);
    return n > 0 && !at[n];
}

/* Go's readers match names without regard to case, fold U+017F to s and U+212A to k, and take the last: of a name that is so
   like one that counts they would read another value. Returns that one, or NULL. */
static const char *hlsnap__oci_folds_to(const char *name) {
    static const char *const known[] = {"imageLayoutVersion",
                                        "schemaVersion",
                                        "mediaType",
                                        "artifactType",
                                        "config",
                                        "layers",
                                        "manifests",
                                        "subject",
                                        "annotations",
                                        "digest",
                                        "size",
                                        "urls",
                                        "data",
                                        "platform",
                                        NULL};
    size_t i;
    for (i = 0; known[i]; i++) {
        const char *p = name, *q = known[i];
        for (; *q; q++) {
            const unsigned char c = (unsigned char)*p;
            const char low = (char)(c >= 'A' && c <= 'Z' ? c + 32 : c),
                       want = (char)(*q >= 'A' && *q <= 'Z' ? *q + 32 : *q);
            if (low == want)
                p++;
            else if (want == 's' && c == 0xc5 && (unsigned char)p[1] == 0xbf)
                p += 2;
            else if (want == 'k' && c == 0xe2 && (unsigned char)p[1] == 0x84 && (unsigned char)p[2] == 0xaa)
                p += 3;
            else
                break;
        }
        if (!*q && !*p) return strcmp(name, known[i]) ? known[i] : NULL;
    }
    return NULL;
}

static hlsnap_result hlsnap__oci_fold(const hlsnap__json *d, const char *path, const char *name, hlsnap_error *err) {
    const char *like = hlsnap__oci_folds_to(name);
    char shown[72];
    if (!like) return HLSNAP_OK;
    hlsnap__printable(shown, sizeof(shown), name, strlen(name), false);
    return hlsnap__fail(err, d->code, 0, "%s: %s%s: other readers take this for '%s'", d->file, path, shown, like);
}

/* No name of an object is one that other readers take for another. */
static hlsnap_result hlsnap__oci_names_check(const hlsnap__json *d, const cJSON *o, const char *path,
                                             hlsnap_error *err) {
    const cJSON *c;
    hlsnap_result r = HLSNAP_OK;
    for (c = o->child; c && !r; c = c->next) r = hlsnap__oci_fold(d, path, c->string, err);
    return r;
}

/* Annotations are strings, or not there. */
static hlsnap_result hlsnap__oci_annotations_check(const hlsnap__json *d, const cJSON *o, const char *path,
                                                   hlsnap_error *err) {
    const cJSON *a = hlsnap__json_get(o, "annotations"), *c;
    if (!a) return HLSNAP_OK;
    if (!cJSON_IsObject(a)) return hlsnap__json_bad(d, path, "annotations", "an object", a, err);
    for (c = a->child; c; c = c->next)
        if (!cJSON_IsString(c)) return hlsnap__json_bad(d, path, "annotations", "strings only", c, err);
    return HLSNAP_OK;
}

static hlsnap_result hlsnap__oci_ref_read(const hlsnap__json *d, const cJSON *o, const char *path, hlsnap__oci_ref *out,
                                          hlsnap_error *err) {
    hlsnap_result r;
    if (!cJSON_IsObject(o)) return hlsnap__json_bad(d, path, "", "a descriptor", o, err);
    r = hlsnap__oci_names_check(d, o, path, err);
    if (!r) r = hlsnap__json_string(d, o, path, "mediaType", &out->type, err);
    if (!r && !hlsnap__oci_media_type_ok(out->type))
        r = hlsnap__json_bad(d, path, "mediaType", "type/subtype", hlsnap__json_get(o, "mediaType"), err);
    if (!r) r = hlsnap__json_string(d, o, path, "digest", &out->digest, err);
    if (!r && !hlsnap__oci_digest_ok(out->digest))
        r = hlsnap__json_bad(d, path, "digest", "sha256:<64 lowercase hex>", hlsnap__json_get(o, "digest"), err);
    if (!r) r = hlsnap__json_int(d, o, path, "size", HLSNAP__JSON_INT_MAX, &out->size, err);
    return r ? r : hlsnap__oci_annotations_check(d, o, path, err);
}

/* A descriptor of a file that is about to be opened: sha256, and of a size from min to max. */
static hlsnap_result hlsnap__oci_ref_usable(const hlsnap__json *d, const char *path, const hlsnap__oci_ref *ref,
                                            uint64_t min, uint64_t max, hlsnap_error *err) {
    char shown[80];
    hlsnap__printable(shown, sizeof(shown), ref->digest, strlen(ref->digest), false);
    if (!hlsnap__sha256_text_ok(ref->digest))
        return hlsnap__fail(err, d->code, 0, "%s: %sdigest: expected sha256:<64 lowercase hex>, found '%s'", d->file,
                            path, shown);
    if (ref->size >= min && ref->size <= max) return HLSNAP_OK;
    return hlsnap__fail(err, d->code, 0, "%s: %ssize: expected %llu to %llu, found %llu", d->file, path,
                        (unsigned long long)min, (unsigned long long)max, (unsigned long long)ref->size);
}

/* A manifest's schemaVersion is 2, its mediaType, where there is one, as it must be. */
static hlsnap_result hlsnap__oci_schema_check(const hlsnap__json *d, const char *type, hlsnap_error *err) {
    const cJSON *version = hlsnap__json_get(d->root, "schemaVersion"), *found = hlsnap__json_get(d->root, "mediaType");
    hlsnap_result r = hlsnap__oci_names_check(d, d->root, "", err);
    if (r) return r;
    if (!cJSON_IsNumber(version) || version->valuedouble < 2 || version->valuedouble > 2)
        return hlsnap__json_bad(d, "", "schemaVersion", "2", version, err);
    if (found && (!cJSON_IsString(found) || strcmp(found->valuestring, type) != 0))
        return hlsnap__json_bad(d, "", "mediaType", type, found, err);
    return hlsnap__oci_annotations_check(d, d->root, "", err);
}

/* Checks oci-layout. */
static hlsnap_result hlsnap__oci_marker_read(int root, hlsnap_error *err) {
    hlsnap__json d;
    const cJSON *v;
    hlsnap_result r;
    memset(&d, 0, sizeof(d));
    r = hlsnap__oci_read_text(root, "oci-layout", HLSNAP__OCI_JSON_MAX, HLSNAP_ERR_LAYOUT, &d, err);
    if (!r) r = hlsnap__json_parse(&d, err);
    if (!r) r = hlsnap__oci_names_check(&d, d.root, "", err);
    v = r ? NULL : hlsnap__json_get(d.root, "imageLayoutVersion");
    if (!r && (!cJSON_IsString(v) || strcmp(v->valuestring, "1.0.0") != 0))
        r = hlsnap__json_bad(&d, "", "imageLayoutVersion", "'1.0.0'", v, err);
    hlsnap__json_close(&d);
    return r;
}

/* An entry of the index. Strings are decoded; NULL: not there. */
typedef struct hlsnap__oci_entry {
    hlsnap__json_span text; /* as it is written */
    const char *type;       /* "": none, so nothing that is read here */
    const char *digest, *tag, *artifact, *created;
    uint64_t size;
} hlsnap__oci_entry;

/* index.json, which may have many entries: one walk over its text, no tree. */
struct hlsnap__oci_index {
    hlsnap__json doc; /* root is not used */
    hlsnap__oci_entry *entries;
    uint32_t num, cap;
    bool there;    /* else no document */
    char *strings; /* decoded ones; as large as the document */
    size_t used;
};

static void hlsnap__oci_index_close(hlsnap__oci_index *index) {
    hlsnap__json_close(&index->doc);
    hlsnap__free(index->entries);
    hlsnap__free(index->strings);
    memset(index, 0, sizeof(*index));
}

/* A string as it is written, decoded. */
static const char *hlsnap__oci_index_string(hlsnap__oci_index *index, hlsnap__json_span span) {
    static const char *const often[] = {HLSNAP__OCI_MANIFEST_TYPE, HLSNAP__OCI_ARTIFACT_TYPE};
    const unsigned char *p = (const unsigned char *)span.at + 1;
    char *start = index->strings + index->used, *to = start;
    uint32_t c;
    size_t i;
    for (i = 0; i < 2; i++)
        if (span.size == strlen(often[i]) + 2 && memcmp(span.at + 1, often[i], span.size - 2) == 0) return often[i];
    if (!hlsnap__json_escaped(span)) { /* as nearly all are */
        memcpy(to, span.at + 1, span.size - 2);
        to += span.size - 2;
        p = (const unsigned char *)span.at + span.size - 1;
    }
    while ((c = hlsnap__json_char(&p)) != 0) {
        if (c < 0x80) {
            *to++ = (char)c;
            continue;
        }
        if (c >= 0x10000) *to++ = (char)(0xf0 | c >> 18);
        if (c >= 0x800) *to++ = (char)(c >= 0x10000 ? 0x80 | (c >> 12 & 0x3f) : 0xe0 | c >> 12);
        *to++ = (char)(c >= 0x800 ? 0x80 | (c >> 6 & 0x3f) : 0xc0 | c >> 6);
        *to++ = (char)(0x80 | (c & 0x3f));
    }
    *to++ = 0;
    index->used += (size_t)(to - start);
    return start;
}

/* Fills err for a value of the index, as it is written; at == NULL: there is none. */
static hlsnap_result hlsnap__oci_index_bad(const hlsnap__oci_index *index, const char *path, const char *name,
                                           const char *expected, hlsnap__json_span found, hlsnap_error *err) {
    char text[100] = "nothing", member[72];
    size_t n = found.at ? found.size : 0;
    if (found.at) hlsnap__printable(text, sizeof(text), found.at, n, false);
    hlsnap__printable(member, sizeof(member), name, strlen(name), false);
    return hlsnap__fail(err, index->doc.code, 0, "%s: %s%s: expected %s, found %s", index->doc.file, path, member,
                        expected,
                        found.at && *found.at == '{'   ? "an object"
                        : found.at && *found.at == '[' ? "an array"
                                                       : text);
}

/* What a walk through the index is about. */
typedef struct hlsnap__oci_walk {
    hlsnap__oci_index *index;
    hlsnap__json_scan s;
    hlsnap_error *err;
    hlsnap_result r; /* what is wrong with its content; JSON that is not sound is in s.why */
    bool entry;      /* it stands in entry number index->num */
    char path[32];   /* hlsnap__oci_walk_path */
} hlsnap__oci_walk;

/* The next value; false: not JSON. */
static bool hlsnap__oci_walk_value(hlsnap__oci_walk *w, hlsnap__json_span *value) {
    const unsigned char *from = w->s.p;
    w->s.odd_why = NULL;
    if (!hlsnap__json_value_scan(&w->s)) return false;
    *value = hlsnap__json_span_from(from, &w->s);
    return true;
}

/* Where it stands, for a message. */
static const char *hlsnap__oci_walk_path(hlsnap__oci_walk *w) {
    if (!w->entry) return "";
    hlsnap__format(w->path, sizeof(w->path), "manifests[%u].", w->index->num);
    return w->path;
}

static bool hlsnap__oci_walk_bad(hlsnap__oci_walk *w, const char *name, const char *expected, hlsnap__json_span found) {
    if (!w->r) w->r = hlsnap__oci_index_bad(w->index, hlsnap__oci_walk_path(w), name, expected, found, w->err);
    return true; /* the rest of the text is looked at: what is no JSON is told as such */
}

/* A name that may be one that counts, with what it is like refused. Long ones are none. */
static bool hlsnap__oci_walk_name(hlsnap__oci_walk *w, hlsnap__json_span span, char name[64]) {
    const size_t used = w->index->used;
    const char *decoded;
    name[0] = 0;
    if (span.size > 200) return false;
    decoded = hlsnap__oci_index_string(w->index, span);
    hlsnap__format(name, 64, "%s", strlen(decoded) < 64 ? decoded : "");
    w->index->used = used; /* it is not kept */
    if (!w->r && hlsnap__oci_folds_to(name))
        w->r = hlsnap__oci_fold(&w->index->doc, hlsnap__oci_walk_path(w), name, w->err);
    return name[0] != 0;
}

/* A member that must be a string; null is as good as none. */
static bool hlsnap__oci_walk_string(hlsnap__oci_walk *w, const char *name, hlsnap__json_span value, const char **out) {
    if (value.at[0] == 'n') return true;
    if (value.at[0] != '"') return hlsnap__oci_walk_bad(w, name, "a string", value);
    *out = hlsnap__oci_index_string(w->index, value);
    return true;
}

static bool hlsnap__oci_walk_annotations(hlsnap__oci_walk *w, hlsnap__oci_entry *e) {
    hlsnap__json_level level;
    hlsnap__json_span name, value;
    if (w->s.p >= w->s.end || *w->s.p != '{') {
        if (!hlsnap__oci_walk_value(w, &value)) return false;
        return value.at[0] == 'n' || hlsnap__oci_walk_bad(w, "annotations", "an object", value);
    }
    if (!hlsnap__json_enter(&w->s, &level)) return false;
    while (hlsnap__json_more(&w->s, &level, &name)) {
        const char **out = !e                                                 ? NULL
                           : hlsnap__json_name_is(name, HLSNAP__OCI_REF_NAME) ? &e->tag
                           : hlsnap__json_name_is(name, HLSNAP__OCI_CREATED)  ? &e->created
                                                                              : NULL;
        if (!hlsnap__oci_walk_value(w, &value)) return false;
        if (value.at[0] != '"' && value.at[0] != 'n')
            hlsnap__oci_walk_bad(w, "annotations", "strings only", value);
        else if (out && value.at[0] == '"')
            hlsnap__oci_walk_string(w, "annotations", value, out);
    }
    return !w->s.why[0];
}

/* A number that counts must be a plain integer. */
static bool hlsnap__oci_walk_plain(hlsnap__oci_walk *w) {
    if (!w->s.odd_why) return true;
    w->s.p = w->s.odd;
    return hlsnap__json_stop(&w->s, w->s.odd_why);
}

static bool hlsnap__oci_walk_size(hlsnap__oci_walk *w, hlsnap__json_span value, uint64_t *out) {
    size_t i;
    *out = 0;
    if (!hlsnap__oci_walk_plain(w)) return false;
    for (i = 0; i < value.size && i < 17 && value.at[i] >= '0' && value.at[i] <= '9'; i++)
        *out = *out * 10 + (uint64_t)(value.at[i] - '0');
    if (i == value.size && *out <= HLSNAP__JSON_INT_MAX) return true;
    return hlsnap__oci_walk_bad(w, "size", "an integer from 0 to 9007199254740992", value);
}

/* The members of an entry that count. */
static bool hlsnap__oci_walk_member(hlsnap__oci_walk *w, const char *name, hlsnap__oci_entry *e, bool *sized) {
    hlsnap__json_span value;
    if (strcmp(name, "annotations") == 0) return hlsnap__oci_walk_annotations(w, e);
    if (!hlsnap__oci_walk_value(w, &value)) return false;
    if (strcmp(name, "mediaType") == 0) return hlsnap__oci_walk_string(w, name, value, &e->type);
    if (strcmp(name, "digest") == 0) return hlsnap__oci_walk_string(w, name, value, &e->digest);
    if (strcmp(name, "artifactType") == 0 && value.at[0] == '"')
        return hlsnap__oci_walk_string(w, name, value, &e->artifact);
    if (strcmp(name, "size") != 0) return true;
    *sized = true;
    return hlsnap__oci_walk_size(w, value, &e->size);
}

/* What an entry must have. */
static void hlsnap__oci_walk_check(hlsnap__oci_walk *w, const hlsnap__oci_entry *e, bool sized) {
    hlsnap__json_span none = {NULL, 0}, found = {NULL, 0};
    if (e->type && !hlsnap__oci_media_type_ok(e->type)) {
        found.at = e->type;
        found.size = strlen(e->type);
        hlsnap__oci_walk_bad(w, "mediaType", "type/subtype", found);
    }
    found.at = e->digest;
    found.size = e->digest ? strlen(e->digest) : 0;
    if (!e->digest || !hlsnap__oci_digest_ok(e->digest))
        hlsnap__oci_walk_bad(w, "digest", "sha256:<64 lowercase hex>", found);
    if (!sized) hlsnap__oci_walk_bad(w, "size", "an integer from 0 to 9007199254740992", none);
}

static bool hlsnap__oci_walk_entry(hlsnap__oci_walk *w, hlsnap__oci_entry *e) {
    const unsigned char *from = w->s.p;
    hlsnap__json_level level;
    hlsnap__json_span span;
    bool sized = false;
    char name[64];
    memset(e, 0, sizeof(*e));
    if (from >= w->s.end || *from != '{')
        return hlsnap__oci_walk_value(w, &span) && hlsnap__oci_walk_bad(w, "", "a descriptor", span);
    if (!hlsnap__json_enter(&w->s, &level)) return false;
    while (hlsnap__json_more(&w->s, &level, &span)) {
        hlsnap__oci_walk_name(w, span, name);
        if (!hlsnap__oci_walk_member(w, name, e, &sized)) return false;
    }
    e->text = hlsnap__json_span_from(from, &w->s);
    if (!w->s.why[0]) hlsnap__oci_walk_check(w, e, sized);
    if (!e->type) e->type = "";
    return !w->s.why[0];
}

static bool hlsnap__oci_walk_room(hlsnap__oci_walk *w) {
    hlsnap__oci_index *index = w->index;
    const uint32_t cap = index->cap ? 2 * index->cap : 64;
    hlsnap__oci_entry *entries;
    if (index->num < index->cap) return true;
    entries = (hlsnap__oci_entry *)hlsnap__alloc(cap, sizeof(entries[0]), NULL);
    if (!entries) return hlsnap__json_stop(&w->s, hlsnap__json_no_memory);
    if (index->num) memcpy(entries, index->entries, index->num * sizeof(entries[0]));
    hlsnap__free(index->entries);
    index->entries = entries;
    index->cap = cap;
    return true;
}

static bool hlsnap__oci_walk_entries(hlsnap__oci_walk *w) {
    hlsnap__json_level level;
    hlsnap__json_span value;
    if (w->s.p >= w->s.end || *w->s.p != '[') {
        if (!hlsnap__oci_walk_value(w, &value)) return false;
        return value.at[0] == 'n' || hlsnap__oci_walk_bad(w, "manifests", "an array", value);
    }
    if (!hlsnap__json_enter(&w->s, &level)) return false;
    while (hlsnap__json_more(&w->s, &level, &value)) {
        w->entry = true;
        if (!hlsnap__oci_walk_room(w) || !hlsnap__oci_walk_entry(w, &w->index->entries[w->index->num])) return false;
        w->index->num++;
        if (w->r) w->index->num--; /* it is no entry */
    }
    w->entry = false;
    return !w->s.why[0];
}

/* The index itself. */
static bool hlsnap__oci_walk_index(hlsnap__oci_walk *w) {
    hlsnap__json_level level;
    hlsnap__json_span span, version = {NULL, 0}, type = {NULL, 0};
    bool listed = false;
    char name[64];
    if (w->s.p >= w->s.end || *w->s.p != '{') {
        if (!hlsnap__oci_walk_value(w, &span)) return false;
        w->r = hlsnap__fail(w->err, w->index->doc.code, 0, "%s: not an object", w->index->doc.file);
        return true;
    }
    if (!hlsnap__json_enter(&w->s, &level)) return false;
    while (hlsnap__json_more(&w->s, &level, &span)) {
        bool ok;
        hlsnap__oci_walk_name(w, span, name);
        if (strcmp(name, "manifests") == 0)
            listed = ok = hlsnap__oci_walk_entries(w);
        else if (strcmp(name, "annotations") == 0)
            ok = hlsnap__oci_walk_annotations(w, NULL);
        else
            ok = hlsnap__oci_walk_value(w, strcmp(name, "schemaVersion") == 0 ? &version
                                           : strcmp(name, "mediaType") == 0   ? &type
                                                                              : &span);
        if (!ok || (strcmp(name, "schemaVersion") == 0 && !hlsnap__oci_walk_plain(w))) return false;
    }
    if (w->s.why[0]) return false;
    if (version.size != 1 || version.at[0] != '2') hlsnap__oci_walk_bad(w, "schemaVersion", "2", version);
    if (type.at && type.at[0] != 'n' &&
        (type.at[0] != '"' || strcmp(hlsnap__oci_index_string(w->index, type), HLSNAP__OCI_INDEX_TYPE) != 0))
        hlsnap__oci_walk_bad(w, "mediaType", HLSNAP__OCI_INDEX_TYPE, type);
    span.at = NULL;
    if (!listed) hlsnap__oci_walk_bad(w, "manifests", "an array", span);
    return true;
}

/* Checks the form of an index whose text was read: strict JSON, every entry a descriptor. */
static hlsnap_result hlsnap__oci_index_parse(hlsnap__oci_index *index, hlsnap_error *err) {
    hlsnap__oci_walk w;
    bool ok;
    memset(&w, 0, sizeof(w));
    w.index = index;
    w.err = err;
    w.s = hlsnap__json_start(index->doc.text, index->doc.size);
    w.s.max_nodes = UINT32_MAX; /* it makes none */
    w.s.keep_names = true;
    index->strings = (char *)hlsnap__alloc_raw(index->doc.size + 1, err);
    if (!index->strings) return HLSNAP_ERR_MEMORY;
    hlsnap__json_space(&w.s);
    ok = hlsnap__oci_walk_index(&w);
    hlsnap__json_space(&w.s);
    if (ok && w.s.p != w.s.end) ok = hlsnap__json_stop(&w.s, "more text after the end");
    hlsnap__free(w.s.names);
    if (!ok) return hlsnap__json_stopped(&index->doc, &w.s, err);
    index->there = !w.r;
    return w.r;
}

/* Reads index.json and checks its form. */
static hlsnap_result hlsnap__oci_entries_read(int root, hlsnap__oci_index *index, hlsnap_error *err) {
    hlsnap_result r =
        hlsnap__oci_read_text(root, "index.json", HLSNAP__OCI_INDEX_READ, HLSNAP_ERR_INDEX, &index->doc, err);
    return r ? r : hlsnap__oci_index_parse(index, err);
}

static hlsnap_result hlsnap__oci_exists(int root, const char *name, bool *there, hlsnap_error *err) {
    struct stat st;
    *there = fstatat(root, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
    return *there || errno == ENOENT ? HLSNAP_OK : hlsnap__oci_os(err, errno, "stat", name);
}

/* Whether there is a blob, or anything else where they stand. */
static bool hlsnap__oci_has_blobs(int root) {
    hlsnap_error unused;
    hlsnap_result r;
    bool any = false;
    const int fd = hlsnap__oci_openat(root, "blobs/sha256", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d;
    if (fd < 0) return errno != ENOENT;
    d = hlsnap__oci_dir_open(fd, &unused, &r);
    any = !d || hlsnap__oci_dir_next(d, &unused, &r) || r;
    if (d) closedir(d);
    close(fd);
    return any;
}

static hlsnap_result hlsnap__oci_index_lost(hlsnap_error *err) {
    return hlsnap__fail(err, HLSNAP_ERR_FILE, ENOENT,
                        "index.json: lost: there is none, though blobs are there: put it back, or let fsck repair");
}

/* There is no index.json. Beside blobs it is lost, but where a lock file says that there was none yet: a first save was killed. */
static hlsnap_result hlsnap__oci_index_missing(int root, hlsnap_error *err) {
    if (!hlsnap__oci_has_blobs(root) || hlsnap__oci_unborn(root)) return hlsnap__oci_no_layout(err);
    return hlsnap__oci_index_lost(err);
}

/* Reads oci-layout and index.json, which must be there. */
static hlsnap_result hlsnap__oci_index_open(int root, hlsnap__oci_index *index, hlsnap_error *err) {
    bool indexed = false;
    hlsnap_error unused;
    hlsnap_result r = hlsnap__oci_marker_read(root, err);
    if (!r) r = hlsnap__oci_entries_read(root, index, err);
    if (r == HLSNAP_ERR_FILE && err->os_errno == ENOENT && !hlsnap__oci_exists(root, "index.json", &indexed, &unused) &&
        !indexed)
        return hlsnap__oci_index_missing(root, err);
    return r;
}

/* What stands in a directory: oci-layout (*marked), which is then sound, index.json (*indexed). */
static hlsnap_result hlsnap__oci_layout_check(int root, bool *marked, bool *indexed, hlsnap_error *err) {
    hlsnap_result r = hlsnap__oci_exists(root, "index.json", indexed, err);
    int i;
    if (!r) r = hlsnap__oci_exists(root, "oci-layout", marked, err);
    for (i = 0; !r && *marked && !*indexed && i < hlsnap__oci_tries(root); i++) { /* it may be replaced just now */
        hlsnap__oci_pause((uint64_t)1000000 << i);
        r = hlsnap__oci_exists(root, "index.json", indexed, err);
    }
    return !r && (*marked || *indexed) ? hlsnap__oci_marker_read(root, err) : r;
}

/* Reads the index only to see that it is sound: long before something is listed there. */
static hlsnap_result hlsnap__oci_index_check(int root, hlsnap_error *err) {
    hlsnap__oci_index index;
    hlsnap_result r;
    memset(&index, 0, sizeof(index));
    r = hlsnap__oci_entries_read(root, &index, err);
    hlsnap__oci_index_close(&index);
    return r;
}

/* What a save finds: a sound layout; one without an index yet; or nothing (*marked is false). */
static hlsnap_result hlsnap__oci_index_read(int root, hlsnap__oci_index *index, bool *marked, hlsnap_error *err) {
    bool indexed = false;
    hlsnap_result r = hlsnap__oci_layout_check(root, marked, &indexed, err);
    return r || !indexed ? r : hlsnap__oci_entries_read(root, index, err);
}

static bool hlsnap__oci_has_tag(const hlsnap__oci_entry *e, const char *tag) {
    return e->tag && strcmp(e->tag, tag) == 0;
}

/* The registries' grammar, [A-Za-z0-9_][A-Za-z0-9._-]{0,127}: what skopeo, oras and crane all can address. */
static bool hlsnap__oci_tag_ok(const char *tag) {
    static const char rest[] = ".-ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_";
    size_t n = strspn(tag, rest);
    return n >= 1 && n <= 128 && !tag[n] && tag[0] != '.' && tag[0] != '-';
}

/* Fills err for a ref that the index does not list. What else it lists is not told: it may be other people's. */
static hlsnap_result hlsnap__oci_not_found(const char *ref, const char *what, hlsnap_error *err) {
    char shown[200];
    hlsnap__printable(shown, sizeof(shown), ref, strlen(ref), false);
    return hlsnap__fail(err, HLSNAP_ERR_NOT_FOUND, 0, "index.json: no %s '%s'", what, shown);
}

static hlsnap__oci_ref hlsnap__oci_entry_ref(const hlsnap__oci_entry *e) {
    hlsnap__oci_ref ref;
    ref.type = e->type;
    ref.digest = e->digest;
    ref.size = e->size;
    return ref;
}

/* Fills err for an entry that is of another kind than a manifest. */
static hlsnap_result hlsnap__oci_entry_other(const hlsnap__oci_index *index, const char *path, const char *type,
                                             hlsnap_error *err) {
    char shown[100];
    hlsnap__printable(shown, sizeof(shown), type, strlen(type), false);
    return hlsnap__fail(err, type[0] ? HLSNAP_ERR_MEDIA_TYPE : HLSNAP_ERR_INDEX, 0,
                        "%s: %smediaType: expected " HLSNAP__OCI_MANIFEST_TYPE ", found %s%s%s", index->doc.file, path,
                        type[0] ? "'" : "", type[0] ? shown : "nothing", type[0] ? "'" : "");
}

/* The number of the entry that a tag or digest means. */
static hlsnap_result hlsnap__oci_index_find(const hlsnap__oci_index *index, const char *ref, uint32_t *number,
                                            hlsnap_error *err) {
    const bool digest = hlsnap__sha256_text_ok(ref);
    char shown[200];
    uint32_t i;
    *number = UINT32_MAX;
    for (i = 0; i < index->num; i++) {
        const hlsnap__oci_entry *e = &index->entries[i];
        if (digest ? strcmp(e->digest, ref) != 0 : !hlsnap__oci_has_tag(e, ref)) continue;
        if (*number != UINT32_MAX) {
            hlsnap__printable(shown, sizeof(shown), ref, strlen(ref), false);
            return hlsnap__fail(err, HLSNAP_ERR_AMBIGUOUS, 0, "index.json: tag '%s' is listed twice", shown);
        }
        *number = i;
        if (digest) break;
    }
    return *number != UINT32_MAX ? HLSNAP_OK : hlsnap__oci_not_found(ref, digest ? "digest" : "tag", err);
}

/* A change of the index. */
typedef struct hlsnap__oci_edit {
    const char *tag;     /* that moves; NULL: with a digest, an entry without one is added */
    const char *digest;  /* of the manifest that it moves to; NULL, as the tag then: none moves */
    uint64_t size;       /* of the manifest */
    const uint8_t *drop; /* one byte an entry: it goes, or its tag (HLSNAP__OCI_TAG_GOES); or NULL */
    int64_t created;     /* of what the tag moves to, seconds since 1970; 0: as another entry says */
} hlsnap__oci_edit;

#define HLSNAP__OCI_TAG_GOES 255u

typedef enum hlsnap__oci_fate {
    HLSNAP__OCI_KEEP,
    HLSNAP__OCI_IS_NEW,
    HLSNAP__OCI_UNTAG,
    HLSNAP__OCI_DROP
} hlsnap__oci_fate;

/* What becomes of an entry that has the tag. */
static hlsnap__oci_fate hlsnap__oci_entry_fate(const hlsnap__oci_index *index, const hlsnap__oci_entry *entry,
                                               const hlsnap__oci_edit *edit, bool have_new) {
    const hlsnap__oci_entry *e, *end = index->entries + index->num;
    if (strcmp(entry->digest, edit->digest) == 0) {
        const bool right = entry->size == edit->size && !strcmp(entry->type, HLSNAP__OCI_MANIFEST_TYPE);
        return right && !have_new ? HLSNAP__OCI_IS_NEW : HLSNAP__OCI_DROP;
    }
    for (e = index->entries; e < end; e++)
        if (e != entry && strcmp(e->digest, entry->digest) == 0 &&
            (!e->tag || (e < entry && hlsnap__oci_has_tag(e, edit->tag))))
            return HLSNAP__OCI_DROP;
    return HLSNAP__OCI_UNTAG;
}

/* Reads n digits. */
static bool hlsnap__oci_digits(const char **s, int n, int64_t *out) {
    for (*out = 0; n; n--, ++*s) {
        if (**s < '0' || **s > '9') return false;
        *out = *out * 10 + (**s - '0');
    }
    return true;
}

/* What stands behind the time in RFC 3339: fraction, which is left out, and zone; seconds to be taken off. */
static bool hlsnap__oci_zone_read(const char *s, int64_t *offset) {
    const bool east = *s == '+';
    int64_t hours, minutes;
    if (*s == '.') {
        const size_t n = strspn(s + 1, "0123456789");
        if (!n) return false;
        s += n + 1;
        return *s != '.' && hlsnap__oci_zone_read(s, offset);
    }
    *offset = 0;
    if (*s == 'Z' || *s == 'z') return !s[1];
    if (*s != '+' && *s != '-') return false;
    s++;
    if (!hlsnap__oci_digits(&s, 2, &hours) || *s++ != ':' || !hlsnap__oci_digits(&s, 2, &minutes) || *s) return false;
    *offset = (hours * 60 + minutes) * (east ? 60 : -60);
    return hours < 24 && minutes < 60;
}

/* Days from 1970-01-01 to a day of the Gregorian calendar; years begin in March here, so that February ends them. */
static int64_t hlsnap__oci_days(int64_t year, int64_t month, int64_t day) {
    const int64_t y = month > 2 ? year : year - 1, m = (month + 9) % 12;
    return 365 * y + y / 4 - y / 100 + y / 400 + (m * 306 + 5) / 10 + day - 1 - 719468;
}

/* "2026-11-29T08:00:00.5+01:00" by RFC 3339, in seconds since 1970; 0: it is something else, or from before. */
static int64_t hlsnap__oci_time_read(const char *s) {
    int64_t year, month, day, hour, minute, second, offset, t;
    if (!hlsnap__oci_digits(&s, 4, &year) || *s++ != '-' || !hlsnap__oci_digits(&s, 2, &month) || *s++ != '-' ||
        !hlsnap__oci_digits(&s, 2, &day) || (*s != 'T' && *s != 't'))
        return 0;
    s++;
    if (!hlsnap__oci_digits(&s, 2, &hour) || *s++ != ':' || !hlsnap__oci_digits(&s, 2, &minute) || *s++ != ':' ||
        !hlsnap__oci_digits(&s, 2, &second) || !hlsnap__oci_zone_read(s, &offset))
        return 0;
    if (year < 1 || month < 1 || month > 12 || day < 1 || hour > 23 || minute > 59 || second > 60) return 0;
    if (day > hlsnap__oci_days(month == 12 ? year + 1 : year, month % 12 + 1, 1) - hlsnap__oci_days(year, month, 1))
        return 0;
    t = hlsnap__oci_days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - offset;
    return t > 0 ? t : 0;
}

static int64_t hlsnap__oci_created(const char *text) { return text ? hlsnap__oci_time_read(text) : 0; }

/* A time as RFC 3339 has it. */
static void hlsnap__oci_time_text(int64_t t, char text[32]) {
    int64_t days = t / 86400, second = t % 86400, year, month, day;
    days += 719468; /* from 1 March of the year 0 on, when leap days end years */
    year = days / 146097 * 400;
    days %= 146097;
    year += (days - days / 1460 + days / 36524 - days / 146096) / 365;
    day = days - (365 * (year % 400) + year % 400 / 4 - year % 400 / 100);
    month = (5 * day + 2) / 153;
    day -= (153 * month + 2) / 5;
    month = month < 10 ? month + 3 : month - 9;
    hlsnap__format(text, 32, "%04lld-%02lld-%02lldT%02lld:%02lld:%02lldZ", (long long)(year + (month <= 2)),
                   (long long)month, (long long)(day + 1), (long long)(second / 3600), (long long)(second / 60 % 60),
                   (long long)(second % 60));
}

static void hlsnap__oci_entry_add(hlsnap__text *t, bool first, const hlsnap__oci_edit *edit) {
    const bool dated = edit->created > 0 && edit->created <= HLSNAP__OCI_LAST_TIME;
    char created[32];
    hlsnap__text_add(t, "%s{\"mediaType\":\"" HLSNAP__OCI_MANIFEST_TYPE "\",\"digest\":\"%s\",\"size\":%llu",
                     first ? "" : ",", edit->digest, (unsigned long long)edit->size);
    hlsnap__oci_time_text(dated ? edit->created : 0, created);
    if (dated || edit->tag) hlsnap__text_add(t, ",\"annotations\":{");
    if (dated) hlsnap__text_add(t, "\"" HLSNAP__OCI_CREATED "\":\"%s\"%s", created, edit->tag ? "," : "");
    if (edit->tag) hlsnap__text_add(t, "\"" HLSNAP__OCI_REF_NAME "\":\"%s\"", edit->tag);
    hlsnap__text_add(t, "%s,\"artifactType\":\"" HLSNAP__OCI_ARTIFACT_TYPE "\"}", dated || edit->tag ? "}" : "");
}

/* Writes the array of entries; those that stay do so byte by byte. */
static void hlsnap__oci_entries_write(hlsnap__text *t, const hlsnap__oci_index *index, const hlsnap__oci_edit *edit) {
    static const char *const ref_name[] = {"annotations", HLSNAP__OCI_REF_NAME, NULL};
    bool have_new = edit->digest == NULL, first = true;
    uint32_t i;
    hlsnap__text_raw(t, "[", 1);
    for (i = 0; i < index->num; i++) {
        const hlsnap__oci_entry *e = &index->entries[i];
        const uint8_t drop = edit->drop ? edit->drop[i] : 0;
        const hlsnap__oci_fate fate = drop == HLSNAP__OCI_TAG_GOES ? HLSNAP__OCI_UNTAG
                                      : drop                       ? HLSNAP__OCI_DROP
                                      : edit->tag && hlsnap__oci_has_tag(e, edit->tag)
                                          ? hlsnap__oci_entry_fate(index, e, edit, have_new)
                                          : HLSNAP__OCI_KEEP;
        if (fate == HLSNAP__OCI_DROP) continue;
        if (!first) hlsnap__text_raw(t, ",", 1);
        first = false;
        if (fate == HLSNAP__OCI_IS_NEW) have_new = true;
        if (fate == HLSNAP__OCI_UNTAG)
            hlsnap__text_without(t, e->text, ref_name);
        else
            hlsnap__text_raw(t, e->text.at, e->text.size);
    }
    if (!have_new) hlsnap__oci_entry_add(t, first, edit);
    hlsnap__text_raw(t, "]", 1);
}

/* Writes the index that follows `old` (no document: the first one). */
static void hlsnap__oci_index_write(hlsnap__text *t, const hlsnap__oci_index *old, const hlsnap__oci_edit *edit) {
    hlsnap__json_scan s = hlsnap__json_start(old->doc.text, old->doc.size);
    hlsnap__json_level level;
    hlsnap__json_span name, value;
    bool first = true;
    s.max_nodes = UINT32_MAX;
    if (!old->there) {
        hlsnap__text_add(t, "{\"schemaVersion\":2,\"mediaType\":\"" HLSNAP__OCI_INDEX_TYPE "\",\"manifests\":");
        hlsnap__oci_entries_write(t, old, edit);
        hlsnap__text_raw(t, "}", 1);
        return;
    }
    hlsnap__json_space(&s);
    hlsnap__json_enter(&s, &level);
    while (hlsnap__json_more(&s, &level, &name)) {
        value = hlsnap__json_value(&s);
        hlsnap__text_raw(t, first ? "{" : ",", 1);
        first = false;
        hlsnap__text_raw(t, name.at, name.size);
        hlsnap__text_raw(t, ":", 1);
        if (hlsnap__json_name_is(name, "manifests"))
            hlsnap__oci_entries_write(t, old, edit);
        else
            hlsnap__text_raw(t, value.at, value.size);
    }
    hlsnap__text_raw(t, "}", 1);
}

/* More entries of one tag than any tool leaves behind: moving it would take long. */
#define HLSNAP__OCI_MAX_SAME_TAG 64u

/* Writes the new index into a text; refuses one that would grow beyond what is written. */
static hlsnap_result hlsnap__oci_index_make(hlsnap__text *t, const hlsnap__oci_index *old, const hlsnap__oci_edit *edit,
                                            hlsnap_error *err) {
    uint32_t i, same = 0;
    hlsnap_result r;
    for (i = 0; i < old->num && edit->tag; i++) same += hlsnap__oci_has_tag(&old->entries[i], edit->tag);
    if (same > HLSNAP__OCI_MAX_SAME_TAG)
        return hlsnap__fail(err, HLSNAP_ERR_AMBIGUOUS, 0, "index.json: tag '%s' is listed %u times", edit->tag, same);
    r = hlsnap__text_start(t, old->doc.size + 1024, err);
    if (r) return r;
    hlsnap__oci_index_write(t, old, edit);
    if (t->size <= t->cap && (t->size <= HLSNAP_OCI_INDEX_MAX || t->size <= old->doc.size)) return HLSNAP_OK;
    return hlsnap__fail(err, HLSNAP_ERR_LIMIT, 0,
                        "index.json: %u entries, and would pass %u bytes: remove tags, then collect", old->num,
                        HLSNAP_OCI_INDEX_MAX);
}

/* ---- >>manifest ---- */

#define HLSNAP__OCI_MAX_SIZE (HLSNAP__MAX_PAGES * HLSNAP__PAGE) /* bytes of a memory layer */

static uint64_t hlsnap__oci_chunks_size(uint64_t bytes) {
    return (bytes + HLSNAP__OCI_CHUNK - 1) / HLSNAP__OCI_CHUNK * 32;
}

/* What manifest and config say of a layer. */
typedef struct hlsnap__oci_layer {
    const char *memory, *chunks; /* digests */
    uint64_t pages;
} hlsnap__oci_layer;

static void hlsnap__oci_layer_write(hlsnap__text *t, const hlsnap__oci_layer *layer, uint32_t number) {
    static const char row[] =
        "%s{\"mediaType\":\"%s\",\"digest\":\"%s\",\"size\":%llu,\"annotations\":{\"" HLSNAP__OCI_TITLE
        "\":\"layer%u.%s\"}}";
    const uint64_t size = layer->pages * HLSNAP__PAGE;
    hlsnap__text_add(t, row, number ? "," : "", HLSNAP__OCI_MEMORY_TYPE, layer->memory, (unsigned long long)size,
                     number, "mem");
    hlsnap__text_add(t, row, ",", HLSNAP__OCI_CHUNKS_TYPE, layer->chunks,
                     (unsigned long long)hlsnap__oci_chunks_size(size), number, "chunks");
}

/* One line, this order, sorted annotations, ASCII without < > &: a fixed point of Go's marshaller. */
static void hlsnap__oci_manifest_write(hlsnap__text *t, const hlsnap__guest *g, const hlsnap__oci_layer *layers,
                                       uint32_t num, const hlsnap__oci_blob *config, int64_t created) {
    char text[32];
    uint32_t i;
    hlsnap__text_add(t,
                     "{\"schemaVersion\":2,\"mediaType\":\"" HLSNAP__OCI_MANIFEST_TYPE
                     "\",\"artifactType\":\"" HLSNAP__OCI_ARTIFACT_TYPE
                     "\",\"config\":{\"mediaType\":\"" HLSNAP__OCI_CONFIG_TYPE
                     "\",\"digest\":\"%s\",\"size\":%llu},\"layers\":[",
                     config->digest, (unsigned long long)config->size);
    for (i = 0; i < num; i++) hlsnap__oci_layer_write(t, &layers[i], i);
    hlsnap__text_add(t, "],\"annotations\":{\"dev.hlsnap.abi\":\"%d\",\"dev.hlsnap.arch\":\"" HLSNAP__OCI_ARCH "\",",
                     HLSNAP_ABI_VERSION);
    if (g->build_id[0]) hlsnap__text_add(t, "\"dev.hlsnap.build-id\":\"%s\",", g->build_id);
    if (g->cpu_vendor[0]) hlsnap__text_add(t, "\"dev.hlsnap.cpu.vendor\":\"%s\",", g->cpu_vendor);
    if (g->hypervisor[0]) hlsnap__text_add(t, "\"dev.hlsnap.hypervisor\":\"%s\",", g->hypervisor);
    hlsnap__text_add(t, "\"dev.hlsnap.library\":\"" HLSNAP_VERSION_STRING "\",\"dev.hlsnap.version\":\"%d\"",
                     HLSNAP_SNAPSHOT_VERSION);
    hlsnap__oci_time_text(created > 0 ? created : 0, text);
    if (created > 0) hlsnap__text_add(t, ",\"" HLSNAP__OCI_CREATED "\":\"%s\"", text);
    hlsnap__text_raw(t, "}}", 2);
}

typedef struct hlsnap__oci_manifest { /* points into its document */
    hlsnap__oci_ref config;
    uint32_t num_layers;
    hlsnap__oci_ref memory[HLSNAP__MAX_LAYERS], chunks[HLSNAP__MAX_LAYERS];
} hlsnap__oci_manifest;

/* Memory layer i and the chunk list behind it. */
static hlsnap_result hlsnap__oci_layers_read(const hlsnap__json *d, const cJSON *first, uint32_t i,
                                             hlsnap__oci_manifest *m, hlsnap_error *err) {
    hlsnap__oci_ref *memory = &m->memory[i], *chunks = &m->chunks[i];
    char path[32], next[32];
    hlsnap_result r;
    uint64_t want;
    hlsnap__format(path, sizeof(path), "layers[%u].", 2 * i);
    hlsnap__format(next, sizeof(next), "layers[%u].", 2 * i + 1);
    r = hlsnap__oci_ref_read(d, first, path, memory, err);
    if (!r) r = hlsnap__oci_ref_read(d, first->next, next, chunks, err);
    if (!r && strcmp(memory->type, HLSNAP__OCI_MEMORY_TYPE) != 0)
        r = hlsnap__json_bad(d, path, "mediaType", HLSNAP__OCI_MEMORY_TYPE, hlsnap__json_get(first, "mediaType"), err);
    if (!r && strcmp(chunks->type, HLSNAP__OCI_CHUNKS_TYPE) != 0)
        r = hlsnap__json_bad(d, next, "mediaType", HLSNAP__OCI_CHUNKS_TYPE, hlsnap__json_get(first->next, "mediaType"),
                             err);
    if (!r) r = hlsnap__oci_ref_usable(d, path, memory, HLSNAP__PAGE, HLSNAP__OCI_MAX_SIZE, err);
    if (!r && memory->size % HLSNAP__PAGE)
        r = hlsnap__json_bad(d, path, "size", "a multiple of 4096", hlsnap__json_get(first, "size"), err);
    want = r ? 0 : hlsnap__oci_chunks_size(memory->size);
    return r ? r : hlsnap__oci_ref_usable(d, next, chunks, want, want, err);
}

/* What another version wrote may be of another form: it is told by its number, before its form is looked at. */
static hlsnap_result hlsnap__oci_manifest_version(const hlsnap__json *d, hlsnap_error *err) {
    const cJSON *v = hlsnap__json_get(hlsnap__json_get(d->root, "annotations"), "dev.hlsnap.version");
    char mine[16], shown[40];
    hlsnap__format(mine, sizeof(mine), "%d", HLSNAP_SNAPSHOT_VERSION);
    if (!cJSON_IsString(v) || strcmp(v->valuestring, mine) == 0) return HLSNAP_OK;
    hlsnap__printable(shown, sizeof(shown), v->valuestring, strlen(v->valuestring), false);
    return hlsnap__fail(err, HLSNAP_ERR_VERSION, 0, "%s: format version %s, this is %s", d->file, shown, mine);
}

static hlsnap_result hlsnap__oci_manifest_read(const hlsnap__json *d, hlsnap__oci_manifest *m, hlsnap_error *err) {
    const cJSON *artifact = hlsnap__json_get(d->root, "artifactType"), *layer = NULL;
    const cJSON *subject = hlsnap__json_get(d->root, "subject");
    hlsnap__json foreign = *d; /* the same document, for violations that mean "not ours" */
    uint32_t i, k, num = 0;
    hlsnap_result r = hlsnap__oci_schema_check(d, HLSNAP__OCI_MANIFEST_TYPE, err);
    foreign.code = HLSNAP_ERR_MEDIA_TYPE;
    if (!r && cJSON_IsObject(subject)) r = hlsnap__oci_names_check(d, subject, "subject.", err);
    if (!r) r = hlsnap__oci_ref_read(d, hlsnap__json_get(d->root, "config"), "config.", &m->config, err);
    if (r) return r;
    if (strcmp(m->config.type, HLSNAP__OCI_CONFIG_TYPE) != 0)
        return hlsnap__json_bad(&foreign, "config.", "mediaType", HLSNAP__OCI_CONFIG_TYPE,
                                hlsnap__json_get(hlsnap__json_get(d->root, "config"), "mediaType"), err);
    if (artifact && (!cJSON_IsString(artifact) || strcmp(artifact->valuestring, HLSNAP__OCI_ARTIFACT_TYPE) != 0))
        return hlsnap__json_bad(&foreign, "", "artifactType", HLSNAP__OCI_ARTIFACT_TYPE, artifact, err);
    r = hlsnap__json_plain(d, err);
    if (!r) r = hlsnap__oci_manifest_version(d, err);
    if (!r) r = hlsnap__oci_ref_usable(d, "config.", &m->config, 1, HLSNAP__OCI_JSON_MAX, err);
    if (!r) r = hlsnap__json_array(d, d->root, "", "layers", 2 * HLSNAP__MAX_LAYERS, &layer, &num, err);
    if (r) return r;
    if (num == 0 || num % 2)
        return hlsnap__fail(err, d->code, 0, "%s: layers: expected pairs of memory and chunks, found %u layers",
                            d->file, num);
    m->num_layers = num / 2;
    for (i = 0; !r && i < m->num_layers; i++, layer = layer->next->next) {
        r = hlsnap__oci_layers_read(d, layer, i, m, err);
        for (k = 0; !r && k < i; k++) /* each layer in use takes memory of its own */
            if (strcmp(m->memory[i].digest, m->memory[k].digest) == 0)
                r = hlsnap__fail(err, d->code, 0, "%s: layers %u and %u are the same blob", d->file, k, i);
    }
    return r;
}

/* ---- >>config: everything about a snapshot but its bytes; docs/snapshot-format.md "Config" ---- */

/* Features by name, sorted. */
static void hlsnap__oci_features_write(hlsnap__text *t, uint64_t features) {
    const char *last = "", *best;
    uint32_t i, num;
    for (num = 0;; num++, last = best) {
        best = NULL;
        for (i = 0; i < HLSNAP__NUM_CPU_FEATURES; i++) {
            const char *name = hlsnap__cpu_feature_names[i];
            if (features >> i & 1 && strcmp(name, last) > 0 && (!best || strcmp(name, best) < 0)) best = name;
        }
        if (!best) return;
        hlsnap__text_add(t, "%s\"%s\"", num ? "," : "", best);
    }
}

static void hlsnap__oci_decls_write(hlsnap__text *t, const char *name, const hlsnap__decl *rows, uint32_t num) {
    uint32_t i;
    hlsnap__text_add(t, ",\"%s\":[", name);
    for (i = 0; i < num; i++)
        hlsnap__text_add(t, "%s{\"name\":\"%s\",\"signature\":\"%s\"}", i ? "," : "", rows[i].name, rows[i].text);
    hlsnap__text_raw(t, "]", 1);
}

/* Where a map's content comes from. */
static const char *const hlsnap__oci_map_sources[] = {"host", "optional", "layers"};

static void hlsnap__oci_maps_write(hlsnap__text *t, const hlsnap__map *maps, uint32_t num) {
    uint32_t i;
    hlsnap__text_add(t, ",\"maps\":[");
    for (i = 0; i < num; i++)
        hlsnap__text_add(t,
                         "%s{\"name\":\"%s\",\"mode\":\"%s\",\"source\":\"%s\",\"gva\":\"0x%llx\",\"size\":%llu,"
                         "\"digest\":\"%s\"}",
                         i ? "," : "", maps[i].name, hlsnap__map_modes[maps[i].mode],
                         hlsnap__oci_map_sources[maps[i].capture ? 2 : maps[i].optional],
                         (unsigned long long)maps[i].gva, (unsigned long long)maps[i].size, maps[i].digest);
    hlsnap__text_raw(t, "]", 1);
}

/* Bytes that a config of so many extents can take. */
static size_t hlsnap__oci_config_bound(const hlsnap__guest *g, uint32_t num_extents, uint32_t num_maps) {
    return 4096 + num_maps * (sizeof(hlsnap__map) + 160) + g->layout.num_regions * (size_t)100 + num_extents * (size_t)48 +
           ((size_t)g->contract.num_exports + g->contract.num_imports) * (sizeof(hlsnap__decl) + 32);
}

static void hlsnap__oci_config_write(hlsnap__text *t, const hlsnap_snapshot *s, const hlsnap__oci_layer *layers,
                                     uint32_t num_layers, const hlsnap__extent *extents, uint32_t num) {
    const hlsnap__guest *g = s->guest;
    uint32_t i;
    hlsnap__text_add(t,
                     "{\"version\":%d,\"abi\":%d,\"arch\":\"" HLSNAP__OCI_ARCH
                     "\",\"page_size\":%u,\"library\":\"" HLSNAP_VERSION_STRING "\",\"guest\":{\"name\":",
                     HLSNAP_SNAPSHOT_VERSION, HLSNAP_ABI_VERSION, HLSNAP__PAGE);
    hlsnap__text_string(t, g->name);
    hlsnap__text_add(t, ",\"build_id\":\"%s\",\"elf_entry\":\"0x%llx\",\"load_address\":\"0x%llx\"}", g->build_id,
                     (unsigned long long)g->elf_entry, (unsigned long long)g->load_address);
    hlsnap__text_add(t, ",\"entry\":\"0x%llx\",\"module\":\"0x%llx\",\"syscall\":\"0x%llx\",\"tls_size\":\"0x%llx\"",
                     (unsigned long long)g->entry, (unsigned long long)g->module, (unsigned long long)g->syscall,
                     (unsigned long long)g->tls_size);
    hlsnap__text_add(t, ",\"window\":{\"base\":\"0x%llx\",\"pages\":%llu},\"regions\":[",
                     (unsigned long long)g->layout.base, (unsigned long long)g->layout.pages);
    for (i = 0; i < g->layout.num_regions; i++) {
        const hlsnap__region *r = &g->layout.regions[i];
        hlsnap__text_add(t, "%s{\"kind\":\"%s\",\"gva\":\"0x%llx\",\"pages\":%llu}", i ? "," : "",
                         hlsnap__kind_names[r->kind], (unsigned long long)r->gva, (unsigned long long)r->pages);
    }
    hlsnap__text_raw(t, "]", 1);
    hlsnap__oci_decls_write(t, "exports", g->contract.exports, g->contract.num_exports);
    hlsnap__oci_decls_write(t, "imports", g->contract.imports, g->contract.num_imports);
    hlsnap__text_add(t, ",\"cpu\":\"%s\",\"features\":[", hlsnap__cpu_level_names[g->cpu]);
    hlsnap__oci_features_write(t, g->features);
    hlsnap__text_add(t, "],\"machine\":{\"cpu_vendor\":\"%s\",\"hypervisor\":\"%s\"},\"generation\":\"0x%llx\"",
                     g->cpu_vendor, g->hypervisor, (unsigned long long)s->generation);
    hlsnap__text_add(t, ",\"layers\":[");
    for (i = 0; i < num_layers; i++)
        hlsnap__text_add(t, "%s{\"pages\":%llu,\"chunks\":\"%s\"}", i ? "," : "", (unsigned long long)layers[i].pages,
                         layers[i].chunks);
    hlsnap__text_raw(t, "],\"extents\":[", 13);
    for (i = 0; i < num && t->size <= t->cap; i++) hlsnap__text_extent(t, &extents[i], i > 0);
    hlsnap__text_raw(t, "]", 1);
    hlsnap__oci_maps_write(t, s->maps, s->num_maps);
    hlsnap__text_raw(t, "}", 1);
}

/* What a config holds beside the guest. */
typedef struct hlsnap__oci_config {
    hlsnap__guest *guest;
    uint64_t generation;
    uint32_t num_layers, num_extents;
    uint64_t layer_pages[HLSNAP__MAX_LAYERS];
    hlsnap__extent *extents;
    uint32_t num_maps;
    hlsnap__map maps[HLSNAP_MAX_MAPS];
} hlsnap__oci_config;

/* Whether this build and machine can take the snapshot at all; asked before anything that a later version may change. */
static hlsnap_result hlsnap__oci_config_gate(const hlsnap__json *d, hlsnap_error *err) {
    uint64_t version = 0, abi = 0, page = 0;
    const char *arch = "";
    char shown[40];
    hlsnap_result r = hlsnap__json_int(d, d->root, "", "version", HLSNAP__JSON_INT_MAX, &version, err);
    if (!r && version != HLSNAP_SNAPSHOT_VERSION)
        return hlsnap__fail(err, HLSNAP_ERR_VERSION, 0, "%s: format version %llu, this is %d", d->file,
                            (unsigned long long)version, HLSNAP_SNAPSHOT_VERSION);
    if (!r) r = hlsnap__json_int(d, d->root, "", "abi", HLSNAP__JSON_INT_MAX, &abi, err);
    if (!r && abi != HLSNAP_ABI_VERSION)
        return hlsnap__fail(err, HLSNAP_ERR_VERSION, 0, "%s: guest ABI %llu, this is %d", d->file,
                            (unsigned long long)abi, HLSNAP_ABI_VERSION);
    if (!r) r = hlsnap__json_string(d, d->root, "", "arch", &arch, err);
    if (!r) r = hlsnap__json_int(d, d->root, "", "page_size", HLSNAP__JSON_INT_MAX, &page, err);
    hlsnap__printable(shown, sizeof(shown), arch, strlen(arch), false);
    if (!r && (strcmp(arch, HLSNAP__OCI_ARCH) != 0 || page != HLSNAP__PAGE))
        r = hlsnap__fail(err, HLSNAP_ERR_ARCH, 0,
                         "%s: arch '%s' with pages of %llu bytes, this is " HLSNAP__OCI_ARCH " with %u", d->file, shown,
                         (unsigned long long)page, HLSNAP__PAGE);
    return r;
}

/* Text of at most cap - 1 bytes without control characters. */
static hlsnap_result hlsnap__oci_name_read(const hlsnap__json *d, const cJSON *o, const char *path, const char *name,
                                           char *out, size_t cap, hlsnap_error *err) {
    const char *text = "", *p;
    hlsnap_result r = hlsnap__json_string(d, o, path, name, &text, err);
    if (r) return r;
    for (p = text; *p && !hlsnap__json_control((const unsigned char *)p); p++) {
    }
    if (*p || strlen(text) >= cap)
        return hlsnap__json_bad(d, path, name, "a short text without control characters", hlsnap__json_get(o, name),
                                err);
    memcpy(out, text, strlen(text) + 1);
    return HLSNAP_OK;
}

/* One of the names of the machine, which will stand in annotations again. */
static hlsnap_result hlsnap__oci_machine_name(const hlsnap__json *d, const cJSON *o, const char *name, char *out,
                                              size_t cap, hlsnap_error *err) {
    const char *p;
    hlsnap_result r = hlsnap__oci_name_read(d, o, "machine.", name, out, cap, err);
    for (p = out; !r && *p; p++)
        if (!hlsnap__machine_name_ok(*p))
            r = hlsnap__json_bad(d, "machine.", name, "letters, digits, blanks, and !+-._", hlsnap__json_get(o, name),
                                 err);
    return r;
}

static hlsnap_result hlsnap__oci_machine_read(const hlsnap__json *d, hlsnap__guest *g, hlsnap_error *err) {
    static const char *const fields[] = {"cpu_vendor", "hypervisor", NULL};
    const cJSON *o = hlsnap__json_get(d->root, "machine");
    hlsnap_result r = hlsnap__json_exactly(d, o, "machine.", fields, err);
    if (!r) r = hlsnap__oci_machine_name(d, o, "cpu_vendor", g->cpu_vendor, sizeof(g->cpu_vendor), err);
    return r ? r : hlsnap__oci_machine_name(d, o, "hypervisor", g->hypervisor, sizeof(g->hypervisor), err);
}

static hlsnap_result hlsnap__oci_guest_read(const hlsnap__json *d, hlsnap__guest *g, hlsnap_error *err) {
    static const char *const fields[] = {"name", "build_id", "elf_entry", "load_address", NULL};
    const cJSON *o = hlsnap__json_get(d->root, "guest");
    char library[64];
    hlsnap_result r = hlsnap__json_exactly(d, o, "guest.", fields, err);
    if (!r) r = hlsnap__oci_name_read(d, d->root, "", "library", library, sizeof(library), err);
    if (!r) r = hlsnap__oci_name_read(d, o, "guest.", "name", g->name, sizeof(g->name), err);
    if (!r) r = hlsnap__oci_name_read(d, o, "guest.", "build_id", g->build_id, sizeof(g->build_id), err);
    if (!r && g->build_id[strspn(g->build_id, "0123456789abcdef")])
        r = hlsnap__json_bad(d, "guest.", "build_id", "lowercase hex", hlsnap__json_get(o, "build_id"), err);
    if (!r) r = hlsnap__json_hex(d, o, "guest.", "elf_entry", &g->elf_entry, err);
    if (!r) r = hlsnap__json_hex(d, o, "guest.", "load_address", &g->load_address, err);
    if (!r) r = hlsnap__json_hex(d, d->root, "", "entry", &g->entry, err);
    if (!r) r = hlsnap__json_hex(d, d->root, "", "module", &g->module, err);
    if (!r) r = hlsnap__json_hex(d, d->root, "", "syscall", &g->syscall, err);
    return r ? r : hlsnap__json_hex(d, d->root, "", "tls_size", &g->tls_size, err);
}

static hlsnap_result hlsnap__oci_region_read(const hlsnap__json *d, const cJSON *o, const char *path,
                                             hlsnap__region *out, hlsnap_error *err) {
    static const char *const fields[] = {"kind", "gva", "pages", NULL};
    const char *kind = "";
    hlsnap_result r = hlsnap__json_exactly(d, o, path, fields, err);
    if (!r) r = hlsnap__json_string(d, o, path, "kind", &kind, err);
    if (r) return r;
    for (out->kind = 0; out->kind < HLSNAP__NUM_KINDS && strcmp(hlsnap__kind_names[out->kind], kind) != 0;
         out->kind++) {
    }
    if (out->kind == HLSNAP__NUM_KINDS)
        return hlsnap__json_bad(d, path, "kind", "a kind of region", hlsnap__json_get(o, "kind"), err);
    r = hlsnap__json_hex(d, o, path, "gva", &out->gva, err);
    return r ? r : hlsnap__json_int(d, o, path, "pages", HLSNAP__MAX_PAGES, &out->pages, err);
}

static hlsnap_result hlsnap__oci_layout_read(const hlsnap__json *d, hlsnap__layout *l, hlsnap_error *err) {
    static const char *const fields[] = {"base", "pages", NULL};
    const cJSON *window = hlsnap__json_get(d->root, "window"), *o = NULL;
    char path[32];
    uint32_t i;
    hlsnap_result r = hlsnap__json_exactly(d, window, "window.", fields, err);
    if (!r) r = hlsnap__json_hex(d, window, "window.", "base", &l->base, err);
    if (!r) r = hlsnap__json_int(d, window, "window.", "pages", HLSNAP__MAX_PAGES, &l->pages, err);
    if (!r) r = hlsnap__json_array(d, d->root, "", "regions", HLSNAP__MAX_REGIONS, &o, &l->num_regions, err);
    for (i = 0; !r && o; o = o->next, i++) {
        hlsnap__format(path, sizeof(path), "regions[%u].", i);
        r = hlsnap__oci_region_read(d, o, path, &l->regions[i], err);
    }
    return r;
}

/* Gives a failure of the core the code and the place of this document. */
static hlsnap_result hlsnap__oci_refuse(const hlsnap__json *d, const char *path, hlsnap_error *err) {
    char text[400];
    hlsnap__format(text, sizeof(text), "%.399s", err->msg);
    return hlsnap__fail(err, err->code == HLSNAP_ERR_MEMORY ? HLSNAP_ERR_MEMORY : d->code, 0, "%s: %s%s", d->file, path,
                        text);
}

static hlsnap_result hlsnap__oci_decls_read(const hlsnap__json *d, const char *name, hlsnap__decl **rows, uint32_t *num,
                                            hlsnap_error *err) {
    static const char *const fields[] = {"name", "signature", NULL};
    const cJSON *o = NULL;
    char path[40];
    uint32_t i;
    hlsnap_result r = hlsnap__json_array(d, d->root, "", name, HLSNAP_MAX_FUNCTIONS, &o, num, err);
    if (r) return r;
    *rows = (hlsnap__decl *)hlsnap__alloc(*num, sizeof(**rows), err);
    if (!*rows) return HLSNAP_ERR_MEMORY;
    for (i = 0; !r && o; o = o->next, i++) {
        const char *function = "", *signature = "";
        hlsnap__format(path, sizeof(path), "%s[%u].", name, i);
        r = hlsnap__json_exactly(d, o, path, fields, err);
        if (!r) r = hlsnap__json_string(d, o, path, "name", &function, err);
        if (!r) r = hlsnap__json_string(d, o, path, "signature", &signature, err);
        if (!r && hlsnap__decl_parse(&(*rows)[i], function, strlen(function), signature, strlen(signature), err))
            r = hlsnap__oci_refuse(d, path, err);
    }
    return r;
}

/* The CPU level; with one, the features are those that it has. */
static hlsnap_result hlsnap__oci_cpu_read(const hlsnap__json *d, hlsnap__guest *g, hlsnap_error *err) {
    const char *name = "";
    hlsnap_result r = hlsnap__json_string(d, d->root, "", "cpu", &name, err);
    if (r) return r;
    for (g->cpu = HLSNAP_CPU_HOST; strcmp(hlsnap__cpu_level_names[g->cpu], name) != 0; g->cpu++)
        if (g->cpu == HLSNAP_CPU_V4)
            return hlsnap__json_bad(d, "", "cpu", "host, v1, v2, v3 or v4", hlsnap__json_get(d->root, "cpu"), err);
    if (g->cpu && g->features != hlsnap__cpu_level_features(g->cpu))
        return hlsnap__json_bad(d, "", "features", "those of the CPU level, no more and no less",
                                hlsnap__json_get(d->root, "features"), err);
    return HLSNAP_OK;
}

/* Names of features, ascending; one that this build does not know is one that this machine cannot be shown to have. */
static hlsnap_result hlsnap__oci_features_read(const hlsnap__json *d, bool any_cpu, hlsnap__guest *g,
                                               hlsnap_error *err) {
    const cJSON *o = NULL;
    const char *last = "";
    char missing[200];
    uint64_t have = hlsnap__cpu_features();
    size_t n = 0;
    uint32_t i, num;
    hlsnap_result r = hlsnap__json_array(d, d->root, "", "features", 256, &o, &num, err);
    for (missing[0] = 0; !r && o; o = o->next) {
        const char *name = cJSON_IsString(o) ? o->valuestring : "";
        size_t size = strlen(name);
        if (size < 1 || size > 31 || strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != size ||
            strcmp(name, last) <= 0)
            return hlsnap__json_bad(d, "", "features", "names of CPU features, ascending", o, err);
        last = name;
        for (i = 0; i < HLSNAP__NUM_CPU_FEATURES && strcmp(hlsnap__cpu_feature_names[i], name) != 0; i++) {
        }
        g->features |= i < HLSNAP__NUM_CPU_FEATURES ? 1ull << i : HLSNAP__CPU_UNKNOWN;
        if ((i < HLSNAP__NUM_CPU_FEATURES && have >> i & 1) || n + size + 2 > sizeof(missing)) continue;
        n += (size_t)hlsnap__format(missing + n, sizeof(missing) - n, " %s", name);
    }
    if (!r) r = hlsnap__oci_cpu_read(d, g, err);
    if (!r && n && !any_cpu)
        r = hlsnap__fail(err, HLSNAP_ERR_CPU, 0,
                         "%s: features: this CPU lacks%s; a snapshot made with guest_desc.cpu of %s would start here",
                         d->file, missing, hlsnap__cpu_level_names[hlsnap__cpu_level_in(have)]);
    return r;
}

/* Four integers each. */
static hlsnap_result hlsnap__oci_extents_read(const hlsnap__json *d, hlsnap__oci_config *c, hlsnap_error *err) {
    const cJSON *row = NULL, *v;
    uint32_t i, k, four[4];
    hlsnap_result r =
        hlsnap__json_array(d, d->root, "", "extents", HLSNAP__OCI_MAX_EXTENTS, &row, &c->num_extents, err);
    if (r) return r;
    c->extents = (hlsnap__extent *)hlsnap__alloc(c->num_extents, sizeof(c->extents[0]), err);
    if (!c->extents) return HLSNAP_ERR_MEMORY;
    for (i = 0; row; row = row->next, i++) {
        v = cJSON_IsArray(row) ? row->child : NULL;
        for (k = 0; k < 4 && cJSON_IsNumber(v) && v->valuedouble >= 0 && v->valuedouble <= UINT32_MAX; k++, v = v->next)
            four[k] = (uint32_t)v->valuedouble;
        if (k < 4 || v) {
            char path[32];
            hlsnap__format(path, sizeof(path), "extents[%u]", i);
            return hlsnap__json_bad(d, path, "", "four integers from 0 to 2^32-1", v ? v : row, err);
        }
        c->extents[i].page = four[0];
        c->extents[i].pages = four[1];
        c->extents[i].layer = four[2];
        c->extents[i].layer_page = four[3];
    }
    return HLSNAP_OK;
}

/* The layers, which must be the manifest's, in its order; every layer is there because an extent needs it. */
static hlsnap_result hlsnap__oci_layers_match(const hlsnap__json *d, hlsnap__oci_config *c,
                                              const hlsnap__oci_manifest *m, hlsnap_error *err) {
    static const char *const fields[] = {"pages", "chunks", NULL};
    const cJSON *o = NULL;
    bool used[HLSNAP__MAX_LAYERS] = {false};
    const char *chunks = "";
    char path[32];
    uint32_t i;
    hlsnap_result r = hlsnap__json_array(d, d->root, "", "layers", HLSNAP__MAX_LAYERS, &o, &c->num_layers, err);
    if (r) return r;
    if (c->num_layers != m->num_layers)
        return hlsnap__fail(err, d->code, 0, "%s: layers: %u, but the manifest has %u", d->file, c->num_layers,
                            m->num_layers);
    for (i = 0; i < c->num_layers; i++, o = o->next) {
        hlsnap__format(path, sizeof(path), "layers[%u].", i);
        r = hlsnap__json_exactly(d, o, path, fields, err);
        if (!r) r = hlsnap__json_int(d, o, path, "pages", HLSNAP__MAX_PAGES, &c->layer_pages[i], err);
        if (!r) r = hlsnap__json_string(d, o, path, "chunks", &chunks, err);
        if (r) return r;
        if (c->layer_pages[i] != m->memory[i].size / HLSNAP__PAGE)
            return hlsnap__json_bad(d, path, "pages", "the size of the manifest's layer in pages",
                                    hlsnap__json_get(o, "pages"), err);
        if (strcmp(chunks, m->chunks[i].digest) != 0)
            return hlsnap__json_bad(d, path, "chunks", m->chunks[i].digest, hlsnap__json_get(o, "chunks"), err);
    }
    if (hlsnap__extents_check(&c->guest->layout, c->maps, c->num_maps, c->layer_pages, c->num_layers, c->extents,
                              c->num_extents, d->code, err))
        return hlsnap__oci_refuse(d, "extents: ", err);
    for (i = 0; i < c->num_extents; i++) used[c->extents[i].layer] = true;
    for (i = 0; i < c->num_layers; i++)
        if (!used[i]) return hlsnap__fail(err, d->code, 0, "%s: extents: none uses layer %u", d->file, i);
    return HLSNAP_OK;
}

/* One of these names. */
static hlsnap_result hlsnap__oci_choice_read(const hlsnap__json *d, const cJSON *o, const char *path, const char *name,
                                             const char *const names[3], uint32_t *out, hlsnap_error *err) {
    char expected[64];
    const char *text = "";
    hlsnap_result r = hlsnap__json_string(d, o, path, name, &text, err);
    for (*out = 0; *out < 3 && strcmp(names[*out], text) != 0;) ++*out;
    hlsnap__format(expected, sizeof(expected), "%s, %s or %s", names[0], names[1], names[2]);
    if (!r && *out == 3) r = hlsnap__json_bad(d, path, name, expected, hlsnap__json_get(o, name), err);
    return r;
}

static hlsnap_result hlsnap__oci_map_read(const hlsnap__json *d, const cJSON *o, const char *path, hlsnap__map *map,
                                          hlsnap_error *err) {
    static const char *const fields[] = {"name", "mode", "source", "gva", "size", "digest", NULL};
    uint32_t source = 0;
    hlsnap_result r = hlsnap__json_exactly(d, o, path, fields, err);
    if (!r) r = hlsnap__oci_name_read(d, o, path, "name", map->name, sizeof(map->name), err);
    if (!r) r = hlsnap__oci_choice_read(d, o, path, "mode", hlsnap__map_modes, &map->mode, err);
    if (!r) r = hlsnap__oci_choice_read(d, o, path, "source", hlsnap__oci_map_sources, &source, err);
    if (!r) r = hlsnap__json_hex(d, o, path, "gva", &map->gva, err);
    if (!r) r = hlsnap__json_int(d, o, path, "size", HLSNAP__JSON_INT_MAX, &map->size, err);
    if (!r) r = hlsnap__oci_name_read(d, o, path, "digest", map->digest, sizeof(map->digest), err);
    map->optional = source == 1;
    map->capture = source == 2;
    return r;
}

static hlsnap_result hlsnap__oci_maps_read(const hlsnap__json *d, hlsnap__oci_config *c, hlsnap_error *err) {
    const cJSON *o = NULL;
    char path[32];
    uint32_t i;
    hlsnap_result r = hlsnap__json_array(d, d->root, "", "maps", HLSNAP_MAX_MAPS, &o, &c->num_maps, err);
    for (i = 0; !r && o; o = o->next, i++) {
        hlsnap__format(path, sizeof(path), "maps[%u].", i);
        r = hlsnap__oci_map_read(d, o, path, &c->maps[i], err);
    }
    if (!r && hlsnap__maps_check(c->maps, c->num_maps, d->code, err)) r = hlsnap__oci_refuse(d, "maps: ", err);
    return r;
}

/* Fills c, of which the caller releases guest and extents, also after a failure. */
static hlsnap_result hlsnap__oci_config_read(const hlsnap__json *d, const hlsnap__oci_manifest *m, bool any_cpu,
                                             hlsnap__oci_config *c, hlsnap_error *err) {
    static const char *const fields[] = {"version", "abi",     "arch",    "page_size", "library", "guest",
                                         "entry",   "module",  "syscall", "tls_size",  "window",  "regions",
                                         "exports", "imports", "cpu",     "features",  "machine", "generation",
                                         "layers",  "extents", "maps",    NULL};
    hlsnap__guest *g;
    hlsnap_result r = hlsnap__json_plain(d, err);
    if (!r) r = hlsnap__oci_config_gate(d, err);
    if (!r) r = hlsnap__json_exactly(d, d->root, "", fields, err);
    if (r) return r;
    g = c->guest = hlsnap__guest_alloc(err);
    if (!g) return HLSNAP_ERR_MEMORY;
    r = hlsnap__oci_guest_read(d, g, err);
    if (!r) r = hlsnap__oci_machine_read(d, g, err);
    if (!r) r = hlsnap__oci_layout_read(d, &g->layout, err);
    if (!r) r = hlsnap__oci_decls_read(d, "exports", &g->contract.exports, &g->contract.num_exports, err);
    if (!r) r = hlsnap__oci_decls_read(d, "imports", &g->contract.imports, &g->contract.num_imports, err);
    if (!r) r = hlsnap__json_hex(d, d->root, "", "generation", &c->generation, err);
    if (!r && c->generation >> 63)
        r = hlsnap__json_bad(d, "", "generation", "a number below 2^63", hlsnap__json_get(d->root, "generation"), err);
    if (!r && hlsnap__guest_check(g, d->code, err)) r = hlsnap__oci_refuse(d, "", err);
    if (!r) r = hlsnap__oci_extents_read(d, c, err);
    if (!r) r = hlsnap__oci_maps_read(d, c, err);
    if (!r) r = hlsnap__oci_layers_match(d, c, m, err);
    if (!r) r = hlsnap__oci_features_read(d, any_cpu, g, err);
    if (r) return r;
    g->initialized = true;
    g->id = hlsnap__guest_id(g);
    return HLSNAP_OK;
}

/* ---- >>progress ---- */

static hlsnap_result hlsnap__oci_report(const hlsnap_oci_desc *desc, uint64_t done, uint64_t total, hlsnap_error *err) {
    if (!desc->progress || desc->progress(done, total, desc->user)) return HLSNAP_OK;
    return hlsnap__fail(err, HLSNAP_ERR_CANCELLED, 0, "cancelled after %llu of %llu bytes", (unsigned long long)done,
                        (unsigned long long)total);
}

/* ---- >>plan: which pages a save writes, and which it finds in blobs that the layout holds already ---- */

#define HLSNAP__OCI_LAYERS HLSNAP__LAYERS /* of a snapshot as this writer writes it; of more, small ones are merged */
#define HLSNAP__OCI_FRESH UINT32_MAX      /* a run's layer, while planning: the one that this save writes */

/* A blob that some load or save found pages of the snapshot in. */
typedef struct hlsnap__oci_known {
    hlsnap__place *place;            /* the first that named it; retained */
    hlsnap__oci_blob memory, chunks; /* its files, without an open fd */
    bool there;                      /* the layout holds it, as far as was looked */
    uint64_t used;                   /* pages of the snapshot that the plan finds in it */
    bool merge;                      /* what the snapshot shows of it is written again, to the new layer */
    bool captured;                   /* a captured map's: it stays as it is */
    bool healed;                     /* it was not sound, and was written again */
    uint32_t rank;                   /* the last of the snapshot's layers with pages there, when used */
    uint32_t number;                 /* of the layer in the manifest, when used */
} hlsnap__oci_known;

/* Where the pages of one of the snapshot's layers can be found. */
typedef struct hlsnap__oci_source {
    hlsnap__place *places[HLSNAP__NUM_PLACES]; /* the layer's when planning began; retained; NULL: no more */
    uint32_t knowns[HLSNAP__NUM_PLACES];
    uint64_t shown[HLSNAP__NUM_PLACES]; /* pages of the snapshot that each has */
    const hlsnap__place *place;         /* the one chosen; NULL: nowhere in this layout */
    uint32_t known;
    uint64_t kept; /* pages that the plan, when it was carried out, has found there */
} hlsnap__oci_source;

typedef struct hlsnap__oci_plan {
    hlsnap__oci_known *known;
    hlsnap__oci_source *sources; /* one for each layer of the snapshot */
    hlsnap__extent *runs;        /* in guest order: the extents of the config */
    uint32_t num_known, num, cap;
    uint64_t pages; /* of the new layer; 0: there is none */
    hlsnap__oci_layer layers[HLSNAP__OCI_LAYERS];
    uint32_t num_layers;
    uint32_t fresh; /* number of the new layer, if there is one */
} hlsnap__oci_plan;

typedef enum hlsnap__oci_part {
    HLSNAP__OCI_MEMORY,
    HLSNAP__OCI_CHUNKS,
    HLSNAP__OCI_CONFIG,
    HLSNAP__OCI_MANIFEST,
    HLSNAP__OCI_NUM_PARTS
} hlsnap__oci_part;

typedef struct hlsnap__oci_save {
    const char *dir, *tag;
    const hlsnap_snapshot *s;
    hlsnap_oci_desc desc;
    bool flat;  /* everything into one new layer, but for captured maps; */
    bool mixed; /* these, too */
    bool whole; /* found out too late that it must be: a shared blob is gone, another one now, or the new layer, too */
    const hlsnap__sha256_ways *sha;
    uint8_t *buffer; /* HLSNAP__OCI_BATCH bytes: what is hashed and written leaves from here */
    uint8_t *sums;   /* the chunk list */
    uint64_t done;   /* bytes that were hashed or written, but for the work in progress */
    uint64_t again;  /* bytes that were loaded, and had to be hashed again */
    hlsnap__text text;
    hlsnap__oci_plan plan;
    hlsnap__oci_store store;
    hlsnap__oci_blob blobs[HLSNAP__OCI_NUM_PARTS];
    hlsnap__oci_blob maps[HLSNAP_MAX_MAPS][2]; /* captured ones that this save wrote, and their chunk lists */
    uint32_t num_maps;
} hlsnap__oci_save;

/* Whether two pages lie in one region or map. */
static bool hlsnap__oci_same_room(const hlsnap_snapshot *s, uint64_t a, uint64_t b) {
    const hlsnap__layout *l = &s->guest->layout;
    return hlsnap__page_room(l, s->maps, s->num_maps, a) == hlsnap__page_room(l, s->maps, s->num_maps, b);
}

static void hlsnap__oci_blob_name(hlsnap__oci_blob *b, const char *digest, uint64_t size) {
    hlsnap__oci_blob_none(b);
    memcpy(b->digest, digest, sizeof(b->digest));
    b->size = size;
}

static bool hlsnap__oci_blob_there(const hlsnap__oci_store *store, const hlsnap__oci_blob *b) {
    struct stat st;
    return fstatat(store->sha256, b->digest + 7, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
           (uint64_t)st.st_size == b->size;
}

/* Whether it is a captured map that this save has written: it gets its name at the end. */
static bool hlsnap__oci_map_new(const hlsnap__oci_save *save, const hlsnap__place *place) {
    uint32_t i;
    for (i = 0; i < save->num_maps; i++)
        if (strcmp(save->maps[i][0].digest, place->memory) == 0 && strcmp(save->maps[i][1].digest, place->chunks) == 0)
            return true;
    return false;
}

/* The number of the blob that a place names; plan->known has room for one more. A layout may have said of one blob that it has
   several chunk lists or sizes: at most one of these will be found to be so. */
static uint32_t hlsnap__oci_known_find(hlsnap__oci_save *save, hlsnap__place *place) {
    hlsnap__oci_plan *plan = &save->plan;
    hlsnap__oci_known *k;
    uint32_t i;
    for (i = 0; i < plan->num_known; i++) {
        const hlsnap__place *other = plan->known[i].place;
        if (strcmp(other->memory, place->memory) == 0 && strcmp(other->chunks, place->chunks) == 0 &&
            other->pages == place->pages)
            return i;
    }
    k = &plan->known[plan->num_known++];
    hlsnap__retain(&place->refs);
    k->place = place;
    hlsnap__oci_blob_name(&k->memory, place->memory, place->pages * HLSNAP__PAGE);
    hlsnap__oci_blob_name(&k->chunks, place->chunks, hlsnap__oci_chunks_size(k->memory.size));
    k->there = hlsnap__oci_map_new(save, place) ||
               (hlsnap__oci_blob_there(&save->store, &k->memory) && hlsnap__oci_blob_there(&save->store, &k->chunks));
    return i;
}

/* Whether a layer of the snapshot is not to be looked for, but to be written. */
static bool hlsnap__oci_layer_flat(const hlsnap__oci_save *save, uint32_t i) {
    return save->mixed || (save->flat && !hlsnap__snapshot_captured(save->s, save->s->layers[i]));
}

/* Takes down where the pages of each layer can be found: once, for other threads' saves change it meanwhile. */
static hlsnap_result hlsnap__oci_sources_find(hlsnap__oci_save *save, hlsnap_error *err) {
    const hlsnap_snapshot *s = save->s;
    hlsnap__oci_plan *plan = &save->plan;
    uint32_t i, k;
    plan->known =
        (hlsnap__oci_known *)hlsnap__alloc((size_t)s->num_layers * HLSNAP__NUM_PLACES + 1, sizeof(plan->known[0]), err);
    plan->sources = (hlsnap__oci_source *)hlsnap__alloc((size_t)s->num_layers + 1, sizeof(plan->sources[0]), err);
    if (!plan->known || !plan->sources) return HLSNAP_ERR_MEMORY;
    for (i = 0; i < s->num_layers; i++) {
        hlsnap__oci_source *source = &plan->sources[i];
        for (k = 0; k < HLSNAP__NUM_PLACES && !hlsnap__oci_layer_flat(save, i); k++) {
            source->places[k] = hlsnap__layer_place_get(s->layers[i], k);
            if (!source->places[k]) break;
            source->knowns[k] = hlsnap__oci_known_find(save, source->places[k]);
            if (hlsnap__snapshot_captured(s, s->layers[i])) plan->known[source->knowns[k]].captured = true;
        }
    }
    return HLSNAP_OK;
}

/* The first run of a place that ends behind a page of the layer, or NULL. */
static const hlsnap__place_run *hlsnap__place_at(const hlsnap__place *place, uint64_t page) {
    uint32_t lo = 0, hi = place ? place->num : 0;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if ((uint64_t)place->runs[mid].page + place->runs[mid].pages <= page)
            lo = mid + 1;
        else
            hi = mid;
    }
    return place && lo < place->num ? &place->runs[lo] : NULL;
}

/* How many of n pages of the layer a place has. */
static uint64_t hlsnap__place_has(const hlsnap__place *place, uint64_t page, uint64_t n) {
    const hlsnap__place_run *run = hlsnap__place_at(place, page);
    const uint64_t end = page + n;
    uint64_t found = 0;
    for (; run && run < place->runs + place->num && run->page < end; run++) {
        const uint64_t from = run->page > page ? run->page : page, to = (uint64_t)run->page + run->pages;
        found += (to < end ? to : end) - from;
    }
    return found;
}

/* Chooses for each layer one of these, whose blob is there: the one with most of what the snapshot shows, or the newer. */
static void hlsnap__oci_sources_choose(hlsnap__oci_save *save) {
    hlsnap__oci_source *source = save->plan.sources;
    uint32_t i, k;
    for (i = 0; i < save->s->num_layers; i++) {
        source[i].place = NULL;
        memset(source[i].shown, 0, sizeof(source[i].shown));
    }
    for (i = 0; i < save->s->num_extents; i++) {
        const hlsnap__extent *e = &save->s->extents[i];
        if (hlsnap__oci_layer_flat(save, e->layer)) continue;
        for (k = 0; k < HLSNAP__NUM_PLACES && source[e->layer].places[k]; k++)
            source[e->layer].shown[k] += hlsnap__place_has(source[e->layer].places[k], e->layer_page, e->pages);
    }
    for (i = 0; i < save->s->num_layers; i++) {
        uint64_t most = 0;
        if (hlsnap__oci_layer_flat(save, i)) continue;
        for (k = 0; k < HLSNAP__NUM_PLACES && source[i].places[k]; k++) {
            if (!save->plan.known[source[i].knowns[k]].there || source[i].shown[k] <= most) continue;
            source[i].known = source[i].knowns[k];
            source[i].place = source[i].places[k];
            most = source[i].shown[k];
        }
    }
}

static void hlsnap__oci_plan_free(hlsnap__oci_save *save) {
    hlsnap__oci_plan *plan = &save->plan;
    uint32_t i, k;
    for (i = 0; i < plan->num_known; i++) hlsnap__place_release(plan->known[i].place);
    for (i = 0; plan->sources && i < save->s->num_layers; i++)
        for (k = 0; k < HLSNAP__NUM_PLACES; k++) hlsnap__place_release(plan->sources[i].places[k]);
    hlsnap__free(plan->known);
    hlsnap__free(plan->sources);
    hlsnap__free(plan->runs);
    memset(plan, 0, sizeof(*plan));
}

/* Appends a run. It joins the one before it where `join` allows and both simply go on. */
static hlsnap_result hlsnap__oci_plan_add(hlsnap__oci_plan *plan, const hlsnap__extent *run, bool join,
                                          hlsnap_error *err) {
    hlsnap__extent *last = plan->num ? &plan->runs[plan->num - 1] : NULL;
    if (last && join && last->layer == run->layer && run->page == last->page + last->pages &&
        (run->layer == HLSNAP__OCI_FRESH || run->layer_page == last->layer_page + last->pages)) {
        last->pages += run->pages;
        return HLSNAP_OK;
    }
    if (plan->num == plan->cap) {
        uint32_t cap = plan->cap ? 2 * plan->cap : 64;
        hlsnap__extent *runs = (hlsnap__extent *)hlsnap__alloc(cap, sizeof(runs[0]), err);
        if (!runs) return HLSNAP_ERR_MEMORY;
        if (plan->num) memcpy(runs, plan->runs, plan->num * sizeof(runs[0]));
        hlsnap__free(plan->runs);
        plan->runs = runs;
        plan->cap = cap;
    }
    plan->runs[plan->num++] = *run;
    return HLSNAP_OK;
}

/* Adds n pages of layer `number`, from layer page `at` on, but for those that need not be stored. */
static hlsnap_result hlsnap__oci_plan_fresh(hlsnap__oci_save *save, uint32_t number, uint64_t at, uint32_t page,
                                            uint32_t n, bool join, hlsnap_error *err) {
    const hlsnap__layer *layer = save->s->layers[number];
    const uint8_t *p = save->buffer;
    hlsnap__extent run;
    hlsnap_result r = HLSNAP_OK;
    uint32_t i;
    if (layer->map)
        p = layer->map + at * HLSNAP__PAGE;
    else
        r = hlsnap__layer_read(layer, at, n, save->buffer, err);
    run.pages = 1;
    run.layer = HLSNAP__OCI_FRESH;
    run.layer_page = 0;
    for (i = 0; !r && i < n; i++) {
        run.page = page + i;
        if (hlsnap__page_counts(save->s, run.page, p + (size_t)i * HLSNAP__PAGE))
            r = hlsnap__oci_plan_add(&save->plan, &run, join || i > 0, err);
    }
    return r;
}

/* Adds an extent of the snapshot: what lies in a known blob as it is, of the rest the pages that are not zero. */
static hlsnap_result hlsnap__oci_plan_extent(hlsnap__oci_save *save, const hlsnap__extent *e, hlsnap_error *err) {
    const hlsnap__oci_source *source = &save->plan.sources[e->layer];
    const hlsnap__place *place = source->place && !save->plan.known[source->known].merge ? source->place : NULL;
    bool join = e->page > 0 && hlsnap__oci_same_room(save->s, e->page, e->page - 1);
    hlsnap_result r = HLSNAP_OK;
    uint32_t i, n;
    for (i = 0; !r && i < e->pages; i += n, join = true) {
        const uint64_t at = (uint64_t)e->layer_page + i;
        const hlsnap__place_run *run = hlsnap__place_at(place, at);
        n = e->pages - i;
        if (run && run->page <= at) {
            hlsnap__extent known;
            if (n > run->page + run->pages - at) n = (uint32_t)(run->page + run->pages - at);
            known.page = e->page + i;
            known.pages = n;
            known.layer = source->known;
            known.layer_page = run->at + (uint32_t)(at - run->page);
            r = hlsnap__oci_plan_add(&save->plan, &known, join, err);
        } else {
            if (run && n > run->page - at) n = (uint32_t)(run->page - at);
            if (n > HLSNAP__OCI_BATCH / HLSNAP__PAGE) n = HLSNAP__OCI_BATCH / HLSNAP__PAGE;
            r = hlsnap__oci_plan_fresh(save, e->layer, at, e->page + i, n, join, err);
        }
    }
    return r;
}

/* Counts what runs show of each blob, and the pages of the new layer. */
static void hlsnap__oci_plan_count(hlsnap__oci_plan *plan) {
    uint32_t i;
    plan->pages = 0;
    for (i = 0; i < plan->num_known; i++) plan->known[i].used = 0;
    for (i = 0; i < plan->num; i++)
        if (plan->runs[i].layer == HLSNAP__OCI_FRESH)
            plan->pages += plan->runs[i].pages;
        else
            plan->known[plan->runs[i].layer].used += plan->runs[i].pages;
}

static hlsnap_result hlsnap__oci_plan_runs(hlsnap__oci_save *save, hlsnap_error *err) {
    hlsnap__oci_plan *plan = &save->plan;
    const hlsnap__layout *l = &save->s->guest->layout;
    hlsnap_result r = HLSNAP_OK;
    uint32_t i;
    plan->num = 0;
    for (i = 0; !r && i < save->s->num_extents; i++) r = hlsnap__oci_plan_extent(save, &save->s->extents[i], err);
    if (!r && !plan->num) { /* a guest of zeros: the manifest needs a layer, so the first text page is stored */
        hlsnap__extent first = {0, 1, HLSNAP__OCI_FRESH, 0};
        first.page = (uint32_t)hlsnap__region_page(l, hlsnap__layout_find(l, HLSNAP__TEXT));
        r = hlsnap__oci_plan_add(plan, &first, false, err);
    }
    hlsnap__oci_plan_count(plan);
    return r;
}

/* Ranks blobs by the last of the snapshot's layers that they have pages of, so that what is saved again, when what was new
   then is known, gives the same order. Returns the rank of what is new. */
static uint32_t hlsnap__oci_plan_rank(hlsnap__oci_save *save) {
    hlsnap__oci_plan *plan = &save->plan;
    uint32_t i, fresh = UINT32_MAX;
    for (i = 0; i < save->s->num_layers; i++)
        if (plan->sources[i].place && !plan->known[plan->sources[i].known].merge)
            plan->known[plan->sources[i].known].rank = i;
        else
            fresh = i;
    return fresh;
}

/* The blob of that rank, when the plan uses it, or NULL. */
static hlsnap__oci_known *hlsnap__oci_known_at(hlsnap__oci_save *save, uint32_t rank) {
    const hlsnap__oci_source *source = &save->plan.sources[rank];
    hlsnap__oci_known *k = source->place ? &save->plan.known[source->known] : NULL;
    return k && k->used && k->rank == rank ? k : NULL;
}

/* Chooses blobs whose pages go to the new layer, so that a chain of snapshots does not grow, while its base stays. False: none. */
static bool hlsnap__oci_plan_merge(hlsnap__oci_save *save) {
    hlsnap__share share[HLSNAP__MAX_LAYERS];
    hlsnap__oci_known *row[HLSNAP__MAX_LAYERS], *k;
    uint32_t i, num = 0;
    bool some = false;
    hlsnap__oci_plan_rank(save);
    for (i = 0; i < 2 * save->s->num_layers && num < HLSNAP__MAX_LAYERS; i++) { /* captured ones last, as numbered */
        const bool captured = i >= save->s->num_layers;
        k = hlsnap__oci_known_at(save, i % save->s->num_layers);
        if (!k || k->captured != captured) continue;
        memset(&share[num], 0, sizeof(share[num]));
        share[num].pages = captured ? 0 : k->place->pages;
        share[num].shown = captured ? 0 : k->used;
        share[num].fixed = captured;
        row[num++] = k;
    }
    if (!save->plan.pages && num <= HLSNAP__OCI_LAYERS)
        return false; /* as it was loaded or saved, so it is saved again */
    hlsnap__shares_choose(share, num);
    for (i = 0; i < num; i++) some = (row[i]->merge = share[i].merge) || some;
    return some;
}

/* Adds a layer to the manifest; false: there are too many. */
static bool hlsnap__oci_plan_layer(hlsnap__oci_plan *plan, const char *memory, const char *chunks, uint64_t pages,
                                   uint32_t *number) {
    hlsnap__oci_layer *layer = &plan->layers[plan->num_layers];
    if (plan->num_layers == HLSNAP__OCI_LAYERS) return false;
    layer->memory = memory;
    layer->chunks = chunks;
    layer->pages = pages;
    *number = plan->num_layers++;
    return true;
}

/* Numbers the layers by their rank, those of captured maps last, so that the first one is the base of a chain. False: there are
   too many, or what the snapshot shows beside the base that is there is more than half its pages, and it had better be written
   whole. */
static bool hlsnap__oci_plan_number(hlsnap__oci_save *save) {
    hlsnap__oci_plan *plan = &save->plan;
    const hlsnap__oci_blob *b = save->blobs;
    const uint32_t fresh = hlsnap__oci_plan_rank(save), num = save->s->num_layers;
    uint64_t base = UINT64_MAX, above = 0;
    bool ok = true;
    uint32_t i;
    hlsnap__oci_plan_count(plan);
    for (i = 0; i < plan->num_known; i++) plan->known[i].number = HLSNAP__OCI_FRESH;
    plan->num_layers = 0;
    for (i = 0; ok && i <= num; i++) {
        hlsnap__oci_known *k = i < num ? hlsnap__oci_known_at(save, i) : NULL;
        if (k && k->captured) continue;
        if (k && base != UINT64_MAX) above += k->used;
        if (k && base == UINT64_MAX) base = k->place->pages;
        if (k) ok = hlsnap__oci_plan_layer(plan, k->memory.digest, k->chunks.digest, k->place->pages, &k->number);
        if (ok && plan->pages && i == (fresh < num ? fresh : num))
            ok = hlsnap__oci_plan_layer(plan, b[HLSNAP__OCI_MEMORY].digest, b[HLSNAP__OCI_CHUNKS].digest, plan->pages,
                                        &plan->fresh);
    }
    for (i = 0; ok && i < num; i++) {
        hlsnap__oci_known *k = hlsnap__oci_known_at(save, i);
        if (k && k->captured)
            ok = hlsnap__oci_plan_layer(plan, k->memory.digest, k->chunks.digest, k->place->pages, &k->number);
    }
    return ok && (!plan->pages || above + plan->pages <= base / 2 || base == UINT64_MAX);
}

/* Pages to store, so that run i and the one before it are one run of the new layer: the zero pages between, and what lies in
   other layers. UINT32_MAX: they are of two regions. */
static uint32_t hlsnap__oci_join_cost(const hlsnap__oci_save *save, uint32_t i) {
    const hlsnap_snapshot *s = save->s;
    const hlsnap__extent *b = &save->plan.runs[i], *a = b - 1;
    if (!hlsnap__oci_same_room(s, a->page, b->page)) return UINT32_MAX;
    if (a->page + a->pages != b->page && !hlsnap__page_sparse(&s->guest->layout, s->maps, s->num_maps, a->page))
        return UINT32_MAX; /* the gap is the host's */
    return b->page - (a->page + a->pages) + (a->layer == HLSNAP__OCI_FRESH ? 0 : a->pages) +
           (b->layer == HLSNAP__OCI_FRESH ? 0 : b->pages);
}

static int hlsnap__oci_u32_order(const void *a, const void *b) {
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* The n-th smallest cost, and how many of those that cost as much are among the first n. False: there are none. */
static bool hlsnap__oci_join_limit(const uint32_t *costs, uint32_t *sorted, uint32_t num, uint32_t n, uint32_t *limit,
                                   uint32_t *ties) {
    uint32_t i, count = 0;
    for (i = 1; i < num; i++)
        if (costs[i] != UINT32_MAX) sorted[count++] = costs[i];
    if (!count) return false;
    qsort(sorted, count, sizeof(sorted[0]), hlsnap__oci_u32_order);
    if (n > count) n = count;
    *limit = sorted[n - 1];
    for (*ties = 0; *ties < n && sorted[n - 1 - *ties] == *limit;) ++*ties;
    return true;
}

/* Makes of n pairs of neighbours one run of the new layer each: those for which the fewest pages are stored, of equal ones the
   first. *joined is false: there are none. */
static hlsnap_result hlsnap__oci_plan_join(hlsnap__oci_save *save, uint32_t n, bool *joined, hlsnap_error *err) {
    hlsnap__oci_plan *plan = &save->plan;
    uint32_t *costs = (uint32_t *)hlsnap__alloc(plan->num, 2 * sizeof(costs[0]), err);
    uint32_t i, k, limit = 0, ties = 0, num = plan->num;
    if (!costs) return HLSNAP_ERR_MEMORY;
    for (i = 1; i < num; i++) costs[i] = hlsnap__oci_join_cost(save, i);
    *joined = hlsnap__oci_join_limit(costs, costs + num, num, n, &limit, &ties);
    for (i = k = 1; *joined && i < num; i++) {
        const hlsnap__extent run = plan->runs[i];
        hlsnap__extent *last = &plan->runs[k - 1];
        if (costs[i] > limit || (costs[i] == limit && !ties)) {
            plan->runs[k++] = run;
            continue;
        }
        if (costs[i] == limit) ties--;
        last->pages = run.page + run.pages - last->page;
        last->layer = HLSNAP__OCI_FRESH;
    }
    plan->num = 0;
    for (i = 0; i < k; i++) { /* what was another layer's may go on what is before it or behind: there is room */
        const hlsnap__extent run = plan->runs[i];
        hlsnap__oci_plan_add(plan, &run, run.page > 0 && hlsnap__oci_same_room(save->s, run.page, run.page - 1), err);
    }
    hlsnap__free(costs);
    return HLSNAP_OK;
}

/* Whether a reader will take the extents: two of the snapshot's layers may have come to lie in one blob, which would then be
   shown more than once. */
static bool hlsnap__oci_plan_readable(const hlsnap__oci_save *save) {
    const hlsnap__oci_plan *plan = &save->plan;
    uint64_t pages[HLSNAP__OCI_LAYERS];
    hlsnap_error unused;
    uint32_t i;
    for (i = 0; i < plan->num_layers; i++) pages[i] = plan->layers[i].pages;
    return hlsnap__extents_check(&save->s->guest->layout, save->s->maps, save->s->num_maps, pages, plan->num_layers,
                                 plan->runs, plan->num, HLSNAP_ERR_CONFIG, &unused) == HLSNAP_OK;
}

/* Turns what runs say of their layer into what the config will say. */
static void hlsnap__oci_plan_finish(hlsnap__oci_plan *plan) {
    uint32_t i, fresh = 0;
    for (i = 0; i < plan->num; i++) {
        hlsnap__extent *run = &plan->runs[i];
        if (run->layer != HLSNAP__OCI_FRESH) {
            run->layer = plan->known[run->layer].number;
        } else {
            run->layer = plan->fresh;
            run->layer_page = fresh;
            fresh += run->pages;
        }
    }
}

/* And back. */
static void hlsnap__oci_plan_resume(hlsnap__oci_plan *plan) {
    uint32_t i, known[HLSNAP__OCI_LAYERS];
    for (i = 0; i < HLSNAP__OCI_LAYERS; i++) known[i] = HLSNAP__OCI_FRESH;
    for (i = 0; i < plan->num_known; i++)
        if (plan->known[i].number != HLSNAP__OCI_FRESH) known[plan->known[i].number] = i;
    for (i = 0; i < plan->num; i++) plan->runs[i].layer = known[plan->runs[i].layer];
}

/* Writes the config, but for the new chunk list's digest, to save->text. *over: extents that there are too many, or will not fit
   it by a low estimate; else *fits: a reader will take it. Runs say what the config says only when it fits. */
static hlsnap_result hlsnap__oci_plan_write(hlsnap__oci_save *save, uint32_t *over, bool *fits, hlsnap_error *err) {
    static const char placeholder[72] = "sha256:................................................................";
    const size_t extent = sizeof("[4294967295,4294967295,31,4294967295],");
    hlsnap__oci_plan *plan = &save->plan;
    hlsnap_result r;
    *fits = false;
    *over = plan->num > HLSNAP__OCI_MAX_EXTENTS ? plan->num - HLSNAP__OCI_MAX_EXTENTS : 0;
    if (*over) return HLSNAP_OK;
    memcpy(save->blobs[HLSNAP__OCI_CHUNKS].digest, placeholder, sizeof(placeholder));
    r = hlsnap__text_start(&save->text, hlsnap__oci_config_bound(save->s->guest, plan->num, save->s->num_maps), err);
    if (r) return r;
    hlsnap__oci_plan_finish(plan);
    hlsnap__oci_config_write(&save->text, save->s, plan->layers, plan->num_layers, plan->runs, plan->num);
    if (save->text.size > HLSNAP__OCI_JSON_MAX)
        *over = (uint32_t)((save->text.size - HLSNAP__OCI_JSON_MAX) / extent + 1);
    else
        *fits = hlsnap__oci_plan_readable(save);
    if (!*fits) hlsnap__oci_plan_resume(plan);
    return HLSNAP_OK;
}

/* One try, over the blobs that are thought to be there. */
static hlsnap_result hlsnap__oci_plan_try(hlsnap__oci_save *save, bool *fits, hlsnap_error *err) {
    uint32_t over = 0, i;
    bool joined = true;
    hlsnap_result r;
    *fits = false;
    hlsnap__oci_sources_choose(save);
    for (i = 0; i < save->plan.num_known; i++) save->plan.known[i].merge = false;
    r = hlsnap__oci_plan_runs(save, err);
    if (!r && hlsnap__oci_plan_merge(save)) r = hlsnap__oci_plan_runs(save, err);
    while (!r && joined) {
        if (!hlsnap__oci_plan_number(save)) return HLSNAP_OK; /* mixed has no known blobs, and so never gets here */
        r = hlsnap__oci_plan_write(save, &over, fits, err);
        if (r || !over) return r;
        r = hlsnap__oci_plan_join(save, over, &joined, err);
    }
    if (!r && save->mixed) r = hlsnap__fail(err, HLSNAP_ERR_LIMIT, 0, "the config takes more than 1 MiB");
    return r;
}

/* ---- >>look: whether blobs that lie in the layout are what their names say, on one thread or several ---- */

static bool hlsnap__oci_thread(pthread_t *thread, void *(*run)(void *), void *arg);

typedef struct hlsnap__oci_file {
    hlsnap__oci_blob *b;
    const hlsnap__place *known; /* as for hlsnap__oci_blob_look */
    int fd;                     /* -1: nothing to hash */
    bool listed;                /* its chunks are known to be those of the list */
    bool young;
    int32_t wrong; /* atomic: its content is another one, or cannot be read */
} hlsnap__oci_file;

/* A thread that helps, and its buffer of HLSNAP__OCI_BATCH bytes behind it. */
typedef struct hlsnap__oci_looker {
    struct hlsnap__oci_looker *next;
    struct hlsnap__oci_pool *pool;
    pthread_t thread;
} hlsnap__oci_looker;

/* Tasks, and the threads that take them. */
typedef struct hlsnap__oci_pool {
    /* one task; where `report` is set it is the caller's thread, which alone reports */
    hlsnap_result (*task)(struct hlsnap__oci_pool *p, uint32_t task, uint8_t *buffer, bool report, hlsnap_error *err);
    hlsnap_result (*tell)(struct hlsnap__oci_pool *p, hlsnap_error *err); /* before each report, or NULL */
    const hlsnap__sha256_ways *sha;
    const hlsnap_oci_desc *desc; /* whom progress is reported to */
    uint8_t *buffer;             /* of the caller's thread, HLSNAP__OCI_BATCH bytes */
    uint32_t num;                /* tasks */
    uint32_t next;               /* atomic: the first task that nobody took */
    uint64_t before, total;      /* for progress: bytes that were done before, and all of them */
    uint64_t done;               /* atomic: bytes of the files that were hashed */
    uint32_t running;            /* atomic: threads that help */
    int32_t stop;                /* atomic: not 0 = give up */
    hlsnap__oci_looker *lookers;
} hlsnap__oci_pool;

/* The digest of a file is a chain, for one thread; but that of its chunk list another one may make meanwhile. */
typedef struct hlsnap__oci_looking {
    hlsnap__oci_pool pool;
    hlsnap__oci_file *files;
    uint32_t parts; /* 2: file i is tasks 2 i, the whole, and 2 i + 1, its chunks; 1: task i is both */
} hlsnap__oci_looking;

static void hlsnap__oci_file_set(hlsnap__oci_file *f, hlsnap__oci_blob *b, const hlsnap__place *known) {
    memset(f, 0, sizeof(*f));
    f->b = b;
    f->known = known;
    f->fd = -1;
}

/* Opens a file, to be hashed unless it is the one that was. */
static void hlsnap__oci_file_open(const hlsnap__oci_store *store, hlsnap__oci_file *f) {
    hlsnap_error unused;
    struct stat st;
    uint64_t size;
    f->b->shared = false;
    if (hlsnap__oci_open(store->sha256, f->b->digest + 7, &f->fd, &size, &unused)) {
        f->fd = -1;
        return;
    }
    if (fstat(f->fd, &st) == 0 && size == f->b->size) {
        f->young = hlsnap__oci_young(&st);
        hlsnap__oci_blob_stat(f->b, &st);
        f->b->shared = f->known && f->known->ino == f->b->ino && f->known->dev == f->b->dev &&
                       f->known->ctime_s == f->b->ctime_s && f->known->ctime_ns == f->b->ctime_ns;
        f->listed = f->known && f->known->list_ino == f->b->ino && f->known->list_dev == f->b->dev &&
                    f->known->list_ctime_s == f->b->ctime_s && f->known->list_ctime_ns == f->b->ctime_ns;
        if (!f->b->shared) return;
    }
    close(f->fd);
    f->fd = -1;
}

/* What was found out about a file that was hashed. */
static void hlsnap__oci_file_close(hlsnap__oci_file *f, bool found) {
    hlsnap_error unused;
    if (f->fd < 0) return;
    if (found && !f->wrong) {
        /* who wrote it may not have done that; a failure is reported once only, so it is never asked again */
        if (hlsnap__oci_fsync(f->fd, f->b->digest, &unused) != HLSNAP_OK) f->b->unsynced = true;
        f->b->shared = !f->b->unsynced;
        f->b->young = f->young;
    }
    close(f->fd);
    f->fd = -1;
}

static hlsnap_result hlsnap__oci_pool_report(hlsnap__oci_pool *p, hlsnap_error *err) {
    const uint64_t done = p->before + __atomic_load_n(&p->done, __ATOMIC_RELAXED);
    hlsnap_result r = p->tell ? p->tell(p, err) : HLSNAP_OK;
    return r ? r : hlsnap__oci_report(p->desc, done < p->total ? done : p->total, p->total, err);
}

/* Hashes an open file: its whole and its list of chunks, of which each may be NULL. *ended: all of it, not given up before. What
   was read counts with the whole. skip: atomic, not 0 = give up. */
static hlsnap_result hlsnap__oci_pool_hash(hlsnap__oci_pool *p, int fd, uint64_t size, char *whole, char *list,
                                           const int32_t *skip, uint8_t *buffer, bool report, bool *ended,
                                           hlsnap_error *err) {
    uint8_t sums[HLSNAP__OCI_BATCH / HLSNAP__OCI_CHUNK * 32];
    hlsnap__sha256 all, chunks;
    hlsnap_result r = HLSNAP_OK;
    uint64_t at, n;
    *ended = false;
    hlsnap__sha256_init(&all, p->sha->one);
    hlsnap__sha256_init(&chunks, p->sha->one);
    for (at = 0; !r && at < size; at += n) {
        n = size - at < HLSNAP__OCI_BATCH ? size - at : HLSNAP__OCI_BATCH;
        if (__atomic_load_n(&p->stop, __ATOMIC_RELAXED) || __atomic_load_n(skip, __ATOMIC_RELAXED)) return r;
        r = hlsnap__pread(fd, buffer, (size_t)n, at, err);
        if (r) return r;
        if (whole) hlsnap__sha256_update(&all, buffer, (size_t)n);
        if (list) hlsnap__sha256_chunks(p->sha, buffer, (size_t)n, HLSNAP__OCI_CHUNK, sums);
        if (list) hlsnap__sha256_update(&chunks, sums, (size_t)((n + HLSNAP__OCI_CHUNK - 1) / HLSNAP__OCI_CHUNK * 32));
        if (whole) __atomic_fetch_add(&p->done, n, __ATOMIC_RELAXED);
        if (report) r = hlsnap__oci_pool_report(p, err);
    }
    if (r) return r;
    *ended = true;
    hlsnap__sha256_final(&all, sums);
    if (whole) hlsnap__sha256_text(sums, whole);
    hlsnap__sha256_final(&chunks, sums);
    if (list) hlsnap__sha256_text(sums, list);
    return r;
}

/* Takes tasks until there are none. */
static hlsnap_result hlsnap__oci_pool_run(hlsnap__oci_pool *p, uint8_t *buffer, bool report, hlsnap_error *err) {
    hlsnap_result r = HLSNAP_OK;
    while (!r && !__atomic_load_n(&p->stop, __ATOMIC_RELAXED)) {
        const uint32_t task = __atomic_fetch_add(&p->next, 1, __ATOMIC_RELAXED);
        if (task >= p->num) break;
        r = p->task(p, task, buffer, report, err);
    }
    return r;
}

static void *hlsnap__oci_pool_thread(void *arg) {
    hlsnap__oci_looker *looker = (hlsnap__oci_looker *)arg;
    hlsnap_error unused;
    hlsnap__oci_pool_run(looker->pool, (uint8_t *)(looker + 1), false, &unused);
    __atomic_fetch_sub(&looker->pool->running, 1, __ATOMIC_RELEASE);
    return NULL;
}

/* Starts up to n threads. Where there are none, or no memory, those that there are do their share. */
static void hlsnap__oci_pool_start(hlsnap__oci_pool *p, uint32_t n) {
    for (; n; n--) {
        hlsnap__oci_looker *looker = (hlsnap__oci_looker *)hlsnap__alloc_raw(sizeof(*looker) + HLSNAP__OCI_BATCH, NULL);
        if (!looker) return;
        looker->pool = p;
        __atomic_fetch_add(&p->running, 1, __ATOMIC_RELAXED);
        if (!hlsnap__oci_thread(&looker->thread, hlsnap__oci_pool_thread, looker)) {
            __atomic_fetch_sub(&p->running, 1, __ATOMIC_RELAXED);
            hlsnap__free(looker);
            return;
        }
        looker->next = p->lookers;
        p->lookers = looker;
    }
}

/* This thread's share, then reports until the others have done theirs. */
static hlsnap_result hlsnap__oci_pool_share(hlsnap__oci_pool *p, hlsnap_error *err) {
    const struct timespec nap = {0, 1000000};
    hlsnap_result r = hlsnap__oci_pool_run(p, p->buffer, true, err);
    while (!r && __atomic_load_n(&p->running, __ATOMIC_ACQUIRE)) {
        nanosleep(&nap, NULL);
        r = hlsnap__oci_pool_report(p, err);
    }
    if (r) __atomic_store_n(&p->stop, 1, __ATOMIC_RELAXED);
    while (p->lookers) {
        hlsnap__oci_looker *looker = p->lookers;
        pthread_join(looker->thread, NULL);
        p->lookers = looker->next;
        hlsnap__free(looker);
    }
    return r;
}

/* One file, whole or its chunks or both: what is wrong with it is noted, and a failure only when progress cancels. */
static hlsnap_result hlsnap__oci_file_task(hlsnap__oci_pool *p, uint32_t task, uint8_t *buffer, bool report,
                                           hlsnap_error *err) {
    const hlsnap__oci_looking *l = (const hlsnap__oci_looking *)(const void *)p;
    hlsnap__oci_file *f = &l->files[task / l->parts];
    const bool whole = l->parts == 1 || task % 2 == 0,
               chunks = (l->parts == 1 || task % 2 == 1) && f->known && !f->listed;
    char sum[72], list[72];
    bool ended;
    hlsnap_result r;
    if (f->fd < 0 || (!whole && !chunks)) return HLSNAP_OK;
    r = hlsnap__oci_pool_hash(p, f->fd, f->b->size, whole ? sum : NULL, chunks ? list : NULL, &f->wrong, buffer, report,
                              &ended, err);
    if (r == HLSNAP_ERR_CANCELLED) return r;
    if (r || (ended && ((whole && strcmp(sum, f->b->digest) != 0) || (chunks && strcmp(list, f->known->chunks) != 0))))
        __atomic_store_n(&f->wrong, 1, __ATOMIC_RELAXED);
    return HLSNAP_OK;
}

/* What a save reads of blobs that were loaded, before it is read. */
static hlsnap_result hlsnap__oci_look_bound(hlsnap__oci_save *save, uint64_t size, hlsnap_error *err) {
    save->again += size;
    if (!save->desc.max_bytes || save->again <= save->desc.max_bytes) return HLSNAP_OK;
    return hlsnap__fail(err, HLSNAP_ERR_LIMIT, 0,
                        "%llu bytes of memory layers that were loaded are to be hashed again, desc.max_bytes is %llu",
                        (unsigned long long)save->again, (unsigned long long)save->desc.max_bytes);
}

/* hlsnap__oci_blob_look of several, with progress. A failure only when that cancels, or when those that were loaded are more than
   desc.max_bytes. then: bytes that will be written. */
static hlsnap_result hlsnap__oci_files_look(hlsnap__oci_save *save, hlsnap__oci_file *files, uint32_t num,
                                            uint64_t then, hlsnap_error *err) {
    const uint32_t threads = save->desc.threads ? save->desc.threads : 1;
    hlsnap__oci_looking l;
    uint32_t i, tasks = 0;
    uint64_t size = 0, loaded = 0;
    hlsnap_result r = HLSNAP_OK;
    memset(&l, 0, sizeof(l));
    l.files = files;
    for (i = 0; i < num; i++) {
        hlsnap__oci_file_open(&save->store, &files[i]);
        if (files[i].fd < 0) continue;
        size += files[i].b->size;
        loaded += files[i].known ? files[i].b->size : 0;
        tasks += files[i].b->size > HLSNAP__OCI_BATCH && files[i].known && !files[i].listed ? 2 : 1;
    }
    l.parts = threads > 1 ? 2 : 1;
    l.pool.task = hlsnap__oci_file_task;
    l.pool.sha = save->sha;
    l.pool.desc = &save->desc;
    l.pool.buffer = save->buffer;
    l.pool.num = num * l.parts;
    l.pool.before = save->done;
    l.pool.total = save->done + size + then;
    r = hlsnap__oci_look_bound(save, loaded, err);
    if (!r && size > HLSNAP__OCI_BATCH) hlsnap__oci_pool_start(&l.pool, (tasks < threads ? tasks : threads) - 1);
    if (!r && tasks) r = hlsnap__oci_pool_share(&l.pool, err);
    for (i = 0; i < num; i++) hlsnap__oci_file_close(&files[i], !r);
    save->done += size;
    return r;
}

/* ---- >>plan-check ---- */

/* Of >>save-maps. Writes captured maps again whose blobs the plan was to share, and which are not sound. */
static hlsnap_result hlsnap__oci_maps_heal(hlsnap__oci_save *save, hlsnap_error *err);

/* Looks at the blobs that the plan shares: all of their content, unless that was done before. *sound is false: one of them is
   not, and will not be thought to be there again. */
static hlsnap_result hlsnap__oci_plan_check(hlsnap__oci_save *save, bool *sound, hlsnap_error *err) {
    hlsnap__oci_file files[HLSNAP__OCI_LAYERS];
    uint32_t i, num = 0;
    hlsnap_result r;
    *sound = true;
    for (i = 0; i < save->plan.num_known; i++) {
        hlsnap__oci_known *k = &save->plan.known[i];
        if (!k->used || !k->there || k->memory.shared || hlsnap__oci_map_new(save, k->place)) continue;
        hlsnap__oci_file_set(&files[num++], &k->memory, k->place);
    }
    r = hlsnap__oci_files_look(save, files, num, save->plan.pages * HLSNAP__PAGE, err);
    for (i = 0; !r && i < save->plan.num_known; i++) {
        hlsnap__oci_known *k = &save->plan.known[i];
        if (!k->used || !k->there || hlsnap__oci_map_new(save, k->place)) continue;
        if (!k->chunks.shared) hlsnap__oci_blob_look(&save->store, &k->chunks, NULL, save->sha, save->buffer);
        if (k->memory.unsynced || k->chunks.unsynced)
            return hlsnap__fail(err, HLSNAP_ERR_OS, EIO, "blobs/sha256/%s: fsync failed", k->memory.digest + 7);
        k->there = k->memory.shared && k->chunks.shared;
        *sound = *sound && k->there;
    }
    return r;
}

static hlsnap_result hlsnap__oci_plan_make(hlsnap__oci_save *save, hlsnap_error *err) {
    bool fits, sound = false;
    hlsnap_result r = hlsnap__oci_sources_find(save, err);
    while (!r) { /* each round has fewer blobs to share than the one before it, or maps' that were written again, once */
        r = hlsnap__oci_plan_try(save, &fits, err);
        if (!r && fits) r = hlsnap__oci_plan_check(save, &sound, err);
        if (r || (fits && sound)) return r;
        if (fits) r = hlsnap__oci_maps_heal(save, err);
        if (!fits) save->mixed = save->flat;
        if (!fits) save->flat = true;
    }
    return r;
}

/* What the plan says of a page of one of the snapshot's layers. */
typedef struct hlsnap__oci_spot {
    uint32_t layer;
    hlsnap__place_run run;
} hlsnap__oci_spot;

static int hlsnap__oci_spot_order(const void *a, const void *b) {
    const hlsnap__oci_spot *x = (const hlsnap__oci_spot *)a, *y = (const hlsnap__oci_spot *)b;
    if (x->layer != y->layer) return x->layer < y->layer ? -1 : 1;
    return x->run.page < y->run.page ? -1 : x->run.page > y->run.page;
}

/* The parts of the snapshot's extents that the plan put into the new layer: at most num of them fit `spots`; NULL counts. */
static uint32_t hlsnap__oci_spots(hlsnap__oci_save *save, hlsnap__oci_spot *spots) {
    const hlsnap__oci_plan *plan = &save->plan;
    uint32_t i, k = 0, num = 0;
    for (i = 0; i < save->s->num_layers; i++) plan->sources[i].kept = 0;
    for (i = 0; i < save->s->num_extents; i++) {
        const hlsnap__extent *e = &save->s->extents[i];
        while (k < plan->num && (uint64_t)plan->runs[k].page + plan->runs[k].pages <= e->page) k++;
        for (; k < plan->num && plan->runs[k].page < (uint64_t)e->page + e->pages; k++) {
            const hlsnap__extent *run = &plan->runs[k];
            const uint32_t from = run->page > e->page ? run->page : e->page,
                           end = run->page + run->pages < e->page + e->pages ? run->page + run->pages
                                                                             : e->page + e->pages;
            if (run->layer == plan->fresh) {
                if (spots) {
                    spots[num].layer = e->layer;
                    spots[num].run.page = e->layer_page + (from - e->page);
                    spots[num].run.pages = end - from;
                    spots[num].run.at = run->layer_page + (from - run->page);
                }
                num++;
            } else
                plan->sources[e->layer].kept += end - from;
            if (run->page + run->pages > end) break; /* goes on in the next extent */
        }
    }
    return num;
}

/* A place in the blob with these digests, with room for num runs. Best effort: NULL when there is no memory. */
static hlsnap__place *hlsnap__oci_place_new(const char *memory, const char *chunks, uint64_t pages, uint32_t num) {
    hlsnap_error unused;
    hlsnap__place *place = (hlsnap__place *)hlsnap__alloc(1, sizeof(*place) + num * sizeof(hlsnap__place_run), &unused);
    if (!place) return NULL;
    place->refs = 1;
    memcpy(place->memory, memory, sizeof(place->memory));
    memcpy(place->chunks, chunks, sizeof(place->chunks));
    place->pages = pages;
    place->runs = (hlsnap__place_run *)(void *)(place + 1);
    return place;
}

/* Notes which file was hashed whole, so that the next save need not do it again. */
static void hlsnap__oci_place_seen(hlsnap__place *place, const hlsnap__oci_blob *b) {
    if (b->young) return;
    place->dev = b->dev;
    place->ino = b->ino;
    place->ctime_s = b->ctime_s;
    place->ctime_ns = b->ctime_ns;
}

/* Tells the layers where their pages are now. */
static void hlsnap__oci_remember_fresh(hlsnap__oci_save *save) {
    hlsnap_error unused;
    const hlsnap__oci_blob *memory = &save->blobs[HLSNAP__OCI_MEMORY];
    const uint32_t num = hlsnap__oci_spots(save, NULL);
    hlsnap__oci_spot *spots = (hlsnap__oci_spot *)hlsnap__alloc((size_t)num + 1, sizeof(*spots), &unused);
    uint32_t i, k, end;
    if (!spots) return;
    hlsnap__oci_spots(save, spots);
    qsort(spots, num, sizeof(*spots), hlsnap__oci_spot_order);
    for (i = 0; i < num; i = end) {
        hlsnap__place *place;
        uint64_t next = 0, pages = 0;
        for (end = i; end < num && spots[end].layer == spots[i].layer;) pages += spots[end++].run.pages;
        if (pages < save->plan.sources[spots[i].layer].kept)
            continue; /* a few only: the blob with the others is known */
        place =
            hlsnap__oci_place_new(memory->digest, save->blobs[HLSNAP__OCI_CHUNKS].digest, save->plan.pages, end - i);
        if (!place) break;
        for (k = i; k < end; k++) { /* a page that is shown twice is found at either place */
            if (spots[k].run.page < next) continue;
            place->runs[place->num++] = spots[k].run;
            next = (uint64_t)spots[k].run.page + spots[k].run.pages;
        }
        hlsnap__oci_place_seen(place, memory);
        hlsnap__layer_place_set(save->s->layers[spots[i].layer], place);
    }
    hlsnap__free(spots);
}

/* A layer that is a blob. listed: the file whose chunks were all verified, or NULL. */
static void hlsnap__oci_remember_loaded(hlsnap__layer *layer, const char *memory, const char *chunks,
                                        const struct stat *listed) {
    hlsnap__place *place = hlsnap__oci_place_new(memory, chunks, layer->pages, 1);
    if (!place) return;
    place->num = 1;
    place->runs[0].pages = (uint32_t)layer->pages;
    if (listed) {
        place->list_dev = (uint64_t)listed->st_dev;
        place->list_ino = (uint64_t)listed->st_ino;
        place->list_ctime_s = (uint64_t)listed->st_ctim.tv_sec;
        place->list_ctime_ns = (uint64_t)listed->st_ctim.tv_nsec;
    }
    hlsnap__layer_place_set(layer, place);
}

/* The blobs that were shared, once one was hashed whole. */
static void hlsnap__oci_remember_known(hlsnap__oci_save *save) {
    uint32_t i;
    for (i = 0; i < save->s->num_layers; i++) {
        const hlsnap__place *old = save->plan.sources[i].place;
        const hlsnap__oci_known *k = old ? &save->plan.known[save->plan.sources[i].known] : NULL;
        hlsnap__place *place;
        if (!k || !k->used || (old->ino == k->memory.ino && old->dev == k->memory.dev)) continue;
        place = hlsnap__oci_place_new(old->memory, old->chunks, old->pages, old->num);
        if (!place) return;
        place->num = old->num;
        memcpy(place->runs, old->runs, old->num * sizeof(old->runs[0]));
        hlsnap__oci_place_seen(place, &k->memory);
        hlsnap__layer_place_set(save->s->layers[i], place);
    }
}

/* Manifests of snapshots that lie among the blobs: with a text, an index of them. In hlsnap__oci_fsck. */
static hlsnap_result hlsnap__oci_strays(const hlsnap__oci_store *store, hlsnap__text *index, uint32_t *num,
                                        hlsnap_error *err);

/* ---- >>save ---- */

/* Copies n guest pages; what no extent covers is zero. */
static hlsnap_result hlsnap__oci_read_pages(const hlsnap_snapshot *s, uint64_t page, uint64_t n, uint8_t *to,
                                            hlsnap_error *err) {
    hlsnap_result r = HLSNAP_OK;
    uint64_t k;
    for (; !r && n; n -= k, page += k, to += k * HLSNAP__PAGE) {
        const hlsnap__extent *e = hlsnap__extent_at(s, page);
        k = e ? e->pages - (page - e->page) : 1;
        if (k > n) k = n;
        if (e)
            r = hlsnap__layer_read(s->layers[e->layer], e->layer_page + (page - e->page), k, to, err);
        else
            memset(to, 0, HLSNAP__PAGE);
    }
    return r;
}

/* Fills the buffer with n pages of the new layer from layer page `at` on; *run: the first that may hold them. */
static hlsnap_result hlsnap__oci_gather(hlsnap__oci_save *save, uint64_t at, uint64_t n, uint32_t *run,
                                        hlsnap_error *err) {
    uint8_t *to = save->buffer;
    hlsnap_result r = HLSNAP_OK;
    while (!r && n) {
        const hlsnap__extent *e = &save->plan.runs[*run];
        uint64_t skip, k;
        if (e->layer != save->plan.fresh || at >= (uint64_t)e->layer_page + e->pages) {
            ++*run;
            continue;
        }
        skip = at - e->layer_page;
        k = e->pages - skip < n ? e->pages - skip : n;
        r = hlsnap__oci_read_pages(save->s, e->page + skip, k, to, err);
        at += k;
        n -= k;
        to += k * HLSNAP__PAGE;
    }
    return r;
}

/* Writes a memory layer, the plan's new one or, with `own`, one as it is, and makes the chunk list: what is hashed is what is
   written, whatever its source does. */
static hlsnap_result hlsnap__oci_memory_write(hlsnap__oci_save *save, const hlsnap__layer *own, hlsnap__oci_blob *b,
                                              hlsnap_error *err) {
    const uint64_t total = (own ? own->pages : save->plan.pages) * HLSNAP__PAGE;
    hlsnap__sha256 whole;
    uint8_t sum[32];
    uint64_t at, n;
    uint32_t run = 0;
    hlsnap_result r = hlsnap__file_room(total, "a memory layer", err);
    hlsnap__free(save->sums);
    save->sums = (uint8_t *)hlsnap__alloc(1, (size_t)hlsnap__oci_chunks_size(total), err);
    if (!save->sums) return HLSNAP_ERR_MEMORY;
    if (!r) r = hlsnap__oci_blob_create(&save->store, save->store.sha256, b, err);
    if (!r) r = hlsnap__file_reserve(b->fd, total, err);
    if (r) return r;
    hlsnap__sha256_init(&whole, save->sha->one);
    for (at = 0; !r && at < total; at += n) {
        n = total - at < HLSNAP__OCI_BATCH ? total - at : HLSNAP__OCI_BATCH;
        r = own ? hlsnap__layer_read(own, at / HLSNAP__PAGE, n / HLSNAP__PAGE, save->buffer, err)
                : hlsnap__oci_gather(save, at / HLSNAP__PAGE, n / HLSNAP__PAGE, &run, err);
        if (r) break;
        hlsnap__sha256_update(&whole, save->buffer, (size_t)n);
        hlsnap__sha256_chunks(save->sha, save->buffer, (size_t)n, HLSNAP__OCI_CHUNK,
                              save->sums + at / HLSNAP__OCI_CHUNK * 32);
        r = hlsnap__pwrite(b->fd, save->buffer, (size_t)n, at, err);
        /* the disk may begin while the next bytes are hashed; where that is not possible fsync does it all */
        if (!r && syscall(SYS_sync_file_range, b->fd, (int64_t)at, (int64_t)n, HLSNAP__OCI_START_WRITING) != 0 &&
            (errno == EIO || errno == ENOSPC || errno == EDQUOT))
            r = hlsnap__oci_os(err, errno, "write", "a memory layer");
        if (!r) r = hlsnap__oci_report(&save->desc, save->done + at + n, save->done + total, err);
    }
    save->done += total;
    hlsnap__sha256_final(&whole, sum);
    hlsnap__sha256_text(sum, b->digest);
    b->size = total;
    return r;
}

/* Writes a blob that is there in memory. */
static hlsnap_result hlsnap__oci_part_write(hlsnap__oci_save *save, hlsnap__oci_part part, const void *data, size_t n,
                                            hlsnap_error *err) {
    hlsnap__oci_blob *b = &save->blobs[part];
    uint8_t sum[32];
    hlsnap__sha256_of(save->sha->one, data, n, sum);
    hlsnap__sha256_text(sum, b->digest);
    return hlsnap__oci_file_write(&save->store, save->store.sha256, b, data, n, err);
}

/* Writes the new layer, if there is one, and its chunk list. */
static hlsnap_result hlsnap__oci_layer_save(hlsnap__oci_save *save, hlsnap_error *err) {
    const uint64_t size = hlsnap__oci_chunks_size(save->plan.pages * HLSNAP__PAGE);
    uint32_t i;
    hlsnap_result r;
    if (!save->plan.pages) return HLSNAP_OK;
    r = hlsnap__oci_memory_write(save, NULL, &save->blobs[HLSNAP__OCI_MEMORY], err);
    for (i = 0; !r && i < save->plan.num_layers; i++)
        if (i != save->plan.fresh && strcmp(save->plan.layers[i].memory, save->blobs[HLSNAP__OCI_MEMORY].digest) == 0) {
            save->whole = true; /* a guest wrote elsewhere what it had written before; no reader takes one blob twice */
            r = hlsnap__fail(err, HLSNAP_ERR_CHANGED, 0, "blobs/sha256/%s: the new layer, too",
                             save->plan.layers[i].memory + 7);
        }
    return r ? r : hlsnap__oci_part_write(save, HLSNAP__OCI_CHUNKS, save->sums, (size_t)size, err);
}

/* Writes the blobs that are new, none of which has a name yet. */
static hlsnap_result hlsnap__oci_blobs_write(hlsnap__oci_save *save, hlsnap_error *err) {
    const hlsnap__oci_plan *plan = &save->plan;
    hlsnap__oci_blob *b = save->blobs;
    hlsnap__oci_file memory;
    uint32_t i;
    hlsnap_result r = hlsnap__oci_layer_save(save, err);
    if (r) return r;
    save->text.size = 0; /* once more, now that the chunk list's digest is known */
    hlsnap__oci_config_write(&save->text, save->s, plan->layers, plan->num_layers, plan->runs, plan->num);
    r = hlsnap__oci_part_write(save, HLSNAP__OCI_CONFIG, save->text.at, save->text.size, err);
    if (!r) r = hlsnap__text_start(&save->text, 4096 + plan->num_layers * (size_t)512, err);
    if (r) return r;
    hlsnap__oci_manifest_write(&save->text, save->s->guest, plan->layers, plan->num_layers, &b[HLSNAP__OCI_CONFIG],
                               save->desc.created);
    r = hlsnap__oci_part_write(save, HLSNAP__OCI_MANIFEST, save->text.at, save->text.size, err);
    for (i = 0; !r && i < HLSNAP__OCI_NUM_PARTS; i++) /* all at once: the first one's journal commit does for all */
        if (b[i].size) r = hlsnap__oci_fsync(b[i].fd, "a new blob", err);
    if (!r && b[HLSNAP__OCI_MEMORY].size) {
        hlsnap__oci_file_set(&memory, &b[HLSNAP__OCI_MEMORY], NULL);
        r = hlsnap__oci_files_look(save, &memory, 1, 0, err);
    }
    for (i = HLSNAP__OCI_MEMORY + 1; !r && i < HLSNAP__OCI_NUM_PARTS; i++)
        if (b[i].size) hlsnap__oci_blob_look(&save->store, &b[i], NULL, save->sha, save->buffer);
    return r;
}

/* The blobs that are shared must still be what was looked at. Under the index lock. */
static hlsnap_result hlsnap__oci_known_commit(hlsnap__oci_save *save, hlsnap_error *err) {
    uint32_t i, k;
    for (i = 0; i < save->plan.num_known; i++) {
        const hlsnap__oci_known *known = &save->plan.known[i];
        const hlsnap__oci_blob *b[2];
        b[0] = &known->memory;
        b[1] = &known->chunks;
        for (k = 0; k < 2 && known->used && !hlsnap__oci_map_new(save, known->place); k++) {
            struct stat st;
            if (fstatat(save->store.sha256, b[k]->digest + 7, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
                hlsnap__oci_blob_same(b[k], &st))
                continue;
            save->whole = true;
            return hlsnap__fail(err, HLSNAP_ERR_CHANGED, 0, "blobs/sha256/%s: gone or changed while it was in use",
                                b[k]->digest + 7);
        }
    }
    return HLSNAP_OK;
}

/* Directories to the disk: what the index will name must be there before it, after a power loss too. */
static hlsnap_result hlsnap__oci_fsync_dirs(const hlsnap__oci_store *store, hlsnap_error *err) {
    hlsnap_result r = hlsnap__oci_fsync(store->sha256, "blobs/sha256", err);
    if (!r) r = hlsnap__oci_fsync(store->blobs, "blobs", err);
    return r ? r : hlsnap__oci_fsync(store->root, "the layout", err);
}

/* Whether an index that is not there is lost. Under the index lock: who names blobs holds it until there is one. Where nothing
   else says whether there was one, the blobs do; that there was none is noted for the next one. */
static hlsnap_result hlsnap__oci_lost_look(const hlsnap__oci_store *store, hlsnap_error *err) {
    hlsnap_error unused;
    uint32_t found = 0;
    bool indexed = false;
    int fd;
    hlsnap_result r = hlsnap__oci_exists(store->root, "index.json", &indexed, err);
    if (r || indexed) return r;
    if (!store->made_lock && hlsnap__oci_mark(store) != HLSNAP__OCI_MARK_DOUBT)
        return hlsnap__oci_index_missing(store->root, err) == HLSNAP_ERR_NOT_FOUND ? HLSNAP_OK : err->code;
    r = hlsnap__oci_strays(store, NULL, &found, err);
    if (r || found) return r ? r : hlsnap__oci_index_lost(err);
    if (!hlsnap__oci_mark(store)) return HLSNAP_OK;
    fd = openat(store->root, HLSNAP__OCI_LOCK, O_RDWR | O_TRUNC | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) return HLSNAP_OK; /* then the next one looks, too */
    hlsnap__oci_fsync(fd, HLSNAP__OCI_LOCK, &unused);
    close(fd);
    return HLSNAP_OK;
}

/* Before the first index, under the index lock. One that was there when this began may be lost since. And the lock file, which says
   that there is none, must be on the disk before a blob has its name: btrfs brings names to the disk with the next file that is
   synced, whatever its directory, and after a power loss the blobs would be those of an index that is lost. */
static hlsnap_result hlsnap__oci_first_index(const hlsnap__oci_store *store, const hlsnap__oci_index *index,
                                             hlsnap_error *err) {
    hlsnap_result r = HLSNAP_OK;
    if (index->there) return HLSNAP_OK;
    if (!store->made_sha256) r = hlsnap__oci_lost_look(store, err);
    return r ? r : hlsnap__oci_fsync(store->root, "the layout", err);
}

/* The parent of a layout that may be new. */
static hlsnap_result hlsnap__oci_fsync_parent(const hlsnap__oci_store *store, hlsnap_error *err) {
    int parent = openat(store->root, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    hlsnap_result r;
    if (parent < 0) return store->made_root ? hlsnap__oci_os(err, errno, "open", "the layout's parent") : HLSNAP_OK;
    r = hlsnap__oci_fsync(parent, "the layout's parent", err);
    close(parent);
    return r;
}

static int64_t hlsnap__oci_now(void) {
    struct timespec now = {0, 0};
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec;
}

/* Of >>save-maps. */
static hlsnap_result hlsnap__oci_maps_commit(hlsnap__oci_save *save, hlsnap_error *err);
static void hlsnap__oci_maps_close(hlsnap__oci_save *save, bool failed);

/* Names the blobs and lists the manifest, under the index lock. *listed: the index names them, so they must stay. */
static hlsnap_result hlsnap__oci_publish(hlsnap__oci_save *save, hlsnap__oci_index *index, hlsnap__oci_blob *file,
                                         bool *marking, bool *listed, hlsnap_error *err) {
    hlsnap__oci_edit edit;
    bool marked = false;
    uint32_t i;
    hlsnap_result r = hlsnap__oci_index_read(save->store.root, index, &marked, err);
    if (r) return r;
    edit.tag = save->tag;
    edit.digest = save->blobs[HLSNAP__OCI_MANIFEST].digest;
    edit.size = save->blobs[HLSNAP__OCI_MANIFEST].size;
    edit.drop = NULL;
    edit.created = save->desc.created ? save->desc.created : hlsnap__oci_now();
    r = hlsnap__oci_index_make(&save->text, index, &edit, err);
    if (!r) r = hlsnap__oci_first_index(&save->store, index, err);
    if (!r) r = hlsnap__oci_maps_commit(save, err);
    if (!r) r = hlsnap__oci_known_commit(save, err);
    for (i = 0; !r && i < HLSNAP__OCI_NUM_PARTS; i++)
        if (save->blobs[i].size)
            r = hlsnap__oci_blob_commit(&save->store, &save->blobs[i], save->sha, save->buffer, err);
    if (!r) r = hlsnap__oci_root_write(&save->store, file, "index.json", save->text.at, save->text.size, err);
    if (!r && !marked) {
        r = hlsnap__oci_marker_write(&save->store, err);
        *marking = !r;
    }
    if (!r) r = hlsnap__oci_fsync_dirs(&save->store, err);
    if (!r && !index->there)
        r = hlsnap__oci_fsync_parent(&save->store, err); /* an index says that this was done, too */
    if (!r) r = hlsnap__oci_root_name(&save->store, file, "index.json", err);
    if (r) return r;
    *listed = true;
    hlsnap__oci_index_noted(&save->store);
    return hlsnap__oci_fsync(save->store.root, "the layout", err);
}

/* The last phase; a failure takes back what it did before anybody else gets the lock. */
static hlsnap_result hlsnap__oci_commit(hlsnap__oci_save *save, bool *listed, hlsnap_error *err) {
    hlsnap__oci_index index;
    hlsnap__oci_blob file;
    bool marking = false;
    uint32_t i;
    hlsnap_result r = hlsnap__oci_lock(&save->store, HLSNAP__OCI_LOCK_INDEX, F_WRLCK, err);
    if (r) return r;
    memset(&index, 0, sizeof(index));
    hlsnap__oci_blob_none(&file);
    r = hlsnap__oci_publish(save, &index, &file, &marking, listed, err);
    hlsnap__oci_blob_close(&save->store, &file, false);
    if (marking && !*listed) unlinkat(save->store.root, "oci-layout", 0);
    for (i = 0; i < HLSNAP__OCI_NUM_PARTS; i++) hlsnap__oci_blob_close(&save->store, &save->blobs[i], !*listed);
    hlsnap__oci_maps_close(save, !*listed);
    hlsnap__oci_index_close(&index);
    hlsnap__oci_unlock(&save->store, HLSNAP__OCI_LOCK_INDEX);
    return r;
}

/* ---- >>save-maps: a captured map is a blob of its own, which all snapshots with the same content share ---- */

/* Whether the layout holds a blob that is the layer, as far as is known. */
static bool hlsnap__oci_map_saved(const hlsnap__oci_save *save, hlsnap__layer *layer) {
    hlsnap__oci_blob memory, chunks;
    bool found = false;
    uint32_t k;
    for (k = 0; k < HLSNAP__NUM_PLACES && !found; k++) {
        hlsnap__place *place = hlsnap__layer_place_get(layer, k);
        if (!place) break;
        hlsnap__oci_blob_name(&memory, place->memory, place->pages * HLSNAP__PAGE);
        hlsnap__oci_blob_name(&chunks, place->chunks, hlsnap__oci_chunks_size(memory.size));
        found = hlsnap__oci_map_new(save, place) ||
                (place->pages == layer->pages && hlsnap__oci_blob_there(&save->store, &memory) &&
                 hlsnap__oci_blob_there(&save->store, &chunks));
        hlsnap__place_release(place);
    }
    return found;
}

/* Writes a map's two blobs. They get their names with the others': before, nobody else can count on them. */
static hlsnap_result hlsnap__oci_map_save(hlsnap__oci_save *save, hlsnap__layer *layer, hlsnap_error *err) {
    hlsnap__oci_blob *b = save->maps[save->num_maps];
    uint8_t sum[32];
    size_t size;
    hlsnap__place *place;
    hlsnap_result r;
    hlsnap__oci_blob_none(&b[0]);
    hlsnap__oci_blob_none(&b[1]);
    save->num_maps++;
    r = hlsnap__oci_memory_write(save, layer, &b[0], err);
    if (r) return r;
    size = (size_t)hlsnap__oci_chunks_size(b[0].size);
    hlsnap__sha256_of(save->sha->one, save->sums, size, sum);
    hlsnap__sha256_text(sum, b[1].digest);
    r = hlsnap__oci_file_write(&save->store, save->store.sha256, &b[1], save->sums, size, err);
    if (!r) r = hlsnap__oci_fsync(b[0].fd, "a map's blob", err);
    if (!r) r = hlsnap__oci_fsync(b[1].fd, "a map's chunk list", err);
    place = r ? NULL : hlsnap__oci_place_new(b[0].digest, b[1].digest, layer->pages, 1);
    if (!place) return r ? r : hlsnap__fail(err, HLSNAP_ERR_MEMORY, 0, "out of memory");
    place->num = 1;
    place->runs[0].pages = (uint32_t)layer->pages;
    hlsnap__layer_place_set(layer, place);
    return HLSNAP_OK;
}

/* Makes blobs of those that the layout has not. One that is lost again and again goes into the new layer, at last. */
static hlsnap_result hlsnap__oci_maps_save(hlsnap__oci_save *save, hlsnap_error *err) {
    hlsnap_result r = HLSNAP_OK;
    uint32_t i;
    for (i = 0; i < save->s->num_maps && save->num_maps < HLSNAP_MAX_MAPS && !r; i++) {
        hlsnap__layer *layer = save->s->maps[i].layer;
        if (layer && !hlsnap__oci_map_saved(save, layer)) r = hlsnap__oci_map_save(save, layer, err);
    }
    return r;
}

static hlsnap_result hlsnap__oci_maps_heal(hlsnap__oci_save *save, hlsnap_error *err) {
    hlsnap_result r = HLSNAP_OK;
    uint32_t i;
    for (i = 0; i < save->s->num_layers && save->num_maps < HLSNAP_MAX_MAPS && !r; i++) {
        hlsnap__layer *layer = save->s->layers[i];
        const hlsnap__place *place = save->plan.sources[i].place;
        hlsnap__oci_known *k = place ? &save->plan.known[save->plan.sources[i].known] : NULL;
        if (!k || !k->captured || !k->used || k->there || k->healed || place->pages != layer->pages) continue;
        k->healed = true;
        r = hlsnap__oci_map_save(save, layer, err);
        k->there = !r && strcmp(save->maps[save->num_maps - 1][0].digest, k->memory.digest) == 0;
    }
    return r;
}

/* Gives names to those that the manifest has. Under the index lock. */
static hlsnap_result hlsnap__oci_maps_commit(hlsnap__oci_save *save, hlsnap_error *err) {
    hlsnap_result r = HLSNAP_OK;
    uint32_t i, k;
    for (i = 0; i < save->num_maps; i++) {
        hlsnap__oci_blob *b = save->maps[i];
        for (k = 0; k < save->plan.num_layers && strcmp(save->plan.layers[k].memory, b[0].digest) != 0;) k++;
        if (k == save->plan.num_layers) continue; /* its pages are in the new layer, after all */
        if (!r) r = hlsnap__oci_blob_commit(&save->store, &b[0], save->sha, save->buffer, err);
        if (!r) r = hlsnap__oci_blob_commit(&save->store, &b[1], save->sha, save->buffer, err);
    }
    return r;
}

/* As hlsnap__oci_blob_close. */
static void hlsnap__oci_maps_close(hlsnap__oci_save *save, bool failed) {
    uint32_t i;
    for (i = 0; i < 2 * save->num_maps; i++) hlsnap__oci_blob_close(&save->store, &save->maps[i / 2][i % 2], failed);
    save->num_maps = 0;
}

/* One attempt in an open store. */
static hlsnap_result hlsnap__oci_save_once(hlsnap__oci_save *save, bool *listed, hlsnap_error *err) {
    uint32_t i;
    hlsnap_result r;
    for (i = 0; i < HLSNAP__OCI_NUM_PARTS; i++) hlsnap__oci_blob_none(&save->blobs[i]);
    r = hlsnap__oci_plan_make(save, err);
    if (!r) r = hlsnap__oci_blobs_write(save, err);
    if (!r) r = hlsnap__snapshot_check(save->s, false, err); /* what was read is what was loaded */
    if (!r) r = hlsnap__oci_commit(save, listed, err);
    for (i = 0; i < HLSNAP__OCI_NUM_PARTS; i++) hlsnap__oci_blob_close(&save->store, &save->blobs[i], false);
    if (!r && save->plan.pages) hlsnap__oci_remember_fresh(save);
    if (!r) hlsnap__oci_remember_known(save);
    hlsnap__oci_plan_free(save);
    return r;
}

/* As the plan would have it, then flat, then with captured maps in the new layer, too. */
static hlsnap_result hlsnap__oci_save_tries(hlsnap__oci_save *save, bool *listed, hlsnap_error *err) {
    hlsnap_result r;
    for (;;) {
        save->whole = false;
        r = hlsnap__oci_maps_save(save, err);
        if (!r) r = hlsnap__oci_save_once(save, listed, err);
        if (!r || !save->whole || save->mixed) return r;
        save->mixed = save->flat;
        save->flat = true;
    }
}

/* A layout without an index that had one: a new one would make garbage of all that it listed. */
static hlsnap_result hlsnap__oci_lost_check(hlsnap__oci_store *store, hlsnap_error *err) {
    bool indexed = false;
    hlsnap_result r = hlsnap__oci_exists(store->root, "index.json", &indexed, err);
    if (r || indexed || store->made_sha256) return r;
    r = hlsnap__oci_lock(store, HLSNAP__OCI_LOCK_INDEX, F_WRLCK, err);
    if (r) return r;
    r = hlsnap__oci_lost_look(store, err);
    hlsnap__oci_unlock(store, HLSNAP__OCI_LOCK_INDEX);
    return r;
}

static hlsnap_result hlsnap__oci_save_run(hlsnap__oci_save *save, hlsnap_oci_digest *out, hlsnap_error *err) {
    bool listed = false;
    hlsnap_result r;
    save->buffer = (uint8_t *)hlsnap__alloc_raw(HLSNAP__OCI_BATCH, err);
    if (!save->buffer) return HLSNAP_ERR_MEMORY;
    r = hlsnap__oci_store_open(save->dir, &save->store, &save->desc, F_RDLCK, true, err);
    if (!r) r = hlsnap__oci_lost_check(&save->store, err);
    if (!r) r = hlsnap__oci_root_probe(&save->store, "index.json", err);
    if (!r) r = hlsnap__oci_save_tries(save, &listed, err);
    hlsnap__oci_maps_close(save, false);
    hlsnap__oci_store_close(save->dir, &save->store, r && !listed);
    if (!r && out) memcpy(out->text, save->blobs[HLSNAP__OCI_MANIFEST].digest, sizeof(out->text));
    return r;
}

/* ---- >>cache: what loads leave for those to come: layers that were verified, and indexes that were parsed ----

   A row is a layer and what its content is known by. It has no reference to the layer, which tells it when nobody has it any more
   (hlsnap__shelf); only for rows that are kept the cache has one, as long as max_bytes allow. A row without a layer is one that a
   load is making just now. Nothing is allocated, freed or asked of the system under the lock. */

#define HLSNAP__OCI_SETTLED_S 3
#define HLSNAP__OCI_AHEAD_S 86400
#define HLSNAP__OCI_STALLED_NS 1000000000u /* who makes a layer, and gets no further for so long, is not waited for */
#define HLSNAP__OCI_BUCKETS 256u
#define HLSNAP__OCI_ROW_FILES 4u /* more may hold the same; they are read again then */
#define HLSNAP__OCI_MAX_PARSED 16u
#ifndef HLSNAP__OCI_MAX_PARSED_BYTES /* a test makes it smaller */
#define HLSNAP__OCI_MAX_PARSED_BYTES HLSNAP__OCI_INDEX_READ
#endif
#define HLSNAP__OCI_MAX_KEPT 16384u /* each takes a mapping and a descriptor of the process's */

/* A file, as it was found. A change that keeps all of this is one within a tick of the clock. */
typedef struct hlsnap__oci_state {
    uint64_t dev, ino, size;
    int64_t mtime_s, mtime_ns, ctime_s, ctime_ns;
} hlsnap__oci_state;

static hlsnap__oci_state hlsnap__oci_state_of(const struct stat *st) {
    hlsnap__oci_state f;
    f.dev = (uint64_t)st->st_dev;
    f.ino = (uint64_t)st->st_ino;
    f.size = (uint64_t)st->st_size;
    f.mtime_s = (int64_t)st->st_mtim.tv_sec;
    f.mtime_ns = (int64_t)st->st_mtim.tv_nsec;
    f.ctime_s = (int64_t)st->st_ctim.tv_sec;
    f.ctime_ns = (int64_t)st->st_ctim.tv_nsec;
    return f;
}

static hlsnap_result hlsnap__oci_state_look(int fd, hlsnap__oci_state *f, const char *what, hlsnap_error *err) {
    struct stat st;
    if (fstat(fd, &st) != 0) return hlsnap__oci_os(err, errno, "stat", what);
    *f = hlsnap__oci_state_of(&st);
    return HLSNAP_OK;
}

static bool hlsnap__oci_state_same(const hlsnap__oci_state *a, const hlsnap__oci_state *b) {
    return a->dev == b->dev && a->ino == b->ino && a->size == b->size && a->mtime_s == b->mtime_s &&
           a->mtime_ns == b->mtime_ns && a->ctime_s == b->ctime_s && a->ctime_ns == b->ctime_ns;
}

/* What a layer's content is known by. The chunk list proves it; the blob's own digest is only what the layout says, and what a
   save of the snapshot goes by. */
typedef struct hlsnap__oci_key {
    char memory[72], chunks[72];
    uint64_t size;
} hlsnap__oci_key;

/* Where a load found it, before it read a byte of that. */
typedef struct hlsnap__oci_files {
    hlsnap__oci_state memory, chunks;
} hlsnap__oci_files;

/* What a load wants of a layer. */
typedef struct hlsnap__oci_want {
    hlsnap__oci_key key;
    const uint16_t *used; /* pages, one bit each; NULL = all */
    uint64_t bytes;       /* of these pages */
    hlsnap__oci_files files;
} hlsnap__oci_want;

typedef struct hlsnap__oci_row {
    hlsnap__shelf shelf; /* first */
    hlsnap_oci_cache *cache;
    struct hlsnap__oci_row *next;          /* in its bucket */
    struct hlsnap__oci_row *newer, *older; /* of those that are kept */
    hlsnap__oci_key key;
    uint16_t *used; /* pages that the layer holds; NULL = all; in the same allocation */
    uint64_t bytes; /* of these pages */
    hlsnap__layer *layer;
    bool listed, kept;
    uint64_t beat; /* atomic; goes on as long as who makes it does */
    uint32_t num_files;
    hlsnap__oci_files files[HLSNAP__OCI_ROW_FILES]; /* that were found to hold all of it; the newest ones */
} hlsnap__oci_row;

typedef struct hlsnap__oci_parsed { /* an index.json that had not changed for long when it was read */
    int32_t refs;                   /* atomic */
    hlsnap__oci_state file;
    uint64_t dev, ino; /* of the layout's directory */
    hlsnap__oci_index index;
} hlsnap__oci_parsed;

struct hlsnap_oci_cache {
    int32_t refs;              /* atomic: its owner's, and of rows with a layer, loads, verifications put off */
    int32_t lock;              /* hlsnap__brief_lock */
    uint64_t max_bytes, bytes; /* of the rows that are kept */
    uint32_t max_kept, num_kept;
    hlsnap__oci_row *newest, *oldest; /* of these, by their last use */
    hlsnap__oci_row *rows[HLSNAP__OCI_BUCKETS];
    uint64_t begun;                                     /* rows: so that no beat is another's */
    hlsnap__oci_parsed *parsed[HLSNAP__OCI_MAX_PARSED]; /* the last one used first */
    uint32_t num_parsed;
};

static void hlsnap__oci_cache_release(hlsnap_oci_cache *c) {
    if (c && hlsnap__release(&c->refs)) hlsnap__free(c);
}

static bool hlsnap__oci_key_same(const hlsnap__oci_key *a, const hlsnap__oci_key *b) {
    return strcmp(a->chunks, b->chunks) == 0 && strcmp(a->memory, b->memory) == 0 && a->size == b->size;
}

/* Whether the pages of a are all pages of b, and perhaps more; NULL = all. */
static bool hlsnap__oci_used_covers(const uint16_t *a, const uint16_t *b, uint64_t size) {
    const uint64_t num = hlsnap__oci_chunks_size(size) / 32;
    uint64_t i;
    for (i = 0; a && b && i < num; i++)
        if (b[i] & ~a[i]) return false;
    return !a || b;
}

/* ---- its lists; under the lock ---- */

static hlsnap__oci_row **hlsnap__oci_row_bucket(hlsnap_oci_cache *c, const hlsnap__oci_key *key) {
    uint32_t i, n = 0;
    for (i = 7; i < 9; i++)
        n = 16 * n + (uint32_t)(key->chunks[i] <= '9' ? key->chunks[i] - '0' : key->chunks[i] - 'a' + 10);
    return &c->rows[n % HLSNAP__OCI_BUCKETS];
}

static void hlsnap__oci_row_list(hlsnap_oci_cache *c, hlsnap__oci_row *row) {
    hlsnap__oci_row **at = hlsnap__oci_row_bucket(c, &row->key);
    row->next = *at;
    row->listed = true;
    *at = row;
}

static void hlsnap__oci_row_unlist(hlsnap_oci_cache *c, hlsnap__oci_row *row) {
    hlsnap__oci_row **at = hlsnap__oci_row_bucket(c, &row->key);
    if (!row->listed) return;
    while (*at != row) at = &(*at)->next;
    *at = row->next;
    row->listed = false;
}

/* The reference is the caller's then. */
static void hlsnap__oci_row_unkeep(hlsnap_oci_cache *c, hlsnap__oci_row *row) {
    *(row->newer ? &row->newer->older : &c->newest) = row->older;
    *(row->older ? &row->older->newer : &c->oldest) = row->newer;
    row->kept = false;
    c->bytes -= row->bytes;
    c->num_kept--;
}

/* Its layer is in use now. */
static void hlsnap__oci_row_keep(hlsnap_oci_cache *c, hlsnap__oci_row *row) {
    if (row->bytes > c->max_bytes) return;
    if (row->kept)
        hlsnap__oci_row_unkeep(c, row);
    else
        hlsnap__retain(&row->layer->refs);
    row->newer = NULL;
    row->older = c->newest;
    *(c->newest ? &c->newest->newer : &c->oldest) = row;
    c->newest = row;
    row->kept = true;
    c->bytes += row->bytes;
    c->num_kept++;
}

/* A row with all pages that are wanted: of a layer, which is retained then, or else of one that is being made. */
static hlsnap__oci_row *hlsnap__oci_row_find(hlsnap_oci_cache *c, const hlsnap__oci_key *key, const uint16_t *used,
                                             hlsnap__layer **layer) {
    hlsnap__oci_row *row, *making = NULL;
    for (row = *hlsnap__oci_row_bucket(c, key); row; row = row->next) {
        int32_t refs;
        if (!hlsnap__oci_key_same(&row->key, key) || !hlsnap__oci_used_covers(row->used, used, key->size)) continue;
        if (!row->layer) making = row;
        if (!row->layer) continue;
        refs = __atomic_load_n(&row->layer->refs, __ATOMIC_RELAXED); /* 0: it waits for the lock, to go */
        while (refs && !__atomic_compare_exchange_n(&row->layer->refs, &refs, refs + 1, false, __ATOMIC_ACQUIRE,
                                                    __ATOMIC_RELAXED)) {
        }
        if (!refs) continue;
        *layer = row->layer;
        return row;
    }
    return making;
}

static bool hlsnap__oci_row_knows(const hlsnap__oci_row *row, const hlsnap__oci_files *files) {
    uint32_t i;
    for (i = 0; i < row->num_files && i < HLSNAP__OCI_ROW_FILES; i++)
        if (hlsnap__oci_state_same(&row->files[i].memory, &files->memory) &&
            hlsnap__oci_state_same(&row->files[i].chunks, &files->chunks))
            return true;
    return false;
}

/* These pages were found in these files as the layer has them. */
static void hlsnap__oci_row_note(hlsnap__oci_row *row, const uint16_t *used, const hlsnap__oci_files *files) {
    if (!hlsnap__oci_used_covers(used, row->used, row->key.size) || hlsnap__oci_row_knows(row, files)) return;
    row->files[row->num_files++ % HLSNAP__OCI_ROW_FILES] = *files;
}

/* ---- layers ---- */

/* Lets go of what is beyond the bounds: the last one used longest ago first. */
static void hlsnap__oci_cache_trim(hlsnap_oci_cache *c) {
    for (;;) {
        hlsnap__layer *layer = NULL;
        if (!hlsnap__brief_lock(&c->lock)) return;
        if (c->bytes > c->max_bytes || c->num_kept > c->max_kept) {
            layer = c->oldest->layer;
            hlsnap__oci_row_unkeep(c, c->oldest);
        }
        hlsnap__brief_unlock(&c->lock);
        if (!layer) return;
        hlsnap__layer_release(layer);
    }
}

/* Nobody has its layer any more. Without the lock, the row stays as it is: whoever finds it sees that its layer is gone. */
static bool hlsnap__oci_row_gone(hlsnap__shelf *shelf) {
    hlsnap__oci_row *row = (hlsnap__oci_row *)(void *)shelf;
    hlsnap_oci_cache *c = row->cache;
    if (!hlsnap__brief_lock(&c->lock)) return false;
    hlsnap__oci_row_unlist(c, row);
    hlsnap__brief_unlock(&c->lock);
    hlsnap__free(row);
    hlsnap__oci_cache_release(c);
    return true;
}

/* A row for what is wanted, not listed yet. NULL: no memory; then the layer is not shared. */
static hlsnap__oci_row *hlsnap__oci_row_new(hlsnap_oci_cache *c, const hlsnap__oci_want *want) {
    const size_t used = want->used ? (size_t)(hlsnap__oci_chunks_size(want->key.size) / 32 * sizeof(want->used[0])) : 0;
    hlsnap__oci_row *row = (hlsnap__oci_row *)hlsnap__alloc(1, sizeof(*row) + used, NULL);
    if (!row) return NULL;
    row->shelf.gone = hlsnap__oci_row_gone;
    row->cache = c;
    row->key = want->key;
    row->bytes = want->bytes;
    if (used) row->used = (uint16_t *)(void *)(row + 1);
    if (used) memcpy(row->used, want->used, used);
    return row;
}

/* What a load finds. */
typedef struct hlsnap__oci_taken {
    hlsnap__layer *layer;    /* another load's, retained, or NULL */
    bool known;              /* the load's own files were found to hold the same */
    hlsnap__oci_row *making; /* nobody makes it, so this load does: then hlsnap__oci_cache_give or _drop; or NULL */
    uint64_t beat;           /* of somebody else who makes it; 0 = nobody does */
} hlsnap__oci_taken;

/* One look. spare: the row by which this load would make it; stalled: who made it when it last looked is not waited for. */
static void hlsnap__oci_cache_look(hlsnap_oci_cache *c, const hlsnap__oci_want *want, hlsnap__oci_row **spare,
                                   bool stalled, hlsnap__oci_taken *t) {
    const uint64_t was = t->beat;
    hlsnap__oci_row *row;
    memset(t, 0, sizeof(*t));
    if (!hlsnap__brief_lock(&c->lock)) return;
    row = hlsnap__oci_row_find(c, &want->key, want->used, &t->layer);
    if (t->layer) {
        t->known = hlsnap__oci_row_knows(row, &want->files);
        hlsnap__oci_row_keep(c, row);
    } else {
        t->beat = row ? __atomic_load_n(&row->beat, __ATOMIC_RELAXED) : 0;
        if (row && stalled && t->beat == was) {
            hlsnap__oci_row_unlist(c, row); /* who began it, if it lives, will find that out */
            t->beat = 0;
        }
        if (!t->beat && *spare) {
            (*spare)->beat = ++c->begun << 32;
            hlsnap__oci_row_list(c, *spare);
            t->making = *spare;
            *spare = NULL;
        }
    }
    hlsnap__brief_unlock(&c->lock);
    if (t->layer) hlsnap__oci_cache_trim(c);
}

/* Finds a layer, or waits for one that somebody makes, or lets this load make it. Where `makes` is not set, it does neither. */
static hlsnap_result hlsnap__oci_cache_take(hlsnap_oci_cache *c, const hlsnap__oci_want *want, bool makes,
                                            const hlsnap_oci_desc *desc, uint64_t done, uint64_t total,
                                            hlsnap__oci_taken *t, hlsnap_error *err) {
    hlsnap__oci_row *spare = makes ? hlsnap__oci_row_new(c, want) : NULL;
    uint64_t beat = 0, since = 0, pause = 100000;
    bool stalled = false;
    hlsnap_result r = HLSNAP_OK;
    for (;;) {
        const uint64_t now = hlsnap__now_ns();
        hlsnap__oci_cache_look(c, want, &spare, stalled, t);
        if (!t->beat || !spare) break;
        r = hlsnap__oci_report(desc, done, total, err);
        if (r) break;
        if (t->beat != beat) since = now;
        beat = t->beat;
        stalled = now - since > HLSNAP__OCI_STALLED_NS;
        hlsnap__oci_pause(pause);
        pause = pause * 2 < 10000000u ? pause * 2 : 10000000u;
    }
    hlsnap__free(spare);
    return r;
}

/* The load's own files were found to hold these pages of a layer that was taken. */
static void hlsnap__oci_cache_note(hlsnap_oci_cache *c, const hlsnap__layer *layer, const hlsnap__oci_want *want) {
    if (!hlsnap__brief_lock(&c->lock)) return;
    hlsnap__oci_row_note((hlsnap__oci_row *)(void *)layer->shelf, want->used, &want->files);
    hlsnap__brief_unlock(&c->lock);
}

/* Hands over a row and the layer that was made for it, all of which is verified. Returns the layer, or one that holds the same and
   was there first: then that. */
static hlsnap__layer *hlsnap__oci_cache_give(hlsnap_oci_cache *c, hlsnap__oci_row *row, hlsnap__layer *layer,
                                             const hlsnap__oci_files *files) {
    hlsnap__layer *other = NULL;
    hlsnap__oci_row *found;
    if (!hlsnap__brief_lock(&c->lock)) return layer; /* the row stays: others may look at it */
    hlsnap__oci_row_unlist(c, row);
    found = hlsnap__oci_row_find(c, &row->key, row->used, &other);
    hlsnap__oci_row_note(other ? found : row, row->used, files);
    if (!other) {
        hlsnap__retain(&c->refs);
        row->layer = layer;
        layer->shelf = &row->shelf;
        hlsnap__oci_row_list(c, row);
        hlsnap__oci_row_keep(c, row);
    }
    hlsnap__brief_unlock(&c->lock);
    if (other) {
        hlsnap__layer_release(layer);
        hlsnap__free(row);
    }
    hlsnap__oci_cache_trim(c);
    return other ? other : layer;
}

/* The layer could not be made: whoever waits for it makes it. */
static void hlsnap__oci_cache_drop(hlsnap_oci_cache *c, hlsnap__oci_row *row) {
    if (!row || !hlsnap__brief_lock(&c->lock)) return;
    hlsnap__oci_row_unlist(c, row);
    hlsnap__brief_unlock(&c->lock);
    hlsnap__free(row);
}

/* ---- indexes ---- */

static void hlsnap__oci_parsed_release(hlsnap__oci_parsed *p) {
    if (!p || !hlsnap__release(&p->refs)) return;
    hlsnap__oci_index_close(&p->index);
    hlsnap__free(p);
}

/* Whether a file has not changed for so long that the next change will show, also where times are noted to two seconds. An mtime
   that is a day ahead was set by somebody: the next change has another. */
static bool hlsnap__oci_settled(const hlsnap__oci_state *f) {
    struct timespec now = {0, 0};
    int64_t then;
    clock_gettime(CLOCK_REALTIME, &now);
    then = (int64_t)now.tv_sec - HLSNAP__OCI_SETTLED_S;
    return f->ctime_s <= then && (f->mtime_s <= then || f->mtime_s > (int64_t)now.tv_sec + HLSNAP__OCI_AHEAD_S);
}

/* The index of a file, retained, or NULL. */
static hlsnap__oci_parsed *hlsnap__oci_parsed_get(hlsnap_oci_cache *c, const hlsnap__oci_state *file) {
    hlsnap__oci_parsed *found = NULL;
    uint32_t i;
    if (!hlsnap__brief_lock(&c->lock)) return NULL;
    for (i = 0; i < c->num_parsed && !hlsnap__oci_state_same(&c->parsed[i]->file, file);) i++;
    if (i < c->num_parsed) {
        found = c->parsed[i];
        memmove(c->parsed + 1, c->parsed, i * sizeof(c->parsed[0]));
        c->parsed[0] = found;
        hlsnap__retain(&found->refs);
    }
    hlsnap__brief_unlock(&c->lock);
    return found;
}

/* Keeps an index for others, in place of the layout's last one; beyond the bounds, those used longest ago go. */
static void hlsnap__oci_parsed_put(hlsnap_oci_cache *c, hlsnap__oci_parsed *p) {
    hlsnap__oci_parsed *old[HLSNAP__OCI_MAX_PARSED];
    uint64_t bytes = p->index.doc.size;
    uint32_t i, num, kept = 1;
    if (!hlsnap__brief_lock(&c->lock)) return;
    num = c->max_bytes ? c->num_parsed : 0;
    memcpy(old, c->parsed, num * sizeof(old[0]));
    if (c->max_bytes) {
        hlsnap__retain(&p->refs);
        c->parsed[0] = p;
    }
    for (i = 0; i < num; i++) {
        bytes += old[i]->index.doc.size;
        if ((old[i]->dev == p->dev && old[i]->ino == p->ino) || kept == HLSNAP__OCI_MAX_PARSED ||
            bytes > HLSNAP__OCI_MAX_PARSED_BYTES)
            continue;
        c->parsed[kept++] = old[i];
        old[i] = NULL;
    }
    if (c->max_bytes) c->num_parsed = kept;
    hlsnap__brief_unlock(&c->lock);
    for (i = 0; i < num; i++) hlsnap__oci_parsed_release(old[i]);
}

/* ---- >>load ---- */

typedef struct hlsnap__oci_reached hlsnap__oci_reached;

/* A set of digests. These are whatever a file says, hence the key. */
typedef struct hlsnap__oci_reach {
    hlsnap__oci_reached *rows;
    uint32_t
        *slots; /* num_slots of them, a power of two, at least twice the rows; 0 = empty, else 1 + a row's number */
    uint32_t *queue; /* rows still to be looked into, for the entry at hand */
    uint32_t num, cap, num_slots, queued;
    uint64_t key;
    uint32_t who;        /* the entry at hand */
    const char *subject; /* what that is about: does not count as what it leads to; "" = nothing */
    const char *watch;   /* for whom it shall be told that an entry leads there, or NULL */
    bool seen;           /* it was */
} hlsnap__oci_reach;

static void hlsnap__oci_reach_free(hlsnap__oci_reach *t);

typedef struct hlsnap__oci_load {
    const char *ref;
    hlsnap_oci_desc desc;
    const hlsnap__sha256_ways *sha;
    hlsnap_oci_cache *cache; /* NULL: nothing is shared */
    int root;
    hlsnap__oci_index index;
    hlsnap__oci_parsed *parsed; /* whose index it is; NULL: this load's own */
    hlsnap__json manifest_json, config_json;
    const char *digest; /* the manifest's; points into index */
    hlsnap__oci_manifest manifest;
    hlsnap__oci_config config;
    int fds[HLSNAP__MAX_LAYERS]; /* of the memory layers, opened before any is read; num_fds of them, -1 = passed on */
    uint32_t num_fds;
    hlsnap__oci_state lists[HLSNAP__MAX_LAYERS]; /* the files of their chunk lists, where there is a cache */
    hlsnap_oci_guard guard; /* the one in force */
    hlsnap__layer *layers[HLSNAP__MAX_LAYERS];
    struct hlsnap__oci_watch *watch; /* NULL: nothing to watch */
    uint8_t *buffer;                 /* HLSNAP__OCI_BATCH bytes */
    uint64_t done, total;            /* bytes, for progress */
    int32_t stop;
    hlsnap__oci_reach payloads; /* of signatures, and what they are about */
    hlsnap__oci_reach now;      /* hlsnap__oci_listed_now, of this index.json: */
    uint64_t now_ino, now_ctime;
} hlsnap__oci_load;

/* Reads a small blob, whole, and verifies it. The caller frees *out. */
static hlsnap_result hlsnap__oci_small_blob(hlsnap__oci_load *load, const hlsnap__oci_ref *ref, char **out,
                                            hlsnap_error *err) {
    uint8_t sum[32];
    char text[72];
    int fd;
    hlsnap_result r = hlsnap__oci_open_blob(load->root, ref->digest, ref->size, &fd, err);
    if (r) return r;
    r = hlsnap__oci_slurp(fd, ref->digest, (size_t)ref->size, out, err);
    close(fd);
    if (r || load->desc.disable_verify) return r;
    hlsnap__sha256_of(load->sha->one, *out, (size_t)ref->size, sum);
    hlsnap__sha256_text(sum, text);
    if (strcmp(text, ref->digest) == 0) return HLSNAP_OK;
    return hlsnap__fail(err, HLSNAP_ERR_DIGEST, 0, "blobs/sha256/%s: its content is %s", ref->digest + 7, text);
}

static hlsnap_result hlsnap__oci_json_blob(hlsnap__oci_load *load, const hlsnap__oci_ref *ref, const char *what,
                                           hlsnap_result code, hlsnap__json *d, hlsnap_error *err) {
    hlsnap_result r = hlsnap__oci_small_blob(load, ref, &d->text, err);
    hlsnap__format(d->file, sizeof(d->file), "%s %.20s..", what, ref->digest);
    d->size = (size_t)ref->size;
    d->code = code;
    return r ? r : hlsnap__json_parse(d, err);
}

/* How index.json is now; false: it is to be looked for as otherwise, with patience. */
static bool hlsnap__oci_index_look(int root, hlsnap__oci_state *out) {
    uint64_t size;
    int fd;
    bool ok;
    if (hlsnap__oci_open(root, "index.json", &fd, &size, NULL) != HLSNAP_OK) return false;
    ok = hlsnap__oci_state_look(fd, out, "index.json", NULL) == HLSNAP_OK;
    close(fd);
    return ok;
}

/* Leaves the index to others, where nobody changes it just now. Without memory it is this load's own. */
static void hlsnap__oci_index_share(hlsnap__oci_load *load, const hlsnap__oci_state *file) {
    hlsnap__oci_state now, dir;
    hlsnap__oci_parsed *p;
    if (!hlsnap__oci_index_look(load->root, &now) || !hlsnap__oci_state_same(file, &now) ||
        hlsnap__oci_state_look(load->root, &dir, "the layout", NULL) != HLSNAP_OK)
        return;
    p = (hlsnap__oci_parsed *)hlsnap__alloc(1, sizeof(*p), NULL);
    if (!p) return;
    p->refs = 1;
    p->file = now;
    p->dev = dir.dev;
    p->ino = dir.ino;
    p->index = load->index;
    load->parsed = p;
    hlsnap__oci_parsed_put(load->cache, p);
}

/* Reads the index, or takes the one that another load read of the same file. */
static hlsnap_result hlsnap__oci_load_index(hlsnap__oci_load *load, hlsnap_error *err) {
    hlsnap__oci_state file;
    hlsnap_result r;
    const bool seen = load->cache && hlsnap__oci_index_look(load->root, &file),
               settled = seen && hlsnap__oci_settled(&file);
    load->parsed = seen ? hlsnap__oci_parsed_get(load->cache, &file) : NULL;
    if (load->parsed) {
        load->index = load->parsed->index;
        return hlsnap__oci_marker_read(load->root, err);
    }
    r = hlsnap__oci_index_open(load->root, &load->index, err);
    if (!r && settled) hlsnap__oci_index_share(load, &file);
    return r;
}

/* From a tag or digest to the entry of a manifest. path: of that entry, for messages. */
static hlsnap_result hlsnap__oci_entry_find(hlsnap__oci_load *load, hlsnap__oci_ref *ref, char path[32],
                                            hlsnap_error *err) {
    uint32_t number = 0;
    hlsnap_result r = hlsnap__oci_index_find(&load->index, load->ref, &number, err);
    if (r) return r;
    *ref = hlsnap__oci_entry_ref(&load->index.entries[number]);
    hlsnap__format(path, 32, "manifests[%u].", number);
    if (strcmp(ref->type, HLSNAP__OCI_MANIFEST_TYPE) != 0)
        return hlsnap__oci_entry_other(&load->index, path, ref->type, err);
    load->digest = ref->digest;
    return hlsnap__oci_ref_usable(&load->index.doc, path, ref, 1, HLSNAP__OCI_JSON_MAX, err);
}

/* From a tag or digest to the config; everything but the bytes of guest memory is checked when this returns. */
static hlsnap_result hlsnap__oci_resolve(hlsnap__oci_load *load, hlsnap_error *err) {
    hlsnap__oci_ref ref;
    char path[32];
    hlsnap_result r = hlsnap__oci_load_index(load, err);
    if (!r) r = hlsnap__oci_entry_find(load, &ref, path, err);
    if (!r) r = hlsnap__oci_json_blob(load, &ref, "manifest", HLSNAP_ERR_MANIFEST, &load->manifest_json, err);
    if (!r) r = hlsnap__oci_manifest_read(&load->manifest_json, &load->manifest, err);
    if (!r)
        r = hlsnap__oci_json_blob(load, &load->manifest.config, "config", HLSNAP_ERR_CONFIG, &load->config_json, err);
    if (!r) r = hlsnap__oci_config_read(&load->config_json, &load->manifest, load->desc.any_cpu, &load->config, err);
    return r ? r : hlsnap__page_check(HLSNAP_ERR_ARCH, err);
}

/* ---- >>work: copying and verifying one layer, on one thread or several ---- */

HLSNAP__STATIC_ASSERT(chunk_pages, HLSNAP__OCI_CHUNK == 16 * HLSNAP__PAGE);
#define HLSNAP__OCI_BATCH_CHUNKS (HLSNAP__OCI_BATCH / HLSNAP__OCI_CHUNK)
#define HLSNAP__OCI_MAX_THREADS 64u

/* A thread that helps with a layer, and its buffer of HLSNAP__OCI_BATCH bytes behind it. */
typedef struct hlsnap__oci_helper {
    struct hlsnap__oci_helper *next;
    struct hlsnap__oci_work *work;
    pthread_t thread;
} hlsnap__oci_helper;

typedef struct hlsnap__oci_work {
    const hlsnap__sha256_ways *sha;
    int fd;         /* the blob */
    int copy;       /* a file for the pages that are used, or -1 */
    bool verify;    /* the blob's chunks */
    bool compare;   /* instead of writing the copy: what is there must be what was verified */
    uint32_t layer; /* for messages */
    hlsnap__oci_key key;  /* of the blob; size: its bytes */
    hlsnap__oci_files files; /* for the cache: */
    uint64_t shared;         /* bytes of the pages that are used; 0 = this load shares nothing */
    bool whole;           /* all pages are used */
    uint64_t *beat;       /* of the cache's row, or NULL */
    bool steady;          /* the blob's file is not young, and has not changed while it was read or cloned */
    struct stat file;     /* what it was before that */
    uint8_t *sums;        /* of the chunk list, what is of chunks that are used */
    uint32_t *before;     /* for each batch, how many of these are of the batches before it */
    uint16_t *used;       /* one bit for each page of its chunks: an extent shows the page */
    uint64_t next, limit; /* atomic: the first batch that nobody took; the first that failed, or UINT64_MAX */
    uint64_t done;        /* atomic: bytes behind us */
    int32_t *stop;        /* atomic: not 0 = give up */
    int32_t lock;         /* for err */
    hlsnap_error err;     /* of batch `limit` */
    hlsnap__oci_helper *helpers;
} hlsnap__oci_work;

/* Whether a layer is what a captured map showed at first, or may be: all of it is the map's, whatever the guest has changed. */
static bool hlsnap__oci_map_own(const hlsnap__oci_config *c, uint32_t layer) {
    uint32_t i, k;
    for (i = 0; i < c->num_maps; i++) {
        const uint64_t first = hlsnap__gva_page(&c->guest->layout, c->maps[i].gva);
        const uint64_t pages = HLSNAP__PAGES(c->maps[i].size);
        if (!c->maps[i].capture || c->layer_pages[layer] != pages) continue;
        for (k = 0; k < c->num_extents; k++)
            if (c->extents[k].layer == layer && c->extents[k].page - first < pages &&
                c->extents[k].page - first == c->extents[k].layer_page)
                return true;
    }
    return false;
}

/* Marks the pages that extents show, and those of a captured map, which a save elsewhere writes whole. Only their chunks are read,
   and only they are copied: work and memory are bounded by the guest's own, whatever the layer's file is. */
static void hlsnap__oci_mark_used(hlsnap__oci_work *w, const hlsnap__oci_config *c) {
    const uint64_t all = hlsnap__oci_map_own(c, w->layer) ? w->key.size / HLSNAP__PAGE : 0;
    uint64_t page, end;
    uint32_t i;
    for (page = 0; page < all; page++) w->used[page / 16] |= (uint16_t)(1u << page % 16);
    for (i = 0; i < c->num_extents; i++) {
        const hlsnap__extent *e = &c->extents[i];
        if (e->layer != w->layer) continue;
        for (page = e->layer_page, end = page + e->pages; page < end; page++)
            w->used[page / 16] |= (uint16_t)(1u << page % 16);
    }
}

/* Verifies n bytes, whole chunks from chunk number `chunk` on. */
static hlsnap_result hlsnap__oci_verify(const hlsnap__oci_work *w, const uint8_t *p, uint64_t chunk, uint64_t n,
                                        hlsnap_error *err) {
    const uint64_t batch = chunk / HLSNAP__OCI_BATCH_CHUNKS;
    const uint8_t *listed = w->sums + 32 * (size_t)w->before[batch];
    uint8_t sums[HLSNAP__OCI_BATCH_CHUNKS * 32];
    uint64_t i;
    for (i = batch * HLSNAP__OCI_BATCH_CHUNKS; i < chunk; i++) listed += w->used[i] ? 32 : 0;
    hlsnap__sha256_chunks(w->sha, p, (size_t)n, HLSNAP__OCI_CHUNK, sums);
    for (i = 0; i * HLSNAP__OCI_CHUNK < n; i++)
        if (memcmp(sums + 32 * i, listed + 32 * i, 32) != 0)
            return hlsnap__fail(
                err, HLSNAP_ERR_DIGEST, 0,
                "blobs/sha256/%s: content of layer %u, chunk %llu (byte %llu) differs from its chunk list",
                w->key.memory + 7, w->layer, (unsigned long long)(chunk + i),
                (unsigned long long)((chunk + i) * HLSNAP__OCI_CHUNK));
    return HLSNAP_OK;
}

/* Writes the pages of chunks that are used to the copy, but not those of zeros, which it holds already. */
static hlsnap_result hlsnap__oci_copy(const hlsnap__oci_work *w, const uint8_t *p, uint64_t chunk, uint64_t n,
                                      hlsnap_error *err) {
    const uint16_t *used = w->used + chunk;
    const uint32_t pages = (uint32_t)(n / HLSNAP__PAGE);
    hlsnap_result r = HLSNAP_OK;
    uint32_t i, end;
    for (i = 0; !r && i < pages; i = end) {
        for (end = i; end < pages && used[end / 16] >> end % 16 & 1 &&
                      !hlsnap__all_zero(p + (size_t)end * HLSNAP__PAGE, HLSNAP__PAGE);)
            end++;
        if (end > i)
            r = hlsnap__pwrite(w->copy, p + (size_t)i * HLSNAP__PAGE, (size_t)(end - i) * HLSNAP__PAGE,
                               chunk * HLSNAP__OCI_CHUNK + (uint64_t)i * HLSNAP__PAGE, err);
        else
            end = i + 1;
    }
    return r;
}

/* The copy was made before the chunks were verified: are its pages theirs? */
static hlsnap_result hlsnap__oci_compare(const hlsnap__oci_work *w, const uint8_t *p, uint64_t chunk, uint64_t n,
                                         hlsnap_error *err) {
    uint8_t page[HLSNAP__PAGE];
    hlsnap_result r = HLSNAP_OK;
    uint64_t i;
    for (i = 0; !r && i < n / HLSNAP__PAGE; i++) {
        const uint64_t at = chunk * HLSNAP__OCI_CHUNK + i * HLSNAP__PAGE;
        if (!(w->used[chunk + i / 16] >> i % 16 & 1)) continue;
        r = hlsnap__pread(w->copy, page, HLSNAP__PAGE, at, err);
        if (!r && memcmp(page, p + i * HLSNAP__PAGE, HLSNAP__PAGE) != 0)
            r = hlsnap__fail(err, HLSNAP_ERR_CHANGED, 0,
                             "blobs/sha256/%s: layer %u changed at byte %llu while it was loaded", w->key.memory + 7,
                             w->layer, (unsigned long long)at);
    }
    return r;
}

/* One batch: runs of chunks that are used. */
static hlsnap_result hlsnap__oci_batch(hlsnap__oci_work *w, uint64_t batch, uint8_t *buffer, hlsnap_error *err) {
    const uint64_t all = hlsnap__oci_chunks_size(w->key.size) / 32, first = batch * HLSNAP__OCI_BATCH_CHUNKS;
    const uint64_t last = all - first < HLSNAP__OCI_BATCH_CHUNKS ? all : first + HLSNAP__OCI_BATCH_CHUNKS;
    hlsnap_result r = HLSNAP_OK;
    uint64_t chunk, end;
    for (chunk = first; !r && chunk < last; chunk = end) {
        const uint64_t at = chunk * HLSNAP__OCI_CHUNK;
        uint64_t n;
        for (end = chunk; end < last && w->used[end];) end++;
        if (end == chunk) {
            end++;
            continue;
        }
        n = (end * HLSNAP__OCI_CHUNK < w->key.size ? end * HLSNAP__OCI_CHUNK : w->key.size) - at;
        r = hlsnap__pread(w->fd, buffer, (size_t)n, at, err);
        if (!r && w->verify) r = hlsnap__oci_verify(w, buffer, chunk, n, err);
        if (!r && w->compare)
            r = hlsnap__oci_compare(w, buffer, chunk, n, err);
        else if (!r && w->copy >= 0)
            r = hlsnap__oci_copy(w, buffer, chunk, n, err);
    }
    return r;
}

/* Takes batches until there are none, one before has failed, or it shall stop. The caller alone reports. */
static hlsnap_result hlsnap__oci_work_run(hlsnap__oci_work *w, uint8_t *buffer, const hlsnap_oci_desc *report,
                                          uint64_t before, uint64_t total, hlsnap_error *err) {
    const uint64_t num = (w->key.size + HLSNAP__OCI_BATCH - 1) / HLSNAP__OCI_BATCH;
    hlsnap_result r = HLSNAP_OK;
    while (!r) {
        const uint64_t batch = __atomic_fetch_add(&w->next, 1, __ATOMIC_RELAXED);
        uint64_t n = HLSNAP__OCI_BATCH;
        hlsnap_error e;
        if (batch >= num || batch >= __atomic_load_n(&w->limit, __ATOMIC_RELAXED) ||
            __atomic_load_n(w->stop, __ATOMIC_RELAXED))
            break;
        if (hlsnap__oci_batch(w, batch, buffer, &e)) { /* of several that fail, the first in the file is told */
            while (__atomic_exchange_n(&w->lock, 1, __ATOMIC_ACQUIRE)) sched_yield();
            if (batch < w->limit) w->err = e;
            if (batch < w->limit) __atomic_store_n(&w->limit, batch, __ATOMIC_RELAXED);
            __atomic_store_n(&w->lock, 0, __ATOMIC_RELEASE);
            break;
        }
        if (batch == num - 1) n = w->key.size - batch * HLSNAP__OCI_BATCH;
        n += __atomic_fetch_add(&w->done, n, __ATOMIC_RELAXED);
        if (w->beat) __atomic_fetch_add(w->beat, 1, __ATOMIC_RELAXED);
        if (report) r = hlsnap__oci_report(report, before + n, total, err);
    }
    if (r) __atomic_store_n(w->stop, 1, __ATOMIC_RELAXED);
    return r;
}

static void *hlsnap__oci_work_thread(void *arg) {
    hlsnap__oci_helper *helper = (hlsnap__oci_helper *)arg;
    hlsnap_error unused;
    hlsnap__oci_work_run(helper->work, (uint8_t *)(helper + 1), NULL, 0, 0, &unused);
    return NULL;
}

/* A thread that takes none of the process's signals; false: there is none. */
static bool hlsnap__oci_thread(pthread_t *thread, void *(*run)(void *), void *arg) {
    sigset_t blocked, old;
    bool made;
    hlsnap__thread_signals(&blocked);
    if (pthread_sigmask(SIG_SETMASK, &blocked, &old) != 0) return false;
    made = pthread_create(thread, NULL, run, arg) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return made;
}

/* One more thread for a layer; false: there is none, or no memory, and the others do its share. */
static bool hlsnap__oci_helper_start(hlsnap__oci_work *w) {
    hlsnap__oci_helper *helper = (hlsnap__oci_helper *)hlsnap__alloc_raw(sizeof(*helper) + HLSNAP__OCI_BATCH, NULL);
    if (!helper) return false;
    helper->next = w->helpers;
    helper->work = w;
    w->helpers = helper;
    if (hlsnap__oci_thread(&helper->thread, hlsnap__oci_work_thread, helper)) return true;
    w->helpers = helper->next;
    hlsnap__free(helper);
    return false;
}

/* Waits for them first, but in the child of a fork, where they are not. */
static void hlsnap__oci_helpers_free(hlsnap__oci_work *w, bool join) {
    while (w->helpers) {
        hlsnap__oci_helper *helper = w->helpers;
        if (join) pthread_join(helper->thread, NULL);
        w->helpers = helper->next;
        hlsnap__free(helper);
    }
}

/* All of a layer, on this thread and up to threads - 1 more. */
static hlsnap_result hlsnap__oci_work_all(hlsnap__oci_work *w, uint32_t threads, const hlsnap_oci_desc *report,
                                          uint64_t before, uint64_t total, uint8_t *buffer, hlsnap_error *err) {
    uint32_t num = 0;
    hlsnap_result r;
    w->next = w->done = 0;
    w->limit = UINT64_MAX;
    while (num + 1 < threads && num + 1 < HLSNAP__OCI_MAX_THREADS && num + 1 < w->key.size / HLSNAP__OCI_BATCH &&
           hlsnap__oci_helper_start(w))
        num++;
    r = hlsnap__oci_work_run(w, buffer, report, before, total, err);
    hlsnap__oci_helpers_free(w, true);
    if (r || w->limit == UINT64_MAX) return r;
    if (err) *err = w->err;
    return w->err.code;
}

/* ---- >>watch: what is known of a layout's files after the load ---- */

typedef struct hlsnap__oci_watched { /* the file of a layer */
    int fd;
    uint64_t size, links;
    int64_t mtime_s, mtime_ns, ctime_s, ctime_ns;
} hlsnap__oci_watched;

/* What of a verification is this process's alone, in a page that the kernel wipes in the child of a fork: no thread came along
   there, and nobody would ever give back a lock that one held. */
typedef struct hlsnap__oci_here {
    int32_t state; /* atomic; HLSNAP__OCI_HERE_x */
    bool joinable; /* there is a thread */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t ended;
} hlsnap__oci_here;

enum { HLSNAP__OCI_HERE_NONE, HLSNAP__OCI_HERE_MAKING, HLSNAP__OCI_HERE_READY };

typedef struct hlsnap__oci_watch {
    hlsnap__watch watch; /* first */
    hlsnap_oci_guard guard;
    int32_t changed; /* atomic: a file is not what it was */
    uint32_t num_files;
    hlsnap__oci_watched files[HLSNAP__MAX_LAYERS];
    bool started;          /* the verification was put off */
    hlsnap__oci_here *own; /* a page; NULL: nothing was put off */
    hlsnap_oci_cache *cache; /* for what was verified; retained, or NULL */
    uint8_t *buffer;       /* the thread's, HLSNAP__OCI_BATCH bytes */
    int32_t done, stop;    /* atomic */
    uint32_t threads, num_works;
    hlsnap__oci_work works[HLSNAP__MAX_LAYERS];
    hlsnap_result result; /* of the verification, when done, with err */
    hlsnap_error err;
} hlsnap__oci_watch;

static void hlsnap__oci_watched_set(hlsnap__oci_watched *f, const struct stat *st) {
    f->size = (uint64_t)st->st_size;
    f->links = (uint64_t)st->st_nlink;
    f->mtime_s = (int64_t)st->st_mtim.tv_sec;
    f->mtime_ns = (int64_t)st->st_mtim.tv_nsec;
    f->ctime_s = (int64_t)st->st_ctim.tv_sec;
    f->ctime_ns = (int64_t)st->st_ctim.tv_nsec;
}

/* A file that only got or lost a name, as gc takes it away, is the same file. */
static bool hlsnap__oci_watched_same(const hlsnap__oci_watched *f) {
    hlsnap__oci_watched now;
    struct stat st;
    if (fstat(f->fd, &st) != 0) return false;
    hlsnap__oci_watched_set(&now, &st);
    return now.size == f->size && now.mtime_s == f->mtime_s && now.mtime_ns == f->mtime_ns &&
           ((now.ctime_s == f->ctime_s && now.ctime_ns == f->ctime_ns) || now.links != f->links);
}

/* Takes the lease of a file: nobody opens it for writing before we agree. SIGURG, which by default is ignored, for the moment
   until there is no owner that a signal could go to. */
static bool hlsnap__oci_lease(int fd) {
    if (fcntl(fd, HLSNAP__OCI_F_SETSIG, SIGURG) != 0 || fcntl(fd, HLSNAP__OCI_F_SETLEASE, F_RDLCK) != 0) return false;
    if (fcntl(fd, F_SETOWN, 0) == 0) return true;
    fcntl(fd, HLSNAP__OCI_F_SETLEASE, F_UNLCK);
    return false;
}

static hlsnap_result hlsnap__oci_files_check(hlsnap__oci_watch *w, hlsnap_error *err) {
    uint32_t i;
    if (!__atomic_load_n(&w->changed, __ATOMIC_ACQUIRE)) {
        for (i = 0; i < w->num_files; i++)
            if (!hlsnap__oci_watched_same(&w->files[i]) ||
                (w->guard == HLSNAP_OCI_GUARD_LEASE && fcntl(w->files[i].fd, HLSNAP__OCI_F_GETLEASE, 0) != F_RDLCK))
                break;
        if (i == w->num_files) return HLSNAP_OK;
        __atomic_store_n(&w->changed, 1, __ATOMIC_RELEASE);
        for (i = 0; w->guard == HLSNAP_OCI_GUARD_LEASE && i < w->num_files; i++) /* who wants to write need not wait */
            fcntl(w->files[i].fd, HLSNAP__OCI_F_SETLEASE, F_UNLCK);
    }
    return hlsnap__fail(err, HLSNAP_ERR_CHANGED, 0,
                        "a file of the layout that is in use was changed, or is about to be");
}

/* Waits for the thread to end, or for so long. */
static void hlsnap__oci_watch_wait(hlsnap__oci_watch *w, uint64_t wait_ns) {
    struct timespec until = {0, 0};
    int late = 0;
    clock_gettime(CLOCK_MONOTONIC, &until);
    if (wait_ns != UINT64_MAX) {
        until.tv_sec += (time_t)((wait_ns + (uint64_t)until.tv_nsec) / 1000000000u);
        until.tv_nsec = (long)((wait_ns + (uint64_t)until.tv_nsec) % 1000000000u);
    }
    pthread_mutex_lock(&w->own->lock);
    while (!late && !__atomic_load_n(&w->done, __ATOMIC_RELAXED))
        late = wait_ns == UINT64_MAX ? pthread_cond_wait(&w->own->ended, &w->own->lock)
                                     : pthread_cond_timedwait(&w->own->ended, &w->own->lock, &until);
    pthread_mutex_unlock(&w->own->lock);
}

static void *hlsnap__oci_watch_thread(void *arg);

/* Locks and thread for this process, when it has none yet. Where there can be no thread, this one verifies. */
static void hlsnap__oci_watch_run(hlsnap__oci_watch *w) {
    pthread_condattr_t clock;
    int32_t none = HLSNAP__OCI_HERE_NONE;
    if (!__atomic_compare_exchange_n(&w->own->state, &none, HLSNAP__OCI_HERE_MAKING, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE)) {
        while (__atomic_load_n(&w->own->state, __ATOMIC_ACQUIRE) == HLSNAP__OCI_HERE_MAKING) sched_yield();
        return;
    }
    pthread_mutex_init(&w->own->lock, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&w->own->ended, &clock);
    pthread_condattr_destroy(&clock);
    w->own->joinable = hlsnap__oci_thread(&w->own->thread, hlsnap__oci_watch_thread, w);
    __atomic_store_n(&w->own->state, HLSNAP__OCI_HERE_READY, __ATOMIC_RELEASE);
    if (!w->own->joinable) hlsnap__oci_watch_thread(w);
}

static hlsnap_result hlsnap__oci_watch_check(hlsnap__watch *base, uint64_t wait_ns, bool *pending, hlsnap_error *err) {
    hlsnap__oci_watch *w = (hlsnap__oci_watch *)(void *)base;
    if (w->started && !__atomic_load_n(&w->done, __ATOMIC_ACQUIRE)) {
        hlsnap__oci_watch_run(w); /* in the child of a fork, anew */
        if (wait_ns) hlsnap__oci_watch_wait(w, wait_ns);
    }
    if (w->started && !__atomic_load_n(&w->done, __ATOMIC_ACQUIRE))
        *pending = true;
    else if (w->started && w->result) {
        if (err) *err = w->err;
        return w->result;
    }
    return w->num_files ? hlsnap__oci_files_check(w, err) : HLSNAP_OK;
}

static void hlsnap__oci_work_free(hlsnap__oci_work *work) {
    if (work->fd >= 0) close(work->fd);
    if (work->copy >= 0) close(work->copy);
    hlsnap__free(work->sums);
    hlsnap__free(work->before);
    hlsnap__free(work->used);
}

/* In the child of a fork there is no thread to end, and there are no locks; memory and descriptors are the child's. */
static void hlsnap__oci_watch_destroy(hlsnap__watch *base) {
    hlsnap__oci_watch *w = (hlsnap__oci_watch *)(void *)base;
    uint32_t i;
    if (w->own && w->own->state == HLSNAP__OCI_HERE_READY) {
        __atomic_store_n(&w->stop, 1, __ATOMIC_RELAXED);
        if (w->own->joinable) pthread_join(w->own->thread, NULL);
        pthread_cond_destroy(&w->own->ended);
        pthread_mutex_destroy(&w->own->lock);
    }
    for (i = 0; i < w->num_works; i++) {
        hlsnap__oci_helpers_free(&w->works[i], false);
        hlsnap__oci_work_free(&w->works[i]);
    }
    for (i = 0; i < w->num_files; i++) close(w->files[i].fd);
    if (w->own) munmap(w->own, HLSNAP__PAGE);
    hlsnap__oci_cache_release(w->cache);
    hlsnap__free(w->buffer);
    hlsnap__free(w);
}

static void hlsnap__oci_work_leave(hlsnap_oci_cache *c, const hlsnap__oci_work *w);

/* Nothing is left of a thread that a fork stopped amid this: what it had begun is begun again. */
static void *hlsnap__oci_watch_thread(void *arg) {
    hlsnap__oci_watch *w = (hlsnap__oci_watch *)arg;
    hlsnap_result r = HLSNAP_OK;
    uint32_t i;
    for (i = 0; i < w->num_works; i++) {
        hlsnap__oci_helpers_free(&w->works[i], false);
        w->works[i].stop = &w->stop;
        w->works[i].lock = 0;
    }
    for (i = 0; i < w->num_works && !r; i++)
        r = hlsnap__oci_work_all(&w->works[i], w->threads, NULL, 0, 0, w->buffer, &w->err);
    for (i = 0; i < w->num_works && !r && w->cache && !__atomic_load_n(&w->stop, __ATOMIC_RELAXED); i++)
        hlsnap__oci_work_leave(w->cache, &w->works[i]);
    w->result = r;
    pthread_mutex_lock(&w->own->lock);
    __atomic_store_n(&w->done, 1, __ATOMIC_RELEASE);
    pthread_cond_broadcast(&w->own->ended);
    pthread_mutex_unlock(&w->own->lock);
    return NULL;
}

/* ---- >>layers: from files to layers ---- */

/* Opens all memory layers, and looks for their chunk lists: what is missing is found out before gigabytes are hashed. */
static hlsnap_result hlsnap__oci_layers_open(hlsnap__oci_load *load, hlsnap_error *err) {
    const hlsnap__oci_manifest *m = &load->manifest;
    hlsnap_result r = HLSNAP_OK;
    uint32_t i;
    for (i = 0; !r && i < m->num_layers; i++) {
        int list;
        r = hlsnap__oci_open_blob(load->root, m->chunks[i].digest, m->chunks[i].size, &list, err);
        if (r) break;
        if (load->cache) r = hlsnap__oci_state_look(list, &load->lists[i], m->chunks[i].digest, err);
        close(list);
        if (!r) r = hlsnap__oci_open_blob(load->root, m->memory[i].digest, m->memory[i].size, &load->fds[i], err);
        if (!r) load->num_fds = i + 1;
    }
    return r;
}

/* A private copy of a blob that copies nothing, where the file system can: a file of its own, without a name, over the same
   blocks. -1 where it cannot, and where the blob was cut since its size was looked at: who then reads it finds out. */
static int hlsnap__oci_clone(hlsnap__oci_load *load, int fd, uint64_t size) {
    const int dir = hlsnap__oci_openat(load->root, "blobs/sha256", HLSNAP__OCI_READ | O_DIRECTORY);
    const int clone = dir < 0 ? -1 : openat(dir, ".", HLSNAP__OCI_O_TMPFILE | O_RDWR | O_EXCL | O_CLOEXEC, 0600);
    struct stat st;
    if (dir >= 0) close(dir);
    if (clone < 0) return -1;
    if (hlsnap__file_clone(clone, fd, size) && fstat(clone, &st) == 0 && (uint64_t)st.st_size >= size) return clone;
    close(clone);
    return -1;
}

/* A memfd as large as the layer, to be filled and sealed. */
static hlsnap_result hlsnap__oci_memfd(uint64_t size, int *fd, hlsnap_error *err) {
    *fd = hlsnap__memfd(err);
    if (*fd < 0) return HLSNAP_ERR_OS;
    return hlsnap__file_resize(*fd, size, err);
}

/* Keeps of the chunk list what is of chunks that are used: a watch may hold it for long, and a layer's file be nearly all
   hole. */
static hlsnap_result hlsnap__oci_work_shrink(hlsnap__oci_work *w, uint64_t chunks, hlsnap_error *err) {
    uint8_t *sums;
    uint64_t i;
    uint32_t n = 0;
    w->before = (uint32_t *)hlsnap__alloc((size_t)(chunks / HLSNAP__OCI_BATCH_CHUNKS + 1), sizeof(w->before[0]), err);
    if (!w->before) return HLSNAP_ERR_MEMORY;
    for (i = 0; i < chunks; i++) {
        if (i % HLSNAP__OCI_BATCH_CHUNKS == 0) w->before[i / HLSNAP__OCI_BATCH_CHUNKS] = n;
        if (w->used[i]) memmove(w->sums + 32 * (size_t)n++, w->sums + 32 * i, 32);
    }
    sums = (uint8_t *)hlsnap__alloc_raw(32 * (size_t)n + 1, err);
    if (!sums) return HLSNAP_ERR_MEMORY;
    memcpy(sums, w->sums, 32 * (size_t)n);
    hlsnap__free(w->sums);
    w->sums = sums;
    return HLSNAP_OK;
}

/* What is to be done for layer i, but for its chunk list. The caller frees w, whatever comes of it. For the cache all of a layer
   is read where half of it is used: twice what this load needs, but what those to come need, too. */
static hlsnap_result hlsnap__oci_work_begin(hlsnap__oci_load *load, uint32_t i, hlsnap__oci_work *w,
                                            hlsnap_error *err) {
    const hlsnap__oci_manifest *m = &load->manifest;
    const size_t chunks = (size_t)(m->chunks[i].size / 32);
    uint64_t k, pages = 0;
    memset(w, 0, sizeof(*w));
    w->fd = load->fds[i];
    w->copy = load->fds[i] = -1;
    w->sha = load->sha;
    w->layer = i;
    w->stop = &load->stop;
    w->verify = !load->desc.disable_verify;
    memcpy(w->key.memory, m->memory[i].digest, sizeof(w->key.memory));
    memcpy(w->key.chunks, m->chunks[i].digest, sizeof(w->key.chunks));
    w->key.size = m->memory[i].size;
    w->used = (uint16_t *)hlsnap__alloc(chunks, sizeof(w->used[0]), err);
    if (!w->used) return HLSNAP_ERR_MEMORY;
    hlsnap__oci_mark_used(w, &load->config);
    if (!load->cache || load->guard != HLSNAP_OCI_GUARD_PRIVATE) return HLSNAP_OK;
    for (k = 0; k < chunks; k++) pages += (uint64_t)__builtin_popcount(w->used[k]);
    w->whole = w->verify && 2 * pages * HLSNAP__PAGE >= w->key.size;
    if (w->whole) memset(w->used, 0xff, chunks * sizeof(w->used[0]));
    w->shared = w->whole ? w->key.size : pages * HLSNAP__PAGE;
    w->files.chunks = load->lists[i];
    return hlsnap__oci_state_look(w->fd, &w->files.memory, m->memory[i].digest, err);
}

/* And that. */
static hlsnap_result hlsnap__oci_work_make(hlsnap__oci_load *load, hlsnap__oci_work *w, hlsnap_error *err) {
    const hlsnap__oci_ref *list = &load->manifest.chunks[w->layer];
    char *sums = NULL;
    hlsnap_result r = hlsnap__oci_small_blob(load, list, &sums, err);
    w->sums = (uint8_t *)sums;
    return r ? r : hlsnap__oci_work_shrink(w, list->size / 32, err);
}

/* Whether a file is what it was. */
static bool hlsnap__oci_file_still(int fd, const struct stat *was) {
    struct stat st;
    return fstat(fd, &st) == 0 && st.st_dev == was->st_dev && st.st_ino == was->st_ino && st.st_size == was->st_size &&
           st.st_ctim.tv_sec == was->st_ctim.tv_sec && st.st_ctim.tv_nsec == was->st_ctim.tv_nsec;
}

/* Whether a work that is done has verified all chunks of a file: their list is then known to be that of what the file holds, as
   long as the file stays as it is. That its name is the digest of that, too, is not. */
static bool hlsnap__oci_all_listed(const hlsnap__oci_work *w) {
    const uint64_t num = hlsnap__oci_chunks_size(w->key.size) / 32;
    uint64_t i;
    for (i = 0; i < num && w->used[i];) i++;
    return w->verify && w->steady && i == num;
}

/* Fills *layer from an open blob: from its clone, from a sealed copy of what is used, or from the file itself. */
static hlsnap_result hlsnap__oci_layer_make(hlsnap__oci_load *load, hlsnap__oci_work *w, bool verify,
                                            hlsnap__layer **layer, hlsnap_error *err) {
    const bool private_guard = load->guard == HLSNAP_OCI_GUARD_PRIVATE;
    hlsnap_result r = private_guard ? hlsnap__file_room(w->key.size, "a layer", err) : HLSNAP_OK;
    int own, clone;
    w->steady = fstat(w->fd, &w->file) == 0 && !hlsnap__oci_young(&w->file);
    clone = private_guard && !r ? hlsnap__oci_clone(load, w->fd, w->key.size) : -1;
    if (clone >= 0) {
        w->steady = hlsnap__oci_file_still(w->fd, &w->file) && w->steady; /* the clone is ours alone */
        close(w->fd);
        w->fd = clone;
    } else if (private_guard && !r)
        r = hlsnap__oci_memfd(w->key.size, &w->copy, err);
    w->verify = verify;
    if (!r && (verify || w->copy >= 0))
        r = hlsnap__oci_work_all(w, load->desc.threads, &load->desc, load->done, load->total, load->buffer, err);
    if (clone < 0) w->steady = hlsnap__oci_file_still(w->fd, &w->file) && w->steady;
    load->done += w->key.size;
    if (!r && w->copy >= 0) r = hlsnap__memfd_seal(w->copy, err);
    if (r) return r;
    own = fcntl(w->copy >= 0 ? w->copy : w->fd, F_DUPFD_CLOEXEC, 3);
    if (own < 0) return hlsnap__oci_os(err, errno, "dup", "a layer");
    *layer = hlsnap__layer_create(own, w->copy >= 0, w->key.size / HLSNAP__PAGE, err);
    return *layer ? HLSNAP_OK : err->code;
}

static hlsnap__oci_want hlsnap__oci_work_want(const hlsnap__oci_work *w) {
    hlsnap__oci_want want;
    want.key = w->key;
    want.used = w->whole ? NULL : w->used;
    want.bytes = w->shared;
    want.files = w->files;
    return want;
}

/* Leaves a layer that was verified later to loads to come: another one over the same file, which no verification stops. */
static void hlsnap__oci_work_leave(hlsnap_oci_cache *c, const hlsnap__oci_work *w) {
    const hlsnap__oci_want want = hlsnap__oci_work_want(w);
    hlsnap__oci_row *row = w->shared ? hlsnap__oci_row_new(c, &want) : NULL;
    hlsnap__layer *layer = NULL;
    const int own = row ? fcntl(w->copy >= 0 ? w->copy : w->fd, F_DUPFD_CLOEXEC, 3) : -1;
    if (own >= 0) layer = hlsnap__layer_create(own, w->copy >= 0, w->key.size / HLSNAP__PAGE, NULL);
    if (layer) {
        hlsnap__oci_remember_loaded(layer, w->key.memory, w->key.chunks, NULL);
        hlsnap__layer_release(hlsnap__oci_cache_give(c, row, layer, &want.files));
    } else
        hlsnap__free(row);
}

/* Takes a layer from the cache, where what this load's own file holds is known to be the same, or is found to be now. */
static hlsnap_result hlsnap__oci_layer_take(hlsnap__oci_load *load, hlsnap__oci_work *w, hlsnap__oci_taken *t,
                                            hlsnap_error *err) {
    const bool now = w->verify && !load->desc.verify_later;
    const hlsnap__oci_want want = hlsnap__oci_work_want(w);
    hlsnap_result r = hlsnap__oci_cache_take(load->cache, &want, now, &load->desc, load->done, load->total, t, err);
    if (!r && t->layer && !t->known && now) {
        r = hlsnap__oci_work_make(load, w, err);
        if (!r)
            r = hlsnap__oci_work_all(w, load->desc.threads, &load->desc, load->done, load->total, load->buffer, err);
        if (!r) hlsnap__oci_cache_note(load->cache, t->layer, &want);
    } else if (!r && t->layer && t->known)
        r = hlsnap__oci_report(&load->desc, load->done + w->key.size, load->total, err);
    if (!r && (t->known || now)) {
        load->done += t->layer ? w->key.size : 0;
        return HLSNAP_OK;
    }
    hlsnap__layer_release(t->layer);
    t->layer = NULL;
    return r;
}

/* Makes a layer of its own, and leaves it to others: t->making. */
static hlsnap_result hlsnap__oci_layer_own(hlsnap__oci_load *load, hlsnap__oci_work *w, hlsnap__oci_taken *t,
                                           hlsnap_error *err) {
    const bool verify = !load->desc.disable_verify, later = verify && load->desc.verify_later;
    const hlsnap__oci_key *key = &w->key;
    hlsnap_result r = hlsnap__oci_work_make(load, w, err);
    if (t->making) w->beat = &t->making->beat;
    if (!r) r = hlsnap__oci_layer_make(load, w, verify && !later, &t->layer, err);
    w->beat = NULL;
    if (r) {
        if (t->making) hlsnap__oci_cache_drop(load->cache, t->making);
        return r;
    }
    if (verify) /* else it is not known to be that blob's content */
        hlsnap__oci_remember_loaded(t->layer, key->memory, key->chunks, hlsnap__oci_all_listed(w) ? &w->file : NULL);
    if (t->making) t->layer = hlsnap__oci_cache_give(load->cache, t->making, t->layer, &w->files);
    if (load->watch) {
        hlsnap__retain(&load->watch->watch.refs);
        t->layer->watch = &load->watch->watch;
    }
    if (!later) return HLSNAP_OK;
    w->verify = true;
    w->compare = w->copy >= 0;
    load->watch->works[load->watch->num_works++] = *w;
    memset(w, 0, sizeof(*w));
    w->fd = w->copy = -1;
    return HLSNAP_OK;
}

/* Takes in layer i. What is verified later is handed to the watch. */
static hlsnap_result hlsnap__oci_layer_load(hlsnap__oci_load *load, uint32_t i, hlsnap_error *err) {
    hlsnap__oci_work w;
    hlsnap__oci_taken t;
    hlsnap_result r = hlsnap__oci_work_begin(load, i, &w, err);
    memset(&t, 0, sizeof(t));
    if (!r && w.shared) r = hlsnap__oci_layer_take(load, &w, &t, err);
    if (!r && !t.layer) r = hlsnap__oci_layer_own(load, &w, &t, err);
    load->layers[i] = t.layer;
    hlsnap__oci_work_free(&w);
    return r;
}

/* Everything of one attempt that the next one or the end must not find. */
/* Forgets a manifest and its config. */
static void hlsnap__oci_config_clear(hlsnap__oci_load *load) {
    hlsnap__guest_release(load->config.guest);
    hlsnap__free(load->config.extents);
    hlsnap__json_close(&load->manifest_json);
    hlsnap__json_close(&load->config_json);
    memset(&load->manifest, 0, sizeof(load->manifest));
    memset(&load->config, 0, sizeof(load->config));
}

static void hlsnap__oci_load_clear(hlsnap__oci_load *load) {
    uint32_t i;
    for (i = 0; i < HLSNAP__MAX_LAYERS; i++) hlsnap__layer_release(load->layers[i]);
    for (i = 0; i < load->num_fds; i++)
        if (load->fds[i] >= 0) close(load->fds[i]);
    load->num_fds = 0;
    if (load->watch) hlsnap__watch_release(&load->watch->watch);
    load->watch = NULL;
    hlsnap__oci_config_clear(load);
    if (load->parsed) memset(&load->index, 0, sizeof(load->index));
    hlsnap__oci_index_close(&load->index);
    hlsnap__oci_parsed_release(load->parsed);
    load->parsed = NULL;
    memset(load->layers, 0, sizeof(load->layers));
    load->done = load->total = 0;
}

/* Takes leases of all files, or of none; then the load makes copies instead. */
static void hlsnap__oci_leases_take(hlsnap__oci_load *load) {
    uint32_t i, k;
    for (i = 0; i < load->num_fds && hlsnap__oci_lease(load->fds[i]); i++) {
    }
    if (i == load->num_fds) return;
    for (k = 0; k < i; k++) fcntl(load->fds[k], HLSNAP__OCI_F_SETLEASE, F_UNLCK);
    load->guard = HLSNAP_OCI_GUARD_PRIVATE;
}

/* Makes the watch, where there is something to watch, and notes how the files are before a byte of them is read. */
static hlsnap_result hlsnap__oci_watch_make(hlsnap__oci_load *load, hlsnap_error *err) {
    hlsnap__oci_watch *w;
    bool files;
    if (load->guard == HLSNAP_OCI_GUARD_LEASE) hlsnap__oci_leases_take(load);
    files = load->guard == HLSNAP_OCI_GUARD_LEASE || load->guard == HLSNAP_OCI_GUARD_DETECT;
    if (!files && (load->desc.disable_verify || !load->desc.verify_later)) return HLSNAP_OK;
    w = load->watch = (hlsnap__oci_watch *)hlsnap__alloc(1, sizeof(*w), err);
    if (!w) return HLSNAP_ERR_MEMORY;
    w->watch.refs = 1;
    w->watch.check = hlsnap__oci_watch_check;
    w->watch.destroy = hlsnap__oci_watch_destroy;
    w->guard = load->guard;
    w->threads = load->desc.threads;
    if (load->cache && load->guard == HLSNAP_OCI_GUARD_PRIVATE) hlsnap__retain(&(w->cache = load->cache)->refs);
    while (files && w->num_files < load->num_fds) {
        hlsnap__oci_watched *f = &w->files[w->num_files];
        struct stat st;
        f->fd = fcntl(load->fds[w->num_files], F_DUPFD_CLOEXEC, 3);
        if (f->fd < 0) return hlsnap__oci_os(err, errno, "dup", "a layer");
        w->num_files++;
        if (fstat(f->fd, &st) != 0) return hlsnap__oci_os(err, errno, "stat", "a layer");
        hlsnap__oci_watched_set(f, &st);
    }
    return HLSNAP_OK;
}

/* Starts the verification that was put off. */
static hlsnap_result hlsnap__oci_watch_start(hlsnap__oci_load *load, hlsnap_error *err) {
    hlsnap__oci_watch *w = load->watch;
    void *page;
    if (!w || !w->num_works) return HLSNAP_OK;
    w->buffer = (uint8_t *)hlsnap__alloc_raw(HLSNAP__OCI_BATCH, err);
    if (!w->buffer) return HLSNAP_ERR_MEMORY;
    page = mmap(NULL, HLSNAP__PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return hlsnap__fail_map(err, HLSNAP__PAGE, "the locks of verify_later");
    w->own = (hlsnap__oci_here *)page;
    if (madvise(page, HLSNAP__PAGE, HLSNAP__MADV_WIPEONFORK) != 0)
        return hlsnap__oci_os(err, errno, "MADV_WIPEONFORK", "verify_later");
    w->started = true;
    hlsnap__oci_watch_run(w);
    return HLSNAP_OK;
}

static hlsnap_result hlsnap__oci_load_once(hlsnap__oci_load *load, hlsnap_snapshot **out, hlsnap_error *err) {
    const hlsnap__oci_config *c = &load->config;
    bool pending = false;
    uint32_t i;
    hlsnap_result r = hlsnap__oci_resolve(load, err);
    if (!r) c->guest->learn = load->desc.prefault == HLSNAP_PREFAULT_LEARN;
    load->guard = load->desc.guard;
    load->total = 0;
    for (i = 0; !r && i < c->num_layers; i++) load->total += load->manifest.memory[i].size;
    if (!r && load->desc.max_bytes && load->total > load->desc.max_bytes)
        r = hlsnap__fail(err, HLSNAP_ERR_LIMIT, 0, "%llu bytes of memory layers, desc.max_bytes is %llu",
                         (unsigned long long)load->total, (unsigned long long)load->desc.max_bytes);
    if (!r) r = hlsnap__oci_layers_open(load, err);
    if (!r) r = hlsnap__oci_watch_make(load, err);
    for (i = 0; !r && i < c->num_layers; i++) r = hlsnap__oci_layer_load(load, i, err);
    if (!r) r = hlsnap__oci_watch_start(load, err);
    if (!r && load->watch) r = hlsnap__oci_watch_check(&load->watch->watch, 0, &pending, err);
    if (!r)
        r = hlsnap__snapshot_create(c->guest, c->generation, load->layers, c->num_layers, c->extents, c->num_extents,
                                    out, err);
    if (!r && hlsnap__snapshot_maps(*out, c->maps, c->num_maps, err)) {
        hlsnap_snapshot_release(*out);
        *out = NULL;
        r = HLSNAP_ERR_MEMORY;
    }
    if (!r) (*out)->guard = (uint32_t)load->guard;
    return r;
}

/* Whether a blob was missing, as when its tag had moved and it was collected since the index was read: then once more. */
static bool hlsnap__oci_collected(const hlsnap__oci_load *load, hlsnap_result r, const hlsnap_error *err) {
    return load && load->index.there && r == HLSNAP_ERR_FILE && err->os_errno == ENOENT;
}

static hlsnap_result hlsnap__oci_load_run(hlsnap__oci_load *load, const char *dir, hlsnap_snapshot **out,
                                          hlsnap_oci_digest *digest, hlsnap_error *err) {
    hlsnap_result r;
    load->buffer = (uint8_t *)hlsnap__alloc_raw(HLSNAP__OCI_BATCH, err);
    if (!load->buffer) return HLSNAP_ERR_MEMORY;
    r = hlsnap__oci_open_root(dir, &load->root, err);
    if (!r && load->root < 0) r = hlsnap__oci_no_layout(err);
    if (r) return r;
    r = hlsnap__oci_load_once(load, out, err);
    if (hlsnap__oci_collected(load, r, err)) {
        hlsnap__oci_load_clear(load);
        r = hlsnap__oci_load_once(load, out, err);
    }
    if (!r && digest) memcpy(digest->text, load->digest, sizeof(digest->text));
    return r;
}

/* ---- >>reading: one manifest of an open layout ---- */

/* Whether a manifest, sound or not, is meant to be a snapshot's. */
static bool hlsnap__oci_manifest_ours(const cJSON *root) {
    const cJSON *artifact = hlsnap__json_get(root, "artifactType"),
                *config = hlsnap__json_get(hlsnap__json_get(root, "config"), "mediaType");
    return (cJSON_IsString(artifact) && strcmp(artifact->valuestring, HLSNAP__OCI_ARTIFACT_TYPE) == 0) ||
           (cJSON_IsString(config) && strcmp(config->valuestring, HLSNAP__OCI_CONFIG_TYPE) == 0);
}

/* Whether an entry says by itself that it is a snapshot's, as those do that are written here (and crane's copies). */
static bool hlsnap__oci_entry_ours(const hlsnap__oci_entry *e) {
    return e->artifact &&
           (strcmp(e->artifact, HLSNAP__OCI_ARTIFACT_TYPE) == 0 || strcmp(e->artifact, HLSNAP__OCI_CONFIG_TYPE) == 0);
}

/* Whether an entry can be a snapshot's at all: of a manifest of ours. */
static bool hlsnap__oci_entry_fits(const hlsnap__oci_entry *e) {
    return strcmp(e->type, HLSNAP__OCI_MANIFEST_TYPE) == 0 && hlsnap__sha256_text_ok(e->digest) &&
           e->size <= HLSNAP__OCI_JSON_MAX;
}

/* Reads the manifest of an entry. *ours: it is a snapshot's; other manifests are nobody's fault, whatever is in them. Anything
   else that hinders is an error. d is the caller's, to close. */
static hlsnap_result hlsnap__oci_entry_manifest(hlsnap__oci_load *load, uint32_t number, hlsnap__json *d,
                                                hlsnap__oci_manifest *m, bool *ours, hlsnap_error *err) {
    const hlsnap__oci_entry *e = &load->index.entries[number];
    const hlsnap__oci_ref ref = hlsnap__oci_entry_ref(e);
    char path[32];
    hlsnap_result r;
    *ours = false;
    if (!hlsnap__oci_entry_fits(e)) return HLSNAP_OK;
    hlsnap__format(path, sizeof(path), "manifests[%u].", number);
    r = hlsnap__oci_ref_usable(&load->index.doc, path, &ref, 1, HLSNAP__OCI_JSON_MAX, err);
    if (!r) r = hlsnap__oci_json_blob(load, &ref, "manifest", HLSNAP_ERR_MANIFEST, d, err);
    if ((r == HLSNAP_ERR_JSON || r == HLSNAP_ERR_MANIFEST) && !hlsnap__oci_entry_ours(e)) return HLSNAP_OK;
    if (!r && !hlsnap__oci_manifest_ours(d->root)) return HLSNAP_OK;
    if (!r) r = hlsnap__oci_manifest_read(d, m, err);
    *ours = !r;
    return r == HLSNAP_ERR_MEDIA_TYPE ? HLSNAP_OK : r;
}

/* Bytes of all that a manifest leads to. */
static uint64_t hlsnap__oci_manifest_bytes(const hlsnap__oci_manifest *m, uint64_t manifest_size) {
    uint64_t bytes = manifest_size + m->config.size;
    uint32_t i;
    for (i = 0; i < m->num_layers; i++) bytes += m->memory[i].size + m->chunks[i].size;
    return bytes;
}

/* Reads the index of an open layout, for the first time or again. */
static hlsnap_result hlsnap__oci_index_again(hlsnap__oci_load *load, hlsnap_error *err) {
    hlsnap__oci_load_clear(load);
    return hlsnap__oci_index_open(load->root, &load->index, err);
}

/* Opens a layout only to read its index. */
static hlsnap_result hlsnap__oci_browse(const char *dir, hlsnap__oci_load *load, hlsnap_error *err) {
    hlsnap_result r = hlsnap__oci_open_root(dir, &load->root, err);
    if (!r && load->root < 0) r = hlsnap__oci_no_layout(err);
    return r ? r : hlsnap__oci_index_again(load, err);
}

static hlsnap__oci_load *hlsnap__oci_load_new(hlsnap_error *err) {
    hlsnap__oci_load *load = (hlsnap__oci_load *)hlsnap__alloc(1, sizeof(*load), err);
    if (!load) return NULL;
    load->sha = hlsnap__sha256_pick(hlsnap__cpu_features());
    load->root = -1;
    return load;
}

static void hlsnap__oci_load_free(hlsnap__oci_load *load) {
    if (!load) return;
    hlsnap__oci_load_clear(load);
    hlsnap__oci_reach_free(&load->now);
    hlsnap__oci_reach_free(&load->payloads);
    if (load->root >= 0) close(load->root);
    hlsnap__free(load->buffer);
    hlsnap__free(load);
}

/* ---- >>reachable: what the index leads to, through everything that may be somebody's document ---- */

#ifndef HLSNAP__OCI_MAX_REACHED            /* a test makes it smaller */
#define HLSNAP__OCI_MAX_REACHED (1u << 20) /* blobs of a layout; from an eighth on, what is named must be there to count */
#endif
#define HLSNAP__OCI_NOBODY (UINT32_MAX - 1)
#define HLSNAP__OCI_MANY UINT32_MAX /* more than one entry */

struct hlsnap__oci_reached {
    char digest[136]; /* of an algorithm that names files: sha256, sha384, sha512, blake3 */
    uint64_t size;    /* that a descriptor says; 0: none does */
    uint32_t entry;   /* that leads there, or HLSNAP__OCI_MANY */
    uint32_t leaf;    /* entry of a snapshot's that it is a blob of, and so no document for that one */
    char about[72];   /* what the first who looked was about, so did not see */
    bool seen_all;    /* one looked who was about something else */
    uint32_t looked;  /* entry for which it was looked into, or HLSNAP__OCI_NOBODY, HLSNAP__OCI_MANY */
    uint32_t referrers;
    bool needed;     /* by the index or by a snapshot; else it may well be elsewhere */
    bool document;   /* listed as one: it must be read */
    char chunks[72]; /* for fsck, of a memory layer: its chunk list */
};

static void hlsnap__oci_reach_free(hlsnap__oci_reach *t) {
    hlsnap__free(t->rows);
    hlsnap__free(t->slots);
    hlsnap__free(t->queue);
    memset(t, 0, sizeof(*t));
}

static uint32_t *hlsnap__oci_reach_slot(const hlsnap__oci_reach *t, const char *digest) {
    uint64_t i = hlsnap__mix(t->key, digest, strlen(digest));
    for (i ^= i >> 32;; i++) {
        uint32_t *slot = &t->slots[i & (t->num_slots - 1)];
        if (!*slot || strcmp(t->rows[*slot - 1].digest, digest) == 0) return slot;
    }
}

static hlsnap__oci_reached *hlsnap__oci_reach_find(const hlsnap__oci_reach *t, const char *digest) {
    const uint32_t slot = t->num_slots ? *hlsnap__oci_reach_slot(t, digest) : 0;
    return slot ? &t->rows[slot - 1] : NULL;
}

static hlsnap_result hlsnap__oci_reach_grow(hlsnap__oci_reach *t, hlsnap_error *err) {
    hlsnap__oci_reach bigger = *t;
    uint32_t i;
    hlsnap_result r = HLSNAP_OK;
    if (t->num >= HLSNAP__OCI_MAX_REACHED)
        return hlsnap__fail(err, HLSNAP_ERR_LIMIT, 0, "index.json leads to more than %u blobs",
                            HLSNAP__OCI_MAX_REACHED);
    if (!t->cap) r = hlsnap__random(&bigger.key, sizeof(bigger.key), err);
    if (r) return r;
    bigger.cap = t->cap ? 2 * t->cap : 128;
    bigger.num_slots = 2 * bigger.cap;
    bigger.rows = (hlsnap__oci_reached *)hlsnap__alloc_raw(bigger.cap * sizeof(bigger.rows[0]), err);
    bigger.queue = (uint32_t *)hlsnap__alloc_raw(bigger.cap * sizeof(bigger.queue[0]), err);
    bigger.slots = (uint32_t *)hlsnap__alloc(bigger.num_slots, sizeof(bigger.slots[0]), err);
    if (!bigger.rows || !bigger.queue || !bigger.slots) {
        hlsnap__oci_reach_free(&bigger);
        return HLSNAP_ERR_MEMORY;
    }
    if (t->num) memcpy(bigger.rows, t->rows, t->num * sizeof(t->rows[0]));
    if (t->queued) memcpy(bigger.queue, t->queue, t->queued * sizeof(t->queue[0]));
    for (i = 0; i < t->num; i++) *hlsnap__oci_reach_slot(&bigger, bigger.rows[i].digest) = i + 1;
    hlsnap__oci_reach_free(t);
    *t = bigger;
    return HLSNAP_OK;
}

/* Notes that an entry leads to a blob. *row is good until the next one. */
static hlsnap_result hlsnap__oci_reach_add(hlsnap__oci_reach *t, const char *digest, uint64_t size, uint32_t entry,
                                           hlsnap__oci_reached **row, hlsnap_error *err) {
    hlsnap_result r = t->num == t->cap ? hlsnap__oci_reach_grow(t, err) : HLSNAP_OK;
    uint32_t *slot;
    if (r) return r;
    slot = hlsnap__oci_reach_slot(t, digest);
    if (*slot) {
        *row = &t->rows[*slot - 1];
        if ((*row)->entry != entry) (*row)->entry = HLSNAP__OCI_MANY;
    } else {
        *row = &t->rows[t->num++];
        *slot = t->num;
        memset(*row, 0, sizeof(**row));
        hlsnap__format((*row)->digest, sizeof((*row)->digest), "%s", digest);
        (*row)->entry = entry;
        (*row)->looked = (*row)->leaf = HLSNAP__OCI_NOBODY;
    }
    if (!(*row)->size) (*row)->size = size;
    return HLSNAP_OK;
}

/* Notes a blob that the entry at hand leads to, and that it is to be looked into. Two looks suffice, for behind the second one
   everything is known to be shared; but two that were about the same did not see that, so that one more looks who is not. A leaf
   is a blob of a snapshot's: for that one, and only for it, it is no document. */
static hlsnap_result hlsnap__oci_reach_note(hlsnap__oci_reach *t, const char *digest, uint64_t size, bool leaf,
                                            hlsnap__oci_reached **out, hlsnap_error *err) {
    hlsnap__oci_reached *row;
    hlsnap_result r;
    *out = NULL;
    if (strcmp(digest, t->subject) == 0) return HLSNAP_OK;
    if (t->watch && strcmp(digest, t->watch) == 0) t->seen = true;
    r = hlsnap__oci_reach_add(t, digest, size, t->who, &row, err);
    if (r) return r;
    *out = row;
    if (leaf) row->leaf = t->who;
    if (row->leaf == t->who || row->looked == t->who) return HLSNAP_OK;
    if (row->looked == HLSNAP__OCI_MANY && (row->seen_all || strcmp(row->about, t->subject) == 0)) return HLSNAP_OK;
    if (row->looked == HLSNAP__OCI_NOBODY)
        hlsnap__format(row->about, sizeof(row->about), "%s", t->subject);
    else if (strcmp(row->about, t->subject) != 0)
        row->seen_all = true;
    row->looked = row->looked == HLSNAP__OCI_NOBODY ? t->who : HLSNAP__OCI_MANY;
    t->queue[t->queued++] = (uint32_t)(row - t->rows);
    return HLSNAP_OK;
}

/* Finds digests in text that comes in pieces, whatever its grammar: as they are, and with JSON's escapes. */
typedef struct hlsnap__oci_finder {
    char last[6];     /* the characters before */
    uint32_t want;    /* hex digits that are still to come, behind an algorithm's name and a colon */
    uint32_t escape;  /* 0: none; 1: behind a backslash; 2 to 5: in the four digits of \u */
    uint32_t unit;    /* of them so far */
    char raw[4];      /* as they are written */
    char digest[136]; /* at the end of which it is */
    uint32_t size;
} hlsnap__oci_finder;

/* Takes one character; whether f->digest is complete with it. Each character may be the end of an algorithm's name as well as a
   digit of another digest, which is then none: in "sha256:0ablake3:", "b" is both. */
static bool hlsnap__oci_finder_take(hlsnap__oci_finder *f, char c) {
    static const struct {
        const char *name;
        uint32_t digits;
    } kinds[] = {{"sha256", 64}, {"sha384", 96}, {"sha512", 128}, {"blake3", 64}};
    bool found = false;
    size_t i;
    if (f->want && ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) {
        f->digest[f->size++] = c;
        found = --f->want == 0;
        f->digest[f->size] = 0;
    } else
        f->want = 0;
    if (c == ':')
        for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
            if (memcmp(f->last, kinds[i].name, 6) == 0) {
                memcpy(f->digest, kinds[i].name, 6);
                f->digest[6] = ':';
                f->size = 7;
                f->want = kinds[i].digits;
            }
    memmove(f->last, f->last + 1, 5);
    f->last[5] = c;
    return found;
}

/* Takes what looked like the beginning of \u and four digits as it is written, up to the character that is none of them. */
static bool hlsnap__oci_finder_undo(hlsnap__oci_finder *f, char c) {
    bool found;
    uint32_t i;
    hlsnap__oci_finder_take(f, 'u');
    for (i = 0; i + 2 < f->escape; i++) hlsnap__oci_finder_take(f, f->raw[i]); /* "u" before them: none is complete */
    found = hlsnap__oci_finder_take(f, c);
    f->escape = 0;
    return found;
}

/* Takes one byte of the text. NULs are nothing, as in UTF-16 of these characters. */
static bool hlsnap__oci_finder_next(hlsnap__oci_finder *f, unsigned char c) {
    uint32_t digit;
    if (!c) return false;
    if (!f->escape) {
        f->escape = c == '\\';
        return !f->escape && hlsnap__oci_finder_take(f, (char)c);
    }
    if (f->escape == 1) {
        f->escape = c == 'u' ? 2 : 0;
        f->unit = 0;
        return !f->escape && hlsnap__oci_finder_take(f, (char)c);
    }
    digit = c >= '0' && c <= '9'                     ? c - (uint32_t)'0'
            : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20u) - 'a' + 10
                                                     : 16;
    if (digit == 16)
        return c == '\\' ? (hlsnap__oci_finder_undo(f, '?'), f->escape = 1, false)
                         : hlsnap__oci_finder_undo(f, (char)c);
    f->raw[f->escape - 2] = (char)c;
    f->unit = f->unit << 4 | digit;
    if (f->escape++ < 5) return false;
    f->escape = 0;
    return hlsnap__oci_finder_take(f, f->unit < 0x80 ? (char)f->unit : '?');
}

/* Whether a digest is one that would be found. */
static bool hlsnap__oci_finder_knows(const char *digest) {
    hlsnap__oci_finder f;
    bool found = false;
    memset(&f, 0, sizeof(f));
    for (; *digest && !found; digest++) found = hlsnap__oci_finder_take(&f, *digest);
    return found && !*digest;
}

/* Whether a name that a text holds leads nowhere, and would only fill the table: documents may hold any number of them. */
static bool hlsnap__oci_reach_idle(const hlsnap__oci_load *load, const hlsnap__oci_reach *t, const char *digest) {
    const char *hex = (strchr)(digest, ':') + 1;
    char path[160];
    struct stat st;
    if (t->num < HLSNAP__OCI_MAX_REACHED / 8 || hlsnap__oci_reach_find(t, digest)) return false;
    hlsnap__format(path, sizeof(path), "blobs/%.*s/%s", (int)(hex - 1 - digest), digest, hex);
    return fstatat(load->root, path, &st, AT_SYMLINK_NOFOLLOW) != 0 && errno == ENOENT;
}

/* Notes every digest in a piece of text. */
static hlsnap_result hlsnap__oci_reach_text(const hlsnap__oci_load *load, hlsnap__oci_reach *t, hlsnap__oci_finder *f,
                                            const void *text, size_t size, hlsnap_error *err) {
    const unsigned char *p = (const unsigned char *)text;
    hlsnap__oci_reached *row;
    hlsnap_result r = HLSNAP_OK;
    size_t i;
    for (i = 0; !r && i < size; i++)
        if (hlsnap__oci_finder_next(f, p[i]) && !hlsnap__oci_reach_idle(load, t, f->digest))
            r = hlsnap__oci_reach_note(t, f->digest, 0, false, &row, err);
    return r;
}

/* Whether a file may be a document: it begins as JSON does, or as nothing does, which may be one that is damaged. */
static bool hlsnap__oci_may_lead(int fd, uint64_t size) {
    char begin[64];
    ssize_t n = pread(fd, begin, sizeof(begin), 0), i = 0;
    if (n > 3 && memcmp(begin, "\xef\xbb\xbf", 3) == 0) i = 3; /* a byte order mark */
    while (i < n && begin[i] && (strchr)(" \t\r\n", begin[i])) i++;
    return n < 0 || i == n || begin[i] == '{' || begin[i] == '[' || (!begin[i] && size <= HLSNAP__OCI_MANIFEST_MAX);
}

/* All of an open file: its digests, and whether it holds what its name says, where that can be told. */
static hlsnap_result hlsnap__oci_reach_file(hlsnap__oci_load *load, hlsnap__oci_reach *t, const char *digest, int fd,
                                            uint64_t size, hlsnap_error *err) {
    hlsnap__oci_finder f;
    hlsnap__sha256 whole;
    uint8_t sum[32];
    char text[72];
    uint64_t at;
    size_t n;
    hlsnap_result r = HLSNAP_OK;
    if (size > HLSNAP__OCI_MAX_SIZE) /* a hole of exbibytes takes no disk, but would take years */
        return hlsnap__fail(err, HLSNAP_ERR_LIMIT, 0, "blobs/%.6s/%s: %llu bytes: what they lead to is not known",
                            digest, digest + 7, (unsigned long long)size);
    if (!load->buffer) load->buffer = (uint8_t *)hlsnap__alloc_raw(HLSNAP__OCI_BATCH, err);
    if (!load->buffer) return HLSNAP_ERR_MEMORY;
    memset(&f, 0, sizeof(f));
    hlsnap__sha256_init(&whole, load->sha->one);
    for (at = 0; !r && at < size; at += n) {
        n = size - at < HLSNAP__OCI_BATCH ? (size_t)(size - at) : HLSNAP__OCI_BATCH;
        r = hlsnap__pread(fd, load->buffer, n, at, err);
        if (r) return r;
        hlsnap__sha256_update(&whole, load->buffer, n);
        r = hlsnap__oci_reach_text(load, t, &f, load->buffer, n, err);
    }
    hlsnap__sha256_final(&whole, sum);
    hlsnap__sha256_text(sum, text);
    if (r || strncmp(digest, "sha256:", 7) != 0 || strcmp(text, digest) == 0) return r;
    return hlsnap__fail(err, HLSNAP_ERR_DIGEST, 0, "blobs/sha256/%s: its content is %s: what it leads to is not known",
                        digest + 7, text);
}

/* Looks into a blob. One that is missing leads nowhere; one that cannot be read, or is damaged, is an error, since what it leads
   to is not known. */
static hlsnap_result hlsnap__oci_reach_blob(hlsnap__oci_load *load, hlsnap__oci_reach *t, uint32_t number,
                                            hlsnap_error *err) {
    const bool document = t->rows[number].document, needed = t->rows[number].needed;
    char digest[136], path[160];
    uint64_t size;
    int fd;
    hlsnap_result r;
    memcpy(digest, t->rows[number].digest, sizeof(digest));
    hlsnap__format(path, sizeof(path), "blobs/%.6s/%s", digest, digest + 7);
    r = hlsnap__oci_open(load->root, path, &fd, &size, err);
    if (r == HLSNAP_ERR_FILE && (err->os_errno == ENOENT || err->os_errno == ENOTDIR || !document)) return HLSNAP_OK;
    if (r) return r;
    if (document || (needed && size <= HLSNAP__OCI_MANIFEST_MAX) || hlsnap__oci_may_lead(fd, size))
        r = hlsnap__oci_reach_file(load, t, digest, fd, size, err);
    close(fd);
    return r;
}

static bool hlsnap__oci_is_document(const char *type) {
    static const char *const types[] = {HLSNAP__OCI_MANIFEST_TYPE, HLSNAP__OCI_INDEX_TYPE,
                                        "application/vnd.docker.distribution.manifest.v2+json",
                                        "application/vnd.docker.distribution.manifest.list.v2+json"};
    size_t i;
    for (i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (strcmp(type, types[i]) == 0) return true;
    return false;
}

/* The blobs of a snapshot, which lead nowhere. */
static hlsnap_result hlsnap__oci_reach_snapshot(hlsnap__oci_reach *t, const hlsnap__oci_manifest *m,
                                                hlsnap_error *err) {
    hlsnap__oci_reached *row;
    uint32_t i;
    const char *subject = t->subject;
    hlsnap_result r;
    t->subject = ""; /* what a snapshot is made of, it leads to, whatever it says that it is about */
    r = hlsnap__oci_reach_note(t, m->config.digest, m->config.size, true, &row, err);
    if (!r && row) row->needed = true;
    for (i = 0; !r && i < m->num_layers; i++) {
        r = hlsnap__oci_reach_note(t, m->memory[i].digest, m->memory[i].size, true, &row, err);
        if (!r && row) row->needed = true;
        if (!r) r = hlsnap__oci_reach_note(t, m->chunks[i].digest, m->chunks[i].size, true, &row, err);
        if (!r && row) row->needed = true;
    }
    t->subject = subject;
    return r;
}

/* What entry number i leads to: who counts as the one that does, subject is what it is about, or "". */
static hlsnap_result hlsnap__oci_reach_entry(hlsnap__oci_load *load, hlsnap__oci_reach *t, uint32_t i, uint32_t who,
                                             const char *subject, hlsnap_error *err) {
    const hlsnap__oci_entry *e = &load->index.entries[i];
    hlsnap__oci_reached *row;
    hlsnap__oci_finder f;
    hlsnap_error unused;
    bool ours = false;
    hlsnap_result r = HLSNAP_OK;
    t->who = who;
    t->subject = subject;
    t->queued = 0;
    t->seen = false;
    memset(&f, 0, sizeof(f));
    if (hlsnap__oci_finder_knows(e->digest)) r = hlsnap__oci_reach_note(t, e->digest, e->size, false, &row, err);
    if (!r && hlsnap__oci_finder_knows(e->digest) && row) {
        row->needed = true;
        row->document = row->document || hlsnap__oci_is_document(e->type);
    }
    if (!r && t->queued) hlsnap__oci_entry_manifest(load, i, &load->manifest_json, &load->manifest, &ours, &unused);
    if (!r && ours) r = hlsnap__oci_reach_snapshot(t, &load->manifest, err);
    hlsnap__json_close(&load->manifest_json); /* where it cannot be read, that shows again below */
    if (!r) r = hlsnap__oci_reach_text(load, t, &f, e->text.at, e->text.size, err);
    while (!r && t->queued) r = hlsnap__oci_reach_blob(load, t, t->queue[--t->queued], err);
    return r;
}

/* ---- >>entries: what each is, and what it is about ---- */

typedef struct hlsnap__oci_about {
    uint32_t same;     /* the first entry of this digest */
    bool ours;         /* a snapshot's; or its manifest cannot be read, and nothing says that it is another's */
    bool read;         /* its manifest was */
    uint64_t bytes;    /* of all blobs of a snapshot; 0: not known */
    hlsnap_result why; /* it could not be read */
    char subject[72];  /* a referrer's: the digest of what it is about; else "" */
    uint32_t looked;   /* the entry of this digest, but another kind, that was looked at before; UINT32_MAX: none */
    uint32_t on,
        root; /* same of the entry that it is about, and of the one that this is about in the end; or its own */
} hlsnap__oci_about;

/* "sha256-<64 hex>", or with .sig, .att, .sbom or the like behind it: what cosign, and registries without a referrers API, call
   the signatures of a manifest. */
static bool hlsnap__oci_tag_subject(const char *tag, char subject[72]) {
    if (!tag || strncmp(tag, "sha256-", 7) != 0 || strlen(tag) < 71 || (tag[71] && tag[71] != '.')) return false;
    hlsnap__format(subject, 72, "sha256:%.64s", tag + 7);
    return hlsnap__sha256_text_ok(subject);
}

/* The digest in the object that s stands at. */
static void hlsnap__oci_text_digest(hlsnap__json_span object, char subject[72]) {
    hlsnap__json_scan s = hlsnap__json_start(object.at, object.size);
    hlsnap__json_level level;
    hlsnap__json_span name, value;
    s.max_depth = s.max_nodes = UINT32_MAX;
    if (*object.at != '{' || !hlsnap__json_enter(&s, &level)) return;
    while (hlsnap__json_more(&s, &level, &name)) {
        value = hlsnap__json_value(&s);
        if (!hlsnap__json_name_is(name, "digest") || value.size != 73) continue;
        hlsnap__format(subject, 72, "%.71s", value.at + 1);
        if (!hlsnap__sha256_text_ok(subject)) subject[0] = 0;
    }
}

#define HLSNAP__OCI_DEEP 128u /* levels of other people's documents */

/* The value of a member of the object that a document of any kind is; NULL: it has none, or is no JSON. */
static hlsnap__json_span hlsnap__oci_text_member(const char *text, size_t size, const char *member) {
    hlsnap__json_scan s = hlsnap__json_start(text, size);
    hlsnap__json_level level;
    hlsnap__json_span name, none = {NULL, 0}, value, found = {NULL, 0};
    s.max_depth = HLSNAP__OCI_DEEP;
    s.max_nodes = UINT32_MAX;
    s.keep_names = true;
    hlsnap__json_space(&s);
    if (s.p < s.end && *s.p == '{' && hlsnap__json_enter(&s, &level)) {
        while (hlsnap__json_more(&s, &level, &name)) {
            const unsigned char *from = s.p;
            if (!hlsnap__json_value_scan(&s)) break;
            value = hlsnap__json_span_from(from, &s);
            if (hlsnap__json_name_is(name, member)) found = value;
        }
    }
    hlsnap__free(s.names);
    return s.why[0] ? none : found;
}

/* What a document of any kind says it is about. */
static void hlsnap__oci_text_subject(const char *text, size_t size, char subject[72]) {
    const hlsnap__json_span found = hlsnap__oci_text_member(text, size, "subject");
    if (found.at) hlsnap__oci_text_digest(found, subject);
}

#define HLSNAP__OCI_SIGNED 64u        /* payloads of one document; cosign's signatures of one manifest stand in one */
#define HLSNAP__OCI_SIGNED_MAX 65536u /* bytes of a payload */
#define HLSNAP__OCI_SIGNED_TYPE "application/vnd.dev.cosign.simplesigning.v1+json"

/* What a payload of cosign's is about: "docker-manifest-digest"; else "". One that several documents name is read once. */
static hlsnap_result hlsnap__oci_payload_subject(hlsnap__oci_load *load, const hlsnap__oci_ref *ref, char subject[72],
                                                 hlsnap_error *err) {
    static const char key[] = "\"docker-manifest-digest\":\"";
    hlsnap__oci_reached *row;
    char *payload = NULL;
    const char *at;
    hlsnap_result r = hlsnap__oci_reach_add(&load->payloads, ref->digest, 0, 0, &row, err);
    if (r) return r;
    if (row->looked == HLSNAP__OCI_NOBODY) {
        r = hlsnap__oci_small_blob(load, ref, &payload, err);
        at = r ? NULL : (strstr)(payload, key);
        if (at && strlen(at) > sizeof(key) + 70) hlsnap__format(row->about, 72, "%.71s", at + sizeof(key) - 1);
        if (!hlsnap__sha256_text_ok(row->about)) row->about[0] = 0;
        hlsnap__free(payload);
        row->size = ref->size;
        if (r != HLSNAP_ERR_SIZE) row->looked = 0; /* at another size it was not even read */
    }
    memcpy(subject, row->size == ref->size ? row->about : "", row->size == ref->size ? 72 : 1);
    return r == HLSNAP_ERR_MEMORY ? r : HLSNAP_OK;
}

/* What one element of a manifest's layers, a signature of cosign's, is about; *is: it is one. */
static hlsnap_result hlsnap__oci_layer_subject(hlsnap__oci_load *load, hlsnap__json_span layer, bool *is,
                                               char subject[72], hlsnap_error *err) {
    static const char type[] = "\"" HLSNAP__OCI_SIGNED_TYPE "\"";
    const hlsnap__json_span is_type = hlsnap__oci_text_member(layer.at, layer.size, "mediaType"),
                            bytes = hlsnap__oci_text_member(layer.at, layer.size, "size");
    hlsnap__oci_ref ref = {HLSNAP__OCI_SIGNED_TYPE, NULL, 0};
    char digest[72] = "";
    subject[0] = 0;
    *is = is_type.size == sizeof(type) - 1 && memcmp(is_type.at, type, sizeof(type) - 1) == 0;
    if (!*is) return HLSNAP_OK;
    hlsnap__oci_text_digest(layer, digest);
    if (bytes.at && bytes.size <= 5) ref.size = strtoull(bytes.at, NULL, 10); /* a number ends at what follows it */
    if (!digest[0] || !ref.size || ref.size > HLSNAP__OCI_SIGNED_MAX) return HLSNAP_OK;
    ref.digest = digest;
    return hlsnap__oci_payload_subject(load, &ref, subject, err);
}

/* What the signatures of cosign's in a manifest are about, by their payloads. Where a layout is cosign's own, nothing else says
   so. Of two different manifests, or more signatures than are looked at: then it goes with none of them. */
static hlsnap_result hlsnap__oci_signed_subject(hlsnap__oci_load *load, const char *text, size_t size, char subject[72],
                                                hlsnap_error *err) {
    hlsnap__json_span layers, name;
    hlsnap__json_level level;
    hlsnap__json_scan s;
    uint32_t num = 0;
    bool several = false, is;
    hlsnap_result r = HLSNAP_OK;
    if (!(strstr)(text, HLSNAP__OCI_SIGNED_TYPE)) return HLSNAP_OK;
    layers = hlsnap__oci_text_member(text, size, "layers");
    if (!layers.at || *layers.at != '[') return HLSNAP_OK;
    s = hlsnap__json_start(layers.at, layers.size);
    s.max_depth = HLSNAP__OCI_DEEP;
    s.max_nodes = UINT32_MAX;
    hlsnap__json_enter(&s, &level);
    while (!r && !several && hlsnap__json_more(&s, &level, &name)) {
        char found[72];
        r = hlsnap__oci_layer_subject(load, hlsnap__json_value(&s), &is, found, err);
        several = (is && ++num > HLSNAP__OCI_SIGNED) || (found[0] && subject[0] && strcmp(found, subject) != 0);
        if (found[0]) memcpy(subject, found, 72);
    }
    if (several) subject[0] = 0;
    return r;
}

/* What the document of entry e, of another kind than a snapshot, says it is about. Whatever hinders shows when it is looked
   into. */
static hlsnap_result hlsnap__oci_entry_subject(hlsnap__oci_load *load, const hlsnap__oci_entry *e, char subject[72],
                                               hlsnap_error *err) {
    hlsnap__oci_ref ref = hlsnap__oci_entry_ref(e);
    char *text = NULL;
    hlsnap_result r;
    if (!hlsnap__oci_is_document(e->type) || !hlsnap__sha256_text_ok(e->digest) || !e->size ||
        e->size > HLSNAP__OCI_MANIFEST_MAX)
        return HLSNAP_OK;
    r = hlsnap__oci_small_blob(load, &ref, &text, err);
    if (!r) hlsnap__oci_text_subject(text, (size_t)e->size, subject);
    if (!r && !subject[0]) r = hlsnap__oci_signed_subject(load, text, (size_t)e->size, subject, err);
    hlsnap__free(text);
    return r == HLSNAP_ERR_MEMORY ? r : HLSNAP_OK;
}

/* Whether a look at a manifest failed by what its entry says, before it was opened: another entry may say it right. */
static bool hlsnap__oci_size_misfits(hlsnap_result r) { return r == HLSNAP_ERR_SIZE || r == HLSNAP_ERR_INDEX; }

/* Looks at entry i for the first time. What cannot be looked at just now ends it; what is wrong with it is noted. */
static hlsnap_result hlsnap__oci_about_look(hlsnap__oci_load *load, uint32_t i, hlsnap__oci_about *a,
                                            hlsnap_error *err) {
    const hlsnap__oci_entry *e = &load->index.entries[i];
    const cJSON *subject;
    bool ours = false;
    hlsnap_result r = hlsnap__oci_entry_manifest(load, i, &load->manifest_json, &load->manifest, &ours, err);
    a->why = r;
    a->ours = ours || (r && (hlsnap__oci_entry_ours(e) || !e->artifact));
    if (ours) a->bytes = hlsnap__oci_manifest_bytes(&load->manifest, e->size);
    subject = ours ? hlsnap__json_get(hlsnap__json_get(load->manifest_json.root, "subject"), "digest") : NULL;
    if (cJSON_IsString(subject) && hlsnap__sha256_text_ok(subject->valuestring))
        memcpy(a->subject, subject->valuestring, sizeof(a->subject));
    hlsnap__json_close(&load->manifest_json);
    if (r == HLSNAP_ERR_MEMORY || (r == HLSNAP_ERR_OS && err->os_errno != EACCES)) return r;
    return r || ours ? HLSNAP_OK : hlsnap__oci_entry_subject(load, e, a->subject, err);
}

/* Whether what was found out about one entry goes for another of the same digest: it says the same of what that is. */
static bool hlsnap__oci_about_same(const hlsnap__oci_entry *a, const hlsnap__oci_entry *b) {
    return a->size == b->size && !a->artifact == !b->artifact &&
           hlsnap__oci_entry_ours(a) == hlsnap__oci_entry_ours(b) && strcmp(a->type, b->type) == 0;
}

/* Fills all[i] once all before it are, and looks at each manifest once for each kind of entry, however many name it: seen
   remembers by its size the first of these, and by who looked the last one that did, which leads to the others. */
static hlsnap_result hlsnap__oci_about_one(hlsnap__oci_load *load, hlsnap__oci_reach *seen, hlsnap__oci_about *all,
                                           uint32_t i, hlsnap_error *err) {
    const hlsnap__oci_entry *e = &load->index.entries[i];
    hlsnap__oci_reached *row = NULL;
    uint32_t last = UINT32_MAX, at;
    hlsnap_result r = HLSNAP_OK;
    memset(&all[i], 0, sizeof(all[i]));
    if (hlsnap__sha256_text_ok(e->digest)) r = hlsnap__oci_reach_add(seen, e->digest, i + 1, 0, &row, err);
    if (r) return r;
    if (row && row->looked != HLSNAP__OCI_NOBODY) last = row->looked;
    for (at = last; at != UINT32_MAX && !hlsnap__oci_about_same(&load->index.entries[at], e);) at = all[at].looked;
    if (at != UINT32_MAX)
        all[i] = all[at];
    else
        r = hlsnap__oci_about_look(load, i, &all[i], err);
    all[i].same = all[i].on = all[i].root = row ? (uint32_t)row->size - 1 : i;
    /* what was not read is looked at again: that takes no longer than to find it here */
    if (at != UINT32_MAX || !row || !hlsnap__oci_is_document(e->type) || hlsnap__oci_size_misfits(all[i].why)) return r;
    all[i].looked = last;
    row->looked = i;
    return r;
}

/* What an entry is about: by its tag, or by its manifest; "" = nothing. */
static const char *hlsnap__oci_subject(const hlsnap__oci_entry *e, const hlsnap__oci_about *a, char tagged[72]) {
    return hlsnap__oci_tag_subject(e->tag, tagged) ? tagged : a->subject;
}

/* The same, where another entry lists it: only then is it a referrer, whose subject it does not lead to. */
static const char *hlsnap__oci_referrer(const hlsnap__oci_entry *e, const hlsnap__oci_about *a, char tagged[72]) {
    return a->on != a->same ? hlsnap__oci_subject(e, a, tagged) : "";
}

#define HLSNAP__OCI_ABOUT 8u /* steps from a signature of a signature of ... to what it is about */

/* All entries. The caller frees *out. */
static hlsnap_result hlsnap__oci_about_all(hlsnap__oci_load *load, hlsnap__oci_about **out, hlsnap_error *err) {
    hlsnap__oci_reach seen;
    const hlsnap__oci_index *index = &load->index;
    hlsnap__oci_about *all = (hlsnap__oci_about *)hlsnap__alloc((size_t)index->num + 1, sizeof(all[0]), err);
    char tagged[72];
    uint32_t i, k;
    hlsnap_result r = all ? HLSNAP_OK : HLSNAP_ERR_MEMORY;
    memset(&seen, 0, sizeof(seen));
    *out = all;
    for (i = 0; !r && i < index->num; i++) r = hlsnap__oci_about_one(load, &seen, all, i, err);
    for (i = 0; !r && i < index->num; i++) {
        const hlsnap__oci_reached *row;
        for (k = 0; k < HLSNAP__OCI_ABOUT; k++) {
            const uint32_t at = k ? all[i].root : i;
            row = hlsnap__oci_reach_find(&seen, hlsnap__oci_subject(&index->entries[at], &all[at], tagged));
            if (!row || row->size - 1 == all[i].root) break;
            all[i].root = (uint32_t)row->size - 1;
            if (!k) all[i].on = all[i].root;
        }
    }
    hlsnap__oci_reach_free(&seen);
    return r;
}

/* What the index names outside its entries. */
static hlsnap_result hlsnap__oci_reach_index(hlsnap__oci_load *load, hlsnap__oci_reach *t, uint32_t who,
                                             hlsnap_error *err) {
    const hlsnap__oci_index *index = &load->index;
    const char *at = index->doc.text, *end = at + index->doc.size;
    hlsnap__oci_finder f;
    uint32_t i;
    hlsnap_result r = HLSNAP_OK;
    t->who = who;
    t->subject = "";
    t->queued = 0;
    memset(&f, 0, sizeof(f));
    for (i = 0; i <= index->num && !r; i++) {
        const char *next = i < index->num ? index->entries[i].text.at : end;
        r = hlsnap__oci_reach_text(load, t, &f, at, (size_t)(next - at), err);
        at = i < index->num ? next + index->entries[i].text.size : end;
    }
    while (!r && t->queued) r = hlsnap__oci_reach_blob(load, t, t->queue[--t->queued], err);
    return r;
}

/* Everything that the entries lead to; those of one root count as one. */
static hlsnap_result hlsnap__oci_reach_all(hlsnap__oci_load *load, hlsnap__oci_reach *t, const hlsnap__oci_about *all,
                                           hlsnap_error *err) {
    char tagged[72];
    uint32_t i;
    hlsnap_result r = HLSNAP_OK;
    for (i = 0; i < load->index.num && !r; i++)
        r = hlsnap__oci_reach_entry(load, t, i, all[i].root,
                                    hlsnap__oci_referrer(&load->index.entries[i], &all[i], tagged), err);
    return r ? r : hlsnap__oci_reach_index(load, t, load->index.num, err);
}

/* ---- >>list ---- */

/* The digests that the index lists now; read again only when there is another one. */
static bool hlsnap__oci_listed_now(hlsnap__oci_load *load) {
    hlsnap__oci_index now;
    hlsnap__oci_reached *row;
    hlsnap_error unused;
    struct stat st;
    uint32_t i;
    bool ok;
    if (fstatat(load->root, "index.json", &st, AT_SYMLINK_NOFOLLOW) != 0) return false;
    if (load->now.num_slots && load->now_ino == (uint64_t)st.st_ino &&
        load->now_ctime == (uint64_t)st.st_ctim.tv_sec * 1000000000u + (uint64_t)st.st_ctim.tv_nsec)
        return true;
    hlsnap__oci_reach_free(&load->now);
    memset(&now, 0, sizeof(now));
    ok = !hlsnap__oci_entries_read(load->root, &now, &unused);
    ok = ok && !hlsnap__oci_reach_grow(&load->now, &unused);
    for (i = 0; ok && i < now.num; i++)
        ok = !hlsnap__oci_reach_add(&load->now, now.entries[i].digest, 0, 0, &row, &unused);
    hlsnap__oci_index_close(&now);
    load->now_ino = (uint64_t)st.st_ino;
    load->now_ctime = (uint64_t)st.st_ctim.tv_sec * 1000000000u + (uint64_t)st.st_ctim.tv_nsec;
    if (!ok) hlsnap__oci_reach_free(&load->now);
    return ok;
}

/* Whether a blob was missing, as when its tag had moved and it was collected since the index was read, and the index does not
   list the entry any more. */
static bool hlsnap__oci_unlisted(hlsnap__oci_load *load, const char *digest, hlsnap_result r, const hlsnap_error *err) {
    return hlsnap__oci_collected(load, r, err) && hlsnap__oci_listed_now(load) &&
           !hlsnap__oci_reach_find(&load->now, digest);
}

static hlsnap_result hlsnap__oci_list_run(hlsnap__oci_load *load, hlsnap_oci_visit visit, void *user,
                                          hlsnap_error *err) {
    const hlsnap__oci_index *index = &load->index;
    hlsnap__oci_about *all = (hlsnap__oci_about *)hlsnap__alloc((size_t)index->num + 1, sizeof(all[0]), err);
    hlsnap__oci_reach seen;
    uint32_t i;
    hlsnap_result r = all ? HLSNAP_OK : HLSNAP_ERR_MEMORY;
    memset(&seen, 0, sizeof(seen));
    for (i = 0; !r && i < index->num; i++) {
        const hlsnap__oci_entry *e = &index->entries[i];
        hlsnap_oci_digest digest;
        r = hlsnap__oci_about_one(load, &seen, all, i, err);
        if (r || !all[i].ours || hlsnap__oci_unlisted(load, e->digest, all[i].why, err)) continue;
        memcpy(digest.text, e->digest, sizeof(digest.text));
        if (!visit(e->tag ? e->tag : "", &digest, all[i].bytes, user)) break;
    }
    hlsnap__oci_reach_free(&seen);
    hlsnap__free(all);
    return r;
}

/* ---- >>info ---- */

/* The entry that ref means, whose manifest must be a snapshot's. */
static hlsnap_result hlsnap__oci_find_manifest(hlsnap__oci_load *load, const char *ref, uint32_t *number,
                                               hlsnap_error *err) {
    bool ours = false;
    hlsnap_result r = hlsnap__oci_index_find(&load->index, ref, number, err);
    if (!r) r = hlsnap__oci_entry_manifest(load, *number, &load->manifest_json, &load->manifest, &ours, err);
    if (r || ours) return r;
    return hlsnap__fail(err, HLSNAP_ERR_MEDIA_TYPE, 0, "index.json: '%s' is no snapshot", ref);
}

/* Who owns what. */
typedef struct hlsnap__oci_shares {
    hlsnap__oci_about *all;
    hlsnap__oci_reach reach; /* empty where somebody else's manifest cannot be read: what is shared is then not known */
} hlsnap__oci_shares;

static void hlsnap__oci_shares_free(hlsnap__oci_shares *shares) {
    hlsnap__free(shares->all);
    hlsnap__oci_reach_free(&shares->reach);
}

static hlsnap_result hlsnap__oci_shares_find(hlsnap__oci_load *load, hlsnap__oci_shares *shares, hlsnap_error *err) {
    char tagged[72];
    uint32_t i;
    hlsnap_result r;
    memset(shares, 0, sizeof(*shares));
    r = hlsnap__oci_about_all(load, &shares->all, err);
    if (r) return r;
    r = hlsnap__oci_reach_all(load, &shares->reach, shares->all, err);
    for (i = 0; !r && i < load->index.num; i++) {
        hlsnap__oci_reached *row = hlsnap__oci_reach_find(
            &shares->reach, hlsnap__oci_referrer(&load->index.entries[i], &shares->all[i], tagged));
        if (row && shares->all[i].same == i) row->referrers++;
    }
    if (!r || hlsnap_result_transient(err)) return r;
    hlsnap__oci_reach_free(&shares->reach);
    return HLSNAP_OK;
}

/* The size of a blob that only entry number `number` leads to, and those that are the same or about it; else 0. */
static uint64_t hlsnap__oci_own(const hlsnap__oci_shares *shares, uint32_t number, const char *digest, uint64_t size) {
    const hlsnap__oci_reached *row = hlsnap__oci_reach_find(&shares->reach, digest);
    return row && row->entry == shares->all[number].root ? size : 0;
}

/* What was found out about a config, whatever manifest names it: it may be a large one, and many may. */
typedef struct hlsnap__oci_seen {
    uint64_t layers; /* mixed of what it says of its layers; a manifest must say the same */
    uint64_t pages, stored;
    uint32_t num_layers;
    hlsnap_result r; /* with such a manifest */
    bool read, tried;
} hlsnap__oci_seen;

typedef struct hlsnap__oci_configs {
    hlsnap__oci_reach table;
    hlsnap__oci_seen *rows; /* one for each of the table's */
} hlsnap__oci_configs;

static hlsnap_result hlsnap__oci_configs_start(hlsnap__oci_configs *configs, uint32_t num, hlsnap_error *err) {
    memset(configs, 0, sizeof(*configs));
    configs->rows = (hlsnap__oci_seen *)hlsnap__alloc((size_t)num + 1, sizeof(configs->rows[0]), err);
    return configs->rows ? HLSNAP_OK : HLSNAP_ERR_MEMORY;
}

static void hlsnap__oci_configs_free(hlsnap__oci_configs *configs) {
    hlsnap__free(configs->rows);
    hlsnap__oci_reach_free(&configs->table);
}

static uint64_t hlsnap__oci_layers_mix(uint64_t key, const hlsnap__oci_manifest *m) {
    uint32_t i;
    for (i = 0; i < m->num_layers; i++) {
        const uint64_t pages = m->memory[i].size / HLSNAP__PAGE;
        key = hlsnap__mix(hlsnap__mix(key, &pages, sizeof(pages)), m->chunks[i].digest, 71);
    }
    return key;
}

/* The same of what a config says; *ok: it does. */
static uint64_t hlsnap__oci_config_mix(uint64_t key, const cJSON *config, bool *ok) {
    const cJSON *all = hlsnap__json_get(config, "layers"), *o;
    *ok = cJSON_IsArray(all);
    for (o = *ok ? all->child : NULL; o && *ok; o = o->next) {
        const cJSON *chunks = hlsnap__json_get(o, "chunks"), *n = hlsnap__json_get(o, "pages");
        uint64_t pages = 0;
        *ok = cJSON_IsString(chunks) && hlsnap__sha256_text_ok(chunks->valuestring) && cJSON_IsNumber(n) &&
              n->valuedouble >= 0 && n->valuedouble <= (double)HLSNAP__MAX_PAGES;
        if (!*ok) break;
        pages = (uint64_t)n->valuedouble;
        key = hlsnap__mix(hlsnap__mix(key, &pages, sizeof(pages)), chunks->valuestring, 71);
    }
    return key;
}

/* Reads the config of the manifest at hand, as far as that has not been done. */
static hlsnap_result hlsnap__oci_config_seen(hlsnap__oci_load *load, hlsnap__oci_configs *configs,
                                             const hlsnap__oci_seen **out, hlsnap_error *err) {
    const hlsnap__oci_manifest *m = &load->manifest;
    const hlsnap__oci_config *c = &load->config;
    hlsnap__oci_reached *row;
    hlsnap__oci_seen *seen;
    uint64_t layers;
    uint32_t i;
    bool ok = false;
    hlsnap_result r = hlsnap__oci_reach_add(&configs->table, m->config.digest, 0, 0, &row, err);
    if (r) return r;
    seen = &configs->rows[row - configs->table.rows];
    layers = hlsnap__oci_layers_mix(configs->table.key, m);
    *out = seen;
    if (seen->read && seen->layers != layers)
        return hlsnap__fail(err, HLSNAP_ERR_CONFIG, 0, "config %.20s..: layers: not those of the manifest",
                            m->config.digest);
    if (seen->tried && seen->r)
        return hlsnap__fail(err, seen->r, 0, "config %.20s..: as with another manifest: %s", m->config.digest,
                            hlsnap_result_name(seen->r));
    if (seen->tried) return HLSNAP_OK;
    r = hlsnap__oci_json_blob(load, &m->config, "config", HLSNAP_ERR_CONFIG, &load->config_json, err);
    if (r == HLSNAP_ERR_SIZE || r == HLSNAP_ERR_MEMORY || r == HLSNAP_ERR_OS || r == HLSNAP_ERR_FILE) return r;
    if (!r) r = hlsnap__oci_config_read(&load->config_json, m, true, &load->config, err);
    if (r == HLSNAP_ERR_MEMORY) return r;
    seen->layers =
        r && load->config_json.root ? hlsnap__oci_config_mix(configs->table.key, load->config_json.root, &ok) : layers;
    if (r && !ok) seen->layers = layers;
    seen->read = true;
    seen->tried = seen->layers == layers;
    seen->r = r;
    if (r) return r;
    for (i = 0; i < c->guest->layout.num_regions; i++) seen->pages += c->guest->layout.regions[i].pages;
    for (i = 0; i < c->num_extents; i++) seen->stored += c->extents[i].pages;
    seen->num_layers = c->num_layers;
    return HLSNAP_OK;
}

static const char *hlsnap__oci_manifest_created(const cJSON *root) {
    const cJSON *created = hlsnap__json_get(hlsnap__json_get(root, "annotations"), HLSNAP__OCI_CREATED);
    return cJSON_IsString(created) ? created->valuestring : NULL;
}

/* Fills out from the manifest at hand, which is entry number `number`'s, and its config. */
static hlsnap_result hlsnap__oci_info_fill(hlsnap__oci_load *load, const hlsnap__oci_shares *shares,
                                           hlsnap__oci_configs *configs, uint32_t number, hlsnap_oci_info *out,
                                           hlsnap_error *err) {
    const hlsnap__oci_entry *e = &load->index.entries[number];
    const hlsnap__oci_manifest *m = &load->manifest;
    const hlsnap__oci_reached *row = hlsnap__oci_reach_find(&shares->reach, e->digest);
    const hlsnap__oci_seen *seen;
    uint32_t i;
    hlsnap_result r = hlsnap__oci_config_seen(load, configs, &seen, err);
    if (r) return r;
    out->bytes = hlsnap__oci_manifest_bytes(m, e->size);
    out->own_bytes = hlsnap__oci_own(shares, number, e->digest, e->size) +
                     hlsnap__oci_own(shares, number, m->config.digest, m->config.size);
    for (i = 0; i < m->num_layers; i++)
        out->own_bytes += hlsnap__oci_own(shares, number, m->memory[i].digest, m->memory[i].size) +
                          hlsnap__oci_own(shares, number, m->chunks[i].digest, m->chunks[i].size);
    out->pages = seen->pages;
    out->stored_pages = seen->stored;
    out->layers = seen->num_layers;
    out->created = hlsnap__oci_created(hlsnap__oci_manifest_created(load->manifest_json.root));
    out->referrers = row ? row->referrers : 0;
    out->pinned = row && row->entry == HLSNAP__OCI_MANY;
    return HLSNAP_OK;
}

static hlsnap_result hlsnap__oci_info_run(hlsnap__oci_load *load, const char *ref, hlsnap_oci_info *out,
                                          hlsnap_error *err) {
    hlsnap__oci_shares shares;
    hlsnap__oci_configs configs;
    uint32_t number = 0;
    bool ours = false;
    hlsnap_result r = hlsnap__oci_find_manifest(load, ref, &number, err);
    memset(&shares, 0, sizeof(shares));
    memset(&configs, 0, sizeof(configs));
    memset(out, 0, sizeof(*out));
    hlsnap__oci_config_clear(load);
    if (!r) memcpy(out->digest.text, load->index.entries[number].digest, sizeof(out->digest.text));
    if (!r) r = hlsnap__oci_configs_start(&configs, 1, err);
    if (!r) r = hlsnap__oci_shares_find(load, &shares, err);
    if (!r) r = hlsnap__oci_entry_manifest(load, number, &load->manifest_json, &load->manifest, &ours, err);
    if (!r) r = hlsnap__oci_info_fill(load, &shares, &configs, number, out, err);
    if (!r && hlsnap__oci_created(load->index.entries[number].created))
        out->created = hlsnap__oci_created(load->index.entries[number].created);
    hlsnap__oci_configs_free(&configs);
    hlsnap__oci_shares_free(&shares);
    return r;
}

/* What was found out about a manifest, however many entries name it. */
typedef struct hlsnap__oci_looked {
    hlsnap_oci_info info;
    hlsnap_result found;
    uint64_t size; /* that its entry says */
    bool done, ours;
    bool misfits; /* the entry, not the manifest or its config */
} hlsnap__oci_looked;

static hlsnap_result hlsnap__oci_info_look(hlsnap__oci_load *load, const hlsnap__oci_shares *shares,
                                           hlsnap__oci_configs *configs, uint32_t number, hlsnap__oci_looked *out,
                                           hlsnap_error *err) {
    const hlsnap__oci_entry *e = &load->index.entries[number];
    memset(out, 0, sizeof(*out));
    out->done = true;
    out->size = e->size;
    memcpy(out->info.digest.text, e->digest, sizeof(out->info.digest.text));
    out->found = hlsnap__oci_entry_manifest(load, number, &load->manifest_json, &load->manifest, &out->ours, err);
    out->misfits = hlsnap__oci_size_misfits(out->found);
    if (!out->found && out->ours) out->found = hlsnap__oci_info_fill(load, shares, configs, number, &out->info, err);
    out->ours = shares->all[number].ours && !hlsnap__oci_unlisted(load, e->digest, out->found, err);
    hlsnap__oci_config_clear(load);
    return out->found == HLSNAP_ERR_MEMORY ? out->found : HLSNAP_OK;
}

static hlsnap_result hlsnap__oci_list_info_all(hlsnap__oci_load *load, const hlsnap__oci_shares *shares,
                                               hlsnap__oci_configs *configs, hlsnap_oci_visit_info visit, void *user,
                                               hlsnap_error *err) {
    const hlsnap__oci_index *index = &load->index;
    hlsnap__oci_looked *looked = (hlsnap__oci_looked *)hlsnap__alloc((size_t)index->num + 1, sizeof(*looked), err);
    bool more = true;
    uint32_t i;
    hlsnap_result r = looked ? HLSNAP_OK : HLSNAP_ERR_MEMORY;
    for (i = 0; i < index->num && more && !r; i++) {
        const hlsnap__oci_entry *e = &index->entries[i];
        hlsnap__oci_looked now, *first = &looked[shares->all[i].same];
        if (!shares->all[i].ours) continue;
        if (!first->done || first->size != e->size) {
            r = hlsnap__oci_info_look(load, shares, configs, i, &now, err);
            if (!now.misfits) *first = now;
        } else
            now = *first;
        if (!now.found && hlsnap__oci_created(e->created)) now.info.created = hlsnap__oci_created(e->created);
        if (!r && now.ours) more = visit(e->tag ? e->tag : "", now.found, &now.info, user);
    }
    hlsnap__free(looked);
    return r;
}

static hlsnap_result hlsnap__oci_list_info_run(hlsnap__oci_load *load, hlsnap_oci_visit_info visit, void *user,
                                               hlsnap_error *err) {
    hlsnap__oci_shares shares;
    hlsnap__oci_configs configs;
    hlsnap_result r = hlsnap__oci_configs_start(&configs, load->index.num, err);
    memset(&shares, 0, sizeof(shares));
    if (!r) r = hlsnap__oci_shares_find(load, &shares, err);
    if (!r) r = hlsnap__oci_list_info_all(load, &shares, &configs, visit, user, err);
    hlsnap__oci_configs_free(&configs);
    hlsnap__oci_shares_free(&shares);
    return r;
}

/* An entry's annotations, then its manifest's. */
static hlsnap_result hlsnap__oci_annotations_run(hlsnap__oci_load *load, const char *ref, hlsnap_oci_visit_text visit,
                                                 void *user, hlsnap_error *err) {
    const cJSON *of[2], *c, *all;
    cJSON *entry;
    uint32_t number = 0, i;
    bool more = true;
    hlsnap_result r = hlsnap__oci_find_manifest(load, ref, &number, err);
    if (r) return r;
    of[0] = entry = cJSON_ParseWithLength(load->index.entries[number].text.at, load->index.entries[number].text.size);
    of[1] = load->manifest_json.root;
    if (!entry) return hlsnap__fail(err, HLSNAP_ERR_MEMORY, 0, "index.json: cJSON: out of memory");
    for (i = 0; i < 2; i++) {
        all = hlsnap__json_get(of[i], "annotations");
        for (c = all ? all->child : NULL; c && more; c = c->next)
            if (cJSON_IsString(c)) more = visit(c->string, c->valuestring, user);
    }
    cJSON_Delete(entry);
    return HLSNAP_OK;
}

static hlsnap_result hlsnap__oci_layers_run(hlsnap__oci_load *load, const char *ref, hlsnap_oci_visit_layer visit,
                                            void *user, hlsnap_error *err) {
    const hlsnap__oci_manifest *m = &load->manifest;
    uint32_t number = 0, i;
    hlsnap_result r = hlsnap__oci_find_manifest(load, ref, &number, err);
    for (i = 0; !r && i < m->num_layers; i++) {
        hlsnap_oci_layer layer;
        memcpy(layer.memory.text, m->memory[i].digest, sizeof(layer.memory.text));
        memcpy(layer.chunks.text, m->chunks[i].digest, sizeof(layer.chunks.text));
        layer.pages = m->memory[i].size / HLSNAP__PAGE;
        if (!visit(&layer, user)) break;
    }
    return r;
}

/* ---- >>holders: what keeps a snapshot in a layout ---- */

static hlsnap_result hlsnap__oci_holders_run(hlsnap__oci_load *load, const char *ref, hlsnap_oci_visit_holder visit,
                                             void *user, hlsnap_error *err) {
    const hlsnap__oci_index *index = &load->index;
    hlsnap__oci_about *all = NULL;
    hlsnap__oci_reach reach;
    char digest[72], tagged[72];
    uint32_t number = 0, i;
    hlsnap_result r = hlsnap__oci_index_find(index, ref, &number, err);
    if (r) return r;
    memset(&reach, 0, sizeof(reach));
    hlsnap__format(digest, sizeof(digest), "%s", index->entries[number].digest);
    r = hlsnap__oci_about_all(load, &all, err);
    for (i = 0; i < index->num && !r; i++) {
        const hlsnap__oci_entry *e = &index->entries[i];
        const char *subject = hlsnap__oci_referrer(e, &all[i], tagged);
        hlsnap_oci_holder h;
        memset(&h, 0, sizeof(h));
        h.ref_name = e->tag ? e->tag : "";
        h.digest = e->digest;
        if (strcmp(e->digest, digest) == 0) {
            if (e->tag && !visit(&h, user)) break;
            continue;
        }
        reach.watch = digest;
        r = hlsnap__oci_reach_entry(load, &reach, i, i, subject, err);
        h.kind = strcmp(subject, digest) == 0 ? HLSNAP_OCI_HELD_ABOUT : HLSNAP_OCI_HELD_BY;
        if (!r && (reach.seen || h.kind == HLSNAP_OCI_HELD_ABOUT) && !visit(&h, user)) break;
    }
    hlsnap__oci_reach_free(&reach);
    hlsnap__free(all);
    return r;
}

/* ---- >>gc ---- */

/* What is removed, and what cannot be: all else is done first. */
typedef struct hlsnap__oci_sweep {
    int64_t before; /* as for hlsnap__oci_old */
    uint64_t freed;
    uint32_t stuck; /* files that cannot be removed */
    hlsnap_error first;
} hlsnap__oci_sweep;

typedef struct hlsnap__oci_gc {
    hlsnap_oci_desc desc;
    hlsnap__oci_store store;
    hlsnap__oci_load *load;
    hlsnap__oci_reach reach;
    hlsnap__oci_about *about;
    hlsnap__text text;
    uint8_t *drop; /* one byte an entry: hlsnap__oci_may */
    uint32_t dropped;
    int64_t before; /* seconds since 1970: what is younger stays */
    hlsnap__oci_sweep sweep;
} hlsnap__oci_gc;

typedef enum hlsnap__oci_may {
    HLSNAP__OCI_STAYS,
    HLSNAP__OCI_GOES,        /* unless something that stays leads to it */
    HLSNAP__OCI_GOES_WITH_IT /* a referrer: with what it is about */
} hlsnap__oci_may;

/* Whether a file was neither written nor named after `before`. As long ahead of now as `before` lies back no clock was right:
   such a time is no reason to keep a file. INT64_MAX: all are old. */
static bool hlsnap__oci_old(const struct stat *st, int64_t before) {
    const int64_t m = (int64_t)st->st_mtim.tv_sec, c = (int64_t)st->st_ctim.tv_sec;
    struct timespec now = {0, 0};
    int64_t ahead;
    if (before == INT64_MAX) return true;
    clock_gettime(CLOCK_REALTIME, &now);
    ahead = 2 * (int64_t)now.tv_sec - before;
    return (m <= before || m > ahead) && (c <= before || c > ahead);
}

/* Whether the manifest of an entry is old, or gone. */
static hlsnap_result hlsnap__oci_gc_old(const hlsnap__oci_gc *gc, const hlsnap__oci_entry *e, bool *old,
                                        hlsnap_error *err) {
    struct stat st;
    *old = false;
    if (!hlsnap__sha256_text_ok(e->digest)) return HLSNAP_OK;
    if (fstatat(gc->store.sha256, e->digest + 7, &st, AT_SYMLINK_NOFOLLOW) == 0)
        *old = hlsnap__oci_old(&st, gc->before);
    else if (errno == ENOENT)
        *old = true;
    else
        return hlsnap__oci_os(err, errno, "stat", "a manifest");
    return HLSNAP_OK;
}

/* What a tag names must be there: what a missing manifest would lead to may be here all the same. */
static hlsnap_result hlsnap__oci_gc_tagged(const hlsnap__oci_gc *gc, const hlsnap__oci_entry *e, hlsnap_error *err) {
    struct stat st;
    if (!hlsnap__oci_is_document(e->type) || !hlsnap__sha256_text_ok(e->digest) ||
        fstatat(gc->store.sha256, e->digest + 7, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return HLSNAP_OK;
    return hlsnap__oci_os(err, errno, "stat", e->digest);
}

/* Sorts the entries: snapshots without a tag may go when they are old, and what is about something else, without a tag of a
   user's, may go with it. Those of others stay, whatever they are. */
static hlsnap_result hlsnap__oci_gc_sort(hlsnap__oci_gc *gc, hlsnap_error *err) {
    const hlsnap__oci_index *index = &gc->load->index;
    uint32_t i;
    hlsnap_result r = hlsnap__oci_about_all(gc->load, &gc->about, err);
    if (r) return r;
    gc->drop = (uint8_t *)hlsnap__alloc(1, (size_t)index->num + 1, err);
    if (!gc->drop) return HLSNAP_ERR_MEMORY;
    for (i = 0; i < index->num && !r; i++) {
        const hlsnap__oci_entry *e = &index->entries[i];
        const hlsnap__oci_about *a = &gc->about[i];
        char tagged[72];
        const bool signature = hlsnap__oci_tag_subject(e->tag, tagged);
        bool old;
        if (e->tag) r = hlsnap__oci_gc_tagged(gc, e, err);
        if (!r) r = hlsnap__oci_gc_old(gc, e, &old, err);
        if (r || !old || (e->tag && (!signature || a->ours))) continue;
        if (a->on != a->same)
            gc->drop[i] = HLSNAP__OCI_GOES_WITH_IT;
        else if (!e->tag && (a->bytes || (a->why && hlsnap__oci_entry_ours(e)))) /* what is unsound may be another's */
            gc->drop[i] = HLSNAP__OCI_GOES;
    }
    for (i = 0; i < index->num && !r;
         i++) /* with nothing that goes by itself at its end (a circle, a long chain) it stays */
        if (gc->drop[i] == HLSNAP__OCI_GOES_WITH_IT && gc->drop[gc->about[i].root] != HLSNAP__OCI_GOES)
            gc->drop[i] = HLSNAP__OCI_STAYS;
    return r;
}

/* Keeps entry i, and what it leads to. */
static hlsnap_result hlsnap__oci_gc_keep(hlsnap__oci_gc *gc, uint32_t i, uint8_t *stays, hlsnap_error *err) {
    const hlsnap__oci_about *a = &gc->about[i];
    char tagged[72];
    gc->drop[i] = HLSNAP__OCI_STAYS;
    stays[a->same] = 1;
    return hlsnap__oci_reach_entry(gc->load, &gc->reach, i, i,
                                   hlsnap__oci_referrer(&gc->load->index.entries[i], a, tagged), err);
}

/* Whether an entry that could go must stay: what stays leads to it, or it is about something that stays. */
static bool hlsnap__oci_gc_held(const hlsnap__oci_gc *gc, uint32_t i, const uint8_t *stays) {
    const hlsnap__oci_about *a = &gc->about[i];
    return stays[a->same] || (gc->drop[i] == HLSNAP__OCI_GOES_WITH_IT && stays[a->on]) ||
           hlsnap__oci_reach_find(&gc->reach, gc->load->index.entries[i].digest);
}

/* Chooses the entries that go; stays: one byte for each, of the first one of a digest. */
static hlsnap_result hlsnap__oci_gc_choose(hlsnap__oci_gc *gc, uint8_t *stays, hlsnap_error *err) {
    const hlsnap__oci_index *index = &gc->load->index;
    char tagged[72];
    uint32_t i;
    bool more = true;
    hlsnap_result r = HLSNAP_OK;
    r = hlsnap__oci_reach_index(gc->load, &gc->reach, index->num, err);
    for (i = 0; i < index->num && !r; i++) {
        const hlsnap__oci_entry *e = &index->entries[i];
        if (gc->drop[i]) continue;
        r = hlsnap__oci_gc_keep(gc, i, stays, err);
        if (!e->tag || (hlsnap__oci_tag_subject(e->tag, tagged) && !gc->about[i].ours))
            stays[gc->about[i].on] = 1; /* for as long as it is young */
    }
    while (more && !r) {
        more = false;
        for (i = 0; i < index->num && !r; i++) {
            if (!gc->drop[i] || !hlsnap__oci_gc_held(gc, i, stays)) continue;
            r = hlsnap__oci_gc_keep(gc, i, stays, err);
            more = true;
        }
    }
    for (i = 0; i < index->num; i++) gc->dropped += gc->drop[i] != HLSNAP__OCI_STAYS;
    return r;
}

/* Replaces index.json; the rename is what counts. Under the index lock. */
static hlsnap_result hlsnap__oci_index_replace(hlsnap__oci_store *store, hlsnap__text *text,
                                               const hlsnap__oci_index *index, const hlsnap__oci_edit *edit,
                                               hlsnap_error *err) {
    hlsnap__oci_blob b;
    hlsnap_result r = hlsnap__oci_index_make(text, index, edit, err);
    hlsnap__oci_blob_none(&b);
    if (!r) r = hlsnap__oci_root_write(store, &b, "index.json", text->at, text->size, err);
    if (!r) r = hlsnap__oci_root_name(store, &b, "index.json", err);
    hlsnap__oci_blob_close(store, &b, false);
    if (r) return r;
    hlsnap__oci_index_noted(store);
    return hlsnap__oci_fsync(store->root, "the layout", err);
}

/* Brings the index as it is to the disk: another tool may have written it, and may not have done that. */
static hlsnap_result hlsnap__oci_index_sync(const hlsnap__oci_store *store, hlsnap_error *err) {
    uint64_t size;
    int fd;
    hlsnap_result r = hlsnap__oci_open(store->root, "index.json", &fd, &size, err);
    if (r) return r;
    r = hlsnap__oci_fsync(fd, "index.json", err);
    close(fd);
    return r ? r : hlsnap__oci_fsync(store->root, "the layout", err);
}

static bool hlsnap__oci_blob_file(const char *name) {
    return strlen(name) == 64 && strspn(name, "0123456789abcdef") == 64;
}

/* Removes a regular file that is old. */
static void hlsnap__oci_remove_old(hlsnap__oci_sweep *sweep, int at, const char *name) {
    struct stat st;
    const char *what = "stat";
    bool ok = fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
    if (ok && (!S_ISREG(st.st_mode) || !hlsnap__oci_old(&st, sweep->before))) return;
    if (ok) {
        what = "unlink";
        ok = unlinkat(at, name, 0) == 0;
        if (ok) sweep->freed += (uint64_t)st.st_size;
    }
    if (!ok && errno != ENOENT && !sweep->stuck++) hlsnap__oci_os(&sweep->first, errno, what, name);
}

static hlsnap_result hlsnap__oci_sweep_end(const hlsnap__oci_sweep *sweep, hlsnap_error *err) {
    if (!sweep->stuck) return HLSNAP_OK;
    return hlsnap__fail(err, sweep->first.code, sweep->first.os_errno,
                        "%.300s; files that could not be removed: %u; all else was done", sweep->first.msg,
                        sweep->stuck);
}

/* Blobs that nothing leads to. Links and other things that are no blobs stay: nobody here made them. */
static hlsnap_result hlsnap__oci_gc_blobs(hlsnap__oci_gc *gc, hlsnap_error *err) {
    hlsnap_result r;
    const char *name;
    DIR *d = hlsnap__oci_dir_open(gc->store.sha256, err, &r);
    while (!r && (name = hlsnap__oci_dir_next(d, err, &r)) != NULL) {
        char digest[72];
        if (!hlsnap__oci_blob_file(name)) continue;
        hlsnap__format(digest, sizeof(digest), "sha256:%s", name);
        if (hlsnap__oci_reach_find(&gc->reach, digest)) continue;
        hlsnap__oci_remove_old(&gc->sweep, gc->store.sha256, name);
    }
    if (d) closedir(d);
    return r ? r : hlsnap__oci_fsync(gc->store.sha256, "blobs/sha256", err);
}

static bool hlsnap__oci_temp_file(const char *name) {
    const size_t n = strlen(name);
    return n > 12 && memcmp(name, ".hlsnap-", 8) == 0 && strcmp(name + n - 4, ".tmp") == 0;
}

/* What killed savers left: nobody saves while the gc lock is held alone. */
static hlsnap_result hlsnap__oci_gc_temps(hlsnap__oci_sweep *sweep, int at, hlsnap_error *err) {
    hlsnap_result r;
    const char *name;
    DIR *d = hlsnap__oci_dir_open(at, err, &r);
    while (!r && (name = hlsnap__oci_dir_next(d, err, &r)) != NULL)
        if (hlsnap__oci_temp_file(name)) hlsnap__oci_remove_old(sweep, at, name);
    if (d) closedir(d);
    return r;
}

static hlsnap_result hlsnap__oci_leftovers(hlsnap__oci_sweep *sweep, int root, hlsnap_error *err) {
    hlsnap_result r = hlsnap__oci_gc_temps(sweep, root, err);
    int fd;
    if (r) return r;
    fd = openat(root, HLSNAP__OCI_TEMP, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) return hlsnap__oci_sweep_end(sweep, err);
    if (fd < 0) return hlsnap__oci_os(err, errno, "open", HLSNAP__OCI_TEMP);
    r = hlsnap__oci_gc_temps(sweep, fd, err);
    close(fd);
    if (!r) unlinkat(root, HLSNAP__OCI_TEMP, AT_REMOVEDIR); /* once it is empty */
    return r ? r : hlsnap__oci_sweep_end(sweep, err);
}

/* Under both locks. The index goes first: what is killed in between leaves blobs that nothing leads to, never the reverse. */
static hlsnap_result hlsnap__oci_gc_locked(hlsnap__oci_gc *gc, hlsnap_error *err) {
    hlsnap__oci_edit edit = {NULL, NULL, 0, NULL, 0};
    hlsnap_result r = hlsnap__oci_entries_read(gc->store.root, &gc->load->index, err);
    uint8_t *stays = r ? NULL : (uint8_t *)hlsnap__alloc(1, (size_t)gc->load->index.num + 1, err);
    if (!r && !stays) r = HLSNAP_ERR_MEMORY;
    if (!r) hlsnap__oci_index_noted(&gc->store); /* the lock file may be new */
    if (!r) r = hlsnap__oci_gc_sort(gc, err);
    if (!r) r = hlsnap__oci_gc_choose(gc, stays, err);
    hlsnap__free(stays);
    edit.drop = gc->drop;
    if (!r && gc->dropped)
        r = hlsnap__oci_index_replace(&gc->store, &gc->text, &gc->load->index, &edit, err);
    else if (!r)
        r = hlsnap__oci_index_sync(&gc->store, err);
    gc->sweep.before = gc->before;
    if (!r) r = hlsnap__oci_gc_blobs(gc, err);
    return r ? r : hlsnap__oci_leftovers(&gc->sweep, gc->store.root, err);
}

static hlsnap_result hlsnap__oci_gc_run(const char *dir, hlsnap__oci_gc *gc, hlsnap_error *err) {
    hlsnap_result r = hlsnap__oci_store_open(dir, &gc->store, &gc->desc, F_WRLCK, false, err);
    if (!r) r = hlsnap__oci_lock(&gc->store, HLSNAP__OCI_LOCK_INDEX, F_WRLCK, err);
    gc->load = r ? NULL : hlsnap__oci_load_new(err);
    if (!r && !gc->load) r = HLSNAP_ERR_MEMORY;
    if (!r) {
        gc->load->root = gc->store.root;
        r = hlsnap__oci_gc_locked(gc, err);
        gc->load->root = -1;
    }
    hlsnap__oci_store_close(dir, &gc->store, false);
    hlsnap__oci_load_free(gc->load);
    hlsnap__oci_reach_free(&gc->reach);
    hlsnap__free(gc->text.at);
    hlsnap__free(gc->drop);
    hlsnap__free(gc->about);
    return r;
}

/* ---- >>tags ---- */

static int hlsnap__oci_tag_order(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Entries of one digest side by side, one without a tag first, else as the index has them. */
static int hlsnap__oci_digest_order(const void *a, const void *b) {
    const hlsnap__oci_entry *x = *(const hlsnap__oci_entry *const *)a, *y = *(const hlsnap__oci_entry *const *)b;
    const int order = strcmp(x->digest, y->digest);
    if (order || (!x->tag != !y->tag)) return order ? order : !x->tag ? -1 : 1;
    return x < y ? -1 : x > y;
}

typedef enum hlsnap__oci_named {
    HLSNAP__OCI_UNLISTED,
    HLSNAP__OCI_TAGLESS, /* a digest that is listed, without a tag */
    HLSNAP__OCI_OTHERS,  /* tags of something else than a snapshot only */
    HLSNAP__OCI_OURS     /* of one's entries one is a snapshot's, or was */
} hlsnap__oci_named;

/* Tags that go, all at once: what the index lists is looked at a fixed number of times, however many they are. */
typedef struct hlsnap__oci_untag {
    bool exact;         /* they are all tags, whatever they look like; else what looks like a digest is one */
    const char **names; /* tags and digests that are to go, ascending, each once */
    uint8_t *named;     /* hlsnap__oci_named of each */
    uint32_t num_names;
    const hlsnap__oci_entry **entries; /* those whose tag goes, and those without one, by hlsnap__oci_digest_order */
    uint32_t num_entries;
    uint8_t *drop;                 /* as in hlsnap__oci_edit */
    const hlsnap__oci_entry *seen; /* whose manifest was looked at last */
    hlsnap__oci_named seen_as[3];  /* by what its entry says: hlsnap__oci_untag_look */
} hlsnap__oci_untag;

static void hlsnap__oci_untag_free(hlsnap__oci_untag *u) {
    hlsnap__free(u->names);
    hlsnap__free(u->named);
    hlsnap__free(u->entries);
    hlsnap__free(u->drop);
}

/* Where a text stands among the names, or NULL. */
static uint8_t *hlsnap__oci_untag_named(const hlsnap__oci_untag *u, const char *text) {
    const char **at = (const char **)(bsearch)(&text, u->names, u->num_names, sizeof(text), hlsnap__oci_tag_order);
    return at ? &u->named[at - u->names] : NULL;
}

/* The name by which all tags of an entry's digest are meant. */
static uint8_t *hlsnap__oci_untag_by_digest(const hlsnap__oci_untag *u, const hlsnap__oci_entry *e) {
    return !u->exact && hlsnap__sha256_text_ok(e->digest) ? hlsnap__oci_untag_named(u, e->digest) : NULL;
}

/* The name by which its tag is meant. Other tools let a tag look like a digest, also like that of another snapshot. */
static uint8_t *hlsnap__oci_untag_by_tag(const hlsnap__oci_untag *u, const hlsnap__oci_entry *e) {
    return e->tag && (u->exact || !hlsnap__sha256_text_ok(e->tag)) ? hlsnap__oci_untag_named(u, e->tag) : NULL;
}

/* Takes down the names, and what they mean. */
static hlsnap_result hlsnap__oci_untag_find(hlsnap__oci_untag *u, const hlsnap__oci_index *index,
                                            const char *const *tags, uint32_t num, hlsnap_error *err) {
    uint32_t i;
    u->names = (const char **)hlsnap__alloc((size_t)num + 1, sizeof(u->names[0]), err);
    u->named = u->names ? (uint8_t *)hlsnap__alloc((size_t)num + 1, 1, err) : NULL;
    u->entries =
        u->named ? (const hlsnap__oci_entry **)hlsnap__alloc((size_t)index->num + 1, sizeof(u->entries[0]), err) : NULL;
    u->drop = u->entries ? (uint8_t *)hlsnap__alloc((size_t)index->num + 1, 1, err) : NULL;
    if (!u->drop) return HLSNAP_ERR_MEMORY;
    for (i = 0; i < num; i++) u->names[i] = tags[i];
    qsort(u->names, num, sizeof(u->names[0]), hlsnap__oci_tag_order);
    for (i = 0; i < num; i++)
        if (!i || strcmp(u->names[i], u->names[u->num_names - 1]) != 0) u->names[u->num_names++] = u->names[i];
    for (i = 0; i < index->num; i++) {
        const hlsnap__oci_entry *e = &index->entries[i];
        uint8_t *digest = hlsnap__oci_untag_by_digest(u, e);
        if (!e->tag && digest && !*digest) *digest = HLSNAP__OCI_TAGLESS;
        if (e->tag && (digest || hlsnap__oci_untag_by_tag(u, e))) u->drop[i] = HLSNAP__OCI_TAG_GOES;
        if (!e->tag || u->drop[i]) u->entries[u->num_entries++] = e;
    }
    qsort(u->entries, u->num_entries, sizeof(u->entries[0]), hlsnap__oci_digest_order);
    return HLSNAP_OK;
}

/* Whether an entry is a snapshot's, or was. What cannot be looked at just now may be another's, and ends it. A manifest is read
   once for each thing that its entries say it is, however many they are; those of another size are not read. */
static hlsnap_result hlsnap__oci_untag_look(hlsnap__oci_untag *u, hlsnap__oci_load *load, const hlsnap__oci_entry *e,
                                            hlsnap__oci_named *as, hlsnap_error *err) {
    const uint32_t number = (uint32_t)(e - load->index.entries);
    const uint32_t says = hlsnap__oci_entry_ours(e) ? 0 : e->artifact ? 1 : 2;
    bool ours = false;
    hlsnap_result r;
    *as = HLSNAP__OCI_OTHERS;
    if (!hlsnap__oci_entry_fits(e)) return HLSNAP_OK;
    if (u->seen && strcmp(u->seen->digest, e->digest) != 0) u->seen = NULL;
    if (u->seen && u->seen->size == e->size && u->seen_as[says]) return *as = u->seen_as[says], HLSNAP_OK;
    r = hlsnap__oci_entry_manifest(load, number, &load->manifest_json, &load->manifest, &ours, err);
    hlsnap__json_close(&load->manifest_json);
    if (r == HLSNAP_ERR_MEMORY || (r == HLSNAP_ERR_OS && err->os_errno != EACCES) ||
        (r && hlsnap_result_transient(err)))
        return r;
    if (ours || (r && says != 1)) *as = HLSNAP__OCI_OURS;
    if (hlsnap__oci_size_misfits(r)) return HLSNAP_OK;
    if (!u->seen || u->seen->size != e->size) memset(u->seen_as, 0, sizeof(u->seen_as));
    u->seen = e;
    u->seen_as[says] = *as;
    return HLSNAP_OK;
}

/* Whether each of the names may go: of its entries, when it is listed several times, one is a snapshot's, or was. */
static hlsnap_result hlsnap__oci_untag_check(hlsnap__oci_untag *u, hlsnap__oci_load *load, const char *const *tags,
                                             uint32_t num, hlsnap_error *err) {
    uint32_t i;
    for (i = 0; i < u->num_entries; i++) {
        const hlsnap__oci_entry *e = u->entries[i];
        uint8_t *tag = hlsnap__oci_untag_by_tag(u, e), *digest = hlsnap__oci_untag_by_digest(u, e);
        hlsnap__oci_named as;
        hlsnap_result r;
        if (!e->tag || ((!tag || *tag == HLSNAP__OCI_OURS) && (!digest || *digest == HLSNAP__OCI_OURS))) continue;
        r = hlsnap__oci_untag_look(u, load, e, &as, err);
        if (r) return r;
        if (tag && *tag != HLSNAP__OCI_OURS) *tag = (uint8_t)as;
        if (digest && *digest != HLSNAP__OCI_OURS) *digest = (uint8_t)as;
    }
    for (i = 0; i < num; i++) {
        const uint8_t named = *hlsnap__oci_untag_named(u, tags[i]);
        const bool digest = !u->exact && hlsnap__sha256_text_ok(tags[i]);
        char shown[200];
        if (named == HLSNAP__OCI_OURS) continue;
        if (named == HLSNAP__OCI_UNLISTED) return hlsnap__oci_not_found(tags[i], digest ? "digest" : "tag", err);
        hlsnap__printable(shown, sizeof(shown), tags[i], strlen(tags[i]), false);
        if (named == HLSNAP__OCI_TAGLESS)
            return hlsnap__fail(err, HLSNAP_ERR_NOT_FOUND, 0, "index.json: '%s' has no tag", shown);
        return hlsnap__fail(err, HLSNAP_ERR_MEDIA_TYPE, 0, "index.json: '%s' is no snapshot", shown);
    }
    return HLSNAP_OK;
}

/* Takes tags away, all of them or none. An entry that loses its tag stays, unless one of its digest without a tag is there. */
static hlsnap_result hlsnap__oci_untag_locked(hlsnap__oci_store *store, hlsnap__oci_load *load, const char *const *tags,
                                              uint32_t num, bool exact, hlsnap_error *err) {
    const hlsnap__oci_index *index = &load->index;
    hlsnap__oci_edit edit = {NULL, NULL, 0, NULL, 0};
    hlsnap__text text = {NULL, 0, 0};
    hlsnap__oci_untag u;
    uint32_t i;
    hlsnap_result r = hlsnap__oci_entries_read(store->root, &load->index, err);
    if (r || !num) return r;
    memset(&u, 0, sizeof(u));
    u.exact = exact;
    r = hlsnap__oci_untag_find(&u, index, tags, num, err);
    if (!r) r = hlsnap__oci_untag_check(&u, load, tags, num, err);
    for (i = 1; i < u.num_entries && !r; i++)
        if (u.entries[i]->tag && strcmp(u.entries[i]->digest, u.entries[i - 1]->digest) == 0)
            u.drop[u.entries[i] - index->entries] = 1;
    edit.drop = u.drop;
    if (!r) r = hlsnap__oci_index_replace(store, &text, index, &edit, err);
    hlsnap__free(text.at);
    hlsnap__oci_untag_free(&u);
    return r;
}

/* Moves a tag to the manifest that ref means. */
static hlsnap_result hlsnap__oci_tag_locked(hlsnap__oci_store *store, hlsnap__oci_load *load, const char *ref,
                                            const char *tag, hlsnap_error *err) {
    hlsnap__oci_edit edit = {NULL, NULL, 0, NULL, 0};
    hlsnap__text text = {NULL, 0, 0};
    uint32_t number = 0;
    hlsnap_result r = hlsnap__oci_entries_read(store->root, &load->index, err);
    if (!r) r = hlsnap__oci_find_manifest(load, ref, &number, err);
    if (r) return r;
    edit.tag = tag;
    edit.digest = load->index.entries[number].digest;
    edit.size = load->index.entries[number].size;
    edit.created = hlsnap__oci_created(load->index.entries[number].created);
    r = hlsnap__oci_index_replace(store, &text, &load->index, &edit, err);
    hlsnap__free(text.at);
    return r;
}

/* Changes what tags lead to: the first one to what ref means, or (NULL) all num of them nowhere; exact: as hlsnap__oci_untag. */
static hlsnap_result hlsnap__oci_retag(const char *dir, const char *ref, const char *const *tags, uint32_t num,
                                       bool exact, const hlsnap_oci_desc *desc, hlsnap_error *err) {
    hlsnap__oci_store store;
    hlsnap__oci_load *load = hlsnap__oci_load_new(err);
    hlsnap_result r;
    if (!load) return HLSNAP_ERR_MEMORY;
    r = hlsnap__oci_store_open(dir, &store, desc, F_UNLCK, false, err); /* with the index lock */
    load->root = store.root;
    if (!r && ref)
        r = hlsnap__oci_tag_locked(&store, load, ref, tags[0], err);
    else if (!r)
        r = hlsnap__oci_untag_locked(&store, load, tags, num, exact, err);
    load->root = -1;
    hlsnap__oci_store_close(dir, &store, false);
    hlsnap__oci_load_free(load);
    return r;
}

/* ---- >>fsck ---- */

typedef struct hlsnap__oci_fsck {
    hlsnap_oci_desc desc;
    hlsnap__oci_store store;
    hlsnap__oci_load *load;
    hlsnap__oci_reach reach, looked; /* looked: manifests, and the size of the entry that they were looked at for */
    hlsnap__oci_reach strays;        /* blobs that nothing leads to */
    hlsnap__oci_reach *told; /* of all attempts: problems, by a digest of each; size: the last one that found it */
    hlsnap__oci_configs configs;
    const char **tags; /* of all entries, ascending; point into the index */
    uint32_t num_tags;
    uint8_t *buffer;
    bool repair, blind; /* blind: not all that the index leads to is known */
    bool lost;          /* the index is not there, or none */
    bool again;         /* something is missing, and the index is another one now: that may have been collected */
    const char *path;   /* of index.json, and what it was before it was read */
    struct stat index;
    uint32_t attempt;     /* from 1 on */
    uint64_t done, total; /* bytes, for progress; total: only where that is wanted */
    uint32_t found;       /* problems that are still there */
    uint64_t first_place; /* of the first of them: the order does not depend on threads */
    hlsnap_error first;
} hlsnap__oci_fsck;

#define HLSNAP__OCI_ATTEMPTS 20u

/* What a problem is about. */
typedef struct hlsnap__oci_what {
    char kind;       /* of the key: problems of the same key are one */
    const char *key; /* NULL = the text */
    const char *tag; /* NULL = none */
    const char *digest;
    uint64_t place;
    bool repaired;
} hlsnap__oci_what;

static hlsnap__oci_what hlsnap__oci_what_of(char kind, const char *key, const char *tag, const char *digest) {
    hlsnap__oci_what what = {kind, key, tag, digest, 0, false};
    return what;
}

/* Whether index.json is another file than the one that was read. */
static bool hlsnap__oci_fsck_moved(const hlsnap__oci_fsck *f) {
    struct stat now;
    return stat(f->path, &now) == 0 &&
           (f->index.st_ino != now.st_ino || f->index.st_ctim.tv_sec != now.st_ctim.tv_sec ||
            f->index.st_ctim.tv_nsec != now.st_ctim.tv_nsec);
}

/* Notes a problem. *is_new: it was not found yet in this attempt; *told: it was in one before. Where no more can be noted, all are
   new: rather twice than never. */
static hlsnap_result hlsnap__oci_problem_note(hlsnap__oci_fsck *f, char kind, const char *text, bool *is_new,
                                              bool *told, hlsnap_error *err) {
    hlsnap__oci_reached *row;
    hlsnap__sha256 s;
    hlsnap_error e;
    uint8_t sum[32];
    char key[72];
    hlsnap_result r;
    *is_new = true;
    *told = false;
    hlsnap__sha256_init(&s, f->load->sha->one);
    hlsnap__sha256_update(&s, &kind, 1);
    hlsnap__sha256_update(&s, text, strlen(text));
    hlsnap__sha256_final(&s, sum);
    hlsnap__sha256_text(sum, key);
    r = hlsnap__oci_reach_add(f->told, key, 0, 0, &row, &e);
    if (r == HLSNAP_ERR_MEMORY) *err = e;
    if (r) return r == HLSNAP_ERR_MEMORY ? r : HLSNAP_OK;
    *is_new = row->size != f->attempt;
    *told = row->size != 0;
    row->size = f->attempt;
    return HLSNAP_OK;
}

/* Tells and counts what *err says is wrong, once. Only what keeps the check itself from going on is returned. */
static hlsnap_result hlsnap__oci_problem(hlsnap__oci_fsck *f, hlsnap_result r, const hlsnap__oci_what *what,
                                         hlsnap_error *err) {
    hlsnap_oci_problem p;
    bool is_new, told;
    if (r == HLSNAP_OK || r == HLSNAP_ERR_MEMORY || r == HLSNAP_ERR_CANCELLED) return r;
    /* without locks, what is collected meanwhile looks like damage */
    f->again = !f->repair && r == HLSNAP_ERR_FILE && err->os_errno == ENOENT && f->attempt <= HLSNAP__OCI_ATTEMPTS &&
               hlsnap__oci_fsck_moved(f);
    if (f->again) return r;
    r = hlsnap__oci_problem_note(f, what->kind, what->key ? what->key : err->msg, &is_new, &told, err);
    if (r || !is_new) return r;
    if (!what->repaired && (!f->found++ || what->place < f->first_place)) {
        f->first = *err;
        f->first_place = what->place;
    }
    if (told || !f->desc.on_problem) return HLSNAP_OK;
    memset(&p, 0, sizeof(p));
    p.code = err->code;
    p.os_errno = err->os_errno;
    p.repaired = what->repaired;
    p.ref = what->tag ? what->tag : "";
    p.digest = what->digest ? what->digest : "";
    p.text = err->msg;
    if (f->desc.on_problem(&p, f->desc.user)) return HLSNAP_OK;
    return hlsnap__fail(err, HLSNAP_ERR_CANCELLED, 0, "cancelled by on_problem");
}

static hlsnap_result hlsnap__oci_fsck_needs(hlsnap__oci_fsck *f, const hlsnap__oci_ref *ref, uint32_t number,
                                            hlsnap_error *err) {
    hlsnap__oci_reached *row;
    hlsnap_result r = hlsnap__oci_reach_add(&f->reach, ref->digest, ref->size, number, &row, err);
    if (!r) row->needed = true;
    return r;
}

/* Notes a memory layer and its chunk list, which are compared when the layer is hashed. */
static hlsnap_result hlsnap__oci_fsck_layer(hlsnap__oci_fsck *f, const hlsnap__oci_ref *memory,
                                            const hlsnap__oci_ref *chunks, uint32_t number, hlsnap_error *err) {
    const hlsnap__oci_what what = hlsnap__oci_what_of('x', NULL, f->load->index.entries[number].tag, memory->digest);
    hlsnap__oci_reached *row;
    hlsnap_result r = hlsnap__oci_fsck_needs(f, memory, number, err);
    if (!r) r = hlsnap__oci_fsck_needs(f, chunks, number, err);
    if (r) return r;
    row = hlsnap__oci_reach_find(&f->reach, memory->digest);
    if (!row->chunks[0]) memcpy(row->chunks, chunks->digest, sizeof(row->chunks));
    if (row->size != memory->size)
        r = hlsnap__oci_problem(
            f,
            hlsnap__fail(err, HLSNAP_ERR_SIZE, 0, "blobs/sha256/%s: it cannot have both %llu and %llu bytes",
                         row->digest + 7, (unsigned long long)row->size, (unsigned long long)memory->size),
            &what, err);
    if (!r && strcmp(row->chunks, chunks->digest) != 0)
        r = hlsnap__oci_problem(f,
                                hlsnap__fail(err, HLSNAP_ERR_DIGEST, 0,
                                             "blobs/sha256/%s: its chunk list cannot be both %s and %s",
                                             row->digest + 7, row->chunks, chunks->digest),
                                &what, err);
    return r;
}

/* Notes what a manifest says that its snapshot is made of. */
static hlsnap_result hlsnap__oci_fsck_layers(hlsnap__oci_fsck *f, const hlsnap__oci_manifest *m, uint32_t number,
                                             hlsnap_error *err) {
    uint32_t i;
    hlsnap_result r = hlsnap__oci_fsck_needs(f, &m->config, number, err);
    for (i = 0; !r && i < m->num_layers; i++) r = hlsnap__oci_fsck_layer(f, &m->memory[i], &m->chunks[i], number, err);
    return r;
}

/* A problem with a small blob that was read for an entry: what is wrong with the blob itself is not told again when it is hashed,
   unless it is another thing for another size. */
static hlsnap_result hlsnap__oci_fsck_read(hlsnap__oci_fsck *f, hlsnap_result r, const hlsnap__oci_entry *e,
                                           const char *digest, uint64_t size, hlsnap_error *err) {
    const bool blob = r == HLSNAP_ERR_FILE || r == HLSNAP_ERR_SIZE || r == HLSNAP_ERR_DIGEST || r == HLSNAP_ERR_OS;
    const bool form = !blob && r != HLSNAP_ERR_INDEX; /* of the manifest, or of the config with this manifest */
    hlsnap__oci_what what = hlsnap__oci_what_of('x', NULL, e->tag, blob ? digest : e->digest);
    char key[120];
    bool unused, told;
    if (!r) return r;
    hlsnap__format(key, sizeof(key), "%s %llu", what.digest, (unsigned long long)(blob ? size : e->size));
    if (blob || form) what.kind = blob ? 's' : 'f';
    if (blob || form) what.key = key;
    r = hlsnap__oci_problem(f, r, &what, err);
    return r || !blob ? r : hlsnap__oci_problem_note(f, 'b', digest, &unused, &told, err);
}

/* The structure of one entry's snapshot: manifest, config, chunk lists, each as far as it can be read. What only another machine
   can run is sound. *misfit: as hlsnap__oci_size_misfits. */
static hlsnap_result hlsnap__oci_fsck_entry(hlsnap__oci_fsck *f, uint32_t number, bool *ours, bool *misfit,
                                            hlsnap_error *err) {
    hlsnap__oci_load *load = f->load;
    const hlsnap__oci_entry *e = &load->index.entries[number];
    const hlsnap__oci_seen *seen;
    hlsnap_result r = hlsnap__oci_entry_manifest(load, number, &load->manifest_json, &load->manifest, ours, err);
    *misfit = hlsnap__oci_size_misfits(r);
    if (r == HLSNAP_ERR_VERSION) r = HLSNAP_OK;
    r = hlsnap__oci_fsck_read(f, r, e, e->digest, e->size, err);
    if (!r && *ours) {
        const hlsnap__oci_ref *config = &load->manifest.config;
        r = hlsnap__oci_config_seen(load, &f->configs, &seen, err);
        if (r == HLSNAP_ERR_VERSION || r == HLSNAP_ERR_ARCH) r = HLSNAP_OK;
        r = hlsnap__oci_fsck_read(f, r, e, config->digest, config->size, err);
        if (!r) r = hlsnap__oci_fsck_layers(f, &load->manifest, number, err);
    }
    hlsnap__oci_config_clear(load);
    return r;
}

/* One of a snapshot's tags must be no other entry's. */
static hlsnap_result hlsnap__oci_fsck_tag(hlsnap__oci_fsck *f, const hlsnap__oci_entry *e, hlsnap_error *err) {
    const hlsnap__oci_what what = hlsnap__oci_what_of('t', e->tag, e->tag, e->digest);
    const char **at = e->tag && f->num_tags ? (const char **)(bsearch)(&e->tag, f->tags, f->num_tags, sizeof(e->tag),
                                                                       hlsnap__oci_tag_order)
                                            : NULL;
    char shown[200];
    if (!at || ((at == f->tags || strcmp(at[-1], e->tag) != 0) &&
                (at + 1 == f->tags + f->num_tags || strcmp(at[1], e->tag) != 0)))
        return HLSNAP_OK;
    hlsnap__printable(shown, sizeof(shown), e->tag, strlen(e->tag), false);
    return hlsnap__oci_problem(
        f, hlsnap__fail(err, HLSNAP_ERR_AMBIGUOUS, 0, "index.json: tag '%s' is listed twice", shown), &what, err);
}

/* All tags, in order. */
static hlsnap_result hlsnap__oci_fsck_tags(hlsnap__oci_fsck *f, hlsnap_error *err) {
    const hlsnap__oci_index *index = &f->load->index;
    uint32_t i;
    f->tags = (const char **)hlsnap__alloc((size_t)index->num + 1, sizeof(f->tags[0]), err);
    if (!f->tags) return HLSNAP_ERR_MEMORY;
    for (i = 0; i < index->num; i++)
        if (index->entries[i].tag) f->tags[f->num_tags++] = index->entries[i].tag;
    qsort(f->tags, f->num_tags, sizeof(f->tags[0]), hlsnap__oci_tag_order);
    return HLSNAP_OK;
}

/* One entry. What was looked at with an earlier one (row->looked) is not looked at again: row->size, for that entry's size;
   row->needed, it is a snapshot's. Of a size that does not fit, a manifest is not even opened. */
static hlsnap_result hlsnap__oci_fsck_look(hlsnap__oci_fsck *f, uint32_t number, hlsnap_error *err) {
    const hlsnap__oci_entry *e = &f->load->index.entries[number];
    const hlsnap__oci_what what = hlsnap__oci_what_of('x', NULL, e->tag, e->digest);
    hlsnap__oci_reached *row = NULL;
    bool ours = false, misfit;
    hlsnap_result r;
    if (!hlsnap__oci_entry_fits(e)) return HLSNAP_OK;
    r = hlsnap__oci_reach_add(&f->looked, e->digest, 0, 0, &row, err);
    if (!r && (row->looked == HLSNAP__OCI_NOBODY || row->size != e->size)) {
        r = hlsnap__oci_fsck_entry(f, number, &ours, &misfit, err);
        if (!misfit) {
            row->looked = 0;
            row->size = e->size;
            row->needed = ours;
        }
    }
    if (r && !f->again) r = hlsnap__oci_problem(f, r, &what, err); /* there are too many */
    if (r || !row) return r;
    return !row->needed && !hlsnap__oci_entry_ours(e) ? r : hlsnap__oci_fsck_tag(f, e, err);
}

/* Whether a text is about a blob that the index is known to lead to, so that it is found when that is hashed. */
static bool hlsnap__oci_fsck_hashes(const hlsnap__oci_fsck *f, const char *text) {
    const char *at = (strstr)(text, "blobs/sha256/");
    char digest[72];
    hlsnap__format(digest, sizeof(digest), "sha256:%.64s", at ? at + 13 : "");
    return hlsnap__sha256_text_ok(digest) && hlsnap__oci_reach_find(&f->reach, digest);
}

/* What an entry leads to. Where something cannot be looked into, what else there is all the same. */
static hlsnap_result hlsnap__oci_fsck_lead(hlsnap__oci_fsck *f, uint32_t number, hlsnap_error *err) {
    const hlsnap__oci_entry *e = &f->load->index.entries[number];
    const hlsnap__oci_what what = hlsnap__oci_what_of('x', NULL, e->tag, e->digest);
    hlsnap_result r = hlsnap__oci_reach_entry(f->load, &f->reach, number, number, "", err);
    while (r && r != HLSNAP_ERR_MEMORY) {
        f->blind = true;
        r = hlsnap__oci_fsck_hashes(f, err->msg) ? HLSNAP_OK : hlsnap__oci_problem(f, r, &what, err);
        if (r) break;
        while (!r && f->reach.queued)
            r = hlsnap__oci_reach_blob(f->load, &f->reach, f->reach.queue[--f->reach.queued], err);
    }
    return r;
}

/* Something that was found out about a blob, and is still to be told. */
typedef struct hlsnap__oci_found {
    struct hlsnap__oci_found *next;
    uint32_t number; /* of its row */
    bool list;       /* by who hashed only its chunks */
    hlsnap_error err;
} hlsnap__oci_found;

/* Hashing all blobs of a table. */
typedef struct hlsnap__oci_hashing {
    hlsnap__oci_pool pool;
    hlsnap__oci_fsck *f;
    const hlsnap__oci_reach *rows;
    bool strays;
    uint32_t parts;                 /* as in hlsnap__oci_looking */
    int32_t lock, poor;             /* atomic; lock: for found, end; poor: there was no memory */
    hlsnap__oci_found *found, *end; /* the first and the last one */
    hlsnap__oci_found *lists;       /* of those of lists: told once it is known that the whole is right */
} hlsnap__oci_hashing;

static void hlsnap__oci_found_add(hlsnap__oci_hashing *h, uint32_t number, bool list, const hlsnap_error *e) {
    hlsnap__oci_found *x = (hlsnap__oci_found *)hlsnap__alloc_raw(sizeof(*x), NULL);
    if (!x) {
        __atomic_store_n(&h->poor, 1, __ATOMIC_RELAXED);
        return;
    }
    x->next = NULL;
    x->number = number;
    x->list = list;
    x->err = *e;
    while (__atomic_exchange_n(&h->lock, 1, __ATOMIC_ACQUIRE)) sched_yield();
    if (h->found)
        h->end->next = x;
    else
        h->found = x;
    h->end = x;
    __atomic_store_n(&h->lock, 0, __ATOMIC_RELEASE);
}

static hlsnap__oci_found *hlsnap__oci_found_take(hlsnap__oci_hashing *h) {
    hlsnap__oci_found *x;
    while (__atomic_exchange_n(&h->lock, 1, __ATOMIC_ACQUIRE)) sched_yield();
    x = h->found;
    if (x) h->found = x->next;
    __atomic_store_n(&h->lock, 0, __ATOMIC_RELEASE);
    return x;
}

/* The tag of an entry that leads to a blob, or NULL. */
static const char *hlsnap__oci_fsck_tag_of(const hlsnap__oci_fsck *f, const hlsnap__oci_reached *row) {
    const hlsnap__oci_index *index = &f->load->index;
    const uint32_t number = row->entry < index->num ? row->entry : row->leaf < index->num ? row->leaf : row->looked;
    return number < index->num ? index->entries[number].tag : NULL;
}

/* A blob that is not what it should be. What nothing leads to and holds something else, or is no file, goes when repair is asked
   for. */
static hlsnap_result hlsnap__oci_fsck_wrong(hlsnap__oci_hashing *h, hlsnap__oci_found *x, hlsnap_error *err) {
    hlsnap__oci_fsck *f = h->f;
    const hlsnap__oci_reached *row = &h->rows->rows[x->number];
    hlsnap__oci_what what =
        hlsnap__oci_what_of('b', row->digest, h->strays ? NULL : hlsnap__oci_fsck_tag_of(f, row), row->digest);
    const hlsnap_result r = x->err.code;
    what.place = (h->strays ? (uint64_t)2 << 32 : (uint64_t)1 << 32) + x->number;
    what.repaired = h->strays && f->repair && !f->blind && (r == HLSNAP_ERR_DIGEST || r == HLSNAP_ERR_FILE) &&
                    unlinkat(f->store.sha256, row->digest + 7, 0) == 0;
    *err = x->err;
    return hlsnap__oci_problem(f, r, &what, err);
}

/* On the caller's thread: tells what was found meanwhile. */
static hlsnap_result hlsnap__oci_fsck_tell(hlsnap__oci_pool *p, hlsnap_error *err) {
    hlsnap__oci_hashing *h = (hlsnap__oci_hashing *)(void *)p;
    hlsnap__oci_found *x;
    hlsnap_result r = HLSNAP_OK;
    if (__atomic_load_n(&h->poor, __ATOMIC_RELAXED))
        return hlsnap__fail(err, HLSNAP_ERR_MEMORY, 0, "out of memory: %zu bytes", sizeof(*x));
    while (!r && (x = hlsnap__oci_found_take(h)) != NULL) {
        if (x->list) {
            x->next = h->lists;
            h->lists = x;
            continue;
        }
        r = hlsnap__oci_fsck_wrong(h, x, err);
        hlsnap__free(x);
    }
    return r;
}

/* Whether a blob holds what its name says, and its chunk list is the one that is meant: both, or the one that is asked for. */
static hlsnap_result hlsnap__oci_fsck_blob(hlsnap__oci_hashing *h, const hlsnap__oci_reached *row, bool whole,
                                           bool list, uint8_t *buffer, bool report, hlsnap_error *err) {
    const uint64_t asked = h->f->desc.max_bytes,
                   most = asked && asked < HLSNAP__OCI_MAX_SIZE ? asked : HLSNAP__OCI_MAX_SIZE;
    const int32_t never = 0;
    char path[96], sum[72], chunks[72];
    uint64_t size = 0;
    bool ended = false;
    int fd;
    hlsnap_result r;
    hlsnap__format(path, sizeof(path), "blobs/sha256/%s", row->digest + 7);
    r = hlsnap__oci_open(h->f->store.root, path, &fd, &size, err);
    if (r) return r;
    if (row->size && size != row->size)
        r = hlsnap__fail(err, HLSNAP_ERR_SIZE, 0, "%s: %llu bytes, not %llu as its descriptor says", path,
                         (unsigned long long)size, (unsigned long long)row->size);
    if (!r && size > most) /* a hole of exbibytes takes no disk, but would take years */
        r = hlsnap__fail(err, HLSNAP_ERR_LIMIT, 0, "%s: %llu bytes, not looked at", path, (unsigned long long)size);
    if (!r)
        r = hlsnap__oci_pool_hash(&h->pool, fd, size, whole ? sum : NULL, list ? chunks : NULL, &never, buffer, report,
                                  &ended, err);
    close(fd);
    if (r || !ended) return r;
    if (whole && strcmp(sum, row->digest) != 0)
        return hlsnap__fail(err, HLSNAP_ERR_DIGEST, 0, "%s: its content is %s", path, sum);
    if (list && strcmp(chunks, row->chunks) != 0)
        return hlsnap__fail(err, HLSNAP_ERR_DIGEST, 0, "%s: its chunk list is %s, not %s", path, chunks, row->chunks);
    return HLSNAP_OK;
}

/* One blob, whole or its chunks or both. */
static hlsnap_result hlsnap__oci_fsck_task(hlsnap__oci_pool *p, uint32_t task, uint8_t *buffer, bool report,
                                           hlsnap_error *err) {
    hlsnap__oci_hashing *h = (hlsnap__oci_hashing *)(void *)p;
    const hlsnap__oci_reached *row = &h->rows->rows[task / h->parts];
    const bool whole = h->parts == 1 || task % 2 == 0, list = (h->parts == 1 || task % 2 == 1) && row->chunks[0];
    hlsnap_error e;
    hlsnap_result r = HLSNAP_OK;
    if (!hlsnap__sha256_text_ok(row->digest) || (!whole && !list)) return r;
    r = hlsnap__oci_fsck_blob(h, row, whole, list, buffer, report, &e);
    if (report && (r == HLSNAP_ERR_CANCELLED || r == HLSNAP_ERR_MEMORY || h->f->again)) {
        *err = e;
        return r;
    }
    if (r == HLSNAP_ERR_FILE && e.os_errno == ENOENT && !row->needed) r = HLSNAP_OK;
    if (r && (whole || r == HLSNAP_ERR_DIGEST)) hlsnap__oci_found_add(h, task / h->parts, !whole, &e);
    return report ? hlsnap__oci_pool_report(p, err) : HLSNAP_OK;
}

/* Hashes all blobs of a table. */
static hlsnap_result hlsnap__oci_fsck_hash(hlsnap__oci_fsck *f, const hlsnap__oci_reach *rows, bool strays,
                                           hlsnap_error *err) {
    const uint32_t threads = f->desc.threads ? f->desc.threads : 1;
    hlsnap__oci_hashing h;
    hlsnap__oci_found *x;
    uint64_t size = strays && rows->num > 1 ? HLSNAP__OCI_BATCH + 1 : 0;
    uint32_t i;
    hlsnap_result r;
    memset(&h, 0, sizeof(h));
    h.f = f;
    h.rows = rows;
    h.strays = strays;
    h.parts = threads > 1 && !strays ? 2 : 1;
    h.pool.task = hlsnap__oci_fsck_task;
    h.pool.tell = hlsnap__oci_fsck_tell;
    h.pool.sha = f->load->sha;
    h.pool.desc = &f->desc;
    h.pool.buffer = f->buffer;
    h.pool.num = rows->num * h.parts;
    h.pool.before = f->done;
    h.pool.total = f->total;
    for (i = 0; i < rows->num && size <= HLSNAP__OCI_BATCH; i++) size += rows->rows[i].size;
    if (size > HLSNAP__OCI_BATCH) hlsnap__oci_pool_start(&h.pool, (h.pool.num < threads ? h.pool.num : threads) - 1);
    r = hlsnap__oci_pool_share(&h.pool, err);
    if (!r) r = hlsnap__oci_fsck_tell(&h.pool, err);
    for (; (x = h.lists ? h.lists : hlsnap__oci_found_take(&h)) != NULL; hlsnap__free(x)) {
        if (x == h.lists) h.lists = x->next;
        if (!r) r = hlsnap__oci_fsck_wrong(&h, x, err);
    }
    f->done += h.pool.done;
    return r;
}

/* All names in blobs/sha256. */
static hlsnap_result hlsnap__oci_fsck_names(hlsnap__oci_fsck *f, hlsnap_error *err) {
    hlsnap__oci_reached *row;
    hlsnap_result r;
    const char *name;
    DIR *d = hlsnap__oci_dir_open(f->store.sha256, err, &r);
    while (!r && (name = hlsnap__oci_dir_next(d, err, &r)) != NULL) {
        char digest[72], shown[80];
        if (!hlsnap__oci_blob_file(name)) {
            hlsnap__oci_what what = hlsnap__oci_what_of('n', name, NULL, NULL);
            what.place = ((uint64_t)2 << 32) - 1;
            hlsnap__printable(shown, sizeof(shown), name, strlen(name), false);
            r = hlsnap__oci_problem(f, hlsnap__fail(err, HLSNAP_ERR_FILE, 0, "blobs/sha256/%s: no blob's name", shown),
                                    &what, err);
            continue;
        }
        hlsnap__format(digest, sizeof(digest), "sha256:%s", name);
        if (hlsnap__oci_reach_find(&f->reach, digest)) continue; /* looked at already */
        r = hlsnap__oci_reach_add(&f->strays, digest, 0, 0, &row, err);
        if (r || f->strays.num < 65536) continue;
        r = hlsnap__oci_fsck_hash(f, &f->strays, true, err); /* as many as there are, in bounded memory */
        hlsnap__oci_reach_free(&f->strays);
    }
    if (!r) r = hlsnap__oci_fsck_hash(f, &f->strays, true, err);
    if (d) closedir(d);
    return r;
}

/* What a blob is that an index may have listed: a snapshot's manifest of whatever version (its type), or what says of itself that
   it is another document, whose type that is; else "". And its size. */
static hlsnap_result hlsnap__oci_stray_look(hlsnap__oci_load *load, const char *digest, uint64_t *size, bool *ours,
                                            char type[80], hlsnap_error *err) {
    hlsnap__oci_ref ref = {"", digest, 0};
    const cJSON *says;
    char path[96];
    struct stat st;
    hlsnap_result r;
    type[0] = 0;
    *ours = false;
    hlsnap__format(path, sizeof(path), "blobs/sha256/%s", digest + 7);
    if (fstatat(load->root, path, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode) || st.st_size < 1 ||
        st.st_size > (off_t)HLSNAP__OCI_JSON_MAX)
        return HLSNAP_OK;
    *size = ref.size = (uint64_t)st.st_size;
    r = hlsnap__oci_json_blob(load, &ref, "manifest", HLSNAP_ERR_MANIFEST, &load->manifest_json, err);
    *ours = !r && hlsnap__oci_manifest_ours(load->manifest_json.root);
    says = r ? NULL : hlsnap__json_get(load->manifest_json.root, "mediaType");
    if (*ours)
        hlsnap__format(type, 80, HLSNAP__OCI_MANIFEST_TYPE);
    else if (cJSON_IsString(says) && hlsnap__oci_is_document(says->valuestring))
        hlsnap__format(type, 80, "%s", says->valuestring);
    hlsnap__json_close(&load->manifest_json);
    return r == HLSNAP_ERR_MEMORY ? r : HLSNAP_OK;
}

static hlsnap_result hlsnap__oci_strays(const hlsnap__oci_store *store, hlsnap__text *index, uint32_t *num,
                                        hlsnap_error *err) {
    hlsnap__oci_load *load = hlsnap__oci_load_new(err);
    hlsnap_result r = HLSNAP_ERR_MEMORY;
    const char *name;
    DIR *d = load ? hlsnap__oci_dir_open(store->sha256, err, &r) : NULL;
    *num = 0;
    if (load) load->root = store->root;
    while (d && !r && (name = hlsnap__oci_dir_next(d, err, &r)) != NULL) {
        hlsnap__oci_edit edit = {NULL, NULL, 0, NULL, 0};
        char digest[72], tag[32];
        char type[80];
        bool ours;
        if (!hlsnap__oci_blob_file(name)) continue;
        hlsnap__format(digest, sizeof(digest), "sha256:%s", name);
        hlsnap__format(tag, sizeof(tag), "recovered-%.12s", name);
        edit.tag = tag;
        edit.digest = digest;
        r = hlsnap__oci_stray_look(load, digest, &edit.size, &ours, type, err);
        if (r || !type[0] || (!index && !ours)) continue;
        if (index && ours)
            hlsnap__oci_entry_add(index, *num == 0, &edit);
        else if (index) /* without a tag it stays all the same: it is another's */
            hlsnap__text_add(index, "%s{\"mediaType\":\"%s\",\"digest\":\"%s\",\"size\":%llu}", *num ? "," : "", type,
                             digest, (unsigned long long)edit.size);
        ++*num;
        if (!index) break;
    }
    if (d) closedir(d);
    if (load) load->root = -1;
    hlsnap__oci_load_free(load);
    return r;
}

/* Makes an index of the snapshots that lie there, where it is lost; tags are not known any more. */
static hlsnap_result hlsnap__oci_fsck_recover(hlsnap__oci_fsck *f, hlsnap_error *err) {
    hlsnap__text t = {NULL, 0, 0};
    hlsnap__oci_blob b;
    uint32_t num;
    hlsnap_result r = hlsnap__text_start(&t, HLSNAP_OCI_INDEX_MAX, err);
    hlsnap__oci_blob_none(&b);
    if (r) return r;
    hlsnap__text_add(&t, "{\"schemaVersion\":2,\"mediaType\":\"" HLSNAP__OCI_INDEX_TYPE "\",\"manifests\":[");
    r = hlsnap__oci_strays(&f->store, &t, &num, err);
    hlsnap__text_raw(&t, "]}", 2);
    if (!r && t.size > t.cap)
        r = hlsnap__fail(err, HLSNAP_ERR_LIMIT, 0, "index.json would pass %u bytes", HLSNAP_OCI_INDEX_MAX);
    if (!r) r = hlsnap__oci_root_write(&f->store, &b, "index.json", t.at, t.size, err);
    if (!r) r = hlsnap__oci_root_name(&f->store, &b, "index.json", err);
    if (!r) r = hlsnap__oci_fsync(f->store.root, "the layout", err);
    hlsnap__oci_blob_close(&f->store, &b, false);
    hlsnap__free(t.at);
    return r;
}

/* oci-layout, which is always the same. */
static hlsnap_result hlsnap__oci_fsck_marker(hlsnap__oci_fsck *f, hlsnap_error *err) {
    hlsnap__oci_what what = hlsnap__oci_what_of('n', "oci-layout", NULL, NULL);
    hlsnap_error e;
    hlsnap_result r = hlsnap__oci_marker_read(f->store.root, err), made;
    if (r == HLSNAP_ERR_FILE && err->os_errno == ENOENT && f->repair) {
        made = hlsnap__oci_marker_write(&f->store, &e);
        if (!made) made = hlsnap__oci_fsync(f->store.root, "the layout", &e);
        what.repaired = !made;
        if (made) *err = e;
        if (made) r = made;
    }
    return hlsnap__oci_problem(f, r, &what, err);
}

/* The index cannot be read. What does not need it is looked at all the same, and nothing is changed. */
static hlsnap_result hlsnap__oci_fsck_lost(hlsnap__oci_fsck *f, hlsnap_result r, hlsnap_error *err) {
    const hlsnap__oci_what what = hlsnap__oci_what_of('n', "index.json", NULL, NULL);
    if (!r || r == HLSNAP_ERR_NOT_FOUND || hlsnap_result_transient(err)) return r;
    r = hlsnap__oci_problem(f, r, &what, err);
    f->lost = f->blind = true;
    f->repair = false;
    hlsnap__oci_index_close(&f->load->index);
    return r;
}

/* Reads the index, under the lock where there is one; makes it first, where it is lost and that is asked for. */
static hlsnap_result hlsnap__oci_fsck_index(hlsnap__oci_fsck *f, hlsnap_error *err) {
    hlsnap__oci_what what = hlsnap__oci_what_of('n', "index.json", NULL, NULL);
    bool indexed = true;
    hlsnap_result r = f->repair ? hlsnap__oci_exists(f->store.root, "index.json", &indexed, err) : HLSNAP_OK;
    if (f->lost || r) return r;
    if (!indexed) {
        r = hlsnap__oci_fsck_recover(f, err);
        what.repaired = true;
        if (!r) r = hlsnap__oci_problem(f, hlsnap__oci_index_lost(err), &what, err);
        if (r) return r;
    }
    r = hlsnap__oci_entries_read(f->store.root, &f->load->index, err);
    if (!r && f->repair) hlsnap__oci_index_noted(&f->store);
    return hlsnap__oci_fsck_lost(f, r, err);
}

/* Bytes that there are to be hashed, where somebody wants to know. */
static hlsnap_result hlsnap__oci_fsck_total(hlsnap__oci_fsck *f, hlsnap_error *err) {
    hlsnap_result r = HLSNAP_OK;
    struct stat st;
    const char *name;
    DIR *d = f->desc.progress ? hlsnap__oci_dir_open(f->store.sha256, err, &r) : NULL;
    while (d && !r && (name = hlsnap__oci_dir_next(d, err, &r)) != NULL)
        if (hlsnap__oci_blob_file(name) && fstatat(f->store.sha256, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISREG(st.st_mode) && st.st_size > 0 && (uint64_t)st.st_size <= HLSNAP__OCI_MAX_SIZE)
            f->total += (uint64_t)st.st_size;
    if (d) closedir(d);
    return r;
}

static hlsnap_result hlsnap__oci_fsck_all(hlsnap__oci_fsck *f, hlsnap_error *err) {
    hlsnap__oci_sweep sweep;
    uint32_t i;
    hlsnap_result r = hlsnap__oci_fsck_index(f, err);
    if (!r) r = hlsnap__oci_fsck_marker(f, err);
    if (!r) r = hlsnap__oci_fsck_total(f, err);
    if (!r) r = hlsnap__oci_fsck_tags(f, err);
    if (!r) r = hlsnap__oci_configs_start(&f->configs, f->load->index.num, err);
    for (i = 0; !r && i < f->load->index.num; i++) {
        r = hlsnap__oci_report(&f->desc, 0, f->total, err);
        if (!r) r = hlsnap__oci_fsck_look(f, i, err);
        if (!r) r = hlsnap__oci_fsck_lead(f, i, err);
    }
    if (!r) r = hlsnap__oci_fsck_hash(f, &f->reach, false, err);
    if (!r) r = hlsnap__oci_fsck_names(f, err);
    memset(&sweep, 0, sizeof(sweep));
    sweep.before = INT64_MAX;
    return !r && f->repair ? hlsnap__oci_leftovers(&sweep, f->store.root, err) : r;
}

/* Without repair nothing is written, not even a lock file: a saver at work is then seen as it is, half done. */
static hlsnap_result hlsnap__oci_fsck_lock(const char *dir, hlsnap__oci_fsck *f, bool *stale, hlsnap_error *err) {
    hlsnap__oci_store *store = &f->store;
    hlsnap_result r = hlsnap__oci_open_root(dir, &store->root, err);
    *stale = false;
    if (!r && store->root < 0) r = hlsnap__oci_no_layout(err);
    if (r) return r;
    r = hlsnap__oci_entries_read(store->root, &f->load->index, err); /* before a lock file is made */
    if (r == HLSNAP_ERR_FILE && err->os_errno == ENOENT)
        r = f->repair && hlsnap__oci_has_blobs(store->root) ? HLSNAP_OK : hlsnap__oci_index_missing(store->root, err);
    hlsnap__oci_index_close(&f->load->index);
    r = hlsnap__oci_fsck_lost(f, r, err);
    if (!r && f->repair) r = hlsnap__oci_store_owner(store, err);
    return r || !f->repair ? r : hlsnap__oci_lock_open(store, F_WRLCK, stale, err);
}

static hlsnap_result hlsnap__oci_fsck_open(const char *dir, hlsnap__oci_fsck *f, hlsnap_error *err) {
    hlsnap__oci_store *store = &f->store;
    bool stale = true, again;
    uint64_t pause = 100000;
    int tries = 0, odd = 0;
    hlsnap_result r = HLSNAP_OK;
    hlsnap__oci_store_none(store);
    store->desc = &f->desc;
    for (again = false; !r && stale; again = true) {
        if (again) r = hlsnap__oci_lock_again(dir, store, &tries, &odd, &pause, err);
        if (!r) r = hlsnap__oci_fsck_lock(dir, f, &stale, err);
    }
    if (!r && f->repair) r = hlsnap__oci_lock(store, HLSNAP__OCI_LOCK_INDEX, F_WRLCK, err);
    return r ? r : hlsnap__oci_open_dirs(store, err);
}

/* What came of it: what kept it from going on is a problem, too, unless it may pass by itself. */
static hlsnap_result hlsnap__oci_fsck_end(hlsnap__oci_fsck *f, hlsnap_result r, hlsnap_error *err) {
    const hlsnap__oci_what what = hlsnap__oci_what_of('x', NULL, NULL, NULL);
    if (f->again || r == HLSNAP_ERR_NOT_FOUND || (r && hlsnap_result_transient(err))) return r;
    r = hlsnap__oci_problem(f, r, &what, err);
    if (r || !f->found) return r;
    return hlsnap__fail(err, f->first.code, f->first.os_errno, "%.400s%s", f->first.msg,
                        f->found > 1 ? " (and more)" : "");
}

static hlsnap_result hlsnap__oci_fsck_run(const char *dir, hlsnap__oci_fsck *f, hlsnap_error *err) {
    hlsnap_result r;
    f->load = hlsnap__oci_load_new(err);
    f->buffer = f->load ? (uint8_t *)hlsnap__alloc_raw(HLSNAP__OCI_BATCH, err) : NULL;
    if (!f->buffer) {
        hlsnap__oci_load_free(f->load);
        return HLSNAP_ERR_MEMORY;
    }
    r = hlsnap__oci_fsck_open(dir, f, err);
    f->load->root = f->store.root;
    if (!r) r = hlsnap__oci_fsck_all(f, err);
    r = hlsnap__oci_fsck_end(f, r, err);
    f->load->root = -1;
    hlsnap__oci_store_close(dir, &f->store, false);
    hlsnap__oci_load_free(f->load);
    hlsnap__oci_reach_free(&f->reach);
    hlsnap__oci_reach_free(&f->looked);
    hlsnap__oci_reach_free(&f->strays);
    hlsnap__oci_configs_free(&f->configs);
    hlsnap__free((void *)f->tags);
    hlsnap__free(f->buffer);
    return r;
}

/* ---- >>copy: one snapshot from a layout to another, byte for byte ---- */

typedef struct hlsnap__oci_copying {
    const char *from, *ref, *to, *tag; /* tag NULL: none */
    const char *at;                    /* the layout that an error would be about */
    hlsnap__oci_load *load;            /* of the source */
    hlsnap__oci_store store;           /* the target */
    hlsnap__oci_blob *blobs;           /* memory and chunks of each layer, config, manifest */
    uint32_t num;
    int64_t created;      /* as the source's entry says */
    uint64_t done, total; /* bytes of memory layers */
    uint64_t told; /* progress: never less than before, also where a damaged blob is looked at and then replaced */
    hlsnap__text text;
    bool listed; /* the target's index names the blobs, so they must stay */
    bool again;  /* a blob that was there already went or changed: once more may do */
} hlsnap__oci_copying;

/* The chunk list that blob number i must have, where it is a memory layer; else NULL. */
static const char *hlsnap__oci_copy_chunks(const hlsnap__oci_copying *copy, uint32_t i) {
    return i % 2 == 0 && i / 2 < copy->load->manifest.num_layers ? copy->load->manifest.chunks[i / 2].digest : NULL;
}

/* Reads the source's manifest and config, as a load does. What is another machine's, or version's, is copied all the same. */
static hlsnap_result hlsnap__oci_copy_find(hlsnap__oci_copying *copy, hlsnap_error *err) {
    hlsnap__oci_load *load = copy->load;
    uint32_t i;
    hlsnap_result r;
    copy->at = copy->from;
    hlsnap__oci_load_clear(load);
    r = hlsnap__oci_resolve(load, err);
    if (load->manifest.num_layers && (r == HLSNAP_ERR_ARCH || r == HLSNAP_ERR_VERSION)) r = HLSNAP_OK;
    copy->done = copy->total = 0;
    if (!r && !hlsnap__oci_index_find(&load->index, copy->ref, &i, err))
        copy->created = hlsnap__oci_created(load->index.entries[i].created);
    for (i = 0; !r && i < load->manifest.num_layers; i++) copy->total += load->manifest.memory[i].size;
    if (copy->told > copy->total) copy->told = copy->total;
    if (r || !load->desc.max_bytes || copy->total <= load->desc.max_bytes) return r;
    return hlsnap__fail(err, HLSNAP_ERR_LIMIT, 0, "%llu bytes of memory layers, desc.max_bytes is %llu",
                        (unsigned long long)copy->total, (unsigned long long)load->desc.max_bytes);
}

static void hlsnap__oci_copy_add(hlsnap__oci_copying *copy, const char *digest, uint64_t size) {
    hlsnap__oci_blob *b = &copy->blobs[copy->num++];
    hlsnap__oci_blob_none(b);
    memcpy(b->digest, digest, sizeof(b->digest));
    b->size = size;
}

/* Lists the blobs, in the order in which they get their names: the manifest is the last. */
static hlsnap_result hlsnap__oci_copy_plan(hlsnap__oci_copying *copy, hlsnap_error *err) {
    const hlsnap__oci_manifest *m = &copy->load->manifest;
    uint32_t i;
    hlsnap__free(copy->blobs);
    copy->num = 0;
    copy->blobs = (hlsnap__oci_blob *)hlsnap__alloc(2 * (size_t)m->num_layers + 2, sizeof(copy->blobs[0]), err);
    if (!copy->blobs) return HLSNAP_ERR_MEMORY;
    for (i = 0; i < m->num_layers; i++) {
        hlsnap__oci_copy_add(copy, m->memory[i].digest, m->memory[i].size);
        hlsnap__oci_copy_add(copy, m->chunks[i].digest, m->chunks[i].size);
    }
    hlsnap__oci_copy_add(copy, m->config.digest, m->config.size);
    hlsnap__oci_copy_add(copy, copy->load->digest, copy->load->manifest_json.size);
    return HLSNAP_OK;
}

/* Hashes an open file that must be blob number i, and writes it to another, or nowhere (-1): what is written is what was
   hashed. */
static hlsnap_result hlsnap__oci_copy_bytes(hlsnap__oci_copying *copy, uint32_t i, int fd, int to, hlsnap_error *err) {
    const hlsnap__oci_blob *b = &copy->blobs[i];
    const char *chunks = hlsnap__oci_copy_chunks(copy, i);
    const hlsnap__sha256_ways *sha = copy->load->sha;
    uint8_t *buffer = copy->load->buffer, sum[32], sums[HLSNAP__OCI_BATCH / HLSNAP__OCI_CHUNK * 32];
    hlsnap__sha256 whole, list;
    char text[72];
    uint64_t at, n;
    hlsnap_result r = HLSNAP_OK;
    hlsnap__sha256_init(&whole, sha->one);
    hlsnap__sha256_init(&list, sha->one);
    for (at = 0; !r && at < b->size; at += n) {
        n = b->size - at < HLSNAP__OCI_BATCH ? b->size - at : HLSNAP__OCI_BATCH;
        r = hlsnap__pread(fd, buffer, (size_t)n, at, err);
        if (!r && to >= 0) r = hlsnap__pwrite(to, buffer, (size_t)n, at, err);
        if (r) return r;
        hlsnap__sha256_update(&whole, buffer, (size_t)n);
        if (!chunks) continue;
        hlsnap__sha256_chunks(sha, buffer, (size_t)n, HLSNAP__OCI_CHUNK, sums);
        hlsnap__sha256_update(&list, sums, (size_t)((n + HLSNAP__OCI_CHUNK - 1) / HLSNAP__OCI_CHUNK * 32));
        if (copy->told < copy->done + at + n) copy->told = copy->done + at + n;
        r = hlsnap__oci_report(&copy->load->desc, copy->told, copy->total, err);
    }
    hlsnap__sha256_final(&whole, sum);
    hlsnap__sha256_text(sum, text);
    if (!r && strcmp(text, b->digest) != 0)
        return hlsnap__fail(err, HLSNAP_ERR_DIGEST, 0, "blobs/sha256/%s: its content is %s", b->digest + 7, text);
    hlsnap__sha256_final(&list, sum);
    hlsnap__sha256_text(sum, text);
    if (r || !chunks || strcmp(text, chunks) == 0) return r;
    return hlsnap__fail(err, HLSNAP_ERR_DIGEST, 0, "blobs/sha256/%s: its chunk list is %s, not %s", b->digest + 7, text,
                        chunks);
}

/* Looks whether the target has blob number i already, and sound: then it is shared. Anything else will be replaced. */
static hlsnap_result hlsnap__oci_copy_look(hlsnap__oci_copying *copy, uint32_t i, hlsnap_error *err) {
    hlsnap__oci_blob *b = &copy->blobs[i];
    struct stat st;
    uint64_t size;
    int fd;
    hlsnap_result r;
    if (hlsnap__oci_open(copy->store.sha256, b->digest + 7, &fd, &size, err) != HLSNAP_OK) return HLSNAP_OK;
    r = size == b->size && fstat(fd, &st) == 0 ? hlsnap__oci_copy_bytes(copy, i, fd, -1, err) : HLSNAP_ERR_SIZE;
    if (!r) { /* who wrote it may not have brought it to the disk */
        hlsnap__oci_blob_stat(b, &st);
        b->unsynced = hlsnap__oci_fsync(fd, b->digest, err) != HLSNAP_OK;
        b->shared = !b->unsynced;
    }
    close(fd);
    return r == HLSNAP_ERR_CANCELLED ? r : HLSNAP_OK;
}

/* Makes a file without a name of an open blob of the source: a clone, which is hashed as nobody else can change it, or a copy. */
static hlsnap_result hlsnap__oci_copy_write(hlsnap__oci_copying *copy, uint32_t i, int from, hlsnap_error *err) {
    hlsnap__oci_blob *b = &copy->blobs[i];
    struct stat st;
    hlsnap_result r;
    copy->at = copy->to;
    r = hlsnap__file_room(b->size, "a blob", err);
    if (!r) r = hlsnap__oci_blob_create(&copy->store, copy->store.sha256, b, err);
    if (r) return r;
    if (hlsnap__file_clone(b->fd, from, b->size)) {
        copy->at = copy->from;
        if (fstat(b->fd, &st) != 0) return hlsnap__oci_os(err, errno, "stat", "a new blob");
        if ((uint64_t)st.st_size != b->size)
            return hlsnap__fail(err, HLSNAP_ERR_CHANGED, 0, "blobs/sha256/%s: its size changed", b->digest + 7);
        return hlsnap__oci_copy_bytes(copy, i, b->fd, -1, err);
    }
    r = hlsnap__file_reserve(b->fd, b->size, err);
    if (r) return r;
    r = hlsnap__oci_copy_bytes(copy, i, from, b->fd, err);
    if (r != HLSNAP_ERR_OS || err->os_errno == EIO) copy->at = copy->from;
    return r;
}

static hlsnap_result hlsnap__oci_copy_blob(hlsnap__oci_copying *copy, uint32_t i, hlsnap_error *err) {
    const hlsnap__oci_blob *b = &copy->blobs[i];
    int from;
    hlsnap_result r;
    copy->at = copy->to;
    r = hlsnap__oci_copy_look(copy, i, err);
    if (!r && !b->shared) {
        copy->at = copy->from;
        r = hlsnap__oci_open_blob(copy->load->root, b->digest, b->size, &from, err);
        if (r) return r;
        r = hlsnap__oci_copy_write(copy, i, from, err);
        close(from);
    }
    if (hlsnap__oci_copy_chunks(copy, i)) copy->done += b->size;
    return r;
}

static hlsnap_result hlsnap__oci_copy_blobs(hlsnap__oci_copying *copy, hlsnap_error *err) {
    uint32_t i;
    hlsnap_result r = hlsnap__oci_copy_plan(copy, err);
    for (i = 0; !r && i < copy->num; i++) r = hlsnap__oci_copy_blob(copy, i, err);
    copy->at = r ? copy->at : copy->to;
    for (i = 0; !r && i < copy->num; i++)
        if (copy->blobs[i].fd >= 0) r = hlsnap__oci_fsync(copy->blobs[i].fd, "a new blob", err);
    return r;
}

/* A blob that was there must still be the file that was looked at. */
static hlsnap_result hlsnap__oci_copy_check(hlsnap__oci_copying *copy, const hlsnap__oci_blob *b, hlsnap_error *err) {
    struct stat st;
    const bool there = fstatat(copy->store.sha256, b->digest + 7, &st, AT_SYMLINK_NOFOLLOW) == 0;
    if (there && hlsnap__oci_blob_same(b, &st)) return HLSNAP_OK;
    if (!there && errno != ENOENT) return hlsnap__oci_os(err, errno, "stat", b->digest + 7);
    copy->again = true;
    return hlsnap__fail(err, HLSNAP_ERR_CHANGED, 0, "blobs/sha256/%s: gone or changed while it was in use",
                        b->digest + 7);
}

/* Makes the names of all blobs stand for their content. Under the index lock. */
static hlsnap_result hlsnap__oci_copy_name(hlsnap__oci_copying *copy, hlsnap_error *err) {
    uint32_t i;
    hlsnap_result r = HLSNAP_OK;
    for (i = 0; !r && i < copy->num; i++) {
        hlsnap__oci_blob *b = &copy->blobs[i];
        if (b->fd < 0)
            r = hlsnap__oci_copy_check(copy, b, err);
        else
            r = hlsnap__oci_blob_commit(&copy->store, b, copy->load->sha, copy->load->buffer, err);
    }
    return r;
}

/* Whether the index lists the manifest rightly already, under whatever tag: without a tag there is nothing to add then. */
static bool hlsnap__oci_copy_is_listed(const hlsnap__oci_index *index, const hlsnap__oci_edit *edit) {
    uint32_t i;
    for (i = 0; i < index->num; i++) {
        const hlsnap__oci_entry *e = &index->entries[i];
        if (strcmp(e->digest, edit->digest) == 0 && strcmp(e->type, HLSNAP__OCI_MANIFEST_TYPE) == 0 &&
            e->size == edit->size)
            return true;
    }
    return false;
}

/* Names the blobs and lists the manifest, in the order of hlsnap__oci_publish. */
static hlsnap_result hlsnap__oci_copy_publish(hlsnap__oci_copying *copy, hlsnap__oci_index *index,
                                              hlsnap__oci_blob *file, bool *marking, hlsnap_error *err) {
    const hlsnap__oci_blob *manifest = &copy->blobs[copy->num - 1];
    hlsnap__oci_store *store = &copy->store;
    hlsnap__oci_edit edit;
    bool marked = false, keep;
    hlsnap_result r = hlsnap__oci_index_read(store->root, index, &marked, err);
    if (r) return r;
    edit.tag = copy->tag;
    edit.digest = manifest->digest;
    edit.size = manifest->size;
    edit.drop = NULL;
    edit.created = copy->created;
    keep = !copy->tag && hlsnap__oci_copy_is_listed(index, &edit);
    if (!keep) r = hlsnap__oci_index_make(&copy->text, index, &edit, err);
    if (!r) r = hlsnap__oci_first_index(store, index, err);
    if (!r) r = hlsnap__oci_copy_name(copy, err);
    if (!r && !keep) r = hlsnap__oci_root_write(store, file, "index.json", copy->text.at, copy->text.size, err);
    if (!r && !marked) {
        r = hlsnap__oci_marker_write(store, err);
        *marking = !r;
    }
    if (!r) r = hlsnap__oci_fsync_dirs(store, err);
    if (!r && !index->there) r = hlsnap__oci_fsync_parent(store, err);
    if (!r) r = keep ? hlsnap__oci_index_sync(store, err) : hlsnap__oci_root_name(store, file, "index.json", err);
    if (r) return r;
    copy->listed = true;
    hlsnap__oci_index_noted(store);
    return hlsnap__oci_fsync(store->root, "the layout", err);
}

static hlsnap_result hlsnap__oci_copy_commit(hlsnap__oci_copying *copy, hlsnap_error *err) {
    hlsnap__oci_index index;
    hlsnap__oci_blob file;
    bool marking = false;
    uint32_t i;
    hlsnap_result r = hlsnap__oci_lock(&copy->store, HLSNAP__OCI_LOCK_INDEX, F_WRLCK, err);
    if (r) return r;
    memset(&index, 0, sizeof(index));
    hlsnap__oci_blob_none(&file);
    r = hlsnap__oci_copy_publish(copy, &index, &file, &marking, err);
    hlsnap__oci_blob_close(&copy->store, &file, false);
    if (marking && !copy->listed) unlinkat(copy->store.root, "oci-layout", 0);
    for (i = 0; i < copy->num; i++) hlsnap__oci_blob_close(&copy->store, &copy->blobs[i], !copy->listed);
    hlsnap__oci_index_close(&index);
    hlsnap__oci_unlock(&copy->store, HLSNAP__OCI_LOCK_INDEX);
    return r;
}

/* One attempt in an open store. */
static hlsnap_result hlsnap__oci_copy_once(hlsnap__oci_copying *copy, hlsnap_error *err) {
    uint32_t i;
    hlsnap_result r = hlsnap__oci_copy_blobs(copy, err);
    if (!r) r = hlsnap__oci_copy_commit(copy, err);
    for (i = 0; i < copy->num; i++) hlsnap__oci_blob_close(&copy->store, &copy->blobs[i], false);
    return r;
}

/* The source is looked at first: what it has not makes no target. */
static hlsnap_result hlsnap__oci_copy_run(hlsnap__oci_copying *copy, hlsnap_error *err) {
    hlsnap_result r;
    hlsnap__oci_store_none(&copy->store);
    copy->at = copy->from;
    copy->load->buffer = (uint8_t *)hlsnap__alloc_raw(HLSNAP__OCI_BATCH, err);
    if (!copy->load->buffer) return HLSNAP_ERR_MEMORY;
    r = hlsnap__oci_open_root(copy->from, &copy->load->root, err);
    if (!r && copy->load->root < 0) r = hlsnap__oci_no_layout(err);
    if (!r) r = hlsnap__oci_copy_find(copy, err);
    if (copy->load->root >= 0 && hlsnap__oci_collected(copy->load, r, err)) r = hlsnap__oci_copy_find(copy, err);
    if (r) return r;
    copy->at = copy->to;
    r = hlsnap__oci_store_open(copy->to, &copy->store, &copy->load->desc, F_RDLCK, true, err);
    if (!r) r = hlsnap__oci_lost_check(&copy->store, err);
    if (!r) {
        r = hlsnap__oci_copy_once(copy, err);
        if (r && !copy->listed && (copy->again || hlsnap__oci_collected(copy->load, r, err))) {
            r = hlsnap__oci_copy_find(copy, err);
            if (!r) r = hlsnap__oci_copy_once(copy, err);
        }
    }
    hlsnap__oci_store_close(copy->to, &copy->store, r && !copy->listed);
    return r;
}

/* ---- >>public ---- */

/* Ends a public function: a failure's text starts with its name. */
static hlsnap_result hlsnap__oci_end(hlsnap_result r, const char *function, const hlsnap_error *from,
                                     hlsnap_error *err) {
    if (!r || !err) return r;
    *err = *from;
    hlsnap__format(err->msg, sizeof(err->msg), "%s: %.480s", function, from->msg);
    return r;
}

static hlsnap_result hlsnap__oci_desc_read(const hlsnap_oci_desc *desc, hlsnap_oci_desc *out, hlsnap_error *err) {
    static const hlsnap_oci_desc none = HLSNAP_ZERO;
    *out = desc ? *desc : none;
    if (out->_start_canary || out->_end_canary)
        return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "desc: a canary is not 0: was it initialized with HLSNAP_ZERO?");
    if ((uint32_t)out->guard > HLSNAP_OCI_GUARD_PRIVATE)
        return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "desc: guard=%u is none", (uint32_t)out->guard);
    if ((uint32_t)out->prefault > HLSNAP_PREFAULT_LEARN)
        return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "desc: prefault=%u is none", (uint32_t)out->prefault);
    if (out->created < -1 || out->created > HLSNAP__OCI_LAST_TIME)
        return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "desc: created=%lld is no time before the year 10000",
                            (long long)out->created);
    if (out->mode && (out->mode & ~0666u || (out->mode & 0600) != 0600))
        return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "desc: mode=0%o: 0600 and nothing beyond 0666 is wanted",
                            out->mode);
    if (out->guard == HLSNAP_OCI_GUARD_DEFAULT) out->guard = HLSNAP_OCI_GUARD_PRIVATE;
    if (out->threads > HLSNAP__OCI_MAX_THREADS)
        return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "desc: threads=%u, at most %u", out->threads,
                            HLSNAP__OCI_MAX_THREADS);
    return HLSNAP_OK;
}

static hlsnap_result hlsnap__oci_tag_check(const char *tag, hlsnap_error *err) {
    char shown[200];
    if (tag && hlsnap__oci_tag_ok(tag)) return HLSNAP_OK;
    hlsnap__printable(shown, sizeof(shown), tag ? tag : "NULL", tag ? strlen(tag) : 4, false);
    return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "'%s' is no tag: [A-Za-z0-9_][A-Za-z0-9._-]{0,127}", shown);
}

/* What begins like a digest is one. Anything else may be a name: other tools write what they like. */
static hlsnap_result hlsnap__oci_ref_check(const char *ref, hlsnap_error *err) {
    char shown[200];
    if (ref && ref[0] && (strncmp(ref, "sha256:", 7) != 0 || hlsnap__sha256_text_ok(ref))) return HLSNAP_OK;
    hlsnap__printable(shown, sizeof(shown), ref ? ref : "NULL", ref ? strlen(ref) : 4, false);
    return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "'%s' is neither a tag nor sha256:<64 lowercase hex>", shown);
}

static hlsnap_result hlsnap__oci_given(const void *p, const char *what, hlsnap_error *err) {
    return p ? HLSNAP_OK : hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "%s is NULL", what);
}

static hlsnap_result hlsnap__oci_save_snapshot(const char *dir, const char *tag, const hlsnap_snapshot *s,
                                               const hlsnap_oci_desc *desc, bool flat, hlsnap_oci_digest *out,
                                               hlsnap_error *err) {
    hlsnap__oci_save *save;
    hlsnap_result r;
    if (s->guest->features & HLSNAP__CPU_UNKNOWN)
        return hlsnap__fail(err, HLSNAP_ERR_CPU, 0, "it needs CPU features that this version has no names for");
    save = (hlsnap__oci_save *)hlsnap__alloc(1, sizeof(*save), err);
    if (!save) return HLSNAP_ERR_MEMORY;
    save->dir = dir;
    save->tag = tag;
    save->s = s;
    save->desc = *desc;
    save->flat = flat;
    save->sha = hlsnap__sha256_pick(hlsnap__cpu_features());
    r = hlsnap__oci_save_run(save, out, err);
    hlsnap__free(save->text.at);
    hlsnap__free(save->buffer);
    hlsnap__free(save->sums);
    hlsnap__free(save);
    return r;
}

HLSNAP_API hlsnap_result hlsnap_oci_save(const char *dir, const char *tag, hlsnap_snapshot *s,
                                         const hlsnap_oci_desc *desc, hlsnap_oci_digest *out, hlsnap_error *err) {
    hlsnap_error e;
    hlsnap_oci_desc d;
    hlsnap_result r = hlsnap__oci_desc_read(desc, &d, &e);
    if (!r) r = hlsnap__oci_tag_check(tag, &e);
    if (!r) r = hlsnap__oci_given(dir, "dir", &e);
    if (!r) r = hlsnap__oci_given(s, "the snapshot", &e);
    if (!r && !s->guest->initialized)
        r = hlsnap__fail(&e, HLSNAP_ERR_STATE, 0, "a snapshot from before the guest's init");
    if (!r && s->generation >> 63)
        r = hlsnap__fail(&e, HLSNAP_ERR_LIMIT, 0, "generation 0x%llx is beyond 2^63",
                         (unsigned long long)s->generation);
    if (!r) r = hlsnap__snapshot_check(s, true, &e);
    if (!r) r = hlsnap__oci_save_snapshot(dir, tag, s, &d, false, out, &e);
    return hlsnap__oci_end(r, "hlsnap_oci_save", &e, err);
}

static hlsnap_result hlsnap__oci_load_snapshot(const char *dir, const char *ref, const hlsnap_oci_desc *desc,
                                               hlsnap_snapshot **out, hlsnap_oci_digest *digest, hlsnap_error *err) {
    hlsnap__oci_load *load = hlsnap__oci_load_new(err);
    hlsnap_result r;
    if (!load) return HLSNAP_ERR_MEMORY;
    load->ref = ref;
    load->desc = *desc;
    load->cache = desc->cache;
    if (load->cache) hlsnap__retain(&load->cache->refs);
    r = hlsnap__oci_load_run(load, dir, out, digest, err);
    hlsnap__oci_load_free(load);
    hlsnap__oci_cache_release(desc->cache);
    return r;
}

HLSNAP_API hlsnap_result hlsnap_oci_load(const char *dir, const char *ref, const hlsnap_oci_desc *desc,
                                         hlsnap_snapshot **out, hlsnap_oci_digest *digest, hlsnap_error *err) {
    hlsnap_error e;
    hlsnap_oci_desc d;
    hlsnap_result r = hlsnap__oci_desc_read(desc, &d, &e);
    if (out) *out = NULL;
    if (!r) r = hlsnap__oci_given(dir, "dir", &e);
    if (!r) r = hlsnap__oci_given(out, "out", &e);
    if (!r) r = hlsnap__oci_ref_check(ref, &e);
    if (!r) r = hlsnap__oci_load_snapshot(dir, ref, &d, out, digest, &e);
    return hlsnap__oci_end(r, "hlsnap_oci_load", &e, err);
}

/* Opens a layout to look at it. *ref is a tag or digest (ref NULL: none is meant); given: the caller gave `what`, too. */
static hlsnap_result hlsnap__oci_look(const char *dir, const char *const *ref, bool given, const char *what,
                                      hlsnap__oci_load **load, hlsnap_error *err) {
    hlsnap_result r = hlsnap__oci_given(dir, "dir", err);
    *load = NULL;
    if (!r) r = hlsnap__oci_given(given ? dir : NULL, what, err);
    if (!r && ref) r = hlsnap__oci_ref_check(*ref, err);
    if (!r && !(*load = hlsnap__oci_load_new(err))) r = HLSNAP_ERR_MEMORY;
    return r ? r : hlsnap__oci_browse(dir, *load, err);
}

HLSNAP_API hlsnap_result hlsnap_oci_resolve(const char *dir, const char *ref, hlsnap_oci_digest *out,
                                            hlsnap_error *err) {
    hlsnap_error e;
    hlsnap__oci_load *load;
    hlsnap__oci_ref entry;
    char path[32];
    hlsnap_result r = hlsnap__oci_look(dir, &ref, out != NULL, "out", &load, &e);
    if (!r) {
        load->ref = ref;
        r = hlsnap__oci_entry_find(load, &entry, path, &e);
    }
    if (!r) memcpy(out->text, load->digest, sizeof(out->text));
    hlsnap__oci_load_free(load);
    return hlsnap__oci_end(r, "hlsnap_oci_resolve", &e, err);
}

HLSNAP_API hlsnap_result hlsnap_oci_cache_create(uint64_t max_bytes, hlsnap_oci_cache **out, hlsnap_error *err) {
    hlsnap_error e;
    hlsnap_result r = hlsnap__oci_given(out, "out", &e);
    struct rlimit files = {0, 0};
    if (!r && !(*out = (hlsnap_oci_cache *)hlsnap__alloc(1, sizeof(**out), &e))) r = HLSNAP_ERR_MEMORY;
    if (r) return hlsnap__oci_end(r, "hlsnap_oci_cache_create", &e, err);
    getrlimit(RLIMIT_NOFILE, &files);
    (*out)->refs = 1;
    (*out)->max_bytes = max_bytes;
    (*out)->max_kept =
        files.rlim_cur / 4 < HLSNAP__OCI_MAX_KEPT ? (uint32_t)(files.rlim_cur / 4) : HLSNAP__OCI_MAX_KEPT;
    return HLSNAP_OK;
}

HLSNAP_API void hlsnap_oci_cache_destroy(hlsnap_oci_cache *cache) {
    hlsnap__oci_parsed *parsed[HLSNAP__OCI_MAX_PARSED];
    uint32_t i, num, tries = 0;
    bool locked = false;
    while (cache && !locked && tries++ < 100) { /* only in the child of a fork nobody gives it back */
        if (tries > 1) hlsnap__oci_pause(10000000);
        locked = hlsnap__brief_lock(&cache->lock);
    }
    if (!locked) return;
    num = cache->num_parsed;
    memcpy(parsed, cache->parsed, num * sizeof(parsed[0]));
    cache->num_parsed = 0;
    cache->max_bytes = 0; /* for loads that run, too */
    hlsnap__brief_unlock(&cache->lock);
    for (i = 0; i < num; i++) hlsnap__oci_parsed_release(parsed[i]);
    hlsnap__oci_cache_trim(cache);
    hlsnap__oci_cache_release(cache);
}

HLSNAP_API hlsnap_result hlsnap_oci_list(const char *dir, hlsnap_oci_visit visit, void *user, hlsnap_error *err) {
    hlsnap_error e;
    hlsnap__oci_load *load;
    hlsnap_result r = hlsnap__oci_look(dir, NULL, visit != NULL, "visit", &load, &e);
    if (!r) r = hlsnap__oci_list_run(load, visit, user, &e);
    hlsnap__oci_load_free(load);
    return hlsnap__oci_end(r, "hlsnap_oci_list", &e, err);
}

HLSNAP_API hlsnap_result hlsnap_oci_get_info(const char *dir, const char *ref, hlsnap_oci_info *out,
                                             hlsnap_error *err) {
    hlsnap_error e;
    hlsnap__oci_load *load;
    hlsnap_result r = hlsnap__oci_look(dir, &ref, out != NULL, "out", &load, &e);
    if (!r) r = hlsnap__oci_info_run(load, ref, out, &e);
    if (hlsnap__oci_collected(load, r, &e) && !(r = hlsnap__oci_index_again(load, &e)))
        r = hlsnap__oci_info_run(load, ref, out, &e);
    hlsnap__oci_load_free(load);
    return hlsnap__oci_end(r, "hlsnap_oci_get_info", &e, err);
}

HLSNAP_API hlsnap_result hlsnap_oci_list_info(const char *dir, hlsnap_oci_visit_info visit, void *user,
                                              hlsnap_error *err) {
    hlsnap_error e;
    hlsnap__oci_load *load;
    hlsnap_result r = hlsnap__oci_look(dir, NULL, visit != NULL, "visit", &load, &e);
    if (!r) r = hlsnap__oci_list_info_run(load, visit, user, &e);
    hlsnap__oci_load_free(load);
    return hlsnap__oci_end(r, "hlsnap_oci_list_info", &e, err);
}

HLSNAP_API hlsnap_result hlsnap_oci_annotations(const char *dir, const char *ref, hlsnap_oci_visit_text visit,
                                                void *user, hlsnap_error *err) {
    hlsnap_error e;
    hlsnap__oci_load *load;
    hlsnap_result r = hlsnap__oci_look(dir, &ref, visit != NULL, "visit", &load, &e);
    if (!r) r = hlsnap__oci_annotations_run(load, ref, visit, user, &e);
    if (hlsnap__oci_collected(load, r, &e) && !(r = hlsnap__oci_index_again(load, &e)))
        r = hlsnap__oci_annotations_run(load, ref, visit, user, &e);
    hlsnap__oci_load_free(load);
    return hlsnap__oci_end(r, "hlsnap_oci_annotations", &e, err);
}

HLSNAP_API hlsnap_result hlsnap_oci_layers(const char *dir, const char *ref, hlsnap_oci_visit_layer visit, void *user,
                                           hlsnap_error *err) {
    hlsnap_error e;
    hlsnap__oci_load *load;
    hlsnap_result r = hlsnap__oci_look(dir, &ref, visit != NULL, "visit", &load, &e);
    if (!r) r = hlsnap__oci_layers_run(load, ref, visit, user, &e);
    if (hlsnap__oci_collected(load, r, &e) && !(r = hlsnap__oci_index_again(load, &e)))
        r = hlsnap__oci_layers_run(load, ref, visit, user, &e);
    hlsnap__oci_load_free(load);
    return hlsnap__oci_end(r, "hlsnap_oci_layers", &e, err);
}

HLSNAP_API hlsnap_result hlsnap_oci_holders(const char *dir, const char *ref, hlsnap_oci_visit_holder visit, void *user,
                                            hlsnap_error *err) {
    hlsnap_error e;
    hlsnap__oci_load *load;
    hlsnap_result r = hlsnap__oci_look(dir, &ref, visit != NULL, "visit", &load, &e);
    if (!r) r = hlsnap__oci_holders_run(load, ref, visit, user, &e);
    hlsnap__oci_load_free(load);
    return hlsnap__oci_end(r, "hlsnap_oci_holders", &e, err);
}

/* Of what a caller gives who wants only to wait: that. */
static hlsnap_result hlsnap__oci_desc_wait(const hlsnap_oci_desc *desc, hlsnap_oci_desc *out, hlsnap_error *err) {
    hlsnap_oci_desc d;
    hlsnap_result r = hlsnap__oci_desc_read(desc, &d, err);
    *out = hlsnap__oci_no_desc;
    if (r) return r;
    out->wait_ns = d.wait_ns;
    out->progress = d.progress;
    out->user = d.user;
    return HLSNAP_OK;
}

static hlsnap_result hlsnap__oci_tag_as(const char *function, const char *dir, const char *ref, const char *tag,
                                        const hlsnap_oci_desc *desc, hlsnap_error *err) {
    hlsnap_error e;
    hlsnap_oci_desc d;
    hlsnap_result r = hlsnap__oci_desc_wait(desc, &d, &e);
    if (!r) r = hlsnap__oci_given(dir, "dir", &e);
    if (!r) r = hlsnap__oci_ref_check(ref, &e);
    if (!r) r = hlsnap__oci_tag_check(tag, &e);
    if (!r) r = hlsnap__oci_retag(dir, ref, &tag, 1, false, &d, &e);
    return hlsnap__oci_end(r, function, &e, err);
}

HLSNAP_API hlsnap_result hlsnap_oci_tag(const char *dir, const char *ref, const char *tag, hlsnap_error *err) {
    return hlsnap__oci_tag_as("hlsnap_oci_tag", dir, ref, tag, NULL, err);
}

HLSNAP_API hlsnap_result hlsnap_oci_tag_with(const char *dir, const char *ref, const char *tag,
                                             const hlsnap_oci_desc *desc, hlsnap_error *err) {
    return hlsnap__oci_tag_as("hlsnap_oci_tag_with", dir, ref, tag, desc, err);
}

static hlsnap_result hlsnap__oci_untag_as(const char *function, const char *dir, const char *const *tags, uint32_t num,
                                          bool exact, const hlsnap_oci_desc *desc, hlsnap_error *err) {
    hlsnap_error e;
    hlsnap_oci_desc d;
    uint32_t i;
    hlsnap_result r = hlsnap__oci_desc_wait(desc, &d, &e);
    if (!r) r = hlsnap__oci_given(dir, "dir", &e);
    if (!r && num) r = hlsnap__oci_given(tags, "tags", &e);
    for (i = 0; i < num && !r; i++)
        r = exact ? hlsnap__oci_given(tags[i], "a tag", &e) : hlsnap__oci_ref_check(tags[i], &e);
    if (!r) r = hlsnap__oci_retag(dir, NULL, tags, num, exact, &d, &e);
    return hlsnap__oci_end(r, function, &e, err);
}

HLSNAP_API hlsnap_result hlsnap_oci_untag(const char *dir, const char *tag, hlsnap_error *err) {
    return hlsnap__oci_untag_as("hlsnap_oci_untag", dir, &tag, 1, false, NULL, err);
}

HLSNAP_API hlsnap_result hlsnap_oci_untag_with(const char *dir, const char *tag, const hlsnap_oci_desc *desc,
                                               hlsnap_error *err) {
    return hlsnap__oci_untag_as("hlsnap_oci_untag_with", dir, &tag, 1, false, desc, err);
}

HLSNAP_API hlsnap_result hlsnap_oci_untag_all(const char *dir, const char *const *tags, uint32_t num,
                                              const hlsnap_oci_desc *desc, hlsnap_error *err) {
    return hlsnap__oci_untag_as("hlsnap_oci_untag_all", dir, tags, num, false, desc, err);
}

HLSNAP_API hlsnap_result hlsnap_oci_untag_listed(const char *dir, const char *const *tags, uint32_t num,
                                                 const hlsnap_oci_desc *desc, hlsnap_error *err) {
    return hlsnap__oci_untag_as("hlsnap_oci_untag_listed", dir, tags, num, true, desc, err);
}

static hlsnap_result hlsnap__oci_gc_as(const char *function, const char *dir, uint64_t grace_s,
                                       const hlsnap_oci_desc *desc, uint64_t *freed, hlsnap_error *err) {
    hlsnap_error e;
    hlsnap__oci_gc gc;
    struct timespec now = {0, 0};
    hlsnap_result r;
    memset(&gc, 0, sizeof(gc));
    r = hlsnap__oci_desc_wait(desc, &gc.desc, &e);
    if (!r) r = hlsnap__oci_given(dir, "dir", &e);
    clock_gettime(CLOCK_REALTIME, &now);
    gc.before = !grace_s ? INT64_MAX : grace_s < (uint64_t)now.tv_sec ? (int64_t)now.tv_sec - (int64_t)grace_s : -1;
    if (!r) r = hlsnap__oci_gc_run(dir, &gc, &e);
    if (freed) *freed = gc.sweep.freed;
    return hlsnap__oci_end(r, function, &e, err);
}

HLSNAP_API hlsnap_result hlsnap_oci_gc(const char *dir, uint64_t grace_s, uint64_t *freed, hlsnap_error *err) {
    return hlsnap__oci_gc_as("hlsnap_oci_gc", dir, grace_s, NULL, freed, err);
}

HLSNAP_API hlsnap_result hlsnap_oci_gc_with(const char *dir, uint64_t grace_s, const hlsnap_oci_desc *desc,
                                            uint64_t *freed, hlsnap_error *err) {
    return hlsnap__oci_gc_as("hlsnap_oci_gc_with", dir, grace_s, desc, freed, err);
}

/* Once more, as long as what is missing may have been collected. */
static hlsnap_result hlsnap__oci_fsck_until(const char *dir, bool repair, const hlsnap_oci_desc *desc,
                                            hlsnap_error *err) {
    hlsnap__oci_reach told;
    char path[4200];
    uint32_t i;
    bool again = true;
    hlsnap_result r = HLSNAP_OK;
    memset(&told, 0, sizeof(told));
    hlsnap__format(path, sizeof(path), "%.4096s/index.json", dir);
    for (i = 1; again; i++) {
        hlsnap__oci_fsck *f = (hlsnap__oci_fsck *)hlsnap__alloc(1, sizeof(*f), err);
        again = f != NULL;
        if (!f) r = HLSNAP_ERR_MEMORY;
        if (!f) continue;
        f->desc = *desc;
        f->desc.mode = 0; /* a new index.json is as others of it are */
        f->repair = repair;
        f->attempt = i;
        f->told = &told;
        f->path = path;
        if (stat(path, &f->index) != 0) memset(&f->index, 0, sizeof(f->index));
        r = hlsnap__oci_fsck_run(dir, f, err);
        again = f->again;
        hlsnap__free(f);
    }
    hlsnap__oci_reach_free(&told);
    return r;
}

static hlsnap_result hlsnap__oci_fsck_as(const char *function, const char *dir, bool repair,
                                         const hlsnap_oci_desc *desc, hlsnap_error *err) {
    hlsnap_error e;
    hlsnap_oci_desc d;
    hlsnap_result r = hlsnap__oci_given(dir, "dir", &e);
    if (!r) r = hlsnap__oci_desc_read(desc, &d, &e);
    if (!r) r = hlsnap__oci_fsck_until(dir, repair, &d, &e);
    return hlsnap__oci_end(r, function, &e, err);
}

HLSNAP_API hlsnap_result hlsnap_oci_fsck(const char *dir, bool repair, hlsnap_error *err) {
    return hlsnap__oci_fsck_as("hlsnap_oci_fsck", dir, repair, NULL, err);
}

HLSNAP_API hlsnap_result hlsnap_oci_fsck_with(const char *dir, bool repair, const hlsnap_oci_desc *desc,
                                              hlsnap_error *err) {
    return hlsnap__oci_fsck_as("hlsnap_oci_fsck_with", dir, repair, desc, err);
}

HLSNAP_API hlsnap_result hlsnap_oci_flatten(const char *dir, const char *ref, const char *tag,
                                            const hlsnap_oci_desc *desc, hlsnap_oci_digest *out, hlsnap_error *err) {
    hlsnap_error e;
    hlsnap_oci_desc d;
    hlsnap_snapshot *s = NULL;
    hlsnap_result r = hlsnap__oci_desc_read(desc, &d, &e);
    if (!r) r = hlsnap__oci_given(dir, "dir", &e);
    if (!r) r = hlsnap__oci_ref_check(ref, &e);
    if (!r) r = hlsnap__oci_tag_check(tag, &e);
    d.guard = HLSNAP_OCI_GUARD_PRIVATE; /* what was verified is what is written */
    d.disable_verify = d.verify_later = false;
    d.cache = NULL;
    if (!r) r = hlsnap__oci_load_snapshot(dir, ref, &d, &s, NULL, &e);
    if (!r) r = hlsnap__oci_save_snapshot(dir, tag, s, &d, true, out, &e);
    hlsnap_snapshot_release(s);
    return hlsnap__oci_end(r, "hlsnap_oci_flatten", &e, err);
}

/* A failure's text says which layout it is about. */
static hlsnap_result hlsnap__oci_copy_fail(hlsnap_result r, const hlsnap__oci_copying *copy, hlsnap_error *err) {
    char shown[160], text[sizeof(err->msg)];
    if (!r) return r;
    hlsnap__printable(shown, sizeof(shown), copy->at, strlen(copy->at), false);
    memcpy(text, err->msg, sizeof(text));
    hlsnap__format(err->msg, sizeof(err->msg), "%s: %.340s", shown, text);
    return r;
}

static hlsnap_result hlsnap__oci_copy_snapshot(const char *from_dir, const char *ref, const char *to_dir,
                                               const char *tag, const hlsnap_oci_desc *desc, hlsnap_oci_digest *out,
                                               hlsnap_error *err) {
    hlsnap__oci_copying copy;
    hlsnap_result r;
    memset(&copy, 0, sizeof(copy));
    copy.from = from_dir;
    copy.ref = ref;
    copy.to = to_dir;
    copy.tag = tag;
    copy.load = hlsnap__oci_load_new(err);
    if (!copy.load) return HLSNAP_ERR_MEMORY;
    copy.load->ref = ref;
    copy.load->desc = *desc;
    copy.load->desc.any_cpu = true;
    copy.load->desc.disable_verify = copy.load->desc.verify_later = false;
    r = hlsnap__oci_copy_fail(hlsnap__oci_copy_run(&copy, err), &copy, err);
    if (!r && out) memcpy(out->text, copy.load->digest, sizeof(out->text));
    hlsnap__free(copy.text.at);
    hlsnap__free(copy.blobs);
    hlsnap__oci_load_free(copy.load);
    return r;
}

HLSNAP_API hlsnap_result hlsnap_oci_copy(const char *from_dir, const char *ref, const char *to_dir, const char *tag,
                                         const hlsnap_oci_desc *desc, hlsnap_oci_digest *out, hlsnap_error *err) {
    hlsnap_error e;
    hlsnap_oci_desc d;
    hlsnap_result r = hlsnap__oci_desc_read(desc, &d, &e);
    if (!r) r = hlsnap__oci_given(from_dir, "from_dir", &e);
    if (!r) r = hlsnap__oci_given(to_dir, "to_dir", &e);
    if (!r) r = hlsnap__oci_ref_check(ref, &e);
    if (!r && !tag && !(strchr)(ref, ':')) tag = ref;
    if (!r && tag) r = hlsnap__oci_tag_check(tag, &e);
    if (!r) r = hlsnap__oci_copy_snapshot(from_dir, ref, to_dir, tag, &d, out, &e);
    return hlsnap__oci_end(r, "hlsnap_oci_copy", &e, err);
}

#ifdef __cplusplus
}
#endif
#endif /* HLSNAP_OCI_IMPLEMENTATION_ONCE */
#endif /* HLSNAP_IMPLEMENTATION */

/* License: MIT

Copyright (c) 2026 the hlsnap authors

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
