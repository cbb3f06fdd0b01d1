// Serves GET /metrics (Prometheus text) and /healthz (200 or 503) over plain HTTP.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace anabranch {

class MetricsServer {
 public:
  // Listens on `address` ("127.0.0.1:9464"; port 0: any) and serves on its own threads.
  // `render` and `healthy` may be called from any thread. UNAVAILABLE if the port is taken.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(const std::string& address,
                                                              std::function<std::string()> render,
                                                              std::function<bool()> healthy);
  virtual ~MetricsServer() = default;  // stops serving

  virtual std::string address() const = 0;  // with the port really bound
};

}  // namespace anabranch
