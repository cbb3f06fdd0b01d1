// What an answer rests on: words that stand together in one place of what was read.
#include "service/answer_support.h"

#include <gtest/gtest.h>

namespace anabranch {
namespace {

const WordWeights kWeights = {{"carlos", 4}, {"henry", 4}, {"berlin", 2}, {"lisbon", 2},
                              {"lives", 1},  {"city", 1},  {"home", 1}};
constexpr char kQuestion[] = "Which city is the home of Carlos?";

double Support(const std::string& answer, const std::string& text,
               const std::string& question = kQuestion) {
  return AnswerSupport(question, answer, text, kWeights);
}

TEST(AnswerSupportTest, WhatWasReadTogetherBearsTheAnswerOut) {
  // city, home and lives are not in the passage: 6 of 9, and 7 of 9.
  EXPECT_DOUBLE_EQ(Support("Carlos lives in Lisbon.", "Carlos resides in Lisbon.\n"), 6.0 / 9);
  EXPECT_DOUBLE_EQ(Support("Carlos lives in Lisbon.", "CARLOS lives\tin Lisbon\n"), 7.0 / 9);
  EXPECT_DOUBLE_EQ(Support("Lisbon.", "Carlos resides in Lisbon.\n"), 6.0 / 8) << "a short answer";
  EXPECT_DOUBLE_EQ(Support("Lisbon.", "The home city of Carlos is Lisbon."), 1);
}

TEST(AnswerSupportTest, WhatWasReadOfSomethingElseBearsLittleOut) {
  const std::string text = "Carlos plays chess.\nGot it.\nHenry resides in Berlin.\n";
  EXPECT_DOUBLE_EQ(Support("Carlos lives in Berlin.", text), 2.0 / 9) << "Berlin alone";
  EXPECT_DOUBLE_EQ(Support("Carlos lives in Lisbon.", "Carlos plays chess.\nThe home city.\n"), 0)
      << "what the question says already is no answer";
  EXPECT_DOUBLE_EQ(Support("Carlos, Carlos", "The home city of Carlos.\n"), 0) << "nothing is new";
}

TEST(AnswerSupportTest, APassageIsASentenceWithTheOneBeforeItInOneLine) {
  const std::string answer = "Carlos lives in Lisbon.";
  EXPECT_DOUBLE_EQ(Support(answer, "Carlos wrote. He is in Lisbon."), 6.0 / 9);
  EXPECT_DOUBLE_EQ(Support(answer, "Carlos wrote! Nice? He is in Lisbon."), 2.0 / 9) << "too far";
  EXPECT_DOUBLE_EQ(Support(answer, "Carlos wrote.\nHe is in Lisbon."), 2.0 / 9) << "another turn";
  EXPECT_DOUBLE_EQ(Support("Lisbon", "Carlos 3.6 4.7 Lisbon"), 6.0 / 8) << "numbers end nothing";
}

TEST(AnswerSupportTest, WithoutWordsThereIsNoSupport) {
  EXPECT_EQ(Support("", "Carlos resides in Lisbon."), 0);
  EXPECT_EQ(Support("Carlos lives in Lisbon.", ""), 0);
  EXPECT_EQ(Support("?!", "?! \n. .", "..."), 0);
  EXPECT_EQ(AnswerSupport(kQuestion, "Lisbon", "Carlos: Lisbon", {}), 0) << "nothing weighs";
}

}  // namespace
}  // namespace anabranch
