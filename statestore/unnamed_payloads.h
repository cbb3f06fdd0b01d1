// Values of the family of payloads that no state's record names: garbage. Commits leave none, for a
// record and what it names come and go in one batch. Damage does: a record that was lost leaves its
// payload, and one that was put again while a table hid parts of the old payload leaves those.
//
// They are looked for between the values that records name, and these are not read: a library is
// payloads for the most part, and RocksDB reads a value wherever a cursor stands.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "statestore/database.h"
#include "statestore/key_value.h"
#include "statestore/records.h"

namespace anabranch {

// Whether no record names this key of the family. Never true of one whose record cannot be read.
absl::StatusOr<bool> IsUnnamedPayload(const KeyValueReader& reader, absl::string_view key);

struct UnnamedPayload {
  std::string key;
  uint64_t bytes = 0;  // of the value
};

// Goes over the records of a snapshot, in the order of their keys, and collects what lies between
// the values that they name. What a damaged table or file hides is not found; ScrubNext names the
// file. Errors are those of a disk that cannot be read.
class PayloadGaps {
 public:
  // Begins behind the state with this key of Family::kStates (empty: at the first key). The
  // snapshot must outlive this.
  PayloadGaps(const Snapshot& snapshot, absl::string_view behind);

  // The next record; its tenant and id are those in the key. Null: it cannot be read, and whatever
  // may be its payload is passed over.
  absl::Status Pass(absl::string_view state_key, const StateRecord* record);
  // The records go on, but not in this snapshot: looks at the rest of what may be of the last one.
  absl::Status Pause();
  // There are no more records.
  absl::Status Finish();

  std::vector<UnnamedPayload> Take() { return std::move(found_); }

 private:
  absl::Status LookUpTo(absl::string_view end);  // empty: the end of the family

  const Snapshot& snapshot_;
  std::string next_;  // everything before it was looked at, or is named
  std::string end_;   // behind all that may be of the state that was passed last
  std::vector<UnnamedPayload> found_;
};

}  // namespace anabranch
