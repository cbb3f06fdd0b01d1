// What is done with states: capture, restore, fork, copy on the first write.
#include <cstring>

#include "absl/strings/str_cat.h"
#include "runtime/state_codec.h"
#include "runtime/tensor_memory.h"
#include "statestore/base/status_macros.h"
#include "tests/bench/bench.h"
#include "tests/bench/engine_runs.h"
#include "tests/bench/shape_bench.h"
#include "tests/bench/stored_context.h"
#include "tests/bench/temporary_directory.h"

namespace anabranch::bench {
namespace {

constexpr char kPart[] = "states";
constexpr int64_t kContext = 2048;

size_t BytesOf(const StateImage& image) {
  size_t bytes = image.payload.size();
  for (const std::string& block : image.kv_blocks) bytes += block.size();
  return bytes;
}

std::vector<CopyPart> SlotParts(SlotPool& pool, const SlotRef& ref, char* host, bool to_host) {
  std::vector<CopyPart> parts;
  const std::vector<StateEntry>& entries = pool.layout().entries;
  for (int e = 0; e < static_cast<int>(entries.size()); ++e) {
    if (entries[e].paged()) continue;
    const absl::Span<uint8_t> bytes = pool.SlotBytes(ref, e);
    to_host ? parts.push_back({bytes.data(), host, bytes.size()})
            : parts.push_back({host, bytes.data(), bytes.size()});
    host += bytes.size();
  }
  return parts;
}

// The bare movements of a slot, as no engine can be faster.
absl::Status BenchSlots(ShapeRun& run) {
  Device& device = *run.model->device();
  const StateLayout& layout = run.model->state_layout();
  SlotPool::Options options;
  options.num_slots = 4;
  options.num_kv_pages = 8;
  ANABRANCH_ASSIGN_OR_RETURN(auto pool, SlotPool::Create(layout, options, run.model->device()));
  ANABRANCH_ASSIGN_OR_RETURN(SlotRef ref, pool->Acquire());
  const auto bytes = static_cast<double>(layout.slot_bytes());
  ANABRANCH_ASSIGN_OR_RETURN(const Buffer pinned, device.AllocateHost(layout.slot_bytes()));
  std::memset(pinned.data(), 0, pinned.size());
  auto* host = static_cast<char*>(pinned.data());
  const int runs = run.options.quick ? 10 : 50;
  const auto add = [&](const char* name, double floor, absl::FunctionRef<absl::Status()> body) {
    auto figure = Measure(kPart, name, runs, body);
    if (!figure.ok()) return figure.status();
    figure->floor = floor * 1e3;
    run.report.Add(*std::move(figure));
    return absl::OkStatus();
  };
  ANABRANCH_RETURN_IF_ERROR(add("slot to pinned memory", bytes / run.ceilings.to_host, [&] {
    return device.Copy(CopyDirection::kToHost, SlotParts(*pool, ref, host, true));
  }));
  ANABRANCH_RETURN_IF_ERROR(add("pinned memory to slot", bytes / run.ceilings.to_device, [&] {
    return device.Copy(CopyDirection::kToDevice, SlotParts(*pool, ref, host, false));
  }));
  ANABRANCH_RETURN_IF_ERROR(
      add("copy on the first write of a fork", 2 * bytes / run.ceilings.copy_bytes, [&] {
        SlotRef fork = pool->Share(ref);
        const absl::Status status = pool->PrepareWrite(fork, 1);
        pool->Release(fork);
        return status;
      }));
  ANABRANCH_RETURN_IF_ERROR(
      add("empty slot", bytes / run.ceilings.copy_bytes, [&]() -> absl::Status {
        ANABRANCH_ASSIGN_OR_RETURN(SlotRef empty, pool->Acquire());
        pool->Release(empty);
        return absl::OkStatus();
      }));
  pool->Release(ref);
  return absl::OkStatus();
}

// Restores of a state that a library holds and has given once before.
absl::Status BenchLibrary(ShapeRun& run, Engine& engine, StoredContext context,
                          const std::string& codec) {
  const TemporaryDirectory directory(run.options.directory);
  StoreOptions options;
  options.directory = directory.path();
  ANABRANCH_ASSIGN_OR_RETURN(auto store, OpenStateStore(options));
  const auto bytes = static_cast<double>(BytesOf(context.image));
  ANABRANCH_ASSIGN_OR_RETURN(const std::string id,
                             StoreContext(engine, *store, std::move(context)));
  ANABRANCH_ASSIGN_OR_RETURN(
      Figure figure,
      Measure(kPart, absl::StrCat("restore, ", codec, ", from a library"), 10,
              [&]() -> absl::Status {
                ANABRANCH_ASSIGN_OR_RETURN(StoredContext loaded, LoadContext(engine, *store, id));
                return engine.Restore(loaded.image, std::move(loaded.tokens)).status();
              }));
  figure.floor = 1e3 * bytes / run.ceilings.to_device;
  figure.note = "read from what the system caches, and checked";
  run.report.Add(std::move(figure));
  return absl::OkStatus();
}

absl::Status BenchCodec(ShapeRun& run, Engine& engine, const SequencePtr& sequence,
                        const std::vector<int32_t>& tokens, const std::string& name) {
  ANABRANCH_ASSIGN_OR_RETURN(const StateCodec codec, ParseStateCodec(name));
  const int runs = run.options.quick ? 7 : 20;
  StateImage image;
  ANABRANCH_ASSIGN_OR_RETURN(
      Figure capture, Measure(kPart, absl::StrCat("capture, ", name), runs, [&]() -> absl::Status {
        ANABRANCH_ASSIGN_OR_RETURN(image, engine.Capture(sequence, codec));
        return absl::OkStatus();
      }));
  const auto bytes = static_cast<double>(BytesOf(image));
  capture.floor = 1e3 * bytes / run.ceilings.to_host;
  capture.note = absl::StrCat(Grouped(static_cast<int64_t>(bytes)), " bytes, checked");
  run.report.Add(std::move(capture));
  // Where the engine does not take the form, the host decodes: part of restoring.
  const auto restore = [&]() -> absl::Status {
    if (engine.Restores(image.header)) return engine.Restore(image, tokens).status();
    ANABRANCH_ASSIGN_OR_RETURN(const StateImage exact,
                               DecodeState(run.model->state_layout(), image));
    return engine.Restore(exact, tokens).status();
  };
  for (const char* from : {"pinned", "ordinary"}) {
    ANABRANCH_ASSIGN_OR_RETURN(
        Figure figure,
        Measure(kPart, absl::StrCat("restore, ", name, ", from ", from, " memory"), runs, restore));
    figure.floor = 1e3 * bytes / run.ceilings.to_device;
    figure.note = "checked";
    run.report.Add(std::move(figure));
    image.payload.text();  // as it comes from a library
  }
  if (!engine.Restores(image.header)) return absl::OkStatus();
  return BenchLibrary(run, engine, {std::move(image), tokens}, name);
}

absl::Status BenchImages(ShapeRun& run) {
  EngineOptions options;
  options.slots.num_slots = 12;
  options.slots.num_kv_pages = 256;
  options.max_prefill_rows = kContext;
  ANABRANCH_ASSIGN_OR_RETURN(auto engine, Engine::Create(run.model, options));
  const auto tokens = SomeTokens(kContext, run.model->description().vocab);
  ANABRANCH_ASSIGN_OR_RETURN(SequencePtr sequence, engine->NewSequence());
  ANABRANCH_RETURN_IF_ERROR(ReadAll(*engine, sequence, tokens));
  for (const std::string& codec : run.options.codecs) {
    ANABRANCH_RETURN_IF_ERROR(BenchCodec(run, *engine, sequence, tokens, codec));
  }
  ANABRANCH_ASSIGN_OR_RETURN(Figure fork, Measure(kPart, "fork, state shared", 200,
                                                  [&] { return engine->Fork(sequence).status(); }));
  run.report.Add(std::move(fork));
  return absl::OkStatus();
}

}  // namespace

absl::Status BenchStates(ShapeRun& run) {
  ANABRANCH_RETURN_IF_ERROR(BenchSlots(run));
  return BenchImages(run);
}

}  // namespace anabranch::bench
