// Sessions that left their slot go on from host memory, with the same bits and without the library,
// unless the library has another form of their state by then.
#include <gtest/gtest.h>

#include "tests/e2e/test_client.h"
#include "tests/e2e/test_server.h"

namespace anabranch {
namespace {

class HostMemoryTest : public testing::TestWithParam<std::string> {
 protected:
  // Two slots, and an engine's read may copy one.
  void Start(uint64_t host_state_bytes, const std::string& data) {
    client_.reset();
    server_.reset();
    ServerConfig config = TestConfig(GoldenModel(GetParam()), data);
    config.slots = 2;
    config.host_state_bytes = host_state_bytes;
    auto server = Server::Start(config);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    client_ = std::make_unique<TestClient>(server_->address());
  }
  // Each read in its turn, so that the first has left its slot at the end.
  void ReadThree(bool no_checkpoint = false) {
    for (int i = 0; i < 3; ++i) {
      client_->MustCreate(Id(i));
      ASSERT_TRUE(client_->AppendTokens(Id(i), SomeTokens(300, i), no_checkpoint).has_done);
    }
    v1::Session session;
    ASSERT_TRUE(client_->GetSession(Id(0), &session).ok());
    ASSERT_FALSE(session.loaded());
  }
  static std::string Id(int i) { return "s" + std::to_string(i); }

  TempDir data_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<TestClient> client_;
};

TEST_P(HostMemoryTest, ASessionThatLeftItsSlotGoesOnWithTheSameBitsAndWithoutTheLibrary) {
  for (const bool no_checkpoint : {false, true}) {
    SCOPED_TRACE(no_checkpoint);
    TempDir with, without;
    Start(0, without.path());
    ReadThree(no_checkpoint);
    v1::Usage usage;
    const std::vector<float> expected = client_->Fingerprint(Id(0), &usage);
    EXPECT_GT(usage.state_bytes_loaded(), 0);

    Start(64u << 20, with.path());
    ReadThree(no_checkpoint);
    EXPECT_EQ(client_->Fingerprint(Id(0), &usage), expected);
    EXPECT_EQ(usage.state_bytes_loaded(), 0);
    EXPECT_EQ(usage.tokens_reused(), 300);
    EXPECT_EQ(usage.tokens_replayed(), 0);
    // And on: what is read next is stored as ever.
    ASSERT_TRUE(client_->AppendTokens(Id(0), {1, 2, 3}).has_done);
    EXPECT_EQ(client_->SessionTokens(Id(0)).size(), 303u);
  }
}

TEST_P(HostMemoryTest, AStateThatWasRecodedMeanwhileIsReadFromTheLibrary) {
  Start(64u << 20, data_.path());
  ReadThree();
  v1::Session session;
  ASSERT_TRUE(client_->GetSession(Id(0), &session).ok());
  v1::RecodeStateRequest request;
  request.set_id(session.head_state_id());
  request.set_codec(v1::STATE_CODEC_NEAR);
  v1::RecodeStateResponse recoded;
  ASSERT_TRUE(client_->states().RecodeState(TestClient::Context().get(), request, &recoded).ok());
  const AppendResult appended = client_->AppendTokens(Id(0), {1});
  ASSERT_TRUE(appended.has_done) << appended.status.error_message();
  EXPECT_GT(appended.done.usage().state_bytes_loaded(), 0);
  EXPECT_EQ(appended.done.usage().lossy_restores(), 1);
}

TEST_P(HostMemoryTest, TooLittleOfItIsNoError) {
  Start(1000, data_.path());
  ReadThree();
  v1::Usage usage;
  client_->Fingerprint(Id(0), &usage);
  EXPECT_GT(usage.state_bytes_loaded(), 0);
}

INSTANTIATE_TEST_SUITE_P(Models, HostMemoryTest,
                         testing::Values("mamba2", "granitemoehybrid_dense"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace anabranch
