#include "service/names.h"

#include <gtest/gtest.h>

#include "service/config.h"
#include "service/host_port.h"

namespace anabranch {
namespace {

TEST(NamesTest, NamesAreSegmentsOfLowerCaseJoinedBySlashes) {
  for (const char* good : {"a", "assistants/ada/main", "0", "a.b-c_d/9"}) {
    EXPECT_TRUE(CheckName("ref", good).ok()) << good;
  }
  EXPECT_TRUE(CheckName("ref", std::string(63, 'a')).ok());
  for (const char* bad :
       {"", "/", "a/", "/a", "a//b", "A", "a b", ".a", "-a", "_a", "a/../b", "ü"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(CheckName("ref", bad))) << bad;
  }
  EXPECT_FALSE(CheckName("ref", std::string(64, 'a')).ok());
  std::string longest = std::string(63, 'a') + "/" + std::string(63, 'b') + "/" +
                        std::string(63, 'c') + "/" + std::string(8, 'd');
  EXPECT_EQ(longest.size(), 200u);
  EXPECT_TRUE(CheckName("ref", longest).ok());
  EXPECT_FALSE(CheckName("ref", longest + "e").ok());
}

TEST(NamesTest, RandomSessionIdsAreValidAndDiffer) {
  const std::string a = RandomSessionId(), b = RandomSessionId();
  EXPECT_TRUE(CheckName("session_id", a).ok()) << a;
  EXPECT_NE(a, b);
}

TEST(NamesTest, StateIdsAreRecognised) {
  EXPECT_TRUE(IsStateId("st-0123456789abcdef0123456789abcdef01234567"));
  EXPECT_FALSE(IsStateId("st-0123456789ABCDEF0123456789abcdef01234567"));
  EXPECT_FALSE(IsStateId("st-0123"));
  EXPECT_FALSE(IsStateId("ada/main"));
}

TEST(NamesTest, LabelsAreBounded) {
  google::protobuf::Map<std::string, std::string> labels;
  labels["kind"] = "note";
  EXPECT_TRUE(ParseLabels(labels).ok());
  labels[""] = "x";
  EXPECT_TRUE(absl::IsInvalidArgument(ParseLabels(labels).status()));
  labels.clear();
  labels["k"] = std::string(1025, 'x');
  EXPECT_FALSE(ParseLabels(labels).ok());
  labels.clear();
  for (int i = 0; i < 65; ++i) labels["k" + std::to_string(i)] = "";
  EXPECT_FALSE(ParseLabels(labels).ok());
}

TEST(HostPortTest, AddressesAreParsedAndWritten) {
  for (const char* good : {"127.0.0.1:50051", "localhost:0", "[::1]:65535"}) {
    const auto parsed = ParseHostPort(good);
    ASSERT_TRUE(parsed.ok()) << good;
    EXPECT_EQ(FormatHostPort(*parsed), good);
  }
  for (const char* bad : {"", "localhost", ":1", "a:", "a:-1", "a:65536", "a:1x"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseHostPort(bad).status())) << bad;
  }
}

TEST(ConfigTest, FlagsOutOfRangeAreNamed) {
  ServerConfig good;
  good.models = {{.directory = "m"}};
  good.data = "d";
  ASSERT_TRUE(good.Validate().ok());
  const auto message = [&](auto change) {
    ServerConfig config = good;
    change(config);
    return std::string(config.Validate().message());
  };
  EXPECT_NE(message([](auto& c) { c.models.clear(); }).find("--model"), std::string::npos);
  EXPECT_NE(message([](auto& c) { c.threads = -1; }).find("--threads"), std::string::npos);
  EXPECT_NE(message([](auto& c) { c.checkpoint_every = -1; }).find("--checkpoint-every"),
            std::string::npos);
  EXPECT_NE(message([](auto& c) { c.limits.max_context_tokens = 0; }).find("--max-context"),
            std::string::npos);
  EXPECT_NE(message([](auto& c) { c.dtype = "fp8"; }).find("--dtype"), std::string::npos);
}

}  // namespace
}  // namespace anabranch
