#include "service/scrubber.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "runtime/state_image.h"
#include "service/error_info.h"
#include "service/logging.h"
#include "service/proto_conversion.h"
#include "service/search_indexer.h"
#include "service/state_loading.h"
#include "service/state_repair.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

constexpr uint64_t kStepBytes = 4u << 20;
constexpr int64_t kMaxFindingsPerStep = 1000;
// After a start, and between looks at the clock.
constexpr absl::Duration kSettle = absl::Minutes(1);
// How long the search index may take for what was committed before the end of a pass.
constexpr absl::Duration kIndexPatience = absl::Seconds(5);

v1::Finding ToProto(const DamagedPart& part) {
  v1::Finding finding;
  finding.set_kind(part.kind);
  finding.set_name(part.name);
  for (const std::string& state : part.states) finding.add_state_ids(state);
  finding.set_problem(part.problem);
  return finding;
}

absl::Status CheckHeader(const StateRecord& state) {
  if (state.thinned) return absl::OkStatus();
  ANABRANCH_ASSIGN_OR_RETURN(const StateHeader header, ParseStateHeader(state.header));
  if (header.token_count == state.token_count) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("state ", state.id, ": its header is of ",
                                          header.token_count, " tokens, its record of ",
                                          state.token_count));
}

// The writer looks again whether it leads nowhere.
absl::Status DropStale(const ServiceContext& service, const std::vector<DropStaleKey>& stale) {
  constexpr size_t kKeysPerCommit = 64;
  for (size_t i = 0; i < stale.size(); i += kKeysPerCommit) {
    const size_t end = std::min(i + kKeysPerCommit, stale.size());
    Mutation mutation;
    mutation.operations.assign(stale.begin() + i, stale.begin() + end);
    ANABRANCH_RETURN_IF_ERROR(WriteError(service.store->CommitAndWait(std::move(mutation))));
  }
  return absl::OkStatus();
}

// Repairs every state that a finding names. A block is whole again with the first of them.
void Repair(const ServiceContext& service, const Call& call, const DamagedPart& part,
            v1::Finding* finding) {
  if (!part.stale.empty()) {
    const absl::Status dropped = DropStale(service, part.stale);
    if (!dropped.ok()) return finding->set_repair_problem(std::string(dropped.message()));
    return finding->set_repaired(true);
  }
  std::vector<std::string> states = part.states;
  if (states.empty() && part.kind == "index" && !part.tenant.empty()) states = {part.name};
  if (states.empty()) {
    return finding->set_repair_problem(
        "only states can be read again: restore a backup, or delete and create it anew");
  }
  for (const std::string& id : states) {
    const absl::Status repaired = RepairState(service, call, part.tenant, id);
    if (repaired.ok()) continue;
    return finding->set_repair_problem(std::string(repaired.message()));
  }
  finding->set_repaired(true);
}

void Gauge(absl::string_view name, absl::string_view help, int64_t value, std::string* out) {
  absl::StrAppend(out, "# HELP anabranch_", name, " ", help, "\n# TYPE anabranch_", name,
                  " gauge\nanabranch_", name, " ", value, "\n");
}

}  // namespace

Scrubber::Scrubber(ServiceContext* service, absl::Duration interval, int64_t max_bytes_per_second)
    : service_(service),
      interval_(interval),
      max_bytes_per_second_(max_bytes_per_second),
      path_(service->library_directory + "/last-scrub") {
  Load();
}

Scrubber::~Scrubber() { Stop(); }

void Scrubber::Start() {
  if (interval_ > absl::ZeroDuration()) thread_ = std::thread([this] { Loop(); });
}

void Scrubber::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

absl::StatusOr<std::unique_ptr<ScrubPass>> Scrubber::Begin(const ScrubOptions& options) {
  absl::MutexLock lock(&mutex_);
  if (status_.running()) {
    return ErrorWithReason(absl::StatusCode::kAborted, "SCRUB_RUNNING",
                           "the library is being verified already: wait for its end, GetStatus "
                           "tells how far it is");
  }
  std::unique_ptr<ScrubPass> pass(new ScrubPass(this, options));
  status_ = pass->status_;
  return pass;
}

v1::ScrubStatus Scrubber::status() const {
  absl::MutexLock lock(&mutex_);
  return status_;
}

void Scrubber::Publish(const v1::ScrubStatus& status, bool save) {
  if (save) Save(status);
  absl::MutexLock lock(&mutex_);
  status_ = status;
}

