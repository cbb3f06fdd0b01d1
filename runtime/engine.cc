#include "runtime/engine.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "runtime/capture_queue.h"
#include "runtime/deferred_writes.h"
#include "runtime/sequence.h"
#include "runtime/step_outputs.h"
#include "runtime/step_planner.h"
#include "runtime/step_rows.h"
#include "runtime/work.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

absl::Status Busy() {
  return absl::FailedPreconditionError("the sequence is busy with other work");
}

class EngineImpl final : public Engine {
 public:
  EngineImpl(std::shared_ptr<Model> model, const EngineOptions& options,
             std::shared_ptr<SlotPool> pool, std::unique_ptr<CaptureQueue> captures)
      : model_(std::move(model)),
        vocab_(model_->description().vocab),
        max_queue_(options.max_queue),
        limits_{options.max_context_tokens, static_cast<int32_t>(vocab_),
                options.valid_vocab > 0 ? options.valid_vocab : static_cast<int32_t>(vocab_)},
        pool_(std::move(pool)),
        captures_(std::move(captures)),
        planner_({options.max_decode_rows, options.max_prefill_rows,
                  options.max_prefill_rows_decoding, options.max_score_rows}),
        rows_(pool_->layout(), &captures_->ring()),
        deferred_(model_, pool_),
        outputs_(model_, limits_.valid_vocab),
        thread_([this] { Run(); }) {}

  ~EngineImpl() override {
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
    }
    thread_.join();
  }

  absl::StatusOr<SequencePtr> NewSequence() override;
  absl::StatusOr<SequencePtr> Fork(const SequencePtr& sequence) override;
  absl::StatusOr<SequencePtr> Restore(const StateImage& image,
                                      std::vector<int32_t> tokens) override;
  absl::StatusOr<StateImage> Capture(const SequencePtr& sequence, StateCodec codec) override;
  bool Restores(const StateHeader& header) const override {
    return RestoresForm(pool_->device(), header);
  }
  absl::StatusOr<Buffer> PayloadMemory(size_t bytes) const override {
    return captures_->buffers()->Take(bytes);
  }
  absl::Status Submit(ReadWork work) override { return Accept(std::move(work)); }
  absl::Status Submit(GenerateWork work) override { return Accept(std::move(work)); }
  absl::Status Submit(ScoreWork work) override { return Accept(std::move(work)); }

  int64_t Position(const SequencePtr& sequence) const override { return sequence->ref.position; }
  const std::vector<int32_t>& Tokens(const SequencePtr& sequence) const override {
    return sequence->tokens;
  }
  absl::Span<const float> LastLogits(const SequencePtr& sequence) const override {
    return LogitsOf(*sequence);
  }
  StateOrigin Origin(const SequencePtr& sequence) const override { return sequence->origin; }
  absl::Span<const float> InnerSum(const SequencePtr& sequence) const override {
    return sequence->inner_sum;
  }

  const Model& model() const override { return *model_; }
  EngineStats stats() const override {
    const SlotPool::Usage usage = pool_->usage();
    absl::MutexLock lock(&mutex_);
    EngineStats stats = stats_;
    stats.slots = usage;
    return stats;
  }
  absl::Status health() const override {
    absl::MutexLock lock(&mutex_);
    return health_;
  }

 private:
  static absl::Span<const float> LogitsOf(const Sequence& sequence) {
    return sequence.last_logits == nullptr ? absl::Span<const float>() : *sequence.last_logits;
  }
  absl::Status CheckOwned(const SequencePtr& sequence) const {
    if (sequence != nullptr && sequence->owner == this) return absl::OkStatus();
    return absl::InvalidArgumentError("the sequence is not of this engine");
  }
  // Held by the caller, for reading or writing.
  static absl::Status CheckWhole(const Sequence& sequence) {
    if (!sequence.broken) return absl::OkStatus();
    return absl::FailedPreconditionError(
        "a step of the sequence failed; continue from its last state");
  }
  absl::StatusOr<SequencePtr> ForkHeld(const Sequence& sequence) {
    ANABRANCH_RETURN_IF_ERROR(CheckWhole(sequence));
    return sequence.Share();
  }
  absl::StatusOr<StateImage> CaptureHeld(const Sequence& sequence, StateCodec codec) const {
    ANABRANCH_RETURN_IF_ERROR(CheckWhole(sequence));
    ANABRANCH_ASSIGN_OR_RETURN(
        StateImage image,
        CaptureState(*pool_, sequence.ref, model_->fingerprint(), model_->numerics_profile(),
                     LogitsOf(sequence), codec, captures_->buffers()));
    image.header.inner_sum = sequence.inner_sum;
    image.header.origin = sequence.origin;
    return image;
  }

  // A work's part in a step, and the captures that begin in it.
  struct Part {
    Work* work = nullptr;
    std::vector<PendingCapture> captures;
  };

  template <typename W>
  absl::Status Accept(W work);
  absl::Status Enqueue(std::unique_ptr<Work> work);

  // The engine's thread.
  void Run();
  bool Admit();
  void EndUnwanted();
  void Step(uint64_t captures_seen);
  absl::Status AfterFailure(const absl::Status& status);
  std::vector<Part> PackRows();
  absl::Status AddRows(Work& work, int64_t rows, bool captured);
  void KeepLogitsOfOthers(const std::vector<Part>& parts);
  absl::Status Settle(Sequence& sequence);
  absl::Status Forward(const std::vector<Part>& parts);
  absl::Status Deliver(Part& part, size_t index);
  absl::Status AddCaptures(Part& part, const StepRows::Range& rows);
  void Begin(Work& work);
  void End(Work& work, const absl::Status& status);
  void EndBroken(Work& work, const absl::Status& status);

  const std::shared_ptr<Model> model_;
  const int64_t vocab_;
  const int32_t max_queue_;
  const WorkLimits limits_;
  const std::shared_ptr<SlotPool> pool_;  // thread-safe

  // Of the engine's thread.
  const std::unique_ptr<CaptureQueue> captures_;
  bool waits_for_captures_ = false;  // a work had no place, or ends when its captures are reported
  StepPlanner planner_;
  std::vector<std::unique_ptr<Work>> active_;  // ascending id
  StepRows rows_;
  DeferredWrites deferred_;
  StepOutputs outputs_;  // of the last step

  mutable absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  std::vector<std::unique_ptr<Work>> inbox_ ABSL_GUARDED_BY(mutex_);
  EngineStats stats_ ABSL_GUARDED_BY(mutex_);
  absl::Status health_ ABSL_GUARDED_BY(mutex_);

  std::thread thread_;  // last: it uses everything above
};

