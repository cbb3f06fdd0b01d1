// Resuming a stored context against reading it again: a state of 2,000 tokens is loaded from a
// reopened library, checked, put into a slot and ready to sample; against running its tokens.
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "statestore/base/status_macros.h"
#include "statestore/state_store.h"
#include "tests/bench/bench.h"
#include "tests/bench/engine_runs.h"
#include "tests/bench/temporary_directory.h"

namespace anabranch::bench {
namespace {

constexpr int64_t kContextTokens = 2000;
constexpr char kTenant[] = "bench";

absl::StatusOr<std::string> StoreContext(Engine& engine, StateStore& store,
                                         const std::vector<int32_t>& tokens) {
  ANABRANCH_ASSIGN_OR_RETURN(SequencePtr sequence, engine.NewSequence());
  ANABRANCH_RETURN_IF_ERROR(ReadAll(engine, sequence, tokens));
  ANABRANCH_ASSIGN_OR_RETURN(StateImage image, engine.Capture(sequence));
  PutState put;
  put.record.tenant = kTenant;
  put.record.fingerprint = engine.model().fingerprint();
  put.record.numerics_profile = engine.model().numerics_profile();
  put.record.token_count = kContextTokens;
  put.record.span_tokens = tokens;
  put.record.header = SerializeStateHeader(image.header);
  for (const KvBlockRef& block : image.header.kv_blocks) {
    put.record.blob_hashes.push_back(block.hash);
  }
  put.record.created = absl::Now();
  put.record.id = StateId(put.record);
  put.payload = std::move(image.payload);
  put.blobs = std::move(image.kv_blocks);
  std::string id = put.record.id;
  Mutation mutation;
  mutation.operations.push_back(std::move(put));
  ANABRANCH_RETURN_IF_ERROR(store.CommitAndWait(std::move(mutation)));
  return id;
}

struct Loaded {
  StateImage image;
  std::vector<int32_t> tokens;
};

// Reads everything a resume needs from the library, checks included.
absl::StatusOr<Loaded> Load(StateStore& store, const std::string& id) {
  ANABRANCH_ASSIGN_OR_RETURN(const StateRecord record, store.GetState(kTenant, id));
  Loaded loaded;
  ANABRANCH_ASSIGN_OR_RETURN(loaded.tokens, store.GetTokens(kTenant, id));
  StateImage& image = loaded.image;
  ANABRANCH_ASSIGN_OR_RETURN(image.header, ParseStateHeader(record.header));
  ANABRANCH_ASSIGN_OR_RETURN(image.payload, store.GetPayload(kTenant, id));
  for (const std::string& hash : record.blob_hashes) {
    ANABRANCH_ASSIGN_OR_RETURN(std::string blob, store.GetBlob(kTenant, hash));
    image.kv_blocks.push_back(std::move(blob));
  }
  return loaded;
}

absl::Status Restore(Engine& engine, Loaded loaded) {
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
    ANABRANCH_ASSIGN_OR_RETURN(id, StoreContext(*engine, *store, tokens));
  }
  ANABRANCH_ASSIGN_OR_RETURN(auto store, OpenStateStore(store_options));
  std::vector<double> load, restore, resume, read;
  for (int i = 0; i <= options.repeat; ++i) {
    absl::Status status;
    absl::StatusOr<Loaded> loaded;
    const double l = TimeOnce([&] { loaded = Load(*store, id); });
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
