#include "statestore/branch_points.h"

#include <algorithm>
#include <deque>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "statestore/base/status_macros.h"
#include "statestore/key_schema.h"
#include "statestore/library_reads.h"
#include "statestore/state_store.h"

namespace anabranch {
namespace {

constexpr size_t kMaxStarts = 64, kMaxSpans = 256;  // looked at for one history

// A point that spans start from: a state, or the root of a model's states.
struct Start {
  std::string name;
  int64_t position = 0;
};

std::string RootName(absl::string_view scope) { return absl::BytesToHexString(scope); }

std::string SpanName(const std::string& start, const PrefixHasher& hasher,
                     absl::Span<const int32_t> tokens) {
  const std::string hash = hasher.Extend(hasher.Empty(), tokens.first(kMinBranchTokens));
  return absl::StrCat(start, ":", absl::BytesToHexString(hash));
}

int64_t CommonTokens(absl::Span<const int32_t> a, absl::Span<const int32_t> b) {
  const size_t shorter = std::min(a.size(), b.size());
  return std::mismatch(a.begin(), a.begin() + shorter, b.begin()).first - a.begin();
}

}  // namespace

std::string SpanEdgeKey(const StoredState& state, const PrefixHasher& hasher) {
  const StateRecord& record = state.record;
  if (state.prefix_hash.empty() ||
      static_cast<int64_t>(record.span_tokens.size()) < kMinBranchTokens) {
    return "";
  }
  const std::string start =
      record.parents.empty() ? RootName(hasher.Scope(record.fingerprint, record.numerics_profile))
                             : record.parents.front();
  return EdgeKey(record.tenant, Edge::kSpan, SpanName(start, hasher, record.span_tokens),
                 record.id);
}

absl::StatusOr<int64_t> FindBranchPoint(const Snapshot& snapshot, const PrefixHasher& hasher,
                                        const std::string& tenant, absl::string_view scope,
                                        absl::Span<const int32_t> tokens) {
  std::deque<Start> open;
  absl::flat_hash_set<std::string> seen;
  const auto add = [&](const std::string& name, int64_t position) {
    if (seen.insert(name).second) open.push_back({name, position});
  };
  // Hashes propose; tokens that differ after all cost a state that nobody uses.
  ANABRANCH_RETURN_IF_ERROR(
      FindLongestPrefix(snapshot, PrefixScopeKey(tenant, scope), hasher.Chain(tokens),
                        [&](int64_t length, const std::string& state) {
                          add(state, length);
                          return absl::StatusOr<bool>(seen.size() >= kMaxStarts);
                        })
          .status());
  add(RootName(scope), 0);
  int64_t deepest = 0;
  for (size_t spans = 0; !open.empty() && spans < kMaxSpans; open.pop_front()) {
    const Start start = open.front();
    const absl::Span<const int32_t> rest = tokens.subspan(start.position);
    if (static_cast<int64_t>(rest.size()) < kMinBranchTokens) continue;
    const std::string prefix = EdgePrefix(tenant, Edge::kSpan, SpanName(start.name, hasher, rest));
    std::vector<std::string> ids;
    ANABRANCH_RETURN_IF_ERROR(
        snapshot.Scan(Family::kEdges, prefix, "", [&](absl::string_view key, absl::string_view) {
          ids.emplace_back(UserOfEdgeKey(prefix, key));
          return ++spans < kMaxSpans;
        }));
    for (const std::string& id : ids) {
      const absl::StatusOr<StoredState> state = ReadState(snapshot, tenant, id);
      if (!state.ok()) continue;  // damaged: a branch point less must not cost the call
      const std::vector<int32_t>& span = state->record.span_tokens;
      const int64_t common = CommonTokens(span, rest);
      deepest = std::max(deepest, start.position + common);
      if (common == static_cast<int64_t>(span.size())) add(id, start.position + common);
    }
  }
  return deepest;
}

}  // namespace anabranch
