// Names of state codecs on the command line and in listings.
#pragma once

#include <string>
#include <vector>

#include "anabranch/v1/resources.pb.h"

namespace anabranch::cli {

// "exact", "near", "compact" or "archive"; "" for UNSPECIFIED.
std::string CodecName(v1::StateCodec codec);
// UNSPECIFIED for what is no name of one.
v1::StateCodec CodecOf(const std::string& name);
// "2.9 MiB, near (5.8 MiB exact, relative error 1.9e-05)" and so on.
std::string StoredLine(const v1::State& state);

}  // namespace anabranch::cli
