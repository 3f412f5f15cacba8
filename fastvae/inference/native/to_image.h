// The last layer: nearest x2 upsampling, replication padding, 3x3 convolution, tanh.
#pragma once

#include "convolution.h"

namespace fastvae {

// Computed as one 2x2 convolution of the padded low-resolution map: the window at (i, j) gives row 2i and column 2j,
// and the odd row and column before them.
struct ToImage {
    Map* in;
    int colours;
    float *packed, *bias;  // outputs: [row parity][column parity][colours]

    int outputs() const { return 4 * colours; }
    int blocks() const { return (outputs() + OUTPUTS - 1) / OUTPUTS; }
    int windows() const { return (in->height + 1) * (in->width + 1); }

    void set(Arena& arena, const float* weights, const float* biases) {
        Direct as_direct{in, nullptr, nullptr, 2, 2, 1, 0, 0, 1, outputs(), NONE, 0, {}};
        as_direct.add(arena, weights, biases, 0, 0, 0, 0);
        packed = as_direct.filters[0].packed, bias = as_direct.filters[0].bias;
    }

    // Computes windows [first, last), counted through rows and images, and writes images [B, colours, 2 height, 2
    // width].
    void run_windows(int first, int last, float* images) const {
        const int across = in->width + 1, run = 2 * in->channels;
        for (int block = 0; block < blocks(); block++)
            for (int window = first; window < last; window += PIXELS)
                with_count(std::min(PIXELS, last - window), [&](auto m_constant) {
                    constexpr int M = decltype(m_constant)::value;
                    const float* x[M];
                    Lanes acc[M][2];
                    for (int m = 0; m < M; m++) {
                        const int image = (window + m) / windows(), in_image = (window + m) % windows();
                        x[m] = in->at(image, in_image / across - 1, in_image % across - 1);
                        for (int half = 0; half < 2; half++) acc[m][half] = load(&bias[block * OUTPUTS + half * LANES]);
                    }
                    accumulate<M>(x, in->row(), 2, run, packed + size_t(block) * 2 * run * OUTPUTS, acc);
                    for (int m = 0; m < M; m++) put(window + m, block, acc[m], images);
                });
    }

  private:
    void put(int window, int block, const Lanes (&v)[2], float* images) const {
        float values[OUTPUTS];
        for (int half = 0; half < 2; half++) store(values + half * LANES, hyperbolic_tangent(v[half]));
        const int i = window % windows() / (in->width + 1), j = window % windows() % (in->width + 1);
        const size_t width = 2 * in->width, plane = 2 * in->height * width;
        float* image = images + window / windows() * colours * plane;
        for (int odd_row = 0; odd_row < 2; odd_row++)
            for (int odd_column = 0; odd_column < 2; odd_column++) {
                if (odd_row ? i == 0 : i == in->height) continue;
                if (odd_column ? j == 0 : j == in->width) continue;
                float* to = image + (2 * i - odd_row) * width + (2 * j - odd_column);
                const int first = (2 * odd_row + odd_column) * colours - block * OUTPUTS;
                for (int c = std::max(0, -first); c < std::min(colours, OUTPUTS - first); c++)
                    to[c * plane] = values[first + c];
            }
    }
};

}  // namespace fastvae
