// A bundle that has arrived, taken into the library: first every state is checked against the model
// as if it were to be resumed, then they are committed, ancestors first, and at last the names.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "anabranch/v1/bundles.pb.h"
#include "service/import_staging.h"
#include "service/service_context.h"
#include "statestore/bundle_reader.h"

namespace anabranch {

// FAILED_PRECONDITION unless the bundle is of this tenant (TENANT_MISMATCH) and of the served model
// (MODEL_MISMATCH); names both.
absl::Status CheckBundleOrigin(const BundleHeader& header, const std::string& tenant,
                               const Model& model);

class ImportCommit {
 public:
  // `start` is what the client asked for. All outlive this.
  ImportCommit(ServiceContext* service, const CallPtr& call, const v1::ImportStart* start,
               const StagedImport* staged);
  ~ImportCommit();

  // Some of the work; true while there is more. Blocks on the library. DATA_LOSS: a state's bytes
  // are not what its header says; ABORTED: a ref moved. What was committed before an error stays,
  // whole, and is found when the import is repeated.
  absl::StatusOr<bool> Step();

  int64_t states_stored() const;
  const v1::ImportResult& result() const { return result_; }

 private:
  class Pass;
  class CheckPass;
  class StorePass;

  ServiceContext* const service_;
  const CallPtr call_;
  const v1::ImportStart* const start_;
  const StagedImport* const staged_;
  v1::ImportResult result_;
  std::unique_ptr<Pass> pass_;
  std::unique_ptr<BundleReader> reader_;
  int64_t offset_ = 0;
  int passes_ = 0;
};

}  // namespace anabranch
