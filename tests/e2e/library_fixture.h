// A server on a library that outlives it, and what tests of states do with both.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/e2e/test_client.h"
#include "tests/e2e/test_server.h"

namespace anabranch {

class LibraryTest : public testing::Test {
 protected:
  void Start(const std::string& model) {
    client_.reset();
    server_.reset();
    auto server = Server::Start(TestConfig(model, dir_.path()));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    client_ = std::make_unique<TestClient>(server_->address());
  }
  // A session that reads the tokens and commits them to a ref of its own name; the state's id.
  std::string Read(const std::string& id, const std::vector<int32_t>& tokens) {
    client_->MustCreate(id);
    EXPECT_TRUE(client_->AppendTokens(id, tokens).has_done);
    return Commit(id);
  }
  std::string Commit(const std::string& id) {
    v1::CommitRequest commit;
    commit.set_session_id(id);
    v1::CommitResponse committed;
    EXPECT_TRUE(client_->Commit(commit, &committed).ok());
    return committed.state().id();
  }
  void Fork(const std::string& id, int count) {
    v1::ForkRequest request;
    request.set_session_id(id);
    request.set_count(count);
    v1::ForkResponse response;
    EXPECT_TRUE(client_->sessions().Fork(TestClient::Context().get(), request, &response).ok());
  }
  void CreateFrom(const std::string& id, const std::string& state) {
    v1::CreateSessionRequest request;
    request.set_session_id(id);
    request.set_state_id(state);
    v1::CreateSessionResponse response;
    const grpc::Status status = client_->Create(request, &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
  }
  std::vector<float> Fingerprint(const std::string& id) { return client_->Fingerprint(id); }
  void ExpectClose(const std::vector<float>& a, const std::vector<float>& b) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-4);
  }

  TempDir dir_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<TestClient> client_;
};

}  // namespace anabranch
