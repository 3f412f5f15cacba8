// Numbers in memory: float, or bfloat16, the upper half of a float. All arithmetic is in float.
#pragma once

#include "lanes.h"

namespace fastvae {

struct BFloat16 {
    uint16_t bits;
};

typedef uint16_t ShortLanes __attribute__((vector_size(2 * LANES)));
typedef uint32_t UnsignedLanes __attribute__((vector_size(4 * LANES)));

inline Lanes load(const BFloat16* from) {
    ShortLanes upper;
    std::memcpy(&upper, from, sizeof upper);
    const UnsignedLanes bits = __builtin_convertvector(upper, UnsignedLanes) << 16;
    Lanes v;
    std::memcpy(&v, &bits, sizeof v);
    return v;
}

// Rounds to nearest, ties to even, as torch does.
inline void store(BFloat16* to, Lanes v) {
    UnsignedLanes bits;
    std::memcpy(&bits, &v, sizeof bits);
    const UnsignedLanes rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
    // The carry could turn a NaN into a number: a NaN gets the highest bit of its fraction instead.
    const UnsignedLanes upper = v == v ? rounded : (bits >> 16) | 0x40;
    const ShortLanes shorts = __builtin_convertvector(upper, ShortLanes);
    std::memcpy(to, &shorts, sizeof shorts);
}

// The first `count` of a vector.
template <class Number>
inline void put(Number* to, Lanes v, int count) {
    if (count == LANES) return store(to, v);
    Number all[LANES];
    store(all, v);
    std::memcpy(to, all, sizeof(Number) * count);
}

}  // namespace fastvae
