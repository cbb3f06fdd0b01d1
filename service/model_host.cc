#include "service/model_host.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/engine_group.h"
#include "runtime/state_capture.h"
#include "runtime/state_codec.h"
#include "service/logging.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

constexpr uint64_t kHostStateBytesOfGpu = uint64_t{2} << 30;

void LogProgress(const LoadProgress& progress) {
  LogEvent(LogLevel::kInfo, "model_loading",
           {{"phase", std::string(progress.phase)},
            {"bytes", progress.done},
            {"of", progress.total},
            {"percent", 100 * progress.done / std::max<int64_t>(progress.total, 1)}});
}

absl::StatusOr<LoadOptions> LoadOptionsFor(const ServerConfig& config, const ModelSpec& spec) {
  LoadOptions load;
  ANABRANCH_ASSIGN_OR_RETURN(load.dtype, ParseDType(spec.dtype.value_or(config.dtype)));
  ANABRANCH_ASSIGN_OR_RETURN(load.state_dtype,
                             ParseStateDType(spec.state_dtype.value_or(config.state_dtype)));
  load.state_write_every = config.state_write_every;
  load.num_threads = config.threads;
  load.device = config.DevicesOf(spec).front();
  load.progress = EverySecond(LogProgress, absl::Now);
  return load;
}

EngineOptions EngineOptionsFor(const ServerConfig& config, const ModelSpec& spec,
                               const ServedModel& model) {
  EngineOptions engine;
  engine.slots.num_slots = spec.slots.value_or(config.slots);
  engine.slots.num_kv_pages = spec.kv_pages.value_or(config.kv_pages);
  engine.max_context_tokens = config.limits.max_context_tokens;
  engine.valid_vocab = model.valid_vocab();
  if (!model.model()->device()->in_host_memory()) {
    // A GPU needs thousands of rows to be busy.
    engine.max_prefill_rows = 8192;
    engine.max_prefill_rows_decoding = 2048;
    engine.max_decode_rows = 256;
  }
  return engine;
}

// One for each device; all but the first load the weights once more.
absl::StatusOr<std::unique_ptr<Engine>> MakeEngine(const ServerConfig& config,
                                                   const ModelSpec& spec, LoadOptions load,
                                                   const ServedModel& served) {
  std::vector<EngineMember> members;
  for (const std::string& device : config.DevicesOf(spec)) {
    std::shared_ptr<Model> model = served.model();
    if (!members.empty()) {
      load.device = device;
      ANABRANCH_ASSIGN_OR_RETURN(model, Model::Load(spec.directory, load));
    }
    ANABRANCH_ASSIGN_OR_RETURN(
        auto engine, Engine::Create(std::move(model), EngineOptionsFor(config, spec, served)));
    members.push_back({device, std::move(engine)});
    LogEvent(LogLevel::kInfo, "engine_ready", {{"model", served.name()}, {"device", device}});
  }
  return JoinEngines(std::move(members));
}

std::unique_ptr<HostStates> MakeHostStates(const Model& model, const ServerConfig& config) {
  const uint64_t otherwise = model.device()->in_host_memory() ? 0 : kHostStateBytesOfGpu;
  return std::make_unique<HostStates>(model.device(),
                                      CaptureBytes(model.state_layout(), model.description().vocab),
                                      config.host_state_bytes.value_or(otherwise));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelHost>> ModelHost::Load(const ServerConfig& config,
                                                           const ModelSpec& spec) {
  std::unique_ptr<ModelHost> host(new ModelHost);
  ANABRANCH_ASSIGN_OR_RETURN(const LoadOptions load, LoadOptionsFor(config, spec));
  ANABRANCH_ASSIGN_OR_RETURN(
      host->model_, ServedModel::Load(spec.directory, NameOf(spec), load, config.chat_format));
  const ServedModel& model = *host->model_;
  LogEvent(LogLevel::kInfo, "model_loaded",
           {{"model", model.name()},
            {"weight_bytes", static_cast<int64_t>(model.model()->weight_bytes())},
            {"chat_format", model.chat_name()}});
  ANABRANCH_ASSIGN_OR_RETURN(host->engine_, MakeEngine(config, spec, load, model));
  host->host_states_ = MakeHostStates(*model.model(), config);
  return host;
}

absl::Status ModelHost::Start(const ServerConfig& config, const ServiceContext& shared) {
  context_ = shared;
  context_.storing.layout = &model_->model()->state_layout();
  ANABRANCH_ASSIGN_OR_RETURN(context_.storing.codec, ParseStateCodec(config.state_codec));
  context_.storing.may_become_lossy = config.reencoding.lossy();
  sessions_ =
      std::make_unique<SessionManager>(shared.store, engine_.get(), shared.pool, shared.metrics,
                                       &context_.storing, shared.heat, host_states_.get());
  context_.engine = engine_.get();
  context_.model = model_.get();
  context_.sessions = sessions_.get();
  if (config.reencoding.enabled()) {
    reencoder_ = std::make_unique<Reencoder>(&context_, config.reencoding);
  }
  return absl::OkStatus();
}

void ModelHost::Stop() {
  reencoder_.reset();
  if (sessions_ != nullptr) sessions_->UnloadAll();
}

}  // namespace anabranch
