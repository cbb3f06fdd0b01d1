// Speed of the kernels at the shapes of the embedded model: kernels_bench [threads...]
// Prints GFLOP/s of Gemm, and nanoseconds per token of the others; the best of several runs.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "kernels/attention.h"
#include "kernels/causal_conv1d.h"
#include "kernels/elementwise.h"
#include "kernels/gemm.h"
#include "kernels/norm.h"
#include "kernels/selective_scan.h"
#include "kernels/ssd_scan.h"

namespace anabranch::kernels {
namespace {

// Equal ranges on threads that spin between calls, so that hand-over costs under a microsecond.
class SpinParallel : public Parallel {
 public:
  explicit SpinParallel(int threads) : threads_(threads) {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { Work(i); });
  }
  ~SpinParallel() override {
    body_ = nullptr;
    ++epoch_;
    for (std::thread& w : workers_) w.join();
  }
  void For(int64_t n, int64_t grain,
           absl::FunctionRef<void(int64_t, int64_t)> body) const override {
    if (threads_ == 1 || n <= grain) return body(0, n);
    n_ = n;
    body_ = &body;
    left_ = threads_ - 1;
    ++epoch_;
    body(0, n / threads_);
    while (left_.load() > 0) {
    }
  }

 private:
  void Work(int me) const {
    for (int64_t seen = 0;;) {
      while (epoch_.load() == seen) {
      }
      ++seen;
      if (body_ == nullptr) return;
      (*body_)(n_ * me / threads_, n_ * (me + 1) / threads_);
      --left_;
    }
  }
  int threads_;
  mutable int64_t n_ = 0;
  mutable absl::FunctionRef<void(int64_t, int64_t)>* body_ = nullptr;
  mutable std::atomic<int64_t> epoch_{0};
  mutable std::atomic<int> left_{0};
  std::vector<std::thread> workers_;
};

template <class Body>
double BestSeconds(const Body& body) {
  using Clock = std::chrono::steady_clock;
  double best = 1e9, total = 0;
  for (int i = 0; i < 500 && total < 0.25; ++i) {
    const Clock::time_point start = Clock::now();
    body();
    const double took = std::chrono::duration<double>(Clock::now() - start).count();
    best = std::min(best, took);
    total += took;
  }
  return best;
}

struct Buffer {  // 64-byte aligned floats
  explicit Buffer(int64_t n, float value = 0.5f)
      : p(static_cast<float*>(std::aligned_alloc(64, (n * sizeof(float) + 127) / 64 * 64))) {
    for (int64_t i = 0; i < n; ++i) p[i] = value * static_cast<float>(i % 7 - 3);
  }
  ~Buffer() { std::free(p); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  float* p;
};

void BenchGemm(DType dtype, int64_t m, int64_t k, int64_t n, const Launch& launch) {
  const Buffer x(m * k), y(m * n), raw(n * k),
      packed(static_cast<int64_t>(PackedBytes(dtype, n, k)) / 4);
  PackMatrix(dtype, raw.p, n, k, packed.p);
  GemmParams g;
  g.m = m, g.x = x.p, g.x_stride = k, g.w = {packed.p, dtype, n, k}, g.y = y.p, g.y_stride = n;
  const double s = BestSeconds([&] { (void)Gemm(g, launch); });
  std::printf("  gemm %-4s m=%-4ld k=%-4ld n=%-5ld %8.1f us %7.1f GFLOP/s\n",
              dtype == DType::kFloat32 ? "f32" : "bf16", static_cast<long>(m), static_cast<long>(k),
              static_cast<long>(n), s * 1e6, 2e-9 * m * n * k / s);
}

void PrintPerToken(const char* what, int64_t tokens, double seconds) {
  std::printf("  %-44s tokens=%-4ld %8.1f us %9.1f ns/token\n", what, static_cast<long>(tokens),
              seconds * 1e6, seconds * 1e9 / static_cast<double>(tokens));
}

void BenchScans(int32_t tokens, const Launch& launch) {
  const int32_t row_start[] = {0, tokens}, slot[] = {0};
  const PackedRows rows{1, tokens, tokens, row_start, slot};
  {
    const Buffer x(tokens * 768, 0.1f), b(tokens * 64, 0.1f), c(tokens * 64), dt(tokens * 12),
        a(12, 0.2f), d(12), bias(12), state(12 * 64 * 64), y(tokens * 768);
    for (int i = 0; i < 12; ++i) a.p[i] = -0.1f * static_cast<float>(i + 1);
    std::vector<double> t(12);
    SsdScanParams p;
    p.rows = rows, p.heads = 12, p.head_dim = 64, p.state_dim = 64;
    p.x = x.p, p.b = b.p, p.c = c.p, p.dt = dt.p;
    p.x_stride = 768, p.b_stride = 64, p.c_stride = 64, p.dt_stride = 12;
    p.a = a.p, p.d = d.p, p.dt_bias = bias.p, p.dt_hi = 1e30f;
    p.state = state.p, p.t_sum = t.data(), p.y = y.p, p.y_stride = 768;
    PrintPerToken("ssd_scan 12 heads x 64 x 64", tokens,
                  BestSeconds([&] { (void)SsdScan(p, launch); }));
  }
  {
    const int64_t n = 1536;
    const Buffer u(tokens * n, 0.1f), dt(tokens * n), z(tokens * n), b(tokens * 16, 0.1f),
        c(tokens * 16), a(n * 16), d(n), bias(n), state(n * 16), y(tokens * n);
    for (int i = 0; i < n * 16; ++i) a.p[i] = -1.0f - static_cast<float>(i % 16);
    std::vector<double> t(n);
    SelectiveScanParams p;
    p.rows = rows, p.channels = n, p.state_dim = 16;
    p.u = u.p, p.dt = dt.p, p.b = b.p, p.c = c.p, p.z = z.p;
    p.u_stride = p.dt_stride = p.z_stride = p.y_stride = n, p.b_stride = p.c_stride = 16;
    p.a = a.p, p.d = d.p, p.dt_bias = bias.p, p.state = state.p, p.t_sum = t.data(), p.y = y.p;
    PrintPerToken("selective_scan 1536 channels x 16", tokens,
                  BestSeconds([&] { (void)SelectiveScan(p, launch); }));
  }
  {
    const int64_t n = 896;
    const Buffer u(tokens * 1676), w(4 * n), bias(n), window(3 * n), out(tokens * n);
    CausalConv1dParams p;
    p.rows = rows, p.channels = n, p.u = u.p, p.u_stride = 1676, p.weight = w.p, p.bias = bias.p;
    p.window = window.p, p.out = out.p, p.out_stride = n;
    PrintPerToken("causal_conv1d 896 channels, width 4, silu", tokens,
                  BestSeconds([&] { (void)CausalConv1d(p, launch); }));
  }
}

void BenchRows(int32_t tokens, const Launch& launch) {
  const int32_t slot[] = {0};
  const Buffer x(tokens * 1676), w(1024), y(tokens * 1024);
  GatedRmsNormParams g;
  g.norm.rows = tokens, g.norm.width = 768, g.norm.x = x.p, g.norm.x_stride = 1676;
  g.norm.weight = w.p, g.norm.eps = 1e-5f, g.norm.y = y.p, g.norm.y_stride = 768;
  g.z = x.p, g.z_stride = 1676;
  PrintPerToken("gated_rms_norm 768", tokens, BestSeconds([&] { (void)GatedRmsNorm(g, launch); }));
  RmsNormParams n = g.norm;
  n.width = 384, n.y_stride = 384;
  PrintPerToken("rms_norm 384", tokens, BestSeconds([&] { (void)RmsNorm(n, launch); }));

  const int32_t reads = std::min(tokens, 32);  // short enough for one time slice
  const int32_t read_start[] = {0, reads};
  const int64_t context = 1024 + reads, pages = (context + 255) / 256;
  std::vector<int32_t> page(static_cast<size_t>(pages));
  for (size_t i = 0; i < page.size(); ++i) page[i] = static_cast<int32_t>(i);
  const int32_t page_start[] = {0, static_cast<int32_t>(pages)};
  const int64_t position[] = {1024};
  const Buffer kv(pages * 256 * 256 * 2), q(tokens * 1024, 0.1f);
  AttentionParams a;
  a.rows = {1, read_start[1], read_start[1], read_start, slot}, a.position = position, a.heads = 8,
  a.kv_heads = 4, a.head_dim = 64;
  a.scale = 0.125f, a.q = q.p, a.k = q.p, a.v = q.p, a.q_stride = a.k_stride = a.v_stride = 512;
  a.kv.keys = kv.p, a.kv.values = kv.p + pages * 256 * 256, a.kv.page_stride = 256 * 256;
  a.kv.pages = page.data(), a.kv.page_start = page_start, a.y = y.p, a.y_stride = 512;
  const Buffer scratch(AttentionScratch(a, context));
  a.scratch = scratch.p;
  PrintPerToken("attention 8/4 heads x 64 after 1024 tokens", reads,
                BestSeconds([&] { (void)Attention(a, launch); }));
}

void Bench(int threads) {
  const SpinParallel pool(threads);
  const Launch launch{.parallel = &pool};
  std::printf("%d thread(s)\n", threads);
  const int64_t shapes[][2] = {{384, 1676}, {768, 384}, {384, 4096}};
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (int64_t m : {1, 2, 4, 8, 16, 64, 256}) {
      for (const auto& s : shapes) BenchGemm(dtype, m, s[0], s[1], launch);
    }
  }
  for (int32_t tokens : {1, 256}) {
    BenchScans(tokens, launch);
    BenchRows(tokens, launch);
  }
}

}  // namespace
}  // namespace anabranch::kernels

int main(int argc, char** argv) {
  std::vector<int> threads;
  for (int i = 1; i < argc; ++i) threads.push_back(std::max(1, std::atoi(argv[i])));
  if (threads.empty()) threads = {1, 2};
  for (int n : threads) anabranch::kernels::Bench(n);
  return 0;
}
