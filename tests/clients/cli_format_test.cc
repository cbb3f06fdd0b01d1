// What people and programs see: numbers, tables, JSON, and how text is cut.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "anabranch/v1/admin.pb.h"
#include "anabranch/v1/sessions.pb.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/format.h"
#include "clients/cli/json_output.h"
#include "clients/cli/state_id.h"
#include "clients/cli/text_input.h"

namespace anabranch::cli {
namespace {

using ::testing::ElementsAre;

TEST(FormatTest, Bytes) {
  EXPECT_EQ(HumanBytes(0), "0 B");
  EXPECT_EQ(HumanBytes(1023), "1023 B");
  EXPECT_EQ(HumanBytes(1536), "1.5 KiB");
  EXPECT_EQ(HumanBytes((1 << 20) - 1), "1.0 MiB");
  EXPECT_EQ(HumanBytes(int64_t{123} << 30), "123 GiB");
}

TEST(FormatTest, CountsHaveThousandsSeparators) {
  EXPECT_EQ(HumanCount(0), "0");
  EXPECT_EQ(HumanCount(999), "999");
  EXPECT_EQ(HumanCount(1000), "1,000");
  EXPECT_EQ(HumanCount(-1234567), "-1,234,567");
}

TEST(FormatTest, Ages) {
  EXPECT_EQ(HumanAge(absl::Seconds(-5)), "just now");
  EXPECT_EQ(HumanAge(absl::Seconds(59)), "59 s ago");
  EXPECT_EQ(HumanAge(absl::Minutes(59)), "59 min ago");
  EXPECT_EQ(HumanAge(absl::Hours(47)), "47 h ago");
  EXPECT_EQ(HumanAge(absl::Hours(49)), "2 d ago");
  EXPECT_EQ(AgeOf({}), "-");
}

TEST(FormatTest, TablesAlignColumnsAndEndLinesWithoutSpaces) {
  Table table({"NAME", "SIZE", "X"}, {.right_aligned = {1}});
  table.Add({"a", "1", "y"});
  table.Add({"long-name", "12345", "z"});
  std::ostringstream out;
  table.Print(out);
  EXPECT_EQ(out.str(),
            "NAME        SIZE  X\n"
            "a              1  y\n"
            "long-name  12345  z\n");
}

TEST(FormatTest, PrintableKeepsTextAndDropsControls) {
  EXPECT_EQ(Printable("ä\tb\n"), "ä\tb\n");
  EXPECT_EQ(Printable("a\x1b[2J\r\x7f"), "a\uFFFD[2J\uFFFD\uFFFD");
  EXPECT_EQ(Printable("\xc2\x9b\xc2\xa0"), "\uFFFD\xc2\xa0");
}

TEST(JsonTest, IntegersAreNumbersAtEveryDepthAndTextStaysText) {
  v1::ListSessionsResponse list;
  v1::Session& session = *list.add_sessions();
  session.set_id("123");
  session.set_token_count(int64_t{1} << 53);
  (*session.mutable_labels())["n"] = "42";
  Json json = ToJson(list);
  EXPECT_EQ(json["sessions"][0]["id"], "123");
  EXPECT_EQ(json["sessions"][0]["token_count"], int64_t{1} << 53);
  EXPECT_EQ(json["sessions"][0]["head_token_count"], 0);
  EXPECT_EQ(json["sessions"][0]["labels"]["n"], "42");
  v1::Sampling sampling;
  sampling.set_seed(~uint64_t{0});
  EXPECT_EQ(ToJson(sampling)["seed"], ~uint64_t{0});
}

TEST(JsonTest, OneValueIsOneLine) {
  std::ostringstream out;
  PrintJson({{"text", "a\nb\xff"}}, out);
  EXPECT_EQ(out.str(), "{\"text\":\"a\\nb\uFFFD\"}\n");
}

std::vector<std::string> Pieces(const std::string& text, size_t max) {
  std::istringstream in(text);
  TextInput input(in, "test", max);
  std::vector<std::string> pieces;
  while (true) {
    absl::StatusOr<std::optional<std::string>> piece = input.Next();
    EXPECT_TRUE(piece.ok()) << piece.status();
    if (!piece.ok() || !piece->has_value()) return pieces;
    pieces.push_back(**piece);
  }
}

TEST(TextInputTest, TextThatFitsIsOnePiece) {
  EXPECT_THAT(Pieces("a\nb\nc", 5), ElementsAre("a\nb\nc"));
  EXPECT_THAT(Pieces("", 5), ElementsAre());
}

TEST(TextInputTest, LongerTextIsCutAfterTheLastLineEndThatFits) {
  EXPECT_THAT(Pieces("ab\ncd\nef", 5), ElementsAre("ab\n", "cd\nef"));
}

TEST(TextInputTest, TextWithoutLineEndsIsCutBetweenCharacters) {
  EXPECT_THAT(Pieces("aä€😀b", 4), ElementsAre("aä", "€", "😀", "b"));
  EXPECT_THAT(Pieces("abcdef", 4), ElementsAre("abcd", "ef"));
}

TEST(TextInputTest, EveryCutKeepsTheText) {
  std::string text;
  for (int i = 0; i < 50; ++i) text += i % 7 == 3 ? "€\n" : i % 5 == 0 ? "😀" : "xä";
  for (size_t max = 4; max < text.size() + 2; ++max) {
    std::string joined;
    for (const std::string& piece : Pieces(text, max)) {
      EXPECT_LE(piece.size(), max);
      EXPECT_TRUE(CheckUtf8(piece, "piece").ok());
      joined += piece;
    }
    EXPECT_EQ(joined, text);
  }
}

TEST(TextInputTest, BadBytesAreNamedByTheirOffsetInTheWholeInput) {
  std::istringstream in("ab\ncd\n\xc3(");
  TextInput input(in, "file.txt", 4);
  ASSERT_TRUE(input.Next().ok());
  absl::Status status = input.Next().status();
  if (status.ok()) status = input.Next().status();
  EXPECT_EQ(ExitCode(status), kExitUsage);
  EXPECT_NE(status.message().find("file.txt is not UTF-8 text: bad byte at offset 6"),
            absl::string_view::npos)
      << status;
}

TEST(ExitCodeTest, TellsUnreachableFromDraining) {
  absl::Status draining = absl::UnavailableError("draining");
  EXPECT_EQ(ExitCode(draining), kExitUnreachable);
  draining.SetPayload("type.googleapis.com/google.rpc.ErrorInfo", absl::Cord("\x0a\x08"
                                                                             "DRAINING"));
  EXPECT_EQ(ExitCode(draining), kExitServerError);
  EXPECT_EQ(ExitCode(absl::CancelledError()), kExitInterrupted);
}

TEST(StateIdTest, OnlyTheExactFormIsAState) {
  EXPECT_TRUE(LooksLikeStateId("st-0123456789012345678901234567890123456789"));
  EXPECT_FALSE(LooksLikeStateId("st-notes"));
  EXPECT_FALSE(LooksLikeStateId("st-012345678901234567890123456789012345678g"));
}

}  // namespace
}  // namespace anabranch::cli
