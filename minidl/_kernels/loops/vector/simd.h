/* The only C of minidl: what Cython cannot say about vectors.

   One file of loops is compiled once per instruction set and dtype. This header
   is what changes between those builds: `real` is the dtype, `vec` a register full of
   them. Both GCC and Clang give `vec` the operators + - * / (one instruction each, FMA
   included), so the loops in *.pxi stay plain Cython arithmetic. */
#ifndef MINIDL_SIMD_H
#define MINIDL_SIMD_H

#define INLINE static inline __attribute__((always_inline))
#define ALONE static __attribute__((noinline, unused))

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef __SSE2__
#include <immintrin.h>
#endif

#ifdef MINIDL_FLOAT64
typedef double real;
typedef int64_t integer;
enum { MANTISSA_BITS = 52, EXPONENT_BIAS = 1023 };
#define SMALLEST_NORMAL DBL_MIN
#define LARGEST DBL_MAX
#define EPSILON DBL_EPSILON
#else
typedef float real;
typedef int32_t integer;
enum { MANTISSA_BITS = 23, EXPONENT_BIAS = 127 };
#define SMALLEST_NORMAL FLT_MIN
#define LARGEST FLT_MAX
#define EPSILON FLT_EPSILON
#endif

/* The register tile of the matrix product (BLIS: the microtile) is MR rows of NR columns,
   ACCUMULATORS vectors in all: as many as leave room for a row of B and one element of A.
   Wide tiles load less per multiply-add; narrow ones suit 16 registers. */
#if defined(__AVX512F__)
enum { VEC_BYTES = 64, ACCUMULATORS = 24, TILE_VECTORS = 4 };
#elif defined(__AVX2__)
enum { VEC_BYTES = 32, ACCUMULATORS = 12, TILE_VECTORS = 2 };
#elif defined(__aarch64__)
enum { VEC_BYTES = 16, ACCUMULATORS = 24, TILE_VECTORS = 4 };
#else
enum { VEC_BYTES = 16, ACCUMULATORS = 12, TILE_VECTORS = 2 };
#endif
enum { LANES = VEC_BYTES / sizeof(real) };
enum { MR = ACCUMULATORS / TILE_VECTORS, NR = TILE_VECTORS * LANES };
/* Depth of a block: so that a panel of B, about KC x NR, stays in the L1 cache. */
enum { KC = NR * sizeof(real) < 256 ? 256 : 128 };

/* Instructions of x86 that compilers do not find behind plain arithmetic: X86(min)(a, b). */
#if defined(__AVX512F__) && defined(MINIDL_FLOAT64)
#define X86(name) _mm512_##name##_pd
#elif defined(__AVX512F__)
#define X86(name) _mm512_##name##_ps
#elif defined(__AVX2__) && defined(MINIDL_FLOAT64)
#define X86(name) _mm256_##name##_pd
#elif defined(__AVX2__)
#define X86(name) _mm256_##name##_ps
#elif defined(__SSE2__) && defined(MINIDL_FLOAT64)
#define X86(name) _mm_##name##_pd
#elif defined(__SSE2__)
#define X86(name) _mm_##name##_ps
#endif
#if defined(__AVX512F__)
#define guess_inverse X86(rcp14)
#define GUESSED_BITS 14
#elif defined(__AVX2__) && !defined(MINIDL_FLOAT64)
#define guess_inverse X86(rcp)
#define GUESSED_BITS 11
#endif

typedef real vec __attribute__((vector_size(VEC_BYTES)));
typedef integer ivec __attribute__((vector_size(VEC_BYTES)));
/* The same vector at any address: what load and store go through. */
typedef real loose_vec __attribute__((vector_size(VEC_BYTES), aligned(sizeof(real)), may_alias));

INLINE vec load(const real *p) { return *(const loose_vec *)p; }
INLINE void store(real *p, vec v) { *(loose_vec *)p = v; }

/* Ask for the cache line of p: to be written soon, or in the L2 cache, to be read later. */
INLINE void prefetch(const real *p) { __builtin_prefetch(p, 1); }
INLINE void prefetch_l2(const real *p) { __builtin_prefetch(p, 0, 2); }

/* The first n < LANES elements; the other lanes are `rest` (load) or left alone (store).
   Not inlined: standing alone, each compiles to one masked instruction where there is one. */
