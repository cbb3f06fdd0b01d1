#include "statestore/journal_redo.h"

#include <algorithm>

#include "statestore/base/crash_point.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

// A group that is not in the journal is written after the journal's are in the synced log: if the
// database knows of a later one, it has all of them.
bool MayLackGroups(const JournalContents& journal, uint64_t recovered_seq) {
  return journal.newest_seq != 0 && recovered_seq <= journal.newest_seq;
}

}  // namespace

uint64_t ReachableSeq(const JournalContents& journal, uint64_t recovered_seq) {
  if (!MayLackGroups(journal, recovered_seq)) return recovered_seq;
  // What recovery knows of last says nothing of what is before it.
  if (journal.chain.empty()) return std::min(recovered_seq, journal.newest_seq - 1);
  if (recovered_seq < journal.chain.front().previous_seq) return recovered_seq;
  return journal.chain.back().commit_seq;
}

absl::Status RedoJournal(const JournalContents& journal, uint64_t recovered_seq,
                         Database& database) {
#ifdef ANABRANCH_BROKEN_NO_REDO  // tests/crash/mutation_check.py shows that tests notice
  return absl::OkStatus();
#endif
  if (!MayLackGroups(journal, recovered_seq)) return absl::OkStatus();
  for (const JournalRecord& record : journal.chain) {
    const Snapshot snapshot(database);
    Overlay changes(snapshot);
    ANABRANCH_RETURN_IF_ERROR(DecodeChanges(record.changes, changes));
    const bool last = &record == &journal.chain.back();
    ANABRANCH_RETURN_IF_ERROR(
        database.Write(changes, last ? Durability::kSynced : Durability::kLogged));
  }
  ReachCrashPoint(CrashPoint::kOpenRedone);
  return absl::OkStatus();
}

}  // namespace anabranch
