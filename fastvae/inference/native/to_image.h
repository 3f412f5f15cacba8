// The last layer: nearest x2 upsampling, replication padding, 3x3 convolution, tanh.
#pragma once

#include "convolution.h"

namespace fastvae {

// Computed as one 2x2 convolution of the padded low-resolution map: the window at (i, j) gives row 2i and column 2j,
// and the odd row and column before them.
struct ToImage {
    Map* in;
    int colours;
    Element* packed;  // [outputs / width][2][run][width]
    float* bias;      // outputs: [row parity][column parity][colours]

    int outputs() const { return 4 * colours; }
    // Outputs of a block: one vector if that is enough for all.
    int width() const { return outputs() <= LANES ? LANES : OUTPUTS; }
    int blocks() const { return (outputs() + width() - 1) / width(); }
    int windows() const { return (in->height + 1) * (in->width + 1); }

    void set(Arena& arena, const float* weights, const float* biases) {
        const int k = 4 * in->channels;
        packed = arena.zeros<Element>(size_t(blocks()) * k * width()), bias = arena.zeros<float>(blocks() * width());
        std::copy(biases, biases + outputs(), bias);
        for (int o = 0; o < outputs(); o++)
            for (int i = 0; i < k; i++)
                packed[size_t(o / width()) * k * width() + packed_at(i, o % width(), width())] =
                    to_element(weights[size_t(o) * k + i]);
    }

    // Computes windows [first, last), counted through rows and images, and writes images [B, colours, 2 height, 2
    // width].
    void run_windows(int first, int last, float* images) const {
        width() == LANES ? run_blocks<1>(first, last, images) : run_blocks<2>(first, last, images);
    }

  private:
    template <int V>
    void run_blocks(int first, int last, float* images) const {
        const int across = in->width + 1, run = 2 * in->channels;
        for (int block = 0; block < blocks(); block++)
            for (int window = first; window < last; window += PIXELS)
                with_count(std::min(PIXELS, last - window), [&](auto m_constant) {
                    constexpr int M = decltype(m_constant)::value, WIDTH = V * LANES;
                    const Element* x[M];
                    float sums[M * WIDTH];
                    for (int m = 0; m < M; m++) {
                        const int image = (window + m) / windows(), in_image = (window + m) % windows();
                        x[m] = in->at(image, in_image / across - 1, in_image % across - 1);
                    }
                    products<M, V>(x, in->row(), 2, run, packed + size_t(block) * 2 * run * WIDTH,
                                   bias + block * WIDTH, sums);
                    for (int m = 0; m < M; m++) put<V>(window + m, block, sums + m * WIDTH, images);
                });
    }

    template <int V>
    void put(int window, int block, const float* sums, float* images) const {
        float values[V * LANES];
        for (int v = 0; v < V; v++) store(values + v * LANES, hyperbolic_tangent(load(sums + v * LANES)));
        const int i = window % windows() / (in->width + 1), j = window % windows() % (in->width + 1);
        const size_t width = 2 * in->width, plane = 2 * in->height * width;
        float* image = images + window / windows() * colours * plane;
        for (int odd_row = 0; odd_row < 2; odd_row++)
            for (int odd_column = 0; odd_column < 2; odd_column++) {
                if (odd_row ? i == 0 : i == in->height) continue;
                if (odd_column ? j == 0 : j == in->width) continue;
                float* to = image + (2 * i - odd_row) * width + (2 * j - odd_column);
                const int first = (2 * odd_row + odd_column) * colours - block * V * LANES;
                for (int c = std::max(0, -first); c < std::min(colours, V * LANES - first); c++)
                    to[c * plane] = values[first + c];
            }
    }
};

}  // namespace fastvae
