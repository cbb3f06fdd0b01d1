// Merging states as the server does: on the host, from images in ordinary memory, as a library
// gives them, to a payload that a library takes.
#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/state_merge.h"
#include "statestore/base/host_threads.h"
#include "statestore/base/status_macros.h"
#include "tests/bench/engine_runs.h"
#include "tests/bench/shape_bench.h"

namespace anabranch::bench {
namespace {

constexpr char kPart[] = "merges";
constexpr size_t kMost = 32;

// Of contexts of a few tokens each, which is all the same to recurrent tensors.
absl::StatusOr<std::vector<StateImage>> MakeImages(ShapeRun& run) {
  EngineOptions options;
  options.slots.num_slots = 4;
  options.slots.num_kv_pages = 16;
  ANABRANCH_ASSIGN_OR_RETURN(auto engine, Engine::Create(run.model, options));
  std::vector<StateImage> images;
  for (size_t i = 0; i < kMost; ++i) {
    ANABRANCH_ASSIGN_OR_RETURN(SequencePtr sequence, engine->NewSequence());
    ANABRANCH_RETURN_IF_ERROR(
        ReadAll(*engine, sequence,
                SomeTokens(64 + static_cast<int64_t>(i), run.model->description().vocab)));
    ANABRANCH_ASSIGN_OR_RETURN(StateImage image, engine->Capture(sequence));
    image.payload.text();
    images.push_back(std::move(image));
  }
  return images;
}

// What the host's threads move at most, from one state's payload to memory that is there.
absl::StatusOr<Figure> BenchCopy(ShapeRun& run, const StateImage& image) {
  constexpr size_t kPiece = size_t{1} << 20;
  const size_t bytes = image.payload.size();
  std::string to(bytes, '\0');
  return Measure(kPart, "copy of a state", run.options.quick ? 5 : 10, [&] {
    ForEachOnHost(bytes, (bytes + kPiece - 1) / kPiece, [&](size_t i) {
      const size_t at = i * kPiece;
      std::memcpy(to.data() + at, image.payload.data() + at, std::min(kPiece, bytes - at));
    });
    return absl::OkStatus();
  });
}

// Floor: all inputs read and the result written, at the rate of the copy, which reads and writes.
absl::Status BenchMerge(ShapeRun& run, absl::Span<const StateImage* const> inputs, double copy_ms) {
  const auto merge = [&]() -> absl::Status {
    ANABRANCH_ASSIGN_OR_RETURN(StateImage merged,
                               MergeStates(run.model->state_layout(), inputs, nullptr, {}));
    (void)std::move(merged.payload).TakeString();
    return absl::OkStatus();
  };
  ANABRANCH_ASSIGN_OR_RETURN(Figure figure,
                             Measure(kPart, absl::StrCat("merge of ", inputs.size(), " states"),
                                     run.options.quick ? 5 : 10, merge));
  figure.floor = copy_ms / 2 * static_cast<double>(inputs.size() + 1);
  figure.note = absl::StrCat(Grouped(static_cast<int64_t>(inputs.front()->payload.size())),
                             " bytes each; floor: read and written once by the host");
  run.report.Add(std::move(figure));
  return absl::OkStatus();
}

}  // namespace

absl::Status BenchMerges(ShapeRun& run) {
  ANABRANCH_ASSIGN_OR_RETURN(const std::vector<StateImage> images, MakeImages(run));
  ANABRANCH_ASSIGN_OR_RETURN(Figure copy, BenchCopy(run, images.front()));
  const double copy_ms = copy.median;
  run.report.Add(std::move(copy));
  std::vector<const StateImage*> inputs;
  for (const StateImage& image : images) {
    inputs.push_back(&image);
    const size_t n = inputs.size();
    if (n != 2 && n != 8 && n != kMost) continue;
    ANABRANCH_RETURN_IF_ERROR(BenchMerge(run, inputs, copy_ms));
  }
  return absl::OkStatus();
}

}  // namespace anabranch::bench
