#!/usr/bin/env python3
"""snapshot_format.py - a second reader and writer of docs/snapshot-format.md, written from that text and from nothing else.

It shares no line with hlsnap_oci.h, so where the two agree, the text says enough. Standard library only; Python 3.9 or later.

    check DIR [REF...]          read every tag (or the REFs) as strictly as the text says, all digests included; one line each:
                                REF DIGEST pages=N stored=N layers=N memory=SHA256
                                pages: of all regions; stored: that extents cover; memory: sha256 of all pages of stored
                                regions and captured maps, ascending, pages without extent as zeros, and of other private
                                maps what extents cover
    vectors DIR REF...          the rows of the text's table of test vectors; --unhashed: without the last column
    same DIR1 REF1 DIR2 REF2    do the two mean the same memory, regions, contract? Says the first difference
    exact DIR REF...            are manifest, config and index entry byte by byte what the text says writers write?
    write DIR TAG [options]     write a snapshot made up from --seed: valid, but as odd as the text allows
        --layers N              a chain: a base and N - 1 deltas, with pages no extent shows and pages shown twice
        --small                 the base has nearly all pages, and a delta a few
        --pages N               about so many pages in stored regions
        --maps N                so many maps; else it is up to the seed
        --count N               N of them, from --seed on, with tags TAG and the seed behind it
        --flat                  the same memory as one layer, as the text's "Writing" has it
        --again                 as a writer has it that finds the chain's layers in the layout
        --zero                  the same guest, but all of its memory is zero
        --scatter               so many lone pages that one layer must store gaps (no --layers)
        --features a,b          CPU features; none by default
    mutants OUT [--seed N] [--random N]
                                layouts OUT/NAME with tag m, each a valid one with one change, digests made to match again;
                                prints `NAME RESULT`, what a reader must say (`refused`: any error; with --random: `?`)
    verdict REF DIR...          one line for each layout: its name and the result, HLSNAP_OK or HLSNAP_ERR_...

--any-machine (check, same, exact, verdict) skips what depends on the machine: `arch` and `features`. Without it a feature that the
text does not list is refused; the others are not compared with this CPU, which Python cannot ask.

Exit 0: sound, same, exact. 1: not; the reason on standard error, with the result that hlsnap_oci.h gives for such a thing.
"""
from __future__ import annotations

import argparse
import copy
import fcntl
import hashlib
import json
import os
import random
import re
import stat
import struct
import sys
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, NoReturn, Optional, Set, Tuple

PAGE, CHUNK = 4096, 65536
MAX_JSON, MAX_INDEX, MAX_INT, MAX_DEPTH, MAX_VALUES = 1 << 20, 1 << 26, 1 << 53, 16, 262144
MAX_LAYERS, MAX_LAYER_BYTES, MAX_EXTENTS, MAX_MAPS = 128, 1 << 35, 32768, 16
MAX_WRITTEN = 32  # layers; of more, writers merge some
LOWEST, END_OF_ADDRESSES = 0x200000, 0x7F0000000000
MAPS, END_OF_MAPS, MAX_CAPTURED = END_OF_ADDRESSES, 0x7F1000000000, 16 << 30
RUNTIME_TLS = 3072
KINDS = ("text", "rodata", "data", "tls", "heap", "stack", "mailbox", "identity")
NOT_STORED = ("mailbox", "identity")
MODES, SOURCES = ("read", "private", "shared"), ("host", "optional", "layers")
MAP_KINDS = [(mode, source) for mode in MODES for source in SOURCES if (mode, source) != ("shared", "layers")]
FEATURES = frozenset("""
    sse3 pclmul ssse3 fma cx16 sse4_1 sse4_2 movbe popcnt aes avx f16c rdrand
    bmi1 avx2 bmi2 erms avx512f avx512dq rdseed adx avx512ifma clflushopt clwb avx512cd sha_ni avx512bw avx512vl
    avx512vbmi avx512vbmi2 gfni vaes vpclmulqdq avx512vnni avx512bitalg avx512vpopcntdq rdpid movdiri fsrm lzcnt""".split())
LEVELS = {"host": None, "v1": ""}  # of x86-64, and the features of each
LEVELS["v2"] = "cx16 popcnt sse3 sse4_1 sse4_2 ssse3"
LEVELS["v3"] = LEVELS["v2"] + " avx avx2 bmi1 bmi2 f16c fma lzcnt movbe"
LEVELS["v4"] = LEVELS["v3"] + " avx512bw avx512cd avx512dq avx512f avx512vl"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT_TYPE = "application/vnd.hlsnap.snapshot.v1"
CONFIG_TYPE = "application/vnd.hlsnap.snapshot.config.v1+json"
MEMORY_TYPE = "application/vnd.hlsnap.snapshot.memory.v1"
CHUNKS_TYPE = "application/vnd.hlsnap.snapshot.chunks.v1"
REF_NAME = "org.opencontainers.image.ref.name"
TITLE = "org.opencontainers.image.title"
CREATED = "org.opencontainers.image.created"
RFC3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")

NAME_OF_OTHERS = re.compile(r"(?=.*[:@+/])[A-Za-z0-9_][A-Za-z0-9._:@+/-]{0,254}")
FOLDED = {name.lower(): name for name in (
    "imageLayoutVersion", "schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject", "annotations",
    "digest", "size", "urls", "data", "platform")}
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
DIGEST = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[A-Za-z0-9=_-]+")
MEDIA_TYPE = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126})/(?:[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126})")
HEX = re.compile(r"0x(?:0|[1-9a-f][0-9a-f]{0,15})")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:$-]{0,62}")
SIGNATURE = re.compile(r"(?:void|{0})\((?:(?:{0})(?:,(?:{0})){{0,31}})?\)".format("bool|i32|u32|i64|u64|f32|f64|str|bytes"))
FEATURE = re.compile(r"[a-z0-9_]{1,31}")
BUILD_ID = re.compile(r"[0-9a-f]{0,47}")
MACHINE = re.compile(r"[A-Za-z0-9 !+._-]*")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Refused(Exception):
    """What the text says to refuse: a result as hlsnap_oci.h names it, and the rule."""

    def __init__(self, result: str, reason: str):
        super().__init__(f"HLSNAP_ERR_{result}: {reason}")
        self.result = f"HLSNAP_ERR_{result}"


class Missing(Refused):
    """A blob that is not there: the index is read again, once."""


def refuse(result: str, reason: str) -> NoReturn:
    raise Refused(result, reason)


def need(ok: Any, result: str, reason: str) -> None:
    if not ok:
        refuse(result, reason)


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


# ---- JSON: "JSON" ----


class Odd(str):
    """A number that is none of those which count."""


class Json:
    """Strict, in one pass; `spans` says where each object stood in the text, for editing an index byte by byte."""

    BLANK = re.compile(r"[ \t\r\n]*")
    STRING = re.compile(r'"([^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*)"')
    ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))")
    NUMBER = re.compile(r"-?[0-9][0-9.eE+-]*")
    WHOLE = re.compile(r"0|-?[1-9][0-9]*")
    ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}

    FLOAT = re.compile(r"-?(0|[1-9][0-9]*)([.][0-9]+)?([eE][+-]?[0-9]+)?")

    def __init__(self, data: bytes, where: str, largest: int = MAX_JSON):
        self.where, self.at, self.values = where, 0, 0
        self.loose = where in ("oci-layout", "index.json")
        self.most = MAX_VALUES if where != "index.json" else largest
        self.spans: Dict[int, Tuple[int, int]] = {}
        need(len(data) <= largest, "LIMIT", f"{where}: {len(data)} bytes, more than {largest}")
        try:
            self.text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            refuse("JSON", f"{where}: not UTF-8 at byte {error.start}")

    def fail(self, what: str) -> NoReturn:
        refuse("JSON", f"{self.where}: {what} at character {self.at}")

    def parse(self) -> Any:
        value = self.value(0)
        if self.peek():
            self.fail("something behind the value")
        return value

    def peek(self) -> str:
        self.at = self.BLANK.match(self.text, self.at).end()  # type: ignore[union-attr]
        return self.text[self.at:self.at + 1]

    def take(self, mark: str) -> None:
        if self.peek() != mark:
            self.fail(f"no '{mark}'")
        self.at += 1

    def value(self, depth: int) -> Any:
        first = self.peek()
        self.values += 1
        if self.values > self.most:
            self.fail(f"more than {self.most} values")
        if first in ("{", "["):
            if depth == MAX_DEPTH:
                self.fail(f"more than {MAX_DEPTH} levels")
            start = self.at
            container = self.object(depth + 1) if first == "{" else self.array(depth + 1)
            self.spans[id(container)] = (start, self.at)
            return container
        if first == '"':
            return self.string()
        for word, meaning in (("true", True), ("false", False), ("null", None)):
            if self.text.startswith(word, self.at):
                self.at += len(word)
                return meaning
        return self.number()

    def object(self, depth: int) -> Dict[str, Any]:
        found: Dict[str, Any] = {}
        self.take("{")
        while self.peek() != "}":
            if found:
                self.take(",")
                self.peek()
            name = self.string()
            if name in found:
                self.fail(f"the name {name!r} twice")
            self.take(":")
            found[name] = self.value(depth)
        self.at += 1
        return found

    def array(self, depth: int) -> List[Any]:
        found: List[Any] = []
        self.take("[")
        while self.peek() != "]":
            if found:
                self.take(",")
            found.append(self.value(depth))
        self.at += 1
        return found

    def string(self) -> str:
        match = self.STRING.match(self.text, self.at)
        if not match:
            self.fail("no string, or one with a control character or a wrong escape")
        self.at = match.end()
        if "\\" not in match[1]:
            return match[1]
        text = self.ESCAPE.sub(lambda m: chr(int(m[1], 16)) if m[1] else self.ESCAPES[m[2]], match[1])
        if "\0" in text:
            self.fail("\\u0000")
        try:
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError:
            self.fail("a lone surrogate")

    def number(self) -> Any:
        match = self.NUMBER.match(self.text, self.at)
        if not match:
            self.fail("no value")
        if self.loose and self.FLOAT.fullmatch(match[0]) and not (self.WHOLE.fullmatch(match[0]) and len(match[0]) <= 17
                                                                  and abs(int(match[0])) <= MAX_INT):
            self.at = match.end()
            return Odd(match[0])
        if not self.WHOLE.fullmatch(match[0]) or len(match[0]) > 17 or abs(int(match[0])) > MAX_INT:
            self.fail(f"the number {match[0][:40]}")
        self.at = match.end()
        return int(match[0])


