// The functions that fastvae/kernels/winograd.py calls.

#include "conv3x3.h"
#include "for_each.h"
#include "small_product.h"
#include "weight_gradient.h"

#include <algorithm>
#include <memory>
#include <new>

using namespace fastvae;

namespace {

constexpr size_t LINE = 16;  // floats in a cache line

struct Free {
    void operator()(float* memory) const { ::operator delete[](memory, std::align_val_t{4 * LINE}); }
};

std::unique_ptr<float[], Free> scratch(size_t size) {
    return std::unique_ptr<float[], Free>(new (std::align_val_t{4 * LINE}) float[size]);
}

template <int T, class Number>
void convolve(const Shape& shape, const void* x, const void* y, const float* filters, const float* bias, void* out,
              int tiles_at_a_time, Parallel parallel, int threads) {
    const Conv3x3<T, Number> convolution{shape,
                                         static_cast<const Number*>(x),
                                         static_cast<const Number*>(y),
                                         filters,
                                         bias,
                                         static_cast<Number*>(out),
                                         tiles_at_a_time};
    const int tiles = convolution.tiles(), blocks = convolution.blocks();
    int groups = (tiles + tiles_at_a_time - 1) / tiles_at_a_time;
    // Each thread should get equal parts. Few tiles are divided by outputs: then several threads transform the same
    // inputs, but each reads only its own filters.
    if (groups > threads) groups = (groups + threads - 1) / threads * threads;
    int each = (tiles + groups - 1) / groups;
    if (groups > threads) each = (each + PIXELS - 1) / PIXELS * PIXELS;  // which registers hold
    groups = (tiles + each - 1) / each;
    const int parts = std::clamp((threads + groups - 1) / groups, 1, blocks);
    const size_t size = (convolution.scratch_size() + LINE - 1) / LINE * LINE;
    const auto memory = scratch(size * threads);
    for_each(groups * parts, parallel, threads, [&](int task, int seat) {
        const int first = task / parts * each, part = task % parts;
        convolution.run(first, std::min(each, tiles - first), part * blocks / parts, (part + 1) * blocks / parts,
                        memory.get() + size * seat);
    });
}

template <int T>
void sum_tiles(const WeightGradient<T>& gradient, Parallel parallel, int threads) {
    const auto memory = scratch(gradient.scratch_size());
    for (int first = 0; first < gradient.tiles(); first += gradient.tiles_at_a_time) {
        const int count = std::min(gradient.tiles_at_a_time, gradient.tiles() - first);
        for_each(count, parallel, threads, [&](int t, int) { gradient.transform(first + t, t, memory.get()); });
        for_each(gradient.PLACES, parallel, threads,
                 [&](int place, int) { gradient.multiply(count, place, first > 0, memory.get()); });
    }
}

}  // namespace

extern "C" {

int fastvae_conv3x3_outputs() { return OUTPUTS; }

// tile: 2 or 4; bfloat16: whether x, y and out are, otherwise float. Returns 0, or 1 if there is not enough memory.
int fastvae_conv3x3(const void* x, const void* y, const float* filters, const float* bias, void* out, int images,
                    int height, int width, int inputs, int outputs, int tile, int bfloat16, int tiles_at_a_time,
                    void* parallel, int threads) {
    const Shape shape{images, height, width, inputs, outputs};
    const auto call = [&](auto chosen) {
        chosen(shape, x, y, filters, bias, out, tiles_at_a_time, reinterpret_cast<Parallel>(parallel), threads);
    };
    try {
        if (tile == 2)
            bfloat16 ? call(convolve<2, BFloat16>) : call(convolve<2, float>);
        else
            bfloat16 ? call(convolve<4, BFloat16>) : call(convolve<4, float>);
    } catch (const std::bad_alloc&) {
        return 1;
    }
    return 0;
}

// The sums of weight_gradient.h, for tiles of 2 or 4. Returns as above.
int fastvae_conv3x3_weight_gradient(const float* x, const float* grad, float* sums, int images, int height, int width,
                                    int inputs, int outputs, int tile, int tiles_at_a_time, void* parallel_,
                                    int threads) {
    const auto parallel = reinterpret_cast<Parallel>(parallel_);
    try {
        if (tile == 2)
            sum_tiles(WeightGradient<2>{images, height, width, inputs, outputs, x, grad, sums, tiles_at_a_time},
                      parallel, threads);
        else
            sum_tiles(WeightGradient<4>{images, height, width, inputs, outputs, x, grad, sums, tiles_at_a_time},
                      parallel, threads);
    } catch (const std::bad_alloc&) {
        return 1;
    }
    return 0;
}

// to[block] = matrix from[block], of sizes [rows, inner] and [inner, columns].
void fastvae_small_product(const double* matrix, const float* from, float* to, int blocks, int rows, int inner,
                           int columns, void* parallel, int threads) {
    const SmallProduct product{matrix, rows, inner, columns, from, to};
    const int parts = product.parts();
    for_each(blocks * parts, reinterpret_cast<Parallel>(parallel), threads,
             [&](int task, int) { product.run(task / parts, task % parts); });
}
}
