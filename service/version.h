// The version of this build, from the project's CMakeLists.txt.
#pragma once

namespace anabranch {

// "0.1.0".
inline constexpr char kVersion[] = ANABRANCH_VERSION;

}  // namespace anabranch
