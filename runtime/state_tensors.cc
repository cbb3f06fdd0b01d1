#include "runtime/state_tensors.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/float_convert.h"

namespace anabranch {

int64_t NumElements(const StateSegment& segment) {
  return static_cast<int64_t>(segment.bytes / StateDTypeBytes(segment.dtype));
}

void LoadFloats(const char* from, StateDType dtype, int64_t count, float* to) {
  if (dtype == StateDType::kFloat32) {
    std::memcpy(to, from, count * sizeof(float));
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    uint16_t bits;
    std::memcpy(&bits, from + i * sizeof(bits), sizeof(bits));
    to[i] = FromBFloat16(bits);
  }
}

void StoreFloats(const float* from, StateDType dtype, int64_t count, char* to) {
  if (dtype == StateDType::kFloat32) {
    std::memcpy(to, from, count * sizeof(float));
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    const uint16_t bits = ToBFloat16(from[i]);
    std::memcpy(to + i * sizeof(bits), &bits, sizeof(bits));
  }
}

std::vector<float> ReadFloats(const StateImage& image, const StateSegment& segment) {
  std::vector<float> values(NumElements(segment));
  LoadFloats(image.payload.data() + segment.offset, segment.dtype, NumElements(segment),
             values.data());
  return values;
}

void WriteFloats(const std::vector<float>& values, const StateSegment& segment, StateImage& image) {
  StoreFloats(values.data(), segment.dtype, NumElements(segment),
              image.payload.data() + segment.offset);
}

absl::StatusOr<RecurrentDecay> DecayOf(const StateLayout& layout, const StateHeader& header,
                                       const StateSegment& segment) {
  const auto is_t = [&](const auto& each) {
    return each.layer == segment.layer && each.kind == StateKind::kCumulative;
  };
  const auto t = std::find_if(header.segments.begin(), header.segments.end(), is_t);
  const auto entry = std::find_if(layout.entries.begin(), layout.entries.end(), is_t);
  if (t == header.segments.end() || entry == layout.entries.end() || entry->rates == nullptr) {
    return absl::InternalError(
        absl::StrCat("layer ", segment.layer, " does not say how it decays"));
  }
  RecurrentDecay decay;
  decay.t = *t;
  decay.rates = entry->rates;
  decay.groups = entry->num_elements();
  decay.size = NumElements(segment) / decay.groups;
  decay.num_rates = entry->num_rates / decay.groups;
  return decay;
}

}  // namespace anabranch
