#include "runtime/work.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

absl::Status ValidateRead(const Sequence& sequence, absl::Span<const int32_t> tokens,
                          const WorkLimits& limits) {
  const int64_t end = sequence.ref.position + static_cast<int64_t>(tokens.size());
  if (end > limits.max_context_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("reading ", tokens.size(), " tokens would make the context ", end,
                     " tokens long; the limit is ", limits.max_context_tokens));
  }
  return ValidateTokens(tokens, limits.vocab);
}

absl::Status ValidateHasLogits(const Sequence& sequence) {
  if (sequence.last_logits != nullptr) return absl::OkStatus();
  return absl::FailedPreconditionError("the sequence has no last logits: read a token first");
}

absl::Status ValidateCheckpoints(int64_t every, StateCodec codec) {
  if (every < 0) return absl::InvalidArgumentError("checkpoint_every must not be negative");
  if (codec == StateCodec::kArchive) {
    return absl::InvalidArgumentError("a state cannot be captured as its tokens alone");
  }
  return absl::OkStatus();
}

// Reads given tokens: what ReadWork and ScoreWork share.
class TokensWork : public Work {
 public:
  TokensWork(SequencePtr sequence, std::vector<int32_t> tokens, WorkOptions options,
             Checkpoints checkpoints, const WorkLimits& limits)
      : Work(std::move(sequence), std::move(options), std::move(checkpoints)),
        tokens_(std::move(tokens)),
        limits_(limits) {}

  absl::Status Validate() override { return ValidateRead(sequence(), tokens_, limits_); }
  bool complete() const override { return next_ == tokens_.size(); }
  int64_t RowsWanted(int32_t most_checkpoints) const override {
    const int64_t rows = static_cast<int64_t>(tokens_.size() - next_);
    if (!on_grid()) return rows;
    const int64_t position = sequence().ref.position, every = checkpoint_every();
    return std::min(rows, (position / every + most_checkpoints) * every - position);
  }
  std::vector<int64_t> CheckpointsIn(int64_t rows) const override {
    const int64_t position = sequence().ref.position;
    const bool ends = rows == static_cast<int64_t>(tokens_.size() - next_);
    std::vector<int64_t> tokens;
    const int64_t points = GridPoints(position, position + rows - (ends ? 1 : 0));
    for (int64_t i = 1; i <= points; ++i) {
      tokens.push_back((position / checkpoint_every() + i) * checkpoint_every() - position);
    }
    return tokens;
  }
  absl::Span<const int32_t> NextTokens(int64_t rows) override {
    return absl::MakeSpan(tokens_).subspan(next_, rows);
  }
  void Advanced(absl::Span<const int32_t> tokens, absl::Span<const float> /*logits*/) override {
    next_ += tokens.size();
    stats.tokens_read += tokens.size();
  }

 protected:
  const WorkLimits& limits() const { return limits_; }

 private:
  const std::vector<int32_t> tokens_;
  const WorkLimits limits_;
  size_t next_ = 0;
};

class Reading final : public TokensWork {
 public:
  Reading(ReadWork work, const WorkLimits& limits)
      : TokensWork(std::move(work.sequence), std::move(work.tokens), std::move(work.options),
                   {work.checkpoint_every, work.checkpoint_codec, std::move(work.on_checkpoint)},
                   limits),
        checkpoint_every_(work.checkpoint_every),
        on_progress_(std::move(work.on_progress)),
        on_done_(std::move(work.on_done)) {}

  absl::Status Validate() override {
    ANABRANCH_RETURN_IF_ERROR(ValidateCheckpoints(checkpoint_every_, checkpoint_codec()));
    return TokensWork::Validate();
  }
  void Advanced(absl::Span<const int32_t> tokens, absl::Span<const float> logits) override {
    TokensWork::Advanced(tokens, logits);
    if (on_progress_) on_progress_(tokens, sequence().ref.position);
  }
  void Done(const absl::Status& status) override {
    if (on_done_) on_done_(status, stats);
  }

 private:
  const int64_t checkpoint_every_;
  const OnProgress on_progress_;
  const OnDone on_done_;
};

class Scoring final : public TokensWork {
 public:
  Scoring(ScoreWork work, const WorkLimits& limits)
      : TokensWork(std::move(work.sequence), std::move(work.tokens), std::move(work.options), {},
                   limits),
        on_done_(std::move(work.on_done)) {}

  bool scores() const override { return true; }
  absl::Status Validate() override {
    ANABRANCH_RETURN_IF_ERROR(ValidateHasLogits(sequence()));
    return TokensWork::Validate();
  }
  // The first token of a chunk is predicted by the logits before it, each other one by the row
  // before it.
  absl::Span<const int32_t> NextTokens(int64_t rows) override {
    const absl::Span<const int32_t> tokens = TokensWork::NextTokens(rows);
    logprobs_.push_back(TokenLogprobOf(*sequence().last_logits, tokens[0]));
    return tokens;
  }
  void Advanced(absl::Span<const int32_t> tokens, absl::Span<const float> logits) override {
    TokensWork::Advanced(tokens, logits);
    const size_t vocab = limits().vocab;
    for (size_t i = 1; i < tokens.size(); ++i) {
      logprobs_.push_back(TokenLogprobOf(logits.subspan((i - 1) * vocab, vocab), tokens[i]));
    }
  }
  void Done(const absl::Status& status) override {
    if (!status.ok()) logprobs_.clear();
    if (on_done_) on_done_(status, stats, std::move(logprobs_));
  }

 private:
  const decltype(ScoreWork::on_done) on_done_;
  std::vector<float> logprobs_;
};

