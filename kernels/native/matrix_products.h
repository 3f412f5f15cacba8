// The matrix products of Winograd's algorithm: for each point the transformed tiles times the transformed filters.
#pragma once

#include "products.h"

#include <algorithm>

namespace fastvae {

// Channels that are summed at a time. The sums of such parts round less than one sum over all: for 512 channels the
// error is half as large.
constexpr int CHANNELS_AT_A_TIME = 64;

// Transformed tiles in scratch memory, as [point][tile][channel], and their products, as [tile][point][OUTPUTS]. Each
// point and each tile has one more cache line: with a power of two all points of a tile would fall into the same few
// sets of the first-level cache.
template <int POINTS>
struct TilesAtHand {
    static constexpr size_t PRODUCT_STRIDE = size_t(POINTS) * OUTPUTS + LINE;

    int tiles, channels;

    size_t point_stride() const { return size_t(tiles) * channels + LINE; }
    size_t products_at() const { return POINTS * point_stride(); }
    size_t size() const { return products_at() + tiles * PRODUCT_STRIDE; }

    // The products of `count` tiles with one block of filters, [POINTS][channels][OUTPUTS].
    void multiply(int count, const float* filters, float* scratch) const {
        float* products = scratch + products_at();
        for (int point = 0; point < POINTS; point++) {
            const float* packed = filters + size_t(point) * channels * OUTPUTS;
            for (int t = 0; t < count; t += PIXELS)
                with_count(std::min(PIXELS, count - t), [&](auto m_constant) {
                    constexpr int M = decltype(m_constant)::value;
                    const float* from[M];
                    for (int m = 0; m < M; m++) from[m] = scratch + point * point_stride() + size_t(t + m) * channels;
                    float* to = products + t * PRODUCT_STRIDE + point * OUTPUTS;
                    for (int channel = 0; channel < channels; channel += CHANNELS_AT_A_TIME) {
                        const int some = std::min(CHANNELS_AT_A_TIME, channels - channel);
                        multiply_part<M>(from, some, packed + size_t(channel) * OUTPUTS, to, channel > 0);
                        for (int m = 0; m < M; m++) from[m] += some;
                    }
                });
        }
    }

  private:
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
};

}  // namespace fastvae
