// Convolutions: the tile that all of them compute, the direct form, and Winograd's for 3x3.
#pragma once

#include "maps.h"

#include <algorithm>
#include <functional>

namespace fastvae {

// acc[m] += sum over rows and k of x[m][row][k] * filters[row][k]: what is contiguous in x, columns and channels of one
// row of the window, is one run.
#ifndef PF
#define PF 16
#endif
template <int M>
inline void accumulate(const float* const* x, size_t row_stride, int rows, int run, const float* filters,
                       Lanes (&acc)[M][2]) {
    for (int row = 0; row < rows; row++) {
        const float* from[M];
        for (int m = 0; m < M; m++) from[m] = x[m] + row * row_stride;
        for (int k = 0; k < run; k++) {
            const Lanes first = load(filters), second = load(filters + LANES);
            __builtin_prefetch(filters + PF * OUTPUTS);
            filters += OUTPUTS;
#pragma GCC unroll 12
            for (int m = 0; m < M; m++) {
                acc[m][0] += from[m][k] * first;
                acc[m][1] += from[m][k] * second;
            }
        }
    }
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

// One set of filters of a direct convolution: from where in the input's window, to where in the output.
struct Filters {
    std::vector<float> packed;  // [outputs / OUTPUTS][rows][run][OUTPUTS], zeros behind the last output
    std::vector<float> bias;    // [outputs / OUTPUTS * OUTPUTS]
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

    void add(const float* weights, const float* bias, int in_y, int in_x, int out_y, int out_x) {
        const int k = rows * run();
        Filters f{std::vector<float>(size_t(blocks()) * k * OUTPUTS), std::vector<float>(blocks() * OUTPUTS),
                  in_y, in_x, out_y, out_x};
        for (int o = 0; o < outputs; o++) {
            f.bias[o] = bias[o];
            for (int i = 0; i < k; i++)
                f.packed[(size_t(o / OUTPUTS) * k + i) * OUTPUTS + o % OUTPUTS] = weights[size_t(o) * k + i];
        }
        filters.push_back(std::move(f));
    }

    // Outputs [first, last) of a block of OUTPUTS channels; pixels are counted through rows and images.
    void run_block(const Filters& f, int block, int first, int last) const {
        const float* packed = f.packed.data() + size_t(block) * rows * run() * OUTPUTS;
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

// Winograd's F(2x2, 3x3): a 2x2 tile of outputs is A^T [(G g G^T) * (B^T d B)] A of a 4x4 tile d of inputs, 16
// multiplications for 36. Source: Lavin and Gray 2016, arXiv:1509.09308, section 4.1.
struct Winograd {
    Map *in, *out, *residual;
    Activation activation;
    float slope;
    std::vector<float> packed;  // [outputs / OUTPUTS][16][in channels][OUTPUTS]
    std::vector<float> bias;
    // Tiles at a time: their transforms stay in the second-level cache.
    static constexpr int TILES = 4 * PIXELS;

    int blocks() const { return out->channels / OUTPUTS; }
    int tiles_per_image() const { return out->height / 2 * (out->width / 2); }
    size_t scratch() const { return size_t(16) * TILES * (in->channels + OUTPUTS); }

    // filters: [16][outputs][in channels], already G g G^T.
    void set(const float* filters, const float* biases) {
        const int inputs = in->channels, outputs = out->channels;
        packed.resize(size_t(16) * inputs * outputs);
        bias.assign(biases, biases + outputs);
        for (int xi = 0; xi < 16; xi++)
            for (int o = 0; o < outputs; o++)
                for (int i = 0; i < inputs; i++)
                    packed[((size_t(o / OUTPUTS) * 16 + xi) * inputs + i) * OUTPUTS + o % OUTPUTS] =
                        filters[(size_t(xi) * outputs + o) * inputs + i];
    }

    void run_tiles(int first, int last, int first_block, int last_block, float* scratch) const {
        const int inputs = in->channels, count = last - first, across = out->width / 2;
        float* v = scratch;                                  // [16][TILES][inputs]
        float* m = scratch + size_t(16) * TILES * inputs;    // [16][TILES][OUTPUTS]
        for (int t = 0; t < count; t++) {
            const int tile = (first + t) % tiles_per_image(), image = (first + t) / tiles_per_image();
            transform_input(in->at(image, tile / across * 2 - 1, tile % across * 2 - 1), v + size_t(t) * inputs);
        }
        for (int block = first_block; block < last_block; block++) {
            for (int xi = 0; xi < 16; xi++) {
                const float* filters = packed.data() + (size_t(block) * 16 + xi) * inputs * OUTPUTS;
                for (int t = 0; t < count; t += PIXELS)
                    with_count(std::min(PIXELS, count - t), [&](auto m_constant) {
                        constexpr int M = decltype(m_constant)::value;
                        const float* x[M];
                        Lanes acc[M][2] = {};
                        for (int i = 0; i < M; i++) x[i] = v + (size_t(xi) * TILES + t + i) * inputs;
                        accumulate<M>(x, 0, 1, inputs, filters, acc);
                        for (int i = 0; i < M; i++) {
                            float* to = m + (size_t(xi) * TILES + t + i) * OUTPUTS;
                            store(to, acc[i][0]), store(to + LANES, acc[i][1]);
                        }
                    });
            }
            for (int t = 0; t < count; t++) {
                const int tile = (first + t) % tiles_per_image(), image = (first + t) / tiles_per_image();
                transform_output(m + size_t(t) * OUTPUTS, block, image, tile / across * 2, tile % across * 2);
            }
        }
    }

  private:
    void transform_input(const float* corner, float* v) const {
        const size_t row = in->row(), pixel = in->channels, xi_stride = size_t(TILES) * in->channels;
        for (int c = 0; c < in->channels; c += LANES) {
            Lanes d[4][4];
            for (int y = 0; y < 4; y++)
                for (int x = 0; x < 4; x++) d[y][x] = load(corner + y * row + x * pixel + c);
            for (int x = 0; x < 4; x++) {
                const Lanes d0 = d[0][x], d1 = d[1][x], d2 = d[2][x], d3 = d[3][x];
                d[0][x] = d0 - d2, d[1][x] = d1 + d2, d[2][x] = d2 - d1, d[3][x] = d1 - d3;
            }
            for (int y = 0; y < 4; y++) {
                float* to = v + size_t(4) * y * xi_stride + c;
                store(to, d[y][0] - d[y][2]);
                store(to + xi_stride, d[y][1] + d[y][2]);
                store(to + 2 * xi_stride, d[y][2] - d[y][1]);
                store(to + 3 * xi_stride, d[y][1] - d[y][3]);
            }
        }
    }

    void transform_output(const float* m, int block, int image, int y, int x) const {
        Lanes result[2][2][2];  // [row][column][half]
        for (int half = 0; half < 2; half++) {
            Lanes rows[2][4];
            for (int column = 0; column < 4; column++) {
                Lanes of[4];
                for (int row = 0; row < 4; row++)
                    of[row] = load(m + size_t(4 * row + column) * TILES * OUTPUTS + half * LANES);
                rows[0][column] = of[0] + of[1] + of[2], rows[1][column] = of[1] - of[2] - of[3];
            }
            const Lanes b = load(&bias[block * OUTPUTS + half * LANES]);
            for (int row = 0; row < 2; row++) {
                const Lanes* r = rows[row];
                result[row][0][half] = r[0] + r[1] + r[2] + b, result[row][1][half] = r[1] - r[2] - r[3] + b;
            }
        }
        for (int row = 0; row < 2; row++)
            for (int column = 0; column < 2; column++) {
                auto& pixel = result[row][column];
                if (residual) {
                    Lanes r[2];
                    get(*residual, image, y + row, x + column, block * OUTPUTS, OUTPUTS, r);
                    pixel[0] += r[0], pixel[1] += r[1];
                }
                for (Lanes& half : pixel) half = activated(half, activation, slope);
                put(*out, image, y + row, x + column, block * OUTPUTS, OUTPUTS, pixel);
            }
    }
};

}  // namespace fastvae
