// Reads all that a library holds, step by step, and names what is damaged. Each step works on a
// snapshot of its own, so that a scrub of any length holds nothing up.
//
// States come in the order of their keys: record, payload, entries in the indexes, and values of
// payloads that no record names. Then the indexes (which also find states whose records are gone,
// and entries that lead nowhere), every blob once, refs, sessions with their logs, and answers; at
// last every file whole, for what no read comes by. One damaged table does not hide the rest: what
// it held is named one by one through the other families.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "statestore/mutation.h"
#include "statestore/records.h"

namespace anabranch {

class Database;
class PrefixHasher;

struct DamagedPart {
  std::string tenant;
  // "state", "block", "ref", "session", "answer", "index", "payload" (that no record names) or
  // "file".
  std::string kind;
  std::string name;
  std::vector<std::string> states;  // that cannot be read because of it, at most 100
  std::string problem;
  std::vector<DropStaleKey> stale = {};  // what leads nowhere: a commit of these repairs it
};

struct ScrubStep {
  std::vector<DamagedPart> damaged;
  std::vector<StateRecord> states;  // whose record and payload are as they were stored
  int64_t states_checked = 0, blobs_checked = 0, records_checked = 0;
  uint64_t bytes_checked = 0;
  std::string next;  // where the next step begins; empty: all was read
};

// One step from `from` (empty: the beginning; else what the step before said) on: about
// `max_bytes`, at least one value or file. INVALID_ARGUMENT for a foreign `from`; other errors mean
// that the library cannot be read at all.
absl::StatusOr<ScrubStep> ScrubNext(const Database& database, const PrefixHasher& hasher,
                                    const std::string& from, uint64_t max_bytes);

}  // namespace anabranch
