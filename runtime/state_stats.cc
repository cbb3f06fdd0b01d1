#include "runtime/state_stats.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "runtime/float_convert.h"
#include "runtime/state_table.h"
#include "runtime/state_tensors.h"

namespace anabranch {
namespace {

constexpr int64_t kMaxUnits = 256, kGroups = 64;

double Number(const char* from, StateDType dtype) {
  switch (dtype) {
    case StateDType::kFloat32: {
      float value;
      std::memcpy(&value, from, sizeof(value));
      return value;
    }
    case StateDType::kBFloat16: {
      uint16_t bits;
      std::memcpy(&bits, from, sizeof(bits));
      return FromBFloat16(bits);
    }
    case StateDType::kFloat64: {
      double value;
      std::memcpy(&value, from, sizeof(value));
      return value;
    }
    case StateDType::kInt8:  // has no numbers one by one
      break;
  }
  return 0;
}

// Sums of squares by head, and the rest of a tensor's numbers.
class Summary {
 public:
  explicit Summary(int64_t heads) : squares_(heads) {}

  void Add(int64_t head, const char* from, int64_t count, StateDType dtype) {
    const size_t step = StateDTypeBytes(dtype);
    for (int64_t i = 0; i < count; ++i) {
      const double value = Number(from + i * step, dtype);
      if (!std::isfinite(value)) {
        ++nonfinite_;
        continue;
      }
      squares_[head] += value * value;
      max_abs_ = std::max(max_abs_, std::abs(value));
    }
  }
  void Fill(TensorStats* stats) const {
    for (const double square : squares_) {
      stats->norms.push_back(static_cast<float>(std::sqrt(square)));
    }
    stats->max_abs = static_cast<float>(max_abs_);
    stats->nonfinite_count = nonfinite_;
  }

 private:
  std::vector<double> squares_;
  double max_abs_ = 0;
  int64_t nonfinite_ = 0;
};

TensorStats OfSegment(const StateSegment& segment, const StateImage& image) {
  TensorStats stats;
  stats.layer = segment.layer;
  stats.kind = segment.kind;
  stats.shape = segment.shape;
  stats.checksum = segment.checksum;
  // What has a norm of its own: all logits together, a window's channel (its last dimension), or
  // else an element of the first dimension.
  const bool logits = segment.layer == kLastLogitsLayer;
  const bool window = !logits && segment.kind == StateKind::kWindow;
  const int64_t units = logits ? 1 : window ? segment.shape.back() : segment.shape.front();
  const int64_t heads = segment.shape.size() < 3 && units > kMaxUnits ? kGroups : units;
  std::vector<float> wide;
  const char* from = image.payload.data() + segment.offset;
  StateDType dtype = segment.dtype;
  if (dtype == StateDType::kInt8) {
    wide = ReadFloats(image, segment);
    from = reinterpret_cast<const char*>(wide.data());
    dtype = StateDType::kFloat32;
  }
  const int64_t step = StateDTypeBytes(dtype);
  const int64_t count = CountOf(segment), run = window ? 1 : count / units;
  Summary summary(heads);
  for (int64_t i = 0; i < count; i += run) {
    const int64_t unit = i / run % units;
    summary.Add(unit * heads / units, from + i * step, run, dtype);
  }
  summary.Fill(&stats);
  return stats;
}

// `before`: bytes that the earlier entries of one token take in a block.
TensorStats OfPages(const StateEntry& entry, int64_t before, const StateImage& image) {
  TensorStats stats;
  stats.layer = entry.layer;
  stats.kind = entry.kind;
  stats.shape = {image.header.token_count, entry.shape[1], entry.shape[2]};
  const int64_t heads = entry.shape[1], dim = entry.shape[2];
  const int64_t head_bytes = dim * StateDTypeBytes(entry.dtype);
  Summary summary(heads);
  for (size_t block = 0; block < image.kv_blocks.size(); ++block) {
    const int64_t tokens = image.header.kv_blocks[block].tokens;
    const char* from = image.kv_blocks[block].data() + before * tokens;
    for (int64_t i = 0; i < tokens * heads; ++i) {
      summary.Add(i % heads, from + i * head_bytes, dim, entry.dtype);
    }
  }
  summary.Fill(&stats);
  return stats;
}

}  // namespace

std::vector<TensorStats> ComputeStateStats(const StateLayout& layout, const StateImage& image) {
  std::vector<TensorStats> all;
  for (const StateSegment& segment : image.header.segments) {
    all.push_back(OfSegment(segment, image));
  }
  int64_t before = 0;
  for (const StateEntry& entry : layout.entries) {
    if (!entry.paged()) continue;
    all.push_back(OfPages(entry, before, image));
    before += static_cast<int64_t>(entry.bytes()) / kKvPageTokens;
  }
  std::stable_sort(all.begin(), all.end(), [](const TensorStats& a, const TensorStats& b) {
    const bool a_last = a.layer == kLastLogitsLayer, b_last = b.layer == kLastLogitsLayer;
    return a_last != b_last ? b_last : a.layer < b.layer;
  });
  return all;
}

}  // namespace anabranch
