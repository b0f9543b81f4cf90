// Loops in parallel for one call, and memory that calls hand on to each other.
#pragma once
#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "splat.h"

namespace silky {

// The caller and helpers on another's pool, from the first loop of a call to its last: between loops helpers spin, for waking one costs
// more than a loop. The caller works too, and finishes alone where no helper ever starts. A helper that starts late finds nothing left to
// do.
class Team {
 public:
  // `schedule` runs a function on a pool's thread, sometime. `loops`: the most that this call will run.
  Team(int64_t helpers, int64_t loops, const std::function<void(std::function<void()>)>& schedule)
      : shared_(std::make_shared<Shared>(loops)) {
    // A pool whose queue is full runs the function at once, here: a caller that helped itself would wait for loops that only it can open.
    const auto caller = std::this_thread::get_id();
    for (int64_t i = 0; i < helpers; ++i)
      schedule([shared = shared_, caller] {
        if (std::this_thread::get_id() != caller) shared->help();
      });
  }
  ~Team() { shared_->closed.store(true, std::memory_order_release); }
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  // f(0) .. f(tasks - 1); returns when all are done.
  void run(int64_t tasks, const std::function<void(int64_t)>& f) {
    const int64_t number = shared_->open.load(std::memory_order_relaxed);
    if (tasks < 2 || number >= int64_t(shared_->loops.size())) {
      for (int64_t i = 0; i < tasks; ++i) f(i);
      return;
    }
    Loop& loop = shared_->loops[number];
    loop.tasks = tasks, loop.work = &f;
    shared_->open.store(number + 1, std::memory_order_release);
    loop.join();
    for (Pause pause; loop.done.load(std::memory_order_acquire) < tasks;) pause();
  }

 private:
  struct Pause {
    int spins = 0;
    void operator()() {
      if (++spins > 2000) return std::this_thread::yield();
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
  };
  struct Loop {
    std::atomic<int64_t> next{0}, done{0};
    int64_t tasks = 0;
    const std::function<void(int64_t)>* work = nullptr;  // not touched by who finds no task left

    void join() {
      for (int64_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) {
        (*work)(task);
        done.fetch_add(1, std::memory_order_release);
      }
    }
  };
  // Outlives a helper that starts after all is done. No loop is used twice, so a helper that is late for one does no harm.
  struct Shared {
    std::vector<Loop> loops;
    std::atomic<int64_t> open{0};  // loops that have begun
    std::atomic<bool> closed{false};
    explicit Shared(int64_t count) : loops(count) {}

    void help() {
      for (int64_t number = 0;; ++number) {
        for (Pause pause; open.load(std::memory_order_acquire) <= number; pause())
          if (closed.load(std::memory_order_acquire)) return;
        loops[number].join();
      }
    }
  };
  std::shared_ptr<Shared> shared_;
};

// Memory for one call; given back for the next one, unless it is much.
class Lease {
 public:
  Lease() {
    const std::lock_guard<std::mutex> lock(mutex());
    if (!unused().empty()) scratch_ = std::move(unused().back()), unused().pop_back();
    if (!scratch_) scratch_ = std::make_unique<Scratch>();
  }
  ~Lease() {
    constexpr int64_t kMuch = 256 << 20;
    if (scratch_->size() > kMuch) return;
    const std::lock_guard<std::mutex> lock(mutex());
    unused().push_back(std::move(scratch_));
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  Scratch* get() const { return scratch_.get(); }

 private:
  // Never destroyed: a pool's thread may outlive the program's statics.
  static std::mutex& mutex() {
    static auto* one = new std::mutex;
    return *one;
  }
  static std::vector<std::unique_ptr<Scratch>>& unused() {
    static auto* all = new std::vector<std::unique_ptr<Scratch>>;
    return *all;
  }
  std::unique_ptr<Scratch> scratch_;
};

}  // namespace silky
