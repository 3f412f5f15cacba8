// Convolutions by minimal filtering: fewer products of transformed inputs and filters than the definition has.
//     Y = A^T [(G g G^T) * (B^T d B)] A
// Source: Winograd 1980; Lavin and Gray 2016, arXiv:1509.09308, section 4. The products of all tiles are matrix
// products, one for each place of a transformed tile, with the channels as the inner dimension.
#pragma once

#include "convolution.h"
#include "transforms.h"

namespace fastvae {

// A form is one kind of convolution and the size of its tiles. A tile of OUT x OUT outputs reads SIDE x SIDE inputs, the
// next one STEP inputs further, and takes SIDE^2 products. With PHASES = 2 every second input is one phase of the
// window and the others are another: both are transformed alike, as more channels.

// F(2x2, 3x3): 4 products per output instead of 9.
struct Conv3x3Tile2 {
    static constexpr int SIDE = 4, OUT = 2, STEP = 2, PHASES = 1;
};

// F(4x4, 3x3): 2.25 products per output.
struct Conv3x3Tile4 {
    static constexpr int SIDE = 6, OUT = 4, STEP = 4, PHASES = 1;
};

// 3x3 after nearest x2 upsampling, whose rows w0 x[i-1] + (w1 + w2) x[i] and (w0 + w1) x[i] + w2 x[i+1] share the product
// of x[i] and the sum of all filters, if the others are of differences: 2.25 products per output instead of 4.
struct Upsampling {
    static constexpr int SIDE = 3, OUT = 2, STEP = 1, PHASES = 1;
};

// 4x4 of stride 2, as F(2x2, 2x2) of four phases: 9 products per output instead of 16.
struct Downsampling {
    static constexpr int SIDE = 3, OUT = 2, STEP = 4, PHASES = 2;
};

template <class Form>
struct Winograd {
    static constexpr int SIDE = Form::SIDE, OUT = Form::OUT, PHASES = Form::PHASES, PLACES = SIDE * SIDE, LINE = 16;
    // Tiles at a time, whose data fits into the second-level cache.
    static constexpr int TILES = 4 * PIXELS;

    Map *in, *out, *residual;  // residual may be null
    Activation activation;
    float slope;
    Element* packed;  // [outputs / OUTPUTS][PLACES][inputs][OUTPUTS]
    float* bias;

    int inputs() const { return PHASES * PHASES * in->channels; }
    int blocks() const { return out->channels / OUTPUTS; }
    int tiles_per_image() const { return out->height / OUT * (out->width / OUT); }
    // Distance from one place to the next, with one extra cache line: with a power of two all places of a tile would
    // fall into the same few sets of the first-level cache.
    size_t input_stride() const { return size_t(TILES) * inputs() + LINE * PAIR; }
    static constexpr size_t SUM_STRIDE = size_t(TILES) * OUTPUTS + LINE;
    size_t inputs_size() const { return PLACES * input_stride(); }
    static size_t sums_size() { return PLACES * SUM_STRIDE; }

    // filters: G g G^T as [PLACES][outputs][row phase][column phase][in channels].
    void set(Arena& arena, const float* filters, const float* biases) {
        const int k = inputs(), outputs = out->channels;
        packed = arena.zeros<Element>(size_t(PLACES) * k * outputs), bias = arena.zeros<float>(outputs);
        std::copy(biases, biases + outputs, bias);
        for (int place = 0; place < PLACES; place++)
            for (int o = 0; o < outputs; o++)
                for (int i = 0; i < k; i++)
                    packed[(size_t(o / OUTPUTS) * PLACES + place) * k * OUTPUTS + packed_at(i, o % OUTPUTS, OUTPUTS)] =
                        to_element(filters[(size_t(place) * outputs + o) * k + i]);
    }

