/* A team of threads: they spin while work is near, and sleep when it is not.

   One job at a time. The caller is member 0; members 1 ... n-1 are threads that are started
   when they are first needed and then wait for jobs for as long as the process lives. There is
   no OpenMP here: its runtime hangs in a forked child, and clashes with the copies that
   other libraries bring along. */
#ifndef MINIDL_TEAM_H
#define MINIDL_TEAM_H

#include <Python.h>
#include <pythread.h>
#include <stdint.h>
#include "clock.h"
#ifdef _WIN32
#include <windows.h>
#define give_way() SwitchToThread()
#define nap() Sleep(1)
#else
#include <sched.h>
#define give_way() sched_yield()
#define nap() nanosleep(&(struct timespec){0, 50000}, NULL)
#endif

/* Prefetch a cache line that will soon be read. */
static inline void expect(const void *p) { __builtin_prefetch(p); }

/* Return how this thread rounds and whether it flushes subnormal numbers to zero; 0 where we do not
   know how to read that. */
static inline uint64_t float_mode(void) {
    uint64_t mode = 0;
#if defined(__SSE2__)
    mode = __builtin_ia32_stmxcsr() & ~0x3fu; /* without the six flags of what has happened */
#elif defined(__aarch64__)
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
#endif
    return mode;
}
static inline void set_float_mode(uint64_t mode) {
#if defined(__SSE2__)
    __builtin_ia32_ldmxcsr((unsigned)mode);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" ::"r"(mode) : "memory");
#endif
}

#if defined(__x86_64__) || defined(_M_X64)
#define relax() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define relax() __asm__ volatile("yield")
#else
#define relax() ((void)0)
#endif

#define ALONE_ON_ITS_LINE __attribute__((aligned(128)))

enum {
    MOST_THREADS = 64,
    LOOKS = 32,            /* at a number that a thread waits for, between two at the clock */
    BARRIER_SPIN = 20000,  /* nanoseconds that a thread spins at a barrier before it gives way */
    JOB_SPIN = 100000,     /* nanoseconds that a member spins without a job before it sleeps */
    YIELDS = 200           /* how many times a thread gives way before it naps */
};

typedef void (*work_fn)(void *what, int member);

typedef struct {
    int64_t job ALONE_ON_ITS_LINE;        /* its number * MOST_THREADS + its threads - 1 */
    int64_t finished ALONE_ON_ITS_LINE;   /* members that have done this job */
    int64_t arrived ALONE_ON_ITS_LINE;    /* at barriers, in all, since the job began */
    work_fn work ALONE_ON_ITS_LINE;
    void *what;
    uint64_t float_mode;                  /* of the caller: bits must not depend on who computes */
    int busy;                             /* whether a thread has reserved the team */
    int members;                          /* started, the caller included */
    int64_t born;                         /* the job before the first that a new member heeds */
    int asleep[MOST_THREADS];
    PyThread_type_lock bed[MOST_THREADS]; /* held; whoever wakes a member releases it */
} Team;

static Team TEAM = {.members = 1};

#define atomic_read(p) __atomic_load_n(p, __ATOMIC_ACQUIRE)
#define atomic_write(p, v) __atomic_store_n(p, v, __ATOMIC_RELEASE)

/* Spin until *p is not `old` and is at least `least`; returns 0 after `limit` nanoseconds. */
static int spin(const int64_t *p, int64_t old, int64_t least, int64_t limit) {
    int64_t begin = 0;
    for (;;) {
        for (int look = 0; look < LOOKS; look++) {
            int64_t now = atomic_read(p);
            if (now != old && now >= least) return 1;
            relax();
        }
        if (!begin) begin = nanoseconds();
        else if (nanoseconds() - begin > limit) return 0;
    }
}

/* Wait until *p is at least `least`. On a loaded machine the other thread may not be running, and
   runs when this one gives way. */
static void wait_for(const int64_t *p, int64_t least) {
    if (spin(p, -1, least, BARRIER_SPIN)) return;
    for (int late = 0; atomic_read(p) < least; late++) {
        if (late < YIELDS) give_way();
        else nap();
    }
}

