// The past of a state: which points of its context it goes on from, and the states there. Reading
// on and decay keep all points. A merge and a span have none inside, a state without a forgotten
// span none behind the place where it was, a swap none behind its base.
#pragma once

#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "service/service_context.h"
#include "service/state_loading.h"
#include "statestore/state_store.h"

namespace anabranch {

// Visits the state and the ancestors that it goes on from, token for token and in time, newest
// first, thinned ones too, until the visitor returns false. Blocks.
absl::Status VisitPast(StateStore& store, const StateRecord& state,
                       absl::FunctionRef<bool(const StateRecord&)> visit);

// The last point before the state's own end that it still goes on from: any, if it was read on or
// has aged.
int64_t PastLimit(const StateRecord& state);

// The nearest state that all go on from and that is whole; its id is empty if there is none.
// Blocks.
absl::StatusOr<std::string> NearestCommon(StateStore& store,
                                          const std::vector<StateRecord>& states);

// The deepest whole state at or before `position` that the state goes on from; id empty: the
// beginning. FAILED_PRECONDITION (NO_SUCH_POINT) if the position lies inside a computed state.
// Blocks.
absl::StatusOr<StateRecord> FindPoint(StateStore& store, const StateRecord& state,
                                      int64_t position);
// The same, with kExact only among states that are exact; but a computed state that lies before the
// position is the answer in any case, as no tokens lead to it.
absl::StatusOr<StateRecord> FindPoint(StateStore& store, const StateRecord& state, int64_t position,
                                      PrefixKind kind);

// Everything at `position` of the state's context, read again from the deepest state before it.
// Runs the engine and blocks until it is done; adds what it costs to `usage`.
absl::StatusOr<LoadedState> ReadAgain(const ServiceContext& service, const Call& call,
                                      const StateRecord& state, int64_t position, PrefixKind kind,
                                      v1::Usage* usage);
// The same, but at the state's own end it is loaded if its content is there. At 0 the image is
// empty and its token_count 0.
absl::StatusOr<LoadedState> StateAt(const ServiceContext& service, const Call& call,
                                    const StateRecord& state, int64_t position, v1::Usage* usage);

// Each state at its own end, as StateAt; those whose content is there are loaded side by side.
absl::StatusOr<std::vector<LoadedState>> StatesAtEnds(const ServiceContext& service,
                                                      const Call& call,
                                                      absl::Span<const StateRecord> states,
                                                      v1::Usage* usage);

// Reads `tokens`, the whole context, from where `loaded` ends (a state that can be restored, or
// nothing) to their end; `loaded` then holds the tokens and the image there. Otherwise as StateAt.
absl::Status Replay(const ServiceContext& service, const Call& call, std::vector<int32_t> tokens,
                    LoadedState& loaded, v1::Usage* usage);

// How many tokens' time the state's T covers. Blocks.
absl::StatusOr<int64_t> ElapsedTokens(StateStore& store, const StateRecord& state);

// One of a computed state's parameters; empty if it has none of that name.
std::string ParameterOf(const StateRecord& state, absl::string_view name);
// The parameter that says so, with a space in front; empty where it goes without saying.
std::string ElapsedParameter(int64_t elapsed, int64_t token_count);

}  // namespace anabranch
