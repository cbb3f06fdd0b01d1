#include "statestore/payloads.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "statestore/base/host_threads.h"
#include "statestore/base/status_macros.h"
#include "statestore/library_reads.h"
#include "statestore/payload_hasher.h"
#include "statestore/record_codec.h"

namespace anabranch {
namespace {

using Visitor = absl::FunctionRef<void(absl::string_view bytes)>;

// How a payload lies in parts.
struct Parts {
  explicit Parts(const StateRecord& state)
      : bytes(state.payload_bytes), each(state.payload_part_bytes) {}

  size_t count() const { return each == 0 ? 0 : static_cast<size_t>((bytes + each - 1) / each); }
  uint64_t begin(size_t index) const { return index * each; }
  uint64_t size(size_t index) const { return std::min(each, bytes - begin(index)); }

  const uint64_t bytes, each;  // of all; of each but the last
};

// An error with the name of what was read.
absl::Status Named(const StateRecord& state, absl::string_view part, absl::Status status) {
  if (status.ok()) return status;
  return absl::Status(status.code(),
                      absl::StrCat("payload of state ", state.id, ": ", part, status.message()));
}

absl::Status SizeDiffers(uint64_t bytes, uint64_t expected) {
  return absl::DataLossError(absl::StrCat("it has ", bytes, " bytes instead of ", expected));
}

// Visits the value of a key, which is there; `check` says what is wrong with it.
absl::Status ReadValue(const KeyValueReader& reader, const std::string& key,
                       absl::FunctionRef<absl::Status(absl::string_view)> check) {
  absl::Status checked;
  ANABRANCH_ASSIGN_OR_RETURN(const bool there,
                             reader.Read(Family::kPayloads, key,
                                         [&](absl::string_view value) { checked = check(value); }));
  return there ? checked : absl::DataLossError("it is missing");
}

// Visits the bytes if they are whole.
absl::Status ReadOne(const KeyValueReader& reader, const StateRecord& state, Visitor visit) {
  const auto check = [&](absl::string_view value) -> absl::Status {
    if (value.size() != state.payload_bytes) return SizeDiffers(value.size(), state.payload_bytes);
    if (PayloadChecksum(value) != state.payload_checksum) {
      return absl::DataLossError("its checksum does not match");
    }
    visit(value);
    return absl::OkStatus();
  };
  return Named(state, "", ReadValue(reader, NamedKey(state.tenant, state.id), check));
}

absl::Status ReadPart(const KeyValueReader& reader, const StateRecord& state, size_t index,
                      Visitor visit) {
  const Parts parts(state);
  const std::string key = PayloadPartKey(state.tenant, state.id, index);
  const auto check = [&](absl::string_view value) -> absl::Status {
    ANABRANCH_ASSIGN_OR_RETURN(const absl::string_view bytes,
                               DecodePayloadPart(key, state.payload_checksum, value));
    if (bytes.size() != parts.size(index)) return SizeDiffers(bytes.size(), parts.size(index));
    visit(bytes);
    return absl::OkStatus();
  };
  return Named(state, absl::StrCat("part ", index + 1, " of ", parts.count(), ": "),
               ReadValue(reader, key, check));
}

// RocksDB takes two blocks of a part's size for each and gives them back. glibc returns to the
// system what is free at the end of a heap beyond twice the largest block that it has seen go,
// which two blocks just reach: up to a quarter of what a read took was fresh memory. One larger
// block that comes and goes teaches it to keep them.
void HaveMallocKeepBlocks() {
  static const bool taught = [] {
    char* volatile block = static_cast<char*>(std::malloc(4 * kPayloadPartBytes));
    std::free(block);
    return true;
  }();
  static_cast<void>(taught);
}

absl::Status CheckHasPayload(const StateRecord& state) {
  ANABRANCH_RETURN_IF_ERROR(CheckUsable(state));
  if (IsWhole(state)) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "state ", state.id, " is archived: its content is gone and comes back by reading it again"));
}

// Visits the bytes in order, a value at a time; they are whole if that ends well.
absl::Status ReadInOrder(const KeyValueReader& reader, const StateRecord& state, Visitor visit) {
  ANABRANCH_RETURN_IF_ERROR(CheckHasPayload(state));
  const size_t count = Parts(state).count();
  if (count == 0) return ReadOne(reader, state, visit);
  PayloadHasher checksum;
  for (size_t i = 0; i < count; ++i) {
    ANABRANCH_RETURN_IF_ERROR(ReadPart(reader, state, i, [&](absl::string_view bytes) {
      checksum.Add(bytes);
      visit(bytes);
    }));
  }
  if (checksum.Sum() == state.payload_checksum) return absl::OkStatus();
  return Named(state, "",
               absl::DataLossError(absl::StrCat("its checksum does not match, though each of its ",
                                                count, " parts is as it was written")));
}

}  // namespace

