#include "statestore/apply_mutation.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "statestore/base/status_macros.h"
#include "statestore/names.h"
#include "statestore/record_codec.h"
#include "statestore/state_id.h"

namespace anabranch {
namespace {

constexpr size_t kMaxLabels = 64, kMaxLabelBytes = 1024;

absl::Status CheckTokens(absl::string_view field, const std::vector<int32_t>& tokens) {
  const auto bad = std::find_if(tokens.begin(), tokens.end(), [](int32_t id) { return id < 0; });
  if (bad == tokens.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, "[", bad - tokens.begin(), "] is ", *bad,
                                                 ": a token id is not negative"));
}

absl::Status CheckPosition(absl::string_view field, int64_t position) {
  if (position >= 0 && position <= int64_t{1} << 48) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, " is ", position, ", out of range"));
}

absl::Status CheckLabels(absl::string_view field, const Labels& labels) {
  if (labels.size() > kMaxLabels) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, " has ", labels.size(), " entries; at most 64 are allowed"));
  }
  for (const auto& [key, value] : labels) {
    if (key.empty() || key.size() + value.size() > kMaxLabelBytes) {
      return absl::InvalidArgumentError(absl::StrCat(
          field, ": a label needs a key, and key and value at most 1024 bytes together"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckShape(const StateRecord& record) {
  const bool append = record.operation == StateOperation::kAppend;
  if (append && record.parents.size() > 1) {
    return absl::InvalidArgumentError("record.parents: an append has at most one parent");
  }
  if (!append && record.parents.empty()) {
    return absl::InvalidArgumentError("record.parents: a computed state needs parents");
  }
  const int64_t span = static_cast<int64_t>(record.span_tokens.size());
  if ((!append || record.parents.empty()) && record.token_count != span) {
    return absl::InvalidArgumentError(
        absl::StrCat("record.token_count is ", record.token_count,
                     "; a root and a computed state have as many as their span, ", span));
  }
  return CheckPosition("record.token_count", record.token_count);
}

absl::Status Prepare(PutState& operation) {
  StateRecord& record = operation.record;
  ANABRANCH_RETURN_IF_ERROR(ValidateTenant(record.tenant));
  ANABRANCH_RETURN_IF_ERROR(ValidateStateId("record.id", record.id));
  for (const std::string& parent : record.parents) {
    ANABRANCH_RETURN_IF_ERROR(ValidateStateId("record.parents", parent));
  }
  for (const std::string& hash : record.blob_hashes) {
    ANABRANCH_RETURN_IF_ERROR(ValidateBlobHash("record.blob_hashes", hash));
  }
  if (operation.blobs.size() != record.blob_hashes.size()) {
    return absl::InvalidArgumentError(absl::StrCat("blobs has ", operation.blobs.size(),
                                                   " entries, record.blob_hashes has ",
                                                   record.blob_hashes.size()));
  }
  ANABRANCH_RETURN_IF_ERROR(CheckShape(record));
  ANABRANCH_RETURN_IF_ERROR(CheckTokens("record.span_tokens", record.span_tokens));
  ANABRANCH_RETURN_IF_ERROR(CheckLabels("record.labels", record.labels));
  ANABRANCH_RETURN_IF_ERROR(CheckStateId(record));
  record.payload_bytes = operation.payload.size();
  record.payload_checksum = IsWhole(record) ? PayloadChecksum(operation.payload) : 0;
  record.payload_part_bytes = 0;  // until it is stored
  if (IsWhole(record) || (operation.payload.empty() && record.blob_hashes.empty() &&
                          (record.header.empty() || !record.thinned))) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError("record: a thinned or archived state has no content");
}

absl::Status Prepare(UpdateState& operation) {
  ANABRANCH_RETURN_IF_ERROR(ValidateTenant(operation.tenant));
  if (operation.labels.has_value()) {
    ANABRANCH_RETURN_IF_ERROR(CheckLabels("labels", *operation.labels));
  }
  return ValidateStateId("id", operation.id);
}

// Operations that do nothing but name a state.
template <typename OnState>
absl::Status Prepare(OnState& operation) {
  ANABRANCH_RETURN_IF_ERROR(ValidateTenant(operation.tenant));
  return ValidateStateId("id", operation.id);
}

absl::Status Prepare(DropStaleKey& /*operation*/) { return absl::OkStatus(); }

absl::Status Prepare(RecodeState& operation) { return Prepare(operation.put); }

absl::Status Prepare(ArchiveState& operation) {
  ANABRANCH_RETURN_IF_ERROR(ValidateTenant(operation.tenant));
  return ValidateStateId("id", operation.id);
}

absl::Status Prepare(SetRef& operation) {
  ANABRANCH_RETURN_IF_ERROR(ValidateTenant(operation.tenant));
  ANABRANCH_RETURN_IF_ERROR(ValidateName("name", operation.name));
  if (operation.expected_state.has_value() && !operation.expected_state->empty()) {
    ANABRANCH_RETURN_IF_ERROR(ValidateStateId("expected_state", *operation.expected_state));
  }
  return ValidateStateId("state_id", operation.state_id);
}

absl::Status Prepare(DeleteRef& operation) {
  ANABRANCH_RETURN_IF_ERROR(ValidateTenant(operation.tenant));
  return ValidateName("name", operation.name);
}

absl::Status Prepare(PutSession& operation) {
  const SessionRecord& record = operation.record;
  ANABRANCH_RETURN_IF_ERROR(ValidateTenant(record.tenant));
  ANABRANCH_RETURN_IF_ERROR(ValidateName("record.id", record.id));
  if (!record.ref.empty()) ANABRANCH_RETURN_IF_ERROR(ValidateName("record.ref", record.ref));
  if (!record.head_state.empty()) {
    ANABRANCH_RETURN_IF_ERROR(ValidateStateId("record.head_state", record.head_state));
  } else if (record.head_position != 0) {
    return absl::InvalidArgumentError("record.head_position without record.head_state must be 0");
  }
  ANABRANCH_RETURN_IF_ERROR(CheckLabels("record.labels", record.labels));
  return CheckPosition("record.head_position", record.head_position);
}

absl::Status Prepare(DeleteSession& operation) {
  ANABRANCH_RETURN_IF_ERROR(ValidateTenant(operation.tenant));
  return ValidateName("id", operation.id);
}

absl::Status Prepare(AppendLog& operation) {
  ANABRANCH_RETURN_IF_ERROR(ValidateTenant(operation.tenant));
  ANABRANCH_RETURN_IF_ERROR(ValidateName("session", operation.session));
  ANABRANCH_RETURN_IF_ERROR(CheckPosition("position", operation.position));
  return CheckTokens("tokens", operation.tokens);
}

absl::Status Prepare(TrimLog& operation) {
  ANABRANCH_RETURN_IF_ERROR(ValidateTenant(operation.tenant));
  ANABRANCH_RETURN_IF_ERROR(ValidateName("session", operation.session));
  return CheckPosition("position", operation.position);
}

absl::Status Prepare(PutAnswer& operation) {
  ANABRANCH_RETURN_IF_ERROR(ValidateTenant(operation.tenant));
  return ValidateRequestId("request_id", operation.request_id);
}

uint64_t Bytes(const PutState& operation) {
  uint64_t bytes = operation.payload.size() + operation.record.header.size() +
                   operation.record.span_tokens.size() * sizeof(int32_t);
  for (const std::string& blob : operation.blobs) bytes += blob.size();
  return bytes;
}
uint64_t Bytes(const RecodeState& operation) { return Bytes(operation.put); }
uint64_t Bytes(const AppendLog& operation) { return operation.tokens.size() * sizeof(int32_t); }
uint64_t Bytes(const PutAnswer& operation) { return operation.answer.size(); }
template <typename T>
uint64_t Bytes(const T&) {
  return 0;
}

}  // namespace

absl::Status PrepareMutation(Mutation& mutation) {
  if (mutation.operations.size() > kMaxOperations) {
    return absl::InvalidArgumentError(absl::StrCat("operations has ", mutation.operations.size(),
                                                   " entries; at most ", kMaxOperations));
  }
  for (Operation& operation : mutation.operations) {
    ANABRANCH_RETURN_IF_ERROR(absl::visit([](auto& each) { return Prepare(each); }, operation));
  }
  return absl::OkStatus();
}

uint64_t QueuedBytes(const Mutation& mutation) {
  constexpr uint64_t kEach = 512;  // names, nodes, bookkeeping
  uint64_t bytes = kEach;
  for (const Operation& operation : mutation.operations) {
    bytes += kEach + absl::visit([](const auto& each) { return Bytes(each); }, operation);
  }
  return bytes;
}

bool AddsContent(const Mutation& mutation) {
  return std::any_of(mutation.operations.begin(), mutation.operations.end(), [](const auto& each) {
    return absl::holds_alternative<PutState>(each) || absl::holds_alternative<RecodeState>(each) ||
           absl::holds_alternative<PutSession>(each) || absl::holds_alternative<AppendLog>(each);
  });
}

absl::Status ApplyMutation(Mutation& mutation, ApplyContext& context) {
  for (Operation& operation : mutation.operations) {
    ANABRANCH_RETURN_IF_ERROR(
        absl::visit([&](auto& each) { return Apply(each, context); }, operation));
  }
  return absl::OkStatus();
}

}  // namespace anabranch
