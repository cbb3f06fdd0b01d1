#include "statestore/overlay.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "statestore/base/status_macros.h"

namespace anabranch {

void Overlay::Put(Family family, std::string key, std::string value) {
  changes_[static_cast<int>(family)].insert_or_assign(std::move(key), std::move(value));
}

void Overlay::Delete(Family family, std::string key) {
  changes_[static_cast<int>(family)].insert_or_assign(std::move(key), std::nullopt);
}

void Overlay::Absorb(Overlay upper) {
  for (int family = 0; family < kFamilies; ++family) {
    for (auto& [key, value] : upper.changes_[family]) {
      changes_[family].insert_or_assign(key, std::move(value));
    }
  }
}

bool Overlay::empty() const {
  return std::all_of(changes_.begin(), changes_.end(),
                     [](const Changes& changes) { return changes.empty(); });
}

absl::StatusOr<std::optional<std::string>> Overlay::Get(Family family,
                                                        absl::string_view key) const {
  const Changes& changes = changes_[static_cast<int>(family)];
  const auto change = changes.find(key);
  if (change != changes.end()) return change->second;
  return base_.Get(family, key);
}

// A merge of two sorted sequences, in which a change hides the base's key.
absl::Status Overlay::Scan(Family family, absl::string_view prefix, absl::string_view from,
                           Visitor visitor) const {
  const Changes& changes = changes_[static_cast<int>(family)];
  auto change = changes.lower_bound(std::max(prefix, from));
  const auto in_range = [&] {
    return change != changes.end() && absl::StartsWith(change->first, prefix);
  };
  bool wanted = true;
  // Visits the changes before `limit` (all of them without one).
  const auto visit_changes = [&](const absl::string_view* limit) {
    for (; wanted && in_range() && (limit == nullptr || change->first < *limit); ++change) {
      if (change->second.has_value()) wanted = visitor(change->first, *change->second);
    }
  };
  ANABRANCH_RETURN_IF_ERROR(
      base_.Scan(family, prefix, from, [&](absl::string_view key, absl::string_view value) {
        visit_changes(&key);
        if (!wanted) return false;
        if (in_range() && change->first == key) {
          if (change->second.has_value()) wanted = visitor(key, *change->second);
          ++change;
        } else {
          wanted = visitor(key, value);
        }
        return wanted;
      }));
  visit_changes(nullptr);
  return absl::OkStatus();
}

}  // namespace anabranch
