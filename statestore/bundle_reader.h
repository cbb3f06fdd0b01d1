// Reads a bundle that comes in pieces, and believes nothing of it: every checksum, size, count,
// id and order is checked before anybody is told.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "statestore/bundle_format.h"
#include "statestore/sha256.h"

namespace anabranch {

// Is told what a bundle holds, in its order. A status that is not OK ends the reading with it.
class BundleVisitor {
 public:
  virtual ~BundleVisitor() = default;
  virtual absl::Status OnHeader(const BundleHeader&) { return absl::OkStatus(); }
  // A blob or state begins; its content follows in pieces. Of a state that is thinned or
  // archived: none.
  virtual absl::Status OnBlob(const BundleItem&) { return absl::OkStatus(); }
  virtual absl::Status OnState(const StateRecord&) { return absl::OkStatus(); }
  // `offset`: of the piece in the bundle.
  virtual absl::Status OnContent(absl::string_view /*piece*/, uint64_t /*offset*/) {
    return absl::OkStatus();
  }
  // Of the blob or state that began last. What a state's record says of its payload is true.
  virtual absl::Status OnContentEnd() { return absl::OkStatus(); }
  virtual absl::Status OnRef(const std::string& /*name*/, const std::string& /*state_id*/) {
    return absl::OkStatus();
  }
};

class PayloadHasher;

// A pure function of the bytes. Memory: one chunk, the record at hand, and the names seen so far;
// never more than was fed, but for 2 MiB. Not checked are the meaning of a state's header, payload
// and blobs, which the store does not know, and the hashes that name blobs.
class BundleReader {
 public:
  // `visitor` outlives the reader.
  explicit BundleReader(BundleVisitor* visitor);
  ~BundleReader();

  // INVALID_ARGUMENT names the byte where the bundle is wrong; FAILED_PRECONDITION: a newer format
  // version. After an error no more may be fed.
  absl::Status Feed(absl::string_view bytes);
  // After the last byte: INVALID_ARGUMENT if the bundle is not complete.
  absl::Status Finish() const;

  uint64_t offset() const { return offset_; }  // bytes fed
  bool complete() const { return step_ == Step::kDone; }

 private:
  enum class Step { kPreamble, kHeader, kItemLength, kItemHead, kChunk, kHash, kDone };

  // One per step, when buffer_ has the bytes that it needs.
  absl::Status Take();
  absl::Status TakeHeader();
  absl::Status TakeItemLength();
  absl::Status TakeItemHead();
  absl::Status TakeChunk();
  absl::Status TakeHash();

  absl::Status Data(absl::string_view data, uint64_t offset);
  absl::Status RecordComplete();
  absl::Status BeginBlob();
  absl::Status BeginState();
  // Refuses a name that came before.
  absl::Status Twice() const;
  absl::Status CheckContentOf(const StateRecord& record);
  absl::Status EndItem();
  absl::Status CheckCounts() const;
  void Expect(Step step, size_t bytes);
  absl::Status ExpectChunkOrNextItem();

  BundleVisitor* const visitor_;
  Step step_ = Step::kPreamble;
  size_t need_ = kBundlePreambleBytes;
  std::string buffer_;
  size_t hashed_ = 0;    // bytes of buffer_ that hash_ has
  uint64_t offset_ = 0;  // of the next byte that is fed
  uint64_t start_ = 0;   // of buffer_ in the bundle
  Sha256 hash_;          // of all before the last 32 bytes

  BundleHeader header_;
  std::unique_ptr<BundleIdHasher> id_;
  // The item at hand, and what of its data has not come yet.
  BundleItem item_;
  std::string record_;
  uint64_t left_ = 0;
  StateRecord state_;
  std::unique_ptr<PayloadHasher> payload_;
  // What came before. A ref may name what is not thinned. Blobs are new until a state needs them.
  absl::flat_hash_set<std::string> states_, named_, refs_, new_blobs_;
  uint64_t whole_ = 0;
  absl::flat_hash_map<std::string, uint64_t> blobs_;  // with their sizes
};

}  // namespace anabranch
