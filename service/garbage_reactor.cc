#include "service/garbage_reactor.h"

#include <optional>
#include <utility>

#include "service/error_info.h"
#include "service/proto_conversion.h"
#include "service/status_mapping.h"

namespace anabranch {
namespace {

v1::GarbageProgress ToProto(const GarbageProgress& progress) {
  v1::GarbageProgress message;
  message.set_phase(progress.phase);
  message.set_done(progress.done);
  message.set_total(progress.total);
  *message.mutable_report() = ToProto(progress.report);
  return message;
}

}  // namespace

v1::GarbageReport ToProto(const GarbageReport& report) {
  v1::GarbageReport message;
  *message.mutable_start_time() = ToProto(report.start);
  if (report.end != absl::Time()) *message.mutable_end_time() = ToProto(report.end);
  message.set_dry_run(report.dry_run);
  message.set_keys_scanned(report.keys_scanned);
  message.set_stale_keys(report.stale_keys);
  message.set_orphaned_blocks(report.orphaned_blobs);
  message.set_orphaned_bytes(report.orphaned_bytes);
  message.set_orphaned_payloads(report.orphaned_payloads);
  message.set_orphaned_payload_bytes(report.orphaned_payload_bytes);
  message.set_dead_bytes_before(report.dead_bytes_before);
  message.set_dead_bytes_after(report.dead_bytes_after);
  message.set_disk_bytes_before(report.disk_bytes_before);
  message.set_disk_bytes_after(report.disk_bytes_after);
  return message;
}

GarbageReactor::GarbageReactor(ServiceContext* service, grpc::CallbackServerContext* context,
                               const v1::CollectGarbageRequest* request)
    : call_(service->calls->Begin("CollectGarbage", TenantOf(*context),
                                  CappedDeadline(*context, service->limits.stream_deadline))),
      guard_(context, call_->deadline) {
  GarbageOptions options;
  options.dry_run = request->dry_run();
  options.full = request->full();
  absl::Status status = service->calls->AdmitWork();
  const auto run = [this, janitor = service->janitor, options] { Run(janitor, options); };
  if (status.ok() && !service->pool->TryRun(run)) {
    status = ErrorWithReason(absl::StatusCode::kResourceExhausted, "SERVER_BUSY",
                             "too many calls are waiting: retry later");
  }
  if (status.ok()) return;
  call_->status = status;
  End(std::nullopt, ToGrpcStatus(status));
}

void GarbageReactor::Run(Janitor* janitor, const GarbageOptions& options) {
  GarbageOptions watched = options;
  watched.keep_going = [call = call_] { return call->Interrupted().ok(); };
  watched.progress = [this](const GarbageProgress& progress) {
    if (progress.report.end == absl::Time()) Send(ToProto(progress));
  };
  const absl::StatusOr<GarbageReport> report = janitor->CollectGarbage(watched);
  absl::Status status = call_->Interrupted();
  if (status.ok()) status = WriteError(report.status());
  call_->status = status;
  if (!status.ok()) return End(std::nullopt, ToGrpcStatus(status));
  End(ToProto(GarbageProgress{"done", 1, 1, *report}), ToGrpcStatus(status));
}

}  // namespace anabranch
