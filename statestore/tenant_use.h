// The books of what each tenant holds, kept by the writer in the same batch as what they count, and
// the quotas that are checked against them before a mutation is taken.
#pragma once

#include <string>

#include "absl/container/btree_map.h"
#include "absl/status/statusor.h"
#include "statestore/overlay.h"
#include "statestore/retention.h"

namespace anabranch {

using UseByTenant = absl::btree_map<std::string, TenantUse>;

void Add(const TenantUse& more, TenantUse& use);

// What the changes of `own`, which is stacked on `base`, add to and take from each tenant.
absl::StatusOr<UseByTenant> UseChanges(const Overlay& own, const KeyValueReader& base);

// RESOURCE_EXHAUSTED if `change` grows something that is past its quota then.
absl::Status CheckQuotas(const std::string& tenant, const TenantUse& use, const TenantUse& change,
                         const Quotas& quotas);

// The books in the family meta.
std::string UseKey(absl::string_view tenant);
absl::StatusOr<UseByTenant> ReadUse(const KeyValueReader& reader);

// What the library holds, by looking at all of it. For libraries without books, and for tests.
absl::StatusOr<UseByTenant> CountUse(const KeyValueReader& reader);

// Bytes that a blob takes, from what its users note of it.
absl::StatusOr<int64_t> BlobBytes(const KeyValueReader& reader, absl::string_view tenant,
                                  absl::string_view hash);

}  // namespace anabranch
