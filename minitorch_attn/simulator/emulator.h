// CUDA C++ on the CPU: what a kernel's source may name, and the machine that runs it.
//
// The threads of a block are fibers: each has a stack of its own and runs until it must wait for
// others, at a barrier or at an operation of its warp. Then the scheduler goes on with another
// one, in an order shuffled anew each time. Blocks run one after another, in shuffled order too.
// kernels.py says what can be learnt from that and what cannot.
#pragma once

#ifndef _XOPEN_SOURCE
#define _XOPEN_SOURCE 700  // some systems declare ucontext only then
#endif
#include <dlfcn.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <type_traits>
#include <utility>

#define EMULATED static inline __attribute__((always_inline))
#define NOT_INLINED __attribute__((noinline))
#define UNWATCHED __attribute__((no_sanitize("thread")))  // its own accesses are no kernel's

// ------------------------------------------------------------ words of CUDA that mean nothing here

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static  // kernels.py lets the emulator know of each, see `Shared`
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

// ------------------------------------------------------------ types

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

#define VECTORS(number, name)                                                                \
    struct name##1 { number x; };                                                            \
    struct alignas(2 * sizeof(number)) name##2 { number x, y; };                             \
    struct name##3 { number x, y, z; };                                                      \
    struct alignas(4 * sizeof(number) > 16 ? 16 : 4 * sizeof(number)) name##4 {              \
        number x, y, z, w;                                                                   \
    };                                                                                       \
    EMULATED name##1 make_##name##1(number x) { return {x}; }                                \
    EMULATED name##2 make_##name##2(number x, number y) { return {x, y}; }                   \
    EMULATED name##3 make_##name##3(number x, number y, number z) { return {x, y, z}; }      \
    EMULATED name##4 make_##name##4(number x, number y, number z, number w) {                \
        return {x, y, z, w};                                                                 \
    }
VECTORS(signed char, char)
VECTORS(unsigned char, uchar)
VECTORS(short, short)
VECTORS(unsigned short, ushort)
VECTORS(int, int)
VECTORS(unsigned, uint)
VECTORS(long long, longlong)
VECTORS(unsigned long long, ulonglong)
VECTORS(float, float)
VECTORS(double, double)
#undef VECTORS

static uint3 threadIdx, blockIdx;  // of the thread that runs
static dim3 blockDim, gridDim;
static const int warpSize = 32;

// ------------------------------------------------------------ the machine

