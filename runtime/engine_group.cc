#include "runtime/engine_group.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/sequence.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

bool HasFreeSlot(const Engine& engine) {
  const SlotPool::Usage usage = engine.stats().slots;
  return usage.slots_used < usage.slots_total;
}

class EngineGroup final : public Engine {
 public:
  explicit EngineGroup(std::vector<EngineMember> members) : members_(std::move(members)) {}

  absl::StatusOr<SequencePtr> NewSequence() override {
    return PlaceByLoad([](Engine& engine) { return engine.NewSequence(); });
  }
  absl::StatusOr<SequencePtr> Restore(const StateImage& image,
                                      std::vector<int32_t> tokens) override {
    return PlaceByLoad([&](Engine& engine) { return engine.Restore(image, tokens); });
  }
  absl::StatusOr<SequencePtr> Fork(const SequencePtr& sequence) override;
  absl::StatusOr<StateImage> Capture(const SequencePtr& sequence, StateCodec codec) override {
    ANABRANCH_ASSIGN_OR_RETURN(Engine * home, Home(sequence));
    return home->Capture(sequence, codec);
  }
  // One profile, so one kind of device.
  bool Restores(const StateHeader& header) const override { return first().Restores(header); }
  // Host memory that one device copies from at full speed serves all of them.
  absl::StatusOr<Buffer> PayloadMemory(size_t bytes) const override {
    return first().PayloadMemory(bytes);
  }

  absl::Status Submit(ReadWork work) override { return Pass(std::move(work)); }
  absl::Status Submit(GenerateWork work) override { return Pass(std::move(work)); }
  absl::Status Submit(ScoreWork work) override { return Pass(std::move(work)); }

  // What is known of a sequence is in the sequence itself: any engine can tell.
  int64_t Position(const SequencePtr& sequence) const override {
    return first().Position(sequence);
  }
  const std::vector<int32_t>& Tokens(const SequencePtr& sequence) const override {
    return first().Tokens(sequence);
  }
  absl::Span<const float> LastLogits(const SequencePtr& sequence) const override {
    return first().LastLogits(sequence);
  }
  absl::Span<const float> InnerSum(const SequencePtr& sequence) const override {
    return first().InnerSum(sequence);
  }
  StateOrigin Origin(const SequencePtr& sequence) const override {
    return first().Origin(sequence);
  }

  const Model& model() const override { return first().model(); }
  EngineStats stats() const override;
  std::vector<MemberStats> member_stats() const override;
  absl::Status health() const override;
  const Engine& HomeOf(const SequencePtr& sequence) const override {
    const auto home = Home(sequence);
    if (!home.ok()) return *this;
    return **home;
  }

 private:
  const Engine& first() const { return *members_.front().engine; }

  absl::StatusOr<Engine*> Home(const SequencePtr& sequence) const {
    for (const EngineMember& member : members_) {
      if (sequence != nullptr && sequence->owner == member.engine.get()) return member.engine.get();
    }
    return absl::InvalidArgumentError("the sequence is not of this engine");
  }

  // Members, the one to give work to first.
  std::vector<Engine*> ByLoad() const;

  // From the first engine that has a slot free. Each refusal says RESOURCE_EXHAUSTED, so does all.
  template <typename Make>
  absl::StatusOr<SequencePtr> PlaceByLoad(const Make& make) {
    absl::Status refused;
    for (Engine* engine : ByLoad()) {
      absl::StatusOr<SequencePtr> sequence = make(*engine);
      if (sequence.ok() || !absl::IsResourceExhausted(sequence.status())) return sequence;
      refused = sequence.status();
    }
    return refused;
  }

  template <typename Work>
  absl::Status Pass(Work work) {
    ANABRANCH_ASSIGN_OR_RETURN(Engine * home, Home(work.sequence));
    return home->Submit(std::move(work));
  }

  const std::vector<EngineMember> members_;
};

