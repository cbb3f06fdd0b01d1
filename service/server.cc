#include "service/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/resource_quota.h>

#include <algorithm>
#include <atomic>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "service/admin_service.h"
#include "service/health_monitor.h"
#include "service/host_port.h"
#include "service/import_staging.h"
#include "service/janitor.h"
#include "service/logging.h"
#include "service/metrics_server.h"
#include "service/model_host.h"
#include "service/model_router.h"
#include "service/scrubber.h"
#include "service/sessions_service.h"
#include "service/states_service.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

constexpr int kWorkerThreads = 4;
constexpr size_t kGrpcMemoryBytes = 512u << 20;
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

// Members in the order in which they are made; taken down in the reverse one.
class ServerImpl final : public Server {
 public:
  explicit ServerImpl(const ServerConfig& config) : config_(config) {}
  ~ServerImpl() override { Drain(absl::ZeroDuration()); }

  absl::Status OpenLibrary();
  absl::Status LoadModels();
  absl::Status StartParts();
  absl::Status Serve();

  const std::string& address() const override { return address_; }
  std::string metrics_address() const override { return http_ ? http_->address() : ""; }
  std::string model_names() const override;
  absl::Status failure() const override { return health_->engine_failure(); }
  void Drain(absl::Duration timeout) override;

 private:
  absl::Status StartMetrics();
  absl::Status EngineHealth() const;
  std::vector<ModelGauges> Gauges() const;

  const ServerConfig config_;
  Metrics metrics_;
  CallTracker calls_{&metrics_};
  std::unique_ptr<StateStore> store_;
  std::unique_ptr<SearchIndex> search_index_;
  StateHeat heat_;
  std::vector<std::unique_ptr<ModelHost>> hosts_;  // at least one; clients get the first by default
  std::unique_ptr<ModelRouter> router_;
  std::unique_ptr<SearchIndexer> search_indexer_;
  std::unique_ptr<Janitor> janitor_;
  std::unique_ptr<WorkerPool> pool_;
  std::unique_ptr<AnswerBook> answers_;
  std::unique_ptr<ImportStaging> imports_;
  std::unique_ptr<Scrubber> scrubber_;
  std::atomic<bool> backup_running_ = false;
  std::unique_ptr<SessionsService> sessions_service_;
  std::unique_ptr<StatesService> states_service_;
  std::unique_ptr<AdminService> admin_service_;
  std::unique_ptr<grpc::Server> grpc_;
  std::unique_ptr<HealthMonitor> health_;
  std::unique_ptr<MetricsServer> http_;
  std::string address_;
  bool drained_ = false;
};

// The library first: a second server on it should say so before it loads gigabytes.
absl::Status ServerImpl::OpenLibrary() {
  StoreOptions store;
  store.directory = config_.data;
  store.reserved_disk_bytes = config_.reserved_disk_bytes;
  store.accept_data_loss = config_.accept_data_loss;
  store.quotas = config_.quotas;
  store.default_expiry = config_.default_expiry;
  ANABRANCH_ASSIGN_OR_RETURN(store_, OpenStateStore(store));
  ANABRANCH_ASSIGN_OR_RETURN(search_index_, SearchIndex::Open(config_.data + "/search"));
  return absl::OkStatus();
}

absl::Status ServerImpl::LoadModels() {
  std::vector<const ServedModel*> models;
  for (const ModelSpec& spec : config_.models) {
    ANABRANCH_ASSIGN_OR_RETURN(std::unique_ptr<ModelHost> host, ModelHost::Load(config_, spec));
    for (const ServedModel* other : models) {
      // States name their model by it, so that one could not be told from the other's.
      if (other->model()->fingerprint() != host->model().model()->fingerprint()) continue;
      return absl::InvalidArgumentError(absl::StrCat("--model: ", other->name(), " and ",
                                                     host->model().name(), " are the same model"));
    }
    models.push_back(&host->model());
    hosts_.push_back(std::move(host));
  }
  search_indexer_ = std::make_unique<SearchIndexer>(store_.get(), models, search_index_.get());
  return absl::OkStatus();
}

