/* test_linux_threads.h - threads, futexes, sleeping, pipes, events, epoll, poll and select of the Linux personality. A part of
   test_linux.c. What the kernel of this machine can be asked for is asked there, too: a script runs in both, and both say the
   same. */
#include <linux/futex.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>

#define THREADS_HEAP (8u << 20)
#define ALL_FUTEX FUTEX_BITSET_MATCH_ANY

static void threads_begin(void) { lx_begin(THREADS_HEAP, NULL, 0); }

/* ---- scripts that run here and in the kernel ---- */

static struct { char text[32768]; size_t n; } trace[2]; /* the personality's; the kernel's */
static int traced;                                      /* which of them runs */
static int64_t kernel6(uint64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f) {
    const long r = syscall((long)number, a, b, c, d, e, f);
    return r < 0 ? -errno : r;
}
#define ON(n, a, b, c, d, e, f, ...) \
    (traced ? kernel6 : sys6)(n, (uint64_t)(a), (uint64_t)(b), (uint64_t)(c), (uint64_t)(d), (uint64_t)(e), (uint64_t)(f))
#define on(...) ON(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)
#define SAYS(value) trace_add(__LINE__, #value, (long long)(value))
static long long trace_add(int line, const char *what, long long v) {
    const size_t room = sizeof(trace[0].text) - trace[traced].n;
    const int n = snprintf(trace[traced].text + trace[traced].n, room, "%d: %.60s is %lld\n", line, what, v);
    if (n > 0 && (size_t)n < room) trace[traced].n += (size_t)n;
    else test_check(0, "the trace is full", __FILE__, line);
    return v;
}
static void trace_compare(void) {
    const char *a = trace[0].text, *b = trace[1].text;
    CHECK(trace[1].n > 0);
    while (*a && *b) {
        const size_t n = strcspn(a, "\n"), k = strcspn(b, "\n");
        if (n != k || memcmp(a, b, n) != 0) {
            printf("# here %.*s; in the kernel %.*s\n", (int)n, a, (int)k, b);
            test_bad++;
        }
        a += n + 1;
        b += k + 1;
    }
    CHECK(*a == *b);
}
static void same_as_kernel(void (*script)(void)) {
    for (traced = 1; traced >= 0; traced--) {
        if (!traced) threads_begin();
        memset(&trace[traced], 0, sizeof(trace[0]));
        script();
    }
    traced = 0;
    trace_compare();
}

/* ---- pipes and events ---- */

static char bulk[80000];

static void script_pipe(void) {
    int p[2], q[2];
    uint64_t i;
    char b[16] = "abcdefghij";
    SAYS(on(SYS_pipe2, p, O_NONBLOCK));
    SAYS(on(SYS_pipe2, q, O_CLOEXEC));
    SAYS(on(SYS_pipe2, p, 1));
    SAYS(on(SYS_pipe2, p, 0x40000000));
    SAYS(on(SYS_read, p[0], b, 0));
    SAYS(on(SYS_read, p[0], b, 5));
    SAYS(on(SYS_write, p[1], b, 0));
    SAYS(on(SYS_write, p[1], b, 10));
    SAYS(on(SYS_write, p[0], b, 1));
    SAYS(on(SYS_read, p[1], b, 1));
    SAYS(on(SYS_read, p[0], b, 3));
    SAYS(b[2]);
    SAYS(on(SYS_read, p[0], b, 16));
    SAYS(b[6]);
    SAYS(on(SYS_read, p[0], b, 16));
    SAYS(on(SYS_write, p[1], bulk, 65536));
    SAYS(on(SYS_write, p[1], b, 1));
    SAYS(on(SYS_write, p[1], bulk, 8192));
    SAYS(on(SYS_read, p[0], bulk, 4096));
    SAYS(on(SYS_write, p[1], bulk, 8192)); /* as much as fits */
    SAYS(on(SYS_write, p[1], b, 1));
    for (i = 0; i < 16; i++) SAYS(on(SYS_read, p[0], bulk, 4096));
    SAYS(on(SYS_write, p[1], bulk, 80000));
    SAYS(on(SYS_read, p[0], bulk, 80000));
    for (i = 0; i < 1000; i++) { /* around the ring */
        memset(bulk, (int)i, 777);
        if (on(SYS_write, p[1], bulk, 777) != 777) SAYS(i);
        memset(bulk, 0, 777);
        if (on(SYS_read, p[0], bulk, 1000) != 777 || bulk[0] != (char)i || bulk[776] != (char)i) SAYS(i);
    }
    SAYS(on(SYS_write, p[1], "last", 4));
    SAYS(on(SYS_close, p[1]));
    SAYS(on(SYS_read, p[0], b, 16));
    SAYS(on(SYS_read, p[0], b, 16));
    SAYS(on(SYS_close, p[0]));
    SAYS(on(SYS_read, p[0], b, 16));
    SAYS(on(SYS_close, q[0]));
    SAYS(on(SYS_write, q[1], b, 0));
    SAYS(on(SYS_write, q[1], b, 1));
    SAYS(on(SYS_close, q[1]));
}
static void pipes_are_the_kernels(void) {
    signal(SIGPIPE, SIG_IGN);
    same_as_kernel(script_pipe);
}

static void script_event(void) {
    uint64_t v = 7, top = UINT64_MAX - 1, max = UINT64_MAX;
    const int e = (int)on(SYS_eventfd2, 3, O_NONBLOCK), s = (int)on(SYS_eventfd2, 2, O_NONBLOCK | 1);
    SAYS(on(SYS_eventfd2, 0, 2));
    SAYS(on(SYS_eventfd2, 0, O_APPEND));
    SAYS(on(SYS_read, e, &v, 7));
    SAYS(on(SYS_write, e, &v, 7));
    SAYS(on(SYS_read, e, &v, 8));
    SAYS(v);
    SAYS(on(SYS_read, e, &v, 16));
    SAYS(on(SYS_write, e, &top, 8));
    SAYS(on(SYS_write, e, &max, 8));
    v = 0;
    SAYS(on(SYS_write, e, &v, 8));
    v = 1;
    SAYS(on(SYS_write, e, &v, 8));
    SAYS(on(SYS_read, e, &v, 16));
    SAYS((int64_t)v);
    v = 0;
    SAYS(on(SYS_write, e, &v, 8));
    SAYS(on(SYS_read, e, &v, 8));
    SAYS(on(SYS_read, s, &v, 8));
    SAYS(v);
    v = 0;
    SAYS(on(SYS_read, s, &v, 8));
    SAYS(v);
    SAYS(on(SYS_read, s, &v, 8));
    SAYS(on(SYS_close, e));
    SAYS(on(SYS_close, s));
}
static void events_are_the_kernels(void) { same_as_kernel(script_event); }

/* ---- polling ---- */

static int64_t poll1(int fd, int events, int timeout) { /* the answer, and what is ready above it */
    struct pollfd p;
    int64_t r;
    p.fd = fd;
    p.events = (short)events;
    p.revents = 0x7777;
    r = on(SYS_poll, &p, 1, timeout);
    return r < 0 ? r : r | (int64_t)(unsigned short)p.revents << 8;
}
#define ALL_POLL (POLLIN | POLLOUT | POLLPRI | POLLRDNORM | POLLWRNORM | 0x2000)

static void script_poll(void) {
    struct pollfd many[3];
    struct timespec t = {0, 0}, bad = {0, 1000000000};
    int p[2], q[2];
    uint64_t v = UINT64_MAX - 1;
    const int e = (int)on(SYS_eventfd2, 0, O_NONBLOCK);
    on(SYS_pipe2, p, O_NONBLOCK);
    on(SYS_pipe2, q, O_NONBLOCK);
    SAYS(poll1(p[0], ALL_POLL, 0));
    SAYS(poll1(p[1], ALL_POLL, 0));
    SAYS(poll1(p[1], 0, 0));
    on(SYS_write, p[1], "x", 1);
    SAYS(poll1(p[0], ALL_POLL, -1));
    SAYS(poll1(p[0], POLLIN, 5));
    SAYS(poll1(p[0], POLLOUT, 0));
    on(SYS_read, p[0], bulk, 1);
    on(SYS_write, p[1], bulk, 65536);
    SAYS(poll1(p[1], ALL_POLL, 1));
    on(SYS_read, p[0], bulk, 4095);
    SAYS(poll1(p[1], ALL_POLL, 0));
    on(SYS_read, p[0], bulk, 1);
    SAYS(poll1(p[1], ALL_POLL, 0));
    on(SYS_close, p[1]);
    SAYS(poll1(p[0], ALL_POLL, 0));
    SAYS(poll1(p[0], 0, -1));
    on(SYS_read, p[0], bulk, 65536);
    SAYS(poll1(p[0], ALL_POLL, -1));
    SAYS(poll1(p[1], ALL_POLL, -1)); /* closed */
    SAYS(poll1(-5, ALL_POLL, 0));
    on(SYS_close, q[0]);
    SAYS(poll1(q[1], ALL_POLL, -1));
    SAYS(poll1(q[1], 0, -1));
    SAYS(poll1(e, ALL_POLL, 0));
    on(SYS_write, e, &v, 8);
    SAYS(poll1(e, ALL_POLL, 0));
    many[0].fd = e;
    many[0].events = POLLIN;
    many[1].fd = -1;
    many[2].fd = q[1];
    many[2].events = 0;
    SAYS(on(SYS_poll, many, 3, -1));
    SAYS(on(SYS_ppoll, many, 3, 0, 0, 8));
    SAYS(on(SYS_ppoll, many, 1, &t, 0, 8));
    SAYS(on(SYS_ppoll, many, 1, &bad, 0, 8));
    SAYS(on(SYS_poll, many, 0, 1));
    SAYS(on(SYS_close, e));
}
static void poll_is_the_kernels(void) { same_as_kernel(script_poll); }

