// Records of the library as messages of the API.
#pragma once

#include <google/protobuf/timestamp.pb.h>

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "anabranch/v1/resources.pb.h"
#include "service/session_journal.h"
#include "statestore/state_store.h"

namespace anabranch {

v1::Session ToProto(const SessionView& view);
v1::StateCodec ToProto(StateCodec codec);
// Nothing for UNSPECIFIED; INVALID_ARGUMENT names the field of a codec that this server does not
// know.
absl::StatusOr<std::optional<StateCodec>> ParseCodec(const std::string& field,
                                                     v1::StateCodec codec);
// Nothing for an empty one.
absl::StatusOr<std::optional<uint64_t>> ParseEtag(const std::string& etag);
v1::State ToProto(const StateRecord& record);
v1::Ref ToProto(const RefRecord& record);
// As State.operation has it.
const char* OperationName(StateOperation operation);

google::protobuf::Timestamp ToProto(absl::Time time);
// Clamped to what a timestamp can say; out-of-range nanoseconds are treated as zero.
absl::Time FromProto(const google::protobuf::Timestamp& time);

}  // namespace anabranch
