// Codecs at the speed of memory: encoding reads 4 bytes a value and writes 2 or 1; 168 MB take 60
// or 50 us, against 3 ms of the same floats over PCIe. 16 bits: a warp a group, everything in
// registers. 8 bits: a block a matrix (a head of Mamba-2, 32 KB), read twice more from the cache
// for the scales that the codes need first.
//
// Bit equality with the CPU asks for its very operations: products and quotients in float32, each
// rounded; codes to the nearest, ties to even; the smallest scale at or above by adding to the
// bits. Nothing is contracted here, because no product is added to anything.
#include <algorithm>
#include <cfloat>

#include "kernels/cuda/device.h"
#include "kernels/cuda/state_codec.h"

namespace anabranch::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kTableSize = 64;
constexpr int kEach = static_cast<int>(kCodeGroup) / kWarp;  // values of a lane in a group
constexpr int32_t kMaxCode16 = 32767, kMaxCode8 = 127;
constexpr int kScaleBits16 = 9, kScaleBits8 = 8;
constexpr int kLowestPower = -64;

struct Table {
  CodedTensor of[kTableSize];
};

// runtime/quantize.h's ScaleAbove.
__device__ inline float ScaleAbove(float value, int bits) {
  uint32_t raw = __float_as_uint(fmaxf(value, FLT_MIN));
  const uint32_t dropped = (uint32_t{1} << (24 - bits)) - 1;
  raw = (raw + dropped) & ~dropped;
  return __uint_as_float(raw);
}
__device__ inline float ScaleFor16(float max) {
  return ScaleAbove(__fdiv_rn(max, static_cast<float>(kMaxCode16)), kScaleBits16);
}
__device__ inline float ScaleFor8(float max) {
  return ScaleAbove(__fdiv_rn(max, static_cast<float>(kMaxCode8)), kScaleBits8);
}

// As bits, so that a NaN counts as larger than everything.
__device__ inline uint32_t WarpMaxBits(uint32_t v) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    v = max(v, __shfl_xor_sync(kAllLanes, v, step));
  }
  return v;
}

__device__ inline void Refuse(int32_t* refused, float max, float headroom) {
  if (!isfinite(headroom * max)) *refused = 1;
}

__global__ void ClearRefused(int32_t* refused, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) refused[i] = 0;
}

// Blocks: (groups of warps, 1, tensors).
__global__ void __launch_bounds__(kThreads)
    EncodeNearKernel(const __grid_constant__ Table table, int32_t* refused) {
  const CodedTensor& t = table.of[blockIdx.z];
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t groups = CeilDiv(t.count, kCodeGroup);
  auto* scales = static_cast<float*>(t.encoded);
  auto* codes = reinterpret_cast<int16_t*>(scales + groups);
  const int64_t step = static_cast<int64_t>(gridDim.x) * kWarps;
  for (int64_t g = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp; g < groups;
       g += step) {
    float v[kEach];
    uint32_t bits = 0;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int64_t at = g * kCodeGroup + i * kWarp + lane;
      v[i] = at < t.count ? t.values[at] : 0;
      bits = max(bits, __float_as_uint(fabsf(v[i])));
    }
    const float most = __uint_as_float(WarpMaxBits(bits));
    const float scale = ScaleFor16(most), inverse = __frcp_rn(scale);
    // The largest code is raised where the same scale would not follow from it again.
    const float largest = rintf(__fdiv_rn(most, scale));
    const bool raise = ScaleFor16(largest * scale) != scale;
    const int32_t raised =
        min(kMaxCode16, __double2int_ru(__ddiv_rn(static_cast<double>(most), scale)));
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int64_t at = g * kCodeGroup + i * kWarp + lane;
      const float limited = fmaxf(fminf(v[i] * inverse, kMaxCode16), -kMaxCode16);
      int32_t code = __float2int_rn(limited);
      if (raise && fabsf(v[i]) == most) code = v[i] < 0 ? -raised : raised;
      if (at < t.count) codes[at] = static_cast<int16_t>(code);
    }
    if (lane == 0) {
      scales[g] = scale;
      Refuse(refused + blockIdx.z, most, 2);
    }
  }
}

__global__ void __launch_bounds__(kThreads) DecodeNearKernel(const __grid_constant__ Table table) {
  const CodedTensor& t = table.of[blockIdx.z];
  const auto* scales = static_cast<const float*>(t.encoded);
  const auto* codes = reinterpret_cast<const int16_t*>(scales + CeilDiv(t.count, kCodeGroup));
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
#pragma unroll 4
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < t.count;
       i += step) {
    t.values[i] = static_cast<float>(codes[i]) * scales[i / kCodeGroup];
  }
}

