#include "tests/bench/stored_context.h"

#include <utility>

#include "absl/time/clock.h"
#include "statestore/base/status_macros.h"

namespace anabranch::bench {
namespace {

constexpr char kTenant[] = "bench";

}  // namespace

absl::StatusOr<std::string> StoreContext(const Engine& engine, StateStore& store,
                                         StoredContext context) {
  PutState put;
  put.record.tenant = kTenant;
  put.record.fingerprint = engine.model().fingerprint();
  put.record.numerics_profile = engine.model().numerics_profile();
  put.record.token_count = context.image.header.token_count;
  put.record.span_tokens = std::move(context.tokens);
  put.record.header = SerializeStateHeader(context.image.header);
  for (const KvBlockRef& block : context.image.header.kv_blocks) {
    put.record.blob_hashes.push_back(block.hash);
  }
  put.record.created = absl::Now();
  put.record.id = StateId(put.record);
  put.payload = std::move(context.image.payload).TakeString();
  put.blobs = std::move(context.image.kv_blocks);
  std::string id = put.record.id;
  Mutation mutation;
  mutation.operations.push_back(std::move(put));
  ANABRANCH_RETURN_IF_ERROR(store.CommitAndWait(std::move(mutation)));
  return id;
}

absl::StatusOr<StoredContext> LoadContext(const Engine& engine, StateStore& store,
                                          const std::string& id) {
  ANABRANCH_ASSIGN_OR_RETURN(const StateRecord record, store.GetState(kTenant, id));
  StoredContext loaded;
  ANABRANCH_ASSIGN_OR_RETURN(loaded.tokens, store.GetTokens(kTenant, id));
  StateImage& image = loaded.image;
  ANABRANCH_ASSIGN_OR_RETURN(image.header, ParseStateHeader(record.header));
  Buffer memory;
  ANABRANCH_RETURN_IF_ERROR(
      store.ReadPayload(kTenant, id, [&](size_t bytes) -> absl::StatusOr<absl::Span<char>> {
        ANABRANCH_ASSIGN_OR_RETURN(memory, engine.PayloadMemory(bytes));
        return absl::MakeSpan(static_cast<char*>(memory.data()), bytes);
      }));
  image.payload = StateBytes(std::move(memory), record.payload_bytes);
  for (const std::string& hash : record.blob_hashes) {
    ANABRANCH_ASSIGN_OR_RETURN(std::string blob, store.GetBlob(kTenant, hash));
    image.kv_blocks.push_back(std::move(blob));
  }
  return loaded;
}

}  // namespace anabranch::bench
