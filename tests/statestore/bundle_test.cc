// Bundles: what is exported comes back the same, the bytes are always the same, and nothing that
// is damaged, cut off or made up gets through the reader.
#include <sys/resource.h>

#include <fstream>
#include <random>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "statestore/byte_coding.h"
#include "statestore/record_codec.h"
#include "tests/statestore/bundle_testing.h"

namespace anabranch {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

class BundleTest : public LibraryTest {
 protected:
  void SetUp() override {
    options_.payload_part_bytes = 300;  // which no bundle tells of
    LibraryTest::SetUp();
    all_ = SmallLibrary::In(*store_);
    lineage_ = BundleOf(*store_, all_.merge.id, {true, true});
  }

  std::vector<std::string> IdsOf(const CollectedBundle& bundle) {
    std::vector<std::string> ids;
    for (const StateRecord& state : bundle.states) ids.push_back(state.id);
    return ids;
  }

  SmallLibrary all_;
  std::string lineage_;
};

TEST_F(BundleTest, ALineageHoldsAllAncestorsParentsFirstAndEachBlobOnce) {
  CollectedBundle bundle;
  ASSERT_TRUE(ReadBundle(lineage_, &bundle).ok()) << ReadBundle(lineage_, &bundle);
  CollectedBundle again;
  ASSERT_TRUE(ReadBundle(lineage_, &again, 1).ok());
  EXPECT_EQ(again.contents, bundle.contents);
  EXPECT_EQ(again.header.size_bytes, lineage_.size());
  EXPECT_THAT(IdsOf(again), ElementsAre(all_.root.id, all_.child.id, all_.leaf.id, all_.merge.id));
  EXPECT_EQ(again.header.whole_states, 4u);
  EXPECT_EQ(again.header.blobs, 5u);
  EXPECT_THAT(again.refs, UnorderedElementsAre(Pair("rivers/main", all_.leaf.id),
                                               Pair("rivers/old", all_.child.id)));
  EXPECT_EQ(again.contents[all_.leaf.id], std::string(1020, 'c'));
  EXPECT_EQ(again.contents["blob-one"], std::string(500, '1'));
  EXPECT_EQ(again.states[1].labels, all_.child.labels);
  EXPECT_EQ(again.states[1].created, all_.child.created);
  EXPECT_TRUE(again.states[1].pinned);
}

TEST_F(BundleTest, AStateAloneBringsItsAncestorsAsTokens) {
  CollectedBundle bundle;
  ASSERT_TRUE(ReadBundle(BundleOf(*store_, all_.leaf.id, {}), &bundle).ok());
  EXPECT_THAT(IdsOf(bundle), ElementsAre(all_.root.id, all_.child.id, all_.leaf.id));
  EXPECT_TRUE(bundle.states[0].thinned && bundle.states[1].thinned);
  EXPECT_EQ(bundle.states[1].span_tokens, all_.child.span_tokens);
  EXPECT_FALSE(bundle.states[2].thinned);
  EXPECT_THAT(bundle.refs, UnorderedElementsAre(Pair("rivers/main", all_.leaf.id)));
  EXPECT_EQ(bundle.header.blobs, 2u);
}

TEST_F(BundleTest, WhatGoesOnFromAMergeBringsTheMergeWhole) {
  const StateRecord after = MakeState({7}, &all_.merge);
  ASSERT_TRUE(Commit(Put(after)).ok());
  CollectedBundle bundle;
  ASSERT_TRUE(ReadBundle(BundleOf(*store_, after.id, {}), &bundle).ok());
  EXPECT_THAT(IdsOf(bundle),
              ElementsAre(all_.root.id, all_.child.id, all_.leaf.id, all_.merge.id, after.id));
  EXPECT_TRUE(bundle.states[2].thinned);
  EXPECT_FALSE(bundle.states[3].thinned);
}

TEST_F(BundleTest, TheBytesAreTheSameAgainAndAfterReopening) {
  Reopen();
  EXPECT_EQ(BundleOf(*store_, all_.merge.id, {true, true}), lineage_);
}

TEST_F(BundleTest, AThinnedStateCannotBeExported) {
  ASSERT_TRUE(Commit(ThinState{kTenant, all_.root.id}).ok());
  EXPECT_THAT(PlanBundle(*store_, kTenant, all_.root.id, {}).status(),
              FailsWith(absl::StatusCode::kFailedPrecondition, "was thinned"));
}

TEST_F(BundleTest, AThinnedRecordKeepsAPlaceInALineage) {
  TemporaryDirectory elsewhere;
  options_.directory = elsewhere.path() + "/library";
  Reopen();
  StateRecord root = all_.root, leaf = MakeState({9}, &all_.root);
  root.thinned = true;
  root.header.clear();
  ASSERT_TRUE(Commit(Put(root, ""), Put(leaf)).ok());
  EXPECT_THAT(*store_->GetTokens(kTenant, leaf.id), ElementsAre(1, 2, 3, 9));
  EXPECT_THAT(store_->GetPayload(kTenant, root.id).status(),
              FailsWith(absl::StatusCode::kFailedPrecondition, "thinned"));
  // It is not what a history resumes from, and a whole state is not made less by it.
  const std::vector<int32_t> history = {1, 2, 3, 4};
  EXPECT_FALSE(store_->FindPrefix(kTenant, "model-a", "cpu-float32", history, PrefixKind::kAny)
                   ->has_value());
  ASSERT_TRUE(Commit(Put(all_.root)).ok());
  EXPECT_TRUE(store_->FindPrefix(kTenant, "model-a", "cpu-float32", history, PrefixKind::kAny)
                  ->has_value());
  ASSERT_TRUE(Commit(Put(root, "")).ok());
  EXPECT_TRUE(store_->GetPayload(kTenant, root.id).ok());
  // Gone with the last that goes on from it.
  root = MakeState({8, 8});
  leaf = MakeState({9}, &root);
  root.thinned = true;
  root.header.clear();
  ASSERT_TRUE(Commit(Put(root, ""), Put(leaf), DeleteState{kTenant, leaf.id}).ok());
  EXPECT_TRUE(absl::IsNotFound(store_->GetState(kTenant, root.id).status()));
}

TEST_F(BundleTest, EveryTruncationIsRefused) {
  for (size_t length = 0; length < lineage_.size(); ++length) {
    CollectedBundle bundle;
    ASSERT_THAT(ReadBundle(absl::string_view(lineage_).substr(0, length), &bundle),
                FailsWith(kInvalid, "of the bundle"))
        << length;
  }
  BundleVisitor nobody;
  EXPECT_THAT(ReadBundle(lineage_ + "x", &nobody), FailsWith(kInvalid, "something follows"));
}

TEST_F(BundleTest, EveryFlippedBitIsRefused) {
  for (size_t byte = 0; byte < lineage_.size(); ++byte) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = lineage_;
      damaged[byte] = static_cast<char>(damaged[byte] ^ (1 << bit));
      BundleVisitor nobody;
      const absl::Status status = ReadBundle(damaged, &nobody);
      ASSERT_FALSE(status.ok()) << "bit " << bit << " of byte " << byte;
      ASSERT_TRUE(absl::IsInvalidArgument(status) || absl::IsFailedPrecondition(status)) << status;
    }
  }
}

