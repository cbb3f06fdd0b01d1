#include "service/error_info.h"

#include <gtest/gtest.h>

#include "google/rpc/status.pb.h"
#include "service/status_mapping.h"

namespace anabranch {
namespace {

google::rpc::ErrorInfo InfoOnTheWire(const grpc::Status& status) {
  google::rpc::Status details;
  google::rpc::ErrorInfo info;
  EXPECT_TRUE(details.ParseFromString(status.error_details()));
  EXPECT_EQ(details.code(), static_cast<int>(status.error_code()));
  EXPECT_EQ(details.message(), status.error_message());
  EXPECT_EQ(details.details_size(), 1);
  EXPECT_TRUE(details.details(0).UnpackTo(&info));
  return info;
}

TEST(ErrorInfoTest, ReasonAndMetadataReachTheWire) {
  const grpc::Status status = ToGrpcStatus(ErrorWithReason(
      absl::StatusCode::kAborted, "SESSION_BUSY", "busy", {{"session_id", "ada/main"}}));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::ABORTED);
  const google::rpc::ErrorInfo info = InfoOnTheWire(status);
  EXPECT_EQ(info.reason(), "SESSION_BUSY");
  EXPECT_EQ(info.domain(), "anabranch");
  EXPECT_EQ(info.metadata().at("session_id"), "ada/main");
}

TEST(ErrorInfoTest, StatusesMadeElsewhereGetTheNameOfTheirCode) {
  const google::rpc::ErrorInfo info = InfoOnTheWire(ToGrpcStatus(absl::DataLossError("damaged")));
  EXPECT_EQ(info.reason(), "DATA_LOSS");
  EXPECT_EQ(info.domain(), "anabranch");
}

TEST(ErrorInfoTest, AnEarlierReasonIsKept) {
  const absl::Status first = WithReason(absl::NotFoundError("x"), "FIRST");
  EXPECT_EQ(ErrorInfoOf(WithReason(first, "SECOND")).reason(), "FIRST");
  EXPECT_TRUE(WithReason(absl::OkStatus(), "NONE").ok());
}

TEST(ErrorInfoTest, LimitsNameFieldAndLimit) {
  const absl::Status status = LimitExceeded("max_tokens", 20000, 16384);
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  const google::rpc::ErrorInfo info = ErrorInfoOf(status);
  EXPECT_EQ(info.metadata().at("field"), "max_tokens");
  EXPECT_EQ(info.metadata().at("limit"), "16384");
}

TEST(ErrorInfoTest, LongMessagesAreCutForTheTrailer) {
  const grpc::Status status = ToGrpcStatus(absl::InternalError(std::string(100000, 'x')));
  EXPECT_LT(status.error_details().size() + status.error_message().size(), 8000u);
}

TEST(ErrorInfoTest, EveryCodeHasAName) {
  for (int code = 0; code <= 16; ++code) {
    EXPECT_EQ(CodeName(static_cast<absl::StatusCode>(code)),
              absl::StatusCodeToString(static_cast<absl::StatusCode>(code)));
  }
}

}  // namespace
}  // namespace anabranch