namespace emulator {

const int WARP = 32;
const int GARBAGE = 0xff;  // the bytes of what was never written: NaN, or -1

// What kernels.py asks for, and what it is told.
struct Launch {
    unsigned grid[3], block[3];
    void** arguments;
    char* stacks;  // stack_size bytes for each thread of a block
    size_t stack_size;
    char* shared;  // where the block's dynamic shared memory begins
    size_t shared_size;
    size_t shared_limit;  // for both kinds of shared memory together
    unsigned long long seed;
    struct Array* arrays;
    int array_count;
    int failed;
    char report[1024];
    void* fault;     // the address that could not be read or written, if that was it
    size_t code[2];  // where in the library the accesses were that went wrong, or 0
};

// An array among the arguments, by its first address.
struct Array {
    char* at;
    size_t size, element;
    const char* name;
};

enum State { READY, AT_BARRIER, IN_WARP, DONE };

struct Copy {
    void* shared;
    const void* global;
    int group;
};

struct Thread {
    uint3 index;
    int number, lane;
    State state;
    bool has_stack_frame;
    jmp_buf context;
    // what it waits for
    const char* what;
    int line;
    int vote;
    unsigned mask;
    bool aligned;
    unsigned segment;  // see `Segment`
    const void* given;
    void* taken;
    void (*perform)(Thread*, unsigned);
    // copies that it has begun
    Copy* copies;
    int copy_count, copy_room, groups;
};

// A variable in shared memory that the source declares, with garbage in it at first in each block.
struct Shared {
    void* at;
    size_t size, element;
    const char* name;
    Shared* next;
    template <class Variable>
    Shared(Variable& variable, const char* name);
};

static Launch* launched;
static void (*kernel)(void**);
static Thread* threads;  // of the block that runs, also those done
static int thread_count, alive;
static int* order;
static Thread* self;  // the thread that runs
static jmp_buf scheduler, abandon;
static Shared* shared_variables;
static size_t static_shared_size;
static unsigned long long random_state;
static const char* library;  // its first address

// splitmix64
static unsigned random_below(unsigned n) {
    unsigned long long z = random_state += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return (unsigned)((z ^ z >> 31) >> 32) % n;
}

static void shuffle(int* numbers, int n) {
    for (int i = n - 1; i > 0; --i) {
        int j = (int)random_below(i + 1), kept = numbers[i];
        numbers[i] = numbers[j];
        numbers[j] = kept;
    }
}

// End the launch: no other thread goes on.
[[noreturn]] static NOT_INLINED void fail(const char* format, ...) {
    char text[700];
    va_list rest;
    va_start(rest, format);
    vsnprintf(text, sizeof text, format, rest);
    va_end(rest);
    int size = sizeof launched->report;
    if (self)
        snprintf(launched->report, size, "%s (thread (%u, %u, %u) of block (%u, %u, %u))", text,
                 self->index.x, self->index.y, self->index.z, blockIdx.x, blockIdx.y, blockIdx.z);
    else
        snprintf(launched->report, size, "%s (block (%u, %u, %u))", text, blockIdx.x, blockIdx.y,
                 blockIdx.z);
    _longjmp(abandon, 1);
}

// ---- races: two accesses that nothing puts in order, one of them a write

#ifdef WATCHED

// What one thread does between two moments at which it is put in order with others.
struct Segment {
    int block, thread;
    unsigned barriers, warp_barriers;
};

// Who last wrote to an element, and two different threads that have read it since they last met.
struct Access {
    unsigned segment, code;
    bool atomic;
};
struct Element {
    Access write, reads[2];
};

struct Watched {
    char* at;
    size_t size, element;
    const char* name;
    bool shared;
    Element* elements;
};

static Segment* segments;
static unsigned segment_count, segment_room;
static int block_number;
static unsigned barriers, warp_barriers[WARP];  // met so far by the block, and by each warp
static Watched watched[256];
static int watched_count;

static void watch(void* at, size_t size, size_t element, const char* name, bool shared) {
    if (watched_count == 256 || size == 0) return;
    void* elements = calloc((size + element - 1) / element, sizeof(Element));
    watched[watched_count++] = {(char*)at, size, element, name, shared, (Element*)elements};
}

static void stop_watching() {
    for (int i = 0; i < watched_count; ++i) free(watched[i].elements);
    watched_count = 0;
    free(segments);
    segments = nullptr;
    segment_count = segment_room = 0;
}

UNWATCHED static NOT_INLINED unsigned segment_of(Thread* thread) {
    unsigned met = warp_barriers[thread->number / WARP];
    if (thread->segment) {
        Segment& s = segments[thread->segment];
        if (s.block == block_number && s.barriers == barriers && s.warp_barriers == met)
            return thread->segment;
    }
    if (segment_count + 1 >= segment_room) {
        segment_room = segment_room ? 2 * segment_room : 4096;
        segments = (Segment*)realloc(segments, segment_room * sizeof(Segment));
        if (!segment_count) segment_count = 1;  // 0 is none
    }
    segments[segment_count] = {block_number, thread->number, barriers, met};
    return thread->segment = segment_count++;
}

// Whether an earlier access and one of now may as well happen the other way round.
UNWATCHED EMULATED bool unordered(const Access& before, const Segment& now, bool shared) {
    if (!before.segment) return false;
    const Segment& s = segments[before.segment];
    if (s.block != now.block) return !shared;
    if (s.thread == now.thread || s.barriers != now.barriers) return false;
    return s.thread / WARP != now.thread / WARP || s.warp_barriers == now.warp_barriers;
}

[[noreturn]] static NOT_INLINED void fail_at_race(const Access& before, const char* was,
                                                  const Watched& of, size_t element,
                                                  const char* is) {
    Segment s = segments[before.segment];
    launched->code[1] = before.code;
    const char* unit = of.element == 1 ? "byte" : "element";
    const char* block = s.block == block_number ? "the same" : "another";
    fail("a race: %s %zu of %s is %s, and was %s by thread %d of %s block, with nothing that puts "
         "the two in order",
         unit, element, of.name, is, was, s.thread, block);
}

enum Kind { READ, WRITE, ATOMIC_WRITE };

UNWATCHED static NOT_INLINED void note(Thread* thread, const void* address, size_t size, Kind kind,
                                       const void* code) {
    if (!thread) return;
    for (int i = 0; i < watched_count; ++i) {
        Watched& of = watched[i];
        size_t offset = (size_t)((const char*)address - of.at);
        if (offset >= of.size) continue;
        unsigned segment = segment_of(thread);
        Segment now = segments[segment];
        Access access = {segment, (unsigned)((const char*)code - library), kind == ATOMIC_WRITE};
        launched->code[0] = access.code;
        size_t last = offset + size <= of.size ? offset + size : of.size;
        for (size_t n = offset / of.element; n * of.element < last; ++n) {
            Element& e = of.elements[n];
            bool both_atomic = e.write.atomic && kind != WRITE;  // a look before an atomic is fine
            if (!both_atomic && unordered(e.write, now, of.shared))
                fail_at_race(e.write, "written", of, n, kind == READ ? "read" : "written");
            if (kind == WRITE)
                for (Access& read : e.reads)
                    if (unordered(read, now, of.shared))
                        fail_at_race(read, "read", of, n, "written");
            if (kind != READ)
                e.write = access;
            else if (!unordered(e.reads[0], now, of.shared))
                e.reads[0] = access;
            else
                e.reads[1] = access;
        }
        launched->code[0] = 0;
        return;
    }
}

static void watch_shared(Shared* variable) {
    watch(variable->at, variable->size, variable->element, variable->name, true);
}
static void watch_launch() {
    for (int i = 0; i < launched->array_count; ++i) {
        Array& array = launched->arrays[i];
        watch(array.at, array.size, array.element, array.name, false);
    }
    for (Shared* v = shared_variables; v; v = v->next) watch_shared(v);
    watch(launched->shared, launched->shared_size, 1, "dynamic shared memory", true);
}
static void block_begins() {
    ++block_number;
    barriers = 0;
    memset(warp_barriers, 0, sizeof warp_barriers);
}
static void block_met() { ++barriers; }
static void warp_met(Thread* lanes) { ++warp_barriers[lanes->number / WARP]; }

#define NOTE(thread, address, size, kind) \
    emulator::note(thread, address, size, emulator::kind, __builtin_return_address(0))
#else
static void watch_shared(Shared*) {}
static void watch_launch() {}
static void stop_watching() {}
static void block_begins() {}
static void block_met() {}
static void warp_met(Thread*) {}
#define NOTE(thread, address, size, kind)
#endif

static void check_shared() {
    size_t fixed = static_shared_size, dynamic = launched->shared_size;
    size_t most = launched->shared_limit;
    if (fixed + dynamic > most)
        fail("a block has %zu bytes of static and %zu of dynamic shared memory, of at most %zu%s",
             fixed, dynamic, most,
             most > 48 * 1024 ? "" : ": set kernel.max_dynamic_shared_size_bytes first");
}

template <class Variable>
Shared::Shared(Variable& variable, const char* name)
    : at(&variable), size(sizeof variable), element(1), name(name), next(shared_variables) {
    using Element = typename std::remove_all_extents<Variable>::type;
    if (std::is_arithmetic<Element>::value || sizeof(Element) == 2) element = sizeof(Element);
    shared_variables = this;
    static_shared_size += size;
    memset(at, GARBAGE, size);
    if (self) watch_shared(this);
    if (self) check_shared();
}

EMULATED void* dynamic_shared() { return launched->shared; }

static bool is_shared(const void* p, size_t size) {
    const char* at = (const char*)p;
    if (at >= launched->shared && at + size <= launched->shared + launched->shared_size)
        return true;
    for (Shared* v = shared_variables; v; v = v->next)
        if (at >= (char*)v->at && at + size <= (char*)v->at + v->size) return true;
    return false;
}

// Let others run until this thread may go on. What they wrote must be read anew then.
static NOT_INLINED void switch_to_scheduler() {
    if (!_setjmp(self->context)) _longjmp(scheduler, 1);
}

EMULATED void suspend() {
    asm volatile("" ::: "memory");
    switch_to_scheduler();
    asm volatile("" ::: "memory");
}

// ---- operations of a warp

// The lanes of `mask` that take part in what `me` waits for, or 0 while one is missing.
static unsigned complete(Thread* me) {
    Thread* warp = me - me->lane;
    unsigned present = 0;
    for (int lane = 0; lane < WARP; ++lane) {
        if (!(me->mask >> lane & 1)) continue;
        Thread* other = warp + lane;
        if (other->number >= thread_count || other->state == DONE) {
            if (me->aligned) return 0;
            continue;
        }
        bool same = other->state == IN_WARP && other->mask == me->mask &&
                    other->perform == me->perform && (!me->aligned || other->line == me->line);
        if (!same) return 0;
        present |= 1u << lane;
    }
    return present;
}

static void perform_if_complete(Thread* one) {
    unsigned present = complete(one);
    if (!present) return;
    Thread* warp = one - one->lane;
    one->perform(warp, present);
    for (int lane = 0; lane < WARP; ++lane)
        if (present >> lane & 1) warp[lane].state = READY;
}

// Bring `given` to the other lanes; `perform(lanes, present)` puts what each takes into `taken`.
// It is done once, by the lane that comes last.
EMULATED void with_warp(const char* what, unsigned mask, bool aligned, int line, const void* given,
                        void* taken, void (*perform)(Thread*, unsigned)) {
    if (!(mask >> self->lane & 1))
        fail("%s in line %d: lane %d is not in its own mask 0x%08x", what, line, self->lane, mask);
    self->what = what;
    self->mask = mask;
    self->aligned = aligned;
    self->line = line;
    self->given = given;
    self->taken = taken;
    self->perform = perform;
    self->state = IN_WARP;
    asm volatile("" ::: "memory");
    perform_if_complete(self);
    if (self->state != READY) switch_to_scheduler();
    asm volatile("" ::: "memory");
}

// ---- running a block

static void describe_waiting(char* text, size_t size) {
    // One line for each place where threads wait, with one of the threads there.
    size_t used = 0;
    for (int i = 0; i < thread_count && used < size; ++i) {
        Thread* one = threads + i;
        if (one->state == DONE) continue;
        int count = 0, before = 0;
        for (int j = 0; j < thread_count; ++j) {
            Thread* other = threads + j;
            if (other->state != one->state || other->line != one->line ||
                other->what != one->what)
                continue;
            ++count;
            before += j < i;
        }
        if (before) continue;
        used += snprintf(text + used, size - used, "%s%d at %s in line %d (thread %d among them)",
                         used ? ", " : "", count, one->what, one->line, one->number);
    }
}

static void release_barrier() {
    char places[500] = "";
    bool together = alive == thread_count;
    for (int i = 0; i < thread_count; ++i)
        if (threads[i].state != DONE)
            together = together && threads[i].state == AT_BARRIER &&
                       threads[i].line == threads[0].line && threads[i].what == threads[0].what;
    if (!together) {
        describe_waiting(places, sizeof places);
        self = nullptr;
        fail("the threads of a block wait for one another in vain: %d have returned, %s",
             thread_count - alive, places);
    }
    for (int i = 0; i < thread_count; ++i) threads[i].state = READY;
    block_met();
}

static void finish(Thread* me) {
    me->state = DONE;
    --alive;
    // Lanes that waited for this one need not any more.
    Thread* warp = me - me->lane;
    for (int lane = 0; lane < WARP && warp[lane].number < thread_count; ++lane)
        if (warp[lane].state == IN_WARP) perform_if_complete(warp + lane);
}

static void live() {
    for (;;) {
        kernel(launched->arguments);
        finish(self);
        switch_to_scheduler();  // until the next block
    }
}

static NOT_INLINED void resume(Thread* thread) {
    self = thread;
    threadIdx = thread->index;
    if (!_setjmp(scheduler)) {
        if (thread->has_stack_frame) _longjmp(thread->context, 1);
        thread->has_stack_frame = true;
        static ucontext_t fresh;
        getcontext(&fresh);
        fresh.uc_stack.ss_sp = launched->stacks + (size_t)thread->number * launched->stack_size;
        fresh.uc_stack.ss_size = launched->stack_size;
        fresh.uc_link = nullptr;
        makecontext(&fresh, live, 0);
        setcontext(&fresh);
    }
    self = nullptr;
}

static void run_block() {
    block_begins();
    for (Shared* v = shared_variables; v; v = v->next) memset(v->at, GARBAGE, v->size);
    memset(launched->shared, GARBAGE, launched->shared_size);
    for (int i = 0; i < thread_count; ++i) {
        threads[i].state = READY;
        threads[i].copy_count = threads[i].groups = 0;
    }
    alive = thread_count;
    while (alive) {
        bool went_on = false;
        shuffle(order, thread_count);
        for (int i = 0; i < thread_count; ++i) {
            Thread* thread = threads + order[i];
            if (thread->state != READY) continue;
            went_on = true;
            resume(thread);
        }
        if (!went_on && alive) release_barrier();
    }
}

// The instruction that a signal interrupted, where the system says so.
static const char* interrupted(void* context) {
#if defined(__linux__) && defined(__x86_64__)
    return (const char*)((ucontext_t*)context)->uc_mcontext.gregs[REG_RIP];
#elif defined(__linux__) && defined(__aarch64__)
    return (const char*)((ucontext_t*)context)->uc_mcontext.pc;
#else
    (void)context;
    return nullptr;
#endif
}

static void on_signal(int number, siginfo_t* info, void* context) {
    if (const char* code = interrupted(context)) launched->code[0] = code + 1 - library;
    if (number == SIGFPE) fail("an integer was divided by zero");
    if (number == SIGILL || number == SIGTRAP) fail("the kernel trapped");
    launched->fault = info->si_addr;
    fail("an address was read or written that is not the kernel's, or not aligned to its type");
}

struct Signals {
    static const int COUNT = 5;
    const int numbers[COUNT] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    struct sigaction before[COUNT];
    stack_t stack_before;
    char stack[65536];
    Signals() {
        stack_t own = {};
        own.ss_sp = stack;
        own.ss_size = sizeof stack;
        sigaltstack(&own, &stack_before);
        struct sigaction action = {};
        action.sa_sigaction = on_signal;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
        for (int i = 0; i < COUNT; ++i) sigaction(numbers[i], &action, before + i);
    }
    ~Signals() {
        for (int i = 0; i < COUNT; ++i) sigaction(numbers[i], before + i, nullptr);
        sigaltstack(&stack_before, nullptr);
    }
};

static void run_blocks(int* blocks, int count) {
    check_shared();
    const unsigned* grid = launched->grid;
    for (int i = 0; i < count; ++i) {
        unsigned n = blocks[i];
        blockIdx = {n % grid[0], n / grid[0] % grid[1], n / grid[0] / grid[1]};
        run_block();
    }
}

static int launch(Launch* asked, void (*function)(void**)) {
    launched = asked;
    kernel = function;
    const unsigned *grid = asked->grid, *block = asked->block;
    gridDim = dim3(grid[0], grid[1], grid[2]);
    blockDim = dim3(block[0], block[1], block[2]);
    random_state = asked->seed;
    Dl_info own;
    if (dladdr((void*)function, &own)) library = (const char*)own.dli_fbase;
    watch_launch();
    int block_count = grid[0] * grid[1] * grid[2];
    thread_count = block[0] * block[1] * block[2];
    int room = (thread_count + WARP - 1) / WARP * WARP;  // lanes that no thread is in, too
    threads = (Thread*)calloc(room, sizeof(Thread));
    order = (int*)malloc(thread_count * sizeof(int));
    int* blocks = (int*)malloc(block_count * sizeof(int));
    for (int i = 0; i < room; ++i) {
        threads[i].number = i;
        threads[i].lane = i % WARP;
        threads[i].index = {i % block[0], i / block[0] % block[1], i / block[0] / block[1]};
    }
    for (int i = 0; i < thread_count; ++i) order[i] = i;
    for (int i = 0; i < block_count; ++i) blocks[i] = i;
    shuffle(blocks, block_count);
    {
        Signals caught;
        asked->failed = _setjmp(abandon);
        if (!asked->failed) run_blocks(blocks, block_count);
    }
    self = nullptr;
    stop_watching();
    for (int i = 0; i < thread_count; ++i) free(threads[i].copies);
    free(threads);
    free(order);
    free(blocks);
    return asked->failed;
}

// ---- calling a kernel whose parameters are of any types

// What a parameter is: kind i, u, f, b of a number and its size, or of what a pointer points to.
struct Parameter {
    bool pointer, constant;
    char kind;
    int size;
};

}  // namespace emulator

