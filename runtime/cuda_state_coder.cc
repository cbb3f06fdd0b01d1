#include "runtime/cuda_state_coder.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <vector>

#include "kernels/cuda/context.h"
#include "kernels/cuda/state_codec.h"
#include "kernels/cuda/state_ops.h"
#include "kernels/packed_state.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

using kernels::CudaStatus;
using kernels::PackedMeasure;
using kernels::cuda::BlockCopy;
using kernels::cuda::CodedTensor;
using kernels::cuda::CodeMeasure;

// Staged at a time: all that a device needs beside the states.
constexpr uint64_t kPieceBytes = uint64_t{64} << 20;
constexpr uint64_t kAlignment = 16;  // of a tensor in the staged block
// On its way to the host what is kept as it is leaves from where it lies, if that is worth a copy
// of its own: staging would cost the multiprocessors time that steps want. The other way somebody
// waits, and few large copies are faster than many.
constexpr uint64_t kDirectBytes = uint64_t{256} << 10;

bool IsStaged(const TensorCoding& tensor, bool to_host) {
  if (tensor.form == CodedForm::kPackedThere) return false;
  return !to_host || tensor.form != CodedForm::kPlain || tensor.bytes < kDirectBytes;
}

// Neighbours of the list whose staged bytes make about a piece.
size_t EndOfPiece(absl::Span<const TensorCoding> tensors, size_t first, bool to_host) {
  uint64_t bytes = 0;
  size_t end = first;
  for (; end < tensors.size(); ++end) {
    if (!IsStaged(tensors[end], to_host)) continue;
    if (bytes > 0 && bytes + tensors[end].bytes > kPieceBytes) break;
    bytes += tensors[end].bytes;
  }
  return end;
}

bool Takes(const TensorCoding& tensor) {
  return tensor.form != CodedForm::kPacked8 || tensor.cut.cols <= kernels::cuda::kMaxCodedColumns;
}

// What the scan has measured of a tensor that it has packed, a head's after the other.
absl::Span<const PackedMeasure> MeasuresOf(const TensorCoding& tensor) {
  const int64_t heads = tensor.count / (tensor.cut.rows * tensor.cut.cols);
  const kernels::PackedPlaces places(heads, tensor.cut.rows, tensor.cut.cols);
  const char* const at = static_cast<const char*>(tensor.values) + places.measures;
  return {reinterpret_cast<const PackedMeasure*>(at), static_cast<size_t>(heads)};
}

// Where the tensors of a piece lie in the staged block, and what has to be copied of it. Those that
// are staged, aligned and neighbours on the host lie as there, and one copy takes them.
struct Layout {
  Layout(absl::Span<const TensorCoding> tensors, bool to_host) {
    const char* joins = nullptr;  // what lies there on the host goes on where the last one ended
    for (const TensorCoding& tensor : tensors) {
      const bool joined = tensor.host == joins && bytes % kAlignment == 0;
      if (!joined) bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
      at.push_back(bytes);
      if (!IsStaged(tensor, to_host)) {
        joins = nullptr;
        continue;
      }
      if (!joined) spans.push_back({bytes, tensor.host, 0});
      bytes += tensor.bytes;
      spans.back().bytes += tensor.bytes;
      joins = tensor.host + tensor.bytes;
    }
  }
  struct Span {
    uint64_t staged;
    char* host;
    uint64_t bytes;
  };
  std::vector<uint64_t> at;  // by tensor
  std::vector<Span> spans;
  uint64_t bytes = 0;
};

// The tensors of a piece by form, as kernels take them.
struct Lists {
  Lists(absl::Span<const TensorCoding> tensors, const Layout& layout, char* staged, bool to_host) {
    for (size_t i = 0; i < tensors.size(); ++i) {
      const TensorCoding& t = tensors[i];
      char* const bytes = staged + layout.at[i];
      if (!IsStaged(t, to_host)) continue;
      if (t.form == CodedForm::kPlain) {
        plain.push_back(to_host ? BlockCopy{t.values, bytes, t.count}
                                : BlockCopy{bytes, t.values, t.count});
      } else if (Takes(t)) {
        List& list = lists[static_cast<int>(t.form) - 1];
        list.tensors.push_back(
            {static_cast<float*>(t.values), bytes, t.count, t.cut.rows, t.cut.cols});
        list.index.push_back(i);
      }
    }
  }
  struct List {
    std::vector<CodedTensor> tensors;
    std::vector<size_t> index;  // in the piece
  };
  List lists[3];  // halves, groups, packed
  std::vector<BlockCopy> plain;
};

