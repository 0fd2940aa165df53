# linux_section.py HEADER PROGRAM - disassembles a guest whose Linux personality (hlsnap.h, from ">>linux" to ">>linux-end") must
# keep its rules: no vector register, no call or jump out of the section but to a short list, nothing that a relocation still has to
# fill in. Prints what breaks one; exit 1 then.
import re
import subprocess
import sys

header, program = sys.argv[1:3]

# What the section may call beside itself: what is in the same file for both ways to attach it, and keeps the same rules.
MAY_CALL = {"hlsnap__syscall_name", "hlsnap__lx_first", "hlsnap__lx_input_ready", "hlsnap__lx_input_read", "hlsnap__lx_input_wait",
            "hlsnap__lx_standard_output", "hlsnap__lx_exit"}
VECTOR = re.compile(r"%[xyz]mm[0-9]|%mm[0-7]|%st\b|%k[0-7]\b")
SUFFIX = re.compile(r"\.(isra|constprop|part|cold|lto_priv|llvm)\b.*$")


def section_names(path):
    text = open(path).read()
    inside = text[text.index("---- >>linux:"):text.index("---- >>linux-end ----")]
    names = set(re.findall(r"\b(hlsnap__lx_\w+)\(", inside))
    return names | {"hlsnap__lx_syscall", "hlsnap__lx_back", "hlsnap__lx_entry", "hlsnap__lx_park", "hlsnap__lx_go", "hlsnap__lx_upcall",
                    "hlsnap__lx_switch"}


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def functions(path):
    name, lines = None, []
    for line in output("objdump", "-d", "--no-show-raw-insn", path).splitlines():
        head = re.match(r"^[0-9a-f]+ <(.+)>:$", line)
        if head:
            if name:
                yield name, lines
            name, lines = head.group(1), []
        elif name and ":\t" in line:
            lines.append(line)
    if name:
        yield name, lines


def relocated(path):
    found = []
    for line in output("readelf", "-rW", path).splitlines():
        part = line.split()
        if len(part) > 2 and part[2].startswith("R_X86_64_"):
            found.append(int(part[0], 16))
    return found


def objects(path):
    found = []
    for line in output("readelf", "-sW", path).splitlines():
        part = line.split()
        if len(part) > 7 and part[3] == "OBJECT" and part[6] not in ("UND", "ABS"):
            found.append((int(part[1], 16), int(part[2], 0), part[7]))
    return found


def main():
    names, bad, seen, referenced = section_names(header), [], set(), {}
    for symbol, lines in functions(program):
        base = SUFFIX.sub("", symbol)
        if base not in names and base != "hlsnap__syscall_name":
            continue
        if base in MAY_CALL and base != "hlsnap__syscall_name":
            continue  # of the program's side
        seen.add(base)
        for line in lines:
            code = line.split("\t", 1)[1]
            if VECTOR.search(code):
                bad.append(f"{symbol} uses a vector register: {code}")
            to = re.match(r"(?:notrack |bnd )?(call|j\w+)\s+[0-9a-f]+ <([^>+]+)", code)
            if to and SUFFIX.sub("", to.group(2)) not in names | MAY_CALL | {base}:
                bad.append(f"{symbol} leaves the section: {code}")
            indirect = re.match(r"call\s+\*", code)
            if indirect and base != "hlsnap__lx_upcall":
                bad.append(f"{symbol} calls what a pointer says: {code}")
            data = re.search(r"# ([0-9a-f]+) <", code)
            if data:
                referenced.setdefault(int(data.group(1), 16), symbol)
    fills = relocated(program)
    ranges = [o for o in objects(program)]
    for at, symbol in sorted(referenced.items()):
        start, size, name = next((o for o in ranges if o[0] <= at < o[0] + o[1]), (at, 8, "data without a name"))
        hit = [f for f in fills if start <= f < start + size]
        if hit and name not in ("hlsnap__lx_hook", "hlsnap__lx_hook_user"):
            bad.append(f"{symbol} uses {name} at {start:#x}, which a relocation at {hit[0]:#x} fills in")
    for must in ("hlsnap__lx_dispatch", "hlsnap__lx_syscall", "hlsnap__lx_entry"):
        if must not in seen:
            bad.append(f"there is no {must} in it")
    for line in bad[:20]:
        print("# " + line)
    print(f"# {len(seen)} functions, {len(referenced)} places of data, {len(fills)} relocations")
    return 1 if bad else 0


sys.exit(main())
