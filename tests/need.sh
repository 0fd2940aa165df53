# need.sh - sourced by the run scripts: looks for what they need, and with INSTALL=1 installs it (Debian, Ubuntu).

missing=

lack() { # lack PACKAGE, once
    case "$missing " in *" $1 "*) ;; *) missing="$missing $1" ;; esac
}

need() { # need COMMAND PACKAGE
    command -v "$1" >/dev/null 2>&1 || lack "$2"
}

need_header() { # need_header HEADER PACKAGE
    printf '#include <%s>\n' "$1" | ${CC:-cc} -E - >/dev/null 2>&1 || lack "$2"
}

# Installs what is missing, or says how to and fails.
need_done() {
    [ -n "$missing" ] || return 0
    sudo=
    [ "$(id -u)" = 0 ] || sudo=sudo
    if [ "${INSTALL:-0}" != 1 ]; then
        echo "missing packages:$missing"
        echo "install them:     $sudo apt-get install -y$missing"
        echo "or run this script again with --install"
        return 1
    fi
    echo "+ apt-get install$missing"
    # shellcheck disable=SC2086,SC2154 # $build is the script's
    $sudo flock "${top:-.}/tests" sh -c 'apt-get update -qq && # one at a time: suites run side by side
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"' sh $missing \
        >"$build/apt.log" 2>&1 || { tail -n 5 "$build/apt.log"; echo "could not install:$missing"; return 1; }
    missing=
}

# What programs.sh builds from.
need_programs() {
    need musl-gcc musl-tools
    need gcc gcc
    need "${CXX:-c++}" g++
    need clang clang
    need go golang-go
    need rustc rustc
    need busybox busybox-static
    need bash-static bash-static
    need zsh-static zsh-static
    need mksh mksh
    need sash sash
    need wat2wasm wabt
    need_header lua5.4/lua.h liblua5.4-dev
    need_header sqlite3.h libsqlite3-dev
    need_header png.h libpng-dev
    need_header zstd.h libzstd-dev
    need_header libxml2/libxml/parser.h libxml2-dev
    need_header lzma.h liblzma-dev
    need_header unicode/uversion.h libicu-dev
    need_header openssl/evp.h libssl-dev
    need_header expat.h libexpat1-dev
    need_header zlib.h zlib1g-dev
    [ -n "$(find /usr/lib/python3* -maxdepth 2 -name 'libpython3.*.a' 2>/dev/null)" ] || lack libpython3-dev
}

# Installs that, each package alone: where one cannot be had, the others are there all the same.
need_each_program() {
    missing=
    need_programs
    for p in $missing; do
        missing=$p
        need_done >>"$build/need.log" 2>&1 || tail -n 5 "$build/need.log"
    done
    missing=
}

# What the examples are compiled from, and run with.
need_example() { # need_example FILE
    case $1 in
    02_*) need gcc gcc ;;
    04_* | hlsnap_tool.c) need_header cjson/cJSON.h libcjson-dev ;;
    05_*) need c++ g++ ;;
    06_*) need_header lua5.4/lua.h liblua5.4-dev ;;
    07_*)
        need_header png.h libpng-dev
        need_header zlib.h zlib1g-dev
        [ "${INSTALL:-0}" = 0 ] || need bwrap bubblewrap # without, its row of the table says so
        ;;
    08_*)
        need c++ g++
        need wasm2c wabt
        ;;
    09_*)
        need_example hlsnap_tool.c
        need bash-static bash-static
        need_header sqlite3.h libsqlite3-dev
        need_header expat.h libexpat1-dev
        need_header zlib.h zlib1g-dev
        [ -n "$(find /usr/lib -maxdepth 2 -name 'libpython3.*.a' 2>/dev/null)" ] || lack libpython3-dev
        ;;
    esac
}

# Why an example cannot be compiled and run here, or nothing.
example_problem() ( # example_problem FILE
    missing=
    need_example "$1"
    if [ -n "$missing" ]; then echo "needs$missing"; return; fi
    case $1 in
    08_*)
        v=$(wasm2c --version)
        [ "$v" = 1.0.32 ] || echo "made for wabt 1.0.32, as in Debian 12; this is $v"
        ;;
    esac
)

# What svm.sh and vmx.sh need.
need_vm() {
    need busybox busybox-static
    need xz xz-utils
    need strip binutils
}
need_svm() {
    need qemu-system-x86_64 qemu-system-x86
    need_vm
}
need_vmx() {
    need bochs-bin bochs
    [ -e "$(find /usr/lib -path '*/bochs/plugins/libbx_term_gui.so' 2>/dev/null)" ] || missing="$missing bochs-term"
    [ -e /usr/share/bochs/BIOS-bochs-latest ] || missing="$missing bochsbios"
    [ -e /usr/lib/ISOLINUX/isolinux.bin ] || missing="$missing isolinux"
    [ -e /usr/lib/syslinux/modules/bios/ldlinux.c32 ] || missing="$missing syslinux-common"
    [ -e /usr/share/vgabios/vgabios.bin ] || missing="$missing vgabios"
    need xorriso xorriso
    need_vm
}

# An apt with state, lists and cache of its own below $build/apt, which runs nobody's hooks; more of its settings on stdin.
private_apt_make() {
    command -v apt-get && command -v dpkg-deb || return 1
    rm -rf "$build/apt" && mkdir -p "$build/apt/lists/partial" "$build/apt/archives/partial" || return 1
    : >"$build/apt/status"
    { cat && cat <<CONF; } >"$build/apt/conf"
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Dir::State "$build/apt";
Dir::State::status "$build/apt/status";
Dir::Cache "$build/apt";
CONF
}
private_apt() { # private_apt get|cache ...
    tool=apt-$1
    shift
    "$tool" -c "$build/apt/conf" "$@"
}

# The same, for another release than this machine's: from the mirrors that its apt knows, with that suite's name put in. One of them
# may lack it.
private_apt_suite() { # private_apt_suite SUITE ARCH; as private_apt_make
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -e $keyring ] || { echo "no $keyring (package debian-archive-keyring)"; return 1; }
    { cat && cat <<CONF; } | private_apt_make || return 1
Dir::Etc::sourcelist "$build/apt/sources";
Dir::Etc::sourceparts "-";
Acquire::Languages "none";
CONF
    # shellcheck disable=SC2016
    apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' 'Component: main' | sort -u |
        sed -n "s,^\([^ ]*\) [^ -]*\(-security\)\{0\,1\}\$,deb [arch=$2 signed-by=$keyring] \1 $1\2 main,p" >"$build/apt/sources"
    private_apt get update || :
}

# Why /dev/kvm cannot be used here, or nothing.
kvm_problem() {
    if [ ! -e /dev/kvm ]; then echo "no /dev/kvm: modprobe kvm_intel or kvm_amd, or enable virtualization"
    elif [ ! -r /dev/kvm ] || [ ! -w /dev/kvm ]; then
        echo "no permission for /dev/kvm: sudo usermod -aG $(stat -c %G /dev/kvm) \$USER, then log in again"
    fi
}

# The cc: or run: lines of an example's first comment, one per line.
lines_of() { # lines_of cc|run|prints FILE
    sed -n "1,/\*\//s/^[\/#]*  *$1: \(.*[^ ]\) *\$/\1/p" "$2" | sed 's/ *\*\/$//'
}
