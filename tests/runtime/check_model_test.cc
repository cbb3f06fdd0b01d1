// The acceptance check of every architecture: reference logits within 1e-3 in float32, greedy
// continuation equal; in bfloat16 as near to float32 as the reference implementation.
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
  const auto report = RunCheckModel(dir(), {kernels::DType::kFloat32}, 1e-3);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->passed) << FormatCheckReport(*report);
  ASSERT_EQ(report->rows.size(), 4);
  EXPECT_EQ(report->rows.front().length, 1);
  EXPECT_EQ(report->rows.back().length, 131);
  for (const CheckModelRow& row : report->rows) {
    EXPECT_LE(row.max_abs_error, 1e-3);
    EXPECT_GT(row.max_abs_error, 0);  // another implementation: equality would be suspicious
    EXPECT_EQ(row.agreed, row.length);
  }
  ASSERT_TRUE(report->greedy.has_value());
  EXPECT_EQ(report->greedy->tokens, 24);
  EXPECT_EQ(report->greedy->equal_tokens, 24);
}

// The reference implementation's own bfloat16 is the yardstick: rounding the weights alone, with
// exact arithmetic, changes up to a quarter of the best tokens of these random models.
TEST_P(CheckGoldenModel, BFloat16IsNoFartherFromFloat32ThanTheReferenceImplementations) {
  const auto report = RunCheckModel(dir(), {kernels::DType::kBFloat16}, 1e9);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->passed) << FormatCheckReport(*report);
  ASSERT_TRUE(report->has_bf16_reference);
  EXPECT_EQ(report->total.length, 201);
  EXPECT_EQ(report->allowance, 2);
  EXPECT_GE(report->total.agreed, report->total.reference_agreed - 2);
  EXPECT_LT(report->total.reference_agreed, report->total.length);
  EXPECT_GT(report->total.mean_abs_error, 0);
  const std::string table = FormatCheckReport(*report);
  EXPECT_THAT(table, HasSubstr("rule: at least 97%"));
  const bool near = report->total.agreed >= kLeastBFloat16Agreement * 201;
  EXPECT_EQ(report->rule, near ? CheckModelRule::kAgreement : CheckModelRule::kAsReference);
  if (!near) {
    EXPECT_THAT(table, HasSubstr("at most 2 of 201 positions fewer than the reference"));
  }
}

TEST_P(CheckGoldenModel, FailsBeyondTheTolerance) {
  const auto report = RunCheckModel(dir(), {kernels::DType::kFloat32}, 1e-12);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_FALSE(report->passed);
  EXPECT_THAT(FormatCheckReport(*report), HasSubstr("FAILED"));
}

INSTANTIATE_TEST_SUITE_P(Models, CheckGoldenModel, ::testing::ValuesIn(testing::GoldenModels()),
                         [](const auto& info) { return info.param; });

TEST(CheckModel, AsksForNinetySevenPercentWhereTheReferencesBFloat16IsUnknown) {
  const std::filesystem::path copy = std::filesystem::path(::testing::TempDir()) / "zamba2";
  std::filesystem::create_directories(copy);
  for (const char* name : {"config.json", "golden.safetensors", "model.safetensors"}) {
    std::filesystem::copy_file(testing::GoldenModelDir("zamba2") + "/" + name, copy / name,
                               std::filesystem::copy_options::overwrite_existing);
  }
  const auto report = RunCheckModel(copy, {kernels::DType::kBFloat16}, 1e-3);
  std::filesystem::remove_all(copy);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_FALSE(report->has_bf16_reference);
  EXPECT_FALSE(report->passed);
  EXPECT_EQ(report->rule, CheckModelRule::kAgreement);
  EXPECT_THAT(FormatCheckReport(*report), HasSubstr("FAILED"));
}

TEST(CheckModel, SaysWhichFileIsMissing) {
  const auto report = RunCheckModel("/nonexistent", {kernels::DType::kFloat32}, 1e-3);
  EXPECT_EQ(report.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(report.status().message()), HasSubstr("golden.safetensors"));
}

}  // namespace
}  // namespace anabranch