static void script_select(void) {
    fd_set in, out, ex;
    struct timeval t = {0, 0}, bad = {-1, 0}, long_one = {5, 2500000};
    struct timespec ts = {0, 1000000000};
    int p[2], q[2], i;
    on(SYS_pipe2, p, O_NONBLOCK);
    on(SYS_pipe2, q, O_NONBLOCK);
    on(SYS_write, p[1], "x", 1);
    on(SYS_close, q[0]);
    for (i = 0; i < 4; i++) {
        FD_ZERO(&in);
        FD_ZERO(&out);
        FD_ZERO(&ex);
        FD_SET(p[0], &in);
        FD_SET(p[1], &in);
        FD_SET(p[1], &out);
        FD_SET(q[1], &out);
        FD_SET(q[1], &ex);
        FD_SET(q[1], &in);
        SAYS(on(SYS_select, i == 0 ? 0 : i == 1 ? p[0] + 1 : 1024, &in, i == 3 ? NULL : &out, &ex, &t));
        SAYS(!!FD_ISSET(p[0], &in));
        SAYS(!!FD_ISSET(p[1], &in));
        SAYS(!!FD_ISSET(p[1], &out));
        SAYS(!!FD_ISSET(q[1], &out));
        SAYS(!!FD_ISSET(q[1], &in));
        SAYS(!!FD_ISSET(q[1], &ex));
    }
    SAYS(on(SYS_select, -1, 0, 0, 0, &t));
    SAYS(on(SYS_select, 2000, 0, 0, 0, &t));
    SAYS(on(SYS_select, 1, 0, 0, 0, &bad));
    SAYS(on(SYS_pselect6, 1, 0, 0, 0, &ts, 0));
    ts.tv_nsec = 1000;
    SAYS(on(SYS_pselect6, 0, 0, 0, 0, &ts, 0));
    SAYS(ts.tv_nsec);
    FD_ZERO(&in);
    FD_SET(p[0], &in);
    SAYS(on(SYS_select, p[0] + 1, &in, 0, 0, &long_one));
    SAYS(long_one.tv_sec);
    FD_ZERO(&in);
    FD_SET(q[0], &in); /* closed */
    SAYS(on(SYS_select, q[0] + 1, &in, 0, 0, &t));
    SAYS(!!FD_ISSET(q[0], &in));
    SAYS(on(SYS_select, q[0], &in, 0, 0, &t));
    on(SYS_close, p[0]);
    on(SYS_close, p[1]);
    on(SYS_close, q[1]);
}
static void select_is_the_kernels(void) { same_as_kernel(script_select); }

/* ---- epoll ---- */

static int64_t ctl(int ep, int op, int fd, uint32_t events, uint64_t data) {
    struct epoll_event e;
    e.events = events;
    e.data.u64 = data;
    return on(SYS_epoll_ctl, ep, op, fd, &e);
}
/* How many, and the events and data of the first ones, as digits. */
static int64_t reported(int ep, int most) {
    struct epoll_event e[8];
    int64_t r, i;
    uint64_t sum;
    memset(e, 0, sizeof(e));
    r = on(SYS_epoll_wait, ep, e, most, 0);
    sum = (uint64_t)r;
    for (i = 0; i < r; i++) sum = sum * 100000 + e[i].events * 10 + e[i].data.u64;
    return (int64_t)sum;
}
#define ADD EPOLL_CTL_ADD
#define MOD EPOLL_CTL_MOD
#define DEL EPOLL_CTL_DEL

static void script_epoll_errors(void) {
    struct epoll_event e;
    struct timespec bad = {0, 1000000000};
    int p[2];
    const int ep = (int)on(SYS_epoll_create1, 0), other = (int)on(SYS_epoll_create1, EPOLL_CLOEXEC);
    on(SYS_pipe2, p, O_NONBLOCK);
    SAYS(on(SYS_epoll_create1, 1));
    SAYS(on(SYS_epoll_create, 0));
    SAYS(on(SYS_epoll_create, -1));
    SAYS(ctl(ep, ADD, p[0], EPOLLIN, 1));
    SAYS(ctl(ep, ADD, p[0], EPOLLIN, 1));
    SAYS(ctl(ep, MOD, p[1], EPOLLIN, 1));
    SAYS(ctl(ep, DEL, p[1], EPOLLIN, 1));
    SAYS(ctl(ep, 9, p[1], EPOLLIN, 1));
    SAYS(ctl(ep, ADD, 900, EPOLLIN, 1));
    SAYS(ctl(900, ADD, p[1], EPOLLIN, 1));
    SAYS(ctl(p[0], ADD, p[1], EPOLLIN, 1));
    SAYS(ctl(ep, ADD, ep, EPOLLIN, 1));
    SAYS(ctl(ep, ADD, other, EPOLLIN | EPOLLEXCLUSIVE, 1));
    SAYS(ctl(ep, ADD, p[1], EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT, 1));
    SAYS(ctl(ep, ADD, p[1], EPOLLIN | EPOLLEXCLUSIVE | EPOLLPRI, 1));
    SAYS(ctl(ep, ADD, p[1], EPOLLIN | EPOLLEXCLUSIVE | EPOLLET, 1));
    SAYS(ctl(ep, MOD, p[1], EPOLLIN, 1));
    SAYS(ctl(ep, MOD, p[0], EPOLLIN | EPOLLEXCLUSIVE, 1));
    SAYS(on(SYS_epoll_wait, ep, &e, 0, 0));
    SAYS(on(SYS_epoll_wait, ep, &e, -1, 0));
    SAYS(on(SYS_epoll_wait, ep, &e, 0x7fffffff, 0));
    SAYS(on(SYS_epoll_wait, p[0], &e, 1, 0));
    SAYS(on(SYS_epoll_wait, 900, &e, 1, 0));
    SAYS(on(SYS_epoll_pwait2, ep, &e, 1, &bad, 0, 8));
    bad.tv_nsec = 1;
    SAYS(on(SYS_epoll_pwait2, ep, &e, 1, &bad, 0, 8));
    SAYS(on(SYS_epoll_pwait, ep, &e, 1, 0, 0, 8));
    SAYS(on(SYS_read, ep, &e, 8));
    SAYS(on(SYS_write, ep, &e, 8));
    SAYS(ctl(other, ADD, ep, EPOLLIN, 1));
    SAYS(ctl(ep, ADD, other, EPOLLIN, 1)); /* a loop */
    SAYS(ctl(other, DEL, ep, 0, 0));
    SAYS(ctl(ep, ADD, other, EPOLLIN, 1)); /* none any more */
    on(SYS_close, p[0]);
    on(SYS_close, p[1]);
    on(SYS_close, ep);
    on(SYS_close, other);
}
static void epoll_errors_are_the_kernels(void) { same_as_kernel(script_epoll_errors); }

static void script_epoll_pipe(void) {
    static const uint32_t kinds[4] = {0, EPOLLET, EPOLLONESHOT, EPOLLET | EPOLLONESHOT};
    int k, p[2];
    for (k = 0; k < 4; k++) {
        const int ep = (int)on(SYS_epoll_create1, 0);
        on(SYS_pipe2, p, O_NONBLOCK);
        SAYS(ctl(ep, ADD, p[0], EPOLLIN | EPOLLRDNORM | kinds[k], 1));
        SAYS(ctl(ep, ADD, p[1], EPOLLOUT | kinds[k], 2));
        SAYS(reported(ep, 8));
        SAYS(reported(ep, 8));
        on(SYS_write, p[1], "abc", 3);
        SAYS(reported(ep, 8));
        SAYS(reported(ep, 8));
        on(SYS_write, p[1], "abc", 3); /* is there something: an edge all the same */
        SAYS(reported(ep, 1));
        SAYS(reported(ep, 1));
        on(SYS_read, p[0], bulk, 1); /* no edge: not for the writer either */
        SAYS(reported(ep, 8));
        SAYS(ctl(ep, MOD, p[0], EPOLLIN | kinds[k], 3)); /* armed again, and ready */
        SAYS(reported(ep, 8));
        SAYS(reported(ep, 8));
        on(SYS_read, p[0], bulk, 80000);
        SAYS(reported(ep, 8));
        on(SYS_write, p[1], bulk, 65536);
        SAYS(reported(ep, 8));
        SAYS(ctl(ep, MOD, p[1], EPOLLOUT | kinds[k], 4)); /* full */
        SAYS(reported(ep, 8));
        on(SYS_read, p[0], bulk, 4096);
        SAYS(reported(ep, 8));
        on(SYS_read, p[0], bulk, 4096);
        SAYS(reported(ep, 8));
        SAYS(ctl(ep, MOD, p[0], kinds[k], 5)); /* errors and ends only */
        SAYS(reported(ep, 8));
        on(SYS_close, p[1]); /* it leaves; the other end hears it */
        SAYS(reported(ep, 8));
        SAYS(reported(ep, 8));
        SAYS(ctl(ep, DEL, p[0], 0, 0));
        SAYS(reported(ep, 8));
        SAYS(ctl(ep, ADD, p[0], EPOLLIN | kinds[k], 6));
        SAYS(reported(ep, 8));
        on(SYS_close, p[0]);
        SAYS(reported(ep, 8));
        on(SYS_close, ep);
    }
    for (k = 0; k < 2; k++) { /* the reader goes */
        const int ep = (int)on(SYS_epoll_create1, 0);
        on(SYS_pipe2, p, O_NONBLOCK);
        SAYS(ctl(ep, ADD, p[1], EPOLLOUT | kinds[k], 2));
        SAYS(reported(ep, 8));
        on(SYS_close, p[0]);
        SAYS(reported(ep, 8));
        SAYS(reported(ep, 8));
        on(SYS_close, p[1]);
        on(SYS_close, ep);
    }
}
static void epoll_of_pipes_is_the_kernels(void) { same_as_kernel(script_epoll_pipe); }

