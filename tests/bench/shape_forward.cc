// Model::Forward without the engine: what a step costs. Logits go to pinned host memory.
#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "runtime/slot_pool.h"
#include "runtime/tensor_memory.h"
#include "statestore/base/status_macros.h"
#include "tests/bench/bench.h"
#include "tests/bench/engine_runs.h"
#include "tests/bench/shape_bench.h"

namespace anabranch::bench {
namespace {

constexpr char kPart[] = "forward";
constexpr int64_t kPrompt = 256;
constexpr int64_t kPackedRows = 16384;  // of prompts in one launch

// Sequences in a pool of their own, advanced by packed batches.
class Rig {
 public:
  static absl::StatusOr<std::unique_ptr<Rig>> Create(Model& model, int seqs, int64_t max_tokens) {
    auto rig = std::make_unique<Rig>(model);
    SlotPool::Options options;
    options.num_slots = seqs;
    options.num_kv_pages = static_cast<int32_t>(seqs * (max_tokens / kKvPageTokens + 1));
    ANABRANCH_ASSIGN_OR_RETURN(rig->pool_,
                               SlotPool::Create(model.state_layout(), options, model.device()));
    rig->refs_.resize(seqs);
    ANABRANCH_ASSIGN_OR_RETURN(rig->logits_, model.device()->AllocateHost(
                                                 seqs * model.description().vocab * sizeof(float)));
    return rig;
  }
  explicit Rig(Model& model) : model_(model) {}
  ~Rig() {
    for (SlotRef& ref : refs_) pool_->Release(ref);
  }

  // Sequence i has read nothing then.
  absl::Status Begin(int i) {
    pool_->Release(refs_[i]);
    ANABRANCH_ASSIGN_OR_RETURN(refs_[i], pool_->Acquire());
    return absl::OkStatus();
  }

  // `rows` more tokens of each of the sequences [first, first + seqs); logits after the last. With
  // `defers`, one token that may stay pending beside the recurrent tensors, as in the engine.
  absl::Status Step(int first, int seqs, int64_t rows, bool defers = false) {
    const auto total = static_cast<size_t>(seqs * rows);
    const auto vocab = model_.description().vocab;
    if (tokens_.size() < total) tokens_ = SomeTokens(static_cast<int64_t>(total), vocab);
    std::vector<int32_t> row_start = {0}, slots, pages, page_start = {0}, logit_rows;
    std::vector<int32_t> pending_before, pending_after;
    std::vector<int64_t> positions;
    const int64_t every = model_.state_layout().pending_room + 1;
    for (int i = first; i < first + seqs; ++i) {
      ANABRANCH_RETURN_IF_ERROR(pool_->PrepareWrite(refs_[i], rows));
      row_start.push_back(row_start.back() + static_cast<int32_t>(rows));
      slots.push_back(refs_[i].slot);
      positions.push_back(refs_[i].position);
      pending_before.push_back(refs_[i].pending);
      pending_after.push_back((refs_[i].position + 1) % every == 0 ? 0 : refs_[i].pending + 1);
      pages.insert(pages.end(), refs_[i].pages.begin(), refs_[i].pages.end());
      page_start.push_back(static_cast<int32_t>(pages.size()));
      logit_rows.push_back(row_start.back() - 1);
    }
    StepBatch batch;
    batch.tokens = absl::MakeConstSpan(tokens_).subspan(0, total);
    batch.row_start = row_start;
    batch.slots = slots;
    batch.positions = positions;
    if (defers) {
      batch.pending_before = pending_before;
      batch.pending_after = pending_after;
    }
    if (model_.state_layout().has_kv()) {
      batch.pages = pages;
      batch.page_start = page_start;
    }
    batch.logit_rows = logit_rows;
    if (model_.draws_tokens()) {  // as the engine does
      rules_.resize(seqs);
      drawn_.resize(seqs);
      batch.rules = rules_;
      ANABRANCH_RETURN_IF_ERROR(model_.ForwardAndDraw(
          batch, pool_->arrays(), static_cast<int32_t>(vocab), absl::MakeSpan(drawn_)));
    } else {
      const auto logits = absl::MakeSpan(logits_.floats(), seqs * vocab);
      ANABRANCH_RETURN_IF_ERROR(model_.Forward(batch, pool_->arrays(), logits));
    }
    for (int i = first; i < first + seqs; ++i) {
      refs_[i].position += rows;
      if (defers) refs_[i].pending = pending_after[i - first];
    }
    return absl::OkStatus();
  }

