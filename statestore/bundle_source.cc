#include "statestore/bundle_source.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "statestore/base/status_macros.h"
#include "statestore/record_codec.h"

namespace anabranch {
namespace {

constexpr size_t kEndBytes = 4 + Sha256::kBytes;

// The state and all its ancestors, parents before children.
absl::StatusOr<std::vector<std::string>> WithAncestors(StateStore& store, const std::string& tenant,
                                                       const std::string& id) {
  struct Visit {
    std::string id;
    std::vector<std::string> parents;  // not visited yet, last first
  };
  std::vector<std::string> order;
  absl::flat_hash_set<std::string> seen = {id};
  std::vector<Visit> path;
  const auto enter = [&](const std::string& state) -> absl::Status {
    ANABRANCH_ASSIGN_OR_RETURN(StateRecord record, store.GetState(tenant, state));
    std::reverse(record.parents.begin(), record.parents.end());
    path.push_back({state, std::move(record.parents)});
    return absl::OkStatus();
  };
  ANABRANCH_RETURN_IF_ERROR(enter(id));
  while (!path.empty()) {
    Visit& last = path.back();
    if (last.parents.empty()) {
      order.push_back(std::move(last.id));
      path.pop_back();
      continue;
    }
    const std::string parent = std::move(last.parents.back());
    last.parents.pop_back();
    if (seen.insert(parent).second) ANABRANCH_RETURN_IF_ERROR(enter(parent));
  }
  return order;
}

// Which of the ancestors come with their contents.
absl::StatusOr<absl::flat_hash_set<std::string>> WholeStates(StateStore& store,
                                                             const StateRecord& state) {
  absl::flat_hash_set<std::string> whole = {state.id};
  StateRecord each = state;
  while (each.operation == StateOperation::kAppend && !each.parents.empty()) {
    ANABRANCH_ASSIGN_OR_RETURN(each, store.GetState(state.tenant, each.parents.front()));
  }
  if (each.operation != StateOperation::kAppend) whole.insert(each.id);
  return whole;
}

// As ThinState leaves it.
void Thin(StateRecord& record) {
  record.thinned = true;
  record.pinned = false;
  record.labels.clear();
  record.expires = absl::InfiniteFuture();
  record.header.clear();
  record.blob_hashes.clear();
  record.payload_bytes = record.payload_checksum = record.blob_bytes = 0;
  record.codec = StateCodec::kExact;
  record.keep_codec = false;
  record.exact_bytes = record.lossy_restores = 0;
  record.codec_error = 0;
}

class Planner {
 public:
  Planner(StateStore& store, BundleHeader header, const BundleScope& scope)
      : store_(store), scope_(scope), id_(header) {
    plan_.header = std::move(header);
  }

  absl::Status AddState(const std::string& id, bool whole) {
    ANABRANCH_ASSIGN_OR_RETURN(StateRecord record, store_.GetState(plan_.header.tenant, id));
    if (!whole && !record.thinned) Thin(record);
    for (const std::string& hash : record.blob_hashes) {
      if (blobs_.insert(hash).second) ANABRANCH_RETURN_IF_ERROR(AddBlob(hash));
    }
    const std::string bytes = EncodeBundleRecord(record);
    Add({BundleItemKind::kState, id, bytes.size(), record.payload_bytes}, bytes);
    plan_.items.back().thin = !whole || record.thinned;
    ++plan_.header.states;
    if (!IsWhole(record)) return absl::OkStatus();
    ++plan_.header.whole_states;
    whole_.push_back(id);
    return absl::OkStatus();
  }

  absl::Status AddRefs() {
    for (const std::string& id : whole_) {
      ANABRANCH_ASSIGN_OR_RETURN(const StateUsers users, store_.GetUsers(plan_.header.tenant, id));
      for (const std::string& ref : users.refs) {
        Add({BundleItemKind::kRef, ref, id.size(), 0}, id);
        plan_.items.back().state_id = id;
        ++plan_.header.refs;
      }
    }
    return absl::OkStatus();
  }

  BundlePlan Finish() && {
    BundleHeader& header = plan_.header;
    header.bundle_id = id_.Finish();
    header.size_bytes = EncodeBundleHeader(header).size() + kEndBytes;
    for (const BundlePlan::Item& each : plan_.items) {
      header.size_bytes += BundleItemBytes(each.item);
    }
    return std::move(plan_);
  }

