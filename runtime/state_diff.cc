#include "runtime/state_diff.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "runtime/float_convert.h"
#include "runtime/merge_kv.h"
#include "runtime/state_tensors.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

struct Sums {
  double aa = 0, bb = 0, ab = 0, dd = 0;

  void Add(double a, double b) {
    aa += a * a;
    bb += b * b;
    ab += a * b;
    dd += (a - b) * (a - b);
  }
  Sums& operator+=(const Sums& other) {
    aa += other.aa;
    bb += other.bb;
    ab += other.ab;
    dd += other.dd;
    return *this;
  }
  Distance Result() const {
    Distance distance;
    distance.norm_a = std::sqrt(aa);
    distance.norm_b = std::sqrt(bb);
    const double larger = std::max(aa, bb), product = distance.norm_a * distance.norm_b;
    if (larger > 0) distance.relative_l2 = std::sqrt(dd / larger);
    if (product > 0) distance.cosine = std::clamp(ab / product, -1.0, 1.0);
    return distance;
  }
};

TensorDistance Summarize(int32_t layer, StateKind kind, const std::vector<Sums>& heads) {
  TensorDistance tensor;
  tensor.layer = layer;
  tensor.kind = kind;
  const int64_t count = heads.size();
  tensor.heads_per_part = (count + kMaxDiffParts - 1) / kMaxDiffParts;
  Sums whole;
  for (int64_t start = 0; start < count; start += tensor.heads_per_part) {
    Sums part;
    for (int64_t h = start; h < std::min(start + tensor.heads_per_part, count); ++h) {
      part += heads[h];
    }
    tensor.parts.push_back(part.Result());
    whole += part;
  }
  tensor.whole = whole.Result();
  return tensor;
}

absl::StatusOr<TensorDistance> DiffRecurrent(const StateLayout& layout, const StateImage& a,
                                             const StateImage& b, const StateSegment& segment) {
  ANABRANCH_ASSIGN_OR_RETURN(const RecurrentDecay decay, DecayOf(layout, a.header, segment));
  const std::vector<float> in_a = ReadFloats(a, segment);
  const std::vector<float> in_b = ReadFloats(b, segment);
  std::vector<Sums> heads(decay.groups);
  for (size_t i = 0; i < in_a.size(); ++i) heads[i / decay.size].Add(in_a[i], in_b[i]);
  return Summarize(segment.layer, segment.kind, heads);
}

// One number of a row as stored.
double Number(const char* row, int64_t i, StateDType dtype) {
  if (dtype == StateDType::kBFloat16) {
    uint16_t bits;
    std::memcpy(&bits, row + 2 * i, sizeof(bits));
    return FromBFloat16(bits);
  }
  float value;
  std::memcpy(&value, row + 4 * i, sizeof(value));
  return value;
}

TensorDistance DiffPaged(const StateLayout& layout, const StateImage& a, const StateImage& b,
                         size_t index) {
  const StateEntry& entry = layout.entries[index];
  const int64_t head_dim = entry.shape[2], size = entry.shape[1] * head_dim;
  std::vector<Sums> heads(entry.shape[1]);
  const int64_t tokens = std::max(a.header.token_count, b.header.token_count);
  for (int64_t token = 0; token < tokens; ++token) {
    const auto row = [&](const StateImage& image) {
      return token < image.header.token_count ? KvRow(layout, image, index, token) : nullptr;
    };
    const char *row_a = row(a), *row_b = row(b);
    for (int64_t i = 0; i < size; ++i) {
      heads[i / head_dim].Add(row_a != nullptr ? Number(row_a, i, entry.stored_dtype) : 0,
                              row_b != nullptr ? Number(row_b, i, entry.stored_dtype) : 0);
    }
  }
  return Summarize(entry.layer, entry.kind, heads);
}

}  // namespace

absl::StatusOr<std::vector<TensorDistance>> DiffStates(const StateLayout& layout,
                                                       const StateImage& a, const StateImage& b) {
  std::vector<TensorDistance> tensors;
  for (const StateSegment& segment : a.header.segments) {
    if (segment.kind != StateKind::kRecurrent || segment.layer == kLastLogitsLayer) continue;
    ANABRANCH_ASSIGN_OR_RETURN(TensorDistance tensor, DiffRecurrent(layout, a, b, segment));
    tensors.push_back(std::move(tensor));
  }
  for (size_t e = 0; e < layout.entries.size(); ++e) {
    if (layout.entries[e].paged()) tensors.push_back(DiffPaged(layout, a, b, e));
  }
  std::stable_sort(tensors.begin(), tensors.end(),
                   [](const auto& x, const auto& y) { return x.layer < y.layer; });
  return tensors;
}

}  // namespace anabranch
