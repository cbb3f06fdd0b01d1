#include "service/state_judge.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/time/clock.h"
#include "service/error_info.h"
#include "service/logging.h"
#include "service/state_embedding.h"
#include "service/state_loading.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

// A sequence that a callback hands on: the engine keeps the callback for a moment longer than it
// needs it, and the slot must be free by the time that somebody waits for it.
using Held = std::shared_ptr<SequencePtr>;
Held Hold(SequencePtr sequence) { return std::make_shared<SequencePtr>(std::move(sequence)); }

// With less the model says what it would say of nothing, and nothing depends on the answer.
constexpr double kWorthAsking = 0.5;
// Enough for a sentence that says who and what.
constexpr int64_t kAnswerTokens = 24;

double Milliseconds(absl::Duration duration) { return absl::ToDoubleMilliseconds(duration); }

std::vector<double> LogSoftmax(absl::Span<const float> logits) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float logit : logits) sum += std::exp(logit - top);
  const double shift = top + std::log(sum);
  std::vector<double> result;
  result.reserve(logits.size());
  for (float logit : logits) result.push_back(logit - shift);
  return result;
}

}  // namespace

// The query in tokens, as a session with this context would read it.
absl::StatusOr<std::vector<int32_t>> StateJudge::QueryAfter(
    absl::Span<const int32_t> context) const {
  const ServedModel& model = *service_->model;
  std::vector<int32_t> tokens;
  if (const ChatFormat* chat = model.chat(); chat != nullptr) {
    const std::vector<ChatMessage> turn = {{"user", text_}};
    ANABRANCH_ASSIGN_OR_RETURN(tokens, chat->Encode(turn, context));
    tokens.insert(tokens.end(), chat->reply_prefix().begin(), chat->reply_prefix().end());
    return tokens;
  }
  ANABRANCH_ASSIGN_OR_RETURN(tokens, model.tokenizer()->Encode(text_, {}));
  // After nothing, the mark that ends a text also begins one.
  const std::vector<int32_t> marks = model.eos_token_ids();
  if (context.empty() && !marks.empty()) tokens.insert(tokens.begin(), marks.front());
  return tokens;
}

void StateJudge::AddStats(const WorkStats& stats) {
  absl::MutexLock lock(&mutex_);
  v1::Usage& usage = call_->usage;
  usage.set_tokens_read(usage.tokens_read() + stats.tokens_read);
  usage.set_tokens_generated(usage.tokens_generated() + stats.tokens_generated);
  usage.set_queue_ms(usage.queue_ms() + Milliseconds(stats.queue_time));
  usage.set_compute_ms(usage.compute_ms() + Milliseconds(stats.compute_time));
}

// The first token is read and not scored: nothing predicts it.
void StateJudge::ReadQuery(const std::string& text, const Done& done) {
  text_ = text;
  auto tokens = QueryAfter({});
  if (!tokens.ok()) return done(tokens.status());
  if (tokens->empty()) return done(InvalidField("text", "has no tokens"));
  const absl::Status room = service_->sessions->MakeRoom();
  if (!room.ok()) return done(room);
  service_->sessions->MakePages(tokens->size());
  auto sequence = service_->engine->NewSequence();
  if (!sequence.ok()) return done(WithReason(sequence.status(), "SLOTS_EXHAUSTED"));
  ReadWork work;
  work.sequence = *sequence;
  work.tokens.assign(tokens->begin(), tokens->begin() + 1);
  work.options = call_->work_options();
  std::vector<int32_t> rest(tokens->begin() + 1, tokens->end());
  work.on_done = [self = shared_from_this(), held = Hold(*std::move(sequence)),
                  rest = std::move(rest),
                  done](const absl::Status& status, const WorkStats& stats) {
    self->AddStats(stats);
    if (status.ok()) return self->ScoreQuery(std::move(*held), rest, done);
    self->service_->pool->Run([done, status] { done(status); });
  };
  const absl::Status submitted = service_->engine->Submit(std::move(work));
  if (!submitted.ok()) done(submitted);
}

