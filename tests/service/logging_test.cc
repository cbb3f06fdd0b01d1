#include "service/logging.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace anabranch {
namespace {

TEST(LoggingTest, PlainValuesStayPlain) {
  EXPECT_EQ(FormatEvent("call", {{"method", std::string("Append")}, {"read", int64_t{12}}}, false),
            "event=call method=Append read=12");
}

TEST(LoggingTest, AFieldCannotForgeAnotherOrBreakTheLine) {
  EXPECT_EQ(FormatEvent("call", {{"reason", std::string("x level=error\n\"y\"")}}, false),
            "event=call reason=\"x level=error\\n\\\"y\\\"\"");
  EXPECT_EQ(FormatEvent("call", {{"reason", std::string()}}, false), "event=call reason=\"\"");
}

TEST(LoggingTest, JsonLinesAreOneValidObject) {
  const std::string line =
      FormatEvent("call", {{"text", std::string("a\"b\n\xff")}, {"ms", 1.5}, {"ok", true}}, true);
  EXPECT_EQ(line.find('\n'), std::string::npos);
  const auto parsed = nlohmann::json::parse("{" + line + "}");
  EXPECT_EQ(parsed["event"], "call");
  EXPECT_EQ(parsed["ms"], 1.5);
  EXPECT_EQ(parsed["ok"], true);
}

TEST(LoggingTest, UnknownLevelsAreRefused) {
  EXPECT_TRUE(absl::IsInvalidArgument(SetUpLogging("loud", false)));
  EXPECT_TRUE(SetUpLogging("off", true).ok());
}

}  // namespace
}  // namespace anabranch
