// "HOST:PORT" as flags take it.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace anabranch {

struct HostPort {
  std::string host;
  int port = 0;
};

// IPv6 hosts are written in brackets: "[::1]:50051". INVALID_ARGUMENT says what is wrong.
absl::StatusOr<HostPort> ParseHostPort(const std::string& text);
std::string FormatHostPort(const HostPort& address);

}  // namespace anabranch
