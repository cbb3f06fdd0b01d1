#include "service/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/resource_quota.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "runtime/engine_group.h"
#include "runtime/state_capture.h"
#include "runtime/state_codec.h"
#include "service/admin_service.h"
#include "service/health_monitor.h"
#include "service/host_port.h"
#include "service/import_staging.h"
#include "service/janitor.h"
#include "service/logging.h"
#include "service/metrics_server.h"
#include "service/reencoder.h"
#include "service/scrubber.h"
#include "service/sessions_service.h"
#include "service/states_service.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

constexpr int kWorkerThreads = 4;
constexpr size_t kGrpcMemoryBytes = 512u << 20;
constexpr uint64_t kHostStateBytesOfGpu = uint64_t{2} << 30;
// After a drain's patience, what is left is cancelled; an engine step later all calls have ended.
constexpr absl::Duration kCancelGrace = absl::Seconds(5);

int Millis(absl::Duration duration) { return absl::ToInt64Milliseconds(duration); }

void SetTransportOptions(grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.SetMaxSendMessageSize(kMaxMessageBytes);
  builder.SetResourceQuota(grpc::ResourceQuota("anabranchd").Resize(kGrpcMemoryBytes));
  // A second server must fail to bind instead of sharing the port.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxConcurrentStreams);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, Millis(absl::Seconds(60)));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Millis(absl::Seconds(20)));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             Millis(absl::Seconds(30)));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, Millis(absl::Minutes(30)));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, Millis(absl::Hours(1)));
}

void LogProgress(const LoadProgress& progress) {
  LogEvent(LogLevel::kInfo, "model_loading",
           {{"phase", std::string(progress.phase)},
            {"bytes", progress.done},
            {"of", progress.total},
            {"percent", 100 * progress.done / std::max<int64_t>(progress.total, 1)}});
}

// Members in the order in which they are made; taken down in the reverse one.
class ServerImpl final : public Server {
 public:
  explicit ServerImpl(const ServerConfig& config) : config_(config) {}
  ~ServerImpl() override { Drain(absl::ZeroDuration()); }

  absl::Status LoadParts();
  absl::Status Serve();

  const std::string& address() const override { return address_; }
  std::string metrics_address() const override { return http_ ? http_->address() : ""; }
  std::string model_name() const override { return model_->name(); }
  absl::Status failure() const override { return health_->engine_failure(); }
  void Drain(absl::Duration timeout) override;

 private:
  absl::Status MakeEngine(LoadOptions load);
  absl::Status StartMetrics();

  const ServerConfig config_;
  Metrics metrics_;
  CallTracker calls_{&metrics_};
  std::unique_ptr<ServedModel> model_;
  std::unique_ptr<StateStore> store_;
  std::unique_ptr<SearchIndex> search_index_;
  std::unique_ptr<SearchIndexer> search_indexer_;
  std::unique_ptr<Janitor> janitor_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<WorkerPool> pool_;
  StateHeat heat_;
  std::unique_ptr<HostStates> host_states_;
  std::unique_ptr<SessionManager> sessions_;
  std::unique_ptr<AnswerBook> answers_;
  std::unique_ptr<ImportStaging> imports_;
  std::unique_ptr<Scrubber> scrubber_;
  std::atomic<bool> backup_running_ = false;
  ServiceContext context_;
  std::unique_ptr<Reencoder> reencoder_;
  SessionsService sessions_service_{&context_};
  StatesService states_service_{&context_};
  AdminService admin_service_{&context_};
  std::unique_ptr<grpc::Server> grpc_;
  std::unique_ptr<HealthMonitor> health_;
  std::unique_ptr<MetricsServer> http_;
  std::string address_;
  bool drained_ = false;
};

