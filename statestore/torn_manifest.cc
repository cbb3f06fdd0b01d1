#include "statestore/torn_manifest.h"

#include <rocksdb/env.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "statestore/base/status_macros.h"
#include "statestore/rocks_crc32c.h"
#include "statestore/rocks_status.h"

namespace anabranch {
namespace {

constexpr size_t kBlock = 32768, kHeader = 7;
// An append is a few entries of some hundred bytes each.
constexpr size_t kLongestTail = 256u << 10;

enum RecordType : uint8_t { kWhole = 1, kFirst = 2, kMiddle = 3, kLast = 4 };

struct Record {
  uint8_t type = 0;
  size_t bytes = 0;  // with its header
};

uint32_t Masked(uint32_t crc) { return ((crc >> 15) | (crc << 17)) + 0xa282ead8u; }

// The record at `at`; nullopt: there is none, or not all of it.
std::optional<Record> RecordAt(absl::string_view file, size_t at) {
  const size_t left = std::min(kBlock - at % kBlock, file.size() - at);
  if (left < kHeader) return std::nullopt;
  const char* header = file.data() + at;
  uint32_t stored = 0;
  uint16_t length = 0;
  std::memcpy(&stored, header, sizeof(stored));
  std::memcpy(&length, header + 4, sizeof(length));
  const auto type = static_cast<uint8_t>(header[6]);
  if (type < kWhole || type > kLast || kHeader + length > left) return std::nullopt;
  if (Masked(RocksCrc32c({header + 6, size_t{1} + length})) != stored) return std::nullopt;
  return Record{type, kHeader + length};
}

struct Prefix {
  size_t entries = 0;  // end of the last whole entry
  size_t records = 0;  // end of the last whole record
};

Prefix WholePrefix(absl::string_view file) {
  Prefix prefix;
  while (prefix.records < file.size()) {
    const size_t in_block = kBlock - prefix.records % kBlock;
    if (in_block < kHeader) {  // padding
      prefix.records = std::min(prefix.records + in_block, file.size());
      continue;
    }
    const std::optional<Record> record = RecordAt(file, prefix.records);
    if (!record.has_value()) break;
    prefix.records += record->bytes;
    if (record->type == kWhole || record->type == kLast) prefix.entries = prefix.records;
  }
  return prefix;
}

bool HasRecordAfter(absl::string_view file, size_t begin) {
  for (size_t at = begin; at < file.size(); ++at) {
    if (RecordAt(file, at).has_value()) return true;
  }
  return false;
}

}  // namespace

absl::StatusOr<std::optional<TornManifest>> FindTornManifest(rocksdb::Env& env,
                                                             const std::string& directory) {
  std::string current;
  const std::string current_path = absl::StrCat(directory, "/CURRENT");
  ANABRANCH_RETURN_IF_ERROR(
      FromRocks(rocksdb::ReadFileToString(&env, current_path, &current), current_path));
  TornManifest torn;
  torn.path = absl::StrCat(directory, "/", absl::StripSuffix(current, "\n"));
  ANABRANCH_RETURN_IF_ERROR(
      FromRocks(rocksdb::ReadFileToString(&env, torn.path, &torn.bytes), torn.path));
  const Prefix prefix = WholePrefix(torn.bytes);
  torn.whole = prefix.entries;
  // Without a first entry it is no list, and a long tail no append.
  if (prefix.entries == 0 || prefix.records == torn.bytes.size()) return std::nullopt;
  if (torn.bytes.size() - prefix.entries > kLongestTail) return std::nullopt;
  if (HasRecordAfter(torn.bytes, prefix.records + 1)) return std::nullopt;
  return torn;
}

}  // namespace anabranch
