// Merging over a real socket: sessions that read separately go on from one state, which is kept.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/e2e/library_fixture.h"

namespace anabranch {
namespace {

using grpc::StatusCode;

class MergeTest : public LibraryTest {
 protected:
  static v1::MergeRequest Of(const std::vector<std::string>& ids,
                             v1::MergeMethod method = v1::MERGE_METHOD_UNSPECIFIED) {
    v1::MergeRequest request;
    for (const std::string& id : ids) request.add_inputs()->set_id(id);
    request.set_method(method);
    return request;
  }
  grpc::Status Merge(const v1::MergeRequest& request, v1::MergeResponse* response) {
    return client_->states().Merge(TestClient::Context().get(), request, response);
  }
  v1::MergeResponse MustMerge(const v1::MergeRequest& request) {
    v1::MergeResponse response;
    const grpc::Status status = Merge(request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
};

class MergeOfModelTest : public MergeTest, public testing::WithParamInterface<std::string> {};

TEST_P(MergeOfModelTest, UntouchedBranchesMergeToTheirParent) {
  Start(GoldenModel(GetParam()));
  const std::string parent = Read("main", SomeTokens(300, 1));
  Fork("main", 2);
  const v1::MergeResponse merged = MustMerge(Of({Commit("main/1"), Commit("main/2")}));
  EXPECT_EQ(merged.ancestor_id(), parent);
  EXPECT_EQ(merged.state().token_count(), 300);
  CreateFrom("merged", merged.state().id());
  ExpectClose(Fingerprint("merged"), Fingerprint("main"));
}

TEST_P(MergeOfModelTest, ABranchThatReadNothingLeavesTheOtherAsItIs) {
  Start(GoldenModel(GetParam()));
  Read("main", SomeTokens(100, 1));
  Fork("main", 1);
  ASSERT_TRUE(client_->AppendTokens("main/1", SomeTokens(200, 2)).has_done);
  for (v1::MergeMethod method : {v1::MERGE_METHOD_COMPOSE, v1::MERGE_METHOD_ORDERED}) {
    const v1::MergeResponse merged = MustMerge(Of({"main", Commit("main/1")}, method));
    const std::string id = "merged/" + std::to_string(method);
    CreateFrom(id, merged.state().id());
    EXPECT_EQ(client_->SessionTokens(id), client_->SessionTokens("main/1"));
    if (method == v1::MERGE_METHOD_ORDERED) {  // whose window is the last input's
      ExpectClose(Fingerprint(id), Fingerprint("main/1"));
    }
  }
}

TEST_P(MergeOfModelTest, AMergeIsKeptAndCanBeMergedAndRewoundTo) {
  Start(GoldenModel(GetParam()));
  const std::vector<int32_t> a = SomeTokens(60, 1), b = SomeTokens(280, 2), c = SomeTokens(30, 3);
  Read("a", a);
  Read("b", b);
  Read("c", c);
  v1::MergeRequest request = Of({"a", "b"});
  request.set_ref("both");
  (*request.mutable_labels())["kind"] = "merge";
  const v1::MergeResponse both = MustMerge(request);
  EXPECT_EQ(both.ref().state_id(), both.state().id());
  EXPECT_EQ(both.ancestor_id(), "");
  EXPECT_EQ(both.state().operation(), "merge");
  EXPECT_EQ(both.state().parent_ids_size(), 2);
  EXPECT_EQ(both.usage().tokens_reused(), 340);
  EXPECT_EQ(both.usage().tokens_read(), 0);
  CreateFrom("x", both.state().id());
  ASSERT_TRUE(client_->AppendTokens("x", c).has_done);
  const std::vector<float> before = Fingerprint("x");
  Start(GoldenModel(GetParam()));
  EXPECT_EQ(Fingerprint("x"), before) << "after a restart";
  std::vector<int32_t> tokens = a;
  tokens.insert(tokens.end(), b.begin(), b.end());
  tokens.insert(tokens.end(), c.begin(), c.end());
  EXPECT_EQ(client_->SessionTokens("x"), tokens);
  EXPECT_EQ(MustMerge(Of({"both", "c"})).state().token_count(), 370);
  v1::RewindRequest rewind;
  rewind.set_session_id("x");
  rewind.set_token_count(339);
  v1::RewindResponse rewound;
  const grpc::Status inside =
      client_->sessions().Rewind(TestClient::Context().get(), rewind, &rewound);
  EXPECT_EQ(ReasonOf(inside), "NO_SUCH_POINT") << inside.error_message();
  rewind.set_token_count(340);
  EXPECT_TRUE(client_->sessions().Rewind(TestClient::Context().get(), rewind, &rewound).ok());
  EXPECT_EQ(rewound.base_state_id(), both.state().id());
}

INSTANTIATE_TEST_SUITE_P(Models, MergeOfModelTest, testing::ValuesIn(GoldenModelNames()),
                         [](const auto& info) { return info.param; });

TEST_F(MergeTest, WhatWasReadSeparatelyIsKnownTogether) {
  Start(RecallModel());
  const auto tell = [&](const std::string& id, const std::string& text) {
    client_->MustCreate(id);
    client_->Ask(id, text);
    Commit(id);
  };
  tell("left", "My name is Ada.");
  tell("right", "My locker code is 4711.");
  CreateFrom("both", MustMerge(Of({"left", "right"})).state().id());
  EXPECT_THAT(client_->Ask("both", "What is my name?"), testing::HasSubstr("Ada"));
  EXPECT_THAT(client_->Ask("both", "What is my locker code?"), testing::HasSubstr("4711"));
}

TEST_F(MergeTest, TheInputThatKnowsMostIsSelected) {
  Start(RecallModel());
  const auto tell = [&](const std::string& id, const std::string& text) {
    client_->MustCreate(id);
    EXPECT_TRUE(client_->Say(id, text).has_done);
    return Commit(id);
  };
  const std::string left = tell("left", "My name is Ada."), right = tell("right", "I like rain.");
  v1::MergeRequest request = Of({"left", "right"}, v1::MERGE_METHOD_SELECT);
  request.set_query("My name is Ada.");
  request.set_ref("best");
  const v1::MergeResponse selected = MustMerge(request);
  ASSERT_EQ(selected.query_scores_size(), 2);
  const bool first = selected.query_scores(0).logprob() >= selected.query_scores(1).logprob();
  EXPECT_EQ(selected.state().id(), first ? left : right);
  EXPECT_EQ(selected.ref().state_id(), selected.state().id());
  EXPECT_GT(selected.usage().tokens_read(), 0);
  // Without a query the heaviest, which may be read already.
  v1::MergeRequest heaviest = Of({left, right}, v1::MERGE_METHOD_SELECT);
  heaviest.mutable_inputs(1)->set_weight(2);
  EXPECT_EQ(MustMerge(heaviest).state().id(), right);
  v1::MergeResponse response;
  (*heaviest.mutable_labels())["a"] = "b";
  EXPECT_EQ(ReasonOf(Merge(heaviest, &response)), "INVALID_FIELD");
  v1::MergeRequest query = Of({left, right});
  query.set_query("what?");
  EXPECT_EQ(ReasonOf(Merge(query, &response)), "INVALID_FIELD");
}

TEST_F(MergeTest, SixtyFourStatesAreOne) {
  Start(GoldenModel("mamba2"));
  std::vector<std::string> ids;
  for (int i = 0; i < 64; ++i) ids.push_back(Read("s" + std::to_string(i), SomeTokens(4, i)));
  for (v1::MergeNorm norm :
       {v1::MERGE_NORM_UNSPECIFIED, v1::MERGE_NORM_SHARES, v1::MERGE_NORM_INPUTS}) {
    v1::MergeRequest request = Of(ids);
    request.set_norm(norm);
    EXPECT_EQ(MustMerge(request).state().token_count(), 256);
  }
}

TEST_F(MergeTest, BadMergesAreNamedAndChangeNothing) {
  Start(GoldenModel("mamba"));
  const std::string foreign = Read("foreign", SomeTokens(10, 1));
  Start(GoldenModel("mamba2"));
  const std::string a = Read("a", SomeTokens(20, 1)), b = Read("b", SomeTokens(30, 2));
  const auto expect = [&](const v1::MergeRequest& request, StatusCode code,
                          const std::string& reason, const std::string& part) {
    v1::MergeResponse response;
    const grpc::Status status = Merge(request, &response);
    EXPECT_EQ(status.error_code(), code) << status.error_message();
    EXPECT_EQ(ReasonOf(status), reason);
    EXPECT_NE(status.error_message().find(part), std::string::npos) << status.error_message();
  };
  expect(Of({"a"}), StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "inputs");
  expect(Of(std::vector<std::string>(65, "a")), StatusCode::INVALID_ARGUMENT, "INVALID_FIELD",
         "64");
  expect(Of({"a", "absent"}), StatusCode::NOT_FOUND, "REF_NOT_FOUND", "absent");
  expect(Of({a, foreign}), StatusCode::FAILED_PRECONDITION, "MODEL_MISMATCH", foreign);
  expect(Of({"a", "b"}, static_cast<v1::MergeMethod>(77)), StatusCode::INVALID_ARGUMENT,
         "INVALID_FIELD", "method");
  v1::MergeRequest weights = Of({"a", "b"});
  weights.mutable_inputs(1)->set_weight(-1);
  expect(weights, StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "weight");
  v1::MergeRequest ancestor = Of({"a", "b"});
  ancestor.set_ancestor_id(a);
  expect(ancestor, StatusCode::FAILED_PRECONDITION, "NO_COMMON_ANCESTOR", "share no ancestor");
  v1::MergeRequest ref = Of({"a", "b"});
  ref.set_ref("a");
  ref.set_expected_ref_state_id(b);
  expect(ref, StatusCode::ABORTED, "REF_MISMATCH", "");
  ref.set_ref("Not A Name");
  expect(ref, StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "ref");
  v1::ListStatesRequest all;
  v1::ListStatesResponse states;
  ASSERT_TRUE(client_->states().ListStates(TestClient::Context().get(), all, &states).ok());
  EXPECT_EQ(states.states_size(), 3);
}

}  // namespace
}  // namespace anabranch
