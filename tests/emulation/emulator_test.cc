// The emulation itself: what kernels rely on of blocks, warps and tensor cores.
#include <vector>

#include "gtest/gtest.h"
#include "tests/emulation/ptx.h"

namespace anabranch::emulation {
namespace {

using kernels::cuda::StartKernel;

cudaLaunchConfig_t Config(dim3 grid, dim3 block) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid, config.blockDim = block;
  return config;
}

void CountThread(uint32_t* out) {
  const uint32_t block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const uint32_t thread = threadIdx.x + blockDim.x * threadIdx.y;
  ++out[block * blockDim.x * blockDim.y + thread];
}

TEST(EmulatorTest, EveryThreadOfEveryBlockRunsOnce) {
  std::vector<uint32_t> count(2 * 3 * 4 * 48);
  StartKernel(Config({2, 3, 4}, {16, 3}), CountThread, count.data());
  for (uint32_t each : count) EXPECT_EQ(each, 1u);
}

void Reverse(int* out, int count) {
  __shared__ int values[128];
  const int i = static_cast<int>(threadIdx.x);
  if (i >= count) return;
  values[i] = i;
  __syncthreads();
  out[i] = values[count - 1 - i];
}

TEST(EmulatorTest, BarriersWaitForTheThreadsThatHaveNotEnded) {
  std::vector<int> out(70);
  StartKernel(Config(2, 128), Reverse, out.data(), 70);
  for (int i = 0; i < 70; ++i) EXPECT_EQ(out[i], 69 - i);
}

constexpr int kShuffles = 6;
void Shuffles(int* out) {
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const int value = 100 * static_cast<int>(threadIdx.x / kLanes) + lane;
  int* mine = out + kShuffles * threadIdx.x;
  mine[0] = __shfl_xor_sync(~0u, value, 5);
  mine[1] = __shfl_up_sync(~0u, value, 3);
  mine[2] = __shfl_down_sync(~0u, value, 3);
  mine[3] = __shfl_sync(~0u, value, 7);
  mine[4] = static_cast<int>(__ballot_sync(~0u, lane % 3 == 0));
  mine[5] = __syncthreads_or(threadIdx.x == 40) + 2 * __syncthreads_and(threadIdx.x != 40);
}

TEST(EmulatorTest, LanesSeeEachOthersValues) {
  std::vector<int> out(64 * kShuffles);
  StartKernel(Config(1, 64), Shuffles, out.data());
  for (int thread = 0; thread < 64; ++thread) {
    const int lane = thread % 32, warp = 100 * (thread / 32);
    const int up = lane < 3 ? lane : lane - 3, down = lane > 28 ? lane : lane + 3;
    const std::vector<int> want = {warp + (lane ^ 5), warp + up,  warp + down,
                                   warp + 7,          0x49249249, 1};
    const auto got = out.begin() + kShuffles * thread;
    EXPECT_EQ(std::vector<int>(got, got + kShuffles), want) << thread;
  }
}

// C [16, 8] = A [16, 16] B [16, 8] by one warp, loaded as the kernels do it.
void Multiply(const __nv_bfloat16* a, const __nv_bfloat16* b, float* c) {
  __shared__ __nv_bfloat16 rows_a[16][24], rows_b[16][24];
  const int lane = Lane();
  for (int i = lane; i < 256; i += kLanes) rows_a[i / 16][i % 16] = a[i];
  for (int i = lane; i < 128; i += kLanes) rows_b[i / 8][i % 8] = b[i];
  __syncwarp();
  uint32_t of_a[4], of_b[4];
  kernels::cuda::LoadMatrices(of_a, &rows_a[lane % 16][lane / 16 * 8]);
  kernels::cuda::LoadMatricesTransposed(of_b, &rows_b[lane % 16][0]);
  float sum[4] = {};
  kernels::cuda::Mma(sum, of_a[0], of_a[1], of_a[2], of_a[3], of_b[0], of_b[1]);
  for (int i = 0; i < 4; ++i) c[(lane / 4 + i / 2 * 8) * 8 + 2 * (lane % 4) + i % 2] = sum[i];
}

TEST(EmulatorTest, TensorCoresMultiply) {
  std::vector<__nv_bfloat16> a, b;
  for (int i = 0; i < 256; ++i) a.push_back(__float2bfloat16_rn(i * 37 % 19 - 9.0f));
  for (int i = 0; i < 128; ++i) b.push_back(__float2bfloat16_rn(i * 53 % 23 - 7.0f));
  std::vector<float> c(128);
  StartKernel(Config(1, kLanes), Multiply, a.data(), b.data(), c.data());
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 8; ++column) {
      float want = 0;
      for (int k = 0; k < 16; ++k) {
        want += __bfloat162float(a[row * 16 + k]) * __bfloat162float(b[k * 8 + column]);
      }
      EXPECT_EQ(c[row * 8 + column], want) << row << ", " << column;
    }
  }
}

TEST(EmulatorTest, AKernelHasToAskForMoreThan48KbOfSharedMemory) {
  cudaLaunchConfig_t config = Config(1, 32);
  config.dynamicSmemBytes = 48 * 1024 + 1;
  std::vector<int> out(32 * kShuffles);
  EXPECT_EQ(StartKernel(config, Shuffles, out.data()), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  const auto* kernel = reinterpret_cast<const void*>(&Shuffles);
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 50 * 1024);
  EXPECT_EQ(StartKernel(config, Shuffles, out.data()), cudaSuccess);
}

void Disagree() { threadIdx.x == 0 ? __syncthreads() : __syncwarp(); }

TEST(EmulatorDeathTest, ThreadsThatWaitForEachOtherAreTold) {
  EXPECT_DEATH(StartKernel(Config(1, 32), Disagree), "wait for each other");
}

}  // namespace
}  // namespace anabranch::emulation
