#include "runtime/float_convert.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <string>
#include <vector>

namespace anabranch {
namespace {

TEST(AllFinite, SeesOneBadElementAnywhereAlignedOrNot) {
  for (const TensorDType dtype : {TensorDType::kF32, TensorDType::kBF16}) {
    const size_t element = TensorDTypeBytes(dtype);
    for (const size_t count : {1, 7, 1024, 1025, 3000}) {
      for (const size_t shift : {0, 1}) {
        std::vector<uint8_t> bytes(count * element + shift, 0x41);
        const TensorView view{
            dtype, {}, absl::MakeConstSpan(bytes).subspan(shift, count * element)};
        EXPECT_TRUE(AllFinite(view));
        for (const size_t at : {size_t{0}, count / 2, count - 1}) {
          uint8_t* last = bytes.data() + shift + (at + 1) * element;
          for (const uint8_t sign : {0x7f, 0xff}) {  // infinity, and a negative NaN
            last[-1] = sign;
            last[-2] = 0x80 | (sign & 1);
            EXPECT_FALSE(AllFinite(view)) << count << " " << at;
          }
          last[-1] = last[-2] = 0x41;
        }
        EXPECT_TRUE(AllFinite(view));
      }
    }
  }
}

TEST(AllFinite, TakesTheLargestFiniteValues) {
  const std::vector<float> values(1500, std::numeric_limits<float>::max());
  EXPECT_TRUE(AllFinite(values.data(), 1500));
  std::vector<float> bad = values;
  bad[1499] = -std::numeric_limits<float>::infinity();
  EXPECT_FALSE(AllFinite(bad.data(), 1500));
  EXPECT_TRUE(AllFinite(bad.data(), 1499));
  EXPECT_TRUE(AllFinite(bad.data(), 0));
}

}  // namespace
}  // namespace anabranch
