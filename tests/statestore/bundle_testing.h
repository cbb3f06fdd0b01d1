// Bundles for tests: a small library's states as bytes, and bytes read back.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "statestore/bundle_reader.h"
#include "statestore/bundle_source.h"
#include "tests/statestore/library_fixture.h"

namespace anabranch {

// Every byte of the bundle of a state.
inline std::string BundleOf(StateStore& store, const std::string& id, const BundleScope& scope) {
  auto plan = PlanBundle(store, kTenant, id, scope);
  EXPECT_TRUE(plan.ok()) << plan.status();
  if (!plan.ok()) return "";
  BundleSource source(&store, *std::move(plan));
  std::string bytes;
  for (;;) {
    auto next = source.Next();
    EXPECT_TRUE(next.ok()) << next.status();
    if (!next.ok() || next->empty()) return bytes;
    bytes += *next;
  }
}

// Keeps all that a bundle holds, in order.
struct CollectedBundle : BundleVisitor {
  absl::Status OnHeader(const BundleHeader& each) override {
    header = each;
    return absl::OkStatus();
  }
  absl::Status OnBlob(const BundleItem& item) override {
    current = item.name;
    return absl::OkStatus();
  }
  absl::Status OnState(const StateRecord& record) override {
    states.push_back(record);
    current = record.id;
    return absl::OkStatus();
  }
  absl::Status OnContent(absl::string_view piece, uint64_t) override {
    contents[current].append(piece.data(), piece.size());
    return absl::OkStatus();
  }
  absl::Status OnRef(const std::string& name, const std::string& state) override {
    refs[name] = state;
    return absl::OkStatus();
  }

  BundleHeader header;
  std::vector<StateRecord> states;
  std::map<std::string, std::string> contents, refs;  // by state id or blob hash; by name
  std::string current;
};

// Reads a bundle in pieces of `piece` bytes.
inline absl::Status ReadBundle(absl::string_view bytes, BundleVisitor* visitor,
                               size_t piece = 4093) {
  BundleReader reader(visitor);
  for (; !bytes.empty(); bytes.remove_prefix(std::min(piece, bytes.size()))) {
    const absl::Status fed = reader.Feed(bytes.substr(0, piece));
    if (!fed.ok()) return fed;
  }
  return reader.Finish();
}

// Four states, two refs, two shared blobs: a root, its child with a label, a grandchild, and a
// merge of the two children of the root.
struct SmallLibrary {
  static SmallLibrary In(StateStore& store) {
    SmallLibrary all;
    all.root = Fixed(MakeState({1, 2, 3}));
    all.child = Fixed(MakeState({4, 5}, &all.root));
    all.child.labels = {{"topic", "rivers"}};
    all.child.pinned = true;
    all.leaf = Fixed(MakeState({6}, &all.child));
    all.merge = all.root;
    all.merge.operation = StateOperation::kMerge;
    all.merge.operation_params = "method=compose";
    all.merge.parents = {all.child.id, all.leaf.id};
    all.merge.span_tokens = {1, 2, 3, 4, 5, 6};
    all.merge.token_count = 6;
    all.merge.id = StateId(all.merge);
    Mutation mutation;
    int payload = 0;
    for (StateRecord* state : {&all.root, &all.child, &all.leaf, &all.merge}) {
      PutState put =
          Put(*state, std::string(1000 + 10 * payload, static_cast<char>('a' + payload)));
      put.record.blob_hashes = {"blob-one", absl::StrCat("blob-of-", payload)};
      put.blobs = {std::string(500, '1'), std::string(300, static_cast<char>('A' + payload))};
      put.record.blob_bytes = 800;
      ++payload;
      mutation.operations.push_back(std::move(put));
    }
    mutation.operations.push_back(SetRef{kTenant, "rivers/main", all.leaf.id, std::nullopt});
    mutation.operations.push_back(SetRef{kTenant, "rivers/old", all.child.id, std::nullopt});
    EXPECT_TRUE(store.CommitAndWait(std::move(mutation)).ok());
    return all;
  }

  // The same bytes on every day.
  static StateRecord Fixed(StateRecord record) {
    record.created = absl::FromUnixSeconds(1800000000);
    return record;
  }

  StateRecord root, child, leaf, merge;
};

}  // namespace anabranch
