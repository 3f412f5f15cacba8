// The gradient of a convolution's filters by Winograd's algorithm; see geometry.h. With the convolution's tiles
// Y = A^T [(G g G^T) * (B^T d B)] A it is
//     dL/dg = G^T S G,   S = sum over all tiles of [(A dL/dY A^T) * (B^T d B)]
// where * is, for each point, the outer product of the output's and the input's channels. So S is one matrix product
// for each point, with the tiles as the inner dimension. What is left, G^T S G, is small.
#pragma once

#include "geometry.h"
#include "gradient_tile.h"
#include "products.h"
#include "transforms.h"

#include <algorithm>

namespace fastvae {

template <int T, int STRIDE, Border BORDER>
struct WeightGradient {
    using G = Geometry<T, STRIDE, BORDER>;
    static constexpr int SIDE = G::SIDE, POINTS = G::POINTS;

    G geometry;
    int inputs, outputs;  // channels, multiples of OUTPUTS
    const float* x;       // [images, STRIDE height, STRIDE width, inputs]
    const float* grad;    // [images, height, width, outputs]
    float* sums;          // S, [POINTS, outputs, PHASES * inputs]
    int tiles_at_a_time;

    int channels() const { return G::PHASES * inputs; }
    // Of the transformed inputs, [POINTS][channels / OUTPUTS][tiles][OUTPUTS], and gradients, [POINTS][tiles][outputs]
    // with one more cache line for each tile: at powers of two all tiles would fall into the same few sets of the
    // cache.
    size_t point_of_inputs() const { return size_t(tiles_at_a_time) * channels(); }
    size_t row_of_gradients() const { return outputs + LINE; }
    size_t point_of_gradients() const { return tiles_at_a_time * row_of_gradients(); }
    size_t scratch_size() const { return POINTS * (point_of_inputs() + point_of_gradients()); }

    // Transforms the `t`-th tile of those at hand, which is `tile` of all.
    void transform(int tile, int t, float* scratch) const {
        const auto c = geometry.corner(tile);
        for (int k = 0; k < channels(); k += LANES) {
            Lanes v[SIDE][SIDE];
            for (int i = 0; i < SIDE; i++)
                for (int j = 0; j < SIDE; j++) {
                    const ptrdiff_t pixel = geometry.input(c, k / inputs, i, j);
                    v[i][j] = pixel >= 0 ? load(x + pixel * inputs + k % inputs) : Lanes{};
                }
            both_axes<SIDE>(v, [](auto& d) { to_points<SIDE>(d); });
            float* to = scratch + (size_t(k / OUTPUTS) * tiles_at_a_time + t) * OUTPUTS + k % OUTPUTS;
            put_points(v, to, point_of_inputs());
        }
        float* gradients = scratch + POINTS * point_of_inputs();
        transform_gradient(geometry, c, grad, outputs, gradients + t * row_of_gradients(), point_of_gradients());
    }

    // Adds the outer products of so many tiles at one point.
    void multiply(int count, int point, bool more, const float* scratch) const {
        const float* left = scratch + POINTS * point_of_inputs() + point * point_of_gradients();
        const float* right = scratch + point * point_of_inputs();
        for (int block = 0; block < channels() / OUTPUTS; block++, right += size_t(tiles_at_a_time) * OUTPUTS)
            for (int output = 0; output < outputs; output += PIXELS)
                with_count(std::min(PIXELS, outputs - output), [&](auto m_constant) {
                    constexpr int M = decltype(m_constant)::value;
                    float* to = sums + (size_t(point) * outputs + output) * channels() + block * OUTPUTS;
                    outer_products<M>(count, left + output, row_of_gradients(), right, to, channels(), more);
                });
    }

  private:
    // Never inlined: the caller's variables would push sums out of the registers.
    template <int M>
    [[gnu::noinline]] static void outer_products(int count, const float* left, size_t row, const float* right,
                                                 float* to, size_t to_row, bool more) {
        Lanes sums[M][2] = {};
        for (int t = 0; t < count; t++, left += row, right += OUTPUTS) {
            const Lanes first = load(right), second = load(right + LANES);
#pragma GCC unroll 12
            for (int m = 0; m < M; m++) {
                sums[m][0] += left[m] * first;
                sums[m][1] += left[m] * second;
            }
        }
#pragma GCC unroll 12
        for (int m = 0; m < M; m++, to += to_row) {
            store(to, more ? load(to) + sums[m][0] : sums[m][0]);
            store(to + LANES, more ? load(to + LANES) + sums[m][1] : sums[m][1]);
        }
    }
};

}  // namespace fastvae