  // NaN in what is measured would make it worthless.
  absl::Status CheckLogits(int seqs) const {
    bool finite = true;
    for (const DrawnToken& drawn : drawn_) finite = finite && drawn.finite;
    const int64_t count = model_.draws_tokens() ? 0 : seqs * model_.description().vocab;
    const float sum = std::accumulate(logits_.floats(), logits_.floats() + count, 0.0f,
                                      [](float a, float b) { return a + b * 0; });
    if (finite && sum == 0) return absl::OkStatus();
    return absl::DataLossError("logits are not finite: the figures of this part count for nothing");
  }

 private:
  Model& model_;
  std::unique_ptr<SlotPool> pool_;
  std::vector<SlotRef> refs_;
  std::vector<int32_t> tokens_;
  std::vector<kernels::RowSampling> rules_;  // greedy
  std::vector<DrawnToken> drawn_;
  Buffer logits_;
};

absl::Status BenchDecode(ShapeRun& run) {
  const std::vector<int>& batches = run.options.batches;
  if (batches.empty()) return absl::OkStatus();
  const int most = *std::max_element(batches.begin(), batches.end());
  const int runs = run.options.quick ? 24 : 100;
  // Where states are written every few steps, a sample is the mean of as many, and sequences stand
  // at different places between two writes, as they do in a server.
  const int every = run.model->state_layout().pending_room + 1;
  const bool defers = every > 1;
  const int64_t room = kPrompt + every * (2 + static_cast<int64_t>(batches.size()) * (runs + 2));
  ANABRANCH_ASSIGN_OR_RETURN(auto rig, Rig::Create(*run.model, most, room));
  const int together = static_cast<int>(kPackedRows / kPrompt);
  for (int first = 0; first < most; first += together) {
    const int seqs = std::min(together, most - first);
    for (int i = first; i < first + seqs; ++i) ANABRANCH_RETURN_IF_ERROR(rig->Begin(i));
    ANABRANCH_RETURN_IF_ERROR(rig->Step(first, seqs, kPrompt));
    for (int i = first; defers && i < first + seqs; ++i) {
      if (i % every > 0) ANABRANCH_RETURN_IF_ERROR(rig->Step(i, 1, i % every));
    }
  }
  for (const int batch : batches) {
    ANABRANCH_RETURN_IF_ERROR(rig->Step(0, batch, 1, defers));  // the second one is recorded
    const auto steps = [&]() -> absl::Status {
      for (int i = 0; i < every; ++i) ANABRANCH_RETURN_IF_ERROR(rig->Step(0, batch, 1, defers));
      return absl::OkStatus();
    };
    ANABRANCH_ASSIGN_OR_RETURN(Figure figure,
                               Measure(kPart, absl::StrCat("decode, batch ", batch), runs, steps));
    for (double* time : {&figure.median, &figure.least, &figure.most}) *time /= every;
    ANABRANCH_RETURN_IF_ERROR(rig->CheckLogits(batch));
    figure.floor =
        1e3 * DecodeFloorSeconds(*run.model, run.options.dtype, batch, kPrompt, run.ceilings);
    run.report.Add(std::move(figure));
  }
  return absl::OkStatus();
}

absl::Status BenchPrefill(ShapeRun& run) {
  const std::vector<int64_t>& lengths = run.options.lengths;
  if (lengths.empty()) return absl::OkStatus();
  const int64_t longest = *std::max_element(lengths.begin(), lengths.end());
  ANABRANCH_ASSIGN_OR_RETURN(auto rig, Rig::Create(*run.model, 1, longest));
  for (const int64_t length : lengths) {
    ANABRANCH_ASSIGN_OR_RETURN(
        Figure figure,
        Measure(
            kPart, absl::StrCat("prefill ", Grouped(length)), run.options.quick ? 3 : 7,
            [&] { return rig->Step(0, 1, length); }, [&] { return rig->Begin(0); }));
    ANABRANCH_RETURN_IF_ERROR(rig->CheckLogits(1));
    figure.floor = 1e3 * PrefillFloorSeconds(*run.model, length, run.ceilings);
    run.report.Add(std::move(figure));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status BenchForward(ShapeRun& run) {
  ANABRANCH_RETURN_IF_ERROR(BenchDecode(run));
  return BenchPrefill(run);
}

}  // namespace anabranch::bench
