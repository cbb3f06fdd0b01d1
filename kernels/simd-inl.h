// Vectors of the CPU kernels, compiled once per Highway target (so: no classic include guard).
//
// What is here is element-wise: an element's result does not depend on the lane it sits in, on the
// vector's width or on what the other lanes hold. Reductions are in lanes16-inl.h. All of it is
// force-inlined into functions of the same target; a lambda would not inherit the target, so the
// kernels use none in vector code.
#if defined(ANABRANCH_KERNELS_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ANABRANCH_KERNELS_SIMD_INL_H_
#undef ANABRANCH_KERNELS_SIMD_INL_H_
#else
#define ANABRANCH_KERNELS_SIMD_INL_H_
#endif

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace anabranch::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Float vectors of at most 16 lanes, and unsigned integers of the same shape.
using DF = hn::CappedTag<float, 16>;
using DU = hn::RebindToUnsigned<DF>;
using VF = hn::Vec<DF>;
using VU = hn::Vec<DU>;
inline constexpr int kLanes = static_cast<int>(hn::MaxLanes(DF()));

// The first min(left, kLanes) elements at p; zeros after them. left must be positive.
HWY_INLINE VF LoadUpTo(const float* HWY_RESTRICT p, int64_t left) {
  const DF d;
  if (left >= kLanes) return hn::LoadU(d, p);
#if HWY_MEM_OPS_MIGHT_FAULT  // then a masked load reads the whole vector
  HWY_ALIGN float lanes[kLanes] = {};
  std::memcpy(lanes, p, static_cast<size_t>(left) * sizeof(float));
  return hn::Load(d, lanes);
#else
  return hn::MaskedLoad(hn::FirstN(d, static_cast<size_t>(left)), d, p);
#endif
}

// Stores the first min(left, kLanes) lanes and touches nothing beyond.
HWY_INLINE void StoreUpTo(VF v, float* HWY_RESTRICT p, int64_t left) {
  const DF d;
  if (left >= kLanes) {
    hn::StoreU(v, d, p);
  } else {
    hn::BlendedStore(v, hn::FirstN(d, static_cast<size_t>(left)), d, p);
  }
}

// Nearest bfloat16, ties to even, as a float. NaN stays NaN.
HWY_INLINE VF RoundToBf16(VF v) {
  const DU du;
  const VU bits = hn::BitCast(du, v);
  const VU odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
  const VU rounded = hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7FFF)));
  const VU quiet = hn::Or(bits, hn::Set(du, 0x00400000));
  const VU mask = hn::Set(du, 0xFFFF0000u);
  return hn::IfThenElse(hn::IsNaN(v), hn::BitCast(DF(), hn::And(quiet, mask)),
                        hn::BitCast(DF(), hn::And(rounded, mask)));
}

// For kernels that exist with and without rounding (MODELS.md 1.4).
template <bool kRound>
HWY_INLINE VF MaybeRound(VF v) {
  if constexpr (kRound) return RoundToBf16(v);
  return v;
}

// e^x to 1 unit in the last place. Highway's Exp is right up to 104 and turns NaN into 0, which
// would hide a broken state; this is right everywhere.
HWY_INLINE VF Exp(VF x) {
  const DF d;
  return hn::IfThenElse(hn::IsNaN(x), x, hn::Exp(d, hn::Min(x, hn::Set(d, 104.0f))));
}

// x / (1 + e^-x). Very negative x give -0 through a division by infinity, never NaN.
HWY_INLINE VF Silu(VF x) {
  const DF d;
  return hn::Div(x, hn::Add(hn::Set(d, 1.0f), Exp(hn::Neg(x))));
}

// log(1 + e^x), and x itself beyond 20, where the two agree in float and e^x would overflow later.
HWY_INLINE VF Softplus(VF x) {
  const DF d;
  const VF twenty = hn::Set(d, 20.0f);
  const VF small = hn::Log1p(d, hn::Exp(d, hn::Min(x, twenty)));
  return hn::IfThenElse(hn::Or(hn::Gt(x, twenty), hn::IsNaN(x)), x, small);
}

// 16-bit values widened into the high halves of 32-bit lanes.
HWY_INLINE VF LoadBf16(const uint16_t* HWY_RESTRICT p) {
  const hn::Rebind<uint16_t, DF> du16;
  return hn::BitCast(DF(), hn::ShiftLeft<16>(hn::PromoteTo(DU(), hn::LoadU(du16, p))));
}

}  // namespace HWY_NAMESPACE
}  // namespace anabranch::kernels
HWY_AFTER_NAMESPACE();

#endif  // per-target guard
