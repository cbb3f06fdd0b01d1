// What the kernel tests share: random inputs, plans that cut sequences into launches in many ways,
// a thread splitter with odd ranges, and bit comparison.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "hwy/targets.h"
#include "kernels/launch.h"

namespace anabranch::kernels::testing {

inline constexpr double kUnit = 1.0 / (1 << 24);  // unit roundoff of float
inline constexpr double kBf16Unit = 1.0 / (1 << 8);
inline const float kPoison = std::numeric_limits<float>::quiet_NaN();

using Floats = std::vector<float>;

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  float Normal(float scale = 1) { return scale * normal_(engine_); }
  float Uniform(float lo, float hi) {
    return lo + (hi - lo) * std::uniform_real_distribution<float>(0, 1)(engine_);
  }
  int64_t Int(int64_t lo, int64_t hi) {  // both inclusive
    return std::uniform_int_distribution<int64_t>(lo, hi)(engine_);
  }
  Floats Normals(int64_t n, float scale = 1) {
    Floats out(static_cast<size_t>(n));
    for (float& v : out) v = Normal(scale);
    return out;
  }

 private:
  std::mt19937 engine_;
  std::normal_distribution<float> normal_;
};

// Splits [0, n) into ranges of odd lengths (at least grain) and runs them on real threads.
class OddParallel : public Parallel {
 public:
  explicit OddParallel(int threads) : threads_(threads) {}
  void For(int64_t n, int64_t grain,
           absl::FunctionRef<void(int64_t, int64_t)> body) const override {
    std::vector<std::pair<int64_t, int64_t>> ranges;
    for (int64_t begin = 0, length = 1; begin < n; length = length * 2 + 1) {
      const int64_t end = std::min(n, begin + std::max(grain, length % 13));
      ranges.emplace_back(begin, end);
      begin = end;
    }
    std::vector<std::thread> workers;
    for (int w = 0; w < threads_; ++w) {
      workers.emplace_back([&, w] {
        for (size_t i = static_cast<size_t>(w); i < ranges.size();
             i += static_cast<size_t>(threads_)) {
          body(ranges[i].first, ranges[i].second);
        }
      });
    }
    for (std::thread& worker : workers) worker.join();
  }

 private:
  int threads_;
};

