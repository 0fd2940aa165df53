#!/usr/bin/env python3
"""tool_check.py - what tests/tool.sh asks of Python: layouts to try the tool on, and what it ought to say of them, found by way of
tests/snapshot_format.py, which shares no line with the tool.

    hostile DIR                         a snapshot whose texts are meant for the terminal, tagged `evil` and, worse, by control codes
    changed DIR                         tags `a` and `b`: b has pages that differ, that became zero, that are new, that are stored anew
                                        with the same bytes, and that are stored but zero
    missing DIR                         tags `good` and `bad`; bad's config is not there
    alike DIR                           one entry more, that leads nowhere; its digest begins as that of the first
    dated DIR                           tags that say when they were created: their names tell how long ago
    archives DIR TO                     tar files of a layout, hostile and odd ones, in TO; prints each one's name and the
                                        exit status of its import
    flip DIR REF                        one bit of a page that the snapshot shows
    damage DIR REF WHAT HOW             of a snapshot's blobs the manifest, config, memory or chunks (of the last layer): gone, bad (one
                                        bit), short (one byte); prints its path
    ls DIR                              does standard input, the tool's JSON, say what the layout holds?
    du DIR                              likewise, what du says
    features                            prints the names of the format's CPU features, a line each
    json WANT                           is standard input one JSON value, with the members of WANT, which is JSON, too?
    inspect DIR REF                     likewise, of a snapshot
    diff DIR REF DIR2 REF2              likewise, of two: every page of both is compared here
    svg DIR REF FILE                    is FILE well-formed, with each region's and map's cells and each layer's pages?
    printable                           is standard input free of control codes and of what reorders text?
    terminal COMMAND...                 runs it with standard error on a terminal, prints what that got, exits as it does
    resized WIDTHS COMMAND...           likewise, on one of that width, or of two: 80,40 is one that becomes narrower after the first bar;
                                        is no row of it full?
    interrupted HOW COMMAND...          likewise; SIGINT comes while the first bar is drawn. HOW: default, or ignored, as nohup does it
    started SIGNAL COMMAND...           runs it, and gives it that signal once its temporary directory is there; exits as it
                                        does
    rising WORD...                      standard input is what a terminal got: do the percentages never fall, and the words come in turn?

Exit 0: yes. 1: no, and why. Standard library only.
"""
import copy
import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import sys
import tarfile
import termios
import time
import unicodedata
import xml.etree.ElementTree as xml

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import snapshot_format as sf  # noqa: E402

PAGE = sf.PAGE
FORGED = "\x1b]0;owned\x07\x1b[31m\x9b2J\u202e\u200b\r\n"


def same(what, got, want):
    if got != want:
        sys.exit(f"{what}: got {str(got)[:400]}, want {str(want)[:400]}")


def load(path, ref):
    return sf.load(sf.Layout(path), ref, True)


# ---- layouts ----


def save_with(path, made, edit_manifest, tag):
    """As snapshot_format.save, of a tag and a manifest that it would refuse."""
    manifest, blobs = made.blobs()
    document = json.loads(manifest)
    edit_manifest(document)
    manifest = sf.to_json(document)
    writer = sf.Writer(path)
    for blob in blobs + [manifest]:
        writer.put_blob(blob)
    entries = sf.read_index(sf.Layout(path))[1]["manifests"] if os.path.exists(path + "/index.json") else []
    entry = sf.entry_document(manifest, tag)
    entry["annotations"]["note"] = FORGED
    index = {"schemaVersion": 2, "mediaType": sf.INDEX_TYPE, "manifests": entries + [entry]}
    writer.put("oci-layout", sf.to_json({"imageLayoutVersion": "1.0.0"}))
    writer.put("index.json", sf.to_json(index))
    writer.close()


def hostile(path):
    made = sf.Maker(2, 2, 60, []).make()
    made.config.guest_name = '\u202eevil\u200b</text>&"\\\u2066'

    def edit(manifest):
        manifest["annotations"]["k\x1b[2J" + FORGED] = "v" + FORGED + "</title>\U000e0041" + "x" * 5000
    save_with(path, made, edit, "evil")
    save_with(path, made, lambda manifest: manifest["annotations"].update(other="1"), "tag" + FORGED)
    save_with(path, made, lambda manifest: manifest["annotations"].update(other="2"), "\u202egat")