 private:
  absl::Status AddBlob(const std::string& hash) {
    ANABRANCH_ASSIGN_OR_RETURN(const std::string blob, store_.GetBlob(plan_.header.tenant, hash));
    Add({BundleItemKind::kBlob, hash, 0, blob.size()}, "");
    ++plan_.header.blobs;
    return absl::OkStatus();
  }

  void Add(BundleItem item, absl::string_view record) {
    id_.Add(item, record);
    plan_.items.push_back({std::move(item), false, "", PayloadChecksum(record)});
  }

  StateStore& store_;
  const BundleScope scope_;
  BundlePlan plan_;
  BundleIdHasher id_;
  absl::flat_hash_set<std::string> blobs_;
  std::vector<std::string> whole_;
};

}  // namespace

absl::StatusOr<BundlePlan> PlanBundle(StateStore& store, const std::string& tenant,
                                      const std::string& id, const BundleScope& scope) {
  ANABRANCH_ASSIGN_OR_RETURN(const StateRecord state, store.GetState(tenant, id));
  if (state.thinned) {
    return absl::FailedPreconditionError(
        absl::StrCat("state ", id, " was thinned: its content is gone, only its tokens stay"));
  }
  BundleHeader header;
  header.tenant = tenant;
  header.fingerprint = state.fingerprint;
  header.numerics_profile = state.numerics_profile;
  header.state_id = id;
  Planner planner(store, std::move(header), scope);
  ANABRANCH_ASSIGN_OR_RETURN(const std::vector<std::string> states,
                             WithAncestors(store, tenant, id));
  ANABRANCH_ASSIGN_OR_RETURN(const auto whole, WholeStates(store, state));
  for (const std::string& each : states) {
    ANABRANCH_RETURN_IF_ERROR(planner.AddState(each, scope.lineage || whole.contains(each)));
  }
  if (scope.refs) ANABRANCH_RETURN_IF_ERROR(planner.AddRefs());
  return std::move(planner).Finish();
}

BundleSource::BundleSource(StateStore* store, BundlePlan plan)
    : store_(store), plan_(std::move(plan)) {}

std::string BundleSource::Out(std::string bytes) {
  offset_ += bytes.size();
  hash_.Add(bytes);
  return bytes;
}

absl::StatusOr<std::string> BundleSource::Next() {
  if (!begun_) {
    begun_ = true;
    return Out(EncodeBundleHeader(plan_.header));
  }
  if (data_offset_ < data_.size()) return NextChunk();
  if (next_item_ < plan_.items.size()) return BeginItem();
  if (ended_) return std::string();
  ended_ = true;
  std::string end = Out(std::string(4, '\0'));
  end += hash_.Finish();
  return end;
}

absl::StatusOr<std::string> BundleSource::BeginItem() {
  const BundlePlan::Item& planned = plan_.items[next_item_++];
  data_offset_ = 0;
  ANABRANCH_RETURN_IF_ERROR(LoadItem(planned));
  return Out(EncodeBundleItem(planned.item, offset_));
}

absl::Status BundleSource::LoadItem(const BundlePlan::Item& planned) {
  const std::string& tenant = plan_.header.tenant;
  const BundleItem& item = planned.item;
  data_.clear();
  if (item.kind == BundleItemKind::kRef) {
    data_ = planned.state_id;
  } else if (item.kind == BundleItemKind::kBlob) {
    ANABRANCH_ASSIGN_OR_RETURN(data_, store_->GetBlob(tenant, item.name));
  } else {
    ANABRANCH_ASSIGN_OR_RETURN(StateRecord record, store_->GetState(tenant, item.name));
    if (planned.thin && !record.thinned) Thin(record);
    data_ = EncodeBundleRecord(record);
    const bool same = PayloadChecksum(data_) == planned.record_sum;
    if (same && IsWhole(record)) {
      ANABRANCH_ASSIGN_OR_RETURN(const std::string payload, store_->GetPayload(tenant, item.name));
      data_ += payload;
    }
    if (!same) data_.clear();
  }
  if (data_.size() == item.record_bytes + item.content_bytes) return absl::OkStatus();
  return absl::AbortedError(
      absl::StrCat(item.name, " changed while it was exported: export again from the beginning"));
}

std::string BundleSource::NextChunk() {
  const size_t count = std::min(kBundleChunkBytes, data_.size() - data_offset_);
  const absl::string_view chunk = absl::string_view(data_).substr(data_offset_, count);
  data_offset_ += count;
  return Out(absl::StrCat(chunk, BundleChunkChecksum(chunk, offset_)));
}

}  // namespace anabranch
