// Codes from the device against the codecs' definition (docs/STATE_FORMAT.md), bit for bit.
#include <algorithm>

#include "kernels/cuda/state_codec.h"
#include "tests/kernels/cuda/cuda_testing.h"

namespace anabranch::kernels::cuda {
namespace {

using namespace kernels::testing;  // NOLINT: the helpers of this folder
using Bytes = std::vector<char>;

// The smallest float of at most `bits` significant bits at or above `value`.
float ScaleAbove(float value, int bits) {
  value = std::max(value, std::numeric_limits<float>::min());
  int exponent = 0;
  const double unit = std::ldexp(1.0, bits);
  const double fraction = std::frexp(static_cast<double>(value), &exponent);
  return static_cast<float>(std::ldexp(std::ceil(fraction * unit) / unit, exponent));
}

template <class T>
void Append(Bytes& bytes, T value) {
  const char* from = reinterpret_cast<const char*>(&value);
  bytes.insert(bytes.end(), from, from + sizeof(T));
}

int Code(float scaled, int most) {
  return static_cast<int>(std::nearbyint(
      std::max(std::min(scaled, static_cast<float>(most)), -static_cast<float>(most))));
}

Bytes Near(const Floats& values) {
  Bytes scales, codes;
  for (size_t first = 0; first < values.size(); first += 128) {
    const size_t last = std::min(values.size(), first + 128);
    float most = 0;
    for (size_t i = first; i < last; ++i) most = std::max(most, std::abs(values[i]));
    const float scale = ScaleAbove(most / 32767, 9);
    Append(scales, scale);
    const float largest = std::nearbyint(most / scale);
    const bool raise = ScaleAbove(largest * scale / 32767, 9) != scale;
    const int raised = std::min(32767, static_cast<int>(std::ceil(double{most} / double{scale})));
    for (size_t i = first; i < last; ++i) {
      int code = Code(values[i] * (1 / scale), 32767);
      if (raise && std::abs(values[i]) == most) code = values[i] < 0 ? -raised : raised;
      Append(codes, static_cast<int16_t>(code));
    }
  }
  scales.insert(scales.end(), codes.begin(), codes.end());
  return scales;
}

Bytes Compact(const Floats& values, size_t rows, size_t cols) {
  Bytes exponents, scales, codes;
  const size_t all = values.size() / cols;
  for (size_t first = 0; first < all; first += rows) {
    const size_t last = std::min(all, first + rows);
    Floats largest(cols, 0), inverse;
    for (size_t r = first; r < last; ++r) {
      const float* row = values.data() + r * cols;
      float most = 0;
      for (size_t c = 0; c < cols; ++c) most = std::max(most, std::abs(row[c]));
      if (most < std::numeric_limits<float>::min()) continue;
      const float factor = 1 / most;
      for (size_t c = 0; c < cols; ++c)
        largest[c] = std::max(largest[c], std::abs(row[c]) * factor);
    }
    for (float v : largest) {
      int exponent = v > 0 ? static_cast<int>(std::ceil(std::log2(static_cast<double>(v)))) : 0;
      exponent = std::clamp(exponent, -64, 0);
      Append(exponents, static_cast<int8_t>(exponent));
      inverse.push_back(std::ldexp(1.0f, -exponent));
    }
    for (size_t r = first; r < last; ++r) {
      const float* row = values.data() + r * cols;
      float most = 0;
      for (size_t c = 0; c < cols; ++c) most = std::max(most, std::abs(row[c]) * inverse[c]);
      const float scale = ScaleAbove(most / 127, 8);
      uint32_t bits;
      std::memcpy(&bits, &scale, 4);
      Append(scales, static_cast<uint16_t>(bits >> 16));
      for (size_t c = 0; c < cols; ++c) {
        Append(codes, static_cast<int8_t>(Code(row[c] * inverse[c] * (1 / scale), 127)));
      }
    }
  }
  exponents.insert(exponents.end(), scales.begin(), scales.end());
  exponents.insert(exponents.end(), codes.begin(), codes.end());
  return exponents;
}

// Sizes from tiny to large, zeros, equal magnitudes, subnormal numbers.
Floats Values(int64_t count, int kind, Random& random) {
  Floats values = random.Normals(count);
  for (size_t i = 0; i < values.size(); ++i) {
    if (kind == 1) values[i] *= std::exp2(static_cast<float>(random.Int(-40, 40)));
    if (kind == 2) values[i] = i % 3 == 0 ? 0.0f : values[i] < 0 ? -1.0f : 1.0f;
    if (kind == 3) values[i] *= 1e-39f;
  }
  return values;
}

class StateCodecCudaTest : public CudaKernelTest {
 protected:
  cudaStream_t stream() const { return launch_.cuda->stream(); }
};

// The codes of the largest values of a group may be raised after they were measured.
void ExpectMeasured(const CodeMeasure& measure, const Floats& values, const Floats& decoded) {
  EXPECT_EQ(measure.refused, 0);
  double off = 0, norm = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    off += (double{values[i]} - decoded[i]) * (double{values[i]} - decoded[i]);
    norm += double{values[i]} * values[i];
  }
  if (values.size() < 1000) return;  // few enough for one raised code to matter
  EXPECT_NEAR(measure.norm, norm, 1e-5 * norm + 1e-44);
  EXPECT_NEAR(std::sqrt(measure.off), std::sqrt(off), 0.05 * std::sqrt(off) + 1e-22);
}

TEST_F(StateCodecCudaTest, SixteenBitsAreTheCodecsAndComeBack) {
  Random random(1);
  Memory memory(Memory::Where::kDevice);
  std::vector<CodedTensor> tensors;
  std::vector<Floats> values;
  for (int64_t count : {0, 1, 127, 128, 129, 5000, 100'000}) {
    for (int kind = 0; kind < 4; ++kind) {
      for (int copy = 0; copy < 3; ++copy) {  // more than one table of tensors
        values.push_back(Values(count, kind, random));
        tensors.push_back({memory.Put(values.back()),
                           memory.Put(Bytes(static_cast<size_t>(NearBytes(count)), 0x55)), count});
      }
    }
  }
  CodeTensorsParams p;
  p.tensors = tensors;
  p.measures = memory.Put(std::vector<CodeMeasure>(tensors.size()));
  ASSERT_TRUE(EncodeNear(p, stream()).ok());
  const auto measures = memory.Get(p.measures, tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Bytes want = Near(values[i]);
    ASSERT_EQ(want.size(), static_cast<size_t>(NearBytes(tensors[i].count)));
    ASSERT_EQ(memory.Get(static_cast<char*>(tensors[i].encoded), want.size()), want) << i;
  }
  ASSERT_TRUE(DecodeNear(p, stream()).ok());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Floats got = memory.Get(tensors[i].values, values[i].size());
    const Bytes want = Near(values[i]);
    ExpectMeasured(measures[i], values[i], got);
    for (size_t j = 0; j < got.size(); ++j) {
      float scale;
      int16_t code;
      std::memcpy(&scale, want.data() + j / 128 * 4, 4);
      std::memcpy(&code, want.data() + (got.size() + 127) / 128 * 4 + j * 2, 2);
      ASSERT_EQ(got[j], static_cast<float>(code) * scale);
    }
    EXPECT_EQ(Near(got), want) << "encoding what was decoded changed it";
  }
}

TEST_F(StateCodecCudaTest, EightBitsAreTheCodecsAndComeBack) {
  Random random(2);
  Memory memory(Memory::Where::kDevice);
  std::vector<CodedTensor> tensors;
  std::vector<Floats> values;
  for (const auto& [all, rows, cols] :
       std::vector<std::tuple<int64_t, int64_t, int64_t>>{{1, 1, 1},
                                                          {64, 64, 128},
                                                          {160, 64, 128},
                                                          {640, 64, 128},
                                                          {300, 64, 16},
                                                          {7, 3, 33},
                                                          {5, 64, 2048}}) {
    for (int kind = 0; kind < 4; ++kind) {
      const int64_t count = all * cols;
      values.push_back(Values(count, kind, random));
      const auto bytes = static_cast<size_t>(CompactBytes(count, rows, cols));
      tensors.push_back(
          {memory.Put(values.back()), memory.Put(Bytes(bytes, 0x55)), count, rows, cols});
    }
  }
  CodeTensorsParams p;
  p.tensors = tensors;
  p.measures = memory.Put(std::vector<CodeMeasure>(tensors.size()));
  ASSERT_TRUE(EncodeCompact(p, stream()).ok());
  const auto measures = memory.Get(p.measures, tensors.size());
  std::vector<Bytes> want;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const CodedTensor& t = tensors[i];
    want.push_back(Compact(values[i], static_cast<size_t>(t.rows), static_cast<size_t>(t.cols)));
    ASSERT_EQ(memory.Get(static_cast<char*>(t.encoded), want[i].size()), want[i]) << i;
  }
  ASSERT_TRUE(DecodeCompact(p, stream()).ok());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const CodedTensor& t = tensors[i];
    const auto cols = static_cast<size_t>(t.cols), rows = values[i].size() / cols;
    const Floats got = memory.Get(t.values, values[i].size());
    ExpectMeasured(measures[i], values[i], got);
    const size_t scales = want[i].size() - values[i].size() - 2 * rows;
    for (size_t j = 0; j < got.size(); ++j) {
      const size_t row = j / cols;
      uint16_t half;
      std::memcpy(&half, want[i].data() + scales + 2 * row, 2);
      const uint32_t bits = uint32_t{half} << 16;
      float scale;
      std::memcpy(&scale, &bits, 4);
      const int8_t exponent = want[i][row / static_cast<size_t>(t.rows) * cols + j % cols];
      const int8_t code = want[i][scales + 2 * rows + j];
      ASSERT_EQ(got[j], static_cast<float>(code) * (scale * std::ldexp(1.0f, exponent)));
    }
  }
}

