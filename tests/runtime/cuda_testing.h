// A GPU for tests of the runtime, or a visible skip.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "runtime/model.h"
#include "tests/runtime/golden_models.h"

namespace anabranch::testing {

// With ANABRANCH_REQUIRE_CUDA set, a device that cannot be used is a failure: where a GPU is known
// to be, skipping would hide that nothing was tested.
class CudaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto device = Device::Open("cuda", 0);
    if (device.ok()) return;
    ASSERT_EQ(std::getenv("ANABRANCH_REQUIRE_CUDA"), nullptr) << device.status();
    GTEST_SKIP() << device.status();
  }
};

inline LoadOptions CudaOptions(kernels::DType dtype) {
  LoadOptions options;
  options.dtype = dtype;
  options.device = "cuda";
  return options;
}

inline std::string DTypeName(kernels::DType dtype) {
  return dtype == kernels::DType::kFloat32 ? "float32" : "bfloat16";
}

}  // namespace anabranch::testing