// ------------------------------------------------------------ bits of numbers

template <class To, class From>
EMULATED To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From), "the same number of bits");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
EMULATED unsigned __float_as_uint(float f) { return bits_as<unsigned>(f); }
EMULATED int __float_as_int(float f) { return bits_as<int>(f); }
EMULATED float __uint_as_float(unsigned u) { return bits_as<float>(u); }
EMULATED float __int_as_float(int i) { return bits_as<float>(i); }
EMULATED long long __double_as_longlong(double d) { return bits_as<long long>(d); }
EMULATED double __longlong_as_double(long long i) { return bits_as<double>(i); }
EMULATED int __popc(unsigned u) { return __builtin_popcount(u); }
EMULATED int __popcll(unsigned long long u) { return __builtin_popcountll(u); }
EMULATED int __clz(int i) { return i ? __builtin_clz(i) : 32; }
EMULATED int __clzll(long long i) { return i ? __builtin_clzll(i) : 64; }
EMULATED int __ffs(int i) { return __builtin_ffs(i); }
EMULATED int __ffsll(long long i) { return __builtin_ffsll(i); }
EMULATED unsigned __umulhi(unsigned a, unsigned b) { return (unsigned long long)a * b >> 32; }
EMULATED unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned __int128)a * b >> 64;
}

