// Feeds bytes to the bundle reader: as they are, and again as the items of a bundle whose header,
// checksums, id and hash are made right, so that the checks behind them are reached. How the bytes
// are split must not matter.
#include <algorithm>
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "statestore/bundle_reader.h"
#include "statestore/byte_coding.h"

namespace {

using namespace anabranch;

absl::Status Read(const std::string& bytes, size_t piece) {
  BundleVisitor nobody;
  BundleReader reader(&nobody);
  for (size_t at = 0; at < bytes.size(); at += piece) {
    const absl::Status fed = reader.Feed(absl::string_view(bytes).substr(at, piece));
    if (!fed.ok()) return fed;
  }
  return reader.Finish();
}

void Check(const std::string& bytes, size_t piece) {
  if (Read(bytes, bytes.size() + 1) != Read(bytes, piece)) __builtin_trap();
}

// The fuzzer's bytes say what the items are: kind, name, record, content, until they end.
std::string WellMade(absl::string_view input) {
  ByteReader in(input);
  BundleHeader header;
  header.tenant = "t";
  header.fingerprint = std::string(in.String());
  header.numerics_profile = "p";
  header.state_id = "st-" + std::string(40, '0');
  header.states = in.Varint();
  header.whole_states = in.Varint();
  header.blobs = in.Varint();
  header.refs = in.Varint();
  std::string items;
  // The header's length depends on its numbers; two rounds settle it.
  for (int round = 0; round < 3; ++round) {
    header.bundle_id = std::string(32, 'x');
    header.size_bytes = EncodeBundleHeader(header).size() + items.size() + 36;
    BundleIdHasher id(header);
    ByteReader rest = in;
    items.clear();
    const size_t start = EncodeBundleHeader(header).size();
    while (rest.ok() && !rest.AtEnd()) {
      BundleItem item;
      item.kind = static_cast<BundleItemKind>(1 + rest.Byte() % 3);
      item.name = std::string(rest.String());
      std::string record(rest.String()), content(rest.String());
      if (item.kind == BundleItemKind::kState) {
        StateRecord state;
        state.tenant = header.tenant;
        state.fingerprint = header.fingerprint;
        state.numerics_profile = header.numerics_profile;
        state.span_tokens.assign(record.begin(), record.end());
        state.token_count = static_cast<int64_t>(record.size());
        state.thinned = content.empty();
        state.payload_bytes = content.size();
        state.id = item.name;
        record = EncodeBundleRecord(state);
      }
      item.record_bytes = record.size();
      item.content_bytes = content.size();
      items += EncodeBundleItem(item, start + items.size());
      const std::string data = record + content;
      if (!data.empty()) {
        items += absl::StrCat(data, BundleChunkChecksum(data, start + items.size()));
      }
      id.Add(item, record);
    }
    header.size_bytes = EncodeBundleHeader(header).size() + items.size() + 36;
    header.bundle_id = id.Finish();
  }
  const std::string bytes = absl::StrCat(EncodeBundleHeader(header), items, std::string(4, '\0'));
  Sha256 hash;
  hash.Add(bytes);
  return bytes + hash.Finish();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  const size_t piece = 1 + (size == 0 ? 0 : data[0] % 61);
  Check(bytes, piece);
  Check(WellMade(bytes), piece);
  return 0;
}
