// A server on several devices: sessions live on either, and answer as if there were one.
#include <gtest/gtest.h>

#include "tests/e2e/test_client.h"
#include "tests/e2e/test_server.h"

namespace anabranch {
namespace {

class DevicesTest : public testing::TestWithParam<const char*> {
 protected:
  void Start(const std::string& device, int32_t slots) {
    client_.reset();
    server_.reset();
    ServerConfig config = TestConfig(GoldenModel(GetParam()), dir_.path());
    config.device = device;
    config.slots = slots;
    auto server = Server::Start(config);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    client_ = std::make_unique<TestClient>(server_->address());
  }
  void Read(const std::string& id, int seed) {
    client_->MustCreate(id);
    ASSERT_TRUE(client_->AppendTokens(id, SomeTokens(40 + seed, seed)).has_done);
  }

  TempDir dir_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<TestClient> client_;
};

TEST_P(DevicesTest, SessionsOnTwoEnginesAnswerAsOnOne) {
  Start("cpu", 8);
  std::vector<std::vector<float>> alone;
  for (int i = 0; i < 4; ++i) {
    Read("one/" + std::to_string(i), i);
    alone.push_back(client_->Fingerprint("one/" + std::to_string(i)));
  }
  EXPECT_EQ(client_->Status().devices_size(), 0);

  Start("cpu,cpu", 8);
  for (int i = 0; i < 4; ++i) Read("two/" + std::to_string(i), i);
  const v1::ServerStatus status = client_->Status();
  ASSERT_EQ(status.devices_size(), 2);
  EXPECT_EQ(status.engine().slots_total(), 16);
  for (const v1::DeviceStatus& device : status.devices()) {
    EXPECT_EQ(device.name(), "cpu");
    EXPECT_EQ(device.engine().slots_used(), 2);
    EXPECT_GT(device.engine().tokens_read(), 0);
  }
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(client_->Fingerprint("two/" + std::to_string(i)), alone[i]) << i;
    // What one engine stored, any of two goes on from.
    EXPECT_EQ(client_->Fingerprint("one/" + std::to_string(i)), alone[i]) << i;
  }
}

TEST_P(DevicesTest, MoreSessionsThanSlotsTakeTurns) {
  Start("cpu,cpu", 1);
  for (int i = 0; i < 5; ++i) Read("s/" + std::to_string(i), i);
  for (int i = 0; i < 5; ++i) {
    const auto read = client_->AppendTokens("s/" + std::to_string(i), SomeTokens(9, 50 + i));
    EXPECT_TRUE(read.has_done) << read.status.error_message();
  }
  EXPECT_EQ(client_->Status().engine().slots_total(), 2);
}

TEST_P(DevicesTest, ForksOfASessionOnAFullEngineGoOn) {
  Start("cpu,cpu", 1);
  Read("main", 1);
  v1::ForkRequest request;
  request.set_session_id("main");
  request.set_count(3);
  v1::ForkResponse response;
  ASSERT_TRUE(client_->sessions().Fork(TestClient::Context().get(), request, &response).ok());
  std::vector<std::vector<float>> prints;
  for (const v1::Session& fork : response.sessions()) {
    const auto read = client_->AppendTokens(fork.id(), SomeTokens(7, 3));
    ASSERT_TRUE(read.has_done) << read.status.error_message();
    prints.push_back(client_->Fingerprint(fork.id()));
  }
  EXPECT_EQ(prints[0], prints[1]);
  EXPECT_EQ(prints[0], prints[2]);
}

INSTANTIATE_TEST_SUITE_P(Models, DevicesTest, testing::Values("mamba2", "bamba"));

TEST(DeviceFlagTest, SaysWhatIsWrongWithTheList) {
  TempDir dir;
  const auto refusal = [&dir](const std::string& device) {
    ServerConfig config = TestConfig(GoldenModel("mamba2"), dir.path());
    config.device = device;
    return std::string(Server::Start(config).status().message());
  };
  EXPECT_EQ(refusal("cuda:0,cuda:0"), "--device has cuda:0 twice");
  EXPECT_EQ(refusal("cpu,"), "--device must be one device, or several with a comma between them");
  EXPECT_EQ(refusal("cpu,tpu"), "device 'tpu' is not one of cpu, cuda and cuda:N");
}

}  // namespace
}  // namespace anabranch
