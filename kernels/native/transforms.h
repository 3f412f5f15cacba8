// The transforms of Winograd's algorithm along one axis, for tiles of T outputs of a 3-tap filter.
//
// T = 2 interpolates at 0, 1, -1 and infinity; T = 4 at 0, a, -a, b, -b and infinity with a = 5/8 and b = 3/2: the
// error of a convolution of 128 channels in float32 is 0.45 times that with the usual 1 and 2, its largest error a
// quarter. Powers of both are exact in float32. fastvae/kernels/conv_relu_native.py has G for the same points.
// Source of the idea: Barabasz et al. 2020, arXiv:1803.10986; the points are the best of 18 pairs that were tried.
#pragma once

#include "lanes.h"

namespace fastvae {

constexpr float A = 0.625f, B = 1.5f, A2 = A * A, B2 = B * B;

// B^T d, in place.
template <int T>
inline void to_points(Lanes (&d)[T + 2]) {
    if constexpr (T == 2) {
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

// A^T m, in the first T of m.
template <int T>
inline void from_points(Lanes (&m)[T + 2]) {
    if constexpr (T == 2) {
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

}  // namespace fastvae
