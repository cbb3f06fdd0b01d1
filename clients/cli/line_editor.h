// Lines that a user types: editing and history on a terminal, plain lines otherwise.
//
//   LineEditor editor(std::cin, /*terminal=*/true);
//   LineEditor::Line line = editor.Read("you> ");
#pragma once

#include <iosfwd>
#include <string>

#include "absl/strings/string_view.h"

namespace anabranch::cli {

class LineEditor {
 public:
  enum class Kind { kText, kInterrupted, kEnd };
  struct Line {
    Kind kind;
    std::string text;
  };

  // With `terminal` the line is read from the process's terminal with readline, otherwise from
  // `in`. At most one editor on a terminal at a time.
  LineEditor(std::istream& in, bool terminal);

  // Ctrl-C drops the line (kInterrupted), Ctrl-D on an empty line is the end. The prompt is shown
  // on terminals only. Lines with text go into the history, which lasts as long as the process.
  Line Read(absl::string_view prompt);

 private:
  Line ReadTerminal(absl::string_view prompt);

  std::istream& in_;
  bool terminal_;
};

}  // namespace anabranch::cli
