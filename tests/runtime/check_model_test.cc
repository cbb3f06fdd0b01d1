// The acceptance check of every architecture: reference logits within 1e-3 in float32, greedy
// continuation equal.
#include "runtime/check_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "tests/runtime/golden_models.h"

namespace anabranch {
namespace {

using ::testing::HasSubstr;

class CheckGoldenModel : public ::testing::TestWithParam<std::string> {
 protected:
  std::string dir() const { return testing::GoldenModelDir(GetParam()); }
};

TEST_P(CheckGoldenModel, AgreesWithReferenceInFloat32) {
  const auto report = RunCheckModel(dir(), kernels::DType::kFloat32, 1e-3);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->passed) << FormatCheckReport(*report);
  ASSERT_EQ(report->rows.size(), 4);
  EXPECT_EQ(report->rows.front().length, 1);
  EXPECT_EQ(report->rows.back().length, 131);
  for (const CheckModelRow& row : report->rows) {
    EXPECT_LE(row.max_abs_error, 1e-3);
    EXPECT_GT(row.max_abs_error, 0);  // another implementation: equality would be suspicious
    EXPECT_EQ(row.top1_agreement, 1);
  }
  ASSERT_TRUE(report->greedy.has_value());
  EXPECT_EQ(report->greedy->tokens, 24);
  EXPECT_EQ(report->greedy->equal_tokens, 24);
}

TEST_P(CheckGoldenModel, StaysNearReferenceInBFloat16) {
  const auto report = RunCheckModel(dir(), kernels::DType::kBFloat16, 1e9);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->passed, report->top1_agreement >= kLeastBFloat16Agreement);
  const bool same_dtype = std::filesystem::exists(dir() + "/golden_bfloat16.safetensors");
  EXPECT_TRUE(report->passed || !same_dtype) << FormatCheckReport(*report);
  // Against float32 less can be asked. Logits of these random models reach 9; rounding the weights
  // alone, with exact arithmetic, already moves the worst one by up to 0.7 and changes 5 % of the
  // best tokens.
  for (const CheckModelRow& row : report->rows) {
    EXPECT_LT(row.max_abs_error, same_dtype ? 0.5 : 1.5) << row.length;
  }
  EXPECT_GT(report->top1_agreement, 0.9) << FormatCheckReport(*report);
  EXPECT_THAT(FormatCheckReport(*report), HasSubstr("top-1 agreement"));
}

TEST_P(CheckGoldenModel, FailsBeyondTheTolerance) {
  const auto report = RunCheckModel(dir(), kernels::DType::kFloat32, 1e-12);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_FALSE(report->passed);
  EXPECT_THAT(FormatCheckReport(*report), HasSubstr("FAILED"));
}

INSTANTIATE_TEST_SUITE_P(Models, CheckGoldenModel, ::testing::ValuesIn(testing::GoldenModels()),
                         [](const auto& info) { return info.param; });

TEST(CheckModel, SaysWhichFileIsMissing) {
  const auto report = RunCheckModel("/nonexistent", kernels::DType::kFloat32, 1e-3);
  EXPECT_EQ(report.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(report.status().message()), HasSubstr("golden.safetensors"));
}

}  // namespace
}  // namespace anabranch
