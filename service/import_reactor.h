// States.Import: receives a bundle, verifying every chunk as it comes, then takes it in.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "anabranch/v1/bundles.pb.h"
#include "service/deadline_guard.h"
#include "service/import_commit.h"
#include "service/import_staging.h"
#include "service/service_context.h"
#include "service/stream_writer.h"
#include "statestore/bundle_reader.h"

namespace anabranch {

// Deletes itself in OnDone.
class ImportReactor final
    : public StreamWriter<grpc::ServerBidiReactor<v1::ImportRequest, v1::ImportProgress>,
                          v1::ImportProgress> {
 public:
  ImportReactor(ServiceContext* service, grpc::CallbackServerContext* context);

  void OnReadDone(bool ok) override;
  void OnCancel() override { call_->cancel->Cancel(); }
  void OnDone() override { delete this; }

 private:
  // Refuses a bundle of another tenant or model with its first bytes.
  class OriginCheck : public BundleVisitor {
   public:
    explicit OriginCheck(ImportReactor* owner) : owner_(owner) {}
    absl::Status OnHeader(const BundleHeader& header) override;

   private:
    ImportReactor* const owner_;
  };

  void Merge(v1::ImportProgress later, v1::ImportProgress* pending) override;

  // Steps of the call, each on the worker pool.
  // The next message is read when the one before is in the file.
  void HandleRequest();
  absl::Status Start();
  absl::Status CheckStart() const;
  // Reads again what arrived before, so that the next byte is verified in its place.
  absl::Status CatchUp();
  absl::Status Receive(const v1::BundleChunk& chunk);
  void Complete();
  // A part of the commit; the pool runs other calls in between.
  void CommitStep();

  // What was received and stored so far.
  void SendProgress();
  // A bundle that is wrong will not become right: its bytes go.
  absl::Status Wrong(const absl::Status& status);
  void Fail(absl::Status status);

  ServiceContext* service_;  // of the first model until the bundle's header is read
  CallPtr call_;
  DeadlineGuard guard_;
  v1::ImportRequest request_;
  v1::ImportStart start_;
  OriginCheck origin_{this};
  std::unique_ptr<BundleReader> reader_;
  std::unique_ptr<StagedImport> staged_;
  std::unique_ptr<ImportCommit> commit_;
};

}  // namespace anabranch
