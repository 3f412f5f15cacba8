// Threads that share one job at a time, stage by stage, without being needed: whoever is awake takes the next task.
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

// Tasks that may run in any order; the next stage starts when all of them are done.
struct Stage {
    int tasks;
    std::function<void(int task, int thread)> run;
    std::atomic<int> next{0}, done{0};
    Stage(int tasks, std::function<void(int, int)> run) : tasks(tasks), run(std::move(run)) {}
};

class Pool {
  public:
    explicit Pool(int threads) : threads_(threads) {
        for (int id = 1; id < threads; id++) workers_.emplace_back([this, id] { work(id); });
    }

    ~Pool() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            ending_ = true;
        }
        wake_.notify_all();
        for (auto& worker : workers_) worker.join();
    }

    int threads() const { return threads_; }

    // Runs all stages; one caller at a time. The caller does what no worker has taken, so that one that wakes late (or
    // did not survive a fork) costs time and nothing else.
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
    void do_stages(int thread) {
        for (auto& stage : *stages_) {
            int task;
            while ((task = stage->next.fetch_add(1)) < stage->tasks) {
                stage->run(task, thread);
                stage->done.fetch_add(1);
            }
            for (int spins = 0; stage->done < stage->tasks; spins++)
                spins < 20000 ? pause_briefly() : std::this_thread::yield();
        }
    }

    void work(int id) {
        uint64_t seen = 0;
        for (;;) {
            // A caller's next call often comes at once, and waking a sleeping thread takes longer than a layer.
            const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(100);
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
            inside_++;  // before looking whether there is work left: `run` looks in the other order
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
