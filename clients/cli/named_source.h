// A point to go on from, as people name it: a session, a ref or a state.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "clients/cli/state_id.h"

namespace anabranch::cli {

// Makes a call whose request has session_id, ref_name and state_id. A name may be that of a
// session, whose end is meant, or of a ref. `call(request)` gives a StatusOr.
template <typename Request, typename Call>
auto CallFrom(const std::string& source, Request request, Call call) -> decltype(call(request)) {
  if (LooksLikeStateId(source)) {
    request.set_state_id(source);
    return call(request);
  }
  request.set_session_id(source);
  auto result = call(request);
  if (!absl::IsNotFound(result.status())) return result;
  request.set_ref_name(source);
  result = call(request);
  if (!absl::IsNotFound(result.status())) return result;
  return absl::NotFoundError(absl::StrCat("there is no session and no ref named ", source));
}

}  // namespace anabranch::cli
