// Reads the whole library, as asked or by the clock, names what is damaged and repairs what can be
// repaired. One pass at a time. What the last one found is kept across restarts.
//
// Thread rule: every member of Scrubber may be called from any thread; a pass belongs to one.
#pragma once

#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "anabranch/v1/maintenance.pb.h"
#include "service/service_context.h"

namespace anabranch {

struct ScrubOptions {
  bool repair = false;
  int64_t max_bytes_per_second = 0;  // 0: no limit
  bool scheduled = false;
};

class ScrubPass;

class Scrubber {
 public:
  // Runs a pass each `interval` (zero: never), at `max_bytes_per_second`, repairing. `service`
  // outlives this, and is complete before Start.
  Scrubber(ServiceContext* service, absl::Duration interval, int64_t max_bytes_per_second);
  ~Scrubber();
  void Start();
  // No pass goes on; nothing is scheduled any more.
  void Stop();

  // ABORTED (SCRUB_RUNNING) while another pass runs.
  absl::StatusOr<std::unique_ptr<ScrubPass>> Begin(const ScrubOptions& options);
  // Of the pass that runs, or of the last one; start_time is unset if there was none.
  v1::ScrubStatus status() const;
  // As Prometheus text.
  std::string RenderMetrics() const;

 private:
  friend class ScrubPass;
  void Publish(const v1::ScrubStatus& status, bool save);
  void Load();
  void Save(const v1::ScrubStatus& status) const;
  void Loop();
  void RunScheduled();
  bool WaitFor(absl::Duration duration);  // true: stopping

  ServiceContext* const service_;
  const absl::Duration interval_;
  const int64_t max_bytes_per_second_;
  const std::string path_;  // of what is kept
  mutable absl::Mutex mutex_;
  v1::ScrubStatus status_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

// One reading of the library.
class ScrubPass {
 public:
  ~ScrubPass();
  // Goes on a little. `progress` gets the status, and what was found since the step before.
  // `progress.done` at the end, after which it must not be called again.
  absl::Status Step(const Call& call, v1::VerifyProgress* progress);
  // How long to wait before the next step, for the limit in bytes.
  absl::Duration Pause() const;

 private:
  friend class Scrubber;
  ScrubPass(Scrubber* scrubber, const ScrubOptions& options);
  void Add(const Call& call, const DamagedPart& part, v1::VerifyProgress* progress);
  void CheckSearchIndex(v1::VerifyProgress* progress);
  void Report(v1::Finding finding, v1::VerifyProgress* progress);

  Scrubber* const scrubber_;
  const ScrubOptions options_;
  const absl::Time start_;
  const int64_t states_total_;
  v1::ScrubStatus status_;
  std::string from_;
  bool done_ = false;
};

// Verifies one state alone: record, payload and blocks.
absl::Status VerifyOneState(const ServiceContext& service, const Call& call,
                            const std::string& id_or_ref, bool repair,
                            v1::VerifyProgress* progress);

}  // namespace anabranch
