// Direct convolutions, and the register tile that all layers compute.
#pragma once

#include "arena.h"
#include "maps.h"

#include <algorithm>
#include <functional>

namespace fastvae {

// acc[m] += sum over rows and k of x[m][row][k] * filters[row][k]. Columns and channels of one row of the window are
// contiguous in x and form one run. Never inlined: the caller's variables would push sums out of the registers, and a
// sum that goes through memory halves the speed. The order of a sum depends only on the layer, so that results do not
// depend on the rest of the batch or on the number of threads.
template <int M>
[[gnu::noinline]] void accumulate(const float* const* x, size_t row_stride, int rows, int run, const float* filters,
                                  Lanes (&acc)[M][2]) {
    Lanes sums[M][2];
    for (int m = 0; m < M; m++) sums[m][0] = acc[m][0], sums[m][1] = acc[m][1];
    for (int row = 0; row < rows; row++) {
        const float* from[M];
        for (int m = 0; m < M; m++) from[m] = x[m] + row * row_stride;
        for (int k = 0; k < run; k++) {
            const Lanes first = load(filters), second = load(filters + LANES);
            filters += OUTPUTS;
#pragma GCC unroll 12
            for (int m = 0; m < M; m++) {
                sums[m][0] += from[m][k] * first;
                sums[m][1] += from[m][k] * second;
            }
        }
    }
    for (int m = 0; m < M; m++) acc[m][0] = sums[m][0], acc[m][1] = sums[m][1];
}

// Calls body.template operator()<count>() for a count of 1 to PIXELS.
template <int M = PIXELS, class Body>
inline void with_count(int count, Body&& body) {
    if constexpr (M > 0) {
        if (count == M)
            body(std::integral_constant<int, M>{});
        else
            with_count<M - 1>(count, body);
    }
}

// One set of filters of a direct convolution, with the positions of its first window and its first output.
struct Filters {
    float* packed;  // [outputs / OUTPUTS][rows][run][OUTPUTS], zeros after the last output
    float* bias;    // [outputs / OUTPUTS * OUTPUTS]
    int in_y, in_x, out_y, out_x;
};

struct Direct {
    Map *in, *out, *residual;  // residual may be null
    int rows, columns, stride, height, width, step, outputs;
    Activation activation;
    float slope;
    std::vector<Filters> filters;

    int blocks() const { return (outputs + OUTPUTS - 1) / OUTPUTS; }
    int run() const { return columns * in->channels; }

    void add(Arena& arena, const float* weights, const float* bias, int in_y, int in_x, int out_y, int out_x) {
        const int k = rows * run();
        Filters f{arena.floats(size_t(blocks()) * k * OUTPUTS), arena.floats(blocks() * OUTPUTS), in_y, in_x, out_y,
                  out_x};
        for (int o = 0; o < outputs; o++) {
            f.bias[o] = bias[o];
            for (int i = 0; i < k; i++)
                f.packed[(size_t(o / OUTPUTS) * k + i) * OUTPUTS + o % OUTPUTS] = weights[size_t(o) * k + i];
        }
        filters.push_back(f);
    }

    // Computes pixels [first, last) of a block of OUTPUTS channels; pixels are counted through rows and images.
    void run_block(const Filters& f, int block, int first, int last) const {
        const float* packed = f.packed + size_t(block) * rows * run() * OUTPUTS;
        const Lanes bias[2] = {load(&f.bias[block * OUTPUTS]), load(&f.bias[block * OUTPUTS + LANES])};
        const int channel = block * OUTPUTS, count = std::min(OUTPUTS, outputs - channel);
        for (int pixel = first; pixel < last; pixel += PIXELS)
            with_count(std::min(PIXELS, last - pixel), [&](auto m_constant) {
                constexpr int M = decltype(m_constant)::value;
                const float* x[M];
                int image[M], y[M], column[M];
                Lanes acc[M][2];
                for (int m = 0; m < M; m++) {
                    const int p = pixel + m, in_image = p % (height * width);
                    image[m] = p / (height * width), y[m] = in_image / width, column[m] = in_image % width;
                    x[m] = in->at(image[m], y[m] * stride + f.in_y, column[m] * stride + f.in_x);
                    acc[m][0] = bias[0], acc[m][1] = bias[1];
                }
                accumulate<M>(x, in->row(), rows, run(), packed, acc);
                for (int m = 0; m < M; m++) {
                    const int to_y = y[m] * step + f.out_y, to_x = column[m] * step + f.out_x;
                    if (residual) {
                        Lanes r[2];
                        get(*residual, image[m], to_y, to_x, channel, count, r);
                        acc[m][0] += r[0], acc[m][1] += r[1];
                    }
                    for (Lanes& v : acc[m]) v = activated(v, activation, slope);
                    put(*out, image[m], to_y, to_x, channel, count, acc[m]);
                }
            });
    }
};

}  // namespace fastvae