// Of all tensors: one in ordinary memory has all of them staged.
bool ArePinned(absl::Span<const TensorCoding> tensors) {
  return std::all_of(tensors.begin(), tensors.end(), [](const TensorCoding& tensor) {
    cudaPointerAttributes attributes;
    return cudaPointerGetAttributes(&attributes, tensor.host) == cudaSuccess &&
           attributes.type != cudaMemoryTypeUnregistered;
  });
}

absl::Status MakeRoom(Device& device, size_t bytes, bool on_host, Buffer& buffer) {
  if (bytes <= buffer.size()) return absl::OkStatus();
  ANABRANCH_ASSIGN_OR_RETURN(buffer, on_host ? device.AllocateHost(bytes) : device.Allocate(bytes));
  return absl::OkStatus();
}

absl::Status QueueEncoding(const Lists& lists, CodeMeasure* measures, cudaStream_t stream) {
  using kernels::cuda::CodeTensorsParams;
  constexpr absl::Status (*kEncode[])(const CodeTensorsParams&, cudaStream_t) = {
      kernels::cuda::EncodeHalves, kernels::cuda::EncodeNear, kernels::cuda::EncodeCompact};
  for (int form = 0; form < 3; ++form) {
    const Lists::List& list = lists.lists[form];
    ANABRANCH_RETURN_IF_ERROR(kEncode[form]({list.tensors, measures}, stream));
    measures += list.tensors.size();
  }
  return kernels::cuda::CopyBlocks({lists.plain}, stream);
}

absl::Status QueueDecoding(const Lists& lists, cudaStream_t stream) {
  ANABRANCH_RETURN_IF_ERROR(kernels::cuda::DecodeHalves({lists.lists[0].tensors}, stream));
  ANABRANCH_RETURN_IF_ERROR(kernels::cuda::DecodeNear({lists.lists[1].tensors}, stream));
  ANABRANCH_RETURN_IF_ERROR(kernels::cuda::DecodeCompact({lists.lists[2].tensors}, stream));
  return kernels::cuda::CopyBlocks({lists.plain}, stream);
}

// Behind what the lane's stream has queued. Ordinary memory is copied when this returns; pinned
// memory when the stream has come there.
absl::Status CopyStaged(CudaCopies& lane, CopyDirection direction,
                        const std::vector<CopyPart>& parts, bool pinned) {
  return pinned ? lane.Queue(parts) : lane.Copy(direction, parts);
}

// The way over the link of a piece.
std::vector<CopyPart> PartsOf(absl::Span<const TensorCoding> tensors, const Layout& layout,
                              char* staged, bool to_host) {
  std::vector<CopyPart> parts;
  const auto add = [&](void* on_device, char* on_host, size_t bytes) {
    to_host ? parts.push_back({on_device, on_host, bytes})
            : parts.push_back({on_host, on_device, bytes});
  };
  for (const Layout::Span& span : layout.spans) {
    add(staged + span.staged, span.host, span.bytes);
  }
  for (const TensorCoding& tensor : tensors) {
    if (!IsStaged(tensor, to_host)) add(tensor.values, tensor.host, tensor.bytes);
  }
  return parts;
}

}  // namespace

absl::Status CudaStateCoder::ToHost(absl::Span<const TensorCoding> tensors,
                                    absl::Span<CodingMeasure> measures) {
  ANABRANCH_RETURN_IF_ERROR(context_->Use());
  absl::MutexLock lock(&out_mutex_);
  const size_t bytes = std::max<size_t>(tensors.size(), 1) * sizeof(CodeMeasure);
  ANABRANCH_RETURN_IF_ERROR(MakeRoom(*device_, bytes, false, out_.measures));
  ANABRANCH_RETURN_IF_ERROR(MakeRoom(*device_, bytes, true, out_.host_measures));
  std::vector<size_t> measured;
  absl::Status status = Encode(tensors, measured);
  status.Update(FetchMeasures(tensors));
  // Also after an error: what was queued goes on.
  const absl::Status done = CudaStatus(cudaStreamSynchronize(to_host_->stream()), "state");
  ANABRANCH_RETURN_IF_ERROR(status);
  ANABRANCH_RETURN_IF_ERROR(done);
  for (size_t i = 0; i < tensors.size(); ++i) measures[i] = {!Takes(tensors[i]), {}};
  const auto* found = static_cast<const CodeMeasure*>(out_.host_measures.data());
  for (const size_t i : measured) {
    measures[i] = {found->refused != 0, {found->off, found->norm}};
    ++found;
  }
  const auto* head = static_cast<const PackedMeasure*>(out_.host_heads.data());
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].form != CodedForm::kPackedThere) continue;
    for (const auto* const end = head + MeasuresOf(tensors[i]).size(); head != end; ++head) {
      measures[i].refused = measures[i].refused || head->refused != 0;
      measures[i].error.Add({head->off, head->norm});
    }
  }
  return absl::OkStatus();
}

