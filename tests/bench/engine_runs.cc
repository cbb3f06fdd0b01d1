#include "tests/bench/engine_runs.h"

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "runtime/random_model.h"
#include "statestore/base/status_macros.h"
#include "tests/bench/shapes.h"

namespace anabranch::bench {

absl::StatusOr<std::unique_ptr<Engine>> LoadEngine(const std::string& model_dir,
                                                   kernels::DType dtype, int threads) {
  LoadOptions load;
  load.dtype = dtype;
  load.num_threads = threads;
  std::shared_ptr<Model> model;
  if (const Shape* shape = FindShape(model_dir)) {
    ANABRANCH_ASSIGN_OR_RETURN(model, MakeRandomModel(shape->config, load));
  } else {
    ANABRANCH_ASSIGN_OR_RETURN(model, Model::Load(model_dir, load));
  }
  return Engine::Create(std::move(model), EngineOptions{});
}

EngineOptions OptionsForReadsOf(int64_t length) {
  EngineOptions options;
  options.slots.num_slots = 2;
  options.slots.num_kv_pages = static_cast<int32_t>(2 * (length / kKvPageTokens + 1));
  options.max_prefill_rows = static_cast<int32_t>(length);
  options.max_context_tokens = length;
  return options;
}

std::vector<int32_t> SomeTokens(int64_t count, int64_t vocab) {
  std::vector<int32_t> tokens(count);
  uint64_t x = 88172645463325252u;
  for (int32_t& token : tokens) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    token = static_cast<int32_t>(x % vocab);
  }
  return tokens;
}

absl::Status ReadAll(Engine& engine, const SequencePtr& sequence, std::vector<int32_t> tokens) {
  absl::Notification done;
  absl::Status result;
  ReadWork work;
  work.sequence = sequence;
  work.tokens = std::move(tokens);
  work.on_done = [&](absl::Status status, const WorkStats&) {
    result = std::move(status);
    done.Notify();
  };
  ANABRANCH_RETURN_IF_ERROR(engine.Submit(std::move(work)));
  done.WaitForNotification();
  return result;
}

absl::Status GenerateAll(Engine& engine, const std::vector<SequencePtr>& sequences, int64_t count,
                         int64_t checkpoint_every, StateCodec codec) {
  absl::BlockingCounter left(static_cast<int>(sequences.size()));
  absl::Mutex mutex;
  absl::Status result;
  for (const SequencePtr& sequence : sequences) {
    GenerateWork work;
    work.sequence = sequence;
    work.max_tokens = count;
    work.checkpoint_every = checkpoint_every;
    work.checkpoint_codec = codec;
    work.on_checkpoint = [&](int64_t, absl::StatusOr<StateImage> image) {
      absl::MutexLock lock(&mutex);
      result.Update(image.status());
    };
    work.on_done = [&](absl::Status status, const WorkStats&, FinishReason) {
      {
        absl::MutexLock lock(&mutex);
        result.Update(status);
      }
      left.DecrementCount();
    };
    absl::Status submitted = engine.Submit(std::move(work));
    if (!submitted.ok()) {
      absl::MutexLock lock(&mutex);
      result.Update(submitted);
      left.DecrementCount();
    }
  }
  left.Wait();
  absl::MutexLock lock(&mutex);
  return result;
}

}  // namespace anabranch::bench
