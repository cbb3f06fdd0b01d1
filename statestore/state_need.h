// What else in the library needs a state, and how much of it.
#pragma once

#include "absl/status/statusor.h"
#include "statestore/key_value.h"
#include "statestore/records.h"

namespace anabranch {

struct StateNeed {
  bool named = false;  // by a ref, or as a session's head
  // Counted up to a few more than one; all of them are looked at.
  int children = 0;
  // A computed state was made of it, or there are too many children to look at.
  bool computed_child = false;
  // It could be read again from its tokens: it is no computed state itself.
  bool readable_again = false;

  bool any() const { return named || children > 0; }
  // Its content can go: at most other appended states need its tokens.
  bool tokens_only() const { return readable_again && !named && !computed_child; }
};

absl::StatusOr<StateNeed> NeedOf(const KeyValueReader& reader, const StateRecord& record);

}  // namespace anabranch
