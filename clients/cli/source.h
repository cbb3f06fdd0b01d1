// What a user names: a session, a ref or a state; and files to write to.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "clients/cpp/client.h"

namespace anabranch::cli {

// The log of what `source` names: a state by its id, else a session, else a ref. NOT_FOUND names
// it.
absl::StatusOr<PositionLog> LogOf(Client& client, const std::string& source);

// The graph around what `source` names; empty: of everything. `request` says the rest.
absl::StatusOr<v1::GetGraphResponse> GraphOf(Client& client, const std::string& source,
                                             v1::GetGraphRequest request);

// Writes a whole file. INVALID_ARGUMENT (a usage error) names it.
absl::Status WriteFile(const std::string& path, const std::string& content);

// The state from which `position` is reached; empty: the beginning.
std::string BaseOf(const PositionLog& log, int64_t position);

}  // namespace anabranch::cli
