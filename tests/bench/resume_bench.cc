// Resuming a stored context against reading it again: a state of 2,000 tokens is loaded from a
// reopened library, checked, put into a slot and ready to sample; against running its tokens.
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "statestore/base/status_macros.h"
#include "tests/bench/bench.h"
#include "tests/bench/engine_runs.h"
#include "tests/bench/stored_context.h"
#include "tests/bench/temporary_directory.h"

namespace anabranch::bench {
namespace {

constexpr int64_t kContextTokens = 2000;
absl::Status Restore(Engine& engine, StoredContext loaded) {
  ANABRANCH_ASSIGN_OR_RETURN(SequencePtr sequence,
                             engine.Restore(loaded.image, std::move(loaded.tokens)));
  if (engine.Position(sequence) != kContextTokens || engine.LastLogits(sequence).empty()) {
    return absl::InternalError("the resumed context is not ready to generate");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<Row>> RunResumeBench(const Options& options) {
  ANABRANCH_ASSIGN_OR_RETURN(auto engine,
                             LoadEngine(options.model, kernels::DType::kFloat32, options.threads));
  const TemporaryDirectory directory(options.directory);
  const auto tokens = SomeTokens(kContextTokens, engine->model().description().vocab);
  StoreOptions store_options;
  store_options.directory = directory.path();
  std::string id;
  {
    ANABRANCH_ASSIGN_OR_RETURN(auto store, OpenStateStore(store_options));
    ANABRANCH_ASSIGN_OR_RETURN(SequencePtr sequence, engine->NewSequence());
    ANABRANCH_RETURN_IF_ERROR(ReadAll(*engine, sequence, tokens));
    ANABRANCH_ASSIGN_OR_RETURN(StateImage image, engine->Capture(sequence));
    ANABRANCH_ASSIGN_OR_RETURN(id, StoreContext(*engine, *store, {std::move(image), tokens}));
  }
  ANABRANCH_ASSIGN_OR_RETURN(auto store, OpenStateStore(store_options));
  std::vector<double> load, restore, resume, read;
  for (int i = 0; i <= options.repeat; ++i) {
    absl::Status status;
    absl::StatusOr<StoredContext> loaded;
    const double l = TimeOnce([&] { loaded = LoadContext(*engine, *store, id); });
    ANABRANCH_RETURN_IF_ERROR(loaded.status());
    const double r = TimeOnce([&] { status = Restore(*engine, *std::move(loaded)); });
    ANABRANCH_RETURN_IF_ERROR(status);
    ANABRANCH_ASSIGN_OR_RETURN(SequencePtr sequence, engine->NewSequence());
    const double a = TimeOnce([&] { status = ReadAll(*engine, sequence, tokens); });
    ANABRANCH_RETURN_IF_ERROR(status);
    if (i == 0) continue;  // warm-up
    load.push_back(l), restore.push_back(r), resume.push_back(l + r), read.push_back(a);
  }
  const double r = Percentile(resume, 0.5) * 1e3, a = Percentile(read, 0.5) * 1e3;
  return std::vector<Row>{
      {absl::StrCat("resume a ", kContextTokens, "-token context"), r, "ms", "reading it again", a,
       a / r, ">= 50"},
      {"  of it: loading and checking", Percentile(load, 0.5) * 1e3, "ms", "", 0, 0, ""},
      {"  of it: into a slot", Percentile(restore, 0.5) * 1e3, "ms", "", 0, 0, ""}};
}

}  // namespace anabranch::bench
