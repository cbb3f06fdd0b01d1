// Ids and texts of the reference implementation, for one small tokenizer of each supported family.
#include <gtest/gtest.h>

#include <string>

#include "runtime/check_tokenizer.h"

namespace anabranch {
namespace {

class TokenizerGoldenTest : public testing::TestWithParam<const char*> {};

TEST_P(TokenizerGoldenTest, GivesTheReferencesIdsAndTexts) {
  const auto report = CheckTokenizer(std::string(ANABRANCH_GOLDEN_DIR "/tokenizers/") + GetParam());
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_GT(report->texts, 300);
  EXPECT_TRUE(report->ok()) << FormatReport(*report);
}

INSTANTIATE_TEST_SUITE_P(Families, TokenizerGoldenTest,
                         testing::Values("neox", "llama3", "llama2"));

}  // namespace
}  // namespace anabranch