static void script_epoll_event(void) {
    static const uint32_t kinds[3] = {0, EPOLLET, EPOLLONESHOT};
    uint64_t v = 1, top = UINT64_MAX - 1;
    int k;
    for (k = 0; k < 3; k++) {
        const int ep = (int)on(SYS_epoll_create1, 0);
        int e = (int)on(SYS_eventfd2, 0, O_NONBLOCK);
        SAYS(ctl(ep, ADD, e, EPOLLIN | EPOLLOUT | kinds[k], 1));
        SAYS(reported(ep, 8));
        SAYS(reported(ep, 8));
        on(SYS_write, e, &v, 8);
        SAYS(reported(ep, 8));
        SAYS(reported(ep, 8));
        on(SYS_write, e, &v, 8);
        SAYS(reported(ep, 8));
        on(SYS_read, e, &v, 8);
        SAYS(reported(ep, 8));
        SAYS(reported(ep, 8));
        on(SYS_write, e, &top, 8);
        SAYS(reported(ep, 8));
        SAYS(ctl(ep, MOD, e, EPOLLOUT | kinds[k], 2));
        SAYS(reported(ep, 8));
        on(SYS_read, e, &v, 8);
        SAYS(reported(ep, 8));
        on(SYS_close, e);
        e = (int)on(SYS_eventfd2, 2, O_NONBLOCK | 1);
        SAYS(ctl(ep, ADD, e, EPOLLIN | kinds[k], 3));
        SAYS(reported(ep, 8));
        on(SYS_read, e, &v, 8); /* there is one left, but this is no edge for who reads */
        SAYS(reported(ep, 8));
        on(SYS_close, e);
        on(SYS_close, ep);
    }
}
static void epoll_of_events_is_the_kernels(void) { same_as_kernel(script_epoll_event); }

static void script_epoll_lives(void) {
    int e[5], copy, i;
    uint64_t v = 1;
    const int ep = (int)on(SYS_epoll_create1, 0), outer = (int)on(SYS_epoll_create1, 0);
    for (i = 0; i < 5; i++) {
        e[i] = (int)on(SYS_eventfd2, 0, O_NONBLOCK);
        SAYS(ctl(ep, ADD, e[i], EPOLLIN, (uint64_t)i));
    }
    for (i = 4; i >= 0; i--) on(SYS_write, e[i], &v, 8);
    for (i = 0; i < 6; i++) SAYS(reported(ep, 2)); /* turns */
    on(SYS_read, e[2], &v, 8);
    for (i = 0; i < 6; i++) SAYS(reported(ep, 3));
    copy = (int)on(SYS_dup, e[0]); /* what is watched is the description */
    SAYS(ctl(ep, ADD, copy, EPOLLIN, 9));
    SAYS(ctl(ep, ADD, copy, EPOLLIN, 9));
    SAYS(reported(ep, 8));
    SAYS(ctl(ep, DEL, copy, EPOLLIN, 9));
    on(SYS_close, e[0]);
    SAYS(reported(ep, 8)); /* still there */
    SAYS(ctl(ep, DEL, e[0], 0, 0));
    SAYS(ctl(ep, MOD, copy, EPOLLIN, 0));
    on(SYS_close, copy);
    SAYS(reported(ep, 8));
    SAYS(ctl(outer, ADD, ep, EPOLLIN | EPOLLET, 7)); /* an epoll in an epoll */
    SAYS(reported(outer, 8));
    SAYS(reported(outer, 8));
    on(SYS_write, e[2], &v, 8);
    SAYS(reported(outer, 8));
    SAYS(poll1(ep, ALL_POLL, 0));
    SAYS(poll1(outer, ALL_POLL, 0));
    for (i = 1; i < 5; i++) on(SYS_read, e[i], &v, 8);
    SAYS(poll1(ep, ALL_POLL, 0));
    SAYS(reported(outer, 8));
    on(SYS_write, e[3], &v, 8);
    SAYS(poll1(outer, ALL_POLL, 0));
    SAYS(reported(outer, 8));
    SAYS(ctl(outer, MOD, ep, EPOLLIN, 7));
    SAYS(reported(outer, 8));
    SAYS(reported(outer, 8));
    on(SYS_close, ep);
    SAYS(reported(outer, 8));
    on(SYS_close, outer);
    for (i = 1; i < 5; i++) SAYS(on(SYS_close, e[i]));
}
static void epoll_lives_as_the_kernels(void) { same_as_kernel(script_epoll_lives); }

static const char threads_file[] = "/tmp/hlsnap-test-linux-threads";
static void script_epoll_file(void) {
    const int ep = (int)on(SYS_epoll_create1, 0), fd = (int)on(SYS_open, threads_file, O_CREAT | O_RDWR, 0600);
    SAYS(fd >= 0);
    SAYS(ctl(ep, ADD, fd, EPOLLIN, 1));
    SAYS(ctl(fd, ADD, ep, EPOLLIN, 1));
    SAYS(poll1(fd, ALL_POLL, 0));
    on(SYS_close, fd);
    on(SYS_close, ep);
}
static void epoll_refuses_files(void) {
    same_as_kernel(script_epoll_file);
    unlink(threads_file);
}

/* ---- futexes and sleeping: what one thread can ask ---- */

#define WAKE_OP(op, arg, cmp, with) ((uint32_t)(op) << 28 | (uint32_t)(cmp) << 24 | ((arg) & 0xfffu) << 12 | ((with) & 0xfffu))
static void script_futex(void) {
    uint32_t word[2] = {5, 9}, *f = word;
    struct timespec tiny = {0, 1000}, bad = {0, -1}, old = {-1, 0}, past = {1, 0};
    SAYS(on(SYS_futex, f, FUTEX_WAIT, 4, 0));
    SAYS(on(SYS_futex, f, FUTEX_WAIT_PRIVATE, 4, &tiny));
    SAYS(on(SYS_futex, f, FUTEX_WAIT, 5, &tiny));
    SAYS(on(SYS_futex, f, FUTEX_WAIT, 5, &bad));
    SAYS(on(SYS_futex, f, FUTEX_WAIT, 4, &old));
    SAYS(on(SYS_futex, S(f) + 1, FUTEX_WAIT, 5, &tiny));
    SAYS(on(SYS_futex, S(f) + 2, FUTEX_WAKE, 1));
    SAYS(on(SYS_futex, f, FUTEX_WAKE, 1));
    SAYS(on(SYS_futex, f, FUTEX_WAKE, -1));
    SAYS(on(SYS_futex, f, FUTEX_WAIT_BITSET, 5, &past, 0, ALL_FUTEX));
    SAYS(on(SYS_futex, f, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 5, &past, 0, ALL_FUTEX));
    SAYS(on(SYS_futex, f, FUTEX_WAIT_BITSET, 4, &past, 0, ALL_FUTEX));
    SAYS(on(SYS_futex, f, FUTEX_WAIT_BITSET, 5, &past, 0, 0));
    SAYS(on(SYS_futex, f, FUTEX_WAKE_BITSET, 5, 0, 0, 0));
    SAYS(on(SYS_futex, f, FUTEX_WAKE_BITSET, 5, 0, 0, 3));
    SAYS(on(SYS_futex, f, FUTEX_WAKE | FUTEX_CLOCK_REALTIME, 1));
    SAYS(on(SYS_futex, f, FUTEX_CMP_REQUEUE, 1, 1, f + 1, 4));
    SAYS(on(SYS_futex, f, FUTEX_CMP_REQUEUE, 1, 1, f + 1, 5));
    SAYS(on(SYS_futex, f, FUTEX_CMP_REQUEUE, -1, 1, f + 1, 5));
    SAYS(on(SYS_futex, f, FUTEX_CMP_REQUEUE, 1, -1, f + 1, 5));
    SAYS(on(SYS_futex, f, FUTEX_CMP_REQUEUE, 1, 1, S(f) + 1, 5));
    SAYS(on(SYS_futex, f, FUTEX_REQUEUE, 1, 1, f + 1));
    SAYS(on(SYS_futex, f, FUTEX_WAKE_OP, 1, 1, f + 1, WAKE_OP(FUTEX_OP_ADD, 3, FUTEX_OP_CMP_EQ, 9)));
    SAYS(word[1]);
    SAYS(on(SYS_futex, f, FUTEX_WAKE_OP, 1, 1, f + 1, WAKE_OP((FUTEX_OP_SET | 8), 5, FUTEX_OP_CMP_LT, 9)));
    SAYS(word[1]);
    SAYS(on(SYS_futex, f, FUTEX_WAKE_OP, 1, 1, f + 1, WAKE_OP(FUTEX_OP_OR, 0xfff, FUTEX_OP_CMP_GE, 9)));
    SAYS((int)word[1]);
    SAYS(on(SYS_futex, f, FUTEX_WAKE_OP, 1, 1, f + 1, WAKE_OP(FUTEX_OP_ANDN, 6, FUTEX_OP_CMP_GT, 9)));
    SAYS((int)word[1]);
    SAYS(on(SYS_futex, f, FUTEX_WAKE_OP, 1, 1, f + 1, WAKE_OP(FUTEX_OP_XOR, 0x7ff, FUTEX_OP_CMP_LE, 9)));
    SAYS((int)word[1]);
    SAYS(on(SYS_futex, f, FUTEX_WAKE_OP, 1, 1, f + 1, 5u << 28));
    SAYS(on(SYS_futex, f, FUTEX_WAKE_OP, 1, 1, f + 1, 9u << 24));
    SAYS(on(SYS_futex, S(f) + 1, FUTEX_WAKE_OP, 1, 1, f + 1, 0));
    SAYS(on(SYS_futex, f, 2, 1, 0, 0, 0));
    SAYS(on(SYS_futex, f, 99, 1, 0, 0, 0));
}
static void futex_errors_are_the_kernels(void) { same_as_kernel(script_futex); }

