// The whole server in one object: models, engines, library, gRPC and metrics, wired together. What
// `anabranchd serve` runs, and tests run in-process.
//
// Thread rule: Start, Drain and the destructor belong to one thread; the rest may be called from
// any.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "service/config.h"

namespace anabranch {

class Server {
 public:
  // Opens the library, loads the models and serves when it returns. Errors name what is wrong:
  // those of Model::Load and OpenStateStore, INVALID_ARGUMENT (a flag), UNAVAILABLE (port in use).
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerConfig& config);
  // Drains without waiting, unless that was done.
  virtual ~Server() = default;

  // Where it listens, with the port really bound.
  virtual const std::string& address() const = 0;
  virtual std::string metrics_address() const = 0;  // empty: off
  virtual std::string model_names() const = 0;      // with commas between them
  // Why nothing more can be computed and the process has to start anew: a lost GPU, say. What was
  // acknowledged is in the library. OK as long as it can.
  virtual absl::Status failure() const = 0;

  // Stops: health NOT_SERVING, new work refused with UNAVAILABLE, running calls finish or are
  // cancelled after `timeout`, sessions are captured. Afterwards nothing is served.
  virtual void Drain(absl::Duration timeout) = 0;
};

}  // namespace anabranch
