// Codecs at the speed of memory: encoding reads 4 bytes a value and writes 2 or 1. 16 bits: a warp
// a group, everything in registers. 8 bits: a block a matrix; of 64 x 128 (a head of Mamba-2) the
// threads hold all values, others are read twice more from the cache for the scales that the codes
// need first.
//
// The arithmetic of a value is codec_math.h's. The sums of a measure are added in any order, so
// their last bits may change from run to run.
#include <algorithm>
#include <cfloat>

#include "kernels/cuda/codec_heads.h"
#include "kernels/cuda/codec_math.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/start.h"
#include "kernels/cuda/state_codec.h"

namespace anabranch::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kTableSize = 64;
constexpr int kEach = static_cast<int>(kCodeGroup) / kWarp;  // values of a lane in a group

struct Table {
  CodedTensor of[kTableSize];
};

__device__ inline void Refuse(CodeMeasure* measure, float max, float headroom) {
  if (!isfinite(headroom * max)) measure->refused = 1;
}

// Adds up what the threads of a block measured. All of them call it.
__device__ inline void AddMeasure(CodeMeasure* measure, double off, double norm) {
  __shared__ double sums[2][kWarps];
  off = WarpSum(off);
  norm = WarpSum(norm);
  if (threadIdx.x % kWarp == 0) {
    sums[0][threadIdx.x / kWarp] = off;
    sums[1][threadIdx.x / kWarp] = norm;
  }
  __syncthreads();
  if (threadIdx.x >= 2) return;
  double sum = 0;
  for (int i = 0; i < kWarps; ++i) sum += sums[threadIdx.x][i];
  atomicAdd(threadIdx.x == 0 ? &measure->off : &measure->norm, sum);
}

__device__ inline bool IsAlignedTo(const void* data, int bytes) {
  return reinterpret_cast<uintptr_t>(data) % bytes == 0;
}

// Blocks: (groups of warps, 1, tensors).
__global__ void __launch_bounds__(kThreads)
    EncodeNearKernel(const __grid_constant__ Table table, CodeMeasure* measures) {
  const CodedTensor& t = table.of[blockIdx.z];
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t groups = CeilDiv(t.count, kCodeGroup);
  auto* scales = static_cast<float*>(t.encoded);
  auto* codes = reinterpret_cast<int16_t*>(scales + groups);
  const bool wide = t.count % kCodeGroup == 0 && IsAlignedTo(t.values, 16) && IsAlignedTo(codes, 8);
  const int64_t step = static_cast<int64_t>(gridDim.x) * kWarps;
  double off = 0, norm = 0;
  for (int64_t g = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp; g < groups;
       g += step) {
    float v[kEach];
    if (wide) {
      const float4 four = reinterpret_cast<const float4*>(t.values + g * kCodeGroup)[lane];
      v[0] = four.x, v[1] = four.y, v[2] = four.z, v[3] = four.w;
    } else {
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        const int64_t at = g * kCodeGroup + i * kWarp + lane;
        v[i] = at < t.count ? t.values[at] : 0;
      }
    }
    uint32_t bits = 0;
#pragma unroll
    for (int i = 0; i < kEach; ++i) bits = max(bits, __float_as_uint(fabsf(v[i])));
    const float most = __uint_as_float(WarpMaxBits(bits));
    const float scale = ScaleFor16(most), inverse = __frcp_rn(scale);
    // The largest code is raised where the same scale would not follow from it again.
    const float largest = rintf(__fdiv_rn(most, scale));
    const bool raise = ScaleFor16(largest * scale) != scale;
    const int32_t raised =
        min(kMaxCode16, __double2int_ru(__ddiv_rn(static_cast<double>(most), scale)));
    int16_t code[kEach];
    FewSquares squares;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const float limited = fmaxf(fminf(v[i] * inverse, kMaxCode16), -kMaxCode16);
      int32_t nearest = __float2int_rn(limited);
      squares.Add(v[i], static_cast<float>(nearest) * scale);
      if (raise && fabsf(v[i]) == most) nearest = v[i] < 0 ? -raised : raised;
      code[i] = static_cast<int16_t>(nearest);
    }
    off += squares.off;
    norm += squares.norm;
    if (wide) {
      reinterpret_cast<short4*>(codes + g * kCodeGroup)[lane] =
          make_short4(code[0], code[1], code[2], code[3]);
    } else {
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        const int64_t at = g * kCodeGroup + i * kWarp + lane;
        if (at < t.count) codes[at] = code[i];
      }
    }
    if (lane == 0) {
      scales[g] = scale;
      Refuse(measures + blockIdx.z, most, kHeadroom16);
    }
  }
  AddMeasure(measures + blockIdx.z, off, norm);
}

