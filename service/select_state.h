// Which of several states knows most about a query: the query is run from each of them.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "service/service_context.h"
#include "service/state_loading.h"

namespace anabranch {

struct QueryScore {
  double logprob = 0;  // mean over the query's tokens; less its constant without any state: PMI
  double entropy = 0;  // in nats, of the first token after the query
};

// The query, a user's message where the model has a chat format, scored after each state. Runs the
// engine and blocks until it is done; adds what it costs to `usage`.
absl::StatusOr<std::vector<QueryScore>> ScoreQuery(const ServiceContext& service, const Call& call,
                                                   const std::string& query,
                                                   const std::vector<LoadedState>& states,
                                                   v1::Usage* usage);

// The index of the best: the highest logprob, of equal ones the lowest entropy, then the first.
size_t BestOf(const std::vector<QueryScore>& scores);

}  // namespace anabranch
