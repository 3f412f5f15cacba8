// The tile of a gradient that both gradients of a convolution begin with.
#pragma once

#include "geometry.h"
#include "transforms.h"

namespace fastvae {

// Computes A dY A^T of the tile at a corner and writes it to `to` [point][outputs]; grad is
// [images, height, width, outputs].
template <int T, int STRIDE, Border BORDER>
void transform_gradient(const Geometry<T, STRIDE, BORDER>& geometry, typename Geometry<T, STRIDE, BORDER>::Corner c,
                        const float* grad, int outputs, float* to, size_t point_stride) {
    constexpr int SIDE = Geometry<T, STRIDE, BORDER>::SIDE;
    for (int channel = 0; channel < outputs; channel += LANES) {
        Lanes v[SIDE][SIDE] = {};
        for (int i = 0; i < T; i++)
            for (int j = 0; j < T; j++)
                if (const ptrdiff_t pixel = geometry.output(c, i, j); pixel >= 0)
                    v[i][j] = load(grad + pixel * outputs + channel);
        both_axes<SIDE>(v, [](auto& y) { spread_points<SIDE>(y); });
        put_points(v, to + channel, point_stride);
    }
}

}  // namespace fastvae
