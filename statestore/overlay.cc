#include "statestore/overlay.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

// The bytes in one piece; `scratch` holds them if they are not.
absl::string_view Flat(const absl::Cord& value, std::string& scratch) {
  if (const auto flat = value.TryFlat()) return *flat;
  scratch = std::string(value);
  return scratch;
}

}  // namespace

absl::StatusOr<bool> KeyValueReader::Read(Family family, absl::string_view key,
                                          ValueVisitor visitor) const {
  ANABRANCH_ASSIGN_OR_RETURN(const std::optional<std::string> value, Get(family, key));
  if (value.has_value()) visitor(*value);
  return value.has_value();
}

void Overlay::Put(Family family, std::string key, std::string value) {
  Put(family, std::move(key), absl::Cord(std::move(value)));
}

void Overlay::Put(Family family, std::string key, absl::Cord value) {
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
  if (change == changes.end()) return base_.Get(family, key);
  if (!change->second.has_value()) return std::optional<std::string>();
  return std::optional<std::string>(std::string(*change->second));
}

absl::StatusOr<bool> Overlay::Read(Family family, absl::string_view key,
                                   ValueVisitor visitor) const {
  const Changes& changes = changes_[static_cast<int>(family)];
  const auto change = changes.find(key);
  if (change == changes.end()) return base_.Read(family, key, visitor);
  std::string scratch;
  if (change->second.has_value()) visitor(Flat(*change->second, scratch));
  return change->second.has_value();
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
  std::string scratch;
  // Visits the changes before `limit` (all of them without one).
  const auto visit_changes = [&](const absl::string_view* limit) {
    for (; wanted && in_range() && (limit == nullptr || change->first < *limit); ++change) {
      if (!change->second.has_value()) continue;
      wanted = visitor(change->first, Flat(*change->second, scratch));
    }
  };
  ANABRANCH_RETURN_IF_ERROR(
      base_.Scan(family, prefix, from, [&](absl::string_view key, absl::string_view value) {
        visit_changes(&key);
        if (!wanted) return false;
        if (in_range() && change->first == key) {
          if (change->second.has_value()) wanted = visitor(key, Flat(*change->second, scratch));
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
