// Decode and prefill through the engine: what planning, sampling and callbacks add to the steps.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "statestore/base/status_macros.h"
#include "tests/bench/bench.h"
#include "tests/bench/engine_runs.h"
#include "tests/bench/shape_bench.h"

namespace anabranch::bench {
namespace {

constexpr char kPart[] = "engine";
constexpr int64_t kPrompt = 256;

absl::Status BenchDecode(ShapeRun& run) {
  const std::vector<int>& batches = run.options.batches;
  if (batches.empty()) return absl::OkStatus();
  const int most = *std::max_element(batches.begin(), batches.end());
  EngineOptions options;
  options.slots.num_slots = most + 1;
  options.slots.num_kv_pages = 8 * (most + 1);
  options.max_decode_rows = most;
  ANABRANCH_ASSIGN_OR_RETURN(auto engine, Engine::Create(run.model, options));
  ANABRANCH_ASSIGN_OR_RETURN(SequencePtr prompt, engine->NewSequence());
  ANABRANCH_RETURN_IF_ERROR(
      ReadAll(*engine, prompt, SomeTokens(kPrompt, run.model->description().vocab)));
  std::vector<SequencePtr> all;
  for (int i = 0; i < most; ++i) {
    ANABRANCH_ASSIGN_OR_RETURN(SequencePtr sequence, engine->Fork(prompt));
    all.push_back(std::move(sequence));
  }
  const int64_t steps = 64;
  for (const int batch : batches) {
    const std::vector<SequencePtr> some(all.begin(), all.begin() + batch);
    ANABRANCH_ASSIGN_OR_RETURN(Figure figure, Measure(kPart, absl::StrCat("decode, batch ", batch),
                                                      run.options.quick ? 3 : 5, [&] {
                                                        return GenerateAll(*engine, some, steps);
                                                      }));
    for (double* value : {&figure.median, &figure.least, &figure.most}) *value /= steps;
    figure.floor =
        1e3 * DecodeFloorSeconds(*run.model, run.options.dtype, batch, kPrompt, run.ceilings);
    figure.note =
        absl::StrCat("a step, over ", steps, " steps; ",
                     Grouped(static_cast<int64_t>(batch * 1e3 / figure.median)), " tok/s");
    run.report.Add(std::move(figure));
  }
  return absl::OkStatus();
}

absl::Status BenchPrefill(ShapeRun& run) {
  const std::vector<int64_t>& lengths = run.options.lengths;
  if (lengths.empty()) return absl::OkStatus();
  const int64_t longest = *std::max_element(lengths.begin(), lengths.end());
  ANABRANCH_ASSIGN_OR_RETURN(auto engine, Engine::Create(run.model, OptionsForReadsOf(longest)));
  for (const int64_t length : lengths) {
    if (run.options.quick && length != lengths.front() && length != longest) continue;
    SequencePtr sequence;
    const auto tokens = SomeTokens(length, run.model->description().vocab);
    ANABRANCH_ASSIGN_OR_RETURN(
        Figure figure,
        Measure(
            kPart, absl::StrCat("prefill ", Grouped(length)), run.options.quick ? 2 : 5,
            [&] { return ReadAll(*engine, sequence, tokens); },
            [&]() -> absl::Status {
              sequence.reset();
              ANABRANCH_ASSIGN_OR_RETURN(sequence, engine->NewSequence());
              return absl::OkStatus();
            }));
    figure.floor = 1e3 * PrefillFloorSeconds(*run.model, length, run.ceilings);
    figure.note =
        absl::StrCat(Grouped(static_cast<int64_t>(length * 1e3 / figure.median)), " tok/s");
    run.report.Add(std::move(figure));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status BenchEngine(ShapeRun& run) {
  ANABRANCH_RETURN_IF_ERROR(BenchDecode(run));
  return BenchPrefill(run);
}

}  // namespace anabranch::bench