// Where the parts of an 8-bit tensor lie.
struct Sections {
  int8_t* exponents;
  char* scales;  // two bytes each, anywhere
  int8_t* codes;
};
__device__ inline Sections SectionsOf(const CodedTensor& t) {
  const int64_t all = t.count / t.cols, matrices = CeilDiv(all, t.rows);
  auto* at = static_cast<int8_t*>(t.encoded);
  return {at, reinterpret_cast<char*>(at + matrices * t.cols), at + matrices * t.cols + all * 2};
}

// The power of two at or above what a column gets to where its rows' largest is 1.
__device__ inline int ColumnExponent(float largest) {
  int exponent = 0;
  if (largest > 0 && frexpf(largest, &exponent) == 0.5f) --exponent;
  return min(max(exponent, kLowestPower), 0);
}

// Exact for exponents from -64 to 64.
__device__ inline float PowerOfTwo(int exponent) {
  return __uint_as_float(static_cast<uint32_t>(exponent + 127) << 23);
}

// A block a matrix. Blocks: (matrices, 1, tensors).
__global__ void __launch_bounds__(kThreads)
    EncodeCompactKernel(const __grid_constant__ Table table, int32_t* refused) {
  __shared__ uint32_t largest[kMaxCodedColumns];  // of a column, as bits; then its inverse factor
  const CodedTensor& t = table.of[blockIdx.z];
  const int64_t all = t.count / t.cols;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * t.rows;
  if (first >= all) return;
  const int64_t last = min(first + t.rows, all);
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const Sections out = SectionsOf(t);
  const auto cols = static_cast<int>(t.cols);
  for (int c = static_cast<int>(threadIdx.x); c < cols; c += kThreads) largest[c] = 0;
  __syncthreads();
  for (int64_t r = first + warp; r < last; r += kWarps) {
    const float* row = t.values + r * t.cols;
    uint32_t bits = 0;
    for (int c = lane; c < cols; c += kWarp) bits = max(bits, __float_as_uint(fabsf(row[c])));
    const float most = __uint_as_float(WarpMaxBits(bits));
    if (lane == 0) Refuse(refused + blockIdx.z, most, 512);
    if (!(most >= FLT_MIN)) continue;
    const float factor = __frcp_rn(most);
    for (int c = lane; c < cols; c += kWarp) {
      // Of numbers that are not negative the bits compare as the numbers do.
      atomicMax(&largest[c], __float_as_uint(fabsf(row[c]) * factor));
    }
  }
  __syncthreads();
  for (int c = static_cast<int>(threadIdx.x); c < cols; c += kThreads) {
    const int exponent = ColumnExponent(__uint_as_float(largest[c]));
    out.exponents[blockIdx.x * t.cols + c] = static_cast<int8_t>(exponent);
    largest[c] = __float_as_uint(PowerOfTwo(-exponent));
  }
  __syncthreads();
  for (int64_t r = first + warp; r < last; r += kWarps) {
    const float* row = t.values + r * t.cols;
    uint32_t bits = 0;
    for (int c = lane; c < cols; c += kWarp) {
      bits = max(bits, __float_as_uint(fabsf(row[c]) * __uint_as_float(largest[c])));
    }
    const float scale = ScaleFor8(__uint_as_float(WarpMaxBits(bits)));
    const float inverse = __frcp_rn(scale);
    if (lane < 2) {
      out.scales[r * 2 + lane] = static_cast<char>(__float_as_uint(scale) >> (16 + 8 * lane));
    }
    for (int c = lane; c < cols; c += kWarp) {
      const float scaled = row[c] * __uint_as_float(largest[c]) * inverse;
      const float limited = fmaxf(fminf(scaled, kMaxCode8), -kMaxCode8);
      out.codes[r * t.cols + c] = static_cast<int8_t>(__float2int_rn(limited));
    }
  }
}

// Blocks: (groups of rows, 1, tensors), a warp a row.
__global__ void __launch_bounds__(kThreads)
    DecodeCompactKernel(const __grid_constant__ Table table) {
  const CodedTensor& t = table.of[blockIdx.z];
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t all = t.count / t.cols;
  const Sections in = SectionsOf(t);
  const int64_t step = static_cast<int64_t>(gridDim.x) * kWarps;
  for (int64_t r = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp; r < all;
       r += step) {
    const int8_t* exponents = in.exponents + r / t.rows * t.cols;
    const uint32_t low = static_cast<uint8_t>(in.scales[r * 2]);
    const uint32_t high = static_cast<uint8_t>(in.scales[r * 2 + 1]);
    const float scale = __uint_as_float((high << 24) | (low << 16));
    for (int64_t c = lane; c < t.cols; c += kWarp) {
      const float step_size = scale * PowerOfTwo(exponents[c]);
      t.values[r * t.cols + c] = static_cast<float>(in.codes[r * t.cols + c]) * step_size;
    }
  }
}

