#include "runtime/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/strict_json.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the reference implementation's limit
constexpr size_t kMaxRank = 8;
constexpr char kMetadataKey[] = "__metadata__";

std::optional<TensorDType> DTypeFromName(absl::string_view name) {
  if (name == "F32") return TensorDType::kF32;
  if (name == "BF16") return TensorDType::kBF16;
  if (name == "F16") return TensorDType::kF16;
  if (name == "I32") return TensorDType::kI32;
  if (name == "I64") return TensorDType::kI64;
  return std::nullopt;
}

std::optional<uint64_t> UnsignedField(const nlohmann::json& value) {
  if (!value.is_number_unsigned()) return std::nullopt;
  const uint64_t number = value.get<uint64_t>();
  if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
  return number;
}

absl::Status Malformed(absl::string_view tensor, absl::string_view what) {
  return absl::DataLossError(absl::StrCat("safetensors header: tensor '", tensor, "': ", what));
}

// Bytes of a shape, with every product checked.
std::optional<uint64_t> CheckedBytes(const std::vector<int64_t>& shape, TensorDType dtype) {
  uint64_t bytes = TensorDTypeBytes(dtype);
  for (int64_t dim : shape) {
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(dim), &bytes)) return std::nullopt;
  }
  return bytes;
}

struct Entry {
  std::string name;
  TensorView view;
  uint64_t begin = 0, end = 0;  // in the data after the header
};

absl::StatusOr<Entry> ParseEntry(const std::string& name, const nlohmann::json& value) {
  Entry entry;
  entry.name = name;
  if (!value.is_object()) return Malformed(name, "not an object");
  const auto dtype = value.find("dtype");
  const auto shape = value.find("shape");
  const auto offsets = value.find("data_offsets");
  if (dtype == value.end() || !dtype->is_string()) return Malformed(name, "no dtype");
  const auto known = DTypeFromName(dtype->get_ref<const std::string&>());
  if (!known) {
    return Malformed(name, absl::StrCat("dtype '", dtype->get_ref<const std::string&>(),
                                        "' is not one of F32, BF16, F16, I32, I64"));
  }
  entry.view.dtype = *known;
  if (shape == value.end() || !shape->is_array() || shape->size() > kMaxRank) {
    return Malformed(name, "no shape, or more than 8 dimensions");
  }
  for (const nlohmann::json& dim : *shape) {
    const auto size = UnsignedField(dim);
    if (!size) return Malformed(name, "a dimension is not a non-negative integer");
    entry.view.shape.push_back(static_cast<int64_t>(*size));
  }
  if (offsets == value.end() || !offsets->is_array() || offsets->size() != 2) {
    return Malformed(name, "data_offsets is not a pair");
  }
  const auto begin = UnsignedField((*offsets)[0]);
  const auto end = UnsignedField((*offsets)[1]);
  if (!begin || !end || *begin > *end) return Malformed(name, "data_offsets is not a range");
  entry.begin = *begin;
  entry.end = *end;
  const auto bytes = CheckedBytes(entry.view.shape, *known);
  if (!bytes || *bytes != *end - *begin) {
    return Malformed(
        name, absl::StrCat("shape ", ShapeString(entry.view.shape), " of ", TensorDTypeName(*known),
                           " does not take the ", *end - *begin, " bytes of its range"));
  }
  return entry;
}

