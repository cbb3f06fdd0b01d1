#include "statestore/commit_journal.h"

#include <rocksdb/env.h>
#include <xxhash.h>

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "statestore/base/crash_point.h"
#include "statestore/base/status_macros.h"
#include "statestore/byte_coding.h"
#include "statestore/durable_file.h"
#include "statestore/rocks_status.h"

namespace anabranch {
namespace {

constexpr absl::string_view kMagic = "anabrJNL", kWhat = "commit journal";
constexpr uint64_t kBlock = 4096, kHeaderBytes = 32, kChecksumBytes = 8;
// Larger groups are written better where they belong at once.
constexpr uint64_t kGroupsThatFit = 4;
constexpr uint8_t kPut = 1, kDelete = 0;

uint64_t WholeBlocks(uint64_t bytes) { return (bytes + kBlock - 1) / kBlock * kBlock; }
uint64_t RecordBytes(uint64_t changes_bytes) {
  return WholeBlocks(kHeaderBytes + changes_bytes + kChecksumBytes);
}

uint64_t Checksum(absl::string_view bytes, absl::string_view key) {
  return XXH3_64bits_withSecret(bytes.data(), bytes.size(), key.data(), key.size());
}

// Magic (8), commit_seq (8), previous_seq (8), length of the changes (8), the changes, checksum of
// all before it (8), zeros to the end of the block.
std::string EncodeRecord(uint64_t commit_seq, uint64_t previous_seq, absl::string_view changes,
                         absl::string_view key) {
  ByteWriter writer;
  writer.Reserve(RecordBytes(changes.size()));
  writer.Raw(kMagic);
  writer.Fixed64(commit_seq);
  writer.Fixed64(previous_seq);
  writer.Fixed64(changes.size());
  writer.Raw(changes);
  writer.Fixed64(Checksum(writer.bytes(), key));
  std::string record = std::move(writer).Take();
  record.resize(RecordBytes(changes.size()));
  return record;
}

// The record that starts where `bytes` does.
std::optional<JournalRecord> DecodeRecord(absl::string_view bytes, absl::string_view key) {
  if (bytes.size() < kHeaderBytes + kChecksumBytes) return std::nullopt;
  if (bytes.substr(0, kMagic.size()) != kMagic) return std::nullopt;
  ByteReader header(bytes.substr(kMagic.size(), kHeaderBytes - kMagic.size()));
  JournalRecord record;
  record.commit_seq = header.Fixed64();
  record.previous_seq = header.Fixed64();
  const uint64_t length = header.Fixed64();
  if (length > bytes.size() - kHeaderBytes - kChecksumBytes) return std::nullopt;
  const absl::string_view sealed = bytes.substr(0, kHeaderBytes + length);
  ByteReader checksum(bytes.substr(sealed.size(), kChecksumBytes));
  if (checksum.Fixed64() != Checksum(sealed, key)) return std::nullopt;
  record.changes = std::string(sealed.substr(kHeaderBytes));
  return record;
}

absl::StatusOr<std::string> ReadAll(rocksdb::Env& env, const std::string& path) {
  const rocksdb::Status exists = env.FileExists(path);
  if (exists.IsNotFound()) return std::string();
  ANABRANCH_RETURN_IF_ERROR(FromRocks(exists, path));
  std::string bytes;
  ANABRANCH_RETURN_IF_ERROR(FromRocks(rocksdb::ReadFileToString(&env, path, &bytes), path));
  return bytes;
}

}  // namespace

std::string EncodeChanges(const Overlay& changes) {
  ByteWriter writer;
  for (int i = 0; i < kFamilies; ++i) {
    for (const auto& [key, value] : changes.changes(static_cast<Family>(i))) {
      writer.Byte(static_cast<uint8_t>(i));
      writer.Byte(value.has_value() ? kPut : kDelete);
      writer.String(key);
      if (!value.has_value()) continue;
      writer.Varint(value->size());
      for (const absl::string_view chunk : value->Chunks()) writer.Raw(chunk);
    }
  }
  return std::move(writer).Take();
}

absl::Status DecodeChanges(absl::string_view bytes, Overlay& changes) {
  ByteReader reader(bytes);
  while (reader.ok() && !reader.AtEnd()) {
    const uint8_t family = reader.Byte(), kind = reader.Byte();
    std::string key(reader.String());
    std::string value(kind == kPut ? reader.String() : absl::string_view());
    if (family >= kFamilies || kind > kPut) reader.Fail();
    if (!reader.ok()) break;
    if (kind == kPut) {
      changes.Put(static_cast<Family>(family), std::move(key), std::move(value));
    } else {
      changes.Delete(static_cast<Family>(family), std::move(key));
    }
  }
  if (reader.ok()) return absl::OkStatus();
  return absl::DataLossError("a record of the commit journal holds no changes");
}

// What lies behind the chain is older than it, or the end of a chain that damage broke: the newest
// number tells.
absl::StatusOr<JournalContents> CommitJournal::Read(rocksdb::Env& env, const std::string& path,
                                                    absl::string_view key, uint64_t after_seq) {
  ANABRANCH_ASSIGN_OR_RETURN(const std::string bytes, ReadAll(env, path));
  JournalContents contents;
  bool follows = true;
  for (uint64_t at = 0; at < bytes.size();) {
    std::optional<JournalRecord> record = DecodeRecord(absl::string_view(bytes).substr(at), key);
    const bool counts = record.has_value() && record->commit_seq > after_seq;
    follows = follows && counts &&
              (contents.chain.empty() || record->previous_seq == contents.chain.back().commit_seq);
    if (counts) contents.newest_seq = std::max(contents.newest_seq, record->commit_seq);
    at += record.has_value() ? RecordBytes(record->changes.size()) : kBlock;
    if (follows) contents.chain.push_back(*std::move(record));
  }
  return contents;
}

uint64_t CommitJournal::FileBytes(uint64_t bytes) { return WholeBlocks(bytes); }

// Zeros are written, not only reserved: what a block is used for the first time costs metadata.
absl::Status CommitJournal::Create(rocksdb::Env& env, const std::string& path, uint64_t bytes) {
  return ReplaceFile(env, path, std::string(FileBytes(bytes), '\0'));
}

absl::StatusOr<std::unique_ptr<CommitJournal>> CommitJournal::Open(rocksdb::Env& env,
                                                                   const std::string& path,
                                                                   absl::string_view key) {
  uint64_t size = 0;
  ANABRANCH_RETURN_IF_ERROR(FromRocks(env.GetFileSize(path, &size), path));
  std::unique_ptr<rocksdb::RandomRWFile> file;
  ANABRANCH_RETURN_IF_ERROR(
      FromRocks(env.NewRandomRWFile(path, &file, rocksdb::EnvOptions()), path));
  return std::unique_ptr<CommitJournal>(
      new CommitJournal(std::move(file), size / kBlock * kBlock, key));
}

CommitJournal::CommitJournal(std::unique_ptr<rocksdb::RandomRWFile> file, uint64_t capacity,
                             absl::string_view key)
    : file_(std::move(file)), capacity_(capacity), key_(key) {}

CommitJournal::~CommitJournal() = default;

bool CommitJournal::Fits(uint64_t changes_bytes) const {
  return RecordBytes(changes_bytes) <= capacity_ / kGroupsThatFit;
}

bool CommitJournal::HasRoomFor(uint64_t changes_bytes) const {
  return RecordBytes(changes_bytes) <= capacity_ - end_;
}

absl::Status CommitJournal::Write(uint64_t commit_seq, uint64_t previous_seq,
                                  absl::string_view changes) {
  const std::string record = EncodeRecord(commit_seq, previous_seq, changes, key_);
  written_seq_ = commit_seq;
  written_end_ = end_ + record.size();
  return WriteSynced(record);
}

void CommitJournal::Keep() {
  end_ = written_end_;
  newest_seq_ = written_seq_;
}

absl::Status CommitJournal::Void() { return WriteSynced(std::string(kBlock, '\0')); }

void CommitJournal::Restart() {
  end_ = 0;
  newest_seq_ = 0;
}

absl::Status CommitJournal::WriteSynced(absl::string_view blocks) {
  ANABRANCH_RETURN_IF_ERROR(
      FromRocks(file_->Write(end_, rocksdb::Slice(blocks.data(), blocks.size())), kWhat));
  ReachCrashPoint(CrashPoint::kJournalWritten);
#ifndef ANABRANCH_BROKEN_NO_JOURNAL_SYNC  // tests/crash/mutation_check.py shows that tests notice
  ANABRANCH_RETURN_IF_ERROR(FromRocks(file_->Sync(), kWhat));
#endif
  ReachCrashPoint(CrashPoint::kJournalSynced);
  return absl::OkStatus();
}

}  // namespace anabranch
