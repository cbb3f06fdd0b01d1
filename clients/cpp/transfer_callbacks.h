// What a Client calls while it moves states or reads libraries.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "anabranch/v1/bundles.pb.h"
#include "anabranch/v1/maintenance.pb.h"
#include "anabranch/v1/retention.pb.h"

namespace anabranch {

// The next bytes of an export, from Export's thread. An error cancels it and is its result.
using ChunkSink = std::function<absl::Status(const v1::BundleInfo& bundle, int64_t offset,
                                             const std::string& data)>;
// Up to `count` bytes of a bundle from `offset`; empty at the end.
using ChunkSource = std::function<absl::StatusOr<std::string>(int64_t offset, size_t count)>;
// Called for each message; Import's from another thread than its own, one at a time.
using ImportCallback = std::function<void(const v1::ImportProgress&)>;
using BackupCallback = std::function<void(const v1::BackupProgress&)>;
using VerifyCallback = std::function<void(const v1::VerifyProgress&)>;
// Deadline of calls that read or copy a whole library.
inline constexpr absl::Duration kMaintenanceTimeout = absl::Hours(240);
// Called for each message of a garbage collection, from CollectGarbage's thread.
using GarbageCallback = std::function<void(const v1::GarbageProgress&)>;

}  // namespace anabranch
