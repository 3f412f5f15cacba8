// A 3x3 convolution of stride 1 and zero padding 1 by Winograd's algorithm, on maps as torch has them in channels_last:
// [image, row, column, channel] without a border. Forward it adds a bias and applies ReLU to the results,
//     y = max(conv(x, w) + b, 0),
// backward it applies the gradient of ReLU to its input on reading, and the filters are flipped and transposed:
//     dL/dx = conv([y > 0] dL/dy, w').
// A tile of T x T results is Y = A^T [(G g G^T) * (B^T d B)] A; see transforms.h. The products of all tiles are matrix
// products, one for each of the (T + 2)^2 places, with the channels as the inner dimension.
// Source: Lavin and Gray 2016, arXiv:1509.09308, section 4.
#pragma once

#include "products.h"
#include "transforms.h"

#include <algorithm>

namespace fastvae {

// What all tile sizes and number types share.
struct Shape {
    int images, height, width, inputs, outputs;  // inputs a multiple of LANES
};

template <int T, class Number>
struct Conv3x3 {
    static constexpr int SIDE = T + 2, PLACES = SIDE * SIDE, LINE = 16;
    // Channels that are summed at a time. The sums of such parts round less than one sum over all: for 512 channels the
    // error is half as large.
    static constexpr int CHANNELS = 64;

    Shape shape;
    const Number* x;       // [images, height, width, inputs]: the map, or a gradient
    const Number* y;       // null, or like x: the ReLU outputs, where x counts only where they are not zero
    const float* filters;  // G g G^T as [blocks][PLACES][inputs][OUTPUTS], zeros after the last output
    const float* bias;     // [blocks * OUTPUTS], then ReLU; or null
    Number* out;           // [images, height, width, outputs]
    int tiles_at_a_time;

    int down() const { return (shape.height + T - 1) / T; }
    int across() const { return (shape.width + T - 1) / T; }
    int tiles() const { return shape.images * down() * across(); }
    int blocks() const { return (shape.outputs + OUTPUTS - 1) / OUTPUTS; }
    // Distances from one place or tile to the next, with one extra cache line: with a power of two all places of a tile
    // would fall into the same few sets of the first-level cache.
    size_t input_stride() const { return size_t(tiles_at_a_time) * shape.inputs + LINE; }
    static constexpr size_t PRODUCT_STRIDE = size_t(PLACES) * OUTPUTS + LINE;
    size_t scratch_size() const { return PLACES * input_stride() + tiles_at_a_time * PRODUCT_STRIDE + shape.inputs; }

    // Computes `count` tiles from `first` on, of blocks [from_block, to_block) of channels.
    void run(int first, int count, int from_block, int to_block, float* scratch) const {
        float *inputs = scratch, *products = inputs + PLACES * input_stride();
        float* zeros = products + tiles_at_a_time * PRODUCT_STRIDE;
        std::fill(zeros, zeros + shape.inputs, 0.0f);
        for (int t = 0; t < count; t++) transform(corner(first + t), inputs + size_t(t) * shape.inputs, zeros);
        for (int block = from_block; block < to_block; block++) {
            multiply(count, block, inputs, products);
            for (int t = 0; t < count; t++) put_tile(corner(first + t), block, products + t * PRODUCT_STRIDE);
        }
    }

  private:
    struct Corner {
        int image, y, x;
    };

    Corner corner(int tile) const {
        const int in_image = tile % (down() * across());
        return {tile / (down() * across()), in_image / across() * T, in_image % across() * T};
    }

    size_t pixel(int image, int y, int x) const { return (size_t(image) * shape.height + y) * shape.width + x; }

    // Computes B^T d B of a tile and writes it to `to` [PLACES][channels].
    void transform(Corner c, float* to, const float* zeros) const {
        const Number *from[PLACES], *mask[PLACES];
        const auto* outside = reinterpret_cast<const Number*>(zeros);
        for (int i = 0; i < SIDE; i++)
            for (int j = 0; j < SIDE; j++) {
                const int row = c.y + i - 1, column = c.x + j - 1, place = i * SIDE + j;
                const bool inside = row >= 0 && row < shape.height && column >= 0 && column < shape.width;
                const size_t at = inside ? pixel(c.image, row, column) * shape.inputs : 0;
                from[place] = inside ? x + at : outside;
                mask[place] = inside && y ? y + at : outside;
            }
        y ? transform_from<true>(from, mask, to) : transform_from<false>(from, mask, to);
    }

