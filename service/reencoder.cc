#include "service/reencoder.h"

#include <algorithm>
#include <string>
#include <thread>
#include <utility>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "service/logging.h"
#include "service/recode_state.h"
#include "statestore/base/crash_point.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

// One for now, as everywhere.
constexpr char kTenant[] = "default";

}  // namespace

std::optional<StateCodec> CodecForAge(const ReencodingOptions& options, const StateRecord& state,
                                      absl::Duration age) {
  if (state.pinned || state.keep_codec || !IsWhole(state)) return std::nullopt;
  const auto due = [&](absl::Duration after, StateCodec codec) {
    return after > absl::ZeroDuration() && age >= after && state.codec < codec;
  };
  if (state.operation == StateOperation::kAppend &&
      due(options.archive_after, StateCodec::kArchive)) {
    return StateCodec::kArchive;
  }
  if (due(options.compact_after, StateCodec::kCompact)) return StateCodec::kCompact;
  if (due(options.near_after, StateCodec::kNear)) return StateCodec::kNear;
  return std::nullopt;
}

class Reencoder::Impl {
 public:
  Impl(const ServiceContext* service, const ReencodingOptions& options)
      : service_(service), options_(options), thread_([this] { Run(); }) {}

  ~Impl() {
    stop_.Notify();
    thread_.join();
  }

 private:
  void Run() {
    while (!stop_.WaitForNotificationWithTimeout(options_.interval)) {
      const absl::Status status = Round();
      if (!status.ok()) {
        LogEvent(LogLevel::kWarning, "reencoding_failed",
                 {{"error", std::string(status.message())}});
      }
    }
  }

  // Oldest first, page by page, so that memory is bounded.
  absl::Status Round() {
    StateFilter filter;
    filter.fingerprint = service_->model->model()->fingerprint();
    filter.created_before = absl::Now() - Youngest();
    PageRequest page;
    int64_t recoded = 0, freed = 0;
    do {
      ANABRANCH_ASSIGN_OR_RETURN(auto states, service_->store->ListStates(kTenant, filter, page));
      for (const StateRecord& state : states.items) {
        if (stop_.HasBeenNotified()) return absl::OkStatus();
        const absl::StatusOr<int64_t> bytes = RecodeIfOld(state);
        if (!bytes.ok()) {
          LogEvent(LogLevel::kDebug, "state_not_reencoded",
                   {{"state", state.id}, {"error", std::string(bytes.status().message())}});
          continue;
        }
        recoded += *bytes != 0;
        freed += *bytes;
      }
      page.token = states.next;
    } while (!page.token.empty());
    if (recoded > 0) {
      LogEvent(LogLevel::kInfo, "reencoded", {{"states", recoded}, {"bytes_freed", freed}});
    }
    return absl::OkStatus();
  }

  absl::Duration Youngest() const {
    absl::Duration youngest = absl::InfiniteDuration();
    for (absl::Duration after :
         {options_.near_after, options_.compact_after, options_.archive_after}) {
      if (after > absl::ZeroDuration()) youngest = std::min(youngest, after);
    }
    return youngest;
  }

  // Bytes freed; 0: it stays as it is.
  absl::StatusOr<int64_t> RecodeIfOld(const StateRecord& state) {
    const absl::Duration age =
        absl::Now() - std::max(state.created, service_->heat->LastUse(state.id));
    const std::optional<StateCodec> codec = CodecForAge(options_, state, age);
    if (!codec.has_value()) return 0;
    Recoding recoding;
    recoding.codec = *codec;
    recoding.etag = state.etag;
    recoding.cold = true;
    Call call;
    call.tenant = kTenant;
    Mutation mutation;
    v1::Usage usage;
    ANABRANCH_ASSIGN_OR_RETURN(const SessionManager::Hold hold,
                               StageRecoding(*service_, call, state, recoding, &mutation, &usage));
    ANABRANCH_RETURN_IF_ERROR(service_->store->CommitAndWait(std::move(mutation)));
    ReachCrashPoint(CrashPoint::kReencodingStep);
    Pace(usage.state_bytes_loaded() + usage.state_bytes_stored());
    const auto freed =
        static_cast<int64_t>(state.payload_bytes + state.blob_bytes) - usage.state_bytes_stored();
    service_->metrics->RecordReencoding(*codec, freed);
    return freed;
  }

  void Pace(int64_t bytes) {
    const double seconds =
        static_cast<double>(bytes) / static_cast<double>(options_.max_bytes_per_second);
    stop_.WaitForNotificationWithTimeout(absl::Seconds(seconds));
  }

  const ServiceContext* const service_;
  const ReencodingOptions options_;
  absl::Notification stop_;
  std::thread thread_;
};

Reencoder::Reencoder(const ServiceContext* service, const ReencodingOptions& options)
    : impl_(std::make_unique<Impl>(service, options)) {}
Reencoder::~Reencoder() = default;

}  // namespace anabranch
