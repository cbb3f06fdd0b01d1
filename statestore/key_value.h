// The few operations on keys and values that the library's logic needs, without RocksDB in sight:
// reads come from a snapshot (database.h) or from pending changes over one (overlay.h).
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "statestore/key_schema.h"

namespace anabranch {

class KeyValueReader {
 public:
  virtual ~KeyValueReader() = default;

  // nullopt if there is no such key. DATA_LOSS if the stored bytes fail a check.
  virtual absl::StatusOr<std::optional<std::string>> Get(Family family,
                                                         absl::string_view key) const = 0;

  // The same for large values, without a copy: shows the value, which is valid during the visit
  // only. False if there is no such key. Several threads may read at once while nothing changes.
  using ValueVisitor = absl::FunctionRef<void(absl::string_view value)>;
  virtual absl::StatusOr<bool> Read(Family family, absl::string_view key,
                                    ValueVisitor visitor) const;

  // Visits the keys that start with `prefix`, in order, from `from` (empty: the first) on, until
  // the visitor returns false. The views are valid during the visit only.
  using Visitor = absl::FunctionRef<bool(absl::string_view key, absl::string_view value)>;
  virtual absl::Status Scan(Family family, absl::string_view prefix, absl::string_view from,
                            Visitor visitor) const = 0;
};

// A position in the keys of one family that start with one prefix.
class Cursor {
 public:
  virtual ~Cursor() = default;
  virtual void Seek(absl::string_view key) = 0;  // the first key at or after `key`
  virtual void Next() = 0;
  virtual bool Valid() const = 0;
  virtual absl::string_view key() const = 0;
  virtual absl::string_view value() const = 0;
  virtual absl::Status status() const = 0;  // why Valid() is false, if not because of the end
};

}  // namespace anabranch
