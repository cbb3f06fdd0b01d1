#include "runtime/state_tensors.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace anabranch {

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
  decay.size = static_cast<int64_t>(segment.bytes / sizeof(float)) / decay.groups;
  decay.num_rates = entry->num_rates / decay.groups;
  return decay;
}

}  // namespace anabranch