// Derived: a file that is lost or damaged only means that nobody knows of the last pass.
void Scrubber::Load() {
  std::ifstream file(path_);
  std::stringstream json;
  json << file.rdbuf();
  v1::ScrubStatus status;
  if (!google::protobuf::util::JsonStringToMessage(json.str(), &status).ok()) return;
  status.set_running(false);
  absl::MutexLock lock(&mutex_);
  status_ = status;
}

void Scrubber::Save(const v1::ScrubStatus& status) const {
  std::string json;
  if (!google::protobuf::util::MessageToJsonString(status, &json).ok()) return;
  const std::string temporary = path_ + ".new";
  {
    std::ofstream file(temporary);
    if (!(file << json << "\n")) return;
  }
  std::rename(temporary.c_str(), path_.c_str());
}

bool Scrubber::WaitFor(absl::Duration duration) {
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(absl::Condition(&stopping_), duration);
}

void Scrubber::Loop() {
  while (!WaitFor(kSettle)) {
    const v1::ScrubStatus last = status();
    const bool due = !last.has_start_time() ||
                     absl::Now() - FromProto(last.start_time()) >= interval_ ||
                     !last.has_end_time();
    if (due) RunScheduled();
  }
}

void Scrubber::RunScheduled() {
  auto pass = Begin({/*repair=*/true, max_bytes_per_second_, /*scheduled=*/true});
  if (!pass.ok()) return;  // a client asked for one
  Call call;
  call.deadline = absl::InfiniteFuture();
  v1::VerifyProgress progress;
  while (!progress.done()) {
    progress.Clear();
    const absl::Status status = (*pass)->Step(call, &progress);
    if (!status.ok()) {
      LogEvent(LogLevel::kError, "scrub_failed", {{"error", std::string(status.message())}});
      return;
    }
    if (WaitFor((*pass)->Pause()) || service_->calls->draining()) return;
  }
}

std::string Scrubber::RenderMetrics() const {
  const v1::ScrubStatus last = status();
  std::string out;
  Gauge("scrub_running", "1 while the library is verified.", last.running() ? 1 : 0, &out);
  if (!last.has_start_time()) return out;
  Gauge("scrub_last_start_time_seconds", "When the last verification began.",
        last.start_time().seconds(), &out);
  if (last.has_end_time()) {
    Gauge("scrub_last_end_time_seconds", "When the last verification ended.",
          last.end_time().seconds(), &out);
  }
  Gauge("scrub_last_states_checked", "States that it read.", last.states_checked(), &out);
  Gauge("scrub_last_bytes_checked", "Bytes that it read.", last.bytes_checked(), &out);
  Gauge("scrub_last_findings", "What it found damaged.", last.findings(), &out);
  Gauge("scrub_last_repaired", "What it repaired of that.", last.repaired(), &out);
  return out;
}

ScrubPass::ScrubPass(Scrubber* scrubber, const ScrubOptions& options)
    : scrubber_(scrubber),
      options_(options),
      start_(absl::Now()),
      states_total_(scrubber->service_->store->stats().states) {
  *status_.mutable_start_time() = anabranch::ToProto(start_);
  status_.set_running(true);
  status_.set_scheduled(options.scheduled);
}

ScrubPass::~ScrubPass() {
  status_.set_running(false);
  scrubber_->Publish(status_, /*save=*/true);
}

absl::Status ScrubPass::Step(const Call& call, v1::VerifyProgress* progress) {
  ANABRANCH_ASSIGN_OR_RETURN(const ScrubStep step,
                             scrubber_->service_->store->Scrub(from_, kStepBytes));
  from_ = step.next;
  status_.set_states_checked(status_.states_checked() + step.states_checked);
  status_.set_blocks_checked(status_.blocks_checked() + step.blobs_checked);
  status_.set_records_checked(status_.records_checked() + step.records_checked);
  status_.set_bytes_checked(status_.bytes_checked() + static_cast<int64_t>(step.bytes_checked));
  for (const DamagedPart& part : step.damaged) Add(call, part, progress);
  for (const StateRecord& state : step.states) {
    const absl::Status header = CheckHeader(state);
    if (header.ok()) continue;
    Add(call, {state.tenant, "state", state.id, {state.id}, std::string(header.message())},
        progress);
  }
  if (from_.empty()) {
    CheckSearchIndex(progress);
    *status_.mutable_end_time() = anabranch::ToProto(absl::Now());
    status_.set_running(false);
    progress->set_done(true);
    LogEvent(status_.findings() == 0 ? LogLevel::kInfo : LogLevel::kError, "scrub",
             {{"states", int64_t{status_.states_checked()}},
              {"bytes", int64_t{status_.bytes_checked()}},
              {"findings", int64_t{status_.findings()}},
              {"repaired", int64_t{status_.repaired()}}});
  }
  *progress->mutable_status() = status_;
  progress->set_states_total(std::max(states_total_, int64_t{status_.states_checked()}));
  scrubber_->Publish(status_, /*save=*/progress->done());
  return absl::OkStatus();
}

