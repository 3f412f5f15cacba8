// Float vectors of the processor's width, with the vector extension of GCC and Clang.
#pragma once

#include <cstdint>
#include <cstring>

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

typedef float Lanes __attribute__((vector_size(4 * LANES)));
typedef int32_t IntLanes __attribute__((vector_size(4 * LANES)));

inline Lanes load(const float* from) {
    Lanes v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

inline void store(float* to, Lanes v) { std::memcpy(to, &v, sizeof v); }

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
    Lanes power;
    std::memcpy(&power, &bits, sizeof power);
    return 1.0f - 2.0f / (e * power + 1.0f);
}

}  // namespace fastvae
