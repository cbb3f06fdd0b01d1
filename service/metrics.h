// Counters and histograms of the server, rendered as Prometheus text.
//
// Thread rule: every member may be called from any thread.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "anabranch/v1/resources.pb.h"
#include "runtime/engine.h"
#include "service/host_states.h"
#include "service/janitor.h"
#include "statestore/state_store.h"

namespace anabranch {

// What one of the models that are served does.
struct ModelGauges {
  std::string name;
  EngineStats engine;
  std::vector<MemberStats> devices;  // where there are several
  HostStatesStats host;
};

class Metrics {
 public:
  // A finished call, with what it cost.
  void RecordCall(absl::string_view method, absl::StatusCode code, absl::Duration latency,
                  const v1::Usage& usage);
  // One commit of the library, from submission to the callback.
  void RecordCommit(absl::Duration latency, bool ok);
  // The re-encoder moved a state to `codec`.
  void RecordReencoding(StateCodec codec, int64_t bytes_freed);

  // Everything in the Prometheus text format, with the gauges of engine and library as given.
  std::string Render(const std::vector<ModelGauges>& models, const StoreStats& store,
                     const JanitorTotals& janitor, int running_calls, bool draining) const;

 private:
  static constexpr std::array<double, 14> kBuckets = {
      0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300};
  struct Histogram {
    std::array<uint64_t, kBuckets.size() + 1> counts{};  // the last one: beyond all buckets
    double sum_seconds = 0;
    void Observe(absl::Duration value);
  };
  static void RenderHistogram(absl::string_view name, absl::string_view labels,
                              const Histogram& histogram, std::string* out);

  mutable absl::Mutex mutex_;
  absl::btree_map<std::pair<std::string, std::string>, uint64_t> calls_
      ABSL_GUARDED_BY(mutex_);                                               // by method and code
  absl::btree_map<std::string, Histogram> latency_ ABSL_GUARDED_BY(mutex_);  // by method
  Histogram commits_ ABSL_GUARDED_BY(mutex_);
  uint64_t failed_commits_ ABSL_GUARDED_BY(mutex_) = 0;
  std::array<uint64_t, 4> reencoded_ ABSL_GUARDED_BY(mutex_) = {};  // by codec
  int64_t reencoding_freed_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  v1::Usage totals_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace anabranch
