// Float vectors of the processor's width, with the vector extension of GCC and Clang, and the elements of filters and
// maps: float32, or bfloat16 if FASTVAE_BFLOAT16 is defined. Sums are always float32.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#ifndef FASTVAE_LANES
#if defined(__AVX512F__)
#define FASTVAE_LANES 16
#elif defined(__AVX__)
#define FASTVAE_LANES 8
#else
#define FASTVAE_LANES 4
#endif
#endif

namespace fastvae {

constexpr int LANES = FASTVAE_LANES;
// A tile of PIXELS x OUTPUTS sums is kept in registers, two vectors per pixel. Of 16 registers (AVX2) 12 hold the tile,
// two the filters and one a pixel; with 32 registers the tile has twice the pixels.
constexpr int OUTPUTS = 2 * LANES;
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int PIXELS = 12;
#else
constexpr int PIXELS = 6;
#endif

constexpr int LINE = 16;  // floats in a cache line

typedef float Lanes __attribute__((vector_size(4 * LANES)));
typedef int32_t IntLanes __attribute__((vector_size(4 * LANES)));

inline Lanes load(const float* from) {
    Lanes v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

inline void store(float* to, Lanes v) { std::memcpy(to, &v, sizeof v); }

inline Lanes as_floats(IntLanes bits) {
    Lanes v;
    std::memcpy(&v, &bits, sizeof v);
    return v;
}

// The upper half of a float.
struct BFloat16 {
    uint16_t bits;
};

typedef uint16_t HalfLanes __attribute__((vector_size(2 * LANES)));

inline Lanes load(const BFloat16* from) {
    HalfLanes v;
    std::memcpy(&v, from, sizeof v);
    return as_floats(__builtin_convertvector(v, IntLanes) << 16);
}

// Rounds to nearest, ties to even; NaN stays NaN.
inline void store(BFloat16* to, Lanes v) {
#if defined(__AVX512BF16__) && FASTVAE_LANES == 16
    const __m256bh rounded = _mm512_cvtneps_pbh((__m512)v);
    std::memcpy(to, &rounded, sizeof rounded);
#else
    IntLanes bits;
    std::memcpy(&bits, &v, sizeof bits);
    const IntLanes rounded = bits + 0x7FFF + ((bits >> 16) & 1);
    // The carry could turn a NaN into a number: a NaN gets the highest bit of its fraction instead.
    const IntLanes kept = (v == v) ? rounded : (bits | 0x400000);
    const HalfLanes half = __builtin_convertvector((kept >> 16) & 0xFFFF, HalfLanes);
    std::memcpy(to, &half, sizeof half);
#endif
}

// Stores the first `count` of a vector.
template <class Number>
inline void store_some(Number* to, Lanes v, int count) {
    if (count == LANES) return store(to, v);
    Number all[LANES];
    store(all, v);
    std::memcpy(to, all, sizeof(Number) * count);
}

inline float to_float(float value) { return value; }

inline float to_float(BFloat16 value) {
    const uint32_t bits = uint32_t(value.bits) << 16;
    float result;
    std::memcpy(&result, &bits, sizeof result);
    return result;
}

// So many elements of an input are multiplied with as many filters in one step, and lie together in both.
#if defined(FASTVAE_BFLOAT16)

typedef BFloat16 Element;
constexpr int PAIR = 2;

inline Element to_element(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    bits = value == value ? bits + 0x7FFF + ((bits >> 16) & 1) : bits | 0x400000;
    return {uint16_t(bits >> 16)};
}

// Two elements in each lane, the first one in its lower half.
inline IntLanes load_filters(const Element* from) {
    IntLanes v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

inline IntLanes broadcast(const Element* from) {
    int32_t pair;
    std::memcpy(&pair, from, sizeof pair);
    return IntLanes{} + pair;
}

inline void multiply_add(Lanes& sum, IntLanes x, IntLanes filters) {
#if defined(__AVX512BF16__) && FASTVAE_LANES == 16
    sum = (Lanes)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)filters);
#else
    const int32_t upper = int32_t(0xFFFF0000);
    sum += as_floats(x << 16) * as_floats(filters << 16);
    sum += as_floats(x & upper) * as_floats(filters & upper);
#endif
}

#else

typedef float Element;
constexpr int PAIR = 1;

inline Element to_element(float value) { return value; }
inline Lanes load_filters(const float* from) { return load(from); }
inline float broadcast(const float* from) { return *from; }
inline void multiply_add(Lanes& sum, float x, Lanes filters) { sum += x * filters; }

#endif

// Return the second argument if either is NaN: callers pass their value second, so that NaN stays NaN.
inline Lanes maximum(Lanes a, Lanes b) { return a > b ? a : b; }
inline Lanes minimum(Lanes a, Lanes b) { return a < b ? a : b; }

// tanh x = 1 - 2 / (e^{2x} + 1), with an error below 2e-7: 2x = n ln 2 + r, e^r by its series, 2^n by its bits.
inline Lanes hyperbolic_tangent(Lanes x) {
    const Lanes y = 2.0f * minimum(Lanes{} + 10.0f, maximum(Lanes{} - 10.0f, x));
    const Lanes shifted = y * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the fraction is rounded away
    const Lanes n = shifted - 12582912.0f;
    const Lanes r = y - n * 0.693145752f - n * 1.42860677e-6f;
    Lanes e = r * (1.0f / 5040) + 1.0f / 720;
    e = e * r + 1.0f / 120;
    e = e * r + 1.0f / 24;
    e = e * r + 1.0f / 6;
    e = e * r + 0.5f;
    e = e * r + 1.0f;
    e = e * r + 1.0f;
    IntLanes bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    bits = (bits - 0x4B400000 + 127) << 23;
    return 1.0f - 2.0f / (e * as_floats(bits) + 1.0f);
}

}  // namespace fastvae
