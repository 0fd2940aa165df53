// cpp.cpp - a guest in C++ with its standard library: streams, exceptions, containers, threads, a global object.
#define HLSNAP_GUEST_LIBC
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <iostream>
#include <map>
#include <mutex>
#include <new>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

struct Global {
    std::map<std::string, int> words;
    Global() { words["built"] = 1; }
};
static Global global;

struct Unwound {
    int &count;
    explicit Unwound(int &c) : count(c) {}
    ~Unwound() { count++; }
};
__attribute__((__noinline__)) static int throw_from(int n, int &count) {
    Unwound u(count);
    if (!n) throw std::runtime_error("from below");
    return throw_from(n - 1, count) + 1;
}
static hlsnap_result thrown(hlsnap_call *call, void *) {
    int count = 0;
    std::ostringstream said;
    try {
        said << throw_from(hlsnap_call_arg(call, 0).as.i32 - 1, count);
    } catch (const std::exception &e) {
        said << "caught " << e.what() << " through " << count << " frames, " << global.words["built"];
    }
    std::cout << "streams speak" << std::endl;
    return hlsnap_call_return(call, hlsnap_str(said.str().c_str()));
}

// What does not fit the heap is std::bad_alloc, which nothing is lost by.
static hlsnap_result too_much(hlsnap_call *call, void *) {
    std::vector<std::vector<char>> v;
    try {
        for (;;) v.push_back(std::vector<char>(1 << 20, 'x'));
    } catch (const std::bad_alloc &) {
        const bool some = v.size() > 4;
        v.clear();
        return hlsnap_call_return(call, hlsnap_bool(some));
    }
}

static hlsnap_result threads(hlsnap_call *call, void *) {
    const int n = hlsnap_call_arg(call, 0).as.i32;
    std::mutex lock;
    std::condition_variable all;
    std::vector<std::thread> team;
    std::vector<int> order;
    for (int i = 0; i < n; i++) team.emplace_back([&, i] {
        std::this_thread::sleep_for(std::chrono::milliseconds(10 * (n - i)));
        std::lock_guard<std::mutex> l(lock);
        order.push_back(i);
        all.notify_one();
    });
    {
        std::unique_lock<std::mutex> l(lock);
        all.wait(l, [&] { return order.size() == std::size_t(n); });
    }
    for (auto &t : team) t.join();
    std::ostringstream said;
    for (int i : order) said << i << ' ';
    return hlsnap_call_return(call, hlsnap_str(said.str().c_str()));
}

static void leave_noexcept(int n) noexcept {
    int count = 0;
    throw_from(n, count);
}
// What leaves a noexcept function is std::terminate: a message, then abort().
static hlsnap_result uncaught(hlsnap_call *, void *) {
    leave_noexcept(3);
    return HLSNAP_OK;
}

static const hlsnap_function exports[] = {{"thrown", "str(i32)", thrown, nullptr}, {"too_much", "bool()", too_much, nullptr},
                                          {"threads", "str(i32)", threads, nullptr}, {"uncaught", "void()", uncaught, nullptr}};
static const hlsnap_module module_of = {exports, HLSNAP_COUNT(exports), nullptr, 0};
HLSNAP_GUEST_MAIN(module_of);

int main() { hlsnap_rt_serve(); }