// The same grid.
__global__ void __launch_bounds__(kThreads) DecodeNearKernel(const __grid_constant__ Table table) {
  const CodedTensor& t = table.of[blockIdx.z];
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t groups = CeilDiv(t.count, kCodeGroup);
  const auto* scales = static_cast<const float*>(t.encoded);
  const auto* codes = reinterpret_cast<const int16_t*>(scales + groups);
  const bool wide = t.count % kCodeGroup == 0 && IsAlignedTo(t.values, 16) && IsAlignedTo(codes, 8);
  const int64_t step = static_cast<int64_t>(gridDim.x) * kWarps;
#pragma unroll 2
  for (int64_t g = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp; g < groups;
       g += step) {
    const float scale = scales[g];
    if (wide) {
      const short4 four = reinterpret_cast<const short4*>(codes + g * kCodeGroup)[lane];
      reinterpret_cast<float4*>(t.values + g * kCodeGroup)[lane] =
          make_float4(static_cast<float>(four.x) * scale, static_cast<float>(four.y) * scale,
                      static_cast<float>(four.z) * scale, static_cast<float>(four.w) * scale);
      continue;
    }
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int64_t at = g * kCodeGroup + i * kWarp + lane;
      if (at < t.count) t.values[at] = static_cast<float>(codes[at]) * scale;
    }
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

// A block a matrix. Blocks: (matrices, 1, tensors).
__global__ void __launch_bounds__(kThreads)
    EncodeCompactKernel(const __grid_constant__ Table table, CodeMeasure* measures) {
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
    if (lane == 0) Refuse(measures + blockIdx.z, most, kHeadroom8);
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
  double off = 0, norm = 0;
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
    FewSquares squares;
    for (int c = lane; c < cols; c += kWarp) {
      const float column = __uint_as_float(largest[c]);
      const int32_t code = CodeOf(row[c] * column * inverse);
      out.codes[r * t.cols + c] = static_cast<int8_t>(code);
      // 1 / column is exact: a power of two.
      squares.Add(row[c], static_cast<float>(code) * (scale * __frcp_rn(column)));
    }
    off += squares.off;
    norm += squares.norm;
  }
  AddMeasure(measures + blockIdx.z, off, norm);
}

// The same of heads alone (codec_heads.h): what the general kernel reads three times is read once.
__global__ void __launch_bounds__(kThreads)
    EncodeHeadsKernel(const __grid_constant__ Table table, CodeMeasure* measures) {
  static_assert(kThreads == kHeadThreads);
  __shared__ HeadShared shared;
  const CodedTensor& t = table.of[blockIdx.z];
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kHeadRows;
  if (first * kHeadColumns >= t.count) return;
  const Sections out = SectionsOf(t);
  const HeadMeasure measure = EncodeHead(t.values + first * kHeadColumns,
                                         {out.exponents + int64_t{blockIdx.x} * kHeadColumns,
                                          out.scales + first * 2, out.codes + first * kHeadColumns},
                                         shared);
  if (measure.refused) measures[blockIdx.z].refused = 1;
  AddMeasure(measures + blockIdx.z, measure.off, measure.norm);
}

// Blocks: (groups of rows, 1, tensors), a warp a row.
__global__ void __launch_bounds__(kThreads)
    DecodeCompactKernel(const __grid_constant__ Table table) {
  const CodedTensor& t = table.of[blockIdx.z];
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t all = t.count / t.cols;
  const Sections in = SectionsOf(t);
  const bool wide = t.cols % 4 == 0 && IsAlignedTo(t.values, 16) && IsAlignedTo(in.codes, 4) &&
                    IsAlignedTo(in.exponents, 4);
  const int64_t step = static_cast<int64_t>(gridDim.x) * kWarps;
  for (int64_t r = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp; r < all;
       r += step) {
    const int8_t* exponents = in.exponents + r / t.rows * t.cols;
    const uint32_t low = static_cast<uint8_t>(in.scales[r * 2]);
    const uint32_t high = static_cast<uint8_t>(in.scales[r * 2 + 1]);
    const float scale = __uint_as_float((high << 24) | (low << 16));
    if (wide) {
      for (int64_t c = lane * 4; c < t.cols; c += kWarp * 4) {
        const char4 code = *reinterpret_cast<const char4*>(in.codes + r * t.cols + c);
        const char4 power = *reinterpret_cast<const char4*>(exponents + c);
        *reinterpret_cast<float4*>(t.values + r * t.cols + c) =
            make_float4(static_cast<float>(code.x) * (scale * PowerOfTwo(power.x)),
                        static_cast<float>(code.y) * (scale * PowerOfTwo(power.y)),
                        static_cast<float>(code.z) * (scale * PowerOfTwo(power.z)),
                        static_cast<float>(code.w) * (scale * PowerOfTwo(power.w)));
      }
      continue;
    }
    for (int64_t c = lane; c < t.cols; c += kWarp) {
      const float step_size = scale * PowerOfTwo(exponents[c]);
      t.values[r * t.cols + c] = static_cast<float>(in.codes[r * t.cols + c]) * step_size;
    }
  }
}

