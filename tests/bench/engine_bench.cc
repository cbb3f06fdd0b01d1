// Prefill and decode through the engine, beside the matrix products alone: ours (what everything
// else costs) and LibTorch's on the same shapes (what another GEMM would give).
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>

#include <cstdlib>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "kernels/gemm.h"
#include "runtime/mixer.h"
#include "runtime/tensor_memory.h"
#include "statestore/base/status_macros.h"
#include "tests/bench/bench.h"
#include "tests/bench/engine_runs.h"

namespace anabranch::bench {
namespace {

constexpr int64_t kPrefillTokens = 2048;
constexpr int64_t kDecodeTokens = 64;

struct Shape {
  int64_t n, k;
};

// Linear layers that every row goes through: experts are not among them.
std::vector<Shape> LayerShapes(const ModelDescription& model) {
  std::vector<ExpectedTensor> tensors;
  for (const LayerDescription& layer : model.layers) {
    for (const ResidualStep& step : layer.steps) {
      ListTensors(step, model.hidden, tensors);
    }
  }
  std::vector<Shape> shapes;
  for (const ExpectedTensor& tensor : tensors) {
    const bool linear = tensor.shape.size() == 2 && absl::EndsWith(tensor.name, ".weight") &&
                        !absl::StrContains(tensor.name, ".experts.");
    if (linear) shapes.push_back({tensor.shape[0], tensor.shape[1]});
  }
  return shapes;
}

// All linear layers of one model on random data, by our kernel and by LibTorch.
class BareGemms {
 public:
  BareGemms(const ModelDescription& model, kernels::DType dtype)
      : shapes_(LayerShapes(model)), head_{model.vocab, model.hidden}, dtype_(dtype) {
    for (const Shape& s : shapes_) weights_.push_back(MakeWeight(s));
    head_weight_ = MakeWeight(head_);
  }

  double OursSeconds(int64_t m, int64_t head_rows) const {
    return TimeOnce([&] {
      for (size_t i = 0; i < shapes_.size(); ++i) Ours(weights_[i], shapes_[i], m);
      Ours(head_weight_, head_, head_rows);
    });
  }
  double TorchSeconds(int64_t m, int64_t head_rows) const {
    return TimeOnce([&] {
      for (const Weight& w : weights_) at::linear(Input(m, w.torch.size(1)), w.torch);
      at::linear(Input(head_rows, head_.k), head_weight_.torch);
    });
  }

 private:
  struct Weight {
    at::Tensor torch, packed;
  };

  Weight MakeWeight(const Shape& s) const {
    const auto type = dtype_ == kernels::DType::kFloat32 ? at::kFloat : at::kBFloat16;
    Weight w;
    w.torch = at::empty({s.n, s.k}, at::kFloat).uniform_(-1, 1).to(type);
    w.packed = at::empty({static_cast<int64_t>(kernels::PackedBytes(dtype_, s.n, s.k))}, at::kByte);
    kernels::PackMatrix(dtype_, w.torch.data_ptr(), s.n, s.k, w.packed.data_ptr());
    return w;
  }
  at::Tensor Input(int64_t m, int64_t k) const {
    static at::Tensor pool = at::empty({int64_t{1} << 24}, at::kFloat).uniform_(-1, 1);
    at::Tensor x = pool.narrow(0, 0, m * k).view({m, k});
    return dtype_ == kernels::DType::kFloat32 ? x : x.to(at::kBFloat16);
  }
  void Ours(const Weight& w, const Shape& s, int64_t m) const {
    static at::Tensor x = at::empty({int64_t{1} << 24}, at::kFloat).uniform_(-1, 1);
    static at::Tensor y = at::empty({int64_t{1} << 24}, at::kFloat);
    kernels::GemmParams p;
    p.m = m;
    p.x = x.data_ptr<float>();
    p.x_stride = s.k;
    p.w = {w.packed.data_ptr(), dtype_, s.n, s.k};
    p.y = y.data_ptr<float>();
    p.y_stride = s.n;
    const TorchParallel parallel(0);
    (void)kernels::Gemm(p, kernels::Launch{.parallel = &parallel});
  }