absl::StatusOr<SequencePtr> EngineImpl::NewSequence() {
  ANABRANCH_ASSIGN_OR_RETURN(SlotRef ref, pool_->Acquire());
  auto sequence = std::make_shared<Sequence>(this, pool_, std::move(ref));
  sequence->inner_sum.assign(model_->description().hidden, 0);
  return sequence;
}

absl::StatusOr<SequencePtr> EngineImpl::Fork(const SequencePtr& sequence) {
  ANABRANCH_RETURN_IF_ERROR(CheckOwned(sequence));
  if (!sequence->use.TryRead()) return Busy();
  absl::StatusOr<SequencePtr> fork = ForkHeld(*sequence);
  sequence->use.EndRead();
  return fork;
}

absl::StatusOr<StateImage> EngineImpl::Capture(const SequencePtr& sequence, StateCodec codec) {
  ANABRANCH_RETURN_IF_ERROR(CheckOwned(sequence));
  if (!sequence->use.TryRead()) return Busy();
  absl::StatusOr<StateImage> image = CaptureHeld(*sequence, codec);
  sequence->use.EndRead();
  return image;
}

absl::StatusOr<SequencePtr> EngineImpl::Restore(const StateImage& image,
                                                std::vector<int32_t> tokens) {
  const StateHeader& header = image.header;
  ANABRANCH_RETURN_IF_ERROR(
      ValidateRestored(header, tokens, model_->description().hidden, limits_));
  ANABRANCH_ASSIGN_OR_RETURN(RestoredState state,
                             RestoreState(*pool_, image, model_->fingerprint(),
                                          model_->numerics_profile(), captures_->buffers()));
  auto sequence = std::make_shared<Sequence>(this, pool_, std::move(state.ref));
  sequence->inner_sum = header.inner_sum;
  sequence->origin = state.origin;
  sequence->tokens = std::move(tokens);
  if (!state.last_logits.empty()) {
    sequence->last_logits =
        std::make_shared<const std::vector<float>>(std::move(state.last_logits));
  }
  return sequence;
}