def shown_pages(made):
    """Page number: its bytes, for pages that extents show."""
    return {e[0] + i: made.page(e, i) for e in made.config.extents for i in range(e[1])}


def changed(path):
    base = sf.Maker(5, 1, 900, []).make()
    print(sf.save(path, "a", base))
    shown, where = shown_pages(base), {}
    for e in base.config.extents:
        where.update({e[0] + i: (e[2], e[3] + i) for i in range(e[1])})
    stored = [p for start, end in base.config.memory_ranges() for p in range(start, end)]
    full = [p for p in sorted(shown) if any(shown[p])]
    empty = [p for p in stored if p not in shown]
    new, memory = {}, []
    for p in full[1:4] + full[10:11]:  # differ
        new[p] = bytes([shown[p][0] ^ 1]) + shown[p][1:]
    new[full[12]] = shown[full[12]][:-1] + bytes([shown[full[12]][-1] ^ 0x80])  # in the last bit
    new[full[5]] = shown[full[5]]      # the same again
    new[empty[0]] = bytes(PAGE)        # stored zeros
    for p in empty[200:263]:           # were zero
        new[p] = b"\0" * (PAGE - 1) + b"\1"
    where[full[20]] = where[full[22]]  # from another place of the same blob
    del where[full[7]]                 # are zero
    for p in sorted(new):
        where[p] = (1, len(memory))
        memory.append(new[p])
    delta = sf.Made(copy.deepcopy(base.config), base.layers + [b"".join(memory)])
    extents = []
    for start, end in base.config.memory_ranges():
        for p in range(start, end):
            last = extents[-1] if extents else (0, 0, 0, 0)
            if p in where and last[0] >= start and last[0] + last[1] == p and (last[2], last[3] + last[1]) == where[p]:
                extents[-1] = (last[0], last[1] + 1, last[2], last[3])
            elif p in where:
                extents.append((p, 1) + where[p])
    delta.config.extents, delta.config.layers = extents, [sf.layer_info(m) for m in delta.layers]
    delta.config.generation += 1
    print(sf.save(path, "b", delta))
    other = sf.Made(copy.deepcopy(base.config), base.layers)  # the same memory, another contract
    other.config.exports = [("only_here", "i32(str)")] + other.config.exports[1:]
    other.config.features = ["sse3"]
    print(sf.save(path, "c", other))


def missing(path):
    print(sf.save(path, "good", sf.Maker(1, 1, 30, []).make()))
    made = sf.Maker(2, 1, 30, []).make()
    print(sf.save(path, "bad", made))
    config = json.loads(made.blobs()[0])["config"]["digest"]
    os.unlink(f"{path}/blobs/sha256/{config[7:]}")


def alike(path):
    index = sf.read_index(sf.Layout(path))[1]
    first = index["manifests"][0]
    index["manifests"].append({"mediaType": sf.MANIFEST_TYPE, "digest": first["digest"][:-12] + "0" * 12, "size": first["size"]})
    with open(path + "/index.json", "wb") as file:
        file.write(sf.to_json(index))


