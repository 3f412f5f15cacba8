// The gradient of a 3x3 convolution's filters, for stride 1 and zero padding 1, by Winograd's algorithm. With the
// convolution's tiles Y = A^T [(G g G^T) * (B^T d B)] A, see conv3x3.h, it is
//     dL/dg = G^T S G,   S = sum over all tiles of [(A dL/dY A^T) * (B^T d B)]
// where * is, for each of the (T + 2)^2 places, the outer product of the output's and the input's channels. So S is one
// matrix product for each place, with the tiles as the inner dimension. What is left, G^T S G, is small.
#pragma once

#include "products.h"
#include "transforms.h"

#include <algorithm>

namespace fastvae {

template <int T>
struct WeightGradient {
    static constexpr int SIDE = T + 2, PLACES = SIDE * SIDE, LINE = 16;

    int images, height, width, inputs, outputs;  // both multiples of OUTPUTS
    const float* x;                              // [images, height, width, inputs]
    const float* grad;                           // [images, height, width, outputs]
    float* sums;                                 // S, [PLACES, outputs, inputs]
    int tiles_at_a_time;

    int down() const { return (height + T - 1) / T; }
    int across() const { return (width + T - 1) / T; }
    int tiles() const { return images * down() * across(); }
    // Of the transformed inputs, [PLACES][inputs / OUTPUTS][tiles][OUTPUTS], and gradients, [PLACES][tiles][outputs] with
    // one more cache line for each tile: at powers of two all tiles would fall into the same few sets of the cache.
    size_t place_of_inputs() const { return size_t(tiles_at_a_time) * inputs; }
    size_t row_of_gradients() const { return outputs + LINE; }
    size_t place_of_gradients() const { return tiles_at_a_time * row_of_gradients(); }
    size_t scratch_size() const { return PLACES * (place_of_inputs() + place_of_gradients()); }

    // Transforms the `t`-th tile of those at hand, which is `tile` of all.
    void transform(int tile, int t, float* scratch) const {
        const int in_image = tile % (down() * across()), image = tile / (down() * across());
        const int top = in_image / across() * T, left = in_image % across() * T;
        const auto pixel = [&](int row, int column) { return (size_t(image) * height + row) * width + column; };
        const auto inside = [&](int row, int column) {
            return row >= 0 && row < height && column >= 0 && column < width;
        };
        for (int channel = 0; channel < inputs; channel += LANES) {
            Lanes v[SIDE][SIDE];
            for (int i = 0; i < SIDE; i++)
                for (int j = 0; j < SIDE; j++) {
                    const int row = top + i - 1, column = left + j - 1;
                    v[j][i] = inside(row, column) ? load(x + pixel(row, column) * inputs + channel) : Lanes{};
                }
            both_axes(v, [](auto& d) { to_points<SIDE>(d); });
            float* to = scratch + (size_t(channel / OUTPUTS) * tiles_at_a_time + t) * OUTPUTS + channel % OUTPUTS;
            put(v, to, place_of_inputs());
        }
        float* gradients = scratch + PLACES * place_of_inputs();
        for (int channel = 0; channel < outputs; channel += LANES) {
            Lanes v[SIDE][SIDE] = {};
            for (int i = 0; i < T; i++)
                for (int j = 0; j < T; j++)
                    if (inside(top + i, left + j)) v[j][i] = load(grad + pixel(top + i, left + j) * outputs + channel);
            both_axes(v, [](auto& y) { spread_points<SIDE>(y); });
            put(v, gradients + t * row_of_gradients() + channel, place_of_gradients());
        }
    }

    // Adds the outer products of so many tiles at one place.
    void multiply(int count, int place, bool more, const float* scratch) const {
        const float* left = scratch + PLACES * place_of_inputs() + place * place_of_gradients();
        const float* right = scratch + place * place_of_inputs();
        for (int block = 0; block < inputs / OUTPUTS; block++, right += size_t(tiles_at_a_time) * OUTPUTS)
            for (int output = 0; output < outputs; output += PIXELS)
                with_count(std::min(PIXELS, outputs - output), [&](auto m_constant) {
                    constexpr int M = decltype(m_constant)::value;
                    float* to = sums + (size_t(place) * outputs + output) * inputs + block * OUTPUTS;
                    outer_products<M>(count, left + output, row_of_gradients(), right, to, inputs, more);
                });
    }

  private:
    // v has columns first, so that both passes run along its second index.
    template <class Pass>
    static void both_axes(Lanes (&v)[SIDE][SIDE], Pass pass) {
#pragma GCC unroll 6
        for (int column = 0; column < SIDE; column++) pass(v[column]);
#pragma GCC unroll 6
        for (int row = 0; row < SIDE; row++) {
            Lanes d[SIDE];
#pragma GCC unroll 6
            for (int column = 0; column < SIDE; column++) d[column] = v[column][row];
            pass(d);
#pragma GCC unroll 6
            for (int column = 0; column < SIDE; column++) v[column][row] = d[column];
        }
    }

    static void put(const Lanes (&v)[SIDE][SIDE], float* to, size_t place_stride) {
        for (int row = 0; row < SIDE; row++)
            for (int column = 0; column < SIDE; column++) store(to + (row * SIDE + column) * place_stride, v[column][row]);
    }

    // Never inlined: the caller's variables would push sums out of the registers.
    template <int M>
    [[gnu::noinline]] static void outer_products(int count, const float* left, size_t row, const float* right, float* to,
                                                 size_t to_row, bool more) {
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