template <typename W>
absl::Status EngineImpl::Accept(W work) {
  ANABRANCH_RETURN_IF_ERROR(CheckOwned(work.sequence));
  const SequencePtr sequence = work.sequence;
  if (!sequence->use.TryWrite()) return Busy();
  absl::Status status = CheckWhole(*sequence);
  if (status.ok()) status = Enqueue(MakeWork(std::move(work), limits_));
  if (!status.ok()) sequence->use.EndWrite();
  return status;
}

absl::Status EngineImpl::Enqueue(std::unique_ptr<Work> work) {
  ANABRANCH_RETURN_IF_ERROR(work->Validate());
  work->submitted = absl::Now();
  absl::MutexLock lock(&mutex_);
  if (stopping_) return absl::UnavailableError("the engine is shutting down");
  ANABRANCH_RETURN_IF_ERROR(health_);
  if (stats_.queued >= max_queue_) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the engine's queue is full: ", max_queue_, " works wait"));
  }
  ++stats_.queued;
  work->id = next_id_++;
  inbox_.push_back(std::move(work));
  return absl::OkStatus();
}

void EngineImpl::Run() {
  while (Admit()) {
    const uint64_t seen = captures_->changes();
    waits_for_captures_ = false;
    EndUnwanted();
    Step(seen);
    active_.erase(std::remove_if(active_.begin(), active_.end(),
                                 [](const auto& work) { return work->ended; }),
                  active_.end());
  }
  captures_->Drain();
  for (auto& work : active_) End(*work, absl::CancelledError("the engine is shutting down"));
  active_.clear();
}

// Waits until there is something to do and takes in what was submitted. False: the end.
bool EngineImpl::Admit() {
  const bool idle = active_.empty();
  absl::MutexLock lock(&mutex_);
  const auto ready = [this, idle]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || !idle || !inbox_.empty();
  };
  mutex_.Await(absl::Condition(&ready));
  std::move(inbox_.begin(), inbox_.end(), std::back_inserter(active_));
  inbox_.clear();
  return !stopping_;
}

void EngineImpl::EndUnwanted() {
  const absl::Time now = absl::Now();
  for (auto& work : active_) {
    const absl::Status status = work->CheckStillWanted(now);
    if (work->ending || !status.ok() || work->complete()) End(*work, status);
  }
}

void EngineImpl::Step(uint64_t captures_seen) {
  std::vector<Part> parts = PackRows();
  if (parts.empty()) {
    // Not for long: what is submitted or cancelled meanwhile waits, too.
    if (waits_for_captures_) captures_->WaitForChange(captures_seen, absl::Milliseconds(1));
    return;
  }
  absl::Status status = Forward(parts);
  if (!status.ok()) status = AfterFailure(status);
  for (size_t i = 0; i < parts.size(); ++i) {
    const absl::Status delivered = status.ok() ? Deliver(parts[i], i) : status;
    if (!delivered.ok()) EndBroken(*parts[i].work, delivered);
  }
  captures_->EndStep();
}

// A step that failed may have been the device's last.
absl::Status EngineImpl::AfterFailure(const absl::Status& status) {
  const absl::Status health = model_->device()->Health();
  if (health.ok()) return status;
  absl::MutexLock lock(&mutex_);
  health_ = health;
  return health;
}

