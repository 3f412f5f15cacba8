// Work that threads share: numbered tasks, each taken by whichever thread is free.
#pragma once

#include <atomic>

namespace fastvae {

// GOMP_parallel of the OpenMP library that torch runs in: calls work(argument) in each of so many threads. Threads of
// our own beside torch's would wait for work on the same cores.
using Parallel = void (*)(void (*work)(void*), void* argument, unsigned threads, unsigned flags);

// Calls body(task, seat) for each task below count; seat, below threads, tells which thread it is.
template <class Body>
void for_each(int count, Parallel parallel, int threads, const Body& body) {
    struct Share {
        const Body& body;
        int count;
        std::atomic<int> seats{0}, next{0};
    } share{body, count};
    const auto take_part = [](void* argument) {
        auto& share = *static_cast<Share*>(argument);
        const int seat = share.seats.fetch_add(1);
        for (int task; (task = share.next.fetch_add(1)) < share.count;) share.body(task, seat);
    };
    if (threads > 1 && parallel)
        parallel(take_part, &share, unsigned(threads), 0);
    else
        take_part(&share);
}

}  // namespace fastvae
