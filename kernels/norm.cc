#include "kernels/norm.h"

#include <cmath>

#include "kernels/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/norm.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.
#include "kernels/lanes16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace anabranch::kernels {
namespace HWY_NAMESPACE {

// Sum of squares in four sets of 16 virtual lanes: element i belongs to set (i / 16) mod 4.
HWY_INLINE float SumOfSquares(const float* HWY_RESTRICT x, int64_t n) {
  F16 s0 = Zero16(), s1 = Zero16(), s2 = Zero16(), s3 = Zero16();
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
    const F16 a = Load16(x + i), b = Load16(x + i + 16);
    const F16 c = Load16(x + i + 32), e = Load16(x + i + 48);
    s0 = MulAdd16(a, a, s0);
    s1 = MulAdd16(b, b, s1);
    s2 = MulAdd16(c, c, s2);
    s3 = MulAdd16(e, e, s3);
  }
  if (i < n) {  // zeros beyond the end change no sum
    const F16 a = Load16UpTo(x + i, n - i), b = Load16UpTo(x + i + 16, n - i - 16);
    const F16 c = Load16UpTo(x + i + 32, n - i - 32), e = Load16UpTo(x + i + 48, n - i - 48);
    s0 = MulAdd16(a, a, s0);
    s1 = MulAdd16(b, b, s1);
    s2 = MulAdd16(c, c, s2);
    s3 = MulAdd16(e, e, s3);
  }
  return Sum16(Add16(Add16(s0, s1), Add16(s2, s3)));
}

HWY_INLINE float InverseRms(const float* x, int64_t n, float eps) {
  return 1.0f / std::sqrt(SumOfSquares(x, n) / static_cast<float>(n) + eps);
}

// y = weight * round(x * inverse), rounded again.
template <bool kRound>
HWY_INLINE void Scale(const float* x, const float* weight, float inverse, int64_t n, float* y) {
  const VF inv = hn::Set(DF(), inverse);
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t left = n - i;
    VF v = MaybeRound<kRound>(hn::Mul(LoadUpTo(x + i, left), inv));
    if (weight != nullptr) v = MaybeRound<kRound>(hn::Mul(LoadUpTo(weight + i, left), v));
    StoreUpTo(v, y + i, left);
  }
}

template <bool kRound>
HWY_INLINE void NormRow(const RmsNormParams& p, int64_t row) {
  const int64_t n = p.width / p.groups;
  for (int64_t at = 0; at < p.width; at += n) {
    const float* x = p.x + row * p.x_stride + at;
    Scale<kRound>(x, p.weight == nullptr ? nullptr : p.weight + at, InverseRms(x, n, p.eps), n,
                  p.y + row * p.y_stride + at);
  }
}

void NormRows(const RmsNormParams& p, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    p.round_to_bf16 ? NormRow<true>(p, row) : NormRow<false>(p, row);
  }
}

// y = x * silu(z), y may be x.
template <bool kRound>
HWY_INLINE void Gate(const float* x, const float* z, int64_t n, float* y) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t left = n - i;
    const VF v = hn::Mul(LoadUpTo(x + i, left), Silu(LoadUpTo(z + i, left)));
    StoreUpTo(MaybeRound<kRound>(v), y + i, left);
  }
}

// y = round(weight * x * inverse * silu(z)).
template <bool kRound>
HWY_INLINE void ScaleThenGate(const float* x, const float* weight, const float* z, float inverse,
                              int64_t n, float* y) {
  const VF inv = hn::Set(DF(), inverse);
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t left = n - i;
    VF v = hn::Mul(LoadUpTo(x + i, left), inv);
    if (weight != nullptr) v = hn::Mul(LoadUpTo(weight + i, left), v);
    v = hn::Mul(v, Silu(LoadUpTo(z + i, left)));
    StoreUpTo(MaybeRound<kRound>(v), y + i, left);
  }
}

template <bool kRound>
HWY_INLINE void GatedRow(const GatedRmsNormParams& g, int64_t row) {
  const RmsNormParams& p = g.norm;
  const int64_t n = p.width / p.groups;
  for (int64_t at = 0; at < p.width; at += n) {
    const float* x = p.x + row * p.x_stride + at;
    const float* z = g.z + row * g.z_stride + at;
    const float* weight = p.weight == nullptr ? nullptr : p.weight + at;
    float* y = p.y + row * p.y_stride + at;
    switch (g.order) {
      case GateOrder::kGateOnly:
        Gate<kRound>(x, z, n, y);
        break;
      case GateOrder::kGateFirst:  // the gated value is kept in y between the two passes
        Gate<false>(x, z, n, y);
        Scale<kRound>(y, weight, InverseRms(y, n, p.eps), n, y);
        break;
      case GateOrder::kNormFirst:
        ScaleThenGate<kRound>(x, weight, z, InverseRms(x, n, p.eps), n, y);
        break;
    }
  }
}

void GatedRows(const GatedRmsNormParams& p, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    p.norm.round_to_bf16 ? GatedRow<true>(p, row) : GatedRow<false>(p, row);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace anabranch::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace anabranch::kernels {
namespace {

HWY_EXPORT(NormRows);
HWY_EXPORT(GatedRows);

absl::Status Check(const RmsNormParams& p) {
  const bool ok = p.rows >= 0 && p.width > 0 && p.groups > 0 && p.width % p.groups == 0 &&
                  p.x_stride >= p.width && p.y_stride >= p.width && p.x != nullptr &&
                  p.y != nullptr;
  return Require(ok, "RmsNorm", "bad size, group count, array or stride");
}

}  // namespace

absl::Status RmsNorm(const RmsNormParams& p, const Launch& launch) {
  if (p.rows == 0) return absl::OkStatus();
  if (absl::Status s = Check(p); !s.ok()) return s;
  launch.For(p.rows, RowGrain(p.width), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(NormRows)(p, begin, end);
  });
  return absl::OkStatus();
}

absl::Status GatedRmsNorm(const GatedRmsNormParams& p, const Launch& launch) {
  if (p.norm.rows == 0) return absl::OkStatus();
  if (absl::Status s = Check(p.norm); !s.ok()) return s;
  if (p.z == nullptr || p.z_stride < p.norm.width) {
    return Require(false, "GatedRmsNorm", "missing gate or short stride");
  }
  launch.For(p.norm.rows, RowGrain(p.norm.width), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(GatedRows)(p, begin, end);
  });
  return absl::OkStatus();
}

}  // namespace anabranch::kernels
#endif  // HWY_ONCE