void PutPayload(std::string payload, uint64_t part_bytes, StateRecord& record, Overlay& changes) {
  const uint64_t fewest = (payload.size() + kMaxPayloadParts - 1) / kMaxPayloadParts;
  const uint64_t each = std::max<uint64_t>({part_bytes, fewest, 1});
  record.payload_part_bytes = payload.size() > each ? each : 0;
  if (record.payload_part_bytes == 0) {
    changes.Put(Family::kPayloads, NamedKey(record.tenant, record.id), std::move(payload));
    return;
  }
  const Parts parts(record);
  const auto whole = std::make_shared<const std::string>(std::move(payload));
  const auto bytes = [&](size_t i) {
    return absl::string_view(*whole).substr(parts.begin(i), parts.size(i));
  };
  std::vector<PayloadPartFrame> frames(parts.count());
  ForEachOnHost(parts.bytes, parts.count(), [&](size_t i) {
    frames[i] = FramePayloadPart(PayloadPartKey(record.tenant, record.id, i),
                                 record.payload_checksum, bytes(i));
  });
  for (size_t i = 0; i < parts.count(); ++i) {
    absl::Cord value(frames[i].before);
    value.Append(absl::MakeCordFromExternal(bytes(i), [whole] {}));
    value.Append(frames[i].behind);
    changes.Put(Family::kPayloads, PayloadPartKey(record.tenant, record.id, i), std::move(value));
  }
}

void DeletePayload(const StateRecord& record, Overlay& changes) {
  const size_t count = Parts(record).count();
  if (count == 0) changes.Delete(Family::kPayloads, NamedKey(record.tenant, record.id));
  for (size_t i = 0; i < count; ++i) {
    changes.Delete(Family::kPayloads, PayloadPartKey(record.tenant, record.id, i));
  }
}

// What a damaged table hides stays: it cannot be read, and is replaced where a part comes to lie
// there again.
void DeleteAnyPayload(absl::string_view tenant, absl::string_view id, Overlay& changes) {
  std::vector<std::string> keys = {NamedKey(tenant, id)};
  changes
      .Scan(Family::kPayloads, PayloadPartPrefix(tenant, id), "",
            [&](absl::string_view key, absl::string_view) {
              keys.emplace_back(key);
              return true;
            })
      .IgnoreError();
  for (std::string& key : keys) changes.Delete(Family::kPayloads, std::move(key));
}

absl::Status CheckPayload(const KeyValueReader& reader, const StateRecord& state) {
  return ReadInOrder(reader, state, [](absl::string_view) {});
}

// Appended: a string of its size would be filled with zeros first.
absl::StatusOr<std::string> ReadPayload(const KeyValueReader& reader, const StateRecord& state) {
  std::string payload;
  ANABRANCH_RETURN_IF_ERROR(ReadInOrder(reader, state, [&](absl::string_view bytes) {
    if (payload.empty()) payload.reserve(state.payload_bytes);
    payload.append(bytes.data(), bytes.size());
  }));
  return payload;
}

absl::Status ReadPayload(const KeyValueReader& reader, const StateRecord& state,
                         PayloadMemory memory) {
  ANABRANCH_RETURN_IF_ERROR(CheckHasPayload(state));
  ANABRANCH_ASSIGN_OR_RETURN(const absl::Span<char> to, memory(state.payload_bytes));
  if (to.size() != state.payload_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("memory of ", to.size(), " bytes for ", state.payload_bytes, " of a payload"));
  }
  const auto copy = [&](uint64_t at) {
    return [&to, at](absl::string_view bytes) {
      std::copy(bytes.begin(), bytes.end(), to.begin() + static_cast<ptrdiff_t>(at));
    };
  };
  const Parts parts(state);
  if (parts.count() == 0) return ReadOne(reader, state, copy(0));
  HaveMallocKeepBlocks();
  std::vector<absl::Status> read(parts.count());
  std::atomic<bool> failed{false};
  ForEachOnHost(parts.bytes, parts.count(), [&](size_t i) {
    if (failed.load(std::memory_order_relaxed)) return;
    read[i] = ReadPart(reader, state, i, copy(parts.begin(i)));
    if (!read[i].ok()) failed.store(true, std::memory_order_relaxed);
  });
  for (absl::Status& status : read) ANABRANCH_RETURN_IF_ERROR(status);
  return absl::OkStatus();
}

}  // namespace anabranch
