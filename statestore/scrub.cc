#include "statestore/scrub.h"

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "statestore/apply_mutation.h"
#include "statestore/base/status_macros.h"
#include "statestore/byte_coding.h"
#include "statestore/database.h"
#include "statestore/garbage.h"
#include "statestore/library_reads.h"
#include "statestore/payloads.h"
#include "statestore/unnamed_payloads.h"

namespace anabranch {
namespace {

constexpr size_t kMaxNamedStates = 100;
// Besides the bytes, a step is bounded in keys: a hundred thousand of them hold few bytes.
constexpr int kKeysPerStep = 512;

enum class Phase : uint8_t {
  kStates,
  kTimeline,
  kEdges,
  kPrefixes,
  kLog,
  kRefs,
  kSessions,
  kAnswers,
  kFiles,
  kDone
};

Family FamilyOf(Phase phase) {
  switch (phase) {
    case Phase::kStates:
      return Family::kStates;
    case Phase::kTimeline:
      return Family::kTimeline;
    case Phase::kEdges:
      return Family::kEdges;
    case Phase::kPrefixes:
      return Family::kPrefixes;
    case Phase::kLog:
      return Family::kLog;
    case Phase::kRefs:
      return Family::kRefs;
    case Phase::kSessions:
      return Family::kSessions;
    case Phase::kAnswers:
    case Phase::kFiles:
    case Phase::kDone:
      break;
  }
  return Family::kAnswers;
}

// Where a scrub stands.
struct Position {
  Phase phase = Phase::kStates;
  std::string key;          // the last one that was checked; empty: none of this phase
  std::string states_end;   // the states' table is damaged behind this key
  bool states_cut = false;  // it is
  std::string blob;         // tenant and hash of the last blob checked
};

std::string Encode(const Position& position) {
  ByteWriter writer;
  writer.Byte(static_cast<uint8_t>(position.phase));
  writer.String(position.key);
  writer.Byte(position.states_cut ? 1 : 0);
  writer.String(position.states_end);
  writer.String(position.blob);
  return std::move(writer).Take();
}

absl::StatusOr<Position> Decode(const std::string& bytes) {
  Position position;
  if (bytes.empty()) return position;
  ByteReader reader(bytes);
  const uint8_t phase = reader.Byte();
  position.phase = static_cast<Phase>(phase);
  position.key = std::string(reader.String());
  position.states_cut = reader.Byte() != 0;
  position.states_end = std::string(reader.String());
  position.blob = std::string(reader.String());
  if (reader.AtEnd() && phase < static_cast<uint8_t>(Phase::kDone)) return position;
  return absl::InvalidArgumentError("from: not where a scrub stood");
}

// "tenant", rest of a key that starts with a tenant and a zero byte.
std::pair<absl::string_view, absl::string_view> SplitTenant(absl::string_view key) {
  const size_t end = key.find('\0');
  if (end == absl::string_view::npos) return {"", key};
  return {key.substr(0, end), key.substr(end + 1)};
}

class Scrubber {
 public:
  Scrubber(const Database& database, const PrefixHasher& hasher, Position position,
           uint64_t max_bytes)
      : database_(database),
        snapshot_(database),
        hasher_(hasher),
        position_(std::move(position)),
        gaps_(snapshot_, position_.phase == Phase::kStates ? position_.key : ""),
        max_bytes_(max_bytes) {}

  ScrubStep Run() {
    if (position_.phase == Phase::kFiles) return RunFiles();
    const Family family = FamilyOf(position_.phase);
    const std::unique_ptr<Cursor> cursor = snapshot_.NewCursor(family, "");
    cursor->Seek(position_.key);
    if (cursor->Valid() && cursor->key() == position_.key && !position_.key.empty()) {
      cursor->Next();
    }
    int keys = 0;
    for (; cursor->Valid(); cursor->Next()) {
      if (keys == kKeysPerStep || (keys > 0 && step_.bytes_checked >= max_bytes_)) {
        EndPayloads(/*all=*/false);
        step_.next = Encode(position_);
        return std::move(step_);
      }
      position_.key = std::string(cursor->key());
      Check(cursor->key(), cursor->value());
      ++keys;
    }
    EndPayloads(/*all=*/cursor->status().ok());
    if (!cursor->status().ok()) TableDamaged(family, cursor->status());
    position_.phase = static_cast<Phase>(static_cast<uint8_t>(position_.phase) + 1);
    position_.key.clear();
    if (position_.phase != Phase::kDone) step_.next = Encode(position_);
    return std::move(step_);
  }

