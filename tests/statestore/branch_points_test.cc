// Where a history parts from a stored lineage, at token granularity.
#include <numeric>
#include <random>

#include "statestore/state_id.h"
#include "tests/statestore/library_fixture.h"

namespace anabranch {
namespace {

using Tokens = std::vector<int32_t>;

Tokens Some(int count, int seed, int32_t vocab = 1000) {
  std::mt19937 random(seed);
  Tokens tokens(count);
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() % vocab);
  return tokens;
}

Tokens Part(const Tokens& tokens, size_t begin, size_t end) {
  return {tokens.begin() + begin, tokens.begin() + end};
}

Tokens Joined(Tokens a, const Tokens& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

class BranchPoints : public LibraryTest {
 protected:
  int64_t Find(const Tokens& tokens, const std::string& tenant = kTenant) {
    const auto found = store_->FindBranchPoint(tenant, "model-a", "cpu-float32", tokens);
    EXPECT_TRUE(found.ok()) << found.status();
    return found.value_or(-1);
  }
};

TEST_F(BranchPoints, AreFoundToTheTokenInsideASpan) {
  const Tokens told = Some(300, 1);
  ASSERT_EQ(Commit(Put(MakeState(told))), absl::OkStatus());
  for (size_t shared : {64, 65, 200, 299, 300}) {
    EXPECT_EQ(Find(Joined(Part(told, 0, shared), {-1, -2})), shared);
  }
  EXPECT_EQ(Find(told), 300);
  EXPECT_EQ(Find(Joined(Part(told, 0, 63), Some(100, 2))), 0) << "not worth a state";
  EXPECT_EQ(Find({}), 0);
}

TEST_F(BranchPoints, AreFoundHoweverTheLineagesWereSplit) {
  const Tokens told = Some(600, 1);
  const StateRecord a = MakeState(Part(told, 0, 100)), b = MakeState(Part(told, 100, 500), &a);
  const StateRecord c = MakeState(Part(told, 0, 200));  // the same tokens, cut elsewhere
  ASSERT_EQ(Commit(Put(a), Put(b), Put(c)), absl::OkStatus());
  EXPECT_EQ(Find(Joined(Part(told, 0, 450), {-1})), 450) << "below a, although c is deeper";
}

TEST_F(BranchPoints, InsideThinnedLineagesAreFound) {
  const Tokens told = Some(600, 1);
  const StateRecord a = MakeState(Part(told, 0, 200)), b = MakeState(Part(told, 200, 600), &a);
  ASSERT_EQ(Commit(Put(a), Put(b)), absl::OkStatus());
  ASSERT_EQ(Commit(ThinState{kTenant, a.id}), absl::OkStatus());
  EXPECT_EQ(Find(Joined(Part(told, 0, 500), {-1})), 500);
}

TEST_F(BranchPoints, OfOtherTenantsModelsAndMergesAreNotSeen) {
  const Tokens told = Some(300, 1);
  StateRecord foreign = MakeState(told), model = MakeState(told);
  foreign.tenant = "other";
  foreign.id = StateId(foreign);
  model.fingerprint = "model-b";
  model.id = StateId(model);
  ASSERT_EQ(Commit(Put(foreign), Put(model)), absl::OkStatus());
  EXPECT_EQ(Find(told), 0);
  EXPECT_EQ(Find(told, "other"), 300);
}

TEST_F(BranchPoints, GoWithTheirStates) {
  const StateRecord a = MakeState(Some(300, 1));
  ASSERT_EQ(Commit(Put(a)), absl::OkStatus());
  ASSERT_EQ(Commit(DeleteState{kTenant, a.id}), absl::OkStatus());
  EXPECT_EQ(Find(Some(300, 1)), 0);
}

// Against the longest common prefix with every stored lineage, which the index must find whenever
// it passes the deepest state before it by enough, and never exceed.
TEST_F(BranchPoints, EqualTheLongestCommonPrefixOfRandomLineages) {
  std::mt19937 random(7);
  std::vector<std::pair<StateRecord, Tokens>> states;
  for (int i = 0; i < 40; ++i) {
    const StateRecord* parent = nullptr;
    Tokens before;
    if (!states.empty() && random() % 4 != 0) {
      const auto& chosen = states[random() % states.size()];
      parent = &chosen.first;
      before = chosen.second;
    }
    Tokens span = Some(64 + static_cast<int>(random() % 200), i);
    if (parent != nullptr && random() % 2 == 0) {  // shares a part of a sibling's span
      for (const auto& [other, tokens] : states) {
        if (other.parents != std::vector<std::string>{parent->id}) continue;
        const size_t shared = std::min(other.span_tokens.size(), span.size()) / 2;
        std::copy_n(other.span_tokens.begin(), shared, span.begin());
      }
    }
    StateRecord state = MakeState(span, parent);
    ASSERT_EQ(Commit(Put(state)), absl::OkStatus());
    states.emplace_back(std::move(state), Joined(before, span));
  }
  for (int i = 0; i < 200; ++i) {
    const Tokens& from = states[random() % states.size()].second;
    const Tokens history = Joined(Part(from, 0, random() % (from.size() + 1)), {-1, -2, -3});
    int64_t longest = 0, deepest_state = 0;
    for (const auto& [state, tokens] : states) {
      const size_t shorter = std::min(tokens.size(), history.size());
      const auto common =
          std::mismatch(tokens.begin(), tokens.begin() + shorter, history.begin()).first -
          tokens.begin();
      longest = std::max<int64_t>(longest, common);
      if (common == static_cast<int64_t>(tokens.size())) {
        deepest_state = std::max<int64_t>(deepest_state, common);
      }
    }
    const int64_t found = Find(history);
    EXPECT_LE(found, longest);
    if (longest - deepest_state >= kMinBranchTokens) {
      EXPECT_EQ(found, longest);
    }
  }
}

}  // namespace
}  // namespace anabranch
