#include "statestore/state_need.h"

#include <string>
#include <vector>

#include "statestore/base/status_macros.h"
#include "statestore/library_reads.h"

namespace anabranch {
namespace {

// A state with more is a point that many lines start from: it stays as it is.
constexpr size_t kMaxChildren = 64;

}  // namespace

absl::StatusOr<StateNeed> NeedOf(const KeyValueReader& reader, const StateRecord& record) {
  StateNeed need;
  need.readable_again = record.operation == StateOperation::kAppend;
  for (const Edge edge : {Edge::kRef, Edge::kSession}) {
    ANABRANCH_ASSIGN_OR_RETURN(const std::string user,
                               AnyUser(reader, record.tenant, edge, record.id));
    need.named = need.named || !user.empty();
  }
  std::vector<std::string> children;
  const std::string prefix = EdgePrefix(record.tenant, Edge::kChild, record.id);
  ANABRANCH_RETURN_IF_ERROR(
      reader.Scan(Family::kEdges, prefix, "", [&](absl::string_view key, absl::string_view) {
        children.emplace_back(UserOfEdgeKey(prefix, key));
        return children.size() <= kMaxChildren;
      }));
  need.children = static_cast<int>(children.size());
  need.computed_child = children.size() > kMaxChildren;
  for (size_t i = 0; i < children.size() && !need.computed_child; ++i) {
    ANABRANCH_ASSIGN_OR_RETURN(const StoredState child,
                               ReadState(reader, record.tenant, children[i]));
    need.computed_child = child.record.operation != StateOperation::kAppend;
  }
  return need;
}

}  // namespace anabranch