  std::vector<Shape> shapes_;
  Shape head_;
  kernels::DType dtype_;
  std::vector<Weight> weights_;
  Weight head_weight_;
};

// `work` seconds of the engine beside `ours` and `torch` seconds of the same products.
void AddRows(const std::string& name, int64_t tokens, const std::vector<double>& work,
             const std::vector<double>& ours, const std::vector<double>& torch,
             std::vector<Row>& rows) {
  const double w = Percentile(work, 0.5), o = Percentile(ours, 0.5), t = Percentile(torch, 0.5);
  rows.push_back({name, tokens / w, "tok/s", "our GEMMs alone", tokens / o, w / o, "<= 1.5"});
  if (t > 0)
    rows.push_back({name, tokens / w, "tok/s", "LibTorch GEMMs alone", tokens / t, w / t, ""});
}

absl::Status BenchPrefill(Engine& engine, const BareGemms& gemms, const Options& options,
                          const std::string& dtype, bool torch_ok, std::vector<Row>& rows) {
  const int64_t chunk = EngineOptions{}.max_prefill_rows;
  std::vector<double> work, ours, torch;
  for (int i = 0; i <= options.repeat; ++i) {
    ANABRANCH_ASSIGN_OR_RETURN(SequencePtr sequence, engine.NewSequence());
    auto tokens = SomeTokens(kPrefillTokens, engine.model().description().vocab);
    absl::Status status;
    const double w = TimeOnce([&] { status = ReadAll(engine, sequence, std::move(tokens)); });
    ANABRANCH_RETURN_IF_ERROR(status);
    double o = 0, t = 0;
    for (int64_t done = 0; done < kPrefillTokens; done += chunk) {
      o += gemms.OursSeconds(chunk, 1);
      if (torch_ok) t += gemms.TorchSeconds(chunk, 1);
    }
    if (i == 0) continue;  // warm-up
    work.push_back(w), ours.push_back(o), torch.push_back(t);
  }
  AddRows("prefill 2,048 tokens, " + dtype, kPrefillTokens, work, ours, torch, rows);
  return absl::OkStatus();
}

absl::Status BenchDecode(Engine& engine, const BareGemms& gemms, const Options& options,
                         const std::string& dtype, int batch, bool torch_ok,
                         std::vector<Row>& rows) {
  std::vector<double> work, ours, torch;
  std::vector<SequencePtr> sequences;
  for (int s = 0; s < batch; ++s) {
    ANABRANCH_ASSIGN_OR_RETURN(SequencePtr sequence, engine.NewSequence());
    ANABRANCH_RETURN_IF_ERROR(
        ReadAll(engine, sequence, SomeTokens(16 + s, engine.model().description().vocab)));
    sequences.push_back(std::move(sequence));
  }
  for (int i = 0; i <= options.repeat; ++i) {
    absl::Status status;
    const double w = TimeOnce([&] { status = GenerateAll(engine, sequences, kDecodeTokens); });
    ANABRANCH_RETURN_IF_ERROR(status);
    double o = 0, t = 0;
    for (int64_t step = 0; step < kDecodeTokens; ++step) {
      o += gemms.OursSeconds(batch, batch);
      if (torch_ok) t += gemms.TorchSeconds(batch, batch);
    }
    if (i == 0) continue;
    work.push_back(w), ours.push_back(o), torch.push_back(t);
  }
  AddRows(absl::StrCat("decode, batch ", batch, ", ", dtype), batch * kDecodeTokens, work, ours,
          torch, rows);
  return absl::OkStatus();
}

absl::Status BenchFork(Engine& engine, std::vector<Row>& rows) {
  ANABRANCH_ASSIGN_OR_RETURN(SequencePtr parent, engine.NewSequence());
  ANABRANCH_RETURN_IF_ERROR(
      ReadAll(engine, parent, SomeTokens(2000, engine.model().description().vocab)));
  std::vector<double> seconds;
  for (int i = 0; i < 1000; ++i) {
    absl::StatusOr<SequencePtr> child;
    seconds.push_back(TimeOnce([&] { child = engine.Fork(parent); }));
    ANABRANCH_RETURN_IF_ERROR(child.status());
  }
  rows.push_back({"fork of a 2,000-token context, p50", Percentile(seconds, 0.5) * 1e3, "ms", "", 0,
                  0, "< 1 ms"});
  rows.push_back({"fork of a 2,000-token context, p99", Percentile(seconds, 0.99) * 1e3, "ms", "",
                  0, 0, "< 1 ms"});
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<Row>> RunEngineBench(const Options& options) {
  // LibTorch's bfloat16 products use AMX where the CPU announces it, and die where the kernel does
  // not permit it; ask for the next lower instruction set instead.
  setenv("DNNL_MAX_CPU_ISA", "AVX512_CORE_BF16", 0);
  std::vector<Row> rows;
  for (const kernels::DType dtype : {kernels::DType::kFloat32, kernels::DType::kBFloat16}) {
    const std::string name = dtype == kernels::DType::kFloat32 ? "float32" : "bfloat16";
    ANABRANCH_ASSIGN_OR_RETURN(auto engine, LoadEngine(options.model, dtype, options.threads));
    const BareGemms gemms(engine->model().description(), dtype);
    ANABRANCH_RETURN_IF_ERROR(BenchPrefill(*engine, gemms, options, name, true, rows));
    for (const int batch : {1, 8, 32}) {
      ANABRANCH_RETURN_IF_ERROR(BenchDecode(*engine, gemms, options, name, batch, true, rows));
    }
    if (dtype == kernels::DType::kFloat32) ANABRANCH_RETURN_IF_ERROR(BenchFork(*engine, rows));
  }
  return rows;
}

}  // namespace anabranch::bench
