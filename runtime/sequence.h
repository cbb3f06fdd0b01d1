// A live context, as engine.cc and the works see it. Outside of the runtime it is opaque.
//
// Thread rule: `use` decides who may touch the rest. One work at a time writes (the engine's
// thread), or any number of readers (fork, capture) read; who does not get in is refused, never
// blocked. Its atomic orders the accesses of one holder before those of the next.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "runtime/slot_pool.h"
#include "runtime/state_origin.h"

namespace anabranch {

// At most one writer or any number of readers; never waits.
class UseGuard {
 public:
  bool TryWrite() {
    int idle = 0;
    return uses_.compare_exchange_strong(idle, kWriting, std::memory_order_acquire);
  }
  void EndWrite() { uses_.store(0, std::memory_order_release); }

  bool TryRead() {
    int uses = uses_.load(std::memory_order_relaxed);
    while (uses != kWriting) {
      if (uses_.compare_exchange_weak(uses, uses + 1, std::memory_order_acquire)) return true;
    }
    return false;
  }
  void EndRead() { uses_.fetch_sub(1, std::memory_order_release); }

 private:
  static constexpr int kWriting = -1;
  std::atomic<int> uses_{0};
};

class Engine;

class Sequence {
 public:
  Sequence(const Engine* owner, std::shared_ptr<SlotPool> pool, SlotRef ref)
      : owner(owner), ref(std::move(ref)), pool_(std::move(pool)) {}
  ~Sequence() { pool_->Release(ref); }
  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;

  // Another one with the same state, of which nothing is copied. Held for reading.
  std::shared_ptr<Sequence> Share() const {
    auto other = std::make_shared<Sequence>(owner, pool_, pool_->Share(ref));
    other->tokens = tokens;
    other->last_logits = last_logits;
    other->inner_sum = inner_sum;
    other->origin = origin;
    return other;
  }

  const Engine* const owner;
  UseGuard use;

  SlotRef ref;
  std::vector<int32_t> tokens;  // ref.position of them
  // After the last token; null before the first. Replaced, not changed, so that forks share it.
  std::shared_ptr<const std::vector<float>> last_logits;
  // While they are still where the last step left them: their row there, and no last_logits. Only
  // while a work holds the sequence.
  int64_t logits_row = -1;
  // Of what was read: StepBatch::inner_sums. Empty: not known, because the state that the sequence
  // goes on from was stored without.
  std::vector<float> inner_sum;
  StateOrigin origin;   // of the state that it went on from
  bool broken = false;  // a step failed half way: the state may be neither old nor new

 private:
  const std::shared_ptr<SlotPool> pool_;
};

}  // namespace anabranch