 private:
  void Check(absl::string_view key, absl::string_view value) {
    step_.bytes_checked += key.size() + value.size();
    switch (position_.phase) {
      case Phase::kStates: {
        const auto [tenant, id] = SplitTenant(key);
        return CheckState(tenant, id);
      }
      case Phase::kTimeline:
        return CheckTimeline(key);
      case Phase::kEdges:
        return CheckEdge(key);
      case Phase::kPrefixes:
      case Phase::kLog:
        return CheckEntry(key);
      case Phase::kRefs:
        return CheckRef(key);
      case Phase::kSessions:
        return CheckSession(key);
      case Phase::kAnswers:
        return CheckAnswer(key, value);
      case Phase::kFiles:
      case Phase::kDone:
        return;
    }
  }

  // Files that came since the step before have higher names.
  ScrubStep RunFiles() {
    for (const Database::StoredFile& file : database_.Files()) {
      if (file.name <= position_.key) continue;
      if (step_.bytes_checked >= max_bytes_) {
        step_.next = Encode(position_);
        return std::move(step_);
      }
      position_.key = file.name;
      step_.bytes_checked += file.bytes;
      const absl::Status checked = database_.CheckFile(file);
      if (!checked.ok() && !absl::IsNotFound(checked)) Damaged("", "file", file.name, checked);
    }
    return std::move(step_);
  }

  void Damaged(absl::string_view tenant, const char* kind, absl::string_view name,
               const absl::Status& problem, std::vector<std::string> states = {}) {
    step_.damaged.push_back({std::string(tenant), kind, std::string(name), std::move(states),
                             std::string(problem.message())});
  }

  // Behind a damaged place of a table the cursor sees nothing.
  void TableDamaged(Family family, const absl::Status& status) {
    if (family == Family::kStates) {
      position_.states_cut = true;
      position_.states_end = position_.key;
    }
    Damaged("", "index", FamilyName(family),
            absl::DataLossError(absl::StrCat("a table is damaged: ", status.message())));
  }

  // Behind a damaged place of the states' table nothing is known of what records name.
  void EndPayloads(bool all) {
    if (position_.phase != Phase::kStates) return;
    PayloadsSeen(all ? gaps_.Finish() : gaps_.Pause());
    DamagedPart part;
    uint64_t bytes = 0;
    const auto end_part = [&] {
      if (part.stale.empty()) return;
      part.kind = "payload";
      part.problem = absl::StrCat("no record names ", part.stale.size(), " values of ", bytes,
                                  " bytes that would be of it");
      step_.bytes_checked += std::exchange(bytes, 0);
      step_.damaged.push_back(std::exchange(part, {}));
    };
    for (UnnamedPayload& found : gaps_.Take()) {
      absl::string_view tenant, id;
      StateOfKey(Family::kPayloads, found.key, &tenant, &id);
      if (part.tenant != tenant || part.name != id) {
        end_part();
        part.tenant = std::string(tenant);
        part.name = std::string(id);
      }
      bytes += found.bytes;
      part.stale.push_back({Family::kPayloads, std::move(found.key), found.bytes});
    }
    end_part();
  }

  void PayloadsSeen(const absl::Status& status) {
    if (!status.ok()) Damaged("", "index", FamilyName(Family::kPayloads), status);
  }

