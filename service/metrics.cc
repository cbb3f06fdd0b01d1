#include "service/metrics.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/engine_group.h"
#include "runtime/state_codec.h"
#include "service/status_mapping.h"

namespace anabranch {
namespace {

void Header(absl::string_view name, absl::string_view type, absl::string_view help,
            std::string* out) {
  absl::StrAppend(out, "# HELP anabranch_", name, " ", help, "\n# TYPE anabranch_", name, " ", type,
                  "\n");
}

template <typename T>
void Value(absl::string_view name, absl::string_view type, absl::string_view help, T value,
           std::string* out) {
  Header(name, type, help, out);
  absl::StrAppend(out, "anabranch_", name, " ", value, "\n");
}

constexpr char kBusyHelp[] = "Time spent in steps.";

// Of all models together.
void RenderEngines(const std::vector<ModelGauges>& models, std::string* out) {
  EngineStats sum;
  for (const ModelGauges& model : models) AddStats(model.engine, &sum);
  Value("engine_steps_total", "counter", "Steps of the engine.", sum.steps, out);
  Value("engine_busy_seconds_total", "counter", kBusyHelp, absl::ToDoubleSeconds(sum.busy), out);
  Value("engine_queued", "gauge", "Work waiting for the engine.", sum.queued, out);
  Value("engine_running", "gauge", "Work in the engine.", sum.running, out);
  Value("slots_total", "gauge", "Slots of the engine.", sum.slots.slots_total, out);
  Value("slots_used", "gauge", "Slots in use.", sum.slots.slots_used, out);
  Value("kv_pages_total", "gauge", "KV pages of the engine.", sum.slots.pages_total, out);
  Value("kv_pages_used", "gauge", "KV pages in use.", sum.slots.pages_used, out);
}

// A part of that: its labels, and what it did.
using Part = std::pair<std::string, EngineStats>;

// Of each part of a kind ("model", "device"); the sums are above.
void RenderParts(absl::string_view kind, const std::vector<Part>& parts, std::string* out) {
  if (parts.empty()) return;
  const auto each = [&](absl::string_view name, absl::string_view type, absl::string_view help,
                        auto value) {
    const std::string full = absl::StrCat(kind, "_", name);
    Header(full, type, absl::StrCat(help, " Of each ", kind, "."), out);
    for (const auto& [labels, stats] : parts) {
      absl::StrAppend(out, "anabranch_", full, "{", labels, "} ", value(stats), "\n");
    }
  };
  each("busy_seconds_total", "counter", kBusyHelp,
       [](const EngineStats& stats) { return absl::ToDoubleSeconds(stats.busy); });
  each("running", "gauge", "Work in the engine.",
       [](const EngineStats& stats) { return stats.running; });
  each("slots_used", "gauge", "Slots in use.",
       [](const EngineStats& stats) { return stats.slots.slots_used; });
  each("kv_pages_used", "gauge", "KV pages in use.",
       [](const EngineStats& stats) { return stats.slots.pages_used; });
}

// Of each model and each device, where there are several.
void RenderModels(const std::vector<ModelGauges>& models, std::string* out) {
  std::vector<Part> of_models, of_devices;
  for (const ModelGauges& model : models) {
    const std::string name =
        models.size() > 1 ? absl::StrCat("model=\"", model.name, "\"") : std::string();
    if (!name.empty()) of_models.emplace_back(name, model.engine);
    for (const MemberStats& member : model.devices) {
      of_devices.emplace_back(
          absl::StrCat(name, name.empty() ? "" : ",", "device=\"", member.device, "\""),
          member.stats);
    }
  }
  RenderParts("model", of_models, out);
  RenderParts("device", of_devices, out);
}

void RenderHostStates(const std::vector<ModelGauges>& models, std::string* out) {
  HostStatesStats host;
  for (const ModelGauges& model : models) {
    host.states += model.host.states;
    host.bytes += model.host.bytes;
    host.hits += model.host.hits;
    host.misses += model.host.misses;
  }
  Value("host_states", "gauge", "States kept in host memory.", host.states, out);
  Value("host_state_bytes", "gauge", "Memory that they take.", host.bytes, out);
  Value("host_state_hits_total", "counter", "Sessions restored from them.", host.hits, out);
  Value("host_state_misses_total", "counter", "Sessions restored from the library.", host.misses,
        out);
}

void RenderStore(const StoreStats& store, std::string* out) {
  Value("library_states", "gauge", "States in the library.", store.states, out);
  Value("library_refs", "gauge", "Refs in the library.", store.refs, out);
  Value("library_sessions", "gauge", "Sessions in the library.", store.sessions, out);
  Value("library_archived_states", "gauge", "States without content.", store.archived, out);
  Value("library_state_bytes", "gauge", "Payloads, blocks, headers and tokens of states.",
        store.state_bytes, out);
  Value("library_disk_bytes", "gauge", "Size of the library on disk.", store.disk_bytes, out);
  Value("library_commit_sequence", "counter", "Commits since the library was made.",
        store.commit_seq, out);
  Value("library_read_only", "gauge", "1 while the library refuses writes.",
        store.read_only ? 1 : 0, out);
}

void RenderJanitor(const JanitorTotals& janitor, std::string* out) {
  const SweepReport& swept = janitor.swept;
  Value("expired_states_total", "counter", "States deleted because their time had come.",
        swept.expired, out);
  Value("expired_archived_states_total", "counter",
        "Expired states that others need the tokens of: archived.", swept.expired_archived, out);
  Value("evicted_states_total", "counter", "States archived for the byte budget.", swept.evicted,
        out);
  Value("deleted_archived_states_total", "counter", "Archived states deleted for the budget.",
        swept.deleted, out);
  Value("retention_freed_bytes_total", "counter", "Bytes that expiry and eviction freed.",
        swept.freed_bytes, out);
  Value("budget_unreachable", "gauge", "1 while nothing more may be archived for the budget.",
        swept.budget_unreachable ? 1 : 0, out);
  Value("garbage_collections_total", "counter", "Garbage collections.", janitor.collections, out);
  if (!janitor.last_collection.has_value()) return;
  Value("garbage_dead_bytes", "gauge", "Dead bytes on disk after the last garbage collection.",
        janitor.last_collection->dead_bytes_after, out);
}

}  // namespace

void Metrics::Histogram::Observe(absl::Duration value) {
  const double seconds = absl::ToDoubleSeconds(value);
  const auto bucket = std::lower_bound(kBuckets.begin(), kBuckets.end(), seconds);
  ++counts[bucket - kBuckets.begin()];
  sum_seconds += seconds;
}

void Metrics::RecordCall(absl::string_view method, absl::StatusCode code, absl::Duration latency,
                         const v1::Usage& usage) {
  absl::MutexLock lock(&mutex_);
  ++calls_[{std::string(method), CodeName(code)}];
  latency_[std::string(method)].Observe(latency);
  totals_.set_tokens_reused(totals_.tokens_reused() + usage.tokens_reused());
  totals_.set_tokens_replayed(totals_.tokens_replayed() + usage.tokens_replayed());
  totals_.set_tokens_read(totals_.tokens_read() + usage.tokens_read());
  totals_.set_tokens_generated(totals_.tokens_generated() + usage.tokens_generated());
}

void Metrics::RecordCommit(absl::Duration latency, bool ok) {
  absl::MutexLock lock(&mutex_);
  commits_.Observe(latency);
  if (!ok) ++failed_commits_;
}

void Metrics::RecordReencoding(StateCodec codec, int64_t bytes_freed) {
  absl::MutexLock lock(&mutex_);
  ++reencoded_[static_cast<size_t>(codec)];
  reencoding_freed_bytes_ += bytes_freed;
}

void Metrics::RenderHistogram(absl::string_view name, absl::string_view labels,
                              const Histogram& histogram, std::string* out) {
  const absl::string_view comma = labels.empty() ? "" : ",";
  uint64_t total = 0;
  for (size_t i = 0; i < kBuckets.size(); ++i) {
    total += histogram.counts[i];
    absl::StrAppend(out, "anabranch_", name, "_bucket{", labels, comma, "le=\"", kBuckets[i],
                    "\"} ", total, "\n");
  }
  total += histogram.counts.back();
  absl::StrAppend(out, "anabranch_", name, "_bucket{", labels, comma, "le=\"+Inf\"} ", total, "\n");
  absl::StrAppend(out, "anabranch_", name, "_sum{", labels, "} ", histogram.sum_seconds, "\n");
  absl::StrAppend(out, "anabranch_", name, "_count{", labels, "} ", total, "\n");
}

std::string Metrics::Render(const std::vector<ModelGauges>& models, const StoreStats& store,
                            const JanitorTotals& janitor, int running_calls, bool draining) const {
  std::string out;
  absl::MutexLock lock(&mutex_);
  Header("calls_total", "counter", "Finished calls by method and code.", &out);
  for (const auto& [key, count] : calls_) {
    absl::StrAppend(&out, "anabranch_calls_total{method=\"", key.first, "\",code=\"", key.second,
                    "\"} ", count, "\n");
  }
  Header("call_seconds", "histogram", "Time of calls by method.", &out);
  for (const auto& [method, histogram] : latency_) {
    RenderHistogram("call_seconds", absl::StrCat("method=\"", method, "\""), histogram, &out);
  }
  Value("calls_running", "gauge", "Calls running now.", running_calls, &out);
  Value("draining", "gauge", "1 while new work is refused.", draining ? 1 : 0, &out);
  Value("tokens_reused_total", "counter", "Tokens covered by a live or restored state.",
        totals_.tokens_reused(), &out);
  Value("tokens_replayed_total", "counter", "Logged tokens run again.", totals_.tokens_replayed(),
        &out);
  Value("tokens_read_total", "counter", "New tokens read.", totals_.tokens_read(), &out);
  Value("tokens_generated_total", "counter", "Tokens sampled.", totals_.tokens_generated(), &out);
  Header("commit_seconds", "histogram", "Time of library commits, sync included.", &out);
  RenderHistogram("commit_seconds", "", commits_, &out);
  Value("commit_failures_total", "counter", "Commits that failed.", failed_commits_, &out);
  Header("reencoded_states_total", "counter", "States moved to a smaller codec in the background.",
         &out);
  for (size_t i = 0; i < reencoded_.size(); ++i) {
    absl::StrAppend(&out, "anabranch_reencoded_states_total{codec=\"",
                    StateCodecName(static_cast<StateCodec>(i)), "\"} ", reencoded_[i], "\n");
  }
  Value("reencoding_freed_bytes_total", "counter", "Bytes of states that this freed.",
        reencoding_freed_bytes_, &out);
  RenderEngines(models, &out);
  RenderModels(models, &out);
  RenderHostStates(models, &out);
  RenderStore(store, &out);
  RenderJanitor(janitor, &out);
  return out;
}

}  // namespace anabranch
