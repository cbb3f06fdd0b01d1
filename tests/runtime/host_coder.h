// A coder of states in host memory: what a device does with its kernels, by the host's codecs.
#pragma once

#include <atomic>
#include <cstring>
#include <string>

#include "kernels/packed_state.h"
#include "runtime/state_coder.h"

namespace anabranch::testing {

class HostCoder : public StateCoder {
 public:
  absl::Status ToHost(absl::Span<const TensorCoding> tensors,
                      absl::Span<CodingMeasure> measures) override {
    ++coded_;
    for (size_t i = 0; i < tensors.size(); ++i) {
      const TensorCoding& t = tensors[i];
      std::string bytes;
      measures[i] = CodingMeasure();
      measures[i].refused = !Encode(t, bytes, measures[i].error);
      if (measures[i].refused) continue;
      if (bytes.size() != t.bytes) return absl::InternalError("a form has another size");
      std::memcpy(t.host, bytes.data(), bytes.size());
    }
    return absl::OkStatus();
  }
  absl::Status ToDevice(absl::Span<const TensorCoding> tensors) override {
    for (const TensorCoding& t : tensors) Decode(t, {t.host, t.bytes});
    return absl::OkStatus();
  }

  // Calls to the host.
  int coded() const { return coded_; }

 private:
  std::atomic<int> coded_{0};

  static absl::Span<float> Floats(const TensorCoding& t) {
    return absl::MakeSpan(static_cast<float*>(t.values), t.count);
  }
  static bool Encode(const TensorCoding& t, std::string& bytes, CodecError& error) {
    switch (t.form) {
      case CodedForm::kPlain:
        bytes.assign(static_cast<const char*>(t.values), t.count);
        return true;
      case CodedForm::kHalves:
        return Halve(Floats(t), bytes);
      case CodedForm::kGroups16:
        return EncodeGroups(Floats(t), bytes, error);
      case CodedForm::kPacked8:
        return PackMatrices(Floats(t), t.cut, bytes, error);
      case CodedForm::kPackedThere:
        return TakePacked(t, bytes, error);
    }
    return false;
  }
  static bool TakePacked(const TensorCoding& t, std::string& bytes, CodecError& error) {
    const char* const from = static_cast<const char*>(t.values);
    bytes.assign(from, t.bytes);
    const int64_t heads = t.count / (t.cut.rows * t.cut.cols);
    const kernels::PackedPlaces places(heads, t.cut.rows, t.cut.cols);
    bool held = true;
    for (int64_t head = 0; head < heads; ++head) {
      kernels::PackedMeasure measure;
      std::memcpy(&measure, from + places.measures + head * sizeof(measure), sizeof(measure));
      error.Add({measure.off, measure.norm});
      held = held && measure.refused == 0;
    }
    return held;
  }
  static bool Halve(absl::Span<const float> values, std::string& bytes) {
    bool exact = true;
    for (const float value : values) {
      uint32_t bits;
      std::memcpy(&bits, &value, sizeof(bits));
      exact = exact && (bits & 0xffff) == 0;
      bytes += static_cast<char>(bits >> 16 & 0xff);
      bytes += static_cast<char>(bits >> 24);
    }
    return exact;
  }
  static void Decode(const TensorCoding& t, absl::string_view bytes) {
    switch (t.form) {
      case CodedForm::kPlain:
        std::memcpy(t.values, bytes.data(), bytes.size());
        break;
      case CodedForm::kHalves:
        for (int64_t i = 0; i < t.count; ++i) {
          uint16_t half;
          std::memcpy(&half, bytes.data() + 2 * i, sizeof(half));
          const uint32_t bits = uint32_t{half} << 16;
          std::memcpy(static_cast<float*>(t.values) + i, &bits, sizeof(bits));
        }
        break;
      case CodedForm::kGroups16:
        (void)DecodeGroups(bytes, Floats(t));
        break;
      case CodedForm::kPacked8:
        (void)UnpackMatrices(bytes, t.cut, Floats(t));
        break;
      case CodedForm::kPackedThere:
        break;  // to the host alone
    }
  }
};

}  // namespace anabranch::testing