// A bundle made by hand: every checksum is right, what it says is not.
class ForgedBundle {
 public:
  explicit ForgedBundle(const StateRecord& state) {
    header_.tenant = kTenant;
    header_.fingerprint = state.fingerprint;
    header_.numerics_profile = state.numerics_profile;
    header_.state_id = state.id;
    header_.states = header_.whole_states = 1;
  }
  BundleHeader& header() { return header_; }

  ForgedBundle& Add(BundleItemKind kind, const std::string& name, const std::string& record,
                    const std::string& content) {
    items_.push_back({{kind, name, record.size(), content.size()}, record, content});
    return *this;
  }
  ForgedBundle& AddState(StateRecord state, const std::string& content) {
    state.payload_bytes = content.size();
    state.payload_checksum = PayloadChecksumOf(content);
    return Add(BundleItemKind::kState, state.id, EncodeBundleRecord(state), content);
  }
  static uint64_t PayloadChecksumOf(const std::string& content);

  std::string Bytes() {
    BundleIdHasher id(header_);
    for (const auto& each : items_) id.Add(each.item, each.record);
    header_.bundle_id = id.Finish();
    if (header_.size_bytes == 0) {
      header_.size_bytes = EncodeBundleHeader(header_).size() + 36;
      for (const auto& each : items_) header_.size_bytes += BundleItemBytes(each.item);
    }
    std::string bytes = EncodeBundleHeader(header_);
    for (const auto& each : items_) {
      bytes += EncodeBundleItem(each.item, bytes.size());
      const std::string data = each.record + each.content;
      for (size_t at = 0; at < data.size(); at += kBundleChunkBytes) {
        const std::string chunk = data.substr(at, kBundleChunkBytes);
        const std::string sum = BundleChunkChecksum(chunk, bytes.size());
        bytes += chunk + sum;
      }
    }
    bytes += std::string(4, '\0');
    Sha256 hash;
    hash.Add(bytes);
    return bytes + hash.Finish();
  }

