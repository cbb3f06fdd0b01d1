// Bundles as files:
//
//   auto bundle = anabranch::ExportToFile(client, request, "ada.bundle");
//   auto result = anabranch::ImportFromFile(other, {}, "ada.bundle");
//
// Both go on where they were when they are called again after an error.
#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "clients/cpp/client.h"

namespace anabranch {

// Bytes so far, and of the whole bundle.
using TransferCallback = std::function<void(int64_t done, int64_t total)>;

// Writes PATH.part, and PATH when all is there: an existing file is replaced only by a whole one. A
// PATH.part of the same bundle is continued. If states change meanwhile, begins again, a few times.
absl::StatusOr<v1::BundleInfo> ExportToFile(Client& client, v1::ExportRequest request,
                                            const std::string& path,
                                            const TransferCallback& on_progress = nullptr,
                                            Cancellation* cancel = nullptr);

// `start`: transfer_id and size_bytes are filled in. INVALID_ARGUMENT if the file cannot be read.
absl::StatusOr<v1::ImportResult> ImportFromFile(Client& client, v1::ImportStart start,
                                                const std::string& path,
                                                const TransferCallback& on_progress = nullptr,
                                                Cancellation* cancel = nullptr);

}  // namespace anabranch
