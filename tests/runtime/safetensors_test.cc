#include "runtime/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/runtime/model_files.h"

namespace anabranch {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::WithHeader;

absl::StatusOr<TensorMap> Parse(const std::string& file) {
  return ParseSafetensors({reinterpret_cast<const uint8_t*>(file.data()), file.size()});
}

// The message of a file that must be refused as damaged.
std::string Refusal(const std::string& header, const std::string& data) {
  const auto result = Parse(WithHeader(header, data));
  EXPECT_EQ(result.status().code(), absl::StatusCode::kDataLoss) << header;
  return std::string(result.status().message());
}

TEST(Safetensors, ReadsTensorsAndSkipsMetadata) {
  const std::string file = WithHeader(
      R"({"__metadata__": {"format": "pt"},
          "b": {"dtype": "BF16", "shape": [2, 1], "data_offsets": [8, 12]},
          "a": {"dtype": "I32", "shape": [2], "data_offsets": [0, 8]},
          "scalar": {"dtype": "F32", "shape": [], "data_offsets": [12, 16]},
          "empty": {"dtype": "F32", "shape": [0, 5], "data_offsets": [12, 12]}}   )",
      "0123456789abcdef");
  const auto tensors = Parse(file);
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  ASSERT_EQ(tensors->size(), 4);
  const TensorView& b = tensors->at("b");
  EXPECT_EQ(b.dtype, TensorDType::kBF16);
  EXPECT_THAT(b.shape, ElementsAre(2, 1));
  EXPECT_EQ(std::string(b.bytes.begin(), b.bytes.end()), "89ab");
  EXPECT_EQ(tensors->at("scalar").num_elements(), 1);
  EXPECT_EQ(tensors->at("empty").num_elements(), 0);
}

TEST(Safetensors, RefusesHeadersThatDoNotFitTheFile) {
  for (const std::string& file : {std::string(), std::string(7, '\0'), std::string(8, '\xff'),
                                  WithHeader("{}", "").substr(0, 9)}) {
    EXPECT_EQ(Parse(file).status().code(), absl::StatusCode::kDataLoss) << file.size();
  }
  // A header of more than 100 MB is refused even where the file has the bytes.
  const std::string big = WithHeader("{" + std::string(100'000'000, ' ') + "}", "");
  EXPECT_EQ(Parse(big).status().code(), absl::StatusCode::kDataLoss);
}

TEST(Safetensors, RefusesHeadersThatAreNotWellFormed) {
  for (const char* header : {"", "null", "[]", "{", "{}x", "{\"a\": 1}", "{\"a\": {}}", "\xff{}"}) {
    Refusal(header, "");
  }
  Refusal(std::string(200'000, '['), "");
  Refusal("{\"a\":" + std::string(200'000, '[') + std::string(200'000, ']') + "}", "");
}

TEST(Safetensors, RefusesDuplicateNames) {
  EXPECT_THAT(Refusal(R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                          "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})",
                      "0123"),
              HasSubstr("'a' occurs twice"));
}

TEST(Safetensors, RefusesUnknownDTypesByName) {
  EXPECT_THAT(
      Refusal(R"({"w": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}})", "0123"),
      HasSubstr("'w': dtype 'F8_E4M3'"));
}

TEST(Safetensors, RefusesShapesThatDisagreeWithTheirBytes) {
  const auto with = [](const std::string& shape, const std::string& offsets) {
    return R"({"w": {"dtype": "F32", "shape": )" + shape + R"(, "data_offsets": )" + offsets + "}}";
  };
  EXPECT_TRUE(Parse(WithHeader(with("[1]", "[0, 4]"), "0123")).ok());
  for (const char* shape :
       {"[2]", "[0]", "[-1]", "[1.5]", "[\"1\"]", "1", "null", "[1,1,1,1,1,1,1,1,1]",
        "[4611686018427387904, 4]", "[9223372036854775808]", "[4294967296, 4294967296, 1]"}) {
    Refusal(with(shape, "[0, 4]"), "0123");
  }
  for (const char* offsets : {"[4, 0]", "[0]", "[0, 4, 8]", "[-4, 0]", "[0, 5]", "[0, 4.5]", "{}",
                              "[18446744073709551612, 0]"}) {
    Refusal(with("[1]", offsets), "0123");
  }
}

TEST(Safetensors, RefusesOverlapsHolesAndBytesLeftOver) {
  const auto two = [](int begin) {
    return R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
               "b": {"dtype": "F32", "shape": [1], "data_offsets": [)" +
           std::to_string(begin) + ", " + std::to_string(begin + 4) + "]}}";
  };
  EXPECT_TRUE(Parse(WithHeader(two(8), "0123456789ab")).ok());
  EXPECT_THAT(Refusal(two(4), "0123456789ab"), HasSubstr("overlap or hole"));
  EXPECT_THAT(Refusal(two(12), "0123456789abcdef"), HasSubstr("overlap or hole"));
  EXPECT_THAT(Refusal(two(8), "0123456789a"), HasSubstr("truncated"));
  EXPECT_THAT(Refusal(two(8), "0123456789abc"), HasSubstr("1 bytes after the last tensor"));
}

TEST(ShardIndex, ListsFilesOnce) {
  const auto index = ParseShardIndex(R"({"weight_map": {"x": "b.st", "y": "a.st", "z": "b.st"}})");
  ASSERT_TRUE(index.ok()) << index.status();
  EXPECT_THAT(index->files, ElementsAre("a.st", "b.st"));
  EXPECT_EQ(index->file_of.at("z"), "b.st");
}

TEST(ShardIndex, RefusesNamesOutsideTheFolder) {
  for (const char* name :
       {"../a", "/etc/passwd", "a/b", "a\\\\b", "", ".", "..", ".hidden", "a\\u0000b"}) {
    const auto index = ParseShardIndex(std::string(R"({"weight_map": {"x": ")") + name + "\"}}");
    EXPECT_EQ(index.status().code(), absl::StatusCode::kInvalidArgument) << name;
  }
  for (const char* json :
       {"", "[]", "{}", R"({"weight_map": []})", R"({"weight_map": {"x": 1}})"}) {
    EXPECT_EQ(ParseShardIndex(json).status().code(), absl::StatusCode::kInvalidArgument) << json;
  }
}

}  // namespace
}  // namespace anabranch
