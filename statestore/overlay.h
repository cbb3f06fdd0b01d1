// Changes that are not written yet, over a reader. What is put here is seen by later reads through
// it, so the operations of a commit group see each other's effects before any of them is durable.
// Overlays stack: a mutation's over its group's, so that a failed mutation is dropped whole.
// Values are cords, so that the parts of a large one share its bytes.
// Not thread safe: the writer thread owns all of them.
#pragma once

#include <array>
#include <optional>
#include <string>

#include "absl/container/btree_map.h"
#include "absl/strings/cord.h"
#include "statestore/key_value.h"

namespace anabranch {

class Overlay : public KeyValueReader {
 public:
  // `base` must outlive the overlay.
  explicit Overlay(const KeyValueReader& base) : base_(base) {}

  void Put(Family family, std::string key, std::string value);
  void Put(Family family, std::string key, absl::Cord value);
  void Delete(Family family, std::string key);
  // Takes over all changes of an overlay that was stacked on this one.
  void Absorb(Overlay upper);

  bool empty() const;
  // nullopt: the key is deleted.
  using Changes = absl::btree_map<std::string, std::optional<absl::Cord>, std::less<>>;
  const Changes& changes(Family family) const { return changes_[static_cast<int>(family)]; }

  absl::StatusOr<std::optional<std::string>> Get(Family family,
                                                 absl::string_view key) const override;
  absl::StatusOr<bool> Read(Family family, absl::string_view key,
                            ValueVisitor visitor) const override;
  absl::Status Scan(Family family, absl::string_view prefix, absl::string_view from,
                    Visitor visitor) const override;

 private:
  const KeyValueReader& base_;
  std::array<Changes, kFamilies> changes_;
};

}  // namespace anabranch
