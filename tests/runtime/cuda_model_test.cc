// Whole models on the GPU against the reference logits of the golden folders and of the default
// model: in float32 within 1e-3 with the same greedy tokens, in bfloat16 by check-model's rule.
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <vector>

#include "absl/strings/str_format.h"
#include "runtime/check_model.h"
#include "runtime/random_model.h"
#include "runtime/single_sequence.h"
#include "tests/runtime/cuda_testing.h"
#include "tests/runtime/model_files.h"

namespace anabranch {
namespace {

using testing::CudaOptions;
using testing::CudaTest;
using testing::DTypeName;
using ::testing::HasSubstr;

constexpr char kRecall[] = "recall";

// One line for each model and dtype, printed after all tests.
class Table : public ::testing::Environment {
 public:
  static std::vector<std::string>& lines() {
    static auto* lines = new std::vector<std::string>;
    return *lines;
  }
  void TearDown() override {
    if (lines().empty()) return;
    std::printf("%-24s %-9s %12s %12s %12s %9s  %s\n", "model on cuda", "dtype", "max error",
                "mean error", "best token", "greedy", "");
    for (const std::string& line : lines()) std::printf("%s\n", line.c_str());
  }
};
const auto* const kTable = ::testing::AddGlobalTestEnvironment(new Table);

void AddLine(const std::string& model, kernels::DType dtype, const CheckModelReport& report) {
  const CheckModelRow& total = report.total;
  std::string greedy = "-";
  if (report.greedy.has_value()) {
    greedy = absl::StrFormat("%d/%d", report.greedy->equal_tokens, report.greedy->tokens);
  }
  Table::lines().push_back(absl::StrFormat(
      "%-24s %-9s %12.3g %12.3g %12s %9s  %s", model, DTypeName(dtype), total.max_abs_error,
      total.mean_abs_error, absl::StrFormat("%d/%d", total.agreed, total.length), greedy,
      report.passed ? "ok" : "FAILED"));
}

std::vector<std::string> ModelsAndRecall() {
  std::vector<std::string> names = testing::GoldenModels();
  names.push_back(kRecall);
  return names;
}

class CudaGoldenModel : public CudaTest, public ::testing::WithParamInterface<std::string> {
 protected:
  void SetUp() override {
    CudaTest::SetUp();
    if (!IsSkipped() && !std::filesystem::exists(dir())) GTEST_SKIP() << dir() << ": not here";
  }
  std::string dir() const {
    return GetParam() == kRecall ? testing::FolderFrom("ANABRANCH_RECALL_DIR", ANABRANCH_RECALL_DIR)
                                 : testing::GoldenModelDir(GetParam());
  }
};

TEST_P(CudaGoldenModel, AgreesWithReferenceInFloat32) {
  constexpr auto kDType = kernels::DType::kFloat32;
  const auto report = RunCheckModel(dir(), CudaOptions(kDType), 1e-3);
  ASSERT_TRUE(report.ok()) << report.status();
  AddLine(GetParam(), kDType, *report);
  EXPECT_TRUE(report->passed) << FormatCheckReport(*report);
  EXPECT_EQ(report->rule, CheckModelRule::kExact);
  EXPECT_LE(report->total.max_abs_error, 1e-3);
  EXPECT_GT(report->total.max_abs_error, 0);  // another implementation
  EXPECT_EQ(report->total.agreed, report->total.length);
  if (GetParam() == kRecall) return;  // its reference has no greedy continuation
  ASSERT_TRUE(report->greedy.has_value());
  EXPECT_EQ(report->greedy->equal_tokens, report->greedy->tokens);
}

TEST_P(CudaGoldenModel, PassesTheRuleOfBFloat16) {
  constexpr auto kDType = kernels::DType::kBFloat16;
  const auto report = RunCheckModel(dir(), CudaOptions(kDType), 1e9);
  ASSERT_TRUE(report.ok()) << report.status();
  AddLine(GetParam(), kDType, *report);
  EXPECT_TRUE(report->passed) << FormatCheckReport(*report);
  EXPECT_GT(report->total.mean_abs_error, 0);
  EXPECT_TRUE(std::isfinite(report->total.max_abs_error));
}

TEST_P(CudaGoldenModel, PassesTheRuleOfBFloat16WithStatesInFewerBits) {
  LoadOptions options = CudaOptions(kernels::DType::kBFloat16);
  for (kernels::DType dtype : {kernels::DType::kBFloat16, kernels::DType::kInt8}) {
    options.state_dtype = dtype;
    const auto report = RunCheckModel(dir(), options, 1e9);
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_TRUE(report->passed) << testing::NameOf(dtype) << FormatCheckReport(*report);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, CudaGoldenModel, ::testing::ValuesIn(ModelsAndRecall()),
                         [](const auto& info) { return info.param; });

// Weights that are stored as they are computed with go to the device without a copy in between.
using CudaModel = CudaTest;

constexpr char kSmallConfig[] = R"({"model_type": "mamba2", "vocab_size": 512, "hidden_size": 128,
    "num_hidden_layers": 2, "num_heads": 4, "head_dim": 64, "state_size": 128, "n_groups": 1,
    "expand": 2, "conv_kernel": 4, "tie_word_embeddings": true})";

std::vector<float> LogitsOf(const LoadOptions& options, const std::vector<int32_t>& tokens) {
  const auto model = MakeRandomModel(kSmallConfig, options);
  EXPECT_TRUE(model.ok()) << model.status();
  auto sequence = SingleSequence::Create(**model, static_cast<int64_t>(tokens.size()));
  EXPECT_TRUE(sequence.ok()) << sequence.status();
  auto logits = sequence->Read(tokens);
  EXPECT_TRUE(logits.ok()) << logits.status();
  return *std::move(logits);
}

TEST_F(CudaModel, ARandomModelGivesWhatItGivesOnTheCpu) {
  std::vector<int32_t> tokens(700);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * 37 % 512);
  for (const auto dtype : {kernels::DType::kFloat32, kernels::DType::kBFloat16}) {
    LoadOptions on_cpu;
    on_cpu.dtype = dtype;
    const std::vector<float> expected = LogitsOf(on_cpu, tokens);
    const std::vector<float> found = LogitsOf(CudaOptions(dtype), tokens);
    ASSERT_EQ(found.size(), expected.size());
    double difference = 0, size = 0;
    for (size_t i = 0; i < found.size(); ++i) {
      difference += std::pow(double{found[i]} - expected[i], 2);
      size += std::pow(double{expected[i]}, 2);
    }
    // Products in tf32 would differ by 3e-4. bfloat16: activations of 8 bits here, of 24 on the
    // CPU.
    const double limit = dtype == kernels::DType::kFloat32 ? 5e-5 : 3e-2;
    EXPECT_LT(std::sqrt(difference / size), limit) << DTypeName(dtype);
  }
}

TEST_F(CudaModel, AStoredValueThatIsNotFiniteIsRefusedByName) {
  testing::ModelFolder folder("mamba2");
  const std::string name = "backbone.layers.1.mixer.in_proj.weight";
  std::string& bytes = folder.weights.tensors.at(name).bytes;
  const float infinity = std::numeric_limits<float>::infinity();
  std::memcpy(bytes.data() + bytes.size() - sizeof(float), &infinity, sizeof(float));
  folder.Save();
  for (const auto dtype : {kernels::DType::kFloat32, kernels::DType::kBFloat16}) {
    const auto model = Model::Load(folder.path(), CudaOptions(dtype));
    EXPECT_EQ(model.status().code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(std::string(model.status().message()), HasSubstr(name));
  }
}

TEST_F(CudaModel, ADeviceThatIsNotThereIsNamed) {
  LoadOptions options;
  options.device = "cuda:99";
  const auto model = Model::Load(testing::GoldenModelDir("mamba2"), options);
  EXPECT_EQ(model.status().code(), absl::StatusCode::kUnavailable) << model.status();
  EXPECT_THAT(std::string(model.status().message()), HasSubstr("99"));
}

}  // namespace
}  // namespace anabranch