def dated(path):
    """Entries say it, but `manifest` and `overruled`; what is no time of RFC 3339 counts for nothing."""
    def ago(seconds, form="%Y-%m-%dT%H:%M:%SZ", zone=0):
        return time.strftime(form, time.gmtime(time.time() - seconds + zone))
    created = "org.opencontainers.image.created"
    made = sf.Maker(5, 1, 60, []).make()
    small, large = sf.Maker(6, 1, 20, []).make(), sf.Maker(7, 1, 400, []).make()
    save_with(path, made, lambda manifest: manifest["annotations"].update({created: ago(4 * 3600)}), "manifest")
    save_with(path, small, lambda manifest: manifest["annotations"].update({created: ago(30 * 86400)}), "overruled")
    save_with(path, large, lambda manifest: None, "large")
    index = json.loads(open(path + "/index.json", "rb").read())
    entry = index["manifests"].pop()
    times = {"min10": ago(600), "h1": ago(3600 + 60, "%Y-%m-%dT%H:%M:%S.25+02:00", 7200),
             "day1": ago(86400 + 60, "%Y-%m-%dt%H:%M:%S-11:30", -41400), "week1": ago(7 * 86400 + 60), "ahead": ago(-86400),
             "none": None, "date": ago(600, "%Y-%m-%d"), "local": ago(600, "%Y-%m-%dT%H:%M:%S"),
             "space": ago(600, "%Y-%m-%d %H:%M:%SZ"), "tail": ago(600) + "x", "feb30": "2024-02-30T00:00:00Z",
             "dot": "2024-02-03T00:00:00.Z", "old": "1969-12-31T23:59:59Z", "month13": "2024-13-01T00:00:00Z",
             "h24": "2024-01-01T24:00:00Z", "zone24": "2024-01-01T01:00:00+24:00"}
    for tag, text in times.items():
        index["manifests"].append(copy.deepcopy(entry))
        index["manifests"][-1]["annotations"] = {sf.REF_NAME: tag, **({created: text} if text else {})}
    index["manifests"][1]["annotations"][created] = ago(1200)
    index["manifests"].append({k: v for k, v in entry.items() if k != "annotations"})
    with open(path + "/index.json", "wb") as file:
        file.write(sf.to_json(index))