absl::Status ServerImpl::StartParts() {
  janitor_ = std::make_unique<Janitor>(store_.get(), config_.retention);
  pool_ = std::make_unique<WorkerPool>(kWorkerThreads, kMaxQueuedCalls);
  answers_ = std::make_unique<AnswerBook>(store_.get());
  imports_ =
      std::make_unique<ImportStaging>(config_.data + "/imports", config_.reserved_disk_bytes);
  std::vector<ServiceContext*> contexts;
  for (const auto& host : hosts_) contexts.push_back(host->context());
  router_ = std::make_unique<ModelRouter>(std::move(contexts));
  scrubber_ = std::make_unique<Scrubber>(router_->first(), config_.scrub_every,
                                         config_.scrub_bytes_per_second);
  ServiceContext shared;
  shared.router = router_.get();
  shared.store = store_.get();
  shared.answers = answers_.get();
  shared.heat = &heat_;
  shared.search_index = search_index_.get();
  shared.search_indexer = search_indexer_.get();
  shared.pool = pool_.get();
  shared.janitor = janitor_.get();
  shared.calls = &calls_;
  shared.metrics = &metrics_;
  shared.imports = imports_.get();
  shared.scrubber = scrubber_.get();
  shared.backup_running = &backup_running_;
  shared.limits = config_.limits;
  shared.quotas = config_.quotas;
  shared.default_expiry = config_.default_expiry;
  shared.checkpoint_every = config_.checkpoint_every;
  shared.library_directory = config_.data;
  shared.backup_root = config_.backup_root;
  shared.start_time = absl::Now();
  for (const auto& host : hosts_) ANABRANCH_RETURN_IF_ERROR(host->Start(config_, shared));
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
  sessions_service_ = std::make_unique<SessionsService>(router_->first());
  states_service_ = std::make_unique<StatesService>(router_->first());
  admin_service_ = std::make_unique<AdminService>(router_->first());
  builder.RegisterService(sessions_service_.get());
  builder.RegisterService(states_service_.get());
  builder.RegisterService(admin_service_.get());
  grpc_ = builder.BuildAndStart();
  if (grpc_ == nullptr || port == 0) {
    return absl::UnavailableError(absl::StrCat("cannot listen on ", config_.listen,
                                               ": the port is in use or the address is not of "
                                               "this machine"));
  }
  address.port = port;
  address_ = FormatHostPort(address);
  health_ = std::make_unique<HealthMonitor>(grpc_->GetHealthCheckService(), store_.get(),
                                            [this] { return EngineHealth(); });
  scrubber_->Start();
  return StartMetrics();
}

std::string ServerImpl::model_names() const {
  return absl::StrJoin(hosts_, ", ", [](std::string* out, const auto& host) {
    absl::StrAppend(out, host->model().name());
  });
}

// The first that fails: one lost device is the end of all CUDA calls of the process.
absl::Status ServerImpl::EngineHealth() const {
  for (const auto& host : hosts_) ANABRANCH_RETURN_IF_ERROR(host->engine().health());
  return absl::OkStatus();
}

std::vector<ModelGauges> ServerImpl::Gauges() const {
  std::vector<ModelGauges> gauges;
  for (const auto& host : hosts_) {
    gauges.push_back({host->model().name(), host->engine().stats(), host->engine().member_stats(),
                      host->host_states()});
  }
  return gauges;
}

absl::Status ServerImpl::StartMetrics() {
  if (config_.metrics == "off") return absl::OkStatus();
  ANABRANCH_ASSIGN_OR_RETURN(http_, MetricsServer::Start(
                                        config_.metrics,
                                        [this] {
                                          return metrics_.Render(
                                                     Gauges(), store_->stats(), janitor_->totals(),
                                                     calls_.running(), calls_.draining()) +
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
  for (const auto& host : hosts_) host->Stop();
  http_.reset();
  health_.reset();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerConfig& config) {
  ANABRANCH_RETURN_IF_ERROR(config.Validate());
  auto server = std::make_unique<ServerImpl>(config);
  ANABRANCH_RETURN_IF_ERROR(server->OpenLibrary());
  ANABRANCH_RETURN_IF_ERROR(server->LoadModels());
  ANABRANCH_RETURN_IF_ERROR(server->StartParts());
  ANABRANCH_RETURN_IF_ERROR(server->Serve());
  return std::unique_ptr<Server>(std::move(server));
}

}  // namespace anabranch