void StateJudge::ScoreQuery(SequencePtr sequence, std::vector<int32_t> tokens, const Done& done) {
  ScoreWork work;
  work.sequence = sequence;
  work.tokens = tokens;
  work.options = call_->work_options();
  work.on_done = [self = shared_from_this(), held = Hold(std::move(sequence)), tokens, done](
                     const absl::Status& status, const WorkStats& stats,
                     const std::vector<float>& logprobs) {
    self->service_->pool->Run([self, held, tokens, done, status, stats, logprobs] {
      self->AddStats(stats);
      SequencePtr sequence = std::move(*held);
      if (!status.ok()) return done(status);
      const absl::Span<const float> logits = self->service_->engine->LastLogits(sequence);
      self->tokens_ = tokens;
      self->logprobs_ = logprobs;
      self->answer_logits_.assign(logits.begin(), logits.end());
      self->embedding_ = EmbeddingOf(self->service_->engine->InnerSum(sequence));
      sequence.reset();  // its slot may be waited for
      done(absl::OkStatus());
    });
  };
  const absl::Status submitted = service_->engine->Submit(std::move(work));
  if (!submitted.ok()) service_->pool->Run([done, submitted] { done(submitted); });
}

void StateJudge::Judge(std::vector<std::string> ids, const Done& done) {
  ids_ = std::move(ids);
  done_ = done;
  LoadMore();
}

// Loads states and starts their scores, while earlier ones run. Without a free slot it stops; the
// next score that ends gives its slot back and goes on here.
void StateJudge::LoadMore() {
  {
    absl::MutexLock lock(&mutex_);
    if (std::exchange(loading_, true)) return;
  }
  bool end = false;
  while (true) {
    std::string id;
    {
      absl::MutexLock lock(&mutex_);
      status_.Update(call_->Interrupted());
      if (!status_.ok()) next_ = ids_.size();
      if (next_ == ids_.size()) {
        loading_ = false;
        end = running_ == 0 && !std::exchange(ended_, true);
        break;
      }
      id = ids_[next_];
      ++running_;
    }
    const absl::Status started = StartOne(id);
    absl::MutexLock lock(&mutex_);
    if (started.ok()) {
      ++next_;
      continue;
    }
    --running_;
    if (absl::IsResourceExhausted(started)) {
      if (running_ > 0) {
        loading_ = false;
        break;
      }
      status_.Update(WithReason(started, "SLOTS_EXHAUSTED"));
    } else {
      // An archived state would cost a replay of all that it has read: its words have to do.
      const bool archived = absl::IsFailedPrecondition(started);
      LogEvent(archived ? LogLevel::kDebug : LogLevel::kWarning, "search_cannot_judge",
               {{"state", id}, {"error", std::string(started.message())}});
      ++next_;
    }
  }
  if (!end) return;
  absl::Status status;
  {
    absl::MutexLock lock(&mutex_);
    status = status_;
  }
  // Let go of: it holds who holds this.
  std::exchange(done_, nullptr)(status);
}

absl::Status StateJudge::StartOne(const std::string& id) {
  const absl::Time start = absl::Now();
  ANABRANCH_ASSIGN_OR_RETURN(
      LoadedState state, LoadState(*service_->store, service_->engine->model(), call_->tenant, id));
  service_->heat->Touch(id);
  ANABRANCH_ASSIGN_OR_RETURN(std::vector<int32_t> tokens, QueryAfter(state.tokens));
  const int64_t bytes = state.bytes, count = state.tokens.size();
  bool alone = false;
  {
    absl::MutexLock lock(&mutex_);
    alone = running_ == 1;
  }
  // Sessions are unloaded for one slot at most: the others take what is free.
  if (alone) ANABRANCH_RETURN_IF_ERROR(service_->sessions->MakeRoom());
  if (alone) service_->sessions->MakePages(count + tokens.size() + kAnswerTokens);
  ANABRANCH_ASSIGN_OR_RETURN(SequencePtr sequence,
                             service_->engine->Restore(state.image, std::move(state.tokens)));
  {
    absl::MutexLock lock(&mutex_);
    v1::Usage& usage = call_->usage;
    usage.set_tokens_reused(usage.tokens_reused() + count);
    usage.set_state_bytes_loaded(usage.state_bytes_loaded() + bytes);
    usage.set_restore_ms(usage.restore_ms() + Milliseconds(absl::Now() - start));
  }
  ScoreWork work;
  work.sequence = sequence;
  work.tokens = std::move(tokens);
  work.options = call_->work_options();
  work.on_done = [self = shared_from_this(), id, held = Hold(std::move(sequence))](
                     const absl::Status& status, const WorkStats& stats,
                     const std::vector<float>& logprobs) {
    self->service_->pool->Run([self, id, held, status, stats, logprobs] {
      self->Scored(id, std::move(*held), status, stats, logprobs);
      self->LoadMore();
    });
  };
  return service_->engine->Submit(std::move(work));
}

