// A pool of threads that runs one job at a time, stage by stage. No thread is required: any that is awake takes tasks.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace fastvae {

inline void pause_briefly() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Tasks that may run in any order; the next stage starts when all are done. Each thread starts with its own share, the
// same in every stage, since what it wrote in the last stage is in its cache, and what others wrote is in theirs. Then
// it helps the others.
class Stage {
  public:
    Stage(int tasks, int threads, std::function<void(int, int)> run)
        : tasks_(tasks), threads_(threads), run_(std::move(run)), next_(new Counter[threads]) {
        for (int t = 0; t < threads; t++) next_[t].value = first_of(t);
    }

    void take_part(int thread) {
        for (int i = 0; i < threads_; i++) {
            const int share = (thread + i) % threads_, end = first_of(share + 1);
            int task;
            while (next_[share].value < end && (task = next_[share].value.fetch_add(1)) < end) {
                run_(task, thread);
                done_.value.fetch_add(1);
            }
        }
    }

    bool is_done() const { return done_.value >= tasks_; }

    std::chrono::steady_clock::time_point ended;  // measured by the caller's thread

  private:
    // Each in a cache line of its own, to avoid false sharing.
    struct alignas(64) Counter {
        std::atomic<int> value{0};
    };

    int first_of(int thread) const { return int(int64_t(tasks_) * thread / threads_); }

    const int tasks_, threads_;
    const std::function<void(int task, int thread)> run_;
    const std::unique_ptr<Counter[]> next_;
    Counter done_;
};

class Pool {
  public:
    explicit Pool(int threads) : threads_(threads) {
        try {
            for (int id = 1; id < threads; id++) workers_.emplace_back([this, id] { work(id); });
        } catch (...) {  // the system has no more threads
            end();
            throw;
        }
    }

    ~Pool() { end(); }

    int threads() const { return threads_; }

    // Runs all stages; one caller at a time. The caller does what no worker takes, so a worker that wakes up late (or
    // did not survive a fork) only costs time.
    void run(std::vector<std::unique_ptr<Stage>>& stages) {
        stages_ = &stages;
        open_ = true;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            generation_++;
        }
        if (asleep_ > 0) wake_.notify_all();
        do_stages(0);
        open_ = false;
        while (inside_ > 0) pause_briefly();
    }

  private:
    void end() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            ending_ = true;
        }
        wake_.notify_all();
        for (auto& worker : workers_) worker.join();
    }

    void do_stages(int thread) {
        for (auto& stage : *stages_) {
            stage->take_part(thread);
            for (int spins = 0; !stage->is_done(); spins++)
                spins < 20000 ? pause_briefly() : std::this_thread::yield();
            if (thread == 0) stage->ended = std::chrono::steady_clock::now();
        }
    }

    void work(int id) {
        uint64_t seen = 0;
        for (;;) {
            // Spin for a while: the next call often comes soon, and waking a thread takes as long as a layer.
            const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(1);
            while (generation_ == seen && !ending_ && std::chrono::steady_clock::now() < until)
                for (int i = 0; i < 32; i++) pause_briefly();
            if (generation_ == seen) {
                std::unique_lock<std::mutex> lock(mutex_);
                asleep_++;
                wake_.wait(lock, [&] { return generation_ != seen || ending_; });
                asleep_--;
            }
            if (ending_) return;
            seen = generation_;
            inside_++;  // before checking `open_`: `run` does these in the opposite order
            if (open_) do_stages(id);
            inside_--;
        }
    }

    const int threads_;
    std::vector<std::unique_ptr<Stage>>* stages_ = nullptr;
    std::atomic<bool> open_{false}, ending_{false};
    std::atomic<int> inside_{0}, asleep_{0};
    std::atomic<uint64_t> generation_{0};
    std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<std::thread> workers_;
};

}  // namespace fastvae
