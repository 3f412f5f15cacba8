// The transforms of minimal filtering along one axis, for SIDE inputs and as many products: 4 or 6 for tiles of 2 or 4
// outputs of a 3-tap filter, 3 for 2 outputs of a 2-tap filter.
//
// SIDE = 4 interpolates at 0, 1, -1 and infinity; SIDE = 6 at 0, a, -a, b, -b and infinity with a = 5/8 and b = 3/2: in
// float32 the error of a convolution of 128 channels is 0.45 times that with the usual 1 and 2, its largest error a
// quarter. Powers of both are exact in float32. fastvae/kernels/filter_transform.py has G for the same points.
// Source of the idea: Barabasz et al. 2020, arXiv:1803.10986; the points are the best of 18 pairs that were tried.
#pragma once

#include "lanes.h"

namespace fastvae {

constexpr float A = 0.625f, B = 1.5f, A2 = A * A, B2 = B * B;

// B^T d, in place.
template <int SIDE>
inline void to_points(Lanes (&d)[SIDE]) {
    if constexpr (SIDE == 3) {
        const Lanes d0 = d[0], d1 = d[1];
        d[0] = d1, d[1] = d0 - d1, d[2] = d[2] - d1;
    } else if constexpr (SIDE == 4) {
        const Lanes d1 = d[1];
        d[0] = d[2] - d[0], d[1] = d1 + d[2], d[2] = d[2] - d1, d[3] = d[3] - d1;
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
    if constexpr (SIDE == 3) {
        const Lanes m0 = m[0];
        m[0] = m0 + m[1], m[1] = m0 + m[2];
    } else if constexpr (SIDE == 4) {
        const Lanes sum = m[1] + m[2], difference = m[1] - m[2];
        m[0] = m[0] + sum, m[1] = difference + m[3];
    } else {
        const Lanes sum_a = m[1] + m[2], sum_b = m[3] + m[4];
        const Lanes difference_a = A * (m[1] - m[2]), difference_b = B * (m[3] - m[4]);
        m[0] = m[0] + sum_a + sum_b;
        m[1] = difference_a + difference_b;
        m[2] = A2 * sum_a + B2 * sum_b;
        m[3] = A2 * difference_a + B2 * difference_b + m[5];
    }
}

// A y, the adjoint of `from_points`; y is the first SIDE - 2, and what follows is overwritten.
template <int SIDE>
inline void spread_points(Lanes (&y)[SIDE]) {
    if constexpr (SIDE == 4) {
        const Lanes y0 = y[0], y1 = y[1];
        y[1] = y0 + y1, y[2] = y0 - y1, y[3] = y1;
    } else {
        const Lanes y0 = y[0], y1 = y[1], y2 = y[2], y3 = y[3];
        const Lanes even_a = y0 + A2 * y2, odd_a = A * (y1 + A2 * y3);
        const Lanes even_b = y0 + B2 * y2, odd_b = B * (y1 + B2 * y3);
        y[1] = even_a + odd_a, y[2] = even_a - odd_a;
        y[3] = even_b + odd_b, y[4] = even_b - odd_b, y[5] = y3;
    }
}

}  // namespace fastvae
