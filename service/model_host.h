// One served model with all that is its own: weights and text files, an engine for each device,
// host memory for its states, its sessions, and the ServiceContext through which handlers reach it.
//
// Thread rule: made, started and stopped by the server's thread; the parts have rules of their own.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "service/config.h"
#include "service/host_states.h"
#include "service/model_spec.h"
#include "service/reencoder.h"
#include "service/service_context.h"

namespace anabranch {

class ModelHost {
 public:
  // Loads the model and makes its engines. Errors name the model's folder.
  static absl::StatusOr<std::unique_ptr<ModelHost>> Load(const ServerConfig& config,
                                                         const ModelSpec& spec);

  // Begins to serve: `shared` has what all models share, and outlives this.
  absl::Status Start(const ServerConfig& config, const ServiceContext& shared);
  // Captures and unloads all sessions: the end of a drain.
  void Stop();

  const ServedModel& model() const { return *model_; }
  const Engine& engine() const { return *engine_; }
  HostStatesStats host_states() const { return host_states_->stats(); }
  ServiceContext* context() { return &context_; }

 private:
  ModelHost() = default;

  // In the order in which they are made; taken down in the reverse one.
  std::unique_ptr<ServedModel> model_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<HostStates> host_states_;
  std::unique_ptr<SessionManager> sessions_;
  ServiceContext context_;
  std::unique_ptr<Reencoder> reencoder_;
};

}  // namespace anabranch
