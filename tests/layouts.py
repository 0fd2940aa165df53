"""layouts.py - looks into an OCI layout as neither hlsnap nor the tools do; for tests/layouts.sh.

    entry DIR TAG | entries DIR | order DIR DIGEST... | tags DIR | blobs DIR TAG | rows FILE |
    http PORT METHOD PATH FILE | base TESTS DIR
"""
import http.client
import json
import sys

def index(path):
    with open(path + "/index.json") as f:
        return f.read()

def entries(text):  # each with its own text
    decoder, at = json.JSONDecoder(), text.index("[", text.index('"manifests"')) + 1
    while text[at] != "]":
        if text[at] in " \t\r\n,":
            at += 1
            continue
        value, end = decoder.raw_decode(text, at)
        yield value, text[at:end]
        at = end

def entry(path, tag):
    found = [e for e in entries(index(path)) if e[0].get("annotations", {}).get("org.opencontainers.image.ref.name") == tag]
    if len(found) != 1:
        sys.exit(f"{path}: {len(found)} entries for {tag}")
    return found[0]

command, *args = sys.argv[1:]
if command == "entry":  # DIR TAG
    print(entry(*args)[1])
elif command == "entries":  # DIR
    for e in entries(index(args[0])):
        print(e[1])
elif command == "order":  # DIR DIGEST...: these first, then the others
    text, first = index(args[0]), args[1:]
    found = list(entries(text))
    rank = [first.index(e["digest"]) if e["digest"] in first else len(first) for e, _ in found]
    place = sorted(range(len(found)), key=rank.__getitem__)
    start, end = text.index(found[0][1]), text.rindex(found[-1][1]) + len(found[-1][1])
    with open(args[0] + "/index.json", "w") as f:
        f.write(text[:start] + ",".join(found[i][1] for i in place) + text[end:])
elif command == "tags":  # DIR, also of untagged ones
    print(*sorted(e.get("annotations", {}).get("org.opencontainers.image.ref.name", "-") for e, _ in entries(index(args[0]))))
elif command == "blobs":  # DIR TAG: the manifest, then what it leads to
    digest = entry(*args)[0]["digest"].split(":")[1]
    with open(f"{args[0]}/blobs/sha256/{digest}") as f:
        manifest = json.load(f)
    for d in [digest] + [d["digest"].split(":")[1] for d in [manifest["config"]] + manifest["layers"]]:
        print(d)
elif command == "rows":  # FILE: what `hlsnap_tool ls --json` says
    with open(args[0]) as f:
        text = f.read()
    for row in json.loads(text) if text.startswith("[") else map(json.loads, text.splitlines()):
        print(row["tag"] or "-", row["digest"], row.get("bytes", "-"), row.get("own_bytes", "-"))
elif command == "http":  # PORT METHOD PATH FILE: no proxy comes between
    http_ = http.client.HTTPConnection("127.0.0.1", int(args[0]), timeout=20)
    http_.request(args[1], args[2], headers={"Accept": "application/vnd.oci.image.manifest.v1+json"})
    answer = http_.getresponse()
    with open(args[3], "wb") as f:
        f.write(answer.read())
    print(answer.status, answer.getheader("Docker-Content-Digest", "-"))
elif command == "base":  # TESTS DIR: v1 and, over its blobs, v2
    sys.path.insert(0, args[0])
    import snapshot_format as s
    v1, v2 = (s.flatten(s.Maker(1, 1, 200, []).make()) for _ in "12")
    page, pages, layer, at = v2.config.extents[0]
    v2.layers.append(bytes(range(256)) * 16)
    v2.config.layers.append(s.layer_info(v2.layers[1]))
    v2.config.extents[:1] = [(page, 1, 1, 0)] + [(page + 1, pages - 1, layer, at + 1)] * (pages > 1)
    s.save(args[1], "v1", v1)
    s.save(args[1], "v2", v2)
