// 3x3 convolutions by Winograd's minimal filtering. A tile of T x T outputs takes (T + 2)^2 products of transformed
// inputs and filters: 4 per output for T = 2 and 2.25 for T = 4, instead of 9.
//     Y = A^T [(G g G^T) * (B^T d B)] A
// Source: Lavin and Gray 2016, arXiv:1509.09308, section 4. The products of all tiles are matrix products, one for each
// of the (T + 2)^2 places, with the channels as the inner dimension.
#pragma once

#include "convolution.h"

namespace fastvae {

// B^T v and A^T v along one axis, in place of v[0], v[stride], ...

template <int T>
inline void transform_inputs(Lanes* v, int stride) {
    auto at = [&](int i) -> Lanes& { return v[i * stride]; };
    if constexpr (T == 2) {
        const Lanes d0 = at(0), d1 = at(1), d2 = at(2), d3 = at(3);
        at(0) = d0 - d2, at(1) = d1 + d2, at(2) = d2 - d1, at(3) = d1 - d3;
    } else {
        const Lanes d0 = at(0), d1 = at(1), d2 = at(2), d3 = at(3), d4 = at(4), d5 = at(5);
        const Lanes even = d4 - 4.0f * d2, odd = d3 - 4.0f * d1, wide_even = d4 - d2, wide_odd = 2.0f * (d3 - d1);
        at(0) = 4.0f * d0 - 5.0f * d2 + d4;
        at(1) = even + odd, at(2) = even - odd;
        at(3) = wide_even + wide_odd, at(4) = wide_even - wide_odd;
        at(5) = 4.0f * d1 - 5.0f * d3 + d5;
    }
}

template <int T>
inline void transform_outputs(Lanes* v, int stride) {
    auto at = [&](int i) -> Lanes& { return v[i * stride]; };
    if constexpr (T == 2) {
        const Lanes m0 = at(0), m1 = at(1), m2 = at(2), m3 = at(3);
        at(0) = m0 + m1 + m2, at(1) = m1 - m2 - m3;
    } else {
        const Lanes m0 = at(0), m5 = at(5), sum = at(1) + at(2), difference = at(1) - at(2);
        const Lanes wide_sum = at(3) + at(4), wide_difference = at(3) - at(4);
        at(0) = m0 + sum + wide_sum;
        at(1) = difference + 2.0f * wide_difference;
        at(2) = sum + 4.0f * wide_sum;
        at(3) = difference + 8.0f * wide_difference + m5;
    }
}

template <int T>
struct Winograd {
    static constexpr int SIDE = T + 2, PLACES = SIDE * SIDE, LINE = 16;
    // Tiles at a time, whose data fits into the second-level cache.
    static constexpr int TILES = 4 * PIXELS;

    Map *in, *out, *residual;  // residual may be null
    Activation activation;
    float slope;
    float* packed;  // [outputs / OUTPUTS][PLACES][in channels][OUTPUTS]
    float* bias;

    int blocks() const { return out->channels / OUTPUTS; }
    int tiles_per_image() const { return out->height / T * (out->width / T); }
    // Distance from one place to the next, with one extra cache line: with a power of two all places of a tile would
    // fall into the same few sets of the first-level cache.
    size_t input_stride() const { return size_t(TILES) * in->channels + LINE; }
    static constexpr size_t PRODUCT_STRIDE = size_t(TILES) * OUTPUTS + LINE;
    size_t inputs_size() const { return PLACES * input_stride(); }
    static size_t products_size() { return PLACES * PRODUCT_STRIDE; }

    // filters: G g G^T as [PLACES][outputs][in channels].
    void set(Arena& arena, const float* filters, const float* biases) {
        const int inputs = in->channels, outputs = out->channels;
        packed = arena.floats(size_t(PLACES) * inputs * outputs), bias = arena.floats(outputs);
        std::copy(biases, biases + outputs, bias);
        for (int place = 0; place < PLACES; place++)
            for (int o = 0; o < outputs; o++)
                for (int i = 0; i < inputs; i++)
                    packed[((size_t(o / OUTPUTS) * PLACES + place) * inputs + i) * OUTPUTS + o % OUTPUTS] =
                        filters[(size_t(place) * outputs + o) * inputs + i];
    }

