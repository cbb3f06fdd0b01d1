#include "service/checkpoint_policy.h"

#include <algorithm>
#include <utility>

#include "absl/numeric/bits.h"
#include "absl/strings/str_cat.h"
#include "service/error_info.h"
#include "service/proto_conversion.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

constexpr int64_t kMinEvery = 16, kMaxEvery = 1 << 24;
constexpr int64_t kGrainWithoutGrid = 256;  // of turn ends and idle captures alone

bool MayThin(const LineState& state, const CheckpointPolicy& policy, int64_t head) {
  if (state.position >= head) return false;
  if (state.kind == CaptureReason::kTurn) return policy.thin_turn_ends;
  return state.kind == CaptureReason::kGrid || state.kind == CaptureReason::kIdle;
}

// How far apart states that far from the head stay: up to 4 grains behind it one grain, and from
// there on a quarter to a half of the distance, rounded to a power of two. With half of the
// distance at most, going back d tokens replays at most about d.
int64_t Spacing(int64_t position, int64_t head, int64_t grain) {
  const uint64_t steps = head / grain - position / grain;
  const int octave = steps == 0 ? 0 : absl::bit_width(steps) - 1;
  return grain << std::max(0, octave - 1);
}

// A state goes if one before it lies in the same stretch of its own spacing: grid positions stay
// where they are multiples of the spacing. One that goes in this pass counts too, as it would have
// counted when the session was shorter.
void Coarsen(const CheckpointPolicy& policy, bool logarithmic, int64_t grain, int64_t head,
             std::vector<LineState>* line, std::vector<std::string>* thinned) {
  int64_t before = -1;  // position of the state before that may be thinned
  std::vector<LineState> kept;
  for (LineState& state : *line) {
    if (!MayThin(state, policy, head)) {
      kept.push_back(std::move(state));
      continue;
    }
    const int64_t spacing = logarithmic ? Spacing(state.position, head, grain) : grain;
    const bool goes = before >= 0 && before / spacing == state.position / spacing;
    before = state.position;
    if (goes) {
      thinned->push_back(std::move(state.id));
    } else {
      kept.push_back(std::move(state));
    }
  }
  *line = std::move(kept);
}

bool WithinLimits(const CheckpointPolicy& policy, int64_t head,
                  const std::vector<LineState>& line) {
  int64_t states = 0, bytes = 0;
  for (const LineState& state : line) {
    if (!MayThin(state, policy, head)) continue;
    ++states;
    bytes += state.bytes;
  }
  return (policy.max_states == 0 || states <= policy.max_states) &&
         (policy.max_bytes == 0 || bytes <= policy.max_bytes);
}

}  // namespace

absl::StatusOr<CheckpointPolicy> ParseCheckpointPolicy(const v1::CheckpointPolicy& policy) {
  CheckpointPolicy result;
  result.turn_ends = !policy.skip_turn_ends();
  result.every = policy.every();
  if (result.every < -1 || (result.every > 0 && result.every < kMinEvery) ||
      result.every > kMaxEvery) {
    return InvalidField(
        "checkpoints.every",
        absl::StrCat("is ", result.every, ", must be -1, 0 or ", kMinEvery, " to ", kMaxEvery));
  }
  if (policy.thinning() < v1::THINNING_UNSPECIFIED ||
      policy.thinning() > v1::THINNING_LOGARITHMIC) {
    return InvalidField("checkpoints.thinning", "is none that this server knows");
  }
  result.keep_grid = policy.thinning() == v1::THINNING_NONE;
  result.thin_turn_ends = policy.thin_turn_ends();
  result.max_states = policy.max_states();
  result.max_bytes = policy.max_bytes();
  if (result.max_states < 0) return InvalidField("checkpoints.max_states", "must not be negative");
  if (result.max_bytes < 0) return InvalidField("checkpoints.max_bytes", "must not be negative");
  ANABRANCH_ASSIGN_OR_RETURN(result.codec, ParseCodec("checkpoints.codec", policy.codec()));
  if (result.codec == StateCodec::kArchive) {
    return InvalidField("checkpoints.codec",
                        "may not be ARCHIVE: captures would keep nothing. States are archived one "
                        "by one, with RecodeState");
  }
  return result;
}

v1::CheckpointPolicy ToProto(const CheckpointPolicy& policy) {
  v1::CheckpointPolicy result;
  result.set_skip_turn_ends(!policy.turn_ends);
  result.set_every(policy.every);
  result.set_thinning(policy.keep_grid ? v1::THINNING_NONE : v1::THINNING_LOGARITHMIC);
  result.set_thin_turn_ends(policy.thin_turn_ends);
  result.set_max_states(policy.max_states);
  result.set_max_bytes(policy.max_bytes);
  if (policy.codec.has_value()) result.set_codec(ToProto(*policy.codec));
  return result;
}

std::string KindName(const StateRecord& record) {
  if (record.operation != StateOperation::kAppend) return OperationName(record.operation);
  switch (record.kind) {
    case CaptureReason::kIdle:
      return "idle";
    case CaptureReason::kGrid:
      return "grid";
    case CaptureReason::kTurn:
      return "turn";
    case CaptureReason::kFork:
      return "fork";
    case CaptureReason::kMark:
      return "mark";
    case CaptureReason::kUnknown:
      break;
  }
  return "";
}

std::vector<std::string> ThinLine(const CheckpointPolicy& policy, int64_t every, int64_t head,
                                  std::vector<LineState>* line) {
  std::vector<std::string> thinned;
  int64_t grain = every > 0 ? every : kGrainWithoutGrid;
  if (!policy.keep_grid) Coarsen(policy, /*logarithmic=*/true, grain, head, line, &thinned);
  while (!WithinLimits(policy, head, *line) && grain <= head) {
    grain *= 2;
    Coarsen(policy, !policy.keep_grid, grain, head, line, &thinned);
  }
  for (auto it = line->begin(); it != line->end() && !WithinLimits(policy, head, *line);) {
    if (!MayThin(*it, policy, head)) {
      ++it;
      continue;
    }
    thinned.push_back(std::move(it->id));
    it = line->erase(it);
  }
  return thinned;
}

}  // namespace anabranch
