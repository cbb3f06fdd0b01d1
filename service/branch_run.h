// One branch of a Delegate on its way: a session that is in no library yet, which reads its input
// and generates.
//
// Thread rule: one member at a time, except where the engine's thread calls back.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "anabranch/v1/sessions.pb.h"
#include "runtime/text_stream.h"
#include "service/delegate_plan.h"
#include "service/session_call.h"

namespace anabranch {

// Where all branches start: a sequence that nobody writes to, or a state with its tokens, and what
// of it stands in the library.
struct BranchSource {
  SequencePtr sequence;  // null: `image` and `tokens`
  StateImage image;
  std::vector<int32_t> tokens;
  SessionRecord record;       // head of the branches' sessions; their tenant, model and labels
  std::vector<int32_t> tail;  // tokens after that head
};

class BranchRun : public std::enable_shared_from_this<BranchRun> {
 public:
  using SendDelta = std::function<void(v1::BranchDelta)>;
  using Done = std::function<void(absl::Status)>;

  // `plan` and `source` outlive this. `call` is that of the whole Delegate.
  BranchRun(ServiceContext* service, const BranchPlan* plan, const BranchSource* source,
            const Call& call);

  // Reserves the session's name. ALREADY_EXISTS.
  absl::Status Open();
  // Runs, or goes on where it stopped, to the end. RESOURCE_EXHAUSTED: slots or pages of the engine
  // ran out; it may go on later. on_delta runs on the engine's thread and on the pool, `on_slot`
  // once, when the branch holds a slot of its own; `done` on the pool or right here.
  void Run(const SendDelta& on_delta, std::function<void()> on_slot, Done done);

  // Tokens of the engine that the branch may need in all, for attention's pages.
  int64_t tokens_wanted() const;
  bool has_slot() const { return has_slot_; }
  // Whether the last Run came any further than the one before.
  bool progressed() const { return progressed_; }
  int32_t number() const { return plan_->number; }
  double score() const;
  SessionCall& session() { return *session_; }
  // Lets go of slot and text stream; name and log stay.
  void Unload();
  // `status`: how it ended.
  v1::BranchResult Result(const absl::Status& status);
  v1::Session Session();

 private:
  void Generate();
  void TookSlot();
  bool OnToken(const GeneratedToken& token);
  void Flush();
  int64_t tokens_done() { return session_->token_count() - source_tokens_; }
  void End(absl::Status status);

  ServiceContext* const service_;
  const BranchPlan* const plan_;
  const BranchSource* const source_;
  const CallPtr call_;  // of this branch alone: its deadline and usage
  const std::shared_ptr<SessionCall> session_;
  int64_t source_tokens_ = 0;
  bool started_ = false, has_slot_ = false, progressed_ = false;
  int64_t tokens_before_ = 0;  // of the session when Run was called
  SendDelta on_delta_;
  std::function<void()> on_slot_;
  Done done_;
  // Written by the engine's thread while work runs.
  std::optional<TextStream> text_stream_;
  std::string text_;
  std::vector<int32_t> tokens_;  // generated
  double logprob_sum_ = 0;
  FinishReason reason_ = FinishReason::kNone;
};

}  // namespace anabranch