// ------------------------------------------------------------ half precision

struct half_t {
    unsigned short bits;
    half_t() = default;
    explicit half_t(float f) {
        unsigned u = __float_as_uint(f), sign = u >> 16 & 0x8000u, size = u & 0x7fffffffu;
        if (size > 0x7f800000u) {
            bits = 0x7fff;  // the one NaN that the GPU makes
        } else if (size < 0x38800000u) {
            // Below 2^-14 a half counts in steps of 2^-24, as a float does between 0.5 and 1.
            size = __float_as_uint(__uint_as_float(size) + 0.5f) - 0x3f000000u;
            bits = (unsigned short)(sign | size);
        } else {
            size += 0xfffu + (size >> 13 & 1u) - (112u << 23);  // nearest, even where two are
            size >>= 13;
            bits = (unsigned short)(sign | (size > 0x7c00u ? 0x7c00u : size));
        }
    }
    operator float() const {
        unsigned sign = (bits & 0x8000u) << 16, size = bits & 0x7fffu;
        if (size >= 0x7c00u) return __uint_as_float(sign | 0x7f800000u | size << 13);
        if (size >= 0x400u) return __uint_as_float(sign | ((size << 13) + (112u << 23)));
        float f = (float)size * 0x1p-24f;
        return sign ? -f : f;
    }
};

