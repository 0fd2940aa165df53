// api_plugin.cpp - public names only: a C++17 plug-in with a vendored hlsnap of its own; no hlsnap type crosses to its host.
// cc: c++ -std=c++17 -shared -fPIC -I.. api_plugin.cpp -o plugin.so && c++ -DPLUGIN_HOST api_plugin.cpp -ldl -o host
// run: ./host ./plugin.so [./another.so]    prints the lines that compile_matrix.sh expects; exit 77 without a hypervisor
#ifdef PLUGIN_HOST
#include <cstdio>
#include <cstring>
#include <dlfcn.h>
int main(int argc, char **argv) {
    int rc = 0;
    for (int i = 1; i < argc && !rc; i++) {
        void *so = dlopen(argv[i], RTLD_NOW | RTLD_GLOBAL); // global on purpose: nothing of hlsnap may leak anyway
        void *p = so ? dlsym(so, "plugin_entry") : nullptr;
        int (*entry)(const char *) = nullptr;
        if (!p) return std::printf("%s\n", dlerror()) < 0 ? 2 : 1;
        std::memcpy(&entry, &p, sizeof(entry));
        rc = entry(i == 1 ? "one" : "two");
    }
    return rc;
}
#else
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>

extern "C" __attribute__((visibility("default"))) int plugin_entry(const char *text);

namespace {
struct destroy { void operator()(hlsnap_sandbox *s) const noexcept { hlsnap_sandbox_destroy(s); } };
struct release { void operator()(hlsnap_snapshot *s) const noexcept { hlsnap_snapshot_release(s); } };

int calls = 0;
thread_local int deep = 1;
hlsnap_result shout(hlsnap_call *call, void *) { // guest side
    const hlsnap_value in = hlsnap_call_arg(call, 0);
    if (in.size > 20) hlsnap_rt_abort(3, "too long");
    if (hlsnap_rt_call("log", HLSNAP_ARGS(in), nullptr, nullptr)) return hlsnap_call_fail(call, 1, "no log");
    return hlsnap_call_return_fmt(call, "%s! (%d, %d)", in.str, ++calls, ++deep);
}
const hlsnap_function exports[] = {{"shout", "str(str)", shout, nullptr}};
const hlsnap_function imports[] = {{"log", "void(str)", nullptr, nullptr}};
const hlsnap_module module = {exports, HLSNAP_COUNT(exports), imports, HLSNAP_COUNT(imports)};

class plugin {
public:
    plugin() {
        const hlsnap_function functions[] = {
            {"log", "void(str)",
             [](hlsnap_call *call, void *self) noexcept -> hlsnap_result {
                 try {
                     static_cast<plugin *>(self)->log_ += hlsnap_call_arg(call, 0).str;
                 } catch (...) {
                     return hlsnap_call_fail(call, 1, "out of memory");
                 }
                 return HLSNAP_OK;
             },
             this}};
        hlsnap_guest_desc guest = HLSNAP_ZERO;
        hlsnap_sandbox_desc desc = HLSNAP_ZERO;
        hlsnap_sandbox *sb = nullptr;
        hlsnap_snapshot *snapshot = nullptr;
        guest.self = &module;
        desc.hypervisor = hlsnap_kvm();
        desc.functions = functions;
        desc.num_functions = HLSNAP_COUNT(functions);
        check(hlsnap_sandbox_create(&guest, &desc, &sb, &err_));
        sb_.reset(sb);
        check(hlsnap_sandbox_snapshot(sb, &snapshot, &err_));
        clean_.reset(snapshot);
    }
    std::string call(const std::string &text) {
        hlsnap_value out = HLSNAP_ZERO;
        const hlsnap_result r = hlsnap_sandbox_call(sb_.get(), "shout", HLSNAP_ARGS(hlsnap_str(text.c_str())), &out, &err_);
        if (r == HLSNAP_OK) return out.str;
        check(hlsnap_sandbox_restore(sb_.get(), clean_.get(), nullptr));
        return std::string("rolled back: ") + hlsnap_result_name(r);
    }
    const std::string &log() const { return log_; }

private:
    void check(hlsnap_result r) const {
        if (r != HLSNAP_OK) throw std::runtime_error(err_.msg);
    }
    std::unique_ptr<hlsnap_sandbox, destroy> sb_;
    std::unique_ptr<hlsnap_snapshot, release> clean_;
    std::string log_;
    hlsnap_error err_ = HLSNAP_ZERO;
};
} // namespace

int plugin_entry(const char *text) try {
    if (hlsnap_kvm_probe(nullptr)) return 77;
    plugin p;
    std::printf("%s\n", p.call(text).c_str());
    std::printf("%s\n", p.call(text).c_str());
    std::printf("%s\n", p.call("what is this, a novel?").c_str());
    std::printf("%s\n", p.call(text).c_str());
    std::printf("log: %s\n", p.log().c_str());
    return 0;
} catch (const std::exception &e) {
    std::printf("%s\n", e.what());
    return 1;
}
#endif
