// Where a history parts from what the library holds, at a token where no state stands.
//
// The first kMinBranchTokens of every long enough span are hashed into an edge from the span's
// parent. So the spans that a history may share are found with one look at each state that it goes
// through, however many children that has; what they really share is compared token by token.
// Spans of thinned states count, because they keep their tokens. Libraries of earlier versions lack
// the edges of their older states: there, nothing is found.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "statestore/database.h"
#include "statestore/prefix_index.h"
#include "statestore/record_codec.h"

namespace anabranch {

// Key of the edge of a state's span in Family::kEdges; empty if the span is shorter than
// kMinBranchTokens or follows a merge.
std::string SpanEdgeKey(const StoredState& state, const PrefixHasher& hasher);

// How many of the first tokens some lineage of the tenant has, or 0. Looks at the states that the
// tokens go through and at a bounded number of spans, so it may tell too few, never too many.
absl::StatusOr<int64_t> FindBranchPoint(const Snapshot& snapshot, const PrefixHasher& hasher,
                                        const std::string& tenant, absl::string_view scope,
                                        absl::Span<const int32_t> tokens);

}  // namespace anabranch