// Runs kernels with one instruction set while it lives, if this machine has it.
class ForceTarget {
 public:
  explicit ForceTarget(int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
  ~ForceTarget() {
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
  static bool Has(int64_t target) { return (kMachine & target) != 0; }

 private:
  static inline const int64_t kMachine = hwy::SupportedTargets();
};

// Rows [from, to) of sequence `seq` in one launch; a plan is a list of launches.
struct Segment {
  int seq;
  int64_t from, to;
};
using LaunchPlan = std::vector<Segment>;
using Plan = std::vector<LaunchPlan>;

// A launch's rows. Slots differ from sequence numbers.
struct Packing {
  std::vector<int32_t> row_start{0};
  std::vector<int32_t> slot;
  std::vector<int64_t> position;

  static int32_t SlotOf(int seq) { return 2 * seq + 1; }
  explicit Packing(const LaunchPlan& plan) {
    for (const Segment& s : plan) {
      row_start.push_back(row_start.back() + static_cast<int32_t>(s.to - s.from));
      slot.push_back(SlotOf(s.seq));
      position.push_back(s.from);
    }
  }
  PackedRows rows() const {
    int32_t longest = 0;
    for (size_t i = 0; i < slot.size(); ++i) {
      longest = std::max(longest, row_start[i + 1] - row_start[i]);
    }
    return {static_cast<int32_t>(slot.size()), row_start.back(), longest, row_start.data(),
            slot.data()};
  }
};

// One tensor of every sequence: [seq][token * width + channel].
struct Sequences {
  int64_t width = 0;
  std::vector<Floats> of;

  static Sequences Make(const std::vector<int64_t>& lengths, int64_t width, Random& random,
                        float scale = 1) {
    Sequences out{width, {}};
    for (int64_t n : lengths) out.of.push_back(random.Normals(n * width, scale));
    return out;
  }
  static Sequences Poisoned(const std::vector<int64_t>& lengths, int64_t width) {
    Sequences out{width, {}};
    for (int64_t n : lengths) out.of.emplace_back(static_cast<size_t>(n * width), kPoison);
    return out;
  }
  // The launch's rows at `stride`, the gaps poisoned.
  Floats Gather(const LaunchPlan& plan, int64_t stride) const {
    Floats out;
    for (const Segment& s : plan) {
      for (int64_t t = s.from; t < s.to; ++t) {
        const auto row = of[static_cast<size_t>(s.seq)].begin() + t * width;
        out.insert(out.end(), row, row + width);
        out.insert(out.end(), static_cast<size_t>(stride - width), kPoison);
      }
    }
    return out;
  }
  void Scatter(const LaunchPlan& plan, const Floats& rows, int64_t stride) {
    auto from = rows.begin();
    for (const Segment& s : plan) {
      for (int64_t t = s.from; t < s.to; ++t, from += stride) {
        std::copy(from, from + width, of[static_cast<size_t>(s.seq)].begin() + t * width);
      }
    }
  }
};

inline bool SameBits(const void* a, const void* b, size_t bytes) {
  return bytes == 0 || std::memcmp(a, b, bytes) == 0;
}
template <class T>
bool SameBits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && SameBits(a.data(), b.data(), a.size() * sizeof(T));
}

inline Plan EachAlone(const std::vector<int64_t>& lengths) {
  Plan plan;
  for (size_t i = 0; i < lengths.size(); ++i)
    plan.push_back({{static_cast<int>(i), 0, lengths[i]}});
  return plan;
}

// Every way of cutting that the row contract must not notice: all together (both orders), every
// split point, one token at a time, and random pieces.
inline std::vector<Plan> OtherPlans(const std::vector<int64_t>& lengths, Random& random) {
  std::vector<Plan> plans;
  const int count = static_cast<int>(lengths.size());
  LaunchPlan forward, backward;
  int64_t longest = 0;
  for (int i = 0; i < count; ++i) {
    const int64_t n = lengths[static_cast<size_t>(i)];
    forward.push_back({i, 0, n});
    backward.insert(backward.begin(), {i, 0, n});
    longest = std::max(longest, n);
  }
  plans.push_back({forward});
  plans.push_back({backward});
  for (int64_t split = 1; split < longest; ++split) {
    Plan plan(2);
    for (int i = 0; i < count; ++i) {
      const int64_t n = lengths[static_cast<size_t>(i)], at = std::min(split, n);
      plan[0].push_back({i, 0, at});
      plan[1].push_back({i, at, n});
    }
    plans.push_back(plan);
  }
  Plan single, pieces;
  std::vector<int64_t> at(lengths.size(), 0);
  for (int64_t t = 0; t < longest; ++t) {
    single.emplace_back();
    pieces.emplace_back();
    for (int i = 0; i < count; ++i) {
      const int64_t n = lengths[static_cast<size_t>(i)];
      if (t < n) single.back().push_back({i, t, t + 1});
      int64_t& from = at[static_cast<size_t>(i)];
      const int64_t to = std::min(n, from + random.Int(0, 7));
      pieces.back().push_back({i, from, t + 1 == longest ? n : to});
      from = to;
    }
  }
  plans.push_back(single);
  plans.push_back(pieces);
  return plans;
}

// Places of `count` checkpoints: not their numbers.
inline std::vector<int32_t> BackwardPlaces(size_t count) {
  std::vector<int32_t> places;
  for (size_t i = count; i > 0; --i) places.push_back(static_cast<int32_t>(i - 1));
  return places;
}

}  // namespace anabranch::kernels::testing