    // Computes B^T d B of up to TILES tiles and writes it to inputs [PLACES][tile][phases and channels].
    void transform(int first, int count, Element* to) const {
        for (int t = 0; t < count; t++) {
            const Place tile = place_of(first + t);
            const Element* window = in->at(tile.image, tile.y * Form::STEP - 1, tile.x * Form::STEP - 1);
            Element* where = to + size_t(t) * inputs();
            for (int phase = 0; phase < PHASES * PHASES; phase++) {
                const Element* d = window + phase / PHASES * in->row() + phase % PHASES * in->channels;
                for (int channel = 0; channel < in->channels; channel += LANES, where += LANES) {
                    Lanes v[SIDE][SIDE];
#pragma GCC unroll 6
                    for (int x = 0; x < SIDE; x++) {
                        Lanes column[SIDE];
                        for (int y = 0; y < SIDE; y++)
                            column[y] = load(d + PHASES * (y * in->row() + size_t(x) * in->channels) + channel);
                        to_points<SIDE>(column);
                        for (int y = 0; y < SIDE; y++) v[y][x] = column[y];
                    }
#pragma GCC unroll 6
                    for (int y = 0; y < SIDE; y++) {
                        to_points<SIDE>(v[y]);
                        for (int x = 0; x < SIDE; x++) store(where + (y * SIDE + x) * input_stride(), v[y][x]);
                    }
                }
            }
        }
    }

    // Computes the outputs of one block of channels; `sums` is scratch space [PLACES][tile][OUTPUTS].
    void finish(int first, int count, int block, const Element* transformed, float* sums) const {
        constexpr float zeros[OUTPUTS] = {};
        const int k = inputs();
        for (int place = 0; place < PLACES; place++) {
            const Element* filters = packed + (size_t(block) * PLACES + place) * k * OUTPUTS;
            for (int t = 0; t < count; t += PIXELS)
                with_count(std::min(PIXELS, count - t), [&](auto m_constant) {
                    constexpr int M = decltype(m_constant)::value;
                    const Element* x[M];
                    for (int m = 0; m < M; m++) x[m] = transformed + place * input_stride() + size_t(t + m) * k;
                    products<M, 2>(x, 0, 1, k, filters, zeros, sums + place * SUM_STRIDE + size_t(t) * OUTPUTS);
                });
        }
        for (int t = 0; t < count; t++) put_tile(place_of(first + t), block, sums + size_t(t) * OUTPUTS);
    }

  private:
    struct Place {
        int image, y, x;  // counted in tiles
    };

    Place place_of(int tile) const {
        const int across = out->width / OUT, in_image = tile % tiles_per_image();
        return {tile / tiles_per_image(), in_image / across, in_image % across};
    }

    void put_tile(Place tile, int block, const float* sums) const {
        Lanes v[2][OUT][SIDE];
        for (int half = 0; half < 2; half++) {
#pragma GCC unroll 6
            for (int x = 0; x < SIDE; x++) {
                Lanes column[SIDE];
                for (int y = 0; y < SIDE; y++) column[y] = load(sums + (y * SIDE + x) * SUM_STRIDE + half * LANES);
                from_points<SIDE>(column);
                for (int y = 0; y < OUT; y++) v[half][y][x] = column[y];
            }
#pragma GCC unroll 6
            for (int y = 0; y < OUT; y++) from_points<SIDE>(v[half][y]);
        }
        const Lanes b[2] = {load(&bias[block * OUTPUTS]), load(&bias[block * OUTPUTS + LANES])};
        for (int y = 0; y < OUT; y++)
            for (int x = 0; x < OUT; x++) {
                const int to_y = tile.y * OUT + y, to_x = tile.x * OUT + x;
                Lanes pixel[2] = {v[0][y][x] + b[0], v[1][y][x] + b[1]};
                if (residual) {
                    Lanes r[2];
                    get(*residual, tile.image, to_y, to_x, block * OUTPUTS, OUTPUTS, r);
                    pixel[0] += r[0], pixel[1] += r[1];
                }
                for (Lanes& half : pixel) half = activated(half, activation, slope);
                put(*out, tile.image, to_y, to_x, block * OUTPUTS, OUTPUTS, pixel);
            }
    }
};

}  // namespace fastvae
