#include "kernels/causal_conv1d.h"

#include <algorithm>
#include <cstring>

#include "kernels/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/causal_conv1d.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace anabranch::kernels {
namespace HWY_NAMESPACE {

// Channels of one work item.
inline constexpr int64_t kConvBlock = 128;
inline constexpr int kMaxWidth = 8;

// Row t of the inputs of sequence `seq` for t < 0 comes from the window.
HWY_INLINE const float* InputRow(const CausalConv1dParams& p, int32_t seq, int64_t t) {
  if (t >= 0) return p.u + (p.rows.row_start[seq] + t) * p.u_stride;
  return p.window + p.rows.slot[seq] * p.window_slot_stride + (p.width - 1 + t) * p.channels;
}

HWY_INLINE void ConvRow(const CausalConv1dParams& p, const float* const* in, int64_t begin,
                        int64_t end, float* out) {
  for (int64_t c = begin; c < end; c += kLanes) {
    const int64_t left = end - c;
    VF acc = p.bias == nullptr ? hn::Zero(DF()) : LoadUpTo(p.bias + c, left);
    for (int j = 0; j < p.width; ++j) {
      acc =
          hn::MulAdd(LoadUpTo(p.weight + j * p.channels + c, left), LoadUpTo(in[j] + c, left), acc);
    }
    if (p.silu) acc = Silu(acc);
    if (p.round_to_bf16) acc = RoundToBf16(acc);
    StoreUpTo(acc, out + c, left);
  }
}

// The last width - 1 inputs move into the window, oldest first. A row is read before it is written
// because sources are never older than their target.
HWY_INLINE void KeepWindow(const CausalConv1dParams& p, int32_t seq, int64_t rows, int64_t begin,
                           int64_t end) {
  float* window = p.window + p.rows.slot[seq] * p.window_slot_stride;
  for (int j = 0; j < p.width - 1; ++j) {
    const float* from = InputRow(p, seq, rows - (p.width - 1) + j);
    std::memmove(window + j * p.channels + begin, from + begin,
                 static_cast<size_t>(end - begin) * sizeof(float));
  }
}

// Windows after rows of the launch, while the old one is there.
HWY_INLINE void KeepCheckpoints(const CausalConv1dParams& p, int32_t seq, int64_t begin,
                                int64_t end) {
  const int64_t first = p.rows.row_start[seq], last = p.rows.row_start[seq + 1];
  for (int32_t i = p.checkpoints.FirstFrom(first); i < p.checkpoints.count; ++i) {
    const int64_t row = p.checkpoints.row[i];
    if (row >= last) return;
    float* window = p.checkpoint_window + p.checkpoints.place[i] * p.checkpoint_window_stride;
    for (int j = 0; j < p.width - 1; ++j) {
      const float* from = InputRow(p, seq, row - first - (p.width - 2) + j);
      std::memcpy(window + j * p.channels + begin, from + begin,
                  static_cast<size_t>(end - begin) * sizeof(float));
    }
  }
}

// Items are (sequence, channel block).
void ConvItems(const CausalConv1dParams& p, int64_t first, int64_t last) {
  const int64_t blocks = (p.channels + kConvBlock - 1) / kConvBlock;
  for (int64_t item = first; item < last; ++item) {
    const int32_t seq = static_cast<int32_t>(item / blocks);
    const int64_t begin = item % blocks * kConvBlock;
    const int64_t end = std::min(p.channels, begin + kConvBlock);
    const int64_t rows = p.rows.row_start[seq + 1] - p.rows.row_start[seq];
    for (int64_t t = 0; t < rows; ++t) {
      const float* in[kMaxWidth];
      for (int j = 0; j < p.width; ++j) in[j] = InputRow(p, seq, t - p.width + 1 + j);
      ConvRow(p, in, begin, end, p.out + (p.rows.row_start[seq] + t) * p.out_stride);
    }
    if (rows == 0) continue;
    KeepCheckpoints(p, seq, begin, end);
    KeepWindow(p, seq, rows, begin, end);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace anabranch::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace anabranch::kernels {
namespace {

HWY_EXPORT(ConvItems);

constexpr int64_t kBlock = 128;  // kConvBlock, which lives in a target's namespace

absl::Status Check(const CausalConv1dParams& p) {
  if (absl::Status s = CheckRows(p.rows, true, "CausalConv1d"); !s.ok()) return s;
  const bool ok = p.channels > 0 && p.width >= 2 && p.width <= 8 && p.u != nullptr &&
                  p.weight != nullptr && p.window != nullptr && p.out != nullptr &&
                  p.u_stride >= p.channels && p.out_stride >= p.channels &&
                  p.window_slot_stride >= 0 &&
                  (p.checkpoints.count == 0 || p.checkpoint_window != nullptr);
  return Require(ok, "CausalConv1d", "bad size, array or stride");
}

}  // namespace

absl::Status CausalConv1d(const CausalConv1dParams& p, const Launch& launch) {
  if (p.rows.num_rows() == 0) return absl::OkStatus();
  if (absl::Status s = Check(p); !s.ok()) return s;
  const int64_t blocks = (p.channels + kBlock - 1) / kBlock;
  const int64_t rows_each = std::max<int64_t>(1, p.rows.num_rows() / p.rows.num_seqs);
  launch.For(p.rows.num_seqs * blocks, std::max<int64_t>(1, 32 / rows_each),
             [&](int64_t begin, int64_t end) {
               HWY_DYNAMIC_DISPATCH(ConvItems)
               (p, begin, end);
             });
  return absl::OkStatus();
}

}  // namespace anabranch::kernels
#endif  // HWY_ONCE
