// A request of Search, checked and resolved: what to look for, where, and how.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "anabranch/v1/search.pb.h"
#include "service/service_context.h"
#include "statestore/search_index.h"

namespace anabranch {

struct SearchQuery {
  std::string text;         // empty: by a state
  std::string like_id;      // the state's id; empty: by text
  std::vector<float> like;  // the state's embedding
  std::string words;        // what the lexical index is asked
  IndexFilter filter;
  absl::flat_hash_set<std::string> ids;  // filter.ids, if only some may be found
  size_t limit = 0;
  bool lexical = false, embedding = false;
  int32_t rerank = 0;  // candidates that the model judges
};

// INVALID_ARGUMENT names the field; NOT_FOUND for a state or ref that the request names;
// FAILED_PRECONDITION (NO_TOKENIZER) for a text if the model has no tokenizer. The query asks
// `call` whether it is still wanted, so the call must outlive it.
absl::StatusOr<std::shared_ptr<const SearchQuery>> ParseSearch(const ServiceContext& service,
                                                               const Call& call,
                                                               const v1::SearchRequest& request);

}  // namespace anabranch