// Chooses the works of the step and packs their rows. A work whose slots or pages run out ends
// here, before anything of its state was touched; one whose captures find no place waits.
std::vector<EngineImpl::Part> EngineImpl::PackRows() {
  std::vector<StepCandidate> candidates;
  std::vector<Work*> candidate_works;
  for (auto& work : active_) {
    if (work->ending) continue;
    candidates.push_back({work->id, work->decodes(), work->scores(),
                          work->RowsWanted(captures_->PlacesOfAStep(work->checkpoint_codec()))});
    candidate_works.push_back(work.get());
  }
  rows_.Clear();
  std::vector<Part> parts;
  for (const StepShare& share : planner_.Plan(candidates)) {
    Work& work = *candidate_works[share.index];
    auto captures =
        captures_->Plan(work.sequence(), work.CheckpointsIn(share.rows), work.checkpoint_codec());
    if (!captures.ok()) {
      waits_for_captures_ = true;
      continue;
    }
    Begin(work);
    const absl::Status added = AddRows(work, share.rows, !captures->empty());
    if (!added.ok()) {
      End(work, added);
      continue;
    }
    if (!work.decodes()) captures_->AddTo(rows_, work.sequence().ref.position, *captures);
    parts.push_back({&work, *std::move(captures)});
  }
  KeepLogitsOfOthers(parts);
  return parts;
}

// Nothing is added if it fails.
absl::Status EngineImpl::AddRows(Work& work, int64_t rows, bool captured) {
  Sequence& sequence = work.sequence();
  ANABRANCH_RETURN_IF_ERROR(pool_->PrepareWrite(sequence.ref, rows));
  const int64_t position = sequence.ref.position;
  const std::optional<kernels::RowSampling> rule = work.RuleFor(position);
  if (rule.has_value() && !work.drawn()) {
    ANABRANCH_ASSIGN_OR_RETURN(std::optional<SampledToken> drawn,
                               outputs_.DrawFrom(LogitsOf(sequence), *rule));
    work.SetDrawn(std::move(drawn));
  }
  rows_.Add(sequence.ref, work.NextTokens(rows), work.scores(),
            work.RuleFor(position + rows).value_or(kernels::RowSampling()),
            sequence.inner_sum.empty() ? nullptr : sequence.inner_sum.data());
  if (work.decodes() && deferred_.on()) {
    rows_.Defer(sequence.ref, deferred_.After(sequence.ref, captured));
  }
  return absl::OkStatus();
}

// Before a step takes the place of the last one's logits: of those that are not in it.
void EngineImpl::KeepLogitsOfOthers(const std::vector<Part>& parts) {
  for (auto& work : active_) {
    if (work->ended || work->sequence().logits_row < 0) continue;
    const auto in_step = [&](const Part& part) { return part.work == work.get(); };
    if (std::any_of(parts.begin(), parts.end(), in_step)) continue;
    const absl::Status kept = outputs_.Keep(work->sequence());
    if (!kept.ok()) EndBroken(*work, kept);
  }
}

// Before a work lets go of a sequence: its state is whole and its logits are kept.
absl::Status EngineImpl::Settle(Sequence& sequence) {
  if (sequence.broken) return absl::OkStatus();
  ANABRANCH_RETURN_IF_ERROR(deferred_.Fold(sequence.ref));
  return outputs_.Keep(sequence);
}

absl::Status EngineImpl::Forward(const std::vector<Part>& parts) {
  const absl::Time start = absl::Now();
  rows_.set_progress(captures_->Begin());
  absl::Status status = outputs_.Run(rows_, pool_->arrays());
  captures_->Ran();
  const absl::Duration busy = absl::Now() - start;
  for (const Part& part : parts) part.work->stats.compute_time += busy;
  absl::MutexLock lock(&mutex_);
  ++stats_.steps;
  stats_.busy += busy;
  if (!status.ok()) return status;
  stats_.rows += rows_.num_rows();
  for (size_t i = 0; i < parts.size(); ++i) {
    (parts[i].work->decodes() ? stats_.tokens_generated : stats_.tokens_read) +=
        rows_.tokens(i).size();
  }
  return status;
}

