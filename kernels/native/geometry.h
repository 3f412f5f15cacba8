// What the convolutions of winograd.cpp have in common: windows of 3x3 at stride 1, or of 4x4 at stride 2, and a border
// of one pixel, either zeros or copies of the nearest pixels.
//
// Stride 2 is reduced to stride 1. Of the pixels that lie at the same place, row and column, in each 2x2 block of the
// bordered map, the window sees 2x2: with the four places as so many more channels it is a 2x2 window of stride 1.
#pragma once

#include "lanes.h"

#include <cstddef>

namespace fastvae {

enum class Border { ZEROS, COPIES };

// A tile has T x T outputs and SIDE x SIDE inputs of each channel and place.
template <int T, int STRIDE, Border BORDER>
struct Geometry {
    static constexpr int TAPS = STRIDE == 1 ? 3 : 2, SIDE = T + TAPS - 1, POINTS = SIDE * SIDE;
    static constexpr int PHASES = STRIDE * STRIDE;  // places in a block

    int images, height, width;  // of the outputs; the inputs are STRIDE times as high and wide

    struct Corner {
        int image, row, column;  // of a tile's first output
    };

    int down() const { return (height + T - 1) / T; }
    int across() const { return (width + T - 1) / T; }
    int tiles_of_image() const { return down() * across(); }
    int tiles() const { return images * tiles_of_image(); }

    Corner corner(int tile) const {
        const int in_image = tile % tiles_of_image();
        return {tile / tiles_of_image(), in_image / across() * T, in_image % across() * T};
    }

    // The pixel's number, or -1 if it is outside.
    ptrdiff_t output(Corner c, int i, int j) const { return number(c.image, c.row + i, c.column + j, height, width); }
    ptrdiff_t input(Corner c, int phase, int i, int j) const {
        return number(c.image, in_map(STRIDE * (c.row + i) - 1 + phase / STRIDE, STRIDE * height),
                      in_map(STRIDE * (c.column + j) - 1 + phase % STRIDE, STRIDE * width), STRIDE * height,
                      STRIDE * width);
    }

  private:
    // A row or column, the border's being those that it copies.
    static int in_map(int i, int size) {
        if (BORDER == Border::COPIES && (i == -1 || i == size)) return i < 0 ? 0 : size - 1;
        return i;
    }

    static ptrdiff_t number(int image, int row, int column, int height, int width) {
        const bool inside = row >= 0 && row < height && column >= 0 && column < width;
        return inside ? (ptrdiff_t(image) * height + row) * width + column : -1;
    }
};

// Applies pass(vector[SIDE]) along both axes of v.
template <int SIDE, class Pass>
inline void both_axes(Lanes (&v)[SIDE][SIDE], Pass pass) {
#pragma GCC unroll 6
    for (int column = 0; column < SIDE; column++) {
        Lanes d[SIDE];
#pragma GCC unroll 6
        for (int row = 0; row < SIDE; row++) d[row] = v[row][column];
        pass(d);
#pragma GCC unroll 6
        for (int row = 0; row < SIDE; row++) v[row][column] = d[row];
    }
#pragma GCC unroll 6
    for (int row = 0; row < SIDE; row++) pass(v[row]);
}

// Writes a transformed tile to each point's place.
template <int SIDE>
inline void put_points(const Lanes (&v)[SIDE][SIDE], float* to, size_t point_stride) {
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) store(to + (i * SIDE + j) * point_stride, v[i][j]);
}

}  // namespace fastvae
