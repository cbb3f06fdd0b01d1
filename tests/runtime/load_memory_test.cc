// What loading says and takes: progress, memory that would not suffice, files that change.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/gemm.h"
#include "runtime/load_progress.h"
#include "runtime/memory_budget.h"
#include "runtime/model.h"
#include "runtime/weight_packing.h"
#include "tests/runtime/model_files.h"

namespace anabranch {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::ModelFolder;
using testing::WriteFile;

TEST(LoadProgressTest, IsReportedAtMostOnceASecond) {
  absl::Time now = absl::UnixEpoch();
  std::vector<int64_t> reported;
  const LoadProgressFn progress =
      EverySecond([&](const LoadProgress& p) { reported.push_back(p.done); }, [&] { return now; });
  for (int64_t half_seconds = 0; half_seconds < 7; ++half_seconds) {
    progress({"reading weights", half_seconds, 7});
    now += absl::Milliseconds(500);
  }
  EXPECT_THAT(reported, ElementsAre(2, 4, 6));
}

TEST(LoadProgressTest, CountsTheBytesOfTheFileUpToItsEnd) {
  const ModelFolder folder("mamba2");
  std::vector<std::string> phases;
  LoadProgress last;
  LoadOptions options;
  options.progress = [&](const LoadProgress& progress) {
    EXPECT_GE(progress.done, phases.empty() || phases.back() != progress.phase ? 0 : last.done);
    EXPECT_LE(progress.done, progress.total);
    phases.emplace_back(progress.phase);
    last = progress;
  };
  ASSERT_TRUE(Model::Load(folder.path(), options).ok());
  EXPECT_EQ(phases.back(), "hashing weights");
  EXPECT_EQ(last.done, last.total);
  EXPECT_EQ(last.total, std::filesystem::file_size(folder.File("model.safetensors")));
}

TEST(LoadMemoryTest, AModelThatDoesNotFitIsRefusedWithBothFiguresAndAdvice) {
  const ModelFolder folder("mamba2");
  LoadOptions options;
  options.memory_limit = 1000;
  const absl::Status status = Model::Load(folder.path(), options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("the weights need "), HasSubstr("(1000 bytes)"),
                    HasSubstr("--dtype bfloat16")));
}

TEST(LoadMemoryTest, TheEstimateIsWhatTheModelTakes) {
  for (const bool tied : {true, false}) {
    for (const kernels::DType dtype : {kernels::DType::kFloat32, kernels::DType::kBFloat16}) {
      ModelFolder folder("mamba2");
      folder.config["tie_word_embeddings"] = tied;
      folder.Save();
      LoadOptions options;
      options.dtype = dtype;
      const auto model = Model::Load(folder.path(), options);
      ASSERT_TRUE(model.ok()) << model.status();
      options.memory_limit = (*model)->weight_bytes();
      EXPECT_TRUE(Model::Load(folder.path(), options).ok());
      options.memory_limit = (*model)->weight_bytes() * 95 / 100;
      EXPECT_EQ(Model::Load(folder.path(), options).status().code(),
                absl::StatusCode::kResourceExhausted);
    }
  }
}

TEST(LoadMemoryTest, AnEmbeddingIsKeptOnceWhetherTiedOrNot) {
  ModelFolder folder("mamba2");
  const auto untied = Model::Load(folder.path(), {});
  folder.config["tie_word_embeddings"] = true;
  folder.weights.tensors.erase("lm_head.weight");
  folder.Save();
  const auto tied = Model::Load(folder.path(), {});
  ASSERT_TRUE(tied.ok() && untied.ok()) << tied.status();
  // Only the head is packed; the embedding is used where it lies in the file.
  EXPECT_EQ((*tied)->weight_bytes(), (*untied)->weight_bytes());
}