  void CheckState(absl::string_view tenant, absl::string_view id) {
    ++step_.states_checked;
    absl::StatusOr<StoredState> state = ReadState(snapshot_, tenant, id);
    if (position_.phase == Phase::kStates) {
      PayloadsSeen(gaps_.Pass(position_.key, state.ok() ? &state->record : nullptr));
    }
    if (!state.ok()) return Damaged(tenant, "state", id, state.status(), {std::string(id)});
    CheckIndexes(*state);
    if (IsWhole(state->record)) {
      const absl::Status payload = CheckPayload(snapshot_, state->record);
      if (!payload.ok()) return Damaged(tenant, "state", id, payload, {std::string(id)});
      step_.bytes_checked += state->record.payload_bytes;
    }
    step_.states.push_back(std::move(state->record));
  }

  void CheckIndexes(const StoredState& state) {
    const std::string spans = absl::StrCat(TenantPrefix(state.record.tenant), "p");
    ForEachIndexKey(state, hasher_, [&](Family family, const std::string& key) {
      // States of older versions have no entry by their span.
      if (family == Family::kEdges && absl::StartsWith(key, spans)) return;
      // When to look whether it has expired moves on while something needs it.
      if (absl::StartsWith(key, ExpiryPrefix())) return;
      const auto entry = snapshot_.Get(family, key);
      if (entry.ok() && entry->has_value()) return;
      Damaged(state.record.tenant, "index", state.record.id,
              entry.ok() ? absl::DataLossError(absl::StrCat("its entry in the family ",
                                                            FamilyName(family), " is missing"))
                         : entry.status());
    });
  }

  // States that the pass over the records could not see.
  void CheckTimeline(absl::string_view key) {
    ++step_.records_checked;
    // A state that went leaves its entry to the sweep that comes to it.
    if (absl::StartsWith(key, ExpiryPrefix())) return;
    const auto [tenant, rest] = SplitTenant(key);
    const absl::StatusOr<TimelineEntry> entry = ParseTimelineKey(tenant, key);
    if (!entry.ok()) return Damaged(tenant, "index", "timeline", entry.status());
    const std::string state_key = NamedKey(tenant, entry->state);
    if (position_.states_cut && state_key > position_.states_end) {
      return CheckState(tenant, entry->state);
    }
    const absl::StatusOr<bool> stale = IsStale(snapshot_, Family::kTimeline, key);
    if (!stale.ok() || !*stale) return;
    const absl::StatusOr<StoredState> state = ReadState(snapshot_, tenant, entry->state);
    if (absl::IsNotFound(state.status())) {
      return Damaged(tenant, "state", entry->state,
                     absl::DataLossError("its record is gone, an index still names it"),
                     {std::string(entry->state)});
    }
    CheckStale(Family::kTimeline, key, tenant, entry->state);
  }

  // T . what it is an entry of
  void CheckEntry(absl::string_view key) {
    ++step_.records_checked;
    const auto [tenant, rest] = SplitTenant(key);
    const Family family = FamilyOf(position_.phase);
    const absl::string_view name =
        family == Family::kLog ? SplitTenant(rest).first : absl::string_view();
    CheckStale(family, key, tenant, name);
  }

  // Only what leads nowhere for sure: what it leads to may be damaged, and is named there.
  void CheckStale(Family family, absl::string_view key, absl::string_view tenant,
                  absl::string_view name) {
    const absl::StatusOr<bool> stale = IsStale(snapshot_, family, key);
    if (!stale.ok() || !*stale) return;
    Damaged(tenant, "index", name.empty() ? absl::string_view(FamilyName(family)) : name,
            absl::DataLossError(absl::StrCat("an entry in the family ", FamilyName(family),
                                             " leads nowhere: ", absl::CHexEscape(key))));
    step_.damaged.back().stale.push_back({family, std::string(key)});
  }

  // T . kind used . user
  void CheckEdge(absl::string_view key) {
    ++step_.records_checked;
    const auto [tenant, rest] = SplitTenant(key);
    const size_t end = rest.find('\0');
    if (rest.size() < 2 || end == absl::string_view::npos) {
      return Damaged(tenant, "index", "edges", absl::DataLossError("an entry is malformed"));
    }
    const absl::string_view used = rest.substr(1, end - 1);
    CheckStale(Family::kEdges, key, tenant, used);
    if (static_cast<Edge>(rest[0]) == Edge::kBlob) CheckBlob(tenant, used);
  }

