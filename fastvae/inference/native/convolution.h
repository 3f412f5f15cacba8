// Direct convolutions, computed as they are defined.
#pragma once

#include "arena.h"
#include "maps.h"
#include "products.h"

#include <algorithm>
#include <vector>

namespace fastvae {

// One set of filters of a direct convolution, with the positions of its first window and its first output.
struct Filters {
    Element* packed;  // [outputs / OUTPUTS][rows][run][OUTPUTS], zeros after the last output
    float* bias;      // [outputs / OUTPUTS * OUTPUTS]
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
        Filters f{arena.zeros<Element>(size_t(blocks()) * k * OUTPUTS), arena.zeros<float>(blocks() * OUTPUTS),
                  in_y, in_x, out_y, out_x};
        for (int o = 0; o < outputs; o++) {
            f.bias[o] = bias[o];
            for (int i = 0; i < k; i++)
                f.packed[size_t(o / OUTPUTS) * k * OUTPUTS + packed_at(i, o % OUTPUTS, OUTPUTS)] =
                    to_element(weights[size_t(o) * k + i]);
        }
        filters.push_back(f);
    }

    // Computes pixels [first, last) of a block of OUTPUTS channels; pixels are counted through rows and images.
    void run_block(const Filters& f, int block, int first, int last) const {
        const Element* packed = f.packed + size_t(block) * rows * run() * OUTPUTS;
        const int channel = block * OUTPUTS, count = std::min(OUTPUTS, outputs - channel);
        for (int pixel = first; pixel < last; pixel += PIXELS)
            with_count(std::min(PIXELS, last - pixel), [&](auto m_constant) {
                constexpr int M = decltype(m_constant)::value;
                const Element* x[M];
                int image[M], y[M], column[M];
                float sums[M * OUTPUTS];
                for (int m = 0; m < M; m++) {
                    const int p = pixel + m, in_image = p % (height * width);
                    image[m] = p / (height * width), y[m] = in_image / width, column[m] = in_image % width;
                    x[m] = in->at(image[m], y[m] * stride + f.in_y, column[m] * stride + f.in_x);
                }
                products<M, 2>(x, in->row(), rows, run(), packed, f.bias + channel, sums);
                for (int m = 0; m < M; m++) {
                    const int to_y = y[m] * step + f.out_y, to_x = column[m] * step + f.out_x;
                    Lanes v[2] = {load(sums + m * OUTPUTS), load(sums + m * OUTPUTS + LANES)};
                    if (residual) {
                        Lanes r[2];
                        get(*residual, image[m], to_y, to_x, channel, count, r);
                        v[0] += r[0], v[1] += r[1];
                    }
                    for (Lanes& half : v) half = activated(half, activation, slope);
                    put(*out, image[m], to_y, to_x, channel, count, v);
                }
            });
    }
};

}  // namespace fastvae
