// The functions that fastvae/kernels/winograd.py calls.

#include "convolution.h"
#include "data_gradient.h"
#include "for_each.h"
#include "small_product.h"
#include "weight_gradient.h"

#include <algorithm>
#include <memory>
#include <new>

using namespace fastvae;

namespace {

struct Free {
    void operator()(float* memory) const { ::operator delete[](memory, std::align_val_t{4 * LINE}); }
};

std::unique_ptr<float[], Free> scratch(size_t size) {
    return std::unique_ptr<float[], Free>(new (std::align_val_t{4 * LINE}) float[size]);
}

// Sizes as Python passes them; height and width are the output's.
struct Sizes {
    int images, height, width, inputs, outputs;
};

template <int T, int STRIDE, Border BORDER, class Number>
void convolve(const Sizes& s, const void* x, const void* y, const float* filters, const float* bias, void* out,
              int tiles_at_a_time, Parallel parallel, int threads) {
    const Convolution<T, STRIDE, BORDER, Number> convolution{{s.images, s.height, s.width},
                                                     s.inputs,
                                                     s.outputs,
                                                     static_cast<const Number*>(x),
                                                     static_cast<const Number*>(y),
                                                     filters,
                                                     bias,
                                                     static_cast<Number*>(out),
                                                     tiles_at_a_time};
    const int tiles = convolution.geometry.tiles(), blocks = convolution.blocks();
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

template <int T, int STRIDE, Border BORDER>
void find_data_gradient(const Sizes& s, const float* grad, const float* filters, float* out, int tiles_at_a_time,
                        Parallel parallel, int threads) {
    const DataGradient<T, STRIDE, BORDER> gradient{
        {s.images, s.height, s.width}, s.inputs, s.outputs, grad, filters, out, tiles_at_a_time};
    const int of_image = gradient.geometry.tiles_of_image();
    const int each = std::clamp(tiles_at_a_time / of_image, 1, (s.images + threads - 1) / threads);
    const size_t size = (gradient.scratch_size() + LINE - 1) / LINE * LINE;
    const auto memory = scratch(size * threads);
    for_each((s.images + each - 1) / each, parallel, threads, [&](int task, int seat) {
        gradient.run(task * each, std::min(s.images, (task + 1) * each), memory.get() + size * seat);
    });
}

template <int T, int STRIDE, Border BORDER>
void sum_tiles(const Sizes& s, const float* x, const float* grad, float* sums, int tiles_at_a_time, Parallel parallel,
               int threads) {
    const WeightGradient<T, STRIDE, BORDER> gradient{
        {s.images, s.height, s.width}, s.inputs, s.outputs, x, grad, sums, tiles_at_a_time};
    const int tiles = gradient.geometry.tiles();
    const auto memory = scratch(gradient.scratch_size());
    for (int first = 0; first < tiles; first += tiles_at_a_time) {
        const int count = std::min(tiles_at_a_time, tiles - first);
        for_each(count, parallel, threads, [&](int t, int) { gradient.transform(first + t, t, memory.get()); });
        for_each(gradient.POINTS, parallel, threads,
                 [&](int point, int) { gradient.multiply(count, point, first > 0, memory.get()); });
    }
}

// Returns 0, or 1 if there is not enough memory.
template <class Work>
int with_memory(const Work& work) {
    try {
        work();
    } catch (const std::bad_alloc&) {
        return 1;
    }
    return 0;
}

}  // namespace

extern "C" {

int fastvae_outputs_at_a_time() { return OUTPUTS; }

// At stride 1 tile is 2 or 4, at stride 2 it is 4 and the border zeros; copies: the border's pixels are copies of the
// nearest. bfloat16: whether x, y and out are, otherwise float; only at stride 1 with a border of zeros. y: see
// convolution.h. Like the next two it returns 0, or 1 if there is not enough memory.
int fastvae_convolution(const void* x, const void* y, const float* filters, const float* bias, void* out, int images,
                        int height, int width, int inputs, int outputs, int stride, int tile, int copies, int bfloat16,
                        int tiles_at_a_time, void* parallel, int threads) {
    const auto call = [&](auto chosen) {
        chosen({images, height, width, inputs, outputs}, x, y, filters, bias, out, tiles_at_a_time,
               reinterpret_cast<Parallel>(parallel), threads);
    };
    return with_memory([&] {
        if (stride == 2)
            call(convolve<4, 2, Border::ZEROS, float>);
        else if (copies)
            tile == 2 ? call(convolve<2, 1, Border::COPIES, float>) : call(convolve<4, 1, Border::COPIES, float>);
        else if (bfloat16)
            tile == 2 ? call(convolve<2, 1, Border::ZEROS, BFloat16>) : call(convolve<4, 1, Border::ZEROS, BFloat16>);
        else
            tile == 2 ? call(convolve<2, 1, Border::ZEROS, float>) : call(convolve<4, 1, Border::ZEROS, float>);
    });
}

// At stride 2, or with a border of copies.
int fastvae_data_gradient(const float* grad, const float* filters, float* out, int images, int height, int width,
                          int inputs, int outputs, int stride, int tile, int tiles_at_a_time, void* parallel,
                          int threads) {
    const auto call = [&](auto chosen) {
        chosen({images, height, width, inputs, outputs}, grad, filters, out, tiles_at_a_time,
               reinterpret_cast<Parallel>(parallel), threads);
    };
    return with_memory([&] {
        if (stride == 2)
            call(find_data_gradient<4, 2, Border::ZEROS>);
        else
            tile == 2 ? call(find_data_gradient<2, 1, Border::COPIES>) : call(find_data_gradient<4, 1, Border::COPIES>);
    });
}

// The sums of weight_gradient.h.
int fastvae_weight_gradient(const float* x, const float* grad, float* sums, int images, int height, int width,
                            int inputs, int outputs, int stride, int tile, int copies, int tiles_at_a_time,
                            void* parallel, int threads) {
    const auto call = [&](auto chosen) {
        chosen({images, height, width, inputs, outputs}, x, grad, sums, tiles_at_a_time,
               reinterpret_cast<Parallel>(parallel), threads);
    };
    return with_memory([&] {
        if (stride == 2)
            call(sum_tiles<4, 2, Border::ZEROS>);
        else if (copies)
            tile == 2 ? call(sum_tiles<2, 1, Border::COPIES>) : call(sum_tiles<4, 1, Border::COPIES>);
        else
            tile == 2 ? call(sum_tiles<2, 1, Border::ZEROS>) : call(sum_tiles<4, 1, Border::ZEROS>);
    });
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