struct bfloat_t {
    unsigned short bits;
    bfloat_t() = default;
    explicit bfloat_t(float f) {
        unsigned u = __float_as_uint(f);
        if ((u & 0x7fffffffu) > 0x7f800000u)
            bits = 0x7fff;
        else
            bits = (unsigned short)(u + 0x7fffu + (u >> 16 & 1u) >> 16);
    }
    operator float() const { return __uint_as_float((unsigned)bits << 16); }
};

// To the nearest, away from zero where two are.
EMULATED unsigned to_tf32(float f) {
    unsigned u = __float_as_uint(f);
    return (u & 0x7fffffffu) > 0x7f800000u ? 0x7fffffffu : (u + 0x1000u) & ~0x1fffu;
}

// ------------------------------------------------------------ calling a kernel

namespace emulator {

template <class N>
constexpr char kind_of() {
    if (std::is_same<N, half_t>::value) return 'f';
    if (std::is_same<N, bfloat_t>::value) return 'B';
    if (std::is_same<N, bool>::value) return 'b';
    if (std::is_void<N>::value) return 'v';
    if (std::is_floating_point<N>::value) return 'f';
    if (std::is_integral<N>::value) return std::is_signed<N>::value ? 'i' : 'u';
    return 's';
}
template <class N>
struct size_of {
    static const int value = sizeof(N);
};
template <>
struct size_of<void> {
    static const int value = 1;
};

template <class P>
Parameter parameter() {
    using Bare = typename std::remove_cv<P>::type;
    using Pointee = typename std::remove_pointer<Bare>::type;
    using Number = typename std::remove_cv<Pointee>::type;
    return {std::is_pointer<Bare>::value, std::is_const<Pointee>::value, kind_of<Number>(),
            size_of<Number>::value};
}

template <class... P>
int describe(void (*)(P...), Parameter* parameters) {
    Parameter found[] = {parameter<P>()..., {}};
    memcpy(parameters, found, sizeof...(P) * sizeof(Parameter));
    return sizeof...(P);
}

template <class... Rest>
constexpr int first_of(int first, Rest...) {
    return first;
}

template <class... P, size_t... I>
EMULATED void call(void (*f)(P...), void** arguments, std::index_sequence<I...>) {
    f(*(typename std::remove_cv<P>::type*)arguments[I]...);
}

template <class... P>
EMULATED void call(void (*f)(P...), void** arguments) {
    call(f, arguments, std::index_sequence_for<P...>());
}

}  // namespace emulator

// ------------------------------------------------------------ barriers and votes

namespace emulator {
EMULATED void barrier(const char* what, int line) {
    self->what = what;
    self->line = line;
    self->state = AT_BARRIER;
    suspend();
}
static int votes() {
    int count = 0;
    for (int i = 0; i < thread_count; ++i) count += threads[i].vote != 0;
    return count;
}
// The votes are read when all are cast, and cast again only when all have read them.
EMULATED int vote_of_block(const char* what, int vote, int line) {
    self->vote = vote;
    barrier(what, line);
    int count = votes();
    barrier(what, line);
    return count;
}
}  // namespace emulator

EMULATED void __syncthreads(int line = __builtin_LINE()) {
    emulator::barrier("__syncthreads", line);
}
EMULATED int __syncthreads_count(int vote, int line = __builtin_LINE()) {
    return emulator::vote_of_block("__syncthreads_count", vote, line);
}
EMULATED int __syncthreads_or(int vote, int line = __builtin_LINE()) {
    return emulator::vote_of_block("__syncthreads_or", vote, line) > 0;
}
EMULATED int __syncthreads_and(int vote, int line = __builtin_LINE()) {
    return emulator::vote_of_block("__syncthreads_and", vote, line) == emulator::thread_count;
}
// One thread runs at a time, so memory is always seen in order.
EMULATED void __threadfence() {}
EMULATED void __threadfence_block() {}
EMULATED void __trap() { emulator::fail("__trap"); }

EMULATED void __syncwarp(unsigned mask = 0xffffffffu, int line = __builtin_LINE()) {
    emulator::with_warp("__syncwarp", mask, false, line, nullptr, nullptr,
                        [](emulator::Thread* lanes, unsigned) { emulator::warp_met(lanes); });
}

EMULATED unsigned __ballot_sync(unsigned mask, int vote, int line = __builtin_LINE()) {
    unsigned result;
    emulator::with_warp("__ballot_sync", mask, false, line, &vote, &result,
                        [](emulator::Thread* lanes, unsigned present) {
        unsigned ballot = 0;
        for (int i = 0; i < 32; ++i)
            if (present >> i & 1) ballot |= (unsigned)(*(const int*)lanes[i].given != 0) << i;
        for (int i = 0; i < 32; ++i)
            if (present >> i & 1) *(unsigned*)lanes[i].taken = ballot;
    });
    return result;
}
EMULATED int __any_sync(unsigned mask, int vote, int line = __builtin_LINE()) {
    return __ballot_sync(mask, vote, line) != 0;
}
EMULATED int __all_sync(unsigned mask, int vote, int line = __builtin_LINE()) {
    return __ballot_sync(mask, !vote, line) == 0;
}

// ------------------------------------------------------------ shuffles

