#include "statestore/bundle_reader.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "statestore/base/status_macros.h"
#include "statestore/byte_coding.h"
#include "statestore/names.h"
#include "statestore/payload_hasher.h"
#include "statestore/state_id.h"

namespace anabranch {
namespace {

constexpr size_t kLengthBytes = 4;

absl::Status Wrong(uint64_t offset, absl::string_view how) {
  return absl::InvalidArgumentError(absl::StrCat("byte ", offset, " of the bundle: ", how));
}

// Errors of parsers, with the place; a newer version stays FAILED_PRECONDITION.
absl::Status At(uint64_t offset, const absl::Status& status) {
  if (absl::IsFailedPrecondition(status)) return status;
  return Wrong(offset, status.message());
}

}  // namespace

BundleReader::BundleReader(BundleVisitor* visitor) : visitor_(visitor) {}
BundleReader::~BundleReader() = default;

absl::Status BundleReader::Feed(absl::string_view bytes) {
  while (!bytes.empty()) {
    if (step_ == Step::kDone) return Wrong(offset_, "something follows its end");
    const size_t count = std::min(bytes.size(), need_ - buffer_.size());
    buffer_.append(bytes.data(), count);
    bytes.remove_prefix(count);
    offset_ += count;
    if (buffer_.size() < need_) return absl::OkStatus();
    if (step_ != Step::kHash) hash_.Add(absl::string_view(buffer_).substr(hashed_));
    hashed_ = 0;
    ANABRANCH_RETURN_IF_ERROR(Take());
  }
  return absl::OkStatus();
}

absl::Status BundleReader::Finish() const {
  if (step_ == Step::kDone) return absl::OkStatus();
  return Wrong(offset_, header_.size_bytes == 0
                            ? std::string("it ends inside its header")
                            : absl::StrCat("it ends here; it should have ", header_.size_bytes));
}

void BundleReader::Expect(Step step, size_t bytes) {
  step_ = step;
  need_ = bytes;
  start_ = offset_;
  buffer_.clear();
}

absl::Status BundleReader::Take() {
  switch (step_) {
    case Step::kPreamble: {
      const absl::StatusOr<uint32_t> length = ParseBundlePreamble(buffer_);
      if (!length.ok()) return At(0, length.status());
      step_ = Step::kHeader;
      need_ = *length;
      hashed_ = buffer_.size();
      return absl::OkStatus();
    }
    case Step::kHeader:
      return TakeHeader();
    case Step::kItemLength:
      return TakeItemLength();
    case Step::kItemHead:
      return TakeItemHead();
    case Step::kChunk:
      return TakeChunk();
    case Step::kHash:
      return TakeHash();
    case Step::kDone:
      break;
  }
  return absl::OkStatus();
}

absl::Status BundleReader::TakeHeader() {
  absl::StatusOr<BundleHeader> header = ParseBundleHeader(buffer_);
  if (!header.ok()) return At(0, header.status());
  header_ = *std::move(header);
  absl::Status names = ValidateTenant(header_.tenant);
  if (names.ok()) names = ValidateStateId("state_id", header_.state_id);
  if (!names.ok()) return At(0, names);
  id_ = std::make_unique<BundleIdHasher>(header_);
  Expect(Step::kItemLength, kLengthBytes);
  return visitor_->OnHeader(header_);
}

absl::Status BundleReader::TakeItemLength() {
  const uint32_t length = ByteReader(buffer_).Fixed32();
  if (length == 0) {
    ANABRANCH_RETURN_IF_ERROR(CheckCounts());
    Expect(Step::kHash, Sha256::kBytes);
    return absl::OkStatus();
  }
  if (length > kMaxBundleItemHead) {
    return Wrong(start_, absl::StrCat("an item's head claims ", length, " bytes; at most ",
                                      kMaxBundleItemHead, " are allowed"));
  }
  Expect(Step::kItemHead, length);
  return absl::OkStatus();
}

absl::Status BundleReader::TakeItemHead() {
  const uint64_t item_offset = start_ - kLengthBytes;
  absl::StatusOr<BundleItem> item = ParseBundleItem(buffer_, item_offset);
  if (!item.ok()) return At(item_offset, item.status());
  item_ = *std::move(item);
  left_ = item_.record_bytes + item_.content_bytes;
  // One compare ends all games with sizes: the file cannot hold more than it says.
  if (left_ > header_.size_bytes || offset_ + left_ > header_.size_bytes) {
    return Wrong(item_offset, absl::StrCat("an item claims ", left_, " bytes, more than the ",
                                           header_.size_bytes, " of the whole bundle"));
  }
  record_.clear();
  if (item_.record_bytes == 0) ANABRANCH_RETURN_IF_ERROR(RecordComplete());
  return ExpectChunkOrNextItem();
}

absl::Status BundleReader::ExpectChunkOrNextItem() {
  if (left_ > 0) {
    Expect(Step::kChunk, std::min<uint64_t>(left_, kBundleChunkBytes) + kBundleChecksumBytes);
    return absl::OkStatus();
  }
  Expect(Step::kItemLength, kLengthBytes);
  return EndItem();
}

absl::Status BundleReader::TakeChunk() {
  absl::string_view data = buffer_;
  data.remove_suffix(kBundleChecksumBytes);
  if (absl::string_view(buffer_).substr(data.size()) != BundleChunkChecksum(data, start_)) {
    return Wrong(start_, absl::StrCat("the checksum of a chunk of ", data.size(), " bytes (of ",
                                      item_.name, ") does not match"));
  }
  left_ -= data.size();
  ANABRANCH_RETURN_IF_ERROR(Data(data, start_));
  return ExpectChunkOrNextItem();
}

absl::Status BundleReader::Data(absl::string_view data, uint64_t offset) {
  if (record_.size() < item_.record_bytes) {
    const size_t count = std::min<uint64_t>(data.size(), item_.record_bytes - record_.size());
    record_.append(data.data(), count);
    data.remove_prefix(count);
    offset += count;
    if (record_.size() == item_.record_bytes) ANABRANCH_RETURN_IF_ERROR(RecordComplete());
  }
  if (data.empty()) return absl::OkStatus();
  if (item_.kind == BundleItemKind::kState) payload_->Add(data);
  return visitor_->OnContent(data, offset);
}

absl::Status BundleReader::Twice() const {
  return Wrong(start_, absl::StrCat(item_.name, " comes twice"));
}

absl::Status BundleReader::RecordComplete() {
  id_->Add(item_, record_);
  switch (item_.kind) {
    case BundleItemKind::kBlob:
      return BeginBlob();
    case BundleItemKind::kState:
      return BeginState();
    case BundleItemKind::kRef:
      break;
  }
  const absl::Status name = ValidateName("ref", item_.name);
  if (!name.ok()) return At(start_, name);
  if (!refs_.insert(item_.name).second) return Twice();
  if (item_.content_bytes != 0) return Wrong(start_, "a ref has content");
  if (!named_.contains(record_)) {
    return Wrong(start_, absl::StrCat("the ref ", item_.name,
                                      " names a state that the bundle does not hold whole"));
  }
  return visitor_->OnRef(item_.name, record_);
}

absl::Status BundleReader::BeginBlob() {
  const absl::Status name = ValidateBlobHash("hash", item_.name);
  if (!name.ok()) return At(start_, name);
  if (item_.record_bytes != 0 || item_.content_bytes == 0) {
    return Wrong(start_, absl::StrCat("the block ", item_.name, " is empty or has a record"));
  }
  if (!blobs_.emplace(item_.name, item_.content_bytes).second) return Twice();
  new_blobs_.insert(item_.name);
  return visitor_->OnBlob(item_);
}

absl::Status BundleReader::BeginState() {
  absl::StatusOr<StateRecord> record = DecodeBundleRecord(header_.tenant, item_, record_);
  if (!record.ok()) return At(start_, record.status());
  state_ = *std::move(record);
  record_.shrink_to_fit();
  if (states_.contains(state_.id)) return Twice();
  const absl::Status id = CheckStateId(state_);
  if (!id.ok()) return At(start_, id);
  if (state_.fingerprint != header_.fingerprint ||
      state_.numerics_profile != header_.numerics_profile) {
    return Wrong(start_, absl::StrCat("state ", state_.id, " is of model ", state_.fingerprint,
                                      " (", state_.numerics_profile, "), the bundle of ",
                                      header_.fingerprint, " (", header_.numerics_profile, ")"));
  }
  for (const std::string& parent : state_.parents) {
    if (states_.contains(parent)) continue;
    return Wrong(start_, absl::StrCat("state ", state_.id, " comes without its parent ", parent));
  }
  ANABRANCH_RETURN_IF_ERROR(CheckContentOf(state_));
  states_.insert(state_.id);
  payload_ = std::make_unique<PayloadHasher>();
  return visitor_->OnState(state_);
}

absl::Status BundleReader::CheckContentOf(const StateRecord& record) {
  const uint64_t payload = IsWhole(record) ? record.payload_bytes : 0;
  if (item_.content_bytes != payload || record.payload_bytes != payload) {
    return Wrong(start_, absl::StrCat("state ", record.id, " comes with ", item_.content_bytes,
                                      " bytes; its record says ", record.payload_bytes,
                                      IsWhole(record) ? "" : " and that it has no content"));
  }
  if (!IsWhole(record) &&
      !(record.blob_hashes.empty() && (record.header.empty() || !record.thinned))) {
    return Wrong(start_,
                 absl::StrCat("state ", record.id, " is thinned or archived, and has ", "content"));
  }
  uint64_t blob_bytes = 0;
  for (const std::string& hash : record.blob_hashes) {
    const auto blob = blobs_.find(hash);
    if (blob == blobs_.end()) {
      return Wrong(start_, absl::StrCat("state ", record.id, " comes without the block ", hash));
    }
    blob_bytes += blob->second;
    new_blobs_.erase(hash);
  }
  if (blob_bytes != record.blob_bytes) {
    return Wrong(start_, absl::StrCat("the blocks of state ", record.id, " have ", blob_bytes,
                                      " bytes; its record says ", record.blob_bytes));
  }
  if (!new_blobs_.empty()) {
    return Wrong(start_, absl::StrCat("the block ", *new_blobs_.begin(),
                                      " comes before a state that does not need it"));
  }
  if (!record.thinned) named_.insert(record.id);
  if (IsWhole(record)) ++whole_;
  return absl::OkStatus();
}

absl::Status BundleReader::EndItem() {
  if (item_.kind == BundleItemKind::kRef) return absl::OkStatus();
  if (item_.kind == BundleItemKind::kState && IsWhole(state_) &&
      payload_->Sum() != state_.payload_checksum) {
    return Wrong(start_, absl::StrCat("the payload of state ", state_.id,
                                      " does not have the checksum of its record"));
  }
  return visitor_->OnContentEnd();
}

absl::Status BundleReader::CheckCounts() const {
  if (states_.size() != header_.states || whole_ != header_.whole_states ||
      blobs_.size() != header_.blobs || refs_.size() != header_.refs) {
    return Wrong(
        start_,
        absl::StrCat("it holds ", states_.size(), " states (", whole_, " whole), ", blobs_.size(),
                     " blocks and ", refs_.size(), " refs; its header says ", header_.states, " (",
                     header_.whole_states, "), ", header_.blobs, " and ", header_.refs));
  }
  if (!new_blobs_.empty()) {
    return Wrong(start_, absl::StrCat("no state needs the block ", *new_blobs_.begin()));
  }
  if (!named_.contains(header_.state_id)) {
    return Wrong(start_, absl::StrCat("its state ", header_.state_id, " is not in it"));
  }
  if (offset_ + Sha256::kBytes != header_.size_bytes) {
    return Wrong(start_, absl::StrCat("it ends at ", offset_ + Sha256::kBytes,
                                      " bytes; its header says ", header_.size_bytes));
  }
  return absl::OkStatus();
}

absl::Status BundleReader::TakeHash() {
  if (id_->Finish() != header_.bundle_id) {
    return Wrong(start_, "its contents are not those that its header names");
  }
  if (hash_.Finish() != buffer_) return Wrong(start_, "the hash of the whole does not match");
  step_ = Step::kDone;
  return absl::OkStatus();
}

}  // namespace anabranch
