// What `anabranchd serve` is told, with defaults. Fields are flags of the same name.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kernels/launch.h"
#include "service/janitor.h"
#include "service/limits.h"
#include "service/model_spec.h"
#include "service/reencoding_options.h"

namespace anabranch {

struct ServerConfig {
  std::vector<ModelSpec> models;           // at least one; the first is that of who names none
  std::string data;                        // folder of the library; made if missing
  std::string listen = "127.0.0.1:50051";  // port 0: any free one
  std::string metrics = "127.0.0.1:9464";  // "off": none
  std::string dtype = "float32";           // or "bfloat16"
  std::string state_dtype = "float32";     // of resident states; or "bfloat16", "int8"
  int state_write_every = 1;               // see LoadOptions
  std::string device = "cpu";              // see Device::Open; several, an engine each: a,b
  std::string chat_format;                 // as for LoadModelText; empty: the folder's own
  int threads = 0;                         // of the model; 0: one per hardware thread
  int32_t slots = 64;                      // live sessions and forks
  int32_t kv_pages = 1024;                 // of 256 tokens, shared; ignored without attention
  // See HostStates; 0: none. Unset: 2 GiB with a GPU, and none without.
  std::optional<uint64_t> host_state_bytes;
  int64_t checkpoint_every = 2048;  // tokens between states in a long read; 0: none
  Limits limits;
  absl::Duration drain_timeout = absl::Seconds(25);
  uint64_t reserved_disk_bytes = 64u << 20;          // see StoreOptions
  std::string backup_root;                           // backups are made below it; empty: none are
  absl::Duration scrub_every = absl::Hours(7 * 24);  // a pass over the library; zero: none
  int64_t scrub_bytes_per_second = 8 << 20;          // how fast it reads; 0: no limit
  std::string state_codec = "exact";                 // of sessions that choose none
  ReencodingOptions reencoding;
  Quotas quotas;  // of each tenant
  absl::Duration default_expiry = absl::InfiniteDuration();
  JanitorOptions retention;
  bool accept_data_loss = false;  // serve a library that lacks acknowledged commits

  std::vector<std::string> DevicesOf(const ModelSpec& spec) const;  // at least one
  // INVALID_ARGUMENT names the first flag that is out of range.
  absl::Status Validate() const;
};

// INVALID_ARGUMENT names the flag and what it takes.
absl::StatusOr<kernels::DType> ParseDType(const std::string& name);
absl::StatusOr<kernels::DType> ParseStateDType(const std::string& name);

}  // namespace anabranch
