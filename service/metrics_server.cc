#include "service/metrics_server.h"

#include <httplib.h>

#include <exception>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "service/host_port.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

// A few kilobytes of request line and headers are all that a scraper sends.
constexpr size_t kMaxRequestBytes = 64 << 10;

class HttpMetricsServer : public MetricsServer {
 public:
  HttpMetricsServer(std::function<std::string()> render, std::function<bool()> healthy) {
    // Without SO_REUSEPORT, which the library sets by default: a second server must fail to bind.
    http_.set_socket_options([](socket_t socket) {
      int yes = 1;
      setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    });
    http_.new_task_queue = [] { return new httplib::ThreadPool(2); };
    http_.set_payload_max_length(kMaxRequestBytes);
    http_.Get("/metrics",
              [render = std::move(render)](const httplib::Request&, httplib::Response& response) {
                response.set_content(render(), "text/plain; version=0.0.4");
              });
    http_.Get("/healthz",
              [healthy = std::move(healthy)](const httplib::Request&, httplib::Response& response) {
                const bool ok = healthy();
                response.status = ok ? 200 : 503;
                response.set_content(ok ? "serving\n" : "not serving\n", "text/plain");
              });
  }

  ~HttpMetricsServer() override {
    http_.stop();
    if (thread_.joinable()) thread_.join();
  }

  absl::Status Listen(HostPort address) {
    address_ = std::move(address);
    if (address_.port == 0) {
      address_.port = http_.bind_to_any_port(address_.host.c_str());
      if (address_.port < 0) return absl::UnavailableError("no port is free");
    } else if (!http_.bind_to_port(address_.host.c_str(), address_.port)) {
      return absl::UnavailableError(absl::StrCat("cannot listen on ", FormatHostPort(address_),
                                                 " for metrics: the port is in use or the address "
                                                 "is not of this machine"));
    }
    thread_ = std::thread([this] { http_.listen_after_bind(); });
    // stop() before the loop runs would be lost.
    while (!http_.is_running()) std::this_thread::yield();
    return absl::OkStatus();
  }

  std::string address() const override { return FormatHostPort(address_); }

 private:
  httplib::Server http_;
  HostPort address_;
  std::thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(
    const std::string& address, std::function<std::string()> render,
    std::function<bool()> healthy) {
  ANABRANCH_ASSIGN_OR_RETURN(const HostPort parsed, ParseHostPort(address));
  auto server = std::make_unique<HttpMetricsServer>(std::move(render), std::move(healthy));
  ANABRANCH_RETURN_IF_ERROR(server->Listen(parsed));
  return std::unique_ptr<MetricsServer>(std::move(server));
}

}  // namespace anabranch
