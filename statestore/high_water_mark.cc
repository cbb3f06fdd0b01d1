#include "statestore/high_water_mark.h"

#include <rocksdb/env.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <optional>

#include "absl/strings/str_cat.h"
#include "statestore/base/crash_point.h"
#include "statestore/base/status_macros.h"
#include "statestore/byte_coding.h"
#include "statestore/durable_file.h"
#include "statestore/rocks_status.h"

namespace anabranch {
namespace {

constexpr absl::string_view kMagic = "anabrHWM";
constexpr size_t kSlotBytes = 32, kSlotDistance = 4096, kSlots = 2;
constexpr size_t kFileBytes = kSlots * kSlotDistance;

// Magic (8), format version (4), zero (4), commit_seq (8), XXH3-64 of the 24 bytes before (8).
std::string EncodeSlot(const HighWaterContents& contents) {
  ByteWriter writer;
  writer.Raw(kMagic);
  writer.Fixed32(contents.format_version);
  writer.Fixed32(0);
  writer.Fixed64(contents.commit_seq);
  std::string slot = std::move(writer).Take();
  ByteWriter checksum;
  checksum.Fixed64(XXH3_64bits(slot.data(), slot.size()));
  return slot + std::move(checksum).Take();
}

std::optional<HighWaterContents> DecodeSlot(absl::string_view slot) {
  if (slot.size() != kSlotBytes || slot.substr(0, kMagic.size()) != kMagic) return std::nullopt;
  ByteReader reader(slot.substr(kMagic.size()));
  HighWaterContents contents;
  contents.format_version = reader.Fixed32();
  reader.Fixed32();
  contents.commit_seq = reader.Fixed64();
  if (reader.Fixed64() != XXH3_64bits(slot.data(), kSlotBytes - 8)) return std::nullopt;
  return contents;
}

using Slots = std::array<std::optional<HighWaterContents>, kSlots>;

absl::StatusOr<Slots> ReadSlots(rocksdb::Env& env, const std::string& path) {
  const rocksdb::Status exists = env.FileExists(path);
  if (exists.IsNotFound()) return absl::NotFoundError(absl::StrCat(path, " does not exist"));
  ANABRANCH_RETURN_IF_ERROR(FromRocks(exists, path));
  std::unique_ptr<rocksdb::SequentialFile> file;
  ANABRANCH_RETURN_IF_ERROR(
      FromRocks(env.NewSequentialFile(path, &file, rocksdb::EnvOptions()), path));
  std::string scratch(kFileBytes, '\0');
  rocksdb::Slice read;
  ANABRANCH_RETURN_IF_ERROR(FromRocks(file->Read(kFileBytes, &read, scratch.data()), path));
  const absl::string_view bytes(read.data(), read.size());
  Slots slots;
  for (size_t i = 0; i < kSlots; ++i) {
    if (bytes.size() >= i * kSlotDistance + kSlotBytes) {
      slots[i] = DecodeSlot(bytes.substr(i * kSlotDistance, kSlotBytes));
    }
  }
  return slots;
}

// The index of the slot with the highest mark; -1 if none is readable.
int Newest(const Slots& slots) {
  int newest = -1;
  for (int i = 0; i < static_cast<int>(kSlots); ++i) {
    if (!slots[i].has_value()) continue;
    if (newest < 0 || slots[i]->commit_seq > slots[newest]->commit_seq) newest = i;
  }
  return newest;
}

}  // namespace

absl::StatusOr<HighWaterContents> HighWaterMark::Read(rocksdb::Env& env, const std::string& path) {
  ANABRANCH_ASSIGN_OR_RETURN(const Slots slots, ReadSlots(env, path));
  const int newest = Newest(slots);
  if (newest >= 0) return *slots[newest];
  return absl::DataLossError(absl::StrCat(path, " is damaged: neither of its slots is readable"));
}

absl::Status HighWaterMark::Create(rocksdb::Env& env, const std::string& path,
                                   const HighWaterContents& contents) {
  std::string bytes = EncodeSlot(contents);
  bytes.resize(kFileBytes);
  return ReplaceFile(env, path, bytes);
}

absl::StatusOr<std::unique_ptr<HighWaterMark>> HighWaterMark::Open(rocksdb::Env& env,
                                                                   const std::string& path,
                                                                   uint32_t format_version) {
  ANABRANCH_ASSIGN_OR_RETURN(const Slots slots, ReadSlots(env, path));
  std::unique_ptr<rocksdb::RandomRWFile> file;
  ANABRANCH_RETURN_IF_ERROR(
      FromRocks(env.NewRandomRWFile(path, &file, rocksdb::EnvOptions()), path));
  return std::unique_ptr<HighWaterMark>(
      new HighWaterMark(std::move(file), format_version, 1 - std::max(0, Newest(slots))));
}

HighWaterMark::HighWaterMark(std::unique_ptr<rocksdb::RandomRWFile> file, uint32_t format_version,
                             int next_slot)
    : file_(std::move(file)), format_version_(format_version), next_slot_(next_slot) {}

HighWaterMark::~HighWaterMark() = default;

absl::Status HighWaterMark::Advance(uint64_t commit_seq, bool sync) {
  const std::string slot = EncodeSlot({format_version_, commit_seq});
  ANABRANCH_RETURN_IF_ERROR(
      FromRocks(file_->Write(next_slot_ * kSlotDistance, slot), "high-water mark"));
  next_slot_ = 1 - next_slot_;
  ReachCrashPoint(CrashPoint::kMarkWritten);
  if (sync) ANABRANCH_RETURN_IF_ERROR(FromRocks(file_->Sync(), "high-water mark"));
  ReachCrashPoint(CrashPoint::kMarkSynced);
  return absl::OkStatus();
}

}  // namespace anabranch
