#include "statestore/unnamed_payloads.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "statestore/base/status_macros.h"
#include "statestore/library_reads.h"

namespace anabranch {
namespace {

// The keys that a record names are all that lie from `first` to `last`.
struct NamedKeys {
  std::string first, last;
};

std::optional<NamedKeys> NamedBy(absl::string_view tenant, absl::string_view id,
                                 const StateRecord& record) {
  if (!IsWhole(record)) return std::nullopt;
  const uint64_t each = record.payload_part_bytes;
  if (each == 0) {
    const std::string key = NamedKey(tenant, id);
    return NamedKeys{key, key};
  }
  const uint64_t count = (record.payload_bytes + each - 1) / each;
  return NamedKeys{PayloadPartKey(tenant, id, 0), PayloadPartKey(tenant, id, count - 1)};
}

// Behind every key that may be of the state: parts follow the one value after a zero byte.
std::string BehindState(absl::string_view state_key) { return absl::StrCat(state_key, "\x01"); }

std::string Behind(absl::string_view key) { return absl::StrCat(key, absl::string_view("\0", 1)); }

}  // namespace

absl::StatusOr<bool> IsUnnamedPayload(const KeyValueReader& reader, absl::string_view key) {
  absl::string_view tenant, id;
  if (!StateOfKey(Family::kPayloads, key, &tenant, &id)) return true;
  const absl::StatusOr<StoredState> state = ReadState(reader, tenant, id);
  if (absl::IsNotFound(state.status())) return true;
  if (absl::IsDataLoss(state.status())) return false;
  ANABRANCH_RETURN_IF_ERROR(state.status());
  const std::optional<NamedKeys> named = NamedBy(tenant, id, state->record);
  return !named.has_value() || key < named->first || key > named->last;
}

PayloadGaps::PayloadGaps(const Snapshot& snapshot, absl::string_view behind)
    : snapshot_(snapshot), next_(behind.empty() ? "" : BehindState(behind)), end_(next_) {}

absl::Status PayloadGaps::Pass(absl::string_view state_key, const StateRecord* record) {
  NamedKeys named{std::string(state_key), BehindState(state_key)};
  absl::string_view tenant, id;
  if (record != nullptr && StateOfKey(Family::kStates, state_key, &tenant, &id)) {
    std::optional<NamedKeys> by_record = NamedBy(tenant, id, *record);
    if (!by_record.has_value()) {
      end_ = std::move(named.last);
      return absl::OkStatus();
    }
    named = *std::move(by_record);
  }
  ANABRANCH_RETURN_IF_ERROR(LookUpTo(named.first));
  next_ = Behind(named.last);
  end_ = std::max(next_, BehindState(state_key));
  return absl::OkStatus();
}

absl::Status PayloadGaps::Pause() {
  if (next_ >= end_) return absl::OkStatus();
  ANABRANCH_RETURN_IF_ERROR(LookUpTo(end_));
  next_ = end_;
  return absl::OkStatus();
}

absl::Status PayloadGaps::Finish() { return LookUpTo(""); }

absl::Status PayloadGaps::LookUpTo(absl::string_view end) {
  const std::unique_ptr<Cursor> cursor = snapshot_.NewCursor(Family::kPayloads, next_, end);
  for (cursor->Seek(next_); cursor->Valid(); cursor->Next()) {
    found_.push_back({std::string(cursor->key()), cursor->value().size()});
  }
  const absl::Status status = cursor->status();
  return absl::IsDataLoss(status) ? absl::OkStatus() : status;
}

}  // namespace anabranch