def to_json(value: Any) -> bytes:
    """As writers write: one line, no blanks, fields in the order given."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


# ---- files: "Files" ----


class Layout:
    """A layout to read: nothing is opened through a link below DIR, only regular files, and never with a wait."""

    def __init__(self, path: str):
        self.path = path
        try:
            self.root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            refuse("NOT_FOUND", f"{path}: no layout there")
        except OSError as error:
            refuse("FILE", f"{path}: {error.strerror}")

    def close(self) -> None:
        os.close(self.root)

    def open(self, *names: str) -> int:
        where, fd = "/".join(names), os.dup(self.root)
        for name in names:
            last = name is names[-1]
            flags = os.O_NONBLOCK | os.O_NOCTTY if last else os.O_DIRECTORY
            try:
                inner = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=fd)
            except FileNotFoundError:
                raise Missing("FILE", f"{where}: missing") from None
            except OSError as error:
                refuse("FILE", f"{where}: {error.strerror}")
            finally:
                os.close(fd)
            fd = inner
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            refuse("FILE", f"{where}: not a regular file")
        return fd

    def has_blobs(self) -> bool:
        """Whether anything stands where blobs do: then an index that is missing is lost."""
        try:
            fd = os.open("blobs/sha256", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.root)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        try:
            return bool(os.listdir(fd))
        finally:
            os.close(fd)

    def read_json(self, name: str) -> Json:
        fd = self.open(name)
        try:
            size = os.fstat(fd).st_size
            largest = MAX_INDEX if name == "index.json" else MAX_JSON
            need(size <= largest, "LIMIT", f"{name}: {size} bytes, more than {largest}")
            return Json(read_all(fd, 0, size), name, largest)
        finally:
            os.close(fd)

    def blob(self, descriptor: Dict[str, Any]) -> int:
        """Opened, of the size its descriptor says; its content is not looked at yet."""
        fd = self.open("blobs", "sha256", descriptor["digest"][7:])
        size = os.fstat(fd).st_size
        if size != descriptor["size"]:
            os.close(fd)
            refuse("SIZE", f"{descriptor['digest']}: {size} bytes, the descriptor says {descriptor['size']}")
        return fd

    def read_blob(self, descriptor: Dict[str, Any]) -> bytes:
        fd = self.blob(descriptor)
        try:
            data = read_all(fd, 0, descriptor["size"])
        finally:
            os.close(fd)
        need(sha256(data) == descriptor["digest"], "DIGEST", f"{descriptor['digest']}: the content has another digest")
        return data


def read_all(fd: int, at: int, size: int) -> bytes:
    parts = []
    while size:
        part = os.pread(fd, min(size, 1 << 24), at)
        need(part, "CHANGED", "a file became shorter while it was read")
        parts.append(part)
        at, size = at + len(part), size - len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


# ---- index and descriptors: "oci-layout, index.json" ----


def is_int(value: Any, low: int = -MAX_INT, high: int = MAX_INT) -> bool:
    return type(value) is int and low <= value <= high


def check_names(value: Dict[str, Any], where: str, result: str) -> None:
    for name in value:
        like = "".join(c.lower() if c < "\x80" else {"\u017f": "s", "\u212a": "k"}.get(c, c) for c in name)
        need(like not in FOLDED or FOLDED[like] == name, result, f"{where}: {name!r}, which others take for {FOLDED.get(like)!r}")


def check_descriptor(value: Any, where: str, result: str, listed: bool = False) -> None:
    need(isinstance(value, dict), result, f"{where}: a descriptor is an object")
    check_names(value, where, result)
    media_type, digest = value.get("mediaType"), value.get("digest")
    need(not isinstance(value.get("size"), Odd), "JSON", f"{where}.size: {value.get('size')}")
    need((listed and media_type is None) or isinstance(media_type, str) and MEDIA_TYPE.fullmatch(media_type), result, f"{where}.mediaType: type/subtype")
    need(isinstance(digest, str) and DIGEST.fullmatch(digest), result, f"{where}.digest: algorithm:encoded")
    need(not digest.startswith("sha256:") or SHA256.fullmatch(digest), result, f"{where}.digest: 64 lowercase hex digits")
    need(is_int(value.get("size"), 0), result, f"{where}.size: an integer from 0 to 2^53")


def check_opened(descriptor: Dict[str, Any], where: str, result: str) -> None:
    need(descriptor["digest"].startswith("sha256:"), result, f"{where}.digest: of a file that is opened, so sha256")


def check_annotations(value: Dict[str, Any], where: str, result: str, loose: bool = False) -> None:
    if "annotations" in value and not (loose and value["annotations"] is None):
        strings = value["annotations"]
        need(isinstance(strings, dict) and
             all(isinstance(s, str) and not isinstance(s, Odd) or (loose and s is None) for s in strings.values()), result,
             f"{where}.annotations: an object of strings")


def check_envelope(value: Any, media_type: str, where: str, result: str) -> None:
    """What index and manifest have in common."""
    need(isinstance(value, dict), result, f"{where}: an object")
    check_names(value, where, result)
    loose = media_type == INDEX_TYPE
    need(not isinstance(value.get("schemaVersion"), Odd), "JSON", f"{where}.schemaVersion: {value.get('schemaVersion')}")
    need(is_int(value.get("schemaVersion"), 2, 2), result, f"{where}.schemaVersion: 2")
    need(value.get("mediaType", media_type) in ([media_type, None] if loose else [media_type]), result,
         f"{where}.mediaType: absent or {media_type}")
    check_annotations(value, where, result, loose)


def read_index(layout: Layout) -> Tuple[Json, Dict[str, Any]]:
    if not os.path.lexists(os.path.join(layout.path, "index.json")) and not layout.has_blobs():
        refuse("NOT_FOUND", f"{layout.path}: no layout there")
    version = layout.read_json("oci-layout").parse()
    if isinstance(version, dict):
        check_names(version, "oci-layout", "LAYOUT")
    need(isinstance(version, dict) and version.get("imageLayoutVersion") == "1.0.0", "LAYOUT",
         "oci-layout.imageLayoutVersion: 1.0.0")
    text = layout.read_json("index.json")
    index = text.parse()
    check_envelope(index, INDEX_TYPE, "index.json", "INDEX")
    manifests = index.get("manifests", 0)
    need(manifests is None or isinstance(manifests, list), "INDEX", "index.json.manifests: an array or null")
    for i, entry in enumerate(manifests or []):
        check_descriptor(entry, f"index.json.manifests[{i}]", "INDEX", listed=True)
        check_annotations(entry, f"index.json.manifests[{i}]", "INDEX", loose=True)
    return text, index


def tag_of(entry: Dict[str, Any]) -> Optional[str]:
    return (entry.get("annotations") or {}).get(REF_NAME)


def find_entry(index: Dict[str, Any], ref: str) -> Dict[str, Any]:
    entries = index["manifests"] or []
    if ref.startswith("sha256:"):
        need(SHA256.fullmatch(ref), "ARG", f"{ref!r} is no digest")
        found = [entry for entry in entries if entry["digest"] == ref][:1]
    else:
        need(TAG.fullmatch(ref) or NAME_OF_OTHERS.fullmatch(ref), "ARG", f"{ref!r} is neither tag nor digest")
        found = [entry for entry in entries if tag_of(entry) == ref]
    need(found, "NOT_FOUND", f"{ref}: not in the index")
    need(len(found) == 1, "AMBIGUOUS", f"{ref}: {len(found)} entries have this tag")
    media_type = found[0].get("mediaType")
    need(media_type == MANIFEST_TYPE, "MEDIA_TYPE" if media_type else "INDEX", f"{ref}: its entry's mediaType is {media_type}")
    check_opened(found[0], ref, "INDEX")
    need(1 <= found[0]["size"] <= MAX_JSON, "INDEX", f"{ref}: a manifest of {found[0]['size']} bytes")
    return found[0]


# ---- manifest: "Manifest" ----


def check_manifest(manifest: Any) -> None:
    check_envelope(manifest, MANIFEST_TYPE, "manifest", "MANIFEST")
    if isinstance(manifest.get("subject"), dict):
        check_names(manifest["subject"], "manifest.subject", "MANIFEST")
    need(manifest.get("artifactType", ARTIFACT_TYPE) == ARTIFACT_TYPE, "MEDIA_TYPE", "manifest.artifactType: another artifact")
    config, layers = manifest.get("config"), manifest.get("layers")
    check_descriptor(config, "manifest.config", "MANIFEST")
    need(config["mediaType"] == CONFIG_TYPE, "MEDIA_TYPE", f"manifest.config.mediaType: {config['mediaType']}")
    version = manifest.get("annotations", {}).get("dev.hlsnap.version", "3")
    need(version == "3", "VERSION", f"manifest.annotations: format version {version}")
    check_opened(config, "manifest.config", "MANIFEST")
    need(1 <= config["size"] <= MAX_JSON, "MANIFEST", f"manifest.config.size: {config['size']}")
    need(isinstance(layers, list) and 2 <= len(layers) <= 2 * MAX_LAYERS and len(layers) % 2 == 0, "MANIFEST",
         f"manifest.layers: 2 to {2 * MAX_LAYERS} descriptors, in pairs")
    for i, layer in enumerate(layers):
        check_layer(layer, layers[i - 1] if i % 2 else None, f"manifest.layers[{i}]")
    memory = [layer["digest"] for layer in layers[::2]]
    need(len(set(memory)) == len(memory), "MANIFEST", "manifest.layers: two memory layers are the same blob")


def check_layer(layer: Any, memory: Optional[Dict[str, Any]], where: str) -> None:
    """A memory layer's descriptor, or a chunk list's when there is a memory layer in front of it."""
    check_descriptor(layer, where, "MANIFEST")
    media_type = CHUNKS_TYPE if memory else MEMORY_TYPE
    need(layer["mediaType"] == media_type, "MANIFEST", f"{where}.mediaType: {media_type}")
    check_opened(layer, where, "MANIFEST")
    if memory:
        need(layer["size"] == -(-memory["size"] // CHUNK) * 32, "MANIFEST", f"{where}.size: 32 times the number of chunks")
    else:
        need(layer["size"] % PAGE == 0 and PAGE <= layer["size"] <= MAX_LAYER_BYTES, "MANIFEST",
             f"{where}.size: a multiple of {PAGE}, from {PAGE} to 2^35")


# ---- config: "Config" ----


@dataclass
class Region:
    kind: str
    gva: int
    pages: int

    @property
    def end(self) -> int:
        return self.gva + self.pages * PAGE

    @property
    def stored(self) -> bool:
        return self.kind not in NOT_STORED


@dataclass
class Map:
    name: str
    mode: str
    source: str
    gva: int
    size: int
    digest: str

    @property
    def pages(self) -> int:
        return -(-self.size // PAGE)

    @property
    def end(self) -> int:
        return self.gva + self.pages * PAGE

    @property
    def stored(self) -> bool:
        return self.mode == "private" or self.source == "layers"


@dataclass
class Room:
    """Where an extent can lie: pages of a stored region, or of a map. Sparse: pages without extent are zero."""
    start: int
    end: int
    sparse: bool


Extent = Tuple[int, int, int, int]  # page, pages, layer, layer_page
Contract = List[Tuple[str, str]]    # name, signature
LayerInfo = Tuple[int, str]         # pages, digest of the chunk list


@dataclass
class Config:
    library: str
    guest_name: str
    build_id: str
    cpu_vendor: str
    hypervisor: str
    elf_entry: int
    load_address: int
    entry: int
    module: int
    syscall: int
    tls_size: int
    base: int
    pages: int
    regions: List[Region]
    exports: Contract
    imports: Contract
    cpu: str
    features: List[str]
    generation: int
    layers: List[LayerInfo]
    extents: List[Extent]
    maps: List[Map]
    arch: str = "x86_64"

    def document(self) -> Dict[str, Any]:
        """The object that writers write, its fields in their order."""
        return {
            "version": 3, "abi": 2, "arch": self.arch, "page_size": PAGE, "library": self.library,
            "guest": {"name": self.guest_name, "build_id": self.build_id, "elf_entry": hex(self.elf_entry),
                      "load_address": hex(self.load_address)},
            "entry": hex(self.entry), "module": hex(self.module), "syscall": hex(self.syscall), "tls_size": hex(self.tls_size),
            "window": {"base": hex(self.base), "pages": self.pages},
            "regions": [{"kind": r.kind, "gva": hex(r.gva), "pages": r.pages} for r in self.regions],
            "exports": [{"name": name, "signature": signature} for name, signature in self.exports],
            "imports": [{"name": name, "signature": signature} for name, signature in self.imports],
            "cpu": self.cpu, "features": self.features, "machine": {"cpu_vendor": self.cpu_vendor, "hypervisor": self.hypervisor},
            "generation": hex(self.generation),
            "layers": [{"pages": pages, "chunks": chunks} for pages, chunks in self.layers],
            "extents": [list(extent) for extent in self.extents],
            "maps": [{"name": m.name, "mode": m.mode, "source": m.source, "gva": hex(m.gva), "size": m.size, "digest": m.digest}
                     for m in self.maps],
        }

    def page_of(self, gva: int) -> int:
        return (gva - self.base) // PAGE if gva < MAPS else (self.pages + 1023) // 512 * 512 + (gva - MAPS) // PAGE

    def gva_of(self, page: int) -> int:
        return self.base + page * PAGE if page < self.pages else MAPS + (page - self.page_of(MAPS)) * PAGE

    def rooms(self) -> List[Room]:
        """All that is stored, ascending."""
        of_regions = [Room(self.page_of(r.gva), self.page_of(r.gva) + r.pages, True) for r in self.regions if r.stored]
        return of_regions + [Room(self.page_of(m.gva), self.page_of(m.gva) + m.pages, m.source == "layers") for m in self.maps if m.stored]

    def memory_ranges(self) -> List[Tuple[int, int]]:
        """Pages that count as memory: sparse rooms, and what extents show of others."""
        found, extents = [], sorted(self.extents)
        for room in self.rooms():
            if room.sparse:
                found.append((room.start, room.end))
            else:
                found += [(e[0], e[0] + e[1]) for e in extents if room.start <= e[0] < room.end]
        return found

    def own_extent(self, page: int, layer: int, layer_page: int) -> bool:
        """Shows a captured map's pages, each at its place in a layer of its size."""
        return any(m.source == "layers" and self.page_of(m.gva) <= page < self.page_of(m.gva) + m.pages == self.page_of(m.gva)
                   + self.layers[layer][0] and page - self.page_of(m.gva) == layer_page for m in self.maps)

    def own_layers(self) -> Set[int]:
        """Those of captured maps: what they showed when they were captured."""
        found: Set[int] = set()
        for m in self.maps:
            first = self.page_of(m.gva)
            own = (e[2] for e in self.extents if m.source == "layers" and 0 <= e[0] - first < m.pages and e[0] - first == e[3]
                   and self.layers[e[2]][0] == m.pages)
            found.update(list(own)[:1])
        return found

    def region_at(self, gva: int) -> Optional[Region]:
        return next((r for r in self.regions if r.gva <= gva < r.end), None)


class Fields:
    """One object of the config: exactly these names, each fetched with its rule."""

    def __init__(self, value: Any, names: str, where: str = "config"):
        self.value, self.where = value, where
        need(isinstance(value, dict), "CONFIG", f"{where}: an object")
        for name in value:
            need(name in names.split(), "CONFIG", f"{where}: the unknown name {name!r}")
        for name in names.split():
            need(name in value, "CONFIG", f"{where}.{name}: missing")

    def fail(self, name: str, rule: str) -> NoReturn:
        refuse("CONFIG", f"{self.where}.{name}: {rule}, not {str(self.value[name])[:60]!r}")

    def int(self, name: str, low: int, high: int) -> int:
        if not is_int(self.value[name], low, high):
            self.fail(name, f"an int from {low} to {high}")
        return self.value[name]

    def hex(self, name: str, below: int = 1 << 64) -> int:
        text = self.value[name]
        if not isinstance(text, str) or not HEX.fullmatch(text) or int(text, 16) >= below:
            self.fail(name, f"a hex string below {hex(below)}")
        return int(text, 16)

    def string(self, name: str, rule: Optional["re.Pattern[str]"] = None, limit: int = MAX_JSON) -> str:
        text = self.value[name]
        if not isinstance(text, str) or CONTROL.search(text) or len(text.encode()) > limit or (rule and not rule.fullmatch(text)):
            self.fail(name, f"a string of at most {limit} bytes" + (f", {rule.pattern}" if rule else ""))
        return text

    def array(self, name: str, low: int, high: int) -> List[Any]:
        if not isinstance(self.value[name], list) or not low <= len(self.value[name]) <= high:
            self.fail(name, f"an array of {low} to {high}")
        return self.value[name]


def check_platform(value: Any, any_machine: bool) -> None:
    """What is looked at first: behind another number or word, other rules may hold."""
    need(isinstance(value, dict), "CONFIG", "config: an object")
    for name in ("version", "abi"):
        need(is_int(value.get(name), 0), "CONFIG", f"config.{name}: an int from 0")
        need(value[name] == (3 if name == "version" else 2), "VERSION", f"config.{name}: {value[name]}")
    need(isinstance(value.get("arch"), str), "CONFIG", "config.arch: a string")
    need(any_machine or value["arch"] == "x86_64", "ARCH", f"config.arch: {value['arch'][:60]!r}")
    need(is_int(value.get("page_size"), 0), "CONFIG", "config.page_size: an int from 0")
    need(value["page_size"] == PAGE, "ARCH", f"config.page_size: {value['page_size']}")


def read_config(value: Any, manifest_layers: List[LayerInfo], any_machine: bool) -> Config:
    check_platform(value, any_machine)
    f = Fields(value, "version abi arch page_size library guest entry module syscall tls_size window regions exports imports cpu features "
                      "machine generation layers extents maps")
    guest = Fields(value["guest"], "name build_id elf_entry load_address", "config.guest")
    window = Fields(value["window"], "base pages", "config.window")
    machine = Fields(value["machine"], "cpu_vendor hypervisor", "config.machine")
    config = Config(
        arch=f.string("arch"), library=f.string("library", limit=63), guest_name=guest.string("name", limit=63),
        build_id=guest.string("build_id", BUILD_ID), elf_entry=guest.hex("elf_entry"), load_address=guest.hex("load_address"),
        cpu_vendor=machine.string("cpu_vendor", MACHINE, 12), hypervisor=machine.string("hypervisor", MACHINE, 31),
        entry=f.hex("entry"), module=f.hex("module"), syscall=f.hex("syscall"), tls_size=f.hex("tls_size"), base=window.hex("base", END_OF_ADDRESSES),
        pages=window.int("pages", 1, 8388608), regions=[read_region(r, i) for i, r in enumerate(f.array("regions", 1, 32))],
        exports=read_contract(f, "exports"), imports=read_contract(f, "imports"), cpu=f.string("cpu"),
        features=read_features(f, any_machine),
        generation=f.hex("generation", 1 << 63), layers=read_layers(f), extents=read_extents(f),
        maps=[read_map(m, i) for i, m in enumerate(f.array("maps", 0, MAX_MAPS))])
    check_regions(config)
    check_maps(config.maps)
    check_addresses(config)
    need(len(config.layers) == len(manifest_layers), "CONFIG", f"config.layers: the manifest has {len(manifest_layers)}")
    for i, (mine, other) in enumerate(zip(config.layers, manifest_layers)):
        need(mine == other, "CONFIG", f"config.layers[{i}]: {mine}, the manifest has {other}")
    check_extents(config)
    return config


def read_region(value: Any, i: int) -> Region:
    f = Fields(value, "kind gva pages", f"config.regions[{i}]")
    if value["kind"] not in KINDS:
        f.fail("kind", "one of " + " ".join(KINDS))
    if f.hex("gva") % PAGE:
        f.fail("gva", "page-aligned")
    return Region(value["kind"], f.hex("gva"), f.int("pages", 1, MAX_INT))


def read_map(value: Any, i: int) -> Map:
    f = Fields(value, "name mode source gva size digest", f"config.maps[{i}]")
    for name, words in (("mode", MODES), ("source", SOURCES)):
        if value[name] not in words:
            f.fail(name, "one of " + " ".join(words))
    if (value["mode"], value["source"]) not in MAP_KINDS:
        f.fail("source", "not layers, where the mode is shared")
    size = f.int("size", 1, MAX_CAPTURED if value["source"] == "layers" else END_OF_MAPS - MAPS)
    if value["digest"] != "":
        f.string("digest", SHA256)
    return Map(f.string("name", NAME), value["mode"], value["source"], f.hex("gva"), size, value["digest"])


def check_maps(maps: List[Map]) -> None:
    need(len({m.name for m in maps}) == len(maps), "CONFIG", "config.maps: names are unique")
    for i, m in enumerate(maps):
        need(m.gva % (1 << 21) == 0 and m.gva >= MAPS, "CONFIG", f"config.maps[{i}].gva: a multiple of 2 MiB, at least {hex(MAPS)}")
        need(m.gva + m.size <= END_OF_MAPS, "CONFIG", f"config.maps[{i}]: ends above {hex(END_OF_MAPS)}")
        need(i == 0 or m.gva > maps[i - 1].end, "CONFIG", f"config.maps[{i}]: ascending, with a page between them")


def read_contract(fields: Fields, which: str) -> Contract:
    functions: Dict[str, str] = {}
    for i, value in enumerate(fields.array(which, 0, 1024)):
        f = Fields(value, "name signature", f"config.{which}[{i}]")
        name = f.string("name", NAME)
        if name in functions:
            f.fail("name", "unique")
        functions[name] = f.string("signature", SIGNATURE)
    return list(functions.items())


def read_features(fields: Fields, any_machine: bool) -> List[str]:
    features = fields.array("features", 0, 256)
    for i, name in enumerate(features):
        need(isinstance(name, str) and FEATURE.fullmatch(name), "CONFIG", f"config.features[{i}]: {FEATURE.pattern}")
        need(i == 0 or features[i - 1] < name, "CONFIG", f"config.features[{i}]: strictly ascending")
    level = fields.string("cpu")
    need(level in LEVELS, "CONFIG", f"config.cpu: one of {' '.join(LEVELS)}")
    need(level == "host" or features == sorted(LEVELS[level].split()), "CONFIG", f"config.features: those of {level}")
    for name in features:
        need(any_machine or name in FEATURES, "CPU", f"config.features: {name} is unknown")
    return features


