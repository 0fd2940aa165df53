// 05_plugins.cpp - two plug-ins in one host, each with an hlsnap of its own and of another version. You learn: what a plug-in
// needs to vendor hlsnap (nothing of it crosses to the host or to another plug-in), to roll its guest back after a crash, to
// keep C++ exceptions inside its host functions, and to be unloaded while another one is in the middle of a call.
//
// cc: c++ -std=c++17 -O2 -I.. -shared -fPIC -DPLUGIN 05_plugins.cpp -o tame.so
// cc: c++ -std=c++17 -O2 -I.. -shared -fPIC -DPLUGIN -DPATCH=77 05_plugins.cpp -o wild.so
// cc: c++ -std=c++17 -O2 -pthread 05_plugins.cpp -o 05_plugins -ldl
// run: ./05_plugins
// prints: versions differ: yes
// prints: wild: hello 1, hello 2
// prints: wild: price of tea is 3
// prints: wild: price of gold: HLSNAP_ERR_FUNCTION, price: no such thing: gold
// prints: wild: HLSNAP_ERR_FAULT, rolled back: hello 1
// prints: tame: hello 1, hello 2
// prints: wild: unloaded while tame runs
// prints: tame: HLSNAP_ERR_TIMEOUT, rolled back: hello 1
#include <cstddef>

// All that host and plug-ins agree on: no type of hlsnap, and no exception, crosses it.
extern "C" struct plugin_api {
    unsigned (*version)(void);
    int (*open)(void);                                                          // 0, or an exit code
    int (*call)(const char *function, const char *text, char *out, size_t cap); // 0: out holds the answer, else what went wrong
    int (*roll_back)(void);
    void (*close)(void);
};

#ifdef PLUGIN
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#ifdef PATCH // stands for a vendored copy of another release
#undef HLSNAP_VERSION_PATCH
#define HLSNAP_VERSION_PATCH PATCH
#endif
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#include <cstdio>
#include <stdexcept>
#include <string>

namespace {

// ---- the guest: functions of this very .so, run in the VM ----
int calls;
hlsnap_result hello(hlsnap_call *call, void *) { return hlsnap_call_return_fmt(call, "hello %d", ++calls); }
hlsnap_result price(hlsnap_call *call, void *) { // asks the host
    const hlsnap_value thing = hlsnap_call_arg(call, 0);
    hlsnap_value cost = HLSNAP_ZERO;
    hlsnap_error err = HLSNAP_ZERO;
    if (hlsnap_rt_call("lookup", HLSNAP_ARGS(thing), &cost, &err)) return hlsnap_call_fail(call, err.user_code, err.msg);
    return hlsnap_call_return_fmt(call, "price of %s is %d", thing.str, cost.as.i32);
}
hlsnap_result crash(hlsnap_call *call, void *) {
    *const_cast<volatile int *>(static_cast<int *>(nullptr)) = ++calls;
    return hlsnap_call_return(call, hlsnap_call_arg(call, 0));
}
hlsnap_result spin(hlsnap_call *call, void *) {
    for (;;) __asm__ volatile("" ::: "memory");
    return hlsnap_call_return(call, hlsnap_call_arg(call, 0));
}
const hlsnap_function exports[] = {{"hello", "str(str)", hello, nullptr}, {"price", "str(str)", price, nullptr},
                                   {"crash", "str(str)", crash, nullptr}, {"spin", "str(str)", spin, nullptr}};
const hlsnap_function imports[] = {{"lookup", "i32(str)", nullptr, nullptr}};
const hlsnap_module module = {exports, HLSNAP_COUNT(exports), imports, HLSNAP_COUNT(imports)};

// ---- the plug-in's host side ----
int price_of(const std::string &thing) {
    if (thing != "tea") throw std::out_of_range("no such thing: " + thing);
    return 3;
}
// No exception may leave a host function: it would pass through the call into the VM. So each is caught here, and becomes a
// failure of the function, which the guest sees and may answer.
hlsnap_result lookup(hlsnap_call *call, void *) noexcept try {
    return hlsnap_call_return(call, hlsnap_i32(price_of(hlsnap_call_arg(call, 0).str)));
} catch (const std::exception &e) {
    return hlsnap_call_fail(call, 1, e.what());
} catch (...) {
    return hlsnap_call_fail(call, 2, "an exception of another kind");
}

hlsnap_sandbox *sb;
hlsnap_snapshot *clean;

int open() {
    const hlsnap_function functions[] = {{"lookup", "i32(str)", lookup, nullptr}};
    hlsnap_guest_desc guest = HLSNAP_ZERO;
    hlsnap_sandbox_desc desc = HLSNAP_ZERO;
    hlsnap_error err;
    guest.self = &module;
    desc.hypervisor = hlsnap_kvm();
    desc.functions = functions;
    desc.num_functions = HLSNAP_COUNT(functions);
    desc.timeout_ns = 300 * 1000000ull; // of every call
    hlsnap_result r = hlsnap_sandbox_create(&guest, &desc, &sb, &err);
    if (!r) r = hlsnap_sandbox_snapshot(sb, &clean, &err);
    if (r) std::fprintf(stderr, "%s\n", err.msg);
    return r == HLSNAP_ERR_HYPERVISOR ? 77 : r;
}
int call(const char *function, const char *text, char *out, size_t cap) {
    hlsnap_value answer = HLSNAP_ZERO;
    hlsnap_error err;
    const hlsnap_result r = hlsnap_sandbox_call(sb, function, HLSNAP_ARGS(hlsnap_str(text)), &answer, &err);
    if (r == HLSNAP_OK) std::snprintf(out, cap, "%s", answer.str);
    else if (r == HLSNAP_ERR_FUNCTION) std::snprintf(out, cap, "%s, %s", hlsnap_result_name(r), err.msg);
    else std::snprintf(out, cap, "%s", hlsnap_result_name(r));
    return r;
}
int roll_back() { return hlsnap_sandbox_restore(sb, clean, nullptr); }
void close() {
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(clean);
}
} // namespace

