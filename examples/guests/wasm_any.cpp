/* wasm_any.cpp - guest of 08_wasm.c: loads any Wasm module while it runs, by the interpreter of libwabt. */
#define HLSNAP_GUEST_LIBC
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <wabt/binary-reader.h>
#include <wabt/interp/binary-reader-interp.h>
#include <wabt/interp/interp.h>

namespace wi = wabt::interp;

static wi::Store store;
static wi::Module::Ptr loaded;
static wi::Instance::Ptr instance;

static hlsnap_result fail(hlsnap_call *c, const std::string &text) { return hlsnap_call_fail(c, 100, text.c_str()); }

/* What a module may import: host.allow, which is a host function. */
static wabt::Result allow(wi::Thread &, const wi::Values &args, wi::Values &results, wi::Trap::Ptr *trap) {
    hlsnap_value answer;
    hlsnap_error err;
    if (hlsnap_rt_call("allow", HLSNAP_ARGS(hlsnap_u32(args[0].Get<wi::u32>()), hlsnap_u32(args[1].Get<wi::u32>())), &answer,
                       &err)) {
        *trap = wi::Trap::New(store, err.msg);
        return wabt::Result::Error;
    }
    results.assign(1, wi::Value::Make(answer.as.u32));
    return wabt::Result::Ok;
}

/* An exported object by its name; none, or one of another kind: empty. */
template <typename T> static wi::RefPtr<T> find(const std::string &name) {
    const auto &exports = loaded->desc().exports;
    for (size_t i = 0; i < exports.size(); i++) {
        const wi::Ref ref = instance->exports()[i];
        if (exports[i].type.name == name && store.Is<T>(ref)) return store.UnsafeGet<T>(ref);
    }
    return wi::RefPtr<T>();
}

static hlsnap_result unload(hlsnap_call *, void *) { /* void() */
    instance.reset();
    loaded.reset();
    store.Collect();
    return HLSNAP_OK;
}

static hlsnap_result load(hlsnap_call *c, void *) { /* void(bytes module): in the place of the one before */
    const hlsnap_value bytes = hlsnap_call_arg(c, 0);
    const wi::FuncType type({wi::ValueType::I32, wi::ValueType::I32}, {wi::ValueType::I32});
    wabt::Errors errors;
    wi::ModuleDesc desc;
    wi::RefVec imports;
    wi::Trap::Ptr trap;
    unload(c, nullptr);
    if (Failed(wi::ReadBinaryInterp("module", bytes.bytes, bytes.size, wabt::ReadBinaryOptions(), &errors, &desc)))
        return fail(c, errors.empty() ? "malformed" : errors[0].message);
    for (const auto &import : desc.imports) {
        if (import.type.module != "host" || import.type.name != "allow")
            return fail(c, "the module wants " + import.type.module + "." + import.type.name + ", which is not there");
        imports.push_back(wi::HostFunc::New(store, type, allow).ref());
    }
    loaded = wi::Module::New(store, desc);
    instance = wi::Instance::Instantiate(store, loaded.ref(), imports, &trap); /* types of imports are compared; start runs */
    return instance ? HLSNAP_OK : fail(c, trap ? trap->message() : "cannot be instantiated");
}

/* Puts a request into the module's memory, where its buffer() says, which need not be true. */
static bool put(const hlsnap_value &request, wi::Trap::Ptr *trap) {
    const auto memory = find<wi::Memory>("memory");
    const auto buffer = find<wi::DefinedFunc>("buffer");
    wi::Values results;
    if (!memory || !buffer || !buffer->type().params.empty() || buffer->type().results != wi::ValueTypes{wi::ValueType::I32} ||
        Failed(buffer->Call(store, {}, results, trap)) || !memory->IsValidAccess(results[0].Get<wi::u32>(), 0, request.size))
        return false;
    memcpy(memory->UnsafeData() + results[0].Get<wi::u32>(), request.bytes, request.size);
    return true;
}

static wi::Value value_of(wi::ValueType type, const char *text, char **end) {
    if (type == wi::ValueType::I32) return wi::Value::Make(static_cast<wi::u32>(strtoll(text, end, 0)));
    if (type == wi::ValueType::I64) return wi::Value::Make(static_cast<wi::u64>(strtoull(text, end, 0)));
    if (type == wi::ValueType::F32) return wi::Value::Make(strtof(text, end));
    if (type == wi::ValueType::F64) return wi::Value::Make(strtod(text, end));
    return wi::Value();
}

static std::string text_of(wi::ValueType type, const wi::Value &v) {
    if (type == wi::ValueType::I32) return std::to_string(v.Get<wi::u32>());
    if (type == wi::ValueType::I64) return std::to_string(v.Get<wi::u64>());
    if (type == wi::ValueType::F32) return std::to_string(v.Get<wi::f32>());
    if (type == wi::ValueType::F64) return std::to_string(v.Get<wi::f64>());
    return "?";
}

static hlsnap_result call(hlsnap_call *c, void *) { /* str(str "NAME NUMBER...", bytes request): any function of numbers */
    const char *const line = hlsnap_call_arg(c, 0).str, *text = line + strcspn(line, " ");
    const hlsnap_value request = hlsnap_call_arg(c, 1);
    wi::Values args, results;
    wi::Trap::Ptr trap;
    std::string answer;
    if (!instance) return fail(c, "no module is loaded");
    const auto function = find<wi::DefinedFunc>(std::string(line, text));
    if (!function) return fail(c, "the module exports no such function");
    for (const auto type : function->type().params) {
        char *end = nullptr;
        args.push_back(value_of(type, text, &end));
        if (!end || end == text) return fail(c, "the function takes other arguments");
        text = end;
    }
    if (request.size && !put(request, &trap)) return fail(c, trap ? trap->message() : "the module takes no request of that size");
    if (Failed(function->Call(store, args, results, &trap))) return fail(c, trap->message());
    for (size_t i = 0; i < results.size(); i++) answer += (i ? " " : "") + text_of(function->type().results[i], results[i]);
    return hlsnap_call_return(c, hlsnap_str(answer.c_str()));
}

static const hlsnap_function exports[] = {{"load", "void(bytes)", load, nullptr},
                                          {"call", "str(str,bytes)", call, nullptr},
                                          {"unload", "void()", unload, nullptr}};
static const hlsnap_function imports[] = {{"allow", "u32(u32,u32)", nullptr, nullptr}};
static const hlsnap_module guest = {exports, HLSNAP_COUNT(exports), imports, HLSNAP_COUNT(imports)};
HLSNAP_GUEST_MAIN(guest);

int main() {
    /* A module may want more memory than there is. libwabt is not made for exceptions: what it leaves is for a restore. */
    std::set_new_handler([] { hlsnap_rt_abort(101, "out of memory"); });
    hlsnap_rt_serve();
}