ALONE vec load_part(const real *p, ptrdiff_t n, real rest) {
    vec v;
    for (integer i = 0, end = (integer)n; i < LANES; i++) v[i] = i < end ? p[i] : rest;
    return v;
}
ALONE void store_part(real *p, vec v, ptrdiff_t n) {
    for (integer i = 0, end = (integer)n; i < LANES; i++) if (i < end) p[i] = v[i];
}

/* v in the first n < LANES lanes, 0 in the others. */
ALONE vec keep_part(vec v, ptrdiff_t n) {
    for (integer i = 0, end = (integer)n; i < LANES; i++) v[i] = i < end ? v[i] : 0;
    return v;
}

INLINE vec fill(real value) { return value - (vec){0}; }

/* a < b ? x : y in every lane; false where a or b is NaN. */
INLINE vec where_less(vec a, vec b, vec x, vec y) {
    ivec mask = a < b;
    return (vec)((mask & (ivec)x) | (~mask & (ivec)y));
}

/* x where v has the sign bit of a negative number, -0 too; else y. */
INLINE vec where_negative(vec v, vec x, vec y) {
    ivec mask = (ivec)v < 0;
    return (vec)((mask & (ivec)x) | (~mask & (ivec)y));
}

/* The smaller and the larger of two; b where either is NaN. */
INLINE vec minimum(vec a, vec b) {
#ifdef X86
    return X86(min)(a, b);
#else
    return where_less(a, b, a, b);
#endif
}
INLINE vec maximum(vec a, vec b) {
#ifdef X86
    return X86(max)(a, b);
#else
    return where_less(b, a, a, b);
#endif
}

INLINE vec absolute(vec v) { return (vec)((ivec)v & ~(ivec)fill((real)-0.0)); }
INLINE vec minus_absolute(vec v) { return (vec)((ivec)v | (ivec)fill((real)-0.0)); }

/* v >= 0 with the sign of another. */
INLINE vec with_sign(vec v, vec sign) {
    return (vec)((ivec)v | ((ivec)sign & (ivec)fill((real)-0.0)));
}

INLINE vec square_root(vec v) {
#ifdef X86
    return X86(sqrt)(v);
#endif
    for (int i = 0; i < LANES; i++) v[i] = sizeof(real) == 4 ? sqrtf(v[i]) : sqrt(v[i]);
    return v;
}

/* a / b, but for the last rounding or two, for b from SMALLEST_NORMAL to its inverse, or NaN. Where
   processors guess 1 / b, right to 14 or 11 bits, that and Newton's method take less time than a
   division: r becomes r (2 - b r), right to twice as many, and so in the end does the quotient. (A
   quotient that overflows may be NaN; if what is left of a is subnormal, and such numbers count as
   zero, the quotient is right to as many digits as r.) */
INLINE vec quotient(vec a, vec b) {
#ifdef GUESSED_BITS
    vec r = guess_inverse(b), q;
    if (2 * GUESSED_BITS < MANTISSA_BITS) r = r * (2 - b * r);
    q = a * r;
    return q + (a - b * q) * r;
#else
    return a / b;
#endif
}

/* Have this thread take subnormal numbers for zero, or as it did before: CPUs compute many times
   slower with them. What lies between the two must read and write memory: no compiler moves that
   across. Where we do not know how, all stays as it is. */
typedef uint64_t float_mode;
#define NOTHING_CROSSES() __asm__ volatile("" ::: "memory")
INLINE void set_float_mode(float_mode mode) {
    NOTHING_CROSSES();
#if defined(__SSE2__)
    __builtin_ia32_ldmxcsr((unsigned)mode);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" :: "r"(mode));
#endif
    NOTHING_CROSSES();
}
INLINE float_mode flush_subnormals(void) {
    float_mode mode = 0;
#if defined(__SSE2__)
    mode = __builtin_ia32_stmxcsr();
    set_float_mode(mode | 1 << 15 | 1 << 6);    /* results, operands */
#elif defined(__aarch64__)
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    set_float_mode(mode | 1 << 24);
#endif
    return mode;
}

/* Lane l of the first: l & step ? b[l - step] : a[l]; of the second: l & step ? b[l] : a[l + step].
   Both, for steps 1, 2, 4, ... over the rows of a square of vectors, transpose it. */
