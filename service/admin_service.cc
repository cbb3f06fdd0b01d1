#include "service/admin_service.h"

#include "runtime/engine_group.h"
#include "service/backup_reactor.h"
#include "service/garbage_reactor.h"
#include "service/model_router.h"
#include "service/proto_conversion.h"
#include "service/scrubber.h"
#include "service/unary_call.h"
#include "service/verify_stream.h"
#include "service/version.h"

namespace anabranch {
namespace {

void Fill(const ServedModel& served, v1::ModelInfo* info) {
  const Model& model = *served.model();
  info->set_name(served.name());
  info->set_model_type(model.description().model_type);
  info->set_fingerprint(model.fingerprint());
  info->set_numerics_profile(model.numerics_profile());
  info->set_weight_bytes(model.weight_bytes());
  info->set_vocab_size(model.description().vocab);
  info->set_state_bytes(model.state_layout().slot_bytes());
  info->set_kv_bytes_per_token(model.state_layout().kv_page_bytes() / kKvPageTokens);
  info->set_chat(served.chat() != nullptr);
}

void Fill(const EngineStats& stats, v1::EngineStatus* status) {
  status->set_slots_total(stats.slots.slots_total);
  status->set_slots_used(stats.slots.slots_used);
  status->set_kv_pages_total(stats.slots.pages_total);
  status->set_kv_pages_used(stats.slots.pages_used);
  status->set_queued(stats.queued);
  status->set_running(stats.running);
  status->set_steps(stats.steps);
  status->set_tokens_read(stats.tokens_read);
  status->set_tokens_generated(stats.tokens_generated);
  status->set_busy_seconds(absl::ToDoubleSeconds(stats.busy));
}

void Fill(const ServiceContext& service, v1::ModelStatus* status) {
  Fill(*service.model, status->mutable_model());
  Fill(service.engine->stats(), status->mutable_engine());
  for (const MemberStats& member : service.engine->member_stats()) {
    v1::DeviceStatus* device = status->add_devices();
    device->set_name(member.device);
    Fill(member.stats, device->mutable_engine());
  }
}

void Fill(const StoreStats& stats, const std::string& directory, v1::LibraryStatus* status) {
  status->set_directory(directory);
  status->set_states(stats.states);
  status->set_refs(stats.refs);
  status->set_sessions(stats.sessions);
  status->set_disk_bytes(stats.disk_bytes);
  status->set_commit_sequence(stats.commit_seq);
  status->set_read_only(stats.read_only);
  status->set_read_only_reason(stats.read_only_reason);
}

google::protobuf::Duration ToProto(absl::Duration duration) {
  google::protobuf::Duration result;
  result.set_seconds(absl::ToInt64Seconds(duration));
  result.set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(duration - absl::Seconds(result.seconds()))));
  return result;
}

void Fill(const TenantUse& use, const Quotas& quotas, v1::TenantUse* status) {
  status->set_states(use.states);
  status->set_archived_states(use.archived);
  status->set_sessions(use.sessions);
  status->set_refs(use.refs);
  status->set_bytes(use.bytes);
  status->set_max_states(quotas.states);
  status->set_max_sessions(quotas.sessions);
  status->set_max_bytes(quotas.bytes);
}

void Fill(const ServiceContext& service, v1::RetentionStatus* status) {
  const JanitorTotals totals = service.janitor->totals();
  const EvictionBudget& budget = service.janitor->options().budget;
  if (service.default_expiry != absl::InfiniteDuration()) {
    *status->mutable_default_expiry() = ToProto(service.default_expiry);
  }
  status->set_max_bytes(budget.high_bytes);
  status->set_low_water_bytes(budget.low_bytes);
  status->set_library_bytes(service.store->stats().state_bytes);
  status->set_expired_states(totals.swept.expired);
  status->set_expired_archived_states(totals.swept.expired_archived);
  status->set_evicted_states(totals.swept.evicted);
  status->set_deleted_states(totals.swept.deleted);
  status->set_freed_bytes(totals.swept.freed_bytes);
  status->set_budget_unreachable(totals.swept.budget_unreachable);
  if (totals.last_collection.has_value()) {
    *status->mutable_last_garbage_collection() = anabranch::ToProto(*totals.last_collection);
  }
}

}  // namespace

grpc::ServerWriteReactor<v1::GarbageProgress>* AdminService::CollectGarbage(
    grpc::CallbackServerContext* context, const v1::CollectGarbageRequest* request) {
  return new GarbageReactor(service_, context, request);
}

grpc::ServerUnaryReactor* AdminService::GetStatus(grpc::CallbackServerContext* context,
                                                  const v1::GetStatusRequest* /*request*/,
                                                  v1::ServerStatus* response) {
  const MethodTraits method = {"GetStatus", service_->limits.quick_deadline};
  return RunBlocking(service_, context, method, response, [this, response](const Call& call) {
    response->set_version(kVersion);
    *response->mutable_start_time() = anabranch::ToProto(service_->start_time);
    EngineStats sum;
    for (const ServiceContext* each : service_->router->models()) {
      Fill(*each, response->add_models());
      AddStats(each->engine->stats(), &sum);
    }
    Fill(sum, response->mutable_engine());
    *response->mutable_model() = response->models(0).model();
    *response->mutable_devices() = response->models(0).devices();
    Fill(service_->store->stats(), service_->library_directory, response->mutable_library());
    const v1::ScrubStatus scrub = service_->scrubber->status();
    if (scrub.has_start_time()) *response->mutable_last_scrub() = scrub;
    Fill(service_->store->GetUse(call.tenant), service_->quotas, response->mutable_tenant_use());
    Fill(*service_, response->mutable_retention());
    response->set_draining(service_->calls->draining());
    response->set_state_codec(ToProto(service_->storing.codec));
    response->set_max_context_tokens(service_->limits.max_context_tokens);
    return absl::OkStatus();
  });
}

grpc::ServerWriteReactor<v1::BackupProgress>* AdminService::CreateBackup(
    grpc::CallbackServerContext* context, const v1::CreateBackupRequest* request) {
  return new BackupReactor(service_, context, request);
}

grpc::ServerUnaryReactor* AdminService::ListBackups(grpc::CallbackServerContext* context,
                                                    const v1::ListBackupsRequest* request,
                                                    v1::ListBackupsResponse* response) {
  const MethodTraits method = {"ListBackups", service_->limits.quick_deadline};
  return RunBlocking(service_, context, method, response, [=, this](const Call& /*call*/) {
    return HandleListBackups(*service_, *request, response);
  });
}

grpc::ServerWriteReactor<v1::VerifyProgress>* AdminService::Verify(
    grpc::CallbackServerContext* context, const v1::VerifyRequest* request) {
  return new VerifyStream(service_, context, request);
}

}  // namespace anabranch
