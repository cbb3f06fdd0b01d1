// States in fewer bytes over a real socket: what comes back, what says that it went through a lossy
// codec, and states that are nothing but their tokens.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "absl/time/clock.h"
#include "tests/e2e/library_fixture.h"

namespace anabranch {
namespace {

using grpc::StatusCode;
using testing::HasSubstr;

class CodecTest : public LibraryTest {
 protected:
  void StartWith(const std::string& model, const std::string& codec,
                 const ReencodingOptions& reencoding = {}) {
    client_.reset();
    server_.reset();
    ServerConfig config = TestConfig(model, dir_.path());
    config.state_codec = codec;
    config.reencoding = reencoding;
    auto server = Server::Start(config);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    client_ = std::make_unique<TestClient>(server_->address());
  }
  v1::State State(const std::string& id) {
    v1::GetStateRequest request;
    request.set_id(id);
    v1::State state;
    EXPECT_TRUE(client_->states().GetState(TestClient::Context().get(), request, &state).ok());
    return state;
  }
  grpc::Status Recode(const std::string& id, v1::StateCodec codec,
                      v1::RecodeStateResponse* response) {
    v1::RecodeStateRequest request;
    request.set_id(id);
    request.set_codec(codec);
    return client_->states().RecodeState(TestClient::Context().get(), request, response);
  }
  v1::RecodeStateResponse MustRecode(const std::string& id, v1::StateCodec codec) {
    v1::RecodeStateResponse response;
    const grpc::Status status = Recode(id, codec, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(response.state().codec(), codec);
    return response;
  }
  // The checksums of all its tensors: equal only for equal bits.
  std::vector<uint64_t> Bits(const std::string& id) {
    v1::GetStateStatsRequest request;
    request.set_id(id);
    v1::StateStats stats;
    const grpc::Status status =
        client_->states().GetStateStats(TestClient::Context().get(), request, &stats);
    EXPECT_TRUE(status.ok()) << status.error_message();
    std::vector<uint64_t> bits;
    for (const v1::TensorStats& tensor : stats.tensors()) bits.push_back(tensor.checksum());
    return bits;
  }
  void Close(const std::string& id) {
    v1::CloseSessionRequest request;
    request.set_session_id(id);
    v1::CloseSessionResponse response;
    EXPECT_TRUE(
        client_->sessions().CloseSession(TestClient::Context().get(), request, &response).ok());
  }
  // Waits until the library is as it is to be; the re-encoder works on its own time.
  void AwaitCodec(const std::string& id, v1::StateCodec codec) {
    for (int i = 0; i < 600 && State(id).codec() != codec; ++i) {
      absl::SleepFor(absl::Milliseconds(100));
    }
    EXPECT_EQ(State(id).codec(), codec);
  }
};

struct CodecCase {
  const char* model;
  const char* codec;
  double tolerance;  // of a log-probability
};

class CodecOfModelTest : public CodecTest, public testing::WithParamInterface<CodecCase> {};

TEST_P(CodecOfModelTest, ASessionGoesOnAfterARestartAsFarOffAsItsCodecAllows) {
  const CodecCase& test = GetParam();
  StartWith(GoldenModel(test.model), test.codec);
  const std::string id = Read("main", SomeTokens(300, 1));
  const std::vector<float> before = Fingerprint("main");
  const v1::State state = State(id);
  const bool exact = state.codec() == v1::STATE_CODEC_EXACT;
  EXPECT_EQ(state.codec_error() == 0, exact);
  EXPECT_EQ(state.size_bytes() == state.exact_size_bytes(), exact);
  EXPECT_LE(state.size_bytes(), state.exact_size_bytes());
  EXPECT_EQ(client_->Status().state_codec(), state.codec());

  StartWith(GoldenModel(test.model), test.codec);
  v1::Usage usage;
  const std::vector<float> after = client_->Fingerprint("main", &usage);
  EXPECT_EQ(usage.tokens_replayed(), 0);
  EXPECT_EQ(usage.lossy_restores(), exact ? 0 : 1);
  ASSERT_EQ(before.size(), after.size());
  for (size_t i = 0; i < before.size(); ++i) EXPECT_NEAR(before[i], after[i], test.tolerance);
  if (exact) EXPECT_EQ(before, after);
}

INSTANTIATE_TEST_SUITE_P(
    Models, CodecOfModelTest,
    testing::Values(CodecCase{"mamba2", "exact", 0}, CodecCase{"mamba2", "near", 1e-3},
                    CodecCase{"mamba2", "compact", 0.1}, CodecCase{"mamba", "near", 1e-3},
                    CodecCase{"mamba", "compact", 0.1}, CodecCase{"bamba", "near", 1e-3},
                    CodecCase{"bamba", "compact", 0.1}),
    [](const auto& info) { return std::string(info.param.model) + "_" + info.param.codec; });

TEST_F(CodecTest, WhatGoesOnFromALossyStateSaysSoAndIsNotTheExactState) {
  StartWith(GoldenModel("mamba2"), "near");
  Read("main", SomeTokens(100, 1));
  // While the session lives, nothing was lost: the next state is the exact one, kept as near.
  ASSERT_TRUE(client_->AppendTokens("main", SomeTokens(50, 2)).has_done);
  const v1::State live = State(Commit("main"));
  EXPECT_EQ(live.operation_params(), "");
  EXPECT_EQ(live.lossy_restores(), 0);
  StartWith(GoldenModel("mamba2"), "near");
  ASSERT_TRUE(client_->AppendTokens("main", SomeTokens(50, 3)).has_done);
  const v1::State restored = State(Commit("main"));
  EXPECT_EQ(restored.operation_params(), "base=near");
  EXPECT_EQ(restored.lossy_restores(), 1);
  ASSERT_TRUE(client_->AppendTokens("main", SomeTokens(50, 4)).has_done);
  const v1::State child = State(Commit("main"));
  EXPECT_EQ(child.operation_params(), "");
  EXPECT_EQ(child.lossy_restores(), 1);
  // What is computed from it, too.
  v1::DecayRequest decay;
  decay.set_id("main");
  decay.set_tokens(10);
  v1::ComputedState computed;
  ASSERT_TRUE(client_->states().Decay(TestClient::Context().get(), decay, &computed).ok());
  EXPECT_EQ(computed.state().lossy_restores(), 2);
  EXPECT_THAT(computed.state().operation_params(), HasSubstr("base=near"));
}

TEST_F(CodecTest, ASessionChoosesACodecOfItsOwn) {
  StartWith(GoldenModel("mamba2"), "exact");
  v1::CreateSessionRequest create;
  create.set_session_id("small");
  create.mutable_checkpoints()->set_codec(v1::STATE_CODEC_COMPACT);
  v1::CreateSessionResponse created;
  ASSERT_TRUE(client_->Create(create, &created).ok());
  EXPECT_EQ(created.session().checkpoints().codec(), v1::STATE_CODEC_COMPACT);
  ASSERT_TRUE(client_->AppendTokens("small", SomeTokens(100, 1)).has_done);
  EXPECT_EQ(State(Commit("small")).codec(), v1::STATE_CODEC_COMPACT);
  create.set_session_id("none");
  create.mutable_checkpoints()->set_codec(v1::STATE_CODEC_ARCHIVE);
  const grpc::Status refused = client_->Create(create, &created);
  EXPECT_EQ(refused.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(refused.error_message(), HasSubstr("checkpoints.codec"));
}

TEST_F(CodecTest, AHistoryIsResumedFromALossyStateOnlyByWhoeverAcceptsOne) {
  StartWith(GoldenModel("mamba2"), "exact");
  const std::vector<int32_t> history = SomeTokens(200, 1);
  const std::string first =
      Read("main", std::vector<int32_t>(history.begin(), history.begin() + 80));
  ASSERT_TRUE(client_->AppendTokens("main", {history.begin() + 80, history.end()}).has_done);
  MustRecode(Commit("main"), v1::STATE_CODEC_NEAR);
  v1::CreateSessionRequest create;
  *create.mutable_history() = TokenContent(history);
  create.set_session_id("lenient");
  create.mutable_checkpoints()->set_codec(v1::STATE_CODEC_NEAR);
  v1::CreateSessionResponse created;
  ASSERT_TRUE(client_->Create(create, &created).ok());
  EXPECT_EQ(created.usage().tokens_reused(), 200);
  EXPECT_EQ(created.usage().lossy_restores(), 1);
  create.clear_checkpoints();
  create.set_session_id("strict");
  ASSERT_TRUE(client_->Create(create, &created).ok());
  EXPECT_EQ(created.usage().tokens_reused(), 80);
  EXPECT_EQ(created.usage().lossy_restores(), 0);
  // Which has read what the lossy state stands for: it is exact again.
  EXPECT_EQ(State("main").codec(), v1::STATE_CODEC_EXACT);
}

class ArchiveTest : public CodecTest, public testing::WithParamInterface<const char*> {};

TEST_P(ArchiveTest, WhatNeedsAnArchivedStateHasItReadAgainBitForBit) {
  StartWith(GoldenModel(GetParam()), "exact");
  const std::string first = Read("main", SomeTokens(100, 1));
  ASSERT_TRUE(client_->AppendTokens("main", SomeTokens(200, 2)).has_done);
  const std::string id = Commit("main");
  const std::vector<uint64_t> bits = Bits(id);
  const std::vector<float> expected = Fingerprint("main");
  const v1::State before = State(id);

  const v1::State archived = MustRecode(id, v1::STATE_CODEC_ARCHIVE).state();
  EXPECT_TRUE(archived.archived());
  EXPECT_EQ(archived.size_bytes(), 0);
  EXPECT_EQ(archived.exact_size_bytes(), before.size_bytes());
  EXPECT_EQ(State("main").id(), id);  // the ref still names it

  StartWith(GoldenModel(GetParam()), "exact");
  CreateFrom("twin", id);
  v1::Usage usage;
  EXPECT_EQ(client_->Fingerprint("twin", &usage), expected);
  EXPECT_EQ(Bits(id), bits);
  EXPECT_EQ(client_->Fingerprint("main", &usage), expected);
  EXPECT_EQ(usage.tokens_reused(), 100);
  EXPECT_EQ(usage.tokens_replayed(), 200);

  const v1::RecodeStateResponse back = MustRecode(id, v1::STATE_CODEC_EXACT);
  EXPECT_EQ(back.usage().tokens_replayed(), 200);
  EXPECT_EQ(back.state().size_bytes(), before.size_bytes());
  EXPECT_EQ(back.state().codec_error(), 0);
  EXPECT_EQ(Bits(id), bits);
}

TEST_P(ArchiveTest, ALossyStateBecomesExactAgainByReadingItsTokens) {
  StartWith(GoldenModel(GetParam()), "exact");
  const std::string id = Read("main", SomeTokens(300, 1));
  const std::vector<uint64_t> bits = Bits(id);
  EXPECT_EQ(MustRecode(id, v1::STATE_CODEC_NEAR).usage().tokens_replayed(), 0);
  EXPECT_NE(Bits(id), bits);
  const double near_error = State(id).codec_error();
  EXPECT_GT(MustRecode(id, v1::STATE_CODEC_COMPACT).state().codec_error(), near_error);
  EXPECT_EQ(MustRecode(id, v1::STATE_CODEC_EXACT).usage().tokens_replayed(), 300);
  EXPECT_EQ(Bits(id), bits);
}

TEST_P(ArchiveTest, ASessionGoesOnWhileItsHeadIsRecodedUnderIt) {
  StartWith(GoldenModel(GetParam()), "exact");
  Read("main", SomeTokens(300, 1));
  for (const v1::StateCodec codec :
       {v1::STATE_CODEC_NEAR, v1::STATE_CODEC_COMPACT, v1::STATE_CODEC_ARCHIVE}) {
    MustRecode("main", codec);
    ASSERT_TRUE(client_->AppendTokens("main", SomeTokens(20, codec)).has_done);
    const v1::State state = State(Commit("main"));
    EXPECT_EQ(state.codec(), v1::STATE_CODEC_EXACT);
    EXPECT_EQ(state.lossy_restores(), 0);  // it lived on in its slot
  }
  const std::vector<float> expected = Fingerprint("main");
  StartWith(GoldenModel(GetParam()), "exact");
  EXPECT_EQ(Fingerprint("main"), expected);
}

INSTANTIATE_TEST_SUITE_P(Models, ArchiveTest, testing::Values("mamba2", "bamba"));

TEST_F(CodecTest, WhatIsNoFunctionOfTokensIsNeitherArchivedNorMadeMoreExact) {
  StartWith(GoldenModel("mamba2"), "exact");
  Read("a", SomeTokens(50, 1));
  Read("b", SomeTokens(50, 2));
  v1::MergeRequest request;
  request.add_inputs()->set_id("a");
  request.add_inputs()->set_id("b");
  v1::MergeResponse merged;
  ASSERT_TRUE(client_->states().Merge(TestClient::Context().get(), request, &merged).ok());
  const std::string id = merged.state().id();
  v1::RecodeStateResponse response;
  grpc::Status refused = Recode(id, v1::STATE_CODEC_ARCHIVE, &response);
  EXPECT_EQ(refused.error_code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(ReasonOf(refused), "STATE_NOT_REBUILDABLE");
  MustRecode(id, v1::STATE_CODEC_COMPACT);
  refused = Recode(id, v1::STATE_CODEC_NEAR, &response);
  EXPECT_EQ(ReasonOf(refused), "STATE_NOT_REBUILDABLE");
  EXPECT_EQ(Recode(id, v1::STATE_CODEC_UNSPECIFIED, &response).error_code(),
            StatusCode::INVALID_ARGUMENT);
}

TEST_F(CodecTest, MergesAndSearchesTakeArchivedStatesToo) {
  StartWith(GoldenModel("mamba2"), "exact");
  const std::string a = Read("a", SomeTokens(50, 1)), b = Read("b", SomeTokens(50, 2));
  v1::MergeRequest request;
  request.add_inputs()->set_id(a);
  request.add_inputs()->set_id(b);
  v1::MergeResponse whole, rebuilt;
  ASSERT_TRUE(client_->states().Merge(TestClient::Context().get(), request, &whole).ok());
  const std::vector<uint64_t> bits = Bits(whole.state().id());
  v1::DeleteStateRequest remove;
  remove.set_id(whole.state().id());
  v1::DeleteStateResponse removed;
  ASSERT_TRUE(client_->states().DeleteState(TestClient::Context().get(), remove, &removed).ok());
  MustRecode(a, v1::STATE_CODEC_ARCHIVE);
  request.set_request_id("");
  ASSERT_TRUE(client_->states().Merge(TestClient::Context().get(), request, &rebuilt).ok());
  EXPECT_EQ(rebuilt.usage().tokens_replayed(), 50);
  EXPECT_EQ(rebuilt.state().id(), whole.state().id());
  EXPECT_EQ(Bits(rebuilt.state().id()), bits);
}

TEST_F(CodecTest, StatesThatGetOldMoveToSmallerCodecsByThemselves) {
  StartWith(GoldenModel("mamba2"), "exact");
  const std::string old = Read("old", SomeTokens(100, 1)), kept = Read("kept", SomeTokens(100, 2));
  Close("old");
  Close("kept");
  v1::UpdateStateRequest pin;
  pin.set_id(kept);
  pin.mutable_update_mask()->add_paths("pinned");
  pin.set_pinned(true);
  v1::State pinned;
  ASSERT_TRUE(client_->states().UpdateState(TestClient::Context().get(), pin, &pinned).ok());
  const std::vector<uint64_t> bits = Bits(old);

  ReencodingOptions soon;
  soon.interval = absl::Milliseconds(20);
  soon.near_after = absl::Milliseconds(1);
  StartWith(GoldenModel("mamba2"), "exact", soon);
  AwaitCodec(old, v1::STATE_CODEC_NEAR);
  EXPECT_GT(State(old).codec_error(), 0);
  soon.compact_after = absl::Milliseconds(1);
  StartWith(GoldenModel("mamba2"), "exact", soon);
  AwaitCodec(old, v1::STATE_CODEC_COMPACT);
  soon.archive_after = absl::Milliseconds(1);
  StartWith(GoldenModel("mamba2"), "exact", soon);
  AwaitCodec(old, v1::STATE_CODEC_ARCHIVE);
  EXPECT_EQ(State(kept).codec(), v1::STATE_CODEC_EXACT);
  EXPECT_EQ(Bits(old), bits);  // read again from its tokens alone
}

}  // namespace
}  // namespace anabranch
