// The product of a small constant matrix with a wide one: filters to the places of Winograd's algorithm, and back.
#pragma once

#include <algorithm>
#include <cstddef>

namespace fastvae {

struct SmallProduct {
    static constexpr int COLUMNS = 64, MOST_INNER = 36;  // columns at a time, in the first-level cache

    const double* matrix;  // [rows, inner]
    int rows, inner, columns;  // inner at most MOST_INNER
    const float* from;  // [blocks, inner, columns]
    float* to;          // [blocks, rows, columns]

    int parts() const { return (columns + COLUMNS - 1) / COLUMNS; }

    // Computes one part of one block. Sums are float64, so that only the result is rounded.
    void run(int block, int part) const {
        const int first = part * COLUMNS;
        const float* in = from + size_t(block) * inner * columns;
        float* out = to + size_t(block) * rows * columns;
        const int count = std::min(COLUMNS, columns - first);
        double values[MOST_INNER][COLUMNS] = {};  // all of them, so that the loops below have a constant length
        for (int k = 0; k < inner; k++) std::copy_n(in + size_t(k) * columns + first, count, values[k]);
        for (int row = 0; row < rows; row++) {
            double sums[COLUMNS] = {};
            for (int k = 0; k < inner; k++)
                for (int i = 0; i < COLUMNS; i++) sums[i] += matrix[row * inner + k] * values[k][i];
            std::copy_n(sums, count, out + size_t(row) * columns + first);
        }
    }
};

}  // namespace fastvae