TEST_F(StateCodecCudaTest, SaysWhichTensorsItCannotHold) {
  Random random(3);
  Memory memory(Memory::Where::kDevice);
  std::vector<CodedTensor> tensors;
  for (float odd : {1.0f, std::numeric_limits<float>::infinity(), kPoison, 3e38f, 1e37f}) {
    Floats values = random.Normals(64 * 16);
    values[777] = odd;
    tensors.push_back({memory.Put(values), memory.Put(Bytes(8192)), 64 * 16, 64, 16});
  }
  CodeTensorsParams p;
  p.tensors = tensors;
  p.measures = memory.Put(std::vector<CodeMeasure>(tensors.size()));
  ASSERT_TRUE(EncodeNear(p, stream()).ok());
  const auto refused = [&] {
    std::vector<int32_t> flags;
    for (const CodeMeasure& measure : memory.Get(p.measures, 5)) flags.push_back(measure.refused);
    return flags;
  };
  EXPECT_EQ(refused(), (std::vector<int32_t>{0, 1, 1, 1, 0}));
  p.measures = memory.Put(std::vector<CodeMeasure>(tensors.size()));
  ASSERT_TRUE(EncodeCompact(p, stream()).ok());
  EXPECT_EQ(refused(), (std::vector<int32_t>{0, 1, 1, 1, 1}));
}