namespace emulator {
template <class N>
struct Shuffle {
    N value;
    int source;
};

template <class N>
EMULATED N shuffle(const char* what, unsigned mask, N value, int source, int line) {
    static_assert(std::is_arithmetic<N>::value && sizeof(N) >= 4,
                  "a warp exchanges int, long long, float, double and the like");
    Shuffle<N> given = {value, source};
    N taken;
    with_warp(what, mask, false, line, &given, &taken, [](Thread* lanes, unsigned present) {
        for (int i = 0; i < WARP; ++i) {
            if (!(present >> i & 1)) continue;
            int from = ((const Shuffle<N>*)lanes[i].given)->source;
            if (!(present >> from & 1)) {
                self = lanes + i;
                fail("%s in line %d: lane %d reads from lane %d, which takes no part",
                     lanes[i].what, lanes[i].line, i, from);
            }
            *(N*)lanes[i].taken = ((const Shuffle<N>*)lanes[from].given)->value;
        }
    });
    return taken;
}

EMULATED void check_width(int width, int line) {
    if (width < 1 || width > WARP || width & (width - 1))
        fail("a shuffle in line %d: its width is %d, not 1, 2, 4, 8, 16 or 32", line, width);
}
}  // namespace emulator

template <class N>
EMULATED N __shfl_sync(unsigned mask, N value, int source, int width = 32,
                       int line = __builtin_LINE()) {
    emulator::check_width(width, line);
    int first = emulator::self->lane & ~(width - 1);
    return emulator::shuffle("__shfl_sync", mask, value, first | (source & (width - 1)), line);
}
template <class N>
EMULATED N __shfl_up_sync(unsigned mask, N value, unsigned apart, int width = 32,
                          int line = __builtin_LINE()) {
    emulator::check_width(width, line);
    int lane = emulator::self->lane, source = lane - (int)apart;
    bool inside = source >= (lane & ~(width - 1));
    return emulator::shuffle("__shfl_up_sync", mask, value, inside ? source : lane, line);
}
template <class N>
EMULATED N __shfl_down_sync(unsigned mask, N value, unsigned apart, int width = 32,
                            int line = __builtin_LINE()) {
    emulator::check_width(width, line);
    int lane = emulator::self->lane, source = lane + (int)apart;
    bool inside = source <= (lane | (width - 1));
    return emulator::shuffle("__shfl_down_sync", mask, value, inside ? source : lane, line);
}
template <class N>
EMULATED N __shfl_xor_sync(unsigned mask, N value, int apart, int width = 32,
                           int line = __builtin_LINE()) {
    emulator::check_width(width, line);
    int lane = emulator::self->lane, source = lane ^ apart;
    bool inside = source <= (lane | (width - 1)) && source >= 0;
    return emulator::shuffle("__shfl_xor_sync", mask, value, inside ? source : lane, line);
}

// ------------------------------------------------------------ atomics

#ifdef WATCHED
#define INDIVISIBLE UNWATCHED static NOT_INLINED
#else
#define INDIVISIBLE EMULATED
#endif
#define ATOMIC(name, number, becomes)               \
    INDIVISIBLE number name(number* at, number v) { \
        NOTE(emulator::self, at, sizeof v, ATOMIC_WRITE);     \
        number old = *at;                           \
        *at = becomes;                              \
        return old;                                 \
    }
#define ATOMICS(number)                             \
    ATOMIC(atomicMax, number, v > old ? v : old)    \
    ATOMIC(atomicMin, number, v < old ? v : old)    \
    ATOMIC(atomicAnd, number, old & v)              \
    ATOMIC(atomicOr, number, old | v)               \
    ATOMIC(atomicXor, number, old ^ v)
#define ATOMIC_SWAPS(number)                                        \
    INDIVISIBLE number atomicCAS(number* at, number seen, number v) {\
        NOTE(emulator::self, at, sizeof v, ATOMIC_WRITE);                     \
        number old = *at;                                           \
        if (old == seen) *at = v;                                   \
        return old;                                                 \
    }
ATOMIC(atomicAdd, int, old + v)
ATOMIC(atomicAdd, unsigned, old + v)
ATOMIC(atomicAdd, unsigned long long, old + v)
ATOMIC(atomicAdd, float, old + v)
ATOMIC(atomicAdd, double, old + v)
ATOMIC(atomicSub, int, old - v)
ATOMIC(atomicSub, unsigned, old - v)
ATOMIC(atomicExch, int, v)
ATOMIC(atomicExch, unsigned, v)
ATOMIC(atomicExch, unsigned long long, v)
ATOMIC(atomicExch, float, v)
ATOMIC(atomicInc, unsigned, old >= v ? 0 : old + 1)
ATOMIC(atomicDec, unsigned, old == 0 || old > v ? v : old - 1)
ATOMICS(int)
ATOMICS(unsigned)
ATOMICS(long long)
ATOMICS(unsigned long long)
ATOMIC_SWAPS(int)
ATOMIC_SWAPS(unsigned)
ATOMIC_SWAPS(unsigned long long)
ATOMIC_SWAPS(unsigned short)
#undef INDIVISIBLE
#undef ATOMIC
#undef ATOMICS
#undef ATOMIC_SWAPS

// ------------------------------------------------------------ numbers

template <class N>
EMULATED N __ldg(const N* at) { return *at; }

#define EXTREMES(number)                                              \
    EMULATED number min(number a, number b) { return b < a ? b : a; } \
    EMULATED number max(number a, number b) { return a < b ? b : a; }
