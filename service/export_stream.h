// States.Export: a state or lineage as a bundle, chunk by chunk.
#pragma once

#include <optional>
#include <string>

#include "anabranch/v1/bundles.pb.h"
#include "service/pull_stream.h"
#include "statestore/bundle_source.h"

namespace anabranch {

// `request` outlives it.
class ExportStream final : public PullStream<v1::ExportResponse> {
 public:
  ExportStream(ServiceContext* service, grpc::CallbackServerContext* context,
               const v1::ExportRequest* request)
      : PullStream(service, context, "Export", service->limits.stream_deadline), request_(request) {
    Begin();
  }

 private:
  absl::StatusOr<bool> Next(v1::ExportResponse* response) override;
  absl::Status Open(v1::ExportResponse* response);
  // Leaves out what the client has. The whole is hashed, so this reads it too.
  absl::Status SkipTo(int64_t offset);
  absl::Status FillBuffer();

  const v1::ExportRequest* const request_;
  std::optional<BundleSource> source_;
  std::string buffer_;  // made and not sent yet
  int64_t offset_ = 0;  // of buffer_
  bool ended_ = false;
};

}  // namespace anabranch