  void CheckBlob(absl::string_view tenant, absl::string_view hash) {
    const std::string key = NamedKey(tenant, hash);
    if (position_.blob == key) return;  // a blob's users come one after the other
    position_.blob = key;
    ++step_.blobs_checked;
    const absl::StatusOr<std::string> blob = ReadBlob(snapshot_, tenant, hash);
    if (blob.ok()) {
      step_.bytes_checked += blob->size();
      return;
    }
    std::vector<std::string> states;
    const std::string prefix = EdgePrefix(tenant, Edge::kBlob, hash);
    snapshot_
        .Scan(Family::kEdges, prefix, "",
              [&](absl::string_view edge, absl::string_view) {
                states.emplace_back(UserOfEdgeKey(prefix, edge));
                return states.size() < kMaxNamedStates;
              })
        .IgnoreError();
    Damaged(tenant, "block", hash,
            absl::IsNotFound(blob.status()) ? absl::DataLossError("it is missing") : blob.status(),
            std::move(states));
  }

  void CheckRef(absl::string_view key) {
    ++step_.records_checked;
    const auto [tenant, name] = SplitTenant(key);
    const absl::StatusOr<RefRecord> ref = ReadRef(snapshot_, tenant, name);
    if (!ref.ok()) return Damaged(tenant, "ref", name, ref.status());
    const auto state = snapshot_.Get(Family::kStates, NamedKey(tenant, ref->state_id));
    if (state.ok() && !state->has_value()) {
      Damaged(tenant, "ref", name,
              absl::DataLossError(absl::StrCat("its state ", ref->state_id, " does not exist")));
    }
  }

  void CheckSession(absl::string_view key) {
    ++step_.records_checked;
    const auto [tenant, id] = SplitTenant(key);
    const absl::Status status = ReadWholeSession(tenant, id);
    if (!status.ok()) Damaged(tenant, "session", id, status);
  }

  absl::Status ReadWholeSession(absl::string_view tenant, absl::string_view id) {
    ANABRANCH_ASSIGN_OR_RETURN(const SessionRecord session, ReadSession(snapshot_, tenant, id));
    ANABRANCH_ASSIGN_OR_RETURN(const LogBounds bounds, ReadLogBounds(snapshot_, tenant, id));
    ANABRANCH_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens,
                               ReadLogTokens(snapshot_, tenant, id, bounds));
    step_.bytes_checked += tokens.size() * sizeof(int32_t);
    if (session.head_state.empty()) return absl::OkStatus();
    const auto head = snapshot_.Get(Family::kStates, NamedKey(tenant, session.head_state));
    if (!head.ok() || head->has_value()) return absl::OkStatus();
    return absl::DataLossError(
        absl::StrCat("its head state ", session.head_state, " does not exist"));
  }

  void CheckAnswer(absl::string_view key, absl::string_view value) {
    ++step_.records_checked;
    if (!key.empty() && key[0] == '\0') return;  // the index by time
    const absl::StatusOr<StoredAnswer> answer = DecodeAnswer(key, value);
    if (answer.ok()) return;
    const auto [tenant, request] = SplitTenant(key);
    Damaged(tenant, "answer", absl::CHexEscape(request), answer.status());
  }

  const Database& database_;
  const Snapshot snapshot_;
  const PrefixHasher& hasher_;
  Position position_;
  PayloadGaps gaps_;
  const uint64_t max_bytes_;
  ScrubStep step_;
};

}  // namespace

absl::StatusOr<ScrubStep> ScrubNext(const Database& database, const PrefixHasher& hasher,
                                    const std::string& from, uint64_t max_bytes) {
  ANABRANCH_ASSIGN_OR_RETURN(Position position, Decode(from));
  return Scrubber(database, hasher, std::move(position), max_bytes).Run();
}

}  // namespace anabranch