class Generating final : public Work {
 public:
  Generating(GenerateWork work, const WorkLimits& limits)
      : Work(std::move(work.sequence), std::move(work.options),
             {work.checkpoint_every, work.checkpoint_codec, std::move(work.on_checkpoint)}),
        work_(std::move(work)),
        limits_(limits) {}

  bool decodes() const override { return true; }
  absl::Status Validate() override {
    ANABRANCH_RETURN_IF_ERROR(ValidateCheckpoints(work_.checkpoint_every, checkpoint_codec()));
    ANABRANCH_RETURN_IF_ERROR(ValidateSamplingParams(work_.sampling));
    if (work_.max_tokens < 1) {
      return absl::InvalidArgumentError("max_tokens must be at least 1");
    }
    ANABRANCH_RETURN_IF_ERROR(ValidateTokens(work_.stop_tokens, limits_.vocab));
    if (AtContextLimit()) finish_ = FinishReason::kContextLimit;
    return ValidateHasLogits(sequence());
  }
  bool complete() const override { return finish_ != FinishReason::kNone; }
  int64_t RowsWanted(int32_t) const override { return 1; }
  std::vector<int64_t> CheckpointsIn(int64_t) const override {
    const int64_t position = sequence().ref.position;
    return std::vector<int64_t>(GridPoints(position, position + 1), 1);
  }
  absl::Span<const int32_t> NextTokens(int64_t) override {
    token_ = GeneratedToken();
    token_.position = sequence().ref.position;
    std::optional<SampledToken> drawn = TakeDrawn();
    token_.sampled = drawn.has_value()
                         ? *std::move(drawn)
                         : SampleToken(*sequence().last_logits, limits_.valid_vocab, work_.sampling,
                                       sequence().tokens, token_.position);
    const auto& stops = work_.stop_tokens;
    token_.stop_token = std::find(stops.begin(), stops.end(), token_.sampled.token) != stops.end();
    return absl::MakeSpan(&token_.sampled.token, 1);
  }
  std::optional<kernels::RowSampling> RuleFor(int64_t position) const override {
    if (!DrawsByRule(work_.sampling)) return std::nullopt;
    return RuleAt(work_.sampling, position);
  }
  // The token is reported after it was read, so that position and token always agree.
  void Advanced(absl::Span<const int32_t> tokens, absl::Span<const float>) override {
    ++stats.tokens_generated;
    if (work_.on_progress) work_.on_progress(tokens, sequence().ref.position);
    const bool go_on = !work_.on_token || work_.on_token(token_);
    if (token_.stop_token) {
      finish_ = FinishReason::kStopToken;
    } else if (!go_on) {
      finish_ = FinishReason::kStopped;
    } else if (stats.tokens_generated >= work_.max_tokens) {
      finish_ = FinishReason::kMaxTokens;
    } else if (AtContextLimit()) {
      finish_ = FinishReason::kContextLimit;
    }
  }
  void Done(const absl::Status& status) override {
    if (work_.on_done) work_.on_done(status, stats, status.ok() ? finish_ : FinishReason::kNone);
  }

 private:
  bool AtContextLimit() const { return sequence().ref.position >= limits_.max_context_tokens; }

  const GenerateWork work_;
  const WorkLimits limits_;
  GeneratedToken token_;
  FinishReason finish_ = FinishReason::kNone;
};

}  // namespace

absl::Status Work::CheckStillWanted(absl::Time now) const {
  if (options_.cancel != nullptr && options_.cancel->cancelled()) {
    return absl::CancelledError("the work was cancelled");
  }
  if (now >= options_.deadline) return absl::DeadlineExceededError("the work's deadline passed");
  return absl::OkStatus();
}

std::unique_ptr<Work> MakeWork(ReadWork work, const WorkLimits& limits) {
  return std::make_unique<Reading>(std::move(work), limits);
}
std::unique_ptr<Work> MakeWork(GenerateWork work, const WorkLimits& limits) {
  return std::make_unique<Generating>(std::move(work), limits);
}
std::unique_ptr<Work> MakeWork(ScoreWork work, const WorkLimits& limits) {
  return std::make_unique<Scoring>(std::move(work), limits);
}

absl::Status ValidateRestored(const StateHeader& header, absl::Span<const int32_t> tokens,
                              int64_t hidden, const WorkLimits& limits) {
  if (static_cast<int64_t>(tokens.size()) != header.token_count) {
    return absl::InvalidArgumentError(absl::StrCat("the state has read ", header.token_count,
                                                   " tokens; ", tokens.size(), " were given"));
  }
  if (header.token_count > limits.max_context_tokens) {
    return absl::InvalidArgumentError(absl::StrCat("the state has read ", header.token_count,
                                                   " tokens; the limit is ",
                                                   limits.max_context_tokens));
  }
  if (header.vocab != 0 && header.vocab != limits.vocab) {
    return absl::DataLossError(absl::StrCat("the state's last logits have ", header.vocab,
                                            " values; the vocabulary has ", limits.vocab));
  }
  if (!header.inner_sum.empty() && static_cast<int64_t>(header.inner_sum.size()) != hidden) {
    return absl::DataLossError(absl::StrCat("the state's inner sum has ", header.inner_sum.size(),
                                            " values; the model has ", hidden));
  }
  return ValidateTokens(tokens, limits.vocab);
}

absl::Status ValidateTokens(absl::Span<const int32_t> tokens, int32_t vocab) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocab) {
      return absl::InvalidArgumentError(
          absl::StrCat("token ", i, " has id ", tokens[i], "; the vocabulary has ", vocab, " ids"));
    }
  }
  return absl::OkStatus();
}

}  // namespace anabranch