void ScrubPass::Add(const Call& call, const DamagedPart& part, v1::VerifyProgress* progress) {
  v1::Finding finding = ToProto(part);
  if (options_.repair) Repair(*scrubber_->service_, call, part, &finding);
  Report(std::move(finding), progress);
}

// It follows the library and needs no check of its own, but entries that an older build left behind
// would stay for good.
void ScrubPass::CheckSearchIndex(v1::VerifyProgress* progress) {
  SearchIndexer& indexer = *scrubber_->service_->search_indexer;
  const std::vector<StateName> gone = indexer.Gone(absl::Now() + kIndexPatience);
  for (const StateName& state : gone) {
    v1::Finding finding;
    finding.set_kind("index");
    finding.set_name(state.id);
    finding.set_problem("the search index has it, the library does not");
    finding.set_repaired(options_.repair);
    Report(std::move(finding), progress);
  }
  if (options_.repair) indexer.LookAgain(gone);
}

void ScrubPass::Report(v1::Finding finding, v1::VerifyProgress* progress) {
  LogEvent(LogLevel::kError, "damage",
           {{"kind", finding.kind()},
            {"name", finding.name()},
            {"problem", finding.problem()},
            {"repaired", finding.repaired()}});
  status_.set_findings(status_.findings() + 1);
  status_.set_repaired(status_.repaired() + (finding.repaired() ? 1 : 0));
  // The log has them all.
  if (progress->findings_size() < kMaxFindingsPerStep)
    *progress->add_findings() = std::move(finding);
}

absl::Duration ScrubPass::Pause() const {
  if (options_.max_bytes_per_second <= 0) return absl::ZeroDuration();
  const absl::Duration due = absl::Seconds(static_cast<double>(status_.bytes_checked()) /
                                           static_cast<double>(options_.max_bytes_per_second));
  return std::max(absl::ZeroDuration(), due - (absl::Now() - start_));
}

absl::Status VerifyOneState(const ServiceContext& service, const Call& call,
                            const std::string& id_or_ref, bool repair,
                            v1::VerifyProgress* progress) {
  StateStore& store = *service.store;
  absl::StatusOr<StateRecord> state = ResolveState(store, call.tenant, id_or_ref);
  if (!state.ok() && !absl::IsDataLoss(state.status())) return state.status();
  v1::ScrubStatus& status = *progress->mutable_status();
  *status.mutable_start_time() = anabranch::ToProto(absl::Now());
  status.set_states_checked(1);
  const std::string id = state.ok() ? state->id : id_or_ref;
  const auto found = [&](const char* kind, const std::string& name, const absl::Status& problem) {
    const DamagedPart part{call.tenant, kind, name, {id}, std::string(problem.message())};
    v1::Finding finding = ToProto(part);
    if (repair) Repair(service, call, part, &finding);
    status.set_findings(status.findings() + 1);
    status.set_repaired(status.repaired() + (finding.repaired() ? 1 : 0));
    *progress->add_findings() = std::move(finding);
  };
  if (!state.ok()) {
    found("state", id, state.status());
  } else if (const absl::Status header = CheckHeader(*state); !header.ok()) {
    found("state", id, header);
  } else if (IsWhole(*state)) {
    const auto payload = store.GetPayload(call.tenant, id);
    if (!payload.ok()) found("state", id, payload.status());
    status.set_bytes_checked(payload.ok() ? static_cast<int64_t>(payload->size()) : 0);
    for (const std::string& hash : state->blob_hashes) {
      const auto blob = store.GetBlob(call.tenant, hash);
      if (!blob.ok()) found("block", hash, blob.status());
      status.set_blocks_checked(status.blocks_checked() + 1);
      status.set_bytes_checked(status.bytes_checked() +
                               (blob.ok() ? static_cast<int64_t>(blob->size()) : 0));
    }
  }
  *status.mutable_end_time() = anabranch::ToProto(absl::Now());
  progress->set_states_total(1);
  progress->set_done(true);
  return absl::OkStatus();
}

}  // namespace anabranch