// Blocks: (elements, 1, tensors).
__global__ void __launch_bounds__(kThreads)
    EncodeHalvesKernel(const __grid_constant__ Table table, CodeMeasure* measures) {
  const CodedTensor& t = table.of[blockIdx.z];
  auto* halves = static_cast<uint16_t*>(t.encoded);
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  uint32_t lost = 0;
#pragma unroll 4
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < t.count;
       i += step) {
    const uint32_t bits = __float_as_uint(t.values[i]);
    lost |= bits & 0xFFFFu;
    halves[i] = static_cast<uint16_t>(bits >> 16);
  }
  if (lost != 0) measures[blockIdx.z].refused = 1;
}

// Blocks: (elements, 1, tensors).
__global__ void __launch_bounds__(kThreads)
    DecodeHalvesKernel(const __grid_constant__ Table table) {
  const CodedTensor& t = table.of[blockIdx.z];
  const auto* halves = static_cast<const uint16_t*>(t.encoded);
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
#pragma unroll 4
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < t.count;
       i += step) {
    t.values[i] = __uint_as_float(uint32_t{halves[i]} << 16);
  }
}

absl::Status Check(const CodeTensorsParams& p, bool compact, bool encode) {
  const char* const kernel = "state codec";
  if (encode && p.measures == nullptr) return Require(false, kernel, "nowhere to put measures");
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

int64_t NearBlocks(const CodedTensor& t) { return CeilDiv(t.count, kCodeGroup * kWarps * 2); }
int64_t HalvesBlocks(const CodedTensor& t) { return CeilDiv(t.count, kThreads * 4); }
int64_t Matrices(const CodedTensor& t) { return CeilDiv(t.count / t.cols, t.rows); }

// What EncodeHeadsKernel takes.
bool IsOfHeads(const CodedTensor& t) {
  return t.rows == kHeadRows && t.cols == kHeadColumns &&
         t.count % (kHeadRows * kHeadColumns) == 0 && IsAligned(t.values) &&
         reinterpret_cast<uintptr_t>(t.encoded) % 4 == 0;
}

}  // namespace

absl::Status EncodeNear(const CodeTensorsParams& p, cudaStream_t stream) {
  if (absl::Status s = Check(p, false, true); !s.ok()) return s;
  return ForTensors(p, NearBlocks, [&](const Table& table, dim3 grid, size_t first) {
    StartOn(stream, EncodeNearKernel, grid, kThreads, 0, table, p.measures + first);
  });
}

absl::Status DecodeNear(const CodeTensorsParams& p, cudaStream_t stream) {
  if (absl::Status s = Check(p, false, false); !s.ok()) return s;
  return ForTensors(p, NearBlocks, [&](const Table& table, dim3 grid, size_t) {
    StartOn(stream, DecodeNearKernel, grid, kThreads, 0, table);
  });
}

absl::Status EncodeCompact(const CodeTensorsParams& p, cudaStream_t stream) {
  if (absl::Status s = Check(p, true, true); !s.ok()) return s;
  const bool heads = std::all_of(p.tensors.begin(), p.tensors.end(), IsOfHeads);
  return ForTensors(p, Matrices, [&](const Table& table, dim3 grid, size_t first) {
    auto* const kernel = heads ? EncodeHeadsKernel : EncodeCompactKernel;
    StartOn(stream, kernel, grid, kThreads, 0, table, p.measures + first);
  });
}

absl::Status DecodeCompact(const CodeTensorsParams& p, cudaStream_t stream) {
  if (absl::Status s = Check(p, true, false); !s.ok()) return s;
  const auto blocks = [](const CodedTensor& t) { return CeilDiv(t.count / t.cols, kWarps * 2); };
  return ForTensors(p, blocks, [&](const Table& table, dim3 grid, size_t) {
    StartOn(stream, DecodeCompactKernel, grid, kThreads, 0, table);
  });
}

absl::Status EncodeHalves(const CodeTensorsParams& p, cudaStream_t stream) {
  if (absl::Status s = Check(p, false, true); !s.ok()) return s;
  return ForTensors(p, HalvesBlocks, [&](const Table& table, dim3 grid, size_t first) {
    StartOn(stream, EncodeHalvesKernel, grid, kThreads, 0, table, p.measures + first);
  });
}

absl::Status DecodeHalves(const CodeTensorsParams& p, cudaStream_t stream) {
  if (absl::Status s = Check(p, false, false); !s.ok()) return s;
  return ForTensors(p, HalvesBlocks, [&](const Table& table, dim3 grid, size_t) {
    StartOn(stream, DecodeHalvesKernel, grid, kThreads, 0, table);
  });
}

}  // namespace anabranch::kernels::cuda
