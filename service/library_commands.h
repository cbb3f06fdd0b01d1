// `anabranchd library ...`: what an operator does with a library that no server has open.
#pragma once

#include <cstdint>
#include <string>

namespace anabranch {

struct LibraryCommand {
  enum class Action { kBackup, kRestore, kVerify, kList } action = Action::kList;
  std::string directory;  // of the library
  std::string backups;    // of backups
  int64_t id = 0;         // of a backup; 0: the newest complete one
  int keep = 0;
};

// Prints what it did, or why not; progress goes to stderr. The exit status: 0, 1 for errors, 2 if
// something is damaged.
int RunLibraryCommand(const LibraryCommand& command);

}  // namespace anabranch