TEST(LoadMemoryTest, AFileThatIsWrittenToWhileItIsReadIsRefused) {
  const ModelFolder folder("mamba2");
  const std::string path = folder.File("model.safetensors");
  for (const bool truncate : {false, true}) {
    LoadOptions options;
    options.progress = [&](const LoadProgress& progress) {
      if (progress.done < progress.total) return;
      if (truncate) {
        std::filesystem::resize_file(path, 100);
      } else {
        std::filesystem::last_write_time(
            path, std::filesystem::file_time_type::clock::now() + std::chrono::hours(1));
      }
    };
    const absl::Status status = Model::Load(folder.path(), options).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("changed while it was read"));
  }
}

class FakeSystem {
 public:
  FakeSystem()
      : root_(std::filesystem::temp_directory_path() /
              ("anabranch-memory-" + std::to_string(getpid()))) {
    Write("/proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:    4000 kB\n");
  }
  ~FakeSystem() { std::filesystem::remove_all(root_); }
  void Write(const std::string& path, const std::string& text) const {
    const std::string full = root_.string() + path;
    std::filesystem::create_directories(std::filesystem::path(full).parent_path());
    WriteFile(full, text);
  }
  std::string Available() const {
    const auto budget = AvailableMemory(root_.string());
    if (!budget.ok()) return budget.status().ToString();
    return std::to_string(budget->available) + " of " + budget->limited_by;
  }

 private:
  const std::filesystem::path root_;
};

TEST(AvailableMemoryTest, IsTheLeastOfMachineAndControlGroups) {
  const FakeSystem system;
  EXPECT_EQ(system.Available(), "4096000 of the machine");
  system.Write("/proc/self/cgroup", "0::/a/b\n");
  EXPECT_EQ(system.Available(), "4096000 of the machine");
  system.Write("/sys/fs/cgroup/a/b/memory.max", "max\n");
  system.Write("/sys/fs/cgroup/a/b/memory.current", "5000\n");
  EXPECT_EQ(system.Available(), "4096000 of the machine");
  system.Write("/sys/fs/cgroup/a/memory.max", "10000\n");
  system.Write("/sys/fs/cgroup/a/memory.current", "8000\n");
  EXPECT_EQ(system.Available(), "2000 of the control group");
  system.Write("/sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file 3000\n");
  EXPECT_EQ(system.Available(), "5000 of the control group");
  system.Write("/sys/fs/cgroup/memory.max", "100\n");  // of the container itself
  system.Write("/sys/fs/cgroup/memory.current", "200\n");
  EXPECT_EQ(system.Available(), "0 of the control group");
}

TEST(AvailableMemoryTest, KnowsTheFirstVersionOfControlGroups) {
  const FakeSystem system;
  system.Write("/proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/x\n0::/\n");
  system.Write("/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "9000\n");
  system.Write("/sys/fs/cgroup/memory/x/memory.usage_in_bytes", "7000\n");
  EXPECT_EQ(system.Available(), "2000 of the control group");
}

// Rows of 70 columns, so that blocks and panels do not end together, in several parts.
TEST(PackRowsTest, GivesWhatPackingTheWholeMatrixGives) {
  constexpr int64_t kColumns = 70, kRows = 40'000;
  std::vector<float> values(kRows * kColumns);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 977) / 16;
  const TensorView tensor{TensorDType::kF32,
                          {kRows, kColumns},
                          {reinterpret_cast<const uint8_t*>(values.data()), values.size() * 4}};
  std::vector<float> expected(kernels::PackedBytes(kernels::DType::kFloat32, kRows, kColumns) / 4);
  kernels::PackMatrix(kernels::DType::kFloat32, values.data(), kRows, kColumns, expected.data());
  std::vector<float> packed(expected.size());
  int64_t bytes = 0;
  const StoredRows parts[] = {{"w", &tensor, 0, 1, 17}, {"w", &tensor, 17, 1, kRows - 17}};
  ASSERT_TRUE(PackRows(
                  parts, kColumns, kernels::DType::kFloat32, MatrixLayout::kPanels,
                  [&](int64_t more) { bytes += more; }, packed.data())
                  .ok());
  EXPECT_EQ(packed, expected);
  EXPECT_EQ(bytes, kRows * kColumns * 4);
}

}  // namespace
}  // namespace anabranch
