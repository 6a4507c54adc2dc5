/* A clock that only runs forward. */
#ifndef MINIDL_CLOCK_H
#define MINIDL_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline int64_t nanoseconds(void) {
    struct timespec t;
#ifdef _WIN32
    timespec_get(&t, TIME_UTC);
#else
    clock_gettime(CLOCK_MONOTONIC, &t);
#endif
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

#endif
