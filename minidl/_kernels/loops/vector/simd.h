/* The C part of the loops: what Cython cannot say about vectors.

   All loops are compiled once per instruction set and dtype. This header defines what differs
   between those builds: `real` is the dtype, and `vec` is a register full of them. GCC and Clang
   give `vec` the operators + - * / (one instruction each, FMA included), so that the loops in
   *.pxi are plain Cython arithmetic. */
#ifndef MINIDL_SIMD_H
#define MINIDL_SIMD_H

#define INLINE static inline __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline, unused))

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
typedef uint64_t whole;
enum { MANTISSA_BITS = 52, EXPONENT_BIAS = 1023 };
#define SMALLEST_NORMAL DBL_MIN
#define LARGEST DBL_MAX
#define EPSILON DBL_EPSILON
#else
typedef float real;
typedef int32_t integer;
typedef uint32_t whole;
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
/* Depth of a block of A and B: a panel of B, about KC x NR, must stay in the L1 cache. */
enum { KC = NR * sizeof(real) < 256 ? 256 : 128 };

/* X86(min)(a, b) is an instruction of x86 that compilers do not make of plain arithmetic. */
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
#define estimate_inverse X86(rcp14)
#define ESTIMATE_BITS 14
#elif defined(__AVX2__) && !defined(MINIDL_FLOAT64)
#define estimate_inverse X86(rcp)
#define ESTIMATE_BITS 11
#endif

typedef real vec __attribute__((vector_size(VEC_BYTES)));
typedef integer ivec __attribute__((vector_size(VEC_BYTES)));
typedef whole uvec __attribute__((vector_size(VEC_BYTES)));
/* The same vector at any address, for load and store. */
typedef real loose_vec __attribute__((vector_size(VEC_BYTES), aligned(sizeof(real)), may_alias));

INLINE vec load(const real *p) { return *(const loose_vec *)p; }
INLINE void store(real *p, vec v) { *(loose_vec *)p = v; }

/* Fetch the cache line of p ahead: to be written soon; into the L2 cache, to be read later. */
INLINE void prefetch(const real *p) { __builtin_prefetch(p, 1); }
INLINE void prefetch_l2(const real *p) { __builtin_prefetch(p, 0, 2); }

/* Load or store the first n < LANES elements; the other lanes become `rest`, or stay in memory.
   Not inlined: in a function of its own, each compiles to one masked instruction where there is
   one. */
NOINLINE vec load_part(const real *p, ptrdiff_t n, real rest) {
    vec v;
    for (integer i = 0, end = (integer)n; i < LANES; i++) v[i] = i < end ? p[i] : rest;
    return v;
}
NOINLINE void store_part(real *p, vec v, ptrdiff_t n) {
    for (integer i = 0, end = (integer)n; i < LANES; i++) if (i < end) p[i] = v[i];
}

/* Load or store the first n lanes, if there are so many. The other lanes become any numbers; of
   memory beyond them, `room` elements from p on, or more than n, may be read, or overwritten by any
   numbers. So no function is called where there is a whole vector's room. With masks, nothing else
   is touched; and half a vector, if that is enough, crosses fewer cache lines. */
#if defined(__AVX512F__) && defined(MINIDL_FLOAT64)
typedef __mmask8 lanes_mask;
#define HALF(name) _mm256_##name##_pd
#define AS_HALF _mm512_castpd512_pd256
#define AS_WHOLE _mm512_zextpd256_pd512
#elif defined(__AVX512F__)
typedef __mmask16 lanes_mask;
#define HALF(name) _mm256_##name##_ps
#define AS_HALF _mm512_castps512_ps256
#define AS_WHOLE _mm512_zextps256_ps512
#endif
#ifdef HALF
INLINE lanes_mask lanes_below(ptrdiff_t n) { return n < LANES ? (1u << n) - 1 : (lanes_mask)-1; }
#endif
INLINE vec load_first(const real *p, ptrdiff_t n, ptrdiff_t room) {
#ifdef HALF
    if (n <= LANES / 2) return AS_WHOLE(HALF(maskz_loadu)(lanes_below(n), p));
    return X86(maskz_loadu)(lanes_below(n), p);
#else
    return room >= LANES ? load(p) : load_part(p, room, 0);
#endif
}
INLINE void store_first(real *p, vec v, ptrdiff_t n, ptrdiff_t room) {
#ifdef HALF
    if (n <= LANES / 2) HALF(mask_storeu)(p, lanes_below(n), AS_HALF(v));
    else X86(mask_storeu)(p, lanes_below(n), v);
#else
    if (room >= LANES) store(p, v);
    else store_part(p, v, n < room ? n : room);
#endif
}

/* Keep the first n < LANES lanes of v; the others become 0. */
NOINLINE vec keep_part(vec v, ptrdiff_t n) {
    for (integer i = 0, end = (integer)n; i < LANES; i++) v[i] = i < end ? v[i] : 0;
    return v;
}

