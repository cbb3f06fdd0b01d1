// The content of a state replaced by another form of it, or given up where it can be read again.
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "statestore/apply_mutation.h"
#include "statestore/base/crash_point.h"
#include "statestore/base/status_macros.h"
#include "statestore/library_reads.h"
#include "statestore/payloads.h"
#include "statestore/tenant_use.h"

namespace anabranch {
namespace {

absl::Status CheckEtag(const StateRecord& record, const std::optional<uint64_t>& etag) {
  if (!etag.has_value() || *etag == record.etag) return absl::OkStatus();
  return absl::AbortedError(
      absl::StrCat("state ", record.id, " has the etag ", record.etag, ", not ", *etag));
}

// The entry of the prefix index; the rest of the index is lineage. Empty if it has none.
std::string PrefixEntryOf(const StoredState& state, const ApplyContext& context) {
  std::string entry;
  ForEachIndexKey(state, context.hasher, [&](Family family, std::string key) {
    if (family == Family::kPrefixes) entry = std::move(key);
  });
  return entry;
}

// The blobs of `old` that `now` does not have.
absl::Status DropFormerBlobs(StateRecord old, const StateRecord& now, ApplyContext& context) {
  const absl::flat_hash_set<std::string> kept(now.blob_hashes.begin(), now.blob_hashes.end());
  std::erase_if(old.blob_hashes, [&](const std::string& hash) { return kept.contains(hash); });
  return DropBlobs(old, context);
}

}  // namespace

absl::Status PutBlobs(const PutState& sent, ApplyContext& context) {
  const StateRecord& record = sent.record;
  for (size_t i = 0; i < record.blob_hashes.size(); ++i) {
    const std::string& hash = record.blob_hashes[i];
    const std::string key = NamedKey(record.tenant, hash);
    uint64_t bytes = sent.blobs[i].size();
    if (!sent.blobs[i].empty()) {
      if (!ReadBlob(context.changes, record.tenant, hash).ok()) {
        context.changes.Put(Family::kBlobs, key, EncodeBlob(key, sent.blobs[i]));
      }
    } else {
      const absl::StatusOr<int64_t> stored = BlobBytes(context.changes, record.tenant, hash);
      if (absl::IsNotFound(stored.status())) {
        return absl::NotFoundError(absl::StrCat("state ", record.id, " needs the blob ", hash,
                                                ", which is not stored and was not sent"));
      }
      ANABRANCH_RETURN_IF_ERROR(stored.status());
      bytes = static_cast<uint64_t>(*stored);
    }
    // With its size, so that nobody has to read a blob to know it.
    const std::string edge = EdgeKey(record.tenant, Edge::kBlob, hash, record.id);
    context.changes.Put(Family::kEdges, edge, EncodeNumber(edge, bytes));
  }
  return absl::OkStatus();
}

absl::Status ReplaceContent(StoredState state, PutState& sent, ApplyContext& context) {
  StateRecord& record = state.record;
  const StateRecord& content = sent.record;
  ANABRANCH_RETURN_IF_ERROR(PutBlobs(sent, context));
  ANABRANCH_RETURN_IF_ERROR(DropFormerBlobs(record, content, context));
  DeletePayload(record, context.changes);
  record.header = content.header;
  record.payload_bytes = content.payload_bytes;
  record.payload_checksum = content.payload_checksum;
  record.blob_hashes = content.blob_hashes;
  record.blob_bytes = content.blob_bytes;
  record.codec = content.codec;
  record.keep_codec = content.keep_codec;
  record.exact_bytes = content.exact_bytes;
  record.codec_error = content.codec_error;
  record.lossy_restores = content.lossy_restores;
  record.etag = context.NewEtag();
  PutPayload(std::move(sent.payload), context.payload_part_bytes, record, context.changes);
  const std::string key = NamedKey(record.tenant, record.id);
  context.changes.Put(Family::kStates, key, EncodeState(key, state));
  std::string entry = PrefixEntryOf(state, context);
  if (!entry.empty()) context.changes.Put(Family::kPrefixes, std::move(entry), "");
  return absl::OkStatus();
}

absl::Status Apply(RecodeState& operation, ApplyContext& context) {
  const StateRecord& sent = operation.put.record;
  ANABRANCH_ASSIGN_OR_RETURN(StoredState state, ReadState(context.changes, sent.tenant, sent.id));
  ANABRANCH_RETURN_IF_ERROR(CheckUsable(state.record));
  ANABRANCH_RETURN_IF_ERROR(CheckEtag(state.record, operation.etag));
  if (state.record.payload_checksum != operation.replaces) {
    return absl::AbortedError(
        absl::StrCat("the content of state ", sent.id, " was replaced meanwhile"));
  }
  ReachCrashPoint(CrashPoint::kRecodingReplaced);
  return ReplaceContent(std::move(state), operation.put, context);
}

absl::Status Apply(const ArchiveState& operation, ApplyContext& context) {
  ANABRANCH_ASSIGN_OR_RETURN(StoredState state,
                             ReadState(context.changes, operation.tenant, operation.id));
  const StateRecord& record = state.record;
  ANABRANCH_RETURN_IF_ERROR(CheckEtag(record, operation.etag));
  if (record.operation != StateOperation::kAppend) {
    return absl::FailedPreconditionError(absl::StrCat(
        "state ", record.id, " was computed and no tokens lead to it: it cannot be archived"));
  }
  if (!IsWhole(record)) return absl::OkStatus();
  ReachCrashPoint(CrashPoint::kRecodingArchived);
  return ArchiveContent(std::move(state), context);
}

absl::Status ArchiveContent(StoredState state, ApplyContext& context) {
  StateRecord& record = state.record;
  // As the prefix of a history it would save nothing. The header stays: it says what the content
  // must be when it is read again.
  std::string entry = PrefixEntryOf(state, context);
  if (!entry.empty()) context.changes.Delete(Family::kPrefixes, std::move(entry));
  ANABRANCH_RETURN_IF_ERROR(DropBlobs(record, context));
  if (record.exact_bytes == 0) record.exact_bytes = record.payload_bytes + record.blob_bytes;
  DeletePayload(record, context.changes);
  record.codec = StateCodec::kArchive;
  record.payload_bytes = record.payload_checksum = record.payload_part_bytes = 0;
  record.blob_bytes = 0;
  record.blob_hashes.clear();
  record.etag = context.NewEtag();
  const std::string key = NamedKey(record.tenant, record.id);
  context.changes.Put(Family::kStates, key, EncodeState(key, state));
  return absl::OkStatus();
}

}  // namespace anabranch
