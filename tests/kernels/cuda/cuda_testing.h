// What the CUDA kernel tests share: a context or a visible skip, and memory for a launch on either
// side, so that one piece of code runs a CPU kernel and its CUDA counterpart on the same inputs.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "kernels/activations.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/cuda_kernels.h"
#include "tests/kernels/kernel_testing.h"

namespace anabranch::kernels::testing {

inline constexpr DType kBothDTypes[] = {DType::kFloat32, DType::kBFloat16};
inline constexpr DType kStateDTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kInt8};

inline uint16_t ToBf16(float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, 4);
  if (std::isnan(v)) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}
inline float FromBf16(uint16_t v) {
  const uint32_t bits = static_cast<uint32_t>(v) << 16;
  float out;
  std::memcpy(&out, &bits, 4);
  return out;
}
// What is left of `values` when they are kept as `dtype`.
inline Floats KeptAs(DType dtype, Floats values) {
  if (dtype == DType::kBFloat16) {
    for (float& v : values) v = FromBf16(ToBf16(v));
  }
  return values;
}
// What storing as `dtype` may change, relative.
inline double UnitOf(DType dtype) { return dtype == DType::kFloat32 ? kUnit : kBf16Unit; }

// Tools that watch every access make kernels a thousand times slower: with ANABRANCH_SMALL_SHAPES
// in the environment tests leave out shapes that only add size.
inline bool SmallShapes() { return std::getenv("ANABRANCH_SMALL_SHAPES") != nullptr; }

class CudaKernelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto context = CudaContext::Create(0);
    if (absl::IsUnavailable(context.status())) GTEST_SKIP() << context.status();
    ASSERT_TRUE(context.ok()) << context.status();
    context_ = std::move(*context);
    launch_.cuda = context_.get();
  }
  std::unique_ptr<CudaContext> context_;
  Launch launch_;
};

// Arrays of one launch, in device or host memory; freed with it. On the host activations are
// float32 whatever was asked for. Reading waits for the device.
class Memory {
 public:
  enum class Where { kHost, kDevice };
  explicit Memory(Where where) : device_(where == Where::kDevice) {}
  ~Memory() {
    for (void* block : blocks_) device_ ? static_cast<void>(cudaFree(block)) : std::free(block);
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  template <class T>
  T* Put(const std::vector<T>& values) {
    T* block = static_cast<T*>(Allocate(values.size() * sizeof(T)));
    Write(block, values.data(), values.size() * sizeof(T));
    return block;
  }
  template <class T>
  std::vector<T> Get(const T* from, size_t count) const {
    std::vector<T> out(count);
    Read(out.data(), from, count * sizeof(T));
    return out;
  }
  Acts PutActs(const Floats& values, DType dtype) {
    if (!device_ || dtype == DType::kFloat32) return Acts(Put(values));
    std::vector<uint16_t> narrow;
    for (float v : values) narrow.push_back(ToBf16(v));
    return {Put(narrow), dtype};
  }
  Floats GetActs(ConstActs from, size_t count) const {
    if (from.dtype == DType::kFloat32) return Get(static_cast<const float*>(from.data), count);
    Floats out;
    for (uint16_t v : Get(static_cast<const uint16_t*>(from.data), count)) {
      out.push_back(FromBf16(v));
    }
    return out;
  }
  // The same on either side.
  Acts PutState(const Floats& values, DType dtype) {
    if (dtype == DType::kFloat32) return Acts(Put(values));
    std::vector<uint16_t> narrow;
    for (float v : values) narrow.push_back(ToBf16(v));
    return {Put(narrow), dtype};
  }
  PackedRows PutRows(const Packing& packing) {
    PackedRows rows = packing.rows();
    rows.row_start = Put(packing.row_start);
    rows.slot = Put(packing.slot);
    return rows;
  }
  // Exact size: a tool that checks accesses sees what lies beyond.
  void* Allocate(size_t bytes) {
    void* block = nullptr;
    if (device_) {
      EXPECT_EQ(cudaMalloc(&block, std::max<size_t>(bytes, 1)), cudaSuccess);
    } else {
      block = std::malloc(std::max<size_t>(bytes, 1));
    }
    blocks_.push_back(block);
    return block;
  }
  void Write(void* to, const void* from, size_t bytes) const {
    Copy(to, from, bytes, cudaMemcpyHostToDevice);
  }
  void Read(void* to, const void* from, size_t bytes) const {
    if (device_) {
      EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    }
    Copy(to, from, bytes, cudaMemcpyDeviceToHost);
  }

 private:
  void Copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) const {
    if (bytes == 0) return;
    if (device_) {
      EXPECT_EQ(cudaMemcpy(to, from, bytes, kind), cudaSuccess);
      // A copy from ordinary memory may still be on its way, and a context's stream does not wait
      // for it: on a busy device kernels would read what was there before.
      EXPECT_EQ(cudaStreamSynchronize(cudaStreamLegacy), cudaSuccess);
    } else {
      std::memcpy(to, from, bytes);
    }
  }
  bool device_;
  std::vector<void*> blocks_;
};

// |got - want| <= tolerance for every element; a NaN is never near.
inline ::testing::AssertionResult AllNear(const Floats& got, const Floats& want,
                                          const std::vector<double>& tolerance) {
  if (got.size() != want.size() || got.size() != tolerance.size()) {
    return ::testing::AssertionFailure() << "sizes differ";
  }
  for (size_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(static_cast<double>(got[i]) - static_cast<double>(want[i]));
    if (!(error <= tolerance[i])) {
      return ::testing::AssertionFailure() << "element " << i << ": " << got[i] << ", expected "
                                           << want[i] << " within " << tolerance[i];
    }
  }
  return ::testing::AssertionSuccess();
}

}  // namespace anabranch::kernels::testing
