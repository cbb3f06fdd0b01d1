// A bundle made from a library: first a plan, which fixes every byte without holding any content,
// then the bytes. The plan of unchanged states is the same every time, so a transfer that broke off
// goes on from a new plan at any offset.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "statestore/bundle_format.h"
#include "statestore/state_store.h"

namespace anabranch {

struct BundleScope {
  // Ancestors with their contents. Else only the nearest computed one, which cannot be read again,
  // has its content, and the others come as thinned records: lineage and tokens.
  bool lineage = false;
  bool refs = true;  // names of the states that come whole
};

struct BundlePlan {
  struct Item {
    BundleItem item;
    bool thin = false;     // a state that comes as a record alone
    std::string state_id;  // of a ref
    uint64_t record_sum = 0;
  };
  BundleHeader header;
  std::vector<Item> items;
};

// Reads every record once. An archived state comes as it is: record and header. FAILED_PRECONDITION
// if the state itself is thinned; NOT_FOUND.
absl::StatusOr<BundlePlan> PlanBundle(StateStore& store, const std::string& tenant,
                                      const std::string& id, const BundleScope& scope);

class BundleSource {
 public:
  // `store` outlives this.
  BundleSource(StateStore* store, BundlePlan plan);

  // The next bytes, at most about 1 MiB; empty at the end. DATA_LOSS if a state is damaged; ABORTED
  // if it has changed since the plan was made.
  absl::StatusOr<std::string> Next();

 private:
  absl::StatusOr<std::string> BeginItem();
  absl::Status LoadItem(const BundlePlan::Item& planned);
  std::string NextChunk();
  // Counts and hashes what leaves.
  std::string Out(std::string bytes);

  StateStore* const store_;
  const BundlePlan plan_;
  size_t next_item_ = 0;
  std::string data_;  // record and content of the item at hand
  size_t data_offset_ = 0;
  uint64_t offset_ = 0;
  bool begun_ = false, ended_ = false;
  Sha256 hash_;
};

}  // namespace anabranch