// Heads of 64 x 128 have a kernel of their own; beside other tensors the general one takes them.
TEST_F(StateCodecCudaTest, HeadsGiveTheSameCodesInBothKernels) {
  Random random(4);
  Memory memory(Memory::Where::kDevice);
  std::vector<CodedTensor> tensors;
  const Floats values = Values(3 * 64 * 128, 1, random);
  const auto bytes = static_cast<size_t>(CompactBytes(3 * 64 * 128, 64, 128));
  for (int i = 0; i < 2; ++i) {
    tensors.push_back({memory.Put(values), memory.Put(Bytes(bytes, 0x55)), 3 * 64 * 128, 64, 128});
  }
  tensors.push_back({memory.Put(Floats(16, 1)), memory.Put(Bytes(64)), 16, 4, 4});
  CodeTensorsParams p;
  p.measures = memory.Put(std::vector<CodeMeasure>(3));
  p.tensors = absl::MakeConstSpan(tensors).first(1);
  ASSERT_TRUE(EncodeCompact(p, stream()).ok());
  p.tensors = absl::MakeConstSpan(tensors).subspan(1);
  ASSERT_TRUE(EncodeCompact(p, stream()).ok());
  EXPECT_EQ(memory.Get(static_cast<char*>(tensors[0].encoded), bytes),
            memory.Get(static_cast<char*>(tensors[1].encoded), bytes));
}

TEST_F(StateCodecCudaTest, HalvesOfExactBfloat16ComeBackAndOthersAreRefused) {
  Random random(5);
  Memory memory(Memory::Where::kDevice);
  std::vector<CodedTensor> tensors;
  std::vector<Floats> values;
  for (const int64_t count : {1, 255, 5376, 100'000}) {
    values.push_back(random.Normals(count));
    for (float& value : values.back()) {
      uint32_t bits;
      std::memcpy(&bits, &value, 4);
      bits &= 0xFFFF0000u;
      std::memcpy(&value, &bits, 4);
    }
    tensors.push_back({memory.Put(values.back()), memory.Put(Bytes(2 * count, 0x55)), count});
  }
  tensors.push_back({memory.Put(Floats{1, 1 + 1e-6f}), memory.Put(Bytes(4)), 2});
  CodeTensorsParams p;
  p.tensors = tensors;
  p.measures = memory.Put(std::vector<CodeMeasure>(tensors.size()));
  ASSERT_TRUE(EncodeHalves(p, stream()).ok());
  const auto measures = memory.Get(p.measures, tensors.size());
  std::vector<CodedTensor> back;
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(measures[i].refused, 0);
    back.push_back(
        {memory.Put(Floats(values[i].size(), kPoison)), tensors[i].encoded, tensors[i].count});
  }
  EXPECT_EQ(measures.back().refused, 1);
  p.tensors = back;
  ASSERT_TRUE(DecodeHalves(p, stream()).ok());
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(memory.Get(back[i].values, values[i].size()), values[i]);
  }
}

}  // namespace
}  // namespace anabranch::kernels::cuda
