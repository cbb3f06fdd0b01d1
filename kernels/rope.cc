#include <algorithm>
#include <cmath>

#include "kernels/attention.h"
#include "kernels/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/rope.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace anabranch::kernels {
namespace HWY_NAMESPACE {

// Pairs (a, b) of `count` channels; with kRound products and sums are rounded as the reference
// does.
template <bool kRound>
HWY_INLINE void RotateSpan(float* a, float* b, const float* cosine, const float* sine,
                           int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t left = count - i;
    const VF c = LoadUpTo(cosine + i, left), s = LoadUpTo(sine + i, left);
    const VF va = LoadUpTo(a + i, left), vb = LoadUpTo(b + i, left);
    const VF ac = MaybeRound<kRound>(hn::Mul(va, c)), bs = MaybeRound<kRound>(hn::Mul(vb, s));
    const VF bc = MaybeRound<kRound>(hn::Mul(vb, c)), as = MaybeRound<kRound>(hn::Mul(va, s));
    StoreUpTo(MaybeRound<kRound>(hn::Sub(ac, bs)), a + i, left);
    StoreUpTo(MaybeRound<kRound>(hn::Add(bc, as)), b + i, left);
  }
}

// Pairs [pair, pair + count) of every head of one row.
void RotatePairs(const RopeParams& p, float* row, int64_t pair, int64_t count, float* cosine,
                 float* sine) {
  if (p.round_to_bf16) {
    for (int64_t i = 0; i < count; i += kLanes) {
      StoreUpTo(RoundToBf16(LoadUpTo(cosine + i, count - i)), cosine + i, count - i);
      StoreUpTo(RoundToBf16(LoadUpTo(sine + i, count - i)), sine + i, count - i);
    }
  }
  for (int32_t head = 0; head < p.heads; ++head) {
    float* a = row + static_cast<int64_t>(head) * p.head_dim + pair;
    float* b = a + p.rotary_dim / 2;
    p.round_to_bf16 ? RotateSpan<true>(a, b, cosine, sine, count)
                    : RotateSpan<false>(a, b, cosine, sine, count);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace anabranch::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace anabranch::kernels {
namespace {

HWY_EXPORT(RotatePairs);

constexpr int kPairs = 64;  // at a time, so that angles fit the stack

// The reference computes 1 / theta^(2i / r) and the angles in float32.
void Frequencies(const RopeParams& p, int64_t pair, int64_t count, float* frequency) {
  const float theta = static_cast<float>(p.theta);
  for (int64_t i = 0; i < count; ++i) {
    const float exponent = static_cast<float>(2 * (pair + i)) / static_cast<float>(p.rotary_dim);
    frequency[i] = 1.0f / std::pow(theta, exponent);
  }
}

void RotateRows(const RopeParams& p, int64_t begin, int64_t end) {
  alignas(64) float frequency[kPairs], cosine[kPairs], sine[kPairs];
  for (int64_t pair = 0; pair < p.rotary_dim / 2; pair += kPairs) {
    const int64_t count = std::min<int64_t>(kPairs, p.rotary_dim / 2 - pair);
    Frequencies(p, pair, count, frequency);
    int32_t seq = 0;
    for (int64_t row = begin; row < end; ++row) {
      while (p.rows.row_start[seq + 1] <= row) ++seq;
      const float at = static_cast<float>(p.position[seq] + row - p.rows.row_start[seq]);
      for (int64_t i = 0; i < count; ++i) {
        cosine[i] = std::cos(at * frequency[i]);
        sine[i] = std::sin(at * frequency[i]);
      }
      HWY_DYNAMIC_DISPATCH(RotatePairs)(p, p.x + row * p.x_stride, pair, count, cosine, sine);
    }
  }
}

}  // namespace

absl::Status Rope(const RopeParams& p, const Launch& launch) {
  if (p.rows.num_rows() == 0) return absl::OkStatus();
  if (absl::Status s = CheckRows(p.rows, false, "Rope"); !s.ok()) return s;
  const bool ok = p.position != nullptr && p.x != nullptr && p.heads > 0 && p.head_dim > 0 &&
                  p.rotary_dim >= 0 && p.rotary_dim % 2 == 0 && p.rotary_dim <= p.head_dim &&
                  p.theta > 0 && p.x_stride >= static_cast<int64_t>(p.heads) * p.head_dim;
  if (!ok) return Require(false, "Rope", "bad size, rotary_dim, theta, array or stride");
  launch.For(p.rows.num_rows(), 8, [&](int64_t begin, int64_t end) { RotateRows(p, begin, end); });
  return absl::OkStatus();
}

}  // namespace anabranch::kernels
#endif  // HWY_ONCE