EngineOptions EngineOptionsFor(const ServerConfig& config, const ServedModel& model) {
  EngineOptions engine;
  engine.slots.num_slots = config.slots;
  engine.slots.num_kv_pages = config.kv_pages;
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

std::unique_ptr<HostStates> MakeHostStates(const Model& model, const ServerConfig& config) {
  const uint64_t otherwise = model.device()->in_host_memory() ? 0 : kHostStateBytesOfGpu;
  return std::make_unique<HostStates>(model.device(),
                                      CaptureBytes(model.state_layout(), model.description().vocab),
                                      config.host_state_bytes.value_or(otherwise));
}

// One for each device; all but the first load the weights once more.
absl::Status ServerImpl::MakeEngine(LoadOptions load) {
  std::vector<EngineMember> members;
  for (const std::string& device : config_.devices()) {
    std::shared_ptr<Model> model = model_->model();
    if (!members.empty()) {
      load.device = device;
      ANABRANCH_ASSIGN_OR_RETURN(model, Model::Load(config_.model, load));
    }
    ANABRANCH_ASSIGN_OR_RETURN(
        auto engine, Engine::Create(std::move(model), EngineOptionsFor(config_, *model_)));
    members.push_back({device, std::move(engine)});
    LogEvent(LogLevel::kInfo, "engine_ready", {{"device", device}});
  }
  ANABRANCH_ASSIGN_OR_RETURN(engine_, JoinEngines(std::move(members)));
  return absl::OkStatus();
}

absl::Status ServerImpl::LoadParts() {
  LoadOptions load;
  ANABRANCH_ASSIGN_OR_RETURN(load.dtype, ParseDType(config_.dtype));
  ANABRANCH_ASSIGN_OR_RETURN(load.state_dtype, ParseDType(config_.state_dtype));
  load.state_write_every = config_.state_write_every;
  load.num_threads = config_.threads;
  load.device = config_.devices().front();
  load.progress = EverySecond(LogProgress, absl::Now);
  // The library first: a second server on it should say so before it loads gigabytes.
  StoreOptions store;
  store.directory = config_.data;
  store.reserved_disk_bytes = config_.reserved_disk_bytes;
  store.accept_data_loss = config_.accept_data_loss;
  store.quotas = config_.quotas;
  store.default_expiry = config_.default_expiry;
  ANABRANCH_ASSIGN_OR_RETURN(store_, OpenStateStore(store));
  ANABRANCH_ASSIGN_OR_RETURN(model_, ServedModel::Load(config_.model, load, config_.chat_format));
  LogEvent(LogLevel::kInfo, "model_loaded",
           {{"model", model_->name()},
            {"weight_bytes", static_cast<int64_t>(model_->model()->weight_bytes())},
            {"chat_format", model_->chat_name()}});
  ANABRANCH_ASSIGN_OR_RETURN(search_index_, SearchIndex::Open(config_.data + "/search"));
  search_indexer_ =
      std::make_unique<SearchIndexer>(store_.get(), model_.get(), search_index_.get());
  janitor_ = std::make_unique<Janitor>(store_.get(), config_.retention);
  ANABRANCH_RETURN_IF_ERROR(MakeEngine(load));
  pool_ = std::make_unique<WorkerPool>(kWorkerThreads, kMaxQueuedCalls);
  context_.storing.layout = &model_->model()->state_layout();
  ANABRANCH_ASSIGN_OR_RETURN(context_.storing.codec, ParseStateCodec(config_.state_codec));
  context_.storing.may_become_lossy = config_.reencoding.lossy();
  host_states_ = MakeHostStates(*model_->model(), config_);
  sessions_ = std::make_unique<SessionManager>(store_.get(), engine_.get(), pool_.get(), &metrics_,
                                               &context_.storing, &heat_, host_states_.get());
  answers_ = std::make_unique<AnswerBook>(store_.get());
  context_.store = store_.get();
  context_.engine = engine_.get();
  context_.model = model_.get();
  context_.sessions = sessions_.get();
  context_.answers = answers_.get();
  context_.heat = &heat_;
  context_.search_index = search_index_.get();
  context_.search_indexer = search_indexer_.get();
  context_.pool = pool_.get();
  context_.janitor = janitor_.get();
  context_.calls = &calls_;
  context_.metrics = &metrics_;
  context_.limits = config_.limits;
  context_.quotas = config_.quotas;
  context_.default_expiry = config_.default_expiry;
  context_.checkpoint_every = config_.checkpoint_every;
  context_.library_directory = config_.data;
  context_.start_time = absl::Now();
  imports_ =
      std::make_unique<ImportStaging>(config_.data + "/imports", config_.reserved_disk_bytes);
  scrubber_ =
      std::make_unique<Scrubber>(&context_, config_.scrub_every, config_.scrub_bytes_per_second);
  context_.imports = imports_.get();
  context_.scrubber = scrubber_.get();
  context_.backup_running = &backup_running_;
  context_.backup_root = config_.backup_root;
  if (config_.reencoding.enabled()) {
    reencoder_ = std::make_unique<Reencoder>(&context_, config_.reencoding);
  }
  return absl::OkStatus();
}

absl::Status ServerImpl::Serve() {
  ANABRANCH_ASSIGN_OR_RETURN(HostPort address, ParseHostPort(config_.listen));
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  SetTransportOptions(builder);
  int port = 0;
  builder.AddListeningPort(config_.listen, grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&sessions_service_);
  builder.RegisterService(&states_service_);
  builder.RegisterService(&admin_service_);
  grpc_ = builder.BuildAndStart();
  if (grpc_ == nullptr || port == 0) {
    return absl::UnavailableError(absl::StrCat("cannot listen on ", config_.listen,
                                               ": the port is in use or the address is not of "
                                               "this machine"));
  }
  address.port = port;
  address_ = FormatHostPort(address);
  health_ = std::make_unique<HealthMonitor>(grpc_->GetHealthCheckService(), store_.get(),
                                            [this] { return engine_->health(); });
  scrubber_->Start();
  return StartMetrics();
}

absl::Status ServerImpl::StartMetrics() {
  if (config_.metrics == "off") return absl::OkStatus();
  ANABRANCH_ASSIGN_OR_RETURN(
      http_, MetricsServer::Start(
                 config_.metrics,
                 [this] {
                   return metrics_.Render(*engine_, host_states_->stats(), store_->stats(),
                                          janitor_->totals(), calls_.running(), calls_.draining()) +
                          scrubber_->RenderMetrics();
                 },
                 [this] { return health_->healthy(); }));
  return absl::OkStatus();
}

void ServerImpl::Drain(absl::Duration timeout) {
  if (drained_) return;
  drained_ = true;
  calls_.StartDraining();
  if (scrubber_ != nullptr) scrubber_->Stop();
  if (health_ != nullptr) health_->StartDraining();
  if (grpc_ != nullptr) {
    const bool idle = calls_.WaitUntilIdle(timeout);
    if (!idle)
      LogEvent(LogLevel::kWarning, "drain_cancels", {{"calls", int64_t{calls_.running()}}});
    // Streams such as health watches never end by themselves: the deadline ends them too.
    grpc_->Shutdown(absl::ToChronoTime(absl::Now()));
    grpc_->Wait();
  }
  if (!calls_.WaitUntilIdle(kCancelGrace)) {
    LogEvent(LogLevel::kError, "calls_left", {{"calls", int64_t{calls_.running()}}});
  }
  reencoder_.reset();
  if (sessions_ != nullptr) sessions_->UnloadAll();
  http_.reset();
  health_.reset();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerConfig& config) {
  ANABRANCH_RETURN_IF_ERROR(config.Validate());
  auto server = std::make_unique<ServerImpl>(config);
  ANABRANCH_RETURN_IF_ERROR(server->LoadParts());
  ANABRANCH_RETURN_IF_ERROR(server->Serve());
  return std::unique_ptr<Server>(std::move(server));
}

}  // namespace anabranch
