/* The only C of minidl: what Cython cannot say about vectors.

   One file of loops is compiled once per instruction set and dtype. This header
   is what changes between those builds: `real` is the dtype, `vec` a register full of
   them. Both GCC and Clang give `vec` the operators + - * / (one instruction each, FMA
   included), so the loops in *.pxi stay plain Cython arithmetic. */
#ifndef MINIDL_SIMD_H
#define MINIDL_SIMD_H

#define INLINE static inline __attribute__((always_inline))
#define ALONE static __attribute__((noinline, unused))

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef MINIDL_FLOAT64
typedef double real;
typedef int64_t integer;
enum { MANTISSA_BITS = 52, EXPONENT_BIAS = 1023 };
#else
typedef float real;
typedef int32_t integer;
enum { MANTISSA_BITS = 23, EXPONENT_BIAS = 127 };
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
/* Depth of a block: so that a panel of B, KC x NR, stays in the L1 cache. */
enum { KC = NR * sizeof(real) < 256 ? 256 : 128 };

typedef real vec __attribute__((vector_size(VEC_BYTES)));
typedef integer ivec __attribute__((vector_size(VEC_BYTES)));
/* The same vector at any address: what load and store go through. */
typedef real loose_vec __attribute__((vector_size(VEC_BYTES), aligned(sizeof(real)), may_alias));

INLINE vec load(const real *p) { return *(const loose_vec *)p; }
INLINE void store(real *p, vec v) { *(loose_vec *)p = v; }

/* Ask for the cache line of p, to be written soon. */
INLINE void prefetch(const real *p) { __builtin_prefetch(p, 1); }

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

INLINE vec fill(real value) { return value - (vec){0}; }

INLINE real lane_sum(vec v) {
    real total = 0;
    for (int i = 0; i < LANES; i++) total += v[i];
    return total;
}

INLINE real lane_max(vec v) {
    real most = v[0];
    for (int i = 1; i < LANES; i++) most = v[i] > most ? v[i] : most;
    return most;
}

/* a < b ? x : y in every lane; false where a or b is NaN. */
INLINE vec where_less(vec a, vec b, vec x, vec y) {
    ivec mask = a < b;
    return (vec)((mask & (ivec)x) | (~mask & (ivec)y));
}

INLINE vec absolute(vec v) { return (vec)((ivec)v & ~(ivec)fill((real)-0.0)); }

INLINE vec copy_sign(vec magnitude, vec sign) {
    ivec bit = (ivec)fill((real)-0.0);
    return (vec)(((ivec)magnitude & ~bit) | ((ivec)sign & bit));
}

INLINE vec square_root(vec v) {
    for (int i = 0; i < LANES; i++) v[i] = sizeof(real) == 4 ? sqrtf(v[i]) : sqrt(v[i]);
    return v;
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

/* v * 2^k for whole k. Two factors, so that the result may be subnormal or overflow. */
INLINE vec times_power_of_two(vec v, vec k) {
    const real magic = (real)3 * ((integer)1 << (MANTISSA_BITS - 1));
    ivec n = (ivec)(k + magic) - (ivec)fill(magic);
    ivec half = n >> 1;
    vec first = (vec)((half + EXPONENT_BIAS) << MANTISSA_BITS);
    vec second = (vec)((n - half + EXPONENT_BIAS) << MANTISSA_BITS);
    return v * first * second;
}

/* Round to the nearest whole number, for |v| < 2^(MANTISSA_BITS - 1). */
INLINE vec nearest(vec v) {
    const real magic = (real)3 * ((integer)1 << (MANTISSA_BITS - 1));
    return (v + magic) - magic;
}

#endif
