// The C++ client library against an in-process server.
#include "clients/cpp/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "clients/cpp/request_id.h"
#include "tests/clients/fake_server.h"

namespace anabranch {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;

class ClientTest : public ::testing::Test {
 protected:
  void Open(const std::string& id) {
    v1::CreateSessionRequest request;
    request.set_session_id(id);
    ASSERT_TRUE(client_.CreateSession(request).ok());
  }

  v1::AppendRequest AppendOf(const std::string& text, int64_t expected = 0) {
    v1::AppendRequest request;
    request.set_session_id("s");
    request.set_expected_token_count(expected);
    request.mutable_content()->set_text(text);
    return request;
  }

  v1::GenerateRequest GenerateAt(int64_t expected) {
    v1::GenerateRequest request;
    request.set_session_id("s");
    request.set_expected_token_count(expected);
    return request;
  }

  testing::FakeServer server_;
  Client client_{ClientOptions{.address = server_.address()}};
};

TEST(RequestIdTest, IsARandomUuidOfVersion4) {
  std::set<std::string> ids;
  for (int i = 0; i < 1000; ++i) {
    std::string id = NewRequestId();
    EXPECT_THAT(
        id, MatchesRegex("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"));
    ids.insert(id);
  }
  EXPECT_EQ(ids.size(), 1000u);
}

TEST_F(ClientTest, ServerErrorsKeepCodeMessageReasonAndMetadata) {
  absl::Status status = client_.GetSession("nobody").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(status.message(), "no session nobody");
  EXPECT_EQ(ErrorReason(status), "NO_SUCH_NAME");
  EXPECT_EQ(ErrorMetadata(status)["origin"], "fake");
}

TEST(ErrorInfoTest, ErrorsFromElsewhereHaveNoReason) {
  EXPECT_EQ(ErrorReason(absl::OkStatus()), "");
  absl::Status damaged = absl::InternalError("x");
  damaged.SetPayload(kErrorInfoUrl, absl::Cord("\xff\xff\xff"));
  EXPECT_EQ(ErrorReason(damaged), "");
}

TEST_F(ClientTest, LostRequestOfAWriteIsRepeatedWithTheSameId) {
  server_.faults.lose_requests = 2;
  Open("s");
  EXPECT_EQ(server_.faults.calls, 3);
}

TEST_F(ClientTest, LostAnswerOfAWriteIsRepeatedAndAppliedOnce) {
  server_.faults.lose_answers = 1;
  Open("s");  // a second application would be ALREADY_EXISTS
  absl::MutexLock lock(&server_.sessions.mutex);
  ASSERT_EQ(server_.sessions.request_ids.size(), 2u);
  EXPECT_EQ(server_.sessions.request_ids[0], server_.sessions.request_ids[1]);
}

TEST_F(ClientTest, GivesUpAfterTheConfiguredAttempts) {
  server_.faults.lose_requests = 100;
  EXPECT_TRUE(absl::IsUnavailable(client_.GetSession("s").status()));
  EXPECT_EQ(server_.faults.calls, 4);
}

TEST_F(ClientTest, AppendWithLostAnswerIsAppliedOnceIfTheTokenCountIsExpected) {
  Open("s");
  ASSERT_TRUE(client_.Append(AppendOf("one ")).ok());
  server_.faults.lose_answers = 1;
  absl::StatusOr<v1::AppendDone> done = client_.Append(AppendOf("two", 4));
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_EQ(server_.sessions.TextOf("s"), "one two");
}

TEST_F(ClientTest, AppendWithoutExpectedTokenCountIsNotRepeated) {
  Open("s");
  server_.faults.lose_requests = 1;
  EXPECT_TRUE(absl::IsUnavailable(client_.Append(AppendOf("one")).status()));
  EXPECT_EQ(server_.sessions.TextOf("s"), "");
}

TEST_F(ClientTest, AppendFromSendsEveryPieceInOrderAndReportsProgress) {
  Open("s");
  int pieces = 0;
  std::vector<int64_t> seen;
  absl::StatusOr<v1::AppendDone> done = client_.AppendFrom(
      AppendOf("0"),
      [&]() -> absl::StatusOr<std::optional<v1::Content>> {
        if (++pieces > 3) return std::nullopt;
        v1::Content content;
        content.set_text(absl::StrCat(pieces));
        return content;
      },
      [&](const v1::AppendProgress& progress) { seen.push_back(progress.tokens_read()); });
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_EQ(server_.sessions.TextOf("s"), "0123");
  EXPECT_THAT(seen, ElementsAre(2, 3, 4));
}

TEST_F(ClientTest, ErrorOfTheSourceEndsTheAppend) {
  Open("s");
  absl::Status status = client_
                            .AppendFrom(AppendOf("0"),
                                        [] {
                                          return absl::StatusOr<std::optional<v1::Content>>(
                                              absl::DataLossError("disk"));
                                        })
                            .status();
  EXPECT_EQ(status, absl::DataLossError("disk"));
}

TEST_F(ClientTest, GenerateGivesDeltasThenTheWholeText) {
  Open("s");
  std::string streamed;
  absl::StatusOr<v1::GenerateDone> done = client_.Generate(
      GenerateAt(0), [&](const v1::GenerateDelta& delta) { streamed += delta.text(); });
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_EQ(streamed, "The river forks here.");
  EXPECT_EQ(done->text(), streamed);
}

TEST_F(ClientTest, GenerateThatBreaksAfterADeltaIsNotRepeated) {
  Open("s");
  ASSERT_TRUE(client_.Append(AppendOf("abc")).ok());
  server_.faults.break_after_deltas = 1;
  std::string streamed;
  absl::StatusOr<v1::GenerateDone> done = client_.Generate(
      GenerateAt(3), [&](const v1::GenerateDelta& delta) { streamed += delta.text(); });
  EXPECT_TRUE(absl::IsUnavailable(done.status()));
  EXPECT_EQ(streamed, "The river ");
}

TEST_F(ClientTest, GenerateThatNeverStartedIsRepeated) {
  Open("s");
  ASSERT_TRUE(client_.Append(AppendOf("abc")).ok());
  server_.faults.lose_requests = 2;
  EXPECT_TRUE(client_.Generate(GenerateAt(3)).ok());
}

TEST_F(ClientTest, CancelEndsARunningGenerate) {
  Open("s");
  server_.faults.endless = true;
  Cancellation cancel;
  absl::StatusOr<v1::GenerateDone> done = client_.Generate(
      GenerateAt(0), [&](const v1::GenerateDelta&) { cancel.Cancel(); }, &cancel);
  EXPECT_TRUE(absl::IsCancelled(done.status())) << done.status();
  // Once cancelled, always cancelled.
  EXPECT_TRUE(absl::IsCancelled(client_.Generate(GenerateAt(0), nullptr, &cancel).status()));
}

TEST_F(ClientTest, DeadlineEndsARunningGenerate) {
  Open("s");
  server_.faults.endless = true;
  Client hurried({.address = server_.address(), .model_timeout = absl::Milliseconds(200)});
  EXPECT_TRUE(absl::IsDeadlineExceeded(hurried.Generate(GenerateAt(0)).status()));
}

TEST_F(ClientTest, ListsGoThroughAllPages) {
  for (int i = 0; i < 8; ++i) Open(absl::StrCat("n", i));
  Open("other");
  EXPECT_EQ(client_.ListSessions()->size(), 9u);
  EXPECT_EQ(client_.ListSessions("n")->size(), 8u);
}

TEST(ClientWithoutServerTest, SaysUnavailableWithinSeconds) {
  Client client({.address = "127.0.0.1:1"});
  absl::Time start = absl::Now();
  EXPECT_TRUE(absl::IsUnavailable(client.GetStatus().status()));
  EXPECT_LT(absl::Now() - start, absl::Seconds(5));
}

}  // namespace
}  // namespace anabranch
