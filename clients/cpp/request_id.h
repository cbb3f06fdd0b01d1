// Ids that make a repeated request harmless: a server answers a request id it has acknowledged with
// the first answer and changes nothing.
#pragma once

#include <string>

namespace anabranch {

// A random UUID (version 4), such as "3f2b8c1e-5a47-4d0e-9b6c-0c1f6a7d2e11".
std::string NewRequestId();

}  // namespace anabranch
