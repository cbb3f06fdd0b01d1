// Memory of a step: when a device is asked for some, which stops it, and that nothing is handed out
// twice.
#include "gtest/gtest.h"
#include "runtime/tensor_memory.h"
#include "tests/runtime/hooked_device.h"

namespace anabranch {
namespace {

// Counts what is taken, and has so many bytes.
class SmallDevice : public testing::HookedDevice {
 public:
  explicit SmallDevice(size_t bytes) : left_(std::make_shared<size_t>(bytes)) {}

  absl::StatusOr<Buffer> Allocate(size_t bytes) override {
    ++taken_;
    if (bytes > *left_) return absl::ResourceExhaustedError("the device is full");
    auto inner = HookedDevice::Allocate(bytes);
    if (!inner.ok()) return inner;
    *left_ -= bytes;
    const auto give_back = [held = *inner, left = left_, bytes](void*) { *left += bytes; };
    return Buffer(std::shared_ptr<void>(inner->data(), give_back), inner->data(), bytes);
  }
  int taken() const { return taken_; }
  size_t left() const { return *left_; }

 private:
  int taken_ = 0;
  std::shared_ptr<size_t> left_;
};

constexpr int64_t kFloats = 1024;  // 4 KiB

// What a layer needs, one after the other.
void RunLayer(Workspace& workspace, const std::vector<int64_t>& sizes) {
  const size_t mark = workspace.mark();
  std::vector<float*> taken;
  for (const int64_t size : sizes) {
    const auto floats = workspace.TakeFloats(size);
    ASSERT_TRUE(floats.ok()) << floats.status();
    for (size_t i = 0; i < taken.size(); ++i) {
      EXPECT_TRUE(*floats + size <= taken[i] || taken[i] + sizes[i] <= *floats)
          << "what is in use was handed out again";
    }
    taken.push_back(*floats);
  }
  workspace.Rewind(mark);
}

TEST(WorkspaceTest, TheLayersOfAFirstStepShareWhatTheyTakeFromTheDevice) {
  const auto device = std::make_shared<SmallDevice>(size_t{1} << 30);
  Workspace workspace(device, kernels::DType::kFloat32);
  ASSERT_TRUE(workspace.Reset().ok());
  ASSERT_TRUE(workspace.TakeFloats(kFloats).ok()) << "the residual, for the whole step";
  for (int layer = 0; layer < 64; ++layer) RunLayer(workspace, {kFloats, 3 * kFloats, kFloats});
  EXPECT_EQ(device->taken(), 1 + 3);
  RunLayer(workspace, {2 * kFloats});
  EXPECT_EQ(device->taken(), 1 + 3) << "a larger one does";

  ASSERT_TRUE(workspace.Reset().value()) << "one block for the next step";
  const int taken = device->taken();
  ASSERT_TRUE(workspace.TakeFloats(kFloats).ok());
  for (int layer = 0; layer < 64; ++layer) RunLayer(workspace, {kFloats, 3 * kFloats, kFloats});
  EXPECT_EQ(device->taken(), taken);
  EXPECT_FALSE(workspace.Reset().value());
}

TEST(WorkspaceTest, WithoutMemoryWhatIsSpareGoesFirst) {
  const auto device = std::make_shared<SmallDevice>(10 * kFloats * sizeof(float));
  Workspace workspace(device, kernels::DType::kFloat32);
  RunLayer(workspace, {4 * kFloats, 3 * kFloats});
  RunLayer(workspace, {9 * kFloats});
  EXPECT_EQ(workspace.TakeFloats(11 * kFloats).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(device->left(), 10 * kFloats * sizeof(float)) << "nothing is kept";
}

}  // namespace
}  // namespace anabranch
