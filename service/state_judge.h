// Asks states a question without asking it: runs the query from each candidate and compares what
// the model then thinks with what it thinks of the query after nothing. The state that knows about
// the query finds it less surprising, and gives another answer than knowing nothing does.
//
// For a model with a chat format the query is the user's turn with the reply opened, the form that
// the model was trained on; only the words of the turn count, not the marks around it. Where the
// state changes what the model begins to say, such a model is also let say it, so that somebody can
// look whether the state has read that.
//
// Thread rule: one member at a time; a member that takes `done` has ended when done was called.
// Members block on the library and run on the worker pool; so does `done`.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "service/service_context.h"

namespace anabranch {

class StateJudge : public std::enable_shared_from_this<StateJudge> {
 public:
  using Done = std::function<void(absl::Status)>;
  // In nats. pmi: mean over the query's words of log p(word | state) - log p(word | nothing).
  // answer_gain: Kullback-Leibler divergence of the first answer token after the state from the one
  // after nothing; entropy: of the former.
  // answer: the greedy one, or its beginning; none if it was not asked for.
  struct Verdict {
    double pmi = 0, answer_gain = 0, entropy = 0;
    std::optional<std::string> answer;
  };

  StateJudge(ServiceContext* service, CallPtr call) : service_(service), call_(std::move(call)) {}

  // First: reads the query after nothing. INVALID_ARGUMENT if it has no tokens.
  void ReadQuery(const std::string& text, const Done& done);
  // Then: of the query, as the index compares it.
  const std::vector<float>& embedding() const { return embedding_; }

  // Runs the query from each of the states. One that cannot be loaded has no verdict; an error of
  // the call itself (cancelled, deadline, engine full) ends it all.
  void Judge(std::vector<std::string> ids, const Done& done);
  const absl::flat_hash_map<std::string, Verdict>& verdicts() const { return verdicts_; }

 private:
  absl::StatusOr<std::vector<int32_t>> QueryAfter(absl::Span<const int32_t> context) const;
  void ScoreQuery(SequencePtr sequence, std::vector<int32_t> tokens, const Done& done);
  void LoadMore();
  absl::Status StartOne(const std::string& id) ABSL_LOCKS_EXCLUDED(mutex_);
  void Scored(const std::string& id, SequencePtr sequence, const absl::Status& status,
              const WorkStats& stats, const std::vector<float>& logprobs)
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status Ask(const std::string& id, const Verdict& verdict, SequencePtr sequence);
  void Ended(const std::string& id, const absl::Status& status, Verdict verdict)
      ABSL_LOCKS_EXCLUDED(mutex_);
  Verdict VerdictOf(absl::Span<const float> logprobs, absl::Span<const float> logits) const;
  void AddStats(const WorkStats& stats) ABSL_LOCKS_EXCLUDED(mutex_);

  ServiceContext* const service_;
  const CallPtr call_;

  // Of the query after nothing.
  std::string text_;
  std::vector<int32_t> tokens_;       // those that were scored
  std::vector<float> logprobs_;       // of each
  std::vector<float> answer_logits_;  // after the last
  std::vector<float> embedding_;

  absl::Mutex mutex_;
  std::vector<std::string> ids_;
  Done done_;
  size_t next_ ABSL_GUARDED_BY(mutex_) = 0;
  int running_ ABSL_GUARDED_BY(mutex_) = 0;       // states in the engine
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;    // done_ was called
  bool loading_ ABSL_GUARDED_BY(mutex_) = false;  // LoadMore runs
  absl::Status status_ ABSL_GUARDED_BY(mutex_);   // why all ends early
  absl::flat_hash_map<std::string, Verdict> verdicts_;
};

}  // namespace anabranch