// Every byte of the data belongs to exactly one tensor.
absl::Status CheckCoverage(const std::vector<Entry>& sorted, uint64_t data_bytes) {
  uint64_t expected = 0;
  for (const Entry& entry : sorted) {
    if (entry.begin != expected) {
      return Malformed(entry.name, absl::StrCat("starts at byte ", entry.begin, " where ", expected,
                                                " is expected (overlap or hole)"));
    }
    if (entry.end > data_bytes) {
      return Malformed(entry.name, absl::StrCat("ends at byte ", entry.end, " of ", data_bytes,
                                                " (file truncated?)"));
    }
    expected = entry.end;
  }
  if (expected != data_bytes) {
    return absl::DataLossError(absl::StrCat("safetensors file has ", data_bytes - expected,
                                            " bytes after the last tensor"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Entry>> ParseEntries(absl::string_view header) {
  ANABRANCH_ASSIGN_OR_RETURN(const nlohmann::json json, ParseStrictJson(header));
  if (!json.is_object()) return absl::DataLossError("safetensors header is not a JSON object");
  std::vector<Entry> entries;
  for (const auto& [name, value] : json.items()) {
    if (name == kMetadataKey) continue;
    ANABRANCH_ASSIGN_OR_RETURN(Entry entry, ParseEntry(name, value));
    entries.push_back(std::move(entry));
  }
  return entries;
}

}  // namespace

size_t TensorDTypeBytes(TensorDType dtype) {
  switch (dtype) {
    case TensorDType::kF32:
    case TensorDType::kI32:
      return 4;
    case TensorDType::kBF16:
    case TensorDType::kF16:
      return 2;
    case TensorDType::kI64:
      return 8;
  }
  return 1;
}

absl::string_view TensorDTypeName(TensorDType dtype) {
  switch (dtype) {
    case TensorDType::kF32:
      return "F32";
    case TensorDType::kBF16:
      return "BF16";
    case TensorDType::kF16:
      return "F16";
    case TensorDType::kI32:
      return "I32";
    case TensorDType::kI64:
      return "I64";
  }
  return "?";
}

std::string ShapeString(absl::Span<const int64_t> shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ","), "]");
}

absl::StatusOr<TensorMap> ParseSafetensors(absl::Span<const uint8_t> file) {
  if (file.size() < kLengthBytes) {
    return absl::DataLossError(
        absl::StrCat("safetensors file of ", file.size(), " bytes has no header"));
  }
  static_assert(std::endian::native == std::endian::little, "the format is little-endian");
  uint64_t length;
  std::memcpy(&length, file.data(), sizeof(length));
  if (length > kMaxHeaderBytes || length > file.size() - kLengthBytes) {
    return absl::DataLossError(absl::StrCat("safetensors header of ", length,
                                            " bytes in a file of ", file.size(), " bytes (at most ",
                                            kMaxHeaderBytes, ")"));
  }
  const absl::string_view header(reinterpret_cast<const char*>(file.data()) + kLengthBytes, length);
  const absl::Span<const uint8_t> data = file.subspan(kLengthBytes + length);
  auto entries = ParseEntries(header);
  if (!entries.ok()) {
    return absl::DataLossError(entries.status().message());
  }
  // Empty tensors sort before the one that starts at the same byte.
  std::sort(entries->begin(), entries->end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  ANABRANCH_RETURN_IF_ERROR(CheckCoverage(*entries, data.size()));
  TensorMap tensors;
  for (Entry& entry : *entries) {
    entry.view.bytes = data.subspan(entry.begin, entry.end - entry.begin);
    tensors.emplace(std::move(entry.name), std::move(entry.view));
  }
  return tensors;
}

absl::StatusOr<ShardIndex> ParseShardIndex(absl::string_view json_text) {
  ANABRANCH_ASSIGN_OR_RETURN(const nlohmann::json json, ParseStrictJson(json_text));
  const auto map = json.is_object() ? json.find("weight_map") : json.end();
  if (map == json.end() || !map->is_object()) {
    return absl::InvalidArgumentError("index: weight_map is missing or not an object");
  }
  ShardIndex index;
  std::set<std::string> files;
  for (const auto& [tensor, value] : map->items()) {
    if (!value.is_string()) {
      return absl::InvalidArgumentError(
          absl::StrCat("index: the file of tensor '", tensor, "' is not a string"));
    }
    const std::string& file = value.get_ref<const std::string&>();
    const bool plain = !file.empty() && file.front() != '.' && file.size() <= 255 &&
                       file.find_first_of(std::string("/\\\0", 3)) == std::string::npos;
    if (!plain) {
      return absl::InvalidArgumentError(
          absl::StrCat("index: '", file, "' is not a plain file name"));
    }
    files.insert(file);
    index.file_of.emplace(tensor, file);
  }
  index.files.assign(files.begin(), files.end());
  return index;
}

}  // namespace anabranch
