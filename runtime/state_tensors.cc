#include "runtime/state_tensors.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/int8_state.h"
#include "runtime/float_convert.h"
#include "runtime/state_table.h"

namespace anabranch {

namespace {

// An int8 tensor of `count` elements, whose scales lie behind them.
void LoadInt8(const char* from, int64_t count, float* to) {
  constexpr int kGroup = kernels::kInt8Group;
  for (int64_t i = 0; i < count; i += kGroup) {
    uint16_t scale;
    std::memcpy(&scale, from + count + i / kGroup * sizeof(scale), sizeof(scale));
    kernels::Int8ToFloats(reinterpret_cast<const int8_t*>(from) + i, scale, to + i);
  }
}

void StoreInt8(const float* from, int64_t count, char* to) {
  constexpr int kGroup = kernels::kInt8Group;
  const auto nearest = [](uint32_t) { return 0x80808080u; };
  for (int64_t i = 0; i < count; i += kGroup) {
    const uint16_t scale =
        kernels::FloatsToInt8(from + i, nearest, reinterpret_cast<int8_t*>(to) + i);
    std::memcpy(to + count + i / kGroup * sizeof(scale), &scale, sizeof(scale));
  }
}

}  // namespace

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
  std::vector<float> values(CountOf(segment));
  const auto count = static_cast<int64_t>(values.size());
  const char* from = image.payload.data() + segment.offset;
  if (segment.dtype == StateDType::kInt8) {
    LoadInt8(from, count, values.data());
  } else {
    LoadFloats(from, segment.dtype, count, values.data());
  }
  return values;
}

void WriteFloats(const std::vector<float>& values, const StateSegment& segment, StateImage& image) {
  const auto count = static_cast<int64_t>(values.size());
  char* to = image.payload.data() + segment.offset;
  if (segment.dtype == StateDType::kInt8) {
    StoreInt8(values.data(), count, to);
  } else {
    StoreFloats(values.data(), segment.dtype, count, to);
  }
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
  decay.size = CountOf(segment) / decay.groups;
  decay.num_rates = entry->num_rates / decay.groups;
  return decay;
}

}  // namespace anabranch