std::vector<Engine*> EngineGroup::ByLoad() const {
  // Of members that are as busy, the one where less is held that may be busy next.
  using Load = std::tuple<int32_t, int32_t, size_t>;
  std::vector<Load> loads;
  for (size_t i = 0; i < members_.size(); ++i) {
    const EngineStats stats = members_[i].engine->stats();
    loads.emplace_back(stats.queued + stats.running,
                       stats.slots.slots_used + stats.slots.slots_owed, i);
  }
  std::sort(loads.begin(), loads.end());
  std::vector<Engine*> order;
  order.reserve(loads.size());
  for (const Load& load : loads) order.push_back(members_[std::get<2>(load)].engine.get());
  return order;
}

absl::StatusOr<SequencePtr> EngineGroup::Fork(const SequencePtr& sequence) {
  ANABRANCH_ASSIGN_OR_RETURN(Engine * home, Home(sequence));
  if (HasFreeSlot(*home)) return home->Fork(sequence);
  for (Engine* engine : ByLoad()) {
    if (!HasFreeSlot(*engine)) continue;
    ANABRANCH_ASSIGN_OR_RETURN(const StateImage image, home->Capture(sequence));
    absl::StatusOr<SequencePtr> moved = engine->Restore(image, home->Tokens(sequence));
    if (moved.ok() || !absl::IsResourceExhausted(moved.status())) return moved;
  }
  return home->Fork(sequence);
}

EngineStats EngineGroup::stats() const {
  EngineStats sum;
  for (const EngineMember& member : members_) AddStats(member.engine->stats(), &sum);
  return sum;
}

// With one member the process is to start anew: the others' sessions are in the library, too.
absl::Status EngineGroup::health() const {
  for (const EngineMember& member : members_) {
    const absl::Status health = member.engine->health();
    if (!health.ok()) {
      return absl::Status(health.code(), absl::StrCat(member.name, ": ", health.message()));
    }
  }
  return absl::OkStatus();
}

std::vector<MemberStats> EngineGroup::member_stats() const {
  std::vector<MemberStats> all;
  for (const EngineMember& member : members_) {
    all.push_back({member.name, member.engine->stats()});
  }
  return all;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> JoinEngines(std::vector<EngineMember> members) {
  if (members.empty()) return absl::InvalidArgumentError("a group of engines needs one");
  const Model& model = members[0].engine->model();
  for (const EngineMember& member : members) {
    const Model& other = member.engine->model();
    if (other.fingerprint() != model.fingerprint()) {
      return absl::InvalidArgumentError(absl::StrCat("devices ", members[0].name, " and ",
                                                     member.name, " would run different models"));
    }
    if (other.numerics_profile() != model.numerics_profile()) {
      return absl::InvalidArgumentError(
          absl::StrCat("devices ", members[0].name, " and ", member.name, " compute differently (",
                       model.numerics_profile(), ", ", other.numerics_profile(),
                       "): a state of one could not go on on the other"));
    }
  }
  if (members.size() == 1) return std::move(members[0].engine);
  return std::make_unique<EngineGroup>(std::move(members));
}

void AddStats(const EngineStats& more, EngineStats* sum) {
  sum->steps += more.steps;
  sum->rows += more.rows;
  sum->tokens_read += more.tokens_read;
  sum->tokens_generated += more.tokens_generated;
  sum->queued += more.queued;
  sum->running += more.running;
  sum->busy += more.busy;
  sum->slots.slots_total += more.slots.slots_total;
  sum->slots.slots_used += more.slots.slots_used;
  sum->slots.slots_owed += more.slots.slots_owed;
  sum->slots.pages_total += more.slots.pages_total;
  sum->slots.pages_used += more.slots.pages_used;
  sum->slots.slot_bytes = more.slots.slot_bytes;
  sum->slots.page_bytes = more.slots.page_bytes;
}

}  // namespace anabranch