 private:
  struct Item {
    BundleItem item;
    std::string record, content;
  };
  BundleHeader header_;
  std::vector<Item> items_;
};

uint64_t ForgedBundle::PayloadChecksumOf(const std::string& content) {
  return PayloadChecksum(content);
}

absl::Status Read(ForgedBundle bundle) {
  BundleVisitor nobody;
  return ReadBundle(bundle.Bytes(), &nobody);
}

TEST_F(BundleTest, WhatIsWellMadeIsRead) {
  EXPECT_TRUE(Read(ForgedBundle(all_.root).AddState(all_.root, "payload")).ok())
      << Read(ForgedBundle(all_.root).AddState(all_.root, "payload"));
}

TEST_F(BundleTest, AnIdThatDoesNotFollowFromTheContentIsRefused) {
  StateRecord forged = all_.root;
  forged.span_tokens.back() = 99;
  EXPECT_THAT(Read(ForgedBundle(forged).AddState(forged, "x")),
              FailsWith(kInvalid, "does not follow from the state's content"));
  forged = all_.root;
  forged.fingerprint = "model-b";
  forged.id = StateId(forged);
  ForgedBundle other(all_.root);
  other.header().state_id = forged.id;
  EXPECT_THAT(Read(other.AddState(forged, "x")), FailsWith(kInvalid, "the bundle of model-a"));
}

TEST_F(BundleTest, IncompleteAndRepeatedContentIsRefused) {
  EXPECT_THAT(Read(ForgedBundle(all_.child).AddState(all_.child, "x")),
              FailsWith(kInvalid, "without its parent"));
  EXPECT_THAT(Read(ForgedBundle(all_.root).AddState(all_.root, "x").AddState(all_.root, "x")),
              FailsWith(kInvalid, "comes twice"));
  StateRecord needy = all_.root;
  needy.blob_hashes = {"blob"};
  needy.blob_bytes = 4;
  const auto blob = BundleItemKind::kBlob;
  EXPECT_THAT(Read(ForgedBundle(needy).AddState(needy, "x")),
              FailsWith(kInvalid, "without the block blob"));
  EXPECT_THAT(Read(ForgedBundle(needy).Add(blob, "blob", "", "12345").AddState(needy, "x")),
              FailsWith(kInvalid, "have 5 bytes; its record says 4"));
  EXPECT_THAT(Read(ForgedBundle(needy).Add(blob, "blob", "", "1234").Add(blob, "blob", "", "1234")),
              FailsWith(kInvalid, "comes twice"));
  EXPECT_THAT(Read(ForgedBundle(needy).Add(blob, "blob", "", "")), FailsWith(kInvalid, "is empty"));
  EXPECT_THAT(Read(ForgedBundle(all_.root).Add(blob, "b", "", "1").AddState(all_.root, "x")),
              FailsWith(kInvalid, "before a state that does not need it"));
  EXPECT_THAT(Read(ForgedBundle(all_.root).AddState(all_.root, "x").Add(blob, "b", "", "1")),
              FailsWith(kInvalid, "its header says"));
}

