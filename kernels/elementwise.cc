#include "kernels/elementwise.h"

#include <algorithm>
#include <cmath>

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

// x * Phi(x) with Phi(-a) = exp(-a^2 / 2) * t * P(t) / 2 for a >= 0 and t = 2 / (2 + a / sqrt(2)).
// P is the Chebyshev fit of erfc(s) exp(s^2) / t on (0, 1], right to 1e-8. The rounding of a^2 is
// carried along, so the left tail keeps its relative precision.
HWY_INLINE VF Gelu(VF x) {
  constexpr float kFit[] = {0.04535133662f, -0.2455800363f,  0.5168995401f,  -0.4824747605f,
                            0.1518851796f,  -0.06795827531f, 0.09582719939f, 0.1749485963f,
                            0.2469135612f,  0.2820928673f,   0.2820947997f};
  const DF d;
  const VF a = hn::Min(hn::Abs(x), hn::Set(d, 40.0f)), two = hn::Set(d, 2.0f);
  const VF t = hn::Div(two, hn::MulAdd(a, hn::Set(d, 0.70710678f), two));
  VF fit = hn::Set(d, kFit[0]);
  for (int i = 1; i < 11; ++i) fit = hn::MulAdd(fit, t, hn::Set(d, kFit[i]));
  const VF half = hn::Set(d, 0.5f), square = hn::Mul(a, a), lost = hn::MulSub(a, a, square);
  const VF tail =
      hn::Mul(Exp(hn::Mul(square, hn::Neg(half))), hn::NegMulAdd(lost, half, hn::Set(d, 1.0f)));
  const VF phi = hn::Mul(hn::Mul(tail, half), hn::Mul(t, fit));
  const VF one = hn::Set(d, 1.0f);
  return hn::Mul(x, hn::IfThenElse(hn::Lt(x, hn::Zero(d)), phi, hn::Sub(one, phi)));
}

// max(x, 0)^2. NaN stays NaN.
HWY_INLINE VF Relu2(VF x) {
  const VF positive = hn::IfThenElse(hn::Lt(x, hn::Zero(DF())), hn::Zero(DF()), x);
  return hn::Mul(positive, positive);
}

template <Activation kActivation>
HWY_INLINE VF Activate(VF x) {
  if constexpr (kActivation == Activation::kSilu) return Silu(x);
  if constexpr (kActivation == Activation::kGelu) return Gelu(x);
  return Relu2(x);
}

// As the reference in bfloat16: the activation is rounded, then the product.
template <bool kRound, Activation kActivation>
HWY_INLINE void GatedMulRow(const GatedMulParams& p, int64_t row) {
  const float* gate = p.gate + row * p.in_stride;
  const float* up = p.up == nullptr ? nullptr : p.up + row * p.in_stride;
  float* y = p.y + row * p.y_stride;
  for (int64_t i = 0; i < p.width; i += kLanes) {
    const int64_t left = p.width - i;
    VF v = MaybeRound<kRound>(Activate<kActivation>(LoadUpTo(gate + i, left)));
    if (up != nullptr) v = MaybeRound<kRound>(hn::Mul(v, LoadUpTo(up + i, left)));
    StoreUpTo(v, y + i, left);
  }
}

template <Activation kActivation>
HWY_INLINE void GatedMulSpan(const GatedMulParams& p, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    p.round_to_bf16 ? GatedMulRow<true, kActivation>(p, row)
                    : GatedMulRow<false, kActivation>(p, row);
  }
}

void GatedMulRows(const GatedMulParams& p, int64_t begin, int64_t end) {
  switch (p.activation) {
    case Activation::kSilu:
      return GatedMulSpan<Activation::kSilu>(p, begin, end);
    case Activation::kGelu:
      return GatedMulSpan<Activation::kGelu>(p, begin, end);
    case Activation::kRelu2:
      return GatedMulSpan<Activation::kRelu2>(p, begin, end);
  }
}

template <bool kRound>
HWY_INLINE void AddScaledRow(const AddScaledParams& p, int64_t row) {
  const VF scale = hn::Set(DF(), p.scale);
  float* x = p.x + row * p.x_stride;
  const float* y = p.y + row * p.y_stride;
  for (int64_t i = 0; i < p.width; i += kLanes) {
    const int64_t left = p.width - i;
    const VF product = MaybeRound<kRound>(hn::Mul(LoadUpTo(y + i, left), scale));
    StoreUpTo(MaybeRound<kRound>(hn::Add(LoadUpTo(x + i, left), product)), x + i, left);
  }
}

void AddScaledRows(const AddScaledParams& p, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    p.round_to_bf16 ? AddScaledRow<true>(p, row) : AddScaledRow<false>(p, row);
  }
}