// The rows of one work are in its state: move the sequence on and tell the caller. An error: the
// sequence is broken.
absl::Status EngineImpl::Deliver(Part& part, size_t index) {
  Work& work = *part.work;
  const absl::Span<const int32_t> tokens = rows_.tokens(index);
  const StepRows::Range rows = rows_.logit_rows(index);
  Sequence& sequence = work.sequence();
  if (!outputs_.Finite(rows)) {
    return absl::InternalError(
        absl::StrCat("the model's logits are not finite after reading tokens ",
                     sequence.ref.position, " to ", sequence.ref.position + tokens.size() - 1));
  }
  sequence.tokens.insert(sequence.tokens.end(), tokens.begin(), tokens.end());
  sequence.ref.position += tokens.size();
  sequence.ref.pending = rows_.pending(index);
  sequence.last_logits.reset();
  sequence.logits_row = rows.last();
  if (work.RuleFor(sequence.ref.position).has_value()) work.SetDrawn(outputs_.Drawn(rows.last()));
  if (work.scores() || (work.decodes() && !work.drawn())) {
    ANABRANCH_RETURN_IF_ERROR(outputs_.Keep(sequence));
  }
  absl::Span<const float> logits;
  if (work.scores()) {
    ANABRANCH_ASSIGN_OR_RETURN(logits, outputs_.Logits(rows));
  }
  work.Advanced(tokens, logits);
  ANABRANCH_RETURN_IF_ERROR(AddCaptures(part, rows));
  if (work.complete()) End(work, absl::OkStatus());
  return absl::OkStatus();
}

// What a reading work captures lies in its places already. A generating one is captured as it
// stands, unless it ends here. The work holds the sequence until its captures are reported, and
// with it the pages.
absl::Status EngineImpl::AddCaptures(Part& part, const StepRows::Range& rows) {
  Work& work = *part.work;
  const Sequence& sequence = work.sequence();
  const auto count = static_cast<int64_t>(part.captures.size());
  if (count == 0 || (work.decodes() && work.complete())) return absl::OkStatus();
  const absl::Status kept = outputs_.CopyLogits(rows.first, captures_->LogitsOf(part.captures));
  for (int64_t i = 0; i < count; ++i) {
    PendingCapture& capture = part.captures[i];
    capture.placed = kept;
    if (work.decodes()) {
      capture.inner_sum = sequence.inner_sum;
      capture.placed.Update(captures_->CopyInto(sequence.ref, capture));
    }
    capture.pages.pages = sequence.ref.pages;
    work.ExpectCapture();
    capture.done = [&work, position = capture.pages.position](absl::StatusOr<StateImage> image) {
      work.ReportCapture(position, std::move(image));
    };
    captures_->Add(std::move(capture));
  }
  return absl::OkStatus();
}

void EngineImpl::Begin(Work& work) {
  if (std::exchange(work.started, true)) return;
  work.stats.queue_time = absl::Now() - work.submitted;
  absl::MutexLock lock(&mutex_);
  --stats_.queued;
  ++stats_.running;
}

// Comes back while captures of the work are on their way; the first status counts.
void EngineImpl::End(Work& work, const absl::Status& status) {
  if (!std::exchange(work.ending, true)) work.end_status = status;
  if (work.ExpectsCaptures()) {
    waits_for_captures_ = true;
    return;
  }
  if (std::exchange(work.ended, true)) return;
  if (!work.started) work.stats.queue_time = absl::Now() - work.submitted;
  const absl::Status kept = Settle(work.sequence());
  if (!kept.ok()) work.sequence().broken = true;
  {
    absl::MutexLock lock(&mutex_);
    --(work.started ? stats_.running : stats_.queued);
  }
  work.LetGo();
  work.Done(kept.ok() ? work.end_status : kept);
}

void EngineImpl::EndBroken(Work& work, const absl::Status& status) {
  work.sequence().broken = true;
  End(work, status);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(std::shared_ptr<Model> model,
                                                       const EngineOptions& options) {
  if (model == nullptr) return absl::InvalidArgumentError("the engine needs a model");
  ANABRANCH_RETURN_IF_ERROR(options.Validate(model->description().vocab));
  ANABRANCH_ASSIGN_OR_RETURN(
      auto pool, SlotPool::Create(model->state_layout(), options.slots, model->device()));
  const std::shared_ptr<SlotPool> shared = std::move(pool);
  ANABRANCH_ASSIGN_OR_RETURN(auto captures,
                             CaptureQueue::Create(shared, *model, options.capture_places));
  return std::make_unique<EngineImpl>(std::move(model), options, shared, std::move(captures));
}

}  // namespace anabranch
