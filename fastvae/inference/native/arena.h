// Memory for filters, in huge pages where the system has them: what is read once a call, as much as the caches hold, comes
// half as fast again when its addresses need not be looked up every 4 KiB.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fastvae {

class Arena {
  public:
    // Zeros, on a cache line's boundary, for as long as the arena lives.
    float* floats(size_t count) {
        const size_t bytes = (count * sizeof(float) + 63) / 64 * 64;
        if (bytes > left_) {
            const size_t size = (std::max(bytes, CHUNK) + HUGE - 1) / HUGE * HUGE;
            void* chunk = std::aligned_alloc(HUGE, size);
            if (!chunk) throw std::bad_alloc();
#if defined(__linux__)
            madvise(chunk, size, MADV_HUGEPAGE);  // a wish: without it everything works, too
#endif
            chunks_.emplace_back(static_cast<char*>(chunk), &std::free);
            next_ = static_cast<char*>(chunk), left_ = size;
        }
        float* found = reinterpret_cast<float*>(next_);
        next_ += bytes, left_ -= bytes;
        std::fill(found, found + count, 0.0f);
        return found;
    }

  private:
    // What is never touched takes no memory, but for the rest of a last huge page.
    static constexpr size_t HUGE = size_t(2) << 20, CHUNK = size_t(32) << 20;
    std::vector<std::unique_ptr<char, decltype(&std::free)>> chunks_;
    char* next_ = nullptr;
    size_t left_ = 0;
};

}  // namespace fastvae