template <bool kRound>
HWY_INLINE void ScaleRow(const ScaleParams& p, int64_t row) {
  const float* x = p.x + row * p.x_stride;
  float* y = p.y + row * p.y_stride;
  for (int64_t i = 0; i < p.width; i += kLanes) {
    const int64_t left = p.width - i;
    VF scale = hn::Set(DF(), p.scale);
    if (p.columns != nullptr) scale = hn::Mul(scale, LoadUpTo(p.columns + i, left));
    StoreUpTo(MaybeRound<kRound>(hn::Mul(LoadUpTo(x + i, left), scale)), y + i, left);
  }
}

void ScaleRows(const ScaleParams& p, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    p.round_to_bf16 ? ScaleRow<true>(p, row) : ScaleRow<false>(p, row);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace anabranch::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace anabranch::kernels {
namespace {

HWY_EXPORT(EmbedRows);
HWY_EXPORT(GatedMulRows);
HWY_EXPORT(AddScaledRows);
HWY_EXPORT(ScaleRows);

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

absl::Status GatedMul(const GatedMulParams& p, const Launch& launch) {
  if (p.rows == 0 || p.width == 0) return absl::OkStatus();
  const bool ok = p.rows > 0 && p.width > 0 && p.gate != nullptr && p.y != nullptr &&
                  p.in_stride >= p.width && p.y_stride >= p.width;
  if (!ok) return Require(false, "GatedMul", "negative size, missing array or short stride");
  launch.For(p.rows, RowGrain(p.width), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(GatedMulRows)(p, begin, end);
  });
  return absl::OkStatus();
}

absl::Status CopyRows(const CopyRowsParams& p, const Launch& launch) {
  if (p.rows == 0 || p.width == 0) return absl::OkStatus();
  const bool ok = p.rows > 0 && p.width > 0 && p.x != nullptr && p.y != nullptr &&
                  p.x_stride >= p.width && p.y_stride >= p.width;
  if (!ok) return Require(false, "CopyRows", "negative size, missing array or short stride");
  launch.For(p.rows, RowGrain(p.width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* x = p.x + (p.row == nullptr ? row : p.row[row]) * p.x_stride;
      float* y = p.y + row * p.y_stride;
      std::copy_n(x, p.width, y);
    }
  });
  return absl::OkStatus();
}

// A row counts by its direction: a few tokens have a residual many times larger than all others,
// and would be the whole sum.
absl::Status SumDirections(const SumDirectionsParams& p, const Launch&) {
  if (p.rows.num_rows() == 0 || p.width == 0) return absl::OkStatus();
  if (absl::Status s = CheckRows(p.rows, false, "SumDirections"); !s.ok()) return s;
  const bool kept = p.checkpoints.count == 0 || p.checkpoint_sums != nullptr;
  if (p.width < 0 || p.x == nullptr || p.sums == nullptr || !kept) {
    return Require(false, "SumDirections", "negative width or a missing array");
  }
  int32_t next = 0;
  for (int32_t seq = 0; seq < p.rows.num_seqs; ++seq) {
    float* const sum = p.sums + seq * p.width;
    for (int32_t row = p.rows.row_start[seq]; row < p.rows.row_start[seq + 1]; ++row) {
      const float* const x = p.x + row * p.width;
      float square = 0;
      for (int64_t i = 0; i < p.width; ++i) square += x[i] * x[i];
      const float scale = 1 / std::sqrt(square + 1e-12f);
      for (int64_t i = 0; i < p.width; ++i) sum[i] += scale * x[i];
      for (; next < p.checkpoints.count && p.checkpoints.row[next] == row; ++next) {
        std::copy_n(sum, p.width, p.checkpoint_sums + next * p.width);
      }
    }
  }
  return absl::OkStatus();
}

absl::Status AddScaled(const AddScaledParams& p, const Launch& launch) {
  if (p.rows == 0 || p.width == 0) return absl::OkStatus();
  const bool ok = p.rows > 0 && p.width > 0 && p.x != nullptr && p.y != nullptr &&
                  p.x_stride >= p.width && p.y_stride >= p.width;
  if (!ok) return Require(false, "AddScaled", "negative size, missing array or short stride");
  launch.For(p.rows, RowGrain(p.width), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(AddScaledRows)(p, begin, end);
  });
  return absl::OkStatus();
}

absl::Status Scale(const ScaleParams& p, const Launch& launch) {
  if (p.rows == 0 || p.width == 0) return absl::OkStatus();
  const bool ok = p.rows > 0 && p.width > 0 && p.x != nullptr && p.y != nullptr &&
                  p.x_stride >= p.width && p.y_stride >= p.width;
  if (!ok) return Require(false, "Scale", "negative size, missing array or short stride");
  launch.For(p.rows, RowGrain(p.width), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(ScaleRows)(p, begin, end);
  });
  return absl::OkStatus();
}

}  // namespace anabranch::kernels
#endif  // HWY_ONCE
