// What a server says about an error, kept on the absl::Status that Client returns:
//
//   absl::StatusOr<v1::Session> session = client.GetSession("notes");
//   if (anabranch::ErrorReason(session.status()) == "SESSION_NOT_FOUND") ...
//
// The code is the RPC's code and the message is the server's message, unchanged. Reasons are
// stable; messages are for people and may change.
#pragma once

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace anabranch {

// The payload's type URL; the payload is a serialized google.rpc.ErrorInfo.
inline constexpr absl::string_view kErrorInfoUrl = "type.googleapis.com/google.rpc.ErrorInfo";

// The reason, such as "SESSION_BUSY"; empty if the error did not come from an Anabranch server (for
// example because no server could be reached).
std::string ErrorReason(const absl::Status& status);

// The reason's metadata, such as {"field": "max_tokens"}; empty if there is none.
std::map<std::string, std::string> ErrorMetadata(const absl::Status& status);

}  // namespace anabranch
