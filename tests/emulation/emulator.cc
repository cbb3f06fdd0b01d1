#include "tests/emulation/emulator.h"

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace anabranch::emulation {
namespace {

constexpr size_t kStackBytes = 128 * 1024;
constexpr size_t kMostShared = 227 * 1024;
constexpr unsigned kMostThreads = 1024;

// A barrier of threads that end one by one: it opens when all that are left have come.
struct Barrier {
  int left = 0, waiting = 0;
  int opened = 0;  // times

  void Come() {
    ++waiting;
    Check();
  }
  void Leave() {
    --left;
    Check();
  }

 private:
  void Check() {
    if (left == 0 || waiting < left) return;
    waiting = 0;
    ++opened;
  }
};

// A context of its own begins each thread; from then on switches are jumps, which make no system
// calls.
struct Fiber {
  ucontext_t begin;
  jmp_buf at;
  std::unique_ptr<char[]> stack;
  bool started = false, done = false;
  // What it waits for, and how often that had opened before.
  const Barrier* waits_for = nullptr;
  int opened = 0;

  bool CanGoOn() const { return !done && (waits_for == nullptr || waits_for->opened != opened); }
};

struct Emulator {
  std::vector<Fiber> fibers;
  jmp_buf scheduler;
  Fiber* running = nullptr;
  unsigned thread = 0;  // its number in the block
  const absl::FunctionRef<void()>* body = nullptr;
  Barrier block, warps[kMostThreads / kLanes];
  alignas(16) char lanes[kMostThreads][kMostBytes];
  int count = 0;  // of CountOfBlock
};
Emulator e;
alignas(1024) unsigned char shared_memory[kMostShared];

Barrier& Warp() { return e.warps[e.thread / kLanes]; }

void Yield() {
  if (_setjmp(e.running->at) == 0) _longjmp(e.scheduler, 1);
}

void Wait(Barrier& barrier) {
  Fiber& fiber = *e.running;
  fiber.waits_for = &barrier, fiber.opened = barrier.opened;
  barrier.Come();
  if (!fiber.CanGoOn()) Yield();
}

void Begin() {
  (*e.body)();
  e.running->done = true;
  e.block.Leave();
  Warp().Leave();
  _longjmp(e.scheduler, 1);
}

// Until the running thread waits or ends.
void Continue(Fiber& fiber) {
  e.running = &fiber;
  if (_setjmp(e.scheduler) != 0) return;
  if (fiber.started) _longjmp(fiber.at, 1);
  fiber.started = true;
  setcontext(&fiber.begin);
}

void Prepare(Fiber& fiber) {
  if (fiber.stack == nullptr) fiber.stack = std::make_unique<char[]>(kStackBytes);
  getcontext(&fiber.begin);
  fiber.begin.uc_stack.ss_sp = fiber.stack.get();
  fiber.begin.uc_stack.ss_size = kStackBytes;
  fiber.begin.uc_link = nullptr;
  makecontext(&fiber.begin, Begin, 0);
  fiber.started = fiber.done = false;
  fiber.waits_for = nullptr;
}

void RunBlock(unsigned threads, size_t shared) {
  std::fill_n(shared_memory, shared, 0xff);
  e.block = {static_cast<int>(threads)};
  for (unsigned t = 0; t < threads; t += kLanes) {
    e.warps[t / kLanes] = {static_cast<int>(std::min<unsigned>(kLanes, threads - t))};
  }
  for (unsigned t = 0; t < threads; ++t) Prepare(e.fibers[t]);
  while (e.block.left > 0) {
    bool progress = false;
    for (unsigned t = 0; t < threads; ++t) {
      if (!e.fibers[t].CanGoOn()) continue;
      progress = true;
      e.thread = t;
      threadIdx = {t % blockDim.x, t / blockDim.x, 0};
      Continue(e.fibers[t]);
    }
    if (progress) continue;
    std::fprintf(stderr, "threads of block %u, %u, %u wait for each other\n", blockIdx.x,
                 blockIdx.y, blockIdx.z);
    std::abort();
  }
}

}  // namespace

void RunGrid(dim3 grid, dim3 block, size_t shared, absl::FunctionRef<void()> body) {
  const unsigned threads = block.x * block.y;
  if (threads > kMostThreads || block.z != 1 || shared > kMostShared) {
    std::fprintf(stderr, "a block of %u x %u x %u threads with %zu bytes of shared memory\n",
                 block.x, block.y, block.z, shared);
    std::abort();
  }
  if (e.fibers.size() < threads) e.fibers.resize(threads);
  e.body = &body;
  gridDim = grid, blockDim = block;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        blockIdx = {x, y, z};
        RunBlock(threads, shared);
      }
    }
  }
  e.body = nullptr;
}

void* SharedMemory() { return shared_memory; }
void WaitForBlock() { Wait(e.block); }
void WaitForWarp() { Wait(Warp()); }
int Lane() { return static_cast<int>(e.thread) % kLanes; }
char* LaneBuffer(int lane) { return e.lanes[e.thread / kLanes * kLanes + lane]; }

int CountOfBlock(bool value) {
  WaitForBlock();
  e.count = 0;
  WaitForBlock();
  e.count += value;
  WaitForBlock();
  return e.count;
}

}  // namespace anabranch::emulation
