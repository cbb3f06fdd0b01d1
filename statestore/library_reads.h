// Reads of single records, with every check, for commits and for clients alike. Errors name what
// was asked for: NOT_FOUND, or DATA_LOSS with the part that is damaged.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "statestore/key_value.h"
#include "statestore/overlay.h"
#include "statestore/record_codec.h"
#include "statestore/state_store.h"

namespace anabranch {

absl::StatusOr<StoredState> ReadState(const KeyValueReader& reader, absl::string_view tenant,
                                      absl::string_view id);
// Of every tenant's states.
absl::StatusOr<std::vector<StateName>> ReadStateNames(const KeyValueReader& reader);
// Those that came, changed, went or are needed otherwise than before.
std::vector<StateName> StatesIn(const Overlay& changes);
// FAILED_PRECONDITION if the state is thinned: nothing can start there.
absl::Status CheckUsable(const StateRecord& state);
absl::StatusOr<std::string> ReadBlob(const KeyValueReader& reader, absl::string_view tenant,
                                     absl::string_view hash);
absl::StatusOr<RefRecord> ReadRef(const KeyValueReader& reader, absl::string_view tenant,
                                  absl::string_view name);
absl::StatusOr<SessionRecord> ReadSession(const KeyValueReader& reader, absl::string_view tenant,
                                          absl::string_view id);
absl::StatusOr<LogBounds> ReadLogBounds(const KeyValueReader& reader, absl::string_view tenant,
                                        absl::string_view session);
// The tokens in the log, checked to be without gaps.
absl::StatusOr<std::vector<int32_t>> ReadLogTokens(const KeyValueReader& reader,
                                                   absl::string_view tenant,
                                                   absl::string_view session,
                                                   const LogBounds& bounds);

// Who needs `used` by this kind of edge: one of them, or empty.
absl::StatusOr<std::string> AnyUser(const KeyValueReader& reader, absl::string_view tenant,
                                    Edge edge, absl::string_view used);

// Calls `visit` for the state and its ancestors along first parents, newest first, until it returns
// false.
absl::Status WalkLineage(const KeyValueReader& reader, absl::string_view tenant,
                         absl::string_view id,
                         absl::FunctionRef<absl::StatusOr<bool>(const StoredState&)> visit);

}  // namespace anabranch
