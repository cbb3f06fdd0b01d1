// The three kinds of work behind one interface, as the engine's thread drives them: how many rows
// it can use, which tokens they are, and what to tell the caller once they are read.
//
// Thread rule: made by the submitter, then used by the engine's thread only, but for ReportCapture.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "runtime/engine.h"
#include "runtime/sequence.h"

namespace anabranch {

// What works need to know of the engine.
struct WorkLimits {
  int64_t max_context_tokens = 0;
  int32_t vocab = 0;
  int32_t valid_vocab = 0;  // ids the sampler may choose
};

class Work {
 public:
  // What is captured of a work on its way.
  struct Checkpoints {
    int64_t every = 0;
    StateCodec codec = StateCodec::kExact;
    OnCheckpoint report;
  };
  Work(SequencePtr sequence, WorkOptions options, Checkpoints checkpoints)
      : sequence_(std::move(sequence)),
        options_(std::move(options)),
        checkpoints_(std::move(checkpoints)) {}
  virtual ~Work() = default;

  // Checks the request against the sequence, which the caller holds for writing. First call.
  virtual absl::Status Validate() = 0;
  virtual bool decodes() const { return false; }
  virtual bool scores() const { return false; }
  virtual bool complete() const = 0;
  // Rows that can run now, with at most `most_checkpoints` (at least 1) among them. At least 1
  // unless complete().
  virtual int64_t RowsWanted(int32_t most_checkpoints) const = 0;
  // Of the next `rows` rows, those after which the state is reported: how many tokens of them have
  // been read then, ascending.
  virtual std::vector<int64_t> CheckpointsIn(int64_t rows) const = 0;
  // The tokens of the next `rows` rows. Valid until the next call.
  virtual absl::Span<const int32_t> NextTokens(int64_t rows) = 0;
  // How the token of `position` is drawn, if it can be drawn without the host.
  virtual std::optional<kernels::RowSampling> RuleFor(int64_t position) const {
    (void)position;
    return std::nullopt;
  }
  // The token that NextTokens gives next, if it was drawn already.
  void SetDrawn(std::optional<SampledToken> drawn) { drawn_ = std::move(drawn); }
  bool drawn() const { return drawn_.has_value(); }
  // The rows are part of the sequence now. `logits` of each row if scores(), else none.
  virtual void Advanced(absl::Span<const int32_t> tokens, absl::Span<const float> logits) = 0;
  // Last call, after LetGo. No captures are expected then.
  virtual void Done(const absl::Status& status) = 0;
  // Ends the hold on the sequence, so that on_done may submit its next work.
  void LetGo() {
    sequence_->use.EndWrite();
    sequence_.reset();
  }

  // CANCELLED or DEADLINE_EXCEEDED.
  absl::Status CheckStillWanted(absl::Time now) const;
  // The capture of a position is on its way: Done waits for it.
  void ExpectCapture() { captures_.fetch_add(1, std::memory_order_relaxed); }
  // Any thread.
  void ReportCapture(int64_t position, absl::StatusOr<StateImage> image) {
    checkpoints_.report(position, std::move(image));
    captures_.fetch_sub(1, std::memory_order_release);
  }
  bool ExpectsCaptures() const { return captures_.load(std::memory_order_acquire) > 0; }

  StateCodec checkpoint_codec() const { return checkpoints_.codec; }

  Sequence& sequence() const { return *sequence_; }
  uint64_t id = 0;
  absl::Time submitted;
  bool started = false, ending = false, ended = false;
  absl::Status end_status;  // if ending
  WorkStats stats;

 protected:
  std::optional<SampledToken> TakeDrawn() { return std::exchange(drawn_, std::nullopt); }
  // Positions of the grid in (from, to].
  int64_t GridPoints(int64_t from, int64_t to) const {
    return on_grid() ? to / checkpoints_.every - from / checkpoints_.every : 0;
  }
  bool on_grid() const { return checkpoints_.every > 0 && checkpoints_.report != nullptr; }
  int64_t checkpoint_every() const { return checkpoints_.every; }

 private:
  SequencePtr sequence_;
  const WorkOptions options_;
  const Checkpoints checkpoints_;
  std::optional<SampledToken> drawn_;
  std::atomic<int64_t> captures_{0};  // on their way
};

std::unique_ptr<Work> MakeWork(ReadWork work, const WorkLimits& limits);
std::unique_ptr<Work> MakeWork(GenerateWork work, const WorkLimits& limits);
std::unique_ptr<Work> MakeWork(ScoreWork work, const WorkLimits& limits);

// Whether a sequence of these tokens may go on from the state: INVALID_ARGUMENT for tokens that are
// not its own or too many, DATA_LOSS for logits or sums of another model.
absl::Status ValidateRestored(const StateHeader& header, absl::Span<const int32_t> tokens,
                              int64_t hidden, const WorkLimits& limits);

// INVALID_ARGUMENT names the first id outside [0, vocab).
absl::Status ValidateTokens(absl::Span<const int32_t> tokens, int32_t vocab);

}  // namespace anabranch