// Queues the way of the packed tensors' measures to the host: gathered first, since they are small.
absl::Status CudaStateCoder::FetchMeasures(absl::Span<const TensorCoding> tensors) {
  std::vector<absl::Span<const PackedMeasure>> heads;
  size_t bytes = 0;
  for (const TensorCoding& tensor : tensors) {
    if (tensor.form != CodedForm::kPackedThere) continue;
    heads.push_back(MeasuresOf(tensor));
    bytes += heads.back().size() * sizeof(PackedMeasure);
  }
  if (heads.empty()) return absl::OkStatus();
  ANABRANCH_RETURN_IF_ERROR(MakeRoom(*device_, bytes, false, out_.heads));
  ANABRANCH_RETURN_IF_ERROR(MakeRoom(*device_, bytes, true, out_.host_heads));
  std::vector<BlockCopy> copies;
  auto* to = static_cast<PackedMeasure*>(out_.heads.data());
  for (const absl::Span<const PackedMeasure> of_tensor : heads) {
    copies.push_back(
        {of_tensor.data(), to, static_cast<int64_t>(of_tensor.size() * sizeof(PackedMeasure))});
    to += of_tensor.size();
  }
  const cudaStream_t stream = to_host_->stream();
  ANABRANCH_RETURN_IF_ERROR(kernels::cuda::CopyBlocks({copies}, stream));
  return CudaStatus(cudaMemcpyAsync(out_.host_heads.data(), out_.heads.data(), bytes,
                                    cudaMemcpyDeviceToHost, stream),
                    "state");
}

absl::Status CudaStateCoder::Encode(absl::Span<const TensorCoding> tensors,
                                    std::vector<size_t>& measured) {
  const cudaStream_t stream = to_host_->stream();
  const bool pinned = ArePinned(tensors);
  const size_t bytes = tensors.size() * sizeof(CodeMeasure);
  auto* at = static_cast<CodeMeasure*>(out_.measures.data());
  ANABRANCH_RETURN_IF_ERROR(CudaStatus(cudaMemsetAsync(at, 0, bytes, stream), "state"));
  for (size_t first = 0; first < tensors.size();) {
    const size_t end = EndOfPiece(tensors, first, true);
    const auto piece = tensors.subspan(first, end - first);
    const Layout layout(piece, true);
    ANABRANCH_RETURN_IF_ERROR(MakeRoom(*device_, layout.bytes, false, out_.bytes));
    auto* const staged = static_cast<char*>(out_.bytes.data());
    const Lists lists(piece, layout, staged, true);
    ANABRANCH_RETURN_IF_ERROR(QueueEncoding(lists, at, stream));
    for (const Lists::List& list : lists.lists) {
      at += list.tensors.size();
      for (const size_t i : list.index) measured.push_back(first + i);
    }
    ANABRANCH_RETURN_IF_ERROR(CopyStaged(*to_host_, CopyDirection::kToHost,
                                         PartsOf(piece, layout, staged, true), pinned));
    first = end;
  }
  return CudaStatus(cudaMemcpyAsync(out_.host_measures.data(), out_.measures.data(), bytes,
                                    cudaMemcpyDeviceToHost, stream),
                    "state");
}

absl::Status CudaStateCoder::ToDevice(absl::Span<const TensorCoding> tensors) {
  ANABRANCH_RETURN_IF_ERROR(context_->Use());
  absl::MutexLock lock(&in_mutex_);
  const absl::Status status = Decode(tensors);
  const absl::Status done = CudaStatus(cudaStreamSynchronize(to_device_->stream()), "state");
  return status.ok() ? done : status;
}

absl::Status CudaStateCoder::Decode(absl::Span<const TensorCoding> tensors) {
  const bool pinned = ArePinned(tensors);
  for (size_t first = 0; first < tensors.size();) {
    const size_t end = EndOfPiece(tensors, first, false);
    const auto piece = tensors.subspan(first, end - first);
    const Layout layout(piece, false);
    ANABRANCH_RETURN_IF_ERROR(MakeRoom(*device_, layout.bytes, false, in_.bytes));
    auto* const staged = static_cast<char*>(in_.bytes.data());
    ANABRANCH_RETURN_IF_ERROR(CopyStaged(*to_device_, CopyDirection::kToDevice,
                                         PartsOf(piece, layout, staged, false), pinned));
    ANABRANCH_RETURN_IF_ERROR(
        QueueDecoding(Lists(piece, layout, staged, false), to_device_->stream()));
    first = end;
  }
  return absl::OkStatus();
}

}  // namespace anabranch
