// Safetensors files: an 8-byte header length, a JSON header that names every tensor with its dtype,
// shape and byte range, then the bytes. A checkpoint is one such file or several shards listed by
// model.safetensors.index.json.
//
// Nothing in a file is trusted: the header is checked completely against the bytes present before
// any tensor can be seen, and tensors are views into the mapping, so a header cannot make us
// allocate more than a small multiple of its own length.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace anabranch {

enum class TensorDType : uint8_t { kF32, kBF16, kF16, kI32, kI64 };

size_t TensorDTypeBytes(TensorDType dtype);
absl::string_view TensorDTypeName(TensorDType dtype);

// One tensor, as a view into a mapped file. Rows are dense, elements little-endian.
struct TensorView {
  TensorDType dtype = TensorDType::kF32;
  std::vector<int64_t> shape;
  absl::Span<const uint8_t> bytes;

  int64_t num_elements() const {
    return static_cast<int64_t>(bytes.size() / TensorDTypeBytes(dtype));
  }
};

using TensorMap = absl::btree_map<std::string, TensorView>;

// Reads a whole file's bytes; views point into `file`. DATA_LOSS says what is wrong: a header that
// is longer than the file or than 100 MB, not JSON, a duplicate or malformed entry, an unknown
// dtype, a shape that disagrees with its byte range, ranges with overlaps or holes, bytes missing
// at or left over after the end.
absl::StatusOr<TensorMap> ParseSafetensors(absl::Span<const uint8_t> file);

// The shard files of an index, sorted and distinct, and which of them holds each tensor.
struct ShardIndex {
  std::vector<std::string> files;
  absl::btree_map<std::string, std::string> file_of;  // tensor -> file
};
// INVALID_ARGUMENT for malformed JSON or a file name that is not a plain name in the same folder.
absl::StatusOr<ShardIndex> ParseShardIndex(absl::string_view json);

// "[2,3]", for messages.
std::string ShapeString(absl::Span<const int64_t> shape);

}  // namespace anabranch