    template <bool MASKED>
    void transform_from(const Number* const* from, const Number* const* mask, float* to) const {
        for (int channel = 0; channel < shape.inputs; channel += LANES) {
            Lanes v[SIDE][SIDE];
#pragma GCC unroll 6
            for (int column = 0; column < SIDE; column++) {
                Lanes d[SIDE];
#pragma GCC unroll 6
                for (int row = 0; row < SIDE; row++) {
                    const int place = row * SIDE + column;
                    d[row] = load(from[place] + channel);
                    // A NaN in y is no zero, so that the gradient of NaN is passed on, as by the reference.
                    if constexpr (MASKED) d[row] = load(mask[place] + channel) <= 0.0f ? Lanes{} : d[row];
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
                    store(to + (row * SIDE + column) * input_stride() + channel, v[row][column]);
            }
        }
    }

    // Sums x[m][k] * filters[k] over some channels k, for the m-th of M tiles; `more` adds to what is there. Never
    // inlined: the caller's variables would push sums out of the registers.
    template <int M>
    [[gnu::noinline]] static void multiply_part(const float* const (&x)[M], int channels, const float* filters,
                                                float* to, bool more) {
        Lanes sums[M][2] = {};
        for (int k = 0; k < channels; k++, filters += OUTPUTS) {
            const Lanes first = load(filters), second = load(filters + LANES);
#pragma GCC unroll 12
            for (int m = 0; m < M; m++) {
                sums[m][0] += x[m][k] * first;
                sums[m][1] += x[m][k] * second;
            }
        }
#pragma GCC unroll 12
        for (int m = 0; m < M; m++, to += PRODUCT_STRIDE) {
            store(to, more ? load(to) + sums[m][0] : sums[m][0]);
            store(to + LANES, more ? load(to + LANES) + sums[m][1] : sums[m][1]);
        }
    }

    // The products of all tiles and channels, for one block of outputs.
    void multiply(int count, int block, const float* inputs, float* products) const {
        for (int place = 0; place < PLACES; place++) {
            const float* packed = filters + (size_t(block) * PLACES + place) * shape.inputs * OUTPUTS;
            for (int t = 0; t < count; t += PIXELS)
                with_count(std::min(PIXELS, count - t), [&](auto m_constant) {
                    constexpr int M = decltype(m_constant)::value;
                    const float* from[M];
                    for (int m = 0; m < M; m++)
                        from[m] = inputs + place * input_stride() + size_t(t + m) * shape.inputs;
                    float* to = products + t * PRODUCT_STRIDE + place * OUTPUTS;
                    for (int channel = 0; channel < shape.inputs; channel += CHANNELS) {
                        const int channels = std::min(CHANNELS, shape.inputs - channel);
                        multiply_part<M>(from, channels, packed + size_t(channel) * OUTPUTS, to, channel > 0);
                        for (int m = 0; m < M; m++) from[m] += channels;
                    }
                });
        }
    }

    void put_tile(Corner c, int block, const float* products) const {
        const int rows = std::min(T, shape.height - c.y), columns = std::min(T, shape.width - c.x);
        for (int half = 0; half < 2; half++) {
            const int channel = block * OUTPUTS + half * LANES, channels = std::min(LANES, shape.outputs - channel);
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
                Number* to = out + pixel(c.image, c.y + row, c.x) * shape.outputs + channel;
                for (int column = 0; column < columns; column++, to += shape.outputs) {
                    Lanes result = v[row][column];
                    if (bias) result = maximum(Lanes{}, result + load(bias + channel));
                    store_some(to, result, channels);
                }
            }
        }
    }
};

}  // namespace fastvae
