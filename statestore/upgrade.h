// What libraries of earlier builds lack.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "statestore/database.h"

namespace anabranch {

// Makes the books of use (tenant_use.h) and the index of expiry times, which a library that was
// written before there were any gets once, by a look at all of it. Interrupted, it starts again.
absl::Status AddRetention(Database& database);

// Has a database that says `version` say the one of this build, which may write what that does not
// know. Its own content stays as it is.
absl::Status RaiseFormat(Database& database, uint64_t version);

}  // namespace anabranch