EXTREMES(int)
EXTREMES(unsigned)
EXTREMES(long)
EXTREMES(unsigned long)
EXTREMES(long long)
EXTREMES(unsigned long long)
#undef EXTREMES
EMULATED float min(float a, float b) { return fminf(a, b); }
EMULATED float max(float a, float b) { return fmaxf(a, b); }
EMULATED double min(double a, double b) { return fmin(a, b); }
EMULATED double max(double a, double b) { return fmax(a, b); }
EMULATED double min(float a, double b) { return fmin(a, b); }
EMULATED double max(float a, double b) { return fmax(a, b); }
EMULATED double min(double a, float b) { return fmin(a, b); }
EMULATED double max(double a, float b) { return fmax(a, b); }
EMULATED unsigned min(int a, unsigned b) { return min((unsigned)a, b); }
EMULATED unsigned max(int a, unsigned b) { return max((unsigned)a, b); }
EMULATED unsigned min(unsigned a, int b) { return min(a, (unsigned)b); }
EMULATED unsigned max(unsigned a, int b) { return max(a, (unsigned)b); }

EMULATED float rsqrtf(float x) { return (float)(1.0 / sqrt((double)x)); }
EMULATED double rsqrt(double x) { return 1.0 / sqrt(x); }
EMULATED float rsqrt(float x) { return rsqrtf(x); }
EMULATED float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
EMULATED float __fdividef(float a, float b) { return a / b; }
EMULATED float __frcp_rn(float x) { return 1.0f / x; }
EMULATED float __frsqrt_rn(float x) { return rsqrtf(x); }
EMULATED float __fsqrt_rn(float x) { return sqrtf(x); }
EMULATED float __fadd_rn(float a, float b) { return a + b; }
EMULATED float __fmul_rn(float a, float b) { return a * b; }
EMULATED float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
EMULATED float __int2float_rn(int i) { return (float)i; }
EMULATED int __float2int_rn(float f) { return (int)rintf(f); }
EMULATED int __float2int_rz(float f) { return (int)f; }
EMULATED int __float2int_rd(float f) { return (int)floorf(f); }
// The GPU's rough forms, here exact; the C library may have these names for itself.
#define __expf(x) expf(x)
#define __exp10f(x) powf(10.0f, x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __log10f(x) log10f(x)
#define __powf(x, y) powf(x, y)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __tanf(x) tanf(x)

// ------------------------------------------------------------ matrices of a warp

namespace emulator {

EMULATED void with_whole_warp(const char* what, int line, const void* given, void* taken,
                              void (*perform)(Thread*, unsigned)) {
    with_warp(what, 0xffffffffu, true, line, given, taken, perform);
}

struct Fragments {
    const unsigned *a, *b;
};

// d += a b with the products added up in double: no rounding but the last.
template <int INNER>
static void multiply_add(Thread* lanes, const double (&a)[16][INNER], const double (&b)[INNER][8]) {
    for (int lane = 0; lane < WARP; ++lane) {
        float* d = (float*)lanes[lane].taken;
        for (int i = 0; i < 4; ++i) {
            int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
            double sum = d[i];
            for (int k = 0; k < INNER; ++k) sum += a[row][k] * b[k][column];
            d[i] = (float)sum;
        }
    }
}

template <class Half>
static double number_in(unsigned pair, int which) {
    Half half;
    half.bits = (unsigned short)(pair >> 16 * which);
    return (float)half;
}

template <class Half>
static void multiply_halves(Thread* lanes, unsigned) {
    double a[16][16], b[16][8];
    for (int lane = 0; lane < WARP; ++lane) {
        const Fragments* given = (const Fragments*)lanes[lane].given;
        int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; ++i)
            for (int j = 0; j < 2; ++j)
                a[g + i % 2 * 8][2 * t + i / 2 * 8 + j] = number_in<Half>(given->a[i], j);
        for (int i = 0; i < 2; ++i)
            for (int j = 0; j < 2; ++j)
                b[2 * t + i * 8 + j][g] = number_in<Half>(given->b[i], j);
    }
    multiply_add<16>(lanes, a, b);
}

static double tf32_number(unsigned bits) { return __uint_as_float(bits & ~0x1fffu); }

static void multiply_tf32(Thread* lanes, unsigned) {
    double a[16][8], b[8][8];
    for (int lane = 0; lane < WARP; ++lane) {
        const Fragments* given = (const Fragments*)lanes[lane].given;
        int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; ++i) a[g + i % 2 * 8][t + i / 2 * 4] = tf32_number(given->a[i]);
        for (int i = 0; i < 2; ++i) b[t + i * 4][g] = tf32_number(given->b[i]);
    }
    multiply_add<8>(lanes, a, b);
}

template <int COUNT, bool TRANSPOSED>
static void load_matrices(Thread* lanes, unsigned) {
    for (int lane = 0; lane < 8 * COUNT; ++lane) NOTE(lanes + lane, lanes[lane].given, 16, READ);
    for (int lane = 0; lane < WARP; ++lane)
        for (int i = 0; i < COUNT; ++i) {
            unsigned short pair[2];
            for (int j = 0; j < 2; ++j) {
                int row = lane / 4, column = lane % 4 * 2 + j;
                if (TRANSPOSED) std::swap(row, column);
                pair[j] = ((const unsigned short*)lanes[8 * i + row].given)[column];
            }
            ((unsigned*)lanes[lane].taken)[i] = pair[0] | (unsigned)pair[1] << 16;
        }
}

template <int COUNT, bool TRANSPOSED>
EMULATED void ldmatrix(const char* what, unsigned* r, const void* row, int line) {
    if (self->lane < 8 * COUNT) {
        if (!is_shared(row, 16)) fail("%s in line %d: not 16 bytes of shared memory", what, line);
        if ((uintptr_t)row % 16) fail("%s in line %d: the row is not aligned to 16", what, line);
    }
    with_whole_warp(what, line, row, r, load_matrices<COUNT, TRANSPOSED>);
}

}  // namespace emulator