extern "C" __attribute__((visibility("default"))) const plugin_api plugin = {hlsnap_version, open, call, roll_back, close};

#else // ---- the host, which knows nothing of hlsnap ----
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>
#include <string>
#include <thread>

namespace {
const plugin_api *load(const char *file, void **so) {
    *so = dlopen(file, RTLD_NOW | RTLD_GLOBAL); // the worst case: every symbol that a plug-in shows could be taken for another's
    if (!*so) std::fprintf(stderr, "%s\n", dlerror());
    const plugin_api *p = *so ? static_cast<const plugin_api *>(dlsym(*so, "plugin")) : nullptr;
    const int bad = p ? p->open() : 1;
    if (bad) std::exit(bad);
    return p;
}
std::string ask(const plugin_api *p, const char *function, const char *text = "") {
    char out[600];
    p->call(function, text, out, sizeof(out));
    return out;
}
std::string twice(const plugin_api *p) {
    const std::string first = ask(p, "hello");
    return first + ", " + ask(p, "hello");
}
void say(const char *who, const std::string &what) { std::printf("%s: %s\n", who, what.c_str()); }
} // namespace

int main() {
    void *tame_so, *wild_so;
    const plugin_api *tame = load("./tame.so", &tame_so), *wild = load("./wild.so", &wild_so);
    std::printf("versions differ: %s\n", tame->version() != wild->version() ? "yes" : "NO");
    say("wild", twice(wild));
    say("wild", ask(wild, "price", "tea"));
    say("wild", "price of gold: " + ask(wild, "price", "gold"));
    const std::string crash = ask(wild, "crash");
    wild->roll_back();
    say("wild", crash + ", rolled back: " + ask(wild, "hello"));
    say("tame", twice(tame)); // its count was not touched

    std::string ended;
    std::atomic<int> state{0};
    std::thread busy([&] {
        state = 1;
        ended = ask(tame, "spin"); // until its time limit
        state = 2;
    });
    while (!state) std::this_thread::yield();
    wild->close();
    dlclose(wild_so);
    const bool gone = !dlopen("./wild.so", RTLD_NOW | RTLD_NOLOAD);
    say("wild", !gone ? "STILL THERE" : state == 1 ? "unloaded while tame runs" : "unloaded TOO LATE");
    busy.join();
    tame->roll_back();
    say("tame", ended + ", rolled back: " + ask(tame, "hello"));
    tame->close();
    dlclose(tame_so);
    return 0;
}
#endif