INLINE vec merge_low(vec a, vec b, const int step) {
#ifdef __clang__
    vec v = a;
    for (int l = 0; l < LANES; l++) v[l] = l & step ? b[l - step] : a[l];
    return v;
#else
    ivec from = {0};
    for (int l = 0; l < LANES; l++) from[l] = l & step ? LANES + l - step : l;
    return __builtin_shuffle(a, b, from);
#endif
}
INLINE vec merge_high(vec a, vec b, const int step) {
#ifdef __clang__
    vec v = b;
    for (int l = 0; l < LANES; l++) v[l] = l & step ? b[l] : a[l + step];
    return v;
#else
    ivec from = {0};
    for (int l = 0; l < LANES; l++) from[l] = l & step ? LANES + l : l + step;
    return __builtin_shuffle(a, b, from);
#endif
}

/* The sum and the largest of all lanes, in every lane: pairs, pairs of pairs, ... */
INLINE vec swap(vec v, const int step) {
    ivec from = {0};
    for (int l = 0; l < LANES; l++) from[l] = l ^ step;
#ifdef __clang__
    vec w = v;
    for (int l = 0; l < LANES; l++) w[l] = v[from[l]];
    return w;
#else
    return __builtin_shuffle(v, from);
#endif
}
INLINE vec spread_sum(vec v) {
    if (LANES > 8) v = v + swap(v, 8);
    if (LANES > 4) v = v + swap(v, 4);
    if (LANES > 2) v = v + swap(v, 2);
    return v + swap(v, 1);
}
INLINE vec spread_max(vec v) {
    if (LANES > 8) v = maximum(v, swap(v, 8));
    if (LANES > 4) v = maximum(v, swap(v, 4));
    if (LANES > 2) v = maximum(v, swap(v, 2));
    return maximum(v, swap(v, 1));
}
INLINE real first_lane(vec v) { return v[0]; }
INLINE real lane_sum(vec v) { return first_lane(spread_sum(v)); }

/* Added to a whole number, it leaves that number in the lowest bits. */
INLINE real magic(void) { return (real)3 * ((integer)1 << (MANTISSA_BITS - 1)); }

/* Round v to the nearest whole number k, for |k| < 2^(MANTISSA_BITS - 2). The lowest bits of
   `bits` are k + bias: what the functions below make of it depends on the bias alone. */
INLINE vec nearest(vec v, const int bias, vec *bits) {
    *bits = v + (magic() + bias);
    return *bits - (magic() + bias);
}

/* 2^k, if that is a normal number. bias = EXPONENT_BIAS, or one less for half of it, and so on;
   shifting drops the higher bits. */
INLINE vec power_of_two(vec bits) { return (vec)((ivec)bits << MANTISSA_BITS); }

/* (1 + v) 2^k, which may be subnormal; bias = 2 EXPONENT_BIAS, for two factors. */
INLINE vec one_plus_times_power_of_two(vec v, vec k, vec bits) {
#ifdef __AVX512F__
    return X86(scalef)(1 + v, k);
#else
    ivec half = (ivec)bits >> 1;
    vec first = power_of_two((vec)half), second = power_of_two((vec)((ivec)bits - half));
    return (v * first + first) * second;
#endif
}

/* v = 2^k m for whole k, m between sqrt(1/2) and sqrt(2), for normal v > 0. Returns m. */
INLINE vec split_exponent(vec v, vec *k) {
    ivec one = (ivec)fill(1), root = (ivec)fill((real)0.70710678118654752);
    ivec n = ((ivec)v - root + one) >> MANTISSA_BITS;
    *k = (vec)(n + (ivec)fill(magic())) - (magic() + EXPONENT_BIAS);
    return (vec)((ivec)v - (n << MANTISSA_BITS) + one);
}

/* Functions by table: 32 entries fill two registers, from which one instruction picks. `pick` goes
   by the lowest three bits of v's exponent and the highest two of its mantissa: each power of two
   has four entries. */
#if defined(__AVX512F__) && !defined(MINIDL_FLOAT64)
#include "tanh_table.h"
enum { TANH_BY_TABLE = 1 };
INLINE vec pick(const real *table, vec v) {
    __m512i entry = _mm512_srli_epi32((__m512i)v, MANTISSA_BITS - 2);
    return _mm512_permutex2var_ps(load(table), entry, load(table + LANES));
}
#else
enum { TANH_BY_TABLE = 0 };
static const real TANH_TABLE[7][32];
INLINE vec pick(const real *table, vec v) { return v; }
#endif

#endif
