#include "kernels/elementwise.h"

#include <algorithm>

#include "kernels/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/elementwise.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace anabranch::kernels {
namespace HWY_NAMESPACE {

HWY_INLINE VF LoadBf16UpTo(const uint16_t* HWY_RESTRICT p, int64_t left) {
  if (left >= kLanes) return LoadBf16(p);
  HWY_ALIGN uint16_t some[kLanes] = {};
  for (int64_t i = 0; i < left; ++i) some[i] = p[i];
  return LoadBf16(some);
}

template <bool kRound>
HWY_INLINE void EmbedRow(const EmbedParams& p, int64_t row) {
  const VF scale = hn::Set(DF(), p.scale);
  const int64_t from = static_cast<int64_t>(p.ids[row]) * p.width;
  float* y = p.y + row * p.width;
  for (int64_t i = 0; i < p.width; i += kLanes) {
    const int64_t left = p.width - i;
    const VF v = p.dtype == DType::kFloat32
                     ? LoadUpTo(static_cast<const float*>(p.table) + from + i, left)
                     : LoadBf16UpTo(static_cast<const uint16_t*>(p.table) + from + i, left);
    StoreUpTo(MaybeRound<kRound>(hn::Mul(v, scale)), y + i, left);
  }
}

void EmbedRows(const EmbedParams& p, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    p.round_to_bf16 ? EmbedRow<true>(p, row) : EmbedRow<false>(p, row);
  }
}

// As the reference in bfloat16: silu is rounded, then the product.
template <bool kRound>
HWY_INLINE void SiluMulRow(const SiluMulParams& p, int64_t row) {
  const float* gate = p.gate + row * p.in_stride;
  const float* up = p.up + row * p.in_stride;
  float* y = p.y + row * p.y_stride;
  for (int64_t i = 0; i < p.width; i += kLanes) {
    const int64_t left = p.width - i;
    const VF act = MaybeRound<kRound>(Silu(LoadUpTo(gate + i, left)));
    StoreUpTo(MaybeRound<kRound>(hn::Mul(act, LoadUpTo(up + i, left))), y + i, left);
  }
}

void SiluMulRows(const SiluMulParams& p, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    p.round_to_bf16 ? SiluMulRow<true>(p, row) : SiluMulRow<false>(p, row);
  }
}

template <bool kRound>
HWY_INLINE void AddScaledSpan(const AddScaledParams& p, int64_t begin, int64_t end) {
  const VF scale = hn::Set(DF(), p.scale);
  for (int64_t i = begin; i < end; i += kLanes) {
    const int64_t left = end - i;
    const VF product = MaybeRound<kRound>(hn::Mul(LoadUpTo(p.y + i, left), scale));
    StoreUpTo(MaybeRound<kRound>(hn::Add(LoadUpTo(p.x + i, left), product)), p.x + i, left);
  }
}

void AddScaledRows(const AddScaledParams& p, int64_t begin, int64_t end) {
  p.round_to_bf16 ? AddScaledSpan<true>(p, begin * p.width, end * p.width)
                  : AddScaledSpan<false>(p, begin * p.width, end * p.width);
}

}  // namespace HWY_NAMESPACE
}  // namespace anabranch::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace anabranch::kernels {
namespace {

HWY_EXPORT(EmbedRows);
HWY_EXPORT(SiluMulRows);
HWY_EXPORT(AddScaledRows);

}  // namespace

absl::Status Embed(const EmbedParams& p, const Launch& launch) {
  if (p.rows == 0 || p.width == 0) return absl::OkStatus();
  const bool ok = p.rows > 0 && p.width > 0 && p.ids != nullptr && p.table != nullptr &&
                  p.y != nullptr &&
                  std::all_of(p.ids, p.ids + p.rows, [](int32_t id) { return id >= 0; });
  if (!ok) return Require(false, "Embed", "negative size or id, or a missing array");
  launch.For(p.rows, RowGrain(p.width), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(EmbedRows)(p, begin, end);
  });
  return absl::OkStatus();
}

absl::Status SiluMul(const SiluMulParams& p, const Launch& launch) {
  if (p.rows == 0 || p.width == 0) return absl::OkStatus();
  const bool ok = p.rows > 0 && p.width > 0 && p.gate != nullptr && p.up != nullptr &&
                  p.y != nullptr && p.in_stride >= p.width && p.y_stride >= p.width;
  if (!ok) return Require(false, "SiluMul", "negative size, missing array or short stride");
  launch.For(p.rows, RowGrain(p.width), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(SiluMulRows)(p, begin, end);
  });
  return absl::OkStatus();
}

absl::Status AddScaled(const AddScaledParams& p, const Launch& launch) {
  if (p.rows == 0 || p.width == 0) return absl::OkStatus();
  const bool ok = p.rows > 0 && p.width > 0 && p.x != nullptr && p.y != nullptr;
  if (!ok) return Require(false, "AddScaled", "negative size or missing array");
  launch.For(p.rows, RowGrain(p.width), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(AddScaledRows)(p, begin, end);
  });
  return absl::OkStatus();
}

}  // namespace anabranch::kernels
#endif  // HWY_ONCE
