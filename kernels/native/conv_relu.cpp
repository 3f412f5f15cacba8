// The functions that fastvae/kernels/conv_relu_native.py calls.

#include "conv3x3.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <new>

namespace fastvae {

// GOMP_parallel of the OpenMP library that torch runs in: calls work(argument) in each of so many threads. Threads of
// our own beside torch's would wait for work on the same cores.
using Parallel = void (*)(void (*work)(void*), void* argument, unsigned threads, unsigned flags);

template <class Convolution>
class Job {
  public:
    Job(const Convolution& convolution, int threads) : convolution_(convolution) {
        const int tiles = convolution.tiles(), limit = convolution.tiles_at_a_time;
        int groups = (tiles + limit - 1) / limit;
        // Each thread should get equal parts. Few tiles are divided by outputs: then several threads transform the
        // same inputs, but each reads only its own filters.
        if (groups > threads) groups = (groups + threads - 1) / threads * threads;
        each_ = (tiles + groups - 1) / groups;
        if (groups > threads) each_ = (each_ + PIXELS - 1) / PIXELS * PIXELS;  // which registers hold
        groups_ = (tiles + each_ - 1) / each_;
        parts_ = std::clamp((threads + groups_ - 1) / groups_, 1, convolution.blocks());
        scratch_size_ = (convolution.scratch_size() + LINE - 1) / LINE * LINE;
        memory_.reset(new (std::align_val_t{4 * LINE}) float[scratch_size_ * threads]);
    }

    void run(Parallel parallel, int threads) {
        if (threads > 1 && parallel)
            parallel([](void* job) { static_cast<Job*>(job)->take_part(); }, this, unsigned(threads), 0);
        else
            take_part();
    }

  private:
    static constexpr size_t LINE = 16;  // floats in a cache line

    void take_part() {
        float* scratch = memory_.get() + scratch_size_ * seats_.fetch_add(1);
        const int blocks = convolution_.blocks();
        for (int task; (task = next_.fetch_add(1)) < groups_ * parts_;) {
            const int first = task / parts_ * each_, part = task % parts_;
            convolution_.run(first, std::min(each_, convolution_.tiles() - first), part * blocks / parts_,
                             (part + 1) * blocks / parts_, scratch);
        }
    }

    struct Free {
        void operator()(float* memory) const { ::operator delete[](memory, std::align_val_t{4 * LINE}); }
    };

    const Convolution& convolution_;
    int each_, groups_, parts_;
    size_t scratch_size_;
    std::unique_ptr<float[], Free> memory_;  // scratch space of each thread
    std::atomic<int> seats_{0}, next_{0};
};

}  // namespace fastvae

using namespace fastvae;

namespace {

template <int T, class Number>
void run(const Shape& shape, const void* x, const void* y, const float* filters, const float* bias, void* out,
         int tiles_at_a_time, Parallel parallel, int threads) {
    const Conv3x3<T, Number> convolution{shape,
                                         static_cast<const Number*>(x),
                                         static_cast<const Number*>(y),
                                         filters,
                                         bias,
                                         static_cast<Number*>(out),
                                         tiles_at_a_time};
    Job<Conv3x3<T, Number>>(convolution, threads).run(parallel, threads);
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
            bfloat16 ? call(run<2, BFloat16>) : call(run<2, float>);
        else
            bfloat16 ? call(run<4, BFloat16>) : call(run<4, float>);
    } catch (const std::bad_alloc&) {
        return 1;
    }
    return 0;
}
}