/* The same by a mask that was made before: that of the first n lanes. */
INLINE ivec first_lanes(ptrdiff_t n) {
    ivec lane = {0};
    for (int l = 0; l < LANES; l++) lane[l] = l;
    return lane < ((integer)n - (ivec){0});
}
INLINE vec masked(vec v, ivec mask) { return (vec)((ivec)v & mask); }

/* Fill all lanes with a value. */
INLINE vec fill(real value) { return value - (vec){0}; }

/* a < b ? x : y in every lane; y where a or b is NaN. */
INLINE vec where_less(vec a, vec b, vec x, vec y) {
    ivec mask = a < b;
    return (vec)((mask & (ivec)x) | (~mask & (ivec)y));
}

/* x where v has the sign bit set, which it is for -0, too; else y. */
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

/* The larger of two; NaN where either is. */
INLINE vec maximum_or_nan(vec a, vec b) {
    ivec ordered = a == a;
    return (vec)((ordered & (ivec)maximum(a, b)) | (~ordered & (ivec)a));
}

INLINE vec absolute(vec v) { return (vec)((ivec)v & ~(ivec)fill((real)-0.0)); }
INLINE vec minus_absolute(vec v) { return (vec)((ivec)v | (ivec)fill((real)-0.0)); }

/* v, which is >= 0, with the sign of another vector. */
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

/* a / b up to the last rounding or two, for b from SMALLEST_NORMAL to its inverse, or NaN.

   Where processors have an instruction that estimates 1 / b to 14 or 11 bits, that and Newton's
   method take less time than a division. A step of the method replaces r by r (2 - b r), which has
   twice as many correct bits; the last step improves the quotient itself. (A quotient that
   overflows may be NaN. If the remainder of a is subnormal, and such numbers count as zero, the
   quotient has only the correct digits of r.) */
INLINE vec quotient(vec a, vec b) {
#ifdef ESTIMATE_BITS
    vec r = estimate_inverse(b), q;
    if (2 * ESTIMATE_BITS < MANTISSA_BITS) r = r * (2 - b * r);
    q = a * r;
    return q + (a - b * q) * r;
#else
    return a / b;
#endif
}

/* flush_subnormals has this thread treat subnormal numbers as zero, as CPUs compute many times
   slower with them; set_float_mode, given what that returned, ends it. Code in between must read
   and write memory: no compiler moves that across. On other processors neither does anything. */
typedef uint64_t float_mode;
#define COMPILER_BARRIER() __asm__ volatile("" ::: "memory")
INLINE void set_float_mode(float_mode mode) {
    COMPILER_BARRIER();
#if defined(__SSE2__)
    __builtin_ia32_ldmxcsr((unsigned)mode);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" :: "r"(mode));
#endif
    COMPILER_BARRIER();
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

/* Lane l of merge_low: l & step ? b[l - step] : a[l]; of merge_high: l & step ? b[l] : a[l + step].
   Applied to the rows of a square of vectors, for steps 1, 2, 4, ..., they transpose it. */
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

/* Spread the sum, or the maximum, of all lanes over every lane: of pairs, pairs of pairs, ... */
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

/* A number that, added to a whole number, leaves that one in the lowest bits of the sum. */
INLINE real magic(void) { return (real)3 * ((integer)1 << (MANTISSA_BITS - 1)); }

/* Round v to the nearest whole number k, for |k| < 2^(MANTISSA_BITS - 2). The lowest bits of
   `bits` become k + bias; the functions below say which bias they need. */
INLINE vec nearest(vec v, const int bias, vec *bits) {
    *bits = v + (magic() + bias);
    return *bits - (magic() + bias);
}

/* 2^k, if that is a normal number, for bias = EXPONENT_BIAS; for a bias less by one, half of it.
   Shifting drops the higher bits. */
INLINE vec power_of_two(vec bits) { return (vec)((ivec)bits << MANTISSA_BITS); }

/* (1 + v) 2^k, which may be subnormal, for bias = 2 EXPONENT_BIAS: 2^k is made of two factors. */
INLINE vec one_plus_times_power_of_two(vec v, vec k, vec bits) {
#ifdef __AVX512F__
    return X86(scalef)(1 + v, k);
#else
    ivec half = (ivec)bits >> 1;
    vec first = power_of_two((vec)half), second = power_of_two((vec)((ivec)bits - half));
    return (v * first + first) * second;
#endif
}

/* Split v = 2^k m, normal and > 0, into a whole k and an m between sqrt(1/2) and sqrt(2). Returns
   m. Of other v, such as NaN, both are any numbers: unsigned sums may wrap around. */
INLINE vec split_exponent(vec v, vec *k) {
    uvec one = (uvec)fill(1), root = (uvec)fill((real)0.70710678118654752);
    uvec n = ((uvec)v - root + one) >> MANTISSA_BITS;
    *k = (vec)(n + (uvec)fill(magic())) - (magic() + EXPONENT_BIAS);
    return (vec)((uvec)v - (n << MANTISSA_BITS) + one);
}

/* Functions by table: 32 entries fill two registers, and one instruction picks from both. `pick`
   takes the entry whose number is the lowest three bits of v's exponent and the highest two of its
   mantissa: each power of two has four entries. */
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
