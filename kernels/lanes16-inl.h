// Sums over a row by 16 virtual lanes, whatever the vectors' width: an F16 is one 512-bit, two
// 256-bit, four 128-bit registers, or 16 floats.
//
// Lane l sums elements l, l + 16, l + 32, ... in that order; then lane l takes lane l + 8, then
// l + 4, and the last four are (0 + 1) + (2 + 3). Every target with fused multiply-add therefore
// computes the same bits, and a state moves between AVX2 and AVX-512 machines unchanged.
#if defined(ANABRANCH_KERNELS_LANES16_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ANABRANCH_KERNELS_LANES16_INL_H_
#undef ANABRANCH_KERNELS_LANES16_INL_H_
#else
#define ANABRANCH_KERNELS_LANES16_INL_H_
#endif

#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace anabranch::kernels {
namespace HWY_NAMESPACE {

inline constexpr int kRegs = 16 / kLanes;
static_assert(16 % kLanes == 0);

// Lane l is lane l % kLanes of r[l / kLanes].
struct F16 {
  VF r[kRegs];
};

// Sixteen zeros: where every sum starts.
HWY_INLINE F16 Zero16() {
  F16 out;
  for (int i = 0; i < kRegs; ++i) out.r[i] = hn::Zero(DF());
  return out;
}

HWY_INLINE F16 Load16(const float* HWY_RESTRICT p) {
  F16 out;
  for (int i = 0; i < kRegs; ++i) out.r[i] = hn::LoadU(DF(), p + i * kLanes);
  return out;
}

// The first min(left, 16) elements; zeros after them. left may be zero or negative.
HWY_INLINE F16 Load16UpTo(const float* HWY_RESTRICT p, int64_t left) {
  F16 out;
  for (int i = 0; i < kRegs; ++i) {
    const int64_t here = left - i * kLanes;
    out.r[i] = here > 0 ? LoadUpTo(p + i * kLanes, here) : hn::Zero(DF());
  }
  return out;
}

HWY_INLINE void Store16(const F16& v, float* HWY_RESTRICT p) {
  for (int i = 0; i < kRegs; ++i) hn::StoreU(v.r[i], DF(), p + i * kLanes);
}

// Stores the first min(left, 16) lanes; nothing if left is not positive.
HWY_INLINE void Store16UpTo(const F16& v, float* HWY_RESTRICT p, int64_t left) {
  for (int i = 0; i < kRegs; ++i) {
    const int64_t here = left - i * kLanes;
    if (here > 0) StoreUpTo(v.r[i], p + i * kLanes, here);
  }
}

// acc + a * b, fused: one rounding. (The portable baseline rounds twice.)
HWY_INLINE F16 MulAdd16(const F16& a, const F16& b, const F16& acc) {
  F16 out;
  for (int i = 0; i < kRegs; ++i) out.r[i] = hn::MulAdd(a.r[i], b.r[i], acc.r[i]);
  return out;
}

// Lane by lane.
HWY_INLINE F16 Add16(const F16& a, const F16& b) {
  F16 out;
  for (int i = 0; i < kRegs; ++i) out.r[i] = hn::Add(a.r[i], b.r[i]);
  return out;
}

// Sum of the 16 lanes, as the tree of the top comment. Additions are commutative bit for bit, so
// which register a partial sum sits in does not matter; which two meet does.
HWY_INLINE float Sum16(const F16& v) {
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2
  const hn::CappedTag<float, 8> d8;
  const hn::CappedTag<float, 4> d4;
#if HWY_TARGET == HWY_AVX3
  const auto s8 = hn::Add(hn::LowerHalf(d8, v.r[0]), hn::UpperHalf(d8, v.r[0]));
#else
  const auto s8 = hn::Add(v.r[0], v.r[1]);
#endif
  const auto s4 = hn::Add(hn::LowerHalf(d4, s8), hn::UpperHalf(d4, s8));
  const auto s2 = hn::Add(s4, hn::Shuffle2301(s4));
  return hn::GetLane(hn::Add(s2, hn::Shuffle1032(s2)));
#else
  alignas(64) float s[16];
  for (int i = 0; i < kRegs; ++i) hn::Store(v.r[i], DF(), s + i * kLanes);
  for (int l = 0; l < 8; ++l) s[l] += s[l + 8];
  for (int l = 0; l < 4; ++l) s[l] += s[l + 4];
  return (s[0] + s[1]) + (s[2] + s[3]);
#endif
}

// out[0..4) = Sum16 of a, b, c, e, with fewer shuffles than four calls.
HWY_INLINE void Sum16x4(const F16& a, const F16& b, const F16& c, const F16& e,
                        float* HWY_RESTRICT out) {
#if HWY_TARGET == HWY_AVX3
  const DF d;
  const hn::CappedTag<float, 8> d8;
  const hn::CappedTag<float, 4> d4;
  const VF ab =
      hn::Add(hn::ConcatLowerLower(d, b.r[0], a.r[0]), hn::ConcatUpperUpper(d, b.r[0], a.r[0]));
  const VF ce =
      hn::Add(hn::ConcatLowerLower(d, e.r[0], c.r[0]), hn::ConcatUpperUpper(d, e.r[0], c.r[0]));
  // Blocks a, c, b, e after this addition.
  const VF s4 =
      hn::Add(hn::OddEvenBlocks(ce, ab), hn::SwapAdjacentBlocks(hn::OddEvenBlocks(ab, ce)));
  const VF s2 = hn::Add(s4, hn::Shuffle2301(s4));
  const VF s1 = hn::Add(s2, hn::Shuffle1032(s2));
  alignas(64) static constexpr int32_t kPick[16] = {0, 8, 4, 12};
  const VF picked = hn::TableLookupLanes(s1, hn::SetTableIndices(d, kPick));
  hn::StoreU(hn::LowerHalf(d4, hn::LowerHalf(d8, picked)), d4, out);
#elif HWY_TARGET == HWY_AVX2
  const DF d;
  const hn::CappedTag<float, 4> d4;
  const VF a8 = hn::Add(a.r[0], a.r[1]), b8 = hn::Add(b.r[0], b.r[1]);
  const VF c8 = hn::Add(c.r[0], c.r[1]), e8 = hn::Add(e.r[0], e.r[1]);
  const VF ab = hn::Add(hn::ConcatLowerLower(d, b8, a8), hn::ConcatUpperUpper(d, b8, a8));
  const VF ce = hn::Add(hn::ConcatLowerLower(d, e8, c8), hn::ConcatUpperUpper(d, e8, c8));
  // Lanes a, c, a, c | b, e, b, e after this addition.
  const VF s2 = hn::OddEven(hn::Add(ce, hn::Shuffle2301(ce)), hn::Add(ab, hn::Shuffle2301(ab)));
  const VF s1 = hn::Add(s2, hn::Shuffle1032(s2));
  alignas(32) static constexpr int32_t kPick[8] = {0, 4, 1, 5};
  hn::StoreU(hn::LowerHalf(d4, hn::TableLookupLanes(s1, hn::SetTableIndices(d, kPick))), d4, out);
#else
  out[0] = Sum16(a);
  out[1] = Sum16(b);
  out[2] = Sum16(c);
  out[3] = Sum16(e);
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace anabranch::kernels
HWY_AFTER_NAMESPACE();

#endif  // per-target guard