TEST_F(BundleTest, LyingSizesAndCountsAreRefused) {
  ForgedBundle many(all_.root);
  many.header().states = uint64_t{1} << 60;
  EXPECT_THAT(Read(many.AddState(all_.root, "x")), FailsWith(kInvalid, "its header says"));
  ForgedBundle small(all_.root);
  small.header().size_bytes = 100;
  EXPECT_THAT(Read(small.AddState(all_.root, "x")), FailsWith(kInvalid, "more than the 100"));
  ForgedBundle large(all_.root);
  large.header().size_bytes = uint64_t{1} << 50;
  EXPECT_THAT(Read(large.AddState(all_.root, "x")), FailsWith(kInvalid, "its header says"));
  StateRecord long_one = all_.root;
  long_one.payload_bytes = 2;
  EXPECT_THAT(Read(ForgedBundle(all_.root).Add(BundleItemKind::kState, all_.root.id,
                                               EncodeBundleRecord(long_one), "x")),
              FailsWith(kInvalid, "its record says 2"));
  long_one.payload_bytes = 1;
  long_one.payload_checksum = 5;
  EXPECT_THAT(Read(ForgedBundle(all_.root).Add(BundleItemKind::kState, all_.root.id,
                                               EncodeBundleRecord(long_one), "x")),
              FailsWith(kInvalid, "checksum of its record"));
}

TEST_F(BundleTest, BadRefsAreRefused) {
  const auto ref = BundleItemKind::kRef;
  ForgedBundle good(all_.root);
  good.header().refs = 1;
  good.AddState(all_.root, "x");
  EXPECT_TRUE(Read(ForgedBundle(good).Add(ref, "a/b", all_.root.id, "")).ok());
  EXPECT_THAT(Read(ForgedBundle(good).Add(ref, "A B", all_.root.id, "")),
              FailsWith(kInvalid, "ref"));
  EXPECT_THAT(Read(ForgedBundle(good).Add(ref, "a/b", all_.leaf.id, "")),
              FailsWith(kInvalid, "the bundle does not hold"));
  EXPECT_THAT(Read(ForgedBundle(good).Add(ref, "a/b", all_.root.id, "x")),
              FailsWith(kInvalid, "has content"));
  EXPECT_THAT(
      Read(ForgedBundle(good).Add(ref, "a/b", all_.root.id, "").Add(ref, "a/b", all_.root.id, "")),
      FailsWith(kInvalid, "comes twice"));
}

TEST_F(BundleTest, HugeClaimsTakeNoMemory) {
  ForgedBundle forged(all_.root);
  forged.header().size_bytes = uint64_t{1} << 50;
  std::string bytes = forged.Bytes();
  bytes.resize(bytes.size() - 36);
  bytes += EncodeBundleItem(
      {BundleItemKind::kState, all_.root.id, kMaxBundleRecordBytes, kMaxBundleContentBytes},
      bytes.size());
  rusage before, after;
  getrusage(RUSAGE_SELF, &before);
  BundleVisitor nobody;
  EXPECT_THAT(ReadBundle(bytes, &nobody), FailsWith(kInvalid, "it ends here"));
  getrusage(RUSAGE_SELF, &after);
  EXPECT_LT(after.ru_maxrss - before.ru_maxrss, 4096);  // KiB
}

TEST_F(BundleTest, ANewerFormatIsRefusedWithBothVersions) {
  std::string newer = lineage_;
  newer[8] = 2;
  BundleVisitor nobody;
  EXPECT_THAT(ReadBundle(newer, &nobody),
              FailsWith(absl::StatusCode::kFailedPrecondition,
                        "format version 2; this build reads version 1"));
}

// The bytes of format version 1 stay readable.
TEST_F(BundleTest, TheGoldenBundleOfVersion1StaysReadable) {
  const std::string path = ANABRANCH_GOLDEN_BUNDLES "/version1.bundle";
  if (std::getenv("ANABRANCH_UPDATE_GOLDEN") != nullptr) {
    std::ofstream(path, std::ios::binary) << lineage_;
  }
  std::ifstream file(path, std::ios::binary);
  ASSERT_TRUE(file) << path;
  std::stringstream golden;
  golden << file.rdbuf();
  CollectedBundle bundle;
  ASSERT_TRUE(ReadBundle(golden.str(), &bundle).ok()) << ReadBundle(golden.str(), &bundle);
  EXPECT_THAT(IdsOf(bundle), ElementsAre(all_.root.id, all_.child.id, all_.leaf.id, all_.merge.id));
  EXPECT_EQ(bundle.contents["blob-of-3"], std::string(300, 'D'));
  EXPECT_EQ(bundle.refs["rivers/main"], all_.leaf.id);
  EXPECT_EQ(bundle.states[1].labels, all_.child.labels);
}

}  // namespace
}  // namespace anabranch
