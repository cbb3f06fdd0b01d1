// How a finished turn looks to programs; `ask` and `chat` print the same line.
#pragma once

#include "clients/cli/json_output.h"
#include "clients/cli/turn.h"

namespace anabranch::cli {

// {"type": "done", "text", "finish_reason", "usage", "session", "state"}; usage is that of the
// whole turn, session and state are those after its commit.
inline Json TurnJson(const TurnResult& turn) {
  return {{"type", "done"},
          {"text", turn.reply.text()},
          {"finish_reason", v1::FinishReason_Name(turn.reply.finish_reason())},
          {"usage", ToJson(turn.usage)},
          {"session", ToJson(turn.commit.session())},
          {"state", ToJson(turn.commit.state())}};
}

}  // namespace anabranch::cli
