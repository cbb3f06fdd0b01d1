// Admin.Verify: reads the library, or one state, and streams what is damaged.
#pragma once

#include <memory>

#include "anabranch/v1/maintenance.pb.h"
#include "service/pull_stream.h"
#include "service/scrubber.h"

namespace anabranch {

// `request` outlives it.
class VerifyStream final : public PullStream<v1::VerifyProgress> {
 public:
  VerifyStream(ServiceContext* service, grpc::CallbackServerContext* context,
               const v1::VerifyRequest* request)
      : PullStream(service, context, "Verify", service->limits.maintenance_deadline),
        request_(request) {
    Begin();
  }

 private:
  // One step of the pass; a pause for the limit in bytes holds no thread.
  absl::StatusOr<bool> Next(v1::VerifyProgress* response) override;

  const v1::VerifyRequest* const request_;
  std::unique_ptr<ScrubPass> pass_;
  bool done_ = false;
};

}  // namespace anabranch