// Goes on with the answer where that is worth its time; the slot is kept for it.
void StateJudge::Scored(const std::string& id, SequencePtr sequence, const absl::Status& status,
                        const WorkStats& stats, const std::vector<float>& logprobs) {
  AddStats(stats);
  if (!status.ok()) return Ended(id, status, {});
  const Verdict verdict = VerdictOf(logprobs, service_->engine->LastLogits(sequence));
  absl::Status asked = absl::OkStatus();
  if (service_->model->chat() != nullptr && verdict.answer_gain >= kWorthAsking) {
    asked = Ask(id, verdict, std::move(sequence));
    if (asked.ok()) return;
  }
  sequence.reset();  // its slot may be waited for
  Ended(id, asked, verdict);
}

absl::Status StateJudge::Ask(const std::string& id, const Verdict& verdict, SequencePtr sequence) {
  GenerateWork work;
  work.sequence = sequence;
  work.max_tokens = kAnswerTokens;
  work.stop_tokens = service_->model->chat()->stop_token_ids();
  const std::vector<int32_t> ends = service_->model->eos_token_ids();
  work.stop_tokens.insert(work.stop_tokens.end(), ends.begin(), ends.end());
  work.options = call_->work_options();
  const int64_t begin = service_->engine->Position(sequence);
  work.on_done = [self = shared_from_this(), id, verdict, begin, held = Hold(std::move(sequence))](
                     const absl::Status& status, const WorkStats& stats, FinishReason) {
    self->service_->pool->Run([self, id, verdict, begin, held, status, stats] {
      SequencePtr sequence = std::move(*held);
      Verdict answered = verdict;
      if (status.ok()) {
        const absl::Span<const int32_t> tokens = self->service_->engine->Tokens(sequence);
        answered.answer = self->service_->model->tokenizer()->Decode(tokens.subspan(begin), true);
      }
      sequence.reset();  // its slot may be waited for
      self->AddStats(stats);
      self->Ended(id, status, std::move(answered));
      self->LoadMore();
    });
  };
  return service_->engine->Submit(std::move(work));
}

void StateJudge::Ended(const std::string& id, const absl::Status& status, Verdict verdict) {
  absl::MutexLock lock(&mutex_);
  if (status.ok()) {
    verdicts_[id] = std::move(verdict);
  } else {
    status_.Update(status);
  }
  --running_;
}

// What ends both readings of the query is the same in both; a context may need more in front.
StateJudge::Verdict StateJudge::VerdictOf(absl::Span<const float> logprobs,
                                          absl::Span<const float> logits) const {
  Verdict verdict;
  const Tokenizer& tokenizer = *service_->model->tokenizer();
  const size_t shared = std::min(logprobs.size(), logprobs_.size());
  int64_t words = 0;
  for (size_t back = 1; back <= shared; ++back) {
    if (tokenizer.IsSpecial(tokens_[tokens_.size() - back])) continue;
    verdict.pmi += logprobs[logprobs.size() - back] - logprobs_[logprobs_.size() - back];
    ++words;
  }
  verdict.pmi /= static_cast<double>(std::max<int64_t>(words, 1));
  const size_t vocab = service_->model->valid_vocab();
  const std::vector<double> after = LogSoftmax(logits.subspan(0, vocab));
  const std::vector<double> before =
      LogSoftmax(absl::MakeConstSpan(answer_logits_).subspan(0, vocab));
  for (size_t i = 0; i < vocab; ++i) {
    const double p = std::exp(after[i]);
    verdict.entropy -= p * after[i];
    verdict.answer_gain += p * (after[i] - before[i]);
  }
  return verdict;
}

}  // namespace anabranch
