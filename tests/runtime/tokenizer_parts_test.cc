// The hand-written parts against the general ones they stand for.
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "runtime/tokenizer/gpt2_split.h"
#include "runtime/tokenizer/regex.h"
#include "runtime/tokenizer/split.h"
#include "runtime/tokenizer/unicode_class.h"
#include "runtime/tokenizer/unicode_form.h"
#include "runtime/tokenizer/utf8.h"
#include "tests/runtime/text_fixtures.h"

namespace anabranch::tokenizer {
namespace {

std::vector<std::string> Cut(const std::string& text, const std::vector<Range>& ranges) {
  std::vector<std::string> words;
  for (const Range& range : ranges) {
    words.push_back(text.substr(range.begin, range.end - range.begin));
  }
  return words;
}

void ExpectSameWords(const Regex& regex, const std::string& text) {
  SCOPED_TRACE(text);
  std::vector<Range> matches, expected, actual;
  ASSERT_TRUE(regex.FindAll(text, &matches).ok());
  SplitAtMatches({0, text.size()}, matches, SplitBehavior::kIsolated, false, &expected);
  SplitGpt2(text, {0, text.size()}, &actual);
  ASSERT_EQ(Cut(text, actual), Cut(text, expected));
}

TEST(Gpt2SplitTest, CutsAsTheRegularExpressionDoes) {
  const auto regex = Regex::Compile(kGpt2Pattern);
  ASSERT_TRUE(regex.ok()) << regex.status();
  std::mt19937 random(2);
  for (int i = 0; i < 5000; ++i) ExpectSameWords(*regex, RandomText(&random, 12));
  for (const char* text : {"'s 't're've'm'll'd'l'r'v' 's ''", "it's we'll  you're ", "'", "' ",
                           " '", "a  b", "\n\n a", " \n", "x\xC2\xA0 y"}) {
    ExpectSameWords(*regex, text);
  }
}

TEST(Gpt2SplitTest, ClassesOfAllCodePointsAreTheRegularExpressions) {
  const auto regex = Regex::Compile(kGpt2Pattern);
  ASSERT_TRUE(regex.ok());
  for (char32_t c = 1; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    if (c >= 0x20000 && c % 16 != 0) continue;  // large uniform ranges: every sixteenth will do
    std::string text = "a";
    AppendCodePoint(c, &text);
    text += "1";
    std::vector<Range> matches, words;
    ASSERT_TRUE(regex->FindAll(text, &matches).ok());
    SplitGpt2(text, {0, text.size()}, &words);
    ASSERT_EQ(Cut(text, words), Cut(text, matches)) << "code point " << static_cast<uint32_t>(c);
  }
}

TEST(UnicodeClassTest, KnowsWellKnownCharacters) {
  EXPECT_TRUE(IsLetter(0x65E5) && IsLetter(0x00E9) && !IsLetter('1'));
  EXPECT_TRUE(IsNumeric('7') && IsNumeric(0x2167) && IsNumeric(0xBD) && !IsNumeric('x'));
  EXPECT_TRUE(IsPunctuation('$') && IsPunctuation(0x201C) && !IsPunctuation(0x20AC));
  EXPECT_TRUE(IsWhitespace(0x3000) && IsWhitespace(0x85) && !IsWhitespace(0x200B));
  EXPECT_TRUE(IsWordChar('_') && IsWordChar(0x0301) && IsWordChar(0x200D) && !IsWordChar('-'));
}

TEST(Utf8Test, LossyDecodingDoesNotDependOnHowTheBytesArrive) {
  std::mt19937 random(3);
  for (int i = 0; i < 3000; ++i) {
    std::string bytes = RandomText(&random, 6);
    for (int broken = 0; broken < 3 && !bytes.empty(); ++broken) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    std::string whole, parts, pending;
    EXPECT_EQ(AppendLossyUtf8(bytes, true, &whole), bytes.size());
    EXPECT_EQ(ValidUtf8Length(whole), whole.size());
    for (const char byte : bytes) {
      pending.push_back(byte);
      pending.erase(0, AppendLossyUtf8(pending, false, &parts));
      ASSERT_LE(pending.size(), 3u);
    }
    AppendLossyUtf8(pending, true, &parts);
    ASSERT_EQ(parts, whole);
  }
}

TEST(Utf8Test, ReplacesEachMaximalBrokenPartOnce) {
  std::string out;
  AppendLossyUtf8(
      "\xF0\x9F\x91"
      "a\xED\xA0\x80",
      true, &out);
  const std::string mark = "\xEF\xBF\xBD";
  EXPECT_EQ(out, mark + "a" + mark + mark + mark);
}

TEST(UnicodeFormTest, ComposesAndDecomposes) {
  const auto form = [](bool compose, bool compatibility, std::string text) {
    EXPECT_TRUE(NormalizeUnicode({compose, compatibility}, &text).ok());
    return text;
  };
  EXPECT_EQ(form(true, false, "e\xCC\x81"), "\xC3\xA9");
  EXPECT_EQ(form(false, false, "\xC3\xA9"), "e\xCC\x81");
  EXPECT_EQ(form(true, true, "\xEF\xAC\x81"), "fi");
  EXPECT_EQ(form(true, false, "\xEF\xAC\x81"), "\xEF\xAC\x81");
  // Marks are put in order before composing: the dot below comes first.
  EXPECT_EQ(form(true, false, "a\xCC\x82\xCC\xA3"), "\xE1\xBA\xAD");
  EXPECT_EQ(form(true, false, "\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8"), "\xEA\xB0\x81");  // Hangul
}

TEST(RegexTest, EmptyMatchesMoveOn) {
  const auto regex = Regex::Compile("x*");
  ASSERT_TRUE(regex.ok());
  std::vector<Range> matches;
  const std::string text = "a\xC3\xA9x";
  ASSERT_TRUE(regex->FindAll(text, &matches).ok());
  ASSERT_EQ(matches.size(), 3u);  // before a, before e acute, and the x
  EXPECT_EQ(matches[1].begin, 1u);
  EXPECT_EQ(matches[2].end, 4u);
}

}  // namespace
}  // namespace anabranch::tokenizer
