// A convolution by Winograd's algorithm, on maps as torch has them in channels_last: [image, row, column, channel]
// without a border; see geometry.h. With a bias ReLU follows,
//     y = max(conv(x, w) + b, 0),
// and with a mask the input is a gradient behind ReLU, whose gradient is applied on reading: at stride 1 the gradient
// of the input is a convolution, too, with the filters flipped and transposed,
//     dL/dx = conv([y > 0] dL/dy, w').
// A tile of T x T results is Y = A^T [(G g G^T) * (B^T d B)] A; see transforms.h. The products of all tiles are matrix
// products, one for each point, with the channels as the inner dimension.
// Source: Lavin and Gray 2016, arXiv:1509.09308, section 4.
#pragma once

#include "geometry.h"
#include "matrix_products.h"
#include "transforms.h"

#include <algorithm>

namespace fastvae {

template <int T, int STRIDE, Border BORDER, class Number>
struct Convolution {
    using G = Geometry<T, STRIDE, BORDER>;
    static constexpr int SIDE = G::SIDE, POINTS = G::POINTS;
    using Hand = TilesAtHand<POINTS>;

    G geometry;
    int inputs, outputs;   // channels; inputs a multiple of LANES
    const Number* x;       // [images, STRIDE height, STRIDE width, inputs]: the map, or a gradient
    const Number* y;       // null, or like x: the ReLU outputs, where x counts only where they are not zero
    const float* filters;  // G g G^T as [blocks][POINTS][PHASES * inputs][OUTPUTS], zeros after the last output
    const float* bias;     // [blocks * OUTPUTS], then ReLU; or null
    Number* out;           // [images, height, width, outputs]
    int tiles_at_a_time;

    int blocks() const { return (outputs + OUTPUTS - 1) / OUTPUTS; }
    Hand hand() const { return {tiles_at_a_time, G::PHASES * inputs}; }
    size_t scratch_size() const { return hand().size() + inputs; }

    // Computes `count` tiles from `first` on, of blocks [from_block, to_block) of channels.
    void run(int first, int count, int from_block, int to_block, float* scratch) const {
        const Hand hand = this->hand();
        float* zeros = scratch + hand.size();
        std::fill(zeros, zeros + inputs, 0.0f);
        for (int t = 0; t < count; t++)
            for (int phase = 0; phase < G::PHASES; phase++) {
                float* to = scratch + size_t(t) * hand.channels + phase * inputs;
                transform(geometry.corner(first + t), phase, to, zeros);
            }
        for (int block = from_block; block < to_block; block++) {
            hand.multiply(count, filters + size_t(block) * POINTS * hand.channels * OUTPUTS, scratch);
            for (int t = 0; t < count; t++)
                put_tile(geometry.corner(first + t), block, scratch + hand.products_at() + t * Hand::PRODUCT_STRIDE);
        }
    }

  private:
    // Computes B^T d B of a tile and writes it to `to` [POINTS][channels].
    void transform(typename G::Corner c, int phase, float* to, const float* zeros) const {
        const Number *from[POINTS], *mask[POINTS];
        const auto* outside = reinterpret_cast<const Number*>(zeros);
        for (int i = 0; i < SIDE; i++)
            for (int j = 0; j < SIDE; j++) {
                const int point = i * SIDE + j;
                const ptrdiff_t pixel = geometry.input(c, phase, i, j);
                from[point] = pixel >= 0 ? x + pixel * inputs : outside;
                mask[point] = pixel >= 0 && y ? y + pixel * inputs : outside;
            }
        y ? transform_from<true>(from, mask, to) : transform_from<false>(from, mask, to);
    }

    template <bool MASKED>
    void transform_from(const Number* const* from, const Number* const* mask, float* to) const {
        const size_t stride = hand().point_stride();
        for (int channel = 0; channel < inputs; channel += LANES) {
            Lanes v[SIDE][SIDE];
#pragma GCC unroll 6
            for (int column = 0; column < SIDE; column++) {
                Lanes d[SIDE];
#pragma GCC unroll 6
                for (int row = 0; row < SIDE; row++) {
                    const int point = row * SIDE + column;
                    d[row] = load(from[point] + channel);
                    // A NaN in y is no zero, so that the gradient of NaN is passed on, as by the reference.
                    if constexpr (MASKED) d[row] = load(mask[point] + channel) <= 0.0f ? Lanes{} : d[row];
                }
                to_points<SIDE>(d);
#pragma GCC unroll 6
                for (int row = 0; row < SIDE; row++) v[row][column] = d[row];
            }
#pragma GCC unroll 6
            for (int row = 0; row < SIDE; row++) {
                to_points<SIDE>(v[row]);
#pragma GCC unroll 6
                for (int column = 0; column < SIDE; column++)
                    store(to + (row * SIDE + column) * stride + channel, v[row][column]);
            }
        }
    }

    void put_tile(typename G::Corner c, int block, const float* products) const {
        const int rows = std::min(T, geometry.height - c.row), columns = std::min(T, geometry.width - c.column);
        for (int half = 0; half < 2; half++) {
            const int channel = block * OUTPUTS + half * LANES, channels = std::min(LANES, outputs - channel);
            if (channels <= 0) return;
            Lanes v[T][SIDE];
#pragma GCC unroll 6
            for (int column = 0; column < SIDE; column++) {
                Lanes m[SIDE];
#pragma GCC unroll 6
                for (int row = 0; row < SIDE; row++)
                    m[row] = load(products + (row * SIDE + column) * OUTPUTS + half * LANES);
                from_points<SIDE>(m);
#pragma GCC unroll 4
                for (int row = 0; row < T; row++) v[row][column] = m[row];
            }
#pragma GCC unroll 4
            for (int row = 0; row < T; row++) from_points<SIDE>(v[row]);
            for (int row = 0; row < rows; row++) {
                Number* to = out + geometry.output(c, row, 0) * outputs + channel;
                for (int column = 0; column < columns; column++, to += outputs) {
                    Lanes result = v[row][column];
                    if (bias) result = maximum(Lanes{}, result + load(bias + channel));
                    store_some(to, result, channels);
                }
            }
        }
    }
};

}  // namespace fastvae
