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
    Element* packed;  // [outputs / OUTPUTS][rows][padded run][OUTPUTS], zeros after the last output
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
    int padded_run() const { return (run() + PAIR - 1) / PAIR * PAIR; }
    size_t block_size() const { return size_t(rows) * padded_run() * OUTPUTS; }

    void add(Arena& arena, const float* weights, const float* bias, int in_y, int in_x, int out_y, int out_x) {
        Filters f{arena.zeros<Element>(blocks() * block_size()), arena.zeros<float>(blocks() * OUTPUTS),
                  in_y, in_x, out_y, out_x};
        for (int o = 0; o < outputs; o++) {
            f.bias[o] = bias[o];
            Element* block = f.packed + o / OUTPUTS * block_size();
            for (int row = 0; row < rows; row++)
                for (int i = 0; i < run(); i++)
                    block[packed_at(row * padded_run() + i, o % OUTPUTS, OUTPUTS)] =
                        to_element(weights[(size_t(o) * rows + row) * run() + i]);
        }
        filters.push_back(f);
    }

    // Computes pixels [first, last) of a block of OUTPUTS channels; pixels are counted through rows and images.
    void run_block(const Filters& f, int block, int first, int last) const {
        const Element* packed = f.packed + block * block_size();
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
