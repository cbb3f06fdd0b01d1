// Tensors in a device's memory turned into the bytes of a stored state and back where they lie, so
// that those bytes alone cross the link, in one piece. The bytes are those that the host makes of
// the same values (slot_segments.h, tensor_codec.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "runtime/tensor_codec.h"

namespace anabranch {

enum class CodedForm : uint8_t {
  kPlain,     // the bytes as they are
  kHalves,    // float32 that is exact bfloat16: bfloat16
  kGroups16,  // float32: EncodeGroups
  kPacked8,   // float32: PackMatrices
  // To the host: the same, which the scan has made (kernels/packed_state.h).
  kPackedThere,
};

struct TensorCoding {
  CodedForm form = CodedForm::kPlain;
  void* values = nullptr;  // on the device
  int64_t count = 0;       // elements; kPlain: bytes
  MatrixCut cut;           // kPacked8, kPackedThere
  char* host = nullptr;    // the stored bytes in host memory; on the way to the device only read
  uint64_t bytes = 0;
};

struct CodingMeasure {
  // The form cannot hold a value (kHalves: exactly): the bytes are useless.
  bool refused = false;
  CodecError error;  // kGroups16, kPacked8, kPackedThere
};

// Thread rule: any thread.
class StateCoder {
 public:
  virtual ~StateCoder() = default;

  // Of one state or of several; best in the order in which the bytes lie in host memory, and all in
  // memory of Device::AllocateHost. Done when it returns; not ordered with queued kernels, as
  // Device::CopyBeside. `measures`: one for each.
  virtual absl::Status ToHost(absl::Span<const TensorCoding> tensors,
                              absl::Span<CodingMeasure> measures) = 0;
  // The other way. What is damaged gives values of no use, and nothing else.
  virtual absl::Status ToDevice(absl::Span<const TensorCoding> tensors) = 0;
};

}  // namespace anabranch
