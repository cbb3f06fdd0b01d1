// `anabranchd serve`: runs the server until SIGTERM or SIGINT.
#pragma once

#include <string>

#include "service/config.h"

namespace anabranch {

struct ServeOptions {
  ServerConfig config;
  std::string log_level = "info";
  bool log_json = false;
};

// Exit status of the process: 0 after a drain, 1 if the server could not start (one line on stderr
// says why). Call before any other thread exists: it blocks the signals it waits for.
int RunServe(const ServeOptions& options);

}  // namespace anabranch