EMULATED void mma_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                      int line = __builtin_LINE()) {
    emulator::Fragments given = {a, b};
    emulator::with_whole_warp("mma_f16", line, &given, d, emulator::multiply_halves<half_t>);
}
EMULATED void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                       int line = __builtin_LINE()) {
    emulator::Fragments given = {a, b};
    emulator::with_whole_warp("mma_bf16", line, &given, d, emulator::multiply_halves<bfloat_t>);
}
EMULATED void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                       int line = __builtin_LINE()) {
    emulator::Fragments given = {a, b};
    emulator::with_whole_warp("mma_tf32", line, &given, d, emulator::multiply_tf32);
}

EMULATED void ldmatrix_x2(unsigned (&r)[2], const void* row, int line = __builtin_LINE()) {
    emulator::ldmatrix<2, false>("ldmatrix_x2", r, row, line);
}
EMULATED void ldmatrix_x2_trans(unsigned (&r)[2], const void* row, int line = __builtin_LINE()) {
    emulator::ldmatrix<2, true>("ldmatrix_x2_trans", r, row, line);
}
EMULATED void ldmatrix_x4(unsigned (&r)[4], const void* row, int line = __builtin_LINE()) {
    emulator::ldmatrix<4, false>("ldmatrix_x4", r, row, line);
}
EMULATED void ldmatrix_x4_trans(unsigned (&r)[4], const void* row, int line = __builtin_LINE()) {
    emulator::ldmatrix<4, true>("ldmatrix_x4_trans", r, row, line);
}

// ------------------------------------------------------------ copies past the registers

// From here until the wait the target holds garbage: on a card it holds either.
static NOT_INLINED void copy_async16(void* shared, const void* global, bool inside,
                                     int line = __builtin_LINE()) {
    using namespace emulator;
    if (!is_shared(shared, 16)) fail("copy_async16 in line %d: not to shared memory", line);
    if ((uintptr_t)shared % 16 || (inside && (uintptr_t)global % 16))
        fail("copy_async16 in line %d: an address is not aligned to 16", line);
    if (self->copy_count == self->copy_room) {
        self->copy_room = self->copy_room ? 2 * self->copy_room : 16;
        self->copies = (Copy*)realloc(self->copies, self->copy_room * sizeof(Copy));
    }
    self->copies[self->copy_count++] = {shared, inside ? global : nullptr, self->groups};
    NOTE(self, shared, 16, WRITE);
    memset(shared, GARBAGE, 16);
}

EMULATED void commit_async() { ++emulator::self->groups; }

namespace emulator {
static NOT_INLINED void finish_copies(int under_way) {
    int kept = 0;
    for (int i = 0; i < self->copy_count; ++i) {
        Copy copy = self->copies[i];
        if (copy.group >= self->groups - under_way)
            self->copies[kept++] = copy;
        else if (copy.global) {
            NOTE(self, copy.global, 16, READ);
            NOTE(self, copy.shared, 16, WRITE);
            memcpy(copy.shared, copy.global, 16);
        } else {
            NOTE(self, copy.shared, 16, WRITE);
            memset(copy.shared, 0, 16);
        }
    }
    self->copy_count = kept;
}
}  // namespace emulator

template <int N>
EMULATED void wait_async() {
    asm volatile("" ::: "memory");
    emulator::finish_copies(N);
    asm volatile("" ::: "memory");
}

// ------------------------------------------------------------ what the compiler looks after

// With -fsanitize=bounds,alignment it calls these where an access is about to go wrong.
namespace emulator {
struct Place {
    const char* file;
    unsigned line, column;
};
struct Misfit {
    Place place;
    const void* type;
    unsigned char log_alignment, kind;
};
}  // namespace emulator

extern "C" __attribute__((visibility("hidden"))) void __ubsan_handle_out_of_bounds_abort(
    emulator::Place* place, uintptr_t index) {
    emulator::fail("index %lld is outside of an array, in line %u", (long long)index, place->line);
}
extern "C" __attribute__((visibility("hidden"))) void __ubsan_handle_type_mismatch_v1_abort(
    emulator::Misfit* misfit, uintptr_t) {
    emulator::fail("an address that is not aligned to %d bytes is read or written as if it were, "
                   "in line %u",
                   1 << misfit->log_alignment, misfit->place.line);
}

// ------------------------------------------------------------ every access, where they are watched

// With -fsanitize=thread the compiler calls these before each access to memory.
#ifdef WATCHED
#define HOOK extern "C" __attribute__((visibility("hidden"))) UNWATCHED
#define SEEN(name, size, kind) \
    HOOK void name(void* at) { NOTE(emulator::self, at, size, kind); }
#define SEEN_OF_SIZE(size)                            \
    SEEN(__tsan_read##size, size, READ)               \
    SEEN(__tsan_write##size, size, WRITE)             \
    SEEN(__tsan_unaligned_read##size, size, READ)     \
    SEEN(__tsan_unaligned_write##size, size, WRITE)
SEEN_OF_SIZE(1)
SEEN_OF_SIZE(2)
SEEN_OF_SIZE(4)
SEEN_OF_SIZE(8)
SEEN_OF_SIZE(16)
HOOK void __tsan_read_range(void* at, size_t size) { NOTE(emulator::self, at, size, READ); }
HOOK void __tsan_write_range(void* at, size_t size) { NOTE(emulator::self, at, size, WRITE); }
HOOK void* __tsan_memcpy(void* to, const void* from, size_t size) {
    NOTE(emulator::self, from, size, READ);
    NOTE(emulator::self, to, size, WRITE);
    return memcpy(to, from, size);
}
HOOK void* __tsan_memset(void* to, int value, size_t size) {
    NOTE(emulator::self, to, size, WRITE);
    return memset(to, value, size);
}
HOOK void __tsan_init() {}
HOOK void __tsan_func_entry(void*) {}
HOOK void __tsan_func_exit() {}
#undef HOOK
#undef SEEN
#undef SEEN_OF_SIZE
#endif
