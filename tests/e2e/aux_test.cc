// Sessions on a core state with auxiliary states merged in, over a real socket: what they know,
// what a change of the set keeps, and what is refused.
#include <gtest/gtest.h>

#include <utility>

#include "tests/e2e/library_fixture.h"

namespace anabranch {
namespace {

using grpc::StatusCode;

class AuxTest : public LibraryTest {
 protected:
  using Set = std::vector<std::pair<std::string, double>>;

  static void Add(const Set& aux, google::protobuf::RepeatedPtrField<v1::Auxiliary>* to) {
    for (const auto& [id, weight] : aux) {
      v1::Auxiliary& added = *to->Add();
      added.set_id(id);
      added.set_weight(weight);
    }
  }
  static v1::CreateSessionRequest CreateRequest(const std::string& id, const std::string& core,
                                                const Set& aux) {
    v1::CreateSessionRequest request;
    request.set_session_id(id);
    if (!core.empty()) request.set_ref_name(core);
    Add(aux, request.mutable_aux());
    return request;
  }
  v1::CreateSessionResponse MustCreate(const std::string& id, const std::string& core,
                                       const Set& aux) {
    v1::CreateSessionResponse response;
    const grpc::Status status = client_->Create(CreateRequest(id, core, aux), &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
  static v1::SetAuxRequest Replace(const std::string& id, const Set& aux) {
    v1::SetAuxRequest request;
    request.set_session_id(id);
    request.set_replace(true);
    Add(aux, request.mutable_add());
    return request;
  }
  grpc::Status SetAux(const v1::SetAuxRequest& request, v1::SetAuxResponse* response) {
    return client_->sessions().SetAux(TestClient::Context().get(), request, response);
  }
  v1::SetAuxResponse MustSet(const v1::SetAuxRequest& request) {
    v1::SetAuxResponse response;
    const grpc::Status status = SetAux(request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
  void Append(const std::string& id, const std::vector<int32_t>& tokens, bool no_checkpoint) {
    EXPECT_TRUE(client_->AppendTokens(id, tokens, no_checkpoint).has_done);
  }
  v1::Session Get(const std::string& id) {
    v1::Session session;
    EXPECT_TRUE(client_->GetSession(id, &session).ok());
    return session;
  }
  std::string Merge(const Set& inputs, v1::MergeMethod method, const std::string& ancestor) {
    v1::MergeRequest request;
    for (const auto& [id, weight] : inputs) {
      v1::MergeInput& input = *request.add_inputs();
      input.set_id(id);
      input.set_weight(weight);
    }
    request.set_method(method);
    request.set_ancestor_id(ancestor);
    v1::MergeResponse merged;
    const grpc::Status status =
        client_->states().Merge(TestClient::Context().get(), request, &merged);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return merged.state().id();
  }
  std::string Span(const std::string& id, int64_t begin) {
    v1::SpanRequest request;
    request.set_id(id);
    request.mutable_span()->set_begin(begin);
    v1::ComputedState span;
    const grpc::Status status =
        client_->states().ExtractSpan(TestClient::Context().get(), request, &span);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return span.state().id();
  }
  static std::vector<int32_t> Joined(const std::vector<std::vector<int32_t>>& parts) {
    std::vector<int32_t> all;
    for (const auto& part : parts) all.insert(all.end(), part.begin(), part.end());
    return all;
  }
};

// A core of 60 tokens; a skill that was read alone, and a persona read on top of the core.
class AuxOfModelTest : public AuxTest, public testing::WithParamInterface<std::string> {
 protected:
  void SetUp() override {
    Start(GoldenModel(GetParam()));
    core_ = Read("core", core_tokens_);
    skill_ = Read("skill", skill_tokens_);
    Fork("core", 1);
    Append("core/1", persona_tokens_, false);
    persona_ = Commit("core/1");
  }

  const std::vector<int32_t> core_tokens_ = SomeTokens(60, 1), skill_tokens_ = SomeTokens(290, 2),
                             persona_tokens_ = SomeTokens(30, 3), own_tokens_ = SomeTokens(270, 4);
  std::string core_, skill_, persona_;
};

TEST_P(AuxOfModelTest, WithoutAuxiliaryStatesTheBaseIsTheCore) {
  MustCreate("plain", "core", {});
  const v1::Session plain = Get("plain");
  EXPECT_EQ(plain.core_state_id(), core_);
  EXPECT_EQ(plain.base_state_id(), core_);
  EXPECT_EQ(plain.base_token_count(), 60);
  EXPECT_EQ(Fingerprint("plain"), Fingerprint("core"));
  // One in and out again before anything was read: the same state, bit for bit.
  MustSet(Replace("plain", {{"skill", 1}}));
  EXPECT_EQ(MustSet(Replace("plain", {})).state().id(), core_);
  EXPECT_EQ(Fingerprint("plain"), Fingerprint("core"));
}

TEST_P(AuxOfModelTest, TheBaseIsTheMergeOfCoreAndAuxiliaryStates) {
  const v1::CreateSessionResponse created =
      MustCreate("x", "core", {{"skill", 0.5}, {"core/1", 2}});
  EXPECT_EQ(created.usage().tokens_read(), 0);
  EXPECT_EQ(created.usage().tokens_reused(), 380);
  EXPECT_EQ(client_->SessionTokens("x"), Joined({core_tokens_, skill_tokens_, persona_tokens_}));
  const v1::Session x = Get("x");
  EXPECT_EQ(x.core_state_id(), core_);
  ASSERT_EQ(x.aux_size(), 2);
  EXPECT_EQ(x.aux(0).id(), "skill");
  EXPECT_EQ(x.aux(0).state_id(), skill_);
  EXPECT_EQ(x.aux(0).weight(), 0.5);
  EXPECT_EQ(x.base_token_count(), 380);
  // What the persona shares with the core counts once: only its own part is merged.
  const Set parts = {{core_, 1}, {skill_, 0.5}, {Span(persona_, 60), 2}};
  CreateFrom("y", Merge(parts, v1::MERGE_METHOD_COMPOSE, "-"));
  ExpectClose(Fingerprint("x"), Fingerprint("y"));
  // Where nothing is shared unevenly it is the state that Merge makes, by the same id.
  MustCreate("z", "core", {{"skill", 0.5}});
  EXPECT_EQ(Get("z").base_state_id(),
            Merge({{core_, 1}, {skill_, 0.5}}, v1::MERGE_METHOD_COMPOSE, ""));
  MustCreate("w", "core", {{"core/1", 1}});
  ExpectClose(Fingerprint("w"), Fingerprint("core/1"));
}

TEST_P(AuxOfModelTest, ASwapPutsWhatTheSessionHasReadOnTheNewBase) {
  MustCreate("x", "core", {{"skill", 1}});
  Append("x", own_tokens_, /*no_checkpoint=*/true);
  const std::vector<float> before = Fingerprint("x");
  v1::SetAuxResponse swapped = MustSet(Replace("x", {{"core/1", 0.5}}));
  const std::string old_end = swapped.state().parent_ids(1), new_base = Get("x").base_state_id();
  EXPECT_EQ(swapped.state().operation(), "swap");
  EXPECT_EQ(swapped.state().parent_ids(0), new_base);
  EXPECT_EQ(swapped.usage().tokens_read(), 0);
  EXPECT_EQ(swapped.session().token_count(), 360);
  EXPECT_EQ(client_->SessionTokens("x"), Joined({core_tokens_, persona_tokens_, own_tokens_}));
  CreateFrom("y", Merge({{new_base, 1}, {Span(old_end, 350), 1}}, v1::MERGE_METHOD_ORDERED, "-"));
  EXPECT_EQ(Fingerprint("x"), Fingerprint("y"));
  EXPECT_NE(Fingerprint("x"), before);
  // A restart between, and back: the state from before, but for rounding.
  Start(GoldenModel(GetParam()));
  EXPECT_EQ(Fingerprint("x"), Fingerprint("y"));
  MustSet(Replace("x", {{"skill", 1}}));
  EXPECT_EQ(client_->SessionTokens("x"), Joined({core_tokens_, skill_tokens_, own_tokens_}));
  ExpectClose(Fingerprint("x"), before);
  // The old line is still there, and the new one can go on.
  CreateFrom("old", old_end);
  EXPECT_EQ(Fingerprint("old"), before);
  Append("x", SomeTokens(5, 9), false);
  EXPECT_EQ(Get("x").token_count(), 625);
}

TEST_P(AuxOfModelTest, RewindsAndForksKnowTheBase) {
  MustCreate("x", "core", {{"skill", 1}});
  const std::vector<float> fresh = Fingerprint("x");
  Append("x", own_tokens_, false);
  MustSet(Replace("x", {}));  // the core alone: all of its points are the session's again
  Append("x", SomeTokens(20, 5), false);
  v1::GetLogRequest request;
  request.set_session_id("x");
  v1::GetLogResponse log;
  ASSERT_TRUE(client_->states().GetLog(TestClient::Context().get(), request, &log).ok());
  ASSERT_EQ(log.entries_size(), 3);
  EXPECT_EQ(log.entries(1).state().operation(), "swap");
  EXPECT_EQ(log.entries(2).state().id(), core_);
  EXPECT_EQ(log.entries(2).next_token_count(), 61);  // none between the base and the swap
  EXPECT_EQ(log.first_token_count(), 0);
  Fork("x", 2);
  EXPECT_EQ(Get("x/1").core_state_id(), core_);
  v1::RewindResponse rewound;
  const grpc::Status inside = client_->Rewind("x", 100, false, &rewound);
  EXPECT_EQ(ReasonOf(inside), "NO_SUCH_POINT");
  EXPECT_NE(inside.error_message().find("no points between 60 and 330 tokens"), std::string::npos)
      << inside.error_message();
  ASSERT_TRUE(client_->Rewind("x", 335, false, &rewound).ok());
  EXPECT_EQ(rewound.tokens_to_replay(), 5);
  MustSet(Replace("x", {{"skill", 1}}));
  EXPECT_EQ(client_->SessionTokens("x").size(), 350 + 270 + 5u);
  // To the base itself; its set can be changed there, too.
  ASSERT_TRUE(client_->Rewind("x", 350, false, &rewound).ok());
  EXPECT_EQ(Fingerprint("x"), fresh);
  EXPECT_EQ(Get("x").aux_size(), 1);
  // Before its core a session has none.
  ASSERT_TRUE(client_->Rewind("x/1", 30, false, &rewound).ok());
  EXPECT_EQ(Get("x/1").core_state_id(), "");
  EXPECT_EQ(MustSet(Replace("x/1", {{"skill", 1}})).session().token_count(), 320);
  EXPECT_EQ(client_->SessionTokens("x/2").size(), 350u);
}

INSTANTIATE_TEST_SUITE_P(Models, AuxOfModelTest, testing::ValuesIn(GoldenModelNames()),
                         [](const auto& info) { return info.param; });

TEST_F(AuxTest, TheSetChangesByNameAndRepeatsChangeNothing) {
  Start(GoldenModel("mamba2"));
  Read("core", SomeTokens(20, 1));
  Read("a", SomeTokens(30, 2));
  const std::string b = Read("b", SomeTokens(40, 3));
  MustCreate("x", "core", {{"a", 1}});
  Append("x", SomeTokens(10, 4), false);
  v1::SetAuxRequest request;
  request.set_session_id("x");
  request.set_request_id("first");
  Add({{"b", 2}}, request.mutable_add());
  const v1::SetAuxResponse added = MustSet(request);
  EXPECT_EQ(added.session().aux_size(), 2);
  EXPECT_EQ(added.session().token_count(), 100);
  EXPECT_EQ(MustSet(request).state().id(), added.state().id()) << "a repeated request";
  request.clear_request_id();
  EXPECT_EQ(MustSet(request).state().id(), added.state().id()) << "the same set";
  // A ref that moves changes nothing before it is given again.
  Append("a", SomeTokens(5, 5), false);
  const std::string newer = Commit("a");
  EXPECT_EQ(Get("x").token_count(), 100);
  request.clear_add();
  Add({{"a", 1}}, request.mutable_add());
  EXPECT_EQ(MustSet(request).session().token_count(), 105);
  EXPECT_EQ(Get("x").aux(0).state_id(), newer);
  request.clear_add();
  request.add_drop("a");
  request.add_drop(b);
  EXPECT_EQ(MustSet(request).session().token_count(), 30);
  EXPECT_EQ(Get("x").aux_size(), 0);
}

TEST_F(AuxTest, ASessionWithoutACoreHoldsAuxiliaryStatesAlone) {
  Start(GoldenModel("granitemoehybrid_dense"));
  const std::string a = Read("a", SomeTokens(30, 2));
  EXPECT_EQ(MustCreate("x", "", {{"a", 1}}).session().head_state_id(), a);
  Append("x", SomeTokens(10, 4), false);
  EXPECT_EQ(MustSet(Replace("x", {})).session().token_count(), 10);
  EXPECT_EQ(client_->SessionTokens("x"), SomeTokens(10, 4));
  client_->MustCreate("empty");
  EXPECT_EQ(MustSet(Replace("empty", {{"a", 0.5}})).session().token_count(), 30);
  EXPECT_EQ(MustSet(Replace("empty", {})).session().token_count(), 0);
  Append("empty", SomeTokens(3, 1), false);
  EXPECT_EQ(client_->SessionTokens("empty"), SomeTokens(3, 1));
}

// Of a window's inputs the newest are the session's own, the older ones the base's.
TEST_F(AuxTest, AShortSessionKeepsTheWindowOfItsBase) {
  Start(GoldenModel("mamba2"));
  Read("core", SomeTokens(50, 1));
  Read("a", SomeTokens(30, 2));
  MustCreate("x", "core", {});
  Append("x", SomeTokens(1, 3), false);
  const std::vector<float> before = Fingerprint("x");
  MustSet(Replace("x", {{"a", 1}}));
  MustSet(Replace("x", {}));
  ExpectClose(Fingerprint("x"), before);
}

TEST_F(AuxTest, ASkillIsKnownWhileItIsInAndNotAfterItIsOut) {
  Start(RecallModel());
  const auto tell = [&](const std::string& id, const std::string& text) {
    client_->MustCreate(id);
    client_->Ask(id, text);
    return Commit(id);
  };
  tell("core", "My name is Ada.");
  tell("skill", "My locker code is 4711.");
  tell("persona", "My dog is called Rex.");
  MustCreate("x", "core", {{"skill", 1}});
  EXPECT_NE(client_->Ask("x", "What is my locker code?").find("4711"), std::string::npos);
  v1::RewindResponse rewound;
  ASSERT_TRUE(client_->Rewind("x", Get("x").base_token_count(), false, &rewound).ok());
  client_->Ask("x", "My favourite colour is green.");
  MustSet(Replace("x", {{"persona", 1}}));
  EXPECT_EQ(client_->Ask("x", "What is my locker code?").find("4711"), std::string::npos);
  EXPECT_NE(client_->Ask("x", "What is my name?").find("Ada"), std::string::npos);
  EXPECT_NE(client_->Ask("x", "What is my favourite colour?").find("green"), std::string::npos);
}

TEST_F(AuxTest, WhatCannotBeMergedIsNamedAndChangesNothing) {
  Start(GoldenModel("mamba"));
  const std::string foreign = Read("foreign", SomeTokens(10, 1));
  Start(GoldenModel("mamba2"));
  Read("root", SomeTokens(10, 1));
  Fork("root", 1);
  Append("root/1", SomeTokens(10, 2), false);
  const std::string core = Commit("root/1");
  Read("a", SomeTokens(10, 3));
  CreateFrom("x", core);
  Append("x", SomeTokens(10, 4), false);
  const std::string end = Commit("x");
  const v1::Session before = Get("x");
  const auto expect = [&](const v1::SetAuxRequest& request, StatusCode code,
                          const std::string& reason, const std::string& part) {
    v1::SetAuxResponse response;
    const grpc::Status status = SetAux(request, &response);
    EXPECT_EQ(status.error_code(), code) << status.error_message();
    EXPECT_EQ(ReasonOf(status), reason);
    EXPECT_NE(status.error_message().find(part), std::string::npos) << status.error_message();
  };
  expect(Replace("x", {{foreign, 1}}), StatusCode::FAILED_PRECONDITION, "MODEL_MISMATCH", foreign);
  expect(Replace("x", {{"absent", 1}}), StatusCode::NOT_FOUND, "REF_NOT_FOUND", "absent");
  for (const std::string& known : {std::string("root"), core, end}) {
    expect(Replace("x", {{"a", 1}, {known, 1}}), StatusCode::FAILED_PRECONDITION, "ALREADY_KNOWN",
           known);
  }
  expect(Replace("x", {{"a", -1}}), StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "weight");
  expect(Replace("x", {{"a", 1001}}), StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "1000");
  v1::SetAuxRequest twice = Replace("x", {{"a", 1}});
  Add({{Get("a").head_state_id(), 1}}, twice.mutable_add());
  expect(twice, StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "twice");
  v1::SetAuxRequest many = Replace("x", {});
  for (int i = 0; i < 64; ++i) {
    Add({{Read("s" + std::to_string(i), SomeTokens(2, 100 + i)), 1}}, many.mutable_add());
  }
  expect(many, StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "63");
  v1::SetAuxRequest drop;
  drop.set_session_id("x");
  drop.add_drop("a");
  expect(drop, StatusCode::NOT_FOUND, "AUX_NOT_FOUND", "has none");
  v1::SetAuxRequest stale = Replace("x", {{"a", 1}});
  stale.set_expected_token_count(7);
  expect(stale, StatusCode::ABORTED, "TOKEN_COUNT_MISMATCH", "7");
  expect(Replace("nobody", {}), StatusCode::NOT_FOUND, "SESSION_NOT_FOUND", "nobody");
  v1::CreateSessionRequest history = CreateRequest("y", "", {{"a", 1}});
  *history.mutable_history() = TokenContent(SomeTokens(5, 1));
  v1::CreateSessionResponse created;
  EXPECT_EQ(ReasonOf(client_->Create(history, &created)), "INVALID_FIELD");
  v1::CreateSessionRequest known = CreateRequest("y", "root/1", {{"root", 1}});
  EXPECT_EQ(ReasonOf(client_->Create(known, &created)), "ALREADY_KNOWN");
  v1::Session none;
  EXPECT_FALSE(client_->GetSession("y", &none).ok());
  const v1::Session after = Get("x");
  EXPECT_EQ(after.head_state_id(), before.head_state_id());
  EXPECT_EQ(after.aux_size(), 0);
}

}  // namespace
}  // namespace anabranch
