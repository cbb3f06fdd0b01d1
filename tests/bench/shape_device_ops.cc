// What CUDA does with states where they lie: copies, merges and the scan of search. Beside the
// figures of BenchStates, which go through images in host memory.
#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/float_convert.h"
#include "runtime/slot_pool.h"
#include "runtime/tensor_memory.h"
#include "statestore/base/status_macros.h"
#include "tests/bench/bench.h"
#include "tests/bench/shape_bench.h"
#ifdef ANABRANCH_CUDA_ENABLED
#include "kernels/cuda/context.h"
#include "kernels/cuda/search.h"
#include "kernels/cuda/state_codec.h"
#include "kernels/cuda/state_ops.h"
#endif

namespace anabranch::bench {

#ifdef ANABRANCH_CUDA_ENABLED
namespace {

namespace cuda = kernels::cuda;

constexpr char kPart[] = "device-ops";
constexpr int kMerged = 8;
constexpr int64_t kEmbeddings = 1'000'000, kEmbeddingWidth = 1024;
constexpr int32_t kResults = 16;

absl::StatusOr<Buffer> Placed(Device& device, const void* host, size_t bytes) {
  ANABRANCH_ASSIGN_OR_RETURN(Buffer buffer, device.Allocate(bytes));
  const CopyPart part{host, buffer.data(), bytes};
  ANABRANCH_RETURN_IF_ERROR(device.Copy(CopyDirection::kToDevice, {part}));
  return buffer;
}

// Median of calls that queue work and wait for it.
absl::Status Add(ShapeRun& run, std::string name, double bytes,
                 absl::FunctionRef<absl::Status()> queue) {
  Device& device = *run.model->device();
  auto figure = Measure(kPart, std::move(name), run.options.quick ? 10 : 50, [&]() -> absl::Status {
    ANABRANCH_RETURN_IF_ERROR(queue());
    return device.Wait();
  });
  if (!figure.ok()) return figure.status();
  figure->floor = 1e3 * bytes / run.ceilings.copy_bytes;
  run.report.Add(*std::move(figure));
  return absl::OkStatus();
}

// The recurrent tensors of a pool; `rates` keeps their rates on the device.
absl::StatusOr<std::vector<cuda::RecurrentTensor>> RecurrentOf(SlotPool& pool,
                                                               std::vector<Buffer>& rates) {
  std::vector<cuda::RecurrentTensor> tensors;
  const std::vector<StateEntry>& entries = pool.layout().entries;
  for (size_t e = 0; e + 1 < entries.size(); ++e) {
    const StateEntry &state = entries[e], &time = entries[e + 1];
    if (state.kind != StateKind::kRecurrent || time.kind != StateKind::kCumulative) continue;
    ANABRANCH_ASSIGN_OR_RETURN(Buffer placed,
                               Placed(pool.device(), time.rates, time.num_rates * sizeof(float)));
    cuda::RecurrentTensor tensor;
    tensor.state = static_cast<float*>(pool.arrays().base[e]);
    tensor.slot_stride = pool.arrays().stride[e];
    tensor.t = static_cast<double*>(pool.arrays().base[e + 1]);
    tensor.t_slot_stride = pool.arrays().stride[e + 1];
    tensor.rates = placed.floats();
    tensor.groups = time.num_elements();
    tensor.size = state.num_elements() / tensor.groups;
    tensor.num_rates = static_cast<int32_t>(time.num_rates / tensor.groups);
    tensors.push_back(tensor);
    rates.push_back(std::move(placed));
  }
  return tensors;
}

absl::Status BenchSlots(ShapeRun& run) {
  Device& device = *run.model->device();
  SlotPool::Options options;
  options.num_slots = kMerged + 1;
  options.num_kv_pages = 1;
  ANABRANCH_ASSIGN_OR_RETURN(
      auto pool, SlotPool::Create(run.model->state_layout(), options, run.model->device()));
  std::vector<SlotRef> refs(kMerged + 1);
  std::vector<int32_t> inputs;
  for (SlotRef& ref : refs) {
    ANABRANCH_ASSIGN_OR_RETURN(ref, pool->Acquire());
    inputs.push_back(ref.slot);
    // Small positive numbers, so that no input counts as one that has read nothing.
    for (int e = 0; e < static_cast<int>(pool->layout().entries.size()); ++e) {
      if (pool->layout().entries[e].paged()) continue;
      ANABRANCH_RETURN_IF_ERROR(device.Fill({pool->SlotBytes(ref, e)}, 0x3c));
    }
  }
  const int32_t output = inputs.back();
  inputs.pop_back();
  std::vector<Buffer> rates;
  ANABRANCH_ASSIGN_OR_RETURN(const auto tensors, RecurrentOf(*pool, rates));
  double state_bytes = 0;
  for (const cuda::RecurrentTensor& tensor : tensors) {
    state_bytes += static_cast<double>(tensor.groups * tensor.size) * sizeof(float);
  }
  cuda::MergeSlotsParams merge;
  merge.tensors = tensors;
  merge.inputs = inputs;
  merge.output = output;
  ANABRANCH_RETURN_IF_ERROR(Add(run, absl::StrCat("merge of ", kMerged, " slots"),
                                (kMerged + 1) * state_bytes,
                                [&] { return cuda::MergeSlots(merge, device.launch()); }));
  for (SlotRef& ref : refs) pool->Release(ref);
  return absl::OkStatus();
}

// The recurrent tensors of a slot in their coded forms, on the device.
absl::Status BenchCodes(ShapeRun& run) {
  Device& device = *run.model->device();
  SlotPool::Options options;
  options.num_slots = options.num_kv_pages = 1;
  ANABRANCH_ASSIGN_OR_RETURN(
      auto pool, SlotPool::Create(run.model->state_layout(), options, run.model->device()));
  ANABRANCH_ASSIGN_OR_RETURN(SlotRef ref, pool->Acquire());
  std::vector<Buffer> buffers;
  std::vector<cuda::CodedTensor> tensors;
  double values = 0, near = 0, compact = 0;
  const std::vector<StateEntry>& entries = pool->layout().entries;
  for (int e = 0; e < static_cast<int>(entries.size()); ++e) {
    const StateEntry& entry = entries[e];
    if (entry.kind != StateKind::kRecurrent || entry.dtype != StateDType::kFloat32) continue;
    ANABRANCH_RETURN_IF_ERROR(device.Fill({pool->SlotBytes(ref, e)}, 0x3c));
    cuda::CodedTensor tensor;
    tensor.values = reinterpret_cast<float*>(pool->SlotBytes(ref, e).data());
    tensor.count = entry.num_elements();
    tensor.cols = entry.shape.back();
    tensor.rows = entry.shape.size() >= 3 ? entry.shape[entry.shape.size() - 2] : 64;
    ANABRANCH_ASSIGN_OR_RETURN(Buffer buffer, device.Allocate(cuda::NearBytes(tensor.count)));
    tensor.encoded = buffer.data();
    values += 4.0 * static_cast<double>(tensor.count);
    near += static_cast<double>(cuda::NearBytes(tensor.count));
    compact += static_cast<double>(cuda::CompactBytes(tensor.count, tensor.rows, tensor.cols));
    tensors.push_back(tensor);
    buffers.push_back(std::move(buffer));
  }
  cuda::CodeTensorsParams params;
  params.tensors = tensors;
  ANABRANCH_ASSIGN_OR_RETURN(const Buffer measures,
                             device.Allocate(tensors.size() * sizeof(cuda::CodeMeasure)));
  params.measures = static_cast<cuda::CodeMeasure*>(measures.data());
  const cudaStream_t stream = device.launch().cuda->stream();
  const auto add = [&](const char* name, double bytes, auto body) {
    return Add(run, name, bytes, [&] { return body(params, stream); });
  };
  absl::Status status = add("slot to near codes", values + near, cuda::EncodeNear);
  status.Update(add("near codes to slot", values + near, cuda::DecodeNear));
  status.Update(add("slot to compact codes", values + compact, cuda::EncodeCompact));
  status.Update(add("compact codes to slot", values + compact, cuda::DecodeCompact));
  pool->Release(ref);
  return status;
}

absl::Status BenchSearch(ShapeRun& run) {
  Device& device = *run.model->device();
  constexpr int64_t kDrawn = int64_t{1} << 24;
  std::vector<float> values(kDrawn);
  uint64_t x = 88172645463325252u;
  for (float& value : values) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    value = static_cast<float>(x >> 40) / static_cast<float>(1 << 23) - 1;
  }
  std::vector<uint16_t> drawn(kDrawn);
  ToBFloat16(values.data(), kDrawn, drawn.data());
  const int64_t elements = kEmbeddings * kEmbeddingWidth;
  ANABRANCH_ASSIGN_OR_RETURN(const Buffer embeddings, device.Allocate(elements * 2));
  for (int64_t done = 0; done < elements; done += kDrawn) {
    const CopyPart part{drawn.data(), static_cast<uint16_t*>(embeddings.data()) + done,
                        static_cast<size_t>(std::min(kDrawn, elements - done)) * 2};
    ANABRANCH_RETURN_IF_ERROR(device.Copy(CopyDirection::kToDevice, {part}));
  }
  for (const int32_t queries : {1, 8}) {
    ANABRANCH_ASSIGN_OR_RETURN(
        const Buffer placed,
        Placed(device, values.data(), queries * kEmbeddingWidth * sizeof(float)));
    ANABRANCH_ASSIGN_OR_RETURN(const Buffer scores,
                               device.Allocate(queries * kResults * sizeof(float)));
    ANABRANCH_ASSIGN_OR_RETURN(const Buffer index,
                               device.Allocate(queries * kResults * sizeof(int64_t)));
    cuda::SearchParams params;
    params.queries = placed.floats();
    params.num_queries = queries;
    params.embeddings = embeddings.data();
    params.dtype = cuda::EmbeddingDType::kBFloat16;
    params.count = kEmbeddings;
    params.width = params.row_stride = kEmbeddingWidth;
    params.limit = kResults;
    params.scores = scores.floats();
    params.index = static_cast<int64_t*>(index.data());
    ANABRANCH_RETURN_IF_ERROR(Add(run,
                                  absl::StrCat("search scan, 1,000,000 x ",
                                               Grouped(kEmbeddingWidth), ", ", queries, " queries"),
                                  2 * static_cast<double>(elements),
                                  [&] { return cuda::Search(params, device.launch()); }));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status BenchDeviceOps(ShapeRun& run) {
  if (run.model->device()->in_host_memory()) return absl::OkStatus();
  ANABRANCH_RETURN_IF_ERROR(BenchSlots(run));
  ANABRANCH_RETURN_IF_ERROR(BenchCodes(run));
  return BenchSearch(run);
}
#else
absl::Status BenchDeviceOps(ShapeRun&) { return absl::OkStatus(); }
#endif

}  // namespace anabranch::bench
