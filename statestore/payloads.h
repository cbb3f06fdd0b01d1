// The payloads of states. One of up to StoreOptions::payload_part_bytes is a value as it was given.
// A larger one is stored in parts of as many bytes, each a value of its own with a checksum of its
// own, so that it is read, checked and copied by several threads at once (store_options.h says why
// that pays). The state's record says which of the two it is; both come and go with it, in one
// batch.
//
// What is checked: of one value, its size and the record's checksum of it. Of parts, that each is
// there, has its size, is sealed for its key, and names the payload that it is of by the record's
// checksum. CheckPayload and ReadPayload into a string compare the checksum of all bytes as well,
// which only one thread can compute; reading into the caller's memory leaves that out.
//
// Errors: FAILED_PRECONDITION for a thinned or archived state; DATA_LOSS names the state, and the
// part of how many.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "statestore/key_value.h"
#include "statestore/overlay.h"
#include "statestore/records.h"
#include "statestore/state_store.h"

namespace anabranch {

// Stores the payload of a state, and says in its record how; payload_bytes and payload_checksum are
// there already. The state has no payload now: parts of another would stay.
void PutPayload(std::string payload, uint64_t part_bytes, StateRecord& record, Overlay& changes);
// Removes what the record says of.
void DeletePayload(const StateRecord& record, Overlay& changes);
// Removes whatever is there of a state whose record cannot be read.
void DeleteAnyPayload(absl::string_view tenant, absl::string_view id, Overlay& changes);

// Whether all of it is there as it was stored; never holds more than one value.
absl::Status CheckPayload(const KeyValueReader& reader, const StateRecord& state);
absl::StatusOr<std::string> ReadPayload(const KeyValueReader& reader, const StateRecord& state);
// Into the memory that is asked for once. After an error it holds anything.
absl::Status ReadPayload(const KeyValueReader& reader, const StateRecord& state,
                         PayloadMemory memory);

}  // namespace anabranch