absl::Status Check(const CodeTensorsParams& p, bool compact, bool encode, const Launch& launch) {
  const char* const kernel = compact ? "state codec, 8 bits" : "state codec, 16 bits";
  if (absl::Status s = CheckLaunch(launch, false, kernel); !s.ok()) return s;
  if (encode && p.refused == nullptr) return Require(false, kernel, "nowhere to put refusals");
  for (const CodedTensor& t : p.tensors) {
    const bool ok = t.count >= 0 && (t.count == 0 || (t.values != nullptr && t.encoded != nullptr));
    if (!ok) return Require(false, kernel, "negative size or missing array");
    if (reinterpret_cast<uintptr_t>(t.encoded) % 4 != 0) {
      return Require(false, kernel, "the encoded bytes are not aligned to 4");
    }
    if (compact &&
        !(t.rows > 0 && t.cols > 0 && t.cols <= kMaxCodedColumns && t.count % t.cols == 0)) {
      return Require(false, kernel, "matrices that do not fit, or of more than 2,048 columns");
    }
  }
  return absl::OkStatus();
}

// Calls start(table, grid, first) for every kTableSize tensors; `blocks` of a tensor alone.
template <class Blocks, class StartKernel>
absl::Status ForTensors(const CodeTensorsParams& p, const Blocks& blocks,
                        const StartKernel& start) {
  for (size_t first = 0; first < p.tensors.size(); first += kTableSize) {
    Table table = {};
    const size_t count = std::min<size_t>(kTableSize, p.tensors.size() - first);
    int64_t most = 0;
    for (size_t i = 0; i < count; ++i) {
      table.of[i] = p.tensors[first + i];
      if (table.of[i].count > 0) most = std::max<int64_t>(most, blocks(table.of[i]));
      // So that a kernel may divide by it.
      table.of[i].cols = std::max<int64_t>(table.of[i].cols, 1);
    }
    if (most > 0) {
      start(table, dim3(static_cast<unsigned>(most), 1, static_cast<unsigned>(count)), first);
    }
  }
  return LaunchStatus("state codec");
}

void Clear(const CodeTensorsParams& p, cudaStream_t stream) {
  const auto count = static_cast<int64_t>(p.tensors.size());
  if (count == 0) return;
  ClearRefused<<<static_cast<unsigned>(CeilDiv(count, kThreads)), kThreads, 0, stream>>>(p.refused,
                                                                                         count);
}

int64_t NearBlocks(const CodedTensor& t) { return CeilDiv(t.count, kCodeGroup * kWarps * 2); }

}  // namespace

absl::Status EncodeNear(const CodeTensorsParams& p, const Launch& launch) {
  if (absl::Status s = Check(p, false, true, launch); !s.ok()) return s;
  const cudaStream_t stream = launch.cuda->stream();
  Clear(p, stream);
  return ForTensors(p, NearBlocks, [&](const Table& table, dim3 grid, size_t first) {
    EncodeNearKernel<<<grid, kThreads, 0, stream>>>(table, p.refused + first);
  });
}

absl::Status DecodeNear(const CodeTensorsParams& p, const Launch& launch) {
  if (absl::Status s = Check(p, false, false, launch); !s.ok()) return s;
  return ForTensors(p, NearBlocks, [&](const Table& table, dim3 grid, size_t) {
    DecodeNearKernel<<<grid, kThreads, 0, launch.cuda->stream()>>>(table);
  });
}

absl::Status EncodeCompact(const CodeTensorsParams& p, const Launch& launch) {
  if (absl::Status s = Check(p, true, true, launch); !s.ok()) return s;
  const cudaStream_t stream = launch.cuda->stream();
  Clear(p, stream);
  const auto matrices = [](const CodedTensor& t) { return CeilDiv(t.count / t.cols, t.rows); };
  return ForTensors(p, matrices, [&](const Table& table, dim3 grid, size_t first) {
    EncodeCompactKernel<<<grid, kThreads, 0, stream>>>(table, p.refused + first);
  });
}

absl::Status DecodeCompact(const CodeTensorsParams& p, const Launch& launch) {
  if (absl::Status s = Check(p, true, false, launch); !s.ok()) return s;
  const auto blocks = [](const CodedTensor& t) { return CeilDiv(t.count / t.cols, kWarps * 2); };
  return ForTensors(p, blocks, [&](const Table& table, dim3 grid, size_t) {
    DecodeCompactKernel<<<grid, kThreads, 0, launch.cuda->stream()>>>(table);
  });
}

}  // namespace anabranch::kernels::cuda