static void script_sleep(void) {
    struct timespec none = {0, 0}, tiny = {0, 1000}, bad = {0, 1000000000}, old = {-1, 0}, past = {1, 0};
    int clock;
    SAYS(on(SYS_nanosleep, &none, 0));
    SAYS(on(SYS_nanosleep, &tiny, 0));
    SAYS(on(SYS_nanosleep, &bad, 0));
    SAYS(on(SYS_nanosleep, &old, 0));
    SAYS(on(SYS_nanosleep, 0, 0));
    for (clock = -1; clock < 20; clock++) {
        if (clock == 2 || clock == 8 || clock == 9 || clock == -1) continue; /* they need others to run, or root */
        SAYS(on(SYS_clock_nanosleep, clock, 0, &tiny, 0));
        SAYS(on(SYS_clock_nanosleep, clock, 1, &past, 0));
        SAYS(on(SYS_clock_nanosleep, clock, 0, &bad, 0));
    }
}
static void sleep_errors_are_the_kernels(void) { same_as_kernel(script_sleep); }

/* ---- threads ---- */

static uint32_t tids[128];
static char order[4096]; /* who did what, in the order of it */
static size_t orders;
static void note(char c) {
    if (orders < sizeof(order) - 1) order[orders++] = c;
    order[orders] = 0;
}
static void notes_begin(void) {
    threads_begin();
    orders = 0;
    order[0] = 0;
    memset(tids, 0, sizeof(tids));
}
static void spawn(int i, void (*fn)(void *), const void *arg) { CHECK(lx_thread(fn, (void *)(uintptr_t)arg, &tids[i]) > 0); }
static void join_all(void) {
    int i;
    for (i = 0; i < 128; i++)
        if (tids[i]) lx_join(&tids[i]);
}
static void turn(void) { CHECK_EQ(sys(SYS_sched_yield), 0); }
static uint64_t now(void) {
    struct timespec t;
    CHECK_EQ(sys(SYS_clock_gettime, CLOCK_MONOTONIC, &t), 0);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
static int64_t nap(uint64_t ns) {
    struct timespec t;
    t.tv_sec = (time_t)(ns / 1000000000u);
    t.tv_nsec = (long)(ns % 1000000000u);
    return sys(SYS_nanosleep, &t, 0);
}
static int64_t futex_wait(const uint32_t *f, uint32_t value) { return sys(SYS_futex, f, FUTEX_WAIT_PRIVATE, value, 0); }
static int64_t futex_wake(const uint32_t *f, int n) { return sys(SYS_futex, f, FUTEX_WAKE_PRIVATE, n); }

static uint64_t seen_fs;
static void clone_says_who(void *at) {
    *(int64_t *)at = sys(SYS_gettid);
    seen_fs = lx_fs;
}
static void clone_makes_threads(void) {
    int64_t seen = 0, r;
    uint32_t tid = 0, none = 0;
    notes_begin();
    lx_fs = 77;
    r = lx_clone(LX_CLONE, clone_says_who, &seen, &tid, S(&seen));
    CHECK(r > 0 && r % 2 == 1);
    CHECK_EQ(tid, r); /* CLONE_PARENT_SETTID */
    CHECK_EQ(seen, 0); /* it runs when this one waits */
    lx_join(&tid);
    CHECK_EQ(seen, r);
    CHECK_EQ(seen_fs, S(&seen)); /* CLONE_SETTLS */
    CHECK_EQ(lx_fs, 77);
    CHECK_EQ(lx_clone(0x1050f00, clone_says_who, &seen, &tid, 0), r + 2); /* CLONE_CHILD_SETTID, and FS is its parent's */
    CHECK_EQ(tid, r + 2);
    lx_fs = 78;
    turn();
    CHECK_EQ(seen, r + 2);
    CHECK_EQ(seen_fs, 77);
    CHECK_EQ(lx_fs, 78);
    CHECK_EQ(lx_clone(0x50f00, clone_says_who, &seen, &none, 0), r + 4); /* Go's: nothing is written */
    turn();
    CHECK_EQ(seen, r + 4);
    CHECK_EQ(none, 0);
    CHECK_EQ(sys(SYS_gettid), sys(SYS_getpid));
    CHECK_EQ(sys(SYS_set_tid_address, &tid), sys(SYS_getpid));
}

static void clone_refuses_processes(void) {
    static const struct { uint64_t flags; int error; } rows[] = {{17, EPERM}, {0x4111, EPERM}, {0, EPERM}, {0x1200011, EPERM},
        {0x10f00 & ~0x200, EPERM}, {0x10f00 & ~0x400, EPERM}, {0x10f00 & ~0x800, EINVAL}, {0x10f00 & ~0x100, EINVAL},
        {0x800, EINVAL}, {LX_CLONE | 0x20000, EPERM}, {LX_CLONE | 0x20000000, EPERM}, {LX_CLONE | 0x10000000, EPERM},
        {LX_CLONE | 0x1000, EPERM},
        {LX_CLONE | 1ull << 32, EPERM}};
    size_t i;
    uint32_t tid = 0;
    notes_begin();
    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (!CHECK_EQ(lx_clone(rows[i].flags, clone_says_who, NULL, &tid, 0), -rows[i].error))
            printf("# %llx\n", (unsigned long long)rows[i].flags);
    CHECK_EQ(lx_clone(LX_CLONE, clone_says_who, NULL, &tid, 1ull << 47), -EPERM);
    CHECK_EQ(sys(SYS_fork), -EPERM);
    CHECK_EQ(sys(SYS_vfork), -EPERM);
    CHECK_EQ(sys(435, 0, 0), -ENOSYS); /* clone3 */
    CHECK_EQ(tid, 0);
}

static void stays_until_told(void *word) {
    while (*(volatile uint32_t *)word == 0) futex_wait((uint32_t *)word, 0);
}
static void threads_are_64(void) {
    uint32_t word = 0, extra = 0;
    int i;
    notes_begin();
    for (i = 0; i < 63; i++) spawn(i, stays_until_told, &word);
    CHECK_EQ(lx_thread(stays_until_told, &word, &extra), -EAGAIN);
    turn();
    CHECK_EQ(lx_thread(stays_until_told, &word, &extra), -EAGAIN);
    word = 1;
    CHECK_EQ(futex_wake(&word, 10), 10);
    CHECK_EQ(futex_wake(&word, INT32_MAX), 53);
    join_all();
    CHECK(lx_thread(stays_until_told, &word, &extra) > 0);
    lx_join(&extra);
    for (i = 0; i < 500; i++) { /* who is about to end makes room, where a libc prepares for the next one */
        CHECK_EQ(sys(SYS_rt_sigprocmask, SIG_BLOCK, 0, 0, 8), 0);
        CHECK(lx_thread(stays_until_told, &word, &tids[i % 128]) > 0);
    }
    join_all();
    lx_begin(128 << 10, NULL, 0); /* no memory for stacks */
    for (i = 0; i < 63 && lx_thread(stays_until_told, &word, &tids[i]) > 0; i++) continue;
    CHECK(i > 0 && i < 20);
    CHECK_EQ(lx_thread(stays_until_told, &word, &extra), -EAGAIN);
    join_all();
}

static void ends_at_once(void *count) { ++*(int *)count; }
static void alternate_is_none(void *unused) {
    static char there[4096];
    struct { uint64_t at; uint32_t flags, pad; uint64_t size; } is = {1, 7, 0, 1}, set = {S(there), 0, 0, sizeof(there)};
    (void)unused;
    CHECK_EQ(sys(SYS_sigaltstack, 0, &is), 0);
    CHECK(!is.at && is.flags == 2 && !is.size); /* SS_DISABLE */
    CHECK_EQ(sys(SYS_sigaltstack, &set, &is), 0);
    CHECK_EQ(sys(SYS_sigaltstack, 0, &is), 0);
    CHECK(is.at == S(there) && !is.flags && is.size == sizeof(there));
}
/* A thread's signal stack is its own, and none of who had its place before. */
static void alternate_stacks(void) {
    int i;
    notes_begin();
    for (i = 0; i < 3; i++) {
        spawn(i, alternate_is_none, NULL);
        join_all();
    }
}
static void threads_reuse_stacks(void) {
    int i, count = 0;
    uint64_t used = 0;
    int64_t last = 0;
    notes_begin();
    for (i = 0; i < 10000; i++) {
        const int64_t tid = lx_thread(ends_at_once, &count, &tids[i % 3]);
        if (tid <= last) CHECK_EQ(tid, last);
        last = tid;
        if (i % 3 == 2) join_all();
        if (i == 100) used = hlsnap__lx.num_used;
    }
    join_all();
    CHECK_EQ(count, 10000);
    CHECK_EQ(hlsnap__lx.num_used, used);
    hlsnap__lx_tasks.last_tid = 0x3fffff; /* around: the numbers of the living are left out */
    count = 0;
    CHECK_EQ(lx_thread(ends_at_once, &count, &tids[0]), 3);
    hlsnap__lx_tasks.last_tid = 0x3fffff;
    CHECK_EQ(lx_thread(ends_at_once, &count, &tids[1]), 5);
    join_all();
}

static void takes_turns(void *name) {
    int i;
    for (i = 0; i < 5; i++) {
        note(*(const char *)name);
        CHECK_EQ(lx_vectors, i ? *(const uint8_t *)name : 'M'); /* a new thread has its parent's */
        lx_vectors = *(const uint8_t *)name;
        turn();
    }
}
static void yield_is_fair(void) {
    static const char names[] = "abcd";
    int i;
    notes_begin();
    lx_vectors = 'M';
    for (i = 0; i < 4; i++) spawn(i, takes_turns, names + i);
    for (i = 0; i < 5; i++) {
        note('M');
        turn();
        CHECK_EQ(lx_vectors, 'M');
    }
    join_all();
    CHECK_STR(order, "MabcdMabcdMabcdMabcdMabcd");
}

static void thread_numbers_over_restores(void) {
    uint32_t word = 0;
    const uint32_t *at = &word;
    int64_t pid, tid;
    notes_begin();
    spawn(0, stays_until_told, at);
    pid = sys(SYS_getpid);
    CHECK_EQ(sys(SYS_gettid), pid);
    tid = tids[0];
    turn();
    lx_restart();
    CHECK(sys(SYS_getpid) != pid);
    CHECK_EQ(sys(SYS_gettid), sys(SYS_getpid));
    CHECK_EQ(sys(SYS_getpid) % 2, 0);
    CHECK_EQ(tids[0], tid);
    word = 1;
    futex_wake(&word, 1);
    join_all();
}

static void goes_on_alone(void *unused) {
    (void)unused;
    note('a');
    turn();
    note('b');
    nap(1000);
    note('c');
    sys(SYS_exit, 9);
}
static void exits_of_threads(void) {
    notes_begin();
    CHECK(ENDS(sys(SYS_exit, 5)));
    CHECK_EQ(lx_request.function, HLSNAP_ABI_FN_EXIT);
    CHECK_EQ(lx_request.number, 5);
    notes_begin();
    spawn(0, goes_on_alone, NULL);
    CHECK(ENDS(sys(SYS_exit, 3))); /* the first thread's status is the program's, as in Linux */
    CHECK_STR(order, "abc");
    CHECK_EQ(lx_request.function, HLSNAP_ABI_FN_EXIT);
    CHECK_EQ(lx_request.number, 3);
    notes_begin();
    spawn(0, goes_on_alone, NULL);
    turn();
    CHECK(ENDS(sys(SYS_exit_group, 4))); /* all at once */
    CHECK_STR(order, "a");
    CHECK_EQ(lx_request.number, 4);
}

static void deadlocks_are_told(void) {
    uint32_t word = 0;
    int p[2];
    char b;
    notes_begin();
    CHECK(ENDS(futex_wait(&word, 0)));
    CHECK_EQ(lx_request.function, HLSNAP_ABI_FN_ABORT);
    CHECK_EQ(lx_request.number, -7);
    CHECK_STR(lx_request.text, "deadlock: every thread waits");
    notes_begin();
    spawn(0, stays_until_told, &word);
    spawn(1, stays_until_told, &word);
    CHECK(ENDS(lx_join(&tids[0])));
    CHECK_EQ(lx_request.number, -7);
    notes_begin();
    CHECK_EQ(sys(SYS_pipe, p), 0);
    CHECK(ENDS(sys(SYS_read, p[0], &b, 1)));
    CHECK_EQ(lx_request.number, -7);
    notes_begin();
    CHECK(ENDS(sys(SYS_poll, 0, 0, -1)));
    CHECK_EQ(lx_request.number, -7);
    notes_begin();
    spawn(0, stays_until_told, &word);
    CHECK(ENDS(sys(SYS_exit, 0)));
    CHECK_EQ(lx_request.number, -7);
}

/* ---- futexes ---- */

static uint32_t word1, word2;
static void waits1(void *name) {
    CHECK_EQ(futex_wait(&word1, 0), 0);
    note(*(const char *)name);
}
static void futex_wakes_in_order(void) {
    static const char names[] = "abcdefgh";
    int i;
    notes_begin();
    word1 = 0;
    for (i = 0; i < 6; i++) spawn(i, waits1, names + i);
    CHECK_EQ(futex_wake(&word1, 1), 0); /* nobody is there yet */
    turn();
    CHECK_EQ(futex_wake(&word1, 1), 1);
    CHECK_EQ(futex_wake(&word1, 2), 2);
    CHECK_STR(order, ""); /* they run when this one waits */
    turn();
    CHECK_STR(order, "abc");
    CHECK_EQ(futex_wake(&word1, 0), 1); /* as Linux: at least one */
    CHECK_EQ(futex_wake(&word1, 100), 2);
    CHECK_EQ(futex_wake(&word1, 100), 0);
    join_all();
    CHECK_STR(order, "abcdef");
}

typedef struct bit_waiter { char name; uint32_t bits; } bit_waiter;
static void waits_bits(void *arg) {
    const bit_waiter *w = (const bit_waiter *)arg;
    CHECK_EQ(sys(SYS_futex, &word1, FUTEX_WAIT_BITSET, 0, 0, 0, w->bits), 0);
    note(w->name);
}
static void futex_honours_bits(void) {
    static const bit_waiter w[4] = {{'a', 1}, {'b', 2}, {'c', 3}, {'d', ALL_FUTEX}};
    int i;
    notes_begin();
    word1 = 0;
    for (i = 0; i < 4; i++) spawn(i, waits_bits, w + i);
    turn();
    CHECK_EQ(sys(SYS_futex, &word1, FUTEX_WAKE_BITSET, 1, 0, 0, 2), 1);
    CHECK_EQ(sys(SYS_futex, &word1, FUTEX_WAKE_BITSET, 10, 0, 0, 4), 1);
    CHECK_EQ(sys(SYS_futex, &word1, FUTEX_WAKE_BITSET, 10, 0, 0, 8), 0);
    CHECK_EQ(futex_wake(&word1, 1), 1);
    CHECK_EQ(sys(SYS_futex, &word1, FUTEX_WAKE_BITSET, 10, 0, 0, ALL_FUTEX), 1);
    join_all();
    CHECK_STR(order, "bdac");
}

static void waits2(void *name) {
    CHECK_EQ(futex_wait(&word2, 0), 0);
    note(*(const char *)name);
}
static void futex_requeues(void) {
    static const char names[] = "abcdefgh";
    int i;
    notes_begin();
    word1 = word2 = 0;
    for (i = 0; i < 5; i++) spawn(i, waits1, names + i);
    spawn(5, waits2, names + 5);
    turn();
    CHECK_EQ(sys(SYS_futex, &word1, FUTEX_CMP_REQUEUE_PRIVATE, 1, 2, &word2, 1), -EAGAIN);
    CHECK_EQ(sys(SYS_futex, &word1, FUTEX_CMP_REQUEUE_PRIVATE, 1, 2, &word2, 0), 3);
    turn();
    CHECK_STR(order, "a");
    CHECK_EQ(futex_wake(&word2, 1), 1); /* who waited there waits first: f, then b, c */
    CHECK_EQ(sys(SYS_futex, &word1, FUTEX_REQUEUE, 0, 1, (char *)&word2 + 1), -EINVAL);
    CHECK_EQ(sys(SYS_futex, &word1, FUTEX_CMP_REQUEUE, 0, 1, (char *)&word2 + 2), -EINVAL);
    CHECK_EQ(sys(SYS_futex, &word1, FUTEX_WAKE_OP, 0, 1, (char *)&word2 + 3), -EINVAL);
    CHECK_EQ(sys(SYS_futex, &word1, FUTEX_REQUEUE, 0, INT32_MAX, &word2), 2);
    CHECK_EQ(sys(SYS_futex, &word2, FUTEX_REQUEUE, 0, INT32_MAX, &word2), 4); /* to itself: an end all the same */
    CHECK_EQ(futex_wake(&word1, 9), 0);
    CHECK_EQ(futex_wake(&word2, 9), 4);
    join_all();
    CHECK_STR(order, "afbcde");
}

static void futex_wakes_two(void) {
    static const char names[] = "abcd";
    int i;
    notes_begin();
    word1 = word2 = 0;
    for (i = 0; i < 2; i++) spawn(i, waits1, names + i);
    for (i = 2; i < 4; i++) spawn(i, waits2, names + i);
    turn();
    CHECK_EQ(sys(SYS_futex, &word1, FUTEX_WAKE_OP, 1, 1, &word2, WAKE_OP(FUTEX_OP_ADD, 3, FUTEX_OP_CMP_NE, 0)), 1);
    CHECK_EQ(word2, 3);
    CHECK_EQ(sys(SYS_futex, &word1, FUTEX_WAKE_OP, 1, 2, &word2, WAKE_OP(FUTEX_OP_SET, 0, FUTEX_OP_CMP_EQ, 3)), 3);
    join_all();
    CHECK_STR(order, "abcd");
}

/* A mutex and a condition as libcs make them: 0 free, 1 taken, 2 taken and waited for. */
static uint32_t mutex, sequence;
static void lock(void) {
    if (!mutex) mutex = 1;
    else {
        while (mutex) {
            mutex = 2;
            futex_wait(&mutex, 2);
        }
        mutex = 2;
    }
}
static void unlock(void) {
    const uint32_t was = mutex;
    mutex = 0;
    if (was == 2) futex_wake(&mutex, 1);
}
static int queue[8], queue_size, produced;
static int64_t consumed;
static void produces(void *unused) {
    int i;
    (void)unused;
    for (i = 0; i < 200; i++) {
        lock();
        while (queue_size == 8) {
            const uint32_t s = sequence;
            unlock();
            futex_wait(&sequence, s);
            lock();
        }
        if (i % 7 == 0) turn(); /* with the mutex held */
        queue[queue_size++] = ++produced;
        sequence++;
        unlock();
        futex_wake(&sequence, INT32_MAX);
    }
}
static void consumes(void *unused) {
    int i;
    (void)unused;
    for (i = 0; i < 200; i++) {
        lock();
        while (!queue_size) {
            const uint32_t s = sequence;
            unlock();
            futex_wait(&sequence, s);
            lock();
        }
        consumed += queue[--queue_size];
        sequence++;
        unlock();
        futex_wake(&sequence, INT32_MAX);
    }
}
static void futexes_make_queues(void) {
    int i;
    notes_begin();
    mutex = sequence = 0;
    queue_size = produced = 0;
    consumed = 0;
    for (i = 0; i < 60; i++) spawn(i, i % 2 ? produces : consumes, NULL);
    join_all();
    CHECK_EQ(consumed, 6000LL * 6001 / 2);
    CHECK_EQ(queue_size, 0);
}

/* ---- time ---- */

typedef struct sleeper { char name; uint64_t ns; } sleeper;
static void sleeps(void *arg) {
    const sleeper *s = (const sleeper *)arg;
    const uint64_t from = now();
    CHECK_EQ(nap(s->ns), 0);
    CHECK(now() >= from + s->ns && now() < from + s->ns + 2000000);
    note(s->name);
}
static void sleeps_until(void *arg) {
    const sleeper *s = (const sleeper *)arg;
    struct timespec t = {0, 0};
    t.tv_nsec = (long)s->ns;
    CHECK_EQ(sys(SYS_futex, &word1, FUTEX_WAIT, 0, &t), -ETIMEDOUT);
    note(s->name);
}
static void times_come_in_order(void) {
    static const sleeper s[6] = {{'a', 50000000}, {'b', 10000000}, {'c', 90000000},
                                 {'d', 20000000}, {'e', 70000000}, {'f', 3600000000000}};
    uint64_t from;
    struct timespec t;
    int i;
    notes_begin();
    word1 = 0;
    from = now();
    for (i = 0; i < 6; i++) spawn(i, i < 3 || i == 5 ? sleeps : sleeps_until, s + i);
    join_all();
    CHECK_STR(order, "bdaecf");
    CHECK(now() >= from + 3600000000000 && now() < from + 3601000000000); /* an hour, at once */
    t.tv_sec = (time_t)(now() / 1000000000u) + 10;
    t.tv_nsec = 5;
    CHECK_EQ(sys(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &t, 0), 0);
    CHECK(now() > (uint64_t)t.tv_sec * 1000000000u && now() < (uint64_t)t.tv_sec * 1000000000u + 1000000);
    CHECK_EQ(sys(SYS_clock_gettime, CLOCK_REALTIME, &t), 0);
    t.tv_sec += 100;
    from = now();
    CHECK_EQ(sys(SYS_clock_nanosleep, CLOCK_REALTIME, TIMER_ABSTIME, &t, 0), 0);
    CHECK(now() > from + 99900000000 && now() < from + 100100000000);
    CHECK_EQ(sys(SYS_clock_gettime, CLOCK_REALTIME, &t), 0);
    t.tv_sec += 7;
    from = now();
    CHECK_EQ(sys(SYS_futex, &word1, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 0, &t, 0, ALL_FUTEX), -ETIMEDOUT);
    CHECK(now() > from + 6900000000 && now() < from + 7100000000);
    CHECK_EQ(sys(SYS_clock_nanosleep, CLOCK_BOOTTIME, 0, &t, 0), 0); /* decades: as far as it goes */
}

static volatile int slept;
static void sleeps_a_while(void *unused) {
    (void)unused;
    nap(5000000);
    slept = 1;
}
static void a_sleeper_beats_a_spinner(void) {
    int i;
    notes_begin();
    slept = 0;
    spawn(0, sleeps_a_while, NULL);
    for (i = 0; !slept && i < 1000; i++) {
        lx_tsc += 10000; /* what the spinning costs */
        turn();
    }
    CHECK(slept && i > 490 && i < 510);
    join_all();
    slept = 0;
    spawn(0, sleeps_a_while, NULL); /* a sleep of nothing is a turn for others, too */
    for (i = 0; !slept && i < 1000; i++) {
        lx_tsc += 10000;
        nap(0);
    }
    CHECK(slept);
    join_all();
}

static void woken_before_its_time(void *unused) {
    struct timespec t = {10, 0};
    (void)unused;
    CHECK_EQ(sys(SYS_futex, &word1, FUTEX_WAIT, 0, &t), 0);
}
static void a_wake_ends_a_timeout(void) {
    uint64_t from;
    notes_begin();
    word1 = 0;
    spawn(0, woken_before_its_time, NULL);
    turn();
    from = now();
    CHECK_EQ(futex_wake(&word1, 1), 1);
    join_all();
    CHECK(now() < from + 1000000);
}

/* ---- streams between threads ---- */

static int pipe_fds[2], pipe_back[2];
static void writes_records(void *arg) {
    uint8_t record[4000];
    int i;
    memset(record, *(const char *)arg, sizeof(record));
    for (i = 0; i < 50; i++) CHECK_EQ(sys(SYS_write, pipe_fds[1], record, sizeof(record)), sizeof(record));
}
static int64_t reads_fully(int fd, void *to, int64_t n) {
    int64_t done = 0, r = 1;
    while (done < n && r > 0) {
        r = sys(SYS_read, fd, (uint8_t *)to + done, n - done);
        if (r > 0) done += r;
    }
    return done;
}
static void pipes_keep_records_whole(void) {
    static const char names[] = "abcdefghij";
    static uint8_t record[4000];
    int count[10] = {0}, i, k;
    notes_begin();
    CHECK_EQ(sys(SYS_pipe, pipe_fds), 0);
    for (i = 0; i < 10; i++) spawn(i, writes_records, names + i);
    for (i = 0; i < 500; i++) {
        CHECK_EQ(reads_fully(pipe_fds[0], record, sizeof(record)), sizeof(record));
        for (k = 1; k < (int)sizeof(record) && record[k] == record[0]; k++) continue;
        if (k < (int)sizeof(record)) CHECK_EQ(k, sizeof(record));
        if (record[0] >= 'a' && record[0] <= 'j') count[record[0] - 'a']++;
    }
    for (i = 0; i < 10; i++) CHECK_EQ(count[i], 50);
    join_all();
}

#define FLOOD (1 << 20)
static void floods(void *unused) {
    static uint8_t data[FLOOD];
    int i;
    (void)unused;
    for (i = 0; i < FLOOD; i++) data[i] = (uint8_t)(i * 7 + i / 256);
    CHECK_EQ(sys(SYS_write, pipe_fds[1], data, FLOOD), FLOOD); /* in one call */
    CHECK_EQ(sys(SYS_close, pipe_fds[1]), 0);
}
static void passes_on(void *unused) {
    static uint8_t b[3000];
    int64_t n;
    (void)unused;
    while ((n = sys(SYS_read, pipe_fds[0], b, sizeof(b))) > 0) CHECK_EQ(sys(SYS_write, pipe_back[1], b, n), n);
    CHECK_EQ(n, 0);
    CHECK_EQ(sys(SYS_close, pipe_back[1]), 0);
}
static void pipes_carry_everything(void) {
    static uint8_t b[70000];
    int64_t n, at = 0, i;
    const int64_t used = (notes_begin(), (int64_t)hlsnap__lx.num_used);
    CHECK_EQ(sys(SYS_pipe, pipe_fds), 0);
    CHECK_EQ(sys(SYS_pipe, pipe_back), 0);
    spawn(0, floods, NULL);
    spawn(1, passes_on, NULL);
    while ((n = sys(SYS_read, pipe_back[0], b, at % 3 ? 100 : sizeof(b))) > 0) {
        for (i = 0; i < n; i++, at++)
            if (b[i] != (uint8_t)(at * 7 + at / 256)) CHECK_EQ(at, -1);
    }
    CHECK_EQ(n, 0);
    CHECK_EQ(at, FLOOD);
    join_all();
    CHECK_EQ(sys(SYS_close, pipe_fds[0]), 0);
    CHECK_EQ(sys(SYS_close, pipe_back[0]), 0);
    CHECK((int64_t)hlsnap__lx.num_used <= used + 12); /* two stacks and the first thread's vectors: the rings are given back */
}

static void reads_one(void *name) {
    char b = 0;
    note((char)(sys(SYS_read, pipe_fds[0], &b, 1) == 1 ? *(const char *)name : '0'));
    CHECK(b == 'x' || !b);
}
static void pipes_serve_readers_in_order(void) {
    static const char names[] = "abcdef";
    int i;
    notes_begin();
    CHECK_EQ(sys(SYS_pipe, pipe_fds), 0);
    for (i = 0; i < 6; i++) spawn(i, reads_one, names + i);
    turn();
    CHECK_EQ(sys(SYS_write, pipe_fds[1], "x", 1), 1);
    turn();
    CHECK_STR(order, "a");
    CHECK_EQ(sys(SYS_write, pipe_fds[1], "xxx", 3), 3); /* one is woken, and wakes the next */
    for (i = 0; i < 4; i++) turn();
    CHECK_STR(order, "abcd");
    CHECK_EQ(sys(SYS_close, pipe_fds[1]), 0); /* the end is for all */
    join_all();
    CHECK_STR(order, "abcd00");
}

static void writes_much(void *expected) { CHECK_EQ(sys(SYS_write, pipe_fds[1], bulk, 70000), *(const int64_t *)expected); }
static void writes_atom(void *expected) { CHECK_EQ(sys(SYS_write, pipe_fds[1], bulk, 4096), *(const int64_t *)expected); }
static void closing_ends_waits(void) {
    static const int64_t part = 65536, broken = -EPIPE, atom = 4096;
    char b[16];
    notes_begin();
    CHECK_EQ(sys(SYS_pipe, pipe_fds), 0);
    spawn(0, writes_much, &part);
    turn();
    spawn(1, writes_atom, &broken);
    turn();
    CHECK_EQ(sys(SYS_close, pipe_fds[0]), 0);
    join_all();
    CHECK_EQ(sys(SYS_close, pipe_fds[1]), 0);
    CHECK_EQ(sys(SYS_pipe, pipe_fds), 0); /* who waits in a call keeps what it waits for, whatever is closed and opened */
    spawn(0, reads_one, "r");
    turn();
    CHECK_EQ(sys(SYS_close, pipe_fds[0]), 0);
    CHECK(sys(SYS_eventfd2, 0, 0) == pipe_fds[0]);
    CHECK_EQ(sys(SYS_write, pipe_fds[1], "x", 1), 1);
    join_all();
    CHECK_STR(order, "r");
    CHECK_EQ(sys(SYS_write, pipe_fds[1], "x", 1), -EPIPE);
    CHECK_EQ(sys(SYS_close, pipe_fds[1]), 0);
    CHECK_EQ(sys(SYS_pipe, pipe_fds), 0); /* room for less than PIPE_BUF is none for a PIPE_BUF */
    CHECK_EQ(sys(SYS_write, pipe_fds[1], bulk, 65000), 65000);
    spawn(0, writes_atom, &atom);
    turn();
    CHECK_EQ(sys(SYS_read, pipe_fds[0], bulk, 3000), 3000);
    turn();
    CHECK(tids[0] != 0);
    CHECK_EQ(sys(SYS_read, pipe_fds[0], b, 16), 16);
    CHECK_EQ(sys(SYS_read, pipe_fds[0], bulk, 1000), 1000);
    join_all();
}

/* A piece of up to PIPE_BUF bytes goes whole or not at all, to the byte. */
static void pipes_to_the_byte(void) {
    uint32_t n;
    lx_begin(1 << 20, NULL, 0);
    CHECK_EQ(sys(SYS_pipe2, pipe_fds, O_NONBLOCK), 0);
    CHECK_EQ(sys(SYS_write, pipe_fds[1], bulk, 61440), 61440);
    CHECK_EQ(sys(SYS_write, pipe_fds[1], bulk, 4096), 4096); /* fits to the last byte */
    CHECK_EQ(sys(SYS_write, pipe_fds[1], bulk, 1), -EAGAIN);
    CHECK_EQ(sys(SYS_read, pipe_fds[0], bulk, 4096), 4096);
    CHECK_EQ(sys(SYS_write, pipe_fds[1], bulk, 1), 1);
    CHECK_EQ(sys(SYS_write, pipe_fds[1], bulk, 4096), -EAGAIN);
    CHECK_EQ(sys(SYS_write, pipe_fds[1], bulk, 4097), 4095); /* larger ones in parts */
    CHECK_EQ(sys(SYS_close, pipe_fds[0]), 0);
    CHECK_EQ(sys(SYS_close, pipe_fds[1]), 0);
    for (n = 0; n < 3 * HLSNAP__LX_PIPES; n++) { /* places are used again, but not while one end is open */
        CHECK_EQ(sys(SYS_pipe, pipe_fds), 0);
        CHECK_EQ(sys(SYS_write, pipe_fds[1], "ab", 2), 2);
        CHECK_EQ(sys(SYS_close, pipe_fds[1]), 0);
        {
            int32_t other[2];
            char got[4] = "";
            CHECK_EQ(sys(SYS_pipe, other), 0);
            CHECK_EQ(sys(SYS_write, other[1], "xyz", 3), 3);
            CHECK_EQ(sys(SYS_read, pipe_fds[0], got, 4), 2);
            CHECK(memcmp(got, "ab", 2) == 0);
            CHECK_EQ(sys(SYS_close, other[0]) | sys(SYS_close, other[1]) | sys(SYS_close, pipe_fds[0]), 0);
        }
    }
}

static void pipe_needs_memory(void) {
    int p[2], n = 0;
    lx_begin(64 << 10, NULL, 0);
    CHECK_EQ(sys(SYS_pipe2, p, O_NONBLOCK), 0);
    while (sys(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) > 0) n++;
    CHECK(n > 0);
    CHECK_EQ(sys(SYS_write, p[1], bulk, 100), -ENOMEM);
    CHECK_EQ(sys(SYS_epoll_create1, 0), -ENOMEM);
}

static int event_fd;
static void event_reads(void *arg) {
    uint64_t v = 0;
    CHECK_EQ(sys(SYS_read, event_fd, &v, 8), 8);
    *(uint64_t *)arg += v;
}
static void event_writes(void *arg) { CHECK_EQ(sys(SYS_write, event_fd, arg, 8), 8); }
static void events_block(void) {
    uint64_t got = 0, v = 5, top = UINT64_MAX - 1, much = 100, five = 5;
    int i;
    notes_begin();
    event_fd = (int)sys(SYS_eventfd2, 0, 1);
    for (i = 0; i < 5; i++) spawn(i, event_reads, &got);
    turn();
    CHECK_EQ(sys(SYS_write, event_fd, &v, 8), 8);
    join_all();
    CHECK_EQ(got, 5);
    CHECK_EQ(sys(SYS_close, event_fd), 0);
    event_fd = (int)sys(SYS_eventfd, 0, 0);
    CHECK_EQ(sys(SYS_write, event_fd, &top, 8), 8);
    spawn(0, event_writes, &much);
    spawn(1, event_writes, &five);
    turn();
    CHECK(tids[0] && tids[1]);
    CHECK_EQ(sys(SYS_read, event_fd, &v, 8), 8);
    CHECK(v == top);
    join_all();
    CHECK_EQ(sys(SYS_read, event_fd, &v, 8), 8);
    CHECK_EQ(v, 105);
}

/* ---- polling between threads ---- */

static int waits_ep;
static int64_t epoll_wait1(int ep, int timeout) { /* the data of what is ready, or -1 at the timeout, or -errno - 1 */
    struct epoll_event e;
    const int64_t r = sys(SYS_epoll_wait, ep, &e, 1, timeout);
    return r == 1 ? (int64_t)e.data.u64 : r - 1;
}
static void epoll_waits(void *name) {
    const int64_t r = epoll_wait1(waits_ep, -1);
    note(*(const char *)name);
    note((char)('0' + r));
}
/* What one thread was told of and left as it is, the next one is told of, too. */
static void epoll_wakes_the_next(void) {
    static const char names[] = "ab";
    struct epoll_event e;
    uint64_t one = 1;
    int i;
    notes_begin();
    event_fd = (int)sys(SYS_eventfd2, 0, 0);
    waits_ep = (int)sys(SYS_epoll_create1, 0);
    memset(&e, 0, sizeof(e));
    e.events = EPOLLIN;
    e.data.u64 = 5;
    CHECK_EQ(sys(SYS_epoll_ctl, waits_ep, EPOLL_CTL_ADD, event_fd, &e), 0);
    for (i = 0; i < 2; i++) spawn(i, epoll_waits, names + i);
    turn();
    CHECK_EQ(sys(SYS_write, event_fd, &one, 8), 8);
    for (i = 0; i < 4; i++) turn();
    CHECK_STR(order, "a5b5");
    CHECK_EQ(sys(SYS_write, event_fd, &one, 8), 8); /* else they would wait for ever */
    join_all();
}
static void epoll_wakes_one(void) {
    static const char names[] = "abc";
    uint64_t v = 1, from;
    int e, i;
    notes_begin();
    waits_ep = (int)sys(SYS_epoll_create1, 0);
    e = (int)sys(SYS_eventfd2, 0, O_NONBLOCK);
    CHECK_EQ(ctl(waits_ep, ADD, e, EPOLLIN | EPOLLET, 7), 0);
    for (i = 0; i < 3; i++) spawn(i, epoll_waits, names + i);
    turn();
    CHECK_EQ(sys(SYS_write, e, &v, 8), 8);
    turn();
    CHECK_STR(order, "a7"); /* an edge is one thread's */
    CHECK_EQ(sys(SYS_write, e, &v, 8), 8);
    turn();
    CHECK_STR(order, "a7b7");
    CHECK_EQ(ctl(waits_ep, MOD, e, EPOLLIN, 8), 0); /* ready: for who waits already, too */
    join_all();
    CHECK_STR(order, "a7b7c8");
    CHECK_EQ(sys(SYS_read, e, &v, 8), 8);
    from = now();
    CHECK_EQ(epoll_wait1(waits_ep, 1500), -1);
    CHECK(now() >= from + 1500000000 && now() < from + 1501000000);
    spawn(0, epoll_waits, names);
    turn();
    CHECK_EQ(sys(SYS_close, waits_ep), 0); /* it stays for who waits there */
    CHECK(sys(SYS_epoll_create1, 0) == waits_ep);
    CHECK_EQ(sys(SYS_write, e, &v, 8), 8);
    join_all();
    CHECK_STR(order, "a7b7c8a8");
    CHECK_EQ(epoll_wait1(waits_ep, 0), -1);
}

static int polled[2];
static void polls(void *unused) {
    struct pollfd p[2];
    (void)unused;
    p[0].fd = polled[0];
    p[1].fd = -1;
    p[0].events = POLLIN;
    CHECK_EQ(sys(SYS_poll, p, 2, -1), 1);
    CHECK_EQ(p[0].revents, POLLIN);
    CHECK_EQ(p[1].revents, 0);
    note('p');
}
static void selects(void *unused) {
    fd_set in;
    struct timeval t = {100, 0};
    (void)unused;
    FD_ZERO(&in);
    FD_SET(polled[0], &in);
    CHECK_EQ(sys(SYS_select, polled[0] + 1, &in, 0, 0, &t), 1);
    CHECK(t.tv_sec == 94 && t.tv_usec > 900000); /* what is left of it */
    note('s');
}
static void polls_too_long(void *unused) {
    struct pollfd p;
    struct timespec t = {2, 0};
    (void)unused;
    p.fd = polled[0];
    p.events = POLLIN;
    CHECK_EQ(sys(SYS_ppoll, &p, 1, &t, 0, 8), 0);
    CHECK_EQ(p.revents, 0);
    CHECK_EQ(t.tv_sec + t.tv_nsec, 0);
    note('t');
}
static void poll_and_select_wait(void) {
    struct pollfd p;
    notes_begin();
    CHECK_EQ(sys(SYS_pipe, polled), 0);
    spawn(0, polls, NULL);
    spawn(1, selects, NULL);
    spawn(2, polls_too_long, NULL);
    turn();
    nap(5000000000);
    CHECK_STR(order, "t");
    CHECK_EQ(sys(SYS_write, polled[1], "x", 1), 1);
    join_all();
    CHECK_STR(order, "tps");
    CHECK_EQ(sys(SYS_poll, &p, 1025, 0), -EINVAL);
}

/* ---- standard input ---- */

static void polls_input(void *unused) {
    struct pollfd p;
    char b[8];
    (void)unused;
    p.fd = 0;
    p.events = POLLIN;
    CHECK_EQ(sys(SYS_poll, &p, 1, 1000), 1);
    CHECK_EQ(sys(SYS_read, 0, b, 8), 3);
    note('i');
}
static void input_comes_before_time(void) {
    char b[8];
    uint64_t from;
    fd_set in;
    int ep, outer;
    notes_begin();
    lx_input = NULL;
    from = now();
    spawn(0, polls_input, NULL);
    CHECK_EQ(nap(2000000000), 0); /* nobody can run: it is asked for input before this ends */
    CHECK_EQ(lx_input_waits, 1);
    CHECK_STR(order, "i");
    CHECK(now() >= from + 2000000000);
    join_all();
    lx_input = NULL;
    CHECK_EQ(sys(SYS_read, 0, b, 8), 3);
    CHECK_EQ(lx_input_waits, 2);
    lx_input = NULL;
    FD_ZERO(&in);
    FD_SET(0, &in);
    CHECK_EQ(sys(SYS_select, 1, &in, 0, 0, 0), 1);
    CHECK_EQ(lx_input_waits, 3);
    lx_input = NULL;
    CHECK_EQ(poll1(0, POLLIN, 0), 0); /* who does not wait does not */
    CHECK_EQ(poll1(0, POLLOUT, 10), 0);
    CHECK_EQ(lx_input_waits, 3);
    ep = (int)sys(SYS_epoll_create1, 0);
    outer = (int)sys(SYS_epoll_create1, 0);
    CHECK_EQ(ctl(ep, ADD, 0, EPOLLIN | EPOLLET, 5), 0);
    CHECK_EQ(ctl(outer, ADD, ep, EPOLLIN, 6), 0);
    CHECK_EQ(epoll_wait1(ep, 0), -1);
    CHECK_EQ(epoll_wait1(ep, 100), 5);
    CHECK_EQ(lx_input_waits, 4);
    CHECK_EQ(epoll_wait1(ep, 100), -1); /* an edge */
    CHECK_EQ(lx_input_waits, 4);
    lx_input = NULL;
    CHECK_EQ(epoll_wait1(ep, -1), 5);
    CHECK_EQ(lx_input_waits, 5);
    lx_input = NULL;
    CHECK_EQ(epoll_wait1(outer, -1), 6);
    CHECK_EQ(lx_input_waits, 6);
    CHECK_EQ(epoll_wait1(ep, -1), 5);
    lx_input = NULL;
    CHECK_EQ(poll1(outer, POLLIN, -1), 1 | POLLIN << 8);
    CHECK_EQ(lx_input_waits, 7);
    CHECK_EQ(ctl(ep, DEL, 0, 0, 0), 0);
    CHECK_EQ(ctl(ep, ADD, 1, EPOLLOUT, 9), 0); /* output: always */
    CHECK_EQ(epoll_wait1(ep, -1), 9);
    CHECK_EQ(sys(SYS_close, 1), 0);
    CHECK_EQ(epoll_wait1(ep, 10), -1);
}

/* ---- tables ---- */

static void tables_are_bounded(void) {
    static int fds[1100];
    int p[2], i, n = 0, a, b, ep;
    uint64_t used;
    notes_begin();
    used = hlsnap__lx.num_used;
    while (n < 512 && sys(SYS_pipe, fds + n) == 0) n += 2;
    CHECK_EQ(n, 512);
    CHECK_EQ(sys(SYS_pipe, p), -ENFILE);
    for (i = 0; i < n; i++) CHECK_EQ(sys(SYS_close, fds[i]), 0);
    for (n = 0; n < 300 && (fds[n] = (int)sys(SYS_eventfd2, 0, 0)) >= 0;) n++;
    CHECK_EQ(n, 256);
    CHECK_EQ(sys(SYS_eventfd2, 0, 0), -ENFILE);
    for (i = 0; i < n; i++) CHECK_EQ(sys(SYS_close, fds[i]), 0);
    for (n = 0; n < 300 && (fds[n] = (int)sys(SYS_epoll_create1, 0)) >= 0;) n++;
    CHECK_EQ(n, 64);
    CHECK_EQ(sys(SYS_epoll_create1, 0), -EMFILE);
    for (i = 0; i < n; i++) CHECK_EQ(sys(SYS_close, fds[i]), 0);
    CHECK_EQ(hlsnap__lx.num_used, used);
    ep = (int)sys(SYS_epoll_create1, 0);
    a = (int)sys(SYS_eventfd2, 0, O_NONBLOCK);
    b = (int)sys(SYS_eventfd2, 1, O_NONBLOCK);
    for (n = 0; n < 512; n++) { /* each number twice: by what it was, and by what it is */
        const int fd = (int)sys(SYS_dup, a);
        CHECK_EQ(ctl(ep, ADD, fd, EPOLLIN, 1), 0);
        CHECK_EQ(sys(SYS_close, fd), 0);
        CHECK_EQ(sys(SYS_dup, b), fd);
        CHECK_EQ(ctl(ep, ADD, fd, EPOLLIN, (uint64_t)fd), 0);
    }
    CHECK_EQ(ctl(ep, ADD, a, EPOLLIN, 1), -ENOSPC);
    CHECK_EQ(reported(ep, 1), 100000 + EPOLLIN * 10 + b + 1);
    CHECK_EQ(sys(SYS_close, a), 0); /* the last of its descriptors: all of it leaves */
    CHECK_EQ(hlsnap__lx_polling.epolls[0].num, 512);
    CHECK_EQ(ctl(ep, DEL, b + 1, 0, 0), 0);
    CHECK_EQ(sys(SYS_close, ep), 0);
    while ((i = (int)sys(SYS_dup, b)) >= 0) continue;
    CHECK_EQ(i, -EMFILE);
    CHECK_EQ(sys(SYS_pipe, p), -EMFILE);
    CHECK_EQ(sys(SYS_eventfd2, 0, 0), -EMFILE);
    CHECK_EQ(sys(SYS_epoll_create1, 0), -EMFILE);
    CHECK_EQ(sys(SYS_close, b), 0);
    CHECK_EQ(sys(SYS_pipe, p), -EMFILE); /* one is free, and stays so */
    CHECK_EQ(sys(SYS_eventfd2, 0, 0), b);
    CHECK_EQ(hlsnap__lx_streams.pipes[0].readers + hlsnap__lx_streams.pipes[0].writers, 0);
    CHECK_EQ(hlsnap__lx_polling.epolls[0].by_fd != NULL, 0);
}
static void a_thousand_are_fast(void) {
    static int fds[256];
    struct epoll_event e[256];
    uint64_t v = 1;
    int i, round, ep;
    notes_begin();
    ep = (int)sys(SYS_epoll_create1, 0);
    for (i = 0; i < 256; i++) {
        fds[i] = (int)sys(SYS_eventfd2, 0, O_NONBLOCK);
        CHECK_EQ(ctl(ep, ADD, fds[i], EPOLLIN, (uint64_t)i), 0);
    }
    for (round = 0; round < 2000; round++) {
        i = round * 37 % 256;
        sys(SYS_write, fds[i], &v, 8);
        if (sys(SYS_epoll_wait, ep, e, 256, 0) != 1 || e[0].data.u64 != (uint64_t)i) CHECK_EQ(round, -1);
        sys(SYS_read, fds[i], &v, 8);
    }
    CHECK_EQ(sys(SYS_epoll_wait, ep, e, 256, 0), 0);
}

#define THREADS_TESTS \
    TEST(pipes_are_the_kernels), TEST(events_are_the_kernels), TEST(poll_is_the_kernels), TEST(select_is_the_kernels), \
        TEST(epoll_errors_are_the_kernels), TEST(epoll_of_pipes_is_the_kernels), TEST(epoll_of_events_is_the_kernels), \
        TEST(epoll_lives_as_the_kernels), TEST(epoll_refuses_files), TEST(futex_errors_are_the_kernels), \
        TEST(sleep_errors_are_the_kernels), TEST(clone_makes_threads), TEST(clone_refuses_processes), TEST(threads_are_64), \
        TEST(threads_reuse_stacks), TEST(alternate_stacks), TEST(yield_is_fair), TEST(thread_numbers_over_restores), TEST(exits_of_threads), \
        TEST(deadlocks_are_told), TEST(futex_wakes_in_order), TEST(futex_honours_bits), TEST(futex_requeues), \
        TEST(futex_wakes_two), \
        TEST(futexes_make_queues), TEST(times_come_in_order), TEST(a_sleeper_beats_a_spinner), TEST(a_wake_ends_a_timeout), \
        TEST(pipes_keep_records_whole), TEST(pipes_carry_everything), TEST(pipes_serve_readers_in_order), \
        TEST(closing_ends_waits), \
        TEST(pipes_to_the_byte), TEST(pipe_needs_memory), TEST(events_block), TEST(epoll_wakes_one), TEST(epoll_wakes_the_next), TEST(poll_and_select_wait), \
        TEST(input_comes_before_time), \
        TEST(tables_are_bounded), TEST(a_thousand_are_fast)