static int64_t wait_for_job(int member, int64_t seen) {
    while (!spin(&TEAM.job, seen, 0, JOB_SPIN)) {
        /* Lie down, then look once more: a job published in between is seen here, or its
           publisher sees that this member sleeps. */
        __atomic_store_n(&TEAM.asleep[member], 1, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&TEAM.job, __ATOMIC_SEQ_CST) == seen
            || !__atomic_exchange_n(&TEAM.asleep[member], 0, __ATOMIC_SEQ_CST))
            PyThread_acquire_lock(TEAM.bed[member], WAIT_LOCK);
    }
    return atomic_read(&TEAM.job);
}

static void member_main(void *argument) {
    int member = (int)(intptr_t)argument;
    int64_t job = atomic_read(&TEAM.born);
    for (;;) {
        job = wait_for_job(member, job);
        if (member <= job % MOST_THREADS) {
            if (float_mode() != TEAM.float_mode) set_float_mode(TEAM.float_mode);
            TEAM.work(TEAM.what, member);
            __atomic_add_fetch(&TEAM.finished, 1, __ATOMIC_ACQ_REL);
        }
    }
}

/* Start threads until there are this many, the caller included; returns how many there are. */
static int hire(int threads) {
    atomic_write(&TEAM.born, TEAM.job);
    while (TEAM.members < threads) {
        int member = TEAM.members;
        if (!TEAM.bed[member]) {
            if (!(TEAM.bed[member] = PyThread_allocate_lock())) break;
            PyThread_acquire_lock(TEAM.bed[member], WAIT_LOCK);
        }
        if (PyThread_start_new_thread(member_main, (void *)(intptr_t)member)
            == PYTHREAD_INVALID_THREAD_ID) break;
        TEAM.members++;
    }
    return TEAM.members < threads ? TEAM.members : threads;
}

/* Reserve the team for a job; returns 0 if another thread has it. */
static int take_team(void) {
    return !__atomic_exchange_n(&TEAM.busy, 1, __ATOMIC_ACQUIRE);
}
static void leave_team(void) { atomic_write(&TEAM.busy, 0); }

/* Run work(what, member) on members 0 ... threads - 1, all hired; returns when all are done. */
static void team_work(work_fn work, void *what, int threads) {
    TEAM.work = work;
    TEAM.what = what;
    TEAM.float_mode = float_mode();
    TEAM.finished = 0;
    TEAM.arrived = 0;
    int64_t number = TEAM.job / MOST_THREADS + 1;
    __atomic_store_n(&TEAM.job, number * MOST_THREADS + threads - 1, __ATOMIC_SEQ_CST);
    for (int member = 1; member < threads; member++)
        if (__atomic_exchange_n(&TEAM.asleep[member], 0, __ATOMIC_SEQ_CST))
            PyThread_release_lock(TEAM.bed[member]);
    work(what, 0);
    wait_for(&TEAM.finished, threads - 1);
}

/* Wait until all `threads` of the job have arrived; `passed` is what `arrived` was before. */
static void barrier(int threads, int64_t *passed) {
    *passed += threads;
    __atomic_add_fetch(&TEAM.arrived, 1, __ATOMIC_ACQ_REL);
    wait_for(&TEAM.arrived, *passed);
}

/* Set *p to the smaller of itself and value; 0 means that there is no value yet. */
static inline void keep_first(int64_t *p, int64_t value) {
    int64_t now = atomic_read(p);
    while ((now == 0 || value < now)
           && !__atomic_compare_exchange_n(p, &now, value, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
}
static inline int64_t read_first(const int64_t *p) { return atomic_read(p); }

/* Forget all members in a forked child: only the thread that forked lives on. */
static void forget_team(void) {
    for (int member = 0; member < MOST_THREADS; member++) TEAM.bed[member] = NULL;
    for (int member = 0; member < MOST_THREADS; member++) TEAM.asleep[member] = 0;
    TEAM.busy = 0;
    TEAM.members = 1;
}

#endif