def read_layers(fields: Fields) -> List[LayerInfo]:
    found = []
    for i, value in enumerate(fields.array("layers", 1, MAX_LAYERS)):
        f = Fields(value, "pages chunks", f"config.layers[{i}]")
        found.append((f.int("pages", 1, MAX_LAYER_BYTES // PAGE), f.string("chunks", SHA256)))
    return found


def read_extents(fields: Fields) -> List[Extent]:
    extents = fields.array("extents", 0, MAX_EXTENTS)
    for i, e in enumerate(extents):
        need(isinstance(e, list) and len(e) == 4 and all(is_int(n, 0) for n in e) and e[1] >= 1, "CONFIG",
             f"config.extents[{i}]: [page,pages,layer,layer_page]")
    return [tuple(e) for e in extents]  # type: ignore[misc]


def check_regions(c: Config) -> None:
    end = c.base + c.pages * PAGE
    need(c.base % (1 << 21) == 0 and c.base >= LOWEST, "CONFIG", "config.window.base: a multiple of 2 MiB, at least 0x200000")
    need(end <= END_OF_ADDRESSES, "CONFIG", f"config.window: ends at {hex(end)}, above {hex(END_OF_ADDRESSES)}")
    for i, r in enumerate(c.regions):
        lowest = c.regions[i - 1].end if i else c.base
        need(r.gva >= lowest and r.end <= end, "CONFIG", f"config.regions[{i}]: ascending, without overlap, in the window")
    count = {kind: sum(r.kind == kind for r in c.regions) for kind in KINDS}
    need(count["text"], "CONFIG", "config.regions: no text")
    for kind in ("tls", "heap", "stack", "mailbox", "identity"):
        need(count[kind] == 1, "CONFIG", f"config.regions: {count[kind]} of kind {kind}")
    one = {r.kind: r for r in c.regions}
    need(one["tls"].end == one["identity"].gva, "CONFIG", "config.regions: tls directly below identity")
    need(one["identity"].pages == 1, "CONFIG", "config.regions: identity is one page")
    need(2 <= one["mailbox"].pages <= 65536, "CONFIG", "config.regions: mailbox has 2 to 65,536 pages")
    need(not c.region_at(one["stack"].gva - PAGE), "CONFIG", "config.regions: the page below the stack belongs to a region")


def check_addresses(c: Config) -> None:
    region = c.region_at(c.entry)
    need(region and region.kind == "text", "CONFIG", f"config.entry: {hex(c.entry)} is in no text region")
    region = c.region_at(c.module)
    need(c.module == 0 or region and region.stored, "CONFIG", f"config.module: {hex(c.module)} is in no region for it")
    region = c.region_at(c.syscall)
    need(c.syscall == 0 or region and region.kind == "text", "CONFIG", f"config.syscall: {hex(c.syscall)} is in no text region")
    tls = next(r for r in c.regions if r.kind == "tls")
    need(c.tls_size <= tls.pages * PAGE - RUNTIME_TLS, "CONFIG", f"config.tls_size: {hex(c.tls_size)} does not fit the region")


def check_extents(c: Config) -> None:
    rooms, used, behind, r = c.rooms(), [0] * len(c.layers), 0, 0
    for i, (page, pages, layer, layer_page) in enumerate(c.extents):
        where = f"config.extents[{i}]"
        need(page >= behind, "CONFIG", f"{where}: ascending, without overlap")
        behind = page + pages
        while r < len(rooms) and rooms[r].end <= page:
            r += 1
        need(r < len(rooms) and rooms[r].start <= page and behind <= rooms[r].end, "CONFIG", f"{where}: in one stored region or map")
        need(layer < len(c.layers) and layer_page + pages <= c.layers[layer][0], "CONFIG", f"{where}: in its layer")
        used[layer] += 0 if c.own_extent(page, layer, layer_page) else pages
    for layer, pages in enumerate(used):
        need(any(e[2] == layer for e in c.extents), "CONFIG", f"config.layers[{layer}]: no extent uses it")
        need(pages <= c.layers[layer][0], "CONFIG", f"config.layers[{layer}]: extents of {pages} pages, more than it has")


# ---- a snapshot: "Verifying" ----


@dataclass
class Snapshot:
    digest: str
    entry: Dict[str, Any]
    manifest_bytes: bytes
    manifest: Dict[str, Any]
    config_bytes: bytes
    config: Config
    fds: List[int]  # of the memory layers

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)

    def memory(self) -> Iterator[memoryview]:
        """All pages of stored regions and captured maps, and what extents show of other maps, in ascending order."""
        extents = iter(self.config.extents + [(1 << 60, 0, 0, 0)])
        e = next(extents)
        for page, end in self.config.memory_ranges():
            while page < end:
                if e[0] < end:
                    yield from zeros(e[0] - page)
                    yield from pieces(self.fds[e[2]], e[3], e[1])
                    page, e = e[0] + e[1], next(extents)
                else:
                    yield from zeros(end - page)
                    page = end

    def hashed(self) -> str:
        memory = hashlib.sha256()
        for part in self.memory():
            memory.update(part)
        return memory.hexdigest()

    def shown(self) -> int:
        return sum(e[1] for e in self.config.extents)

    def line(self, ref: str) -> str:
        pages = sum(r.pages for r in self.config.regions)
        return f"{ref} {self.digest} pages={pages} stored={self.shown()} layers={len(self.fds)} memory={self.hashed()}"

    def vector(self, ref: str, unhashed: bool) -> str:
        size = sum(end - start for start, end in self.config.memory_ranges()) * PAGE
        row = f"| `{ref}` | `{self.digest}` | {len(self.fds)} | {self.shown()} | {size:,} |"
        return row if unhashed else f"{row} `{self.hashed()}` |"


ZEROS = memoryview(bytes(1 << 20))


def zeros(pages: int) -> Iterator[memoryview]:
    size = pages * PAGE
    while size:
        part = ZEROS[:size]
        yield part
        size -= len(part)


def pieces(fd: int, page: int, pages: int) -> Iterator[memoryview]:
    while pages:
        n = min(pages, len(ZEROS) // PAGE)
        yield memoryview(read_all(fd, page * PAGE, n * PAGE))
        page, pages = page + n, pages - n


def load(layout: Layout, ref: str, any_machine: bool = False) -> Snapshot:
    """A sound snapshot. Whoever collects garbage may be faster than the first try."""
    for last in (False, True):
        try:
            return load_once(layout, ref, any_machine)
        except Missing:
            if last:
                raise
    raise AssertionError


def load_once(layout: Layout, ref: str, any_machine: bool) -> Snapshot:
    entry = find_entry(read_index(layout)[1], ref)
    manifest_bytes = layout.read_blob(entry)
    manifest = Json(manifest_bytes, "manifest").parse()
    check_manifest(manifest)
    config_bytes = layout.read_blob(manifest["config"])
    memories, lists = manifest["layers"][::2], manifest["layers"][1::2]
    pairs = [(m["size"] // PAGE, chunks["digest"]) for m, chunks in zip(memories, lists)]
    config = read_config(Json(config_bytes, "config").parse(), pairs, any_machine)
    snapshot = Snapshot(entry["digest"], entry, manifest_bytes, manifest, config_bytes, config, [])
    try:
        chunks = [layout.read_blob(chunk_list) for chunk_list in lists]
        for i, memory in enumerate(memories):
            snapshot.fds.append(layout.blob(memory))
            check_memory(snapshot.fds[i], memory, chunks[i], i)
    except BaseException:
        snapshot.close()
        raise
    return snapshot


def check_memory(fd: int, memory: Dict[str, Any], chunks: bytes, layer: int) -> None:
    whole = hashlib.sha256()
    for i in range(len(chunks) // 32):
        data = read_all(fd, i * CHUNK, min(CHUNK, memory["size"] - i * CHUNK))
        whole.update(data)
        need(hashlib.sha256(data).digest() == chunks[i * 32:i * 32 + 32], "DIGEST", f"layer {layer}: chunk {i} differs from the list")
    need("sha256:" + whole.hexdigest() == memory["digest"], "DIGEST", f"layer {layer}: differs from its own digest")


# ---- writing: "Manifest", "Config", "Writing" ----


def descriptor(media_type: str, data: bytes, title: str = "") -> Dict[str, Any]:
    found: Dict[str, Any] = {"mediaType": media_type, "digest": sha256(data), "size": len(data)}
    if title:
        found["annotations"] = {TITLE: title}
    return found


def manifest_document(config: Config, config_descriptor: Dict[str, Any], layers: List[Dict[str, Any]]) -> Dict[str, Any]:
    annotations = {"dev.hlsnap.abi": "2", "dev.hlsnap.arch": config.arch, "dev.hlsnap.build-id": config.build_id,
                   "dev.hlsnap.cpu.vendor": config.cpu_vendor, "dev.hlsnap.hypervisor": config.hypervisor,
                   "dev.hlsnap.library": config.library, "dev.hlsnap.version": "3"}
    return {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "artifactType": ARTIFACT_TYPE, "config": config_descriptor,
            "layers": layers, "annotations": {key: text for key, text in annotations.items() if text}}


def entry_document(manifest: bytes, tag: str, created: Optional[str] = None) -> Dict[str, Any]:
    return {"mediaType": MANIFEST_TYPE, "digest": sha256(manifest), "size": len(manifest),
            "annotations": {**({CREATED: created} if created else {}), REF_NAME: tag}, "artifactType": ARTIFACT_TYPE}


def chunk_list(memory: bytes) -> bytes:
    return b"".join(hashlib.sha256(memory[i:i + CHUNK]).digest() for i in range(0, len(memory), CHUNK))


def layer_info(memory: bytes) -> LayerInfo:
    return len(memory) // PAGE, sha256(chunk_list(memory))


def layer_descriptors(memory: bytes, i: int) -> List[Dict[str, Any]]:
    return [descriptor(MEMORY_TYPE, memory, f"layer{i}.mem"), descriptor(CHUNKS_TYPE, chunk_list(memory), f"layer{i}.chunks")]


@dataclass
class Made:
    """A snapshot made here, in memory."""
    config: Config
    layers: List[bytes]

    def blobs(self) -> Tuple[bytes, List[bytes]]:
        """The manifest, and the blobs below it."""
        config = to_json(self.config.document())
        layers = [d for i, memory in enumerate(self.layers) for d in layer_descriptors(memory, i)]
        manifest = to_json(manifest_document(self.config, descriptor(CONFIG_TYPE, config), layers))
        return manifest, [config] + self.layers + [chunk_list(memory) for memory in self.layers]

    def page(self, extent: Extent, i: int) -> bytes:
        at = (extent[3] + i) * PAGE
        return self.layers[extent[2]][at:at + PAGE]


class Writer:
    """A layout to write into. Locks and the order of steps are as the text says; nothing is fsynced, this is for tests."""

    def __init__(self, path: str):
        self.path, self.temporary = path, os.path.join(path, ".hlsnap-tmp")
        for name in ("", "blobs", "blobs/sha256", ".hlsnap-tmp"):
            os.makedirs(os.path.join(path, name), 0o700, exist_ok=True)
        self.lock_fd = os.open(os.path.join(path, ".hlsnap.lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def lock(self, byte: int, kind: int) -> None:
        fcntl.fcntl(self.lock_fd, fcntl.F_OFD_SETLKW, struct.pack("hhqqi4x", kind, os.SEEK_SET, byte, 1, 0))

    def put(self, name: str, data: bytes) -> None:
        temporary = os.path.join(self.temporary, str(os.getpid()))
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data.rstrip(b"\0"))
            file.truncate(len(data))
        os.rename(temporary, os.path.join(self.path, name))

    def put_blob(self, data: bytes) -> None:
        name = "blobs/sha256/" + sha256(data)[7:]
        path = os.path.join(self.path, name)
        if os.path.isfile(path) and not os.path.islink(path):
            with open(path, "rb") as file:
                if file.read() == data:
                    return
        self.put(name, data)

    def close(self) -> None:
        if os.path.isdir(self.temporary):
            os.rmdir(self.temporary)
        os.close(self.lock_fd)


def save(path: str, tag: str, made: Made) -> str:
    need(TAG.fullmatch(tag), "ARG", f"{tag!r} is no tag")
    if os.path.exists(os.path.join(path, "index.json")):
        read_index(Layout(path))
    writer = Writer(path)
    writer.lock(0, fcntl.F_RDLCK)
    manifest, blobs = made.blobs()
    for blob in blobs + [manifest]:
        writer.put_blob(blob)
    writer.lock(1, fcntl.F_WRLCK)
    index = index_with(path, entry_document(manifest, tag))
    if not os.path.exists(os.path.join(path, "oci-layout")):
        writer.put("oci-layout", to_json({"imageLayoutVersion": "1.0.0"}))
    writer.put("index.json", index)
    writer.close()
    return sha256(manifest)


def index_with(path: str, new: Dict[str, Any]) -> bytes:
    """The index with one entry more; everything else byte by byte as it stood."""
    if not os.path.exists(os.path.join(path, "index.json")):
        return to_json({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [new]})
    text, index = read_index(Layout(path))
    entries = index["manifests"] or []
    kept, digests = [], {new["digest"]} | {entry["digest"] for entry in entries if tag_of(entry) is None}
    for entry in entries:
        start, end = text.spans[id(entry)]
        if tag_of(entry) != new["annotations"][REF_NAME]:
            kept.append(text.text[start:end])
        elif entry["digest"] not in digests:
            digests.add(entry["digest"])
            rest = {name: s for name, s in (entry.get("annotations") or {}).items() if name != REF_NAME}
            kept.append(to_json({**entry, "annotations": rest}).decode())
    array = "[" + ",".join(kept + [to_json(new).decode()]) + "]"
    if index["manifests"] is None:
        whole = to_json({**index, "manifests": 0}).decode().replace('"manifests":0', f'"manifests":{array}')
    else:
        start, end = text.spans[id(index["manifests"])]
        whole = text.text[:start] + array + text.text[end:]
    need(len(whole.encode()) <= MAX_INDEX // 2, "LIMIT", "the index would pass 32 MiB")
    return whole.encode()


# ---- one layer: what writers make of a snapshot of which the layout holds nothing, but for what captured maps showed at first ----

Run = Tuple[int, int, int, int, int]  # first page, the one behind, number of the room; of an own layer: it, and its page; else -1, 0


def flatten(made: Made, mixed: bool = False) -> Made:
    """mixed: captured maps' own layers are not kept either."""
    config, rooms = made.config, made.config.rooms()
    own = set() if mixed else config.own_layers()
    pages = shown_pages(made, set(range(len(config.layers))) - own)
    kept = [(e[0], e[0] + e[1], room_of(rooms, e[0]), e[2], e[3]) for e in config.extents if e[2] in own]
    if not pages and not kept:
        pages[next(config.page_of(r.gva) for r in config.regions if r.kind == "text")] = bytes(PAGE)
    flat, found = copy.copy(config), together(sorted(kept + [(page, page + 1, room_of(rooms, page), -1, 0) for page in pages]))
    over = max(0, len(found) - MAX_EXTENTS)
    while True:
        found = joined(found, rooms, over)
        layers = [made.layers[i] for i in sorted({run[3] for run in found} - {-1})]
        number = {layer: i + any(run[3] == -1 for run in found) for i, layer in enumerate(sorted({run[3] for run in found} - {-1}))}
        flat.extents = numbered(found, number)
        fresh = [e for e, run in zip(flat.extents, found) if run[3] == -1]
        flat.layers = [(sum(e[1] for e in fresh), "sha256:" + "0" * 64)] * bool(fresh) + [layer_info(layer) for layer in layers]
        excess = len(to_json(flat.document())) - MAX_JSON
        if excess <= 0:
            break
        over = excess // len("[4294967295,4294967295,31,4294967295], ") + 1  # no extent is longer, so no more than need be
    everything, nothing = shown_pages(made), bytes(PAGE)
    memory = b"".join(everything.get(e[0] + i, nothing) for e in fresh for i in range(e[1]))
    if memory in layers:
        return flatten(made, True)
    layers = [memory] * bool(fresh) + layers
    flat.layers = [layer_info(layer) for layer in layers]
    return Made(flat, layers)


def room_of(rooms: List[Room], page: int) -> int:
    return next(i for i, room in enumerate(rooms) if room.start <= page < room.end)


def shown_pages(made: Made, layers: Optional[Set[int]] = None) -> Dict[int, bytes]:
    """The guest pages that must be stored, or those of them that lie in these layers: all but zeros in sparse rooms."""
    pages, rooms = {}, made.config.rooms()
    for extent in made.config.extents:
        sparse = rooms[room_of(rooms, extent[0])].sparse
        for i in range(extent[1] if layers is None or extent[2] in layers else 0):
            data = made.page(extent, i)
            if data.count(0) != PAGE or not sparse:
                pages[extent[0] + i] = data
    return pages


def merged_layers(config: Config) -> Set[int]:
    """Those whose pages a writer moves to a new layer when there are too many (it has nothing else that is new)."""
    own, shown = config.own_layers(), [0] * len(config.layers)
    for e in config.extents:
        shown[e[2]] += e[1]
    others = [i for i in range(len(config.layers)) if i not in own][1:]  # the first one stays
    found: Set[int] = set()
    if len(config.layers) <= MAX_WRITTEN:
        return found
    if sum(config.layers[i][0] for i in others) > 2 * sum(shown[i] for i in others) + 64:
        found = {i for i in others if config.layers[i][0] > 2 * shown[i]}
    rest = sorted((shown[i], i) for i in others if i not in found)
    least, total = max(8, len(config.layers) - len(found) + 1 - MAX_WRITTEN), 0
    if len(config.layers) - len(found) + 1 <= MAX_WRITTEN:
        return found
    for n, (size, i) in enumerate(rest):
        if n >= least and (rest[least - 1][0] <= 8 * rest[0][0] or size > total):
            break
        found.add(i)
        total += size
    return found


def save_again(made: Made) -> Made:
    """What a writer makes of a snapshot whose layers the layout holds, all of them: they stay, unless they are too many."""
    config, rooms, own = copy.copy(made.config), made.config.rooms(), sorted(made.config.own_layers())
    merged = merged_layers(config)
    pages = shown_pages(made, merged)
    kept = [i for i in range(len(config.layers)) if i not in merged and i not in own]
    above = sum(e[1] for e in config.extents if e[2] in kept[1:]) + len(pages)
    if pages and (above > config.layers[kept[0]][0] // 2 or len(kept) + len(own) + 1 > MAX_WRITTEN):
        return flatten(made)
    order = sorted(kept + [max(merged)] if pages else kept) + own
    parts = [(page, page + 1, room_of(rooms, page), -1, 0) for page in pages]
    parts += [(e[0], e[0] + e[1], room_of(rooms, e[0]), e[2], e[3]) for e in config.extents if e[2] not in merged]
    number = {layer: i for i, layer in enumerate(order)}
    config.extents = numbered(together(sorted(parts)), {**number, -1: number[max(merged)]} if pages else number)
    memory = b"".join(pages[page] for page in sorted(pages))
    layers = [memory if layer in merged else made.layers[layer] for layer in order]
    config.layers = [layer_info(layer) for layer in layers]
    return Made(config, layers)


def together(parts: List[Run]) -> List[Run]:
    """Of ascending runs those that simply go on are one."""
    found: List[Run] = []
    for run in parts:
        start, end, room, layer, at = run
        last = found[-1] if found else run
        if found and last[1:4] == (start, room, layer) and (layer == -1 or last[4] + last[1] - last[0] == at):
            found[-1] = (last[0], end, room, layer, last[4])
        else:
            found.append(run)
    return found


def joined(found: List[Run], rooms: List[Room], count: int) -> List[Run]:
    """So many neighbours of one room become one run of the new layer, those that cost the fewest pages; of equal ones the first."""
    def cost(a: Run, b: Run) -> int:
        return b[0] - a[1] + sum(run[1] - run[0] for run in (a, b) if run[3] != -1)

    costs = [(cost(a, b), i + 1) for i, (a, b) in enumerate(zip(found, found[1:]))
             if a[2] == b[2] and (a[1] == b[0] or rooms[a[2]].sparse)]
    closed, made = {i for _, i in sorted(costs)[:count]}, found[:1]
    need(count == 0 or closed, "LIMIT", "more extents than fit, and none to join")
    for i, run in enumerate(found[1:], 1):
        if i in closed:
            made[-1] = (made[-1][0], run[1], run[2], -1, 0)
        else:
            made.append(run)
    return together(made) if count else made


def numbered(found: List[Run], number: Dict[int, int]) -> List[Extent]:
    """Runs as extents: the new layer, -1, is number 0 unless another is said, and holds its runs one after the other."""
    extents, at = [], 0
    for start, end, _, layer, layer_page in found:
        extents.append((start, end - start, number.get(layer, 0), at if layer == -1 else layer_page))
        at += end - start if layer == -1 else 0
    return extents


# ---- making up snapshots ----


class Maker:
    """A random valid snapshot; the same one for the same seed."""

    NAMES = ("guest.elf", "", "a b", 'quo"te\\back/slash', "gäst-€-😀", "<&>", "x" * 63)

    def __init__(self, seed: int, num_layers: int, num_pages: int, features: List[str], small: bool = False, maps: int = 0):
        self.rng, self.seed, self.num_layers, self.small = random.Random(seed), seed, num_layers, small
        self.features, self.count, self.num_maps = features, 0, maps
        self.num_pages = max(num_pages or self.rng.randint(24, 300), num_layers + 24)

    def make(self) -> Made:
        self.place()
        self.config.maps = self.make_maps(random.Random(f"maps/{self.seed}"))
        order = self.order_layers(random.Random(f"order/{self.seed}"))
        captured = [m for m in order if m]
        self.stored = [p for r in self.config.regions if r.stored for p in range(self.page_of(r), self.page_of(r) + r.pages)]
        self.stored += [p for m in self.config.maps if m.stored for p in self.some_pages(m)]
        self.shown: Dict[int, Tuple[int, int]] = {}
        self.layers: List[bytes] = []
        firsts = {self.page_of(m) for m in captured}
        own = iter(self.rng.sample([p for p in self.stored if p not in firsts], self.num_layers))  # so that each layer is used
        owns = [self.page_of(m) if m else next(own) for m in order]
        self.base = order.index(None)
        for layer, m in enumerate(order):
            self.layers.append(self.capture(m, set(owns[:layer] + owns[layer + 1:])) if m else self.make_layer(layer, owns))
        self.config.layers = [layer_info(memory) for memory in self.layers]
        self.config.extents = self.make_extents()
        return Made(self.config, self.layers)

    def page_of(self, where: Any) -> int:
        return self.config.page_of(where.gva)

    def make_maps(self, rng: random.Random) -> List[Map]:
        """Of all kinds, one behind the other, at times up to the last address."""
        num = rng.choice([0, 1, 3, MAX_MAPS]) if self.num_maps < 0 else self.num_maps
        kinds = rng.sample(MAP_KINDS * 2, num)
        maps, at = [], MAPS + rng.choice([0, 0, 1 << 21, 5 << 30])
        names = sorted({"_", "a.b:$-9", "x" * 63} | {f"m{i}" for i in range(MAX_MAPS)})
        for (mode, source), name in zip(kinds, rng.sample(names, num)):
            pages = rng.choice([1, 2, 17, 40, 511, 512]) if source == "layers" else rng.choice([1, 3, 512, 513, 1 << 18])
            size = pages * PAGE - rng.choice([0, 0, 1, PAGE - 1])
            maps.append(Map(name, mode, source, at, size, rng.choice(["", "sha256:%064x" % rng.getrandbits(256)])))
            at = (maps[-1].end + PAGE + (1 << 21) - 1 >> 21 << 21) + rng.choice([0, 0, 1 << 21, 1 << 30])
        if maps and rng.random() < 0.5:
            maps[-1].gva = END_OF_MAPS - maps[-1].size >> 21 << 21
        return maps

    def order_layers(self, rng: random.Random) -> List[Optional[Map]]:
        """The chain's layers, None each, and between them those of some captured maps."""
        order: List[Optional[Map]] = [None] * self.num_layers
        for m in self.config.maps:
            if m.source == "layers" and len(order) < MAX_LAYERS and rng.random() < 0.8:
                order.insert(rng.randint(0, len(order)), m)
        return order

    def some_pages(self, m: Map) -> List[int]:
        """Pages of a map that layers write to: its ends and something between them, or all of a small one."""
        first = self.page_of(m)
        if m.pages <= 40:
            return list(range(first, first + m.pages))
        return sorted({first, first + 1, first + m.pages - 1} | set(range(first + m.pages // 3, first + m.pages // 3 + 20)))

    def capture(self, m: Map, foreign: Set[int]) -> bytes:
        first, pages = self.page_of(m), [self.new_page() for _ in range(m.pages)]
        if b"".join(pages) in self.layers:
            pages[0] = self.full_page()
        for i in range(m.pages):
            if first + i not in foreign:
                self.shown[first + i] = (len(self.layers), i)
        return b"".join(pages)

    def place(self) -> None:
        rng = self.rng
        groups = [["text"] for _ in range(rng.randint(1, 4))] + [["rodata"] for _ in range(rng.randint(0, 4))]
        groups += [["data"] for _ in range(rng.randint(0, 4))] + [["tls", "identity"], ["heap"], ["stack"], ["mailbox"]]
        rng.shuffle(groups)
        base = rng.choice([LOWEST, 0x400000, 0x7FFFFFE00000 & 0x3FFFFFE00000, 0x10000000000])
        regions, at = [], base + PAGE * rng.choice([0, 0, 1, 600])
        for group in groups:
            at += PAGE * (rng.choice([0, 0, 1, 7]) or int(group == ["stack"] and bool(regions)))
            for kind in group:
                pages = 1 if kind == "identity" else rng.choice([2, 16, 33]) if kind == "mailbox" else rng.randint(1, 6)
                if kind == "heap":
                    pages = self.num_pages
                regions.append(Region(kind, at, pages))
                at = regions[-1].end
        self.config = self.describe(base, (at - base) // PAGE + rng.choice([0, 0, 1, 511]), regions)

    def describe(self, base: int, pages: int, regions: List[Region]) -> Config:
        rng = self.rng
        where = lambda *kinds: rng.choice([r for r in regions if r.kind in kinds])
        inside = lambda r: rng.randrange(r.gva, r.end)
        tls = where("tls")
        return Config(
            library="0.3.0", guest_name=rng.choice(self.NAMES), build_id="%0*x" % (40, rng.getrandbits(160)) * rng.randint(0, 1),
            cpu_vendor=rng.choice(["", "GenuineIntel", "AMDisbetter!", "  Shanghai  "]), hypervisor=rng.choice(["", "kvm", "x" * 31]),
            elf_entry=rng.getrandbits(64), load_address=rng.choice([0, 0x400000, (1 << 64) - PAGE]),
            entry=inside(where("text")), module=rng.choice([0, inside(where("text", "rodata", "data", "tls", "heap", "stack"))]),
            syscall=rng.choice([0, inside(where("text"))]),
            tls_size=rng.choice([0, rng.randint(0, tls.pages * PAGE - RUNTIME_TLS), tls.pages * PAGE - RUNTIME_TLS]),
            base=base, pages=pages, regions=regions, exports=self.functions(rng.choice([0, 1, 5, 40])),
            imports=self.functions(rng.choice([0, 1, 5])), cpu="host", features=self.features,
            generation=rng.choice([0, 1, rng.getrandbits(62), (1 << 63) - 1]), layers=[], extents=[], maps=[])

    def functions(self, num: int, longest: bool = False) -> Contract:
        rng, types = self.rng, "bool i32 u32 i64 u64 f32 f64 str bytes".split()
        found: Dict[str, str] = {}
        while len(found) < num:
            size, args = (62, ["bytes"] * 32) if longest else (rng.randint(0, 62), rng.choices(types, k=rng.choice([0, 1, 3, 32])))
            name = rng.choice("AZaz_") + "".join(rng.choices("AZaz_09.:$-", k=size))
            found[name] = ("bytes" if longest else rng.choice(["void"] + types)) + "(" + ",".join(args) + ")"
        return list(found.items())

    def new_page(self) -> bytes:
        """Bytes that look like anything, a lone byte, or nothing but zeros."""
        self.count += 1
        kind = self.rng.randrange(8)
        if kind == 0:
            return bytes(PAGE)
        if kind == 1:
            at = self.rng.choice([0, PAGE - 1, self.rng.randrange(PAGE)])
            return bytes(at) + b"\x01" + bytes(PAGE - 1 - at)
        return hashlib.shake_128(f"{self.seed}/{self.count}".encode()).digest(PAGE)

    def full_page(self) -> bytes:
        self.count += 1
        return self.count.to_bytes(8, "little") * (PAGE // 8)

    def make_layer(self, layer: int, own: List[int]) -> bytes:
        rng, memory, foreign = self.rng, [], set(own[:layer] + own[layer + 1:])
        writes = {own[layer]} | (set(self.stored) - foreign if self.small and layer == self.base else set())
        for _ in range(rng.randint(1, 4) + (12 if layer == self.base else 0)):
            start = rng.randrange(len(self.stored))
            run = self.stored[start:start + rng.randint(1, 3 if self.small and layer != self.base else 20)]
            if layer != self.base and rng.random() < 0.2:
                self.forget(set(run) - set(own))
            else:
                writes.update(set(run) - foreign)
        for page in sorted(writes):
            while rng.random() < 0.1:
                memory.append(self.new_page())  # that no extent shows, unless by chance
            self.shown[page] = (layer, len(memory))
            memory.append(self.new_page())
        for page in rng.sample(self.stored, 2):  # shown twice, or again from an older layer
            if page not in own:
                older = rng.randint(0, layer)
                pages = len(memory) if older == layer else len(self.layers[older]) // PAGE
                if sum(shown[0] == older for shown in self.shown.values()) < pages:  # not more than it has
                    self.shown[page] = (older, rng.randrange(pages))
        made = b"".join(memory)
        return made + self.full_page() if made in self.layers else made  # no two layers are the same

    def forget(self, pages: Any) -> None:
        for page in pages:
            self.shown.pop(page, None)

    def make_extents(self) -> List[Extent]:
        extents: List[Extent] = []
        starts = {room.start for room in self.config.rooms()}
        for page in sorted(self.shown):
            layer, layer_page = self.shown[page]
            last = extents[-1] if extents else (0, 0, 0, 0)
            follows = extents and page not in starts and last[0] + last[1] == page and last[2] == layer and last[3] + last[1] == layer_page
            if follows and self.rng.random() < 0.9:  # neighbours need not be one extent
                extents[-1] = (last[0], last[1] + 1, layer, last[3])
            else:
                extents.append((page, 1, layer, layer_page))
        return extents


def without_content(made: Made) -> Made:
    layers: List[bytes] = []
    for memory in made.layers:
        longer = next(n for n in range(len(memory), 1 << 62, PAGE) if all(len(other) != n for other in layers))
        layers.append(bytes(longer))  # of several sizes, since no two layers are the same
    config = copy.copy(made.config)
    config.layers = [layer_info(memory) for memory in layers]
    return Made(config, layers)


def make_scattered(seed: int) -> Made:
    """So many lone pages that the config just fits 1 MiB, and not once the zero pages inside its extents are left out."""
    maker = Maker(seed, 1, 0, [])
    maker.place()
    config, rng = maker.config, maker.rng
    config.exports, config.imports = maker.functions(1024, True), maker.functions(1024, True)
    heap = next(r for r in config.regions if r.kind == "heap")
    first, spread = (heap.gva - config.base) // PAGE, 5
    room = MAX_JSON - len(to_json(config.document())) - 200
    parts, at, used = [], 0, 0
    while True:
        holes = rng.choice([1, 1, 2, 2, 5]) if rng.random() < 0.04 else 0  # zero pages inside
        extent = (first + len(parts) * 2 * spread, holes + (2 if holes else 1), 0, at)
        used += len(to_json(list(extent))) + 1
        if used > room:
            break
        config.extents.append(extent)
        parts.append(maker.full_page() + (bytes(holes * PAGE) + maker.full_page() if holes else b""))
        at += extent[1]
    more = (len(parts) + 1) * 2 * spread - heap.pages
    for r in config.regions:
        if r.gva > heap.gva:
            r.gva += more * PAGE
    config.pages, heap.pages = config.pages + more, heap.pages + more
    config.entry, config.module, config.syscall = next(r.gva for r in config.regions if r.kind == "text"), 0, 0
    memory = b"".join(parts)
    config.layers = [layer_info(memory)]
    return Made(config, [memory])


# ---- mutants: one change, and digests that match again ----


class Mutant:
    """A small snapshot whose parts can be changed before they are chained; parts given as bytes stay as they are."""

    BASES: Dict[Tuple[int, int], Made] = {}

    def __init__(self, seed: int, maps: int = 0):
        if (seed, maps) not in self.BASES:
            self.BASES[seed, maps] = Maker(seed, 3, 40, [], maps=maps).make()
        self.made = self.BASES[seed, maps]
        self.config: Any = copy.deepcopy(self.made.config.document())
        self.memory = list(self.made.layers)
        self.lists = [chunk_list(memory) for memory in self.memory]
        self.on_manifest: List[Callable[[Dict[str, Any]], Any]] = []
        self.on_index: List[Callable[[Dict[str, Any]], Any]] = []
        self.on_files: List[Callable[[str, "Mutant"], None]] = []
        self.manifest: Any = None
        self.layout: bytes = b'{"imageLayoutVersion":"1.0.0"}'

    def kind(self, kind: str) -> Dict[str, Any]:
        return next(r for r in self.config["regions"] if r["kind"] == kind)

    def resize(self, layer: int, pages: int, filler: bytes = b"\x05") -> None:
        self.memory[layer] = self.memory[layer][:pages * PAGE].ljust(pages * PAGE, filler)
        self.lists[layer] = chunk_list(self.memory[layer])
        self.config["layers"][layer] = {"pages": pages, "chunks": sha256(self.lists[layer])}

    def write(self, path: str) -> None:
        writer = Writer(path)
        config = self.config if isinstance(self.config, bytes) else to_json(self.config)
        layers = []
        for i, (memory, chunks) in enumerate(zip(self.memory, self.lists)):
            layers += [descriptor(MEMORY_TYPE, memory, f"layer{i}.mem"), descriptor(CHUNKS_TYPE, chunks, f"layer{i}.chunks")]
        self.manifest = manifest_document(self.made.config, descriptor(CONFIG_TYPE, config), layers)
        manifest = changed(self.manifest, self.on_manifest)
        index = changed({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [entry_document(manifest, "m")]}, self.on_index)
        for blob in [config, manifest] + self.memory + self.lists:
            writer.put_blob(blob)
        writer.put("oci-layout", self.layout)
        writer.put("index.json", index)
        writer.close()
        for change in self.on_files:
            change(path, self)


def changed(document: Dict[str, Any], changes: List[Callable[[Dict[str, Any]], Any]]) -> bytes:
    """Each change edits the document, or returns the bytes to take instead."""
    for change in changes:
        instead = change(document)
        if isinstance(instead, bytes):
            return instead
    return to_json(document)


def put(value: Any, *path: Any) -> Callable[[Mutant], None]:
    """Sets one place of the config; a function is asked for the value."""
    def change(m: Mutant) -> None:
        inner = m.config
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = value(m) if callable(value) else value
    return change


def text(edit: Callable[[bytes], bytes]) -> Callable[[Mutant], None]:
    """Edits the config's bytes."""
    def change(m: Mutant) -> None:
        m.config = edit(to_json(m.config))
    return change


def on(part: str, edit: Callable[[Dict[str, Any]], Any]) -> Callable[[Mutant], None]:
    """Edits the manifest or the index, after it was made."""
    return lambda m: getattr(m, "on_" + part).append(edit)


def entry(name: str, value: Any) -> Callable[[Mutant], None]:
    return on("index", lambda d: d["manifests"][0].__setitem__(name, value))


def other_entry(**fields: Any) -> Callable[[Mutant], None]:
    """One more entry, of somebody else."""
    other = {"mediaType": "application/x", "digest": "sha256:" + "0" * 64, "size": 1}
    return on("index", lambda d: d["manifests"].insert(0, {**other, **fields}))


def file(edit: Callable[[str, Mutant], Any]) -> Callable[[Mutant], None]:
    return lambda m: m.on_files.append(lambda path, made: edit(path, made) and None)


def blob_path(path: str, digest: str) -> str:
    return os.path.join(path, "blobs/sha256", digest[7:])


def overwrite(name: str, data: bytes) -> Callable[[Mutant], None]:
    def edit(path: str, _: Mutant) -> None:
        with open(os.path.join(path, name), "wb") as f:
            f.write(data)
    return file(edit)


def change_blob(which: Callable[[Mutant], bytes], edit: Callable[[bytes], bytes]) -> Callable[[Mutant], None]:
    """Other content under the old name."""
    def change(path: str, m: Mutant) -> None:
        data = which(m)
        with open(blob_path(path, sha256(data)), "wb") as f:
            f.write(edit(data))
    return file(change)


def replace_file(name: Callable[[str, Mutant], str], make: Callable[[str], Any]) -> Callable[[Mutant], None]:
    """The file moves to NAME.old, and something else takes its place."""
    def change(path: str, m: Mutant) -> None:
        old = name(path, m)
        os.rename(old, old + ".old")
        make(old)
    return file(change)


def link(path: str) -> None:
    os.symlink(os.path.basename(path) + ".old", path)


def nothing(_: str) -> None:
    pass


def in_layout(name: str) -> Callable[[str, Mutant], str]:
    return lambda path, m: os.path.join(path, name)


def of_memory(path: str, m: Mutant) -> str:
    return blob_path(path, sha256(m.memory[0]))


def flip(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at % len(data)] + bytes([data[at % len(data)] ^ 1]) + data[at % len(data) + 1:]


def shown_page(m: Mutant) -> int:
    """A page of layer 0 that an extent shows."""
    return next(e[3] for e in m.made.config.extents if e[2] == 0)


def flip_shown(m: Mutant) -> None:
    change_blob(lambda m: m.memory[0], flip(shown_page(m) * PAGE))(m)


def flip_hidden(m: Mutant) -> None:
    """A byte in a chunk that no extent touches."""
    m.resize(0, len(m.memory[0]) // PAGE + 32)
    change_blob(lambda m: m.memory[0], flip(-1))(m)


def false_digest(m: Mutant) -> None:
    """The memory layer's digest is wrong, its chunk list is right."""
    name = "sha256:" + "1" * 64
    on("manifest", lambda d: d["layers"][0].__setitem__("digest", name))(m)
    file(lambda path, m: os.rename(of_memory(path, m), blob_path(path, name)))(m)


def layer_sizes(m: Mutant) -> None:
    """Layers of sizes that differ, so that no two can stand for each other."""
    for i in range(len(m.memory)):
        m.resize(i, 80 + 17 * i)


def equal_sizes(m: Mutant) -> None:
    for i in range(len(m.memory)):
        m.resize(i, 100)


def all_of(*changes: Callable[[Mutant], None]) -> Callable[[Mutant], None]:
    def change(m: Mutant) -> None:
        for each in changes:
            each(m)
    return change


def layers(edit: Callable[[List[Any]], Any]) -> Callable[[Mutant], None]:
    return on("manifest", lambda d: d.__setitem__("layers", edit(d["layers"])))


def grow(kind: str, pages: int) -> Callable[[Mutant], None]:
    """A region of another size; what stands above it moves."""
    def change(m: Mutant) -> None:
        c, region = m.config, m.kind(kind)
        old, more = int(region["gva"], 16) + region["pages"] * PAGE, pages - region["pages"]
        moved = lambda gva: hex(int(gva, 16) + (more * PAGE if int(gva, 16) >= old else 0))
        for r in c["regions"]:
            r["gva"] = moved(r["gva"])
        region["pages"] = pages
        first = (old - int(c["window"]["base"], 16)) // PAGE
        c["extents"] = [[e[0] + (more if e[0] >= first else 0)] + e[1:] for e in c["extents"]]
        c["window"]["pages"] += more
        c["entry"], c["module"], c["syscall"] = moved(c["entry"]), moved(c["module"]), moved(c["syscall"])
    return change


def shift(base: Callable[[Mutant], int]) -> Callable[[Mutant], None]:
    """The whole window stands elsewhere."""
    def change(m: Mutant) -> None:
        c = m.config
        by = base(m) - int(c["window"]["base"], 16)
        move = lambda gva: hex(int(gva, 16) + by)
        c["window"]["base"], c["entry"] = move(c["window"]["base"]), move(c["entry"])
        c["module"], c["syscall"] = (move(c[name]) if c[name] != "0x0" else "0x0" for name in ("module", "syscall"))
        for r in c["regions"]:
            r["gva"] = move(r["gva"])
    return change


def window_end(m: Mutant) -> int:
    last = m.config["regions"][-1]
    return (int(last["gva"], 16) - int(m.config["window"]["base"], 16)) // PAGE + last["pages"]


def more_regions(num: int) -> Callable[[Mutant], None]:
    def change(m: Mutant) -> None:
        last = m.config["regions"][-1]
        end = int(last["gva"], 16) + last["pages"] * PAGE
        m.config["window"]["pages"] += 100
        for i in range(num - len(m.config["regions"])):
            m.config["regions"].append({"kind": "rodata", "gva": hex(end + i * PAGE), "pages": 1})
    return change


def more_layers(num: int) -> Callable[[Mutant], None]:
    """Layers that each show one page of a heap that is large enough."""
    def change(m: Mutant) -> None:
        grow("heap", m.kind("heap")["pages"] + num)(m)
        heap = m.kind("heap")
        end = (int(heap["gva"], 16) - int(m.config["window"]["base"], 16)) // PAGE + heap["pages"]
        new = num - len(m.memory)
        m.config["extents"] += [[end - new + i, 1, len(m.memory) + i, 0] for i in range(new)]
        m.config["extents"].sort()
        for i in range(new):
            m.memory.append(bytes([i + 1]) * PAGE)
            m.lists.append(chunk_list(m.memory[-1]))
            m.config["layers"].append({"pages": 1, "chunks": sha256(m.lists[-1])})
    return change


def many_extents(num: int) -> Callable[[Mutant], None]:
    def change(m: Mutant) -> None:
        grow("heap", m.kind("heap")["pages"] + num)(m)
        heap, have = m.kind("heap"), len(m.config["extents"])
        m.resize(0, len(m.memory[0]) // PAGE + num, b"\0")
        end = (int(heap["gva"], 16) - int(m.config["window"]["base"], 16)) // PAGE + heap["pages"]
        m.config["extents"] += [[end - num + i, 1, 0, 0] for i in range(num - have)]
        m.config["extents"].sort()
    return change


def fill_layer(more: int) -> Callable[[Mutant], None]:
    """As many pages shown of layer 0 as it has, or more: its first page again and again."""
    def change(m: Mutant) -> None:
        have = sum(e[1] for e in m.config["extents"] if e[2] == 0)
        num = len(m.memory[0]) // PAGE - have + more
        grow("heap", m.kind("heap")["pages"] + num)(m)
        heap = m.kind("heap")
        end = (int(heap["gva"], 16) - int(m.config["window"]["base"], 16)) // PAGE + heap["pages"]
        m.config["extents"] += [[end - num + i, 1, 0, 0] for i in range(num)]
        m.config["extents"].sort()
    return change


def edit_extents(edit: Callable[[List[Any]], Any]) -> Callable[[Mutant], None]:
    return lambda m: m.config.__setitem__("extents", edit(m.config["extents"]))


def edit_regions(edit: Callable[[List[Any], Mutant], Any]) -> Callable[[Mutant], None]:
    return lambda m: edit(m.config["regions"], m) and None


def below_stack(m: Mutant) -> None:
    stack = int(m.kind("stack")["gva"], 16)
    i = next(i for i, r in enumerate(m.config["regions"]) if r["kind"] == "stack")
    m.config["regions"].insert(i, {"kind": "rodata", "gva": hex(stack - PAGE), "pages": 1})


def to_window_base(kind: str) -> Callable[[Mutant], None]:
    """Everything but one region goes away below it: it stands at page 0."""
    def change(m: Mutant) -> None:
        regions = m.config["regions"]
        i = next(i for i, r in enumerate(regions) if r["kind"] == kind)
        regions.insert(0, regions.pop(i))
        at = int(m.config["window"]["base"], 16)
        for r in regions:
            at += PAGE * (r["kind"] != kind and r["kind"] != "identity")
            r["gva"] = hex(at)
            at += r["pages"] * PAGE
        m.config["window"]["pages"] = (at - int(m.config["window"]["base"], 16)) // PAGE
        m.config["entry"], m.config["module"], m.config["syscall"] = m.kind("text")["gva"], "0x0", "0x0"
        m.resize(0, 3)
        m.memory, m.lists, m.config["layers"] = m.memory[:1], m.lists[:1], m.config["layers"][:1]
        m.config["extents"] = [[0, 1, 0, 2]]
    return change


def gva(kind: str, plus: int = 0) -> Callable[[Mutant], str]:
    return lambda m: hex(int(m.kind(kind)["gva"], 16) + plus)


def function(which: str, name: str, signature: str) -> Callable[[Mutant], None]:
    return lambda m: m.config[which].append({"name": name, "signature": signature})


def functions(num: int) -> Callable[[Mutant], None]:
    return put(lambda m: [{"name": f"f{i}", "signature": "void()"} for i in range(num)], "exports")


def tls_limit(plus: int) -> Callable[[Mutant], str]:
    return lambda m: hex(m.kind("tls")["pages"] * PAGE - RUNTIME_TLS + plus)


def unknown(part: str, raw: bytes) -> Callable[[Mutant], None]:
    """An unknown name, with this JSON behind it."""
    return on(part, lambda d: b'{"x-unknown":' + raw + b"," + to_json(d)[1:])


def pad_config(size: int) -> Callable[[Mutant], None]:
    return text(lambda data: data + b" " * (size - len(data)))


def replaced(old: bytes, new: bytes) -> Callable[[Mutant], None]:
    return text(lambda data: data.replace(old, new, 1))


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def values_of_manifest(num: int) -> Callable[[Mutant], None]:
    """A manifest of exactly so many values, counting objects, arrays and the outermost."""
    def edit(d: Dict[str, Any]) -> bytes:
        count = lambda v: 1 + sum(map(count, v.values() if isinstance(v, dict) else v if isinstance(v, list) else []))
        return b'{"x-unknown":[' + b",".join([b"0"] * (num - count(d) - 1)) + b"]," + to_json(d)[1:]
    return on("manifest", edit)


def config_mutants() -> Iterator[Tuple[str, str, Callable[[Mutant], None]]]:
    def values(name: str, path: str, good: List[Any] = [], bad: List[Any] = [], result: str = "CONFIG") -> Iterator[Any]:
        for i, value in enumerate(good):
            yield f"{name}-good{i}", "OK", put(value, *path.split("."))
        for i, value in enumerate(bad):
            yield f"{name}-bad{i}", result, put(value, *path.split("."))

    yield from values("version", "version", [], [0, 1, 2, 4, 1 << 53], "VERSION")
    yield from values("version-type", "version", [], ["0", None, [], False, -1])
    yield from values("abi", "abi", [], [0, 1, 3], "VERSION")
    yield from values("abi-type", "abi", [], ["0", None, -1])
    yield "arch-first", "ARCH", lambda m: m.config.update(arch="arm64", page_size=65536, entry="x", surplus=1)
    yield "abi-first", "VERSION", lambda m: m.config.update(abi=3, arch="arm64", surplus=1)
    yield "page_size-first", "ARCH", lambda m: m.config.update(page_size=65536, entry="x", surplus=1)
    yield "version-first", "VERSION", lambda m: m.config.update(version=4, abi="x", surplus=1)
    yield from values("arch", "arch", [], ["aarch64", ""], "ARCH")
    yield from values("arch-type", "arch", [], [0, None])
    yield from values("page_size", "page_size", [], [16384, 0], "ARCH")
    yield from values("page_size-type", "page_size", [], ["4096", None])
    for path in ("library", "guest.name"):
        yield from values(path, path, ["", "x" * 63, "é" * 31 + "x", "a\u00a0b", '"\\/', "<&>"],
                          ["x" * 64, "é" * 32, "a\nb", "\x1f", "a\x7f", "a\u0085b", "\x9b2J", 1, None])
    yield from values("build_id", "guest.build_id", ["", "0", "0123456789abcdef", "f" * 47], ["f" * 48, "AB", "0x1", "g", " ", 1])
    yield from values("cpu_vendor", "machine.cpu_vendor", ["", "GenuineIntel", " !+-._09azAZ"], ["x" * 13, "a<b", "\u00e9", "a\n", 1, None])
    yield from values("hypervisor", "machine.hypervisor", ["", "kvm", "x" * 31], ["x" * 32, "a&b", "a/b", '"', 1, None])
    hexes = ["", "0x", "0", "0x00", "0x01", "0X1", "0xA", " 0x1", "0x1 ", "-0x1", "0x10000000000000000", 1, None, "1"]
    for path in ("guest.elf_entry", "guest.load_address"):
        yield from values(path, path, ["0x0", "0x1f", "0xffffffffffffffff"], hexes)
    yield from values("generation", "generation", ["0x0", "0x7fffffffffffffff"], ["0x8000000000000000"] + hexes)
    yield from values("entry", "entry", [gva("text"), gva("text", PAGE - 1)], ["0x0", gva("heap"), gva("mailbox"), gva("identity"),
                      "0xffffffffffffffff", lambda m: m.config["window"]["base"] + "000"])
    yield from values("module", "module", ["0x0", gva("text"), gva("heap"), gva("stack", 7)],
                      ["0x1", gva("mailbox"), gva("identity"), gva("stack", -1), "0xffffffffffffffff"])
    yield from values("syscall", "syscall", ["0x0", gva("text"), gva("text", PAGE - 1)], ["0x1", gva("heap"), gva("stack"), gva("mailbox"),
                      "0x103080", "0xffffffffffffffff"] + hexes)
    yield from values("tls_size", "tls_size", ["0x0", tls_limit(0)], [tls_limit(1), "0xffffffffffffffff", 0])
    yield from values("window.pages", "window.pages", [window_end, 8388608], [lambda m: window_end(m) - 1, 0, -1, "1", 8388609])
    yield from values("window.base", "window.base", [], ["0x0", "0xfffffffffffff000"] + hexes[:4])
    yield "window-lowest", "OK", shift(lambda m: LOWEST)
    yield "window-too-low", "CONFIG", shift(lambda m: 0)
    yield "window-unaligned", "CONFIG", shift(lambda m: 0x300000)
    for plus, result in ((0, "OK"), (1, "CONFIG")):
        for name, pages in (("top", 4096), ("top-large", 8388608)):
            yield f"window-{name}{plus}", result, all_of(shift(lambda m, pages=pages: END_OF_ADDRESSES - pages * PAGE),
                                                         put(pages + plus if pages == 4096 or not plus else pages, "window", "pages"),
                                                         shift(lambda m, plus=plus, pages=pages: END_OF_ADDRESSES - pages * PAGE +
                                                               (plus << 21 if pages != 4096 else 0)))

    yield from values("regions", "regions", [], [[], None, {}, [1]])
    yield "regions-swapped", "CONFIG", edit_regions(lambda r, m: r.insert(1, r.pop(0)))
    yield "regions-same", "CONFIG", edit_regions(lambda r, m: r.insert(0, dict(r[0])))
    yield "regions-overlap", "CONFIG", edit_regions(lambda r, m: r[0].update(pages=(int(r[1]["gva"], 16) - int(r[0]["gva"], 16)) // PAGE + 1))
    yield "regions-32", "OK", more_regions(32)
    yield "regions-33", "CONFIG", more_regions(33)
    yield "regions-unaligned", "CONFIG", edit_regions(lambda r, m: r[-1].update(gva=hex(int(r[-1]["gva"], 16) + 1)))
    yield "regions-below-window", "CONFIG", edit_regions(lambda r, m: r.insert(
        0, {"kind": "rodata", "gva": hex(int(m.config["window"]["base"], 16) - PAGE), "pages": 1}))
    for i, kind in enumerate(("", "Text", "code", "rw", None, 0)):
        yield f"regions-kind{i}", "CONFIG", edit_regions(lambda r, m, kind=kind: r[0].update(kind=kind))
    for i, pages in enumerate((0, -1, "1", 1 << 52, 1 << 53)):
        yield f"regions-pages{i}", "CONFIG", edit_regions(lambda r, m, pages=pages: r[-1].update(pages=pages))
    yield "regions-surplus", "CONFIG", edit_regions(lambda r, m: r[0].update(flags=0))
    yield "regions-missing", "CONFIG", edit_regions(lambda r, m: r[0].pop("pages"))
    for kind in ("tls", "heap", "stack", "mailbox", "identity"):
        yield f"regions-no-{kind}", "CONFIG", edit_regions(lambda r, m, kind=kind: m.kind(kind).update(kind="data"))
        yield f"regions-two-{kind}", "CONFIG", all_of(more_regions(19), edit_regions(lambda r, m, kind=kind: r[-1].update(kind=kind)))
    yield "regions-no-text", "CONFIG", edit_regions(lambda r, m: [x.update(kind="rodata") for x in r if x["kind"] == "text"])
    for pages, result in ((1, "CONFIG"), (2, "OK"), (65536, "OK"), (65537, "CONFIG")):
        yield f"mailbox-{pages}", result, grow("mailbox", pages)
    yield "identity-2", "CONFIG", grow("identity", 2)
    yield "tls-apart", "CONFIG", all_of(grow("tls", 9), edit_regions(lambda r, m: m.kind("tls").update(pages=8)))
    yield "heap-16GiB", "OK", grow("heap", 4194304)
    yield "stack-2GiB", "OK", grow("stack", 524288)
    yield "below-stack", "CONFIG", below_stack
    yield "stack-at-base", "OK", to_window_base("stack")
    yield "mailbox-at-base", "CONFIG", to_window_base("mailbox")  # page 0 is then not stored, and an extent shows it

    for which in ("exports", "imports"):
        yield from values(which, which, [[]], [None, {}, [1], [{"name": "a"}], [{"name": "a", "signature": "void()", "x": 1}]])
        for i, name in enumerate(("_9", "A.:$-9", "x" * 63)):
            yield f"{which}-name-good{i}", "OK", function(which, name, "void()")
        for i, name in enumerate(("", "9a", ".a", "a b", "x" * 64, "ä", "a/b", "a\n", 1)):
            yield f"{which}-name-bad{i}", "CONFIG", function(which, name, "void()")  # type: ignore[arg-type]
    for i, signature in enumerate(("bool(i32,u32,i64,u64,f32,f64,str,bytes)", "bytes(" + ",".join(["bytes"] * 32) + ")")):
        yield f"signature-good{i}", "OK", function("exports", "zz", signature)
    for i, signature in enumerate(("", "void", "void(", "void()x", "void(void)", "i32(i32,)", "i32(,i32)", "i32(i32 )", "i32 (i32)", "I32()",
                                   "int()", "i32(i32", "(i32)", "void()\n", "i32(i32i32)", "i32(" + ",".join(["i32"] * 33) + ")", None)):
        yield f"signature-bad{i}", "CONFIG", function("exports", "zz", signature)  # type: ignore[arg-type]
    yield "exports-twice", "CONFIG", all_of(function("exports", "zz", "void()"), function("exports", "zz", "i32()"))
    yield "exports-and-imports", "OK", all_of(function("exports", "zz", "void()"), function("imports", "zz", "void()"))
    yield "exports-1024", "OK", functions(1024)
    yield "exports-1025", "CONFIG", functions(1025)

    yield from values("features", "features", [[], ["sse3"], ["cx16", "sse3"]],
                      [["sse3", "cx16"], ["sse3", "sse3"], ["SSE3"], [""], ["x" * 32], ["sse4.1"], [1], None, "sse3"])
    def level(cpu: str, features: str) -> Callable[[Mutant], None]:
        return all_of(put(cpu, "cpu"), put(sorted(features.split()), "features"))

    yield from values("cpu", "cpu", ["host"], ["", "v0", "v5", "V2", "host ", "v2", "v3", "v4", "x86-64-v2", None, 0, 2, True, ["v2"], {}])
    yield "cpu-v1", "OK", level("v1", "")
    yield "cpu-v2", "OK", level("v2", LEVELS["v2"])
    for i, (cpu, features) in enumerate([("v1", "sse3"), ("v2", ""), ("v2", LEVELS["v2"] + " aes"), ("v2", LEVELS["v2"][5:]),
                                         ("v2", LEVELS["v2"] + " zzz"), ("v3", LEVELS["v2"]), ("v4", LEVELS["v3"])]):
        yield f"cpu-features{i}", "CONFIG", level(cpu, features)
    yield from values("features-unknown", "features", [], [["zzz"], ["x" * 31], ["amx_tile", "sse3"]], "CPU")
    yield "features-257", "refused", put([f"a{i:03}" for i in range(257)], "features")

    yield from values("layers", "layers", [], [[], None, [1], ["1", "2", "3"], [1, 2, 3], {}])
    for i, pages in enumerate((0, -1, "1", None, 1 << 52, 7777)):
        yield f"layers-pages{i}", "CONFIG", put(pages, "layers", 1, "pages")
    for i, chunks in enumerate(("", "a" * 64, "sha256:" + "a" * 64, "sha256:" + "A" * 64, None, lambda m: m.config["layers"][0]["chunks"],
                                lambda m: m.config["layers"][1]["chunks"] + "0", lambda m: sha256(m.memory[1]))):
        yield f"layers-chunks{i}", "CONFIG", put(chunks, "layers", 1, "chunks")
    yield "layers-surplus", "CONFIG", put(0, "layers", 1, "digest")
    yield "layers-missing", "CONFIG", lambda m: m.config["layers"][1].pop("chunks")
    yield "layers-more", "CONFIG", lambda m: m.config["layers"].append(m.config["layers"][0])
    yield "layers-swapped", "CONFIG", all_of(layer_sizes, lambda m: m.config["layers"].reverse())
    yield "layers-128", "OK", more_layers(128)
    yield "layers-129", "MANIFEST", more_layers(129)
    yield "layers-unused", "CONFIG", edit_extents(lambda e: [x for x in e if x[2] != 1])
    yield from values("extents", "extents", [], [[], None, [1], [[]], [[0, 1, 0]], {}])
    for i in range(4):
        for j, bad in enumerate((-1, 1 << 53, "0", None, (1 << 32) + 0, (1 << 31))):
            yield f"extents-{i}-bad{j}", "CONFIG", put(bad, "extents", 0, i)
    yield "extents-5", "CONFIG", edit_extents(lambda e: [e[0] + [0]] + e[1:])
    yield "extents-no-pages", "CONFIG", put(0, "extents", 0, 1)
    yield "extents-twice", "CONFIG", edit_extents(lambda e: e[:1] + e)
    yield "extents-order", "CONFIG", edit_extents(lambda e: e[::-1])
    yield "extents-layer", "CONFIG", edit_extents(lambda e: e[:-1] + [[e[-1][0], e[-1][1], 3, 0]])
    yield "extents-layer-end", "CONFIG", lambda m: m.config["extents"][0].__setitem__(3, m.config["layers"][m.config["extents"][0][2]])
    yield "extents-other-page", "OK", edit_extents(lambda e: [[x[0], x[1], x[2], 0] if x[1] == 1 else x for x in e])
    yield "extents-split", "OK", edit_extents(lambda e: [y for x in e for y in [[x[0] + i, 1, x[2], x[3] + i] for i in range(x[1])]])
    yield "extents-mailbox", "CONFIG", all_of(to_window_base("mailbox"))
    yield "extents-guard", "CONFIG", lambda m: m.config["extents"].append([m.config["window"]["pages"], 1, 0, 0])
    yield "extents-two-regions", "CONFIG", all_of(to_window_base("stack"), lambda m: m.config["extents"][0].__setitem__(1, 3),
                                                  edit_regions(lambda r, m: r[0].update(pages=1)))
    yield "extents-fill-layer", "OK", fill_layer(0)
    yield "extents-overfill-layer", "CONFIG", fill_layer(1)
    yield "extents-32768", "OK", many_extents(MAX_EXTENTS)
    yield "extents-32769", "CONFIG", many_extents(MAX_EXTENTS + 1)

    for name in ("version", "abi", "arch", "page_size", "library", "guest", "entry", "module", "syscall", "tls_size", "window", "regions", "exports",
                 "imports", "cpu", "features", "machine", "generation", "layers", "extents", "maps"):
        yield f"without-{name}", "CONFIG", lambda m, name=name: m.config.pop(name)
        yield f"null-{name}", "CONFIG", put(None, name)
    for outer, name in (("guest", "name"), ("guest", "build_id"), ("window", "base"), ("window", "pages"),
                        ("machine", "cpu_vendor"), ("machine", "hypervisor")):
        yield f"without-{outer}.{name}", "CONFIG", lambda m, outer=outer, name=name: m.config[outer].pop(name)
    for outer in ("guest", "window", "machine"):
        yield f"surplus-{outer}", "CONFIG", put(0, outer, "surplus")
    yield "surplus", "CONFIG", put(0, "surplus")
    yield "surplus-case", "CONFIG", put(0, "Version")
    yield "other-case", "CONFIG", lambda m: m.config.__setitem__("Arch", m.config.pop("arch"))
    yield "reversed", "OK", lambda m: setattr(m, "config", dict(reversed(list(m.config.items()))))
    for i, whole in enumerate((b"[]", b"0", b"null", b'"x"', b"{}")):
        yield f"whole{i}", "CONFIG", text(lambda data, whole=whole: whole)


def a_map(**fields: Any) -> Dict[str, Any]:
    return {"name": "m", "mode": "private", "source": "host", "gva": hex(MAPS), "size": 100 * PAGE, "digest": "", **fields}


def with_maps(*maps: Any, extents: Any = ()) -> Callable[[Mutant], None]:
    """These, and extents of layer 0 whose pages are counted from that at 0x7f0000000000."""
    def change(m: Mutant) -> None:
        m.resize(0, len(m.memory[0]) // PAGE + 200)
        m.config["maps"] = list(maps)
        m.config["extents"] += [[m.made.config.page_of(MAPS) + page, pages, 0, 0] for page, pages in extents]
    return change


def map_mutants() -> Iterator[Tuple[str, str, Callable[[Mutant], None]]]:
    def one(what: str, good: List[Any], bad: List[Any], **fields: Any) -> Iterator[Any]:
        name = what.split("-")[0]
        for result, values in (("OK", good), ("CONFIG", bad)):
            for i, value in enumerate(values):
                yield f"map-{what}-{result.lower()}{i}", result, with_maps(a_map(**{**fields, name: value}))

    hexes = ["", "0x", "0x07f0000000000", "0X7f0000000000", "0x7F0000000000", MAPS, None]
    yield from one("name", ["_9", "A.:$-9", "x" * 63], ["", "9a", "a b", "x" * 64, "ä", "a\n", 1, None])
    yield from one("mode", list(MODES), ["", "Read", "rw", "read ", 0, None, []])
    yield from one("source", list(SOURCES), ["", "Host", "file", 0, None, True])
    yield from one("source-read", list(SOURCES), [], mode="read")
    yield from one("source-shared", ["host", "optional"], ["layers"], mode="shared")
    yield from one("gva", [hex(MAPS), hex(MAPS + (1 << 21)), hex(END_OF_MAPS - (1 << 21))], hexes + [
        hex(gva) for gva in (0, MAPS - (1 << 21), MAPS + 1, MAPS + PAGE, MAPS + (1 << 20), END_OF_MAPS, END_OF_MAPS + (1 << 21),
                             (1 << 64) - (1 << 21))])
    yield from one("size", [1, PAGE - 1, PAGE, PAGE + 1, END_OF_MAPS - MAPS], [0, -1, "1", None, END_OF_MAPS - MAPS + 1, MAX_INT])
    yield from one("size-captured", [MAX_CAPTURED], [MAX_CAPTURED + 1], source="layers")
    yield from one("size-at-end", [(1 << 21) - 1, 1 << 21], [(1 << 21) + 1, 1 << 22], gva=hex(END_OF_MAPS - (1 << 21)))
    yield from one("digest", ["", "sha256:" + "0123456789abcdef" * 4],
                   ["sha256:", "sha256:" + "A" * 64, "sha256:" + "a" * 63, "sha256:" + "a" * 65, "sha512:" + "a" * 128, "a" * 64, " ", 0, None])
    for field in a_map():
        yield f"map-without-{field}", "CONFIG", with_maps({name: value for name, value in a_map().items() if name != field})
    yield "map-surplus", "CONFIG", with_maps(a_map(pages=100))
    for i, maps in enumerate(({}, "", 0, [[]], [None], ["m"], [1], [{}])):
        yield f"maps-bad{i}", "CONFIG", put(maps, "maps")

    def row(num: int, step: int, size: int) -> List[Any]:
        return [a_map(name=f"m{i}", gva=hex(MAPS + i * step), size=size) for i in range(num)]

    huge, most = 1 << 21, (1 << 21) - PAGE
    yield "maps-16", "OK", with_maps(*row(16, huge, PAGE))
    yield "maps-16-large", "OK", with_maps(*row(16, 4 << 30, (4 << 30) - PAGE))
    yield "maps-17", "CONFIG", with_maps(*row(17, huge, PAGE))
    yield "maps-descending", "CONFIG", with_maps(*row(2, huge, PAGE)[::-1])
    yield "maps-same-place", "CONFIG", with_maps(*row(2, 0, PAGE))
    yield "maps-same-name", "CONFIG", with_maps(*[{**m, "name": "m"} for m in row(2, huge, PAGE)])
    yield "maps-overlap", "CONFIG", with_maps(*row(2, huge, 2 * huge))
    yield "maps-touch", "CONFIG", with_maps(*row(2, huge, huge))
    yield "maps-a-page-apart", "OK", with_maps(*row(2, huge, most))

    stored = [(mode, source) for mode, source in MAP_KINDS if mode == "private" or source == "layers"]
    for mode, source in MAP_KINDS:
        yield (f"map-extent-{mode}-{source}", "OK" if (mode, source) in stored else "CONFIG",
               with_maps(a_map(mode=mode, source=source), extents=[(0, 1), (7, 93)]))
    for mode, source in stored:
        for name, result, size, extents in (("end", "OK", 100 * PAGE, [(99, 1)]), ("last-byte", "OK", 99 * PAGE + 1, [(99, 1)]),
                                            ("behind", "CONFIG", 99 * PAGE, [(99, 1)]), ("over", "CONFIG", 99 * PAGE, [(98, 2)]),
                                            ("before", "CONFIG", 99 * PAGE, [(-1, 1)]), ("from-before", "CONFIG", 99 * PAGE, [(-1, 2)]),
                                            ("far", "CONFIG", 99 * PAGE, [(1 << 24, 1)]), ("none", "OK", 99 * PAGE, [])):
            yield f"map-extent-{mode}-{source}-{name}", result, with_maps(a_map(mode=mode, source=source, size=size), extents=extents)
    yield "map-extent-of-two", "CONFIG", with_maps(*row(2, huge, most), extents=[(510, 3)])
    yield "map-extent-between", "CONFIG", with_maps(*row(2, huge, most), extents=[(511, 1)])
    yield "map-extent-second", "OK", with_maps(*row(2, huge, most), extents=[(510, 1), (512, 1)])
    yield "map-extent-of-none", "CONFIG", with_maps(extents=[(0, 1)])
    yield "map-extent-behind-window", "CONFIG", all_of(
        with_maps(a_map()), lambda m: m.config["extents"].append([m.config["window"]["pages"], 1, 0, 0]))
    yield "map-extent-64GiB", "OK", with_maps(a_map(size=END_OF_MAPS - MAPS), extents=[(0, 1), ((1 << 24) - 1, 1)])
    yield "map-extent-last-number", "OK", all_of(  # as large as a page's may be
        with_maps(a_map(size=END_OF_MAPS - MAPS)), put(8388608, "window", "pages"),
        lambda m: m.config["extents"].append([8388608 + 512 + (1 << 24) - 1, 1, 0, 0]))


def json_mutants() -> Iterator[Tuple[str, str, Callable[[Mutant], None]]]:
    yield "json-blanks", "OK", text(lambda data: b" \t\r\n" + data.replace(b',"', b' ,\n\t"').replace(b":[", b": [ ") + b"\r\n")
    yield "json-escaped-name", "OK", replaced(b'"arch"', b'"\\u0061rch"')
    yield "json-escaped-value", "OK", replaced(b'"x86_64"', b'"\\u0078\\u00386_64"')
    yield "json-slash", "OK", replaced(b'"library":"', b'"library":"\\/')
    yield "json-pair", "OK", replaced(b'"library":"', b'"library":"\\ud83D\\uDE00')
    yield "json-1MiB", "OK", pad_config(MAX_JSON)
    yield "json-over-1MiB", "refused", pad_config(MAX_JSON + 1)
    for name, data in (("empty-blank", b" "), ("bom", b"\xef\xbb\xbf{}"), ("two", b"{}{}"), ("comma", b"{},"), ("open", b"{"), ("word", b"tru"),
                       ("nan", b"NaN"), ("quote", b"'a'"), ("comment", b"{}//"), ("nul", b"{}\0"), ("vt", b"\v{}"), ("nbsp", b"\xc2\xa0{}")):
        yield f"json-{name}", "JSON", text(lambda _, data=data: data)
    yield "json-trailing", "JSON", text(lambda data: data[:-1] + b",}")
    yield "json-trailing-array", "JSON", text(lambda data: data[:-2] + b",]}")
    yield "json-colon", "JSON", replaced(b'"abi":', b'"abi"')
    yield "json-unquoted", "JSON", replaced(b'"abi"', b"abi")
    yield "json-cut", "JSON", text(lambda data: data[:-1])
    yield "json-twice", "JSON", replaced(b'"abi":2', b'"abi":2,"abi":2')
    yield "json-twice-escaped", "JSON", replaced(b'"abi":2', b'"abi":2,"\\u0061bi":1')
    yield "json-twice-inside", "JSON", replaced(b'"elf_entry"', b'"name":"","elf_entry"')
    for i, number in enumerate((b"0.0", b"0e0", b"0E1", b"-0", b"00", b"+0", b".0", b"0.", b"0x0", b"9007199254740993", b"-9007199254740993",
                                b"1" * 5000, b"-", b"1e400", b"Infinity")):
        yield f"json-number{i}", "JSON", replaced(b'"abi":2', b'"abi":' + number)
    for i, string in enumerate((b"\x1f", b"\n", b"\\u0000", b"\\ud800", b"\\udc00", b"\\ud800\\u0041", b"\\udc00\\ud800", b"\\x41", b"\\u12", b"\\",
                                b"\x80", b"\xc0\x80", b"\xc1\xbf", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xf0\x80\x80\x80", b"\xf4\x90\x80\x80",
                                b"\xf5\x80\x80\x80", b"\xff", b"\xc3", b"\xe2\x82", b"\xed\xa0\xbd\xed\xb8\x80", b"\0")):
        yield f"json-string{i}", "JSON", replaced(b'"library":"', b'"library":"' + string)
    for part in ("manifest", "index"):
        for i, raw in enumerate((b"9007199254740992", b"-9007199254740992", b"[true,false,null]", nested(15), b'"\\n\x7f"', b'{"a":1,"A":2}')):
            yield f"json-{part}-good{i}", "OK", unknown(part, raw)
        for i, raw in enumerate((b"9007199254740993", b"-9007199254740993", b"0.5", b"1e3", b"-0")):
            yield f"json-{part}-odd{i}", "JSON" if part == "manifest" else "OK", unknown(part, raw)
        for i, raw in enumerate((nested(16), nested(300000), b'{"a":1,"\\u0061":2}', b'"\\u0000"', b"01", b"1.", b".5", b"1e", b"+1")):
            yield f"json-{part}-bad{i}", "JSON", unknown(part, raw)
    yield "json-values", "OK", values_of_manifest(MAX_VALUES)
    yield "json-values-over", "JSON", values_of_manifest(MAX_VALUES + 1)
    yield "json-manifest-over", "refused", unknown("manifest", b'"' + b"x" * MAX_JSON + b'"')
    yield "json-index-values", "OK", unknown("index", b"[" + b"0," * MAX_VALUES + b"0]")
    yield "json-index-over", "LIMIT", unknown("index", b'"' + b"x" * MAX_INDEX + b'"')


def manifest_mutants() -> Iterator[Tuple[str, str, Callable[[Mutant], None]]]:
    def of(name: str, result: str, edit: Callable[[Dict[str, Any]], Any]) -> Tuple[str, str, Callable[[Mutant], None]]:
        return f"manifest-{name}", result, on("manifest", lambda d: edit(d) and None)

    for i, value in enumerate((1, "2", None, 3)):
        yield of(f"schema{i}", "MANIFEST", lambda d, value=value: d.update(schemaVersion=value))
    yield of("no-schema", "MANIFEST", lambda d: d.pop("schemaVersion"))
    yield of("no-mediaType", "OK", lambda d: d.pop("mediaType"))
    yield of("no-artifactType", "OK", lambda d: d.pop("artifactType"))
    yield of("no-annotations", "OK", lambda d: d.pop("annotations"))
    yield of("other-annotations", "OK", lambda d: d.update(annotations={"dev.hlsnap.abi": "7", "dev.hlsnap.arch": "vax"}))
    yield of("subject", "OK", lambda d: d.update(subject=7, Layer=[]))
    yield of("urls", "OK", lambda d: d["layers"][0].update(urls=7, data=[], platform=None))
    yield of("mediaType", "refused", lambda d: d.update(mediaType=INDEX_TYPE))
    yield of("mediaType-null", "refused", lambda d: d.update(mediaType=None))
    yield of("artifactType", "MEDIA_TYPE", lambda d: d.update(artifactType="application/x"))
    yield of("artifactType-null", "refused", lambda d: d.update(artifactType=None))
    for i, value in enumerate((None, [], {"a": 1}, {"a": None}, "a")):
        yield of(f"annotations{i}", "MANIFEST", lambda d, value=value: d.update(annotations=value))
    yield of("no-config", "MANIFEST", lambda d: d.pop("config"))
    yield of("config-type", "MEDIA_TYPE", lambda d: d["config"].update(mediaType="application/vnd.oci.image.config.v1+json"))
    yield of("config-empty", "refused", lambda d: d["config"].update(size=0))
    yield of("config-size", "SIZE", lambda d: d["config"].update(size=d["config"]["size"] + 1))
    yield of("config-negative", "MANIFEST", lambda d: d["config"].update(size=-1))
    yield of("config-sha512", "refused", lambda d: d["config"].update(digest="sha512:" + "a" * 128))
    for i, digest in enumerate(("sha256:" + "A" * 64, "sha256:" + "a" * 63, "sha256:" + "a" * 65, "sha256:", "a" * 64, "SHA256:" + "a" * 64,
                                "sha256:" + "/" * 64, "sha256:../../index.json", None, 1)):
        yield of(f"digest{i}", "MANIFEST", lambda d, digest=digest: d["config"].update(digest=digest))
    for i, value in enumerate(([], None, {}, [1, 2])):
        yield of(f"layers{i}", "MANIFEST", lambda d, value=value: d.update(layers=value))
    yield of("layers-odd", "MANIFEST", lambda d: d["layers"].pop())
    yield of("layers-pair-order", "MANIFEST", lambda d: d["layers"].insert(0, d["layers"].pop(1)))
    yield of("layers-memories-first", "MANIFEST", lambda d: d.update(layers=d["layers"][::2] + d["layers"][1::2]))
    yield of("memory-type", "MANIFEST", lambda d: d["layers"][0].update(mediaType="application/octet-stream"))
    yield of("memory-size-0", "MANIFEST", lambda d: d["layers"][0].update(size=0))
    yield of("memory-size-odd", "MANIFEST", lambda d: d["layers"][0].update(size=PAGE + 1))
    yield of("memory-size-huge", "MANIFEST", lambda d: d["layers"][0].update(size=MAX_LAYER_BYTES + PAGE))
    yield of("chunks-size", "MANIFEST", lambda d: d["layers"][1].update(size=d["layers"][1]["size"] + 32))
    yield of("chunks-size-31", "MANIFEST", lambda d: d["layers"][1].update(size=d["layers"][1]["size"] - 1))
    yield of("no-size", "MANIFEST", lambda d: d["layers"][0].pop("size"))
    yield of("memory-sha512", "refused", lambda d: d["layers"][0].update(digest="sha512:" + "a" * 128))
    yield of("chunks-sha512", "refused", lambda d: d["layers"][1].update(digest="sha512:" + "a" * 128))
    yield "manifest-whole", "MANIFEST", on("manifest", lambda d: b"[]")

    yield "layers-swap", "CONFIG", all_of(layer_sizes, layers(lambda l: l[2:4] + l[:2] + l[4:]))
    yield "layers-remove", "CONFIG", layers(lambda l: l[:-2])
    yield "layers-remove-first", "CONFIG", layers(lambda l: l[2:])
    yield "layers-add", "refused", layers(lambda l: l + l[:2])
    yield "layers-replace", "refused", all_of(layer_sizes, layers(lambda l: l[:2] + l[:2] + l[4:]))
    yield "layers-swap-equal", "CONFIG", all_of(equal_sizes, layers(lambda l: l[2:4] + l[:2] + l[4:]))
    yield "layers-replace-equal", "refused", all_of(equal_sizes, layers(lambda l: l[:2] + l[:2] + l[4:]))
    yield "layers-replace-memory", "refused", all_of(equal_sizes, layers(lambda l: l[:2] + [l[0]] + l[3:]))
    yield "layers-replace-chunks", "refused", all_of(equal_sizes, layers(lambda l: l[:3] + [l[1]] + l[4:]))
    yield "layers-same-blob", "MANIFEST", all_of(equal_sizes, lambda m: m.config["layers"].__setitem__(1, m.config["layers"][0]),
                                           layers(lambda l: l[:2] + l[:2] + l[4:]))


def index_mutants() -> Iterator[Tuple[str, str, Callable[[Mutant], None]]]:
    def of(name: str, result: str, edit: Callable[[Dict[str, Any]], Any]) -> Tuple[str, str, Callable[[Mutant], None]]:
        return f"index-{name}", result, on("index", lambda d: edit(d) and None)

    yield of("null", "NOT_FOUND", lambda d: d.update(manifests=None))
    yield of("empty", "NOT_FOUND", lambda d: d.update(manifests=[]))
    yield of("no-manifests", "INDEX", lambda d: d.pop("manifests"))
    yield of("manifests-object", "INDEX", lambda d: d.update(manifests={}))
    yield of("no-schema", "INDEX", lambda d: d.pop("schemaVersion"))
    yield of("schema", "INDEX", lambda d: d.update(schemaVersion=1))
    yield of("no-mediaType", "OK", lambda d: d.pop("mediaType"))
    yield of("mediaType", "INDEX", lambda d: d.update(mediaType=MANIFEST_TYPE))
    yield of("unknown", "OK", lambda d: d.update(subject=1, Manifest=0, artifactType=7))
    for name in ("Manifests", "MANIFESTS", "manife\u017ft\u017f", "schemaversion", "Annotations", "MediaType", "Digest", "\u017fize"):
        yield of(f"fold-{name}", "INDEX", lambda d, name=name: d.update({name: 0}))
        yield f"entry-fold-{name}", "INDEX", entry(name, 0)
        yield f"other-fold-{name}", "INDEX", other_entry(**{name: 0})
        yield f"manifest-fold-{name}", "MANIFEST", on("manifest", lambda d, name=name: d.update({name: 0}) and None)
        yield f"config-fold-{name}", "MANIFEST", on("manifest", lambda d, name=name: d["config"].update({name: 0}) and None)
        yield f"subject-fold-{name}", "MANIFEST", on("manifest", lambda d, name=name: d.update(subject={name: 0}) and None)
        yield f"memory-fold-{name}", "MANIFEST", on("manifest", lambda d, name=name: d["layers"][0].update({name: 0}) and None)
        yield f"annotation-fold-{name}", "OK", on("index", lambda d, name=name: d["manifests"][0]["annotations"].update({name: "x"}) and None)
    yield of("mediaType-null", "OK", lambda d: d.update(mediaType=None))
    yield of("annotations-null", "OK", lambda d: d.update(annotations=None))
    yield "entry-annotations-null", "NOT_FOUND", entry("annotations", None)
    yield "other-annotations-null", "OK", other_entry(annotations=None, artifactType=None)
    yield of("annotation-null", "OK", lambda d: d.update(annotations={"a": None}))
    yield "other-annotation-null", "OK", other_entry(annotations={"a": None, REF_NAME: None})
    yield "entry-annotation-null", "OK", on("index", lambda d: d["manifests"][0]["annotations"].update({"a": None}) and None)
    yield "other-type-null", "OK", other_entry(mediaType=None)
    yield "entry-type-null", "INDEX", entry("mediaType", None)
    yield of("fraction", "OK", lambda d: d.update(x=[0.5, 1e300, -0.0, 2**64]))
    yield of("schema-fraction", "JSON", lambda d: d.update(schemaVersion=2.0))
    yield "other-size-fraction", "JSON", other_entry(size=3.0)
    yield "manifest-version", "VERSION", on("manifest", lambda d: d["annotations"].update({"dev.hlsnap.version": "0"}) and None)
    yield of("annotations-good", "OK", lambda d: d.update(annotations={"a": "b"}))
    for i, value in enumerate((7, [], {"a": 1}, {"a": True})):
        yield of(f"annotations{i}", "INDEX", lambda d, value=value: d.update(annotations=value))
        yield f"entry-annotations{i}", "INDEX", entry("annotations", value)
        yield f"other-entry-annotations{i}", "INDEX", other_entry(annotations=value)
    yield of("untagged", "NOT_FOUND", lambda d: d["manifests"][0].pop("annotations"))
    yield of("ambiguous", "AMBIGUOUS", lambda d: d["manifests"].append(dict(d["manifests"][0])))
    yield of("ambiguous-other", "AMBIGUOUS", lambda d: d["manifests"].append({**d["manifests"][0], "mediaType": "a/b", "size": 7}))
    yield of("entry-null", "INDEX", lambda d: d["manifests"].append(None))
    yield "index-whole", "INDEX", on("index", lambda d: b"[]")
    yield "index-not-json", "JSON", on("index", lambda d: b"")
    yield "entry-type", "MEDIA_TYPE", entry("mediaType", INDEX_TYPE)
    yield "entry-artifactType", "OK", entry("artifactType", "text/plain")
    yield "entry-platform", "OK", entry("platform", {"os": "linux"})
    yield "entry-size-0", "refused", entry("size", 0)
    yield "entry-size-over", "refused", entry("size", MAX_JSON + 1)
    yield "entry-size", "SIZE", on("index", lambda d: d["manifests"][0].update(size=d["manifests"][0]["size"] + 1))
    yield "entry-sha512", "refused", entry("digest", "sha512:" + "a" * 128)
    yield "entry-missing", "FILE", entry("digest", "sha256:" + "a" * 64)
    yield "other-sha512", "OK", other_entry(digest="sha512:" + "a" * 128)
    yield "other-algorithm", "OK", other_entry(digest="a+b.c_d-9:A-Za_z=")
    yield "other-tag", "OK", other_entry(annotations={REF_NAME: "m2"})
    yield "other-name", "OK", other_entry(annotations={REF_NAME: "registry/a:b"})
    yield "other-large", "OK", other_entry(size=MAX_INT)
    yield "other-longest-type", "OK", other_entry(mediaType="a" * 127 + "/" + "0!#$&^_.+-" * 12)
    for i, digest in enumerate(("sha256:" + "A" * 64, "sha256:0", "x", "", "a:", ":a", "A:a", "a++b:c", "a:b:c", "a:ä", None, 0)):
        yield f"other-digest{i}", "INDEX", other_entry(digest=digest)
    for i, media_type in enumerate(("a", "", "/b", "a/", "a/b/c", "a/b;c=d", "a/ b", ".a/b", "a/+b", "a" * 128 + "/b", "a/" + "b" * 128, "ä/b", 1)):
        yield f"other-type{i}", "INDEX", other_entry(mediaType=media_type)
    for i, size in enumerate((-1, "1", None, True)):
        yield f"other-size{i}", "INDEX", other_entry(size=size)


def file_mutants() -> Iterator[Tuple[str, str, Callable[[Mutant], None]]]:
    for i, data in enumerate((b"[]", b"{}", b'{"imageLayoutVersion":"1.0.1"}', b'{"imageLayoutVersion":1}', b'{"imagelayoutversion":"1.0.0"}')):
        yield f"layout{i}", "LAYOUT", lambda m, data=data: setattr(m, "layout", data)
    yield "layout-unknown", "OK", lambda m: setattr(m, "layout", b' {"imageLayoutVersion":"1.0.0","x":[]}\n')
    yield "layout-json", "JSON", lambda m: setattr(m, "layout", b'{"imageLayoutVersion":"1.0.0",}')
    yield "layout-empty", "JSON", lambda m: setattr(m, "layout", b"")
    yield "layout-over", "LIMIT", lambda m: setattr(m, "layout", b" " * MAX_JSON + b'{"imageLayoutVersion":"1.0.0"}')
    yield "other-names", "OK", all_of(overwrite("README", b""), overwrite("blobs/sha256/x", b""), overwrite(".hlsnap-x.tmp", b""))
    for name in ("oci-layout", "index.json", "blobs", "blobs/sha256"):
        safe = name.replace("/", "-")
        yield f"link-{safe}", "FILE", replace_file(in_layout(name), link)
        yield f"fifo-{safe}", "FILE", replace_file(in_layout(name), os.mkfifo)
        yield f"missing-{safe}", "refused", replace_file(in_layout(name), nothing)
    yield "directory-index.json", "FILE", replace_file(in_layout("index.json"), os.mkdir)
    yield "link-memory", "FILE", replace_file(of_memory, link)
    yield "fifo-memory", "FILE", replace_file(of_memory, os.mkfifo)
    yield "directory-memory", "FILE", replace_file(of_memory, os.mkdir)
    yield "missing-memory", "FILE", replace_file(of_memory, nothing)
    config = lambda m: m.config if isinstance(m.config, bytes) else to_json(m.config)
    for name, which in (("memory", lambda m: m.memory[0]), ("chunks", lambda m: m.lists[1]), ("config", config),
                        ("manifest", lambda m: to_json(m.manifest))):
        yield f"short-{name}", "SIZE", change_blob(which, lambda data: data[:-1])
        yield f"long-{name}", "SIZE", change_blob(which, lambda data: data + b"x")
        yield f"empty-{name}", "SIZE", change_blob(which, lambda data: b"")
        if name != "memory":
            yield f"flip-{name}", "DIGEST", change_blob(which, flip(len(name)))
    yield "flip-memory", "DIGEST", flip_shown
    yield "flip-hidden-chunk", "either", flip_hidden
    yield "false-memory-digest", "either", false_digest


def random_change(rng: random.Random) -> Callable[[Mutant], None]:
    """One odd value somewhere in the config, or one odd byte in any of the JSON files."""
    edit = lambda data: odd_bytes(rng, data)
    where = rng.randrange(8)
    return (text(edit) if where == 0 else on("manifest", lambda d: edit(to_json(d))) if where == 1 else
            on("index", lambda d: edit(to_json(d))) if where == 2 else odd_value(rng))


def odd_bytes(rng: random.Random, data: bytes) -> bytes:
    at, drop = rng.randrange(len(data)), rng.choice([0, 0, 1, 1, 1, 2, 30])
    return data[:at] + rng.choice([b"", b"0", b" ", b"\n", b",", b'"', b"\\", b"]", b"}", b"\xc3\xa9", b"\xff", data[at:at + 30],
                                   bytes([data[at] ^ 32])]) + data[at + drop:]


def odd_value(rng: random.Random) -> Callable[[Mutant], None]:
    def change(m: Mutant) -> None:
        inner: Any = m.config
        while True:
            key = rng.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
            if not isinstance(inner[key], (dict, list)) or not inner[key] or rng.random() < 0.1:
                break
            inner = inner[key]
        inner[key] = odd(rng, inner[key])
        if rng.random() < 0.2 and isinstance(inner, list):
            inner.insert(rng.randrange(len(inner) + 1), rng.choice(inner))
    return change


def odd(rng: random.Random, value: Any) -> Any:
    if isinstance(value, str) and HEX.fullmatch(value):
        return hex(max(0, int(value, 16) + rng.choice([-1, 1]) * rng.choice([1, PAGE, PAGE * rng.randint(1, 40), 1 << 21, 1 << 32, 1 << 63])))
    if type(value) is int:
        return value + rng.choice([-1, 1]) * rng.choice([1, 1, 2, rng.randint(1, 60), 1 << 31, 1 << 32])
    if isinstance(value, str):
        at = rng.randrange(len(value) + 1)
        return value[:at] + rng.choice(["", "a", ",", "\x7f", "é", "0", value]) + value[at + rng.randint(0, 1):]
    return rng.choice([[], {}, None, 0, value * 2 if isinstance(value, list) else value])


def mutants(seed: int, num_random: int) -> Iterator[Tuple[str, str, Callable[[Mutant], None]]]:
    if num_random:
        for i in range(num_random):
            yield f"random{i}", "?", random_change(random.Random(seed * 1000003 + i))
        return
    yield "unchanged", "OK", lambda m: None
    yield from config_mutants()
    yield from map_mutants()
    yield from json_mutants()
    yield from manifest_mutants()
    yield from index_mutants()
    yield from file_mutants()


# ---- commands ----


def command_check(args: argparse.Namespace) -> int:
    layout, bad = Layout(args.dir), 0
    refs = args.refs or sorted({tag_of(e) for e in read_index(layout)[1]["manifests"] or [] if TAG.fullmatch(tag_of(e) or "")})
    for ref in refs:
        try:
            snapshot = load(layout, ref, args.any_machine)
            print(snapshot.line(ref), flush=True)
            snapshot.close()
        except Refused as refused:
            print(f"{ref}: {refused}", file=sys.stderr)
            bad = 1
    return bad


def command_vectors(args: argparse.Namespace) -> int:
    layout = Layout(args.dir)
    for ref in args.refs:
        snapshot = load(layout, ref, args.any_machine)
        print(snapshot.vector(ref, args.unhashed), flush=True)
        snapshot.close()
    return 0


def command_same(args: argparse.Namespace) -> int:
    a = load(Layout(args.dir1), args.ref1, args.any_machine)
    b = load(Layout(args.dir2), args.ref2, args.any_machine)
    one, two = a.config.document(), b.config.document()
    for name in one:
        if name not in ("library", "layers", "extents") and one[name] != two[name]:
            print(f"config.{name}: {str(one[name])[:200]} and {str(two[name])[:200]}", file=sys.stderr)
            return 1
    ranges = [together([(start, end, 0, -1, 0) for start, end in s.config.memory_ranges()]) for s in (a, b)]
    if ranges[0] != ranges[1]:
        print(f"memory: pages {str(ranges[0])[:200]} and {str(ranges[1])[:200]}", file=sys.stderr)
        return 1
    at = 0
    for size, left, right in side_by_side(a.memory(), b.memory()):
        if left != right:
            i = next(i for i in range(size) if left[i] != right[i])
            print(f"memory: at {hex(address_of(a.config, at + i))}: {left[i]:#04x} and {right[i]:#04x}", file=sys.stderr)
            return 1
        at += size
    return 0


def side_by_side(a: Iterator[memoryview], b: Iterator[memoryview]) -> Iterator[Tuple[int, memoryview, memoryview]]:
    left = right = memoryview(b"")
    while True:
        left, right = left or next(a, memoryview(b"")), right or next(b, memoryview(b""))
        size = min(len(left), len(right))
        if size == 0:
            return
        yield size, left[:size], right[:size]
        left, right = left[size:], right[size:]


def address_of(config: Config, at: int) -> int:
    for start, end in config.memory_ranges():
        if at < (end - start) * PAGE:
            return config.gva_of(start) + at
        at -= (end - start) * PAGE
    raise AssertionError


def command_exact(args: argparse.Namespace) -> int:
    layout = Layout(args.dir)
    text_of_index, index = read_index(layout)
    for ref in args.refs:
        s = load(layout, ref, args.any_machine)
        config = to_json(s.config.document())
        layers = []
        for i in range(len(s.fds)):
            for given, ending in zip(s.manifest["layers"][2 * i:2 * i + 2], ("mem", "chunks")):
                layers.append({**{name: given[name] for name in ("mediaType", "digest", "size")},
                               "annotations": {TITLE: f"layer{i}.{ending}"}})
        manifest = to_json(manifest_document(s.config, descriptor(CONFIG_TYPE, config), layers))
        for name, bytes_, expected in (("config", s.config_bytes, config), ("manifest", s.manifest_bytes, manifest)):
            at = next((i for i, (x, y) in enumerate(zip(bytes_, expected)) if x != y), min(len(bytes_), len(expected)))
            need(bytes_ == expected, "CONFIG" if name == "config" else "MANIFEST",
                 f"{ref}: {name} differs at byte {at}: {bytes_[at:at + 40]!r}, not {expected[at:at + 40]!r}")
        need(all(c < 0x7F and c not in b"<>&" for c in manifest), "MANIFEST", f"{ref}: manifest: ASCII without <, > and &")
        if ":" not in ref:
            created = (find_entry(index, ref).get("annotations") or {}).get(CREATED)
            need(created is None or RFC3339.fullmatch(created), "INDEX", f"{ref}: created {created!r}")
            need(to_json(entry_document(manifest, ref, created)).decode() in text_of_index.text, "INDEX",
                 f"{ref}: its entry is written otherwise")
        s.close()
    return 0


def command_write(args: argparse.Namespace) -> int:
    features = sorted(filter(None, args.features.split(",")))
    need(1 <= args.layers <= MAX_LAYERS, "ARG", f"--layers: 1 to {MAX_LAYERS}")
    need(args.maps <= MAX_MAPS, "ARG", f"--maps: up to {MAX_MAPS}")
    for seed in range(args.seed, args.seed + (args.count or 1)):
        made = make_scattered(seed) if args.scatter else Maker(seed, args.layers, args.pages, features, args.small, args.maps).make()
        made = without_content(made) if args.zero else made
        made = flatten(made) if args.flat else save_again(made) if args.again else made
        print(save(args.dir, args.tag + str(seed) * (args.count > 0), made))
    return 0


def command_mutants(args: argparse.Namespace) -> int:
    os.makedirs(args.out, exist_ok=True)
    for i, (name, result, change) in enumerate(mutants(args.seed, args.random)):
        mutant = Mutant(args.seed + i % 16, 5 * (args.random > 0 and i % 2))
        change(mutant)
        mutant.write(os.path.join(args.out, name))
        print(name, {"OK": "HLSNAP_OK"}.get(result, result if not result.isupper() else f"HLSNAP_ERR_{result}"))
    return 0


def command_verdict(args: argparse.Namespace) -> int:
    for path in args.dirs:
        result = "HLSNAP_OK"
        try:
            layout = Layout(path)
            try:
                load(layout, args.ref, args.any_machine).close()
            finally:
                layout.close()
        except Refused as refused:
            result = refused.result
            print(f"{path}: {refused}", file=sys.stderr)
        print(os.path.basename(path), result)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], *names: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name)
        sub.set_defaults(run=run)
        for each in names:
            sub.add_argument(each.strip("*+"), nargs=each[-1] if each[-1] in "*+" else None)
        sub.add_argument("--any-machine", action="store_true")
        return sub

    command("check", command_check, "dir", "refs*")
    command("vectors", command_vectors, "dir", "refs+").add_argument("--unhashed", action="store_true")
    command("same", command_same, "dir1", "ref1", "dir2", "ref2")
    command("exact", command_exact, "dir", "refs+")
    command("verdict", command_verdict, "ref", "dirs+")
    write = command("write", command_write, "dir", "tag")
    for name, default in (("--layers", 1), ("--seed", 1), ("--pages", 0), ("--count", 0), ("--maps", -1)):
        write.add_argument(name, type=int, default=default)
    write.add_argument("--features", default="")
    for name in ("--flat", "--again", "--zero", "--scatter", "--small"):
        write.add_argument(name, action="store_true")
    made = command("mutants", command_mutants, "out")
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--random", type=int, default=0)
    return parser.parse_args()


def main() -> int:
    args = arguments()
    try:
        return args.run(args)
    except Refused as refused:
        print(refused, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
