// Opening a library whose newest groups may be in its journal alone (commit_journal.h).
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "statestore/commit_journal.h"
#include "statestore/database.h"

namespace anabranch {

// Up to which group the library can be brought: `recovered_seq`, which its database says, or what
// the journal leads to from there. Less than the journal's newest if something between is missing.
uint64_t ReachableSeq(const JournalContents& journal, uint64_t recovered_seq);

// Brings the database there: all the journal's groups are written again, in order, as what was
// recovered may lack any of them. Interrupted, it starts again. DATA_LOSS if a record is
// unreadable.
absl::Status RedoJournal(const JournalContents& journal, uint64_t recovered_seq,
                         Database& database);

}  // namespace anabranch