def archives(path, to):
    """Each is the layout, and then something: what is not a file is no layout's, what leads outside is cut to what is below."""
    files = sorted(os.path.relpath(os.path.join(root, name), path) for root, _, names in os.walk(path) for name in names)
    files = [name for name in files if not name.startswith(".")]
    large = max((n for n in files if n.startswith("blobs")), key=lambda n: os.path.getsize(f"{path}/{n}"))

    def entry(name, kind=tarfile.REGTYPE, link="", data=b"", mode=0o644):
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size, info.mode = kind, link, len(data), mode
        return info, io.BytesIO(data)

    def make(name, status, extra=(), without=(), prefix="", form=tarfile.GNU_FORMAT, mode="w", first=False):
        rows = [entry(prefix + n, data=open(f"{path}/{n}", "rb").read()) for n in files if n not in without]
        with tarfile.open(f"{to}/{name}", mode, format=form) as tar:
            for info, data in list(extra) + rows if first else rows + list(extra):
                tar.addfile(info, data)
        print(name, status)
    os.makedirs(to)
    make("plain", 0)
    make("dotted", 0, prefix="./")
    make("pax", 0, form=tarfile.PAX_FORMAT)
    make("absolute", 0, [entry("/tmp/hlsnap-tool-outside", data=b"x")])
    make("above", 2 * 20, [entry("../../hlsnap-tool-outside", data=b"x")])
    make("setuid", 0, [entry("x", data=b"x", mode=0o6777), entry("sub", tarfile.DIRTYPE, mode=0)])
    make("deep", 0, [entry("d/" * 500 + "x", data=b"x")])
    make("linked", 47, [entry(large, tarfile.SYMTYPE, "/etc/passwd")], [large])
    other = entry(large + "x", data=open(f"{path}/{large}", "rb").read())
    make("inside", 47, [other, entry(large, tarfile.SYMTYPE, os.path.basename(large) + "x")], [large])
    make("through", 47, [entry("blobs", tarfile.SYMTYPE, "there"), entry("there", tarfile.DIRTYPE, mode=0o755)], first=True)
    make("fifo", 47, [entry("index.json", tarfile.FIFOTYPE)], ["index.json"])
    make("device", 47, [entry("oci-layout", tarfile.CHRTYPE)], ["oci-layout"])
    make("directory", 47, [entry("index.json", tarfile.DIRTYPE)], ["index.json"])
    make("missing", 47, without=[large])
    make("flipped", 49, [entry(large, data=b"x" * os.path.getsize(f"{path}/{large}"))], [large])
    make("sub", 3, prefix="store/")
    make("gzip", 40, mode="w:gz")
    whole = open(f"{to}/plain", "rb").read()
    for name, data, status in (("empty", b"", 40), ("garbage", b"\xff" * 3000, 40), ("cut", whole[:len(whole) // 2], 40),
                               ("trailing", whole + b"x" * 300000, 0)):
        with open(f"{to}/{name}", "wb") as file:
            file.write(data)
        print(name, status)


def flip(path, ref):
    s = load(path, ref)
    e = s.config.extents[0]
    name = f"{path}/blobs/sha256/{s.manifest['layers'][2 * e[2]]['digest'][7:]}"
    os.chmod(name, 0o600)
    with open(name, "r+b") as file:
        file.seek(e[3] * PAGE + 77)
        byte = file.read(1)[0]
        file.seek(e[3] * PAGE + 77)
        file.write(bytes([byte ^ 4]))


def damage(path, ref, what, how):
    s = load(path, ref)
    digest = {"manifest": s.digest, "config": s.manifest["config"]["digest"], "memory": s.manifest["layers"][-2]["digest"],
              "chunks": s.manifest["layers"][-1]["digest"]}[what]
    name = f"{path}/blobs/sha256/{digest[7:]}"
    with open(name, "rb") as file:
        data = file.read()
    os.unlink(name)
    print(name)
    if how != "gone":
        with open(name, "wb") as file:
            file.write(data[:-1] if how == "short" else bytes([data[0] ^ 4]) + data[1:])


# ---- what the tool ought to say ----


def blobs_of(manifest):
    return {d["digest"]: d["size"] for d in [manifest["config"]] + manifest["layers"]}


def sizes(path, ref):
    """Of the entry that ref means: bytes of all its blobs, and of those that no other snapshot leads to."""
    layout = sf.Layout(path)
    index = sf.read_index(layout)[1]
    entry, others = sf.find_entry(index, ref), {}
    for other in index["manifests"]:
        mine = {other["digest"]: other["size"], **blobs_of(json.loads(layout.read_blob(other)))}
        if other["digest"] == entry["digest"]:  # another tag of it, too
            own = mine
        else:
            others.update(mine)
    return sum(own.values()), sum(size for digest, size in own.items() if digest not in others)


def check_ls(path):
    entries = sf.read_index(sf.Layout(path))[1]["manifests"]
    got = json.load(sys.stdin)
    same("entries", [(g["tag"], g["digest"]) for g in got], [(sf.tag_of(e) or "", e["digest"]) for e in entries])
    for g in got:
        if g["tag"] == "bad":
            same("bad", g.get("error"), "HLSNAP_ERR_FILE")
            continue
        s = load(path, g["digest"])
        want = {"pages": sum(r.pages for r in s.config.regions), "stored_pages": sum(e[1] for e in s.config.extents),
                "layers": len(s.fds)}
        if not any(e.get("tag") == "bad" for e in got):
            want["bytes"], want["own_bytes"] = sizes(path, g["tag"] if sf.TAG.fullmatch(g["tag"]) else g["digest"])
        same(g["tag"], {name: g[name] for name in want}, want)
        s.close()


def check_du(path):
    """Blobs counted by themselves: those that one snapshot leads to, and those that several do."""
    layout, got, leads = sf.Layout(path), json.load(sys.stdin), {}
    for entry in sf.read_index(layout)[1]["manifests"]:
        manifest = json.loads(layout.read_blob(entry))
        leads[entry["digest"]] = {entry["digest"]: entry["size"], **blobs_of(manifest)}
    tags = {d: [sf.tag_of(e) for e in sf.read_index(layout)[1]["manifests"] if e["digest"] == d and sf.tag_of(e)] for d in leads}
    same("snapshots", {s["digest"]: s["tags"] for s in got["snapshots"]}, tags)
    total = 0
    for s in got["snapshots"]:
        mine = leads[s["digest"]]
        shared = sum(size for d, size in mine.items() if any(d in other for name, other in leads.items() if name != s["digest"]))
        same(s["tags"], (s["bytes"], s["shared_bytes"], s["own_bytes"]), (sum(mine.values()), shared, sum(mine.values()) - shared))
        total += s["own_bytes"]
    sizes_there = [os.lstat(f"{path}/blobs/sha256/{name}").st_size for name in os.listdir(path + "/blobs/sha256")]
    same("all", (got["own_bytes"], got["disk_bytes"], got["blobs"]), (total, sum(sizes_there), len(sizes_there)))


def holds(name, got, want):
    """Of objects, the members that are wanted; of arrays, as many."""
    if isinstance(want, dict):
        for key, value in want.items():
            holds(f"{name}.{key}", got[key], value)
    elif isinstance(want, list):
        same(f"{name}: length", len(got), len(want))
        for i, (one, other) in enumerate(zip(got, want)):
            holds(f"{name}[{i}]", one, other)
    else:
        same(name, got, want)


def check_json(want):
    holds("value", json.load(sys.stdin), json.loads(want))


def extents_in(config, gva, pages):
    return [e for e in config.extents if gva <= config.gva_of(e[0]) < gva + pages * PAGE]


def stored_in(config, gva, pages):
    return sum(e[1] for e in extents_in(config, gva, pages))


def maps_of(s):
    """As the config has them, and (name, address, pages) of each."""
    maps = json.loads(s.config_bytes)["maps"]
    return maps, [(m["name"], int(m["gva"], 16), -(-m["size"] // PAGE)) for m in maps]


RIGHTS = {"text": "r-x", "rodata": "r--", "identity": "r--"}


def check_inspect(path, ref):
    got, s = json.load(sys.stdin), load(path, ref)
    c = s.config
    want = {"digest": s.digest, "guest_name": c.guest_name, "build_id": c.build_id, "cpu_vendor": c.cpu_vendor,
            "hypervisor": c.hypervisor, "entry": hex(c.entry), "elf_entry": hex(c.elf_entry), "load_address": hex(c.load_address),
            "generation": hex(c.generation), "pages": sum(r.pages for r in c.regions), "stored_pages": sum(e[1] for e in c.extents),
            "exports": [{"name": n, "signature": t} for n, t in c.exports], "imports": [{"name": n, "signature": t} for n, t in c.imports],
            "extents": [{"gva": hex(c.gva_of(e[0])), "pages": e[1], "layer": e[2], "layer_page": e[3]} for e in c.extents],
            "regions": [{"kind": r.kind, "gva": hex(r.gva), "pages": r.pages, "rights": RIGHTS.get(r.kind, "rw-"), "stored": r.stored,
                         "stored_pages": stored_in(c, r.gva, r.pages)} for r in c.regions],
            "maps": [{**m, "stored_pages": stored_in(c, gva, pages)} for m, (_, gva, pages) in zip(*maps_of(s))],
            "layers": [{"memory": memory["digest"], "chunks": chunks["digest"], "pages": memory["size"] // PAGE,
                        "shown_pages": sum(e[1] for e in c.extents if e[2] == i)}
                       for i, (memory, chunks) in enumerate(zip(s.manifest["layers"][::2], s.manifest["layers"][1::2]))],
            "annotations": [{"key": k, "value": v} for d in (s.entry, s.manifest) for k, v in d["annotations"].items()]}
    want["bytes"], want["own_bytes"] = sizes(path, ref)
    for name in want:
        same(name, got[name], want[name])
    same("features", sorted(got["features"]), sorted(c.features))


def shown_at(s):
    """Address: bytes, of all pages that extents show."""
    found = {}
    for page, pages, layer, at in s.config.extents:
        data = os.pread(s.fds[layer], pages * PAGE, at * PAGE)
        found.update({s.config.gva_of(page + i): data[i * PAGE:(i + 1) * PAGE] for i in range(pages)})
    return found


def rooms_of(s):
    """(address, array of the tool's JSON, kind or name, what a page without an extent has): pages, of regions and of maps of which pages
    can be stored; None is the host's."""
    found = {(r.gva, "regions", r.kind, bytes(PAGE)): r.pages for r in s.config.regions}
    for m, (name, gva, pages) in zip(*maps_of(s)):
        if m["mode"] == "private" or m["source"] == "layers":
            found[gva, "maps", name, bytes(PAGE) if m["source"] == "layers" else None] = pages
    return found


def check_diff(path1, ref1, path2, ref2):
    got, sides = json.load(sys.stdin), [load(path1, ref1), load(path2, ref2)]
    memory, rooms = [shown_at(s) for s in sides], [rooms_of(s) for s in sides]
    want, total = {"regions": [], "maps": []}, {"equal": 0, "differ": 0, "only_a": 0, "only_b": 0}
    for room in rooms[0].keys() | rooms[1].keys():
        gva, array, name, unstored = room
        pages = [r.get(room, 0) for r in rooms]
        both = min(pages)
        differ = [a for a in range(gva, gva + both * PAGE, PAGE) if memory[0].get(a, unstored) != memory[1].get(a, unstored)]
        want[array].append((name, hex(gva), pages[0], pages[1], both - len(differ), len(differ), differ))
        for part, n in (("equal", both - len(differ)), ("differ", len(differ)), ("only_a", pages[0] - both), ("only_b", pages[1] - both)):
            total[part] += n
    same("total", {part: got[part] for part in total}, total)
    for array, key in (("regions", "kind"), ("maps", "name")):
        listed = [(r[key], r["gva"], r["pages_a"], r["pages_b"], r["equal"], r["differ"],
                   [int(g["gva"], 16) + i * PAGE for g in r["ranges"] for i in range(g["pages"])]) for r in got[array]]
        same(array, sorted(listed), sorted(want[array]))
        for r in got[array]:
            for one, two in zip(r["ranges"], r["ranges"][1:]):
                if int(one["gva"], 16) + one["pages"] * PAGE >= int(two["gva"], 16):
                    sys.exit(f"ranges {one} and {two} are one")
    maps = [{m["name"]: m for m in maps_of(s)[0]} for s in sides]
    other = {name for name in maps[0].keys() | maps[1].keys() if maps[0].get(name) != maps[1].get(name)}
    same("maps that differ", {f["name"] for f in got["facts"] if f["what"] == "map" and f["counts"]}, other)
    c, d = sides[0].config, sides[1].config
    alike = all(getattr(c, n) == getattr(d, n) for n in ("entry", "features")) and all(
        dict(getattr(c, n)) == dict(getattr(d, n)) for n in ("exports", "imports"))
    same("same", got["same"], alike and not other and not total["differ"] + total["only_a"] + total["only_b"])
    print(f"equal {total['equal']} differ {total['differ']} only {total['only_a']} {total['only_b']} "
          f"ranges {sum(len(r['ranges']) for r in got['regions'] + got['maps'])}")


def check_svg(path, ref, name):
    s, root = load(path, ref), xml.parse(name).getroot()
    space = "{http://www.w3.org/2000/svg}"
    groups = [g for g in root.iter(space + "g") if g.get("data-region") or g.get("data-map")]
    rooms = [("region", r.kind, r.gva, r.pages) for r in s.config.regions] + [("map",) + m for m in maps_of(s)[1]]
    same("regions and maps", [(g.get("data-region"), g.get("data-map"), int(g.get("data-gva"), 16), int(g.get("data-pages"))) for g in groups],
         [(name if what == "region" else None, name if what == "map" else None, gva, pages) for what, name, gva, pages in rooms])
    for g, (_, name, gva, pages) in zip(groups, rooms):
        per_cell = 1
        while -(-pages // per_cell) > 2048:
            per_cell *= 2
        cells = -(-pages // per_cell)
        paths = list(g.iter(space + "path"))
        same(f"{name}: cells", (int(g.get("data-cells")), paths[0].get("d").count("M")), (cells, cells))
        want = {}
        for e in extents_in(s.config, gva, pages):
            at = (s.config.gva_of(e[0]) - gva) // PAGE
            want.setdefault(str(e[2]), set()).update(p // per_cell for p in range(at, at + e[1]))
        same(f"{name}: layers", {p.get("data-layer"): p.get("d").count("M") for p in paths[1:]}, {k: len(v) for k, v in want.items()})
        height, width = float(root.get("height")), float(root.get("width"))
        for p in paths:
            for x, y in re.findall(r"M([0-9.]+) ([0-9.]+)h", p.get("d")):
                if not (0 < float(x) <= width - 11 and 0 < float(y) <= height - 11):
                    sys.exit(f"a cell of {name} at {x}, {y}")
    text = "".join(root.itertext())
    for layer in s.manifest["layers"][::2]:
        if layer["digest"][:19] not in text:
            sys.exit(f"no {layer['digest'][:19]} in the legend")
    if s.digest not in text:
        sys.exit("the digest is not there")


def printable():
    text = sys.stdin.buffer.read().decode("utf-8")  # strictly
    bad = [f"U+{ord(c):04X}" for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Cs")]
    if bad:
        sys.exit(f"{len(bad)} characters such as {bad[:5]}")


def on_terminal(command, width=0, ignored=False, while_drawn=None):
    """Runs it with standard error on a terminal. Its status, and what the terminal got. while_drawn(pid, terminal) is called while the
    terminal takes nothing, and the command waits for its first bar to be drawn."""
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("4H", 24, width, 0, 0))
    if while_drawn:
        termios.tcflow(side, termios.TCOOFF)
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.SIG_DFL)
        os.dup2(side, 2)
        os.environ["TERM"] = "xterm"
        os.execvp(command[0], command)
    if while_drawn:
        wait_for_write(pid)
        while_drawn(pid, side)
        time.sleep(0.1)
        termios.tcflow(side, termios.TCOON)
    os.close(side)
    got = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:
            break
        if not part:
            break
        got += part
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), got


def wait_for_write(pid):
    """Until it hangs in write(2, ...); where the system does not tell, for a while."""
    for _ in range(500):
        try:
            with open(f"/proc/{pid}/syscall", encoding="ascii") as file:
                if file.read().startswith("1 0x2 "):
                    return
        except OSError:
            pass
        time.sleep(0.01)


def written(status, got):
    sys.stdout.flush()
    os.write(1, got)
    return status


def terminal(*command):
    return written(*on_terminal(command))


def resized(widths, *command):
    first, *later = [int(w) for w in widths.split(",")]

    def resize(_pid, side):
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("4H", 24, later[0], 0, 0))
    status, got = on_terminal(command, first, while_drawn=resize if later else None)
    rows = got.decode().split("\r\x1b[K")
    for i, row in enumerate(rows):
        limit = (later[0] if later and i > 1 else first) or int(os.environ["COLUMNS"])
        if len(row) >= limit:
            sys.exit(f"{len(row)} characters in {limit} columns: {row}")
    same("what is left", (rows[0], rows[-1]), ("", ""))
    return written(status, "\n".join(rows).encode())


def interrupted(how, *command):
    return written(*on_terminal(command, ignored=how == "ignored", while_drawn=lambda pid, _side: os.kill(pid, signal.SIGINT)))


def started(name, *command):
    pid = os.fork()
    if pid == 0:
        signal.signal(getattr(signal, "SIG" + name), signal.SIG_DFL)  # the tests may run in a script's background
        os.execvp(command[0], command)
    for _ in range(2000):  # it catches signals before it makes its directory
        if any(entry.startswith(".hlsnap-") for entry in os.listdir(".")):
            break
        time.sleep(0.01)
    time.sleep(0.1)  # tar runs by now, or is about to
    os.kill(pid, getattr(signal, "SIG" + name))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def rising(*words):
    text = sys.stdin.read()
    parts = [int(p) for p in re.findall(r"([0-9]+)%", text)]
    if not parts or parts != sorted(parts) or parts[-1] > 100:
        sys.exit(f"percentages {parts}")
    found = [w for w in re.findall(r"(?:\x1b\[K|^)[a-z]+ (.*?) +[0-9]+%", text)]
    same("words", list(dict.fromkeys(found)), list(words))


if __name__ == "__main__":
    RUN = {"hostile": hostile, "changed": changed, "missing": missing, "alike": alike, "dated": dated, "archives": archives,
           "flip": flip, "damage": damage, "ls": check_ls, "inspect": check_inspect, "du": check_du, "json": check_json,
           "features": lambda: print("\n".join(sorted(sf.FEATURES))),
           "diff": check_diff, "svg": check_svg, "printable": printable, "terminal": terminal, "resized": resized,
           "interrupted": interrupted, "started": started, "rising": rising}
    sys.exit(RUN[sys.argv[1]](*sys.argv[2:]))
