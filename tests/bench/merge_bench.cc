// Merging contexts of 2,000 tokens against reading them one after the other: states of the library
// are loaded, checked, merged and committed as one.
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "runtime/state_merge.h"
#include "statestore/base/host_threads.h"
#include "statestore/base/status_macros.h"
#include "tests/bench/bench.h"
#include "tests/bench/engine_runs.h"
#include "tests/bench/stored_context.h"
#include "tests/bench/temporary_directory.h"

namespace anabranch::bench {
namespace {

constexpr int64_t kContextTokens = 2000;

struct Times {
  std::vector<double> load, merge, commit, all;
};

absl::Status MergeOnce(Engine& engine, StateStore& store, const std::vector<std::string>& ids,
                       Times* times) {
  std::vector<StoredContext> inputs(ids.size());
  std::vector<absl::Status> loaded(ids.size());
  const Model& model = engine.model();
  // Side by side, as the server loads them.
  const double load = TimeOnce([&] {
    ForEachOnHost(ids.size() * kWorthThreads, ids.size(), [&](size_t i) {
      auto context = LoadContext(engine, store, ids[i]);
      loaded[i] = context.status();
      if (!context.ok()) return;
      inputs[i] = *std::move(context);
      loaded[i] = CheckState(inputs[i].image, model.state_layout(), model.fingerprint(),
                             model.numerics_profile());
    });
  });
  absl::Status status;
  for (const absl::Status& each : loaded) status.Update(each);
  ANABRANCH_RETURN_IF_ERROR(status);
  std::vector<const StateImage*> images;
  for (const StoredContext& input : inputs) images.push_back(&input.image);
  absl::StatusOr<StateImage> merged;
  const double merge = TimeOnce(
      [&] { merged = MergeStates(model.state_layout(), images, nullptr, MergeOptions()); });
  ANABRANCH_RETURN_IF_ERROR(merged.status());
  StoredContext result{*std::move(merged), {}};
  for (const StoredContext& input : inputs) {
    result.tokens.insert(result.tokens.end(), input.tokens.begin(), input.tokens.end());
  }
  const double commit =
      TimeOnce([&] { status = StoreContext(engine, store, std::move(result)).status(); });
  times->load.push_back(load);
  times->merge.push_back(merge);
  times->commit.push_back(commit);
  times->all.push_back(load + merge + commit);
  return status;
}

}  // namespace

absl::StatusOr<std::vector<Row>> RunMergeBench(const Options& options) {
  ANABRANCH_ASSIGN_OR_RETURN(auto engine,
                             LoadEngine(options.model, kernels::DType::kFloat32, options.threads));
  const TemporaryDirectory directory(options.directory);
  StoreOptions store_options;
  store_options.directory = directory.path();
  ANABRANCH_ASSIGN_OR_RETURN(auto store, OpenStateStore(store_options));
  std::vector<Row> rows;
  std::vector<std::string> ids;
  std::vector<double> read;
  for (const size_t n : {2, 8, 32}) {
    while (ids.size() < n) {
      auto tokens = SomeTokens(kContextTokens, engine->model().description().vocab);
      tokens[0] = static_cast<int32_t>(ids.size());
      ANABRANCH_ASSIGN_OR_RETURN(SequencePtr sequence, engine->NewSequence());
      absl::Status status;
      read.push_back(TimeOnce([&] { status = ReadAll(*engine, sequence, tokens); }));
      ANABRANCH_RETURN_IF_ERROR(status);
      ANABRANCH_ASSIGN_OR_RETURN(StateImage image, engine->Capture(sequence));
      ANABRANCH_ASSIGN_OR_RETURN(const std::string id,
                                 StoreContext(*engine, *store, {std::move(image), tokens}));
      ids.push_back(id);
    }
    Times times;
    for (int i = 0; i < options.repeat; ++i) {
      ANABRANCH_RETURN_IF_ERROR(MergeOnce(*engine, *store, ids, &times));
    }
    const double all = Percentile(times.all, 0.5) * 1e3;
    const double again = Percentile(read, 0.5) * static_cast<double>(n) * 1e3;
    rows.push_back({absl::StrCat("merge ", n, " contexts of ", kContextTokens, " tokens"), all,
                    "ms", "reading them", again, again / all, ">= 50"});
    rows.push_back({"  of it: loading and checking", Percentile(times.load, 0.5) * 1e3, "ms"});
    rows.push_back({"  of it: merging", Percentile(times.merge, 0.5) * 1e3, "ms"});
    rows.push_back({"  of it: committing", Percentile(times.commit, 0.5) * 1e3, "ms"});
  }
  return rows;
}

}  // namespace anabranch::bench
