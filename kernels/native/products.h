// The register tile that all layers compute: sums of products for some pixels and one block of outputs.
#pragma once

#include "lanes.h"

#include <cstddef>
#include <type_traits>

namespace fastvae {

// Where filter `k` of output `o` is stored, for a block of `width` outputs.
inline size_t packed_at(int k, int o, int width) { return (size_t(k / PAIR) * width + o) * PAIR + k % PAIR; }

// to[m] = start + sum over rows and k of x[m][row][k] * filters[row][k], for V vectors of outputs. Columns and channels
// of one row of the window are contiguous in x and form one run. If that is no multiple of PAIR, the filter after its
// end is zero, and x after its end any finite number. Never inlined: the caller's variables would push sums out of the
// registers, and a sum that goes through memory halves the speed. The order of a sum depends only on the layer, so that
// results do not depend on the rest of the batch or on the number of threads.
template <int M, int V>
[[gnu::noinline]] void products(const Element* const* x, size_t row_stride, int rows, int run, const Element* filters,
                                const float* start, float* to) {
    // Filters are read once per call and come from the last cache or from memory: asked for this far ahead, they arrive
    // in time. Processors see the pattern themselves, but late. With few pixels the filters are read faster.
    constexpr int BYTES_AHEAD = M >= 8 ? 4096 : M >= 3 ? 8192 : 16384;
    constexpr int AHEAD = BYTES_AHEAD / sizeof(Element), LINE = 64 / sizeof(Element);
    Lanes sums[M][V];
    for (int v = 0; v < V; v++)
        for (int m = 0; m < M; m++) sums[m][v] = load(start + v * LANES);
    for (int row = 0; row < rows; row++) {
        const Element* from[M];
        for (int m = 0; m < M; m++) from[m] = x[m] + row * row_stride;
        for (int k = 0; k < run; k += PAIR) {
            for (int line = 0; line < V * LANES * PAIR; line += LINE) __builtin_prefetch(filters + AHEAD + line);
            decltype(load_filters(filters)) f[V];
            for (int v = 0; v < V; v++) f[v] = load_filters(filters + v * LANES * PAIR);
            filters += V * LANES * PAIR;
#pragma GCC unroll 12
            for (int m = 0; m < M; m++) {
                const auto value = broadcast(from[m] + k);
                for (int v = 0; v < V; v++) multiply_add(sums[m][v], value, f[v]);
            }
        }
    }
    for (int m = 0; m < M; m++)
        for (int v = 0; v < V; v++) store(to + (m * V + v) * LANES, sums[m][v]);
}

// Calls body(std::integral_constant<int, count>()) for a count of 1 to PIXELS.
template <int M = PIXELS, class Body>
inline void with_count(int count, Body&& body) {
    if constexpr (M > 0) {
        if (count == M)
            body(std::integral_constant<int, M>{});
        else
            with_count<M - 1>(count, body);
    }
}

}  // namespace fastvae
