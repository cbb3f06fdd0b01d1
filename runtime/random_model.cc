#include "runtime/random_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/float_convert.h"
#include "runtime/model_config.h"
#include "runtime/weights.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

// Tensors begin at different multiples of this: views of the same bytes would count as one tensor.
constexpr int64_t kStagger = 64;
// Random numbers before they repeat. Odd, so that no two rows of a matrix are equal.
constexpr int64_t kPeriod = (int64_t{1} << 22) - 3;

struct Range {
  float low = 0, high = 0;
  bool operator<(const Range& other) const {
    return std::make_pair(low, high) < std::make_pair(other.low, other.high);
  }
};

Range RangeOf(const ExpectedTensor& tensor) {
  const std::string& name = tensor.name;
  if (absl::EndsWith(name, "A_log")) return {0, 2.7f};  // A from -1 to -15
  // The inverse of softplus from 0.001 to 0.1.
  if (absl::EndsWith(name, "dt_bias") || absl::EndsWith(name, "dt_proj.bias"))
    return {-6.9f, -2.3f};
  if (tensor.shape.size() == 1 && !absl::EndsWith(name, "bias")) return {0.9f, 1.1f};
  if (absl::StrContains(name, "conv1d")) return {-0.5f, 0.5f};
  return {-0.035f, 0.035f};  // a standard deviation of 0.02
}

int64_t ElementsOf(const ExpectedTensor& tensor) {
  int64_t elements = 1;
  for (const int64_t dim : tensor.shape) elements *= dim;
  return elements;
}

// Random numbers in a range as bytes of the dtype.
class Block {
 public:
  Block(Range range, TensorDType dtype, int64_t elements)
      : element_(TensorDTypeBytes(dtype)), bytes_(elements * element_) {
    const int64_t drawn = std::min(kPeriod, elements);
    std::vector<float> values(drawn);
    uint64_t x = 88172645463325252u;
    for (float& value : values) {
      x ^= x << 13, x ^= x >> 7, x ^= x << 17;
      const float unit = static_cast<float>(x >> 40) / static_cast<float>(1 << 24);
      value = range.low + (range.high - range.low) * unit;
    }
    if (dtype == TensorDType::kBF16) {
      ToBFloat16(values.data(), drawn, reinterpret_cast<uint16_t*>(bytes_.data()));
    } else {
      std::memcpy(bytes_.data(), values.data(), drawn * element_);
    }
    for (int64_t done = drawn; done < elements; done += drawn) {
      std::memcpy(bytes_.data() + done * element_, bytes_.data(),
                  std::min(drawn, elements - done) * element_);
    }
  }
  absl::Span<const uint8_t> At(int64_t first, int64_t count) const {
    return absl::MakeConstSpan(bytes_).subspan(first * element_, count * element_);
  }

 private:
  const size_t element_;
  std::vector<uint8_t> bytes_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> MakeRandomModel(absl::string_view config,
                                                       const LoadOptions& options) {
  ANABRANCH_ASSIGN_OR_RETURN(ModelDescription description, ParseModelConfig(config, ""));
  const std::vector<ExpectedTensor> expected = ExpectedTensors(description);
  const TensorDType dtype =
      options.dtype == kernels::DType::kFloat32 ? TensorDType::kF32 : TensorDType::kBF16;
  std::map<Range, int64_t> largest;
  for (const ExpectedTensor& tensor : expected) {
    int64_t& elements = largest[RangeOf(tensor)];
    elements = std::max(elements, ElementsOf(tensor));
  }
  auto blocks = std::make_shared<std::map<Range, Block>>();
  const int64_t spare = kStagger * static_cast<int64_t>(expected.size());
  for (const auto& [range, elements] : largest) {
    blocks->try_emplace(range, range, dtype, elements + spare);
  }
  TensorMap tensors;
  for (size_t i = 0; i < expected.size(); ++i) {
    const ExpectedTensor& tensor = expected[i];
    const Block& block = blocks->at(RangeOf(tensor));
    tensors[tensor.name] = {dtype, tensor.shape,
                            block.At(kStagger * static_cast<int64_t>(i), ElementsOf(tensor))};
  }
  return Model::FromTensors(std::move(description),
                            TensorFile::InMemory(std::move(tensors), blocks), options,
                            absl::StrCat("random weights of ", config));
}

}  // namespace anabranch