    // Computes B^T d B of up to TILES tiles and writes it to inputs [PLACES][tile][in channels].
    void transform(int first, int count, float* inputs) const {
        for (int t = 0; t < count; t++) {
            const Corner c = corner(first + t);
            const float* d = in->at(c.image, c.y - 1, c.x - 1);
            for (int channel = 0; channel < in->channels; channel += LANES) {
                Lanes v[PLACES];
                for (int y = 0; y < SIDE; y++)
                    for (int x = 0; x < SIDE; x++)
                        v[y * SIDE + x] = load(d + y * in->row() + size_t(x) * in->channels + channel);
                for (int x = 0; x < SIDE; x++) transform_inputs<T>(v + x, SIDE);
                for (int y = 0; y < SIDE; y++) transform_inputs<T>(v + y * SIDE, 1);
                float* where = inputs + size_t(t) * in->channels + channel;
                for (int place = 0; place < PLACES; place++) store(where + place * input_stride(), v[place]);
            }
        }
    }

    // Computes the outputs of one block of channels; `products` is scratch space [PLACES][tile][OUTPUTS].
    void finish(int first, int count, int block, const float* inputs, float* products) const {
        const int channels = in->channels;
        for (int place = 0; place < PLACES; place++) {
            const float* filters = packed + (size_t(block) * PLACES + place) * channels * OUTPUTS;
            for (int t = 0; t < count; t += PIXELS)
                with_count(std::min(PIXELS, count - t), [&](auto m_constant) {
                    constexpr int M = decltype(m_constant)::value;
                    const float* x[M];
                    Lanes acc[M][2] = {};
                    for (int m = 0; m < M; m++) x[m] = inputs + place * input_stride() + size_t(t + m) * channels;
                    accumulate<M>(x, 0, 1, channels, filters, acc);
                    for (int m = 0; m < M; m++) {
                        float* to = products + place * PRODUCT_STRIDE + size_t(t + m) * OUTPUTS;
                        store(to, acc[m][0]), store(to + LANES, acc[m][1]);
                    }
                });
        }
        for (int t = 0; t < count; t++) put_tile(corner(first + t), block, products + size_t(t) * OUTPUTS);
    }

  private:
    struct Corner {
        int image, y, x;
    };

    Corner corner(int tile) const {
        const int across = out->width / T, in_image = tile % tiles_per_image();
        return {tile / tiles_per_image(), in_image / across * T, in_image % across * T};
    }

    void put_tile(Corner c, int block, const float* products) const {
        Lanes v[2][PLACES];
        for (int half = 0; half < 2; half++) {
            for (int place = 0; place < PLACES; place++)
                v[half][place] = load(products + place * PRODUCT_STRIDE + half * LANES);
            for (int x = 0; x < SIDE; x++) transform_outputs<T>(v[half] + x, SIDE);
            for (int y = 0; y < T; y++) transform_outputs<T>(v[half] + y * SIDE, 1);
        }
        const Lanes b[2] = {load(&bias[block * OUTPUTS]), load(&bias[block * OUTPUTS + LANES])};
        for (int y = 0; y < T; y++)
            for (int x = 0; x < T; x++) {
                Lanes pixel[2] = {v[0][y * SIDE + x] + b[0], v[1][y * SIDE + x] + b[1]};
                if (residual) {
                    Lanes r[2];
                    get(*residual, c.image, c.y + y, c.x + x, block * OUTPUTS, OUTPUTS, r);
                    pixel[0] += r[0], pixel[1] += r[1];
                }
                for (Lanes& half : pixel) half = activated(half, activation, slope);
                put(*out, c.image, c.y + y, c.x + x, block * OUTPUTS, OUTPUTS, pixel);
            }
    }
};

}  // namespace fastvae
