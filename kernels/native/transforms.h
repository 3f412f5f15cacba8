// The transforms of minimal filtering along one axis, for SIDE inputs and as many products: 4 or 6 for tiles of 2 or 4
// outputs of a 3-tap filter, 3 or 5 for 2 or 4 outputs of a 2-tap filter.
//
// SIDE = 4 interpolates at 0, 1, -1 and infinity; SIDE = 6 at 0, a, -a, b, -b and infinity with a = 5/8 and b = 3/2: in
// float32 the error of a convolution of 128 channels is 0.45 times that with the usual 1 and 2, its largest error a
// quarter. SIDE = 5 interpolates at a, -a, b, -b and infinity with a = 1/2 and b = 5/4: its error is half that with 0,
// 1, -1 and 2. Powers of all are exact in float32. fastvae/kernels/filter_transform.py has G for the same points.
// Source of the idea: Barabasz et al. 2020, arXiv:1803.10986; the points are the best of 18 pairs that were tried.
#pragma once

#include "lanes.h"

namespace fastvae {

template <int SIDE>
struct Points {
    static constexpr float A = SIDE == 5 ? 0.5f : 0.625f, B = SIDE == 5 ? 1.25f : 1.5f, A2 = A * A, B2 = B * B;
};

// B^T d, in place.
template <int SIDE>
inline void to_points(Lanes (&d)[SIDE]) {
    constexpr float A = Points<SIDE>::A, B = Points<SIDE>::B, A2 = Points<SIDE>::A2, B2 = Points<SIDE>::B2;
    if constexpr (SIDE == 3) {
        const Lanes d0 = d[0], d1 = d[1];
        d[0] = d1, d[1] = d0 - d1, d[2] = d[2] - d1;
    } else if constexpr (SIDE == 4) {
        const Lanes d1 = d[1];
        d[0] = d[2] - d[0], d[1] = d1 + d[2], d[2] = d[2] - d1, d[3] = d[3] - d1;
    } else if constexpr (SIDE == 5) {
        const Lanes even_a = A * (d[2] - B2 * d[0]), odd_a = d[3] - B2 * d[1];
        const Lanes even_b = B * (d[2] - A2 * d[0]), odd_b = d[3] - A2 * d[1];
        d[4] = d[4] - (A2 + B2) * d[2] + A2 * B2 * d[0];
        d[0] = odd_a + even_a, d[1] = odd_a - even_a, d[2] = odd_b + even_b, d[3] = odd_b - even_b;
    } else {
        const Lanes even_a = d[4] - B2 * d[2], odd_a = d[3] - B2 * d[1];
        const Lanes even_b = d[4] - A2 * d[2], odd_b = d[3] - A2 * d[1];
        d[0] = A2 * B2 * d[0] - (A2 + B2) * d[2] + d[4];
        d[5] = A2 * B2 * d[1] - (A2 + B2) * d[3] + d[5];
        d[1] = even_a + A * odd_a, d[2] = even_a - A * odd_a;
        d[3] = even_b + B * odd_b, d[4] = even_b - B * odd_b;
    }
}

// A^T m, in the first of m.
template <int SIDE>
inline void from_points(Lanes (&m)[SIDE]) {
    constexpr float A = Points<SIDE>::A, B = Points<SIDE>::B, A2 = Points<SIDE>::A2, B2 = Points<SIDE>::B2;
    if constexpr (SIDE == 3) {
        const Lanes m0 = m[0];
        m[0] = m0 + m[1], m[1] = m0 + m[2];
    } else if constexpr (SIDE == 4) {
        const Lanes sum = m[1] + m[2], difference = m[1] - m[2];
        m[0] = m[0] + sum, m[1] = difference + m[3];
    } else if constexpr (SIDE == 5) {
        const Lanes sum_a = m[0] + m[1], sum_b = m[2] + m[3];
        const Lanes difference_a = A * (m[0] - m[1]), difference_b = B * (m[2] - m[3]);
        m[0] = sum_a + sum_b;
        m[1] = difference_a + difference_b;
        m[2] = A2 * sum_a + B2 * sum_b;
        m[3] = A2 * difference_a + B2 * difference_b + m[4];
    } else {
        const Lanes sum_a = m[1] + m[2], sum_b = m[3] + m[4];
        const Lanes difference_a = A * (m[1] - m[2]), difference_b = B * (m[3] - m[4]);
        m[0] = m[0] + sum_a + sum_b;
        m[1] = difference_a + difference_b;
        m[2] = A2 * sum_a + B2 * sum_b;
        m[3] = A2 * difference_a + B2 * difference_b + m[5];
    }
}

// A y, the adjoint of `from_points`: y are the first, as many as a tile has outputs, and what follows is overwritten.
template <int SIDE>
inline void spread_points(Lanes (&y)[SIDE]) {
    static_assert(SIDE >= 4);
    constexpr float A = Points<SIDE>::A, B = Points<SIDE>::B, A2 = Points<SIDE>::A2, B2 = Points<SIDE>::B2;
    if constexpr (SIDE == 4) {
        const Lanes y0 = y[0], y1 = y[1];
        y[1] = y0 + y1, y[2] = y0 - y1, y[3] = y1;
    } else {
        const Lanes y0 = y[0], y1 = y[1], y2 = y[2], y3 = y[3];
        const Lanes even_a = y0 + A2 * y2, odd_a = A * (y1 + A2 * y3);
        const Lanes even_b = y0 + B2 * y2, odd_b = B * (y1 + B2 * y3);
        constexpr int FIRST = SIDE - 5;  // of the points other than 0
        y[FIRST] = even_a + odd_a, y[FIRST + 1] = even_a - odd_a;
        y[FIRST + 2] = even_b + odd_b, y[FIRST + 3] = even_b - odd_b, y[FIRST + 4] = y3;
    }
}

// B v, the adjoint of `to_points`.
template <int SIDE>
inline void gather_points(Lanes (&v)[SIDE]) {
    static_assert(SIDE >= 4);
    constexpr float A = Points<SIDE>::A, B = Points<SIDE>::B, A2 = Points<SIDE>::A2, B2 = Points<SIDE>::B2;
    if constexpr (SIDE == 4) {
        const Lanes v0 = v[0], v1 = v[1], v2 = v[2];
        v[0] = -v0, v[1] = v1 - v2 - v[3], v[2] = v0 + v1 + v2;
    } else {
        constexpr int FIRST = SIDE - 5;  // of the points other than 0
        const Lanes sum_a = v[FIRST] + v[FIRST + 1], sum_b = v[FIRST + 2] + v[FIRST + 3], last = v[FIRST + 4];
        const Lanes difference_a = A * (v[FIRST] - v[FIRST + 1]), difference_b = B * (v[FIRST + 2] - v[FIRST + 3]);
        const Lanes zero = v[0];
        v[FIRST] = A2 * B2 * last - B2 * difference_a - A2 * difference_b;
        v[FIRST + 1] = -B2 * sum_a - A2 * sum_b;
        v[FIRST + 2] = difference_a + difference_b - (A2 + B2) * last;
        v[FIRST + 3] = sum_a + sum_b;
        if constexpr (SIDE == 6) v[0] = A2 * B2 * zero, v[2] -= (A2 + B2) * zero, v[4] += zero;
    }
}

}  // namespace fastvae
